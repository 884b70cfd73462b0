/* Whom the router may not choose, has to wait for, or may only probe: filters, limits and pauses,
 * breakers, panic. */

#include "shm/bucket.h"
#include "shm/bucket_table.h"
#include "tests/unit/router-helpers.h"

/* ---- filters ---- */

static enum router_reason reason_of(struct world *w, const struct router_query *q, unsigned i)
{
	struct router_decision d = world_ask(w, q);

	return world_choice(&d, i)->reason;
}

static void test_filters(void **state)
{
	struct world w;
	struct router_query q;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "good", 300, 1);
	world_target(&w, "other", 300, 1);
	q = world_query(&w, ROUTER_LATENCY);
	assert_true(reason_of(&w, &q, 1) < ROUTER_OUT_UNAVAILABLE);

	world_row(&w, 1)->available = 0;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_UNAVAILABLE);
	world_row(&w, 1)->available = 77; /* garbage is no permission */
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_UNAVAILABLE);
	world_row(&w, 1)->available = 1;

	q.capabilities = TARGET_VISION | TARGET_TOOLS;
	world_row(&w, 1)->capabilities = TARGET_TOOLS;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_CAPABILITY);
	world_row(&w, 1)->capabilities = TARGET_CAPABILITIES;

	world_row(&w, 1)->context = 199; /* 100 in, 100 out */
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_CONTEXT);
	world_row(&w, 1)->context = 99;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_CONTEXT);
	world_row(&w, 1)->context = 200;
	assert_true(reason_of(&w, &q, 1) < ROUTER_OUT_UNAVAILABLE);

	q.price_cap_nanousd = 200000; /* 200 tokens at a dollar a million */
	assert_true(reason_of(&w, &q, 1) < ROUTER_OUT_UNAVAILABLE);
	world_row(&w, 1)->price_output = 1000001;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_PRICE);
	world_row(&w, 1)->price_output = UINT64_MAX;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_PRICE);
	q.price_cap_nanousd = -1;
	assert_true(reason_of(&w, &q, 1) < ROUTER_OUT_UNAVAILABLE);

	w.candidate[1].key++;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_UNAVAILABLE);
	w.candidate[1].row = UINT32_MAX;
	assert_int_equal(reason_of(&w, &q, 1), ROUTER_OUT_UNAVAILABLE);
	world_close(&w);
}

/* ---- limits and pauses ---- */

static void limit_to_one(struct world *w, unsigned i, struct bucket_set *set, const char *name)
{
	struct bucket_limit limit = { .scope = BUCKET_SCOPE_MODEL,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of(name),
		.limit = 1,
		.window_ns = 10 * NSEC_PER_SEC,
		.burst = 1 };

	assert_true(bucket_configure(&w->r, &limit, w->now_ns) >= 0);
	*set = (struct bucket_set){ 0 };
	assert_true(bucket_set_add(set, &w->r, BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, str_of(name)));
	w->candidate[i].limits = set;
	assert_int_equal(bucket_acquire(&w->r, set, 1, w->now_ns).outcome, BUCKET_OK);
}

static void test_a_budget_that_is_used_up_waits_or_is_out(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;
	struct bucket_set set, other;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "fast", 100, 1);
	world_target(&w, "slow", 2000, 1);
	limit_to_one(&w, 0, &set, "fast");
	q = world_query(&w, ROUTER_LATENCY);
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 1);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(d.choice[1].reason, ROUTER_OUT_BUDGET);
	assert_int_equal(d.choice[1].wait_ns, 10 * NSEC_PER_SEC);

	/* With patience it is in, but the wait counts. */
	q.patience_ns = 10 * NSEC_PER_SEC;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 2);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(d.choice[1].wait_ns, 10 * NSEC_PER_SEC);
	assert_int_equal(d.choice[1].reason, ROUTER_FALLBACK);
	w.now_ns += 9900 * NSEC_PER_MSEC;
	world_know(&w, 0, 100, 0);
	world_know(&w, 1, 2000, 0);
	d = world_ask(&w, &q);
	assert_int_equal(d.choice[0].candidate, 0);
	assert_int_equal(d.choice[0].wait_ns, 100 * NSEC_PER_MSEC);

	/* All out: each says how long. */
	q.patience_ns = 0;
	limit_to_one(&w, 1, &other, "slow");
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 0);
	assert_int_equal(world_choice(&d, 0)->wait_ns, 100 * NSEC_PER_MSEC);
	assert_int_equal(world_choice(&d, 1)->wait_ns, 10 * NSEC_PER_SEC);
	world_close(&w);
}

