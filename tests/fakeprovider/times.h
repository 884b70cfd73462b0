#pragma once

/* How often each script with times=N has been used, by a hash of what selected it. */

#include "tests/fakeprovider/provider.h"

/* FNV-1a, continued from hash (TIMES_HASH to begin). */
#define TIMES_HASH UINT64_C(14695981039346656037)
uint64_t times_hash(uint64_t hash, struct str s);

/* Counts one use; returns the uses before it. */
uint64_t times_use(struct provider *p, uint64_t hash);
void times_reset(struct provider *p);
