#include "libclient/acquire.h"

#include <errno.h>
#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "shm/bucket_table.h"

/* One copy per kind of attempt: llmkit_acquire() is to cost little more than what it calls. */
#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define SLEEP_MAX_NS NSEC_PER_SEC /* a wake-up that was missed costs no more than this */

/* ---- verdicts ---- */

ALWAYS_INLINE void attempt_say_admitted(const struct attempt *a)
{
	if (!a->verdict)
		return;
	a->verdict->wait_ns = a->verdict->asked = a->verdict->used = 0;
	a->verdict->held = a->verdict->burst = 0;
	a->verdict->limit[0] = '\0';
}

/* The row's numbers as they are a moment later: they explain, the wait is what counts. */
static int attempt_refused(const struct attempt *a)
{
	int r = a->result.outcome == BUCKET_E_WAIT ? LLMKIT_E_LIMITED : LLMKIT_E_NEVER_FITS;
	struct bucket_view view;

	if (!a->verdict)
		return r;
	*a->verdict =
		(struct llmkit_verdict){ .wait_ns = r == LLMKIT_E_LIMITED ? a->result.wait_ns : 0 };
	if (!bucket_view(&a->resolved->mapping->region, a->result.blocking, a->at_ns, &view))
		return r;
	a->verdict->asked = bucket_asked(&a->cost, view.resource);
	a->verdict->used = view.owed;
	a->verdict->held = view.held;
	a->verdict->burst = view.burst;
	bucket_label(&view, a->verdict->limit);
	return r;
}

/* ---- one try ---- */

/* What marks this process's holds. Without a daemon nobody would see it die: then only the parent
 * of a fork, which attached once, can hold anything. */
static int attempt_owner(struct attempt *a, uint64_t *owner)
{
	struct mapping *mapping = a->resolved->mapping;
	int r;

	*owner = atomic_load_explicit(&mapping->owner, memory_order_relaxed);
	if (aux_likely(*owner != 0 || a->resolved->set.held == 0))
		return LLMKIT_OK;
	r = kit_attach_now(a->limits->kit);
	*owner = atomic_load_explicit(&mapping->owner, memory_order_relaxed);
	if (*owner != 0 || r < 0)
		return *owner != 0 ? LLMKIT_OK : r;
	return LLMKIT_E_BUSY;
}

ALWAYS_INLINE int attempt_take(struct attempt *a)
{
	const struct region *region = &a->resolved->mapping->region;
	const struct bucket_set *set = &a->resolved->set;
	uint64_t owner;
	int r;

	switch (a->kind) {
	case ATTEMPT_REQUESTS:
		a->result = bucket_acquire(region, set, a->cost.requests, a->at_ns);
		return LLMKIT_OK;
	case ATTEMPT_PEEK:
		a->result = bucket_peek(region, set, &a->cost, a->at_ns);
		return LLMKIT_OK;
	default:
		r = attempt_owner(a, &owner);
		if (r == LLMKIT_OK)
			a->result = bucket_lease(region, owner, set, &a->cost, a->at_ns, &a->lease);
		return r;
	}
}

ALWAYS_INLINE int attempt_try(struct attempt *a)
{
	for (int i = 0; i < LIMITS_TRIES; i++) {
		int r = limits_current(a->limits, &a->resolved, &a->at_ns);

		if (aux_likely(r == LLMKIT_OK))
			r = attempt_take(a);
		if (aux_unlikely(r < 0))
			return r;
		if (aux_likely(a->result.outcome == BUCKET_OK)) {
			attempt_say_admitted(a);
			return LLMKIT_OK;
		}
		switch (a->result.outcome) {
		case BUCKET_E_WAIT:
		case BUCKET_E_NEVER:
			return attempt_refused(a);
		case BUCKET_E_LEASE:
			return LLMKIT_E_LEASE;
		case BUCKET_E_BUSY:
			return LLMKIT_E_BUSY;
		default:
			r = limits_refresh(a->limits, a->at_ns);
			if (r < 0)
				return r;
		}
	}
	return LLMKIT_E_REGION;
}

