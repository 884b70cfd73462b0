/* Calling targets: names, tickets, pauses, children, changes, threads, garbage. Deciding among
 * them: test-target-api-route.c; breakers and panic: test-target-api-breaker.c. */

#include <pthread.h>
#include <sys/wait.h>
#include "shm/hold.h"
#include "shm/participant.h"
#include "tests/unit/splitmix.h"
#include "tests/unit/target-fixture.h"

/* ---- names ---- */

static void names_stand_for_targets(void **state)
{
	static const struct {
		const char *name;
		unsigned count;
	} cases[] = { { "fast", 2 }, { "cheap/m", 1 }, { "m", 1 }, { "other", 1 } };
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
	/* The configured one of that name, and no other provider's. */
	targets = targets_of("m");
	assert_int_equal(llmkit_route(targets, NULL, &d), 0);
	assert_string_equal(d.choice[0].provider, "cheap");
	llmkit_targets_close(targets);
	assert_int_equal(llmkit_targets_open(kit, "", NULL, &targets), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_targets_open(kit, NULL, NULL, &targets), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_targets_open(NULL, "m", NULL, &targets), LLMKIT_E_ARGUMENT);
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

/* ---- pauses ---- */

static void a_429_pauses_the_target_for_all(void **state)
{
	static const struct llmkit_header retry = { "retry-after", "90" };
	llmkit_targets *targets = targets_of("both"), *alone = targets_of("cheap/m");
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

/* ---- processes, roles, changes ---- */

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
		if (llmkit_targets_open(kit, "both", NULL, &later) == 0)
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
		test_(a_ticket_counts_until_it_is_reported),
		test_(calling_mistakes_are_told),
		test_(a_429_pauses_the_target_for_all),
		test_(never_is_not_later),
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
