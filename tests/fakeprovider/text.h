#pragma once

/*
 * The words of an answer, chunk by chunk, already escaped for the inside of a JSON string: first
 * a lead that quotes the prompt, then a canned paragraph about rate budgets, over and over. With
 * chunk_bytes or big the text is canned only, and exactly as long as asked.
 */

#include "base/buffer.h"
#include "tests/fakeprovider/script.h"

struct text {
	struct buffer lead;
	size_t at; /* in lead, then in the paragraph */
	bool lead_done, begun;
	int64_t chunk_bytes; /* 0: a word per chunk */
	int64_t left_bytes;
	int64_t chunks; /* how many there are in all */
};

void text_deinit(struct text *t);

/* Plans the text of one answer; the lead's memory is reused. */
void text_plan(struct text *t, const struct script *s, struct str prompt);

/* Back to the first chunk. */
void text_rewind(struct text *t, const struct script *s);

/* Appends the next chunk. */
void text_next(struct text *t, struct buffer *out);
