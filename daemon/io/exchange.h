#pragma once

/*
 * One HTTP/1.1 request and its response on a pooled provider connection. An I/O file built on
 * transport and http1; knows no stage. The interface is small (open, bytes in, end, abort), so
 * that another engine could stand in.
 *
 * A lane is one provider address with its bounds: at most max_connections, idle ones kept for
 * idle_ns and at most max_age_ns (jittered), most recently used first. When all are busy the
 * exchange waits in the lane's queue. A reused connection that dies before the first byte of a
 * response is replaced by a fresh one, once. Redirects are not followed. Every response must be
 * framed correctly to the last byte, or its connection is not reused; bytes nobody asked for
 * on an idle connection close it.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "daemon/io/loop.h"
#include "daemon/io/transport.h"
#include "proto/status.h"
#include "shm/region.h"

struct exchange_pool; /* all lanes of a daemon */
struct exchange_lane;
struct exchange;

struct exchange_lane_options {
	const char *name; /* for the log */
	struct transport_target target;
	unsigned max_connections;
	uint64_t idle_ns, max_age_ns;
	uint64_t first_byte_timeout_ns; /* from the request sent to the response's head */
	uint64_t stall_timeout_ns;      /* between bytes of the body */
	uint64_t body_max;              /* bytes of a response body */
};

struct exchange_events {
	/* The response's head. Use exchange_header() and exchange_each_header(). */
	void (*head)(void *context, struct exchange *x, unsigned http_status);
	void (*body)(void *context, struct exchange *x, struct str bytes);
	/* Exactly once, last, never from inside exchange_start(): STATUS_OK for a complete response
	 * whatever its HTTP status, else DNS, CONNECT, TLS, TIMEOUT, STALLED, RESET (closed or cut
	 * at any point), MALFORMED (bad bytes, a compressed body), ANSWER_TOO_LARGE, NO_MEMORY.
	 * text says more and is valid during the call. x is gone after it. */
	void (*end)(void *context, struct exchange *x, enum status status, const char *text);
	void *context;
};

/* counters: where upstream_* are counted; may be NULL in tests. */
int exchange_pool_new(struct exchange_pool **out, struct loop *loop, struct transport_engine *e,
	const struct region *counters);
struct exchange_pool *exchange_pool_free(struct exchange_pool *p);
/* The lane of that name and target; options are copied; one that exists keeps its own. A name with
 * another target is another lane: a request whose head holds the old target's key never meets the
 * new one. */
int exchange_lane_get(struct exchange_lane **out, struct exchange_pool *p,
	const struct exchange_lane_options *options);
/* New connections follow these limits and timeouts; name and target are the lane's own. Other lanes
 * of its name drop their idle connections. */
void exchange_lane_set(struct exchange_lane *lane, const struct exchange_lane_options *options);

/*
 * Sends head (request line and headers up to the blank line, complete) and body. Both are copied.
 * The copy of head holds the key: it is wiped as soon as it is sent on a fresh connection; on
 * a reused one, with the response's head or at the end, since it may have to be sent again.
 * 0 or -ENOMEM.
 */
int exchange_start(struct exchange **out, struct exchange_lane *lane, struct str head,
	struct str body, const struct exchange_events *events);
/* Ends without end(), also from inside head() and body(); the connection is closed. From inside
 * end() it does nothing. */
void exchange_abort(struct exchange *x);
/* Back-pressure: stop and go on reading. The stall timeout stands still meanwhile. What had been
 * read when pausing, 64 KiB at most, still comes. */
void exchange_pause(struct exchange *x);
void exchange_resume(struct exchange *x);
/* Whether a byte of the request has left, on whichever connection; valid during end() too. */
bool exchange_has_sent(const struct exchange *x);
/* First response header of that name, valid during head(). */
struct str exchange_header(const struct exchange *x, const char *name);
/* Each response header in order, names in any case; valid during head(). */
void exchange_each_header(const struct exchange *x,
	void (*fn)(void *context, struct str name, struct str value), void *context);
