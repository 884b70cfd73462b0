#pragma once

/*
 * Finding named rows by hash, for the tables of targets and routes: linear probing from key %
 * count. LAYOUT_KEY_NEVER ends a probe, LAYOUT_KEY_RETIRED does not. A row's key is its first
 * word; whoever makes a row stores its key last (release). Names are plain bytes that only the
 * daemon writes, while the row is not in use.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/str.h"

#define NAME_TABLE_NONE UINT32_MAX

struct name_table {
	void *rows;
	uint32_t count;
	size_t stride, name_at; /* bytes: of a row; of its name in it, LAYOUT_NAME_MAX long */
	size_t busy_at;         /* of a word; while its low half is not 0, the row is nobody
	                         * else's; 0: none */
};

/* 1 to LAYOUT_NAME_MAX - 1 bytes, none of them NUL. */
bool name_table_fits(struct str name);
uint64_t name_table_key(struct str name);

/* The row in use with this name, or NAME_TABLE_NONE. *spare: where it would go, a retired row
 * of the same name if there is one, so that it finds again what was learned. */
uint32_t name_table_find(const struct name_table *t, struct str name, uint32_t *spare);
/* Whether a row bears the name, in use or not. */
bool name_table_is(const struct name_table *t, uint32_t row, struct str name);
uint64_t name_table_row_key(const struct name_table *t, uint32_t row);
void name_table_rename(const struct name_table *t, uint32_t row, struct str name);
void name_table_publish(const struct name_table *t, uint32_t row, uint64_t key);

/* Retires every row in use that is not marked in keep[0 .. count-1]. */
void name_table_retire(const struct name_table *t, const bool *keep);
/* Retires rows whose key is not that of their name. */
void name_table_adopt(const struct name_table *t);
/* The row's name, at most LAYOUT_NAME_MAX - 1 bytes. */
struct str name_table_name(const struct name_table *t, uint32_t row);
