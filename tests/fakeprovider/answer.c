#include "tests/fakeprovider/answer.h"

#include "tests/fakeprovider/put.h"
#include <inttypes.h>
#include <string.h>

const char *const tool_fragments[TOOL_FRAGMENTS] = { "{\\\"loc", "ation\\\":\\\"Par",
	"is\\\",\\\"unit\\\":", "\\\"celsius\\\"}" };

/* Bytes no text may hold, put inside one: they break JSON, UTF-8, or a C string. */
static const struct str malformed_texts[] = {
	[MALFORMED_JSON] = { "\" oops {", 8 },
	[MALFORMED_UTF8] = { " \xff\xfe\xc3(", 5 },
	[MALFORMED_NUL] = { " a\0b", 4 },
	[MALFORMED_SSE] = { " lost", 5 },
};

void answer_init(struct answer *a)
{
	memset(a, 0, sizeof(*a));
}

void answer_deinit(struct answer *a)
{
	text_deinit(&a->text);
	reply_deinit(&a->reply);
	buffer_deinit(&a->prefix);
	buffer_deinit(&a->event);
	buffer_deinit(&a->piece);
	buffer_deinit(&a->whole);
}

struct str answer_newline(const struct answer *a)
{
	return a->script.crlf ? str_make("\r\n", 2) : str_make("\n", 1);
}

int64_t answer_text_chunks(const struct answer *a)
{
	return a->text.chunks;
}

static void begin(struct answer *a, const struct family *family, bool keep_alive, int status)
{
	a->family = family;
	a->step = STEP_FIRST;
	a->streamed = a->started = a->malformed_done = a->half_sent = a->limited = false;
	a->has_verdict = a->tell_usage = false;
	a->keep_alive = keep_alive;
	a->status = status;
	a->content_type = "application/json";
	a->position = a->pieces = 0;
	a->head_bytes = 0;
	a->whole.begin = a->whole.end = 0;
}

void answer_begin_json(struct answer *a, bool keep_alive, int status, struct str body)
{
	begin(a, NULL, keep_alive, status);
	script_init(&a->script);
	put_str(&a->whole, body);
}

static void begin_context(struct answer *a, const struct answer_context *context)
{
	a->script = *context->script;
	a->n = context->n;
	a->created_s = context->created_s;
	a->has_verdict = context->verdict != NULL;
	if (context->verdict)
		a->verdict = *context->verdict;
}

static struct fault scripted_fault(const struct answer *a, int status)
{
	const struct script *s = &a->script;
	struct fault f = a->family->fault(status);

	f.type = s->error_type[0] ? s->error_type : f.type;
	f.code = s->error_code[0] ? s->error_code : f.code;
	f.message = s->error_message[0] ? s->error_message : f.message;
	return f;
}

void answer_begin_error(struct answer *a, const struct family *family, bool keep_alive,
	const struct answer_context *context, int status, const struct fault *fault)
{
	struct fault f;

	begin(a, family, keep_alive, status);
	begin_context(a, context);
	f = scripted_fault(a, status);
	if (fault) {
		f.type = fault->type ? fault->type : f.type;
		f.code = fault->code ? fault->code : f.code;
		f.message = fault->message ? fault->message : f.message;
	}
	family->error(a, &a->whole, &f);
}

static void damage_whole(struct answer *a)
{
	struct str first = str_of("<html><body>502 Bad Gateway</body></html>");

	if (a->script.malformed == MALFORMED_JSON && buffer_length(&a->whole) > 12)
		a->whole.end -= 12;
	if (a->script.malformed != MALFORMED_SSE)
		return;
	a->whole.begin = a->whole.end = 0;
	put_str(&a->whole, first);
}

/* A body that is no stream, with its faults. */
static void render_whole(struct answer *a)
{
	const struct script *s = &a->script;

	if (a->status >= 300 || s->inband_error >= 0) {
		struct fault f = scripted_fault(a, a->status >= 300 ? a->status : 500);

		a->family->error(a, &a->whole, &f);
		return;
	}
	a->family->whole(a, &a->whole);
	if (s->malformed)
		damage_whole(a);
}

