/*
 * What routing costs, with everything real: targets, their breakers and providers' breakers,
 * windows of errors, limits of three levels per target. Prints one JSON object per metric
 * (bench/report.h). --quick for a few seconds. Nanoseconds are CPU time.
 *
 *     route8_ns, route32_ns          router_decide() among 8 and 32, all well, balanced
 *     route8_errors_ns               and where each has failures in its window
 *     route8_budget_ns               and where each has three limits that are peeked at
 *     record_ns                      target_learn(), with both latencies
 *     admission_ns                   breaker, route of 8, and 3 request limits taken
 *     allocations                    of all of the above together
 */

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "base/aux.h"
#include "base/clock.h"
#include "bench/report.h"
#include "shm/breaker.h"
#include "shm/bucket.h"
#include "shm/bucket_table.h"
#include "shm/router.h"
#include "shm/target.h"
#include "tests/unit/alloc-watch.h"

#define REPS_MAX 15
#define TARGETS 32
#define PROVIDERS 8
#define SAMPLES 200
#define DAY_NS (86400 * NSEC_PER_SEC)
/* One unit a microsecond, and a burst that no run uses up. */
#define OPEN_PER_DAY UINT64_C(86400000000)
#define OPEN_BURST UINT64_C(1000000000000)

struct bench {
	struct region region;
	struct router_candidate well[TARGETS], failing[TARGETS], limited[TARGETS];
	struct bucket_set limits[TARGETS];
	uint64_t ops, now_ns, allocations;
	size_t reps;
};

static void die(const char *what)
{
	fprintf(stderr, "router: %s\n", what);
	exit(1);
}

/* ---- the region ---- */

static void add_limit(struct bench *b, struct bucket_set *set, uint64_t scope, const char *name)
{
	struct bucket_limit limit = { .scope = scope,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of(name),
		.limit = OPEN_PER_DAY,
		.window_ns = DAY_NS,
		.burst = OPEN_BURST };

	if (bucket_configure(&b->region, &limit, b->now_ns) < 0 ||
		!bucket_set_add(set, &b->region, scope, BUCKET_REQUESTS, limit.name))
		die("cannot configure a limit");
}

static uint32_t add_target(struct bench *b, const char *name, uint32_t provider, unsigned i)
{
	struct target_config config = { .name = str_of(name),
		.provider = provider,
		.price_input = 150000 + 10000 * i,
		.price_output = 600000 + 10000 * i,
		.price_cached = -1,
		.context = 128000,
		.capabilities = TARGET_CAPABILITIES,
		.available = true };
	int row = target_configure(&b->region, &config);

	if (row < 0)
		die("cannot configure a target");
	return (uint32_t)row;
}

/* Some calls, every how-manieth of which failed; 0: none. */
static void add_past(struct bench *b, uint32_t row, unsigned i, unsigned fails)
{
	struct target_sample sample = { .input_tokens = 500,
		.first_token_ns = (300 + 20 * i) * NSEC_PER_MSEC,
		.gap_ns = 10 * NSEC_PER_MSEC };
	struct breaker_ticket ticket = { .row = row, .slot = BREAKER_NO_PROBE };

	for (unsigned k = 0; k < SAMPLES; k++) {
		struct breaker_report report = { BREAKER_OK, sample.first_token_ns };

		if (fails != 0 && k % fails == 0)
			report.outcome = BREAKER_FAILED;
		target_learn(&b->region, row, &sample, b->now_ns);
		breaker_record(&b->region, &ticket, &report, b->now_ns, k);
	}
	target_tried(&b->region, row, b->now_ns);
}

static void add_candidate(struct bench *b, unsigned i, bool failing)
{
	struct router_candidate *c = failing ? &b->failing[i] : &b->well[i];
	char name[32], provider[32];
	uint32_t above;

	snprintf(provider, sizeof(provider), "p%u", i % PROVIDERS);
	above = add_target(b, provider, TARGET_NONE, 0);
	snprintf(name, sizeof(name), "p%u/%s%u", i % PROVIDERS, failing ? "failing" : "well", i);
	add_past(b, add_target(b, name, above, i), i, failing ? 10 : 0);
	c->row = target_find(&b->region, str_of(name), &c->key);
	c->weight = 1;
	if (failing)
		return;
	b->limited[i] = *c;
	b->limited[i].limits = &b->limits[i];
	add_limit(b, &b->limits[i], BUCKET_SCOPE_USER, "user");
	add_limit(b, &b->limits[i], BUCKET_SCOPE_MODEL, name);
	add_limit(b, &b->limits[i], BUCKET_SCOPE_PROVIDER, provider);
}

