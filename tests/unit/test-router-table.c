/* Routes in the region: by name, refused when nonsense, whole for whoever reads meanwhile. */

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include "tests/unit/router-helpers.h"

#define THREADS 4

static struct router_route make_route(const char *name, unsigned count)
{
	struct router_route route = { .name = str_of(name),
		.strategy = ROUTER_BALANCED,
		.weight_cost = 1,
		.weight_latency = 2,
		.weight_reliability = 65535,
		.price_cap_nanousd = 50000000,
		.patience_ns = 2 * NSEC_PER_SEC,
		.count = count };

	for (unsigned i = 0; i < count; i++) {
		route.target[i].row = i;
		route.target[i].weight = 100 + i;
	}
	return route;
}

static void test_routes_are_found_by_name(void **state)
{
	struct world w;
	struct router_route route = make_route("chat", 32), found;
	_Atomic uint64_t *turn = NULL;
	bool *keep;
	int row;

	(void)state;
	world_open(&w, 1);
	assert_false(router_find(&w.r, str_of("chat"), &found, &turn));
	row = router_configure(&w.r, &route);
	assert_true(row >= 0);
	assert_true(router_find(&w.r, str_of("chat"), &found, &turn));
	assert_true(str_is(found.name, "chat"));
	assert_int_equal(found.strategy, ROUTER_BALANCED);
	assert_int_equal(found.weight_cost, 1);
	assert_int_equal(found.weight_latency, 2);
	assert_int_equal(found.weight_reliability, 65535);
	assert_int_equal(found.price_cap_nanousd, 50000000);
	assert_int_equal(found.patience_ns, 2 * NSEC_PER_SEC);
	assert_int_equal(found.count, 32);
	for (unsigned i = 0; i < 32; i++) {
		assert_int_equal(found.target[i].row, i);
		assert_int_equal(found.target[i].weight, 100 + i);
	}
	assert_ptr_equal(turn, &w.r.route[row].turn);
	*turn = 5;
	route.count = 1;
	route.price_cap_nanousd = -1;
	assert_int_equal(router_configure(&w.r, &route), row);
	assert_true(router_view(&w.r, (uint32_t)row, &found));
	assert_int_equal(found.price_cap_nanousd, -1);
	assert_int_equal(found.count, 1);
	assert_int_equal(*turn, 5);
	keep = calloc(w.r.routes, sizeof(*keep));
	assert_non_null(keep);
	router_retire(&w.r, keep);
	free(keep);
	assert_false(router_find(&w.r, str_of("chat"), &found, NULL));
	assert_false(router_view(&w.r, (uint32_t)row, &found));
	assert_false(router_view(&w.r, w.r.routes, &found));
	world_close(&w);
}

static void test_routes_refuse_nonsense_and_heal(void **state)
{
	struct world w;
	struct router_route route = make_route("r", 2), found;
	int row;

	(void)state;
	world_open(&w, 1);
	route.count = 33;
	assert_int_equal(router_configure(&w.r, &route), -EINVAL);
	route = make_route("", 2);
	assert_int_equal(router_configure(&w.r, &route), -EINVAL);
	route = make_route("r", 2);
	row = router_configure(&w.r, &route);
	assert_true(row >= 0);
	w.r.route[row].count = 33;
	assert_false(router_find(&w.r, str_of("r"), &found, NULL));
	w.r.route[row].count = 2;
	w.r.route[row].strategy = 1u << 20;
	assert_false(router_find(&w.r, str_of("r"), &found, NULL));
	w.r.route[row].strategy = ROUTER_COST;
	assert_true(router_find(&w.r, str_of("r"), &found, NULL));
	/* A daemon died in it: not readable until the next one configures it. */
	w.r.route[row].sequence |= 1;
	assert_false(router_find(&w.r, str_of("r"), &found, NULL));
	assert_int_equal(router_configure(&w.r, &route), row);
	assert_true(router_find(&w.r, str_of("r"), &found, NULL));
	assert_int_equal(found.count, 2);
	world_close(&w);
}

static _Atomic bool finished;
static _Atomic unsigned reading;

/* All targets of one route have the same weight, whichever version is seen. */
static void *read_routes(void *arg)
{
	struct world *w = arg;
	struct router_route found;

	atomic_fetch_add(&reading, 1);
	while (!atomic_load(&finished)) {
		if (!router_find(&w->r, str_of("r"), &found, NULL))
			continue;
		for (unsigned i = 1; i < found.count; i++)
			assert_int_equal(found.target[i].weight, found.target[0].weight);
		assert_int_equal(found.count, 1 + found.target[0].weight % 32);
	}
	return NULL;
}

static void test_readers_never_see_half_a_route(void **state)
{
	struct world w;
	struct router_route route = make_route("r", 1);
	pthread_t thread[THREADS];

	(void)state;
	world_open(&w, 1);
	atomic_store(&finished, false);
	atomic_store(&reading, 0);
	route.target[0].weight = 0;
	assert_true(router_configure(&w.r, &route) >= 0);
	for (int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, read_routes, &w), 0);
	while (atomic_load(&reading) < THREADS)
		sched_yield();
	for (uint32_t k = 0; k < 20000; k++) {
		route.count = 1 + k % 32;
		for (unsigned i = 0; i < route.count; i++)
			route.target[i].weight = k;
		assert_true(router_configure(&w.r, &route) >= 0);
	}
	atomic_store(&finished, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	world_close(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_routes_are_found_by_name),
		cmocka_unit_test(test_routes_refuse_nonsense_and_heal),
		cmocka_unit_test(test_readers_never_see_half_a_route),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
