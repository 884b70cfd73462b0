/*
 * Processes and the daemon die before every access to a shared word, in every operation, while others
 * act in between and die too. Then the dead are reaped, by a daemon that dies itself at every access.
 * Shown after each: all totals are what the living hold, nothing is lost, no operation hangs, and
 * the provider's own buckets were never overrun. The same seed gives the same run.
 *
 *     kill-points [--seed N] [--deaths N]
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/aux.h"
#include "base/clock.h"
#include "shm/layout.h"
#include "shm/target.h"
#include "tests/crash/hook.h"
#include "tests/crash/world.h"

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

static const struct {
	const char *name;
	bool daemon;
	unsigned weight; /* how often it is chosen */
} ops[OPS] = {
	[LEASE] = { "lease", false, 12 },
	[BORROW] = { "borrow", false, 3 },
	[ACQUIRE] = { "acquire", false, 2 },
	[PROGRESS] = { "progress", false, 5 },
	[SETTLE] = { "settle", false, 8 },
	[CANCEL] = { "cancel", false, 3 },
	[PENDING] = { "count at a target", false, 4 },
	[ALLOW] = { "breaker allow", false, 4 },
	[RECORD] = { "breaker record", false, 4 },
	[FEEDBACK] = { "feedback", false, 1 },
	[INSTANTIATE] = { "instantiate", true, 2 },
	[CONFIGURE] = { "configure", true, 1 },
	[RECLAIM] = { "orphan and reclaim", true, 1 },
	[AUDIT] = { "audit", true, 1 },
	[ROLL] = { "roll", true, 1 },
	[BIRTH] = { "claim a row", true, 0 },
	[REAP] = { "reap", true, 0 },
	[ADOPT] = { "adopt", true, 0 },
};

static struct {
	uint64_t deaths;
	unsigned next,
		longest; /* the access at which the next one dies; how many there were at most */
} swept[OPS];
static uint64_t deaths, admitted, nested;
static unsigned depth; /* of others acting amid others */
static uint64_t last_pid = 100;

/* One operation as its process knows it: its results are lost when it dies. */
struct call {
	enum op op;
	struct actor *actor;
	struct flight *flight;
	unsigned user;
	struct bucket_cost cost;
	struct bucket_verdict v;
	struct flight made;
	int row;
	uint64_t random;
};

static uint64_t random_of(struct call *c, uint64_t below)
{
	return splitmix_below(&c->random, below);
}

/* ---- what each does ---- */

static void do_lease(struct call *c)
{
	const struct bucket_names names = world_names(c->user);
	struct flight *f = &c->made;
	uint64_t owner = c->actor->owner;

	c->v.outcome = bucket_resolve(&world.r, &names, world.now_ns, &f->set);
	if (c->v.outcome != BUCKET_OK)
		return;
	c->v = c->op == LEASE ?
		bucket_lease(&world.r, owner, &f->set, &c->cost, world.now_ns, &f->lease) :
		bucket_borrow(&world.r, owner, &f->set, &c->cost, world.now_ns, 20 * NSEC_PER_MSEC,
			&f->lease);
}

static void do_acquire(struct call *c)
{
	struct bucket_set *set = &c->made.set;

	c->v.outcome = BUCKET_E_GONE;
	if (bucket_set_add(set, &world.r, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, str_of("m")) &&
		bucket_set_add(set, &world.r, BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, str_of("p")))
		c->v = bucket_acquire(&world.r, set, 1, world.now_ns);
	/* Never sent: its requests come back. */
	if (c->v.outcome == BUCKET_OK)
		bucket_give_back(&world.r, set, 1, world.now_ns, world.now_ns);
}

static void do_pending(struct call *c)
{
	struct flight *f = c->flight;
	uint32_t total = HOLD_TOTAL_TARGET(f->user % WORLD_TARGETS);

	if (hold_move(&world.r, f->lease.hold, c->actor->owner, total, !f->pending, f->pending,
		    NULL) != HOLD_OK)
		world_fail("a request cannot be counted");
}

static void do_allow(struct call *c)
{
	uint64_t wait_ns;

	if (breaker_allow(&world.r, c->user % WORLD_TARGETS, c->actor->owner, world.now_ns,
		    c->random, &c->made.ticket, &wait_ns) == BREAKER_REJECT)
		return;
	c->made.ticketed = true;
}

