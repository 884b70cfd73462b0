#include "shm/bucket_table.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include "base/aux.h"
#include "shm/layout.h"
#include "tests/unit/bucket-helpers.h"
#include "tests/unit/splitmix.h"

/* ---- the clock, in our hands ---- */

static uint64_t wall_clock_reads;

/* Replaces the C library's for this program: counts who asks for the time of day. */
int clock_gettime(clockid_t id, struct timespec *out)
{
	if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_TAI)
		wall_clock_reads++;
	return (int)syscall(SYS_clock_gettime, id, out);
}

/* ---- the original's defects, each by name ---- */

static void llmkit_1_per_second_for_3_s_admits_at_most_4(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 1);
	set = fixture_set(&f, "u");
	assert_int_equal(hammer(&f, &set, NOW, NOW + 3 * SECOND, SECOND / 100000), 4);
	fixture_close(&f);
}

static void llmkit_reject_carries_exact_wait(void **state)
{
	static const struct {
		uint64_t limit, burst, n;
	} cases[] = { { 1, 1, 1 }, { 3, 2, 1 }, { 1500, 40, 7 }, { 100000, 5, 5 }, { 7, 100, 33 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fixture f = fixture_open(false);
		struct bucket_verdict v;
		struct bucket_set set;

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", cases[i].limit, cases[i].burst);
		set = fixture_set(&f, "u");
		drain(&f, &set, NOW);
		v = bucket_acquire(&f.r, &set, cases[i].n, NOW + 17);
		assert_int_equal(v.outcome, BUCKET_E_WAIT);
		assert_int_equal(v.blocking, set.index[0]);
		assert_true(v.wait_ns > 0);
		assert_int_equal(
			bucket_acquire(&f.r, &set, cases[i].n, NOW + 17 + v.wait_ns - 1).outcome,
			BUCKET_E_WAIT);
		assert_int_equal(
			bucket_acquire(&f.r, &set, cases[i].n, NOW + 17 + v.wait_ns).outcome,
			BUCKET_OK);
		fixture_close(&f);
	}
}

/* The narrow limit is open and the wide one full: nothing may be taken from the narrow one. */
static void llmkit_hierarchy_leaks_nothing_on_reject(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set all = { 0 }, user;
	struct bucket_verdict v;
	uint64_t before[3];

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 100, 50);
	fixture_limit(&f, BUCKET_SCOPE_MODEL, "m", 100, 50);
	fixture_limit(&f, BUCKET_SCOPE_PROVIDER, "p", 10, 2);
	user = fixture_set(&f, "u");
	fixture_add(&all, &f, BUCKET_SCOPE_USER, "u");
	fixture_add(&all, &f, BUCKET_SCOPE_MODEL, "m");
	fixture_add(&all, &f, BUCKET_SCOPE_PROVIDER, "p");
	assert_int_equal(drain(&f, &all, NOW), 2);
	for (int i = 0; i < 3; i++)
		before[i] = atomic_load(&f.r.bucket[all.index[i]].tat);
	for (int i = 0; i < 1000; i++) {
		v = take(&f, &all, NOW);
		assert_int_equal(v.outcome, BUCKET_E_WAIT);
		assert_int_equal(v.blocking, all.index[2]);
		assert_int_equal(v.wait_ns, SECOND / 10);
	}
	for (int i = 0; i < 3; i++)
		assert_int_equal(atomic_load(&f.r.bucket[all.index[i]].tat), before[i]);
	assert_int_equal(drain(&f, &user, NOW), 48);
	assert_int_equal(view_of(&f, &user, NOW).admitted, 50);
	fixture_close(&f);
}

/* Three seconds of acquiring while nobody asks for the time of day: what it does cannot matter.
 * Our own clock going back, as a stale reading does, admits nothing either. */
static void llmkit_wall_clock_jumps_do_nothing(void **state)
{
	struct fixture f = fixture_open(false);
	struct timespec wall;
	struct bucket_set set;
	uint64_t reads = wall_clock_reads;

	(void)state;
	clock_gettime(CLOCK_REALTIME, &wall);
	assert_int_equal(wall_clock_reads, reads + 1); /* the counter works */
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 1);
	set = fixture_set(&f, "u");
	assert_int_equal(hammer(&f, &set, NOW, NOW + 3 * SECOND, SECOND / 1000), 4);
	bucket_give_back(&f.r, &set, 1, NOW, NOW + 1);
	assert_int_equal(take(&f, &set, 0).outcome, BUCKET_E_WAIT);
	assert_int_equal(drain(&f, &set, NOW - 900 * SECOND), 0);
	assert_int_equal(wall_clock_reads, reads + 1);
	fixture_close(&f);
}

