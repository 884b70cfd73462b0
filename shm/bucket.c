#include "shm/bucket.h"

#include "shm/bucket_internal.h"
#include "shm/hold_internal.h"

#define WAIT_BUSY NSEC_PER_USEC

/* ---- one level ---- */

/* One bucket, read at now: what it held, and what it will hold. */
struct level {
	struct layout_bucket *b;
	uint64_t tat, next, wait;
	uint64_t n;     /* what is asked */
	uint64_t held;  /* the word, as read */
	uint64_t late;  /* of a WINDOW */
	uint32_t units; /* to be added to held */
};

/* cost is 0 or above the tolerance. No limit is ever configured to 0: that row is broken, until
 * the daemon mends it. */
static inline enum bucket_outcome outcome_of_misfit(
	uint64_t cost, uint64_t tolerance, struct level *l)
{
	l->wait = BUCKET_WAIT_SLACK;
	return cost != 0 && tolerance != 0 ? BUCKET_E_NEVER : BUCKET_E_WAIT;
}

/* A wait above the cost: a lowered burst left debt above it, or else tat is broken. */
static __attribute__((noinline)) uint64_t long_wait(
	const struct region *r, uint32_t row, uint64_t cost, uint64_t wait)
{
	uint64_t tolerance = load(&r->bucket[row].tolerance);
	uint64_t most = cost_of(most_of(&r->bucket_name[row]), load(&r->bucket[row].interval));
	uint64_t above = most > tolerance ? min_u64(most - tolerance, BUCKET_DEBT_MAX) : 0;

	return min_u64(wait, add_saturating(above + BUCKET_WAIT_SLACK, cost));
}

/* The wait of a pause, if it is longer than the level's own. */
static __attribute__((noinline)) enum bucket_outcome paused(
	uint64_t pause_ns, uint64_t now_ns, enum bucket_outcome outcome, struct level *l)
{
	uint64_t wait = min_u64(pause_ns - now_ns, BUCKET_PAUSE_MAX_NS);

	if (outcome != BUCKET_OK && outcome != BUCKET_E_WAIT)
		return outcome;
	l->wait = outcome == BUCKET_OK ? wait : max_u64(l->wait, wait);
	return BUCKET_E_WAIT;
}

/* tat is loaded first: who sees the tat of a change also sees the limit it belongs to. */
ALWAYS_INLINE enum bucket_outcome rate_read(const struct region *r, uint32_t row, uint64_t key,
	uint64_t n, uint64_t now_ns, struct level *l)
{
	const struct layout_bucket *b = &r->bucket[row];
	enum bucket_outcome outcome = BUCKET_OK;
	uint64_t cost, tolerance, base, pause_ns;

	l->tat = load_acquire(&b->tat);
	tolerance = load(&b->tolerance);
	pause_ns = load(&b->pause_ns);
	cost = cost_of(n, load(&b->interval));
	if (aux_unlikely(load(&b->key) != key))
		return BUCKET_E_GONE;
	if (aux_unlikely(cost - 1 >= tolerance))
		return outcome_of_misfit(cost, tolerance, l);
	base = max_u64(l->tat, now_ns);
	l->next = base + cost;
	if (base - now_ns > tolerance - cost) {
		l->wait = base - now_ns - (tolerance - cost);
		if (aux_unlikely(l->wait > cost))
			l->wait = long_wait(r, row, cost, l->wait);
		outcome = BUCKET_E_WAIT;
	}
	if (aux_unlikely(pause_ns > now_ns))
		return paused(pause_ns, now_ns, outcome, l);
	return outcome;
}

static inline bool rate_write(struct layout_bucket *b, const struct level *l)
{
	uint64_t expected = l->tat;

	return swap(&b->tat, &expected, l->next);
}

