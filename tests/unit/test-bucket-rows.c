#include "shm/bucket.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include "base/aux.h"
#include "shm/hold_internal.h"
#include "tests/unit/bucket-helpers.h"
#include "tests/unit/splitmix.h"

/* Which limits apply, and rows that are made on demand, evicted and given to other names: also
 * amid a client's taking, and by daemons that die. */

/* ---- the code itself, where the daemon acts before a client's store ---- */

static struct {
	void (*daemon)(void);
	unsigned left; /* stores until then; 0: never */
} amid;

static void amid_step(void)
{
	if (amid.left > 0 && --amid.left == 0)
		amid.daemon();
}

static inline bool amid_swap(
	_Atomic uint64_t *word, uint64_t *seen, uint64_t to, memory_order ok, memory_order bad)
{
	amid_step();
	return atomic_compare_exchange_strong_explicit(word, seen, to, ok, bad);
}

static inline enum hold_outcome amid_move(const struct region *r, uint32_t hold, uint64_t owner,
	uint32_t total, uint32_t add, uint32_t sub, const uint64_t *expected)
{
	amid_step();
	return hold_move(r, hold, owner, total, add, sub, expected);
}

static inline bool amid_try(
	const struct region *r, uint32_t hold, const struct hold_change *to, uint64_t seen)
{
	amid_step();
	return hold_try(r, hold, to, seen);
}

/* And the daemon's, where it dies before a store of its own, or others act. */
static struct {
	bool on;
	unsigned left;
	void (*others)(void);
	jmp_buf death;
} steps;

static inline void step_store(_Atomic uint64_t *word, uint64_t value, memory_order order)
{
	if (steps.on && steps.left > 0 && --steps.left == 0)
		longjmp(steps.death, 1);
	if (steps.on && steps.others)
		steps.others();
	atomic_store_explicit(word, value, order);
}

#define hold_move amid_move
#define hold_try amid_try
#pragma push_macro("atomic_compare_exchange_strong_explicit")
#pragma push_macro("atomic_store_explicit")
#undef atomic_compare_exchange_strong_explicit
#undef atomic_store_explicit
#define atomic_compare_exchange_strong_explicit amid_swap
#define atomic_store_explicit step_store
#include "shm/bucket.c"
#include "shm/bucket_table.c"
#pragma pop_macro("atomic_store_explicit")
#pragma pop_macro("atomic_compare_exchange_strong_explicit")
#undef hold_try
#undef hold_move

#define OWNER (UINT64_C(1) << 16 | 7)

/* ---- names ---- */

static void scopes_have_names_and_an_order(void **state)
{
	unsigned valid = 0;

	(void)state;
	for (uint64_t scope = 0; scope < 40; scope++) {
		valid += bucket_scope_is_valid(scope);
		assert_int_equal(strcmp(bucket_scope_name(scope), "unknown") != 0,
			bucket_scope_is_valid(scope));
	}
	assert_int_equal(valid, 10);
	assert_string_equal(bucket_scope_name(3), "user+model");
	assert_true(bucket_scope_rank(BUCKET_SCOPE_USER | BUCKET_SCOPE_KEY) <
		bucket_scope_rank(BUCKET_SCOPE_USER));
	assert_true(bucket_scope_rank(BUCKET_SCOPE_USER) < bucket_scope_rank(BUCKET_SCOPE_MODEL));
	assert_int_equal(bucket_scope_rank(BUCKET_SCOPE_PROVIDER), 9);
	for (unsigned i = 0; i < BUCKET_RESOURCES; i++) {
		assert_string_not_equal(bucket_resource_name(i), "unknown");
		assert_int_equal(bucket_kind_of((enum bucket_resource)i, true) == BUCKET_RATE,
			i < BUCKET_CONCURRENCY);
	}
	assert_string_equal(bucket_resource_name(BUCKET_RESOURCES), "unknown");
	assert_int_equal(bucket_kind_of(BUCKET_TOKENS, false), BUCKET_HELD);
}

