#include "shm/bucket.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/aux.h"
#include "shm/hold.h"
#include "tests/unit/bucket-helpers.h"
#include "tests/unit/splitmix.h"

/* Money per calendar day or month: what is used, what is in flight, and when it begins anew. */

/* ---- the code itself, where others act before each store ---- */

static void (*others)(void);

static inline bool step_swap(
	_Atomic uint64_t *word, uint64_t *seen, uint64_t to, memory_order ok, memory_order bad)
{
	if (others)
		others();
	return atomic_compare_exchange_strong_explicit(word, seen, to, ok, bad);
}

static inline enum hold_outcome step_move(const struct region *r, uint32_t hold, uint64_t owner,
	uint32_t total, uint32_t add, uint32_t sub, const uint64_t *expected)
{
	if (others)
		others();
	return hold_move(r, hold, owner, total, add, sub, expected);
}

#pragma push_macro("atomic_compare_exchange_strong_explicit")
#undef atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_strong_explicit step_swap
#define hold_move step_move
#include "shm/bucket.c"
#include "shm/bucket_settle.c"
#include "shm/bucket_view.c"
#undef hold_move
#pragma pop_macro("atomic_compare_exchange_strong_explicit")

#define OWNER (UINT64_C(1) << 16 | 7)
#define DAY (86400 * SECOND)
/* 2024-02-28 06:00 UTC, a leap year. */
#define WALL (UINT64_C(1709100000) * SECOND)
#define LIMIT UINT64_C(1000000)
#define MONEY(n_) (&(struct bucket_cost){ .nanousd = (n_) })

static struct bucket_limit budget(uint64_t limit, uint64_t window_ns)
{
	return (struct bucket_limit){ BUCKET_SCOPE_USER, BUCKET_MONEY, BUCKET_WINDOW,
		BUCKET_ORIGIN_CONFIG, str_of("u"), limit, window_ns, limit };
}

static struct bucket_set budget_set(struct fixture *f, uint64_t limit, uint64_t window_ns)
{
	struct bucket_limit l = budget(limit, window_ns);
	struct bucket_set set = { 0 };

	fixture_configure(f, &l);
	fixture_add_of(&set, f, BUCKET_SCOPE_USER, BUCKET_MONEY, "u");
	return set;
}

static struct bucket_verdict lease(const struct fixture *f, const struct bucket_set *set,
	uint64_t nanousd, uint64_t now_ns, struct bucket_lease *out)
{
	return bucket_lease(&f->r, OWNER, set, MONEY(nanousd), now_ns, out);
}

/* Takes and uses. */
static bool spend(
	const struct fixture *f, const struct bucket_set *set, uint64_t nanousd, uint64_t now_ns)
{
	struct bucket_lease l;

	if (lease(f, set, nanousd, now_ns, &l).outcome != BUCKET_OK)
		return false;
	bucket_settle(&f->r, &l, MONEY(nanousd), now_ns);
	return true;
}

static void calendar_is_right(void **state)
{
	uint64_t month = window_at(BUCKET_WINDOW_MONTH, 0).number;

	(void)state;
	for (uint64_t day = 0; day < 150 * 366; day++) {
		time_t at = (time_t)(day * 86400 + day % 86400);
		struct window w = window_at(BUCKET_WINDOW_MONTH, (uint64_t)at * SECOND);
		struct tm tm;
		time_t end;

		assert_non_null(gmtime_r(&at, &tm));
		assert_int_equal(w.number - month, (tm.tm_year - 70) * 12 + tm.tm_mon);
		tm = (struct tm){ .tm_year = tm.tm_year, .tm_mon = tm.tm_mon + 1, .tm_mday = 1 };
		end = timegm(&tm);
		assert_int_equal(w.end_ns, (uint64_t)end * SECOND);
		w = window_at(DAY, (uint64_t)at * SECOND);
		assert_int_equal(w.number, day);
		assert_int_equal(w.end_ns, (day + 1) * DAY);
	}
}

