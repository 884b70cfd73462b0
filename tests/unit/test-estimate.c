/* How long answers get: converges to the 95th percentile, follows it, forgets whom it must, and
 * takes garbage for nothing. */

#include <math.h>
#include <pthread.h>
#include "shm/estimate.h"
#include "tests/unit/router-helpers.h"

#define THREADS 4

static double normal(uint64_t *seed)
{
	double u = ((double)(splitmix_next(seed) >> 11) + 1) / 9007199254740993.0;
	double v = (double)(splitmix_next(seed) >> 11) / 9007199254740992.0;

	return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979 * v);
}

static uint64_t lognormal(uint64_t *seed, double median, double sigma)
{
	return (uint64_t)(median * exp(sigma * normal(seed)) + 0.5);
}

static void feed(struct world *w, const char *model, double median, double sigma, int n)
{
	for (int i = 0; i < n; i++)
		estimate_learn(&w->r, str_of(model), str_of("t"),
			lognormal(&w->seed, median, sigma), w->now_ns);
}

static uint64_t ask(struct world *w, const char *model)
{
	return estimate_output(&w->r, str_of(model), str_of("t"), 0, 777);
}

/* Averaged, as a single estimate wanders about the percentile. */
static double mean_estimate(struct world *w, double median, double sigma)
{
	double sum = 0;

	for (int i = 0; i < 2000; i++) {
		feed(w, "m", median, sigma, 1);
		sum += log((double)ask(w, "m"));
	}
	return exp(sum / 2000);
}

static void test_converges_to_the_95th_percentile(void **state)
{
	static const double sigma[] = { 0.3, 0.6, 1.0 };

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(sigma); i++) {
		struct world w;
		double truth = 400 * exp(1.6449 * sigma[i]), found;

		world_open(&w, i);
		feed(&w, "m", 400, sigma[i], 2000);
		found = mean_estimate(&w, 400, sigma[i]);
		assert_true(found > truth * 0.8 && found < truth * 1.25);
		world_close(&w);
	}
}

static void test_is_useful_after_few_samples(void **state)
{
	int good = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct world w;
		double truth = 400 * exp(1.6449 * 0.6), found;

		world_open(&w, seed);
		feed(&w, "m", 400, 0.6, 19);
		assert_int_equal(ask(&w, "m"), 777);
		feed(&w, "m", 400, 0.6, 11);
		found = (double)ask(&w, "m");
		good += found > truth / 2 && found < truth * 2.5;
		world_close(&w);
	}
	assert_true(good >= 190);
}

static void test_follows_what_changes(void **state)
{
	struct world w;
	double up = 1600 * exp(1.6449 * 0.6), down = 200 * exp(1.6449 * 0.6);

	(void)state;
	world_open(&w, 5);
	feed(&w, "m", 400, 0.6, 3000);
	feed(&w, "m", 1600, 0.6, 60);
	assert_true((double)ask(&w, "m") > up * 0.6);
	feed(&w, "m", 200, 0.6, 1500);
	assert_true((double)ask(&w, "m") < down * 1.7);
	world_close(&w);
}

static void test_never_above_max_tokens(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 6);
	assert_int_equal(estimate_output(&w.r, str_of("m"), STR_NULL, 0, 500), 500);
	assert_int_equal(estimate_output(&w.r, str_of("m"), STR_NULL, 100, 500), 100);
	feed(&w, "m", 4000, 0.3, 100);
	assert_true(ask(&w, "m") > 4000);
	assert_int_equal(estimate_output(&w.r, str_of("m"), str_of("t"), 64, 777), 64);
	world_close(&w);
}

static void test_tags_and_models_are_apart(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 7);
	feed(&w, "m", 4000, 0.3, 100);
	assert_int_equal(estimate_output(&w.r, str_of("m"), str_of("u"), 0, 1), 1);
	assert_int_equal(estimate_output(&w.r, str_of("mt"), STR_NULL, 0, 1), 1);
	assert_int_equal(estimate_output(&w.r, str_of("n"), str_of("t"), 0, 1), 1);
	world_close(&w);
}

/* More pairs than rows: the table stays as it is, and who is used keeps his row. */
static void test_evicts_the_least_recently_used(void **state)
{
	struct world w;
	uint64_t rows = 0;
	struct estimate_view v;
	char name[32];

	(void)state;
	world_open(&w, 8);
	feed(&w, "kept", 4000, 0.3, 100);
	for (unsigned i = 0; i < 20 * w.r.estimates; i++) {
		w.now_ns += NSEC_PER_SEC;
		snprintf(name, sizeof(name), "m%u", i);
		feed(&w, name, 100, 0.3, 1);
		if (i % 50 == 0)
			feed(&w, "kept", 4000, 0.3, 1);
	}
	assert_true(ask(&w, "kept") > 3000);
	assert_int_equal(ask(&w, "m0"), 777);
	for (uint32_t i = 0; i < w.r.estimates; i++)
		rows += estimate_view(&w.r, i, &v);
	assert_true(rows > w.r.estimates * 9 / 10);
	assert_false(estimate_view(&w.r, w.r.estimates, &v));
	world_close(&w);
}

