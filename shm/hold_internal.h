#pragma once

/*
 * The words of totals and holds, and one try of the recoverable compare-and-swap (shm/layout.h at
 * layout_hold), inline for those who move several totals in one call: shm/hold.c, shm/bucket.c,
 * shm/bucket_settle.c. The order of its stores is checked by tests/models/hold.pml.
 */

#include "base/aux.h"
#include "shm/hold.h"
#include "shm/layout.h"

/* A total: value:32 | hold:14 | sequence:18, from the low end. */
#define HOLD_VALUE_BITS 32
#define HOLD_VALUE_CLOSED UINT32_MAX
#define HOLD_WRITER_BITS 14
#define HOLD_WRITER_MASK ((1u << HOLD_WRITER_BITS) - 1)
#define HOLD_SEQUENCE_BITS 18
#define HOLD_SEQUENCE_MASK ((UINT64_C(1) << HOLD_SEQUENCE_BITS) - 1)
/* Writes totals, but has no row: the daemon that opens or mends one. */
#define HOLD_WRITER_NOBODY HOLD_WRITER_MASK

/* An operation: number:36 | total:22 | entry:4 | state:2, from the low end. */
#define HOLD_NUMBER_BITS 36
#define HOLD_NUMBER_MASK ((UINT64_C(1) << HOLD_NUMBER_BITS) - 1)
#define HOLD_TOTAL_BITS 22
#define HOLD_TOTAL_MASK ((1u << HOLD_TOTAL_BITS) - 1)
#define HOLD_ENTRY_SHIFT (HOLD_NUMBER_BITS + HOLD_TOTAL_BITS)
#define HOLD_ENTRY_MASK 15u
#define HOLD_STATE_SHIFT 62
#define HOLD_IDLE UINT64_C(0)
#define HOLD_PENDING UINT64_C(1)
#define HOLD_DONE UINT64_C(2)

#define HOLD_UNITS_SHIFT 32 /* of an entry */

static_assert(HOLD_VALUE_BITS + HOLD_WRITER_BITS + HOLD_SEQUENCE_BITS == 64, "total");
static_assert(HOLD_ENTRY_SHIFT + 4 == HOLD_STATE_SHIFT, "operation");
static_assert(LAYOUT_HOLD_ENTRIES == HOLD_ENTRIES && HOLD_ENTRIES <= HOLD_ENTRY_MASK, "entries");
static_assert(REGION_HOLDS_MAX <= HOLD_WRITER_MASK + 1, "total.hold");

static inline uint64_t hold_load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static inline void hold_store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

/* Sequentially consistent: who lowers a total looks for sleepers after it: bucket_wake_any(). */
static inline bool hold_swap(shared_u64 *word, uint64_t from, uint64_t to)
{
	return atomic_compare_exchange_strong_explicit(
		word, &from, to, memory_order_seq_cst, memory_order_relaxed);
}

/* ---- words ---- */

static inline uint64_t hold_total_make(uint32_t value, uint32_t writer, uint64_t number)
{
	return value | (uint64_t)writer << HOLD_VALUE_BITS |
		(number & HOLD_SEQUENCE_MASK) << (HOLD_VALUE_BITS + HOLD_WRITER_BITS);
}

static inline uint32_t hold_total_value(uint64_t word)
{
	return (uint32_t)word;
}

static inline uint32_t hold_total_writer(uint64_t word)
{
	return (uint32_t)(word >> HOLD_VALUE_BITS) & HOLD_WRITER_MASK;
}

static inline uint64_t hold_total_sequence(uint64_t word)
{
	return word >> (HOLD_VALUE_BITS + HOLD_WRITER_BITS);
}

static inline bool hold_total_names(uint64_t word, uint32_t hold, uint64_t number)
{
	return hold_total_writer(word) == hold &&
		hold_total_sequence(word) == (number & HOLD_SEQUENCE_MASK);
}

static inline uint64_t hold_op_pending(uint64_t number, uint32_t total, uint32_t entry)
{
	return number | (uint64_t)total << HOLD_NUMBER_BITS | (uint64_t)entry << HOLD_ENTRY_SHIFT |
		HOLD_PENDING << HOLD_STATE_SHIFT;
}

static inline uint64_t hold_op_number(uint64_t op)
{
	return op & HOLD_NUMBER_MASK;
}

static inline uint64_t hold_op_state(uint64_t op)
{
	return op >> HOLD_STATE_SHIFT;
}

static inline uint64_t hold_entry_make(uint32_t total, uint32_t units)
{
	return units == 0 ? 0 : total | (uint64_t)units << HOLD_UNITS_SHIFT;
}

static inline uint32_t hold_entry_total(uint64_t entry)
{
	return (uint32_t)entry & HOLD_TOTAL_MASK;
}

static inline uint32_t hold_entry_units(uint64_t entry)
{
	return (uint32_t)(entry >> HOLD_UNITS_SHIFT);
}

/* One row number is nobody's, so the last row of the largest table is not used. */
static inline uint32_t hold_rows(const struct region *r)
{
	return (uint32_t)min_u64(r->holds, HOLD_WRITER_NOBODY);
}

/* ---- one try ---- */

/*
 * Before the operation that seen names is overwritten, its hold is told that it is done; a dead
 * hold could not tell otherwise. false: the total is not as seen any more. writer_op is pending.
 */
bool hold_acknowledge(const struct region *r, const shared_u64 *word, uint32_t total, uint64_t seen,
	uint64_t writer_op);

/* What one try changes. The hold is the caller's, and its operation idle. */
struct hold_change {
	shared_u64 *word; /* of the total */
	uint32_t total, entry;
	uint32_t units; /* of the entry, after it */
	uint32_t value; /* of the total, after it */
};

/* false: the total is not as seen any more. A number is used once, also when it fails. Inline: else
 * the change is put together in memory, which takes longer than all the rest. */
static inline __attribute__((always_inline)) bool hold_try(
	const struct region *r, uint32_t hold, const struct hold_change *c, uint64_t seen)
{
	struct layout_hold *h = &r->hold[hold];
	uint64_t number = (hold_op_number(hold_load(&h->op)) + 1) & HOLD_NUMBER_MASK;
	uint32_t writer = hold_total_writer(seen);
	bool moved;

	if (writer != hold) {
		uint64_t op = writer < hold_rows(r) ? hold_load(&r->hold[writer].op) : 0;

		if (aux_unlikely(hold_op_state(op) == HOLD_PENDING) &&
			!hold_acknowledge(r, c->word, c->total, seen, op))
			return false;
	} else if (aux_unlikely(hold_total_names(seen, hold, number))) {
		/* Else a death before the swap would look like one after it. */
		number = (number + 1) & HOLD_NUMBER_MASK;
	}
	hold_store(&h->op_value, c->units);
	hold_store(&h->op, hold_op_pending(number, c->total, c->entry));
	moved = hold_swap(c->word, seen, hold_total_make(c->value, hold, number));
	if (aux_likely(moved))
		hold_store(&h->entry[c->entry], hold_entry_make(c->total, c->units));
	hold_store(&h->op, number);
	return moved;
}
