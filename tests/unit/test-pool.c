/* Connections: kept and taken again, noticed when they die, bounded by their lane; lanes that
 * change; a storm of aborts. */

#include "daemon/io/exchange.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/exchange-jobs.h"

#include <sched.h>
#include <stdio.h>
#include <string.h>
#include "base/aux.h"

static void connections_are_reused(void **state)
{
	(void)state;
	for (enum peer_tls kind = PEER_PLAIN; kind <= PEER_TRUSTED; kind++) {
		struct exchange_lane *lane;

		peer_start(&peer, kind, serve_ok);
		lane = lane_default();
		for (int i = 0; i < 5; i++) {
			struct job j = job_run(lane);

			assert_int_equal(j.status, STATUS_OK);
			assert_int_equal(j.http, 200);
			assert_string_equal(j.body, "a");
			/* Long enough for what TLS sends while idle. */
			run_turns(5);
		}
		assert_int_equal(peer.accepted, 1);
		stop_peer();
	}
	assert_int_equal(counter_read(&region, COUNTER_upstream_connects), 2);
	assert_int_equal(counter_read(&region, COUNTER_upstream_reuses), 8);
	assert_int_equal(counter_read(&region, COUNTER_upstream_errors), 0);
}

static void serve_number(struct peer_io *io)
{
	char text[100];

	while (peer_read_request(io) >= 0) {
		snprintf(text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d",
			io->number % 10);
		peer_write(io, text);
	}
}

static void the_last_used_is_taken_first(void **state)
{
	struct job a = { 0 }, b = { 0 }, c;
	struct exchange_lane *lane;

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_number);
	lane = lane_default();
	job_start(&a, lane, 0);
	job_start(&b, lane, 0);
	job_await(&a);
	job_await(&b);
	assert_int_equal(peer.accepted, 2);
	for (int i = 0; i < 3; i++) {
		c = job_run(lane);
		assert_string_equal(c.body, a.order > b.order ? a.body : b.body);
	}
	stop_peer();
}

/* Answers once, and dies on the second request without a byte. */
static void a_kept_connection_that_died_is_replaced_once(void **state)
{
	struct job j;

	(void)state;
	script_clear();
	script[0][0] = OK_A;
	script[1][0] = OK_B;
	peer_start(&peer, PEER_PLAIN, serve_script);
	assert_int_equal(job_run(lane_default()).status, STATUS_OK);
	j = job_run(lane_default());
	assert_int_equal(j.status, STATUS_OK);
	assert_string_equal(j.body, "b");
	assert_int_equal(peer.accepted, 2);
	assert_int_equal(counter_read(&region, COUNTER_upstream_stale_retries), 1);
	/* Kept again, dies again: the replacement dies too, and that is the end. */
	j = job_run(lane_default());
	assert_int_equal(j.status, STATUS_RESET);
	assert_int_equal(peer.accepted, 3);
	assert_int_equal(counter_read(&region, COUNTER_upstream_stale_retries), 2);
	stop_peer();
}

static void serve_half_answer(struct peer_io *io)
{
	peer_read_request(io);
	peer_write(io, OK_A);
	peer_read_request(io);
	peer_write(io, "H");
}

static void a_begun_answer_is_not_retried(void **state)
{
	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_half_answer);
	assert_int_equal(job_run(lane_default()).status, STATUS_OK);
	assert_int_equal(job_run(lane_default()).status, STATUS_RESET);
	assert_int_equal(peer.accepted, 1);
	stop_peer();
}

static void serve_once(struct peer_io *io)
{
	peer_read_request(io);
	peer_write(io, OK_A);
}

static void serve_once_and_junk(struct peer_io *io)
{
	peer_read_request(io);
	peer_write(io, OK_A);
	nanosleep(&(struct timespec){ .tv_nsec = 5 * 1000 * 1000 }, NULL);
	peer_write(io, "x");
	peer_await_end(io);
}

