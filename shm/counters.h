#pragma once

/*
 * Named counters in the region, from one table (shm/tbl/counters.h). The daemon adds, anyone
 * reads. Relaxed: a reader sees each counter whole, not the group at one instant.
 */

#include <stdatomic.h>
#include <stdint.h>
#include "shm/region.h"

enum counter {
#define COUNTER(name_, unit_, help_) COUNTER_##name_,
#include "shm/tbl/counters.h"
#undef COUNTER
	COUNTERS
};

static inline void counter_add(const struct region *r, enum counter c, uint64_t n)
{
	atomic_fetch_add_explicit(&r->counter[c], n, memory_order_relaxed);
}

/* For gauges such as requests_active. */
static inline void counter_sub(const struct region *r, enum counter c, uint64_t n)
{
	atomic_fetch_sub_explicit(&r->counter[c], n, memory_order_relaxed);
}

static inline uint64_t counter_read(const struct region *r, enum counter c)
{
	return atomic_load_explicit(&r->counter[c], memory_order_relaxed);
}

const char *counter_name(enum counter c);
const char *counter_unit(enum counter c);
const char *counter_help(enum counter c);
