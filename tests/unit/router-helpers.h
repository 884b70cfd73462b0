#pragma once

/* What tests of targets, routes and estimates share: a region, targets with prices, and what was
 * learned of them set by hand. */

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/aux.h"
#include "shm/breaker.h"
#include "shm/ewma.h"
#include "shm/layout.h"
#include "shm/region.h"
#include "shm/router.h"
#include "shm/target.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/splitmix.h"

#define NOW (UINT64_C(1000) * NSEC_PER_SEC)

struct world {
	struct region r;
	struct router_candidate candidate[ROUTER_CANDIDATES];
	unsigned count;
	uint64_t now_ns, seed;
};

static inline void world_open(struct world *w, uint64_t seed)
{
	static const struct region_owner owner = { .pid = 1, .start = 1, .boot_id = { 1, 2 } };
	int fd = memfd_create("router", MFD_CLOEXEC);

	*w = (struct world){ .now_ns = NOW, .seed = seed };
	assert_true(fd >= 0);
	assert_int_equal(region_create(&w->r, fd, &owner, NULL, NOW, false), 0);
	close(fd);
}

static inline void world_close(struct world *w)
{
	region_detach(&w->r);
}

/* A candidate for a dollar per million tokens that can do everything. */
static inline struct target_config world_config(const char *name)
{
	return (struct target_config){
		.name = str_of(name),
		.provider = TARGET_NONE,
		.price_input = 1000000,
		.price_output = 1000000,
		.price_cached = -1,
		.capabilities = TARGET_CAPABILITIES,
		.available = true,
	};
}

static inline unsigned world_add(struct world *w, const struct target_config *config)
{
	struct router_candidate *c = &w->candidate[w->count];
	int row = target_configure(&w->r, config);

	assert_true(row >= 0);
	c->row = target_find(&w->r, config->name, &c->key);
	c->weight = 1;
	assert_int_equal((int)c->row, row);
	return w->count++;
}

static inline struct layout_target *world_row(struct world *w, unsigned i)
{
	return &w->r.target[w->candidate[i].row];
}

/* As if many calls had taken first_ms to the first token, the last right now. */
static inline void world_know(struct world *w, unsigned i, double first_ms, double gap_ms)
{
	struct layout_target *t = world_row(w, i);
	uint32_t ms = (uint32_t)(w->now_ns / NSEC_PER_MSEC);

	for (unsigned k = 0; k < TARGET_PROMPT_CLASSES; k++)
		t->first_token[k] = ewma_pack(ewma_ln((float)first_ms * 1000), ms);
	if (gap_ms > 0)
		t->gap = ewma_pack(ewma_ln((float)gap_ms * 1000), ms);
	t->samples = 1000;
	t->tried_ns = w->now_ns;
}

/* A known target of that latency and price (dollars per million tokens). */
static inline unsigned world_target(struct world *w, const char *name, double first_ms, double usd)
{
	struct target_config config = world_config(name);
	unsigned i;

	config.price_input = config.price_output = (int64_t)(usd * 1e6);
	i = world_add(w, &config);
	world_know(w, i, first_ms, 0);
	return i;
}

static inline struct router_query world_query(struct world *w, enum router_strategy strategy)
{
	return (struct router_query){
		.strategy = strategy,
		.weight_cost = 333,
		.weight_latency = 333,
		.weight_reliability = 333,
		.input_tokens = 100,
		.output_tokens = 100,
		.price_cap_nanousd = -1,
		.random = splitmix_next(&w->seed),
	};
}

static inline struct router_decision world_ask(struct world *w, const struct router_query *query)
{
	struct router_decision d;

	router_decide(&w->r, query, w->candidate, w->count, NULL, w->now_ns, &d);
	return d;
}

static inline struct router_decision world_decide(struct world *w, enum router_strategy strategy)
{
	struct router_query query = world_query(w, strategy);

	return world_ask(w, &query);
}

/* Where a candidate stands in a decision. */
static inline const struct router_choice *world_choice(const struct router_decision *d, unsigned i)
{
	for (unsigned p = 0; p < d->count; p++)
		if (d->choice[p].candidate == i)
			return &d->choice[p];
	fail_msg("candidate %u is not in the decision", i);
	return NULL;
}

static inline void world_outcome(struct world *w, unsigned i, bool ok, uint64_t first_ns)
{
	struct breaker_ticket ticket = { .row = w->candidate[i].row, .slot = BREAKER_NO_PROBE };
	struct breaker_report report = { ok ? BREAKER_OK : BREAKER_FAILED, first_ns };

	breaker_record(&w->r, &ticket, &report, w->now_ns, splitmix_next(&w->seed));
}

/* n candidates of any price, class and health. */
static inline void world_randomize(struct world *w, unsigned n)
{
	char name[16];

	for (unsigned i = 0; i < n; i++) {
		struct target_config c;
		struct layout_target *t;
		uint32_t ms = (uint32_t)(w->now_ns / NSEC_PER_MSEC);

		snprintf(name, sizeof(name), "t%u", i);
		c = world_config(name);
		c.price_input = (int64_t)splitmix_below(&w->seed, 30000000);
		c.price_output = (int64_t)splitmix_below(&w->seed, 30000000);
		c.price_cached = i % 2 ? -1 : c.price_input / 2;
		if (splitmix_below(&w->seed, 8) == 0)
			c.price_output = -1;
		c.context = splitmix_below(&w->seed, 4) ? 0 : 500;
		c.capabilities = splitmix_below(&w->seed, 4) ? TARGET_CAPABILITIES : TARGET_TOOLS;
		c.available = splitmix_below(&w->seed, 8) != 0;
		world_add(w, &c);
		t = world_row(w, i);
		t->samples = splitmix_below(&w->seed, 30);
		t->tried_ns = w->now_ns;
		t->pending = splitmix_below(&w->seed, 5);
		for (unsigned k = 0; k < TARGET_PROMPT_CLASSES; k++)
			t->first_token[k] =
				ewma_pack(10 + (float)splitmix_below(&w->seed, 6000) / 1000,
					ms - (uint32_t)splitmix_below(&w->seed, 40000));
		if (splitmix_below(&w->seed, 3))
			t->gap = ewma_pack(8 + (float)splitmix_below(&w->seed, 4000) / 1000, ms);
		for (uint64_t k = splitmix_below(&w->seed, 20); k > 0; k--)
			world_outcome(w, i, splitmix_below(&w->seed, 4) != 0, 0);
	}
}
