/* Limits, templates and the labels of keys in a configuration. */

#include "shm/layout.h"
#include "tests/unit/config-fixture.h"

#define DAY (UINT64_C(86400) * NSEC_PER_SEC)
#define MINUTE (60 * NSEC_PER_SEC)
#define USD NSEC_PER_SEC

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
		snprintf(text, sizeof(text), TWO_PROVIDERS "limits: [{%s}]\n", valid[i].text);
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
		"providers: []\nlimits:\n- {user: u, requests: 60/min, tokens: 1k/min, "
		"concurrency: "
		"3, money: $2/month, burst: {tokens: 2k, requests: 9}}\n- {user: v, requests: "
		"1/s}\n");
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
		TWO_PROVIDERS
		"templates: {per_user: {requests: 1/s, tokens: 5k/min, money: 1 USD/day, burst: "
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
	load_good(f, TWO_PROVIDERS "templates: {per_provider: {tokens: 1/s}}\n");
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
		"providers:\n- {name: openai}\n- {name: a, family: openai, key: {file: '/x y/z "
		"k'}}\n"
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

#define CASE(name_) cmocka_unit_test_setup_teardown(name_, fixture_new, fixture_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(limits_that_cannot_apply_together_are_refused),
		CASE(two_long_names_are_too_long),
		CASE(every_form_of_a_limit_is_taken_and_printed),
		CASE(an_entry_with_several_resources_is_several_limits),
		CASE(templates_are_taken_and_printed),
		CASE(templates_follow_their_providers),
		CASE(every_template_has_its_scope),
		CASE(keys_have_labels),
		CASE(a_relative_key_file_is_no_fault_of_limits),
		CASE(amounts_and_money_are_exact),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
