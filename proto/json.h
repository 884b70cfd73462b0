#pragma once

/*
 * The JSON helper: the one home of yyjson outside daemon/formats/. Builds small documents
 * (request bodies, status, --json output) by appending in order. A misuse (value without key in
 * an object) or lack of memory is remembered and reported by json_finish(); the calls in between
 * return nothing.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/str.h"

struct json; /* an opaque builder */

/* NULL when out of memory. */
struct json *json_new(void);
void json_free(struct json *j);
static inline void json_freep(struct json **j)
{
	json_free(*j);
}

/* key NULL inside arrays and for the root. Depth at most 32. */
void json_object_begin(struct json *j, const char *key);
void json_object_end(struct json *j);
void json_array_begin(struct json *j, const char *key);
void json_array_end(struct json *j);
void json_str(struct json *j, const char *key, struct str value); /* invalid UTF-8: an error */
void json_uint(struct json *j, const char *key, uint64_t value);
void json_int(struct json *j, const char *key, int64_t value);
void json_real(struct json *j, const char *key, double value);
void json_bool(struct json *j, const char *key, bool value);
/* Copies a JSON text in as a value; not valid JSON: an error. */
void json_raw(struct json *j, const char *key, struct str text);

/* Appends the text to out; pretty: indented. 0, -ENOMEM, -EINVAL (misuse, bad UTF-8 or bad raw
 * text). The builder is spent. */
int json_finish(struct json *j, bool pretty, struct buffer *out);

/* Whether the text is one valid JSON object. On false *position is where it went wrong. */
bool json_is_object(struct str text, size_t *position);

/*
 * Calls fn for every scalar of a JSON text in order, with its path ("providers[0].name") and its
 * value as text (strings unquoted). Deeper than 32 levels or a path above 255 bytes: -EINVAL, as
 * for text that is not JSON. fn's non-zero answer stops and is returned.
 */
int json_flatten(struct str text, int (*fn)(void *context, const char *path, struct str value),
	void *context);

/* The string member of that name of an object, copied to out; false: not there, no string,
 * or longer than size - 1. */
bool json_get_str(struct str text, const char *key, char *out, size_t size);
