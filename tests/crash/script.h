#pragma once

/*
 * What tests/crash/single-step.c cuts off: the same calls on the same bytes, in one program built
 * with hooked accesses, in another (victim.c) as everywhere else.
 */

#include <stdint.h>
#include <sys/mman.h>
#include "base/aux.h"
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/hold.h"
#include "shm/participant.h"
#include "shm/region.h"

enum script { SCRIPT_REQUEST, SCRIPT_PROBE, SCRIPT_REAP, SCRIPT_LIMITS, SCRIPT_ROWS, SCRIPTS };

static const char *const script_names[SCRIPTS] = {
	[SCRIPT_REQUEST] = "lease, progress, settle; borrow, cancel",
	[SCRIPT_PROBE] = "breaker: allow, record",
	[SCRIPT_REAP] = "reap",
	[SCRIPT_LIMITS] = "limits: change, make on demand, retire",
	[SCRIPT_ROWS] = "participants: claim, orphan, reclaim, release",
};

struct script_call {
	uint64_t owner, dead; /* of the process that acts, and of one that died */
	uint64_t now_ns;
	uint32_t target;
};

/* Where holds are looked for depends on a lease's address: it is the same in both programs. */
#define SCRIPT_LEASE ((struct bucket_lease *)(uintptr_t)0x200000000000)

static inline bool script_init(void)
{
	return mmap(SCRIPT_LEASE, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
		       0) == (void *)SCRIPT_LEASE;
}

static inline struct bucket_names script_user(const char *user)
{
	return (struct bucket_names){ str_of(user), str_of("m"), str_of("p"), STR_NULL };
}

static inline void script_request(const struct region *r, const struct script_call *c)
{
	const struct bucket_cost cost = { 1, 100, 50, 100000 }, part = { 0, 60, 0, 5000 },
				 rest = { 0, 40, 70, 100000 };
	const struct bucket_names names = script_user("u0");
	struct bucket_lease *lease = SCRIPT_LEASE;
	uint32_t total = HOLD_TOTAL_TARGET(c->target);
	struct bucket_set set = { 0 };

	bucket_resolve(r, &names, c->now_ns, &set);
	if (bucket_lease(r, c->owner, &set, &cost, c->now_ns, lease).outcome == BUCKET_OK) {
		hold_move(r, lease->hold, c->owner, total, 1, 0, NULL);
		bucket_progress(r, lease, &part, c->now_ns);
		hold_move(r, lease->hold, c->owner, total, 0, 1, NULL);
		bucket_settle(r, lease, &rest, c->now_ns);
	}
	if (bucket_borrow(r, c->owner, &set, &cost, c->now_ns, NSEC_PER_SEC, lease).outcome ==
		BUCKET_OK)
		bucket_cancel(r, lease, c->now_ns);
}

static inline void script_probe(const struct region *r, const struct script_call *c)
{
	const struct breaker_report bad = { BREAKER_FAILED, 0 };
	const struct breaker_report good = { BREAKER_OK, 300 * NSEC_PER_MSEC };
	struct breaker_ticket ticket;
	uint64_t now = c->now_ns, wait_ns;

	for (int i = 0; i < 8; i++) {
		if (breaker_allow(r, c->target, c->owner, now, 7, &ticket, &wait_ns) ==
			BREAKER_REJECT)
			now += wait_ns;
		else
			breaker_record(r, &ticket, i < 3 ? &bad : &good, now, 7);
	}
}

static inline void script_limits(struct region *r, const struct script_call *c)
{
	struct bucket_limit limit = { .scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_HELD,
		.name = str_of("p"),
		.limit = 70000,
		.window_ns = NSEC_PER_SEC,
		.burst = 900 };
	const struct bucket_names names = script_user("u4");
	bool keep[64] = { false };

	bucket_configure(r, &limit, c->now_ns);
	bucket_instantiate(r, &names, c->now_ns);
	bucket_retire(r, keep);
	limit.burst = 1000;
	bucket_configure(r, &limit, c->now_ns);
	bucket_roll(r, c->now_ns + UINT64_C(86400) * NSEC_PER_SEC,
		c->now_ns + UINT64_C(86400) * NSEC_PER_SEC);
	bucket_adopt(r, c->now_ns);
}

static inline void script_run(struct region *r, enum script script, const struct script_call *c)
{
	int row;

	switch (script) {
	case SCRIPT_REQUEST:
		script_request(r, c);
		break;
	case SCRIPT_PROBE:
		script_probe(r, c);
		break;
	case SCRIPT_REAP:
		hold_reap(r, c->dead, c->now_ns);
		breaker_reap(r, c->dead);
		break;
	case SCRIPT_LIMITS:
		script_limits(r, c);
		break;
	case SCRIPT_ROWS:
		row = participant_claim(r, 900, 1, 0, c->now_ns);
		participant_orphan(r, (uint32_t)row);
		participant_claim(r, 900, 1, 5, c->now_ns + 1);
		participant_release(r, (uint32_t)row);
		break;
	case SCRIPTS:
		break;
	}
}
