/* Mistakes in limits, templates, models, routes and breakers are told with their place. */

#include "tests/unit/config-fixture.h"

/* Each after the line of TWO_PROVIDERS. */
static const struct {
	const char *text;
	unsigned line, column;
	const char *fragment;
} malformed[] = {
	/* What is limited. */
	{ "limits: [{user: u, provider: a, model: m, requests: 1/s}]", 2, 10,
		"limits[0]: give one or two of provider, model, user and key" },
	{ "limits: [{user: u, provider: c, requests: 1/s}]", 2, 30,
		"no provider \"c\"; there is: a" },
	{ "limits: [{key: KEY_B, requests: 1/s}]", 2, 16,
		"limits[0].key: no provider has a key from \"KEY_B\"; there is: KEY_A, cb" },
	{ "limits: [{key: '', requests: 1/s}]", 2, 16, "no provider has a key from \"\"" },
	{ "limits: [{user: 'a b', model: m, requests: 1/s}]", 2, 17, "without spaces" },
	{ "limits: [{user: [u], requests: 1/s}]", 2, 17, "limits[0].user: must be one value" },
	{ "limits: [{user: u, requests: [1/s]}]", 2, 30, "limits[0].requests: must be one value" },
	{ "limits: [{user: u, requests: 1/s, requests: 2/s}]", 2, 35,
		"limits[0].requests: given twice" },
	/* How much. */
	{ "limits: [{user: u}]", 2, 10,
		"limits[0]: limits nothing; give at least one of preset, requests, input_tokens" },
	{ "limits: [{user: u, burst: 3}]", 2, 10, "limits[0]: limits nothing" },
	{ "limits: [{user: u, burst: {tokens: 3}}]", 2, 10, "limits nothing" },
	{ "limits: [{user: u, tokens: 10}]", 2, 28,
		"limits[0].tokens: \"10\" is not a rate; write N/s, N/min, N/h or N/day" },
	{ "limits: [{user: u, tokens: 1.5M/min}]", 2, 28, "\"1.5M/min\" is not a rate" },
	{ "limits: [{user: u, tokens: 1G/min}]", 2, 28, "\"1G/min\" is not a rate" },
	{ "limits: [{user: u, tokens: 1kk/min}]", 2, 28, "\"1kk/min\" is not a rate" },
	{ "limits: [{user: u, tokens: 2000M/s}]", 2, 28, "\"2000M/s\" is not a rate" },
	{ "limits: [{user: u, input_tokens: ''}]", 2, 34, "\"\" is not a rate" },
	{ "limits: [{user: u, requests: auto}]", 2, 30,
		"limits[0].requests: \"auto\": auto follows what a provider's answers say" },
	{ "limits: [{user: u, model: m, tokens: 5/s auto}]", 2, 38, "and not of a user" },
	{ "limits: [{model: m, tokens: auto auto}]", 2, 29, "\"auto auto\" is not a rate" },
	{ "limits: [{model: m, tokens: x auto}]", 2, 29, "\"x auto\" is not a rate" },
	{ "limits: [{model: m, tokens: 1/s  auto}]", 2, 29, "is not a rate" },
	{ "limits: [{model: m, tokens: ' auto'}]", 2, 29, "is not a rate" },
	{ "limits: [{model: m, concurrency: auto}]", 2, 34,
		"\"auto\" is not allowed; write a whole number from 1 to 4294967294" },
	{ "limits: [{model: m, concurrency: 0}]", 2, 34, "\"0\" is not allowed" },
	{ "limits: [{model: m, concurrency: 4294967295}]", 2, 34, "is not allowed" },
	{ "limits: [{model: m, concurrency: 3, burst: 2}]", 2, 44, "none is given" },
	{ "limits: [{user: u, money: 5}]", 2, 27,
		"limits[0].money: \"5\" is not a sum of a calendar day or month; write N USD/day" },
	{ "limits: [{user: u, money: 5 USD}]", 2, 27, "is not a sum" },
	{ "limits: [{user: u, money: 5 USD/h}]", 2, 27, "is not a sum" },
	{ "limits: [{user: u, money: 5 EUR/day}]", 2, 27, "is not a sum" },
	{ "limits: [{user: u, money: 5USD/day}]", 2, 27, "is not a sum" },
	{ "limits: [{user: u, money: $5 USD/day}]", 2, 27, "is not a sum" },
	{ "limits: [{user: u, money: 0 USD/day}]", 2, 27, "above 0" },
	{ "limits: [{user: u, money: 0.0000000001 USD/day}]", 2, 27, "at most nine decimals" },
	{ "limits: [{user: u, money: 4503600 USD/day}]", 2, 27, "at most 4503599 USD" },
	{ "limits: [{user: u, money: 99999999999999999999 USD/day}]", 2, 27, "is not a sum" },
	{ "limits: [{user: u, money: -1 USD/day}]", 2, 27, "is not a sum" },
	{ "limits: [{user: u, preset: per_key}]", 2, 28,
		"\"per_key\" is not a preset; allowed: per_provider, per_model, per_user, "
		"unlimited" },
	{ "limits: [{user: u, preset: per_user, requests: 2/s}]", 2, 28,
		"\"per_user\" is a rate of requests, and so is requests; remove one" },
	/* Bursts. */
	{ "limits: [{user: u, requests: 1/s, tokens: 1/s, burst: 3}]", 2, 55,
		"is one number for several resources; write a group, such as {requests: 50" },
	{ "limits: [{user: u, requests: 1/s, burst: {tokens: 3}}]", 2, 51,
		"limits[0].burst.tokens: is a burst of what is not limited here" },
	{ "limits: [{user: u, requests: 1/s, burst: {concurrency: 3}}]", 2, 43,
		"limits[0].burst: unknown key \"concurrency\"; allowed: requests, input_tokens" },
	{ "limits: [{user: u, requests: 1/s, burst: {requests: 0}}]", 2, 53,
		"limits[0].burst.requests: \"0\" is not allowed" },
	{ "limits: [{user: u, requests: 1/s, burst: {requests: }}]", 2, 53, "\"\" is not allowed" },
	{ "limits: [{user: u, requests: 1/s, burst: [3]}]", 2, 42,
		"limits[0].burst: must be one value or a group of \"key: value\"" },
	{ "limits: [{user: u, tokens: 1/s, burst: 4294967295}]", 2, 40,
		"\"4294967295\" is not allowed; write a whole number below 4294967295" },
	{ "limits: [{user: u, requests: 1/day, burst: 100k}]", 2, 30,
		"limits[0].requests: 1 with a burst of 100000 is out of range" },
	/* Twice. */
	{ "limits:\n- {user: u, requests: 1/s}\n"
	  "- {user: u, model: m, requests: 1/s, tokens: 1/s}\n- {model: m, user: u, tokens: 9/s}",
		5, 31, "limits[2].tokens: \"u@m\" is already limited by limits[1]" },
	{ "limits: [{key: cb, requests: 1/s}, {key: cb, preset: per_user}]", 2, 36,
		"limits[1].requests: \"cb\" is already limited by limits[0]" },
	/* Templates. */
	{ "templates: per_user", 2, 12, "templates: must be a group" },
	{ "templates: {per_users: default}", 2, 13,
		"templates: unknown key \"per_users\"; allowed: per_user, per_model, "
		"per_provider" },
	{ "templates: {per_user: none}", 2, 23,
		"templates.per_user: \"none\" is not allowed; write default, unlimited or a "
		"group" },
	{ "templates: {per_key: none}", 2, 22,
		"\"none\" is not allowed; write unlimited or a group" },
	{ "templates: {per_key: default}", 2, 22,
		"templates.per_key: has no default; per_user, per_model and per_provider have "
		"one" },
	{ "templates: {per_user: {}}", 2, 23, "templates.per_user: limits nothing" },
	{ "templates: {per_user: }", 2, 23, "\"\" is not allowed" },
	{ "templates: {per_user: [default]}", 2, 23, "must be one value or a group" },
	{ "templates: {per_user: {user: u, requests: 1/s}}", 2, 24, "unknown key \"user\"" },
	{ "templates: {per_provider: {requests: auto}}", 2, 38,
		"templates.per_provider.requests: \"auto\": auto follows" },
	{ "templates: {per_user: {tokens: 1}}", 2, 32, "\"1\" is not a rate" },
	{ "templates: {per_user: {requests: 1/s, burst: {tokens: 1}}}", 2, 55,
		"templates.per_user.burst.tokens: is a burst of what" },
	{ "templates: {per_user: {requests: 1/day, burst: 100k}}", 2, 34,
		"templates.per_user.requests: 1 with a burst of 100000 is out of range" },
	/* Tables. */
	{ "tables: 3", 2, 9, "tables: must be a group" },
	{ "tables: {limits: 0}", 2, 18,
		"\"0\" is not allowed; write a whole number from 1 to 524288" },
	{ "tables: {limits: 524289}", 2, 18, "is not allowed" },
	{ "tables: {requests_in_flight: 16385}", 2, 30, "from 1 to 16384" },
	{ "tables: {targets: 524289}", 2, 19, "from 1 to 524288" },
	{ "tables: {targets: 3}\nmodels: [{name: x, provider: a}]\n"
	  "routes: [{name: r, targets: [x]}]",
		2, 19,
		"tables.targets: 3 is not enough: providers, models and the targets of routes "
		"are 4" },
	{ "tables: {limits: 2}\nlimits: [{user: u, requests: 1/s, tokens: 1/s, money: $1/day}]", 3,
		9, "limits: are 3, each resource counted by itself; there is room for 2 (tables" },
	/* Providers and models. */
	{ "models: [{name: x, provider: a, context: 0}]", 2, 42, "from 1 to 1000000000" },
	{ "models: [{name: x, provider: a, context: 8k}]", 2, 42, "\"8k\" is not allowed" },
	{ "models: [{name: x, provider: a, capabilities: tools}]", 2, 47,
		"models[0].capabilities: must be a list" },
	{ "models: [{name: x, provider: a, capabilities: [tools, audio]}]", 2, 55,
		"models[0].capabilities[1]: \"audio\" is not a capability; allowed: tools, "
		"vision" },
	{ "models: [{name: x, provider: a, breaker: fast}]", 2, 42,
		"models[0].breaker: \"fast\" is not a preset; allowed: aggressive, production" },
	{ "models: [{name: x, provider: a, breaker: [off]}]", 2, 42,
		"models[0].breaker: must be one value or a group" },
	{ "models: [{name: x, provider: a, breaker: }]", 2, 42, "\"\" is not a preset" },
	{ "models: [{name: x, provider: a, breaker: {preset: fast}}]", 2, 51,
		"models[0].breaker.preset: \"fast\" is not a preset" },
	{ "models: [{name: x, provider: a, breaker: {failure: 1}}]", 2, 43,
		"unknown key \"failure\"" },
	{ "models: [{name: x, provider: a, breaker: {failures: 256}}]", 2, 53, "from 0 to 255" },
	{ "models: [{name: x, provider: a, breaker: {error_ratio: 50}}]", 2, 56,
		"models[0].breaker.error_ratio: \"50\" is not a percentage; write 0% to 100%" },
	{ "models: [{name: x, provider: a, breaker: {error_ratio: 101%}}]", 2, 56, "\"101%\"" },
	{ "models: [{name: x, provider: a, breaker: {error_ratio: 0.5%}}]", 2, 56, "\"0.5%\"" },
	{ "models: [{name: x, provider: a, breaker: {calls: 0}}]", 2, 50, "from 1 to 65535" },
	{ "models: [{name: x, provider: a, breaker: {calls: 65536}}]", 2, 50, "from 1 to 65535" },
	{ "models: [{name: x, provider: a, breaker: {window: 500ms}}]", 2, 51,
		"allowed: 1s to 1h" },
	{ "models: [{name: x, provider: a, breaker: {window: 1500ms}}]", 2, 51,
		"whole number of sec" },
	{ "models: [{name: x, provider: a, breaker: {window: 61m}}]", 2, 51, "out of range" },
	{ "models: [{name: x, provider: a, breaker: {probes: 0}}]", 2, 51, "from 1 to 4" },
	{ "models: [{name: x, provider: a, breaker: {probes: 5}}]", 2, 51, "from 1 to 4" },
	{ "models: [{name: x, provider: a, breaker: {successes: 0}}]", 2, 54, "from 1 to 255" },
	{ "models: [{name: x, provider: a, breaker: {lease: 99ms}}]", 2, 50,
		"allowed: 100ms to 1d" },
	{ "models: [{name: x, provider: a, breaker: {backoff: 2d}}]", 2, 52,
		"allowed: 100ms to 1d" },
	{ "models: [{name: x, provider: a, breaker: {backoff_max: 5}}]", 2, 56,
		"is not a duration" },
	{ "models: [{name: x, provider: a, breaker: {backoff: 2m, backoff_max: 1m}}]", 2, 52,
		"models[0].breaker.backoff: 120000 ms is above backoff_max, 60000 ms" },
	{ "models: [{name: x, provider: a, breaker: {deviation: 10.01}}]", 2, 54, "from 0 to 10" },
	{ "models: [{name: x, provider: a, breaker: {deviation: 2.555}}]", 2, 54, "two decimals" },
	{ "models: [{name: x, provider: a, breaker: {deviation: -1}}]", 2, 54, "is not allowed" },
	{ "features: {breaker: on}", 2, 21, "features.breaker: \"on\" is not a switch" },
	/* Routes. */
	{ "routes: [{name: r, strategy: fast, targets: [a/x]}]", 2, 30,
		"routes[0].strategy: \"fast\" is not a strategy; allowed: balanced, cost, "
		"latency" },
	{ "routes: [{name: r, weights: {cost: 1}, targets: [a/x]}]", 2, 29,
		"routes[0].weights: are for strategy balanced only; it is order" },
	{ "routes: [{name: r, strategy: balanced, weights: {}, targets: [a/x]}]", 2, 49,
		"routes[0].weights: are all 0" },
	{ "routes: [{name: r, strategy: balanced, weights: {cost: 1001}, targets: [a/x]}]", 2, 56,
		"routes[0].weights.cost: \"1001\" is not a weight; write a number from 0 to 1000" },
	{ "routes: [{name: r, strategy: balanced, weights: {latency: x}, targets: [a/x]}]", 2, 59,
		"\"x\" is not a weight" },
	{ "routes: [{name: r, price_cap: 0.05, targets: [a/x]}]", 2, 31,
		"routes[0].price_cap: \"0.05\" is not a sum; write N USD" },
	{ "routes: [{name: r, price_cap: 1 USD/day, targets: [a/x]}]", 2, 31, "is not a sum" },
	{ "routes: [{name: r, patience: 2d, targets: [a/x]}]", 2, 30, "allowed: 0s to 1d" },
	{ "routes: [{name: r, targets: a/x}]", 2, 29, "routes[0].targets: must be a list" },
	{ "routes: [{name: r, targets: [[a/x]]}]", 2, 30,
		"routes[0].targets[0]: must be one value or a group" },
	{ "routes: [{name: r, targets: [a/x, {weight: 3}]}]", 2, 35,
		"routes[0].targets[1].target: is required" },
	{ "routes: [{name: r, targets: [{target: x, weight: 3}]}]", 2, 39,
		"routes[0].targets[0].target: no model \"x\"" },
	{ "routes: [{name: r, targets: [{target: a/x, weight: 0}]}]", 2, 52, "from 1 to 1000000" },
	{ "routes: [{name: r, targets: [{target: a/x, model: m}]}]", 2, 44,
		"routes[0].targets[0]: unknown key \"model\"; allowed: target, weight" },
	{ "routes: [{name: r, targets: []}]", 2, 29, "has 0; give 1 to 16 targets" },
	{ "routes: [{name: r, targets: [\"a\\x01\"]}]", 2, 30, "holds a control character" },
};

