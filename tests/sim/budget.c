#include "tests/sim/budget.h"

#include <limits.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "shm/hold.h"
#include "shm/layout.h"
#include "shm/participant.h"
#ifdef SIM_STEPS
#include "tests/crash/hook.h"
#endif

#define TICK_NS NSEC_PER_SEC
#define ROWS 16 /* of limits: the configured ones, and not all users' */
#define HOLDS 96

struct budget budget;

static const char *const names[BUDGET_EVENTS] = {
	[BUDGET_TRY] = "tries",
	[BUDGET_SEND] = "sends what it booked",
	[BUDGET_COUNT] = "the provider counts a part of",
	[BUDGET_END] = "ends",
	[BUDGET_REAP] = "the daemon reaps",
	[BUDGET_BIRTH] = "comes",
	[BUDGET_TICK] = "the daemon ticks",
	[BUDGET_CHANGE] = "the daemon changes limits",
	[BUDGET_CHANGED] = "limits are changed",
	[BUDGET_RESTART] = "a new daemon",
	[BUDGET_DIED] = "dies",
	[BUDGET_STOPPED] = "is stopped",
	[BUDGET_REFUSED] = "is refused",
	[BUDGET_ADMITTED] = "is admitted",
	[BUDGET_PAUSED] = "is told to pause",
	[BUDGET_CANCELLED] = "cancels",
};

static uint64_t virtual_clock(void)
{
	return sim.now_ns;
}

/* ---- operations, and who acts amid them ---- */

#ifdef SIM_STEPS
#define STEPS_MAX 200000 /* of one operation: more and it hangs */
#define DEPTH_MAX 2

static struct {
	unsigned depth;
	uint64_t
		until_ns; /* others act so late at most: who is interrupted has an old clock then */
	struct hook *hook[DEPTH_MAX + 2];
	unsigned at[DEPTH_MAX + 2]; /* before which step others act */
} amid;

static void handle(void *event)
{
	budget_handle(event);
}

/* What they do outside of operations is no part of this one. */
static void others(void)
{
	struct sim_event e;
	unsigned events;

	if (amid.hook[amid.depth]->steps != amid.at[amid.depth] || amid.depth > DEPTH_MAX)
		return;
	for (events = 1 + (unsigned)sim_random(4); events > 0 && sim_peek(&e); events--) {
		struct hook none = { .limit = UINT_MAX };

		/* Events of others may come early, but not what was booked for its time. */
		if (e.kind == BUDGET_SEND && e.at_ns > sim.now_ns)
			break;
		if (budget.plan.slow_interleaving && e.at_ns > amid.until_ns)
			break;
		sim_pop(&e);
		if (budget.plan.slow_interleaving)
			sim.now_ns = max_u64(sim.now_ns, e.at_ns);
		budget.counts->amid++;
		hook_run(&none, handle, &e);
	}
}

bool budget_do(void (*operation)(void *), void *argument, struct client *c)
{
	unsigned *acting = c ? &c->acting : NULL;
	struct hook hook = { .limit = STEPS_MAX, .others = others };
	bool lived, was = budget.daemon_acting;
	uint64_t until_ns = amid.until_ns;

	if (amid.depth == 0)
		amid.until_ns = sim.now_ns + budget.plan.stale_ns;
	amid.depth++;
	amid.hook[amid.depth] = &hook;
	amid.at[amid.depth] =
		sim_once_in(3) && amid.depth <= DEPTH_MAX ? 1 + (unsigned)sim_random(90) : 0;
	if (budget.plan.die && !budget.winding_down && (!c || c->acting == 0) &&
		sim_once_in(budget.plan.die / 2))
		hook.dies_at = 1 + (unsigned)sim_random(120);
	if (acting)
		(*acting)++;
	else
		budget.daemon_acting = true;
	lived = hook_run(&hook, operation, argument);
	if (acting)
		(*acting)--;
	else
		budget.daemon_acting = was;
	amid.depth--;
	amid.until_ns = until_ns;
	if (lived)
		return true;
	if (c)
		client_die(c);
	else
		daemon_die();
	return false;
}
#else
bool budget_do(void (*operation)(void *), void *argument, struct client *c)
{
	(void)c;
	operation(argument);
	return true;
}
#endif

void budget_handle(const struct sim_event *e)
{
	if (e->kind <= BUDGET_END)
		client_event(e);
	else
		daemon_event(e);
}

/* ---- plan ---- */

