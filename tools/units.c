#include "tools/units.h"

#include <stdio.h>
#include "base/aux.h"
#include "base/clock.h"
#include "shm/bucket.h"

#define DAY_S 86400

const char *units_duration(uint64_t ns, char out[UNITS_TEXT])
{
	double s = (double)ns / 1e9;
	unsigned long long whole = ns / NSEC_PER_SEC;

	if (ns == UINT64_MAX)
		snprintf(out, UNITS_TEXT, "-");
	else if (ns == 0)
		snprintf(out, UNITS_TEXT, "0 s");
	else if (ns < NSEC_PER_MSEC)
		snprintf(out, UNITS_TEXT, "%.0f us", s * 1e6);
	else if (ns < NSEC_PER_SEC)
		snprintf(out, UNITS_TEXT, "%.0f ms", s * 1e3);
	else if (whole < 60)
		snprintf(out, UNITS_TEXT, "%.1f s", s);
	else if (whole < 3600)
		snprintf(out, UNITS_TEXT, "%llu m %llu s", whole / 60, whole % 60);
	else if (whole < DAY_S)
		snprintf(out, UNITS_TEXT, "%llu h %llu m", whole / 3600, whole % 3600 / 60);
	else
		snprintf(out, UNITS_TEXT, "%llu d %llu h", whole / DAY_S, whole % DAY_S / 3600);
	return out;
}

const char *units_count(uint64_t n, char out[UNITS_TEXT])
{
	static const char *const suffix[] = { "", "k", "M", "G", "T" };
	double value = (double)n;
	size_t i = 0;

	/* What would be written as 1000. */
	while (value >= 999.5 && i + 1 < ARRAY_SIZE(suffix)) {
		value /= 1000;
		i++;
	}
	snprintf(out, UNITS_TEXT, i && value < 100 ? "%.3g%s" : "%.0f%s", value, suffix[i]);
	return out;
}

const char *units_amount(uint64_t resource, uint64_t n, char out[UNITS_TEXT])
{
	if (resource != BUCKET_MONEY)
		return units_count(n, out);
	snprintf(out, UNITS_TEXT, n != 0 && n < 10000000 ? "$%.6f" : "$%.2f", (double)n / 1e9);
	return out;
}

const char *units_rate(uint64_t resource, uint64_t limit, uint64_t window_ns, char out[UNITS_TEXT])
{
	static const struct {
		uint64_t ns;
		const char *name;
	} windows[] = {
		{ NSEC_PER_SEC, "s" },
		{ 60 * NSEC_PER_SEC, "min" },
		{ 3600 * NSEC_PER_SEC, "h" },
		{ DAY_S * NSEC_PER_SEC, "day" },
		{ BUCKET_WINDOW_MONTH, "month" },
	};
	char amount[UNITS_TEXT], window[UNITS_TEXT];

	units_amount(resource, limit, amount);
	if (window_ns == 0) {
		snprintf(out, UNITS_TEXT, "%.12s at once", amount);
		return out;
	}
	units_duration(window_ns, window);
	for (size_t i = 0; i < ARRAY_SIZE(windows); i++)
		if (windows[i].ns == window_ns)
			snprintf(window, sizeof(window), "%s", windows[i].name);
	snprintf(out, UNITS_TEXT, "%.12s/%.16s", amount, window);
	return out;
}
