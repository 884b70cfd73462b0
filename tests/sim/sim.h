#pragma once

/*
 * What simulations share: virtual time, a queue of events, a seed, and what went on last, for the
 * message when a check fails. A seed is a run: the same one gives the same events, whose hash
 * tells. One thread; nothing allocates once it runs.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"
#include "tests/unit/splitmix.h"

#define SIM_START_NS (UINT64_C(100) * 86400 * NSEC_PER_SEC)

struct sim_event {
	uint64_t at_ns;
	uint32_t order; /* among those of one instant */
	uint32_t epoch; /* of who, when it was planned */
	uint32_t kind, who;
};

extern struct sim {
	const char *program;
	uint64_t now_ns, start_seed, seed;
	uint64_t events, hash;
} sim;

/* Begins a run. names: of the kinds of events, for messages. */
void sim_begin(uint64_t seed, const char *const *names);

void sim_push(uint64_t at_ns, uint32_t kind, uint32_t who, uint32_t epoch);
bool sim_peek(struct sim_event *out);
bool sim_pop(struct sim_event *out);

/* Part of the run's hash, and of the last events. */
void sim_note(uint32_t kind, uint32_t who, uint64_t value);

/* Says what failed, the seed and the last events, and ends the program. */
_Noreturn __attribute__((format(printf, 1, 2))) void sim_fail(const char *format, ...);

static inline uint64_t sim_random(uint64_t below)
{
	return splitmix_below(&sim.seed, below);
}

static inline uint64_t sim_between(uint64_t least, uint64_t most)
{
	return least + sim_random(most - least + 1);
}

/* Once in n times. */
static inline bool sim_once_in(uint64_t n)
{
	return n != 0 && sim_random(n) == 0;
}

double sim_unit(void);   /* above 0, below 1 */
double sim_normal(void); /* of mean 0 and deviation 1 */
/* Exponential. */
uint64_t sim_spread(uint64_t mean_ns);
/* By magnitude, so that small ones are as likely as large ones. */
uint64_t sim_magnitude(double least, double most);

/* ---- what tests print ---- */

__attribute__((format(printf, 2, 3))) void sim_ok(bool good, const char *format, ...);
/* The plan; the program's exit status. */
int sim_done(void);
