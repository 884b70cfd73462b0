/* The router's decisions: filters, score and order against a plain reference, limits, breakers,
 * panic, strategies without learning, routes, garbage. What becomes of traffic:
 * test-router-traffic.c. */

#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include "shm/bucket.h"
#include "shm/bucket_table.h"
#include "tests/unit/alloc-watch.h"
#include "tests/unit/router-helpers.h"

#define THREADS 4

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

static void randomize(struct world *w, unsigned n)
{
	char name[16];

	for (unsigned i = 0; i < n; i++) {
		struct target_config c;
		struct layout_target *t;
		uint32_t ms = (uint32_t)(w->now_ns / NSEC_PER_MSEC);

		snprintf(name, sizeof(name), "t%u", i);
		c = world_config(name);
		c.price_input = (int64_t)splitmix_below(&w->seed, 30000000);
		c.price_output = (int64_t)splitmix_below(&w->seed, 30000000);
		c.price_cached = i % 2 ? -1 : c.price_input / 2;
		if (splitmix_below(&w->seed, 8) == 0)
			c.price_output = -1;
		c.context = splitmix_below(&w->seed, 4) ? 0 : 500;
		c.capabilities = splitmix_below(&w->seed, 4) ? TARGET_CAPABILITIES : TARGET_TOOLS;
		c.available = splitmix_below(&w->seed, 8) != 0;
		world_add(w, &c);
		t = world_row(w, i);
		t->samples = splitmix_below(&w->seed, 30);
		t->tried_ns = w->now_ns;
		t->pending = splitmix_below(&w->seed, 5);
		for (unsigned k = 0; k < TARGET_PROMPT_CLASSES; k++)
			t->first_token[k] =
				ewma_pack(10 + (float)splitmix_below(&w->seed, 6000) / 1000,
					ms - (uint32_t)splitmix_below(&w->seed, 40000));
		if (splitmix_below(&w->seed, 3))
			t->gap = ewma_pack(8 + (float)splitmix_below(&w->seed, 4000) / 1000, ms);
		for (uint64_t k = splitmix_below(&w->seed, 20); k > 0; k--)
			world_outcome(w, i, splitmix_below(&w->seed, 4) != 0, 0);
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
		randomize(&w, 1 + (unsigned)splitmix_below(&w.seed, ROUTER_CANDIDATES));
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

/* All known and well, or some failed some calls: no more is looked at than that, and it is as by the
 * reference all the same, also where one was learned of a little too long ago, or never. */
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

/* ---- filters ---- */

static enum router_reason reason_of(struct world *w, const struct router_query *q, unsigned i)
{
	struct router_decision d = world_ask(w, q);

	return world_choice(&d, i)->reason;
}

static void test_filters(void **state)
{
	struct world w;
	struct router_query q;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "good", 300, 1);
	world_target(&w, "other", 300, 1);
	q = world_query(&w, ROUTER_LATENCY);
	assert_true(reason_of(&w, &q, 1) < ROUTER_OUT_UNAVAILABLE);

	world_row(&w, 1)->available = 0;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_UNAVAILABLE);
	world_row(&w, 1)->available = 77; /* garbage is no permission */
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_UNAVAILABLE);
	world_row(&w, 1)->available = 1;

	q.capabilities = TARGET_VISION | TARGET_TOOLS;
	world_row(&w, 1)->capabilities = TARGET_TOOLS;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_CAPABILITY);
	world_row(&w, 1)->capabilities = TARGET_CAPABILITIES;

	world_row(&w, 1)->context = 199; /* 100 in, 100 out */
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_CONTEXT);
	world_row(&w, 1)->context = 99;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_CONTEXT);
	world_row(&w, 1)->context = 200;
	assert_true(reason_of(&w, &q, 1) < ROUTER_OUT_UNAVAILABLE);

	q.price_cap_nanousd = 200000; /* 200 tokens at a dollar a million */
	assert_true(reason_of(&w, &q, 1) < ROUTER_OUT_UNAVAILABLE);
	world_row(&w, 1)->price_output = 1000001;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_PRICE);
	world_row(&w, 1)->price_output = UINT64_MAX;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_PRICE);
	q.price_cap_nanousd = -1;
	assert_true(reason_of(&w, &q, 1) < ROUTER_OUT_UNAVAILABLE);

	w.candidate[1].key++;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_UNAVAILABLE);
	w.candidate[1].row = UINT32_MAX;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_UNAVAILABLE);
	world_close(&w);
}

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

