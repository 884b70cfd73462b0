/* The library's decisions: strategies, weights, prices, filters, budgets, estimates. */

#include "shm/estimate.h"
#include "tests/unit/target-fixture.h"

static void a_route_decides_as_it_is_configured(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	struct llmkit_decision d;

	(void)state;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(llmkit_route(targets, NULL, &d), 0);
		assert_int_equal(d.usable, 2);
		assert_string_equal(d.choice[0].provider, "dear");
		assert_string_equal(d.choice[0].model, "m");
		assert_string_equal(d.choice[0].reason, "chosen");
		assert_string_equal(d.choice[1].provider, "cheap");
		assert_string_equal(d.choice[1].reason, "fallback");
	}
	llmkit_targets_close(targets);
}

static void learn(uint32_t row, unsigned samples, uint64_t first_token_ns)
{
	const struct target_sample sample = {
		.input_tokens = 100, .first_token_ns = first_token_ns, .gap_ns = NSEC_PER_MSEC
	};

	for (unsigned i = 0; i < samples; i++)
		target_learn(&mini.region, row, &sample, clock_boottime_ns());
	target_tried(&mini.region, row, clock_boottime_ns());
}

static void the_query_chooses_the_strategy(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	unsigned cheap_first = 0, dear_first = 0;
	struct llmkit_decision d;

	(void)state;
	learn(cheap, 50, 800 * NSEC_PER_MSEC);
	learn(dear, 50, 100 * NSEC_PER_MSEC);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(llmkit_route(targets,
					 QUERY(.strategy = LLMKIT_STRATEGY_COST,
						 .input_tokens = 100, .output_tokens = 10),
					 &d),
			0);
		cheap_first += strcmp(d.choice[0].provider, "cheap") == 0;
		assert_int_equal(llmkit_route(targets,
					 QUERY(.strategy = LLMKIT_STRATEGY_LATENCY,
						 .input_tokens = 100, .output_tokens = 10),
					 &d),
			0);
		dear_first += strcmp(d.choice[0].provider, "dear") == 0;
		assert_true(choice_of(&d, "dear")->first_token_us >= 90000);
		assert_true(choice_of(&d, "dear")->first_token_us <= 120000);
	}
	assert_true(cheap_first > 200 && dear_first > 200);
	llmkit_targets_close(targets);
}

static void weights_of_the_query_come_first(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	unsigned cheap_first = 0;
	struct llmkit_decision d;

	(void)state;
	/* A hundred times slower, and ten times cheaper: equal weights would have the other. */
	learn(cheap, 50, 10 * NSEC_PER_SEC);
	learn(dear, 50, 100 * NSEC_PER_MSEC);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(
			llmkit_route(targets,
				QUERY(.strategy = LLMKIT_STRATEGY_BALANCED, .weight_cost = 1000,
					.input_tokens = 100, .output_tokens = 1),
				&d),
			0);
		cheap_first += strcmp(d.choice[0].provider, "cheap") == 0;
	}
	assert_true(cheap_first > 200);
	llmkit_targets_close(targets);
}

static void a_decision_says_what_it_costs(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	const struct llmkit_choice *c;
	struct llmkit_decision d;

	(void)state;
	assert_int_equal(
		llmkit_route(targets, QUERY(.input_tokens = 1000, .output_tokens = 100), &d), 0);
	c = choice_of(&d, "cheap");
	/* 1000 * 1 + 100 * 2 micro-USD. */
	assert_int_equal(c->cost_nanousd, 1200000);
	assert_int_equal(c->output_tokens, 100);
	assert_int_equal(llmkit_price(targets, c->target, 1000, 0, 100), 1200000);
	assert_int_equal(llmkit_price(targets, c->target, 1000, 500, 100), 1200000);
	assert_int_equal(llmkit_price(targets, 99, 1000, 0, 100), -1);
	assert_true(llmkit_price(targets, c->target, UINT64_MAX, 0, UINT64_MAX) == INT64_MAX);
	llmkit_targets_close(targets);
	targets = targets_of("other");
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(d.choice[0].cost_nanousd, -1);
	assert_int_equal(llmkit_price(targets, d.choice[0].target, 1, 0, 1), -1);
	llmkit_targets_close(targets);
}

static void a_fraction_of_a_nano_usd_is_one(void **state)
{
	struct llmkit_decision d;
	llmkit_targets *targets;

	(void)state;
	mini_target(&mini, "tiny/t", 1, 1);
	targets = targets_of("tiny/t");
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(llmkit_price(targets, d.choice[0].target, 1, 0, 0), 1);
	assert_int_equal(llmkit_price(targets, d.choice[0].target, 1000, 0, 0), 1);
	assert_int_equal(llmkit_price(targets, d.choice[0].target, 1000, 0, 1), 2);
	llmkit_targets_close(targets);
}

