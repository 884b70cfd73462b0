#include "tests/unit/loop-fixture.h"

#include <errno.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* ---- timers ---- */

struct clockwork {
	struct loop_timer timer;
	struct loop *loop;
	struct clockwork *other;
	int *order, *count;
	int id;
	bool stop, again;
};

static void clockwork_fired(struct loop_timer *t)
{
	struct clockwork *c = container_of(t, struct clockwork, timer);

	assert_false(loop_timer_is_started(t));
	if (c->order)
		c->order[*c->count] = c->id;
	++*c->count;
	if (c->other) {
		loop_timer_cancel(c->loop, &c->other->timer);
		memset(c->other, 0xa5, sizeof(*c->other));
		free(c->other);
		c->other = NULL;
	}
	if (c->again && *c->count < 5)
		assert_int_equal(loop_timer_start(c->loop, t, 0), 0);
	if (c->stop)
		loop_stop(c->loop);
}

static void timers_fire_in_order_of_deadline(void **state)
{
	struct fixture *f = *state;
	struct clockwork c[200];
	int order[ARRAY_SIZE(c)], count = 0;
	uint64_t base = loop_now(f->loop);

	for (int i = 0; i < (int)ARRAY_SIZE(c); i++) {
		int at = i * 73 % (int)ARRAY_SIZE(c); /* 73 and 200 share no factor */

		c[at] = (struct clockwork){ .timer.fn = clockwork_fired,
			.loop = f->loop,
			.order = order,
			.count = &count,
			.id = at };
		/* First far away or very near, then moved into place. */
		assert_int_equal(
			loop_timer_start(f->loop, &c[at].timer, base + (i % 2 ? UINT32_MAX : 1)),
			0);
		assert_int_equal(
			loop_timer_start(f->loop, &c[at].timer, base + (uint64_t)(at + 1) * 10000),
			0);
	}
	c[ARRAY_SIZE(c) - 1].stop = true;
	/* Every seventh is taken out of the middle of the heap. */
	for (int i = 0; i + 1 < (int)ARRAY_SIZE(c); i += 7)
		loop_timer_cancel(f->loop, &c[i].timer);
	run(f);
	for (int i = 0, at = 0; i < (int)ARRAY_SIZE(c); i++)
		if (i % 7 || i + 1 == (int)ARRAY_SIZE(c))
			assert_int_equal(order[at++], i);
	assert_int_equal(count, ARRAY_SIZE(c) - 29);
}

static void timer_callback_frees_another_due_timer(void **state)
{
	struct fixture *f = *state;
	struct clockwork first = { .timer.fn = clockwork_fired, .loop = f->loop };
	struct clockwork *second = calloc(1, sizeof(*second));
	int count = 0;

	assert_non_null(second);
	first.count = &count;
	first.other = second;
	first.stop = true;
	*second = (struct clockwork){ .timer.fn = clockwork_fired, .count = &count };
	assert_int_equal(loop_timer_start(f->loop, &first.timer, 1), 0);
	assert_int_equal(loop_timer_start(f->loop, &second->timer, loop_now(f->loop) + 5), 0);
	run(f);
	assert_int_equal(count, 1);
}

struct order {
	struct loop_deferred deferred;
	struct loop *loop;
	const int *count;
	int turns, last, most;
};

static void order_turn(struct loop_deferred *d)
{
	struct order *o = container_of(d, struct order, deferred);

	o->turns++;
	if (*o->count - o->last > o->most)
		o->most = *o->count - o->last;
	o->last = *o->count;
	loop_deferred_start(o->loop, d);
}

