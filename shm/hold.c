#include "shm/hold.h"

#include "base/aux.h"
#include "shm/bucket.h"
#include "shm/layout.h"
#include "shm/participant.h"

/* A total: value:32 | hold:14 | sequence:18, from the low end. */
#define VALUE_BITS 32
#define VALUE_CLOSED UINT32_MAX
#define HOLD_BITS 14
#define HOLD_MASK ((1u << HOLD_BITS) - 1)
#define SEQUENCE_BITS 18
#define SEQUENCE_MASK ((UINT64_C(1) << SEQUENCE_BITS) - 1)
/* Writes totals, but has no row: the daemon that opens or mends one. */
#define WRITER_NOBODY HOLD_MASK

/* An operation: number:36 | total:22 | entry:4 | state:2, from the low end. */
#define NUMBER_BITS 36
#define NUMBER_MASK ((UINT64_C(1) << NUMBER_BITS) - 1)
#define TOTAL_BITS 22
#define TOTAL_MASK ((1u << TOTAL_BITS) - 1)
#define ENTRY_SHIFT (NUMBER_BITS + TOTAL_BITS)
#define ENTRY_MASK 15u
#define STATE_SHIFT 62
#define STATE_IDLE UINT64_C(0)
#define STATE_PENDING UINT64_C(1)
#define STATE_DONE UINT64_C(2)

#define UNITS_SHIFT 32 /* of an entry */
#define OWNER_ROW_BITS 16
#define MONEY_UNIT 4096 /* nano-USD that one unit in flight stands for */

/* A CAS that fails means that another process got on; so many in a row means a broken word. */
#define TRIES_MAX 1024

static_assert(VALUE_BITS + HOLD_BITS + SEQUENCE_BITS == 64, "total");
static_assert(ENTRY_SHIFT + 4 == STATE_SHIFT, "operation");
static_assert(LAYOUT_HOLD_ENTRIES == HOLD_ENTRIES && HOLD_ENTRIES <= ENTRY_MASK, "entries");
static_assert(REGION_HOLDS_MAX <= HOLD_MASK + 1, "total.hold");

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static void store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

static bool swap(shared_u64 *word, uint64_t from, uint64_t to)
{
	return atomic_compare_exchange_strong_explicit(
		word, &from, to, memory_order_acq_rel, memory_order_relaxed);
}

/* ---- words ---- */

static uint64_t total_make(uint32_t value, uint32_t writer, uint64_t number)
{
	return value | (uint64_t)writer << VALUE_BITS |
		(number & SEQUENCE_MASK) << (VALUE_BITS + HOLD_BITS);
}

static uint32_t total_value(uint64_t word)
{
	return (uint32_t)word;
}

static uint32_t total_writer(uint64_t word)
{
	return (uint32_t)(word >> VALUE_BITS) & HOLD_MASK;
}

static uint64_t total_sequence(uint64_t word)
{
	return word >> (VALUE_BITS + HOLD_BITS);
}

static bool total_names(uint64_t word, uint32_t hold, uint64_t number)
{
	return total_writer(word) == hold && total_sequence(word) == (number & SEQUENCE_MASK);
}

static uint64_t op_pending(uint64_t number, uint32_t total, uint32_t entry)
{
	return number | (uint64_t)total << NUMBER_BITS | (uint64_t)entry << ENTRY_SHIFT |
		STATE_PENDING << STATE_SHIFT;
}

static uint64_t op_number(uint64_t op)
{
	return op & NUMBER_MASK;
}

static uint32_t op_total(uint64_t op)
{
	return (uint32_t)(op >> NUMBER_BITS) & TOTAL_MASK;
}

static uint32_t op_entry(uint64_t op)
{
	return (uint32_t)(op >> ENTRY_SHIFT) & ENTRY_MASK;
}

static uint64_t op_state(uint64_t op)
{
	return op >> STATE_SHIFT;
}

