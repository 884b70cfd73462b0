#include "shm/bucket.h"

#include <pthread.h>
#include <string.h>
#include <unistd.h>
#include "tests/unit/bucket-lease.h"
#include "tests/unit/splitmix.h"

/* Leases: taking all or nothing, settling, waiting, what providers say, bytes without sense. */

/* Requests, tokens and slots of a user, a model and a provider: nine limits. */
static struct bucket_set nine_limits(struct fixture *f)
{
	static const uint64_t scopes[] = { BUCKET_SCOPE_PROVIDER, BUCKET_SCOPE_USER,
		BUCKET_SCOPE_MODEL };
	struct bucket_set set = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(scopes); i++) {
		fixture_limit(f, scopes[i], "x", 100, 50);
		fixture_limit_of(f, scopes[i], BUCKET_TOKENS, "x", 1000, 5000);
		fixture_limit_of(f, scopes[i], BUCKET_CONCURRENCY, "x", 20, 20);
		fixture_add(&set, f, scopes[i], "x");
		fixture_add_of(&set, f, scopes[i], BUCKET_CONCURRENCY, "x");
		fixture_add_of(&set, f, scopes[i], BUCKET_TOKENS, "x");
	}
	return set;
}

/* ---- taking ---- */

static void sets_are_in_order_of_acquisition(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = nine_limits(&f);

	(void)state;
	assert_int_equal(set.count, 9);
	assert_int_equal(set.held, 6);
	assert_int_equal(set.others, 6);
	for (uint32_t i = 0; i < 9; i++) {
		static const uint64_t scopes[] = { BUCKET_SCOPE_USER, BUCKET_SCOPE_MODEL,
			BUCKET_SCOPE_PROVIDER };

		assert_int_equal(view_at(&f, set.index[i], NOW).scope, scopes[i / 3]);
		assert_int_equal(set.kind[i] == BUCKET_RATE, i % 3 == 2);
		assert_int_equal(view_at(&f, set.index[i], NOW).kind, set.kind[i]);
		assert_int_equal(view_at(&f, set.index[i], NOW).resource, set.resource[i]);
	}
	fixture_close(&f);
}

/* What a reject may not change, in every row and hold. */
static void assert_nothing_is_taken(
	const struct fixture *f, const struct bucket_set *set, const struct layout_bucket *before)
{
	for (uint32_t i = 0; i < set->count; i++) {
		const struct layout_bucket *b = &f->r.bucket[set->index[i]];

		assert_int_equal(b->tat, before[i].tat);
		assert_int_equal((uint32_t)b->held, (uint32_t)before[i].held);
		assert_int_equal(b->admitted, before[i].admitted);
	}
}

/* Full at each level in turn: the others keep nothing, and the verdict names the level. */
static void reject_takes_nothing_at_any_level(void **state)
{
	(void)state;
	for (uint32_t full = 0; full < 9; full++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set = nine_limits(&f), one = { 0 };
		struct layout_bucket before[9];
		struct bucket_verdict v;
		struct bucket_lease l, filler;

		one.count = 1;
		one.held = set.kind[full] != BUCKET_RATE;
		one.others = 1;
		one.index[0] = set.index[full];
		one.key[0] = set.key[full];
		one.kind[0] = set.kind[full];
		one.resource[0] = set.resource[full];
		for (int i = 0; i < 50; i++)
			lease(&f, &one, 100, NOW, &filler);
		for (uint32_t i = 0; i < 9; i++)
			memcpy(&before[i], &f.r.bucket[set.index[i]], sizeof(before[i]));
		v = lease(&f, &set, 100, NOW, &l);
		assert_int_equal(v.outcome, BUCKET_E_WAIT);
		assert_int_equal(v.blocking, set.index[full]);
		assert_int_equal(v.wait_ns == BUCKET_WAIT_SETTLEMENT, full % 3 != 2);
		assert_nothing_is_taken(&f, &set, before);
		assert_int_equal(view_at(&f, set.index[full], NOW).rejected,
			atomic_load(&before[full].rejected) + 1);
		fixture_close(&f);
	}
}

static struct {
	struct fixture *f;
	struct bucket_set one;
	int left;
} thief;