static void overdue_timer_that_restarts_itself_leaves_the_turn(void **state)
{
	struct fixture *f = *state;
	int count = 0;
	struct order o = { .deferred.fn = order_turn, .loop = f->loop, .count = &count };
	struct clockwork c = {
		.timer.fn = clockwork_fired, .loop = f->loop, .count = &count, .again = true
	};
	struct stopper s = { .timer.fn = stopper_fired, .loop = f->loop };

	loop_deferred_start(f->loop, &o.deferred);
	assert_int_equal(loop_timer_start(f->loop, &c.timer, 0), 0);
	assert_int_equal(
		loop_timer_start(f->loop, &s.timer, clock_boottime_ns() + 10 * NSEC_PER_MSEC), 0);
	run(f);
	loop_deferred_cancel(f->loop, &o.deferred);
	assert_int_equal(count, 5);
	assert_true(o.turns >= 5);
	assert_int_equal(o.most, 1); /* of one turn */
}

/* ---- deferred ---- */

struct later {
	struct loop_deferred deferred;
	struct loop *loop;
	struct later *cancels;
	int runs;
	bool again, stop;
};

static void later_ran(struct loop_deferred *d)
{
	struct later *l = container_of(d, struct later, deferred);

	l->runs++;
	if (l->cancels)
		loop_deferred_cancel(l->loop, &l->cancels->deferred);
	if (l->again && l->runs < 3)
		loop_deferred_start(l->loop, d);
	else if (l->stop)
		loop_stop(l->loop);
}

static void deferred_runs_once_and_may_cancel_and_restart(void **state)
{
	struct fixture *f = *state;
	struct later last = { .deferred.fn = later_ran, .loop = f->loop };
	struct later middle = { .deferred.fn = later_ran, .loop = f->loop };
	struct later again = {
		.deferred.fn = later_ran, .loop = f->loop, .again = true, .stop = true
	};
	struct later first = { .deferred.fn = later_ran, .loop = f->loop, .cancels = &middle };

	loop_deferred_start(f->loop, &first.deferred);
	loop_deferred_start(f->loop, &middle.deferred);
	loop_deferred_start(f->loop, &first.deferred);
	loop_deferred_start(f->loop, &again.deferred);
	loop_deferred_start(f->loop, &last.deferred);
	loop_deferred_cancel(f->loop, &last.deferred);
	loop_deferred_start(f->loop, &last.deferred);
	run(f);
	assert_int_equal(first.runs, 1);
	assert_int_equal(middle.runs, 0);
	assert_int_equal(again.runs, 3);
	assert_int_equal(last.runs, 1);
	assert_null(first.deferred.link);
}

/* ---- watches ---- */

struct viewer {
	struct loop_watch watch;
	struct loop *loop;
	struct viewer **victim; /* cancelled, poisoned and freed from the callback */
	uint32_t revents;
	int count;
	bool stop;
};

static void viewer_saw(struct loop_watch *w, uint32_t revents)
{
	struct viewer *v = container_of(w, struct viewer, watch);

	assert_false(loop_watch_is_started(w));
	v->revents = revents;
	v->count++;
	if (v->victim && *v->victim) {
		loop_watch_cancel(v->loop, &(*v->victim)->watch);
		memset(*v->victim, 0xa5, sizeof(**v->victim));
		free(*v->victim);
		*v->victim = NULL;
	}
	if (v->stop)
		loop_stop(v->loop);
}

static void watch_is_one_shot_and_reports_errors(void **state)
{
	struct fixture *f = *state;
	struct viewer v = { .watch.fn = viewer_saw, .loop = f->loop, .stop = true };
	int fds[2];

	stream_pair(fds);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(loop_watch_start(f->loop, &v.watch, fds[0], POLLIN), 0);
	assert_int_equal(loop_watch_start(f->loop, &v.watch, fds[0], POLLIN), -EBUSY);
	run(f);
	assert_true(v.revents & POLLIN);
	settle(f);
	assert_int_equal(v.count, 1);
	/* Level: the byte is still there. */
	assert_int_equal(loop_watch_start(f->loop, &v.watch, fds[0], POLLIN), 0);
	run(f);
	assert_int_equal(v.count, 2);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(loop_watch_start(f->loop, &v.watch, 1 << 20, POLLIN), 0);
	run(f);
	assert_int_equal(v.revents, POLLNVAL);
	loop_watch_cancel(f->loop, &v.watch);
}

