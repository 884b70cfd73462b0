#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "shm/bucket_internal.h"
#include "shm/event.h"
#include "shm/hold_internal.h"

#define HEARD_TIMES 3
#define HEARD_BITS 56
#define HEARD_MAX ((UINT64_C(1) << HEARD_BITS) - 1)

/* ---- debt ---- */

/* The daemon lowers it, when it counts the debt; others only raise it. */
void bucket_raise_most(const struct region *r, uint32_t row, uint64_t units)
{
	shared_u64 *most = &r->bucket_name[row].most;
	uint64_t seen = load(most);

	units = min_u64(units, BUCKET_UNITS_MAX);
	for (int i = 0; i < BUCKET_TRIES_MAX && seen < units; i++)
		if (swap(most, &seen, units))
			return;
}

/* tat rises by the cost of what was used, whatever the limit. */
static void charge_debt(const struct region *r, uint32_t row, uint64_t units, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[row];
	uint64_t tat = load_acquire(&b->tat);

	for (int i = 0; i < BUCKET_TRIES_MAX && tat < BUCKET_TAT_MAX; i++) {
		uint64_t interval = load_acquire(&b->interval), base = max_u64(tat, now_ns);
		uint64_t cost = min_u64(cost_of(units, interval), BUCKET_DEBT_MAX);
		uint64_t next = min_u64(base + cost, BUCKET_TAT_MAX);

		/* A debt above the burst would look like a broken word. */
		if (next - now_ns > load(&b->tolerance))
			bucket_raise_most(r, row, units_of(next - now_ns, interval));
		if (swap(&b->tat, &tat, next))
			return;
	}
}

/* For the window that is to begin: the daemon forgets what is in tat when it does. */
static void charge_late(struct layout_bucket_name *n, uint64_t nanousd)
{
	uint64_t seen = load_acquire(&n->late);

	for (int i = 0; i < BUCKET_TRIES_MAX && seen < BUCKET_USED_MAX; i++)
		if (swap(&n->late, &seen, seen + min_u64(nanousd, BUCKET_USED_MAX - seen)))
			return;
}

/* The end is read after tat, which is another where the next window has begun meanwhile. */
static void charge_window(const struct region *r, uint32_t row, uint64_t nanousd, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[row];
	uint64_t seen = load_acquire(&b->tat);

	for (int i = 0; i < BUCKET_TRIES_MAX; i++) {
		uint64_t used = seen & BUCKET_USED_MAX, end_ns = load_acquire(&b->interval);
		uint64_t next = used + min_u64(nanousd, BUCKET_USED_MAX - used);

		if (now_ns >= end_ns) {
			charge_late(&r->bucket_name[row], nanousd);
			return;
		}
		if (swap(&b->tat, &seen, (seen & ~BUCKET_USED_MAX) | next))
			return;
	}
}

static void charge(
	const struct region *r, uint32_t row, uint64_t kind, uint64_t units, uint64_t now_ns)
{
	if (kind == BUCKET_GAUGE || units == 0)
		return;
	if (kind == BUCKET_WINDOW)
		charge_window(r, row, units, now_ns);
	else
		charge_debt(r, row, units, now_ns);
}

void bucket_charge(const struct region *r, uint32_t row, uint64_t units, uint64_t now_ns)
{
	if (row < r->buckets)
		charge(r, row, load(&r->bucket_name[row].kind), units, now_ns);
}

/* The rule of give-back: what the units cost, less what has leaked since. Taking off more, or
 * taking off down to now, admits too much. Where somebody booked ahead, what has leaked by then is
 * in his place in the queue, so it does not come back; who books says so before tat does.
 * changed_ns is loaded last: who sees anything of a change sees that it goes on, or that it came
 * after the units were taken. */
void bucket_row_give_back(const struct region *r, uint32_t row, uint64_t n, uint64_t taken_ns,
	uint64_t booked_ns, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[row];

	for (int i = 0; i < BUCKET_TRIES_MAX; i++) {
		uint64_t tat = load_acquire(&b->tat);
		uint64_t interval = load_acquire(&b->interval);
		uint64_t at_ns = max_u64(now_ns, load_acquire(&r->bucket_name[row].ahead_ns));
		uint64_t cost = cost_of(n, interval), back;

		if (at_ns < taken_ns || load(&r->bucket_name[row].changed_ns) >= booked_ns ||
			cost <= at_ns - taken_ns)
			return;
		back = cost - (at_ns - taken_ns);
		if (swap(&b->tat, &tat, tat > back ? tat - back : 0))
			return;
	}
}

