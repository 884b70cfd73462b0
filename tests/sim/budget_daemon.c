#include <string.h>
#include <unistd.h>
#include "shm/breaker.h"
#include "shm/hold.h"
#include "shm/layout.h"
#include "shm/participant.h"
#include "shm/target.h"
#include "tests/sim/budget.h"
#include "tests/unit/adopt.h"

#define NO_ROW UINT32_MAX
#define AGAIN_NS NSEC_PER_MSEC

static bool is_alive(uint64_t pid, uint64_t start)
{
	(void)start;
	for (unsigned i = 0; i < budget.plan.clients; i++)
		if (budget.client[i].alive && budget.client[i].pid == pid)
			return true;
	return false;
}

/* ---- limits ---- */

static struct bucket_limit limit_of(uint64_t scope, enum bucket_resource resource, const char *name,
	uint64_t limit, uint64_t burst)
{
	return (struct bucket_limit){
		.scope = scope,
		.resource = resource,
		.kind = bucket_kind_of(resource, false),
		.name = str_of(name),
		.limit = limit,
		.window_ns = resource == BUCKET_CONCURRENCY ? 0 : budget.plan.window_ns,
		.burst = burst,
	};
}

static void configure(struct bucket_limit limit)
{
	if (bucket_configure(&budget.r, &limit, sim.now_ns) < 0)
		sim_fail("a limit cannot be configured");
}

