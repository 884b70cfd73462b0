#pragma once

/*
 * The words of the configuration: durations, counts, rates, prices, switches and names, from
 * text to numbers and back. Pure. A parser returns false for anything but a whole, in-range value.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/aux.h"
#include "base/str.h"

#define CONFIG_DURATION_TEXT "write a number and ms, s, m, h or d, such as 30s"
#define CONFIG_RATE_TEXT "write N/s, N/min, N/h or N/day, such as 100/s"
#define CONFIG_COUNT_MAX UINT64_C(1000000000000)
#define CONFIG_TEXT_MAX 48 /* longest text a formatter writes, with its NUL */

#define NSEC_PER_DAY (UINT64_C(86400) * NSEC_PER_SEC)

/* "250ms", "10s", "5m", "2h", "1d"; at most 400 days. */
bool config_parse_duration(const char *text, uint64_t *ns);
/* In the largest unit that keeps the value exact. */
void config_format_duration(uint64_t ns, char out[CONFIG_TEXT_MAX]);

/* Decimal digits only, at most CONFIG_COUNT_MAX. */
bool config_parse_count(const char *text, uint64_t *value);

/* "100/s": limit per window; limit at least 1. */
bool config_parse_rate(const char *text, uint64_t *limit, uint64_t *window_ns);
void config_format_rate(uint64_t limit, uint64_t window_ns, char out[CONFIG_TEXT_MAX]);
/* Without "burst:" one second's worth, rounded up: at least 1. */
uint64_t config_default_burst(uint64_t limit, uint64_t window_ns);

/* USD per million tokens, at most six decimals (that is exact in pico-USD per token), 0 to
 * 10000. */
bool config_parse_price(const char *text, int64_t *pico_usd_per_token);
void config_format_price(int64_t pico_usd_per_token, char out[CONFIG_TEXT_MAX]);

/* "true" or "false", as YAML 1.2 has them. */
bool config_parse_bool(const char *text, bool *value);

/* [a-z0-9._-]+, at most max bytes. */
bool config_is_name(const char *text, size_t max);
/* One word of visible characters (any UTF-8 above ASCII), 1 to max bytes. */
bool config_is_word(const char *text, size_t max);

/* Whether there is a character that YAML takes only as an escape: control characters, byte order
 * marks and code points that are no characters. text is UTF-8. */
bool config_has_control(struct str text);

/* NULL when the URL may be used: scheme://host[:port][/path] and nothing else. Else what is wrong
 * with it. *local: the host is this machine. */
const char *config_url_fault(const char *url, bool *plain, bool *local);

/* text for an error line: shortened, and without control characters. */
const char *config_quote(const char *text, char out[CONFIG_TEXT_MAX + 8]);
