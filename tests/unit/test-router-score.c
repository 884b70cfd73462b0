/* The router's score and order against a plain reference; prices, predictions, what is not known.
 */

#include <math.h>
#include "tests/unit/router-helpers.h"

/* ---- a plain reference ---- */

struct guess {
	bool usable;
	double first_us, total_us, score;
};

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* ln(us) or 0, and how much of it counts against the others'. */
static double known_of(struct world *w, unsigned i, uint64_t word, double *keep)
{
	double samples = (double)min_u64(world_row(w, i)->samples, 10) / 10;
	double idle_ms = (double)(uint32_t)(w->now_ns / NSEC_PER_MSEC - (uint32_t)word);

	*keep = samples * exp(-fmax(idle_ms - 1000, 0) / 30000);
	return (double)ewma_value(word);
}

static double lower_median(const double *value, const struct guess *g, unsigned n, double otherwise)
{
	double known[ROUTER_CANDIDATES];
	unsigned count = 0;

	for (unsigned i = 0; i < n; i++)
		if (g[i].usable && value[i] > 0)
			known[count++] = value[i];
	qsort(known, count, sizeof(known[0]), by_value);
	return count ? known[(count - 1) / 2] : otherwise;
}

static double cost_of(struct world *w, unsigned i, const struct router_query *q)
{
	struct layout_target *t = world_row(w, i);
	double cached =
		(int64_t)t->price_cached < 0 ? (double)t->price_input : (double)t->price_cached;

	if ((int64_t)t->price_input < 0 || (int64_t)t->price_output < 0)
		return -1;
	return (double)t->price_input * (double)(q->input_tokens - q->cached_tokens) +
		cached * (double)q->cached_tokens +
		(double)t->price_output * (double)q->output_tokens;
}

static bool passes(struct world *w, unsigned i, const struct router_query *q)
{
	struct layout_target *t = world_row(w, i);
	double cost = cost_of(w, i, q);
	uint64_t wait_ns;

	return t->available == 1 && (t->capabilities & q->capabilities) == q->capabilities &&
		(t->context == 0 || q->input_tokens + q->output_tokens <= t->context) &&
		(q->price_cap_nanousd < 0 ||
			(cost >= 0 && ceil(cost / 1000) <= (double)q->price_cap_nanousd)) &&
		breaker_check(&w->r, w->candidate[i].row, w->now_ns, &wait_ns) != BREAKER_REJECT;
}

static void guess_all(
	struct world *w, const struct router_query *q, const double weight[3], struct guess *g)
{
	double first[ROUTER_CANDIDATES], gap[ROUTER_CANDIDATES], keep_first[ROUTER_CANDIDATES];
	double keep_gap[ROUTER_CANDIDATES], dearest = 0, all_first, all_gap;
	double sum = weight[0] + weight[1] + weight[2];

	for (unsigned i = 0; i < w->count; i++) {
		struct layout_target *t = world_row(w, i);
		unsigned class = target_prompt_class(q->input_tokens);

		g[i].usable = passes(w, i, q);
		first[i] = known_of(w, i, t->first_token[class], &keep_first[i]);
		gap[i] = known_of(w, i, t->gap, &keep_gap[i]);
		dearest = fmax(dearest, cost_of(w, i, q));
	}
	all_first = lower_median(first, g, w->count, log(1e6));
	all_gap = lower_median(gap, g, w->count, -80);
	for (unsigned i = 0; i < w->count; i++) {
		double errors = (double)breaker_error_ratio(&w->r, w->candidate[i].row, w->now_ns);
		double cost = cost_of(w, i, q);
		double f = first[i] > 0 ? all_first + (first[i] - all_first) * keep_first[i] :
					  all_first;
		double p = gap[i] > 0 ? all_gap + (gap[i] - all_gap) * keep_gap[i] : all_gap;

		cost = (cost < 0 ? dearest : cost) + 1e5;
		g[i].first_us = exp(f);
		g[i].total_us = exp(f) + (double)q->output_tokens * exp(p);
		g[i].score = weight[1] / sum *
				log(g[i].total_us *
					(1 + (double)target_pending(&w->r, w->candidate[i].row))) +
			weight[0] / sum * log(cost) - (1 + 8 * weight[2] / sum) * log(1 - errors) +
			(errors > 0.5 ? 64 : 0);
	}
}

/* The score of every usable one, which those are, and that the others follow by it. */
static void check_decision(struct world *w, const struct router_decision *d, const struct guess *g)
{
	unsigned usable = 0;
	bool seen[ROUTER_CANDIDATES] = { false };

	for (unsigned i = 0; i < w->count; i++)
		usable += g[i].usable;
	assert_int_equal(d->count, w->count);
	assert_int_equal(d->usable, usable);
	for (unsigned p = 0; p < d->count; p++) {
		const struct router_choice *c = &d->choice[p];
		const struct guess *truth = &g[c->candidate];

		assert_false(seen[c->candidate]);
		seen[c->candidate] = true;
		assert_int_equal(truth->usable, p < usable);
		assert_int_equal(c->reason < ROUTER_OUT_UNAVAILABLE, p < usable);
		if (p >= usable)
			continue;
		assert_true(fabs((double)c->score - truth->score) < 2e-3);
		assert_true(fabs((double)c->total_us / truth->total_us - 1) < 2e-3);
		assert_true(fabs((double)c->first_token_us / truth->first_us - 1) < 2e-3);
		if (p > 1)
			assert_true(g[d->choice[p - 1].candidate].score < truth->score + 4e-3);
	}
}

