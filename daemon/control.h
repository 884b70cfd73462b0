#pragma once

/*
 * The daemon's control region: adopted or created at start, kept alive by a timer, handed to
 * clients as a descriptor, its limits following the configuration. An I/O file over shm/.
 */

#include <stdint.h>
#include "daemon/config/config.h"
#include "daemon/io/listener.h"
#include "daemon/io/loop.h"
#include "shm/region.h"

struct control;

/* The caller holds the listener's lock: nobody else owns the region. Logs what was found and
 * what became of it. 0 or -errno. */
int control_new(struct control **out, struct loop *loop, const char *socket, const char *runtime);
/* Marks the region closed; the file stays for the next daemon. */
struct control *control_free(struct control *c);

struct region *control_region(struct control *c);
/* Read-write for participants, read-only for observers. The control's. */
int control_fd(const struct control *c, enum listener_role role);

/* Creates, changes and retires limits: all of them or none. 0, or -errno (logged): too many, or out
 * of range. */
int control_configure(struct control *c, const struct config *config);

/* A participant's row, or -errno. */
int control_claim(struct control *c, pid_t pid, uid_t uid);
void control_release(struct control *c, int row);
