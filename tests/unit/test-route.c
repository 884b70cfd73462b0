#include "daemon/route.h"
#include "shm/breaker.h"
#include "shm/target.h"
#include "tests/unit/shm-fixture.h"

#include <stdio.h>

static struct config_provider providers[] = { { .name = (char *)"openai" },
	{ .name = (char *)"local" } };
static struct config_model models[] = {
	{ .name = (char *)"gpt", .provider = 0, .upstream = (char *)"gpt-2024", .max_tokens = 5 },
	{ .name = (char *)"a/b", .provider = 1, .upstream = (char *)"ab" },
};
static struct config_target targets[] = {
	{ .provider = 1, .upstream = (char *)"q", .model = (char *)"q" },
	{ .provider = 0,
		.upstream = (char *)"gpt-2024",
		.model = (char *)"gpt",
		.row = &models[0] },
};
static struct config_route routes[] = {
	{ .name = (char *)"fast",
		.targets = targets,
		.target_count = 2,
		.strategy = ROUTER_ORDER,
		.price_cap_nanousd = -1 },
};

static struct config sample(void)
{
	return (struct config){
		.providers = providers,
		.provider_count = 2,
		.models = models,
		.model_count = 2,
		.routes = routes,
		.route_count = 1,
		.features = { .limiter = true, .router = true },
	};
}

struct answer {
	int outcome;
	struct route_chain chain;
	char why[400];
};

static struct answer ask_of(const struct config *c, const char *model, const char *route)
{
	aux_cleanup(buffer_deinit) struct buffer why = BUFFER_NULL;
	struct answer a = { 0 };

	a.outcome = route_resolve(c, str_of(model), str_of(route), &a.chain, &why);
	snprintf(a.why, sizeof(a.why), "%.*s", STR_ARG(buffer_str(&why)));
	return a;
}

static struct answer ask(const char *model, const char *route)
{
	struct config c = sample();

	return ask_of(&c, model, route);
}

static void expect_one(struct answer a, unsigned provider, const char *upstream, const char *model,
	unsigned max_tokens)
{
	assert_int_equal(a.outcome, ROUTE_OK);
	assert_int_equal(a.chain.count, 1);
	assert_int_equal(a.chain.target[0].provider, provider);
	assert_true(str_is(a.chain.target[0].upstream, upstream));
	assert_true(str_is(a.chain.target[0].model, model));
	assert_int_equal(a.chain.target[0].max_tokens, max_tokens);
}

static void a_model_is_found_by_each_of_its_names(void **state)
{
	(void)state;
	expect_one(ask("gpt", NULL), 0, "gpt-2024", "gpt", 5);
	expect_one(ask("openai/gpt", NULL), 0, "gpt-2024", "gpt", 5);
	/* The limits of a model hold by whichever name it is asked for. */
	expect_one(ask("openai/gpt-2024", NULL), 0, "gpt-2024", "gpt", 5);
	expect_one(ask("a/b", NULL), 1, "ab", "a/b", 0);
}

static void an_unknown_model_of_a_provider_passes_through(void **state)
{
	(void)state;
	expect_one(ask("local/new", NULL), 1, "new", "new", 0);
	expect_one(ask("local/org/new", NULL), 1, "org/new", "org/new", 0);
	/* Another provider's model is not this one's. */
	expect_one(ask("local/gpt", NULL), 1, "gpt", "gpt", 0);
}

static void one_provider_needs_no_name(void **state)
{
	struct config c = sample();

	(void)state;
	c.provider_count = c.model_count = 1;
	expect_one(ask_of(&c, "x/y", NULL), 0, "x/y", "x/y", 0);
}

static void a_route_is_its_targets_in_order(void **state)
{
	struct answer a = ask(NULL, "fast");

	(void)state;
	assert_int_equal(a.outcome, ROUTE_OK);
	assert_int_equal(a.chain.count, 2);
	assert_int_equal(a.chain.target[0].provider, 1);
	assert_true(str_is(a.chain.target[1].upstream, "gpt-2024"));
	assert_int_equal(a.chain.target[1].max_tokens, 5);
	assert_ptr_equal(a.chain.target[1].price, &models[0].price);
	assert_null(a.chain.target[0].price);
}