static void test_what_never_fits_is_out_for_the_most_patient(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;
	struct bucket_set set;
	struct bucket_limit limit = { .scope = BUCKET_SCOPE_MODEL,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_RATE,
		.name = str_of("t"),
		.limit = 1000,
		.window_ns = 60 * NSEC_PER_SEC,
		.burst = 150 };

	(void)state;
	world_open(&w, 1);
	world_target(&w, "t", 100, 1);
	assert_true(bucket_configure(&w.r, &limit, w.now_ns) >= 0);
	set = (struct bucket_set){ 0 };
	assert_true(bucket_set_add(&set, &w.r, BUCKET_SCOPE_MODEL, BUCKET_TOKENS, str_of("t")));
	w.candidate[0].limits = &set;
	q = world_query(&w, ROUTER_LATENCY); /* 200 tokens */
	q.patience_ns = UINT64_MAX;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 0);
	assert_int_equal(d.choice[0].reason, ROUTER_OUT_BUDGET);
	assert_true(d.choice[0].wait_ns == UINT64_MAX);
	q.output_tokens = 50;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 1);
	world_close(&w);
}

static void test_a_paused_target_waits_or_is_out(void **state)
{
	struct world w;
	struct router_query q;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	target_pause(&w.r, w.candidate[0].row, w.now_ns + 5 * NSEC_PER_SEC, w.now_ns);
	q = world_query(&w, ROUTER_LATENCY);
	d = world_ask(&w, &q);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_PAUSED);
	assert_int_equal(world_choice(&d, 0)->wait_ns, 5 * NSEC_PER_SEC);
	q.patience_ns = 5 * NSEC_PER_SEC;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 2);
	assert_int_equal(d.choice[0].candidate, 1);
	/* Its own where its provider has none, and its provider's. */
	q.patience_ns = 0;
	world_row(&w, 0)->provider = w.candidate[1].row;
	d = world_ask(&w, &q);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_PAUSED);
	world_row(&w, 1)->provider = w.candidate[0].row;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 0);
	assert_int_equal(d.choice[0].wait_ns, 5 * NSEC_PER_SEC);
	assert_int_equal(d.choice[1].wait_ns, 5 * NSEC_PER_SEC);
	w.now_ns += 5 * NSEC_PER_SEC;
	d = world_ask(&w, &q);
	assert_int_equal(d.usable, 2);
	world_close(&w);
}

/* ---- breakers ---- */

static void break_it(struct world *w, unsigned i)
{
	uint64_t wait_ns;

	for (int k = 0; k < 5; k++)
		world_outcome(w, i, false, 0);
	assert_int_equal(
		breaker_check(&w->r, w->candidate[i].row, w->now_ns, &wait_ns), BREAKER_REJECT);
}

static void test_an_open_breaker_is_out_unless_all_are(void **state)
{
	struct world w;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	world_target(&w, "no key", 300, 1);
	world_row(&w, 2)->available = 0;
	break_it(&w, 0);
	d = world_decide(&w, ROUTER_BALANCED);
	assert_int_equal(d.usable, 1);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_BREAKER);
	assert_true(world_choice(&d, 0)->wait_ns > 0);
	assert_int_equal(d.choice[0].reason, ROUTER_CHOSEN);
	break_it(&w, 1);
	d = world_decide(&w, ROUTER_BALANCED);
	assert_int_equal(d.usable, 2);
	assert_int_equal(d.choice[0].reason, ROUTER_PANIC);
	assert_int_equal(d.choice[1].reason, ROUTER_PANIC);
	assert_int_equal(d.choice[0].candidate, 0);
	assert_int_equal(d.choice[2].reason, ROUTER_OUT_UNAVAILABLE);
	world_close(&w);
}

