#pragma once

/*
 * Where a request may go: a model, "provider/model" or a route becomes a chain of targets, which is
 * then put in order by the route's strategy and what the region knows of the targets. A stage: no
 * I/O, no clock.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/str.h"
#include "daemon/config/config.h"
#include "shm/router.h"

#define ROUTE_CHAIN_MAX 16

struct route_target {
	unsigned provider;   /* index in the configuration */
	struct str upstream; /* the provider's name of the model */
	struct str model;    /* the name limits know */
	uint32_t max_tokens;
	uint32_t weight;
	const struct config_price *price; /* NULL: no row of "models" */
	uint32_t row, provider_row;       /* of the region's targets, or TARGET_NONE */
	uint64_t key;                     /* of row, or of provider_row where there is no row */
	uint64_t provider_key;            /* of provider_row */
	bool forced;                      /* its breaker is open, but so are all others' */
};

/* Strings are views into the configuration and the request. */
struct route_chain {
	const struct config_route *route; /* NULL: a model */
	unsigned count;
	struct route_target target[ROUTE_CHAIN_MAX];
};

enum route_outcome {
	ROUTE_OK = 0,
	ROUTE_E_UNKNOWN,   /* no such model, provider or route; *why says what there is */
	ROUTE_E_AMBIGUOUS, /* neither or both of model and route */
	ROUTE_E_DISABLED,  /* features.router is off */
	ROUTE_E_CONTEXT,   /* the request fits no target's context */
	ROUTE_E_OPEN,      /* those that could take it are out for their breakers; as NO_TARGET */
	ROUTE_E_NO_TARGET, /* no target can take it; *why names a reason for each */
};

/* 0 or an outcome; why is appended to, for the client's eyes. -ENOMEM. */
int route_resolve(const struct config *config, struct str model, struct str route,
	struct route_chain *chain, struct buffer *why);

/* The rows of the region that the target has now. */
void route_find_row(
	const struct region *region, const struct config *config, struct route_target *target);
/* The same for all of the chain. */
void route_find_rows(
	const struct region *region, const struct config *config, struct route_chain *chain);

/* What the route asks for of its targets, besides the request's own. */
struct router_query route_query(const struct route_chain *chain);

/*
 * Puts the chain in order and leaves out what cannot take the request. limits: one set per target.
 * What only has to wait, for a budget or a pause, comes last, least wait first; what has no key
 * stays when nothing else does, for its own error to tell. ROUTE_OK or an outcome with *why.
 */
int route_rank(const struct region *region, const struct config *config, struct route_chain *chain,
	const struct bucket_set *limits, const struct router_query *query, uint64_t now_ns,
	struct buffer *why);
