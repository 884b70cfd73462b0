#pragma once

/*
 * What the library's files share; not installed.
 *
 * Locks: kit->sending is held while a frame is written or a daemon is attached to, and is taken
 * before kit->lock; kit->lock covers the rest and is never held over a call that blocks.
 *
 * Reading is leader and followers: of the threads that wait, one polls the socket (conn->reading)
 * and sorts frames to the streams; the others sleep on their stream's condition. Only the reader
 * reads, or, while there is none, whoever holds the lock. Whoever leaves wakes a sleeper to
 * read on when nobody does (wire_hand_over()).
 *
 * fork(): the guard page reads as zero in a child. Its first call makes new locks, closes the
 * inherited socket and leaves the streams behind; kit->process tells them from its own.
 */

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/aux.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/list.h"
#include "libclient/llmkit.h"
#include "proto/msg.h"
#include "shm/region.h"

#define STREAM_QUEUE_MAX (UINT64_C(64) << 20)
#define CONN_SLOT_BITS 20
#define DEADLINE_NEVER UINT64_MAX

/* Lives in a page of its own with MADV_WIPEONFORK: 0 says that this process is a new child. */
enum guard_state {
	GUARD_FORKED = 0,
	GUARD_RESETTING,
	GUARD_DETACHED, /* reset, not yet attached to a daemon as a process of its own */
	GUARD_READY,
};

struct guard {
	_Atomic uint32_t state;
};

/* A mapped region. Kept until llmkit_close(), since an acquire may be inside. owner marks what this
 * process holds there; 0: nothing can be held. It stays valid when the daemon dies. */
struct mapping {
	struct mapping *older;
	struct region region;
	_Atomic uint64_t owner;
	dev_t device;
	ino_t inode;
};

/* One connection; kit->conn refers to it until it is lost, pollers and writers while at it. */
struct conn {
	unsigned references;
	int fd;
	bool reading;
	uint32_t body_max;
	struct buffer in;
	struct list waiting; /* streams a thread sleeps on */
	struct llmkit_stream **slot;
	uint32_t slots, open, hint;
};

struct llmkit {
	struct guard *guard;
	_Atomic(struct mapping *) mapping; /* current; NULL: none can be used */
	pthread_mutex_t sending;
	pthread_mutex_t lock;
	struct conn *conn;
	struct mapping *mappings; /* all of them */
	_Atomic(const char *) region_text;
	enum msg_role role;
	uint64_t sequence;        /* of request ids: none is used twice, over reconnections too */
	uint64_t process;         /* 1, and one more in every generation of children */
	uint64_t left_behind;     /* streams up to this process were copied in mid-change */
	_Atomic int attaching_fd; /* for a child to close when the fork came in between */
	int epoll_fd, event_fd;   /* -1 until llmkit_fd() is asked for */
	char *socket, *client;
	uint64_t timeout_ns;
};

/* A frame that arrived: header and body in one block, a NUL behind the body. */
struct item {
	struct item *next;
	struct frame_header header;
	char body[];
};

struct llmkit_stream {
	struct llmkit *kit;
	uint64_t process;
	struct conn *conn; /* NULL once nothing more can arrive */
	uint64_t id;
	pthread_cond_t arrived;
	struct list waiting;
	struct item *first, **last;
	uint64_t queued;      /* bytes of bodies */
	struct item *current; /* what the last event's strings point into */
	int failure;          /* how it ends when no END or ERROR arrived */
	bool ended;           /* the last event was given out */
	uint64_t received;
};

/* kit.c */

/* Every public call begins here. A child's first one resets the handle. */
void kit_after_fork(struct llmkit *kit);

static inline void kit_enter(struct llmkit *kit)
{
	if (aux_unlikely(atomic_load_explicit(&kit->guard->state, memory_order_acquire) <
		    GUARD_DETACHED))
		kit_after_fork(kit);
}

