#include "daemon/config/config_units.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "shm/bucket.h"

struct config_unit {
	const char *name;
	uint64_t ns;
};

/* Ascending: formatting takes the last that divides. */
static const struct config_unit config_durations[] = {
	{ "ms", NSEC_PER_MSEC },
	{ "s", NSEC_PER_SEC },
	{ "m", 60 * NSEC_PER_SEC },
	{ "h", 3600 * NSEC_PER_SEC },
	{ "d", NSEC_PER_DAY },
};

static const struct config_unit config_windows[] = {
	{ "s", NSEC_PER_SEC },
	{ "min", 60 * NSEC_PER_SEC },
	{ "h", 3600 * NSEC_PER_SEC },
	{ "day", NSEC_PER_DAY },
};

/* Leading digits into value; NULL when there are none or they are too many. */
static const char *config_digits(const char *text, uint64_t *value)
{
	const char *at = text;

	for (*value = 0; *at >= '0' && *at <= '9'; at++) {
		*value = *value * 10 + (uint64_t)(*at - '0');
		if (*value > CONFIG_COUNT_MAX)
			return NULL;
	}
	return at == text ? NULL : at;
}

static const struct config_unit *config_find_unit(
	const struct config_unit *units, size_t n, const char *name)
{
	for (size_t i = 0; i < n; i++)
		if (strcmp(units[i].name, name) == 0)
			return &units[i];
	return NULL;
}

bool config_parse_duration(const char *text, uint64_t *ns)
{
	const struct config_unit *unit;
	uint64_t n;
	const char *rest = config_digits(text, &n);

	if (!rest)
		return false;
	unit = config_find_unit(config_durations, ARRAY_SIZE(config_durations), rest);
	if (!unit || n > 400 * NSEC_PER_DAY / unit->ns)
		return false;
	*ns = n * unit->ns;
	return true;
}

void config_format_duration(uint64_t ns, char out[CONFIG_TEXT_MAX])
{
	size_t i = ARRAY_SIZE(config_durations) - 1;

	if (ns == 0)
		i = 1;
	while (i > 0 && ns % config_durations[i].ns)
		i--;
	snprintf(out, CONFIG_TEXT_MAX, "%" PRIu64 "%s", ns / config_durations[i].ns,
		config_durations[i].name);
}

bool config_parse_count(const char *text, uint64_t *value)
{
	const char *rest = config_digits(text, value);

	return rest && *rest == '\0';
}

/* Digits and perhaps k or M; what follows, or NULL. */
static const char *config_amount(const char *text, uint64_t *value)
{
	const char *rest = config_digits(text, value);
	uint64_t factor = !rest ? 1 : *rest == 'k' ? 1000 : *rest == 'M' ? 1000000 : 1;

	if (!rest || *value > CONFIG_COUNT_MAX / factor)
		return NULL;
	*value *= factor;
	return rest + (factor > 1);
}

bool config_parse_amount(const char *text, uint64_t *value)
{
	const char *rest = config_amount(text, value);

	return rest && *rest == '\0';
}

const char *config_parse_decimal(const char *text, unsigned places, uint64_t *value)
{
	const char *rest = config_digits(text, value);
	uint64_t scale = 1, fraction = 0, weight;

	for (unsigned i = 0; i < places; i++)
		scale *= 10;
	if (!rest || *value >= UINT64_MAX / scale)
		return NULL;
	*value *= scale;
	if (*rest != '.')
		return rest;
	weight = scale / 10;
	if (rest[1] < '0' || rest[1] > '9')
		return NULL;
	for (rest++; *rest >= '0' && *rest <= '9'; rest++, weight /= 10) {
		if (weight == 0 && *rest != '0')
			return NULL;
		fraction += (uint64_t)(*rest - '0') * weight;
	}
	*value += fraction;
	return rest;
}

bool config_parse_percent(const char *text, unsigned *value)
{
	uint64_t n;
	const char *rest = config_digits(text, &n);

	*value = (unsigned)n;
	return rest && strcmp(rest, "%") == 0 && n <= 100;
}

const char *config_parse_money(const char *text, uint64_t *nanousd)
{
	bool dollar = *text == '$';
	const char *rest = config_parse_decimal(text + dollar, 9, nanousd);

	if (!rest || *nanousd > BUCKET_MONEY_MAX)
		return NULL;
	if (dollar)
		return rest;
	return strncmp(rest, " USD", 4) == 0 ? rest + 4 : NULL;
}

