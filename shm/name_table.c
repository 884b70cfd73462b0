#include "shm/name_table.h"

#include "base/aux.h"
#include "shm/layout.h"

static char *row_at(const struct name_table *t, uint32_t row)
{
	return (char *)t->rows + t->stride * row;
}

static shared_u64 *key_at(const struct name_table *t, uint32_t row)
{
	return (shared_u64 *)(void *)row_at(t, row);
}

static bool is_busy(const struct name_table *t, uint32_t row)
{
	shared_u64 *word = (shared_u64 *)(void *)(row_at(t, row) + t->busy_at);

	return t->busy_at != 0 &&
		(atomic_load_explicit(word, memory_order_relaxed) & UINT32_MAX) != 0;
}

bool name_table_fits(struct str name)
{
	return name.length > 0 && name.length < LAYOUT_NAME_MAX &&
		!memchr(name.data, '\0', name.length);
}

/* FNV-1a; the values below LAYOUT_KEY_FIRST have other meanings. */
uint64_t name_table_key(struct str name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < name.length; i++)
		hash = (hash ^ (unsigned char)name.data[i]) * UINT64_C(0x100000001b3);
	return max_u64(hash, LAYOUT_KEY_FIRST);
}

uint64_t name_table_row_key(const struct name_table *t, uint32_t row)
{
	return atomic_load_explicit(key_at(t, row), memory_order_acquire);
}

bool name_table_is(const struct name_table *t, uint32_t row, struct str name)
{
	const char *own = row_at(t, row) + t->name_at;

	return memcmp(own, name.data, name.length) == 0 && own[name.length] == '\0';
}

uint32_t name_table_find(const struct name_table *t, struct str name, uint32_t *spare)
{
	uint64_t key = name_table_key(name);
	bool spare_is_same = false;

	*spare = NAME_TABLE_NONE;
	for (uint32_t i = 0; i < t->count; i++) {
		uint32_t row = (uint32_t)((key + i) % t->count);
		uint64_t found = name_table_row_key(t, row);
		bool same = (found == key || found == LAYOUT_KEY_RETIRED) &&
			name_table_is(t, row, name);

		if (found == key && same)
			return row;
		if (found < LAYOUT_KEY_FIRST && !spare_is_same &&
			(same || (*spare == NAME_TABLE_NONE && !is_busy(t, row)))) {
			*spare = row;
			spare_is_same = same;
		}
		if (found == LAYOUT_KEY_NEVER)
			break;
	}
	return NAME_TABLE_NONE;
}

void name_table_rename(const struct name_table *t, uint32_t row, struct str name)
{
	char *own = row_at(t, row) + t->name_at;

	memset(own, 0, LAYOUT_NAME_MAX);
	memcpy(own, name.data, name.length);
}

void name_table_publish(const struct name_table *t, uint32_t row, uint64_t key)
{
	atomic_store_explicit(key_at(t, row), key, memory_order_release);
}

/* Retired rows before a never used one end no probe any more: they become never used. */
static void sweep(const struct name_table *t)
{
	for (uint32_t n = 0, i = t->count - 1; n < 2 * t->count; n++) {
		uint32_t next = i + 1 == t->count ? 0 : i + 1;

		if (name_table_row_key(t, i) == LAYOUT_KEY_RETIRED &&
			name_table_row_key(t, next) == LAYOUT_KEY_NEVER && !is_busy(t, i))
			name_table_publish(t, i, LAYOUT_KEY_NEVER);
		i = i == 0 ? t->count - 1 : i - 1;
	}
}

void name_table_retire(const struct name_table *t, const bool *keep)
{
	for (uint32_t i = 0; i < t->count; i++)
		if (name_table_row_key(t, i) >= LAYOUT_KEY_FIRST && !keep[i])
			name_table_publish(t, i, LAYOUT_KEY_RETIRED);
	sweep(t);
}

struct str name_table_name(const struct name_table *t, uint32_t row)
{
	const char *own = row_at(t, row) + t->name_at;

	return str_make(own, strnlen(own, LAYOUT_NAME_MAX - 1));
}

void name_table_adopt(const struct name_table *t)
{
	for (uint32_t i = 0; i < t->count; i++) {
		uint64_t key = name_table_row_key(t, i);
		struct str name = name_table_name(t, i);

		if (key >= LAYOUT_KEY_FIRST && (name.length == 0 || key != name_table_key(name)))
			name_table_publish(t, i, LAYOUT_KEY_RETIRED);
	}
}
