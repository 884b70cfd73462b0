#include "shm/bucket_internal.h"

/*
 * The same limit counted in another way: tokens while they are in flight, or when they are
 * submitted. The kind is part of a row's key, so the limit gets another row, which takes over what
 * the one before owes.
 */

static bool is_in_use(const struct region *r, uint32_t row)
{
	return load_acquire(&r->bucket[row].key) >= LAYOUT_KEY_FIRST;
}

uint32_t bucket_find_any(const struct region *r, const struct bucket_id *id)
{
	uint64_t key = bucket_key(id);
	uint32_t row = (uint32_t)(key % r->buckets), retired = BUCKET_NONE;

	for (uint32_t i = 0; i < r->buckets; i++) {
		uint64_t found = load_acquire(&r->bucket[row].key);

		if (found == LAYOUT_KEY_NEVER)
			break;
		if (found == key && bucket_row_is(r, row, id))
			return row;
		if (found == LAYOUT_KEY_RETIRED && retired == BUCKET_NONE &&
			bucket_row_is(r, row, id))
			retired = row;
		row = row + 1 == r->buckets ? 0 : row + 1;
	}
	return retired;
}

/* A template never replaces what is configured. */
static uint32_t find_other(const struct region *r, const struct bucket_limit *limit)
{
	enum bucket_kind usual = bucket_kind_of(limit->resource, false);
	struct bucket_id id = { limit->scope, limit->resource,
		bucket_kind_of(limit->resource, limit->kind == usual), limit->name };
	uint32_t row = id.kind == limit->kind ? BUCKET_NONE : bucket_find_any(r, &id);

	if (row != BUCKET_NONE && limit->origin == BUCKET_ORIGIN_TEMPLATE && is_in_use(r, row) &&
		load(&r->bucket_name[row].origin) == BUCKET_ORIGIN_CONFIG)
		return BUCKET_NONE;
	return row;
}

/* Of a HELD. Read by a change of it: who took before is in it, and who takes after sees whatever
 * was said before, as that the row is retired. */
static uint64_t units_held(const struct region *r, uint32_t row)
{
	uint64_t held =
		(uint32_t)atomic_fetch_add_explicit(&r->bucket[row].held, 0, memory_order_acq_rel);

	if (held == BUCKET_HELD_CLOSED || load(&r->bucket_name[row].kind) != BUCKET_HELD)
		return 0;
	return held;
}

static uint64_t units_owed(const struct region *r, uint32_t row, uint64_t at_ns)
{
	uint64_t tat = load_acquire(&r->bucket[row].tat);
	uint64_t interval = load(&r->bucket[row].interval);

	if (interval < BUCKET_FRACTION || tat <= at_ns)
		return 0;
	return min_u64(units_of(tat - at_ns, interval), most_of(&r->bucket_name[row]));
}

/* Raises the debt of a row to all that another owes and has in flight, also above the burst. What
 * comes out of held is in tat before: held is read first, so it may count twice. The nanosecond is
 * that of retire(), which would cost a unit. */
static void inherit(const struct region *r, uint32_t row, uint32_t from, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[row];
	uint64_t at_ns = true_time(r, now_ns), owes = units_held(r, from), debt;

	owes += units_owed(r, from, at_ns + 1);
	owes -= min_u64(owes, units_held(r, row));
	debt = min_u64(cost_of(owes, load(&b->interval)), BUCKET_DEBT_MAX);
	if (debt > load(&b->tolerance))
		bucket_raise_most(r, row, owes);
	raise_to(&b->tat, at_ns + debt);
}

/* Nobody takes from it any more: who has read its tat before finds another. */
static void retire(const struct region *r, uint32_t row)
{
	struct layout_bucket *b = &r->bucket[row];
	uint64_t tat = load_acquire(&b->tat);

	store(&b->key, LAYOUT_KEY_RETIRED);
	for (int i = 0; i < BUCKET_TRIES_MAX; i++)
		if (swap(&b->tat, &tat, tat < BUCKET_TAT_MAX ? tat + 1 : BUCKET_TAT_MAX - 1))
			return;
}

/* What the other has taken over is not owed here any more; what is in flight is, as it settles.
 * Never a tat that somebody may have read before. */
static void forget_debt(const struct region *r, uint32_t row, uint64_t now_ns)
{
	uint64_t at_ns = true_time(r, now_ns), tat = load_acquire(&r->bucket[row].tat);

	if (tat > at_ns)
		swap(&r->bucket[row].tat, &tat, at_ns - 1);
}

void bucket_kind_begin(const struct region *r, struct bucket_kind_change *c,
	const struct bucket_limit *limit, uint32_t row, uint64_t now_ns)
{
	*c = (struct bucket_kind_change){ .from = find_other(r, limit) };
	if (c->from == BUCKET_NONE)
		return;
	inherit(r, row, c->from, now_ns);
	if (!is_in_use(r, c->from)) {
		forget_debt(r, c->from, now_ns);
		c->from = BUCKET_NONE;
		return;
	}
	c->pause_ns = load(&r->bucket[row].pause_ns);
	c->until_ns = true_time(r, now_ns) + BUCKET_WAIT_SLACK;
	raise_to(&r->bucket[row].pause_ns, c->until_ns);
}

void bucket_kind_end(
	const struct region *r, struct bucket_kind_change *c, uint32_t row, uint64_t now_ns)
{
	uint64_t until_ns = c->until_ns, pause_ns;

	if (c->from == BUCKET_NONE)
		return;
	retire(r, c->from);
	inherit(r, row, c->from, now_ns);
	forget_debt(r, c->from, now_ns);
	pause_ns = max_u64(c->pause_ns, load(&r->bucket[c->from].pause_ns));
	if (!swap(&r->bucket[row].pause_ns, &until_ns, pause_ns))
		raise_to(&r->bucket[row].pause_ns, pause_ns);
	bucket_wake(r, c->from);
}
