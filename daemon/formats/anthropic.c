/*
 * Anthropic Messages. The request is translated from the OpenAI chat schema; what Anthropic has
 * itself (top_k, thinking, metadata, a native "system", native content blocks and tools,
 * cache_control) passes through.
 */

#include <stdio.h>
#include "daemon/formats/decoder.h"
#include "daemon/formats/formats.h"
#include "daemon/formats/request.h"
#include "daemon/formats/value.h"

#define MAX_TOKENS_DEFAULT 4096

/* ---- request: members ---- */

/* Members that do not pass through: written elsewhere, or without meaning for Anthropic and
 * harmless to leave out (they tune sampling, account or cache). */
static const char *const taken_members[] = { "model", "messages", "stream", "max_tokens",
	"max_completion_tokens", "system", "stop", "tools", "tool_choice", "user",
	/* left out: */
	"n", "response_format", "parallel_tool_calls", "stream_options", "frequency_penalty",
	"presence_penalty", "logit_bias", "logprobs", "top_logprobs", "seed", "store",
	"reasoning_effort", "verbosity", "prediction", "prompt_cache_key", "safety_identifier" };

static bool is_taken(yyjson_val *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(taken_members); i++)
		if (value_is(key, taken_members[i]))
			return true;
	return false;
}

static bool is_type(yyjson_val *v, const char *type)
{
	return value_is(yyjson_obj_get(v, "type"), type);
}

static void put_member(struct request *b, const char *key, yyjson_val *v)
{
	request_next(b, key);
	request_value(b, v);
}

/* ---- request: content ---- */

static void put_text_block(struct request *b, yyjson_val *text)
{
	request_next(b, NULL);
	request_raw(b, "{\"type\":\"text\"");
	put_member(b, "text", text);
	request_raw(b, "}");
}

/* "data:image/png;base64,AAAA" -> its media type and data. */
static bool split_data_url(struct str url, struct str *media_type, struct str *data)
{
	static const char scheme[] = "data:", mark[] = ";base64,";
	const char *at;

	if (url.length < sizeof(scheme) || memcmp(url.data, scheme, sizeof(scheme) - 1) != 0)
		return false;
	at = memmem(url.data, url.length, mark, sizeof(mark) - 1);
	if (!at)
		return false;
	*media_type = str_make(
		url.data + sizeof(scheme) - 1, (size_t)(at - url.data) - (sizeof(scheme) - 1));
	*data = str_make(
		at + sizeof(mark) - 1, url.length - (size_t)(at - url.data) - (sizeof(mark) - 1));
	return true;
}

static int put_image(struct request *b, yyjson_val *part, size_t message)
{
	struct str url = value_get_str(value_get(part, "image_url"), "url"), media_type, data;

	if (split_data_url(url, &media_type, &data)) {
		request_raw(b, "{\"type\":\"image\",\"source\":{\"type\":\"base64\"");
		request_next(b, "media_type");
		request_string(b, media_type);
		request_next(b, "data");
		request_string(b, data);
	} else if (url.length > 4 && memcmp(url.data, "http", 4) == 0) {
		request_raw(b, "{\"type\":\"image\",\"source\":{\"type\":\"url\"");
		request_next(b, "url");
		request_string(b, url);
	} else {
		return request_refuse(b,
			"messages[%zu]: image_url.url must be an http(s) address "
			"or a data: URL in base64",
			message);
	}
	request_raw(b, "}");
	if (value_get(part, "cache_control"))
		put_member(b, "cache_control", value_get(part, "cache_control"));
	request_raw(b, "}");
	return 0;
}

/* One content part as a block. What is no OpenAI type is taken for a block of Anthropic's own. */
static int put_part(struct request *b, yyjson_val *part, size_t message)
{
	if (!yyjson_is_obj(part))
		return request_refuse(
			b, "messages[%zu]: a content part must be an object", message);
	if (is_type(part, "text") && yyjson_get_len(yyjson_obj_get(part, "text")) == 0)
		return 0; /* refused there, harmless here */
	if (is_type(part, "input_audio") || is_type(part, "file"))
		return request_refuse(b,
			"messages[%zu]: content of type \"%s\" cannot be sent to "
			"Anthropic",
			message, yyjson_get_str(yyjson_obj_get(part, "type")));
	if (is_type(part, "refusal")) {
		put_text_block(b, yyjson_obj_get(part, "refusal"));
		return 0;
	}
	request_next(b, NULL);
	if (is_type(part, "image_url"))
		return put_image(b, part, message);
	request_value(b, part);
	return 0;
}

