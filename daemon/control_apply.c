#include "daemon/control_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/event.h"
#include "shm/hold.h"
#include "shm/router.h"
#include "shm/target.h"

#define APPLY_BURST_MAX UINT64_C(1000000000000) /* of a limit: shm/bucket_table.h */

/* ---- limits ---- */

static int apply_make_limits(
	struct control *c, const struct config *config, uint32_t *rows, uint64_t now_ns)
{
	for (unsigned i = 0; i < config->limit_count; i++) {
		const struct bucket_limit limit = control_limit(&config->limits[i]);
		int row = bucket_configure(&c->region, &limit, now_ns);

		if (row < 0)
			return error_trace(row);
		rows[i] = (uint32_t)row;
	}
	return 0;
}

static void apply_retire_limits(struct control *c, const struct config *config, bool *keep)
{
	memset(keep, 0, c->region.buckets * sizeof(*keep));
	for (unsigned i = 0; i < config->limit_count; i++)
		control_mark_limit(&c->region, &config->limits[i], keep);
	bucket_retire(&c->region, keep);
}

/*
 * What is new is made beside what is old, which goes last: who looks at a limit meanwhile finds the
 * old one, both or the new one, and where this fails the old ones have never been away. Where the
 * table has no room for both, what is no longer wanted goes first; meanwhile names without a limit
 * wait for us.
 */
static int apply_limits(
	struct control *c, const struct config *config, uint32_t *rows, uint64_t now_ns)
{
	struct bucket_limit templates[CONTROL_TEMPLATES];
	aux_cleanup(freep) bool *keep = calloc(c->region.buckets, sizeof(*keep));
	int r = keep ? apply_make_limits(c, config, rows, now_ns) : error_origin(-ENOMEM);

	if (r == -ENOSPC) {
		bucket_doubt(&c->region);
		apply_retire_limits(c, config, keep);
		r = apply_make_limits(c, config, rows, now_ns);
	}
	for (unsigned i = 0; i < config->template_count && i < CONTROL_TEMPLATES; i++)
		templates[i] = control_limit(&config->templates[i]);
	if (r == 0)
		r = bucket_set_templates(&c->region, templates, config->template_count, now_ns);
	if (r == 0)
		apply_retire_limits(c, config, keep);
	return error_trace(r);
}

/* ---- targets ---- */

/* Where breakers are switched off none may open by itself, whoever reports; one that is open
 * closes, unless an operator opened it. */
static void apply_breaker(
	struct control *c, uint32_t row, const struct breaker_settings *settings, bool on)
{
	const struct breaker_settings own = on ? *settings : breaker_never(*settings);
	uint64_t now_ns = clock_boottime_ns();
	struct breaker_view v;

	breaker_configure(&c->region, row, &own);
	if (!on && breaker_view(&c->region, row, now_ns, &v) && v.state != BREAKER_CLOSED &&
		!v.forced)
		breaker_force_close(&c->region, row, now_ns);
}

static int apply_target(struct control *c, const struct config *config, const char *provider,
	const char *model, struct target_config *t, const struct breaker_settings *breaker,
	bool *keep)
{
	char name[TARGET_NAME_TEXT];
	int row;

	/* One that is too long was refused by control_check(). */
	control_target_name(provider, model, name, &t->name);
	row = target_configure(&c->region, t);
	if (row < 0)
		return error_trace(row);
	apply_breaker(c, (uint32_t)row, breaker, config->features.breaker);
	keep[row] = true;
	return row;
}

static int apply_provider(
	struct control *c, const struct config *config, unsigned i, bool usable, bool *keep)
{
	const struct config_provider *p = &config->providers[i];
	struct target_config t = {
		.provider = TARGET_NONE,
		.price_input = -1,
		.price_output = -1,
		.price_cached = -1,
		.capabilities = TARGET_CAPABILITIES,
		.traits = p->reserve ? TARGET_RESERVE : 0,
		.label = config_key_label(p),
		.available = usable,
	};

	return apply_target(c, config, p->name, NULL, &t, &p->breaker, keep);
}

