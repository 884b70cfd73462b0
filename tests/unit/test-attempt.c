#include "daemon/attempt.h"
#include "base/clock.h"
#include "shm/estimate.h"
#include "shm/latency.h"
#include "shm/layout.h"
#include "shm/participant.h"
#include "tests/unit/shm-fixture.h"

#include <stdio.h>
#include <string.h>

#define TOKENS 1000000
#define MONEY UINT64_C(1000000000)

static struct config_provider providers[] = {
	{ .name = (char *)"p" },
	{ .name = (char *)"r", .reserve = true },
};
static struct catalog_provider catalog_providers[] = {
	{ .config = &providers[0] },
	{ .config = &providers[1] },
};
/* Pico-USD per token. */
static const struct config_price price = { .input = 1500, .output = 10001, .cached_input = 100 };

static struct world {
	struct fixture f;
	struct config config;
	struct catalog catalog;
	struct demand demand;
	struct attempt_scene scene;
	struct route_target target;
	struct request r;
	struct admission_verdict v;
	uint32_t provider, row, tokens, money, requests;
} w;

static uint32_t make_target(const char *name, uint32_t provider)
{
	const struct target_config t = {
		.name = str_of(name), .provider = provider, .available = true
	};
	const struct breaker_settings settings = breaker_preset(BREAKER_PRODUCTION);
	int row = target_configure(&w.f.r, &t);

	assert_true(row >= 0);
	breaker_configure(&w.f.r, (uint32_t)row, &settings);
	return (uint32_t)row;
}

/* Of provider p, at the real time: the attempt reads the clock. */
static uint32_t make_limit(enum bucket_resource resource, uint64_t limit)
{
	struct bucket_limit l = {
		.scope = BUCKET_SCOPE_PROVIDER,
		.resource = resource,
		.kind = bucket_kind_of(resource, false),
		.name = str_of("p"),
		.limit = limit,
		.burst = limit,
		.window_ns = 86400 * NSEC_PER_SEC,
	};
	int row = bucket_configure(&w.f.r, &l, clock_boottime_ns());

	assert_true(row >= 0);
	return (uint32_t)row;
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	w.f = fixture_open(false);
	w.config = (struct config){
		.providers = providers,
		.provider_count = ARRAY_SIZE(providers),
		.features = { .limiter = true, .router = true, .breaker = true },
	};
	w.catalog = (struct catalog){ .config = &w.config, .provider = catalog_providers };
	w.scene = (struct attempt_scene){
		.region = &w.f.r,
		.owner = participant_owner(
			&w.f.r, (uint32_t)participant_claim(&w.f.r, 1, 1, 0, FIXTURE_NOW)),
		.demand = &w.demand,
	};
	w.provider = make_target("p", TARGET_NONE);
	make_target("r", TARGET_NONE);
	w.row = make_target("p/m", w.provider);
	w.tokens = make_limit(BUCKET_TOKENS, TOKENS);
	w.money = make_limit(BUCKET_MONEY, MONEY);
	w.requests = make_limit(BUCKET_REQUESTS, 10);
	w.target = (struct route_target){ .model = str_of("m"), .price = &price };
	w.r = (struct request){
		.catalog = &w.catalog,
		.target = &w.target,
		.target_count = 1,
		.survey = { .input_tokens = 100, .max_tokens = 50 },
		.usage = { -1, -1, -1, -1, -1 },
	};
	return loop_new(&w.r.loop, NULL);
}

static int teardown(void **state)
{
	(void)state;
	w.r.loop = loop_free(w.r.loop);
	fixture_close(&w.f);
	return 0;
}

static struct bucket_view view(uint32_t row)
{
	struct bucket_view v;

	assert_true(bucket_view(&w.f.r, row, clock_boottime_ns(), &v));
	return v;
}

static enum admission_outcome admit(void)
{
	attempt_admit(&w.scene, &w.r, 1, &w.v);
	return w.v.outcome;
}

static void begin(void)
{
	assert_int_equal(admit(), ADMISSION_OK);
	w.r.sent = true;
	w.r.http_status = 200;
}

