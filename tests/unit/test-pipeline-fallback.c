/* Budgets, pauses and the next target: what is charged, what is given back, what may help. */

#include <stdio.h>
#include "base/clock.h"
#include "shm/breaker.h"
#include "shm/target.h"
#include "tests/unit/pipeline-world.h"

/* ---- the providers ---- */

static void serve_cut(struct peer_io *io)
{
	if (peer_read_request(io) >= 0)
		peer_write(io, HEAD_SSE TEXT);
}

/* It tells what it has used as it goes, and is cut. */
static void serve_cut_with_usage(struct peer_io *io)
{
	if (peer_read_request(io) >= 0)
		peer_write(io,
			HEAD_SSE TEXT "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5000,"
				      "\"completion_tokens\":3}}\n\n");
}

/* The same, before the first word, and an error that another target may help with. */
static void serve_error_with_usage(struct peer_io *io)
{
	if (peer_read_request(io) >= 0)
		peer_write(io,
			HEAD_SSE "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5000,"
				 "\"completion_tokens\":3}}\n\n"
				 "data: {\"error\":{\"message\":\"overloaded\",\"type\":"
				 "\"server_error\",\"code\":503}}\n\n");
}

/* The rest of the refusal never comes. */
static void serve_429_cut(struct peer_io *io)
{
	if (peer_read_request(io) >= 0)
		peer_write(io, "HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 99\r\n\r\n{");
}

static void serve_429_slow(struct peer_io *io)
{
	serve_429_cut(io);
	peer_await_end(io);
}

static void serve_400(struct peer_io *io)
{
	if (peer_read_request(io) >= 0)
		peer_write(io, "HTTP/1.1 400 No\r\nContent-Length: 2\r\n\r\n{}");
	peer_await_end(io);
}

/* ---- budgets and fallback ---- */

static void an_answer_costs_one(void **state)
{
	(void)state;
	world_open(serve_ok, serve_ok);
	submit(1, "a/m");
	run_out();
	expect_end(1);
	assert_int_equal(told(1).texts, 1);
	assert_int_equal(left("a"), BURST - 1);
	assert_int_equal(counted(COUNTER_requests_succeeded), 1);
	world_close();
}

static void what_a_cut_answer_has_used_is_known(void **state)
{
	(void)state;
	world_open(serve_cut_with_usage, serve_ok);
	submit(1, "a/m");
	run_out();
	assert_int_equal(told(1).texts, 1);
	assert_int_equal(told(1).errors, 1);
	assert_int_equal(counted(COUNTER_tokens_input), 5000);
	assert_int_equal(counted(COUNTER_tokens_output), 3);
	world_close();
}

/* It is the attempt's, not the next one's. */
static void what_one_target_has_used_is_not_the_next_ones(void **state)
{
	(void)state;
	world_open(serve_error_with_usage, serve_ok);
	submit_route(1, "ab");
	run_out();
	expect_end(1);
	assert_int_equal(counted(COUNTER_fallbacks), 1);
	assert_int_equal(counted(COUNTER_tokens_input), 0);
	world_close();
}

static void what_was_not_sent_is_given_back(void **state)
{
	(void)state;
	world_open(serve_ok, serve_ok);
	submit(1, "nokey/m");
	expect_error(1, STATUS_NO_KEY);
	assert_int_equal(
		submit_as(2, (struct msg_submit){ .model = str_of("a/m"), .body = str_of("[]") }),
		PIPELINE_OK);
	expect_error(2, STATUS_BAD_REQUEST);
	submit(3, "refused/m");
	run_out();
	expect_error(3, STATUS_CONNECT);
	assert_int_equal(left("nokey"), BURST);
	assert_int_equal(left("a"), BURST);
	assert_int_equal(left("refused"), BURST);
	world_close();
}

static void what_may_help_falls_back(void **state)
{
	(void)state;
	world_open(serve_429, serve_ok);
	submit_route(1, "nokey-b");
	submit_route(2, "refused-b");
	submit_route(3, "ab");
	run_out();
	for (uint64_t id = 1; id <= 3; id++)
		expect_end(id);
	assert_int_equal(counted(COUNTER_fallbacks), 3);
	assert_int_equal(left("nokey"), BURST);
	assert_int_equal(left("refused"), BURST);
	assert_int_equal(left("b"), BURST - 3);
	world_close();
}

/* Who hears a 429 keeps everybody else from asking again before its time. */
static void nobody_sends_during_a_pause(void **state)
{
	(void)state;
	world_open(serve_429, serve_ok);
	submit(1, "a/m");
	run_out();
	expect_error(1, STATUS_PROVIDER_LIMITED);
	assert_true(told(1).error.retry_after_ns == 7 * NSEC_PER_SEC);
	assert_int_equal(left("a"), 0);
	submit(2, "a/m");
	submit(3, "a/other");
	run_out();
	expect_error(2, STATUS_LIMITED);
	assert_in_range(told(2).error.retry_after_ns, 1, 7 * NSEC_PER_SEC);
	expect_error(3, STATUS_LIMITED);
	world_close();
}

static void a_refusal_that_is_cut_is_one(void **state)
{
	(void)state;
	world_open(serve_429_cut, serve_ok);
	submit(1, "a/m");
	run_out();
	expect_error(1, STATUS_PROVIDER_LIMITED);
	assert_int_equal(told(1).error.http_status, 429);
	assert_true(told(1).error.retry_after_ns == 7 * NSEC_PER_SEC);
	submit(2, "a/m");
	run_out();
	expect_error(2, STATUS_LIMITED);
	world_close();
}

