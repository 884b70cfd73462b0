#pragma once

/*
 * Configuration: YAML file or environment -> one checked, immutable struct. The only home of
 * cyaml (config.c) and, for the positions of errors, of libyaml (config_where.c). Reads files
 * at start and reload only, on the main thread. Holds where keys come from, never a key.
 */

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/buffer.h"
#include "base/log.h"
#include "daemon/formats/family.h"
#include "daemon/io/listener.h"
#include "shm/breaker.h"
#include "shm/bucket.h"
#include "shm/bucket_table.h"
#include "shm/region.h"
#include "shm/router.h"

struct config_key {       /* exactly one is set; none: the family's key_env */
	char *env;        /* variable name */
	char *file;       /* path; refused when group or others can read it */
	char *credential; /* name under $CREDENTIALS_DIRECTORY */
};

struct config_provider {
	char *name;
	const struct family *family;
	char *base_url; /* scheme://host[:port][/path], no slash at its end */
	struct config_key key;
	char *ca_file; /* or NULL */
	char *proxy;   /* or NULL */
	uint64_t connect_timeout_ns, first_byte_timeout_ns, stall_timeout_ns;
	unsigned connections;         /* at most, to this provider */
	uint64_t idle_ns, max_age_ns; /* of kept connections */
	bool reserve;                 /* charges tokens at submission: limits do, too */
	struct breaker_settings breaker;
};

struct config_price { /* pico-USD per token; -1: not known */
	int64_t input, output, cached_input;
};

struct config_model {
	char *name;        /* what clients ask for */
	unsigned provider; /* index */
	char *upstream;    /* the provider's name for it */
	struct config_price price;
	uint32_t max_tokens;   /* default where one is required; 0: the format's */
	uint64_t context;      /* tokens; 0: not known */
	uint64_t capabilities; /* enum target_capability bits; all when not given */
	struct breaker_settings breaker;
};

struct config_route {
	char *name;
	struct config_target {
		unsigned provider;
		char *upstream;                 /* the provider's name of the model */
		char *model;                    /* as limits and clients know it */
		const struct config_model *row; /* of models; NULL: nobody configured it */
		uint32_t weight;                /* ROUTER_WEIGHTED; 1 when not given */
	} * targets;                            /* in order */
	unsigned target_count;
	enum router_strategy strategy;                            /* ROUTER_ORDER when not given */
	uint16_t weight_cost, weight_latency, weight_reliability; /* parts of 1000 */
	int64_t price_cap_nanousd;                                /* of a whole call; -1: none */
	uint64_t patience_ns; /* targets whose limits have it wait longer are passed over */
};

/* One resource of one "limits:" entry or template. */
struct config_limit {
	uint64_t scope; /* mask of enum bucket_scope */
	enum bucket_resource resource;
	enum bucket_kind kind; /* HELD or, at a provider that reserves, RATE */
	char *name;            /* as bucket_join() makes it; NULL: a template */
	uint64_t limit, window_ns, burst;
	bool automatic; /* follows what the provider's answers say */
};

struct config {
	char *path;    /* of the file, or NULL: from the environment */
	char *socket;  /* path */
	char *runtime; /* folder of the region, on tmpfs */
	struct listener_access access;
	struct config_provider *providers;
	unsigned provider_count;
	struct config_model *models;
	unsigned model_count;
	struct config_route *routes;
	unsigned route_count;
	struct config_limit *limits;
	unsigned limit_count;
	struct config_limit *templates;
	unsigned template_count;
	struct region_sizes tables; /* of a region that is made anew */
	struct {
		bool limiter; /* limits are enforced on requests through the daemon */
		bool router;  /* routes may be used, and fall back to their later targets */
		bool breaker; /* failing targets are left alone for a while */
	} features;
	enum log_level log_level;
	uint64_t drain_timeout_ns;
	uint64_t request_timeout_ns; /* default of a request's total time */
	unsigned connections_per_uid;
	unsigned requests_per_connection;
};

enum config_outcome {
	CONFIG_OK = 0,
	CONFIG_E_INVALID, /* *error: "FILE:LINE:COLUMN: what, the value, what is allowed" lines */
};

/*
 * path NULL: LLMKIT_CONFIG, else the first that exists of $XDG_CONFIG_HOME/llmkit/llmkitd.yaml (a
 * user) or /etc/llmkit/llmkitd.yaml (root or a system user), else the environment alone. The
 * socket: LLMKIT_SOCKET over the file over the default of base/paths.h. 0, CONFIG_E_INVALID, or
 * -errno. A file without "providers:" has those of the environment.
 */
int config_load(struct config **out, const char *path, struct buffer *error);
struct config *config_free(struct config *c);

/* The effective configuration as YAML that config_load() accepts, sources of keys named, with a
 * comment for each key whether it was found. */
int config_print(const struct config *c, struct buffer *out);

/* What limits of scope "key" call a provider's API key: the variable, file or credential it comes
 * from. A view into the configuration; never the key. */
struct str config_key_label(const struct config_provider *p);

/* Index of the provider of that name; -1 when there is none. */
int config_find_provider(const struct config *c, struct str name);

/* The model of that name; with an index of a provider, that one's, also by the provider's own name
 * for it; provider -1: anyone's. NULL: none. */
const struct config_model *config_find_model(const struct config *c, struct str name, int provider);
