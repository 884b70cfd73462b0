#pragma once

/*
 * The operations that tests/crash/kill-points.c cuts off, as their processes know them: what is
 * prepared before, what is done on the region, and what is known after, if the process lives.
 */

#include "tests/crash/world.h"

enum op {
	LEASE,
	BORROW,
	ACQUIRE,
	PROGRESS,
	SETTLE,
	CANCEL,
	PENDING,
	ALLOW,
	RECORD,
	FEEDBACK,
	INSTANTIATE,
	CONFIGURE,
	RECLAIM,
	AUDIT,
	ROLL,
	BIRTH,
	REAP,
	ADOPT,
	OPS,
};

/* Who dies in it, and how often it is chosen. */
extern const struct operation {
	const char *name;
	bool daemon;
	unsigned weight;
} operations[OPS];

/* One operation; its results are lost when its process dies. */
struct call {
	enum op op;
	struct actor *actor;
	struct flight *flight;
	unsigned user;
	struct bucket_cost cost;
	struct bucket_verdict v;
	struct flight made;
	int row;
	unsigned depth; /* of others acting amid others */
	uint64_t random;
};

/* Draws what it is done with; false: there is nothing to do it with. */
bool operation_prepare(struct call *c);
/* struct call; between the two others. May be left at any access by longjmp. */
void operation_perform(void *call);
/* Who did it lives. */
void operation_finish(struct call *c);

/* The provider counts so much of what is left of a request, in 16ths; what is then told of it. */
struct bucket_cost operation_report(struct flight *f, unsigned sixteenths);

void operation_kill(struct actor *a);
