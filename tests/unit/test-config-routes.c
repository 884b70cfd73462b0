/* Models, routes and the sizes of tables in a configuration. */

#include "shm/target.h"
#include "tests/unit/config-fixture.h"

static void models_say_what_they_can(void **state)
{
	struct fixture *f = *state;

	if (!has("openai"))
		skip();
	load_good(f,
		"providers: [{name: openai}]\nmodels:\n- {name: a}\n- {name: b, capabilities: []}\n"
		"- {name: c, context: 128000, capabilities: [json, vision]}\n"
		"- name: d\n  capabilities:\n");
	for (unsigned pass = 0; pass < 2; pass++) {
		const struct config_model *m = f->c->models;

		assert_int_equal(m[0].context, 0);
		assert_int_equal(m[0].capabilities, TARGET_CAPABILITIES);
		assert_int_equal(m[1].capabilities, 0);
		assert_int_equal(m[2].context, 128000);
		assert_int_equal(m[2].capabilities, TARGET_JSON | TARGET_VISION);
		assert_int_equal(m[3].capabilities, TARGET_CAPABILITIES);
		round_trip(f);
	}
	assert_null(target_capability_name(TARGET_CAPABILITY_BITS));
	assert_string_equal(target_capability_name(__builtin_ctz(TARGET_TOOLS)), "tools");
	assert_string_equal(target_capability_name(__builtin_ctz(TARGET_REASONING)), "reasoning");
	assert_string_equal(target_capability_name(__builtin_ctz(TARGET_STREAMING)), "streaming");
}

static void routes_say_how_to_choose(void **state)
{
	struct fixture *f = *state;

	if (!has("openai"))
		skip();
	load_good(f,
		"providers: [{name: openai}]\nroutes:\n- {name: a, targets: [openai/x]}\n"
		"- {name: b, strategy: balanced, targets: [openai/x]}\n"
		"- {name: c, strategy: balanced, weights: {cost: 1, latency: 1, reliability: 1}, "
		"price_cap: $0.05, patience: 250ms, targets: [{target: openai/x, weight: 1000000}, "
		"openai/y, {target: openai/z}]}\n"
		"- {name: d, strategy: balanced, weights: {reliability: 0.25}, price_cap: 0 USD, "
		"targets: [openai/x]}\n"
		"- {name: e, strategy: balanced, weights: {cost: 0.000001, latency: 1000, "
		"reliability: 0.3333}, targets: [openai/x]}\n"
		"- {name: f, strategy: weighted, targets: [{target: openai/x, weight: 3}]}\n");
	for (unsigned pass = 0; pass < 2; pass++) {
		const struct config_route *r = f->c->routes;

		assert_int_equal(r[0].strategy, ROUTER_ORDER);
		assert_int_equal(r[0].price_cap_nanousd, -1);
		assert_int_equal(r[0].patience_ns, 0);
		assert_int_equal(r[0].targets[0].weight, 1);
		assert_int_equal(r[1].strategy, ROUTER_BALANCED);
		assert_int_equal(r[1].weight_cost, 300);
		assert_int_equal(r[1].weight_latency, 500);
		assert_int_equal(r[1].weight_reliability, 200);
		assert_int_equal(r[2].weight_cost, 334);
		assert_int_equal(r[2].weight_latency, 333);
		assert_int_equal(r[2].weight_reliability, 333);
		assert_int_equal(r[2].price_cap_nanousd, 50000000);
		assert_int_equal(r[2].patience_ns, 250 * NSEC_PER_MSEC);
		assert_int_equal(r[2].target_count, 3);
		assert_int_equal(r[2].targets[0].weight, 1000000);
		assert_string_equal(r[2].targets[0].model, "x");
		assert_string_equal(r[2].targets[1].model, "y");
		assert_int_equal(r[2].targets[1].weight, 1);
		assert_string_equal(r[2].targets[2].model, "z");
		assert_int_equal(r[2].targets[2].weight, 1);
		assert_int_equal(r[3].weight_cost + r[3].weight_latency, 0);
		assert_int_equal(r[3].weight_reliability, 1000);
		assert_int_equal(r[3].price_cap_nanousd, 0);
		assert_int_equal(r[4].weight_cost, 0);
		assert_int_equal(r[4].weight_latency, 1000);
		assert_int_equal(r[4].weight_reliability, 0);
		assert_int_equal(r[5].strategy, ROUTER_WEIGHTED);
		assert_int_equal(r[5].targets[0].weight, 3);
		round_trip(f);
	}
}