/* The blocks of a content, string or parts, into an array that is open. */
static int put_blocks(struct request *b, yyjson_val *content, size_t message)
{
	yyjson_arr_iter at = { 0 };
	yyjson_val *part;
	int r = 0;

	if (yyjson_is_str(content)) {
		if (yyjson_get_len(content))
			put_text_block(b, content);
		return 0;
	}
	if (!yyjson_is_arr(content))
		return request_refuse(
			b, "messages[%zu]: \"content\" must be a string or an array", message);
	yyjson_arr_iter_init(content, &at);
	while (r == 0 && (part = yyjson_arr_iter_next(&at)))
		r = put_part(b, part, message);
	return r;
}

/* The value of "content": a string stays a string. */
static int put_content(struct request *b, yyjson_val *content, size_t message)
{
	int r;

	request_next(b, "content");
	if (yyjson_is_str(content)) {
		request_value(b, content);
		return 0;
	}
	request_raw(b, "[");
	r = put_blocks(b, content, message);
	request_raw(b, "]");
	return r;
}

/* ---- request: messages ---- */

/* The arguments, JSON in a string, as a value. */
static int put_input(struct request *b, struct str arguments, size_t message)
{
	aux_cleanup(value_docp) yyjson_doc *doc = NULL;

	request_next(b, "input");
	if (arguments.length == 0) {
		request_raw(b, "{}");
		return 0;
	}
	doc = yyjson_read(arguments.data, arguments.length, YYJSON_READ_NUMBER_AS_RAW);
	if (!yyjson_is_obj(yyjson_doc_get_root(doc)))
		return request_refuse(b,
			"messages[%zu]: the arguments of a tool call must be a "
			"JSON object in a string",
			message);
	request_value(b, yyjson_doc_get_root(doc));
	return 0;
}

static int put_tool_use(struct request *b, yyjson_val *call, size_t message)
{
	yyjson_val *function = value_get(call, "function");
	int r;

	if (!yyjson_is_str(value_get(call, "id")) || !yyjson_is_str(value_get(function, "name")))
		return request_refuse(b,
			"messages[%zu]: a tool call needs an \"id\" and a "
			"\"function\" with a \"name\"",
			message);
	request_next(b, NULL);
	request_raw(b, "{\"type\":\"tool_use\"");
	put_member(b, "id", value_get(call, "id"));
	put_member(b, "name", value_get(function, "name"));
	r = put_input(b, value_get_str(function, "arguments"), message);
	request_raw(b, "}");
	return r;
}

static int put_assistant(struct request *b, yyjson_val *v, size_t message)
{
	yyjson_val *content = value_get(v, "content"), *calls = value_get(v, "tool_calls"), *call;
	yyjson_arr_iter at = { 0 };
	int r = 0;

	if (!calls)
		return put_content(b, content, message);
	request_next(b, "content");
	request_raw(b, "[");
	if (content)
		r = put_blocks(b, content, message);
	yyjson_arr_iter_init(calls, &at);
	while (r == 0 && (call = yyjson_arr_iter_next(&at)))
		r = put_tool_use(b, call, message);
	request_raw(b, "]");
	return r;
}

static int put_tool_result(struct request *b, yyjson_val *v, size_t message)
{
	int r;

	if (!yyjson_is_str(value_get(v, "tool_call_id")))
		return request_refuse(
			b, "messages[%zu]: a tool's message needs \"tool_call_id\"", message);
	request_next(b, NULL);
	request_raw(b, "{\"type\":\"tool_result\"");
	put_member(b, "tool_use_id", value_get(v, "tool_call_id"));
	r = put_content(b, value_get(v, "content"), message);
	request_raw(b, "}");
	return r;
}

static bool is_role(yyjson_val *message, const char *role)
{
	return value_is(yyjson_obj_get(message, "role"), role);
}