/* Another process empties a level between the look at all and the taking of it. */
static void steal(void)
{
	void (*self)(void) = others;
	struct bucket_lease l;

	if (thief.left-- != 0)
		return;
	others = NULL;
	while (lease(thief.f, &thief.one, 100, NOW, &l).outcome == BUCKET_OK)
		;
	others = self;
}

static void lost_races_are_undone_at_every_level(void **state)
{
	(void)state;
	for (uint32_t full = 0; full < 9; full++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set = nine_limits(&f);
		struct bucket_verdict v;
		struct bucket_lease l;
		unsigned holds;

		thief.f = &f;
		thief.one = (struct bucket_set){ .count = 1,
			.held = set.kind[full] != BUCKET_RATE,
			.others = 1,
			.index = { set.index[full] },
			.key = { set.key[full] },
			.kind = { set.kind[full] },
			.resource = { set.resource[full] } };
		thief.left = (int)full;
		others = steal;
		v = lease(&f, &set, 100, NOW + 1, &l);
		others = NULL;
		assert_int_equal(v.outcome, BUCKET_E_WAIT);
		assert_int_equal(v.blocking, set.index[full]);
		for (uint32_t i = 0; i < 9; i++)
			if (i != full) {
				assert_int_equal(view_at(&f, set.index[i], NOW + 1).owed, 0);
				assert_int_equal((uint32_t)f.r.bucket[set.index[i]].held, 0);
			}
		holds = holds_in_use(&f);
		others = steal;
		thief.left = -1;
		assert_int_not_equal(lease(&f, &set, 100, NOW + 1, &l).outcome, BUCKET_OK);
		others = NULL;
		assert_int_equal(holds_in_use(&f), holds);
		fixture_close(&f);
	}
}

/* The same where only requests are asked for. */
static void lost_requests_are_undone_at_every_level(void **state)
{
	static const uint64_t scopes[] = { BUCKET_SCOPE_USER, BUCKET_SCOPE_MODEL,
		BUCKET_SCOPE_PROVIDER };

	(void)state;
	for (uint32_t full = 0; full < 3; full++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set = { 0 };
		struct bucket_verdict v;

		for (int i = 0; i < 3; i++) {
			fixture_limit(&f, scopes[i], "x", 1, 5);
			fixture_add(&set, &f, scopes[i], "x");
		}
		thief.f = &f;
		thief.one = (struct bucket_set){
			.count = 1, .index = { set.index[full] }, .key = { set.key[full] }
		};
		thief.left = (int)full;
		others = steal;
		v = bucket_acquire(&f.r, &set, 1, NOW + 1);
		others = NULL;
		assert_int_equal(v.outcome, BUCKET_E_WAIT);
		assert_int_equal(v.blocking, set.index[full]);
		for (uint32_t i = 0; i < 3; i++)
			assert_int_equal(
				view_at(&f, set.index[i], NOW + 1).available, i == full ? 0 : 5);
		fixture_close(&f);
	}
}

static struct {
	struct fixture *f;
	uint32_t row;
	bool charges; /* or retires */
} meddler;

static void meddle(void)
{
	static const bool keep[LAYOUT_BUCKETS];

	others = NULL;
	if (meddler.charges)
		bucket_charge(&meddler.f->r, meddler.row, 60, NOW);
	else
		bucket_retire(&meddler.f->r, keep);
}

/* What is charged, or retired, between the look and the move leaves held as it was: it is seen by
 * the second look, and nothing stays taken. */
static void second_look_sees_what_came_amid(void **state)
{
	(void)state;
	for (int charges = 0; charges < 2; charges++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set = token_set(&f, 1000, 100);
		struct bucket_verdict v;
		struct bucket_lease l;

		meddler.f = &f;
		meddler.row = set.index[0];
		meddler.charges = charges;
		others = meddle;
		v = lease(&f, &set, 50, NOW, &l);
		assert_null(others);
		assert_int_equal(v.outcome, charges ? BUCKET_E_WAIT : BUCKET_E_GONE);
		assert_int_equal(v.wait_ns, charges ? 10 * SECOND / 1000 : 0);
		assert_int_equal((uint32_t)row_of(&f, &set)->held, 0);
		assert_int_equal(holds_in_use(&f), 0);
		fixture_close(&f);
	}
}