static int apply_model(struct control *c, const struct config *config, const struct config_model *m,
	bool usable, bool *keep)
{
	const char *provider = config->providers[m->provider].name;
	struct target_config t = {
		.provider = target_find(&c->region, str_of(provider), NULL),
		.price_input = m->price.input,
		.price_output = m->price.output,
		.price_cached = m->price.cached_input,
		.context = m->context,
		.capabilities = m->capabilities,
		.max_tokens = m->max_tokens,
		.traits = TARGET_PLAIN,
		.available = usable,
	};

	return apply_target(c, config, provider, m->name, &t, &m->breaker, keep);
}

/* A route may name models of which there is no row under "models". */
static int apply_route_target(struct control *c, const struct config *config,
	const struct config_target *from, bool usable, bool *keep)
{
	const struct config_provider *p = &config->providers[from->provider];
	struct target_config t = {
		.provider = target_find(&c->region, str_of(p->name), NULL),
		.price_input = -1,
		.price_output = -1,
		.price_cached = -1,
		.capabilities = TARGET_CAPABILITIES,
		.available = usable,
	};
	uint32_t row = control_find_target(c, p->name, from->model);

	if (row != TARGET_NONE && keep[row])
		return (int)row;
	return apply_target(c, config, p->name, from->model, &t, &p->breaker, keep);
}

static int apply_route(struct control *c, const struct config *config,
	const struct config_route *from, const bool *usable, bool *keep_target, bool *keep)
{
	struct router_route route = {
		.name = str_of(from->name),
		.strategy = from->strategy,
		.weight_cost = from->weight_cost,
		.weight_latency = from->weight_latency,
		.weight_reliability = from->weight_reliability,
		.price_cap_nanousd = from->price_cap_nanousd,
		.patience_ns = from->patience_ns,
	};
	int row;

	assert(from->target_count <= ROUTER_CANDIDATES);
	for (unsigned i = 0; i < from->target_count; i++) {
		const struct config_target *t = &from->targets[i];

		row = apply_route_target(c, config, t, !usable || usable[t->provider], keep_target);
		if (row < 0)
			return error_trace(row);
		route.target[route.count].row = (uint32_t)row;
		route.target[route.count++].weight = t->weight;
	}
	row = router_configure(&c->region, &route);
	if (row < 0)
		return error_trace(row);
	keep[row] = true;
	return 0;
}

/* Where the table has no room for routes that come beside those that go, these go first. */
static int apply_retire_routes(struct control *c, const struct config *config)
{
	aux_cleanup(freep) bool *keep = calloc(c->region.routes, sizeof(*keep));
	uint32_t used = 0, kept = 0;
	struct router_route route;

	if (!keep)
		return error_origin(-ENOMEM);
	for (uint32_t i = 0; i < c->region.routes; i++) {
		if (!router_view(&c->region, i, &route))
			continue;
		for (unsigned k = 0; k < config->route_count && !keep[i]; k++)
			keep[i] = str_is(route.name, config->routes[k].name);
		used++;
		kept += keep[i];
	}
	if (used + config->route_count - kept > c->region.routes)
		router_retire(&c->region, keep);
	return 0;
}

/* Frees the rows of targets that are no longer wanted, as those that clients named: before new ones
 * are made, so that these find room. */
static int apply_retire_targets(struct control *c, const struct config *config)
{
	aux_cleanup(freep) bool *keep = calloc(c->region.targets, sizeof(*keep));

	if (!keep)
		return error_origin(-ENOMEM);
	control_mark_targets(c, config, keep);
	target_retire(&c->region, keep);
	return 0;
}

/* What an operator opened stays open until he closes it, also where only clients name it. */
static int apply_forced(
	struct control *c, const struct config *config, const bool *usable, bool *keep)
{
	struct config_target from = { 0 };
	struct target_view v;
	const char *model;
	int r = 0;

	for (uint32_t i = 0; r >= 0 && i < c->region.targets; i++) {
		model = keep[i] ? NULL : control_forced_model(c, config, i, &v, &from.provider);
		if (!model)
			continue;
		from.model = v.name + (model - v.name);
		r = apply_route_target(c, config, &from, !usable || usable[from.provider], keep);
	}
	return r;
}

