/*
 * A control region whose bytes somebody else wrote. The input is a list of edits, 12 bytes each
 * (where, what), on a valid region with a few limits; the first byte may also cut the file.
 * Attach and adopt may refuse; what they accept must be usable by every function without a fault.
 */

#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "shm/breaker.h"
#include "shm/bucket_follow.h"
#include "shm/bucket_table.h"
#include "shm/counters.h"
#include "shm/estimate.h"
#include "shm/event.h"
#include "shm/hold.h"
#include "shm/layout.h"
#include "shm/participant.h"
#include "shm/router.h"
#include "shm/target.h"
#include "shm/timebase.h"
#include "tests/unit/adopt.h"

#define NOW (UINT64_C(1000) * 1000000000)
#define EDIT_SIZE 12

static const struct region_owner owner = { .pid = 1, .start = 2, .boot_id = { 3, 4 } };
static const char *const names[] = { "alice", "bob", "gpt-5", "anthropic" };

static uint64_t virtual_clock(void)
{
	return NOW;
}

/* Every kind of limit, so that each is read with broken words. */
static const struct bucket_limit limits[] = {
	{ .scope = BUCKET_SCOPE_USER,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.limit = 10,
		.window_ns = NSEC_PER_SEC,
		.burst = 5 },
	{ .scope = BUCKET_SCOPE_MODEL,
		.resource = BUCKET_TOKENS,
		.kind = BUCKET_HELD,
		.limit = 1000,
		.window_ns = NSEC_PER_SEC,
		.burst = 5000 },
	{ .scope = BUCKET_SCOPE_PROVIDER,
		.resource = BUCKET_CONCURRENCY,
		.kind = BUCKET_GAUGE,
		.limit = 7,
		.burst = 7 },
	{ .scope = BUCKET_SCOPE_KEY,
		.resource = BUCKET_MONEY,
		.kind = BUCKET_WINDOW,
		.limit = 1000000,
		.window_ns = 86400 * NSEC_PER_SEC,
		.burst = 1000000 },
};

static void configure(struct region *r, struct bucket_set *set)
{
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		struct bucket_limit limit = limits[i];

		limit.name = str_of(names[i]);
		bucket_configure(r, &limit, NOW);
		bucket_set_add(set, r, limit.scope, limit.resource, limit.name);
	}
}

static uint32_t configure_targets(struct region *r)
{
	const struct breaker_settings settings = breaker_preset(BREAKER_PRODUCTION);
	struct target_config t = {
		.name = str_of("p"), .provider = TARGET_NONE, .available = true
	};
	struct router_route route = { .name = str_of("r"), .count = 2 };
	int row = target_configure(r, &t);

	if (row < 0)
		return TARGET_NONE;
	breaker_configure(r, (uint32_t)row, &settings);
	t.provider = (uint32_t)row;
	t.name = str_of("p/m");
	row = target_configure(r, &t);
	if (row < 0)
		return TARGET_NONE;
	breaker_configure(r, (uint32_t)row, &settings);
	route.target[0].row = (uint32_t)row;
	router_configure(r, &route);
	return (uint32_t)row;
}

/* Half of the edits go where they hurt: the header, and the rows in use. */
static size_t place(const struct region *good, const struct bucket_set *set, uint32_t where)
{
	uint32_t row = set->index[where >> 4 & 3];
	const char *base = good->map;

	switch (where & 7) {
	case 0:
	case 1:
		return (where >> 4) % sizeof(struct layout_header);
	case 2:
	case 3:
		return (size_t)((const char *)&good->bucket[row] - base) + (where >> 8) % 64;
	case 4:
		return (size_t)((const char *)&good->bucket_name[row] - base) +
			(where >> 8) % sizeof(struct layout_bucket_name);
	case 5:
		return (size_t)((const char *)good->target - base) +
			(where >> 8) % (2 * sizeof(struct layout_target));
	case 6:
		return (size_t)((const char *)good->breaker - base) +
			(where >> 8) % (2 * sizeof(struct layout_breaker));
	default:
		return (where >> 4) % good->size;
	}
}

