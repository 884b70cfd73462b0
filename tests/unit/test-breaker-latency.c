/* The breaker's latency rule: the reference model of a healthy provider, slow ones, and what the
 * original's examples and defects do here. */

#include "shm/breaker_stats.h"

#include <math.h>
#include "tests/unit/breaker-helpers.h"
#include "tests/unit/latency-model.h"

#define HEALTHY 2000000
#define SEEDS 1000
#define SLOW_MAX 400
#define WARM 2000

static void call(struct kit *k, uint64_t us)
{
	k->now += 5 * MS;
	assert_int_equal(kit_call(k, BREAKER_OK, us * NSEC_PER_USEC), BREAKER_PASS);
}

/* Calls until it opens; 0: most were not enough. */
static unsigned calls_until_open(struct kit *k, uint64_t us, unsigned most)
{
	for (unsigned i = 1; i <= most; i++) {
		call(k, us);
		if (kit_state(k) != BREAKER_CLOSED)
			return i;
	}
	return 0;
}

static void ln_is_close(void **state)
{
	(void)state;
	for (double x = 1; x < 4e9; x *= 1.0007)
		assert_true(fabs((double)breaker_ln((float)x) - log((double)(float)x)) < 3e-4);
	assert_true(fabsf(breaker_ln(1)) < 1e-6f);
}

/* All three rules at once, with failures as healthy providers have them. */
static unsigned false_openings(enum breaker_preset preset, unsigned calls)
{
	struct kit k = kit_with(breaker_preset(preset));
	struct latency_model m = { .random = 20240607 };
	unsigned opened = 0;

	for (unsigned i = 0; i < calls; i++) {
		uint64_t us = model_next(&m, 1);
		bool fails = model_uniform(&m) < 0.01;

		k.now += 50 * MS;
		kit_call(&k, fails ? BREAKER_FAILED : BREAKER_OK, us * NSEC_PER_USEC);
		if (k.b->state >> 62 != BREAKER_CLOSED) {
			opened++;
			breaker_force_close(&k.r, ROW, k.now);
		}
	}
	kit_close(&k);
	return opened;
}

static void healthy_provider_stays_closed(void **state)
{
	(void)state;
	for (unsigned preset = 0; preset < BREAKER_PRESETS; preset++) {
		unsigned opened = false_openings((enum breaker_preset)preset, HEALTHY);

		print_message("# %s: %u false openings in %d healthy calls\n",
			breaker_preset_name(preset), opened, HEALTHY);
		if (preset != BREAKER_AGGRESSIVE)
			assert_true(opened <= HEALTHY / 1000000);
	}
}

static int ascending(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void delays(enum breaker_preset preset, double factor, int *median, int *p95)
{
	int delay[SEEDS];

	for (int seed = 0; seed < SEEDS; seed++) {
		struct kit k = kit_with(breaker_preset(preset));
		struct latency_model m = { .random = (uint64_t)seed * 7919 + 1,
			.calls = (double)seed * (MODEL_DRIFT_CALLS / SEEDS) };
		int n = 0;

		for (int i = 0; i < WARM; i++) {
			k.now += 5 * MS;
			kit_call(&k, BREAKER_OK, model_next(&m, 1) * NSEC_PER_USEC);
			breaker_force_close(&k.r, ROW, k.now);
		}
		while (n < SLOW_MAX && k.b->state >> 62 == BREAKER_CLOSED) {
			k.now += 5 * MS;
			kit_call(&k, BREAKER_OK, model_next(&m, factor) * NSEC_PER_USEC);
			n++;
		}
		delay[seed] = n;
		kit_close(&k);
	}
	qsort(delay, SEEDS, sizeof(*delay), ascending);
	*median = delay[SEEDS / 2];
	*p95 = delay[SEEDS * 95 / 100];
}

static void slow_provider_is_found(void **state)
{
	static const double factor[] = { 3, 5, 10 };
	int median, p95;

	(void)state;
	for (unsigned preset = 0; preset < BREAKER_PRESETS; preset++) {
		for (size_t i = 0; i < ARRAY_SIZE(factor); i++) {
			delays((enum breaker_preset)preset, factor[i], &median, &p95);
			print_message(
				"# %s: %g times slower found after %d calls, 95 %% after %d\n",
				breaker_preset_name(preset), factor[i], median, p95);
			if (preset == BREAKER_PRODUCTION && factor[i] >= 5)
				assert_true(p95 <= 15);
		}
	}
}

/* The original's example: "Normal requests: ~100ms. Suddenly: 5s latency: circuit opens". One does
 * not; one that is followed by more of its kind does. */
static void original_example_5s_after_100ms(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 100; i++)
		call(&k, 100000);
	call(&k, 5000000);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	/* Forgiven after three normal ones. */
	for (int i = 0; i < 4; i++)
		call(&k, 100000);
	assert_true(kit_view(&k).cusum <= 0);
	assert_int_equal(calls_until_open(&k, 5000000, 20), 5);
	assert_int_equal(kit_view(&k).transitions, 1);
	kit_close(&k);
}

