#include "daemon/control_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/process.h"
#include "shm/counters.h"

/* The first rate of the fast clock comes early, the following once per heartbeat. */
#define CONTROL_FIRST_POINT_NS (100 * NSEC_PER_MSEC)
#define CONTROL_HEARTBEAT_NS NSEC_PER_SEC
#define CONTROL_CLOCK_READINGS 5
#define CONTROL_SHM "/dev/shm/llmkit-"

/* ---- where the file lives ---- */

static bool control_is_tmpfs(const char *path)
{
	struct statfs s;

	return statfs(path, &s) == 0 && s.f_type == TMPFS_MAGIC;
}

/* Where an earlier daemon's link leads. Somebody else's link or file is not followed. */
static bool control_follow(struct control *c, const char *link_path)
{
	struct stat link, file;
	ssize_t n;

	if (lstat(link_path, &link) < 0 || link.st_uid != geteuid())
		return false;
	n = readlink(link_path, c->path, sizeof(c->path) - 1);
	if (n < 0)
		return false;
	c->path[n] = '\0';
	return strncmp(c->path, CONTROL_SHM, strlen(CONTROL_SHM)) == 0 &&
		lstat(c->path, &file) == 0 && S_ISREG(file.st_mode) && file.st_uid == geteuid();
}

/* On a disk file system the file goes to /dev/shm, and a link says where. Everybody may write in
 * that folder: a name that nobody can guess is one that nobody can take first. */
static int control_place(struct control *c, const char *runtime, const char *link_path)
{
	uint64_t name;
	int n;

	if (control_is_tmpfs(runtime)) {
		n = snprintf(c->path, sizeof(c->path), "%s", link_path);
		return n < (int)sizeof(c->path) ? 0 : error_origin(-ENAMETOOLONG);
	}
	if (control_follow(c, link_path))
		return 0;
	if (getrandom(&name, sizeof(name), 0) != sizeof(name))
		return error_origin(-errno);
	snprintf(c->path, sizeof(c->path), CONTROL_SHM "%u-%016llx.control", (unsigned)geteuid(),
		(unsigned long long)name);
	if (unlink(link_path) < 0 && errno != ENOENT)
		return error_origin(-errno);
	if (symlink(c->path, link_path) < 0)
		return error_origin(-errno);
	log_info("runtime folder is not tmpfs folder=%s region=%s", runtime, c->path);
	return 0;
}

/* Daemons with different sockets may have been given one runtime folder. */
static int control_lock(struct control *c, const char *link_path)
{
	pid_t holder = 0;
	int r = listener_lock(link_path, &c->lock_fd, &holder);

	if (r == LISTENER_E_HELD)
		log_error("control region %s is used by process %d: give this daemon another "
			  "\"runtime\" folder or socket name",
			link_path, (int)holder);
	return r > 0 ? error_origin(-EADDRINUSE) : error_trace(r);
}

static int control_paths(struct control *c, const char *socket, const char *runtime)
{
	const char *name = strrchr(socket, '/');
	char beside[PATHS_MAX], link_path[PATHS_MAX];
	int n = snprintf(beside, sizeof(beside), "%s/%s", runtime, name ? name + 1 : socket);

	if (n >= (int)sizeof(beside))
		return error_origin(-ENAMETOOLONG);
	n = paths_region(beside, link_path, sizeof(link_path));
	if (n == 0)
		n = control_lock(c, link_path);
	return n < 0 ? error_trace(n) : control_place(c, runtime, link_path);
}

/* A file somebody else could write is not ours to trust. */
static int control_open_file(const char *path, int flags)
{
	aux_cleanup(closep) int fd =
		open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | flags, 0600);
	struct stat s;

	if (fd < 0)
		return errno == ENOENT ? -ENOENT : error_origin(-errno);
	if (fstat(fd, &s) < 0)
		return error_origin(-errno);
	if (!S_ISREG(s.st_mode) || s.st_uid != geteuid()) {
		log_error("control region is not a private file of this user: remove it path=%s",
			path);
		return error_origin(-EPERM);
	}
	if (fchmod(fd, 0600) < 0)
		return error_origin(-errno);
	return steal_fd(&fd);
}

/* ---- adopt or create ---- */

/* Made beside and renamed, so that the path never holds half a region and clients that still map
 * the old bytes keep them. */
static int control_create(struct control *c, const struct region_owner *owner,
	const struct region_sizes *sizes, bool conservative)
{
	char beside[PATHS_MAX + 8];
	int r;

	snprintf(beside, sizeof(beside), "%s.new", c->path);
	if (unlink(beside) < 0 && errno != ENOENT)
		return error_origin(-errno);
	c->fd = control_open_file(beside, O_CREAT | O_EXCL);
	if (c->fd < 0)
		return c->fd;
	r = region_create(&c->region, c->fd, owner, sizes, clock_boottime_ns(), conservative);
	if (r == 0 && rename(beside, c->path) < 0)
		r = error_origin(-errno);
	if (r < 0)
		unlink(beside);
	return error_trace(r);
}

/* What was owed is not known: the old bytes are kept for who wants to look, the budgets start
 * empty. */
static int control_replace(struct control *c, const struct region_owner *owner,
	const struct region_sizes *sizes, enum region_outcome why)
{
	char aside[PATHS_MAX + 16];

	snprintf(aside, sizeof(aside), "%s.unusable", c->path);
	log_warning("control region cannot be adopted: budgets start empty, kept as %s why=\"%s\"",
		aside, region_outcome_text(why));
	unlink(aside);
	if (link(c->path, aside) < 0)
		log_warning("unusable control region could not be kept errno=%d", errno);
	close(steal_fd(&c->fd));
	return control_create(c, owner, sizes, true);
}

