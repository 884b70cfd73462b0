/*
 * The same functions from threads of one process, under any sanitizer: exactness in virtual time
 * where all threads share the clock, and everything that may run at once running at once.
 * Prints TAP.
 */

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "shm/bucket_table.h"
#include "shm/participant.h"
#include "shm/timebase.h"
#include "tests/unit/splitmix.h"

#define THREADS 4
#define ROUNDS 200000
#define STEP_NS 50
#define LIMIT_SECONDS 100
#define CHECK(what_) \
	do { \
		if (!(what_)) { \
			printf("not ok - %s:%d: %s\n", __FILE__, __LINE__, #what_); \
			exit(1); \
		} \
	} while (0)

struct race {
	struct region region;
	_Atomic uint64_t now;
	_Atomic bool stop;
	_Atomic int next_thread;
	struct bucket_set shared, levels[THREADS];
	uint64_t admitted[THREADS][2];
};

static void limit(struct race *r, struct bucket_set *set, uint64_t scope, const char *name,
	uint64_t rate, uint64_t burst)
{
	struct bucket_limit l = { scope, BUCKET_REQUESTS, BUCKET_RATE, BUCKET_ORIGIN_CONFIG,
		str_of(name), rate, NSEC_PER_SEC, burst };

	CHECK(bucket_configure(&r->region, &l, atomic_load(&r->now)) >= 0);
	CHECK(bucket_set_add(set, &r->region, scope, BUCKET_REQUESTS, l.name));
}

/* The region's own clock is the threads'. */
static _Atomic uint64_t *race_now;

static uint64_t race_clock(void)
{
	return atomic_load(race_now);
}

static void race_open(struct race *r)
{
	struct region_owner owner = { .pid = 1 };
	int fd = memfd_create("race", MFD_CLOEXEC);
	char name[16];

	*r = (struct race){ .now = clock_boottime_ns() };
	CHECK(fd >= 0 && region_create(&r->region, fd, &owner, NULL, r->now, false) == 0);
	close(fd);
	race_now = &r->now;
	r->region.clock_ns = race_clock;
	limit(r, &r->shared, BUCKET_SCOPE_PROVIDER, "shared", 100000, 10);
	for (int i = 0; i < THREADS; i++) {
		snprintf(name, sizeof(name), "user-%d", i);
		limit(r, &r->levels[i], BUCKET_SCOPE_USER, name, 1000000, 1000);
		limit(r, &r->levels[i], BUCKET_SCOPE_MODEL, "model", 200000, 20);
		limit(r, &r->levels[i], BUCKET_SCOPE_PROVIDER, "provider", 100000, 10);
	}
}

static void run_threads(struct race *r, void *(*body)(void *), void *(*beside)(void *))
{
	pthread_t threads[THREADS], other;

	CHECK(pthread_create(&other, NULL, beside, r) == 0);
	for (int i = 0; i < THREADS; i++)
		CHECK(pthread_create(&threads[i], NULL, body, r) == 0);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	atomic_store(&r->stop, true);
	pthread_join(other, NULL);
}

static struct bucket_view view_of(const struct race *r, uint32_t row)
{
	struct bucket_view v;

	CHECK(bucket_view(&r->region, row, atomic_load(&r->now), &v));
	return v;
}

static void *take_both(void *arg)
{
	struct race *r = arg;
	int me = atomic_fetch_add(&r->next_thread, 1);

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t now = atomic_fetch_add(&r->now, STEP_NS);

		r->admitted[me][0] +=
			bucket_acquire(&r->region, &r->shared, 1, now).outcome == BUCKET_OK;
		r->admitted[me][1] +=
			bucket_acquire(&r->region, &r->levels[me], 1, now).outcome == BUCKET_OK;
	}
	return NULL;
}

