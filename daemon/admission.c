#include "daemon/admission.h"

#include <stdio.h>

/* A limit can be reconfigured between lookup and acquire; twice in a row is no accident. */
#define ADMISSION_LOOKUPS 3

static void admission_explain(const struct region *region, const struct bucket_verdict *from,
	uint64_t now_ns, struct admission_verdict *verdict)
{
	struct bucket_view view;

	verdict->wait_ns = from->wait_ns;
	if (!bucket_view(region, from->blocking, now_ns, &view))
		return;
	snprintf(verdict->limit, sizeof(verdict->limit), "%s %s", bucket_scope_name(view.scope),
		view.name);
	verdict->burst = view.burst;
}

void admission_acquire(const struct region *region, struct str provider, struct str model,
	struct str user, uint64_t now_ns, struct admission_ticket *ticket,
	struct admission_verdict *verdict)
{
	struct bucket_verdict got = { .outcome = BUCKET_E_GONE };

	*verdict = (struct admission_verdict){ .outcome = BUCKET_OK };
	for (int i = 0; i < ADMISSION_LOOKUPS && got.outcome == BUCKET_E_GONE; i++) {
		*ticket = (struct admission_ticket){ .taken_ns = now_ns };
		if (user.length)
			bucket_set_add(&ticket->set, region, BUCKET_SCOPE_USER, user);
		bucket_set_add(&ticket->set, region, BUCKET_SCOPE_MODEL, model);
		bucket_set_add(&ticket->set, region, BUCKET_SCOPE_PROVIDER, provider);
		got = bucket_acquire(region, &ticket->set, 1, now_ns);
	}
	ticket->taken = got.outcome == BUCKET_OK;
	verdict->outcome = got.outcome == BUCKET_E_GONE ? BUCKET_E_WAIT : got.outcome;
	if (verdict->outcome != BUCKET_OK)
		admission_explain(region, &got, now_ns, verdict);
}

void admission_give_back(
	const struct region *region, struct admission_ticket *ticket, uint64_t now_ns)
{
	if (ticket->taken)
		bucket_give_back(region, &ticket->set, 1, ticket->taken_ns, now_ns);
	ticket->taken = false;
}