static void names_of_pairs_cannot_be_forged(void **state)
{
	struct bucket_names names = { str_of("alice"), str_of("gpt"), str_of("p"), STR_NULL };
	char out[LAYOUT_NAME_MAX], longest[LAYOUT_NAME_MAX];

	(void)state;
	assert_true(bucket_join(BUCKET_SCOPE_USER | BUCKET_SCOPE_PROVIDER, &names, out));
	assert_string_equal(out, "alice\x1fp");
	assert_true(bucket_join(BUCKET_SCOPE_MODEL, &names, out));
	assert_string_equal(out, "gpt");
	assert_false(bucket_join(BUCKET_SCOPE_USER | BUCKET_SCOPE_KEY, &names, out));
	assert_false(bucket_join(7, &names, out));
	names.user = str_of("alice\x1fgpt");
	assert_false(bucket_join(BUCKET_SCOPE_USER, &names, out));
	assert_false(bucket_join(BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL, &names, out));
	memset(longest, 'x', sizeof(longest));
	for (size_t length = 150; length < LAYOUT_NAME_MAX + 3; length++) {
		names.user = str_make(longest, min_u64(length, LAYOUT_NAME_MAX));
		assert_int_equal(
			bucket_join(BUCKET_SCOPE_USER, &names, out), length < LAYOUT_NAME_MAX);
		/* With the separator and "gpt". */
		assert_int_equal(bucket_join(BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL, &names, out),
			length + 4 < LAYOUT_NAME_MAX);
	}
}

static void limits_of_all_kinds_are_checked(void **state)
{
	static const struct {
		uint64_t scope;
		enum bucket_resource resource;
		enum bucket_kind kind;
		uint64_t limit, window_ns, burst;
		int result;
	} cases[] = {
		{ 3, BUCKET_REQUESTS, BUCKET_RATE, 1, SECOND, 1, 0 },
		{ 7, BUCKET_REQUESTS, BUCKET_RATE, 1, SECOND, 1, -EINVAL },
		{ 0, BUCKET_REQUESTS, BUCKET_RATE, 1, SECOND, 1, -EINVAL },
		{ 3, BUCKET_REQUESTS, BUCKET_HELD, 1, SECOND, 1, -EINVAL },
		{ 3, BUCKET_TOKENS, BUCKET_GAUGE, 1, SECOND, 1, -EINVAL },
		{ 3, BUCKET_TOKENS, BUCKET_RATE, 1, SECOND, 1, 0 },
		{ 3, BUCKET_TOKENS, BUCKET_HELD, 1000, SECOND, UINT32_MAX - 1, 0 },
		{ 3, BUCKET_TOKENS, BUCKET_HELD, 1000, SECOND, UINT32_MAX, -ERANGE },
		{ 3, BUCKET_RESOURCES, BUCKET_RATE, 1, SECOND, 1, -EINVAL },
		{ 3, BUCKET_CONCURRENCY, BUCKET_GAUGE, 5, 0, 5, 0 },
		{ 3, BUCKET_CONCURRENCY, BUCKET_GAUGE, 5, SECOND, 5, -ERANGE },
		{ 3, BUCKET_CONCURRENCY, BUCKET_GAUGE, 5, 0, 6, -ERANGE },
		{ 3, BUCKET_CONCURRENCY, BUCKET_GAUGE, 0, 0, 0, -ERANGE },
		{ 3, BUCKET_CONCURRENCY, BUCKET_GAUGE, UINT32_MAX, 0, UINT32_MAX, -ERANGE },
		{ 3, BUCKET_MONEY, BUCKET_WINDOW, 5, 86400 * SECOND, 5, 0 },
		{ 3, BUCKET_MONEY, BUCKET_WINDOW, 5, BUCKET_WINDOW_MONTH, 5, 0 },
		{ 3, BUCKET_MONEY, BUCKET_WINDOW, 5, SECOND, 5, -ERANGE },
		{ 3, BUCKET_MONEY, BUCKET_WINDOW, 5, BUCKET_WINDOW_MONTH, 6, -ERANGE },
		{ 3, BUCKET_MONEY, BUCKET_WINDOW, BUCKET_MONEY_MAX, BUCKET_WINDOW_MONTH,
			BUCKET_MONEY_MAX, 0 },
		{ 3, BUCKET_MONEY, BUCKET_WINDOW, BUCKET_MONEY_MAX + 1, BUCKET_WINDOW_MONTH,
			BUCKET_MONEY_MAX + 1, -ERANGE },
	};
	struct fixture f = fixture_open(false);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct bucket_limit limit = { cases[i].scope, cases[i].resource, cases[i].kind,
			BUCKET_ORIGIN_CONFIG,
			str_of("a\x1f"
			       "b"),
			cases[i].limit, cases[i].window_ns, cases[i].burst };
		int row = bucket_configure(&f.r, &limit, NOW);
		struct bucket_view v;

		assert_int_equal(row < 0 ? row : 0, cases[i].result);
		assert_int_equal(bucket_limit_is_valid(&limit), cases[i].result == 0);
		if (row < 0)
			continue;
		assert_true(bucket_view(&f.r, (uint32_t)row, NOW, &v));
		assert_string_equal(v.name, "a@b");
		limit.name = str_of("one name");
		assert_int_equal(bucket_configure(&f.r, &limit, NOW), -EINVAL);
	}
	fixture_close(&f);
}

