#include "shm/target.h"

#include <errno.h>
#include "base/aux.h"
#include "base/error.h"
#include "shm/breaker.h"
#include "shm/breaker_stats.h"
#include "shm/event.h"
#include "shm/ewma.h"
#include "shm/hold.h"
#include "shm/layout.h"
#include "shm/name_table.h"

static_assert(TARGET_PROMPT_CLASSES == LAYOUT_PROMPT_CLASSES, "prompt classes");
static_assert(TARGET_NAME_TEXT >= LAYOUT_NAME_MAX, "room for a name");
static_assert(offsetof(struct layout_target, key) == 0, "name_table wants the key first");

#define CLASS_FIRST_BITS 8 /* class 0 is up to 256 tokens */
#define CLASS_STEP_BITS 2
/* How far ahead of the caller's clock another process' may be. */
#define TIME_AHEAD_NS NSEC_PER_SEC
#define NOTE_EVERY_NS NSEC_PER_MSEC
#define PAUSE_TRIES 8
#define PICO_PER_NANO 1000

static struct name_table table_of(const struct region *r)
{
	return (struct name_table){
		.rows = r->target,
		.count = r->targets,
		.stride = sizeof(struct layout_target),
		.name_at = offsetof(struct layout_target, name),
		.busy_at = offsetof(struct layout_target, pending),
	};
}

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

/* ---- configure ---- */

static bool price_is_valid(int64_t price)
{
	return price >= -1 && price <= TARGET_PRICE_MAX;
}

/* Nothing is known of it yet. pending stays: it is the holds', who know who wrote it last. */
static void forget(struct region *r, uint32_t row)
{
	struct layout_target *t = &r->target[row];
	struct breaker_settings settings = breaker_preset(BREAKER_PRODUCTION);

	store(&t->tried_ns, 0);
	store(&t->pause_ns, 0);
	store(&t->refused, 0);
	store(&t->gap, EWMA_NONE);
	store(&t->samples, 0);
	for (unsigned i = 0; i < TARGET_PROMPT_CLASSES; i++)
		store(&t->first_token[i], EWMA_NONE);
	breaker_init(r, row, &settings);
}

static void describe(struct layout_target *t, uint32_t row, const struct target_config *config)
{
	store(&t->price_input, (uint64_t)config->price_input);
	store(&t->price_output, (uint64_t)config->price_output);
	store(&t->price_cached, (uint64_t)config->price_cached);
	store(&t->context, config->context);
	store(&t->capabilities, config->capabilities & TARGET_CAPABILITIES);
	store(&t->provider, config->provider == TARGET_NONE ? row : config->provider);
	store(&t->available, config->available);
}

int target_configure(struct region *r, const struct target_config *config)
{
	struct name_table table = table_of(r);
	uint32_t row, spare;

	if (config->name.length >= LAYOUT_NAME_MAX)
		return error_origin(-ENAMETOOLONG);
	if (!name_table_fits(config->name))
		return error_origin(-EINVAL);
	if (!price_is_valid(config->price_input) || !price_is_valid(config->price_output) ||
		!price_is_valid(config->price_cached) ||
		(config->provider != TARGET_NONE && config->provider >= r->targets))
		return error_origin(-ERANGE);
	row = name_table_find(&table, config->name, &spare);
	if (row == TARGET_NONE)
		row = spare;
	if (row == TARGET_NONE)
		return error_origin(-ENOSPC);
	if (!name_table_is(&table, row, config->name)) {
		name_table_rename(&table, row, config->name);
		forget(r, row);
	}
	describe(&r->target[row], row, config);
	name_table_publish(&table, row, name_table_key(config->name));
	return (int)row;
}

void target_retire(struct region *r, const bool *keep)
{
	struct name_table table = table_of(r);

	name_table_retire(&table, keep);
}

/* Every learned word heals by itself, and configured ones are written anew. */
void target_adopt(struct region *r, uint64_t now_ns)
{
	struct name_table table = table_of(r);

	name_table_adopt(&table);
	for (uint32_t i = 0; i < r->targets; i++)
		if (load(&r->target[i].tried_ns) > now_ns)
			store(&r->target[i].tried_ns, 0);
}