static void every_strategy_has_a_name(void **state)
{
	struct fixture *f = *state;
	char text[256];

	if (!has("openai"))
		skip();
	for (unsigned i = 0; i < ROUTER_STRATEGIES; i++) {
		snprintf(text, sizeof(text),
			"providers: [{name: openai}]\n"
			"routes: [{name: r, strategy: %s, targets: [openai/x]}]\n",
			router_strategy_name(i));
		load_good(f, text);
		assert_int_equal(f->c->routes[0].strategy, i);
		round_trip(f);
		assert_int_equal(f->c->routes[0].strategy, i);
	}
}

static void tables_are_taken_or_made_to_fit(void **state)
{
	struct fixture *f = *state;
	struct buffer text = BUFFER_NULL;

	if (!has("openai"))
		skip();
	load_good(f,
		"providers: []\nfeatures: {breaker: false}\n"
		"tables: {limits: 524288, requests_in_flight: 16384, targets: 1}\n");
	for (unsigned pass = 0; pass < 2; pass++) {
		assert_int_equal(f->c->tables.limits, 524288);
		assert_int_equal(f->c->tables.holds, 16384);
		assert_int_equal(f->c->tables.targets, 1);
		assert_false(f->c->features.breaker);
		round_trip(f);
	}
	load_good(f, "tables:\n");
	assert_int_equal(f->c->tables.limits, 0);
	assert_int_equal(f->c->tables.holds, 0);
	assert_int_equal(f->c->tables.targets, 0);
	assert_true(f->c->features.breaker);
	/* One row for the provider, and one for each model. */
	assert_int_equal(buffer_printf(&text, "providers: [{name: openai}]\nmodels:\n"), 0);
	for (int i = 0; i < 255; i++)
		assert_int_equal(buffer_printf(&text, "- {name: m%d}\n", i), 0);
	assert_int_equal(load_bytes(f, buffer_head(&text), buffer_length(&text)), 0);
	assert_int_equal(f->c->tables.targets, 0);
	assert_int_equal(buffer_printf(&text, "- {name: m255}\n"), 0);
	assert_int_equal(load_bytes(f, buffer_head(&text), buffer_length(&text)), 0);
	assert_int_equal(f->c->tables.targets, 514);
	round_trip(f);
	assert_int_equal(f->c->tables.targets, 514);
	buffer_deinit(&text);
}

static void rows_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct buffer text = BUFFER_NULL;

	assert_int_equal(buffer_printf(&text, "providers: []\nlimits:\n"), 0);
	for (int i = 0; i < 2048; i++)
		assert_int_equal(
			buffer_printf(&text, "- {user: u%d, requests: 1/s, tokens: 1/s}\n", i), 0);
	assert_int_equal(load_bytes(f, buffer_head(&text), buffer_length(&text)), 0);
	assert_int_equal(f->c->limit_count, 4096);
	assert_int_equal(buffer_printf(&text, "- {user: v, requests: 1/s}\n"), 0);
	assert_int_equal(load_bytes(f, buffer_head(&text), buffer_length(&text)), CONFIG_E_INVALID);
	assert_int_equal(buffer_append(&f->error, "", 1), 0);
	assert_non_null(strstr(error_text(f), ":3:1: limits: are 4097, each resource"));
	buffer_deinit(&text);
}

#define CASE(name_) cmocka_unit_test_setup_teardown(name_, fixture_new, fixture_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(models_say_what_they_can),
		CASE(routes_say_how_to_choose),
		CASE(every_strategy_has_a_name),
		CASE(tables_are_taken_or_made_to_fit),
		CASE(rows_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