static void do_record(struct call *c)
{
	const struct breaker_report report = { (enum breaker_outcome)random_of(c, 4),
		(1 + random_of(c, 400)) * NSEC_PER_MSEC };

	breaker_record(&world.r, &c->flight->ticket, &report, world.now_ns, c->random);
}

static void do_feedback(struct call *c)
{
	uint32_t row = (uint32_t)random_of(c, WORLD_ROWS);

	bucket_pause(&world.r, row, world.now_ns + NSEC_PER_MSEC, world.now_ns);
	bucket_raise(&world.r, row, random_of(c, 20), world.now_ns);
	bucket_hear(&world.r, row, 500);
}

static void do_reap(void)
{
	for (unsigned i = 0; i < WORLD_ACTORS; i++) {
		const struct actor *a = &world.actor[i];

		if (!a->proven)
			continue;
		participant_release(&world.r, a->row);
		hold_reap(&world.r, a->owner, world.now_ns);
		breaker_reap(&world.r, a->owner);
	}
}

static bool is_alive(uint64_t pid, uint64_t start)
{
	(void)start;
	for (unsigned i = 0; i < WORLD_ACTORS; i++)
		if (world.actor[i].pid == pid && world.actor[i].owner != 0 &&
			!world.actor[i].proven)
			return true;
	return false;
}

/* What the next daemon does. */
static void do_adopt(void)
{
	bucket_adopt(&world.r, world.now_ns);
	target_adopt(&world.r, world.now_ns);
	breaker_adopt(&world.r, world.now_ns);
	participant_adopt(&world.r, is_alive);
	hold_reap_strays(&world.r, world.now_ns);
	do_reap();
	hold_audit(&world.r);
	world_configure(false);
	for (unsigned i = 0; i < WORLD_ACTORS; i++)
		if (world.actor[i].alive)
			participant_claim(&world.r, world.actor[i].pid, 1, 0, world.now_ns);
}

static void do_reclaim(struct call *c)
{
	int row;

	participant_orphan(&world.r, c->actor->row);
	row = participant_claim(&world.r, c->actor->pid, 1, 0, world.now_ns);
	if (row != (int)c->actor->row ||
		participant_owner(&world.r, c->actor->row) != c->actor->owner)
		world_fail("a process that came back is another");
}

static void do_instantiate(struct call *c)
{
	const struct bucket_names names = world_names(c->user);

	bucket_instantiate(&world.r, &names, world.now_ns);
}

static void perform(void *argument)
{
	struct call *c = argument;

	switch (c->op) {
	case LEASE:
	case BORROW:
		do_lease(c);
		break;
	case ACQUIRE:
		do_acquire(c);
		break;
	case PROGRESS:
		bucket_progress(&world.r, &c->flight->lease, &c->cost, world.now_ns);
		break;
	case SETTLE:
		bucket_settle(&world.r, &c->flight->lease, &c->cost, world.now_ns);
		break;
	case CANCEL:
		bucket_cancel(&world.r, &c->flight->lease, world.now_ns);
		break;
	case PENDING:
		do_pending(c);
		break;
	case ALLOW:
		do_allow(c);
		break;
	case RECORD:
		do_record(c);
		break;
	case FEEDBACK:
		do_feedback(c);
		break;
	case INSTANTIATE:
		do_instantiate(c);
		break;
	case CONFIGURE:
		world_configure(c->random % 2);
		break;
	case RECLAIM:
		do_reclaim(c);
		break;
	case AUDIT:
		if (hold_audit(&world.r) > 0)
			world_fail("something was mended that nobody broke");
		break;
	case ROLL:
		bucket_roll(&world.r, world.now_ns, world.now_ns);
		breaker_tell(&world.r, world.now_ns);
		break;
	case BIRTH:
		c->row = participant_claim(&world.r, c->actor->pid, 1, 0, world.now_ns);
		break;
	case REAP:
		do_reap();
		break;
	case ADOPT:
		do_adopt();
		break;
	case OPS:
		break;
	}
}

/* ---- before and after ---- */

