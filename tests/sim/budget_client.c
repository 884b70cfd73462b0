#include <stdio.h>
#include "proto/feedback.h"
#include "shm/bucket_follow.h"
#include "tests/sim/budget.h"

#define PROMISES 8 /* one wait in so many is checked */
#define ASK_AGAIN_NS NSEC_PER_USEC

struct bucket_names client_names(unsigned user)
{
	static const char *const text[USERS_MAX] = { "u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7",
		"u8", "u9", "u10", "u11" };
	struct bucket_names n = { .model = str_of("m"), .provider = str_of("p") };

	if (budget.plan.users)
		n.user = str_of(text[user]);
	return n;
}

/* Amid an operation its clock gets older still. */
static uint64_t slack_ns(void)
{
#ifdef SIM_STEPS
	return 2 * budget.plan.stale_ns + 1;
#else
	return budget.plan.stale_ns + 1;
#endif
}

/* ---- the provider ---- */

static uint64_t over(const struct flight *f, uint64_t tokens)
{
	return tokens > f->estimate ? tokens - f->estimate : 0;
}

static void check(const struct meter *m, const char *what)
{
	if (!meter_is_within(m, slack_ns()))
		sim_fail("too much was admitted: %s, %g units above the bound", what,
			meter_excess(m, slack_ns()));
}

static void provider_requests(const struct flight *f)
{
	meter_count(&budget.requests, 1, 0, sim.now_ns);
	check(&budget.requests, "requests");
	if (!budget.plan.users)
		return;
	meter_count(&budget.user_requests[f->user], 1, 0, sim.now_ns);
	check(&budget.user_requests[f->user], "requests of a user");
}

static void provider_tokens(struct flight *f, uint64_t input, uint64_t output)
{
	uint64_t n = input + output, above = over(f, f->counted + n) - over(f, f->counted);

	f->used.input_tokens += input;
	f->used.output_tokens += output;
	f->cost.input_tokens -= input;
	f->cost.output_tokens -= output;
	f->counted += n;
	meter_count(&budget.tokens, n, above, sim.now_ns);
	check(&budget.tokens, "tokens");
	if (!budget.plan.users)
		return;
	meter_count(&budget.user_tokens[f->user], n, above, sim.now_ns);
	check(&budget.user_tokens[f->user], "tokens of a user");
}

static void provider_all(struct flight *f)
{
	provider_tokens(f, f->cost.input_tokens, f->cost.output_tokens);
}

/* ---- beginning and end ---- */

static void tighten(void)
{
	if (budget.changing || budget.old_flights > 0)
		return;
	meter_tighten(&budget.requests, sim.now_ns);
	meter_tighten(&budget.tokens, sim.now_ns);
	budget.slots = budget.plan.slots;
}

static void provider_done(struct flight *f)
{
	budget.at_once -= f->at_provider;
	f->at_provider = false;
}

static void flight_over(struct flight *f)
{
	provider_done(f);
	f->state = FLIGHT_NONE;
	if (f->change < budget.changes)
		budget.old_flights--;
	if (budget.tokens.burst != budget.tokens.new_burst ||
		budget.tokens.limit != budget.tokens.new_limit ||
		budget.requests.burst != budget.requests.new_burst ||
		budget.requests.limit != budget.requests.new_limit ||
		budget.slots != budget.plan.slots)
		tighten();
}

static void later_try(const struct client *c, const struct flight *f, uint64_t wait_ns)
{
	if (!budget.winding_down)
		budget_later(c, f, sim.now_ns + wait_ns, BUDGET_TRY);
}

static void idle(const struct client *c, const struct flight *f)
{
	uint64_t wait_ns = 1 + sim_spread(budget.plan.think_ns), period_ns = budget.plan.period_ns;

	if (period_ns && sim_once_in(3))
		wait_ns = period_ns - sim.now_ns % period_ns;
	later_try(c, f, wait_ns);
}

/* What was settled is not above the estimate of a call in flight any more. */
static void settled(struct flight *f)
{
	uint64_t by = over(f, f->counted) - over(f, f->settled);

	f->settled = f->counted;
	f->used = (struct bucket_cost){ 0 };
	budget.tokens.over_flying -= by;
	budget.tokens.over_settled += by;
	if (!budget.plan.users)
		return;
	budget.user_tokens[f->user].over_flying -= by;
	budget.user_tokens[f->user].over_settled += by;
}

static void lost(struct flight *f)
{
	uint64_t by = over(f, f->counted) - over(f, f->settled);

	budget.tokens.over_flying -= by;
	budget.tokens.over_lost += by;
	if (!budget.plan.users)
		return;
	budget.user_tokens[f->user].over_flying -= by;
	budget.user_tokens[f->user].over_lost += by;
}

