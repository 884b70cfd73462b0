#pragma once

/* What the files of shm/bucket.h share: reading and writing the words of a row. */

#include "base/aux.h"
#include "shm/bucket_table.h"
#include "shm/layout.h"

#define BUCKET_FRACTION_BITS 12
#define BUCKET_FRACTION (UINT64_C(1) << BUCKET_FRACTION_BITS)
#define BUCKET_INTERVAL_MAX (UINT64_MAX & ~(BUCKET_FRACTION - 1))
#define BUCKET_TOLERANCE_MAX (UINT64_C(1) << 61)
/* A debt recounted to more nanoseconds than tat has room for stands here. What is still found above
 * BUCKET_TOLERANCE_MAX, up to 73 years later, counts as all that the row can owe. */
#define BUCKET_DEBT_MAX (UINT64_C(1) << 62)
/* Nothing is charged that would bring tat above this. */
#define BUCKET_TAT_MAX (UINT64_C(1) << 63)
#define BUCKET_UNITS_MAX UINT64_C(1000000000000)
#define BUCKET_WINDOW_LONGEST (31 * NSEC_PER_DAY)

/* A CAS that fails means that another process got on; so many in a row means a broken word. */
#define BUCKET_TRIES_MAX 1024
/* Honest words never make a wait longer than the cost and what is owed above the burst, but for
 * processes that were stopped between clock and CAS. */
#define BUCKET_WAIT_SLACK NSEC_PER_SEC

/* layout_bucket.held */
#define BUCKET_HELD_CLOSED UINT32_MAX
/* One unit of held money, in nano-USD, and tat of a WINDOW: epoch:12 | used:52. */
#define BUCKET_QUANTUM 4096
#define BUCKET_USED_BITS 52
#define BUCKET_USED_MAX ((UINT64_C(1) << BUCKET_USED_BITS) - 1)
#define BUCKET_EPOCHS 4096

/* layout_header.limits_in_use */
#define BUCKET_IN_USE(resource_) (UINT64_C(1) << (resource_))
#define BUCKET_IN_USE_TEMPLATE(resource_) (UINT64_C(1) << (8 + (resource_)))
#define BUCKET_IN_USE_TEMPLATES UINT64_C(0xff00)
#define BUCKET_IN_USE_RESERVE(resource_) (UINT64_C(1) << (16 + (resource_)))

/* For code that is specialised by the constants it is called with. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

static inline uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static inline uint64_t load_acquire(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static inline void store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

/* False: *seen is what it is now. */
static inline bool swap(shared_u64 *word, uint64_t *seen, uint64_t to)
{
	return atomic_compare_exchange_strong_explicit(
		word, seen, to, memory_order_acq_rel, memory_order_acquire);
}

static inline void raise_to(shared_u64 *word, uint64_t value)
{
	uint64_t seen = load(word);

	for (int i = 0; i < BUCKET_TRIES_MAX && seen < value; i++)
		if (swap(word, &seen, value))
			return;
}

/* The time where the caller's now may be older than what others have written meanwhile. */
static inline uint64_t true_time(const struct region *r, uint64_t now_ns)
{
	return max_u64(now_ns, r->clock_ns());
}

/* ceil(n * interval / 2^12); what would not fit is more than any tolerance. */
static inline uint64_t cost_of(uint64_t n, uint64_t interval)
{
	unsigned __int128 cost;

	if (aux_likely(n == 1))
		return (interval >> BUCKET_FRACTION_BITS) +
			((interval & (BUCKET_FRACTION - 1)) != 0);
	if (aux_likely((n | interval) <= UINT32_MAX))
		return (n * interval + BUCKET_FRACTION - 1) >> BUCKET_FRACTION_BITS;
	cost = ((unsigned __int128)n * interval + BUCKET_FRACTION - 1) >> BUCKET_FRACTION_BITS;
	return cost > UINT64_MAX ? UINT64_MAX : (uint64_t)cost;
}

/* Units that a debt is worth, rounded up. */
static inline uint64_t units_of(uint64_t debt_ns, uint64_t interval)
{
	unsigned __int128 units;

	if (interval == 0)
		return debt_ns ? BUCKET_UNITS_MAX : 0;
	units = (((unsigned __int128)debt_ns << BUCKET_FRACTION_BITS) + interval - 1) / interval;
	return units > BUCKET_UNITS_MAX ? BUCKET_UNITS_MAX : (uint64_t)units;
}

/* The most units a row can owe; a broken word says nothing. */
static inline uint64_t most_of(const struct layout_bucket_name *row)
{
	uint64_t most = load(&row->most);

	return most > 0 && most <= BUCKET_UNITS_MAX ? most : BUCKET_UNITS_MAX;
}

/* What was used of a WINDOW since its end; a broken word is all that can be. */
static inline uint64_t late_of(const struct layout_bucket_name *row)
{
	return min_u64(load_acquire(&row->late), BUCKET_USED_MAX);
}

