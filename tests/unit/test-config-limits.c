#include "tests/unit/config-fixture.h"

#include "shm/layout.h"
#include "shm/target.h"

#define DAY (UINT64_C(86400) * NSEC_PER_SEC)
#define MINUTE (60 * NSEC_PER_SEC)
#define USD NSEC_PER_SEC

/* Two providers whose keys have labels; the second charges at submission. */
#define P \
	"providers: [{name: a, family: openai, key: {env: KEY_A}}, {name: b, family: openai, " \
	"key: {credential: cb}, tokens: reserve}]\n"

/* ---- errors ---- */

/* Each after the line of P. */
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
		"\"per_key\" is not a preset; allowed: per_provider, per_model, per_user, unlimited" },
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
		"templates: unknown key \"per_users\"; allowed: per_user, per_model, per_provider" },
	{ "templates: {per_user: none}", 2, 23,
		"templates.per_user: \"none\" is not allowed; write default, unlimited or a group" },
	{ "templates: {per_key: none}", 2, 22,
		"\"none\" is not allowed; write unlimited or a group" },
	{ "templates: {per_key: default}", 2, 22,
		"templates.per_key: has no default; per_user, per_model and per_provider have one" },
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
		"models[0].capabilities[1]: \"audio\" is not a capability; allowed: tools, vision" },
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
		"routes[0].strategy: \"fast\" is not a strategy; allowed: balanced, cost, latency" },
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

		snprintf(text, sizeof(text), P "%s\n", malformed[i].text);
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
	assert_int_equal(
		load(f,
			P "limits: [{user: u, requests: 1, tokens: 2, money: 3, "
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

/* A set of limits has 16 places, and a hold 12. */
static void limits_that_cannot_apply_together_are_refused(void **state)
{
	struct fixture *f = *state;
	static const char *const holding = "tokens: 1/s, input_tokens: 1/s, output_tokens: 1/s, "
					   "concurrency: 1, money: $1/day";
	char text[1024];

	/* 2 x 5 + 2 hold, and 4 rates */
	snprintf(text, sizeof(text),
		"providers: []\nlimits: [{user: u, %s}, {user: v, %s, requests: 1/s}]\n"
		"templates: {per_model: {%s, requests: 1/s}, per_user: {requests: 1/s}, "
		"per_key: {requests: 1/s, concurrency: 1}, "
		"per_user_model: {requests: 1/s, concurrency: 1}}\n",
		holding, holding, holding);
	load_good(f, text);
	assert_int_equal(f->c->limit_count, 11);
	assert_int_equal(f->c->template_count, 11);
	/* one more that holds */
	snprintf(text, sizeof(text),
		"providers: []\nlimits: [{user: u, %s}]\n"
		"templates: {per_model: {%s},\n"
		"  per_key: {concurrency: 1, money: $1/day, tokens: 7/s, output_tokens: 8/s}}\n",
		holding, holding);
	assert_int_equal(load(f, text), CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f),
		":4:26: templates.per_key.concurrency: is one too many: 13 limits and "));
	assert_null(strstr(error_text(f), "14 limits"));
	/* one more of them all */
	assert_int_equal(load(f,
				 "providers: []\ntemplates:\n"
				 "  per_user: {requests: 1/s, concurrency: 1}\n"
				 "  per_model: {requests: 1/s, concurrency: 1}\n"
				 "  per_provider: {requests: 1/s, concurrency: 1}\n"
				 "  per_key: {requests: 1/s, concurrency: 1}\n"
				 "  per_user_model: {requests: 1/s, concurrency: 1}\n"
				 "  per_user_provider: {requests: 1/s, concurrency: 1}\n"
				 "  per_user_key: {requests: 1/s, concurrency: 1}\n"
				 "  per_model_provider: {requests: 1/s, concurrency: 1}\n"
				 "  per_model_key: {requests: 1/s}\n"),
		CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f),
		":11:29: templates.per_model_key.requests: is one too many: 17 limits and "
		"templates of different scope or resource could apply to one call, 8 of them"));
}

