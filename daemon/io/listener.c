#include "daemon/io/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "base/aux.h"
#include "base/error.h"
#include "base/log.h"
#include "base/paths.h"

#define BACKLOG 1024
#define REST_NS (100 * NSEC_PER_MSEC)
/* Clients turned away at once when there is no descriptor for them. */
#define TURN_AWAY_MAX 64
#define GROUPS_MAX 64
#define LOCK_TRIES 8

struct uid_count {
	uid_t uid;
	unsigned count;
};

struct listener {
	struct loop *loop;
	struct loop_acceptor acceptor;
	struct loop_timer rest;
	struct listener_access access;
	struct listener_events events;
	struct uid_count *uids;
	size_t uid_count, uid_capacity;
	unsigned connections_per_uid;
	int fd, reserve;
	bool exhausted; /* logged; until the next client is accepted */
	char *path;     /* NULL: inherited, not ours to remove */
};

/* ---- who may ---- */

static bool uid_among(const uid_t *list, size_t count, uid_t uid)
{
	for (size_t i = 0; i < count; i++)
		if (list[i] == uid)
			return true;
	return false;
}

static bool gids_meet(const gid_t *list, size_t count, const gid_t *gids, size_t gid_count)
{
	for (size_t i = 0; i < count; i++)
		for (size_t j = 0; j < gid_count; j++)
			if (list[i] == gids[j])
				return true;
	return false;
}

enum listener_role listener_classify(const struct listener_access *access, uid_t self, uid_t uid,
	const gid_t *gids, size_t gid_count)
{
	if (uid == self || uid == 0 ||
		uid_among(access->participant_uids, access->participant_uid_count, uid) ||
		gids_meet(access->participant_gids, access->participant_gid_count, gids, gid_count))
		return LISTENER_PARTICIPANT;
	if (access->everyone_observes ||
		uid_among(access->observer_uids, access->observer_uid_count, uid) ||
		gids_meet(access->observer_gids, access->observer_gid_count, gids, gid_count))
		return LISTENER_OBSERVER;
	return LISTENER_REFUSED;
}

static void access_deinit(struct listener_access *a)
{
	free(a->participant_uids);
	free(a->observer_uids);
	free(a->participant_gids);
	free(a->observer_gids);
	*a = (struct listener_access){ 0 };
}

static void *copy_array(const void *from, size_t bytes, bool *failed)
{
	void *copy;

	if (!bytes)
		return NULL;
	copy = malloc(bytes);
	if (copy)
		memcpy(copy, from, bytes);
	else
		*failed = true;
	return copy;
}

static int access_copy(struct listener_access *to, const struct listener_access *from)
{
	struct listener_access a = *from;
	bool failed = false;

	a.participant_uids = copy_array(
		from->participant_uids, from->participant_uid_count * sizeof(uid_t), &failed);
	a.observer_uids =
		copy_array(from->observer_uids, from->observer_uid_count * sizeof(uid_t), &failed);
	a.participant_gids = copy_array(
		from->participant_gids, from->participant_gid_count * sizeof(gid_t), &failed);
	a.observer_gids =
		copy_array(from->observer_gids, from->observer_gid_count * sizeof(gid_t), &failed);
	if (failed) {
		access_deinit(&a);
		return error_origin(-ENOMEM);
	}
	access_deinit(to);
	*to = a;
	return 0;
}

/* The group of the peer's process and its supplementary ones; *gids is the caller's. */
static int peer_groups(int fd, gid_t primary, gid_t **gids, size_t *count)
{
	socklen_t size = GROUPS_MAX * sizeof(gid_t);
	gid_t *list aux_cleanup(freep) = NULL;

	for (int tries = 0; tries < 2; tries++) {
		free(list);
		list = malloc(size + sizeof(gid_t));
		if (!list)
			return error_origin(-ENOMEM);
		list[0] = primary;
		if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, list + 1, &size) == 0) {
			*count = 1 + size / sizeof(gid_t);
			*gids = steal_ptr(list);
			return 0;
		}
		if (errno != ERANGE) /* else size is what it takes */
			break;
	}
	return error_origin(-errno);
}

