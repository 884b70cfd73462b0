/* When a breaker opens, is probed, closes, ramps up, and obeys its operator. Its probes' leases and
 * deaths: test-breaker-probes.c; its row: test-breaker-table.c; many at once:
 * test-breaker-storm.c. */

#include "shm/breaker.h"

#include "shm/breaker_word.h"
#include "tests/unit/breaker-helpers.h"

/* ---- opening ---- */

static void failures_in_a_row_open(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 4; i++)
		kit_failed(&k);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_failed(&k);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	kit_close(&k);
}

static void one_success_ends_the_row(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 4; i++)
			kit_failed(&k);
		kit_ok(&k);
		k.now += 40 * SECOND; /* so that the ratio does not open */
	}
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

/* The original's "50 % errors", from the least number of calls on. */
static void half_errors_open_at_the_twentieth_call(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 19; i++) {
		k.now += SECOND;
		kit_call(&k, i % 2 ? BREAKER_FAILED : BREAKER_OK, 0);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	}
	kit_call(&k, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	kit_close(&k);
}

static void a_third_of_errors_does_not(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 1000; i++) {
		k.now += SECOND;
		kit_call(&k, i % 3 ? BREAKER_OK : BREAKER_FAILED, 0);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	}
	assert_int_equal(kit_view(&k).requests, 1000);
	assert_int_equal(kit_view(&k).errors, 334);
	assert_int_equal(kit_view(&k).window_ok + kit_view(&k).window_bad, 30);
	kit_close(&k);
}

/* Old errors are not in the window, though nobody cleaned it, whatever the pause. */
static void slices_expire_by_themselves(void **state)
{
	(void)state;
	for (uint64_t pause = 30; pause < 30000; pause = pause * 3 / 2) {
		struct kit k = kit_production();

		for (int i = 0; i < 18; i++)
			kit_call(&k, i % 2 ? BREAKER_FAILED : BREAKER_OK, 0);
		assert_int_equal(kit_view(&k).window_bad, 9);
		k.now += pause * SECOND;
		assert_int_equal(kit_view(&k).window_bad, 0);
		assert_int_equal(kit_view(&k).window_ok, 0);
		kit_call(&k, BREAKER_OK, 0);
		for (int i = 0; i < 3; i++)
			kit_failed(&k);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
		assert_int_equal(kit_view(&k).window_bad, 3);
		assert_int_equal(kit_view(&k).requests, 22);
		assert_int_equal(kit_view(&k).errors, 12);
		kit_close(&k);
	}
}

static void limited_and_neutral_are_nothing_when_closed(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 100; i++) {
		kit_call(&k, BREAKER_LIMITED, 0);
		kit_call(&k, BREAKER_NEUTRAL, 0);
	}
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	assert_int_equal(kit_view(&k).requests, 0);
	kit_close(&k);
}

/* ---- open, half-open ---- */

static void open_rejects_until_its_time(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns, check_ns;

	(void)state;
	for (int i = 0; i < 5; i++)
		kit_failed(&k);
	assert_int_equal(breaker_allow(&k.r, ROW, kit_owner(1), k.now, 0, &ticket, &wait_ns),
		BREAKER_REJECT);
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &check_ns), BREAKER_REJECT);
	assert_int_equal(wait_ns, check_ns);
	assert_in_range(wait_ns, 2500 * MS, 5100 * MS);
	k.now += wait_ns - 1;
	assert_int_equal(kit_allow(&k, 1, &ticket), BREAKER_REJECT);
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &check_ns), BREAKER_REJECT);
	k.now += 1;
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &check_ns), BREAKER_PROBE);
	assert_int_equal(kit_state(&k), BREAKER_OPEN); /* a look changes nothing */
	assert_int_equal(kit_allow(&k, 1, &ticket), BREAKER_PROBE);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	kit_close(&k);
}

/* LLMKit: one failure opens, and it never leaves open by itself. */
static void llmkit_defect_one_failure_opens(void **state)
{
	(void)state;
	for (unsigned preset = 0; preset < BREAKER_PRESETS; preset++) {
		struct kit k = kit_with(breaker_preset((enum breaker_preset)preset));

		kit_failed(&k);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
		kit_close(&k);
	}
}

