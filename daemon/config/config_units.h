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
#define CONFIG_RATE_TEXT "write N/s, N/min, N/h or N/day, such as 100/s or 400k/min"
#define CONFIG_MONEY_MAX_TEXT "4503599" /* USD: BUCKET_MONEY_MAX */
#define CONFIG_COUNT_MAX UINT64_C(1000000000000)
#define CONFIG_TEXT_MAX 48 /* longest text a formatter writes, with its NUL */


/* "250ms", "10s", "5m", "2h", "1d"; at most 400 days. */
bool config_parse_duration(const char *text, uint64_t *ns);
/* In the largest unit that keeps the value exact. */
void config_format_duration(uint64_t ns, char out[CONFIG_TEXT_MAX]);

/* Decimal digits only, at most CONFIG_COUNT_MAX. */
bool config_parse_count(const char *text, uint64_t *value);

/* The same, or with k (thousands) or M (millions): "400k". */
bool config_parse_amount(const char *text, uint64_t *value);

/* A decimal number of at most so many places, times 10^places; what follows it, or NULL. */
const char *config_parse_decimal(const char *text, unsigned places, uint64_t *value);

/* "50%": whole, 0 to 100. */
bool config_parse_percent(const char *text, unsigned *value);

/* "0.05 USD" or "$0.05", at most BUCKET_MONEY_MAX: nano-USD; what follows it, or NULL. */
const char *config_parse_money(const char *text, uint64_t *nanousd);
/* "5 USD/day", "$100/month"; window_ns as of a WINDOW limit. At least one nano-USD. */
bool config_parse_money_rate(const char *text, uint64_t *nanousd, uint64_t *window_ns);
/* "0.05 USD". */
void config_format_money(uint64_t nanousd, char out[CONFIG_TEXT_MAX]);

/* "100/s", "400k/min": limit per window; limit at least 1. */
bool config_parse_rate(const char *text, uint64_t *limit, uint64_t *window_ns);
void config_format_rate(uint64_t limit, uint64_t window_ns, char out[CONFIG_TEXT_MAX]);
/* Without "burst:" one second's worth, rounded up: at least 1. */
uint64_t config_default_burst(uint64_t limit, uint64_t window_ns);
/* Of tokens: what a minute allows, or the window if it is longer, so that a large call fits. */
uint64_t config_default_token_burst(uint64_t limit, uint64_t window_ns);

/* The keys of "templates:", and what each is a template of (enum bucket_scope). */
#define CONFIG_TEMPLATE_KEYS 10
extern const struct config_template_key {
	const char *key;
	uint64_t scope;
} config_template_keys[CONFIG_TEMPLATE_KEYS];

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