static void waits_are_exact(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = token_set(&f, 1000, 100);
	struct bucket_lease a, b;
	struct bucket_verdict v;

	(void)state;
	a = leased(&f, &set, 60, NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).held, 60);
	assert_int_equal(view_at(&f, set.index[0], NOW).available, 40);
	v = lease(&f, &set, 41, NOW, &b);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, BUCKET_WAIT_SETTLEMENT);
	assert_int_equal(lease(&f, &set, 101, NOW, &b).outcome, BUCKET_E_NEVER);
	assert_int_equal(lease(&f, &set, UINT64_MAX, NOW, &b).outcome, BUCKET_E_NEVER);
	assert_int_equal(lease(&f, &set, UINT64_C(1) << 32, NOW, &b).outcome, BUCKET_E_NEVER);
	b = leased(&f, &set, 40, NOW);
	settle(&f, &a, 60, NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 60);
	assert_int_equal(view_at(&f, set.index[0], NOW).full_ns, 60 * SECOND / 1000);
	/* 60 settled, 40 in flight: 25 more in 25 ms, if nothing settles. */
	v = lease(&f, &set, 25, NOW, &a);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, 25 * SECOND / 1000);
	assert_int_equal(bucket_peek(&f.r, &set, TOKENS(25), NOW).wait_ns, v.wait_ns);
	assert_int_equal(lease(&f, &set, 25, NOW + v.wait_ns - 1, &a).outcome, BUCKET_E_WAIT);
	a = leased(&f, &set, 25, NOW + v.wait_ns);
	assert_int_equal(holds_in_use(&f), 2);
	fixture_close(&f);
}

static void concurrency_is_bounded_and_comes_back(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = { 0 };
	struct bucket_lease l[4];

	(void)state;
	fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "u", 3, 3);
	fixture_add_of(&set, &f, BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "u");
	for (int i = 0; i < 3; i++)
		l[i] = leased(&f, &set, 10, NOW);
	assert_int_equal(lease(&f, &set, 10, NOW, &l[3]).wait_ns, BUCKET_WAIT_SETTLEMENT);
	bucket_progress(&f.r, &l[0], TOKENS(10), NOW);
	assert_int_equal(lease(&f, &set, 10, NOW + SECOND, &l[3]).outcome, BUCKET_E_WAIT);
	settle(&f, &l[0], 10, NOW);
	settle(&f, &l[0], 10, NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).available, 1);
	l[3] = leased(&f, &set, 10, NOW);
	bucket_cancel(&f.r, &l[3], NOW);
	bucket_cancel(&f.r, &l[3], NOW);
	bucket_cancel(&f.r, &l[1], NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).available, 2);
	/* Others ask for no slot. */
	assert_int_equal(bucket_acquire(&f.r, &set, 1, NOW).outcome, BUCKET_E_LEASE);
	assert_int_equal(
		bucket_lease(&f.r, 0, &set, TOKENS(1), NOW, &l[0]).outcome, BUCKET_E_LEASE);
	settle(&f, &l[2], 0, NOW);
	assert_int_equal(holds_in_use(&f), 0);
	fixture_close(&f);
}

/* ---- settling ---- */

static void settlement_turns_use_into_debt(void **state)
{
	static const struct {
		uint64_t progress, end, owed;
	} cases[] = { { 0, 60, 60 }, { 0, 10, 10 }, { 0, 90, 90 }, { 20, 20, 40 }, { 50, 50, 100 },
		{ 0, 0, 0 }, { 80, 0, 80 } };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set = token_set(&f, 1000, 100);
		struct bucket_lease l = leased(&f, &set, 60, NOW);
		struct bucket_view v;

		if (cases[i].progress > 0)
			bucket_progress(&f.r, &l, TOKENS(cases[i].progress), NOW);
		v = view_at(&f, set.index[0], NOW);
		assert_int_equal(v.owed, cases[i].progress);
		assert_int_equal(v.held, cases[i].progress < 60 ? 60 - cases[i].progress : 0);
		settle(&f, &l, cases[i].end, NOW);
		settle(&f, &l, cases[i].end, NOW);
		bucket_progress(&f.r, &l, TOKENS(5), NOW);
		bucket_cancel(&f.r, &l, NOW);
		v = view_at(&f, set.index[0], NOW);
		assert_int_equal(v.owed, cases[i].owed);
		assert_int_equal(v.admitted, cases[i].owed);
		assert_int_equal(v.held, 0);
		assert_int_equal(v.available, cases[i].owed < 100 ? 100 - cases[i].owed : 0);
		assert_int_equal(holds_in_use(&f), 0);
		fixture_close(&f);
	}
}

