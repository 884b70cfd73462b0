#include "daemon/io/listener.h"
#include "base/aux.h"
#include "base/clock.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#define GUARD_SECONDS 60
#define NOBODY 65534

struct fixture {
	struct loop *loop;
	struct loop_timer pause;
	struct listener *listener;
	struct listener_access access;
	char folder[64], path[96];
	int lock;
	int fds[64];
	int accepted, refused, stop_at;
	struct listener_peer peer; /* the last */
	char why[128];
};

static void pause_over(struct loop_timer *t)
{
	loop_stop(container_of(t, struct fixture, pause)->loop);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || loop_new(&f->loop, NULL) < 0)
		return -1;
	f->pause.fn = pause_over;
	f->lock = -1;
	snprintf(f->folder, sizeof(f->folder), "/tmp/llmkit-listener-XXXXXX");
	if (!mkdtemp(f->folder))
		return -1;
	/* Other users in these tests walk through. */
	if (chmod(f->folder, 0755) < 0)
		return -1;
	snprintf(f->path, sizeof(f->path), "%s/daemon.sock", f->folder);
	alarm(GUARD_SECONDS);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char lock[128];

	alarm(0);
	for (int i = 0; i < f->accepted; i++)
		close(f->fds[i]);
	f->listener = listener_free(f->listener);
	listener_unlock(&f->lock);
	f->loop = loop_free(f->loop);
	snprintf(lock, sizeof(lock), "%s.lock", f->path);
	unlink(lock);
	unlink(f->path);
	rmdir(f->folder);
	free(f);
	return 0;
}

static void on_accepted(void *context, int fd, const struct listener_peer *peer)
{
	struct fixture *f = context;

	f->fds[f->accepted++] = fd;
	f->peer = *peer;
	if (f->accepted + f->refused == f->stop_at)
		loop_stop(f->loop);
}

static void on_refused(void *context, int fd, const struct listener_peer *peer, const char *why)
{
	struct fixture *f = context;

	assert_true(fd >= 0);
	f->refused++;
	f->peer = *peer;
	snprintf(f->why, sizeof(f->why), "%s", why);
	if (f->accepted + f->refused == f->stop_at)
		loop_stop(f->loop);
}

static int open_listener(struct fixture *f, int inherited, unsigned per_uid)
{
	const struct listener_events events = { on_accepted, on_refused, f };

	return listener_new(
		&f->listener, f->loop, f->path, inherited, &f->access, per_uid, &events);
}

/* Runs until that many clients have come in all. */
static void run_until(struct fixture *f, int clients)
{
	f->stop_at = clients;
	if (f->accepted + f->refused < clients)
		assert_int_equal(loop_run(f->loop), 0);
	assert_int_equal(f->accepted + f->refused, clients);
}

static void settle(struct fixture *f)
{
	assert_int_equal(
		loop_timer_start(f->loop, &f->pause, clock_boottime_ns() + 5 * NSEC_PER_MSEC), 0);
	assert_int_equal(loop_run(f->loop), 0);
}

static int dial(int fd, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : 0;
}

static int client_open(const struct fixture *f)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(dial(fd, f->path), 0);
	return fd;
}

/* ---- the verdict ---- */