/* Takes n or says why not. The only store that admits is the CAS. */
static inline enum bucket_outcome rate_take(const struct region *r, uint32_t row, uint64_t key,
	uint64_t n, uint64_t now_ns, struct level *l)
{
	enum bucket_outcome outcome;

	for (int i = 0; i < BUCKET_TRIES_MAX; i++) {
		outcome = rate_read(r, row, key, n, now_ns, l);
		if (outcome != BUCKET_OK || aux_likely(rate_write(&r->bucket[row], l)))
			return outcome;
	}
	l->wait = WAIT_BUSY;
	return BUCKET_E_WAIT;
}

/* Measured: under the 10 ns of reading the cycle counter one relaxed add costs nothing, three
 * cost 5 ns. Counts per process would be cheaper with three, and lost with the process. */
static inline void count(shared_u64 *word, uint64_t n)
{
	atomic_fetch_add_explicit(word, n, memory_order_relaxed);
}

static inline struct bucket_verdict verdict(
	enum bucket_outcome outcome, uint32_t blocking, uint64_t wait_ns)
{
	return (struct bucket_verdict){
		.outcome = outcome, .blocking = blocking, .wait_ns = wait_ns
	};
}

static inline struct bucket_verdict reject(const struct region *r, struct bucket_verdict v)
{
	if (v.outcome == BUCKET_E_WAIT || v.outcome == BUCKET_E_NEVER)
		count(&r->bucket[v.blocking].rejected, 1);
	return v;
}

static inline struct bucket_verdict reject_level(
	const struct region *r, enum bucket_outcome outcome, uint32_t row, const struct level *l)
{
	return reject(r, verdict(outcome, row, outcome == BUCKET_E_WAIT ? l->wait : 0));
}

/* ---- requests alone: the fast path ---- */

/* A verdict that says how it is with all buckets of the set: gone and never go before waits. */
ALWAYS_INLINE struct bucket_verdict requests_read(const struct region *r,
	const struct bucket_set *set, uint32_t set_count, uint64_t n, uint64_t now_ns,
	struct level *levels)
{
	struct bucket_verdict v = verdict(BUCKET_OK, BUCKET_NONE, 0);

#pragma GCC unroll 3
	for (uint32_t i = 0; i < set_count; i++) {
		uint32_t row = set->index[i];
		enum bucket_outcome outcome = BUCKET_E_GONE;

		if (aux_likely(row < r->buckets))
			outcome = rate_read(r, row, set->key[i], n, now_ns, &levels[i]);
		if (aux_likely(outcome == BUCKET_OK))
			continue;
		if (outcome != BUCKET_E_WAIT)
			return verdict(outcome, row, 0);
		if (levels[i].wait > v.wait_ns)
			v = verdict(outcome, row, levels[i].wait);
	}
	return v;
}

/* Undoes the first levels of a set. The rule needs the true time since they were taken, which is
 * not the caller's now. */
static __attribute__((noinline)) void requests_undo(const struct region *r,
	const struct bucket_set *set, uint32_t levels, uint64_t n, uint64_t now_ns)
{
	uint64_t real_ns = true_time(r, now_ns);

	while (levels-- > 0)
		bucket_row_give_back(r, set->index[levels], n, now_ns, now_ns, real_ns);
}

ALWAYS_INLINE struct bucket_verdict requests_take(const struct region *r,
	const struct bucket_set *set, uint32_t set_count, uint64_t n, uint64_t now_ns)
{
	struct level levels[BUCKET_SET_MAX];
	struct bucket_verdict v = requests_read(r, set, set_count, n, now_ns, levels);

	if (aux_unlikely(v.outcome != BUCKET_OK))
		return reject(r, v);
#pragma GCC unroll 3
	for (uint32_t i = 0; i < set_count; i++) {
		uint32_t row = set->index[i];
		enum bucket_outcome outcome;

		if (aux_likely(rate_write(&r->bucket[row], &levels[i])))
			continue;
		outcome = rate_take(r, row, set->key[i], n, now_ns, &levels[i]);
		if (outcome == BUCKET_OK)
			continue;
		requests_undo(r, set, i, n, now_ns);
		return reject_level(r, outcome, row, &levels[i]);
	}
#pragma GCC unroll 3
	for (uint32_t i = 0; i < set_count; i++)
		count(&r->bucket[set->index[i]].admitted, n);
	return v;
}