/* ---- resolving ---- */

static void resolve_finds_what_applies(void **state)
{
	struct bucket_limit templates[2] = { template_for(BUCKET_SCOPE_USER, BUCKET_REQUESTS, 1, 1),
		template_for(BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL, BUCKET_TOKENS, 10, 10) };
	struct bucket_names names = { str_of("alice"), str_of("m"), str_of("p"), str_of("k") };
	char longest[LAYOUT_NAME_MAX];
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	assert_int_equal(bucket_resolve(&f.r, &names, NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 0);
	fixture_limit(&f, BUCKET_SCOPE_PROVIDER, "p", 10, 10);
	fixture_limit(&f, BUCKET_SCOPE_PROVIDER, "q", 10, 10);
	fixture_limit_of(&f, BUCKET_SCOPE_KEY, BUCKET_CONCURRENCY, "k", 10, 10);
	fixture_limit_of(&f, BUCKET_SCOPE_MODEL | BUCKET_SCOPE_KEY, BUCKET_TOKENS, "m\x1fk", 9, 9);
	assert_int_equal(bucket_resolve(&f.r, &names, NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 3);
	assert_int_equal(set.held, 2);
	names.key = STR_NULL;
	assert_int_equal(bucket_resolve(&f.r, &names, NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 1);
	assert_int_equal(bucket_set_templates(&f.r, templates, 2, NOW), 0);
	assert_int_equal(bucket_resolve(&f.r, &names, NOW, &set), BUCKET_E_MISSING);
	assert_int_equal(set.count, 1);
	assert_int_equal(bucket_instantiate(&f.r, &names, NOW), 0);
	assert_int_equal(bucket_instantiate(&f.r, &names, NOW), 0);
	assert_int_equal(bucket_resolve(&f.r, &names, NOW + 5, &set), BUCKET_OK);
	assert_int_equal(set.count, 3);
	assert_int_equal(f.r.bucket_name[set.index[0]].used_ns, NOW + 5);
	/* A name that no row can have is no way around the template. */
	memset(longest, 'x', sizeof(longest));
	names.user = str_make(longest, sizeof(longest));
	assert_int_equal(bucket_resolve(&f.r, &names, NOW, &set), BUCKET_E_MISSING);
	assert_int_equal(bucket_instantiate(&f.r, &names, NOW), -ENAMETOOLONG);
	names.user = str_of("a\x1f"
			    "b");
	assert_int_equal(bucket_resolve(&f.r, &names, NOW, &set), BUCKET_E_MISSING);
	names.user = STR_NULL;
	assert_int_equal(bucket_resolve(&f.r, &names, NOW, &set), BUCKET_OK);
	fixture_close(&f);
}

static void sets_have_room_for_so_many(void **state)
{
	struct bucket_names names = { str_of("a"), str_of("b"), str_of("c"), str_of("d") };
	struct fixture f = fixture_open(false);
	struct bucket_set set;
	char name[LAYOUT_NAME_MAX];

	(void)state;
	for (unsigned i = 0; i < BUCKET_SCOPES; i++) {
		assert_true(bucket_join(bucket_scopes[i], &names, name));
		fixture_limit(&f, bucket_scopes[i], name, 1, 1);
		fixture_limit_of(&f, bucket_scopes[i], BUCKET_TOKENS, name, 1, 1);
	}
	assert_int_equal(bucket_resolve(&f.r, &names, NOW, &set), BUCKET_E_BUSY);
	assert_int_equal(set.count, BUCKET_SET_MAX);
	fixture_close(&f);
}

/* ---- eviction ---- */

static const struct region_sizes four = { .limits = 4, .holds = 16, .targets = 1 };

static struct fixture open_four(uint64_t per_second, uint64_t burst)
{
	struct bucket_limit t[2] = {
		template_for(BUCKET_SCOPE_USER, BUCKET_REQUESTS, per_second, burst),
	};
	struct fixture f = fixture_open_sized(&four, false);

	assert_int_equal(bucket_set_templates(&f.r, t, 1, NOW), 0);
	return f;
}

static bool exists(const struct fixture *f, const char *user)
{
	struct bucket_set set = { 0 };

	return bucket_set_add(&set, &f->r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of(user)) ||
		bucket_set_add(&set, &f->r, BUCKET_SCOPE_USER, BUCKET_TOKENS, str_of(user));
}

static void least_recently_used_goes_first_if_it_owes_nothing(void **state)
{
	static const char *const users[] = { "a", "b", "c", "d" };
	struct fixture f = open_four(1, 5);
	struct bucket_set set;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		assert_int_equal(instantiate(&f, users[i], NOW + i), 0);
	assert_int_equal(resolve(&f, "a", NOW + 10, &set), BUCKET_OK);
	assert_int_equal(instantiate(&f, "e", NOW + 11), 0);
	assert_false(exists(&f, "b"));
	assert_true(exists(&f, "a"));
	/* c owes, d is paused, a holds something. */
	assert_int_equal(resolve(&f, "c", NOW, &set), BUCKET_OK);
	assert_int_equal(take(&f, &set, NOW + 20).outcome, BUCKET_OK);
	assert_int_equal(resolve(&f, "d", NOW, &set), BUCKET_OK);
	bucket_pause(&f.r, set.index[0], NOW + SECOND + 21, NOW);
	assert_int_equal(instantiate(&f, "g", NOW + 30), 0);
	assert_false(exists(&f, "a"));
	assert_int_equal(instantiate(&f, "h", NOW + 31), 0);
	assert_false(exists(&f, "e"));
	assert_true(exists(&f, "c") && exists(&f, "d") && exists(&f, "g") && exists(&f, "h"));
	/* Owing, paused, configured, in flight: none may go. */
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(resolve(&f, i ? "g" : "h", NOW, &set), BUCKET_OK);
		assert_int_equal(take(&f, &set, NOW + 40).outcome, BUCKET_OK);
	}
	assert_int_equal(instantiate(&f, "i", NOW + 41), -ENOSPC);
	assert_int_equal(instantiate(&f, "i", NOW + 2 * SECOND), 0);
	assert_false(exists(&f, "c"));
	fixture_close(&f);
}

static void rows_of_one_user_do_not_evict_each_other(void **state)
{
	static const struct region_sizes three = { .limits = 3, .holds = 4, .targets = 1 };
	const struct bucket_limit t[2] = {
		template_for(BUCKET_SCOPE_USER, BUCKET_REQUESTS, 1, 5),
		template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 1, 5),
	};

	(void)state;
	for (uint32_t first = 0; first < 2; first++) {
		struct fixture f = fixture_open_sized(&three, false);
		struct bucket_set set, other;

		assert_int_equal(bucket_set_templates(&f.r, &t[first], 1, NOW), 0);
		assert_int_equal(instantiate(&f, "a", NOW), 0);
		assert_int_equal(bucket_set_templates(&f.r, t, 2, NOW), 0);
		assert_int_equal(instantiate(&f, "b", NOW + 1), 0);
		assert_int_equal(resolve(&f, "a", NOW, &other), BUCKET_E_MISSING);
		assert_int_equal(other.count, 1);
		f.r.bucket[other.index[0]].admitted = 77; /* as long as it is the same limit */
		assert_int_equal(instantiate(&f, "a", NOW + 2), 0);
		assert_int_equal(resolve(&f, "a", NOW + 2, &set), BUCKET_OK);
		assert_int_equal(set.count, 2);
		assert_int_equal(f.r.bucket[other.index[0]].admitted, 77);
		fixture_close(&f);
	}
}

static void configured_limits_find_room_but_lose_none(void **state)
{
	struct fixture f = open_four(1, 5);
	struct bucket_limit one_more = fixture_requests(BUCKET_SCOPE_USER, str_of("x"), 1, 1);

	(void)state;
	for (unsigned i = 0; i < 3; i++)
		fixture_limit(&f, BUCKET_SCOPE_USER, (const char *[]){ "a", "b", "c" }[i], 1, 1);
	assert_int_equal(instantiate(&f, "d", NOW), 0);
	assert_int_equal(instantiate(&f, "e", NOW + 1), 0);
	assert_false(exists(&f, "d"));
	assert_true(bucket_configure(&f.r, &one_more, NOW + 2) >= 0);
	assert_false(exists(&f, "e"));
	assert_int_equal(instantiate(&f, "f", NOW + 3), -ENOSPC);
	assert_true(exists(&f, "a") && exists(&f, "b") && exists(&f, "c") && exists(&f, "x"));
	fixture_close(&f);
}

/* A row with units in flight is never given to another name, also when it was taken out of the
 * configuration; and settles where it was taken. */
static void retired_row_drains(void **state)
{
	static const bool keep[4];
	struct region_sizes one = { .limits = 1, .holds = 4, .targets = 1 };
	struct fixture f = fixture_open_sized(&one, false);
	struct bucket_limit other = fixture_requests(BUCKET_SCOPE_USER, str_of("v"), 1, 1);
	struct bucket_cost cost = { .input_tokens = 50 };
	struct bucket_set set = { 0 };
	struct bucket_lease l;

	(void)state;
	fixture_clock_ns = NOW;
	fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", 100, 100);
	fixture_add_of(&set, &f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u");
	assert_int_equal(bucket_lease(&f.r, OWNER, &set, &cost, NOW, &l).outcome, BUCKET_OK);
	bucket_retire(&f.r, keep);
	assert_int_equal(bucket_lease(&f.r, OWNER, &set, &cost, NOW, &l).outcome, BUCKET_E_GONE);
	assert_int_equal(bucket_configure(&f.r, &other, NOW), -ENOSPC);
	bucket_settle(&f.r, &l, &cost, NOW);
	assert_int_equal((uint32_t)f.r.bucket[0].held, 0);
	/* It still owes. */
	assert_int_equal(bucket_configure(&f.r, &other, NOW), -ENOSPC);
	assert_int_equal(bucket_configure(&f.r, &other, NOW + SECOND / 2 - 1), -ENOSPC);
	assert_int_equal(bucket_configure(&f.r, &other, NOW + SECOND / 2), 0);
	assert_int_equal((uint32_t)f.r.bucket[0].held, 0);
	fixture_close(&f);
}

/* ---- eviction amid a client's taking ---- */

static struct fixture *amid_f;

static void evict_the_row(void)
{
	instantiate(amid_f, "w", NOW + 100);
}

/* The daemon gives the row away before a client's n-th store: who is admitted is counted in the row
 * that has his name, and the other name has its whole burst. True: it was given away in time. */
static bool taking_amid_eviction_is_lossless(
	enum bucket_resource resource, unsigned n, bool start_at_now)
{
	struct bucket_limit t = template_for(BUCKET_SCOPE_USER, resource, 1, 5);
	struct region_sizes one = { .limits = 1, .holds = 4, .targets = 1 };
	struct fixture f = fixture_open_sized(&one, false);
	struct bucket_cost cost = { .requests = 1, .input_tokens = 1 };
	uint64_t now = start_at_now ? NOW + 100 : NOW + 50, left = 0;
	struct bucket_set set;
	struct bucket_lease l;
	bool admitted, given;

	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(instantiate(&f, "u", now), 0);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	amid_f = &f;
	amid.daemon = evict_the_row;
	amid.left = n;
	admitted = bucket_lease(&f.r, OWNER, &set, &cost, now, &l).outcome == BUCKET_OK;
	amid.left = 0;
	given = exists(&f, "w");
	assert_int_equal(exists(&f, "u"), !given);
	assert_false(given && admitted);
	while (given || !admitted) {
		assert_int_equal(resolve(&f, given ? "w" : "u", NOW, &set), BUCKET_OK);
		if (bucket_lease(&f.r, OWNER, &set, &cost, NOW + 100, &l).outcome != BUCKET_OK)
			break;
		left++;
	}
	/* A row given twice at one instant starts a nanosecond behind. */
	assert_int_equal(left, admitted ? 0 : resource == BUCKET_REQUESTS && !start_at_now ? 5 : 4);
	fixture_close(&f);
	return given;
}

static void evict_the_row_and_again(void)
{
	assert_int_equal(instantiate(amid_f, "v", NOW), 0);
	instantiate(amid_f, "w", NOW);
}

/* Given away twice before his store: he does not take from whoever has it then. */
static void a_row_that_changed_hands_twice_is_not_taken_for_his(void **state)
{
	struct bucket_limit t = template_for(BUCKET_SCOPE_USER, BUCKET_REQUESTS, 1, 5);
	struct region_sizes one = { .limits = 1, .holds = 4, .targets = 1 };
	struct fixture f = fixture_open_sized(&one, false);
	struct bucket_set set;

	(void)state;
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(instantiate(&f, "u", NOW), 0);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	amid_f = &f;
	amid.daemon = evict_the_row_and_again;
	amid.left = 1;
	assert_int_equal(take(&f, &set, NOW).outcome, BUCKET_E_GONE);
	amid.left = 0;
	fixture_close(&f);
}

static void eviction_amid_taking_loses_nothing(void **state)
{
	(void)state;
	for (int resource = BUCKET_REQUESTS; resource <= BUCKET_TOKENS; resource += BUCKET_TOKENS)
		for (int at_now = 0; at_now < 2; at_now++) {
			assert_true(taking_amid_eviction_is_lossless(
				(enum bucket_resource)resource, 1, at_now));
			for (unsigned n = 2; n < 6; n++)
				taking_amid_eviction_is_lossless(
					(enum bucket_resource)resource, n, at_now);
		}
}

static struct {
	struct fixture *f;
	struct bucket_set set;
	unsigned in; /* before which of the daemon's stores */
	uint64_t admitted;
} client;

static void client_takes(void)
{
	struct bucket_cost cost = { .requests = 1, .input_tokens = 1 };
	struct bucket_lease l;

	if (client.in-- == 1 &&
		bucket_lease(&client.f->r, OWNER, &client.set, &cost, NOW + 100, &l).outcome ==
			BUCKET_OK)
		client.admitted++;
}

/* A client acts before each store of the daemon that evicts, and the daemon may die before another;
 * then the next one adopts. Nobody gets more than the burst. */
static bool eviction_step(enum bucket_resource resource, unsigned act, unsigned dies)
{
	struct bucket_limit t = template_for(BUCKET_SCOPE_USER, resource, 1, 5);
	struct region_sizes one = { .limits = 1, .holds = 16, .targets = 1 };
	struct fixture f = fixture_open_sized(&one, false);
	struct bucket_cost cost = { .requests = 1, .input_tokens = 1 };
	struct bucket_lease l;
	bool done = false;

	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(instantiate(&f, "u", NOW), 0);
	client.f = &f;
	client.admitted = 0;
	client.in = act;
	assert_int_equal(resolve(&f, "u", NOW, &client.set), BUCKET_OK);
	steps.others = client_takes;
	steps.left = dies;
	steps.on = true;
	if (setjmp(steps.death) == 0) {
		instantiate(&f, "w", NOW + 100);
		done = true;
	}
	steps.on = false;
	if (!done)
		bucket_adopt(&f.r, NOW + 100);
	assert_false(exists(&f, "u") && exists(&f, "w"));
	/* u finds what it took, and its row if that was not given away. */
	if (client.admitted > 0)
		assert_false(exists(&f, "w"));
	if (done)
		assert_true(exists(&f, "u") || exists(&f, "w"));
	if (exists(&f, "w") || instantiate(&f, "u", NOW + 101) == 0) {
		assert_int_equal(
			resolve(&f, exists(&f, "w") ? "w" : "u", NOW, &client.set), BUCKET_OK);
		while (bucket_lease(&f.r, OWNER, &client.set, &cost, NOW + 101, &l).outcome ==
			BUCKET_OK)
			client.admitted++;
		assert_int_equal(client.admitted, 5);
	}
	assert_int_equal(region_empty_since(&f.r), 0);
	fixture_close(&f);
	return !done;
}

static void daemon_dying_in_eviction_loses_nothing(void **state)
{
	static const enum bucket_resource resources[] = { BUCKET_REQUESTS, BUCKET_TOKENS };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(resources); i++)
		for (unsigned act = 0; act < 30; act++) {
			unsigned dies = 1;

			eviction_step(resources[i], act, 0);
			while (eviction_step(resources[i], act, dies))
				dies++;
			assert_true(dies > 10 || act == 1);
		}
}

/* ---- random histories of many names in few rows ---- */

enum { NAMES = 9, STEPS = 400 };

/* Each name against a bucket of its own, whatever row it has at the time. */
static void rows_in_turn(uint64_t seed, unsigned *evictions, unsigned *adopted)
{
	struct fixture f = open_four(100, 4);
	struct oracle oracles[NAMES];
	uint64_t now = NOW;

	for (unsigned i = 0; i < NAMES; i++)
		oracles[i] = (struct oracle){ 0, 100, SECOND, 4, NOW };
	for (unsigned i = 0; i < STEPS; i++) {
		unsigned which = (unsigned)splitmix_below(&seed, NAMES);
		char user[2] = { (char)('a' + which), '\0' };
		struct bucket_set set;
		bool had = exists(&f, user);

		now += splitmix_below(&seed, SECOND / 50);
		if (splitmix_below(&seed, 50) == 0) {
			bucket_adopt(&f.r, now);
			++*adopted;
		}
		if (resolve(&f, user, now, &set) != BUCKET_OK && instantiate(&f, user, now) < 0)
			continue;
		*evictions += !had;
		assert_int_equal(resolve(&f, user, now, &set), BUCKET_OK);
		while (splitmix_below(&seed, 3) && take(&f, &set, now).outcome == BUCKET_OK)
			assert_true(oracle_admits(&oracles[which], 1, now, 0));
	}
	assert_int_equal(region_empty_since(&f.r), 0);
	fixture_close(&f);
}

static void eviction_is_lossless(void **state)
{
	unsigned evictions = 0, adopted = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++)
		rows_in_turn(seed, &evictions, &adopted);
	assert_true(evictions > 10000 && adopted > 1000);
}

