#include "tests/crash/world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/aux.h"
#include "shm/breaker_word.h"
#include "shm/layout.h"
#include "shm/target.h"

#define DAY_NS (86400 * NSEC_PER_SEC)
#define START_NS (100 * DAY_NS)
#define MONEY_LIMIT 6000000
#define USER_SLOTS 2
#define PROVIDER_SLOTS 7
#define PROBES 2

struct world world;
const char *world_what = "";

#define NOTES 24
static struct {
	const char *what;
	unsigned actor, dies_at;
	bool lived;
} notes[NOTES];
static unsigned noted;

void world_note(const char *what, unsigned actor, unsigned dies_at, bool lived)
{
	notes[noted % NOTES].what = what;
	notes[noted % NOTES].actor = actor;
	notes[noted % NOTES].dies_at = dies_at;
	notes[noted++ % NOTES].lived = lived;
}

_Noreturn void world_fail(const char *why)
{
	for (unsigned i = noted > NOTES ? noted - NOTES : 0; i < noted; i++)
		printf("# actor %u: %s, %s%u\n", notes[i % NOTES].actor, notes[i % NOTES].what,
			notes[i % NOTES].lived ? "lived past " : "died at ",
			notes[i % NOTES].dies_at);
	printf("not ok - %s: %s\n", world_what, why);
	fflush(stdout);
	abort();
}

static __attribute__((noinline)) void require(bool good, const char *why)
{
	if (!good)
		world_fail(why);
}

/* ---- the provider ---- */

static void meter_set(struct meter *m, uint64_t per_second, uint64_t burst)
{
	*m = (struct meter){ 0, per_second, NSEC_PER_SEC, burst, world.now_ns };
}

static void meter_counts(struct meter *m, uint64_t units, const char *why)
{
	unsigned __int128 leak = (unsigned __int128)(world.now_ns - m->last_ns) * m->limit;

	m->level =
		(m->level > leak ? m->level - leak : 0) + (unsigned __int128)units * m->window_ns;
	m->last_ns = world.now_ns;
	require(m->level <= (unsigned __int128)m->burst * m->window_ns, why);
}

void world_sent(struct flight *f)
{
	f->booked = false;
	meter_counts(&world.user[f->user], 1, "too many requests of a user");
	meter_counts(&world.model, 1, "too many requests of the model");
	meter_counts(&world.provider, 1, "too many requests of the provider");
}

static uint64_t part_of(uint64_t *left, unsigned sixteenths)
{
	uint64_t part = (*left * sixteenths + 15) / 16;

	*left -= part;
	return part;
}

void world_counts(struct flight *f, unsigned sixteenths)
{
	uint64_t input = part_of(&f->left.input_tokens, sixteenths);
	uint64_t output = part_of(&f->left.output_tokens, sixteenths);
	uint64_t day = world.now_ns / DAY_NS;

	meter_counts(&world.tokens, input + output, "too many tokens");
	meter_counts(&world.output, output, "too many output tokens");
	if (day != world.day)
		world.spent = 0;
	world.day = day;
	world.spent += part_of(&f->left.nanousd, sixteenths);
	require(world.spent <= MONEY_LIMIT, "too much money");
}

/* ---- set up ---- */

struct bucket_names world_names(unsigned user)
{
	static const char *const users[WORLD_USERS] = { "u0", "u1", "u2", "u3", "u4" };

	return (struct bucket_names){ str_of(users[user]), str_of("m"), str_of("p"), STR_NULL };
}

static struct bucket_limit limit_of(uint64_t scope, enum bucket_resource resource, const char *name,
	uint64_t limit, uint64_t burst)
{
	enum bucket_kind kind = bucket_kind_of(resource, false);
	uint64_t window = kind == BUCKET_GAUGE ? 0 : kind == BUCKET_WINDOW ? DAY_NS : NSEC_PER_SEC;

	return (struct bucket_limit){ .scope = scope,
		.resource = resource,
		.kind = kind,
		.name = str_of(name),
		.limit = limit,
		.window_ns = window,
		.burst = burst };
}