static bool is_system(yyjson_val *message)
{
	return is_role(message, "system") || is_role(message, "developer");
}

static int put_message(struct request *b, yyjson_val *v, size_t i, bool *in_tools)
{
	int r;

	if (is_role(v, "tool")) {
		/* Results that follow each other go into one message. */
		if (!*in_tools) {
			request_next(b, NULL);
			request_raw(b, "{\"role\":\"user\",\"content\":[");
		}
		*in_tools = true;
		return put_tool_result(b, v, i);
	}
	if (*in_tools)
		request_raw(b, "]}");
	*in_tools = false;
	if (is_system(v))
		return 0;
	if (!is_role(v, "user") && !is_role(v, "assistant"))
		return request_refuse(b,
			"messages[%zu]: \"role\" must be system, developer, user, "
			"assistant or tool",
			i);
	request_next(b, NULL);
	request_raw(b, is_role(v, "user") ? "{\"role\":\"user\"" : "{\"role\":\"assistant\"");
	r = is_role(v, "user") ? put_content(b, value_get(v, "content"), i) :
				 put_assistant(b, v, i);
	request_raw(b, "}");
	return r;
}

static int put_messages(struct request *b)
{
	yyjson_arr_iter at = yyjson_arr_iter_with(b->messages);
	bool in_tools = false;
	yyjson_val *v;
	int r = 0;

	request_next(b, "messages");
	request_raw(b, "[");
	for (size_t i = 0; r == 0 && (v = yyjson_arr_iter_next(&at)); i++)
		r = put_message(b, v, i, &in_tools);
	request_raw(b, in_tools ? "]}]" : "]");
	return r;
}

/* The native "system" and the system messages, one string or an array of blocks. */
static int put_system(struct request *b)
{
	yyjson_val *native = value_get(b->root, "system"), *last = native, *v;
	yyjson_arr_iter at = yyjson_arr_iter_with(b->messages);
	size_t count = native != NULL;
	int r = 0;

	while ((v = yyjson_arr_iter_next(&at)))
		if (is_system(v)) {
			count++;
			last = value_get(v, "content");
		}
	if (count == 0)
		return 0;
	request_next(b, "system");
	if (count == 1 && yyjson_is_str(last)) {
		request_value(b, last);
		return 0;
	}
	request_raw(b, "[");
	if (native)
		r = put_blocks(b, native, 0);
	yyjson_arr_iter_init(b->messages, &at);
	for (size_t i = 0; r == 0 && (v = yyjson_arr_iter_next(&at)); i++)
		if (is_system(v))
			r = put_blocks(b, value_get(v, "content"), i);
	request_raw(b, "]");
	return r;
}

/* ---- request: tools ---- */

static int put_tool(struct request *b, yyjson_val *tool, size_t i)
{
	yyjson_val *function = value_get(tool, "function"), *v;

	request_next(b, NULL);
	if (yyjson_is_obj(tool) && !function) { /* Anthropic's own */
		request_value(b, tool);
		return 0;
	}
	if (!yyjson_is_str(value_get(function, "name")))
		return request_refuse(b, "tools[%zu] needs a \"function\" with a \"name\"", i);
	request_raw(b, "{");
	put_member(b, "name", value_get(function, "name"));
	v = value_get(function, "description");
	if (v)
		put_member(b, "description", v);
	v = value_get(function, "parameters");
	request_next(b, "input_schema");
	if (v)
		request_value(b, v);
	else
		request_raw(b, "{\"type\":\"object\",\"properties\":{}}");
	v = value_get(tool, "cache_control");
	if (v)
		put_member(b, "cache_control", v);
	request_raw(b, "}");
	return 0;
}

static int put_tools(struct request *b)
{
	yyjson_val *tools = value_get(b->root, "tools"), *tool;
	yyjson_arr_iter at = { 0 };
	int r = 0;

	if (!tools)
		return 0;
	if (!yyjson_is_arr(tools))
		return request_refuse(b, "\"tools\" must be an array");
	request_next(b, "tools");
	request_raw(b, "[");
	yyjson_arr_iter_init(tools, &at);
	for (size_t i = 0; r == 0 && (tool = yyjson_arr_iter_next(&at)); i++)
		r = put_tool(b, tool, i);
	request_raw(b, "]");
	return r;
}