static void two_long_names_are_too_long(void **state)
{
	struct fixture *f = *state;
	char name[97], text[512];

	memset(name, 'x', sizeof(name) - 1);
	name[96] = '\0';
	/* 96 + 62 and what is between are the 159 that a row has room for. */
	snprintf(text, sizeof(text), "providers: []\nlimits: [{user: %s, model: %.62s, %s}]\n",
		name, name, "requests: 1/s");
	load_good(f, text);
	assert_int_equal(strlen(f->c->limits[0].name), LAYOUT_NAME_MAX - 1);
	snprintf(text, sizeof(text), "providers: []\nlimits: [{user: %s, model: %.63s, %s}]\n",
		name, name, "requests: 1/s");
	assert_int_equal(load(f, text), CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f), ":2:10: limits[0]: the two names have too many"));
}

/* ---- values ---- */

static const struct {
	const char *text;
	uint64_t scope;
	const char *name;
	enum bucket_resource resource;
	enum bucket_kind kind;
	uint64_t limit, window_ns, burst;
	bool automatic;
} valid[] = {
	{ "user: u, requests: 90/min", 1, "u", BUCKET_REQUESTS, BUCKET_RATE, 90, MINUTE, 2, false },
	{ "user: u, tokens: 400k/min", 1, "u", BUCKET_TOKENS, BUCKET_HELD, 400000, MINUTE, 400000,
		false },
	{ "model: m, input_tokens: 2M/s", 2, "m", BUCKET_INPUT_TOKENS, BUCKET_HELD, 2000000,
		NSEC_PER_SEC, 120000000, false },
	{ "model: m, output_tokens: 100k/day, burst: 5k", 2, "m", BUCKET_OUTPUT_TOKENS, BUCKET_HELD,
		100000, DAY, 5000, false },
	{ "model: m, output_tokens: 100k/day", 2, "m", BUCKET_OUTPUT_TOKENS, BUCKET_HELD, 100000,
		DAY, 100000, false },
	{ "model: m, tokens: 1000M/s", 2, "m", BUCKET_TOKENS, BUCKET_HELD, 1000000000, NSEC_PER_SEC,
		UINT32_MAX - 1, false },
	{ "provider: b, tokens: 1000M/s", 4, "b", BUCKET_TOKENS, BUCKET_RATE, 1000000000,
		NSEC_PER_SEC, UINT64_C(60000000000), false },
	{ "provider: a, tokens: 2/s, burst: 4294967294", 4, "a", BUCKET_TOKENS, BUCKET_HELD, 2,
		NSEC_PER_SEC, 4294967294, false },
	{ "user: u, provider: b, tokens: 1/s", 5,
		"u\x1f"
		"b",
		BUCKET_TOKENS, BUCKET_RATE, 1, NSEC_PER_SEC, 60, false },
	{ "model: m, user: u, requests: 3/h, burst: {requests: 7}", 3, "u\x1fm", BUCKET_REQUESTS,
		BUCKET_RATE, 3, 60 * MINUTE, 7, false },
	{ "key: KEY_A, model: m, concurrency: 4294967294", 10, "m\x1fKEY_A", BUCKET_CONCURRENCY,
		BUCKET_GAUGE, 4294967294, 0, 4294967294, false },
	{ "key: cb, tokens: 1/s", 8, "cb", BUCKET_TOKENS, BUCKET_HELD, 1, NSEC_PER_SEC, 60, false },
	{ "provider: a, key: KEY_A, requests: 5/s auto, burst: 1", 12, "a\x1fKEY_A",
		BUCKET_REQUESTS, BUCKET_RATE, 5, NSEC_PER_SEC, 1, true },
	{ "provider: a, requests: auto", 4, "a", BUCKET_REQUESTS, BUCKET_RATE, 10000, NSEC_PER_SEC,
		10000, true },
	{ "model: m, tokens: auto", 2, "m", BUCKET_TOKENS, BUCKET_HELD, 10000000, MINUTE, 10000000,
		true },
	{ "user: u, money: 5 USD/day", 1, "u", BUCKET_MONEY, BUCKET_WINDOW, 5 * USD, DAY, 5 * USD,
		false },
	{ "user: u, money: $4503599.627370496/month", 1, "u", BUCKET_MONEY, BUCKET_WINDOW,
		BUCKET_MONEY_MAX, BUCKET_WINDOW_MONTH, BUCKET_MONEY_MAX, false },
	{ "user: u, money: 0.000000001 USD/day", 1, "u", BUCKET_MONEY, BUCKET_WINDOW, 1, DAY, 1,
		false },
	{ "user: u, preset: per_provider", 1, "u", BUCKET_REQUESTS, BUCKET_RATE, 100, NSEC_PER_SEC,
		100, false },
	{ "user: u, preset: per_model, burst: 20", 1, "u", BUCKET_REQUESTS, BUCKET_RATE, 10,
		NSEC_PER_SEC, 20, false },
	{ "provider: a, preset: per_user", 4, "a", BUCKET_REQUESTS, BUCKET_RATE, 1, NSEC_PER_SEC, 1,
		false },
	{ "user: u, preset: unlimited", 1, "u", BUCKET_REQUESTS, BUCKET_RATE, 1000000000,
		NSEC_PER_SEC, 1000000000, false },
};