/* An observer, who must see whole numbers at any time. */
static void *observe(void *arg)
{
	struct race *r = arg;

	while (!atomic_load(&r->stop)) {
		struct bucket_view v = view_of(r, r->shared.index[0]);

		CHECK(v.available <= v.burst && v.limit == 100000);
		bucket_peek(&r->region, &r->levels[0], &(struct bucket_cost){ .requests = 1 },
			atomic_load(&r->now));
	}
	return NULL;
}

static void admissions_are_exact(void)
{
	struct race r;
	uint64_t sum[2] = { 0 }, bound, begin;

	race_open(&r);
	begin = r.now;
	run_threads(&r, take_both, observe);
	bound = 10 + (atomic_load(&r.now) - begin) / 10000;
	for (int i = 0; i < THREADS; i++) {
		sum[0] += r.admitted[i][0];
		sum[1] += r.admitted[i][1];
		/* All or nothing: what the user's bucket says is what the user got. */
		CHECK(view_of(&r, r.levels[i].index[0]).admitted == r.admitted[i][1]);
	}
	CHECK(sum[0] <= bound && sum[0] >= bound - bound / 100 - 1);
	CHECK(sum[1] <= bound);
	CHECK(view_of(&r, r.shared.index[0]).admitted == sum[0]);
	CHECK(view_of(&r, r.shared.index[0]).rejected == (uint64_t)THREADS * ROUNDS - sum[0]);
	CHECK(view_of(&r, r.levels[0].index[1]).admitted == sum[1]);
	CHECK(view_of(&r, r.levels[0].index[2]).admitted == sum[1]);
	region_detach(&r.region);
	printf("ok 1 - admissions are exact in one and in three levels\n");
}

#define DAYS 2000
#define DAY_NS (86400 * NSEC_PER_SEC)

struct duel {
	struct race *race;
	struct bucket_set set[DAYS];
	_Atomic int arrived;
	_Atomic uint64_t admitted;
};

static void *fight(void *arg)
{
	struct duel *d = arg;
	uint64_t now = atomic_load(&d->race->now) + 1; /* after the limits were set */

	for (int i = 0; i < DAYS; i++) {
		/* All at once at each: only one gets the one unit. */
		atomic_fetch_add(&d->arrived, 1);
		while (atomic_load(&d->arrived) < 2 * (i + 1))
			sched_yield();
		if (bucket_acquire(&d->race->region, &d->set[i], 1, now).outcome == BUCKET_OK)
			atomic_fetch_add(&d->admitted, 1);
	}
	return NULL;
}

/* Two threads race for the single unit of a second level. Who loses gives back what it took from
 * the first one, where a unit takes a day to leak. */
static void losers_give_back(void)
{
	static struct duel d;
	struct bucket_set user = { 0 };
	struct race r;
	pthread_t other;
	uint64_t left;

	race_open(&r);
	d.race = &r;
	for (int i = 0; i < DAYS; i++) {
		struct bucket_limit one = { BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, BUCKET_RATE,
			BUCKET_ORIGIN_CONFIG, STR_NULL, 1, DAY_NS, 1 };
		struct bucket_limit all = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
			BUCKET_ORIGIN_CONFIG, str_of("u"), 1, DAY_NS, 2 * DAYS };
		char name[16];

		snprintf(name, sizeof(name), "p-%d", i);
		one.name = str_of(name);
		CHECK(bucket_configure(&r.region, &all, r.now) >= 0);
		CHECK(bucket_configure(&r.region, &one, r.now) >= 0);
		CHECK(bucket_set_add(
			&d.set[i], &r.region, BUCKET_SCOPE_USER, BUCKET_REQUESTS, all.name));
		CHECK(bucket_set_add(
			&d.set[i], &r.region, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, one.name));
	}
	CHECK(bucket_set_add(&user, &r.region, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of("u")));
	CHECK(pthread_create(&other, NULL, fight, &d) == 0);
	fight(&d);
	pthread_join(other, NULL);
	left = view_of(&r, user.index[0]).available;
	CHECK(d.admitted == DAYS);
	/* Less the few nanoseconds that have leaked while each was held. */
	CHECK(left == DAYS || left == DAYS - 1);
	region_detach(&r.region);
	printf("ok 4 - who loses a race for the second level gives back the first\n");
}

