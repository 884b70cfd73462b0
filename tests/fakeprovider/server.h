#pragma once

/*
 * Listeners, the epoll loop and the timers. Connections (conn.h) tell when they want to wake.
 */

#include "tests/fakeprovider/provider.h"
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>

struct conn;

struct listener {
	int fd;
	bool tls;
	uint16_t port;
};

struct server {
	struct provider provider;
	int epoll;
	SSL_CTX *tls;
	struct listener listeners[2];
	int listener_count;
	struct conn **heap; /* by wake_ns, soonest first */
	size_t heap_used, heap_size;
	struct conn *dead; /* freed after the events at hand */
	struct conn *all;
	uint64_t next_id;
};

/* tls may be NULL for listeners without it. 0 or -errno. */
int server_init(struct server *s, SSL_CTX *tls);
void server_deinit(struct server *s);

/* "ADDRESS:PORT", numeric; port 0 lets the kernel choose. 0 or -errno. */
int server_listen(struct server *s, const char *address, bool tls);

/* Until *stop is true. The caller has blocked the signals that set it. */
int server_run(struct server *s, const volatile bool *stop);

/* Wakes the connection at the instant; replaces an earlier one. */
void server_wake_at(struct server *s, struct conn *c, uint64_t at_ns);
void server_wake_cancel(struct server *s, struct conn *c);
