#pragma once

/* What daemon/control_members.c does with the participants of an earlier daemon, for tests that run
 * without it: who lives is an orphan, who is dead is buried. */

#include "shm/breaker.h"
#include "shm/hold.h"
#include "shm/participant.h"

static inline void adopt_participants(
	struct region *r, bool (*is_alive)(uint64_t pid, uint64_t start), uint64_t now_ns)
{
	struct participant_view view;

	for (uint32_t i = 0; i < r->participants; i++) {
		uint64_t owner = participant_owner(r, i);

		if (owner == 0 || !participant_view(r, i, &view))
			continue;
		participant_orphan(r, i);
		if (is_alive(view.pid, view.start))
			continue;
		hold_reap(r, owner, now_ns);
		breaker_reap(r, owner);
		participant_release(r, i);
	}
}