/* The usual set and cost, known to the compiler: 18 ns with the clock instead of 25. */
static __attribute__((noinline)) struct bucket_verdict requests_three(
	const struct region *r, const struct bucket_set *set, uint64_t now_ns)
{
	return requests_take(r, set, 3, 1, now_ns);
}

static __attribute__((noinline)) struct bucket_verdict requests_any(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	return requests_take(r, set, (uint32_t)min_u64(set->count, BUCKET_SET_MAX), n, now_ns);
}

/* Off the fast path, so that it needs no stack: another process was faster. */
static __attribute__((noinline)) struct bucket_verdict requests_contended(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	uint32_t row = set->index[0];
	struct level l;
	enum bucket_outcome outcome = rate_take(r, row, set->key[0], n, now_ns, &l);

	if (outcome != BUCKET_OK)
		return reject_level(r, outcome, row, &l);
	count(&r->bucket[row].admitted, n);
	return verdict(BUCKET_OK, BUCKET_NONE, 0);
}

/* One bucket needs no second phase: what is read is written. */
static inline struct bucket_verdict requests_one(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	uint32_t row = set->index[0];
	enum bucket_outcome outcome;
	struct level l;

	if (aux_unlikely(row >= r->buckets))
		return verdict(BUCKET_E_GONE, row, 0);
	outcome = rate_read(r, row, set->key[0], n, now_ns, &l);
	if (outcome != BUCKET_OK)
		return reject_level(r, outcome, row, &l);
	if (aux_unlikely(!rate_write(&r->bucket[row], &l)))
		return requests_contended(r, set, n, now_ns);
	count(&r->bucket[row].admitted, n);
	return verdict(BUCKET_OK, BUCKET_NONE, 0);
}

/* ---- any kind ---- */

/* Nothing is asked of it. */
static enum bucket_outcome idle_read(
	const struct layout_bucket *b, uint64_t key, uint64_t now_ns, struct level *l)
{
	uint64_t pause_ns = load_acquire(&b->pause_ns);

	if (load(&b->key) != key)
		return BUCKET_E_GONE;
	return pause_ns > now_ns ? paused(pause_ns, now_ns, BUCKET_OK, l) : BUCKET_OK;
}

/* Units in flight and n more; what a total has no room for is above any tolerance. */
static inline uint64_t held_and(uint64_t value, uint64_t n)
{
	return n < BUCKET_HELD_CLOSED && value + n < BUCKET_HELD_CLOSED ? value + n : UINT64_MAX;
}

/* debt and what is in flight leave no room for n. */
static __attribute__((noinline)) enum bucket_outcome held_misfit(const struct region *r,
	uint32_t row, uint64_t n, uint64_t debt, uint64_t total, struct level *l)
{
	uint64_t tolerance = load(&r->bucket[row].tolerance);
	uint64_t cost = cost_of(held_and(0, n), load(&r->bucket[row].interval));

	if (cost - 1 >= tolerance)
		return outcome_of_misfit(cost, tolerance, l);
	if (total > tolerance) {
		l->wait = BUCKET_WAIT_SETTLEMENT;
		return BUCKET_E_WAIT;
	}
	/* A change came meanwhile. */
	l->wait = debt > tolerance - total ? debt - (tolerance - total) : WAIT_BUSY;
	if (l->wait > total)
		l->wait = long_wait(r, row, total, l->wait);
	return BUCKET_E_WAIT;
}

/* n more than value units in flight: held was loaded before tat, so what came out of held is in
 * tat. */