void client_die(struct client *c)
{
	sim_note(BUDGET_DIED, (uint32_t)(c - budget.client), 0);
	budget.counts->deaths++;
	c->alive = false;
	c->stopped_ns = 0;
	for (unsigned i = 0; i < budget.plan.flights; i++) {
		struct flight *f = &c->flight[i];

		f->epoch++;
		budget.counts->died_in_flight +=
			f->state == FLIGHT_SENT || f->state == FLIGHT_BOOKED;
		if (f->state == FLIGHT_SENT && !f->cancels)
			f->state = FLIGHT_LOST;
		else if (f->state != FLIGHT_NONE)
			flight_over(f);
	}
	sim_push(sim.now_ns + sim_random(REAP_NS), BUDGET_REAP, (uint32_t)(c - budget.client), 0);
}

void client_lost(struct client *c)
{
	for (unsigned i = 0; i < budget.plan.flights; i++) {
		struct flight *f = &c->flight[i];

		if (f->state != FLIGHT_LOST)
			continue;
		/* What it uses above the estimate now, nobody could ever know. */
		if (sim_once_in(2) &&
			f->counted + f->cost.input_tokens + f->cost.output_tokens <= f->estimate)
			provider_all(f);
		lost(f);
		flight_over(f);
	}
}

/* ---- operations ---- */

struct asking {
	struct client *c;
	struct flight *f;
	uint64_t now_ns;
	bool borrows;
	struct bucket_verdict v;
};

static void op_ask(void *argument)
{
	struct asking *a = argument;
	uint64_t horizon_ns = budget.plan.think_ns + budget.plan.call_ns;

	if (a->borrows)
		a->v = bucket_borrow(&budget.r, a->c->owner, &a->f->set, &a->f->cost, a->now_ns,
			horizon_ns, &a->f->lease);
	else
		a->v = bucket_lease(
			&budget.r, a->c->owner, &a->f->set, &a->f->cost, a->now_ns, &a->f->lease);
}

struct ending {
	struct flight *f;
	uint64_t now_ns, value;
};

static void op_progress(void *argument)
{
	struct ending *e = argument;

	bucket_progress(&budget.r, &e->f->lease, &e->f->used, e->now_ns);
}

static void op_settle(void *argument)
{
	struct ending *e = argument;

	bucket_settle(&budget.r, &e->f->lease, &e->f->used, e->now_ns);
}

static void op_cancel(void *argument)
{
	struct ending *e = argument;

	bucket_cancel(&budget.r, &e->f->lease, e->now_ns);
}

static void op_pause(void *argument)
{
	struct ending *e = argument;

	bucket_pause_set(&budget.r, &e->f->set, e->value, e->now_ns);
}

/* What an honest provider says remains. */
static void op_follow(void *argument)
{
	struct ending *e = argument;
	struct meter *m = &budget.tokens;
	uint64_t owed;

	meter_leak(m, sim.now_ns);
	owed = (uint64_t)((m->level + m->window_ns - 1) / m->window_ns);
	bucket_follow(&budget.r, &e->f->set, BUCKET_TOKENS, BUCKET_SPAN_MINUTE,
		m->new_limit * 60 * NSEC_PER_SEC / m->window_ns,
		m->new_burst > owed ? m->new_burst - owed : 0, e->now_ns);
}

static void op_instantiate(void *argument)
{
	struct flight *f = argument;
	struct bucket_names who = client_names(f->user);

	bucket_instantiate(&budget.r, &who, sim.now_ns);
}

/* ---- asking ---- */

static uint64_t clock_of(void)
{
	return budget.plan.stale_ns && sim_once_in(2) ?
		sim.now_ns - sim_random(budget.plan.stale_ns) :
		sim.now_ns;
}

/* Those that apply; made by the daemon where they are missing. */
static bool know_set(struct flight *f)
{
	struct bucket_names who = client_names(f->user);
	enum bucket_outcome outcome;

	if (f->set_known && f->set_user == f->user)
		return true;
	f->set_known = false;
	outcome = bucket_resolve(&budget.r, &who, sim.now_ns, &f->set);
	if (outcome == BUCKET_E_MISSING && !budget.daemon_dead && !budget.daemon_acting) {
		if (!budget_do(op_instantiate, f, NULL))
			return false;
		outcome = bucket_resolve(&budget.r, &who, sim.now_ns, &f->set);
	}
	f->set_known = outcome == BUCKET_OK;
	f->set_user = f->user;
	return f->set_known;
}

