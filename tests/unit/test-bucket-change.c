#include "shm/bucket_table.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/aux.h"
#include "base/clock.h"
#include "tests/unit/bucket-helpers.h"
#include "tests/unit/splitmix.h"

/* What becomes of debts when limits change: at once, late, amid acquires, by daemons that die. */

/* ---- a change, step by step ---- */

static struct {
	bool changing;
	unsigned left;        /* until the daemon dies; 0: it lives */
	void (*others)(void); /* act before each step; may be NULL */
	jmp_buf death;
} steps;

static void step(void)
{
	if (!steps.changing)
		return;
	if (steps.left > 0 && --steps.left == 0)
		longjmp(steps.death, 1);
	if (steps.others)
		steps.others();
}

static inline void step_store(_Atomic uint64_t *word, uint64_t value, memory_order order)
{
	step();
	atomic_store_explicit(word, value, order);
}

/* The code itself, where every store is a step. */
#pragma push_macro("atomic_store_explicit")
#undef atomic_store_explicit
#define atomic_store_explicit step_store
#include "shm/bucket_table.c"
#pragma pop_macro("atomic_store_explicit")

/* Its first reading comes between the look at what is owed and the CAS of it. */
static uint64_t step_clock(void)
{
	step();
	return fixture_clock_ns;
}

/* False: the daemon died in it, before the step that dies_at counts from 1; 0: it does not. */
static bool change_until(
	struct fixture *f, const struct bucket_limit *limit, uint64_t now_ns, unsigned dies_at)
{
	f->r.clock_ns = step_clock;
	steps.left = dies_at;
	steps.changing = true;
	if (setjmp(steps.death) == 0) {
		assert_true(bucket_configure(&f->r, limit, now_ns) >= 0);
		steps.changing = false;
		return true;
	}
	steps.changing = false;
	return false;
}

/* ---- changes ---- */

static uint64_t available_after_change(uint64_t rate, uint64_t burst, uint64_t taken)
{
	struct fixture f = fixture_open(false);
	struct bucket_limit to = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
		BUCKET_ORIGIN_CONFIG, str_of("u"), rate, SECOND, burst };
	struct bucket_set set;
	uint64_t n;

	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 100, 10);
	set = fixture_set(&f, "u");
	assert_int_equal(bucket_acquire(&f.r, &set, taken, NOW).outcome, BUCKET_OK);
	assert_true(bucket_configure(&f.r, &to, NOW) >= 0);
	n = drain(&f, &set, NOW);
	assert_int_equal(view_of(&f, &set, NOW).limit, rate);
	fixture_close(&f);
	return n;
}

static void change_keeps_the_debt_in_units(void **state)
{
	(void)state;
	assert_int_equal(available_after_change(100, 10, 6), 4);
	assert_int_equal(available_after_change(1000, 10, 6), 4);
	assert_int_equal(available_after_change(1, 10, 6), 4);
	assert_int_equal(available_after_change(100, 30, 6), 24);
	assert_int_equal(available_after_change(7, 30, 6), 24);
	assert_int_equal(available_after_change(100, 5, 6), 0);
	assert_int_equal(available_after_change(3333, 7, 6), 1);
}

