/*
 * What routing saves on a simulated workload: the real router, targets and breakers in virtual
 * time (tests/unit/router-sim.h), against taking turns: "plain", which knows no breaker and tries
 * once, and strategy round_robin, which has both. Prints one JSON object per metric. A seed is a
 * run; the figures are of the seeds given (default 1 to 5) together.
 *
 * The workload: 100,000 calls as a Poisson stream of 10 a second, 2.8 hours. Prompts are
 * lognormal, median 800 tokens, sigma 1 of ln, at most 30,000; answers median 250, sigma 0.8, at
 * most 4,000. Six targets that can stand in for each other:
 *
 *            USD per million tokens    to first token       between   calls
 *            input    output           median    sigma      tokens    that fail, after 1.5 s
 *     a      2.50     10.00            450 ms    0.35       12 ms     0.5 %
 *     b      3.00     15.00            700 ms    0.35       14 ms     0.8 %
 *     c      1.25      5.00            600 ms    0.50        9 ms     1.0 %
 *     d      0.60      2.40            350 ms    0.50        6 ms     3.0 %
 *     e      0.90      0.90            900 ms    0.60       20 ms     2.0 %
 *     f      2.00      6.00            500 ms    0.40       16 ms     0.6 %
 *
 * Every 20 minutes one of them, at random, takes 5 times as long for 2 minutes; every 30 minutes
 * another one fails in 60 % of calls for 90 s. A call that fails goes to the next of its chain at
 * once.
 *
 *     NAME_usd_per_1000, NAME_seconds       mean price; mean time to the last token, with tries
 *     NAME_first_failed_percent             calls whose first try failed: what the user waits for
 *     NAME_lost                             calls that no target answered
 *     cost_saved_percent                    of strategy cost, against plain
 *     time_saved_percent                    of strategy latency, against plain
 *     failures_avoided_percent              of strategy reliability, against plain: calls lost
 *     first_failures_avoided_percent        the same of first tries: the next in the chain mends
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bench/report.h"
#include "tests/unit/router-sim.h"

#define TARGETS 6
#define CALLS 100000
#define RATE 10
#define SLOW_EVERY_S 1200
#define SLOW_FOR_S 120
#define FAIL_EVERY_S 1800
#define FAIL_FOR_S 90
#define START (UINT64_C(100000) * NSEC_PER_SEC)

static const struct {
	const char *name;
	double input_usd, output_usd, first_ms, sigma, gap_ms, fails;
} target_table[TARGETS] = {
	{ "a", 2.50, 10.00, 450, 0.35, 12, 0.005 },
	{ "b", 3.00, 15.00, 700, 0.35, 14, 0.008 },
	{ "c", 1.25, 5.00, 600, 0.50, 9, 0.010 },
	{ "d", 0.60, 2.40, 350, 0.50, 6, 0.030 },
	{ "e", 0.90, 0.90, 900, 0.60, 20, 0.020 },
	{ "f", 2.00, 6.00, 500, 0.40, 16, 0.006 },
};

struct sum {
	double calls, usd, seconds, failed, lost;
};

static void die(const char *what)
{
	fprintf(stderr, "savings: %s\n", what);
	exit(1);
}

static void make_region(struct region *r)
{
	struct region_owner owner = { .pid = 1, .start = 1 };
	int fd = memfd_create("savings", MFD_CLOEXEC);

	if (fd < 0 || region_create(r, fd, &owner, NULL, START, false) < 0)
		die("cannot make a region");
	close(fd);
}

static void add_targets(struct sim *s)
{
	for (unsigned i = 0; i < TARGETS; i++) {
		struct target_config config = { .name = str_of(target_table[i].name),
			.provider = TARGET_NONE,
			.price_input = (int64_t)(target_table[i].input_usd * 1e6),
			.price_output = (int64_t)(target_table[i].output_usd * 1e6),
			.price_cached = -1,
			.capabilities = TARGET_CAPABILITIES,
			.available = true };

		if (target_configure(s->r, &config) < 0)
			die("cannot configure a target");
		s->candidate[i].row = target_find(s->r, config.name, &s->candidate[i].key);
	}
	s->count = TARGETS;
}

/* The providers as they are at this second: well, but for the two that have trouble. */
static void set_providers(struct sim *s, uint64_t seed, uint64_t second)
{
	uint64_t slow = seed * 1000003 + second / SLOW_EVERY_S;
	uint64_t failing = seed * 7919 + 500009 + second / FAIL_EVERY_S;

	for (unsigned i = 0; i < TARGETS; i++) {
		struct sim_provider *p = &s->provider[i];

		p->first_ms = target_table[i].first_ms;
		p->sigma = target_table[i].sigma;
		p->gap_ms = target_table[i].gap_ms;
		p->fails = target_table[i].fails;
		p->fails_ms = 1500;
	}
	if (second % SLOW_EVERY_S >= SLOW_EVERY_S - SLOW_FOR_S) {
		struct sim_provider *p = &s->provider[splitmix_below(&slow, TARGETS)];

		p->first_ms *= 5;
		p->gap_ms *= 5;
	}
	if (second % FAIL_EVERY_S >= FAIL_EVERY_S - FAIL_FOR_S)
		s->provider[splitmix_below(&failing, TARGETS)].fails = 0.6;
}

