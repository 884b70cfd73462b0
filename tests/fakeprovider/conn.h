#pragma once

/*
 * One connection: bytes in, plain or TLS, requests read one after the other, answers written as
 * they become due. Owned by the server's list; conn_kill() only marks it.
 */

#include "tests/fakeprovider/answer.h"
#include "tests/fakeprovider/request.h"
#include <openssl/ssl.h>

struct server;

enum conn_state {
	CONN_HANDSHAKE,
	CONN_READING,
	CONN_ANSWERING,
	CONN_LINGERING, /* our side is closed; waits for the client's end */
	CONN_DEAD,
};

struct conn {
	struct server *server;
	struct conn *next, *previous;
	int fd;
	SSL *ssl; /* NULL: plain */
	uint64_t id, served;
	enum conn_state state;
	uint32_t interest; /* epoll events asked for */
	bool peer_closed, broken, counted, continued, close_on_reuse;
	struct buffer in, out;
	size_t head_left; /* header bytes at the head of out, for slow_headers_ms and split */
	struct request request;
	struct answer answer;
	enum answer_verdict verdict;
	uint64_t wait_ns, paced_ns; /* pauses follow each other without drift */
	uint64_t wake_ns;
	size_t heap_index; /* 0: not in the heap */
};

/* Takes over fd. NULL when there is no memory. */
struct conn *conn_new(struct server *s, int fd, bool tls, uint64_t id);
struct conn *conn_free(struct conn *c);

/* epoll events, or 0 when its time has come. */
void conn_ready(struct conn *c, uint32_t events, uint64_t now_ns);