ALWAYS_INLINE enum bucket_outcome held_fits(const struct region *r, uint32_t row, uint64_t value,
	uint64_t n, uint64_t now_ns, struct level *l)
{
	const struct layout_bucket *b = &r->bucket[row];
	uint64_t tat = load_acquire(&b->tat), tolerance = load(&b->tolerance);
	uint64_t total = cost_of(held_and(value, n), load(&b->interval));
	uint64_t debt = tat > now_ns ? tat - now_ns : 0;

	l->tat = tat;
	if (aux_likely(total - 1 < tolerance && debt <= tolerance - total))
		return BUCKET_OK;
	return held_misfit(r, row, n, debt, total, l);
}

static enum bucket_outcome gauge_fits(
	const struct layout_bucket *b, uint64_t value, uint64_t n, struct level *l)
{
	uint64_t tolerance = load(&b->tolerance);

	if (held_and(value, n) <= tolerance)
		return BUCKET_OK;
	if (n > tolerance)
		return outcome_of_misfit(n, tolerance, l);
	l->wait = BUCKET_WAIT_SETTLEMENT;
	return BUCKET_E_WAIT;
}

/* Until the daemon begins the next window; a second if it is late. */
static uint64_t window_wait(const struct layout_bucket *b, uint64_t now_ns)
{
	uint64_t end_ns = load(&b->interval);

	return end_ns > now_ns ? min_u64(end_ns - now_ns, BUCKET_WINDOW_LONGEST) :
				 BUCKET_WAIT_SLACK;
}

/* n in nano-USD, what is in flight in quanta. What came out of held is in late, and what came out
 * of late is in used: they are loaded in this order. */
static enum bucket_outcome window_fits(const struct region *r, uint32_t row, uint64_t value,
	uint64_t n, uint64_t now_ns, struct level *l)
{
	const struct layout_bucket *b = &r->bucket[row];
	uint64_t used, tolerance, held = value * BUCKET_QUANTUM;

	l->late = late_of(&r->bucket_name[row]);
	l->tat = load_acquire(&b->tat);
	used = (l->tat & BUCKET_USED_MAX) + l->late;
	tolerance = load(&b->tolerance);
	if (n > tolerance || quanta_of(n) >= BUCKET_HELD_CLOSED)
		return outcome_of_misfit(n, tolerance, l);
	if (held_and(value, quanta_of(n)) == UINT64_MAX || held > tolerance - n) {
		l->wait = BUCKET_WAIT_SETTLEMENT;
		return BUCKET_E_WAIT;
	}
	if (used <= tolerance - n - held)
		return BUCKET_OK;
	l->wait = window_wait(b, now_ns);
	return BUCKET_E_WAIT;
}

/* value: what is in flight, as in the word that is to be replaced. */
ALWAYS_INLINE enum bucket_outcome total_fits(const struct region *r, uint32_t row,
	enum bucket_kind kind, uint64_t value, uint64_t n, uint64_t now_ns, struct level *l)
{
	const struct layout_bucket *b = &r->bucket[row];

	switch (kind) {
	case BUCKET_HELD:
		return held_fits(r, row, value, n, now_ns, l);
	case BUCKET_GAUGE:
		return gauge_fits(b, value, n, l);
	default:
		return window_fits(r, row, value, n, now_ns, l);
	}
}

ALWAYS_INLINE enum bucket_outcome total_read(const struct region *r, uint32_t row,
	enum bucket_kind kind, uint64_t key, uint64_t n, uint64_t now_ns, struct level *l)
{
	const struct layout_bucket *b = &r->bucket[row];
	enum bucket_outcome outcome;
	uint64_t pause_ns;

	/* Who sleeps says so before it looks: see bucket_wake_any(). */
	l->held = atomic_load_explicit(&b->held, memory_order_seq_cst);
	outcome = total_fits(r, row, kind, (uint32_t)l->held, n, now_ns, l);
	l->units = (uint32_t)(kind == BUCKET_WINDOW ? quanta_of(n) : n);
	if (aux_unlikely(load(&b->key) != key || (uint32_t)l->held == BUCKET_HELD_CLOSED))
		return BUCKET_E_GONE;
	pause_ns = load(&b->pause_ns);
	if (aux_unlikely(pause_ns > now_ns))
		return paused(pause_ns, now_ns, outcome, l);
	return outcome;
}