/* The daemon read its clock, was stopped, others took, and then it changed the limit. */
static void change_with_an_old_clock_keeps_the_debt(void **state)
{
	static const struct {
		uint64_t rate, taken, late_ns, to_rate, to_burst;
	} cases[] = {
		{ 100000, 12, 30 * NSEC_PER_MSEC, 50000, 12 },
		{ 100000, 12, 30 * NSEC_PER_MSEC, 200000, 12 },
		{ 100000, 6, 60 * NSEC_PER_USEC, 200000, 12 },
		{ 100, 11, 10 * NSEC_PER_MSEC, 100000, 12 },
		{ 1, 11, NSEC_PER_SEC, 1000, 12 },
		{ 100000, 12, 500 * NSEC_PER_USEC, 200000, 100 },
		{ 100000, 12, 1500 * NSEC_PER_MSEC, 100000, 13 },
		{ 100000, 12, 1500 * NSEC_PER_MSEC, 50000, 12 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		const uint64_t late = NOW + cases[i].late_ns;
		struct fixture f = fixture_open(false);
		struct bucket_set set;

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", cases[i].rate, 12);
		set = fixture_set(&f, "u");
		assert_int_equal(
			bucket_acquire(&f.r, &set, cases[i].taken, late).outcome, BUCKET_OK);
		fixture_clock_ns = late;
		fixture_limit(&f, BUCKET_SCOPE_USER, "u", cases[i].to_rate, cases[i].to_burst);
		assert_int_equal(
			row_of(&f, &set)->tat, late + cases[i].taken * (SECOND / cases[i].to_rate));
		assert_int_equal(drain(&f, &set, late), cases[i].to_burst - cases[i].taken);
		fixture_close(&f);
	}
}

/* A take begun before a slower limit fails at tat, whatever was owed: its cost is the old one's. */
static void change_to_slower_changes_what_was_read(void **state)
{
	static const int64_t owed[] = { -5, -1, 0, 1, 1000, 3 * NSEC_PER_MSEC };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(owed); i++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set;
		uint64_t seen;

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1000, 10);
		set = fixture_set(&f, "u");
		seen = (uint64_t)((int64_t)NOW + owed[i]);
		row_of(&f, &set)->tat = seen;
		fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 10);
		assert_int_not_equal(row_of(&f, &set)->tat, seen);
		fixture_close(&f);
	}
}

/* ---- bookings ---- */

#define T0 (NOW + 1) /* after the limits were set */

static struct bucket_lease booked(
	const struct fixture *f, const struct bucket_set *set, uint64_t now_ns, uint64_t wait_ns)
{
	struct bucket_lease l;
	struct bucket_verdict v = bucket_borrow(&f->r, 1 << 16 | 7, set,
		&(struct bucket_cost){ .requests = 1 }, now_ns, 100 * SECOND, &l);

	assert_int_equal(v.outcome, BUCKET_OK);
	assert_int_equal(v.wait_ns, wait_ns);
	return l;
}

/* Who was to be sent at a time is sent then: what leaks until then is not given back to others. */
static void bookings_keep_their_times_when_others_give_back(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_lease first, second, third;
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 1);
	set = fixture_set(&f, "u");
	first = booked(&f, &set, T0, 0);
	assert_int_equal(name_of(&f, &set)->ahead_ns, 0);
	second = booked(&f, &set, T0, SECOND);
	assert_int_equal(name_of(&f, &set)->ahead_ns, T0 + SECOND);
	bucket_cancel(&f.r, &first, T0 + SECOND / 10);
	assert_int_equal(take(&f, &set, T0 + SECOND * 11 / 10).wait_ns, SECOND * 9 / 10);
	/* Nor when it is a request alone, nor for another that was booked. */
	third = booked(&f, &set, T0 + SECOND / 10, SECOND * 19 / 10);
	bucket_give_back(&f.r, &set, 1, T0 + SECOND / 10, T0 + SECOND / 5);
	bucket_cancel(&f.r, &second, T0 + SECOND / 5);
	assert_int_equal(take(&f, &set, T0 + SECOND).wait_ns, 2 * SECOND);
	/* The last one comes back whole. */
	bucket_cancel(&f.r, &third, T0 + SECOND);
	assert_int_equal(take(&f, &set, T0 + SECOND).wait_ns, SECOND);
	/* More than a day ahead nobody books, so more is a broken word. */
	name_of(&f, &set)->ahead_ns = UINT64_MAX;
	bucket_adopt(&f.r, NOW);
	assert_int_equal(name_of(&f, &set)->ahead_ns, NOW + BUCKET_AHEAD_MAX_NS);
	fixture_close(&f);
}

