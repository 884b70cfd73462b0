#pragma once

/*
 * The limits of one scope, resolved to rows of the region; what taking, leasing, feedback and
 * routing share. Not installed.
 *
 * A struct resolved is never changed once published, except for the time of the last check;
 * replaced ones are kept until the handle is closed, since another thread or a lease may be using
 * them. So the fast path is a few loads and bucket_acquire().
 */

#include "libclient/internal.h"
#include "shm/bucket.h"
#include "shm/timebase.h"

#define LIMITS_RECHECK_NS NSEC_PER_SEC
#define LIMITS_TRIES 4

struct resolved {
	struct resolved *older;
	struct mapping *mapping;
	_Atomic uint64_t checked_ns;
	struct bucket_set set;
};

struct llmkit_limits {
	struct llmkit *kit;
	struct guard *guard;
	_Atomic(struct resolved *) resolved;
	struct resolved *all;
	unsigned count; /* of all */
	struct scope_copy {
		char *provider, *model, *user, *key; /* NULL: not known */
	} scope;
};

/* Now, by the region's fast clock where it is good. */
static inline uint64_t limits_now(const struct region *region)
{
	uint64_t now;

	if (aux_likely(timebase_convert(region, clock_cycles(), &now)))
		return now;
	return clock_boottime_ns();
}

static inline bool limits_is_due(const struct resolved *s, uint64_t now_ns)
{
	uint64_t checked = atomic_load_explicit(&s->checked_ns, memory_order_relaxed);

	return now_ns - checked > LIMITS_RECHECK_NS && now_ns > checked;
}

static inline bool limits_has_moved(const struct llmkit_limits *limits, const struct resolved *s)
{
	struct mapping *m = atomic_load_explicit(&limits->kit->mapping, memory_order_acquire);

	return m != s->mapping && m && m->region.writable;
}

/* Looks the scope up again, in the region in use now, and has the daemon make what is missing.
 * LLMKIT_E_. */
int limits_refresh(struct llmkit_limits *limits, uint64_t now_ns);

static inline void limits_check_fork(struct llmkit_limits *limits)
{
	if (aux_unlikely(atomic_load_explicit(&limits->guard->state, memory_order_acquire) !=
		    GUARD_READY))
		kit_enter_attached(limits->kit);
}

/* What the scope means at now_ns; looked up again when that is due. LLMKIT_E_. */
static inline int limits_at(struct llmkit_limits *limits, uint64_t now_ns, struct resolved **out)
{
	struct resolved *s = atomic_load_explicit(&limits->resolved, memory_order_acquire);
	int r = LLMKIT_OK;

	/* Limits configured since, and another region, are looked for now and then. */
	if (aux_unlikely(limits_is_due(s, now_ns) || limits_has_moved(limits, s))) {
		r = limits_refresh(limits, now_ns);
		s = atomic_load_explicit(&limits->resolved, memory_order_acquire);
	}
	*out = s;
	return r;
}

/* The same now. */
static inline int limits_current(
	struct llmkit_limits *limits, struct resolved **out, uint64_t *now_ns)
{
	struct resolved *s = atomic_load_explicit(&limits->resolved, memory_order_acquire);

	*now_ns = limits_now(&s->mapping->region);
	return limits_at(limits, *now_ns, out);
}

/* A caller's struct, which may be older and shorter than this library's; false: its size makes no
 * sense. NULL: all 0. */
bool limits_take_struct(void *out, size_t out_size, const void *from, size_t from_size);

/* The caller's cost as bucket.h has it; false: its size makes no sense. */
bool limits_take_cost(const struct llmkit_cost *from, struct bucket_cost *out);
