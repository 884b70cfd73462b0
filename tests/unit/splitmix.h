#pragma once

/* Seeded random numbers for tests: the same seed gives the same run everywhere. */

#include <stdint.h>

static inline uint64_t splitmix_next(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

/* From 0 to n - 1. */
static inline uint64_t splitmix_below(uint64_t *state, uint64_t n)
{
	return splitmix_next(state) % n;
}
