#pragma once

/*
 * What changed, for tools and telemetry that must miss none: a ring in the region. A writer takes
 * a ticket and fills its row, sequence last; one that dies in between leaves a gap, which the
 * daemon fills with what it sees (breaker_tell()). Readers keep the ticket they read up to; one
 * that was overtaken is told so. Lock-free, any process; observers read.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/region.h"

enum event_kind {
	EVENT_BREAKER =
		1,   /* row: target; from, to: enum breaker_state; value: ns until it may close */
	EVENT_PAUSE, /* row: bucket, which was not paused; value: until when */
	EVENT_LIMIT, /* row: bucket; changed at run time: value is the new limit */
	EVENT_PARTICIPANT,  /* row: participant; to: 1 came, 0 died; once each; value: pid */
	EVENT_EVICTED,      /* row: bucket; a templated limit made room */
	EVENT_PAUSE_TARGET, /* row: target, which was not paused; value: until when */
};

struct event {
	uint64_t ticket; /* set by event_next() */
	uint64_t time_ns;
	enum event_kind kind;
	uint8_t from, to, why;
	uint32_t row;
	uint64_t value;
};

void event_add(const struct region *r, const struct event *event);

enum event_outcome {
	EVENT_OK = 0,
	EVENT_E_NONE, /* nothing after *ticket yet */
	EVENT_E_LOST, /* the ring went on: *ticket is now the oldest there is */
	EVENT_E_HOLE, /* this one's writer died or is still writing; *ticket was advanced */
};

/* The event of *ticket, which is then advanced. The newest row, if still
 * being written, counts as NONE. */
enum event_outcome event_next(const struct region *r, uint64_t *ticket, struct event *out);
/* The next ticket to be given out: where a reader of new events starts. */
uint64_t event_head(const struct region *r);
