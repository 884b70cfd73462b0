#include "shm/estimate.h"

#include "base/aux.h"
#include "shm/ewma.h"
#include "shm/layout.h"

#define WAYS 4
#define TRIES 8
#define QUANTILE 0.95f
#define ENOUGH 20 /* samples, before the estimate counts */
/* ln(tokens); the first sample is rather a median, which lies about so far below the percentile. */
#define LN_MAX 20.0f
#define FIRST_ABOVE 1.0f
/* Steps 1 / sqrt(n) down to a floor, so that it follows what changes. */
#define STEP_FLOOR 0.12f
#define TOKENS_MAX (UINT64_C(1) << 28)
#define NOTE_EVERY_NS NSEC_PER_SEC

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static uint64_t mix_text(uint64_t hash, struct str text)
{
	for (size_t i = 0; i < text.length; i++)
		hash = (hash ^ (unsigned char)text.data[i]) * UINT64_C(0x100000001b3);
	return hash;
}

/* FNV-1a, folded so that the low bits, which choose the place, depend on all. */
static uint64_t key_of(struct str model, struct str tag)
{
	uint64_t hash = mix_text(UINT64_C(0xcbf29ce484222325), model);

	hash = mix_text(hash, str_make("\x1f", 1));
	hash = mix_text(hash, tag);
	return max_u64(hash ^ (hash >> 32), LAYOUT_KEY_FIRST);
}

/* The first of the rows that a pair may sit in. */
static uint32_t set_of(const struct region *r, uint64_t key, uint32_t *ways)
{
	*ways = r->estimates < WAYS ? r->estimates : WAYS;
	return (uint32_t)(key % (r->estimates / *ways)) * *ways;
}

static struct layout_estimate *find(const struct region *r, uint64_t key)
{
	uint32_t ways, row = set_of(r, key, &ways);

	for (uint32_t i = 0; i < ways; i++)
		if (atomic_load_explicit(&r->estimate[row + i].key, memory_order_acquire) == key)
			return &r->estimate[row + i];
	return NULL;
}

/* A row whose learned value is empty. The key is RETIRED while it is emptied, so that nobody takes
 * the last owner's for ours; who dies meanwhile leaves a row that is free. */
static struct layout_estimate *claim(const struct region *r, uint64_t key, uint64_t now_ns)
{
	uint32_t ways, row = set_of(r, key, &ways);
	struct layout_estimate *victim = &r->estimate[row];
	uint64_t oldest = UINT64_MAX, old = LAYOUT_KEY_NEVER;

	for (uint32_t i = 0; i < ways; i++) {
		struct layout_estimate *e = &r->estimate[row + i];
		uint64_t found = load(&e->key), used_ns = load(&e->used_ns);

		if (found < LAYOUT_KEY_FIRST || used_ns > now_ns + NOTE_EVERY_NS)
			used_ns = 0;
		if (used_ns >= oldest)
			continue;
		oldest = used_ns;
		victim = e;
		old = found;
	}
	if (!atomic_compare_exchange_strong_explicit(&victim->key, &old, LAYOUT_KEY_RETIRED,
		    memory_order_acquire, memory_order_relaxed))
		return NULL;
	atomic_store_explicit(&victim->value, 0, memory_order_relaxed);
	atomic_store_explicit(&victim->used_ns, now_ns, memory_order_relaxed);
	atomic_store_explicit(&victim->key, key, memory_order_release);
	return victim;
}

/* false: nothing learned, or garbage. */
static bool unpack(uint64_t word, float *value, uint32_t *samples)
{
	uint32_t bits = (uint32_t)(word >> 32);

	memcpy(value, &bits, sizeof(*value));
	*samples = (uint32_t)word;
	return *samples > 0 && *value >= 0 && *value <= LN_MAX;
}

/* One sample: up by p of a step if above, down by 1 - p if not, which rests where p are below. */
static uint64_t moved(uint64_t word, float x)
{
	float value, step;
	uint32_t samples, bits;

	if (!unpack(word, &value, &samples)) {
		value = x + FIRST_ABOVE;
		samples = 0;
	} else {
		step = ewma_exp(-0.5f * ewma_ln((float)samples));
		step = step > STEP_FLOOR ? step : STEP_FLOOR;
		value += step * (x > value ? QUANTILE : QUANTILE - 1);
	}
	value = value > 0 ? value < LN_MAX ? value : LN_MAX : 0;
	memcpy(&bits, &value, sizeof(bits));
	return (uint64_t)bits << 32 | (samples < UINT32_MAX ? samples + 1 : samples);
}

void estimate_learn(const struct region *r, struct str model, struct str tag,
	uint64_t output_tokens, uint64_t now_ns)
{
	uint64_t key = key_of(model, tag), seen, used_ns;
	float x = ewma_ln((float)max_u64(min_u64(output_tokens, TOKENS_MAX), 1));
	struct layout_estimate *e;

	if (!r->writable)
		return;
	e = find(r, key);
	if (!e)
		e = claim(r, key, now_ns);
	if (!e)
		return;
	seen = load(&e->value);
	for (int i = 0; i < TRIES && load(&e->key) == key; i++)
		if (atomic_compare_exchange_weak_explicit(&e->value, &seen, moved(seen, x),
			    memory_order_relaxed, memory_order_relaxed))
			break;
	used_ns = load(&e->used_ns);
	if (used_ns + NOTE_EVERY_NS <= now_ns || used_ns > now_ns + NOTE_EVERY_NS)
		atomic_store_explicit(&e->used_ns, now_ns, memory_order_relaxed);
}

/* Rounded up. */
static uint64_t tokens_of(float value)
{
	float tokens = ewma_exp(value);
	uint64_t whole = (uint64_t)tokens;

	return whole + ((float)whole < tokens);
}

uint64_t estimate_output(const struct region *r, struct str model, struct str tag,
	uint64_t max_tokens, uint64_t fallback)
{
	const struct layout_estimate *e = find(r, key_of(model, tag));
	uint64_t tokens = fallback;
	uint32_t samples;
	float value;

	if (e && unpack(load(&e->value), &value, &samples) && samples >= ENOUGH)
		tokens = tokens_of(value);
	return max_tokens != 0 ? min_u64(tokens, max_tokens) : tokens;
}

uint64_t estimate_call(const struct region *r, struct str model, struct str tag,
	uint64_t max_tokens, uint64_t configured, bool reserve)
{
	if (reserve && max_tokens != 0)
		return max_tokens;
	return estimate_output(
		r, model, tag, max_tokens, configured != 0 ? configured : ESTIMATE_OUTPUT);
}

uint64_t estimate_input(uint64_t bytes)
{
	return bytes / 7 * 2 + (bytes % 7 * 2 + 6) / 7;
}

bool estimate_view(const struct region *r, uint32_t row, struct estimate_view *out)
{
	const struct layout_estimate *e;
	uint32_t samples = 0;
	float value = 0;

	if (row >= r->estimates)
		return false;
	e = &r->estimate[row];
	if (atomic_load_explicit(&e->key, memory_order_acquire) < LAYOUT_KEY_FIRST ||
		!unpack(load(&e->value), &value, &samples))
		return false;
	*out = (struct estimate_view){
		.tokens = tokens_of(value), .samples = samples, .used_ns = load(&e->used_ns)
	};
	return true;
}
