#pragma once

/* What control*.c share. */

#include "base/list.h"
#include "base/paths.h"
#include "daemon/control.h"
#include "shm/bucket_table.h"
#include "shm/target.h"
#include "shm/timebase.h"

#define CONTROL_TEMPLATES (BUCKET_SCOPE_MASKS * BUCKET_RESOURCES)

struct control {
	struct loop *loop;
	struct region region;
	int fd, observer_fd, lock_fd;
	char path[PATHS_MAX];
	struct timebase_tracker timebase;
	struct loop_timer heartbeat;
	uint64_t beats;
	uint64_t owner;      /* of the daemon's own holds */
	struct list orphans; /* processes that live without a socket of ours */
	/* In force: the catalog's, NULL before the first; whether its providers can be used; the
	 * rows of its limits. */
	const struct config *config;
	bool *usable;
	uint32_t *limit_row;
};

/* control_members.c */

/* After adoption: what the dead held comes back, the living are watched, the daemon gets a row. */
int control_members_init(struct control *c);
void control_members_deinit(struct control *c);
/* Looks after those who cannot be watched. */
void control_members_beat(struct control *c);

/* control_apply.c */

/* Windows that end, limits that providers name, totals and events that need mending. */
void control_apply_beat(struct control *c, uint64_t now_ns);

/* control_check.c */

/* Whether all of it can be set: ranges, names and room, as far as that is known before it is done;
 * what does not fit is logged. 0, -ENOSPC, -ERANGE, -ENAMETOOLONG, -ENOMEM. */
int control_check(const struct control *c, const struct config *config);

struct bucket_limit control_limit(const struct config_limit *l);
/* Marks the rows of a limit in keep, of whatever kind; whether there are any. */
bool control_mark_limit(const struct region *r, const struct config_limit *l, bool *keep);

/* "PROVIDER" or "PROVIDER/MODEL"; false: too long. */
bool control_target_name(
	const char *provider, const char *model, char name[TARGET_NAME_TEXT], struct str *out);
uint32_t control_find_target(const struct control *c, const char *provider, const char *model);
/* Marks those that the configuration names, those that routes in force lead to, as clients go by
 * them, and those of configured providers that an operator opened. */
void control_mark_targets(const struct control *c, const struct config *config, bool *keep);
/* The model, a view into *v, of a target that an operator opened; NULL: none, or its provider is
 * not configured. */
const char *control_forced_model(const struct control *c, const struct config *config, uint32_t row,
	struct target_view *v, unsigned *provider);
