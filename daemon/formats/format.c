#include "daemon/formats/format.h"

#include <errno.h>
#include "base/error.h"
#include "daemon/formats/decoder.h"
#include "daemon/formats/formats.h"
#include "daemon/formats/value.h"

const struct format *format_find(enum family_format id)
{
	switch (id) {
	case FAMILY_FORMAT_OPENAI:
#ifdef FORMAT_OPENAI
		return &format_openai;
#else
		break;
#endif
	case FAMILY_FORMAT_ANTHROPIC:
#ifdef FORMAT_ANTHROPIC
		return &format_anthropic;
#else
		break;
#endif
	}
	return NULL;
}

int format_decoder_new(struct format_decoder **out, const struct format *format,
	const struct family *family, const struct format_sink *sink)
{
	struct format_decoder *d = calloc(1, sizeof(*d));

	if (!d)
		return error_origin(-ENOMEM);
	d->format = format;
	d->family = family;
	d->sink = *sink;
	d->usage = (struct msg_usage){ -1, -1, -1, -1, -1 };
	d->input_uncached = -1;
	*out = d;
	return 0;
}

struct format_decoder *format_decoder_free(struct format_decoder *d)
{
	if (!d)
		return NULL;
	sse_deinit(&d->sse);
	buffer_deinit(&d->body);
	buffer_deinit(&d->text);
	free(d);
	return NULL;
}

struct msg_usage format_decoder_usage(const struct format_decoder *d)
{
	return d->usage;
}

uint64_t format_decoder_received(const struct format_decoder *d)
{
	return d->received;
}

/* Fills what a status without words of its own needs. */
static enum status decoder_fail(
	struct format_decoder *d, enum status status, const char *text, struct msg_error *error)
{
	d->status = status;
	error->status = status;
	if (!error->message.length)
		error->message = str_of(text ? text : status_text(status));
	error->received = d->received;
	return status;
}

enum status decoder_malformed(struct format_decoder *d, const char *what, struct msg_error *error)
{
	buffer_reset(&d->text, SIZE_MAX);
	if (buffer_printf(&d->text, "the provider's answer is not what its format promises: %s",
		    what) == 0)
		error->message = buffer_str(&d->text);
	error->http_status = 200;
	return STATUS_MALFORMED;
}

enum status decoder_read(struct format_decoder *d, struct decoder_arena *arena, struct str text,
	const char *what, yyjson_doc **out, struct msg_error *error)
{
	yyjson_read_err why = { 0 };
	bool fits = yyjson_read_max_memory_usage(text.length, 0) <= sizeof(arena->bytes) &&
		yyjson_alc_pool_init(&arena->alc, arena->bytes, sizeof(arena->bytes));

	/* yyjson does not write to the text without its in-situ flag. */
	*out = yyjson_read_opts((char *)(uintptr_t)text.data, text.length,
		YYJSON_READ_BIGNUM_AS_RAW, fits ? &arena->alc : NULL, &why);
	if (*out)
		return STATUS_OK;
	if (why.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION)
		return STATUS_NO_MEMORY;
	buffer_reset(&d->text, SIZE_MAX);
	if (buffer_printf(&d->text, "the provider's %s is not JSON: %s at byte %zu of %zu", what,
		    why.msg ? why.msg : "error", why.pos, text.length) == 0)
		error->message = buffer_str(&d->text);
	error->http_status = 200;
	return STATUS_MALFORMED;
}

enum status decoder_start(struct format_decoder *d, struct str id, struct str model)
{
	if (d->started)
		return STATUS_OK;
	d->started = true;
	if (d->sink.start(d->sink.context, &(struct msg_start){ .id = id, .model = model }))
		return STATUS_CANCELLED;
	return STATUS_OK;
}

enum status decoder_text(struct format_decoder *d, enum frame_type type, struct str text)
{
	if (text.length == 0)
		return STATUS_OK;
	d->received += text.length;
	return d->sink.text(d->sink.context, type, text) ? STATUS_CANCELLED : STATUS_OK;
}

