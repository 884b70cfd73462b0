#include "daemon/route.h"

#include <string.h>

static void route_add(struct route_chain *chain, unsigned provider, struct str upstream,
	struct str model, uint32_t max_tokens)
{
	if (chain->count < ROUTE_CHAIN_MAX)
		chain->target[chain->count++] = (struct route_target){
			.provider = provider,
			.upstream = upstream,
			.model = model,
			.max_tokens = max_tokens,
		};
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
		for (unsigned k = 0; k < found->target_count; k++)
			route_add(chain, found->targets[k].provider,
				str_of(found->targets[k].upstream), str_of(found->targets[k].model),
				found->targets[k].max_tokens);
		return ROUTE_OK;
	}
	return route_unknown_route(config, route, why);
}

static const struct config_model *route_find_model(
	const struct config *config, struct str name, int provider)
{
	for (unsigned i = 0; i < config->model_count; i++) {
		const struct config_model *m = &config->models[i];

		if (provider >= 0 && m->provider != (unsigned)provider)
			continue;
		if (str_is(name, m->name) || (provider >= 0 && str_is(name, m->upstream)))
			return m;
	}
	return NULL;
}

/* A configured model's row, or the provider's own name passed through. */
static void route_add_model(
	const struct config *config, unsigned provider, struct str name, struct route_chain *chain)
{
	const struct config_model *m = route_find_model(config, name, (int)provider);

	if (m)
		route_add(chain, provider, str_of(m->upstream), str_of(m->name), m->max_tokens);
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
	const struct config_model *m = route_find_model(config, model, -1);
	const char *slash = memchr(model.data, '/', model.length);
	int provider = -1;

	if (m) {
		route_add(chain, m->provider, str_of(m->upstream), str_of(m->name), m->max_tokens);
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
	if (!model.length == !route.length) {
		r = buffer_printf(why, "a request names either a model or a route%s",
			model.length ? ", not both" : "");
		return r < 0 ? r : ROUTE_E_AMBIGUOUS;
	}
	if (route.length)
		return route_by_name(config, route, chain, why);
	return route_by_model(config, model, chain, why);
}