static uint64_t entry_make(uint32_t total, uint32_t units)
{
	return units == 0 ? 0 : total | (uint64_t)units << UNITS_SHIFT;
}

static uint32_t entry_total(uint64_t entry)
{
	return (uint32_t)entry & TOTAL_MASK;
}

static uint32_t entry_units(uint64_t entry)
{
	return (uint32_t)(entry >> UNITS_SHIFT);
}

/* One row number is nobody's, so the last row of the largest table is not used. */
static uint32_t rows_of(const struct region *r)
{
	return (uint32_t)min_u64(r->holds, WRITER_NOBODY);
}

/* NULL: nonsense. */
static shared_u64 *total_word(const struct region *r, uint32_t total)
{
	uint32_t row;

	if (total >= LAYOUT_TOTAL_TARGET) {
		row = total - (uint32_t)LAYOUT_TOTAL_TARGET;
		return row < r->targets ? &r->target[row].pending : NULL;
	}
	row = total - 1;
	return total != 0 && row < r->buckets ? &r->bucket[row].held : NULL;
}

uint32_t hold_total_units(uint64_t word, bool *closed)
{
	*closed = total_value(word) == VALUE_CLOSED;
	return total_value(word);
}

/* ---- owner ---- */

uint64_t hold_owner(uint32_t participant, uint64_t generation)
{
	if (participant >> OWNER_ROW_BITS)
		return 0;
	return participant | generation << OWNER_ROW_BITS;
}

static bool is_owned(const struct region *r, uint32_t hold, uint64_t owner)
{
	return hold < rows_of(r) && owner != 0 && load(&r->hold[hold].owner) == owner;
}

/* Nothing is left in a hold that is released; what is, nobody knows of. */
static void clean(struct layout_hold *h)
{
	uint64_t op = load(&h->op);

	if (op_state(op) != STATE_IDLE)
		store(&h->op, op_number(op));
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++)
		if (load(&h->entry[i]) != 0)
			store(&h->entry[i], 0);
}

uint32_t hold_claim(const struct region *r, uint64_t owner, uint32_t hint, uint64_t now_ns)
{
	uint32_t rows = rows_of(r), at = hint < rows ? hint : 0;

	if (owner == 0)
		return HOLD_NONE;
	for (uint32_t i = 0; i < rows; i++) {
		struct layout_hold *h = &r->hold[at];

		if (load(&h->owner) == 0 && swap(&h->owner, 0, owner)) {
			store(&h->taken_ns, now_ns);
			clean(h);
			return at;
		}
		at = at + 1 == rows ? 0 : at + 1;
	}
	return HOLD_NONE;
}

void hold_release(const struct region *r, uint32_t hold, uint64_t owner)
{
	if (is_owned(r, hold, owner))
		store(&r->hold[hold].owner, 0);
}

/* ---- moving a total ---- */

/*
 * Before the operation that word names is overwritten, its hold is told that it is done; a dead
 * hold could not tell otherwise. false: the total moved meanwhile. It is read again so that the
 * operation found is the one named: a hold does not use a number for a total that already names it.
 */
static bool acknowledge(
	const struct region *r, const shared_u64 *word, uint32_t total, uint64_t seen)
{
	uint32_t writer = total_writer(seen);
	uint64_t op;

	if (writer >= rows_of(r))
		return true;
	op = load(&r->hold[writer].op);
	if (op_state(op) != STATE_PENDING || op_total(op) != total ||
		!total_names(seen, writer, op_number(op)))
		return true;
	if (load(word) != seen)
		return false;
	/* If it fails, the hold itself went on: it knows. */
	swap(&r->hold[writer].op, op,
		(op & ~(STATE_PENDING << STATE_SHIFT)) | STATE_DONE << STATE_SHIFT);
	return true;
}

/* Ends an operation that its thread did not: the entry becomes what the total already says. op is
 * read after the total, because who overwrites a total marks op first. */