static void expect_row(const struct config_limit *l, size_t i)
{
	if (l->scope != valid[i].scope || strcmp(l->name, valid[i].name) != 0 ||
		l->resource != valid[i].resource || l->kind != valid[i].kind ||
		l->limit != valid[i].limit || l->window_ns != valid[i].window_ns ||
		l->burst != valid[i].burst || l->automatic != valid[i].automatic)
		fail_msg("%s: scope %llu name %s resource %d kind %d limit %llu window %llu burst "
			 "%llu automatic %d",
			valid[i].text, (unsigned long long)l->scope, l->name, l->resource, l->kind,
			(unsigned long long)l->limit, (unsigned long long)l->window_ns,
			(unsigned long long)l->burst, l->automatic);
}

static void every_form_of_a_limit_is_taken_and_printed(void **state)
{
	struct fixture *f = *state;
	char text[512];

	if (!has("openai"))
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(valid); i++) {
		snprintf(text, sizeof(text), P "limits: [{%s}]\n", valid[i].text);
		load_good(f, text);
		assert_int_equal(f->c->limit_count, 1);
		expect_row(f->c->limits, i);
		round_trip(f);
		expect_row(f->c->limits, i);
	}
}

static void an_entry_with_several_resources_is_several_limits(void **state)
{
	struct fixture *f = *state;
	const struct config_limit *l;

	load_good(f,
		"providers: []\nlimits:\n- {user: u, requests: 60/min, tokens: 1k/min, concurrency: "
		"3, money: $2/month, burst: {tokens: 2k, requests: 9}}\n- {user: v, requests: 1/s}\n");
	l = f->c->limits;
	assert_int_equal(f->c->limit_count, 5);
	assert_int_equal(l[0].burst, 9);
	assert_int_equal(l[1].resource, BUCKET_TOKENS);
	assert_int_equal(l[1].burst, 2000);
	assert_int_equal(l[2].resource, BUCKET_CONCURRENCY);
	assert_int_equal(l[3].resource, BUCKET_MONEY);
	for (unsigned i = 0; i < 4; i++)
		assert_string_equal(l[i].name, "u");
	assert_string_equal(l[4].name, "v");
	round_trip(f);
	assert_int_equal(f->c->limit_count, 5);
	assert_int_equal(f->c->limits[1].burst, 2000);
}

