#include "daemon/config/config_check.h"

#include <errno.h>
#include <stdio.h>
#include "base/error.h"
#include "daemon/config/config_units.h"
#include "daemon/config/keys_source.h"

#define CONFIG_TIMEOUT_MIN NSEC_PER_MSEC
#define CONFIG_TIMEOUT_MAX NSEC_PER_DAY

static const struct config_provider config_provider_defaults = {
	.connect_timeout_ns = 10 * NSEC_PER_SEC,
	.first_byte_timeout_ns = 120 * NSEC_PER_SEC,
	.stall_timeout_ns = 60 * NSEC_PER_SEC,
	.connections = 256,
	.idle_ns = 60 * NSEC_PER_SEC,
	.max_age_ns = 600 * NSEC_PER_SEC,
};

static void config_provider_init(struct config_provider *p)
{
	*p = config_provider_defaults;
	p->breaker = breaker_preset(BREAKER_PRODUCTION);
}

static void config_list_families(struct buffer *out)
{
	size_t count;
	const struct family *table = family_table(&count);

	for (size_t i = 0; i < count; i++)
		(void)buffer_printf(out, "%s%s", i ? ", " : "", table[i].name);
}

static void config_check_provider_name(
	struct config *c, unsigned i, const char *name, struct config_report *r)
{
	char path[CONFIG_PATH_MAX], quoted[CONFIG_TEXT_MAX + 8];

	snprintf(path, sizeof(path), "providers[%u].name", i);
	if (!name) {
		config_fail(r, path, "is required");
		return;
	}
	if (!config_is_name(name, CONFIG_NAME_MAX))
		config_fail(r, path,
			"\"%s\" is not a name; use a-z, 0-9, '.', '_' and '-', at most %d "
			"characters",
			config_quote(name, quoted), CONFIG_NAME_MAX);
	for (unsigned k = 0; k < i; k++)
		if (c->providers[k].name && strcmp(c->providers[k].name, name) == 0)
			config_fail(r, path, "\"%s\" is already providers[%u]; names are unique",
				config_quote(name, quoted), k);
	c->providers[i].name = strdup(name);
	if (!c->providers[i].name)
		r->failed = error_origin(-ENOMEM);
}

static void config_check_family(struct config_provider *p, unsigned i,
	const struct config_raw_provider *raw, struct config_report *r)
{
	struct buffer names aux_cleanup(buffer_deinit) = BUFFER_NULL;
	char path[CONFIG_PATH_MAX], quoted[CONFIG_TEXT_MAX + 8];
	const char *family = raw->family ? raw->family : raw->name;

	if (!family)
		return;
	p->family = family_find(str_of(family));
	if (p->family)
		return;
	config_list_families(&names);
	snprintf(path, sizeof(path), "providers[%u].family", i);
	if (family_is_left_out(str_of(family)))
		config_fail(r, path,
			"the format of \"%s\" is not compiled into this llmkitd (meson option "
			"\"formats\"); allowed: %.*s",
			family, STR_ARG(buffer_str(&names)));
	else if (raw->family)
		config_fail(r, path, "\"%s\" is not a family; allowed: %.*s",
			config_quote(family, quoted), STR_ARG(buffer_str(&names)));
	else
		config_fail(r, path,
			"is required, because \"%s\" is not itself a family; allowed: %.*s",
			config_quote(family, quoted), STR_ARG(buffer_str(&names)));
}

/* Where a key travels in clear it is not a key for long. Servers of one's own network may be
 * used without encryption as long as no key is sent. */
static bool config_needs_https(const struct config_provider *p)
{
	bool keyless = p->family && p->family->auth == FAMILY_AUTH_OPTIONAL && !p->key.env &&
		!p->key.file && !p->key.credential;

	return !keyless;
}

/* The value is not repeated: it may hold a password. */
static void config_check_url(
	struct config_provider *p, const char *path, const char *url, struct config_report *r)
{
	bool plain, local;
	const char *fault = config_url_fault(url, &plain, &local);
	size_t length = strlen(url);

