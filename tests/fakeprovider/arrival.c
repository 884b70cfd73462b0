#include "tests/fakeprovider/arrival.h"

#include "tests/fakeprovider/put.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <unistd.h>

int arrival_open(struct arrival_log *log, const char *path, bool bodies)
{
	*log = (struct arrival_log){ .fd = -1, .bodies = bodies };
	if (!path)
		return 0;
	log->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	return log->fd < 0 ? -errno : 0;
}

void arrival_close(struct arrival_log *log)
{
	if (log->fd >= 0)
		close(log->fd);
	log->fd = -1;
	buffer_deinit(&log->line);
}

/* A log that cannot be written makes the oracle wrong, so that ends the process. */
static void write_line(struct arrival_log *log)
{
	put_const(&log->line, "}\n");
	if (write(log->fd, buffer_head(&log->line), buffer_length(&log->line)) !=
		(ssize_t)buffer_length(&log->line)) {
		perror("fakeprovider: cannot write the arrival log");
		exit(1);
	}
	buffer_reset(&log->line, 65536);
}

static void put_key_sha(struct buffer *b, struct str key)
{
	unsigned char digest[SHA256_DIGEST_LENGTH];

	if (!key.length)
		return;
	SHA256((const unsigned char *)key.data, key.length, digest);
	for (int i = 0; i < 4; i++)
		put_printf(b, "%02x", digest[i]);
}

static void put_field(struct buffer *b, const char *name, struct str value)
{
	put_printf(b, ",\"%s\":\"", name);
	put_json(b, value);
	put_const(b, "\"");
}

static void put_body(struct buffer *b, const struct request *r)
{
	char *text = r->doc ? yyjson_write(r->doc, 0, NULL) : NULL;

	put_const(b, ",\"body\":");
	put_text(b, text ? text : "null");
	free(text);
}

void arrival_begin(struct arrival_log *log, const struct arrival_where *w, const struct request *r)
{
	struct buffer *b = &log->line;

	if (log->fd < 0)
		return;
	put_printf(b,
		"{\"event\":\"arrival\",\"n\":%" PRIu64 ",\"ns\":%" PRIu64 ",\"conn\":%" PRIu64
		",\"reused\":%s,\"tls\":%s",
		w->n, w->now_ns, w->connection, w->reused ? "true" : "false",
		w->tls ? "true" : "false");
	put_field(b, "path", request_path(r));
	put_field(b, "model", r->model);
	put_printf(b, ",\"stream\":%s,\"key_sha\":\"", r->stream ? "true" : "false");
	put_key_sha(b, request_key(r));
	put_const(b, "\"");
	put_field(b, "user_agent", str_of(r->user_agent.text));
	put_printf(b, ",\"body_bytes\":%zu", buffer_length(&r->body));
	if (log->bodies)
		put_body(b, r);
	write_line(log);
}

void arrival_end(
	struct arrival_log *log, uint64_t n, uint64_t now_ns, const struct arrival_result *result)
{
	if (log->fd < 0)
		return;
	put_printf(&log->line,
		"{\"event\":\"end\",\"n\":%" PRIu64 ",\"ns\":%" PRIu64
		",\"outcome\":\"%s\",\"status\":%d,\"bytes\":%" PRIu64 ",\"input_tokens\":%" PRIu64
		",\"output_tokens\":%" PRIu64,
		n, now_ns, result->outcome, result->status, result->bytes, result->input_tokens,
		result->output_tokens);
	write_line(log);
}