static void bookings_keep_their_times_when_the_rate_is_raised(void **state)
{
	struct fixture f = fixture_open(false);
	const uint64_t changed = T0 + SECOND / 2;
	struct bucket_lease second;
	struct bucket_limit faster;
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 1);
	set = fixture_set(&f, "u");
	booked(&f, &set, T0, 0);
	booked(&f, &set, T0, SECOND);
	second = booked(&f, &set, T0, 2 * SECOND);
	booked(&f, &set, T0, 3 * SECOND);
	/* One gap is not filled: whose it was is not known. */
	bucket_cancel(&f.r, &second, T0);
	/* What is owed after a change is no broken word for the next. */
	for (uint64_t rate = 10; rate <= 1000; rate *= 10) {
		faster = fixture_requests(BUCKET_SCOPE_USER, str_of("u"), rate, 1);
		assert_true(bucket_configure(&f.r, &faster, changed) >= 0);
		assert_int_equal(row_of(&f, &set)->tat, T0 + 3 * SECOND + SECOND / rate);
	}
	assert_int_equal(hammer(&f, &set, changed, T0 + 3 * SECOND, SECOND / 100), 0);
	assert_int_equal(take(&f, &set, T0 + 3 * SECOND).wait_ns, SECOND / 1000);
	assert_int_equal(take(&f, &set, T0 + 3 * SECOND + SECOND / 1000).outcome, BUCKET_OK);
	/* A broken word shrinks nothing, and adds nothing. */
	name_of(&f, &set)->ahead_ns = UINT64_MAX;
	faster.limit = 2000;
	assert_true(bucket_configure(&f.r, &faster, T0 + 3 * SECOND) >= 0);
	assert_int_equal(row_of(&f, &set)->tat, T0 + 3 * SECOND + SECOND / 500);
	fixture_close(&f);
}

static void change_to_the_same_changes_nothing(void **state)
{
	struct fixture f = fixture_open(false);
	struct layout_bucket before;
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 100, 10);
	set = fixture_set(&f, "u");
	assert_int_equal(bucket_acquire(&f.r, &set, 6, NOW).outcome, BUCKET_OK);
	memcpy(&before, row_of(&f, &set), sizeof(before));
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 100, 10);
	assert_memory_equal(&before, row_of(&f, &set), sizeof(before));
	fixture_close(&f);
}

/* Cut off before each step, and then the next daemon's change to the same or to a third limit:
 * never more than the new limit would have left over. True: it was cut off. */
static bool death_at_a_step_never_over_admits(
	const struct bucket_limit *cut, const struct bucket_limit *next, unsigned dies_at)
{
	struct fixture f = fixture_open(false);
	uint64_t taken = 6;
	struct bucket_set set;
	bool died;

	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 100, 10);
	set = fixture_set(&f, "u");
	assert_int_equal(bucket_acquire(&f.r, &set, taken, NOW).outcome, BUCKET_OK);
	died = !change_until(&f, cut, NOW, dies_at);
	/* In between, the looser limit holds. */
	if (died)
		taken += drain(&f, &set, NOW);
	assert_true(taken <= max_u64(10, cut->burst));
	bucket_adopt(&f.r, NOW);
	assert_int_equal(name_of(&f, &set)->changed_ns, NOW);
	assert_int_equal(region_empty_since(&f.r), 0);
	assert_true(bucket_configure(&f.r, next, NOW) >= 0);
	assert_true(drain(&f, &set, NOW) <= (next->burst > taken ? next->burst - taken : 0));
	fixture_close(&f);
	return died;
}

static void death_while_changing_never_over_admits(void **state)
{
	static const struct bucket_limit targets[] = {
		{ BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE, BUCKET_ORIGIN_CONFIG, { "u", 1 },
			1000, SECOND, 20 }, /* faster, larger */
		{ BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE, BUCKET_ORIGIN_CONFIG, { "u", 1 },
			1000, SECOND, 8 },
		{ BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE, BUCKET_ORIGIN_CONFIG, { "u", 1 },
			10, SECOND, 20 }, /* slower */
		{ BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE, BUCKET_ORIGIN_CONFIG, { "u", 1 },
			10, SECOND, 8 },
		{ BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE, BUCKET_ORIGIN_CONFIG, { "u", 1 },
			1, SECOND, 100 },
	};

	(void)state;
	steps.others = NULL;
	for (size_t t = 0; t < ARRAY_SIZE(targets) * ARRAY_SIZE(targets); t++) {
		unsigned dies_at = 1;

		while (death_at_a_step_never_over_admits(&targets[t % ARRAY_SIZE(targets)],
			&targets[t / ARRAY_SIZE(targets)], dies_at))
			dies_at++;
		assert_true(dies_at > 8);
	}
}

