/*
 * What a limiter check costs, through the functions the library uses: the fast clock, then
 * bucket_acquire(). Prints one JSON object per metric (bench/report.h). --quick for a few seconds.
 * Nanoseconds are CPU time; two processes are timed from the first start to the last end.
 *
 *     clock_ns, cas_ns, clock_gettime_ns    what the machine charges for the parts
 *     check1_ns, denied_ns, check3_ns       one level admitted, refused; three levels admitted
 *     check3_cold_ns                        the third level one of 100,000 users, by turns
 *     check6_ns, settle6_ns                 a lease of requests and tokens in three levels, its end
 *     check1_2proc_mops                     two processes on one word, million checks/s together
 *     bytes_per_bucket                      the hot row
 */

#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "base/aux.h"
#include "base/clock.h"
#include "bench/report.h"
#include "shm/bucket_table.h"
#include "shm/timebase.h"
#include "tests/unit/splitmix.h"

#define REPS_MAX 15
#define POINTS 3
#define DAY_NS (86400 * NSEC_PER_SEC)
/* One unit a microsecond, and a burst that no run uses up. */
#define OPEN_PER_DAY UINT64_C(86400000000)
#define OPEN_BURST UINT64_C(1000000000000)
#define POINT_GAP_NS (60 * NSEC_PER_MSEC)

#define USERS 100000
#define LIMITS 131072
#define LEASES 64 /* in flight at a time */
#define OWNER (UINT64_C(1) << 16 | 1)

struct bench {
	struct region region;
	struct bucket_set open1, full1, open3, cold3, open6;
	struct {
		uint32_t row;
		uint64_t key;
	} * users; /* in random order */
	uint64_t ops;
	size_t reps;
	uint64_t *shared; /* start flag and counts of the two processes */
};

static void die(const char *what)
{
	fprintf(stderr, "limiter: %s\n", what);
	exit(1);
}

/* On the which-th of the CPUs that the process was started with. */
static void pin(int which)
{
	static cpu_set_t all;
	cpu_set_t one;

	if (CPU_COUNT(&all) == 0 && sched_getaffinity(0, sizeof(all), &all) < 0)
		return;
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
		if (!CPU_ISSET(cpu, &all) || which-- > 0)
			continue;
		CPU_ZERO(&one);
		CPU_SET(cpu, &one);
		sched_setaffinity(0, sizeof(one), &one);
		return;
	}
}

static void add_bucket(struct bench *b, struct bucket_set *set, uint64_t scope, const char *name,
	uint64_t per_day, uint64_t burst)
{
	struct bucket_limit l = { scope, BUCKET_REQUESTS, BUCKET_RATE, BUCKET_ORIGIN_CONFIG,
		str_of(name), per_day, DAY_NS, burst };

	if (bucket_configure(&b->region, &l, clock_boottime_ns()) < 0 ||
		!bucket_set_add(set, &b->region, scope, BUCKET_REQUESTS, l.name))
		die("cannot configure a bucket");
}

/* Tokens that no run uses up: one a nanosecond. */
static void add_tokens(struct bench *b, struct bucket_set *set, uint64_t scope, const char *name)
{
	struct bucket_limit l = { scope, BUCKET_TOKENS, BUCKET_HELD, BUCKET_ORIGIN_CONFIG,
		str_of(name), 1000 * NSEC_PER_SEC, 1000 * NSEC_PER_SEC, BUCKET_HELD_MAX - 1 };

	if (bucket_configure(&b->region, &l, clock_boottime_ns()) < 0 ||
		!bucket_set_add(set, &b->region, scope, BUCKET_TOKENS, l.name))
		die("cannot configure a bucket");
}

/* The user's row of cold3 is replaced before each check, as a server does that keeps the rest. */
static void add_users(struct bench *b)
{
	char name[16];
	uint64_t seed = 1;

	b->users = calloc(USERS, sizeof(*b->users));
	if (!b->users)
		die("calloc");
	add_bucket(b, &b->cold3, BUCKET_SCOPE_MODEL, "three", OPEN_PER_DAY, OPEN_BURST);
	add_bucket(b, &b->cold3, BUCKET_SCOPE_PROVIDER, "three", OPEN_PER_DAY, OPEN_BURST);
	for (uint32_t i = 0; i < USERS; i++) {
		uint32_t j = (uint32_t)splitmix_below(&seed, i + 1);
		struct bucket_set one = { 0 };

		snprintf(name, sizeof(name), "user-%u", i);
		add_bucket(b, &one, BUCKET_SCOPE_USER, name, OPEN_PER_DAY, OPEN_BURST);
		b->users[i] = b->users[j];
		b->users[j].row = one.index[0];
		b->users[j].key = one.key[0];
	}
	add_bucket(b, &b->cold3, BUCKET_SCOPE_USER, "user-0", OPEN_PER_DAY, OPEN_BURST);
}