	if (fault) {
		config_fail(r, path, "is not a usable URL: %s; write https://HOST[:PORT][/PATH]",
			fault);
		return;
	}
	if (plain && !local && config_needs_https(p)) {
		config_fail(r, path,
			"\"%.60s\" would send the key in clear; allowed: https://, or http:// to "
			"localhost, 127.0.0.0/8 or [::1]",
			url);
		return;
	}
	while (length > 0 && url[length - 1] == '/')
		length--;
	p->base_url = strndup(url, length);
	if (!p->base_url)
		r->failed = error_origin(-ENOMEM);
}

static void config_check_base_url(
	struct config_provider *p, unsigned i, const char *url, struct config_report *r)
{
	char path[CONFIG_PATH_MAX];

	if (!url && p->family)
		url = p->family->base_url;
	snprintf(path, sizeof(path), "providers[%u].base_url", i);
	if (url)
		config_check_url(p, path, url, r);
}

static void config_check_proxy(
	struct config_provider *p, unsigned i, const char *url, struct config_report *r)
{
	char path[CONFIG_PATH_MAX];
	const char *fault;
	bool plain, local;

	if (!url)
		return;
	snprintf(path, sizeof(path), "providers[%u].proxy", i);
	fault = config_url_fault(url, &plain, &local);
	if (fault)
		config_fail(r, path, "is not a usable URL: %s; write http://HOST:PORT", fault);
	p->proxy = strdup(url);
	if (!p->proxy)
		r->failed = error_origin(-ENOMEM);
}

static bool config_is_variable(const char *name)
{
	size_t length =
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_0123456789");

	return length > 0 && length <= 255 && name[length] == '\0' &&
		!(*name >= '0' && *name <= '9');
}

static bool config_is_credential(const char *name)
{
	return config_is_word(name, 255) && !strchr(name, '/') && strcmp(name, ".") != 0 &&
		strcmp(name, "..") != 0;
}

/* A key that is missing may come yet; one that the daemon would refuse is an error now. */
static void config_probe_key(
	const struct config_provider *p, const char *path, struct config_report *r)
{
	const char *env = p->key.env ? p->key.env : p->family ? p->family->key_env : NULL;
	struct keys_fault fault;
	char file[PATHS_MAX];
	int bad = 0;

	if (p->key.file)
		bad = keys_source_probe_file(p->key.file, false, &fault);
	else if (p->key.credential &&
		keys_source_credential(p->key.credential, file, sizeof(file)) == 0)
		bad = keys_source_probe_file(file, true, &fault);
	else if (!p->key.credential && env)
		bad = keys_source_probe_env(env, &fault);
	if (bad < 0)
		config_fail(r, path, "%s", fault.text);
}

/* Values are not repeated here: a key in the wrong place is still a key. */
static void config_check_key(struct config_provider *p, unsigned i,
	const struct config_raw_key *raw, struct config_report *r)
{
	char path[CONFIG_PATH_MAX], prefix[CONFIG_PATH_MAX];
	struct config_field f = { r, prefix };
	unsigned before = r->count;

	snprintf(path, sizeof(path), "providers[%u].key", i);
	snprintf(prefix, sizeof(prefix), "providers[%u].key.", i);
	if (!raw) {
		config_probe_key(p, path, r);
		return;
	}
	if (!!raw->env + !!raw->file + !!raw->credential != 1) {
		config_fail(r, path, "give exactly one of env, file and credential");
		return;
	}
	config_check_text(f, "env", raw->env, &p->key.env);
	config_check_text(f, "file", raw->file, &p->key.file);
	config_check_text(f, "credential", raw->credential, &p->key.credential);
	if (p->key.env && !config_is_variable(p->key.env))
		config_fail(r, path,
			"env is not the name of a variable; keys are never written in "
			"the configuration, only the name of the variable that holds one");
	if (p->key.file && *p->key.file != '/')
		config_fail(r, path,
			"file is not an absolute path; keys are never written in the "
			"configuration, only the path of the file that holds one");
	if (p->key.credential && !config_is_credential(p->key.credential))
		config_fail(r, path,
			"credential is not the name of a file in "
			"$CREDENTIALS_DIRECTORY; it has no '/' and no spaces");
	if (r->count == before)
		config_probe_key(p, path, r);
}

static void config_check_tokens(struct config_field f, const char *text, bool *reserve)
{
	char quoted[CONFIG_TEXT_MAX + 8];

	if (!text)
		return;
	*reserve = strcmp(text, "reserve") == 0;
	if (!*reserve && strcmp(text, "actual") != 0)
		config_fail_field(f, "tokens", "\"%s\" is not allowed; write actual or reserve",
			config_quote(text, quoted));
}

