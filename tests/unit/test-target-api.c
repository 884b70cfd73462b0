#include "tests/unit/mini-daemon.h"
#include "tests/unit/cmocka-all.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "shm/breaker.h"
#include "shm/estimate.h"
#include "shm/hold.h"
#include "shm/participant.h"
#include "tests/unit/splitmix.h"

#define WAIT_NS (30 * NSEC_PER_SEC)
#define DAY_NS (86400 * NSEC_PER_SEC)
#define PARTICIPANT (&(struct mini_script){ .role = MSG_ROLE_PARTICIPANT })
#define OUTCOME(...) \
	(&(struct llmkit_outcome){ .size = sizeof(struct llmkit_outcome), __VA_ARGS__ })
#define QUERY(...) (&(struct llmkit_query){ .size = sizeof(struct llmkit_query), __VA_ARGS__ })
#define COST(...) (&(struct llmkit_cost){ .size = sizeof(struct llmkit_cost), __VA_ARGS__ })

static struct mini mini;
static llmkit *kit;
static uint32_t cheap, dear, other;

static int start(void **state)
{
	static const char *const names[] = { "dear/m", "cheap/m", NULL };

	(void)state;
	mini_init(&mini);
	cheap = mini_target(&mini, "cheap/m", 1000000, 2000000);
	dear = mini_target(&mini, "dear/m", 10000000, 20000000);
	other = mini_target(&mini, "dear/other", -1, -1);
	mini_route(&mini, "fast", ROUTER_ORDER, names);
	mini_start(&mini, PARTICIPANT);
	return mini_open(&mini, &kit);
}

static int stop(void **state)
{
	(void)state;
	llmkit_close(kit);
	kit = NULL;
	mini_deinit(&mini);
	return 0;
}

static llmkit_targets *targets_of(const char *name)
{
	llmkit_targets *targets = NULL;

	assert_int_equal(llmkit_targets_open(kit, name, NULL, &targets), 0);
	return targets;
}

/* The choice for a provider in a decision. */
static const struct llmkit_choice *choice_of(const struct llmkit_decision *d, const char *provider)
{
	for (unsigned i = 0; i < d->count; i++)
		if (strcmp(d->choice[i].provider, provider) == 0)
			return &d->choice[i];
	fail_msg("%s is not among the choices", provider);
	return NULL;
}

/* ---- names ---- */

static void names_stand_for_targets(void **state)
{
	static const struct {
		const char *name;
		unsigned count;
	} cases[] = { { "fast", 2 }, { "cheap/m", 1 }, { "m", 2 }, { "other", 1 } };
	static const char *const wrong[] = { "nothing", "cheap", "cheap/", "/m", "cheap/m/x" };
	struct llmkit_decision d;
	llmkit_targets *targets;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		targets = targets_of(cases[i].name);
		assert_int_equal(llmkit_route(targets, NULL, &d), 0);
		assert_int_equal(d.count, cases[i].count);
		llmkit_targets_close(targets);
	}
	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
		assert_int_equal(
			llmkit_targets_open(kit, wrong[i], NULL, &targets), LLMKIT_E_UNKNOWN_MODEL);
	assert_null(targets);
	assert_int_equal(llmkit_targets_open(kit, "", NULL, &targets), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_targets_open(kit, NULL, NULL, &targets), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_targets_open(NULL, "m", NULL, &targets), LLMKIT_E_ARGUMENT);
}

/* ---- deciding ---- */

static void a_route_decides_as_it_is_configured(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	struct llmkit_decision d;

	(void)state;
	for (int i = 0; i < 20; i++) {
		assert_int_equal(llmkit_route(targets, NULL, &d), 0);
		assert_int_equal(d.usable, 2);
		assert_string_equal(d.choice[0].provider, "dear");
		assert_string_equal(d.choice[0].model, "m");
		assert_string_equal(d.choice[0].reason, "chosen");
		assert_string_equal(d.choice[1].provider, "cheap");
		assert_string_equal(d.choice[1].reason, "fallback");
	}
	llmkit_targets_close(targets);
}

static void learn(uint32_t row, unsigned samples, uint64_t first_token_ns)
{
	const struct target_sample sample = {
		.input_tokens = 100, .first_token_ns = first_token_ns, .gap_ns = NSEC_PER_MSEC
	};

	for (unsigned i = 0; i < samples; i++)
		target_learn(&mini.region, row, &sample, clock_boottime_ns());
	target_tried(&mini.region, row, clock_boottime_ns());
}

static void the_query_chooses_the_strategy(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	unsigned cheap_first = 0, dear_first = 0;
	struct llmkit_decision d;

	(void)state;
	learn(cheap, 50, 800 * NSEC_PER_MSEC);
	learn(dear, 50, 100 * NSEC_PER_MSEC);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(llmkit_route(targets,
					 QUERY(.strategy = LLMKIT_STRATEGY_COST,
						 .input_tokens = 100, .output_tokens = 10),
					 &d),
			0);
		cheap_first += strcmp(d.choice[0].provider, "cheap") == 0;
		assert_int_equal(llmkit_route(targets,
					 QUERY(.strategy = LLMKIT_STRATEGY_LATENCY,
						 .input_tokens = 100, .output_tokens = 10),
					 &d),
			0);
		dear_first += strcmp(d.choice[0].provider, "dear") == 0;
		assert_true(choice_of(&d, "dear")->first_token_us >= 90000);
		assert_true(choice_of(&d, "dear")->first_token_us <= 120000);
	}
	assert_true(cheap_first > 200 && dear_first > 200);
	llmkit_targets_close(targets);
}

