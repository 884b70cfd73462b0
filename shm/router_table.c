#include "shm/router.h"

#include <errno.h>
#include "base/aux.h"
#include "base/error.h"
#include "shm/layout.h"
#include "shm/name_table.h"

static_assert(ROUTER_CANDIDATES == LAYOUT_ROUTE_TARGETS, "targets of a route");
static_assert(offsetof(struct layout_route, key) == 0, "name_table wants the key first");

/* The daemon rewrites a route in nanoseconds; one that died doing so leaves it odd. */
#define READ_TRIES 16
#define WEIGHT_BITS 16
#define WEIGHT_MASK ((UINT64_C(1) << WEIGHT_BITS) - 1)

const char *router_strategy_name(uint64_t strategy)
{
	static const char *const name[ROUTER_STRATEGIES] = {
		[ROUTER_BALANCED] = "balanced",
		[ROUTER_COST] = "cost",
		[ROUTER_LATENCY] = "latency",
		[ROUTER_RELIABILITY] = "reliability",
		[ROUTER_ROUND_ROBIN] = "round_robin",
		[ROUTER_WEIGHTED] = "weighted",
		[ROUTER_ORDER] = "order",
	};

	return strategy < ROUTER_STRATEGIES ? name[strategy] : "unknown";
}

static struct name_table table_of(const struct region *r)
{
	return (struct name_table){
		.rows = r->route,
		.count = r->routes,
		.stride = sizeof(struct layout_route),
		.name_at = offsetof(struct layout_route, name),
	};
}

/* What is read between two loads of sequence is loaded with acquire and stored with release: see
 * layout_timebase. */
static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static void store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

static void write_route(struct layout_route *row, const struct router_route *route)
{
	store(&row->strategy, (uint64_t)route->strategy);
	store(&row->weights,
		(uint64_t)route->weight_cost << (2 * WEIGHT_BITS) |
			(uint64_t)route->weight_latency << WEIGHT_BITS | route->weight_reliability);
	store(&row->price_cap, (uint64_t)route->price_cap_nanousd);
	store(&row->patience_ns, route->patience_ns);
	store(&row->count, route->count);
	for (unsigned i = 0; i < route->count; i++)
		store(&row->target[i],
			(uint64_t)route->target[i].row << 32 | route->target[i].weight);
}

int router_configure(struct region *r, const struct router_route *route)
{
	struct name_table table = table_of(r);
	struct layout_route *at;
	uint64_t sequence;
	uint32_t row, spare;

	if (route->name.length >= LAYOUT_NAME_MAX)
		return error_origin(-ENAMETOOLONG);
	if (!name_table_fits(route->name) || route->count > ROUTER_CANDIDATES ||
		(uint64_t)route->strategy >= ROUTER_STRATEGIES)
		return error_origin(-EINVAL);
	row = name_table_find(&table, route->name, &spare);
	if (row == NAME_TABLE_NONE)
		row = spare;
	if (row == NAME_TABLE_NONE)
		return error_origin(-ENOSPC);
	at = &r->route[row];
	sequence = load(&at->sequence) | 1;
	store(&at->sequence, sequence);
	if (!name_table_is(&table, row, route->name)) {
		name_table_rename(&table, row, route->name);
		store(&at->turn, 0);
	}
	write_route(at, route);
	store(&at->sequence, sequence + 1);
	name_table_publish(&table, row, name_table_key(route->name));
	return (int)row;
}

void router_retire(struct region *r, const bool *keep)
{
	struct name_table table = table_of(r);

	name_table_retire(&table, keep);
}

/* Ranges are checked here: what a target's row is, target_is() checks. */
static bool read_words(const struct layout_route *row, struct router_route *out)
{
	uint64_t strategy = load(&row->strategy), weights = load(&row->weights);
	uint64_t count = load(&row->count);

	if (strategy >= ROUTER_STRATEGIES || count > ROUTER_CANDIDATES)
		return false;
	out->strategy = (enum router_strategy)strategy;
	out->weight_cost = (uint16_t)(weights >> (2 * WEIGHT_BITS) & WEIGHT_MASK);
	out->weight_latency = (uint16_t)(weights >> WEIGHT_BITS & WEIGHT_MASK);
	out->weight_reliability = (uint16_t)(weights & WEIGHT_MASK);
	out->price_cap_nanousd = (int64_t)load(&row->price_cap);
	out->patience_ns = load(&row->patience_ns);
	out->count = (unsigned)count;
	for (unsigned i = 0; i < out->count; i++) {
		uint64_t word = load(&row->target[i]);

		out->target[i].row = (uint32_t)(word >> 32);
		out->target[i].weight = (uint32_t)word;
	}
	return true;
}

bool router_view(const struct region *r, uint32_t row, struct router_route *out)
{
	struct name_table table = table_of(r);

	if (row >= r->routes)
		return false;
	for (int i = 0; i < READ_TRIES; i++) {
		uint64_t before = load(&r->route[row].sequence);
		uint64_t key = name_table_row_key(&table, row);
		bool sane;

		if (key < LAYOUT_KEY_FIRST)
			return false;
		if ((before & 1) != 0)
			continue;
		sane = read_words(&r->route[row], out);
		if (load(&r->route[row].sequence) != before)
			continue;
		out->name = name_table_name(&table, row);
		return sane;
	}
	return false;
}

bool router_find(
	const struct region *r, struct str name, struct router_route *out, shared_u64 **turn)
{
	struct name_table table = table_of(r);
	uint32_t row, spare;

	if (!name_table_fits(name))
		return false;
	row = name_table_find(&table, name, &spare);
	if (row == NAME_TABLE_NONE || !router_view(r, row, out))
		return false;
	if (turn)
		*turn = &r->route[row].turn;
	return true;
}
