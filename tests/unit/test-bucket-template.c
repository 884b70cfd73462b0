#include "shm/bucket.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
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

static struct bucket_limit in_kind(struct bucket_limit limit, enum bucket_kind kind)
{
	limit.kind = kind;
	return limit;
}

static uint64_t owed_by(struct fixture *f, const char *user)
{
	struct bucket_set set;

	assert_int_equal(instantiate(f, user, NOW), 0);
	assert_int_equal(resolve(f, user, NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 1);
	return view_of(f, &set, NOW).owed;
}

static void change_of_kind_makes_another_row_with_the_debt(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_limit held = template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 10, 10);
	struct bucket_limit reserve = in_kind(held, BUCKET_RATE);
	struct bucket_set set;
	uint32_t row;

	(void)state;
	held.name = reserve.name = str_of("u");
	row = fixture_configure(&f, &held);
	/* Also what is above the burst of the new one. */
	bucket_charge(&f.r, row, 25, NOW);
	bucket_pause(&f.r, row, NOW + SECOND, NOW);
	assert_int_not_equal(fixture_configure(&f, &reserve), row);
	assert_int_equal(owed_by(&f, "u"), 25);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	assert_int_equal(set.held, 0);
	assert_int_equal(view_of(&f, &set, NOW).pause_ns, NOW + SECOND);
	/* Once: what leaks does not come back with the next reload. */
	bucket_reset(&f.r, set.index[0], NOW);
	fixture_configure(&f, &reserve);
	assert_int_equal(owed_by(&f, "u"), 0);
	bucket_charge(&f.r, set.index[0], 4, NOW);
	assert_int_equal(fixture_configure(&f, &held), row);
	assert_int_equal(owed_by(&f, "u"), 4);
	fixture_close(&f);
}

/* What is in flight in the old kind counts in the new one: nobody knows when it is settled. */
static void change_of_kind_counts_what_is_in_flight(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_limit held = template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 10, 100);
	struct bucket_limit reserve = in_kind(held, BUCKET_RATE);
	const struct bucket_cost cost = { .input_tokens = 60 };
	struct bucket_lease lease;
	struct bucket_set set;

	(void)state;
	held.name = reserve.name = str_of("u");
	fixture_configure(&f, &held);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	assert_int_equal(bucket_lease(&f.r, 1, &set, &cost, NOW, &lease).outcome, BUCKET_OK);
	fixture_configure(&f, &reserve);
	assert_int_equal(owed_by(&f, "u"), 60);
	bucket_settle(&f.r, &lease, &cost, NOW);
	assert_int_equal(owed_by(&f, "u"), 60);
	fixture_close(&f);
}

static void a_template_that_counts_in_another_way_keeps_debts(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_limit held = template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 10, 500);
	struct bucket_limit reserve = in_kind(held, BUCKET_RATE);
	struct bucket_set set;

	(void)state;
	assert_int_equal(bucket_set_templates(&f.r, &held, 1, NOW), 0);
	assert_int_equal(owed_by(&f, "u"), 0);
	assert_int_equal(resolve(&f, "u", NOW, &set), BUCKET_OK);
	bucket_charge(&f.r, set.index[0], 400, NOW);
	assert_int_equal(bucket_set_templates(&f.r, &reserve, 1, NOW), 0);
	assert_int_equal(owed_by(&f, "u"), 400);
	assert_int_equal(bucket_set_templates(&f.r, &held, 1, NOW), 0);
	assert_int_equal(owed_by(&f, "u"), 400);
	fixture_close(&f);
}

/* But a template never replaces what is configured, in whatever kind. */
static void config_goes_before_a_template_of_another_kind(void **state)
{
	struct fixture f = fixture_open(false);
	struct bucket_limit t = template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 10, 10);
	struct bucket_limit reserve = in_kind(t, BUCKET_RATE);
	struct bucket_set set;

	(void)state;
	reserve.origin = BUCKET_ORIGIN_CONFIG;
	reserve.name = str_of("v");
	assert_int_equal(bucket_set_templates(&f.r, &t, 1, NOW), 0);
	assert_int_equal(owed_by(&f, "v"), 0);
	fixture_configure(&f, &reserve);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(resolve(&f, "v", NOW, &set), BUCKET_OK);
		assert_int_equal(set.count, 1);
		assert_int_equal(set.held, 0);
		assert_int_equal(instantiate(&f, "v", NOW), 0);
	}
	t.origin = BUCKET_ORIGIN_TEMPLATE;
	t.name = str_of("v");
	fixture_configure(&f, &t);
	assert_int_equal(resolve(&f, "v", NOW, &set), BUCKET_OK);
	assert_int_equal(set.count, 2);
	fixture_close(&f);
}

