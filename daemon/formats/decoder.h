#pragma once

/*
 * What the formats share while they read an answer. Private to this folder. The functions
 * return a status: OK to go on, CANCELLED when the sink stopped, MALFORMED with *error filled.
 */

#include <yyjson.h>
#include "daemon/formats/errors.h"
#include "daemon/formats/format.h"
#include "daemon/sse.h"

struct format_decoder {
	const struct format *format;
	const struct family *family;
	struct format_sink sink;
	struct sse sse;
	struct buffer body; /* of an answer that is not a stream */
	struct buffer text; /* error text */
	struct msg_usage usage;
	int64_t input_uncached; /* Anthropic: as counted there; -1: not known */
	uint64_t received;
	enum status status;      /* final once it is not OK */
	struct msg_error *error; /* the caller's, during a call */
	uint32_t tools;          /* tool calls begun */
	uint32_t tool_block;     /* Anthropic: the block of the last one */
	bool tool_empty;         /* Anthropic: no arguments came for it yet */
	bool started;
	bool ended; /* the terminal event came */
	uint8_t finish_length;
	char finish[32]; /* normalised finish reason; empty: none yet */
};

/* Documents up to a few hundred bytes, which chunks are, are read without malloc. */
struct decoder_arena {
	yyjson_alc alc;
	char bytes[12288];
};

/* One JSON value; MALFORMED naming what it was of. The document may lie in the arena. */
enum status decoder_read(struct format_decoder *d, struct decoder_arena *arena, struct str text,
	const char *what, yyjson_doc **out, struct msg_error *error);
enum status decoder_malformed(struct format_decoder *d, const char *what, struct msg_error *error);
/* The first call delivers the start event. */
enum status decoder_start(struct format_decoder *d, struct str id, struct str model);
/* Nothing is delivered for an empty text. */
enum status decoder_text(struct format_decoder *d, enum frame_type type, struct str text);
enum status decoder_tool_call(struct format_decoder *d, const struct msg_tool_call *m);
void decoder_finish_reason(struct format_decoder *d, struct str reason);
