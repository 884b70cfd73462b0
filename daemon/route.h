#pragma once

/*
 * Where a request may go: a model, "provider/model" or a route becomes an ordered chain of
 * targets. A stage: no I/O, no clock.
 */

#include <stdint.h>
#include "base/buffer.h"
#include "base/str.h"
#include "daemon/config/config.h"

#define ROUTE_CHAIN_MAX 16

struct route_target {
	unsigned provider;   /* index in the configuration */
	struct str upstream; /* the provider's name of the model */
	struct str model;    /* the name limits know */
	uint32_t max_tokens;
};

/* Strings are views into the configuration and the request. */
struct route_chain {
	unsigned count;
	struct route_target target[ROUTE_CHAIN_MAX];
};

enum route_outcome {
	ROUTE_OK = 0,
	ROUTE_E_UNKNOWN,   /* no such model, provider or route; *why says what there is */
	ROUTE_E_AMBIGUOUS, /* neither or both of model and route */
	ROUTE_E_DISABLED,  /* features.router is off */
};

/* 0 or an outcome; why is appended to, for the client's eyes. -ENOMEM. */
int route_resolve(const struct config *config, struct str model, struct str route,
	struct route_chain *chain, struct buffer *why);
