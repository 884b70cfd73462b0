#include "daemon/admission.h"
#include "base/aux.h"
#include "shm/event.h"
#include "shm/hold.h"
#include "shm/participant.h"
#include "tests/unit/shm-fixture.h"

/* Not the moment the limits were set: what was taken before a change is not given back. */
#define TAKEN (FIXTURE_NOW + 1000)

static struct world {
	struct fixture f;
	uint64_t owner;
	uint32_t target, provider;
	struct admission_ask ask;
	struct admission_ticket ticket;
	struct admission_verdict v;
} w;

static uint32_t make_target(const char *name, uint32_t provider)
{
	const struct target_config t = {
		.name = str_of(name),
		.provider = provider,
		.price_input = -1,
		.price_output = -1,
		.price_cached = -1,
		.capabilities = TARGET_CAPABILITIES,
		.available = true,
	};
	const struct breaker_settings settings = breaker_preset(BREAKER_PRODUCTION);
	int row = target_configure(&w.f.r, &t);

	assert_true(row >= 0);
	breaker_configure(&w.f.r, (uint32_t)row, &settings);
	return (uint32_t)row;
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	w.f = fixture_open(false);
	w.owner = participant_owner(
		&w.f.r, (uint32_t)participant_claim(&w.f.r, 1, 1, 0, FIXTURE_NOW));
	w.provider = make_target("p", TARGET_NONE);
	w.target = make_target("p/m", w.provider);
	w.ask = (struct admission_ask){
		.owner = w.owner,
		.names = { .provider = str_of("p"), .model = str_of("m"), .user = str_of("u") },
		.cost = { .requests = 1, .input_tokens = 100, .output_tokens = 50, .nanousd = 0 },
		.target = w.target,
		.provider = w.provider,
		.limits = true,
		.breakers = true,
	};
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_close(&w.f);
	return 0;
}

static uint64_t key_of(uint32_t row)
{
	struct target_view v;
	uint64_t key = 0;

	if (target_view(&w.f.r, row, &v))
		target_find(&w.f.r, str_of(v.name), &key);
	return key;
}

static const struct admission_ask *ask(void)
{
	w.ask.target_key = key_of(w.ask.target);
	w.ask.provider_key = key_of(w.ask.provider);
	return &w.ask;
}

static enum admission_outcome acquire(void)
{
	admission_acquire(&w.f.r, ask(), TAKEN, &w.ticket, &w.v);
	return w.v.outcome;
}

static uint64_t left(uint32_t row)
{
	struct bucket_view v;

	assert_true(bucket_view(&w.f.r, row, TAKEN, &v));
	return v.available;
}

static uint64_t held(uint32_t row)
{
	struct bucket_view v;

	assert_true(bucket_view(&w.f.r, row, TAKEN, &v));
	return v.held;
}

static void without_limits_everything_is_admitted(void **state)
{
	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_cancel(&w.f.r, &w.ticket, TAKEN);
	w.ask.target = w.ask.provider = TARGET_NONE;
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_cancel(&w.f.r, &w.ticket, TAKEN);
}

static void all_are_taken_and_given_back_once(void **state)
{
	uint32_t user = fixture_limit(&w.f, BUCKET_SCOPE_USER, "u", 1, 5);
	uint32_t model = fixture_limit(&w.f, BUCKET_SCOPE_MODEL, "m", 1, 5);
	uint32_t provider = fixture_limit(&w.f, BUCKET_SCOPE_PROVIDER, "p", 1, 5);

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	assert_int_equal(acquire(), ADMISSION_OK);
	assert_int_equal(left(user), 3);
	assert_int_equal(left(model), 3);
	assert_int_equal(left(provider), 3);
	for (int i = 0; i < 2; i++)
		admission_cancel(&w.f.r, &w.ticket, TAKEN);
	assert_int_equal(left(user), 4);
	assert_int_equal(left(model), 4);
	assert_int_equal(left(provider), 4);
}

