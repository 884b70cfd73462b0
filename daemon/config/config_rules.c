#include "daemon/config/config_check.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include "base/error.h"
#include "daemon/config/config_units.h"
#include "daemon/route.h"
#include "shm/target.h"

#define CONFIG_WEIGHT_MAX 1000000

/* What one line of users or groups means. */
struct config_ids {
	const char *what;
	bool (*find)(const char *name, uint32_t *id);
};

/* The C library's buffers suffice: configuration is read by the main thread alone. */
static bool config_find_user(const char *name, uint32_t *id)
{
	const struct passwd *p = getpwnam(name);

	if (p)
		*id = p->pw_uid;
	return p;
}

static bool config_find_group(const char *name, uint32_t *id)
{
	const struct group *g = getgrnam(name);

	if (g)
		*id = g->gr_gid;
	return g;
}

static const struct config_ids config_users = { "user", config_find_user };
static const struct config_ids config_groups = { "group", config_find_group };

static int config_check_ids(const struct config_ids *ids, const struct config_raw_list *list,
	const char *path, uint32_t **out, size_t *count, struct config_report *r)
{
	if (list->count == 0)
		return 0;
	*out = calloc(list->count, sizeof(**out));
	if (!*out)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < list->count; i++) {
		char at[CONFIG_PATH_MAX], quoted[CONFIG_TEXT_MAX + 8];
		const char *name = list->items[i];
		uint64_t number;

		snprintf(at, sizeof(at), "%s[%u]", path, i);
		if (config_parse_count(name, &number) && number < UINT32_MAX)
			(*out)[(*count)++] = (uint32_t)number;
		else if (*name && ids->find(name, &(*out)[*count]))
			(*count)++;
		else
			config_fail(r, at,
				"no %s \"%s\" on this machine; write an existing name or a number",
				ids->what, config_quote(name, quoted));
	}
	return 0;
}

static_assert(sizeof(uid_t) == sizeof(uint32_t) && sizeof(gid_t) == sizeof(uint32_t), "ids");

int config_check_access(struct config *c, const struct config_raw *raw, struct config_report *r)
{
	const struct config_raw_access *from = raw ? raw->access : NULL;
	struct config_field observers = { r, "access.observers." };
	struct listener_access *to = &c->access;
	int failed = 0;

	if (from && from->participants) {
		failed = config_check_ids(&config_users, &from->participants->users,
			"access.participants.users", &to->participant_uids,
			&to->participant_uid_count, r);
		if (failed == 0)
			failed = config_check_ids(&config_groups, &from->participants->groups,
				"access.participants.groups", &to->participant_gids,
				&to->participant_gid_count, r);
	}
	if (failed == 0 && from && from->observers) {
		config_check_bool(
			observers, "everyone", from->observers->everyone, &to->everyone_observes);
		failed = config_check_ids(&config_users, &from->observers->users,
			"access.observers.users", &to->observer_uids, &to->observer_uid_count, r);
		if (failed == 0)
			failed = config_check_ids(&config_groups, &from->observers->groups,
				"access.observers.groups", &to->observer_gids,
				&to->observer_gid_count, r);
	}
	return error_trace(failed);
}

char *config_take_word(struct config_report *r, const char *path, const char *word)
{
	char quoted[CONFIG_TEXT_MAX + 8], *copy;

	if (!word) {
		config_fail(r, path, "is required");
		return NULL;
	}
	if (!config_is_word(word, CONFIG_WORD_MAX)) {
		config_fail(r, path,
			"\"%s\" is not a name; write 1 to %d characters without spaces",
			config_quote(word, quoted), CONFIG_WORD_MAX);
		return NULL;
	}
	copy = strdup(word);
	if (!copy)
		r->failed = error_origin(-ENOMEM);
	return copy;
}

int config_take_provider(
	const struct config *c, struct config_report *r, const char *path, struct str name)
{
	struct buffer names aux_cleanup(buffer_deinit) = BUFFER_NULL;

	for (unsigned i = 0; i < c->provider_count; i++)
		if (str_is(name, config_provider_name(c, i)))
			return (int)i;
	config_append_names(&names, c, c->provider_count, config_provider_name);
	config_fail(r, path, "no provider \"%.*s\"; %.*s", name.length > 60 ? 60 : (int)name.length,
		name.data, STR_ARG(buffer_str(&names)));
	return -1;
}

