#pragma once

/*
 * Between router_look.c, which finds out what is known of the candidates, and router.c, which
 * makes an order of it.
 */

#include "shm/lanes.h"
#include "shm/layout.h"
#include "shm/router.h"

#define ROUTER_STALE_NS (UINT64_C(60) * 1000000000)
/* How far ahead of the caller's clock another process' may be. */
#define ROUTER_AHEAD_NS UINT64_C(1000000000)
#define ROUTER_SICK_ERRORS 0.5f
/* Free is cheap, but not infinitely so: 100 nano-USD, in pico. */
#define ROUTER_PRICE_FLOOR 1e5f

/*
 * What is known of the candidates, one array per number, so that the formulas run on several at
 * once. Bit i of a mask is of candidate i. As long as all candidates are plain (known, well or with
 * few failures, free to be used at once: nearly always), only the first group is filled, and errors
 * if any has failed; router_spread() makes the second what it is for a plain candidate.
 */
struct board {
	/* as found */
	uint64_t first_word[ROUTER_CANDIDATES], gap_word[ROUTER_CANDIDATES];
	int32_t pending[ROUTER_CANDIDATES];
	float price[ROUTER_CANDIDATES];  /* pico-USD; -1: not known */
	int64_t pico[ROUTER_CANDIDATES]; /* the same, exactly */
	/* of those that are not plain */
	float share[ROUTER_CANDIDATES]; /* of its own in what it is taken for: few samples, less */
	float errors[ROUTER_CANDIDATES];
	float wait_us[ROUTER_CANDIDATES];
	int32_t counts[ROUTER_CANDIDATES]; /* -1: usable, 0: not */
	uint64_t wait_ns[ROUTER_CANDIDATES];
	uint8_t reason[ROUTER_CANDIDATES];
	/* made of it */
	float first[ROUTER_CANDIDATES], first_keep[ROUTER_CANDIDATES]; /* ln(us); 0: not known */
	float gap[ROUTER_CANDIDATES], gap_keep[ROUTER_CANDIDATES];
	float first_us[ROUTER_CANDIDATES], total_us[ROUTER_CANDIDATES];
	float score[ROUTER_CANDIDATES];
	int32_t rank[ROUTER_CANDIDATES];
	uint8_t order[ROUTER_CANDIDATES]; /* candidates, best first */
	unsigned count, uses;             /* candidates; usable ones */
	uint32_t usable, open, cold, probe, stale, held, sick;
	bool plain;  /* all are */
	bool failed; /* any has errors */
} __attribute__((aligned(LANES_ALIGN)));

/* The question, made ready. */
struct question {
	const struct region *r;
	const struct router_candidate *candidate;
	const struct router_query *query;
	float latency, cost, reliability; /* weights; the first two together at most 1 */
	unsigned prompt_class;
	uint64_t fresh, cached, output; /* tokens */
	uint64_t context;               /* what it must have room for, less one */
	uint64_t price_cap;             /* pico-USD */
	uint64_t capabilities;
	int32_t now_ms;
	uint64_t now_ns, stale_ns; /* not tried since then: for too long */
	uint64_t random;
};

/* All candidates, and what is usable of them: panic included. */
void router_look(struct board *b, const struct question *q, unsigned count);
/* All places become those of plain candidates, and those beyond the last take part in nothing. */
void router_spread(struct board *b);