static int peer_identify(const struct listener *l, int fd, struct listener_peer *peer)
{
	struct ucred credentials = { 0 };
	socklen_t size = sizeof(credentials);
	gid_t *gids aux_cleanup(freep) = NULL;
	size_t count = 0;
	int r;

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) < 0)
		return error_origin(-errno);
	r = peer_groups(fd, credentials.gid, &gids, &count);
	if (r < 0)
		return error_trace(r);
	*peer = (struct listener_peer){
		.pid = credentials.pid,
		.uid = credentials.uid,
		.gid = credentials.gid,
		.role = listener_classify(&l->access, geteuid(), credentials.uid, gids, count),
	};
	return 0;
}

/* ---- how many ---- */

static struct uid_count *uid_find(struct listener *l, uid_t uid)
{
	for (size_t i = 0; i < l->uid_count; i++)
		if (l->uids[i].uid == uid)
			return &l->uids[i];
	return NULL;
}

/* False: that uid has all the connections it may have, or there is no memory to count them. */
static bool uid_enter(struct listener *l, uid_t uid)
{
	struct uid_count *u = uid_find(l, uid);

	if (!u && l->uid_count == l->uid_capacity) {
		size_t capacity = l->uid_capacity ? l->uid_capacity * 2 : 4;
		struct uid_count *uids = realloc(l->uids, capacity * sizeof(*uids));

		if (!uids)
			return false;
		l->uids = uids;
		l->uid_capacity = capacity;
	}
	if (!u) {
		u = &l->uids[l->uid_count++];
		*u = (struct uid_count){ .uid = uid };
	}
	if (l->connections_per_uid && u->count >= l->connections_per_uid)
		return false;
	u->count++;
	return true;
}

void listener_gone(struct listener *l, uid_t uid)
{
	struct uid_count *u = uid_find(l, uid);

	assert(u && u->count);
	if (--u->count == 0)
		*u = l->uids[--l->uid_count];
}

/* ---- accepting ---- */

static void listener_admit(struct listener *l, int accepted)
{
	int fd aux_cleanup(closep) = accepted;
	struct listener_peer peer = { 0 };

	l->exhausted = false;
	if (peer_identify(l, fd, &peer) < 0)
		l->events.refused(l->events.context, fd, &peer, "its credentials cannot be read");
	else if (peer.role == LISTENER_REFUSED)
		l->events.refused(
			l->events.context, fd, &peer, "its user and groups are in no access list");
	else if (!uid_enter(l, peer.uid))
		l->events.refused(l->events.context, fd, &peer, "too many connections of its user");
	else
		l->events.accepted(l->events.context, steal_fd(&fd), &peer);
}