static void llmkit_burst_is_not_raised_to_rate(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 100, 3);
	set = fixture_set(&f, "u");
	assert_int_equal(drain(&f, &set, NOW), 3);
	assert_int_equal(drain(&f, &set, NOW + 3600 * SECOND), 3);
	fixture_close(&f);
}

/* The original grants one unit a millisecond, whatever the rate: here, hammered every 100 us. */
static void llmkit_no_ceil_refill_at_low_rates(void **state)
{
	static const uint64_t rates[] = { 1, 10, 100, 500, 999, 1500 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set;
		uint64_t n;

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", rates[i], rates[i]);
		set = fixture_set(&f, "u");
		n = hammer(&f, &set, NOW, NOW + 3 * SECOND, SECOND / 10000);
		assert_in_range(n, 4 * rates[i] - rates[i] / 100 - 1, 4 * rates[i]);
		fixture_close(&f);
	}
}

struct racer {
	const struct fixture *f;
	const struct bucket_set *set;
	_Atomic uint64_t *now;
	uint64_t rounds, admitted;
};

static void *race(void *arg)
{
	struct racer *me = arg;

	for (uint64_t i = 0; i < me->rounds; i++)
		me->admitted +=
			take(me->f, me->set, atomic_fetch_add(me->now, 25)).outcome == BUCKET_OK;
	return NULL;
}

/* Two words refill twice when threads race; one word cannot. Time is shared and virtual, so the
 * bound is exact: 40 ms and a burst of 3 at 100,000/s. */
static void llmkit_two_word_race_does_not_double_refill(void **state)
{
	enum { THREADS = 4, ROUNDS = 400000 };
	struct fixture f = fixture_open(false);
	_Atomic uint64_t now = NOW;
	struct racer racers[THREADS];
	pthread_t threads[THREADS];
	struct bucket_set set;
	struct bucket_view v;
	uint64_t sum = 0, bound;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 100000, 3);
	set = fixture_set(&f, "u");
	for (int i = 0; i < THREADS; i++) {
		racers[i] = (struct racer){ &f, &set, &now, ROUNDS, 0 };
		assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
	}
	for (int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		sum += racers[i].admitted;
	}
	bound = 3 + (atomic_load(&now) - NOW) / 10000;
	assert_in_range(sum, bound - bound / 100 - 1, bound);
	v = view_of(&f, &set, NOW);
	assert_int_equal(v.admitted, sum);
	assert_int_equal(v.rejected, (uint64_t)THREADS * ROUNDS - sum);
	fixture_close(&f);
}

/* ---- the arithmetic ---- */

static void whole_burst_can_be_taken_singly_and_at_once(void **state)
{
	static const uint64_t rates[] = { 1, 3, 7, 59, 1500, 99999, 200000 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set;

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", rates[i], 1000);
		set = fixture_set(&f, "u");
		assert_int_equal(view_of(&f, &set, NOW).available, 1000);
		assert_int_equal(drain(&f, &set, NOW), 1000);
		assert_int_equal(view_of(&f, &set, NOW).available, 0);
		assert_int_equal(
			bucket_acquire(&f.r, &set, 1000, NOW + 2000 * SECOND).outcome, BUCKET_OK);
		assert_int_equal(take(&f, &set, NOW + 2000 * SECOND).outcome, BUCKET_E_WAIT);
		fixture_close(&f);
	}
}

static void tokens_by_the_thousand_lose_nothing(void **state)
{
	struct fixture f = fixture_open(false);
	/* 150 million a minute is 400 ns each, 170 million 352.94. */
	struct bucket_limit limit = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
		BUCKET_ORIGIN_CONFIG, str_of("t"), 170000000, 60 * SECOND, 1000000 };
	struct bucket_set set;
	uint64_t units = 0, now;

	(void)state;
	assert_true(bucket_configure(&f.r, &limit, NOW) >= 0);
	set = fixture_set(&f, "t");
	for (now = NOW; now < NOW + 60 * SECOND; now += SECOND / 1000)
		while (bucket_acquire(&f.r, &set, 1777, now).outcome == BUCKET_OK)
			units += 1777;
	assert_in_range(units, 171000000 - 171000000 / 10000, 171000000);
	fixture_close(&f);
}

