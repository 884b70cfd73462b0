#include "shm/hold.h"

#include "base/aux.h"
#include "shm/bucket.h"
#include "shm/hold_internal.h"
#include "shm/layout.h"
#include "shm/participant.h"

#define OWNER_ROW_BITS 16
#define MONEY_UNIT 4096 /* nano-USD that one unit in flight stands for */

/* A CAS that fails means that another process got on; so many in a row means a broken word. */
#define TRIES_MAX 1024

static uint64_t load(const shared_u64 *word)
{
	return hold_load(word);
}

static void store(shared_u64 *word, uint64_t value)
{
	hold_store(word, value);
}

static bool swap(shared_u64 *word, uint64_t from, uint64_t to)
{
	return hold_swap(word, from, to);
}

static uint32_t op_total(uint64_t op)
{
	return (uint32_t)(op >> HOLD_NUMBER_BITS) & HOLD_TOTAL_MASK;
}

static uint32_t op_entry(uint64_t op)
{
	return (uint32_t)(op >> HOLD_ENTRY_SHIFT) & HOLD_ENTRY_MASK;
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
	*closed = hold_total_value(word) == HOLD_VALUE_CLOSED;
	return hold_total_value(word);
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
	return hold < hold_rows(r) && owner != 0 && load(&r->hold[hold].owner) == owner;
}

/* Nothing is left in a hold that is released; what is, nobody knows of. */
static __attribute__((noinline)) void clean(struct layout_hold *h)
{
	store(&h->op, hold_op_number(load(&h->op)));
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++)
		if (load(&h->entry[i]) != 0)
			store(&h->entry[i], 0);
}

static inline bool is_clean(const struct layout_hold *h)
{
	uint64_t left = hold_op_state(load(&h->op));

#pragma GCC unroll 12
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++)
		left |= load(&h->entry[i]);
	return left == 0;
}

