#include "daemon/config/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include "base/error.h"
#include "base/paths.h"
#include "daemon/config/config_check.h"
#include "daemon/config/config_units.h"
#include "daemon/config/keys_source.h"
#include "shm/target.h"

/* Lines into one buffer; the first failure stays. */
struct config_printer {
	struct buffer *out;
	int failed;
};

static void print(struct config_printer *p, const char *format, ...) aux_printf(2, 3);

static void print(struct config_printer *p, const char *format, ...)
{
	char line[PATHS_MAX + 512];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(line, sizeof(line), format, args);
	va_end(args);
	if (p->failed == 0)
		p->failed = n < 0 || (size_t)n >= sizeof(line) ?
			error_origin(-ENAMETOOLONG) :
			buffer_append(p->out, line, (size_t)n);
}

/* Text in double quotes, whatever it holds. */
static void print_quoted(struct config_printer *p, const char *text)
{
	print(p, "\"");
	for (; *text; text++) {
		unsigned char c = (unsigned char)*text;

		if (c == '"' || c == '\\')
			print(p, "\\%c", c);
		else if (c < 0x20 || c == 0x7f)
			print(p, "\\x%02x", c);
		else
			print(p, "%c", c);
	}
	print(p, "\"");
}

/* "key: value", when there is a value. */
static void print_text(struct config_printer *p, const char *key, const char *text)
{
	if (!text)
		return;
	print(p, "%s: ", key);
	print_quoted(p, text);
	print(p, "\n");
}

static const char *print_duration(uint64_t ns, char out[CONFIG_TEXT_MAX])
{
	config_format_duration(ns, out);
	return out;
}

static void print_ids(struct config_printer *p, const char *key, const uint32_t *ids, size_t count)
{
	print(p, "    %s: [", key);
	for (size_t i = 0; i < count; i++)
		print(p, "%s%" PRIu32, i ? ", " : "", ids[i]);
	print(p, "]\n");
}

static void print_access(struct config_printer *p, const struct listener_access *a)
{
	print(p, "access:\n  participants:\n");
	print_ids(p, "users", a->participant_uids, a->participant_uid_count);
	print_ids(p, "groups", a->participant_gids, a->participant_gid_count);
	print(p, "  observers:\n");
	print_ids(p, "users", a->observer_uids, a->observer_uid_count);
	print_ids(p, "groups", a->observer_gids, a->observer_gid_count);
	print(p, "    everyone: %s\n", a->everyone_observes ? "true" : "false");
}

static bool print_credential_found(const char *name)
{
	char path[PATHS_MAX];

	return keys_source_credential(name, path, sizeof(path)) == 0 && access(path, R_OK) == 0;
}

/* Where the key comes from, and whether it is there: never what it is. */
static void print_key(struct config_printer *p, const struct config_provider *provider)
{
	const struct config_key *key = &provider->key;
	const char *conventional = provider->family->key_env;
	const char *kind = key->env ? "env" : key->file ? "file" : "credential";
	const char *name = key->env ? key->env : key->file ? key->file : key->credential;
	bool found;

	if (!name && !conventional) {
		print(p, "    # no key\n");
		return;
	}
	if (!name) {
		print(p, "    # key: {env: %s}, %s\n", conventional,
			keys_source_env_present(conventional) ? "found" : "not found");
		return;
	}
	found = key->env  ? keys_source_env_present(name) :
		key->file ? access(name, R_OK) == 0 :
			    print_credential_found(name);
	print(p, "    key: {%s: ", kind);
	print_quoted(p, name);
	print(p, "} # %s\n", found ? "found" : "not found");
}

/* By its preset's name, or whole. */
static void print_breaker(struct config_printer *p, const struct breaker_settings *s)
{
	char a[CONFIG_TEXT_MAX], b[CONFIG_TEXT_MAX], c[CONFIG_TEXT_MAX], d[CONFIG_TEXT_MAX];

	for (unsigned i = 0; i < BREAKER_PRESETS; i++) {
		struct breaker_settings preset = breaker_preset(i);

		if (config_breaker_equal(s, &preset)) {
			print(p, "    breaker: %s\n", breaker_preset_name(i));
			return;
		}
	}
	print(p, "    breaker: {failures: %u, error_ratio: %u%%, calls: %u, window: %s, ", s->run,
		s->ratio_percent, s->calls, print_duration(s->window_s * NSEC_PER_SEC, a));
	print(p, "probes: %u, successes: %u, lease: %s, backoff: %s, backoff_max: %s, ", s->probes,
		s->need, print_duration(s->lease_ms * NSEC_PER_MSEC, b),
		print_duration(s->base_ms * NSEC_PER_MSEC, c),
		print_duration(s->cap_ms * NSEC_PER_MSEC, d));
	print(p, "deviation: %u.%02u}\n", s->z_percent / 100, s->z_percent % 100);
}

