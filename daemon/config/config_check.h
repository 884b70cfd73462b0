#pragma once

/*
 * Private to config*.c: the file as text (struct config_raw, filled by cyaml), the collector of
 * errors, and the step from the one to struct config that finds every error and not just the first.
 *
 * All values are text here, NULL when absent, so that their errors are ours: with position,
 * value and what is allowed. What may be a word or a group is not here: config_given() reads it.
 */

#include <sys/un.h>
#include "base/aux.h"
#include "base/buffer.h"
#include "daemon/config/config.h"
#include "daemon/config/config_where.h"

struct config_raw_list {
	char **items;
	unsigned count;
};

struct config_raw_access {
	struct config_raw_group {
		struct config_raw_list users, groups;
		char *everyone;
	} * participants, *observers;
};

struct config_raw_provider {
	char *name, *family, *base_url;
	struct config_raw_key {
		char *env, *file, *credential;
	} * key;
	char *ca_file, *proxy;
	struct config_raw_timeouts {
		char *connect, *first_byte, *stall;
	} * timeouts;
	char *connections;
	struct config_raw_keep_alive {
		char *idle, *max_age;
	} * keep_alive;
	char *tokens;
};

struct config_raw_model {
	char *name, *provider, *upstream;
	struct config_raw_price {
		char *input, *output, *cached_input;
	} * price;
	char *max_tokens, *context;
	struct config_raw_list capabilities;
};

struct config_raw_route {
	char *name, *strategy;
	struct config_raw_weights {
		char *cost, *latency, *reliability;
	} * weights;
	char *price_cap, *patience;
};

struct config_raw_limit {
	char *provider, *model, *user, *key;
};

struct config_raw {
	char *socket, *runtime;
	struct config_raw_access *access;
	struct config_raw_provider *providers;
	unsigned provider_count;
	bool providers_given; /* an empty list is NULL, too, but asks for none */
	struct config_raw_model *models;
	unsigned model_count;
	struct config_raw_route *routes;
	unsigned route_count;
	struct config_raw_limit *limits;
	unsigned limit_count;
	struct config_raw_tables {
		char *limits, *requests_in_flight, *targets;
	} * tables;
	struct config_raw_features {
		char *limiter, *router, *breaker;
	} * features;
	struct config_raw_log {
		char *level;
	} * log;
	char *drain_timeout, *request_timeout;
	char *connections_per_user, *requests_per_connection;
};

#define CONFIG_ERRORS_MAX 50 /* lines; more help nobody */
#define CONFIG_PATH_MAX 128  /* of a path such as "providers[2].timeouts.connect" */

struct config_report {
	const char *file;
	const struct config_where *where; /* NULL: positions are 1:1 */
	struct buffer *error;
	unsigned count;
	bool misshapen; /* a value of the wrong kind: the values are not looked at */
	int failed;     /* -ENOMEM while writing */
};

/* One line: FILE:LINE:COLUMN: text. */
void config_fail_position(struct config_report *r, struct config_position at, const char *format,
	...) aux_printf(3, 4);
/* One line: FILE:LINE:COLUMN: path: text, at the position of path. */
void config_fail(struct config_report *r, const char *path, const char *format, ...)
	aux_printf(3, 4);
/* 0, CONFIG_E_INVALID when anything was reported, or -errno. */
int config_report_end(const struct config_report *r);

/* Fields of one group. prefix is its path with the dot, "" at the top. text NULL: not given, *value
 * stays what it was, which is the default. Errors go to r. */
struct config_field {
	struct config_report *report;
	const char *prefix;
};
/* The fields of a group that is a field itself; prefix is where its path is put. */
struct config_field config_field_group(
	struct config_field f, const char *key, char prefix[CONFIG_PATH_MAX]);
/* A word that is in the file and not in struct config_raw; NULL: not given, or a group or list. */
const char *config_given(struct config_field f, const char *key);
enum config_kind config_given_kind(struct config_field f, const char *key);
size_t config_given_count(struct config_field f, const char *key);
/* An error at a field. */
void config_fail_field(struct config_field f, const char *key, const char *format, ...)
	aux_printf(3, 4);
void config_check_duration(struct config_field f, const char *key, const char *text, uint64_t min,
	uint64_t max, uint64_t *value);
void config_check_count(struct config_field f, const char *key, const char *text, uint64_t min,
	uint64_t max, unsigned *value);
void config_check_bool(struct config_field f, const char *key, const char *text, bool *value);
/* Entries of a list at the top; 0 and an error above max. */
unsigned config_check_entries(
	struct config_report *r, const char *path, unsigned count, unsigned max);
/* A copy of a non-empty text; absent: *value stays. */
void config_check_text(struct config_field f, const char *key, const char *text, char **value);
/* Appends "there is none" or "there are: a, b"; names by get(c, i). */
void config_append_names(struct buffer *out, const struct config *c, unsigned count,
	const char *(*get)(const struct config *c, unsigned i));
/* A copy of a required word, or an error and NULL. */
char *config_take_word(struct config_report *r, const char *path, const char *word);
/* Index of a provider by name; -1 and an error. */
int config_take_provider(
	const struct config *c, struct config_report *r, const char *path, struct str name);
const char *config_provider_name(const struct config *c, unsigned i);
const char *config_model_name(const struct config *c, unsigned i);

/* Raw text (NULL: no file) into c, which is all zero. 0 or -ENOMEM; errors in r. */
int config_check(struct config *c, const struct config_raw *raw, struct config_report *r);
/* Its steps. */
int config_check_providers(struct config *c, const struct config_raw *raw, struct config_report *r);
int config_check_access(struct config *c, const struct config_raw *raw, struct config_report *r);
int config_check_models(struct config *c, const struct config_raw *raw, struct config_report *r);
int config_check_routes(struct config *c, const struct config_raw *raw, struct config_report *r);
int config_check_limits(struct config *c, const struct config_raw *raw, struct config_report *r);
/* The field "breaker" of a provider or model; *settings comes with its default. */
void config_check_breaker(struct config_field f, struct breaker_settings *settings);
bool config_breaker_equal(const struct breaker_settings *a, const struct breaker_settings *b);

#define CONFIG_SOCKET_MAX (sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1)
#define CONFIG_PROVIDERS_MAX 256
#define CONFIG_MODELS_MAX 4096
#define CONFIG_ROUTES_MAX 256   /* LAYOUT_ROUTES */
#define CONFIG_LIMITS_MAX 4096  /* LAYOUT_BUCKETS */
#define CONFIG_TARGETS 256      /* LAYOUT_TARGETS */
#define CONFIG_PROBES_MAX 4     /* LAYOUT_PROBES */
#define CONFIG_HOLDING_MAX 12   /* LAYOUT_HOLD_ENTRIES */
#define CONFIG_NAME_JOIN '\x1f' /* LAYOUT_NAME_JOIN */
#define CONFIG_NAME_MAX 62      /* bytes of a provider's name */
#define CONFIG_WORD_MAX 96 /* of a model's, route's, user's or key's; PROVIDER/MODEL fits a row */
