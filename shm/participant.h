#pragma once

/*
 * The attached client processes, one row for each of their handles. Only the daemon writes the
 * table; a row is freed on proof of death (pidfd, or pid and start time), never on a timeout nor
 * because a socket ended: what a process has in flight is marked with its row and generation
 * (shm/hold.h) and must not be given back while it lives. Anybody may read.
 */

#include <stdbool.h>
#include <stdint.h>
#include "shm/region.h"

enum participant_state {
	PARTICIPANT_FREE = 0,
	PARTICIPANT_ATTACHED = 1,
	PARTICIPANT_ORPHAN =
		2, /* its socket ended or its daemon died, and it lives, not back yet */
};

struct participant_view {
	enum participant_state state;
	uint64_t generation; /* how many processes have used the row */
	uint64_t pid, start, uid, attached_ns;
};

/* Daemon: a row for the process; an orphan row of the same (pid, start) is taken again, with its
 * generation, so that what it holds stays its own. Returns the row, or -ENOSPC. */
int participant_claim(
	struct region *r, uint64_t pid, uint64_t start, uint64_t uid, uint64_t now_ns);

/* Daemon: the process is dead. Whoever calls it reaps what it held, hold_reap(), first. */
void participant_release(struct region *r, uint32_t row);

/* Daemon: its socket ended, and nothing proves its death. The row waits for it, or for a proof. */
void participant_orphan(struct region *r, uint32_t row);

/* What marks the holds of the row's process: hold_owner(); 0: nobody has the row. */
uint64_t participant_owner(const struct region *r, uint32_t row);

/* One row for tools and tests; false: out of range. */
bool participant_view(const struct region *r, uint32_t row, struct participant_view *out);
