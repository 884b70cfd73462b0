#include "daemon/demand.h"

#include <string.h>
#include "base/aux.h"

#define DEMAND_NONE UINT32_MAX

void demand_forget(struct demand *d)
{
	*d = (struct demand){ 0 };
}

/* Retires this row alone. */
static bool demand_evict(struct region *region, uint32_t row)
{
	aux_cleanup(freep) bool *keep = malloc(region->targets * sizeof(*keep));

	if (!keep)
		return false;
	memset(keep, true, region->targets * sizeof(*keep));
	keep[row] = false;
	target_retire(region, keep);
	return true;
}

static bool demand_is_idle(const struct target_view *v, uint64_t now_ns)
{
	return v->pending == 0 && v->pause_ns <= now_ns;
}

/* A place that is not in use, or the one that may be used again; DEMAND_NONE: neither. */
static uint32_t demand_place(const struct demand *d, const struct region *region, uint64_t now_ns)
{
	uint32_t max = (uint32_t)min_u64(DEMAND_ROWS, region->targets / 4), oldest = DEMAND_NONE;
	uint64_t oldest_ns = UINT64_MAX;
	struct target_view v;

	for (uint32_t i = 0; i < max; i++) {
		if (!target_is(region, d->made[i].row, d->made[i].key))
			return i;
		if (!target_view(region, d->made[i].row, &v) || !demand_is_idle(&v, now_ns) ||
			v.tried_ns >= oldest_ns)
			continue;
		oldest_ns = v.tried_ns;
		oldest = i;
	}
	return oldest;
}

static bool demand_is_available(const struct region *region, uint32_t provider)
{
	struct target_view v;

	return target_view(region, provider, &v) && v.available;
}

bool demand_make(struct demand *d, struct region *region, const struct target_config *target,
	const struct breaker_settings *breaker, uint64_t now_ns)
{
	uint32_t at = demand_place(d, region, now_ns);
	struct target_config own = *target;
	int row;

	if (at == DEMAND_NONE)
		return false;
	if (target_is(region, d->made[at].row, d->made[at].key) &&
		!demand_evict(region, d->made[at].row))
		return false;
	own.available = demand_is_available(region, target->provider);
	row = target_configure(region, &own);
	if (row < 0)
		return false;
	breaker_configure(region, (uint32_t)row, breaker);
	d->made[at].row = (uint32_t)row;
	target_find(region, target->name, &d->made[at].key);
	return true;
}
