#include "daemon/config/config_check.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include "base/error.h"
#include "daemon/config/config_units.h"
#include "daemon/route.h"

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

/* A copy of a required word, or an error and NULL. */
static char *config_take_word(struct config_report *r, const char *path, const char *word)
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

/* Index of a provider by name; -1 and an error. */
static int config_take_provider(
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

static void config_check_model(
	struct config *c, unsigned i, const struct config_raw_model *raw, struct config_report *r)
{
	struct config_model *m = &c->models[i];
	char prefix[CONFIG_PATH_MAX], path[CONFIG_PATH_MAX];
	static const struct config_raw_price none;
	const struct config_raw_price *price = raw->price ? raw->price : &none;

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
	config_check_count((struct config_field){ r, prefix }, "max_tokens", raw->max_tokens, 1,
		100000000, &m->max_tokens);
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

static const struct config_model *config_find_model(
	const struct config *c, struct str name, int provider)
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
	if (m) {
		target->provider = m->provider;
		target->max_tokens = m->max_tokens;
	}
	target->upstream = strdup(m && m->upstream ? m->upstream : m ? m->name : slash + 1);
	target->model = strdup(m && m->name ? m->name : m ? m->upstream : slash + 1);
	if (!target->upstream || !target->model)
		r->failed = error_origin(-ENOMEM);
}

static int config_check_route(
	struct config *c, unsigned i, const struct config_raw_route *raw, struct config_report *r)
{
	struct config_route *route = &c->routes[i];
	char path[CONFIG_PATH_MAX];

	snprintf(path, sizeof(path), "routes[%u].name", i);
	route->name = config_take_word(r, path, raw->name);
	for (unsigned k = 0; k < i && route->name; k++)
		if (c->routes[k].name && strcmp(c->routes[k].name, route->name) == 0)
			config_fail(r, path, "\"%s\" is already routes[%u]; names are unique",
				route->name, k);
	snprintf(path, sizeof(path), "routes[%u].targets", i);
	if (raw->targets.count == 0 || raw->targets.count > ROUTE_CHAIN_MAX) {
		config_fail(r, path, "has %u; give 1 to %d targets", raw->targets.count,
			ROUTE_CHAIN_MAX);
		return 0;
	}
	route->targets = calloc(raw->targets.count, sizeof(*route->targets));
	if (!route->targets)
		return error_origin(-ENOMEM);
	for (unsigned k = 0; k < raw->targets.count; k++) {
		snprintf(path, sizeof(path), "routes[%u].targets[%u]", i, k);
		route->target_count++;
		config_check_target(c, &route->targets[k], path, raw->targets.items[k], r);
	}
	return 0;
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

/* Of what the limit is. The name of a model is not looked up: providers have more than are
 * configured. */
static void config_check_scope(const struct config *c, struct config_limit *limit, unsigned i,
	const struct config_raw_limit *raw, struct config_report *r)
{
	char path[CONFIG_PATH_MAX];
	const char *key = raw->provider ? "provider" : raw->model ? "model" : "user";

	if (!!raw->provider + !!raw->model + !!raw->user != 1) {
		snprintf(path, sizeof(path), "limits[%u]", i);
		config_fail(r, path, "give exactly one of provider, model and user");
		return;
	}
	limit->scope = raw->provider ? BUCKET_SCOPE_PROVIDER :
		raw->model           ? BUCKET_SCOPE_MODEL :
				       BUCKET_SCOPE_USER;
	snprintf(path, sizeof(path), "limits[%u].%s", i, key);
	limit->name = config_take_word(r, path,
		raw->provider      ? raw->provider :
			raw->model ? raw->model :
				     raw->user);
	if (raw->provider && limit->name)
		(void)config_take_provider(c, r, path, str_of(limit->name));
	for (unsigned k = 0; k < i && limit->name; k++)
		if (c->limits[k].name && c->limits[k].scope == limit->scope &&
			strcmp(c->limits[k].name, limit->name) == 0)
			config_fail(
				r, path, "\"%s\" is already limited by limits[%u]", limit->name, k);
}

static void config_check_limit(
	struct config *c, unsigned i, const struct config_raw_limit *raw, struct config_report *r)
{
	struct config_limit *limit = &c->limits[i];
	char path[CONFIG_PATH_MAX], quoted[CONFIG_TEXT_MAX + 8];

	config_check_scope(c, limit, i, raw, r);
	snprintf(path, sizeof(path), "limits[%u].requests", i);
	if (!raw->requests)
		config_fail(r, path, "is required; " CONFIG_RATE_TEXT);
	else if (!config_parse_rate(raw->requests, &limit->limit, &limit->window_ns))
		config_fail(r, path, "\"%s\" is not a rate; " CONFIG_RATE_TEXT,
			config_quote(raw->requests, quoted));
	else
		limit->burst = config_default_burst(limit->limit, limit->window_ns);
	snprintf(path, sizeof(path), "limits[%u].burst", i);
	if (raw->burst && (!config_parse_count(raw->burst, &limit->burst) || limit->burst == 0))
		config_fail(r, path, "\"%s\" is not allowed; write a whole number from 1",
			config_quote(raw->burst, quoted));
}

int config_check_limits(struct config *c, const struct config_raw *raw, struct config_report *r)
{
	unsigned count =
		config_check_entries(r, "limits", raw ? raw->limit_count : 0, CONFIG_LIMITS_MAX);

	c->limits = calloc(count + 1, sizeof(*c->limits));
	if (!c->limits)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < count; i++) {
		c->limit_count++;
		config_check_limit(c, i, &raw->limits[i], r);
	}
	return r->failed;
}