static void end(enum status status)
{
	w.r.failure.status = status;
	attempt_end(&w.scene, &w.r, 1);
	assert_int_equal(view(w.tokens).held, 0);
	assert_int_equal(view(w.money).held, 0);
	assert_int_equal(target_pending(&w.f.r, w.row), 0);
}

/* Settled; what a millisecond leaks is less than a token. */
static void expect_used(uint64_t tokens, uint64_t nanousd)
{
	assert_int_equal(view(w.tokens).owed, tokens);
	assert_int_equal(view(w.money).owed, nanousd);
}

/* ---- cost and usage ---- */

static void the_estimate_is_held_and_usage_settled(void **state)
{
	(void)state;
	begin();
	assert_int_equal(view(w.tokens).held, 150);
	/* 100 * 1500 + 50 * 10001 pico-USD: 650.05 nano-USD, rounded up, held in steps of 4096. */
	assert_true(view(w.money).held >= 651);
	w.r.usage.input = 80;
	w.r.usage.output = 20;
	end(STATUS_OK);
	/* 120,000 + 200,020 pico-USD. */
	expect_used(100, 321);
	end(STATUS_OK);
	expect_used(100, 321);
}

static void cached_input_costs_less_and_is_part_of_the_input(void **state)
{
	(void)state;
	begin();
	w.r.usage = (struct msg_usage){ .input = 100, .output = 0, .cached_input = 60 };
	end(STATUS_OK);
	expect_used(100, (40 * 1500 + 60 * 100) / 1000);
	/* More from the cache than there was is nonsense. */
	begin();
	w.r.usage = (struct msg_usage){ .input = 100, .output = 0, .cached_input = 1000 };
	end(STATUS_OK);
	expect_used(200, 66 + 10);
}

static void usage_above_the_estimate_is_owed_too(void **state)
{
	(void)state;
	begin();
	w.r.usage.input = 1000;
	w.r.usage.output = 2000;
	end(STATUS_OK);
	expect_used(3000, (1000 * 1500 + 2000 * 10001) / 1000);
}

static void usage_that_no_answer_has_does_not_close_a_limit_for_years(void **state)
{
	(void)state;
	begin();
	w.r.usage.input = w.r.usage.output = INT64_MAX;
	end(STATUS_OK);
	assert_in_range(view(w.tokens).owed, TOKENS, 200000000);
}

static void unknown_usage_is_what_was_asked_and_what_came(void **state)
{
	(void)state;
	begin();
	w.r.received = 400;
	end(STATUS_RESET);
	expect_used(100 + 100, (100 * 1500 + 100 * 10001 + 999) / 1000);
}

/* What it said before it was cut is the provider's own count; of the output it had not seen the
 * end. */
static void usage_told_before_the_end_is_settled(void **state)
{
	(void)state;
	begin();
	w.r.usage.input = 5000;
	w.r.usage.output = 1;
	w.r.received = 400;
	end(STATUS_CANCELLED);
	expect_used(5000 + 100, (5000 * 1500 + 100 * 10001 + 999) / 1000);
}

static void a_refusal_costs_no_tokens(void **state)
{
	(void)state;
	begin();
	w.r.http_status = 400;
	end(STATUS_PROVIDER_REJECTED);
	expect_used(0, 0);
	assert_int_equal(view(w.requests).available, 9);
}

static void what_never_left_comes_back(void **state)
{
	(void)state;
	begin();
	w.r.sent = false;
	w.r.http_status = 0;
	end(STATUS_CONNECT);
	expect_used(0, 0);
	assert_int_equal(view(w.requests).available, 10);
}

static void a_price_that_is_not_known_costs_nothing(void **state)
{
	static const struct config_price half = { .input = 5, .output = -1, .cached_input = -1 };

	(void)state;
	w.target.price = &half;
	begin();
	w.r.usage.input = w.r.usage.output = 100;
	end(STATUS_OK);
	w.target.price = NULL;
	begin();
	end(STATUS_OK);
	assert_int_equal(view(w.money).owed, 0);
}

/* ---- progress ---- */

static int sink_start(void *context, const struct msg_start *m)
{
	(void)context;
	(void)m;
	return 0;
}