static void reconfigure(struct fixture *f, uint64_t rate, uint64_t burst, uint64_t now_ns)
{
	struct bucket_limit limit = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
		BUCKET_ORIGIN_CONFIG, str_of("u"), rate, SECOND, burst };

	assert_true(bucket_configure(&f->r, &limit, now_ns) >= 0);
}

/* 50/s and a burst of 20, reloaded every 70 ms; also in steps, where the debt is above the burst
 * of the last change. */
static void lowering_and_raising_a_burst_refills_nothing(void **state)
{
	static const uint64_t bursts[] = { 20, 5, 1 };
	struct fixture f = fixture_open(false);
	struct bucket_set set;
	uint64_t admitted = 0, now = NOW;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 50, 20);
	set = fixture_set(&f, "u");
	for (size_t i = 0; now < NOW + 5 * SECOND; i++, now += 70 * SECOND / 1000) {
		reconfigure(&f, 50, bursts[i % ARRAY_SIZE(bursts)], now);
		admitted += hammer(&f, &set, now, now + 70 * SECOND / 1000 - 1, SECOND / 1000);
	}
	assert_in_range(admitted, 200, 20 + 50 * (now - NOW) / SECOND);
	fixture_close(&f);
}

/* What is owed above a lowered burst is waited for, exactly, also through the next daemon. */
static void lowered_burst_tells_the_exact_wait(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_verdict v;
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 1000);
	set = fixture_set(&f, "u");
	assert_int_equal(bucket_acquire(&f.r, &set, 1000, NOW).outcome, BUCKET_OK);
	reconfigure(&f, 10, 7, NOW);
	reconfigure(&f, 1, 2, NOW);
	bucket_adopt(&f.r, NOW);
	v = take(&f, &set, NOW);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, 999 * SECOND);
	assert_int_equal(take(&f, &set, NOW + v.wait_ns - 1).outcome, BUCKET_E_WAIT);
	assert_int_equal(take(&f, &set, NOW + v.wait_ns).outcome, BUCKET_OK);
	fixture_close(&f);
}

/* 10^12 units at one in 52 days are more nanoseconds than tat has. */
static void debt_above_all_time_comes_back_whole(void **state)
{
	struct bucket_limit slow = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
		BUCKET_ORIGIN_CONFIG, str_of("u"), 1, 50 * 86400 * SECOND, 1 };
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", SECOND, 1000000000000);
	set = fixture_set(&f, "u");
	assert_int_equal(bucket_acquire(&f.r, &set, 1000000000000, NOW).outcome, BUCKET_OK);
	assert_true(bucket_configure(&f.r, &slow, NOW) >= 0);
	assert_int_equal(take(&f, &set, NOW + 3600 * SECOND).outcome, BUCKET_E_WAIT);
	bucket_adopt(&f.r, NOW + 3600 * SECOND);
	reconfigure(&f, SECOND, 1000000000000, NOW + 3600 * SECOND);
	assert_int_equal(take(&f, &set, NOW + 3600 * SECOND).outcome, BUCKET_E_WAIT);
	fixture_close(&f);
}

/* A tat that nobody can owe is cut by the next change and by the next daemon to what can be. */
static void broken_arrival_time_heals(void **state)
{
	(void)state;
	for (int adopt = 0; adopt < 2; adopt++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set;

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 20);
		set = fixture_set(&f, "u");
		atomic_store(&row_of(&f, &set)->tat, UINT64_MAX - 1);
		if (adopt)
			bucket_adopt(&f.r, NOW);
		else
			reconfigure(&f, 10, 5, NOW);
		assert_int_equal(view_of(&f, &set, NOW).tat, NOW + 2 * SECOND);
		fixture_close(&f);
	}
}

/* One history of changes, and of acquiring in between: loosest holds over all of it, and each
 * limit while it is in force, whatever was before. */
