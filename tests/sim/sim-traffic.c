/*
 * Router and breakers in the loop, under a virtual clock: calls come at a rate from several
 * client processes that die, most of all while they probe; targets answer, fail fast, fail for a
 * while or recover. Shown: a target failing in 2 ms gets under 1 % of the traffic, a storm of
 * errors ends in probes alone, never more probes than configured are out, and a target that
 * recovered regains its share.
 *
 *     sim-traffic [--seed N]
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "shm/breaker.h"
#include "shm/hold.h"
#include "shm/participant.h"
#include "shm/router.h"
#include "shm/target.h"
#include "tests/sim/sim.h"

enum {
	TARGETS = 4,
	CLIENTS = 4,
	CALLS = 800, /* in flight at most */
	PROBES = 2,  /* of the production preset */
	SEEDS = 20,
	TOKENS = 100,
};
#define REAP_NS (100 * NSEC_PER_MSEC)
#define MEAN_GAP_NS (5 * NSEC_PER_MSEC) /* between calls */
#define SHARE_NS (5 * NSEC_PER_SEC)     /* that shares are measured in */

enum { CALL, END, REAP, DIES, PROBED, KINDS };
static const char *const names[KINDS] = { "a call", "ends", "is reaped", "dies", "probes" };

struct call {
	bool used, ok, pending;
	uint32_t epoch;
	unsigned client, target;
	uint64_t first_ns;
	uint32_t hold;
	struct breaker_ticket ticket;
};

static struct {
	struct region r;
	struct router_candidate candidate[TARGETS];
	uint64_t from_ns[TARGETS], until_ns[TARGETS]; /* it fails */
	uint64_t fails_ns;                            /* how fast */
	uint64_t first_ns[TARGETS];                   /* median */
	enum router_strategy strategy;
	struct {
		uint64_t owner;
		uint32_t row;
		bool alive;
	} client[CLIENTS];
	struct call call[CALLS];
	unsigned probes[TARGETS]; /* out, of the living or not reaped */
	uint64_t sent[TARGETS], probed[TARGETS], answered,
		calls; /* since they were last looked at */
	uint64_t deaths, all_probes, pid;
	unsigned die_on_probe; /* one in so many; 0: never */
} t;

static uint64_t virtual_clock(void)
{
	return sim.now_ns;
}

static void come(unsigned who)
{
	int row = participant_claim(&t.r, ++t.pid, 1, 0, sim.now_ns);

	if (row < 0)
		sim_fail("no row for a client");
	t.client[who].row = (uint32_t)row;
	t.client[who].owner = participant_owner(&t.r, (uint32_t)row);
	t.client[who].alive = true;
}

static void begin(uint64_t seed, enum router_strategy strategy, unsigned die_on_probe)
{
	static const struct region_owner owner = { .pid = 1, .start = 1, .boot_id = { 1, 2 } };
	static const char *const name[TARGETS] = { "a/m", "b/m", "c/m", "d/m" };
	const struct region_sizes sizes = { 16, 2 * CALLS, 8 };
	int fd = memfd_create("region", MFD_CLOEXEC);

	memset(&t, 0, sizeof(t));
	sim_begin(seed, names);
	if (fd < 0 || region_create(&t.r, fd, &owner, &sizes, sim.now_ns, false) != 0)
		sim_fail("no region");
	close(fd);
	t.r.clock_ns = virtual_clock;
	t.strategy = strategy;
	t.die_on_probe = die_on_probe;
	t.fails_ns = 2 * NSEC_PER_MSEC;
	for (unsigned i = 0; i < TARGETS; i++) {
		struct target_config config = { .name = str_of(name[i]),
			.provider = TARGET_NONE,
			.price_input = 1000000,
			.price_output = 1000000,
			.price_cached = -1,
			.capabilities = TARGET_CAPABILITIES,
			.available = true };

		if (target_configure(&t.r, &config) < 0)
			sim_fail("no target");
		t.candidate[i].row = target_find(&t.r, config.name, &t.candidate[i].key);
		t.first_ns[i] = 400 * NSEC_PER_MSEC;
	}
	for (unsigned i = 0; i < CLIENTS; i++)
		come(i);
	sim_push(sim.now_ns, CALL, 0, 0);
}

/* ---- calls ---- */

static struct call *unused_call(void)
{
	for (unsigned i = 0; i < CALLS; i++)
		if (!t.call[i].used)
			return &t.call[i];
	sim_fail("too many calls in flight");
}

static bool is_probe(const struct call *c)
{
	return c->ticket.slot < BREAKER_NO_PROBE;
}

static void over(struct call *c)
{
	t.probes[c->target] -= is_probe(c);
	c->used = false;
	c->epoch++;
}

static void die(unsigned who)
{
	sim_note(DIES, who, 0);
	t.deaths++;
	t.client[who].alive = false;
	sim_push(sim.now_ns + sim_random(REAP_NS), REAP, who, 0);
}

