/* The router's decisions: strategies without learning, the edges, garbage, threads. The score:
 * test-router-score.c; who is out and why: test-router-look.c; routes: test-router-table.c. What
 * becomes of traffic: test-router-traffic.c. */

#include <math.h>
#include <pthread.h>
#include "tests/unit/alloc-watch.h"
#include "tests/unit/router-helpers.h"

#define THREADS 4

/* ---- strategies without learning ---- */

static void test_order_is_as_configured(void **state)
{
	struct world w;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 9000, 100);
	world_target(&w, "b", 100, 1);
	world_target(&w, "c", 200, 1);
	for (int i = 0; i < 100; i++) {
		d = world_decide(&w, ROUTER_ORDER);
		for (unsigned p = 0; p < 3; p++)
			assert_int_equal(d.choice[p].candidate, p);
		assert_int_equal(d.choice[0].reason, ROUTER_CHOSEN);
		assert_int_equal(d.choice[1].reason, ROUTER_FALLBACK);
	}
	world_row(&w, 0)->available = 0;
	d = world_decide(&w, ROUTER_ORDER);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(d.choice[2].candidate, 0);
	world_close(&w);
}

static void test_round_robin_takes_turns_among_the_usable(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;
	_Atomic uint64_t turn = 0;
	unsigned count[4] = { 0 };

	(void)state;
	world_open(&w, 1);
	for (unsigned i = 0; i < 4; i++)
		world_target(&w, (const char *[]){ "a", "b", "c", "d" }[i], 100 * (i + 1), 1);
	world_row(&w, 2)->available = 0;
	q = world_query(&w, ROUTER_ROUND_ROBIN);
	for (unsigned i = 0; i < 300; i++) {
		router_decide(&w.r, &q, w.candidate, w.count, &turn, w.now_ns, &d);
		count[d.choice[0].candidate]++;
		if (i % 3 == 1) {
			assert_int_equal(d.choice[0].candidate, 1);
			assert_int_equal(d.choice[1].candidate, 3);
			assert_int_equal(d.choice[2].candidate, 0);
		}
	}
	assert_int_equal(turn, 300);
	assert_int_equal(count[0], 100);
	assert_int_equal(count[1], 100);
	assert_int_equal(count[3], 100);
	/* A reader's mapping is not written. */
	w.r.writable = false;
	router_decide(&w.r, &q, w.candidate, w.count, &turn, w.now_ns, &d);
	assert_int_equal(turn, 300);
	world_close(&w);
}

/* Regression: LLMKit, weights were kept and never used. */
static void test_llmkit_weights_unused(void **state)
{
	struct world w;
	unsigned count[4] = { 0 }, second[4] = { 0 };

	(void)state;
	world_open(&w, 1);
	for (unsigned i = 0; i < 4; i++) {
		world_target(&w, (const char *[]){ "a", "b", "c", "d" }[i], 100, 1);
		w.candidate[i].weight = i; /* 0 1 2 3 */
	}
	for (int i = 0; i < 60000; i++) {
		struct router_decision d = world_decide(&w, ROUTER_WEIGHTED);

		count[d.choice[0].candidate]++;
		second[d.choice[1].candidate]++;
	}
	assert_int_equal(count[0] + second[0], 0);
	assert_true(abs((int)count[1] - 10000) < 600);
	assert_true(abs((int)count[2] - 20000) < 600);
	assert_true(abs((int)count[3] - 30000) < 600);
	world_close(&w);
}

static void test_weights_of_balanced_decide(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "dear and fast", 100, 10);
	world_target(&w, "cheap and slow", 1000, 1);
	q = world_query(&w, ROUTER_BALANCED);
	q.weight_cost = 800;
	q.weight_latency = 200;
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].candidate, 1);
	q.weight_cost = 200;
	q.weight_latency = 800;
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].candidate, 0);
	/* No weights at all are equal ones. */
	q.weight_cost = q.weight_latency = q.weight_reliability = 0;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 2);
	assert_true(isfinite(d.choice[0].score));
	world_close(&w);
}

/* ---- the edges ---- */

static void test_none_one_and_32(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;
	char name[16];

	(void)state;
	world_open(&w, 1);
	for (unsigned s = 0; s < ROUTER_STRATEGIES; s++) {
		q = world_query(&w, (enum router_strategy)s);
		d = world_ask(&w, &q);
		assert_int_equal(d.count, 0);
		assert_int_equal(d.usable, 0);
	}
	for (unsigned i = 0; i < ROUTER_CANDIDATES; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		world_target(&w, name, 100 + 50 * i, 1);
		for (unsigned s = 0; s < ROUTER_STRATEGIES; s++) {
			d = world_decide(&w, (enum router_strategy)s);
			assert_int_equal(d.count, i + 1);
			assert_int_equal(d.usable, i + 1);
			assert_int_equal(d.choice[0].reason, ROUTER_CHOSEN);
		}
	}
	q = world_query(&w, ROUTER_LATENCY);
	router_decide(&w.r, &q, w.candidate, UINT32_MAX, NULL, w.now_ns, &d);
	assert_int_equal(d.count, ROUTER_CANDIDATES);
	world_close(&w);
}