static void cost_above_burst_never_fits(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 5);
	set = fixture_set(&f, "u");
	assert_int_equal(bucket_acquire(&f.r, &set, 6, NOW).outcome, BUCKET_E_NEVER);
	assert_int_equal(bucket_acquire(&f.r, &set, UINT64_MAX, NOW).outcome, BUCKET_E_NEVER);
	assert_int_equal(
		bucket_acquire(&f.r, &set, UINT64_MAX / 409600000, NOW).outcome, BUCKET_E_NEVER);
	assert_int_equal(bucket_acquire(&f.r, &set, 0, NOW).outcome, BUCKET_OK);
	assert_int_equal(view_of(&f, &set, NOW).admitted, 0);
	assert_int_equal(view_of(&f, &set, NOW).rejected, 3);
	assert_int_equal(bucket_acquire(&f.r, &set, 5, NOW).outcome, BUCKET_OK);
	fixture_close(&f);
}

static void verdict_is_the_longest_wait_of_all(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set all = { 0 };
	struct bucket_verdict v;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 1);
	fixture_limit(&f, BUCKET_SCOPE_MODEL, "m", 2, 1);
	fixture_limit(&f, BUCKET_SCOPE_PROVIDER, "p", 5, 1);
	fixture_add(&all, &f, BUCKET_SCOPE_USER, "u");
	fixture_add(&all, &f, BUCKET_SCOPE_MODEL, "m");
	fixture_add(&all, &f, BUCKET_SCOPE_PROVIDER, "p");
	assert_int_equal(
		bucket_peek(&f.r, &all, &(struct bucket_cost){ .requests = 1 }, NOW).outcome,
		BUCKET_OK);
	assert_int_equal(
		bucket_peek(&f.r, &all, &(struct bucket_cost){ .requests = 0 }, NOW).outcome,
		BUCKET_OK);
	assert_int_equal(take(&f, &all, NOW).outcome, BUCKET_OK);
	v = bucket_peek(&f.r, &all, &(struct bucket_cost){ .requests = 1 }, NOW);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, SECOND / 2);
	assert_int_equal(v.blocking, all.index[1]);
	assert_int_equal(f.r.bucket[all.index[1]].rejected, 0); /* peeking counts nothing */
	assert_int_equal(take(&f, &all, NOW + v.wait_ns - 1).outcome, BUCKET_E_WAIT);
	assert_int_equal(take(&f, &all, NOW + v.wait_ns).outcome, BUCKET_OK);
	/* What can never fit outranks what must wait. */
	assert_int_equal(bucket_acquire(&f.r, &all, 2, NOW).outcome, BUCKET_E_NEVER);
	fixture_close(&f);
}

/* Random limits, costs and times against the provider's own bucket. */
static void random_histories_never_exceed_the_bound(void **state)
{
	struct fixture f = fixture_open(false);
	uint64_t seed = 1;

	(void)state;
	for (int history = 0; history < 3000; history++) {
		char name[16];
		struct bucket_limit limit = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
			BUCKET_ORIGIN_CONFIG, STR_NULL,
			1 + splitmix_below(&seed, history % 2 ? 2000 : 50000000), SECOND,
			1 + splitmix_below(&seed, 100) };
		struct oracle o = { .limit = limit.limit,
			.window_ns = SECOND,
			.burst = limit.burst,
			.last_ns = NOW };
		uint64_t now = NOW, slack = limit.limit > 244140 ? 1 : 0;
		struct bucket_set set;

		snprintf(name, sizeof(name), "u%d", history);
		limit.name = str_of(name);
		assert_true(bucket_configure(&f.r, &limit, NOW) >= 0);
		set = fixture_set(&f, name);
		for (int i = 0; i < 60; i++) {
			uint64_t n = 1 + splitmix_below(&seed, limit.burst);

			now += splitmix_below(&seed, 3 * n * SECOND / limit.limit + 1);
			if (bucket_acquire(&f.r, &set, n, now).outcome == BUCKET_OK)
				assert_true(oracle_admits(&o, n, now, slack));
		}
	}
	fixture_close(&f);
}