/* ---- find ---- */

uint32_t target_find(const struct region *r, struct str name, uint64_t *key)
{
	struct name_table table = table_of(r);
	uint32_t spare, row;

	if (!name_table_fits(name))
		return TARGET_NONE;
	row = name_table_find(&table, name, &spare);
	if (row != TARGET_NONE && key)
		*key = name_table_key(name);
	return row;
}

bool target_is(const struct region *r, uint32_t row, uint64_t key)
{
	return row < r->targets && key >= LAYOUT_KEY_FIRST &&
		atomic_load_explicit(&r->target[row].key, memory_order_acquire) == key;
}

int64_t target_cost(int64_t price_input, int64_t price_output, int64_t price_cached, uint64_t input,
	uint64_t cached, uint64_t output)
{
	unsigned __int128 pico;

	if (price_input < 0 || price_output < 0)
		return -1;
	cached = min_u64(cached, input);
	pico = (unsigned __int128)(uint64_t)price_input * (input - cached);
	pico += (unsigned __int128)(uint64_t)(price_cached < 0 ? price_input : price_cached) *
		cached;
	pico += (unsigned __int128)(uint64_t)price_output * output;
	pico = (pico + PICO_PER_NANO - 1) / PICO_PER_NANO;
	return pico < INT64_MAX ? (int64_t)pico : INT64_MAX;
}

/* ---- learn ---- */

unsigned target_prompt_class(uint64_t input_tokens)
{
	unsigned bits;

	if (input_tokens <= UINT64_C(1) << CLASS_FIRST_BITS)
		return 0;
	bits = 64 - (unsigned)__builtin_clzll(input_tokens - 1) - CLASS_FIRST_BITS;
	bits = (bits + CLASS_STEP_BITS - 1) / CLASS_STEP_BITS;
	return bits < TARGET_PROMPT_CLASSES ? bits : TARGET_PROMPT_CLASSES - 1;
}

static float ln_us(uint64_t ns)
{
	return ewma_ln((float)ns / NSEC_PER_USEC);
}

void target_learn(
	const struct region *r, uint32_t row, const struct target_sample *sample, uint64_t now_ns)
{
	uint32_t now_ms = (uint32_t)(now_ns / NSEC_PER_MSEC);
	struct layout_target *t;

	if (aux_unlikely(row >= r->targets || !r->writable))
		return;
	t = &r->target[row];
	if (sample->first_token_ns != 0) {
		ewma_add(&t->first_token[target_prompt_class(sample->input_tokens)],
			ln_us(sample->first_token_ns), now_ms, 0);
		atomic_fetch_add_explicit(&t->samples, 1, memory_order_relaxed);
	}
	if (sample->gap_ns != 0)
		ewma_add(&t->gap, ln_us(sample->gap_ns), now_ms, 0);
}

void target_tried(const struct region *r, uint32_t row, uint64_t now_ns)
{
	uint64_t tried;

	if (aux_unlikely(row >= r->targets || !r->writable))
		return;
	/* Whole milliseconds do, and spare the others a cache miss. */
	tried = load(&r->target[row].tried_ns);
	if (tried + NOTE_EVERY_NS <= now_ns || tried > now_ns + TIME_AHEAD_NS)
		store(&r->target[row].tried_ns, now_ns);
}

uint32_t target_pending(const struct region *r, uint32_t row)
{
	bool closed;

	return row < r->targets ? hold_total_units(load(&r->target[row].pending), &closed) : 0;
}

/* ---- pauses ---- */

/* Once for a pause, however often it is raised. */
static void tell_pause(const struct region *r, uint32_t row, uint64_t before_ns, uint64_t until_ns,
	uint64_t now_ns)
{
	if (before_ns > now_ns || until_ns <= now_ns)
		return;
	event_add(r,
		&(struct event){ .time_ns = now_ns,
			.kind = EVENT_PAUSE_TARGET,
			.row = row,
			.value = until_ns });
}

