#include "proto/moment.h"

#include "base/aux.h"
#include "proto/scan.h"

/* ---- numbers: digits * 10^exponent, so that units which are powers of ten are exact ---- */

#define DECIMAL_DIGITS_MAX UINT64_C(1000000000000000000)
#define DECIMAL_EXPONENT_MAX 10000

struct decimal {
	uint64_t digits;
	int64_t exponent;
};

/* Digits beyond what digits can hold count in the exponent only. */
static bool decimal_take_digits(struct decimal *d, struct str *text, bool fraction)
{
	size_t before = text->length;

	for (; text->length > 0 && scan_is_digit(text->data[0]); scan_skip(text, 1)) {
		bool room = d->digits < DECIMAL_DIGITS_MAX;

		if (room)
			d->digits = d->digits * 10 + (uint64_t)(text->data[0] - '0');
		d->exponent += !room - fraction;
	}
	return text->length < before;
}

/* "e-05", as languages write small numbers. */
static void decimal_take_exponent(struct decimal *d, struct str *text)
{
	struct str rest = *text;
	int64_t value = 0;
	bool minus;

	if (!scan_at(rest, 'e'))
		return;
	scan_skip(&rest, 1);
	minus = scan_at(rest, '-');
	if (minus || scan_at(rest, '+'))
		scan_skip(&rest, 1);
	if (rest.length == 0 || !scan_is_digit(rest.data[0]))
		return;
	for (; rest.length > 0 && scan_is_digit(rest.data[0]); scan_skip(&rest, 1))
		if (value < DECIMAL_EXPONENT_MAX)
			value = value * 10 + (rest.data[0] - '0');
	d->exponent += minus ? -value : value;
	*text = rest;
}

static bool decimal_take(struct decimal *d, struct str *text)
{
	*d = (struct decimal){ 0 };
	if (!decimal_take_digits(d, text, false))
		return false;
	if (scan_at(*text, '.')) {
		scan_skip(text, 1);
		decimal_take_digits(d, text, true);
	}
	decimal_take_exponent(d, text);
	return true;
}

/* d * 10^power, cut to a whole number; UINT64_MAX for all that is more. */
static uint64_t decimal_scale(struct decimal d, int power)
{
	int64_t exponent = d.exponent + power;
	uint64_t n = d.digits;

	for (; exponent > 0 && n > 0; exponent--) {
		if (n > UINT64_MAX / 10)
			return UINT64_MAX;
		n *= 10;
	}
	for (; exponent < 0 && n > 0; exponent++)
		n /= 10;
	return n;
}

static bool parse_number(struct str text, struct decimal *d)
{
	return decimal_take(d, &text) && text.length == 0;
}

bool moment_parse_number(struct str text, int power, uint64_t *out)
{
	struct decimal d;

	if (!parse_number(scan_trim(text), &d))
		return false;
	*out = decimal_scale(d, power);
	return true;
}

/* ---- durations ---- */

static const struct unit {
	const char *name;
	int power; /* of ten, in nanoseconds */
	unsigned times;
} units[] = {
	{ "ns", 0, 1 },
	{ "us", 3, 1 },
	{ "\xc2\xb5s", 3, 1 }, /* the micro sign */
	{ "\xce\xbcs", 3, 1 }, /* the Greek letter */
	{ "ms", 6, 1 },
	{ "milliseconds", 6, 1 },
	{ "s", 9, 1 },
	{ "sec", 9, 1 },
	{ "second", 9, 1 },
	{ "seconds", 9, 1 },
	{ "m", 9, 60 },
	{ "min", 9, 60 },
	{ "minute", 9, 60 },
	{ "minutes", 9, 60 },
	{ "h", 9, 3600 },
	{ "hour", 9, 3600 },
	{ "hours", 9, 3600 },
	{ "d", 9, 86400 },
};

static const struct unit *unit_find(struct str name)
{
	for (size_t i = 0; i < ARRAY_SIZE(units); i++)
		if (scan_is(name, units[i].name))
			return &units[i];
	return NULL;
}

