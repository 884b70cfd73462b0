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

struct target_config {
	struct str name;
	uint32_t provider; /* row of the provider; TARGET_NONE: this is a provider */
	int64_t price_input, price_output, price_cached; /* pico-USD per token; -1: not known */
	uint64_t context;                                /* tokens; 0: not known */
	uint64_t capabilities;
	bool available;
};

/* Daemon only: creates or changes; what was learned stays, also while the name was not in use.
 * A row that was another's starts anew, its breaker too (breaker_init() with the production
 * preset). The row, -ENOSPC, -ENAMETOOLONG, -EINVAL (name), -ERANGE (price, provider). */
int target_configure(struct region *r, const struct target_config *config);
/* Daemon only: frees every row not marked in keep[0 .. targets-1]; a row with requests in flight is
 * not given to another. */
void target_retire(struct region *r, const bool *keep);
void target_adopt(struct region *r, uint64_t now_ns);

/* The row of a name, or TARGET_NONE; *key guards against reconfiguration (may be NULL). */
uint32_t target_find(const struct region *r, struct str name, uint64_t *key);
bool target_is(const struct region *r, uint32_t row, uint64_t key);

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
	uint64_t pending; /* of a provider: its models' too */
	uint64_t samples, tried_ns, pause_ns, context, capabilities;
	int64_t price_input, price_output, price_cached;
	uint64_t first_token_us[TARGET_PROMPT_CLASSES]; /* 0: nothing learned */
	uint64_t gap_us;
};
bool target_view(const struct region *r, uint32_t row, struct target_view *out);