/* ---- limits and pauses ---- */

static void limit_to_one(struct world *w, unsigned i, struct bucket_set *set, const char *name)
{
	struct bucket_limit limit = { .scope = BUCKET_SCOPE_MODEL,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of(name),
		.limit = 1,
		.window_ns = 10 * NSEC_PER_SEC,
		.burst = 1 };

	assert_true(bucket_configure(&w->r, &limit, w->now_ns) >= 0);
	*set = (struct bucket_set){ 0 };
	assert_true(bucket_set_add(set, &w->r, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, str_of(name)));
	w->candidate[i].limits = set;
	assert_int_equal(bucket_acquire(&w->r, set, 1, w->now_ns).outcome, BUCKET_OK);
}

static void test_a_budget_that_is_used_up_waits_or_is_out(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;
	struct bucket_set set, other;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "fast", 100, 1);
	world_target(&w, "slow", 2000, 1);
	limit_to_one(&w, 0, &set, "fast");
	q = world_query(&w, ROUTER_LATENCY);
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 1);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(d.choice[1].reason, ROUTER_OUT_BUDGET);
	assert_int_equal(d.choice[1].wait_ns, 10 * NSEC_PER_SEC);

	/* With patience it is in, but the wait counts. */
	q.patience_ns = 10 * NSEC_PER_SEC;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 2);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(d.choice[1].wait_ns, 10 * NSEC_PER_SEC);
	assert_int_equal(d.choice[1].reason, ROUTER_FALLBACK);
	w.now_ns += 9900 * NSEC_PER_MSEC;
	world_know(&w, 0, 100, 0);
	world_know(&w, 1, 2000, 0);
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].candidate, 0);
	assert_int_equal(d.choice[0].wait_ns, 100 * NSEC_PER_MSEC);

	/* All out: the earliest. */
	q.patience_ns = 0;
	limit_to_one(&w, 1, &other, "slow");
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 0);
	assert_int_equal(d.wait_ns, 100 * NSEC_PER_MSEC);
	world_close(&w);
}

static void test_what_never_fits_is_out_for_the_most_patient(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;
	struct bucket_set set;
	struct bucket_limit limit = { .scope = BUCKET_SCOPE_MODEL,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_RATE,
		.name = str_of("t"),
		.limit = 1000,
		.window_ns = 60 * NSEC_PER_SEC,
		.burst = 150 };

	(void)state;
	world_open(&w, 1);
	world_target(&w, "t", 100, 1);
	assert_true(bucket_configure(&w.r, &limit, w.now_ns) >= 0);
	set = (struct bucket_set){ 0 };
	assert_true(bucket_set_add(&set, &w.r, BUCKET_SCOPE_MODEL, BUCKET_TOKENS, str_of("t")));
	w.candidate[0].limits = &set;
	q = world_query(&w, ROUTER_LATENCY); /* 200 tokens */
	q.patience_ns = UINT64_MAX;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 0);
	assert_int_equal(d.choice[0].reason, ROUTER_OUT_BUDGET);
	assert_true(d.wait_ns == UINT64_MAX);
	q.output_tokens = 50;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 1);
	world_close(&w);
}

static void test_a_paused_target_waits_or_is_out(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	target_pause(&w.r, w.candidate[0].row, w.now_ns + 5 * NSEC_PER_SEC, w.now_ns);
	q = world_query(&w, ROUTER_LATENCY);
	d = world_ask(&w, &q);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_PAUSED);
	assert_int_equal(world_choice(&d, 0)->wait_ns, 5 * NSEC_PER_SEC);
	q.patience_ns = 5 * NSEC_PER_SEC;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 2);
	assert_int_equal(d.choice[0].candidate, 1);
	/* Its own where its provider has none, and its provider's. */
	q.patience_ns = 0;
	world_row(&w, 0)->provider = w.candidate[1].row;
	d = world_ask(&w, &q);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_PAUSED);
	world_row(&w, 1)->provider = w.candidate[0].row;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 0);
	assert_int_equal(d.wait_ns, 5 * NSEC_PER_SEC);
	w.now_ns += 5 * NSEC_PER_SEC;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 2);
	world_close(&w);
}

