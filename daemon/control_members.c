#include "daemon/control_internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/syscall.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "base/process.h"
#include "shm/breaker.h"
#include "shm/event.h"
#include "shm/hold.h"
#include "shm/participant.h"

/* Those whose death no descriptor tells are looked after every few heartbeats. */
#define MEMBERS_REAP_BEATS 5

/* A process without a socket of ours that may hold something. */
struct orphan {
	struct list node;
	struct control *control;
	struct loop_watch death;
	int pidfd;
	uint32_t row;
};

static bool member_is_alive(uint64_t pid, uint64_t start)
{
	return !process_is_gone(pid, start);
}

static void member_tell(struct control *c, uint32_t row, uint8_t to, uint64_t pid, uint64_t now_ns)
{
	const struct event event = {
		.time_ns = now_ns,
		.kind = EVENT_PARTICIPANT,
		.to = to,
		.row = row,
		.value = pid,
	};

	event_add(&c->region, &event);
}

/* On proof of death: all it held comes back, then the row is free. */
static void member_bury(struct control *c, uint32_t row)
{
	uint64_t owner = participant_owner(&c->region, row), now_ns = clock_boottime_ns();
	struct participant_view view = { 0 };
	uint32_t holds, probes;

	if (!owner)
		return;
	participant_view(&c->region, row, &view);
	holds = hold_reap(&c->region, owner, now_ns);
	probes = breaker_reap(&c->region, owner);
	participant_release(&c->region, row);
	member_tell(c, row, 0, view.pid, now_ns);
	if (holds || probes)
		log_notice("participant died: its leases came back pid=%llu requests=%u probes=%u",
			(unsigned long long)view.pid, holds, probes);
}

/* ---- orphans ---- */

static void orphan_free(struct orphan *o)
{
	loop_watch_cancel(o->control->loop, &o->death);
	list_unlink(&o->node);
	close(o->pidfd);
	free(o);
}

static void orphan_on_death(struct loop_watch *w, uint32_t revents)
{
	struct orphan *o = container_of(w, struct orphan, death);
	struct control *c = o->control;
	uint32_t row = o->row;

	(void)revents;
	orphan_free(o);
	member_bury(c, row);
}

/* Without a descriptor of it, control_members_beat() finds it dead. */
static void orphan_watch(struct control *c, uint32_t row, uint64_t pid)
{
	struct orphan *o = calloc(1, sizeof(*o));

	if (!o)
		return;
	*o = (struct orphan){ .control = c, .row = row, .death = { .fn = orphan_on_death } };
	list_init(&o->node);
	o->pidfd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
	if (o->pidfd < 0 || loop_watch_start(c->loop, &o->death, o->pidfd, POLLIN) < 0) {
		if (o->pidfd >= 0)
			close(o->pidfd);
		free(o);
		return;
	}
	list_push(&c->orphans, &o->node);
}

/* Its process is back, or buried. Whether it was waited for. */
static bool orphan_forget(struct control *c, uint32_t row)
{
	bool found = false;

	list_for_each_safe (node, &c->orphans) {
		struct orphan *o = container_of(node, struct orphan, node);

		if (o->row != row)
			continue;
		orphan_free(o);
		found = true;
	}
	return found;
}

/* pidfd_open() first, then whether it is still the same process: so no other can slip in. */
static void orphan_add(struct control *c, uint32_t row)
{
	struct participant_view view;

	if (!participant_view(&c->region, row, &view))
		return;
	participant_orphan(&c->region, row);
	orphan_watch(c, row, view.pid);
	if (!member_is_alive(view.pid, view.start)) {
		orphan_forget(c, row);
		member_bury(c, row);
	}
}

/* ---- come and go ---- */

int control_claim(struct control *c, pid_t pid, uid_t uid, uint64_t *owner)
{
	uint64_t start = 0, now_ns = clock_boottime_ns();
	int row;

	/* Its death could not be seen. */
	if (pid <= 0)
		return -ESRCH;
	process_start_ticks((uint64_t)pid, &start);
	row = participant_claim(&c->region, (uint64_t)pid, start, uid, now_ns);
	if (row < 0)
		return row;
	*owner = participant_owner(&c->region, (uint32_t)row);
	/* Who comes back had not gone: that is told when it dies. */
	if (!orphan_forget(c, (uint32_t)row))
		member_tell(c, (uint32_t)row, 1, (uint64_t)pid, now_ns);
	return row;
}

void control_leave(struct control *c, int row)
{
	orphan_add(c, (uint32_t)row);
}

/* Those without a socket of ours. */
static void members_bury_dead(struct control *c)
{
	struct participant_view view;

	for (uint32_t i = 0; i < c->region.participants; i++)
		if (participant_view(&c->region, i, &view) && view.state == PARTICIPANT_ORPHAN &&
			!member_is_alive(view.pid, view.start)) {
			orphan_forget(c, i);
			member_bury(c, i);
		}
}

/* All of them: one that dies meanwhile is buried like any other. Returns how many live. */
static unsigned members_watch(struct control *c)
{
	struct participant_view view;
	unsigned living = 0;

	for (uint32_t i = 0; i < c->region.participants; i++) {
		if (!participant_view(&c->region, i, &view) || view.state == PARTICIPANT_FREE)
			continue;
		orphan_add(c, i);
		living += participant_owner(&c->region, i) != 0;
	}
	return living;
}

int control_members_init(struct control *c)
{
	unsigned living = members_watch(c);
	int row;

	hold_reap_strays(&c->region, clock_boottime_ns());
	if (living)
		log_notice("clients of an earlier daemon are alive: %u", living);
	row = control_claim(c, getpid(), geteuid(), &c->owner);
	return row < 0 ? error_trace(row) : 0;
}

void control_members_deinit(struct control *c)
{
	list_for_each_safe (node, &c->orphans)
		orphan_free(container_of(node, struct orphan, node));
}

void control_members_beat(struct control *c)
{
	if (c->beats % MEMBERS_REAP_BEATS)
		return;
	members_bury_dead(c);
	hold_reap_strays(&c->region, clock_boottime_ns());
}