void target_pause(const struct region *r, uint32_t row, uint64_t until_ns, uint64_t now_ns)
{
	uint64_t found;

	if (row >= r->targets || !r->writable)
		return;
	until_ns = min_u64(until_ns, now_ns + TARGET_PAUSE_MAX_NS);
	/* First: who looks no closer does not see the pause. */
	breaker_unwell_until(&r->breaker[row], until_ns, now_ns);
	found = load(&r->target[row].pause_ns);
	/* One later than any that is set is nonsense, and may be lowered. */
	for (int i = 0;
		i < PAUSE_TRIES && (found < until_ns || found > now_ns + TARGET_PAUSE_MAX_NS); i++)
		if (atomic_compare_exchange_strong_explicit(&r->target[row].pause_ns, &found,
			    until_ns, memory_order_acq_rel, memory_order_relaxed)) {
			tell_pause(r, row, found, until_ns, now_ns);
			return;
		}
}

void target_unpause(const struct region *r, uint32_t row)
{
	if (row < r->targets && r->writable)
		store(&r->target[row].pause_ns, 0);
}

static uint64_t pause_left(const struct region *r, uint32_t row, uint64_t now_ns)
{
	uint64_t until_ns = load(&r->target[row].pause_ns);

	return until_ns > now_ns ? min_u64(until_ns - now_ns, TARGET_PAUSE_MAX_NS) : 0;
}

uint64_t target_paused(const struct region *r, uint32_t row, uint64_t now_ns)
{
	uint64_t provider;

	if (row >= r->targets)
		return 0;
	provider = load(&r->target[row].provider);
	return max_u64(pause_left(r, row, now_ns),
		provider < r->targets ? pause_left(r, (uint32_t)provider, now_ns) : 0);
}

unsigned target_refused(const struct region *r, uint32_t row, uint64_t now_ns)
{
	uint64_t before;

	if (row >= r->targets || !r->writable)
		return 0;
	before = load(&r->target[row].refused);
	if (target_paused(r, row, now_ns) > 0)
		before -= before > 0;
	else
		store(&r->target[row].refused, min_u64(before, TARGET_REFUSED_MAX) + 1);
	return (unsigned)min_u64(before, TARGET_REFUSED_MAX);
}

void target_accepted(const struct region *r, uint32_t row)
{
	if (row < r->targets && r->writable && load(&r->target[row].refused) != 0)
		store(&r->target[row].refused, 0);
}

/* ---- view ---- */

static uint64_t view_us(uint64_t word)
{
	float value = ewma_value(word);

	return value == 0 ? 0 : (uint64_t)ewma_exp(value);
}

/* A provider has in flight what its models have. */
static uint64_t view_pending(const struct region *r, uint32_t row, bool is_provider)
{
	uint64_t sum = target_pending(r, row);

	for (uint32_t i = 0; is_provider && i < r->targets; i++)
		if (i != row && load(&r->target[i].provider) == row)
			sum += target_pending(r, i);
	return sum;
}

bool target_view(const struct region *r, uint32_t row, struct target_view *out)
{
	struct name_table table = table_of(r);
	const struct layout_target *t;
	struct str name;

	if (row >= r->targets || name_table_row_key(&table, row) < LAYOUT_KEY_FIRST)
		return false;
	t = &r->target[row];
	name = name_table_name(&table, row);
	*out = (struct target_view){
		.is_provider = load(&t->provider) == row,
		.available = load(&t->available) == 1,
		.provider = (uint32_t)min_u64(load(&t->provider), TARGET_NONE),
		.pending = view_pending(r, row, load(&t->provider) == row),
		.samples = load(&t->samples),
		.tried_ns = load(&t->tried_ns),
		.pause_ns = load(&t->pause_ns),
		.context = load(&t->context),
		.capabilities = load(&t->capabilities) & TARGET_CAPABILITIES,
		.price_input = (int64_t)load(&t->price_input),
		.price_output = (int64_t)load(&t->price_output),
		.price_cached = (int64_t)load(&t->price_cached),
		.gap_us = view_us(load(&t->gap)),
	};
	memcpy(out->name, name.data, name.length);
	for (unsigned i = 0; i < TARGET_PROMPT_CLASSES; i++)
		out->first_token_us[i] = view_us(load(&t->first_token[i]));
	return true;
}
