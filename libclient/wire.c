#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "libclient/internal.h"

#define READ_SIZE 65536
#define READ_TURNS 16  /* per call, so that the lock is let go of under a flood */
#define DRAIN_TURNS 64 /* far more than socket buffers hold */

static void wire_wake(struct llmkit_stream *stream)
{
	if (!list_is_empty(&stream->waiting))
		pthread_cond_signal(&stream->arrived);
}

/* Nothing more arrives; what is queued is still given out, then the failure. */
static void wire_fail(struct llmkit_stream *stream, int failure)
{
	conn_unregister(stream);
	stream->failure = failure;
	wire_wake(stream);
}

void wire_lose(struct llmkit *kit, struct conn *conn, int code)
{
	if (kit->conn != conn)
		return;
	kit->conn = NULL;
	for (uint32_t i = 0; i < conn->slots; i++)
		if (conn->slot[i])
			wire_fail(conn->slot[i], code);
	/* Sleepers unlink themselves after the connection is freed: leave no list to find. */
	while (list_pop(&conn->waiting))
		;
	/* A reader may sleep in poll() on it, so closing is left to the last reference. */
	shutdown(conn->fd, SHUT_RDWR);
	kit_notify(kit);
	conn_unref(conn);
}

/* After these nothing follows for the request id. */
static bool wire_is_last(uint8_t type)
{
	return type == FRAME_END || type == FRAME_ERROR || type == FRAME_STATUS_REPLY ||
		type == FRAME_DONE;
}

/* Copies the frame into the stream's queue; the last frame of a stream ends its registration. */
static void wire_deliver(
	struct llmkit_stream *stream, const struct frame_header *h, const char *body)
{
	struct item *item;

	if (stream->queued + h->length > STREAM_QUEUE_MAX) {
		wire_fail(stream, LLMKIT_E_TOO_LARGE);
		return;
	}
	item = malloc(sizeof(*item) + h->length + 1);
	if (!item) {
		wire_fail(stream, LLMKIT_E_NO_MEMORY);
		return;
	}
	item->next = NULL;
	item->header = *h;
	memcpy(item->body, body, h->length);
	item->body[h->length] = '\0';
	*stream->last = item;
	stream->last = &item->next;
	stream->queued += h->length;
	if (wire_is_last(h->type))
		wire_fail(stream, LLMKIT_E_ENDED);
	else
		wire_wake(stream);
}

/* ERROR for the connection: every open request gets a copy, since it says why. */
static int wire_refused(struct conn *conn, const struct frame_header *h, const char *body)
{
	for (uint32_t i = 0; i < conn->slots; i++)
		if (conn->slot[i])
			wire_deliver(conn->slot[i], h, body);
	return LLMKIT_E_DAEMON_LOST;
}

static bool wire_is_for_stream(uint8_t type)
{
	return (type >= FRAME_START && type <= FRAME_ERROR) || type == FRAME_STATUS_REPLY ||
		type == FRAME_DONE;
}

static int wire_sort(struct conn *conn, const struct frame_header *h, const char *body)
{
	struct llmkit_stream *stream;

	/* A later daemon may send more than this library knows. */
	if (!wire_is_for_stream(h->type))
		return h->type > FRAME_WELCOME ? LLMKIT_OK : LLMKIT_E_PROTOCOL;
	if (h->request_id == 0)
		return h->type == FRAME_ERROR ? wire_refused(conn, h, body) : LLMKIT_E_PROTOCOL;
	/* Unknown ids are streams that were closed while their frames were on the way. */
	stream = conn_find(conn, h->request_id);
	if (stream)
		wire_deliver(stream, h, body);
	return LLMKIT_OK;
}

/* Whole frames at the head of the buffer; their number, or LLMKIT_E_ and the rest is lost. */
static int wire_parse(struct conn *conn)
{
	struct frame_header h;
	int frames = 0;

	for (;;) {
		size_t size = buffer_length(&conn->in);
		enum frame_outcome r;
		int code;

		r = frame_decode(buffer_head(&conn->in), size, FRAME_BODY_MAX, &h);
		if (r != FRAME_OK && r != FRAME_E_MORE)
			return LLMKIT_E_PROTOCOL;
		if (r == FRAME_E_MORE || size < FRAME_HEADER_SIZE + h.length)
			return frames;
		code = wire_sort(conn, &h, buffer_head(&conn->in) + FRAME_HEADER_SIZE);
		if (code < 0)
			return code;
		buffer_consume(&conn->in, FRAME_HEADER_SIZE + h.length);
		frames++;
	}
}

