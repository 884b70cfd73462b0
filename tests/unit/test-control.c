#include "daemon/control.h"
#include "base/clock.h"
#include "base/paths.h"
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/counters.h"
#include "shm/event.h"
#include "shm/hold.h"
#include "shm/participant.h"
#include "shm/router.h"
#include "shm/target.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#define NOBODY 65534

struct fixture {
	struct loop *loop;
	char folder[64], socket[96], region[96], target[PATHS_MAX];
	struct control *control;
};

static struct config_limit limits[] = {
	{
		.scope = BUCKET_SCOPE_PROVIDER,
		.name = (char *)"p",
		.limit = 1,
		.window_ns = 3600 * NSEC_PER_SEC,
		.burst = 10,
	},
};
static const struct config config = { .limits = limits, .limit_count = 1 };

static int setup_in(void **state, const char *parent)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || loop_new(&f->loop, NULL) < 0)
		return -1;
	snprintf(f->folder, sizeof(f->folder), "%s/llmkit-control-XXXXXX", parent);
	if (!mkdtemp(f->folder))
		return -1;
	snprintf(f->socket, sizeof(f->socket), "%s/d.sock", f->folder);
	snprintf(f->region, sizeof(f->region), "%s/d.control", f->folder);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_in(state, "/dev/shm");
}

/* A folder that is not tmpfs; NULL state: there is none. */
static int setup_disk(void **state)
{
	struct statfs s;

	if (statfs("/var/tmp", &s) < 0 || s.f_type == TMPFS_MAGIC)
		return 0;
	return setup_in(state, "/var/tmp");
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[128];
	static const char *const names[] = { "d.control", "d.control.new", "d.control.unusable",
		"d.control.lock" };

	if (!f)
		return 0;
	control_free(f->control);
	loop_free(f->loop);
	if (f->target[0])
		unlink(f->target);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", f->folder, names[i]);
		unlink(path);
	}
	rmdir(f->folder);
	free(f);
	return 0;
}

static int open_control(struct fixture *f)
{
	return control_new(&f->control, f->loop, f->socket, f->folder, NULL);
}

static struct region *start(struct fixture *f)
{
	assert_int_equal(open_control(f), 0);
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
	return control_region(f->control);
}

static void stop(struct fixture *f)
{
	f->control = control_free(f->control);
}

static void take(const struct region *r, uint64_t n)
{
	struct bucket_set set = { 0 };

	assert_true(bucket_set_add(&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of("p")));
	assert_int_equal(bucket_acquire(r, &set, n, clock_boottime_ns()).outcome, BUCKET_OK);
}

static uint64_t left(const struct region *r)
{
	struct bucket_view v;

	for (uint32_t i = 0; i < r->buckets; i++)
		if (bucket_view(r, i, clock_boottime_ns(), &v))
			return v.available;
	return UINT64_MAX;
}

static void file_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void a_new_region_is_private_and_complete(void **state)
{
	struct fixture *f = *state;
	struct region_status status;
	struct stat s;

	region_status(start(f), &status);
	assert_int_equal(status.daemon_pid, getpid());
	assert_false(status.closed);
	assert_int_equal(left(control_region(f->control)), 10);
	assert_int_equal(lstat(f->region, &s), 0);
	assert_true(S_ISREG(s.st_mode));
	assert_int_equal(s.st_mode & 07777, 0600);
}