static void edit(struct region *r, const struct bucket_set *set, const uint8_t *data, size_t size)
{
	for (; size >= EDIT_SIZE; data += EDIT_SIZE, size -= EDIT_SIZE) {
		uint32_t where;
		size_t at;

		memcpy(&where, data, sizeof(where));
		at = place(r, set, where) & ~(size_t)7;
		memcpy((char *)r->map + at, data + sizeof(where), 8);
	}
}

static bool nobody_lives(uint64_t pid, uint64_t start)
{
	return (pid ^ start) & 1;
}

static const struct bucket_cost cost = {
	.requests = 1, .input_tokens = 100, .output_tokens = 50, .nanousd = 1000
};

static void look_routing(const struct region *r)
{
	struct router_candidate candidates[ROUTER_CANDIDATES] = { 0 };
	struct router_query query = { .price_cap_nanousd = -1 };
	struct router_decision decision;
	struct router_route route;
	_Atomic uint64_t *turn = NULL;
	struct breaker_view breaker;
	struct target_view target;

	router_find(r, str_of("r"), &route, &turn);
	for (uint32_t i = 0; i < r->targets && i < ROUTER_CANDIDATES; i++) {
		candidates[i].row = i;
		target_view(r, i, &target);
		breaker_view(r, i, NOW, &breaker);
		target_paused(r, i, NOW);
	}
	candidates[0].row = target_find(r, str_of("p/m"), &candidates[0].key);
	candidates[1].row = target_find(r, str_of("p"), &candidates[1].key);
	for (int s = 0; s < ROUTER_STRATEGIES; s++) {
		query.strategy = (enum router_strategy)s;
		router_decide(r, &query, candidates, 4, NULL, NOW, &decision);
		FUZZ_CHECK(decision.count <= 4 && decision.usable <= decision.count);
		for (unsigned i = 0; i < decision.count; i++)
			FUZZ_CHECK(decision.choice[i].candidate < 4);
	}
}

static void look(const struct region *r, const struct bucket_set *set)
{
	struct participant_view participant;
	struct region_status status;
	struct estimate_view estimate;
	struct bucket_view view;
	struct hold_view hold;
	struct event event;
	uint64_t ns, ticket = 0;

	region_status(r, &status);
	timebase_convert(r, NOW, &ns);
	for (uint32_t i = 0; i < set->count; i++)
		bucket_view(r, set->index[i], NOW, &view);
	participant_view(r, r->participants - 1, &participant);
	for (int i = 0; i < COUNTERS; i++)
		(void)counter_read(r, (enum counter)i);
	bucket_peek(r, set, &cost, NOW);
	hold_view(r, 0, &hold);
	estimate_view(r, 0, &estimate);
	estimate_output(r, str_of("m"), str_of("t"), 0, 1);
	for (int i = 0; i < 4; i++)
		event_next(r, &ticket, &event);
	look_routing(r);
}

/* As a client: leases, breakers, learning. */
static void use_client(struct region *r, const struct bucket_set *set, uint64_t me)
{
	const struct target_sample sample = { 100, NSEC_PER_SEC, NSEC_PER_MSEC };
	struct breaker_report report = { .first_token_ns = NSEC_PER_SEC };
	struct bucket_lease lease = { 0 };
	struct breaker_ticket ticket;
	uint64_t wait_ns;

	for (uint64_t i = 0; i < 8; i++) {
		struct bucket_verdict v = bucket_acquire(r, set, 1 + i, NOW + i);

		FUZZ_CHECK(v.outcome <= BUCKET_E_BUSY);
		bucket_give_back(r, set, 1 + i, NOW + i, NOW + 2 * i);
		v = bucket_lease(r, me, set, &cost, NOW + i, &lease);
		if (v.outcome != BUCKET_OK)
			v = bucket_borrow(r, me, set, &cost, NOW + i, NSEC_PER_SEC, &lease);
		if (v.outcome == BUCKET_OK && i % 2)
			bucket_settle(r, &lease, &cost, NOW + i);
		else if (v.outcome == BUCKET_OK)
			bucket_cancel(r, &lease, NOW + i);
		for (uint32_t row = 0; row < 2; row++) {
			breaker_allow(r, row, me, NOW + i, i, &ticket, &wait_ns);
			report.outcome = (enum breaker_outcome)(i % 4);
			breaker_record(r, &ticket, &report, NOW + i, i);
			target_learn(r, row, &sample, NOW + i);
			target_pause(r, row, NOW + i, NOW);
		}
	}
	bucket_follow(r, set, BUCKET_TOKENS, BUCKET_SPAN_MINUTE, 50, 10, NOW);
	bucket_pause_set(r, set, NOW + 1, NOW);
	estimate_learn(r, str_of("m"), str_of("t"), 100, NOW);
}