uint32_t hold_claim(const struct region *r, uint64_t owner, uint32_t hint, uint64_t now_ns)
{
	uint32_t rows = hold_rows(r), at = hint < rows ? hint : 0;

	if (owner == 0)
		return HOLD_NONE;
	for (uint32_t i = 0; i < rows; i++) {
		struct layout_hold *h = &r->hold[at];

		if (load(&h->owner) == 0 && swap(&h->owner, 0, owner)) {
			store(&h->taken_ns, now_ns);
			if (aux_unlikely(!is_clean(h)))
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

/* The total is read again so that the operation found is the one named: a hold does not use a
 * number for a total that already names it. */
bool hold_acknowledge(const struct region *r, const shared_u64 *word, uint32_t total, uint64_t seen,
	uint64_t writer_op)
{
	uint32_t writer = hold_total_writer(seen);

	if (op_total(writer_op) != total ||
		!hold_total_names(seen, writer, hold_op_number(writer_op)))
		return true;
	if (load(word) != seen)
		return false;
	/* If it fails, the hold itself went on: it knows. */
	swap(&r->hold[writer].op, writer_op,
		(writer_op & ~(HOLD_PENDING << HOLD_STATE_SHIFT)) | HOLD_DONE << HOLD_STATE_SHIFT);
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

	if (hold_op_state(op) == HOLD_IDLE)
		return;
	if (word && entry < LAYOUT_HOLD_ENTRIES &&
		(hold_total_names(load(word), hold, hold_op_number(op)) ||
			hold_op_state(load(&h->op)) == HOLD_DONE))
		store(&h->entry[entry],
			hold_entry_make(op_total(op), (uint32_t)load(&h->op_value)));
	store(&h->op, hold_op_number(op));
}

struct move {
	struct hold_change to;
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

		if (hold_entry_total(entry) == m->to.total) {
			at = i;
			units = hold_entry_units(entry);
			break;
		}
		if (entry == 0 && at == LAYOUT_HOLD_ENTRIES)
			at = i;
	}
	units += m->by;
	m->to.entry = at;
	m->to.units = (uint32_t)units;
	return at < LAYOUT_HOLD_ENTRIES && units >= 0 && units < HOLD_VALUE_CLOSED;
}

static bool next_value(struct move *m, uint64_t seen)
{
	int64_t next = hold_total_value(seen) + m->by;

	if (next < 0 && m->always)
		next = 0;
	m->to.value = (uint32_t)next;
	return next >= 0 && next < HOLD_VALUE_CLOSED;
}

enum hold_outcome hold_move(const struct region *r, uint32_t hold, uint64_t owner, uint32_t total,
	uint32_t add, uint32_t sub, const uint64_t *expected)
{
	struct move m = { .to.total = total, .by = (int64_t)add - sub, .always = !expected };
	struct layout_hold *h;

	m.to.word = total_word(r, total);
	if (!is_owned(r, hold, owner) || !m.to.word)
		return HOLD_E_LOST;
	h = &r->hold[hold];
	if (hold_op_state(load(&h->op)) != HOLD_IDLE)
		resolve(r, hold);
	if (!find_entry(h, &m))
		return HOLD_E_FULL;
	for (int i = 0; i < TRIES_MAX; i++) {
		uint64_t seen = load(m.to.word);

		if (hold_total_value(seen) == HOLD_VALUE_CLOSED) {
			/* Closed when nothing was in it: what is given back is in no total. */
			if (m.by < 0)
				store(&h->entry[m.to.entry], hold_entry_make(total, m.to.units));
			return HOLD_E_CLOSED;
		}
		if (expected && seen != *expected)
			return HOLD_E_MOVED;
		if (!next_value(&m, seen))
			return HOLD_E_FULL;
		if (hold_try(r, hold, &m.to, seen))
			return HOLD_OK;
	}
	return HOLD_E_MOVED;
}

uint32_t hold_units(const struct region *r, uint32_t hold, uint32_t total)
{
	if (hold >= hold_rows(r) || total == 0)
		return 0;
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++) {
		uint64_t entry = load(&r->hold[hold].entry[i]);

		if (hold_entry_total(entry) == total)
			return hold_entry_units(entry);
	}
	return 0;
}

/* ---- the daemon's own moves ---- */

/* Differs from what was here lately, so that no expected word fits by chance. */
static uint64_t nobodys_word(const struct region *r, uint32_t value, uint64_t seen)
{
	return hold_total_make(value, HOLD_WRITER_NOBODY,
		hold_total_sequence(seen) + 1 + (r->clock_ns() / NSEC_PER_USEC));
}

bool hold_close(struct region *r, uint32_t row)
{
	shared_u64 *word = total_word(r, HOLD_TOTAL_BUCKET(row));
	uint64_t seen = word ? load(word) : 0;

	if (!word)
		return false;
	if (hold_total_value(seen) == HOLD_VALUE_CLOSED)
		return true;
	/* It goes on to name who wrote it last, so nobody need be told. */
	return hold_total_value(seen) == 0 && swap(word, seen, seen | HOLD_VALUE_CLOSED);
}

void hold_open(struct region *r, uint32_t row)
{
	shared_u64 *word = total_word(r, HOLD_TOTAL_BUCKET(row));
	uint64_t seen = word ? load(word) : 0, op;

	if (!word || hold_total_value(seen) != HOLD_VALUE_CLOSED)
		return;
	op = hold_total_writer(seen) < hold_rows(r) ? load(&r->hold[hold_total_writer(seen)].op) :
						      0;
	/* A closed total is nobody's but the daemon's, so this needs no second try. */
	if (hold_op_state(op) != HOLD_PENDING ||
		hold_acknowledge(r, word, HOLD_TOTAL_BUCKET(row), seen, op))
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
	uint32_t total = hold_entry_total(entry), units = hold_entry_units(entry);
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
	for (uint32_t i = 0; i < hold_rows(r); i++)
		if (load(&r->hold[i].owner) == owner)
			freed += reap_hold(r, i, owner, now_ns);
	return freed;
}

uint32_t hold_reap_strays(struct region *r, uint64_t now_ns)
{
	uint32_t freed = 0;

	for (uint32_t i = 0; i < hold_rows(r); i++) {
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
	if (hold_op_state(op) != HOLD_IDLE && (sum = sum_of(r, sums, op_total(op))))
		sum->moving = true;
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++) {
		uint64_t entry = load(&h->entry[i]);

		if (entry != 0 && (sum = sum_of(r, sums, hold_entry_total(entry))))
			sum->units += hold_entry_units(entry);
	}
}

/* The swap fails if the total moved since before the holds were read. */
static bool mend(const struct region *r, uint32_t total, struct sum *sums)
{
	const struct sum *sum = sum_of(r, sums, total);
	uint32_t value = hold_total_value(sum->before);

	if (sum->moving || value == HOLD_VALUE_CLOSED || value == sum->units ||
		sum->units >= HOLD_VALUE_CLOSED)
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
	for (uint32_t i = 0; i < hold_rows(r); i++)
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

	if (hold >= hold_rows(r))
		return false;
	h = &r->hold[hold];
	owner = load(&h->owner);
	if (owner == 0)
		return false;
	*out = (struct hold_view){
		.participant = (uint32_t)owner & ((1u << OWNER_ROW_BITS) - 1),
		.generation = owner >> OWNER_ROW_BITS,
		.taken_ns = load(&h->taken_ns),
		.pending = hold_op_state(load(&h->op)) != HOLD_IDLE,
	};
	for (unsigned i = 0; i < LAYOUT_HOLD_ENTRIES; i++) {
		uint64_t entry = load(&h->entry[i]);

		if (entry == 0)
			continue;
		out->entry[out->count].total = hold_entry_total(entry);
		out->entry[out->count++].units = hold_entry_units(entry);
	}
	return true;
}
