#include "daemon/control_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "shm/breaker.h"
#include "shm/name_table.h"
#include "shm/router.h"
#include "shm/target.h"

/* Whether a configuration can be put in force: all that can be known before anything changes. */

/* ---- what the configuration's things are in the region ---- */

struct bucket_limit control_limit(const struct config_limit *l)
{
	return (struct bucket_limit){
		.scope = l->scope,
		.resource = l->resource,
		.kind = l->kind,
		.origin = BUCKET_ORIGIN_CONFIG,
		.name = str_of(l->name),
		.limit = l->limit,
		.window_ns = l->window_ns,
		.burst = l->burst,
	};
}

bool control_mark_limit(const struct region *r, const struct config_limit *l, bool *keep)
{
	struct bucket_set set = { 0 };

	bucket_set_add(&set, r, l->scope, l->resource, str_of(l->name));
	for (uint32_t i = 0; i < set.count; i++)
		keep[set.index[i]] = true;
	return set.count > 0;
}

bool control_target_name(
	const char *provider, const char *model, char name[TARGET_NAME_TEXT], struct str *out)
{
	int n = snprintf(
		name, TARGET_NAME_TEXT, "%s%s%s", provider, model ? "/" : "", model ? model : "");

	*out = str_make(name, n < TARGET_NAME_TEXT ? (size_t)n : 0);
	return n < TARGET_NAME_TEXT;
}

uint32_t control_find_target(const struct control *c, const char *provider, const char *model)
{
	char text[TARGET_NAME_TEXT];
	struct str name;

	return control_target_name(provider, model, text, &name) ?
		target_find(&c->region, name, NULL) :
		TARGET_NONE;
}

const char *control_forced_model(const struct control *c, const struct config *config, uint32_t row,
	struct target_view *v, unsigned *provider)
{
	struct breaker_view b;
	const char *slash;
	int i;

	if (!target_view(&c->region, row, v) || !breaker_view(&c->region, row, 0, &b) || !b.forced)
		return NULL;
	slash = strchr(v->name, '/');
	i = slash ? config_find_provider(config, str_make(v->name, (size_t)(slash - v->name))) : -1;
	*provider = (unsigned)i;
	return i < 0 ? NULL : slash + 1;
}

/* Calls fn for every target that the configuration names, some of them more than once. */
static void check_each_target(const struct config *config,
	void (*fn)(void *context, const char *provider, const char *model), void *context)
{
	const struct config_provider *p = config->providers;

	for (unsigned i = 0; i < config->provider_count; i++)
		fn(context, p[i].name, NULL);
	for (unsigned i = 0; i < config->model_count; i++)
		fn(context, p[config->models[i].provider].name, config->models[i].name);
	for (unsigned i = 0; i < config->route_count; i++)
		for (unsigned k = 0; k < config->routes[i].target_count; k++)
			fn(context, p[config->routes[i].targets[k].provider].name,
				config->routes[i].targets[k].model);
}

struct marking {
	const struct control *c;
	bool *keep;
};

static void mark_target(void *context, const char *provider, const char *model)
{
	const struct marking *m = context;
	uint32_t row = control_find_target(m->c, provider, model);

	if (row != TARGET_NONE)
		m->keep[row] = true;
}

static void mark_routes(const struct control *c, bool *keep)
{
	struct router_route route;

	for (uint32_t i = 0; i < c->region.routes; i++) {
		if (!router_view(&c->region, i, &route))
			continue;
		for (unsigned k = 0; k < route.count; k++)
			if (route.target[k].row < c->region.targets)
				keep[route.target[k].row] = true;
	}
}

void control_mark_targets(const struct control *c, const struct config *config, bool *keep)
{
	struct target_view v;
	unsigned provider;

	check_each_target(config, mark_target, &(struct marking){ c, keep });
	mark_routes(c, keep);
	for (uint32_t i = 0; i < c->region.targets; i++)
		if (!keep[i] && control_forced_model(c, config, i, &v, &provider))
			keep[i] = true;
}

/* ---- ranges and names ---- */

/* A template is checked under some name. */
static bool check_is_valid(const struct config_limit *l)
{
	const struct str any = str_of("x");
	const struct bucket_names names = { any, any, any, any };
	struct bucket_limit limit = control_limit(l);
	char name[BUCKET_NAME_TEXT];

	if (!l->name && bucket_join(l->scope, &names, name))
		limit.name = str_of(name);
	return bucket_limit_is_valid(&limit);
}

static int check_limit(const struct config_limit *l)
{
	if (check_is_valid(l))
		return 0;
	log_error("limit out of range: burst or window is too large scope=%s name=%s resource=%s",
		bucket_scope_name(l->scope), l->name ? l->name : "(each)",
		bucket_resource_name(l->resource));
	return error_origin(-ERANGE);
}