/* Panic is no way around a budget, nor around an operator. */
static void test_panic_spares_budgets_and_operators(void **state)
{
	struct world w;
	struct router_decision d;
	struct bucket_set set;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	limit_to_one(&w, 0, &set, "a");
	break_it(&w, 0);
	break_it(&w, 1);
	d = world_decide(&w, ROUTER_BALANCED);
	assert_int_equal(d.usable, 1);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_BUDGET);
	breaker_force_open(&w.r, w.candidate[1].row, w.now_ns);
	d = world_decide(&w, ROUTER_BALANCED);
	assert_int_equal(d.usable, 0);
	assert_int_equal(world_choice(&d, 1)->reason, ROUTER_OUT_BREAKER);
	assert_true(world_choice(&d, 0)->wait_ns <= 10 * NSEC_PER_SEC);
	world_close(&w);
}

static void test_a_providers_breaker_is_out_with_all_its_targets(void **state)
{
	struct world w;
	struct target_config provider = world_config("p"), c = world_config("p/m");
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	c.provider = w.candidate[world_add(&w, &provider)].row;
	world_add(&w, &c);
	world_target(&w, "q", 300, 1);
	w.candidate[0] = w.candidate[2];
	w.count = 2;
	world_know(&w, 1, 100, 0);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_int_equal(d.choice[0].candidate, 1);
	breaker_force_open(&w.r, c.provider, w.now_ns);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_int_equal(world_choice(&d, 1)->reason, ROUTER_OUT_BREAKER);
	world_close(&w);
}

/* The decision on the second of two alone: a target, after its provider. */
static struct router_choice decide_on_target(struct world *w)
{
	struct router_query q = world_query(w, ROUTER_LATENCY);
	struct router_decision d;

	router_decide(&w->r, &q, &w->candidate[1], 1, NULL, w->now_ns, &d);
	return d.choice[0];
}

static void open_with_provider(struct world *w)
{
	struct target_config provider = world_config("p"), c = world_config("p/m");

	world_open(w, 1);
	c.provider = w->candidate[world_add(w, &provider)].row;
	world_add(w, &c);
	world_know(w, 0, 100, 10);
	world_know(w, 1, 100, 10);
}

/* An operator opened the target's or its provider's, and the other has opened by failures, wants a
 * probe later: it may never be, not even in panic. */
static void test_what_an_operator_opened_is_out_whatever_the_other_says(void **state)
{
	(void)state;
	for (unsigned forced = 0; forced < 2; forced++) {
		struct world w;

		open_with_provider(&w);
		breaker_force_open(&w.r, w.candidate[forced].row, w.now_ns);
		break_it(&w, 1 - forced);
		for (unsigned i = 0; i < 40; i++) {
			struct router_choice c = decide_on_target(&w);

			assert_int_equal(c.reason, ROUTER_OUT_BREAKER);
			assert_int_equal(c.wait_ns, BREAKER_WAIT_FOREVER);
			w.now_ns += NSEC_PER_SEC;
		}
		world_close(&w);
	}
}

/* The target would be probed, its provider's is open: panic. Then the provider's wants a probe. */
static void test_a_probe_waits_for_the_providers_breaker(void **state)
{
	struct world w;

	(void)state;
	open_with_provider(&w);
	break_it(&w, 1);
	w.now_ns += 6 * NSEC_PER_SEC;
	break_it(&w, 0);
	assert_int_equal(decide_on_target(&w).reason, ROUTER_PANIC);
	w.now_ns += 6 * NSEC_PER_SEC;
	assert_int_equal(decide_on_target(&w).reason, ROUTER_CHOSEN);
	/* And where its own is well: the provider's probe is of all its targets. */
	breaker_reset(&w.r, w.candidate[1].row, w.now_ns);
	world_target(&w, "q", 100, 1);
	world_know(&w, 1, 100, 10);
	w.candidate[0] = w.candidate[2];
	w.count = 2;
	for (unsigned i = 0; i < 40; i++) {
		struct router_decision d = world_decide(&w, ROUTER_LATENCY);
		enum router_reason reason = world_choice(&d, 1)->reason;

		assert_true(reason == ROUTER_COLD || reason == ROUTER_EXPLORED);
	}
	world_close(&w);
}