/* One "2m"; spaced: prose may have a space before the unit. */
static bool duration_take_part(struct str *text, bool spaced, uint64_t *ns)
{
	struct str rest = *text;
	const struct unit *unit;
	struct decimal d;

	if (!decimal_take(&d, &rest))
		return false;
	while (spaced && rest.length > 0 && scan_is_blank(rest.data[0]))
		scan_skip(&rest, 1);
	unit = unit_find(scan_letters(&rest));
	if (!unit)
		return false;
	/* Cut before it is multiplied too: a day times the seconds of a day fits. */
	*ns = min_u64(decimal_scale(d, unit->power), MOMENT_DURATION_MAX_NS) * unit->times;
	*ns = min_u64(*ns, MOMENT_DURATION_MAX_NS);
	*text = rest;
	return true;
}

/* "2m59.56s" as Go writes it; text: what is behind it. */
bool moment_take_duration(struct str *text, bool spaced, uint64_t *ns)
{
	uint64_t part = 0;
	bool any = false;

	for (*ns = 0; duration_take_part(text, spaced, &part); any = true)
		*ns = min_u64(*ns + part, MOMENT_DURATION_MAX_NS);
	return any;
}

/* ---- dates ---- */

struct date {
	unsigned year, month, day, hour, minute, second;
	uint64_t ns;
	int64_t ahead_s; /* of UTC */
};

static const char *const months[] = { "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep",
	"oct", "nov", "dec" };

/* The three forms of RFC 9110 5.6.7, then RFC 3339. */
static const char *const date_forms[] = {
	"%w, %d %b %Y %H:%M:%S GMT",
	"%w, %d-%b-%y %H:%M:%S GMT",
	"%w %b %d %H:%M:%S %Y",
	"%Y-%m-%dT%H:%M:%S%f%z",
};

static bool date_take_number(struct str *text, size_t least, size_t most, unsigned *out)
{
	size_t n = 0;

	for (*out = 0; n < most && text->length > 0 && scan_is_digit(text->data[0]); n++) {
		*out = *out * 10 + (unsigned)(text->data[0] - '0');
		scan_skip(text, 1);
	}
	return n >= least;
}

static bool date_take_month(struct str *text, unsigned *out)
{
	for (unsigned i = 0; i < ARRAY_SIZE(months); i++) {
		if (scan_word(text, months[i])) {
			*out = i + 1;
			return true;
		}
	}
	return false;
}

static bool date_take_fraction(struct str *text, uint64_t *ns)
{
	struct decimal d = { 0 };

	if (!scan_at(*text, '.'))
		return true;
	scan_skip(text, 1);
	if (!decimal_take_digits(&d, text, true))
		return false;
	*ns = decimal_scale(d, 9);
	return true;
}

/* "Z" or "+05:30" */
static bool date_take_zone(struct str *text, int64_t *ahead_s)
{
	unsigned hours, minutes;
	bool west = scan_at(*text, '-');

	if (scan_word(text, "z"))
		return true;
	if (!west && !scan_at(*text, '+'))
		return false;
	scan_skip(text, 1);
	if (!date_take_number(text, 2, 2, &hours) || !scan_word(text, ":") ||
		!date_take_number(text, 2, 2, &minutes) || hours > 23 || minutes > 59)
		return false;
	*ahead_s = (int64_t)(hours * 3600 + minutes * 60) * (west ? -1 : 1);
	return true;
}

static bool date_take_short_year(struct str *text, unsigned *year)
{
	if (!date_take_number(text, 2, 2, year))
		return false;
	*year += *year < 70 ? 2000 : 1900;
	return true;
}