void answer_begin(struct answer *a, const struct family *family, const struct request *request,
	const struct answer_context *context)
{
	const struct script *s = context->script;
	int status = s->redirect[0] ? 307 : s->status ? (int)s->status : 200;

	begin(a, family, request->keep_alive, status);
	begin_context(a, context);
	a->model = request->model;
	a->tool = request->tool.length ? request->tool : str_of("get_weather");
	a->input_tokens = s->input_tokens >= 0 ? (uint64_t)s->input_tokens :
						 1 + buffer_length(&request->body) / 4;
	a->streamed = request->stream && status < 300;
	a->tell_usage = s->usage == SCRIPT_ABSENT ?
		!a->streamed || request->include_usage || family->needs_version :
		s->usage != USAGE_NEVER;
	text_plan(&a->text, s, request->prompt);
	a->pieces = s->reasoning + a->text.chunks + s->tools * TOOL_FRAGMENTS;
	if (a->streamed)
		a->content_type = "text/event-stream; charset=utf-8";
	else
		render_whole(a);
}

/* Reasoning is the canned text again, without the lead. */
static void put_reasoning(struct buffer *b, int64_t index)
{
	static const char *const words[] = { "The", " user", " asks;", " let", " me", " weigh",
		" what", " matters:" };

	put_text(b, words[(size_t)index % ARRAY_SIZE(words)]);
}

void answer_put_texts(struct answer *a, struct buffer *b, enum piece_kind kind)
{
	const struct script *s = &a->script;

	if (kind == PIECE_REASONING) {
		for (int64_t i = 0; i < s->reasoning; i++)
			put_reasoning(b, i);
		return;
	}
	text_rewind(&a->text, s);
	for (int64_t i = 0; i < a->text.chunks; i++) {
		text_next(&a->text, b);
		if (i == 0 && (s->malformed == MALFORMED_UTF8 || s->malformed == MALFORMED_NUL))
			put_str(b, malformed_texts[s->malformed]);
	}
}

static struct piece piece_at(const struct answer *a, int64_t at)
{
	int64_t reasoning = a->script.reasoning, texts = a->text.chunks;
	struct piece p = { .kind = PIECE_REASONING, .first = at == 0, .last = at == reasoning - 1 };

	if (at < reasoning)
		return p;
	at -= reasoning;
	p = (struct piece){ .kind = PIECE_TEXT, .block = reasoning > 0 };
	p.first = at == 0;
	p.last = at == texts - 1;
	if (at < texts)
		return p;
	at -= texts;
	p.kind = PIECE_TOOL;
	p.tool = at / TOOL_FRAGMENTS;
	p.fragment = at % TOOL_FRAGMENTS;
	p.block += (texts > 0) + p.tool;
	p.first = p.fragment == 0;
	p.last = p.fragment == TOOL_FRAGMENTS - 1;
	return p;
}

static void send_event(struct answer *a)
{
	reply_body(&a->reply, buffer_str(&a->event));
	a->event.begin = a->event.end = 0;
}

static void send_inband_error(struct answer *a)
{
	struct fault f = scripted_fault(a, 529);
	struct str nl = answer_newline(a);

	if (a->family->error_event) {
		put_text(&a->event, a->family->error_event);
		put_str(&a->event, nl);
	}
	put_const(&a->event, "data: ");
	a->family->error(a, &a->event, &f);
	put_str(&a->event, nl);
	put_str(&a->event, nl);
	send_event(a);
}

/* The bad event stands where a text chunk could; "sse" lacks the blank line that ends it. */
static void send_malformed(struct answer *a)
{
	struct piece p = piece_at(a, a->position - 1);

	p.kind = PIECE_TEXT;
	p.first = p.last = false;
	a->family->piece(a, &a->event, &p, malformed_texts[a->script.malformed]);
	if (a->script.malformed == MALFORMED_SSE)
		a->event.end -= answer_newline(a).length;
	a->malformed_done = true;
	send_event(a);
}

static void send_piece(struct answer *a)
{
	struct piece p = piece_at(a, a->position);
	struct buffer *text = &a->piece;

	text->begin = text->end = 0;
	for (int64_t i = 0; i < a->script.comments; i++) {
		put_const(&a->event, ": PROCESSING");
		put_str(&a->event, answer_newline(a));
		put_str(&a->event, answer_newline(a));
	}
	if (p.kind == PIECE_REASONING)
		put_reasoning(text, a->position);
	else if (p.kind == PIECE_TEXT)
		text_next(&a->text, text);
	else
		put_text(text, tool_fragments[p.fragment]);
	a->position++;
	a->family->piece(a, &a->event, &p, buffer_str(text));
	send_event(a);
}

/* The next event of a stream; STALL, or MORE, or WAIT when a pause follows. */
static enum answer_verdict stream_next(struct answer *a)
{
	const struct script *s = &a->script;