/* Used 3000 of a burst of 100: waited for, exactly, also by the next daemon and across a change. */
static void overshoot_is_paid_back(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = token_set(&f, 10, 100);
	struct bucket_lease l = leased(&f, &set, 10, NOW);
	struct bucket_verdict v;

	(void)state;
	settle(&f, &l, 3000, NOW);
	assert_int_equal(lease(&f, &set, 1, NOW, &l).wait_ns, 2901 * SECOND / 10);
	bucket_adopt(&f.r, NOW);
	assert_int_equal(lease(&f, &set, 1, NOW, &l).wait_ns, 2901 * SECOND / 10);
	fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", 1, 10);
	v = lease(&f, &set, 1, NOW, &l);
	assert_int_equal(v.wait_ns, 2991 * SECOND);
	assert_int_equal(lease(&f, &set, 1, NOW + v.wait_ns - 1, &l).outcome, BUCKET_E_WAIT);
	leased(&f, &set, 1, NOW + v.wait_ns);
	fixture_close(&f);
}

static struct bucket_set reserve_set(struct fixture *f, enum bucket_resource resource)
{
	struct bucket_limit limit = fixture_requests(BUCKET_SCOPE_USER, str_of("u"), 1000, 100);
	struct bucket_set set = { 0 };

	limit.resource = resource;
	fixture_configure(f, &limit);
	fixture_add_of(&set, f, BUCKET_SCOPE_USER, resource, "u");
	assert_int_equal(set.held, 0);
	return set;
}

static void reserved_tokens_are_charged_at_once(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = reserve_set(&f, BUCKET_TOKENS);
	struct bucket_lease l = leased(&f, &set, 60, NOW);

	(void)state;
	assert_int_equal(l.hold, BUCKET_NONE);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 60);
	/* Nothing comes back for less; more than the 60 in all is charged. */
	bucket_progress(&f.r, &l, &(struct bucket_cost){ .input_tokens = 50 }, NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 60);
	bucket_progress(&f.r, &l, &(struct bucket_cost){ .output_tokens = 15 }, NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 65);
	bucket_settle(&f.r, &l, &(struct bucket_cost){ .output_tokens = 1 }, NOW);
	bucket_settle(&f.r, &l, &(struct bucket_cost){ .output_tokens = 1 }, NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 66);
	assert_int_equal(lease(&f, &set, 35, NOW, &l).wait_ns, SECOND / 1000);
	/* Cancelled: what has not leaked comes back. */
	l = leased(&f, &set, 34, NOW + 1);
	bucket_cancel(&f.r, &l, NOW + 1 + 10 * SECOND / 1000);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 76);
	fixture_close(&f);
}

static void cancel_returns_everything(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = nine_limits(&f);
	struct bucket_lease l = leased(&f, &set, 100, NOW + 5);

	(void)state;
	for (uint32_t i = 0; i < set.count; i++)
		assert_true(view_at(&f, set.index[i], NOW + 5).available <
			view_at(&f, set.index[i], NOW + 5).burst);
	bucket_cancel(&f.r, &l, NOW + 5);
	for (uint32_t i = 0; i < set.count; i++)
		assert_int_equal(view_at(&f, set.index[i], NOW + 5).available,
			view_at(&f, set.index[i], NOW + 5).burst);
	assert_int_equal(holds_in_use(&f), 0);
	fixture_close(&f);
}

/* The daemon took the owner for dead: what the hold had is debt already, not ours to give back. */
static void lost_hold_charges_only_what_was_not_held(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = token_set(&f, 1000, 100);
	struct bucket_lease l = leased(&f, &set, 60, NOW);

	(void)state;
	assert_int_equal(hold_reap(&f.r, OWNER, NOW), 1);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 60);
	assert_int_equal(view_at(&f, set.index[0], NOW).held, 0);
	bucket_progress(&f.r, &l, TOKENS(50), NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 60);
	settle(&f, &l, 15, NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 65);
	l = leased(&f, &set, 20, NOW);
	hold_reap(&f.r, OWNER, NOW);
	bucket_cancel(&f.r, &l, NOW);
	assert_int_equal(view_at(&f, set.index[0], NOW).owed, 85);
	assert_int_equal(view_at(&f, set.index[0], NOW).held, 0);
	fixture_close(&f);
}