/* ---- give-back ---- */

enum { GIVE_BACK_ELAPSED, GIVE_BACK_NAIVE, GIVE_BACK_CLIPPED };

struct taken {
	uint64_t n, at_ns;
	bool returned;
};

/* The rules that were tried elsewhere: tat -= cost, and the same but not below now. */
static void give_back_by(const struct fixture *f, const struct bucket_set *set, int rule,
	const struct taken *t, uint64_t now_ns, uint64_t interval_ns)
{
	shared_u64 *tat = &row_of(f, set)->tat;
	uint64_t less = atomic_load(tat) - t->n * interval_ns;

	if (rule == GIVE_BACK_ELAPSED)
		bucket_give_back(&f->r, set, t->n, t->at_ns, now_ns);
	else
		atomic_store(tat, rule == GIVE_BACK_CLIPPED && less < now_ns ? now_ns : less);
}

/* One history of taking and giving back at random times. True: what was kept fits the bound. */
static bool history_conforms(const struct fixture *f, const struct bucket_set *set, int rule,
	uint64_t *seed, uint64_t interval_ns, uint64_t burst)
{
	enum { STEPS = 24 };
	struct oracle o = { .limit = 1, .window_ns = interval_ns, .burst = burst, .last_ns = NOW };
	struct taken taken[STEPS];
	size_t count = 0;
	uint64_t now = NOW;

	atomic_store(&row_of(f, set)->tat, NOW);
	for (int i = 0; i < STEPS; i++) {
		size_t which = count ? splitmix_below(seed, count) : 0;

		now += splitmix_below(seed, 2 * interval_ns);
		if (count && splitmix_below(seed, 3) == 0 && !taken[which].returned) {
			give_back_by(f, set, rule, &taken[which], now, interval_ns);
			taken[which].returned = true;
			continue;
		}
		taken[count] = (struct taken){ 1 + splitmix_below(seed, burst), now, false };
		count += bucket_acquire(&f->r, set, taken[count].n, now).outcome == BUCKET_OK;
	}
	for (size_t i = 0; i < count; i++)
		if (!taken[i].returned && !oracle_admits(&o, taken[i].n, taken[i].at_ns, 0))
			return false;
	return true;
}

static int histories_violating(int rule, int histories)
{
	struct fixture f = fixture_open(false);
	uint64_t seed = 99;
	struct bucket_set set;
	int bad = 0;

	/* One limit, times of its start in the past of all that is taken. */
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1000, 8);
	set = fixture_set(&f, "u");
	atomic_store(&name_of(&f, &set)->changed_ns, 0);
	for (int i = 0; i < histories; i++)
		bad += !history_conforms(&f, &set, rule, &seed, SECOND / 1000, 8);
	fixture_close(&f);
	return bad;
}

static void give_back_never_over_admits(void **state)
{
	(void)state;
	assert_int_equal(histories_violating(GIVE_BACK_ELAPSED, 50000), 0);
	/* The same oracle catches the rules that look right. */
	assert_true(histories_violating(GIVE_BACK_NAIVE, 1000) > 50);
	assert_true(histories_violating(GIVE_BACK_CLIPPED, 1000) > 50);
}

static void give_back_returns_what_has_not_leaked(void **state)
{
	struct fixture f = fixture_open(false);
	uint64_t later = NOW + 10;
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 5);
	set = fixture_set(&f, "u");
	assert_int_equal(bucket_acquire(&f.r, &set, 5, later).outcome, BUCKET_OK);
	bucket_give_back(&f.r, &set, 5, later, later);
	assert_int_equal(drain(&f, &set, later), 5);
	/* A second later ten more would have leaked: nothing is left to return. */
	bucket_give_back(&f.r, &set, 5, later, later + SECOND / 2);
	assert_int_equal(drain(&f, &set, later + SECOND / 2), 5);
	/* A clock that went back returns nothing. */
	bucket_give_back(&f.r, &set, 5, later + SECOND / 2, later);
	assert_int_equal(drain(&f, &set, later + SECOND / 2), 0);
	/* Nor does a row that is another limit's now. */
	set.key[0]++;
	bucket_give_back(&f.r, &set, 5, later + SECOND / 2, later + SECOND / 2);
	set.key[0]--;
	assert_int_equal(drain(&f, &set, later + SECOND / 2), 0);
	fixture_close(&f);
}