void bucket_give_back(const struct region *r, const struct bucket_set *set, uint64_t n,
	uint64_t taken_ns, uint64_t now_ns)
{
	for (uint32_t i = (uint32_t)min_u64(set->count, BUCKET_SET_MAX); i-- > 0;) {
		uint32_t row = set->index[i];

		if (row < r->buckets && set->resource[i] == BUCKET_REQUESTS &&
			load(&r->bucket[row].key) == set->key[i])
			bucket_row_give_back(r, row, n, taken_ns, taken_ns, now_ns);
	}
}

/* ---- settling ---- */

struct settling {
	const struct region *r;
	struct bucket_lease *lease;
	struct bucket_units used, left; /* left: of the cost, before this settlement */
	uint64_t now_ns;
	uint32_t entry; /* of the hold, for the next total of the set */
	bool ours;      /* the hold is: else its reaper has charged all that it held */
	bool end;
};

ALWAYS_INLINE void settling_init(struct settling *s, const struct region *r,
	struct bucket_lease *lease, const struct bucket_cost *used, uint64_t now_ns)
{
	s->r = r;
	s->lease = lease;
	units_ask(&s->used, used);
	units_ask(&s->left, &lease->cost);
	s->left.of[BUCKET_TOKENS] = lease->tokens;
	s->now_ns = now_ns;
	s->entry = 0;
	s->ours = lease->hold < hold_rows(r) &&
		load_acquire(&r->hold[lease->hold].owner) == lease->owner;
	s->end = false;
}

/* Neither the caller's nor retired: another limit's, which owes nothing for this. */
static bool row_is_anothers(const struct settling *s, uint32_t i)
{
	uint64_t key = load_acquire(&s->r->bucket[s->lease->set->index[i]].key);

	return key != s->lease->set->key[i] && key >= LAYOUT_KEY_FIRST;
}

/* Units to give back of those in flight. */
static uint32_t units_over(
	const struct settling *s, uint32_t held, uint64_t kind, uint64_t used, uint64_t left)
{
	uint64_t keep = 0;

	if (s->end)
		return held;
	if (kind == BUCKET_GAUGE)
		return 0;
	if (kind == BUCKET_HELD)
		return (uint32_t)min_u64(held, used);
	keep = quanta_of(left > used ? left - used : 0);
	return held > keep ? (uint32_t)(held - keep) : 0;
}

/* Of the row in the hold, and in which entry. It is where bucket_lease() put it, unless others use
 * the entry too. */
static inline uint32_t units_held(const struct settling *s, uint32_t row, uint32_t *entry)
{
	uint32_t total = HOLD_TOTAL_BUCKET(row);
	uint64_t word = 0;

	if (aux_likely(*entry < LAYOUT_HOLD_ENTRIES))
		word = hold_load(&s->r->hold[s->lease->hold].entry[*entry]);
	if (aux_likely(hold_entry_total(word) == total))
		return hold_entry_units(word);
	*entry = LAYOUT_HOLD_ENTRIES;
	return hold_units(s->r, s->lease->hold, total);
}

/* One try where nothing is unusual. */
static inline bool return_at_once(
	const struct settling *s, uint32_t row, uint32_t entry, uint32_t held, uint32_t over)
{
	const struct layout_hold *h = &s->r->hold[s->lease->hold];
	struct hold_change to = { .word = &s->r->bucket[row].held,
		.total = HOLD_TOTAL_BUCKET(row),
		.entry = entry,
		.units = held - over };
	uint64_t seen = hold_load(to.word);

	if (aux_unlikely(entry >= LAYOUT_HOLD_ENTRIES || hold_total_value(seen) < over ||
		    hold_total_value(seen) == HOLD_VALUE_CLOSED ||
		    hold_op_state(hold_load(&h->op)) != HOLD_IDLE))
		return false;
	to.value = hold_total_value(seen) - over;
	return hold_try(s->r, s->lease->hold, &to, seen);
}

static inline void return_units(
	const struct settling *s, uint32_t row, uint32_t entry, uint32_t held, uint32_t over)
{
	if (aux_unlikely(!return_at_once(s, row, entry, held, over)))
		hold_move(s->r, s->lease->hold, s->lease->owner, HOLD_TOTAL_BUCKET(row), 0, over,
			NULL);
	bucket_wake_any(s->r, row);
}

