#include "shm/bucket_table.h"

#include <errno.h>
#include <string.h>
#include "base/error.h"
#include "shm/bucket_internal.h"
#include "shm/event.h"
#include "shm/hold.h"

#define INTERVAL_WHOLE_NS 4096
#define WINDOW_MIN NSEC_PER_USEC
#define WINDOW_MAX (400 * NSEC_PER_DAY)
/* How far from its place a row made from a template looks for one to evict. */
#define EVICT_NEAR 64
#define PLACE_TRIES 8

/* ---- limits in the words of a row ---- */

/* What a limit is in nanoseconds or units, and its burst in units. */
struct pace {
	uint64_t interval, tolerance, burst;
};

static int pace_of_rate(const struct bucket_limit *limit, struct pace *out)
{
	unsigned __int128 interval, tolerance;

	if (limit->limit == 0 || limit->limit > BUCKET_UNITS_MAX || limit->burst == 0 ||
		limit->burst > BUCKET_UNITS_MAX || limit->window_ns < WINDOW_MIN ||
		limit->window_ns > WINDOW_MAX || limit->limit > limit->window_ns)
		return error_origin(-ERANGE);
	if (limit->kind == BUCKET_HELD && limit->burst >= BUCKET_HELD_MAX)
		return error_origin(-ERANGE);
	interval = ((unsigned __int128)limit->window_ns << BUCKET_FRACTION_BITS) + limit->limit - 1;
	interval /= limit->limit;
	if (interval >= INTERVAL_WHOLE_NS * BUCKET_FRACTION)
		interval = (interval + BUCKET_FRACTION - 1) &
			~(unsigned __int128)(BUCKET_FRACTION - 1);
	if (interval > BUCKET_INTERVAL_MAX)
		return error_origin(-ERANGE);
	tolerance = (interval * limit->burst + BUCKET_FRACTION - 1) >> BUCKET_FRACTION_BITS;
	if (tolerance > BUCKET_TOLERANCE_MAX)
		return error_origin(-ERANGE);
	*out = (struct pace){ (uint64_t)interval, (uint64_t)tolerance, limit->burst };
	return 0;
}

/* interval of a WINDOW is its end, which bucket_roll() finds. */
static int pace_of(const struct bucket_limit *limit, struct pace *out)
{
	switch (limit->kind) {
	case BUCKET_GAUGE:
		if (limit->limit == 0 || limit->limit != limit->burst ||
			limit->limit >= BUCKET_HELD_MAX || limit->window_ns != 0)
			return error_origin(-ERANGE);
		break;
	case BUCKET_WINDOW:
		if (limit->limit == 0 || limit->limit != limit->burst ||
			limit->limit > BUCKET_MONEY_MAX ||
			(limit->window_ns != NSEC_PER_DAY &&
				limit->window_ns != BUCKET_WINDOW_MONTH))
			return error_origin(-ERANGE);
		break;
	default:
		return pace_of_rate(limit, out);
	}
	/* used stands at its maximum when it is more: that never conforms. */
	*out = (struct pace){ 0, min_u64(limit->limit, BUCKET_USED_MAX - 1), limit->burst };
	return 0;
}

static bool id_is_valid(const struct bucket_limit *limit)
{
	return bucket_scope_is_valid(limit->scope) &&
		bucket_kind_fits(limit->resource, limit->kind) &&
		limit->origin <= BUCKET_ORIGIN_TEMPLATE;
}

bool bucket_limit_is_valid(const struct bucket_limit *limit)
{
	struct pace pace;

	return id_is_valid(limit) && bucket_name_fits(limit->scope, limit->name) &&
		pace_of(limit, &pace) == 0;
}

static bool interval_is_sane(uint64_t interval)
{
	return interval >= BUCKET_FRACTION && interval <= BUCKET_INTERVAL_MAX;
}