static int sink_text(void *context, enum frame_type type, struct str text)
{
	(void)context;
	(void)type;
	(void)text;
	return 0;
}

static int sink_tool_call(void *context, const struct msg_tool_call *m)
{
	(void)context;
	(void)m;
	return 0;
}

/* A streamed text of so many bytes. */
static void receive(size_t bytes)
{
	static const struct format_sink sink = { sink_start, sink_text, sink_tool_call, NULL };
	static const struct family family = { .name = "openai" };
	char event[8192], text[7000];
	struct msg_error error;
	int n;

	assert_true(bytes < sizeof(text));
	memset(text, 'x', bytes);
	n = snprintf(event, sizeof(event),
		"data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%.*s\"}}]}\n\n",
		(int)bytes, text);
	if (!w.r.decoder)
		assert_int_equal(format_decoder_new(&w.r.decoder, format_find(FAMILY_FORMAT_OPENAI),
					 &family, &sink),
			0);
	assert_int_equal(format_decoder_feed(w.r.decoder, true, str_make(event, (size_t)n), &error),
		STATUS_OK);
	w.r.as_stream = true;
	attempt_progress(&w.scene, &w.r);
	w.r.received = format_decoder_received(w.r.decoder);
}

static void tokens_settle_while_they_stream_and_count_once(void **state)
{
	(void)state;
	if (!format_find(FAMILY_FORMAT_OPENAI))
		skip();
	w.r.survey.max_tokens = 2000;
	begin();
	receive(6000);
	assert_int_equal(w.r.progressed, 1000);
	assert_int_equal(view(w.tokens).owed, 1000);
	receive(60);
	assert_int_equal(w.r.progressed, 1000);
	w.r.usage.input = 100;
	w.r.usage.output = 1500;
	w.r.decoder = format_decoder_free(w.r.decoder);
	end(STATUS_OK);
	expect_used(1600, (100 * 1500 + 1500 * 10001 + 999) / 1000);
}

static void usage_below_what_streamed_takes_nothing_back(void **state)
{
	(void)state;
	if (!format_find(FAMILY_FORMAT_OPENAI))
		skip();
	begin();
	receive(6000);
	w.r.usage.input = 100;
	w.r.usage.output = 7;
	w.r.decoder = format_decoder_free(w.r.decoder);
	end(STATUS_OK);
	assert_int_equal(view(w.tokens).owed, 1100);
}

/* ---- estimates ---- */

static void output_is_estimated_by_what_was_learned_bounded_by_what_is_asked(void **state)
{
	(void)state;
	w.r.survey.max_tokens = 0;
	begin();
	assert_int_equal(w.r.output_estimate, 1024);
	end(STATUS_OK);
	for (int i = 0; i < 100; i++)
		estimate_learn(&w.f.r, str_of("m"), STR_NULL, 100, FIXTURE_NOW);
	begin();
	assert_in_range(w.r.output_estimate, 90, 300);
	end(STATUS_OK);
	w.r.survey.max_tokens = 20;
	begin();
	assert_int_equal(w.r.output_estimate, 20);
	end(STATUS_OK);
}

/* It charges what a request may use, so that is what counts. */
static void a_provider_that_reserves_is_asked_for_all_that_may_come(void **state)
{
	(void)state;
	for (int i = 0; i < 100; i++)
		estimate_learn(&w.f.r, str_of("m"), STR_NULL, 100, FIXTURE_NOW);
	w.target.provider = 1;
	w.r.survey.max_tokens = 4000;
	assert_int_equal(admit(), ADMISSION_OK);
	assert_int_equal(w.r.output_estimate, 4000);
	attempt_end(&w.scene, &w.r, 1);
}

static void only_a_good_answer_teaches(void **state)
{
	struct target_view v;

	(void)state;
	for (int i = 0; i < 2; i++) {
		begin();
		w.r.as_stream = true;
		w.r.dispatched_ns = clock_boottime_ns() - 300 * NSEC_PER_MSEC;
		w.r.first_token_ns = w.r.dispatched_ns + 100 * NSEC_PER_MSEC;
		w.r.usage.output = 10;
		end(i == 0 ? STATUS_TRUNCATED : STATUS_OK);
		assert_true(target_view(&w.f.r, w.row, &v));
		assert_int_equal(v.samples, i);
	}
	assert_in_range(v.first_token_us[0], 99000, 101000);
}

