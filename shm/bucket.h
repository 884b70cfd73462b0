#pragma once

/*
 * Rate budgets shared by processes: taking from several limits at once, all or nothing, and giving
 * back. Kinds of limits (the words: shm/layout.h):
 *
 *   RATE    GCRA in one word (ATM Forum TM 4.0, I.371; "virtual scheduling"). Requests; tokens of a
 *           provider that charges at submission ("reserve").
 *   HELD    GCRA for what is settled, plus what is in flight, which does not leak: no more than
 *           burst + rate * t for the provider, whenever in a request it counts; parts that were
 *           reported (bucket_progress()) no later than that, as providers do. Tokens.
 *   GAUGE   at most so many at a time. Concurrency.
 *   WINDOW  at most so much in a calendar day or month (UTC): of what is settled then. Money.
 *
 * Exactness: in any window of length t the admissions of all processes together are at most
 * burst + rate * t of the loosest limit in force meanwhile, however often limits change, and also
 * while processes are killed at any instruction. What a dead process had in flight is in its hold
 * (shm/hold.h) and comes back once; what it took of a RATE and did not use leaks. Rounding is
 * always against the caller.
 *
 * Time is the caller's: CLOCK_BOOTTIME in nanoseconds, read right before the call. A stale
 * now only makes the test stricter; where it would admit more (undoing, changing a limit) the
 * region's clock is read again. All functions are lock-free, thread-safe and process-safe,
 * touch nothing but the rows named, and trust nothing they read there. Those that take or
 * configure need a writable region; an observer can peek and view. One lease is used by one
 * thread at a time.
 *
 * Where the numbers end: intervals from 4096 ns up are whole nanoseconds, so a burst can be
 * taken singly to the last unit and the bound is exact. Faster limits (above 244,000 a second)
 * have fractions, so that tokens taken by the thousand lose nothing; the bound is then that of a
 * window one nanosecond longer.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"
#include "shm/region.h"

#define BUCKET_SET_MAX 16
#define BUCKET_NONE UINT32_MAX
#define BUCKET_NAME_TEXT 164
#define BUCKET_WINDOW_MONTH UINT64_MAX
#define BUCKET_MONEY_MAX (UINT64_C(1) << 52) /* nano-USD per window */
#define BUCKET_HELD_MAX UINT32_MAX /* units of one HELD or GAUGE limit's burst, exclusive */
#define BUCKET_PAUSE_MAX_NS NSEC_PER_DAY
#define BUCKET_AHEAD_MAX_NS NSEC_PER_DAY /* of bucket_borrow() */
/* The wait of a verdict that no time ends, only a settlement (or an operator). */
#define BUCKET_WAIT_SETTLEMENT UINT64_MAX

/* Bits: a limit is of one or of two of them. Acquired in the order of bucket_scope_rank(): pairs
 * with a user first, the provider last, so that a busy user stops at his own limit. */
enum bucket_scope {
	BUCKET_SCOPE_USER = 1,
	BUCKET_SCOPE_MODEL = 2,
	BUCKET_SCOPE_PROVIDER = 4,
	BUCKET_SCOPE_KEY = 8, /* the provider's API key, by its label */
};
#define BUCKET_SCOPE_MASKS 16
const char *bucket_scope_name(uint64_t scope); /* "user", "user+model", …; "unknown" */
bool bucket_scope_is_valid(uint64_t scope);    /* one or two of the four */
unsigned bucket_scope_rank(uint64_t scope);    /* place in the order of acquisition, from 0 */

enum bucket_resource {
	BUCKET_REQUESTS,
	BUCKET_INPUT_TOKENS,
	BUCKET_OUTPUT_TOKENS,
	BUCKET_TOKENS, /* input and output */
	BUCKET_CONCURRENCY,
	BUCKET_MONEY, /* nano-USD */
	BUCKET_RESOURCES,
};
const char *bucket_resource_name(uint64_t resource); /* "input_tokens", …; "unknown" */

enum bucket_kind {
	BUCKET_RATE,
	BUCKET_HELD,
	BUCKET_GAUGE,
	BUCKET_WINDOW,
	BUCKET_KINDS,
};
/* The kind of a resource's limits; reserve: tokens are charged at submission. */
enum bucket_kind bucket_kind_of(enum bucket_resource resource, bool reserve);

