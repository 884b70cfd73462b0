#include "daemon/route.h"
#include "tests/unit/cmocka-all.h"

#include <stdio.h>

static struct config_provider providers[] = { { .name = (char *)"openai" },
	{ .name = (char *)"local" } };
static struct config_model models[] = {
	{ .name = (char *)"gpt", .provider = 0, .upstream = (char *)"gpt-2024", .max_tokens = 5 },
	{ .name = (char *)"a/b", .provider = 1, .upstream = (char *)"ab" },
};
static struct config_target targets[] = {
	{ .provider = 1, .upstream = (char *)"q", .model = (char *)"q" },
	{ .provider = 0, .upstream = (char *)"gpt-2024", .model = (char *)"gpt", .max_tokens = 5 },
};
static struct config_route routes[] = { { (char *)"fast", targets, 2 } };

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
	struct config_route route = { (char *)"long", many, ARRAY_SIZE(many) };
	struct config c = sample();

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(many); i++)
		many[i] = targets[0];
	c.routes = &route;
	assert_int_equal(ask_of(&c, NULL, "long").chain.count, ROUTE_CHAIN_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_model_is_found_by_each_of_its_names),
		cmocka_unit_test(an_unknown_model_of_a_provider_passes_through),
		cmocka_unit_test(one_provider_needs_no_name),
		cmocka_unit_test(a_route_is_its_targets_in_order),
		cmocka_unit_test(what_is_not_there_is_explained),
		cmocka_unit_test(one_of_model_and_route_is_named),
		cmocka_unit_test(the_router_can_be_switched_off),
		cmocka_unit_test(a_chain_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
