#include "daemon/route.h"

#include <stdio.h>
#include <string.h>
#include "shm/breaker.h"
#include "shm/target.h"

static struct route_target *route_add(struct route_chain *chain, unsigned provider,
	struct str upstream, struct str model, uint32_t max_tokens)
{
	struct route_target *t = &chain->target[chain->count];

	if (chain->count == ROUTE_CHAIN_MAX)
		return NULL;
	*t = (struct route_target){
		.provider = provider,
		.upstream = upstream,
		.model = model,
		.max_tokens = max_tokens,
		.weight = 1,
		.row = TARGET_NONE,
		.provider_row = TARGET_NONE,
	};
	chain->count++;
	return t;
}

static void route_add_configured(struct route_chain *chain, const struct config_target *from)
{
	const struct config_model *m = from->row;
	struct route_target *t = route_add(chain, from->provider, str_of(from->upstream),
		str_of(from->model), m ? m->max_tokens : 0);

	if (!t)
		return;
	t->weight = from->weight;
	t->price = m ? &m->price : NULL;
}

static int route_unknown_route(const struct config *config, struct str route, struct buffer *why)
{
	int r = buffer_printf(why, "no route \"%.*s\"; configured routes:", STR_ARG(route));

	for (unsigned i = 0; i < config->route_count && r == 0; i++)
		r = buffer_printf(why, " %s", config->routes[i].name);
	if (r == 0 && config->route_count == 0)
		r = buffer_printf(why, " none");
	return r < 0 ? r : ROUTE_E_UNKNOWN;
}

static int route_by_name(const struct config *config, struct str route, struct route_chain *chain,
	struct buffer *why)
{
	int r;

	if (!config->features.router) {
		r = buffer_printf(why, "routes are switched off (features: router)");
		return r < 0 ? r : ROUTE_E_DISABLED;
	}
	for (unsigned i = 0; i < config->route_count; i++) {
		const struct config_route *found = &config->routes[i];

		if (!str_is(route, found->name))
			continue;
		chain->route = found;
		for (unsigned k = 0; k < found->target_count; k++)
			route_add_configured(chain, &found->targets[k]);
		return ROUTE_OK;
	}
	return route_unknown_route(config, route, why);
}

static void route_add_row(struct route_chain *chain, const struct config_model *m)
{
	struct route_target *t =
		route_add(chain, m->provider, str_of(m->upstream), str_of(m->name), m->max_tokens);

	if (t)
		t->price = &m->price;
}

/* A configured model's row, or the provider's own name passed through. */
static void route_add_model(
	const struct config *config, unsigned provider, struct str name, struct route_chain *chain)
{
	const struct config_model *m = config_find_model(config, name, (int)provider);

	if (m)
		route_add_row(chain, m);
	else
		route_add(chain, provider, name, name, 0);
}

static int route_unknown_model(const struct config *config, struct str model, struct buffer *why)
{
	int r;

	if (config->provider_count == 0)
		r = buffer_printf(why,
			"no provider is configured: set a key such as OPENAI_API_KEY for "
			"llmkitd, or write a configuration file");
	else
		r = buffer_printf(why,
			"no model \"%.*s\": name one as PROVIDER/MODEL with PROVIDER of",
			STR_ARG(model));
	for (unsigned i = 0; i < config->provider_count && r == 0; i++)
		r = buffer_printf(why, "%s %s", i ? "," : "", config->providers[i].name);
	if (r == 0 && config->model_count)
		r = buffer_printf(why, "; or a configured model:");
	for (unsigned i = 0; i < config->model_count && i < 20 && r == 0; i++)
		r = buffer_printf(why, "%s %s", i ? "," : "", config->models[i].name);
	return r < 0 ? r : ROUTE_E_UNKNOWN;
}

static int route_by_model(const struct config *config, struct str model, struct route_chain *chain,
	struct buffer *why)
{
	const struct config_model *m = config_find_model(config, model, -1);
	const char *slash = memchr(model.data, '/', model.length);
	int provider = -1;