/* Both are ready in the same turn; whichever runs first frees the other. */
static void watch_callback_frees_another_ready_watch(void **state)
{
	struct fixture *f = *state;
	struct viewer *a = calloc(1, sizeof(*a)), *b = calloc(1, sizeof(*b));
	int fds[2];

	assert_non_null(a);
	assert_non_null(b);
	stream_pair(fds);
	assert_int_equal(write(fds[1], "x", 1), 1);
	*a = (struct viewer){ .watch.fn = viewer_saw, .loop = f->loop, .victim = &b };
	*b = (struct viewer){ .watch.fn = viewer_saw, .loop = f->loop, .victim = &a };
	assert_int_equal(loop_watch_start(f->loop, &a->watch, fds[0], POLLIN), 0);
	assert_int_equal(loop_watch_start(f->loop, &b->watch, fds[0], POLLIN), 0);
	settle(f);
	assert_true(!a != !b);
	assert_int_equal((a ? a : b)->count, 1);
	free(a);
	free(b);
	close(fds[0]);
	close(fds[1]);
}

/* A completion that was under way at the cancel must not reach the next user of the number. */
static void reused_descriptor_sees_nothing_of_its_predecessor(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 200; round++) {
		struct viewer old = { .watch.fn = viewer_saw, .loop = f->loop };
		struct viewer new = { .watch.fn = viewer_saw, .loop = f->loop };
		int fds[2], again[2], first;

		stream_pair(fds);
		assert_int_equal(loop_watch_start(f->loop, &old.watch, fds[0], POLLIN), 0);
		if (round % 2) {
			struct later l = {
				.deferred.fn = later_ran, .loop = f->loop, .stop = true
			};

			loop_deferred_start(f->loop, &l.deferred);
			run(f); /* the poll is with the kernel now */
		}
		assert_int_equal(write(fds[1], "x", 1), 1);
		loop_watch_cancel(f->loop, &old.watch);
		first = fds[0];
		close(fds[0]);
		close(fds[1]);
		stream_pair(again);
		assert_int_equal(again[0], first);
		assert_int_equal(loop_watch_start(f->loop, &new.watch, again[0], POLLIN), 0);
		if (round % 50 == 0)
			settle(f);
		assert_int_equal(new.count, 0);
		assert_int_equal(old.count, 0);
		loop_watch_cancel(f->loop, &new.watch);
		close(again[0]);
		close(again[1]);
	}
}

static void more_watches_than_the_ring_has_entries(void **state)
{
	struct fixture *f = *state;
	struct viewer *v = calloc(1000, sizeof(*v));
	int fds[2];

	assert_non_null(v);
	stream_pair(fds);
	for (int i = 0; i < 1000; i++) {
		v[i] = (struct viewer){ .watch.fn = viewer_saw, .loop = f->loop };
		assert_int_equal(loop_watch_start(f->loop, &v[i].watch, fds[0], POLLIN), 0);
	}
	for (int i = 0; i < 1000; i += 3)
		loop_watch_cancel(f->loop, &v[i].watch);
	settle(f);
	assert_int_equal(write(fds[1], "x", 1), 1);
	settle(f);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(v[i].count, i % 3 ? 1 : 0);
	free(v);
	close(fds[0]);
	close(fds[1]);
}

static void peer_sees_the_end_in_spite_of_an_armed_watch(void **state)
{
	struct fixture *f = *state;
	struct pollfd p = { .events = POLLIN };
	char byte;
	int fds[2];

	for (int with_shutdown = 0; with_shutdown <= 1; with_shutdown++) {
		struct viewer v = { .watch.fn = viewer_saw, .loop = f->loop };

		stream_pair(fds);
		assert_int_equal(loop_watch_start(f->loop, &v.watch, fds[0], POLLIN), 0);
		settle(f);
		loop_watch_cancel(f->loop, &v.watch);
		if (with_shutdown)
			shutdown(fds[0], SHUT_RDWR);
		close(fds[0]);
		/* Without it the kernel lets the file go when the cancel is submitted. */
		if (!with_shutdown)
			settle(f);
		p.fd = fds[1];
		assert_int_equal(poll(&p, 1, 5000), 1);
		assert_int_equal(read(fds[1], &byte, 1), 0);
		close(fds[1]);
	}
}