/* What it asks for, and what it will have used. */
static void draw(struct flight *f)
{
	uint64_t most = budget.plan.cost_most, percent;

	struct bucket_cost cost = { 1, sim_between(1, most), sim_between(1, most), 0 };

	percent = sim_between(budget.plan.usage_least, budget.plan.usage_percent);

	f->estimate = cost.input_tokens + cost.output_tokens;
	f->cost = cost;
	f->used = (struct bucket_cost){ 0 };
	f->counted = f->settled = 0;
	f->parts = sim_once_in(4) ? (unsigned)sim_between(1, PARTS_MAX) : 0;
	f->progresses = sim_once_in(2);
	f->late = sim_once_in(2);
	f->cancels = sim_once_in(budget.plan.cancel);
	f->usage = percent;
}

#ifndef SIM_STEPS
static void keep_promise(const struct asking *a)
{
	uint64_t at_ns = a->now_ns + a->v.wait_ns;

	budget.counts->promises++;
	if (bucket_peek(&budget.r, &a->f->set, &a->f->cost, at_ns).outcome != BUCKET_OK)
		sim_fail("who waits %llu ns, as told, is not admitted",
			(unsigned long long)a->v.wait_ns);
	if (bucket_peek(&budget.r, &a->f->set, &a->f->cost, at_ns - 1).outcome == BUCKET_OK)
		sim_fail("told to wait %llu ns, which is too long",
			(unsigned long long)a->v.wait_ns);
}
#endif

static void refused(struct client *c, struct flight *f, const struct asking *a)
{
	uint64_t wait_ns = a->v.wait_ns;

	sim_note(BUDGET_REFUSED, actor_of(c, f), a->v.outcome);
	budget.counts->rejected++;
	flight_over(f);
	switch (a->v.outcome) {
	case BUCKET_E_WAIT:
		if (wait_ns == BUCKET_WAIT_SETTLEMENT)
			wait_ns = 1 + sim_spread(budget.plan.call_ns);
#ifndef SIM_STEPS
		else if (!a->borrows && budget.plan.stale_ns == 0 && sim_once_in(PROMISES))
			keep_promise(a);
#endif
		later_try(c, f, wait_ns);
		break;
	case BUCKET_E_GONE:
		f->set_known = false;
		later_try(c, f, ASK_AGAIN_NS);
		break;
	case BUCKET_E_NEVER:
	case BUCKET_E_BUSY:
		idle(c, f);
		break;
	default:
		sim_fail("outcome %d of a lease", (int)a->v.outcome);
	}
}

static void send(struct client *c, struct flight *f)
{
	f->state = FLIGHT_SENT;
	f->at_provider = true;
	budget.at_once++;
	if (budget.slots && budget.at_once > budget.slots)
		sim_fail("%llu at once, of %llu", (unsigned long long)budget.at_once,
			(unsigned long long)budget.slots);
	f->end_ns = sim.now_ns + 1 + sim_spread(budget.plan.call_ns);
	if (!f->cancels)
		provider_requests(f);
	f->cost.input_tokens = f->cost.input_tokens * f->usage / 100;
	f->cost.output_tokens = f->cost.output_tokens * f->usage / 100;
	if (f->parts > 0 && !f->cancels) {
		budget_later(c, f, sim.now_ns + sim_random(f->end_ns - sim.now_ns), BUDGET_COUNT);
		return;
	}
	if (!f->late && !f->cancels)
		provider_all(f);
	budget_later(c, f, f->end_ns, BUDGET_END);
}

static void admitted(struct client *c, struct flight *f, const struct asking *a)
{
	sim_note(BUDGET_ADMITTED, actor_of(c, f), f->estimate);
	budget.counts->admitted++;
	budget.tokens.over_old = max_u64(budget.tokens.over_old, f->mark);
	if (budget.plan.users)
		budget.user_tokens[f->user].over_old =
			max_u64(budget.user_tokens[f->user].over_old, f->user_mark);
	if (a->v.wait_ns == 0) {
		send(c, f);
		return;
	}
	f->state = FLIGHT_BOOKED;
	budget_later(c, f, sim.now_ns + a->v.wait_ns, BUDGET_SEND);
}

static void on_try(struct client *c, struct flight *f)
{
	struct asking a = { .c = c, .f = f };
	uint32_t epoch = f->epoch;
	bool known;
	uint64_t paused_ns;

	if (budget.winding_down)
		return;
	if (budget.plan.users)
		f->user = (unsigned)sim_random(budget.plan.users);
	draw(f);
	known = know_set(f);
	/* It may have died while the daemon made its limits. */
	if (f->epoch != epoch)
		return;
	if (!known) {
		idle(c, f);
		return;
	}
	paused_ns = budget.paused_ns;
	a.now_ns = clock_of();
	a.borrows = sim_once_in(budget.plan.borrow);
	f->state = FLIGHT_ASKING;
	/* Amid a change the old limits may be what admits it. */
	f->change = budget.changes - budget.changing;
	budget.old_flights += budget.changing;
	f->mark = budget.tokens.over_settled;
	f->user_mark = budget.user_tokens[f->user].over_settled;
	if (!budget_do(op_ask, &a, c))
		return;
	if (a.v.outcome != BUCKET_OK) {
		refused(c, f, &a);
		return;
	}
	if (a.now_ns < paused_ns)
		sim_fail("admitted %g s before a pause ends", (double)(paused_ns - a.now_ns) / 1e9);
	admitted(c, f, &a);
}