static void a_refusal_names_limit_use_and_wait_and_takes_nothing(void **state)
{
	uint32_t user = fixture_limit(&w.f, BUCKET_SCOPE_USER, "u", 1, 5);

	(void)state;
	fixture_limit(&w.f, BUCKET_SCOPE_MODEL, "m", 1, 1);
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	assert_int_equal(acquire(), ADMISSION_E_LIMITED);
	assert_string_equal(w.v.limit, "model m requests");
	assert_int_equal(w.v.wait_ns, FIXTURE_SECOND);
	assert_int_equal(w.v.burst, 1);
	assert_int_equal(w.v.used, 1);
	assert_int_equal(w.v.asked, 1);
	assert_int_equal(left(user), 4);
	/* Nothing was taken: nothing goes back, nothing is in flight. */
	admission_cancel(&w.f.r, &w.ticket, TAKEN);
	assert_int_equal(left(user), 4);
	assert_int_equal(target_pending(&w.f.r, w.target), 0);
}

static void a_cost_above_the_burst_never_fits(void **state)
{
	(void)state;
	fixture_limit_of(&w.f, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 100, 149);
	assert_int_equal(acquire(), ADMISSION_E_NEVER);
	assert_string_equal(w.v.limit, "provider p tokens");
	assert_int_equal(w.v.asked, 150);
	assert_int_equal(w.v.burst, 149);
}

static void a_request_without_user_has_no_users_limit(void **state)
{
	uint32_t user = fixture_limit(&w.f, BUCKET_SCOPE_USER, "u", 1, 5);
	uint32_t provider = fixture_limit(&w.f, BUCKET_SCOPE_PROVIDER, "p", 1, 5);

	(void)state;
	w.ask.names.user = STR_NULL;
	assert_int_equal(acquire(), ADMISSION_OK);
	assert_int_equal(left(user), 5);
	assert_int_equal(left(provider), 4);
}

static void limits_switched_off_are_not_asked(void **state)
{
	(void)state;
	fixture_limit_of(&w.f, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 100, 149);
	w.ask.limits = false;
	assert_int_equal(acquire(), ADMISSION_OK);
}

static void tokens_are_held_then_settled_as_used(void **state)
{
	uint32_t row = fixture_limit_of(&w.f, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 1, 1000);
	const struct bucket_cost some = { .output_tokens = 10 };
	const struct bucket_cost rest = { .input_tokens = 70, .output_tokens = 20 };

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	assert_int_equal(held(row), 150);
	assert_int_equal(left(row), 850);
	admission_progress(&w.f.r, &w.ticket, &some, TAKEN);
	assert_int_equal(held(row), 140);
	assert_int_equal(left(row), 850);
	for (int i = 0; i < 2; i++)
		admission_end(&w.f.r, &w.ticket, &rest, TAKEN);
	assert_int_equal(held(row), 0);
	assert_int_equal(left(row), 900);
}

static void a_template_makes_the_users_limit(void **state)
{
	struct bucket_limit template = fixture_requests(BUCKET_SCOPE_USER, STR_NULL, 1, 2);

	(void)state;
	assert_int_equal(bucket_set_templates(&w.f.r, &template, 1, FIXTURE_NOW), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(acquire(), ADMISSION_OK);
		admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	}
	assert_int_equal(acquire(), ADMISSION_E_LIMITED);
	assert_string_equal(w.v.limit, "user u requests");
	w.ask.names.user = str_of("other");
	assert_int_equal(acquire(), ADMISSION_OK);
}

/* ---- in flight ---- */

