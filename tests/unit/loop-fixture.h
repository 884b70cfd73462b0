#pragma once

/*
 * A loop for a test, once with the ring's best ways and once with the plain ones (BOTH), and a
 * guard against hanging.
 */

#include "base/aux.h"
#include "base/clock.h"
#include "daemon/io/loop.h"
#include "tests/unit/cmocka-all.h"

#include <fcntl.h>
#include <sys/socket.h>

#define GUARD_SECONDS 30

static bool use_plain[] = { false, true };

struct fixture {
	struct loop *loop;
	struct loop_timer guard;
	bool late;
};

static inline void guard_fired(struct loop_timer *t)
{
	struct fixture *f = container_of(t, struct fixture, guard);

	f->late = true;
	loop_stop(f->loop);
}

static inline int setup(void **state)
{
	const bool *plain = *state;
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || loop_new(&f->loop, &(struct loop_options){ .plain = *plain }) < 0)
		return -1;
	f->guard.fn = guard_fired;
	*state = f;
	return loop_timer_start(
		f->loop, &f->guard, loop_now(f->loop) + GUARD_SECONDS * NSEC_PER_SEC);
}

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	loop_timer_cancel(f->loop, &f->guard);
	f->loop = loop_free(f->loop);
	free(f);
	return 0;
}

static inline void run(struct fixture *f)
{
	assert_int_equal(loop_run(f->loop), 0);
	assert_false(f->late);
}

static inline void stream_pair(int fds[2])
{
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
}

struct stopper {
	struct loop_timer timer;
	struct loop *loop;
};

static inline void stopper_fired(struct loop_timer *t)
{
	loop_stop(container_of(t, struct stopper, timer)->loop);
}

/* Lets some milliseconds of turns pass, for things that must not happen. */
static inline void settle(struct fixture *f)
{
	struct stopper s = { .timer.fn = stopper_fired, .loop = f->loop };

	assert_int_equal(
		loop_timer_start(f->loop, &s.timer, clock_boottime_ns() + 20 * NSEC_PER_MSEC), 0);
	run(f);
}

#define BOTH(fn_) \
	{ #fn_, fn_, setup, teardown, &use_plain[0] }, \
	{ \
#fn_ " (plain)", fn_, setup, teardown, &use_plain[1] \
	}
