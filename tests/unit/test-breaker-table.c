/* The rows of breakers: names, settings, events, adoption by the next daemon, health. */

#include "shm/breaker.h"

#include <math.h>
#include "shm/breaker_word.h"
#include "tests/unit/breaker-helpers.h"

/* ---- names, settings ---- */

static void names_are_known_and_others_are_not(void **state)
{
	(void)state;
	assert_string_equal(breaker_state_name(BREAKER_HALF_OPEN), "half-open");
	assert_string_equal(breaker_state_name(3), "unknown");
	assert_string_equal(breaker_why_name(BREAKER_WHY_MISSED), "missed");
	assert_string_equal(breaker_why_name(BREAKER_WHY_NONE), "none");
	assert_string_equal(breaker_why_name(UINT64_MAX), "unknown");
	assert_string_equal(breaker_preset_name(BREAKER_PRODUCTION), "production");
	assert_string_equal(breaker_preset_name(BREAKER_AGGRESSIVE), "aggressive");
	assert_string_equal(breaker_preset_name(BREAKER_CONSERVATIVE), "conservative");
	assert_null(breaker_preset_name(BREAKER_PRESETS));
}

/* The deviations and times that the original's users know. */
static void presets_have_the_originals_meaning(void **state)
{
	static const unsigned z[] = { 250, 150, 300 }, timeout_s[] = { 60, 10, 120 };

	(void)state;
	for (unsigned i = 0; i < BREAKER_PRESETS; i++) {
		struct breaker_settings s = breaker_preset((enum breaker_preset)i);

		assert_int_equal(s.z_percent, z[i]);
		assert_int_equal(s.cap_ms, timeout_s[i] * 1000);
	}
	assert_int_equal(breaker_preset((enum breaker_preset)99).z_percent, 250);
}

static void settings_come_back(void **state)
{
	struct breaker_settings s = { .run = 7,
		.ratio_percent = 33,
		.calls = 1234,
		.window_s = 4321,
		.probes = 3,
		.need = 200,
		.lease_ms = 70000,
		.base_ms = 1500,
		.cap_ms = 3000000,
		.z_percent = 275 };
	struct kit k = kit_production();
	struct breaker_settings got;

	(void)state;
	breaker_configure(&k.r, ROW, &s);
	got = kit_view(&k).settings;
	assert_int_equal(got.run, 7);
	assert_int_equal(got.ratio_percent, 33);
	assert_int_equal(got.calls, 1234);
	assert_int_equal(got.window_s, 4321);
	assert_int_equal(got.probes, 3);
	assert_int_equal(got.need, 200);
	assert_int_equal(got.lease_ms, 70000);
	assert_int_equal(got.base_ms, 1500);
	assert_int_equal(got.cap_ms, 3000000);
	assert_int_equal(got.z_percent, 275);
	assert_true(sizeof(struct layout_breaker) <= 256);
	kit_close(&k);
}

static void new_target_starts_anew(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_AGGRESSIVE);
	struct kit k = kit_production();
	struct breaker_ticket a;
	struct breaker_view v;

	(void)state;
	for (int i = 0; i < 100; i++)
		kit_call(&k, BREAKER_OK, 300 * MS);
	kit_open_and_wait(&k);
	a = kit_probe(&k, 1);
	breaker_init(&k.r, ROW, &s);
	breaker_init(&k.r, UINT32_MAX, &s);
	breaker_configure(&k.r, UINT32_MAX, &s);
	v = kit_view(&k);
	assert_int_equal(v.state, BREAKER_CLOSED);
	assert_int_equal(v.requests + v.errors + v.transitions + v.mean_us + v.p99_us, 0);
	assert_true(v.baseline_us <= 0);
	assert_int_equal(v.settings.cap_ms, 10000);
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	kit_report(&k, &a, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

static void configure_keeps_state(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_AGGRESSIVE);
	struct kit k = kit_production();

	(void)state;
	kit_failed(&k);
	kit_failed(&k);
	breaker_configure(&k.r, ROW, &s);
	assert_int_equal(kit_view(&k).requests, 2);
	kit_failed(&k); /* the third, of three that are now enough */
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	breaker_configure(&k.r, ROW, &s);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	kit_close(&k);
}

/* ---- events, adoption, health ---- */

static void every_transition_is_an_event(void **state)
{
	static const struct {
		uint8_t from, to, why;
	} want[] = {
		{ BREAKER_CLOSED, BREAKER_OPEN, BREAKER_WHY_RUN },
		{ BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_WHY_TIMER },
		{ BREAKER_HALF_OPEN, BREAKER_OPEN, BREAKER_WHY_PROBE },
		{ BREAKER_OPEN, BREAKER_HALF_OPEN, BREAKER_WHY_TIMER },
		{ BREAKER_HALF_OPEN, BREAKER_CLOSED, BREAKER_WHY_RECOVERED },
		{ BREAKER_CLOSED, BREAKER_OPEN, BREAKER_WHY_HAND },
		{ BREAKER_OPEN, BREAKER_CLOSED, BREAKER_WHY_HAND },
	};
	struct kit k = kit_production();
	uint64_t ticket = 0;
	struct event e;

	(void)state;
	kit_open_and_wait(&k);
	kit_call(&k, BREAKER_FAILED, 0);
	k.now += kit_view(&k).retry_ns;
	kit_call(&k, BREAKER_OK, 0);
	kit_call(&k, BREAKER_OK, 0);
	breaker_force_open(&k.r, ROW, k.now);
	breaker_force_close(&k.r, ROW, k.now);
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		e = kit_event(&k, &ticket);
		assert_int_equal(e.from, want[i].from);
		assert_int_equal(e.to, want[i].to);
		assert_int_equal(e.why, want[i].why);
		assert_true((e.value > 0) == (e.to == BREAKER_OPEN && e.why != BREAKER_WHY_HAND));
	}
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	breaker_tell(&k.r, k.now + 10 * SECOND);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	assert_int_equal(kit_view(&k).transitions, ARRAY_SIZE(want));
	assert_int_equal(kit_view(&k).changed_ns, k.now);
	kit_close(&k);
}