static void weights_of_the_query_come_first(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	unsigned cheap_first = 0;
	struct llmkit_decision d;

	(void)state;
	/* A hundred times slower, and ten times cheaper: equal weights would have the other. */
	learn(cheap, 50, 10 * NSEC_PER_SEC);
	learn(dear, 50, 100 * NSEC_PER_MSEC);
	for (int i = 0; i < 300; i++) {
		assert_int_equal(
			llmkit_route(targets,
				QUERY(.strategy = LLMKIT_STRATEGY_BALANCED, .weight_cost = 1000,
					.input_tokens = 100, .output_tokens = 1),
				&d),
			0);
		cheap_first += strcmp(d.choice[0].provider, "cheap") == 0;
	}
	assert_true(cheap_first > 200);
	llmkit_targets_close(targets);
}

static void a_decision_says_what_it_costs(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	const struct llmkit_choice *c;
	struct llmkit_decision d;

	(void)state;
	assert_int_equal(
		llmkit_route(targets, QUERY(.input_tokens = 1000, .output_tokens = 100), &d), 0);
	c = choice_of(&d, "cheap");
	/* 1000 * 1 + 100 * 2 micro-USD. */
	assert_int_equal(c->cost_nanousd, 1200000);
	assert_int_equal(c->output_tokens, 100);
	assert_int_equal(llmkit_price(targets, c->target, 1000, 0, 100), 1200000);
	assert_int_equal(llmkit_price(targets, c->target, 1000, 500, 100), 1200000);
	assert_int_equal(llmkit_price(targets, 99, 1000, 0, 100), -1);
	assert_true(llmkit_price(targets, c->target, UINT64_MAX, 0, UINT64_MAX) == INT64_MAX);
	llmkit_targets_close(targets);
	targets = targets_of("other");
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(d.choice[0].cost_nanousd, -1);
	assert_int_equal(llmkit_price(targets, d.choice[0].target, 1, 0, 1), -1);
	llmkit_targets_close(targets);
}

static void a_fraction_of_a_nano_usd_is_one(void **state)
{
	struct llmkit_decision d;
	llmkit_targets *targets;

	(void)state;
	mini_target(&mini, "tiny/t", 1, 1);
	targets = targets_of("tiny/t");
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(llmkit_price(targets, d.choice[0].target, 1, 0, 0), 1);
	assert_int_equal(llmkit_price(targets, d.choice[0].target, 1000, 0, 0), 1);
	assert_int_equal(llmkit_price(targets, d.choice[0].target, 1000, 0, 1), 2);
	llmkit_targets_close(targets);
}

static void filters_say_why(void **state)
{
	llmkit_targets *targets = targets_of("fast");
	struct llmkit_decision d;

	(void)state;
	assert_int_equal(llmkit_route(targets,
				 QUERY(.input_tokens = 1000, .output_tokens = 100,
					 .price_cap_nanousd = 2000000),
				 &d),
		0);
	assert_int_equal(d.usable, 1);
	assert_string_equal(d.choice[0].provider, "cheap");
	assert_string_equal(d.choice[1].reason, "out: price");
	assert_int_equal(llmkit_route(targets, QUERY(.capabilities = UINT64_C(1) << 40), &d),
		LLMKIT_E_NO_TARGET);
	assert_int_equal(d.usable, 0);
	assert_int_equal(d.count, 2);
	assert_int_equal(d.wait_ns, 0);
	assert_string_equal(d.choice[0].reason, "out: capability");
	llmkit_targets_close(targets);
}

static void a_used_up_budget_is_routed_around(void **state)
{
	struct bucket_limit l = {
		.scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of("dear"),
		.limit = 10,
		.window_ns = DAY_NS,
		.burst = 10,
	};
	struct llmkit_decision d;
	llmkit_targets *targets;
	llmkit_limits *limits;
	unsigned target;

	(void)state;
	mini_limit_of(&mini, &l);
	l.name = str_of("cheap");
	mini_limit_of(&mini, &l);
	targets = targets_of("fast");
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	target = choice_of(&d, "dear")->target;
	limits = llmkit_targets_limits(targets, target);
	assert_non_null(limits);
	assert_int_equal(llmkit_limits_count(limits), 1);
	assert_int_equal(llmkit_acquire(limits, 10, NULL), 0);
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(d.usable, 1);
	assert_string_equal(d.choice[0].provider, "cheap");
	assert_string_equal(d.choice[1].reason, "out: budget");
	assert_true(d.choice[1].wait_ns > 0 && d.choice[1].wait_ns <= DAY_NS);
	/* With patience it may be had, later. */
	assert_int_equal(llmkit_route(targets, QUERY(.patience_ns = DAY_NS), &d), 0);
	assert_int_equal(d.usable, 2);
	assert_int_equal(
		llmkit_acquire(
			llmkit_targets_limits(targets, choice_of(&d, "cheap")->target), 10, NULL),
		0);
	assert_int_equal(llmkit_route(targets, NULL, &d), LLMKIT_E_LIMITED);
	assert_int_equal(d.usable, 0);
	assert_true(d.wait_ns > 0 && d.wait_ns <= DAY_NS);
	assert_null(llmkit_targets_limits(targets, 99));
	llmkit_targets_close(targets);
}

static void a_users_limits_are_the_targets(void **state)
{
	const struct llmkit_scope scope = { .size = sizeof(scope), .user = "ann" };
	struct llmkit_decision d;
	llmkit_targets *targets;

	(void)state;
	mini_limit(&mini, BUCKET_SCOPE_USER, "ann", 10, 10);
	assert_int_equal(llmkit_targets_open(kit, "cheap/m", &scope, &targets), 0);
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(
		llmkit_limits_count(llmkit_targets_limits(targets, d.choice[0].target)), 1);
	llmkit_targets_close(targets);
}