static void an_observer_cannot_map_it_for_writing(void **state)
{
	struct fixture *f = *state;
	int fd;

	start(f);
	fd = control_fd(f->control, LISTENER_OBSERVER);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	assert_ptr_equal(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), MAP_FAILED);
	fd = control_fd(f->control, LISTENER_PARTICIPANT);
	assert_int_equal(fcntl(fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
}

static void the_next_daemon_adopts_budgets_and_resets_gauges(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	struct region_status status;

	take(r, 4);
	counter_add(r, COUNTER_requests_active, 3);
	counter_add(r, COUNTER_connections_open, 2);
	counter_add(r, COUNTER_requests_started, 7);
	assert_true(control_claim(f->control, getpid(), getuid(), &(uint64_t){ 0 }) >= 0);
	stop(f);
	r = start(f);
	region_status(r, &status);
	assert_int_equal(status.generation, 2);
	assert_int_equal(left(r), 6);
	assert_int_equal(counter_read(r, COUNTER_requests_active), 0);
	assert_int_equal(counter_read(r, COUNTER_connections_open), 0);
	assert_int_equal(counter_read(r, COUNTER_requests_started), 7);
}

static void what_cannot_be_adopted_is_kept_aside(void **state)
{
	struct fixture *f = *state;
	char aside[128];
	struct stat s;

	snprintf(aside, sizeof(aside), "%s.unusable", f->region);
	for (int i = 0; i < 3; i++) {
		int fd;

		start(f);
		stop(f);
		fd = open(f->region, O_RDWR | O_CLOEXEC);
		if (i == 0)
			assert_int_equal(ftruncate(fd, 100), 0);
		else if (i == 1)
			assert_int_equal(pwrite(fd, "garbage!", 8, 0), 8);
		else
			assert_int_equal(ftruncate(fd, 0), 0);
		close(fd);
		/* Nobody knows what was owed. */
		assert_int_equal(left(start(f)), 0);
		assert_int_equal(stat(aside, &s), 0);
		stop(f);
		assert_int_equal(unlink(f->region), 0);
	}
}

static void a_left_over_of_a_dead_start_is_no_obstacle(void **state)
{
	struct fixture *f = *state;
	char beside[128];

	snprintf(beside, sizeof(beside), "%s.new", f->region);
	file_write(beside, "half");
	start(f);
	assert_int_equal(access(beside, F_OK), -1);
}

static void links_and_strange_files_are_refused(void **state)
{
	struct fixture *f = *state;
	char victim[128], kept[8] = "";
	int fd;

	snprintf(victim, sizeof(victim), "%s/victim", f->folder);
	file_write(victim, "keep me");
	assert_int_equal(symlink(victim, f->region), 0);
	assert_true(open_control(f) < 0);
	unlink(f->region);
	assert_int_equal(mkfifo(f->region, 0600), 0);
	assert_true(open_control(f) < 0);
	unlink(f->region);
	fd = open(victim, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, kept, 7), 7);
	close(fd);
	unlink(victim);
	assert_string_equal(kept, "keep me");
}

static void another_users_file_is_refused(void **state)
{
	struct fixture *f = *state;

	if (geteuid() != 0)
		skip();
	file_write(f->region, "");
	assert_int_equal(chown(f->region, NOBODY, NOBODY), 0);
	assert_int_equal(open_control(f), -EPERM);
}

static void a_file_others_could_read_is_made_private(void **state)
{
	struct fixture *f = *state;
	struct stat s;

	start(f);
	stop(f);
	assert_int_equal(chmod(f->region, 0666), 0);
	start(f);
	assert_int_equal(stat(f->region, &s), 0);
	assert_int_equal(s.st_mode & 07777, 0600);
}

static void a_full_file_system_is_an_error_that_leaves_nothing(void **state)
{
	struct fixture *f = *state;
	char beside[128];

	if (geteuid() != 0 || mount("none", f->folder, "tmpfs", 0, "size=64k") < 0)
		skip();
	snprintf(beside, sizeof(beside), "%s.new", f->region);
	assert_int_equal(open_control(f), -ENOSPC);
	assert_int_equal(access(beside, F_OK), -1);
	assert_int_equal(access(f->region, F_OK), -1);
	assert_int_equal(umount2(f->folder, MNT_DETACH), 0);
}

static void limits_follow_the_configuration(void **state)
{
	static const struct config none = { 0 };
	struct fixture *f = *state;
	struct region *r = start(f);

	take(r, 1);
	assert_int_equal(left(r), 9);
	assert_int_equal(control_configure(f->control, &none, NULL), 0);
	assert_int_equal(left(r), UINT64_MAX);
	/* What comes back still owes. */
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
	assert_int_equal(left(r), 9);
}

/* ---- where the folder is on a disk ---- */

static void follow(struct fixture *f)
{
	ssize_t n = readlink(f->region, f->target, sizeof(f->target) - 1);

	assert_true(n > 0);
	f->target[n] = '\0';
}

