#include <string.h>
#include "shm/bucket_internal.h"

#define NAME_WORDS (LAYOUT_NAME_MAX / sizeof(uint64_t))

/* ---- scopes, resources, kinds ---- */

const uint8_t bucket_scopes[BUCKET_SCOPES] = {
	BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL,
	BUCKET_SCOPE_USER | BUCKET_SCOPE_PROVIDER,
	BUCKET_SCOPE_USER | BUCKET_SCOPE_KEY,
	BUCKET_SCOPE_USER,
	BUCKET_SCOPE_MODEL | BUCKET_SCOPE_KEY,
	BUCKET_SCOPE_PROVIDER | BUCKET_SCOPE_KEY,
	BUCKET_SCOPE_MODEL | BUCKET_SCOPE_PROVIDER,
	BUCKET_SCOPE_MODEL,
	BUCKET_SCOPE_KEY,
	BUCKET_SCOPE_PROVIDER,
};

unsigned bucket_scope_rank(uint64_t scope)
{
	unsigned rank = 0;

	while (rank < BUCKET_SCOPES && bucket_scopes[rank] != scope)
		rank++;
	return rank;
}

bool bucket_scope_is_valid(uint64_t scope)
{
	return bucket_scope_rank(scope) < BUCKET_SCOPES;
}

static bool is_pair(uint64_t scope)
{
	return (scope & (scope - 1)) != 0;
}

const char *bucket_scope_name(uint64_t scope)
{
	static const char *const names[BUCKET_SCOPE_MASKS] = {
		[BUCKET_SCOPE_USER] = "user",
		[BUCKET_SCOPE_MODEL] = "model",
		[BUCKET_SCOPE_PROVIDER] = "provider",
		[BUCKET_SCOPE_KEY] = "key",
		[BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL] = "user+model",
		[BUCKET_SCOPE_USER | BUCKET_SCOPE_PROVIDER] = "user+provider",
		[BUCKET_SCOPE_USER | BUCKET_SCOPE_KEY] = "user+key",
		[BUCKET_SCOPE_MODEL | BUCKET_SCOPE_PROVIDER] = "model+provider",
		[BUCKET_SCOPE_MODEL | BUCKET_SCOPE_KEY] = "model+key",
		[BUCKET_SCOPE_PROVIDER | BUCKET_SCOPE_KEY] = "provider+key",
	};

	return scope < BUCKET_SCOPE_MASKS && names[scope] ? names[scope] : "unknown";
}

const char *bucket_resource_name(uint64_t resource)
{
	static const char *const names[BUCKET_RESOURCES] = {
		[BUCKET_REQUESTS] = "requests",
		[BUCKET_INPUT_TOKENS] = "input_tokens",
		[BUCKET_OUTPUT_TOKENS] = "output_tokens",
		[BUCKET_TOKENS] = "tokens",
		[BUCKET_CONCURRENCY] = "concurrency",
		[BUCKET_MONEY] = "money",
	};

	return resource < BUCKET_RESOURCES ? names[resource] : "unknown";
}

enum bucket_kind bucket_kind_of(enum bucket_resource resource, bool reserve)
{
	switch (resource) {
	case BUCKET_INPUT_TOKENS:
	case BUCKET_OUTPUT_TOKENS:
	case BUCKET_TOKENS:
		return reserve ? BUCKET_RATE : BUCKET_HELD;
	case BUCKET_CONCURRENCY:
		return BUCKET_GAUGE;
	case BUCKET_MONEY:
		return BUCKET_WINDOW;
	default:
		return BUCKET_RATE;
	}
}

bool bucket_kind_fits(uint64_t resource, uint64_t kind)
{
	return resource < BUCKET_RESOURCES &&
		(kind == bucket_kind_of((enum bucket_resource)resource, false) ||
			kind == bucket_kind_of((enum bucket_resource)resource, true));
}

/* ---- names ---- */

static bool part_fits(struct str part)
{
	return part.length > 0 && part.length < LAYOUT_NAME_MAX &&
		!memchr(part.data, '\0', part.length) &&
		!memchr(part.data, LAYOUT_NAME_JOIN, part.length);
}