static void the_target_counts_what_is_in_flight(void **state)
{
	struct admission_ticket first;
	struct target_view provider;

	(void)state;
	admission_acquire(&w.f.r, ask(), TAKEN, &first, &w.v);
	assert_int_equal(acquire(), ADMISSION_OK);
	assert_int_equal(target_pending(&w.f.r, w.target), 2);
	assert_true(target_view(&w.f.r, w.provider, &provider));
	assert_int_equal(provider.pending, 2);
	admission_end(&w.f.r, &first, &(struct bucket_cost){ 0 }, TAKEN);
	admission_end(&w.f.r, &first, &(struct bucket_cost){ 0 }, TAKEN);
	assert_int_equal(target_pending(&w.f.r, w.target), 1);
	admission_cancel(&w.f.r, &w.ticket, TAKEN);
	assert_int_equal(target_pending(&w.f.r, w.target), 0);
}

static void nothing_is_left_of_a_dead_daemon(void **state)
{
	uint32_t row = fixture_limit_of(&w.f, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 1, 1000);

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	assert_true(hold_reap(&w.f.r, w.owner, TAKEN) > 0);
	assert_int_equal(target_pending(&w.f.r, w.target), 0);
	assert_int_equal(held(row), 0);
	/* It may have been sent: it counts as used. */
	assert_int_equal(left(row), 850);
}

/* ---- breakers ---- */

static void judge(enum breaker_outcome outcome)
{
	const struct admission_result result = { .outcome = outcome };

	admission_judge(&w.f.r, &w.ticket, &result, TAKEN, 1);
	admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
}

static void open_by_failing(void)
{
	for (int i = 0; i < 5; i++) {
		assert_int_equal(acquire(), ADMISSION_OK);
		judge(BREAKER_FAILED);
	}
}

static void a_failing_target_is_left_alone(void **state)
{
	uint32_t provider = fixture_limit(&w.f, BUCKET_SCOPE_PROVIDER, "p", 1, 10);

	(void)state;
	open_by_failing();
	assert_int_equal(acquire(), ADMISSION_E_OPEN);
	assert_true(w.v.wait_ns > 0);
	/* A breaker's refusal costs no budget. */
	assert_int_equal(left(provider), 5);
	w.ask.forced = true;
	assert_int_equal(acquire(), ADMISSION_OK);
	w.ask.forced = false;
	w.ask.breakers = false;
	assert_int_equal(acquire(), ADMISSION_OK);
}

/* The provider's own breaker stops its other models, too. */
static void a_failing_provider_is_left_alone(void **state)
{
	uint32_t other = make_target("p/other", w.provider);

	(void)state;
	open_by_failing();
	w.ask.target = other;
	assert_int_equal(acquire(), ADMISSION_E_OPEN);
	assert_int_equal(target_pending(&w.f.r, other), 0);
}

static enum breaker_state state_of(uint32_t row)
{
	struct breaker_view v;

	assert_true(breaker_view(&w.f.r, row, TAKEN, &v));
	return v.state;
}

/* So many good answers of the target, each with that time to its first token. */
static void answer(uint32_t target, unsigned times, uint64_t first_token_ns)
{
	const struct admission_result good = {
		.outcome = BREAKER_OK,
		.first_token_ns = first_token_ns,
	};

	w.ask.target = target;
	for (unsigned i = 0; i < times; i++) {
		assert_int_equal(acquire(), ADMISSION_OK);
		admission_judge(&w.f.r, &w.ticket, &good, TAKEN, 1);
		admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	}
}

/* Slowness is a model's own: another model of the provider is as quick as it was. */
static void a_large_model_is_not_its_providers_slowness(void **state)
{
	uint32_t large = make_target("p/large", w.provider);

	(void)state;
	answer(w.target, 55, 5 * 1000000);
	answer(large, 24, 1500 * 1000000);
	assert_int_equal(state_of(large), BREAKER_CLOSED);
	assert_int_equal(state_of(w.provider), BREAKER_CLOSED);
	/* The same model that slow is another matter. */
	answer(large, 55, 1500 * 1000000);
	w.ask.target = w.target;
	for (int i = 0; i < 24 && acquire() == ADMISSION_OK; i++) {
		admission_judge(&w.f.r, &w.ticket,
			&(struct admission_result){
				.outcome = BREAKER_OK, .first_token_ns = 1500 * 1000000 },
			TAKEN, 1);
		admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	}
	assert_int_equal(state_of(w.target), BREAKER_OPEN);
	assert_int_equal(state_of(w.provider), BREAKER_CLOSED);
}

