#pragma once

/*
 * How llmkit top looks, and what its keys do: a model (tools/top_model.h) becomes a picture.
 * Without a terminal and without a clock. One owner, one thread.
 */

#include <stdbool.h>
#include <stdint.h>
#include "tools/canvas.h"
#include "tools/top_model.h"

enum top_section {
	TOP_LIMITS,
	TOP_TARGETS,
	TOP_PARTICIPANTS,
	TOP_EVENT_LIST,
	TOP_SECTIONS,
};

#define TOP_FILTER 128

struct top_view {
	unsigned focus;              /* enum top_section */
	unsigned sort[TOP_SECTIONS]; /* column */
	bool reverse[TOP_SECTIONS];
	unsigned first[TOP_SECTIONS]; /* row that is shown first */
	unsigned last[TOP_SECTIONS];  /* the furthest that it could be when it was drawn */
	unsigned page;                /* rows of the focus that were shown last */
	char filter[TOP_FILTER];      /* rows without this text are left out */
	bool types_filter, is_paused, shows_help;
	uint64_t interval_ns;
	const char *trouble; /* with the region's file; NULL: none */
};

#define TOP_VIEW_INIT ((struct top_view){ .interval_ns = UINT64_C(1000000000) })

enum top_action {
	TOP_NOTHING,
	TOP_REDRAW,
	TOP_QUIT,
};

/* What a key (tools/keyboard.h) does. */
enum top_action top_view_key(struct top_view *v, uint32_t key);
/* The columns that rows of a section can be sorted by. */
unsigned top_view_columns(enum top_section section);

/* Draws everything; height 0: all rows there are, without the line of keys. */
void top_view_draw(struct top_view *v, const struct top_model *m, struct canvas *c);

/* The rows of a section in the view's order, by index into the model's (events: by number);
 * *count of them. The caller's, free(3). NULL: none, or no memory. */
uint64_t *top_view_rows(const struct top_view *v, const struct top_model *m,
	enum top_section section, unsigned *count);
