#include "shm/router.h"

#include "base/aux.h"
#include "shm/ewma.h"
#include "shm/router_internal.h"
#include "shm/target.h"

#define FULL_WEIGHT 1000.0f
#define TIE_WEIGHT 10.0f /* of latency, where it does not count: equals are told apart by it */
#define STALE_SHARE UINT64_C(42949672)   /* 1 % */
#define COLD_SHARE UINT64_C(214748364)   /* 5 %, whatever their score */
#define NEW_SHARE UINT64_C(858993459)    /* and 20 % */
#define PROBE_SHARE UINT64_C(1073741824) /* 25 % */
#define RELIABILITY_FACTOR 8
#define FRESH_MS 1000
#define IDLE_TAU_MS 30000.0f
#define IDLE_UNKNOWN_MS 1e9f
#define UNKNOWN_LN_US 13.8155f /* nobody has learned anything: a second */
#define NO_GAP_LN_US -80.0f
#define NEAR 0.40546511f /* a factor of 1.5 */
#define DEAR 0.69314718f /* and of 2 */
#define NEAR_LEAST 1e-3f
#define SICK 64.0f
#define OUT_SCORE 1e30f
#define FLOAT_BITS_LO 0x3c23d70a /* EWMA_LO */
#define FLOAT_BITS_HI 0x41c80000 /* EWMA_HI */
#define TOKENS_MAX (UINT64_C(1) << 26)

static_assert(ROUTER_CANDIDATES == 32, "masks are 32 bits");

const char *router_reason_name(uint64_t reason)
{
	static const char *const name[ROUTER_REASONS] = {
		[ROUTER_CHOSEN] = "chosen",
		[ROUTER_FALLBACK] = "fallback",
		[ROUTER_EXPLORED] = "explored",
		[ROUTER_COLD] = "cold",
		[ROUTER_PANIC] = "panic",
		[ROUTER_OUT_UNAVAILABLE] = "out: unavailable",
		[ROUTER_OUT_CAPABILITY] = "out: capability",
		[ROUTER_OUT_CONTEXT] = "out: context",
		[ROUTER_OUT_PRICE] = "out: price",
		[ROUTER_OUT_BREAKER] = "out: breaker",
		[ROUTER_OUT_BUDGET] = "out: budget",
		[ROUTER_OUT_PAUSED] = "out: paused",
	};

	return reason < ROUTER_REASONS ? name[reason] : "unknown";
}

/* ---- all together ---- */

/* How many of the four are above each of own, less. */
static inline lanes_i32 less_above(lanes_i32 four, lanes_i32 own)
{
	lanes_i32 a = LANES_SHUFFLE(four, four, 0, 0, 0, 0) > own;
	lanes_i32 b = LANES_SHUFFLE(four, four, 1, 1, 1, 1) > own;
	lanes_i32 c = LANES_SHUFFLE(four, four, 2, 2, 2, 2) > own;
	lanes_i32 d = LANES_SHUFFLE(four, four, 3, 3, 3, 3) > own;

	return (a + b) + (c + d);
}

/*
 * rank[i]: how many are before i; equals in the order of their index. Each against each, which for
 * so few is faster than sorting, as it has no branches: the order of floats is that of their bits
 * (negative ones turned), and the lowest bits give way to the index.
 */
static inline __attribute__((always_inline)) void rank_some(
	const float *value, int32_t *rank, unsigned count)
{
	_Alignas(LANES_ALIGN) int32_t key[ROUTER_CANDIDATES];
	lanes_i32 index = { 0, 1, 2, 3 };

#pragma GCC unroll 2
	for (unsigned i = 0; i < count; i += LANES) {
		lanes_i32 bits = lanes_load_int((const int32_t *)(const void *)&value[i]);

		bits ^= (bits >> 31) & INT32_MAX;
		lanes_store_int(&key[i], (bits & ~(ROUTER_CANDIDATES - 1)) | index);
		index += LANES;
	}
#pragma GCC unroll 2
	for (unsigned i = 0; i < count; i += LANES) {
		lanes_i32 own = lanes_load_int(&key[i]), before = lanes_all_int((int)count - 1);

#pragma GCC unroll 8
		for (unsigned j = 0; j < count; j += LANES)
			before += less_above(lanes_load_int(&key[j]), own);
		lanes_store_int(&rank[i], before);
	}
}

