#include "tools/canvas.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include "tools/text.h"

static const char *const codes[CANVAS_STYLES] = {
	[CANVAS_PLAIN] = "\033[m",
	[CANVAS_BOLD] = "\033[1m",
	[CANVAS_DIM] = "\033[2m",
	[CANVAS_GOOD] = "\033[32m",
	[CANVAS_WARN] = "\033[33m",
	[CANVAS_BAD] = "\033[1;31m",
	[CANVAS_HELD] = "\033[36m",
	[CANVAS_MARKED] = "\033[7m",
};

void canvas_deinit(struct canvas *c)
{
	for (unsigned i = 0; i < c->capacity; i++)
		buffer_deinit(&c->line[i]);
	free(c->line);
	*c = (struct canvas){ 0 };
}

void canvas_clear(struct canvas *c, unsigned width, unsigned height)
{
	for (unsigned i = 0; i < c->capacity; i++)
		buffer_reset(&c->line[i], SIZE_MAX);
	c->width = width;
	c->height = height;
	c->lines = 0;
}

unsigned canvas_room(const struct canvas *c)
{
	return c->height == 0 ? UINT32_MAX : c->height - c->lines;
}

static bool grow(struct canvas *c)
{
	unsigned capacity = c->capacity ? 2 * c->capacity : 64;
	struct buffer *line = realloc(c->line, capacity * sizeof(*line));

	if (!line)
		return false;
	for (unsigned i = c->capacity; i < capacity; i++)
		line[i] = BUFFER_NULL;
	c->line = line;
	c->capacity = capacity;
	return true;
}

bool canvas_begin(struct canvas *c)
{
	if (canvas_room(c) == 0 || (c->lines == c->capacity && !grow(c)))
		return false;
	c->lines++;
	c->column = 0;
	c->style = CANVAS_PLAIN;
	return true;
}

static void set_style(struct canvas *c, enum canvas_style style)
{
	struct buffer *line = &c->line[c->lines - 1];

	if (style == c->style || !c->color)
		return;
	if (c->style != CANVAS_PLAIN && style != CANVAS_PLAIN)
		buffer_append_str(line, str_of(codes[CANVAS_PLAIN]));
	buffer_append_str(line, str_of(codes[style]));
	c->style = style;
}

/* Without a style nobody sees where spaces end. */
static void trim(struct buffer *line)
{
	while (buffer_length(line) > 0 && line->data[line->end - 1] == ' ')
		line->end--;
}

void canvas_end(struct canvas *c)
{
	if (c->style == CANVAS_PLAIN)
		trim(&c->line[c->lines - 1]);
	set_style(c, CANVAS_PLAIN);
}

void canvas_text(struct canvas *c, enum canvas_style style, const char *text)
{
	struct buffer *line = &c->line[c->lines - 1];
	unsigned columns;
	size_t bytes;

	set_style(c, style);
	for (; (bytes = text_next(text, &columns)) > 0; text += bytes) {
		if (c->column + columns > c->width)
			return;
		if (c->utf8 || bytes == 1)
			buffer_append(line, text, bytes);
		else
			buffer_append(line, "??", columns);
		c->column += columns;
	}
}

void canvas_printf(struct canvas *c, enum canvas_style style, const char *format, ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	canvas_text(c, style, text);
}

static unsigned columns_of(const char *text)
{
	unsigned sum = 0, columns;
	size_t bytes;

	for (; (bytes = text_next(text, &columns)) > 0; text += bytes)
		sum += columns;
	return sum;
}

static void put_cut(
	struct canvas *c, enum canvas_style style, const char *text, unsigned columns_left)
{
	unsigned keep = c->width, end = c->column + columns_left;

	/* Another width for a moment cuts at the right column. */
	c->width = end - 1 < keep ? end - 1 : keep;
	canvas_text(c, style, text);
	c->width = keep;
	canvas_text(c, style, c->utf8 ? "…" : "~");
	canvas_pad(c, end);
}

void canvas_field(struct canvas *c, enum canvas_style style, const char *text, unsigned columns,
	bool at_right)
{
	unsigned wanted = columns_of(text), end = c->column + columns;

	if (columns == 0)
		return;
	if (wanted > columns) {
		put_cut(c, style, text, columns);
		return;
	}
	if (at_right)
		canvas_pad(c, end - wanted);
	canvas_text(c, style, text);
	canvas_pad(c, end);
}

void canvas_fill(
	struct canvas *c, enum canvas_style style, const char *utf8, char ascii, unsigned n)
{
	const char one[2] = { ascii, '\0' };

	for (; n > 0; n--)
		canvas_text(c, style, c->utf8 ? utf8 : one);
}

void canvas_pad(struct canvas *c, unsigned column)
{
	while (c->column < column && c->column < c->width)
		canvas_text(c, c->style == CANVAS_MARKED ? CANVAS_MARKED : CANVAS_PLAIN, " ");
}