static void on_a_disk_a_link_leads_to_the_region(void **state)
{
	struct fixture *f = *state;
	char first[PATHS_MAX];
	struct statfs s;

	if (!f)
		skip();
	take(start(f), 4);
	follow(f);
	assert_int_equal(statfs(f->target, &s), 0);
	assert_int_equal(s.f_type, TMPFS_MAGIC);
	strncpy(first, f->target, sizeof(first));
	stop(f);
	assert_int_equal(left(start(f)), 6);
	follow(f);
	assert_string_equal(f->target, first);
}

/* Somebody who may write in the folder, or guess a name, gains nothing. */
static void a_planted_link_is_not_followed(void **state)
{
	struct fixture *f = *state;
	char planted[] = "/dev/shm/llmkit-planted-XXXXXX";
	struct stat s;

	if (!f || geteuid() != 0)
		skip();
	close(mkstemp(planted));
	assert_int_equal(symlink(planted, f->region), 0);
	/* Their link to a file of ours ... */
	assert_int_equal(lchown(f->region, NOBODY, NOBODY), 0);
	start(f);
	follow(f);
	assert_string_not_equal(f->target, planted);
	stop(f);
	unlink(f->target);
	/* ... and our link to a file of theirs. */
	unlink(f->region);
	assert_int_equal(symlink(planted, f->region), 0);
	assert_int_equal(chown(planted, NOBODY, NOBODY), 0);
	start(f);
	follow(f);
	assert_string_not_equal(f->target, planted);
	assert_int_equal(stat(planted, &s), 0);
	assert_int_equal(s.st_size, 0);
	unlink(planted);
}

/* Every row in use, then every limit another one: none may be lost, none may be left. */
static void a_full_table_can_be_replaced(void **state)
{
	struct fixture *f = *state;
	const struct region *r = start(f);
	const unsigned count = r->buckets;
	struct config_limit *many = calloc(count + 1, sizeof(*many));
	char(*names)[16] = calloc(count + 1, sizeof(*names));
	struct config full = { .limits = many, .limit_count = count };

	assert_non_null(many);
	assert_non_null(names);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i <= count; i++) {
			struct bucket_set set = { 0 };

			snprintf(names[i], sizeof(names[i]), "%u-%u", round, i);
			many[i] = limits[0];
			many[i].name = names[i];
			assert_false(bucket_set_add(
				&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of(names[i])));
		}
		assert_int_equal(control_configure(f->control, &full, NULL), 0);
		for (unsigned i = 0; i < count; i++) {
			struct bucket_set set = { 0 };

			assert_true(bucket_set_add(
				&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of(names[i])));
		}
	}
	/* One too many changes nothing. */
	full.limit_count = count + 1;
	many[0].name = (char *)"other";
	assert_int_equal(control_configure(f->control, &full, NULL), -ENOSPC);
	assert_true(bucket_set_add(&(struct bucket_set){ 0 }, r, BUCKET_SCOPE_PROVIDER,
		BUCKET_REQUESTS, str_of(names[0])));
	free(many);
	free(names);
}

static void a_limit_out_of_range_changes_nothing(void **state)
{
	struct fixture *f = *state;
	const struct region *r = start(f);
	struct config_limit bad[] = {
		{ .scope = BUCKET_SCOPE_USER,
			.name = (char *)"new",
			.limit = 1,
			.window_ns = NSEC_PER_SEC,
			.burst = 1 },
		{ .scope = BUCKET_SCOPE_USER,
			.name = (char *)"huge",
			.limit = 1,
			.window_ns = 86400 * NSEC_PER_SEC,
			.burst = 1000000000000 },
	};
	const struct config config_bad = { .limits = bad, .limit_count = 2 };

	assert_int_equal(control_configure(f->control, &config_bad, NULL), -ERANGE);
	assert_false(bucket_set_add(
		&(struct bucket_set){ 0 }, r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of("new")));
	assert_true(bucket_set_add(
		&(struct bucket_set){ 0 }, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of("p")));
}

/* ---- participants ---- */

/* A process that waits to be killed. */
static pid_t member(void)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