static bool date_take_field(struct str *text, char field, struct date *d)
{
	switch (field) {
	case 'w':
		return scan_letters(text).length > 0;
	case 'Y':
		return date_take_number(text, 4, 4, &d->year);
	case 'y':
		return date_take_short_year(text, &d->year);
	case 'b':
		return date_take_month(text, &d->month);
	case 'm':
		return date_take_number(text, 2, 2, &d->month);
	case 'd':
		scan_word(text, " ");
		return date_take_number(text, 1, 2, &d->day);
	case 'H':
		return date_take_number(text, 2, 2, &d->hour);
	case 'M':
		return date_take_number(text, 2, 2, &d->minute);
	case 'S':
		return date_take_number(text, 2, 2, &d->second);
	case 'f':
		return date_take_fraction(text, &d->ns);
	default:
		return date_take_zone(text, &d->ahead_s);
	}
}

static bool date_is_valid(const struct date *d)
{
	static const unsigned char days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
	bool leap = (d->year % 4 == 0 && d->year % 100 != 0) || d->year % 400 == 0;

	return d->month >= 1 && d->month <= 12 && d->day >= 1 &&
		d->day <= days[d->month - 1] + (unsigned)(leap && d->month == 2) && d->hour < 24 &&
		d->minute < 60 && d->second <= 60;
}

static bool date_scan(struct str text, const char *form, struct date *d)
{
	*d = (struct date){ 0 };
	for (; *form; form++) {
		char literal[2] = { scan_lower(*form), '\0' };

		if (*form == '%' ? !date_take_field(&text, *++form, d) : !scan_word(&text, literal))
			return false;
	}
	return text.length == 0 && date_is_valid(d);
}

/* Days since 1970-01-01 (H. Hinnant, "chrono-compatible low-level date algorithms"). */
static int64_t date_days(const struct date *d)
{
	int64_t year = (int64_t)d->year - (d->month <= 2);
	int64_t month = d->month <= 2 ? d->month + 9 : d->month - 3; /* from March */
	int64_t day = (153 * month + 2) / 5 + d->day - 1;            /* of that year */

	return year * 365 + year / 4 - year / 100 + year / 400 + day - 719468;
}

/* What lies before 1970 is 1970, and after 2554 is then. */
static uint64_t date_unix_ns(const struct date *d)
{
	int64_t s = date_days(d) * 86400 + d->hour * 3600 + d->minute * 60 + d->second - d->ahead_s;

	if (s < 0)
		return 0;
	return min_u64((uint64_t)s, UINT64_MAX / NSEC_PER_SEC - 1) * NSEC_PER_SEC + d->ns;
}

bool moment_parse_date(struct str text, uint64_t *unix_ns)
{
	struct date d;

	text = scan_trim(text);
	for (size_t i = 0; i < ARRAY_SIZE(date_forms); i++) {
		if (date_scan(text, date_forms[i], &d)) {
			*unix_ns = date_unix_ns(&d);
			return true;
		}
	}
	return false;
}

/* ---- moments ---- */

#define EPOCH_SECONDS_MIN UINT64_C(1000000000)
#define EPOCH_MSECONDS_MIN UINT64_C(1000000000000)

static struct moment moment_of_number(struct decimal d)
{
	uint64_t whole = decimal_scale(d, 0);

	if (whole > EPOCH_MSECONDS_MIN)
		return (struct moment){ .is_date = true, .unix_ns = decimal_scale(d, 6) };
	if (whole > EPOCH_SECONDS_MIN)
		return (struct moment){ .is_date = true, .unix_ns = decimal_scale(d, 9) };
	return (struct moment){ .ns = min_u64(decimal_scale(d, 9), MOMENT_DURATION_MAX_NS) };
}

bool moment_parse(struct str text, struct moment *out)
{
	struct str rest = text = scan_trim(text);
	struct decimal d;

	if (parse_number(text, &d)) {
		*out = moment_of_number(d);
		return true;
	}
	*out = (struct moment){ 0 };
	if (moment_take_duration(&rest, false, &out->ns) && rest.length == 0)
		return true;
	*out = (struct moment){ .is_date = true };
	return moment_parse_date(text, &out->unix_ns);
}

uint64_t moment_until(uint64_t then_unix_ns, uint64_t unix_ns)
{
	return then_unix_ns > unix_ns ? min_u64(then_unix_ns - unix_ns, MOMENT_DURATION_MAX_NS) : 0;
}
