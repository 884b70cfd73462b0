#pragma once

/*
 * A view of bytes somebody else owns: not terminated, may be empty, data may be NULL when
 * length is 0. Passed by value.
 */

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

struct str {
	const char *data;
	size_t length;
};

#define STR_NULL ((struct str){ NULL, 0 })
/* Printf argument pair for "%.*s". */
#define STR_ARG(s_) (int)(s_).length, (s_).data ? (s_).data : ""

/* View of a C string; NULL gives the empty view. */
static inline struct str str_of(const char *text)
{
	return (struct str){ text, text ? strlen(text) : 0 };
}

static inline struct str str_make(const void *data, size_t length)
{
	return (struct str){ data, length };
}

static inline bool str_equal(struct str a, struct str b)
{
	return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
}

static inline bool str_is(struct str a, const char *text)
{
	return str_equal(a, str_of(text));
}

/* Heap copy, NUL-terminated; NULL when out of memory. */
static inline char *str_dup(struct str s)
{
	return strndup(s.data ? s.data : "", s.length);
}