static void config_check_price(
	struct config_report *r, unsigned i, const char *key, const char *text, int64_t *value)
{
	char path[CONFIG_PATH_MAX], quoted[CONFIG_TEXT_MAX + 8];

	*value = -1;
	if (!text || config_parse_price(text, value))
		return;
	snprintf(path, sizeof(path), "models[%u].price.%s", i, key);
	config_fail(r, path,
		"\"%s\" is not a price; write USD per million tokens, 0 to 10000, at most six "
		"decimals, such as 2.50",
		config_quote(text, quoted));
}

static void config_check_model_provider(
	struct config *c, unsigned i, const char *name, struct config_report *r)
{
	struct buffer names aux_cleanup(buffer_deinit) = BUFFER_NULL;
	char path[CONFIG_PATH_MAX];
	int found;

	snprintf(path, sizeof(path), "models[%u].provider", i);
	if (!name && c->provider_count == 1)
		return;
	if (!name) {
		config_append_names(&names, c, c->provider_count, config_provider_name);
		config_fail(r, path, "is required unless there is exactly one provider; %.*s",
			STR_ARG(buffer_str(&names)));
		return;
	}
	found = config_take_provider(c, r, path, str_of(name));
	if (found >= 0)
		c->models[i].provider = (unsigned)found;
}

static uint64_t config_capability_find(const char *name)
{
	for (unsigned i = 0; i < TARGET_CAPABILITY_BITS; i++)
		if (strcmp(target_capability_name(i), name) == 0)
			return UINT64_C(1) << i;
	return 0;
}

static void config_check_capabilities(
	struct config_field f, const struct config_raw_list *list, uint64_t *capabilities)
{
	char key[32], quoted[CONFIG_TEXT_MAX + 8];

	*capabilities = TARGET_CAPABILITIES;
	if (config_given_kind(f, "capabilities") != CONFIG_KIND_SEQUENCE)
		return;
	*capabilities = 0;
	for (unsigned i = 0; i < list->count; i++) {
		uint64_t one = config_capability_find(list->items[i]);

		snprintf(key, sizeof(key), "capabilities[%u]", i);
		if (!one)
			config_fail_field(f, key,
				"\"%s\" is not a capability; allowed: tools, vision, json, "
				"reasoning, streaming",
				config_quote(list->items[i], quoted));
		*capabilities |= one;
	}
}

static void config_check_model(
	struct config *c, unsigned i, const struct config_raw_model *raw, struct config_report *r)
{
	struct config_model *m = &c->models[i];
	char prefix[CONFIG_PATH_MAX], path[CONFIG_PATH_MAX];
	static const struct config_raw_price none;
	const struct config_raw_price *price = raw->price ? raw->price : &none;
	struct config_field f = { r, prefix };
	unsigned context = 0;

	snprintf(prefix, sizeof(prefix), "models[%u].", i);
	snprintf(path, sizeof(path), "models[%u].name", i);
	m->name = config_take_word(r, path, raw->name);
	for (unsigned k = 0; k < i && m->name; k++)
		if (c->models[k].name && strcmp(c->models[k].name, m->name) == 0)
			config_fail(r, path, "\"%s\" is already models[%u]; names are unique",
				m->name, k);
	config_check_model_provider(c, i, raw->provider, r);
	snprintf(path, sizeof(path), "models[%u].upstream", i);
	if (raw->upstream || m->name)
		m->upstream = config_take_word(r, path, raw->upstream ? raw->upstream : m->name);
	config_check_price(r, i, "input", price->input, &m->price.input);
	config_check_price(r, i, "output", price->output, &m->price.output);
	config_check_price(r, i, "cached_input", price->cached_input, &m->price.cached_input);
	config_check_count(f, "max_tokens", raw->max_tokens, 1, 100000000, &m->max_tokens);
	config_check_count(f, "context", raw->context, 1, 1000000000, &context);
	m->context = context;
	config_check_capabilities(f, &raw->capabilities, &m->capabilities);
	m->breaker = c->providers[m->provider].breaker;
	config_check_breaker(f, &m->breaker);
}

int config_check_models(struct config *c, const struct config_raw *raw, struct config_report *r)
{
	unsigned count =
		config_check_entries(r, "models", raw ? raw->model_count : 0, CONFIG_MODELS_MAX);

	c->models = calloc(count + 1, sizeof(*c->models));
	if (!c->models)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < count; i++) {
		c->model_count++;
		config_check_model(c, i, &raw->models[i], r);
	}
	return r->failed;
}

