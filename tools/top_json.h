#pragma once

/* llmkit top for programs: a sample as one JSON object. Times in nanoseconds and microseconds,
 * rates per second, money in nano-USD. */

#include "base/buffer.h"
#include "tools/top_view.h"

/* Appends the object and a line's end, with the events that were not told yet: each is told once
 * or counted as lost. 0, -ENOMEM. */
int top_json_print(
	struct top_model *m, const char *region, const char *trouble, struct buffer *out);