bool config_parse_money_rate(const char *text, uint64_t *nanousd, uint64_t *window_ns)
{
	const char *rest = config_parse_money(text, nanousd);

	if (!rest || *nanousd == 0)
		return false;
	*window_ns = strcmp(rest, "/day") == 0 ? NSEC_PER_DAY : BUCKET_WINDOW_MONTH;
	return *window_ns == NSEC_PER_DAY || strcmp(rest, "/month") == 0;
}

void config_format_money(uint64_t nanousd, char out[CONFIG_TEXT_MAX])
{
	char fraction[16];
	size_t length;

	snprintf(fraction, sizeof(fraction), "%09" PRIu64, nanousd % NSEC_PER_SEC);
	for (length = strlen(fraction); length > 0 && fraction[length - 1] == '0'; length--)
		fraction[length - 1] = '\0';
	snprintf(out, CONFIG_TEXT_MAX, "%" PRIu64 "%s%s USD", nanousd / NSEC_PER_SEC,
		length ? "." : "", fraction);
}

bool config_parse_rate(const char *text, uint64_t *limit, uint64_t *window_ns)
{
	const struct config_unit *unit;
	const char *rest = config_amount(text, limit);

	if (!rest || *rest != '/' || *limit == 0)
		return false;
	unit = config_find_unit(config_windows, ARRAY_SIZE(config_windows), rest + 1);
	/* The bucket counts whole nanoseconds per unit at most. */
	if (!unit || *limit > unit->ns)
		return false;
	*window_ns = unit->ns;
	return true;
}

void config_format_rate(uint64_t limit, uint64_t window_ns, char out[CONFIG_TEXT_MAX])
{
	const char *name = "s";

	for (size_t i = 0; i < ARRAY_SIZE(config_windows); i++)
		if (config_windows[i].ns == window_ns)
			name = config_windows[i].name;
	snprintf(out, CONFIG_TEXT_MAX, "%" PRIu64 "/%s", limit, name);
}

uint64_t config_default_burst(uint64_t limit, uint64_t window_ns)
{
	uint64_t seconds = window_ns / NSEC_PER_SEC;

	return max_u64(1, (limit + seconds - 1) / seconds);
}

uint64_t config_default_token_burst(uint64_t limit, uint64_t window_ns)
{
	uint64_t minute = 60 * NSEC_PER_SEC;

	return window_ns < minute ? limit * (minute / window_ns) : limit;
}

const struct config_template_key config_template_keys[CONFIG_TEMPLATE_KEYS] = {
	{ "per_user", BUCKET_SCOPE_USER },
	{ "per_model", BUCKET_SCOPE_MODEL },
	{ "per_provider", BUCKET_SCOPE_PROVIDER },
	{ "per_key", BUCKET_SCOPE_KEY },
	{ "per_user_model", BUCKET_SCOPE_USER | BUCKET_SCOPE_MODEL },
	{ "per_user_provider", BUCKET_SCOPE_USER | BUCKET_SCOPE_PROVIDER },
	{ "per_user_key", BUCKET_SCOPE_USER | BUCKET_SCOPE_KEY },
	{ "per_model_provider", BUCKET_SCOPE_MODEL | BUCKET_SCOPE_PROVIDER },
	{ "per_model_key", BUCKET_SCOPE_MODEL | BUCKET_SCOPE_KEY },
	{ "per_provider_key", BUCKET_SCOPE_PROVIDER | BUCKET_SCOPE_KEY },
};

bool config_parse_price(const char *text, int64_t *pico_usd_per_token)
{
	uint64_t value;
	/* 1 USD per million tokens is 10^6 pico-USD per token. */
	const char *rest = config_parse_decimal(text, 6, &value);

	*pico_usd_per_token = rest ? (int64_t)value : -1;
	return rest && *rest == '\0' && value <= UINT64_C(10000) * 1000000;
}

void config_format_price(int64_t pico, char out[CONFIG_TEXT_MAX])
{
	snprintf(out, CONFIG_TEXT_MAX, "%" PRId64 ".%06" PRId64, pico / 1000000, pico % 1000000);
}

