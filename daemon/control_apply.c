#include "daemon/control_internal.h"

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

/* ---- limits ---- */

static struct bucket_limit apply_limit(const struct config_limit *l)
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

static uint32_t apply_find(const struct region *r, const struct config_limit *l)
{
	struct bucket_set set = { 0 };

	return bucket_set_add(&set, r, l->scope, l->resource, str_of(l->name)) ? set.index[0] :
										 BUCKET_NONE;
}

/* Frees the rows of limits that are no longer wanted: before new ones are made, so that these find
 * room even when all change. */
static int apply_retire_limits(struct control *c, const struct config *config)
{
	aux_cleanup(freep) bool *keep = calloc(c->region.buckets, sizeof(*keep));

	if (!keep)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < config->limit_count; i++) {
		uint32_t row = apply_find(&c->region, &config->limits[i]);

		if (row != BUCKET_NONE)
			keep[row] = true;
	}
	bucket_retire(&c->region, keep);
	return 0;
}

static int apply_limits(struct control *c, const struct config *config, uint64_t now_ns)
{
	struct bucket_limit templates[BUCKET_SCOPE_MASKS * BUCKET_RESOURCES];
	int r = apply_retire_limits(c, config);

	for (unsigned i = 0; r == 0 && i < config->limit_count; i++) {
		const struct bucket_limit limit = apply_limit(&config->limits[i]);
		int row = bucket_configure(&c->region, &limit, now_ns);

		r = row < 0 ? error_trace(row) : 0;
	}
	for (unsigned i = 0; i < config->template_count; i++)
		templates[i] = apply_limit(&config->templates[i]);
	if (r == 0)
		r = bucket_set_templates(&c->region, templates, config->template_count, now_ns);
	return error_trace(r);
}

/* ---- targets ---- */

static int apply_target(struct control *c, const char *provider, const char *model,
	struct target_config *t, const struct breaker_settings *breaker, bool *keep)
{
	char name[TARGET_NAME_TEXT];
	int row,
		n = snprintf(name, sizeof(name), "%s%s%s", provider, model ? "/" : "",
			model ? model : "");