/* At a target: counted there as pending, and by its breaker if it is a probe. */
static void dispatch(unsigned who, unsigned target, const struct breaker_ticket *ticket)
{
	struct call *c = unused_call();
	uint64_t took_ns, now_ns = sim.now_ns, owner = t.client[who].owner;

	*c = (struct call){
		.used = true, .epoch = c->epoch, .client = who, .target = target, .ticket = *ticket
	};
	c->ok = now_ns < t.from_ns[target] || now_ns >= t.until_ns[target];
	c->first_ns = (uint64_t)((double)t.first_ns[target] * exp(0.3 * sim_normal()));
	took_ns = c->ok ? 2 * c->first_ns : t.fails_ns;
	c->hold = hold_claim(&t.r, owner, (uint32_t)(c - t.call), now_ns);
	hold_move(&t.r, c->hold, owner, HOLD_TOTAL_TARGET(t.candidate[target].row), 1, 0, NULL);
	target_tried(&t.r, t.candidate[target].row, now_ns);
	t.sent[target]++;
	sim_push(now_ns + took_ns, END, (uint32_t)(c - t.call), c->epoch);
	if (!is_probe(c))
		return;
	sim_note(PROBED, who, target);
	t.probed[target]++;
	t.all_probes++;
	if (++t.probes[target] > PROBES)
		sim_fail("%u probes are out at target %u", t.probes[target], target);
	if (sim_once_in(t.die_on_probe))
		die(who);
}

static void on_call(void)
{
	struct router_query query = {
		.strategy = t.strategy,
		.weight_cost = 333,
		.weight_latency = 333,
		.weight_reliability = 333,
		.input_tokens = TOKENS,
		.output_tokens = TOKENS,
		.price_cap_nanousd = -1,
		.random = splitmix_next(&sim.seed),
	};
	unsigned who = (unsigned)sim_random(CLIENTS);
	struct router_decision d;

	sim_push(sim.now_ns + 1 + sim_spread(MEAN_GAP_NS), CALL, 0, 0);
	t.calls++;
	if (!t.client[who].alive)
		return;
	router_decide(&t.r, &query, t.candidate, TARGETS, NULL, sim.now_ns, &d);
	for (unsigned i = 0; i < d.usable; i++) {
		unsigned target = d.choice[i].candidate;
		struct breaker_ticket ticket;
		uint64_t wait_ns;

		if (breaker_allow(&t.r, t.candidate[target].row, t.client[who].owner, sim.now_ns,
			    splitmix_next(&sim.seed), &ticket, &wait_ns) == BREAKER_REJECT)
			continue;
		dispatch(who, target, &ticket);
		return;
	}
}

static void on_end(struct call *c)
{
	struct breaker_report report = { c->ok ? BREAKER_OK : BREAKER_FAILED,
		c->ok ? c->first_ns : 0 };
	struct target_sample sample = { TOKENS, c->first_ns, c->first_ns / TOKENS };
	uint32_t row = t.candidate[c->target].row;

	/* Its process is dead; the reaper sees to it. */
	if (!t.client[c->client].alive)
		return;
	hold_move(&t.r, c->hold, t.client[c->client].owner, HOLD_TOTAL_TARGET(row), 0, 1, NULL);
	hold_release(&t.r, c->hold, t.client[c->client].owner);
	if (c->ok)
		target_learn(&t.r, row, &sample, sim.now_ns);
	t.answered += c->ok;
	/* Not out any more once it is reported. */
	over(c);
	breaker_record(&t.r, &c->ticket, &report, sim.now_ns, splitmix_next(&sim.seed));
}

static void on_reap(unsigned who)
{
	for (unsigned i = 0; i < CALLS; i++)
		if (t.call[i].used && t.call[i].client == who)
			over(&t.call[i]);
	participant_release(&t.r, t.client[who].row);
	breaker_reap(&t.r, t.client[who].owner);
	hold_reap(&t.r, t.client[who].owner, sim.now_ns);
	come(who);
}

static void run(uint64_t ns)
{
	uint64_t until_ns = sim.now_ns + ns;
	struct sim_event e;

	memset(t.sent, 0, sizeof(t.sent));
	memset(t.probed, 0, sizeof(t.probed));
	t.answered = t.calls = 0;
	while (sim_peek(&e) && e.at_ns <= until_ns && sim_pop(&e)) {
		sim.now_ns = e.at_ns;
		sim_note(e.kind, e.who, 0);
		if (e.kind == CALL)
			on_call();
		else if (e.kind == REAP)
			on_reap(e.who);
		else if (t.call[e.who].used && t.call[e.who].epoch == e.epoch)
			on_end(&t.call[e.who]);
	}
	sim.now_ns = until_ns;
}

static void finish(void)
{
	/* No new calls: what is in flight ends, or is reaped. */
	struct sim_event e;

	while (sim_pop(&e)) {
		sim.now_ns = max_u64(sim.now_ns, e.at_ns);
		if (e.kind == REAP)
			on_reap(e.who);
		else if (e.kind == END && t.call[e.who].used && t.call[e.who].epoch == e.epoch)
			on_end(&t.call[e.who]);
	}
	for (unsigned i = 0; i < TARGETS; i++)
		if (target_pending(&t.r, t.candidate[i].row) != 0)
			sim_fail("target %u has calls pending, of nobody", i);
	region_detach(&t.r);
}

