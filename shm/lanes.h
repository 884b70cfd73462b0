#pragma once

/*
 * Four numbers at once, for formulas over a handful of candidates (shm/router.c): the compiler's
 * portable vectors, which are SSE2 or NEON. The same polynomials as in shm/ewma.h, with the same
 * errors. The types are typedefs because the attribute needs them; they may alias arrays of
 * float and int32_t that are aligned to LANES_ALIGN.
 */

#include <stdint.h>

#define LANES 4
#define LANES_ALIGN 16

typedef float lanes_f32 __attribute__((vector_size(16), may_alias));
typedef int32_t lanes_i32 __attribute__((vector_size(16), may_alias));
typedef uint32_t lanes_u32 __attribute__((vector_size(16), may_alias));

#if defined(__clang__) || __GNUC__ >= 12
#define LANES_SHUFFLE(a_, b_, ...) __builtin_shufflevector(a_, b_, __VA_ARGS__)
#else
#define LANES_SHUFFLE(a_, b_, ...) __builtin_shuffle(a_, b_, (lanes_i32){ __VA_ARGS__ })
#endif

static inline lanes_f32 lanes_load(const float *at)
{
	return *(const lanes_f32 *)(const void *)at;
}

static inline void lanes_store(float *at, lanes_f32 v)
{
	*(lanes_f32 *)(void *)at = v;
}

static inline lanes_i32 lanes_load_int(const int32_t *at)
{
	return *(const lanes_i32 *)(const void *)at;
}

static inline void lanes_store_int(int32_t *at, lanes_i32 v)
{
	*(lanes_i32 *)(void *)at = v;
}

static inline lanes_i32 lanes_all_int(int32_t x)
{
	return (lanes_i32){ x, x, x, x };
}

/* a - b, modular. */
static inline lanes_i32 lanes_less(lanes_i32 a, lanes_i32 b)
{
	return (lanes_i32)((lanes_u32)a - (lanes_u32)b);
}

static inline int32_t lanes_any(lanes_i32 v)
{
	v |= LANES_SHUFFLE(v, v, 2, 3, 0, 1);
	v |= LANES_SHUFFLE(v, v, 1, 0, 3, 2);
	return v[0];
}

static inline int32_t lanes_sum(lanes_i32 v)
{
	v += LANES_SHUFFLE(v, v, 2, 3, 0, 1);
	v += LANES_SHUFFLE(v, v, 1, 0, 3, 2);
	return v[0];
}

static inline lanes_f32 lanes_all(float x)
{
	return (lanes_f32){ x, x, x, x };
}

/* a where the mask is -1, b where it is 0. */
static inline lanes_f32 lanes_pick(lanes_i32 mask, lanes_f32 a, lanes_f32 b)
{
	return (lanes_f32)((mask & (lanes_i32)a) | (~mask & (lanes_i32)b));
}

static inline lanes_f32 lanes_min(lanes_f32 a, lanes_f32 b)
{
	return lanes_pick((lanes_i32)(a < b), a, b);
}

/* The least, in all places. */
static inline lanes_f32 lanes_least(lanes_f32 v)
{
	v = lanes_min(v, LANES_SHUFFLE(v, v, 2, 3, 0, 1));
	return lanes_min(v, LANES_SHUFFLE(v, v, 1, 0, 3, 2));
}

static inline lanes_f32 lanes_max(lanes_f32 a, lanes_f32 b)
{
	return lanes_pick((lanes_i32)(a > b), a, b);
}

/* ln(x) for finite x > 0, normalised, to 1e-4. */
static inline lanes_f32 lanes_ln(lanes_f32 x)
{
	lanes_i32 offset = lanes_less((lanes_i32)x, lanes_all_int(0x3f3504f3));
	lanes_f32 exponent = __builtin_convertvector(offset >> 23, lanes_f32);
	lanes_f32 t = (lanes_f32)((offset & 0x7fffff) + 0x3f3504f3) - 1.0f, square = t * t, p;

	/* In pairs (Estrin), which do not wait for each other. */
	p = (t * -0.27203589f + 0.33841275f) + square * 0.16801382f;
	p = (t * -0.49934391f + 0.99987978f) + square * p;
	return exponent * 0.69314718f + p * t;
}

/* exp(x) for -80 <= x <= 80, to 1e-4 of it. */
static inline lanes_f32 lanes_exp_known(lanes_f32 x)
{
	lanes_f32 z = x * 1.44269504f + 127.0f, f, square, p;
	lanes_i32 whole = __builtin_convertvector(z, lanes_i32);

	f = z - __builtin_convertvector(whole, lanes_f32);
	square = f * f;
	p = (f * 0.05205482f + 0.24136979f) + square * 0.01354243f;
	p = (f * 0.69303297f + 1.0f) + square * p;
	return p * (lanes_f32)((lanes_u32)whole << 23);
}

/* x below -80 counts as -80. */
static inline lanes_f32 lanes_exp(lanes_f32 x)
{
	return lanes_exp_known(lanes_max(x, lanes_all(-80.0f)));
}
