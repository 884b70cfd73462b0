#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/internal.h"
#include "shm/bucket.h"
#include "shm/timebase.h"

#define LEVELS 3
#define RECHECK_NS NSEC_PER_SEC
#define SLEEP_MAX_NS NSEC_PER_SEC /* a limit that was raised meanwhile is noticed after this */
#define RETRIES 4
#define RESOLVED_MAX 256 /* different sets one handle can see; more is a region gone mad */

/*
 * Which rows of which region the names mean. Never changed once published, except for the time
 * of the last check; replaced ones are kept until the handle is closed, since another thread
 * may be using them.
 */
struct resolved {
	struct resolved *older;
	struct mapping *mapping;
	_Atomic uint64_t checked_ns;
	struct bucket_set set;
	char label[LEVELS][sizeof(((struct llmkit_verdict *)NULL)->limit)];
};

struct llmkit_limits {
	struct llmkit *kit;
	struct guard *guard;
	_Atomic(struct resolved *) resolved;
	struct resolved *all;
	unsigned count; /* of all */
	char *name[LEVELS];
};

static const enum bucket_scope level_scope[LEVELS] = {
	BUCKET_SCOPE_USER,
	BUCKET_SCOPE_MODEL,
	BUCKET_SCOPE_PROVIDER,
};

/* ---- finding the rows ---- */

static void limits_look_up(
	const struct llmkit_limits *limits, struct mapping *mapping, struct resolved *out)
{
	*out = (struct resolved){ .mapping = mapping };
	for (int i = 0; i < LEVELS; i++) {
		uint32_t at = out->set.count;

		if (!limits->name[i] ||
			!bucket_set_add(&out->set, &mapping->region, level_scope[i],
				str_of(limits->name[i])))
			continue;
		snprintf(out->label[at], sizeof(out->label[at]), "%s %s",
			bucket_scope_name(level_scope[i]), limits->name[i]);
	}
}

static bool resolved_is_equal(const struct resolved *a, const struct resolved *b)
{
	return a->mapping == b->mapping && a->set.count == b->set.count &&
		memcmp(a->set.index, b->set.index, a->set.count * sizeof(a->set.index[0])) == 0 &&
		memcmp(a->set.key, b->set.key, a->set.count * sizeof(a->set.key[0])) == 0;
}

/* Looks the names up again; publishes what is new. lock is held. LLMKIT_E_NO_MEMORY, _REGION. */
static int limits_resolve(struct llmkit_limits *limits, struct mapping *mapping, uint64_t now_ns)
{
	struct resolved found, *r;

	limits_look_up(limits, mapping, &found);
	for (r = limits->all; r && !resolved_is_equal(r, &found); r = r->older)
		;
	if (!r) {
		if (limits->count == RESOLVED_MAX)
			return LLMKIT_E_REGION;
		r = malloc(sizeof(*r));
		if (!r)
			return LLMKIT_E_NO_MEMORY;
		memcpy(r, &found, sizeof(*r));
		r->older = limits->all;
		limits->all = r;
		limits->count++;
	}
	atomic_store_explicit(&r->checked_ns, now_ns, memory_order_relaxed);
	atomic_store_explicit(&limits->resolved, r, memory_order_release);
	return LLMKIT_OK;
}

/* The region in use now, or else the one the handle had: budgets outlive a daemon. */
static int limits_refresh(struct llmkit_limits *limits, uint64_t now_ns)
{
	struct llmkit *kit = limits->kit;
	struct mapping *mapping;
	int r;

	pthread_mutex_lock(&kit->lock);
	mapping = atomic_load(&kit->mapping);
	if (!mapping || !mapping->region.writable)
		mapping = atomic_load(&limits->resolved)->mapping;
	r = limits_resolve(limits, mapping, now_ns);
	pthread_mutex_unlock(&kit->lock);
	return r;
}

/* A child becomes a participant of its own, if there is a daemon; else it goes on without. */
static void limits_enter(struct llmkit *kit)
{
	kit_enter(kit);
	if (atomic_load(&kit->guard->state) == GUARD_READY)
		return;
	pthread_mutex_lock(&kit->sending);
	if (atomic_load(&kit->guard->state) == GUARD_DETACHED)
		kit_attach(kit);
	pthread_mutex_unlock(&kit->sending);
}

/* ---- opening and closing ---- */

/* A region to find limits in: the attached one, or that of a daemon started since. */
static int limits_region(struct llmkit *kit)
{
	struct mapping *mapping;

	limits_enter(kit);
	if (!atomic_load(&kit->mapping)) {
		int r;

		pthread_mutex_lock(&kit->sending);
		r = kit_attach(kit);
		pthread_mutex_unlock(&kit->sending);
		if (r < 0)
			return r;
	}
	mapping = atomic_load(&kit->mapping);
	if (!mapping)
		return kit->role == MSG_ROLE_OBSERVER ? LLMKIT_E_NO_REGION : LLMKIT_E_REGION;
	return mapping->region.writable ? LLMKIT_OK : LLMKIT_E_NO_REGION;
}

static int limits_set_name(struct llmkit_limits *limits, int level, const char *name)
{
	if (!name || !*name)
		return LLMKIT_OK;
	limits->name[level] = strdup(name);
	return limits->name[level] ? LLMKIT_OK : LLMKIT_E_NO_MEMORY;
}

static int limits_init(
	struct llmkit_limits *limits, const char *provider, const char *model, const char *user)
{
	const char *name[LEVELS] = { user, model, provider };
	struct llmkit *kit = limits->kit;
	struct mapping *mapping;
	int r = LLMKIT_OK;

