#pragma once

/*
 * Appending that cannot fail: the fake provider is a test program, and without memory it has
 * nothing better to do than to say so and end.
 */

#include "base/buffer.h"
#include <stdio.h>
#include <stdlib.h>

static inline void put_check(int r)
{
	if (aux_likely(r >= 0))
		return;
	fputs("fakeprovider: out of memory\n", stderr);
	exit(1);
}

static inline void put(struct buffer *b, const void *data, size_t n)
{
	put_check(buffer_append(b, data, n));
}

static inline void put_str(struct buffer *b, struct str s)
{
	put_check(buffer_append(b, s.data, s.length));
}

static inline void put_text(struct buffer *b, const char *text)
{
	put_check(buffer_append(b, text, strlen(text)));
}

/* A constant text, its length known to the compiler. */
#define put_const(b_, text_) put((b_), (text_), sizeof(text_) - 1)
#define put_printf(b_, ...) put_check(buffer_printf((b_), __VA_ARGS__))

/* Unsigned decimal; printf takes ten times as long. */
static inline void put_number(struct buffer *b, uint64_t n)
{
	char digits[20];
	size_t at = sizeof(digits);

	do {
		digits[--at] = (char)('0' + n % 10);
		n /= 10;
	} while (n);
	put(b, digits + at, sizeof(digits) - at);
}

/* The text as the inside of a JSON string. */
void put_json(struct buffer *b, struct str s);
