/*
 * What becomes of traffic, in virtual time, and a regression for each defect of the library that
 * this one replaces (test_llmkit_...): a cold route is an error, who was never recorded is never
 * tried, failures that look fast, an error rate of a lifetime, a cost of always 100 tokens,
 * everybody to the best.
 */

#include "tests/unit/router-helpers.h"
#include "tests/unit/router-sim.h"

static struct sim *sim_new(struct world *w, enum router_strategy strategy, double rate)
{
	struct sim *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->r = &w->r;
	s->candidate = w->candidate;
	s->query = world_query(w, strategy);
	s->query.input_tokens = 500;
	s->query.output_tokens = 0;
	s->now_ns = w->now_ns;
	s->seed = w->seed;
	s->rate = rate;
	return s;
}

/* A target that nobody has called yet. */
static void sim_add(struct world *w, struct sim *s, const char *name, double first_ms, double usd)
{
	struct target_config c = world_config(name);
	unsigned i;

	c.price_input = c.price_output = (int64_t)(usd * 1e6);
	i = world_add(w, &c);
	s->provider[i] = (struct sim_provider){ .first_ms = first_ms, .sigma = 0.3, .fails_ms = 2 };
	s->count = w->count;
}

static double share(const uint64_t *count, unsigned i, unsigned n)
{
	uint64_t sum = 0;

	for (unsigned k = 0; k < n; k++)
		sum += count[k];
	return (double)count[i] / (double)sum;
}

/* ---- the defects ---- */

/* Regression: LLMKit, without any record a route is an error. */
static void test_llmkit_cold_route_is_an_error(void **state)
{
	static const enum router_strategy all[] = { ROUTER_BALANCED, ROUTER_COST, ROUTER_LATENCY,
		ROUTER_RELIABILITY, ROUTER_ROUND_ROBIN, ROUTER_WEIGHTED, ROUTER_ORDER };
	struct world w;
	struct target_config a = world_config("a"), b = world_config("b");

	(void)state;
	world_open(&w, 1);
	world_add(&w, &a);
	world_add(&w, &b);
	for (unsigned i = 0; i < ARRAY_SIZE(all); i++) {
		struct router_decision d = world_decide(&w, all[i]);

		assert_int_equal(d.usable, 2);
		assert_true(d.choice[0].reason == ROUTER_CHOSEN ||
			d.choice[0].reason == ROUTER_EXPLORED);
		assert_int_equal(d.choice[0].first_token_us, 0);
		assert_int_equal(d.choice[0].cost_nanousd, 200000);
	}
	world_close(&w);
}

/* Regression: LLMKit, a provider that was never recorded is never tried. Here: in 25 % of calls,
 * one at a time, until 10 samples are there; and then it has what it deserves. */
static void test_llmkit_never_recorded_is_never_tried(void **state)
{
	struct world w;
	struct sim *s;
	uint64_t count[3] = { 0 };

	(void)state;
	world_open(&w, 2);
	s = sim_new(&w, ROUTER_LATENCY, 20);
	sim_add(&w, s, "a", 500, 1);
	sim_add(&w, s, "b", 500, 1);
	sim_run(s, 400, NULL);
	sim_add(&w, s, "new", 100, 1);
	sim_run(s, 100, count);
	assert_true(count[2] >= 10);
	sim_run(s, 100, NULL);
	memset(count, 0, sizeof(count));
	sim_run(s, 400, count);
	assert_true(share(count, 2, 3) > 0.9);
	free(s);
	world_close(&w);
}

/* How often of 10000 the last candidate is first, always as explored. */
static unsigned times_explored(struct world *w)
{
	unsigned first = 0, last = w->count - 1;

	for (int i = 0; i < 10000; i++) {
		struct router_decision d = world_decide(w, ROUTER_LATENCY);

		first += d.choice[0].candidate == last;
		assert_int_equal(world_choice(&d, last)->reason,
			d.choice[0].candidate == last ? ROUTER_EXPLORED : ROUTER_COLD);
	}
	return first;
}

static void test_a_new_one_gets_at_most_25_percent_and_one_at_a_time(void **state)
{
	struct world w;
	struct target_config c = world_config("new");
	unsigned first;

	(void)state;
	world_open(&w, 3);
	world_target(&w, "a", 500, 1);
	world_target(&w, "b", 500, 1);
	world_add(&w, &c);
	first = times_explored(&w);
	assert_true(first > 2350 && first < 2650);
	/* What others take is what it is taken for. */
	assert_true(world_decide(&w, ROUTER_LATENCY).choice[2].total_us > 499000);
	world_row(&w, 2)->pending = 1;
	assert_int_equal(times_explored(&w), 0);
	world_row(&w, 2)->pending = 0;
	/* 5 % where what is known of it so far would not do. */
	world_know(&w, 2, 5000, 0);
	world_row(&w, 2)->samples = 5;
	first = times_explored(&w);
	assert_true(first > 420 && first < 580);
	world_close(&w);
}

