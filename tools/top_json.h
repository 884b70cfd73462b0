#pragma once

/* llmkit top for programs: a sample as one JSON object. Times in nanoseconds and microseconds,
 * rates per second, money in nano-USD. */

#include "base/buffer.h"
#include "tools/top_view.h"

/* Appends the object and a line's end. Events from number since on. 0, -ENOMEM. */
int top_json_print(const struct top_model *m, const char *region, const char *trouble,
	uint64_t since, struct buffer *out);