static void llmkit_defect_open_never_leaves(void **state)
{
	(void)state;
	for (unsigned preset = 0; preset < BREAKER_PRESETS; preset++) {
		struct kit k = kit_with(breaker_preset((enum breaker_preset)preset));
		int calls = 0;

		kit_open_and_wait(&k);
		while (kit_state(&k) != BREAKER_CLOSED && calls++ < 10)
			assert_int_equal(kit_call(&k, BREAKER_OK, 0), BREAKER_PROBE);
		assert_int_equal(kit_state(&k), BREAKER_CLOSED);
		kit_close(&k);
	}
}

/* LLMKit: probes count when they end, so all that wait are let through at once. */
static void llmkit_defect_half_open_lets_the_herd_through(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns;
	int probes = 0;

	(void)state;
	kit_open_and_wait(&k);
	for (uint64_t i = 0; i < 1000; i++)
		probes += kit_allow(&k, i, &ticket) == BREAKER_PROBE;
	assert_int_equal(probes, 2);
	assert_int_equal(kit_view(&k).probes_out, 2);
	assert_int_equal(breaker_check(&k.r, ROW, k.now, &wait_ns), BREAKER_REJECT);
	assert_true(wait_ns > 0);
	kit_close(&k);
}

static void enough_probes_close(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a, b;

	(void)state;
	kit_open_and_wait(&k);
	a = kit_probe(&k, 1);
	b = kit_probe(&k, 2);
	kit_report(&k, &a, BREAKER_OK, 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	assert_int_equal(kit_view(&k).probes_out, 1);
	kit_report(&k, &b, BREAKER_OK, 0);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	/* The window of before does not open it again. */
	for (int i = 0; i < 4; i++)
		kit_failed(&k);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

/* Errors of before it opened, still within the window's time, are not held against it. */
static void closing_forgets_the_window(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_PRODUCTION);
	struct kit k;

	(void)state;
	s.run = 0;
	s.base_ms = 1000;
	k = kit_with(s);
	kit_open_and_wait(&k);
	kit_call(&k, BREAKER_OK, 0);
	kit_call(&k, BREAKER_OK, 0);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	assert_int_equal(kit_view(&k).window_bad, 20); /* as health still seen */
	assert_true(breaker_error_ratio(&k.r, ROW, k.now) <= 0);
	for (int i = 0; i < 6; i++) {
		k.now += SECOND;
		kit_failed(&k);
	}
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	assert_true(breaker_error_ratio(&k.r, ROW, k.now) > 0);
	kit_close(&k);
}

static void failed_or_limited_probe_opens(void **state)
{
	static const enum breaker_outcome outcome[] = { BREAKER_FAILED, BREAKER_LIMITED };

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct kit k = kit_production();
		struct breaker_ticket a, b;

		kit_open_and_wait(&k);
		a = kit_probe(&k, 1);
		b = kit_probe(&k, 2);
		kit_report(&k, &a, outcome[i], 0);
		assert_int_equal(kit_state(&k), BREAKER_OPEN);
		assert_int_equal(kit_view(&k).exponent, 1);
		/* The other one is of before. */
		kit_report(&k, &b, BREAKER_OK, 0);
		assert_int_equal(kit_state(&k), BREAKER_OPEN);
		kit_close(&k);
	}
}

static void neutral_probe_returns_its_ticket(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a, other;

	(void)state;
	kit_open_and_wait(&k);
	a = kit_probe(&k, 1);
	kit_probe(&k, 2);
	assert_int_equal(kit_allow(&k, 3, &other), BREAKER_REJECT);
	kit_report(&k, &a, BREAKER_NEUTRAL, 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	kit_probe(&k, 3);
	assert_int_equal(kit_view(&k).requests, 5);
	kit_close(&k);
}

static void second_report_counts_for_nothing(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a;

	(void)state;
	kit_open_and_wait(&k);
	a = kit_probe(&k, 1);
	kit_report(&k, &a, BREAKER_OK, 0);
	kit_report(&k, &a, BREAKER_OK, 0);
	kit_report(&k, &a, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(&k), BREAKER_HALF_OPEN);
	kit_close(&k);
}

static void nobody_gets_no_probe(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket;
	uint64_t wait_ns;

	(void)state;
	kit_open_and_wait(&k);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(
			breaker_allow(&k.r, ROW, 0, k.now, 5, &ticket, &wait_ns), BREAKER_REJECT);
		assert_true(wait_ns > 0);
		kit_probe(&k, 1);
	}
	kit_close(&k);
}

