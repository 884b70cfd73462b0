#include <stdlib.h>
#include <string.h>
#include "libclient/internal.h"
#include "proto/utf8.h"

/* Questions that the daemon answers with one frame: DONE. */

static int control_pack_resolve(struct buffer *out, uint64_t id, const void *message)
{
	return msg_pack_resolve(out, id, message);
}

static int control_pack_command(struct buffer *out, uint64_t id, const void *message)
{
	return msg_pack_command(out, id, message);
}

static int control_copy(struct str text, char **out)
{
	if (!out || text.length == 0)
		return LLMKIT_OK;
	*out = str_dup(text);
	return *out ? LLMKIT_OK : LLMKIT_E_NO_MEMORY;
}

static int control_read(const struct item *item, char **message)
{
	struct str body = str_make(item->body, item->header.length);
	struct msg_error error;
	struct msg_done done;
	const char *why;
	int r;

	if (item->header.type == FRAME_ERROR && msg_unpack_error(body, &error, &why) == MSG_OK) {
		r = control_copy(error.message, message);
		return r < 0 ? r : error_of_status(error.status);
	}
	if (item->header.type != FRAME_DONE || msg_unpack_done(body, &done, &why) != MSG_OK)
		return LLMKIT_E_PROTOCOL;
	r = control_copy(done.message, message);
	return r < 0 || done.status == STATUS_OK ? r : error_of_status(done.status);
}

static int control_ask(struct llmkit *kit, int (*pack)(struct buffer *, uint64_t, const void *),
	const void *question, uint64_t deadline_ns, char **message)
{
	struct llmkit_stream *stream = NULL;
	int r = stream_open(kit, pack, question, &stream);

	if (r < 0)
		return r;
	r = stream_take(stream, deadline_ns);
	if (r == LLMKIT_OK)
		r = control_read(stream->current, message);
	llmkit_stream_close(stream);
	return r;
}

int control_resolve(struct llmkit *kit, const struct msg_resolve *names)
{
	return control_ask(
		kit, control_pack_resolve, names, clock_boottime_ns() + kit->timeout_ns, NULL);
}

static bool control_is_name(struct str name)
{
	return name.length <= MSG_NAME_MAX && utf8_is_name(name);
}

int llmkit_command(llmkit *kit, const char *verb, const char *name, int timeout_ms, char **message)
{
	const struct msg_command command = { .verb = str_of(verb), .name = str_of(name) };

	if (message)
		*message = NULL;
	if (!kit || command.verb.length == 0 || !control_is_name(command.verb) ||
		!control_is_name(command.name))
		return LLMKIT_E_ARGUMENT;
	kit_enter(kit);
	return control_ask(kit, control_pack_command, &command, kit_deadline(timeout_ms), message);
}