static void money_is_counted_to_the_nano(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);
	struct bucket_lease a, b;
	struct bucket_verdict v;
	struct bucket_view view;

	(void)state;
	bucket_roll(&f.r, NOW, WALL);
	assert_int_equal(lease(&f, &set, LIMIT + 1, NOW, &a).outcome, BUCKET_E_NEVER);
	assert_int_equal(lease(&f, &set, UINT64_MAX, NOW, &a).outcome, BUCKET_E_NEVER);
	assert_int_equal(lease(&f, &set, LIMIT, NOW, &a).outcome, BUCKET_OK);
	v = lease(&f, &set, 1, NOW, &b);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, BUCKET_WAIT_SETTLEMENT);
	bucket_progress(&f.r, &a, MONEY(4097), NOW);
	assert_true(bucket_view(&f.r, set.index[0], NOW, &view));
	assert_int_equal(view.owed, 4097);
	/* Never less than what may still be used, and less than a quantum more. */
	assert_in_range(view.held, LIMIT - 4097, LIMIT - 4097 + 4095);
	bucket_settle(&f.r, &a, MONEY(600000 - 4097), NOW);
	assert_true(bucket_view(&f.r, set.index[0], NOW, &view));
	assert_int_equal(view.owed, 600000);
	assert_int_equal(view.held, 0);
	assert_int_equal(view.available, LIMIT - 600000);
	assert_int_equal(view.admitted, 600000);
	assert_int_equal(view.full_ns, 18 * 3600 * SECOND);
	v = lease(&f, &set, 400001, NOW, &b);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, 18 * 3600 * SECOND);
	assert_true(spend(&f, &set, 400000, NOW));
	assert_false(spend(&f, &set, 1, NOW));
	/* Used more than there was: it counts, and no reader begins a new day. */
	bucket_charge(&f.r, set.index[0], UINT64_MAX, NOW);
	v = lease(&f, &set, 1, NOW + 19 * 3600 * SECOND, &b);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, SECOND);
	bucket_roll(&f.r, NOW + 18 * 3600 * SECOND - 1, WALL + 18 * 3600 * SECOND - 1);
	assert_false(spend(&f, &set, 1, NOW + DAY));
	bucket_roll(&f.r, NOW + 18 * 3600 * SECOND, WALL + 18 * 3600 * SECOND);
	assert_true(spend(&f, &set, LIMIT, NOW + DAY));
	fixture_close(&f);
}

/* A wait that a window ends is exact while something is in flight. */
static void window_begins_anew_with_what_is_in_flight(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);
	uint64_t next = 18 * 3600 * SECOND;
	struct bucket_lease a, b;

	(void)state;
	bucket_roll(&f.r, NOW, WALL);
	assert_true(spend(&f, &set, LIMIT / 2, NOW));
	assert_int_equal(lease(&f, &set, LIMIT / 2, NOW, &a).outcome, BUCKET_OK);
	assert_int_equal(lease(&f, &set, LIMIT / 4, NOW, &b).wait_ns, next);
	assert_int_equal(lease(&f, &set, LIMIT, NOW, &b).wait_ns, BUCKET_WAIT_SETTLEMENT);
	bucket_roll(&f.r, NOW + next, WALL + next);
	assert_int_equal(lease(&f, &set, LIMIT / 2 + 1, NOW + next, &b).outcome, BUCKET_E_WAIT);
	assert_int_equal(lease(&f, &set, LIMIT / 4, NOW + next, &b).outcome, BUCKET_OK);
	bucket_settle(&f.r, &a, MONEY(LIMIT / 2), NOW + next);
	bucket_settle(&f.r, &b, MONEY(LIMIT / 4), NOW + next);
	assert_true(spend(&f, &set, LIMIT / 4, NOW + next));
	assert_false(spend(&f, &set, 1, NOW + next));
	fixture_close(&f);
}

/* Each calendar day's budget is given once, wherever the clock goes. */
static void no_window_is_given_twice(void **state)
{
	static const int64_t hours[] = { 0, 17, 18, 10, 17, 19, 41, 42, 43, -100, 43, 66, 70, 66,
		71 };
	static const bool new_day[] = { 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0 };
	struct fixture f = fixture_open(false);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);
	uint64_t now = NOW;

	(void)state;
	bucket_roll(&f.r, now, WALL);
	assert_true(spend(&f, &set, LIMIT, now));
	for (size_t i = 0; i < ARRAY_SIZE(hours); i++, now += DAY) {
		bucket_roll(
			&f.r, now, (uint64_t)((int64_t)WALL + hours[i] * 3600 * (int64_t)SECOND));
		assert_int_equal(spend(&f, &set, LIMIT, now), new_day[i]);
		assert_false(spend(&f, &set, 1, now));
	}
	fixture_close(&f);
}

