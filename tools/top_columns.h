#pragma once

/* The columns of llmkit top's tables: what a row shows, what it is sorted and found by. */

#include "tools/top_view.h"

struct top_column {
	const char *title;
	unsigned width;     /* 0: what the others leave */
	unsigned from;      /* not shown where there are fewer columns than this */
	unsigned wide_from; /* width is wide from so many columns on; 0: never */
	unsigned wide;
	bool at_right;
	bool falls;    /* sorted from the largest down */
	bool unsorted; /* is not sorted by */
	void (*draw)(struct canvas *c, const void *row, unsigned width);
	double (*key)(const void *row); /* NULL: sorted by the row's text */
};

struct top_table {
	const char *name;
	const struct top_column *column;
	unsigned columns;
	const void *(*row)(const struct top_model *m, uint64_t index);
	/* What it is called; found and, in doubt, sorted by. out may be used for it. */
	const char *(*text)(const void *row, char out[TOP_EVENT_TEXT]);
};

extern const struct top_table top_tables[TOP_SECTIONS];
