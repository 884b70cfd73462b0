#pragma once

/*
 * One generation of the configuration made ready for use: per provider its format, its lane of
 * connections and the fixed parts of a request's head. Immutable, counted: a request keeps the
 * generation it began with, a reload makes a new one.
 */

#include <stdbool.h>
#include "base/buffer.h"
#include "daemon/config/config.h"
#include "daemon/io/exchange.h"
#include "daemon/formats/format.h"
#include "daemon/config/keys.h"

struct catalog_provider {
	const struct config_provider *config;
	const struct format *format;
	struct exchange_lane *lane;
	/* A request's head up to the value of Content-Length, for plain and streamed answers. */
	char *head[2];
};

struct catalog {
	unsigned references;
	struct config *config;
	struct keys *keys;
	struct catalog_provider *provider; /* config->provider_count */
};

/* Takes over config and keys on success. 0, -ENOMEM. */
int catalog_new(
	struct catalog **out, struct config *config, struct keys *keys, struct exchange_pool *pool);
/* From now on connections are made as this generation wants them. */
void catalog_use(const struct catalog *c);
struct catalog *catalog_ref(struct catalog *c);
struct catalog *catalog_unref(struct catalog *c);

/* Appends the whole head of a request, with the key in it: the caller wipes the buffer. */
int catalog_head(const struct catalog *c, unsigned provider, size_t body_length, bool stream,
	struct buffer *head);
