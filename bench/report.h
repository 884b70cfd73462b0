#pragma once

/*
 * What benchmarks print: one JSON object a line, {"bench":..,"metric":..,"value":..,"unit":..},
 * the median where there were several runs.
 */

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

static inline void report_value(
	const char *bench, const char *metric, double value, const char *unit)
{
	printf("{\"bench\":\"%s\",\"metric\":\"%s\",\"value\":%.6g,\"unit\":\"%s\"}\n", bench,
		metric, value, unit);
	fflush(stdout);
}

static inline int report_order(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts the samples; count >= 1. */
static inline double report_median_of(double *samples, size_t count)
{
	qsort(samples, count, sizeof(*samples), report_order);
	return count % 2 ? samples[count / 2] : (samples[count / 2 - 1] + samples[count / 2]) / 2;
}

static inline void report_median(
	const char *bench, const char *metric, double *samples, size_t count, const char *unit)
{
	report_value(bench, metric, report_median_of(samples, count), unit);
}
