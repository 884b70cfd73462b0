#include "shm/router_internal.h"

#include <string.h>
#include "base/aux.h"
#include "shm/breaker.h"
#include "shm/target.h"

#define COLD_SAMPLES 10
#define ERRORS_MAX 0.999f
#define WAIT_MAX_US 1e12f
#define STATE_SHIFT 62
#define SLICE_BAD UINT64_C(0xfffff)

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

/* ---- looking at one candidate ---- */

/* Of the whole call, in pico-USD; -1: not known. Tokens and prices are bounded, so nothing
 * overflows. */
static inline int64_t price_call(const struct layout_target *t, const struct question *q)
{
	uint64_t input = load(&t->price_input), output = load(&t->price_output), cached = input;

	if (aux_unlikely(input > TARGET_PRICE_MAX || output > TARGET_PRICE_MAX))
		return -1;
	if (q->cached > 0 && load(&t->price_cached) <= TARGET_PRICE_MAX)
		cached = load(&t->price_cached);
	return (int64_t)(input * q->fresh + cached * q->cached + output * q->output);
}

/* Everything that needs no other module. */
static inline void look_numbers(
	struct board *b, unsigned i, const struct layout_target *t, const struct question *q)
{
	uint64_t first = load(&t->first_token[q->prompt_class]), gap = load(&t->gap);
	uint64_t samples = load(&t->samples), tried_ns = load(&t->tried_ns);
	int64_t pico = price_call(t, q);

	b->first_bits[i] = (int32_t)(first >> 32);
	b->first_ms[i] = (int32_t)first;
	b->gap_bits[i] = (int32_t)(gap >> 32);
	b->gap_ms[i] = (int32_t)gap;
	b->pending[i] = (int32_t)(load(&t->pending) & UINT32_MAX);
	if (aux_unlikely(samples < COLD_SAMPLES)) {
		b->share[i] = (float)samples / COLD_SAMPLES;
		b->cold |= UINT32_C(1) << i;
	}
	if (aux_unlikely(tried_ns - q->stale_ns > ROUTER_STALE_NS + ROUTER_AHEAD_NS))
		b->stale |= UINT32_C(1) << i;
	if (aux_unlikely(pico < 0)) {
		b->unpriced = true;
		b->price[i] = 0;
		return;
	}
	b->price[i] = (float)pico + ROUTER_PRICE_FLOOR;
	b->cost[i] = (int64_t)(((uint64_t)pico + 999) / 1000);
}

static inline bool is_closed(const struct layout_breaker *b)
{
	return load(&b->state) >> STATE_SHIFT == BREAKER_CLOSED;
}