static int put_tool_choice(struct request *b)
{
	static const struct {
		const char *openai, *anthropic;
	} names[] = {
		{ "auto", "{\"type\":\"auto\"" },
		{ "required", "{\"type\":\"any\"" },
		{ "none", "{\"type\":\"none\"" },
	};
	yyjson_val *choice = value_get(b->root, "tool_choice");
	yyjson_val *name = value_get(value_get(choice, "function"), "name");
	bool single = yyjson_is_false(value_get(b->root, "parallel_tool_calls"));
	size_t i = 0;

	if (!choice && !(single && value_get(b->root, "tools")))
		return 0;
	request_next(b, "tool_choice");
	if (yyjson_is_obj(choice) && !value_get(choice, "function")) { /* Anthropic's own */
		request_value(b, choice);
		return 0;
	}
	while (choice && i < ARRAY_SIZE(names) && !value_is(choice, names[i].openai))
		i++;
	if (yyjson_is_str(name)) {
		request_raw(b, "{\"type\":\"tool\"");
		put_member(b, "name", name);
	} else if (i < ARRAY_SIZE(names)) {
		request_raw(b, names[i].anthropic);
	} else {
		return request_refuse(b,
			"\"tool_choice\" must be auto, none, required or name a "
			"function");
	}
	request_raw(b,
		single && !value_is(choice, "none") ? ",\"disable_parallel_tool_use\":true}" : "}");
	return 0;
}

/* ---- request: the whole ---- */

static void put_max_tokens(struct request *b)
{
	yyjson_val *v = value_get(b->root, "max_completion_tokens");
	char number[16];

	if (!v)
		v = value_get(b->root, "max_tokens");
	request_next(b, "max_tokens");
	if (v) {
		request_value(b, v);
		return;
	}
	snprintf(number, sizeof(number), "%u",
		b->q->max_tokens_default ? b->q->max_tokens_default : MAX_TOKENS_DEFAULT);
	request_raw(b, number);
}

static void put_stop(struct request *b)
{
	yyjson_val *stop = value_get(b->root, "stop");

	if (!stop)
		return;
	request_next(b, "stop_sequences");
	if (yyjson_is_arr(stop)) {
		request_value(b, stop);
		return;
	}
	request_raw(b, "[");
	request_value(b, stop);
	request_raw(b, "]");
}

static void put_rest(struct request *b)
{
	yyjson_obj_iter at = yyjson_obj_iter_with(b->root);
	yyjson_val *user = value_get(b->root, "user"), *key;

	while ((key = yyjson_obj_iter_next(&at)))
		if (!is_taken(key))
			request_copy(b, key, yyjson_obj_iter_get_val(key));
	if (yyjson_is_str(user) && !yyjson_obj_get(b->root, "metadata")) {
		request_next(b, "metadata");
		request_raw(b, "{");
		put_member(b, "user_id", user);
		request_raw(b, "}");
	}
}

static int check_translatable(struct request *b)
{
	yyjson_val *format = value_get(b->root, "response_format");

	if (format && !is_type(format, "text"))
		return request_refuse(b,
			"\"response_format\" other than text cannot be sent to "
			"Anthropic; ask for JSON in the prompt or through a tool");
	if (value_get(b->root, "functions") || value_get(b->root, "function_call"))
		return request_refuse(b,
			"\"functions\" and \"function_call\" are obsolete; use "
			"\"tools\" and \"tool_choice\"");
	return 0;
}

static int put_request(struct request *b)
{
	int r = check_translatable(b);

	request_raw(b, "{");
	request_next(b, "model");
	request_string(b, b->q->model);
	put_max_tokens(b);
	if (b->plan->stream) {
		request_next(b, "stream");
		request_raw(b, "true");
	}
	if (r == 0)
		r = put_system(b);
	if (r == 0)
		r = put_messages(b);
	if (r == 0)
		r = put_tools(b);
	if (r == 0)
		r = put_tool_choice(b);
	put_stop(b);
	put_rest(b);
	request_raw(b, "}");
	return r;
}