static void holds_run_out(void **state)
{
	struct region_sizes sizes = { .holds = 3 };
	struct fixture f = fixture_open_sized(&sizes, false);
	struct bucket_set set = token_set(&f, 1000, 100);
	struct bucket_lease l[4];

	(void)state;
	for (int i = 0; i < 3; i++)
		l[i] = leased(&f, &set, 10, NOW);
	assert_int_equal(lease(&f, &set, 10, NOW, &l[3]).outcome, BUCKET_E_BUSY);
	assert_int_equal(view_at(&f, set.index[0], NOW).held, 30);
	settle(&f, &l[1], 0, NOW);
	l[3] = leased(&f, &set, 10, NOW);
	fixture_close(&f);
}

/* ---- pause, borrow, feedback ---- */

static void pause_stops_every_level(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = nine_limits(&f), requests = { 0 };
	struct bucket_lease l;
	struct bucket_verdict v;

	(void)state;
	fixture_add(&requests, &f, BUCKET_SCOPE_USER, "x");
	for (uint32_t i = 0; i < set.count; i++) {
		bucket_pause(&f.r, set.index[i], NOW + SECOND, NOW);
		bucket_pause(&f.r, set.index[i], NOW + 7, NOW); /* only raises */
		for (int what = 0; what < 3; what++) {
			v = what == 0 ?
				lease(&f, &set, 10, NOW, &l) :
				what == 1 ?
				bucket_peek(&f.r, &set, TOKENS(0), NOW) :
				bucket_borrow(&f.r, OWNER, &set, TOKENS(10), NOW, 5 * SECOND, &l);
			assert_int_equal(v.outcome, BUCKET_E_WAIT);
			assert_int_equal(v.blocking, set.index[i]);
			assert_int_equal(v.wait_ns, SECOND);
		}
		assert_int_equal(view_at(&f, set.index[i], NOW).available, 0);
		assert_int_equal(bucket_acquire(&f.r, &requests, 1, NOW).outcome,
			set.index[i] == requests.index[0] ? BUCKET_E_WAIT : BUCKET_OK);
		assert_int_equal(lease(&f, &set, 10, NOW + SECOND - 1, &l).outcome, BUCKET_E_WAIT);
		bucket_unpause(&f.r, set.index[i]);
		l = leased(&f, &set, 10, NOW);
		bucket_cancel(&f.r, &l, NOW);
	}
	/* Nonsense is cut, where it is written and where it is read. */
	bucket_pause(&f.r, requests.index[0], UINT64_MAX, NOW);
	assert_int_equal(f.r.bucket[requests.index[0]].pause_ns, NOW + BUCKET_PAUSE_MAX_NS);
	f.r.bucket[requests.index[0]].pause_ns = UINT64_MAX;
	assert_int_equal(take(&f, &requests, NOW).wait_ns, BUCKET_PAUSE_MAX_NS);
	bucket_adopt(&f.r, NOW);
	assert_int_equal(take(&f, &requests, NOW + BUCKET_PAUSE_MAX_NS).outcome, BUCKET_OK);
	fixture_close(&f);
}

/* The longer of pause and own wait; a set that only asks for requests still heeds the others. */
static void pause_and_wait_are_not_added(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = { 0 };

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 1);
	fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", 10, 10);
	fixture_add(&set, &f, BUCKET_SCOPE_USER, "u");
	fixture_add_of(&set, &f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u");
	assert_int_equal(take(&f, &set, NOW).outcome, BUCKET_OK);
	assert_int_equal(take(&f, &set, NOW).wait_ns, SECOND / 10);
	bucket_pause(&f.r, set.index[1], NOW + SECOND / 20, NOW);
	assert_int_equal(take(&f, &set, NOW).wait_ns, SECOND / 10);
	bucket_pause(&f.r, set.index[1], NOW + SECOND / 5, NOW);
	assert_int_equal(take(&f, &set, NOW).wait_ns, SECOND / 5);
	bucket_pause(&f.r, set.index[0], NOW + SECOND / 4, NOW);
	assert_int_equal(take(&f, &set, NOW).wait_ns, SECOND / 4);
	assert_int_equal(take(&f, &set, NOW).blocking, set.index[0]);
	assert_int_equal(take(&f, &set, NOW + SECOND / 4).outcome, BUCKET_OK);
	assert_int_equal(view_at(&f, set.index[0], NOW).held, 0);
	fixture_close(&f);
}

