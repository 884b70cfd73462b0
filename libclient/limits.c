#include "libclient/resolved.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "proto/utf8.h"
#include "shm/bucket_table.h"
#include "shm/target.h"

static_assert(LLMKIT_LABEL_MAX == BUCKET_LABEL_TEXT, "llmkit.h and shm/bucket_table.h differ");

#define RESOLVE_TRIES 3   /* a reload, or another name's need for room, may come in between */
#define RESOLVED_MAX 4096 /* different sets one handle can see; more is a region gone mad */
#define MISSING 1         /* the daemon has to make a limit */

/* ---- what callers hand over ---- */

bool limits_take_struct(void *out, size_t out_size, const void *from, size_t from_size)
{
	memset(out, 0, out_size);
	if (!from)
		return true;
	if (from_size < sizeof(size_t))
		return false;
	memcpy(out, from, from_size < out_size ? from_size : out_size);
	return true;
}

bool limits_take_cost(const struct llmkit_cost *from, struct bucket_cost *out)
{
	struct llmkit_cost cost;

	/* The usual caller's is this library's own: a copy of known size. */
	if (aux_likely(from && from->size == sizeof(cost)))
		cost = *from;
	else if (!limits_take_struct(&cost, sizeof(cost), from, from ? from->size : 0))
		return false;
	*out = (struct bucket_cost){
		.requests = cost.requests,
		.input_tokens = cost.input_tokens,
		.output_tokens = cost.output_tokens,
		.nanousd = cost.nanousd,
	};
	return true;
}

/* ---- finding the rows ---- */

static bool resolved_is_equal(const struct resolved *a, const struct resolved *b)
{
	return a->mapping == b->mapping && a->set.count == b->set.count &&
		memcmp(a->set.index, b->set.index, a->set.count * sizeof(a->set.index[0])) == 0 &&
		memcmp(a->set.key, b->set.key, a->set.count * sizeof(a->set.key[0])) == 0;
}

/* lock is held. */
static int limits_publish(
	struct llmkit_limits *limits, const struct resolved *found, uint64_t now_ns)
{
	struct resolved *r = limits->all;

	while (r && !resolved_is_equal(r, found))
		r = r->older;
	if (!r) {
		if (limits->count == RESOLVED_MAX)
			return LLMKIT_E_REGION;
		r = malloc(sizeof(*r));
		if (!r)
			return LLMKIT_E_NO_MEMORY;
		memcpy(r, found, sizeof(*r));
		r->older = limits->all;
		limits->all = r;
		limits->count++;
	}
	atomic_store_explicit(&r->checked_ns, now_ns, memory_order_relaxed);
	atomic_store_explicit(&limits->resolved, r, memory_order_release);
	return LLMKIT_OK;
}

/* The region in use now, or else the one the handle had: budgets outlive a daemon. */
static struct mapping *limits_mapping(struct llmkit_limits *limits)
{
	struct mapping *mapping = atomic_load(&limits->kit->mapping);
	struct resolved *had = atomic_load(&limits->resolved);

	return mapping && mapping->region.writable ? mapping : had ? had->mapping : NULL;
}

/* A key that the caller does not name is that of the provider, as the daemon has it. text: for its
 * label. */
static struct bucket_names limits_names(const struct llmkit_limits *limits,
	const struct region *region, char text[TARGET_LABEL_TEXT])
{
	struct bucket_names names = {
		.provider = str_of(limits->scope.provider),
		.model = str_of(limits->scope.model),
		.user = str_of(limits->scope.user),
		.key = str_of(limits->scope.key),
	};

	if (names.key.length == 0 && names.provider.length > 0)
		names.key = target_label(region, target_find(region, names.provider, NULL), text);
	return names;
}

/* One look; publishes what is whole. lock is held. LLMKIT_E_, or MISSING: names has for what. */
static int limits_resolve(struct llmkit_limits *limits, uint64_t now_ns, struct bucket_names *names,
	char text[TARGET_LABEL_TEXT])
{
	struct resolved found = { .mapping = limits_mapping(limits) };

	if (!found.mapping)
		return LLMKIT_E_REGION;
	*names = limits_names(limits, &found.mapping->region, text);
	switch (bucket_resolve(&found.mapping->region, names, now_ns, &found.set)) {
	case BUCKET_OK:
		return limits_publish(limits, &found, now_ns);
	case BUCKET_E_MISSING:
		return MISSING;
	case BUCKET_E_BUSY:
		return LLMKIT_E_BUSY;
	default:
		return LLMKIT_E_REGION;
	}
}

int limits_refresh(struct llmkit_limits *limits, uint64_t now_ns)
{
	struct llmkit *kit = limits->kit;

	for (int i = 0;; i++) {
		char text[TARGET_LABEL_TEXT];
		struct bucket_names names;
		int r;

		pthread_mutex_lock(&kit->lock);
		r = limits_resolve(limits, now_ns, &names, text);
		pthread_mutex_unlock(&kit->lock);
		if (r != MISSING)
			return r;
		if (i == RESOLVE_TRIES)
			return LLMKIT_E_BUSY;
		r = control_resolve(kit,
			&(struct msg_resolve){ .provider = names.provider,
				.model = names.model,
				.user = names.user,
				.key = names.key });
		if (r < 0)
			return r;
	}
}