/* ---- threads ---- */

enum { CROWD = 4, CROWD_ROUNDS = 4000, CROWD_BURST = 10 };

struct crowd {
	struct fixture *f;
	_Atomic uint64_t next, in_flight[NAMES], too_many, admitted, gone;
	_Atomic bool stop;
};

static void *crowd_client(void *arg)
{
	struct crowd *c = arg;
	uint64_t me = atomic_fetch_add(&c->next, 1), seed = me;

	for (unsigned i = 0; i < CROWD_ROUNDS;) {
		unsigned which = (unsigned)splitmix_below(&seed, NAMES);
		char user[2] = { (char)('a' + which), '\0' };
		uint64_t n = 1 + splitmix_below(&seed, CROWD_BURST);
		struct bucket_cost cost = { .input_tokens = n };
		enum bucket_outcome outcome;
		struct bucket_lease l;
		struct bucket_set set;

		if (resolve(c->f, user, NOW, &set) != BUCKET_OK) {
			sched_yield(); /* the daemon's turn */
			continue;
		}
		i++;
		outcome = bucket_lease(&c->f->r, OWNER + me, &set, &cost, NOW, &l).outcome;
		atomic_fetch_add(&c->gone, outcome == BUCKET_E_GONE);
		if (outcome != BUCKET_OK)
			continue;
		atomic_fetch_add(&c->admitted, 1);
		if (atomic_fetch_add(&c->in_flight[which], n) + n > CROWD_BURST)
			atomic_fetch_add(&c->too_many, 1);
		atomic_fetch_sub(&c->in_flight[which], n);
		bucket_cancel(&c->f->r, &l, NOW);
	}
	return NULL;
}