static void borrowing_books_ahead_within_the_horizon(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = { 0 }, big = { 0 };
	struct bucket_lease l, other;
	const uint64_t now = NOW + 1; /* after the limits were set */
	struct bucket_verdict v;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 10, 5);
	fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", 10, 100);
	fixture_add(&set, &f, BUCKET_SCOPE_USER, "u");
	fixture_add_of(&set, &f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u");
	fixture_add(&big, &f, BUCKET_SCOPE_USER, "u");
	assert_int_equal(drain(&f, &big, now), 5);
	v = bucket_borrow(&f.r, OWNER, &set, TOKENS(10), now, SECOND / 10 - 1, &l);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_int_equal(v.wait_ns, SECOND / 10);
	v = bucket_borrow(&f.r, OWNER, &set, TOKENS(10), now, SECOND, &l);
	assert_int_equal(v.outcome, BUCKET_OK);
	assert_int_equal(v.wait_ns, SECOND / 10);
	/* Who comes later waits behind it. */
	assert_int_equal(take(&f, &big, now).wait_ns, 2 * SECOND / 10);
	/* Given back before its time: all of it. */
	bucket_cancel(&f.r, &l, now + SECOND / 20);
	assert_int_equal(take(&f, &big, now).wait_ns, SECOND / 10);
	assert_int_equal(view_at(&f, set.index[0], now).held, 0);
	/* A limit that holds does not lend. */
	other = leased(&f, &set, 95, now + SECOND);
	v = bucket_borrow(&f.r, OWNER, &set, TOKENS(10), now + SECOND, SECOND, &l);
	assert_int_equal(v.wait_ns, BUCKET_WAIT_SETTLEMENT);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	settle(&f, &other, 0, now + SECOND);
	assert_int_equal(bucket_borrow(&f.r, OWNER, &big, &(struct bucket_cost){ .requests = 6 },
				 now, SECOND, &l)
				 .outcome,
		BUCKET_E_NEVER);
	fixture_close(&f);
}

static void feedback_only_raises(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set = token_set(&f, 1000, 100);
	struct bucket_lease l = leased(&f, &set, 30, NOW);
	uint32_t row = set.index[0];

	(void)state;
	bucket_raise(&f.r, row, 20, NOW); /* all of it is in flight here */
	assert_int_equal(view_at(&f, row, NOW).owed, 0);
	bucket_raise(&f.r, row, 70, NOW);
	assert_int_equal(view_at(&f, row, NOW).owed, 40);
	bucket_raise(&f.r, row, 70, NOW);
	bucket_raise(&f.r, row, 50, NOW);
	assert_int_equal(view_at(&f, row, NOW).owed, 40);
	bucket_raise(&f.r, row, UINT64_MAX, NOW);
	assert_int_equal(view_at(&f, row, NOW).owed, 100);
	bucket_reset(&f.r, row, NOW);
	assert_int_equal(view_at(&f, row, NOW).owed, 0);
	assert_int_equal(view_at(&f, row, NOW).held, 30);
	settle(&f, &l, 0, NOW);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(bucket_heard(&f.r, row), 0);
		bucket_hear(&f.r, row, 500);
	}
	assert_int_equal(bucket_heard(&f.r, row), 500);
	for (int i = 0; i < 300; i++)
		bucket_hear(&f.r, row, 500);
	assert_int_equal(bucket_heard(&f.r, row), 500);
	bucket_hear(&f.r, row, 0);
	assert_int_equal(bucket_heard(&f.r, row), 500);
	bucket_hear(&f.r, row, 501);
	assert_int_equal(bucket_heard(&f.r, row), 0);
	for (int i = 0; i < 3; i++)
		bucket_hear(&f.r, row, 1000);
	assert_int_equal(bucket_heard(&f.r, row), 0); /* that is what it has */
	bucket_raise(&f.r, UINT32_MAX, 1, NOW);
	bucket_hear(&f.r, UINT32_MAX, 1);
	bucket_pause(&f.r, UINT32_MAX, NOW, NOW);
	bucket_unpause(&f.r, UINT32_MAX);
	bucket_charge(&f.r, UINT32_MAX, 1, NOW);
	bucket_reset(&f.r, UINT32_MAX, NOW);
	assert_int_equal(bucket_heard(&f.r, UINT32_MAX), 0);
	assert_null(bucket_wait_word(&f.r, UINT32_MAX, NOW));
	fixture_close(&f);
}

