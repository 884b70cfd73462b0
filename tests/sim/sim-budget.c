/*
 * Many seeds of tests/sim/budget.h: never more admitted than the provider's own exact buckets
 * allow, nobody waits longer than told, nothing is sent in a pause, everything comes back, and a
 * seed is a run.
 *
 *     sim-budget [--seed N] [--admissions N]
 *
 * With LLMKIT_LONG=1 ten times as many. --seed runs one seed alone.
 */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/sim/budget.h"

#define PER_SEED 50000
#define LONG_FACTOR 10

#ifdef SIM_STEPS
#define PROGRAM "sim-steps"
#ifdef SANITIZED
#define ADMISSIONS 100000
#else
#define ADMISSIONS 20000000
#endif
#else
#define PROGRAM "sim-budget"
#ifdef SANITIZED
#define ADMISSIONS 2000000
#else
#define ADMISSIONS 100000000
#endif
#endif

static struct budget_counts counts;

static void tell(uint64_t seeds)
{
	printf("# %llu seeds, %llu admitted, %llu rejected, %llu settled, %llu cancelled\n",
		(unsigned long long)seeds, (unsigned long long)counts.admitted,
		(unsigned long long)counts.rejected, (unsigned long long)counts.settled,
		(unsigned long long)counts.cancelled);
	printf("# %llu deaths with %llu calls in flight, %llu stops, %llu daemons died\n",
		(unsigned long long)counts.deaths, (unsigned long long)counts.died_in_flight,
		(unsigned long long)counts.stops, (unsigned long long)counts.restarts);
	printf("# %llu changes of limits, %llu pauses, %llu waits checked, %llu events amid "
	       "others\n",
		(unsigned long long)counts.changes, (unsigned long long)counts.refusals,
		(unsigned long long)counts.promises, (unsigned long long)counts.amid);
}

static bool replays(void)
{
	struct budget_counts first = { 0 }, second = { 0 };

	for (uint64_t seed = 1; seed <= 20; seed++)
		if (budget_run(seed, 5000, &first) != budget_run(seed, 5000, &second))
			return false;
	return memcmp(&first, &second, sizeof(first)) == 0;
}

int main(int argc, char **argv)
{
	const char *is_long = getenv("LLMKIT_LONG");
	uint64_t admissions = ADMISSIONS, only = 0, seed = 0;

	sim.program = PROGRAM;
	if (is_long && strcmp(is_long, "1") == 0)
		admissions *= LONG_FACTOR;
	for (int i = 1; i + 1 < argc; i += 2) {
		if (strcmp(argv[i], "--seed") == 0)
			only = strtoull(argv[i + 1], NULL, 10);
		else if (strcmp(argv[i], "--admissions") == 0)
			admissions = strtoull(argv[i + 1], NULL, 10);
	}
	if (only) {
		printf("# %016llx\n", (unsigned long long)budget_run(only, PER_SEED, &counts));
		seed = 1;
	}
	while (!only && counts.admitted < admissions) {
		budget_run(++seed, PER_SEED, &counts);
		if (counts.admitted < seed)
			sim_fail("hardly anything is admitted");
	}
	tell(seed);
	sim_ok(counts.admitted > 0, "%llu admissions, none too many",
		(unsigned long long)counts.admitted);
	sim_ok(true, "all that was admitted ended once, and nothing is held by nobody");
	sim_ok(only || counts.refusals > 0, "nothing was sent in %llu pauses",
		(unsigned long long)counts.refusals);
#ifndef SIM_STEPS
	sim_ok(only || counts.promises > 0, "%llu waits were as long as said",
		(unsigned long long)counts.promises);
#else
	sim_ok(counts.amid > 0, "%llu acted amid others' operations",
		(unsigned long long)counts.amid);
#endif
	sim_ok(replays(), "a seed is a run");
	return sim_done();
}