/* The debt rises before what is in flight falls: in between it counts twice, never not at all. */
static inline void settle_level(struct settling *s, uint32_t i)
{
	const struct bucket_set *set = s->lease->set;
	uint32_t row = set->index[i], entry = s->entry, held = 0, over;
	uint64_t used = s->used.of[set->resource[i] % ARRAY_SIZE(s->used.of)];
	uint64_t left = s->left.of[set->resource[i] % ARRAY_SIZE(s->left.of)];
	uint64_t kind = set->kind[i], due = used;

	s->entry += kind != BUCKET_RATE;
	if (row >= s->r->buckets)
		return;
	if (kind != BUCKET_RATE && s->ours)
		held = units_held(s, row, &entry);
	/* A RATE was charged when it was taken, and a lost hold by its reaper. */
	if (kind == BUCKET_RATE || !s->ours)
		due = used > left ? used - left : 0;
	if (due > 0 && (held > 0 || !row_is_anothers(s, i)))
		charge(s->r, row, kind, due, s->now_ns);
	if (kind == BUCKET_RATE)
		return;
	if (kind != BUCKET_GAUGE && used > 0 && !row_is_anothers(s, i))
		atomic_fetch_add_explicit(&s->r->bucket[row].admitted, used, memory_order_relaxed);
	over = units_over(s, held, kind, used, left);
	if (over > 0)
		return_units(s, row, entry, held, over);
}

static uint64_t less(uint64_t from, uint64_t by)
{
	return from > by ? from - by : 0;
}

static void settle_all(struct settling *s, const struct bucket_cost *used)
{
	struct bucket_lease *lease = s->lease;

	for (uint32_t i = 0; i < lease->set->count && i < BUCKET_SET_MAX; i++)
		settle_level(s, i);
	lease->tokens = less(lease->tokens, s->used.of[BUCKET_TOKENS]);
	lease->cost.requests = less(lease->cost.requests, used->requests);
	lease->cost.input_tokens = less(lease->cost.input_tokens, used->input_tokens);
	lease->cost.output_tokens = less(lease->cost.output_tokens, used->output_tokens);
	lease->cost.nanousd = less(lease->cost.nanousd, used->nanousd);
}

static void lease_end(const struct region *r, struct bucket_lease *lease)
{
	if (lease->hold != BUCKET_NONE)
		hold_release(r, lease->hold, lease->owner);
	lease->set = NULL;
	lease->hold = BUCKET_NONE;
}

void bucket_progress(const struct region *r, struct bucket_lease *lease,
	const struct bucket_cost *used, uint64_t now_ns)
{
	struct settling s;

	if (!lease->set)
		return;
	settling_init(&s, r, lease, used, now_ns);
	settle_all(&s, used);
}

void bucket_settle(const struct region *r, struct bucket_lease *lease,
	const struct bucket_cost *used, uint64_t now_ns)
{
	struct settling s;

	if (!lease->set)
		return;
	settling_init(&s, r, lease, used, now_ns);
	s.end = true;
	settle_all(&s, used);
	lease_end(r, lease);
}

static void cancel_level(const struct settling *s, uint32_t i, uint64_t real_ns)
{
	const struct bucket_set *set = s->lease->set;
	uint32_t row = set->index[i], total = HOLD_TOTAL_BUCKET(row), held;
	uint64_t n = s->left.of[set->resource[i] % ARRAY_SIZE(s->left.of)];

	if (row >= s->r->buckets)
		return;
	if (set->kind[i] == BUCKET_RATE) {
		if (n > 0 && load(&s->r->bucket[row].key) == set->key[i])
			bucket_row_give_back(
				s->r, row, n, s->lease->taken_ns, s->lease->booked_ns, real_ns);
		return;
	}
	held = s->ours ? hold_units(s->r, s->lease->hold, total) : 0;
	if (held > 0) {
		hold_move(s->r, s->lease->hold, s->lease->owner, total, 0, held, NULL);
		bucket_wake(s->r, row);
	}
}

/* What was booked ahead has not begun to leak before its time. */
void bucket_cancel(const struct region *r, struct bucket_lease *lease, uint64_t now_ns)
{
	struct settling s;
	uint64_t real_ns;

	if (!lease->set)
		return;
	settling_init(&s, r, lease, &(struct bucket_cost){ 0 }, now_ns);
	real_ns = max_u64(true_time(r, now_ns), lease->taken_ns);
	for (uint32_t i = (uint32_t)min_u64(lease->set->count, BUCKET_SET_MAX); i-- > 0;)
		cancel_level(&s, i, real_ns);
	lease_end(r, lease);
}

