#pragma once

/*
 * The targets that calls can go to, what is configured of them, and what all processes have
 * learned: time to first token by prompt size, time between tokens, requests in flight. Errors and
 * health are the breaker's of the same row (shm/breaker.h). Rows are found by name,
 * "provider/model"; a provider has a row of its own, "provider".
 *
 * An EWMA is one word: value as float32 in ln(microseconds), time in ms (peak-EWMA after Finagle:
 * quick up, slow down, towards the prior when idle). Lock-free, thread- and process-safe.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"
#include "base/str.h"
#include "shm/region.h"

#define TARGET_NONE UINT32_MAX
#define TARGET_NAME_TEXT 164
#define TARGET_PROMPT_CLASSES 6
#define TARGET_PRICE_MAX (INT64_C(1) << 35) /* pico-USD per token: 34,000 USD per million */

enum target_capability {
	TARGET_TOOLS = 1,
	TARGET_VISION = 2,
	TARGET_JSON = 4, /* response_format of a schema */
	TARGET_REASONING = 8,
	TARGET_STREAMING = 16,
	TARGET_CAPABILITIES = 31,
};
#define TARGET_CAPABILITY_BITS 5
/* What configurations and tools call the one of this bit, 0 to 4; NULL: none. */
const char *target_capability_name(unsigned bit);

enum target_trait {
	TARGET_PLAIN = 1,   /* the model's name alone, without its provider's, means this one */
	TARGET_RESERVE = 2, /* a provider that charges tokens at submission */
};

#define TARGET_LABEL_TEXT 144

struct target_config {
	struct str name;
	uint32_t provider; /* row of the provider; TARGET_NONE: this is a provider */
	int64_t price_input, price_output, price_cached; /* pico-USD per token; -1: not known */
	uint64_t context;                                /* tokens; 0: not known */
	uint64_t capabilities;
	uint64_t max_tokens; /* of a model's answer; 0: not known */
	uint64_t traits;     /* enum target_trait bits */
	struct str label;    /* what limits call a provider's key; may be empty */
	bool available;
};

/* Daemon only: creates or changes; what was learned stays, also while the name was not in use.
 * A row that was another's starts anew, its breaker too (breaker_init() with the production
 * preset). The row, -ENOSPC, -ENAMETOOLONG (label, too), -EINVAL (name), -ERANGE (price,
 * provider). */
int target_configure(struct region *r, const struct target_config *config);
/* Daemon only: frees every row not marked in keep[0 .. targets-1]; a row with requests in flight is
 * not given to another. */
void target_retire(struct region *r, const bool *keep);
/* The same for this row alone. */
void target_retire_one(struct region *r, uint32_t row);
void target_adopt(struct region *r, uint64_t now_ns);

/* The row of a name, or TARGET_NONE; *key guards against reconfiguration (may be NULL). */
uint32_t target_find(const struct region *r, struct str name, uint64_t *key);
bool target_is(const struct region *r, uint32_t row, uint64_t key);
/* The row that a model's name stands for, as the daemon routes it: the configured model of that
 * name; else "provider/model"; else, of the one provider there is, its model. TARGET_NONE. */
uint32_t target_resolve(const struct region *r, struct str name);

/* Whether calls may go there at all: it has a key. */
bool target_is_available(const struct region *r, uint32_t row);
/* What limits call the key of a provider: text and its length; empty when there is none or it
 * changes all the time. row: the provider's, or of a model of it. */
struct str target_label(const struct region *r, uint32_t row, char text[TARGET_LABEL_TEXT]);
/* Output tokens to hold for a call there: estimate_call() by what is configured. */
uint64_t target_output(const struct region *r, uint32_t row, struct str model, struct str tag,
	uint64_t max_tokens);

/* What a call costs at these prices (pico-USD per token; cached -1: as input) in nano-USD, rounded
 * up; -1: a price is not known. cached tokens are part of input. */
int64_t target_cost(int64_t price_input, int64_t price_output, int64_t price_cached, uint64_t input,
	uint64_t cached, uint64_t output);

/* ---- learning ---- */

/* The class of a prompt: 0: up to 256 tokens, then by factors of 4. */
unsigned target_prompt_class(uint64_t input_tokens);

struct target_sample {
	uint64_t input_tokens;
	uint64_t first_token_ns; /* 0: not known */
	uint64_t gap_ns;         /* mean time between tokens of this answer; 0: not known */
};
/* What an answer tells that took duration_ns for output_tokens, of which the first came after
 * first_token_ns; 0: not known, as of one that came whole. Then the wait for it is what the gap
 * that streams have taught does not explain, at least an eighth. */
struct target_sample target_sample_of(const struct region *r, uint32_t row, uint64_t input_tokens,
	uint64_t output_tokens, uint64_t first_token_ns, uint64_t duration_ns);
/* Successes only: failures never look fast. */
void target_learn(
	const struct region *r, uint32_t row, const struct target_sample *sample, uint64_t now_ns);
/* A call goes there now. */
void target_tried(const struct region *r, uint32_t row, uint64_t now_ns);

/* Requests in flight; move it with hold_move(HOLD_TOTAL_TARGET(row)). */
uint32_t target_pending(const struct region *r, uint32_t row);

/* ---- pauses: the provider's 429 ---- */

#define TARGET_PAUSE_MAX_NS NSEC_PER_DAY

/* Nobody sends there before until_ns, at most a day from now; never shortens a pause. A
 * provider's row pauses all its targets. Tells of one that begins (EVENT_PAUSE_TARGET). */
void target_pause(const struct region *r, uint32_t row, uint64_t until_ns, uint64_t now_ns);
/* Counts 429s in a row, for a backoff that all processes share: those of answers that were under
 * way when the pause began count as one. How many there were before; at most TARGET_REFUSED_MAX. */
#define TARGET_REFUSED_MAX 16
unsigned target_refused(const struct region *r, uint32_t row, uint64_t now_ns);
/* A good answer: the next 429 is the first. */
void target_accepted(const struct region *r, uint32_t row);
/* The operator's: ends it. */
void target_unpause(const struct region *r, uint32_t row);
/* Nanoseconds of a pause that are left, the provider's included; 0: none. */
uint64_t target_paused(const struct region *r, uint32_t row, uint64_t now_ns);

struct target_view {
	char name[TARGET_NAME_TEXT];
	bool is_provider, available;
	uint32_t provider;
	uint64_t pending; /* of a provider: its models' too, which takes a look at every row */
	uint64_t samples, tried_ns, pause_ns, context, capabilities;
	int64_t price_input, price_output, price_cached;
	uint64_t first_token_us[TARGET_PROMPT_CLASSES]; /* 0: nothing learned */
	uint64_t gap_us;
};
bool target_view(const struct region *r, uint32_t row, struct target_view *out);