static bool pace_is_sane(const struct region *r, uint32_t row, uint64_t kind)
{
	uint64_t interval = load(&r->bucket[row].interval);
	uint64_t tolerance = load(&r->bucket[row].tolerance);

	if (kind == BUCKET_GAUGE)
		return tolerance > 0 && tolerance < BUCKET_HELD_MAX;
	if (kind == BUCKET_WINDOW)
		return tolerance > 0 && tolerance < BUCKET_USED_MAX;
	return interval_is_sane(interval) && interval_is_sane(load(&r->bucket_name[row].basis)) &&
		tolerance > 0 && tolerance <= BUCKET_TOLERANCE_MAX;
}

/* ---- change ---- */

/* What a row that owes most units can show: others may read their clocks after the daemon did. */
static uint64_t honest_debt(uint64_t most, uint64_t interval)
{
	return min_u64(cost_of(most, interval), BUCKET_DEBT_MAX) + BUCKET_WAIT_SLACK;
}

/* Of the debt in tat, up to the latest time that anybody booked: these times stay as they were
 * told, so a faster limit does not shrink it. ahead_ns is raised before tat. */
static uint64_t booked_debt(const struct region *r, uint32_t row, uint64_t tat, uint64_t at_ns)
{
	uint64_t until_ns = min_u64(load_acquire(&r->bucket_name[row].ahead_ns), tat);

	return until_ns > at_ns ? until_ns - at_ns : 0;
}

/*
 * Recounts the debt in tat from one interval to another, rounded up. All of it is kept, also what
 * is above the new burst: else lowering a burst and raising it again would refill it. Only above
 * most units tat must be broken, and is cut to that. Returns the units owed, rounded up.
 *
 * The clock is read after tat: else the time that others went on in meanwhile would count as debt,
 * and a faster limit would shrink it. most is read after tat: who owes more than the burst raises
 * it before.
 */