/* What is taken of one set, and when it counts: RATE limits may be asked ahead of time. */
struct taking {
	const struct region *r;
	const struct bucket_set *set;
	struct bucket_units units;
	uint64_t now_ns, rate_ns;
	uint64_t owner;
	uint32_t count, hold;
};

static inline uint64_t asked(const struct taking *t, uint32_t i)
{
	return t->units.of[t->set->resource[i] % ARRAY_SIZE(t->units.of)];
}

/* Rarer kinds, out of the way of the others. */
static __attribute__((noinline)) enum bucket_outcome other_read(
	const struct taking *t, uint32_t i, struct level *l)
{
	return total_read(t->r, t->set->index[i], (enum bucket_kind)t->set->kind[i], t->set->key[i],
		l->n, t->now_ns, l);
}

ALWAYS_INLINE enum bucket_outcome level_read(const struct taking *t, uint32_t i, struct level *l)
{
	uint32_t row = t->set->index[i];
	uint64_t key = t->set->key[i], n = asked(t, i);

	l->n = n;
	l->b = &t->r->bucket[row];
	if (aux_unlikely(row >= t->r->buckets))
		return BUCKET_E_GONE;
	if (aux_unlikely(n == 0))
		return idle_read(l->b, key, t->now_ns, l);
	if (t->set->kind[i] == BUCKET_RATE)
		return rate_read(t->r, row, key, n, t->rate_ns, l);
	if (t->set->kind[i] == BUCKET_HELD)
		return total_read(t->r, row, BUCKET_HELD, key, n, t->now_ns, l);
	return other_read(t, i, l);
}

static __attribute__((noinline)) enum bucket_outcome level_read_again(
	const struct taking *t, uint32_t i, struct level *l)
{
	return level_read(t, i, l);
}

/* A verdict on all; no time ends a wait for a settlement, so it is the longest. Inline, as is all
 * that follows until a lease is made: six limits take 56 ns instead of 65. */
ALWAYS_INLINE struct bucket_verdict read_all(const struct taking *t, struct level *levels)
{
	struct bucket_verdict v = verdict(BUCKET_OK, BUCKET_NONE, 0);

	for (uint32_t i = 0; i < t->count; i++) {
		enum bucket_outcome outcome = level_read(t, i, &levels[i]);

		if (aux_likely(outcome == BUCKET_OK))
			continue;
		if (outcome != BUCKET_E_WAIT)
			return verdict(outcome, t->set->index[i], 0);
		if (levels[i].wait > v.wait_ns)
			v = verdict(outcome, t->set->index[i], levels[i].wait);
	}
	return v;
}

static void total_undo(const struct taking *t, uint32_t i, uint64_t units)
{
	hold_move(t->r, t->hold, t->owner, HOLD_TOTAL_BUCKET(t->set->index[i]), 0, (uint32_t)units,
		NULL);
}

static __attribute__((noinline)) enum bucket_outcome total_check_again(
	const struct taking *t, uint32_t i, struct level *l)
{
	uint32_t row = t->set->index[i];
	enum bucket_outcome outcome = total_fits(t->r, row, (enum bucket_kind)t->set->kind[i],
		(uint32_t)l->held, l->n, t->now_ns, l);

	if (load(&t->r->bucket[row].key) != t->set->key[i])
		outcome = BUCKET_E_GONE;
	if (outcome != BUCKET_OK)
		total_undo(t, i, l->units);
	return outcome;
}

/*
 * Who settles raises tat before it lowers held. So what left held before the move is in the tat
 * that was read; and what was raised since is found by reading once more: a settlement for more
 * than was held, another rate, feedback. All of these change tat, or late.
 */
