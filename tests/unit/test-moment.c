#include "proto/moment.h"
#include "base/aux.h"
#include "proto/scan.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/splitmix.h"

#include <locale.h>
#include <stdio.h>
#include <time.h>

#define S NSEC_PER_SEC
#define MS NSEC_PER_MSEC
#define DAY (86400 * S)

static const struct {
	const char *text;
	uint64_t ns;
} durations[] = {
	{ "0", 0 },
	{ "0.0", 0 },
	{ "1", S },
	{ " 7 ", 7 * S },
	{ "\t7", 7 * S },
	{ "007", 7 * S },
	{ "2.", 2 * S },
	{ "7.66", 7660 * MS },
	{ "0.007", 7 * MS },
	{ "33011.382867097855", UINT64_C(33011382867097) },
	{ "0.0000000001", 0 },
	{ "5.0067901611328125e-05", 50067 },
	{ "1e3", 1000 * S },
	{ "1E+2", 100 * S },
	{ "1e9", DAY },
	{ "1e-99999999999999999999", 0 },
	{ "0e99999", 0 },
	{ "86400", DAY },
	{ "86401", DAY },
	{ "1000000000", DAY },
	{ "1s", S },
	{ "6m0s", 360 * S },
	{ "120ms", 120 * MS },
	{ "2m59.56s", 179560 * MS },
	{ "1h0m0s", 3600 * S },
	{ "1h2m3.5s", 3723500 * MS },
	{ "17h59m59.999999999s", 64799 * S + 999999999 },
	{ "24h0m1s", DAY },
	{ "1d", DAY },
	{ "12us", 12000 },
	{ "12.5\xc2\xb5s", 12500 },
	{ "12\xce\xbcs", 12000 },
	{ "999ns", 999 },
	{ "0.5ns", 0 },
	{ "1.5m", 90 * S },
	{ "0s", 0 },
	{ "1S", S },
	{ "20seconds", 20 * S },
	{ "99999999999999999999999999h", DAY },
	{ "5124096h", DAY }, /* just above what 64 bits hold */
	{ "99999999999999999999999999ms", DAY },
	{ "1.00000000000000000000000000000000000000001s", S },
	{ "0.000000000000000000000000000000000000000001h", 0 },
};

static const char *const nonsense[] = {
	"",
	" ",
	"-1",
	"-0",
	"+1",
	".5",
	"1,5",
	"1_000",
	"0x10",
	"NaN",
	"inf",
	"soon",
	"1 s",
	"1s 2s",
	"1s,",
	"1y",
	"1s2",
	"s",
	"m1",
	"1..5",
	"1.5.5",
	"1e",
	"e5",
	"-1s",
	"1m-2s",
	"1\xb5s",
	"null",
	"\xff\xfe",
	"2025-08-21",
	"2025-08-21T12:40:59",
	"2025-08-21T12:40:59.Z",
	"2025-08-21T12:40:59+0530",
	"2025-08-21T12:40:59+24:00",
	"2025-08-21T12:40:59+05:60",
	"2025-08-21 12:40:59Z",
	"2025-8-21T12:40:59Z",
	"2025-00-21T12:40:59Z",
	"2025-13-21T12:40:59Z",
	"2025-08-00T12:40:59Z",
	"2025-08-32T12:40:59Z",
	"2025-02-29T00:00:00Z",
	"2100-02-29T00:00:00Z",
	"2025-06-31T00:00:00Z",
	"2025-08-21T24:00:00Z",
	"2025-08-21T12:60:00Z",
	"2025-08-21T12:40:61Z",
	"2025-08-21T12:40:59Zulu",
	"02025-08-21T12:40:59Z",
	"Sun, 06 Nov 1994 08:49:47",
	"Sun, 06 Nov 1994 08:49:47 PST",
	"Sun, 06 Nov 1994 08:49:47 GMT and so on",
	"Sun, 06 Nov 94 08:49:47 GMT",
	"Sun, 31 Nov 1994 08:49:47 GMT",
	"06 Nov 1994 08:49:47 GMT",
	"Sun, 06 Non 1994 08:49:47 GMT",
};

