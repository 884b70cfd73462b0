#pragma once

/*
 * How long answers get: the 95th percentile of output tokens of one (model, caller's tag), learned
 * by stochastic approximation (Robbins and Monro 1951) on ln(tokens), one word per row. The table
 * is bounded: a new pair takes the row least recently used of those it may sit in. Lock-free,
 * process-safe.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "shm/region.h"

/* Output tokens to hold for a call: the learned percentile once there are enough samples, else
 * fallback; at most max_tokens unless that is 0. tag may be empty. */
uint64_t estimate_output(const struct region *r, struct str model, struct str tag,
	uint64_t max_tokens, uint64_t fallback);

#define ESTIMATE_OUTPUT 1024 /* tokens of an answer that nothing is known of */

/* What every call is held for: all that it may use (max_tokens) where the provider charges at
 * submission; else estimate_output() with the model's configured maximum, else ESTIMATE_OUTPUT. */
uint64_t estimate_call(const struct region *r, struct str model, struct str tag,
	uint64_t max_tokens, uint64_t configured, bool reserve);

/* What a call really used. Participants and the daemon. */
void estimate_learn(const struct region *r, struct str model, struct str tag,
	uint64_t output_tokens, uint64_t now_ns);

/* Tokens of a text that nobody has counted, on the high side: about 3.5 bytes per token. */
uint64_t estimate_input(uint64_t bytes);

struct estimate_view {
	uint64_t tokens, samples, used_ns;
};
bool estimate_view(const struct region *r, uint32_t row, struct estimate_view *out);
