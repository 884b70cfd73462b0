#include "daemon/demand.h"
#include "shm/hold.h"
#include "shm/layout.h"
#include "shm/participant.h"
#include "tests/unit/shm-fixture.h"

#include <stdio.h>

static struct world {
	struct fixture f;
	struct demand d;
	uint32_t provider, configured;
} w;

static uint32_t configure(const char *name, uint32_t provider)
{
	const struct target_config t = {
		.name = str_of(name), .provider = provider, .available = true
	};
	int row = target_configure(&w.f.r, &t);

	assert_true(row >= 0);
	return (uint32_t)row;
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	w.f = fixture_open(false);
	w.provider = configure("p", TARGET_NONE);
	w.configured = configure("p/configured", w.provider);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	fixture_close(&w.f);
	return 0;
}

static bool make(const char *name)
{
	const struct target_config t = { .name = str_of(name), .provider = w.provider };
	const struct breaker_settings settings = breaker_preset(BREAKER_AGGRESSIVE);

	return demand_make(&w.d, &w.f.r, &t, &settings, FIXTURE_NOW);
}

static uint32_t find(const char *name)
{
	return target_find(&w.f.r, str_of(name), NULL);
}

/* p/0 to p/(n-1), tried in this order. */
static void fill(unsigned from, unsigned n)
{
	char name[16];

	for (unsigned i = from; i < from + n; i++) {
		snprintf(name, sizeof(name), "p/%u", i);
		assert_true(make(name));
		target_tried(&w.f.r, find(name), FIXTURE_NOW - FIXTURE_SECOND + i * 2000000);
	}
}

static void a_row_is_as_its_provider(void **state)
{
	const struct target_config keyless = { .name = str_of("p"), .provider = TARGET_NONE };
	struct breaker_view b;
	struct target_view v;

	(void)state;
	assert_true(make("p/a"));
	assert_true(target_view(&w.f.r, find("p/a"), &v));
	assert_true(v.available);
	assert_int_equal(v.provider, w.provider);
	assert_true(breaker_view(&w.f.r, find("p/a"), FIXTURE_NOW, &b));
	assert_int_equal(b.settings.z_percent, breaker_preset(BREAKER_AGGRESSIVE).z_percent);
	assert_int_equal(target_configure(&w.f.r, &keyless), w.provider);
	assert_true(make("p/b"));
	assert_true(target_view(&w.f.r, find("p/b"), &v));
	assert_false(v.available);
}

/* However many names clients think of. */
static void rows_are_bounded_and_the_least_recently_tried_goes(void **state)
{
	unsigned used = 0;
	struct target_view v;

	(void)state;
	fill(0, DEMAND_ROWS);
	target_tried(&w.f.r, find("p/0"), FIXTURE_NOW);
	fill(DEMAND_ROWS, 1);
	assert_int_not_equal(find("p/0"), TARGET_NONE);
	assert_int_equal(find("p/1"), TARGET_NONE);
	fill(DEMAND_ROWS + 1, 1000);
	for (uint32_t i = 0; i < w.f.r.targets; i++)
		used += target_view(&w.f.r, i, &v);
	assert_int_equal(used, DEMAND_ROWS + 2);
	assert_int_equal(find("p/configured"), w.configured);
	assert_int_equal(find("p"), w.provider);
}

static void what_is_in_flight_or_paused_stays(void **state)
{
	uint64_t owner = participant_owner(
		&w.f.r, (uint32_t)participant_claim(&w.f.r, 1, 1, 0, FIXTURE_NOW));
	uint32_t hold = hold_claim(&w.f.r, owner, 0, FIXTURE_NOW), row;

	(void)state;
	fill(0, DEMAND_ROWS);
	row = find("p/0");
	assert_int_equal(
		hold_move(&w.f.r, hold, owner, HOLD_TOTAL_TARGET(row), 1, 0, NULL), HOLD_OK);
	target_pause(&w.f.r, find("p/1"), FIXTURE_NOW + FIXTURE_SECOND, FIXTURE_NOW);
	fill(DEMAND_ROWS, 1);
	assert_int_equal(find("p/0"), row);
	assert_int_not_equal(find("p/1"), TARGET_NONE);
	assert_int_equal(find("p/2"), TARGET_NONE);
	/* When all are, a new name has to do without. */
	for (uint32_t i = 0; i < w.f.r.targets; i++)
		target_pause(&w.f.r, i, FIXTURE_NOW + FIXTURE_SECOND, FIXTURE_NOW);
	assert_false(make("p/new"));
}

/* Nobody tries it, so it is the one not tried for longest. */
static void what_an_operator_opened_stays(void **state)
{
	struct breaker_view b;

	(void)state;
	fill(0, DEMAND_ROWS);
	breaker_force_open(&w.f.r, find("p/0"), FIXTURE_NOW);
	fill(DEMAND_ROWS, 3 * DEMAND_ROWS);
	assert_int_not_equal(find("p/0"), TARGET_NONE);
	assert_true(breaker_view(&w.f.r, find("p/0"), FIXTURE_NOW, &b));
	assert_true(b.forced);
	breaker_force_close(&w.f.r, find("p/0"), FIXTURE_NOW);
	fill(4 * DEMAND_ROWS, DEMAND_ROWS);
	assert_int_equal(find("p/0"), TARGET_NONE);
}

/* However many names come and go, searches find their end. */
static void rows_that_went_do_not_fill_the_table(void **state)
{
	unsigned never = 0;

	(void)state;
	fill(0, 5000);
	for (uint32_t i = 0; i < w.f.r.targets; i++)
		never += w.f.r.target[i].key == LAYOUT_KEY_NEVER;
	assert_true(never > 0);
}

/* What a reload retired is free; what it configured is not ours any more. */
static void a_reload_forgets_them(void **state)
{
	bool keep[LAYOUT_TARGETS] = { 0 };
	uint32_t mine;

	(void)state;
	fill(0, DEMAND_ROWS);
	keep[w.provider] = keep[w.configured] = keep[find("p/0")] = true;
	mine = find("p/0");
	target_retire(&w.f.r, keep);
	demand_forget(&w.d);
	fill(1, 2 * DEMAND_ROWS);
	assert_int_equal(find("p/0"), mine);
}

/* A table that is small has most of its room for what is configured. */
static void a_quarter_of_the_table_is_the_most(void **state)
{
	const struct region_sizes sizes = { .targets = 16 };
	char name[16];

	(void)state;
	fixture_close(&w.f);
	w.f = fixture_open_sized(&sizes, false);
	w.provider = configure("p", TARGET_NONE);
	fill(0, 100);
	for (int i = 0; i < 11; i++) {
		snprintf(name, sizeof(name), "p/c%d", i);
		configure(name, w.provider);
	}
}

int main(void)
{
#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(a_row_is_as_its_provider),
		CASE(rows_are_bounded_and_the_least_recently_tried_goes),
		CASE(what_is_in_flight_or_paused_stays),
		CASE(what_an_operator_opened_stays),
		CASE(rows_that_went_do_not_fill_the_table),
		CASE(a_reload_forgets_them),
		CASE(a_quarter_of_the_table_is_the_most),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
