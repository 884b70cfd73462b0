#include "shm/bucket.h"

#include <errno.h>
#include "tests/unit/bucket-helpers.h"

/* Templates beside what is configured, and by daemons that die writing them. */

/* What config says of a name goes before the template, with its debt; and back. */
static void config_and_template_take_turns_with_one_debt(void **state)
{
	static const bool keep[LAYOUT_BUCKETS];
	struct bucket_limit t = template_for(BUCKET_SCOPE_USER, BUCKET_REQUESTS, 1, 10);
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(instantiate(&f, "u", NOW), 0);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	assert_int_equal(bucket_acquire(&f.r, &set, 4, NOW).outcome, BUCKET_OK);
	fixture_limit(&f, BUCKET_SCOPE_USER, "u", 1, 20);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 1);
	assert_int_equal(view_of(&f, &set, NOW).available, 16);
	assert_int_equal(view_of(&f, &set, NOW).origin, BUCKET_ORIGIN_CONFIG);
	bucket_retire(&f.r, keep);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_E_MISSING);
	assert_int_equal(instantiate(&f, "u", NOW), 0);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	assert_int_equal(view_of(&f, &set, NOW).available, 6);
	/* A changed template changes its rows; without one they go. */
	bucket_retire(&f.r, keep);
	t.burst = 5;
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(view_of(&f, &set, NOW).available, 1);
	assert_int_equal(bucket_set_templates(&f.r, NULL, 0, NOW), 0);
	assert_int_equal(take(&f, &set, NOW).outcome, BUCKET_E_GONE);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 0);
	t.scope = 0;
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), -EINVAL);
	t.scope = BUCKET_SCOPE_USER;
	t.limit = 0;
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), -ERANGE);
	assert_int_equal(bucket_set_templates(&f.r, &t, LAYOUT_TEMPLATES + 1, NOW), -ENOSPC);
	fixture_close(&f);
}

/* Two kinds of one resource, while one replaces the other. */
static void change_of_kind_makes_another_row(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_limit reserve = fixture_requests(BUCKET_SCOPE_USER, str_of("u"), 10, 10);
	struct bucket_limit t = template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 10, 10);
	struct bucket_set set;

	(void)state;
	reserve.resource = BUCKET_TOKENS;
	fixture_limit_of(&f, BUCKET_SCOPE_USER, BUCKET_TOKENS, "u", 10, 10);
	fixture_configure(&f, &reserve);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 2);
	assert_int_equal(set.held, 1);
	/* But what a template made of another kind goes. */
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(instantiate(&f, "v", NOW), 0);
	reserve.name = str_of("v");
	fixture_configure(&f, &reserve);
	assert_int_equal(resolve(&f, "v", NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 1);
	assert_int_equal(set.held, 0);
	assert_int_equal(instantiate(&f, "v", NOW), 0);
	assert_int_equal(resolve(&f, "v", NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 1);
	fixture_close(&f);
}

/* Until a daemon has written them all, names of a template that is half written are missing a
 * limit, not free of it. */
static void a_template_that_a_dying_daemon_was_writing_still_limits(void **state)
{
	static const bool keep[LAYOUT_BUCKETS];
	struct bucket_limit t = template_for(BUCKET_SCOPE_USER, BUCKET_REQUESTS, 1, 10);
	struct fixture f = fixture_open(false);
	struct bucket_set set;

	(void)state;
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	f.r.template[0].scope = 0;
	bucket_adopt(&f.r, NOW);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_E_MISSING);
	bucket_retire(&f.r, keep);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_E_MISSING);
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(instantiate(&f, "u", NOW), 0);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 1);
	assert_int_equal(bucket_set_templates(&f.r, NULL, 0, NOW), 0);
	assert_int_equal(resolve(&f, "v", NOW, &set), BUCKET_OK);
	fixture_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(config_and_template_take_turns_with_one_debt),
		cmocka_unit_test(change_of_kind_makes_another_row),
		cmocka_unit_test(a_template_that_a_dying_daemon_was_writing_still_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