static void months_and_days_take_turns(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = budget_set(&f, LIMIT, BUCKET_WINDOW_MONTH);
	struct bucket_limit day = budget(LIMIT, DAY);
	struct bucket_view v;

	(void)state;
	bucket_roll(&f.r, NOW, WALL);
	assert_true(bucket_view(&f.r, set.index[0], NOW, &v));
	assert_int_equal(v.full_ns, 42 * 3600 * SECOND); /* it is a leap year */
	assert_true(spend(&f, &set, LIMIT / 4, NOW));
	bucket_roll(&f.r, NOW, WALL + 41 * 3600 * SECOND);
	assert_false(spend(&f, &set, LIMIT, NOW));
	fixture_configure(&f, &day);
	for (int i = 0; i < 3; i++)
		bucket_roll(&f.r, NOW, WALL + 41 * 3600 * SECOND);
	assert_true(bucket_view(&f.r, set.index[0], NOW, &v));
	assert_int_equal(v.owed, LIMIT / 4);
	assert_int_equal(v.full_ns, 3600 * SECOND);
	bucket_roll(&f.r, NOW, WALL + 42 * 3600 * SECOND);
	assert_true(spend(&f, &set, LIMIT, NOW));
	/* Lowered and raised: what was used stays. */
	day.limit = day.burst = LIMIT / 2;
	fixture_configure(&f, &day);
	assert_false(spend(&f, &set, 1, NOW));
	day.limit = day.burst = LIMIT + 1;
	fixture_configure(&f, &day);
	assert_true(spend(&f, &set, 1, NOW));
	assert_false(spend(&f, &set, 1, NOW));
	fixture_close(&f);
}

static void lost_past_starts_used_up(void **state)
{
	struct fixture f = fixture_open(true);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);

	(void)state;
	assert_false(spend(&f, &set, 1, NOW));
	bucket_roll(&f.r, NOW, WALL);
	assert_false(spend(&f, &set, 1, NOW));
	bucket_adopt(&f.r, NOW);
	bucket_roll(&f.r, NOW, WALL + 18 * 3600 * SECOND);
	assert_true(spend(&f, &set, LIMIT, NOW));
	fixture_close(&f);
}

static void reset_gives_the_day_again(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);

	(void)state;
	bucket_roll(&f.r, NOW, WALL + 1000 * DAY); /* a wrong clock */
	assert_true(spend(&f, &set, LIMIT, NOW));
	bucket_roll(&f.r, NOW, WALL);
	assert_false(spend(&f, &set, 1, NOW));
	f.r.header->wall_offset_ns = WALL - NOW;
	bucket_reset(&f.r, set.index[0], NOW);
	assert_true(spend(&f, &set, LIMIT, NOW));
	bucket_roll(&f.r, NOW, WALL);
	assert_false(spend(&f, &set, 1, NOW));
	bucket_roll(&f.r, NOW, WALL + DAY);
	assert_true(spend(&f, &set, LIMIT, NOW));
	fixture_close(&f);
}

/* A used-up window is not evicted before it ends. */
static void used_window_owes_until_it_ends(void **state)
{
	static const struct region_sizes one = { .limits = 1, .holds = 4, .targets = 1 };
	static const bool keep[1];
	struct fixture f = fixture_open_sized(&one, false);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);
	struct bucket_limit other = fixture_requests(BUCKET_SCOPE_USER, str_of("v"), 1, 1);

	(void)state;
	bucket_roll(&f.r, NOW, WALL);
	assert_true(spend(&f, &set, 1, NOW));
	bucket_retire(&f.r, keep);
	assert_true(bucket_configure(&f.r, &other, NOW + DAY) < 0);
	bucket_roll(&f.r, NOW + DAY, WALL + DAY);
	assert_int_equal(bucket_configure(&f.r, &other, NOW + DAY), 0);
	fixture_close(&f);
}

#define END (NOW + 18 * 3600 * SECOND)
#define WALL_END (WALL + 18 * 3600 * SECOND)