static void what_is_not_there_is_explained(void **state)
{
	struct config c = sample();
	struct answer a;

	(void)state;
	a = ask("nope", NULL);
	assert_int_equal(a.outcome, ROUTE_E_UNKNOWN);
	assert_string_equal(a.why,
		"no model \"nope\": name one as PROVIDER/MODEL with PROVIDER of "
		"openai, local; or a configured model: gpt, a/b");
	assert_int_equal(ask("openai/", NULL).outcome, ROUTE_E_UNKNOWN);
	assert_int_equal(ask("/gpt", NULL).outcome, ROUTE_E_UNKNOWN);
	a = ask(NULL, "slow");
	assert_int_equal(a.outcome, ROUTE_E_UNKNOWN);
	assert_string_equal(a.why, "no route \"slow\"; configured routes: fast");
	c.route_count = 0;
	assert_non_null(strstr(ask_of(&c, NULL, "slow").why, "none"));
	c.provider_count = c.model_count = 0;
	assert_non_null(strstr(ask_of(&c, "gpt", NULL).why, "OPENAI_API_KEY"));
}

static void one_of_model_and_route_is_named(void **state)
{
	(void)state;
	assert_int_equal(ask(NULL, NULL).outcome, ROUTE_E_AMBIGUOUS);
	assert_int_equal(ask("gpt", "fast").outcome, ROUTE_E_AMBIGUOUS);
	assert_non_null(strstr(ask("gpt", "fast").why, "not both"));
}

static void the_router_can_be_switched_off(void **state)
{
	struct config c = sample();

	(void)state;
	c.features.router = false;
	assert_int_equal(ask_of(&c, NULL, "fast").outcome, ROUTE_E_DISABLED);
	assert_int_equal(ask_of(&c, "gpt", NULL).outcome, ROUTE_OK);
}

static void a_chain_is_bounded(void **state)
{
	struct config_target many[ROUTE_CHAIN_MAX + 5];
	struct config_route route = {
		.name = (char *)"long", .targets = many, .target_count = ARRAY_SIZE(many)
	};
	struct config c = sample();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = targets[0];
	c.routes = &route;
	assert_int_equal(ask_of(&c, NULL, "long").chain.count, ROUTE_CHAIN_MAX);
}

/* ---- order ---- */

static struct ranking {
	struct fixture f;
	struct config config;
	struct route_chain chain;
	struct router_query query;
	struct buffer why;
	uint32_t row[2];
} k;

static uint32_t make(const char *name, uint32_t provider, uint64_t context)
{
	const struct target_config t = {
		.name = str_of(name),
		.provider = provider,
		.price_input = 1000,
		.price_output = 1000,
		.price_cached = -1,
		.context = context,
		.capabilities = TARGET_STREAMING,
		.available = true,
	};
	const struct breaker_settings settings = breaker_preset(BREAKER_PRODUCTION);
	int row = target_configure(&k.f.r, &t);

	assert_true(row >= 0);
	breaker_configure(&k.f.r, (uint32_t)row, &settings);
	return (uint32_t)row;
}

/* The route "fast": local/q, then openai/gpt. */
static int ranking_setup(void **state)
{
	(void)state;
	memset(&k, 0, sizeof(k));
	k.f = fixture_open(false);
	k.config = sample();
	k.row[0] = make("local/q", make("local", TARGET_NONE, 0), 1000);
	k.row[1] = make("openai/gpt", make("openai", TARGET_NONE, 0), 5000);
	k.chain = ask(NULL, "fast").chain;
	k.query = route_query(&k.chain);
	route_find_rows(&k.f.r, &k.config, &k.chain);
	return 0;
}

static int ranking_teardown(void **state)
{
	(void)state;
	buffer_deinit(&k.why);
	fixture_close(&k.f);
	return 0;
}

static int rank(const struct bucket_set *limits)
{
	return route_rank(
		&k.f.r, &k.config, &k.chain, limits, &k.query, FIXTURE_NOW + 1000, &k.why);
}

static void open_breaker(uint32_t row)
{
	const struct breaker_ticket ticket = { .row = row, .slot = BREAKER_NO_PROBE };
	const struct breaker_report failed = { .outcome = BREAKER_FAILED };
	uint64_t wait_ns;

	for (int i = 0; i < 5; i++)
		breaker_record(&k.f.r, &ticket, &failed, FIXTURE_NOW, 1);
	assert_int_equal(breaker_check(&k.f.r, row, FIXTURE_NOW, &wait_ns), BREAKER_REJECT);
}

static void expect_chain(const char *first, const char *second)
{
	assert_int_equal(k.chain.count, second ? 2 : 1);
	assert_true(str_is(k.chain.target[0].upstream, first));
	if (second)
		assert_true(str_is(k.chain.target[1].upstream, second));
}

static void targets_find_their_rows(void **state)
{
	(void)state;
	assert_int_equal(k.chain.target[0].row, k.row[0]);
	assert_int_equal(k.chain.target[1].row, k.row[1]);
	assert_int_equal(
		k.chain.target[1].provider_row, target_find(&k.f.r, str_of("openai"), NULL));
}