/* Two new ones, and a caller who waits for each answer. How many of the second 60 calls go to the
 * fast one. */
static unsigned cold_start(uint64_t seed, unsigned fast)
{
	struct world w;
	struct target_config a = world_config("a"), b = world_config("b");
	unsigned right = 0;

	world_open(&w, seed);
	world_add(&w, &a);
	world_add(&w, &b);
	for (unsigned i = 0; i < 120; i++) {
		unsigned to = world_decide(&w, ROUTER_LATENCY).choice[0].candidate;
		uint64_t ns = (to == fast ? 1 : 100) * NSEC_PER_MSEC;
		struct target_sample sample = { .input_tokens = 100, .first_token_ns = ns };

		target_tried(&w.r, w.candidate[to].row, w.now_ns);
		w.now_ns += ns;
		target_learn(&w.r, w.candidate[to].row, &sample, w.now_ns);
		world_outcome(&w, to, true, ns);
		right += i >= 60 && to == fast;
	}
	world_close(&w);
	return right;
}

static void test_of_two_new_ones_the_fast_one_is_found_within_60_calls(void **state)
{
	unsigned good = 0;

	(void)state;
	for (unsigned fast = 0; fast < 2; fast++)
		for (uint64_t seed = 0; seed < 200; seed++)
			good += cold_start(seed, fast) >= 42;
	if (good < 380)
		fail_msg("%u of 400", good);
}

/* A new one that only fails, and whose breaker never opens: its errors keep it back. */
static void test_a_new_one_that_fails_gets_no_more_than_its_share(void **state)
{
	struct breaker_settings off = breaker_preset(BREAKER_PRODUCTION);
	uint64_t count[2] = { 0 };
	struct world w;
	struct sim *s;

	(void)state;
	off.run = off.ratio_percent = 0;
	off.z_percent = 0;
	world_open(&w, 12);
	s = sim_new(&w, ROUTER_LATENCY, 10);
	sim_add(&w, s, "a", 500, 1);
	sim_run(s, 100, NULL);
	sim_add(&w, s, "fails", 5, 1);
	breaker_configure(&w.r, w.candidate[1].row, &off);
	s->provider[1].fails = 1;
	sim_run(s, 3000, count);
	assert_true(count[1] >= 1);
	if (share(count, 1, 2) > 0.05)
		fail_msg("%f", share(count, 1, 2));
	free(s);
	world_close(&w);
}

static void test_one_not_tried_for_a_minute_gets_1_percent(void **state)
{
	struct world w;
	unsigned first = 0;

	(void)state;
	world_open(&w, 4);
	world_target(&w, "fast", 100, 1);
	world_target(&w, "slow", 5000, 1);
	for (int i = 0; i < 2000; i++)
		assert_int_equal(world_decide(&w, ROUTER_LATENCY).choice[0].candidate, 0);
	world_row(&w, 1)->tried_ns = w.now_ns - 61 * NSEC_PER_SEC;
	for (int i = 0; i < 100000; i++)
		first += world_decide(&w, ROUTER_LATENCY).choice[0].candidate == 1;
	assert_true(first > 850 && first < 1150);
	/* Nobody pays ten times as much to learn of what would not be chosen. */
	world_row(&w, 1)->price_input = world_row(&w, 1)->price_output = 10000000;
	for (int i = 0; i < 5000; i++)
		assert_int_equal(world_decide(&w, ROUTER_COST).choice[0].candidate, 0);
	world_close(&w);
}

/* Regression: LLMKit, failures count as fast answers: 900 ms and well against 2 ms and dead. */
static void black_hole(uint64_t seed, enum router_strategy strategy, bool breakers, bool was_well)
{
	struct world w;
	struct sim *s;
	uint64_t count[2] = { 0 };
	/* Counts, but never opens: the router alone. */
	struct breaker_settings off = breaker_preset(BREAKER_PRODUCTION);

	off.run = off.ratio_percent = 0;
	off.z_percent = 0;
	world_open(&w, seed);
	s = sim_new(&w, strategy, 10);
	sim_add(&w, s, "good", 900, 1);
	sim_add(&w, s, "dead", was_well ? 600 : 2, 1);
	if (!breakers)
		breaker_configure(&w.r, w.candidate[1].row, &off);
	s->provider[1].fails = was_well ? 0 : 1;
	sim_run(s, 300, NULL);
	s->provider[1].fails = 1;
	/* Without a breaker, until its good past has left the window. */
	sim_run(s, breakers ? 20 : 350, NULL);
	sim_run(s, 6000, count);
	if (!(share(count, 1, 2) < 0.01))
		fail_msg("seed %lu strategy %d breakers %d well %d: %f", (unsigned long)seed,
			strategy, breakers, was_well, share(count, 1, 2));
	assert_int_equal(s->lost, 0);
	free(s);
	world_close(&w);
}