static void test_score_and_order_are_the_references(void **state)
{
	static const double weight[][3] = { { 333, 333, 333 }, { 1000, 10, 0 }, { 0, 1000, 0 },
		{ 0, 10, 1000 } };

	(void)state;
	for (uint64_t seed = 0; seed < 400; seed++) {
		struct world w;
		struct guess g[ROUTER_CANDIDATES];
		struct router_query q;
		struct router_decision d;

		world_open(&w, seed);
		world_randomize(&w, 1 + (unsigned)splitmix_below(&w.seed, ROUTER_CANDIDATES));
		q = world_query(&w, (enum router_strategy)(seed % 4));
		q.input_tokens = splitmix_below(&w.seed, 1000);
		q.cached_tokens = splitmix_below(&w.seed, q.input_tokens + 1);
		if (seed % 3 == 0)
			q.capabilities = TARGET_VISION;
		if (seed % 5 == 0)
			q.price_cap_nanousd = (int64_t)splitmix_below(&w.seed, 10000000);
		guess_all(&w, &q, weight[q.strategy], g);
		d = world_ask(&w, &q);
		if (d.usable > 0 && d.choice[0].reason != ROUTER_PANIC)
			check_decision(&w, &d, g);
		world_close(&w);
	}
}

/* Up to 3 calls, few or most. */
static void fail_some(struct world *w, unsigned i)
{
	unsigned well = splitmix_below(&w->seed, 4) ? 10 : 1;

	for (uint64_t k = splitmix_below(&w->seed, 4); k > 0; k--)
		world_outcome(w, i, false, 0);
	for (unsigned k = 0; k < well; k++)
		world_outcome(w, i, true, 0);
}

/* All known and well, or some failed some calls: no more is looked at than that, and it is as by
 * the reference all the same, also where one was learned of a little too long ago, or never. */
static void test_plain_ones_are_scored_as_any(void **state)
{
	static const double weight[3] = { 333, 333, 333 };

	(void)state;
	for (uint64_t seed = 0; seed < 600; seed++) {
		struct world w;
		struct guess g[ROUTER_CANDIDATES];
		struct router_query q;
		struct router_decision d;
		unsigned n, odd;
		char name[16];

		world_open(&w, seed);
		n = 1 + (unsigned)splitmix_below(&w.seed, ROUTER_CANDIDATES);
		for (unsigned i = 0; i < n; i++) {
			snprintf(name, sizeof(name), "t%u", i);
			world_target(&w, name, 100 + (double)splitmix_below(&w.seed, 3000),
				1 + (double)splitmix_below(&w.seed, 9));
			world_know(&w, i, 100 + (double)splitmix_below(&w.seed, 3000),
				5 + (double)splitmix_below(&w.seed, 20));
			world_row(&w, i)->pending = splitmix_below(&w.seed, 3);
			if (seed % 3 == 1 && splitmix_below(&w.seed, 3) > 0)
				fail_some(&w, i);
		}
		w.now_ns += splitmix_below(&w.seed, 900) * NSEC_PER_MSEC;
		odd = (unsigned)splitmix_below(&w.seed, n);
		if (seed % 4 == 1)
			world_row(&w, odd)->gap -= splitmix_below(&w.seed, 50000);
		else if (seed % 4 == 2)
			world_row(&w, odd)->first_token[0] -= splitmix_below(&w.seed, 50000);
		else if (seed % 4 == 3)
			world_row(&w, odd)->gap = ewma_pack(seed % 8 == 3 ? 80 : -3, 1000000);
		q = world_query(&w, ROUTER_BALANCED);
		guess_all(&w, &q, weight, g);
		d = world_ask(&w, &q);
		check_decision(&w, &d, g);
		assert_int_equal(d.choice[0].reason, ROUTER_CHOSEN);
		assert_true(g[d.choice[0].candidate].score <
			g[d.choice[n > 1].candidate].score + 0.333 * log(1.5) + 1e-2);
		world_close(&w);
	}
}

/* ---- prices, predictions ---- */