bool bucket_name_fits(uint64_t scope, struct str name)
{
	const char *join;
	size_t first;

	if (!is_pair(scope))
		return part_fits(name);
	join = name.length ? memchr(name.data, LAYOUT_NAME_JOIN, name.length) : NULL;
	if (!join || name.length >= LAYOUT_NAME_MAX)
		return false;
	first = (size_t)(join - name.data);
	return part_fits(str_make(name.data, first)) &&
		part_fits(str_make(join + 1, name.length - first - 1));
}

/* In the order of the bits. */
static struct str name_in(const struct bucket_names *names, unsigned bit)
{
	const struct str all[] = { names->user, names->model, names->provider, names->key };

	return all[bit];
}

bool bucket_join(uint64_t scope, const struct bucket_names *names, char *out)
{
	size_t length = 0;

	if (!bucket_scope_is_valid(scope))
		return false;
	for (unsigned bit = 0; bit < 4; bit++) {
		struct str part = name_in(names, bit);

		if (!(scope & (1u << bit)))
			continue;
		if (!part_fits(part) || length + 1 + part.length >= LAYOUT_NAME_MAX + !length)
			return false;
		if (length > 0)
			out[length++] = LAYOUT_NAME_JOIN;
		memcpy(out + length, part.data, part.length);
		length += part.length;
	}
	out[length] = '\0';
	return true;
}

/* Names are read and written by words: a row may be given another name while it is compared. */
static shared_u64 *name_words(const struct region *r, uint32_t row)
{
	return (shared_u64 *)(void *)r->bucket_name[row].name;
}

size_t bucket_row_name(const struct region *r, uint32_t row, char *out)
{
	const shared_u64 *words = name_words(r, row);

	for (size_t i = 0; i < NAME_WORDS; i++) {
		uint64_t word = load(&words[i]);

		memcpy(out + i * sizeof(word), &word, sizeof(word));
	}
	out[LAYOUT_NAME_MAX - 1] = '\0';
	return strlen(out);
}

void bucket_row_rename(struct region *r, uint32_t row, struct str name)
{
	shared_u64 *words = name_words(r, row);
	uint64_t padded[NAME_WORDS] = { 0 };

	memcpy(padded, name.data, name.length);
	for (size_t i = 0; i < NAME_WORDS; i++)
		store(&words[i], padded[i]);
}

static bool name_is(const struct region *r, uint32_t row, struct str name)
{
	const shared_u64 *words = name_words(r, row);
	size_t full = name.length / sizeof(uint64_t), rest = name.length % sizeof(uint64_t);
	uint64_t mine = 0;

	for (size_t i = 0; i < full; i++) {
		memcpy(&mine, name.data + i * sizeof(mine), sizeof(mine));
		if (load(&words[i]) != mine)
			return false;
	}
	mine = 0;
	if (rest > 0)
		memcpy(&mine, name.data + full * sizeof(mine), rest);
	/* With the byte that ends it. */
	return ((load(&words[full]) ^ mine) << (8 * (7 - rest))) == 0;
}

/* ---- find ---- */

