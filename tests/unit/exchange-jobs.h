#pragma once

/* What tests of exchanges share: a loop with a pool, a peer, and exchanges that note what became of
 * them. One of each per program; jobs_setup() and jobs_teardown() run around each test. */

#include "daemon/io/exchange.h"
#include "shm/counters.h"
#include "tests/unit/peer.h"

#define LENGTH_1 "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"
#define OK_A LENGTH_1 "\r\na"
#define OK_B LENGTH_1 "\r\nb"
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

/* One exchange and what became of it. */
struct job {
	struct exchange *x;
	enum status status;
	unsigned http;
	char text[200], body[200], type[50];
	size_t body_size;
	bool ended, starting;
	bool abort_in_head, abort_in_body, pause_in_body;
	struct job *start_next; /* started from end() */
	struct exchange_lane *lane;
	int order; /* of its end, from 1 */
};

extern struct loop *loop;
extern struct exchange_pool *pool;
extern struct peer peer;
extern const struct region region; /* counters */

int jobs_setup(void **state);
int jobs_teardown(void **state);

/* Lets the loop run for n milliseconds or so. */
void run_turns(int n);
/* A lane to peer with ample bounds. */
struct exchange_lane_options lane_options(void);
struct exchange_lane *lane_of(const struct exchange_lane_options *o);
struct exchange_lane *lane_default(void);

void job_start(struct job *j, struct exchange_lane *lane, size_t body_size);
void job_start_with(struct job *j, struct exchange_lane *lane, struct str head, struct str body);
void job_await(struct job *j);
/* One exchange from start to end. */
struct job job_run(struct exchange_lane *lane);
/* The lanes' connections must go before the peer's threads can end: the pool is a new one then. */
void stop_peer(void);

/* A peer that answers each request with OK_A. */
void serve_ok(struct peer_io *io);

/* What serve_script() answers, per connection and request; where nothing is given, it closes. */
extern const char *script[4][4];
void serve_script(struct peer_io *io);
void script_clear(void);
