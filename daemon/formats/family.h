#pragma once

/*
 * The providers known by name, as data (daemon/formats/tbl/families.h): which format they speak,
 * where, how they authenticate, which environment variable holds their key, and how they differ
 * from the format's pattern. A provider that is not here is configured with the row of the one it
 * resembles.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/str.h"

enum family_format {
	FAMILY_FORMAT_OPENAI = 1,    /* chat completions */
	FAMILY_FORMAT_ANTHROPIC = 2, /* messages */
};

enum family_auth {
	FAMILY_AUTH_BEARER = 1, /* Authorization: Bearer KEY */
	FAMILY_AUTH_X_API_KEY,  /* x-api-key: KEY */
	FAMILY_AUTH_OPTIONAL,   /* bearer when a key is configured (local servers) */
};

enum family_quirk {
	FAMILY_NO_STREAM_OPTIONS = 1 << 0, /* refuses it; reports usage unasked or never */
	FAMILY_SEED_IS_RANDOM_SEED = 1 << 1,
	FAMILY_USAGE_X_GROQ = 1 << 2, /* x_groq.usage in the last chunk */
};

struct family {
	const char *name; /* "openai" */
	enum family_format format;
	const char *base_url;
	const char *chat_path; /* appended to the base URL's path */
	enum family_auth auth;
	const char *key_env; /* conventional variable; NULL for local servers */
	uint32_t quirks;     /* enum family_quirk */
};

/* NULL when unknown. */
const struct family *family_find(struct str name);
/* All rows compiled in (-Dformats), for zero configuration and for error texts. */
const struct family *family_table(size_t *count);
/* The key variable of a family compiled in, for a text that gives an example. */
const char *family_example_key(void);
/* Whether the name is that of a family whose format was left out of this build. */
bool family_is_left_out(struct str name);
/* The first key variable of such a family that is present; NULL when there is none. */
const char *family_left_out_key(bool (*present)(const char *variable));
