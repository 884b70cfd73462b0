#pragma once

/*
 * Rate budgets shared by processes: GCRA in one word (ATM Forum TM 4.0, I.371; "virtual
 * scheduling"), and an all-or-nothing acquire over several of them.
 *
 * Exactness: in any window of length t the admissions of all processes together are at most
 * burst + rate * t of the loosest limit in force meanwhile, however often limits change, and also
 * while processes are killed at any instruction: the only write that admits is one CAS. A dead
 * process can have taken an admission it never used; that heals after one interval. Rounding is
 * always against the caller.
 *
 * Time is the caller's: CLOCK_BOOTTIME in nanoseconds, read right before the call. A stale
 * now only makes the test stricter; where it would admit more (undoing, changing a limit) the
 * region's clock is read again. All functions are lock-free, thread-safe and process-safe,
 * touch nothing but the rows named, and trust nothing they read there. Those that take or
 * configure need a writable region; an observer can peek and view.
 *
 * Where the numbers end: intervals from 4096 ns up are whole nanoseconds, so a burst can be
 * taken singly to the last unit and the bound is exact. Faster limits (above 244,000 a second)
 * have fractions, so that tokens taken by the thousand lose nothing; the bound is then that of a
 * window one nanosecond longer.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "shm/region.h"

#define BUCKET_SET_MAX 8
#define BUCKET_NONE UINT32_MAX

/* Also the order of acquisition: narrowest first, so that a busy user stops at his own limit. */
enum bucket_scope {
	BUCKET_SCOPE_USER = 1,
	BUCKET_SCOPE_MODEL = 2,
	BUCKET_SCOPE_PROVIDER = 3,
};
const char *bucket_scope_name(uint64_t scope);

enum bucket_outcome {
	BUCKET_OK = 0,
	BUCKET_E_WAIT,  /* rejected; wait_ns says how long until it would have conformed */
	BUCKET_E_NEVER, /* the cost is above the burst: it can never fit */
	BUCKET_E_GONE,  /* the row now belongs to another limit: look it up again */
};

struct bucket_verdict {
	enum bucket_outcome outcome;
	uint32_t blocking; /* index of the bucket with the longest wait, or that never fits */
	uint64_t wait_ns;  /* exact at now: a retry at now + wait_ns conforms if nobody else
	                      * takes and no limit changes; at most a second above the cost and
	                      * what was owed above a burst when it was lowered */
};

/* The buckets one request must pass, in scope order; keys guard against reconfiguration. */
struct bucket_set {
	uint32_t count;
	uint32_t index[BUCKET_SET_MAX];
	uint64_t key[BUCKET_SET_MAX];
};

/*
 * Takes n units from every bucket of the set, or from none. Phase 1 reads all and returns the
 * longest wait without writing. Phase 2 takes one after the other; if another process took
 * the last unit meanwhile, what was taken is given back by the elapsed rule
 * max(0, cost - elapsed), the only give-back that cannot over-admit.
 */
struct bucket_verdict bucket_acquire(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns);

/* The verdict bucket_acquire() would give, without taking. */
struct bucket_verdict bucket_peek(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns);

/* Returns what bucket_acquire() took at taken_ns and the caller did not use: what has not
 * leaked since. Nothing if the limit was changed meanwhile. The admission stays counted. */
void bucket_give_back(const struct region *r, const struct bucket_set *set, uint64_t n,
	uint64_t taken_ns, uint64_t now_ns);

/* Adds the bucket (scope, name) to the set if it exists, once; false: no such limit or no room in
 * the set, which is unchanged. Expected constant time. */
bool bucket_set_add(
	struct bucket_set *set, const struct region *r, enum bucket_scope scope, struct str name);

/* limit units per window_ns, burst units at once. 1 <= limit, burst <= 10^12; window 1 us to
 * 400 days. Refused with -ERANGE: more than one unit per nanosecond, less than one in 52 days, a
 * burst that takes more than 73 years to refill. */
struct bucket_limit {
	enum bucket_scope scope;
	struct str name;
	uint64_t limit, window_ns, burst;
};

/* Whether bucket_configure() would accept it but for room: ranges and the name's length. */
bool bucket_limit_is_valid(const struct bucket_limit *limit);

/* Daemon only: creates or changes a limit. A change keeps the debt in units, also above the new
 * burst; so does one that was retired and comes back. A new one starts with its burst, or, where
 * the region lost its past (region_empty_since()), without. Returns the row, -ENOSPC when the table
 * is full, -EINVAL (scope, empty name), -ERANGE, -ENAMETOOLONG. */
int bucket_configure(struct region *r, const struct bucket_limit *limit, uint64_t now_ns);

/* Daemon only: frees every bucket whose row is not marked in keep[0 .. buckets-1]. */
void bucket_retire(struct region *r, const bool *keep);

/* Daemon only, by region_adopt(): retires rows that make no sense and cuts what nobody can owe. */
void bucket_adopt(struct region *r, uint64_t now_ns);

/* One row as numbers, for tools and tests; false: not in use. */
struct bucket_view {
	enum bucket_scope scope;
	char name[128];
	uint64_t limit, window_ns, burst;
	uint64_t tat, admitted, rejected;
	uint64_t available; /* whole units at now */
};
bool bucket_view(const struct region *r, uint32_t index, uint64_t now_ns, struct bucket_view *out);
