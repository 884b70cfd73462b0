#include "daemon/io/exchange.h"

#include <errno.h>
#include <strings.h>
#include "base/error.h"
#include "daemon/io/http1.h"
#include "daemon/io/pool.h"
#include "daemon/io/secret.h"

/* Reads per event, so that one fast peer does not starve the others. */
#define EXCHANGE_READS_MAX 8

struct exchange {
	struct list link; /* lane->queue, while waiting for a connection */
	struct exchange_lane *lane;
	struct pool_connection *connection;
	struct http1 *parser;
	struct exchange_events events;
	struct loop_timer timer;
	/* Head and body in one piece: one send. Kept on a reused connection until the first byte of
	 * the response, since the request may have to be sent again. The head, with a key in it,
	 * waits in secret memory and is in out only while it is being sent. */
	char *out, *head;
	size_t out_size, head_size, sent;
	uint64_t progress_ns, body_size;
	const char *failure;    /* static text of failed */
	enum status failed : 8; /* decided in a parser callback, or to be told by timer */
	bool speaking : 1, sending : 1, in_head : 1, in_callback : 1;
	bool aborted : 1, paused : 1, retried : 1, has_sent : 1;
};

static void exchange_next(struct exchange_lane *lane);
static int exchange_connect(struct exchange *x);

/*
 * The request's copy.
 */

static void exchange_forget_request(struct exchange *x)
{
	if (!x->out)
		return;
	x->head = secret_free(x->head, x->head_size);
	free(x->out);
	x->out = NULL;
}

static int exchange_keep_request(struct exchange *x, struct str head, struct str body)
{
	x->out_size = head.length + body.length;
	x->head_size = head.length;
	x->out = malloc(x->out_size ? x->out_size : 1);
	x->head = x->out ? secret_new(head.length) : NULL;
	if (!x->head) {
		free(steal_ptr(x->out));
		return error_origin(-ENOMEM);
	}
	memcpy(x->head, head.data, head.length);
	if (body.length)
		memcpy(x->out + head.length, body.data, body.length);
	return 0;
}

/*
 * The end.
 */

static struct exchange *exchange_free(struct exchange *x)
{
	loop_timer_cancel(x->lane->pool->loop, &x->timer);
	list_unlink(&x->link);
	exchange_forget_request(x);
	http1_free(x->parser);
	free(x);
	return NULL;
}

/* Ends with a connection that cannot serve again. */
static void exchange_end(struct exchange *x, enum status status, const char *text)
{
	struct exchange_lane *lane = x->lane;

	x->connection = pool_drop(x->connection);
	if (status != STATUS_OK)
		pool_count(lane->pool, COUNTER_upstream_errors, 1);
	list_unlink(&x->link);
	loop_timer_cancel(lane->pool->loop, &x->timer);
	exchange_next(lane);
	x->in_callback = true; /* an abort from end() does nothing */
	x->events.end(x->events.context, x, status, text);
	exchange_free(x);
}

/* From calls that must not call back: the end comes with the next turn. */
static void exchange_end_later(struct exchange *x, enum status status, const char *text)
{
	x->failed = status;
	x->failure = text;
	loop_timer_start(x->lane->pool->loop, &x->timer, loop_now(x->lane->pool->loop));
}

static void exchange_dispose(struct exchange *x)
{
	struct exchange_lane *lane = x->lane;

	pool_drop(x->connection);
	exchange_free(x);
	exchange_next(lane);
}

void exchange_abort(struct exchange *x)
{
	if (x->in_callback)
		x->aborted = true;
	else
		exchange_dispose(x);
}

/* The response is complete: the connection goes to the next in the queue, or is put aside. */
static void exchange_complete(struct exchange *x, bool reusable)
{
	struct pool_connection *c = x->connection;

	if (reusable && !x->sending) {
		x->connection = NULL;
		transport_set_events(c->transport, &(struct transport_events){ 0 });
		pool_park(c);
	}
	exchange_end(x, STATUS_OK, "");
}

/*
 * Time. One timer serves all: waiting for the head while sending and after, then between body
 * bytes. It is moved when it fires rather than with each byte.
 */

static void exchange_progress(struct exchange *x)
{
	x->progress_ns = loop_now(x->lane->pool->loop);
}

static void exchange_time(struct exchange *x)
{
	const struct exchange_lane_options *o = &x->lane->options;
	uint64_t wait = x->in_head ? o->first_byte_timeout_ns : o->stall_timeout_ns;

	loop_timer_start(x->lane->pool->loop, &x->timer, x->progress_ns + wait);
}

static void exchange_expired(struct loop_timer *timer)
{
	struct exchange *x = container_of(timer, struct exchange, timer);
	const struct exchange_lane_options *o = &x->lane->options;
	uint64_t wait = x->in_head ? o->first_byte_timeout_ns : o->stall_timeout_ns;

	if (x->failed)
		exchange_end(x, x->failed, x->failure);
	else if (x->paused)
		return; /* resuming starts it */
	else if (loop_now(x->lane->pool->loop) < x->progress_ns + wait)
		exchange_time(x);
	else if (x->in_head)
		exchange_end(x, STATUS_TIMEOUT, "no response in time");
	else
		exchange_end(x, STATUS_STALLED, "no more bytes of the response in time");
}

