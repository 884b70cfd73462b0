/* Anthropic's Messages: message objects and the events message_start ... message_stop. */

#include "tests/fakeprovider/answer.h"
#include "tests/fakeprovider/put.h"
#include <inttypes.h>
#include <string.h>
#include <time.h>

static struct fault fault(int status)
{
	static const struct {
		int status;
		struct fault fault;
	} known[] = {
		{ 400, { "invalid_request_error", NULL, "The request is not valid." } },
		{ 401, { "authentication_error", NULL, "invalid x-api-key" } },
		{ 403, { "permission_error", NULL, "Your API key may not use this resource." } },
		{ 404, { "not_found_error", NULL, "The requested resource was not found." } },
		{ 413, { "request_too_large", NULL, "Request exceeds the maximum size." } },
		{ 429,
			{ "rate_limit_error", NULL,
				"This request would exceed your rate limit of requests." } },
		{ 504, { "timeout_error", NULL, "Request timed out." } },
		{ 529, { "overloaded_error", NULL, "Overloaded" } },
	};

	for (size_t i = 0; i < ARRAY_SIZE(known); i++)
		if (known[i].status == status)
			return known[i].fault;
	if (status >= 500)
		return (struct fault){ "api_error", NULL, "Internal server error" };
	return known[0].fault;
}

static void headers(const struct answer *a, struct buffer *b)
{
	const struct limiter_verdict *v = &a->verdict;
	struct tm t = { 0 };
	time_t reset;
	char text[32];

	put_const(b, "request-id: req_fake");
	put_number(b, a->n);
	put_const(b, "\r\n");
	if (!a->has_verdict)
		return;
	reset = (time_t)(a->created_s + (v->reset_ns + NSEC_PER_SEC - 1) / NSEC_PER_SEC);
	gmtime_r(&reset, &t);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &t);
	put_printf(b,
		"anthropic-ratelimit-requests-limit: %" PRIu64 "\r\n"
		"anthropic-ratelimit-requests-remaining: %" PRIu64 "\r\n"
		"anthropic-ratelimit-requests-reset: %s\r\n",
		v->limit, v->remaining, text);
	if (!v->admitted)
		put_printf(b, "retry-after: %" PRIu64 "\r\n",
			(v->wait_ns + NSEC_PER_SEC - 1) / NSEC_PER_SEC);
}

static void begin_event(struct buffer *b, const struct answer *a, const char *type)
{
	put_const(b, "event: ");
	put_text(b, type);
	put_str(b, answer_newline(a));
	put_const(b, "data: {\"type\":\"");
	put_text(b, type);
	put_const(b, "\"");
}

static void end_event(struct buffer *b, const struct answer *a)
{
	put_const(b, "}");
	put_str(b, answer_newline(a));
	put_str(b, answer_newline(a));
}

