#include "tools/dump_tables.h"

#include <stdio.h>
#include <string.h>
#include "base/aux.h"
#include "shm/layout.h"
#include "tools/text.h"

#define MANY_WORDS 64

struct field {
	const char *table, *name, *type;
	size_t offset, size;
};

static const struct field fields[] = {
#define LAYOUT_STRUCT(struct_, text_)
#define LAYOUT_FIELD(struct_, field_, type_, text_) \
	{ #struct_, #field_, type_, offsetof(struct struct_, field_), \
		sizeof(((struct struct_ *)0)->field_) },
#include "shm/tbl/layout.h"
#undef LAYOUT_STRUCT
#undef LAYOUT_FIELD
};

/* A table, and the word that says whether a row of it is in use: not below least. Another table's
 * word, where the rows of two belong together. */
struct table {
	const char *name, *layout;
	const char *rows, *used;
	uint32_t count;
	size_t row_size, used_size;
	uint64_t least;
};

#define TABLE(name_, struct_, rows_, count_, word_, least_) \
	{ \
		name_, #struct_, (const char *)(rows_), \
			(const char *)(rows_) + offsetof(struct struct_, word_), (count_), \
			sizeof(struct struct_), sizeof(struct struct_), (least_) \
	}
#define COMPANION(name_, struct_, rows_, count_, of_, of_rows_, word_, least_) \
	{ \
		name_, #struct_, (const char *)(rows_), \
			(const char *)(of_rows_) + offsetof(struct of_, word_), (count_), \
			sizeof(struct struct_), sizeof(struct of_), (least_) \
	}

#define TABLES 10

static void list_tables(const struct region *r, struct table out[TABLES])
{
	const struct table tables[TABLES] = {
		TABLE("limit_words", layout_bucket, r->bucket, r->buckets, key, LAYOUT_KEY_FIRST),
		COMPANION("limit_names", layout_bucket_name, r->bucket_name, r->buckets,
			layout_bucket, r->bucket, key, LAYOUT_KEY_FIRST),
		TABLE("templates", layout_template, r->template, r->templates, scope, 1),
		TABLE("holds", layout_hold, r->hold, r->holds, owner, 1),
		TABLE("targets", layout_target, r->target, r->targets, key, LAYOUT_KEY_FIRST),
		COMPANION("breakers", layout_breaker, r->breaker, r->targets, layout_target,
			r->target, key, LAYOUT_KEY_FIRST),
		COMPANION("latencies", layout_latency, r->latency, r->targets, layout_target,
			r->target, key, LAYOUT_KEY_FIRST),
		TABLE("routes", layout_route, r->route, r->routes, key, LAYOUT_KEY_FIRST),
		TABLE("estimates", layout_estimate, r->estimate, r->estimates, key, 1),
		TABLE("events", layout_event, r->event, r->events, sequence, 1),
	};

	memcpy(out, tables, sizeof(tables));
}

static uint64_t word_at(const char *at)
{
	return atomic_load_explicit((const shared_u64 *)(const void *)at, memory_order_relaxed);
}

static bool row_is_used(const struct table *t, uint32_t row)
{
	return word_at(t->used + (size_t)row * t->used_size) >= t->least;
}

static bool field_is_of(const struct field *f, const struct table *t)
{
	return strcmp(f->table, t->layout) == 0 && strncmp(f->name, "pad", 3) != 0;
}

static bool field_is_text(const struct field *f)
{
	return strncmp(f->type, "char", 4) == 0;
}

/* Participants may have written anything here. */
static void field_text(const struct field *f, const char *row, char out[LAYOUT_NAME_MAX + 1])
{
	size_t length = strnlen(row + f->offset, f->size);

	memcpy(out, row + f->offset, length);
	out[length] = '\0';
	for (size_t i = 0; i < length; i++)
		if (out[i] == LAYOUT_NAME_JOIN)
			out[i] = '@';
	text_clean(out);
}

/* ---- text ---- */

/* A histogram is mostly empty: the words that are not 0, each after its place. */
static void text_many(const struct field *f, const char *row)
{
	bool is_first = true;

	for (size_t at = 0; at < f->size; at += sizeof(uint64_t)) {
		uint64_t word = word_at(row + f->offset + at);

		if (word == 0)
			continue;
		printf("%s[%zu]%llu", is_first ? "" : ",", at / sizeof(uint64_t),
			(unsigned long long)word);
		is_first = false;
	}
}

static void text_field(const struct field *f, const char *row)
{
	char name[LAYOUT_NAME_MAX + 1];

	if (field_is_text(f)) {
		field_text(f, row, name);
		printf(" %s=\"%s\"", f->name, name);
		return;
	}
	printf(" %s=", f->name);
	if (f->size > MANY_WORDS * sizeof(uint64_t)) {
		text_many(f, row);
		return;
	}
	for (size_t at = 0; at < f->size; at += sizeof(uint64_t))
		printf("%s%llu", at ? "," : "", (unsigned long long)word_at(row + f->offset + at));
}

void dump_tables_text(const struct region *r)
{
	struct table tables[TABLES];

	list_tables(r, tables);
	for (size_t t = 0; t < TABLES; t++) {
		printf("\n%s\n", tables[t].name);
		for (uint32_t i = 0; i < tables[t].count; i++) {
			if (!row_is_used(&tables[t], i))
				continue;
			printf("  %5u", i);
			for (size_t f = 0; f < ARRAY_SIZE(fields); f++)
				if (field_is_of(&fields[f], &tables[t]))
					text_field(&fields[f],
						tables[t].rows + (size_t)i * tables[t].row_size);
			putchar('\n');
		}
	}
}

/* ---- JSON ---- */

static void json_field(struct json *j, const struct field *f, const char *row)
{
	char name[LAYOUT_NAME_MAX + 1];

	if (field_is_text(f)) {
		field_text(f, row, name);
		json_str(j, f->name, str_of(name));
	} else if (f->size == sizeof(uint64_t)) {
		json_uint(j, f->name, word_at(row + f->offset));
	} else {
		json_array_begin(j, f->name);
		for (size_t at = 0; at < f->size; at += sizeof(uint64_t))
			json_uint(j, NULL, word_at(row + f->offset + at));
		json_array_end(j);
	}
}

void dump_tables_json(struct json *j, const struct region *r)
{
	struct table tables[TABLES];

	list_tables(r, tables);
	for (size_t t = 0; t < TABLES; t++) {
		json_array_begin(j, tables[t].name);
		for (uint32_t i = 0; i < tables[t].count; i++) {
			if (!row_is_used(&tables[t], i))
				continue;
			json_object_begin(j, NULL);
			json_uint(j, "row", i);
			for (size_t f = 0; f < ARRAY_SIZE(fields); f++)
				if (field_is_of(&fields[f], &tables[t]))
					json_field(j, &fields[f],
						tables[t].rows + (size_t)i * tables[t].row_size);
			json_object_end(j);
		}
		json_array_end(j);
	}
}