	if (s->stall_after == a->position)
		return ANSWER_STALL;
	if (s->inband_error == a->position) {
		send_inband_error(a);
		a->step = STEP_TAIL;
		return ANSWER_MORE;
	}
	if (!a->started) {
		a->started = true;
		a->family->start(a, &a->event);
		send_event(a);
		return ANSWER_MORE;
	}
	if (s->malformed && a->position == 1 && !a->malformed_done) {
		send_malformed(a);
		return ANSWER_MORE;
	}
	if (a->position < a->pieces) {
		send_piece(a);
		return a->position < a->pieces && s->delay_ms ? ANSWER_WAIT : ANSWER_MORE;
	}
	if (!s->no_terminal) {
		a->family->finish(a, &a->event);
		send_event(a);
	}
	a->step = STEP_TAIL;
	return ANSWER_MORE;
}

/* The length of the whole stream's body, by producing it once into nothing. */
static uint64_t measure_stream(struct answer *a)
{
	struct buffer scratch = BUFFER_NULL;
	enum answer_verdict v = ANSWER_MORE;
	uint64_t n;

	reply_begin(&a->reply, &scratch, FRAMING_CLOSE, a->script.gzip, SCRIPT_ABSENT);
	a->step = STEP_BODY;
	while (a->step == STEP_BODY && v != ANSWER_STALL)
		v = stream_next(a);
	reply_end(&a->reply, NULL);
	n = a->reply.body_bytes;
	buffer_deinit(&scratch);
	text_rewind(&a->text, &a->script);
	a->position = 0;
	a->started = a->malformed_done = false;
	return n;
}

static uint64_t measure(struct answer *a)
{
	size_t blocks;

	if (a->streamed)
		return measure_stream(a);
	blocks = (buffer_length(&a->whole) + 65534) / 65535;
	return buffer_length(&a->whole) + (a->script.gzip ? 10 + 5 * (blocks + 1) + 8 : 0);
}

static enum reply_framing choose_framing(const struct answer *a)
{
	const struct script *s = &a->script;

	if (s->length == LENGTH_NONE)
		return FRAMING_CLOSE;
	if (s->length != LENGTH_RIGHT)
		return FRAMING_LENGTH;
	return a->streamed || s->chunked_trailers ? FRAMING_CHUNKED : FRAMING_LENGTH;
}

static const char *reason(int status)
{
	switch (status) {
	case 200:
		return "OK";
	case 204:
		return "No Content";
	case 307:
		return "Temporary Redirect";
	case 400:
		return "Bad Request";
	case 401:
		return "Unauthorized";
	case 403:
		return "Forbidden";
	case 404:
		return "Not Found";
	case 405:
		return "Method Not Allowed";
	case 413:
		return "Content Too Large";
	case 429:
		return "Too Many Requests";
	case 500:
		return "Internal Server Error";
	case 502:
		return "Bad Gateway";
	case 503:
		return "Service Unavailable";
	case 529:
		return "Overloaded";
	default:
		return "Scripted";
	}
}

static bool has_body(const struct answer *a)
{
	return a->status != 204 && a->status != 304;
}

static void put_framing(struct answer *a, struct buffer *out, enum reply_framing framing)
{
	uint64_t length;

	if (!has_body(a) || framing == FRAMING_CLOSE)
		return;
	if (framing == FRAMING_CHUNKED) {
		put_const(out, "transfer-encoding: chunked\r\n");
		if (a->script.chunked_trailers)
			put_const(out, "trailer: x-fake-trailer\r\n");
		return;
	}
	length = measure(a);
	if (a->script.length == LENGTH_SHORT)
		length = length > 7 ? length - 7 : 0;
	if (a->script.length == LENGTH_LONG)
		length += 7;
	put_const(out, "content-length: ");
	put_number(out, length);
	put_const(out, "\r\n");
}

/* NAME: VALUE|NAME: VALUE */
static void put_more_headers(struct buffer *out, const char *text)
{
	while (*text) {
		size_t n = strcspn(text, "|");

		put(out, text, n);
		put_const(out, "\r\n");
		text += n + (text[n] == '|');
	}
}

