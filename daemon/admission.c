#include "daemon/admission.h"

#include <errno.h>
#include "base/aux.h"
#include "base/clock.h"
#include "shm/bucket_follow.h"
#include "shm/hold.h"

/* A limit can be reconfigured between lookup and acquire; twice in a row is no accident. */
#define ADMISSION_LOOKUPS 3

static const struct breaker_ticket no_probe = { .row = TARGET_NONE };

/* ---- explaining ---- */

static void admission_explain(const struct region *region, uint32_t row,
	const struct bucket_cost *cost, uint64_t now_ns, struct admission_verdict *verdict)
{
	struct bucket_view view;

	if (!bucket_view(region, row, now_ns, &view))
		return;
	bucket_label(&view, verdict->limit);
	verdict->burst = view.burst;
	verdict->used = view.owed + view.held;
	verdict->asked = bucket_asked(cost, view.resource);
}

static void verdict_set(
	struct admission_verdict *v, enum admission_outcome outcome, uint64_t wait_ns)
{
	*v = (struct admission_verdict){ .outcome = outcome, .wait_ns = wait_ns };
}

/* ---- limits ---- */

enum bucket_outcome admission_resolve(struct region *region, const struct bucket_names *names,
	uint64_t now_ns, struct bucket_set *set)
{
	enum bucket_outcome outcome = bucket_resolve(region, names, now_ns, set);
	int e;

	if (outcome != BUCKET_E_MISSING)
		return outcome;
	e = bucket_instantiate(region, names, now_ns);
	if (e < 0)
		return e == -ENAMETOOLONG ? BUCKET_E_MISSING : BUCKET_E_BUSY;
	outcome = bucket_resolve(region, names, now_ns, set);
	return outcome == BUCKET_E_MISSING ? BUCKET_E_BUSY : outcome;
}

static bool take_limits(struct region *region, const struct admission_ask *ask, uint64_t now_ns,
	struct admission_ticket *ticket, struct admission_verdict *verdict)
{
	struct bucket_verdict got = { .outcome = BUCKET_E_GONE, .blocking = BUCKET_NONE };

	for (int i = 0; i < ADMISSION_LOOKUPS && got.outcome == BUCKET_E_GONE; i++) {
		got.outcome = admission_resolve(region, &ask->names, now_ns, &ticket->set);
		if (got.outcome == BUCKET_OK)
			got = bucket_lease(region, ask->owner, &ticket->set, &ask->cost, now_ns,
				&ticket->lease);
	}
	if (got.outcome == BUCKET_OK)
		return true;
	if (got.outcome == BUCKET_E_BUSY || got.outcome == BUCKET_E_LEASE)
		verdict_set(verdict, ADMISSION_E_FULL, 0);
	else if (got.outcome == BUCKET_E_MISSING)
		verdict_set(verdict, ADMISSION_E_NAME, 0);
	else if (got.outcome == BUCKET_E_NEVER)
		verdict_set(verdict, ADMISSION_E_NEVER, 0);
	else
		verdict_set(verdict, ADMISSION_E_LIMITED, got.wait_ns);
	if (got.blocking != BUCKET_NONE)
		admission_explain(region, got.blocking, &ask->cost, now_ns, verdict);
	return false;
}

/* ---- breakers ---- */

static bool pass_breaker(struct region *region, const struct admission_ask *ask, uint32_t row,
	uint64_t now_ns, struct breaker_ticket *probe, struct admission_verdict *verdict)
{
	uint64_t wait_ns = 0;

	if (row == TARGET_NONE || ask->forced || !ask->breakers ||
		breaker_allow(region, row, ask->owner, now_ns, ask->random, probe, &wait_ns) !=
			BREAKER_REJECT)
		return true;
	*probe = no_probe;
	verdict_set(verdict, ADMISSION_E_OPEN, wait_ns);
	verdict->providers = row != ask->target;
	verdict->by_hand = wait_ns >= BREAKER_WAIT_FOREVER;
	if (verdict->by_hand)
		verdict->wait_ns = BUCKET_WAIT_SETTLEMENT;
	return false;
}

/* Where no breaker was asked, its statistics are still kept. A probe's success is counted
 * already; its failure after that is one like any other. */
