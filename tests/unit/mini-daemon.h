#pragma once

/*
 * A daemon of a few hundred lines that plays the protocol's other side for the library's tests. It
 * runs as a child process, on a real socket, with a real region; what it answers is
 * chosen by the model of a request:
 *
 *     echo      START(user, model, tag), TEXT(body), END(route, 0, timeout_ms)
 *     all       one of every frame
 *     count-N   N TEXT frames "0", "1", ..., END
 *     paced-N   the same, a millisecond apart
 *     late      nothing for 20 ms, then END
 *     pid       TEXT with the peer's pid, END
 *     hang      START, then nothing until CANCEL
 *     flood     TEXT of 1 MiB, 80 times, END
 *     error     ERROR with every field
 *     die       START, TEXT "abc", and the daemon ends
 *     half      START, TEXT "abc", the first 20 bytes of a frame, and the daemon ends
 *     garbage   bytes that are no frame
 *     newer     a frame of a type that nobody knows, START, END
 *     badbody   TEXT with a body that is no msgpack
 *     bye       ERROR for the whole connection, which is closed
 *     block     TEXT of 8 MiB, END; reads nothing from this connection until that is written
 *
 * RESOLVE makes the rows that the region's templates say. COMMAND breaker-* and limit-* do what
 * they say; "reload" fails with INTERNAL, any other verb with BAD_REQUEST, each with a message.
 */

#include <stdbool.h>
#include <sys/types.h>
#include "libclient/llmkit.h"
#include "proto/msg.h"
#include "shm/bucket_table.h"
#include "shm/region.h"
#include "shm/router.h"
#include "shm/target.h"

enum mini_region {
	MINI_REGION_GOOD = 0,
	MINI_REGION_NONE,
	MINI_REGION_GARBAGE,
};

struct mini_script {
	enum msg_role role;
	enum mini_region region;
	uint32_t refuse;   /* status to answer HELLO with; 0: WELCOME */
	uint32_t version;  /* to answer; 0: the right one */
	uint32_t body_max; /* 0: 16 MiB */
	bool mute;         /* never answers HELLO */
	bool extra;        /* WELCOME comes with two more descriptors than it should */
	bool no_owner;     /* as if the table of participants were full */
	uint32_t resolve;  /* status to answer RESOLVE with, doing nothing */
	bool lazy;         /* answers RESOLVE with OK, doing nothing */
	bool deaf;         /* never answers RESOLVE nor COMMAND */
	bool odd;          /* answers them with END */
};

struct mini {
	pid_t pid;
	char dir[32];
	char socket[64];
	int region_fd;
	struct region region; /* the test's own mapping */
};

/* A directory and a region without limits; no process yet. */
void mini_init(struct mini *m);
void mini_deinit(struct mini *m);
/* A fresh region file, as after somebody removed the old one. */
void mini_new_region(struct mini *m);
/* A limit in the region: limit per second and burst. */
void mini_limit(struct mini *m, int scope, const char *name, uint64_t limit, uint64_t burst);

/* Any limit; a template when its name is empty. */
void mini_limit_of(struct mini *m, const struct bucket_limit *limit);
/* Replaces all templates. */
void mini_templates(struct mini *m, const struct bucket_limit *templates, unsigned count);
/* "provider/model" and its provider, with prices in pico-USD per token and all capabilities. The
 * row of the former. */
uint32_t mini_target(struct mini *m, const char *name, int64_t price_input, int64_t price_output);
/* A route over targets that are there, of equal weight; names ends with NULL. */
void mini_route(
	struct mini *m, const char *name, enum router_strategy strategy, const char *const *names);
/* The row of a limit; BUCKET_NONE. */
uint32_t mini_row(
	const struct mini *m, uint64_t scope, enum bucket_resource resource, const char *name);
struct bucket_view mini_view(
	const struct mini *m, uint64_t scope, enum bucket_resource resource, const char *name);

/* Starts and kills (SIGKILL) the process; the socket can be connected to on return. */
void mini_start(struct mini *m, const struct mini_script *script);
void mini_kill(struct mini *m);

/* llmkit_open() on its socket. */
int mini_open(const struct mini *m, llmkit **kit);
