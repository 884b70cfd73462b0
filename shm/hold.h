#pragma once

/*
 * What requests in flight hold of shared totals (held tokens, concurrency, money, requests pending
 * at a target), so that it comes back exactly once when their process dies at any instruction. A
 * total is moved by a recoverable compare-and-swap; the protocol is in shm/layout.h at layout_hold.
 *
 * Lock-free; a hold is moved by one thread at a time, the reaper by the daemon's one.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/region.h"

#define HOLD_NONE UINT32_MAX
#define HOLD_ENTRIES 12

/* The word that marks a hold as a participant's: row and generation; see participant_owner(). 0:
 * nobody. */
uint64_t hold_owner(uint32_t participant, uint64_t generation);

/* A free hold made the owner's; HOLD_NONE: all are taken, or owner is 0. hint: where to look first,
 * such as the last one released. */
uint32_t hold_claim(const struct region *r, uint64_t owner, uint32_t hint, uint64_t now_ns);
/* Frees a hold; its entries must be 0. */
void hold_release(const struct region *r, uint32_t hold, uint64_t owner);

enum hold_outcome {
	HOLD_OK = 0,
	HOLD_E_MOVED,  /* the total is not what was expected (any more): look again and decide anew;
	                * without expected: others were faster very often in a row */
	HOLD_E_CLOSED, /* the row is being given to another limit; what is given back is gone */
	HOLD_E_FULL,   /* the total, or the hold's entries, have no room, or not that much */
	HOLD_E_LOST,   /* the hold is not the owner's (any more), or nonsense */
};

/*
 * One move of a total by +add -sub units, entered in the hold's entry for it. expected: the total's
 * word as the caller saw it when it decided, or NULL: whatever it is (for what always may, such as
 * giving back; a total that has less than is given back becomes 0). The only store that admits.
 */
enum hold_outcome hold_move(const struct region *r, uint32_t hold, uint64_t owner, uint32_t total,
	uint32_t add, uint32_t sub, const uint64_t *expected);

/* Units this hold has in a total. */
uint32_t hold_units(const struct region *r, uint32_t hold, uint32_t total);

/* The units in a total's word; true in *closed when it is closed. */
uint32_t hold_total_units(uint64_t word, bool *closed);
#define HOLD_TOTAL_BUCKET(row) (1 + (uint32_t)(row))
#define HOLD_TOTAL_TARGET(row) ((UINT32_C(1) << 21) + (uint32_t)(row)) /* LAYOUT_TOTAL_TARGET */

/*
 * Daemon: how a bucket's row gets another limit. Closing succeeds when nothing is in flight, and
 * from then on nobody moves its total; after opening, no word seen before fits as expected. Both
 * may be repeated, also by the next daemon.
 */
bool hold_close(struct region *r, uint32_t row);
void hold_open(struct region *r, uint32_t row);

/*
 * Daemon: everything the dead owner held. Tokens and money of it may have been spent, so they
 * become debt before they come back; concurrency and pending just come back. May be repeated after
 * the daemon died in it; what was charged and had not come back is then charged twice. Returns how
 * many holds it freed.
 */
uint32_t hold_reap(struct region *r, uint64_t owner, uint64_t now_ns);

/* Daemon, after adoption and now and then: reaps the holds whose owner is no participant's row and
 * generation. Returns how many. */
uint32_t hold_reap_strays(struct region *r, uint64_t now_ns);

/*
 * Daemon, about once a second: totals that the holds do not account for (a broken word) become what
 * the holds add up to. A total is only mended when its word was the same before and after all holds
 * were read and none was in the midst of moving it, so that the sum is exact. Returns how many.
 */
uint32_t hold_audit(struct region *r);

/* One hold, for tools and tests; false: free or out of range. */
struct hold_view {
	uint32_t participant;
	uint64_t generation, taken_ns;
	bool pending; /* in the midst of a move */
	unsigned count;
	struct {
		uint32_t total, units;
	} entry[HOLD_ENTRIES];
};
bool hold_view(const struct region *r, uint32_t hold, struct hold_view *out);