enum bucket_origin {
	BUCKET_ORIGIN_CONFIG,
	BUCKET_ORIGIN_TEMPLATE, /* made on demand; evicted, least recently used first, but only when
	                         * it owes nothing: then it is as good as new */
};

enum bucket_outcome {
	BUCKET_OK = 0,
	BUCKET_E_WAIT,    /* rejected; wait_ns says how long until it would have conformed */
	BUCKET_E_NEVER,   /* the cost is above the burst: it can never fit */
	BUCKET_E_GONE,    /* a row now belongs to another limit: look it up again */
	BUCKET_E_MISSING, /* bucket_resolve(): a template has no row for this name yet */
	BUCKET_E_LEASE,   /* the set holds something, and no lease was given */
	BUCKET_E_BUSY,    /* no free hold, or more limits apply than a set or a hold has room for */
};

struct bucket_verdict {
	enum bucket_outcome outcome;
	uint32_t blocking; /* row with the longest wait, or that never fits; BUCKET_NONE */
	/* Exact at now: a retry at now + wait_ns conforms if nobody else takes, nothing in flight
	 * settles for more than was held, and no limit changes; BUCKET_WAIT_SETTLEMENT; at most a
	 * second above the cost and what was owed above a burst when it was lowered. */
	uint64_t wait_ns;
};

/* ---- which limits apply ---- */

/* Empty: not known, limits of that scope do not apply. */
struct bucket_names {
	struct str user, model, provider, key;
};

/* The limits that one kind of call must pass, in order of acquisition; keys guard against
 * reconfiguration. Plain data, may be copied. */
struct bucket_set {
	uint32_t count;
	uint32_t held;   /* of them, HELD, GAUGE or WINDOW: a lease is needed */
	uint32_t others; /* of them, not RATE of requests: bucket_acquire() takes its slow path */
	uint32_t index[BUCKET_SET_MAX];
	uint64_t key[BUCKET_SET_MAX];
	uint8_t kind[BUCKET_SET_MAX];
	uint8_t resource[BUCKET_SET_MAX];
	uint8_t order[BUCKET_SET_MAX]; /* what they are sorted by */
};

/*
 * All limits that apply to the names. BUCKET_OK; BUCKET_E_MISSING: a template applies to a name
 * that has no row yet (set holds the others; ask the daemon to bucket_instantiate());
 * BUCKET_E_BUSY. Expected constant time; notes on each row that it is in use (for eviction) if the
 * region is writable.
 */
enum bucket_outcome bucket_resolve(const struct region *r, const struct bucket_names *names,
	uint64_t now_ns, struct bucket_set *set);

/* Adds one limit to the set if it exists, once; false: no such limit or no room. name is one name,
 * or two joined by bucket_join(). */
bool bucket_set_add(struct bucket_set *set, const struct region *r, uint64_t scope,
	enum bucket_resource resource, struct str name);

/* The name of a scope's row: one name, or two with the separator between, in the order user, model,
 * provider, key. false: a name is missing, or too long for a row. out holds LAYOUT_NAME_MAX bytes;
 * NUL-terminated. */
bool bucket_join(uint64_t scope, const struct bucket_names *names, char *out);

/* ---- taking ---- */

/* What a call asks for. BUCKET_TOKENS and BUCKET_CONCURRENCY follow from the others. */
struct bucket_cost {
	uint64_t requests; /* usually 1; also the concurrency: 1 when not 0 */
	uint64_t input_tokens, output_tokens;
	uint64_t nanousd;
};

/* Needed to give back or settle; private to a process. Plain data; set must outlive it. */
struct bucket_lease {
	const struct bucket_set *set; /* NULL: ended */
	struct bucket_cost cost;      /* as taken; falls as it settles */
	uint64_t tokens;              /* of cost, input and output together */
	uint64_t taken_ns;            /* from when it counts */
	uint64_t booked_ns;           /* when it was taken: earlier, if borrowed */
	uint64_t owner;               /* of the hold; one with another is not ours any more */
	uint32_t hold;                /* row; BUCKET_NONE: nothing is held */
};

/*
 * Takes n requests from every limit of the set, or none: the fast path. Limits of other resources
 * are only asked whether they are paused. BUCKET_E_LEASE when the set has a GAUGE (use
 * bucket_lease()). Phase 1 reads all and returns the longest wait without writing. Phase 2 takes
 * one after the other; if another process took the last unit meanwhile, what was taken is given
 * back by the elapsed rule max(0, cost - elapsed), the only give-back that cannot over-admit.
 */
