#pragma once

/*
 * A moving average in one shared word: value as float32 in the upper half, time of the last sample
 * in ms (modular) in the lower. Values are natural logarithms of microseconds, EWMA_LO to EWMA_HI;
 * 0 is a word that nothing was learned into, and what is out of range counts as such.
 *
 * After Finagle's peak-EWMA: quick up, slow down, but on the logarithm, and with a least weight
 * per sample, so that what is learned does not depend on how many samples come. A sample after an
 * idle time weighs more. Lock-free, bounded, thread- and process-safe; now is passed in.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define EWMA_LO 0.01f
#define EWMA_HI 25.0f
#define EWMA_NONE UINT64_C(0)
#define EWMA_UP 0.35f        /* weight of a sample above the average */
#define EWMA_DOWN 0.12f      /* and of one below */
#define EWMA_TAU_MS 15000.0f /* a word not written for so long counts 1/e */

/* Adds a sample; false: dropped, because others were faster EWMA_TRIES times. prior: what a word
 * that is garbage or has nothing counts as; 0: the sample itself. */
#define EWMA_TRIES 8
bool ewma_add(_Atomic uint64_t *word, float x, uint32_t now_ms, float prior);

static inline uint64_t ewma_pack(float value, uint32_t ms)
{
	uint32_t bits;

	memcpy(&bits, &value, sizeof(bits));
	return (uint64_t)bits << 32 | ms;
}

/* 0: nothing learned. */
static inline float ewma_value(uint64_t word)
{
	uint32_t bits = (uint32_t)(word >> 32);
	float value;

	memcpy(&value, &bits, sizeof(value));
	return value >= EWMA_LO && value <= EWMA_HI ? value : 0;
}

/* Since the last sample. Clocks of processes differ by little: a time far ahead is a very old
 * one. */
#define EWMA_SKEW_MS 60000
static inline float ewma_idle_ms(uint64_t word, uint32_t now_ms)
{
	int32_t idle = (int32_t)(now_ms - (uint32_t)word);

	if (idle >= 0)
		return (float)idle;
	return idle > -EWMA_SKEW_MS ? 0 : (float)INT32_MAX;
}

/* ln(x) for finite x > 0, normalised, to 1e-4: the polynomial is of ln(1 + t) on [sqrt(1/2) - 1,
 * sqrt(2) - 1]. */
static inline float ewma_ln(float x)
{
	uint32_t bits, offset;
	int32_t exponent;
	float m, t;

	memcpy(&bits, &x, sizeof(bits));
	offset = bits - 0x3f3504f3u;
	exponent = (int32_t)offset >> 23;
	bits = (offset & 0x7fffffu) + 0x3f3504f3u;
	memcpy(&m, &bits, sizeof(m));
	t = m - 1;
	return (float)exponent * 0.69314718f +
		t *
		(0.99987978f +
			t *
				(-0.49934391f +
					t * (0.33841275f + t * (-0.27203589f + t * 0.16801382f))));
}

/* exp(x) for -80 <= x <= 80, to 1e-4 of it (a power of two times a polynomial); what is outside
 * counts as that end. */
static inline float ewma_exp(float x)
{
	float z, f, p;
	uint32_t bits;
	int32_t whole;

	x = x < -80.0f ? -80.0f : x;
	x = x > 80.0f ? 80.0f : x;
	z = x * 1.44269504f + 127.0f;
	whole = (int32_t)z;
	f = z - (float)whole;
	p = 1.0f + f * (0.69303297f + f * (0.24136979f + f * (0.05205482f + f * 0.01354243f)));
	bits = (uint32_t)whole << 23;
	memcpy(&z, &bits, sizeof(z));
	return z * p;
}
