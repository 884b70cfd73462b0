#pragma once

/*
 * What a breaker's opening rules look at (shm/breaker.c): the window of exact counts and the CUSUM
 * on the time to first token. No state changes here. Lock-free, bounded; what others wrote is
 * range-checked and starts anew where it makes no sense. Times are CLOCK_BOOTTIME.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/breaker.h"
#include "shm/layout.h"

#define BREAKER_WARM_UP 50   /* samples before the latency rule decides */
#define BREAKER_SD_MIN 0.15f /* of ln */
#define BREAKER_Z_MAX 4.0f
#define BREAKER_CUSUM_H 12.0f
#define BREAKER_CUSUM_RISEN 3.0f /* where the mean of the excursion begins */
#define BREAKER_RISE 2.0f        /* and the excursion's mean above so many times the baseline */
#define BREAKER_RISE_US 5e5f     /* plus this */

/* Settings as stored, in range whatever is there. */
struct breaker_settings breaker_settings_load(const struct layout_breaker *b);
/* Those that every result needs. */
unsigned breaker_window_s(const struct layout_breaker *b);
unsigned breaker_z_percent(const struct layout_breaker *b);
void breaker_settings_store(struct layout_breaker *b, const struct breaker_settings *settings);

/* ---- window: LAYOUT_SLICES slices, of window_s together ---- */

struct breaker_window {
	uint64_t ok, bad;
};

void breaker_window_count(struct layout_breaker *b, unsigned window_s, bool bad, uint64_t now_ns);
/* Without the slices that began before since_ns; 0: all of the last window_s. */
struct breaker_window breaker_window_sum(
	const struct layout_breaker *b, unsigned window_s, uint64_t now_ns, uint64_t since_ns);
/* Everything in the slices, however old. */
struct breaker_window breaker_window_all(const struct layout_breaker *b);

/* Until then the router looks at more than the state: at failures, a pause, the ramp. */
void breaker_unwell_until(struct layout_breaker *b, uint64_t until_ns, uint64_t now_ns);

/* ---- latency ---- */

/* ln, at most 3e-4 off; x > 0 and finite. */
float breaker_ln(float x);

/* One success while closed. True: too slow for too long, open. generation: the breaker's; what
 * belongs to another one does not count. */
bool breaker_latency_rule(
	struct layout_breaker *b, unsigned generation, unsigned z_percent, uint64_t us);

struct breaker_baseline {
	float mean, variance; /* of ln(us) */
	float cusum;
	unsigned samples; /* BREAKER_WARM_UP or more: enough */
};
/* As of the generation, in range. */
struct breaker_baseline breaker_baseline_load(const struct layout_breaker *b, unsigned generation);

void breaker_stats_reset(struct layout_breaker *b);
