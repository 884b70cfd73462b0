#pragma once

/*
 * Server-sent events, bytes in, events out (WHATWG HTML, "event stream"). A stage: no I/O, no
 * clock. Any split of the bytes gives the same events. LF, CR and CRLF end lines, also split
 * between CR and LF; a leading BOM is skipped; comments are counted, not delivered; an event
 * that is not ended by a blank line is not an event. An event that lies whole inside the bytes
 * given is delivered from there, without a copy; between events nothing is allocated.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/str.h"

/* Data so far and the line being read, together. */
#define SSE_EVENT_MAX (1u << 20)

enum sse_outcome {
	SSE_OK = 0,
	SSE_E_TOO_LARGE, /* one event above SSE_EVENT_MAX */
	SSE_E_STOPPED,   /* the callback said so */
	SSE_E_NO_MEMORY,
};

/* name is empty for the default type; data has its lines joined by LF. Views, valid during the
 * call. Non-zero stops. */
typedef int (*sse_event_fn)(void *context, struct str name, struct str data);

struct sse {
	struct buffer held;   /* data of the unfinished event, then its unfinished line */
	uint32_t data_length; /* of the data in held */
	uint8_t name_length;
	uint8_t bom; /* bytes of a possible BOM seen */
	bool has_data, skip_lf, begun;
	char name[32]; /* longer names are cut: no format knows one */
	uint64_t comments;
};

#define SSE_NULL ((struct sse){ 0 })
void sse_deinit(struct sse *s);
/* Feeds bytes; calls fn for every complete event in order. After an outcome but SSE_OK only
 * sse_deinit() may follow. */
enum sse_outcome sse_feed(struct sse *s, struct str bytes, sse_event_fn fn, void *context);
/* Whether an event was begun and not ended. */
bool sse_is_pending(const struct sse *s);