static void templates_are_taken_and_printed(void **state)
{
	struct fixture *f = *state;

	if (!has("openai"))
		skip();
	load_good(f,
		P "templates: {per_user: {requests: 1/s, tokens: 5k/min, money: 1 USD/day, burst: "
		  "{tokens: 7}}, per_model: default, per_provider: default, per_key: {concurrency: "
		  "100}, per_user_model: unlimited, per_model_provider: {preset: per_user, burst: "
		  "4}}\n");
	for (unsigned pass = 0; pass < 2; pass++) {
		const struct config_limit *t = f->c->templates;

		assert_int_equal(f->c->template_count, 7);
		assert_int_equal(f->c->limit_count, 0);
		for (unsigned i = 0; i < 7; i++)
			assert_null(t[i].name);
		assert_int_equal(t[0].scope, BUCKET_SCOPE_USER);
		assert_int_equal(t[0].burst, 1);
		assert_int_equal(t[1].kind, BUCKET_HELD);
		assert_int_equal(t[1].burst, 7);
		assert_int_equal(t[2].kind, BUCKET_WINDOW);
		assert_int_equal(t[2].limit, USD);
		assert_int_equal(t[3].scope, BUCKET_SCOPE_MODEL);
		assert_int_equal(t[3].limit, 10);
		assert_int_equal(t[4].scope, BUCKET_SCOPE_PROVIDER);
		assert_int_equal(t[4].limit, 100);
		assert_int_equal(t[5].scope, BUCKET_SCOPE_KEY);
		assert_int_equal(t[5].limit, 100);
		assert_int_equal(t[5].kind, BUCKET_GAUGE);
		assert_int_equal(t[6].scope, BUCKET_SCOPE_MODEL | BUCKET_SCOPE_PROVIDER);
		assert_int_equal(t[6].burst, 4);
		round_trip(f);
	}
}

/* A template of providers reserves when all of them do. */
static void templates_follow_their_providers(void **state)
{
	struct fixture *f = *state;
	static const char all[] = "providers: [{name: openai, tokens: reserve}]\n"
				  "templates: {per_provider: {tokens: 1/s}, per_user: {tokens: "
				  "1/s}, per_user_provider: {tokens: 1/s}}\n";

	if (!has("openai"))
		skip();
	load_good(f, P "templates: {per_provider: {tokens: 1/s}}\n");
	assert_int_equal(f->c->templates[0].kind, BUCKET_HELD);
	load_good(f, all);
	assert_int_equal(f->c->templates[0].scope, BUCKET_SCOPE_USER);
	assert_int_equal(f->c->templates[0].kind, BUCKET_HELD);
	assert_int_equal(f->c->templates[1].kind, BUCKET_RATE);
	assert_int_equal(f->c->templates[2].kind, BUCKET_RATE);
	load_good(f, "providers: []\ntemplates: {per_provider: {tokens: 1/s}}\n");
	assert_int_equal(f->c->templates[0].kind, BUCKET_HELD);
}

static void every_template_has_its_scope(void **state)
{
	struct fixture *f = *state;
	char text[128];

	for (size_t i = 0; i < CONFIG_TEMPLATE_KEYS; i++) {
		struct buffer want = BUFFER_NULL;

		snprintf(text, sizeof(text), "providers: []\ntemplates: {%s: {concurrency: 1}}\n",
			config_template_keys[i].key);
		load_good(f, text);
		assert_int_equal(f->c->template_count, 1);
		assert_int_equal(f->c->templates[0].scope, config_template_keys[i].scope);
		/* "per_user_model" is what "user+model" is called here. */
		assert_int_equal(
			buffer_printf(&want, "per_%s", bucket_scope_name(f->c->templates[0].scope)),
			0);
		assert_int_equal(buffer_append(&want, "", 1), 0);
		if (strchr(buffer_head(&want), '+'))
			*strchr(buffer_head(&want), '+') = '_';
		assert_string_equal(buffer_head(&want), config_template_keys[i].key);
		buffer_deinit(&want);
		round_trip(f);
		assert_int_equal(f->c->template_count, 1);
	}
}

/* ---- keys ---- */

static void keys_have_labels(void **state)
{
	struct fixture *f = *state;
	char longest[256], text[1024];
	const struct config_provider *p;

	if (!has("openai"))
		skip();
	memset(longest, 'K', 255);
	longest[255] = '\0';
	snprintf(text, sizeof(text),
		"providers:\n- {name: openai}\n- {name: a, family: openai, key: {file: '/x y/z k'}}\n"
		"- {name: b, family: openai, key: {credential: c}}\n- {name: ollama}\n"
		"- {name: d, family: openai, key: {env: %s}}\n"
		"- {name: e, family: openai, key: {credential: %.95s\xc3\xa9}}\n"
		"limits: [{key: z k, requests: 1/s}]\n",
		longest, longest);
	load_good(f, text);
	p = f->c->providers;
	assert_true(str_is(config_key_label(&p[0]), "OPENAI_API_KEY"));
	assert_true(str_is(config_key_label(&p[1]), "z k"));
	assert_true(str_is(config_key_label(&p[2]), "c"));
	assert_int_equal(config_key_label(&p[3]).length, 0);
	/* Cut where a name of a limit ends, and not inside a character. */
	assert_int_equal(config_key_label(&p[4]).length, CONFIG_WORD_MAX);
	assert_int_equal(config_key_label(&p[5]).length, 95);
	round_trip(f);
	assert_string_equal(f->c->limits[0].name, "z k");
}

