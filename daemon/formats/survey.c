#include "daemon/formats/survey.h"

#include <errno.h>
#include <string.h>
#include <yyjson.h>
#include "base/aux.h"
#include "base/error.h"
#include "daemon/formats/value.h"
#include "shm/estimate.h"
#include "shm/target.h"

/* What providers count for an image of usual size, and around each message. */
#define SURVEY_IMAGE_TOKENS 1200
#define SURVEY_MESSAGE_TOKENS 5
#define SURVEY_TOKENS_MAX UINT64_C(100000000)

/* What structure adds to the texts, per value. */
#define SURVEY_VALUE_BYTES 4

/* Bytes of all strings in v, member names included. A document's values lie one behind the other,
 * so that neither depth nor memory matters. */
static uint64_t survey_bytes(yyjson_val *v)
{
	yyjson_val *end = v ? unsafe_yyjson_get_next(v) : NULL;
	uint64_t bytes = 0;

	for (; v != end; v++)
		bytes += yyjson_is_str(v) ? yyjson_get_len(v) + SURVEY_VALUE_BYTES :
					    SURVEY_VALUE_BYTES;
	return bytes;
}

static void survey_part(struct survey *s, yyjson_val *part, uint64_t *bytes)
{
	yyjson_val *type = value_get(part, "type");

	if (value_is(type, "image_url")) {
		s->capabilities |= TARGET_VISION;
		s->input_tokens += SURVEY_IMAGE_TOKENS;
	} else {
		*bytes += survey_bytes(part);
	}
}

static void survey_messages(struct survey *s, yyjson_val *messages, uint64_t *bytes)
{
	yyjson_val *message, *part;
	size_t i, n, k, parts;

	yyjson_arr_foreach(messages, i, n, message)
	{
		yyjson_val *content = value_get(message, "content");
		yyjson_val *calls = value_get(message, "tool_calls");

		s->input_tokens += SURVEY_MESSAGE_TOKENS;
		if (yyjson_is_str(content))
			*bytes += yyjson_get_len(content);
		yyjson_arr_foreach(content, k, parts, part) survey_part(s, part, bytes);
		if (calls)
			*bytes += survey_bytes(calls);
	}
}

static uint64_t survey_number(yyjson_val *root, const char *key)
{
	yyjson_val *v = value_get(root, key);

	return yyjson_is_uint(v) ? min_u64(yyjson_get_uint(v), SURVEY_TOKENS_MAX) : 0;
}

static void survey_model(yyjson_val *root, char out[SURVEY_MODEL_MAX + 1])
{
	struct str model = value_get_str(root, "model");

	if (model.length <= SURVEY_MODEL_MAX &&
		!memchr(model.data ? model.data : "", 0, model.length))
		memcpy(out, model.data ? model.data : "", model.length);
}

static void survey_root(struct survey *s, yyjson_val *root)
{
	yyjson_val *tools = value_get(root, "tools");
	yyjson_val *schema = value_get(root, "response_format");
	yyjson_val *format = value_get(schema, "type");
	uint64_t bytes = 0;

	survey_messages(s, value_get(root, "messages"), &bytes);
	if (yyjson_arr_size(tools) > 0) {
		s->capabilities |= TARGET_TOOLS;
		bytes += survey_bytes(tools);
	}
	if (value_is(format, "json_schema")) {
		s->capabilities |= TARGET_JSON;
		bytes += survey_bytes(schema);
	}
	if (value_get(root, "reasoning_effort"))
		s->capabilities |= TARGET_REASONING;
	if (yyjson_is_true(value_get(root, "stream")))
		s->capabilities |= TARGET_STREAMING;
	s->input_tokens += estimate_input(min_u64(bytes, SURVEY_TOKENS_MAX));
	s->max_tokens = survey_number(root, "max_completion_tokens");
	if (!s->max_tokens)
		s->max_tokens = survey_number(root, "max_tokens");
	/* That is of each of the answers asked for. */
	s->max_tokens =
		min_u64(s->max_tokens * max_u64(survey_number(root, "n"), 1), SURVEY_TOKENS_MAX);
}

int survey_read(struct str body, struct survey *out, char model[SURVEY_MODEL_MAX + 1])
{
	yyjson_read_err error = { 0 };
	yyjson_doc *doc = yyjson_read_opts(
		(char *)(uintptr_t)body.data, body.length, YYJSON_READ_NOFLAG, NULL, &error);

	*out = (struct survey){ 0 };
	memset(model, 0, SURVEY_MODEL_MAX + 1);
	if (!doc && error.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
		return error_origin(-ENOMEM);
	if (doc && yyjson_is_obj(yyjson_doc_get_root(doc))) {
		survey_root(out, yyjson_doc_get_root(doc));
		survey_model(yyjson_doc_get_root(doc), model);
	}
	yyjson_doc_free(doc);
	return 0;
}
