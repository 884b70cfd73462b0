#include "tests/fakeprovider/request.h"

#include "tests/fakeprovider/put.h"
#include <string.h>
#include <strings.h>

static struct request *request_of(llhttp_t *parser)
{
	return container_of(parser, struct request, parser);
}

static void append_bounded(char *to, size_t size, size_t *length, const char *at, size_t n)
{
	size_t room = size - 1 - *length;

	n = n < room ? n : room;
	memcpy(to + *length, at, n);
	*length += n;
	to[*length] = '\0';
}

static int on_url(llhttp_t *parser, const char *at, size_t n)
{
	struct request *r = request_of(parser);

	append_bounded(r->path, sizeof(r->path), &r->path_length, at, n);
	return 0;
}

static int on_field(llhttp_t *parser, const char *at, size_t n)
{
	struct request *r = request_of(parser);

	append_bounded(r->field, sizeof(r->field), &r->field_length, at, n);
	return 0;
}

static int on_field_complete(llhttp_t *parser)
{
	struct request *r = request_of(parser);
	const struct {
		const char *name;
		struct request_value *value;
	} wanted[] = {
		{ "authorization", &r->authorization },
		{ "x-api-key", &r->x_api_key },
		{ "user-agent", &r->user_agent },
		{ "x-fake", &r->x_fake },
		{ "anthropic-version", &r->version },
		{ "expect", &r->expect },
	};

	r->target = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		if (strcasecmp(r->field, wanted[i].name) == 0)
			r->target = wanted[i].value;
	r->field_length = 0;
	return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t n)
{
	struct request_value *v = request_of(parser)->target;

	if (v)
		append_bounded(v->text, sizeof(v->text), &v->length, at, n);
	return 0;
}

static int on_headers_complete(llhttp_t *parser)
{
	request_of(parser)->headers_done = true;
	return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t n)
{
	struct request *r = request_of(parser);

	if (buffer_length(&r->body) + n > REQUEST_BODY_MAX) {
		r->too_large = true;
		return HPE_USER;
	}
	put(&r->body, at, n);
	return 0;
}

static int on_message_complete(llhttp_t *parser)
{
	struct request *r = request_of(parser);

	r->done = true;
	r->keep_alive = llhttp_should_keep_alive(parser);
	return HPE_PAUSED;
}

static const llhttp_settings_t *settings(void)
{
	static llhttp_settings_t s;

	if (!s.on_url) {
		llhttp_settings_init(&s);
		s.on_url = on_url;
		s.on_header_field = on_field;
		s.on_header_field_complete = on_field_complete;
		s.on_header_value = on_value;
		s.on_headers_complete = on_headers_complete;
		s.on_body = on_body;
		s.on_message_complete = on_message_complete;
	}
	return &s;
}

void request_init(struct request *r)
{
	memset(r, 0, sizeof(*r));
	llhttp_init(&r->parser, HTTP_REQUEST, settings());
}

void request_deinit(struct request *r)
{
	yyjson_doc_free(r->doc);
	r->doc = NULL;
	buffer_deinit(&r->body);
}

static void empty(struct request_value *v)
{
	v->length = 0;
	v->text[0] = '\0';
}

void request_reset(struct request *r)
{
	yyjson_doc_free(r->doc);
	r->doc = NULL;
	buffer_reset(&r->body, 65536);
	llhttp_init(&r->parser, HTTP_REQUEST, settings());
	empty(&r->authorization);
	empty(&r->x_api_key);
	empty(&r->user_agent);
	empty(&r->x_fake);
	empty(&r->version);
	empty(&r->expect);
	r->path_length = r->field_length = 0;
	r->headers_done = r->done = r->keep_alive = r->too_large = false;
	r->model = r->prompt = r->tool = STR_NULL;
	r->stream = r->include_usage = r->has_max_tokens = false;
}

enum request_feed_result request_feed(struct request *r, struct str bytes, size_t *used)
{
	llhttp_errno_t e = llhttp_execute(&r->parser, bytes.data, bytes.length);

	*used = bytes.length;
	if (r->done) {
		if (e != HPE_OK)
			*used = (size_t)(llhttp_get_error_pos(&r->parser) - bytes.data);
		return REQUEST_DONE;
	}
	return e == HPE_OK ? REQUEST_MORE : REQUEST_BAD;
}

static struct str str_of_json(yyjson_val *v)
{
	return str_make(yyjson_get_str(v), yyjson_get_len(v));
}

/* The text of a message's content: a string, or the first text among its parts. */
static struct str content_text(yyjson_val *content)
{
	yyjson_arr_iter it;
	yyjson_val *part;

	if (yyjson_is_str(content))
		return str_of_json(content);
	if (!yyjson_arr_iter_init(content, &it))
		return STR_NULL;
	while ((part = yyjson_arr_iter_next(&it))) {
		yyjson_val *text = yyjson_obj_get(part, "text");

		if (yyjson_is_str(text))
			return str_of_json(text);
	}
	return STR_NULL;
}

static struct str last_user_text(yyjson_val *messages)
{
	yyjson_arr_iter it;
	yyjson_val *message;
	struct str found = STR_NULL;

	if (!yyjson_arr_iter_init(messages, &it))
		return STR_NULL;
	while ((message = yyjson_arr_iter_next(&it)))
		if (yyjson_equals_str(yyjson_obj_get(message, "role"), "user"))
			found = content_text(yyjson_obj_get(message, "content"));
	return found;
}

/* The first offered tool's name; OpenAI wraps it in "function". */
static struct str tool_name(yyjson_val *tools)
{
	yyjson_val *tool = yyjson_arr_get_first(tools);
	yyjson_val *function = yyjson_obj_get(tool, "function");
	yyjson_val *name = yyjson_obj_get(function ? function : tool, "name");

	return yyjson_is_str(name) ? str_of_json(name) : STR_NULL;
}

void request_read_body(struct request *r)
{
	yyjson_val *root, *model;

	if (buffer_length(&r->body))
		r->doc = yyjson_read(buffer_head(&r->body), buffer_length(&r->body), 0);
	root = yyjson_doc_get_root(r->doc);
	if (!yyjson_is_obj(root)) {
		yyjson_doc_free(r->doc);
		r->doc = NULL;
		return;
	}
	model = yyjson_obj_get(root, "model");
	if (yyjson_is_str(model))
		r->model = str_of_json(model);
	r->stream = yyjson_get_bool(yyjson_obj_get(root, "stream"));
	r->include_usage = yyjson_get_bool(
		yyjson_obj_get(yyjson_obj_get(root, "stream_options"), "include_usage"));
	r->has_max_tokens = yyjson_is_uint(yyjson_obj_get(root, "max_tokens"));
	r->prompt = last_user_text(yyjson_obj_get(root, "messages"));
	r->tool = tool_name(yyjson_obj_get(root, "tools"));
}

bool request_wants_continue(const struct request *r)
{
	return r->headers_done && !r->done && strcasecmp(r->expect.text, "100-continue") == 0;
}

struct str request_path(const struct request *r)
{
	return str_make(r->path, strcspn(r->path, "?"));
}

struct str request_key(const struct request *r)
{
	if (r->x_api_key.length)
		return str_make(r->x_api_key.text, r->x_api_key.length);
	if (strncasecmp(r->authorization.text, "Bearer ", 7) == 0)
		return str_make(r->authorization.text + 7, r->authorization.length - 7);
	return STR_NULL;
}
