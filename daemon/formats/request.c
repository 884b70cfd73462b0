#include "daemon/formats/request.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "base/error.h"
#include "daemon/formats/value.h"

/* Members somebody here reads: with two of them we and the provider might read different ones. */
static const char *const read_members[] = { "model", "messages", "stream", "stream_options", "n",
	"max_tokens", "max_completion_tokens", "system", "stop", "tools", "tool_choice", "user",
	"metadata", "response_format", "parallel_tool_calls", "seed" };

int request_refuse(struct request *b, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(b->plan->text, sizeof(b->plan->text), format, args);
	va_end(args);
	return FORMAT_E_REQUEST;
}

static int check_twice(struct request *b)
{
	bool seen[ARRAY_SIZE(read_members)] = { false };
	yyjson_obj_iter at = yyjson_obj_iter_with(b->root);
	yyjson_val *key;

	while ((key = yyjson_obj_iter_next(&at))) {
		for (size_t i = 0; i < ARRAY_SIZE(read_members); i++) {
			if (!value_is(key, read_members[i]))
				continue;
			if (seen[i])
				return request_refuse(
					b, "the request has \"%s\" twice", read_members[i]);
			seen[i] = true;
		}
	}
	return 0;
}

static int check(struct request *b)
{
	yyjson_val *stream, *n;

	b->root = yyjson_doc_get_root(b->doc);
	if (!yyjson_is_obj(b->root))
		return request_refuse(b, "the request is %s; it must be a JSON object",
			yyjson_get_type_desc(b->root));
	b->messages = value_get(b->root, "messages");
	if (yyjson_arr_size(b->messages) == 0)
		return request_refuse(b, "\"messages\" must be an array of at least one message");
	stream = value_get(b->root, "stream");
	if (stream && !yyjson_is_bool(stream))
		return request_refuse(b, "\"stream\" must be true or false");
	b->plan->stream = yyjson_is_true(stream);
	n = value_get(b->root, "n");
	if (n && !(yyjson_is_raw(n) && str_is(str_make(yyjson_get_raw(n), yyjson_get_len(n)), "1")))
		return request_refuse(b, "\"n\" must be 1: one answer per request");
	return check_twice(b);
}

int request_init(struct request *b, const struct format_request *q, struct buffer *out,
	struct format_plan *plan)
{
	yyjson_read_err error = { 0 };

	*b = (struct request){ .q = q, .plan = plan, .out = out, .out_length = buffer_length(out) };
	*plan = (struct format_plan){ .stream = false };
	b->doc = yyjson_read_opts((char *)(uintptr_t)q->body.data, q->body.length,
		YYJSON_READ_NUMBER_AS_RAW, NULL, &error);
	if (b->doc)
		return check(b);
	if (error.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
		return error_origin(-ENOMEM);
	return request_refuse(b, "the request is not JSON: %s at byte %zu of %zu",
		q->body.length ? error.msg : "it is empty", error.pos, q->body.length);
}

void request_deinit(struct request *b)
{
	yyjson_doc_free(b->doc);
	b->doc = NULL;
}

int request_finish(struct request *b, int r, const char **why)
{
	if (r == 0)
		r = b->r;
	if (r != 0)
		b->out->end = b->out->begin + b->out_length;
	if (r == FORMAT_E_REQUEST)
		*why = b->plan->text;
	return r;
}

static void append(struct request *b, const char *text, size_t length)
{
	if (b->r == 0)
		b->r = buffer_append(b->out, text, length);
}

void request_raw(struct request *b, const char *text)
{
	append(b, text, strlen(text));
}

void request_next(struct request *b, const char *key)
{
	/* No value ends with one of these, so behind them stands the first one. */
	if (b->r == 0 && !strchr("{[:", buffer_tail(b->out)[-1]))
		append(b, ",", 1);
	if (key) {
		request_string(b, str_of(key));
		append(b, ":", 1);
	}
}

void request_value(struct request *b, yyjson_val *v)
{
	aux_cleanup(freep) char *text = NULL;
	yyjson_write_err error = { 0 };
	size_t length = 0;

	if (b->r != 0)
		return;
	text = yyjson_val_write_opts(v, YYJSON_WRITE_NOFLAG, NULL, &length, &error);
	if (text)
		append(b, text, length);
	else
		b->r = error_origin(
			error.code == YYJSON_WRITE_ERROR_MEMORY_ALLOCATION ? -ENOMEM : -EINVAL);
}

void request_string(struct request *b, struct str text)
{
	yyjson_val v = { 0 };

	yyjson_set_strn(&v, text.data ? text.data : "", text.length);
	request_value(b, &v);
}

void request_copy(struct request *b, yyjson_val *key, yyjson_val *v)
{
	request_next(b, NULL);
	request_value(b, key);
	append(b, ":", 1);
	request_value(b, v);
}