static int reserve_open(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

/* Nobody should wait in the queue for a daemon that has no descriptor to give. */
static void listener_turn_away(struct listener *l)
{
	struct pollfd p = { .fd = l->fd, .events = POLLIN };
	int fd;

	if (l->reserve < 0)
		return;
	close(steal_fd(&l->reserve));
	for (int i = 0; i < TURN_AWAY_MAX && poll(&p, 1, 0) > 0; i++) {
		fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
		if (fd < 0)
			break;
		close(fd);
	}
	l->reserve = reserve_open();
}

static void listener_rested(struct loop_timer *t)
{
	struct listener *l = container_of(t, struct listener, rest);
	int r;

	if (l->reserve < 0)
		l->reserve = reserve_open();
	r = loop_acceptor_start(l->loop, &l->acceptor, l->fd);
	if (r < 0 && loop_timer_start(l->loop, t, loop_now(l->loop) + REST_NS) < 0)
		log_error("listener: cannot go on accepting: %s", strerror(-r));
}

static void listener_accepted(struct loop_acceptor *a, int fd)
{
	struct listener *l = container_of(a, struct listener, acceptor);
	int r;

	if (fd >= 0) {
		listener_admit(l, fd);
		return;
	}
	if (!l->exhausted)
		log_error("listener: cannot accept clients: %s%s", strerror(-fd),
			fd == -EMFILE ? "; raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=)" : "");
	l->exhausted = true;
	if (fd == -EMFILE || fd == -ENFILE)
		listener_turn_away(l);
	r = loop_timer_start(l->loop, &l->rest, loop_now(l->loop) + REST_NS);
	if (r < 0)
		log_error("listener: cannot go on accepting: %s", strerror(-r));
}

/* ---- the path ---- */

static bool path_fits(const char *path)
{
	size_t limit = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	if (*path && strlen(path) <= limit)
		return true;
	log_error("listener: the socket's path has %zu bytes, 1 to %zu are possible: %s",
		strlen(path), limit, path);
	return false;
}

/* What a user does who got the system's path, for want of another. */
static const char *path_hint(int e)
{
	return e == EACCES && geteuid() != 0 ?
		"; set XDG_RUNTIME_DIR, LLMKIT_SOCKET or --socket to a place of your own" :
		"";
}

/* A user's folder is the user's alone; the system's is for everyone to walk through. */
static int folder_make(const char *path)
{
	char folder[PATHS_MAX];
	const char *slash = strrchr(path, '/');
	struct stat s;
	mode_t mode;

	if (!slash || slash == path)
		return 0;
	snprintf(folder, sizeof(folder), "%.*s", (int)(slash - path), path);
	mode = strcmp(folder, "/run/llmkit") == 0 ? 0755 : 0700;
	if (mkdir(folder, mode) == 0) {
		if (chmod(folder, mode) == 0) /* whatever the umask is */
			return 0;
	} else if (errno == EEXIST && stat(folder, &s) == 0) {
		if (S_ISDIR(s.st_mode))
			return 0;
		errno = ENOTDIR;
	}
	log_error("listener: the socket's folder %s cannot be used: %s%s", folder, strerror(errno),
		path_hint(errno));
	return LISTENER_E_PATH;
}

/* One try: 0 locked, LISTENER_E_HELD with the holder, -EAGAIN the holder went away meanwhile. */
static int lock_try(int fd, pid_t *holder)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_SETLK, &lock) == 0)
		return 0;
	if (errno != EACCES && errno != EAGAIN)
		return error_origin(-errno);
	if (fcntl(fd, F_GETLK, &lock) < 0)
		return error_origin(-errno);
	if (lock.l_type == F_UNLCK)
		return -EAGAIN;
	*holder = lock.l_pid;
	return LISTENER_E_HELD;
}

int listener_lock(const char *path, int *lock_fd, pid_t *holder)
{
	char name[PATHS_MAX];
	int fd aux_cleanup(closep) = -1;
	int r;

	if (!path_fits(path))
		return LISTENER_E_PATH;
	r = folder_make(path);
	if (r != 0)
		return r;
	snprintf(name, sizeof(name), "%s.lock", path);
	fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
	if (fd < 0) {
		log_error("listener: the lock file %s cannot be opened: %s%s", name,
			strerror(errno), path_hint(errno));
		return LISTENER_E_PATH;
	}
	r = -EAGAIN;
	for (int i = 0; i < LOCK_TRIES && r == -EAGAIN; i++)
		r = lock_try(fd, holder);
	if (r == 0)
		*lock_fd = steal_fd(&fd);
	return r;
}

void listener_unlock(int *lock_fd)
{
	closep(lock_fd);
	*lock_fd = -1;
}

/* ---- the socket ---- */

/* Removes what a dead daemon left; anything but a socket is somebody's file. */
static int path_clear(const char *path)
{
	struct stat s;

	if (lstat(path, &s) < 0)
		return errno == ENOENT ? 0 : error_origin(-errno);
	if (!S_ISSOCK(s.st_mode)) {
		log_error("listener: %s is there and is no socket: move it, or choose another path",
			path);
		return LISTENER_E_PATH;
	}
	return unlink(path) < 0 ? error_origin(-errno) : 0;
}

