#include "libclient/targets.h"

#include <stdlib.h>
#include <string.h>
#include "proto/utf8.h"
#include "shm/target.h"

#define FOUND_MAX 4096 /* different answers one handle can see; more is a region gone mad */

struct names {
	char name[LLMKIT_TARGETS_MAX][TARGET_NAME_TEXT];
};

/* ---- what the name means ---- */

static void found_add(struct targets_found *f, struct names *names, uint32_t row, uint32_t weight)
{
	const struct region *region = &f->mapping->region;
	struct target_view view;
	struct target_place *place;

	if (f->count == LLMKIT_TARGETS_MAX || !target_view(region, row, &view) || view.is_provider)
		return;
	place = &f->place[f->count];
	*place = (struct target_place){
		.row = row, .provider_row = view.provider, .weight = weight
	};
	/* The row may be another's by now: what it was called decides. */
	if (target_find(region, str_of(view.name), &place->key) != row)
		return;
	memcpy(names->name[f->count], view.name, sizeof(view.name));
	f->count++;
}

static void found_route(
	struct targets_found *f, struct names *names, const struct router_route *route)
{
	f->strategy = route->strategy;
	f->weight_cost = route->weight_cost;
	f->weight_latency = route->weight_latency;
	f->weight_reliability = route->weight_reliability;
	f->price_cap_nanousd = route->price_cap_nanousd;
	f->patience_ns = route->patience_ns;
	for (unsigned i = 0; i < route->count && i < LLMKIT_TARGETS_MAX; i++)
		found_add(f, names, route->target[i].row, route->target[i].weight);
}

static void targets_look(const char *name, struct targets_found *f, struct names *names)
{
	const struct region *region = &f->mapping->region;
	struct router_route route;
	_Atomic uint64_t *turn = NULL;

	f->strategy = ROUTER_BALANCED;
	f->price_cap_nanousd = -1;
	if (router_find(region, str_of(name), &route, &turn)) {
		found_route(f, names, &route);
		f->turn = turn;
		return;
	}
	found_add(f, names, target_resolve(region, str_of(name)), 1);
}

/* ---- entries ---- */

struct target_entry *targets_entry(struct llmkit_targets *targets, unsigned target)
{
	return target < atomic_load_explicit(&targets->entries, memory_order_acquire) ?
		atomic_load_explicit(&targets->entry[target], memory_order_relaxed) :
		NULL;
}

static struct target_entry *entry_free(struct target_entry *entry)
{
	if (!entry)
		return NULL;
	llmkit_limits_close(entry->limits);
	free(entry->name);
	free(entry->provider);
	free(entry);
	return NULL;
}

static void entry_freep(struct target_entry **entry)
{
	entry_free(*entry);
}

static int entry_new(struct llmkit_targets *targets, const char *name, struct target_entry **out)
{
	aux_cleanup(entry_freep) struct target_entry *entry = calloc(1, sizeof(*entry));
	struct llmkit_scope scope = {
		.size = sizeof(scope), .user = targets->user, .key = targets->key
	};
	const char *slash = strchr(name, '/');
	int r;

	if (!slash)
		return LLMKIT_E_REGION;
	if (!entry)
		return LLMKIT_E_NO_MEMORY;
	entry->name = strdup(name);
	entry->provider = strndup(name, (size_t)(slash - name));
	if (!entry->name || !entry->provider)
		return LLMKIT_E_NO_MEMORY;
	entry->model = entry->name + (slash - name) + 1;
	scope.provider = entry->provider;
	scope.model = entry->model;
	r = llmkit_limits_open(targets->kit, &scope, &entry->limits);
	/* Observers route by what they see; they take nothing. */
	if (r < 0 && r != LLMKIT_E_NO_REGION)
		return r == LLMKIT_E_ARGUMENT ? LLMKIT_E_REGION : r;
	*out = steal_ptr(entry);
	return LLMKIT_OK;
}

