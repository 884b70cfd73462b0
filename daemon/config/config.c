#include "daemon/config/config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <cyaml/cyaml.h>
#include "base/error.h"
#include "base/paths.h"
#include "daemon/config/config_check.h"
#include "daemon/config/config_units.h"

#define CONFIG_FILE_MAX (1024 * 1024)

/* cyaml frees what config_free_raw() is given; everything is text or a list of it. */
#define TEXT(key_, struct_, member_) \
	CYAML_FIELD_STRING_PTR(key_, CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct_, member_, \
		0, CYAML_UNLIMITED)
#define GROUP(key_, struct_, member_, fields_) \
	CYAML_FIELD_MAPPING_PTR( \
		key_, CYAML_FLAG_POINTER_NULL | CYAML_FLAG_OPTIONAL, struct_, member_, fields_)
#define LIST(key_, struct_, member_, count_, entry_) \
	{ \
		.key = key_, \
		.value = { \
			.type = CYAML_SEQUENCE, \
			.flags = CYAML_FLAG_POINTER_NULL | CYAML_FLAG_OPTIONAL, \
			.data_size = sizeof(*((struct_ *)NULL)->member_), \
			.sequence = { .entry = &(entry_), .min = 0, .max = CYAML_UNLIMITED }, \
		}, \
		.data_offset = offsetof(struct_, member_), \
		.count_offset = offsetof(struct_, count_), \
		.count_size = sizeof(((struct_ *)NULL)->count_), \
	}
#define ENTRY(struct_, fields_) \
	{ \
		CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct_, fields_) \
	}

/* What may have one of two shapes cyaml cannot say, so it skips these: config_walk_value() checks
 * them and config_given() reads them. shape_: of the value, unless words_ are allowed and it is
 * one. */
#define SKIPPED(words_, shape_) \
	{ \
		.type = CYAML_IGNORE, .flags = CYAML_FLAG_OPTIONAL, \
		.sequence = { .entry = &(shape_), .min = (words_) }, \
	}
#define GIVEN(key_, shape_) \
	{ \
		.key = key_, .value = SKIPPED(false, shape_), \
	}
#define WORD_OR(key_, shape_) \
	{ \
		.key = key_, .value = SKIPPED(true, shape_), \
	}
#define SHAPE(fields_) \
	{ \
		.type = CYAML_MAPPING, .flags = CYAML_FLAG_POINTER_NULL, \
		.mapping = { .fields = fields_ }, \
	}

static const cyaml_schema_value_t text_entry = {
	CYAML_VALUE_STRING(CYAML_FLAG_POINTER, char *, 0, CYAML_UNLIMITED),
};

