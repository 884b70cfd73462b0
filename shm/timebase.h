#pragma once

/*
 * The fast clock: the CPU's cycle counter converted to CLOCK_BOOTTIME by two numbers in the
 * region that the daemon keeps fresh (shm/layout.h, struct layout_timebase). Pure: cycles and
 * times are arguments. Lock-free; a reader never waits for the writer.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"
#include "shm/layout.h"
#include "shm/region.h"

/* Bounds on what a reader believes: 1 us per cycle, and 2^40 cycles (some minutes). */
#define TIMEBASE_MULTIPLIER_MAX (UINT64_C(1000) << 32)
#define TIMEBASE_VALIDITY_MAX (UINT64_C(1) << 40)

/* Cycles to nanoseconds; false: not trusted, stale or being rewritten: use clock_gettime.
 * Inline because it costs less than a call. */
static inline bool timebase_convert(const struct region *r, uint64_t cycles, uint64_t *ns)
{
	struct layout_timebase *t = &r->header->timebase;
	uint64_t sequence = atomic_load_explicit(&t->sequence, memory_order_acquire);
	uint64_t cycles0 = atomic_load_explicit(&t->cycles0, memory_order_acquire);
	uint64_t ns0 = atomic_load_explicit(&t->ns0, memory_order_acquire);
	uint64_t multiplier = atomic_load_explicit(&t->multiplier, memory_order_acquire);
	uint64_t validity = atomic_load_explicit(&t->validity, memory_order_acquire);

	if (aux_unlikely((sequence & 1) != 0 ||
		    sequence != atomic_load_explicit(&t->sequence, memory_order_relaxed)))
		return false;
	/* A counter before cycles0 wraps to a large distance, multiplier 0 to a large one. */
	if (aux_unlikely(cycles - cycles0 > min_u64(validity, TIMEBASE_VALIDITY_MAX) ||
		    multiplier - 1 >= TIMEBASE_MULTIPLIER_MAX))
		return false;
	*ns = ns0 + (uint64_t)((unsigned __int128)(cycles - cycles0) * multiplier >> 32);
	return true;
}

/* The daemon's side: two points of (cycles, ns) at least 50 ms apart make a rate. */
struct timebase_tracker {
	uint64_t cycles, ns; /* last point; 0 before the first */
	uint64_t multiplier;
	bool disabled; /* for good: the counter and the clock disagreed */
};

enum timebase_outcome {
	TIMEBASE_OK = 0,
	TIMEBASE_E_DRIFT, /* the counter's rate changed by more than 1000 ppm: switched off */
};

/*
 * Feeds a point and publishes. period_ns: when the next point is due; readers trust a point for
 * four of them. Read ns first and cycles right after: a delay between the two then makes the
 * fast clock late, which only makes limits stricter, never early. Take the tightest of a few
 * readings.
 */
int timebase_track(struct timebase_tracker *t, struct region *r, uint64_t cycles, uint64_t ns,
	uint64_t period_ns);

/* Publishes "not trusted". */
void timebase_disable(struct timebase_tracker *t, struct region *r);
