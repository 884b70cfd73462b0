/*
 * The loop on io_uring; the only home of liburing.h.
 *
 * Each armed operation of the kernel belongs to a slot, and a slot is given back only after the
 * last completion of its operation. A cancelled watch leaves its slot without an owner, and
 * whatever still arrives for it is dropped (accepted sockets are closed, buffers returned). Slots
 * carry a generation, so that code which ran a callback can tell whether its slot is still its own.
 */

#include "daemon/io/loop.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include "base/aux.h"
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/io/loop_slot.h"
#include "daemon/io/loop_timer.h"

#define ENTRIES_DEFAULT 256u
#define ENTRIES_MIN 8u
/* Completions per submission: a turn may answer many watches, and accepts come in bursts. */
#define CQ_FACTOR 8u
#define BATCH 64u
#define BUFFER_COUNT 64u
#define BUFFER_SIZE (16u << 10)
#define BUFFER_GROUP 0
/* loop_free() gives the kernel this long, in turns of 10 ms, to finish what was cancelled. */
#define FREE_TURNS 20

struct loop {
	struct io_uring ring;
	struct slot_table slots;
	struct timer_heap timers;
	struct loop_deferred *deferred, **deferred_tail, *running;
	uint64_t now;
	bool stopped;
	bool buffered_receive, multishot_accept;
	bool receive_proven; /* the kernel took a receive into our buffers once */
	struct io_uring_buf_ring *buffer_ring;
	char *buffers;
	char *scratch; /* BUFFER_SIZE bytes for plain receivers */
	char description[160];
};

/* ---- the ring ---- */

static const struct ring_flags {
	unsigned flags;
	const char *name;
} ring_flags[] = {
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_COOP_TASKRUN |
			IORING_SETUP_CQSIZE,
		"single_issuer,defer_taskrun,cqsize" },
	{ IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE,
		"single_issuer,coop_taskrun,cqsize" },
	{ IORING_SETUP_COOP_TASKRUN | IORING_SETUP_CQSIZE, "coop_taskrun,cqsize" },
	{ IORING_SETUP_CQSIZE, "cqsize" },
	{ 0, "none" },
};

static int ring_failed(int r, uint32_t entries)
{
	struct rlimit limit = { 0 };

	if (r == -ENOMEM) {
		getrlimit(RLIMIT_MEMLOCK, &limit);
		log_error("loop: no memory for an io_uring of %u entries: RLIMIT_MEMLOCK is %llu "
			  "bytes for all of this user's rings together; raise it (ulimit -l, "
			  "LimitMEMLOCK=)",
			entries, (unsigned long long)limit.rlim_cur);
	} else if (r == -EPERM || r == -EACCES) {
		log_error("loop: io_uring is forbidden here: allow io_uring_setup, io_uring_enter "
			  "and io_uring_register in the container's seccomp profile, and look at "
			  "sysctl kernel.io_uring_disabled");
	} else if (r == -ENOSYS) {
		log_error("loop: io_uring is absent: this kernel is too old or built without it, "
			  "or a seccomp profile hides it");
	} else {
		log_error("loop: io_uring cannot be set up: %s", strerror(-r));
	}
	return error_origin(r);
}

static int ring_init(struct loop *loop, uint32_t entries, const char **flags)
{
	size_t i = 0;
	int r;

	for (;;) {
		struct io_uring_params params = {
			.flags = ring_flags[i].flags,
			.cq_entries =
				ring_flags[i].flags & IORING_SETUP_CQSIZE ? entries * CQ_FACTOR : 0,
		};

		r = io_uring_queue_init_params(entries, &loop->ring, &params);
		if (r == -EINVAL && i + 1 < ARRAY_SIZE(ring_flags)) {
			i++;
		} else if (r == -ENOMEM && entries / 2 >= ENTRIES_MIN) {
			entries /= 2;
		} else if (r < 0) {
			return ring_failed(r, entries);
		} else {
			*flags = ring_flags[i].name;
			return 0;
		}
	}
}