/* A new pair starts with nothing of the one whose row it took. */
static void test_an_evicted_row_starts_empty(void **state)
{
	struct world w;
	struct estimate_view v;
	char name[32];

	(void)state;
	world_open(&w, 9);
	w.r.estimates = 4;
	for (int i = 0; i < 4; i++) {
		snprintf(name, sizeof(name), "m%d", i);
		feed(&w, name, 4000, 0.1, 50);
		w.now_ns += 2 * NSEC_PER_SEC;
	}
	feed(&w, "new", 10, 0.1, 1);
	assert_int_equal(ask(&w, "new"), 777);
	feed(&w, "new", 10, 0.1, 30);
	assert_true(ask(&w, "new") < 60);
	for (uint32_t i = 0; i < 4; i++)
		assert_true(estimate_view(&w.r, i, &v));
	assert_int_equal(ask(&w, "m0"), 777);
	assert_true(ask(&w, "m3") > 3000);
	world_close(&w);
}

static void test_garbage_is_nothing(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 10);
	feed(&w, "m", 400, 0.3, 100);
	for (int i = 0; i < 20000; i++) {
		struct layout_estimate *e = &w.r.estimate[splitmix_below(&w.seed, w.r.estimates)];
		uint64_t tokens;

		e->value = splitmix_next(&w.seed);
		e->used_ns = splitmix_next(&w.seed);
		if (i % 3 == 0)
			e->key = splitmix_next(&w.seed);
		feed(&w, "m", 400, 0.3, 1);
		tokens = ask(&w, "m");
		assert_true(tokens <= 500000000);
	}
	for (uint32_t i = 0; i < w.r.estimates; i++)
		w.r.estimate[i].value = UINT64_MAX;
	assert_int_equal(ask(&w, "m"), 777);
	feed(&w, "m", 400, 0.3, 100);
	assert_true(ask(&w, "m") > 300 && ask(&w, "m") < 2000);
	world_close(&w);
}

static void test_input_estimate_is_on_the_high_side(void **state)
{
	(void)state;
	assert_int_equal(estimate_input(0), 0);
	assert_int_equal(estimate_input(1), 1);
	assert_int_equal(estimate_input(7), 2);
	assert_int_equal(estimate_input(8), 3);
	assert_int_equal(estimate_input(7000), 2000);
	assert_true(estimate_input(UINT64_MAX) > UINT64_MAX / 4);
}

static void test_extremes_do_no_harm(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 11);
	for (int i = 0; i < 50; i++) {
		estimate_learn(&w.r, STR_NULL, STR_NULL, 0, w.now_ns);
		estimate_learn(&w.r, str_of("big"), STR_NULL, UINT64_MAX, w.now_ns);
	}
	assert_true(estimate_output(&w.r, STR_NULL, STR_NULL, 0, 9) <= 3);
	assert_true(estimate_output(&w.r, str_of("big"), STR_NULL, 0, 9) > 1000000);
	w.r.writable = false;
	estimate_learn(&w.r, str_of("reader"), STR_NULL, 1, w.now_ns);
	assert_int_equal(estimate_output(&w.r, str_of("reader"), STR_NULL, 0, 9), 9);
	world_close(&w);
}

static void *learn_many(void *arg)
{
	struct world w = *(struct world *)arg;
	char name[32];

	w.seed ^= (uintptr_t)pthread_self();
	for (unsigned i = 0; i < 20000; i++) {
		snprintf(name, sizeof(name), "m%u", i % 16);
		feed(&w, name, 400, 0.3, 1);
		assert_true(ask(&w, name) <= 500000000);
	}
	return NULL;
}

static void test_threads_share_the_table(void **state)
{
	struct world w;
	pthread_t thread[THREADS];

	(void)state;
	world_open(&w, 12);
	w.r.estimates = 8;
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, learn_many, &w), 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	feed(&w, "last", 400, 0.3, 300);
	assert_true(ask(&w, "last") > 300 && ask(&w, "last") < 2000);
	world_close(&w);
}

static void test_a_call_is_held_for_what_it_may_use(void **state)
{
	struct world w;
	struct str m = str_of("m"), t = str_of("t");

	(void)state;
	world_open(&w, 1);
	/* Not known: the model's maximum, or a constant; never more than the call's own. */
	assert_int_equal(estimate_call(&w.r, m, t, 0, 0, false), ESTIMATE_OUTPUT);
	assert_int_equal(estimate_call(&w.r, m, t, 64000, 0, false), ESTIMATE_OUTPUT);
	assert_int_equal(estimate_call(&w.r, m, t, 64000, 300, false), 300);
	assert_int_equal(estimate_call(&w.r, m, t, 77, 300, false), 77);
	/* Charged at submission: all of it, where it says so. */
	assert_int_equal(estimate_call(&w.r, m, t, 64000, 300, true), 64000);
	assert_int_equal(estimate_call(&w.r, m, t, 0, 300, true), 300);
	feed(&w, "m", 40, 0.1, 500);
	assert_in_range(estimate_call(&w.r, m, t, 64000, 300, false), 30, 80);
	assert_int_equal(estimate_call(&w.r, m, t, 64000, 300, true), 64000);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_converges_to_the_95th_percentile),
		cmocka_unit_test(test_a_call_is_held_for_what_it_may_use),
		cmocka_unit_test(test_is_useful_after_few_samples),
		cmocka_unit_test(test_follows_what_changes),
		cmocka_unit_test(test_never_above_max_tokens),
		cmocka_unit_test(test_tags_and_models_are_apart),
		cmocka_unit_test(test_evicts_the_least_recently_used),
		cmocka_unit_test(test_an_evicted_row_starts_empty),
		cmocka_unit_test(test_garbage_is_nothing),
		cmocka_unit_test(test_input_estimate_is_on_the_high_side),
		cmocka_unit_test(test_extremes_do_no_harm),
		cmocka_unit_test(test_threads_share_the_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