static int anthropic_build(const struct format_request *q, struct buffer *out,
	struct format_plan *plan, const char **why)
{
	aux_cleanup(request_deinit) struct request b;
	int r = request_init(&b, q, out, plan);

	if (r == 0)
		r = put_request(&b);
	return request_finish(&b, r, why);
}

/* ---- answer ---- */

/* input_tokens leaves out what came from the cache or went into it; ours does not. Counts are
 * cumulative, later ones replace earlier ones. */
static void read_usage(struct format_decoder *d, yyjson_val *v)
{
	struct msg_usage *u = &d->usage;

	value_get_count(v, "input_tokens", &d->input_uncached);
	value_get_count(v, "output_tokens", &u->output);
	value_get_count(v, "cache_read_input_tokens", &u->cached_input);
	value_get_count(v, "cache_creation_input_tokens", &u->cache_write);
	if (d->input_uncached >= 0)
		u->input = d->input_uncached + (u->cached_input > 0 ? u->cached_input : 0) +
			(u->cache_write > 0 ? u->cache_write : 0);
}

static enum status read_tool_use(struct format_decoder *d, yyjson_val *block, uint64_t index)
{
	d->tool_block = (uint32_t)index;
	d->tool_empty = true;
	return decoder_tool_call(d,
		&(struct msg_tool_call){
			.index = d->tools++,
			.id = value_get_str(block, "id"),
			.name = value_get_str(block, "name"),
		});
}

static enum status read_arguments(struct format_decoder *d, struct str arguments)
{
	if (arguments.length == 0)
		return STATUS_OK;
	d->tool_empty = false;
	return decoder_tool_call(d,
		&(struct msg_tool_call){
			.index = d->tools - 1,
			.arguments = arguments,
		});
}

/* Whether the event is about the tool call that was begun last; server tools are not ours. */
static bool is_tool_block(const struct format_decoder *d, uint64_t index)
{
	return d->tools > 0 && index == d->tool_block;
}

static enum status read_block_start(struct format_decoder *d, yyjson_val *root, uint64_t index)
{
	yyjson_val *block = value_get(root, "content_block");

	if (is_type(block, "text"))
		return decoder_text(d, FRAME_TEXT, value_get_str(block, "text"));
	if (is_type(block, "thinking"))
		return decoder_text(d, FRAME_REASONING, value_get_str(block, "thinking"));
	if (is_type(block, "tool_use"))
		return read_tool_use(d, block, index);
	return STATUS_OK;
}

static enum status read_block_delta(struct format_decoder *d, yyjson_val *root, uint64_t index)
{
	yyjson_val *delta = value_get(root, "delta");

	if (is_type(delta, "text_delta"))
		return decoder_text(d, FRAME_TEXT, value_get_str(delta, "text"));
	if (is_type(delta, "thinking_delta"))
		return decoder_text(d, FRAME_REASONING, value_get_str(delta, "thinking"));
	if (is_type(delta, "input_json_delta") && is_tool_block(d, index))
		return read_arguments(d, value_get_str(delta, "partial_json"));
	return STATUS_OK;
}

/* A tool without arguments streams none; its arguments are still an object. */
static enum status read_block_stop(struct format_decoder *d, uint64_t index)
{
	if (!is_tool_block(d, index) || !d->tool_empty)
		return STATUS_OK;
	return read_arguments(d, str_of("{}"));
}

static enum status read_message_start(struct format_decoder *d, yyjson_val *root)
{
	yyjson_val *message = value_get(root, "message");

	read_usage(d, value_get(message, "usage"));
	return decoder_start(d, value_get_str(message, "id"), value_get_str(message, "model"));
}

static enum status read_error(struct format_decoder *d, yyjson_val *root, struct msg_error *error)
{
	struct errors_report report = { .http_status = 200 };

	errors_find(root, &report);
	return errors_fill(d->family, &report, &d->text, error);
}

/* Event types that come up later are to be passed over, says the format. */
static enum status read_event(struct format_decoder *d, yyjson_val *root, struct msg_error *error)
{
	yyjson_val *type = yyjson_obj_get(root, "type");
	uint64_t index = yyjson_get_uint(yyjson_obj_get(root, "index"));
	struct str reason;

