#pragma once

/*
 * A raw server for byte-exact tests: accepts on loopback, one thread per connection, each runs a
 * function that reads and writes as it likes, plain or through TLS. Certificates are made at
 * run time. Everything is bounded by receive timeouts, so a test that fails does not hang.
 */

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <pthread.h>
#include <openssl/ssl.h>

enum peer_tls {
	PEER_PLAIN,
	PEER_TRUSTED, /* signed by peer->ca_file, for localhost and 127.0.0.1 */
	PEER_EXPIRED,
	PEER_WRONG_HOST,
	PEER_SELF_SIGNED,
	PEER_SILENT_TLS, /* closes in the middle of the handshake */
};

struct peer;

struct peer_io {
	struct peer *peer;
	int fd;
	SSL *ssl;
	int number; /* of the connection, from 0 */
};

struct peer {
	void (*serve)(struct peer_io *io);
	void *context;
	int listener, port;
	SSL_CTX *tls;
	char ca_file[64], url[64];
	enum peer_tls kind;
	_Atomic int accepted, resumed;
	_Atomic int ended, closed; /* connections: the client closed (FIN), this side closed */
	pthread_t thread;
	pthread_t worker[2048];
	int workers;
};

void peer_start(struct peer *p, enum peer_tls kind, void (*serve)(struct peer_io *io));
/* Waits for all threads; the client must have closed its connections. */
void peer_stop(struct peer *p);

/* Bytes read, 0 at the end or after a long silence. */
size_t peer_read(struct peer_io *io, void *data, size_t size);
/* A request up to the blank line and its Content-Length of body (dropped); the size of the body,
 * or -1 at the end. */
long peer_read_request(struct peer_io *io);
void peer_write(struct peer_io *io, const char *text);
void peer_write_bytes(struct peer_io *io, const void *data, size_t size);
/* Reads until the client closes; counts it in ended. */
void peer_await_end(struct peer_io *io);
/* The next close(2) sends a reset. */
void peer_reset(struct peer_io *io);