static void calibrate(struct bench *b)
{
	struct timebase_tracker tracker = { 0 };
	uint64_t ns;

	for (int i = 0; i < POINTS; i++) {
		ns = clock_boottime_ns();
		/* Valid for the whole run: nobody publishes a second time. */
		timebase_track(&tracker, &b->region, clock_cycles(), ns, 100 * NSEC_PER_SEC);
		clock_sleep_until(ns + POINT_GAP_NS);
	}
	if (clock_cycles() == 0 || !timebase_convert(&b->region, clock_cycles(), &ns))
		fprintf(stderr, "limiter: no usable cycle counter: clock_gettime is measured\n");
}

static void prepare(struct bench *b)
{
	static const uint64_t scopes[] = { BUCKET_SCOPE_USER, BUCKET_SCOPE_MODEL,
		BUCKET_SCOPE_PROVIDER };
	struct region_owner owner = { .pid = 1, .start = 1 };
	struct region_sizes sizes = { .limits = LIMITS };
	int fd = memfd_create("limiter", MFD_CLOEXEC);

	if (fd < 0 || region_create(&b->region, fd, &owner, &sizes, clock_boottime_ns(), false) < 0)
		die("cannot make a region");
	close(fd);
	add_bucket(b, &b->open1, BUCKET_SCOPE_USER, "one", OPEN_PER_DAY, OPEN_BURST);
	add_bucket(b, &b->full1, BUCKET_SCOPE_USER, "full", 1, 1);
	add_bucket(b, &b->open3, BUCKET_SCOPE_USER, "three", OPEN_PER_DAY, OPEN_BURST);
	add_bucket(b, &b->open3, BUCKET_SCOPE_MODEL, "three", OPEN_PER_DAY, OPEN_BURST);
	add_bucket(b, &b->open3, BUCKET_SCOPE_PROVIDER, "three", OPEN_PER_DAY, OPEN_BURST);
	for (size_t i = 0; i < ARRAY_SIZE(scopes); i++) {
		add_bucket(b, &b->open6, scopes[i], "six", OPEN_PER_DAY, OPEN_BURST);
		add_tokens(b, &b->open6, scopes[i], "six");
	}
	add_users(b);
	b->shared =
		mmap(NULL, LAYOUT_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (b->shared == MAP_FAILED)
		die("mmap");
	calibrate(b);
}

static inline uint64_t fast_now(const struct region *r)
{
	uint64_t ns;

	return aux_likely(timebase_convert(r, clock_cycles(), &ns)) ? ns : clock_boottime_ns();
}

/* Each returns a number that depends on all iterations, so that none can be left out. */
static uint64_t run_check(const struct bench *b, const struct bucket_set *set)
{
	uint64_t admitted = 0;

	for (uint64_t i = 0; i < b->ops; i++)
		admitted += bucket_acquire(&b->region, set, 1, fast_now(&b->region)).outcome ==
			BUCKET_OK;
	return admitted;
}

static uint64_t run_clock(const struct bench *b)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < b->ops; i++)
		sum += fast_now(&b->region);
	return sum;
}

static uint64_t run_clock_gettime(const struct bench *b)
{
	uint64_t sum = 0;

	for (uint64_t i = 0; i < b->ops; i++)
		sum += clock_boottime_ns();
	return sum;
}

static uint64_t run_cas(const struct bench *b)
{
	shared_u64 *word = (shared_u64 *)b->shared;
	uint64_t seen = 0;

	for (uint64_t i = 0; i < b->ops; i++) {
		seen = atomic_load_explicit(word, memory_order_relaxed);
		atomic_compare_exchange_strong_explicit(
			word, &seen, seen + 1, memory_order_acq_rel, memory_order_relaxed);
	}
	return seen;
}

static uint64_t run_check1(const struct bench *b)
{
	return run_check(b, &b->open1);
}

static uint64_t run_denied(const struct bench *b)
{
	return run_check(b, &b->full1);
}

static uint64_t run_check3(const struct bench *b)
{
	return run_check(b, &b->open3);
}

static uint64_t run_check3_cold(const struct bench *b)
{
	struct bucket_set set = b->cold3;
	uint64_t admitted = 0;

	for (uint64_t i = 0, user = 0; i < b->ops; i++) {
		set.index[0] = b->users[user].row;
		set.key[0] = b->users[user].key;
		user = user + 1 == USERS ? 0 : user + 1;
		admitted += bucket_acquire(&b->region, &set, 1, fast_now(&b->region)).outcome ==
			BUCKET_OK;
	}
	return admitted;
}

