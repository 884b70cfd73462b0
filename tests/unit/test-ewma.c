/* The moving average in one word: quick up, slow down, heals itself, loses nothing under
 * threads. */

#include <math.h>
#include <pthread.h>
#include "shm/ewma.h"
#include "shm/lanes.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/splitmix.h"

#define MS 1000000u
#define THREADS 4
#define ROUNDS 20000

static float after(_Atomic uint64_t *word)
{
	return ewma_value(atomic_load(word));
}

static void test_first_sample_counts_as_it_is(void **state)
{
	_Atomic uint64_t word = EWMA_NONE;

	(void)state;
	assert_true(ewma_value(EWMA_NONE) == 0);
	assert_true(ewma_add(&word, 13.5f, MS, 0));
	assert_true(after(&word) == 13.5f);
	assert_int_equal((uint32_t)atomic_load(&word), MS);
}

static void test_goes_up_quickly_and_down_slowly(void **state)
{
	_Atomic uint64_t up = ewma_pack(10, MS), down = ewma_pack(10, MS);

	(void)state;
	ewma_add(&up, 12, MS, 0);
	ewma_add(&down, 8, MS, 0);
	assert_true(fabsf(after(&up) - (10 + 2 * EWMA_UP)) < 1e-4f);
	assert_true(fabsf(after(&down) - (10 - 2 * EWMA_DOWN)) < 1e-4f);
	assert_true(EWMA_UP > 2 * EWMA_DOWN);
}

/* Not how many samples come, but how many they are in all decides: a busy target looks like a quiet
 * one. */
static void test_does_not_depend_on_the_rate(void **state)
{
	_Atomic uint64_t busy = EWMA_NONE, quiet = EWMA_NONE;
	uint64_t seed = 1;
	double sum_busy = 0, sum_quiet = 0;

	(void)state;
	for (uint32_t i = 0; i < 20000; i++) {
		float x = 12 + (float)(splitmix_below(&seed, 2001)) / 1000 - 1;

		ewma_add(&busy, x, MS + i / 100, 0);
		ewma_add(&quiet, x, MS + i * 1000, 0);
		sum_busy += (double)after(&busy);
		sum_quiet += (double)after(&quiet);
	}
	assert_true(fabs(sum_busy - sum_quiet) / 20000 < 0.02);
	/* A little above the middle, not at the peak. */
	assert_true(sum_busy / 20000 > 12.05 && sum_busy / 20000 < 12.5);
}

static void test_after_an_idle_time_a_sample_weighs_more(void **state)
{
	_Atomic uint64_t word = ewma_pack(10, MS);

	(void)state;
	ewma_add(&word, 8, MS + 60000, 0);
	assert_true(after(&word) < 8.1f);
}

static void test_garbage_becomes_the_prior(void **state)
{
	static const float bad[] = { NAN, INFINITY, -INFINITY, -1, 0, 26, 1e30f, 1e-30f };
	uint64_t seed = 2;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		_Atomic uint64_t word = ewma_pack(bad[i], MS);

		assert_true(ewma_value(atomic_load(&word)) == 0);
		ewma_add(&word, 12, MS, 10);
		assert_true(fabsf(after(&word) - (10 + 2 * EWMA_UP)) < 1e-4f);
	}
	for (int i = 0; i < 100000; i++) {
		_Atomic uint64_t word = splitmix_next(&seed);

		ewma_add(&word, 12, (uint32_t)splitmix_next(&seed), 0);
		assert_true(after(&word) >= EWMA_LO && after(&word) <= EWMA_HI);
	}
}

static void test_bad_samples_stay_in_range(void **state)
{
	static const float bad[] = { NAN, INFINITY, -INFINITY, -1, 0, 1e30f };

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		_Atomic uint64_t word = ewma_pack(10, MS), fresh = EWMA_NONE;

		ewma_add(&word, bad[i], MS, 0);
		ewma_add(&fresh, bad[i], MS, 0);
		assert_true(after(&word) >= EWMA_LO && after(&word) <= EWMA_HI);
		assert_true(after(&fresh) >= EWMA_LO && after(&fresh) <= EWMA_HI);
	}
}

static void test_time_wraps_and_a_little_ahead_is_now(void **state)
{
	(void)state;
	assert_true(ewma_idle_ms(ewma_pack(1, UINT32_MAX), 9) == 10);
	assert_true(ewma_idle_ms(ewma_pack(1, MS + 500), MS) == 0);
	/* Far ahead is no clock's difference: it is very old. */
	assert_true(ewma_idle_ms(ewma_pack(1, MS + 600000), MS) > 1e9f);
}

static void test_logarithm_and_exponential_are_close(void **state)
{
	(void)state;
	for (double x = -60; x < 60; x += 0.0037) {
		lanes_f32 e = lanes_exp(lanes_all((float)x)), l;
		float value = (float)exp(x);

		assert_true(fabs((double)ewma_exp((float)x) / exp(x) - 1) < 1e-4);
		assert_true(fabs((double)e[1] / exp(x) - 1) < 1e-4);
		l = lanes_ln(lanes_all(value));
		assert_true(fabs((double)ewma_ln(value) - x) < 1e-4);
		assert_true(fabs((double)l[2] - x) < 1e-4);
	}
	assert_true(ewma_exp(-1e9f) >= 0 && ewma_exp(-1e9f) < 1e-30f);
	assert_true(lanes_exp(lanes_all(-1e9f))[0] < 1e-30f);
	assert_true(isfinite(ewma_exp(1e9f)));
}

static _Atomic uint64_t contended;
static _Atomic unsigned dropped;

static void *add_many(void *arg)
{
	uint64_t seed = (uint64_t)(uintptr_t)arg;

	for (uint32_t i = 0; i < ROUNDS; i++) {
		float x = 11 + (float)splitmix_below(&seed, 1000) / 500;

		if (!ewma_add(&contended, x, MS + i, 0))
			atomic_fetch_add(&dropped, 1);
	}
	return NULL;
}

/* Whatever the interleaving, a word is one that somebody made; retries are bounded. */
static void test_threads_never_tear_a_word(void **state)
{
	pthread_t thread[THREADS];
	float value;

	(void)state;
	contended = ewma_pack(12, MS);
	for (uintptr_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, add_many, (void *)(i + 1)), 0);
	for (int i = 0; i < 1000; i++) {
		value = ewma_value(atomic_load(&contended));
		assert_true(value >= 11 && value <= 13);
	}
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	value = ewma_value(atomic_load(&contended));
	assert_true(value > 11.2f && value < 12.8f);
	assert_true(dropped < THREADS * ROUNDS / 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first_sample_counts_as_it_is),
		cmocka_unit_test(test_goes_up_quickly_and_down_slowly),
		cmocka_unit_test(test_does_not_depend_on_the_rate),
		cmocka_unit_test(test_after_an_idle_time_a_sample_weighs_more),
		cmocka_unit_test(test_garbage_becomes_the_prior),
		cmocka_unit_test(test_bad_samples_stay_in_range),
		cmocka_unit_test(test_time_wraps_and_a_little_ahead_is_now),
		cmocka_unit_test(test_logarithm_and_exponential_are_close),
		cmocka_unit_test(test_threads_never_tear_a_word),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
