#pragma once

/*
 * Connections to providers: libcurl opens them (resolving, happy eyeballs, proxies, TLS and its
 * verification, session reuse), we speak on them. The only home of curl/curl.h. An I/O file.
 *
 * All handles live in one multi driven by the loop. A connected plain socket is taken out of
 * libcurl and belongs to us; a TLS one stays inside its easy handle and is read through it.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "daemon/io/loop.h"
#include "proto/status.h"

struct transport_engine;
struct transport;

/* One per loop. Calls curl_global_init; logs libcurl's version once. */
int transport_engine_new(struct transport_engine **out, struct loop *loop);
struct transport_engine *transport_engine_free(struct transport_engine *e);

struct transport_target {
	const char *url;     /* scheme://host[:port]; http or https only */
	const char *ca_file; /* NULL: the system's bundle */
	const char *proxy;   /* NULL: libcurl's environment rules */
	uint64_t connect_timeout_ns;
};

struct transport_events {
	/* Connected (STATUS_OK), or failed for the reason given: DNS, CONNECT, TLS, TIMEOUT,
	 * NO_MEMORY. text is valid during the call and holds no secret. */
	void (*connected)(void *context, struct transport *t, enum status status, const char *text);
	/* Bytes can be read, the peer ended, or the socket failed: call transport_receive(). */
	void (*readable)(void *context, struct transport *t);
	/* After transport_send() took less than all. */
	void (*writable)(void *context, struct transport *t);
	void *context;
};

/* Starts connecting; the callback comes later, never from inside. */
int transport_open(struct transport **out, struct transport_engine *e,
	const struct transport_target *target, const struct transport_events *events);
/* The callbacks of a connection taken from the pool go to its new user. */
void transport_set_events(struct transport *t, const struct transport_events *events);

/* Closes at once, with a FIN on the wire, whatever is under way. Returns NULL. */
struct transport *transport_close(struct transport *t);

/* Bytes taken (possibly fewer: then writable() comes), or -errno. */
ssize_t transport_send(struct transport *t, const void *data, size_t size);

/* Bytes read; 0 the peer ended; -EAGAIN nothing now (readable() will come); other -errno. The
 * caller reads until less than size came on a plain connection, until -EAGAIN on a TLS one:
 * transport_must_drain() says which; bytes inside TLS raise no event. One who stops before that,
 * to go on at the next event, must have given room for a TLS record (16 KiB). */
ssize_t transport_receive(struct transport *t, void *data, size_t size);
bool transport_must_drain(const struct transport *t);

/* Arms readable(). Stays armed while idle, so that a FIN is noticed. No-op when armed. */
int transport_watch(struct transport *t);
/* Disarms it: back-pressure; the kernel's window then closes. */
void transport_pause(struct transport *t);
