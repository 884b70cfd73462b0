#include "shm/target.h"

#include <errno.h>
#include <stdio.h>
#include "base/aux.h"
#include "base/error.h"
#include "shm/breaker.h"
#include "shm/breaker_stats.h"
#include "shm/estimate.h"
#include "shm/event.h"
#include "shm/ewma.h"
#include "shm/hold.h"
#include "shm/layout.h"
#include "shm/name_table.h"

static_assert(TARGET_PROMPT_CLASSES == LAYOUT_PROMPT_CLASSES, "prompt classes");
static_assert(TARGET_NAME_TEXT >= LAYOUT_NAME_MAX, "room for a name");
static_assert(offsetof(struct layout_target, key) == 0, "name_table wants the key first");
static_assert(TARGET_LABEL_TEXT == LAYOUT_LABEL_WORDS * sizeof(uint64_t), "room for a label");
static_assert(TARGET_CAPABILITIES == (1 << TARGET_CAPABILITY_BITS) - 1, "one name for each bit");

#define CLASS_FIRST_BITS 8 /* class 0 is up to 256 tokens */
#define CLASS_STEP_BITS 2
/* How far ahead of the caller's clock another process' may be. */
#define TIME_AHEAD_NS NSEC_PER_SEC
#define NOTE_EVERY_NS NSEC_PER_MSEC
#define PAUSE_TRIES 8
#define ANSWER_TOKENS_MAX (UINT64_C(1) << 20)
#define WHOLE_WAIT_LEAST 8 /* of an answer that came whole: one in so many */
#define LABEL_TRIES 16
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