/* Quanta of money in flight for so many nano-USD, rounded up. */
static inline uint64_t quanta_of(uint64_t nanousd)
{
	return nanousd / BUCKET_QUANTUM + (nanousd % BUCKET_QUANTUM != 0);
}

static inline uint64_t add_saturating(uint64_t a, uint64_t b)
{
	return a + b < a ? UINT64_MAX : a + b;
}

/* What a call asks of each resource. */
struct bucket_units {
	uint64_t of[BUCKET_RESOURCES + 2]; /* a power of 2, to mask a broken index */
};

/* Field by field, here and where leases are made: a struct that is put together and then copied is
 * written in words and read in pairs of them, for which the processor waits. */
ALWAYS_INLINE void units_ask(struct bucket_units *u, const struct bucket_cost *cost)
{
	u->of[BUCKET_REQUESTS] = cost->requests;
	u->of[BUCKET_INPUT_TOKENS] = cost->input_tokens;
	u->of[BUCKET_OUTPUT_TOKENS] = cost->output_tokens;
	u->of[BUCKET_TOKENS] = add_saturating(cost->input_tokens, cost->output_tokens);
	u->of[BUCKET_CONCURRENCY] = cost->requests != 0;
	u->of[BUCKET_MONEY] = cost->nanousd;
	u->of[BUCKET_RESOURCES] = 0;
	u->of[BUCKET_RESOURCES + 1] = 0;
}

/* bucket_find.c: which row. kind is part of the key. */
struct bucket_id {
	uint64_t scope;
	enum bucket_resource resource;
	enum bucket_kind kind;
	struct str name;
};
uint64_t bucket_key(const struct bucket_id *id);
/* A name that a row of this scope can have. */
bool bucket_name_fits(uint64_t scope, struct str name);
/* Whether the row, in use or not, bears all of the id. */
bool bucket_row_is(const struct region *r, uint32_t row, const struct bucket_id *id);
/* The row in use, or BUCKET_NONE. */
uint32_t bucket_find(const struct region *r, const struct bucket_id *id);
/* out holds LAYOUT_NAME_MAX bytes and is terminated; returns the length. */
size_t bucket_row_name(const struct region *r, uint32_t row, char *out);
void bucket_row_rename(struct region *r, uint32_t row, struct str name);
/* The scopes in order of acquisition. */
#define BUCKET_SCOPES 10
extern const uint8_t bucket_scopes[BUCKET_SCOPES];
/* Whether a kind of limit exists for the resource. */
bool bucket_kind_fits(uint64_t resource, uint64_t kind);

/*
 * bucket_wake() for who has just lowered the row's total, a sequentially consistent change. So is
 * how a sleeper says that it waits, and its look at the total after that: one of both sees the
 * other, and the row's cold half is only read.
 */
static inline void bucket_wake_any(const struct region *r, uint32_t row)
{
	if (aux_unlikely(atomic_load_explicit(
				 &r->bucket_name[row].waited_ns, memory_order_seq_cst) != 0))
		bucket_wake(r, row);
}

/* bucket_settle.c */
/* More than the burst can be owed where more was used than was held, or was booked ahead. */
void bucket_raise_most(const struct region *r, uint32_t row, uint64_t units);
/* The rule of give-back: what the units cost, less what has leaked since taken_ns. booked_ns: when
 * it was done. */
void bucket_row_give_back(const struct region *r, uint32_t row, uint64_t n, uint64_t taken_ns,
	uint64_t booked_ns, uint64_t now_ns);

/* bucket_kind.c: daemon only */
/* The row that bears the id, in use or else retired; or BUCKET_NONE. */
uint32_t bucket_find_any(const struct region *r, const struct bucket_id *id);
/*
 * A limit that counts in another way than before has another row. Before its key is published it
 * takes over what the old row owes; then both count, and by the new one nobody gets in until the
 * old one is retired and all that was taken by it is taken over, too. A daemon that dies in between
 * leaves both, and the next one goes on.
 */
struct bucket_kind_change {
	uint32_t from;               /* BUCKET_NONE: nothing to end */
	uint64_t pause_ns, until_ns; /* of the new row: before, and meanwhile */
};
void bucket_kind_begin(const struct region *r, struct bucket_kind_change *c,
	const struct bucket_limit *limit, uint32_t row, uint64_t now_ns);
void bucket_kind_end(
	const struct region *r, struct bucket_kind_change *c, uint32_t row, uint64_t now_ns);

/* Of a row that becomes another: not what it was. A time rises, so that it is none that somebody
 * read under an earlier name. */
static inline uint64_t tat_after(
	uint64_t tat, uint64_t from, uint64_t start_tat, enum bucket_kind to)
{
	if ((from == BUCKET_RATE || from == BUCKET_HELD) &&
		(to == BUCKET_RATE || to == BUCKET_HELD))
		return max_u64(start_tat, tat + 1);
	return start_tat != tat ? start_tat : tat - (tat > 0);
}
