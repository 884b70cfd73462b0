#pragma once

/* What tests of the pipeline share: a daemon without a socket. A client that keeps its frames, two
 * providers, one that is deaf, one that refuses, one without a key, and limits of BURST requests
 * for each. One world per program; world_close() checks that all that began has ended once. */

#include "daemon/catalog.h"
#include "daemon/pipeline.h"
#include "shm/counters.h"
#include "tests/unit/peer.h"
#include "tests/unit/shm-fixture.h"

#define BURST 10
#define HEAD_SSE "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
#define TEXT "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\n"
#define LAST \
	"data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n" \
	"data: [DONE]\n\n"

#define ASK "{\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}"

/* Seconds that the daemon's clock is ahead: deadlines are tested without waiting for them. */
extern _Atomic time_t skipped;

struct client {
	struct pipeline_client c;
	struct buffer out;
	unsigned broken;
};

/* What a client was told. */
struct told {
	unsigned starts, texts, ends, errors;
	struct msg_error error; /* the last; its strings are gone */
	char text[400], limit[200];
	size_t text_bytes;
};

struct world {
	struct loop *loop;
	struct transport_engine *engine;
	struct exchange_pool *pool;
	struct fixture shm;
	struct catalog *catalog;
	struct pipeline *pipeline;
	struct client client;
	struct peer a, b;
	int deaf; /* listens, never speaks */
	unsigned idle;
	void (*starve)(void); /* called before every frame, the buffer empty */
	char config[2000];
};

extern struct world w;

/* The providers a and b: a stream, silence, a refusal. */
void serve_ok(struct peer_io *io);
void serve_mute(struct peer_io *io);
void serve_429(struct peer_io *io);

void world_open(void (*a)(struct peer_io *io), void (*b)(struct peer_io *io));
void world_close(void);
/* Another generation of the same configuration. */
struct catalog *catalog_load(void);
uint64_t counted(enum counter c);

/* Lets the loop run for n milliseconds or so. */
void run_turns(unsigned n);
/* Until nothing is active; alarm() guards. */
void run_out(void);

int submit_frame(uint64_t id, const struct buffer *frame);
int submit_as(uint64_t id, struct msg_submit ask);
void submit(uint64_t id, const char *model);
void submit_route(uint64_t id, const char *route);

/* What the client has got about a request; about all when id is 0. */
struct told told(uint64_t id);
/* What is left of the provider's limit. */
uint64_t left(const char *provider);
void expect_error(uint64_t id, enum status status);
void expect_end(uint64_t id);
