#pragma once

/*
 * One client connection: bytes in, frames out of them; frames in, bytes out of them, coalesced
 * once per turn. Knows the frame header and its limits, no body and no stage.
 *
 * Bounds: a frame that stays incomplete for CONN_PARTIAL_SECONDS ends the connection; memory for
 * a frame grows only with bytes received. Output above CONN_OUT_HIGH asks the owner to stop
 * producing (pressure callback) until it is below CONN_OUT_LOW; meanwhile no frame is read, so
 * that a client which asks and never listens stays bounded. A client that reads nothing for
 * CONN_STALL_SECONDS while output waits is dropped.
 *
 * conn_free() may be called from every callback. Callbacks come from the loop, never from inside
 * a call below.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "daemon/io/listener.h"
#include "daemon/io/loop.h"
#include "proto/frame.h"

#define CONN_PARTIAL_SECONDS 10
#define CONN_HELLO_SECONDS 10
#define CONN_STALL_SECONDS 60
#define CONN_OUT_HIGH (256u << 10)
#define CONN_OUT_LOW (64u << 10)

struct conn;
struct conn_events {
	/* One whole frame; body is valid during the call. */
	void (*frame)(void *context, struct conn *c, const struct frame_header *h, struct str body);
	/* The header was refused, or a frame stayed incomplete: nothing more is read. The owner
	 * queues an ERROR frame and calls conn_finish(). */
	void (*bad)(void *context, struct conn *c, const char *why);
	/* Output is high (true) or low again (false). */
	void (*pressure)(void *context, struct conn *c, bool high);
	/* The connection is over; c is valid until the owner calls conn_free(), now or later. */
	void (*closed)(void *context, struct conn *c);
	void *context;
};

/* Takes over fd on success. */
int conn_new(struct conn **out, struct loop *loop, int fd, const struct listener_peer *peer,
	const struct conn_events *events);
/* Closes without flushing. Returns NULL. */
struct conn *conn_free(struct conn *c);

const struct listener_peer *conn_peer(const struct conn *c);
void *conn_user(const struct conn *c);
void conn_set_user(struct conn *c, void *user);

/* HELLO was accepted: frames up to body_max are read from now on, the HELLO deadline is off. */
void conn_set_ready(struct conn *c, uint32_t body_max);

/* The output buffer, to pack frames into with msg_pack_*(); then conn_flush_later(). */
struct buffer *conn_output(struct conn *c);
void conn_flush_later(struct conn *c);
/* The next flush carries this descriptor with its first byte (a WELCOME); dup'ed by the kernel, not
 * owned, open until then. */
void conn_attach_fd(struct conn *c, int fd);

/* Reads nothing more; closes (and reports) when the output is written, or after one second. */
void conn_finish(struct conn *c);
