#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "libclient/internal.h"

#define SUBMIT_TRIES 2 /* the second goes to a new connection */

/* ---- waiting ---- */

/* Sleeps until the stream was woken or the deadline; both may be untrue. lock is held. */
static void stream_sleep(struct llmkit_stream *stream, uint64_t deadline_ns)
{
	struct llmkit *kit = stream->kit;
	uint64_t left = kit_remaining(deadline_ns);
	struct timespec t;

	list_push(&stream->conn->waiting, &stream->waiting);
	if (deadline_ns == DEADLINE_NEVER) {
		pthread_cond_wait(&stream->arrived, &kit->lock);
	} else {
		/* Condition variables know no CLOCK_BOOTTIME. */
		clock_gettime(CLOCK_MONOTONIC, &t);
		left += (uint64_t)t.tv_nsec;
		t.tv_sec += (time_t)(left / NSEC_PER_SEC);
		t.tv_nsec = (long)(left % NSEC_PER_SEC);
		pthread_cond_timedwait(&stream->arrived, &kit->lock, &t);
	}
	list_unlink(&stream->waiting);
}

static void stream_pop(struct llmkit_stream *stream)
{
	struct item *item = stream->first;

	free(stream->current);
	stream->current = item;
	stream->first = item->next;
	if (!stream->first)
		stream->last = &stream->first;
	stream->queued -= item->header.length;
}

/* LLMKIT_OK with a frame taken, LLMKIT_E_WAIT_TIMEOUT, or why none will come. lock is held. */
static int stream_await(struct llmkit_stream *stream, uint64_t deadline_ns)
{
	struct llmkit *kit = stream->kit;
	bool is_last_look = false;

	for (;;) {
		if (stream->first) {
			stream_pop(stream);
			return LLMKIT_OK;
		}
		if (!stream->conn)
			return stream->failure;
		if (is_last_look)
			return LLMKIT_E_WAIT_TIMEOUT;
		/* Also a deadline in the past reads once what is there already. */
		is_last_look = kit_remaining(deadline_ns) == 0;
		if (!stream->conn->reading)
			wire_poll(kit, stream->conn, POLLIN, deadline_ns);
		else if (!is_last_look)
			stream_sleep(stream, deadline_ns);
	}
}

int stream_take(struct llmkit_stream *stream, uint64_t deadline_ns)
{
	struct llmkit *kit = stream->kit;
	int r;

	pthread_mutex_lock(&kit->lock);
	r = stream_await(stream, deadline_ns);
	wire_hand_over(kit);
	pthread_mutex_unlock(&kit->lock);
	return r;
}

/* ---- opening and closing ---- */

static struct llmkit_stream *stream_new(struct llmkit *kit)
{
	struct llmkit_stream *stream = calloc(1, sizeof(*stream));
	pthread_condattr_t attributes;

	if (!stream)
		return NULL;
	stream->kit = kit;
	stream->process = kit->process;
	stream->last = &stream->first;
	list_init(&stream->waiting);
	pthread_condattr_init(&attributes);
	pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
	pthread_cond_init(&stream->arrived, &attributes);
	pthread_condattr_destroy(&attributes);
	return stream;
}

/* The connection with one more reference, the stream registered on it; NULL: none or no room. */
static struct conn *stream_register(struct llmkit_stream *stream, int *error)
{
	struct llmkit *kit = stream->kit;
	struct conn *conn;

	pthread_mutex_lock(&kit->lock);
	conn = kit->conn;
	*error = conn ? conn_register(conn, stream) : LLMKIT_E_DAEMON_LOST;
	if (*error < 0)
		conn = NULL;
	else
		conn->references++;
	pthread_mutex_unlock(&kit->lock);
	return conn;
}

static void stream_unregister(struct llmkit_stream *stream, struct conn *conn)
{
	pthread_mutex_lock(&stream->kit->lock);
	conn_unregister(stream);
	conn_unref(conn);
	pthread_mutex_unlock(&stream->kit->lock);
}