/* The target's, or else its provider's. One that an operator opened is no matter of panic. */
static __attribute__((noinline)) bool look_not_closed(const struct region *r, struct board *b,
	unsigned i, uint32_t row, uint64_t provider, uint64_t now_ns)
{
	uint64_t wait_ns = 0;
	enum breaker_verdict verdict = breaker_check(r, row, now_ns, &wait_ns);

	if (verdict == BREAKER_PASS && provider < r->targets)
		verdict = breaker_check(r, (uint32_t)provider, now_ns, &wait_ns);
	if (verdict == BREAKER_PASS)
		return true;
	if (verdict == BREAKER_PROBE) {
		b->probe |= UINT32_C(1) << i;
		return true;
	}
	b->wait_ns[i] = wait_ns;
	b->reason[i] = ROUTER_OUT_BREAKER;
	if (wait_ns < BREAKER_WAIT_FOREVER)
		b->open |= UINT32_C(1) << i;
	return false;
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

static __attribute__((noinline)) bool look_budget(const struct region *r, struct board *b,
	unsigned i, const struct router_candidate *c, const struct question *q)
{
	struct bucket_cost cost = { .requests = 1,
		.input_tokens = q->query->input_tokens,
		.output_tokens = q->query->output_tokens,
		.nanousd = b->cost[i] < 0 ? 0 : (uint64_t)b->cost[i] };
	struct bucket_verdict v;

	v = bucket_peek(r, c->limits, &cost, q->now_ns);
	/* Who looks up limits that are gone again is told so when he takes. */
	if (aux_likely(v.outcome != BUCKET_E_WAIT && v.outcome != BUCKET_E_NEVER))
		return true;
	if (v.outcome == BUCKET_E_WAIT)
		return look_wait(b, i, v.wait_ns, q->query->patience_ns, ROUTER_OUT_BUDGET);
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
static inline enum router_reason look_filters(
	const struct layout_target *t, const struct router_query *query, int64_t cost)
{
	uint64_t context = load(&t->context);

	if (aux_unlikely(load(&t->available) != 1))
		return ROUTER_OUT_UNAVAILABLE;
	if (aux_unlikely((query->capabilities & ~load(&t->capabilities)) != 0))
		return ROUTER_OUT_CAPABILITY;
	/* 0, not known, becomes the largest. */
	if (aux_unlikely(query->input_tokens > context - 1 ||
		    query->output_tokens > context - query->input_tokens) &&
		context != 0)
		return ROUTER_OUT_CONTEXT;
	if (aux_unlikely(
		    query->price_cap_nanousd >= 0 && (cost < 0 || cost > query->price_cap_nanousd)))
		return ROUTER_OUT_PRICE;
	return ROUTER_FALLBACK;
}

/* Whether any slice has a failure, however old: most have none, and need not be added up. */
static inline bool has_failed(const struct layout_breaker *b)
{
	uint64_t all = 0;

#pragma GCC unroll 10
	for (unsigned i = 0; i < LAYOUT_SLICES; i++)
		all |= load(&b->slice[i]);
	return (all & SLICE_BAD) != 0;
}

static inline void look_health(
	const struct region *r, struct board *b, unsigned i, uint32_t row, uint64_t now_ns)
{
	float errors;

	if (aux_unlikely(has_failed(&r->breaker[row]))) {
		errors = breaker_error_ratio(r, row, now_ns);
		b->errors[i] = errors > 0 ? errors < ERRORS_MAX ? errors : ERRORS_MAX : 0;
		b->failed = true;
		if (errors > ROUTER_SICK_ERRORS)
			b->sick |= UINT32_C(1) << i;
	}
	/* Whatever the ramp, one may. */
	if (aux_unlikely(b->pending[i] > 0) &&
		(uint32_t)b->pending[i] >= breaker_ramp(r, row, now_ns))
		b->held |= UINT32_C(1) << i;
}

static inline void use(struct board *b, unsigned i)
{
	b->usable |= UINT32_C(1) << i;
	b->counts[i] = -1;
	b->uses++;
}

static inline void look(const struct region *r, struct board *b, unsigned i,
	const struct router_candidate *c, const struct question *q)
{
	const struct layout_target *t;

	if (aux_unlikely(c->row >= r->targets || c->key < LAYOUT_KEY_FIRST))
		return;
	t = &r->target[c->row];
	if (aux_unlikely(atomic_load_explicit(&t->key, memory_order_acquire) != c->key))
		return;
	look_numbers(b, i, t, q);
	b->reason[i] = (uint8_t)look_filters(t, q->query, b->cost[i]);
	if (aux_unlikely(b->reason[i] != ROUTER_FALLBACK) ||
		!look_breaker(r, b, i, c->row, q->now_ns))
		return;
	if (!look_waits(r, b, i, c, q))
		return;
	look_health(r, b, i, c->row, q->now_ns);
	use(b, i);
}

/* Places that take no part in any formula. */
static void look_begin(struct board *b, unsigned count)
{
	b->count = count;
	b->uses = 0;
	b->failed = b->unpriced = false;
	b->usable = b->open = b->cold = b->probe = b->stale = b->held = b->sick = 0;
	for (unsigned i = 0; i < count; i += LANES) {
		lanes_i32 none = { 0, 0, 0, 0 };

		lanes_store(&b->share[i], lanes_all(1));
		lanes_store(&b->errors[i], lanes_all(0));
		lanes_store(&b->price[i], lanes_all(1));
		lanes_store(&b->wait_us[i], lanes_all(0));
		lanes_store_int(&b->counts[i], none);
		lanes_store_int(&b->first_bits[i], none);
		lanes_store_int(&b->gap_bits[i], none);
		lanes_store_int(&b->first_ms[i], none);
		lanes_store_int(&b->gap_ms[i], none);
		lanes_store_int(&b->pending[i], none);
		for (unsigned k = i; k < i + LANES; k++) {
			b->wait_ns[k] = 0;
			b->cost[k] = -1;
			b->reason[k] = ROUTER_OUT_UNAVAILABLE;
		}
	}
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
	look_begin(b, count);
	for (unsigned i = 0; i < count; i++)
		look(q->r, b, i, &q->candidate[i], q);
	if (aux_unlikely(b->usable == 0))
		panic(q->r, b, q->candidate, q);
}