static uint64_t debt_recount(
	const struct region *r, uint32_t index, uint64_t from, uint64_t to, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[index];
	uint64_t tat = load_acquire(&b->tat), most = 0;

	for (int i = 0; i < BUCKET_TRIES_MAX; i++) {
		uint64_t at_ns = true_time(r, now_ns);
		unsigned __int128 owed = tat > at_ns ? tat - at_ns : 0, debt;
		uint64_t units;

		units = most = most_of(&r->bucket_name[index]);
		debt = cost_of(most, to);
		if (owed <= min_u64(honest_debt(most, from), BUCKET_TOLERANCE_MAX)) {
			uint64_t fixed = to < from ? booked_debt(r, index, tat, at_ns) : 0;

			debt = fixed + ((owed - fixed) * to + from - 1) / from;
			units = units_of((uint64_t)owed, from);
			if (fixed > 0)
				units = max_u64(units, units_of((uint64_t)debt, to));
		}
		if (debt > BUCKET_DEBT_MAX)
			debt = BUCKET_DEBT_MAX;
		/* Where nothing is owed, any time before now says so: it changes, too. */
		if (swap(&b->tat, &tat, at_ns + (uint64_t)debt - (owed == 0 && tat == at_ns)))
			return units;
	}
	store(&b->tat, true_time(r, now_ns) + min_u64(cost_of(most, to), BUCKET_DEBT_MAX));
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
 * What is in flight is in units, so it needs no recount; who moved it reads the limit once more.
 *
 * Nobody can owe more than was owed at the last change, or else the burst since: that is most. It
 * is raised before all else and lowered after, so that the cut of a broken tat, by the next change
 * or the next daemon, never forgets what is really owed. Who used more than was held raises it too:
 * then it is not lowered.
 *
 * changed_ns is in the future from before the first store to after the last: what leaked at one
 * rate is not given back at another.
 */
static void change_rate(
	const struct region *r, uint32_t index, const struct pace *to, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[index];
	struct layout_bucket_name *row = &r->bucket_name[index];
	uint64_t interval = load(&b->interval), tolerance = load(&b->tolerance);
	uint64_t basis = load(&row->basis), most, units;
	bool rate_changes = interval != to->interval || basis != to->interval;

	if (!rate_changes && tolerance == to->tolerance)
		return;
	if (rate_changes)
		store(&row->changed_ns, UINT64_MAX);
	if (load(&row->most) != most_of(row))
		store(&row->most, most_of(row));
	bucket_raise_most(r, index, to->burst);
	most = load(&row->most);
	store(&b->tolerance, min_u64(tolerance, to->tolerance));
	store(&b->interval, max_u64(interval, to->interval));
	if (to->interval < basis)
		store(&row->basis, to->interval);
	units = debt_recount(r, index, basis, to->interval, now_ns);
	store(&row->basis, to->interval);
	store(&b->interval, to->interval);
	store(&b->tolerance, to->tolerance);
	swap(&row->most, &most, max_u64(units, to->burst));
	if (rate_changes)
		store(&row->changed_ns, true_time(r, now_ns));
}

/* A day's window that becomes a month's keeps what was used, and finds its end anew. */
static void change_window(const struct region *r, uint32_t index, const struct pace *to,
	const struct bucket_limit *limit)
{
	struct layout_bucket *b = &r->bucket[index];

	if (load(&r->bucket_name[index].window_ns) != limit->window_ns)
		store(&b->interval, 0);
	store(&b->tolerance, to->tolerance);
}

static void change(const struct region *r, uint32_t row, const struct pace *to,
	const struct bucket_limit *limit, uint64_t now_ns)
{
	if (limit->kind == BUCKET_GAUGE)
		store(&r->bucket[row].tolerance, to->tolerance);
	else if (limit->kind == BUCKET_WINDOW)
		change_window(r, row, to, limit);
	else
		change_rate(r, row, to, now_ns);
}

/* ---- which row ---- */

/* What tat says is owed. */
static bool tat_owes(uint64_t kind, uint64_t tat, uint64_t now_ns)
{
	return kind == BUCKET_WINDOW ? (tat & BUCKET_USED_MAX) != 0 :
				       kind != BUCKET_GAUGE && tat > now_ns;
}

/* Not as good as new: something is owed, in flight or paused. */
static bool row_owes(const struct region *r, uint32_t row, uint64_t now_ns)
{
	const struct layout_bucket *b = &r->bucket[row];
	const struct layout_bucket_name *n = &r->bucket_name[row];

	return (uint32_t)load_acquire(&b->held) != 0 || load_acquire(&n->late) != 0 ||
		load(&b->pause_ns) > now_ns ||
		tat_owes(load(&n->kind), load_acquire(&b->tat), now_ns);
}

/* tat of a limit nobody can see yet. Where the region lost its past, its burst counts as used up
 * then. */
static uint64_t tat_at_start(const struct region *r, const struct bucket_limit *limit,
	const struct pace *pace, uint64_t now_ns)
{
	uint64_t empty_ns = min_u64(region_empty_since(r), now_ns);

	if (limit->kind == BUCKET_GAUGE)
		return 0;
	if (limit->kind == BUCKET_WINDOW)
		return empty_ns ? pace->tolerance : 0;
	return empty_ns ? max_u64(now_ns, empty_ns + pace->tolerance) : now_ns;
}

/*
 * Makes a row nobody's that owes nothing, against those who are amid taking from it: who looks at
 * the key after it is retired takes nothing; who looked before fails at the closed total, or at
 * tat, which changes. Where it owes something by then, all is put back. False: it owes.
 *
 * A daemon that dies in between leaves a retired row, with its old name and what it owes, and
 * perhaps closed; bucket_adopt() opens it.
 */
static bool take_over(
	struct region *r, uint32_t row, uint64_t start_tat, enum bucket_kind to, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[row];
	uint64_t key = load(&b->key), kind = load(&r->bucket_name[row].kind), tat;

	if (row_owes(r, row, now_ns))
		return false;
	if (key >= LAYOUT_KEY_FIRST)
		store(&b->key, LAYOUT_KEY_RETIRED);
	if (hold_close(r, row)) {
		tat = load_acquire(&b->tat);
		if (!tat_owes(kind, tat, now_ns) && load(&b->pause_ns) <= now_ns &&
			load_acquire(&r->bucket_name[row].late) == 0 &&
			swap(&b->tat, &tat, tat_after(tat, kind, start_tat, to)))
			return true;
		hold_open(r, row);
	}
	if (key >= LAYOUT_KEY_FIRST)
		store(&b->key, key);
	return false;
}

/* What a search for a row to make finds. */
struct places {
	uint32_t same;             /* retired, with the same name: it finds its debt again */
	uint32_t spare, spare_far; /* not in use and owing nothing; how far from its place */
	uint32_t near, any;        /* made from a template, least recently used; near its place */
};

static void note_oldest(const struct region *r, uint32_t row, uint32_t *oldest)
{
	if (*oldest == BUCKET_NONE ||
		load(&r->bucket_name[row].used_ns) < load(&r->bucket_name[*oldest].used_ns))
		*oldest = row;
}

static void look_at(const struct region *r, uint32_t row, uint32_t far, const struct bucket_id *id,
	uint64_t now_ns, struct places *p)
{
	uint64_t key = load_acquire(&r->bucket[row].key);

	if (key == LAYOUT_KEY_RETIRED && bucket_row_is(r, row, id))
		p->same = row;
	if (key < LAYOUT_KEY_FIRST) {
		if (p->spare == BUCKET_NONE && !row_owes(r, row, now_ns)) {
			p->spare = row;
			p->spare_far = far;
		}
	} else if (load(&r->bucket_name[row].origin) == BUCKET_ORIGIN_TEMPLATE &&
		!row_owes(r, row, now_ns)) {
		note_oldest(r, row, &p->any);
		if (far < EVICT_NEAR)
			note_oldest(r, row, &p->near);
	}
}

static struct places places_of(struct region *r, const struct bucket_id *id, uint64_t now_ns)
{
	struct places p = { BUCKET_NONE, BUCKET_NONE, 0, BUCKET_NONE, BUCKET_NONE };
	uint32_t row = (uint32_t)(bucket_key(id) % r->buckets);

	for (uint32_t far = 0; far < r->buckets && p.same == BUCKET_NONE; far++) {
		look_at(r, row, far, id, now_ns, &p);
		if (load(&r->bucket[row].key) == LAYOUT_KEY_NEVER) {
			if (p.spare != BUCKET_NONE)
				break;
			/* Broken words: it cannot be used, so it may not end a search either. */
			store(&r->bucket[row].key, LAYOUT_KEY_RETIRED);
		}
		row = row + 1 == r->buckets ? 0 : row + 1;
	}
	return p;
}

static void tell_evicted(const struct region *r, uint32_t row, uint64_t now_ns)
{
	event_add(r, &(struct event){ .time_ns = now_ns, .kind = EVENT_EVICTED, .row = row });
}

/*
 * A row for a new limit, taken over; or BUCKET_NONE: there is no room. A row made from a template
 * evicts the least recently used one near its place before it goes far from it, so that a full
 * table stays quick to search.
 */
static uint32_t make_room(struct region *r, const struct bucket_limit *limit,
	const struct bucket_id *id, uint64_t start_tat, uint64_t now_ns, bool *same)
{
	for (int i = 0; i < PLACE_TRIES; i++) {
		struct places p = places_of(r, id, now_ns);
		uint32_t row = p.spare;
		bool evicts;

		*same = p.same != BUCKET_NONE;
		if (*same)
			return p.same;
		if (row == BUCKET_NONE)
			row = p.any;
		if (limit->origin == BUCKET_ORIGIN_TEMPLATE && p.near != BUCKET_NONE &&
			(p.spare == BUCKET_NONE || p.spare_far >= EVICT_NEAR))
			row = p.near;
		if (row == BUCKET_NONE)
			return BUCKET_NONE;
		evicts = load(&r->bucket[row].key) >= LAYOUT_KEY_FIRST;
		if (!take_over(r, row, start_tat, limit->kind, now_ns))
			continue;
		if (evicts)
			tell_evicted(r, row, now_ns);
		return row;
	}
	return BUCKET_NONE;
}

/* ---- configure ---- */

static void start(const struct region *r, uint32_t row, const struct pace *pace, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[row];
	struct layout_bucket_name *n = &r->bucket_name[row];

	store(&n->most, pace->burst);
	store(&n->basis, pace->interval);
	store(&n->changed_ns, true_time(r, now_ns));
	store(&n->heard, 0);
	store(&n->used_ns, now_ns);
	store(&n->ahead_ns, 0);
	store(&n->late, 0);
	store(&b->interval, pace->interval);
	store(&b->tolerance, pace->tolerance);
	store(&b->admitted, 0);
	store(&b->rejected, 0);
	store(&b->pause_ns, 0);
}

static void describe(struct layout_bucket_name *row, const struct bucket_limit *limit)
{
	store(&row->origin, limit->origin);
	store(&row->burst, limit->burst);
	store(&row->limit, limit->limit);
	store(&row->window_ns, limit->window_ns);
}

/* Without a scope it is nobody's name, however much of it is written. */
static void rename_row(struct region *r, uint32_t row, const struct bucket_id *id)
{
	struct layout_bucket_name *n = &r->bucket_name[row];

	store(&n->scope, 0);
	bucket_row_rename(r, row, id->name);
	store(&n->resource, id->resource);
	store(&n->kind, id->kind);
	store(&n->scope, id->scope);
}

static uint64_t in_use_bit(uint64_t resource, uint64_t kind)
{
	return kind == bucket_kind_of((enum bucket_resource)resource, false) ?
		BUCKET_IN_USE(resource) :
		BUCKET_IN_USE_RESERVE(resource);
}

/* A row that bears the name already: it goes on, or begins anew where its words make no sense. */
static void go_on(struct region *r, uint32_t row, const struct pace *pace,
	const struct bucket_limit *limit, uint64_t now_ns)
{
	if (pace_is_sane(r, row, limit->kind)) {
		change(r, row, pace, limit, now_ns);
		return;
	}
	start(r, row, pace, now_ns);
	store(&r->bucket[row].tat, tat_at_start(r, limit, pace, now_ns));
}

int bucket_configure(struct region *r, const struct bucket_limit *limit, uint64_t now_ns)
{
	struct bucket_id id = { limit->scope, limit->resource, limit->kind, limit->name };
	struct bucket_kind_change change;
	struct pace pace = { 0 };
	uint32_t row;
	bool same = true;
	int e;

	if (limit->name.length >= LAYOUT_NAME_MAX)
		return error_origin(-ENAMETOOLONG);
	if (!id_is_valid(limit) || !bucket_name_fits(limit->scope, limit->name))
		return error_origin(-EINVAL);
	e = pace_of(limit, &pace);
	if (e < 0)
		return error_trace(e);
	row = bucket_find(r, &id);
	if (row == BUCKET_NONE)
		row = make_room(
			r, limit, &id, tat_at_start(r, limit, &pace, now_ns), now_ns, &same);
	if (row == BUCKET_NONE)
		return error_origin(-ENOSPC);
	if (same) {
		go_on(r, row, &pace, limit, now_ns);
	} else {
		rename_row(r, row, &id);
		start(r, row, &pace, now_ns);
		hold_open(r, row);
	}
	describe(&r->bucket_name[row], limit);
	bucket_kind_begin(r, &change, limit, row, now_ns);
	store(&r->bucket[row].key, bucket_key(&id));
	atomic_fetch_or_explicit(&r->header->limits_in_use[limit->scope],
		in_use_bit(limit->resource, limit->kind), memory_order_release);
	bucket_kind_end(r, &change, row, now_ns);
	bucket_wake(r, row);
	return (int)row;
}

/* ---- retire ---- */

/* Retired rows before a never used one end no probe any more: they become never used, unless they
 * have something to remember. */
static void sweep(struct region *r)
{
	uint64_t now_ns = r->clock_ns();

	for (uint32_t n = 0, i = r->buckets - 1; n < 2 * r->buckets; n++) {
		uint32_t next = i + 1 == r->buckets ? 0 : i + 1;

		if (load(&r->bucket[i].key) == LAYOUT_KEY_RETIRED &&
			load(&r->bucket[next].key) == LAYOUT_KEY_NEVER && !row_owes(r, i, now_ns))
			store(&r->bucket[i].key, LAYOUT_KEY_NEVER);
		i = i == 0 ? r->buckets - 1 : i - 1;
	}
}

static const struct layout_template *template_of(const struct region *r, uint32_t row)
{
	const struct layout_bucket_name *n = &r->bucket_name[row];

	for (uint32_t i = 0; i < r->templates; i++) {
		const struct layout_template *t = &r->template[i];

		if (load(&t->scope) != 0 && load(&t->scope) == load(&n->scope) &&
			load(&t->resource) == load(&n->resource) &&
			load(&t->kind) == load(&n->kind))
			return t;
	}
	return NULL;
}

/*
 * Which limits and templates exist at all. What is new is said before what is gone is forgotten.
 * Only who has written all templates may forget one: a daemon may have died writing them, and a
 * name that seems to have none counts as not limited.
 */
static void tell_in_use(struct region *r, bool forget_templates)
{
	uint64_t in_use[BUCKET_SCOPE_MASKS] = { 0 };

	for (unsigned i = 0; i < BUCKET_SCOPE_MASKS && !forget_templates; i++)
		in_use[i] = load(&r->header->limits_in_use[i]) & BUCKET_IN_USE_TEMPLATES;

	for (uint32_t i = 0; i < r->buckets; i++) {
		const struct layout_bucket_name *n = &r->bucket_name[i];

		if (load(&r->bucket[i].key) >= LAYOUT_KEY_FIRST &&
			load(&n->scope) < BUCKET_SCOPE_MASKS)
			in_use[load(&n->scope)] |=
				in_use_bit(load(&n->resource) % BUCKET_RESOURCES, load(&n->kind));
	}
	for (uint32_t i = 0; i < r->templates; i++) {
		const struct layout_template *t = &r->template[i];

		if (bucket_scope_is_valid(load(&t->scope)))
			in_use[load(&t->scope)] |=
				BUCKET_IN_USE_TEMPLATE(load(&t->resource) % BUCKET_RESOURCES);
	}
	for (unsigned i = 0; i < BUCKET_SCOPE_MASKS; i++)
		store(&r->header->limits_in_use[i], in_use[i]);
}

static void retire_row(struct region *r, uint32_t row)
{
	store(&r->bucket[row].key, LAYOUT_KEY_RETIRED);
	bucket_wake(r, row);
}

void bucket_retire(struct region *r, const bool *keep)
{
	for (uint32_t i = 0; i < r->buckets; i++)
		if (load(&r->bucket[i].key) >= LAYOUT_KEY_FIRST && !keep[i] &&
			load(&r->bucket_name[i].origin) != BUCKET_ORIGIN_TEMPLATE)
			retire_row(r, i);
	sweep(r);
	tell_in_use(r, false);
}

bool bucket_has_row(const struct region *r, const struct bucket_limit *limit, bool *keep)
{
	struct bucket_id id = { limit->scope, limit->resource, limit->kind, limit->name };
	uint32_t row = bucket_find_any(r, &id);

	if (row != BUCKET_NONE)
		keep[row] = true;
	return row != BUCKET_NONE;
}

uint32_t bucket_room(const struct region *r, const bool *keep, uint64_t now_ns)
{
	uint32_t room = 0;

	for (uint32_t i = 0; i < r->buckets; i++)
		room += !keep[i] && !row_owes(r, i, now_ns);
	return room;
}

void bucket_doubt(struct region *r)
{
	for (unsigned i = 0; i < BUCKET_SCOPE_MASKS; i++) {
		uint64_t in_use = load(&r->header->limits_in_use[i]);

		atomic_fetch_or_explicit(&r->header->limits_in_use[i],
			((in_use | in_use >> 16) & 0xff) << 8, memory_order_release);
	}
}

/* ---- templates ---- */

static int check_templates(
	const struct region *r, const struct bucket_limit *templates, unsigned count)
{
	struct pace pace;

	if (count > r->templates)
		return error_origin(-ENOSPC);
	for (unsigned i = 0; i < count; i++) {
		int e = id_is_valid(&templates[i]) ? pace_of(&templates[i], &pace) :
						     error_origin(-EINVAL);

		if (e < 0)
			return error_trace(e);
	}
	return 0;
}

static void write_template(struct layout_template *t, const struct bucket_limit *limit)
{
	store(&t->scope, 0);
	if (!limit)
		return;
	store(&t->resource, limit->resource);
	store(&t->kind, limit->kind);
	store(&t->limit, limit->limit);
	store(&t->window_ns, limit->window_ns);
	store(&t->burst, limit->burst);
	store(&t->scope, limit->scope);
}

static struct bucket_limit limit_of(const struct layout_template *t, struct str name)
{
	return (struct bucket_limit){
		.scope = load(&t->scope),
		.resource = (enum bucket_resource)load(&t->resource),
		.kind = (enum bucket_kind)load(&t->kind),
		.origin = BUCKET_ORIGIN_TEMPLATE,
		.name = name,
		.limit = load(&t->limit),
		.window_ns = load(&t->window_ns),
		.burst = load(&t->burst),
	};
}

/* A row that was made from a template follows it, or goes with it. */
static void follow(struct region *r, uint32_t row, uint64_t now_ns)
{
	const struct layout_template *t = template_of(r, row);
	char name[LAYOUT_NAME_MAX];
	struct bucket_limit limit;

	if (!t) {
		retire_row(r, row);
		return;
	}
	limit = limit_of(t, str_make(name, bucket_row_name(r, row, name)));
	if (bucket_configure(r, &limit, now_ns) < 0)
		retire_row(r, row);
}

int bucket_set_templates(
	struct region *r, const struct bucket_limit *templates, unsigned count, uint64_t now_ns)
{
	int e = check_templates(r, templates, count);

	if (e < 0)
		return error_trace(e);
	for (uint32_t i = 0; i < r->templates; i++)
		write_template(&r->template[i], i < count ? &templates[i] : NULL);
	for (uint32_t i = 0; i < r->buckets; i++)
		if (load(&r->bucket[i].key) >= LAYOUT_KEY_FIRST &&
			load(&r->bucket_name[i].origin) == BUCKET_ORIGIN_TEMPLATE)
			follow(r, i, now_ns);
	sweep(r);
	tell_in_use(r, true);
	return 0;
}

/* A limit of its own counts, in whatever kind. It is in use: what is made next evicts another. */
static bool has_limit(const struct region *r, const struct bucket_limit *limit, uint64_t now_ns)
{
	struct bucket_set found = { 0 };

	if (!bucket_set_add(&found, r, limit->scope, limit->resource, limit->name))
		return false;
	for (uint32_t i = 0; i < found.count; i++)
		store(&r->bucket_name[found.index[i]].used_ns, now_ns);
	return true;
}

static bool names_are_all(uint64_t scope, const struct bucket_names *names)
{
	return (!(scope & BUCKET_SCOPE_USER) || names->user.length > 0) &&
		(!(scope & BUCKET_SCOPE_MODEL) || names->model.length > 0) &&
		(!(scope & BUCKET_SCOPE_PROVIDER) || names->provider.length > 0) &&
		(!(scope & BUCKET_SCOPE_KEY) || names->key.length > 0);
}

/* make: or only look whether it is there. */
static int instantiate_one(struct region *r, const struct layout_template *t,
	const struct bucket_names *names, uint64_t now_ns, bool make)
{
	char name[LAYOUT_NAME_MAX];
	struct bucket_limit limit;
	int row;

	if (!bucket_scope_is_valid(load(&t->scope)) || !names_are_all(load(&t->scope), names))
		return 0;
	if (!bucket_join(load(&t->scope), names, name))
		return error_origin(-ENAMETOOLONG);
	limit = limit_of(t, str_of(name));
	if (has_limit(r, &limit, now_ns) || !make)
		return 0;
	row = bucket_configure(r, &limit, now_ns);
	if (row < 0)
		return error_trace(row);
	store(&r->bucket_name[row].used_ns, now_ns);
	return 0;
}

int bucket_instantiate(struct region *r, const struct bucket_names *names, uint64_t now_ns)
{
	int result = 0;

	/* All that are there are in use before one is made. */
	for (uint32_t i = 0; i < 2 * r->templates; i++) {
		int e = instantiate_one(
			r, &r->template[i % r->templates], names, now_ns, i >= r->templates);

		if (e < 0)
			result = e;
	}
	return result;
}

/* ---- adopt ---- */

static bool row_is_sane(const struct region *r, uint32_t i)
{
	const struct layout_bucket_name *n = &r->bucket_name[i];
	struct bucket_id id = { .scope = load(&n->scope),
		.resource = (enum bucket_resource)load(&n->resource),
		.kind = (enum bucket_kind)load(&n->kind) };
	char name[LAYOUT_NAME_MAX];

	id.name = str_make(name, bucket_row_name(r, i, name));
	return bucket_scope_is_valid(id.scope) &&
		bucket_kind_fits(load(&n->resource), load(&n->kind)) &&
		load(&n->origin) <= BUCKET_ORIGIN_TEMPLATE && pace_is_sane(r, i, id.kind) &&
		load(&n->most) == most_of(n) && bucket_name_fits(id.scope, id.name) &&
		load(&r->bucket[i].key) == bucket_key(&id) && bucket_find(r, &id) == i;
}

/* What nobody can owe is cut. */
static void adopt_debt(struct region *r, uint32_t i, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[i];
	struct layout_bucket_name *n = &r->bucket_name[i];
	uint64_t most = most_of(n), basis = load(&n->basis);

	if (load(&b->tat) > now_ns + honest_debt(most, basis))
		store(&b->tat, now_ns + min_u64(cost_of(most, basis), BUCKET_DEBT_MAX));
	if (load(&n->changed_ns) > now_ns)
		store(&n->changed_ns, now_ns);
	if (load(&n->ahead_ns) > now_ns + BUCKET_AHEAD_MAX_NS + BUCKET_WAIT_SLACK)
		store(&n->ahead_ns, now_ns + BUCKET_AHEAD_MAX_NS);
}

static void adopt_row(struct region *r, uint32_t i, uint64_t now_ns)
{
	struct layout_bucket *b = &r->bucket[i];
	uint64_t kind = load(&r->bucket_name[i].kind);

	if (load(&b->pause_ns) > now_ns + BUCKET_PAUSE_MAX_NS)
		store(&b->pause_ns, now_ns + BUCKET_PAUSE_MAX_NS);
	if (kind != BUCKET_GAUGE && kind != BUCKET_WINDOW)
		adopt_debt(r, i, now_ns);
	if (load(&b->key) == LAYOUT_KEY_RETIRED || row_is_sane(r, i))
		return;
	/* What it had admitted is lost, so what is configured next must start empty. */
	store(&r->header->empty_since_ns, max_u64(now_ns, 1));
	store(&b->interval, 0);
	store(&b->tolerance, 0);
	store(&b->key, LAYOUT_KEY_RETIRED);
}

void bucket_adopt(struct region *r, uint64_t now_ns)
{
	for (uint32_t i = 0; i < r->buckets; i++) {
		if ((uint32_t)load(&r->bucket[i].held) == BUCKET_HELD_CLOSED)
			hold_open(r, i);
		if (load(&r->bucket[i].key) != LAYOUT_KEY_NEVER)
			adopt_row(r, i, now_ns);
	}
	tell_in_use(r, false);
}