static int apply_targets(struct control *c, const struct config *config, const bool *usable)
{
	aux_cleanup(freep) bool *target = calloc(c->region.targets, sizeof(*target));
	aux_cleanup(freep) bool *route = calloc(c->region.routes, sizeof(*route));
	int r = target && route ? apply_retire_routes(c, config) : error_origin(-ENOMEM);

	if (r == 0)
		r = apply_retire_targets(c, config);
	for (unsigned i = 0; r >= 0 && i < config->provider_count; i++)
		r = apply_provider(c, config, i, !usable || usable[i], target);
	for (unsigned i = 0; r >= 0 && i < config->model_count; i++) {
		const struct config_model *m = &config->models[i];

		r = apply_model(c, config, m, !usable || usable[m->provider], target);
	}
	for (unsigned i = 0; r >= 0 && i < config->route_count; i++)
		r = apply_route(c, config, &config->routes[i], usable, target, route);
	if (r >= 0)
		r = apply_forced(c, config, usable, target);
	if (r < 0)
		return error_trace(r);
	router_retire(&c->region, route);
	target_retire(&c->region, target);
	return 0;
}

/* ---- all of it ---- */

/* Targets first: where they fail, no limit has changed. */
static int apply_all(struct control *c, const struct config *config, const bool *usable,
	uint32_t *rows, uint64_t now_ns)
{
	int r = apply_targets(c, config, usable);

	if (r == 0)
		r = apply_limits(c, config, rows, now_ns);
	if (r == 0)
		bucket_roll(&c->region, now_ns, clock_unix_ns());
	return error_trace(r);
}

/* What is in force stays in force: what failed half-way is undone. */
static void apply_restore(struct control *c, uint64_t now_ns)
{
	int r;

	if (!c->config)
		return;
	r = apply_all(c, c->config, c->usable, c->limit_row, now_ns);
	if (r < 0)
		log_error("the limits of the old configuration are not complete: restart llmkitd "
			  "errno=%d (%s)",
			-r, strerror(-r));
}

static bool *apply_copy_usable(const struct config *config, const bool *usable)
{
	bool *copy = calloc(config->provider_count + 1, sizeof(*copy));

	for (unsigned i = 0; copy && i < config->provider_count; i++)
		copy[i] = !usable || usable[i];
	return copy;
}

int control_configure(struct control *c, const struct config *config, const bool *usable)
{
	aux_cleanup(freep) uint32_t *rows = calloc(config->limit_count + 1, sizeof(*rows));
	aux_cleanup(freep) bool *copy = apply_copy_usable(config, usable);
	uint64_t now_ns = clock_boottime_ns();
	int r = rows && copy ? control_check(c, config) : error_origin(-ENOMEM);

	if (r == 0) {
		r = apply_all(c, config, copy, rows, now_ns);
		if (r < 0)
			apply_restore(c, now_ns);
	}
	if (r < 0) {
		log_error("limits or targets not set errno=%d (%s)", -r, strerror(-r));
		return r;
	}
	free(c->limit_row);
	free(c->usable);
	c->limit_row = steal_ptr(rows);
	c->usable = steal_ptr(copy);
	c->config = config;
	return 0;
}

/* ---- while it runs ---- */

static void apply_tell_limit(struct control *c, uint32_t row, uint64_t limit, uint64_t now_ns)
{
	const struct event event = {
		.time_ns = now_ns,
		.kind = EVENT_LIMIT,
		.row = row,
		.value = limit,
	};

	event_add(&c->region, &event);
}

/* With a limit that is heard, the burst that is configured grows or shrinks. */
static uint64_t apply_burst(const struct config_limit *l, uint64_t heard)
{
	const uint64_t most = l->kind == BUCKET_HELD ? BUCKET_HELD_MAX - 1 : APPLY_BURST_MAX;
	unsigned __int128 burst = (unsigned __int128)l->burst * heard + l->limit - 1;

	if (!l->automatic)
		return min_u64(l->burst, heard);
	burst /= l->limit;
	return burst < most ? (uint64_t)burst : most;
}