/* As the daemon: whatever there is, it goes on, and what it configures anew holds. */
static void use(struct region *r, const struct bucket_set *set)
{
	const struct bucket_names names_of = { .user = str_of("new") };
	struct bucket_limit template = limits[0];
	struct bucket_set fresh = { 0 };
	int row;

	r->clock_ns = virtual_clock;
	row = participant_claim(r, 5, 6, 7, NOW);
	use_client(r, set, row < 0 ? 0 : participant_owner(r, (uint32_t)row));
	adopt_participants(r, nobody_lives, NOW);
	hold_reap_strays(r, NOW);
	hold_audit(r);
	breaker_tell(r, NOW);
	bucket_roll(r, NOW, NOW);
	template.name = STR_NULL;
	bucket_set_templates(r, &template, 1, NOW);
	bucket_instantiate(r, &names_of, NOW);
	configure_targets(r);
	configure(r, &fresh);
	look(r, &fresh);
	FUZZ_CHECK(fresh.count == ARRAY_SIZE(names));
	fresh.count = 0;
	fresh.held = 0;
	for (uint32_t i = 0; i < r->buckets; i++)
		bucket_unpause(r, i);
	FUZZ_CHECK(bucket_set_add(&fresh, r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of(names[0])));
	for (int i = 0; i < 5; i++)
		bucket_acquire(r, &fresh, 1, NOW);
	FUZZ_CHECK(bucket_acquire(r, &fresh, 1, NOW).outcome != BUCKET_OK);
}

/* Small tables: all of them are compared after every run. */
static const struct region_sizes sizes = { .limits = 64, .holds = 32, .targets = 8 };

/* One valid region and a copy of its bytes, made once: making it costs more than a run. */
struct original {
	int fd;
	struct region r;
	struct bucket_set set;
	char *bytes;
};

static struct original *original(void)
{
	static struct original o;

	if (o.bytes)
		return &o;
	o.fd = memfd_create("fuzz", MFD_CLOEXEC);
	o.bytes = malloc(region_total_size(&sizes));
	FUZZ_CHECK(o.bytes && region_create(&o.r, o.fd, &owner, &sizes, NOW, false) == 0);
	o.r.clock_ns = virtual_clock;
	configure(&o.r, &o.set);
	configure_targets(&o.r);
	memcpy(o.bytes, o.r.map, o.r.size);
	return &o;
}

static void restore(struct original *o)
{
	FUZZ_CHECK(ftruncate(o->fd, (off_t)o->r.size) == 0);
	for (size_t at = 0; at < o->r.size; at += LAYOUT_PAGE)
		if (memcmp((char *)o->r.map + at, o->bytes + at, LAYOUT_PAGE) != 0)
			memcpy((char *)o->r.map + at, o->bytes + at, LAYOUT_PAGE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct original *o = original();
	struct region r = REGION_NULL;

	if (size == 0)
		return 0;
	edit(&o->r, &o->set, data + 1, size - 1);
	if ((data[0] & 7) == 1)
		FUZZ_CHECK(ftruncate(o->fd, data[0] * LAYOUT_PAGE) == 0);
	if (region_attach(&r, o->fd, false, NULL) == 0)
		look(&r, &o->set);
	region_detach(&r);
	if (region_adopt(&r, o->fd, &owner, NOW) == 0)
		use(&r, &o->set);
	region_detach(&r);
	restore(o);
	return 0;
}

/* Zeros in each word of a bucket in use, and in each of the header. */
bool fuzz_example(unsigned n, struct buffer *out)
{
	uint32_t where = n < 8 ? n * 8 << 8 | 2 : (n - 8) * 8 << 4;
	uint8_t input[1 + EDIT_SIZE] = { 0 };

	memcpy(input + 1, &where, sizeof(where));
	return n < 8 + sizeof(struct layout_header) / 8 &&
		buffer_append(out, input, sizeof(input)) == 0;
}