/* What this process has used: others on a busy machine do not count. */
static uint64_t cpu_ns(void)
{
	struct timespec t = { 0 };

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static void measure(const struct bench *b, const char *metric,
	uint64_t (*run)(const struct bench *), bool admits)
{
	double samples[REPS_MAX];
	volatile uint64_t result;

	for (size_t i = 0; i < b->reps; i++) {
		uint64_t begin = cpu_ns();

		result = run(b);
		samples[i] = (double)(cpu_ns() - begin) / (double)b->ops;
		if (admits && result != b->ops)
			die("an admission was refused");
	}
	report_median("limiter", metric, samples, b->reps, "ns");
}

/* What it costs to look at the time between two turns, which is not counted. */
static uint64_t look_ns(void)
{
	enum { LOOKS = 10000 };
	uint64_t begin = cpu_ns();

	for (int i = 1; i < LOOKS; i++)
		cpu_ns();
	return (cpu_ns() - begin) / LOOKS;
}

/* Leases are made and ended in turns, each timed by itself. */
static void measure_six(const struct bench *b)
{
	static struct bucket_lease leases[LEASES];
	const struct bucket_cost cost = { .requests = 1, .input_tokens = 50, .output_tokens = 30 };
	const struct region *r = &b->region;
	double take[REPS_MAX], settle[REPS_MAX];
	uint64_t look = look_ns();

	for (size_t rep = 0; rep < b->reps; rep++) {
		uint64_t spent[2] = { 0 }, rounds = b->ops / LEASES / 4;

		for (uint64_t round = 0; round < rounds; round++) {
			uint64_t begin = cpu_ns(), between;

			for (size_t i = 0; i < LEASES; i++)
				if (bucket_lease(
					    r, OWNER, &b->open6, &cost, fast_now(r), &leases[i])
						.outcome != BUCKET_OK)
					die("a lease was refused");
			between = cpu_ns();
			for (size_t i = 0; i < LEASES; i++)
				bucket_settle(r, &leases[i], &cost, fast_now(r));
			spent[0] += between - begin - look;
			spent[1] += cpu_ns() - between - look;
		}
		take[rep] = (double)spent[0] / (double)(rounds * LEASES);
		settle[rep] = (double)spent[1] / (double)(rounds * LEASES);
	}
	report_median("limiter", "check6_ns", take, b->reps, "ns");
	report_median("limiter", "settle6_ns", settle, b->reps, "ns");
}

static void run_contender(const struct bench *b, int which)
{
	shared_u64 *flag = (shared_u64 *)b->shared;

	pin(which);
	atomic_fetch_add(flag, 1);
	while (atomic_load(flag) < 2)
		sched_yield();
	_exit(run_check(b, &b->open1) == b->ops ? 0 : 1);
}

/* Both processes do the same number of checks; the time is from the fork to the last exit. */
static void measure_two_processes(struct bench *b)
{
	double samples[REPS_MAX];
	pid_t child[2];
	int status;

	for (size_t i = 0; i < b->reps; i++) {
		uint64_t begin = clock_boottime_ns();

		b->shared[0] = 0;
		for (int c = 0; c < 2; c++) {
			child[c] = fork();
			if (child[c] == 0)
				run_contender(b, c);
			if (child[c] < 0)
				die("fork");
		}
		for (int c = 0; c < 2; c++)
			if (waitpid(child[c], &status, 0) < 0 || status != 0)
				die("a contender failed");
		samples[i] = 2e3 * (double)b->ops / (double)(clock_boottime_ns() - begin);
	}
	report_median("limiter", "check1_2proc_mops", samples, b->reps, "Mops/s");
}

int main(int argc, char **argv)
{
	struct bench b = { .ops = 5000000, .reps = REPS_MAX };

	if (argc > 1 && strcmp(argv[1], "--quick") == 0) {
		b.ops = 2000000;
		b.reps = 5;
	} else if (argc > 1) {
		fprintf(stderr, "usage: limiter [--quick]\n");
		return 2;
	}
	prepare(&b);
	pin(1);
	/* From here on this bucket refuses for a day. */
	bucket_acquire(&b.region, &b.full1, 1, clock_boottime_ns());
	measure(&b, "clock_ns", run_clock, false);
	measure(&b, "clock_gettime_ns", run_clock_gettime, false);
	measure(&b, "cas_ns", run_cas, false);
	measure(&b, "check1_ns", run_check1, true);
	measure(&b, "denied_ns", run_denied, false);
	measure(&b, "check3_ns", run_check3, true);
	measure(&b, "check3_cold_ns", run_check3_cold, true);
	measure_six(&b);
	measure_two_processes(&b);
	report_value("limiter", "bytes_per_bucket", sizeof(struct layout_bucket), "bytes");
	region_detach(&b.region);
	return 0;
}
