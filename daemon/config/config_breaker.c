#include "daemon/config/config_check.h"

#include <stdio.h>
#include "daemon/config/config_units.h"

/* A preset's settings into *settings; "off" switches off whatever opens. */
static bool config_find_preset(const char *name, struct breaker_settings *settings)
{
	for (unsigned i = 0; i < BREAKER_PRESETS; i++) {
		if (strcmp(name, breaker_preset_name(i)) == 0) {
			*settings = breaker_preset(i);
			return true;
		}
	}
	if (strcmp(name, "off") != 0)
		return false;
	*settings = breaker_never(breaker_preset(BREAKER_PRODUCTION));
	return true;
}

static void config_check_preset(
	struct config_field f, const char *key, const char *text, struct breaker_settings *settings)
{
	char quoted[CONFIG_TEXT_MAX + 8];

	if (text && !config_find_preset(text, settings))
		config_fail_field(f, key,
			"\"%s\" is not a preset; allowed: aggressive, production, conservative, "
			"off",
			config_quote(text, quoted));
}

static unsigned config_check_number(
	struct config_field f, const char *key, unsigned min, unsigned max, unsigned value)
{
	config_check_count(f, key, config_given(f, key), min, max, &value);
	return value;
}

static uint32_t config_check_ms(
	struct config_field f, const char *key, uint64_t min_ms, uint32_t value_ms)
{
	uint64_t ns = value_ms * NSEC_PER_MSEC;

	config_check_duration(
		f, key, config_given(f, key), min_ms * NSEC_PER_MSEC, NSEC_PER_DAY, &ns);
	return (uint32_t)(ns / NSEC_PER_MSEC);
}

static void config_check_window(struct config_field f, uint16_t *window_s)
{
	uint64_t ns = *window_s * NSEC_PER_SEC;

	config_check_duration(
		f, "window", config_given(f, "window"), NSEC_PER_SEC, 3600 * NSEC_PER_SEC, &ns);
	if (ns % NSEC_PER_SEC)
		config_fail_field(f, "window", "is not a whole number of seconds");
	*window_s = (uint16_t)(ns / NSEC_PER_SEC);
}

static void config_check_ratio(struct config_field f, uint8_t *percent)
{
	const char *text = config_given(f, "error_ratio");
	char quoted[CONFIG_TEXT_MAX + 8];
	unsigned value = *percent;

	if (text && !config_parse_percent(text, &value))
		config_fail_field(f, "error_ratio",
			"\"%s\" is not a percentage; write 0%% to 100%%, such as 50%%",
			config_quote(text, quoted));
	else
		*percent = (uint8_t)value;
}

static void config_check_deviation(struct config_field f, uint16_t *percent)
{
	const char *text = config_given(f, "deviation"), *rest;
	char quoted[CONFIG_TEXT_MAX + 8];
	uint64_t value;

	if (!text)
		return;
	rest = config_parse_decimal(text, 2, &value);
	if (rest && *rest == '\0' && value <= 1000)
		*percent = (uint16_t)value;
	else
		config_fail_field(f, "deviation",
			"\"%s\" is not allowed; write a number from 0 to 10, at most two decimals, "
			"such as 2.5",
			config_quote(text, quoted));
}

static void config_check_breaker_group(struct config_field f, struct breaker_settings *s)
{
	config_check_preset(f, "preset", config_given(f, "preset"), s);
	s->run = (uint8_t)config_check_number(f, "failures", 0, UINT8_MAX, s->run);
	config_check_ratio(f, &s->ratio_percent);
	s->calls = (uint16_t)config_check_number(f, "calls", 1, UINT16_MAX, s->calls);
	config_check_window(f, &s->window_s);
	s->probes = (uint8_t)config_check_number(f, "probes", 1, CONFIG_PROBES_MAX, s->probes);
	s->need = (uint8_t)config_check_number(f, "successes", 1, UINT8_MAX, s->need);
	s->lease_ms = config_check_ms(f, "lease", 100, s->lease_ms);
	s->base_ms = config_check_ms(f, "backoff", 100, s->base_ms);
	s->cap_ms = config_check_ms(f, "backoff_max", 100, s->cap_ms);
	config_check_deviation(f, &s->z_percent);
	if (s->base_ms > s->cap_ms)
		config_fail_field(
			f, "backoff", "%u ms is above backoff_max, %u ms", s->base_ms, s->cap_ms);
}

void config_check_breaker(struct config_field f, struct breaker_settings *settings)
{
	char prefix[CONFIG_PATH_MAX];

	config_check_preset(f, "breaker", config_given(f, "breaker"), settings);
	if (config_given_kind(f, "breaker") == CONFIG_KIND_MAPPING)
		config_check_breaker_group(config_field_group(f, "breaker", prefix), settings);
}

bool config_breaker_equal(const struct breaker_settings *a, const struct breaker_settings *b)
{
	return a->run == b->run && a->ratio_percent == b->ratio_percent && a->calls == b->calls &&
		a->window_s == b->window_s && a->probes == b->probes && a->need == b->need &&
		a->lease_ms == b->lease_ms && a->base_ms == b->base_ms && a->cap_ms == b->cap_ms &&
		a->z_percent == b->z_percent;
}
