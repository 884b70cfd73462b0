#include "daemon/io/conn.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"

#define FINISH_NS NSEC_PER_SEC
/* An idle connection keeps at most this much of its output buffer. */
#define OUT_KEEP 4096

struct conn {
	struct loop *loop;
	struct loop_receiver receiver;
	struct loop_watch writable;
	struct loop_deferred flush;
	struct loop_timer input_timer;  /* HELLO, or the end of a partial frame */
	struct loop_timer output_timer; /* no progress, or the end of conn_finish() */
	struct conn_events events;
	struct listener_peer peer;
	void *user;
	struct buffer in, out;
	uint32_t body_max;
	int fd, attached;
	unsigned busy; /* callbacks of ours on the stack: conn_free() waits for them */
	bool ready;
	bool deaf;      /* reads nothing more: bad input, finishing or closed */
	bool held;      /* reads nothing while output is high */
	bool pressured; /* the owner was told so */
	bool finishing, closed, freed;
};

/* ---- life ---- */

static void conn_destroy(struct conn *c)
{
	buffer_deinit(&c->in);
	buffer_deinit(&c->out);
	free(c);
}

static void conn_enter(struct conn *c)
{
	c->busy++;
}

static void conn_leave(struct conn *c)
{
	if (--c->busy == 0 && c->freed)
		conn_destroy(c);
}

static void conn_stop_input(struct conn *c)
{
	c->deaf = true;
	loop_receiver_cancel(c->loop, &c->receiver);
	loop_timer_cancel(c->loop, &c->input_timer);
}

static void conn_stop(struct conn *c)
{
	conn_stop_input(c);
	loop_watch_cancel(c->loop, &c->writable);
	loop_deferred_cancel(c->loop, &c->flush);
	loop_timer_cancel(c->loop, &c->output_timer);
	if (c->fd < 0)
		return;
	/* The cancelled operations still hold the socket inside the kernel. */
	shutdown(c->fd, SHUT_RDWR);
	close(steal_fd(&c->fd));
}

static void conn_close(struct conn *c)
{
	if (c->closed)
		return;
	c->closed = true;
	conn_stop(c);
	conn_enter(c);
	c->events.closed(c->events.context, c);
	conn_leave(c);
}

static void conn_bad(struct conn *c, const char *why)
{
	conn_stop_input(c);
	conn_enter(c);
	c->events.bad(c->events.context, c, why);
	conn_leave(c);
}

struct conn *conn_free(struct conn *c)
{
	if (!c)
		return NULL;
	c->closed = true;
	conn_stop(c);
	c->freed = true;
	if (!c->busy)
		conn_destroy(c);
	return NULL;
}

/* ---- input ---- */

static const char *frame_outcome_why(enum frame_outcome outcome, bool ready)
{
	if (outcome == FRAME_E_RESERVED)
		return "reserved bits of a frame header are set: not this protocol, or a newer one";
	if (ready)
		return "the frame is longer than the daemon reads";
	return "the first frame is longer than a HELLO can be";
}

/* Hands out whole frames at the head of the bytes; returns how many bytes are done with. */
static size_t conn_parse(struct conn *c, const char *data, size_t size)
{
	struct frame_header h = { 0 };
	size_t used = 0;

	while (!c->deaf && !c->held) {
		enum frame_outcome outcome =
			frame_decode(data + used, size - used, c->body_max, &h);

		if (outcome == FRAME_E_MORE)
			break;
		if (outcome != FRAME_OK) {
			conn_bad(c, frame_outcome_why(outcome, c->ready));
			break;
		}
		if (size - used - FRAME_HEADER_SIZE < h.length)
			break;
		c->events.frame(c->events.context, c, &h,
			str_make(data + used + FRAME_HEADER_SIZE, h.length));
		used += FRAME_HEADER_SIZE + (size_t)h.length;
		c->held = c->pressured || buffer_length(&c->out) >= CONN_OUT_HIGH;
	}
	return used;
}

/* How many bytes the frame at the head of the input buffer still lacks; 0 when not known. */
static size_t conn_lacks(const struct conn *c)
{
	size_t have = buffer_length(&c->in);
	struct frame_header h = { 0 };

	if (have < FRAME_HEADER_SIZE)
		return FRAME_HEADER_SIZE - have;
	if (frame_decode(buffer_head(&c->in), have, c->body_max, &h) != FRAME_OK)
		return 0;
	if (have - FRAME_HEADER_SIZE >= h.length)
		return 0;
	return h.length - (have - FRAME_HEADER_SIZE);
}