static void idle_connections_that_end_are_noticed(void **state)
{
	void (*const serve[])(struct peer_io *) = { serve_once, serve_once_and_junk };

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		peer_start(&peer, i % 2 ? PEER_TRUSTED : PEER_PLAIN, serve[i / 2]);
		assert_int_equal(job_run(lane_default()).status, STATUS_OK);
		if (i / 2)
			while (peer.ended == 0)
				run_turns(2);
		else
			run_turns(10);
		assert_int_equal(job_run(lane_default()).status, STATUS_OK);
		assert_int_equal(peer.accepted, 2);
		stop_peer();
	}
	assert_int_equal(counter_read(&region, COUNTER_upstream_stale_retries), 0);
	assert_int_equal(counter_read(&region, COUNTER_upstream_reuses), 0);
}

static _Atomic bool may_close;

static void serve_once_then_close(struct peer_io *io)
{
	serve_once(io);
	while (!may_close)
		sched_yield();
}

/* The end is there, but the loop has not run since: only a look before the use can tell. */
static void idle_connections_are_tried_before_use(void **state)
{
	(void)state;
	for (enum peer_tls kind = PEER_PLAIN; kind <= PEER_TRUSTED; kind++) {
		may_close = false;
		peer_start(&peer, kind, serve_once_then_close);
		assert_int_equal(job_run(lane_default()).status, STATUS_OK);
		may_close = true;
		while (peer.closed == 0)
			nanosleep(&(struct timespec){ .tv_nsec = 1000 * 1000 }, NULL);
		assert_int_equal(job_run(lane_default()).status, STATUS_OK);
		stop_peer();
	}
	assert_int_equal(counter_read(&region, COUNTER_upstream_reuses), 0);
}

static void the_lane_bounds_and_queues(void **state)
{
	struct job jobs[12] = { 0 };
	struct exchange_lane_options o;

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_ok);
	o = lane_options();
	o.max_connections = 1;
	for (size_t i = 0; i < ARRAY_SIZE(jobs); i++)
		job_start(&jobs[i], lane_of(&o), 0);
	exchange_abort(jobs[5].x);
	exchange_abort(jobs[0].x);
	for (size_t i = 1; i < ARRAY_SIZE(jobs); i++) {
		if (i == 5)
			continue;
		job_await(&jobs[i]);
		assert_int_equal(jobs[i].status, STATUS_OK);
		/* In order of arrival. */
		assert_int_equal(jobs[i].order, i - (i > 5));
	}
	assert_false(jobs[0].ended || jobs[5].ended);
	/* The aborted first one may or may not have reached the peer. */
	assert_in_range(peer.accepted, 1, 2);
	assert_int_equal(counter_read(&region, COUNTER_upstream_connects), 1);
	stop_peer();
}

static void serve_refusal(struct peer_io *io)
{
	char first[20];

	peer_read(io, first, sizeof(first));
	peer_reset(io);
}

static void a_fresh_connection_that_dies_is_not_retried(void **state)
{
	struct job j = { 0 };

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_refusal);
	job_start(&j, lane_default(), 12u << 20);
	job_await(&j);
	assert_int_equal(j.status, STATUS_RESET);
	assert_int_equal(peer.accepted, 1);
	stop_peer();
}