static int check_limits(const struct config *config)
{
	int r = 0;

	for (unsigned i = 0; r == 0 && i < config->limit_count; i++)
		r = check_limit(&config->limits[i]);
	for (unsigned i = 0; r == 0 && i < config->template_count; i++)
		r = check_limit(&config->templates[i]);
	return r;
}

static void check_target_name(void *context, const char *provider, const char *model)
{
	char text[TARGET_NAME_TEXT];
	struct str name;

	if (control_target_name(provider, model, text, &name) && name_table_fits(name))
		return;
	log_error("target's name is too long provider=%s model=%s", provider, model ? model : "");
	*(int *)context = -ENAMETOOLONG;
}

static int check_names(const struct config *config)
{
	int r = 0;

	check_each_target(config, check_target_name, &r);
	for (unsigned i = 0; i < config->route_count; i++)
		if (!name_table_fits(str_of(config->routes[i].name))) {
			log_error("route's name is too long name=%s", config->routes[i].name);
			r = -ENAMETOOLONG;
		}
	return r < 0 ? error_origin(r) : 0;
}

/* ---- room ---- */

/* Those that have no row need one; those that count in another way than before pass on theirs, one
 * after the other. */
static int check_room_for_limits(const struct control *c, const struct config *config)
{
	aux_cleanup(freep) bool *keep = calloc(c->region.buckets, sizeof(*keep));
	uint32_t wanted = 0, spare = 0, room;

	if (!keep)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < config->limit_count; i++) {
		const struct bucket_limit limit = control_limit(&config->limits[i]);

		if (bucket_has_row(&c->region, &limit, keep))
			continue;
		if (control_mark_limit(&c->region, &config->limits[i], keep))
			spare = 1;
		else
			wanted++;
	}
	room = bucket_room(&c->region, keep, clock_boottime_ns());
	if (wanted + spare <= room)
		return 0;
	log_error("no room for %u more limits: of %u rows %u can be had, the others owe or have "
		  "requests in flight (see \"tables\")",
		wanted, c->region.buckets, room);
	return error_origin(-ENOSPC);
}

struct check_new {
	const struct control *c;
	struct check_name {
		const char *provider, *model;
	} * name;
	unsigned count;
};

static void note_new(void *context, const char *provider, const char *model)
{
	struct check_new *n = context;

	if (control_find_target(n->c, provider, model) == TARGET_NONE)
		n->name[n->count++] = (struct check_name){ provider, model };
}

static int compare_names(const void *first, const void *second)
{
	const struct check_name *a = first, *b = second;
	int r = strcmp(a->provider, b->provider);

	return r != 0 ? r : strcmp(a->model ? a->model : "", b->model ? b->model : "");
}

static int check_room_for_targets(const struct control *c, const struct config *config)
{
	unsigned most = config->provider_count + config->model_count, used = 0;

	for (unsigned i = 0; i < config->route_count; i++)
		most += config->routes[i].target_count;
	aux_cleanup(freep) struct check_name *names = calloc(most + 1, sizeof(*names));
	aux_cleanup(freep) bool *keep = calloc(c->region.targets, sizeof(*keep));
	struct check_new n = { .c = c, .name = names };

	if (!names || !keep)
		return error_origin(-ENOMEM);
	control_mark_targets(c, config, keep);
	check_each_target(config, note_new, &n);
	qsort(names, n.count, sizeof(*names), compare_names);
	for (unsigned i = 0; i < n.count; i++)
		used += i == 0 || compare_names(&names[i - 1], &names[i]) != 0;
	for (uint32_t i = 0; i < c->region.targets; i++)
		used += keep[i];
	if (used <= c->region.targets)
		return 0;
	log_error("too many providers, models and targets of routes: %u, those of the routes in "
		  "force included, room for %u (see \"tables\")",
		used, c->region.targets);
	return error_origin(-ENOSPC);
}

static int check_counts(const struct control *c, const struct config *config)
{
	if (config->limit_count > c->region.buckets) {
		log_error("too many limits: %u configured, room for %u", config->limit_count,
			c->region.buckets);
		return error_origin(-ENOSPC);
	}
	if (config->route_count > c->region.routes) {
		log_error("too many routes: %u configured, room for %u", config->route_count,
			c->region.routes);
		return error_origin(-ENOSPC);
	}
	if (config->template_count > c->region.templates ||
		config->template_count > CONTROL_TEMPLATES) {
		log_error("too many templates of limits: %u configured, room for %u",
			config->template_count, c->region.templates);
		return error_origin(-ENOSPC);
	}
	return 0;
}

int control_check(const struct control *c, const struct config *config)
{
	int r = check_counts(c, config);

	if (r == 0)
		r = check_limits(config);
	if (r == 0)
		r = check_names(config);
	if (r == 0)
		r = check_room_for_targets(c, config);
	if (r == 0)
		r = check_room_for_limits(c, config);
	return error_trace(r);
}
