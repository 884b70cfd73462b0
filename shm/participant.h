#pragma once

/*
 * The attached client processes, one row each. Only the daemon writes the table; a row is freed
 * on proof of death (socket end and pidfd), never on a timeout.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/region.h"

enum participant_state {
	PARTICIPANT_FREE = 0,
	PARTICIPANT_ATTACHED = 1,
	PARTICIPANT_ORPHAN = 2, /* lived through the death of a daemon, not reconnected yet */
};

struct participant_view {
	enum participant_state state;
	uint64_t generation; /* how often the row was used */
	uint64_t pid, start, uid, attached_ns;
};

/* Daemon: a row for the process; an orphan row of the same (pid, start) is taken again.
 * Returns the row, or -ENOSPC. */
int participant_claim(
	struct region *r, uint64_t pid, uint64_t start, uint64_t uid, uint64_t now_ns);

/* Daemon: the process is dead or has left. */
void participant_release(struct region *r, uint32_t row);

/* Daemon, after adoption: every attached row becomes an orphan, or free when is_alive() says
 * that (pid, start) is gone. Returns how many are orphans. */
uint32_t participant_adopt(struct region *r, bool (*is_alive)(uint64_t pid, uint64_t start));

/* Daemon, now and then: frees the orphans that is_alive() says are gone; those that never come back
 * close no socket. Returns how many it freed. */
uint32_t participant_reap(struct region *r, bool (*is_alive)(uint64_t pid, uint64_t start));

/* One row for tools and tests; false: out of range. */
bool participant_view(const struct region *r, uint32_t row, struct participant_view *out);
