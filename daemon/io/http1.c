#include "daemon/io/http1.h"

#include <errno.h>
#include <llhttp.h>
#include <strings.h>
#include "base/error.h"

/*
 * Header fields are kept as "name\0value\0" one after the other: llhttp lets no NUL through, and
 * one buffer that is freed after head() keeps an open stream small.
 */
struct http1 {
	llhttp_t parser;
	struct http1_events events;
	struct buffer fields;
	const char *error;
	size_t silent;                  /* bytes fed since the last that carried the body on */
	size_t framing;                 /* bytes of status lines, headers and trailers */
	enum http1_outcome outcome : 8; /* set by a callback that ends the parsing */
	bool begun : 1, in_value : 1, in_body : 1, progress : 1, keep_alive : 1;
};

static struct http1 *http1_of(llhttp_t *parser)
{
	return container_of(parser, struct http1, parser);
}

/* From a llhttp callback: ends the parsing. */
static int http1_refuse(struct http1 *p, enum http1_outcome outcome, const char *error)
{
	p->outcome = outcome;
	p->error = error;
	return -1;
}

static int http1_count(struct http1 *p, size_t n)
{
	p->framing += n;
	if (p->framing > HTTP1_HEADER_MAX)
		return http1_refuse(p, HTTP1_E_TOO_LARGE, "headers too large");
	return 0;
}

/* Ends a name or a value when the other begins. */
static int http1_collect(struct http1 *p, bool value, const char *data, size_t size)
{
	/* Trailers are counted and dropped. */
	if (http1_count(p, size) < 0)
		return -1;
	if (p->in_body)
		return 0;
	if (p->in_value != value && buffer_append(&p->fields, "", 1) < 0)
		return http1_refuse(p, HTTP1_E_TOO_LARGE, "out of memory");
	p->in_value = value;
	if (buffer_append(&p->fields, data, size) < 0)
		return http1_refuse(p, HTTP1_E_TOO_LARGE, "out of memory");
	return 0;
}

static int http1_on_status(llhttp_t *parser, const char *data, size_t size)
{
	(void)data;
	return http1_count(http1_of(parser), size);
}

static int http1_on_field(llhttp_t *parser, const char *data, size_t size)
{
	return http1_collect(http1_of(parser), false, data, size);
}

static int http1_on_value(llhttp_t *parser, const char *data, size_t size)
{
	return http1_collect(http1_of(parser), true, data, size);
}

/* The parser skips white space before a value, not behind it. */
static struct str http1_trim(struct str s)
{
	while (s.length && (s.data[s.length - 1] == ' ' || s.data[s.length - 1] == '\t'))
		s.length--;
	return s;
}

static int http1_on_headers_complete(llhttp_t *parser)
{
	struct http1 *p = http1_of(parser);
	int r = 0;

	if (parser->http_major != 1)
		return http1_refuse(p, HTTP1_E_MALFORMED, "not HTTP/1");
	if (parser->status_code == 101 || parser->status_code < 100)
		return http1_refuse(p, HTTP1_E_MALFORMED, "unexpected status");
	if (p->in_value && buffer_append(&p->fields, "", 1) < 0)
		return http1_refuse(p, HTTP1_E_TOO_LARGE, "out of memory");
	p->in_value = false;
	if (parser->status_code < 200)
		return 0;
	if ((parser->flags & F_TRANSFER_ENCODING) &&
		!http1_header_is_only(p, "transfer-encoding", "chunked"))
		return http1_refuse(p, HTTP1_E_MALFORMED, "unknown transfer-encoding");
	p->in_body = true;
	p->keep_alive = llhttp_should_keep_alive(parser);
	if (p->events.head)
		r = p->events.head(p->events.context, p);
	buffer_deinit(&p->fields);
	return r ? http1_refuse(p, HTTP1_E_STOPPED, "stopped") : 0;
}

static int http1_on_body(llhttp_t *parser, const char *data, size_t size)
{
	struct http1 *p = http1_of(parser);

	p->progress = true;
	if (p->events.body && p->events.body(p->events.context, str_make(data, size)))
		return http1_refuse(p, HTTP1_E_STOPPED, "stopped");
	return 0;
}

static int http1_on_message_complete(llhttp_t *parser)
{
	struct http1 *p = http1_of(parser);

	if (parser->status_code < 200) {
		buffer_reset(&p->fields, 0);
		return 0;
	}
	p->outcome = HTTP1_COMPLETE;
	return HPE_PAUSED;
}

static const llhttp_settings_t http1_settings = {
	.on_status = http1_on_status,
	.on_header_field = http1_on_field,
	.on_header_value = http1_on_value,
	.on_headers_complete = http1_on_headers_complete,
	.on_body = http1_on_body,
	.on_message_complete = http1_on_message_complete,
};

