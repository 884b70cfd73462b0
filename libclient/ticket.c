#include <assert.h>
#include <string.h>
#include "libclient/targets.h"
#include "shm/breaker.h"
#include "shm/estimate.h"
#include "shm/hold.h"
#include "shm/target.h"

#define HTTP_TIMEOUT 408
#define HTTP_LIMITED 429
#define PANIC_NS NSEC_PER_SEC /* how long the router's word is good */

/* What llmkit_ticket holds; targets NULL: it is none, or was reported. */
struct ticket {
	struct llmkit_targets *targets;
	uint64_t process;
	struct mapping *mapping;
	struct breaker_ticket breaker, above; /* of the target, and of its provider */
	uint64_t owner;                       /* of the hold */
	uint32_t hold;                        /* HOLD_NONE: the call is not counted as in flight */
	uint32_t row, target;
	bool has_above;
};
static_assert(sizeof(struct ticket) <= sizeof(struct llmkit_ticket), "llmkit_ticket is too small");

static struct ticket ticket_load(const struct llmkit_ticket *from)
{
	struct ticket ticket;

	memcpy(&ticket, from->opaque, sizeof(ticket));
	return ticket;
}

/* ---- allowing ---- */

static const struct breaker_report neutral = { .outcome = BREAKER_NEUTRAL };

static void ticket_record(
	const struct ticket *t, const struct breaker_report *report, uint64_t now_ns)
{
	/* A provider's models differ in their latency: what is one's says nothing of all. */
	const struct breaker_report above = { .outcome = report->outcome };
	const struct region *region = &t->mapping->region;
	uint64_t random = kit_random(now_ns ^ t->row);

	breaker_record(region, &t->breaker, report, now_ns, random);
	if (t->has_above)
		breaker_record(region, &t->above, &above, now_ns, random);
}

/* Just closed, a breaker lets few in at a time. */
static bool row_has_room(const struct region *region, uint32_t row, uint64_t now_ns)
{
	return target_pending(region, row) < breaker_ramp(region, row, now_ns);
}

/* In panic who is refused goes all the same, without a probe, unless an operator refuses. */
static bool ticket_ask(const struct ticket *t, uint32_t row, bool panic, uint64_t now_ns,
	struct breaker_ticket *out, uint64_t *wait_ns)
{
	enum breaker_verdict verdict = breaker_allow(
		&t->mapping->region, row, t->owner, now_ns, kit_random(now_ns ^ row), out, wait_ns);

	return verdict != BREAKER_REJECT || (panic && *wait_ns < BREAKER_WAIT_FOREVER);
}

/* The breakers of target and provider: both, or neither's probe is taken. */
static bool ticket_may(
	struct ticket *t, uint32_t provider_row, bool panic, uint64_t now_ns, uint64_t *wait_ns)
{
	const struct region *region = &t->mapping->region;

	*wait_ns = LLMKIT_WAIT_SETTLEMENT;
	if (!panic && !row_has_room(region, t->row, now_ns))
		return false;
	if (!ticket_ask(t, t->row, panic, now_ns, &t->breaker, wait_ns))
		return false;
	if (provider_row == t->row || provider_row >= region->targets)
		return true;
	if (!ticket_ask(t, provider_row, panic, now_ns, &t->above, wait_ns)) {
		ticket_record(t, &neutral, now_ns);
		return false;
	}
	t->has_above = true;
	return true;
}

/* ---- panic: a breaker never keeps everybody from the last target there is ---- */