static void classification(void **state)
{
	uid_t participants[] = { 1000, 1001 }, observers[] = { 1001, 2000 };
	gid_t participant_groups[] = { 50 }, observer_groups[] = { 60, 61 };
	struct listener_access access = {
		.participant_uids = participants,
		.participant_uid_count = 2,
		.observer_uids = observers,
		.observer_uid_count = 2,
		.participant_gids = participant_groups,
		.participant_gid_count = 1,
		.observer_gids = observer_groups,
		.observer_gid_count = 2,
	};
	static const struct {
		uid_t uid;
		gid_t gids[3];
		size_t gid_count;
		enum listener_role role;
	} rows[] = {
		{ 0, { 0 }, 1, LISTENER_PARTICIPANT },
		{ 77, { 0 }, 0, LISTENER_PARTICIPANT }, /* the daemon's own */
		{ 1000, { 9 }, 1, LISTENER_PARTICIPANT },
		{ 1001, { 9 }, 1, LISTENER_PARTICIPANT }, /* in both lists: the greater right */
		{ 2000, { 9 }, 1, LISTENER_OBSERVER }, { 2000, { 9, 50 }, 2, LISTENER_PARTICIPANT },
		{ 3000, { 9, 8, 61 }, 3, LISTENER_OBSERVER },
		{ 3000, { 9, 8, 61 }, 2, LISTENER_REFUSED }, { 3000, { 0 }, 0, LISTENER_REFUSED },
		{ 50, { 60 }, 0, LISTENER_REFUSED },        /* numbers of groups are not of users */
		{ 3000, { 1000, 0 }, 2, LISTENER_REFUSED }, /* nor the other way round */
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(listener_classify(
					 &access, 77, rows[i].uid, rows[i].gids, rows[i].gid_count),
			rows[i].role);
	access.everyone_observes = true;
	assert_int_equal(listener_classify(&access, 77, 3000, NULL, 0), LISTENER_OBSERVER);
	assert_int_equal(listener_classify(&access, 77, 1000, NULL, 0), LISTENER_PARTICIPANT);
	access = (struct listener_access){ 0 };
	assert_int_equal(listener_classify(&access, 77, 3000, NULL, 0), LISTENER_REFUSED);
	assert_int_equal(listener_classify(&access, 77, 77, NULL, 0), LISTENER_PARTICIPANT);
}

/* ---- the lock ---- */

/* The result of fn in a child; it may exit by itself. */
static int in_child(int (*fn)(struct fixture *), struct fixture *f)
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0)
		_exit(fn(f));
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int child_is_told_its_parent(struct fixture *f)
{
	pid_t holder = 0;
	int fd = -1;

	if (listener_lock(f->path, &fd, &holder) != LISTENER_E_HELD)
		return 1;
	return holder == getppid() && fd == -1 ? 0 : 2;
}

static int child_takes_lock(struct fixture *f)
{
	pid_t holder = 0;
	int fd = -1;

	return listener_lock(f->path, &fd, &holder);
}

static void second_daemon_is_told_the_pid_of_the_first(void **state)
{
	struct fixture *f = *state;
	char lock[128];
	struct stat s;
	pid_t holder = 0;

	assert_int_equal(listener_lock(f->path, &f->lock, &holder), 0);
	assert_int_equal(in_child(child_is_told_its_parent, f), 0);
	snprintf(lock, sizeof(lock), "%s.lock", f->path);
	assert_int_equal(stat(lock, &s), 0);
	assert_int_equal(s.st_mode & 0777, 0600);
	listener_unlock(&f->lock);
	listener_unlock(&f->lock);
	/* A child that dies with the lock gives it back. */
	assert_int_equal(in_child(child_takes_lock, f), 0);
	assert_int_equal(in_child(child_takes_lock, f), 0);
}

struct verdict {
	int outcome;
	pid_t self, holder;
};

static void one_of_many_gets_the_lock(void **state)
{
	enum { MANY = 50 };
	struct fixture *f = *state;
	struct verdict v;
	int start[2], end[2], results[2], winners = 0;
	pid_t children[MANY], winner = 0, holders[MANY];

	assert_int_equal(
		pipe2(start, O_CLOEXEC) + pipe2(end, O_CLOEXEC) + pipe2(results, O_CLOEXEC), 0);
	for (int i = 0; i < MANY; i++) {
		children[i] = fork();
		assert_true(children[i] >= 0);
		if (children[i] == 0) {
			int fd = -1;
			char byte;

			close(start[1]);
			close(end[1]);
			v = (struct verdict){ .self = getpid() };
			if (read(start[0], &byte, 1) != 0)
				_exit(1);
			v.outcome = listener_lock(f->path, &fd, &v.holder);
			if (write(results[1], &v, sizeof(v)) != sizeof(v))
				_exit(1);
			_exit(read(end[0], &byte, 1) != 0);
		}
	}
	close(start[1]); /* go */
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(read(results[0], &v, sizeof(v)), sizeof(v));
		holders[i] = v.holder;
		if (v.outcome == LISTENER_OK) {
			winners++;
			winner = v.self;
			holders[i] = v.self;
		} else {
			assert_int_equal(v.outcome, LISTENER_E_HELD);
		}
	}
	close(end[1]);
	for (int i = 0; i < MANY; i++) {
		int status;

		assert_int_equal(waitpid(children[i], &status, 0), children[i]);
		assert_int_equal(status, 0);
		assert_int_equal(holders[i], winner);
	}
	assert_int_equal(winners, 1);
	close(start[0]);
	close(end[0]);
	close(results[0]);
	close(results[1]);
}

