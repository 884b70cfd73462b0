#pragma once

/*
 * Time to first token of one target over the last minute, as six histograms of ten seconds each
 * that expire by themselves. Log-linear after the idea of HdrHistogram: eight cells per doubling
 * from 1.024 ms to 18 minutes; what is read back is the middle of a cell, at most 1/17 (6 %) off.
 *
 * Rows are those of the targets; one out of range has no samples. Lock-free, thread- and
 * process-safe, bounded; nothing fails. When a histogram begins anew, samples of the same
 * nanoseconds may be lost. Times are CLOCK_BOOTTIME.
 */

#include <stdint.h>
#include "shm/region.h"

void latency_record(const struct region *r, uint32_t row, uint64_t us, uint64_t now_ns);

/* The time in us that percent (0 to 100) of the last minute's samples do not exceed; 0: there are
 * none. */
uint64_t latency_percentile(const struct region *r, uint32_t row, double percent, uint64_t now_ns);

/* How many samples the last minute has. */
uint64_t latency_count(const struct region *r, uint32_t row, uint64_t now_ns);

/* Forgets all. */
void latency_reset(const struct region *r, uint32_t row);
