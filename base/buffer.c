#include "base/buffer.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BUFFER_MIN 256

void buffer_deinit(struct buffer *b)
{
	free(b->data);
	*b = BUFFER_NULL;
}

static void buffer_compact(struct buffer *b)
{
	size_t length = buffer_length(b);

	if (b->begin == 0)
		return;
	memmove(b->data, b->data + b->begin, length);
	b->begin = 0;
	b->end = length;
}

int buffer_reserve(struct buffer *b, size_t n)
{
	size_t length = buffer_length(b), capacity = b->capacity ? b->capacity : BUFFER_MIN;
	char *data;

	if (b->data && n <= b->capacity - b->end)
		return 0;
	/* Moving is cheap only while little is unread: else it would be quadratic. */
	if (b->data && length <= b->begin && n <= b->capacity - length) {
		buffer_compact(b);
		return 0;
	}
	if (n > SIZE_MAX / 4 - length)
		return -ENOMEM;
	while (capacity < length + n)
		capacity *= 2;
	data = malloc(capacity);
	if (!data)
		return -ENOMEM;
	if (length)
		memcpy(data, buffer_head(b), length);
	free(b->data);
	*b = (struct buffer){ .data = data, .end = length, .capacity = capacity };
	return 0;
}

int buffer_append_growing(struct buffer *b, const void *data, size_t n)
{
	int r;

	if (n == 0)
		return 0;
	r = buffer_reserve(b, n);
	if (r < 0)
		return r;
	memcpy(buffer_tail(b), data, n);
	b->end += n;
	return 0;
}

int buffer_printf(struct buffer *b, const char *format, ...)
{
	size_t room = b->data ? b->capacity - b->end : 0;
	va_list args;
	int n, r;

	/* Mostly there is room: formatting twice, to measure first, costs as much again. */
	va_start(args, format);
	n = vsnprintf(room ? buffer_tail(b) : NULL, room, format, args);
	va_end(args);
	if (n < 0)
		return -EINVAL;
	if ((size_t)n >= room) {
		r = buffer_reserve(b, (size_t)n + 1);
		if (r < 0)
			return r;
		va_start(args, format);
		vsnprintf(buffer_tail(b), (size_t)n + 1, format, args);
		va_end(args);
	}
	b->end += (size_t)n;
	return 0;
}

void buffer_consume(struct buffer *b, size_t n)
{
	assert(n <= buffer_length(b));
	b->begin += n;
	if (b->begin == b->end)
		b->begin = b->end = 0;
}

void buffer_reset(struct buffer *b, size_t keep)
{
	b->begin = b->end = 0;
	if (b->capacity > keep)
		buffer_deinit(b);
}

void buffer_wipe(struct buffer *b)
{
	if (b->data)
		explicit_bzero(b->data, b->capacity);
	b->begin = b->end = 0;
}