/* ---- where no ring can be had ---- */

/* Runs loop_new() in a child that prepare() has crippled; its result, and what it logged. */
static int result_in_child(void (*prepare)(void), char *log, size_t size)
{
	int fds[2], status;
	ssize_t n;
	pid_t child;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct loop *loop = NULL;
		int r;

		if (dup2(fds[1], STDERR_FILENO) < 0)
			_exit(99);
		prepare();
		r = loop_new(&loop, NULL);
		loop = loop_free(loop);
		_exit(-r);
	}
	close(fds[1]);
	n = read(fds[0], log, size - 1);
	log[n > 0 ? n : 0] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	return -WEXITSTATUS(status);
}

static void without_locked_memory(void)
{
	struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_MEMLOCK, &none) < 0)
		_exit(99);
	if (geteuid() == 0 && (setgroups(0, NULL) < 0 || setgid(65534) < 0 || setuid(65534) < 0))
		_exit(99);
}

static void deny_setup(uint32_t error)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { .len = ARRAY_SIZE(filter), .filter = filter };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ||
		prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0)
		_exit(99);
}

static void forbidden(void)
{
	deny_setup(EPERM);
}

static void absent(void)
{
	deny_setup(ENOSYS);
}

static void tells_why_there_is_no_ring(void **state)
{
	char log[4096];

	(void)state;
	assert_int_equal(result_in_child(without_locked_memory, log, sizeof(log)), -ENOMEM);
	assert_non_null(strstr(log, "RLIMIT_MEMLOCK is 0"));
	assert_int_equal(result_in_child(forbidden, log, sizeof(log)), -EPERM);
	assert_non_null(strstr(log, "forbidden"));
	assert_non_null(strstr(log, "seccomp"));
	assert_int_equal(result_in_child(absent, log, sizeof(log)), -ENOSYS);
	assert_non_null(strstr(log, "absent"));
}

static void shrinks_the_ring_to_the_locked_memory(void **state)
{
	struct rlimit some = { 40 << 10, 40 << 10 };
	int status;
	pid_t child = fork();

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		struct loop *loop = NULL;
		int r;

		if (setrlimit(RLIMIT_MEMLOCK, &some) < 0 || (geteuid() == 0 && setuid(65534) < 0))
			_exit(99);
		r = loop_new(&loop, &(struct loop_options){ .entries = 4096 });
		if (r < 0)
			_exit(-r);
		_exit(strstr(loop_describe(loop), "entries=4096 ") ? 98 : 0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void stop_before_run_is_one_turn(void **state)
{
	struct fixture *f = *state;
	struct later l = { .deferred.fn = later_ran, .loop = f->loop };

	loop_deferred_start(f->loop, &l.deferred);
	loop_stop(f->loop);
	run(f);
	assert_int_equal(l.runs, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(timers_fire_in_order_of_deadline),
		BOTH(timer_callback_frees_another_due_timer),
		BOTH(overdue_timer_that_restarts_itself_leaves_the_turn),
		BOTH(deferred_runs_once_and_may_cancel_and_restart),
		BOTH(stop_before_run_is_one_turn),
		BOTH(watch_is_one_shot_and_reports_errors),
		BOTH(watch_callback_frees_another_ready_watch),
		BOTH(reused_descriptor_sees_nothing_of_its_predecessor),
		BOTH(more_watches_than_the_ring_has_entries),
		BOTH(peer_sees_the_end_in_spite_of_an_armed_watch),
		cmocka_unit_test(tells_why_there_is_no_ring),
		cmocka_unit_test(shrinks_the_ring_to_the_locked_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
