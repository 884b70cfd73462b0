#pragma once

/* Breakers, latencies and events alone, in memory that forked processes share; the caller's time.
 */

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/aux.h"
#include "shm/breaker.h"
#include "shm/event.h"
#include "shm/layout.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/splitmix.h"

#define T0 (UINT64_C(100000) * NSEC_PER_SEC)
#define MS NSEC_PER_MSEC
#define SECOND NSEC_PER_SEC
#define KIT_TARGETS 4
#define KIT_EVENTS 64
#define ROW 1 /* the breaker that tests use, unless they say otherwise */

struct kit_bytes {
	struct layout_header header;
	struct layout_breaker breaker[KIT_TARGETS];
	struct layout_latency latency[KIT_TARGETS];
	struct layout_event event[KIT_EVENTS];
};

struct kit {
	struct kit_bytes *bytes;
	struct region r;
	struct layout_breaker *b; /* of ROW */
	uint64_t random, now;
};

static inline struct kit kit_open(void)
{
	struct kit k = { .random = 42, .now = T0 };

	k.bytes = mmap(
		NULL, sizeof(*k.bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(k.bytes, MAP_FAILED);
	k.r = (struct region){
		.map = k.bytes,
		.size = sizeof(*k.bytes),
		.writable = true,
		.header = &k.bytes->header,
		.breaker = k.bytes->breaker,
		.latency = k.bytes->latency,
		.targets = KIT_TARGETS,
		.event = k.bytes->event,
		.events = KIT_EVENTS,
	};
	k.b = &k.bytes->breaker[ROW];
	return k;
}

static inline void kit_close(struct kit *k)
{
	munmap(k->bytes, sizeof(*k->bytes));
}

static inline struct kit kit_with(struct breaker_settings settings)
{
	struct kit k = kit_open();

	breaker_init(&k.r, ROW, &settings);
	return k;
}

static inline struct kit kit_production(void)
{
	return kit_with(breaker_preset(BREAKER_PRODUCTION));
}

/* As hold_owner() would make it. */
static inline uint64_t kit_owner(uint64_t participant)
{
	return participant | (participant + 7) << 16;
}

static inline enum breaker_verdict kit_allow(
	struct kit *k, uint64_t participant, struct breaker_ticket *ticket)
{
	uint64_t wait_ns;

	return breaker_allow(&k->r, ROW, kit_owner(participant), k->now, splitmix_next(&k->random),
		ticket, &wait_ns);
}

static inline void kit_report(struct kit *k, const struct breaker_ticket *ticket,
	enum breaker_outcome outcome, uint64_t first_token_ns)
{
	struct breaker_report report = { outcome, first_token_ns };

	breaker_record(&k->r, ticket, &report, k->now, splitmix_next(&k->random));
}

/* A whole call at once; what allow said. */
static inline enum breaker_verdict kit_call(
	struct kit *k, enum breaker_outcome outcome, uint64_t first_token_ns)
{
	struct breaker_ticket ticket;
	enum breaker_verdict verdict = kit_allow(k, 1, &ticket);

	if (verdict != BREAKER_REJECT)
		kit_report(k, &ticket, outcome, first_token_ns);
	return verdict;
}

static inline struct breaker_view kit_view(const struct kit *k)
{
	struct breaker_view v;

	assert_true(breaker_view(&k->r, ROW, k->now, &v));
	return v;
}

static inline enum breaker_state kit_state(const struct kit *k)
{
	return kit_view(k).state;
}

/* Opens by failures, and passes the time until it may be tried. */
static inline void kit_open_and_wait(struct kit *k)
{
	for (int i = 0; i < 100 && kit_state(k) == BREAKER_CLOSED; i++)
		kit_call(k, BREAKER_FAILED, 0);
	assert_int_equal(kit_state(k), BREAKER_OPEN);
	k->now += kit_view(k).retry_ns;
	assert_int_equal(kit_view(k).retry_ns, 0);
}

static inline void kit_ok(struct kit *k)
{
	assert_int_equal(kit_call(k, BREAKER_OK, 0), BREAKER_PASS);
}

static inline void kit_failed(struct kit *k)
{
	assert_int_equal(kit_call(k, BREAKER_FAILED, 0), BREAKER_PASS);
}

static inline struct breaker_ticket kit_probe(struct kit *k, uint64_t participant)
{
	struct breaker_ticket ticket;

	assert_int_equal(kit_allow(k, participant, &ticket), BREAKER_PROBE);
	return ticket;
}

static inline struct event kit_event(struct kit *k, uint64_t *ticket)
{
	struct event e;

	assert_int_equal(event_next(&k->r, ticket, &e), EVENT_OK);
	assert_int_equal(e.kind, EVENT_BREAKER);
	assert_int_equal(e.row, ROW);
	return e;
}