static void bury(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Holds one request in flight at the target, as the process with that owner word. */
static uint32_t hold_one(const struct region *r, uint64_t owner, uint32_t target)
{
	uint32_t hold = hold_claim(r, owner, 0, clock_boottime_ns());

	assert_int_not_equal(hold, HOLD_NONE);
	assert_int_equal(hold_move(r, hold, owner, HOLD_TOTAL_TARGET(target), 1, 0, NULL), HOLD_OK);
	return hold;
}

static uint32_t some_target(struct region *r)
{
	const struct target_config t = { .name = str_of("t"), .provider = TARGET_NONE };
	int row = target_configure(r, &t);

	assert_true(row >= 0);
	return (uint32_t)row;
}

static enum participant_state state_of(const struct region *r, int row)
{
	struct participant_view v;

	assert_true(participant_view(r, (uint32_t)row, &v));
	return v.state;
}

static void what_the_dead_held_comes_back_when_their_socket_ends(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	uint32_t target = some_target(r);
	uint64_t owner = 0;
	pid_t pid = member();
	int row = control_claim(f->control, pid, 0, &owner);

	assert_true(row >= 0);
	assert_true(owner != 0 && owner != control_owner(f->control));
	hold_one(r, owner, target);
	assert_int_equal(target_pending(r, target), 1);
	bury(pid);
	control_leave(f->control, row);
	assert_int_equal(target_pending(r, target), 0);
	assert_int_equal(state_of(r, row), PARTICIPANT_FREE);
}

/* Runs the loop until the row is free, or for so many steps of 10 ms. */
struct watch {
	struct loop_timer timer;
	struct fixture *f;
	int row, steps;
};

static void watch_step(struct loop_timer *t)
{
	struct watch *w = container_of(t, struct watch, timer);

	if (w->steps-- == 0 || state_of(control_region(w->f->control), w->row) == PARTICIPANT_FREE)
		loop_stop(w->f->loop);
	else
		loop_timer_start(w->f->loop, t, loop_now(w->f->loop) + 10 * NSEC_PER_MSEC);
}

static void run_until_free(struct fixture *f, int row, int steps)
{
	struct watch w = { .timer = { .fn = watch_step }, .f = f, .row = row, .steps = steps };

	assert_int_equal(loop_timer_start(f->loop, &w.timer, loop_now(f->loop)), 0);
	assert_int_equal(loop_run(f->loop), 0);
	loop_timer_cancel(f->loop, &w.timer);
}

static void the_living_keep_what_they_hold_without_a_socket(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	uint32_t target = some_target(r);
	uint64_t owner = 0, again = 0;
	pid_t pid = member();
	int row = control_claim(f->control, pid, 0, &owner);

	hold_one(r, owner, target);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	control_leave(f->control, row);
	run_until_free(f, row, 5);
	assert_int_equal(target_pending(r, target), 1);
	assert_int_equal(state_of(r, row), PARTICIPANT_ORPHAN);
	/* It comes back and is the same. */
	assert_int_equal(control_claim(f->control, pid, 0, &again), row);
	assert_int_equal(again, owner);
	control_leave(f->control, row);
	/* Its death is seen without a socket. */
	bury(pid);
	run_until_free(f, row, 1000);
	assert_int_equal(target_pending(r, target), 0);
}

static void who_died_while_no_daemon_ran_is_reaped_by_the_next(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	uint32_t target = some_target(r);
	uint64_t dead_owner = 0, living_owner = 0;
	pid_t dead = member(), living = member();
	int dead_row = control_claim(f->control, dead, 0, &dead_owner);
	int living_row = control_claim(f->control, living, 0, &living_owner);

	hold_one(r, dead_owner, target);
	hold_one(r, living_owner, target);
	assert_int_equal(target_pending(r, target), 2);
	stop(f);
	bury(dead);
	r = start(f);
	assert_int_equal(target_pending(r, target), 1);
	assert_int_equal(state_of(r, dead_row), PARTICIPANT_FREE);
	assert_int_equal(state_of(r, living_row), PARTICIPANT_ORPHAN);
	bury(living);
	run_until_free(f, living_row, 1000);
	assert_int_equal(target_pending(r, target), 0);
}

static void comings_and_goings_are_events(void **state)
{
	struct fixture *f = *state;
	const struct region *r = start(f);
	uint64_t ticket = event_head(r), owner;
	pid_t pid = member();
	struct event e;
	int row = control_claim(f->control, pid, 0, &owner);

	assert_int_equal(event_next(r, &ticket, &e), EVENT_OK);
	assert_int_equal(e.kind, EVENT_PARTICIPANT);
	assert_int_equal(e.row, row);
	assert_int_equal(e.to, 1);
	assert_int_equal(e.value, pid);
	bury(pid);
	control_leave(f->control, row);
	assert_int_equal(event_next(r, &ticket, &e), EVENT_OK);
	assert_int_equal(e.kind, EVENT_PARTICIPANT);
	assert_int_equal(e.to, 0);
	assert_int_equal(event_next(r, &ticket, &e), EVENT_E_NONE);
}

/* ---- targets, routes, an operator ---- */

static struct family some_family = { .name = "openai" };
static struct config_provider providers[] = {
	{ .name = (char *)"p", .family = &some_family },
	{ .name = (char *)"q", .family = &some_family },
};
static struct config_model models[] = {
	{ .name = (char *)"m",
		.provider = 0,
		.upstream = (char *)"m",
		.price = { 5, 6, 7 },
		.context = 1000,
		.capabilities = TARGET_TOOLS },
};
static struct config_target route_targets[] = {
	{ .provider = 0, .model = (char *)"m", .weight = 1 },
	{ .provider = 1, .model = (char *)"other", .weight = 3 },
};
static struct config_route routes[] = {
	{ .name = (char *)"r",
		.targets = route_targets,
		.target_count = 2,
		.strategy = ROUTER_WEIGHTED },
};
static const struct config routed = {
	.providers = providers,
	.provider_count = 2,
	.models = models,
	.model_count = 1,
	.routes = routes,
	.route_count = 1,
};

static void targets_and_routes_follow_the_configuration(void **state)
{
	static const bool usable[] = { true, false };
	static const struct config none = { 0 };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct router_route route;
	struct target_view v;
	_Atomic uint64_t *turn;

	assert_int_equal(control_configure(f->control, &routed, usable), 0);
	assert_true(target_view(r, target_find(r, str_of("p/m"), NULL), &v));
	assert_int_equal(v.price_output, 6);
	assert_int_equal(v.context, 1000);
	assert_int_equal(v.capabilities, TARGET_TOOLS);
	assert_true(v.available);
	assert_int_equal(v.provider, target_find(r, str_of("p"), NULL));
	assert_true(target_view(r, target_find(r, str_of("q/other"), NULL), &v));
	assert_false(v.available);
	assert_true(router_find(r, str_of("r"), &route, &turn));
	assert_int_equal(route.strategy, ROUTER_WEIGHTED);
	assert_int_equal(route.count, 2);
	assert_int_equal(route.target[0].row, target_find(r, str_of("p/m"), NULL));
	assert_int_equal(route.target[1].weight, 3);
	assert_int_equal(control_configure(f->control, &none, NULL), 0);
	assert_int_equal(target_find(r, str_of("p/m"), NULL), TARGET_NONE);
	assert_false(router_find(r, str_of("r"), &route, &turn));
}

static enum status act(struct fixture *f, const char *verb, const char *name)
{
	aux_cleanup(buffer_deinit) struct buffer why = BUFFER_NULL;
	enum status status = control_act(f->control, str_of(verb), str_of(name), &why);

	/* A refusal always says why. */
	assert_int_equal(status != STATUS_OK, buffer_length(&why) > 0);
	return status;
}

static void an_operator_acts_on_breakers_and_limits(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	uint64_t wait_ns, now_ns = clock_boottime_ns();
	uint32_t row;

	take(r, 10);
	assert_int_equal(act(f, "limit-reset", "provider p requests"), STATUS_OK);
	assert_int_equal(left(r), 10);
	assert_int_equal(act(f, "limit-resume", "provider p requests"), STATUS_OK);
	assert_int_equal(act(f, "limit-reset", "provider p tokens"), STATUS_BAD_REQUEST);
	assert_int_equal(control_configure(f->control, &routed, NULL), 0);
	row = target_find(r, str_of("p/m"), NULL);
	assert_int_equal(act(f, "breaker-open", "p/m"), STATUS_OK);
	assert_int_equal(breaker_check(r, row, now_ns, &wait_ns), BREAKER_REJECT);
	assert_int_equal(act(f, "breaker-close", "p/m"), STATUS_OK);
	assert_int_equal(breaker_check(r, row, now_ns, &wait_ns), BREAKER_PASS);
	assert_int_equal(act(f, "breaker-reset", "p/m"), STATUS_OK);
	assert_int_equal(act(f, "breaker-open", "nobody"), STATUS_UNKNOWN_MODEL);
	assert_int_equal(act(f, "dance", "p/m"), STATUS_BAD_REQUEST);
}

static void names_get_the_limits_of_templates(void **state)
{
	struct config_limit templates[] = {
		{ .scope = BUCKET_SCOPE_USER, .limit = 1, .window_ns = NSEC_PER_SEC, .burst = 2 },
	};
	const struct config with = { .templates = templates, .template_count = 1 };
	const struct bucket_names names = { .user = str_of("alice") };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct bucket_set set = { 0 };

	assert_int_equal(control_configure(f->control, &with, NULL), 0);
	assert_int_equal(bucket_resolve(r, &names, clock_boottime_ns(), &set), BUCKET_E_MISSING);
	assert_int_equal(control_resolve(f->control, &names), 0);
	assert_int_equal(bucket_resolve(r, &names, clock_boottime_ns(), &set), BUCKET_OK);
	assert_int_equal(set.count, 1);
}

/* ---- reloads ---- */

static uint64_t available(
	const struct region *r, uint64_t scope, enum bucket_resource resource, const char *name)
{
	struct bucket_set set = { 0 };
	struct bucket_view v;

	if (!bucket_set_add(&set, r, scope, resource, str_of(name)))
		return UINT64_MAX;
	assert_int_equal(set.count, 1);
	assert_true(bucket_view(r, set.index[0], clock_boottime_ns(), &v));
	return v.available;
}

/* One limit, not two; and what was used stays used. */
static void a_limit_that_counts_in_another_way_replaces_the_old(void **state)
{
	struct config_limit limit = { .scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_HELD,
		.name = (char *)"p",
		.limit = 1000,
		.window_ns = 86400 * NSEC_PER_SEC,
		.burst = 1000 };
	const struct config one = { .limits = &limit, .limit_count = 1 };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct bucket_set set = { 0 };

	assert_int_equal(control_configure(f->control, &one, NULL), 0);
	assert_true(bucket_set_add(&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, str_of("p")));
	bucket_charge(r, set.index[0], 400, clock_boottime_ns());
	for (int i = 0; i < 3; i++) {
		limit.kind = i % 2 ? BUCKET_HELD : BUCKET_RATE;
		assert_int_equal(control_configure(f->control, &one, NULL), 0);
		assert_in_range(available(r, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p"), 590, 601);
	}
}

/* The last step is the one that fails: all before it is undone. */
static void a_reload_that_fails_half_way_leaves_what_was_in_force(void **state)
{
	static struct config_limit new_limits[] = {
		{ .scope = BUCKET_SCOPE_USER,
			.name = (char *)"new",
			.limit = 1,
			.window_ns = NSEC_PER_SEC,
			.burst = 1 },
	};
	static struct config_limit templates[] = {
		{ .scope = BUCKET_SCOPE_MODEL, .limit = 1, .window_ns = NSEC_PER_SEC, .burst = 2 },
	};
	char name[200];
	struct config_route route = { .name = name };
	const struct config good = { .limits = limits,
		.limit_count = 1,
		.providers = providers,
		.provider_count = 2,
		.models = models,
		.model_count = 1,
		.routes = routes,
		.route_count = 1 };
	const struct config bad = { .limits = new_limits,
		.limit_count = 1,
		.templates = templates,
		.template_count = 1,
		.providers = providers,
		.provider_count = 1,
		.routes = &route,
		.route_count = 1 };
	const struct bucket_names names = { .model = str_of("m") };
	struct fixture *f = *state;
	struct region *r = start(f);
	struct router_route found;
	struct bucket_set set;
	_Atomic uint64_t *turn;

	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(control_configure(f->control, &good, NULL), 0);
	take(r, 4);
	assert_int_equal(control_configure(f->control, &bad, NULL), -ENAMETOOLONG);
	assert_int_equal(available(r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, "p"), 6);
	assert_int_equal(available(r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, "new"), UINT64_MAX);
	assert_int_equal(bucket_resolve(r, &names, clock_boottime_ns(), &set), BUCKET_OK);
	assert_int_equal(set.count, 0);
	assert_int_not_equal(target_find(r, str_of("q/other"), NULL), TARGET_NONE);
	assert_true(router_find(r, str_of("r"), &found, &turn));
	assert_int_equal(found.count, 2);
}

/* Rows that nobody configured are the first to go. */
static void a_table_full_of_clients_names_takes_a_new_configuration(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	struct target_config t = { .provider = TARGET_NONE };
	char name[16];
	int row = 0;

	for (int i = 0; row >= 0; i++) {
		snprintf(name, sizeof(name), "x/%d", i);
		t.name = str_of(name);
		row = target_configure(r, &t);
	}
	assert_int_equal(row, -ENOSPC);
	assert_int_equal(control_configure(f->control, &routed, NULL), 0);
	assert_int_not_equal(target_find(r, str_of("p/m"), NULL), TARGET_NONE);
}

static void hear(struct region *r, uint64_t limit)
{
	struct bucket_set set = { 0 };

	assert_true(bucket_set_add(&set, r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of("p")));
	for (int i = 0; i < 3; i++)
		bucket_hear(r, set.index[0], limit);
}

static uint64_t limit_of(const struct region *r)
{
	struct bucket_view v;

	for (uint32_t i = 0; i < r->buckets; i++)
		if (bucket_view(r, i, clock_boottime_ns(), &v))
			return v.limit;
	return 0;
}

static void on_stop(struct loop_timer *t)
{
	struct watch *w = container_of(t, struct watch, timer);

	loop_stop(w->f->loop);
}

static void run_for(struct fixture *f, uint64_t ns)
{
	struct watch w = { .timer = { .fn = on_stop }, .f = f };

	assert_int_equal(loop_timer_start(f->loop, &w.timer, loop_now(f->loop) + ns), 0);
	assert_int_equal(loop_run(f->loop), 0);
}

/* Down as the provider says, and up again, but not above what is configured. */
static void a_limit_follows_its_provider_down_and_back(void **state)
{
	struct config_limit limit = limits[0];
	const struct config one = { .limits = &limit, .limit_count = 1 };
	struct fixture *f = *state;
	struct region *r = start(f);

	limit.limit = 10;
	assert_int_equal(control_configure(f->control, &one, NULL), 0);
	hear(r, 4);
	for (int i = 0; i < 500 && limit_of(r) == 10; i++)
		run_for(f, 20 * NSEC_PER_MSEC);
	assert_int_equal(limit_of(r), 4);
	hear(r, 500);
	for (int i = 0; i < 500 && limit_of(r) == 4; i++)
		run_for(f, 20 * NSEC_PER_MSEC);
	assert_int_equal(limit_of(r), 10);
	/* The control may not keep the test's own. */
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
}

static void where_breakers_are_off_none_opens_and_all_close(void **state)
{
	static const struct breaker_report failed = { .outcome = BREAKER_FAILED };
	struct config with = routed, without = routed;
	struct breaker_ticket ticket = { .slot = BREAKER_NO_PROBE };
	struct fixture *f = *state;
	struct region *r = start(f);
	uint64_t wait_ns, now_ns = clock_boottime_ns();

	providers[0].breaker = models[0].breaker = breaker_preset(BREAKER_PRODUCTION);
	with.features.breaker = true;
	assert_int_equal(control_configure(f->control, &with, NULL), 0);
	ticket.row = target_find(r, str_of("p/m"), NULL);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < 50; i++)
			breaker_record(r, &ticket, &failed, now_ns, 1);
		assert_int_equal(breaker_check(r, ticket.row, now_ns, &wait_ns),
			round ? BREAKER_PASS : BREAKER_REJECT);
		assert_int_equal(control_configure(f->control, &without, NULL), 0);
		assert_int_equal(breaker_check(r, ticket.row, now_ns, &wait_ns), BREAKER_PASS);
	}
	/* What an operator opened is his. */
	breaker_force_open(r, ticket.row, now_ns);
	assert_int_equal(control_configure(f->control, &without, NULL), 0);
	assert_int_equal(breaker_check(r, ticket.row, now_ns, &wait_ns), BREAKER_REJECT);
}

/* "a@b" of one name or of two. */
static void an_operator_names_limits_of_two_names(void **state)
{
	struct config_limit pairs[] = { limits[0], limits[0] };
	const struct config two = { .limits = pairs, .limit_count = 2 };
	struct fixture *f = *state;

	start(f);
	pairs[0].scope = BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL;
	pairs[0].name = (char *)"al@ice\x1f"
				"gpt 4";
	pairs[1].scope = BUCKET_SCOPE_USER;
	pairs[1].name = (char *)"bob@home";
	assert_int_equal(control_configure(f->control, &two, NULL), 0);
	assert_int_equal(act(f, "limit-reset", "user+model al@ice@gpt 4 requests"), STATUS_OK);
	assert_int_equal(act(f, "limit-reset", "user bob@home requests"), STATUS_OK);
	assert_int_equal(act(f, "limit-reset", "user bob requests"), STATUS_BAD_REQUEST);
	assert_int_equal(act(f, "limit-reset", "user  requests"), STATUS_BAD_REQUEST);
	assert_int_equal(act(f, "limit-reset", "user requests"), STATUS_BAD_REQUEST);
	assert_int_equal(act(f, "limit-reset", ""), STATUS_BAD_REQUEST);
	assert_int_equal(control_configure(f->control, &config, NULL), 0);
}

/* Another socket of the same name, the same runtime folder. */
static void a_region_has_one_daemon(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t child;

	start(f);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct control *second = NULL;

		_exit(control_new(&second, NULL, "/elsewhere/d.sock", f->folder, NULL) ==
					-EADDRINUSE ?
				0 :
				1);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

int main(void)
{
#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
#define ON_DISK(fn_) cmocka_unit_test_setup_teardown(fn_, setup_disk, teardown)
	const struct CMUnitTest tests[] = {
		CASE(a_new_region_is_private_and_complete),
		CASE(an_observer_cannot_map_it_for_writing),
		CASE(the_next_daemon_adopts_budgets_and_resets_gauges),
		CASE(what_cannot_be_adopted_is_kept_aside),
		CASE(a_left_over_of_a_dead_start_is_no_obstacle),
		CASE(links_and_strange_files_are_refused),
		CASE(another_users_file_is_refused),
		CASE(a_file_others_could_read_is_made_private),
		CASE(a_full_file_system_is_an_error_that_leaves_nothing),
		CASE(limits_follow_the_configuration),
		CASE(a_full_table_can_be_replaced),
		CASE(a_limit_out_of_range_changes_nothing),
		CASE(what_the_dead_held_comes_back_when_their_socket_ends),
		CASE(the_living_keep_what_they_hold_without_a_socket),
		CASE(who_died_while_no_daemon_ran_is_reaped_by_the_next),
		CASE(comings_and_goings_are_events),
		CASE(targets_and_routes_follow_the_configuration),
		CASE(an_operator_acts_on_breakers_and_limits),
		CASE(names_get_the_limits_of_templates),
		CASE(a_limit_that_counts_in_another_way_replaces_the_old),
		CASE(a_reload_that_fails_half_way_leaves_what_was_in_force),
		CASE(a_table_full_of_clients_names_takes_a_new_configuration),
		CASE(a_limit_follows_its_provider_down_and_back),
		CASE(where_breakers_are_off_none_opens_and_all_close),
		CASE(an_operator_names_limits_of_two_names),
		CASE(a_region_has_one_daemon),
		ON_DISK(on_a_disk_a_link_leads_to_the_region),
		ON_DISK(a_planted_link_is_not_followed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