	if (m) {
		route_add_row(chain, m);
		return ROUTE_OK;
	}
	if (slash)
		provider = config_find_provider(
			config, str_make(model.data, (size_t)(slash - model.data)));
	if (provider >= 0) {
		struct str rest =
			str_make(slash + 1, model.length - (size_t)(slash + 1 - model.data));

		if (rest.length)
			route_add_model(config, (unsigned)provider, rest, chain);
	} else if (config->provider_count == 1) {
		route_add_model(config, 0, model, chain);
	}
	return chain->count ? ROUTE_OK : route_unknown_model(config, model, why);
}

int route_resolve(const struct config *config, struct str model, struct str route,
	struct route_chain *chain, struct buffer *why)
{
	int r;

	chain->count = 0;
	chain->route = NULL;
	if (!model.length == !route.length) {
		r = buffer_printf(why, "a request names either a model or a route%s",
			model.length ? ", not both" : "");
		return r < 0 ? r : ROUTE_E_AMBIGUOUS;
	}
	if (route.length)
		return route_by_name(config, route, chain, why);
	return route_by_model(config, model, chain, why);
}

/* ---- order ---- */

void route_find_row(
	const struct region *region, const struct config *config, struct route_target *t)
{
	const char *provider = config->providers[t->provider].name;
	char name[TARGET_NAME_TEXT];
	uint64_t key = 0;
	int n = snprintf(name, sizeof(name), "%s/%.*s", provider, STR_ARG(t->model));

	t->provider_row = target_find(region, str_of(provider), &t->provider_key);
	t->row = n < (int)sizeof(name) ? target_find(region, str_make(name, (size_t)n), &key) :
					 TARGET_NONE;
	t->key = t->row != TARGET_NONE ? key : t->provider_key;
}

void route_find_rows(
	const struct region *region, const struct config *config, struct route_chain *chain)
{
	for (unsigned i = 0; i < chain->count; i++)
		route_find_row(region, config, &chain->target[i]);
}

struct router_query route_query(const struct route_chain *chain)
{
	const struct config_route *r = chain->route;

	if (!r)
		return (struct router_query){ .strategy = ROUTER_ORDER, .price_cap_nanousd = -1 };
	return (struct router_query){
		.strategy = r->strategy,
		.weight_cost = r->weight_cost,
		.weight_latency = r->weight_latency,
		.weight_reliability = r->weight_reliability,
		.price_cap_nanousd = r->price_cap_nanousd,
		.patience_ns = r->patience_ns,
	};
}

/* Those without a row of their own (the table is full) are judged by their provider's. */
static uint32_t route_row(const struct route_target *t)
{
	return t->row != TARGET_NONE ? t->row : t->provider_row;
}

/* Only time is against it. */
static bool route_must_wait(enum router_reason reason)
{
	return reason == ROUTER_OUT_BUDGET || reason == ROUTER_OUT_PAUSED;
}

/* For a breaker, which time or an operator will close; all else is as it is. */
static bool route_is_open(const struct router_decision *d)
{
	for (unsigned i = d->usable; i < d->count; i++)
		if (d->choice[i].reason == ROUTER_OUT_BREAKER)
			return true;
	return false;
}

static bool route_is_forced(const struct region *region, uint32_t row, uint64_t now_ns)
{
	struct breaker_view v;

	return breaker_view(region, row, now_ns, &v) && v.forced;
}

/* Usually an operator's: of others one is called all the same, when nothing else is left. */
static int route_explain_open(const struct region *region, const char *provider,
	const struct route_target *t, uint64_t now_ns, struct buffer *why)
{
	if (t->row != TARGET_NONE && route_is_forced(region, t->row, now_ns))
		return buffer_printf(why,
			"its circuit breaker was opened by hand: llmkit breakers close %s/%.*s",
			provider, STR_ARG(t->model));
	if (route_is_forced(region, t->provider_row, now_ns))
		return buffer_printf(why,
			"the circuit breaker of its provider was opened by hand: "
			"llmkit breakers close %s",
			provider);
	return buffer_printf(why, "its circuit breaker is open");
}

static int route_explain_one(const struct region *region, const struct config *config,
	const struct route_target *t, enum router_reason reason, uint64_t now_ns,
	struct buffer *why)
{
	const char *provider = config->providers[t->provider].name;
	int r = buffer_printf(why, "%s/%.*s (", provider, STR_ARG(t->model));