/* A path that is not absolute is an error, and no label of anything. */
static void a_relative_key_file_is_no_fault_of_limits(void **state)
{
	struct fixture *f = *state;

	if (!has("openai"))
		skip();
	assert_int_equal(load(f,
				 "providers: [{name: openai, key: {file: k}}]\n"
				 "limits: [{key: k, requests: 1/s}]\n"),
		CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f), "providers[0].key: file is not an absolute path"));
}

/* ---- breakers ---- */

static void expect_breaker(const struct breaker_settings *a, struct breaker_settings b)
{
	assert_int_equal(a->run, b.run);
	assert_int_equal(a->ratio_percent, b.ratio_percent);
	assert_int_equal(a->calls, b.calls);
	assert_int_equal(a->window_s, b.window_s);
	assert_int_equal(a->probes, b.probes);
	assert_int_equal(a->need, b.need);
	assert_int_equal(a->lease_ms, b.lease_ms);
	assert_int_equal(a->base_ms, b.base_ms);
	assert_int_equal(a->cap_ms, b.cap_ms);
	assert_int_equal(a->z_percent, b.z_percent);
}

/* What differs from a preset, or from the provider's, in one setting is not taken for it. */
static void every_setting_of_a_breaker_is_printed(void **state)
{
	struct fixture *f = *state;
	static const char *const settings[] = { "failures: 9", "error_ratio: 9%", "calls: 9",
		"window: 9s", "probes: 4", "successes: 9", "lease: 9s", "backoff: 9s",
		"backoff_max: 99s", "deviation: 9" };
	char text[256];

	if (!has("openai"))
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(settings); i++) {
		struct breaker_settings changed;

		snprintf(text, sizeof(text),
			"providers: [{name: openai, breaker: {%s}}]\n"
			"models: [{name: m, breaker: production}, {name: n}]\n",
			settings[i]);
		load_good(f, text);
		changed = f->c->providers[0].breaker;
		round_trip(f);
		expect_breaker(&f->c->providers[0].breaker, changed);
		expect_breaker(&f->c->models[0].breaker, breaker_preset(BREAKER_PRODUCTION));
		expect_breaker(&f->c->models[1].breaker, changed);
	}
}

static void breakers_have_presets_and_groups(void **state)
{
	struct fixture *f = *state;
	struct breaker_settings want = breaker_preset(BREAKER_AGGRESSIVE);

	if (!has("openai"))
		skip();
	load_good(f,
		"providers:\n- {name: openai}\n- {name: a, family: openai, breaker: aggressive}\n"
		"- {name: b, family: openai, breaker: off}\n"
		"- {name: c, family: openai, breaker: {preset: aggressive, failures: 7}}\n"
		"- {name: d, family: openai, breaker: {failures: 0, error_ratio: 100%, calls: 65535, "
		"window: 1h, probes: 4, successes: 255, lease: 1d, backoff: 100ms, backoff_max: "
		"1d, deviation: 0.75}}\n"
		"models:\n- {name: m, provider: c}\n- {name: n, provider: c, breaker: conservative}\n"
		"- {name: o, provider: c, breaker: {probes: 1}}\n"
		"- {name: p, provider: c, breaker: {preset: conservative, probes: 4}}\n");
	for (unsigned pass = 0; pass < 2; pass++) {
		const struct config_provider *p = f->c->providers;
		const struct config_model *m = f->c->models;

		expect_breaker(&p[0].breaker, breaker_preset(BREAKER_PRODUCTION));
		expect_breaker(&p[1].breaker, breaker_preset(BREAKER_AGGRESSIVE));
		want = breaker_preset(BREAKER_PRODUCTION);
		want.run = want.ratio_percent = 0;
		want.z_percent = 0;
		expect_breaker(&p[2].breaker, want);
		want = breaker_preset(BREAKER_AGGRESSIVE);
		want.run = 7;
		expect_breaker(&p[3].breaker, want);
		expect_breaker(&m[0].breaker, want);
		expect_breaker(&p[4].breaker,
			(struct breaker_settings){
				0, 100, 65535, 3600, 4, 255, 86400000, 100, 86400000, 75 });
		expect_breaker(&m[1].breaker, breaker_preset(BREAKER_CONSERVATIVE));
		want.probes = 1;
		expect_breaker(&m[2].breaker, want);
		want = breaker_preset(BREAKER_CONSERVATIVE);
		want.probes = 4;
		expect_breaker(&m[3].breaker, want);
		round_trip(f);
	}
}