	if (value_is(type, "error"))
		return read_error(d, root, error);
	if (value_is(type, "ping"))
		return STATUS_OK;
	if (value_is(type, "message_start"))
		return read_message_start(d, root);
	if (!d->started)
		return decoder_malformed(d, "an event before message_start", error);
	if (value_is(type, "content_block_delta"))
		return read_block_delta(d, root, index);
	if (value_is(type, "content_block_start"))
		return read_block_start(d, root, index);
	if (value_is(type, "content_block_stop"))
		return read_block_stop(d, index);
	if (value_is(type, "message_delta")) {
		reason = value_get_str(value_get(root, "delta"), "stop_reason");
		if (reason.length)
			decoder_finish_reason(d, reason);
		read_usage(d, value_get(root, "usage"));
	} else if (value_is(type, "message_stop")) {
		d->ended = true;
	}
	return STATUS_OK;
}

static enum status anthropic_event(
	struct format_decoder *d, struct str name, struct str data, struct msg_error *error)
{
	struct decoder_arena arena;
	aux_cleanup(value_docp) yyjson_doc *doc = NULL;
	yyjson_val *root;
	enum status status;

	if (d->ended)
		return STATUS_OK;
	status = decoder_read(d, &arena, data, "stream event", &doc, error);
	if (status != STATUS_OK)
		return status;
	root = yyjson_doc_get_root(doc);
	if (str_is(name, "error"))
		return read_error(d, root, error);
	if (!yyjson_is_str(yyjson_obj_get(root, "type")))
		return decoder_malformed(d, "an event without a type", error);
	return read_event(d, root, error);
}

static enum status read_block(struct format_decoder *d, yyjson_val *block)
{
	aux_cleanup(freep) char *input = NULL;
	size_t length = 0;

	if (is_type(block, "text"))
		return decoder_text(d, FRAME_TEXT, value_get_str(block, "text"));
	if (is_type(block, "thinking"))
		return decoder_text(d, FRAME_REASONING, value_get_str(block, "thinking"));
	if (!is_type(block, "tool_use"))
		return STATUS_OK;
	input = yyjson_val_write(value_get(block, "input"), YYJSON_WRITE_NOFLAG, &length);
	return decoder_tool_call(d,
		&(struct msg_tool_call){
			.index = d->tools++,
			.id = value_get_str(block, "id"),
			.name = value_get_str(block, "name"),
			.arguments = input ? str_make(input, length) : str_of("{}"),
		});
}

static enum status anthropic_answer(
	struct format_decoder *d, struct str body, struct msg_error *error)
{
	struct decoder_arena arena;
	aux_cleanup(value_docp) yyjson_doc *doc = NULL;
	enum status status = decoder_read(d, &arena, body, "answer", &doc, error);
	yyjson_val *root, *content, *block;
	yyjson_arr_iter at = { 0 };

	if (status != STATUS_OK)
		return status;
	root = yyjson_doc_get_root(doc);
	if (value_get(root, "error") || is_type(root, "error"))
		return read_error(d, root, error);
	content = value_get(root, "content");
	if (!yyjson_is_arr(content))
		return decoder_malformed(d, "no content", error);
	status = decoder_start(d, value_get_str(root, "id"), value_get_str(root, "model"));
	yyjson_arr_iter_init(content, &at);
	while (status == STATUS_OK && (block = yyjson_arr_iter_next(&at)))
		status = read_block(d, block);
	decoder_finish_reason(d, value_get_str(root, "stop_reason"));
	read_usage(d, value_get(root, "usage"));
	return status;
}

static enum status anthropic_classify(
	struct format_decoder *d, unsigned http_status, struct str body, struct msg_error *error)
{
	return errors_classify(d->family, http_status, body, &d->text, error);
}

const struct format format_anthropic = {
	.id = FAMILY_FORMAT_ANTHROPIC,
	.name = "anthropic",
	.build = anthropic_build,
	.event = anthropic_event,
	.answer = anthropic_answer,
	.classify = anthropic_classify,
	.headers = "anthropic-version: 2023-06-01\r\n",
};
