/* Exchanges: framings, bad answers, timeouts, pauses, early answers, aborts. Kept connections and
 * lanes: test-pool.c. */

#include "daemon/io/exchange.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/exchange-jobs.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/aux.h"

static void framings_are_understood(void **state)
{
	static const struct {
		const char *answer, *body;
		int connections; /* after a second exchange */
	} samples[] = {
		{ OK_A, "a", 1 },
		{ CHUNKED "2\r\nab\r\n1;x=y\r\nc\r\n0\r\nTrailer: t\r\n\r\n", "abc", 1 },
		{ "HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" OK_A, "a", 1 },
		{ "HTTP/1.1 204 No Content\r\n\r\n", "", 1 },
		{ LENGTH_1 "Content-Encoding: identity\r\n\r\na", "a", 1 },
		{ LENGTH_1 "Connection: close\r\n\r\na", "a", 2 },
		{ "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", "a", 2 },
		/* Bytes nobody asked for end a connection, not the exchange before them. */
		{ OK_A "HTTP/1.1 200 OK\r\n", "a", 2 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct job j;

		script_clear();
		script[0][0] = samples[i].answer;
		script[0][1] = script[1][0] = OK_B;
		peer_start(&peer, PEER_PLAIN, serve_script);
		j = job_run(lane_default());
		assert_int_equal(j.status, STATUS_OK);
		assert_string_equal(j.body, samples[i].body);
		j = job_run(lane_default());
		assert_string_equal(j.body, "b");
		assert_int_equal(peer.accepted, samples[i].connections);
		stop_peer();
	}
	assert_int_equal(counter_read(&region, COUNTER_upstream_stale_retries), 0);
}

static void serve_until_close(struct peer_io *io)
{
	peer_read_request(io);
	peer_write(io, "HTTP/1.1 200 OK\r\nContent-Type: x/y\r\n\r\nabc");
	if (io->ssl)
		SSL_shutdown(io->ssl);
}

static void a_body_may_end_with_the_connection(void **state)
{
	(void)state;
	for (enum peer_tls kind = PEER_PLAIN; kind <= PEER_TRUSTED; kind++) {
		struct job j;

		peer_start(&peer, kind, serve_until_close);
		j = job_run(lane_default());
		assert_int_equal(j.status, STATUS_OK);
		assert_string_equal(j.body, "abc");
		assert_string_equal(j.type, "x/y");
		stop_peer();
	}
}

static void bad_answers_end_with_their_class(void **state)
{
	static const struct {
		const char *answer;
		enum status status;
	} samples[] = {
		{ CHUNKED "zz\r\n", STATUS_MALFORMED },
		{ "not HTTP at all\r\n\r\n", STATUS_MALFORMED },
		{ LENGTH_1 "Content-Encoding: gzip\r\n\r\na", STATUS_MALFORMED },
		{ LENGTH_1 "Content-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\na",
			STATUS_MALFORMED },
		{ LENGTH_1 "Content-Length: 2\r\n\r\nab", STATUS_MALFORMED },
		{ "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nabcdefghijkl",
			STATUS_ANSWER_TOO_LARGE },
		{ CHUNKED "6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n", STATUS_ANSWER_TOO_LARGE },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(samples); i++) {
		struct exchange_lane_options o;
		struct job j;

		script_clear();
		script[0][0] = samples[i].answer;
		script[1][0] = OK_B;
		peer_start(&peer, PEER_PLAIN, serve_script);
		o = lane_options();
		o.body_max = 10;
		j = job_run(lane_of(&o));
		assert_int_equal(j.status, samples[i].status);
		assert_true(j.text[0]);
		/* Never on that connection again. */
		j = job_run(lane_of(&o));
		assert_string_equal(j.body, "b");
		assert_int_equal(peer.accepted, 2);
		stop_peer();
	}
}

static size_t cut_at;
static bool cut_by_reset;
static const char cut_answer[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
				 "3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";

static void serve_cut(struct peer_io *io)
{
	if (io->number == 0) {
		peer_read_request(io);
		peer_write_bytes(io, cut_answer, cut_at);
		if (cut_by_reset)
			peer_reset(io);
		return;
	}
	serve_ok(io);
}

/* A fresh connection is never retried, whatever the byte it dies at. */
static void an_answer_cut_anywhere_is_reset(void **state)
{
	(void)state;
	for (size_t i = 0; i < 2 * (sizeof(cut_answer) - 1); i++) {
		cut_at = i / 2;
		cut_by_reset = i % 2;
		peer_start(&peer, PEER_PLAIN, serve_cut);
		assert_int_equal(job_run(lane_default()).status, STATUS_RESET);
		assert_int_equal(peer.accepted, 1);
		stop_peer();
	}
	assert_int_equal(counter_read(&region, COUNTER_upstream_stale_retries), 0);
}

static void redirects_are_not_followed(void **state)
{
	static struct peer canary;
	char answer[200];
	struct job j;

	(void)state;
	peer_start(&canary, PEER_PLAIN, serve_ok);
	snprintf(answer, sizeof(answer),
		"HTTP/1.1 302 Found\r\nLocation: %s/\r\nContent-Length: 0\r\n\r\n", canary.url);
	script_clear();
	script[0][0] = answer;
	peer_start(&peer, PEER_PLAIN, serve_script);
	j = job_run(lane_default());
	assert_int_equal(j.status, STATUS_OK);
	assert_int_equal(j.http, 302);
	stop_peer();
	assert_int_equal(canary.accepted, 0);
	peer_stop(&canary);
}

static void failures_to_connect_are_told(void **state)
{
	struct exchange_lane_options o;
	struct job jobs[3] = { 0 };

	(void)state;
	peer_start(&peer, PEER_SELF_SIGNED, serve_ok);
	assert_int_equal(job_run(lane_default()).status, STATUS_TLS);
	stop_peer();
	o = lane_options();
	o.max_connections = 1;
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		job_start(&jobs[i], lane_of(&o), 0);
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
		job_await(&jobs[i]);
		assert_int_equal(jobs[i].status, STATUS_CONNECT);
		assert_true(jobs[i].text[0]);
	}
	assert_int_equal(counter_read(&region, COUNTER_upstream_errors), 4);
}

static void serve_silence(struct peer_io *io)
{
	peer_read_request(io);
	peer_await_end(io);
}

static void serve_stall(struct peer_io *io)
{
	peer_read_request(io);
	peer_write(io, CHUNKED "1\r\na\r\n");
	peer_await_end(io);
}

static void silence_times_out(void **state)
{
	struct exchange_lane_options o;
	struct job j;

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_silence);
	o = lane_options();
	o.first_byte_timeout_ns = 50 * NSEC_PER_MSEC;
	assert_int_equal(job_run(lane_of(&o)).status, STATUS_TIMEOUT);
	stop_peer();
	peer_start(&peer, PEER_PLAIN, serve_stall);
	o = lane_options();
	o.stall_timeout_ns = 50 * NSEC_PER_MSEC;
	j = job_run(lane_of(&o));
	assert_int_equal(j.status, STATUS_STALLED);
	assert_string_equal(j.body, "a");
	stop_peer();
}