static void put_identity(const struct answer *a, struct buffer *b)
{
	put_const(b, "\"id\":\"msg_fake");
	put_number(b, a->n);
	put_const(b, "\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"");
	put_json(b, a->model);
	put_const(b, "\"");
}

static void put_usage(const struct answer *a, struct buffer *b, uint64_t out)
{
	put_const(b, ",\"usage\":{\"input_tokens\":");
	put_number(b, a->input_tokens);
	put_const(b,
		",\"cache_creation_input_tokens\":0,\"cache_read_input_tokens\":0,"
		"\"output_tokens\":");
	put_number(b, out);
	put_const(b, "}");
}

/* The part of a text delta that never changes within a stream. */
static void render_prefix(struct answer *a)
{
	a->prefix.begin = a->prefix.end = 0;
	begin_event(&a->prefix, a, "content_block_delta");
	put_const(&a->prefix, ",\"index\":");
}

static void start(struct answer *a, struct buffer *b)
{
	render_prefix(a);
	begin_event(b, a, "message_start");
	put_const(b, ",\"message\":{");
	put_identity(a, b);
	put_const(b, ",\"content\":[],\"stop_reason\":null,\"stop_sequence\":null");
	if (a->tell_usage)
		put_usage(a, b, 1);
	put_const(b, "}");
	end_event(b, a);
	begin_event(b, a, "ping");
	end_event(b, a);
}

static void put_tool_head(const struct answer *a, struct buffer *b, int64_t tool)
{
	put_printf(b,
		"{\"type\":\"tool_use\",\"id\":\"toolu_fake%" PRIu64 "_%" PRId64 "\",\"name\":\"",
		a->n, tool);
	put_json(b, a->tool);
	put_const(b, "\",\"input\":");
}

static void start_block(const struct answer *a, struct buffer *b, const struct piece *p)
{
	begin_event(b, a, "content_block_start");
	put_const(b, ",\"index\":");
	put_number(b, (uint64_t)p->block);
	put_const(b, ",\"content_block\":");
	if (p->kind == PIECE_TEXT) {
		put_const(b, "{\"type\":\"text\",\"text\":\"\"}");
	} else if (p->kind == PIECE_REASONING) {
		put_const(b, "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}");
	} else {
		put_tool_head(a, b, p->tool);
		put_const(b, "{}}");
	}
	end_event(b, a);
}

static void begin_delta(const struct answer *a, struct buffer *b, const struct piece *p)
{
	put_str(b, buffer_str(&a->prefix));
	put_number(b, (uint64_t)p->block);
	put_const(b, ",\"delta\":{\"type\":\"");
}

static void end_block(const struct answer *a, struct buffer *b, const struct piece *p)
{
	if (p->kind == PIECE_REASONING) {
		begin_delta(a, b, p);
		put_const(b, "signature_delta\",\"signature\":\"ZmFrZQ==\"}");
		end_event(b, a);
	}
	begin_event(b, a, "content_block_stop");
	put_const(b, ",\"index\":");
	put_number(b, (uint64_t)p->block);
	end_event(b, a);
}

static void piece(struct answer *a, struct buffer *b, const struct piece *p, struct str text)
{
	if (p->first)
		start_block(a, b, p);
	begin_delta(a, b, p);
	if (p->kind == PIECE_TEXT)
		put_const(b, "text_delta\",\"text\":\"");
	else if (p->kind == PIECE_REASONING)
		put_const(b, "thinking_delta\",\"thinking\":\"");
	else
		put_const(b, "input_json_delta\",\"partial_json\":\"");
	put_str(b, text);
	put_const(b, "\"}");
	end_event(b, a);
	if (p->last)
		end_block(a, b, p);
}

/* The script speaks OpenAI's names. */
static const char *stop_reason(const struct answer *a)
{
	const char *f = a->script.finish;

	if (!f[0])
		return a->script.tools ? "tool_use" : "end_turn";
	if (strcmp(f, "stop") == 0)
		return "end_turn";
	if (strcmp(f, "length") == 0)
		return "max_tokens";
	return strcmp(f, "tool_calls") == 0 ? "tool_use" : f;
}

static void put_stop(const struct answer *a, struct buffer *b)
{
	put_const(b, "\"stop_reason\":\"");
	put_json(b, str_of(stop_reason(a)));
	put_const(b, "\",\"stop_sequence\":null");
}

static void finish(struct answer *a, struct buffer *b)
{
	begin_event(b, a, "message_delta");
	put_const(b, ",\"delta\":{");
	put_stop(a, b);
	put_const(b, "}");
	if (a->tell_usage)
		put_usage(a, b, answer_output_tokens(a));
	end_event(b, a);
	begin_event(b, a, "message_stop");
	end_event(b, a);
}

static void put_content(struct answer *a, struct buffer *b)
{
	const char *comma = "";

	if (a->script.reasoning) {
		put_const(b, "{\"type\":\"thinking\",\"thinking\":\"");
		answer_put_texts(a, b, PIECE_REASONING);
		put_const(b, "\",\"signature\":\"ZmFrZQ==\"}");
		comma = ",";
	}
	if (answer_text_chunks(a)) {
		put_text(b, comma);
		put_const(b, "{\"type\":\"text\",\"text\":\"");
		answer_put_texts(a, b, PIECE_TEXT);
		put_const(b, "\"}");
		comma = ",";
	}
	for (int64_t i = 0; i < a->script.tools; i++) {
		put_text(b, comma);
		put_tool_head(a, b, i);
		put_const(b, "{\"location\":\"Paris\",\"unit\":\"celsius\"}}");
		comma = ",";
	}
}

static void whole(struct answer *a, struct buffer *b)
{
	put_const(b, "{");
	put_identity(a, b);
	put_const(b, ",\"content\":[");
	put_content(a, b);
	put_const(b, "],");
	if (a->script.no_terminal)
		put_const(b, "\"stop_reason\":null,\"stop_sequence\":null");
	else
		put_stop(a, b);
	a->position = a->pieces;
	if (a->tell_usage)
		put_usage(a, b, answer_output_tokens(a));
	put_const(b, "}");
}

static void error(const struct answer *a, struct buffer *b, const struct fault *f)
{
	put_const(b, "{\"type\":\"error\",\"error\":{\"type\":\"");
	put_json(b, str_of(f->type));
	put_const(b, "\",\"message\":\"");
	put_json(b, str_of(f->message));
	put_const(b, "\"},\"request_id\":\"req_fake");
	put_number(b, a->n);
	put_const(b, "\"}");
}

const struct family family_anthropic = {
	.needs_version = true,
	.needs_max_tokens = true,
	.error_event = "event: error",
	.fault = fault,
	.headers = headers,
	.start = start,
	.piece = piece,
	.finish = finish,
	.whole = whole,
	.error = error,
};
