#pragma once

/* What control*.c share. */

#include "base/list.h"
#include "base/paths.h"
#include "daemon/control.h"
#include "shm/timebase.h"

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