const struct config_model *config_find_model(const struct config *c, struct str name, int provider)
{
	for (unsigned i = 0; i < c->model_count; i++) {
		const struct config_model *m = &c->models[i];

		if (provider < 0 ? m->name && str_is(name, m->name) :
				   m->provider == (unsigned)provider &&
					((m->name && str_is(name, m->name)) ||
						(m->upstream && str_is(name, m->upstream))))
			return m;
	}
	return NULL;
}

/* As route.c resolves a client's model: a configured model, or PROVIDER/MODEL passed through. */
static void config_check_target(const struct config *c, struct config_target *target,
	const char *path, const char *text, struct config_report *r)
{
	struct buffer names aux_cleanup(buffer_deinit) = BUFFER_NULL;
	const struct config_model *m = config_find_model(c, str_of(text), -1);
	const char *slash = strchr(text, '/');
	char quoted[CONFIG_TEXT_MAX + 8];
	int provider;

	if (!m && (!slash || !slash[1] || !config_is_word(slash + 1, CONFIG_WORD_MAX))) {
		config_append_names(&names, c, c->model_count, config_model_name);
		config_fail(r, path,
			"no model \"%s\"; write PROVIDER/MODEL, or a configured model (%.*s)",
			config_quote(text, quoted), STR_ARG(buffer_str(&names)));
		return;
	}
	if (!m) {
		provider = config_take_provider(c, r, path, str_make(text, (size_t)(slash - text)));
		if (provider < 0)
			return;
		target->provider = (unsigned)provider;
		m = config_find_model(c, str_of(slash + 1), provider);
	}
	if (m)
		target->provider = m->provider;
	target->row = m;
	target->upstream = strdup(m && m->upstream ? m->upstream : m ? m->name : slash + 1);
	target->model = strdup(m && m->name ? m->name : m ? m->upstream : slash + 1);
	if (!target->upstream || !target->model)
		r->failed = error_origin(-ENOMEM);
}

/* One item of "targets": a name, or a group with one. */
static void config_check_target_item(
	struct config *c, unsigned i, unsigned k, struct config_report *r)
{
	struct config_target *target = &c->routes[i].targets[k];
	char path[CONFIG_PATH_MAX], prefix[CONFIG_PATH_MAX];
	struct config_field item = { r, path }, group = { r, prefix };
	const char *text;

	snprintf(path, sizeof(path), "routes[%u].targets[%u]", i, k);
	snprintf(prefix, sizeof(prefix), "routes[%u].targets[%u].", i, k);
	target->weight = 1;
	text = config_given(item, "");
	if (!text) {
		text = config_given(group, "target");
		snprintf(path, sizeof(path), "routes[%u].targets[%u].target", i, k);
	}
	config_check_count(group, "weight", config_given(group, "weight"), 1, CONFIG_WEIGHT_MAX,
		&target->weight);
	if (text)
		config_check_target(c, target, path, text, r);
	else
		config_fail(r, path, "is required");
}

static int config_check_targets(struct config *c, unsigned i, struct config_field f)
{
	struct config_route *route = &c->routes[i];
	size_t count = config_given_count(f, "targets");

	if (count == 0 || count > ROUTE_CHAIN_MAX) {
		config_fail_field(
			f, "targets", "has %zu; give 1 to %d targets", count, ROUTE_CHAIN_MAX);
		return 0;
	}
	route->targets = calloc(count, sizeof(*route->targets));
	if (!route->targets)
		return error_origin(-ENOMEM);
	for (unsigned k = 0; k < count; k++) {
		route->target_count++;
		config_check_target_item(c, i, k, f.report);
	}
	return 0;
}

static void config_check_strategy(
	struct config_field f, const char *text, enum router_strategy *strategy)
{
	struct buffer names aux_cleanup(buffer_deinit) = BUFFER_NULL;
	char quoted[CONFIG_TEXT_MAX + 8];

	if (!text)
		return;
	for (unsigned i = 0; i < ROUTER_STRATEGIES; i++) {
		if (strcmp(text, router_strategy_name(i)) == 0) {
			*strategy = i;
			return;
		}
		(void)buffer_printf(&names, "%s%s", i ? ", " : "", router_strategy_name(i));
	}
	config_fail_field(f, "strategy", "\"%s\" is not a strategy; allowed: %.*s",
		config_quote(text, quoted), STR_ARG(buffer_str(&names)));
}