/* Of models without a row of their own the provider's breaker is all there is. */
static void without_a_row_the_providers_breaker_hears_of_slowness(void **state)
{
	struct breaker_view v;

	(void)state;
	answer(TARGET_NONE, 3, 1500 * 1000000);
	assert_true(breaker_view(&w.f.r, w.provider, TAKEN, &v));
	assert_in_range(v.p50_us, 1400000, 1600000);
}

/* No time closes it: nobody is told to come back in a hundred years. */
static void what_an_operator_opened_is_no_matter_of_time(void **state)
{
	(void)state;
	breaker_force_open(&w.f.r, w.provider, TAKEN);
	assert_int_equal(acquire(), ADMISSION_E_OPEN);
	assert_true(w.v.wait_ns == BUCKET_WAIT_SETTLEMENT && w.v.by_hand && w.v.providers);
	breaker_force_open(&w.f.r, w.target, TAKEN);
	assert_int_equal(acquire(), ADMISSION_E_OPEN);
	assert_true(w.v.wait_ns == BUCKET_WAIT_SETTLEMENT && w.v.by_hand && !w.v.providers);
	breaker_force_close(&w.f.r, w.target, TAKEN);
	breaker_force_close(&w.f.r, w.provider, TAKEN);
	open_by_failing();
	assert_int_equal(acquire(), ADMISSION_E_OPEN);
	assert_true(!w.v.by_hand && !w.v.providers);
	assert_in_range(w.v.wait_ns, 1, 3600 * FIXTURE_SECOND);
}

static void what_is_not_judged_is_neutral(void **state)
{
	struct breaker_view v;

	(void)state;
	for (int i = 0; i < 10; i++) {
		assert_int_equal(acquire(), ADMISSION_OK);
		admission_cancel(&w.f.r, &w.ticket, TAKEN);
		assert_int_equal(acquire(), ADMISSION_OK);
		judge(BREAKER_NEUTRAL);
	}
	assert_true(breaker_view(&w.f.r, w.target, TAKEN, &v));
	assert_int_equal(v.state, BREAKER_CLOSED);
	assert_int_equal(v.requests, 0);
}

static void a_probes_ticket_comes_back_from_a_refusal(void **state)
{
	struct breaker_view v;
	uint64_t later = TAKEN + 3600 * FIXTURE_SECOND;

	(void)state;
	open_by_failing();
	fixture_limit_of(&w.f, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 100, 149);
	/* Due for a probe, which the limit then refuses: again and again, no ticket gets lost. */
	for (int i = 0; i < 20; i++) {
		admission_acquire(&w.f.r, ask(), later, &w.ticket, &w.v);
		assert_int_equal(w.v.outcome, ADMISSION_E_NEVER);
		assert_true(breaker_view(&w.f.r, w.target, later, &v));
		assert_int_equal(v.probes_out, 0);
	}
}