static void output_is_estimated_from_what_was(void **state)
{
	llmkit_targets *targets = targets_of("cheap/m");
	struct llmkit_decision d;

	(void)state;
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_true(d.choice[0].output_tokens > 0);
	assert_int_equal(llmkit_route(targets, QUERY(.max_tokens = 77), &d), 0);
	assert_int_equal(d.choice[0].output_tokens, 77);
	for (int i = 0; i < 500; i++) {
		llmkit_ticket ticket = { 0 };

		assert_int_equal(llmkit_allow(targets, 0, &ticket, NULL), 0);
		assert_int_equal(
			llmkit_report(&ticket,
				OUTCOME(.http_status = 200, .output_tokens = 40, .tag = "short")),
			0);
	}
	assert_int_equal(llmkit_route(targets, QUERY(.tag = "short"), &d), 0);
	assert_in_range(d.choice[0].output_tokens, 20, 80);
	assert_int_equal(d.choice[0].output_tokens,
		estimate_output(&mini.region, str_of("m"), str_of("short"), 0, 1));
	llmkit_targets_close(targets);
}

/* ---- calling ---- */

static unsigned holds_out(void)
{
	struct hold_view view;
	unsigned count = 0;

	for (uint32_t i = 0; i < mini.region.holds; i++)
		count += hold_view(&mini.region, i, &view);
	return count;
}

