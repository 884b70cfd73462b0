#pragma once

/*
 * Times as providers write them into headers and error texts: "7.66", "2m59.56s" (Go), epoch
 * seconds or milliseconds, RFC 3339, the three dates of RFC 9110 5.6.7. No clock, no locale, no
 * allocation. Any bytes; what is not wholly one of these is refused. Days are clamped as said.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"
#include "base/str.h"

/* Longer durations are this long. */
#define MOMENT_DURATION_MAX_NS NSEC_PER_DAY

/* From now on, or a date of the wall clock of whoever wrote it; the other one is 0. */
struct moment {
	uint64_t ns;
	uint64_t unix_ns; /* years before 1970 give 0, after 2554 about then */
	bool is_date;
};

/* Any of the forms, white space around it allowed. A number alone is seconds; above 1e9, of an
 * epoch in seconds; above 1e12, in milliseconds. */
bool moment_parse(struct str text, struct moment *out);
/* A date of RFC 9110 or RFC 3339. */
bool moment_parse_date(struct str text, uint64_t *unix_ns);
/* How long it is from unix_ns to then; 0 when it has passed; at most MOMENT_DURATION_MAX_NS. */
uint64_t moment_until(uint64_t then_unix_ns, uint64_t unix_ns);

/* Cuts a duration off the text; spaced: prose, "20 seconds" too. */
bool moment_take_duration(struct str *text, bool spaced, uint64_t *ns);
/* A number alone, "12", "0.5", "1e-05", times 10^power, cut to a whole number; UINT64_MAX for all
 * that is more. */
bool moment_parse_number(struct str text, int power, uint64_t *out);