/* An answer may stream for longer than a probe's lease lasts. */
static void a_probes_first_token_is_proof_enough(void **state)
{
	const struct admission_result bad = { .outcome = BREAKER_FAILED };
	uint64_t later = TAKEN + 3600 * FIXTURE_SECOND;
	struct breaker_view v;
	uint64_t requests;

	(void)state;
	open_by_failing();
	admission_acquire(&w.f.r, ask(), later, &w.ticket, &w.v);
	assert_int_equal(w.v.outcome, ADMISSION_OK);
	assert_true(breaker_view(&w.f.r, w.target, later, &v));
	assert_int_equal(v.probes_out, 1);
	requests = v.requests;
	for (int i = 0; i < 2; i++)
		admission_first_token(&w.f.r, &w.ticket, FIXTURE_SECOND, later);
	assert_true(breaker_view(&w.f.r, w.target, later, &v));
	assert_int_equal(v.probes_out, 0);
	assert_int_equal(v.requests, requests + 1);
	/* Its good end counts no second time, its bad one does. */
	judge(BREAKER_OK);
	assert_true(breaker_view(&w.f.r, w.target, later, &v));
	assert_int_equal(v.requests, requests + 1);
	admission_acquire(&w.f.r, ask(), later, &w.ticket, &w.v);
	admission_first_token(&w.f.r, &w.ticket, FIXTURE_SECOND, later);
	admission_judge(&w.f.r, &w.ticket, &bad, later, 1);
	assert_true(breaker_view(&w.f.r, w.target, later, &v));
	assert_int_equal(v.requests, requests + 3);
}

/* The provider's breaker is closed and hears of it at the end. */
static void a_proof_is_the_probes_alone(void **state)
{
	uint64_t later = TAKEN + 3600 * FIXTURE_SECOND, requests;
	struct breaker_view v;

	(void)state;
	open_by_failing();
	breaker_force_close(&w.f.r, w.provider, TAKEN);
	assert_true(breaker_view(&w.f.r, w.provider, later, &v));
	requests = v.requests;
	admission_acquire(&w.f.r, ask(), later, &w.ticket, &w.v);
	assert_int_equal(w.v.outcome, ADMISSION_OK);
	admission_first_token(&w.f.r, &w.ticket, FIXTURE_SECOND, later);
	judge(BREAKER_OK);
	assert_true(breaker_view(&w.f.r, w.provider, later, &v));
	assert_int_equal(v.requests, requests + 1);
}

/* One hold for both, so that the table holds as many requests as it has rows. */
static void a_request_takes_one_hold(void **state)
{
	unsigned holds = 0;
	struct hold_view v;

	(void)state;
	fixture_limit_of(&w.f, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 1, 1000);
	assert_int_equal(acquire(), ADMISSION_OK);
	for (uint32_t i = 0; i < w.f.r.holds; i++)
		holds += hold_view(&w.f.r, i, &v);
	assert_int_equal(holds, 1);
	assert_int_equal(target_pending(&w.f.r, w.target), 1);
	admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	assert_int_equal(target_pending(&w.f.r, w.target), 0);
	for (uint32_t i = 0; i < w.f.r.holds; i++)
		assert_false(hold_view(&w.f.r, i, &v));
}

/* Nothing is admitted that the tables cannot account for, and nothing is left of the refusal. */
static void without_a_free_hold_a_request_is_refused(void **state)
{
	const struct region_sizes sizes = { .holds = 4 };
	struct admission_ticket taken[4];

	(void)state;
	teardown(NULL);
	w.f = fixture_open_sized(&sizes, false);
	w.ask.owner = participant_owner(
		&w.f.r, (uint32_t)participant_claim(&w.f.r, 1, 1, 0, FIXTURE_NOW));
	w.ask.provider = make_target("p", TARGET_NONE);
	w.ask.target = w.target = make_target("p/m", w.ask.provider);
	fixture_limit_of(&w.f, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 1, 1000);
	for (int i = 0; i < 4; i++) {
		admission_acquire(&w.f.r, ask(), TAKEN, &taken[i], &w.v);
		assert_int_equal(w.v.outcome, ADMISSION_OK);
	}
	assert_int_equal(acquire(), ADMISSION_E_FULL);
	assert_int_equal(target_pending(&w.f.r, w.target), 4);
	admission_cancel(&w.f.r, &taken[0], TAKEN);
	assert_int_equal(acquire(), ADMISSION_OK);
}

