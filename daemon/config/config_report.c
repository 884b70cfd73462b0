#include "daemon/config/config_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include "base/error.h"
#include "daemon/config/config_units.h"

#define CONFIG_LINE_MAX 1024

static void config_report_line(struct config_report *r, struct config_position at, const char *path,
	const char *format, va_list args) aux_printf(4, 0);

static void config_report_line(struct config_report *r, struct config_position at, const char *path,
	const char *format, va_list args)
{
	char text[CONFIG_LINE_MAX];
	int failed;

	if (r->failed || r->count++ >= CONFIG_ERRORS_MAX)
		return;
	vsnprintf(text, sizeof(text), format, args);
	failed = buffer_printf(r->error, "%s:%zu:%zu: %s%s%s\n", r->file, at.line, at.column, path,
		*path ? ": " : "", text);
	if (failed < 0)
		r->failed = failed;
}

void config_fail_position(
	struct config_report *r, struct config_position at, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	config_report_line(r, at, "", format, args);
	va_end(args);
}

void config_fail(struct config_report *r, const char *path, const char *format, ...)
{
	struct config_position at = { 1, 1 };
	va_list args;

	if (r->where && r->count < CONFIG_ERRORS_MAX)
		at = config_where_position(r->where, config_where_find(r->where, path));
	va_start(args, format);
	config_report_line(r, at, path, format, args);
	va_end(args);
}

int config_report_end(const struct config_report *r)
{
	if (r->failed)
		return error_trace(r->failed);
	if (r->count > CONFIG_ERRORS_MAX &&
		buffer_printf(r->error, "%s: and %u more errors\n", r->file,
			r->count - CONFIG_ERRORS_MAX) < 0)
		return error_origin(-ENOMEM);
	return r->count ? CONFIG_E_INVALID : CONFIG_OK;
}

static const char *config_field_path(
	struct config_field f, const char *key, char path[CONFIG_PATH_MAX])
{
	snprintf(path, CONFIG_PATH_MAX, "%s%s", f.prefix, key);
	return path;
}

struct config_field config_field_group(
	struct config_field f, const char *key, char prefix[CONFIG_PATH_MAX])
{
	snprintf(prefix, CONFIG_PATH_MAX, "%s%s.", f.prefix, key);
	return (struct config_field){ f.report, prefix };
}

/* The node at a field; 0: not given. */
static int config_field_node(struct config_field f, const char *key)
{
	char path[CONFIG_PATH_MAX];

	return f.report->where ?
		config_where_get(f.report->where, config_field_path(f, key, path)) :
		0;
}

const char *config_given(struct config_field f, const char *key)
{
	int node = config_field_node(f, key);

	return node ? config_where_string(f.report->where, node) : NULL;
}

enum config_kind config_given_kind(struct config_field f, const char *key)
{
	int node = config_field_node(f, key);

	return node ? config_where_kind(f.report->where, node) : CONFIG_KIND_NONE;
}

size_t config_given_count(struct config_field f, const char *key)
{
	int node = config_field_node(f, key);

	return node ? config_where_count(f.report->where, node) : 0;
}

void config_fail_field(struct config_field f, const char *key, const char *format, ...)
{
	char path[CONFIG_PATH_MAX], text[CONFIG_LINE_MAX];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	config_fail(f.report, config_field_path(f, key, path), "%s", text);
}

void config_check_duration(struct config_field f, const char *key, const char *text, uint64_t min,
	uint64_t max, uint64_t *value)
{
	char path[CONFIG_PATH_MAX], quoted[CONFIG_TEXT_MAX + 8];
	char least[CONFIG_TEXT_MAX], most[CONFIG_TEXT_MAX];
	uint64_t ns;

	if (!text)
		return;
	if (!config_parse_duration(text, &ns)) {
		config_fail(f.report, config_field_path(f, key, path),
			"\"%s\" is not a duration; " CONFIG_DURATION_TEXT,
			config_quote(text, quoted));
	} else if (ns < min || ns > max) {
		config_format_duration(min, least);
		config_format_duration(max, most);
		config_fail(f.report, config_field_path(f, key, path),
			"\"%s\" is out of range; allowed: %s to %s", config_quote(text, quoted),
			least, most);
	} else {
		*value = ns;
	}
}

void config_check_count(struct config_field f, const char *key, const char *text, uint64_t min,
	uint64_t max, unsigned *value)
{
	char path[CONFIG_PATH_MAX], quoted[CONFIG_TEXT_MAX + 8];
	uint64_t n;

	if (!text)
		return;
	if (!config_parse_count(text, &n) || n < min || n > max)
		config_fail(f.report, config_field_path(f, key, path),
			"\"%s\" is not allowed; write a whole number from %llu to %llu",
			config_quote(text, quoted), (unsigned long long)min,
			(unsigned long long)max);
	else
		*value = (unsigned)n;
}

void config_check_bool(struct config_field f, const char *key, const char *text, bool *value)
{
	char path[CONFIG_PATH_MAX], quoted[CONFIG_TEXT_MAX + 8];

	if (text && !config_parse_bool(text, value))
		config_fail(f.report, config_field_path(f, key, path),
			"\"%s\" is not a switch; write true or false", config_quote(text, quoted));
}

void config_check_text(struct config_field f, const char *key, const char *text, char **value)
{
	char path[CONFIG_PATH_MAX];

	if (!text)
		return;
	if (!*text) {
		config_fail(f.report, config_field_path(f, key, path),
			"is empty; give a value or remove the line");
		return;
	}
	*value = strdup(text);
	if (!*value)
		f.report->failed = error_origin(-ENOMEM);
}

unsigned config_check_entries(
	struct config_report *r, const char *path, unsigned count, unsigned max)
{
	if (count <= max)
		return count;
	config_fail(r, path, "has %u entries; at most %u are allowed", count, max);
	return 0;
}

void config_append_names(struct buffer *out, const struct config *c, unsigned count,
	const char *(*get)(const struct config *c, unsigned i))
{
	/* A text for people: without memory it is shorter, and the next step fails. */
	if (count == 0)
		(void)buffer_printf(out, "there is none");
	for (unsigned i = 0; i < count && i < 20; i++)
		(void)buffer_printf(out, "%s%s", i ? ", " : "there is: ", get(c, i));
}

const char *config_provider_name(const struct config *c, unsigned i)
{
	return c->providers[i].name ? c->providers[i].name : "(unnamed)";
}

const char *config_model_name(const struct config *c, unsigned i)
{
	return c->models[i].name ? c->models[i].name : "(unnamed)";
}