/* Long after all else about it has settled, and the ramp of one that an operator closed. */
static void test_what_an_operator_did_is_seen_at_once_and_for_ever(void **state)
{
	struct world w;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 5000, 1);
	world_know(&w, 0, 100, 10);
	world_know(&w, 1, 5000, 10);
	world_row(&w, 0)->provider = w.candidate[1].row;
	breaker_force_open(&w.r, w.candidate[0].row, w.now_ns);
	w.now_ns += 3600 * NSEC_PER_SEC;
	world_know(&w, 0, 100, 10);
	world_know(&w, 1, 5000, 10);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_int_equal(world_choice(&d, 0)->reason, ROUTER_OUT_BREAKER);
	breaker_force_close(&w.r, w.candidate[0].row, w.now_ns);
	assert_int_equal(world_decide(&w, ROUTER_LATENCY).choice[0].candidate, 0);
	world_row(&w, 0)->pending = breaker_ramp(&w.r, w.candidate[0].row, w.now_ns);
	d = world_decide(&w, ROUTER_LATENCY);
	assert_int_equal(d.choice[0].candidate, 1);
	assert_int_equal(d.choice[1].reason, ROUTER_COLD);
	world_close(&w);
}

static void test_half_open_is_probed_now_and_then(void **state)
{
	struct world w;
	struct router_decision d;
	unsigned first = 0;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 300, 1);
	break_it(&w, 0);
	w.now_ns += 6 * NSEC_PER_SEC;
	for (int i = 0; i < 4000; i++) {
		d = world_decide(&w, ROUTER_LATENCY);
		assert_int_equal(d.usable, 2);
		if (d.choice[0].candidate != 0)
			assert_int_equal(world_choice(&d, 0)->reason, ROUTER_COLD);
		else
			assert_int_equal(d.choice[0].reason, ROUTER_EXPLORED);
		first += d.choice[0].candidate == 0;
	}
	assert_true(first > 850 && first < 1150);
	world_close(&w);
}

/* Opened by failures and closed by probes, a moment ago. */
static void close_it(struct world *w, unsigned i)
{
	struct breaker_report ok = { BREAKER_OK, 100 * NSEC_PER_MSEC };
	uint32_t row = w->candidate[i].row;
	struct breaker_ticket ticket;
	uint64_t wait_ns;

	break_it(w, i);
	w->now_ns += 6 * NSEC_PER_SEC;
	for (int k = 0; k < 2; k++) {
		assert_int_equal(breaker_allow(&w->r, row, (UINT64_C(1) << 16) | 1, w->now_ns, 1,
					 &ticket, &wait_ns),
			BREAKER_PROBE);
		breaker_record(&w->r, &ticket, &ok, w->now_ns, 1);
	}
	assert_int_equal(breaker_check(&w->r, row, w->now_ns, &wait_ns), BREAKER_PASS);
}

/* After it closed, no more at a time than the ramp says. */
static void test_a_closed_breaker_is_ramped_up(void **state)
{
	struct world w;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 5000, 1);
	close_it(&w, 0);
	world_know(&w, 0, 100, 0);
	world_know(&w, 1, 5000, 0);
	assert_int_equal(world_decide(&w, ROUTER_LATENCY).choice[0].candidate, 0);
	world_row(&w, 0)->pending = breaker_ramp(&w.r, w.candidate[0].row, w.now_ns);
	for (int i = 0; i < 100; i++) {
		struct router_decision d = world_decide(&w, ROUTER_LATENCY);

		assert_int_equal(d.choice[0].candidate, 1);
		assert_int_equal(d.choice[1].reason, ROUTER_COLD);
	}
	world_close(&w);
}

/* Also where neither is known yet. */
static void test_a_new_one_is_ramped_up_too(void **state)
{
	struct target_config cheap = world_config("a"), dear = world_config("b");
	struct world w;

	(void)state;
	cheap.price_input = cheap.price_output = 1000000;
	dear.price_input = dear.price_output = 90000000;
	world_open(&w, 1);
	world_add(&w, &cheap);
	world_add(&w, &dear);
	close_it(&w, 0);
	world_row(&w, 0)->pending = breaker_ramp(&w.r, w.candidate[0].row, w.now_ns);
	world_row(&w, 1)->pending = 1; /* it is being learned of */
	for (int i = 0; i < 100; i++)
		assert_int_equal(world_decide(&w, ROUTER_COST).choice[0].candidate, 1);
	world_close(&w);
}