/* Places after the last are ranked, too. As many as are filled with the largest. */
static void rank_all(float *value, int32_t *rank, unsigned count)
{
	unsigned all = count <= LANES ? LANES : count <= 8 ? 8 : count <= 16 ? 16 : 32;

	for (unsigned i = count; i < all; i++)
		value[i] = OUT_SCORE;
	if (all == 8)
		rank_some(value, rank, 8);
	else if (all == ROUTER_CANDIDATES)
		rank_some(value, rank, ROUTER_CANDIDATES);
	else
		rank_some(value, rank, all);
}

/* The lower median of what the usable ones know; otherwise if none knows anything. */
static float median(const struct board *b, const float *value, float otherwise)
{
	_Alignas(LANES_ALIGN) float known[ROUTER_CANDIDATES];
	_Alignas(LANES_ALIGN) int32_t rank[ROUTER_CANDIDATES];
	lanes_i32 count = { 0, 0, 0, 0 };
	int32_t middle;

	for (unsigned i = 0; i < b->count; i += LANES) {
		lanes_f32 v = lanes_load(&value[i]);
		lanes_i32 counts = lanes_load_int(&b->counts[i]) & (v != 0);

		count -= counts;
		lanes_store(&known[i], lanes_pick(counts, v, lanes_all(OUT_SCORE)));
	}
	middle = count[0] + count[1] + count[2] + count[3];
	if (middle == 0)
		return otherwise;
	middle = (middle - 1) / 2;
	rank_all(known, rank, b->count);
	for (unsigned i = 0; i < b->count; i++)
		if (rank[i] == middle)
			return known[i];
	return otherwise;
}

/* The upper and lower halves of four words. */
static inline lanes_i32 upper_halves(const uint64_t *word)
{
	lanes_i32 a = lanes_load_int((const int32_t *)(const void *)word);
	lanes_i32 b = lanes_load_int((const int32_t *)(const void *)(word + 2));

	return LANES_SHUFFLE(a, b, 1, 3, 5, 7);
}

static inline lanes_i32 lower_halves(const uint64_t *word)
{
	lanes_i32 a = lanes_load_int((const int32_t *)(const void *)word);
	lanes_i32 b = lanes_load_int((const int32_t *)(const void *)(word + 2));

	return LANES_SHUFFLE(a, b, 0, 2, 4, 6);
}

/* One word's value, and how much of it is kept when drawn to the median: all if it is fresh.
 * Anything but all in one of the usable is noted in *drawn. */
static inline void read_words(const uint64_t *word, lanes_i32 now_ms, lanes_i32 counts,
	lanes_f32 share, float *value, float *keep, lanes_i32 *drawn)
{
	lanes_f32 v = (lanes_f32)upper_halves(word), idle;
	lanes_i32 known = (v >= EWMA_LO) & (v <= EWMA_HI);
	lanes_i32 ago = lanes_less(now_ms, lower_halves(word));

	/* As ewma_idle_ms(): a little ahead is now, more is long ago. */
	ago = (ago & ~((ago < 0) & (ago > -EWMA_SKEW_MS)));
	ago = (ago & INT32_MAX) - FRESH_MS;
	ago &= ~(ago < 0);
	idle = lanes_pick(
		known, __builtin_convertvector(ago, lanes_f32), lanes_all(IDLE_UNKNOWN_MS));
	*drawn |= counts & ((idle > 0) | (share < 1.0f));
	lanes_store(value, lanes_pick(known, v, lanes_all(0)));
	lanes_store(keep, idle * (-1 / IDLE_TAU_MS));
}