const char *target_capability_name(unsigned bit)
{
	static const char *const name[TARGET_CAPABILITY_BITS] = { "tools", "vision", "json",
		"reasoning", "streaming" };

	return bit < TARGET_CAPABILITY_BITS ? name[bit] : NULL;
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

static void describe_label(struct layout_target *t, struct str label)
{
	uint64_t words[LAYOUT_LABEL_WORDS] = { 0 }, labels = load(&t->labels);
	bool same = true;

	if (label.length > 0)
		memcpy(words, label.data, label.length);
	for (unsigned i = 0; i < LAYOUT_LABEL_WORDS; i++) {
		same &= load(&t->label[labels % 2][i]) == words[i];
		atomic_store_explicit(
			&t->label[(labels + 1) % 2][i], words[i], memory_order_release);
	}
	if (!same)
		atomic_store_explicit(&t->labels, labels + 1, memory_order_release);
}

static void describe(struct layout_target *t, uint32_t row, const struct target_config *config)
{
	store(&t->price_input, (uint64_t)config->price_input);
	store(&t->price_output, (uint64_t)config->price_output);
	store(&t->price_cached, (uint64_t)config->price_cached);
	store(&t->context, config->context);
	store(&t->capabilities, config->capabilities & TARGET_CAPABILITIES);
	store(&t->provider, config->provider == TARGET_NONE ? row : config->provider);
	store(&t->answer, config->max_tokens);
	store(&t->traits, config->traits);
	describe_label(t, config->label);
	store(&t->available, config->available);
}

int target_configure(struct region *r, const struct target_config *config)
{
	struct name_table table = table_of(r);
	uint32_t row, spare;

	if (config->name.length >= LAYOUT_NAME_MAX || config->label.length >= TARGET_LABEL_TEXT)
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

/* As in name_table_retire(), retired rows before a never used one become never used. */
void target_retire_one(struct region *r, uint32_t row)
{
	struct name_table table = table_of(r);
	uint32_t next = row + 1 == r->targets ? 0 : row + 1;

	name_table_publish(&table, row, LAYOUT_KEY_RETIRED);
	if (name_table_row_key(&table, next) != LAYOUT_KEY_NEVER)
		return;
	for (uint32_t n = 0; n < r->targets; n++) {
		if (name_table_row_key(&table, row) != LAYOUT_KEY_RETIRED || target_pending(r, row))
			return;
		name_table_publish(&table, row, LAYOUT_KEY_NEVER);
		row = row == 0 ? r->targets - 1 : row - 1;
	}
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

/* "provider/model" without "provider/". */
static bool has_model(struct str name, struct str model)
{
	const char *slash = memchr(name.data, '/', name.length);

	return slash &&
		str_equal(
			str_make(slash + 1, (size_t)(name.data + name.length - slash) - 1), model);
}

/* A model of the provider. */
static uint32_t find_model(const struct region *r, struct str provider, struct str model)
{
	char name[TARGET_NAME_TEXT];
	int n = snprintf(name, sizeof(name), "%.*s/%.*s", STR_ARG(provider), STR_ARG(model));

	return n < (int)sizeof(name) ? target_find(r, str_make(name, (size_t)n), NULL) :
				       TARGET_NONE;
}

uint32_t target_resolve(const struct region *r, struct str name)
{
	struct name_table table = table_of(r);
	uint32_t found, last = TARGET_NONE, providers = 0;

	for (uint32_t i = 0; i < r->targets; i++) {
		if (name_table_row_key(&table, i) < LAYOUT_KEY_FIRST)
			continue;
		if ((load(&r->target[i].traits) & TARGET_PLAIN) != 0 &&
			has_model(name_table_name(&table, i), name))
			return i;
		if (load(&r->target[i].provider) == i) {
			last = i;
			providers++;
		}
	}
	found = target_find(r, name, NULL);
	if (found != TARGET_NONE && load(&r->target[found].provider) != found)
		return found;
	return providers == 1 ? find_model(r, name_table_name(&table, last), name) : TARGET_NONE;
}

bool target_is_available(const struct region *r, uint32_t row)
{
	struct name_table table = table_of(r);

	return row < r->targets && name_table_row_key(&table, row) >= LAYOUT_KEY_FIRST &&
		load(&r->target[row].available) == 1;
}

/* Its own row's for a provider; r->targets: none. */
static uint32_t provider_of(const struct region *r, uint32_t row)
{
	uint64_t provider = row < r->targets ? load(&r->target[row].provider) : r->targets;

	return (uint32_t)min_u64(provider, r->targets);
}

struct str target_label(const struct region *r, uint32_t row, char text[TARGET_LABEL_TEXT])
{
	uint32_t provider = provider_of(r, row);
	const struct layout_target *t = &r->target[provider];
	uint64_t words[LAYOUT_LABEL_WORDS], labels;

	for (int k = 0; provider < r->targets && k < LABEL_TRIES; k++) {
		labels = atomic_load_explicit(&t->labels, memory_order_acquire);
		for (unsigned i = 0; i < LAYOUT_LABEL_WORDS; i++)
			words[i] = atomic_load_explicit(
				&t->label[labels % 2][i], memory_order_acquire);
		if (load(&t->labels) != labels)
			continue;
		memcpy(text, words, sizeof(words));
		return str_make(text, strnlen(text, TARGET_LABEL_TEXT - 1));
	}
	return STR_NULL;
}

uint64_t target_output(
	const struct region *r, uint32_t row, struct str model, struct str tag, uint64_t max_tokens)
{
	uint32_t provider = provider_of(r, row);
	bool reserve =
		provider < r->targets && (load(&r->target[provider].traits) & TARGET_RESERVE) != 0;

	return estimate_call(r, model, tag, max_tokens,
		row < r->targets ? load(&r->target[row].answer) : 0, reserve);
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

static uint64_t us_of(uint64_t word)
{
	float value = ewma_value(word);

	return value == 0 ? 0 : (uint64_t)ewma_exp(value);
}

struct target_sample target_sample_of(const struct region *r, uint32_t row, uint64_t input_tokens,
	uint64_t output_tokens, uint64_t first_token_ns, uint64_t duration_ns)
{
	struct target_sample sample = {
		.input_tokens = input_tokens,
		.first_token_ns = first_token_ns,
	};
	uint64_t gaps = output_tokens > 1 ? output_tokens - 1 : 0, others_ns;

	if (first_token_ns != 0 && gaps > 0 && duration_ns > first_token_ns)
		sample.gap_ns = (duration_ns - first_token_ns) / gaps;
	if (first_token_ns != 0 || row >= r->targets)
		return sample;
	others_ns =
		min_u64(gaps, ANSWER_TOKENS_MAX) * NSEC_PER_USEC * us_of(load(&r->target[row].gap));
	sample.first_token_ns = max_u64(
		duration_ns - min_u64(duration_ns, others_ns), duration_ns / WHOLE_WAIT_LEAST);
	return sample;
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
		.gap_us = us_of(load(&t->gap)),
	};
	memcpy(out->name, name.data, name.length);
	for (unsigned i = 0; i < TARGET_PROMPT_CLASSES; i++)
		out->first_token_us[i] = us_of(load(&t->first_token[i]));
	return true;
}
