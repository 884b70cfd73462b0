#pragma once

/*
 * One HTTP request as it is read: llhttp finds its parts, yyjson the fields of the body that
 * matter. request_feed() stops at the end of one request, so that a pipelined next one stays
 * with the caller.
 */

#include "base/buffer.h"
#include "base/str.h"
#include <llhttp.h>
#include <yyjson.h>

#define REQUEST_BODY_MAX (64U * 1024 * 1024)

enum request_feed_result { REQUEST_MORE, REQUEST_DONE, REQUEST_BAD };

/* A header's value, NUL-terminated; too long is cut and told. */
struct request_value {
	size_t length;
	char text[1024];
};

struct request {
	llhttp_t parser;
	struct buffer body;
	char path[512], field[32];
	size_t path_length, field_length;
	struct request_value *target; /* of the header value being read, or NULL */
	struct request_value authorization, x_api_key, user_agent, x_fake, version, expect;
	bool headers_done, done, keep_alive, too_large;
	/* From the body; views into doc. */
	yyjson_doc *doc;
	struct str model, prompt, tool;
	bool stream, include_usage, has_max_tokens;
};

void request_init(struct request *r);
void request_deinit(struct request *r);

/* Ready for the next request on the connection; keeps memory. */
void request_reset(struct request *r);

/* Reads from bytes; *used says how many belong to this request. */
enum request_feed_result request_feed(struct request *r, struct str bytes, size_t *used);

/* Reads the body as JSON into the fields above; doc stays NULL when it is no object. */
void request_read_body(struct request *r);

/* Whether the client waits for "100 Continue" before it sends the body. */
bool request_wants_continue(const struct request *r);

/* Path without the query. */
struct str request_path(const struct request *r);

/* The API key: x-api-key, else the Bearer token; empty when there is none. */
struct str request_key(const struct request *r);
