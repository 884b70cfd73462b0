#include "daemon/io/notify.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

/* The environment is read once per process: each case is a child. */
static void in_child(void (*fn)(void))
{
	int status;
	pid_t child = fork();

	assert_true(child >= 0);
	if (child == 0) {
		alarm(30);
		fn();
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#define EXPECT(condition_) \
	do { \
		if (!(condition_)) { \
			fprintf(stderr, "line %d: %s\n", __LINE__, #condition_); \
			_exit(1); \
		} \
	} while (0)

static int manager_open(const struct sockaddr_un *address, socklen_t size)
{
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	EXPECT(fd >= 0);
	EXPECT(bind(fd, (const struct sockaddr *)address, size) == 0);
	return fd;
}

static void expect_message(int fd, const char *expected)
{
	char text[1024] = "";
	ssize_t n = recv(fd, text, sizeof(text) - 1, 0);

	EXPECT(n > 0);
	if (strcmp(text, expected) != 0) {
		fprintf(stderr, "got \"%s\", not \"%s\"\n", text, expected);
		_exit(1);
	}
}

static void expect_all_messages(int fd)
{
	unsigned long long usec = 0;
	struct timespec t;
	char text[1024] = "";

	notify_ready();
	EXPECT(!getenv("NOTIFY_SOCKET"));
	expect_message(fd, "READY=1");
	notify_watchdog();
	expect_message(fd, "WATCHDOG=1");
	notify_stopping();
	expect_message(fd, "STOPPING=1");
	notify_reloading();
	EXPECT(recv(fd, text, sizeof(text) - 1, 0) > 0);
	EXPECT(sscanf(text, "RELOADING=1\nMONOTONIC_USEC=%llu", &usec) == 1);
	clock_gettime(CLOCK_MONOTONIC, &t);
	/* The right clock: not the wall's, and not in the future. */
	EXPECT(usec > 0 && usec / 1000000 <= (unsigned long long)t.tv_sec);
	EXPECT((unsigned long long)t.tv_sec - usec / 1000000 < 60);
}

static void child_tells_abstract(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char name[64];
	int n = snprintf(name, sizeof(name), "@llmkit-notify-%d", (int)getpid());

	memcpy(address.sun_path, name, (size_t)n);
	address.sun_path[0] = '\0';
	setenv("NOTIFY_SOCKET", name, 1);
	expect_all_messages(manager_open(
		&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n)));
}

static void child_tells_path(void)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int n = snprintf(
		address.sun_path, sizeof(address.sun_path), "/tmp/llmkit-notify-%d", (int)getpid());
	int fd;

	EXPECT(n > 0);
	fd = manager_open(&address, sizeof(address));
	setenv("NOTIFY_SOCKET", address.sun_path, 1);
	expect_all_messages(fd);
	EXPECT(unlink(address.sun_path) == 0);
	/* The manager has gone: not our end. */
	close(fd);
	notify_ready();
}

static void tells_the_manager(void **state)
{
	(void)state;
	in_child(child_tells_abstract);
	in_child(child_tells_path);
}

static void child_alone(void)
{
	notify_ready();
	notify_watchdog();
	EXPECT(notify_listen_fd() == -1);
	EXPECT(notify_watchdog_interval_ns() == 0);
}

static void child_with_nonsense(void)
{
	setenv("NOTIFY_SOCKET", "relative", 1);
	setenv("WATCHDOG_USEC", "-5", 1);
	setenv("LISTEN_FDS", "x", 1);
	setenv("LISTEN_PID", "1", 1);
	child_alone();
	EXPECT(!getenv("LISTEN_FDS") && !getenv("LISTEN_PID") && !getenv("WATCHDOG_USEC"));
}

static void does_nothing_without_a_manager(void **state)
{
	(void)state;
	in_child(child_alone);
	in_child(child_with_nonsense);
}

static void set_pid(const char *name, pid_t pid)
{
	char text[32];

	snprintf(text, sizeof(text), "%d", (int)pid);
	setenv(name, text, 1);
}

static void child_watched(void)
{
	setenv("WATCHDOG_USEC", "30000000", 1);
	set_pid("WATCHDOG_PID", getpid());
	EXPECT(notify_watchdog_interval_ns() == 15 * NSEC_PER_SEC);
	EXPECT(notify_watchdog_interval_ns() == 15 * NSEC_PER_SEC);
	EXPECT(!getenv("WATCHDOG_USEC") && !getenv("WATCHDOG_PID"));
}

static void child_of_a_watched_one(void)
{
	setenv("WATCHDOG_USEC", "30000000", 1);
	set_pid("WATCHDOG_PID", getppid());
	EXPECT(notify_watchdog_interval_ns() == 0);
}

static void watchdog_is_fed_twice_per_interval(void **state)
{
	(void)state;
	in_child(child_watched);
	in_child(child_of_a_watched_one);
}

static void child_gets_sockets(void)
{
	struct stat s;

	for (int fd = 3; fd <= 5; fd++)
		EXPECT(dup2(STDERR_FILENO, fd) == fd);
	setenv("LISTEN_FDS", "2", 1);
	setenv("LISTEN_FDNAMES", "a:b", 1);
	set_pid("LISTEN_PID", getpid());
	EXPECT(notify_listen_fd() == 3);
	EXPECT(notify_listen_fd() == -1);
	EXPECT(fcntl(3, F_GETFD) & FD_CLOEXEC);
	EXPECT(fstat(4, &s) < 0);  /* passed, not used */
	EXPECT(fstat(5, &s) == 0); /* not passed */
	EXPECT(!getenv("LISTEN_FDS") && !getenv("LISTEN_PID") && !getenv("LISTEN_FDNAMES"));
}

static void child_gets_sockets_of_another(void)
{
	EXPECT(dup2(STDERR_FILENO, 3) == 3);
	setenv("LISTEN_FDS", "1", 1);
	set_pid("LISTEN_PID", getppid());
	EXPECT(notify_listen_fd() == -1);
	EXPECT(!(fcntl(3, F_GETFD) & FD_CLOEXEC));
}

static void child_gets_a_hole(void)
{
	close(3);
	setenv("LISTEN_FDS", "1", 1);
	set_pid("LISTEN_PID", getpid());
	EXPECT(notify_listen_fd() == -1);
}

static void sockets_are_taken_from_the_manager(void **state)
{
	(void)state;
	in_child(child_gets_sockets);
	in_child(child_gets_sockets_of_another);
	in_child(child_gets_a_hole);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tells_the_manager),
		cmocka_unit_test(does_nothing_without_a_manager),
		cmocka_unit_test(watchdog_is_fed_twice_per_interval),
		cmocka_unit_test(sockets_are_taken_from_the_manager),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
