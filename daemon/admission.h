#pragma once

/*
 * May this request go to this target now: the budgets of its user, model and provider, all or
 * none. A stage over shm/bucket: no I/O, no clock.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/str.h"
#include "shm/bucket.h"

/* What was taken, so that it can be given back. */
struct admission_ticket {
	struct bucket_set set;
	uint64_t taken_ns;
	bool taken;
};

struct admission_verdict {
	enum bucket_outcome outcome; /* OK, E_WAIT or E_NEVER */
	uint64_t wait_ns;
	char limit[192]; /* "scope name" of the blocking limit */
	uint64_t burst;  /* of the blocking limit, in requests */
};

void admission_acquire(const struct region *region, struct str provider, struct str model,
	struct str user, uint64_t now_ns, struct admission_ticket *ticket,
	struct admission_verdict *verdict);

/* The request never left: what was taken goes back. Idempotent. */
void admission_give_back(
	const struct region *region, struct admission_ticket *ticket, uint64_t now_ns);