/* ---- the path ---- */

static int child_tries_long_path(struct fixture *f)
{
	char path[256], text[1024] = "";
	pid_t holder = 0;
	int fd = -1, fds[2];

	(void)f;
	memset(path, 'x', sizeof(path));
	memcpy(path, "/tmp/", 5);
	path[108] = '\0';
	if (pipe2(fds, O_CLOEXEC) < 0 || dup2(fds[1], STDERR_FILENO) < 0)
		return 1;
	if (listener_lock(path, &fd, &holder) != LISTENER_E_PATH)
		return 2;
	if (read(fds[0], text, sizeof(text) - 1) <= 0)
		return 3;
	return strstr(text, "108 bytes") && strstr(text, "107") ? 0 : 4;
}

/* Told to somebody who has no place of their own, and to nobody else. */
static int child_is_told_of_a_place_of_its_own(struct fixture *f)
{
	char path[128], text[1024] = "";
	pid_t holder = 0;
	int fd = -1, fds[2];

	snprintf(path, sizeof(path), "%s/s.sock", f->folder);
	if (pipe2(fds, O_CLOEXEC) < 0 || dup2(fds[1], STDERR_FILENO) < 0 ||
		setresuid(65534, 65534, 65534) < 0)
		return 1;
	if (listener_lock(path, &fd, &holder) != LISTENER_E_PATH)
		return 2;
	if (read(fds[0], text, sizeof(text) - 1) <= 0)
		return 3;
	return strstr(text, "Permission denied; set XDG_RUNTIME_DIR, LLMKIT_SOCKET") ? 0 : 4;
}

static void a_user_is_told_of_a_place_of_its_own(void **state)
{
	struct fixture *f = *state;

	if (geteuid() != 0)
		skip();
	assert_int_equal(in_child(child_is_told_of_a_place_of_its_own, f), 0);
}