static void without_anything_against_it_the_order_stays(void **state)
{
	(void)state;
	assert_int_equal(rank(NULL), ROUTE_OK);
	expect_chain("q", "gpt-2024");
}

static void an_open_breaker_is_passed_over(void **state)
{
	(void)state;
	open_breaker(k.row[0]);
	assert_int_equal(rank(NULL), ROUTE_OK);
	expect_chain("gpt-2024", NULL);
	assert_false(k.chain.target[0].forced);
}

static void an_open_breaker_of_the_provider_is_passed_over(void **state)
{
	(void)state;
	open_breaker(target_find(&k.f.r, str_of("local"), NULL));
	assert_int_equal(rank(NULL), ROUTE_OK);
	expect_chain("gpt-2024", NULL);
}

static void when_all_breakers_are_open_none_is(void **state)
{
	(void)state;
	open_breaker(k.row[0]);
	open_breaker(target_find(&k.f.r, str_of("openai"), NULL));
	assert_int_equal(rank(NULL), ROUTE_OK);
	assert_int_equal(k.chain.count, 2);
	assert_true(k.chain.target[0].forced && k.chain.target[1].forced);
}

static void what_an_operator_opened_stays_out_of_a_panic(void **state)
{
	(void)state;
	breaker_force_open(&k.f.r, k.row[0], FIXTURE_NOW);
	open_breaker(k.row[1]);
	assert_int_equal(rank(NULL), ROUTE_OK);
	expect_chain("gpt-2024", NULL);
	assert_true(k.chain.target[0].forced);
}

static void expect_why(int outcome, const char *why)
{
	char got[400];

	buffer_reset(&k.why, SIZE_MAX);
	assert_int_equal(rank(NULL), outcome);
	snprintf(got, sizeof(got), "%.*s", STR_ARG(buffer_str(&k.why)));
	assert_string_equal(got, why);
	k.chain = ask(NULL, "fast").chain;
	route_find_rows(&k.f.r, &k.config, &k.chain);
}

/* Time or an operator will close it: no refusal for good. */
static void when_an_operator_opened_all_it_says_so(void **state)
{
	(void)state;
	breaker_force_open(&k.f.r, k.row[0], FIXTURE_NOW);
	breaker_force_open(&k.f.r, target_find(&k.f.r, str_of("openai"), NULL), FIXTURE_NOW);
	expect_why(ROUTE_E_OPEN,
		"no target can take the request: "
		"local/q (its circuit breaker was opened by hand: llmkit breakers close local/q), "
		"openai/gpt (the circuit breaker of its provider was opened by hand: "
		"llmkit breakers close openai)");
	/* What could not take it anyhow is not what keeps it from being taken. */
	breaker_force_close(&k.f.r, target_find(&k.f.r, str_of("openai"), NULL), FIXTURE_NOW);
	breaker_force_open(&k.f.r, k.row[1], FIXTURE_NOW);
	k.query.input_tokens = 2000;
	expect_why(ROUTE_E_OPEN,
		"no target can take the request: "
		"local/q (out: context), "
		"openai/gpt (its circuit breaker was opened by hand: "
		"llmkit breakers close openai/gpt)");
}

static void a_prompt_too_long_for_one_goes_to_the_other(void **state)
{
	(void)state;
	k.query.input_tokens = 2000;
	assert_int_equal(rank(NULL), ROUTE_OK);
	expect_chain("gpt-2024", NULL);
}

static void a_request_for_nobody_says_why(void **state)
{
	(void)state;
	k.query.input_tokens = 9000;
	assert_int_equal(rank(NULL), ROUTE_E_CONTEXT);
	assert_non_null(memmem(buffer_head(&k.why), buffer_length(&k.why), "local/q", 7));
	assert_non_null(memmem(buffer_head(&k.why), buffer_length(&k.why), "context", 7));
}

static void a_missing_capability_leaves_no_target(void **state)
{
	(void)state;
	k.query.capabilities = TARGET_VISION;
	assert_int_equal(rank(NULL), ROUTE_E_NO_TARGET);
	assert_non_null(memmem(buffer_head(&k.why), buffer_length(&k.why), "capability", 10));
}

static void a_price_above_the_cap_leaves_no_target(void **state)
{
	(void)state;
	k.query.input_tokens = 900;
	k.query.price_cap_nanousd = 1;
	assert_int_equal(rank(NULL), ROUTE_E_NO_TARGET);
	assert_non_null(memmem(buffer_head(&k.why), buffer_length(&k.why), "price", 5));
}

