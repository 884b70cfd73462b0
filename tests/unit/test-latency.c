#include "shm/latency.h"

#include <math.h>
#include <pthread.h>
#include "tests/unit/breaker-helpers.h"

static void empty_has_nothing(void **state)
{
	struct kit k = kit_open();

	(void)state;
	assert_int_equal(latency_percentile(&k.r, ROW, 50, T0), 0);
	assert_int_equal(latency_count(&k.r, ROW, T0), 0);
	kit_close(&k);
}

/* Whatever is recorded comes back within 1/16, from 1 ms to 17 minutes; beyond, as the ends. */
static void values_come_back(void **state)
{
	uint64_t random = 7;

	(void)state;
	for (int i = 0; i < 2000; i++) {
		struct kit k = kit_open();
		uint64_t us = 1024 + splitmix_below(&random, UINT64_C(1) << (10 + i % 20));
		uint64_t got;

		latency_record(&k.r, ROW, us, T0);
		got = latency_percentile(&k.r, ROW, 50, T0);
		assert_true(got > us - us / 16 - 2 && got < us + us / 16 + 2);
		kit_close(&k);
	}
}

static void ends_are_kept(void **state)
{
	struct kit k = kit_open();

	(void)state;
	latency_record(&k.r, ROW, 0, T0);
	assert_in_range(latency_percentile(&k.r, ROW, 100, T0), 1, 1200);
	latency_record(&k.r, ROW, UINT64_MAX, T0);
	assert_in_range(latency_percentile(&k.r, ROW, 100, T0), 1000000000, 1100000000);
	assert_int_equal(latency_count(&k.r, ROW, T0), 2);
	latency_record(&k.r, KIT_TARGETS, 1, T0);
	latency_record(&k.r, UINT32_MAX, 1, T0);
	assert_int_equal(latency_count(&k.r, UINT32_MAX, T0), 0);
	kit_close(&k);
}

static void percentiles_are_in_order(void **state)
{
	struct kit k = kit_open();

	(void)state;
	for (uint64_t i = 1; i <= 1000; i++)
		latency_record(&k.r, ROW, i * 1000, T0 + i * 50 * MS);
	assert_in_range(latency_percentile(&k.r, ROW, 50, T0 + 50 * SECOND), 460000, 540000);
	assert_in_range(latency_percentile(&k.r, ROW, 99, T0 + 50 * SECOND), 920000, 1060000);
	assert_in_range(latency_percentile(&k.r, ROW, 0, T0 + 50 * SECOND), 1000, 1150);
	/* Nonsense is all. */
	assert_in_range(latency_percentile(&k.r, ROW, -5, T0 + 50 * SECOND), 920000, 1060000);
	assert_in_range(latency_percentile(&k.r, ROW, NAN, T0 + 50 * SECOND), 920000, 1060000);
	kit_close(&k);
}

static void samples_expire_by_themselves(void **state)
{
	struct kit k = kit_open();

	(void)state;
	latency_record(&k.r, ROW, 5000, T0);
	latency_record(&k.r, ROW, 9000, T0 + 30 * SECOND);
	assert_int_equal(latency_count(&k.r, ROW, T0 + 59 * SECOND), 2);
	assert_int_equal(latency_count(&k.r, ROW, T0 + 60 * SECOND), 1);
	assert_int_equal(latency_count(&k.r, ROW, T0 + 90 * SECOND), 0);
	/* The row is used again, without what was in it. */
	latency_record(&k.r, ROW, 5000, T0 + 60 * SECOND);
	assert_int_equal(latency_count(&k.r, ROW, T0 + 60 * SECOND), 2);
	kit_close(&k);
}

static void late_caller_changes_nothing(void **state)
{
	struct kit k = kit_open();

	(void)state;
	latency_record(&k.r, ROW, 5000, T0 + 60 * SECOND);
	latency_record(&k.r, ROW, 5000, T0); /* the same row, a minute ago */
	assert_int_equal(latency_count(&k.r, ROW, T0 + 60 * SECOND), 1);
	kit_close(&k);
}

static void reset_forgets(void **state)
{
	struct kit k = kit_open();

	(void)state;
	latency_record(&k.r, ROW, 5000, T0);
	latency_record(&k.r, ROW + 1, 5000, T0);
	latency_reset(&k.r, ROW);
	latency_reset(&k.r, UINT32_MAX);
	assert_int_equal(latency_count(&k.r, ROW, T0), 0);
	assert_int_equal(latency_count(&k.r, ROW + 1, T0), 1);
	latency_record(&k.r, ROW, 5000, T0);
	assert_int_equal(latency_count(&k.r, ROW, T0), 1);
	kit_close(&k);
}

/* Any bits: an answer, and a healthy histogram again after some minutes. */
static void garbage_is_survived(void **state)
{
	uint64_t random = 3;

	(void)state;
	for (int i = 0; i < 500; i++) {
		struct kit k = kit_open();
		uint64_t *word = (uint64_t *)k.bytes->latency;
		uint64_t now = T0 + 30 * 60 * SECOND;

		for (size_t w = 0; w < sizeof(k.bytes->latency) / (sizeof(*word)); w++)
			word[w] = splitmix_next(&random) >> splitmix_below(&random, 64);
		for (unsigned row = 0; row < LAYOUT_LATENCY_ROWS; row++)
			if (i % 2)
				k.bytes->latency[ROW].row[row].epoch =
					T0 / (10 * SECOND) + splitmix_below(&random, 200);
		latency_percentile(&k.r, ROW, 50, T0);
		latency_record(&k.r, ROW, splitmix_next(&random), T0);
		for (uint64_t t = T0; t < now + 60 * SECOND; t += 10 * SECOND)
			latency_record(&k.r, ROW, 5000, t);
		assert_int_equal(latency_count(&k.r, ROW, now + 59 * SECOND), 6);
		assert_in_range(latency_percentile(&k.r, ROW, 99, now + 59 * SECOND), 4700, 5300);
		kit_close(&k);
	}
}

#define THREADS 4
#define SAMPLES 50000

static void *record_many(void *arg)
{
	for (int i = 0; i < SAMPLES; i++)
		latency_record(arg, ROW, 5000, T0);
	return NULL;
}

static void threads_lose_nothing(void **state)
{
	struct kit k = kit_open();
	pthread_t thread[THREADS];

	(void)state;
	latency_record(&k.r, ROW, 5000, T0); /* the beginning of a row may lose some */
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, record_many, &k.r), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	assert_int_equal(latency_count(&k.r, ROW, T0), 1 + THREADS * SAMPLES);
	kit_close(&k);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(empty_has_nothing),
		cmocka_unit_test(values_come_back),
		cmocka_unit_test(ends_are_kept),
		cmocka_unit_test(percentiles_are_in_order),
		cmocka_unit_test(samples_expire_by_themselves),
		cmocka_unit_test(late_caller_changes_nothing),
		cmocka_unit_test(reset_forgets),
		cmocka_unit_test(garbage_is_survived),
		cmocka_unit_test(threads_lose_nothing),
	};

	return cmocka_run_group_tests_name("latency", tests, NULL, NULL);
}
