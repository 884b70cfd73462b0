#include "shm/timebase.h"

#include "base/clock.h"
#include "shm/layout.h"
#include "tests/unit/shm-fixture.h"

#define START_CYCLES UINT64_C(5000000000)
#define PERIOD FIXTURE_SECOND
#define RATE 3 /* cycles per nanosecond */

struct clock_fixture {
	struct fixture f;
	struct timebase_tracker t;
};

/* A tracker that was fed points points, one second apart, of a counter at RATE. */
static struct clock_fixture clock_open(int points)
{
	struct clock_fixture c = { .f = fixture_open(false) };

	for (int i = 0; i < points; i++)
		assert_int_equal(
			timebase_track(&c.t, &c.f.r, START_CYCLES + RATE * PERIOD * (uint64_t)i,
				FIXTURE_NOW + PERIOD * (uint64_t)i, PERIOD),
			TIMEBASE_OK);
	return c;
}

static bool converts(const struct clock_fixture *c, uint64_t cycles)
{
	uint64_t ns;

	return timebase_convert(&c->f.r, cycles, &ns);
}

static void nothing_is_published_before_the_second_point(void **state)
{
	struct clock_fixture c = clock_open(0);

	(void)state;
	assert_false(converts(&c, START_CYCLES));
	assert_false(converts(&c, 0));
	assert_int_equal(
		timebase_track(&c.t, &c.f.r, START_CYCLES, FIXTURE_NOW, PERIOD), TIMEBASE_OK);
	assert_false(converts(&c, START_CYCLES));
	fixture_close(&c.f);
}

static void cycles_become_nanoseconds(void **state)
{
	struct clock_fixture c = clock_open(2);
	uint64_t base = START_CYCLES + RATE * PERIOD, ns;

	(void)state;
	for (uint64_t ahead = 0; ahead < 3 * PERIOD; ahead += PERIOD / 7) {
		assert_true(timebase_convert(&c.f.r, base + RATE * ahead, &ns));
		/* The multiplier is rounded down: late by a few ns per second at most, never early.
		 */
		assert_in_range(ns, FIXTURE_NOW + PERIOD + ahead - 4, FIXTURE_NOW + PERIOD + ahead);
	}
	fixture_close(&c.f);
}

static void stale_and_early_cycles_are_refused(void **state)
{
	struct clock_fixture c = clock_open(2);
	uint64_t base = START_CYCLES + RATE * PERIOD;

	(void)state;
	assert_true(converts(&c, base));
	assert_false(converts(&c, base - 1));
	assert_false(converts(&c, 0));
	assert_true(converts(&c, base + 3 * RATE * PERIOD));
	assert_false(converts(&c, base + 5 * RATE * PERIOD));
	assert_false(converts(&c, UINT64_MAX));
	fixture_close(&c.f);
}

static void drift_switches_off_for_good(void **state)
{
	struct clock_fixture c = clock_open(3);
	uint64_t cycles = c.t.cycles, ns = c.t.ns;

	(void)state;
	/* 900 ppm: accepted. */
	cycles += RATE * PERIOD + RATE * PERIOD / 10000 * 9;
	ns += PERIOD;
	assert_int_equal(timebase_track(&c.t, &c.f.r, cycles, ns, PERIOD), TIMEBASE_OK);
	assert_true(converts(&c, cycles));
	/* 2000 ppm more: off. */
	cycles += RATE * PERIOD + RATE * PERIOD / 1000 * 3;
	ns += PERIOD;
	assert_int_equal(timebase_track(&c.t, &c.f.r, cycles, ns, PERIOD), TIMEBASE_E_DRIFT);
	assert_false(converts(&c, cycles));
	/* And it stays off, however well the counter behaves. */
	for (int i = 0; i < 3; i++) {
		cycles += RATE * PERIOD;
		ns += PERIOD;
		assert_int_equal(timebase_track(&c.t, &c.f.r, cycles, ns, PERIOD), TIMEBASE_OK);
	}
	assert_false(converts(&c, cycles));
	fixture_close(&c.f);
}