static struct target_view target_of(uint32_t row)
{
	struct target_view v;

	assert_true(target_view(&w.f.r, row, &v));
	return v;
}

/* All of it comes at once: the time is not that between its tokens. */
static void an_answer_that_does_not_stream_teaches_no_gap(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++) {
		begin();
		w.r.as_stream = i == 1;
		w.r.dispatched_ns = loop_now(w.r.loop) - 300 * NSEC_PER_MSEC;
		w.r.first_token_ns = w.r.dispatched_ns + 100 * NSEC_PER_MSEC;
		w.r.usage.output = 3;
		end(STATUS_OK);
		if (i == 0) {
			assert_int_equal(target_of(w.row).gap_us, 0);
			/* But how long it took is learned: there was nothing sooner. */
			assert_in_range(target_of(w.row).first_token_us[0], 295000, 305000);
			assert_int_equal(target_of(w.row).samples, 1);
		}
	}
	assert_in_range(target_of(w.row).gap_us, 99000, 101000);
}

/* ---- outcome classes ---- */

static uint64_t breaker_errors(uint32_t row)
{
	struct breaker_view v;

	assert_true(breaker_view(&w.f.r, row, clock_boottime_ns(), &v));
	return v.errors;
}

static void only_the_providers_faults_count_against_it(void **state)
{
	static const enum status faults[] = { STATUS_PROVIDER_OVERLOADED, STATUS_PROVIDER_ERROR,
		STATUS_DNS, STATUS_CONNECT, STATUS_TLS, STATUS_TIMEOUT, STATUS_STALLED,
		STATUS_RESET, STATUS_TRUNCATED, STATUS_MALFORMED, STATUS_REDIRECT };
	static const enum status innocent[] = { STATUS_OK, STATUS_PROVIDER_LIMITED,
		STATUS_PROVIDER_REJECTED, STATUS_PROVIDER_AUTH, STATUS_PROVIDER_QUOTA,
		STATUS_PROVIDER_NOT_FOUND, STATUS_CONTEXT_LENGTH, STATUS_CONTENT_FILTER,
		STATUS_CANCELLED, STATUS_DEADLINE, STATUS_NO_MEMORY, STATUS_SHUTTING_DOWN,
		STATUS_ANSWER_TOO_LARGE, STATUS_BAD_REQUEST, STATUS_NO_KEY };

	(void)state;
	w.config.features.limiter = w.config.features.breaker = false;
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
		begin();
		end(faults[i]);
		assert_int_equal(breaker_errors(w.row), i + 1);
		assert_int_equal(breaker_errors(w.provider), i + 1);
	}
	for (size_t i = 0; i < ARRAY_SIZE(innocent); i++) {
		begin();
		end(innocent[i]);
		assert_int_equal(breaker_errors(w.row), ARRAY_SIZE(faults));
	}
}

/* A client's deadline after so many milliseconds in which nothing came. Whether that counts. */
static bool is_held_against_it(uint64_t waited_ms)
{
	uint64_t before = breaker_errors(w.row);

	begin();
	w.r.http_status = 0;
	w.r.dispatched_ns = loop_now(w.r.loop) - waited_ms * NSEC_PER_MSEC;
	end(STATUS_DEADLINE);
	assert_int_equal(breaker_errors(w.provider), breaker_errors(w.row));
	return breaker_errors(w.row) > before;
}

