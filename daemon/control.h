#pragma once

/*
 * The daemon's control region: adopted or created at start, kept alive by a timer, handed to
 * clients as a descriptor; limits, targets, breakers and routes follow the configuration
 * (control_apply.c); participants come, and what the dead ones held comes back
 * (control_members.c). An I/O file over shm/.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "daemon/config/config.h"
#include "daemon/io/listener.h"
#include "daemon/io/loop.h"
#include "proto/status.h"
#include "shm/bucket.h"
#include "shm/region.h"

struct control;

/* The caller holds the listener's lock: nobody else owns the region. sizes: of a region that is
 * made anew; an adopted one keeps its own, which is logged. Logs what was found and what became of
 * it. 0 or -errno. */
int control_new(struct control **out, struct loop *loop, const char *socket, const char *runtime,
	const struct region_sizes *sizes);
/* Marks the region closed; the file stays for the next daemon. */
struct control *control_free(struct control *c);

struct region *control_region(struct control *c);
/* What marks the daemon's own holds. */
uint64_t control_owner(const struct control *c);
/* Read-write for participants, read-only for observers. The control's. */
int control_fd(const struct control *c, enum listener_role role);

/*
 * Creates, changes and retires limits, targets, breakers and routes: all of them or none. usable:
 * per provider, whether it has a key or needs none; NULL: all. config must live until the next
 * that succeeds. 0, or -errno (logged): too many, or out of range; then what was in force stays.
 */
int control_configure(struct control *c, const struct config *config, const bool *usable);

/* Makes the limits that templates say for these names. 0, -ENOSPC, -ENAMETOOLONG. */
int control_resolve(struct control *c, const struct bucket_names *names);

/* What an operator asks for: a verb of PROTOCOL.md but "reload", and the target's or limit's name.
 * STATUS_OK, or the status and, in why, a sentence. */
enum status control_act(struct control *c, struct str verb, struct str name, struct buffer *why);

/* A participant's row, or -errno; *owner: what marks its holds. -ESRCH: the process cannot be seen
 * from here, by its PID namespace, so that nobody could tell that it died. */
int control_claim(struct control *c, pid_t pid, uid_t uid, uint64_t *owner);
/* Its socket has ended. What it held comes back when the process is dead, which may be now. */
void control_leave(struct control *c, int row);