static void resolve(const struct region *r, uint32_t hold)
{
	struct layout_hold *h = &r->hold[hold];
	uint64_t op = load(&h->op);
	const shared_u64 *word = total_word(r, op_total(op));
	uint32_t entry = op_entry(op);

	if (op_state(op) == STATE_IDLE)
		return;
	if (word && entry < LAYOUT_HOLD_ENTRIES &&
		(total_names(load(word), hold, op_number(op)) ||
			op_state(load(&h->op)) == STATE_DONE))
		store(&h->entry[entry], entry_make(op_total(op), (uint32_t)load(&h->op_value)));
	store(&h->op, op_number(op));
}

struct move {
	shared_u64 *word;
	uint32_t total, entry;
	uint32_t units; /* of the entry, after it */
	int64_t by;
	bool always; /* below 0 is 0: there was less than is given back, so the word was broken */
};

/* The entry of a total, or a free one. false: none has room. */
static bool find_entry(const struct layout_hold *h, struct move *m)
{
	int64_t units = 0;
	uint32_t at = LAYOUT_HOLD_ENTRIES;

	for (uint32_t i = 0; i < LAYOUT_HOLD_ENTRIES; i++) {
		uint64_t entry = load(&h->entry[i]);

		if (entry_total(entry) == m->total) {
			at = i;
			units = entry_units(entry);
			break;
		}
		if (entry == 0 && at == LAYOUT_HOLD_ENTRIES)
			at = i;
	}
	units += m->by;
	m->entry = at;
	m->units = (uint32_t)units;
	return at < LAYOUT_HOLD_ENTRIES && units >= 0 && units < VALUE_CLOSED;
}

static bool next_value(const struct move *m, uint64_t seen, uint32_t *value)
{
	int64_t next = total_value(seen) + m->by;

	if (next < 0 && m->always)
		next = 0;
	*value = (uint32_t)next;
	return next >= 0 && next < VALUE_CLOSED;
}

/* One try; false: the total is not as seen any more. A number is used once, also when it fails. */
static bool try_move(
	const struct region *r, uint32_t hold, const struct move *m, uint64_t seen, uint32_t value)
{
	struct layout_hold *h = &r->hold[hold];
	uint64_t number = (op_number(load(&h->op)) + 1) & NUMBER_MASK;
	bool moved;

	if (total_writer(seen) != hold) {
		if (!acknowledge(r, m->word, m->total, seen))
			return false;
	} else if (total_names(seen, hold, number)) {
		/* Else a death before the swap would look like one after it. */
		number = (number + 1) & NUMBER_MASK;
	}
	store(&h->op_value, m->units);
	store(&h->op, op_pending(number, m->total, m->entry));
	moved = swap(m->word, seen, total_make(value, hold, number));
	if (moved)
		store(&h->entry[m->entry], entry_make(m->total, m->units));
	store(&h->op, number);
	return moved;
}

enum hold_outcome hold_move(const struct region *r, uint32_t hold, uint64_t owner, uint32_t total,
	uint32_t add, uint32_t sub, const uint64_t *expected)
{
	struct move m = { .total = total, .by = (int64_t)add - sub, .always = !expected };
	struct layout_hold *h;

	m.word = total_word(r, total);
	if (!is_owned(r, hold, owner) || !m.word)
		return HOLD_E_LOST;
	h = &r->hold[hold];
	if (op_state(load(&h->op)) != STATE_IDLE)
		resolve(r, hold);
	if (!find_entry(h, &m))
		return HOLD_E_FULL;
	for (int i = 0; i < TRIES_MAX; i++) {
		uint64_t seen = load(m.word);
		uint32_t value;

		if (total_value(seen) == VALUE_CLOSED) {
			/* Closed when nothing was in it: what is given back is in no total. */
			if (m.by < 0)
				store(&h->entry[m.entry], entry_make(total, m.units));
			return HOLD_E_CLOSED;
		}
		if (expected && seen != *expected)
			return HOLD_E_MOVED;
		if (!next_value(&m, seen, &value))
			return HOLD_E_FULL;
		if (try_move(r, hold, &m, seen, value))
			return HOLD_OK;
	}
	return HOLD_E_MOVED;
}

