/*
 * A provider's answer or a client's request: the first byte says for which format and as what.
 * A stream gives the same events and verdict whole and in pieces; a success has a finish reason;
 * an error has words; what is built is JSON.
 */

#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <yyjson.h>
#include "daemon/formats/format.h"

enum task { TASK_STREAM, TASK_ANSWER, TASK_CLASSIFY, TASK_BUILD, TASK_COUNT };

static const char *const examples[][TASK_COUNT] = {
	{ "data: "
	  "{\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\",\"tool_calls\":["
	  "{\"index\":0,\"id\":\"t\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
	  "\"finish_reason\":\"stop\"}],\"usage\":{\"prompt_tokens\":1}}\n\ndata: [DONE]\n\n",
		"{\"id\":\"x\",\"choices\":[{\"message\":{\"content\":[{\"type\":\"text\",\"text\":"
		"\"a\"}],"
		"\"reasoning\":\"r\"},\"finish_reason\":\"stop\"}],\"usage\":{\"completion_"
		"tokens\":7}}",
		"[{\"error\":{\"message\":\"key sk-abc\",\"type\":\"t\",\"code\":\"429\"}}]",
		"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"stream\":"
		"true,"
		"\"stream_options\":{\"a\":1},\"seed\":1}" },
	{ "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"x\"}}\n\n"
	  "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":"
	  "\"tool_use\",\"id\":\"t\",\"name\":\"f\"}}\n\ndata: {\"type\":\"content_block_delta\","
	  "\"index\":0,\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n\n"
	  "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":"
	  "{\"output_tokens\":3}}\n\ndata: {\"type\":\"message_stop\"}\n\n",
		"{\"id\":\"m\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_"
		"use\","
		"\"input\":{}}],\"stop_reason\":\"end_turn\",\"usage\":{\"input_tokens\":3}}",
		"{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}",
		"{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"assistant\","
		"\"tool_calls\":[{\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]"
		"},"
		"{\"role\":\"tool\",\"tool_call_id\":\"a\",\"content\":[{\"type\":\"image_url\","
		"\"image_url\":{\"url\":\"data:a;base64,b\"}}]}],\"tools\":[{\"function\":{"
		"\"name\":"
		"\"f\"}}],\"tool_choice\":\"auto\",\"stop\":\"x\",\"user\":\"u\"}" },
};

bool fuzz_example(unsigned n, struct buffer *out)
{
	char first = (char)n;

	return n < ARRAY_SIZE(examples) * TASK_COUNT && buffer_append(out, &first, 1) == 0 &&
		buffer_append_str(out, str_of(examples[n / TASK_COUNT][n % TASK_COUNT])) == 0;
}

static int on_start(void *context, const struct msg_start *m)
{
	return buffer_printf(context, "S%zu,%zu;", m->id.length, m->model.length);
}

static int on_text(void *context, enum frame_type type, struct str text)
{
	FUZZ_CHECK(text.length > 0);
	FUZZ_CHECK(buffer_printf(context, "T%d;", (int)type) == 0);
	return buffer_append_str(context, text);
}

static int on_tool_call(void *context, const struct msg_tool_call *m)
{
	FUZZ_CHECK(buffer_printf(context, "C%u,%zu;", m->index, m->id.length) == 0);
	return buffer_append_str(context, m->arguments);
}

static void decode(
	const struct family *f, bool stream, struct str in, size_t piece, struct buffer *trace)
{
	aux_cleanup(format_decoder_freep) struct format_decoder *d = NULL;
	struct format_sink sink = { on_start, on_text, on_tool_call, trace };
	struct msg_error error = { 0 };
	struct msg_end end = { 0 };
	enum status status = STATUS_OK;

	FUZZ_CHECK(format_decoder_new(&d, format_find(f->format), f, &sink) == 0);
	for (size_t at = 0; status == STATUS_OK && at < in.length;
		at += min_u64(piece, in.length - at))
		status = format_decoder_feed(
			d, stream, str_make(in.data + at, min_u64(piece, in.length - at)), &error);
	status = format_decoder_finish(d, stream, &end, &error);
	FUZZ_CHECK(status == STATUS_OK ? end.finish_reason.length > 0 :
					 error.message.length > 0 && error.status == status);
	FUZZ_CHECK(buffer_printf(trace, "%d", (int)status) == 0);
}

static void decode_alike(const struct family *f, bool stream, struct str in)
{
	static const size_t pieces[] = { 1, 7, 64 };
	aux_cleanup(buffer_deinit) struct buffer whole = BUFFER_NULL;

	decode(f, stream, in, SIZE_MAX, &whole);
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		aux_cleanup(buffer_deinit) struct buffer split = BUFFER_NULL;

		decode(f, stream, in, pieces[i], &split);
		FUZZ_CHECK(str_equal(buffer_str(&whole), buffer_str(&split)));
	}
}

static void classify(const struct family *f, struct str in)
{
	aux_cleanup(format_decoder_freep) struct format_decoder *d = NULL;
	struct format_sink sink = { on_start, on_text, on_tool_call, NULL };
	struct msg_error error = { 0 };
	unsigned http_status = in.length ? 300 + (unsigned char)in.data[0] : 500;

	FUZZ_CHECK(format_decoder_new(&d, format_find(f->format), f, &sink) == 0);
	FUZZ_CHECK(format_decoder_classify(d, http_status, in, &error) != STATUS_OK);
	FUZZ_CHECK(error.message.length > 0 && error.message.length < 600);
	for (size_t i = 0; i < error.message.length; i++)
		FUZZ_CHECK((unsigned char)error.message.data[i] >= 0x20);
}

static void build(const struct family *f, struct str in)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;
	struct format_request q = { .family = f, .body = in, .model = str_of("m") };
	struct format_plan plan;
	const char *why = NULL;
	int r = format_find(f->format)->build(&q, &out, &plan, &why);
	yyjson_doc *doc;

	FUZZ_CHECK(r >= 0);
	if (r != 0) {
		FUZZ_CHECK(why && *why && buffer_length(&out) == 0);
		return;
	}
	doc = yyjson_read(buffer_head(&out), buffer_length(&out), YYJSON_READ_NUMBER_AS_RAW);
	FUZZ_CHECK(yyjson_equals_str(yyjson_obj_get(yyjson_doc_get_root(doc), "model"), "m"));
	yyjson_doc_free(doc);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t count;
	const struct family *families = family_table(&count), *f;
	struct str in;

	if (size == 0)
		return 0;
	f = &families[data[0] / TASK_COUNT % 2 ? count - 1 : data[0] / TASK_COUNT / 2 % count];
	in = str_make(data + 1, size - 1);
	switch (data[0] % TASK_COUNT) {
	case TASK_STREAM:
	case TASK_ANSWER:
		decode_alike(f, data[0] % TASK_COUNT == TASK_STREAM, in);
		break;
	case TASK_CLASSIFY:
		classify(f, in);
		break;
	case TASK_BUILD:
		build(f, in);
		break;
	}
	return 0;
}