static void every_error_has_its_place(void **state)
{
	struct fixture *f = *state;
	char text[1024], where[160];
	size_t good = 0;

	if (!has("openai"))
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
		int r;

		snprintf(text, sizeof(text), TWO_PROVIDERS "%s\n", malformed[i].text);
		r = load(f, text);
		snprintf(where, sizeof(where), "%s:%u:%u: ", f->path, malformed[i].line,
			malformed[i].column);
		if (r != CONFIG_E_INVALID || !strstr(error_text(f), where) ||
			!strstr(error_text(f), malformed[i].fragment) ||
			strchr(error_text(f), '\n')[1] != '\0')
			print_error("row %zu: %d for:\n%s\nwanted only %s%s\ngot %s", i, r, text,
				where, malformed[i].fragment, error_text(f));
		else
			good++;
		assert_null(f->c);
	}
	assert_int_equal(good, ARRAY_SIZE(malformed));
}

static void provider_errors_have_their_place(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *text;
		unsigned column;
		const char *fragment;
	} rows[] = {
		{ "tokens: held", 36,
			"providers[0].tokens: \"held\" is not allowed; write actual" },
		{ "breaker: on", 37, "providers[0].breaker: \"on\" is not a preset" },
		{ "breaker: {lease: 0s}", 45,
			"providers[0].breaker.lease: \"0s\" is out of range" },
	};
	char text[256], where[160];

	if (!has("openai"))
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		snprintf(text, sizeof(text), "providers: [{name: openai, %s}]\n", rows[i].text);
		assert_int_equal(load(f, text), CONFIG_E_INVALID);
		snprintf(where, sizeof(where), "%s:1:%u: %s", f->path, rows[i].column,
			rows[i].fragment);
		if (!strstr(error_text(f), where))
			fail_msg("wanted %s\ngot %s", where, error_text(f));
	}
}