static void change_at_random(struct fixture *f, const char *name, uint64_t *seed)
{
	enum { CHANGES = 12, TAKES = 30, RATES = 300, BURSTS = 40 };
	static const bool keep[LAYOUT_BUCKETS];
	struct oracle loosest = { 0, RATES, SECOND, BURSTS, NOW };
	struct bucket_limit limit = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
		BUCKET_ORIGIN_CONFIG, str_of(name), RATES, SECOND, BURSTS };
	uint64_t now = NOW;

	for (int i = 0; i < CHANGES; i++) {
		struct oracle own = { 0, limit.limit, SECOND, limit.burst, now };
		struct bucket_set set;

		assert_true(bucket_configure(&f->r, &limit, now) >= 0);
		set = fixture_set(f, name);
		for (int j = 0; j < TAKES; j++) {
			uint64_t n = 1 + splitmix_below(seed, 3);

			if (bucket_acquire(&f->r, &set, n, now).outcome == BUCKET_OK) {
				assert_true(oracle_admits(&loosest, n, now, 0));
				assert_true(oracle_admits(&own, n, now, 0));
			}
			now += splitmix_below(seed, SECOND / limit.limit);
		}
		limit.limit = 1 + splitmix_below(seed, RATES);
		limit.burst = 1 + splitmix_below(seed, i % 2 ? BURSTS : 5);
		if (splitmix_below(seed, 8) == 0)
			bucket_retire(&f->r, keep);
		if (splitmix_below(seed, 4) == 0)
			bucket_adopt(&f->r, now);
	}
}

static void random_changes_never_exceed_the_bound(void **state)
{
	struct fixture f = fixture_open(false);
	uint64_t seed = 7;
	char name[16];

	(void)state;
	for (int history = 0; history < 2000; history++) {
		snprintf(name, sizeof(name), "u%d", history);
		change_at_random(&f, name, &seed);
	}
	assert_int_equal(region_empty_since(&f.r), 0);
	fixture_close(&f);
}

struct changer {
	struct fixture *f;
	_Atomic bool stop;
};

static void *change_to_and_fro(void *arg)
{
	struct changer *me = arg;

	/* Time goes on by a nanosecond at least between two changes: tat never comes back. */
	for (uint64_t i = 0; !atomic_load(&me->stop); i++) {
		struct bucket_limit limit = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
			BUCKET_ORIGIN_CONFIG, str_of("u"), i % 2 ? 1000 : 10, SECOND,
			i % 3 ? 10 : 1 + i % 5 };

		bucket_configure(&me->f->r, &limit, NOW + i);
	}
	return NULL;
}

/* Next to no virtual time passes, so nothing leaks: however often the limit changes, no more than
 * the largest burst goes out. */
static void racing_changes_never_over_admit(void **state)
{
	(void)state;
	for (int round = 0; round < 10; round++) {
		struct fixture f = fixture_open(false);
		struct changer c = { .f = &f };
		struct bucket_set set;
		pthread_t thread;
		uint64_t admitted = 0;

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 10);
		set = fixture_set(&f, "u");
		assert_int_equal(pthread_create(&thread, NULL, change_to_and_fro, &c), 0);
		for (int i = 0; i < 300000; i++)
			admitted += take(&f, &set, NOW).outcome == BUCKET_OK;
		atomic_store(&c.stop, true);
		pthread_join(thread, NULL);
		assert_true(admitted <= 10);
		fixture_close(&f);
	}
}

static void give_back_across_a_change_returns_nothing(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_limit slower = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
		BUCKET_ORIGIN_CONFIG, str_of("u"), 1, SECOND, 5 };
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 5);
	set = fixture_set(&f, "u");
	assert_int_equal(drain(&f, &set, NOW + 1), 5);
	assert_true(bucket_configure(&f.r, &slower, NOW + 2) >= 0);
	bucket_give_back(&f.r, &set, 5, NOW + 1, NOW + 3);
	assert_int_equal(take(&f, &set, NOW + 3).outcome, BUCKET_E_WAIT);
	fixture_close(&f);
}

