/*
 * How much of what is allowed is used: clients that always want more, for an hour of virtual time
 * at a provider that counts requests when they arrive (up to 200 ms after they were sent), the
 * prompt then, and output as it is made or at the end, and that refuses when its own bucket is
 * full. Ours has 1 % less of everything. Shown: at least 98 % of what the provider allows is
 * used, and it never refuses; bound by requests, by tokens with max_tokens four times what is
 * used, and with estimates that were learned.
 *
 *     sim-saturation [--seed N]
 */

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "shm/estimate.h"
#include "shm/participant.h"
#include "tests/sim/budget.h"

enum {
	ACTORS = 500,
	MAX_TOKENS = 4096,
	FIRST_MS = 800, /* to the first */
	PARTS = 8,      /* that an answer is settled in */
};
#define MINUTE (60 * NSEC_PER_SEC)
#define WARM_NS (10 * MINUTE)
#define HOUR_NS (60 * MINUTE)
#define JITTER_NS (200 * NSEC_PER_MSEC)
#define POLL_NS (100 * NSEC_PER_MSEC)

enum { TRY, ARRIVE, PART, KINDS };
static const char *const names[KINDS] = { "tries", "arrives", "settles a part of" };

static const struct load {
	const char *name;
	uint64_t tokens, requests; /* the provider's, per minute */
	bool learned;              /* estimates, instead of max_tokens */
	bool late;                 /* output is counted at the end only */
	uint64_t gap_ms;           /* between tokens */
} loads[] = {
	{ "bound by requests", 60000000, 1500, true, false, 12 },
	{ "bound by tokens, max_tokens four times the use", 2500000, 60000, false, false, 12 },
	{ "slow answers, settled as they come", 1500000, 60000, false, false, 20 },
	{ "bound by tokens, counted at the end", 2500000, 60000, false, true, 12 },
	{ "bound by tokens, learned estimates", 2500000, 60000, true, false, 12 },
	{ "bound by tokens, learned estimates, counted at the end", 2500000, 60000, true, true,
		12 },
};

struct call {
	struct bucket_lease lease;
	uint64_t input, output, counted; /* tokens; counted of the output */
	uint64_t part_ns;
	unsigned part;
};

static struct {
	const struct load *load;
	struct region r;
	uint64_t owner;
	struct bucket_set set;
	struct meter requests, tokens;
	struct call call[ACTORS];
	uint64_t used_requests, used_tokens, refused; /* of the hour */
} s;

static uint64_t virtual_clock(void)
{
	return sim.now_ns;
}

static bool in_hour(void)
{
	return sim.now_ns >= SIM_START_NS + WARM_NS;
}

static bool has_room(const struct meter *m, uint64_t n)
{
	return m->level + (unsigned __int128)n * m->window_ns <=
		(unsigned __int128)m->burst * m->window_ns;
}

/* The provider looks when a request arrives; what it makes, it makes. */
static void on_arrive(unsigned who)
{
	struct call *c = &s.call[who];

	meter_leak(&s.requests, sim.now_ns);
	meter_leak(&s.tokens, sim.now_ns);
	if (!has_room(&s.requests, 1) || !has_room(&s.tokens, c->input))
		s.refused++;
	meter_count(&s.requests, 1, 0, sim.now_ns);
	meter_count(&s.tokens, c->input, 0, sim.now_ns);
	s.used_requests += in_hour();
	s.used_tokens += in_hour() ? c->input : 0;
	sim_push(sim.now_ns + FIRST_MS * NSEC_PER_MSEC + c->part_ns, PART, who, 0);
}

static void on_part(unsigned who)
{
	struct call *c = &s.call[who];
	uint64_t upto = c->output * ++c->part / PARTS, n = upto - c->counted;
	struct bucket_cost used = { 0, c->part == 1 ? c->input : 0, n, 0 };

	c->counted = upto;
	if (!s.load->late)
		meter_count(&s.tokens, n, 0, sim.now_ns);
	if (c->part < PARTS) {
		/* A provider that counts late tells of what it has not counted: nothing. */
		if (s.load->late)
			used.output_tokens = 0;
		bucket_progress(&s.r, &c->lease, &used, sim.now_ns);
		sim_push(sim.now_ns + c->part_ns, PART, who, 0);
		return;
	}
	if (s.load->late) {
		meter_count(&s.tokens, c->output, 0, sim.now_ns);
		used.output_tokens = c->output;
	}
	s.used_tokens += in_hour() ? c->output : 0;
	bucket_settle(&s.r, &c->lease, &used, sim.now_ns);
	estimate_learn(&s.r, str_of("m"), str_of("t"), c->output, sim.now_ns);
	sim_push(sim.now_ns, TRY, who, 0);
}