/* Longer by each failed probe, up to the cap; between half and all of it, and not always the same.
 */
static void backoff_doubles_with_jitter(void **state)
{
	struct kit k = kit_production();
	uint64_t least[6], most[6];

	(void)state;
	memset(least, 0xff, sizeof(least));
	memset(most, 0, sizeof(most));
	for (int run = 0; run < 200; run++) {
		breaker_reset(&k.r, ROW, k.now);
		k.now += SECOND;
		kit_open_and_wait(&k);
		for (unsigned e = 1; e < 6; e++) {
			struct breaker_ticket t = kit_probe(&k, 1);
			uint64_t ns;

			kit_report(&k, &t, BREAKER_FAILED, 0);
			ns = kit_view(&k).retry_ns;
			least[e] = ns < least[e] ? ns : least[e];
			most[e] = ns > most[e] ? ns : most[e];
			k.now += ns;
		}
	}
	for (unsigned e = 1; e < 6; e++) {
		uint64_t full = 5000 * MS << e;

		full = full < 60000 * MS ? full : 60000 * MS;
		assert_in_range(least[e], full / 2, full * 55 / 100);
		assert_in_range(most[e], full * 95 / 100, full + 100 * MS);
	}
	kit_close(&k);
}

static void exponent_decays_by_closing_and_by_health(void **state)
{
	struct kit k = kit_production();

	(void)state;
	kit_open_and_wait(&k);
	for (int i = 0; i < 3; i++) {
		struct breaker_ticket t = kit_probe(&k, 1);

		kit_report(&k, &t, BREAKER_FAILED, 0);
		k.now += kit_view(&k).retry_ns;
	}
	assert_int_equal(kit_view(&k).exponent, 3);
	kit_call(&k, BREAKER_OK, 0);
	kit_call(&k, BREAKER_OK, 0);
	assert_int_equal(kit_view(&k).exponent, 2);
	k.now += 61 * SECOND;
	kit_open_and_wait(&k);
	assert_int_equal(kit_view(&k).exponent, 1);
	kit_close(&k);
}

/* ---- ramp ---- */

static void close_it(struct kit *k)
{
	kit_open_and_wait(k);
	kit_call(k, BREAKER_OK, 0);
	kit_call(k, BREAKER_OK, 0);
	assert_int_equal(kit_state(k), BREAKER_CLOSED);
}

static void ramp_doubles_by_successes(void **state)
{
	struct kit k = kit_production();

	(void)state;
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	close_it(&k);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(breaker_ramp(&k.r, ROW, k.now), 1u << i);
		kit_ok(&k);
	}
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	kit_close(&k);
}

static void ramp_doubles_by_seconds(void **state)
{
	struct kit k = kit_production();

	(void)state;
	close_it(&k);
	for (unsigned i = 0; i < 10; i++) {
		assert_int_equal(breaker_ramp(&k.r, ROW, k.now), 1u << i);
		k.now += SECOND;
	}
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	assert_int_equal(breaker_ramp(&k.r, UINT32_MAX, k.now), UINT32_MAX);
	/* Over by time: successes change nothing any more. */
	kit_ok(&k);
	assert_int_equal(breaker_ramp(&k.r, ROW, k.now), UINT32_MAX);
	assert_int_equal(breaker_unpack(k.b->state).ok, 0);
	kit_close(&k);
}

/* ---- by hand ---- */