static void *crowd_daemon(void *arg)
{
	struct crowd *c = arg;
	uint64_t seed = 77;

	for (uint64_t i = 1; !atomic_load(&c->stop); i++) {
		char user[2] = { (char)('a' + splitmix_below(&seed, NAMES)), '\0' };

		instantiate(c->f, user, NOW + i);
	}
	return NULL;
}

/* Rows change hands all the time while others take from them: what is in flight for a name is never
 * more than its burst, and all of it comes back. */
static void rows_change_hands_under_load(void **state)
{
	struct bucket_limit t = template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 1, CROWD_BURST);
	struct fixture f = fixture_open_sized(&four, false);
	struct crowd c = { .f = &f };
	pthread_t clients[CROWD], daemon;

	(void)state;
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(pthread_create(&daemon, NULL, crowd_daemon, &c), 0);
	for (int i = 0; i < CROWD; i++)
		assert_int_equal(pthread_create(&clients[i], NULL, crowd_client, &c), 0);
	for (int i = 0; i < CROWD; i++)
		pthread_join(clients[i], NULL);
	atomic_store(&c.stop, true);
	pthread_join(daemon, NULL);
	assert_int_equal(c.too_many, 0);
	assert_true(c.admitted > 0);
	for (uint32_t i = 0; i < f.r.buckets; i++)
		assert_int_equal((uint32_t)f.r.bucket[i].held, 0);
	fixture_close(&f);
}

