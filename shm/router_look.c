#include "shm/router_internal.h"

#include <string.h>
#include "base/aux.h"
#include "shm/breaker.h"
#include "shm/ewma.h"
#include "shm/target.h"

#define COLD_SAMPLES 10
#define ERRORS_MAX 0.999f
#define WAIT_MAX_US 1e12f
#define STATE_SHIFT 62
#define PRICE_BITS 35

static_assert(TARGET_PRICE_MAX >> PRICE_BITS == 1, "what is below is valid");

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

/* ---- looking at one candidate ---- */

/* Of the whole call, in pico-USD, of valid prices: tokens and prices are bounded, so nothing
 * overflows. */
static inline uint64_t price_call(
	const struct layout_target *t, const struct question *q, uint64_t input, uint64_t output)
{
	uint64_t pico = input * q->fresh + output * q->output, cached;

	if (aux_unlikely(q->cached > 0)) {
		cached = load(&t->price_cached);
		pico += (cached <= TARGET_PRICE_MAX ? cached : input) * q->cached;
	}
	return pico;
}

/* Everything that needs no other module. */
static void look_numbers(
	struct board *b, unsigned i, const struct layout_target *t, const struct question *q)
{
	uint64_t samples = load(&t->samples), tried_ns = load(&t->tried_ns);
	uint64_t input = load(&t->price_input), output = load(&t->price_output);

	b->first_word[i] = load(&t->first_token[q->prompt_class]);
	b->gap_word[i] = load(&t->gap);
	b->pending[i] = (int32_t)(load(&t->pending) & UINT32_MAX);
	if (samples < COLD_SAMPLES) {
		b->share[i] = (float)samples / COLD_SAMPLES;
		b->cold |= UINT32_C(1) << i;
	}
	if (tried_ns - q->stale_ns > ROUTER_STALE_NS + ROUTER_AHEAD_NS)
		b->stale |= UINT32_C(1) << i;
	if (input > TARGET_PRICE_MAX || output > TARGET_PRICE_MAX)
		return;
	b->pico[i] = (int64_t)price_call(t, q, input, output);
	b->price[i] = (float)b->pico[i];
}

static inline bool is_closed(const struct layout_breaker *b)
{
	return load(&b->state) >> STATE_SHIFT == BREAKER_CLOSED;
}

/* The target's and its provider's: whatever either says against it counts, and the longer wait. One
 * that an operator opened, of the two, is no matter of panic. */
static __attribute__((noinline)) bool look_not_closed(const struct region *r, struct board *b,
	unsigned i, uint32_t row, uint64_t provider, uint64_t now_ns)
{
	uint64_t wait_ns = 0, above_ns = 0;
	enum breaker_verdict verdict = breaker_check(r, row, now_ns, &wait_ns);
	enum breaker_verdict above = provider < r->targets ?
		breaker_check(r, (uint32_t)provider, now_ns, &above_ns) :
		BREAKER_PASS;

	if (verdict == BREAKER_REJECT || above == BREAKER_REJECT) {
		b->wait_ns[i] = max_u64(wait_ns, above_ns);
		b->reason[i] = ROUTER_OUT_BREAKER;
		if (b->wait_ns[i] < BREAKER_WAIT_FOREVER)
			b->open |= UINT32_C(1) << i;
		return false;
	}
	if (verdict == BREAKER_PROBE || above == BREAKER_PROBE)
		b->probe |= UINT32_C(1) << i;
	return true;
}

/* The usual case without a call. */
static inline bool look_breaker(
	const struct region *r, struct board *b, unsigned i, uint32_t row, uint64_t now_ns)
{
	uint64_t provider = load(&r->target[row].provider);

	if (aux_likely(is_closed(&r->breaker[row]) &&
		    (provider >= r->targets || is_closed(&r->breaker[provider]))))
		return true;
	return look_not_closed(r, b, i, row, provider, now_ns);
}

/* Whether it is worth waiting for; the longest wait counts. */
static bool look_wait(struct board *b, unsigned i, uint64_t wait_ns, uint64_t patience_ns,
	enum router_reason reason)
{
	float us = (float)wait_ns / NSEC_PER_USEC;

	if (wait_ns <= b->wait_ns[i])
		return true;
	b->wait_ns[i] = wait_ns;
	b->wait_us[i] = us < WAIT_MAX_US ? us : WAIT_MAX_US;
	if (wait_ns <= patience_ns)
		return true;
	b->reason[i] = (uint8_t)reason;
	return false;
}

/* Until its limits would let the call pass; UINT64_MAX: never. */
static __attribute__((noinline)) uint64_t limits_wait(const struct region *r,
	const struct router_candidate *c, const struct question *q, int64_t pico)
{
	struct bucket_cost cost = { .requests = 1,
		.input_tokens = q->query->input_tokens,
		.output_tokens = q->query->output_tokens,
		.nanousd = pico < 0 ? 0 : ((uint64_t)pico + 999) / 1000 };
	struct bucket_verdict v = bucket_peek(r, c->limits, &cost, q->now_ns);

	if (aux_unlikely(v.outcome == BUCKET_E_NEVER))
		return UINT64_MAX;
	/* Who looks up limits that are gone again is told so when he takes. */
	return v.outcome == BUCKET_E_WAIT ? v.wait_ns : 0;
}

