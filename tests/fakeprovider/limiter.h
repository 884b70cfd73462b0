#pragma once

/*
 * The provider's own limiter, the oracle of the tests: GCRA per API key, exact. Times are kept
 * in units of 1/count ns, so that no rate is rounded; one admission costs period_ns units.
 * Never admits more than burst + rate * t in any window of t.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct limiter {
	uint64_t count, period_ns, burst; /* count per period; count 0 admits all */
	struct limiter_entry *entries;    /* open addressing, a power of two */
	size_t used, size;
};

struct limiter_verdict {
	bool admitted;
	uint64_t limit;     /* the burst */
	uint64_t remaining; /* admissions left right now */
	uint64_t wait_ns;   /* when refused: until one would be admitted, rounded up */
	uint64_t reset_ns;  /* until the bucket is full again */
};

/* "N/s" or "N/min"; -EINVAL when it is neither. A burst of 0 means count. */
int limiter_init(struct limiter *l, const char *rate, uint64_t burst);
void limiter_deinit(struct limiter *l);

/* Forgets every key: full buckets again. */
void limiter_reset(struct limiter *l);

/* key is a hash of the API key; 0, or -ENOMEM. */
int limiter_admit(struct limiter *l, uint64_t key, uint64_t now_ns, struct limiter_verdict *v);