/* Output of 1024 tokens on average, lognormal, at most max_tokens. */
static void on_try(unsigned who)
{
	struct call *c = &s.call[who];
	struct bucket_cost cost = { .requests = 1 };
	struct bucket_verdict v;
	double output = 850 * exp(0.6 * sim_normal());

	c->input = sim_between(100, 900);
	c->output = output < MAX_TOKENS ? (uint64_t)output + 1 : MAX_TOKENS;
	c->counted = 0;
	c->part = 0;
	c->part_ns = c->output * s.load->gap_ms * NSEC_PER_MSEC / PARTS;
	cost.input_tokens = c->input + c->input / 10;
	cost.output_tokens = MAX_TOKENS;
	if (s.load->learned)
		cost.output_tokens =
			estimate_output(&s.r, str_of("m"), str_of("t"), MAX_TOKENS, MAX_TOKENS);
	v = bucket_lease(&s.r, s.owner, &s.set, &cost, sim.now_ns, &c->lease);
	if (v.outcome == BUCKET_OK)
		sim_push(sim.now_ns + sim_random(JITTER_NS), ARRIVE, who, 0);
	else if (v.outcome != BUCKET_E_WAIT)
		sim_fail("outcome %d", (int)v.outcome);
	else
		sim_push(sim.now_ns + (v.wait_ns < MINUTE ? max_u64(v.wait_ns, 1) : POLL_NS) +
				sim_random(POLL_NS / 10),
			TRY, who, 0);
}

static void add_limit(uint64_t scope, enum bucket_resource resource, const char *name,
	uint64_t limit, struct meter *m)
{
	struct bucket_limit ours = {
		.scope = scope,
		.resource = resource,
		.kind = bucket_kind_of(resource, false),
		.name = str_of(name),
		.limit = limit * 99 / 100,
		.window_ns = MINUTE,
		.burst = limit * 99 / 100,
	};

	*m = meter_make(limit, MINUTE, limit, sim.now_ns);
	if (bucket_configure(&s.r, &ours, sim.now_ns) < 0 ||
		!bucket_set_add(&s.set, &s.r, scope, resource, str_of(name)))
		sim_fail("no limit");
}

static void begin(const struct load *load)
{
	static const struct region_owner owner = { .pid = 1, .start = 1, .boot_id = { 1, 2 } };
	const struct region_sizes sizes = { 16, 1024, 2 };
	int fd = memfd_create("region", MFD_CLOEXEC), row;

	memset(&s, 0, sizeof(s));
	s.load = load;
	if (fd < 0 || region_create(&s.r, fd, &owner, &sizes, sim.now_ns, false) != 0)
		sim_fail("no region");
	close(fd);
	s.r.clock_ns = virtual_clock;
	row = participant_claim(&s.r, 100, 1, 0, sim.now_ns);
	s.owner = participant_owner(&s.r, (uint32_t)row);
	add_limit(BUCKET_SCOPE_MODEL, BUCKET_TOKENS, "m", load->tokens, &s.tokens);
	add_limit(BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, "p", load->requests, &s.requests);
	for (unsigned i = 0; i < ACTORS; i++)
		sim_push(sim.now_ns + sim_random(NSEC_PER_SEC), TRY, i, 0);
}

static void run(const struct load *load, uint64_t seed)
{
	double requests, tokens;
	struct sim_event e;

	sim_begin(seed, names);
	begin(load);
	while (sim_pop(&e) && e.at_ns < SIM_START_NS + WARM_NS + HOUR_NS) {
		sim.now_ns = e.at_ns;
		sim_note(e.kind, e.who, 0);
		if (e.kind == TRY)
			on_try(e.who);
		else if (e.kind == ARRIVE)
			on_arrive(e.who);
		else
			on_part(e.who);
	}
	requests = (double)s.used_requests / (double)(load->requests * 60);
	tokens = (double)s.used_tokens / (double)(load->tokens * 60);
	region_detach(&s.r);
	sim_ok(fmax(requests, tokens) >= 0.98,
		"%s: %.2f %% of requests, %.2f %% of tokens used in an hour", load->name,
		100 * requests, 100 * tokens);
	sim_ok(s.refused == 0 && fmax(requests, tokens) <= 1,
		"%s: the provider refused %llu times, with 1 %% headroom", load->name,
		(unsigned long long)s.refused);
}

int main(int argc, char **argv)
{
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

	sim.program = "sim-saturation";
	for (size_t i = 0; i < ARRAY_SIZE(loads); i++)
		run(&loads[i], seed);
	return sim_done();
}
