#pragma once

/*
 * One try to take from the limits of a handle, and sleeping until the next is worth it. Shared by
 * requests and leases; not installed.
 */

#include "libclient/resolved.h"

enum attempt_kind {
	ATTEMPT_REQUESTS, /* bucket_acquire() */
	ATTEMPT_LEASE,    /* bucket_lease() */
	ATTEMPT_PEEK,     /* bucket_peek() */
};

struct attempt {
	enum attempt_kind kind;
	struct llmkit_limits *limits;
	struct bucket_cost cost;
	struct llmkit_verdict *verdict; /* may be NULL */
	/* filled by a try */
	struct resolved *resolved;
	struct bucket_lease lease; /* by ATTEMPT_LEASE, when admitted */
	struct bucket_verdict result;
	uint64_t at_ns; /* what the result is of */
};

/* LLMKIT_OK: taken. _LIMITED, _NEVER_FITS with the verdict, and why else not. */
int attempt_once(struct attempt *a);

/* Tries until admitted or the deadline, as llmkit_acquire_until(). */
int attempt_until(struct attempt *a, uint64_t deadline_ns);
