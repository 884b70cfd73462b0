#pragma once

/*
 * HTTP/1.1 messages, bytes in, events out: the response side of a client (the daemon). The only
 * home of llhttp.h. No I/O, no clock, no allocation beyond the header fields it collects.
 *
 * Strict: anything llhttp refuses is MALFORMED. 1xx responses are swallowed. Trailers are read and
 * dropped. Header bytes of one response are capped.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/str.h"

#define HTTP1_HEADER_MAX (64u << 10)

struct http1;

struct http1_events {
	/* Status line and headers are complete; 1xx never comes here. Non-zero, of any of these:
	 * stop parsing. The parser must not be freed or reset from inside. */
	int (*head)(void *context, struct http1 *p);
	int (*body)(void *context, struct str bytes);
	/* The message is complete and well framed. */
	int (*complete)(void *context, bool keep_alive);
	void *context;
};

enum http1_outcome {
	HTTP1_OK = 0,      /* all bytes taken, more may come */
	HTTP1_COMPLETE,    /* message complete; *used tells where junk or the next one begins */
	HTTP1_E_MALFORMED, /* http1_error() says what */
	HTTP1_E_TOO_LARGE, /* headers above HTTP1_HEADER_MAX */
	HTTP1_E_STOPPED,   /* a callback said so */
};

int http1_new(struct http1 **out, const struct http1_events *events);
struct http1 *http1_free(struct http1 *p);
/* Ready for the next response on the same connection. */
void http1_reset(struct http1 *p);

enum http1_outcome http1_feed(struct http1 *p, const void *data, size_t size, size_t *used);
/* The peer closed. HTTP1_COMPLETE when the message was delimited by the close, else MALFORMED
 * (wrong length, cut chunk). */
enum http1_outcome http1_feed_eof(struct http1 *p);
const char *http1_error(const struct http1 *p);
/* Whether any byte of the response's head has been seen. */
bool http1_has_begun(const struct http1 *p);

/* Valid from head() until reset. */
unsigned http1_status(const struct http1 *p);
/* First header of that name (case-insensitive); empty when absent. Valid during head() only: the
 * fields are freed after it. */
struct str http1_header(const struct http1 *p, const char *name);
/* Each header in the order of the response, names as it wrote them. Valid during head() only. */
void http1_each_header(const struct http1 *p,
	void (*fn)(void *context, struct str name, struct str value), void *context);
/* Whether every header of that name has that value (case-insensitive); true when there is none. */
bool http1_header_is_only(const struct http1 *p, const char *name, const char *value);
