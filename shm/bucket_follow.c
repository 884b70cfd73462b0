#include "shm/bucket_follow.h"

#include "base/aux.h"
#include "shm/bucket_table.h"
#include "shm/layout.h"

/* Limits of a user are not the provider's to know. */
static bool is_providers(const struct bucket_view *v)
{
	return (v->scope & BUCKET_SCOPE_USER) == 0;
}

/* The row as long as it is still the set's. */
static bool view_of(const struct region *r, const struct bucket_set *set, uint32_t i,
	uint64_t now_ns, struct bucket_view *out)
{
	return bucket_view(r, set->index[i], now_ns, out) &&
		atomic_load_explicit(&r->bucket[set->index[i]].key, memory_order_relaxed) ==
		set->key[i];
}

static enum bucket_span span_of(uint64_t window_ns)
{
	if (window_ns <= 3600 * NSEC_PER_SEC)
		return BUCKET_SPAN_MINUTE;
	return window_ns <= 7 * NSEC_PER_DAY ? BUCKET_SPAN_DAY : BUCKET_SPAN_MONTH;
}

/* A month is as long as the limit's own. */
static uint64_t span_ns(const struct bucket_view *v)
{
	switch (span_of(v->window_ns)) {
	case BUCKET_SPAN_MINUTE:
		return 60 * NSEC_PER_SEC;
	case BUCKET_SPAN_DAY:
		return NSEC_PER_DAY;
	default:
		return v->window_ns;
	}
}

static void follow(const struct region *r, uint32_t row, const struct bucket_view *v,
	uint64_t limit, uint64_t remaining, uint64_t now_ns)
{
	unsigned __int128 scaled;

	if (remaining < v->burst)
		bucket_raise(r, row, v->burst - remaining, now_ns);
	if (limit == 0 || limit == BUCKET_FOLLOW_UNSAID)
		return;
	scaled = (unsigned __int128)limit * v->window_ns / span_ns(v);
	if (scaled > 0 && scaled <= UINT64_C(1000000000000))
		bucket_hear(r, row, (uint64_t)scaled);
}

/* What a provider's answer speaks of: the limits of the model if there are any, else of the key,
 * else its own. The wider ones add up several of what it counts one by one. */
static const uint64_t narrowest[] = { BUCKET_SCOPE_MODEL, BUCKET_SCOPE_KEY, BUCKET_SCOPE_PROVIDER };

static bool follows(const struct bucket_set *set, uint32_t i, const struct bucket_view *v,
	enum bucket_resource resource, enum bucket_span span)
{
	return set->resource[i] == resource && span_of(v->window_ns) == span &&
		(v->kind == BUCKET_RATE || v->kind == BUCKET_HELD);
}

void bucket_follow(const struct region *r, const struct bucket_set *set,
	enum bucket_resource resource, enum bucket_span span, uint64_t limit, uint64_t remaining,
	uint64_t now_ns)
{
	struct bucket_view v;
	bool found = false;

	for (size_t k = 0; k < ARRAY_SIZE(narrowest) && !found; k++)
		for (uint32_t i = 0; i < set->count && i < BUCKET_SET_MAX; i++) {
			if (!view_of(r, set, i, now_ns, &v) || !is_providers(&v) ||
				!(v.scope & narrowest[k]) || !follows(set, i, &v, resource, span))
				continue;
			follow(r, set->index[i], &v, limit, remaining, now_ns);
			found = true;
		}
}

void bucket_follow_all(const struct region *r, const struct bucket_set *set,
	const uint64_t limit[BUCKET_SPANS][BUCKET_FOLLOW_RESOURCES],
	const uint64_t remaining[BUCKET_SPANS][BUCKET_FOLLOW_RESOURCES], uint64_t now_ns)
{
	for (int span = 0; span < BUCKET_SPANS; span++)
		for (int i = 0; i < BUCKET_FOLLOW_RESOURCES; i++)
			if (limit[span][i] != BUCKET_FOLLOW_UNSAID ||
				remaining[span][i] != BUCKET_FOLLOW_UNSAID)
				bucket_follow(r, set, (enum bucket_resource)i,
					(enum bucket_span)span, limit[span][i], remaining[span][i],
					now_ns);
}

void bucket_pause_set(
	const struct region *r, const struct bucket_set *set, uint64_t until_ns, uint64_t now_ns)
{
	struct bucket_view v;
	bool paused = false;

	for (size_t k = 0; k < ARRAY_SIZE(narrowest) && !paused; k++)
		for (uint32_t i = 0; i < set->count && i < BUCKET_SET_MAX; i++) {
			if (!view_of(r, set, i, now_ns, &v) || !is_providers(&v) ||
				!(v.scope & narrowest[k]))
				continue;
			bucket_pause(r, set->index[i], until_ns, now_ns);
			paused = true;
		}
}
