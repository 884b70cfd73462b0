#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "libclient/internal.h"

#define HANDSHAKE_READ 16384
#define DESCRIPTORS_MAX 4 /* one is promised; more are taken to be closed, not lost */
#define SLOTS_MIN 16
#define SLOTS_MAX (UINT32_C(1) << CONN_SLOT_BITS)

struct conn *conn_unref(struct conn *conn)
{
	if (!conn || --conn->references > 0)
		return NULL;
	closep(&conn->fd);
	buffer_deinit(&conn->in);
	free(conn->slot);
	free(conn);
	return NULL;
}

static void conn_unrefp(struct conn **conn)
{
	conn_unref(*conn);
}

static struct conn *conn_new(void)
{
	struct conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return NULL;
	conn->references = 1;
	conn->fd = -1;
	list_init(&conn->waiting);
	return conn;
}

/* ---- streams by id: slot number in the low bits, the handle's sequence number above ---- */

static bool conn_grow(struct conn *conn)
{
	uint32_t slots = conn->slots ? conn->slots * 2 : SLOTS_MIN;
	struct llmkit_stream **slot;

	if (slots > SLOTS_MAX)
		return false;
	slot = realloc(conn->slot, slots * sizeof(struct llmkit_stream *));
	if (!slot)
		return false;
	memset(slot + conn->slots, 0, (slots - conn->slots) * sizeof(struct llmkit_stream *));
	conn->hint = conn->slots;
	conn->slot = slot;
	conn->slots = slots;
	return true;
}

int conn_register(struct conn *conn, struct llmkit_stream *stream)
{
	/* At most half are used, so that the search below is short. */
	if (conn->open * 2 >= conn->slots && !conn_grow(conn))
		return LLMKIT_E_NO_MEMORY;
	while (conn->slot[conn->hint])
		conn->hint = (conn->hint + 1) % conn->slots;
	conn->slot[conn->hint] = stream;
	conn->open++;
	stream->id = ++stream->kit->sequence << CONN_SLOT_BITS | conn->hint;
	stream->conn = conn;
	return LLMKIT_OK;
}

void conn_unregister(struct llmkit_stream *stream)
{
	struct conn *conn = stream->conn;

	if (!conn)
		return;
	conn->slot[stream->id & (SLOTS_MAX - 1)] = NULL;
	conn->open--;
	stream->conn = NULL;
}

struct llmkit_stream *conn_find(const struct conn *conn, uint64_t id)
{
	uint64_t slot = id & (SLOTS_MAX - 1);
	struct llmkit_stream *stream = slot < conn->slots ? conn->slot[slot] : NULL;

	return stream && stream->id == id ? stream : NULL;
}

/* ---- connecting ---- */

static int conn_error(int error)
{
	switch (error) {
	case ENOENT:
	case ENOTDIR:
	case ECONNREFUSED:
		return LLMKIT_E_NO_DAEMON;
	case EACCES:
	case EPERM:
		return LLMKIT_E_REFUSED;
	case EAGAIN:
		return LLMKIT_E_WAIT_TIMEOUT;
	case EPIPE:
	case ECONNRESET:
		return LLMKIT_E_DAEMON_LOST;
	default:
		errno = error;
		return LLMKIT_E_SYSTEM;
	}
}

/* A full backlog makes connect() wait; for Unix sockets the send timeout bounds that, where a
 * non-blocking connect would fail at once with nothing to poll for. */
static int conn_connect(struct conn *conn, const char *path, uint64_t deadline_ns)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval timeout;
	size_t length = strlen(path);
	uint64_t left;

	if (length >= sizeof(address.sun_path))
		return LLMKIT_E_ARGUMENT;
	memcpy(address.sun_path, path, length);
	do {
		left = max_u64(kit_remaining(deadline_ns), NSEC_PER_MSEC) / NSEC_PER_USEC;
		timeout = (struct timeval){ .tv_sec = (time_t)(left / 1000000),
			.tv_usec = (suseconds_t)(left % 1000000) };
		if (setsockopt(conn->fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
			return conn_error(errno);
		if (connect(conn->fd, (struct sockaddr *)&address, sizeof(address)) == 0)
			return LLMKIT_OK;
	} while (errno == EINTR);
	return conn_error(errno);
}

static int conn_wait(struct conn *conn, short events, uint64_t deadline_ns)
{
	struct pollfd p = { .fd = conn->fd, .events = events };

	for (;;) {
		uint64_t left = kit_remaining(deadline_ns);
		struct timespec t = { .tv_sec = (time_t)(left / NSEC_PER_SEC),
			.tv_nsec = (long)(left % NSEC_PER_SEC) };
		int r = ppoll(&p, 1, &t, NULL);

		if (r > 0)
			return LLMKIT_OK;
		if (r == 0)
			return LLMKIT_E_WAIT_TIMEOUT;
		if (errno != EINTR)
			return LLMKIT_E_SYSTEM;
	}
}

static int conn_send_all(struct conn *conn, struct buffer *out, uint64_t deadline_ns)
{
	int r = LLMKIT_OK;

	while (r == LLMKIT_OK && buffer_length(out) > 0) {
		ssize_t n = send(conn->fd, buffer_head(out), buffer_length(out),
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n >= 0)
			buffer_consume(out, (size_t)n);
		else if (errno == EAGAIN)
			r = conn_wait(conn, POLLOUT, deadline_ns);
		else if (errno != EINTR)
			r = conn_error(errno);
	}
	return r;
}

static int conn_send_hello(struct conn *conn, const char *client, uint64_t deadline_ns)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;
	struct msg_hello hello = {
		.version_min = PROTOCOL_VERSION_MIN,
		.version_max = PROTOCOL_VERSION_MAX,
		.pid = (uint64_t)getpid(),
		.client = str_of(client),
		.control = true,
	};

	if (msg_pack_hello(&out, &hello) < 0)
		return LLMKIT_E_NO_MEMORY;
	return conn_send_all(conn, &out, deadline_ns);
}

