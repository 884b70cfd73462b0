#include "tests/fakeprovider/conn.h"

#include "base/clock.h"
#include "tests/fakeprovider/put.h"
#include "tests/fakeprovider/server.h"
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_SIZE 16384
#define IN_MAX (4U * 1024 * 1024) /* pipelined bytes waiting */
#define OUT_BATCH 65536           /* written at once at most */
#define LINGER_NS (2 * NSEC_PER_SEC)

enum flush { FLUSH_DONE, FLUSH_LATER, FLUSH_BROKEN };

struct conn *conn_new(struct server *s, int fd, bool tls, uint64_t id)
{
	struct conn *c = calloc(1, sizeof(*c));
	int on = 1;

	if (!c)
		return NULL;
	c->server = s;
	c->fd = fd;
	c->id = id;
	c->state = tls ? CONN_HANDSHAKE : CONN_READING;
	request_init(&c->request);
	answer_init(&c->answer);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (!tls)
		return c;
	c->ssl = SSL_new(s->tls);
	if (!c->ssl || SSL_set_fd(c->ssl, fd) != 1)
		return conn_free(c);
	SSL_set_accept_state(c->ssl);
	return c;
}

struct conn *conn_free(struct conn *c)
{
	if (!c)
		return NULL;
	SSL_free(c->ssl);
	if (c->fd >= 0)
		close(c->fd);
	request_deinit(&c->request);
	answer_deinit(&c->answer);
	buffer_deinit(&c->in);
	buffer_deinit(&c->out);
	free(c);
	return NULL;
}

static void end_request(struct conn *c, const char *outcome)
{
	if (!c->counted)
		return;
	c->counted = false;
	provider_end(&c->server->provider, &c->answer, clock_boottime_ns(), outcome);
}

/* Closes at once: what the client sees is a FIN, or a reset where the script says so. */
static void kill_conn(struct conn *c)
{
	struct server *s = c->server;

	if (c->state == CONN_DEAD)
		return;
	end_request(c, "aborted_by_client");
	c->state = CONN_DEAD;
	server_wake_cancel(s, c);
	close(c->fd);
	c->fd = -1;
	s->provider.counters.open--;
	if (c->previous)
		c->previous->next = c->next;
	else
		s->all = c->next;
	if (c->next)
		c->next->previous = c->previous;
	c->next = s->dead;
	s->dead = c;
}

static void reset_conn(struct conn *c)
{
	struct linger linger = { .l_onoff = 1 };

	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
	kill_conn(c);
}

/* Sends our end and waits for the client's, so that unread bytes do not turn it into a reset. */
static void linger_conn(struct conn *c, bool notify, uint64_t now_ns)
{
	if (c->ssl && notify) {
		ERR_clear_error();
		SSL_shutdown(c->ssl);
	}
	shutdown(c->fd, SHUT_WR);
	c->state = CONN_LINGERING;
	server_wake_at(c->server, c, now_ns + LINGER_NS);
}

/* Bytes written, 0 when the socket is full, -1 when the connection is gone. */
static ssize_t write_some(struct conn *c, const char *data, size_t n)
{
	ssize_t written;

	if (c->ssl) {
		int r;

		ERR_clear_error();
		r = SSL_write(c->ssl, data, (int)min_u64(n, 1U << 30));
		if (r > 0)
			return r;
		r = SSL_get_error(c->ssl, r);
		return r == SSL_ERROR_WANT_WRITE || r == SSL_ERROR_WANT_READ ? 0 : -1;
	}
	do
		written = send(c->fd, data, n, MSG_NOSIGNAL);
	while (written < 0 && errno == EINTR);
	if (written >= 0)
		return written;
	return errno == EAGAIN ? 0 : -1;
}

/* How much the script lets go in one write, and the pause after it. */
static size_t write_limit(const struct conn *c, uint64_t *pause_ns)
{
	const struct script *s = &c->answer.script;
	size_t length = buffer_length(&c->out);

	*pause_ns = 0;
	if (c->state != CONN_ANSWERING)
		return length;
	if (c->head_left && s->slow_headers_ms) {
		*pause_ns = (uint64_t)s->slow_headers_ms * NSEC_PER_MSEC;
		return 1;
	}
	if (!s->split)
		return length;
	if (c->head_left)
		return c->head_left;
	*pause_ns = (uint64_t)s->split_us * NSEC_PER_USEC;
	return min_u64((uint64_t)s->split, length);
}