static void test_llmkit_failures_that_look_fast(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 4; seed++) {
		for (unsigned strategy = 0; strategy <= ROUTER_RELIABILITY; strategy++) {
			black_hole(seed, (enum router_strategy)strategy, true, false);
			black_hole(seed, (enum router_strategy)strategy, true, true);
			black_hole(seed, (enum router_strategy)strategy, false, false);
			black_hole(seed, (enum router_strategy)strategy, false, true);
		}
	}
}

/* Regression: LLMKit, the error rate is of a lifetime: who was bad for an hour is bad for ever. */
static void test_llmkit_lifetime_error_rate(void **state)
{
	struct world w;
	struct sim *s;
	uint64_t count[2] = { 0 };

	(void)state;
	world_open(&w, 5);
	s = sim_new(&w, ROUTER_RELIABILITY, 10);
	sim_add(&w, s, "a", 500, 1);
	sim_add(&w, s, "b", 500, 1);
	s->provider[0].fails = 0.02;
	s->provider[1].fails = 0.6;
	sim_run(s, 20000, NULL);
	assert_true(s->provider[1].calls < 1000);
	s->provider[1].fails = 0;
	sim_run(s, 1800, NULL);
	sim_run(s, 2000, count);
	assert_true(share(count, 1, 2) > 0.5);
	free(s);
	world_close(&w);
}

/* Regression: LLMKit, every call costs 100 tokens. Which is cheaper depends on what is long. */
static void test_llmkit_constant_100_tokens(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;

	(void)state;
	world_open(&w, 6);
	world_target(&w, "cheap to read", 500, 1);
	world_target(&w, "cheap to write", 500, 1);
	world_row(&w, 0)->price_input = 100000;
	world_row(&w, 0)->price_output = 9000000;
	q = world_query(&w, ROUTER_COST);
	q.input_tokens = 10000;
	q.output_tokens = 10;
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].candidate, 0);
	assert_int_equal(d.choice[0].cost_nanousd, 1090000);
	q.input_tokens = 10;
	q.output_tokens = 10000;
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].candidate, 1);
	/* And on what is cached. */
	q.input_tokens = 10000;
	q.output_tokens = 10;
	world_row(&w, 1)->price_cached = 0;
	q.cached_tokens = 9990;
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].candidate, 1);
	world_close(&w);
}

/* Regression: LLMKit, everybody runs to the one with the best score. Many decide at one
 * instant, before any of them is seen in flight. */
static void test_llmkit_herding_to_the_best(void **state)
{
	struct world w;
	unsigned count[8] = { 0 };
	char name[8];

	(void)state;
	world_open(&w, 7);
	for (unsigned i = 0; i < 8; i++) {
		snprintf(name, sizeof(name), "t%u", i);
		world_target(&w, name, 500 + 10 * i, 1);
	}
	for (int i = 0; i < 8000; i++)
		count[world_decide(&w, ROUTER_LATENCY).choice[0].candidate]++;
	/* The best of two distinct ones among eight: a quarter for the best, none for the last. */
	assert_true(count[0] > 1800 && count[0] < 2200);
	for (unsigned i = 1; i < 7; i++)
		assert_true(count[i] > 150 && count[i] < count[0]);
	assert_int_equal(count[7], 0);
	world_close(&w);
}

/* One far behind is no choice, however often two are drawn. */
static void test_who_is_far_behind_is_never_first(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 8);
	world_target(&w, "a", 500, 1);
	world_target(&w, "b", 1500, 1);
	world_target(&w, "c", 1600, 1);
	world_target(&w, "d", 1700, 1);
	for (int i = 0; i < 5000; i++)
		assert_int_equal(world_decide(&w, ROUTER_LATENCY).choice[0].candidate, 0);
	world_close(&w);
}

/* ---- the figures ---- */