static void a_ticket_counts_until_it_is_reported(void **state)
{
	llmkit_targets *targets = targets_of("cheap/m");
	llmkit_ticket a = { 0 }, b = { 0 };
	struct llmkit_health h;
	uint64_t wait = 1;

	(void)state;
	assert_int_equal(llmkit_allow(targets, 0, &a, &wait), 0);
	assert_int_equal(wait, 0);
	assert_int_equal(llmkit_allow(targets, 0, &b, NULL), 0);
	assert_int_equal(target_pending(&mini.region, cheap), 2);
	assert_int_equal(holds_out(), 2);
	assert_int_equal(llmkit_allow(targets, 0, &b, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_report(&a,
				 OUTCOME(.http_status = 200, .first_token_ns = 50 * NSEC_PER_MSEC,
					 .duration_ns = 1040 * NSEC_PER_MSEC, .input_tokens = 10,
					 .output_tokens = 100)),
		0);
	assert_int_equal(llmkit_report(&a, OUTCOME(.http_status = 500)), 0);
	assert_int_equal(llmkit_health(targets, 0, &h), 0);
	assert_string_equal(h.provider, "cheap");
	assert_string_equal(h.model, "m");
	assert_string_equal(h.state, "closed");
	assert_string_equal(h.provider_state, "closed");
	assert_int_equal(h.pending, 1);
	assert_int_equal(h.requests, 1);
	assert_int_equal(h.errors, 0);
	assert_int_equal(h.samples, 1);
	/* (1040 - 50) / 99 ms */
	assert_in_range(h.gap_us, 9900, 10100);
	assert_int_equal(llmkit_give_up(&b), 0);
	assert_int_equal(llmkit_give_up(&b), 0);
	assert_int_equal(target_pending(&mini.region, cheap), 0);
	assert_int_equal(llmkit_health(targets, 0, &h), 0);
	assert_int_equal(h.requests, 1);
	/* Nothing is learned from failures, however quick. */
	assert_int_equal(llmkit_allow(targets, 0, &a, NULL), 0);
	assert_int_equal(
		llmkit_report(&a, OUTCOME(.http_status = 500, .first_token_ns = NSEC_PER_MSEC)), 0);
	assert_int_equal(llmkit_health(targets, 0, &h), 0);
	assert_int_equal(h.requests, 2);
	assert_int_equal(h.errors, 1);
	assert_int_equal(h.samples, 1);
	assert_int_equal(holds_out(), 0);
	llmkit_targets_close(targets);
}

static void calling_mistakes_are_told(void **state)
{
	llmkit_targets *targets = targets_of("cheap/m");
	struct llmkit_outcome small = { .size = 1 };
	llmkit_ticket none = { 0 }, a = { 0 };
	struct llmkit_decision d;
	struct llmkit_health h;

	(void)state;
	assert_int_equal(llmkit_allow(NULL, 0, &a, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_allow(targets, 1, &a, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_allow(targets, 0, NULL, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_report(NULL, OUTCOME(.http_status = 200)), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_report(&none, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_report(&none, &small), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_report(&none, OUTCOME(.http_status = 200)), 0);
	assert_int_equal(llmkit_give_up(NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_give_up(&none), 0);
	assert_int_equal(llmkit_route(targets, NULL, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_route(NULL, NULL, &d), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_route(targets, QUERY(.strategy = (enum llmkit_strategy)99), &d),
		LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_health(targets, 7, &h), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_health(targets, 0, NULL), LLMKIT_E_ARGUMENT);
	llmkit_targets_close(targets);
}

/* The number of a provider's target. */
static unsigned target_of(llmkit_targets *targets, const char *provider)
{
	struct llmkit_decision d = { 0 };

	llmkit_route(targets, NULL, &d);
	return choice_of(&d, provider)->target;
}

static void fail_until_open(
	llmkit_targets *targets, unsigned target, struct llmkit_outcome *outcome)
{
	struct llmkit_health h = { .state = "" };

	for (int i = 0; i < 1000 && strcmp(h.state, "open") != 0; i++) {
		llmkit_ticket ticket = { 0 };

		assert_int_equal(llmkit_allow(targets, target, &ticket, NULL), 0);
		assert_int_equal(llmkit_report(&ticket, outcome), 0);
		assert_int_equal(llmkit_health(targets, target, &h), 0);
	}
	assert_string_equal(h.state, "open");
}

static void failures_open_the_breaker(void **state)
{
	llmkit_targets *targets = targets_of("m");
	const unsigned target = target_of(targets, "cheap");
	struct llmkit_decision d;
	llmkit_ticket a = { 0 };
	struct llmkit_health h;
	uint64_t wait = 0;

	(void)state;
	fail_until_open(targets, target, OUTCOME(.http_status = 503));
	assert_int_equal(llmkit_health(targets, target, &h), 0);
	assert_true(h.errors > 0 && h.errors == h.requests && h.error_rate > 0.5);
	assert_true(h.retry_ns > 0 && h.retry_ns < 600 * NSEC_PER_SEC);
	assert_int_equal(llmkit_allow(targets, target, &a, &wait), LLMKIT_E_CIRCUIT_OPEN);
	assert_true(wait > 0 && wait < 600 * NSEC_PER_SEC);
	assert_int_equal(target_pending(&mini.region, cheap), 0);
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_string_equal(d.choice[0].provider, "dear");
	assert_string_equal(choice_of(&d, "cheap")->reason, "out: breaker");
	/* The provider's saw the same failures, and judges by itself. */
	assert_int_equal(llmkit_command(kit, "breaker-reset", "cheap/m", -1, NULL), 0);
	assert_int_equal(llmkit_command(kit, "breaker-reset", "cheap", -1, NULL), 0);
	assert_int_equal(llmkit_allow(targets, target, &a, &wait), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
}

/* ---- panic ---- */

/* Both targets of "m" are open, by failures. */
static llmkit_targets *all_open(unsigned *cheaps, unsigned *dears)
{
	llmkit_targets *targets = targets_of("m");

	*cheaps = target_of(targets, "cheap");
	*dears = target_of(targets, "dear");
	fail_until_open(targets, *cheaps, OUTCOME(.http_status = 500));
	fail_until_open(targets, *dears, OUTCOME(.http_status = 500));
	return targets;
}

static void reset(const char *name)
{
	breaker_reset(
		&mini.region, target_find(&mini.region, str_of(name), NULL), clock_boottime_ns());
}

static void breakers_never_refuse_the_last_target(void **state)
{
	unsigned cheaps, dears;
	llmkit_targets *targets = all_open(&cheaps, &dears);
	llmkit_ticket a = { 0 }, b = { 0 };
	struct llmkit_health before, after;
	struct breaker_view view;
	uint64_t wait = 1;

	(void)state;
	assert_int_equal(llmkit_health(targets, cheaps, &before), 0);
	assert_int_equal(llmkit_allow(targets, cheaps, &a, &wait), 0);
	assert_int_equal(wait, 0);
	assert_int_equal(llmkit_allow(targets, dears, &b, NULL), 0);
	/* Counted like any call, and no probe. */
	assert_int_equal(target_pending(&mini.region, cheap), 1);
	assert_true(breaker_view(&mini.region, cheap, clock_boottime_ns(), &view));
	assert_int_equal(view.state, BREAKER_OPEN);
	assert_int_equal(view.probes_out, 0);
	assert_int_equal(llmkit_report(&a, OUTCOME(.http_status = 500)), 0);
	assert_int_equal(llmkit_give_up(&b), 0);
	assert_int_equal(llmkit_health(targets, cheaps, &after), 0);
	assert_int_equal(after.errors, before.errors + 1);
	assert_int_equal(target_pending(&mini.region, cheap), 0);
	/* Another that may is the end of it. */
	reset("dear/m");
	reset("dear");
	assert_int_equal(llmkit_allow(targets, cheaps, &a, &wait), LLMKIT_E_CIRCUIT_OPEN);
	assert_true(wait > 0);
	assert_int_equal(llmkit_allow(targets, dears, &a, NULL), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
}

static void an_operators_breaker_refuses_in_panic_too(void **state)
{
	unsigned cheaps, dears;
	llmkit_targets *targets = all_open(&cheaps, &dears);
	struct llmkit_decision d;
	llmkit_ticket a = { 0 };
	uint64_t wait = 0;

	(void)state;
	/* The provider's, while the target's own is open by failures; and the target's. */
	assert_int_equal(llmkit_command(kit, "breaker-open", "cheap", -1, NULL), 0);
	assert_int_equal(llmkit_command(kit, "breaker-open", "dear/m", -1, NULL), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(llmkit_allow(targets, i ? dears : cheaps, &a, &wait),
			LLMKIT_E_CIRCUIT_OPEN);
		assert_true(wait == LLMKIT_WAIT_SETTLEMENT);
	}
	llmkit_targets_close(targets);
	/* Alone, and closed but for the operator. */
	reset("dear/m");
	assert_int_equal(llmkit_command(kit, "breaker-open", "dear", -1, NULL), 0);
	targets = targets_of("dear/m");
	assert_int_equal(llmkit_allow(targets, 0, &a, &wait), LLMKIT_E_CIRCUIT_OPEN);
	assert_true(wait == LLMKIT_WAIT_SETTLEMENT);
	assert_int_equal(llmkit_route(targets, NULL, &d), LLMKIT_E_LIMITED);
	assert_true(d.wait_ns == LLMKIT_WAIT_SETTLEMENT);
	assert_true(d.choice[0].wait_ns == LLMKIT_WAIT_SETTLEMENT);
	llmkit_targets_close(targets);
}

static void make_dear(uint64_t capabilities, bool available)
{
	const struct target_config config = { .name = str_of("dear/m"),
		.provider = target_find(&mini.region, str_of("dear"), NULL),
		.price_input = 1,
		.price_output = 1,
		.price_cached = -1,
		.capabilities = capabilities,
		.available = available };

	assert_int_equal(target_configure(&mini.region, &config), dear);
}

/* Another target counts only if a call could go there. */
static void the_last_that_may_is_the_last(void **state)
{
	struct bucket_limit l = {
		.scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of("dear"),
		.limit = 1,
		.window_ns = DAY_NS,
		.burst = 1,
	};
	llmkit_targets *targets;
	unsigned cheaps;
	llmkit_ticket a = { 0 };
	uint64_t now;

	(void)state;
	mini_limit_of(&mini, &l);
	targets = targets_of("m");
	cheaps = target_of(targets, "cheap");
	fail_until_open(targets, cheaps, OUTCOME(.http_status = 500));
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), LLMKIT_E_CIRCUIT_OPEN);
	make_dear(TARGET_CAPABILITIES, false);
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	make_dear(TARGET_CAPABILITIES, true);
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), LLMKIT_E_CIRCUIT_OPEN);
	now = clock_boottime_ns();
	target_pause(&mini.region, dear, now + DAY_NS, now);
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	target_unpause(&mini.region, dear);
	for (int i = 0; i < 2; i++) {
		const uint32_t row = i ? dear : target_find(&mini.region, str_of("dear"), NULL);

		assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), LLMKIT_E_CIRCUIT_OPEN);
		breaker_force_open(&mini.region, row, clock_boottime_ns());
		assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), 0);
		assert_int_equal(llmkit_give_up(&a), 0);
		breaker_reset(&mini.region, row, clock_boottime_ns());
	}
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), LLMKIT_E_CIRCUIT_OPEN);
	assert_int_equal(
		llmkit_acquire(llmkit_targets_limits(targets, target_of(targets, "dear")), 1, NULL),
		0);
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
}

