#pragma once

/*
 * What the fake provider decides about a request: which answer, whether the key is right and
 * within its rate, and the admin endpoints under /_fake/. One per process; no I/O but the log.
 */

#include "tests/fakeprovider/answer.h"
#include "tests/fakeprovider/arrival.h"

struct provider_counters {
	uint64_t accepted, open, tls_handshakes, tls_resumed;
	uint64_t requests, in_flight, in_flight_max, limited, aborted;
};

struct provider {
	struct limiter limiter;
	struct script_rules rules;
	struct arrival_log log;
	const char *required_key; /* NULL: any, or none */
	struct provider_counters counters;
	struct provider_times *times; /* how often a script with times= has been used */
};

/* 0, or -EINVAL with a message on stderr. */
int provider_load_rules(struct provider *p, const char *path);
void provider_deinit(struct provider *p);

/* Reads the request, fills in w->n, logs the arrival and begins the answer. Returns false when
 * it was an admin request, which is neither counted nor logged. */
bool provider_begin(
	struct provider *p, struct request *r, struct arrival_where *w, struct answer *a);

/* Once per provider_begin() that returned true. */
void provider_end(struct provider *p, const struct answer *a, uint64_t now_ns, const char *outcome);