/* What was taken before a reset leaked in it. */
static void reset_ends_what_can_be_given_back(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 5);
	set = fixture_set(&f, "u");
	assert_int_equal(drain(&f, &set, NOW + 1), 5);
	bucket_reset(&f.r, set.index[0], NOW + 2);
	assert_int_equal(drain(&f, &set, NOW + 2), 5);
	bucket_give_back(&f.r, &set, 5, NOW + 1, NOW + 2);
	assert_int_equal(take(&f, &set, NOW + 2).outcome, BUCKET_E_WAIT);
	fixture_close(&f);
}

/* ---- waiting ---- */

struct sleeper {
	const struct fixture *f;
	const struct bucket_set *set;
	_Atomic bool asleep;
	bool admitted;
};

static void *sleep_until_admitted(void *arg)
{
	struct sleeper *s = arg;
	struct bucket_lease l;

	while (!s->admitted) {
		const uint32_t *word = bucket_wait_word(&s->f->r, s->set->index[0], UINT64_MAX);
		uint32_t seen = __atomic_load_n(word, __ATOMIC_ACQUIRE);

		s->admitted = lease(s->f, s->set, 100, NOW, &l).outcome == BUCKET_OK;
		atomic_store(&s->asleep, true);
		if (!s->admitted)
			syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
	}
	return NULL;
}

static void sleepers_are_woken(void **state)
{
	enum { SETTLE, UNPAUSE, CHANGE, RESET, WAYS };

	(void)state;
	for (int way = 0; way < WAYS; way++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set = token_set(&f, 1000, 100);
		struct sleeper s = { .f = &f, .set = &set };
		struct bucket_lease l;
		pthread_t thread;
		uint32_t row = set.index[0];

		alarm(60);
		if (way == UNPAUSE)
			bucket_pause(&f.r, row, NOW + SECOND, NOW);
		else
			l = leased(&f, &set, 50, NOW);
		if (way == RESET)
			settle(&f, &l, 50, NOW);
		assert_int_equal(pthread_create(&thread, NULL, sleep_until_admitted, &s), 0);
		while (!atomic_load(&s.asleep))
			;
		if (way == SETTLE)
			settle(&f, &l, 0, NOW);
		if (way == UNPAUSE)
			bucket_unpause(&f.r, row);
		if (way == CHANGE)
			fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", 1000, 150);
		if (way == RESET)
			bucket_reset(&f.r, row, NOW);
		pthread_join(thread, NULL);
		assert_true(s.admitted);
		alarm(0);
		fixture_close(&f);
	}
}

/* ---- bad bytes ---- */

static uint64_t nonsense(uint64_t *seed)
{
	static const uint64_t values[] = { 0, 1, 4095, 4096, UINT32_MAX, UINT64_C(1) << 32,
		UINT64_C(1) << 52, UINT64_C(1) << 62, UINT64_C(1) << 63, UINT64_MAX - 4096,
		UINT64_MAX, NOW, NOW + SECOND };

	return splitmix_below(seed, 3) == 0 ? splitmix_next(seed) :
					      values[splitmix_below(seed, ARRAY_SIZE(values))];
}

static void scribble(shared_u64 *words, size_t size, uint64_t *seed)
{
	for (size_t i = 0; i < size / sizeof(*words); i++)
		if (splitmix_below(seed, 4) == 0)
			atomic_store(&words[i], nonsense(seed));
}