/* ---- breakers ---- */

static void break_it(struct world *w, unsigned i)
{
	uint64_t wait_ns;

	for (int k = 0; k < 5; k++)
		world_outcome(w, i, false, 0);
	assert_int_equal(
		breaker_check(&w->r, w->candidate[i].row, w->now_ns, &wait_ns), BREAKER_REJECT);
}

static void test_an_open_breaker_is_out_unless_all_are(void **state)
{
	struct world w;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	world_target(&w, "no key", 300, 1);
	world_row(&w, 2)->available = 0;
	break_it(&w, 0);
	d = world_decide(&w, ROUTER_BALANCED);
	assert_int_equal(d.usable, 1);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_BREAKER);
	assert_true(world_choice(&d, 0)->wait_ns > 0);
	assert_int_equal(d.choice[0].reason, ROUTER_CHOSEN);
	break_it(&w, 1);
	d = world_decide(&w, ROUTER_BALANCED);
	assert_int_equal(d.usable, 2);
	assert_int_equal(d.choice[0].reason, ROUTER_PANIC);
	assert_int_equal(d.choice[1].reason, ROUTER_PANIC);
	assert_int_equal(d.choice[0].candidate, 0);
	assert_int_equal(d.choice[2].reason, ROUTER_OUT_UNAVAILABLE);
	world_close(&w);
}

/* Panic is no way around a budget, nor around an operator. */
static void test_panic_spares_budgets_and_operators(void **state)
{
	struct world w;
	struct router_decision d;
	struct bucket_set set;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	limit_to_one(&w, 0, &set, "a");
	break_it(&w, 0);
	break_it(&w, 1);
	d = world_decide(&w, ROUTER_BALANCED);
	assert_int_equal(d.usable, 1);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_BUDGET);
	breaker_force_open(&w.r, w.candidate[1].row, w.now_ns);
	d = world_decide(&w, ROUTER_BALANCED);
	assert_int_equal(d.usable, 0);
	assert_int_equal(world_choice(&d, 1)->reason, ROUTER_OUT_BREAKER);
	assert_true(d.wait_ns <= 10 * NSEC_PER_SEC);
	world_close(&w);
}

static void test_a_providers_breaker_is_out_with_all_its_targets(void **state)
{
	struct world w;
	struct target_config provider = world_config("p"), c = world_config("p/m");
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	c.provider = w.candidate[world_add(&w, &provider)].row;
	world_add(&w, &c);
	world_target(&w, "q", 300, 1);
	w.candidate[0] = w.candidate[2];
	w.count = 2;
	world_know(&w, 1, 100, 0);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_int_equal(d.choice[0].candidate, 1);
	breaker_force_open(&w.r, c.provider, w.now_ns);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_int_equal(world_choice(&d, 1)->reason, ROUTER_OUT_BREAKER);
	world_close(&w);
}

/* The decision on the second of two alone: a target, after its provider. */
static struct router_choice decide_on_target(struct world *w)
{
	struct router_query q = world_query(w, ROUTER_LATENCY);
	struct router_decision d;

	router_decide(&w->r, &q, &w->candidate[1], 1, NULL, w->now_ns, &d);
	return d.choice[0];
}

static void open_with_provider(struct world *w)
{
	struct target_config provider = world_config("p"), c = world_config("p/m");

	world_open(w, 1);
	c.provider = w->candidate[world_add(w, &provider)].row;
	world_add(w, &c);
	world_know(w, 0, 100, 10);
	world_know(w, 1, 100, 10);
}

/* An operator opened the target's or its provider's, and the other has opened by failures, wants a
 * probe later: it may never be, not even in panic. */
