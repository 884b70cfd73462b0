#pragma once

/*
 * What differs between the providers' formats. Each function appends to b; the texts it gets
 * are already escaped for JSON. Nothing here knows of HTTP framing.
 */

#include "base/buffer.h"
#include <stdbool.h>

struct answer;

enum piece_kind { PIECE_REASONING, PIECE_TEXT, PIECE_TOOL };

/* One chunk of content. */
struct piece {
	enum piece_kind kind;
	int64_t tool, fragment; /* of a tool call */
	int64_t block;          /* counts reasoning, text and each tool */
	bool first, last;       /* of its block */
};

struct fault {
	const char *type, *code, *message;
};

struct family {
	bool needs_version, needs_max_tokens;
	/* Default error per status; an error inside a stream is 529's. */
	struct fault (*fault)(int status);
	void (*headers)(const struct answer *a, struct buffer *b);
	void (*start)(struct answer *a, struct buffer *b);
	void (*piece)(struct answer *a, struct buffer *b, const struct piece *p, struct str text);
	void (*finish)(struct answer *a, struct buffer *b);
	void (*whole)(struct answer *a, struct buffer *b);
	void (*error)(const struct answer *a, struct buffer *b, const struct fault *f);
	const char *error_event; /* the lines before an error's data line */
};

extern const struct family family_openai, family_anthropic;

#define TOOL_FRAGMENTS 4
/* The arguments of every tool call, escaped, cut into fragments. */
extern const char *const tool_fragments[TOOL_FRAGMENTS];

/* For the formats: line end of events, all the text of a kind, number of text chunks. */
struct str answer_newline(const struct answer *a);
void answer_put_texts(struct answer *a, struct buffer *b, enum piece_kind kind);
int64_t answer_text_chunks(const struct answer *a);