static void op_configure(void *argument)
{
	const struct budget_plan *p = &budget.plan;
	struct bucket_limit template[2] = {
		limit_of(BUCKET_SCOPE_USER, BUCKET_REQUESTS, "", p->user_requests,
			p->user_requests_burst),
		limit_of(
			BUCKET_SCOPE_USER, BUCKET_TOKENS, "", p->user_tokens, p->user_tokens_burst),
	};

	(void)argument;
	template[0].origin = template[1].origin = BUCKET_ORIGIN_TEMPLATE;
	configure(limit_of(
		BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, "p", p->requests, p->requests_burst));
	configure(limit_of(BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m", p->tokens, p->tokens_burst));
	if (p->slots)
		configure(limit_of(
			BUCKET_SCOPE_PROVIDER, BUCKET_CONCURRENCY, "p", p->slots, p->slots));
	if (p->users && bucket_set_templates(&budget.r, template, 2, sim.now_ns) < 0)
		sim_fail("templates cannot be configured");
}

void daemon_configure(void)
{
	budget.changing = true;
	if (!budget_do(op_configure, NULL, NULL))
		return;
	budget.changing = false;
	sim_note(BUDGET_CHANGED, 0, budget.plan.tokens);
}

/* Half to double of what the seed said. */
static uint64_t other(uint64_t value, uint64_t least)
{
	uint64_t to = sim_once_in(3) ? value : value * sim_between(4, 16) / 8;

	return value ? max_u64(to, least) : 0;
}

static void on_change(void)
{
	struct budget_plan *p = &budget.plan;

	if (budget.winding_down)
		return;
	p->tokens = min_u64(other(budget.base.tokens, 1), p->window_ns);
	p->tokens_burst = other(budget.base.tokens_burst, 1);
	p->requests = min_u64(other(budget.base.requests, 1), p->window_ns / 1000);
	p->requests_burst = other(budget.base.requests_burst, 1);
	p->slots = other(budget.base.slots, 1);
	budget.changes++;
	budget.counts->changes++;
	budget.old_flights = 0;
	for (unsigned i = 0; i < ACTORS_MAX; i++)
		budget.old_flights +=
			budget.client[i / FLIGHTS_MAX].flight[i % FLIGHTS_MAX].state != FLIGHT_NONE;
	meter_change(&budget.tokens, p->tokens, p->tokens_burst, sim.now_ns);
	meter_change(&budget.requests, p->requests, p->requests_burst, sim.now_ns);
	budget.slots = max_u64(budget.slots, p->slots);
	daemon_configure();
}

/* ---- clients come and go ---- */

struct member {
	struct client *c;
	int row;
};

static void op_birth(void *argument)
{
	struct member *m = argument;

	m->row = participant_claim(&budget.r, m->c->pid, 1, 0, sim.now_ns);
}

static void on_birth(const struct sim_event *e)
{
	struct member m = { &budget.client[e->who], 0 };

	m.c->pid = budget.next_pid++;
	if (!budget_do(op_birth, &m, NULL)) {
		sim_push(sim.now_ns + AGAIN_NS, e->kind, e->who, 0);
		return;
	}
	if (m.row < 0)
		sim_fail("no row for a client");
	m.c->row = (uint32_t)m.row;
	m.c->owner = participant_owner(&budget.r, m.c->row);
	m.c->alive = true;
	for (unsigned i = 0; i < budget.plan.flights && !budget.winding_down; i++)
		budget_later(m.c, &m.c->flight[i], sim.now_ns + sim_spread(budget.plan.think_ns),
			BUDGET_TRY);
}

static void op_reap(void *argument)
{
	const struct client *c = argument;

	participant_release(&budget.r, c->row);
	hold_reap(&budget.r, c->owner, sim.now_ns);
	breaker_reap(&budget.r, c->owner);
}

static void on_reap(const struct sim_event *e)
{
	struct client *c = &budget.client[e->who];

	client_lost(c);
	if (c->row != NO_ROW && !budget_do(op_reap, c, NULL)) {
		sim_push(sim.now_ns + AGAIN_NS, e->kind, e->who, 0);
		return;
	}
	c->row = NO_ROW;
	sim_push(sim.now_ns + sim_spread(budget.plan.think_ns), BUDGET_BIRTH, e->who, 0);
}

/* ---- the daemon itself ---- */

static void op_tick(void *argument)
{
	uint32_t *mended = argument;

	*mended = hold_audit(&budget.r);
	region_heartbeat(&budget.r, sim.now_ns);
	bucket_roll(&budget.r, sim.now_ns, sim.now_ns);
}

static void on_tick(const struct sim_event *e)
{
	uint32_t mended = 0;

	if (budget_do(op_tick, &mended, NULL) && mended > 0)
		sim_fail("%u totals were not what the holds say", mended);
	sim_push(sim.now_ns + NSEC_PER_SEC, e->kind, 0, 0);
}

void daemon_die(void)
{
	sim_note(BUDGET_DIED, UINT32_MAX, 0);
	budget.counts->restarts++;
	budget.daemon_dead = true;
	sim_push(sim.now_ns + sim_magnitude(1e6, 1e9), BUDGET_RESTART, 0, 0);
}

#ifndef SIM_STEPS
static void map_again(void)
{
	static const struct region_owner owner = { .pid = 2, .start = 1, .boot_id = { 1, 2 } };
	uint32_t participants = budget.r.participants, templates = budget.r.templates;
	uint64_t (*clock_ns)(void) = budget.r.clock_ns;

	region_detach(&budget.r);
	if (region_adopt(&budget.r, budget.fd, &owner, sim.now_ns) != 0)
		sim_fail("the region cannot be adopted");
	budget.r.clock_ns = clock_ns;
	budget.r.participants = participants;
	budget.r.templates = templates;
}
#endif

static void op_adopt(void *argument)
{
	(void)argument;
#ifndef SIM_STEPS
	map_again();
#else
	bucket_adopt(&budget.r, sim.now_ns);
	target_adopt(&budget.r, sim.now_ns);
	breaker_adopt(&budget.r, sim.now_ns);
#endif
	adopt_participants(&budget.r, is_alive, sim.now_ns);
	hold_reap_strays(&budget.r, sim.now_ns);
	for (unsigned i = 0; i < budget.plan.clients; i++) {
		struct client *c = &budget.client[i];

		if (c->alive &&
			participant_claim(&budget.r, c->pid, 1, 0, sim.now_ns) != (int)c->row)
			sim_fail("a client is another after a restart");
	}
}

static void on_restart(void)
{
	budget.daemon_dead = false;
	for (unsigned i = 0; i < budget.plan.clients; i++)
		if (!budget.client[i].alive)
			client_lost(&budget.client[i]);
	if (!budget_do(op_adopt, NULL, NULL))
		return;
	for (unsigned i = 0; i < budget.plan.clients; i++)
		if (!budget.client[i].alive)
			budget.client[i].row = NO_ROW;
	daemon_configure();
}

void daemon_event(const struct sim_event *e)
{
	sim_note(e->kind, e->who, 0);
	if (budget.daemon_acting || (budget.daemon_dead && e->kind != BUDGET_RESTART)) {
		sim_push(sim.now_ns + AGAIN_NS, e->kind, e->who, e->epoch);
		return;
	}
	switch (e->kind) {
	case BUDGET_REAP:
		on_reap(e);
		break;
	case BUDGET_BIRTH:
		on_birth(e);
		break;
	case BUDGET_TICK:
		on_tick(e);
		break;
	case BUDGET_CHANGE:
		on_change();
		break;
	default:
		on_restart();
		break;
	}
}