enum status decoder_tool_call(struct format_decoder *d, const struct msg_tool_call *m)
{
	return d->sink.tool_call(d->sink.context, m) ? STATUS_CANCELLED : STATUS_OK;
}

void decoder_finish_reason(struct format_decoder *d, struct str reason)
{
	static const struct {
		const char *provider, *normal;
	} names[] = {
		{ "end_turn", "stop" },
		{ "stop_sequence", "stop" },
		{ "eos", "stop" },
		{ "max_tokens", "length" },
		{ "model_length", "length" },
		{ "tool_use", "tool_calls" },
		{ "function_call", "tool_calls" },
		{ "refusal", "content_filter" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (str_is(reason, names[i].provider))
			reason = str_of(names[i].normal);
	d->finish_length = (uint8_t)min_u64(reason.length, sizeof(d->finish));
	if (d->finish_length)
		memcpy(d->finish, reason.data, d->finish_length);
}

static int on_event(void *context, struct str name, struct str data)
{
	struct format_decoder *d = context;

	d->status = d->format->event(d, name, data, d->error);
	return d->status != STATUS_OK;
}

enum status format_decoder_feed(
	struct format_decoder *d, bool stream, struct str bytes, struct msg_error *error)
{
	enum sse_outcome r = SSE_OK;

	if (d->status != STATUS_OK)
		return decoder_fail(d, d->status, NULL, error);
	if (!stream) {
		if (buffer_append_str(&d->body, bytes) < 0)
			return decoder_fail(d, STATUS_NO_MEMORY, NULL, error);
		return STATUS_OK;
	}
	d->error = error;
	r = sse_feed(&d->sse, bytes, on_event, d);
	d->error = NULL;
	switch (r) {
	case SSE_OK:
		break;
	case SSE_E_STOPPED:
		return decoder_fail(d, d->status, NULL, error);
	case SSE_E_NO_MEMORY:
		return decoder_fail(d, STATUS_NO_MEMORY, NULL, error);
	case SSE_E_TOO_LARGE:
		return decoder_fail(d, STATUS_MALFORMED,
			"the provider sent one stream event above the size limit", error);
	}
	return STATUS_OK;
}

/* Whether the stream ended as its format says; see format.h. */
static bool stream_is_whole(const struct format_decoder *d)
{
	if (!d->started || d->finish_length == 0)
		return false;
	if (d->ended)
		return true;
	if (!d->format->ends_with_body)
		return false;
	/* Some servers forget the blank line after it. */
	return !sse_is_pending(&d->sse) ||
		(d->sse.has_data && str_is(buffer_str(&d->sse.held), "[DONE]")) ||
		str_is(buffer_str(&d->sse.held), "data: [DONE]");
}

enum status format_decoder_finish(
	struct format_decoder *d, bool stream, struct msg_end *end, struct msg_error *error)
{
	if (d->status != STATUS_OK)
		return decoder_fail(d, d->status, NULL, error);
	if (!stream) {
		d->status = d->format->answer(d, buffer_str(&d->body), error);
		buffer_deinit(&d->body);
		if (d->status != STATUS_OK)
			return decoder_fail(d, d->status, NULL, error);
		if (d->finish_length == 0)
			return decoder_fail(d, STATUS_TRUNCATED,
				"the provider's answer gives no reason why it ended", error);
	} else if (!stream_is_whole(d)) {
		return decoder_fail(d, STATUS_TRUNCATED,
			"the provider's stream ended without its terminal event", error);
	}
	*end = (struct msg_end){ .finish_reason = str_make(d->finish, d->finish_length) };
	return STATUS_OK;
}

enum status format_decoder_classify(
	struct format_decoder *d, unsigned http_status, struct str body, struct msg_error *error)
{
	return decoder_fail(d, d->format->classify(d, http_status, body, error), NULL, error);
}