static struct flight *flight_that(struct actor *a, bool (*fits)(const struct flight *f))
{
	uint64_t from = world_random(WORLD_FLIGHTS);

	for (unsigned i = 0; i < WORLD_FLIGHTS; i++) {
		struct flight *f = &a->flight[(from + i) % WORLD_FLIGHTS];

		if (fits(f))
			return f;
	}
	return NULL;
}

static bool is_free(const struct flight *f)
{
	return f->state == FLIGHT_NONE;
}

static bool is_on(const struct flight *f)
{
	return f->state == FLIGHT_ON;
}

static bool may_report(const struct flight *f)
{
	return is_on(f) && f->sends && !f->booked && f->parts;
}

static bool may_settle(const struct flight *f)
{
	return is_on(f) && f->sends && !f->booked && !f->pending && !f->ticketed;
}

static bool may_cancel(const struct flight *f)
{
	return is_on(f) && !f->sends && !f->pending && !f->ticketed;
}

static bool may_probe(const struct flight *f)
{
	return is_on(f) && !f->ticketed;
}

static bool may_record(const struct flight *f)
{
	return is_on(f) && f->ticketed;
}

/* Tells what the provider has counted, and sometimes more at the end. */
static struct bucket_cost report_of(struct flight *f, unsigned sixteenths)
{
	const struct bucket_cost before = f->left;
	uint64_t more = sixteenths == 16 && world_random(8) == 0 ? world_random(100) : 0;

	world_counts(f, sixteenths);
	return (struct bucket_cost){ 0, before.input_tokens - f->left.input_tokens,
		before.output_tokens - f->left.output_tokens + more,
		before.nanousd - f->left.nanousd };
}

/* The daemon hears of deaths. Until then the provider may have counted what was left. */
static void prove_deaths(void)
{
	for (unsigned i = 0; i < WORLD_ACTORS; i++) {
		struct actor *a = &world.actor[i];

		if (a->alive || a->owner == 0)
			continue;
		a->proven = true;
		for (unsigned j = 0; j < WORLD_FLIGHTS; j++)
			if (a->flight[j].state == FLIGHT_LOST) {
				world_counts(&a->flight[j], 16);
				a->flight[j].state = FLIGHT_NONE;
			}
	}
}

/* False: there is nothing to do it with. */
static bool prepare(struct call *c)
{
	static bool (*const fits[OPS])(const struct flight *f) = {
		[LEASE] = is_free,
		[BORROW] = is_free,
		[PROGRESS] = may_report,
		[SETTLE] = may_settle,
		[CANCEL] = may_cancel,
		[PENDING] = is_on,
		[ALLOW] = may_probe,
		[RECORD] = may_record,
	};

	c->random = splitmix_next(&world.seed);
	c->user = (unsigned)world_random(WORLD_USERS);
	c->cost = (struct bucket_cost){ 1, 1 + world_random(300), 1 + world_random(200),
		world_random(400000) };
	if (c->op == RECLAIM)
		return c->actor->alive;
	if (c->op == BIRTH)
		c->actor->pid = ++last_pid;
	if (c->op == REAP || c->op == ADOPT)
		prove_deaths();
	if (ops[c->op].daemon)
		return true;
	if (!c->actor->alive || c->actor->acting)
		return false;
	if (fits[c->op] && !(c->flight = flight_that(c->actor, fits[c->op])))
		return false;
	if (c->op == PROGRESS)
		c->cost = report_of(c->flight, (unsigned)world_random(12));
	if (c->op == SETTLE)
		c->cost = report_of(c->flight, 16);
	/* A probe is over for the target when its outcome is known. */
	if (c->op == RECORD)
		c->flight->ticketed = false;
	if (c->op == SETTLE || c->op == CANCEL)
		/* What it holds of limits is over for the provider when it begins to settle. */
		c->flight->state = FLIGHT_NONE;
	return true;
}