ALWAYS_INLINE enum bucket_outcome total_check(const struct taking *t, uint32_t i, uint8_t kind,
	const struct layout_bucket *b, struct level *l)
{
	if (aux_likely(kind == BUCKET_HELD && load_acquire(&b->tat) == l->tat &&
		    load_acquire(&b->key) == t->set->key[i]))
		return BUCKET_OK;
	return total_check_again(t, i, l);
}

/*
 * l is as read: not closed, and there is room for what is added. The only store that admits is the
 * move of exactly the word that was read. The hold was claimed in this call, so it is ours and
 * empty, and each total has its entry: the how-manieth it is of the set.
 */
ALWAYS_INLINE bool total_move(const struct taking *t, uint32_t row, uint32_t entry,
	struct layout_bucket *b, const struct level *l)
{
	struct hold_change to = {
		.word = &b->held,
		.total = HOLD_TOTAL_BUCKET(row),
		.entry = entry,
		.units = l->units,
		.value = (uint32_t)l->held + l->units,
	};

	return hold_try(t->r, t->hold, &to, l->held);
}

/* Another process was faster: the same with what is there now, if that conforms. */
static __attribute__((noinline)) enum bucket_outcome total_contended(
	const struct taking *t, uint32_t i, uint32_t entry, struct level *l)
{
	for (int tries = 1; tries < BUCKET_TRIES_MAX; tries++) {
		enum bucket_outcome outcome = level_read_again(t, i, l);

		if (outcome != BUCKET_OK || total_move(t, t->set->index[i], entry, l->b, l))
			return outcome;
	}
	l->wait = WAIT_BUSY;
	return BUCKET_E_WAIT;
}

ALWAYS_INLINE enum bucket_outcome level_take(
	const struct taking *t, uint32_t i, uint8_t kind, uint32_t entry, struct level *l)
{
	uint32_t row = t->set->index[i];
	struct layout_bucket *b = l->b;
	enum bucket_outcome outcome = BUCKET_OK;

	if (aux_unlikely(l->n == 0))
		return BUCKET_OK;
	if (kind == BUCKET_RATE)
		return aux_likely(rate_write(b, l)) ?
			BUCKET_OK :
			rate_take(t->r, row, t->set->key[i], l->n, t->rate_ns, l);
	if (aux_unlikely(!total_move(t, row, entry, b, l)))
		outcome = total_contended(t, i, entry, l);
	return aux_likely(outcome == BUCKET_OK) ? total_check(t, i, kind, b, l) : outcome;
}

/* Undoes the first levels, the last one first. */
static __attribute__((noinline)) void undo(const struct taking *t, uint32_t levels)
{
	uint64_t real_ns = max_u64(true_time(t->r, t->now_ns), t->rate_ns);

	while (levels-- > 0) {
		uint32_t row = t->set->index[levels];

		if (asked(t, levels) == 0)
			continue;
		if (t->set->kind[levels] == BUCKET_RATE)
			bucket_row_give_back(
				t->r, row, asked(t, levels), t->rate_ns, t->now_ns, real_ns);
		else
			total_undo(t, levels, hold_units(t->r, t->hold, HOLD_TOTAL_BUCKET(row)));
	}
}

/* What is in flight counts as admitted when it is settled, as what was used. */
static inline void count_all(const struct taking *t, const struct level *levels)
{
	for (uint32_t i = 0; i < t->count; i++)
		if (t->set->kind[i] == BUCKET_RATE || t->set->kind[i] == BUCKET_GAUGE)
			count(&levels[i].b->admitted, levels[i].n);
}

