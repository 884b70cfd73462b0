/* Breakers in a configuration, and the manual's table of their presets. */

#include "tests/unit/config-fixture.h"

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
		"- {name: d, family: openai, breaker: {failures: 0, error_ratio: 100%, calls: "
		"65535, "
		"window: 1h, probes: 4, successes: 255, lease: 1d, backoff: 100ms, backoff_max: "
		"1d, deviation: 0.75}}\n"
		"models:\n- {name: m, provider: c}\n- {name: n, provider: c, breaker: "
		"conservative}\n"
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

#define CASE(name_) cmocka_unit_test_setup_teardown(name_, fixture_new, fixture_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(every_setting_of_a_breaker_is_printed),
		CASE(breakers_have_presets_and_groups),
		CASE(providers_of_the_environment_have_a_breaker),
		CASE(the_manual_knows_the_presets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