static void filters_say_why(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	struct llmkit_decision d;

	(void)state;
	assert_int_equal(llmkit_route(targets,
				 QUERY(.input_tokens = 1000, .output_tokens = 100,
					 .price_cap_nanousd = 2000000),
				 &d),
		0);
	assert_int_equal(d.usable, 1);
	assert_string_equal(d.choice[0].provider, "cheap");
	assert_string_equal(d.choice[1].reason, "out: price");
	assert_int_equal(llmkit_route(targets, QUERY(.capabilities = UINT64_C(1) << 40), &d),
		LLMKIT_E_NO_TARGET);
	assert_int_equal(d.usable, 0);
	assert_int_equal(d.count, 2);
	assert_int_equal(d.wait_ns, 0);
	assert_string_equal(d.choice[0].reason, "out: capability");
	llmkit_targets_close(targets);
}

static void a_routes_cap_and_patience_are_in_force(void **state)
{
	struct router_route route = { .name = str_of("careful"),
		.strategy = ROUTER_ORDER,
		.price_cap_nanousd = 2000000,
		.patience_ns = 10 * NSEC_PER_SEC,
		.count = 2,
		.target = { { dear, 1 }, { cheap, 1 } } };
	struct llmkit_decision d;
	llmkit_targets *targets;

	(void)state;
	assert_true(router_configure(&mini.region, &route) >= 0);
	targets = targets_of("careful");
	assert_int_equal(
		llmkit_route(targets, QUERY(.input_tokens = 1000, .output_tokens = 100), &d), 0);
	assert_int_equal(d.usable, 1);
	assert_string_equal(d.choice[0].provider, "cheap");
	assert_string_equal(d.choice[1].reason, "out: price");
	target_pause(
		&mini.region, cheap, clock_boottime_ns() + 9 * NSEC_PER_SEC, clock_boottime_ns());
	assert_int_equal(
		llmkit_route(targets, QUERY(.input_tokens = 1000, .output_tokens = 100), &d), 0);
	assert_string_equal(d.choice[0].provider, "cheap");
	assert_true(d.choice[0].wait_ns > 0);
	/* What the caller says goes before. */
	assert_int_equal(
		llmkit_route(targets,
			QUERY(.input_tokens = 1000, .output_tokens = 100,
				.price_cap_nanousd = NSEC_PER_SEC, .patience_ns = NSEC_PER_MSEC),
			&d),
		0);
	assert_int_equal(d.usable, 1);
	assert_string_equal(d.choice[0].provider, "dear");
	assert_string_equal(d.choice[1].reason, "out: paused");
	llmkit_targets_close(targets);
}

static void a_used_up_budget_is_routed_around(void **state)
{
	struct bucket_limit l = {
		.scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of("dear"),
		.limit = 10,
		.window_ns = DAY_NS,
		.burst = 10,
	};
	struct llmkit_decision d;
	llmkit_targets *targets;
	llmkit_limits *limits;
	unsigned target;

	(void)state;
	mini_limit_of(&mini, &l);
	l.name = str_of("cheap");
	mini_limit_of(&mini, &l);
	targets = targets_of("fast");
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	target = choice_of(&d, "dear")->target;
	limits = llmkit_targets_limits(targets, target);
	assert_non_null(limits);
	assert_int_equal(llmkit_limits_count(limits), 1);
	assert_int_equal(llmkit_acquire(limits, 10, NULL), 0);
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(d.usable, 1);
	assert_string_equal(d.choice[0].provider, "cheap");
	assert_string_equal(d.choice[1].reason, "out: budget");
	assert_true(d.choice[1].wait_ns > 0 && d.choice[1].wait_ns <= DAY_NS);
	/* With patience it may be had, later. */
	assert_int_equal(llmkit_route(targets, QUERY(.patience_ns = DAY_NS), &d), 0);
	assert_int_equal(d.usable, 2);
	assert_int_equal(
		llmkit_acquire(
			llmkit_targets_limits(targets, choice_of(&d, "cheap")->target), 10, NULL),
		0);
	assert_int_equal(llmkit_route(targets, NULL, &d), LLMKIT_E_LIMITED);
	assert_int_equal(d.usable, 0);
	assert_true(d.wait_ns > 0 && d.wait_ns <= DAY_NS);
	assert_null(llmkit_targets_limits(targets, 99));
	llmkit_targets_close(targets);
}

