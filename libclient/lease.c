#include <assert.h>
#include <stddef.h>
#include <string.h>
#include "libclient/acquire.h"

/* What llmkit_lease holds; limits NULL: it is none, or has ended. */
struct lease {
	struct llmkit_limits *limits;
	uint64_t process;
	struct resolved *resolved;
	struct bucket_lease lease;
	struct bucket_cost open; /* asked for, and not reported as used yet */
};
static_assert(sizeof(struct lease) <= sizeof(struct llmkit_lease), "llmkit_lease is too small");

/* Copied in and out: the caller's words have a type of their own. */
static struct lease lease_load(const struct llmkit_lease *from)
{
	struct lease lease;

	memcpy(&lease, from->opaque, sizeof(lease));
	return lease;
}

static void lease_store(struct llmkit_lease *to, const struct lease *lease)
{
	memcpy(to->opaque, lease, sizeof(*lease));
}

/* The first word tells whether it is one. */
static_assert(offsetof(struct lease, limits) == 0, "lease_clear() clears limits");
static void lease_clear(struct llmkit_lease *lease)
{
	lease->opaque[0] = 0;
}

/* ---- beginning ---- */

static int lease_prepare(struct attempt *a, const struct llmkit_cost *cost)
{
	if (!a->limits || !cost || !limits_take_cost(cost, &a->cost))
		return LLMKIT_E_ARGUMENT;
	if (!a->cost.requests && !a->cost.input_tokens && !a->cost.output_tokens &&
		!a->cost.nanousd)
		return LLMKIT_E_ARGUMENT;
	limits_check_fork(a->limits);
	return LLMKIT_OK;
}

static void lease_begin(struct llmkit_lease *out, const struct attempt *a)
{
	const struct lease lease = {
		.limits = a->limits,
		.process = a->limits->kit->process,
		.resolved = a->resolved,
		.lease = a->lease,
		.open = a->cost,
	};

	lease_store(out, &lease);
}

int llmkit_lease_acquire(llmkit_limits *limits, const struct llmkit_cost *cost, llmkit_lease *lease,
	struct llmkit_verdict *verdict)
{
	struct attempt a = { .kind = ATTEMPT_LEASE, .limits = limits, .verdict = verdict };
	int r = lease_prepare(&a, cost);

	if (r == LLMKIT_OK && (!lease || lease_load(lease).limits))
		r = LLMKIT_E_ARGUMENT;
	if (r == LLMKIT_OK)
		r = attempt_once(&a);
	if (r == LLMKIT_OK)
		lease_begin(lease, &a);
	return r;
}

int llmkit_lease_acquire_until(llmkit_limits *limits, const struct llmkit_cost *cost,
	uint64_t deadline_ns, llmkit_lease *lease, struct llmkit_verdict *verdict)
{
	struct attempt a = { .kind = ATTEMPT_LEASE, .limits = limits, .verdict = verdict };
	int r = lease_prepare(&a, cost);

	if (r == LLMKIT_OK && (!lease || lease_load(lease).limits))
		r = LLMKIT_E_ARGUMENT;
	if (r == LLMKIT_OK)
		r = attempt_until(&a, deadline_ns);
	if (r == LLMKIT_OK)
		lease_begin(lease, &a);
	return r;
}

int llmkit_peek(
	llmkit_limits *limits, const struct llmkit_cost *cost, struct llmkit_verdict *verdict)
{
	struct attempt a = { .kind = ATTEMPT_PEEK, .limits = limits, .verdict = verdict };
	int r = lease_prepare(&a, cost);

	return r < 0 ? r : attempt_once(&a);
}

/* ---- going on and ending ---- */

static uint64_t lease_less(uint64_t open, uint64_t used)
{
	return open > used ? open - used : 0;
}

static void lease_report(struct lease *lease, const struct bucket_cost *used)
{
	lease->open.input_tokens = lease_less(lease->open.input_tokens, used->input_tokens);
	lease->open.output_tokens = lease_less(lease->open.output_tokens, used->output_tokens);
	lease->open.nanousd = lease_less(lease->open.nanousd, used->nanousd);
}

/* The lease for a call on it. LLMKIT_E_ENDED: there is none, which is no mistake. */
static int lease_enter(const struct llmkit_lease *from, struct lease *lease)
{
	if (!from)
		return LLMKIT_E_ARGUMENT;
	*lease = lease_load(from);
	if (!lease->limits)
		return LLMKIT_E_ENDED;
	kit_enter(lease->limits->kit);
	return lease->process == lease->limits->kit->process ? LLMKIT_OK : LLMKIT_E_FORKED;
}

static int lease_answer(int r)
{
	return r == LLMKIT_E_ENDED ? LLMKIT_OK : r;
}

int llmkit_progress(llmkit_lease *lease, const struct llmkit_cost *used)
{
	struct bucket_cost cost;
	struct lease l;
	int r = lease_enter(lease, &l);

	if (!used || !limits_take_cost(used, &cost))
		return LLMKIT_E_ARGUMENT;
	if (r < 0)
		return lease_answer(r);
	cost.requests = 0;
	lease_report(&l, &cost);
	bucket_progress(&l.resolved->mapping->region, &l.lease, &cost,
		limits_now(&l.resolved->mapping->region));
	lease_store(lease, &l);
	return LLMKIT_OK;
}

int llmkit_settle(llmkit_lease *lease, const struct llmkit_cost *used)
{
	struct bucket_cost cost;
	struct lease l;
	int r = lease_enter(lease, &l);

	if (!limits_take_cost(used, &cost))
		return LLMKIT_E_ARGUMENT;
	if (r < 0)
		return lease_answer(r);
	if (!used)
		cost = l.open;
	cost.requests = 0;
	lease_clear(lease);
	bucket_settle(&l.resolved->mapping->region, &l.lease, &cost,
		limits_now(&l.resolved->mapping->region));
	return LLMKIT_OK;
}

int llmkit_cancel(llmkit_lease *lease)
{
	struct lease l;
	int r = lease_enter(lease, &l);

	if (r < 0)
		return lease_answer(r);
	lease_clear(lease);
	bucket_cancel(
		&l.resolved->mapping->region, &l.lease, limits_now(&l.resolved->mapping->region));
	return LLMKIT_OK;
}