/* ---- configuration ---- */

static void limits_are_checked(void **state)
{
	static const struct {
		uint64_t limit, window_ns, burst;
		int result;
	} cases[] = {
		{ 0, SECOND, 1, -ERANGE },
		{ 1, SECOND, 0, -ERANGE },
		{ 1, 999, 1, -ERANGE },
		{ 1, 401 * UINT64_C(86400) * SECOND, 1, -ERANGE },
		{ 1, 60 * UINT64_C(86400) * SECOND, 1, -ERANGE }, /* less than one in 52 days */
		{ 1001, 1000, 1, -ERANGE },                       /* more than one a nanosecond */
		{ UINT64_C(1000000000001), 1000 * SECOND, 1, -ERANGE },
		{ 1, SECOND, UINT64_C(1000000000001), -ERANGE },
		{ 1, 30 * UINT64_C(86400) * SECOND, 1000, -ERANGE }, /* refills in 82 years */
		{ 1000, 1000, 1, 0 },
		{ 1, 50 * UINT64_C(86400) * SECOND, 1, 0 },
		{ UINT64_C(1000000000000), 400 * UINT64_C(86400) * SECOND, UINT64_C(1000000000000),
			0 },
	};
	struct fixture f = fixture_open(false);
	char name[LAYOUT_NAME_MAX + 1];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bucket_limit limit = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
			BUCKET_ORIGIN_CONFIG, str_of("u"), cases[i].limit, cases[i].window_ns,
			cases[i].burst };
		int row = bucket_configure(&f.r, &limit, NOW);
		struct bucket_set set;

		assert_int_equal(row < 0 ? row : 0, cases[i].result);
		if (row < 0)
			continue;
		set = fixture_set(&f, "u");
		assert_int_equal(
			bucket_acquire(&f.r, &set, cases[i].burst, NOW + 40 * (SECOND << 26))
				.outcome,
			BUCKET_OK);
	}
	memset(name, 'n', sizeof(name));
	for (size_t length = 0; length <= LAYOUT_NAME_MAX; length++) {
		struct bucket_limit limit = { BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, BUCKET_RATE,
			BUCKET_ORIGIN_CONFIG, { name, length }, 1, SECOND, 1 };
		int row = bucket_configure(&f.r, &limit, NOW);

		if (length == 0)
			assert_int_equal(row, -EINVAL);
		else if (length >= LAYOUT_NAME_MAX)
			assert_int_equal(row, -ENAMETOOLONG);
		else
			assert_true(row >= 0);
	}
	assert_int_equal(bucket_configure(&f.r,
				 &(struct bucket_limit){ 16, BUCKET_REQUESTS, BUCKET_RATE,
					 BUCKET_ORIGIN_CONFIG, str_of("u"), 1, SECOND, 1 },
				 NOW),
		-EINVAL);
	assert_int_equal(
		bucket_configure(&f.r,
			&(struct bucket_limit){ BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
				BUCKET_ORIGIN_CONFIG, { "a\0b", 3 }, 1, SECOND, 1 },
			NOW),
		-EINVAL);
	fixture_close(&f);
}

static void names_are_compared_and_scopes_are_apart(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = { 0 }, other = { 0 };
	struct bucket_view v;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "same", 10, 5);
	assert_false(
		bucket_set_add(&set, &f.r, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, str_of("same")));
	assert_false(bucket_set_add(&set, &f.r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of("sam")));
	assert_false(
		bucket_set_add(&set, &f.r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of("samee")));
	assert_false(bucket_set_add(&set, &f.r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, STR_NULL));
	assert_int_equal(set.count, 0);
	fixture_limit(&f, BUCKET_SCOPE_MODEL, "same", 10, 5);
	fixture_add(&set, &f, BUCKET_SCOPE_MODEL, "same");
	fixture_add(&set, &f, BUCKET_SCOPE_MODEL, "same"); /* once is enough */
	assert_int_equal(set.count, 1);
	/* A row with this very hash and another name is another limit. */
	strcpy(f.r.bucket_name[set.index[0]].name, "hash collision");
	assert_false(
		bucket_set_add(&other, &f.r, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, str_of("same")));
	assert_true(bucket_view(&f.r, set.index[0], NOW, &v));
	assert_int_equal(v.scope, BUCKET_SCOPE_MODEL);
	assert_string_equal(v.name, "hash collision");
	assert_int_equal(v.limit, 10);
	assert_int_equal(v.window_ns, SECOND);
	assert_int_equal(v.burst, 5);
	assert_false(bucket_view(&f.r, LAYOUT_BUCKETS, NOW, &v));
	assert_string_equal(bucket_scope_name(BUCKET_SCOPE_PROVIDER), "provider");
	assert_string_equal(bucket_scope_name(0), "unknown");
	fixture_close(&f);
}