/* One try. A frame that was not sent whole was not acted on: it may be sent again. */
static int stream_send(struct llmkit_stream *stream,
	int (*pack)(struct buffer *, uint64_t, const void *), const void *message)
{
	aux_cleanup(buffer_deinit) struct buffer frame = BUFFER_NULL;
	struct llmkit *kit = stream->kit;
	struct conn *conn;
	int r = kit_attach(kit);

	if (r < 0)
		return r;
	conn = stream_register(stream, &r);
	if (!conn)
		return r;
	r = pack(&frame, stream->id, message);
	if (r < 0)
		r = r == -EMSGSIZE ? LLMKIT_E_TOO_LARGE : LLMKIT_E_NO_MEMORY;
	else if (buffer_length(&frame) - FRAME_HEADER_SIZE > conn->body_max)
		r = LLMKIT_E_TOO_LARGE;
	else
		r = wire_send(kit, conn, &frame);
	if (r < 0) {
		stream_unregister(stream, conn);
		return r;
	}
	pthread_mutex_lock(&kit->lock);
	conn_unref(conn);
	pthread_mutex_unlock(&kit->lock);
	return LLMKIT_OK;
}

int stream_open(struct llmkit *kit, int (*pack)(struct buffer *, uint64_t, const void *),
	const void *message, struct llmkit_stream **out)
{
	struct llmkit_stream *stream = stream_new(kit);
	int r = LLMKIT_E_DAEMON_LOST;

	if (!stream)
		return LLMKIT_E_NO_MEMORY;
	pthread_mutex_lock(&kit->sending);
	for (int i = 0; i < SUBMIT_TRIES && r == LLMKIT_E_DAEMON_LOST; i++)
		r = stream_send(stream, pack, message);
	pthread_mutex_unlock(&kit->sending);
	if (r < 0) {
		llmkit_stream_close(stream);
		return r;
	}
	*out = stream;
	return LLMKIT_OK;
}

static int stream_pack_submit(struct buffer *out, uint64_t id, const void *message)
{
	return msg_pack_submit(out, id, message);
}

int llmkit_submit(llmkit *kit, const llmkit_request *request, llmkit_stream **out)
{
	aux_cleanup(buffer_deinit) struct buffer body = BUFFER_NULL;
	struct msg_submit submit;
	int r;

	if (!kit || !request || !out)
		return LLMKIT_E_ARGUMENT;
	*out = NULL;
	kit_enter(kit);
	r = request_render(request, &body, &submit);
	return r < 0 ? r : stream_open(kit, stream_pack_submit, &submit, out);
}

/* Best effort: a daemon that is lost has nothing to cancel. */
static void stream_send_cancel(struct llmkit_stream *stream)
{
	aux_cleanup(buffer_deinit) struct buffer frame = BUFFER_NULL;
	struct llmkit *kit = stream->kit;
	struct conn *conn;

	if (msg_pack_cancel(&frame, stream->id) < 0)
		return;
	pthread_mutex_lock(&kit->sending);
	pthread_mutex_lock(&kit->lock);
	conn = kit->conn;
	if (conn)
		conn->references++;
	pthread_mutex_unlock(&kit->lock);
	if (conn) {
		wire_send(kit, conn, &frame);
		pthread_mutex_lock(&kit->lock);
		conn_unref(conn);
		pthread_mutex_unlock(&kit->lock);
	}
	pthread_mutex_unlock(&kit->sending);
}

static bool stream_is_inherited(const struct llmkit_stream *stream)
{
	return stream->process != stream->kit->process;
}