uint32_t hold_units(const struct region *r, uint32_t hold, uint32_t total)
{
	if (hold >= rows_of(r) || total == 0)
		return 0;
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++) {
		uint64_t entry = load(&r->hold[hold].entry[i]);

		if (entry_total(entry) == total)
			return entry_units(entry);
	}
	return 0;
}

/* ---- the daemon's own moves ---- */

/* Differs from what was here lately, so that no expected word fits by chance. */
static uint64_t nobodys_word(const struct region *r, uint32_t value, uint64_t seen)
{
	return total_make(
		value, WRITER_NOBODY, total_sequence(seen) + 1 + (r->clock_ns() / NSEC_PER_USEC));
}

bool hold_close(struct region *r, uint32_t row)
{
	shared_u64 *word = total_word(r, HOLD_TOTAL_BUCKET(row));
	uint64_t seen = word ? load(word) : 0;

	if (!word)
		return false;
	if (total_value(seen) == VALUE_CLOSED)
		return true;
	/* It goes on to name who wrote it last, so nobody need be told. */
	return total_value(seen) == 0 && swap(word, seen, seen | VALUE_CLOSED);
}

void hold_open(struct region *r, uint32_t row)
{
	shared_u64 *word = total_word(r, HOLD_TOTAL_BUCKET(row));
	uint64_t seen = word ? load(word) : 0;

	/* A closed total is nobody's but the daemon's, so this needs no second try. */
	if (word && total_value(seen) == VALUE_CLOSED &&
		acknowledge(r, word, HOLD_TOTAL_BUCKET(row), seen))
		swap(word, seen, nobodys_word(r, 0, seen));
}

/* ---- reaping ---- */

/* What was in flight may have been spent. */
static void charge(const struct region *r, uint32_t total, uint32_t units, uint64_t now_ns)
{
	uint32_t row = total - 1;
	uint64_t kind;

	if (total >= LAYOUT_TOTAL_TARGET)
		return;
	kind = load(&r->bucket_name[row].kind);
	if (kind == BUCKET_HELD)
		bucket_charge(r, row, units, now_ns);
	else if (kind == BUCKET_WINDOW)
		bucket_charge(r, row, (uint64_t)units * MONEY_UNIT, now_ns);
}

/* Debt first: a death in between counts twice, never not at all. false: try again later. */
static bool reap_entry(
	const struct region *r, uint32_t hold, uint64_t owner, uint32_t i, uint64_t now_ns)
{
	shared_u64 *word = &r->hold[hold].entry[i];
	uint64_t entry = load(word);
	uint32_t total = entry_total(entry), units = entry_units(entry);
	enum hold_outcome outcome;

	if (entry == 0)
		return true;
	if (total_word(r, total)) {
		charge(r, total, units, now_ns);
		outcome = hold_move(r, hold, owner, total, 0, units, NULL);
		if (outcome == HOLD_E_MOVED)
			return false;
		if (total < LAYOUT_TOTAL_TARGET)
			bucket_wake(r, total - 1);
	}
	store(word, 0);
	return true;
}

static bool reap_hold(const struct region *r, uint32_t hold, uint64_t owner, uint64_t now_ns)
{
	resolve(r, hold);
	for (uint32_t i = 0; i < LAYOUT_HOLD_ENTRIES; i++)
		if (!reap_entry(r, hold, owner, i, now_ns))
			return false;
	store(&r->hold[hold].owner, 0);
	return true;
}

uint32_t hold_reap(struct region *r, uint64_t owner, uint64_t now_ns)
{
	uint32_t freed = 0;

	if (owner == 0)
		return 0;
	for (uint32_t i = 0; i < rows_of(r); i++)
		if (load(&r->hold[i].owner) == owner)
			freed += reap_hold(r, i, owner, now_ns);
	return freed;
}