/* Frames from the buffer, which is filled up from the new bytes only as far as its frame goes:
 * what follows is used where it lies. Returns how many of the new bytes are done with. */
static size_t conn_parse_kept(struct conn *c, const char *data, size_t size)
{
	size_t taken = 0, used;

	while (!c->deaf && !c->held && buffer_length(&c->in)) {
		size_t n = conn_lacks(c);

		n = n < size - taken ? n : size - taken;
		if (buffer_append(&c->in, data + taken, n) < 0) {
			conn_close(c);
			return size;
		}
		taken += n;
		used = conn_parse(c, buffer_head(&c->in), buffer_length(&c->in));
		/* A body that was handed out may lie in the buffer: freed only now. */
		buffer_consume(&c->in, used);
		if (!used && !n)
			break;
	}
	return taken;
}

/* The deadline counts from the first byte of the frame that is incomplete now. */
static void conn_set_deadline(struct conn *c, bool moved)
{
	if (!c->ready || c->deaf)
		return;
	if (!buffer_length(&c->in) || c->held) {
		loop_timer_cancel(c->loop, &c->input_timer);
		return;
	}
	if (loop_timer_is_started(&c->input_timer) && !moved)
		return;
	if (loop_timer_start(c->loop, &c->input_timer,
		    loop_now(c->loop) + CONN_PARTIAL_SECONDS * NSEC_PER_SEC) < 0)
		conn_close(c);
}

/* Takes new bytes (none after a pause). The caller holds the connection busy. */
static void conn_input(struct conn *c, const char *data, size_t size)
{
	bool had = buffer_length(&c->in) > 0, moved;
	size_t kept = conn_parse_kept(c, data, size), used = kept;

	if (!buffer_length(&c->in))
		used += conn_parse(c, data + kept, size - kept);
	moved = !had || used > kept || !buffer_length(&c->in);
	if (c->deaf) {
		buffer_deinit(&c->in);
		return;
	}
	if (buffer_append(&c->in, data + used, size - used) < 0) {
		conn_close(c);
		return;
	}
	if (!buffer_length(&c->in))
		buffer_deinit(&c->in);
	conn_set_deadline(c, moved);
	if (c->held && !c->deaf) {
		loop_receiver_pause(c->loop, &c->receiver);
		conn_flush_later(c);
	}
}

static void conn_received(struct loop_receiver *r, const void *data, ssize_t n)
{
	struct conn *c = container_of(r, struct conn, receiver);

	conn_enter(c);
	if (n > 0)
		conn_input(c, data, (size_t)n);
	else
		conn_close(c);
	conn_leave(c);
}

static void conn_input_late(struct loop_timer *t)
{
	struct conn *c = container_of(t, struct conn, input_timer);

	conn_bad(c, c->ready ? "a frame stayed incomplete for too long" : "no HELLO came in time");
}

/* ---- output ---- */

static ssize_t conn_send(struct conn *c)
{
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec bytes = { buffer_head(&c->out), buffer_length(&c->out) };
	struct msghdr m = { .msg_iov = &bytes, .msg_iovlen = 1 };
	struct cmsghdr *rights;
	ssize_t n;

	if (c->attached >= 0) {
		m.msg_control = control.space;
		m.msg_controllen = sizeof(control.space);
		rights = CMSG_FIRSTHDR(&m);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(rights), &c->attached, sizeof(int));
	}
	do
		n = sendmsg(c->fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c->attached = -1;
	return n;
}

/* Waits for room. Progress moves the deadline, but that of conn_finish() stands. */
static int conn_await_room(struct conn *c, bool progress)
{
	int r = 0;

	if (!loop_watch_is_started(&c->writable))
		r = loop_watch_start(c->loop, &c->writable, c->fd, POLLOUT);
	if (r == 0 && !c->finishing && (progress || !loop_timer_is_started(&c->output_timer)))
		r = loop_timer_start(c->loop, &c->output_timer,
			loop_now(c->loop) + CONN_STALL_SECONDS * NSEC_PER_SEC);
	return r;
}