#define LONG_BODY (8u << 20)

static void serve_long(struct peer_io *io)
{
	static const char data[LONG_BODY];
	char head[100];

	peer_read_request(io);
	snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %u\r\n\r\n", LONG_BODY);
	peer_write(io, head);
	peer_write_bytes(io, data, sizeof(data));
	peer_await_end(io);
}

static void a_paused_exchange_reads_no_more(void **state)
{
	(void)state;
	for (enum peer_tls kind = PEER_PLAIN; kind <= PEER_TRUSTED; kind++) {
		struct job j = { .pause_in_body = true };
		struct exchange_lane_options o;
		size_t before;

		peer_start(&peer, kind, serve_long);
		o = lane_options();
		/* Stands still while paused, or this would end it. */
		o.stall_timeout_ns = 500 * NSEC_PER_MSEC;
		job_start(&j, lane_of(&o), 0);
		while (j.body_size == 0)
			run_turns(2);
		before = j.body_size;
		assert_in_range(before, 1, 64u << 10);
		run_turns(700);
		assert_int_equal(j.body_size, before);
		assert_false(j.ended);
		j.pause_in_body = false;
		exchange_resume(j.x);
		job_await(&j);
		assert_int_equal(j.status, STATUS_OK);
		assert_int_equal(j.body_size, LONG_BODY);
		stop_peer();
	}
}

static void serve_sizes(struct peer_io *io)
{
	char answer[200], size[30];
	long n;

	while ((n = peer_read_request(io)) >= 0) {
		snprintf(size, sizeof(size), "%ld", n);
		snprintf(answer, sizeof(answer), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n%s",
			strlen(size), size);
		peer_write(io, answer);
	}
}

static void large_requests_arrive_whole(void **state)
{
	static const size_t sizes[] = { 0, 1, 100000, 6u << 20 };
	char expected[30];

	(void)state;
	for (enum peer_tls kind = PEER_PLAIN; kind <= PEER_TRUSTED; kind++) {
		peer_start(&peer, kind, serve_sizes);
		for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
			struct job j = { 0 };

			job_start(&j, lane_default(), sizes[i]);
			job_await(&j);
			assert_int_equal(j.status, STATUS_OK);
			snprintf(expected, sizeof(expected), "%zu", sizes[i]);
			assert_string_equal(j.body, expected);
		}
		assert_int_equal(peer.accepted, 1);
		stop_peer();
	}
}

