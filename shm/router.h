#pragma once

/*
 * Which of several targets a call should go to, and in which order to try the others. Pure: reads
 * the region, takes now and random bits, writes nothing but a round robin's turn.
 *
 * Score, lower is better; weights are parts of their sum (cost, latency and reliability set them
 * to 1000 and 0, with 10 of latency, so that equals are told apart by it):
 *
 *     w_latency * ln((predicted time + wait) * (pending + 1)) + w_cost * ln(price)
 *             - (1 + 8 * w_reliability) * ln(1 - errors)
 *
 * predicted time = time to first token of the prompt's class + output tokens * gap. Without
 * samples of that class, the nearest one's counts; if that is of longer prompts, at most the
 * median. errors is the ratio of the breaker's window: even without its weight, time and price are
 * those of a call that succeeds. A target that mostly fails comes after all that do not, however
 * fast or cheap it is. What was learned long ago is drawn to the median of the candidates (1/e in
 * 30 s), and so is a target with fewer than 10 samples.
 *
 * The first is the better of two drawn at random among those near the best (a factor of 1.5 in
 * time, so none where latency does not count: power of two choices, Mitzenmacher 2001). So
 * processes that decide at the same instant do not all run to the same target, and one far behind
 * gets nothing. The others follow by score. First may also be, never at twice the best price or
 * more: in 5 % of calls a target with fewer than 10 samples, none in flight and fewer failures than
 * successes, in another 20 % one of these that is near the best by its score (which without samples
 * is that of the median), in 1 % one that was not tried for 60 s, in 25 % one whose breaker wants a
 * probe (which it bounds itself); else these are not first, unless there are only such.
 *
 * Strategies that learn nothing have an order of their own, in which those that the ramp after
 * closing holds back (breaker_ramp()) come after all others.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/bucket.h"
#include "shm/region.h"

#define ROUTER_CANDIDATES 32

enum router_strategy {
	ROUTER_BALANCED,
	ROUTER_COST,
	ROUTER_LATENCY,
	ROUTER_RELIABILITY,
	ROUTER_ROUND_ROBIN, /* no learning */
	ROUTER_WEIGHTED,    /* no learning */
	ROUTER_ORDER,       /* as configured: first that may */
	ROUTER_STRATEGIES,
};
const char *router_strategy_name(uint64_t strategy);

/* Why a candidate stands where it does. */
enum router_reason {
	ROUTER_CHOSEN,   /* first */
	ROUTER_FALLBACK, /* follows by score */
	ROUTER_EXPLORED, /* first, because nobody tried it for long, or it is new */
	ROUTER_COLD,     /* new, to be probed, or ramped after its breaker closed: not first now */
	ROUTER_PANIC,    /* its breaker is open, but so are all: better than none. Never one that an
	                     * operator opened */
	/* left out */
	ROUTER_OUT_UNAVAILABLE, /* no key, or not configured any more */
	ROUTER_OUT_CAPABILITY,
	ROUTER_OUT_CONTEXT,
	ROUTER_OUT_PRICE, /* above the cap, or not known while there is a cap */
	ROUTER_OUT_BREAKER,
	ROUTER_OUT_BUDGET, /* a limit has it wait longer than the caller's patience */
	ROUTER_OUT_PAUSED, /* its provider said 429, for longer than the caller's patience */
	ROUTER_REASONS,
};
/* "chosen", "out: breaker", … */
const char *router_reason_name(uint64_t reason);

struct router_query {
	enum router_strategy strategy;
	uint16_t weight_cost, weight_latency, weight_reliability; /* parts of 1000; balanced only */
	uint64_t input_tokens, cached_tokens, output_tokens;      /* estimates */
	uint64_t capabilities;                                    /* that it must have */
	int64_t price_cap_nanousd; /* of the whole call; negative: none */
	uint64_t patience_ns;      /* a target whose limits would have it wait longer is left out */
	uint64_t random;
	bool is_look; /* nothing is sent: a round robin's turn is left to others */
};

struct router_candidate {
	uint32_t row;                    /* of the targets */
	uint64_t key;                    /* as target_find() gave it */
	uint32_t weight;                 /* of ROUTER_WEIGHTED */
	const struct bucket_set *limits; /* NULL: none */
};

struct router_choice {
	uint8_t candidate;                 /* index */
	uint8_t reason;                    /* enum router_reason */
	uint64_t wait_ns;                  /* of its limits or breaker; 0: now */
	uint64_t first_token_us, total_us; /* predicted, without waiting; 0: nothing learned */
	int64_t cost_nanousd;              /* predicted, rounded up; -1: price not known */
	float score;                       /* of those usable */
};

struct router_decision {
	unsigned count; /* in order; those left out come after, from usable on */
	unsigned usable;
	struct router_choice choice[ROUTER_CANDIDATES];
};

/* turn: of the route, for ROUTER_ROUND_ROBIN; may be NULL. usable is 0 only when all are out for
 * another reason than their breakers. */
void router_decide(const struct region *r, const struct router_query *query,
	const struct router_candidate *candidate, unsigned count, _Atomic uint64_t *turn,
	uint64_t now_ns, struct router_decision *out);

/* ---- routes: the configured groups of targets ---- */

struct router_route {
	struct str name;
	enum router_strategy strategy;
	uint16_t weight_cost, weight_latency, weight_reliability;
	int64_t price_cap_nanousd; /* of a whole call; negative: none */
	uint64_t patience_ns;
	unsigned count;
	struct {
		uint32_t row, weight;
	} target[ROUTER_CANDIDATES];
};
/* Daemon only. The row, -ENOSPC, -ENAMETOOLONG. */
int router_configure(struct region *r, const struct router_route *route);
void router_retire(struct region *r, const bool *keep);
/* Fills *out by name (name is a view into the region); false: none, or it changes all the time.
 * *turn: for router_decide(). */
bool router_find(
	const struct region *r, struct str name, struct router_route *out, _Atomic uint64_t **turn);
/* Row by row, for tools. */
bool router_view(const struct region *r, uint32_t row, struct router_route *out);
