#include "shm/bucket.h"

#include <errno.h>
#include <string.h>
#include "base/aux.h"
#include "base/error.h"
#include "shm/layout.h"

#define FRACTION_BITS 12
#define FRACTION (UINT64_C(1) << FRACTION_BITS)
#define INTERVAL_WHOLE_NS 4096
#define INTERVAL_MAX (UINT64_MAX & ~(FRACTION - 1))
#define TOLERANCE_MAX (UINT64_C(1) << 61)
/* A debt recounted to more nanoseconds than tat has room for stands here. What is still found above
 * TOLERANCE_MAX, up to 73 years later, counts as all that the row can owe. */
#define DEBT_MAX (UINT64_C(1) << 62)
#define UNITS_MAX UINT64_C(1000000000000)
#define WINDOW_MIN NSEC_PER_USEC
#define WINDOW_MAX (400 * UINT64_C(86400) * NSEC_PER_SEC)

/* A CAS that fails means that another process got on; so many in a row means a broken word. */
#define TRIES_MAX 1024
#define WAIT_BUSY NSEC_PER_USEC
/* Honest words never make a wait longer than the cost and what is owed above the burst, but for
 * processes that were stopped between clock and CAS. */
#define WAIT_SLACK NSEC_PER_SEC

/* For code that is specialised by the constants it is called with. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

const char *bucket_scope_name(uint64_t scope)
{
	switch (scope) {
	case BUCKET_SCOPE_USER:
		return "user";
	case BUCKET_SCOPE_MODEL:
		return "model";
	case BUCKET_SCOPE_PROVIDER:
		return "provider";
	default:
		return "unknown";
	}
}

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

/* The time where the caller's now may be older than what others have written meanwhile. */
static uint64_t true_time(const struct region *r, uint64_t now_ns)
{
	return max_u64(now_ns, r->clock_ns());
}

/* ---- take ---- */

/* ceil(n * interval / 2^12); what would not fit is more than any tolerance. */
static uint64_t cost_of(uint64_t n, uint64_t interval)
{
	unsigned __int128 cost;

	if (aux_likely(n == 1))
		return (interval >> FRACTION_BITS) + ((interval & (FRACTION - 1)) != 0);
	cost = ((unsigned __int128)n * interval + FRACTION - 1) >> FRACTION_BITS;
	return cost > UINT64_MAX ? UINT64_MAX : (uint64_t)cost;
}

/* One bucket, read at now: what it held, and what it will hold. */
struct level {
	uint64_t tat, next, wait;
};

/* cost is 0 or above the tolerance. No limit is ever configured to 0: that row is broken, until
 * the daemon mends it. */
static inline enum bucket_outcome outcome_of_misfit(
	uint64_t cost, uint64_t tolerance, struct level *l)
{
	l->wait = WAIT_SLACK;
	return cost != 0 && tolerance != 0 ? BUCKET_E_NEVER : BUCKET_E_WAIT;
}

/* The most units a row can owe; a broken word says nothing. */
static uint64_t most_of(const struct layout_bucket_name *row)
{
	uint64_t most = load(&row->most);

	return most > 0 && most <= UNITS_MAX ? most : UNITS_MAX;
}

/* A wait above the cost: a lowered burst left debt above it, or else tat is broken. */
static __attribute__((noinline)) uint64_t long_wait(
	const struct region *r, uint32_t row, uint64_t cost, uint64_t wait)
{
	uint64_t tolerance = load(&r->bucket[row].tolerance);
	uint64_t most = cost_of(most_of(&r->bucket_name[row]), load(&r->bucket[row].interval));
	uint64_t above = most > tolerance ? min_u64(most - tolerance, DEBT_MAX) : 0;

	return min_u64(wait, above + cost + WAIT_SLACK);
}

/* tat is loaded first: who sees the tat of a change also sees the limit it belongs to. */
static inline enum bucket_outcome level_read(const struct region *r, uint32_t row, uint64_t key,
	uint64_t n, uint64_t now_ns, struct level *l)
{
	const struct layout_bucket *b = &r->bucket[row];
	uint64_t cost, tolerance, base;

	l->tat = atomic_load_explicit(&b->tat, memory_order_acquire);
	tolerance = load(&b->tolerance);
	cost = cost_of(n, load(&b->interval));
	if (aux_unlikely(load(&b->key) != key))
		return BUCKET_E_GONE;
	if (aux_unlikely(cost - 1 >= tolerance))
		return outcome_of_misfit(cost, tolerance, l);
	base = max_u64(l->tat, now_ns);
	if (base - now_ns > tolerance - cost) {
		l->wait = base - now_ns - (tolerance - cost);
		if (aux_unlikely(l->wait > cost))
			l->wait = long_wait(r, row, cost, l->wait);
		return BUCKET_E_WAIT;
	}
	l->next = base + cost;
	return BUCKET_OK;
}