/* exp() of what is known of one, drawn to what is known of all. */
static inline lanes_f32 drawn(const float *ln, const float *keep, lanes_f32 share, float all_ln)
{
	lanes_f32 kept = lanes_exp(lanes_load(keep)) * share;

	return lanes_exp((lanes_load(ln) - all_ln) * kept + all_ln);
}

/* What counts of every candidate. */
static inline lanes_f32 score_plain(
	struct board *b, const struct question *q, lanes_f32 us, lanes_i32 pending, unsigned i)
{
	lanes_f32 inflight = __builtin_convertvector(pending & ~(pending >> 31), lanes_f32) + 1.0f;
	lanes_f32 price = lanes_load(&b->price[i]) + ROUTER_PRICE_FLOOR;

	return lanes_ln(us * inflight) * q->latency + lanes_ln(price) * q->cost;
}

static inline void score_some(
	struct board *b, const struct question *q, lanes_f32 first, lanes_f32 gap, unsigned i)
{
	lanes_f32 errors = lanes_load(&b->errors[i]), total = first + gap * (float)q->output, score;
	lanes_i32 pending = lanes_load_int(&b->pending[i]);

	lanes_store(&b->first_us[i], first);
	lanes_store(&b->total_us[i], total);
	score = score_plain(b, q, total + lanes_load(&b->wait_us[i]), pending, i);
	if (b->failed)
		score -= lanes_ln(1.0f - errors) * q->reliability;
	score += lanes_pick(errors > ROUTER_SICK_ERRORS, lanes_all(SICK), lanes_all(0));
	lanes_store(&b->score[i],
		lanes_pick(lanes_load_int(&b->counts[i]), score, lanes_all(OUT_SCORE)));
}

/* What nobody knows the price of counts as dear as the dearest. */
static void guess_prices(struct board *b)
{
	float dearest = 0;

	for (unsigned i = 0; i < b->count; i++)
		dearest = b->price[i] > dearest ? b->price[i] : dearest;
	for (unsigned i = 0; i < b->count; i++)
		b->price[i] = b->price[i] < 0 ? dearest : b->price[i];
}

/* Whether any is not just what was learned of it: then the medians are needed. */
static bool read_all(struct board *b, const struct question *q)
{
	lanes_i32 now_ms = lanes_all_int(q->now_ms), drawn = { 0, 0, 0, 0 };

	for (unsigned i = 0; i < b->count; i += LANES) {
		lanes_i32 counts = lanes_load_int(&b->counts[i]);
		lanes_f32 share = lanes_load(&b->share[i]);

		read_words(&b->first_word[i], now_ms, counts, share, &b->first[i],
			&b->first_keep[i], &drawn);
		read_words(&b->gap_word[i], now_ms, counts, share, &b->gap[i], &b->gap_keep[i],
			&drawn);
	}
	return lanes_any(drawn) != 0;
}

static void lower_to(float *value, float bound)
{
	*value = *value < bound ? *value : bound;
}

/* What was learned of the nearest of the target's other classes, of two as near of the shorter one;
 * EWMA_NONE. */
static uint64_t nearest_class(const struct layout_target *t, unsigned class, bool *is_longer)
{
	for (unsigned far = 1; far < TARGET_PROMPT_CLASSES; far++) {
		for (unsigned side = 0; side < 2; side++) {
			unsigned k = side == 0 ? class - far : class + far;
			uint64_t word = k < TARGET_PROMPT_CLASSES ?
				atomic_load_explicit(&t->first_token[k], memory_order_relaxed) :
				EWMA_NONE;

			*is_longer = side != 0;
			if (ewma_value(word) != 0)
				return word;
		}
	}
	return EWMA_NONE;
}

/* Those without samples of the prompt's class have those of the nearest. Returns who has them from
 * longer prompts. */
