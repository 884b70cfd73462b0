/*
 * What a breaker costs and how well it judges. Prints one JSON object per metric (bench/report.h);
 * --quick for a few seconds. Nanoseconds are CPU time, without reading the clock.
 *
 *     clock_ns, cas_ns                  what the machine charges for the parts
 *     check_ns, allow_ns                of a closed breaker
 *     record_ns, record_failed_ns       a success with its time to first token; every third a
 *     failure bytes                             of a breaker, without the histogram of its
 *     latencies false_openings                    per million healthy calls of the reference
 *     model, production slow3_p50 … slow10_p95            calls until one that is so many times
 *     slower is found; 400: not
 */

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "bench/report.h"
#include "shm/breaker.h"
#include "shm/timebase.h"
#include "tests/unit/latency-model.h"

#define REPS_MAX 15
#define ROW 0
#define LATENCIES 4096
#define SEEDS_MAX 1000
#define WARM 2000
#define SLOW_MAX 400
#define POINTS 3
#define POINT_GAP_NS (60 * NSEC_PER_MSEC)

struct bench {
	struct region region;
	struct breaker_settings settings;
	uint64_t latency_ns[LATENCIES];
	uint64_t ops, healthy, seeds, now_ns;
	size_t reps;
};

static void die(const char *what)
{
	fprintf(stderr, "breaker: %s\n", what);
	exit(1);
}

static void prepare(struct bench *b)
{
	struct region_owner owner = { .pid = 1, .start = 1 };
	struct latency_model model = { .random = 1 };
	struct timebase_tracker tracker = { 0 };
	int fd = memfd_create("breaker", MFD_CLOEXEC);
	uint64_t ns;

	b->now_ns = clock_boottime_ns();
	if (fd < 0 || region_create(&b->region, fd, &owner, NULL, b->now_ns, false) < 0)
		die("cannot make a region");
	close(fd);
	for (int i = 0; i < POINTS; i++) {
		ns = clock_boottime_ns();
		timebase_track(&tracker, &b->region, clock_cycles(), ns, 100 * NSEC_PER_SEC);
		clock_sleep_until(ns + POINT_GAP_NS);
	}
	for (size_t i = 0; i < LATENCIES; i++)
		b->latency_ns[i] = model_next(&model, 1) * NSEC_PER_USEC;
}

static uint64_t run_clock(struct bench *b)
{
	uint64_t sum = 0, ns;

	for (uint64_t i = 0; i < b->ops; i++) {
		if (!timebase_convert(&b->region, clock_cycles(), &ns))
			ns = clock_boottime_ns();
		sum += ns;
	}
	return sum;
}

static uint64_t run_cas(struct bench *b)
{
	static shared_u64 word;
	uint64_t seen = 0;

	for (uint64_t i = 0; i < b->ops; i++) {
		seen = atomic_load_explicit(&word, memory_order_relaxed);
		atomic_compare_exchange_strong_explicit(
			&word, &seen, seen + 1, memory_order_acq_rel, memory_order_relaxed);
	}
	return seen;
}

static uint64_t run_check(struct bench *b)
{
	uint64_t passed = 0, wait_ns;

	for (uint64_t i = 0; i < b->ops; i++)
		passed += breaker_check(&b->region, ROW, b->now_ns + i, &wait_ns) == BREAKER_PASS;
	return passed;
}

static uint64_t run_allow(struct bench *b)
{
	struct breaker_ticket ticket;
	uint64_t passed = 0, wait_ns;

	for (uint64_t i = 0; i < b->ops; i++)
		passed += breaker_allow(&b->region, ROW, 1, b->now_ns + i, i, &ticket, &wait_ns) ==
			BREAKER_PASS;
	return passed;
}

static uint64_t record(struct bench *b, bool fails)
{
	struct breaker_ticket ticket;
	uint64_t wait_ns;

	breaker_allow(&b->region, ROW, 1, b->now_ns, 1, &ticket, &wait_ns);
	for (uint64_t i = 0; i < b->ops; i++) {
		struct breaker_report report = { fails && i % 3 == 0 ? BREAKER_FAILED : BREAKER_OK,
			b->latency_ns[i % LATENCIES] };

		breaker_record(&b->region, &ticket, &report, b->now_ns += 10000, i);
	}
	return b->ops;
}

static uint64_t run_record(struct bench *b)
{
	return record(b, false);
}