static enum flush flush(struct conn *c, uint64_t now_ns)
{
	while (buffer_length(&c->out)) {
		uint64_t pause_ns;
		size_t limit = write_limit(c, &pause_ns);
		ssize_t n = write_some(c, buffer_head(&c->out), limit);

		if (n < 0)
			return FLUSH_BROKEN;
		if (n == 0)
			return FLUSH_LATER;
		buffer_consume(&c->out, (size_t)n);
		c->head_left -= min_u64(c->head_left, (uint64_t)n);
		if (pause_ns && buffer_length(&c->out)) {
			server_wake_at(c->server, c, now_ns + pause_ns);
			return FLUSH_LATER;
		}
	}
	return FLUSH_DONE;
}

static void wait_paced(struct conn *c, uint64_t now_ns)
{
	c->paced_ns = max_u64(c->paced_ns + c->wait_ns, now_ns);
	server_wake_at(c->server, c, c->paced_ns);
}

/* Writes what is due. True when the answer is over. */
static bool pump(struct conn *c, uint64_t now_ns)
{
	while (!c->heap_index) {
		enum flush f;

		while (c->verdict == ANSWER_MORE && buffer_length(&c->out) < OUT_BATCH) {
			c->verdict = answer_next(&c->answer, &c->out, &c->wait_ns);
			c->head_left += c->answer.head_bytes;
		}
		f = flush(c, now_ns);
		c->broken = f == FLUSH_BROKEN;
		if (f != FLUSH_DONE || c->verdict == ANSWER_STALL)
			return false;
		if (c->verdict == ANSWER_CUT || c->verdict == ANSWER_END)
			return true;
		if (c->verdict == ANSWER_WAIT) {
			c->verdict = ANSWER_MORE;
			wait_paced(c, now_ns);
		}
	}
	return false;
}

static void next_request(struct conn *c)
{
	request_reset(&c->request);
	c->continued = false;
	c->state = CONN_READING;
	buffer_reset(&c->out, OUT_BATCH * 2);
}

/* After the last byte of an answer. */
static void finish_answer(struct conn *c, uint64_t now_ns)
{
	const struct script *s = &c->answer.script;
	bool cut = c->verdict == ANSWER_CUT;

	end_request(c,
		cut                             ? "cut" :
			c->answer.limited       ? "limited" :
			c->answer.status >= 400 ? "error" :
						  "complete");
	c->served++;
	c->close_on_reuse = s->close_on_reuse;
	if (cut && s->cut == CUT_RST)
		reset_conn(c);
	else if (s->stale && !cut)
		kill_conn(c);
	else if (cut || answer_closes(&c->answer))
		linger_conn(c, !s->tls_close, now_ns);
	else
		next_request(c);
}

static void begin_answer(struct conn *c, uint64_t now_ns)
{
	struct arrival_where where = {
		.now_ns = now_ns,
		.connection = c->id,
		.reused = c->served > 0,
		.tls = c->ssl,
	};

	c->counted = provider_begin(&c->server->provider, &c->request, &where, &c->answer);
	c->state = CONN_ANSWERING;
	c->verdict = ANSWER_MORE;
	c->paced_ns = now_ns;
	c->head_left = 0;
}

static void refuse(struct conn *c, uint64_t now_ns)
{
	c->request.keep_alive = false;
	answer_begin_json(&c->answer, false, c->request.too_large ? 413 : 400,
		str_of("{\"error\":{\"message\":\"This is no HTTP/1.1 request.\"}}"));
	c->state = CONN_ANSWERING;
	c->verdict = ANSWER_MORE;
	c->paced_ns = now_ns;
	buffer_reset(&c->in, 0);
}

