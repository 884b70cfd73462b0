/* Participants: what the dead held comes back, the living keep theirs. */

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include "shm/event.h"
#include "shm/hold.h"
#include "shm/participant.h"
#include "shm/target.h"
#include "tests/unit/control-fixture.h"

/* A process that waits to be killed. */
static pid_t member(void)
{
	pid_t test = getpid(), pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		/* Also by the end of a test that fails. */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		while (getppid() == test)
			pause();
		_exit(1);
	}
	return pid;
}

static void bury(pid_t pid)
{
	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Holds one request in flight at the target, as the process with that owner word. */
static uint32_t hold_one(const struct region *r, uint64_t owner, uint32_t target)
{
	uint32_t hold = hold_claim(r, owner, 0, clock_boottime_ns());

	assert_int_not_equal(hold, HOLD_NONE);
	assert_int_equal(hold_move(r, hold, owner, HOLD_TOTAL_TARGET(target), 1, 0, NULL), HOLD_OK);
	return hold;
}

static uint32_t some_target(struct region *r)
{
	const struct target_config t = { .name = str_of("t"), .provider = TARGET_NONE };
	int row = target_configure(r, &t);

	assert_true(row >= 0);
	return (uint32_t)row;
}

static enum participant_state state_of(const struct region *r, int row)
{
	struct participant_view v;

	assert_true(participant_view(r, (uint32_t)row, &v));
	return v.state;
}

static void what_the_dead_held_comes_back_when_their_socket_ends(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	uint32_t target = some_target(r);
	uint64_t owner = 0;
	pid_t pid = member();
	int row = control_claim(f->control, pid, 0, &owner);

	assert_true(row >= 0);
	assert_true(owner != 0 && owner != control_owner(f->control));
	hold_one(r, owner, target);
	assert_int_equal(target_pending(r, target), 1);
	bury(pid);
	control_leave(f->control, row);
	assert_int_equal(target_pending(r, target), 0);
	assert_int_equal(state_of(r, row), PARTICIPANT_FREE);
}

/* Of a client in another PID namespace the socket says 0: its end could not be proved. */
static void who_cannot_be_seen_gets_no_row(void **state)
{
	struct fixture *f = *state;
	uint64_t owner = 0;

	start(f);
	assert_int_equal(control_claim(f->control, 0, 0, &owner), -ESRCH);
	assert_int_equal(owner, 0);
}

/* Runs the loop until the row is free, or for so many steps of 10 ms. */
struct watch {
	struct loop_timer timer;
	struct fixture *f;
	int row, steps;
};

static void watch_step(struct loop_timer *t)
{
	struct watch *w = container_of(t, struct watch, timer);

	if (w->steps-- == 0 || state_of(control_region(w->f->control), w->row) == PARTICIPANT_FREE)
		loop_stop(w->f->loop);
	else
		loop_timer_start(w->f->loop, t, loop_now(w->f->loop) + 10 * NSEC_PER_MSEC);
}

static void run_until_free(struct fixture *f, int row, int steps)
{
	struct watch w = { .timer = { .fn = watch_step }, .f = f, .row = row, .steps = steps };

	assert_int_equal(loop_timer_start(f->loop, &w.timer, loop_now(f->loop)), 0);
	assert_int_equal(loop_run(f->loop), 0);
	loop_timer_cancel(f->loop, &w.timer);
}

static void the_living_keep_what_they_hold_without_a_socket(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	uint32_t target = some_target(r);
	uint64_t owner = 0, again = 0;
	pid_t pid = member();
	int row = control_claim(f->control, pid, 0, &owner);

	hold_one(r, owner, target);
	assert_int_equal(kill(pid, SIGSTOP), 0);
	control_leave(f->control, row);
	run_until_free(f, row, 5);
	assert_int_equal(target_pending(r, target), 1);
	assert_int_equal(state_of(r, row), PARTICIPANT_ORPHAN);
	/* It comes back and is the same. */
	assert_int_equal(control_claim(f->control, pid, 0, &again), row);
	assert_int_equal(again, owner);
	control_leave(f->control, row);
	/* Its death is seen without a socket. */
	bury(pid);
	run_until_free(f, row, 1000);
	assert_int_equal(target_pending(r, target), 0);
}

static void who_died_while_no_daemon_ran_is_reaped_by_the_next(void **state)
{
	struct fixture *f = *state;
	struct region *r = start(f);
	uint32_t target = some_target(r);
	uint64_t dead_owner = 0, living_owner = 0;
	pid_t dead = member(), living = member();
	int dead_row = control_claim(f->control, dead, 0, &dead_owner);
	int living_row = control_claim(f->control, living, 0, &living_owner);

	hold_one(r, dead_owner, target);
	hold_one(r, living_owner, target);
	assert_int_equal(target_pending(r, target), 2);
	stop(f);
	bury(dead);
	r = start(f);
	assert_int_equal(target_pending(r, target), 1);
	assert_int_equal(state_of(r, dead_row), PARTICIPANT_FREE);
	assert_int_equal(state_of(r, living_row), PARTICIPANT_ORPHAN);
	bury(living);
	run_until_free(f, living_row, 1000);
	assert_int_equal(target_pending(r, target), 0);
}

static void comings_and_goings_are_events(void **state)
{
	struct fixture *f = *state;
	const struct region *r = start(f);
	uint64_t ticket = event_head(r), owner;
	pid_t pid = member();
	struct event e;
	int row = control_claim(f->control, pid, 0, &owner);

	assert_int_equal(event_next(r, &ticket, &e), EVENT_OK);
	assert_int_equal(e.kind, EVENT_PARTICIPANT);
	assert_int_equal(e.row, row);
	assert_int_equal(e.to, 1);
	assert_int_equal(e.value, pid);
	/* Once, however often it attaches while it lives. */
	for (int i = 0; i < 3; i++) {
		control_leave(f->control, row);
		assert_int_equal(control_claim(f->control, pid, 0, &owner), row);
	}
	assert_int_equal(event_next(r, &ticket, &e), EVENT_E_NONE);
	bury(pid);
	control_leave(f->control, row);
	assert_int_equal(event_next(r, &ticket, &e), EVENT_OK);
	assert_int_equal(e.kind, EVENT_PARTICIPANT);
	assert_int_equal(e.to, 0);
	assert_int_equal(event_next(r, &ticket, &e), EVENT_E_NONE);
}

#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(what_the_dead_held_comes_back_when_their_socket_ends),
		CASE(who_cannot_be_seen_gets_no_row),
		CASE(the_living_keep_what_they_hold_without_a_socket),
		CASE(who_died_while_no_daemon_ran_is_reaped_by_the_next),
		CASE(comings_and_goings_are_events),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