static void test_names(void **state)
{
	(void)state;
	assert_string_equal(router_strategy_name(ROUTER_ROUND_ROBIN), "round_robin");
	assert_string_equal(router_strategy_name(UINT64_MAX), "unknown");
	assert_string_equal(router_reason_name(ROUTER_OUT_BREAKER), "out: breaker");
	assert_string_equal(router_reason_name(ROUTER_REASONS), "unknown");
	for (unsigned i = 0; i < ROUTER_REASONS; i++)
		assert_string_not_equal(router_reason_name(i), "unknown");
	for (unsigned i = 0; i < ROUTER_STRATEGIES; i++)
		assert_string_not_equal(router_strategy_name(i), "unknown");
}

static void test_decides_without_allocating(void **state)
{
	struct world w;
	size_t calls;

	(void)state;
	world_open(&w, 1);
	world_randomize(&w, ROUTER_CANDIDATES);
	alloc_watch_begin(0);
	for (unsigned i = 0; i < 70; i++)
		world_decide(&w, (enum router_strategy)(i % ROUTER_STRATEGIES));
	calls = alloc_watch_end().calls;
	assert_int_equal(calls, 0);
	world_close(&w);
}

/* The lowest usable answer is still an answer: all are there once, the scores are numbers. */
static void check_sane(const struct router_decision *d, unsigned count)
{
	uint32_t seen = 0;

	assert_int_equal(d->count, count);
	assert_true(d->usable <= count);
	for (unsigned p = 0; p < count; p++) {
		assert_true(d->choice[p].candidate < count);
		seen |= UINT32_C(1) << d->choice[p].candidate;
		assert_true(d->choice[p].reason < ROUTER_REASONS);
		assert_true(isfinite(d->choice[p].score));
		assert_true(d->choice[p].cost_nanousd >= -1);
	}
	assert_true(count == 32 ? seen == UINT32_MAX : seen == (UINT32_C(1) << count) - 1);
}

static void test_garbage_in_every_word_is_survived(void **state)
{
	struct world w;
	struct router_query q;

	(void)state;
	world_open(&w, 7);
	world_randomize(&w, 9);
	for (int i = 0; i < 60000; i++) {
		unsigned victim = (unsigned)splitmix_below(&w.seed, w.count);
		uint64_t value = i % 4 ? splitmix_next(&w.seed) : UINT64_MAX;

		if (i % 2 == 0)
			((uint64_t *)(void *)world_row(
				&w, victim))[1 + splitmix_below(&w.seed, 25)] = value;
		else
			((uint64_t *)(void *)&w.r.breaker[w.candidate[victim].row])[splitmix_below(
				&w.seed, sizeof(struct layout_breaker) / 8)] = value;
		world_row(&w, victim)->available = 1;
		world_row(&w, victim)->capabilities = TARGET_CAPABILITIES;
		world_row(&w, victim)->context = 0;
		q = world_query(&w, (enum router_strategy)(i % ROUTER_STRATEGIES));
		if (i % 7 == 0)
			q = (struct router_query){ .strategy = (enum router_strategy)(i % 4),
				.input_tokens = splitmix_next(&w.seed),
				.output_tokens = splitmix_next(&w.seed),
				.cached_tokens = splitmix_next(&w.seed),
				.patience_ns = splitmix_next(&w.seed),
				.price_cap_nanousd = (int64_t)splitmix_next(&w.seed) };
		{
			struct router_decision d = world_ask(&w, &q);

			check_sane(&d, w.count);
		}
	}
	world_close(&w);
}

static void *decide_many(void *arg)
{
	struct world w = *(struct world *)arg;

	w.seed ^= (uintptr_t)pthread_self();
	for (int i = 0; i < 5000; i++) {
		struct router_decision d = world_decide(&w, (enum router_strategy)(i % 7));
		struct target_sample sample = { 100, (100 + (uint64_t)i % 50) * NSEC_PER_MSEC, 0 };
		unsigned to = d.choice[0].candidate;

		check_sane(&d, w.count);
		target_tried(&w.r, w.candidate[to].row, w.now_ns);
		target_learn(&w.r, w.candidate[to].row, &sample, w.now_ns);
		world_outcome(&w, to, i % 10 != 0, sample.first_token_ns);
	}
	return NULL;
}

static void test_threads_decide_and_learn(void **state)
{
	struct world w;
	pthread_t thread[THREADS];
	struct target_config c = world_config("a");

	(void)state;
	world_open(&w, 1);
	world_add(&w, &c);
	world_target(&w, "b", 300, 1);
	world_target(&w, "c", 300, 1);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, decide_many, &w), 0);
	for (int i = 0; i < 1000; i++)
		assert_true(target_configure(&w.r, &c) >= 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_order_is_as_configured),
		cmocka_unit_test(test_round_robin_takes_turns_among_the_usable),
		cmocka_unit_test(test_llmkit_weights_unused),
		cmocka_unit_test(test_weights_of_balanced_decide),
		cmocka_unit_test(test_none_one_and_32),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_decides_without_allocating),
		cmocka_unit_test(test_garbage_in_every_word_is_survived),
		cmocka_unit_test(test_threads_decide_and_learn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