static void sets_are_bounded(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = { 0 };
	char name[16];

	(void)state;
	for (int i = 0; i <= BUCKET_SET_MAX; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		fixture_limit(&f, BUCKET_SCOPE_USER, name, 10, 5);
		assert_int_equal(bucket_set_add(&set, &f.r, BUCKET_SCOPE_USER, BUCKET_REQUESTS,
					 str_of(name)),
			i < BUCKET_SET_MAX);
	}
	assert_int_equal(set.count, BUCKET_SET_MAX);
	assert_int_equal(drain(&f, &set, NOW), 5);
	/* Rows beyond the table, as of another region's handle. */
	set.index[3] = LAYOUT_BUCKETS;
	assert_int_equal(take(&f, &set, NOW + SECOND).outcome, BUCKET_E_GONE);
	set.count = 1;
	set.index[0] = UINT32_MAX;
	assert_int_equal(take(&f, &set, NOW + SECOND).outcome, BUCKET_E_GONE);
	bucket_give_back(&f.r, &set, 1, NOW, NOW);
	fixture_close(&f);
}

static void full_table_refuses_and_retired_rows_come_back(void **state)
{
	struct fixture f = fixture_open(false);
	static bool keep[LAYOUT_BUCKETS];
	struct bucket_set set = { 0 };
	struct bucket_limit limit = { BUCKET_SCOPE_USER, BUCKET_REQUESTS, BUCKET_RATE,
		BUCKET_ORIGIN_CONFIG, str_of("one too many"), 1, SECOND, 1 };
	int found = 0;
	char name[16];

	(void)state;
	for (int i = 0; i < LAYOUT_BUCKETS; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		fixture_limit(&f, BUCKET_SCOPE_USER, name, 1, 1);
	}
	assert_int_equal(bucket_configure(&f.r, &limit, NOW), -ENOSPC);
	/* Every second row goes; the others are still found over the gaps. */
	for (int i = 0; i < LAYOUT_BUCKETS; i++)
		keep[i] = i % 2;
	bucket_retire(&f.r, keep);
	for (int i = 0; i < LAYOUT_BUCKETS; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		set.count = 0;
		if (bucket_set_add(&set, &f.r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of(name))) {
			assert_int_equal(set.index[0] % 2, 1);
			found++;
		}
	}
	assert_int_equal(found, LAYOUT_BUCKETS / 2);
	assert_true(bucket_configure(&f.r, &limit, NOW) >= 0);
	/* All go: no row is left that a search would have to step over. */
	memset(keep, 0, sizeof(keep));
	bucket_retire(&f.r, keep);
	for (int i = 0; i < LAYOUT_BUCKETS; i++)
		assert_true(f.r.bucket[i].key < LAYOUT_KEY_FIRST);
	fixture_close(&f);
}

static void retired_chains_are_swept(void **state)
{
	struct fixture f = fixture_open(false);
	static const bool keep[LAYOUT_BUCKETS];
	char name[16];

	(void)state;
	for (int i = 0; i < 2000; i++) {
		snprintf(name, sizeof(name), "u%d", i);
		fixture_limit(&f, BUCKET_SCOPE_USER, name, 1, 1);
	}
	fixture_clock_ns = NOW;
	bucket_retire(&f.r, keep);
	for (int i = 0; i < LAYOUT_BUCKETS; i++)
		assert_int_equal(f.r.bucket[i].key, LAYOUT_KEY_NEVER);
	fixture_close(&f);
}