/* Everything anybody may call, on words that make no sense: it comes back, with an answer. */
static void nonsense_is_survived(void **state)
{
	struct region_sizes sizes = { .limits = 16, .holds = 8, .targets = 1 };
	uint64_t seed = 3;

	(void)state;
	for (int round = 0; round < 6000; round++) {
		struct fixture f = fixture_open_sized(&sizes, false);
		struct bucket_set set = token_set(&f, 1000, 100);
		struct bucket_cost cost = { nonsense(&seed), nonsense(&seed), nonsense(&seed),
			nonsense(&seed) };
		struct bucket_lease l = { 0 };
		struct bucket_verdict v;
		struct bucket_view view;
		uint64_t key;

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1000, 100);
		fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "u", 3, 3);
		fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_MONEY, "u", 1000000, 1000000);
		fixture_add(&set, &f, BUCKET_SCOPE_USER, "u");
		fixture_add_of(&set, &f, BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "u");
		fixture_add_of(&set, &f, BUCKET_SCOPE_USER, BUCKET_MONEY, "u");
		if (round % 2)
			lease(&f, &set, 10, NOW, &l);
		for (uint32_t i = 0; i < set.count; i++) {
			key = f.r.bucket[set.index[i]].key;
			scribble((shared_u64 *)&f.r.bucket[set.index[i]], sizeof(f.r.bucket[0]),
				&seed);
			scribble((shared_u64 *)&f.r.bucket_name[set.index[i]],
				sizeof(f.r.bucket_name[0]), &seed);
			if (round % 3)
				f.r.bucket[set.index[i]].key = key;
		}
		scribble((shared_u64 *)f.r.hold, f.r.holds * sizeof(f.r.hold[0]), &seed);
		v = bucket_peek(&f.r, &set, &cost, NOW);
		assert_true(v.outcome <= BUCKET_E_BUSY);
		if (v.outcome == BUCKET_E_WAIT)
			assert_true(v.wait_ns > 0);
		bucket_acquire(&f.r, &set, cost.requests, NOW);
		bucket_progress(&f.r, &l, &cost, NOW);
		if (round % 4 < 2)
			bucket_settle(&f.r, &l, &cost, NOW);
		bucket_cancel(&f.r, &l, NOW);
		if (bucket_lease(&f.r, OWNER, &set, &cost, NOW, &l).outcome == BUCKET_OK)
			bucket_settle(&f.r, &l, &cost, NOW);
		if (bucket_borrow(&f.r, OWNER, &set, &cost, NOW, SECOND, &l).outcome == BUCKET_OK)
			bucket_cancel(&f.r, &l, NOW);
		for (uint32_t i = 0; i < set.count; i++) {
			bucket_view(&f.r, set.index[i], NOW, &view);
			bucket_raise(&f.r, set.index[i], cost.requests, NOW);
			bucket_hear(&f.r, set.index[i], cost.requests);
			bucket_heard(&f.r, set.index[i]);
			bucket_charge(&f.r, set.index[i], cost.requests, NOW);
			bucket_pause(&f.r, set.index[i], cost.requests, NOW);
			if (round % 5 == 0)
				bucket_reset(&f.r, set.index[i], NOW);
		}
		bucket_roll(&f.r, NOW, nonsense(&seed));
		bucket_adopt(&f.r, NOW);
		token_set(&f, 1000, 100);
		fixture_close(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sets_are_in_order_of_acquisition),
		cmocka_unit_test(reject_takes_nothing_at_any_level),
		cmocka_unit_test(lost_races_are_undone_at_every_level),
		cmocka_unit_test(lost_requests_are_undone_at_every_level),
		cmocka_unit_test(second_look_sees_what_came_amid),
		cmocka_unit_test(waits_are_exact),
		cmocka_unit_test(concurrency_is_bounded_and_comes_back),
		cmocka_unit_test(settlement_turns_use_into_debt),
		cmocka_unit_test(overshoot_is_paid_back),
		cmocka_unit_test(reserved_tokens_are_charged_at_once),
		cmocka_unit_test(cancel_returns_everything),
		cmocka_unit_test(lost_hold_charges_only_what_was_not_held),
		cmocka_unit_test(holds_run_out),
		cmocka_unit_test(pause_stops_every_level),
		cmocka_unit_test(pause_and_wait_are_not_added),
		cmocka_unit_test(borrowing_books_ahead_within_the_horizon),
		cmocka_unit_test(feedback_only_raises),
		cmocka_unit_test(reset_ends_what_can_be_given_back),
		cmocka_unit_test(sleepers_are_woken),
		cmocka_unit_test(nonsense_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