static unsigned entry_find(struct llmkit_targets *targets, const char *name)
{
	unsigned count = atomic_load_explicit(&targets->entries, memory_order_acquire);
	unsigned i = 0;

	while (i < count && strcmp(targets_entry(targets, i)->name, name) != 0)
		i++;
	return i;
}

/* The number of a name, which it keeps. */
static int entry_number(struct llmkit_targets *targets, const char *name, uint32_t *out)
{
	aux_cleanup(entry_freep) struct target_entry *entry = NULL;
	unsigned count, i = entry_find(targets, name);
	int r = LLMKIT_OK;

	*out = i;
	if (i < atomic_load(&targets->entries))
		return LLMKIT_OK;
	/* It may ask the daemon, so no lock is held; another thread may come first. */
	r = entry_new(targets, name, &entry);
	if (r < 0)
		return r;
	pthread_mutex_lock(&targets->kit->lock);
	count = atomic_load(&targets->entries);
	*out = i = entry_find(targets, name);
	if (i == count && count == TARGETS_ENTRIES_MAX) {
		r = LLMKIT_E_REGION;
	} else if (i == count) {
		atomic_store(&targets->entry[count], steal_ptr(entry));
		atomic_store_explicit(&targets->entries, count + 1, memory_order_release);
	}
	pthread_mutex_unlock(&targets->kit->lock);
	return r;
}

/* ---- publishing ---- */

static bool found_is_equal(const struct targets_found *a, const struct targets_found *b)
{
	return a->mapping == b->mapping && a->strategy == b->strategy && a->turn == b->turn &&
		a->weight_cost == b->weight_cost && a->weight_latency == b->weight_latency &&
		a->weight_reliability == b->weight_reliability &&
		a->price_cap_nanousd == b->price_cap_nanousd && a->patience_ns == b->patience_ns &&
		a->count == b->count &&
		memcmp(a->place, b->place, a->count * sizeof(a->place[0])) == 0;
}

/* lock is held. */
static int targets_publish(
	struct llmkit_targets *targets, const struct targets_found *found, uint64_t now_ns)
{
	struct targets_found *f = targets->all;

	while (f && !found_is_equal(f, found))
		f = f->older;
	if (!f) {
		if (targets->founds == FOUND_MAX)
			return LLMKIT_E_REGION;
		f = malloc(sizeof(*f));
		if (!f)
			return LLMKIT_E_NO_MEMORY;
		memcpy(f, found, sizeof(*f));
		f->older = targets->all;
		targets->all = f;
		targets->founds++;
	}
	atomic_store_explicit(&f->checked_ns, now_ns, memory_order_relaxed);
	atomic_store_explicit(&targets->found, f, memory_order_release);
	return LLMKIT_OK;
}

static int targets_refresh(struct llmkit_targets *targets, uint64_t now_ns)
{
	struct targets_found *had = atomic_load(&targets->found), found = { 0 };
	struct mapping *mapping = atomic_load(&targets->kit->mapping);
	struct names names;
	int r = LLMKIT_OK;

	found.mapping = mapping ? mapping : had ? had->mapping : NULL;
	if (!found.mapping)
		return LLMKIT_E_REGION;
	targets_look(targets->name, &found, &names);
	if (found.count == 0)
		return LLMKIT_E_UNKNOWN_MODEL;
	for (unsigned i = 0; i < found.count && r == LLMKIT_OK; i++)
		r = entry_number(targets, names.name[i], &found.place[i].entry);
	if (r < 0)
		return r;
	pthread_mutex_lock(&targets->kit->lock);
	r = targets_publish(targets, &found, now_ns);
	pthread_mutex_unlock(&targets->kit->lock);
	return r;
}

static bool targets_is_due(
	struct llmkit_targets *targets, const struct targets_found *f, uint64_t now_ns)
{
	struct mapping *m = atomic_load_explicit(&targets->kit->mapping, memory_order_acquire);
	uint64_t checked = atomic_load_explicit(&f->checked_ns, memory_order_relaxed);