static void buffer_return(struct loop *loop, unsigned id)
{
	io_uring_buf_ring_add(loop->buffer_ring, loop->buffers + (size_t)id * BUFFER_SIZE,
		BUFFER_SIZE, (unsigned short)id, io_uring_buf_ring_mask(BUFFER_COUNT), 0);
	io_uring_buf_ring_advance(loop->buffer_ring, 1);
}

static void *map_pages(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/* Buffers the kernel picks from when bytes come, so that idle connections hold none. False: this
 * kernel has no such thing. */
static bool buffers_init(struct loop *loop)
{
	struct io_uring_buf_reg reg = { .ring_entries = BUFFER_COUNT, .bgid = BUFFER_GROUP };

	loop->buffer_ring = map_pages(BUFFER_COUNT * sizeof(struct io_uring_buf));
	loop->buffers = map_pages((size_t)BUFFER_COUNT * BUFFER_SIZE);
	if (!loop->buffer_ring || !loop->buffers)
		return false;
	reg.ring_addr = (uint64_t)(uintptr_t)loop->buffer_ring;
	if (io_uring_register_buf_ring(&loop->ring, &reg, 0) < 0)
		return false;
	io_uring_buf_ring_init(loop->buffer_ring);
	for (unsigned i = 0; i < BUFFER_COUNT; i++)
		buffer_return(loop, i);
	return true;
}

static void buffers_deinit(struct loop *loop)
{
	if (loop->buffer_ring)
		munmap(loop->buffer_ring, BUFFER_COUNT * sizeof(struct io_uring_buf));
	if (loop->buffers)
		munmap(loop->buffers, (size_t)BUFFER_COUNT * BUFFER_SIZE);
}

int loop_new(struct loop **out, const struct loop_options *options)
{
	uint32_t entries = options && options->entries ? options->entries : ENTRIES_DEFAULT;
	struct loop *loop aux_cleanup(freep) = calloc(1, sizeof(*loop));
	const char *flags = NULL;
	int r;

	if (!loop)
		return error_origin(-ENOMEM);
	loop->scratch = malloc(BUFFER_SIZE);
	if (!loop->scratch)
		return error_origin(-ENOMEM);
	r = ring_init(loop, entries < ENTRIES_MIN ? ENTRIES_MIN : entries, &flags);
	if (r < 0) {
		free(loop->scratch);
		return error_trace(r);
	}
	if (!options || !options->plain)
		loop->buffered_receive = loop->multishot_accept = buffers_init(loop);
	loop->deferred_tail = &loop->deferred;
	loop->now = clock_boottime_ns();
	snprintf(loop->description, sizeof(loop->description),
		"io_uring entries=%u completions=%u flags=%s receive=%s",
		loop->ring.sq.ring_entries, loop->ring.cq.ring_entries, flags,
		loop->buffered_receive ? "buffers" : "plain");
	log_info("loop: %s", loop->description);
	*out = steal_ptr(loop);
	return 0;
}

const char *loop_describe(const struct loop *loop)
{
	return loop->description;
}

uint64_t loop_now(const struct loop *loop)
{
	return loop->now;
}

void loop_stop(struct loop *loop)
{
	loop->stopped = true;
}

/* NULL only when the kernel takes nothing now; then the caller leaves it to the work list. */
static struct io_uring_sqe *sqe_get(struct loop *loop)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&loop->ring);

	if (sqe)
		return sqe;
	io_uring_submit(&loop->ring);
	return io_uring_get_sqe(&loop->ring);
}

/* ---- slots ---- */