/* A provider becomes 5 times slower: 20 calls later 9 of 10 go elsewhere. */
static void test_a_slowdown_moves_traffic_within_20_calls(void **state)
{
	double moved = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 40; seed++) {
		struct world w;
		struct sim *s;
		uint64_t count[3] = { 0 };

		world_open(&w, seed);
		s = sim_new(&w, ROUTER_LATENCY, 2);
		sim_add(&w, s, "a", 300, 1);
		sim_add(&w, s, "b", 400, 1);
		sim_add(&w, s, "c", 400, 1);
		sim_run(s, 400, NULL);
		s->provider[0].first_ms *= 5;
		sim_run(s, 20, NULL);
		sim_run(s, 30, count);
		moved += (1 - share(count, 0, 3)) / 40;
		free(s);
		world_close(&w);
	}
	assert_true(moved > 0.9);
}

/* It recovers: within a minute it has its share again. */
static void test_a_recovered_one_regains_its_share_within_a_minute(void **state)
{
	(void)state;
	for (unsigned fault = 0; fault < 2; fault++) {
		double before = 0, during = 0, after = 0;

		for (uint64_t seed = 0; seed < 10; seed++) {
			struct world w;
			struct sim *s;
			uint64_t count[3][2] = { { 0 } };

			world_open(&w, seed);
			s = sim_new(&w, ROUTER_LATENCY, 10);
			sim_add(&w, s, "a", 300, 1);
			sim_add(&w, s, "b", 450, 1);
			sim_run(s, 600, NULL);
			sim_run(s, 600, count[0]);
			if (fault == 0)
				s->provider[0].first_ms = 3000;
			else
				s->provider[0].fails = 1;
			sim_run(s, 200, NULL);
			sim_run(s, 600, count[1]);
			s->provider[0].first_ms = 300;
			s->provider[0].fails = 0;
			sim_run(s, 600, NULL);
			sim_run(s, 600, count[2]);
			before += share(count[0], 0, 2) / 10;
			during += share(count[1], 0, 2) / 10;
			after += share(count[2], 0, 2) / 10;
			free(s);
			world_close(&w);
		}
		assert_true(before > 0.6);
		assert_true(during < 0.1);
		assert_true(after > before * 0.8);
	}
}

/* Nobody says how long it will stay: what was learned of an idle one fades. */
static void test_what_was_learned_fades(void **state)
{
	struct world w;
	struct router_decision d;

	(void)state;
	world_open(&w, 9);
	world_target(&w, "a", 300, 1);
	world_target(&w, "b", 300, 1);
	world_target(&w, "was slow", 30000, 1);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_true(world_choice(&d, 2)->total_us > 29000000);
	w.now_ns += 31 * NSEC_PER_SEC;
	d = world_decide(&w, ROUTER_LATENCY);
	assert_true(world_choice(&d, 2)->total_us < 3000000);
	w.now_ns += 150 * NSEC_PER_SEC;
	d = world_decide(&w, ROUTER_LATENCY);
	assert_true(world_choice(&d, 2)->total_us < 330000);
	assert_true(world_choice(&d, 2)->total_us > 290000);
	world_close(&w);
}

/* Requests in flight count at once, long before they end. */
static void test_pending_requests_spread_a_burst(void **state)
{
	struct world w;
	unsigned count[4] = { 0 };

	(void)state;
	world_open(&w, 10);
	for (unsigned i = 0; i < 4; i++)
		world_target(&w, (const char *[]){ "a", "b", "c", "d" }[i], 500, 1);
	for (int i = 0; i < 400; i++) {
		unsigned to = world_decide(&w, ROUTER_LATENCY).choice[0].candidate;

		count[to]++;
		atomic_fetch_add(&world_row(&w, to)->pending, 1);
	}
	for (unsigned i = 0; i < 4; i++)
		assert_true(count[i] > 85 && count[i] < 115);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_llmkit_cold_route_is_an_error),
		cmocka_unit_test(test_llmkit_never_recorded_is_never_tried),
		cmocka_unit_test(test_a_new_one_gets_at_most_25_percent_and_one_at_a_time),
		cmocka_unit_test(test_of_two_new_ones_the_fast_one_is_found_within_60_calls),
		cmocka_unit_test(test_a_new_one_that_fails_gets_no_more_than_its_share),
		cmocka_unit_test(test_one_not_tried_for_a_minute_gets_1_percent),
		cmocka_unit_test(test_llmkit_failures_that_look_fast),
		cmocka_unit_test(test_llmkit_lifetime_error_rate),
		cmocka_unit_test(test_llmkit_constant_100_tokens),
		cmocka_unit_test(test_llmkit_herding_to_the_best),
		cmocka_unit_test(test_who_is_far_behind_is_never_first),
		cmocka_unit_test(test_a_slowdown_moves_traffic_within_20_calls),
		cmocka_unit_test(test_a_recovered_one_regains_its_share_within_a_minute),
		cmocka_unit_test(test_what_was_learned_fades),
		cmocka_unit_test(test_pending_requests_spread_a_burst),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