static void only_a_long_silence_is_the_providers_fault(void **state)
{
	(void)state;
	w.config.features.limiter = w.config.features.breaker = false;
	w.r.plan.stream = true;
	assert_false(is_held_against_it(9900));
	assert_true(is_held_against_it(10000));
	/* Something of the answer has come. */
	w.r.first_token_ns = 1;
	assert_false(is_held_against_it(10000));
	w.r.first_token_ns = 0;
	/* It comes with its last token: 50 are expected, at 50 ms each until more is known. */
	w.r.plan.stream = false;
	assert_false(is_held_against_it(12400));
	assert_true(is_held_against_it(12500));
	target_learn(&w.f.r, w.row, &(struct target_sample){ .gap_ns = 10 * NSEC_PER_MSEC },
		clock_boottime_ns());
	assert_false(is_held_against_it(10400));
	assert_true(is_held_against_it(10600));
	/* It waited for a connection: the provider knows nothing of it. */
	w.r.plan.stream = true;
	begin();
	w.r.sent = false;
	w.r.http_status = 0;
	w.r.dispatched_ns = loop_now(w.r.loop) - 20 * NSEC_PER_SEC;
	end(STATUS_DEADLINE);
	assert_int_equal(breaker_errors(w.row), 3);
}

/* A quick target is found out sooner, a slow one not before its time. */
static void what_was_learned_bounds_the_silence(void **state)
{
	static const struct {
		uint64_t p99_ms, neutral_ms, failed_ms;
	} learned[] = {
		{ 10, 990, 1000 },
		{ 2000, 1800, 2200 },
		{ 30000, 27000, 33000 },
	};

	(void)state;
	w.config.features.limiter = w.config.features.breaker = false;
	w.r.plan.stream = true;
	for (size_t i = 0; i < ARRAY_SIZE(learned); i++) {
		latency_reset(&w.f.r, w.row);
		for (int n = 0; n < 19; n++)
			latency_record(
				&w.f.r, w.row, learned[i].p99_ms * 1000, clock_boottime_ns());
		assert_false(is_held_against_it(9000));
		latency_record(&w.f.r, w.row, learned[i].p99_ms * 1000, clock_boottime_ns());
		assert_false(is_held_against_it(learned[i].neutral_ms));
		assert_true(is_held_against_it(learned[i].failed_ms));
	}
}

/* A row that has become another target's meanwhile is not to blame. */
static void an_outcome_is_not_another_targets(void **state)
{
	bool keep[LAYOUT_TARGETS] = { 0 };
	struct target_config other = { .name = str_of("q"), .provider = TARGET_NONE };

	(void)state;
	begin();
	target_retire(&w.f.r, keep);
	/* As if its count had found no room in the tables: then nothing keeps the row. */
	for (int i = 0; i < LAYOUT_TARGETS; i++) {
		char name[16];

		snprintf(name, sizeof(name), "q%d", i);
		other.name = str_of(name);
		target_configure(&w.f.r, &other);
	}
	w.r.failure.status = STATUS_PROVIDER_ERROR;
	attempt_end(&w.scene, &w.r, 1);
	assert_int_equal(breaker_errors(w.provider), 0);
}

static void a_later_attempt_finds_the_rows_of_its_time(void **state)
{
	bool keep[LAYOUT_TARGETS] = { 0 };

	(void)state;
	w.target.row = w.row;
	w.target.provider_row = w.provider;
	target_retire(&w.f.r, keep);
	begin();
	assert_int_equal(w.target.row, TARGET_NONE);
	assert_int_equal(w.r.ticket.target, TARGET_NONE);
	attempt_end(&w.scene, &w.r, 1);
}

/* ---- what refusals say ---- */

static void expect_text(struct admission_verdict v, enum status status, const char *text)
{
	char got[ATTEMPT_TEXT_MAX];

	assert_int_equal(attempt_explain(&w.r, &v, got), status);
	assert_string_equal(got, text);
}