/* A provider that names a lower limit is believed; a higher one than ours only where that is asked
 * for: else it ends what a lower one has brought. */
static void apply_follow(
	struct control *c, const struct config_limit *l, uint32_t row, uint64_t now_ns)
{
	uint64_t heard = bucket_heard(&c->region, row);
	struct bucket_limit limit = control_limit(l);
	struct bucket_view v;

	if (!heard || !bucket_view(&c->region, row, now_ns, &v))
		return;
	if (!l->automatic)
		heard = min_u64(heard, l->limit);
	limit.limit = heard;
	limit.burst = apply_burst(l, heard);
	if (v.limit == heard || bucket_configure(&c->region, &limit, now_ns) < 0)
		return;
	log_notice("limit follows the provider scope=%s name=%s resource=%s limit=%llu configured="
		   "%llu",
		bucket_scope_name(l->scope), l->name, bucket_resource_name(l->resource),
		(unsigned long long)heard, (unsigned long long)l->limit);
	apply_tell_limit(c, row, heard, now_ns);
}

void control_apply_beat(struct control *c, uint64_t now_ns)
{
	bucket_roll(&c->region, now_ns, clock_unix_ns());
	breaker_tell(&c->region, now_ns);
	hold_audit(&c->region);
	for (unsigned i = 0; c->config && i < c->config->limit_count; i++)
		apply_follow(c, &c->config->limits[i], c->limit_row[i], now_ns);
}

int control_resolve(struct control *c, const struct bucket_names *names)
{
	return error_trace(bucket_instantiate(&c->region, names, clock_boottime_ns()));
}

/* ---- an operator's acts ---- */

/* The next 429 is the first again. */
static void act_end_pause(struct control *c, uint32_t row)
{
	target_unpause(&c->region, row);
	target_accepted(&c->region, row);
}

static enum status act_on_breaker(struct control *c, struct str verb, uint32_t row)
{
	uint64_t now_ns = clock_boottime_ns();

	if (str_is(verb, "breaker-open"))
		breaker_force_open(&c->region, row, now_ns);
	else if (str_is(verb, "breaker-close"))
		breaker_force_close(&c->region, row, now_ns);
	else {
		breaker_reset(&c->region, row, now_ns);
		act_end_pause(c, row);
	}
	return STATUS_OK;
}

static bool act_split(
	struct str label, uint64_t *scope, enum bucket_resource *resource, struct str *name)
{
	const char *first = memchr(label.data, ' ', label.length);
	const char *last = memrchr(label.data, ' ', label.length);
	const char *end = label.data + label.length;

	if (!first || first == last)
		return false;
	*name = str_make(first + 1, (size_t)(last - first) - 1);
	for (*scope = 1; *scope < BUCKET_SCOPE_MASKS; ++*scope)
		if (str_is(str_make(label.data, (size_t)(first - label.data)),
			    bucket_scope_name(*scope)))
			break;
	for (*resource = 0; *resource < BUCKET_RESOURCES; ++*resource)
		if (str_is(str_make(last + 1, (size_t)(end - last) - 1),
			    bucket_resource_name(*resource)))
			break;
	return bucket_scope_is_valid(*scope) && *resource < BUCKET_RESOURCES;
}

static uint32_t act_look_up(const struct control *c, uint64_t scope, enum bucket_resource resource,
	struct str first, struct str second)
{
	struct bucket_names names = { 0 };
	struct str *parts[] = { &names.user, &names.model, &names.provider, &names.key };
	char name[BUCKET_NAME_TEXT];
	struct bucket_set set = { 0 };

	for (unsigned bit = 0, part = 0; bit < ARRAY_SIZE(parts); bit++)
		if (scope & (1u << bit))
			*parts[bit] = part++ ? second : first;
	return bucket_join(scope, &names, name) &&
			bucket_set_add(&set, &c->region, scope, resource, str_of(name)) ?
		set.index[0] :
		BUCKET_NONE;
}

/* The row whose label, as refusals name it, this is: "SCOPE NAME RESOURCE". Of two names joined by
 * '@' either may hold that character: the first split that there is. */