/* ---- waiting ---- */

/* Both who waits and who wakes change waited_ns, so that one of them sees the other: who waits
 * finds what was settled, or who settles finds that somebody waits. */
const uint32_t *bucket_wait_word(const struct region *r, uint32_t row, uint64_t until_ns)
{
	struct layout_bucket_name *n;
	uint64_t seen;

	if (row >= r->buckets || !r->writable)
		return NULL;
	n = &r->bucket_name[row];
	seen = load(&n->waited_ns);
	for (int i = 0; i < BUCKET_TRIES_MAX; i++)
		if (atomic_compare_exchange_strong_explicit(&n->waited_ns, &seen,
			    max_u64(seen, until_ns), memory_order_seq_cst, memory_order_acquire))
			break;
	return (const uint32_t *)(const void *)&n->wake;
}

void bucket_wake(const struct region *r, uint32_t row)
{
	struct layout_bucket_name *n;
	uint64_t until_ns;

	if (row >= r->buckets || !r->writable)
		return;
	n = &r->bucket_name[row];
	until_ns = atomic_fetch_add_explicit(&n->waited_ns, 0, memory_order_acq_rel);
	if (until_ns == 0 || until_ns < r->clock_ns())
		return;
	/* All wake, so nobody waits; if it fails, somebody new does. */
	swap(&n->waited_ns, &until_ns, 0);
	atomic_fetch_add_explicit(&n->wake, 1, memory_order_acq_rel);
	syscall(SYS_futex, &n->wake, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

/* ---- feedback ---- */

/* Tells of a pause that begins, once however often it is raised. */
void bucket_pause(const struct region *r, uint32_t row, uint64_t until_ns, uint64_t now_ns)
{
	uint64_t before_ns;

	if (row >= r->buckets)
		return;
	before_ns = load(&r->bucket[row].pause_ns);
	until_ns = min_u64(until_ns, now_ns + BUCKET_PAUSE_MAX_NS);
	raise_to(&r->bucket[row].pause_ns, until_ns);
	if (before_ns <= now_ns && until_ns > now_ns)
		event_add(r,
			&(struct event){ .time_ns = now_ns,
				.kind = EVENT_PAUSE,
				.row = row,
				.value = until_ns });
}

void bucket_unpause(const struct region *r, uint32_t row)
{
	if (row >= r->buckets)
		return;
	store(&r->bucket[row].pause_ns, 0);
	bucket_wake(r, row);
}

void bucket_raise(const struct region *r, uint32_t row, uint64_t units, uint64_t now_ns)
{
	struct layout_bucket *b;
	uint64_t kind, held = 0, debt;

	if (row >= r->buckets)
		return;
	b = &r->bucket[row];
	kind = load(&r->bucket_name[row].kind);
	if (kind != BUCKET_RATE && kind != BUCKET_HELD)
		return;
	if (kind == BUCKET_HELD)
		held = (uint32_t)load_acquire(&b->held);
	if (units <= held)
		return;
	debt = min_u64(cost_of(units - held, load(&b->interval)), load(&b->tolerance));
	if (debt <= BUCKET_TOLERANCE_MAX)
		raise_to(&b->tat, now_ns + debt);
}

void bucket_hear(const struct region *r, uint32_t row, uint64_t limit)
{
	shared_u64 *heard;
	uint64_t seen;

	if (row >= r->buckets || limit == 0 || limit > HEARD_MAX)
		return;
	heard = &r->bucket_name[row].heard;
	seen = load(heard);
	for (int i = 0; i < BUCKET_TRIES_MAX; i++) {
		uint64_t times = (seen & HEARD_MAX) == limit ? seen >> HEARD_BITS : 0;

		if (times >= HEARD_TIMES || swap(heard, &seen, limit | (times + 1) << HEARD_BITS))
			return;
	}
}

uint64_t bucket_heard(const struct region *r, uint32_t row)
{
	const struct layout_bucket_name *n;
	uint64_t seen;

	if (row >= r->buckets)
		return 0;
	n = &r->bucket_name[row];
	seen = load(&n->heard);
	if (seen >> HEARD_BITS < HEARD_TIMES || (seen & HEARD_MAX) == load(&n->limit))
		return 0;
	return seen & HEARD_MAX;
}
