#include <stdio.h>
#include <string.h>
#include "shm/bucket_internal.h"

/* ---- calendar ---- */

/* A window of the calendar: its number, and when it ends. */
struct window {
	uint64_t number, end_ns; /* CLOCK_REALTIME */
};

/* Months since March of year 0 from days since 1970, and back: H. Hinnant, "chrono-compatible
 * low-level date algorithms", days_from_civil and civil_from_days. */
static uint64_t month_of_day(uint64_t day)
{
	uint64_t days = day + 719468, era = days / 146097, of_era = days % 146097;
	uint64_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
	uint64_t of_year = of_era - (365 * year + year / 4 - year / 100);

	return (era * 400 + year) * 12 + (5 * of_year + 2) / 153;
}

static uint64_t first_day_of_month(uint64_t month)
{
	uint64_t year = month / 12, era = year / 400, of_era = year % 400;
	uint64_t of_year = (153 * (month % 12) + 2) / 5;

	return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

static struct window window_at(uint64_t window_ns, uint64_t wall_ns)
{
	uint64_t day = wall_ns / NSEC_PER_DAY, month;

	if (window_ns != BUCKET_WINDOW_MONTH)
		return (struct window){ day, (day + 1) * NSEC_PER_DAY };
	month = month_of_day(day);
	return (struct window){ month, first_day_of_month(month + 1) * NSEC_PER_DAY };
}

/* ---- windows ---- */

/* What was used late counts twice for an instant, or where the daemon dies in it until the window
 * ends, but never not at all: readers load late before tat. */
static void window_set(
	struct region *r, uint32_t row, uint64_t epoch, bool keep_used, bool keep_late)
{
	struct layout_bucket *b = &r->bucket[row];
	shared_u64 *late_word = &r->bucket_name[row].late;
	uint64_t seen = load_acquire(&b->tat), late = load_acquire(late_word);

	for (int i = 0; i < BUCKET_TRIES_MAX; i++) {
		uint64_t used = keep_used ? seen & BUCKET_USED_MAX : 0;

		if (keep_late)
			used = min_u64(add_saturating(used, late), BUCKET_USED_MAX);
		if (!swap(&b->tat, &seen, epoch << BUCKET_USED_BITS | used))
			continue;
		if (late > 0)
			atomic_fetch_sub_explicit(late_word, late, memory_order_acq_rel);
		return;
	}
}

/*
 * The epoch in tat is the number of the window in the calendar, so that each is given once: where
 * the clock was set back, used stays until the calendar is past the window that was begun last. A
 * row without an end has not found its place in the calendar yet, and keeps what was used. What was
 * used since the end of a window counts for the next, however late that begins.
 */
static void roll(struct region *r, uint32_t row, uint64_t now_ns, uint64_t wall_ns)
{
	struct layout_bucket *b = &r->bucket[row];
	struct window w = window_at(load(&r->bucket_name[row].window_ns), wall_ns);
	uint64_t epoch = w.number % BUCKET_EPOCHS;
	uint64_t ahead = (epoch - (load(&b->tat) >> BUCKET_USED_BITS)) % BUCKET_EPOCHS;
	bool fresh = load(&b->interval) == 0, next = ahead > 0 && ahead < BUCKET_EPOCHS / 2;

	if (fresh || next)
		window_set(r, row, epoch, fresh, true);
	else if (load(&r->bucket_name[row].late) > 0)
		window_set(r, row, load(&b->tat) >> BUCKET_USED_BITS, true, true);
	store(&b->interval, now_ns + (w.end_ns - wall_ns));
	if (next)
		bucket_wake(r, row);
}

void bucket_roll(struct region *r, uint64_t now_ns, uint64_t wall_ns)
{
	store(&r->header->wall_offset_ns, wall_ns - now_ns);
	for (uint32_t i = 0; i < r->buckets; i++)
		if (load(&r->bucket[i].key) != LAYOUT_KEY_NEVER &&
			load(&r->bucket_name[i].kind) == BUCKET_WINDOW)
			roll(r, i, now_ns, wall_ns);
}

/* ---- reset ---- */

static void reset_window(struct region *r, uint32_t row, uint64_t now_ns)
{
	uint64_t offset_ns = load(&r->header->wall_offset_ns);
	struct layout_bucket *b = &r->bucket[row];
	struct window w = window_at(load(&r->bucket_name[row].window_ns), now_ns + offset_ns);
	uint64_t epoch = offset_ns ? w.number % BUCKET_EPOCHS : load(&b->tat) >> BUCKET_USED_BITS;

	window_set(r, row, epoch, false, false);
}

/* What was taken before is not given back after. */
static void reset_debt(struct region *r, uint32_t row, uint64_t now_ns)
{
	store(&r->bucket_name[row].changed_ns, UINT64_MAX);
	store(&r->bucket[row].tat, now_ns);
	store(&r->bucket_name[row].changed_ns, true_time(r, now_ns));
}

void bucket_reset(struct region *r, uint32_t row, uint64_t now_ns)
{
	uint64_t kind;

	if (row >= r->buckets)
		return;
	kind = load(&r->bucket_name[row].kind);
	if (kind == BUCKET_WINDOW)
		reset_window(r, row, now_ns);
	else if (kind != BUCKET_GAUGE)
		reset_debt(r, row, now_ns);
	bucket_wake(r, row);
}

/* ---- view ---- */

static void view_window(
	const struct layout_bucket *b, uint64_t late, uint64_t now_ns, struct bucket_view *out)
{
	uint64_t tolerance = load(&b->tolerance), end_ns = load(&b->interval);
	uint64_t taken;

	out->owed = min_u64((out->tat & BUCKET_USED_MAX) + late, BUCKET_USED_MAX);
	out->held *= BUCKET_QUANTUM;
	taken = out->owed + out->held;
	out->available = tolerance > taken ? tolerance - taken : 0;
	out->full_ns = end_ns > now_ns ? end_ns - now_ns : 0;
}

static void view_debt(const struct layout_bucket *b, uint64_t now_ns, struct bucket_view *out)
{
	uint64_t interval = load(&b->interval), tolerance = load(&b->tolerance), units;
	uint64_t debt = out->tat > now_ns ? out->tat - now_ns : 0;

	out->owed = units_of(debt, interval);
	out->full_ns = debt;
	if (debt >= tolerance || interval == 0)
		return;
	units = (uint64_t)(((unsigned __int128)(tolerance - debt) << BUCKET_FRACTION_BITS) /
		interval);
	out->available = units > out->held ? units - out->held : 0;
}

static void view_state(
	const struct layout_bucket *b, uint64_t late, uint64_t now_ns, struct bucket_view *out)
{
	uint64_t tolerance = load(&b->tolerance);

	if (out->kind == BUCKET_RATE)
		out->held = 0;
	if (out->kind == BUCKET_WINDOW)
		view_window(b, late, now_ns, out);
	else if (out->kind == BUCKET_GAUGE)
		out->available = tolerance > out->held ? tolerance - out->held : 0;
	else
		view_debt(b, now_ns, out);
	if (out->pause_ns > now_ns)
		out->available = 0;
}

/* "alice@gpt-4o" */
static void view_name(const struct region *r, uint32_t index, struct bucket_view *out)
{
	char name[LAYOUT_NAME_MAX], *join;
	size_t length = bucket_row_name(r, index, name);

	join = memchr(name, LAYOUT_NAME_JOIN, length);
	if (join)
		*join = '@';
	memcpy(out->name, name, length);
}

bool bucket_view(const struct region *r, uint32_t index, uint64_t now_ns, struct bucket_view *out)
{
	const struct layout_bucket_name *n;
	const struct layout_bucket *b;
	uint64_t late;

	if (index >= r->buckets)
		return false;
	b = &r->bucket[index];
	n = &r->bucket_name[index];
	if (load_acquire(&b->key) < LAYOUT_KEY_FIRST)
		return false;
	late = late_of(n);
	*out = (struct bucket_view){
		.scope = load(&n->scope),
		.resource = (enum bucket_resource)load(&n->resource),
		.kind = (enum bucket_kind)load(&n->kind),
		.origin = (enum bucket_origin)load(&n->origin),
		.limit = load(&n->limit),
		.window_ns = load(&n->window_ns),
		.burst = load(&n->burst),
		.held = (uint32_t)load_acquire(&b->held),
		.tat = load_acquire(&b->tat),
		.admitted = load(&b->admitted),
		.rejected = load(&b->rejected),
		.pause_ns = load(&b->pause_ns),
	};
	view_state(b, late, now_ns, out);
	view_name(r, index, out);
	return true;
}

void bucket_label(const struct bucket_view *v, char out[BUCKET_LABEL_TEXT])
{
	snprintf(out, BUCKET_LABEL_TEXT, "%s %s %s", bucket_scope_name(v->scope), v->name,
		bucket_resource_name(v->resource));
}

uint64_t bucket_asked(const struct bucket_cost *cost, enum bucket_resource resource)
{
	struct bucket_units units;

	units_ask(&units, cost);
	return resource < BUCKET_RESOURCES ? units.of[resource] : 0;
}