/* While a change of kind is under way: what its clock is asked for, another process does. */
static struct meanwhile {
	struct fixture f;
	struct bucket_set had; /* as another process has looked it up before */
	unsigned calls, first, without;
	uint64_t taken;
} m;

static bool try(struct bucket_set *set)
{
	const struct bucket_cost cost = { .input_tokens = 300 };
	struct bucket_lease lease;
	bool took = bucket_lease(&m.f.r, 1, set, &cost, NOW, &lease).outcome == BUCKET_OK;

	m.taken += took ? 300 : 0;
	return took;
}

static uint64_t another_process(void)
{
	struct bucket_set set;

	if (++m.calls < m.first)
		return NOW;
	if (!try(&m.had) && resolve(&m.f, "u", NOW, &set) == BUCKET_OK) {
		m.without += set.count == 0;
		try(&set);
	}
	return NOW;
}

/* Nor is there a moment without a limit, nor can what was taken a moment before be taken again,
 * from whichever moment on the other process is there. */
static void nobody_takes_more_while_the_kind_changes(void **state)
{
	(void)state;
	for (m.first = 1; m.first <= m.calls || m.first == 1; m.first++) {
		struct bucket_limit limit = template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 1, 500);

		m = (struct meanwhile){ .f = fixture_open(false), .first = m.first };
		limit.name = str_of("u");
		fixture_configure(&m.f, &limit);
		assert_int_equal(resolve(&m.f, "u", NOW, &m.had), BUCKET_OK);
		m.f.r.clock_ns = another_process;
		limit = in_kind(limit, BUCKET_RATE);
		fixture_configure(&m.f, &limit);
		assert_true(m.calls >= 4);
		another_process();
		/* Who was about to take has read what is not there any more. */
		assert_int_not_equal(row_of(&m.f, &m.had)->tat, NOW);
		assert_int_equal(m.without, 0);
		assert_int_equal(m.taken, 300);
		fixture_close(&m.f);
	}
}

static struct storm {
	struct fixture f;
	atomic_bool over;
	unsigned looks, without;
} storm;

static void *look_again(void *unused)
{
	struct bucket_set set;

	(void)unused;
	while (!atomic_load(&storm.over)) {
		storm.looks++;
		storm.without += resolve(&storm.f, "u", NOW, &set) == BUCKET_OK && set.count == 0;
	}
	return NULL;
}

/* Who looks for one kind and then for the other finds a limit, whatever comes in between. */
static void a_change_of_kind_hides_from_nobody(void **state)
{
	struct bucket_limit limit = template_for(BUCKET_SCOPE_USER, BUCKET_TOKENS, 1, 500);
	bool keep[LAYOUT_BUCKETS];
	pthread_t thread;

	(void)state;
	storm = (struct storm){ .f = fixture_open(false) };
	limit.name = str_of("u");
	limit.origin = BUCKET_ORIGIN_CONFIG;
	memset(keep, true, sizeof(keep));
	fixture_configure(&storm.f, &limit);
	assert_int_equal(pthread_create(&thread, NULL, look_again, NULL), 0);
	for (int i = 0; i < 100000; i++) {
		limit = in_kind(limit, i % 2 ? BUCKET_HELD : BUCKET_RATE);
		fixture_configure(&storm.f, &limit);
		/* What is in use is told anew. */
		if (i % 16 == 0)
			bucket_retire(&storm.f.r, keep);
	}
	atomic_store(&storm.over, true);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(storm.without, 0);
	fixture_close(&storm.f);
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
		cmocka_unit_test(change_of_kind_makes_another_row_with_the_debt),
		cmocka_unit_test(change_of_kind_counts_what_is_in_flight),
		cmocka_unit_test(a_template_that_counts_in_another_way_keeps_debts),
		cmocka_unit_test(config_goes_before_a_template_of_another_kind),
		cmocka_unit_test(nobody_takes_more_while_the_kind_changes),
		cmocka_unit_test(a_change_of_kind_hides_from_nobody),
		cmocka_unit_test(a_template_that_a_dying_daemon_was_writing_still_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
