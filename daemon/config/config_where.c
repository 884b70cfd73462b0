#include "daemon/config/config_where.h"

#include <errno.h>
#include <stdio.h>
#include <yaml.h>
#include "base/aux.h"
#include "base/error.h"

struct config_where {
	yaml_document_t document;
};

static struct config_position config_where_mark(const yaml_mark_t *mark)
{
	return (struct config_position){ mark->line + 1, mark->column + 1 };
}

static void config_where_say(
	struct config_problem *problem, const yaml_mark_t *mark, const char *text)
{
	problem->at = config_where_mark(mark);
	snprintf(problem->text, sizeof(problem->text), "%s", text);
}

/* The reader gives an offset in bytes only. */
static struct config_position config_where_offset(struct str text, size_t offset)
{
	struct config_position at = { 1, 1 };

	for (size_t i = 0; i < offset && i < text.length; i++) {
		if (text.data[i] == '\n')
			at = (struct config_position){ at.line + 1, 1 };
		else if (((unsigned char)text.data[i] & 0xc0) != 0x80)
			at.column++;
	}
	return at;
}

static int config_where_parser_failed(
	const yaml_parser_t *parser, struct str text, struct config_problem *problem)
{
	const char *what = parser->problem ? parser->problem : "it cannot be parsed";

	if (parser->error == YAML_MEMORY_ERROR)
		return error_origin(-ENOMEM);
	if (parser->error == YAML_READER_ERROR) {
		problem->at = config_where_offset(text, parser->problem_offset);
		snprintf(problem->text, sizeof(problem->text), "not UTF-8 text: %s", what);
		return CONFIG_WHERE_E_SYNTAX;
	}
	problem->at = config_where_mark(&parser->problem_mark);
	if (parser->context)
		snprintf(problem->text, sizeof(problem->text),
			"not YAML: %s %s (begun in line %zu)", what, parser->context,
			parser->context_mark.line + 1);
	else
		snprintf(problem->text, sizeof(problem->text), "not YAML: %s", what);
	return CONFIG_WHERE_E_SYNTAX;
}

static void config_where_begin(yaml_parser_t *parser, struct str text)
{
	yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
	yaml_parser_set_input_string(parser, (const unsigned char *)text.data, text.length);
}

/* One event: what a configuration has no use for ends the reading early. */
static const char *config_where_refuse(
	const yaml_event_t *event, unsigned *depth, unsigned *documents)
{
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		return "aliases (*name) are not allowed: write the value out";
	case YAML_DOCUMENT_START_EVENT:
		return ++*documents > 1 ? "a second document: write one only" : NULL;
	case YAML_SEQUENCE_START_EVENT:
	case YAML_MAPPING_START_EVENT:
		return ++*depth > CONFIG_WHERE_DEPTH_MAX ? "nested too deep" : NULL;
	case YAML_SEQUENCE_END_EVENT:
	case YAML_MAPPING_END_EVENT:
		--*depth;
		return NULL;
	default:
		return NULL;
	}
}

/* Before a tree is built: events alone need no memory, whatever they would expand to. */
static int config_where_screen(struct str text, struct config_problem *problem)
{
	yaml_parser_t parser aux_cleanup(yaml_parser_delete) = { 0 };
	unsigned depth = 0, documents = 0;
	const char *refused = NULL;
	bool end = false;

	if (!yaml_parser_initialize(&parser))
		return error_origin(-ENOMEM);
	config_where_begin(&parser, text);
	while (!end && !refused) {
		yaml_event_t event;

		if (!yaml_parser_parse(&parser, &event))
			return config_where_parser_failed(&parser, text, problem);
		refused = config_where_refuse(&event, &depth, &documents);
		if (refused)
			config_where_say(problem, &event.start_mark, refused);
		end = event.type == YAML_STREAM_END_EVENT;
		yaml_event_delete(&event);
	}
	return refused ? CONFIG_WHERE_E_SYNTAX : CONFIG_WHERE_OK;
}

int config_where_new(struct config_where **out, struct str text, struct config_problem *problem)
{
	yaml_parser_t parser aux_cleanup(yaml_parser_delete) = { 0 };
	struct config_where *w aux_cleanup(freep) = NULL;
	const char *nul = text.length ? memchr(text.data, '\0', text.length) : NULL;
	int r;

	if (nul) {
		problem->at = config_where_offset(text, (size_t)(nul - text.data));
		snprintf(problem->text, sizeof(problem->text),
			"not UTF-8 text: it holds a NUL byte");
		return CONFIG_WHERE_E_SYNTAX;
	}
	r = config_where_screen(text, problem);
	if (r)
		return error_trace(r);
	w = calloc(1, sizeof(*w));
	if (!w || !yaml_parser_initialize(&parser))
		return error_origin(-ENOMEM);
	config_where_begin(&parser, text);
	/* On failure libyaml has deleted the document itself. */
	if (!yaml_parser_load(&parser, &w->document))
		return config_where_parser_failed(&parser, text, problem);
	*out = steal_ptr(w);
	return CONFIG_WHERE_OK;
}