static void lanes_follow_their_options(void **state)
{
	static struct peer other;
	struct exchange_lane_options o;
	struct exchange_lane *lane, *moved;

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_script);
	script_clear();
	script[0][0] = script[1][0] = script[2][0] = script[3][0] = OK_A;
	script[0][1] = script[0][2] = OK_A;
	peer_start(&other, PEER_PLAIN, serve_ok);
	o = lane_options();
	lane = lane_of(&o);
	/* Before it is set nothing changes: a reload may yet be refused. */
	o.max_age_ns = 0;
	assert_int_equal(exchange_lane_get(&moved, pool, &o), 0);
	assert_ptr_equal(moved, lane);
	assert_int_equal(job_run(lane).status, STATUS_OK);
	o = lane_options();
	o.target.url = other.url;
	assert_int_equal(exchange_lane_get(&moved, pool, &o), 0);
	assert_ptr_not_equal(moved, lane);
	assert_int_equal(job_run(lane).status, STATUS_OK);
	assert_int_equal(job_run(lane).status, STATUS_OK);
	assert_int_equal(peer.accepted, 1);
	/* Another address: the idle connection goes at once. */
	assert_ptr_equal(lane_of(&o), moved);
	assert_ptr_equal(lane_of(&o), moved);
	while (peer.ended < 1)
		run_turns(1);
	assert_int_equal(job_run(moved).status, STATUS_OK);
	assert_int_equal(other.accepted, 1);
	/* What was made for the old address still goes there. */
	assert_int_equal(job_run(lane).status, STATUS_OK);
	assert_int_equal(other.accepted, 1);
	assert_int_equal(peer.accepted, 2);
	/* Too old to be kept. */
	o.target.url = peer.url;
	o.max_age_ns = 0;
	lane_of(&o);
	assert_int_equal(job_run(lane).status, STATUS_OK);
	while (peer.ended < 2)
		run_turns(1);
	/* Idle too long. */
	o = lane_options();
	o.idle_ns = NSEC_PER_MSEC;
	lane_of(&o);
	assert_int_equal(job_run(lane).status, STATUS_OK);
	while (peer.ended < 3)
		run_turns(1);
	stop_peer();
	peer_stop(&other);
}

/* Answers at random pieces, sometimes dies. */
static void serve_random(struct peer_io *io)
{
	static const char answer[] = CHUNKED "5\r\nabcde\r\n5\r\nfghij\r\n0\r\n\r\n";
	unsigned seed = (unsigned)io->number;

	while (peer_read_request(io) >= 0) {
		size_t cut = (size_t)rand_r(&seed) % sizeof(answer);

		peer_write_bytes(io, answer, cut);
		if (rand_r(&seed) % 20 == 0)
			return;
		if (rand_r(&seed) % 4 == 0)
			sched_yield();
		peer_write_bytes(io, answer + cut, sizeof(answer) - 1 - cut);
	}
}

static void storm(enum peer_tls kind, int total)
{
	enum { WIDE = 48 };
	static struct job jobs[WIDE];
	struct exchange_lane_options o;
	int started = 0, finished = 0, good = 0;

	peer_start(&peer, kind, serve_random);
	o = lane_options();
	o.max_connections = 16;
	memset(jobs, 0, sizeof(jobs));
	srand(7);
	while (finished < total) {
		for (int i = 0; i < WIDE; i++) {
			struct job *j = &jobs[i];
			bool left = !j->x && (j->ended || j->abort_in_head || j->abort_in_body);

			if (j->x && rand() % 16 == 0) {
				exchange_abort(j->x);
				left = true;
			}
			if (left) {
				finished++;
				good += j->ended && j->status == STATUS_OK;
				assert_true(
					!j->ended || j->status != STATUS_OK || j->body_size == 10);
			}
			if (!left && started >= WIDE)
				continue;
			memset(j, 0, sizeof(*j));
			j->abort_in_head = rand() % 16 == 0;
			j->abort_in_body = rand() % 16 == 0;
			job_start(j, lane_of(&o), (size_t)rand() % 3000);
			started++;
		}
		run_turns(1 + rand() % 2);
	}
	for (int i = 0; i < WIDE; i++)
		if (jobs[i].x)
			exchange_abort(jobs[i].x);
	assert_true(good > total / 10);
	stop_peer();
}

static void random_aborts_leave_nothing_behind(void **state)
{
	(void)state;
	storm(PEER_PLAIN, 4000);
	storm(PEER_TRUSTED, 1000);
}

#define CASE(name_) cmocka_unit_test_setup_teardown(name_, jobs_setup, jobs_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(connections_are_reused),
		CASE(the_last_used_is_taken_first),
		CASE(a_kept_connection_that_died_is_replaced_once),
		CASE(a_begun_answer_is_not_retried),
		CASE(idle_connections_that_end_are_noticed),
		CASE(idle_connections_are_tried_before_use),
		CASE(the_lane_bounds_and_queues),
		CASE(a_fresh_connection_that_dies_is_not_retried),
		CASE(lanes_follow_their_options),
		CASE(random_aborts_leave_nothing_behind),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