/* What was taken after the daemon's clock and had leaked before its change. */
static void give_back_across_a_late_change_returns_nothing(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set;
	uint64_t tat;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 200000, 12);
	set = fixture_set(&f, "u");
	assert_int_equal(bucket_acquire(&f.r, &set, 11, NOW).outcome, BUCKET_OK);
	assert_int_equal(take(&f, &set, NOW + 1).outcome, BUCKET_OK);
	fixture_clock_ns = NOW + 30 * NSEC_PER_USEC;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10000, 12);
	tat = row_of(&f, &set)->tat;
	bucket_give_back(&f.r, &set, 1, NOW + 1, fixture_clock_ns + 1);
	assert_int_equal(row_of(&f, &set)->tat, tat);
	fixture_close(&f);
}

/* ---- others act at every step ---- */

/* Of one thread, and slow under its sanitizer. */
#ifdef __SANITIZE_THREAD__
#define STORM_HISTORIES 300
#else
#define STORM_HISTORIES 3000
#endif
enum { STORM_TAKES = 200, STORM_LIMITS = 8, STORM_BURST = 12 };

/* One limit that changes, all that was taken from it and kept, and the limits by their time. The
 * time is fixture_clock_ns. */
static struct storm {
	struct fixture f;
	char name[16];
	struct bucket_set set;
	uint64_t seed;
	uint64_t strides; /* by how many intervals the time goes on at most; 0: next to none */
	struct {
		uint64_t n, at_ns;
	} taken[STORM_TAKES];
	struct {
		uint64_t interval_ns, burst, from_ns, to_ns;
	} limits[STORM_LIMITS];
	unsigned takes, limit_count;
} storm;

static uint64_t storm_random(uint64_t below)
{
	return splitmix_below(&storm.seed, below);
}

/* One of the last, once. */
static void storm_give_back(void)
{
	unsigned i = storm.takes - 1 - (unsigned)storm_random(min_u64(storm.takes, 4));

	bucket_give_back(
		&storm.f.r, &storm.set, storm.taken[i].n, storm.taken[i].at_ns, fixture_clock_ns);
	storm.taken[i].n = 0;
}

static void others_go_on(uint64_t acts)
{
	uint64_t interval_ns = storm.limits[storm.limit_count - 1].interval_ns;

	while (acts-- > 0 && storm.takes < STORM_TAKES) {
		uint64_t n = 1 + storm_random(storm_random(2) ? 3 : 12);

		if (storm_random(2))
			fixture_clock_ns += 1 + storm_random(storm.strides * interval_ns + 1);
		if (storm.takes > 0 && storm_random(4) == 0) {
			storm_give_back();
			continue;
		}
		if (bucket_acquire(&storm.f.r, &storm.set, n, fixture_clock_ns).outcome !=
			BUCKET_OK)
			continue;
		storm.taken[storm.takes].n = n;
		storm.taken[storm.takes++].at_ns = fixture_clock_ns;
	}
}

static void storm_others(void)
{
	others_go_on(storm_random(3));
}

/* The clock that the daemon passes is up to late_ns old. */
static void storm_change(uint64_t late_ns, unsigned dies_at)
{
	static const uint64_t intervals[] = { 5000, 10000, 50000, 100000, 10000000, SECOND };
	uint64_t interval_ns = intervals[storm_random(ARRAY_SIZE(intervals))];
	uint64_t burst = storm_random(2) ? STORM_BURST : 1 + storm_random(30);
	struct bucket_limit limit = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
		BUCKET_ORIGIN_CONFIG, str_of(storm.name), SECOND / interval_ns, SECOND, burst };
	uint64_t old_ns = fixture_clock_ns;

	if (storm.limit_count > 0) {
		others_go_on(storm_random(5));
		fixture_clock_ns += storm_random(late_ns + 1);
		others_go_on(storm_random(3));
	}
	storm.limits[storm.limit_count].interval_ns = interval_ns;
	storm.limits[storm.limit_count].burst = burst;
	storm.limits[storm.limit_count].from_ns = fixture_clock_ns;
	storm.limits[storm.limit_count++].to_ns = UINT64_MAX;
	if (!change_until(&storm.f, &limit, old_ns, dies_at)) {
		bucket_adopt(&storm.f.r, fixture_clock_ns);
		return;
	}
	for (unsigned i = 0; i + 1 < storm.limit_count; i++)
		storm.limits[i].to_ns = min_u64(storm.limits[i].to_ns, fixture_clock_ns);
}