static uint32_t act_find_limit(const struct control *c, struct str label)
{
	enum bucket_resource resource;
	uint32_t row = BUCKET_NONE;
	struct str name;
	uint64_t scope;

	if (!act_split(label, &scope, &resource, &name))
		return BUCKET_NONE;
	if ((scope & (scope - 1)) == 0)
		return act_look_up(c, scope, resource, name, STR_NULL);
	for (size_t i = 0; i < name.length && row == BUCKET_NONE; i++)
		if (name.data[i] == '@')
			row = act_look_up(c, scope, resource, str_make(name.data, i),
				str_make(name.data + i + 1, name.length - i - 1));
	return row;
}

/* What limits know a target by: "PROVIDER/MODEL" or "PROVIDER". Views into *v and the
 * configuration. */
static struct bucket_names act_target_names(const struct control *c, const struct target_view *v)
{
	const char *slash = strchr(v->name, '/');
	struct bucket_names names = { .provider = str_of(v->name) };
	int i;

	if (slash) {
		names.provider.length = (size_t)(slash - v->name);
		names.model = str_of(slash + 1);
	}
	i = c->config ? config_find_provider(c->config, names.provider) : -1;
	if (i >= 0)
		names.key = config_key_label(&c->config->providers[i]);
	return names;
}

/* A limit with a user covers none: no provider knows of it. */
static bool act_covers(const struct control *c, uint32_t row, const struct bucket_view *limit,
	const struct target_view *v)
{
	const struct bucket_names names = act_target_names(c, v);
	struct bucket_set set = { 0 };
	char name[BUCKET_NAME_TEXT];

	if (!bucket_join(limit->scope, &names, name) ||
		!bucket_set_add(&set, &c->region, limit->scope, limit->resource, str_of(name)))
		return false;
	for (uint32_t i = 0; i < set.count; i++)
		if (set.index[i] == row)
			return true;
	return false;
}

/* A 429 pauses a target and its limits: both are over. */
static void act_resume(struct control *c, uint32_t row, uint64_t now_ns)
{
	struct bucket_view limit;
	struct target_view v;

	bucket_unpause(&c->region, row);
	if (!bucket_view(&c->region, row, now_ns, &limit))
		return;
	for (uint32_t i = 0; i < c->region.targets; i++)
		if (target_view(&c->region, i, &v) && act_covers(c, row, &limit, &v))
			act_end_pause(c, i);
}

static enum status act_on_limit(
	struct control *c, struct str verb, struct str name, struct buffer *why)
{
	uint64_t now_ns = clock_boottime_ns();
	uint32_t row = act_find_limit(c, name);

	if (row == BUCKET_NONE) {
		buffer_printf(why, "no limit \"%.*s\"; llmkit limits lists them", STR_ARG(name));
		return STATUS_BAD_REQUEST;
	}
	log_notice("operator: %.*s %.*s", STR_ARG(verb), STR_ARG(name));
	if (str_is(verb, "limit-reset"))
		bucket_reset(&c->region, row, now_ns);
	else
		act_resume(c, row, now_ns);
	return STATUS_OK;
}

enum status control_act(struct control *c, struct str verb, struct str name, struct buffer *why)
{
	uint32_t row;

	if (str_is(verb, "limit-reset") || str_is(verb, "limit-resume"))
		return act_on_limit(c, verb, name, why);
	if (!str_is(verb, "breaker-open") && !str_is(verb, "breaker-close") &&
		!str_is(verb, "breaker-reset")) {
		buffer_printf(why, "no command \"%.*s\"", STR_ARG(verb));
		return STATUS_BAD_REQUEST;
	}
	row = target_find(&c->region, name, NULL);
	if (row == TARGET_NONE) {
		buffer_printf(why, "no target \"%.*s\"; llmkit breakers lists them", STR_ARG(name));
		return STATUS_UNKNOWN_MODEL;
	}
	log_notice("operator: %.*s %.*s", STR_ARG(verb), STR_ARG(name));
	return act_on_breaker(c, verb, row);
}
