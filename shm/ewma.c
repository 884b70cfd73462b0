#include "shm/ewma.h"

/* What the average becomes. NaN samples count as EWMA_LO. */
static float moved(float value, float x, float idle_ms)
{
	float idle = 1 - ewma_exp(-idle_ms / EWMA_TAU_MS);
	float least = x > value ? EWMA_UP : EWMA_DOWN;

	return value + (x - value) * (idle > least ? idle : least);
}

bool ewma_add(_Atomic uint64_t *word, float x, uint32_t now_ms, float prior)
{
	uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);

	x = x > EWMA_LO ? x : EWMA_LO;
	x = x < EWMA_HI ? x : EWMA_HI;
	for (int i = 0; i < EWMA_TRIES; i++) {
		float value = ewma_value(seen), next = x;

		if (value != 0)
			next = moved(value, x, ewma_idle_ms(seen, now_ms));
		else if (prior >= EWMA_LO && prior <= EWMA_HI)
			next = moved(prior, x, 0);
		if (atomic_compare_exchange_weak_explicit(word, &seen, ewma_pack(next, now_ms),
			    memory_order_relaxed, memory_order_relaxed))
			return true;
	}
	return false;
}
