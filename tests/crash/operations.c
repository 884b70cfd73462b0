#include "tests/crash/operations.h"

#include <string.h>
#include "base/aux.h"
#include "shm/layout.h"
#include "shm/target.h"
#include "tests/unit/adopt.h"

const struct operation operations[OPS] = {
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

static uint64_t last_pid = 100;

static uint64_t random_of(struct call *c, uint64_t below)
{
	return splitmix_below(&c->random, below);
}

/* ---- what each does ---- */

static void do_lease(struct call *c)
{
	const struct bucket_names names = world_names(c->user);
	struct bucket_lease *lease = &WORLD_LEASES[c->depth];
	struct flight *f = &c->made;
	uint64_t owner = c->actor->owner;

	c->v.outcome = bucket_resolve(&world.r, &names, world.now_ns, &f->set);
	if (c->v.outcome != BUCKET_OK)
		return;
	if (c->op == LEASE)
		c->v = bucket_lease(&world.r, owner, &f->set, &c->cost, world.now_ns, lease);
	else
		c->v = bucket_borrow(&world.r, owner, &f->set, &c->cost, world.now_ns,
			20 * NSEC_PER_MSEC, lease);
	f->lease = *lease;
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
	adopt_participants(&world.r, is_alive, world.now_ns);
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

void operation_perform(void *call)
{
	struct call *c = call;

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

/* Sometimes more than was counted, at the end. */
struct bucket_cost operation_report(struct flight *f, unsigned sixteenths)
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

bool operation_prepare(struct call *c)
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
	if (operations[c->op].daemon)
		return true;
	if (!c->actor->alive || c->actor->acting)
		return false;
	if (fits[c->op] && !(c->flight = flight_that(c->actor, fits[c->op])))
		return false;
	if (c->op == PROGRESS)
		c->cost = operation_report(c->flight, (unsigned)world_random(12));
	if (c->op == SETTLE)
		c->cost = operation_report(c->flight, 16);
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
	world.admitted++;
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

void operation_finish(struct call *c)
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

void operation_kill(struct actor *a)
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
