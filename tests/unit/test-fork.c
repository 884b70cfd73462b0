#include <dirent.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "shm/bucket.h"
#include "tests/unit/mini-fixture.h"

#define CHILDREN 16
#define BURST 1000

static llmkit_limits *limits;

static int start(void **state)
{
	(void)state;
	mini_init(&mini);
	mini_limit(&mini, BUCKET_SCOPE_USER, "ann", 1, BURST);
	mini_start(&mini, PARTICIPANT);
	if (mini_open(&mini, &kit) < 0)
		return -1;
	return llmkit_limits_open(kit,
		&(struct llmkit_scope){ .size = sizeof(struct llmkit_scope), .user = "ann" },
		&limits);
}

static int stop_all(void **state)
{
	llmkit_limits_close(limits);
	return stop(state);
}

static pid_t spawn(void (*body)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		alarm(60); /* a child that hangs ends the test, not the suite */
		body();
		_exit(0);
	}
	return pid;
}

static int wait_for(pid_t pid)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static llmkit_stream *submit(const char *model)
{
	llmkit_request *request = llmkit_request_new(model);
	llmkit_stream *stream = NULL;

	llmkit_request_add_message(request, "user", "x");
	llmkit_submit(kit, request, &stream);
	llmkit_request_free(request);
	return stream;
}

/* Whom the daemon takes us for; -1 when something went wrong. */
static long asked_pid(void)
{
	llmkit_stream *stream = submit("pid");
	struct llmkit_event event;
	long pid = -1;

	if (stream && llmkit_stream_next(stream, WAIT_MS, &event) == 0 &&
		event.type == LLMKIT_EVENT_TEXT)
		pid = atol(event.text.data);
	if (pid >= 0 &&
		(llmkit_stream_next(stream, WAIT_MS, &event) != 0 ||
			event.type != LLMKIT_EVENT_END))
		pid = -1;
	llmkit_stream_close(stream);
	return pid;
}

static unsigned sockets_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	for (struct dirent *e; (e = readdir(dir));) {
		struct stat st;

		count += fstatat(dirfd(dir), e->d_name, &st, 0) == 0 && S_ISSOCK(st.st_mode);
	}
	closedir(dir);
	return count;
}

static void take_all(void)
{
	for (int i = 0; i < BURST; i++) {
		int r = llmkit_acquire(limits, 1, NULL);

		child_check(r == 0 || r == LLMKIT_E_LIMITED);
	}
}

static void work(void)
{
	unsigned before = sockets_open();

	child_check(asked_pid() == getpid());
	/* The inherited socket is gone, an own one is there. */
	child_check(sockets_open() == before);
	for (int i = 0; i < 20; i++)
		child_check(asked_pid() == getpid());
	child_check(llmkit_acquire(limits, 1, NULL) == 0);
	llmkit_limits_close(limits);
	llmkit_close(kit);
}

static void prefork_children_attach_for_themselves(void **state)
{
	pid_t child[CHILDREN];

	(void)state;
	for (int i = 0; i < CHILDREN; i++)
		child[i] = spawn(work);
	assert_int_equal(asked_pid(), getpid());
	for (int i = 0; i < CHILDREN; i++)
		assert_int_equal(wait_for(child[i]), 0);
	assert_int_equal(asked_pid(), getpid());
}

static void children_share_one_budget(void **state)
{
	pid_t child[CHILDREN];
	uint64_t began = clock_boottime_ns(), bound;
	struct bucket_view view;

	(void)state;
	for (int i = 0; i < CHILDREN; i++)
		child[i] = spawn(take_all);
	for (int i = 0; i < CHILDREN; i++)
		assert_int_equal(wait_for(child[i]), 0);
	bound = BURST + (clock_boottime_ns() - began) / NSEC_PER_SEC + 1;
	view = mini_view(&mini, BUCKET_SCOPE_USER, BUCKET_REQUESTS, "ann");
	assert_true(view.admitted >= BURST && view.admitted <= bound);
}

static void work_in_a_grandchild(void)
{
	pid_t early = spawn(work), late;

	child_check(asked_pid() == getpid());
	late = spawn(work);
	child_check(wait_for(early) == 0 && wait_for(late) == 0);
	child_check(asked_pid() == getpid());
}

static void children_of_children_work(void **state)
{
	(void)state;
	assert_int_equal(wait_for(spawn(work_in_a_grandchild)), 0);
	assert_int_equal(asked_pid(), getpid());
}

static llmkit_stream *inherited;

static void use_inherited(void)
{
	struct llmkit_event event;

	child_check(llmkit_stream_next(inherited, -1, &event) == LLMKIT_E_FORKED);
	child_check(llmkit_stream_cancel(inherited) == LLMKIT_E_FORKED);
	child_check(asked_pid() == getpid());
	child_check(llmkit_stream_next(inherited, 0, &event) == LLMKIT_E_FORKED);
	llmkit_stream_close(inherited);
	llmkit_limits_close(limits);
	llmkit_close(kit);
}