static bool look_budget(const struct region *r, struct board *b, unsigned i,
	const struct router_candidate *c, const struct question *q)
{
	uint64_t wait_ns = limits_wait(r, c, q, b->pico[i]);

	if (wait_ns < UINT64_MAX)
		return look_wait(b, i, wait_ns, q->query->patience_ns, ROUTER_OUT_BUDGET);
	b->wait_ns[i] = UINT64_MAX;
	b->reason[i] = ROUTER_OUT_BUDGET;
	return false;
}

/* What is no matter of its state, but of calls: limits and a provider's 429. */
static inline bool look_waits(const struct region *r, struct board *b, unsigned i,
	const struct router_candidate *c, const struct question *q)
{
	const struct layout_target *t = &r->target[c->row];
	uint64_t provider = load(&t->provider);

	if (aux_unlikely(load(&t->pause_ns) != 0 ||
		    (provider < r->targets && load(&r->target[provider].pause_ns) != 0)) &&
		!look_wait(b, i, target_paused(r, c->row, q->now_ns), q->query->patience_ns,
			ROUTER_OUT_PAUSED))
		return false;
	return !c->limits || look_budget(r, b, i, c, q);
}

/* The first reason against it that holds whatever its state is, or ROUTER_FALLBACK. */
static enum router_reason look_filters(
	const struct layout_target *t, const struct question *q, int64_t pico)
{
	if (load(&t->available) != 1)
		return ROUTER_OUT_UNAVAILABLE;
	if ((q->capabilities & ~load(&t->capabilities)) != 0)
		return ROUTER_OUT_CAPABILITY;
	/* 0, not known, becomes the largest. */
	if (q->context > load(&t->context) - 1)
		return ROUTER_OUT_CONTEXT;
	if (q->query->price_cap_nanousd >= 0 && (pico < 0 || (uint64_t)pico > q->price_cap))
		return ROUTER_OUT_PRICE;
	return ROUTER_FALLBACK;
}

static float errors_of(const struct region *r, uint32_t row, uint64_t now_ns)
{
	float errors;

	if (load(&r->breaker[row].unwell_ns) <= now_ns)
		return 0;
	errors = breaker_error_ratio(r, row, now_ns);
	return errors > 0 ? errors < ERRORS_MAX ? errors : ERRORS_MAX : 0;
}

/* Whether the ramp has no room; whatever it says, one may. */
static inline bool is_held(
	const struct region *r, const struct board *b, unsigned i, uint32_t row, uint64_t now_ns)
{
	return b->pending[i] != 0 && (uint32_t)b->pending[i] >= breaker_ramp(r, row, now_ns);
}

static void look_health(
	const struct region *r, struct board *b, unsigned i, uint32_t row, uint64_t now_ns)
{
	float errors = errors_of(r, row, now_ns);

	b->errors[i] = errors;
	b->failed |= errors > 0;
	if (errors > ROUTER_SICK_ERRORS)
		b->sick |= UINT32_C(1) << i;
	if (is_held(r, b, i, row, now_ns))
		b->held |= UINT32_C(1) << i;
}

static void use(struct board *b, unsigned i)
{
	b->usable |= UINT32_C(1) << i;
	b->counts[i] = -1;
}

/* Any candidate, whatever is the matter with it. */
static __attribute__((noinline)) void look(const struct region *r, struct board *b, unsigned i,
	const struct router_candidate *c, const struct question *q)
{
	const struct layout_target *t;

	if (b->plain)
		router_spread(b);
	b->usable &= ~(UINT32_C(1) << i);
	b->counts[i] = b->pending[i] = 0;
	b->first_word[i] = b->gap_word[i] = EWMA_NONE;
	b->reason[i] = ROUTER_OUT_UNAVAILABLE;
	b->pico[i] = -1;
	b->price[i] = -1;
	if (c->row >= r->targets || c->key < LAYOUT_KEY_FIRST)
		return;
	t = &r->target[c->row];
	if (atomic_load_explicit(&t->key, memory_order_acquire) != c->key)
		return;
	look_numbers(b, i, t, q);
	b->reason[i] = (uint8_t)look_filters(t, q, b->pico[i]);
	if (b->reason[i] != ROUTER_FALLBACK || !look_breaker(r, b, i, c->row, q->now_ns) ||
		!look_waits(r, b, i, c, q))
		return;
	look_health(r, b, i, c->row, q->now_ns);
	use(b, i);
}

static void clear_errors(struct board *b)
{
	for (unsigned i = 0; i < b->count; i += LANES)
		lanes_store(&b->errors[i], lanes_all(0));
}

