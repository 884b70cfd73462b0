/*
 * Processes and the daemon die before every access to a shared word, in every operation, while
 * others act in between and die too. Then the dead are reaped, by a daemon that dies itself at
 * every access. Shown after each: all totals are what the living hold, nothing is lost, no
 * operation hangs, and the provider's own buckets were never overrun. The same seed gives the same
 * run.
 *
 *     kill-points [--seed N] [--deaths N]
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/aux.h"
#include "base/clock.h"
#include "tests/crash/hook.h"
#include "tests/crash/operations.h"

/* Accesses that no operation needs: a client's are few, the daemon's go over whole tables. */
#define CLIENT_LIMIT 20000
#define DAEMON_LIMIT 100000
#define DEPTH_MAX 2
#define SWEEPS 4000 /* in one world */
#define STEPS 4000
#ifdef SANITIZED
#define DEATHS 150000
#else
#define DEATHS 10000000
#endif

static struct {
	uint64_t deaths;
	unsigned next,
		longest; /* the access at which the next one dies; how many there were at most */
} swept[OPS];
static uint64_t deaths, nested, admitted;
static unsigned depth; /* of others acting amid others */

/* ---- running them ---- */

static enum op random_op(bool daemon)
{
	uint64_t op;

	do {
		op = world_random(OPS);
	} while (operations[op].daemon != daemon || world_random(12) >= operations[op].weight);
	return (enum op)op;
}

/* False: it died. dies_at 0: it lives. */
static bool run(struct call *c, unsigned dies_at, void (*others)(void))
{
	bool daemon = operations[c->op].daemon, lived;
	struct hook h = {
		.dies_at = dies_at, .limit = daemon ? DAEMON_LIMIT : CLIENT_LIMIT, .others = others
	};
	bool *acting = daemon ? &world.daemon_acting : &c->actor->acting;
	const char *what = world_what;

	c->depth = depth;
	world_what = operations[c->op].name;
	*acting = true;
	lived = hook_run(&h, operation_perform, c);
	*acting = false;
	world_note(operations[c->op].name, c->actor ? (unsigned)(c->actor - world.actor) : 99,
		h.steps, lived);
	swept[c->op].longest = (unsigned)max_u64(swept[c->op].longest, h.steps);
	if (lived) {
		operation_finish(c);
	} else {
		deaths++;
		swept[c->op].deaths++;
		if (daemon)
			world.daemon_dead = true;
		else
			operation_kill(c->actor);
	}
	world_what = what;
	return lived;
}

static bool choose(struct call *c)
{
	struct actor *a = &world.actor[world_random(WORLD_ACTORS)];
	bool daemon = world_random(32) == 0;

	memset(c, 0, sizeof(*c));
	c->actor = a;
	c->op = random_op(daemon);
	if (daemon && world.daemon_acting)
		return false;
	if (daemon && world.daemon_dead)
		c->op = ADOPT;
	else if (daemon && !a->alive && a->owner != 0 && world_random(2))
		c->op = REAP;
	return operation_prepare(c);
}

static void others(void)
{
	struct call c;

	if (depth >= DEPTH_MAX || world_random(24) > 0)
		return;
	depth++;
	if (choose(&c)) {
		nested++;
		run(&c, world_random(4) ? 0 : 1 + (unsigned)world_random(swept[c.op].longest + 1),
			others);
	}
	depth--;
}

/* Dies at the next access in turn. */
static bool run_next(struct call *c)
{
	unsigned dies_at = swept[c->op].next % (swept[c->op].longest + 1) + 1;

	swept[c->op].next = dies_at;
	return run(c, dies_at, world_random(2) ? others : NULL);
}

/* By the daemon, or by as many of them as it takes. */
static void by_daemons(enum op op, struct actor *a)
{
	do {
		struct call c = { .op = world.daemon_dead ? ADOPT : op, .actor = a };

		operation_prepare(&c);
		if (world_random(8) == 0)
			run_next(&c);
		else
			run(&c, 0, NULL);
		if (c.op == op && !world.daemon_dead)
			return;
	} while (world.daemon_dead || op == BIRTH);
}

/* Chooses until there is something to do it with. */
static bool choose_well(struct call *c)
{
	for (int i = 0; i < 8; i++)
		if (choose(c))
			return true;
	return false;
}

/* A limit of a user is made on demand. */
static void make_missing(const struct call *c)
{
	struct call d = { .op = INSTANTIATE, .actor = c->actor };

	if (c->v.outcome != BUCKET_E_MISSING || world.daemon_dead)
		return;
	operation_prepare(&d);
	d.user = c->user;
	if (world_random(8) == 0)
		run_next(&d);
	else
		run(&d, 0, NULL);
}

/* Time goes on, and some act who live. */
static void go_on(void)
{
	static const uint64_t strides[] = { NSEC_PER_MSEC, NSEC_PER_MSEC, 4 * NSEC_PER_MSEC,
		100 * NSEC_PER_MSEC };
	struct call c;

	for (int i = 0; i < 4; i++) {
		world_advance(world_random(strides[world_random(ARRAY_SIZE(strides))]));
		if (!choose_well(&c))
			continue;
		run(&c, 0, NULL);
		make_missing(&c);
	}
	if (world_random(50) == 0)
		world_advance(21600 * NSEC_PER_SEC);
}

