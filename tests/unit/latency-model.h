#pragma once

/*
 * The reference model of a healthy provider's time to first token: lognormal around 800 ms with
 * sigma 0.6, a slow drift of 40 % up and down, 2 % cold starts of 4 to 10 times as long, 0.2 %
 * stalls of 30 s.
 */

#include <math.h>
#include "tests/unit/splitmix.h"

#define MODEL_MEDIAN_US 800e3
#define MODEL_SIGMA 0.6
#define MODEL_DRIFT 0.4
#define MODEL_DRIFT_CALLS 50000.0
#define MODEL_STALL_US 30e6
#define MODEL_PI 3.14159265358979323846

struct latency_model {
	uint64_t random;
	double calls;
};

static inline double model_uniform(struct latency_model *m)
{
	return ((double)(splitmix_next(&m->random) >> 11) + 0.5) / 9007199254740992.0;
}

static inline double model_normal(struct latency_model *m)
{
	double radius = sqrt(-2 * log(model_uniform(m)));

	return radius * cos(2 * MODEL_PI * model_uniform(m));
}

/* Microseconds; slower by the factor. */
static inline uint64_t model_next(struct latency_model *m, double factor)
{
	double drift = 1 + MODEL_DRIFT * sin(2 * MODEL_PI * m->calls / MODEL_DRIFT_CALLS);
	double us = MODEL_MEDIAN_US * drift * exp(MODEL_SIGMA * model_normal(m)) * factor;
	double kind = model_uniform(m);

	m->calls++;
	if (kind < 0.002)
		return (uint64_t)MODEL_STALL_US;
	if (kind < 0.022)
		us *= 4 + 6 * model_uniform(m);
	return (uint64_t)us;
}
