#include "daemon/admission.h"
#include "tests/unit/shm-fixture.h"

/* Not the moment the limits were set: what was taken before a change is not given back. */
#define TAKEN (FIXTURE_NOW + 1000)
#define ALL str_of("p"), str_of("m"), str_of("u")

static uint64_t left(const struct fixture *f, uint32_t row)
{
	struct bucket_view v;

	assert_true(bucket_view(&f->r, row, TAKEN, &v));
	return v.available;
}

static void without_limits_everything_is_admitted(void **state)
{
	struct fixture f = fixture_open(false);
	struct admission_ticket ticket;
	struct admission_verdict v;

	(void)state;
	admission_acquire(&f.r, ALL, TAKEN, &ticket, &v);
	assert_int_equal(v.outcome, BUCKET_OK);
	admission_give_back(&f.r, &ticket, TAKEN);
	fixture_close(&f);
}

static void all_three_are_taken_and_given_back_once(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t user = fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 5);
	uint32_t model = fixture_limit(&f, BUCKET_SCOPE_MODEL, "m", 1, 5);
	uint32_t provider = fixture_limit(&f, BUCKET_SCOPE_PROVIDER, "p", 1, 5);
	struct admission_ticket ticket;
	struct admission_verdict v;

	(void)state;
	for (int i = 0; i < 2; i++)
		admission_acquire(&f.r, ALL, TAKEN, &ticket, &v);
	assert_int_equal(v.outcome, BUCKET_OK);
	assert_int_equal(left(&f, user), 3);
	assert_int_equal(left(&f, model), 3);
	assert_int_equal(left(&f, provider), 3);
	for (int i = 0; i < 2; i++)
		admission_give_back(&f.r, &ticket, TAKEN);
	assert_int_equal(left(&f, user), 4);
	assert_int_equal(left(&f, model), 4);
	assert_int_equal(left(&f, provider), 4);
	fixture_close(&f);
}

static void a_refusal_names_limit_and_wait_and_takes_nothing(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t user = fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 5);
	struct admission_ticket ticket;
	struct admission_verdict v;

	(void)state;
	fixture_limit(&f, BUCKET_SCOPE_MODEL, "m", 1, 1);
	admission_acquire(&f.r, ALL, TAKEN, &ticket, &v);
	admission_acquire(&f.r, ALL, TAKEN, &ticket, &v);
	assert_int_equal(v.outcome, BUCKET_E_WAIT);
	assert_string_equal(v.limit, "model m");
	assert_int_equal(v.wait_ns, FIXTURE_SECOND);
	assert_int_equal(v.burst, 1);
	assert_int_equal(left(&f, user), 4);
	/* Nothing was taken: nothing goes back. */
	admission_give_back(&f.r, &ticket, TAKEN);
	assert_int_equal(left(&f, user), 4);
	fixture_close(&f);
}

static void a_request_without_user_has_no_users_limit(void **state)
{
	struct fixture f = fixture_open(false);
	uint32_t user = fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 5);
	uint32_t provider = fixture_limit(&f, BUCKET_SCOPE_PROVIDER, "p", 1, 5);
	struct admission_ticket ticket;
	struct admission_verdict v;

	(void)state;
	admission_acquire(&f.r, str_of("p"), str_of("m"), STR_NULL, TAKEN, &ticket, &v);
	assert_int_equal(v.outcome, BUCKET_OK);
	assert_int_equal(left(&f, user), 5);
	assert_int_equal(left(&f, provider), 4);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(without_limits_everything_is_admitted),
		cmocka_unit_test(all_three_are_taken_and_given_back_once),
		cmocka_unit_test(a_refusal_names_limit_and_wait_and_takes_nothing),
		cmocka_unit_test(a_request_without_user_has_no_users_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