bool config_parse_bool(const char *text, bool *value)
{
	*value = strcmp(text, "true") == 0;
	return *value || strcmp(text, "false") == 0;
}

bool config_is_name(const char *text, size_t max)
{
	size_t length = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789._-");

	return length > 0 && length <= max && text[length] == '\0';
}

bool config_is_word(const char *text, size_t max)
{
	size_t n = 0;

	for (; text[n]; n++)
		if ((unsigned char)text[n] <= ' ' || text[n] == 0x7f)
			return false;
	return n > 0 && n <= max;
}

bool config_has_control(struct str text)
{
	const unsigned char *c = (const unsigned char *)text.data;
	size_t n = text.length;

	for (size_t i = 0; i < n; i++) {
		if (c[i] < 0x20 || c[i] == 0x7f)
			return true;
		/* U+0080 to U+009F */
		if (c[i] == 0xc2 && n - i > 1 && c[i + 1] < 0xa0)
			return true;
		/* U+FEFF, U+FFFE, U+FFFF */
		if (c[i] == 0xef && n - i > 2 &&
			((c[i + 1] == 0xbb && c[i + 2] == 0xbf) ||
				(c[i + 1] == 0xbf && c[i + 2] >= 0xbe)))
			return true;
	}
	return false;
}

static bool config_host_is_local(const char *host, size_t length)
{
	char text[INET6_ADDRSTRLEN];
	struct in_addr address;

	if (length == strlen("localhost") && strncasecmp(host, "localhost", length) == 0)
		return true;
	if (length == strlen("[::1]") && strncmp(host, "[::1]", length) == 0)
		return true;
	if (length >= sizeof(text))
		return false;
	snprintf(text, sizeof(text), "%.*s", (int)length, host);
	return inet_pton(AF_INET, text, &address) == 1 && ntohl(address.s_addr) >> 24 == 127;
}

/* Length of the host at the head of the authority; 0 when it is none. */
static size_t config_host_length(const char *authority)
{
	char text[INET6_ADDRSTRLEN];
	struct in6_addr address;
	size_t length;

	if (*authority != '[')
		return strspn(authority,
			"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
			"0123456789.-_");
	length = strspn(authority + 1, "0123456789abcdefABCDEF:.");
	if (length >= sizeof(text) || authority[1 + length] != ']')
		return 0;
	snprintf(text, sizeof(text), "%.*s", (int)length, authority + 1);
	return inet_pton(AF_INET6, text, &address) == 1 ? length + 2 : 0;
}

static const char *config_port_fault(const char **at)
{
	uint64_t port;

	if (**at == ':') {
		*at = config_digits(*at + 1, &port);
		if (!*at || port == 0 || port > 65535)
			return "its port is not a number from 1 to 65535";
	}
	if (**at != '\0' && **at != '/')
		return "its host holds a character that hosts do not have";
	return NULL;
}

const char *config_url_fault(const char *url, bool *plain, bool *local)
{
	const char *at, *fault;
	size_t host;

	*plain = *local = false;
	for (at = url; *at; at++)
		if ((unsigned char)*at <= ' ' || (unsigned char)*at >= 0x7f ||
			strchr("\"<>\\^`{|}", *at))
			return "it holds a space or another character that URLs do not have";
	*plain = strncmp(url, "http://", 7) == 0;
	if (!*plain && strncmp(url, "https://", 8) != 0)
		return "it does not begin with https:// or http://";
	at = url + (*plain ? 7 : 8);
	if (strchr(at, '?') || strchr(at, '#'))
		return "it has a query or a fragment";
	if (memchr(at, '@', strcspn(at, "/")))
		return "it holds user info; keys and passwords are never written in the "
		       "configuration";
	host = config_host_length(at);
	if (host == 0)
		return "it has no host, or one that is malformed";
	*local = config_host_is_local(at, host);
	at += host;
	fault = config_port_fault(&at);
	return fault;
}

const char *config_quote(const char *text, char out[CONFIG_TEXT_MAX + 8])
{
	size_t n = strnlen(text, CONFIG_TEXT_MAX);
	bool cut = text[n] != '\0';

	/* Do not cut inside a UTF-8 character. */
	while (cut && n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
		n--;
	for (size_t i = 0; i < n; i++)
		out[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
	snprintf(out + n, 8, "%s", cut ? "..." : "");
	return out;
}