/* What only the router knows: the other cannot do what this call needs. */
static void a_choice_of_panic_is_let_through(void **state)
{
	llmkit_targets *targets = targets_of("m");
	const unsigned cheaps = target_of(targets, "cheap");
	struct llmkit_decision d;
	llmkit_ticket a = { 0 };

	(void)state;
	make_dear(0, true);
	fail_until_open(targets, cheaps, OUTCOME(.http_status = 500));
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), LLMKIT_E_CIRCUIT_OPEN);
	assert_int_equal(llmkit_route(targets, QUERY(.capabilities = LLMKIT_TOOLS), &d), 0);
	assert_int_equal(d.usable, 1);
	assert_int_equal(d.choice[0].target, cheaps);
	assert_string_equal(d.choice[0].reason, "panic");
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	assert_int_equal(llmkit_command(kit, "breaker-open", "cheap/m", -1, NULL), 0);
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), LLMKIT_E_CIRCUIT_OPEN);
	llmkit_targets_close(targets);
}

/* Just closed, it lets one in at a time, unless it is the only one. */
static void a_ramp_is_for_those_who_have_another(void **state)
{
	llmkit_targets *targets = targets_of("m"), *alone = targets_of("cheap/m");
	const unsigned cheaps = target_of(targets, "cheap"), dears = target_of(targets, "dear");
	llmkit_ticket a = { 0 }, b = { 0 };
	uint64_t wait = 0;
	int r;

	(void)state;
	breaker_force_open(&mini.region, cheap, clock_boottime_ns());
	breaker_force_close(&mini.region, cheap, clock_boottime_ns());
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), 0);
	r = llmkit_allow(targets, cheaps, &b, &wait);
	/* It doubles by the second: on a slow machine there may be no ramp left to see. */
	if (breaker_ramp(&mini.region, cheap, clock_boottime_ns()) == 1) {
		assert_int_equal(r, LLMKIT_E_CIRCUIT_OPEN);
		assert_true(wait == LLMKIT_WAIT_SETTLEMENT);
	}
	assert_int_equal(llmkit_give_up(&b), 0);
	/* Full as it is, it is no other for one that is open. */
	fail_until_open(targets, dears, OUTCOME(.http_status = 500));
	r = llmkit_allow(targets, dears, &b, NULL);
	if (breaker_ramp(&mini.region, cheap, clock_boottime_ns()) == 1)
		assert_int_equal(r, 0);
	assert_int_equal(llmkit_give_up(&b), 0);
	assert_int_equal(llmkit_allow(alone, 0, &b, NULL), 0);
	assert_int_equal(llmkit_give_up(&b), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
	llmkit_targets_close(alone);
}

/* ---- pauses ---- */

