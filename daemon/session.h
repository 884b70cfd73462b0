#pragma once

/*
 * The clients: HELLO and what follows from it. Joins connections (conn), the region's
 * participants (control) and the pipeline. A session ends when its socket ends or its process
 * dies, whichever is seen first: a forked child may hold the socket open.
 */

#include "daemon/io/conn.h"
#include "daemon/control.h"
#include "daemon/io/loop.h"
#include "daemon/pipeline.h"
#include "proto/status.h"

struct session_table;

struct session_events {
	/* Fills the object that STATUS_REPLY carries. */
	int (*status)(void *context, struct buffer *json);
	/* An operator's verb: STATUS_OK, or the status and a sentence in why. */
	enum status (*command)(
		void *context, struct str verb, struct str name, struct buffer *why);
	/* A session is over; its connection was this peer's. */
	void (*gone)(void *context, const struct listener_peer *peer);
	void *context;
};

int session_table_new(struct session_table **out, struct loop *loop, struct control *control,
	struct pipeline *pipeline, const struct session_events *events);
/* Closes every session. */
struct session_table *session_table_free(struct session_table *t);

/* Takes over fd: the listener's accepted() callback. */
void session_accept(struct session_table *t, int fd, const struct listener_peer *peer);
unsigned session_count(const struct session_table *t);
/* Shutdown: each is closed when its output is written; empty is called when none is left. */
void session_finish_all(struct session_table *t, void (*empty)(void *context), void *context);