/* In millionths. */
static uint64_t config_check_weight(struct config_field f, const char *key, const char *text)
{
	char quoted[CONFIG_TEXT_MAX + 8];
	uint64_t value;
	const char *rest;

	if (!text)
		return 0;
	rest = config_parse_decimal(text, 6, &value);
	if (rest && *rest == '\0' && value <= UINT64_C(1000) * 1000000)
		return value;
	config_fail_field(f, key,
		"\"%s\" is not a weight; write a number from 0 to 1000, at most six decimals",
		config_quote(text, quoted));
	return 1; /* no second error about the sum */
}

/* Parts of 1000 that add up to it: what rounding leaves goes to the largest. */
static void config_share(const uint64_t weight[3], struct config_route *route)
{
	uint64_t sum = weight[0] + weight[1] + weight[2];
	uint16_t part[3];
	unsigned largest = 0, left = 1000;

	for (unsigned i = 0; i < 3; i++) {
		part[i] = (uint16_t)(weight[i] * 1000 / sum);
		left -= part[i];
		largest = weight[i] > weight[largest] ? i : largest;
	}
	part[largest] = (uint16_t)(part[largest] + left);
	route->weight_cost = part[0];
	route->weight_latency = part[1];
	route->weight_reliability = part[2];
}

static void config_check_weights(
	struct config_route *route, struct config_field f, const struct config_raw_weights *raw)
{
	static const uint64_t usual[3] = { 3, 5, 2 };
	char prefix[CONFIG_PATH_MAX];
	struct config_field g = config_field_group(f, "weights", prefix);
	uint64_t weight[3];

	if (route->strategy == ROUTER_BALANCED)
		config_share(usual, route);
	if (!raw)
		return;
	if (route->strategy != ROUTER_BALANCED) {
		config_fail_field(f, "weights", "are for strategy balanced only; it is %s",
			router_strategy_name(route->strategy));
		return;
	}
	weight[0] = config_check_weight(g, "cost", raw->cost);
	weight[1] = config_check_weight(g, "latency", raw->latency);
	weight[2] = config_check_weight(g, "reliability", raw->reliability);
	if (weight[0] + weight[1] + weight[2] == 0)
		config_fail_field(f, "weights",
			"are all 0; give at least one of cost, latency and reliability");
	else
		config_share(weight, route);
}

static void config_check_price_cap(struct config_field f, const char *text, int64_t *nanousd)
{
	char quoted[CONFIG_TEXT_MAX + 8];
	const char *rest;
	uint64_t value;

	*nanousd = -1;
	if (!text)
		return;
	rest = config_parse_money(text, &value);
	if (rest && *rest == '\0')
		*nanousd = (int64_t)value;
	else
		config_fail_field(f, "price_cap",
			"\"%s\" is not a sum; write N USD, 0 to " CONFIG_MONEY_MAX_TEXT
			", at most nine decimals, such as 0.05 USD",
			config_quote(text, quoted));
}

static int config_check_route(
	struct config *c, unsigned i, const struct config_raw_route *raw, struct config_report *r)
{
	struct config_route *route = &c->routes[i];
	char path[CONFIG_PATH_MAX], prefix[CONFIG_PATH_MAX];
	struct config_field f = { r, prefix };

	snprintf(prefix, sizeof(prefix), "routes[%u].", i);
	snprintf(path, sizeof(path), "routes[%u].name", i);
	route->name = config_take_word(r, path, raw->name);
	for (unsigned k = 0; k < i && route->name; k++)
		if (c->routes[k].name && strcmp(c->routes[k].name, route->name) == 0)
			config_fail(r, path, "\"%s\" is already routes[%u]; names are unique",
				route->name, k);
	route->strategy = ROUTER_ORDER;
	config_check_strategy(f, raw->strategy, &route->strategy);
	config_check_weights(route, f, raw->weights);
	config_check_price_cap(f, raw->price_cap, &route->price_cap_nanousd);
	config_check_duration(f, "patience", raw->patience, 0, NSEC_PER_DAY, &route->patience_ns);
	return config_check_targets(c, i, f);
}

int config_check_routes(struct config *c, const struct config_raw *raw, struct config_report *r)
{
	unsigned count =
		config_check_entries(r, "routes", raw ? raw->route_count : 0, CONFIG_ROUTES_MAX);
	int failed = 0;

	c->routes = calloc(count + 1, sizeof(*c->routes));
	if (!c->routes)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < count && failed == 0; i++) {
		c->route_count++;
		failed = config_check_route(c, i, &raw->routes[i], r);
	}
	return failed ? failed : r->failed;
}