/*
 * Sending.
 */

static void exchange_listen(struct exchange *x)
{
	if (!x->paused && transport_watch(x->connection->transport) < 0)
		exchange_end_later(x, STATUS_NO_MEMORY, "cannot watch the connection");
}

static ssize_t exchange_send_rest(struct exchange *x)
{
	struct transport *t = x->connection->transport;
	size_t secret = x->sent < x->head_size ? x->head_size : 0;
	ssize_t n;

	memcpy(x->out, x->head, secret);
	n = transport_send(t, x->out + x->sent, x->out_size - x->sent);
	if (secret) {
		explicit_bzero(x->out, secret);
		secret_burn_stack();
	}
	return n;
}

static void exchange_send(struct exchange *x)
{
	ssize_t n = exchange_send_rest(x);

	if (n > 0) {
		x->sent += (size_t)n;
		x->has_sent = true;
		pool_count(x->lane->pool, COUNTER_upstream_bytes_out, (uint64_t)n);
		/* Restarts the wait for the head, not the one between body bytes. */
		if (x->in_head)
			exchange_progress(x);
	}
	/* A peer that closed may have answered before: reading finds out, and sending is over. */
	if (n < 0)
		return;
	if (x->sent < x->out_size)
		return;
	x->sending = false;
	if (!x->in_head || !x->connection->reused)
		exchange_forget_request(x);
}

static void exchange_begin(struct exchange *x)
{
	x->sent = 0;
	x->speaking = true;
	x->sending = true;
	x->in_head = true;
	exchange_progress(x);
	exchange_time(x);
	exchange_send(x);
	exchange_listen(x);
}

static void exchange_writable(void *context, struct transport *t)
{
	struct exchange *x = context;

	(void)t;
	if (x->out && x->sending)
		exchange_send(x);
}

/*
 * Receiving: what the parser says.
 */

static int exchange_refuse(struct exchange *x, enum status status, const char *text)
{
	x->failed = status;
	x->failure = text;
	return 1;
}

static int exchange_on_head(void *context, struct http1 *p)
{
	struct exchange *x = context;

	x->in_head = false;
	if (!x->sending)
		exchange_forget_request(x);
	/* None was asked for. */
	if (!http1_header_is_only(p, "content-encoding", "identity"))
		return exchange_refuse(x, STATUS_MALFORMED, "the response is compressed");
	if (x->events.head)
		x->events.head(x->events.context, x, http1_status(p));
	return x->aborted;
}

static int exchange_on_body(void *context, struct str bytes)
{
	struct exchange *x = context;

	x->body_size += bytes.length;
	if (x->body_size > x->lane->options.body_max)
		return exchange_refuse(x, STATUS_ANSWER_TOO_LARGE, "the response is too large");
	if (x->events.body)
		x->events.body(x->events.context, x, bytes);
	return x->aborted;
}

static int exchange_on_complete(void *context, bool keep_alive)
{
	struct exchange *x = context;

	/* The feed's return value tells the rest. A retired connection is not put aside. */
	if (!keep_alive)
		x->connection->retire_ns = 0;
	return 0;
}

static const struct http1_events exchange_parser_events = {
	.head = exchange_on_head,
	.body = exchange_on_body,
	.complete = exchange_on_complete,
};

/* True when x goes on. */
static bool exchange_judge(struct exchange *x, enum http1_outcome outcome, bool drained)
{
	switch (outcome) {
	case HTTP1_OK:
		return true;
	case HTTP1_COMPLETE:
		exchange_complete(x, drained);
		break;
	case HTTP1_E_MALFORMED:
		exchange_end(x, STATUS_MALFORMED, http1_error(x->parser));
		break;
	case HTTP1_E_TOO_LARGE:
		exchange_end(x, STATUS_ANSWER_TOO_LARGE, http1_error(x->parser));
		break;
	case HTTP1_E_STOPPED:
		exchange_end(x, x->failed, x->failure);
		break;
	}
	return false;
}

static bool exchange_feed(struct exchange *x, const char *data, size_t size)
{
	bool was_head = x->in_head;
	enum http1_outcome outcome;
	size_t used;

	pool_count(x->lane->pool, COUNTER_upstream_bytes_in, size);
	if (!x->in_head)
		exchange_progress(x);
	x->in_callback = true;
	outcome = http1_feed(x->parser, data, size, &used);
	x->in_callback = false;
	if (x->aborted) {
		exchange_dispose(x);
		return false;
	}
	if (was_head && !x->in_head && outcome == HTTP1_OK) {
		exchange_progress(x);
		exchange_time(x);
	}
	return exchange_judge(x, outcome, used == size);
}