static void fail_from_now(unsigned target, uint64_t ns)
{
	t.from_ns[target] = sim.now_ns;
	t.until_ns[target] = sim.now_ns + ns;
}

static double share(unsigned target)
{
	uint64_t all = 0;

	for (unsigned i = 0; i < TARGETS; i++)
		all += t.sent[i];
	return all ? (double)t.sent[target] / (double)all : 0;
}

/* ---- tests ---- */

static void test_fast_failures(uint64_t seed)
{
	static const enum router_strategy strategies[] = { ROUTER_BALANCED, ROUTER_LATENCY,
		ROUTER_COST, ROUTER_RELIABILITY };
	double worst = 0;

	for (unsigned i = 0; i < SEEDS; i++) {
		begin(seed + i, strategies[i % ARRAY_SIZE(strategies)], 0);
		fail_from_now(0, UINT64_MAX / 2);
		run(10 * NSEC_PER_SEC);
		run(600 * NSEC_PER_SEC);
		worst = fmax(worst, share(0));
		finish();
	}
	sim_ok(worst < 0.01, "a target failing in 2 ms gets %.3f %% of the traffic at most",
		100 * worst);
}

static void test_storm(uint64_t seed)
{
	uint64_t passed = 0, probed = 0;

	for (unsigned i = 0; i < SEEDS; i++) {
		begin(seed + i, ROUTER_BALANCED, 0);
		run(60 * NSEC_PER_SEC);
		for (unsigned k = 1; k < TARGETS; k++)
			fail_from_now(k, 600 * NSEC_PER_SEC);
		run(10 * NSEC_PER_SEC);
		run(500 * NSEC_PER_SEC);
		for (unsigned k = 1; k < TARGETS; k++) {
			passed += t.sent[k] - t.probed[k];
			probed += t.probed[k];
		}
		finish();
	}
	sim_ok(passed == 0 && probed > 0,
		"a storm of errors ends in probes alone: %llu probes, %llu other calls",
		(unsigned long long)probed, (unsigned long long)passed);
}

static void test_deaths_on_probes(uint64_t seed)
{
	uint64_t deaths = 0, probes = 0;
	bool came_back = true;

	for (unsigned i = 0; i < SEEDS; i++) {
		begin(seed + i, ROUTER_BALANCED, 2);
		/* Slow enough that probes are out for a while. */
		t.fails_ns = NSEC_PER_SEC;
		for (unsigned k = 0; k < 30; k++) {
			fail_from_now(k % TARGETS, (5 + sim_random(60)) * NSEC_PER_SEC);
			run(30 * NSEC_PER_SEC);
		}
		deaths += t.deaths;
		probes += t.all_probes;
		t.die_on_probe = 0;
		run(300 * NSEC_PER_SEC);
		run(60 * NSEC_PER_SEC);
		for (unsigned k = 0; k < TARGETS; k++)
			came_back = came_back && share(k) > 0.1;
		finish();
	}
	sim_ok(deaths > 100, "never more than %d probes out, with %llu deaths on %llu probes",
		PROBES, (unsigned long long)deaths, (unsigned long long)probes);
	sim_ok(came_back, "and every target came back");
}

/* Seconds until it has 80 % of its share again. */
static double regains(uint64_t seed, uint64_t outage_ns)
{
	double fair, s = 0;

	begin(seed, ROUTER_BALANCED, 0);
	run(60 * NSEC_PER_SEC);
	run(60 * NSEC_PER_SEC);
	fair = share(0);
	fail_from_now(0, outage_ns);
	run(outage_ns);
	for (; s < 600; s += (double)SHARE_NS / 1e9) {
		run(SHARE_NS);
		if (share(0) >= 0.8 * fair)
			break;
	}
	finish();
	return s;
}

static void test_recovery(uint64_t seed)
{
	double brief = 0, lengthy = 0;

	for (unsigned i = 0; i < SEEDS; i++) {
		brief = fmax(brief, regains(seed + i, 30 * NSEC_PER_SEC));
		lengthy = fmax(lengthy, regains(seed + i, 600 * NSEC_PER_SEC));
	}
	sim_ok(brief <= 60, "after 30 s of errors a target has its share again in %.0f s", brief);
	/* The longest backoff, and the ramp. */
	sim_ok(lengthy <= 75, "after 10 min of errors, in %.0f s", lengthy);
}

static void test_replay(uint64_t seed)
{
	uint64_t hash[2];

	for (unsigned i = 0; i < 2; i++) {
		begin(seed, ROUTER_BALANCED, 2);
		fail_from_now(0, 60 * NSEC_PER_SEC);
		run(120 * NSEC_PER_SEC);
		hash[i] = sim.hash;
		finish();
	}
	sim_ok(hash[0] == hash[1], "a seed is a run");
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

	sim.program = "sim-traffic";
	test_fast_failures(seed);
	test_storm(seed);
	test_deaths_on_probes(seed);
	test_recovery(seed);
	test_replay(seed);
	return sim_done();
}