	for (int i = 0; i < LEVELS && r == LLMKIT_OK; i++)
		r = limits_set_name(limits, i, name[i]);
	if (r < 0)
		return r;
	pthread_mutex_lock(&kit->lock);
	mapping = atomic_load(&kit->mapping);
	r = mapping ? limits_resolve(limits, mapping, clock_boottime_ns()) : LLMKIT_E_REGION;
	pthread_mutex_unlock(&kit->lock);
	return r;
}

int llmkit_limits_open(
	llmkit *kit, const char *provider, const char *model, const char *user, llmkit_limits **out)
{
	struct llmkit_limits *limits;
	int r;

	if (!kit || !out)
		return LLMKIT_E_ARGUMENT;
	*out = NULL;
	r = limits_region(kit);
	if (r < 0)
		return r;
	limits = calloc(1, sizeof(*limits));
	if (!limits)
		return LLMKIT_E_NO_MEMORY;
	limits->kit = kit;
	limits->guard = kit->guard;
	r = limits_init(limits, provider, model, user);
	if (r < 0) {
		llmkit_limits_close(limits);
		return r;
	}
	*out = limits;
	return LLMKIT_OK;
}

void llmkit_limits_close(llmkit_limits *limits)
{
	struct resolved *r;

	if (!limits)
		return;
	for (r = limits->all; r;) {
		struct resolved *older = r->older;

		free(r);
		r = older;
	}
	for (int i = 0; i < LEVELS; i++)
		free(limits->name[i]);
	free(limits);
}

unsigned llmkit_limits_count(llmkit_limits *limits)
{
	return limits ? atomic_load(&limits->resolved)->set.count : 0;
}

/* ---- taking ---- */

static inline uint64_t limits_now(const struct region *region)
{
	uint64_t now;

	if (aux_likely(timebase_convert(region, clock_cycles(), &now)))
		return now;
	return clock_boottime_ns();
}

static int limits_verdict(
	const struct resolved *s, const struct bucket_verdict *v, struct llmkit_verdict *out)
{
	if (out) {
		out->wait_ns = v->outcome == BUCKET_E_WAIT ? v->wait_ns : 0;
		out->limit[0] = '\0';
		for (uint32_t i = 0; i < s->set.count; i++)
			if (s->set.index[i] == v->blocking)
				memcpy(out->limit, s->label[i], sizeof(out->limit));
	}
	return v->outcome == BUCKET_E_WAIT ? LLMKIT_E_LIMITED : LLMKIT_E_NEVER_FITS;
}

static inline bool limits_is_due(const struct resolved *s, uint64_t now_ns)
{
	uint64_t checked = atomic_load_explicit(&s->checked_ns, memory_order_relaxed);

	return now_ns - checked > RECHECK_NS && now_ns > checked;
}

static inline bool limits_has_moved(const struct llmkit_limits *limits, const struct resolved *s)
{
	struct mapping *m = atomic_load_explicit(&limits->kit->mapping, memory_order_acquire);

	return m != s->mapping && m && m->region.writable;
}

/* As llmkit_acquire(); *at_ns: the time the verdict is of. */
static inline int limits_acquire(
	struct llmkit_limits *limits, uint64_t n, struct llmkit_verdict *verdict, uint64_t *at_ns)
{
	for (int i = 0; i < RETRIES; i++) {
		struct resolved *s = atomic_load_explicit(&limits->resolved, memory_order_acquire);
		uint64_t now = limits_now(&s->mapping->region);
		struct bucket_verdict v;

		/* Limits configured since, and another region, are looked for now and then. */
		if (aux_unlikely(limits_is_due(s, now) || limits_has_moved(limits, s))) {
			int r = limits_refresh(limits, now);

			if (r < 0)
				return r;
			s = atomic_load_explicit(&limits->resolved, memory_order_acquire);
		}
		*at_ns = now;
		v = bucket_acquire(&s->mapping->region, &s->set, n, now);
		if (aux_likely(v.outcome == BUCKET_OK)) {
			if (verdict) {
				verdict->wait_ns = 0;
				verdict->limit[0] = '\0';
			}
			return LLMKIT_OK;
		}
		if (v.outcome != BUCKET_E_GONE)
			return limits_verdict(s, &v, verdict);
		if (limits_refresh(limits, now) < 0)
			break;
	}
	return LLMKIT_E_REGION;
}

static inline void limits_check_fork(struct llmkit_limits *limits)
{
	if (aux_unlikely(atomic_load_explicit(&limits->guard->state, memory_order_acquire) !=
		    GUARD_READY))
		limits_enter(limits->kit);
}

int llmkit_acquire(llmkit_limits *limits, uint64_t n, struct llmkit_verdict *verdict)
{
	uint64_t at;

	if (aux_unlikely(!limits || n == 0))
		return LLMKIT_E_ARGUMENT;
	limits_check_fork(limits);
	return limits_acquire(limits, n, verdict, &at);
}

int llmkit_acquire_until(
	llmkit_limits *limits, uint64_t n, uint64_t deadline_ns, struct llmkit_verdict *verdict)
{
	struct llmkit_verdict own;
	struct llmkit_verdict *v = verdict ? verdict : &own;

	if (!limits || n == 0)
		return LLMKIT_E_ARGUMENT;
	limits_check_fork(limits);
	for (;;) {
		uint64_t at = 0;
		int r = limits_acquire(limits, n, v, &at);

		if (r != LLMKIT_E_LIMITED || at >= deadline_ns || v->wait_ns > deadline_ns - at)
			return r;
		r = clock_sleep_until(at + min_u64(v->wait_ns, SLEEP_MAX_NS));
		if (r < 0) {
			errno = -r;
			return LLMKIT_E_SYSTEM;
		}
	}
}