static void success_teaches_the_target(void **state)
{
	const struct admission_result good = {
		.outcome = BREAKER_OK,
		.input_tokens = 100,
		.output_tokens = 11,
		.first_token_ns = 300 * 1000000,
		.duration_ns = 500 * 1000000,
	};
	struct admission_result bad = good;
	struct target_view v;

	(void)state;
	bad.outcome = BREAKER_FAILED;
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_judge(&w.f.r, &w.ticket, &bad, TAKEN, 1);
	assert_true(target_view(&w.f.r, w.target, &v));
	assert_int_equal(v.samples, 0);
	admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_judge(&w.f.r, &w.ticket, &good, TAKEN, 1);
	assert_true(target_view(&w.f.r, w.target, &v));
	assert_int_equal(v.samples, 1);
	assert_in_range(v.first_token_us[0], 299000, 301000);
	assert_in_range(v.gap_us, 19900, 20100);
	assert_int_equal(v.tried_ns, TAKEN);
}

/* ---- feedback ---- */

static struct feedback feedback_of(const char *name, const char *value)
{
	struct feedback f = FEEDBACK_NULL;

	feedback_header(&f, str_of(name), str_of(value));
	feedback_finish(&f, STR_NULL, 0);
	return f;
}

static void a_429_pauses_the_target_for_everybody(void **state)
{
	struct feedback f = feedback_of("retry-after", "7");

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	assert_int_equal(
		admission_feedback(&w.f.r, &w.ticket, &f, ADMISSION_ANSWER_LIMITED, TAKEN, 0),
		7 * FIXTURE_SECOND);
	admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	assert_int_equal(acquire(), ADMISSION_E_PAUSED);
	assert_int_equal(w.v.wait_ns, 7 * FIXTURE_SECOND);
	w.ask.breakers = w.ask.limits = false;
	w.ask.forced = true;
	assert_int_equal(acquire(), ADMISSION_E_PAUSED);
	admission_acquire(&w.f.r, ask(), TAKEN + 7 * FIXTURE_SECOND, &w.ticket, &w.v);
	assert_int_equal(w.v.outcome, ADMISSION_OK);
	/* Another model of the provider is not meant. */
	w.ask.target = make_target("p/other", w.provider);
	assert_int_equal(acquire(), ADMISSION_OK);
}

static void a_429_pauses_the_limits_that_clients_share(void **state)
{
	struct feedback f = feedback_of("retry-after", "7");
	uint32_t model = fixture_limit(&w.f, BUCKET_SCOPE_MODEL, "m", 1, 10);
	uint32_t user = fixture_limit(&w.f, BUCKET_SCOPE_USER, "u", 1, 10);
	uint32_t provider = fixture_limit(&w.f, BUCKET_SCOPE_PROVIDER, "p", 1, 10);

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_feedback(&w.f.r, &w.ticket, &f, ADMISSION_ANSWER_LIMITED, TAKEN, 0);
	assert_int_equal(left(model), 0);
	assert_int_equal(left(user), 9);
	assert_int_equal(left(provider), 9);
}

/* Whether an event of that kind about that row is in the ring; how often. */
static unsigned told(enum event_kind kind, uint32_t row)
{
	uint64_t ticket = 0;
	unsigned count = 0;
	struct event e;

	while (event_next(&w.f.r, &ticket, &e) == EVENT_OK)
		count += e.kind == kind && e.row == row;
	return count;
}

static void a_pause_is_an_event_once(void **state)
{
	struct feedback f = feedback_of("retry-after", "7");
	uint32_t model = fixture_limit(&w.f, BUCKET_SCOPE_MODEL, "m", 1, 10);

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	for (int i = 0; i < 2; i++)
		admission_feedback(&w.f.r, &w.ticket, &f, ADMISSION_ANSWER_LIMITED, TAKEN, 0);
	assert_int_equal(told(EVENT_PAUSE, model), 1);
	assert_int_equal(told(EVENT_PAUSE_TARGET, w.target), 1);
}

