#pragma once

/*
 * A growable run of bytes with a read end: append at the tail, consume at the head. One
 * owner, not thread-safe. Growth doubles; a failed growth leaves the buffer as it was.
 */

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include "base/aux.h"
#include "base/str.h"

struct buffer {
	char *data;
	size_t begin; /* first unread byte */
	size_t end;   /* one past the last byte */
	size_t capacity;
};

#define BUFFER_NULL ((struct buffer){ 0 })

/* Frees the memory and returns to BUFFER_NULL; idempotent. */
void buffer_deinit(struct buffer *b);

/* Room for n more bytes at the tail; -ENOMEM. buffer_tail() is then valid for n bytes. */
int buffer_reserve(struct buffer *b, size_t n);

/* What buffer_append() does when there is no room. */
int buffer_append_growing(struct buffer *b, const void *data, size_t n);

/* Appends formatted text without the final NUL; -ENOMEM. */
int buffer_printf(struct buffer *b, const char *format, ...) aux_printf(2, 3);

/* Drops n bytes at the head (n <= buffer_length()); an emptied buffer restarts at 0. */
void buffer_consume(struct buffer *b, size_t n);

/* Drops everything, keeps the memory when it is at most keep bytes. */
void buffer_reset(struct buffer *b, size_t keep);

/* Overwrites the contents with zeros, then empties: for buffers that held a secret. */
void buffer_wipe(struct buffer *b);

static inline size_t buffer_length(const struct buffer *b)
{
	return b->end - b->begin;
}

static inline char *buffer_head(const struct buffer *b)
{
	return b->data + b->begin;
}

static inline char *buffer_tail(const struct buffer *b)
{
	return b->data + b->end;
}

/* Appends n bytes; -ENOMEM and nothing appended. */
static inline int buffer_append(struct buffer *b, const void *data, size_t n)
{
	if (aux_unlikely(n == 0 || n > b->capacity - b->end))
		return buffer_append_growing(b, data, n);
	memcpy(b->data + b->end, data, n);
	b->end += n;
	return 0;
}

static inline struct str buffer_str(const struct buffer *b)
{
	return str_make(b->data ? buffer_head(b) : NULL, buffer_length(b));
}

static inline int buffer_append_str(struct buffer *b, struct str s)
{
	return buffer_append(b, s.data, s.length);
}