static void a_429_pauses_the_target_for_all(void **state)
{
	static const struct llmkit_header retry = { "retry-after", "90" };
	llmkit_targets *targets = targets_of("m"), *alone = targets_of("cheap/m");
	const unsigned cheaps = target_of(targets, "cheap");
	struct llmkit_decision d;
	llmkit_ticket a = { 0 };
	uint64_t wait = 0;

	(void)state;
	assert_int_equal(llmkit_feedback(llmkit_targets_limits(targets, cheaps), 429, &retry, 1,
				 NULL, &wait),
		0);
	assert_true(wait == 90 * NSEC_PER_SEC);
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(d.usable, 1);
	assert_string_equal(choice_of(&d, "cheap")->reason, "out: paused");
	assert_int_equal(llmkit_allow(alone, 0, &a, &wait), LLMKIT_E_PROVIDER_LIMITED);
	assert_in_range(wait, 30 * NSEC_PER_SEC, 90 * NSEC_PER_SEC);
	/* Time will do. */
	assert_int_equal(llmkit_route(alone, NULL, &d), LLMKIT_E_LIMITED);
	assert_in_range(d.wait_ns, 30 * NSEC_PER_SEC, 90 * NSEC_PER_SEC);
	assert_int_equal(llmkit_route(alone, QUERY(.patience_ns = DAY_NS), &d), 0);
	assert_in_range(d.choice[0].wait_ns, 30 * NSEC_PER_SEC, 90 * NSEC_PER_SEC);
	target_unpause(&mini.region, cheap);
	assert_int_equal(llmkit_allow(alone, 0, &a, &wait), 0);
	assert_int_equal(wait, 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
	llmkit_targets_close(alone);
}

/* A call that never fits waits for nothing; one that others keep out does. */
static void never_is_not_later(void **state)
{
	struct bucket_limit l = {
		.scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_HELD,
		.name = str_of("cheap"),
		.limit = 100,
		.window_ns = DAY_NS,
		.burst = 100,
	};
	struct llmkit_decision d;
	llmkit_targets *targets;
	llmkit_lease lease = { 0 };

	(void)state;
	mini_limit_of(&mini, &l);
	l.resource = BUCKET_CONCURRENCY;
	l.kind = BUCKET_GAUGE;
	l.limit = l.burst = 1;
	l.window_ns = 0;
	mini_limit_of(&mini, &l);
	targets = targets_of("cheap/m");
	assert_int_equal(llmkit_route(targets, QUERY(.input_tokens = 200, .output_tokens = 1), &d),
		LLMKIT_E_NO_TARGET);
	assert_string_equal(d.choice[0].reason, "out: budget");
	assert_int_equal(d.wait_ns, 0);
	assert_int_equal(llmkit_lease_acquire(llmkit_targets_limits(targets, 0),
				 COST(.requests = 1, .input_tokens = 1), &lease, NULL),
		0);
	assert_int_equal(llmkit_route(targets, QUERY(.input_tokens = 20, .output_tokens = 1), &d),
		LLMKIT_E_LIMITED);
	assert_true(d.wait_ns == LLMKIT_WAIT_SETTLEMENT);
	assert_int_equal(llmkit_cancel(&lease), 0);
	llmkit_targets_close(targets);
}

/* ---- breakers ---- */

/* What a status means to the breaker: 40 of each, and nothing opens but for failures. */
static void statuses_have_their_meaning(void **state)
{
	static const struct {
		unsigned status;
		enum llmkit_outcome_class outcome;
		bool opens;
	} cases[] = {
		{ 0, LLMKIT_OUTCOME_BY_STATUS, true },
		{ 200, LLMKIT_OUTCOME_BY_STATUS, false },
		{ 400, LLMKIT_OUTCOME_BY_STATUS, false },
		{ 401, LLMKIT_OUTCOME_BY_STATUS, false },
		{ 408, LLMKIT_OUTCOME_BY_STATUS, true },
		{ 429, LLMKIT_OUTCOME_BY_STATUS, false },
		{ 500, LLMKIT_OUTCOME_BY_STATUS, true },
		{ 529, LLMKIT_OUTCOME_BY_STATUS, true },
		{ 200, LLMKIT_OUTCOME_FAILED, true },
		{ 500, LLMKIT_OUTCOME_NEUTRAL, false },
		{ 500, LLMKIT_OUTCOME_GOOD, false },
		{ 500, LLMKIT_OUTCOME_LIMITED, false },
	};
	llmkit_targets *targets = targets_of("cheap/m");
	const uint32_t provider = target_find(&mini.region, str_of("cheap"), NULL);

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct llmkit_health h;

		for (int k = 0; k < 40; k++) {
			llmkit_ticket ticket = { 0 };

			if (llmkit_allow(targets, 0, &ticket, NULL) == 0)
				assert_int_equal(llmkit_report(&ticket,
							 OUTCOME(.http_status = cases[i].status,
								 .outcome = cases[i].outcome)),
					0);
		}
		assert_int_equal(llmkit_health(targets, 0, &h), 0);
		if ((strcmp(h.state, "open") == 0) != cases[i].opens)
			fail_msg("case %zu: %s", i, h.state);
		breaker_reset(&mini.region, cheap, clock_boottime_ns());
		breaker_reset(&mini.region, provider, clock_boottime_ns());
	}
	llmkit_targets_close(targets);
}

