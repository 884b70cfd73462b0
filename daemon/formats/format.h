#pragma once

/*
 * A provider format: how to build its request from the OpenAI chat JSON, how to read its
 * answer as normalised events. Stages: bytes in, events out; no I/O, no clock. A format is one
 * file with one struct format; the table of them is the build option -Dformats.
 *
 * An answer is good only if its terminal event was seen: format_decoder_finish() decides, and a
 * fault never looks like an answer. OpenAI: a finish_reason, then [DONE] or the proper end of the
 * HTTP body (some servers leave [DONE] out; a body that is cut is the exchange's RESET); [DONE]
 * alone is TRUNCATED, and so is an event that was begun and not ended. Anthropic: message_stop.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/str.h"
#include "daemon/formats/family.h"
#include "proto/msg.h"

/* What the client asked, and for whom. */
struct format_request {
	const struct family *family;
	struct str body;             /* JSON object, OpenAI chat schema */
	struct str model;            /* the provider's name of the model; replaces "model" */
	uint32_t max_tokens_default; /* for formats that require one (Anthropic) */
};

struct format_plan {
	bool stream;    /* the client's "stream" member */
	char text[200]; /* where *why points on FORMAT_E_REQUEST */
};

enum format_outcome {
	FORMAT_OK = 0,
	FORMAT_E_REQUEST, /* the client's JSON cannot be sent; *why says what and where */
};

/* Normalised events; start comes first and once, its provider is left for the caller to fill.
 * Strings are views, valid during the call. Non-zero stops: the decoder answers CANCELLED. */
struct format_sink {
	int (*start)(void *context, const struct msg_start *m);
	int (*text)(void *context, enum frame_type type, struct str text); /* TEXT or REASONING */
	int (*tool_call)(void *context, const struct msg_tool_call *m);
	void *context;
};

struct format_decoder;

struct format {
	enum family_format id;
	const char *name;
	/* Appends the provider's request body. Unknown members pass through. 0, -ENOMEM, or
	 * FORMAT_E_REQUEST and out as before. */
	int (*build)(const struct format_request *q, struct buffer *out, struct format_plan *plan,
		const char **why);
	/* One SSE event of a stream. STATUS_OK to go on; an error inside the stream fills *error
	 * (views into the decoder) and returns its status. */
	enum status (*event)(struct format_decoder *d, struct str name, struct str data,
		struct msg_error *error);
	/* A whole JSON answer. */
	enum status (*answer)(struct format_decoder *d, struct str body, struct msg_error *error);
	/* Class of an answer that is not 2xx. */
	enum status (*classify)(struct format_decoder *d, unsigned http_status, struct str body,
		struct msg_error *error);
	/* A finish reason and the proper end of the body make an answer whole without more. */
	bool ends_with_body;
	/* Extra request headers, each "Name: value\r\n"; "" for none. */
	const char *headers;
};

/* NULL when not compiled in. */
const struct format *format_find(enum family_format id);

/* State of one answer. 0 or -ENOMEM. */
int format_decoder_new(struct format_decoder **out, const struct format *format,
	const struct family *family, const struct format_sink *sink);
struct format_decoder *format_decoder_free(struct format_decoder *d);
static inline void format_decoder_freep(struct format_decoder **d)
{
	format_decoder_free(*d);
}

/* Body bytes of a 200 answer, as they come. stream: they are SSE (decide by the answer's own
 * Content-Type: a provider may answer a streaming request with one JSON error object); else JSON.
 * Views in *error are valid until the decoder is freed. A status that is not OK is final. */
enum status format_decoder_feed(
	struct format_decoder *d, bool stream, struct str bytes, struct msg_error *error);
/* The body is complete. STATUS_OK: end is filled; else TRUNCATED, MALFORMED, …. */
enum status format_decoder_finish(
	struct format_decoder *d, bool stream, struct msg_end *end, struct msg_error *error);
/* An answer that is not 2xx: its whole body (already bounded) and its status. */
enum status format_decoder_classify(
	struct format_decoder *d, unsigned http_status, struct str body, struct msg_error *error);
/* What the answer has said so far, also one that ends badly; -1: not said. */
struct msg_usage format_decoder_usage(const struct format_decoder *d);
/* Text bytes handed to the sink so far. */
uint64_t format_decoder_received(const struct format_decoder *d);