/* A table of two rows, and three users one after the other. */
static void an_eviction_is_an_event(void **state)
{
	static const char *const users[] = { "a", "b", "c" };
	const struct region_sizes sizes = { .limits = 2 };
	struct bucket_limit template = fixture_requests(BUCKET_SCOPE_USER, STR_NULL, 1, 2);
	struct bucket_set set;

	(void)state;
	fixture_close(&w.f);
	w.f = fixture_open_sized(&sizes, false);
	assert_int_equal(bucket_set_templates(&w.f.r, &template, 1, FIXTURE_NOW), 0);
	for (uint64_t i = 0; i < ARRAY_SIZE(users); i++) {
		const struct bucket_names names = { .user = str_of(users[i]) };

		assert_int_equal(
			admission_resolve(&w.f.r, &names, TAKEN + i * FIXTURE_SECOND, &set),
			BUCKET_OK);
	}
	assert_int_equal(told(EVENT_EVICTED, 0) + told(EVENT_EVICTED, 1), 1);
}

static void what_remains_at_the_provider_bounds_what_is_left_here(void **state)
{
	uint32_t provider = fixture_limit(&w.f, BUCKET_SCOPE_PROVIDER, "p", 1, 100);
	uint32_t user = fixture_limit(&w.f, BUCKET_SCOPE_USER, "u", 1, 100);
	struct feedback f = feedback_of("x-ratelimit-remaining-requests", "40");

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	assert_int_equal(
		admission_feedback(&w.f.r, &w.ticket, &f, ADMISSION_ANSWER_GOOD, TAKEN, 0), 0);
	assert_int_equal(left(provider), 40);
	assert_int_equal(left(user), 99);
	/* More than is left here raises nothing. */
	f = feedback_of("x-ratelimit-remaining-requests", "90");
	admission_feedback(&w.f.r, &w.ticket, &f, ADMISSION_ANSWER_GOOD, TAKEN, 0);
	assert_int_equal(left(provider), 40);
	admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	assert_int_equal(acquire(), ADMISSION_OK);
}

/* The provider's limit adds up several models: what one of them has left says nothing of it. */
static void the_narrowest_limits_follow(void **state)
{
	uint32_t model = fixture_limit(&w.f, BUCKET_SCOPE_MODEL, "m", 1, 50);
	uint32_t provider = fixture_limit(&w.f, BUCKET_SCOPE_PROVIDER, "p", 1, 100);
	uint32_t tokens =
		fixture_limit_of(&w.f, BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 1, 1000);
	struct feedback f = FEEDBACK_NULL;

	(void)state;
	feedback_header(&f, str_of("x-ratelimit-remaining-requests"), str_of("20"));
	feedback_header(&f, str_of("x-ratelimit-remaining-tokens"), str_of("300"));
	feedback_finish(&f, STR_NULL, 0);
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_feedback(&w.f.r, &w.ticket, &f, ADMISSION_ANSWER_GOOD, TAKEN, 0);
	assert_int_equal(left(model), 20);
	assert_int_equal(left(provider), 99);
	/* Of tokens the provider's is the narrowest there is. */
	assert_int_equal(left(tokens), 300);
}

