#include "daemon/config/config.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include "base/error.h"
#include "base/paths.h"
#include "daemon/config/config_units.h"
#include "daemon/config/keys_source.h"

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

static void print_routes(struct config_printer *p, const struct config *c)
{
	print(p, "routes:%s\n", c->route_count ? "" : " []");
	for (unsigned i = 0; i < c->route_count; i++) {
		const struct config_route *route = &c->routes[i];

		print_text(p, "  - name", route->name);
		print(p, "    targets: [");
		for (unsigned k = 0; k < route->target_count; k++) {
			print(p, "%s", k ? ", " : "");
			print_target(p, c, &route->targets[k]);
		}
		print(p, "]\n");
	}
}

static void print_limits(struct config_printer *p, const struct config *c)
{
	char rate[CONFIG_TEXT_MAX];

	print(p, "limits:%s\n", c->limit_count ? "" : " []");
	for (unsigned i = 0; i < c->limit_count; i++) {
		const struct config_limit *l = &c->limits[i];
		const char *scope = l->scope == BUCKET_SCOPE_PROVIDER ? "provider" :
			l->scope == BUCKET_SCOPE_MODEL                ? "model" :
									"user";

		config_format_rate(l->limit, l->window_ns, rate);
		print(p, "  - {%s: ", scope);
		print_quoted(p, l->name);
		print(p, ", requests: %s, burst: %" PRIu64 "}\n", rate, l->burst);
	}
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
	print(&p, "features: {limiter: %s, router: %s}\n", c->features.limiter ? "true" : "false",
		c->features.router ? "true" : "false");
	print(&p, "log: {level: %s}\n", log_level_name(c->log_level));
	print(&p, "drain_timeout: %s\n", print_duration(c->drain_timeout_ns, text));
	print(&p, "request_timeout: %s\n", print_duration(c->request_timeout_ns, text));
	print(&p, "connections_per_user: %u\n", c->connections_per_uid);
	print(&p, "requests_per_connection: %u\n", c->requests_per_connection);
	return error_trace(p.failed);
}
