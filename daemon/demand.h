#pragma once

/*
 * Targets that clients name and nobody configured: each gets a row of the region's table when it
 * is first asked for, so that its breaker, its pauses and its latency are known. Names are the
 * clients' choice, so the rows are bounded: at most DEMAND_ROWS, and a quarter of the table.
 * After that the least recently tried one with nothing in flight and no pause, which no operator
 * opened, makes room; while there is none, a new name goes by its provider's row. What is
 * configured is never touched. A reload retires them all but those that an operator opened; who is
 * asked for again finds what was learned. A stage over shm/; one thread.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/breaker.h"
#include "shm/target.h"

#define DEMAND_ROWS 64

struct demand {
	struct {
		uint32_t row;
		uint64_t key; /* 0: not used */
	} made[DEMAND_ROWS];
};

/* After a reload: which rows are configured may have changed. */
void demand_forget(struct demand *d);

/* Makes the target's row; target->provider must be a row, whose availability it shares. false:
 * there is no room. */
bool demand_make(struct demand *d, struct region *region, const struct target_config *target,
	const struct breaker_settings *breaker, uint64_t now_ns);