/* What a dead daemon had open is open no more. */
static void control_reset_gauges(const struct region *r)
{
	counter_sub(r, COUNTER_connections_open, counter_read(r, COUNTER_connections_open));
	counter_sub(r, COUNTER_requests_active, counter_read(r, COUNTER_requests_active));
}

/* The tables cannot grow while processes map them. */
static void control_tell_sizes(const struct region *r, const struct region_sizes *sizes)
{
	if ((sizes->limits && sizes->limits != r->buckets) ||
		(sizes->holds && sizes->holds != r->holds) ||
		(sizes->targets && sizes->targets != r->targets))
		log_notice("the adopted region keeps its tables: limits=%u requests_in_flight=%u "
			   "targets=%u; others need a new region, after a reboot or after "
			   "removing the file",
			r->buckets, r->holds, r->targets);
}

static int control_take(struct control *c, const struct region_sizes *sizes)
{
	struct region_owner owner = { .pid = (uint64_t)getpid() };
	int r = process_boot_id(owner.boot_id);

	if (r == 0)
		r = process_start_ticks(owner.pid, &owner.start);
	if (r < 0)
		return error_trace(r);
	c->fd = control_open_file(c->path, 0);
	if (c->fd == -ENOENT)
		return control_create(c, &owner, sizes, false);
	if (c->fd < 0)
		return c->fd;
	r = region_adopt(&c->region, c->fd, &owner, clock_boottime_ns());
	if (r > 0)
		return control_replace(c, &owner, sizes, (enum region_outcome)r);
	if (r < 0)
		return error_trace(r);
	control_reset_gauges(&c->region);
	control_tell_sizes(&c->region, sizes);
	log_notice("adopted the control region: budgets kept path=%s", c->path);
	return 0;
}

/* ---- alive ---- */

/*
 * One point of both clocks, the tightest of a few. The clock is read first: cycles that lag behind
 * their nanoseconds make the fast clock late, which is the strict side.
 */
static uint64_t control_read_clocks(uint64_t *cycles)
{
	uint64_t best_ns = 0, tightest = UINT64_MAX;

	for (int i = 0; i < CONTROL_CLOCK_READINGS; i++) {
		uint64_t before = clock_cycles();
		uint64_t now_ns = clock_boottime_ns();
		uint64_t after = clock_cycles();

		if (after - before >= tightest)
			continue;
		tightest = after - before;
		best_ns = now_ns;
		*cycles = after;
	}
	return best_ns;
}

static uint64_t control_track_clock(struct control *c, uint64_t now_ns)
{
	uint64_t period_ns = c->timebase.cycles ? CONTROL_HEARTBEAT_NS : CONTROL_FIRST_POINT_NS;
	uint64_t cycles = 0, point_ns = control_read_clocks(&cycles);

	if (timebase_track(&c->timebase, &c->region, cycles, point_ns, CONTROL_HEARTBEAT_NS) ==
		TIMEBASE_E_DRIFT)
		log_warning("cycle counter drifts: clients use clock_gettime from now on");
	return now_ns + period_ns;
}

static void control_on_heartbeat(struct loop_timer *t)
{
	struct control *c = container_of(t, struct control, heartbeat);
	uint64_t now_ns = clock_boottime_ns();

	region_heartbeat(&c->region, now_ns);
	control_apply_beat(c, now_ns);
	control_members_beat(c);
	c->beats++;
	loop_timer_start(c->loop, t, control_track_clock(c, now_ns));
}

int control_new(struct control **out, struct loop *loop, const char *socket, const char *runtime,
	const struct region_sizes *sizes)
{
	static const struct region_sizes defaults;
	struct control *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	*c = (struct control){ .loop = loop, .fd = -1, .observer_fd = -1, .lock_fd = -1 };
	c->heartbeat.fn = control_on_heartbeat;
	list_init(&c->orphans);
	r = control_paths(c, socket, runtime);
	if (r == 0)
		r = control_take(c, sizes ? sizes : &defaults);
	if (r == 0)
		r = control_members_init(c);
	if (r == 0) {
		c->observer_fd = open(c->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		r = c->observer_fd < 0 ? error_origin(-errno) : 0;
	}
	if (r < 0) {
		log_error("no control region path=%s errno=%d (%s)", c->path, -r, strerror(-r));
		control_free(c);
		return r;
	}
	if (!clock_cycles_trusted())
		timebase_disable(&c->timebase, &c->region);
	control_on_heartbeat(&c->heartbeat);
	*out = c;
	return 0;
}

struct control *control_free(struct control *c)
{
	if (!c)
		return NULL;
	loop_timer_cancel(c->loop, &c->heartbeat);
	control_members_deinit(c);
	if (c->region.map)
		region_close(&c->region);
	region_detach(&c->region);
	closep(&c->observer_fd);
	closep(&c->fd);
	listener_unlock(&c->lock_fd);
	free(c->usable);
	free(c->limit_row);
	free(c);
	return NULL;
}

struct region *control_region(struct control *c)
{
	return &c->region;
}

uint64_t control_owner(const struct control *c)
{
	return c->owner;
}

int control_fd(const struct control *c, enum listener_role role)
{
	return role == LISTENER_PARTICIPANT ? c->fd : c->observer_fd;
}