/* Reads as much of a request as there is; false when more bytes are needed. */
static bool read_request(struct conn *c, uint64_t now_ns)
{
	enum request_feed_result r;
	size_t used;

	if (!buffer_length(&c->in))
		return false;
	if (c->close_on_reuse) {
		kill_conn(c);
		return false;
	}
	r = request_feed(&c->request, buffer_str(&c->in), &used);
	if (r == REQUEST_BAD) {
		refuse(c, now_ns);
		return true;
	}
	buffer_consume(&c->in, used);
	if (r == REQUEST_DONE) {
		begin_answer(c, now_ns);
		return true;
	}
	if (!c->continued && request_wants_continue(&c->request)) {
		c->continued = true;
		put_const(&c->out, "HTTP/1.1 100 Continue\r\n\r\n");
		c->broken = flush(c, now_ns) == FLUSH_BROKEN;
	}
	return false;
}

static void run(struct conn *c, uint64_t now_ns)
{
	while (!c->broken) {
		if (c->state == CONN_READING) {
			if (!read_request(c, now_ns))
				return;
		} else if (c->state == CONN_ANSWERING) {
			if (!pump(c, now_ns))
				return;
			finish_answer(c, now_ns);
		} else {
			return;
		}
	}
}

/* One read; true when there may be more. A TLS record's rest waits inside OpenSSL, where
 * epoll does not see it, so TLS reads until it is told to wait. */
static bool read_once(struct conn *c)
{
	ssize_t n;

	put_check(buffer_reserve(&c->in, READ_SIZE));
	if (c->ssl) {
		int r;

		ERR_clear_error();
		r = SSL_read(c->ssl, buffer_tail(&c->in), READ_SIZE);
		if (r > 0) {
			c->in.end += (size_t)r;
			return true;
		}
		r = SSL_get_error(c->ssl, r);
		c->peer_closed |= r != SSL_ERROR_WANT_READ && r != SSL_ERROR_WANT_WRITE;
		return false;
	}
	n = recv(c->fd, buffer_tail(&c->in), READ_SIZE, 0);
	if (n > 0) {
		c->in.end += (size_t)n;
		return n == READ_SIZE;
	}
	c->peer_closed |= n == 0 || (errno != EAGAIN && errno != EINTR);
	return false;
}

static void discard(struct conn *c)
{
	char bytes[4096];
	ssize_t n;

	do
		n = recv(c->fd, bytes, sizeof(bytes), 0);
	while (n > 0);
	if (n == 0 || errno != EAGAIN)
		kill_conn(c);
}

static void handshake(struct conn *c)
{
	int r;

	ERR_clear_error();
	r = SSL_do_handshake(c->ssl);
	if (r == 1) {
		c->server->provider.counters.tls_handshakes++;
		c->server->provider.counters.tls_resumed += (uint64_t)SSL_session_reused(c->ssl);
		c->state = CONN_READING;
		return;
	}
	r = SSL_get_error(c->ssl, r);
	if (r != SSL_ERROR_WANT_READ && r != SSL_ERROR_WANT_WRITE)
		kill_conn(c);
}

/* Writable matters only while bytes wait and no timer holds them back. */
static void update_interest(struct conn *c)
{
	bool blocked = buffer_length(&c->out) && !c->heap_index;
	uint32_t want = EPOLLRDHUP | (blocked ? EPOLLOUT : 0U);
	struct epoll_event event = { .data.ptr = c };

	if (buffer_length(&c->in) < IN_MAX)
		want |= EPOLLIN;
	if (c->state == CONN_DEAD || want == c->interest)
		return;
	event.events = c->interest = want;
	epoll_ctl(c->server->epoll, EPOLL_CTL_MOD, c->fd, &event);
}

void conn_ready(struct conn *c, uint32_t events, uint64_t now_ns)
{
	if (c->state == CONN_LINGERING) {
		if (events == 0)
			kill_conn(c);
		else
			discard(c);
		return;
	}
	if (c->state == CONN_HANDSHAKE)
		handshake(c);
	if (c->state == CONN_READING || c->state == CONN_ANSWERING) {
		bool more = (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0;

		while (more && buffer_length(&c->in) < IN_MAX)
			more = read_once(c);
		/* Nobody will read the rest: the end behind it counts now. */
		c->peer_closed |= more && (events & EPOLLRDHUP);
		run(c, now_ns);
	}
	if (c->state == CONN_LINGERING && c->peer_closed)
		kill_conn(c);
	else if (c->state != CONN_DEAD && (c->broken || c->peer_closed))
		kill_conn(c);
	update_interest(c);
}