/* 0, or -errno when the connection is over. */
static int conn_write(struct conn *c)
{
	ssize_t n;

	if (!buffer_length(&c->out) || loop_watch_is_started(&c->writable))
		return 0;
	n = conn_send(c);
	if (n < 0 && n != -EAGAIN)
		return (int)n;
	if (n > 0)
		buffer_consume(&c->out, (size_t)n);
	if (buffer_length(&c->out))
		return conn_await_room(c, n > 0);
	buffer_reset(&c->out, OUT_KEEP);
	if (!c->finishing)
		loop_timer_cancel(c->loop, &c->output_timer);
	return 0;
}

/* Tells the owner, and reads on when output is low again. */
static void conn_balance(struct conn *c)
{
	size_t waiting = buffer_length(&c->out);

	if (!c->pressured && waiting >= CONN_OUT_HIGH) {
		c->pressured = c->held = true;
		loop_receiver_pause(c->loop, &c->receiver);
		loop_timer_cancel(c->loop, &c->input_timer);
		c->events.pressure(c->events.context, c, true);
	} else if (c->pressured && waiting <= CONN_OUT_LOW) {
		c->pressured = false;
		c->events.pressure(c->events.context, c, false);
	}
	if (c->held && !c->pressured && !c->deaf) {
		c->held = false;
		loop_receiver_resume(c->loop, &c->receiver);
		conn_input(c, NULL, 0);
	}
}

static void conn_flush(struct conn *c)
{
	conn_enter(c);
	if (conn_write(c) < 0 || (c->finishing && !buffer_length(&c->out)))
		conn_close(c);
	else if (!c->finishing)
		conn_balance(c);
	conn_leave(c);
}

static void conn_flush_deferred(struct loop_deferred *d)
{
	conn_flush(container_of(d, struct conn, flush));
}

static void conn_writable(struct loop_watch *w, uint32_t revents)
{
	(void)revents; /* a failed socket fails the write */
	conn_flush(container_of(w, struct conn, writable));
}

static void conn_output_late(struct loop_timer *t)
{
	conn_close(container_of(t, struct conn, output_timer));
}

struct buffer *conn_output(struct conn *c)
{
	return &c->out;
}

void conn_flush_later(struct conn *c)
{
	if (!c->closed)
		loop_deferred_start(c->loop, &c->flush);
}

void conn_attach_fd(struct conn *c, int fd)
{
	c->attached = fd;
}

void conn_finish(struct conn *c)
{
	if (c->closed || c->finishing)
		return;
	c->finishing = true;
	conn_stop_input(c);
	/* Without a timer it may not linger: what the first write does not take is lost. */
	if (loop_timer_start(c->loop, &c->output_timer, loop_now(c->loop) + FINISH_NS) < 0)
		buffer_reset(&c->out, 0);
	conn_flush_later(c);
}

/* ---- the rest ---- */

int conn_new(struct conn **out, struct loop *loop, int fd, const struct listener_peer *peer,
	const struct conn_events *events)
{
	struct conn *c aux_cleanup(freep) = malloc(sizeof(*c));
	int r;

	if (!c)
		return error_origin(-ENOMEM);
	*c = (struct conn){
		.loop = loop,
		.receiver.fn = conn_received,
		.writable.fn = conn_writable,
		.flush.fn = conn_flush_deferred,
		.input_timer.fn = conn_input_late,
		.output_timer.fn = conn_output_late,
		.events = *events,
		.peer = *peer,
		.body_max = FRAME_HELLO_MAX,
		.fd = fd,
		.attached = -1,
	};
	r = loop_timer_start(
		loop, &c->input_timer, loop_now(loop) + CONN_HELLO_SECONDS * NSEC_PER_SEC);
	if (r < 0)
		return error_trace(r);
	r = loop_receiver_start(loop, &c->receiver, fd);
	if (r < 0) {
		loop_timer_cancel(loop, &c->input_timer);
		return error_trace(r);
	}
	*out = steal_ptr(c);
	return 0;
}

const struct listener_peer *conn_peer(const struct conn *c)
{
	return &c->peer;
}

void *conn_user(const struct conn *c)
{
	return c->user;
}

void conn_set_user(struct conn *c, void *user)
{
	c->user = user;
}

void conn_set_ready(struct conn *c, uint32_t body_max)
{
	c->ready = true;
	c->body_max = body_max;
	loop_timer_cancel(c->loop, &c->input_timer);
}