/* A look leaves the turn to those who send. */
static void test_a_look_takes_no_turn(void **state)
{
	struct router_decision d;
	shared_u64 turn = 0;
	struct world w;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 100, 1);
	for (unsigned i = 0; i < 6; i++)
		for (int look = 2; look >= 0; look--) {
			struct router_query q = world_query(&w, ROUTER_ROUND_ROBIN);

			q.is_look = look > 0;
			router_decide(&w.r, &q, w.candidate, w.count, &turn, w.now_ns, &d);
			assert_int_equal(d.choice[0].candidate, i % 2);
		}
	assert_int_equal(turn, 6);
	world_close(&w);
}

/* So it is where nothing is learned: behind all that may, in the strategy's order. */
static void test_every_strategy_ramps_up(void **state)
{
	static const unsigned as_configured[] = { 1, 3, 0, 2 };
	struct world w;
	struct router_decision d;

	(void)state;
	world_open(&w, 1);
	world_target(&w, "a", 100, 1);
	world_target(&w, "b", 100, 1);
	world_target(&w, "c", 100, 1);
	world_target(&w, "d", 100, 1);
	close_it(&w, 0);
	close_it(&w, 2);
	world_row(&w, 0)->pending = breaker_ramp(&w.r, w.candidate[0].row, w.now_ns);
	world_row(&w, 2)->pending = breaker_ramp(&w.r, w.candidate[2].row, w.now_ns);
	for (unsigned s = ROUTER_ROUND_ROBIN; s < ROUTER_STRATEGIES; s++) {
		for (int i = 0; i < 100; i++) {
			d = world_decide(&w, (enum router_strategy)s);
			assert_int_equal(d.usable, 4);
			assert_int_equal(d.choice[0].reason, ROUTER_CHOSEN);
			assert_int_equal(d.choice[0].candidate % 2, 1);
			assert_int_equal(d.choice[0].candidate + d.choice[1].candidate, 4);
			assert_int_equal(d.choice[1].reason, ROUTER_FALLBACK);
			assert_int_equal(d.choice[2].reason, ROUTER_COLD);
			assert_int_equal(d.choice[2].candidate + d.choice[3].candidate, 2);
			assert_int_equal(d.choice[3].reason, ROUTER_COLD);
		}
	}
	for (unsigned p = 0; p < 4; p++)
		assert_int_equal(d.choice[p].candidate, as_configured[p]);
	/* With no other they are used as ever. */
	world_row(&w, 1)->available = world_row(&w, 3)->available = 0;
	d = world_decide(&w, ROUTER_ORDER);
	assert_int_equal(d.usable, 2);
	assert_int_equal(d.choice[0].candidate, 0);
	assert_int_equal(d.choice[0].reason, ROUTER_CHOSEN);
	assert_int_equal(d.choice[1].reason, ROUTER_FALLBACK);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_filters),
		cmocka_unit_test(test_a_budget_that_is_used_up_waits_or_is_out),
		cmocka_unit_test(test_what_never_fits_is_out_for_the_most_patient),
		cmocka_unit_test(test_a_paused_target_waits_or_is_out),
		cmocka_unit_test(test_an_open_breaker_is_out_unless_all_are),
		cmocka_unit_test(test_panic_spares_budgets_and_operators),
		cmocka_unit_test(test_a_providers_breaker_is_out_with_all_its_targets),
		cmocka_unit_test(test_what_an_operator_opened_is_out_whatever_the_other_says),
		cmocka_unit_test(test_a_probe_waits_for_the_providers_breaker),
		cmocka_unit_test(test_what_an_operator_did_is_seen_at_once_and_for_ever),
		cmocka_unit_test(test_half_open_is_probed_now_and_then),
		cmocka_unit_test(test_a_closed_breaker_is_ramped_up),
		cmocka_unit_test(test_a_new_one_is_ramped_up_too),
		cmocka_unit_test(test_a_look_takes_no_turn),
		cmocka_unit_test(test_every_strategy_ramps_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