int http1_new(struct http1 **out, const struct http1_events *events)
{
	struct http1 *p = calloc(1, sizeof(*p));

	if (!p)
		return error_origin(-ENOMEM);
	p->events = *events;
	llhttp_init(&p->parser, HTTP_RESPONSE, &http1_settings);
	*out = p;
	return 0;
}

struct http1 *http1_free(struct http1 *p)
{
	if (p)
		buffer_deinit(&p->fields);
	free(p);
	return NULL;
}

void http1_reset(struct http1 *p)
{
	struct http1_events events = p->events;

	buffer_deinit(&p->fields);
	*p = (struct http1){ .events = events };
	llhttp_init(&p->parser, HTTP_RESPONSE, &http1_settings);
}

static enum http1_outcome http1_completed(struct http1 *p)
{
	if (p->events.complete && p->events.complete(p->events.context, p->keep_alive))
		return http1_refuse(p, HTTP1_E_STOPPED, "stopped"), HTTP1_E_STOPPED;
	return HTTP1_COMPLETE;
}

/* Bytes that end no header and carry no body (spaces, chunk extensions) must end too. */
static enum http1_outcome http1_check_progress(struct http1 *p, size_t size)
{
	p->silent = p->progress ? 0 : p->silent + size;
	if (p->silent <= 2 * HTTP1_HEADER_MAX)
		return HTTP1_OK;
	http1_refuse(p, HTTP1_E_TOO_LARGE, "headers too large");
	return HTTP1_E_TOO_LARGE;
}

enum http1_outcome http1_feed(struct http1 *p, const void *data, size_t size, size_t *used)
{
	llhttp_errno_t e;

	*used = 0;
	if (p->outcome != HTTP1_OK || size == 0)
		return p->outcome;
	p->begun = true;
	p->progress = false;
	e = llhttp_execute(&p->parser, data, size);
	if (e == HPE_OK) {
		*used = size;
		return http1_check_progress(p, size);
	}
	*used = (size_t)(llhttp_get_error_pos(&p->parser) - (const char *)data);
	if (p->outcome == HTTP1_COMPLETE)
		return http1_completed(p);
	if (p->outcome == HTTP1_OK)
		http1_refuse(p, HTTP1_E_MALFORMED, llhttp_get_error_reason(&p->parser));
	return p->outcome;
}

enum http1_outcome http1_feed_eof(struct http1 *p)
{
	if (p->outcome != HTTP1_OK)
		return p->outcome;
	llhttp_finish(&p->parser);
	if (p->outcome == HTTP1_COMPLETE) {
		p->keep_alive = false;
		return http1_completed(p);
	}
	http1_refuse(p, HTTP1_E_MALFORMED, "the peer closed before the response was complete");
	return p->outcome;
}

const char *http1_error(const struct http1 *p)
{
	return p->error ? p->error : "no error";
}

bool http1_has_begun(const struct http1 *p)
{
	return p->begun;
}

unsigned http1_status(const struct http1 *p)
{
	return p->parser.status_code;
}

/* The field at *at; false: there is none. */
static bool http1_next_field(const struct http1 *p, size_t *at, struct str *name, struct str *value)
{
	struct str all = buffer_str(&p->fields);

	if (*at >= all.length)
		return false;
	*name = str_of(all.data + *at);
	*at += name->length + 1;
	if (*at >= all.length)
		return false;
	*value = str_of(all.data + *at);
	*at += value->length + 1;
	*value = http1_trim(*value);
	return true;
}

/* The next header of that name from *at on; data NULL: there is none. */
static struct str http1_next_header(const struct http1 *p, const char *name, size_t *at)
{
	struct str found, value;

	while (http1_next_field(p, at, &found, &value))
		if (strcasecmp(found.data, name) == 0)
			return value;
	return STR_NULL;
}

void http1_each_header(const struct http1 *p,
	void (*fn)(void *context, struct str name, struct str value), void *context)
{
	struct str name, value;
	size_t at = 0;

	while (http1_next_field(p, &at, &name, &value))
		fn(context, name, value);
}

struct str http1_header(const struct http1 *p, const char *name)
{
	size_t at = 0;

	return http1_next_header(p, name, &at);
}

bool http1_header_is_only(const struct http1 *p, const char *name, const char *value)
{
	struct str found;
	size_t at = 0;

	while ((found = http1_next_header(p, name, &at)).data)
		if (found.length != strlen(value) ||
			strncasecmp(found.data, value, found.length) != 0)
			return false;
	return true;
}