/* ---- opening and closing ---- */

/* A region to find limits in: the attached one, or that of a daemon started since. */
static int limits_region(struct llmkit *kit)
{
	struct mapping *mapping;
	int r = kit_need_region(kit);

	if (r < 0)
		return r;
	mapping = atomic_load(&kit->mapping);
	return mapping->region.writable ? LLMKIT_OK : LLMKIT_E_NO_REGION;
}

static int limits_copy_name(char **out, const char *name)
{
	struct str s = str_of(name);

	if (s.length == 0)
		return LLMKIT_OK;
	if (s.length > MSG_NAME_MAX || !utf8_is_name(s))
		return LLMKIT_E_ARGUMENT;
	*out = strdup(name);
	return *out ? LLMKIT_OK : LLMKIT_E_NO_MEMORY;
}

static int limits_copy_scope(struct llmkit_limits *limits, const struct llmkit_scope *from)
{
	struct llmkit_scope scope;
	int r;

	if (!limits_take_struct(&scope, sizeof(scope), from, from ? from->size : 0))
		return LLMKIT_E_ARGUMENT;
	r = limits_copy_name(&limits->scope.provider, scope.provider);
	if (r == LLMKIT_OK)
		r = limits_copy_name(&limits->scope.model, scope.model);
	if (r == LLMKIT_OK)
		r = limits_copy_name(&limits->scope.user, scope.user);
	if (r == LLMKIT_OK)
		r = limits_copy_name(&limits->scope.key, scope.key);
	return r;
}

int llmkit_limits_open(llmkit *kit, const struct llmkit_scope *scope, llmkit_limits **out)
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
	r = limits_copy_scope(limits, scope);
	if (r == LLMKIT_OK)
		r = limits_refresh(limits, clock_boottime_ns());
	if (r < 0) {
		llmkit_limits_close(limits);
		return r;
	}
	*out = limits;
	return LLMKIT_OK;
}

void llmkit_limits_close(llmkit_limits *limits)
{
	if (!limits)
		return;
	for (struct resolved *r = limits->all; r;) {
		struct resolved *older = r->older;

		free(r);
		r = older;
	}
	free(limits->scope.provider);
	free(limits->scope.model);
	free(limits->scope.user);
	free(limits->scope.key);
	free(limits);
}

/* ---- looking ---- */

unsigned llmkit_limits_count(llmkit_limits *limits)
{
	return limits ? atomic_load(&limits->resolved)->set.count : 0;
}

int llmkit_limits_view(llmkit_limits *limits, unsigned index, struct llmkit_limit_view *out)
{
	struct resolved *s;
	struct bucket_view v;
	uint64_t now;
	int r;

	if (!limits || !out)
		return LLMKIT_E_ARGUMENT;
	limits_check_fork(limits);
	r = limits_current(limits, &s, &now);
	if (r < 0)
		return r;
	if (index >= s->set.count)
		return LLMKIT_E_ARGUMENT;
	if (!bucket_view(&s->mapping->region, s->set.index[index], now, &v))
		return LLMKIT_E_REGION;
	*out = (struct llmkit_limit_view){
		.resource = bucket_resource_name(v.resource),
		.limit = v.limit,
		.window_ns = v.window_ns,
		.burst = v.burst,
		.used = v.owed,
		.held = v.held,
		.available = v.available,
		.full_ns = v.full_ns,
		.paused_ns = v.pause_ns > now ? v.pause_ns - now : 0,
		.admitted = v.admitted,
		.rejected = v.rejected,
	};
	bucket_label(&v, out->label);
	return LLMKIT_OK;
}

/* The least that any limit leaves or allows of requests. */
static uint64_t limits_least(struct llmkit_limits *limits, bool at_best)
{
	uint64_t now, least = UINT64_MAX;
	struct resolved *s;

	limits_check_fork(limits);
	if (limits_current(limits, &s, &now) < 0)
		return 0;
	for (uint32_t i = 0; i < s->set.count; i++) {
		bool counts = s->set.resource[i] == BUCKET_REQUESTS;
		struct bucket_view v;

		if (!bucket_view(&s->mapping->region, s->set.index[i], now, &v))
			return 0;
		if (at_best && counts)
			least = min_u64(least, v.burst);
		else if (!at_best && (counts || v.pause_ns > now))
			least = min_u64(least, v.pause_ns > now ? 0 : v.available);
	}
	return least;
}

uint64_t llmkit_limits_available(llmkit_limits *limits)
{
	return limits ? limits_least(limits, false) : 0;
}

uint64_t llmkit_limits_capacity(llmkit_limits *limits)
{
	return limits ? limits_least(limits, true) : 0;
}

int llmkit_limits_reset(llmkit_limits *limits)
{
	struct llmkit_limit_view view;
	int r = LLMKIT_OK, timeout_ms;

	if (!limits)
		return LLMKIT_E_ARGUMENT;
	timeout_ms = (int)(limits->kit->timeout_ns / NSEC_PER_MSEC);
	for (unsigned i = 0; i < llmkit_limits_count(limits) && r == LLMKIT_OK; i++) {
		r = llmkit_limits_view(limits, i, &view);
		if (r == LLMKIT_OK)
			r = llmkit_command(
				limits->kit, "limit-reset", view.label, timeout_ms, NULL);
	}
	return r;
}