/* Who does not name the key has the provider's. */
static void limits_of_a_providers_key_are_the_targets(void **state)
{
	const struct llmkit_scope own = { .size = sizeof(own), .key = "OWN" };
	struct target_config provider = { .name = str_of("cheap"),
		.provider = TARGET_NONE,
		.price_input = -1,
		.price_output = -1,
		.price_cached = -1,
		.label = str_of("CHEAP_KEY"),
		.available = true };
	uint64_t until = clock_boottime_ns() + WAIT_NS;
	struct llmkit_limit_view v;
	llmkit_targets *targets;
	llmkit_limits *limits;

	(void)state;
	assert_true(target_configure(&mini.region, &provider) >= 0);
	mini_limit(&mini, BUCKET_SCOPE_KEY, "CHEAP_KEY", 1, 1);
	mini_limit(&mini, BUCKET_SCOPE_KEY, "NEW_KEY", 2, 2);
	targets = targets_of("cheap/m");
	limits = llmkit_targets_limits(targets, 0);
	assert_int_equal(llmkit_limits_count(limits), 1);
	assert_int_equal(llmkit_acquire(limits, 1, NULL), 0);
	assert_int_equal(llmkit_acquire(limits, 1, NULL), LLMKIT_E_LIMITED);
	/* A reload that changes it is followed. */
	provider.label = str_of("NEW_KEY");
	assert_true(target_configure(&mini.region, &provider) >= 0);
	do
		assert_int_equal(llmkit_limits_view(limits, 0, &v), 0);
	while (v.burst != 2 && clock_boottime_ns() < until);
	assert_string_equal(v.label, "key NEW_KEY requests");
	llmkit_targets_close(targets);
	assert_int_equal(llmkit_targets_open(kit, "cheap/m", &own, &targets), 0);
	assert_int_equal(llmkit_limits_count(llmkit_targets_limits(targets, 0)), 0);
	llmkit_targets_close(targets);
}

static void a_users_limits_are_the_targets(void **state)
{
	const struct llmkit_scope scope = { .size = sizeof(scope), .user = "ann" };
	struct llmkit_decision d;
	llmkit_targets *targets;

	(void)state;
	mini_limit(&mini, BUCKET_SCOPE_USER, "ann", 10, 10);
	assert_int_equal(llmkit_targets_open(kit, "cheap/m", &scope, &targets), 0);
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(
		llmkit_limits_count(llmkit_targets_limits(targets, d.choice[0].target)), 1);
	llmkit_targets_close(targets);
}

static void output_is_estimated_from_what_was(void **state)
{
	llmkit_targets *targets = targets_of("cheap/m");
	struct llmkit_decision d;

	(void)state;
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_true(d.choice[0].output_tokens > 0);
	assert_int_equal(llmkit_route(targets, QUERY(.max_tokens = 77), &d), 0);
	assert_int_equal(d.choice[0].output_tokens, 77);
	/* As the daemon has it: not all that it may use, unless it is charged so. */
	assert_int_equal(llmkit_route(targets, QUERY(.max_tokens = 64000), &d), 0);
	assert_int_equal(d.choice[0].output_tokens, ESTIMATE_OUTPUT);
	for (int i = 0; i < 500; i++) {
		llmkit_ticket ticket = { 0 };

		assert_int_equal(llmkit_allow(targets, 0, &ticket, NULL), 0);
		assert_int_equal(
			llmkit_report(&ticket,
				OUTCOME(.http_status = 200, .output_tokens = 40, .tag = "short")),
			0);
	}
	assert_int_equal(llmkit_route(targets, QUERY(.tag = "short"), &d), 0);
	assert_in_range(d.choice[0].output_tokens, 20, 80);
	assert_int_equal(d.choice[0].output_tokens,
		estimate_output(&mini.region, str_of("m"), str_of("short"), 0, 1));
	llmkit_targets_close(targets);
}

#define test_(name_) cmocka_unit_test_setup_teardown(name_, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_(a_route_decides_as_it_is_configured),
		test_(the_query_chooses_the_strategy),
		test_(weights_of_the_query_come_first),
		test_(a_decision_says_what_it_costs),
		test_(a_fraction_of_a_nano_usd_is_one),
		test_(filters_say_why),
		test_(a_routes_cap_and_patience_are_in_force),
		test_(a_used_up_budget_is_routed_around),
		test_(limits_of_a_providers_key_are_the_targets),
		test_(a_users_limits_are_the_targets),
		test_(output_is_estimated_from_what_was),
	};

	return cmocka_run_group_tests_name("target-api-route", tests, NULL, NULL);
}
