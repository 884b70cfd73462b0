#include <string.h>
#include "libclient/internal.h"

/*
 * A body's strings become C strings in place: the byte behind each is the head of the next msgpack
 * element, which was read already, or the NUL behind the body.
 */
static const char *event_text(struct item *item, struct str s)
{
	size_t at;

	if (s.length == 0)
		return "";
	at = (size_t)(s.data - item->body);
	item->body[at + s.length] = '\0';
	return item->body + at;
}

static int event_start(
	struct item *item, struct str body, struct llmkit_event *event, const char **why)
{
	struct msg_start m;
	int r = msg_unpack_start(body, &m, why);

	if (r != MSG_OK)
		return r;
	event->type = LLMKIT_EVENT_START;
	event->start.provider = event_text(item, m.provider);
	event->start.model = event_text(item, m.model);
	event->start.id = event_text(item, m.id);
	return r;
}

static int event_piece(
	struct item *item, struct str body, struct llmkit_event *event, const char **why)
{
	struct str text;
	int r = msg_unpack_text(body, &text, why);

	if (r != MSG_OK)
		return r;
	event->type = item->header.type == FRAME_TEXT ? LLMKIT_EVENT_TEXT : LLMKIT_EVENT_REASONING;
	event->text.data = event_text(item, text);
	event->text.length = text.length;
	return r;
}

static int event_tool_call(
	struct item *item, struct str body, struct llmkit_event *event, const char **why)
{
	struct msg_tool_call m;
	int r = msg_unpack_tool_call(body, &m, why);

	if (r != MSG_OK)
		return r;
	event->type = LLMKIT_EVENT_TOOL_CALL;
	event->tool_call.index = m.index;
	event->tool_call.id = event_text(item, m.id);
	event->tool_call.name = event_text(item, m.name);
	event->tool_call.arguments = event_text(item, m.arguments);
	return r;
}

static int event_usage(struct str body, struct llmkit_event *event, const char **why)
{
	struct msg_usage m;
	int r = msg_unpack_usage(body, &m, why);

	if (r != MSG_OK)
		return r;
	event->type = LLMKIT_EVENT_USAGE;
	event->usage.input = m.input;
	event->usage.output = m.output;
	event->usage.cached_input = m.cached_input;
	event->usage.cache_write = m.cache_write;
	event->usage.reasoning = m.reasoning;
	return r;
}

static int event_end(
	struct item *item, struct str body, struct llmkit_event *event, const char **why)
{
	struct msg_end m;
	int r = msg_unpack_end(body, &m, why);

	if (r != MSG_OK)
		return r;
	event->type = LLMKIT_EVENT_END;
	event->end.finish_reason = event_text(item, m.finish_reason);
	event->end.first_token_us = m.first_token_us;
	event->end.total_us = m.total_us;
	return r;
}

static int event_error(
	struct item *item, struct str body, struct llmkit_event *event, const char **why)
{
	struct msg_error m;
	int r = msg_unpack_error(body, &m, why);

	if (r != MSG_OK)
		return r;
	event->type = LLMKIT_EVENT_ERROR;
	event->error.code = error_of_status(m.status);
	event->error.message = event_text(item, m.message);
	event->error.provider = event_text(item, m.provider);
	event->error.http_status = m.http_status;
	event->error.retry_after_ns = m.retry_after_ns;
	event->error.limit = event_text(item, m.limit);
	event->error.received = m.received;
	return r;
}

int event_read(struct item *item, struct llmkit_event *event, const char **why)
{
	struct str body = str_make(item->body, item->header.length);

	switch (item->header.type) {
	case FRAME_START:
		return event_start(item, body, event, why);
	case FRAME_TEXT:
	case FRAME_REASONING:
		return event_piece(item, body, event, why);
	case FRAME_TOOL_CALL:
		return event_tool_call(item, body, event, why);
	case FRAME_USAGE:
		return event_usage(body, event, why);
	case FRAME_END:
		return event_end(item, body, event, why);
	case FRAME_ERROR:
		return event_error(item, body, event, why);
	default:
		*why = "the daemon sent a frame that does not belong to a stream";
		return MSG_E_SHAPE;
	}
}