/* In every window: at most the burst and the rate of the loosest limits in force meanwhile. */
static bool storm_is_within_bounds(void)
{
	for (unsigned i = 0; i < storm.takes; i++) {
		unsigned __int128 sum = 0;

		for (unsigned j = i; j < storm.takes; j++) {
			uint64_t burst = 0, interval_ns = UINT64_MAX;

			sum += storm.taken[j].n;
			for (unsigned k = 0; k < storm.limit_count; k++) {
				if (storm.limits[k].from_ns > storm.taken[j].at_ns ||
					storm.limits[k].to_ns < storm.taken[i].at_ns)
					continue;
				burst = max_u64(burst, storm.limits[k].burst);
				interval_ns = min_u64(interval_ns, storm.limits[k].interval_ns);
			}
			if (storm.taken[i].n > 0 &&
				sum * interval_ns > (unsigned __int128)burst * interval_ns +
						storm.taken[j].at_ns - storm.taken[i].at_ns)
				return false;
		}
	}
	return true;
}

static void storms_stay_within_bounds(uint64_t late_ns, bool deaths)
{
	storm.f = fixture_open(false);
	for (unsigned history = 0; history < STORM_HISTORIES; history++) {
		snprintf(storm.name, sizeof(storm.name), "u%u", history);
		steps.others = NULL;
		fixture_clock_ns = NOW;
		storm.seed = history;
		storm.strides = history % 2 ? 10 : 0;
		storm.takes = storm.limit_count = 0;
		storm_change(0, 0);
		storm.set = fixture_set(&storm.f, storm.name);
		steps.others = storm_others;
		while (storm.limit_count < STORM_LIMITS)
			storm_change(
				history % 2 ? late_ns : 0, deaths ? (unsigned)storm_random(14) : 0);
		others_go_on(STORM_TAKES);
		if (!storm_is_within_bounds())
			fail_msg("history %u, clock %llu ns late", history,
				(unsigned long long)late_ns);
	}
	fixture_close(&storm.f);
}

static void acquires_amid_changes_stay_within_the_bound(void **state)
{
	(void)state;
	storms_stay_within_bounds(0, false);
}

static void changes_by_a_late_daemon_stay_within_the_bound(void **state)
{
	(void)state;
	storms_stay_within_bounds(100 * NSEC_PER_USEC, false);
	storms_stay_within_bounds(3 * SECOND, false);
}

static void daemons_dying_late_stay_within_the_bound(void **state)
{
	(void)state;
	storms_stay_within_bounds(100 * NSEC_PER_USEC, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(give_back_across_a_change_returns_nothing),
		cmocka_unit_test(give_back_across_a_late_change_returns_nothing),
		cmocka_unit_test(acquires_amid_changes_stay_within_the_bound),
		cmocka_unit_test(changes_by_a_late_daemon_stay_within_the_bound),
		cmocka_unit_test(daemons_dying_late_stay_within_the_bound),
		cmocka_unit_test(change_keeps_the_debt_in_units),
		cmocka_unit_test(change_with_an_old_clock_keeps_the_debt),
		cmocka_unit_test(change_to_slower_changes_what_was_read),
		cmocka_unit_test(bookings_keep_their_times_when_others_give_back),
		cmocka_unit_test(bookings_keep_their_times_when_the_rate_is_raised),
		cmocka_unit_test(change_to_the_same_changes_nothing),
		cmocka_unit_test(death_while_changing_never_over_admits),
		cmocka_unit_test(lowering_and_raising_a_burst_refills_nothing),
		cmocka_unit_test(lowered_burst_tells_the_exact_wait),
		cmocka_unit_test(debt_above_all_time_comes_back_whole),
		cmocka_unit_test(broken_arrival_time_heals),
		cmocka_unit_test(random_changes_never_exceed_the_bound),
		cmocka_unit_test(racing_changes_never_over_admit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
