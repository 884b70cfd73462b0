/* What breakers do to calls of the library: opening, panic, ramps, probes, a provider's breaker. */

#include "shm/breaker.h"
#include "tests/unit/target-fixture.h"

/* ---- opening ---- */

static void failures_open_the_breaker(void **state)
{
	llmkit_targets *targets = targets_of("both");
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

/* Both targets are open, by failures. */
static llmkit_targets *all_open(unsigned *cheaps, unsigned *dears)
{
	llmkit_targets *targets = targets_of("both");

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
	targets = targets_of("both");
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
	llmkit_targets *targets = targets_of("both");
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

/* Its ramp lets one in. It doubles by the second since the close, which here is 9 s from now,
 * so that no machine is slow enough to miss it. */
static void close_just_now(uint32_t row)
{
	uint64_t now = clock_boottime_ns();

	breaker_force_open(&mini.region, row, now);
	breaker_force_close(&mini.region, row, now + 9 * NSEC_PER_SEC);
	assert_int_equal(breaker_ramp(&mini.region, row, clock_boottime_ns()), 1);
}

/* Just closed, it lets one in at a time, unless it is the only one. */
static void a_ramp_is_for_those_who_have_another(void **state)
{
	llmkit_targets *targets = targets_of("both"), *alone = targets_of("cheap/m");
	const unsigned cheaps = target_of(targets, "cheap"), dears = target_of(targets, "dear");
	llmkit_ticket a = { 0 }, b = { 0 };
	uint64_t wait = 0;

	(void)state;
	close_just_now(cheap);
	assert_int_equal(llmkit_allow(targets, cheaps, &a, NULL), 0);
	close_just_now(cheap);
	assert_int_equal(llmkit_allow(targets, cheaps, &b, &wait), LLMKIT_E_CIRCUIT_OPEN);
	assert_true(wait == LLMKIT_WAIT_SETTLEMENT);
	/* Full as it is, it is no other for one that is open. */
	fail_until_open(targets, dears, OUTCOME(.http_status = 500));
	close_just_now(cheap);
	assert_int_equal(llmkit_allow(targets, dears, &b, NULL), 0);
	assert_int_equal(llmkit_give_up(&b), 0);
	assert_int_equal(llmkit_allow(alone, 0, &b, NULL), 0);
	assert_int_equal(llmkit_give_up(&b), 0);
	assert_int_equal(llmkit_give_up(&a), 0);
	llmkit_targets_close(targets);
	llmkit_targets_close(alone);
}

/* ---- statuses, providers, probes ---- */

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
	llmkit_targets *targets = targets_of("both");
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

#define test_(name_) cmocka_unit_test_setup_teardown(name_, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_(failures_open_the_breaker),
		test_(breakers_never_refuse_the_last_target),
		test_(an_operators_breaker_refuses_in_panic_too),
		test_(the_last_that_may_is_the_last),
		test_(a_choice_of_panic_is_let_through),
		test_(a_ramp_is_for_those_who_have_another),
		test_(statuses_have_their_meaning),
		test_(a_providers_breaker_is_for_all_its_models),
		test_(a_probe_comes_back),
	};

	return cmocka_run_group_tests_name("target-api-breaker", tests, NULL, NULL);
}