int attempt_once(struct attempt *a)
{
	return attempt_try(a);
}

/* ---- waiting ---- */

static int wait_sleep(const uint32_t *word, uint32_t value, uint64_t now_ns, uint64_t until_ns)
{
	uint64_t left = until_ns - now_ns;
	struct timespec t = { .tv_sec = (time_t)(left / NSEC_PER_SEC),
		.tv_nsec = (long)(left % NSEC_PER_SEC) };
	int r;

	if (!word)
		r = clock_sleep_until(until_ns);
	else
		r = syscall(SYS_futex, word, FUTEX_WAIT, value, &t, NULL, 0) < 0 ? -errno : 0;
	if (r != -EINTR)
		return LLMKIT_OK;
	errno = EINTR;
	return LLMKIT_E_SYSTEM;
}

/* Whether what is in flight may settle, and so let somebody in, before the time that was told. */
static bool wait_may_end_early(const struct attempt *a)
{
	struct bucket_view view;

	return a->result.wait_ns == BUCKET_WAIT_SETTLEMENT ||
		(bucket_view(&a->resolved->mapping->region, a->result.blocking, a->at_ns, &view) &&
			view.held > 0);
}

/* The instant to sleep until; 0: it would be in vain. */
static uint64_t wait_until(const struct attempt *a, uint64_t deadline_ns)
{
	if (a->at_ns >= deadline_ns)
		return 0;
	if (a->result.wait_ns > deadline_ns - a->at_ns && !wait_may_end_early(a))
		return 0;
	return a->at_ns + min_u64(min_u64(a->result.wait_ns, deadline_ns - a->at_ns), SLEEP_MAX_NS);
}

/*
 * The word is noted, then everything is tried once more, and only then slept on it: whoever settles
 * in between has changed the word, so no wake-up is lost. A refusal by another limit than the
 * word's is slept on as well: its own wake-up may be missed then, for SLEEP_MAX_NS at most.
 */
int attempt_until(struct attempt *a, uint64_t deadline_ns)
{
	for (;;) {
		uint32_t value = 0;
		const uint32_t *word;
		uint64_t until;
		int r = attempt_once(a);

		if (r != LLMKIT_E_LIMITED || (until = wait_until(a, deadline_ns)) == 0)
			return r;
		word = bucket_wait_word(&a->resolved->mapping->region, a->result.blocking, until);
		if (word) {
			value = atomic_load_explicit(
				(const _Atomic uint32_t *)word, memory_order_acquire);
			r = attempt_once(a);
			if (r != LLMKIT_E_LIMITED || (until = wait_until(a, deadline_ns)) == 0)
				return r;
		}
		r = wait_sleep(word, value, a->at_ns, until);
		if (r < 0)
			return r;
	}
}

/* ---- requests ---- */

int llmkit_acquire(llmkit_limits *limits, uint64_t n, struct llmkit_verdict *verdict)
{
	struct attempt a;

	if (aux_unlikely(!limits || n == 0))
		return LLMKIT_E_ARGUMENT;
	limits_check_fork(limits);
	a.kind = ATTEMPT_REQUESTS;
	a.limits = limits;
	a.cost = (struct bucket_cost){ .requests = n };
	a.verdict = verdict;
	return attempt_try(&a);
}

int llmkit_acquire_until(
	llmkit_limits *limits, uint64_t n, uint64_t deadline_ns, struct llmkit_verdict *verdict)
{
	struct attempt a = { .kind = ATTEMPT_REQUESTS,
		.limits = limits,
		.cost = { .requests = n },
		.verdict = verdict };

	if (!limits || n == 0)
		return LLMKIT_E_ARGUMENT;
	limits_check_fork(limits);
	return attempt_until(&a, deadline_ns);
}
