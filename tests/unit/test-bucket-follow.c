#include "shm/bucket_follow.h"

#include <string.h>
#include "base/aux.h"
#include "tests/unit/bucket-helpers.h"

/* What a provider's answer says of its limits, and which of ours it speaks of. */

#define MINUTE (60 * SECOND)
#define UNSAID BUCKET_FOLLOW_UNSAID

static struct fixture f;
static struct bucket_set set;

static int start(void **state)
{
	(void)state;
	f = fixture_open(false);
	set = (struct bucket_set){ 0 };
	return 0;
}

static int stop(void **state)
{
	(void)state;
	fixture_close(&f);
	return 0;
}

static uint32_t limit(uint64_t scope, const char *name, uint64_t per_window, uint64_t window_ns)
{
	struct bucket_limit l = fixture_requests(scope, str_of(name), per_window, 100);
	uint32_t row;

	l.window_ns = window_ns;
	row = fixture_configure(&f, &l);
	fixture_add(&set, &f, scope, name);
	return row;
}

static void follow(enum bucket_span span, uint64_t units, uint64_t remaining)
{
	bucket_follow(&f.r, &set, BUCKET_REQUESTS, span, units, remaining, NOW);
}

static uint64_t owed(uint32_t row)
{
	struct bucket_view v;

	assert_true(bucket_view(&f.r, row, NOW, &v));
	return v.owed;
}

static void the_narrowest_limits_follow(void **state)
{
	const struct bucket_names both = { .model = str_of("m"), .provider = str_of("p") };
	uint32_t provider = limit(BUCKET_SCOPE_PROVIDER, "p", 100, MINUTE), key, model, user, pair;
	char name[LAYOUT_NAME_MAX];

	(void)state;
	follow(BUCKET_SPAN_MINUTE, UNSAID, 90);
	assert_int_equal(owed(provider), 10);

	key = limit(BUCKET_SCOPE_KEY, "k", 100, MINUTE);
	follow(BUCKET_SPAN_MINUTE, UNSAID, 80);
	assert_int_equal(owed(key), 20);
	assert_int_equal(owed(provider), 10);

	model = limit(BUCKET_SCOPE_MODEL, "m", 100, MINUTE);
	user = limit(BUCKET_SCOPE_USER, "u", 100, MINUTE);
	follow(BUCKET_SPAN_MINUTE, UNSAID, 70);
	assert_int_equal(owed(model), 30);
	assert_int_equal(owed(key), 20);
	assert_int_equal(owed(provider), 10);
	assert_int_equal(owed(user), 0);

	assert_true(bucket_join(BUCKET_SCOPE_MODEL | BUCKET_SCOPE_PROVIDER, &both, name));
	pair = limit(BUCKET_SCOPE_MODEL | BUCKET_SCOPE_PROVIDER, name, 100, MINUTE);
	follow(BUCKET_SPAN_MINUTE, UNSAID, 60);
	assert_int_equal(owed(model), 40);
	assert_int_equal(owed(pair), 40);
}

/* A day's remainder says nothing of a minute's limit, nor the other way round. */
static void limits_follow_what_is_said_of_their_window(void **state)
{
	static const struct {
		uint64_t window_ns;
		enum bucket_span span;
	} cases[] = {
		{ SECOND, BUCKET_SPAN_MINUTE },
		{ 3600 * SECOND, BUCKET_SPAN_MINUTE },
		{ 3601 * SECOND, BUCKET_SPAN_DAY },
		{ 7 * NSEC_PER_DAY, BUCKET_SPAN_DAY },
		{ 8 * NSEC_PER_DAY, BUCKET_SPAN_MONTH },
		{ 30 * NSEC_PER_DAY, BUCKET_SPAN_MONTH },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char name[] = { (char)('a' + i), 0 };
		uint32_t row;

		set = (struct bucket_set){ 0 };
		row = limit(BUCKET_SCOPE_MODEL, name, 10000, cases[i].window_ns);
		for (int span = 0; span < BUCKET_SPANS; span++) {
			if (span != (int)cases[i].span)
				follow((enum bucket_span)span, 5, 3);
		}
		assert_int_equal(owed(row), 0);
		follow(cases[i].span, UNSAID, 40);
		assert_int_equal(owed(row), 60);
	}
}

/* The narrowest of a window: a model's limit per day leaves the provider's per minute to hear. */
static void windows_are_followed_each_for_itself(void **state)
{
	uint32_t minute = limit(BUCKET_SCOPE_PROVIDER, "p", 100, MINUTE);
	uint32_t day = limit(BUCKET_SCOPE_MODEL, "m", 100, NSEC_PER_DAY);

	(void)state;
	follow(BUCKET_SPAN_MINUTE, UNSAID, 75);
	follow(BUCKET_SPAN_DAY, UNSAID, 50);
	assert_int_equal(owed(minute), 25);
	assert_int_equal(owed(day), 50);
}