static void config_check_provider(struct config *c, unsigned i,
	const struct config_raw_provider *raw, struct config_report *r)
{
	struct config_provider *p = &c->providers[i];
	char prefix[CONFIG_PATH_MAX], inner[CONFIG_PATH_MAX];
	struct config_field f = { r, prefix }, g = { r, inner };

	config_provider_init(p);
	config_check_provider_name(c, i, raw->name, r);
	config_check_family(p, i, raw, r);
	config_check_key(p, i, raw->key, r);
	config_check_base_url(p, i, raw->base_url, r);
	config_check_proxy(p, i, raw->proxy, r);
	snprintf(prefix, sizeof(prefix), "providers[%u].", i);
	config_check_text(f, "ca_file", raw->ca_file, &p->ca_file);
	config_check_count(f, "connections", raw->connections, 1, 65536, &p->connections);
	config_check_tokens(f, raw->tokens, &p->reserve);
	config_check_breaker(f, &p->breaker);
	snprintf(inner, sizeof(inner), "providers[%u].timeouts.", i);
	if (raw->timeouts) {
		config_check_duration(g, "connect", raw->timeouts->connect, CONFIG_TIMEOUT_MIN,
			CONFIG_TIMEOUT_MAX, &p->connect_timeout_ns);
		config_check_duration(g, "first_byte", raw->timeouts->first_byte,
			CONFIG_TIMEOUT_MIN, CONFIG_TIMEOUT_MAX, &p->first_byte_timeout_ns);
		config_check_duration(g, "stall", raw->timeouts->stall, CONFIG_TIMEOUT_MIN,
			CONFIG_TIMEOUT_MAX, &p->stall_timeout_ns);
	}
	snprintf(inner, sizeof(inner), "providers[%u].keep_alive.", i);
	if (raw->keep_alive) {
		config_check_duration(
			g, "idle", raw->keep_alive->idle, 0, CONFIG_TIMEOUT_MAX, &p->idle_ns);
		config_check_duration(g, "max_age", raw->keep_alive->max_age, CONFIG_TIMEOUT_MIN,
			CONFIG_TIMEOUT_MAX, &p->max_age_ns);
	}
}

/* OPENAI_BASE_URL beside OPENAI_API_KEY, as the SDKs have it: the variable that the key's
 * conventional name begins. */
static const char *config_env_base_url(const struct family *family)
{
	static const char suffix[] = "_API_KEY";
	size_t length = strlen(family->key_env);
	const char *value;
	char name[128];

	if (length > strlen(suffix) &&
		strcmp(family->key_env + length - strlen(suffix), suffix) == 0)
		length -= strlen(suffix);
	snprintf(name, sizeof(name), "%.*s_BASE_URL", (int)length, family->key_env);
	value = getenv(name);
	return value && *value ? value : family->base_url;
}

/* One provider for each conventional variable that holds a key. */
static int config_check_environment(struct config *c, struct config_report *r)
{
	size_t count;
	const struct family *table = family_table(&count);

	c->providers = calloc(count ? count : 1, sizeof(*c->providers));
	if (!c->providers)
		return error_origin(-ENOMEM);
	for (size_t i = 0; i < count; i++) {
		struct config_provider *p = &c->providers[c->provider_count];
		char path[CONFIG_PATH_MAX];

		if (!table[i].key_env || !keys_source_env_present(table[i].key_env))
			continue;
		c->provider_count++;
		config_provider_init(p);
		p->family = &table[i];
		p->name = strdup(table[i].name);
		if (!p->name)
			return error_origin(-ENOMEM);
		snprintf(path, sizeof(path), "base URL of %s", p->name);
		config_check_url(p, path, config_env_base_url(p->family), r);
		snprintf(path, sizeof(path), "key of %s", p->name);
		config_probe_key(p, path, r);
	}
	return r->failed;
}