static void counters_that_stand_or_go_back_are_drift(void **state)
{
	struct clock_fixture c = clock_open(2);

	(void)state;
	assert_int_equal(timebase_track(&c.t, &c.f.r, c.t.cycles, c.t.ns + PERIOD, PERIOD),
		TIMEBASE_E_DRIFT);
	fixture_close(&c.f);
	c = clock_open(2);
	assert_int_equal(timebase_track(&c.t, &c.f.r, c.t.cycles - 5, c.t.ns + PERIOD, PERIOD),
		TIMEBASE_E_DRIFT);
	fixture_close(&c.f);
	c = clock_open(2);
	assert_int_equal(
		timebase_track(&c.t, &c.f.r, c.t.cycles + 5, c.t.ns - 1, PERIOD), TIMEBASE_E_DRIFT);
	fixture_close(&c.f);
}

static void close_points_are_ignored(void **state)
{
	struct clock_fixture c = clock_open(2);
	uint64_t cycles = c.t.cycles;

	(void)state;
	assert_int_equal(
		timebase_track(&c.t, &c.f.r, cycles + 17, c.t.ns + 1000, PERIOD), TIMEBASE_OK);
	assert_int_equal(c.t.cycles, cycles);
	fixture_close(&c.f);
}

/* A daemon killed while it publishes: readers use the other clock, the next daemon mends it. */
static void death_while_publishing_heals(void **state)
{
	struct clock_fixture c = clock_open(2);
	struct layout_timebase *t = &c.f.r.header->timebase;
	struct timebase_tracker next = { 0 };

	(void)state;
	atomic_fetch_add(&t->sequence, 1);
	atomic_store(&t->cycles0, 1);
	assert_false(converts(&c, START_CYCLES + RATE * PERIOD));
	for (uint64_t i = 0; i < 2; i++)
		timebase_track(&next, &c.f.r, START_CYCLES + RATE * PERIOD * i,
			FIXTURE_NOW + PERIOD * i, PERIOD);
	assert_true(converts(&c, START_CYCLES + RATE * PERIOD));
	timebase_disable(&next, &c.f.r);
	assert_false(converts(&c, START_CYCLES + RATE * PERIOD));
	fixture_close(&c.f);
}

static void insane_words_are_not_believed(void **state)
{
	struct clock_fixture c = clock_open(2);
	struct layout_timebase *t = &c.f.r.header->timebase;

	(void)state;
	atomic_store(&t->multiplier, UINT64_MAX);
	assert_false(converts(&c, START_CYCLES + RATE * PERIOD));
	atomic_store(&t->multiplier, 1);
	atomic_store(&t->validity, UINT64_MAX);
	assert_false(converts(&c, 0));
	fixture_close(&c.f);
}

/* The real counter, where there is one: after two points the fast clock is near the slow one. The
 * margin is for a test that was stopped between two readings. */
static void real_counter_follows_boottime(void **state)
{
	struct clock_fixture c = clock_open(0);
	uint64_t before, after, ns;

	(void)state;
	if (clock_cycles() == 0 || clock_cycles_trusted() <= 0) {
		fixture_close(&c.f);
		skip();
	}
	for (int i = 0; i < 2; i++) {
		ns = clock_boottime_ns();
		timebase_track(&c.t, &c.f.r, clock_cycles(), ns, PERIOD);
		clock_sleep_until(ns + FIXTURE_SECOND / 10);
	}
	before = clock_boottime_ns();
	assert_true(timebase_convert(&c.f.r, clock_cycles(), &ns));
	after = clock_boottime_ns();
	assert_true(ns + FIXTURE_SECOND / 100 >= before);
	assert_true(ns <= after + FIXTURE_SECOND / 100);
	fixture_close(&c.f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_published_before_the_second_point),
		cmocka_unit_test(cycles_become_nanoseconds),
		cmocka_unit_test(stale_and_early_cycles_are_refused),
		cmocka_unit_test(drift_switches_off_for_good),
		cmocka_unit_test(counters_that_stand_or_go_back_are_drift),
		cmocka_unit_test(close_points_are_ignored),
		cmocka_unit_test(death_while_publishing_heals),
		cmocka_unit_test(insane_words_are_not_believed),
		cmocka_unit_test(real_counter_follows_boottime),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