static void forced_open_stays_until_closed_by_hand(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket, early;
	uint64_t wait_ns;

	(void)state;
	kit_allow(&k, 1, &early);
	breaker_force_open(&k.r, ROW, k.now);
	kit_report(&k, &early, BREAKER_OK, 0);
	assert_true(kit_view(&k).forced);
	assert_int_equal(kit_state(&k), BREAKER_OPEN);
	for (int i = 0; i < 50; i++) {
		k.now += 1000000 * SECOND;
		assert_int_equal(
			breaker_allow(&k.r, ROW, kit_owner(1), k.now, 0, &ticket, &wait_ns),
			BREAKER_REJECT);
		assert_true(wait_ns == BREAKER_WAIT_FOREVER && k.now + wait_ns > k.now);
		assert_int_equal(breaker_check(&k.r, ROW, k.now, &wait_ns), BREAKER_REJECT);
		assert_true(wait_ns == BREAKER_WAIT_FOREVER);
		kit_report(&k, &ticket, BREAKER_OK, 0); /* one that called all the same */
		breaker_tell(&k.r, k.now);
		breaker_adopt(&k.r, k.now);
	}
	assert_true(kit_view(&k).forced);
	breaker_force_close(&k.r, ROW, k.now);
	assert_false(kit_view(&k).forced);
	kit_ok(&k);
	kit_close(&k);
}

static void force_from_every_state(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket a;

	(void)state;
	kit_open_and_wait(&k);
	breaker_force_close(&k.r, ROW, k.now);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_open_and_wait(&k);
	a = kit_probe(&k, 1);
	breaker_force_open(&k.r, ROW, k.now);
	breaker_force_open(&k.r, ROW, k.now);
	kit_report(&k, &a, BREAKER_OK, 0);
	assert_true(kit_view(&k).forced);
	breaker_force_close(&k.r, ROW, k.now);
	breaker_force_close(&k.r, ROW, k.now);
	assert_int_equal(kit_view(&k).transitions, 6);
	breaker_force_open(&k.r, UINT32_MAX, k.now);
	breaker_force_close(&k.r, UINT32_MAX, k.now);
	kit_close(&k);
}

static void reset_forgets_and_closes(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket late;
	struct breaker_view v;

	(void)state;
	for (int i = 0; i < 100; i++)
		kit_call(&k, BREAKER_OK, 300 * MS);
	for (int i = 0; i < 4; i++)
		kit_failed(&k);
	kit_allow(&k, 1, &late);
	breaker_reset(&k.r, ROW, k.now);
	breaker_reset(&k.r, UINT32_MAX, k.now);
	v = kit_view(&k);
	assert_int_equal(v.state, BREAKER_CLOSED);
	assert_true(v.baseline_us <= 0 && v.cusum <= 0);
	assert_int_equal(v.window_ok + v.window_bad, 0);
	assert_int_equal(v.p50_us, 0);
	assert_int_equal(v.requests, 104);
	assert_int_equal(v.errors, 4);
	/* The fifth in a row, had it not been reset. */
	kit_report(&k, &late, BREAKER_FAILED, 0);
	kit_failed(&k);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	breaker_force_open(&k.r, ROW, k.now);
	breaker_reset(&k.r, ROW, k.now);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(failures_in_a_row_open),
		cmocka_unit_test(one_success_ends_the_row),
		cmocka_unit_test(half_errors_open_at_the_twentieth_call),
		cmocka_unit_test(a_third_of_errors_does_not),
		cmocka_unit_test(slices_expire_by_themselves),
		cmocka_unit_test(limited_and_neutral_are_nothing_when_closed),
		cmocka_unit_test(open_rejects_until_its_time),
		cmocka_unit_test(llmkit_defect_one_failure_opens),
		cmocka_unit_test(llmkit_defect_open_never_leaves),
		cmocka_unit_test(llmkit_defect_half_open_lets_the_herd_through),
		cmocka_unit_test(enough_probes_close),
		cmocka_unit_test(closing_forgets_the_window),
		cmocka_unit_test(failed_or_limited_probe_opens),
		cmocka_unit_test(neutral_probe_returns_its_ticket),
		cmocka_unit_test(second_report_counts_for_nothing),
		cmocka_unit_test(nobody_gets_no_probe),
		cmocka_unit_test(backoff_doubles_with_jitter),
		cmocka_unit_test(exponent_decays_by_closing_and_by_health),
		cmocka_unit_test(ramp_doubles_by_successes),
		cmocka_unit_test(ramp_doubles_by_seconds),
		cmocka_unit_test(forced_open_stays_until_closed_by_hand),
		cmocka_unit_test(force_from_every_state),
		cmocka_unit_test(reset_forgets_and_closes),
	};

	return cmocka_run_group_tests_name("breaker", tests, NULL, NULL);
}