static void *take_and_give_back(void *arg)
{
	struct race *r = arg;
	uint64_t seed = (uint64_t)atomic_fetch_add(&r->next_thread, 1);

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t now = atomic_fetch_add(&r->now, STEP_NS), n = 1 + splitmix_below(&seed, 4);

		if (bucket_acquire(&r->region, &r->shared, n, now).outcome == BUCKET_OK &&
			splitmix_below(&seed, 2) == 0)
			bucket_give_back(&r->region, &r->shared, n, now, atomic_load(&r->now));
	}
	return NULL;
}

/* The daemon: changes limits, publishes the clock, moves participants. */
static void *govern(void *arg)
{
	struct race *r = arg;
	struct timebase_tracker t = { 0 };
	struct bucket_set ignored = { 0 };
	uint64_t ns;

	for (uint64_t i = 1; !atomic_load(&r->stop); i++) {
		int row = participant_claim(&r->region, i, i, i, i);

		limit(r, &ignored, BUCKET_SCOPE_PROVIDER, "shared", i % 2 ? 50000 : 100000,
			10 + i % 3);
		timebase_track(&t, &r->region, i * 1000000000, i * NSEC_PER_SEC, NSEC_PER_SEC);
		timebase_convert(&r->region, i * 1000000000, &ns);
		region_heartbeat(&r->region, i);
		CHECK(row >= 0);
		participant_release(&r->region, (uint32_t)row);
	}
	return NULL;
}

static void everything_at_once_holds_together(void)
{
	struct race r;
	struct bucket_view v;

	race_open(&r);
	run_threads(&r, take_and_give_back, govern);
	v = view_of(&r, r.shared.index[0]);
	/* After any storm the debt is within the burst: nobody waits longer than it takes to leak.
	 */
	CHECK(v.tat <= atomic_load(&r.now) + 12 * (NSEC_PER_SEC / 50000));
	CHECK(v.admitted > 0);
	region_detach(&r.region);
	printf("ok 2 - taking, giving back, changing and looking at once hold together\n");
}

static void *read_clock(void *arg)
{
	struct race *r = arg;

	for (int i = 0; i < ROUNDS; i++) {
		uint64_t ns, cycles = NSEC_PER_SEC * UINT64_C(1000) + (uint64_t)i;

		/* Three cycles a nanosecond, always: a torn pair would show as another time. */
		if (timebase_convert(&r->region, cycles, &ns))
			CHECK(ns <= cycles / 3 && ns + 1000 >= cycles / 3);
	}
	return NULL;
}

static void *publish_clock(void *arg)
{
	struct race *r = arg;
	struct timebase_tracker t = { 0 };

	for (uint64_t i = 1; !atomic_load(&r->stop); i++) {
		uint64_t ns = NSEC_PER_SEC * UINT64_C(1000) / 3 - NSEC_PER_SEC -
			(i % 5) * NSEC_PER_MSEC * 60;

		t = (struct timebase_tracker){ .cycles = 3 * (ns - NSEC_PER_SEC),
			.ns = ns - NSEC_PER_SEC };
		timebase_track(&t, &r->region, 3 * ns, ns, NSEC_PER_SEC);
	}
	return NULL;
}

static void clock_is_never_torn(void)
{
	struct race r;

	race_open(&r);
	run_threads(&r, read_clock, publish_clock);
	region_detach(&r.region);
	printf("ok 3 - the fast clock is never read torn\n");
}

int main(void)
{
	alarm(LIMIT_SECONDS);
	printf("1..4\n");
	admissions_are_exact();
	everything_at_once_holds_together();
	clock_is_never_torn();
	losers_give_back();
	return 0;
}
