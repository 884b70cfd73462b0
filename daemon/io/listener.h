#pragma once

/*
 * The Unix listening socket: takes the socket's path exclusively, accepts, checks peer
 * credentials, reports connections. An I/O file: knows no stage.
 *
 * Exclusive means a lock file beside the socket (PATH.lock) that the kernel releases at death;
 * a second daemon is told the pid of the first.
 *
 * Out of descriptors, clients are accepted on a spare one and closed, so that they do not hang, and
 * accepting rests for a moment.
 */

#include <stdbool.h>
#include <stdint.h>
#include <stddef.h>
#include <sys/types.h>
#include "daemon/io/loop.h"

enum listener_outcome {
	LISTENER_OK = 0,
	LISTENER_E_HELD, /* another process holds the socket: *holder is its pid */
	LISTENER_E_PATH, /* the path, its folder or what was inherited cannot be used (logged) */
};

enum listener_role {
	LISTENER_REFUSED = 0,
	LISTENER_OBSERVER,
	LISTENER_PARTICIPANT,
};

/* Who the kernel says is on the other end, at connect(2). */
struct listener_peer {
	pid_t pid;
	uid_t uid;
	gid_t gid;
	enum listener_role role;
};

struct listener_access {
	uid_t *participant_uids, *observer_uids;
	size_t participant_uid_count, observer_uid_count;
	gid_t *participant_gids, *observer_gids;
	size_t participant_gid_count, observer_gid_count;
	bool everyone_observes;
};

/* The verdict alone: the daemon's own uid and root are participants. Pure. */
enum listener_role listener_classify(const struct listener_access *access, uid_t self, uid_t uid,
	const gid_t *gids, size_t gid_count);

struct listener;
struct listener_events {
	/* A client whose role is not REFUSED; takes over fd. */
	void (*accepted)(void *context, int fd, const struct listener_peer *peer);
	/* Closed when this returns: credentials (its role is REFUSED), or too many connections of
	 * that uid. fd is for a last word, which must not block. */
	void (*refused)(void *context, int fd, const struct listener_peer *peer, const char *why);
	void *context;
};

/* Takes PATH.lock, and makes the folder when its parent exists. Keeps the lock until
 * listener_unlock() or death; not inherited by children. The lock comes before the region and
 * everything else the daemon owns. 0, LISTENER_E_HELD, LISTENER_E_PATH, or -errno. */
int listener_lock(const char *path, int *lock_fd, pid_t *holder);
/* Idempotent. The lock file stays: removing it would let two daemons lock two files. */
void listener_unlock(int *lock_fd);

/* Binds and listens (mode 0666: credentials decide, not file modes), or uses the descriptor that
 * socket activation passed (inherited_fd >= 0; taken over on success). The caller holds the lock: a
 * socket file that is there belongs to a dead daemon. connections_per_uid 0: no limit.
 * 0, LISTENER_E_PATH, or -errno. */
int listener_new(struct listener **out, struct loop *loop, const char *path, int inherited_fd,
	const struct listener_access *access, unsigned connections_per_uid,
	const struct listener_events *events);
/* New access list and limit after a reload; copies. */
int listener_set_access(
	struct listener *l, const struct listener_access *access, unsigned connections_per_uid);
/* A connection that accepted() handed out is over: one less of that uid. */
void listener_gone(struct listener *l, uid_t uid);
/* Stops accepting and removes the socket file (not an inherited one's); the lock stays. */
void listener_stop(struct listener *l);
struct listener *listener_free(struct listener *l);