static uint64_t run_record_failed(struct bench *b)
{
	return record(b, true);
}

static uint64_t cpu_ns(void)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void measure(
	struct bench *b, const char *metric, uint64_t (*run)(struct bench *), bool counts)
{
	double samples[REPS_MAX];
	volatile uint64_t result;

	breaker_init(&b->region, ROW, &b->settings);
	for (size_t i = 0; i < b->reps; i++) {
		uint64_t begin = cpu_ns(), wait_ns;

		result = run(b);
		samples[i] = (double)(cpu_ns() - begin) / (double)b->ops;
		if (counts && result != b->ops)
			die("a call was refused");
		if (breaker_check(&b->region, ROW, b->now_ns, &wait_ns) != BREAKER_PASS)
			die("the breaker opened");
	}
	report_median("breaker", metric, samples, b->reps, "ns");
}

/* ---- judgement ---- */

/* One success; false: it is open now. */
static bool call(struct bench *b, uint64_t us)
{
	struct breaker_report report = { BREAKER_OK, us * NSEC_PER_USEC };
	struct breaker_ticket ticket;
	uint64_t wait_ns;

	b->now_ns += 50 * NSEC_PER_MSEC;
	breaker_allow(&b->region, ROW, 1, b->now_ns, 1, &ticket, &wait_ns);
	breaker_record(&b->region, &ticket, &report, b->now_ns, 1);
	return breaker_check(&b->region, ROW, b->now_ns, &wait_ns) == BREAKER_PASS;
}

static void judge_healthy(struct bench *b)
{
	struct latency_model model = { .random = 5 };
	double opened = 0;

	breaker_init(&b->region, ROW, &b->settings);
	for (uint64_t i = 0; i < b->healthy; i++) {
		if (call(b, model_next(&model, 1)))
			continue;
		opened++;
		breaker_force_close(&b->region, ROW, b->now_ns);
	}
	report_value("breaker", "false_openings", opened * 1e6 / (double)b->healthy, "per million");
}

static double calls_until_found(struct bench *b, uint64_t seed, double factor)
{
	struct latency_model model = { .random = seed * 7919 + 1,
		.calls = (double)seed * (MODEL_DRIFT_CALLS / SEEDS_MAX) };
	double n = 1;

	breaker_init(&b->region, ROW, &b->settings);
	for (int i = 0; i < WARM; i++)
		if (!call(b, model_next(&model, 1)))
			breaker_force_close(&b->region, ROW, b->now_ns);
	while (call(b, model_next(&model, factor)) && n < SLOW_MAX)
		n++;
	return n;
}

static void judge_slow(struct bench *b)
{
	static const double factor[] = { 3, 5, 10 };
	static double calls[SEEDS_MAX];
	char metric[32];

	for (size_t f = 0; f < ARRAY_SIZE(factor); f++) {
		for (uint64_t i = 0; i < b->seeds; i++)
			calls[i] = calls_until_found(b, i, factor[f]);
		snprintf(metric, sizeof(metric), "slow%g_p50", factor[f]);
		report_median("breaker", metric, calls, b->seeds, "calls");
		snprintf(metric, sizeof(metric), "slow%g_p95", factor[f]);
		report_value("breaker", metric, calls[b->seeds * 95 / 100], "calls");
	}
}

int main(int argc, char **argv)
{
	static struct bench b = {
		.ops = 5000000, .reps = REPS_MAX, .healthy = 20000000, .seeds = SEEDS_MAX
	};

	if (argc > 1 && strcmp(argv[1], "--quick") == 0) {
		b.ops = 1000000;
		b.reps = 5;
		b.healthy = 2000000;
		b.seeds = 200;
	} else if (argc > 1) {
		fprintf(stderr, "usage: breaker [--quick]\n");
		return 2;
	}
	b.settings = breaker_preset(BREAKER_PRODUCTION);
	prepare(&b);
	measure(&b, "clock_ns", run_clock, false);
	measure(&b, "cas_ns", run_cas, false);
	measure(&b, "check_ns", run_check, true);
	measure(&b, "allow_ns", run_allow, true);
	measure(&b, "record_ns", run_record, true);
	measure(&b, "record_failed_ns", run_record_failed, true);
	report_value("breaker", "bytes", sizeof(struct layout_breaker), "bytes");
	judge_healthy(&b);
	judge_slow(&b);
	region_detach(&b.region);
	return 0;
}