/* LLMKit: one success of 1020 ms after 100 of 1000 to 1009 ms opens it. */
static void llmkit_defect_tight_latencies_open(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (unsigned i = 0; i < 100; i++)
		call(&k, 1000000 + i % 10 * 1000);
	assert_int_equal(calls_until_open(&k, 1020000, 1), 0);
	assert_int_equal(calls_until_open(&k, 1020000, 1000), 0);
	/* Three times the deviation, but no rise that anybody minds. */
	assert_int_equal(calls_until_open(&k, 1900000, 1000), 0);
	kit_close(&k);
}

/* LLMKit: 5 of ~100 ms, then 60 s stays closed, because the sample is part of what it is compared
 * with; so do more. Here it is the warm-up that says nothing, and it ends. */
static void llmkit_defect_outlier_hides_in_its_own_mean(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 5; i++)
		call(&k, 100000);
	assert_int_equal(calls_until_open(&k, 60000000, BREAKER_WARM_UP - 5), 0);
	kit_close(&k);
	k = kit_production();
	for (int i = 0; i < BREAKER_WARM_UP; i++)
		call(&k, 100000);
	assert_int_equal(calls_until_open(&k, 60000000, 20), 5);
	kit_close(&k);
	/* One extreme sample, over and over, with normal ones between: an outlier is no trend. */
	k = kit_production();
	for (int i = 0; i < 2000; i++)
		call(&k, i % 20 == 19 ? 60000000 : 100000);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	kit_close(&k);
}

/* A slowdown below both gates: twice, or half a second. */
static void small_rises_do_not_open(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 100; i++)
		call(&k, 100000);
	assert_int_equal(calls_until_open(&k, 600000, 100), 0); /* six times, but fast */
	kit_close(&k);
	k = kit_production();
	for (int i = 0; i < 100; i++)
		call(&k, 10000000);
	assert_int_equal(calls_until_open(&k, 19000000, 100), 0); /* 9 s more, but not twice */
	kit_close(&k);
}

/* How the baseline moves: by a 500th of a deviation of at most 4. */
static void baseline_moves_slowly_by_clamped_deviations(void **state)
{
	struct kit k = kit_production();
	double before, after;

	(void)state;
	for (int i = 0; i < 1000; i++)
		call(&k, 100000);
	before = kit_view(&k).baseline_us;
	assert_true(fabs(before - 100000) < 100);
	call(&k, 60000000);
	after = kit_view(&k).baseline_us;
	assert_true(after > before && after < before * 1.0013);
	kit_close(&k);
}

static void baseline_is_frozen_unless_closed(void **state)
{
	struct kit k = kit_production();
	struct breaker_ticket ticket, late;
	uint64_t baseline, cusum;

	(void)state;
	for (int i = 0; i < 100; i++)
		call(&k, 100000);
	kit_allow(&k, 1, &late);
	kit_open_and_wait(&k);
	baseline = k.b->baseline;
	cusum = k.b->cusum;
	assert_int_equal(kit_allow(&k, 1, &ticket), BREAKER_PROBE);
	kit_report(&k, &ticket, BREAKER_OK, 9 * SECOND);
	kit_report(&k, &late, BREAKER_OK, 9 * SECOND);
	kit_allow(&k, 1, &ticket);
	kit_report(&k, &ticket, BREAKER_OK, 9 * SECOND);
	assert_int_equal(kit_state(&k), BREAKER_CLOSED);
	assert_int_equal(k.b->baseline, baseline);
	assert_int_equal(k.b->cusum, cusum);
	kit_close(&k);
}