/* kit->sending is held: attaches unless attached. LLMKIT_E_. */
int kit_attach(struct llmkit *kit);
/* As kit_attach(), with kit->sending taken here. */
int kit_attach_now(struct llmkit *kit);
/* As kit_enter(); a child also becomes a participant of its own, if there is a daemon; else it goes
 * on without. One try. */
void kit_enter_attached(struct llmkit *kit);
/* A region in kit->mapping, attaching when there is none. LLMKIT_E_REGION, _NO_REGION; a mapping
 * may still be read-only. */
int kit_need_region(struct llmkit *kit);
/* Makes llmkit_fd() readable, when somebody asked for it. lock is held. */
void kit_notify(struct llmkit *kit);
/* Bits that differ from call to call; from SplitMix64. */
static inline uint64_t kit_random(uint64_t seed)
{
	static _Atomic uint64_t counter;
	uint64_t z = seed +
		atomic_fetch_add_explicit(
			&counter, UINT64_C(0x9e3779b97f4a7c15), memory_order_relaxed);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

/* timeout in ms as in the public calls to an instant for kit_remaining(). */
uint64_t kit_deadline(int timeout_ms);
uint64_t kit_remaining(uint64_t deadline_ns);

/* conn.c */

/* Connects, exchanges HELLO and WELCOME. *region_fd: the region's descriptor, or -1. LLMKIT_E_. */
int conn_open(struct llmkit *kit, struct conn **out, struct msg_welcome *welcome, int *region_fd);
struct conn *conn_unref(struct conn *conn);
/* Gives the stream an id; LLMKIT_E_NO_MEMORY. lock is held. */
int conn_register(struct conn *conn, struct llmkit_stream *stream);
void conn_unregister(struct llmkit_stream *stream);
struct llmkit_stream *conn_find(const struct conn *conn, uint64_t id);

/* mapping.c */

/* Maps what the daemon handed over, or notes why not. lock is held; fd stays the caller's. */
void mapping_switch(struct llmkit *kit, int fd, const struct msg_welcome *welcome);
/* A child holds nothing of what its parent does. */
void mapping_disown_all(struct llmkit *kit);
void mapping_free_all(struct llmkit *kit);

/* wire.c; lock is held, unless said otherwise. */

/* Reads what has arrived, without blocking; the number of frames. May lose the connection. */
int wire_read(struct llmkit *kit, struct conn *conn);
/* Ends all streams of the connection with the code, and the connection. */
void wire_lose(struct llmkit *kit, struct conn *conn, int code);
/* Becomes the reader until something arrived, one of events holds, or the deadline. */
void wire_poll(struct llmkit *kit, struct conn *conn, short events, uint64_t deadline_ns);
void wire_hand_over(struct llmkit *kit);
/* sending is held, lock is not, conn is referenced by the caller. Writes all or loses the
 * connection: LLMKIT_E_DAEMON_LOST. */
int wire_send(struct llmkit *kit, struct conn *conn, struct buffer *frame);

/* stream.c */

/* Makes a stream and sends the frame pack() makes for its id. LLMKIT_E_. */
int stream_open(struct llmkit *kit, int (*pack)(struct buffer *, uint64_t, const void *),
	const void *message, struct llmkit_stream **out);
/* Takes the next frame into stream->current; LLMKIT_OK, _WAIT_TIMEOUT, or why none will come. */
int stream_take(struct llmkit_stream *stream, uint64_t deadline_ns);

/* control.c */

/* Has the daemon make the limits that templates say for these names. LLMKIT_E_. */
int control_resolve(struct llmkit *kit, const struct msg_resolve *names);

/* request.c */
int request_render(
	const struct llmkit_request *request, struct buffer *body, struct msg_submit *out);

/* event.c */

/* The event of an arrived frame; strings point into the item. MSG_OK, or *why. */
int event_read(struct item *item, struct llmkit_event *event, const char **why);
/* What a request's status number is called here. */
int error_of_status(uint32_t status);