static void test_what_an_operator_opened_is_out_whatever_the_other_says(void **state)
{
	(void)state;
	for (unsigned forced = 0; forced < 2; forced++) {
		struct world w;

		open_with_provider(&w);
		breaker_force_open(&w.r, w.candidate[forced].row, w.now_ns);
		break_it(&w, 1 - forced);
		for (unsigned i = 0; i < 40; i++) {
			struct router_choice c = decide_on_target(&w);

			assert_int_equal(c.reason, ROUTER_OUT_BREAKER);
			assert_int_equal(c.wait_ns, BREAKER_WAIT_FOREVER);
			w.now_ns += NSEC_PER_SEC;
		}
		world_close(&w);
	}
}

/* The target would be probed, its provider's is open: panic. Then the provider's wants a probe. */
static void test_a_probe_waits_for_the_providers_breaker(void **state)
{
	struct world w;

	(void)state;
	open_with_provider(&w);
	break_it(&w, 1);
	w.now_ns += 6 * NSEC_PER_SEC;
	break_it(&w, 0);
	assert_int_equal(decide_on_target(&w).reason, ROUTER_PANIC);
	w.now_ns += 6 * NSEC_PER_SEC;
	assert_int_equal(decide_on_target(&w).reason, ROUTER_CHOSEN);
	/* And where its own is well: the provider's probe is of all its targets. */
	breaker_reset(&w.r, w.candidate[1].row, w.now_ns);
	world_target(&w, "q", 100, 1);
	world_know(&w, 1, 100, 10);
	w.candidate[0] = w.candidate[2];
	w.count = 2;
	for (unsigned i = 0; i < 40; i++) {
		struct router_decision d = world_decide(&w, ROUTER_LATENCY);
		enum router_reason reason = world_choice(&d, 1)->reason;

		assert_true(reason == ROUTER_COLD || reason == ROUTER_EXPLORED);
	}
	world_close(&w);
}

/* Long after all else about it has settled, and the ramp of one that an operator closed. */
static void test_what_an_operator_did_is_seen_at_once_and_for_ever(void **state)
{
	struct world w;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 5000, 1);
	world_know(&w, 0, 100, 10);
	world_know(&w, 1, 5000, 10);
	world_row(&w, 0)->provider = w.candidate[1].row;
	breaker_force_open(&w.r, w.candidate[0].row, w.now_ns);
	w.now_ns += 3600 * NSEC_PER_SEC;
	world_know(&w, 0, 100, 10);
	world_know(&w, 1, 5000, 10);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_BREAKER);
	breaker_force_close(&w.r, w.candidate[0].row, w.now_ns);
	assert_int_equal(world_decide(&w, ROUTER_LATENCY).choice[0].candidate, 0);
	world_row(&w, 0)->pending = breaker_ramp(&w.r, w.candidate[0].row, w.now_ns);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(d.choice[1].reason, ROUTER_COLD);
	world_close(&w);
}

static void test_half_open_is_probed_now_and_then(void **state)
{
	struct world w;
	struct router_decision d;
	unsigned first = 0;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	break_it(&w, 0);
	w.now_ns += 6 * NSEC_PER_SEC;
	for (int i = 0; i < 4000; i++) {
		d = world_decide(&w, ROUTER_LATENCY);
		assert_int_equal(d.usable, 2);
		if (d.choice[0].candidate != 0)
			assert_int_equal(world_choice(&d, 0)->reason, ROUTER_COLD);
		else
			assert_int_equal(d.choice[0].reason, ROUTER_EXPLORED);
		first += d.choice[0].candidate == 0;
	}
	assert_true(first > 850 && first < 1150);
	world_close(&w);
}

