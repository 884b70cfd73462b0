/* OpenAI chat completions, and the large family that speaks them, with family.h's quirks. */

#include "daemon/formats/decoder.h"
#include "daemon/formats/formats.h"
#include "daemon/formats/request.h"
#include "daemon/formats/value.h"

/* More parallel tool calls than this are nonsense. */
#define TOOL_CALLS_MAX 1024

/* ---- request ---- */

static void put_stream_options(struct request *b, yyjson_val *given)
{
	yyjson_obj_iter at = { 0 };
	yyjson_val *key;

	request_next(b, "stream_options");
	request_raw(b, "{\"include_usage\":true");
	yyjson_obj_iter_init(given, &at);
	while (given && (key = yyjson_obj_iter_next(&at)))
		if (!value_is(key, "include_usage"))
			request_copy(b, key, yyjson_obj_iter_get_val(key));
	request_raw(b, "}");
}

/* Writes a member that does not go through as it is; false when it does. */
static bool put_changed(struct request *b, yyjson_val *key, yyjson_val *v)
{
	uint32_t quirks = b->q->family->quirks;

	if (value_is(key, "model")) {
		request_next(b, "model");
		request_string(b, b->q->model);
	} else if (value_is(key, "seed") && (quirks & FAMILY_SEED_IS_RANDOM_SEED)) {
		request_next(b, "random_seed");
		request_value(b, v);
	} else if (value_is(key, "stream_options") && (quirks & FAMILY_NO_STREAM_OPTIONS)) {
		return true;
	} else if (value_is(key, "stream_options") && b->plan->stream) {
		put_stream_options(b, yyjson_is_obj(v) ? v : NULL);
	} else {
		return false;
	}
	return true;
}

static int put_request(struct request *b)
{
	yyjson_obj_iter at = yyjson_obj_iter_with(b->root);
	yyjson_val *key;

	request_raw(b, "{");
	while ((key = yyjson_obj_iter_next(&at)))
		if (!put_changed(b, key, yyjson_obj_iter_get_val(key)))
			request_copy(b, key, yyjson_obj_iter_get_val(key));
	if (!yyjson_obj_get(b->root, "model")) {
		request_next(b, "model");
		request_string(b, b->q->model);
	}
	if (b->plan->stream && !yyjson_obj_get(b->root, "stream_options") &&
		!(b->q->family->quirks & FAMILY_NO_STREAM_OPTIONS))
		put_stream_options(b, NULL);
	request_raw(b, "}");
	return 0;
}

static int openai_build(const struct format_request *q, struct buffer *out,
	struct format_plan *plan, const char **why)
{
	aux_cleanup(request_deinit) struct request b;
	int r = request_init(&b, q, out, plan);

	if (r == 0)
		r = put_request(&b);
	return request_finish(&b, r, why);
}

/* ---- answer ---- */

/* Counts are cumulative where they come more than once: the last ones stand. */
static void read_usage(struct format_decoder *d, yyjson_val *v)
{
	struct msg_usage *u = &d->usage;

	value_get_count(v, "prompt_tokens", &u->input);
	value_get_count(v, "completion_tokens", &u->output);
	value_get_count(v, "prompt_cache_hit_tokens", &u->cached_input);
	value_get_count(value_get(v, "prompt_tokens_details"), "cached_tokens", &u->cached_input);
	value_get_count(
		value_get(v, "completion_tokens_details"), "reasoning_tokens", &u->reasoning);
}

/* An error inside a 200; v may be NULL when the provider gave no words. */
static enum status inside_error(struct format_decoder *d, yyjson_val *v, struct msg_error *error)
{
	struct errors_report report = { .http_status = 200 };

	errors_find(v, &report);
	return errors_fill(d->family, &report, &d->text, error);
}

/* Mistral's reasoning models: [{"type":"text",...},{"type":"thinking","thinking":[...]}] */
static enum status read_parts(struct format_decoder *d, enum frame_type type, yyjson_val *parts)
{
	yyjson_arr_iter at = yyjson_arr_iter_with(parts);
	enum status status = STATUS_OK;
	yyjson_val *part;