/* What is used after the end, and before the daemon begins the next window, is the next one's. */
static void late_use_counts_for_the_next_window(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);
	struct bucket_lease a, b;
	struct bucket_view v;

	(void)state;
	bucket_roll(&f.r, NOW, WALL);
	assert_int_equal(f.r.header->wall_offset_ns, WALL - NOW);
	assert_true(spend(&f, &set, LIMIT / 8, NOW));
	assert_int_equal(lease(&f, &set, LIMIT / 4, NOW, &a).outcome, BUCKET_OK);
	assert_int_equal(lease(&f, &set, LIMIT / 2, NOW, &b).outcome, BUCKET_OK);
	bucket_settle(&f.r, &a, MONEY(LIMIT / 4), END - 1);
	bucket_settle(&f.r, &b, MONEY(LIMIT / 2), END);
	/* Until it begins, all counts. */
	assert_true(bucket_view(&f.r, set.index[0], END, &v));
	assert_int_equal(v.owed, LIMIT / 8 * 7);
	assert_false(spend(&f, &set, LIMIT / 8 + 1, END + 1));
	assert_true(spend(&f, &set, LIMIT / 8, END + 1));
	bucket_roll(&f.r, END + SECOND, WALL_END + SECOND);
	assert_true(bucket_view(&f.r, set.index[0], END + SECOND, &v));
	assert_int_equal(v.owed, LIMIT / 8 * 5);
	assert_int_equal(name_of(&f, &set)->late, 0);
	assert_false(spend(&f, &set, LIMIT / 8 * 3 + 1, END + SECOND));
	assert_true(spend(&f, &set, LIMIT / 8 * 3, END + SECOND));
	/* Nobody began one for three days. */
	bucket_charge(&f.r, set.index[0], LIMIT / 2, END + 2 * DAY);
	bucket_roll(&f.r, END + 3 * DAY, WALL_END + 3 * DAY);
	assert_false(spend(&f, &set, LIMIT / 2 + 1, END + 3 * DAY));
	bucket_roll(&f.r, END + 4 * DAY, WALL_END + 4 * DAY);
	assert_true(spend(&f, &set, LIMIT, END + 4 * DAY));
	fixture_close(&f);
}

/* The daemon died before it took off what it had added; what came late meanwhile; nonsense. */
static void late_use_is_never_forgotten(void **state)
{
	static const struct region_sizes one = { .limits = 1, .holds = 4, .targets = 1 };
	static const bool keep[1];
	struct fixture f = fixture_open_sized(&one, false);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);
	struct bucket_limit other = fixture_requests(BUCKET_SCOPE_USER, str_of("v"), 1, 1);
	struct bucket_view v;

	(void)state;
	bucket_roll(&f.r, NOW, WALL);
	bucket_charge(&f.r, set.index[0], 1000, END);
	bucket_roll(&f.r, END, WALL_END);
	name_of(&f, &set)->late = 1000;
	bucket_roll(&f.r, END + SECOND, WALL_END + SECOND);
	assert_true(bucket_view(&f.r, set.index[0], END + SECOND, &v));
	assert_int_equal(v.owed, 2000);
	assert_int_equal(name_of(&f, &set)->late, 0);
	name_of(&f, &set)->late = UINT64_MAX;
	assert_false(spend(&f, &set, 1, END + SECOND));
	bucket_charge(&f.r, set.index[0], 5, END + 2 * DAY);
	bucket_reset(&f.r, set.index[0], END + SECOND);
	assert_true(spend(&f, &set, LIMIT, END + SECOND));
	bucket_roll(&f.r, END + DAY, WALL_END + DAY);
	/* A row that owes only that has no room for another limit. */
	bucket_charge(&f.r, set.index[0], 1, END + 2 * DAY);
	bucket_retire(&f.r, keep);
	assert_true(bucket_configure(&f.r, &other, END + 2 * DAY) < 0);
	fixture_close(&f);
}

static struct fixture *late_in;

static void use_all_late(void)
{
	others = NULL;
	bucket_charge(&late_in->r, 0, LIMIT, END);
}

/* Between the look at the limit and the swap of its total. */
static void late_use_amid_a_lease_is_seen(void **state)
{
	static const struct region_sizes one = { .limits = 1, .holds = 4, .targets = 1 };
	struct fixture f = fixture_open_sized(&one, false);
	struct bucket_set set = budget_set(&f, LIMIT, DAY);
	struct bucket_lease l;
	struct bucket_view v;

	(void)state;
	bucket_roll(&f.r, NOW, WALL);
	late_in = &f;
	others = use_all_late;
	assert_int_equal(lease(&f, &set, 1, END, &l).outcome, BUCKET_E_WAIT);
	assert_null(others);
	assert_true(bucket_view(&f.r, set.index[0], END, &v));
	assert_int_equal(v.held, 0);
	fixture_close(&f);
}

/* ---- random histories ---- */

enum { LIVE = 5, DEPTH = 3, WINDOWS = 64 };

static struct storm {
	struct fixture f;
	struct bucket_set set;
	uint64_t seed, wall_ns, used[WINDOWS + 1], over[WINDOWS + 1];
	unsigned depth, window;
	bool rolling, late; /* late: what is settled may be after the window's end */
	struct {
		struct bucket_lease lease;
		uint64_t left;
		bool live;
	} slots[LIVE];
} storm;