int wire_read(struct llmkit *kit, struct conn *conn)
{
	int frames = 0;

	for (int turn = 0; turn < READ_TURNS; turn++) {
		ssize_t n;
		int r;

		if (buffer_reserve(&conn->in, READ_SIZE) < 0) {
			wire_lose(kit, conn, LLMKIT_E_NO_MEMORY);
			return frames;
		}
		n = recv(conn->fd, buffer_tail(&conn->in), READ_SIZE, MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n > 0)
			conn->in.end += (size_t)n;
		r = n > 0 ? wire_parse(conn) : LLMKIT_E_DAEMON_LOST;
		if (r < 0) {
			wire_lose(kit, conn, r);
			return frames;
		}
		frames += r;
		if (n < READ_SIZE)
			break;
	}
	if (buffer_length(&conn->in) == 0)
		buffer_reset(&conn->in, READ_SIZE * 2);
	return frames;
}

void wire_poll(struct llmkit *kit, struct conn *conn, short events, uint64_t deadline_ns)
{
	bool is_reader = !conn->reading;
	struct pollfd p = { .fd = conn->fd, .events = events };
	uint64_t left = kit_remaining(deadline_ns);
	struct timespec t = { .tv_sec = (time_t)(left / NSEC_PER_SEC),
		.tv_nsec = (long)(left % NSEC_PER_SEC) };
	int r;

	if (is_reader) {
		p.events |= POLLIN;
		conn->reading = true;
	}
	conn->references++;
	pthread_mutex_unlock(&kit->lock);
	r = ppoll(&p, 1, deadline_ns == DEADLINE_NEVER ? NULL : &t, NULL);
	pthread_mutex_lock(&kit->lock);
	if (is_reader) {
		conn->reading = false;
		if (r > 0 && p.revents != POLLOUT && kit->conn == conn && wire_read(kit, conn) > 0)
			kit_notify(kit);
	}
	conn_unref(conn);
}

void wire_hand_over(struct llmkit *kit)
{
	struct conn *conn = kit->conn;

	if (conn && !conn->reading && !list_is_empty(&conn->waiting))
		pthread_cond_signal(
			&container_of(conn->waiting.next, struct llmkit_stream, waiting)->arrived);
}

/* The socket's buffer is full. A daemon that takes nothing for the whole timeout is lost; while
 * waiting, what it sends is read, since it may not read before it could write. */
static int wire_await_room(struct llmkit *kit, struct conn *conn, uint64_t deadline_ns)
{
	int r = LLMKIT_OK;

	pthread_mutex_lock(&kit->lock);
	if (kit->conn == conn && kit_remaining(deadline_ns) == 0)
		wire_lose(kit, conn, LLMKIT_E_DAEMON_LOST);
	if (kit->conn == conn)
		wire_poll(kit, conn, POLLOUT, deadline_ns);
	if (kit->conn != conn)
		r = LLMKIT_E_DAEMON_LOST;
	wire_hand_over(kit);
	pthread_mutex_unlock(&kit->lock);
	return r;
}

/* The daemon is gone; what it had sent is read before that is said. */
static int wire_drain(struct llmkit *kit, struct conn *conn)
{
	pthread_mutex_lock(&kit->lock);
	for (int i = 0; i < DRAIN_TURNS && kit->conn == conn; i++)
		wire_read(kit, conn);
	wire_lose(kit, conn, LLMKIT_E_DAEMON_LOST);
	pthread_mutex_unlock(&kit->lock);
	return LLMKIT_E_DAEMON_LOST;
}

static int wire_send_some(
	struct llmkit *kit, struct conn *conn, struct buffer *frame, uint64_t *deadline_ns)
{
	ssize_t n = send(
		conn->fd, buffer_head(frame), buffer_length(frame), MSG_NOSIGNAL | MSG_DONTWAIT);

	if (n >= 0) {
		buffer_consume(frame, (size_t)n);
		*deadline_ns = clock_boottime_ns() + kit->timeout_ns;
		return LLMKIT_OK;
	}
	if (errno == EINTR)
		return LLMKIT_OK;
	if (errno == EAGAIN)
		return wire_await_room(kit, conn, *deadline_ns);
	return wire_drain(kit, conn);
}

int wire_send(struct llmkit *kit, struct conn *conn, struct buffer *frame)
{
	uint64_t deadline = clock_boottime_ns() + kit->timeout_ns;
	int r = LLMKIT_OK;

	while (r == LLMKIT_OK && buffer_length(frame) > 0)
		r = wire_send_some(kit, conn, frame, &deadline);
	return r;
}