int llmkit_stream_cancel(llmkit_stream *stream)
{
	bool is_open;

	if (!stream)
		return LLMKIT_E_ARGUMENT;
	kit_enter(stream->kit);
	if (stream_is_inherited(stream))
		return LLMKIT_E_FORKED;
	pthread_mutex_lock(&stream->kit->lock);
	is_open = stream->conn != NULL;
	pthread_mutex_unlock(&stream->kit->lock);
	if (is_open)
		stream_send_cancel(stream);
	return LLMKIT_OK;
}

static void stream_free(struct llmkit_stream *stream)
{
	while (stream->first)
		stream_pop(stream);
	free(stream->current);
	free(stream);
}

void llmkit_stream_close(llmkit_stream *stream)
{
	struct llmkit *kit;
	bool is_open;

	if (!stream)
		return;
	kit = stream->kit;
	kit_enter(kit);
	if (stream_is_inherited(stream)) {
		/* Its condition may have sleepers, threads of the parent: it is not destroyed. */
		if (stream->process > kit->left_behind)
			stream_free(stream);
		return;
	}
	pthread_mutex_lock(&kit->lock);
	is_open = stream->conn != NULL;
	conn_unregister(stream);
	pthread_mutex_unlock(&kit->lock);
	if (is_open)
		stream_send_cancel(stream);
	pthread_cond_destroy(&stream->arrived);
	stream_free(stream);
}

/* ---- events ---- */

static const char *stream_failure_text(int code)
{
	switch (code) {
	case LLMKIT_E_DAEMON_LOST:
		return "the daemon ended before the answer did; submit again, another may have "
		       "started";
	case LLMKIT_E_TOO_LARGE:
		return "more than 64 MiB of the answer were waiting unread; read streams as they "
		       "arrive";
	case LLMKIT_E_PROTOCOL:
		return "the daemon sent bytes the protocol does not allow; are library and daemon "
		       "of one version?";
	default:
		return llmkit_strerror(code);
	}
}

/* The stream ends here, by what the library saw. */
static void stream_fail(
	struct llmkit_stream *stream, int code, const char *message, struct llmkit_event *event)
{
	stream->ended = true;
	*event = (struct llmkit_event){
		.type = LLMKIT_EVENT_ERROR,
		.error = { .code = code,
			.message = message,
			.provider = "",
			.limit = "",
			.received = stream->received },
	};
}

/* The frame just taken as an event. A body that cannot be read ends the stream, not others. */
static void stream_read_event(struct llmkit_stream *stream, struct llmkit_event *event)
{
	const char *why = llmkit_strerror(LLMKIT_E_NO_MEMORY);
	int r = event_read(stream->current, event, &why);

	if (r != MSG_OK) {
		llmkit_stream_cancel(stream);
		stream_fail(stream, r < 0 ? LLMKIT_E_NO_MEMORY : LLMKIT_E_PROTOCOL, why, event);
		return;
	}
	if (event->type == LLMKIT_EVENT_TEXT)
		stream->received += event->text.length;
	if (event->type == LLMKIT_EVENT_END || event->type == LLMKIT_EVENT_ERROR)
		stream->ended = true;
}

int llmkit_stream_next(llmkit_stream *stream, int timeout_ms, struct llmkit_event *event)
{
	int r;

	if (!stream || !event)
		return LLMKIT_E_ARGUMENT;
	kit_enter(stream->kit);
	if (stream_is_inherited(stream))
		return LLMKIT_E_FORKED;
	if (stream->ended)
		return LLMKIT_E_ENDED;
	r = stream_take(stream, kit_deadline(timeout_ms));
	if (r == LLMKIT_E_WAIT_TIMEOUT)
		return r;
	if (r == LLMKIT_OK) {
		stream_read_event(stream, event);
		return LLMKIT_OK;
	}
	/* Given up here while the daemon goes on: it is told. */
	if (r == LLMKIT_E_TOO_LARGE || r == LLMKIT_E_NO_MEMORY)
		stream_send_cancel(stream);
	stream_fail(stream, r, stream_failure_text(r), event);
	return LLMKIT_OK;
}
