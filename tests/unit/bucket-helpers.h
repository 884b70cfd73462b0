#pragma once

/* What tests of budgets share: taking, looking, and the provider's own exact bucket. */

#include "shm/bucket_table.h"
#include "shm/layout.h"
#include "tests/unit/shm-fixture.h"

#define NOW FIXTURE_NOW
#define SECOND FIXTURE_SECOND

static inline struct bucket_verdict take(
	const struct fixture *f, const struct bucket_set *set, uint64_t now_ns)
{
	return bucket_acquire(&f->r, set, 1, now_ns);
}

/* As many as are admitted at one instant. */
static inline uint64_t drain(const struct fixture *f, const struct bucket_set *set, uint64_t now_ns)
{
	uint64_t n = 0;

	while (take(f, set, now_ns).outcome == BUCKET_OK)
		n++;
	return n;
}

static inline uint64_t hammer(const struct fixture *f, const struct bucket_set *set, uint64_t from,
	uint64_t to, uint64_t step)
{
	uint64_t n = 0;

	for (uint64_t now = from; now <= to; now += step)
		n += take(f, set, now).outcome == BUCKET_OK;
	return n;
}

static inline struct bucket_view view_of(
	const struct fixture *f, const struct bucket_set *set, uint64_t now_ns)
{
	struct bucket_view v;

	assert_true(bucket_view(&f->r, set->index[0], now_ns, &v));
	return v;
}

static inline struct layout_bucket *row_of(const struct fixture *f, const struct bucket_set *set)
{
	return &f->r.bucket[set->index[0]];
}

static inline struct layout_bucket_name *name_of(
	const struct fixture *f, const struct bucket_set *set)
{
	return &f->r.bucket_name[set->index[0]];
}

/* ---- templates ---- */

static inline struct bucket_limit template_for(
	uint64_t scope, enum bucket_resource resource, uint64_t per_second, uint64_t burst)
{
	struct bucket_limit limit = fixture_requests(scope, STR_NULL, per_second, burst);

	limit.resource = resource;
	limit.kind = bucket_kind_of(resource, false);
	if (limit.kind == BUCKET_GAUGE)
		limit.window_ns = 0;
	return limit;
}

/* Of user and the model "m". */
static inline enum bucket_outcome resolve(
	const struct fixture *f, const char *user, uint64_t now_ns, struct bucket_set *set)
{
	struct bucket_names names = { .user = str_of(user), .model = str_of("m") };

	return bucket_resolve(&f->r, &names, now_ns, set);
}

static inline int instantiate(struct fixture *f, const char *user, uint64_t now_ns)
{
	struct bucket_names names = { .user = str_of(user), .model = str_of("m") };

	return bucket_instantiate(&f->r, &names, now_ns);
}

/* The provider's own bucket, exact in 128 bits: one unit weighs window_ns, limit leaks each ns. */
struct oracle {
	unsigned __int128 level;
	uint64_t limit, window_ns, burst, last_ns;
};

/* False: the provider would have refused. slack_ns: how much longer the window may be seen. */
static inline bool oracle_admits(struct oracle *o, uint64_t n, uint64_t now_ns, uint64_t slack_ns)
{
	unsigned __int128 leak = (unsigned __int128)(now_ns - o->last_ns) * o->limit;

	o->level = (o->level > leak ? o->level - leak : 0) + (unsigned __int128)n * o->window_ns;
	o->last_ns = now_ns;
	return o->level <=
		(unsigned __int128)o->burst * o->window_ns + (unsigned __int128)slack_ns * o->limit;
}