static void a_limit_is_heard_in_units_of_the_row(void **state)
{
	static const struct {
		uint64_t window_ns, said, heard;
		enum bucket_span span;
	} cases[] = {
		{ SECOND, 600, 10, BUCKET_SPAN_MINUTE },
		{ 3600 * SECOND, 10, 600, BUCKET_SPAN_MINUTE },
		{ 2 * NSEC_PER_DAY, 1000, 2000, BUCKET_SPAN_DAY },
		{ 30 * NSEC_PER_DAY, 1000, 1000, BUCKET_SPAN_MONTH },
		{ MINUTE, 0, 0, BUCKET_SPAN_MINUTE },
		{ MINUTE, UNSAID - 1, 0, BUCKET_SPAN_MINUTE },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		char name[] = { (char)('a' + i), 0 };
		uint32_t row;

		set = (struct bucket_set){ 0 };
		row = limit(BUCKET_SCOPE_MODEL, name, 10000, cases[i].window_ns);
		for (int n = 0; n < 3; n++)
			follow(cases[i].span, cases[i].said, UNSAID);
		assert_int_equal(bucket_heard(&f.r, row), cases[i].heard);
		assert_int_equal(owed(row), 0);
	}
}

/* The row went to another name meanwhile: that one's provider said nothing. */
static void a_row_that_is_anothers_is_left_alone(void **state)
{
	uint32_t row = limit(BUCKET_SCOPE_MODEL, "m", 100, MINUTE);
	struct bucket_view v;

	(void)state;
	set.key[0]++;
	follow(BUCKET_SPAN_MINUTE, 50, 3);
	bucket_pause_set(&f.r, &set, NOW + SECOND, NOW);
	assert_int_equal(owed(row), 0);
	assert_true(bucket_view(&f.r, row, NOW, &v));
	assert_true(v.pause_ns <= NOW);
}

static void the_narrowest_limits_pause(void **state)
{
	uint32_t provider = limit(BUCKET_SCOPE_PROVIDER, "p", 100, MINUTE);
	uint32_t user = limit(BUCKET_SCOPE_USER, "u", 100, MINUTE);
	uint32_t day = limit(BUCKET_SCOPE_MODEL, "m", 100, NSEC_PER_DAY);
	struct bucket_view v;

	(void)state;
	bucket_pause_set(&f.r, &set, NOW + SECOND, NOW);
	assert_true(bucket_view(&f.r, day, NOW, &v));
	assert_true(v.pause_ns >= NOW + SECOND);
	assert_true(bucket_view(&f.r, provider, NOW, &v));
	assert_true(v.pause_ns <= NOW);
	assert_true(bucket_view(&f.r, user, NOW, &v));
	assert_true(v.pause_ns <= NOW);
}

/* What an answer says of all windows and resources finds each its own limit. */
static void all_that_is_said_is_followed(void **state)
{
	uint64_t units[BUCKET_SPANS][BUCKET_FOLLOW_RESOURCES];
	uint64_t remaining[BUCKET_SPANS][BUCKET_FOLLOW_RESOURCES];
	uint32_t minute = limit(BUCKET_SCOPE_PROVIDER, "p", 100, MINUTE);
	uint32_t month = limit(BUCKET_SCOPE_MODEL, "m", 100, 30 * NSEC_PER_DAY);
	uint32_t tokens = fixture_limit_of(&f, BUCKET_SCOPE_KEY, BUCKET_TOKENS, "k", 100, 100);

	(void)state;
	assert_true(bucket_set_add(&set, &f.r, BUCKET_SCOPE_KEY, BUCKET_TOKENS, str_of("k")));
	memset(units, 0xff, sizeof(units));
	memset(remaining, 0xff, sizeof(remaining));
	bucket_follow_all(&f.r, &set, units, remaining, NOW);
	assert_int_equal(owed(minute) + owed(month) + owed(tokens), 0);
	remaining[BUCKET_SPAN_MINUTE][BUCKET_REQUESTS] = 90;
	remaining[BUCKET_SPAN_MONTH][BUCKET_REQUESTS] = 80;
	remaining[BUCKET_SPAN_MINUTE][BUCKET_TOKENS] = 70;
	units[BUCKET_SPAN_MONTH][BUCKET_REQUESTS] = 50;
	for (int i = 0; i < 3; i++)
		bucket_follow_all(&f.r, &set, units, remaining, NOW);
	assert_int_equal(owed(minute), 10);
	assert_int_equal(owed(month), 20);
	assert_int_equal(owed(tokens), 30);
	assert_int_equal(bucket_heard(&f.r, month), 50);
	assert_int_equal(bucket_heard(&f.r, minute), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_narrowest_limits_follow, start, stop),
		cmocka_unit_test_setup_teardown(
			limits_follow_what_is_said_of_their_window, start, stop),
		cmocka_unit_test_setup_teardown(windows_are_followed_each_for_itself, start, stop),
		cmocka_unit_test_setup_teardown(a_limit_is_heard_in_units_of_the_row, start, stop),
		cmocka_unit_test_setup_teardown(a_row_that_is_anothers_is_left_alone, start, stop),
		cmocka_unit_test_setup_teardown(the_narrowest_limits_pause, start, stop),
		cmocka_unit_test_setup_teardown(all_that_is_said_is_followed, start, stop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