static const struct {
	const char *text;
	uint64_t unix_s, ns;
} dates[] = {
	{ "Sun, 06 Nov 1994 08:49:37 GMT", 784111777, 0 },
	{ " Sun, 06 Nov 1994 08:49:37 GMT ", 784111777, 0 },
	{ "sun, 06 nov 1994 08:49:37 gmt", 784111777, 0 },
	{ "Sun, 6 Nov 1994 08:49:37 GMT", 784111777, 0 },
	{ "Sunday, 06-Nov-94 08:49:37 GMT", 784111777, 0 },
	{ "Sun Nov  6 08:49:37 1994", 784111777, 0 },
	{ "Sun Nov 16 08:49:37 1994", 784111777 + 864000, 0 },
	{ "Saturday, 06-Nov-94 08:49:37 GMT", 784111777, 0 },
	{ "Wednesday, 06-Nov-69 08:49:37 GMT", 3150953377, 0 },
	{ "Friday, 06-Nov-70 08:49:37 GMT", 26729377, 0 },
	{ "2025-08-21T12:40:00Z", 1755780000, 0 },
	{ "2025-08-21t12:40:00z", 1755780000, 0 },
	{ "2025-08-21T12:40:00.5Z", 1755780000, 500 * MS },
	{ "2025-08-21T12:40:00.123456789012345678901234Z", 1755780000, 123456789 },
	{ "2025-08-21T12:40:00+00:00", 1755780000, 0 },
	{ "2025-08-21T18:10:00+05:30", 1755780000, 0 },
	{ "2025-08-21T05:40:00.25-07:00", 1755780000, 250 * MS },
	{ "2024-02-29T23:59:59Z", 1709251199, 0 },
	{ "2000-02-29T00:00:00Z", 951782400, 0 },
	{ "2100-02-28T23:59:59Z", 4107542399, 0 },
	{ "2016-12-31T23:59:60Z", 1483228800, 0 },
	{ "1970-01-01T00:00:00Z", 0, 0 },
	{ "1970-03-01T00:00:00Z", 5097600, 0 },
	{ "1969-12-31T23:59:59Z", 0, 0 },
	{ "1970-01-01T00:00:00+01:00", 0, 0 },
	{ "0000-01-01T00:00:00Z", 0, 0 },
	{ "9999-12-31T23:59:59Z", 18446744072, 0 },
};

static void durations_are_from_now_on(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(durations); i++) {
		struct moment m = { .is_date = true, .unix_ns = 1 };

		if (!moment_parse(str_of(durations[i].text), &m) || m.is_date || m.unix_ns ||
			m.ns != durations[i].ns)
			fail_msg("\"%s\": %lu ns", durations[i].text, (unsigned long)m.ns);
	}
}

static void dates_are_of_the_wall_clock(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(dates); i++) {
		struct moment m = { .ns = 1 };
		uint64_t unix_ns = 1;

		if (!moment_parse(str_of(dates[i].text), &m) || !m.is_date || m.ns ||
			m.unix_ns != dates[i].unix_s * S + dates[i].ns)
			fail_msg("\"%s\": %lu ns", dates[i].text, (unsigned long)m.unix_ns);
		assert_true(moment_parse_date(str_of(dates[i].text), &unix_ns));
		assert_true(unix_ns == m.unix_ns);
	}
}

static void nonsense_is_refused(void **state)
{
	struct moment m;
	uint64_t ns;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(nonsense); i++) {
		if (moment_parse(str_of(nonsense[i]), &m))
			fail_msg("\"%s\" passed", nonsense[i]);
		assert_false(moment_parse_date(str_of(nonsense[i]), &ns));
	}
	assert_false(moment_parse(STR_NULL, &m));
	assert_false(moment_parse(str_make("1\0", 2), &m));
	assert_false(moment_parse_date(str_of("1755780000"), &ns));
}

static void large_numbers_are_epochs(void **state)
{
	static const struct {
		const char *text;
		uint64_t unix_ns;
	} rows[] = {
		{ "1000000001", UINT64_C(1000000001) * S },
		{ "1755780000", UINT64_C(1755780000) * S },
		{ "1755780000.75", UINT64_C(1755780000) * S + 750 * MS },
		{ "1000000000000", UINT64_MAX }, /* seconds still */
		{ "1000000000001", UINT64_C(1000000000001) * MS },
		{ "1755780000123", UINT64_C(1755780000123) * MS },
		{ "1755780000123456", UINT64_MAX },
		{ "99999999999999999999999999999", UINT64_MAX },
		{ "1e99999999999999999999", UINT64_MAX },
	};
	struct moment m;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
		if (!moment_parse(str_of(rows[i].text), &m) || !m.is_date ||
			m.unix_ns != rows[i].unix_ns)
			fail_msg("\"%s\": %lu", rows[i].text, (unsigned long)m.unix_ns);
}

