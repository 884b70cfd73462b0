#pragma once

/*
 * The arrival log, JSON lines: what reached the provider and how each request ended. One
 * write(2) per line, so that the log is complete whenever the process is killed.
 *   {"event":"arrival","n":1,"ns":...,"conn":1,"reused":false,"tls":true,"path":"/v1/messages",
 *    "model":"...","stream":true,"key_sha":"1a2b3c4d","user_agent":"...","body_bytes":93}
 *   {"event":"end","n":1,"ns":...,"outcome":"complete","status":200,"bytes":1234,
 *    "input_tokens":17,"output_tokens":8}
 * ns is CLOCK_BOOTTIME; key_sha the first 8 hex digits of the API key's SHA-256 ("" without one);
 * bytes counts the body as delivered to the kernel. Outcomes: complete, aborted_by_client, cut,
 * limited, error. The tokens are what the provider charges for: 0 for a refusal, and of output
 * what had been made. With bodies, an arrival also has "body", the request's object or null.
 */

#include "tests/fakeprovider/request.h"

struct arrival_log {
	int fd; /* -1: no log, no cost */
	bool bodies;
	struct buffer line;
};

struct arrival_where {
	uint64_t n, now_ns, connection;
	bool reused, tls;
};

/* Opens for appending; 0 or -errno. */
int arrival_open(struct arrival_log *log, const char *path, bool bodies);
void arrival_close(struct arrival_log *log);

void arrival_begin(struct arrival_log *log, const struct arrival_where *w, const struct request *r);
struct arrival_result {
	const char *outcome;
	int status;
	uint64_t bytes, input_tokens, output_tokens;
};

void arrival_end(
	struct arrival_log *log, uint64_t n, uint64_t now_ns, const struct arrival_result *result);