	if (n >= (int)sizeof(name))
		return error_origin(-ENAMETOOLONG);
	t->name = str_make(name, (size_t)n);
	row = target_configure(&c->region, t);
	if (row < 0)
		return error_trace(row);
	breaker_configure(&c->region, (uint32_t)row, breaker);
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
		.available = usable,
	};

	return apply_target(c, p->name, NULL, &t, &p->breaker, keep);
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
		.available = usable,
	};

	return apply_target(c, provider, m->name, &t, &m->breaker, keep);
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
	char name[TARGET_NAME_TEXT];
	uint32_t row;

	snprintf(name, sizeof(name), "%s/%s", p->name, from->model);
	row = target_find(&c->region, str_of(name), NULL);
	if (row != TARGET_NONE && keep[row])
		return (int)row;
	return apply_target(c, p->name, from->model, &t, &p->breaker, keep);
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
	};
	int row;

	for (unsigned i = 0; i < from->target_count && i < ROUTER_CANDIDATES; i++) {
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

static int apply_targets(struct control *c, const struct config *config, const bool *usable)
{
	aux_cleanup(freep) bool *target = calloc(c->region.targets, sizeof(*target));
	aux_cleanup(freep) bool *route = calloc(c->region.routes, sizeof(*route));
	int r = target && route ? 0 : error_origin(-ENOMEM);

	for (unsigned i = 0; r >= 0 && i < config->provider_count; i++)
		r = apply_provider(c, config, i, !usable || usable[i], target);
	for (unsigned i = 0; r >= 0 && i < config->model_count; i++) {
		const struct config_model *m = &config->models[i];

		r = apply_model(c, config, m, !usable || usable[m->provider], target);
	}
	for (unsigned i = 0; r >= 0 && i < config->route_count; i++)
		r = apply_route(c, config, &config->routes[i], usable, target, route);
	if (r < 0)
		return error_trace(r);
	router_retire(&c->region, route);
	target_retire(&c->region, target);
	return 0;
}

/* ---- all of it ---- */

/* Whether all can be set: room and ranges. */
static int apply_check(const struct control *c, const struct config *config)
{
	unsigned targets = config->provider_count + config->model_count;

	if (config->limit_count > c->region.buckets) {
		log_error("too many limits: %u configured, room for %u", config->limit_count,
			c->region.buckets);
		return error_origin(-ENOSPC);
	}
	if (targets > c->region.targets || config->route_count > c->region.routes) {
		log_error("too many models or routes: %u and %u configured, room for %u and %u "
			  "(see \"tables\")",
			targets, config->route_count, c->region.targets, c->region.routes);
		return error_origin(-ENOSPC);
	}
	for (unsigned i = 0; i < config->limit_count; i++) {
		const struct config_limit *l = &config->limits[i];
		const struct bucket_limit limit = apply_limit(l);

		if (!bucket_limit_is_valid(&limit)) {
			log_error("limit out of range: burst or window is too large scope=%s "
				  "name=%s resource=%s",
				bucket_scope_name(l->scope), l->name,
				bucket_resource_name(l->resource));
			return error_origin(-ERANGE);
		}
	}
	return 0;
}

int control_configure(struct control *c, const struct config *config, const bool *usable)
{
	uint64_t now_ns = clock_boottime_ns();
	int r = apply_check(c, config);

	if (r == 0)
		r = apply_limits(c, config, now_ns);
	if (r == 0)
		r = apply_targets(c, config, usable);
	if (r == 0)
		bucket_roll(&c->region, now_ns, clock_unix_ns());
	if (r < 0)
		log_error("limits or targets not set errno=%d (%s)", -r, strerror(-r));
	else
		c->config = config;
	return r;
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

/* A provider that names a lower limit is believed; a higher one only where that is asked for. */
static void apply_follow(struct control *c, const struct config_limit *l, uint64_t now_ns)
{
	uint32_t row = apply_find(&c->region, l);
	uint64_t heard = row != BUCKET_NONE ? bucket_heard(&c->region, row) : 0;
	struct bucket_limit limit = apply_limit(l);

	if (!heard || (heard > l->limit && !l->automatic))
		return;
	limit.limit = heard;
	limit.burst = l->automatic ? heard : min_u64(l->burst, heard);
	if (bucket_configure(&c->region, &limit, now_ns) < 0)
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
		apply_follow(c, &c->config->limits[i], now_ns);
}

int control_resolve(struct control *c, const struct bucket_names *names)
{
	return error_trace(bucket_instantiate(&c->region, names, clock_boottime_ns()));
}

/* ---- an operator's acts ---- */

static enum status act_on_breaker(struct control *c, struct str verb, uint32_t row)
{
	uint64_t now_ns = clock_boottime_ns();

	if (str_is(verb, "breaker-open"))
		breaker_force_open(&c->region, row, now_ns);
	else if (str_is(verb, "breaker-close"))
		breaker_force_close(&c->region, row, now_ns);
	else
		breaker_reset(&c->region, row, now_ns);
	return STATUS_OK;
}

/* The row whose label, as refusals name it, this is. */
static uint32_t act_find_limit(const struct control *c, struct str name, uint64_t now_ns)
{
	struct bucket_view v;
	char label[256];

	for (uint32_t i = 0; i < c->region.buckets; i++) {
		if (!bucket_view(&c->region, i, now_ns, &v))
			continue;
		snprintf(label, sizeof(label), "%s %s %s", bucket_scope_name(v.scope), v.name,
			bucket_resource_name(v.resource));
		if (str_is(name, label))
			return i;
	}
	return BUCKET_NONE;
}

static enum status act_on_limit(
	struct control *c, struct str verb, struct str name, struct buffer *why)
{
	uint64_t now_ns = clock_boottime_ns();
	uint32_t row = act_find_limit(c, name, now_ns);

	if (row == BUCKET_NONE) {
		buffer_printf(why, "no limit \"%.*s\"; llmkit limits lists them", STR_ARG(name));
		return STATUS_BAD_REQUEST;
	}
	if (str_is(verb, "limit-reset"))
		bucket_reset(&c->region, row, now_ns);
	else
		bucket_unpause(&c->region, row);
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
		return STATUS_BAD_REQUEST;
	}
	log_notice("operator: %.*s %.*s", STR_ARG(verb), STR_ARG(name));
	return act_on_breaker(c, verb, row);
}