static void put_scripted_headers(struct answer *a, struct buffer *out)
{
	const struct script *s = &a->script;

	if (s->retry_after[0])
		put_printf(out, "retry-after: %s\r\n", s->retry_after);
	if (s->retry_after_ms[0])
		put_printf(out, "retry-after-ms: %s\r\n", s->retry_after_ms);
	put_more_headers(out, s->headers);
	if (s->redirect[0])
		put_printf(out, "location: %s\r\n", s->redirect);
	if (s->gzip)
		put_const(out, "content-encoding: gzip\r\n");
	if (s->http_close || s->length == LENGTH_NONE || !a->keep_alive)
		put_const(out, "connection: close\r\n");
}

static void put_head(struct answer *a, struct buffer *out)
{
	enum reply_framing framing = choose_framing(a);
	size_t before = buffer_length(out);

	for (int64_t i = 0; i < a->script.continue100; i++)
		put_text(out,
			i % 2 ? "HTTP/1.1 103 Early Hints\r\nlink: </hint>\r\n\r\n" :
				"HTTP/1.1 100 Continue\r\n\r\n");
	put_const(out, "HTTP/1.1 ");
	put_number(out, (uint64_t)a->status);
	put_const(out, " ");
	put_text(out, reason(a->status));
	put_const(out, "\r\ncontent-type: ");
	put_text(out, a->content_type);
	put_const(out, "\r\n");
	put_framing(a, out, framing);
	if (a->family)
		a->family->headers(a, out);
	put_scripted_headers(a, out);
	put_const(out, "\r\n");
	a->head_bytes = buffer_length(out) - before;
	reply_begin(&a->reply, out, framing, a->script.gzip, a->script.cut_bytes);
	/* Without a first byte to stop at, put_framed() could not cut at 0. */
	a->reply.cut = a->script.cut_bytes == 0;
}

/* stall_after=0 sends nothing of the body, any other number its first half. */
static enum answer_verdict whole_next(struct answer *a)
{
	struct str body = buffer_str(&a->whole);

	if (a->script.stall_after == 0 || a->half_sent)
		return ANSWER_STALL;
	if (a->script.stall_after > 0) {
		body.length /= 2;
		a->half_sent = true;
	} else {
		a->step = STEP_TAIL;
	}
	reply_body(&a->reply, body);
	return ANSWER_MORE;
}

static enum answer_verdict tail_next(struct answer *a, struct buffer *out)
{
	reply_end(&a->reply, a->script.chunked_trailers ? "x-fake-trailer: done\r\n" : NULL);
	if (a->reply.cut)
		return ANSWER_CUT;
	if (a->script.junk_after)
		put_const(out, "HTTP/1.1 junk nobody asked for\r\n\r\n");
	a->step = STEP_OVER;
	return ANSWER_END;
}

static enum answer_verdict pause_for(int64_t ms, uint64_t *wait_ns)
{
	*wait_ns = (uint64_t)ms * NSEC_PER_MSEC;
	return ms ? ANSWER_WAIT : ANSWER_MORE;
}

enum answer_verdict answer_next(struct answer *a, struct buffer *out, uint64_t *wait_ns)
{
	enum answer_verdict v;

	a->head_bytes = 0;
	*wait_ns = (uint64_t)a->script.delay_ms * NSEC_PER_MSEC;
	switch (a->step) {
	case STEP_FIRST:
		a->step = STEP_HEAD;
		return pause_for(a->script.first_ms, wait_ns);
	case STEP_HEAD:
		put_head(a, out);
		a->step = has_body(a) ? STEP_BODY : STEP_OVER;
		return pause_for(a->script.ttft_ms, wait_ns);
	case STEP_BODY:
		if (a->reply.cut)
			return ANSWER_CUT;
		v = a->streamed ? stream_next(a) : whole_next(a);
		return a->reply.cut ? ANSWER_CUT : v;
	case STEP_TAIL:
		return tail_next(a, out);
	default:
		return ANSWER_END;
	}
}

uint64_t answer_input_tokens(const struct answer *a)
{
	return a->family && a->status / 100 == 2 ? a->input_tokens : 0;
}

/* The script's number is of the whole answer: of a part that ends early, its share. */
uint64_t answer_output_tokens(const struct answer *a)
{
	uint64_t whole = (uint64_t)a->script.output_tokens;

	if (!a->family || a->status / 100 != 2)
		return 0;
	if (a->script.output_tokens < 0)
		return (uint64_t)a->position;
	return a->pieces ? whole * (uint64_t)a->position / (uint64_t)a->pieces : whole;
}

bool answer_closes(const struct answer *a)
{
	const struct script *s = &a->script;

	return s->http_close || !a->keep_alive || s->length == LENGTH_NONE ||
		s->length == LENGTH_LONG || s->stale || s->tls_close;
}