/* Its process lives and has the result. */
static void take_off(struct call *c)
{
	struct flight *f = c->flight;

	*f = c->made;
	f->lease.set = &f->set;
	f->state = FLIGHT_ON;
	f->user = c->user;
	f->sends = c->random % 4 != 0;
	f->parts = c->random % 3 != 0;
	f->left = (struct bucket_cost){ 0, splitmix_below(&c->random, c->cost.input_tokens + 1),
		splitmix_below(&c->random, c->cost.output_tokens + 1),
		splitmix_below(&c->random, c->cost.nanousd + 1) };
	f->send_ns = world.now_ns + c->v.wait_ns;
	f->booked = f->sends && c->v.wait_ns > 0;
	if (f->sends && !f->booked)
		world_sent(f);
	admitted++;
}

/* What the dead held is back, and there is no more to come back. */
static void bury(void)
{
	for (unsigned i = 0; i < WORLD_ACTORS; i++) {
		struct actor *a = &world.actor[i];

		if (!a->proven)
			continue;
		if (hold_reap(&world.r, a->owner, world.now_ns) + breaker_reap(&world.r, a->owner) >
			0)
			world_fail("something came back twice");
		memset(a, 0, sizeof(*a));
	}
}

static void finish(struct call *c)
{
	switch (c->op) {
	case LEASE:
	case BORROW:
		if (c->v.outcome == BUCKET_OK)
			take_off(c);
		break;
	case PENDING:
		c->flight->pending = !c->flight->pending;
		break;
	case ALLOW:
		c->flight->ticket = c->made.ticket;
		c->flight->ticketed = c->made.ticketed;
		break;
	case BIRTH:
		c->actor->row = (uint32_t)c->row;
		c->actor->owner = participant_owner(&world.r, c->actor->row);
		c->actor->alive = true;
		break;
	case ADOPT:
		world.daemon_dead = false;
		bury();
		break;
	case REAP:
		bury();
		break;
	default:
		break;
	}
	world_check_use();
}

static void kill_actor(struct actor *a)
{
	a->alive = false;
	for (unsigned i = 0; i < WORLD_FLIGHTS; i++) {
		struct flight *f = &a->flight[i];

		if (f->booked || !f->sends)
			f->left = (struct bucket_cost){ 0 };
		if (f->state == FLIGHT_ON)
			f->state = FLIGHT_LOST;
	}
}

/* ---- running them ---- */

static enum op random_op(bool daemon)
{
	uint64_t op;

	do {
		op = world_random(OPS);
	} while (ops[op].daemon != daemon || world_random(12) >= ops[op].weight);
	return (enum op)op;
}

/* False: it died. dies_at 0: it lives. */
static bool run(struct call *c, unsigned dies_at, void (*others)(void))
{
	bool daemon = ops[c->op].daemon, lived;
	struct hook h = {
		.dies_at = dies_at, .limit = daemon ? DAEMON_LIMIT : CLIENT_LIMIT, .others = others
	};
	bool *acting = daemon ? &world.daemon_acting : &c->actor->acting;
	const char *what = world_what;

	world_what = ops[c->op].name;
	*acting = true;
	lived = hook_run(&h, perform, c);
	*acting = false;
	world_note(ops[c->op].name, c->actor ? (unsigned)(c->actor - world.actor) : 99, h.steps,
		lived);
	swept[c->op].longest = (unsigned)max_u64(swept[c->op].longest, h.steps);
	if (lived) {
		finish(c);
	} else {
		deaths++;
		swept[c->op].deaths++;
		if (daemon)
			world.daemon_dead = true;
		else
			kill_actor(c->actor);
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
	return prepare(c);
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

		prepare(&c);
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
	prepare(&d);
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
	if (world_random(500) == 0)
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

	prepare(&c);
	perform(&c);
	finish(&c);
	world_check_still();
	world_check_room();
}

/* From where the world is, one operation dies at each of its accesses. */
static void sweep(enum op op)
{
	struct call c = { .op = op, .actor = &world.actor[world_random(WORLD_ACTORS)] };
	bool lived = false;

	if (!prepare(&c))
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

	if (!prepare(&c))
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

		if (prepare(&c))
			run(&c, 1 + (unsigned)world_random(swept[c.op].longest + 1), NULL);
		if (c.actor->alive)
			kill_actor(c.actor);
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
				c.cost = report_of(f, 16);
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
			swept[i].deaths ? "" : "not ", i + 1, ops[i].name,
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
		world_close();
	}
	return report(wanted, (double)(clock_boottime_ns() - begin) / 1e9) ? 0 : 1;
}