	while (status == STATUS_OK && (part = yyjson_arr_iter_next(&at))) {
		yyjson_arr_iter inner = { 0 };
		yyjson_val *thought;

		status = decoder_text(d, type, value_get_str(part, "text"));
		yyjson_arr_iter_init(value_get(part, "thinking"), &inner);
		while (status == STATUS_OK && (thought = yyjson_arr_iter_next(&inner)))
			status = decoder_text(d, FRAME_REASONING, value_get_str(thought, "text"));
	}
	return status;
}

static enum status read_tool_call(struct format_decoder *d, yyjson_val *v, struct msg_error *error)
{
	yyjson_val *index = value_get(v, "index"), *function = value_get(v, "function");
	struct msg_tool_call m = {
		.id = value_get_str(v, "id"),
		.name = value_get_str(function, "name"),
		.arguments = value_get_str(function, "arguments"),
	};
	uint64_t i = yyjson_get_uint(index);

	if (!yyjson_is_uint(index)) /* left out: an id begins a call, else it is the last one's */
		i = m.id.length || d->tools == 0 ? d->tools : d->tools - 1;
	if (i >= TOOL_CALLS_MAX || (index && !yyjson_is_uint(index)))
		return decoder_malformed(d, "the index of a tool call is out of range", error);
	if (i < d->tools)
		m.id = m.name = STR_NULL;
	else
		d->tools = (uint32_t)i + 1;
	m.index = (uint32_t)i;
	return decoder_tool_call(d, &m);
}

/* A delta of a stream or the message of a whole answer: they have the same members. */
static enum status read_message(struct format_decoder *d, yyjson_val *v, struct msg_error *error)
{
	yyjson_obj_iter at = { 0 };
	enum status status = STATUS_OK;
	yyjson_val *key;

	yyjson_obj_iter_init(v, &at);
	while (status == STATUS_OK && (key = yyjson_obj_iter_next(&at))) {
		yyjson_val *member = yyjson_obj_iter_get_val(key);

		if (value_is(key, "content") && yyjson_is_arr(member)) {
			status = read_parts(d, FRAME_TEXT, member);
		} else if (value_is(key, "content") || value_is(key, "refusal")) {
			if (!yyjson_is_str(member) && !yyjson_is_null(member))
				return decoder_malformed(d, "content is not text", error);
			status = decoder_text(d, FRAME_TEXT, value_str(member));
		} else if (value_is(key, "reasoning_content") ||
			(value_is(key, "reasoning") && !value_get(v, "reasoning_content"))) {
			status = decoder_text(d, FRAME_REASONING, value_str(member));
		} else if (value_is(key, "tool_calls")) {
			yyjson_arr_iter calls = { 0 };
			yyjson_val *call;

			yyjson_arr_iter_init(member, &calls);
			while (status == STATUS_OK && (call = yyjson_arr_iter_next(&calls)))
				status = read_tool_call(d, call, error);
		}
	}
	return status;
}

static enum status read_choice(
	struct format_decoder *d, yyjson_val *root, yyjson_val *choice, struct msg_error *error)
{
	yyjson_val *index = value_get(choice, "index"), *message = value_get(choice, "delta");
	struct str reason = value_get_str(choice, "finish_reason");
	enum status status;

	if (!yyjson_is_obj(choice) || (index && !yyjson_is_uint(index)) || yyjson_get_uint(index))
		return decoder_malformed(d, "a choice that was not asked for", error);
	if (value_get(choice, "error"))
		return inside_error(d, choice, error);
	if (str_is(reason, "error"))
		return inside_error(d, NULL, error);
	if (!message)
		message = value_get(choice, "message");
	if (message && !yyjson_is_obj(message))
		return decoder_malformed(d, "a message that is no object", error);
	status = STATUS_OK;
	if (!d->started)
		status = decoder_start(d, value_get_str(root, "id"), value_get_str(root, "model"));
	if (status == STATUS_OK)
		status = read_message(d, message, error);
	if (status == STATUS_OK && reason.length)
		decoder_finish_reason(d, reason);
	return status;
}