/* Whether there is nothing the matter with one but that some calls failed: it stays plain. */
static __attribute__((noinline)) bool look_unwell(
	struct board *b, unsigned i, const struct router_candidate *c, const struct question *q)
{
	const struct region *r = q->r;
	const struct layout_target *t = &r->target[c->row];
	uint64_t provider = load(&t->provider);
	float errors;

	if (provider >= r->targets ||
		(load(&t->pause_ns) | load(&r->target[provider].pause_ns)) != 0 ||
		is_held(r, b, i, c->row, q->now_ns))
		return false;
	errors = errors_of(r, c->row, q->now_ns);
	if (errors > ROUTER_SICK_ERRORS)
		return false;
	if (errors > 0) {
		if (b->plain && !b->failed)
			clear_errors(b);
		b->failed = true;
		b->errors[i] = errors;
	}
	return true;
}

/* One with nothing the matter; false: look() knows. As many conditions as possible in one branch:
 * each is nearly always so. */
static inline bool look_plain(const struct region *r, struct board *b, unsigned i,
	const struct router_candidate *c, const struct question *q)
{
	uint32_t row = c->row, targets = r->targets;
	const struct layout_target *t = &r->target[row];
	const struct layout_breaker *breaker = r->breaker;
	uint64_t provider, odd, input, output, pico;

	if (aux_unlikely(row >= targets || c->key < LAYOUT_KEY_FIRST))
		return false;
	odd = atomic_load_explicit(&t->key, memory_order_acquire) ^ c->key;
	provider = load(&t->provider);
	if (aux_unlikely(provider >= targets))
		return false;
	odd |= load(&t->available) ^ 1;
	odd |= (load(&t->capabilities) & q->capabilities) ^ q->capabilities;
	input = load(&t->price_input);
	output = load(&t->price_output);
	odd |= (input | output) >> PRICE_BITS;
	odd |= (load(&breaker[row].state) | load(&breaker[provider].state)) >> STATE_SHIFT;
	pico = price_call(t, q, input, output);
	b->first_word[i] = load(&t->first_token[q->prompt_class]);
	b->gap_word[i] = load(&t->gap);
	b->pending[i] = (int32_t)(uint32_t)load(&t->pending);
	b->pico[i] = (int64_t)pico;
	b->price[i] = (float)(int64_t)pico;
	return aux_likely(odd == 0) && aux_likely(pico <= q->price_cap) &&
		aux_likely(q->context <= load(&t->context) - 1) &&
		aux_likely(load(&t->samples) >= COLD_SAMPLES) &&
		aux_likely(load(&t->tried_ns) - q->stale_ns <= ROUTER_STALE_NS + ROUTER_AHEAD_NS) &&
		((aux_likely(load(&breaker[row].unwell_ns) <= q->now_ns) &&
			 aux_likely(load(&breaker[provider].unwell_ns) <= q->now_ns)) ||
			look_unwell(b, i, c, q));
}

void router_spread(struct board *b)
{
	b->plain = false;
	if (!b->failed)
		clear_errors(b);
	for (unsigned i = 0; i < b->count; i += LANES) {
		lanes_store(&b->share[i], lanes_all(1));
		lanes_store(&b->wait_us[i], lanes_all(0));
		lanes_store_int(&b->counts[i], lanes_all_int(-1));
		for (unsigned k = i; k < i + LANES; k++) {
			b->wait_ns[k] = 0;
			b->reason[k] = ROUTER_FALLBACK;
		}
	}
	for (unsigned i = b->count; i % LANES != 0; i++)
		b->counts[i] = 0;
}

/* All that is left out is out for its breaker: better these than none. */
static void panic(const struct region *r, struct board *b, const struct router_candidate *c,
	const struct question *q)
{
	for (uint32_t left = b->open; left != 0; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		b->wait_ns[i] = 0;
		if (!look_waits(r, b, i, &c[i], q))
			continue;
		look_health(r, b, i, c[i].row, q->now_ns);
		b->reason[i] = ROUTER_PANIC;
		use(b, i);
	}
}

void router_look(struct board *b, const struct question *q, unsigned count)
{
	const struct region *r = q->r;
	const struct router_candidate *c = q->candidate;

	b->count = count;
	b->plain = true;
	b->failed = false;
	b->usable = (uint32_t)((UINT64_C(1) << count) - 1);
	b->open = b->cold = b->probe = b->stale = b->held = b->sick = 0;
	for (unsigned i = 0; i < count; i++, c++)
		if (aux_unlikely(!look_plain(r, b, i, c, q) ||
			    (c->limits && limits_wait(r, c, q, b->pico[i]) != 0)))
			look(r, b, i, c, q);
	/* Places beyond the last: fresh, and like any other. */
	for (unsigned i = count; i % LANES != 0; i++) {
		b->first_word[i] = b->gap_word[i] = ewma_pack(1, (uint32_t)q->now_ms);
		b->pending[i] = 0;
		b->price[i] = 0;
	}
	if (aux_unlikely(b->usable == 0))
		panic(r, b, q->candidate, q);
	b->uses = aux_likely(b->plain) ? count : (unsigned)__builtin_popcount(b->usable);
}
