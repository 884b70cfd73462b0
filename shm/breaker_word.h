#pragma once

/*
 * The words of a breaker as numbers (shm/breaker.c, shm/breaker_table.c). Any bits are some state;
 * what is read of them is in range. Nothing is kept.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"
#include "shm/breaker.h"
#include "shm/layout.h"

#define BREAKER_FORCED 3 /* the state that no timer leaves */
#define BREAKER_GENERATION_MASK UINT16_MAX
#define BREAKER_COUNT_MAX UINT8_MAX
#define BREAKER_EXPONENT_MAX 15
#define BREAKER_UNIT_NS (100 * NSEC_PER_MSEC)
#define BREAKER_OWNER_MASK ((UINT64_C(1) << 40) - 1)
#define BREAKER_LATE_NS (60 * NSEC_PER_SEC)
#define BREAKER_DEADLINE_MASK ((UINT32_C(1) << 26) - 1)

static inline uint64_t breaker_get(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static inline void breaker_set(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

static inline bool breaker_cas(shared_u64 *word, uint64_t *seen, uint64_t next)
{
	return atomic_compare_exchange_strong_explicit(
		word, seen, next, memory_order_acq_rel, memory_order_acquire);
}

static inline uint64_t breaker_state_load(const struct layout_breaker *b)
{
	return atomic_load_explicit(&b->state, memory_order_acquire);
}

static_assert(BREAKER_NO_PROBE == LAYOUT_PROBES, "no slot has this number");

struct breaker_word {
	unsigned state, generation, ok, exponent;
	uint32_t deadline; /* CLOSED: not used; ok counts the successes of the ramp */
};

static inline struct breaker_word breaker_unpack(uint64_t w)
{
	return (struct breaker_word){
		.state = (unsigned)(w >> 62),
		.generation = (unsigned)(w >> 46 & BREAKER_GENERATION_MASK),
		.ok = (unsigned)(w >> 38 & BREAKER_COUNT_MAX),
		.exponent = (unsigned)(w >> 26 & BREAKER_EXPONENT_MAX),
		.deadline = (uint32_t)w & BREAKER_DEADLINE_MASK,
	};
}

static inline uint64_t breaker_pack(struct breaker_word w)
{
	return (uint64_t)w.state << 62 | (uint64_t)(w.generation & BREAKER_GENERATION_MASK) << 46 |
		(uint64_t)(w.ok & BREAKER_COUNT_MAX) << 38 |
		(uint64_t)(w.exponent & BREAKER_EXPONENT_MAX) << 26 |
		(w.deadline & BREAKER_DEADLINE_MASK);
}

static inline uint32_t breaker_deadline_in(uint64_t now_ns, uint64_t ns)
{
	return (uint32_t)((now_ns + ns + BREAKER_UNIT_NS - 1) / BREAKER_UNIT_NS) &
		BREAKER_DEADLINE_MASK;
}

/* Until the deadline; 0: it has passed, or is nonsense: further ahead than any that was ever set
 * would be for a caller whose now is old. */
static inline uint64_t breaker_deadline_left(uint32_t deadline, uint64_t now_ns, uint64_t most_ms)
{
	uint64_t units = (deadline - (uint32_t)(now_ns / BREAKER_UNIT_NS)) & BREAKER_DEADLINE_MASK;
	uint64_t ns = units * BREAKER_UNIT_NS;

	if (units == 0 || ns > 2 * most_ms * NSEC_PER_MSEC + BREAKER_LATE_NS)
		return 0;
	return ns - now_ns % BREAKER_UNIT_NS;
}

static inline enum breaker_state breaker_public_state(unsigned state)
{
	return state == BREAKER_FORCED ? BREAKER_OPEN : (enum breaker_state)state;
}

/* Of a hold_owner(): its participant and the low bits of its generation. */
static inline uint64_t breaker_ticket_owner(uint64_t owner)
{
	return owner & BREAKER_OWNER_MASK;
}

static inline unsigned breaker_ticket_generation(uint64_t word)
{
	return (unsigned)(word >> 8 & BREAKER_GENERATION_MASK);
}

static inline bool breaker_ticket_is_live(uint64_t word, unsigned generation)
{
	return word != 0 && breaker_ticket_generation(word) == generation;
}

/* What is decided on the state loaded after it is right for this slot. */
static inline uint64_t breaker_ticket_load(const struct layout_breaker *b, uint32_t slot)
{
	return atomic_load_explicit(&b->probe[slot], memory_order_acquire);
}

static inline unsigned breaker_tickets_out(const struct layout_breaker *b, unsigned generation)
{
	unsigned n = 0;

	for (unsigned i = 0; i < LAYOUT_PROBES; i++)
		n += breaker_ticket_is_live(breaker_get(&b->probe[i]), generation);
	return n;
}

static inline bool breaker_ticket_free(struct layout_breaker *b, uint32_t slot, uint64_t word)
{
	return slot < LAYOUT_PROBES && breaker_cas(&b->probe[slot], &word, 0);
}

/* The event of a transition from a state to what it is now. */
void breaker_tell_one(const struct region *r, uint32_t row, unsigned from, struct breaker_word now,
	enum breaker_why why, uint64_t now_ns);
