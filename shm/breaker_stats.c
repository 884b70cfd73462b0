#include "shm/breaker_stats.h"

#include <math.h>
#include <string.h>
#include "base/aux.h"

#define TRIES 8
#define SLICE_BITS 20
#define SLICE_MASK ((UINT64_C(1) << SLICE_BITS) - 1)
#define EPOCH_BITS 24
#define EPOCH_MASK ((UINT32_C(1) << EPOCH_BITS) - 1)
/* A slice that is this far ahead of now is garbage; one less far ahead is a later caller's. */
#define AHEAD_MAX 100
#define UNWELL_SLACK_NS (2 * NSEC_PER_SEC)
#define UNWELL_MAX_NS (3 * NSEC_PER_DAY)
#define SAMPLES_MASK UINT16_MAX
#define ALPHA (1.0f / 500)
#define LN_MAX 25.0f
#define CUSUM_MAX 1000.0f
#define US_MAX UINT64_C(3600000000)
#define LN_2 0.693147181f

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

static void add(shared_u64 *word, uint64_t n)
{
	if (n > 0)
		atomic_fetch_add_explicit(word, n, memory_order_relaxed);
}

static bool cas(shared_u64 *word, uint64_t *seen, uint64_t next)
{
	return atomic_compare_exchange_strong_explicit(
		word, seen, next, memory_order_relaxed, memory_order_relaxed);
}

static uint32_t bits_of(float f)
{
	uint32_t bits;

	memcpy(&bits, &f, sizeof(bits));
	return bits;
}

