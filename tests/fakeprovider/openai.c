/* OpenAI's chat completions: chat.completion and chat.completion.chunk objects. */

#include "tests/fakeprovider/answer.h"
#include "tests/fakeprovider/put.h"
#include <inttypes.h>

static struct fault fault(int status)
{
	switch (status) {
	case 401:
		return (struct fault){ "invalid_request_error", "invalid_api_key",
			"Incorrect API key provided." };
	case 404:
		return (struct fault){ "invalid_request_error", "model_not_found",
			"The model does not exist or you do not have access to it." };
	case 429:
		return (struct fault){ "requests", "rate_limit_exceeded",
			"Rate limit reached for requests." };
	case 503:
	case 529:
		return (struct fault){ "server_error", "overloaded",
			"The engine is currently overloaded, please try again later." };
	default:
		break;
	}
	if (status >= 500)
		return (struct fault){ "server_error", NULL,
			"The server had an error while processing your request." };
	return (struct fault){ "invalid_request_error", NULL, "The request is not valid." };
}

/* As OpenAI writes spans: "17ms", "8.640s", "6m0.000s". */
static void put_span(struct buffer *b, uint64_t ns)
{
	uint64_t ms = (ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC;

	if (ms < 1000)
		put_printf(b, "%" PRIu64 "ms", ms);
	else if (ms < 60000)
		put_printf(b, "%" PRIu64 ".%03" PRIu64 "s", ms / 1000, ms % 1000);
	else
		put_printf(b, "%" PRIu64 "m%" PRIu64 ".%03" PRIu64 "s", ms / 60000, ms / 1000 % 60,
			ms % 1000);
}

static void headers(const struct answer *a, struct buffer *b)
{
	const struct limiter_verdict *v = &a->verdict;

	put_const(b, "x-request-id: req_fake");
	put_number(b, a->n);
	put_const(b, "\r\nopenai-processing-ms: 1\r\n");
	if (!a->has_verdict)
		return;
	put_printf(b, "x-ratelimit-limit-requests: %" PRIu64 "\r\n", v->limit);
	put_printf(b, "x-ratelimit-remaining-requests: %" PRIu64 "\r\n", v->remaining);
	put_const(b, "x-ratelimit-reset-requests: ");
	put_span(b, v->reset_ns);
	put_const(b, "\r\n");
	if (v->admitted)
		return;
	put_printf(b, "retry-after: %" PRIu64 "\r\nretry-after-ms: %" PRIu64 "\r\n",
		(v->wait_ns + NSEC_PER_SEC - 1) / NSEC_PER_SEC,
		(v->wait_ns + NSEC_PER_MSEC - 1) / NSEC_PER_MSEC);
}

static void put_identity(const struct answer *a, struct buffer *b, const char *object)
{
	put_const(b, "{\"id\":\"chatcmpl-fake");
	put_number(b, a->n);
	put_const(b, "\",\"object\":\"");
	put_text(b, object);
	put_const(b, "\",\"created\":");
	put_number(b, a->created_s);
	put_const(b, ",\"model\":\"");
	put_json(b, a->model);
	put_const(b, "\",\"system_fingerprint\":\"fp_fake\",\"choices\":[");
}

static void put_usage(const struct answer *a, struct buffer *b)
{
	uint64_t out = answer_output_tokens(a);
	uint64_t reasoning = min_u64(out, (uint64_t)a->script.reasoning);

	put_const(b, "{\"prompt_tokens\":");
	put_number(b, a->input_tokens);
	put_const(b, ",\"completion_tokens\":");
	put_number(b, out);
	put_const(b, ",\"total_tokens\":");
	put_number(b, a->input_tokens + out);
	put_const(b,
		",\"prompt_tokens_details\":{\"cached_tokens\":0},"
		"\"completion_tokens_details\":{\"reasoning_tokens\":");
	put_number(b, reasoning);
	put_const(b, "}}");
}

/* What every chunk of this stream begins with. */
static void render_prefix(struct answer *a)
{
	a->prefix.begin = a->prefix.end = 0;
	put_const(&a->prefix, "data: ");
	put_identity(a, &a->prefix, "chat.completion.chunk");
}

static void begin_chunk(const struct answer *a, struct buffer *b)
{
	put_str(b, buffer_str(&a->prefix));
	put_const(b, "{\"index\":0,\"delta\":{");
}

static void end_event(const struct answer *a, struct buffer *b)
{
	put_str(b, answer_newline(a));
	put_str(b, answer_newline(a));
}

/* finish is NULL, or the reason, which needs no escaping beyond what put_json does. */
static void end_chunk(const struct answer *a, struct buffer *b, const char *finish)
{
	put_const(b, "},\"logprobs\":null,\"finish_reason\":");
	if (finish) {
		put_const(b, "\"");
		put_json(b, str_of(finish));
		put_const(b, "\"}]");
	} else {
		put_const(b, "null}]");
	}
	if (a->script.usage == USAGE_EVERY) {
		put_const(b, ",\"usage\":");
		put_usage(a, b);
	} else if (a->tell_usage) {
		put_const(b, ",\"usage\":null");
	}
	put_const(b, "}");
	end_event(a, b);
}

static void start(struct answer *a, struct buffer *b)
{
	render_prefix(a);
	begin_chunk(a, b);
	put_const(b, "\"role\":\"assistant\",\"content\":\"\"");
	end_chunk(a, b, NULL);
}

static void put_call_head(const struct answer *a, struct buffer *b, int64_t index, bool streamed)
{
	put_const(b, "{");
	if (streamed)
		put_printf(b, "\"index\":%" PRId64 ",", index);
	put_printf(b,
		"\"id\":\"call_fake%" PRIu64 "_%" PRId64 "\",\"type\":\"function\","
		"\"function\":{\"name\":\"",
		a->n, index);
	put_json(b, a->tool);
	put_const(b, "\",\"arguments\":\"");
}

static void piece(struct answer *a, struct buffer *b, const struct piece *p, struct str text)
{
	if (p->kind == PIECE_TOOL && p->first) {
		begin_chunk(a, b);
		put_const(b, "\"tool_calls\":[");
		put_call_head(a, b, p->tool, true);
		put_const(b, "\"}}]");
		end_chunk(a, b, NULL);
	}
	begin_chunk(a, b);
	if (p->kind == PIECE_TOOL)
		put_printf(b,
			"\"tool_calls\":[{\"index\":%" PRId64 ",\"function\":{\"arguments\":\"",
			p->tool);
	else if (p->kind == PIECE_REASONING)
		put_const(b, "\"reasoning_content\":\"");
	else
		put_const(b, "\"content\":\"");
	put_str(b, text);
	put_text(b, p->kind == PIECE_TOOL ? "\"}}]" : "\"");
	end_chunk(a, b, NULL);
}

static const char *finish_reason(const struct answer *a)
{
	if (a->script.finish[0])
		return a->script.finish;
	return a->script.tools ? "tool_calls" : "stop";
}

static void finish(struct answer *a, struct buffer *b)
{
	begin_chunk(a, b);
	end_chunk(a, b, finish_reason(a));
	if (a->tell_usage && a->script.usage != USAGE_EVERY) {
		put_str(b, buffer_str(&a->prefix));
		put_const(b, "],\"usage\":");
		put_usage(a, b);
		put_const(b, "}");
		end_event(a, b);
	}
	put_const(b, "data: [DONE]");
	end_event(a, b);
}

static void put_whole_tools(const struct answer *a, struct buffer *b)
{
	put_const(b, ",\"tool_calls\":[");
	for (int64_t i = 0; i < a->script.tools; i++) {
		if (i)
			put_const(b, ",");
		put_call_head(a, b, i, false);
		for (int f = 0; f < TOOL_FRAGMENTS; f++)
			put_text(b, tool_fragments[f]);
		put_const(b, "\"}}");
	}
	put_const(b, "]");
}

static void put_message(struct answer *a, struct buffer *b)
{
	put_const(b, "{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":");
	if (answer_text_chunks(a)) {
		put_const(b, "\"");
		answer_put_texts(a, b, PIECE_TEXT);
		put_const(b, "\"");
	} else {
		put_const(b, "null");
	}
	if (a->script.reasoning) {
		put_const(b, ",\"reasoning_content\":\"");
		answer_put_texts(a, b, PIECE_REASONING);
		put_const(b, "\"");
	}
	if (a->script.tools)
		put_whole_tools(a, b);
	else
		put_const(b, ",\"refusal\":null");
	put_const(b, "},\"logprobs\":null,\"finish_reason\":");
}

static void whole(struct answer *a, struct buffer *b)
{
	put_identity(a, b, "chat.completion");
	put_message(a, b);
	if (a->script.no_terminal) {
		put_const(b, "null}]");
	} else {
		put_const(b, "\"");
		put_json(b, str_of(finish_reason(a)));
		put_const(b, "\"}]");
	}
	a->position = a->pieces;
	if (a->tell_usage) {
		put_const(b, ",\"usage\":");
		put_usage(a, b);
	}
	put_const(b, "}");
}

static void error(const struct answer *a, struct buffer *b, const struct fault *f)
{
	(void)a;
	put_const(b, "{\"error\":{\"message\":\"");
	put_json(b, str_of(f->message));
	put_const(b, "\",\"type\":\"");
	put_json(b, str_of(f->type));
	put_const(b, "\",\"param\":null,\"code\":");
	if (f->code) {
		put_const(b, "\"");
		put_json(b, str_of(f->code));
		put_const(b, "\"}}");
	} else {
		put_const(b, "null}}");
	}
}

const struct family family_openai = {
	.fault = fault,
	.headers = headers,
	.start = start,
	.piece = piece,
	.finish = finish,
	.whole = whole,
	.error = error,
};