static void bad_paths_are_refused(void **state)
{
	struct fixture *f = *state;
	char path[128];
	pid_t holder = 0;
	int fd = -1;

	assert_int_equal(in_child(child_tries_long_path, f), 0);
	assert_int_equal(listener_lock("", &fd, &holder), LISTENER_E_PATH);
	snprintf(path, sizeof(path), "%s/no/folder/x.sock", f->folder);
	assert_int_equal(listener_lock(path, &fd, &holder), LISTENER_E_PATH);
	/* A file of somebody's is not removed. */
	fd = open(f->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(listener_lock(f->path, &f->lock, &holder), 0);
	assert_int_equal(open_listener(f, -1, 0), LISTENER_E_PATH);
	assert_null(f->listener);
	assert_int_equal(access(f->path, F_OK), 0);
	snprintf(path, sizeof(path), "%s/x.sock", f->path);
	assert_int_equal(listener_lock(path, &fd, &holder), LISTENER_E_PATH);
}

static void makes_a_private_folder(void **state)
{
	struct fixture *f = *state;
	char folder[128], path[160];
	pid_t holder = 0;
	struct stat s;
	mode_t mask = umask(0277);

	snprintf(folder, sizeof(folder), "%s/new", f->folder);
	snprintf(path, sizeof(path), "%s/x.sock", folder);
	assert_int_equal(listener_lock(path, &f->lock, &holder), 0);
	umask(mask);
	assert_int_equal(stat(folder, &s), 0);
	assert_int_equal(s.st_mode & 07777, 0700);
	snprintf(path, sizeof(path), "%s/x.sock.lock", folder);
	assert_int_equal(unlink(path), 0);
	assert_int_equal(rmdir(folder), 0);
}

static int child_dies_listening(struct fixture *f)
{
	pid_t holder = 0;

	return listener_lock(f->path, &f->lock, &holder) || open_listener(f, -1, 0);
}

static void dead_daemons_socket_is_replaced(void **state)
{
	struct fixture *f = *state;
	pid_t holder = 0;
	struct stat s;
	mode_t mask;
	int fd;

	f->loop = loop_free(f->loop); /* a ring belongs to one process */
	{
		pid_t child = fork();
		int status;

		assert_true(child >= 0);
		if (child == 0)
			_exit(loop_new(&f->loop, NULL) || child_dies_listening(f));
		assert_int_equal(waitpid(child, &status, 0), child);
		assert_int_equal(status, 0);
	}
	assert_int_equal(loop_new(&f->loop, NULL), 0);
	assert_int_equal(access(f->path, F_OK), 0);
	assert_int_equal(listener_lock(f->path, &f->lock, &holder), 0);
	mask = umask(077);
	assert_int_equal(open_listener(f, -1, 0), 0);
	umask(mask);
	assert_int_equal(stat(f->path, &s), 0);
	assert_int_equal(s.st_mode & 0777, 0666);
	fd = client_open(f);
	run_until(f, 1);
	assert_int_equal(f->accepted, 1);
	close(fd);
}

/* ---- clients ---- */

static void own_user_is_a_participant_up_to_a_limit(void **state)
{
	struct fixture *f = *state;
	int clients[4];
	char byte;

	assert_int_equal(open_listener(f, -1, 2), 0);
	for (int i = 0; i < 3; i++)
		clients[i] = client_open(f);
	run_until(f, 3);
	assert_int_equal(f->accepted, 2);
	assert_int_equal(f->refused, 1);
	assert_non_null(strstr(f->why, "too many"));
	assert_int_equal(f->peer.uid, getuid());
	assert_int_equal(f->peer.pid, getpid());
	assert_int_equal(f->peer.role, LISTENER_PARTICIPANT);
	assert_int_equal(recv(clients[2], &byte, 1, 0), 0);
	/* One leaves, one may come. */
	listener_gone(f->listener, getuid());
	clients[3] = client_open(f);
	run_until(f, 4);
	assert_int_equal(f->accepted, 3);
	for (int i = 0; i < 4; i++)
		close(clients[i]);
}

/* Connects as a user with one extra group; 0: let in, 1: turned away. */
static int stranger_connects(struct fixture *f)
{
	gid_t extra = 4242;
	char byte;
	int fd;

	if (setgroups(1, &extra) < 0 || setgid(NOBODY) < 0 || setuid(NOBODY) < 0)
		return 9;
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	if (fd < 0 || dial(fd, f->path) < 0)
		return 8;
	return recv(fd, &byte, 1, 0) == 1 ? 0 : 1;
}

/* Lets the stranger in or not, by the access list of now; the role it got. */
static enum listener_role role_of_stranger(struct fixture *f)
{
	int before = f->accepted, status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0)
		_exit(stranger_connects(f));
	run_until(f, f->accepted + f->refused + 1);
	if (f->accepted > before)
		assert_int_equal(write(f->fds[before], "x", 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), f->accepted > before ? 0 : 1);
	assert_int_equal(f->peer.uid, NOBODY);
	assert_int_equal(f->peer.pid, child);
	return f->peer.role;
}