struct bucket_verdict bucket_acquire(
	const struct region *r, const struct bucket_set *set, uint64_t n, uint64_t now_ns);

/* The same for everything; lease is filled on BUCKET_OK. owner: hold_owner() of the process. */
struct bucket_verdict bucket_lease(const struct region *r, uint64_t owner,
	const struct bucket_set *set, const struct bucket_cost *cost, uint64_t now_ns,
	struct bucket_lease *lease);

/*
 * Books, for the head of a queue, ahead of time: takes from all limits as if now were
 * now_ns + verdict.wait_ns, if that is at most horizon_ns and BUCKET_AHEAD_MAX_NS; the caller sends
 * when that is over. So a big request cannot starve behind small ones. Only RATE limits lend; a
 * HELD, GAUGE or WINDOW that does not conform is E_WAIT. BUCKET_OK with wait_ns: send then.
 */
struct bucket_verdict bucket_borrow(const struct region *r, uint64_t owner,
	const struct bucket_set *set, const struct bucket_cost *cost, uint64_t now_ns,
	uint64_t horizon_ns, struct bucket_lease *lease);

/* The verdict bucket_lease() would give, without taking. */
struct bucket_verdict bucket_peek(const struct region *r, const struct bucket_set *set,
	const struct bucket_cost *cost, uint64_t now_ns);

/* ---- settling ---- */

/*
 * used: what was really used since the last call (not in all), so tokens and money settle while a
 * stream runs: it becomes debt, and as much of what is held comes back. More than was held becomes
 * debt too.
 */
void bucket_progress(const struct region *r, struct bucket_lease *lease,
	const struct bucket_cost *used, uint64_t now_ns);

/* Books units (WINDOW: nano-USD) as used, whatever the limit: what the dead may have spent. */
void bucket_charge(const struct region *r, uint32_t row, uint64_t units, uint64_t now_ns);

/* The end: used as above, then everything still held comes back. Idempotent. */
void bucket_settle(const struct region *r, struct bucket_lease *lease,
	const struct bucket_cost *used, uint64_t now_ns);

/* The end of a call that was never sent: all comes back, RATE by the elapsed rule (nothing if the
 * limit was changed meanwhile). The admission stays counted. Idempotent. */
void bucket_cancel(const struct region *r, struct bucket_lease *lease, uint64_t now_ns);

/* Returns n requests that bucket_acquire() took at taken_ns and the caller did not use. */
void bucket_give_back(const struct region *r, const struct bucket_set *set, uint64_t n,
	uint64_t taken_ns, uint64_t now_ns);

/* ---- waiting ---- */

/*
 * To sleep until a settlement, a lifted pause or a changed limit lets somebody in: note the
 * futex's value, try once more, sleep while it has that value. until_ns: how long at most (others
 * make no system call for sleepers whose time has passed). NULL: no such row, or a read-only
 * region.
 */
const uint32_t *bucket_wait_word(const struct region *r, uint32_t row, uint64_t until_ns);
/* Wakes who sleeps on the row; what settles, lifts and changes calls it. */
void bucket_wake(const struct region *r, uint32_t row);

/* ---- feedback; raise-only: idempotent, and a stale or lying answer does no harm ---- */

/* Nothing conforms before until_ns; at most BUCKET_PAUSE_MAX_NS from now. */
void bucket_pause(const struct region *r, uint32_t row, uint64_t until_ns, uint64_t now_ns);
/* The operator's: ends a pause and wakes who waits. */
void bucket_unpause(const struct region *r, uint32_t row);
/* The provider counts units as owed: what is in flight here is subtracted, and the debt raised to
 * the rest, at most to the burst. Nothing where it is already as high. */
void bucket_raise(const struct region *r, uint32_t row, uint64_t units, uint64_t now_ns);
/* The provider names a limit; three times the same in a row and the daemon follows
 * (bucket_heard()). */
void bucket_hear(const struct region *r, uint32_t row, uint64_t limit);
/* The limit that was heard three times in a row and is not the row's; 0: none. */
uint64_t bucket_heard(const struct region *r, uint32_t row);
/* The operator's: as if nothing were owed. In flight stays. Daemon only. */
void bucket_reset(struct region *r, uint32_t row, uint64_t now_ns);