void world_configure(bool tight)
{
	unsigned by = tight ? 2 : 1;
	const struct bucket_limit limits[] = {
		limit_of(BUCKET_SCOPE_PROVIDER, BUCKET_REQUESTS, "p", 1000 / by, 8 / by),
		limit_of(BUCKET_SCOPE_PROVIDER, BUCKET_TOKENS, "p", 100000 / by, 1000 / by),
		limit_of(BUCKET_SCOPE_PROVIDER, BUCKET_CONCURRENCY, "p", PROVIDER_SLOTS,
			PROVIDER_SLOTS),
		limit_of(BUCKET_SCOPE_PROVIDER, BUCKET_MONEY, "p", MONEY_LIMIT, MONEY_LIMIT),
		limit_of(BUCKET_SCOPE_MODEL, BUCKET_REQUESTS, "m", 700, 6 / by),
		limit_of(BUCKET_SCOPE_MODEL, BUCKET_OUTPUT_TOKENS, "m", 70000 / by, 600),
	};
	const struct bucket_limit templates[] = {
		limit_of(BUCKET_SCOPE_USER, BUCKET_REQUESTS, "", 300, 4),
		limit_of(BUCKET_SCOPE_USER, BUCKET_CONCURRENCY, "", USER_SLOTS, USER_SLOTS),
	};

	for (size_t i = 0; i < ARRAY_SIZE(limits); i++)
		require(bucket_configure(&world.r, &limits[i], world.now_ns) >= 0,
			"a limit is not made");
	require(bucket_set_templates(&world.r, templates, ARRAY_SIZE(templates), world.now_ns) == 0,
		"templates are not set");
}

static uint64_t world_clock(void)
{
	return world.now_ns;
}

static void start_meters(void)
{
	for (unsigned i = 0; i < WORLD_USERS; i++)
		meter_set(&world.user[i], 300, 4);
	meter_set(&world.model, 700, 6);
	meter_set(&world.provider, 1000, 8);
	meter_set(&world.tokens, 100000, 1000);
	meter_set(&world.output, 70000, 600);
	world.day = world.now_ns / DAY_NS;
	world.spent = 0;
}

static void start_targets(void)
{
	static const char *const names[WORLD_TARGETS] = { "p", "p/m" };
	struct breaker_settings settings = { .run = 3,
		.probes = PROBES,
		.need = 2,
		.window_s = 10,
		.lease_ms = 500,
		.base_ms = 100,
		.cap_ms = 1000 };

	uint32_t provider = TARGET_NONE;

	for (unsigned i = 0; i < WORLD_TARGETS; i++) {
		const struct target_config config = { .name = str_of(names[i]),
			.provider = provider,
			.price_input = -1,
			.price_output = -1,
			.price_cached = -1,
			.available = true };
		int row = target_configure(&world.r, &config);

		require(row >= 0, "a target is not made");
		provider = (uint32_t)row;
		breaker_init(&world.r, (uint32_t)row, &settings);
	}
}

