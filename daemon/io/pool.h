#pragma once

/*
 * The connections behind exchange.h: lanes, their idle connections, their bounds and ages. An I/O
 * file; only exchange.c includes it. Nothing here knows HTTP.
 *
 * A connection is counted against its lane from pool_connect() to pool_drop(). Idle ones are
 * taken most recently used first and stay watched: what the peer sends or closes meanwhile
 * ends them. A drop makes room: the owner then looks at lane->queue.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/list.h"
#include "daemon/io/exchange.h"
#include "shm/counters.h"

#define POOL_RECEIVE_SIZE (64u << 10)

/* Connections of one lane that may be under way at once. Each needs 12 KB of libcurl's, 40 with
 * TLS, and a burst of a thousand would leave that as holes in the heap for good. */
#define POOL_CONNECTING_PLAIN 64
#define POOL_CONNECTING_TLS 256

struct exchange_pool {
	struct loop *loop;
	struct transport_engine *engine;
	const struct region *counters;
	struct list lanes;
	struct loop_timer reaper;
	uint64_t random;
	char receive[POOL_RECEIVE_SIZE]; /* shared: bytes are used up within one callback */
};

struct exchange_lane {
	struct list link;
	struct exchange_pool *pool;
	struct exchange_lane_options options; /* its strings are owned */
	unsigned connections;                 /* connecting, busy and idle */
	unsigned connecting, connecting_max;
	struct list idle;  /* struct pool_connection, last used at the tail */
	struct list queue; /* struct exchange, in order of arrival */
};

struct pool_connection {
	struct list link; /* lane->idle */
	struct exchange_lane *lane;
	struct transport *transport;
	uint64_t retire_ns, idle_since_ns;
	bool connecting, reused;
};

static inline void pool_count(const struct exchange_pool *p, enum counter c, uint64_t n)
{
	if (p->counters)
		counter_add(p->counters, c, n);
}

/* Whether an idle connection or room for one more is there. */
bool pool_has_room(const struct exchange_lane *lane);
/* A live idle connection, its events already set to events; NULL when there is none. */
struct pool_connection *pool_take_idle(
	struct exchange_lane *lane, const struct transport_events *events);
/* Starts connecting; events as transport_open(). */
int pool_connect(struct pool_connection **out, struct exchange_lane *lane,
	const struct transport_events *events);
/* To be called when connected: it makes room to connect another. */
void pool_connected(struct pool_connection *c);
/* Whether the connection is young enough to serve once more. */
bool pool_is_current(const struct pool_connection *c);
/* Puts a connection without unread bytes aside, or closes it when it is not current. */
void pool_park(struct pool_connection *c);
/* Closes. Returns NULL. */
struct pool_connection *pool_drop(struct pool_connection *c);