/* Whether a call could go there now, as far as that is known without knowing the call. */
static bool place_will_do(struct llmkit_targets *targets, const struct targets_found *found,
	const struct target_place *place, uint64_t now_ns)
{
	const struct region *region = &found->mapping->region;
	llmkit_limits *limits = targets_entry(targets, place->entry)->limits;
	const struct bucket_cost one = { .requests = 1 };
	enum bucket_outcome outcome = BUCKET_OK;
	struct target_view view;
	struct resolved *s;
	uint64_t wait_ns;

	if (!target_is(region, place->row, place->key) || !target_view(region, place->row, &view) ||
		!view.available || target_paused(region, place->row, now_ns) > 0 ||
		breaker_check(region, place->row, now_ns, &wait_ns) == BREAKER_REJECT ||
		breaker_check(region, place->provider_row, now_ns, &wait_ns) == BREAKER_REJECT ||
		!row_has_room(region, place->row, now_ns))
		return false;
	s = limits ? atomic_load_explicit(&limits->resolved, memory_order_acquire) : NULL;
	if (s && s->mapping == found->mapping)
		outcome = bucket_peek(region, &s->set, &one, now_ns).outcome;
	return outcome != BUCKET_E_WAIT && outcome != BUCKET_E_NEVER;
}

/* The router said so, knowing the call; or no other target of the name will do for any call. */
static bool ticket_is_panic(const struct ticket *t, const struct targets_found *found,
	const struct target_place *place, uint64_t now_ns)
{
	const struct target_entry *entry = targets_entry(t->targets, place->entry);
	uint64_t panic_ns = atomic_load_explicit(&entry->panic_ns, memory_order_relaxed);

	if (panic_ns != 0 && now_ns - panic_ns < PANIC_NS)
		return true;
	for (unsigned i = 0; i < found->count; i++)
		if (&found->place[i] != place &&
			place_will_do(t->targets, found, &found->place[i], now_ns))
			return false;
	return true;
}

/* Counts the call as in flight. Without a daemon, or where all holds are taken, it is not counted:
 * nothing but a prediction depends on it. */
static void ticket_hold(struct ticket *t, uint64_t now_ns)
{
	const struct region *region = &t->mapping->region;
	uint32_t hint = atomic_load_explicit(&t->targets->hold_hint, memory_order_relaxed);

	t->hold = hold_claim(region, t->owner, hint, now_ns);
	if (t->hold == HOLD_NONE)
		return;
	if (hold_move(region, t->hold, t->owner, HOLD_TOTAL_TARGET(t->row), 1, 0, NULL) == HOLD_OK)
		return;
	hold_release(region, t->hold, t->owner);
	t->hold = HOLD_NONE;
}

static void ticket_unhold(const struct ticket *t)
{
	const struct region *region = &t->mapping->region;

	if (t->hold == HOLD_NONE)
		return;
	hold_move(region, t->hold, t->owner, HOLD_TOTAL_TARGET(t->row), 0, 1, NULL);
	hold_release(region, t->hold, t->owner);
	atomic_store_explicit(&t->targets->hold_hint, t->hold, memory_order_relaxed);
}

int llmkit_allow(llmkit_targets *targets, unsigned target, llmkit_ticket *ticket, uint64_t *wait_ns)
{
	struct ticket t = { .targets = targets, .target = target, .hold = HOLD_NONE };
	const struct target_place *place;
	struct targets_found *found;
	uint64_t now, own;
	int r;

	wait_ns = wait_ns ? wait_ns : &own;
	*wait_ns = 0;
	if (!ticket || ticket_load(ticket).targets)
		return LLMKIT_E_ARGUMENT;
	r = targets_find(targets, target, &found, &place, &now);
	if (r < 0)
		return r;
	if (!found->mapping->region.writable)
		return LLMKIT_E_NO_REGION;
	t.process = targets->kit->process;
	t.mapping = found->mapping;
	t.row = place->row;
	t.owner = atomic_load_explicit(&found->mapping->owner, memory_order_relaxed);
	*wait_ns = target_paused(&t.mapping->region, t.row, now);
	if (*wait_ns > 0)
		return LLMKIT_E_PROVIDER_LIMITED;
	if (!ticket_may(&t, place->provider_row, false, now, wait_ns) &&
		(!ticket_is_panic(&t, found, place, now) ||
			!ticket_may(&t, place->provider_row, true, now, wait_ns))) {
		if (*wait_ns >= BREAKER_WAIT_FOREVER)
			*wait_ns = LLMKIT_WAIT_SETTLEMENT;
		return LLMKIT_E_CIRCUIT_OPEN;
	}
	*wait_ns = 0;
	ticket_hold(&t, now);
	target_tried(&t.mapping->region, t.row, now);
	memcpy(ticket->opaque, &t, sizeof(t));
	return LLMKIT_OK;
}

