/* One connection for many: threads, signals and event loops lose nothing of any stream. */

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include "tests/unit/stream-fixture.h"

/* ---- signals ---- */

static void on_alarm(int number)
{
	(void)number;
}

static void a_storm_of_signals_loses_nothing(void **state)
{
	struct sigaction action = { .sa_handler = on_alarm }, before;
	struct itimerval often = { { 0, 500 }, { 0, 500 } }, never = { 0 };

	(void)state;
	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
	for (int i = 0; i < 20; i++) {
		llmkit *another;

		expect_count(submit("paced-10"), 10);
		expect_count(submit("count-3000"), 3000);
		assert_int_equal(mini_open(&mini, &another), 0);
		llmkit_close(another);
	}
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &before, NULL);
}

/* ---- threads ---- */

#define THREADS 8
#define ROUNDS 12

static void run_threads(void *(*body)(void *))
{
	pthread_t thread[THREADS];

	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, body, (void *)i), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
}

/* Streams are opened together and read one after the other, so most frames are read by others. */
static void *read_many(void *arg)
{
	llmkit_stream *stream[4];

	for (int round = 0; round < ROUNDS; round++) {
		for (int i = 0; i < 4; i++)
			stream[i] = submit(i % 2 ? "paced-9" : "count-40");
		for (int i = 0; i < 4; i++)
			expect_count(stream[((uintptr_t)arg + (unsigned)i) % 4],
				((uintptr_t)arg + (unsigned)i) % 2 ? 9 : 40);
	}
	return NULL;
}

static void threads_share_one_connection(void **state)
{
	(void)state;
	run_threads(read_many);
}

static void *read_few(void *arg)
{
	(void)arg;
	expect_count(submit("paced-7"), 7);
	return NULL;
}

/* Whoever reads for all may leave first: another has to read on. */
static void a_reader_that_leaves_is_followed(void **state)
{
	pthread_t thread;

	(void)state;
	for (int i = 0; i < 15; i++) {
		llmkit_stream *stream = submit("late");

		assert_int_equal(pthread_create(&thread, NULL, read_few, NULL), 0);
		poll(NULL, 0, i % 5); /* mostly it reads first */
		expect_count(stream, 0);
		pthread_join(thread, NULL);
	}
}

static void *echo_large(void *arg)
{
	size_t length = 200000;
	char *text = malloc(length + 1);
	llmkit_request *r = llmkit_request_new("echo");

	memset(text, 'a' + (int)(uintptr_t)arg, length);
	text[length] = '\0';
	assert_int_equal(llmkit_request_add_message(r, "user", text), 0);
	for (int i = 0; i < ROUNDS; i++) {
		llmkit_stream *stream;
		struct llmkit_event event;

		assert_int_equal(llmkit_submit(kit, r, &stream), 0);
		next(stream, LLMKIT_EVENT_START);
		event = next(stream, LLMKIT_EVENT_TEXT);
		assert_non_null(strstr(event.text.data, text));
		next(stream, LLMKIT_EVENT_END);
		llmkit_stream_close(stream);
	}
	llmkit_request_free(r);
	free(text);
	return NULL;
}

static void threads_send_whole_frames(void **state)
{
	(void)state;
	run_threads(echo_large);
}

/* While the daemon comes and goes, every stream ends, well or as lost. */
static void *read_through_losses(void *arg)
{
	llmkit_request *r = llmkit_request_new("paced-20");
	uint64_t until = clock_boottime_ns() + 700 * NSEC_PER_MSEC;

	(void)arg;
	assert_int_equal(llmkit_request_add_message(r, "user", "x"), 0);
	while (clock_boottime_ns() < until) {
		llmkit_stream *stream;
		struct llmkit_event event = { 0 };

		if (llmkit_submit(kit, r, &stream) < 0)
			continue;
		while (event.type != LLMKIT_EVENT_END && event.type != LLMKIT_EVENT_ERROR)
			assert_int_equal(llmkit_stream_next(stream, WAIT_MS, &event), 0);
		if (event.type == LLMKIT_EVENT_ERROR)
			assert_int_equal(event.error.code, LLMKIT_E_DAEMON_LOST);
		llmkit_stream_close(stream);
	}
	llmkit_request_free(r);
	return NULL;
}