static void providers_of_the_environment_have_a_breaker(void **state)
{
	struct fixture *f = *state;

	if (!has("openai"))
		skip();
	setenv("OPENAI_API_KEY", "sk-canary", 1);
	load_good(f, "");
	expect_breaker(&f->c->providers[0].breaker, breaker_preset(BREAKER_PRODUCTION));
	assert_false(f->c->providers[0].reserve);
}

/* The table in the manual: key, then aggressive, production and conservative. */
static void expect_manual(
	const char *page, const char *key, const char *a, const char *p, const char *c)
{
	char row[256];

	snprintf(row, sizeof(row), "\n|  *%s*\n:  %s\n:  %s\n:  %s\n", key, a, p, c);
	if (!strstr(page, row))
		fail_msg("the manual does not say:%s", row);
}

static void expect_manual_number(
	const char *page, const char *key, const char *unit, unsigned a, unsigned p, unsigned c)
{
	char text[3][32];

	snprintf(text[0], sizeof(text[0]), "%u%s", a, unit);
	snprintf(text[1], sizeof(text[1]), "%u%s", p, unit);
	snprintf(text[2], sizeof(text[2]), "%u%s", c, unit);
	expect_manual(page, key, text[0], text[1], text[2]);
}

static void expect_manual_decimal(const char *page, const char *key, double a, double p, double c)
{
	char text[3][32];

	snprintf(text[0], sizeof(text[0]), "%g", a);
	snprintf(text[1], sizeof(text[1]), "%g", p);
	snprintf(text[2], sizeof(text[2]), "%g", c);
	expect_manual(page, key, text[0], text[1], text[2]);
}

static void the_manual_knows_the_presets(void **state)
{
	struct breaker_settings a = breaker_preset(BREAKER_AGGRESSIVE);
	struct breaker_settings p = breaker_preset(BREAKER_PRODUCTION);
	struct breaker_settings c = breaker_preset(BREAKER_CONSERVATIVE);
	char path[PATHS_MAX], page[65536];
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "%s/docs/man/llmkitd.yaml.5.scd", getenv("PROJECT_SOURCE"));
	file = fopen(path, "re");
	assert_non_null(file);
	page[fread(page, 1, sizeof(page) - 1, file)] = '\0';
	fclose(file);
	expect_manual_number(page, "failures", "", a.run, p.run, c.run);
	expect_manual_number(
		page, "error_ratio", "%", a.ratio_percent, p.ratio_percent, c.ratio_percent);
	expect_manual_number(page, "calls", "", a.calls, p.calls, c.calls);
	expect_manual_number(page, "window", "s", a.window_s, p.window_s, c.window_s);
	expect_manual_number(page, "probes", "", a.probes, p.probes, c.probes);
	expect_manual_number(page, "successes", "", a.need, p.need, c.need);
	expect_manual_number(
		page, "lease", "s", a.lease_ms / 1000, p.lease_ms / 1000, c.lease_ms / 1000);
	expect_manual_number(
		page, "backoff", "s", a.base_ms / 1000, p.base_ms / 1000, c.base_ms / 1000);
	expect_manual_number(
		page, "backoff_max", "s", a.cap_ms / 1000, p.cap_ms / 1000, c.cap_ms / 1000);
	expect_manual_decimal(
		page, "deviation", a.z_percent / 100.0, p.z_percent / 100.0, c.z_percent / 100.0);
}

