#include "libclient/targets.h"

#include "shm/breaker.h"
#include "shm/target.h"

#define PRICE_NONE (-1)

static_assert((int)LLMKIT_TOOLS == TARGET_TOOLS && (int)LLMKIT_VISION == TARGET_VISION &&
		(int)LLMKIT_JSON == TARGET_JSON && (int)LLMKIT_REASONING == TARGET_REASONING &&
		(int)LLMKIT_STREAMING == TARGET_STREAMING,
	"llmkit.h and shm/target.h differ");
static_assert((int)LLMKIT_STRATEGY_BALANCED == ROUTER_BALANCED + 1 &&
		(int)LLMKIT_STRATEGY_ORDER == ROUTER_ORDER + 1,
	"llmkit.h and shm/router.h differ");

/* ---- deciding ---- */

/* Output is learned per model: the first target's stands for all of them. */
static uint64_t route_output(struct llmkit_targets *targets, const struct targets_found *found,
	const struct llmkit_query *query)
{
	const struct target_entry *entry = targets_entry(targets, found->place[0].entry);

	if (query->output_tokens > 0)
		return query->output_tokens;
	return target_output(&found->mapping->region, found->place[0].row, str_of(entry->model),
		str_of(query->tag), query->max_tokens);
}

static struct router_query route_query(struct llmkit_targets *targets,
	const struct targets_found *found, const struct llmkit_query *q, uint64_t now_ns)
{
	bool has_weights = q->weight_cost || q->weight_latency || q->weight_reliability;

	return (struct router_query){
		.strategy = q->strategy == LLMKIT_STRATEGY_DEFAULT ?
			found->strategy :
			(enum router_strategy)(q->strategy - 1),
		.weight_cost = has_weights ? q->weight_cost : found->weight_cost,
		.weight_latency = has_weights ? q->weight_latency : found->weight_latency,
		.weight_reliability =
			has_weights ? q->weight_reliability : found->weight_reliability,
		.input_tokens = q->input_tokens,
		.cached_tokens = min_u64(q->cached_tokens, q->input_tokens),
		.output_tokens = route_output(targets, found, q),
		.capabilities = q->capabilities,
		.price_cap_nanousd = q->price_cap_nanousd ?
			(int64_t)min_u64(q->price_cap_nanousd, INT64_MAX) :
			found->price_cap_nanousd,
		.patience_ns = q->patience_ns ? q->patience_ns : found->patience_ns,
		.random = kit_random(now_ns ^ (uintptr_t)targets),
		.is_look = q->look,
	};
}

/* The candidates, with the limits that apply to each as they are now. */
static int route_candidates(struct llmkit_targets *targets, const struct targets_found *found,
	uint64_t now_ns, struct router_candidate *out)
{
	for (unsigned i = 0; i < found->count; i++) {
		const struct target_place *place = &found->place[i];
		llmkit_limits *limits = targets_entry(targets, place->entry)->limits;
		struct resolved *s = NULL;
		int r = limits ? limits_at(limits, now_ns, &s) : LLMKIT_OK;

		if (r < 0)
			return r;
		out[i] = (struct router_candidate){
			.row = place->row, .key = place->key, .weight = place->weight
		};
		if (s && s->mapping == found->mapping)
			out[i].limits = &s->set;
	}
	return LLMKIT_OK;
}

/* A wait that no time ends has one name here. */
static uint64_t route_wait(uint64_t wait_ns)
{
	return wait_ns < BREAKER_WAIT_FOREVER ? wait_ns : LLMKIT_WAIT_SETTLEMENT;
}

static void route_choice(struct llmkit_targets *targets, unsigned target,
	const struct router_choice *from, uint64_t output_tokens, uint64_t now_ns,
	struct llmkit_choice *out)
{
	struct target_entry *entry = targets_entry(targets, target);

	if (aux_unlikely(from->reason == ROUTER_PANIC))
		atomic_store_explicit(&entry->panic_ns, now_ns, memory_order_relaxed);
	*out = (struct llmkit_choice){
		.target = target,
		.provider = entry->provider,
		.model = entry->model,
		.reason = router_reason_name(from->reason),
		.wait_ns = route_wait(from->wait_ns),
		.first_token_us = from->first_token_us,
		.total_us = from->total_us,
		.cost_nanousd = from->cost_nanousd,
		.output_tokens = output_tokens,
		.score = (double)from->score,
	};
}

/* Whether it is out for what time, a settlement or an operator changes. A limit that is in use and
 * one that the call never fits look the same in the choice. */