static void judge_one(const struct region *region, uint32_t row, uint64_t key,
	const struct breaker_ticket *probe, bool proved, const struct breaker_report *report,
	uint64_t now_ns, uint64_t random)
{
	const struct breaker_ticket none = { .row = row, .slot = BREAKER_NO_PROBE };

	/* A ticket of another's row is refused by its generation, a mere outcome is not. */
	if ((proved && report->outcome == BREAKER_OK) || !target_is(region, row, key))
		return;
	breaker_record(region, probe->row == row ? probe : &none, report, now_ns, random);
}

/* A provider's models differ in their latency: what is one's says nothing of all. */
static struct breaker_report providers_part(
	const struct admission_ticket *t, const struct breaker_report *report)
{
	return (struct breaker_report){
		.outcome = report->outcome,
		.first_token_ns = t->target == TARGET_NONE ? report->first_token_ns : 0,
	};
}

static void judge(const struct region *region, struct admission_ticket *t,
	const struct breaker_report *report, uint64_t now_ns, uint64_t random)
{
	const struct breaker_report above = providers_part(t, report);

	t->judged = true;
	judge_one(region, t->target, t->target_key, &t->target_probe, t->target_proved, report,
		now_ns, random);
	judge_one(region, t->provider, t->provider_key, &t->provider_probe, t->provider_proved,
		&above, now_ns, random);
}

/* ---- in flight ---- */

static bool count_in(const struct region *region, struct admission_ticket *ticket, uint32_t hold)
{
	if (hold == HOLD_NONE ||
		hold_move(region, hold, ticket->owner, HOLD_TOTAL_TARGET(ticket->target), 1, 0,
			NULL) != HOLD_OK)
		return false;
	ticket->pending = hold;
	return true;
}

/* In the lease's hold where there is one with room: the table of holds is then as large as it
 * says. A count that finds no room in the tables is left out: routing then knows a little less.
 */
static void count_pending(
	const struct region *region, struct admission_ticket *ticket, uint64_t now_ns)
{
	uint32_t own;

	if (ticket->target == TARGET_NONE)
		return;
	target_tried(region, ticket->target, now_ns);
	if (count_in(region, ticket, ticket->lease.hold))
		return;
	own = hold_claim(region, ticket->owner, ticket->lease.hold, now_ns);
	if (own != HOLD_NONE && !count_in(region, ticket, own))
		hold_release(region, own, ticket->owner);
}

/* Before the lease ends, which releases its hold. */
static void uncount_pending(const struct region *region, struct admission_ticket *ticket)
{
	uint32_t total = HOLD_TOTAL_TARGET(ticket->target);

	if (ticket->pending == HOLD_NONE)
		return;
	hold_move(region, ticket->pending, ticket->owner, total, 0,
		hold_units(region, ticket->pending, total), NULL);
	if (ticket->pending != ticket->lease.hold)
		hold_release(region, ticket->pending, ticket->owner);
	ticket->pending = HOLD_NONE;
}

/* ---- taking ---- */

static bool is_paused(const struct region *region, const struct admission_ask *ask, uint64_t now_ns,
	struct admission_verdict *verdict)
{
	uint64_t wait_ns = 0;

	if (ask->target != TARGET_NONE)
		wait_ns = target_paused(region, ask->target, now_ns);
	if (ask->provider != TARGET_NONE)
		wait_ns = max_u64(wait_ns, target_paused(region, ask->provider, now_ns));
	if (wait_ns)
		verdict_set(verdict, ADMISSION_E_PAUSED, wait_ns);
	return wait_ns != 0;
}

void admission_acquire(struct region *region, const struct admission_ask *ask, uint64_t now_ns,
	struct admission_ticket *ticket, struct admission_verdict *verdict)
{
	static const struct breaker_report neutral = { .outcome = BREAKER_NEUTRAL };

	verdict_set(verdict, ADMISSION_OK, 0);
	*ticket = (struct admission_ticket){
		.owner = ask->owner,
		.target = ask->target,
		.provider = ask->provider,
		.target_key = ask->target_key,
		.provider_key = ask->provider_key,
		.pending = HOLD_NONE,
		.lease = { .hold = BUCKET_NONE },
		.target_probe = no_probe,
		.provider_probe = no_probe,
	};
	if (is_paused(region, ask, now_ns, verdict))
		return;
	if (!pass_breaker(region, ask, ask->target, now_ns, &ticket->target_probe, verdict))
		return;
	if (!pass_breaker(region, ask, ask->provider, now_ns, &ticket->provider_probe, verdict) ||
		(ask->limits && !take_limits(region, ask, now_ns, ticket, verdict))) {
		judge(region, ticket, &neutral, now_ns, ask->random);
		return;
	}
	count_pending(region, ticket, now_ns);
	ticket->taken = true;
}