static void strangers_are_judged_by_their_credentials(void **state)
{
	struct fixture *f = *state;
	uid_t uids[] = { NOBODY };
	gid_t gids[] = { 4242 }, primary[] = { NOBODY };

	if (geteuid() != 0) /* only root can become somebody else */
		return;
	assert_int_equal(open_listener(f, -1, 0), 0);
	assert_int_equal(role_of_stranger(f), LISTENER_REFUSED);
	assert_non_null(strstr(f->why, "access"));
	f->access.observer_gids = gids;
	f->access.observer_gid_count = 1;
	assert_int_equal(listener_set_access(f->listener, &f->access, 0), 0);
	assert_int_equal(role_of_stranger(f), LISTENER_OBSERVER);
	f->access.observer_gids = primary;
	assert_int_equal(listener_set_access(f->listener, &f->access, 0), 0);
	assert_int_equal(role_of_stranger(f), LISTENER_OBSERVER);
	f->access.participant_uids = uids;
	f->access.participant_uid_count = 1;
	assert_int_equal(listener_set_access(f->listener, &f->access, 0), 0);
	uids[0] = 1; /* it has its own copy */
	assert_int_equal(role_of_stranger(f), LISTENER_PARTICIPANT);
	assert_int_equal(listener_set_access(f->listener, &f->access, 1), 0);
	listener_gone(f->listener, NOBODY);
	/* Two are left of three: the limit of one holds. */
	role_of_stranger(f);
	assert_non_null(strstr(f->why, "too many"));
	f->access = (struct listener_access){ 0 };
}

static void without_descriptors_clients_are_turned_away(void **state)
{
	struct fixture *f = *state;
	struct rlimit limit, less;
	int clients[5], spare;
	char byte;

	assert_int_equal(open_listener(f, -1, 0), 0);
	for (int i = 0; i < 5; i++) {
		clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_true(clients[i] >= 0);
	}
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	less = limit;
	less.rlim_cur = (rlim_t)clients[4] + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
	/* Descriptors left free by earlier tests would be used. */
	spare = dup(clients[0]);
	assert_int_equal(spare, -1);
	for (int i = 0; i < 4; i++)
		assert_int_equal(dial(clients[i], f->path), 0);
	for (int i = 0; i < 4; i++) {
		while (recv(clients[i], &byte, 1, MSG_DONTWAIT) != 0)
			settle(f);
	}
	assert_int_equal(f->accepted, 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	/* It goes on by itself. */
	assert_int_equal(dial(clients[4], f->path), 0);
	run_until(f, 1);
	assert_int_equal(f->accepted, 1);
	for (int i = 0; i < 5; i++)
		close(clients[i]);
}

static void inherited_socket_is_used_and_left_in_place(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), pair[2], client;

	assert_true(fd >= 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", f->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(open_listener(f, fd, 0), LISTENER_E_PATH); /* does not listen */
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	assert_int_equal(open_listener(f, pair[0], 0), LISTENER_E_PATH);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(open_listener(f, fd, 0), 0);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	client = client_open(f);
	run_until(f, 1);
	assert_int_equal(f->accepted, 1);
	close(client);
	listener_stop(f->listener);
	assert_int_equal(access(f->path, F_OK), 0);
}

static void stopped_listener_accepts_nothing_and_keeps_the_lock(void **state)
{
	struct fixture *f = *state;
	pid_t holder = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(listener_lock(f->path, &f->lock, &holder), 0);
	assert_int_equal(open_listener(f, -1, 0), 0);
	listener_stop(f->listener);
	listener_stop(f->listener);
	assert_int_equal(dial(fd, f->path), -ENOENT);
	settle(f);
	assert_int_equal(in_child(child_is_told_its_parent, f), 0);
	close(fd);
}

#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(classification),
		CASE(second_daemon_is_told_the_pid_of_the_first),
		CASE(one_of_many_gets_the_lock),
		CASE(a_user_is_told_of_a_place_of_its_own),
		CASE(bad_paths_are_refused),
		CASE(makes_a_private_folder),
		CASE(dead_daemons_socket_is_replaced),
		CASE(own_user_is_a_participant_up_to_a_limit),
		CASE(strangers_are_judged_by_their_credentials),
		CASE(without_descriptors_clients_are_turned_away),
		CASE(inherited_socket_is_used_and_left_in_place),
		CASE(stopped_listener_accepts_nothing_and_keeps_the_lock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