static void plan_faults(struct budget_plan *p)
{
	p->die = sim_once_in(4) ? 0 : sim_magnitude(300, 10000);
	p->stop = sim_once_in(2) ? 0 : sim_magnitude(300, 10000);
	p->change = sim_once_in(2) ? 0 : sim_magnitude(1000, 20000);
	p->restart = sim_once_in(2) ? 0 : sim_magnitude(2000, 20000);
	p->refuse = sim_once_in(2) ? 0 : sim_magnitude(500, 10000);
	p->cancel = sim_once_in(2) ? 0 : sim_between(2, 20);
	p->borrow = sim_once_in(2) ? 0 : sim_between(2, 20);
	p->follows = sim_once_in(3);
	p->slow_interleaving = sim_once_in(2);
	p->stale_ns = 0;
	if (sim_once_in(3) || p->slow_interleaving)
		p->stale_ns = sim_magnitude(1e3, 3e9);
}

/* Bound by requests, of which many are given back before what they cost has leaked. */
static void plan_cancels(struct budget_plan *p)
{
	uint64_t interval_ns = p->window_ns / p->requests;

	p->cancel = 2;
	p->borrow = sim_once_in(2) ? 0 : 4;
	p->cost_most = 1 + p->cost_most / 64;
	p->call_ns = 1 + interval_ns / sim_between(1, 8);
	p->think_ns = 1 + interval_ns / 2;
	p->stale_ns = p->stale_ns ? 2 * p->call_ns : 0;
	p->stale_cancels = sim_once_in(2);
	if (p->stale_cancels)
		p->stale_ns = p->slow_interleaving = 0;
}

void budget_plan_make(struct budget_plan *p)
{
	uint64_t per_s = sim_magnitude(1e3, 1e8), burst_ns = sim_magnitude(1e7, 3e10), rate, mean;
	double load = sim_once_in(4) ? 0.5 : sim_once_in(3) ? 1.3 : 3;

	*p = (struct budget_plan){
		.clients = (unsigned)sim_between(1, CLIENTS_MAX),
		.flights = (unsigned)sim_between(1, FLIGHTS_MAX),
		.users = sim_once_in(3) ? (unsigned)sim_between(2, USERS_MAX) : 0,
		.window_ns = sim_once_in(2) ? NSEC_PER_SEC : 60 * NSEC_PER_SEC,
	};
	p->tokens = per_s * (p->window_ns / NSEC_PER_SEC);
	p->tokens_burst = 100 + (uint64_t)((double)per_s * (double)burst_ns / 1e9);
	p->tokens_burst = min_u64(p->tokens_burst, 1000000000);
	p->cost_most = 1 + p->tokens_burst / 2 / sim_between(1, 40);
	rate = 1 +
		(uint64_t)((double)per_s / (double)p->cost_most *
			(sim_once_in(2) ? 5 : 0.3 + sim_unit()));
	p->requests = min_u64(rate, 1000000) * (p->window_ns / NSEC_PER_SEC);
	p->requests_burst = sim_between(1, 3 * p->clients * p->flights);
	p->slots = sim_once_in(3) ? sim_between(1, 1 + p->clients * p->flights) : 0;
	p->user_tokens = 1 + p->tokens / 3;
	p->user_tokens_burst = 2 * p->cost_most + p->tokens_burst / 4;
	p->user_requests = 1 + p->requests / 3;
	p->user_requests_burst = 1 + p->requests_burst / 3;
	p->usage_percent = sim_once_in(3) ? 200 : sim_once_in(2) ? 100 : 25;
	p->call_ns = (uint64_t)((double)burst_ns * (0.01 + sim_unit() / 2));
	rate = min_u64(rate, 1 + per_s / p->cost_most);
	mean = (uint64_t)((double)(p->clients * p->flights) * 1e9 / (double)rate / load);
	p->think_ns = mean > p->call_ns ? mean - p->call_ns : 1000;
	p->period_ns = sim_once_in(3) ? burst_ns + 2 * p->call_ns : 0;
	p->usage_least = sim_once_in(2) ? 0 : min_u64(p->usage_percent, 100);
	plan_faults(p);
	if (sim_once_in(6))
		plan_cancels(p);
}

/* ---- a run ---- */

static void meters_start(void)
{
	const struct budget_plan *p = &budget.plan;
	uint64_t window_ns = p->window_ns, now_ns = sim.now_ns;

	budget.tokens = meter_make(p->tokens, window_ns, p->tokens_burst, now_ns);
	budget.requests = meter_make(p->requests, window_ns, p->requests_burst, now_ns);
	for (unsigned i = 0; i < USERS_MAX; i++) {
		budget.user_tokens[i] =
			meter_make(p->user_tokens, window_ns, p->user_tokens_burst, now_ns);
		budget.user_requests[i] =
			meter_make(p->user_requests, window_ns, p->user_requests_burst, now_ns);
	}
	budget.slots = p->slots;
}

static void open_region(void)
{
	static const struct region_owner owner = { .pid = 1, .start = 1, .boot_id = { 1, 2 } };
	const struct region_sizes sizes = { ROWS, HOLDS, 2 };

	budget.fd = memfd_create("region", MFD_CLOEXEC);
	if (budget.fd < 0 ||
		region_create(&budget.r, budget.fd, &owner, &sizes, sim.now_ns, false) != 0)
		sim_fail("no region");
	budget.r.clock_ns = virtual_clock;
	/* Less to look through. */
	budget.r.participants = CLIENTS_MAX + 4;
	budget.r.templates = 4;
}