ALWAYS_INLINE struct bucket_verdict take_all(const struct taking *t, struct level *levels)
{
	for (uint32_t i = 0, entry = 0; i < t->count; i++) {
		uint8_t kind = t->set->kind[i];
		enum bucket_outcome outcome = level_take(t, i, kind, entry, &levels[i]);

		entry += kind != BUCKET_RATE;
		if (aux_likely(outcome == BUCKET_OK))
			continue;
		undo(t, i);
		return reject_level(t->r, outcome, t->set->index[i], &levels[i]);
	}
	count_all(t, levels);
	return verdict(BUCKET_OK, BUCKET_NONE, 0);
}

ALWAYS_INLINE void taking_init(struct taking *t, const struct region *r,
	const struct bucket_set *set, const struct bucket_cost *cost, uint64_t now_ns)
{
	t->r = r;
	t->set = set;
	units_ask(&t->units, cost);
	t->now_ns = now_ns;
	t->rate_ns = now_ns;
	t->owner = 0;
	t->count = (uint32_t)min_u64(set->count, BUCKET_SET_MAX);
	t->hold = HOLD_NONE;
}

/* ---- public ---- */

/* Limits of other resources are only asked whether they are paused. */
static __attribute__((noinline)) struct bucket_verdict requests_among_others(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	struct level levels[BUCKET_SET_MAX];
	struct taking t;
	struct bucket_verdict v;

	taking_init(&t, r, set, &(struct bucket_cost){ 0 }, now_ns);
	t.units.of[BUCKET_REQUESTS] = n;
	for (uint32_t i = 0; i < t.count; i++)
		if (set->kind[i] == BUCKET_GAUGE)
			return verdict(BUCKET_E_LEASE, set->index[i], 0);
	v = read_all(&t, levels);
	return v.outcome == BUCKET_OK ? take_all(&t, levels) : reject(r, v);
}

struct bucket_verdict bucket_acquire(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	if (aux_unlikely(n == 0))
		return verdict(BUCKET_OK, BUCKET_NONE, 0);
	if (aux_unlikely(set->others != 0))
		return requests_among_others(r, set, n, now_ns);
	if (aux_likely(set->count == 1))
		return requests_one(r, set, n, now_ns);
	if (set->count == 3 && n == 1)
		return requests_three(r, set, now_ns);
	return requests_any(r, set, n, now_ns);
}

struct bucket_verdict bucket_peek(const struct region *r, const struct bucket_set *set,
	const struct bucket_cost *cost, uint64_t now_ns)
{
	struct level levels[BUCKET_SET_MAX];
	struct taking t;

	taking_init(&t, r, set, cost, now_ns);
	return read_all(&t, levels);
}

/* Processes and leases start their search for a free hold at different rows. */
static uint32_t hint_of(const struct region *r, uint64_t owner, const struct bucket_lease *lease)
{
	uint64_t mixed = (owner ^ (uintptr_t)lease) * UINT64_C(0x9e3779b97f4a7c15);

	return (uint32_t)((mixed >> 32) * r->holds >> 32);
}

/* The levels are read and conform. */
ALWAYS_INLINE struct bucket_verdict lease_all(struct taking *t, const struct bucket_cost *cost,
	struct level *levels, struct bucket_lease *lease)
{
	struct bucket_verdict v;

	if (t->set->held > 0) {
		t->hold = hold_claim(t->r, t->owner, hint_of(t->r, t->owner, lease), t->now_ns);
		if (t->hold == HOLD_NONE)
			return verdict(BUCKET_E_BUSY, BUCKET_NONE, 0);
	}
	v = take_all(t, levels);
	if (v.outcome != BUCKET_OK) {
		hold_release(t->r, t->hold, t->owner);
		return v;
	}
	lease->set = t->set;
	lease->cost.requests = cost->requests;
	lease->cost.input_tokens = cost->input_tokens;
	lease->cost.output_tokens = cost->output_tokens;
	lease->cost.nanousd = cost->nanousd;
	lease->tokens = t->units.of[BUCKET_TOKENS];
	lease->taken_ns = t->rate_ns;
	lease->booked_ns = t->now_ns;
	lease->owner = t->owner;
	lease->hold = t->hold;
	return v;
}