/* ---- models, routes, tables ---- */

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
	assert_int_equal((1u << CONFIG_CAPABILITIES) - 1, TARGET_CAPABILITIES);
	assert_string_equal(config_capabilities[__builtin_ctz(TARGET_TOOLS)], "tools");
	assert_string_equal(config_capabilities[__builtin_ctz(TARGET_REASONING)], "reasoning");
	assert_string_equal(config_capabilities[__builtin_ctz(TARGET_STREAMING)], "streaming");
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

/* ---- words ---- */

static void amounts_and_money_are_exact(void **state)
{
	static const char *const sums[] = { "0 USD", "1 USD", "0.1 USD", "0.000000001 USD",
		"4503599.627370496 USD", "10.05 USD" };
	char text[CONFIG_TEXT_MAX];
	const char *rest;
	uint64_t n, window;
	unsigned percent;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(sums); i++) {
		rest = config_parse_money(sums[i], &n);
		assert_non_null(rest);
		assert_string_equal(rest, "");
		config_format_money(n, text);
		assert_string_equal(text, sums[i]);
	}
	assert_null(config_parse_money("4503599.627370497 USD", &n));
	assert_null(config_parse_money("1. USD", &n));
	assert_null(config_parse_money(".5 USD", &n));
	assert_null(config_parse_money("$", &n));
	assert_null(config_parse_money("", &n));
	assert_null(config_parse_money("1", &n));
	assert_null(config_parse_money("1000000000000 USD", &n));
	assert_null(config_parse_money("18446744074 USD", &n)); /* wraps to less */
	assert_true(config_parse_money("1.5000000000 USD", &n) && n == UINT64_C(1500000000));
	assert_true(config_parse_money_rate("$1/month", &n, &window));
	assert_true(window == BUCKET_WINDOW_MONTH);
	assert_false(config_parse_money_rate("$1/months", &n, &window));
	assert_false(config_parse_money_rate("$1", &n, &window));
	assert_true(config_parse_amount("1000000M", &n) && n == CONFIG_COUNT_MAX);
	assert_false(config_parse_amount("1000001M", &n));
	assert_true(config_parse_amount("7k", &n) && n == 7000);
	assert_false(config_parse_amount("7K", &n));
	assert_false(config_parse_amount("k", &n));
	assert_false(config_parse_amount("7k ", &n));
	assert_true(config_parse_percent("100%", &percent) && percent == 100);
	assert_false(config_parse_percent("100", &percent));
	assert_false(config_parse_percent("%", &percent));
	assert_int_equal(config_default_token_burst(7, NSEC_PER_SEC), 420);
	assert_int_equal(config_default_token_burst(7, MINUTE), 7);
	assert_int_equal(config_default_token_burst(7, DAY), 7);
}

int main(void)
{
#define CASE(name_) cmocka_unit_test_setup_teardown(name_, fixture_new, fixture_free)
	const struct CMUnitTest tests[] = {
		CASE(every_error_has_its_place),
		CASE(provider_errors_have_their_place),
		CASE(errors_of_new_keys_come_at_once),
		CASE(limits_that_cannot_apply_together_are_refused),
		CASE(two_long_names_are_too_long),
		CASE(every_form_of_a_limit_is_taken_and_printed),
		CASE(an_entry_with_several_resources_is_several_limits),
		CASE(templates_are_taken_and_printed),
		CASE(templates_follow_their_providers),
		CASE(every_template_has_its_scope),
		CASE(keys_have_labels),
		CASE(a_relative_key_file_is_no_fault_of_limits),
		CASE(every_setting_of_a_breaker_is_printed),
		CASE(breakers_have_presets_and_groups),
		CASE(providers_of_the_environment_have_a_breaker),
		CASE(the_manual_knows_the_presets),
		CASE(models_say_what_they_can),
		CASE(routes_say_how_to_choose),
		CASE(every_strategy_has_a_name),
		CASE(tables_are_taken_or_made_to_fit),
		CASE(rows_are_bounded),
		CASE(amounts_and_money_are_exact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