static void prepare(struct bench *b)
{
	struct region_owner owner = { .pid = 1, .start = 1 };
	int fd = memfd_create("router", MFD_CLOEXEC);

	b->now_ns = clock_boottime_ns();
	if (fd < 0 || region_create(&b->region, fd, &owner, NULL, b->now_ns, false) < 0)
		die("cannot make a region");
	close(fd);
	for (unsigned i = 0; i < TARGETS; i++) {
		add_candidate(b, i, false);
		add_candidate(b, i, true);
	}
}

/* ---- what is measured ---- */

static struct router_query query_of(uint64_t random)
{
	return (struct router_query){ .strategy = ROUTER_BALANCED,
		.weight_cost = 333,
		.weight_latency = 333,
		.weight_reliability = 333,
		.input_tokens = 500,
		.output_tokens = 200,
		.capabilities = TARGET_STREAMING,
		.price_cap_nanousd = -1,
		.random = random * UINT64_C(0x9e3779b97f4a7c15) };
}

/* Each returns a number that depends on all iterations, so that none can be left out. Time stands
 * still but for some nanoseconds, as for who decides often. */
static uint64_t run_route(const struct bench *b, const struct router_candidate *c, unsigned count)
{
	struct router_decision d;
	uint64_t sum = 0;

	for (uint64_t i = 0; i < b->ops; i++) {
		struct router_query query = query_of(i);

		router_decide(&b->region, &query, c, count, NULL, b->now_ns + i, &d);
		sum += d.choice[0].candidate + (d.usable == count);
	}
	return sum;
}

static uint64_t run_route8(const struct bench *b)
{
	return run_route(b, b->well, 8);
}

static uint64_t run_route32(const struct bench *b)
{
	return run_route(b, b->well, TARGETS);
}

static uint64_t run_route8_errors(const struct bench *b)
{
	return run_route(b, b->failing, 8);
}

static uint64_t run_route8_budget(const struct bench *b)
{
	return run_route(b, b->limited, 8);
}

static uint64_t run_record(const struct bench *b)
{
	struct target_sample sample = { .input_tokens = 500 };

	for (uint64_t i = 0; i < b->ops; i++) {
		sample.first_token_ns = (200 + i % 64) * NSEC_PER_MSEC;
		sample.gap_ns = (5 + i % 16) * NSEC_PER_MSEC;
		target_learn(&b->region, b->well[i % 8].row, &sample, b->now_ns + i);
	}
	return b->ops;
}

static uint64_t run_admission(const struct bench *b)
{
	uint64_t admitted = 0, wait_ns;
	struct router_decision d;
	struct breaker_ticket ticket;

	for (uint64_t i = 0; i < b->ops; i++) {
		struct router_query query = query_of(i);
		uint64_t now_ns = b->now_ns + i;
		const struct router_candidate *c;

		router_decide(&b->region, &query, b->well, 8, NULL, now_ns, &d);
		c = &b->limited[d.choice[0].candidate];
		if (breaker_allow(&b->region, c->row, 0, now_ns, i, &ticket, &wait_ns) ==
			BREAKER_PASS)
			admitted += bucket_acquire(&b->region, c->limits, 1, now_ns).outcome ==
				BUCKET_OK;
	}
	if (admitted != b->ops)
		die("an admission was refused");
	return admitted;
}

/* What this process has used: others on a busy machine do not count. */
static uint64_t cpu_ns(void)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void measure(struct bench *b, const char *metric, uint64_t (*run)(const struct bench *))
{
	double samples[REPS_MAX];
	volatile uint64_t result = 0;

	for (size_t i = 0; i < b->reps; i++) {
		uint64_t begin = cpu_ns();

		alloc_watch_begin(0);
		result = run(b);
		b->allocations += alloc_watch_end().calls;
		samples[i] = (double)(cpu_ns() - begin) / (double)b->ops;
	}
	(void)result;
	report_median("router", metric, samples, b->reps, "ns");
}

int main(int argc, char **argv)
{
	static struct bench b = { .ops = 1000000, .reps = REPS_MAX };

	if (argc > 1 && strcmp(argv[1], "--quick") == 0) {
		b.ops = 300000;
		b.reps = 5;
	} else if (argc > 1) {
		fprintf(stderr, "usage: router [--quick]\n");
		return 2;
	}
	prepare(&b);
	measure(&b, "route8_ns", run_route8);
	measure(&b, "route32_ns", run_route32);
	measure(&b, "route8_errors_ns", run_route8_errors);
	measure(&b, "route8_budget_ns", run_route8_budget);
	measure(&b, "record_ns", run_record);
	measure(&b, "admission_ns", run_admission);
	report_value("router", "allocations", (double)b.allocations, "calls");
	region_detach(&b.region);
	return 0;
}