static void print_provider(struct config_printer *p, const struct config_provider *provider)
{
	char a[CONFIG_TEXT_MAX], b[CONFIG_TEXT_MAX], c[CONFIG_TEXT_MAX];

	print_text(p, "  - name", provider->name);
	print_text(p, "    family", provider->family->name);
	print_text(p, "    base_url", provider->base_url);
	print_key(p, provider);
	print_text(p, "    ca_file", provider->ca_file);
	print_text(p, "    proxy", provider->proxy);
	print(p, "    timeouts: {connect: %s, first_byte: %s, stall: %s}\n",
		print_duration(provider->connect_timeout_ns, a),
		print_duration(provider->first_byte_timeout_ns, b),
		print_duration(provider->stall_timeout_ns, c));
	print(p, "    connections: %u\n", provider->connections);
	print(p, "    keep_alive: {idle: %s, max_age: %s}\n", print_duration(provider->idle_ns, a),
		print_duration(provider->max_age_ns, b));
	print(p, "    tokens: %s\n", provider->reserve ? "reserve" : "actual");
	print_breaker(p, &provider->breaker);
}

static void print_price(struct config_printer *p, const struct config_price *price)
{
	const struct {
		const char *key;
		int64_t value;
	} parts[] = {
		{ "input", price->input },
		{ "output", price->output },
		{ "cached_input", price->cached_input },
	};
	const char *before = "    price: {";
	char text[CONFIG_TEXT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(parts); i++) {
		if (parts[i].value < 0)
			continue;
		config_format_price(parts[i].value, text);
		print(p, "%s%s: %s", before, parts[i].key, text);
		before = ", ";
	}
	if (before[0] == ',')
		print(p, "}\n");
}

static void print_capabilities(struct config_printer *p, uint64_t capabilities)
{
	const char *before = "";

	print(p, "    capabilities: [");
	for (unsigned i = 0; i < TARGET_CAPABILITY_BITS; i++) {
		if (!(capabilities >> i & 1))
			continue;
		print(p, "%s%s", before, target_capability_name(i));
		before = ", ";
	}
	print(p, "]\n");
}

static void print_models(struct config_printer *p, const struct config *c)
{
	print(p, "models:%s\n", c->model_count ? "" : " []");
	for (unsigned i = 0; i < c->model_count; i++) {
		const struct config_model *m = &c->models[i];

		print_text(p, "  - name", m->name);
		print_text(p, "    provider", c->providers[m->provider].name);
		print_text(p, "    upstream", m->upstream);
		print_price(p, &m->price);
		if (m->max_tokens)
			print(p, "    max_tokens: %" PRIu32 "\n", m->max_tokens);
		if (m->context)
			print(p, "    context: %" PRIu64 "\n", m->context);
		print_capabilities(p, m->capabilities);
		/* The provider's is the default. */
		if (!config_breaker_equal(&m->breaker, &c->providers[m->provider].breaker))
			print_breaker(p, &m->breaker);
	}
}

/* A configured model by its name, another as PROVIDER/MODEL: what config_load() resolves to the
 * same target. */
static void print_target(
	struct config_printer *p, const struct config *c, const struct config_target *t)
{
	char text[512];

	for (unsigned i = 0; i < c->model_count; i++) {
		if (c->models[i].provider == t->provider &&
			strcmp(c->models[i].name, t->model) == 0) {
			print_quoted(p, t->model);
			return;
		}
	}
	snprintf(text, sizeof(text), "%s/%s", c->providers[t->provider].name, t->upstream);
	print_quoted(p, text);
}

static void print_targets(
	struct config_printer *p, const struct config *c, const struct config_route *route)
{
	print(p, "    targets: [");
	for (unsigned k = 0; k < route->target_count; k++) {
		const struct config_target *t = &route->targets[k];

		print(p, "%s%s", k ? ", " : "", t->weight == 1 ? "" : "{target: ");
		print_target(p, c, t);
		if (t->weight != 1)
			print(p, ", weight: %" PRIu32 "}", t->weight);
	}
	print(p, "]\n");
}

static void print_weights(struct config_printer *p, const struct config_route *route)
{
	const unsigned parts[] = { route->weight_cost, route->weight_latency,
		route->weight_reliability };
	static const char *const keys[] = { "{cost", ", latency", ", reliability" };

	print(p, "    weights: ");
	for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
		print(p, "%s: %u.%03u", keys[i], parts[i] / 1000, parts[i] % 1000);
	print(p, "}\n");
}

static void print_routes(struct config_printer *p, const struct config *c)
{
	char text[CONFIG_TEXT_MAX];

	print(p, "routes:%s\n", c->route_count ? "" : " []");
	for (unsigned i = 0; i < c->route_count; i++) {
		const struct config_route *route = &c->routes[i];

		print_text(p, "  - name", route->name);
		print(p, "    strategy: %s\n", router_strategy_name(route->strategy));
		if (route->strategy == ROUTER_BALANCED)
			print_weights(p, route);
		if (route->price_cap_nanousd >= 0) {
			config_format_money((uint64_t)route->price_cap_nanousd, text);
			print(p, "    price_cap: %s\n", text);
		}
		print(p, "    patience: %s\n", print_duration(route->patience_ns, text));
		print_targets(p, c, route);
	}
}