static void retired_limit_is_gone_and_keeps_its_debt(void **state)
{
	struct fixture f = fixture_open(false);
	static const bool keep[LAYOUT_BUCKETS];
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 3);
	set = fixture_set(&f, "u");
	assert_int_equal(drain(&f, &set, NOW), 3);
	bucket_retire(&f.r, keep);
	assert_int_equal(take(&f, &set, NOW).outcome, BUCKET_E_GONE);
	assert_int_equal(
		bucket_peek(&f.r, &set, &(struct bucket_cost){ .requests = 1 }, NOW).outcome,
		BUCKET_E_GONE);
	assert_false(bucket_set_add(
		&(struct bucket_set){ 0 }, &f.r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of("u")));
	/* Taking a limit out of the configuration and putting it back is no way to a new burst. */
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 3);
	set = fixture_set(&f, "u");
	assert_int_equal(take(&f, &set, NOW).outcome, BUCKET_E_WAIT);
	fixture_close(&f);
}

/* ---- bad bytes ---- */

static void insane_rows_reject_with_a_bounded_wait(void **state)
{
	static const uint64_t values[] = { 0, 1, 4095, 4096, UINT64_C(1) << 32, UINT64_C(1) << 62,
		UINT64_C(1) << 63, UINT64_MAX - 4096, UINT64_MAX };
	enum { N = ARRAY_SIZE(values) };
	struct fixture f = fixture_open(false);
	struct bucket_set set;
	struct layout_bucket *b;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 5);
	set = fixture_set(&f, "u");
	b = row_of(&f, &set);
	for (size_t i = 0; i < (size_t)N * N * N; i++) {
		struct bucket_verdict v;
		struct bucket_view view;

		atomic_store(&b->tat, values[i % N]);
		atomic_store(&b->interval, values[i / N % N]);
		atomic_store(&b->tolerance, values[i / N / N]);
		v = bucket_acquire(&f.r, &set, 1 + i % 3, NOW);
		assert_true(v.outcome <= BUCKET_E_NEVER);
		if (v.outcome == BUCKET_E_WAIT)
			assert_in_range(v.wait_ns, 1, 3 * (UINT64_C(1) << 52) + SECOND);
		bucket_give_back(&f.r, &set, 3, NOW, NOW + i);
		bucket_view(&f.r, set.index[0], NOW, &view);
	}
	/* The usual accident: only the arrival time is wrong. */
	fixture_limit(&f, BUCKET_SCOPE_USER, "v", 10, 5);
	set = fixture_set(&f, "v");
	atomic_store(&row_of(&f, &set)->tat, UINT64_MAX);
	assert_int_equal(take(&f, &set, NOW).outcome, BUCKET_E_WAIT);
	assert_int_equal(take(&f, &set, NOW).wait_ns, SECOND / 10 + SECOND);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(llmkit_1_per_second_for_3_s_admits_at_most_4),
		cmocka_unit_test(llmkit_reject_carries_exact_wait),
		cmocka_unit_test(llmkit_hierarchy_leaks_nothing_on_reject),
		cmocka_unit_test(llmkit_wall_clock_jumps_do_nothing),
		cmocka_unit_test(llmkit_burst_is_not_raised_to_rate),
		cmocka_unit_test(llmkit_no_ceil_refill_at_low_rates),
		cmocka_unit_test(llmkit_two_word_race_does_not_double_refill),
		cmocka_unit_test(whole_burst_can_be_taken_singly_and_at_once),
		cmocka_unit_test(tokens_by_the_thousand_lose_nothing),
		cmocka_unit_test(cost_above_burst_never_fits),
		cmocka_unit_test(verdict_is_the_longest_wait_of_all),
		cmocka_unit_test(random_histories_never_exceed_the_bound),
		cmocka_unit_test(give_back_never_over_admits),
		cmocka_unit_test(give_back_returns_what_has_not_leaked),
		cmocka_unit_test(limits_are_checked),
		cmocka_unit_test(names_are_compared_and_scopes_are_apart),
		cmocka_unit_test(sets_are_bounded),
		cmocka_unit_test(full_table_refuses_and_retired_rows_come_back),
		cmocka_unit_test(retired_chains_are_swept),
		cmocka_unit_test(retired_limit_is_gone_and_keeps_its_debt),
		cmocka_unit_test(insane_rows_reject_with_a_bounded_wait),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