static void errors_of_new_keys_come_at_once(void **state)
{
	struct fixture *f = *state;

	if (!has("openai"))
		skip();
	assert_int_equal(load(f,
				 TWO_PROVIDERS
				 "limits: [{user: u, requests: 1, tokens: 2, money: 3, "
				 "concurrency: x, burst: {requests: 0, tokens: 0}}]\n"
				 "templates: {per_user: {money: 4}, per_key: {requests: 5}}\n"
				 "routes: [{name: r, strategy: x, price_cap: 6, targets: [{}]}]\n"),
		CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f), "limits[0].requests: \"1\""));
	assert_non_null(strstr(error_text(f), "limits[0].tokens: \"2\""));
	assert_non_null(strstr(error_text(f), "limits[0].money: \"3\""));
	assert_non_null(strstr(error_text(f), "limits[0].concurrency: \"x\""));
	assert_non_null(strstr(error_text(f), "limits[0].burst.requests: \"0\""));
	assert_non_null(strstr(error_text(f), "limits[0].burst.tokens: \"0\""));
	assert_non_null(strstr(error_text(f), "templates.per_user.money: \"4\""));
	assert_non_null(strstr(error_text(f), "templates.per_key.requests: \"5\""));
	assert_non_null(strstr(error_text(f), "routes[0].strategy: \"x\""));
	assert_non_null(strstr(error_text(f), "routes[0].price_cap: \"6\""));
	assert_non_null(strstr(error_text(f), "routes[0].targets[0].target: is required"));
}

#define CASE(name_) cmocka_unit_test_setup_teardown(name_, fixture_new, fixture_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(every_error_has_its_place),
		CASE(provider_errors_have_their_place),
		CASE(errors_of_new_keys_come_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