/* What had it open does not open it again at the first call after it closed. */
static void sum_starts_anew_after_a_transition(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 100; i++)
		call(&k, 100000);
	assert_int_equal(calls_until_open(&k, 5000000, 20), 5);
	breaker_force_close(&k.r, ROW, k.now);
	assert_int_equal(calls_until_open(&k, 5000000, 20), 5);
	kit_close(&k);
}

/* One that stays five times as slow as it was is the new normal after a while: it is not opened
 * for ever. */
static void lasting_change_is_learned(void **state)
{
	struct kit k = kit_production();
	struct latency_model m = { .random = 9 };
	int opened = 0, since = 0;

	(void)state;
	for (int i = 0; i < 1000; i++)
		call(&k, model_next(&m, 1));
	for (int i = 0; i < 20000 && since < 5000; i++, since++) {
		call(&k, model_next(&m, 5));
		if (kit_state(&k) != BREAKER_CLOSED) {
			opened++;
			since = 0;
			breaker_force_close(&k.r, ROW, k.now);
		}
	}
	print_message("# five times slower for good: opened %d times\n", opened);
	assert_true(opened > 0 && opened < 100);
	assert_true(since == 5000);
	kit_close(&k);
}

static void rule_can_be_off(void **state)
{
	struct breaker_settings s = breaker_preset(BREAKER_PRODUCTION);
	struct kit k;

	(void)state;
	s.z_percent = 0;
	k = kit_with(s);
	for (int i = 0; i < 100; i++)
		call(&k, 100000);
	assert_int_equal(calls_until_open(&k, 60000000, 200), 0);
	kit_close(&k);
}

static void calls_without_a_time_are_not_learned(void **state)
{
	struct kit k = kit_production();

	(void)state;
	for (int i = 0; i < 100; i++)
		call(&k, 0);
	assert_int_equal(k.b->baseline, 0);
	for (int i = 0; i < 2; i++)
		call(&k, 100000);
	assert_int_equal(kit_view(&k).mean_us, 100000);
	assert_int_equal(kit_view(&k).requests, 102);
	kit_close(&k);
}

/* Any bits in its three words: it answers, and has learned the truth after some time. */
static void garbage_is_survived(void **state)
{
	uint64_t random = 11;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		struct kit k = kit_production();

		k.b->baseline = splitmix_next(&random) >> splitmix_below(&random, 64);
		k.b->cusum = splitmix_next(&random) >> splitmix_below(&random, 64);
		k.b->recent = splitmix_next(&random) >> splitmix_below(&random, 64);
		for (int n = 0; n < 3000; n++) {
			k.now += 5 * MS;
			kit_call(&k, BREAKER_OK, 800 * MS);
			breaker_force_close(&k.r, ROW, k.now);
		}
		for (int n = 0; n < 50; n++)
			call(&k, 800000);
		assert_true(kit_view(&k).baseline_us > 200e3 && kit_view(&k).baseline_us < 3200e3);
		kit_close(&k);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ln_is_close),
		cmocka_unit_test(healthy_provider_stays_closed),
		cmocka_unit_test(slow_provider_is_found),
		cmocka_unit_test(original_example_5s_after_100ms),
		cmocka_unit_test(llmkit_defect_tight_latencies_open),
		cmocka_unit_test(llmkit_defect_outlier_hides_in_its_own_mean),
		cmocka_unit_test(small_rises_do_not_open),
		cmocka_unit_test(baseline_moves_slowly_by_clamped_deviations),
		cmocka_unit_test(baseline_is_frozen_unless_closed),
		cmocka_unit_test(sum_starts_anew_after_a_transition),
		cmocka_unit_test(lasting_change_is_learned),
		cmocka_unit_test(rule_can_be_off),
		cmocka_unit_test(calls_without_a_time_are_not_learned),
		cmocka_unit_test(garbage_is_survived),
	};

	return cmocka_run_group_tests_name("breaker-latency", tests, NULL, NULL);
}