static uint64_t tokens(struct sim *s, double median, double sigma, double most)
{
	double n = median * exp(sigma * sim_normal(s));

	return (uint64_t)(n < 1 ? 1 : n > most ? most : n);
}

/* Each in turn, whatever it did last, and no second try. */
static void call_plain(struct sim *s, unsigned turn)
{
	unsigned to = turn % TARGETS;
	struct breaker_ticket ticket = { s->candidate[to].row, BREAKER_NO_PROBE, 0 };
	double seconds;
	bool ok;

	seconds = sim_try(s, to, 0, &ticket, &ok);
	s->calls++;
	s->first_tries_failed += !ok;
	s->lost += !ok;
	if (!ok)
		return;
	s->seconds += seconds;
	s->usd += ((double)s->query.input_tokens * target_table[to].input_usd +
			  (double)s->query.output_tokens * target_table[to].output_usd) /
		1e6;
}

/* ROUTER_STRATEGIES: plain. */
static void run(enum router_strategy strategy, uint64_t seed, struct sum *sum)
{
	struct router_candidate candidates[ROUTER_CANDIDATES] = { 0 };
	struct region region = REGION_NULL;
	struct sim *s = calloc(1, sizeof(*s));

	if (!s)
		die("no memory");
	make_region(&region);
	s->r = &region;
	s->candidate = candidates;
	s->now_ns = START;
	s->seed = seed;
	s->query.strategy = strategy;
	s->query.weight_cost = s->query.weight_latency = s->query.weight_reliability = 333;
	s->query.price_cap_nanousd = -1;
	add_targets(s);
	for (unsigned i = 0; i < CALLS; i++) {
		sim_until(s, s->now_ns + (uint64_t)(-log(sim_unit(s)) / RATE * 1e9));
		set_providers(s, seed, (s->now_ns - START) / NSEC_PER_SEC);
		s->query.input_tokens = tokens(s, 800, 1, 30000);
		s->query.output_tokens = tokens(s, 250, 0.8, 4000);
		if (strategy == ROUTER_STRATEGIES)
			call_plain(s, i);
		else
			sim_call(s);
	}
	sum->calls += (double)s->calls;
	sum->usd += s->usd;
	sum->seconds += s->seconds;
	sum->failed += (double)s->first_tries_failed;
	sum->lost += (double)s->lost;
	region_detach(&region);
	free(s);
}

static void report(const char *strategy, const char *what, double value, const char *unit)
{
	char name[64];

	snprintf(name, sizeof(name), "%s_%s", strategy, what);
	report_value("savings", name, value, unit);
}

static double saved(double now, double before)
{
	return before > 0 ? 100 * (1 - now / before) : 0;
}

int main(int argc, char **argv)
{
	static const enum router_strategy strategies[] = { ROUTER_STRATEGIES, ROUTER_ROUND_ROBIN,
		ROUTER_COST, ROUTER_LATENCY, ROUTER_RELIABILITY, ROUTER_BALANCED };
	struct sum sum[ROUTER_STRATEGIES + 1] = { { 0 } }, *plain = &sum[ROUTER_STRATEGIES];
	uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 5;

	if (seeds == 0 || argc > 2) {
		fprintf(stderr, "usage: savings [SEEDS]\n");
		return 2;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(strategies); i++) {
		struct sum *of = &sum[strategies[i]];
		const char *name = strategies[i] == ROUTER_STRATEGIES ?
			"plain" :
			router_strategy_name(strategies[i]);

		for (uint64_t seed = 1; seed <= seeds; seed++)
			run(strategies[i], seed, of);
		report(name, "usd_per_1000", 1000 * of->usd / (of->calls - of->lost), "USD");
		report(name, "seconds", of->seconds / (of->calls - of->lost), "s");
		report(name, "first_failed_percent", 100 * of->failed / of->calls, "%");
		report(name, "lost", of->lost, "calls");
	}
	report_value("savings", "cost_saved_percent", saved(sum[ROUTER_COST].usd, plain->usd), "%");
	report_value("savings", "time_saved_percent",
		saved(sum[ROUTER_LATENCY].seconds, plain->seconds), "%");
	report_value("savings", "failures_avoided_percent",
		saved(sum[ROUTER_RELIABILITY].lost, plain->lost), "%");
	report_value("savings", "first_failures_avoided_percent",
		saved(sum[ROUTER_RELIABILITY].failed, plain->failed), "%");
	return 0;
}