static float float_of(uint32_t bits)
{
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

static uint64_t pack(float high, uint32_t low)
{
	return (uint64_t)bits_of(high) << 32 | low;
}

static bool in_range(float f, float most)
{
	/* False for what is not a number, too. */
	return f >= 0 && f <= most;
}

/* ---- settings ---- */

#define LEASE_MIN_MS 100
#define LEASE_MAX_MS (24u * 3600 * 1000)

static uint32_t clamp(uint64_t n, uint32_t least, uint32_t most)
{
	return n < least ? least : n > most ? most : (uint32_t)n;
}

unsigned breaker_window_s(const struct layout_breaker *b)
{
	return clamp(load(&b->settings[0]) >> 32 & 0xffff, 1, UINT16_MAX);
}

unsigned breaker_z_percent(const struct layout_breaker *b)
{
	return (uint16_t)load(&b->settings[2]);
}

struct breaker_settings breaker_settings_load(const struct layout_breaker *b)
{
	uint64_t w0 = load(&b->settings[0]), w1 = load(&b->settings[1]);
	uint64_t w2 = load(&b->settings[2]);
	uint32_t base = clamp(w1 & UINT32_MAX, LEASE_MIN_MS, LEASE_MAX_MS);

	return (struct breaker_settings){
		.run = (uint8_t)w0,
		.ratio_percent = (uint8_t)clamp(w0 >> 8 & 0xff, 0, 100),
		.calls = (uint16_t)(w0 >> 16),
		.window_s = (uint16_t)breaker_window_s(b),
		.probes = (uint8_t)clamp(w0 >> 48 & 0xff, 1, LAYOUT_PROBES),
		.need = (uint8_t)clamp(w0 >> 56, 1, UINT8_MAX),
		.lease_ms = clamp(w1 >> 32, LEASE_MIN_MS, LEASE_MAX_MS),
		.base_ms = base,
		.cap_ms = clamp(w2 >> 32, base, LEASE_MAX_MS),
		.z_percent = (uint16_t)breaker_z_percent(b),
	};
}

void breaker_settings_store(struct layout_breaker *b, const struct breaker_settings *s)
{
	store(&b->settings[0],
		s->run | (uint64_t)s->ratio_percent << 8 | (uint64_t)s->calls << 16 |
			(uint64_t)s->window_s << 32 | (uint64_t)s->probes << 48 |
			(uint64_t)s->need << 56);
	store(&b->settings[1], (uint64_t)s->lease_ms << 32 | s->base_ms);
	store(&b->settings[2], (uint64_t)s->cap_ms << 32 | s->z_percent);
}

/* ---- window ---- */

/* Slices since the clock began: its low bits are the epoch. The slice has the remainder of all of
 * it, which does not jump where epochs wrap. A slice is window_s tenths of a second; what fits
 * into 32 bits, 13 years, divides quicker. */
static uint64_t turn_of(unsigned window_s, uint64_t at_ns)
{
	uint64_t tenths = at_ns / (NSEC_PER_SEC / LAYOUT_SLICES);

	window_s = window_s ? window_s : 1;
	return aux_likely(tenths <= UINT32_MAX) ? (uint32_t)tenths / window_s : tenths / window_s;
}

static struct breaker_window counts_of(uint64_t slice)
{
	return (struct breaker_window){ slice >> SLICE_BITS & SLICE_MASK, slice & SLICE_MASK };
}

/* How many epochs the slice is before epoch; wraps for one that is later. */
static uint32_t age_of(uint64_t slice, uint32_t epoch)
{
	return (epoch - (uint32_t)(slice >> 2 * SLICE_BITS)) & EPOCH_MASK;
}

static void count_since_creation(struct layout_breaker *b, struct breaker_window n)
{
	add(&b->requests, n.ok + n.bad);
	add(&b->errors, n.bad);
}

/* By steps of a second, so that many share one store; what is further ahead than any would set is
 * garbage. */
void breaker_unwell_until(struct layout_breaker *b, uint64_t until_ns, uint64_t now_ns)
{
	uint64_t next_ns = until_ns + UNWELL_SLACK_NS, seen = load(&b->unwell_ns);

	for (int i = 0; i < TRIES; i++)
		if ((seen >= until_ns + UNWELL_SLACK_NS / 2 && seen <= now_ns + UNWELL_MAX_NS) ||
			cas(&b->unwell_ns, &seen, next_ns))
			return;
}

void breaker_window_count(struct layout_breaker *b, unsigned window_s, bool bad, uint64_t now_ns)
{
	uint64_t turn = turn_of(window_s, now_ns);
	uint32_t epoch = (uint32_t)turn & EPOCH_MASK;
	shared_u64 *slice = &b->slice[turn % LAYOUT_SLICES];
	struct breaker_window one = { !bad, bad };
	uint64_t one_word = bad ? 1 : UINT64_C(1) << SLICE_BITS;
	uint64_t seen = load(slice);

	/* Before it is counted: who sees it looks. */
	if (bad)
		breaker_unwell_until(b, now_ns + window_s * NSEC_PER_SEC, now_ns);
	for (int i = 0; i < TRIES; i++) {
		struct breaker_window has = counts_of(seen);
		uint32_t age = age_of(seen, epoch);

		if (aux_likely(age == 0)) {
			if ((bad ? has.bad : has.ok) == SLICE_MASK)
				break;
			if (aux_likely(cas(slice, &seen, seen + one_word)))
				return;
		} else if (age >= EPOCH_MASK + 1 - AHEAD_MAX) {
			break; /* this caller is late */
		} else if (cas(slice, &seen, (uint64_t)epoch << 2 * SLICE_BITS | one_word)) {
			count_since_creation(b, has);
			return;
		}
	}
	count_since_creation(b, one);
}

struct breaker_window breaker_window_sum(
	const struct layout_breaker *b, unsigned window_s, uint64_t now_ns, uint64_t since_ns)
{
	uint64_t turn = turn_of(window_s, now_ns), since = turn - turn_of(window_s, since_ns);
	uint32_t epoch = (uint32_t)turn & EPOCH_MASK, limit = LAYOUT_SLICES;
	struct breaker_window sum = { 0, 0 };

	if (since_ns > 0 && since_ns <= now_ns && since < LAYOUT_SLICES)
		limit = (uint32_t)since;
	for (unsigned i = 0; i < LAYOUT_SLICES; i++) {
		uint64_t slice = load(&b->slice[i]);
		struct breaker_window n = counts_of(slice);

		if (age_of(slice, epoch) < limit) {
			sum.ok += n.ok;
			sum.bad += n.bad;
		}
	}
	return sum;
}

struct breaker_window breaker_window_all(const struct layout_breaker *b)
{
	struct breaker_window sum = { 0, 0 };

	for (unsigned i = 0; i < LAYOUT_SLICES; i++) {
		struct breaker_window n = counts_of(load(&b->slice[i]));

		sum.ok += n.ok;
		sum.bad += n.bad;
	}
	return sum;
}

/* ---- latency ---- */

/* ln(2) * exponent + a polynomial for the rest that is exact at 1 and 2, so that there are no
 * jumps.
 */
float breaker_ln(float x)
{
	uint32_t bits = bits_of(x);
	float exponent = (float)((int32_t)(bits >> 23 & 0xff) - 127);
	float f = float_of((bits & 0x7fffff) | 0x3f800000) - 1;

	return LN_2 * (exponent + f) +
		f * (1 - f) * (0.30552597f + f * (-0.16820565f + f * 0.05657172f));
}

struct breaker_baseline breaker_baseline_load(const struct layout_breaker *b, unsigned generation)
{
	uint64_t base = load(&b->baseline), cusum = load(&b->cusum);
	struct breaker_baseline out = {
		.mean = float_of((uint32_t)(base >> 32)),
		.variance = float_of((uint32_t)base),
		.cusum = float_of((uint32_t)(cusum >> 32)),
		.samples = (unsigned)(cusum & SAMPLES_MASK),
	};

	if ((cusum >> 16 & UINT16_MAX) != generation || !in_range(out.cusum, CUSUM_MAX))
		out.cusum = 0;
	if (!in_range(out.mean, LN_MAX) || !in_range(out.variance, LN_MAX))
		out = (struct breaker_baseline){ 0, 0, 0, 0 };
	return out;
}

static float least(float a, float b)
{
	return a < b ? a : b;
}

static float most(float a, float b)
{
	return a > b ? a : b;
}

/* 1 / sqrt(x), at most 0.2 % off: a guess from the bits and one step of Newton's (Lomont 2003). */
static float inverse_root(float x)
{
	float y = float_of(0x5f375a86 - (bits_of(x) >> 1));

	return y * (1.5f - 0.5f * x * y * y);
}

/* Plain mean and variance (Welford 1962) while warming up, then both decay; d: the deviation,
 * clamped. */
static void learn(struct breaker_baseline *base, float d)
{
	float part = base->samples < BREAKER_WARM_UP ? 1.0f / (float)(base->samples + 1) : ALPHA;

	base->mean += d * part;
	base->variance = (1 - part) * (base->variance + d * d * part);
	if (base->samples < BREAKER_WARM_UP)
		base->samples++;
}

/* The mean since the sum is above BREAKER_CUSUM_RISEN, this sample included. By one CAS: a lost
 * sample is no harm.
 */
static float excursion(struct layout_breaker *b, bool first, float x)
{
	uint64_t seen = load(&b->recent);
	float mean = float_of((uint32_t)(seen >> 32));
	uint32_t samples = (uint32_t)seen;

	if (first || samples == 0 || samples == UINT32_MAX || !in_range(mean, LN_MAX)) {
		mean = x;
		samples = 1;
	} else {
		samples++;
		mean += (x - mean) / (float)samples;
	}
	cas(&b->recent, &seen, pack(mean, samples));
	return mean;
}

static bool has_risen(float recent, float mean)
{
	return expf(recent) > BREAKER_RISE * expf(mean) + BREAKER_RISE_US;
}

bool breaker_latency_rule(
	struct layout_breaker *b, unsigned generation, unsigned z_percent, uint64_t us)
{
	uint64_t seen_base = load(&b->baseline), seen_cusum = load(&b->cusum);
	struct breaker_baseline base = breaker_baseline_load(b, generation);
	float before = base.mean, was = base.cusum, recent = 0;
	float x = breaker_ln((float)(us < 1 ? 1 : us > US_MAX ? US_MAX : us)), d = x - base.mean;
	bool warm = base.samples >= BREAKER_WARM_UP;
	uint64_t next;

	if (aux_likely(warm)) {
		float variance = most(base.variance, BREAKER_SD_MIN * BREAKER_SD_MIN);
		float inverse = inverse_root(variance);
		float z = least(most(d * inverse, -BREAKER_Z_MAX), BREAKER_Z_MAX);

		d = z * (variance * inverse);
		base.cusum += z - (float)z_percent * (1.0f / 250);
		base.cusum = least(most(base.cusum, 0), CUSUM_MAX);
		if (z_percent == 0)
			base.cusum = 0;
		if (aux_unlikely(base.cusum > BREAKER_CUSUM_RISEN))
			recent = excursion(b, was <= BREAKER_CUSUM_RISEN, x);
	}
	learn(&base, d);
	cas(&b->baseline, &seen_base, pack(base.mean, bits_of(base.variance)));
	next = pack(base.cusum, generation << 16 | base.samples);
	if (next != seen_cusum)
		cas(&b->cusum, &seen_cusum, next);
	return base.cusum > BREAKER_CUSUM_H && has_risen(recent, before);
}

void breaker_stats_reset(struct layout_breaker *b)
{
	store(&b->baseline, 0);
	store(&b->cusum, 0);
	store(&b->recent, 0);
	store(&b->run, 0);
	for (unsigned i = 0; i < LAYOUT_SLICES; i++) {
		uint64_t seen = load(&b->slice[i]);

		/* Who counts meanwhile wins: his is new. */
		if (cas(&b->slice[i], &seen, 0))
			count_since_creation(b, counts_of(seen));
	}
}
