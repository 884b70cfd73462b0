#pragma once

/* Numbers as people read them. Each writes to out and returns it. */

#include <stddef.h>
#include <stdint.h>

#define UNITS_TEXT 32

/* "1.2 s", "350 ms", "2 d 3 h"; UINT64_MAX: "-". */
const char *units_duration(uint64_t ns, char out[UNITS_TEXT]);
/* "12.3k", "4.5M". */
const char *units_count(uint64_t n, char out[UNITS_TEXT]);
/* An amount of a limit: requests, tokens; money as "$1.25". resource: enum bucket_resource. */
const char *units_amount(uint64_t resource, uint64_t n, char out[UNITS_TEXT]);
/* "100/s", "400k/min", "64 at once", "$5/day", "$5/month". */
const char *units_rate(uint64_t resource, uint64_t limit, uint64_t window_ns, char out[UNITS_TEXT]);