static void a_stream_stays_the_parents(void **state)
{
	struct llmkit_event event;
	int count = 0;

	(void)state;
	inherited = submit("paced-50");
	assert_int_equal(wait_for(spawn(use_inherited)), 0);
	do {
		assert_int_equal(llmkit_stream_next(inherited, WAIT_MS, &event), 0);
		count += event.type == LLMKIT_EVENT_TEXT;
	} while (event.type == LLMKIT_EVENT_TEXT);
	assert_int_equal(event.type, LLMKIT_EVENT_END);
	assert_int_equal(count, 50);
	llmkit_stream_close(inherited);
}

static void work_without_a_daemon(void)
{
	char *json;

	child_check(llmkit_acquire(limits, 1, NULL) == 0);
	child_check(llmkit_status(kit, -1, &json) == LLMKIT_E_NO_DAEMON);
	child_check(submit("pid") == NULL);
	child_check(llmkit_acquire(limits, 1, NULL) == 0);
	child_check(llmkit_dispatch(kit) == LLMKIT_E_DAEMON_LOST);
}

static void budgets_work_in_a_child_without_a_daemon(void **state)
{
	(void)state;
	mini_kill(&mini);
	assert_int_equal(wait_for(spawn(work_without_a_daemon)), 0);
}

static int to_parent[2], to_child[2];

static void loop_in_a_child(void)
{
	struct pollfd p = { .fd = llmkit_fd(kit), .events = POLLIN };
	char byte = 0;
	llmkit_stream *stream = submit("count-3");
	struct llmkit_event event;
	int texts = 0, r;

	child_check(stream);
	child_check(poll(&p, 1, WAIT_MS) == 1);
	child_check(write(to_parent[1], &byte, 1) == 1 && read(to_child[0], &byte, 1) == 1);
	do {
		child_check(poll(&p, 1, WAIT_MS) == 1);
		child_check(llmkit_dispatch(kit) >= 0);
		while ((r = llmkit_stream_next(stream, 0, &event)) == 0)
			texts += event.type == LLMKIT_EVENT_TEXT;
	} while (r != LLMKIT_E_ENDED);
	child_check(texts == 3);
}

static void event_loops_are_not_shared(void **state)
{
	struct pollfd p = { .fd = llmkit_fd(kit), .events = POLLIN };
	char byte = 0;
	pid_t child;

	(void)state;
	assert_true(pipe(to_parent) == 0 && pipe(to_child) == 0);
	assert_true(llmkit_dispatch(kit) >= 0);
	child = spawn(loop_in_a_child);
	assert_int_equal(read(to_parent[0], &byte, 1), 1);
	/* The child's descriptor is readable now, the parent's is not. */
	assert_int_equal(poll(&p, 1, 0), 0);
	assert_int_equal(write(to_child[1], &byte, 1), 1);
	assert_int_equal(wait_for(child), 0);
	assert_int_equal(asked_pid(), getpid());
	for (int i = 0; i < 2; i++) {
		close(to_parent[i]);
		close(to_child[i]);
	}
}

static void *first_call(void *result)
{
	*(bool *)result = asked_pid() == getpid() && llmkit_acquire(limits, 1, NULL) == 0;
	return NULL;
}

static void first_call_by_many_threads(void)
{
	pthread_t thread[4];
	bool good[4];

	for (int i = 0; i < 4; i++)
		child_check(pthread_create(&thread[i], NULL, first_call, &good[i]) == 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		child_check(good[i]);
	}
}

static void threads_of_a_child_notice_together(void **state)
{
	(void)state;
	for (int i = 0; i < 10; i++)
		assert_int_equal(wait_for(spawn(first_call_by_many_threads)), 0);
}

/* AddressSanitizer's allocator lock is not remade at a fork: its children would hang in malloc. */
#ifndef __SANITIZE_ADDRESS__
static atomic_bool stopping;

static void *keep_busy(void *arg)
{
	(void)arg;
	while (!stopping) {
		llmkit_stream *stream = submit("count-20");
		struct llmkit_event event;

		while (stream && llmkit_stream_next(stream, WAIT_MS, &event) == 0 &&
			event.type == LLMKIT_EVENT_TEXT)
			;
		llmkit_stream_close(stream);
	}
	return NULL;
}

static void work_briefly(void)
{
	child_check(asked_pid() == getpid());
	child_check(llmkit_acquire(limits, 1, NULL) == 0);
	llmkit_limits_close(limits);
	llmkit_close(kit);
}

/* The lock is often held by a thread that the child does not have. */
static void a_fork_amid_other_threads_calls_works(void **state)
{
	pthread_t thread[4];
	int failed = 0;

	(void)state;
	stopping = false;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, keep_busy, NULL), 0);
	for (int i = 0; i < 60 && !failed; i++)
		failed += wait_for(spawn(work_briefly)) != 0;
	stopping = true;
	for (int i = 0; i < 4; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(failed, 0);
}
#endif

#define test_(name_) cmocka_unit_test_setup_teardown(name_, start, stop_all)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_(prefork_children_attach_for_themselves),
		test_(children_share_one_budget),
		test_(children_of_children_work),
		test_(a_stream_stays_the_parents),
		test_(budgets_work_in_a_child_without_a_daemon),
		test_(event_loops_are_not_shared),
		test_(threads_of_a_child_notice_together),
#ifndef __SANITIZE_ADDRESS__
		test_(a_fork_amid_other_threads_calls_works),
#endif
	};

	return cmocka_run_group_tests_name("fork", tests, NULL, NULL);
}
