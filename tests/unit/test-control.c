/* The file of the control region: its rights, adoption, links, one daemon at a time. What a
 * configuration does to it: test-control-apply.c; processes: test-control-members.c. */

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "shm/counters.h"
#include "tests/unit/control-fixture.h"

#define NOBODY 65534

/* ---- the file ---- */

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

/* ---- one daemon ---- */

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

#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
#define ON_DISK(fn_) cmocka_unit_test_setup_teardown(fn_, setup_disk, teardown)

int main(void)
{
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
		CASE(a_region_has_one_daemon),
		ON_DISK(on_a_disk_a_link_leads_to_the_region),
		ON_DISK(a_planted_link_is_not_followed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