static void step(void)
{
	bool all_well = true;
	struct call c;

	if (choose_well(&c)) {
		run_next(&c);
		make_missing(&c);
	}
	go_on();
	if (world.daemon_dead || world_random(4))
		by_daemons(REAP, NULL);
	for (unsigned i = 0; i < WORLD_ACTORS; i++)
		if (world.actor[i].owner == 0 && !world.daemon_dead)
			by_daemons(BIRTH, &world.actor[i]);
	for (unsigned i = 0; i < WORLD_ACTORS; i++)
		all_well &= world.actor[i].alive;
	if (all_well && !world.daemon_dead) {
		world_check_still();
		world_check_room();
	}
}

/* Whoever died is reaped, and all adds up. */
static void recover(void)
{
	struct call c = { .op = REAP };

	operation_prepare(&c);
	operation_perform(&c);
	operation_finish(&c);
	world_check_still();
	world_check_room();
}

/* From where the world is, one operation dies at each of its accesses. */
static void sweep(enum op op)
{
	struct call c = { .op = op, .actor = &world.actor[world_random(WORLD_ACTORS)] };
	bool lived = false;

	if (!operation_prepare(&c))
		return;
	world_save();
	for (unsigned at = 1; !lived; at++) {
		struct call one = c;

		lived = run(&one, at, NULL);
		if (lived)
			break;
		world.daemon_dead = false;
		recover();
		world_restore();
	}
}

static unsigned act_at, accesses; /* others act once, before this access of an operation */

static void others_once(void)
{
	struct call c;

	if (++accesses == act_at && choose_well(&c)) {
		nested++;
		run(&c, 0, NULL);
	}
}

/* From where the world is, one operation after which all adds up, while others act at each of its
 * accesses. */
static void sweep_amid(enum op op)
{
	struct call c = { .op = op, .actor = &world.actor[world_random(WORLD_ACTORS)] };

	if (!operation_prepare(&c))
		return;
	world_save();
	for (act_at = 1; act_at == 1 || act_at <= accesses; act_at++) {
		struct call one = c;

		world_restore();
		world.seed += act_at;
		accesses = 0;
		run(&one, 0, others_once);
		recover();
	}
	world_restore();
	run(&c, 0, NULL);
}

/* Two die; whoever reaps them dies at each of its accesses; the next one begins anew. */
static void sweep_reaper(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct call c = { .op = i ? LEASE : SETTLE, .actor = &world.actor[i] };

		if (operation_prepare(&c))
			run(&c, 1 + (unsigned)world_random(swept[c.op].longest + 1), NULL);
		if (c.actor->alive)
			operation_kill(c.actor);
	}
	if (world_random(2))
		sweep_amid(REAP);
	else
		sweep(REAP);
	while (world.actor[0].owner == 0 || world.actor[1].owner == 0)
		by_daemons(BIRTH, &world.actor[world.actor[0].owner != 0]);
}

/* Everybody ends what he has in flight. */
static void land(void)
{
	by_daemons(ADOPT, NULL);
	for (unsigned i = 0; i < WORLD_ACTORS; i++) {
		struct actor *a = &world.actor[i];

		if (a->owner == 0)
			by_daemons(BIRTH, a);
		for (unsigned j = 0; j < WORLD_FLIGHTS; j++) {
			struct flight *f = &a->flight[j];
			struct call c = { .actor = a, .flight = f, .random = 1 };

			if (f->state != FLIGHT_ON)
				continue;
			if (f->ticketed) {
				c.op = RECORD;
				run(&c, 0, NULL);
				f->ticketed = false;
			}
			if (f->pending) {
				c.op = PENDING;
				run(&c, 0, NULL);
			}
			world_advance(NSEC_PER_SEC);
			if (f->sends)
				c.cost = operation_report(f, 16);
			f->state = FLIGHT_NONE;
			c.op = f->sends ? SETTLE : CANCEL;
			run(&c, 0, NULL);
		}
	}
	world_check_empty();
}

/* ---- */

static bool report(uint64_t wanted, double seconds)
{
	printf("1..%d\n", OPS);
	for (unsigned i = 0; i < OPS; i++)
		printf("%sok %u - %s: %llu deaths at any of %u accesses\n",
			swept[i].deaths ? "" : "not ", i + 1, operations[i].name,
			(unsigned long long)swept[i].deaths, swept[i].longest);
	printf("# %llu deaths, %llu accesses, %llu operations amid others, %llu admitted, %.1f s: "
	       "%.2f million deaths, %.1f million accesses a second\n",
		(unsigned long long)deaths, (unsigned long long)hook_points,
		(unsigned long long)nested, (unsigned long long)admitted, seconds,
		(double)deaths / seconds / 1e6, (double)hook_points / seconds / 1e6);
	for (unsigned i = 0; i < OPS; i++)
		if (swept[i].deaths == 0)
			return false;
	return deaths >= wanted;
}

int main(int argc, char **argv)
{
	uint64_t seed = 1, wanted = DEATHS, begin = clock_boottime_ns();

	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--seed") == 0)
			seed = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--deaths") == 0)
			wanted = strtoull(argv[i + 1], NULL, 10);
	}
	while (deaths < wanted) {
		world_open(seed++);
		for (unsigned i = 0; i < WORLD_ACTORS; i++)
			by_daemons(BIRTH, &world.actor[i]);
		for (int i = 0; i < SWEEPS; i++) {
			go_on();
			go_on();
			sweep((enum op)(i % (FEEDBACK + 1)));
			if (i % 16 == 1)
				sweep_amid((enum op)(i / 16 % (FEEDBACK + 1)));
			if (i % 64 == 0)
				sweep_reaper();
		}
		for (int i = 0; i < STEPS; i++)
			step();
		land();
		admitted += world.admitted;
		world_close();
	}
	return report(wanted, (double)(clock_boottime_ns() - begin) / 1e9) ? 0 : 1;
}