/* The writer died after its transition and before it told. */
static void missed_transitions_are_told_once(void **state)
{
	struct kit k = kit_production();
	uint64_t ticket;
	struct event e;

	(void)state;
	kit_open_and_wait(&k);
	k.b->told -= 1;
	ticket = event_head(&k.r);
	assert_int_equal(kit_view(&k).transitions, 1);
	k.now = k.b->changed_ns + SECOND - 1;
	breaker_tell(&k.r, k.now); /* it may still be about to */
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	k.now++;
	breaker_tell(&k.r, k.now);
	breaker_tell(&k.r, k.now);
	e = kit_event(&k, &ticket);
	assert_int_equal(e.to, BREAKER_OPEN);
	assert_int_equal(e.why, BREAKER_WHY_MISSED);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	/* It was only slow, after all. */
	k.b->told += 1;
	assert_int_equal(kit_view(&k).transitions, 1);
	breaker_tell(&k.r, k.now);
	assert_int_equal(event_next(&k.r, &ticket, &e), EVENT_E_NONE);
	assert_int_equal(kit_view(&k).transitions, 1);
	breaker_force_close(&k.r, ROW, k.now);
	assert_int_equal(kit_view(&k).transitions, 2);
	kit_close(&k);
}

static void generations_wrap(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 70000; i++) {
		breaker_force_open(&k.r, ROW, k.now);
		breaker_force_close(&k.r, ROW, k.now);
	}
	assert_int_equal(kit_view(&k).transitions, 140000);
	breaker_tell(&k.r, k.now + 10 * SECOND);
	assert_int_equal(kit_view(&k).transitions, 140000);
	kit_close(&k);
}

static void adoption_frees_what_is_not_live(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a;

	(void)state;
	kit_open_and_wait(&k);
	a = kit_probe(&k, 1);
	k.b->probe[1] = 0x123456;
	k.b->changed_ns = k.now + 1000 * SECOND;
	breaker_adopt(&k.r, k.now);
	assert_int_equal(k.b->probe[1], 0);
	assert_int_equal(k.b->changed_ns, k.now);
	assert_int_equal(k.b->probe[a.slot], a.word);
	kit_report(&k, &a, BREAKER_FAILED, 0);
	k.b->probe[0] = 99;
	breaker_adopt(&k.r, k.now);
	assert_int_equal(k.b->probe[0], 0);
	kit_close(&k);
}

static void health_is_what_happened(void **state)
{
	struct kit k = kit_production();
	struct breaker_view v;

	(void)state;
	for (unsigned i = 1; i <= 100; i++) {
		k.now += 100 * MS;
		if (i % 10 == 0)
			kit_failed(&k);
		else
			kit_call(&k, BREAKER_OK, i * 10 * MS);
	}
	v = kit_view(&k);
	assert_int_equal(v.requests, 100);
	assert_int_equal(v.errors, 10);
	assert_true(fabs(v.error_ratio - 0.1) < 1e-9);
	assert_int_equal(v.mean_us, 500000);
	assert_in_range(v.p50_us, 460000, 540000);
	assert_in_range(v.p99_us, 920000, 1050000);
	assert_int_equal(v.window_ok, 90);
	assert_int_equal(v.window_bad, 10);
	assert_true(fabsf(breaker_error_ratio(&k.r, ROW, k.now) - 10.0f / 101) < 1e-6f);
	assert_true(breaker_error_ratio(&k.r, UINT32_MAX, k.now) <= 0);
	assert_false(breaker_view(&k.r, UINT32_MAX, k.now, &v));
	kit_close(&k);
}

static void row_that_is_none_lets_pass(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns = 9;

	(void)state;
	assert_int_equal(
		breaker_allow(&k.r, KIT_TARGETS, kit_owner(1), k.now, 0, &ticket, &wait_ns),
		BREAKER_PASS);
	assert_int_equal(wait_ns, 0);
	kit_report(&k, &ticket, BREAKER_FAILED, 0);
	assert_int_equal(breaker_check(&k.r, KIT_TARGETS, k.now, &wait_ns), BREAKER_PASS);
	kit_close(&k);
}

/* A row that nobody configured: zeroes. */
static void unconfigured_row_never_opens(void **state)
{
	struct kit k = kit_open();

	(void)state;
	for (int i = 0; i < 1000; i++)
		kit_failed(&k);
	assert_int_equal(kit_view(&k).errors, 1000);
	kit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_are_known_and_others_are_not),
		cmocka_unit_test(presets_have_the_originals_meaning),
		cmocka_unit_test(settings_come_back),
		cmocka_unit_test(new_target_starts_anew),
		cmocka_unit_test(configure_keeps_state),
		cmocka_unit_test(every_transition_is_an_event),
		cmocka_unit_test(missed_transitions_are_told_once),
		cmocka_unit_test(generations_wrap),
		cmocka_unit_test(adoption_frees_what_is_not_live),
		cmocka_unit_test(health_is_what_happened),
		cmocka_unit_test(row_that_is_none_lets_pass),
		cmocka_unit_test(unconfigured_row_never_opens),
	};

	return cmocka_run_group_tests_name("breaker-table", tests, NULL, NULL);
}