uint32_t hold_reap_strays(struct region *r, uint64_t now_ns)
{
	uint32_t freed = 0;

	for (uint32_t i = 0; i < rows_of(r); i++) {
		uint64_t owner = load(&r->hold[i].owner);
		uint32_t row = (uint32_t)owner & ((1u << OWNER_ROW_BITS) - 1);

		if (owner != 0 && owner != participant_owner(r, row))
			freed += reap_hold(r, i, owner, now_ns);
	}
	return freed;
}

/* ---- audit ---- */

/* What the holds say of one total. */
struct sum {
	uint64_t before; /* its word */
	uint64_t units;
	bool moving;
};

static struct sum *sum_of(const struct region *r, struct sum *sums, uint32_t total)
{
	if (!total_word(r, total))
		return NULL;
	return total < LAYOUT_TOTAL_TARGET ?
		&sums[total - 1] :
		&sums[r->buckets + (total - (uint32_t)LAYOUT_TOTAL_TARGET)];
}

/* op is read before the entries: if it is idle, they are as the totals said before. */
static void add_up(const struct region *r, const struct layout_hold *h, struct sum *sums)
{
	struct sum *sum;
	uint64_t op;

	if (load(&h->owner) == 0)
		return;
	op = load(&h->op);
	if (op_state(op) != STATE_IDLE && (sum = sum_of(r, sums, op_total(op))))
		sum->moving = true;
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++) {
		uint64_t entry = load(&h->entry[i]);

		if (entry != 0 && (sum = sum_of(r, sums, entry_total(entry))))
			sum->units += entry_units(entry);
	}
}

/* The swap fails if the total moved since before the holds were read. */
static bool mend(const struct region *r, uint32_t total, struct sum *sums)
{
	const struct sum *sum = sum_of(r, sums, total);
	uint32_t value = total_value(sum->before);

	if (sum->moving || value == VALUE_CLOSED || value == sum->units ||
		sum->units >= VALUE_CLOSED)
		return false;
	return swap(total_word(r, total), sum->before,
		nobodys_word(r, (uint32_t)sum->units, sum->before));
}

uint32_t hold_audit(struct region *r)
{
	aux_cleanup(freep) struct sum *sums =
		calloc((size_t)r->buckets + r->targets, sizeof(*sums));
	uint32_t mended = 0;

	if (!sums)
		return 0;
	for (uint32_t i = 0; i < r->buckets; i++)
		sums[i].before = load(&r->bucket[i].held);
	for (uint32_t i = 0; i < r->targets; i++)
		sums[r->buckets + i].before = load(&r->target[i].pending);
	for (uint32_t i = 0; i < rows_of(r); i++)
		add_up(r, &r->hold[i], sums);
	for (uint32_t i = 0; i < r->buckets; i++)
		mended += mend(r, HOLD_TOTAL_BUCKET(i), sums);
	for (uint32_t i = 0; i < r->targets; i++)
		mended += mend(r, HOLD_TOTAL_TARGET(i), sums);
	return mended;
}

/* ---- view ---- */

bool hold_view(const struct region *r, uint32_t hold, struct hold_view *out)
{
	const struct layout_hold *h;
	uint64_t owner;

	if (hold >= rows_of(r))
		return false;
	h = &r->hold[hold];
	owner = load(&h->owner);
	if (owner == 0)
		return false;
	*out = (struct hold_view){
		.participant = (uint32_t)owner & ((1u << OWNER_ROW_BITS) - 1),
		.generation = owner >> OWNER_ROW_BITS,
		.taken_ns = load(&h->taken_ns),
		.pending = op_state(load(&h->op)) != STATE_IDLE,
	};
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++) {
		uint64_t entry = load(&h->entry[i]);

		if (entry == 0)
			continue;
		out->entry[out->count].total = entry_total(entry);
		out->entry[out->count++].units = entry_units(entry);
	}
	return true;
}