static uint64_t pick(uint64_t below)
{
	return splitmix_below(&storm.seed, below);
}

/* The wall clock goes to and fro; only what is past the last window begins one. */
static void storm_roll(void)
{
	if (storm.rolling || storm.window + 1 == WINDOWS)
		return;
	storm.rolling = true;
	storm.wall_ns = WALL + storm.window * DAY - (pick(3) == 0 ? pick(2 * DAY) : 0);
	if (storm.late || pick(4) == 0) {
		storm.window++;
		storm.wall_ns = WALL + storm.window * DAY;
	}
	bucket_roll(&storm.f.r, NOW, storm.wall_ns);
	storm.rolling = false;
}

/* What is used may count in any window from now to when it is booked: where others begin one
 * meanwhile, it is not judged. */
static void storm_settle(unsigned slot)
{
	struct bucket_lease l = storm.slots[slot].lease;
	uint64_t n = pick(storm.slots[slot].left + 1), over = pick(4) ? 0 : pick(20000);
	bool end = pick(2), amid = storm.rolling, late = storm.late && pick(2);
	unsigned window = storm.window;
	uint64_t now = late ? NOW + 2 * DAY : NOW;

	storm.slots[slot].lease.set = NULL;
	storm.slots[slot].left -= n;
	if (end)
		bucket_settle(&storm.f.r, &l, MONEY(n + over), now);
	else
		bucket_progress(&storm.f.r, &l, MONEY(n), now);
	if (end && over > 0)
		storm.over[window + late] += over;
	if (window == storm.window && !amid)
		storm.used[window + late] += n + (end ? over : 0);
	storm.slots[slot].lease = l;
	storm.slots[slot].live = !end;
}

static void storm_act(void)
{
	unsigned slot = (unsigned)pick(LIVE);
	uint64_t n = 1 + pick(LIMIT / 3);
	struct bucket_lease l;

	if (pick(30) == 0) {
		storm_roll();
	} else if (storm.slots[slot].live) {
		if (storm.slots[slot].lease.set)
			storm_settle(slot);
	} else {
		storm.slots[slot].live = true;
		storm.slots[slot].lease.set = NULL;
		if (lease(&storm.f, &storm.set, n, NOW, &l).outcome != BUCKET_OK) {
			storm.slots[slot].live = false;
			return;
		}
		storm.slots[slot].lease = l;
		storm.slots[slot].left = n;
	}
}

static void storm_others(void)
{
	if (storm.depth >= DEPTH)
		return;
	storm.depth++;
	for (uint64_t acts = pick(3); acts > 0; acts--)
		storm_act();
	storm.depth--;
}

/* In no window more than the limit and what was used above what was held; and most of it. */
static void windows_hold_together(void **state)
{
	static const struct region_sizes few = { .limits = 4, .holds = 16, .targets = 1 };
	uint64_t most = 0;

	(void)state;
	for (unsigned history = 0; history < 400; history++) {
		storm = (struct storm){
			.f = fixture_open_sized(&few, false), .seed = history, .late = history % 2
		};
		storm.set = budget_set(&storm.f, LIMIT, DAY);
		bucket_roll(&storm.f.r, NOW, WALL);
		others = storm_others;
		for (int i = 0; i < 600; i++)
			storm_act();
		others = NULL;
		for (unsigned i = 0; i < WINDOWS; i++) {
			if (storm.used[i] > LIMIT + storm.over[i])
				fail_msg("history %u window %u", history, i);
			most = max_u64(most, storm.used[i]);
		}
		fixture_close(&storm.f);
	}
	assert_true(most > LIMIT - LIMIT / 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calendar_is_right),
		cmocka_unit_test(money_is_counted_to_the_nano),
		cmocka_unit_test(window_begins_anew_with_what_is_in_flight),
		cmocka_unit_test(no_window_is_given_twice),
		cmocka_unit_test(months_and_days_take_turns),
		cmocka_unit_test(lost_past_starts_used_up),
		cmocka_unit_test(reset_gives_the_day_again),
		cmocka_unit_test(used_window_owes_until_it_ends),
		cmocka_unit_test(late_use_counts_for_the_next_window),
		cmocka_unit_test(late_use_is_never_forgotten),
		cmocka_unit_test(late_use_amid_a_lease_is_seen),
		cmocka_unit_test(windows_hold_together),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