static inline bool level_write(struct layout_bucket *b, const struct level *l)
{
	uint64_t expected = l->tat;

	return atomic_compare_exchange_strong_explicit(
		&b->tat, &expected, l->next, memory_order_acq_rel, memory_order_relaxed);
}

/* Takes n or says why not. The only store that admits is the CAS. */
static inline enum bucket_outcome level_take(const struct region *r, uint32_t row, uint64_t key,
	uint64_t n, uint64_t now_ns, struct level *l)
{
	enum bucket_outcome outcome;

	for (int i = 0; i < TRIES_MAX; i++) {
		outcome = level_read(r, row, key, n, now_ns, l);
		if (outcome != BUCKET_OK || aux_likely(level_write(&r->bucket[row], l)))
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

/* The rule of give-back: what the units cost, less what has leaked since. Taking off more, or
 * taking off down to now, admits too much. changed_ns is loaded last: who sees anything of a change
 * sees that it goes on, or that it came after the units were taken. */
static void level_give_back(struct layout_bucket *b, uint64_t n, uint64_t taken_ns, uint64_t now_ns)
{
	for (int i = 0; i < TRIES_MAX; i++) {
		uint64_t tat = atomic_load_explicit(&b->tat, memory_order_acquire);
		uint64_t interval = atomic_load_explicit(&b->interval, memory_order_acquire);
		uint64_t cost = cost_of(n, interval), back;

		if (now_ns < taken_ns || load(&b->changed_ns) >= taken_ns ||
			cost <= now_ns - taken_ns)
			return;
		back = cost - (now_ns - taken_ns);
		if (atomic_compare_exchange_strong_explicit(&b->tat, &tat,
			    tat > back ? tat - back : 0, memory_order_acq_rel,
			    memory_order_relaxed))
			return;
	}
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
	if (v.outcome != BUCKET_E_GONE)
		count(&r->bucket[v.blocking].rejected, 1);
	return v;
}

/* A verdict that says how it is with all buckets of the set: gone and never go before waits. */
ALWAYS_INLINE struct bucket_verdict read_all(const struct region *r, const struct bucket_set *set,
	uint32_t set_count, uint64_t n, uint64_t now_ns, struct level *levels)
{
	struct bucket_verdict v = verdict(BUCKET_OK, BUCKET_NONE, 0);

#pragma GCC unroll 3
	for (uint32_t i = 0; i < set_count; i++) {
		uint32_t row = set->index[i];
		enum bucket_outcome outcome = BUCKET_E_GONE;

		if (aux_likely(row < r->buckets))
			outcome = level_read(r, row, set->key[i], n, now_ns, &levels[i]);
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
static void undo(const struct region *r, const struct bucket_set *set, uint32_t levels, uint64_t n,
	uint64_t now_ns)
{
	uint64_t real_ns = true_time(r, now_ns);

	while (levels-- > 0)
		level_give_back(&r->bucket[set->index[levels]], n, now_ns, real_ns);
}

ALWAYS_INLINE struct bucket_verdict acquire_all(const struct region *r,
	const struct bucket_set *set, uint32_t set_count, uint64_t n, uint64_t now_ns)
{
	struct level levels[BUCKET_SET_MAX];
	struct bucket_verdict v = read_all(r, set, set_count, n, now_ns, levels);

	if (aux_unlikely(v.outcome != BUCKET_OK))
		return reject(r, v);
#pragma GCC unroll 3
	for (uint32_t i = 0; i < set_count; i++) {
		uint32_t row = set->index[i];
		enum bucket_outcome outcome;

		if (aux_likely(level_write(&r->bucket[row], &levels[i])))
			continue;
		outcome = level_take(r, row, set->key[i], n, now_ns, &levels[i]);
		if (outcome == BUCKET_OK)
			continue;
		undo(r, set, i, n, now_ns);
		return reject(
			r, verdict(outcome, row, outcome == BUCKET_E_WAIT ? levels[i].wait : 0));
	}
#pragma GCC unroll 3
	for (uint32_t i = 0; i < set_count; i++)
		count(&r->bucket[set->index[i]].admitted, n);
	return v;
}

/* The usual set and cost, known to the compiler: 18 ns with the clock instead of 25. */
static __attribute__((noinline)) struct bucket_verdict acquire_three(
	const struct region *r, const struct bucket_set *set, uint64_t now_ns)
{
	return acquire_all(r, set, 3, 1, now_ns);
}

static __attribute__((noinline)) struct bucket_verdict acquire_any(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	return acquire_all(r, set, (uint32_t)min_u64(set->count, BUCKET_SET_MAX), n, now_ns);
}

/* Off the fast path, so that it needs no stack: another process was faster. */
static __attribute__((noinline)) struct bucket_verdict acquire_contended(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	uint32_t row = set->index[0];
	struct level l;
	enum bucket_outcome outcome = level_take(r, row, set->key[0], n, now_ns, &l);

	if (outcome != BUCKET_OK)
		return reject(r, verdict(outcome, row, outcome == BUCKET_E_WAIT ? l.wait : 0));
	count(&r->bucket[row].admitted, n);
	return verdict(BUCKET_OK, BUCKET_NONE, 0);
}

/* One bucket needs no second phase: what is read is written. */
static inline struct bucket_verdict acquire_one(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	uint32_t row = set->index[0];
	enum bucket_outcome outcome;
	struct level l;

	if (aux_unlikely(row >= r->buckets))
		return verdict(BUCKET_E_GONE, row, 0);
	outcome = level_read(r, row, set->key[0], n, now_ns, &l);
	if (outcome != BUCKET_OK)
		return reject(r, verdict(outcome, row, outcome == BUCKET_E_WAIT ? l.wait : 0));
	if (aux_unlikely(!level_write(&r->bucket[row], &l)))
		return acquire_contended(r, set, n, now_ns);
	count(&r->bucket[row].admitted, n);
	return verdict(BUCKET_OK, BUCKET_NONE, 0);
}

struct bucket_verdict bucket_acquire(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	if (aux_unlikely(n == 0))
		return verdict(BUCKET_OK, BUCKET_NONE, 0);
	if (aux_likely(set->count == 1))
		return acquire_one(r, set, n, now_ns);
	if (set->count == 3 && n == 1)
		return acquire_three(r, set, now_ns);
	return acquire_any(r, set, n, now_ns);
}

struct bucket_verdict bucket_peek(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns)
{
	struct level levels[BUCKET_SET_MAX];

	if (n == 0)
		return verdict(BUCKET_OK, BUCKET_NONE, 0);
	return read_all(r, set, (uint32_t)min_u64(set->count, BUCKET_SET_MAX), n, now_ns, levels);
}

void bucket_give_back(const struct region *r, const struct bucket_set *set, uint64_t n,
	uint64_t taken_ns, uint64_t now_ns)
{
	for (uint32_t i = set->count; i-- > 0;) {
		uint32_t row = set->index[i];

		if (row < r->buckets && load(&r->bucket[row].key) == set->key[i])
			level_give_back(&r->bucket[row], n, taken_ns, now_ns);
	}
}

/* ---- find ---- */

/* FNV-1a of scope and name; the values below LAYOUT_KEY_FIRST have other meanings. */
static uint64_t key_of(uint64_t scope, struct str name)
{
	uint64_t hash = (UINT64_C(0xcbf29ce484222325) ^ (scope & 0xff)) * UINT64_C(0x100000001b3);

	for (size_t i = 0; i < name.length; i++)
		hash = (hash ^ (unsigned char)name.data[i]) * UINT64_C(0x100000001b3);
	return max_u64(hash, LAYOUT_KEY_FIRST);
}

static bool name_is(const struct layout_bucket_name *row, uint64_t scope, struct str name)
{
	return row->scope == scope && memcmp(row->name, name.data, name.length) == 0 &&
		row->name[name.length] == '\0';
}

/* A name that a row can have: then name_is() stays inside it. */
static bool name_fits(struct str name)
{
	return name.length > 0 && name.length < LAYOUT_NAME_MAX &&
		!memchr(name.data, '\0', name.length);
}

/* The row in use with this name, or BUCKET_NONE. *spare: where it would go, a retired row of the
 * same name if there is one, so that it finds its debt again. */
static uint32_t find(const struct region *r, uint64_t scope, struct str name, uint32_t *spare)
{
	uint64_t key = key_of(scope, name);
	bool spare_is_same = false;

	*spare = BUCKET_NONE;
	for (uint32_t i = 0; i < r->buckets; i++) {
		uint32_t row = (uint32_t)((key + i) % r->buckets);
		uint64_t found = atomic_load_explicit(&r->bucket[row].key, memory_order_acquire);
		bool same = (found == key || found == LAYOUT_KEY_RETIRED) &&
			name_is(&r->bucket_name[row], scope, name);

		if (found == key && same)
			return row;
		if (found < LAYOUT_KEY_FIRST && !spare_is_same && (same || *spare == BUCKET_NONE)) {
			*spare = row;
			spare_is_same = same;
		}
		if (found == LAYOUT_KEY_NEVER)
			break;
	}
	return BUCKET_NONE;
}

bool bucket_set_add(
	struct bucket_set *set, const struct region *r, enum bucket_scope scope, struct str name)
{
	uint32_t row, spare;

	if (!name_fits(name))
		return false;
	row = find(r, scope, name, &spare);
	if (row == BUCKET_NONE)
		return false;
	for (uint32_t i = 0; i < set->count; i++)
		if (set->index[i] == row)
			return true;
	if (set->count >= BUCKET_SET_MAX)
		return false;
	set->index[set->count] = row;
	set->key[set->count] = key_of(scope, name);
	set->count++;
	return true;
}

/* ---- configure ---- */

/* What a limit is in nanoseconds, and its burst in units. */
struct pace {
	uint64_t interval, tolerance, burst;
};

static int pace_of(const struct bucket_limit *limit, struct pace *out)
{
	unsigned __int128 interval, tolerance;

	if (limit->limit == 0 || limit->limit > UNITS_MAX || limit->burst == 0 ||
		limit->burst > UNITS_MAX || limit->window_ns < WINDOW_MIN ||
		limit->window_ns > WINDOW_MAX || limit->limit > limit->window_ns)
		return error_origin(-ERANGE);
	interval = ((unsigned __int128)limit->window_ns << FRACTION_BITS) + limit->limit - 1;
	interval /= limit->limit;
	if (interval >= INTERVAL_WHOLE_NS * FRACTION)
		interval = (interval + FRACTION - 1) & ~(unsigned __int128)(FRACTION - 1);
	if (interval > INTERVAL_MAX)
		return error_origin(-ERANGE);
	tolerance = (interval * limit->burst + FRACTION - 1) >> FRACTION_BITS;
	if (tolerance > TOLERANCE_MAX)
		return error_origin(-ERANGE);
	*out = (struct pace){ (uint64_t)interval, (uint64_t)tolerance, limit->burst };
	return 0;
}

bool bucket_limit_is_valid(const struct bucket_limit *limit)
{
	struct pace pace;

	return name_fits(limit->name) && pace_of(limit, &pace) == 0;
}

static bool pace_is_sane(uint64_t interval, uint64_t tolerance)
{
	return interval >= FRACTION && interval <= INTERVAL_MAX && tolerance > 0 &&
		tolerance <= TOLERANCE_MAX;
}

/* What a row that owes most units can show: others may read their clocks after the daemon did. */
static uint64_t honest_debt(uint64_t most, uint64_t interval)
{
	return min_u64(cost_of(most, interval), DEBT_MAX) + WAIT_SLACK;
}

/*
 * Recounts the debt in tat from one interval to another, rounded up. All of it is kept, also what
 * is above the new burst: else lowering a burst and raising it again would refill it. Only above
 * most units tat must be broken, and is cut to that. Returns the units owed, rounded up.
 *
 * The clock is read after tat: else the time that others went on in meanwhile would count as debt,
 * and a faster limit would shrink it.
 */
static uint64_t debt_recount(const struct region *r, struct layout_bucket *b, uint64_t from,
	uint64_t to, uint64_t most, uint64_t now_ns)
{
	uint64_t honest_ns = min_u64(honest_debt(most, from), TOLERANCE_MAX);
	uint64_t tat = atomic_load_explicit(&b->tat, memory_order_acquire);

	for (int i = 0; i < TRIES_MAX; i++) {
		uint64_t at_ns = true_time(r, now_ns);
		unsigned __int128 owed = tat > at_ns ? tat - at_ns : 0;
		unsigned __int128 debt = cost_of(most, to);
		uint64_t units = most;

		if (owed <= honest_ns) {
			debt = (owed * to + from - 1) / from;
			units = (uint64_t)(((owed << FRACTION_BITS) + from - 1) / from);
		}
		if (debt > DEBT_MAX)
			debt = DEBT_MAX;
		if (atomic_compare_exchange_strong_explicit(&b->tat, &tat, at_ns + (uint64_t)debt,
			    memory_order_acq_rel, memory_order_acquire))
			return min_u64(units, UNITS_MAX);
	}
	store(&b->tat, true_time(r, now_ns) + min_u64(cost_of(most, to), DEBT_MAX));
	return most;
}

/*
 * Others acquire meanwhile and may see any mixture, and this process may die after any store.
 * First interval and tolerance become the stricter of old and new: no mixture of those admits
 * more than either limit. Then the debt is recounted, which changes tat where the rate changes, so
 * that a CAS begun before fails and reads again; tat is stored after and loaded before the others,
 * so who sees the new debt sees no old limit. A slower limit raises the debt before basis says so,
 * a faster one lowers it after: a death in between counts too much debt, never too little. Then
 * the final values relax what is stricter than the new limit.
 *
 * Nobody can owe more than was owed at the last change, or else the burst since: that is most. It
 * is raised before all else and lowered after, so that the cut of a broken tat, by the next change
 * or the next daemon, never forgets what is really owed.
 *
 * changed_ns is in the future from before the first store to after the last: what leaked at one
 * rate is not given back at another.
 */
static void change(const struct region *r, uint32_t index, const struct pace *to, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[index];
	struct layout_bucket_name *row = &r->bucket_name[index];
	uint64_t interval = load(&b->interval), tolerance = load(&b->tolerance);
	uint64_t basis = load(&b->basis), most = max_u64(most_of(row), to->burst), units;
	bool rate_changes = interval != to->interval || basis != to->interval;

	if (!rate_changes && tolerance == to->tolerance)
		return;
	if (rate_changes)
		store(&b->changed_ns, UINT64_MAX);
	store(&row->most, most);
	store(&b->tolerance, min_u64(tolerance, to->tolerance));
	store(&b->interval, max_u64(interval, to->interval));
	if (to->interval < basis)
		store(&b->basis, to->interval);
	units = debt_recount(r, b, basis, to->interval, most, now_ns);
	store(&b->basis, to->interval);
	store(&b->interval, to->interval);
	store(&b->tolerance, to->tolerance);
	store(&row->most, max_u64(units, to->burst));
	if (rate_changes)
		store(&b->changed_ns, true_time(r, now_ns));
}

/* A limit nobody can see yet. Where the region lost its past, its burst counts as used up then. */
static void start(const struct region *r, uint32_t row, const struct pace *pace, uint64_t now_ns)
{
	uint64_t empty_ns = min_u64(region_empty_since(r), now_ns);
	struct layout_bucket *b = &r->bucket[row];

	store(&r->bucket_name[row].most, pace->burst);
	store(&b->interval, pace->interval);
	store(&b->tolerance, pace->tolerance);
	store(&b->basis, pace->interval);
	store(&b->changed_ns, true_time(r, now_ns));
	store(&b->admitted, 0);
	store(&b->rejected, 0);
	store(&b->tat, empty_ns ? max_u64(now_ns, empty_ns + pace->tolerance) : now_ns);
}

static void describe(struct layout_bucket_name *row, const struct bucket_limit *limit)
{
	row->burst = limit->burst;
	row->limit = limit->limit;
	row->window_ns = limit->window_ns;
}

static void rename_row(struct layout_bucket_name *row, const struct bucket_limit *limit)
{
	row->scope = limit->scope;
	memset(row->name, 0, sizeof(row->name));
	memcpy(row->name, limit->name.data, limit->name.length);
}

int bucket_configure(struct region *r, const struct bucket_limit *limit, uint64_t now_ns)
{
	struct layout_bucket *b;
	struct pace pace = { 0 };
	uint32_t row, spare;
	int e;

	if (limit->name.length >= LAYOUT_NAME_MAX)
		return error_origin(-ENAMETOOLONG);
	if (!name_fits(limit->name) || limit->scope < BUCKET_SCOPE_USER ||
		limit->scope > BUCKET_SCOPE_PROVIDER)
		return error_origin(-EINVAL);
	e = pace_of(limit, &pace);
	if (e < 0)
		return error_trace(e);
	row = find(r, limit->scope, limit->name, &spare);
	if (row == BUCKET_NONE)
		row = spare;
	if (row == BUCKET_NONE)
		return error_origin(-ENOSPC);
	b = &r->bucket[row];
	if (name_is(&r->bucket_name[row], limit->scope, limit->name) &&
		pace_is_sane(load(&b->interval), load(&b->tolerance)) &&
		pace_is_sane(load(&b->basis), 1)) {
		change(r, row, &pace, now_ns);
	} else {
		rename_row(&r->bucket_name[row], limit);
		start(r, row, &pace, now_ns);
	}
	describe(&r->bucket_name[row], limit);
	store(&b->key, key_of(limit->scope, limit->name));
	return (int)row;
}

/* ---- retire, adopt ---- */

/* Retired rows before a never used one end no probe any more: they become never used. */
static void sweep(struct region *r)
{
	for (uint32_t n = 0, i = r->buckets - 1; n < 2 * r->buckets; n++) {
		uint32_t next = i + 1 == r->buckets ? 0 : i + 1;

		if (load(&r->bucket[i].key) == LAYOUT_KEY_RETIRED &&
			load(&r->bucket[next].key) == LAYOUT_KEY_NEVER)
			store(&r->bucket[i].key, LAYOUT_KEY_NEVER);
		i = i == 0 ? r->buckets - 1 : i - 1;
	}
}

void bucket_retire(struct region *r, const bool *keep)
{
	for (uint32_t i = 0; i < r->buckets; i++)
		if (load(&r->bucket[i].key) >= LAYOUT_KEY_FIRST && !keep[i])
			store(&r->bucket[i].key, LAYOUT_KEY_RETIRED);
	sweep(r);
}

static bool row_is_sane(const struct region *r, uint32_t i)
{
	const struct layout_bucket *b = &r->bucket[i];
	const struct layout_bucket_name *n = &r->bucket_name[i];
	size_t length = strnlen(n->name, LAYOUT_NAME_MAX);

	return pace_is_sane(load(&b->interval), load(&b->tolerance)) &&
		pace_is_sane(load(&b->basis), 1) && load(&n->most) == most_of(n) && length > 0 &&
		length < LAYOUT_NAME_MAX && n->scope >= BUCKET_SCOPE_USER &&
		n->scope <= BUCKET_SCOPE_PROVIDER &&
		load(&b->key) == key_of(n->scope, str_make(n->name, length));
}

void bucket_adopt(struct region *r, uint64_t now_ns)
{
	for (uint32_t i = 0; i < r->buckets; i++) {
		struct layout_bucket *b = &r->bucket[i];
		uint64_t most = most_of(&r->bucket_name[i]), basis = load(&b->basis);

		if (load(&b->key) == LAYOUT_KEY_NEVER)
			continue;
		if (load(&b->tat) > now_ns + honest_debt(most, basis))
			store(&b->tat, now_ns + min_u64(cost_of(most, basis), DEBT_MAX));
		if (load(&b->changed_ns) > now_ns)
			store(&b->changed_ns, now_ns);
		if (load(&b->key) == LAYOUT_KEY_RETIRED || row_is_sane(r, i))
			continue;
		/* What it had admitted is lost, so what is configured next must start empty. */
		store(&r->header->empty_since_ns, max_u64(now_ns, 1));
		store(&b->interval, 0);
		store(&b->key, LAYOUT_KEY_RETIRED);
	}
}

/* ---- view ---- */

static uint64_t available(uint64_t tat, uint64_t interval, uint64_t tolerance, uint64_t now_ns)
{
	uint64_t debt = tat > now_ns ? tat - now_ns : 0;

	if (debt >= tolerance || interval == 0)
		return 0;
	return (uint64_t)(((unsigned __int128)(tolerance - debt) << FRACTION_BITS) / interval);
}

bool bucket_view(const struct region *r, uint32_t index, uint64_t now_ns, struct bucket_view *out)
{
	const struct layout_bucket_name *n;
	const struct layout_bucket *b;

	if (index >= r->buckets)
		return false;
	b = &r->bucket[index];
	n = &r->bucket_name[index];
	if (atomic_load_explicit(&b->key, memory_order_acquire) < LAYOUT_KEY_FIRST)
		return false;
	*out = (struct bucket_view){
		.scope = (enum bucket_scope)n->scope,
		.limit = n->limit,
		.window_ns = n->window_ns,
		.burst = n->burst,
		.tat = load(&b->tat),
		.admitted = load(&b->admitted),
		.rejected = load(&b->rejected),
	};
	out->available = available(out->tat, load(&b->interval), load(&b->tolerance), now_ns);
	memcpy(out->name, n->name, strnlen(n->name, LAYOUT_NAME_MAX));
	return true;
}