static enum bucket_outcome may_lease(const struct bucket_set *set, uint64_t owner)
{
	if (set->held > 0 && owner == 0)
		return BUCKET_E_LEASE;
	return set->held > LAYOUT_HOLD_ENTRIES ? BUCKET_E_BUSY : BUCKET_OK;
}

struct bucket_verdict bucket_lease(const struct region *r, uint64_t owner,
	const struct bucket_set *set, const struct bucket_cost *cost, uint64_t now_ns,
	struct bucket_lease *lease)
{
	struct level levels[BUCKET_SET_MAX];
	struct taking t;
	enum bucket_outcome may = may_lease(set, owner);
	struct bucket_verdict v;

	taking_init(&t, r, set, cost, now_ns);
	t.owner = owner;
	if (aux_unlikely(may != BUCKET_OK))
		return verdict(may, BUCKET_NONE, 0);
	v = read_all(&t, levels);
	return v.outcome == BUCKET_OK ? lease_all(&t, cost, levels, lease) : reject(r, v);
}

/* How long the RATE limits ask to wait; another that does not conform is returned. */
static struct bucket_verdict wait_of_rates(const struct taking *t)
{
	struct bucket_verdict v = verdict(BUCKET_OK, BUCKET_NONE, 0);
	struct level l;

	for (uint32_t i = 0; i < t->count; i++) {
		uint32_t row = t->set->index[i];
		enum bucket_outcome outcome = level_read(t, i, &l);

		if (outcome == BUCKET_OK)
			continue;
		if (outcome != BUCKET_E_WAIT)
			return verdict(outcome, row, 0);
		if (t->set->kind[i] != BUCKET_RATE || load(&t->r->bucket[row].pause_ns) > t->now_ns)
			return verdict(outcome, row, l.wait);
		v.blocking = row;
		v.wait_ns = max_u64(v.wait_ns, l.wait);
	}
	return v;
}

/* What is owed after a booking is no broken word; and what others took before does not come back to
 * the time that is booked. Both are said before tat is. */
static void note_bookings(const struct taking *t, const struct level *levels)
{
	for (uint32_t i = 0; i < t->count; i++) {
		uint32_t row = t->set->index[i];

		if (t->set->kind[i] != BUCKET_RATE || asked(t, i) == 0)
			continue;
		raise_to(&t->r->bucket_name[row].ahead_ns, t->rate_ns);
		bucket_raise_most(t->r, row,
			units_of(levels[i].next - t->now_ns, load(&t->r->bucket[row].interval)));
	}
}

struct bucket_verdict bucket_borrow(const struct region *r, uint64_t owner,
	const struct bucket_set *set, const struct bucket_cost *cost, uint64_t now_ns,
	uint64_t horizon_ns, struct bucket_lease *lease)
{
	struct level levels[BUCKET_SET_MAX];
	struct taking t;
	enum bucket_outcome may = may_lease(set, owner);
	struct bucket_verdict ahead, v;

	taking_init(&t, r, set, cost, now_ns);
	t.owner = owner;
	if (may != BUCKET_OK)
		return verdict(may, BUCKET_NONE, 0);
	ahead = wait_of_rates(&t);
	if (ahead.outcome != BUCKET_OK)
		return reject(r, ahead);
	if (ahead.wait_ns > min_u64(horizon_ns, BUCKET_AHEAD_MAX_NS))
		return reject(r, verdict(BUCKET_E_WAIT, ahead.blocking, ahead.wait_ns));
	t.rate_ns = now_ns + ahead.wait_ns;
	v = read_all(&t, levels);
	if (v.outcome != BUCKET_OK)
		return reject(r, v);
	if (ahead.wait_ns > 0)
		note_bookings(&t, levels);
	v = lease_all(&t, cost, levels, lease);
	if (v.outcome == BUCKET_OK)
		v.wait_ns = ahead.wait_ns;
	return v;
}