/* Against the C library's calendar, every form, over all years it may meet. */
static void dates_agree_with_the_library(void **state)
{
	static const char *const forms[] = { "%a, %d %b %Y %H:%M:%S GMT",
		"%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y", "%Y-%m-%dT%H:%M:%SZ" };
	uint64_t seed = 1, got;
	char text[64];

	(void)state;
	for (int i = 0; i < 20000; i++) {
		size_t form = splitmix_below(&seed, ARRAY_SIZE(forms));
		/* Two digits of a year reach to 2069. */
		time_t at = (time_t)splitmix_below(&seed, form == 1 ? 3155760000 : 18000000000);
		struct tm tm;

		assert_non_null(gmtime_r(&at, &tm));
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		assert_true(strftime(text, sizeof(text), forms[form], &tm) > 0);
#pragma GCC diagnostic pop
		if (!moment_parse_date(str_of(text), &got) || got != (uint64_t)at * S)
			fail_msg("\"%s\": %lu", text, (unsigned long)got);
	}
}

static void the_time_until_is_bounded(void **state)
{
	(void)state;
	assert_true(moment_until(5, 5) == 0);
	assert_true(moment_until(4, 5) == 0);
	assert_true(moment_until(6, 5) == 1);
	assert_true(moment_until(DAY + 6, 5) == DAY);
	assert_true(moment_until(UINT64_MAX, 0) == DAY);
	assert_true(moment_until(0, UINT64_MAX) == 0);
}

static void durations_are_cut_off_prose(void **state)
{
	static const struct {
		const char *text;
		bool spaced;
		const char *rest; /* NULL: none there */
		uint64_t ns;
	} rows[] = {
		{ "6.2s. Visit", true, ". Visit", 6200 * MS },
		{ "20 seconds.", true, ".", 20 * S },
		{ "20 seconds.", false, NULL, 0 },
		{ "1m2s", false, "", 62 * S },
		{ "1m2s3", false, "3", 62 * S },
		{ "1 minute 30 seconds", true, " 30 seconds", 60 * S },
		{ "6s\xe3\x80\x82", true, "\xe3\x80\x82", 6 * S },
		{ "6", true, NULL, 0 },
		{ "6 apples", true, NULL, 0 },
		{ "a few minutes", true, NULL, 0 },
		{ "", true, NULL, 0 },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct str text = str_of(rows[i].text);
		uint64_t ns = 1;
		bool any = moment_take_duration(&text, rows[i].spaced, &ns);

		if (any != (rows[i].rest != NULL) || ns != rows[i].ns ||
			!str_is(text, any ? rows[i].rest : rows[i].text))
			fail_msg("\"%s\": %lu, \"%.*s\"", rows[i].text, (unsigned long)ns,
				STR_ARG(text));
	}
}

static void numbers_are_scaled_exactly(void **state)
{
	static const struct {
		const char *text;
		int power;
		uint64_t want;
	} rows[] = {
		{ "12", 0, 12 },
		{ "12.999", 0, 12 },
		{ "12.999", 2, 1299 },
		{ "18446744073709551615", 0, UINT64_C(18446744073709551610) }, /* 19 digits count */
		{ "18446744073709551616", 1, UINT64_MAX },
		{ "99999999999999999999", 0, UINT64_MAX },
		{ "0.1", 1, 1 },
		{ "123e-2", 0, 1 },
		{ "00000000000000000000000000000000000000000000007", 0, 7 },
	};
	uint64_t got;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		got = 1;
		if (!moment_parse_number(str_of(rows[i].text), rows[i].power, &got) ||
			got != rows[i].want)
			fail_msg("\"%s\": %lu", rows[i].text, (unsigned long)got);
	}
	assert_false(moment_parse_number(str_of("1s"), 0, &got));
	assert_false(moment_parse_number(STR_NULL, 0, &got));
}

static void the_locale_does_not_matter(void **state)
{
	static const char *const locales[] = { "de_DE.UTF-8", "tr_TR.UTF-8", "C.UTF-8", "C" };

	for (size_t i = 0; i < ARRAY_SIZE(locales); i++)
		if (setlocale(LC_ALL, locales[i])) {
			durations_are_from_now_on(state);
			dates_are_of_the_wall_clock(state);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(durations_are_from_now_on),
		cmocka_unit_test(dates_are_of_the_wall_clock),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(large_numbers_are_epochs),
		cmocka_unit_test(dates_agree_with_the_library),
		cmocka_unit_test(the_time_until_is_bounded),
		cmocka_unit_test(durations_are_cut_off_prose),
		cmocka_unit_test(numbers_are_scaled_exactly),
		cmocka_unit_test(the_locale_does_not_matter),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
