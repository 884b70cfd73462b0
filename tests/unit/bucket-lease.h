#pragma once

/* Leases for tests: the code that takes and settles, where others act before each of its stores. */

#include <stdatomic.h>
#include "base/aux.h"
#include "shm/hold.h"
#include "tests/unit/bucket-helpers.h"

static void (*others)(void);

static inline void step(void)
{
	if (others)
		others();
}

static inline bool step_swap(
	_Atomic uint64_t *word, uint64_t *seen, uint64_t to, memory_order ok, memory_order bad)
{
	step();
	return atomic_compare_exchange_strong_explicit(word, seen, to, ok, bad);
}

static inline enum hold_outcome step_move(const struct region *r, uint32_t hold, uint64_t owner,
	uint32_t total, uint32_t add, uint32_t sub, const uint64_t *expected)
{
	step();
	return hold_move(r, hold, owner, total, add, sub, expected);
}

#pragma push_macro("atomic_compare_exchange_strong_explicit")
#undef atomic_compare_exchange_strong_explicit
#define atomic_compare_exchange_strong_explicit step_swap
#define hold_move step_move
#include "shm/bucket.c"
#include "shm/bucket_settle.c"
#undef hold_move
#pragma pop_macro("atomic_compare_exchange_strong_explicit")

#define OWNER (UINT64_C(1) << 16 | 7)
#define TOKENS(n_) \
	(&(struct bucket_cost){ \
		.requests = 1, .input_tokens = (n_) / 2, .output_tokens = (n_) - (n_) / 2 })

static inline struct bucket_verdict lease(const struct fixture *f, const struct bucket_set *set,
	uint64_t tokens, uint64_t now_ns, struct bucket_lease *out)
{
	return bucket_lease(&f->r, OWNER, set, TOKENS(tokens), now_ns, out);
}

static inline struct bucket_lease leased(
	const struct fixture *f, const struct bucket_set *set, uint64_t tokens, uint64_t now_ns)
{
	struct bucket_lease l;

	assert_int_equal(lease(f, set, tokens, now_ns, &l).outcome, BUCKET_OK);
	return l;
}

static inline void settle(
	const struct fixture *f, struct bucket_lease *l, uint64_t tokens, uint64_t now_ns)
{
	bucket_settle(&f->r, l, TOKENS(tokens), now_ns);
}

static inline struct bucket_view view_at(const struct fixture *f, uint32_t row, uint64_t now_ns)
{
	struct bucket_view v;

	assert_true(bucket_view(&f->r, row, now_ns, &v));
	return v;
}

static inline unsigned holds_in_use(const struct fixture *f)
{
	unsigned count = 0;

	for (uint32_t i = 0; i < f->r.holds; i++)
		count += atomic_load(&f->r.hold[i].owner) != 0;
	return count;
}

/* One limit on the tokens of one user. */
static inline struct bucket_set token_set(struct fixture *f, uint64_t per_second, uint64_t burst)
{
	struct bucket_set set = { 0 };

	fixture_limit_of(f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", per_second, burst);
	fixture_add_of(&set, f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u");
	return set;
}