/* Without a hint each 429 in a row doubles the pause; those under way when it began are one. */
static void silent_429s_back_off(void **state)
{
	static const struct feedback silence = { .should_retry = -1 };
	uint64_t now_ns = TAKEN;

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	for (uint64_t second = FIXTURE_SECOND; second <= 32 * FIXTURE_SECOND; second *= 2) {
		uint64_t pause_ns = 0;

		for (int i = 0; i < 3; i++)
			pause_ns = max_u64(pause_ns,
				admission_feedback(&w.f.r, &w.ticket, &silence,
					ADMISSION_ANSWER_LIMITED, now_ns, 0));
		assert_int_equal(pause_ns, second / 2);
		now_ns += pause_ns;
	}
	/* Other faults say nothing of it. */
	admission_feedback(&w.f.r, &w.ticket, &silence, ADMISSION_ANSWER_FAILED, now_ns, 0);
	assert_int_equal(admission_feedback(
				 &w.f.r, &w.ticket, &silence, ADMISSION_ANSWER_LIMITED, now_ns, 0),
		30 * FIXTURE_SECOND);
	now_ns += 30 * FIXTURE_SECOND;
	admission_feedback(&w.f.r, &w.ticket, &silence, ADMISSION_ANSWER_GOOD, now_ns, 0);
	assert_int_equal(admission_feedback(
				 &w.f.r, &w.ticket, &silence, ADMISSION_ANSWER_LIMITED, now_ns, 0),
		FIXTURE_SECOND / 2);
}

/* Nobody sends during a pause, though the table had no row for the target. */
static void a_429_of_a_target_without_a_row_pauses_its_provider(void **state)
{
	struct feedback f = feedback_of("retry-after", "7");

	(void)state;
	w.ask.target = TARGET_NONE;
	assert_int_equal(acquire(), ADMISSION_OK);
	admission_feedback(&w.f.r, &w.ticket, &f, ADMISSION_ANSWER_LIMITED, TAKEN, 0);
	admission_end(&w.f.r, &w.ticket, &(struct bucket_cost){ 0 }, TAKEN);
	assert_int_equal(acquire(), ADMISSION_E_PAUSED);
}

static void a_limit_named_three_times_is_heard(void **state)
{
	uint32_t provider = fixture_limit(&w.f, BUCKET_SCOPE_PROVIDER, "p", 10, 100);
	struct feedback f = feedback_of("x-ratelimit-limit-requests", "120");

	(void)state;
	assert_int_equal(acquire(), ADMISSION_OK);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(bucket_heard(&w.f.r, provider), 0);
		admission_feedback(&w.f.r, &w.ticket, &f, ADMISSION_ANSWER_GOOD, TAKEN, 0);
	}
	/* 120 a minute are 2 a second. */
	assert_int_equal(bucket_heard(&w.f.r, provider), 2);
}

int main(void)
{
#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(without_limits_everything_is_admitted),
		CASE(all_are_taken_and_given_back_once),
		CASE(a_refusal_names_limit_use_and_wait_and_takes_nothing),
		CASE(a_cost_above_the_burst_never_fits),
		CASE(a_request_without_user_has_no_users_limit),
		CASE(limits_switched_off_are_not_asked),
		CASE(tokens_are_held_then_settled_as_used),
		CASE(a_template_makes_the_users_limit),
		CASE(the_target_counts_what_is_in_flight),
		CASE(nothing_is_left_of_a_dead_daemon),
		CASE(a_failing_target_is_left_alone),
		CASE(a_failing_provider_is_left_alone),
		CASE(a_large_model_is_not_its_providers_slowness),
		CASE(without_a_row_the_providers_breaker_hears_of_slowness),
		CASE(what_an_operator_opened_is_no_matter_of_time),
		CASE(what_is_not_judged_is_neutral),
		CASE(a_probes_ticket_comes_back_from_a_refusal),
		CASE(a_probes_first_token_is_proof_enough),
		CASE(a_proof_is_the_probes_alone),
		CASE(a_request_takes_one_hold),
		CASE(without_a_free_hold_a_request_is_refused),
		CASE(success_teaches_the_target),
		CASE(a_429_pauses_the_target_for_everybody),
		CASE(a_429_pauses_the_limits_that_clients_share),
		CASE(silent_429s_back_off),
		CASE(a_pause_is_an_event_once),
		CASE(an_eviction_is_an_event),
		CASE(what_remains_at_the_provider_bounds_what_is_left_here),
		CASE(the_narrowest_limits_follow),
		CASE(a_429_of_a_target_without_a_row_pauses_its_provider),
		CASE(a_limit_named_three_times_is_heard),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