static int socket_bind(const char *path, int *out)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd aux_cleanup(closep) = -1;
	int r;

	if (!path_fits(path))
		return LISTENER_E_PATH;
	r = path_clear(path);
	if (r != 0)
		return r;
	memcpy(address.sun_path, path, strlen(path) + 1);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return error_origin(-errno);
	/* The mode before listen(): nobody can connect in between. */
	if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, 0666) < 0 ||
		listen(fd, BACKLOG) < 0) {
		r = errno;
		log_error("listener: cannot listen on %s: %s", path, strerror(r));
		return r == EACCES || r == ENOENT || r == EROFS ? LISTENER_E_PATH :
								  error_origin(-r);
	}
	*out = steal_fd(&fd);
	return 0;
}

/* What socket activation passed must be what we would have made ourselves. */
static int socket_check(int fd)
{
	int domain = 0, type = 0, listening = 0;
	socklen_t size = sizeof(int);

	if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0 ||
		getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) < 0 ||
		fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
		return error_origin(-errno);
	if (domain == AF_UNIX && type == SOCK_STREAM && listening)
		return 0;
	log_error("listener: the inherited descriptor %d is no listening Unix stream socket; use "
		  "ListenStream= with a path",
		fd);
	return LISTENER_E_PATH;
}

static int listener_open(struct listener *l, const char *path, int inherited_fd)
{
	int r;

	if (inherited_fd >= 0) {
		r = socket_check(inherited_fd);
		if (r != 0)
			return r;
		l->fd = inherited_fd;
		return 0;
	}
	l->path = strdup(path);
	if (!l->path)
		return error_origin(-ENOMEM);
	r = socket_bind(path, &l->fd);
	if (r != 0) {
		/* The file there, if any, is not ours. */
		free(l->path);
		l->path = NULL;
	}
	return r;
}

static void listener_freep(struct listener **l)
{
	*l = listener_free(*l);
}

int listener_new(struct listener **out, struct loop *loop, const char *path, int inherited_fd,
	const struct listener_access *access, unsigned connections_per_uid,
	const struct listener_events *events)
{
	struct listener *l aux_cleanup(listener_freep) = malloc(sizeof(*l));
	int r;

	if (!l)
		return error_origin(-ENOMEM);
	*l = (struct listener){
		.loop = loop,
		.acceptor.fn = listener_accepted,
		.rest.fn = listener_rested,
		.events = *events,
		.fd = -1,
		.reserve = reserve_open(),
	};
	r = listener_set_access(l, access, connections_per_uid);
	if (r < 0)
		return error_trace(r);
	r = listener_open(l, path, inherited_fd);
	if (r != 0)
		return r;
	r = loop_acceptor_start(loop, &l->acceptor, l->fd);
	if (r < 0) {
		if (inherited_fd >= 0)
			l->fd = -1;
		return error_trace(r);
	}
	*out = steal_ptr(l);
	return 0;
}

int listener_set_access(
	struct listener *l, const struct listener_access *access, unsigned connections_per_uid)
{
	int r = access_copy(&l->access, access);

	if (r < 0)
		return error_trace(r);
	l->connections_per_uid = connections_per_uid;
	return 0;
}

void listener_stop(struct listener *l)
{
	loop_acceptor_cancel(l->loop, &l->acceptor);
	loop_timer_cancel(l->loop, &l->rest);
	if (l->path)
		unlink(l->path);
	free(l->path);
	l->path = NULL;
	/* Not shutdown(): an inherited socket is still its owner's. */
	closep(&l->fd);
	l->fd = -1;
}

struct listener *listener_free(struct listener *l)
{
	if (!l)
		return NULL;
	listener_stop(l);
	closep(&l->reserve);
	access_deinit(&l->access);
	free(l->uids);
	free(l);
	return NULL;
}
