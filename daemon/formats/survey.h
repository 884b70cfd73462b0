#pragma once

/*
 * What a request asks for, as far as routing and limits need to know: how long its prompt is, how
 * long its answer may get, what the model must be able to do. A stage; reads the client's JSON
 * (OpenAI chat schema) and never refuses: what makes no sense is the format's to refuse, and
 * counts as absent.
 */

#include <stdint.h>
#include "base/str.h"

struct survey {
	uint64_t input_tokens; /* estimate on the high side */
	uint64_t max_tokens;   /* max_completion_tokens or max_tokens; 0: not said */
	uint64_t capabilities; /* enum target_capability bits that it needs */
};

#define SURVEY_MODEL_MAX 256

/* model: the body's own "model"; "" when absent or longer. 0, or -ENOMEM. */
int survey_read(struct str body, struct survey *out, char model[SURVEY_MODEL_MAX + 1]);