static const cyaml_schema_field_t participants_fields[] = {
	LIST("users", struct config_raw_group, users.items, users.count, text_entry),
	LIST("groups", struct config_raw_group, groups.items, groups.count, text_entry),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t observers_fields[] = {
	LIST("users", struct config_raw_group, users.items, users.count, text_entry),
	LIST("groups", struct config_raw_group, groups.items, groups.count, text_entry),
	TEXT("everyone", struct config_raw_group, everyone),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t access_fields[] = {
	GROUP("participants", struct config_raw_access, participants, participants_fields),
	GROUP("observers", struct config_raw_access, observers, observers_fields),
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t key_fields[] = {
	TEXT("env", struct config_raw_key, env),
	TEXT("file", struct config_raw_key, file),
	TEXT("credential", struct config_raw_key, credential),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t timeouts_fields[] = {
	TEXT("connect", struct config_raw_timeouts, connect),
	TEXT("first_byte", struct config_raw_timeouts, first_byte),
	TEXT("stall", struct config_raw_timeouts, stall),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t keep_alive_fields[] = {
	TEXT("idle", struct config_raw_keep_alive, idle),
	TEXT("max_age", struct config_raw_keep_alive, max_age),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t breaker_fields[] = {
	GIVEN("preset", text_entry),
	GIVEN("failures", text_entry),
	GIVEN("error_ratio", text_entry),
	GIVEN("calls", text_entry),
	GIVEN("window", text_entry),
	GIVEN("probes", text_entry),
	GIVEN("successes", text_entry),
	GIVEN("lease", text_entry),
	GIVEN("backoff", text_entry),
	GIVEN("backoff_max", text_entry),
	GIVEN("deviation", text_entry),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t breaker_shape = SHAPE(breaker_fields);
static const cyaml_schema_field_t provider_fields[] = {
	TEXT("name", struct config_raw_provider, name),
	TEXT("family", struct config_raw_provider, family),
	TEXT("base_url", struct config_raw_provider, base_url),
	/* Not GROUP: an empty "key:" is a mistake and not a section without lines. */
	CYAML_FIELD_MAPPING_PTR("key", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
		struct config_raw_provider, key, key_fields),
	TEXT("ca_file", struct config_raw_provider, ca_file),
	TEXT("proxy", struct config_raw_provider, proxy),
	GROUP("timeouts", struct config_raw_provider, timeouts, timeouts_fields),
	TEXT("connections", struct config_raw_provider, connections),
	GROUP("keep_alive", struct config_raw_provider, keep_alive, keep_alive_fields),
	TEXT("tokens", struct config_raw_provider, tokens),
	WORD_OR("breaker", breaker_shape),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t provider_entry =
	ENTRY(struct config_raw_provider, provider_fields);

static const cyaml_schema_field_t price_fields[] = {
	TEXT("input", struct config_raw_price, input),
	TEXT("output", struct config_raw_price, output),
	TEXT("cached_input", struct config_raw_price, cached_input),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t model_fields[] = {
	TEXT("name", struct config_raw_model, name),
	TEXT("provider", struct config_raw_model, provider),
	TEXT("upstream", struct config_raw_model, upstream),
	GROUP("price", struct config_raw_model, price, price_fields),
	TEXT("max_tokens", struct config_raw_model, max_tokens),
	TEXT("context", struct config_raw_model, context),
	LIST("capabilities", struct config_raw_model, capabilities.items, capabilities.count,
		text_entry),
	WORD_OR("breaker", breaker_shape),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t model_entry = ENTRY(struct config_raw_model, model_fields);

static const cyaml_schema_field_t weights_fields[] = {
	TEXT("cost", struct config_raw_weights, cost),
	TEXT("latency", struct config_raw_weights, latency),
	TEXT("reliability", struct config_raw_weights, reliability),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t target_fields[] = {
	GIVEN("target", text_entry),
	GIVEN("weight", text_entry),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t target_shape = SHAPE(target_fields);
static const cyaml_schema_value_t target_entry = SKIPPED(true, target_shape);
static const cyaml_schema_value_t targets_shape = {
	.type = CYAML_SEQUENCE,
	.flags = CYAML_FLAG_POINTER_NULL,
	.sequence = { .entry = &target_entry },
};
static const cyaml_schema_field_t route_fields[] = {
	TEXT("name", struct config_raw_route, name),
	TEXT("strategy", struct config_raw_route, strategy),
	GROUP("weights", struct config_raw_route, weights, weights_fields),
	TEXT("price_cap", struct config_raw_route, price_cap),
	TEXT("patience", struct config_raw_route, patience),
	GIVEN("targets", targets_shape),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t route_entry = ENTRY(struct config_raw_route, route_fields);

static const cyaml_schema_field_t burst_fields[] = {
	GIVEN("requests", text_entry),
	GIVEN("input_tokens", text_entry),
	GIVEN("output_tokens", text_entry),
	GIVEN("tokens", text_entry),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t burst_shape = SHAPE(burst_fields);
/* What is limited, the same in limits and templates. */
#define AMOUNTS \
	GIVEN("preset", text_entry), GIVEN("requests", text_entry), \
		GIVEN("input_tokens", text_entry), GIVEN("output_tokens", text_entry), \
		GIVEN("tokens", text_entry), WORD_OR("burst", burst_shape), \
		GIVEN("concurrency", text_entry), GIVEN("money", text_entry)
static const cyaml_schema_field_t limit_fields[] = {
	TEXT("provider", struct config_raw_limit, provider),
	TEXT("model", struct config_raw_limit, model),
	TEXT("user", struct config_raw_limit, user),
	TEXT("key", struct config_raw_limit, key),
	AMOUNTS,
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t limit_entry = ENTRY(struct config_raw_limit, limit_fields);
static const cyaml_schema_field_t template_fields[] = { AMOUNTS, CYAML_FIELD_END };
static const cyaml_schema_value_t template_shape = SHAPE(template_fields);
static const cyaml_schema_field_t templates_fields[] = {
	WORD_OR("per_user", template_shape),
	WORD_OR("per_model", template_shape),
	WORD_OR("per_provider", template_shape),
	WORD_OR("per_key", template_shape),
	WORD_OR("per_user_model", template_shape),
	WORD_OR("per_user_provider", template_shape),
	WORD_OR("per_user_key", template_shape),
	WORD_OR("per_model_provider", template_shape),
	WORD_OR("per_model_key", template_shape),
	WORD_OR("per_provider_key", template_shape),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t templates_shape = SHAPE(templates_fields);

static const cyaml_schema_field_t tables_fields[] = {
	TEXT("limits", struct config_raw_tables, limits),
	TEXT("requests_in_flight", struct config_raw_tables, requests_in_flight),
	TEXT("targets", struct config_raw_tables, targets),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t features_fields[] = {
	TEXT("limiter", struct config_raw_features, limiter),
	TEXT("router", struct config_raw_features, router),
	TEXT("breaker", struct config_raw_features, breaker),
	CYAML_FIELD_END,
};
static const cyaml_schema_field_t log_fields[] = {
	TEXT("level", struct config_raw_log, level),
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t root_fields[] = {
	TEXT("socket", struct config_raw, socket),
	TEXT("runtime", struct config_raw, runtime),
	GROUP("access", struct config_raw, access, access_fields),
	LIST("providers", struct config_raw, providers, provider_count, provider_entry),
	LIST("models", struct config_raw, models, model_count, model_entry),
	LIST("routes", struct config_raw, routes, route_count, route_entry),
	LIST("limits", struct config_raw, limits, limit_count, limit_entry),
	GIVEN("templates", templates_shape),
	GROUP("tables", struct config_raw, tables, tables_fields),
	GROUP("features", struct config_raw, features, features_fields),
	GROUP("log", struct config_raw, log, log_fields),
	TEXT("drain_timeout", struct config_raw, drain_timeout),
	TEXT("request_timeout", struct config_raw, request_timeout),
	TEXT("connections_per_user", struct config_raw, connections_per_user),
	TEXT("requests_per_connection", struct config_raw, requests_per_connection),
	CYAML_FIELD_END,
};
static const cyaml_schema_value_t root_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_POINTER, struct config_raw, root_fields),
};

/* The last words of cyaml, for failures that config_walk() did not foresee. */
struct config_cyaml_log {
	char text[160];
};

static void config_cyaml_log(cyaml_log_t level, void *context, const char *format, va_list args)
	aux_printf(3, 0);

static void config_cyaml_log(cyaml_log_t level, void *context, const char *format, va_list args)
{
	struct config_cyaml_log *log = context;

	(void)level;
	/* The first line says what; those after it are a trace. */
	if (log->text[0] == '\0')
		vsnprintf(log->text, sizeof(log->text), format, args);
	log->text[strcspn(log->text, "\n")] = '\0';
}

static const cyaml_config_t config_cyaml = {
	.log_fn = config_cyaml_log,
	.log_level = CYAML_LOG_ERROR,
	.mem_fn = cyaml_mem,
	.flags = CYAML_CFG_NO_ALIAS,
};

struct config_walk {
	struct config_report *report;
	const struct config_where *where;
	char path[CONFIG_PATH_MAX];
};

static const char *config_kind_name(const cyaml_schema_value_t *schema)
{
	switch (schema->type) {
	case CYAML_IGNORE:
		return "one value or a group of \"key: value\"";
	case CYAML_MAPPING:
		return "a group of \"key: value\"";
	case CYAML_SEQUENCE:
		return "a list";
	default:
		return "one value";
	}
}

static bool config_kind_fits(
	const struct config_where *w, int node, const cyaml_schema_value_t *schema)
{
	enum config_kind kind = config_where_kind(w, node);

	/* A section whose lines are all commented out is an empty scalar. */
	if (kind == CONFIG_KIND_SCALAR && schema->type != CYAML_STRING)
		return (schema->flags & CYAML_FLAG_POINTER_NULL) == CYAML_FLAG_POINTER_NULL &&
			config_where_text(w, node).length == 0;
	return (kind == CONFIG_KIND_SCALAR && schema->type == CYAML_STRING) ||
		(kind == CONFIG_KIND_SEQUENCE && schema->type == CYAML_SEQUENCE) ||
		(kind == CONFIG_KIND_MAPPING && schema->type == CYAML_MAPPING);
}

static void config_walk_unknown(
	struct config_walk *walk, const cyaml_schema_field_t *fields, int key)
{
	struct buffer allowed aux_cleanup(buffer_deinit) = BUFFER_NULL;
	struct str name = config_where_text(walk->where, key);
	bool scalar = config_where_kind(walk->where, key) == CONFIG_KIND_SCALAR;
	int r = 0;

	for (const cyaml_schema_field_t *f = fields; f->key && r == 0; f++)
		r = buffer_printf(&allowed, "%s%s", f == fields ? "" : ", ", f->key);
	/* cyaml goes past a key it does not know, but not past one that is no word. */
	walk->report->misshapen |= !scalar;
	if (r < 0)
		walk->report->failed = r;
	else if (!scalar)
		config_fail_position(walk->report, config_where_position(walk->where, key),
			"a key must be one word; allowed: %.*s", STR_ARG(buffer_str(&allowed)));
	else
		config_fail_position(walk->report, config_where_position(walk->where, key),
			"%s%sunknown key \"%.*s\"; allowed: %.*s", walk->path,
			*walk->path ? ": " : "", name.length > 60 ? 60 : (int)name.length,
			name.data, STR_ARG(buffer_str(&allowed)));
}

/* Where a value of the wrong kind may be a key itself, it is not repeated. */
static void config_walk_misfit(
	struct config_walk *walk, const cyaml_schema_value_t *schema, int node)
{
	struct config_position at = config_where_position(walk->where, node);

	walk->report->misshapen = true;
	if (schema->type == CYAML_MAPPING && schema->mapping.fields == key_fields)
		config_fail_position(walk->report, at,
			"%s: keys are never written in the configuration; name where the key is: "
			"{env: VARIABLE}, {file: PATH} or {credential: NAME}",
			walk->path);
	else
		config_fail_position(walk->report, at, "%s%smust be %s", walk->path,
			*walk->path ? ": " : "", config_kind_name(schema));
}

static void config_walk_value(
	struct config_walk *walk, const cyaml_schema_value_t *schema, int node);

static void config_walk_fields(
	struct config_walk *walk, const cyaml_schema_field_t *fields, int node)
{
	size_t length = strlen(walk->path);
	uint64_t seen = 0;

	for (size_t i = 0; i < config_where_count(walk->where, node); i++) {
		int key = config_where_key(walk->where, node, i);
		struct str name = config_where_text(walk->where, key);
		const cyaml_schema_field_t *f = fields;

		while (f->key && !str_is(name, f->key))
			f++;
		if (!f->key) {
			config_walk_unknown(walk, fields, key);
			continue;
		}
		snprintf(walk->path + length, sizeof(walk->path) - length, "%s%s",
			length ? "." : "", f->key);
		walk->report->misshapen |= seen >> (f - fields) & 1;
		if (seen >> (f - fields) & 1)
			config_fail_position(walk->report, config_where_position(walk->where, key),
				"%s: given twice; remove one", walk->path);
		seen |= UINT64_C(1) << (f - fields);
		config_walk_value(walk, &f->value, config_where_value(walk->where, node, i));
		walk->path[length] = '\0';
	}
}

static void config_walk_items(struct config_walk *walk, const cyaml_schema_value_t *entry, int node)
{
	size_t length = strlen(walk->path);

	for (size_t i = 0; i < config_where_count(walk->where, node); i++) {
		snprintf(walk->path + length, sizeof(walk->path) - length, "[%zu]", i);
		config_walk_value(walk, entry, config_where_value(walk->where, node, i));
		walk->path[length] = '\0';
	}
}

/* The document against the schema, all of it: cyaml itself stops at the first misfit, and with a
 * position near it. As deep as the schema is. */
static void config_walk_value(
	struct config_walk *walk, const cyaml_schema_value_t *schema, int node)
{
	struct str text = config_where_text(walk->where, node);
	const cyaml_schema_value_t *given = schema;

	if (schema->type == CYAML_IGNORE) {
		bool words = schema->sequence.min;

		schema = words && config_where_kind(walk->where, node) == CONFIG_KIND_SCALAR ?
			&text_entry :
			schema->sequence.entry;
		given = words ? given : schema;
	}
	walk->report->misshapen |= config_has_control(text);
	if (!config_kind_fits(walk->where, node, schema))
		config_walk_misfit(walk, given, node);
	else if (config_has_control(text))
		config_fail_position(walk->report, config_where_position(walk->where, node),
			"%s: holds a control character; write it in one line of plain text",
			walk->path);
	else if (schema->type == CYAML_MAPPING)
		config_walk_fields(walk, schema->mapping.fields, node);
	else if (schema->type == CYAML_SEQUENCE)
		config_walk_items(walk, schema->sequence.entry, node);
}

static struct config_raw *config_free_raw(struct config_raw *raw)
{
	if (raw)
		cyaml_free(&config_cyaml, &root_schema, raw, 0);
	return NULL;
}

static void config_free_rawp(struct config_raw **raw)
{
	config_free_raw(*raw);
}

/* *out stays NULL for an empty file. Errors go to the report. 0 or -errno. */
static int config_parse(struct config_raw **out, struct str text, struct config_report *report)
{
	struct config_cyaml_log log = { 0 };
	struct config_walk walk = { .report = report, .where = report->where };
	cyaml_config_t cyaml = config_cyaml;
	cyaml_err_t e;

	if (!config_where_root(walk.where))
		return 0;
	/* A file of comments, or of nothing but "---". */
	if (config_where_kind(walk.where, 1) == CONFIG_KIND_SCALAR &&
		config_where_text(walk.where, 1).length == 0)
		return 0;
	config_walk_value(&walk, &root_schema, config_where_root(walk.where));
	if (report->misshapen || report->failed)
		return report->failed;
	cyaml.log_ctx = &log;
	/* Those are reported already; the values of the others are still to be looked at. */
	cyaml.flags |= CYAML_CFG_IGNORE_UNKNOWN_KEYS;
	e = cyaml_load_data((const uint8_t *)text.data, text.length, &cyaml, &root_schema,
		(cyaml_data_t **)out, NULL);
	if (e == CYAML_ERR_OOM)
		return error_origin(-ENOMEM);
	report->misshapen = e != CYAML_OK;
	if (e != CYAML_OK)
		config_fail_position(report, (struct config_position){ 1, 1 }, "%s (%s)", log.text,
			cyaml_strerror(e));
	else if (*out)
		(*out)->providers_given =
			config_where_kind(walk.where, config_where_find(walk.where, "providers")) ==
			CONFIG_KIND_SEQUENCE;
	return report->failed;
}

static int config_read_fd(int fd, struct buffer *text)
{
	ssize_t n;
	int r;

	do {
		r = buffer_reserve(text, 65536);
		if (r < 0)
			return error_trace(r);
		n = read(fd, buffer_tail(text), 65536);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			text->end += (size_t)n;
		if (buffer_length(text) > CONFIG_FILE_MAX)
			return -EFBIG;
	} while (n != 0);
	return 0;
}

/* Whole, or a line in the report. */
static int config_read(const char *path, struct buffer *text, struct config_report *report)
{
	int fd aux_cleanup(closep) = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;

	if (r == 0 && S_ISDIR(st.st_mode))
		r = -EISDIR;
	else if (r == 0 && !S_ISREG(st.st_mode))
		r = -EINVAL;
	if (r == 0)
		r = config_read_fd(fd, text);
	if (r == -ENOMEM)
		return r;
	if (r == -EFBIG)
		config_fail_position(report, (struct config_position){ 1, 1 },
			"larger than 1 MiB; a configuration is smaller");
	else if (r == -EINVAL)
		config_fail_position(report, (struct config_position){ 1, 1 },
			"cannot be read: not a regular file");
	else if (r < 0)
		config_fail_position(report, (struct config_position){ 1, 1 }, "cannot be read: %s",
			strerror(-r));
	return 0;
}

/* The file as checked structs in c; all errors in the report. */
static int config_load_file(struct config *c, struct config_report *report)
{
	struct config_where *where aux_cleanup(config_where_freep) = NULL;
	struct config_raw *raw aux_cleanup(config_free_rawp) = NULL;
	struct buffer text aux_cleanup(buffer_deinit) = BUFFER_NULL;
	struct config_problem problem = { 0 };
	int r;

	r = config_read(c->path, &text, report);
	if (r < 0 || report->count)
		return error_trace(r);
	r = config_where_new(&where, buffer_str(&text), &problem);
	if (r == CONFIG_WHERE_E_SYNTAX) {
		config_fail_position(report, problem.at, "%s", problem.text);
		return 0;
	}
	if (r < 0)
		return error_trace(r);
	report->where = where;
	r = config_parse(&raw, buffer_str(&text), report);
	if (r == 0 && !report->misshapen)
		r = config_check(c, raw, report);
	report->where = NULL;
	return error_trace(r);
}

static const char *config_env(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

/* The file that is read when none was named; NULL in *out: none exists. */
static int config_find_file(char **out)
{
	const char *xdg = config_env("XDG_CONFIG_HOME"), *home = config_env("HOME");
	char path[PATHS_MAX] = "";

	if (config_env("LLMKIT_CONFIG")) {
		*out = strdup(config_env("LLMKIT_CONFIG"));
		return *out ? 0 : error_origin(-ENOMEM);
	}
	if (geteuid() != 0 && xdg)
		snprintf(path, sizeof(path), "%s/llmkit/llmkitd.yaml", xdg);
	else if (geteuid() != 0 && home)
		snprintf(path, sizeof(path), "%s/.config/llmkit/llmkitd.yaml", home);
	if (!*path || access(path, F_OK) < 0)
		snprintf(path, sizeof(path), "/etc/llmkit/llmkitd.yaml");
	if (access(path, F_OK) < 0)
		return 0;
	*out = strdup(path);
	return *out ? 0 : error_origin(-ENOMEM);
}

/* LLMKIT_SOCKET over the file over the default; runtime beside the socket. */
static int config_settle_paths(struct config *c, struct config_report *report)
{
	const char *socket = config_env("LLMKIT_SOCKET");
	char path[PATHS_MAX], *slash;
	int r;

	r = paths_socket(socket ? socket : c->socket, path, sizeof(path));
	if (r < 0)
		return error_trace(r);
	free(c->socket);
	c->socket = strdup(path);
	if (!c->socket)
		return error_origin(-ENOMEM);
	if (strlen(path) > CONFIG_SOCKET_MAX && report->count == 0) {
		report->file = "environment";
		config_fail(report, "socket",
			"has %zu bytes; a socket's path (--socket, LLMKIT_SOCKET, XDG_RUNTIME_DIR) "
			"has at most %zu",
			strlen(path), CONFIG_SOCKET_MAX);
	}
	if (c->runtime)
		return 0;
	slash = strrchr(path, '/');
	if (slash)
		slash[slash == path] = '\0';
	c->runtime = strdup(slash ? path : ".");
	return c->runtime ? 0 : error_origin(-ENOMEM);
}

static void config_freep(struct config **c)
{
	config_free(*c);
}

int config_load(struct config **out, const char *path, struct buffer *error)
{
	struct config *c aux_cleanup(config_freep) = calloc(1, sizeof(*c));
	struct config_report report = { .file = "environment", .error = error };
	int r;

	if (!c)
		return error_origin(-ENOMEM);
	if (path)
		c->path = strdup(path);
	r = path ? (c->path ? 0 : error_origin(-ENOMEM)) : config_find_file(&c->path);
	if (r < 0)
		return error_trace(r);
	if (c->path) {
		report.file = c->path;
		r = config_load_file(c, &report);
	} else {
		r = config_check(c, NULL, &report);
	}
	if (r == 0)
		r = config_settle_paths(c, &report);
	if (r == 0)
		r = config_report_end(&report);
	if (r)
		return error_trace(r);
	*out = steal_ptr(c);
	return CONFIG_OK;
}

static void config_free_providers(struct config *c)
{
	for (unsigned i = 0; i < c->provider_count; i++) {
		struct config_provider *p = &c->providers[i];

		free(p->name);
		free(p->base_url);
		free(p->key.env);
		free(p->key.file);
		free(p->key.credential);
		free(p->ca_file);
		free(p->proxy);
	}
	free(c->providers);
}

static void config_free_routes(struct config *c)
{
	for (unsigned i = 0; i < c->route_count; i++) {
		for (unsigned k = 0; k < c->routes[i].target_count; k++) {
			free(c->routes[i].targets[k].upstream);
			free(c->routes[i].targets[k].model);
		}
		free(c->routes[i].targets);
		free(c->routes[i].name);
	}
	free(c->routes);
}

struct config *config_free(struct config *c)
{
	if (!c)
		return NULL;
	config_free_providers(c);
	for (unsigned i = 0; i < c->model_count; i++) {
		free(c->models[i].name);
		free(c->models[i].upstream);
	}
	free(c->models);
	config_free_routes(c);
	for (unsigned i = 0; i < c->limit_count; i++)
		free(c->limits[i].name);
	free(c->limits);
	free(c->templates);
	free(c->access.participant_uids);
	free(c->access.observer_uids);
	free(c->access.participant_gids);
	free(c->access.observer_gids);
	free(c->path);
	free(c->socket);
	free(c->runtime);
	free(c);
	return NULL;
}

int config_find_provider(const struct config *c, struct str name)
{
	for (unsigned i = 0; i < c->provider_count; i++)
		if (str_is(name, c->providers[i].name))
			return (int)i;
	return -1;
}

struct str config_key_label(const struct config_provider *p)
{
	const char *slash = p->key.file ? strrchr(p->key.file, '/') : NULL;
	const char *label = p->key.env ? p->key.env : p->key.credential;
	struct str view;

	if (p->key.file)
		label = slash ? slash + 1 : p->key.file;
	if (!label && p->family)
		label = p->family->key_env;
	if (!label)
		return STR_NULL;
	view = str_make(label, strnlen(label, CONFIG_WORD_MAX));
	/* Not cut inside a UTF-8 character. */
	while (view.length > 0 && ((unsigned char)label[view.length] & 0xc0) == 0x80)
		view.length--;
	return view;
}
