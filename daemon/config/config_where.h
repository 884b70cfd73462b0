#pragma once

/*
 * The configuration as a tree of YAML nodes with their positions: for errors that name line and
 * column. The only home of libyaml. Refuses what a configuration has no use for: aliases (a
 * few lines of them can stand for gigabytes), deep nesting, several documents, other encodings
 * than UTF-8.
 */

#include <stddef.h>
#include "base/str.h"

#define CONFIG_WHERE_DEPTH_MAX 16

/* Lines and columns count from 1; a column is a character. */
struct config_position {
	size_t line, column;
};

struct config_problem {
	struct config_position at;
	char text[160];
};

enum config_kind {
	CONFIG_KIND_NONE = 0, /* no such node */
	CONFIG_KIND_SCALAR,
	CONFIG_KIND_SEQUENCE,
	CONFIG_KIND_MAPPING,
};

enum config_where_outcome {
	CONFIG_WHERE_OK = 0,
	CONFIG_WHERE_E_SYNTAX, /* *problem says what and where */
};

struct config_where;

/* Keeps nothing of text. 0, an outcome, or -ENOMEM. */
int config_where_new(struct config_where **out, struct str text, struct config_problem *problem);
struct config_where *config_where_free(struct config_where *w);
static inline void config_where_freep(struct config_where **w)
{
	config_where_free(*w);
}

/* Nodes are numbers; 0 is none. An empty document has no root. */
int config_where_root(const struct config_where *w);
enum config_kind config_where_kind(const struct config_where *w, int node);
/* Pairs of a mapping, or items of a sequence. */
size_t config_where_count(const struct config_where *w, int node);
int config_where_key(const struct config_where *w, int node, size_t i);
int config_where_value(const struct config_where *w, int node, size_t i);
/* Bytes of a scalar; may hold NUL when the file escaped one. */
struct str config_where_text(const struct config_where *w, int node);

/* The same, NUL-terminated; NULL: not a scalar. Lives as long as w. */
const char *config_where_string(const struct config_where *w, int node);

struct config_position config_where_position(const struct config_where *w, int node);
/* The node of a path such as "limits[2].requests"; 0: there is none. */
int config_where_get(const struct config_where *w, const char *path);
/* The same, or the nearest one above it that exists. */
int config_where_find(const struct config_where *w, const char *path);