static bool route_may_change(const struct region *region, const struct router_query *q,
	const struct router_candidate *candidate, const struct router_choice *choice,
	uint64_t now_ns)
{
	const struct bucket_cost cost = { .requests = 1,
		.input_tokens = q->input_tokens,
		.output_tokens = q->output_tokens,
		.nanousd = choice->cost_nanousd < 0 ? 0 : (uint64_t)choice->cost_nanousd };

	if (choice->reason == ROUTER_OUT_BUDGET && choice->wait_ns == UINT64_MAX)
		return bucket_peek(region, candidate->limits, &cost, now_ns).outcome !=
			BUCKET_E_NEVER;
	return choice->reason == ROUTER_OUT_BUDGET || choice->reason == ROUTER_OUT_BREAKER ||
		choice->reason == ROUTER_OUT_PAUSED;
}

/* Nothing is usable: when something will be, if ever. */
static int route_nothing(const struct region *region, const struct router_query *q,
	const struct router_candidate *candidate, const struct router_decision *d, uint64_t now_ns,
	struct llmkit_decision *out)
{
	uint64_t wait = UINT64_MAX;
	bool may_change = false;

	for (unsigned i = 0; i < d->count; i++) {
		const struct router_choice *c = &d->choice[i];

		if (!route_may_change(region, q, &candidate[c->candidate], c, now_ns))
			continue;
		may_change = true;
		wait = min_u64(wait, c->wait_ns);
	}
	out->wait_ns = may_change ? route_wait(wait) : 0;
	return may_change ? LLMKIT_E_LIMITED : LLMKIT_E_NO_TARGET;
}

static bool route_take_query(const struct llmkit_query *from, struct llmkit_query *out)
{
	return limits_take_struct(out, sizeof(*out), from, from ? from->size : 0) &&
		(unsigned)out->strategy <= LLMKIT_STRATEGY_ORDER;
}

int llmkit_route(
	llmkit_targets *targets, const struct llmkit_query *query, struct llmkit_decision *out)
{
	struct router_candidate candidate[LLMKIT_TARGETS_MAX];
	struct router_decision d;
	struct targets_found *found;
	struct router_query q;
	struct llmkit_query own;
	uint64_t now;
	int r;

	if (!targets || !out || !route_take_query(query, &own))
		return LLMKIT_E_ARGUMENT;
	kit_enter_attached(targets->kit);
	r = targets_current(targets, &found, &now);
	if (r == LLMKIT_OK)
		r = route_candidates(targets, found, now, candidate);
	if (r < 0)
		return r;
	q = route_query(targets, found, &own, now);
	router_decide(&found->mapping->region, &q, candidate, found->count, found->turn, now, &d);
	out->usable = d.usable;
	out->count = d.count;
	out->wait_ns = 0;
	for (unsigned i = 0; i < d.count; i++)
		route_choice(targets, found->place[d.choice[i].candidate].entry, &d.choice[i],
			q.output_tokens, now, &out->choice[i]);
	if (aux_likely(d.usable > 0))
		return LLMKIT_OK;
	return route_nothing(&found->mapping->region, &q, candidate, &d, now, out);
}

/* ---- looking ---- */

int64_t llmkit_price(llmkit_targets *targets, unsigned target, uint64_t input_tokens,
	uint64_t cached_tokens, uint64_t output_tokens)
{
	const struct target_place *place;
	struct targets_found *found;
	struct target_view v;
	uint64_t now;

	if (targets_find(targets, target, &found, &place, &now) < 0 ||
		!target_view(&found->mapping->region, place->row, &v))
		return PRICE_NONE;
	return target_cost(v.price_input, v.price_output, v.price_cached, input_tokens,
		cached_tokens, output_tokens);
}

int llmkit_health(llmkit_targets *targets, unsigned target, struct llmkit_health *out)
{
	const struct target_place *place;
	struct breaker_view breaker, above;
	struct targets_found *found;
	const struct target_entry *entry;
	struct target_view v;
	uint64_t now;
	int r;

	if (!out)
		return LLMKIT_E_ARGUMENT;
	r = targets_find(targets, target, &found, &place, &now);
	if (r < 0)
		return r;
	if (!target_view(&found->mapping->region, place->row, &v) ||
		!breaker_view(&found->mapping->region, place->row, now, &breaker))
		return LLMKIT_E_REGION;
	if (!breaker_view(&found->mapping->region, place->provider_row, now, &above))
		above = (struct breaker_view){ .state = BREAKER_CLOSED };
	entry = targets_entry(targets, target);
	*out = (struct llmkit_health){
		.provider = entry->provider,
		.model = entry->model,
		.state = breaker_state_name(breaker.state),
		.provider_state = breaker_state_name(above.state),
		.forced = breaker.forced,
		.retry_ns = breaker.retry_ns,
		.requests = breaker.requests,
		.errors = breaker.errors,
		.error_rate = breaker.error_ratio,
		.mean_us = breaker.mean_us,
		.p50_us = breaker.p50_us,
		.p99_us = breaker.p99_us,
		.gap_us = v.gap_us,
		.pending = v.pending,
		.samples = v.samples,
	};
	return LLMKIT_OK;
}