/* "requests: 100/s" */
static void print_amount(struct config_printer *p, const struct config_limit *l)
{
	char text[CONFIG_TEXT_MAX];

	print(p, "%s: ", bucket_resource_name(l->resource));
	if (l->resource == BUCKET_CONCURRENCY) {
		print(p, "%" PRIu64, l->limit);
		return;
	}
	if (l->resource == BUCKET_MONEY) {
		config_format_money(l->limit, text);
		print(p, "%s/%s", text, l->window_ns == BUCKET_WINDOW_MONTH ? "month" : "day");
		return;
	}
	config_format_rate(l->limit, l->window_ns, text);
	print(p, "%s%s", text, l->automatic ? " auto" : "");
}

static bool print_has_burst(const struct config_limit *l)
{
	return l->resource != BUCKET_CONCURRENCY && l->resource != BUCKET_MONEY;
}

/* The one or two names that bucket_join() put together. */
static void print_scope(struct config_printer *p, const struct config_limit *l)
{
	static const char *const keys[] = { "user", "model", "provider", "key" };
	static const uint64_t scopes[] = { BUCKET_SCOPE_USER, BUCKET_SCOPE_MODEL,
		BUCKET_SCOPE_PROVIDER, BUCKET_SCOPE_KEY };
	char name[BUCKET_NAME_TEXT], *part = name;

	snprintf(name, sizeof(name), "%s", l->name);
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		char *end = strchrnul(part, CONFIG_NAME_JOIN);
		bool last = *end == '\0';

		if (!(l->scope & scopes[i]))
			continue;
		*end = '\0';
		print(p, "%s: ", keys[i]);
		print_quoted(p, part);
		print(p, ", ");
		part = last ? end : end + 1;
	}
}

static void print_limits(struct config_printer *p, const struct config *c)
{
	print(p, "limits:%s\n", c->limit_count ? "" : " []");
	for (unsigned i = 0; i < c->limit_count; i++) {
		const struct config_limit *l = &c->limits[i];

		print(p, "  - {");
		print_scope(p, l);
		print_amount(p, l);
		if (print_has_burst(l))
			print(p, ", burst: %" PRIu64, l->burst);
		print(p, "}\n");
	}
}

static void print_template(
	struct config_printer *p, const struct config *c, const struct config_template_key *key)
{
	unsigned amounts = 0, bursts = 0;

	for (unsigned i = 0; i < c->template_count; i++) {
		if (c->templates[i].scope != key->scope)
			continue;
		if (amounts++ == 0)
			print(p, "  %s: {", key->key);
		else
			print(p, ", ");
		print_amount(p, &c->templates[i]);
	}
	for (unsigned i = 0; i < c->template_count; i++) {
		const struct config_limit *l = &c->templates[i];

		if (l->scope == key->scope && print_has_burst(l))
			print(p, "%s%s: %" PRIu64, bursts++ ? ", " : ", burst: {",
				bucket_resource_name(l->resource), l->burst);
	}
	if (amounts)
		print(p, "%s}\n", bursts ? "}" : "");
}

static void print_tables(struct config_printer *p, const struct region_sizes *tables)
{
	print(p, "tables:\n");
	if (tables->limits)
		print(p, "  limits: %" PRIu32 "\n", tables->limits);
	if (tables->holds)
		print(p, "  requests_in_flight: %" PRIu32 "\n", tables->holds);
	if (tables->targets)
		print(p, "  targets: %" PRIu32 "\n", tables->targets);
}

static const char *print_switch(bool on)
{
	return on ? "true" : "false";
}

int config_print(const struct config *c, struct buffer *out)
{
	struct config_printer p = { .out = out };
	char text[CONFIG_TEXT_MAX];

	print(&p, "# effective configuration of %s\n", c->path ? c->path : "the environment alone");
	print_text(&p, "socket", c->socket);
	print_text(&p, "runtime", c->runtime);
	print_access(&p, &c->access);
	print(&p, "providers:%s\n", c->provider_count ? "" : " []");
	for (unsigned i = 0; i < c->provider_count; i++)
		print_provider(&p, &c->providers[i]);
	print_models(&p, c);
	print_routes(&p, c);
	print_limits(&p, c);
	print(&p, "templates:\n");
	for (unsigned i = 0; i < CONFIG_TEMPLATE_KEYS; i++)
		print_template(&p, c, &config_template_keys[i]);
	print_tables(&p, &c->tables);
	print(&p, "features: {limiter: %s, router: %s, breaker: %s}\n",
		print_switch(c->features.limiter), print_switch(c->features.router),
		print_switch(c->features.breaker));
	print(&p, "log: {level: %s}\n", log_level_name(c->log_level));
	print(&p, "drain_timeout: %s\n", print_duration(c->drain_timeout_ns, text));
	print(&p, "request_timeout: %s\n", print_duration(c->request_timeout_ns, text));
	print(&p, "connections_per_user: %u\n", c->connections_per_uid);
	print(&p, "requests_per_connection: %u\n", c->requests_per_connection);
	return error_trace(p.failed);
}
