/* Numbers as people read them. */

#include <stdio.h>
#include <string.h>
#include "base/aux.h"
#include "shm/bucket.h"
#include "tests/unit/cmocka-all.h"
#include "tools/units.h"

#define SECOND NSEC_PER_SEC
#define DAY (86400 * SECOND)

static void durations(void **state)
{
	static const struct {
		uint64_t ns;
		const char *text;
	} rows[] = {
		{ 0, "0 s" },
		{ 1000, "1 us" },
		{ 350 * NSEC_PER_MSEC, "350 ms" },
		{ SECOND, "1.0 s" },
		{ SECOND + 200 * NSEC_PER_MSEC, "1.2 s" },
		{ 61 * SECOND, "1 m 1 s" },
		{ 3600 * SECOND, "1 h 0 m" },
		{ DAY - 1, "23 h 59 m" },
		{ 2 * DAY + 3 * 3600 * SECOND, "2 d 3 h" },
		{ UINT64_MAX - 1, "213503 d 23 h" },
		{ UINT64_MAX, "-" },
	};
	char out[UNITS_TEXT];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_string_equal(units_duration(rows[i].ns, out), rows[i].text);
}

static void counts(void **state)
{
	static const struct {
		uint64_t n;
		const char *text;
	} rows[] = {
		{ 0, "0" },
		{ 999, "999" },
		{ 1000, "1k" },
		{ 12345, "12.3k" },
		{ 123456, "123k" },
		{ 999499, "999k" },
		{ 999500, "1M" },
		{ 4500000, "4.5M" },
		{ UINT64_C(7000000000), "7G" },
		{ UINT64_MAX, "18446744T" },
	};
	char out[UNITS_TEXT];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_string_equal(units_count(rows[i].n, out), rows[i].text);
}

static void amounts(void **state)
{
	char out[UNITS_TEXT];

	(void)state;
	assert_string_equal(units_amount(BUCKET_TOKENS, 400000, out), "400k");
	assert_string_equal(units_amount(BUCKET_MONEY, 1250000000, out), "$1.25");
	assert_string_equal(units_amount(BUCKET_MONEY, 0, out), "$0.00");
	assert_string_equal(units_amount(BUCKET_MONEY, 1500, out), "$0.000002");
	assert_string_equal(units_amount(BUCKET_MONEY, UINT64_MAX, out), "$18446744073.71");
	/* A resource that another process made up. */
	assert_string_equal(units_amount(4711, 5, out), "5");
}

static void rates(void **state)
{
	static const struct {
		uint64_t resource, limit, window_ns;
		const char *text;
	} rows[] = {
		{ BUCKET_REQUESTS, 100, SECOND, "100/s" },
		{ BUCKET_TOKENS, 400000, 60 * SECOND, "400k/min" },
		{ BUCKET_REQUESTS, 7, 3600 * SECOND, "7/h" },
		{ BUCKET_MONEY, 5 * SECOND, DAY, "$5.00/day" },
		{ BUCKET_MONEY, 5 * SECOND, BUCKET_WINDOW_MONTH, "$5.00/month" },
		{ BUCKET_CONCURRENCY, 64, 0, "64 at once" },
		{ BUCKET_REQUESTS, 3, 90 * SECOND, "3/1 m 30 s" },
	};
	char out[UNITS_TEXT];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		assert_string_equal(
			units_rate(rows[i].resource, rows[i].limit, rows[i].window_ns, out),
			rows[i].text);
	/* The longest that there can be stays a string. */
	assert_true(strlen(units_rate(BUCKET_MONEY, UINT64_MAX, UINT64_MAX - 1, out)) < UNITS_TEXT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(durations),
		cmocka_unit_test(counts),
		cmocka_unit_test(amounts),
		cmocka_unit_test(rates),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