/* After it closed, no more at a time than the ramp says. */
static void test_a_closed_breaker_is_ramped_up(void **state)
{
	struct world w;
	struct breaker_ticket ticket;
	struct breaker_report ok = { BREAKER_OK, 100 * NSEC_PER_MSEC };
	uint64_t wait_ns;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 5000, 1);
	break_it(&w, 0);
	w.now_ns += 6 * NSEC_PER_SEC;
	for (int i = 0; i < 2; i++) {
		assert_int_equal(breaker_allow(&w.r, w.candidate[0].row, (UINT64_C(1) << 16) | 1,
					 w.now_ns, 1, &ticket, &wait_ns),
			BREAKER_PROBE);
		breaker_record(&w.r, &ticket, &ok, w.now_ns, 1);
	}
	assert_int_equal(breaker_check(&w.r, w.candidate[0].row, w.now_ns, &wait_ns), BREAKER_PASS);
	world_know(&w, 0, 100, 0);
	world_know(&w, 1, 5000, 0);
	assert_int_equal(world_decide(&w, ROUTER_LATENCY).choice[0].candidate, 0);
	world_row(&w, 0)->pending = breaker_ramp(&w.r, w.candidate[0].row, w.now_ns);
	for (int i = 0; i < 100; i++) {
		struct router_decision d = world_decide(&w, ROUTER_LATENCY);

		assert_int_equal(d.choice[0].candidate, 1);
		assert_int_equal(d.choice[1].reason, ROUTER_COLD);
	}
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
		assert_true(d.wait_ns == UINT64_MAX);
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
	randomize(&w, ROUTER_CANDIDATES);
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
	randomize(&w, 9);
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

/* ---- routes ---- */

static struct router_route make_route(const char *name, unsigned count)
{
	struct router_route route = { .name = str_of(name),
		.strategy = ROUTER_BALANCED,
		.weight_cost = 1,
		.weight_latency = 2,
		.weight_reliability = 65535,
		.count = count };

	for (unsigned i = 0; i < count; i++) {
		route.target[i].row = i;
		route.target[i].weight = 100 + i;
	}
	return route;
}

static void test_routes_are_found_by_name(void **state)
{
	struct world w;
	struct router_route route = make_route("chat", 32), found;
	_Atomic uint64_t *turn = NULL;
	bool *keep;
	int row;

	(void)state;
	world_open(&w, 1);
	assert_false(router_find(&w.r, str_of("chat"), &found, &turn));
	row = router_configure(&w.r, &route);
	assert_true(row >= 0);
	assert_true(router_find(&w.r, str_of("chat"), &found, &turn));
	assert_true(str_is(found.name, "chat"));
	assert_int_equal(found.strategy, ROUTER_BALANCED);
	assert_int_equal(found.weight_cost, 1);
	assert_int_equal(found.weight_latency, 2);
	assert_int_equal(found.weight_reliability, 65535);
	assert_int_equal(found.count, 32);
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(found.target[i].row, i);
		assert_int_equal(found.target[i].weight, 100 + i);
	}
	assert_ptr_equal(turn, &w.r.route[row].turn);
	*turn = 5;
	route.count = 1;
	assert_int_equal(router_configure(&w.r, &route), row);
	assert_true(router_view(&w.r, (uint32_t)row, &found));
	assert_int_equal(found.count, 1);
	assert_int_equal(*turn, 5);
	keep = calloc(w.r.routes, sizeof(*keep));
	assert_non_null(keep);
	router_retire(&w.r, keep);
	free(keep);
	assert_false(router_find(&w.r, str_of("chat"), &found, NULL));
	assert_false(router_view(&w.r, (uint32_t)row, &found));
	assert_false(router_view(&w.r, w.r.routes, &found));
	world_close(&w);
}

static void test_routes_refuse_nonsense_and_heal(void **state)
{
	struct world w;
	struct router_route route = make_route("r", 2), found;
	int row;

	(void)state;
	world_open(&w, 1);
	route.count = 33;
	assert_int_equal(router_configure(&w.r, &route), -EINVAL);
	route = make_route("", 2);
	assert_int_equal(router_configure(&w.r, &route), -EINVAL);
	route = make_route("r", 2);
	row = router_configure(&w.r, &route);
	assert_true(row >= 0);
	w.r.route[row].count = 33;
	assert_false(router_find(&w.r, str_of("r"), &found, NULL));
	w.r.route[row].count = 2;
	w.r.route[row].strategy = 1u << 20;
	assert_false(router_find(&w.r, str_of("r"), &found, NULL));
	w.r.route[row].strategy = ROUTER_COST;
	assert_true(router_find(&w.r, str_of("r"), &found, NULL));
	/* A daemon died in it: not readable until the next one configures it. */
	w.r.route[row].sequence |= 1;
	assert_false(router_find(&w.r, str_of("r"), &found, NULL));
	assert_int_equal(router_configure(&w.r, &route), row);
	assert_true(router_find(&w.r, str_of("r"), &found, NULL));
	assert_int_equal(found.count, 2);
	world_close(&w);
}