/* Keeps the first descriptor that ever comes, closes all others. */
static void conn_take_descriptors(struct msghdr *message, int *region_fd)
{
	int fd;

	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t at = CMSG_LEN(0); at + sizeof(fd) <= c->cmsg_len; at += sizeof(fd)) {
			memcpy(&fd, (char *)c + at, sizeof(fd));
			if (*region_fd < 0)
				*region_fd = fd;
			else
				close(fd);
		}
	}
}

/* One read of the handshake, with its descriptors. */
static int conn_receive(struct conn *conn, int *region_fd)
{
	union {
		char bytes[CMSG_SPACE(DESCRIPTORS_MAX * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec io;
	struct msghdr message = { .msg_iov = &io,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control) };
	ssize_t n;

	if (buffer_reserve(&conn->in, HANDSHAKE_READ) < 0)
		return LLMKIT_E_NO_MEMORY;
	io = (struct iovec){ buffer_tail(&conn->in), HANDSHAKE_READ };
	n = recvmsg(conn->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return LLMKIT_OK;
	if (n <= 0)
		return n == 0 ? LLMKIT_E_DAEMON_LOST : conn_error(errno);
	conn->in.end += (size_t)n;
	conn_take_descriptors(&message, region_fd);
	return LLMKIT_OK;
}

static int conn_read_welcome(struct str body, struct msg_welcome *welcome)
{
	const char *why;

	if (msg_unpack_welcome(body, welcome, &why) != MSG_OK)
		return LLMKIT_E_PROTOCOL;
	if (welcome->version < PROTOCOL_VERSION_MIN || welcome->version > PROTOCOL_VERSION_MAX)
		return LLMKIT_E_VERSION;
	return LLMKIT_OK;
}

static int conn_read_refusal(struct str body)
{
	struct msg_error error;
	const char *why;

	if (msg_unpack_error(body, &error, &why) != MSG_OK)
		return LLMKIT_E_PROTOCOL;
	return error_of_status(error.status);
}

/* The daemon's first frame decides. Frames behind it stay in conn->in. */
static int conn_await_welcome(
	struct conn *conn, uint64_t deadline_ns, struct msg_welcome *welcome, int *region_fd)
{
	struct frame_header h = { 0 };
	struct str body;
	int r = LLMKIT_OK;

	for (;;) {
		r = frame_decode(
			buffer_head(&conn->in), buffer_length(&conn->in), FRAME_HELLO_MAX, &h);
		if (r != FRAME_OK && r != FRAME_E_MORE)
			return LLMKIT_E_PROTOCOL;
		if (r == FRAME_OK && buffer_length(&conn->in) >= FRAME_HEADER_SIZE + h.length)
			break;
		r = conn_wait(conn, POLLIN, deadline_ns);
		if (r == LLMKIT_OK)
			r = conn_receive(conn, region_fd);
		if (r < 0)
			return r;
	}
	body = str_make(buffer_head(&conn->in) + FRAME_HEADER_SIZE, h.length);
	if (h.type == FRAME_WELCOME)
		r = conn_read_welcome(body, welcome);
	else
		r = h.type == FRAME_ERROR ? conn_read_refusal(body) : LLMKIT_E_PROTOCOL;
	buffer_consume(&conn->in, FRAME_HEADER_SIZE + h.length);
	return r;
}

int conn_open(struct llmkit *kit, struct conn **out, struct msg_welcome *welcome, int *region_fd)
{
	aux_cleanup(conn_unrefp) struct conn *conn = conn_new();
	uint64_t deadline = clock_boottime_ns() + kit->timeout_ns;
	int r;

	if (!conn)
		return LLMKIT_E_NO_MEMORY;
	conn->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (conn->fd < 0)
		return LLMKIT_E_SYSTEM;
	atomic_store(&kit->attaching_fd, conn->fd);
	r = conn_connect(conn, kit->socket, deadline);
	if (r == LLMKIT_OK)
		r = conn_send_hello(conn, kit->client, deadline);
	/* A daemon that refuses may close before it reads: what it said counts, not the EPIPE. */
	if (r == LLMKIT_OK || r == LLMKIT_E_DAEMON_LOST)
		r = conn_await_welcome(conn, deadline, welcome, region_fd);
	atomic_store(&kit->attaching_fd, -1);
	if (r < 0)
		return r;
	conn->body_max = welcome->body_max;
	*out = steal_ptr(conn);
	return LLMKIT_OK;
}
