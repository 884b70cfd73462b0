#pragma once

/*
 * A picture made of lines: text with a style, clipped to a width in columns. Lines are compared as
 * bytes, so that only those that changed are drawn again. Without a terminal; one owner, one
 * thread. What does not fit is cut; lack of memory shows as missing text.
 */

#include <stdbool.h>
#include <stddef.h>
#include "base/aux.h"
#include "base/buffer.h"

enum canvas_style {
	CANVAS_PLAIN,
	CANVAS_BOLD,
	CANVAS_DIM,
	CANVAS_GOOD,
	CANVAS_WARN,
	CANVAS_BAD,
	CANVAS_HELD,
	CANVAS_MARKED, /* in reverse */
	CANVAS_STYLES,
};

struct canvas {
	unsigned width;  /* columns */
	unsigned height; /* lines there is room for; 0: any number */
	bool utf8;       /* else ASCII only */
	bool color;      /* else without styles */
	struct buffer *line;
	unsigned lines, capacity; /* drawn; allocated */
	unsigned column;          /* of the line being drawn */
	enum canvas_style style;
};

void canvas_deinit(struct canvas *c);
/* Begins anew, of this size. */
void canvas_clear(struct canvas *c, unsigned width, unsigned height);
/* How many more lines fit. */
unsigned canvas_room(const struct canvas *c);
/* Begins the next line; false: there is no room, and nothing may be drawn. */
bool canvas_begin(struct canvas *c);
/* The line is complete. */
void canvas_end(struct canvas *c);

/* Text as it is, in columns; cleaned by the caller (tools/text.h). */
void canvas_text(struct canvas *c, enum canvas_style style, const char *text);
void canvas_printf(struct canvas *c, enum canvas_style style, const char *format, ...)
	aux_printf(3, 4);
/* In a field of so many columns, at its left or right end; what is cut ends with an ellipsis. */
void canvas_field(struct canvas *c, enum canvas_style style, const char *text, unsigned columns,
	bool at_right);
/* The same character n times; ascii where there is no UTF-8. */
void canvas_fill(
	struct canvas *c, enum canvas_style style, const char *utf8, char ascii, unsigned n);
/* Spaces up to a column. */
void canvas_pad(struct canvas *c, unsigned column);
