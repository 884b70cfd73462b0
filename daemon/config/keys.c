#include "daemon/config/keys.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include "base/error.h"
#include "base/log.h"
#include "base/paths.h"
#include "daemon/config/keys_source.h"

struct keys_entry {
	const struct family *family;
	char *env;             /* variable it came from, or NULL */
	size_t offset, length; /* in the pages; length 0: no key */
};

struct keys {
	char *map; /* guard page, pages with keys, guard page */
	size_t map_size;
	char *pages;
	size_t size, used;
	unsigned count;
	struct keys_entry entries[];
};

static void keys_advise(char *pages, size_t size, int advice, const char *what)
{
	if (madvise(pages, size, advice) < 0)
		log_info("keys: %s is not available here: %s", what, strerror(errno));
}

/* Locked on first touch: the room is for the longest keys, most are short. */
static int keys_map(struct keys *k, size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	k->size = ALIGN_UP(size, page);
	k->map_size = k->size + 2 * page;
	k->map = mmap(NULL, k->map_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (k->map == MAP_FAILED) {
		k->map = NULL;
		return error_origin(-errno);
	}
	k->pages = k->map + page;
	if (mprotect(k->pages, k->size, PROT_READ | PROT_WRITE) < 0)
		return error_origin(-errno);
	if (mlock2(k->pages, k->size, MLOCK_ONFAULT) < 0)
		log_info("keys: memory is not locked, keys may reach swap: %s (raise "
			 "RLIMIT_MEMLOCK)",
			strerror(errno));
	keys_advise(k->pages, k->size, MADV_DONTDUMP, "leaving keys out of core files");
	keys_advise(k->pages, k->size, MADV_WIPEONFORK, "wiping keys in children");
	return 0;
}

struct keys *keys_free(struct keys *k)
{
	if (!k)
		return NULL;
	for (unsigned i = 0; i < k->count; i++)
		free(k->entries[i].env);
	if (k->map) {
		if (mprotect(k->pages, k->size, PROT_READ | PROT_WRITE) == 0)
			explicit_bzero(k->pages, k->size);
		munmap(k->map, k->map_size);
	}
	free(k);
	return NULL;
}

static void keys_freep(struct keys **k)
{
	keys_free(*k);
}

static void keys_take(struct keys *k, struct keys_entry *entry, size_t length)
{
	entry->offset = k->used;
	entry->length = length;
	k->used += length;
}

/* Bytes were put at the end of what is used. */
static int keys_accept(
	struct keys *k, struct keys_entry *entry, size_t n, const char *source, const char *name)
{
	struct keys_fault fault;
	ssize_t length = keys_source_accept(k->pages + k->used, n, source, name, &fault);

	if (length < 0) {
		log_error("keys: %s", fault.text);
		return error_trace((int)length);
	}
	keys_take(k, entry, (size_t)length);
	return 0;
}

/* Straight into the locked page: there is no other copy to wipe. */
static int keys_read_file(
	struct keys *k, struct keys_entry *entry, const char *path, bool credential)
{
	struct keys_fault fault;
	ssize_t length = keys_source_file(path, credential, k->pages + k->used, &fault);

	if (length < 0) {
		log_error("keys: %s", fault.text);
		return error_trace((int)length);
	}
	keys_take(k, entry, (size_t)length);
	return 0;
}

/* The key that another provider, or the configuration before, took from the same variable. */
static const struct keys_entry *keys_find_env(const struct keys *k, const char *env)
{
	for (unsigned i = 0; k && i < k->count; i++)
		if (k->entries[i].length && k->entries[i].env &&
			strcmp(k->entries[i].env, env) == 0)
			return &k->entries[i];
	return NULL;
}

static int keys_read_env(
	struct keys *k, struct keys_entry *entry, const char *env, const struct keys *previous)
{
	char *room = k->pages + k->used;
	const struct keys_entry *old;
	ssize_t n = keys_source_env_take(env, room, KEYS_ROOM);

	if (n == -E2BIG) {
		log_error("keys: the key in variable %s cannot be used: it is longer than 4096 "
			  "characters",
			env);
		return error_origin(-EINVAL);
	}
	if (n < 0)
		return error_trace((int)n);
	if (n > 0)
		return error_trace(keys_accept(k, entry, (size_t)n, "variable", env));
	old = keys_find_env(k, env);
	if (old) {
		entry->offset = old->offset;
		entry->length = old->length;
		return 0;
	}
	old = keys_find_env(previous, env);
	if (!old)
		return 0;
	memcpy(room, previous->pages + old->offset, old->length);
	return error_trace(keys_accept(k, entry, old->length, "variable", env));
}

static int keys_read_credential(struct keys *k, struct keys_entry *entry, const char *name)
{
	char path[PATHS_MAX];
	int r = keys_source_credential(name, path, sizeof(path));

	if (r == -ENOENT) {
		log_warning(
			"keys: credential %s: CREDENTIALS_DIRECTORY is not set (systemd sets it "
			"with LoadCredential=)",
			name);
		return 0;
	}
	return r < 0 ? error_trace(r) : error_trace(keys_read_file(k, entry, path, true));
}

static int keys_read(
	struct keys *k, unsigned i, const struct config_provider *p, const struct keys *previous)
{
	struct keys_entry *entry = &k->entries[i];
	int r = 0;

	entry->family = p->family;
	if (p->key.file) {
		r = keys_read_file(k, entry, p->key.file, false);
	} else if (p->key.credential) {
		r = keys_read_credential(k, entry, p->key.credential);
	} else {
		const char *env = p->key.env ? p->key.env : p->family->key_env;

		if (env)
			r = keys_read_env(k, entry, env, previous);
		if (env && r == 0 && !(entry->env = strdup(env)))
			r = error_origin(-ENOMEM);
	}
	if (r < 0)
		return error_trace(r);
	if (entry->length == 0 &&
		(p->family->auth != FAMILY_AUTH_OPTIONAL || p->key.env || p->key.file ||
			p->key.credential))
		log_warning("keys: provider %s has no key and cannot be used: nothing in %s",
			p->name,
			p->key.file               ? p->key.file :
				p->key.credential ? p->key.credential :
				entry->env        ? entry->env :
						    "its configuration (key:)");
	return 0;
}

int keys_load(struct keys **out, const struct config *c, const struct keys *previous)
{
	struct keys *k aux_cleanup(keys_freep) =
		calloc(1, sizeof(*k) + c->provider_count * sizeof(k->entries[0]));
	int r;

	if (!k)
		return error_origin(-ENOMEM);
	k->count = c->provider_count;
	r = keys_map(k, (size_t)(k->count + 1) * KEYS_ROOM);
	for (unsigned i = 0; i < k->count && r == 0; i++)
		r = keys_read(k, i, &c->providers[i], previous);
	if (r < 0)
		return error_trace(r);
	if (mprotect(k->pages, k->size, PROT_READ) < 0)
		return error_origin(-errno);
	*out = steal_ptr(k);
	return 0;
}

bool keys_has(const struct keys *k, unsigned provider)
{
	return provider < k->count && k->entries[provider].length > 0;
}

int keys_append_header(const struct keys *k, unsigned provider, struct buffer *head)
{
	static const char bearer[] = "Authorization: Bearer ", x_api_key[] = "x-api-key: ";
	const struct keys_entry *entry;
	const char *name;
	int r;

	if (provider >= k->count)
		return error_origin(-EINVAL);
	entry = &k->entries[provider];
	if (entry->length == 0)
		return entry->family->auth == FAMILY_AUTH_OPTIONAL ? 0 : error_origin(-ENOKEY);
	name = entry->family->auth == FAMILY_AUTH_X_API_KEY ? x_api_key : bearer;
	/* All at once: growth in between would leave the key in freed memory. */
	r = buffer_reserve(head, strlen(name) + entry->length + 2);
	if (r < 0)
		return error_trace(r);
	(void)buffer_append(head, name, strlen(name));
	(void)buffer_append(head, k->pages + entry->offset, entry->length);
	return buffer_append(head, "\r\n", 2);
}

void keys_mask(const struct keys *k, unsigned provider, char *text)
{
	const char *key;
	size_t length;

	if (!keys_has(k, provider) || k->entries[provider].length < KEYS_TELLTALE)
		return;
	key = k->pages + k->entries[provider].offset;
	length = k->entries[provider].length;
	while (*text) {
		size_t n = 0;

		while (n < length && text[n] == key[n])
			n++;
		if (n >= KEYS_TELLTALE)
			memset(text, '*', n);
		text += n >= KEYS_TELLTALE ? n : 1;
	}
}

void keys_harden_process(void)
{
	const struct rlimit none = { 0, 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		log_info("keys: core files stay possible: %s", strerror(errno));
		/* LeakSanitizer stops the process with ptrace, which this forbids. */
#ifndef SANITIZED
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		log_info("keys: other processes of this user may trace: %s", strerror(errno));
#endif
}
