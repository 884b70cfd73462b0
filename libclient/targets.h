#pragma once

/*
 * The targets that a name stands for, resolved to rows of the region; what routing and the tickets
 * share. Not installed.
 *
 * As with limits: what was published is never changed, and kept until the handle is closed. A
 * target has one number for the life of the handle, its place in entry[].
 */

#include "libclient/resolved.h"
#include "shm/router.h"

static_assert(LLMKIT_TARGETS_MAX == ROUTER_CANDIDATES, "llmkit.h and shm/router.h differ");

#define TARGETS_ENTRIES_MAX 256

/* One target that the name stands for or once did. */
struct target_entry {
	char *name; /* "provider/model" */
	char *provider;
	const char *model;         /* in name */
	llmkit_limits *limits;     /* NULL: an observer's */
	_Atomic uint64_t panic_ns; /* when the router last sent a call there for want of others */
};

struct target_place {
	uint32_t row, provider_row;
	uint64_t key;
	uint32_t weight, entry;
};

/* One answer to what the name means. */
struct targets_found {
	struct targets_found *older;
	struct mapping *mapping;
	_Atomic uint64_t checked_ns;
	enum router_strategy strategy;
	uint16_t weight_cost, weight_latency, weight_reliability;
	int64_t price_cap_nanousd; /* negative: none */
	uint64_t patience_ns;
	_Atomic uint64_t *turn; /* NULL: none, or the region is read-only */
	unsigned count;
	struct target_place place[LLMKIT_TARGETS_MAX];
};

struct llmkit_targets {
	struct llmkit *kit;
	char *name, *user, *key; /* user, key: NULL when not known */
	_Atomic(struct targets_found *) found;
	struct targets_found *all;
	unsigned founds; /* of all */
	_Atomic unsigned entries;
	_Atomic(struct target_entry *) entry[TARGETS_ENTRIES_MAX];
	_Atomic uint32_t hold_hint;
};

/* What the name means now; looked up again when that is due. LLMKIT_E_. */
int targets_current(struct llmkit_targets *targets, struct targets_found **out, uint64_t *now_ns);

/* NULL: no such number. */
struct target_entry *targets_entry(struct llmkit_targets *targets, unsigned target);

/* For calls that name a target: its place in what the name means now. LLMKIT_E_ARGUMENT: no such
 * number; _UNKNOWN_MODEL: not configured any more. */
int targets_find(struct llmkit_targets *targets, unsigned target, struct targets_found **found,
	const struct target_place **place, uint64_t *now_ns);