/* A kept connection may die while we send on it: the request was not processed, most likely, and
 * is sent once more, on a fresh one, which is not retried. Never after a byte of a response. */
static bool exchange_retry(struct exchange *x)
{
	if (!x->connection->reused || http1_has_begun(x->parser) || !x->out)
		return false;
	x->speaking = false;
	pool_count(x->lane->pool, COUNTER_upstream_stale_retries, 1);
	x->connection = pool_drop(x->connection);
	loop_timer_cancel(x->lane->pool->loop, &x->timer);
	if (exchange_connect(x) < 0)
		exchange_end(x, STATUS_NO_MEMORY, "out of memory");
	return true;
}

static void exchange_lost(struct exchange *x, ssize_t n)
{
	if (exchange_retry(x))
		return;
	if (n == 0 && http1_has_begun(x->parser) && http1_feed_eof(x->parser) == HTTP1_COMPLETE)
		exchange_complete(x, false);
	else if (http1_has_begun(x->parser))
		exchange_end(x, STATUS_RESET, "connection closed in the middle of the response");
	else
		exchange_end(x, STATUS_RESET, "connection closed without a response");
}

static void exchange_readable(void *context, struct transport *t)
{
	struct exchange *x = context;
	struct exchange_pool *p = x->lane->pool;
	bool drain = transport_must_drain(t);

	for (int reads = 0; reads < EXCHANGE_READS_MAX && !x->paused; reads++) {
		ssize_t n = transport_receive(t, p->receive, sizeof(p->receive));

		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			exchange_lost(x, n);
			return;
		}
		if (!exchange_feed(x, p->receive, (size_t)n))
			return;
		if (!drain && (size_t)n < sizeof(p->receive))
			break;
	}
	exchange_listen(x);
}

/*
 * Connecting and waiting.
 */

static void exchange_connected(
	void *context, struct transport *t, enum status status, const char *text)
{
	struct exchange *x = context;

	(void)t;
	if (status != STATUS_OK) {
		exchange_end(x, status, text);
		return;
	}
	pool_count(x->lane->pool, COUNTER_upstream_connects, 1);
	pool_connected(x->connection);
	exchange_begin(x);
	exchange_next(x->lane);
}

static struct transport_events exchange_transport_events(struct exchange *x)
{
	return (struct transport_events){
		.connected = exchange_connected,
		.readable = exchange_readable,
		.writable = exchange_writable,
		.context = x,
	};
}

static int exchange_connect(struct exchange *x)
{
	struct transport_events events = exchange_transport_events(x);

	return error_trace(pool_connect(&x->connection, x->lane, &events));
}

/* There is room in the lane. Calls nothing back. */
static void exchange_go(struct exchange *x)
{
	struct transport_events events = exchange_transport_events(x);

	x->connection = pool_take_idle(x->lane, &events);
	if (x->connection) {
		pool_count(x->lane->pool, COUNTER_upstream_reuses, 1);
		exchange_begin(x);
	} else if (exchange_connect(x) < 0) {
		exchange_end_later(x, STATUS_NO_MEMORY, "out of memory");
	}
}

static void exchange_next(struct exchange_lane *lane)
{
	while (!list_is_empty(&lane->queue) && pool_has_room(lane))
		exchange_go(container_of(list_pop(&lane->queue), struct exchange, link));
}

int exchange_start(struct exchange **out, struct exchange_lane *lane, struct str head,
	struct str body, const struct exchange_events *events)
{
	struct http1_events parser_events = exchange_parser_events;
	struct exchange *x = calloc(1, sizeof(*x));

	if (!x)
		return error_origin(-ENOMEM);
	list_init(&x->link);
	x->lane = lane;
	x->events = *events;
	x->timer.fn = exchange_expired;
	parser_events.context = x;
	if (exchange_keep_request(x, head, body) < 0 || http1_new(&x->parser, &parser_events) < 0) {
		exchange_free(x);
		return error_origin(-ENOMEM);
	}
	if (list_is_empty(&lane->queue) && pool_has_room(lane))
		exchange_go(x);
	else
		list_push(&lane->queue, &x->link);
	*out = x;
	return 0;
}

void exchange_pause(struct exchange *x)
{
	x->paused = true;
	if (x->connection)
		transport_pause(x->connection->transport);
}

void exchange_resume(struct exchange *x)
{
	if (!x->paused)
		return;
	x->paused = false;
	if (!x->speaking || x->failed)
		return;
	exchange_progress(x);
	exchange_time(x);
	exchange_listen(x);
}

bool exchange_has_sent(const struct exchange *x)
{
	return x->has_sent;
}

struct str exchange_header(const struct exchange *x, const char *name)
{
	return http1_header(x->parser, name);
}

void exchange_each_header(const struct exchange *x,
	void (*fn)(void *context, struct str name, struct str value), void *context)
{
	http1_each_header(x->parser, fn, context);
}