int config_check_providers(struct config *c, const struct config_raw *raw, struct config_report *r)
{
	unsigned count;

	if (!raw || !raw->providers_given)
		return config_check_environment(c, r);
	count = config_check_entries(r, "providers", raw->provider_count, CONFIG_PROVIDERS_MAX);
	c->providers = calloc(count + 1, sizeof(*c->providers));
	if (!c->providers)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < count; i++) {
		c->provider_count++;
		config_check_provider(c, i, &raw->providers[i], r);
	}
	return r->failed;
}

static void config_check_tables(
	struct config *c, const struct config_raw_tables *raw, struct config_report *r)
{
	struct config_field f = { r, "tables." };

	config_check_count(f, "limits", raw->limits, 1, REGION_ROWS_MAX, &c->tables.limits);
	config_check_count(f, "requests_in_flight", raw->requests_in_flight, 1, REGION_HOLDS_MAX,
		&c->tables.holds);
	config_check_count(f, "targets", raw->targets, 1, REGION_ROWS_MAX, &c->tables.targets);
}

/* Every provider and model has a row of its own, and so has every further target of a route. */
static int config_check_room(
	struct config *c, const struct config_raw *raw, struct config_report *r)
{
	unsigned needed = c->provider_count + c->model_count;

	(void)raw;
	for (unsigned i = 0; i < c->route_count; i++)
		needed += c->routes[i].target_count;
	if (c->tables.targets == 0 && needed > CONFIG_TARGETS)
		c->tables.targets = needed * 2;
	else if (c->tables.targets && needed > c->tables.targets)
		config_fail(r, "tables.targets",
			"%u is not enough: providers, models and the targets of routes are %u",
			c->tables.targets, needed);
	return 0;
}

static void config_check_top(
	struct config *c, const struct config_raw *raw, struct config_report *r)
{
	struct config_field f = { r, "" }, features = { r, "features." };

	config_check_text(f, "socket", raw->socket, &c->socket);
	if (c->socket && strlen(c->socket) > CONFIG_SOCKET_MAX)
		config_fail(r, "socket", "has %zu bytes; a socket's path has at most %zu",
			strlen(c->socket), CONFIG_SOCKET_MAX);
	config_check_text(f, "runtime", raw->runtime, &c->runtime);
	config_check_duration(f, "drain_timeout", raw->drain_timeout, 0, CONFIG_TIMEOUT_MAX,
		&c->drain_timeout_ns);
	config_check_duration(f, "request_timeout", raw->request_timeout, CONFIG_TIMEOUT_MIN,
		CONFIG_TIMEOUT_MAX, &c->request_timeout_ns);
	config_check_count(f, "connections_per_user", raw->connections_per_user, 1, 65536,
		&c->connections_per_uid);
	config_check_count(f, "requests_per_connection", raw->requests_per_connection, 1, 65536,
		&c->requests_per_connection);
	if (raw->features) {
		config_check_bool(
			features, "limiter", raw->features->limiter, &c->features.limiter);
		config_check_bool(features, "router", raw->features->router, &c->features.router);
		config_check_bool(
			features, "breaker", raw->features->breaker, &c->features.breaker);
	}
	if (raw->tables)
		config_check_tables(c, raw->tables, r);
	if (raw->log && raw->log->level && !log_level_parse(raw->log->level, &c->log_level)) {
		char quoted[CONFIG_TEXT_MAX + 8];

		config_fail(r, "log.level",
			"\"%s\" is not a level; allowed: error, warning, notice, info, debug",
			config_quote(raw->log->level, quoted));
	}
}

int config_check(struct config *c, const struct config_raw *raw, struct config_report *r)
{
	static int (*const steps[])(
		struct config *, const struct config_raw *, struct config_report *) = {
		config_check_access,
		config_check_providers,
		config_check_models,
		config_check_routes,
		config_check_limits,
		config_check_room,
	};
	int failed = 0;

	c->features.limiter = c->features.router = c->features.breaker = true;
	c->log_level = LOG_LEVEL_INFO;
	c->drain_timeout_ns = 30 * NSEC_PER_SEC;
	c->request_timeout_ns = 600 * NSEC_PER_SEC;
	c->connections_per_uid = 512;
	c->requests_per_connection = 256;
	if (raw)
		config_check_top(c, raw, r);
	for (size_t i = 0; i < ARRAY_SIZE(steps) && failed == 0; i++)
		failed = steps[i](c, raw, r);
	return failed ? error_trace(failed) : r->failed;
}