/* What an event or answer has at its top. */
struct top {
	yyjson_val *choices, *usage, *x_groq;
	bool is_error;
};

/* In one pass: it is done for every chunk. */
static void read_top(yyjson_val *v, struct top *top)
{
	yyjson_obj_iter at = { 0 };
	yyjson_val *key;

	yyjson_obj_iter_init(v, &at);
	while ((key = yyjson_obj_iter_next(&at))) {
		yyjson_val *member = yyjson_obj_iter_get_val(key);

		if (yyjson_is_null(member))
			continue;
		if (value_is(key, "choices"))
			top->choices = member;
		else if (value_is(key, "usage"))
			top->usage = member;
		else if (value_is(key, "x_groq"))
			top->x_groq = member;
		else if (value_is(key, "error") ||
			(value_is(member, "error") &&
				(value_is(key, "object") || value_is(key, "type"))))
			top->is_error = true;
	}
}

static enum status read_root(struct format_decoder *d, yyjson_val *root, struct msg_error *error)
{
	yyjson_arr_iter at = { 0 };
	enum status status = STATUS_OK;
	struct top top = { 0 };
	yyjson_val *choice;

	/* Some wrap the error object in an array. */
	read_top(yyjson_is_arr(root) ? yyjson_arr_get_first(root) : root, &top);
	if (top.is_error)
		return inside_error(d, root, error);
	if (!yyjson_is_obj(root))
		return decoder_malformed(d, "a value that is no object", error);
	if (top.choices && !yyjson_is_arr(top.choices))
		return decoder_malformed(d, "\"choices\" is no array", error);
	if (top.usage)
		read_usage(d, top.usage);
	if (d->family->quirks & FAMILY_USAGE_X_GROQ)
		read_usage(d, value_get(top.x_groq, "usage"));
	yyjson_arr_iter_init(top.choices, &at);
	while (status == STATUS_OK && (choice = yyjson_arr_iter_next(&at)))
		status = read_choice(d, root, choice, error);
	return status;
}

static enum status openai_event(
	struct format_decoder *d, struct str name, struct str data, struct msg_error *error)
{
	struct decoder_arena arena;
	aux_cleanup(value_docp) yyjson_doc *doc = NULL;
	enum status status;

	if (d->ended)
		return STATUS_OK;
	if (str_is(data, "[DONE]")) {
		d->ended = true;
		return STATUS_OK;
	}
	status = decoder_read(d, &arena, data, "stream event", &doc, error);
	if (status != STATUS_OK)
		return status;
	if (str_is(name, "error"))
		return inside_error(d, yyjson_doc_get_root(doc), error);
	return read_root(d, yyjson_doc_get_root(doc), error);
}

static enum status openai_answer(struct format_decoder *d, struct str body, struct msg_error *error)
{
	struct decoder_arena arena;
	aux_cleanup(value_docp) yyjson_doc *doc = NULL;
	enum status status = decoder_read(d, &arena, body, "answer", &doc, error);

	if (status == STATUS_OK)
		status = read_root(d, yyjson_doc_get_root(doc), error);
	if (status == STATUS_OK && !d->started)
		return decoder_malformed(d, "no choices", error);
	return status;
}

static enum status openai_classify(
	struct format_decoder *d, unsigned http_status, struct str body, struct msg_error *error)
{
	return errors_classify(d->family, http_status, body, &d->text, error);
}

const struct format format_openai = {
	.id = FAMILY_FORMAT_OPENAI,
	.name = "openai",
	.build = openai_build,
	.event = openai_event,
	.answer = openai_answer,
	.classify = openai_classify,
	.ends_with_body = true,
	.headers = "",
};
