#pragma once

/*
 * The table of limits (shm/bucket.h): making, changing and retiring them, which is the daemon's
 * alone, and viewing them, which anybody may. Taking never stops meanwhile and never sees a limit
 * looser than the loosest of old and new.
 */

#include "shm/bucket.h"

/* ---- configuring; daemon only ---- */

/* limit units per window_ns, burst units at once. 1 <= limit, burst <= 10^12; window 1 us to
 * 400 days. Refused with -ERANGE: more than one unit per nanosecond, less than one in 52 days, a
 * burst that takes more than 73 years to refill. GAUGE: limit == burst, window 0. WINDOW: limit ==
 * burst <= BUCKET_MONEY_MAX, window a day in ns or BUCKET_WINDOW_MONTH. */
struct bucket_limit {
	uint64_t scope;
	enum bucket_resource resource;
	enum bucket_kind kind;
	enum bucket_origin origin;
	struct str name; /* see bucket_join() */
	uint64_t limit, window_ns, burst;
};

/* Whether bucket_configure() would accept it but for room: ranges and the name's length. */
bool bucket_limit_is_valid(const struct bucket_limit *limit);

/* Creates or changes a limit. A change keeps the debt in units, also above the new burst, and what
 * is in flight; so does one that was retired and comes back. A new one starts with its burst, or,
 * where the region lost its past (region_empty_since()), without. One of another kind replaces that
 * of the same name and resource, with its debt and what it has in flight, without a moment in which
 * there is neither. Returns the row, -ENOSPC when the
 * table is full of limits that owe, -EINVAL (scope, name, kind), -ERANGE, -ENAMETOOLONG. */
int bucket_configure(struct region *r, const struct bucket_limit *limit, uint64_t now_ns);

/* Replaces all templates (at most LAYOUT_TEMPLATES); rows made from those that changed follow, rows
 * whose template is gone retire. 0, -ENOSPC, -ERANGE. name of a template is empty. */
int bucket_set_templates(
	struct region *r, const struct bucket_limit *templates, unsigned count, uint64_t now_ns);

/* Makes the rows that bucket_resolve() misses. 0; -ENOSPC: no room and nothing that may be evicted;
 * -ENAMETOOLONG. */
int bucket_instantiate(struct region *r, const struct bucket_names *names, uint64_t now_ns);

/* Retires every configured (not templated) limit whose row is not marked in keep[0 .. buckets-1].
 * Nothing is admitted by it any more; what is in flight settles; its row is free for another limit
 * when nothing is in flight. */
void bucket_retire(struct region *r, const bool *keep);

/* For who wants to know first whether all will find room. Whether the limit has a row, in use or
 * retired, which is then marked; and how many rows new ones could get if of those configured only
 * the marked were in use. Others may take meanwhile, so it is no promise. */
bool bucket_has_row(const struct region *r, const struct bucket_limit *limit, bool *keep);
uint32_t bucket_room(const struct region *r, const bool *keep, uint64_t now_ns);

/* Before limits retire that may have to come back: until templates are set, names that have no
 * limit of a resource are missing one (BUCKET_E_MISSING), where anybody has. */
void bucket_doubt(struct region *r);

/* The day or month of wall_ns (CLOCK_REALTIME): windows that ended begin anew. Once a second. */
void bucket_roll(struct region *r, uint64_t now_ns, uint64_t wall_ns);

/* By region_adopt(): retires rows that make no sense and cuts what nobody can owe. */
void bucket_adopt(struct region *r, uint64_t now_ns);

/* ---- viewing ---- */

/* One row as numbers, for tools and tests; false: not in use. */
struct bucket_view {
	uint64_t scope;
	enum bucket_resource resource;
	enum bucket_kind kind;
	enum bucket_origin origin;
	char name[BUCKET_NAME_TEXT]; /* joined names are shown as "alice@gpt-4o" */
	uint64_t limit, window_ns, burst;
	uint64_t tat, admitted, rejected, pause_ns;
	uint64_t owed;      /* settled units not leaked yet, rounded up; WINDOW: used */
	uint64_t held;      /* units in flight */
	uint64_t available; /* whole units at now; 0 while paused */
	uint64_t full_ns; /* from now until all is available again, if nothing is in flight; WINDOW:
	                     * to its end */
};
bool bucket_view(const struct region *r, uint32_t index, uint64_t now_ns, struct bucket_view *out);

/* "SCOPE NAME RESOURCE", what refusals and tools call a limit. NUL-terminated; the name is as the
 * region has it, whoever wrote that. */
#define BUCKET_LABEL_TEXT 224
void bucket_label(const struct bucket_view *v, char out[BUCKET_LABEL_TEXT]);

/* What a cost asks of a limit of this resource, in its units. */
uint64_t bucket_asked(const struct bucket_cost *cost, enum bucket_resource resource);