static void slot_arm(struct loop *loop, uint32_t index)
{
	struct slot *s = slot_at(&loop->slots, index);
	struct io_uring_sqe *sqe = sqe_get(loop);

	if (!sqe) {
		slot_work_add(&loop->slots, index, WORK_ARM);
		return;
	}
	if (s->kind == SLOT_WATCH || s->plain) {
		io_uring_prep_poll_add(sqe, s->fd, s->kind == SLOT_WATCH ? s->events : POLLIN);
	} else if (s->kind == SLOT_RECEIVER) {
		/* Not multishot: on Linux 6.18 that loses the end of a Unix stream when it comes
		 * while the last bytes are being taken (one in some thousands). */
		io_uring_prep_recv(sqe, s->fd, NULL, 0, 0);
		sqe->flags |= IOSQE_BUFFER_SELECT;
		sqe->buf_group = BUFFER_GROUP;
	} else {
		io_uring_prep_multishot_accept(
			sqe, s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	}
	io_uring_sqe_set_data64(sqe, slot_token(&loop->slots, index));
	s->armed = true;
}

/* Asks the kernel to end the operation; its last completion comes in any case. */
static void slot_cancel(struct loop *loop, uint32_t index)
{
	struct slot *s = slot_at(&loop->slots, index);
	struct io_uring_sqe *sqe;

	if (!s->armed)
		return;
	sqe = sqe_get(loop);
	if (!sqe) {
		slot_work_add(&loop->slots, index, WORK_CANCEL);
		return;
	}
	io_uring_prep_cancel64(sqe, slot_token(&loop->slots, index), 0);
	io_uring_sqe_set_data64(sqe, 0);
}

/* The owner is gone. */
static void slot_disown(struct loop *loop, uint32_t *slot)
{
	uint32_t index = *slot;

	if (!index)
		return;
	*slot = 0;
	slot_at(&loop->slots, index)->owner = NULL;
	slot_cancel(loop, index);
	slot_release(&loop->slots, index);
}

/* ---- watches ---- */

int loop_watch_start(struct loop *loop, struct loop_watch *w, int fd, uint32_t events)
{
	int r;

	if (w->slot)
		return -EBUSY;
	r = slot_new(&loop->slots, &w->slot, SLOT_WATCH, w, fd);
	if (r < 0)
		return error_trace(r);
	slot_at(&loop->slots, w->slot)->events = events;
	slot_arm(loop, w->slot);
	return 0;
}

void loop_watch_cancel(struct loop *loop, struct loop_watch *w)
{
	slot_disown(loop, &w->slot);
}

static void watch_completed(struct loop *loop, uint32_t index, int result)
{
	struct slot *s = slot_at(&loop->slots, index);
	struct loop_watch *w = s->owner;

	s->owner = NULL;
	slot_release(&loop->slots, index);
	if (!w)
		return;
	w->slot = 0;
	if (result < 0)
		result = result == -EBADF ? POLLNVAL : POLLERR;
	w->fn(w, (uint32_t)result);
}

/* ---- receivers ---- */

int loop_receiver_start(struct loop *loop, struct loop_receiver *r, int fd)
{
	int error;

	if (r->slot)
		return -EBUSY;
	error = slot_new(&loop->slots, &r->slot, SLOT_RECEIVER, r, fd);
	if (error < 0)
		return error_trace(error);
	slot_at(&loop->slots, r->slot)->plain = !loop->buffered_receive;
	slot_arm(loop, r->slot);
	return 0;
}

void loop_receiver_cancel(struct loop *loop, struct loop_receiver *r)
{
	slot_disown(loop, &r->slot);
}

void loop_receiver_pause(struct loop *loop, struct loop_receiver *r)
{
	struct slot *s;

	if (!r->slot)
		return;
	s = slot_at(&loop->slots, r->slot);
	if (s->paused)
		return;
	s->paused = true;
	/* A poll may stay: when it fires nothing is read. */
	if (!s->plain)
		slot_cancel(loop, r->slot);
}

void loop_receiver_resume(struct loop *loop, struct loop_receiver *r)
{
	struct slot *s;

	if (!r->slot)
		return;
	s = slot_at(&loop->slots, r->slot);
	if (!s->paused)
		return;
	s->paused = false;
	if (s->stash || s->ended)
		slot_work_add(&loop->slots, r->slot, WORK_DELIVER);
	else if (!s->armed)
		slot_arm(loop, r->slot);
}

/* The owner's callback. False: the slot may be another's now. */
static bool receiver_deliver(struct loop *loop, uint32_t index, const void *data, ssize_t n)
{
	struct slot *s = slot_at(&loop->slots, index);
	struct loop_receiver *r = s->owner;
	uint32_t generation = s->generation;

	if (n <= 0)
		slot_disown(loop, &r->slot);
	r->fn(r, data, n);
	return n > 0 && slot_at(&loop->slots, index)->generation == generation;
}

/* After bytes were delivered or not: goes on, or lets the slot go. */
static void receiver_continue(struct loop *loop, uint32_t index)
{
	struct slot *s = slot_at(&loop->slots, index);

	if (!s->owner)
		slot_release(&loop->slots, index);
	else if (!s->armed && !s->paused && !s->stash && !s->ended)
		slot_arm(loop, index);
}

static void receiver_flush(struct loop *loop, uint32_t index)
{
	struct slot *s = slot_at(&loop->slots, index);
	struct buffer *stash = s->stash;
	bool mine = true;

	if (!s->owner || s->paused)
		return;
	if (stash) {
		s->stash = NULL;
		if (buffer_length(stash))
			mine = receiver_deliver(
				loop, index, buffer_head(stash), (ssize_t)buffer_length(stash));
		buffer_deinit(stash);
		free(stash);
	}
	if (!mine)
		return;
	s = slot_at(&loop->slots, index);
	if (s->owner && !s->paused && s->ended)
		receiver_deliver(loop, index, NULL, s->end);
	else
		receiver_continue(loop, index);
}

static bool is_transient(ssize_t n)
{
	return n == -EAGAIN || n == -EINTR || n == -ENOBUFS || n == -ECANCELED;
}

/* Bytes or an end arrived for the slot. */
static void receiver_take(struct loop *loop, uint32_t index, const void *data, ssize_t n)
{
	struct slot *s = slot_at(&loop->slots, index);

	if (!is_transient(n)) {
		if (s->paused || s->stash || s->ended)
			slot_stash(s, data, n);
		else if (!receiver_deliver(loop, index, data, n))
			return;
	}
	receiver_continue(loop, index);
}

static void receiver_ready(struct loop *loop, uint32_t index)
{
	struct slot *s = slot_at(&loop->slots, index);
	ssize_t n;

	if (!s->owner || s->paused) {
		receiver_continue(loop, index);
		return;
	}
	n = recv(s->fd, loop->scratch, BUFFER_SIZE, MSG_DONTWAIT);
	receiver_take(loop, index, loop->scratch, n < 0 ? -errno : n);
}

static void receiver_completed(struct loop *loop, uint32_t index, int result, unsigned flags)
{
	struct slot *s = slot_at(&loop->slots, index);
	const char *data = NULL;

	if (s->plain) {
		receiver_ready(loop, index);
		return;
	}
	if (flags & IORING_CQE_F_BUFFER)
		data = loop->buffers + (size_t)(flags >> IORING_CQE_BUFFER_SHIFT) * BUFFER_SIZE;
	if (!s->owner) {
		/* Bytes of a cancelled stream; the cancel missed when more may come. */
		slot_cancel(loop, index);
		slot_release(&loop->slots, index);
	} else if (result == -EINVAL && !loop->receive_proven) {
		loop->buffered_receive = false;
		s->plain = true;
		receiver_continue(loop, index);
	} else {
		loop->receive_proven = true;
		receiver_take(loop, index, data, result);
	}
	if (data)
		buffer_return(loop, flags >> IORING_CQE_BUFFER_SHIFT);
}

/* ---- acceptors ---- */

int loop_acceptor_start(struct loop *loop, struct loop_acceptor *a, int listen_fd)
{
	int flags = fcntl(listen_fd, F_GETFL), r;
	bool plain;

	if (a->slot)
		return -EBUSY;
	if (flags < 0)
		return error_origin(-errno);
	/* The kernel's accept does not wait on a non-blocking socket; ours must not block. */
	plain = !loop->multishot_accept || (flags & O_NONBLOCK);
	if (plain && fcntl(listen_fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return error_origin(-errno);
	r = slot_new(&loop->slots, &a->slot, SLOT_ACCEPTOR, a, listen_fd);
	if (r < 0)
		return error_trace(r);
	slot_at(&loop->slots, a->slot)->plain = plain;
	slot_arm(loop, a->slot);
	return 0;
}

void loop_acceptor_cancel(struct loop *loop, struct loop_acceptor *a)
{
	slot_disown(loop, &a->slot);
}

static void acceptor_take(struct loop *loop, uint32_t index, int fd)
{
	struct slot *s = slot_at(&loop->slots, index);
	struct loop_acceptor *a = s->owner;
	uint32_t generation = s->generation;

	if (fd != -EAGAIN && fd != -EINTR && fd != -ECONNABORTED) {
		if (fd < 0)
			slot_disown(loop, &a->slot);
		a->fn(a, fd);
		s = slot_at(&loop->slots, index);
		if (fd < 0 || s->generation != generation || !s->owner)
			return;
	}
	if (!s->armed)
		slot_arm(loop, index);
}

static void acceptor_completed(struct loop *loop, uint32_t index, int result)
{
	struct slot *s = slot_at(&loop->slots, index);

	if (!s->owner) {
		if (result >= 0 && !s->plain)
			close(result);
		slot_cancel(loop, index);
		slot_release(&loop->slots, index);
		return;
	}
	if (s->plain) {
		result = accept4(s->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (result < 0)
			result = -errno;
	} else if (result == -EINVAL) {
		/* No multishot accept in this kernel; if it is another fault, accept4() says so. */
		s->plain = true;
		fcntl(s->fd, F_SETFL, fcntl(s->fd, F_GETFL) | O_NONBLOCK);
		result = -EAGAIN;
	}
	acceptor_take(loop, index, result);
}

/* ---- timers and the end of a turn ---- */

int loop_timer_start(struct loop *loop, struct loop_timer *t, uint64_t deadline_ns)
{
	/* Later than this turn, so that a timer which restarts itself cannot hold it. */
	return timer_heap_set(&loop->timers, t, max_u64(deadline_ns, loop->now + 1));
}

void loop_timer_cancel(struct loop *loop, struct loop_timer *t)
{
	timer_heap_remove(&loop->timers, t);
}

static void timers_run(struct loop *loop)
{
	struct loop_timer *t;

	while ((t = timer_heap_first(&loop->timers)) && t->deadline_ns <= loop->now) {
		timer_heap_remove(&loop->timers, t);
		t->fn(t);
	}
}

void loop_deferred_start(struct loop *loop, struct loop_deferred *d)
{
	if (d->link)
		return;
	d->next = NULL;
	d->link = loop->deferred_tail;
	*loop->deferred_tail = d;
	loop->deferred_tail = &d->next;
}

void loop_deferred_cancel(struct loop *loop, struct loop_deferred *d)
{
	if (!d->link)
		return;
	*d->link = d->next;
	if (d->next)
		d->next->link = d->link;
	else if (loop->deferred_tail == &d->next)
		loop->deferred_tail = d->link;
	d->next = NULL;
	d->link = NULL;
}

static void deferred_run(struct loop *loop)
{
	struct loop_deferred *d;

	loop->running = loop->deferred;
	if (loop->running)
		loop->running->link = &loop->running;
	loop->deferred = NULL;
	loop->deferred_tail = &loop->deferred;
	while ((d = loop->running)) {
		loop_deferred_cancel(loop, d);
		d->fn(d);
	}
}

/* What could not be submitted, and stashes of resumed receivers. */
static void work_run(struct loop *loop)
{
	uint32_t index = loop->slots.work_head, next;

	loop->slots.work_head = 0;
	for (; index; index = next) {
		struct slot *s = slot_at(&loop->slots, index);
		uint8_t work = s->work;

		next = s->next;
		s->work = 0;
		if (work & WORK_CANCEL)
			slot_cancel(loop, index);
		if ((work & WORK_ARM) && s->owner && !s->armed && !s->paused)
			slot_arm(loop, index);
		if (work & WORK_DELIVER)
			receiver_flush(loop, index);
		if (slot_at(&loop->slots, index)->kind != SLOT_FREE)
			slot_release(&loop->slots, index);
	}
}

/* ---- a turn ---- */

static void completed(struct loop *loop, uint64_t token, int result, unsigned flags)
{
	uint32_t index = (uint32_t)token;
	struct slot *s;

	if (!index)
		return; /* the result of a cancel */
	s = slot_at(&loop->slots, index);
	assert(s->kind != SLOT_FREE && s->generation == (uint32_t)(token >> 32));
	if (!(flags & IORING_CQE_F_MORE))
		s->armed = false;
	if (s->kind == SLOT_WATCH)
		watch_completed(loop, index, result);
	else if (s->kind == SLOT_RECEIVER)
		receiver_completed(loop, index, result, flags);
	else
		acceptor_completed(loop, index, result);
}

/* Those that are there now; what callbacks bring about waits for the next turn. */
static void completions_run(struct loop *loop)
{
	struct io_uring_cqe *pointers[BATCH];
	struct {
		uint64_t token;
		int result;
		unsigned flags;
	} batch[BATCH];
	unsigned left = loop->ring.cq.ring_entries;

	while (left) {
		unsigned n =
			io_uring_peek_batch_cqe(&loop->ring, pointers, left < BATCH ? left : BATCH);

		for (unsigned i = 0; i < n; i++) {
			batch[i].token = pointers[i]->user_data;
			batch[i].result = pointers[i]->res;
			batch[i].flags = pointers[i]->flags;
		}
		/* Before the callbacks: they may submit, and the kernel may need the room. */
		io_uring_cq_advance(&loop->ring, n);
		for (unsigned i = 0; i < n; i++)
			completed(loop, batch[i].token, batch[i].result, batch[i].flags);
		if (n < BATCH)
			return;
		left -= n < left ? n : left;
	}
}

/* Submits, and sleeps at most until limit_ns unless something is to be done at once. */
static int loop_wait(struct loop *loop, bool sleep, uint64_t limit_ns)
{
	struct loop_timer *first = timer_heap_first(&loop->timers);
	uint64_t deadline = first ? min_u64(first->deadline_ns, limit_ns) : limit_ns, left, now;
	struct __kernel_timespec t, *timeout = NULL;
	struct io_uring_cqe *cqe;
	int r;

	if (sleep && deadline != UINT64_MAX) {
		now = clock_boottime_ns();
		left = deadline > now ? deadline - now : 0;
		sleep = left > 0;
		t.tv_sec = (long long)(left / NSEC_PER_SEC);
		t.tv_nsec = (long long)(left % NSEC_PER_SEC);
		timeout = &t;
	}
	if (sleep)
		r = io_uring_submit_and_wait_timeout(&loop->ring, &cqe, 1, timeout, NULL);
	else
		r = io_uring_submit_and_get_events(&loop->ring);
	/* EBUSY and EAGAIN: the kernel wants completions taken, or memory, first. */
	if (r >= 0 || r == -ETIME || r == -EINTR || r == -EBUSY || r == -EAGAIN)
		return 0;
	log_error("loop: io_uring_enter: %s", strerror(-r));
	return error_origin(r);
}

int loop_run(struct loop *loop)
{
	bool sleep;
	int r;

	for (;;) {
		loop->now = clock_boottime_ns();
		completions_run(loop);
		timers_run(loop);
		work_run(loop);
		deferred_run(loop);
		sleep = !loop->stopped && !loop->deferred && !loop->slots.work_head;
		r = loop_wait(loop, sleep, UINT64_MAX);
		if (r < 0 || loop->stopped)
			break;
	}
	loop->stopped = false;
	return r;
}

struct loop *loop_free(struct loop *loop)
{
	if (!loop)
		return NULL;
	assert(loop->timers.count == 0 && !loop->deferred);
	assert(slot_table_is_disowned(&loop->slots));
	/* Cancelled accepts may have sockets to close, and armed requests hold their files open. */
	for (int i = 0; loop->slots.live && i < FREE_TURNS; i++) {
		work_run(loop);
		loop_wait(loop, true, clock_boottime_ns() + 10 * NSEC_PER_MSEC);
		completions_run(loop);
	}
	io_uring_queue_exit(&loop->ring);
	timer_heap_deinit(&loop->timers);
	buffers_deinit(loop);
	slot_table_deinit(&loop->slots);
	free(loop->scratch);
	free(loop);
	return NULL;
}