/* ---- bad bytes ---- */

static void adoption_retires_what_makes_no_sense(void **state)
{
	static const size_t words[] = { offsetof(struct layout_bucket_name, scope),
		offsetof(struct layout_bucket_name, resource),
		offsetof(struct layout_bucket_name, kind),
		offsetof(struct layout_bucket_name, origin),
		offsetof(struct layout_bucket_name, most),
		offsetof(struct layout_bucket_name, basis),
		offsetof(struct layout_bucket_name, name) };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
		struct fixture f = fixture_open(false);
		struct bucket_set set, again = { 0 };

		fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 5);
		set = fixture_set(&f, "u");
		assert_int_equal(drain(&f, &set, NOW), 5);
		atomic_store((shared_u64 *)(void *)((char *)name_of(&f, &set) + words[i]),
			words[i] == offsetof(struct layout_bucket_name, most) ? 0 : 0x777);
		bucket_adopt(&f.r, NOW);
		assert_int_equal(take(&f, &set, NOW).outcome, BUCKET_E_GONE);
		assert_int_equal(region_empty_since(&f.r), NOW);
		fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 5);
		fixture_add(&again, &f, BUCKET_SCOPE_USER, "u");
		assert_int_equal(take(&f, &again, NOW).outcome, BUCKET_E_WAIT);
		fixture_close(&f);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(scopes_have_names_and_an_order),
		cmocka_unit_test(names_of_pairs_cannot_be_forged),
		cmocka_unit_test(limits_of_all_kinds_are_checked),
		cmocka_unit_test(resolve_finds_what_applies),
		cmocka_unit_test(sets_have_room_for_so_many),
		cmocka_unit_test(least_recently_used_goes_first_if_it_owes_nothing),
		cmocka_unit_test(rows_of_one_user_do_not_evict_each_other),
		cmocka_unit_test(configured_limits_find_room_but_lose_none),
		cmocka_unit_test(retired_row_drains),
		cmocka_unit_test(eviction_amid_taking_loses_nothing),
		cmocka_unit_test(a_row_that_changed_hands_twice_is_not_taken_for_his),
		cmocka_unit_test(daemon_dying_in_eviction_loses_nothing),
		cmocka_unit_test(eviction_is_lossless),
		cmocka_unit_test(rows_change_hands_under_load),
		cmocka_unit_test(adoption_retires_what_makes_no_sense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
