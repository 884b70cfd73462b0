#include "daemon/demand.h"

#include "base/aux.h"

#define DEMAND_NONE UINT32_MAX

void demand_forget(struct demand *d)
{
	*d = (struct demand){ 0 };
}

/* What an operator opened stays open: nobody tries it, so it would be the first to go. */
static bool demand_is_idle(
	const struct region *region, uint32_t row, const struct target_view *v, uint64_t now_ns)
{
	struct breaker_view b;

	return v->pending == 0 && v->pause_ns <= now_ns &&
		!(breaker_view(region, row, now_ns, &b) && b.forced);
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
		if (!target_view(region, d->made[i].row, &v) || v.tried_ns >= oldest_ns ||
			!demand_is_idle(region, d->made[i].row, &v, now_ns))
			continue;
		oldest_ns = v.tried_ns;
		oldest = i;
	}
	return oldest;
}

bool demand_make(struct demand *d, struct region *region, const struct target_config *target,
	const struct breaker_settings *breaker, uint64_t now_ns)
{
	uint32_t at = demand_place(d, region, now_ns);
	struct target_config own = *target;
	int row;

	if (at == DEMAND_NONE)
		return false;
	if (target_is(region, d->made[at].row, d->made[at].key))
		target_retire_one(region, d->made[at].row);
	own.available = target_is_available(region, target->provider);
	row = target_configure(region, &own);
	if (row < 0)
		return false;
	breaker_configure(region, (uint32_t)row, breaker);
	d->made[at].row = (uint32_t)row;
	target_find(region, target->name, &d->made[at].key);
	return true;
}
