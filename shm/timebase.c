#include "shm/timebase.h"

#include <errno.h>
#include "base/aux.h"
#include "base/error.h"
#include "shm/layout.h"

#define POINT_GAP_MIN (50 * NSEC_PER_MSEC)
/* Points may come late by this many periods before readers fall back to clock_gettime. */
#define VALIDITY_PERIODS 4
#define DRIFT_SHARE 1000

/* The order is the sequence lock of shm/layout.h. A writer that dies inside leaves the sequence
 * odd: readers use clock_gettime until the next daemon publishes. */
static void publish(struct layout_timebase *t, uint64_t cycles, uint64_t ns, uint64_t multiplier,
	uint64_t validity)
{
	uint64_t sequence = atomic_load_explicit(&t->sequence, memory_order_relaxed) | 1;

	atomic_store_explicit(&t->sequence, sequence, memory_order_relaxed);
	atomic_store_explicit(&t->cycles0, cycles, memory_order_release);
	atomic_store_explicit(&t->ns0, ns, memory_order_release);
	atomic_store_explicit(&t->multiplier, multiplier, memory_order_release);
	atomic_store_explicit(&t->validity, validity, memory_order_release);
	atomic_store_explicit(&t->sequence, sequence + 1, memory_order_release);
}

void timebase_disable(struct timebase_tracker *t, struct region *r)
{
	t->disabled = true;
	t->multiplier = 0;
	publish(&r->header->timebase, 0, 0, 0, 0);
}

static bool drifted(uint64_t before, uint64_t now)
{
	uint64_t difference = before > now ? before - now : now - before;

	return before != 0 && difference > before / DRIFT_SHARE;
}

int timebase_track(struct timebase_tracker *t, struct region *r, uint64_t cycles, uint64_t ns,
	uint64_t period_ns)
{
	unsigned __int128 multiplier, validity;

	if (t->disabled)
		return TIMEBASE_OK;
	if (t->ns == 0) {
		t->cycles = cycles;
		t->ns = ns;
		return TIMEBASE_OK;
	}
	if (ns >= t->ns && ns - t->ns < POINT_GAP_MIN)
		return TIMEBASE_OK;
	if (ns < t->ns || cycles <= t->cycles) {
		timebase_disable(t, r);
		return TIMEBASE_E_DRIFT;
	}
	multiplier = ((unsigned __int128)(ns - t->ns) << 32) / (cycles - t->cycles);
	if (multiplier == 0 || multiplier > TIMEBASE_MULTIPLIER_MAX ||
		drifted(t->multiplier, (uint64_t)multiplier)) {
		timebase_disable(t, r);
		return TIMEBASE_E_DRIFT;
	}
	t->cycles = cycles;
	t->ns = ns;
	t->multiplier = (uint64_t)multiplier;
	validity = ((unsigned __int128)period_ns * VALIDITY_PERIODS << 32) / multiplier;
	publish(&r->header->timebase, cycles, ns, t->multiplier,
		validity > TIMEBASE_VALIDITY_MAX ? TIMEBASE_VALIDITY_MAX : (uint64_t)validity);
	return TIMEBASE_OK;
}
