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
 *     badbody   TEXT with a body that is no msgpack
 *     bye       ERROR for the whole connection, which is closed
 *     block     TEXT of 8 MiB, END; reads nothing from this connection until that is written
 */

#include <stdbool.h>
#include <sys/types.h>
#include "libclient/llmkit.h"
#include "proto/msg.h"
#include "shm/region.h"

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

/* Starts and kills (SIGKILL) the process; the socket can be connected to on return. */
void mini_start(struct mini *m, const struct mini_script *script);
void mini_kill(struct mini *m);

/* llmkit_open() on its socket. */
int mini_open(const struct mini *m, llmkit **kit);