static _Atomic bool finished;
static _Atomic unsigned reading;

/* All targets of one route have the same weight, whichever version is seen. */
static void *read_routes(void *arg)
{
	struct world *w = arg;
	struct router_route found;

	atomic_fetch_add(&reading, 1);
	while (!atomic_load(&finished)) {
		if (!router_find(&w->r, str_of("r"), &found, NULL))
			continue;
		for (unsigned i = 1; i < found.count; i++)
			assert_int_equal(found.target[i].weight, found.target[0].weight);
		assert_int_equal(found.count, 1 + found.target[0].weight % 32);
	}
	return NULL;
}

static void test_readers_never_see_half_a_route(void **state)
{
	struct world w;
	struct router_route route = make_route("r", 1);
	pthread_t thread[THREADS];

	(void)state;
	world_open(&w, 1);
	atomic_store(&finished, false);
	atomic_store(&reading, 0);
	route.target[0].weight = 0;
	assert_true(router_configure(&w.r, &route) >= 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, read_routes, &w), 0);
	while (atomic_load(&reading) < THREADS)
		sched_yield();
	for (uint32_t k = 0; k < 20000; k++) {
		route.count = 1 + k % 32;
		for (unsigned i = 0; i < route.count; i++)
			route.target[i].weight = k;
		assert_true(router_configure(&w.r, &route) >= 0);
	}
	atomic_store(&finished, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
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
		cmocka_unit_test(test_score_and_order_are_the_references),
		cmocka_unit_test(test_plain_ones_are_scored_as_any),
		cmocka_unit_test(test_filters),
		cmocka_unit_test(test_cost_is_exact_and_cached_tokens_have_their_price),
		cmocka_unit_test(test_prediction_is_of_the_prompts_class_and_the_answers_length),
		cmocka_unit_test(test_a_class_without_samples_has_the_nearest_ones),
		cmocka_unit_test(test_a_budget_that_is_used_up_waits_or_is_out),
		cmocka_unit_test(test_what_never_fits_is_out_for_the_most_patient),
		cmocka_unit_test(test_a_paused_target_waits_or_is_out),
		cmocka_unit_test(test_an_open_breaker_is_out_unless_all_are),
		cmocka_unit_test(test_panic_spares_budgets_and_operators),
		cmocka_unit_test(test_a_providers_breaker_is_out_with_all_its_targets),
		cmocka_unit_test(test_what_an_operator_opened_is_out_whatever_the_other_says),
		cmocka_unit_test(test_a_probe_waits_for_the_providers_breaker),
		cmocka_unit_test(test_what_an_operator_did_is_seen_at_once_and_for_ever),
		cmocka_unit_test(test_half_open_is_probed_now_and_then),
		cmocka_unit_test(test_a_closed_breaker_is_ramped_up),
		cmocka_unit_test(test_a_garbage_average_is_the_median),
		cmocka_unit_test(test_order_is_as_configured),
		cmocka_unit_test(test_round_robin_takes_turns_among_the_usable),
		cmocka_unit_test(test_llmkit_weights_unused),
		cmocka_unit_test(test_weights_of_balanced_decide),
		cmocka_unit_test(test_none_one_and_32),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_decides_without_allocating),
		cmocka_unit_test(test_garbage_in_every_word_is_survived),
		cmocka_unit_test(test_routes_are_found_by_name),
		cmocka_unit_test(test_routes_refuse_nonsense_and_heal),
		cmocka_unit_test(test_readers_never_see_half_a_route),
		cmocka_unit_test(test_threads_decide_and_learn),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
