#pragma once

/*
 * The provider's own bucket, exact: one unit weighs window_ns, limit leaks each nanosecond. It is
 * the judge of whether too much was admitted, and knows nothing of how that was decided. Its
 * bound:
 *
 *     burst + over + rate * slack_ns
 *
 * slack_ns is how old a client's clock may be, at the highest rate that there was. over is what
 * nobody could hold: usage above the estimates of calls in flight, or settled since the last
 * admission; and of the dead, as long as the bucket was not empty since. While a limit changes,
 * and until all calls that asked before it was complete have ended, the looser of old and new
 * counts.
 */

#include <stdbool.h>
#include <stdint.h>

struct meter {
	unsigned __int128 level;
	uint64_t window_ns, last_ns;
	uint64_t limit, burst;           /* that the bound is made of */
	uint64_t new_limit, new_burst;   /* in force; the same, or stricter */
	uint64_t limit_most;             /* ever */
	uint64_t over_flying;            /* counted above the estimates of calls in flight */
	uint64_t over_settled, over_old; /* ever; of them before the last admission began */
	uint64_t over_lost;              /* of the dead */
};

static inline void meter_leak(struct meter *m, uint64_t now_ns)
{
	unsigned __int128 leak = (unsigned __int128)(now_ns - m->last_ns) * m->limit;

	m->last_ns = now_ns;
	if (m->level > leak) {
		m->level -= leak;
		return;
	}
	m->level = 0;
	m->over_lost = 0;
}

static inline bool meter_is_within(const struct meter *m, uint64_t slack_ns)
{
	uint64_t over = m->over_flying + m->over_settled - m->over_old + m->over_lost;

	return m->level <= (unsigned __int128)(m->burst + over) * m->window_ns +
		(unsigned __int128)slack_ns * m->limit_most;
}

/* Units above the bound, for messages. */
static inline double meter_excess(const struct meter *m, uint64_t slack_ns)
{
	uint64_t over = m->over_flying + m->over_settled - m->over_old + m->over_lost;

	return (double)m->level / (double)m->window_ns - (double)(m->burst + over) -
		(double)slack_ns * (double)m->limit_most / (double)m->window_ns;
}

/* The provider counts n, of them over above the estimate of a call that is still in flight. */
static inline void meter_count(struct meter *m, uint64_t n, uint64_t over, uint64_t now_ns)
{
	meter_leak(m, now_ns);
	m->level += (unsigned __int128)n * m->window_ns;
	m->over_flying += over;
}

static inline struct meter meter_make(
	uint64_t limit, uint64_t window_ns, uint64_t burst, uint64_t now_ns)
{
	return (struct meter){
		.window_ns = window_ns,
		.last_ns = now_ns,
		.limit = limit,
		.limit_most = limit,
		.new_limit = limit,
		.burst = burst,
		.new_burst = burst,
	};
}

/* A change begins. */
static inline void meter_change(struct meter *m, uint64_t limit, uint64_t burst, uint64_t now_ns)
{
	meter_leak(m, now_ns);
	m->new_limit = limit;
	m->new_burst = burst;
	m->limit = limit > m->limit ? limit : m->limit;
	m->burst = burst > m->burst ? burst : m->burst;
	m->limit_most = limit > m->limit_most ? limit : m->limit_most;
}

/* It is complete, and no call from before is in flight. */
static inline void meter_tighten(struct meter *m, uint64_t now_ns)
{
	meter_leak(m, now_ns);
	if (m->level > (unsigned __int128)m->new_burst * m->window_ns)
		return;
	m->limit = m->new_limit;
	m->burst = m->new_burst;
}