/* ---- reporting ---- */

static enum breaker_outcome outcome_of_status(unsigned status)
{
	if (status >= 200 && status < 300)
		return BREAKER_OK;
	if (status == HTTP_LIMITED)
		return BREAKER_LIMITED;
	return status == 0 || status == HTTP_TIMEOUT || status >= 500 ? BREAKER_FAILED :
									BREAKER_NEUTRAL;
}

static enum breaker_outcome outcome_of(const struct llmkit_outcome *outcome)
{
	switch (outcome->outcome) {
	case LLMKIT_OUTCOME_GOOD:
		return BREAKER_OK;
	case LLMKIT_OUTCOME_FAILED:
		return BREAKER_FAILED;
	case LLMKIT_OUTCOME_NEUTRAL:
		return BREAKER_NEUTRAL;
	case LLMKIT_OUTCOME_LIMITED:
		return BREAKER_LIMITED;
	default:
		return outcome_of_status(outcome->http_status);
	}
}

static void ticket_learn(const struct ticket *t, const struct llmkit_outcome *o, uint64_t now_ns)
{
	const struct region *region = &t->mapping->region;
	const struct target_sample sample = target_sample_of(region, t->row, o->input_tokens,
		o->output_tokens, o->first_token_ns, o->duration_ns);

	target_learn(region, t->row, &sample, now_ns);
	if (o->output_tokens > 0)
		estimate_learn(region, str_of(targets_entry(t->targets, t->target)->model),
			str_of(o->tag), o->output_tokens, now_ns);
}

/* LLMKIT_E_ENDED: there is none, which is no mistake. */
static int ticket_enter(const struct llmkit_ticket *from, struct ticket *t)
{
	if (!from)
		return LLMKIT_E_ARGUMENT;
	*t = ticket_load(from);
	if (!t->targets)
		return LLMKIT_E_ENDED;
	kit_enter(t->targets->kit);
	return t->process == t->targets->kit->process ? LLMKIT_OK : LLMKIT_E_FORKED;
}

int llmkit_report(llmkit_ticket *ticket, const struct llmkit_outcome *outcome)
{
	struct breaker_report report;
	struct llmkit_outcome own;
	struct ticket t;
	uint64_t now;
	int r = ticket_enter(ticket, &t);

	if (!outcome || !limits_take_struct(&own, sizeof(own), outcome, outcome->size))
		return LLMKIT_E_ARGUMENT;
	if (r < 0)
		return r == LLMKIT_E_ENDED ? LLMKIT_OK : r;
	*ticket = (struct llmkit_ticket){ 0 };
	now = limits_now(&t.mapping->region);
	report = (struct breaker_report){ .outcome = outcome_of(&own),
		.first_token_ns = own.first_token_ns };
	ticket_record(&t, &report, now);
	if (report.outcome == BREAKER_OK)
		ticket_learn(&t, &own, now);
	ticket_unhold(&t);
	return LLMKIT_OK;
}

int llmkit_give_up(llmkit_ticket *ticket)
{
	struct ticket t;
	int r = ticket_enter(ticket, &t);

	if (r < 0)
		return r == LLMKIT_E_ENDED ? LLMKIT_OK : r;
	*ticket = (struct llmkit_ticket){ 0 };
	ticket_record(&t, &neutral, limits_now(&t.mapping->region));
	ticket_unhold(&t);
	return LLMKIT_OK;
}