	if (r == 0 && reason == ROUTER_OUT_BREAKER)
		r = route_explain_open(region, provider, t, now_ns, why);
	else if (r == 0)
		r = buffer_printf(why, "%s", router_reason_name(reason));
	return r < 0 ? r : buffer_printf(why, ")");
}

/* Why nothing is left. */
static int route_explain(const struct region *region, const struct config *config,
	const struct route_chain *chain, const struct router_decision *d, uint64_t now_ns,
	struct buffer *why)
{
	bool all_context = true;
	int r = buffer_printf(why, "no target can take the request: ");

	for (unsigned i = 0; i < d->count && r == 0; i++) {
		const struct router_choice *c = &d->choice[i];

		all_context &= c->reason == ROUTER_OUT_CONTEXT;
		r = i ? buffer_printf(why, ", ") : 0;
		if (r == 0)
			r = route_explain_one(region, config, &chain->target[c->candidate],
				c->reason, now_ns, why);
	}
	if (r < 0)
		return r;
	if (route_is_open(d))
		return ROUTE_E_OPEN;
	return all_context ? ROUTE_E_CONTEXT : ROUTE_E_NO_TARGET;
}

static void route_take(struct route_chain *chain, const struct route_chain *all,
	const struct router_choice *choice)
{
	struct route_target *t = &chain->target[chain->count++];

	*t = all->target[choice->candidate];
	t->forced = choice->reason == ROUTER_PANIC;
}

/* Those that wait least first: perhaps it is over when their turn comes, and else the refusal says
 * how long it takes. */
static void route_take_waiting(
	struct route_chain *chain, const struct route_chain *all, const struct router_decision *d)
{
	const struct router_choice *waiting[ROUTE_CHAIN_MAX];
	unsigned count = 0;

	for (unsigned i = d->usable; i < d->count; i++) {
		unsigned at = count;

		if (!route_must_wait(d->choice[i].reason))
			continue;
		for (; at > 0 && waiting[at - 1]->wait_ns > d->choice[i].wait_ns; at--)
			waiting[at] = waiting[at - 1];
		waiting[at] = &d->choice[i];
		count++;
	}
	for (unsigned i = 0; i < count; i++)
		route_take(chain, all, waiting[i]);
}

/* What has no key is left for its own error. */
static void route_take_keyless(
	struct route_chain *chain, const struct route_chain *all, const struct router_decision *d)
{
	for (unsigned i = 0; i < d->count; i++)
		if (d->choice[i].reason == ROUTER_OUT_UNAVAILABLE)
			route_take(chain, all, &d->choice[i]);
}

int route_rank(const struct region *region, const struct config *config, struct route_chain *chain,
	const struct bucket_set *limits, const struct router_query *query, uint64_t now_ns,
	struct buffer *why)
{
	struct router_candidate candidates[ROUTE_CHAIN_MAX] = { 0 };
	_Atomic uint64_t *turn = NULL;
	struct router_decision decision;
	const struct route_chain all = *chain;
	struct router_route found;

	/* Of what has no row nothing is known: the order stays as configured. */
	for (unsigned i = 0; i < chain->count; i++)
		if (route_row(&all.target[i]) == TARGET_NONE)
			return ROUTE_OK;
	for (unsigned i = 0; i < chain->count; i++)
		candidates[i] = (struct router_candidate){
			.row = route_row(&all.target[i]),
			.key = all.target[i].key,
			.weight = all.target[i].weight,
			.limits = limits ? &limits[i] : NULL,
		};
	if (query->strategy == ROUTER_ROUND_ROBIN && chain->route)
		router_find(region, str_of(chain->route->name), &found, &turn);
	router_decide(region, query, candidates, chain->count, turn, now_ns, &decision);
	chain->count = 0;
	for (unsigned i = 0; i < decision.usable; i++)
		route_take(chain, &all, &decision.choice[i]);
	route_take_waiting(chain, &all, &decision);
	if (chain->count == 0 && !route_is_open(&decision))
		route_take_keyless(chain, &all, &decision);
	return chain->count ? ROUTE_OK :
			      route_explain(region, config, &all, &decision, now_ns, why);
}
