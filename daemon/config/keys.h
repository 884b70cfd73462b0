#pragma once

/*
 * API keys in memory: read once from environment, file or credential, kept in one page that is
 * locked, left out of core files and children, and between guard pages. The environment
 * variable is overwritten and removed after it was read. Nobody else holds a key; a key leaves
 * only as part of a request's head (keys_append_header), whose buffer its owner wipes.
 */

#include <stdbool.h>
#include "base/buffer.h"
#include "daemon/config/config.h"

struct keys;

/* Reads the key of every provider of the configuration, in order. A missing key is logged as a
 * warning and makes the provider unusable, not the daemon. previous: the keys before a reload
 * (environment variables are gone by then); may be NULL, stays the caller's. 0, -errno, logged with
 * what to do: -EACCES for a key file that others can read, -EINVAL for bytes that are no key. */
int keys_load(struct keys **out, const struct config *c, const struct keys *previous);
struct keys *keys_free(struct keys *k);

bool keys_has(const struct keys *k, unsigned provider);
/* Appends "Authorization: Bearer ...\r\n" or the family's form; nothing when there is no key and
 * none is needed. 0, -ENOKEY, -ENOMEM. A head that grows afterwards leaves a copy in freed memory:
 * reserve first, or append this last. */
int keys_append_header(const struct keys *k, unsigned provider, struct buffer *head);

/* Masks whatever of a provider's key stands in text, which a stranger wrote: the key, or its
 * beginning from KEYS_TELLTALE characters on where the rest was cut off. */
#define KEYS_TELLTALE 12
void keys_mask(const struct keys *k, unsigned provider, char *text);

/* No core dumps, no ptrace by the same user. Once at start. */
void keys_harden_process(void);
