/* The table of routes step by step: a reader before each store of the daemon, a change before each
 * load of a reader, a daemon that dies before each store. Nobody ever sees half a route. */

#include <setjmp.h>
#include "tests/unit/router-helpers.h"

static struct {
	bool on;
	unsigned left; /* steps until act() or death; 0: never */
	bool every;    /* act() before each step */
	void (*act)(void);
	bool dies;
	jmp_buf death;
} steps;

static void step(void)
{
	if (!steps.on)
		return;
	if (!steps.every && (steps.left == 0 || --steps.left > 0))
		return;
	steps.on = false;
	if (steps.dies)
		longjmp(steps.death, 1);
	steps.act();
	steps.on = steps.every;
}

static inline uint64_t step_load(const _Atomic uint64_t *word, memory_order order)
{
	step();
	return atomic_load_explicit(word, order);
}

static inline void step_store(_Atomic uint64_t *word, uint64_t value, memory_order order)
{
	step();
	atomic_store_explicit(word, value, order);
}

/* The code itself, where every load and store is a step. */
#undef atomic_load_explicit
#undef atomic_store_explicit
#define atomic_load_explicit step_load
#define atomic_store_explicit step_store
#include "shm/router_table.c"

static struct world world;
static uint32_t version;

static void write_version(void)
{
	struct router_route route = { .name = str_of("r"), .strategy = ROUTER_COST };

	version++;
	route.count = 1 + version % ROUTER_CANDIDATES;
	route.weight_cost = (uint16_t)version;
	for (unsigned i = 0; i < route.count; i++) {
		route.target[i].row = version;
		route.target[i].weight = version;
	}
	assert_true(router_configure(&world.r, &route) >= 0);
}

static void check_whole(const struct router_route *route)
{
	assert_int_equal(route->count, 1 + route->weight_cost % ROUTER_CANDIDATES);
	for (unsigned i = 0; i < route->count; i++) {
		assert_int_equal(route->target[i].row, route->weight_cost);
		assert_int_equal(route->target[i].weight, route->weight_cost);
	}
}

static unsigned seen;

static void read_version(void)
{
	struct router_route route;

	if (!router_find(&world.r, str_of("r"), &route, NULL))
		return;
	check_whole(&route);
	seen++;
}

static void begin(void)
{
	world_open(&world, 1);
	version = 20;
	seen = 0;
	write_version();
}

/* A change before the n-th load, for every n: the reader sees the new one or tries again. */
static void test_a_change_amid_reading(void **state)
{
	(void)state;
	begin();
	for (unsigned n = 1; n < 200; n++) {
		steps.dies = steps.every = false;
		steps.act = write_version;
		steps.left = n;
		steps.on = true;
		read_version();
		steps.on = false;
		assert_int_equal(seen, n);
	}
	world_close(&world);
}

/* It changes before every load: the reader gives up, and does not hang. */
static void test_changes_without_end_are_given_up(void **state)
{
	(void)state;
	begin();
	steps.dies = false;
	steps.act = write_version;
	steps.every = true;
	steps.on = true;
	read_version();
	steps.on = false;
	assert_int_equal(seen, 0);
	read_version();
	assert_int_equal(seen, 1);
	world_close(&world);
}

/* A reader before every store of a change: sees the old one, the new one, or none. */
static void test_a_reader_amid_a_change(void **state)
{
	(void)state;
	begin();
	for (unsigned n = 0; n < 100; n++) {
		steps.dies = false;
		steps.act = read_version;
		steps.every = true;
		steps.on = true;
		write_version();
		steps.on = false;
	}
	assert_true(seen > 0);
	world_close(&world);
}

/* The daemon dies before the n-th store; what is seen is whole or nothing, the next one mends. */
static void test_a_daemon_that_dies_amid_a_change(void **state)
{
	(void)state;
	begin();
	for (volatile unsigned n = 1; n < 80; n++) {
		steps.every = false;
		steps.dies = true;
		steps.left = n;
		steps.on = true;
		if (setjmp(steps.death) == 0)
			write_version();
		steps.on = false;
		read_version();
		seen = 0;
		write_version();
		read_version();
		assert_int_equal(seen, 1);
	}
	world_close(&world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_change_amid_reading),
		cmocka_unit_test(test_changes_without_end_are_given_up),
		cmocka_unit_test(test_a_reader_amid_a_change),
		cmocka_unit_test(test_a_daemon_that_dies_amid_a_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