void world_open(uint64_t seed)
{
	static const struct region_owner owner = { .pid = 1, .start = 1, .boot_id = { 1, 2 } };
	const struct region_sizes sizes = { WORLD_ROWS, WORLD_HOLDS, WORLD_TARGETS };
	int fd = memfd_create("region", 0);
	void *leases = mmap(WORLD_LEASES, 4096, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	memset(&world, 0, sizeof(world));
	world.seed = seed;
	world.now_ns = START_NS;
	require(leases == WORLD_LEASES && fd >= 0 &&
			region_create(&world.r, fd, &owner, &sizes, START_NS, false) == 0,
		"no region");
	world.fd = fd;
	world.r.clock_ns = world_clock;
	/* Shorter, so that looking through them is not most of what can be cut off. */
	world.r.participants = WORLD_PARTICIPANTS;
	world.r.templates = WORLD_TEMPLATES;
	world_configure(false);
	start_targets();
	start_meters();
	bucket_roll(&world.r, world.now_ns, world.now_ns);
}

void world_close(void)
{
	region_detach(&world.r);
	close(world.fd);
}

/* ---- saving ---- */

static struct {
	struct world world;
	struct layout_bucket bucket[WORLD_ROWS];
	struct layout_bucket_name bucket_name[WORLD_ROWS];
	struct layout_hold hold[WORLD_HOLDS];
	struct layout_target target[WORLD_TARGETS];
	struct layout_breaker breaker[WORLD_TARGETS];
	struct layout_participant participant[WORLD_PARTICIPANTS];
} saved;

void world_save(void)
{
	const struct region *r = &world.r;

	memcpy(&saved.world, &world, sizeof(world));
	memcpy(saved.bucket, r->bucket, sizeof(saved.bucket));
	memcpy(saved.bucket_name, r->bucket_name, sizeof(saved.bucket_name));
	memcpy(saved.hold, r->hold, sizeof(saved.hold));
	memcpy(saved.target, r->target, sizeof(saved.target));
	memcpy(saved.breaker, r->breaker, sizeof(saved.breaker));
	memcpy(saved.participant, r->participant, sizeof(saved.participant));
}

void world_restore(void)
{
	const struct region *r = &world.r;

	memcpy(&world, &saved.world, sizeof(world));
	memcpy(r->bucket, saved.bucket, sizeof(saved.bucket));
	memcpy(r->bucket_name, saved.bucket_name, sizeof(saved.bucket_name));
	memcpy(r->hold, saved.hold, sizeof(saved.hold));
	memcpy(r->target, saved.target, sizeof(saved.target));
	memcpy(r->breaker, saved.breaker, sizeof(saved.breaker));
	memcpy(r->participant, saved.participant, sizeof(saved.participant));
}

/* ---- time ---- */

static struct flight *next_to_send(uint64_t until_ns)
{
	struct flight *next = NULL;

	for (unsigned i = 0; i < WORLD_ACTORS * WORLD_FLIGHTS; i++) {
		struct flight *f = &world.actor[i / WORLD_FLIGHTS].flight[i % WORLD_FLIGHTS];

		if (f->state == FLIGHT_ON && f->booked && f->send_ns <= until_ns &&
			(!next || f->send_ns < next->send_ns))
			next = f;
	}
	return next;
}

void world_advance(uint64_t ns)
{
	uint64_t until = world.now_ns + ns;
	struct flight *f;

	while ((f = next_to_send(until))) {
		world.now_ns = max_u64(world.now_ns, f->send_ns);
		world_sent(f);
	}
	world.now_ns = until;
}

/* ---- checks ---- */

static const struct flight *flight_at(unsigned i)
{
	return &world.actor[i / WORLD_FLIGHTS].flight[i % WORLD_FLIGHTS];
}

static bool is_probe(const struct flight *f)
{
	return f->state != FLIGHT_NONE && f->ticketed && f->ticket.slot != BREAKER_NO_PROBE;
}

/* Probes of other generations of the breaker are late, not too many. */
static unsigned probes_with(const struct flight *f)
{
	unsigned n = 0;

	for (unsigned i = 0; i < WORLD_ACTORS * WORLD_FLIGHTS; i++) {
		const struct flight *o = flight_at(i);

		n += is_probe(o) && o->ticket.row == f->ticket.row &&
			breaker_ticket_generation(o->ticket.word) ==
				breaker_ticket_generation(f->ticket.word);
	}
	return n;
}

void world_check_use(void)
{
	unsigned slots[WORLD_USERS] = { 0 }, all = 0;

	for (unsigned i = 0; i < WORLD_ACTORS * WORLD_FLIGHTS; i++) {
		const struct flight *f = flight_at(i);

		if (f->state == FLIGHT_NONE)
			continue;
		all++;
		require(++slots[f->user] <= USER_SLOTS, "too many at once of a user");
		if (is_probe(f))
			require(probes_with(f) <= PROBES, "too many probes");
	}
	require(all <= PROVIDER_SLOTS, "too many at once of the provider");
}

static const struct flight *flight_of(uint32_t hold, uint64_t owner)
{
	for (unsigned i = 0; i < WORLD_ACTORS * WORLD_FLIGHTS; i++) {
		const struct flight *f = flight_at(i);

		if (f->state == FLIGHT_ON && f->lease.hold == hold && f->lease.owner == owner)
			return f;
	}
	return NULL;
}

void world_check_still(void)
{
	const struct region *r = &world.r;
	uint64_t held[WORLD_ROWS] = { 0 }, pending[WORLD_TARGETS] = { 0 };
	bool closed;

	for (uint32_t i = 0; i < WORLD_HOLDS; i++) {
		struct hold_view v;

		if (!hold_view(r, i, &v))
			continue;
		require(flight_of(i, hold_owner(v.participant, v.generation)),
			"a hold is nobody's");
		require(!v.pending, "a hold is amid a move");
		for (unsigned e = 0; e < v.count; e++) {
			if (v.entry[e].total >= LAYOUT_TOTAL_TARGET)
				pending[v.entry[e].total - LAYOUT_TOTAL_TARGET] += v.entry[e].units;
			else
				held[v.entry[e].total - 1] += v.entry[e].units;
		}
	}
	for (unsigned i = 0; i < WORLD_ACTORS * WORLD_FLIGHTS; i++) {
		const struct flight *f = flight_at(i);
		struct hold_view v;

		if (f->state == FLIGHT_ON)
			require(hold_view(r, f->lease.hold, &v), "a flight has lost its hold");
	}
	for (uint32_t i = 0; i < WORLD_ROWS; i++)
		require(hold_total_units(r->bucket[i].held, &closed) == held[i] || closed,
			"a limit's total is not what is held");
	for (uint32_t i = 0; i < WORLD_TARGETS; i++)
		require(hold_total_units(r->target[i].pending, &closed) == pending[i],
			"a target's total is not what is held");
}

static unsigned __int128 left_of(enum bucket_resource resource)
{
	unsigned __int128 sum = 0;

	for (unsigned i = 0; i < WORLD_ACTORS * WORLD_FLIGHTS; i++) {
		const struct bucket_cost *left = &flight_at(i)->left;

		if (flight_at(i)->state == FLIGHT_NONE)
			continue;
		sum += resource == BUCKET_TOKENS ? left->input_tokens + left->output_tokens :
			resource == BUCKET_OUTPUT_TOKENS ? left->output_tokens :
							   0;
	}
	return sum;
}

static struct meter *meter_of(const struct bucket_view *v)
{
	if (v->resource == BUCKET_TOKENS)
		return &world.tokens;
	if (v->resource == BUCKET_OUTPUT_TOKENS)
		return &world.output;
	if (v->resource != BUCKET_REQUESTS)
		return NULL;
	if (v->scope == BUCKET_SCOPE_USER)
		return &world.user[v->name[1] - '0'];
	return v->scope == BUCKET_SCOPE_MODEL ? &world.model : &world.provider;
}

void world_check_room(void)
{
	struct bucket_view v;

	for (uint32_t i = 0; i < WORLD_ROWS; i++) {
		struct meter *m;

		if (!bucket_view(&world.r, i, world.now_ns, &v) || !(m = meter_of(&v)))
			continue;
		meter_counts(m, 0, "nothing");
		require((v.available + left_of(v.resource)) * m->window_ns + m->level <=
				(unsigned __int128)m->burst * m->window_ns,
			"a limit has more room than the provider");
	}
}

void world_check_empty(void)
{
	struct bucket_view v;
	struct breaker_view b;

	world_check_still();
	world_advance(3600 * NSEC_PER_SEC);
	for (uint32_t i = 0; i < WORLD_ROWS; i++) {
		if (!bucket_view(&world.r, i, world.now_ns, &v))
			continue;
		require(v.held == 0, "something is held");
		if (v.kind == BUCKET_RATE || v.kind == BUCKET_HELD)
			require(v.owed == 0 && v.available == v.burst, "a debt does not leak");
		if (v.kind == BUCKET_GAUGE)
			require(v.available == v.burst, "a slot is lost");
	}
	for (uint32_t i = 0; i < WORLD_TARGETS; i++)
		require(breaker_view(&world.r, i, world.now_ns, &b) && b.probes_out == 0,
			"a probe is lost");
}