/* FNV-1a, mixed (the finalizer of splitmix64) so that the low bits depend on all. */
static uint64_t hash_of(struct str name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < name.length; i++)
		hash = (hash ^ (unsigned char)name.data[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static uint64_t key_of(const struct bucket_id *id, uint64_t hash)
{
	hash ^= (id->scope << 16 | (uint64_t)id->resource << 8 | id->kind) *
		UINT64_C(0x9e3779b97f4a7c15);
	hash = (hash ^ (hash >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	hash = (hash ^ (hash >> 27)) * UINT64_C(0x94d049bb133111eb);
	return max_u64(hash ^ (hash >> 31), LAYOUT_KEY_FIRST);
}

uint64_t bucket_key(const struct bucket_id *id)
{
	return key_of(id, hash_of(id->name));
}

bool bucket_row_is(const struct region *r, uint32_t row, const struct bucket_id *id)
{
	const struct layout_bucket_name *n = &r->bucket_name[row];

	return load(&n->scope) == id->scope && load(&n->resource) == id->resource &&
		load(&n->kind) == id->kind && name_is(r, row, id->name);
}

static uint32_t find_key(const struct region *r, const struct bucket_id *id, uint64_t key)
{
	for (uint32_t i = 0, row = (uint32_t)(key % r->buckets); i < r->buckets; i++) {
		uint64_t found = load_acquire(&r->bucket[row].key);

		if (found == key && bucket_row_is(r, row, id))
			return row;
		if (found == LAYOUT_KEY_NEVER)
			break;
		row = row + 1 == r->buckets ? 0 : row + 1;
	}
	return BUCKET_NONE;
}

uint32_t bucket_find(const struct region *r, const struct bucket_id *id)
{
	return find_key(r, id, bucket_key(id));
}

/* ---- sets ---- */

/* Narrow scopes first; within one what holds before RATE, so that the undo is exact as long as
 * possible. */
static uint8_t order_of(const struct bucket_id *id)
{
	return (uint8_t)(2 * bucket_scope_rank(id->scope) + (id->kind == BUCKET_RATE));
}

static bool set_has(const struct bucket_set *set, uint32_t row)
{
	for (uint32_t i = 0; i < set->count && i < BUCKET_SET_MAX; i++)
		if (set->index[i] == row)
			return true;
	return false;
}

static bool set_insert(
	struct bucket_set *set, const struct bucket_id *id, uint64_t key, uint32_t row)
{
	uint8_t order = order_of(id);
	uint32_t at;

	if (set_has(set, row))
		return true;
	if (set->count >= BUCKET_SET_MAX)
		return false;
	for (at = set->count; at > 0 && set->order[at - 1] > order; at--) {
		set->index[at] = set->index[at - 1];
		set->key[at] = set->key[at - 1];
		set->kind[at] = set->kind[at - 1];
		set->resource[at] = set->resource[at - 1];
		set->order[at] = set->order[at - 1];
	}
	set->index[at] = row;
	set->key[at] = key;
	set->kind[at] = (uint8_t)id->kind;
	set->resource[at] = (uint8_t)id->resource;
	set->order[at] = order;
	set->count++;
	set->held += id->kind != BUCKET_RATE;
	set->others += id->kind != BUCKET_RATE || id->resource != BUCKET_REQUESTS;
	return true;
}

bool bucket_set_add(struct bucket_set *set, const struct region *r, uint64_t scope,
	enum bucket_resource resource, struct str name)
{
	struct bucket_id id = { scope, resource, BUCKET_RATE, name };
	uint64_t hash, key;
	bool added = false;

	if (!bucket_scope_is_valid(scope) || resource >= BUCKET_RESOURCES ||
		!bucket_name_fits(scope, name))
		return false;
	hash = hash_of(name);
	for (int reserve = 0; reserve < 2; reserve++) {
		uint32_t row;

		id.kind = bucket_kind_of(resource, reserve);
		if (reserve && id.kind == bucket_kind_of(resource, false))
			break;
		key = key_of(&id, hash);
		row = find_key(r, &id, key);
		if (row == BUCKET_NONE)
			continue;
		if (!set_insert(set, &id, key, row))
			return false;
		added = true;
	}
	return added;
}

static void note_use(const struct region *r, uint32_t row, uint64_t now_ns)
{
	shared_u64 *used = &r->bucket_name[row].used_ns;

	if (r->writable && load(used) < now_ns)
		atomic_store_explicit(used, now_ns, memory_order_relaxed);
}

/* All kinds of one resource's limits: two while a change of kind is under way. */
static enum bucket_outcome look_up(const struct region *r, struct bucket_id *id, uint64_t hash,
	uint64_t in_use, uint64_t now_ns, struct bucket_set *set, bool *found)
{
	for (int reserve = 0; reserve < 2; reserve++) {
		uint64_t key;
		uint32_t row;

		if (!(in_use &
			    (reserve ? BUCKET_IN_USE_RESERVE(id->resource) :
				       BUCKET_IN_USE(id->resource))))
			continue;
		id->kind = bucket_kind_of(id->resource, reserve);
		key = key_of(id, hash);
		row = find_key(r, id, key);
		if (row == BUCKET_NONE)
			continue;
		if (!set_insert(set, id, key, row))
			return BUCKET_E_BUSY;
		note_use(r, row, now_ns);
		*found = true;
	}
	return BUCKET_OK;
}

/*
 * Nothing found may be a limit that changed its kind, between the looks or since in_use was read:
 * who has seen the old one retired sees the new one, and what in_use says of it. So where the other
 * kind is in use, or now is, a second look is the last.
 */
static enum bucket_outcome resolve_resource(const struct region *r, struct bucket_id *id,
	uint64_t hash, uint64_t in_use, uint64_t now_ns, struct bucket_set *set)
{
	const uint64_t both = BUCKET_IN_USE(id->resource) | BUCKET_IN_USE_RESERVE(id->resource);
	enum bucket_outcome outcome = BUCKET_OK;
	uint64_t seen = in_use;
	bool found = false;

	for (int i = 0; i < 2 && !found && outcome == BUCKET_OK; i++) {
		if (i > 0 && in_use == seen && (in_use & both) != both)
			break;
		seen = in_use;
		outcome = look_up(r, id, hash, in_use, now_ns, set, &found);
		in_use = load_acquire(&r->header->limits_in_use[id->scope]);
	}
	if (outcome != BUCKET_OK)
		return outcome;
	return found || !(in_use & BUCKET_IN_USE_TEMPLATE(id->resource)) ? BUCKET_OK :
									   BUCKET_E_MISSING;
}

/* Whether the names have all parts of the scope, fit or not. */
static bool names_are_known(uint64_t scope, const struct bucket_names *names)
{
	for (unsigned bit = 0; bit < 4; bit++)
		if (scope & (1u << bit) && name_in(names, bit).length == 0)
			return false;
	return true;
}

/* A name that no row can have is missing where a template asks for one: else it would be a way
 * around the limit. */
static enum bucket_outcome resolve_scope(const struct region *r, uint64_t scope, uint64_t in_use,
	const struct bucket_names *names, uint64_t now_ns, struct bucket_set *set)
{
	struct bucket_id id = { .scope = scope };
	enum bucket_outcome result = BUCKET_OK, outcome;
	char name[LAYOUT_NAME_MAX];
	uint64_t hash;

	if (!names_are_known(scope, names))
		return BUCKET_OK;
	if (!bucket_join(scope, names, name))
		return (in_use >> 8 & 0xff) ? BUCKET_E_MISSING : BUCKET_OK;
	id.name = str_of(name);
	hash = hash_of(id.name);
	for (unsigned resource = 0; resource < BUCKET_RESOURCES; resource++) {
		if (!(in_use >> resource & 0x10101))
			continue;
		id.resource = (enum bucket_resource)resource;
		outcome = resolve_resource(r, &id, hash, in_use, now_ns, set);
		if (outcome == BUCKET_E_BUSY)
			return outcome;
		if (outcome != BUCKET_OK)
			result = outcome;
	}
	return result;
}

enum bucket_outcome bucket_resolve(const struct region *r, const struct bucket_names *names,
	uint64_t now_ns, struct bucket_set *set)
{
	enum bucket_outcome result = BUCKET_OK, outcome;

	*set = (struct bucket_set){ 0 };
	for (unsigned i = 0; i < BUCKET_SCOPES; i++) {
		uint64_t in_use = load_acquire(&r->header->limits_in_use[bucket_scopes[i]]);

		if (in_use == 0)
			continue;
		outcome = resolve_scope(r, bucket_scopes[i], in_use, names, now_ns, set);
		if (outcome == BUCKET_E_BUSY)
			return outcome;
		if (outcome != BUCKET_OK)
			result = outcome;
	}
	return result;
}