/* Answers before it read the body, and never reads it. */
static void serve_early(struct peer_io *io)
{
	char first[20];

	peer_read(io, first, sizeof(first));
	peer_write(io, "HTTP/1.1 413 Too Large\r\nContent-Length: 1\r\n\r\na");
	nanosleep(&(struct timespec){ .tv_nsec = 100 * 1000 * 1000 }, NULL);
}

static void an_early_answer_counts(void **state)
{
	struct job j = { 0 };

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_early);
	job_start(&j, lane_default(), 12u << 20);
	job_await(&j);
	assert_int_equal(j.status, STATUS_OK);
	assert_int_equal(j.http, 413);
	/* Half a request is under way on it: it must not be kept. */
	memset(&j, 0, sizeof(j));
	job_start(&j, lane_default(), 0);
	job_await(&j);
	assert_int_equal(j.status, STATUS_OK);
	assert_int_equal(peer.accepted, 2);
	assert_int_equal(counter_read(&region, COUNTER_upstream_reuses), 0);
	stop_peer();
}

/* More than may connect at once, and none ends: each has its turn all the same. */
static void a_burst_connects_in_turns(void **state)
{
	static struct job jobs[150];
	struct exchange_lane_options o;

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_stall);
	o = lane_options();
	o.max_connections = ARRAY_SIZE(jobs);
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		job_start(&jobs[i], lane_of(&o), 0);
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		while (jobs[i].body_size == 0)
			run_turns(2);
	assert_int_equal(peer.accepted, ARRAY_SIZE(jobs));
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		exchange_abort(jobs[i].x);
	stop_peer();
}

static void callbacks_may_abort_and_start(void **state)
{
	struct job head = { .abort_in_head = true }, body = { .abort_in_body = true };
	struct job first = { 0 }, second = { 0 }, third = { 0 };
	struct exchange_lane_options o;

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_ok);
	o = lane_options();
	o.max_connections = 1;
	first.start_next = &second;
	second.start_next = &third;
	job_start(&head, lane_of(&o), 0);
	job_start(&body, lane_of(&o), 0);
	job_start(&first, lane_of(&o), 0);
	job_await(&third);
	assert_false(head.ended || body.ended);
	assert_int_equal(head.body_size, 0);
	assert_int_equal(body.body_size, 1);
	assert_true(first.ended && second.ended && third.status == STATUS_OK);
	/* An aborted exchange takes its connection with it. */
	assert_int_equal(peer.accepted, 3);
	stop_peer();
}

#ifndef SANITIZED
/* How often text is in this process's heap. The peer's threads have theirs elsewhere. */
static int heap_count(const char *text)
{
	char line[256];
	unsigned long begin = 0, end = 0;
	FILE *f = fopen("/proc/self/maps", "re");
	int n = 0;

	while (fgets(line, sizeof(line), f))
		if (strstr(line, "[heap]"))
			sscanf(line, "%lx-%lx", &begin, &end);
	fclose(f);
	for (const char *at = (const char *)begin; begin && at; n++) {
		at = memmem(at, end - (unsigned long)at, text, strlen(text));
		if (!at)
			break;
		at++;
	}
	return n;
}

/* Core files show the heap: a head stays in memory that they leave out, also while it waits. */
static void the_key_stays_out_of_the_heap(void **state)
{
	struct job j = { 0 };
	struct exchange_lane *lane;
	char key[40], head[300], *seen;

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_ok);
	lane = lane_default();
	for (int i = 0; i < 4; i++) {
		snprintf(key, sizeof(key), "canary-%d-%d-key", i, getpid());
		snprintf(head, sizeof(head), "GET / HTTP/1.1\r\nHost: a\r\nKey: %s\r\n\r\n", key);
		memset(&j, 0, sizeof(j));
		seen = strdup(key);
		assert_int_equal(heap_count(key), 1);
		explicit_bzero(seen, strlen(seen));
		free(seen);
		job_start_with(&j, lane, str_of(head), STR_NULL);
		assert_int_equal(heap_count(key), 0);
		if (i == 3)
			exchange_abort(j.x);
		else
			job_await(&j);
		assert_int_equal(heap_count(key), 0);
	}
	stop_peer();
}
#endif

#define CASE(name_) cmocka_unit_test_setup_teardown(name_, jobs_setup, jobs_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(framings_are_understood),
		CASE(a_body_may_end_with_the_connection),
		CASE(bad_answers_end_with_their_class),
		CASE(an_answer_cut_anywhere_is_reset),
		CASE(redirects_are_not_followed),
		CASE(failures_to_connect_are_told),
		CASE(silence_times_out),
		CASE(a_paused_exchange_reads_no_more),
		CASE(large_requests_arrive_whole),
		CASE(an_early_answer_counts),
		CASE(a_burst_connects_in_turns),
		CASE(callbacks_may_abort_and_start),
#ifndef SANITIZED
		CASE(the_key_stays_out_of_the_heap),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