static __attribute__((noinline)) uint32_t borrow_classes(struct board *b, const struct question *q)
{
	uint32_t longer = 0;

	for (uint32_t left = b->usable; left != 0; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);
		bool is_longer;

		if (ewma_value(b->first_word[i]) != 0)
			continue;
		b->first_word[i] = nearest_class(
			&q->r->target[q->candidate[i].row], q->prompt_class, &is_longer);
		longer |= is_longer ? left & -left : 0;
	}
	return longer;
}

static void score_all(struct board *b, const struct question *q)
{
	uint32_t longer = borrow_classes(b, q);
	float first_ln, gap_ln;

	guess_prices(b);
	if (!read_all(b, q) && longer == 0) {
		for (unsigned i = 0; i < b->count; i += LANES)
			score_some(b, q, lanes_exp(lanes_load(&b->first[i])),
				lanes_exp(lanes_load(&b->gap[i])), i);
		return;
	}
	first_ln = median(b, b->first, UNKNOWN_LN_US);
	/* Or who is only asked for what takes long would never be asked for anything short. */
	for (; longer != 0; longer &= longer - 1)
		lower_to(&b->first[__builtin_ctz(longer)], first_ln);
	gap_ln = median(b, b->gap, NO_GAP_LN_US);
	for (unsigned i = 0; i < b->count; i += LANES) {
		lanes_f32 share = lanes_load(&b->share[i]);

		score_some(b, q, drawn(&b->first[i], &b->first_keep[i], share, first_ln),
			drawn(&b->gap[i], &b->gap_keep[i], share, gap_ln), i);
	}
	if (first_ln == UNKNOWN_LN_US)
		for (unsigned i = 0; i < b->count; i++)
			b->first_us[i] = b->total_us[i] = 0;
}

/*
 * The same where all are plain and what was learned of them is as good as now (within 23 ms ahead
 * and 1000 ago, so that one test of bits does): false if it is not, and nothing is scored. The
 * subtractions have their sign set for what is out of EWMA_LO to EWMA_HI, also for NaN and what
 * is below 0.
 */
static inline lanes_i32 fresh_words(const uint64_t *word, lanes_i32 now_ms, lanes_i32 *strange)
{
	lanes_i32 bits = upper_halves(word);

	*strange |= lanes_less(now_ms, lower_halves(word)) & ~1023;
	*strange |= (lanes_less(bits, lanes_all_int(FLOAT_BITS_LO)) |
			    lanes_less(lanes_all_int(FLOAT_BITS_HI), bits)) &
		INT32_MIN;
	return bits;
}

static inline __attribute__((always_inline)) bool score_fresh(
	struct board *b, const struct question *q, unsigned count)
{
	lanes_i32 now_ms = lanes_all_int((int32_t)((uint32_t)q->now_ms + 23)),
		  strange = { 0, 0, 0, 0 };

#pragma GCC unroll 2
	for (unsigned i = 0; i < count; i += LANES) {
		lanes_f32 first, total;

		first = lanes_exp_known(
			(lanes_f32)fresh_words(&b->first_word[i], now_ms, &strange));
		total = lanes_exp_known((lanes_f32)fresh_words(&b->gap_word[i], now_ms, &strange));
		total = first + total * (float)q->output;
		lanes_store(&b->first_us[i], first);
		lanes_store(&b->total_us[i], total);
		lanes_store(
			&b->score[i], score_plain(b, q, total, lanes_load_int(&b->pending[i]), i));
	}
	return lanes_any(strange) == 0;
}

static __attribute__((noinline)) void score_errors(struct board *b, const struct question *q)
{
	for (unsigned i = 0; i < b->count; i += LANES)
		lanes_store(&b->score[i],
			lanes_load(&b->score[i]) -
				lanes_ln(1.0f - lanes_load(&b->errors[i])) * q->reliability);
}

static void score(struct board *b, const struct question *q)
{
	bool fresh = b->plain &&
		(b->count == 2 * LANES ? score_fresh(b, q, 2 * LANES) :
					 score_fresh(b, q, b->count));

	if (aux_unlikely(!fresh)) {
		if (b->plain)
			router_spread(b);
		score_all(b, q);
	} else if (aux_unlikely(b->failed)) {
		score_errors(b, q);
	}
}