/* Who leaves before the refusal is complete has seen its head all the same. */
static void a_pause_is_kept_when_its_request_is_cancelled(void **state)
{
	(void)state;
	world_open(serve_429_slow, serve_ok);
	submit(1, "a/m");
	while (counted(COUNTER_upstream_bytes_in) == 0)
		run_turns(1);
	run_turns(5);
	pipeline_cancel(w.pipeline, &w.client.c, 1);
	expect_error(1, STATUS_CANCELLED);
	assert_int_equal(told(1).error.retry_after_ns, 0);
	submit(2, "a/m");
	run_out();
	expect_error(2, STATUS_LIMITED);
	assert_in_range(told(2).error.retry_after_ns, 1, 7 * NSEC_PER_SEC);
	world_close();
}

/* Of all targets that have to be waited for, the first that is free again. */
static void a_chain_that_must_wait_tells_its_least_wait(void **state)
{
	(void)state;
	world_open(serve_ok, serve_ok);
	for (int i = 0; i < 2; i++) {
		struct bucket_set set = { 0 };

		assert_true(bucket_set_add(&set, &w.shm.r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS,
			str_of(i ? "b" : "a")));
		bucket_pause(&w.shm.r, set.index[0],
			clock_boottime_ns() + (i ? 20 : 900) * NSEC_PER_SEC, clock_boottime_ns());
	}
	submit_route(1, "ab");
	run_out();
	expect_error(1, STATUS_LIMITED);
	assert_in_range(told(1).error.retry_after_ns, 1, 20 * NSEC_PER_SEC);
	assert_string_equal(told(1).limit, "provider b requests");
	world_close();
}

static void the_last_failure_of_a_chain_is_told(void **state)
{
	(void)state;
	world_open(serve_ok, serve_ok);
	submit_route(1, "nothing");
	run_out();
	expect_error(1, STATUS_NO_KEY);
	assert_int_equal(told(1).error.http_status, 0);
	world_close();
}

static void what_cannot_help_does_not_fall_back(void **state)
{
	(void)state;
	world_open(serve_400, serve_ok);
	submit_route(1, "ab");
	run_out();
	expect_error(1, STATUS_PROVIDER_REJECTED);
	assert_int_equal(told(1).error.http_status, 400);
	assert_int_equal(left("b"), BURST);
	world_close();
}

static void after_the_first_frame_nothing_falls_back(void **state)
{
	(void)state;
	world_open(serve_cut, serve_ok);
	submit_route(1, "ab");
	run_out();
	assert_int_equal(told(1).texts, 1);
	assert_int_equal(told(1).errors, 1);
	assert_int_equal(told(1).ends, 0);
	assert_int_equal(told(1).error.received, 5);
	assert_int_equal(left("b"), BURST);
	world_close();
}

static void a_limit_refuses_with_wait_and_name(void **state)
{
	struct msg_submit ask = { .model = str_of("a/m"), .user = str_of("tight") };

	(void)state;
	world_open(serve_ok, serve_ok);
	submit_as(1, ask);
	submit_as(2, ask);
	run_out();
	expect_end(1);
	expect_error(2, STATUS_LIMITED);
	assert_string_equal(told(2).limit, "user tight requests");
	assert_in_range(told(2).error.retry_after_ns, 3500 * NSEC_PER_SEC, 3600 * NSEC_PER_SEC);
	assert_int_equal(left("a"), BURST - 1);
	assert_int_equal(counted(COUNTER_requests_limited), 1);
	world_close();
}

static void what_an_operator_opened_is_refused_for_now(void **state)
{
	(void)state;
	world_open(serve_ok, serve_ok);
	breaker_force_open(&w.shm.r, target_find(&w.shm.r, str_of("a"), NULL), clock_boottime_ns());
	submit(1, "a/m");
	run_out();
	expect_error(1, STATUS_CIRCUIT_OPEN);
	assert_string_equal(told(1).text,
		"no target can take the request: a/m (the circuit breaker of its provider was "
		"opened by hand: llmkit breakers close a)");
	assert_int_equal(told(1).error.retry_after_ns, 0);
	assert_int_equal(left("a"), BURST);
	world_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_answer_costs_one),
		cmocka_unit_test(what_a_cut_answer_has_used_is_known),
		cmocka_unit_test(what_one_target_has_used_is_not_the_next_ones),
		cmocka_unit_test(what_was_not_sent_is_given_back),
		cmocka_unit_test(what_may_help_falls_back),
		cmocka_unit_test(nobody_sends_during_a_pause),
		cmocka_unit_test(a_refusal_that_is_cut_is_one),
		cmocka_unit_test(a_pause_is_kept_when_its_request_is_cancelled),
		cmocka_unit_test(a_chain_that_must_wait_tells_its_least_wait),
		cmocka_unit_test(the_last_failure_of_a_chain_is_told),
		cmocka_unit_test(what_cannot_help_does_not_fall_back),
		cmocka_unit_test(after_the_first_frame_nothing_falls_back),
		cmocka_unit_test(a_limit_refuses_with_wait_and_name),
		cmocka_unit_test(what_an_operator_opened_is_refused_for_now),
	};

	if (!family_find(str_of("openai"))) /* the providers here speak it */
		return puts("1..0 # SKIP the format openai is left out") < 0;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
