#pragma once

/*
 * Reading JSON values that a stranger wrote: every accessor answers "absent" for a value of
 * another type. Numbers are kept as text when a document was read with
 * YYJSON_READ_NUMBER_AS_RAW, so that they can be passed on unchanged.
 */

#include <stdbool.h>
#include <stdint.h>
#include <yyjson.h>
#include "base/str.h"

/* Token counts above this are not believed. */
#define VALUE_COUNT_MAX (INT64_C(1) << 40)

static inline void value_docp(yyjson_doc **doc)
{
	yyjson_doc_free(*doc);
}

/* The empty view when it is not a string. */
static inline struct str value_str(yyjson_val *v)
{
	return yyjson_is_str(v) ? str_make(yyjson_get_str(v), yyjson_get_len(v)) : STR_NULL;
}

/* Member of an object; NULL when absent, null, or v is no object. */
static inline yyjson_val *value_get(yyjson_val *v, const char *key)
{
	yyjson_val *member = yyjson_obj_get(v, key);

	return yyjson_is_null(member) ? NULL : member;
}

static inline struct str value_get_str(yyjson_val *v, const char *key)
{
	return value_str(yyjson_obj_get(v, key));
}

static inline bool value_is(yyjson_val *v, const char *text)
{
	return yyjson_equals_str(v, text);
}

/* Replaces *count when the member is a plausible count. */
static inline void value_get_count(yyjson_val *v, const char *key, int64_t *count)
{
	yyjson_val *member = yyjson_obj_get(v, key);

	if (yyjson_is_uint(member) && yyjson_get_uint(member) <= (uint64_t)VALUE_COUNT_MAX)
		*count = (int64_t)yyjson_get_uint(member);
}
