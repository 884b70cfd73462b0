#pragma once

/*
 * The event loop of one thread: readiness, received bytes, accepted sockets, timers, and a
 * hook at the end of each turn. Nothing here names io_uring: loop_uring.c implements it, and an
 * epoll back end could without touching another file.
 *
 * Rules that make it safe to use:
 *   - a watch, receiver, acceptor or timer is embedded in its owner's struct, and belongs to
 *     the loop from start to cancel (or to its one callback, where it is one-shot);
 *   - after *_cancel() returns, its callback is never called again and its memory may be freed,
 *     also from inside any callback;
 *   - cancel on something not started does nothing;
 *   - callbacks never run inside start or cancel calls;
 *   - shutdown(2) a socket before close(2): an armed operation holds it open inside the kernel, and
 *     the peer would see the end only after the cancel was submitted, at the end of the turn;
 *   - one thread: the one that called loop_new().
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <poll.h>
#include <sys/types.h>

struct loop;

struct loop_options {
	uint32_t entries; /* submission ring size wanted, 0: 256; halved on ENOMEM down to 8 */
	bool plain;       /* readiness and system calls only, as on kernels before 6.0 */
};

/* 0, or -errno with the reason logged (RLIMIT_MEMLOCK named on ENOMEM; EPERM and ENOSYS say that
 * io_uring is forbidden or absent). */
int loop_new(struct loop **out, const struct loop_options *options);
/* Everything must be cancelled. Returns NULL. */
struct loop *loop_free(struct loop *loop);

/* Runs until loop_stop(). 0, or -errno when the ring itself fails. */
int loop_run(struct loop *loop);
void loop_stop(struct loop *loop);

/* The time of this turn, CLOCK_BOOTTIME; read once per turn. */
uint64_t loop_now(const struct loop *loop);

/* What the ring became, for logs and status: "io_uring entries=256 features=...". */
const char *loop_describe(const struct loop *loop);

/* One-shot readiness of a descriptor the caller owns. revents as poll(2). */
struct loop_watch {
	void (*fn)(struct loop_watch *w, uint32_t revents);
	uint32_t slot; /* the loop's; 0 when not started */
};
/* -EBUSY when started already; -ENOMEM. */
int loop_watch_start(struct loop *loop, struct loop_watch *w, int fd, uint32_t events);
void loop_watch_cancel(struct loop *loop, struct loop_watch *w);
static inline bool loop_watch_is_started(const struct loop_watch *w)
{
	return w->slot != 0;
}

/*
 * Bytes of a stream socket, again and again until cancelled or ended. data is the loop's and
 * valid during the callback only. n: > 0 bytes; 0 the peer ended; < 0 -errno. After n <= 0 the
 * receiver is stopped. Cancel is for the end of a connection: bytes the kernel has handed over
 * already are dropped, so no other receiver may go on with the descriptor. Back-pressure: pause,
 * and resume later (also from the callback; both idempotent, and nothing on one not started):
 * nothing is lost, nothing is delivered while paused, not even the end.
 */
struct loop_receiver {
	void (*fn)(struct loop_receiver *r, const void *data, ssize_t n);
	uint32_t slot;
};
int loop_receiver_start(struct loop *loop, struct loop_receiver *r, int fd);
void loop_receiver_cancel(struct loop *loop, struct loop_receiver *r);
void loop_receiver_pause(struct loop *loop, struct loop_receiver *r);
void loop_receiver_resume(struct loop *loop, struct loop_receiver *r);

/* Accepted sockets, CLOEXEC and non-blocking, until cancelled; fd < 0 is -errno, and the acceptor
 * is stopped (the owner restarts it, later when descriptors ran out). */
struct loop_acceptor {
	void (*fn)(struct loop_acceptor *a, int fd);
	uint32_t slot;
};
int loop_acceptor_start(struct loop *loop, struct loop_acceptor *a, int listen_fd);
void loop_acceptor_cancel(struct loop *loop, struct loop_acceptor *a);

/* One-shot timer; a deadline in the past fires on the next turn. Starting a started timer moves
 * it. -ENOMEM. */
struct loop_timer {
	void (*fn)(struct loop_timer *t);
	uint64_t deadline_ns;
	uint32_t heap_index; /* the loop's; 0 when not started */
};
int loop_timer_start(struct loop *loop, struct loop_timer *t, uint64_t deadline_ns);
void loop_timer_cancel(struct loop *loop, struct loop_timer *t);
static inline bool loop_timer_is_started(const struct loop_timer *t)
{
	return t->heap_index != 0;
}

/* Runs once at the end of this turn (before the loop sleeps): coalesced writes live here.
 * Starting it again before it ran does nothing; it may start itself for the next turn. */
struct loop_deferred {
	void (*fn)(struct loop_deferred *d);
	struct loop_deferred *next, **link; /* the loop's; NULL when not started */
};
void loop_deferred_start(struct loop *loop, struct loop_deferred *d);
void loop_deferred_cancel(struct loop *loop, struct loop_deferred *d);