static void each_refusal_says_what_to_do(void **state)
{
	struct admission_verdict v = {
		.outcome = ADMISSION_E_LIMITED,
		.wait_ns = 1500 * NSEC_PER_MSEC,
		.limit = "user u requests",
		.burst = 5,
		.used = 4,
		.asked = 2,
	};

	(void)state;
	expect_text(v, STATUS_LIMITED,
		"limit user u requests is used up: 4 of 5 used, 2 asked for: retry in 1.500 s");
	v.wait_ns = BUCKET_WAIT_SETTLEMENT;
	expect_text(v, STATUS_LIMITED,
		"limit user u requests is used up: 4 of 5 used, 2 asked for: retry when another "
		"request has ended");
	v.outcome = ADMISSION_E_NEVER;
	expect_text(v, STATUS_NEVER_FITS,
		"limit user u requests never admits this request: it asks for 2, the burst is 5");
	v = (struct admission_verdict){ .outcome = ADMISSION_E_LIMITED };
	expect_text(v, STATUS_LIMITED, "the limits are being changed: retry in 0.000 s");
	v = (struct admission_verdict){ .outcome = ADMISSION_E_OPEN, .wait_ns = NSEC_PER_SEC };
	expect_text(v, STATUS_CIRCUIT_OPEN, "the circuit breaker of p/m is open: retry in 1.000 s");
	v.providers = true;
	expect_text(v, STATUS_CIRCUIT_OPEN, "the circuit breaker of p is open: retry in 1.000 s");
	v.by_hand = true;
	v.wait_ns = BUCKET_WAIT_SETTLEMENT;
	expect_text(v, STATUS_CIRCUIT_OPEN,
		"the circuit breaker of p was opened by hand: llmkit breakers close p");
	v.providers = false;
	expect_text(v, STATUS_CIRCUIT_OPEN,
		"the circuit breaker of p/m was opened by hand: llmkit breakers close p/m");
	v.wait_ns = NSEC_PER_SEC;
	v.outcome = ADMISSION_E_PAUSED;
	expect_text(v, STATUS_LIMITED, "provider p asked for a pause: retry in 1.000 s");
	v.outcome = ADMISSION_E_FULL;
	expect_text(v, STATUS_BUSY,
		"the tables of limits are full: raise \"tables\" in the configuration");
}

/* Never without its limit, and never "try again". */
static void a_name_that_can_have_no_limit_is_refused(void **state)
{
	struct bucket_limit template = fixture_requests(BUCKET_SCOPE_USER, STR_NULL, 1, 2);
	char longest[160],
		joined[] = "a\x1f"
			   "b",
		text[ATTEMPT_TEXT_MAX];

	(void)state;
	assert_int_equal(bucket_set_templates(&w.f.r, &template, 1, clock_boottime_ns()), 0);
	memset(longest, 'u', sizeof(longest));
	w.r.ask.user = str_make(longest, sizeof(longest));
	assert_int_equal(admit(), ADMISSION_E_NAME);
	assert_int_equal(attempt_explain(&w.r, &w.v, text), STATUS_BAD_REQUEST);
	w.r.ask.user = str_of(joined);
	assert_int_equal(admit(), ADMISSION_E_NAME);
	w.r.ask.user = str_make(longest, sizeof(longest) - 1);
	begin();
	end(STATUS_OK);
	assert_int_equal(view(w.requests).available, 9);
	w.r.ask.user = str_of("a@b");
	begin();
	end(STATUS_OK);
}

int main(void)
{
#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(the_estimate_is_held_and_usage_settled),
		CASE(cached_input_costs_less_and_is_part_of_the_input),
		CASE(usage_above_the_estimate_is_owed_too),
		CASE(usage_that_no_answer_has_does_not_close_a_limit_for_years),
		CASE(unknown_usage_is_what_was_asked_and_what_came),
		CASE(usage_told_before_the_end_is_settled),
		CASE(a_refusal_costs_no_tokens),
		CASE(what_never_left_comes_back),
		CASE(a_price_that_is_not_known_costs_nothing),
		CASE(tokens_settle_while_they_stream_and_count_once),
		CASE(usage_below_what_streamed_takes_nothing_back),
		CASE(output_is_estimated_by_what_was_learned_bounded_by_what_is_asked),
		CASE(a_provider_that_reserves_is_asked_for_all_that_may_come),
		CASE(only_a_good_answer_teaches),
		CASE(an_answer_that_does_not_stream_teaches_no_gap),
		CASE(only_the_providers_faults_count_against_it),
		CASE(only_a_long_silence_is_the_providers_fault),
		CASE(what_was_learned_bounds_the_silence),
		CASE(an_outcome_is_not_another_targets),
		CASE(a_later_attempt_finds_the_rows_of_its_time),
		CASE(each_refusal_says_what_to_do),
		CASE(a_name_that_can_have_no_limit_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