static void start(void)
{
	for (unsigned i = 0; i < budget.plan.clients; i++)
		sim_push(sim.now_ns, BUDGET_BIRTH, i, 0);
	sim_push(sim.now_ns + TICK_NS, BUDGET_TICK, 0, 0);
}

static bool in_flight(void)
{
	for (unsigned i = 0; i < budget.plan.clients; i++) {
		if (!budget.client[i].alive || budget.client[i].stopped_ns > sim.now_ns)
			return true;
		for (unsigned k = 0; k < budget.plan.flights; k++)
			if (budget.client[i].flight[k].state != FLIGHT_NONE)
				return true;
	}
	return budget.daemon_dead;
}

/* Who waits so long as was said is admitted, if nobody else takes. */
static void check_liveness(void)
{
	struct bucket_cost cost = { 1, budget.plan.cost_most, budget.plan.cost_most, 0 };
	struct bucket_names who = client_names(0);
	enum bucket_outcome outcome = BUCKET_E_MISSING;
	struct bucket_lease lease;
	struct bucket_set set;
	struct bucket_verdict v;
	uint64_t since = sim.now_ns;

	/* All rows may be of users who owe. */
	for (int i = 0; i < 100; i++) {
		outcome = bucket_resolve(&budget.r, &who, sim.now_ns, &set);
		if (outcome == BUCKET_OK)
			break;
		bucket_instantiate(&budget.r, &who, sim.now_ns);
		sim.now_ns += 10 * NSEC_PER_SEC;
	}
	if (outcome != BUCKET_OK)
		sim_fail("no limits apply any more");
	cost.input_tokens = cost.output_tokens = max_u64(cost.input_tokens / 4, 1);
	for (int i = 0; i < 3; i++) {
		v = bucket_lease(
			&budget.r, budget.client[0].owner, &set, &cost, sim.now_ns, &lease);
		if (v.outcome == BUCKET_OK || v.outcome == BUCKET_E_NEVER)
			break;
		if (v.outcome != BUCKET_E_WAIT || v.wait_ns == BUCKET_WAIT_SETTLEMENT)
			sim_fail("outcome %d for ever, with nothing in flight", (int)v.outcome);
		sim.now_ns += v.wait_ns;
	}
	if (v.outcome == BUCKET_E_WAIT)
		sim_fail("who waited %g s, as told, is not admitted",
			(double)(sim.now_ns - since) / 1e9);
	if (v.outcome == BUCKET_OK)
		bucket_cancel(&budget.r, &lease, sim.now_ns);
}

static void check_empty(void)
{
	const struct region *r = &budget.r;
	struct hold_view hold;

	if (hold_reap_strays(&budget.r, sim.now_ns) != 0)
		sim_fail("a hold belonged to nobody");
	if (hold_audit(&budget.r) != 0)
		sim_fail("a total is not what the holds say");
	for (uint32_t i = 0; i < r->holds; i++)
		if (hold_view(r, i, &hold))
			sim_fail("hold %u is taken, with nothing in flight", i);
	for (uint32_t i = 0; i < r->buckets; i++)
		if ((uint32_t)atomic_load(&r->bucket[i].held) != 0)
			sim_fail("limit %u has %u units in flight of nobody", i,
				(uint32_t)atomic_load(&r->bucket[i].held));
	if (budget.counts->admitted !=
		budget.counts->settled + budget.counts->cancelled + budget.counts->died_in_flight)
		sim_fail("calls ended more than once, or never");
}

uint64_t budget_run(uint64_t seed, uint64_t admissions, struct budget_counts *counts)
{
	uint64_t until = counts->admitted + admissions, events = 0, wound = 0;
	struct sim_event e;

	memset(&budget, 0, sizeof(budget));
	sim_begin(seed, names);
	budget_plan_make(&budget.plan);
	budget.base = budget.plan;
	budget.counts = counts;
	budget.next_pid = 100;
	open_region();
	meters_start();
	daemon_configure();
	start();
	while (sim_pop(&e)) {
		sim.now_ns = max_u64(sim.now_ns, e.at_ns);
		budget_handle(&e);
		/* A world in which hardly anything is admitted is left, too. */
		if (!budget.winding_down &&
			(counts->admitted >= until || ++events > 40 * admissions))
			budget.winding_down = true;
		if (budget.winding_down && !in_flight())
			break;
		if (budget.winding_down && ++wound > 100000 + 100 * admissions)
			sim_fail("calls do not end");
	}
	check_empty();
	check_liveness();
	region_detach(&budget.r);
	close(budget.fd);
	return sim.hash;
}