static void a_providers_breaker_is_for_all_its_models(void **state)
{
	llmkit_targets *targets = targets_of("other");
	struct llmkit_health h;
	llmkit_ticket a = { 0 };
	uint64_t wait = 0;

	(void)state;
	assert_int_equal(llmkit_command(kit, "breaker-open", "dear", -1, NULL), 0);
	assert_int_equal(llmkit_allow(targets, 0, &a, &wait), LLMKIT_E_CIRCUIT_OPEN);
	assert_true(wait > 0);
	assert_int_equal(llmkit_health(targets, 0, &h), 0);
	assert_string_equal(h.state, "closed");
	assert_string_equal(h.provider_state, "open");
	assert_int_equal(llmkit_command(kit, "breaker-close", "dear", -1, NULL), 0);
	assert_int_equal(llmkit_allow(targets, 0, &a, &wait), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
}

/* Half-open: one probe at a time. Given up, or refused by the provider's breaker, it comes back. */
static void a_probe_comes_back(void **state)
{
	llmkit_targets *targets = targets_of("m");
	const unsigned target = target_of(targets, "cheap");
	struct breaker_settings settings = breaker_preset(BREAKER_PRODUCTION);
	const uint32_t provider = target_find(&mini.region, str_of("cheap"), NULL);
	uint64_t until = clock_boottime_ns() + WAIT_NS;
	llmkit_ticket a = { 0 }, b = { 0 };
	int r;

	(void)state;
	settings.probes = 1;
	settings.base_ms = settings.cap_ms = 1;
	settings.lease_ms = 600000;
	breaker_configure(&mini.region, cheap, &settings);
	fail_until_open(targets, target, OUTCOME(.http_status = 500));
	breaker_reset(&mini.region, provider, clock_boottime_ns());
	do
		r = llmkit_allow(targets, target, &a, NULL);
	while (r == LLMKIT_E_CIRCUIT_OPEN && clock_boottime_ns() < until);
	assert_int_equal(r, 0);
	assert_int_equal(llmkit_allow(targets, target, &b, NULL), LLMKIT_E_CIRCUIT_OPEN);
	assert_int_equal(llmkit_give_up(&a), 0);
	breaker_force_open(&mini.region, provider, clock_boottime_ns());
	assert_int_equal(llmkit_allow(targets, target, &a, NULL), LLMKIT_E_CIRCUIT_OPEN);
	breaker_force_close(&mini.region, provider, clock_boottime_ns());
	assert_int_equal(llmkit_allow(targets, target, &a, NULL), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
}

/* ---- processes, roles, changes ---- */

#define child_check(x_) \
	do { \
		if (!(x_)) { \
			fprintf(stderr, "child: %s:%d: %s\n", __FILE__, __LINE__, #x_); \
			_exit(1); \
		} \
	} while (0)

static llmkit_targets *shared;
static llmkit_ticket parents;

static void call_and_die(void)
{
	llmkit_ticket own = { 0 };

	child_check(llmkit_allow(shared, 0, &own, NULL) == 0);
	child_check(llmkit_report(&parents, OUTCOME(.http_status = 200)) == LLMKIT_E_FORKED);
	child_check(llmkit_give_up(&parents) == LLMKIT_E_FORKED);
	child_check(target_pending(&mini.region, cheap) == 2);
}

static void what_a_dead_child_called_comes_back(void **state)
{
	struct participant_view v;
	uint32_t row = 0;
	int status;
	pid_t pid;

	(void)state;
	shared = targets_of("cheap/m");
	parents = (llmkit_ticket){ 0 };
	assert_int_equal(llmkit_allow(shared, 0, &parents, NULL), 0);
	pid = fork();
	if (pid == 0) {
		alarm(60);
		call_and_die();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	while (participant_view(&mini.region, row, &v) && v.pid != (uint64_t)pid)
		row++;
	assert_int_equal(
		hold_reap(&mini.region, participant_owner(&mini.region, row), clock_boottime_ns()),
		1);
	assert_int_equal(target_pending(&mini.region, cheap), 1);
	assert_int_equal(llmkit_give_up(&parents), 0);
	assert_int_equal(target_pending(&mini.region, cheap), 0);
	llmkit_targets_close(shared);
}

static void observers_may_look(void **state)
{
	struct llmkit_decision d;
	struct llmkit_health h;
	llmkit_targets *targets;
	llmkit_ticket a = { 0 };
	static const char *const names[] = { "cheap/m", "dear/m", NULL };

	(void)state;
	mini_route(&mini, "turns", ROUTER_ROUND_ROBIN, names);
	llmkit_close(kit);
	mini_kill(&mini);
	mini_start(&mini, &(struct mini_script){ .role = MSG_ROLE_OBSERVER });
	assert_int_equal(mini_open(&mini, &kit), 0);
	targets = targets_of("turns");
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_int_equal(d.usable, 2);
	assert_int_equal(llmkit_health(targets, d.choice[0].target, &h), 0);
	assert_int_equal(llmkit_allow(targets, 0, &a, NULL), LLMKIT_E_NO_REGION);
	assert_null(llmkit_targets_limits(targets, 0));
	llmkit_targets_close(targets);
}

static void a_changed_route_is_followed(void **state)
{
	static const char *const names[] = { "dear/other", "dear/m", NULL };
	llmkit_targets *targets = targets_of("fast");
	uint64_t until = clock_boottime_ns() + WAIT_NS;
	unsigned dears, cheaps;
	struct llmkit_decision d;
	llmkit_ticket a = { 0 };

	(void)state;
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	dears = choice_of(&d, "dear")->target;
	cheaps = choice_of(&d, "cheap")->target;
	mini_route(&mini, "fast", ROUTER_ORDER, names);
	do
		assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	while (strcmp(d.choice[0].model, "other") != 0 && clock_boottime_ns() < until);
	assert_string_equal(d.choice[0].model, "other");
	/* Who stays keeps its number, nobody gets another's, and who went is not called. */
	assert_int_equal(d.choice[1].target, dears);
	assert_true(d.choice[0].target != dears && d.choice[0].target != cheaps);
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), LLMKIT_E_UNKNOWN_MODEL);
	assert_int_equal(llmkit_allow(targets, dears, &a, NULL), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
}

static void a_target_that_went_is_not_called(void **state)
{
	llmkit_targets *targets = targets_of("cheap/m");
	bool *keep = calloc(mini.region.targets, sizeof(*keep));
	struct llmkit_health h;
	llmkit_ticket a = { 0 };

	(void)state;
	assert_non_null(keep);
	keep[dear] = keep[other] = true;
	target_retire(&mini.region, keep);
	free(keep);
	assert_int_equal(llmkit_allow(targets, 0, &a, NULL), LLMKIT_E_UNKNOWN_MODEL);
	assert_int_equal(llmkit_health(targets, 0, &h), LLMKIT_E_UNKNOWN_MODEL);
	llmkit_targets_close(targets);
}

static void a_new_region_is_moved_to(void **state)
{
	llmkit_targets *targets = targets_of("cheap/m");
	llmkit_ticket a = { 0 }, b = { 0 };
	char *json;

	(void)state;
	assert_int_equal(llmkit_allow(targets, 0, &a, NULL), 0);
	mini_kill(&mini);
	mini_new_region(&mini);
	cheap = mini_target(&mini, "cheap/m", 1, 1);
	mini_start(&mini, PARTICIPANT);
	assert_int_equal(llmkit_status(kit, -1, &json), 0);
	free(json);
	assert_int_equal(llmkit_allow(targets, 0, &b, NULL), 0);
	assert_int_equal(target_pending(&mini.region, cheap), 1);
	/* The old one's ticket is of the old region. */
	assert_int_equal(llmkit_give_up(&a), 0);
	assert_int_equal(target_pending(&mini.region, cheap), 1);
	assert_int_equal(llmkit_give_up(&b), 0);
	assert_int_equal(target_pending(&mini.region, cheap), 0);
	llmkit_targets_close(targets);
}

/* ---- threads ---- */

#define THREADS 6
#define ROUNDS 400

static void *call_round(void *targets)
{
	struct llmkit_decision d;

	for (int i = 0; i < ROUNDS; i++) {
		llmkit_ticket ticket = { 0 };
		llmkit_lease lease = { 0 };
		unsigned target;

		if (llmkit_route(targets, QUERY(.strategy = LLMKIT_STRATEGY_LATENCY), &d) != 0)
			return (void *)"no route";
		target = d.choice[0].target;
		if (llmkit_allow(targets, target, &ticket, NULL) != 0)
			return (void *)"not allowed";
		if (llmkit_lease_acquire(llmkit_targets_limits(targets, target),
			    COST(.requests = 1, .output_tokens = d.choice[0].output_tokens), &lease,
			    NULL) != 0)
			return (void *)"not leased";
		if (llmkit_report(&ticket,
			    OUTCOME(.http_status = 200, .first_token_ns = 1000000,
				    .duration_ns = 3000000, .input_tokens = 5,
				    .output_tokens = 20)) != 0 ||
			llmkit_settle(&lease, COST(.output_tokens = 20)) != 0)
			return (void *)"not ended";
	}
	return NULL;
}

static void threads_share_one_handle(void **state)
{
	static const char *const names[] = { "dear/m", "dear/other", NULL };
	struct bucket_limit l = {
		.scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_HELD,
		.name = str_of("dear"),
		.limit = 1000000000,
		.window_ns = DAY_NS,
		.burst = 1000000000,
	};
	llmkit_targets *targets;
	pthread_t thread[THREADS];

	(void)state;
	mini_limit_of(&mini, &l);
	targets = targets_of("fast");
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, call_round, targets), 0);
	for (int i = 0; i < 20; i++) {
		clock_sleep_until(clock_boottime_ns() + 5 * NSEC_PER_MSEC);
		mini_route(&mini, "fast", i % 2 ? ROUTER_COST : ROUTER_ORDER, names);
	}
	for (int i = 0; i < THREADS; i++) {
		void *wrong;

		pthread_join(thread[i], &wrong);
		if (wrong)
			fail_msg("%s", (const char *)wrong);
	}
	assert_int_equal(target_pending(&mini.region, dear), 0);
	assert_int_equal(target_pending(&mini.region, cheap), 0);
	assert_int_equal(target_pending(&mini.region, other), 0);
	assert_int_equal(mini_view(&mini, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "dear").held, 0);
	llmkit_targets_close(targets);
}

/* ---- garbage ---- */

static void garbage_in_the_region_is_survived(void **state)
{
	llmkit_targets *targets = targets_of("fast"), *later;
	uint64_t *word = mini.region.map, seed = 5;
	size_t words = mini.region.size / sizeof(*word);
	llmkit_ticket held = { 0 };

	(void)state;
	assert_int_equal(llmkit_allow(targets, 0, &held, NULL), 0);
	for (int round = 0; round < 10; round++) {
		for (size_t i = 0; i < words; i++)
			word[i] = round % 4 == 3 ? UINT64_MAX :
						   splitmix_next(&seed) >> (round % 5 * 12);
		for (unsigned i = 0; i < 30; i++) {
			struct llmkit_decision d = { 0 };
			struct llmkit_health h;
			llmkit_ticket a = { 0 };

			llmkit_route(targets, QUERY(.input_tokens = i * i * i), &d);
			assert_true(d.count <= LLMKIT_TARGETS_MAX && d.usable <= d.count);
			llmkit_allow(targets, i % 2, &a, NULL);
			llmkit_health(targets, i % 2, &h);
			llmkit_price(targets, i % 2, i, i, UINT64_MAX);
			assert_int_equal(llmkit_report(&a, OUTCOME(.http_status = i * 30)), 0);
		}
		if (llmkit_targets_open(kit, "m", NULL, &later) == 0)
			llmkit_targets_close(later);
	}
	assert_int_equal(llmkit_report(&held, OUTCOME(.http_status = 200)), 0);
	llmkit_targets_close(targets);
}

#define test_(name_) cmocka_unit_test_setup_teardown(name_, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_(names_stand_for_targets),
		test_(a_route_decides_as_it_is_configured),
		test_(the_query_chooses_the_strategy),
		test_(weights_of_the_query_come_first),
		test_(a_decision_says_what_it_costs),
		test_(a_fraction_of_a_nano_usd_is_one),
		test_(filters_say_why),
		test_(a_used_up_budget_is_routed_around),
		test_(a_users_limits_are_the_targets),
		test_(output_is_estimated_from_what_was),
		test_(a_ticket_counts_until_it_is_reported),
		test_(calling_mistakes_are_told),
		test_(failures_open_the_breaker),
		test_(breakers_never_refuse_the_last_target),
		test_(an_operators_breaker_refuses_in_panic_too),
		test_(the_last_that_may_is_the_last),
		test_(a_choice_of_panic_is_let_through),
		test_(a_ramp_is_for_those_who_have_another),
		test_(a_429_pauses_the_target_for_all),
		test_(never_is_not_later),
		test_(statuses_have_their_meaning),
		test_(a_providers_breaker_is_for_all_its_models),
		test_(a_probe_comes_back),
		test_(what_a_dead_child_called_comes_back),
		test_(observers_may_look),
		test_(a_changed_route_is_followed),
		test_(a_target_that_went_is_not_called),
		test_(a_new_region_is_moved_to),
		test_(threads_share_one_handle),
		test_(garbage_in_the_region_is_survived),
	};

	return cmocka_run_group_tests_name("target-api", tests, NULL, NULL);
}