/* Those left out come last. */
static void sort(struct board *b)
{
	for (unsigned i = 0; i < b->count; i++)
		b->order[b->rank[i]] = (uint8_t)i;
}

/* ---- the first ---- */

static uint64_t mix(uint64_t x)
{
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

/* From 0 to n - 1, of 32 random bits. */
static unsigned below(uint32_t random, unsigned n)
{
	return (unsigned)((uint64_t)random * n >> 32);
}

static void move_first(struct board *b, unsigned position)
{
	uint8_t first = b->order[position];

	for (unsigned i = position; i > 0; i--)
		b->order[i] = b->order[i - 1];
	b->order[0] = first;
}

/* 0: never; what is ahead is garbage. */
static uint64_t tried_ns(const struct question *q, int i)
{
	uint64_t ns = atomic_load_explicit(
		&q->r->target[q->candidate[i].row].tried_ns, memory_order_relaxed);

	return ns > q->now_ns + ROUTER_AHEAD_NS ? 0 : ns;
}

/* Of those in the mask, that nobody tried for longest; never at a multiple of the best price. */
static int oldest(const struct board *b, const struct question *q, uint32_t mask)
{
	float cheapest = OUT_SCORE;
	int found = -1;

	for (uint32_t left = b->usable; left != 0; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		if (b->price[i] < cheapest)
			cheapest = b->price[i];
	}
	for (uint32_t left = mask; left != 0; left &= left - 1) {
		int i = __builtin_ctz(left);

		if (q->cost *
				ewma_ln((b->price[i] + ROUTER_PRICE_FLOOR) /
					(cheapest + ROUTER_PRICE_FLOOR)) >
			DEAR + NEAR_LEAST)
			continue;
		if (found < 0 || tried_ns(q, i) < tried_ns(q, found))
			found = i;
	}
	return found;
}

static inline float near_bound(const struct question *q, float best)
{
	return best + q->latency * NEAR + NEAR_LEAST;
}

/* Those in the mask that are near the best of those that may be first. */
static uint32_t near_best(
	const struct board *b, const struct question *q, uint32_t mask, uint32_t may)
{
	float best = OUT_SCORE;
	uint32_t near = 0;

	for (; may != 0; may &= may - 1)
		lower_to(&best, b->score[__builtin_ctz(may)]);
	best = near_bound(q, best);
	for (uint32_t left = mask; left != 0; left &= left - 1)
		if (b->score[__builtin_ctz(left)] <= best)
			near |= left & -left;
	return near;
}

/* Now and then one that would not be first by its score, so that it is learned of; -1: not now.
 * may: those that may be first by their score. */
static int explore(const struct board *b, const struct question *q, uint32_t may)
{
	uint32_t cold = b->cold & b->usable & ~b->probe, failing = 0, roll = (uint32_t)q->random;
	uint32_t probe = b->probe & b->usable, stale;

	for (uint32_t left = cold; left != 0; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		if (b->errors[i] >= ROUTER_SICK_ERRORS)
			failing |= UINT32_C(1) << i;
		if (b->pending[i] != 0)
			cold &= ~(UINT32_C(1) << i);
	}
	cold &= ~failing;
	stale = b->stale & b->usable & ~b->probe & (~b->cold | failing);
	if (roll < STALE_SHARE)
		return stale ? oldest(b, q, stale) : -1;
	if (roll < STALE_SHARE + COLD_SHARE)
		return cold ? oldest(b, q, cold) : -1;
	if (roll < STALE_SHARE + COLD_SHARE + NEW_SHARE) {
		cold = near_best(b, q, cold, may);
		return cold ? oldest(b, q, cold) : -1;
	}
	if (roll < STALE_SHARE + COLD_SHARE + NEW_SHARE + PROBE_SHARE)
		return probe ? oldest(b, q, probe) : -1;
	return -1;
}

/* Those that may be first by their score: known, well and not held back by a ramp; where there is
 * none, what matters less is given up first. */
static uint32_t eligible(const struct board *b)
{
	const uint32_t out[] = { b->cold | b->probe | b->held, b->probe | b->held, b->held };

	for (size_t i = 0; i < ARRAY_SIZE(out); i++)
		if (b->usable & ~out[i] & ~b->sick)
			return b->usable & ~out[i];
	return b->usable;
}

/* The better of two drawn of so many: its place. */
static inline unsigned draw(const struct question *q, unsigned near)
{
	unsigned one = below((uint32_t)(q->random >> 32), near), two;

	if (near < 2)
		return 0;
	two = below((uint32_t)(q->random >> 16), near - 1);
	two += two >= one;
	return two < one ? two : one;
}

/* One of those near the best. */
static void choose(struct board *b, const struct question *q, uint32_t mask, unsigned usable)
{
	uint8_t position[ROUTER_CANDIDATES];
	float bound = OUT_SCORE;
	unsigned near = 0;

	for (unsigned p = 0; p < usable; p++) {
		unsigned i = b->order[p];

		if (aux_unlikely((mask >> i & 1) == 0))
			continue;
		if (b->score[i] > bound)
			break;
		if (near == 0)
			bound = near_bound(q, b->score[i]);
		position[near++] = (uint8_t)p;
	}
	if (near > 0)
		move_first(b, position[draw(q, near)]);
}

static void choose_or_explore(struct board *b, const struct question *q, unsigned usable)
{
	bool is_panic = b->reason[b->order[0]] == ROUTER_PANIC;
	uint32_t interesting = (b->cold | b->probe | b->stale) & b->usable, mask = eligible(b);
	int first = interesting && !is_panic && usable > 1 ? explore(b, q, mask) : -1;

	if (is_panic) {
		choose(b, q, mask, usable);
		return;
	}
	for (uint32_t left = b->usable & ~mask; left != 0; left &= left - 1)
		b->reason[__builtin_ctz(left)] = ROUTER_COLD;
	if (first < 0) {
		choose(b, q, mask, usable);
		b->reason[b->order[0]] = ROUTER_CHOSEN;
	} else {
		move_first(b, (unsigned)b->rank[first]);
		b->reason[first] = ROUTER_EXPLORED;
	}
}

/* choose() where all are plain, on the ranks: that of the chosen becomes 0, those before it move
 * by one. No branch depends on what is drawn. */
static inline __attribute__((always_inline)) void choose_plain(
	struct board *b, const struct question *q, unsigned count)
{
	lanes_f32 bound = lanes_all(OUT_SCORE);
	lanes_i32 near = { 0, 0, 0, 0 }, chosen;

#pragma GCC unroll 2
	for (unsigned i = 0; i < count; i += LANES)
		bound = lanes_min(lanes_load(&b->score[i]), bound);
	bound = lanes_least(bound) + (q->latency * NEAR + NEAR_LEAST);
#pragma GCC unroll 2
	for (unsigned i = 0; i < count; i += LANES)
		near -= lanes_load(&b->score[i]) <= bound;
	chosen = lanes_all_int((int32_t)draw(q, (unsigned)lanes_sum(near)));
#pragma GCC unroll 2
	for (unsigned i = 0; i < count; i += LANES) {
		lanes_i32 rank = lanes_load_int(&b->rank[i]);

		lanes_store_int(&b->rank[i], (rank - (rank < chosen)) & ~(rank == chosen));
	}
}

/* ---- strategies that learn nothing ---- */

/* Drawn without replacement by weight (Efraimidis and Spirakis 2006): in the order of -ln(u) /
 * w. */
static void score_weighted(
	struct board *b, const struct question *q, const struct router_candidate *candidate)
{
	uint64_t random = q->random;

	for (uint32_t left = b->usable; left != 0; left &= left - 1) {
		unsigned i = (unsigned)__builtin_ctz(left);

		random = mix(random + UINT64_C(0x9e3779b97f4a7c15));
		b->score[i] = -ewma_ln((float)((random >> 40) + 1) / (float)(1 << 24)) /
			((float)candidate[i].weight + 1e-9f);
	}
}

static void score_turn(struct board *b, uint64_t turn)
{
	uint64_t usable = b->uses, k = 0;

	for (uint32_t left = b->usable; left != 0; left &= left - 1)
		b->score[__builtin_ctz(left)] = (float)((usable - turn % usable + k++) % usable);
}

static uint64_t router_turn(const struct region *r, shared_u64 *turn, bool is_look)
{
	return is_look || !r->writable ? atomic_load_explicit(turn, memory_order_relaxed) :
					 atomic_fetch_add_explicit(turn, 1, memory_order_relaxed);
}

static void score_plainly(const struct region *r, struct board *b, const struct question *q,
	const struct router_candidate *candidate, shared_u64 *turn)
{
	if (q->query->strategy == ROUTER_WEIGHTED) {
		score_weighted(b, q, candidate);
	} else if (q->query->strategy == ROUTER_ROUND_ROBIN && b->usable != 0) {
		score_turn(b, !turn ? q->random >> 32 : router_turn(r, turn, q->query->is_look));
	} else {
		for (uint32_t left = b->usable; left != 0; left &= left - 1)
			b->score[__builtin_ctz(left)] = (float)__builtin_ctz(left);
	}
}

/* The first that may. Those that the ramp holds back come after the others, in their order. */
static void choose_first(struct board *b, unsigned usable)
{
	uint32_t held = b->held & b->usable;
	unsigned place = 0;

	for (unsigned p = 0; p < usable && held != b->usable; p++) {
		unsigned i = b->order[p];

		if ((held >> i & 1) != 0) {
			if (b->reason[i] == ROUTER_FALLBACK)
				b->reason[i] = ROUTER_COLD;
			continue;
		}
		for (unsigned k = p; k > place; k--)
			b->order[k] = b->order[k - 1];
		b->order[place++] = (uint8_t)i;
	}
	if (b->reason[b->order[0]] == ROUTER_FALLBACK)
		b->reason[b->order[0]] = ROUTER_CHOSEN;
}

/* ---- decide ---- */

static void set_weights(struct question *q)
{
	const struct router_query *query = q->query;
	float cost = 0, latency = TIE_WEIGHT, reliability = 0, sum;

	switch (query->strategy) {
	case ROUTER_COST:
		cost = FULL_WEIGHT;
		break;
	case ROUTER_LATENCY:
		latency = FULL_WEIGHT;
		break;
	case ROUTER_RELIABILITY:
		reliability = FULL_WEIGHT;
		break;
	default:
		cost = query->weight_cost;
		latency = query->weight_latency;
		reliability = query->weight_reliability;
		break;
	}
	sum = cost + latency + reliability;
	sum = sum > 0 ? 1 / sum : 0;
	q->cost = sum > 0 ? cost * sum : 1.0f / 3;
	q->latency = sum > 0 ? latency * sum : 1.0f / 3;
	q->reliability = 1 + RELIABILITY_FACTOR * (sum > 0 ? reliability * sum : 1.0f / 3);
}

/* In pico-USD. A cost in whole nano-USD, rounded up, is above just where it is above. */
static uint64_t price_cap(int64_t nanousd)
{
	return nanousd >= 0 && nanousd < INT64_MAX / 1000 ? (uint64_t)nanousd * 1000 : UINT64_MAX;
}

/* In place: a copy would wait for its stores. */
static void prepare(struct question *q, const struct region *r, const struct router_query *query,
	const struct router_candidate *candidate, uint64_t now_ns)
{
	uint64_t input = min_u64(query->input_tokens, TOKENS_MAX);
	uint64_t cached = min_u64(query->cached_tokens, input);

	uint64_t output = query->output_tokens;

	q->r = r;
	q->candidate = candidate;
	q->query = query;
	q->prompt_class = target_prompt_class(query->input_tokens);
	q->cached = cached;
	q->fresh = input - cached;
	q->output = min_u64(output, TOKENS_MAX);
	q->context = query->input_tokens + (output > 0 ? output - 1 : 0);
	if (aux_unlikely(q->context < query->input_tokens))
		q->context = UINT64_MAX - 1;
	q->price_cap = price_cap(query->price_cap_nanousd);
	q->capabilities = query->capabilities;
	q->now_ms = (int32_t)(uint32_t)(now_ns / NSEC_PER_MSEC);
	q->now_ns = now_ns;
	q->stale_ns = now_ns > ROUTER_STALE_NS ? now_ns - ROUTER_STALE_NS : 0;
	q->random = mix(query->random);
	set_weights(q);
}

static inline int64_t nanousd_of(int64_t pico)
{
	return pico < 0 ? -1 : (int64_t)(((uint64_t)pico + 999) / 1000);
}

static inline uint64_t whole_us(float us)
{
	return (uint64_t)(int64_t)us;
}

static void answer(const struct board *b, struct router_decision *out)
{
	for (unsigned p = 0; p < b->count; p++) {
		unsigned i = b->order[p];

		out->choice[p] = (struct router_choice){
			.candidate = (uint8_t)i,
			.reason = b->reason[i],
			.wait_ns = b->wait_ns[i],
			.first_token_us = whole_us(b->first_us[i]),
			.total_us = whole_us(b->total_us[i]),
			.cost_nanousd = nanousd_of(b->pico[i]),
			.score = b->score[i],
		};
	}
}

/* The same where all are plain, from the ranks. */
static inline __attribute__((always_inline)) void answer_plain(
	const struct board *b, struct router_decision *out, unsigned count)
{
#pragma GCC unroll 4
	for (unsigned i = 0; i < count; i++)
		out->choice[(unsigned)b->rank[i]] = (struct router_choice){
			.candidate = (uint8_t)i,
			.reason = ROUTER_FALLBACK,
			.first_token_us = whole_us(b->first_us[i]),
			.total_us = whole_us(b->total_us[i]),
			.cost_nanousd = (int64_t)(((uint64_t)b->pico[i] + 999) / 1000),
			.score = b->score[i],
		};
	out->choice[0].reason = ROUTER_CHOSEN;
}

static void decide_plain(struct board *b, const struct question *q, struct router_decision *out)
{
	if (b->count == 2 * LANES) {
		choose_plain(b, q, 2 * LANES);
		answer_plain(b, out, 2 * LANES);
	} else {
		choose_plain(b, q, b->count);
		answer_plain(b, out, b->count);
	}
}

static void decide_any(struct board *b, const struct question *q, struct router_decision *out)
{
	sort(b);
	if (b->uses > 0 && q->query->strategy < ROUTER_ROUND_ROBIN)
		choose_or_explore(b, q, b->uses);
	else if (b->uses > 0)
		choose_first(b, b->uses);
	answer(b, out);
}

void router_decide(const struct region *r, const struct router_query *query,
	const struct router_candidate *candidate, unsigned count, shared_u64 *turn, uint64_t now_ns,
	struct router_decision *out)
{
	struct question q;
	struct board b;

	count = count < ROUTER_CANDIDATES ? count : ROUTER_CANDIDATES;
	prepare(&q, r, query, candidate, now_ns);
	router_look(&b, &q, count);
	score(&b, &q);
	if (query->strategy >= ROUTER_ROUND_ROBIN) {
		if (b.plain)
			router_spread(&b);
		score_plainly(r, &b, &q, candidate, turn);
	}
	rank_all(b.score, b.rank, count);
	out->count = count;
	out->usable = b.uses;
	if (aux_likely(b.plain && count > 0))
		decide_plain(&b, &q, out);
	else
		decide_any(&b, &q, out);
}