/* A used up budget comes last; of two of them the one that is sooner whole comes first. */
static void what_must_wait_comes_last_and_least_wait_first(void **state)
{
	struct bucket_set limits[2];
	uint64_t now = FIXTURE_NOW + 1000;

	(void)state;
	fixture_limit(&k.f, BUCKET_SCOPE_PROVIDER, "slow", 1, 1);
	fixture_limit(&k.f, BUCKET_SCOPE_PROVIDER, "quick", 10, 1);
	memset(limits, 0, sizeof(limits));
	fixture_add(&limits[0], &k.f, BUCKET_SCOPE_PROVIDER, "slow");
	fixture_add(&limits[1], &k.f, BUCKET_SCOPE_PROVIDER, "quick");
	assert_int_equal(bucket_acquire(&k.f.r, &limits[0], 1, now).outcome, BUCKET_OK);
	assert_int_equal(rank(limits), ROUTE_OK);
	expect_chain("gpt-2024", "q");
	k.chain = ask(NULL, "fast").chain;
	route_find_rows(&k.f.r, &k.config, &k.chain);
	assert_int_equal(bucket_acquire(&k.f.r, &limits[1], 1, now).outcome, BUCKET_OK);
	assert_int_equal(rank(limits), ROUTE_OK);
	expect_chain("gpt-2024", "q");
}

static void a_pause_comes_last(void **state)
{
	(void)state;
	target_pause(&k.f.r, k.row[0], FIXTURE_NOW + FIXTURE_SECOND, FIXTURE_NOW);
	assert_int_equal(rank(NULL), ROUTE_OK);
	expect_chain("gpt-2024", "q");
}

static void without_a_key_it_is_left_only_when_nothing_else_is(void **state)
{
	struct target_config t = { .name = str_of("local/q"), .available = false };

	(void)state;
	t.provider = target_find(&k.f.r, str_of("local"), NULL);
	assert_int_equal(target_configure(&k.f.r, &t), k.row[0]);
	assert_int_equal(rank(NULL), ROUTE_OK);
	expect_chain("gpt-2024", NULL);
	t.name = str_of("openai/gpt");
	t.provider = target_find(&k.f.r, str_of("openai"), NULL);
	assert_int_equal(target_configure(&k.f.r, &t), k.row[1]);
	k.chain = ask(NULL, "fast").chain;
	route_find_rows(&k.f.r, &k.config, &k.chain);
	assert_int_equal(rank(NULL), ROUTE_OK);
	assert_int_equal(k.chain.count, 2);
}

/* Its missing key is not what keeps the request from being taken: the other has one. */
static void what_an_operator_opened_is_told_before_a_missing_key(void **state)
{
	struct target_config t = { .name = str_of("local/q"), .available = false };

	(void)state;
	t.provider = target_find(&k.f.r, str_of("local"), NULL);
	assert_int_equal(target_configure(&k.f.r, &t), k.row[0]);
	breaker_force_open(&k.f.r, k.row[1], FIXTURE_NOW);
	expect_why(ROUTE_E_OPEN,
		"no target can take the request: local/q (out: unavailable), openai/gpt (its "
		"circuit breaker was opened by hand: llmkit breakers close openai/gpt)");
}

int main(void)
{
#define RANKED(fn_) cmocka_unit_test_setup_teardown(fn_, ranking_setup, ranking_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_model_is_found_by_each_of_its_names),
		cmocka_unit_test(an_unknown_model_of_a_provider_passes_through),
		cmocka_unit_test(one_provider_needs_no_name),
		cmocka_unit_test(a_route_is_its_targets_in_order),
		cmocka_unit_test(what_is_not_there_is_explained),
		cmocka_unit_test(one_of_model_and_route_is_named),
		cmocka_unit_test(the_router_can_be_switched_off),
		cmocka_unit_test(a_chain_is_bounded),
		RANKED(targets_find_their_rows),
		RANKED(without_anything_against_it_the_order_stays),
		RANKED(an_open_breaker_is_passed_over),
		RANKED(an_open_breaker_of_the_provider_is_passed_over),
		RANKED(when_all_breakers_are_open_none_is),
		RANKED(what_an_operator_opened_stays_out_of_a_panic),
		RANKED(when_an_operator_opened_all_it_says_so),
		RANKED(a_prompt_too_long_for_one_goes_to_the_other),
		RANKED(a_request_for_nobody_says_why),
		RANKED(a_missing_capability_leaves_no_target),
		RANKED(a_price_above_the_cap_leaves_no_target),
		RANKED(what_must_wait_comes_last_and_least_wait_first),
		RANKED(a_pause_comes_last),
		RANKED(without_a_key_it_is_left_only_when_nothing_else_is),
		RANKED(what_an_operator_opened_is_told_before_a_missing_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