/* ---- giving back ---- */

void admission_progress(const struct region *region, struct admission_ticket *ticket,
	const struct bucket_cost *used, uint64_t now_ns)
{
	if (ticket->taken && ticket->lease.set)
		bucket_progress(region, &ticket->lease, used, now_ns);
}

static bool is_probe(const struct breaker_ticket *t)
{
	return t->row != TARGET_NONE && t->slot != BREAKER_NO_PROBE;
}

static void prove(const struct region *region, struct breaker_ticket *probe, bool *proved,
	const struct breaker_report *report, uint64_t now_ns)
{
	if (!is_probe(probe))
		return;
	breaker_record(region, probe, report, now_ns, 0);
	*probe = no_probe;
	*proved = true;
}

void admission_first_token(const struct region *region, struct admission_ticket *ticket,
	uint64_t first_token_ns, uint64_t now_ns)
{
	const struct breaker_report good = {
		.outcome = BREAKER_OK,
		.first_token_ns = first_token_ns,
	};
	const struct breaker_report above = providers_part(ticket, &good);

	if (!ticket->taken || ticket->judged)
		return;
	prove(region, &ticket->target_probe, &ticket->target_proved, &good, now_ns);
	prove(region, &ticket->provider_probe, &ticket->provider_proved, &above, now_ns);
}

void admission_judge(const struct region *region, struct admission_ticket *ticket,
	const struct admission_result *result, uint64_t now_ns, uint64_t random)
{
	const struct breaker_report report = {
		.outcome = result->outcome,
		.first_token_ns = result->first_token_ns,
	};
	struct target_sample sample;

	if (!ticket->taken || ticket->judged)
		return;
	judge(region, ticket, &report, now_ns, random);
	if (result->outcome != BREAKER_OK || !target_is(region, ticket->target, ticket->target_key))
		return;
	sample = target_sample_of(region, ticket->target, result->input_tokens,
		result->output_tokens, result->first_token_ns, result->duration_ns);
	target_learn(region, ticket->target, &sample, now_ns);
}

static void end_common(
	const struct region *region, struct admission_ticket *ticket, uint64_t now_ns)
{
	static const struct breaker_report neutral = { .outcome = BREAKER_NEUTRAL };

	if (!ticket->judged)
		judge(region, ticket, &neutral, now_ns, 0);
	ticket->taken = false;
}

void admission_end(const struct region *region, struct admission_ticket *ticket,
	const struct bucket_cost *used, uint64_t now_ns)
{
	if (!ticket->taken)
		return;
	uncount_pending(region, ticket);
	if (ticket->lease.set)
		bucket_settle(region, &ticket->lease, used, now_ns);
	end_common(region, ticket, now_ns);
}

void admission_cancel(const struct region *region, struct admission_ticket *ticket, uint64_t now_ns)
{
	if (!ticket->taken)
		return;
	uncount_pending(region, ticket);
	if (ticket->lease.set)
		bucket_cancel(region, &ticket->lease, now_ns);
	end_common(region, ticket, now_ns);
}

/* ---- feedback ---- */

uint64_t admission_feedback(const struct region *region, const struct admission_ticket *ticket,
	const struct feedback *feedback, enum admission_answer answer, uint64_t now_ns,
	uint64_t random)
{
	/* What has no row of its own is paused with its provider. */
	uint32_t row = target_is(region, ticket->target, ticket->target_key) ? ticket->target :
									       ticket->provider;
	uint64_t limit[FEEDBACK_WINDOWS][FEEDBACK_AXES], remaining[FEEDBACK_WINDOWS][FEEDBACK_AXES];
	uint64_t pause_ns;

	feedback_levels(feedback, limit, remaining);
	bucket_follow_all(region, &ticket->set, limit, remaining, now_ns);
	if (answer == ADMISSION_ANSWER_GOOD)
		target_accepted(region, row);
	if (answer != ADMISSION_ANSWER_LIMITED)
		return 0;
	pause_ns = feedback_pause_ns(feedback, target_refused(region, row, now_ns), random);
	target_pause(region, row, now_ns + pause_ns, now_ns);
	bucket_pause_set(region, &ticket->set, now_ns + pause_ns, now_ns);
	return pause_ns;
}