static void threads_live_through_losses(void **state)
{
	pthread_t thread[THREADS];

	(void)state;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, read_through_losses, NULL), 0);
	for (int i = 0; i < 10; i++) {
		poll(NULL, 0, 50);
		mini_kill(&mini);
		mini_start(&mini, PARTICIPANT);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
}

/* ---- event loops ---- */

/* Reads what can be had without waiting; whether the stream has ended. */
static bool drain(llmkit_stream *stream, unsigned *texts)
{
	struct llmkit_event event;
	int r;

	while ((r = llmkit_stream_next(stream, 0, &event)) == 0)
		*texts += event.type == LLMKIT_EVENT_TEXT;
	assert_true(r == LLMKIT_E_WAIT_TIMEOUT || r == LLMKIT_E_ENDED);
	return r == LLMKIT_E_ENDED;
}

static void loop_over(llmkit_stream **stream, int count, unsigned *texts)
{
	int open = count;

	while (open > 0) {
		struct pollfd p = { .fd = llmkit_fd(kit), .events = POLLIN };

		assert_int_equal(poll(&p, 1, WAIT_MS), 1);
		llmkit_dispatch(kit);
		for (int i = 0; i < count; i++) {
			if (stream[i] && drain(stream[i], texts)) {
				llmkit_stream_close(stream[i]);
				stream[i] = NULL;
				open--;
			}
		}
	}
}

static void an_event_loop_sees_everything(void **state)
{
	llmkit_stream *stream[8];
	unsigned texts = 0;
	int fd = llmkit_fd(kit);

	(void)state;
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	for (int i = 0; i < 8; i++)
		stream[i] = submit(i % 2 ? "paced-15" : "count-30");
	loop_over(stream, 8, &texts);
	assert_int_equal(texts, 4 * 15 + 4 * 30);
	/* A lost daemon is an event as well, and the descriptor stays. */
	stream[0] = submit("hang");
	stream[1] = submit("die");
	texts = 0;
	loop_over(stream, 2, &texts);
	assert_int_equal(texts, 1);
	assert_int_equal(llmkit_dispatch(kit), LLMKIT_E_DAEMON_LOST);
	mini_kill(&mini);
	mini_start(&mini, PARTICIPANT);
	stream[0] = submit("paced-5");
	assert_int_equal(llmkit_fd(kit), fd);
	loop_over(stream, 1, &texts);
	assert_int_equal(texts, 6);
}

/* A thread that waits reads the loop's frames from the socket, and sees the daemon's end: the
 * loop must still wake. */
static void an_event_loop_beside_a_waiting_thread_sees_everything(void **state)
{
	llmkit_stream *stream[4];
	unsigned texts = 0;
	pthread_t thread;

	(void)state;
	assert_true(llmkit_fd(kit) >= 0);
	assert_int_equal(pthread_create(&thread, NULL, wait_for_the_loss, submit("hang")), 0);
	for (int round = 0; round < 20; round++) {
		for (int i = 0; i < 4; i++)
			stream[i] = submit("paced-6");
		loop_over(stream, 4, &texts);
	}
	assert_int_equal(texts, 20 * 4 * 6);
	stream[0] = submit("die");
	loop_over(stream, 1, &texts);
	pthread_join(thread, NULL);
}

#define test_(name_) cmocka_unit_test_setup_teardown(name_, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_(a_storm_of_signals_loses_nothing),
		test_(threads_share_one_connection),
		test_(a_reader_that_leaves_is_followed),
		test_(threads_send_whole_frames),
		test_(threads_live_through_losses),
		test_(an_event_loop_sees_everything),
		test_(an_event_loop_beside_a_waiting_thread_sees_everything),
	};

	return cmocka_run_group_tests_name("llmkit-threads", tests, NULL, NULL);
}