struct config_where *config_where_free(struct config_where *w)
{
	if (w)
		yaml_document_delete(&w->document);
	free(w);
	return NULL;
}

/* libyaml's getters take a document that is not const, and change nothing. */
static const yaml_node_t *config_where_node(const struct config_where *w, int node)
{
	return yaml_document_get_node((yaml_document_t *)&w->document, node);
}

int config_where_root(const struct config_where *w)
{
	return config_where_node(w, 1) ? 1 : 0;
}

enum config_kind config_where_kind(const struct config_where *w, int node)
{
	const yaml_node_t *n = config_where_node(w, node);

	if (!n)
		return CONFIG_KIND_NONE;
	switch (n->type) {
	case YAML_SCALAR_NODE:
		return CONFIG_KIND_SCALAR;
	case YAML_SEQUENCE_NODE:
		return CONFIG_KIND_SEQUENCE;
	case YAML_MAPPING_NODE:
		return CONFIG_KIND_MAPPING;
	case YAML_NO_NODE:
		break;
	}
	return CONFIG_KIND_NONE;
}

size_t config_where_count(const struct config_where *w, int node)
{
	const yaml_node_t *n = config_where_node(w, node);

	if (n && n->type == YAML_SEQUENCE_NODE)
		return (size_t)(n->data.sequence.items.top - n->data.sequence.items.start);
	if (n && n->type == YAML_MAPPING_NODE)
		return (size_t)(n->data.mapping.pairs.top - n->data.mapping.pairs.start);
	return 0;
}

int config_where_key(const struct config_where *w, int node, size_t i)
{
	const yaml_node_t *n = config_where_node(w, node);

	if (i >= config_where_count(w, node) || n->type != YAML_MAPPING_NODE)
		return 0;
	return n->data.mapping.pairs.start[i].key;
}

int config_where_value(const struct config_where *w, int node, size_t i)
{
	const yaml_node_t *n = config_where_node(w, node);

	if (i >= config_where_count(w, node))
		return 0;
	return n->type == YAML_MAPPING_NODE ? n->data.mapping.pairs.start[i].value :
					      n->data.sequence.items.start[i];
}

struct str config_where_text(const struct config_where *w, int node)
{
	const yaml_node_t *n = config_where_node(w, node);

	if (!n || n->type != YAML_SCALAR_NODE)
		return STR_NULL;
	return str_make(n->data.scalar.value, n->data.scalar.length);
}

/* libyaml ends what it keeps of a scalar with a NUL that its length does not count. */
const char *config_where_string(const struct config_where *w, int node)
{
	const yaml_node_t *n = config_where_node(w, node);

	return n && n->type == YAML_SCALAR_NODE ? (const char *)n->data.scalar.value : NULL;
}

struct config_position config_where_position(const struct config_where *w, int node)
{
	const yaml_node_t *n = config_where_node(w, node);

	return n ? config_where_mark(&n->start_mark) : (struct config_position){ 1, 1 };
}

/* The value of a key; 0 when there is none. */
static int config_where_member(const struct config_where *w, int node, struct str key)
{
	if (config_where_kind(w, node) != CONFIG_KIND_MAPPING)
		return 0;
	for (size_t i = 0; i < config_where_count(w, node); i++)
		if (str_equal(config_where_text(w, config_where_key(w, node, i)), key))
			return config_where_value(w, node, i);
	return 0;
}

/* As far down the path as there are nodes; *rest: the part that there is none for. */
static int config_where_follow(const struct config_where *w, const char *path, const char **rest)
{
	int node = config_where_root(w);

	while (*path) {
		size_t length = strcspn(path, ".[");
		int next = node;

		*rest = path;
		if (length > 0) {
			next = config_where_member(w, node, str_make(path, length));
			path += length;
		} else if (*path == '[') {
			next = config_where_value(w, node, strtoul(path + 1, (char **)&path, 10));
			path += *path == ']';
		} else {
			path++;
		}
		if (!next)
			return node;
		node = next;
	}
	*rest = path;
	return node;
}

int config_where_get(const struct config_where *w, const char *path)
{
	const char *rest = path;
	int node = config_where_follow(w, path, &rest);

	return *rest == '\0' ? node : 0;
}

int config_where_find(const struct config_where *w, const char *path)
{
	const char *rest;

	return config_where_follow(w, path, &rest);
}