static void test_cost_is_exact_and_cached_tokens_have_their_price(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;
	struct layout_target *t;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "t", 300, 1);
	world_know(&w, 0, 300, 10);
	t = world_row(&w, 0);
	t->price_input = 2500000;
	t->price_output = 10000001;
	t->price_cached = 1250000;
	q = world_query(&w, ROUTER_COST);
	q.input_tokens = 1000;
	q.cached_tokens = 400;
	q.output_tokens = 7;
	d = world_ask(&w, &q);
	/* 600 * 2500 + 400 * 1250 + 7 * 10000.001, rounded up */
	assert_int_equal(d.choice[0].cost_nanousd, 1500000 + 500000 + 70001);
	t->price_cached = UINT64_MAX;
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].cost_nanousd, 2500000 + 70001);
	q.cached_tokens = UINT64_MAX; /* no more than there are */
	t->price_cached = 0;
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].cost_nanousd, 70001);
	t->price_input = UINT64_MAX;
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].cost_nanousd, -1);
	/* The largest of everything overflows nothing. */
	t->price_input = t->price_output = t->price_cached = TARGET_PRICE_MAX;
	q.input_tokens = q.output_tokens = UINT64_MAX;
	d = world_ask(&w, &q);
	assert_true(d.choice[0].cost_nanousd > 0);
	world_close(&w);
}

static void test_prediction_is_of_the_prompts_class_and_the_answers_length(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "t", 300, 1);
	world_know(&w, 0, 300, 20);
	world_row(&w, 0)->first_token[2] =
		ewma_pack(ewma_ln(2000000), (uint32_t)(w.now_ns / NSEC_PER_MSEC));
	q = world_query(&w, ROUTER_LATENCY);
	q.output_tokens = 50;
	d = world_ask(&w, &q);
	assert_true(fabs((double)d.choice[0].first_token_us - 300000) < 100);
	assert_true(fabs((double)d.choice[0].total_us - 1300000) < 500);
	q.input_tokens = 4000;
	d = world_ask(&w, &q);
	assert_true(fabs((double)d.choice[0].first_token_us - 2000000) < 500);
	world_close(&w);
}

static void know_class(struct world *w, unsigned i, unsigned class, double first_ms)
{
	world_row(w, i)->first_token[class] = first_ms > 0 ?
		ewma_pack(ewma_ln((float)first_ms * 1000), (uint32_t)(w->now_ns / NSEC_PER_MSEC)) :
		EWMA_NONE;
}

/* In ms, of prompts of 1000 tokens: class 1. */
static double predicted(struct world *w, unsigned i)
{
	struct router_query q = world_query(w, ROUTER_LATENCY);
	struct router_decision d;

	q.input_tokens = 1000;
	d = world_ask(w, &q);
	return (double)world_choice(&d, i)->first_token_us / 1000;
}

static void forget_classes(struct world *w, unsigned i)
{
	for (unsigned k = 0; k < TARGET_PROMPT_CLASSES; k++)
		know_class(w, i, k, 0);
}

static bool near(double value, double truth)
{
	return value > truth * 0.99 && value < truth * 1.01;
}

static void test_a_class_without_samples_has_the_nearest_ones(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "slow", 100, 1);
	world_target(&w, "fast", 0.5, 1);
	world_know(&w, 0, 100, 5);
	world_know(&w, 1, 0.5, 5);
	forget_classes(&w, 0);
	forget_classes(&w, 1);
	know_class(&w, 0, 0, 100);
	know_class(&w, 1, 0, 0.5);
	assert_true(near(predicted(&w, 0), 100) && near(predicted(&w, 1), 0.5));
	/* The nearer; of two as near, the shorter. */
	know_class(&w, 0, 3, 9000);
	assert_true(near(predicted(&w, 0), 100));
	know_class(&w, 0, 2, 7000);
	assert_true(near(predicted(&w, 0), 100));
	/* One from longer prompts says only how long it takes at most. */
	know_class(&w, 0, 0, 0);
	know_class(&w, 1, 1, 300);
	assert_true(near(predicted(&w, 0), 300));
	know_class(&w, 0, 2, 200);
	assert_true(near(predicted(&w, 0), 200));
	/* Nothing at all is the median, too; and garbage is nothing. */
	forget_classes(&w, 0);
	assert_true(near(predicted(&w, 0), 300));
	world_row(&w, 0)->first_token[0] = UINT64_MAX;
	assert_true(near(predicted(&w, 0), 300));
	world_close(&w);
}

/* What no average can be counts as not known: as what the others take. */
static void test_a_garbage_average_is_the_median(void **state)
{
	static const float bad[] = { NAN, INFINITY, -INFINITY, -3, 80, 1e30f, 1e-30f };
	struct world w;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	world_target(&w, "c", 900, 1);
	world_target(&w, "d", 1000, 1);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		struct router_decision d;

		world_row(&w, 3)->first_token[0] =
			ewma_pack(bad[i], (uint32_t)(w.now_ns / NSEC_PER_MSEC));
		d = world_decide(&w, ROUTER_LATENCY);
		assert_true(fabs((double)world_choice(&d, 3)->total_us - 300000) < 300);
	}
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_score_and_order_are_the_references),
		cmocka_unit_test(test_plain_ones_are_scored_as_any),
		cmocka_unit_test(test_cost_is_exact_and_cached_tokens_have_their_price),
		cmocka_unit_test(test_prediction_is_of_the_prompts_class_and_the_answers_length),
		cmocka_unit_test(test_a_class_without_samples_has_the_nearest_ones),
		cmocka_unit_test(test_a_garbage_average_is_the_median),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