	return (m && m != f->mapping) || (now_ns - checked > LIMITS_RECHECK_NS && now_ns > checked);
}

int targets_current(struct llmkit_targets *targets, struct targets_found **out, uint64_t *now_ns)
{
	int r = LLMKIT_OK;

	*out = atomic_load_explicit(&targets->found, memory_order_acquire);
	*now_ns = limits_now(&(*out)->mapping->region);
	if (targets_is_due(targets, *out, *now_ns)) {
		r = targets_refresh(targets, *now_ns);
		*out = atomic_load_explicit(&targets->found, memory_order_acquire);
	}
	return r;
}

static const struct target_place *targets_place(const struct targets_found *found, unsigned target)
{
	for (unsigned i = 0; i < found->count; i++)
		if (found->place[i].entry == target)
			return &found->place[i];
	return NULL;
}

int targets_find(struct llmkit_targets *targets, unsigned target, struct targets_found **found,
	const struct target_place **place, uint64_t *now_ns)
{
	int r;

	if (!targets || !targets_entry(targets, target))
		return LLMKIT_E_ARGUMENT;
	kit_enter_attached(targets->kit);
	r = targets_current(targets, found, now_ns);
	if (r < 0)
		return r;
	*place = targets_place(*found, target);
	return *place && target_is(&(*found)->mapping->region, (*place)->row, (*place)->key) ?
		LLMKIT_OK :
		LLMKIT_E_UNKNOWN_MODEL;
}

/* ---- opening and closing ---- */

static int targets_copy(char **out, const char *name)
{
	*out = name && *name ? strdup(name) : NULL;
	return *out || !name || !*name ? LLMKIT_OK : LLMKIT_E_NO_MEMORY;
}

static bool targets_is_name(const char *name)
{
	struct str s = str_of(name);

	return s.length <= MSG_NAME_MAX && utf8_is_name(s);
}

static int targets_new(llmkit *kit, const char *name, const struct llmkit_scope *scope,
	struct llmkit_targets **out)
{
	struct llmkit_targets *targets = calloc(1, sizeof(*targets));
	int r;

	if (!targets)
		return LLMKIT_E_NO_MEMORY;
	targets->kit = kit;
	r = targets_copy(&targets->name, name);
	if (r == LLMKIT_OK)
		r = targets_copy(&targets->user, scope->user);
	if (r == LLMKIT_OK)
		r = targets_copy(&targets->key, scope->key);
	if (r == LLMKIT_OK)
		r = targets_refresh(targets, clock_boottime_ns());
	if (r < 0) {
		llmkit_targets_close(targets);
		return r;
	}
	*out = targets;
	return LLMKIT_OK;
}

int llmkit_targets_open(
	llmkit *kit, const char *name, const struct llmkit_scope *scope, llmkit_targets **out)
{
	struct llmkit_scope own;
	int r;

	if (out)
		*out = NULL;
	if (!kit || !name || !*name || !out || !targets_is_name(name) ||
		!limits_take_struct(&own, sizeof(own), scope, scope ? scope->size : 0) ||
		!targets_is_name(own.user) || !targets_is_name(own.key))
		return LLMKIT_E_ARGUMENT;
	r = kit_need_region(kit);
	return r < 0 ? r : targets_new(kit, name, &own, out);
}

void llmkit_targets_close(llmkit_targets *targets)
{
	if (!targets)
		return;
	for (unsigned i = 0; i < atomic_load(&targets->entries); i++)
		entry_free(atomic_load(&targets->entry[i]));
	for (struct targets_found *f = targets->all; f;) {
		struct targets_found *older = f->older;

		free(f);
		f = older;
	}
	free(targets->name);
	free(targets->user);
	free(targets->key);
	free(targets);
}

llmkit_limits *llmkit_targets_limits(llmkit_targets *targets, unsigned target)
{
	struct target_entry *entry = targets ? targets_entry(targets, target) : NULL;

	return entry ? entry->limits : NULL;
}
