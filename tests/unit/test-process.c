#include "base/process.h"
#include "base/clock.h"
#include "base/aux.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>

/* A child with that name, waiting to be killed. */
static pid_t child(const char *name)
{
	int ready[2];
	char byte;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, name);
		if (write(ready[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void reap(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void a_start_time_is_that_of_the_process(void **state)
{
	uint64_t ticks_per_s = (uint64_t)sysconf(_SC_CLK_TCK), mine = 0, again = 0, young = 0;
	uint64_t now = clock_boottime_ns() / (NSEC_PER_SEC / ticks_per_s);
	pid_t pid = child("young");

	(void)state;
	assert_int_equal(process_start_ticks((uint64_t)getpid(), &mine), 0);
	assert_int_equal(process_start_ticks((uint64_t)getpid(), &again), 0);
	assert_int_equal(process_start_ticks((uint64_t)pid, &young), 0);
	assert_int_equal(mine, again);
	assert_true(mine > 0 && mine <= now + 1);
	assert_true(young >= mine);
	reap(pid);
}

/* The name is between parentheses, unquoted. */
static void a_name_cannot_forge_it(void **state)
{
	static const char *const names[] = { "a) R 1 1 1 1", "((", ") ) )", "    " };
	uint64_t mine = 0, start = 0;

	(void)state;
	assert_int_equal(process_start_ticks((uint64_t)getpid(), &mine), 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		pid_t pid = child(names[i]);

		assert_int_equal(process_start_ticks((uint64_t)pid, &start), 0);
		assert_in_range(start, mine, mine + 1000 * 100);
		reap(pid);
	}
}

static void a_dead_process_has_none(void **state)
{
	uint64_t start = 0;
	pid_t pid = child("short");

	(void)state;
	reap(pid);
	assert_int_equal(process_start_ticks((uint64_t)pid, &start), -ESRCH);
	assert_int_equal(process_start_ticks(0, &start), -ESRCH);
	assert_int_equal(process_start_ticks(UINT64_MAX, &start), -ESRCH);
}

/* Killed, but its parent does not wait for it. */
static void a_zombie_has_none(void **state)
{
	pid_t pid = child("zombie");
	uint64_t start = 0;
	siginfo_t end;

	(void)state;
	kill(pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT), 0);
	assert_int_equal(process_start_ticks((uint64_t)pid, &start), -ESRCH);
	reap(pid);
}

static void *wait_to_be_killed(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static char state_of(pid_t pid)
{
	char path[64], state = '?';
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	file = fopen(path, "re");
	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*d %*s %c", &state), 1);
	fclose(file);
	return state;
}

/* The kernel calls it a zombie as soon as its first thread has ended. */
static void a_process_whose_first_thread_ended_is_alive(void **state)
{
	const struct timespec pause_10_ms = { .tv_nsec = 10 * NSEC_PER_MSEC };
	uint64_t start = 0;
	pthread_t thread;
	pid_t pid = fork();

	(void)state;
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (pthread_create(&thread, NULL, wait_to_be_killed, NULL) != 0)
			_exit(1);
		pthread_exit(NULL);
	}
	for (int i = 0; i < 1000 && state_of(pid) != 'Z'; i++)
		nanosleep(&pause_10_ms, NULL);
	assert_int_equal(state_of(pid), 'Z');
	assert_int_equal(process_start_ticks((uint64_t)pid, &start), 0);
	assert_false(process_is_gone((uint64_t)pid, start));
	assert_false(process_is_gone((uint64_t)pid, 0));
	reap(pid);
}

/* Gone is only what is proved to be: alive, another process of that pid, a zombie, waited for. */
static void only_proof_makes_a_process_gone(void **state)
{
	pid_t pid = child("member");
	uint64_t start = 0, p = (uint64_t)pid;
	siginfo_t end;

	(void)state;
	assert_int_equal(process_start_ticks(p, &start), 0);
	assert_false(process_is_gone(p, start));
	assert_false(process_is_gone(p, 0));
	assert_true(process_is_gone(p, start + 1));
	assert_true(process_is_gone(0, 0));
	assert_true(process_is_gone(UINT64_MAX, start));
	kill(pid, SIGSTOP);
	assert_false(process_is_gone(p, start));
	kill(pid, SIGKILL);
	assert_int_equal(waitid(P_PID, (id_t)pid, &end, WEXITED | WNOWAIT), 0);
	assert_true(process_is_gone(p, start));
	assert_true(process_is_gone(p, 0));
	reap(pid);
	assert_true(process_is_gone(p, start));
	assert_true(process_is_gone(p, 0));
}

/* Without descriptors /proc tells nothing, which proves nothing. */
static void nobody_is_gone_for_lack_of_descriptors(void **state)
{
	pid_t living = child("living"), probe;
	uint64_t start = 0;
	int status = -1;

	(void)state;
	assert_int_equal(process_start_ticks((uint64_t)living, &start), 0);
	probe = fork();
	if (probe == 0) {
		while (dup(0) >= 0)
			;
		_exit(process_is_gone((uint64_t)living, start) ? 1 : 0);
	}
	assert_int_equal(waitpid(probe, &status, 0), probe);
	assert_int_equal(status, 0);
	reap(living);
}

/* In a child, with the descriptors of mask closed: the first that is not as it has to be, or 0. */
static int open_standard_fds_without(unsigned mask)
{
	for (int fd = 0; fd <= 2; fd++)
		if (mask >> fd & 1)
			close(fd);
	if (process_open_standard_fds() != 0)
		return 1;
	for (int fd = 0; fd <= 2; fd++) {
		if (fcntl(fd, F_GETFD) != 0)
			return 10 + fd;
		if (!(mask >> fd & 1))
			continue;
		if (fd == 0 ? read(fd, &mask, 1) >= 0 : write(fd, "", 1) >= 0)
			return 20 + fd;
	}
	/* None is left over. */
	return fcntl(3, F_GETFD) < 0 ? 0 : 3;
}

static void closed_standard_descriptors_are_opened(void **state)
{
	(void)state;
	for (unsigned mask = 0; mask < 8; mask++) {
		pid_t pid = fork();
		int status = -1;

		if (pid == 0) {
			close_range(3, ~0U, 0);
			_exit(open_standard_fds_without(mask));
		}
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_int_equal(status, 0);
	}
}

static void the_boot_has_one_id(void **state)
{
	uint64_t a[2] = { 0 }, b[2] = { 0 };
	char text[40] = "", wanted[40];
	FILE *file = fopen("/proc/sys/kernel/random/boot_id", "re");

	(void)state;
	assert_int_equal(process_boot_id(a), 0);
	assert_int_equal(process_boot_id(b), 0);
	assert_memory_equal(a, b, sizeof(a));
	assert_non_null(fgets(text, sizeof(text), file));
	fclose(file);
	snprintf(wanted, sizeof(wanted), "%08llx-%04llx-%04llx-%04llx-%012llx\n",
		(unsigned long long)(a[0] >> 32), (unsigned long long)(a[0] >> 16 & 0xffff),
		(unsigned long long)(a[0] & 0xffff), (unsigned long long)(a[1] >> 48),
		(unsigned long long)(a[1] & 0xffffffffffff));
	assert_string_equal(text, wanted);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_start_time_is_that_of_the_process),
		cmocka_unit_test(a_name_cannot_forge_it),
		cmocka_unit_test(a_dead_process_has_none),
		cmocka_unit_test(a_zombie_has_none),
		cmocka_unit_test(a_process_whose_first_thread_ended_is_alive),
		cmocka_unit_test(only_proof_makes_a_process_gone),
		cmocka_unit_test(nobody_is_gone_for_lack_of_descriptors),
		cmocka_unit_test(closed_standard_descriptors_are_opened),
		cmocka_unit_test(the_boot_has_one_id),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