/* ---- a call goes on ---- */

static void on_count(struct client *c, struct flight *f)
{
	struct ending e = { .f = f };

	provider_tokens(
		f, sim_random(f->cost.input_tokens + 1), sim_random(f->cost.output_tokens + 1));
	sim_note(BUDGET_COUNT, actor_of(c, f), f->counted);
	e.now_ns = clock_of();
	if (f->progresses && c->stopped_ns <= sim.now_ns) {
		if (!budget_do(op_progress, &e, c))
			return;
		settled(f);
	}
	f->parts--;
	f->end_ns = max_u64(f->end_ns, sim.now_ns);
	budget_later(c, f, sim.now_ns + sim_random(f->end_ns - sim.now_ns + 1),
		f->parts ? BUDGET_COUNT : BUDGET_END);
}

/* A 429: how long nobody should send, as the answer's headers say. */
static uint64_t refusal(void)
{
	struct feedback said = FEEDBACK_NULL;
	char text[24];

	snprintf(text, sizeof(text), "%llu",
		(unsigned long long)(sim_spread(10 * budget.plan.think_ns) / NSEC_PER_MSEC));
	feedback_header(&said, str_of("Retry-After-Ms"), str_of(text));
	feedback_finish(&said, STR_NULL, sim.now_ns);
	return feedback_pause_ns(&said, 0, splitmix_next(&sim.seed));
}

static bool feedback(struct client *c, struct flight *f)
{
	struct ending e = { .f = f, .now_ns = clock_of() };

	if (budget.plan.follows && sim_once_in(16) && !budget_do(op_follow, &e, c))
		return false;
	if (!sim_once_in(budget.plan.refuse))
		return true;
	e.value = e.now_ns + refusal();
	if (!budget_do(op_pause, &e, c))
		return false;
	sim_note(BUDGET_PAUSED, actor_of(c, f), e.value);
	budget.counts->refusals++;
	budget.paused_ns = max_u64(budget.paused_ns, e.value);
	return true;
}

static void on_end(struct client *c, struct flight *f)
{
	struct ending e = { .f = f };

	provider_done(f);
	if (f->cancels) {
		e.now_ns = clock_of();
		if (budget.plan.stale_cancels)
			e.now_ns -= sim_random(budget.plan.call_ns * 2);
		if (!budget_do(op_cancel, &e, c))
			return;
		sim_note(BUDGET_CANCELLED, actor_of(c, f), 0);
		budget.counts->cancelled++;
		flight_over(f);
		idle(c, f);
		return;
	}
	provider_all(f);
	if (!feedback(c, f))
		return;
	e.now_ns = clock_of();
	if (!budget_do(op_settle, &e, c))
		return;
	settled(f);
	sim_note(BUDGET_END, actor_of(c, f), f->counted);
	budget.counts->settled++;
	flight_over(f);
	idle(c, f);
}

/* True: it does not act now. */
static bool is_struck(struct client *c, const struct sim_event *e)
{
	if (c->stopped_ns > sim.now_ns && e->kind != BUDGET_COUNT && e->kind != BUDGET_SEND) {
		sim_push(c->stopped_ns, e->kind, e->who, e->epoch);
		return true;
	}
	if (budget.winding_down || c->acting > 0)
		return false;
	if (sim_once_in(budget.plan.die)) {
		client_die(c);
		return true;
	}
	if (sim_once_in(budget.plan.stop)) {
		sim_note(BUDGET_STOPPED, e->who, 0);
		budget.counts->stops++;
		c->stopped_ns = sim.now_ns + sim_spread(20 * budget.plan.call_ns);
	}
	if (sim_once_in(budget.plan.restart) && !budget.daemon_dead && !budget.daemon_acting)
		daemon_die();
	if (sim_once_in(budget.plan.change))
		sim_push(sim.now_ns, BUDGET_CHANGE, 0, 0);
	return false;
}

void client_event(const struct sim_event *e)
{
	struct client *c = &budget.client[e->who / FLIGHTS_MAX];
	struct flight *f = &c->flight[e->who % FLIGHTS_MAX];

	if (e->epoch != f->epoch || is_struck(c, e))
		return;
	switch (e->kind) {
	case BUDGET_TRY:
		on_try(c, f);
		break;
	case BUDGET_SEND:
		send(c, f);
		break;
	case BUDGET_COUNT:
		on_count(c, f);
		break;
	default:
		on_end(c, f);
		break;
	}
}
