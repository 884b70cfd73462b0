#include "daemon/config/config_check.h"

#include <errno.h>
#include <stdio.h>
#include "base/error.h"
#include "daemon/config/config_units.h"

#define CONFIG_AUTO_REQUESTS UINT64_C(10000)  /* a second, before an answer names a limit */
#define CONFIG_AUTO_TOKENS UINT64_C(10000000) /* a minute */

/* What has been seen of limits and templates while they are checked. */
struct config_limits {
	struct config *c;
	struct config_report *report;
	unsigned *entry;                  /* of "limits:" that each row of c->limits is from */
	uint8_t used[BUCKET_SCOPE_MASKS]; /* resources, as bits */
	unsigned together, holding;       /* distinct pairs of scope and resource */
	bool told;                        /* that they are too many */
};

/* One entry or template. */
struct config_entry {
	struct config_field field;
	struct config_limit base; /* scope and name */
	bool template;            /* for any name */
	bool reserve;
	unsigned given; /* resources, as bits */
	unsigned count;
	struct config_limit row[BUCKET_RESOURCES];
};

static bool config_is_leaky(enum bucket_resource resource)
{
	return resource != BUCKET_CONCURRENCY && resource != BUCKET_MONEY;
}

static struct config_limit *config_entry_add(struct config_entry *e, enum bucket_resource resource)
{
	struct config_limit *row = &e->row[e->count++];

	*row = e->base;
	row->resource = resource;
	row->kind = bucket_kind_of(resource, e->reserve);
	e->given |= 1u << resource;
	return row;
}

static struct config_limit *config_entry_find(struct config_entry *e, enum bucket_resource resource)
{
	for (unsigned i = 0; i < e->count; i++)
		if (e->row[i].resource == resource)
			return &e->row[i];
	return NULL;
}

static void config_default_bursts(struct config_limit *row)
{
	if (row->resource == BUCKET_REQUESTS)
		row->burst = config_default_burst(row->limit, row->window_ns);
	else
		row->burst = config_default_token_burst(row->limit, row->window_ns);
	if (row->kind == BUCKET_HELD)
		row->burst = min_u64(row->burst, BUCKET_HELD_MAX - 1);
}

/* "auto", or "100/s auto": *text becomes what is before it, or NULL. */
static bool config_strip_auto(const char **text, char copy[CONFIG_TEXT_MAX])
{
	size_t length = strlen(*text), head;

	if (strcmp(*text, "auto") == 0) {
		*text = NULL;
		return true;
	}
	head = length > 5 ? length - 5 : 0;
	if (head == 0 || head >= CONFIG_TEXT_MAX || strcmp(*text + head, " auto") != 0)
		return false;
	memcpy(copy, *text, head);
	copy[head] = '\0';
	*text = copy;
	return true;
}

static bool config_may_be_automatic(const struct config_entry *e)
{
	return !e->template && !(e->base.scope & BUCKET_SCOPE_USER);
}

static void config_check_rate(
	struct config_entry *e, enum bucket_resource resource, const char *key, const char *text)
{
	bool requests = resource == BUCKET_REQUESTS;
	char quoted[CONFIG_TEXT_MAX + 8], copy[CONFIG_TEXT_MAX];
	struct config_limit *row = config_entry_add(e, resource);
	const char *rate = text;

	row->automatic = config_strip_auto(&rate, copy);
	if (row->automatic && !config_may_be_automatic(e))
		config_fail_field(e->field, key,
			"\"%s\": auto follows what a provider's answers say, so it is for limits "
			"of a provider, model or key that is named, and not of a user",
			config_quote(text, quoted));
	row->limit = requests ? CONFIG_AUTO_REQUESTS : CONFIG_AUTO_TOKENS;
	row->window_ns = requests ? NSEC_PER_SEC : 60 * NSEC_PER_SEC;
	if (rate && !config_parse_rate(rate, &row->limit, &row->window_ns)) {
		config_fail_field(e->field, key, "\"%s\" is not a rate; " CONFIG_RATE_TEXT,
			config_quote(text, quoted));
		return;
	}
	config_default_bursts(row);
}

static void config_check_concurrency(struct config_entry *e, const char *text)
{
	struct config_limit *row = config_entry_add(e, BUCKET_CONCURRENCY);
	unsigned value = 0;

	config_check_count(e->field, "concurrency", text, 1, BUCKET_HELD_MAX - 1, &value);
	row->limit = row->burst = value;
}

static void config_check_money(struct config_entry *e, const char *text)
{
	struct config_limit *row = config_entry_add(e, BUCKET_MONEY);
	char quoted[CONFIG_TEXT_MAX + 8];

	if (!config_parse_money_rate(text, &row->limit, &row->window_ns)) {
		config_fail_field(e->field, "money",
			"\"%s\" is not a sum of a calendar day or month; write N USD/day or "
			"N USD/month, above 0 and at most " CONFIG_MONEY_MAX_TEXT
			" USD, at most nine decimals, such as 5 USD/day",
			config_quote(text, quoted));
		return;
	}
	row->burst = row->limit;
}

/* The presets are rates of requests; "unlimited" is the fastest there is, so that a name can have
 * more than its template. */
static const struct config_preset {
	const char *name;
	uint64_t per_second;
} config_presets[] = {
	{ "per_provider", 100 },
	{ "per_model", 10 },
	{ "per_user", 1 },
	{ "unlimited", NSEC_PER_SEC },
};

static const struct config_preset *config_find_rate(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(config_presets); i++)
		if (strcmp(config_presets[i].name, name) == 0)
			return &config_presets[i];
	return NULL;
}

static void config_add_preset(struct config_entry *e, const struct config_preset *preset)
{
	struct config_limit *row = config_entry_add(e, BUCKET_REQUESTS);

	row->limit = row->burst = preset->per_second;
	row->window_ns = NSEC_PER_SEC;
}

static void config_check_rate_preset(struct config_entry *e)
{
	const char *text = config_given(e->field, "preset");
	const struct config_preset *preset = text ? config_find_rate(text) : NULL;
	char quoted[CONFIG_TEXT_MAX + 8];

	if (!text)
		return;
	if (!preset)
		config_fail_field(e->field, "preset",
			"\"%s\" is not a preset; allowed: per_provider, per_model, per_user, "
			"unlimited",
			config_quote(text, quoted));
	else if (config_given(e->field, "requests"))
		config_fail_field(e->field, "preset",
			"\"%s\" is a rate of requests, and so is requests; remove one", text);
	else
		config_add_preset(e, preset);
	e->given |= 1u << BUCKET_REQUESTS;
}

static void config_check_burst(struct config_entry *e, struct config_field f, const char *key,
	const char *text, enum bucket_resource resource)
{
	struct config_limit *row = config_entry_find(e, resource);
	char quoted[CONFIG_TEXT_MAX + 8];
	uint64_t burst;

	if (!config_parse_amount(text, &burst) || burst == 0)
		config_fail_field(f, key, "\"%s\" is not allowed; write a whole number from 1",
			config_quote(text, quoted));
	else if (row && row->kind == BUCKET_HELD && burst >= BUCKET_HELD_MAX)
		config_fail_field(f, key, "\"%s\" is not allowed; write a whole number below %u",
			config_quote(text, quoted), BUCKET_HELD_MAX);
	else if (row)
		row->burst = burst;
}

/* One number is for the one resource that has a burst. */
static void config_check_burst_word(struct config_entry *e, const char *text)
{
	unsigned found = 0;
	enum bucket_resource resource = BUCKET_REQUESTS;

	for (unsigned i = 0; i < BUCKET_RESOURCES; i++) {
		if (!config_is_leaky(i) || !(e->given >> i & 1))
			continue;
		resource = i;
		found++;
	}
	if (found == 1)
		config_check_burst(e, e->field, "burst", text, resource);
	else if (found == 0)
		config_fail_field(e->field, "burst",
			"is for requests, input_tokens, output_tokens and tokens; none is given");
	else
		config_fail_field(e->field, "burst",
			"is one number for several resources; write a group, such as "
			"{requests: 50, tokens: 100k}");
}

static void config_check_bursts(struct config_entry *e)
{
	const char *text = config_given(e->field, "burst");
	char prefix[CONFIG_PATH_MAX];
	struct config_field f = config_field_group(e->field, "burst", prefix);

	if (text)
		config_check_burst_word(e, text);
	for (unsigned i = 0; i < BUCKET_RESOURCES; i++) {
		const char *key = bucket_resource_name(i);
		const char *value = config_is_leaky(i) ? config_given(f, key) : NULL;

		if (value && !(e->given >> i & 1))
			config_fail_field(f, key, "is a burst of what is not limited here");
		else if (value)
			config_check_burst(e, f, key, value, i);
	}
}

/* What no table can hold, although each number by itself is allowed. */
static void config_check_range(const struct config_entry *e, const struct config_limit *row)
{
	struct bucket_limit limit = {
		.scope = row->scope,
		.resource = row->resource,
		.kind = row->kind,
		.limit = row->limit,
		.window_ns = row->window_ns,
		.burst = row->burst,
	};
	const struct str any = str_of("x");
	char name[BUCKET_NAME_TEXT] = "";

	/* A template's rows get names later. */
	if (e->template)
		(void)bucket_join(row->scope, &(struct bucket_names){ any, any, any, any }, name);
	limit.name = str_of(row->name ? row->name : name);
	if ((row->name || e->template) && !bucket_limit_is_valid(&limit))
		config_fail_field(e->field, bucket_resource_name(row->resource),
			"%llu with a burst of %llu is out of range: at most 10^12, and a burst "
			"refills within 73 years",
			(unsigned long long)row->limit, (unsigned long long)row->burst);
}

/* Fills row[] from what the file gives. */
static void config_check_entry(struct config_entry *e)
{
	char path[CONFIG_PATH_MAX];
	unsigned before = e->field.report->count;

	config_check_rate_preset(e);
	for (unsigned i = 0; i < BUCKET_RESOURCES; i++) {
		const char *key = bucket_resource_name(i);
		const char *text = config_given(e->field, key);

		if (!text)
			continue;
		if (i == BUCKET_CONCURRENCY)
			config_check_concurrency(e, text);
		else if (i == BUCKET_MONEY)
			config_check_money(e, text);
		else
			config_check_rate(e, i, key, text);
	}
	snprintf(path, sizeof(path), "%.*s", (int)strlen(e->field.prefix) - 1, e->field.prefix);
	if (e->given)
		config_check_bursts(e);
	else
		config_fail(e->field.report, path,
			"limits nothing; give at least one of preset, requests, input_tokens, "
			"output_tokens, tokens, concurrency and money");
	for (unsigned i = 0; i < e->count && e->field.report->count == before; i++)
		config_check_range(e, &e->row[i]);
}

/* How many limits may come together in one call, at worst. */
static void config_count_pair(
	struct config_limits *l, const struct config_entry *e, const struct config_limit *row)
{
	if (l->used[row->scope] >> row->resource & 1)
		return;
	l->used[row->scope] |= (uint8_t)(1u << row->resource);
	l->together++;
	l->holding += row->kind != BUCKET_RATE;
	if (l->told || (l->together <= BUCKET_SET_MAX && l->holding <= CONFIG_HOLDING_MAX))
		return;
	l->told = true;
	config_fail_field(e->field, bucket_resource_name(row->resource),
		"is one too many: %u limits and templates of different scope or resource could "
		"apply to one call, %u of them of tokens, concurrency or money; at most %d and "
		"%d are allowed",
		l->together, l->holding, BUCKET_SET_MAX, CONFIG_HOLDING_MAX);
}

static void config_check_duplicate(
	const struct config_limits *l, const struct config_entry *e, const struct config_limit *row)
{
	char shown[BUCKET_NAME_TEXT];

	for (unsigned k = 0; row->name && k < l->c->limit_count; k++) {
		const struct config_limit *other = &l->c->limits[k];

		if (other->scope != row->scope || other->resource != row->resource ||
			!other->name || strcmp(other->name, row->name) != 0)
			continue;
		snprintf(shown, sizeof(shown), "%s", row->name);
		if (strchr(shown, CONFIG_NAME_JOIN))
			*strchr(shown, CONFIG_NAME_JOIN) = '@';
		config_fail_field(e->field, bucket_resource_name(row->resource),
			"\"%s\" is already limited by limits[%u]", shown, l->entry[k]);
	}
}

static void config_check_key_label(
	const struct config *c, struct config_report *r, const char *path, const char *name)
{
	struct buffer names aux_cleanup(buffer_deinit) = BUFFER_NULL;
	char quoted[CONFIG_TEXT_MAX + 8];

	for (unsigned i = 0; i < c->provider_count; i++) {
		struct str label = config_key_label(&c->providers[i]);

		if (label.length && str_is(label, name))
			return;
		if (label.length)
			(void)buffer_printf(&names, "%s%.*s",
				buffer_length(&names) ? ", " : "there is: ", STR_ARG(label));
	}
	config_fail(r, path, "no provider has a key from \"%s\"; %.*s", config_quote(name, quoted),
		STR_ARG(buffer_length(&names) ? buffer_str(&names) : str_of("there is none")));
}

/* One of the names of an entry; NULL and an error, or nothing when it is not given. */
static char *config_take_scope(const struct config *c, struct config_field f, const char *key,
	const char *text, enum bucket_scope scope)
{
	char path[CONFIG_PATH_MAX];
	char *name;

	snprintf(path, sizeof(path), "%s%s", f.prefix, key);
	if (!text)
		return NULL;
	if (scope == BUCKET_SCOPE_KEY) {
		config_check_key_label(c, f.report, path, text);
		name = strdup(text);
		f.report->failed = name ? f.report->failed : error_origin(-ENOMEM);
		return name;
	}
	name = config_take_word(f.report, path, text);
	if (name && scope == BUCKET_SCOPE_PROVIDER)
		(void)config_take_provider(c, f.report, path, str_of(name));
	return name;
}

/* Of what the limit is; the name of a model is not looked up: providers have more than are
 * configured. */
static void config_check_scope(struct config *c, struct config_entry *e, const char *at,
	const struct config_raw_limit *raw)
{
	char *user aux_cleanup(freep) = NULL, *model aux_cleanup(freep) = NULL;
	char *provider aux_cleanup(freep) = NULL, *key aux_cleanup(freep) = NULL;
	struct config_report *r = e->field.report;
	unsigned before = r->count;
	char joined[BUCKET_NAME_TEXT];
	int found;

	e->base.scope = (raw->user ? BUCKET_SCOPE_USER : 0u) |
		(raw->model ? BUCKET_SCOPE_MODEL : 0u) |
		(raw->provider ? BUCKET_SCOPE_PROVIDER : 0u) | (raw->key ? BUCKET_SCOPE_KEY : 0u);
	if (!bucket_scope_is_valid(e->base.scope)) {
		config_fail(r, at, "give one or two of provider, model, user and key");
		return;
	}
	user = config_take_scope(c, e->field, "user", raw->user, BUCKET_SCOPE_USER);
	model = config_take_scope(c, e->field, "model", raw->model, BUCKET_SCOPE_MODEL);
	provider = config_take_scope(c, e->field, "provider", raw->provider, BUCKET_SCOPE_PROVIDER);
	key = config_take_scope(c, e->field, "key", raw->key, BUCKET_SCOPE_KEY);
	if (r->count != before || r->failed)
		return;
	found = provider ? config_find_provider(c, str_of(provider)) : -1;
	e->reserve = found >= 0 && c->providers[found].reserve;
	if (!bucket_join(e->base.scope,
		    &(struct bucket_names){ user ? str_of(user) : STR_NULL,
			    model ? str_of(model) : STR_NULL,
			    provider ? str_of(provider) : STR_NULL, key ? str_of(key) : STR_NULL },
		    joined)) {
		config_fail(r, at, "the two names have too many characters together");
		return;
	}
	e->base.name = strdup(joined);
	r->failed = e->base.name ? r->failed : error_origin(-ENOMEM);
}

/* Every row has a name of its own. */
static void config_take_rows(struct config_limits *l, unsigned i, struct config_entry *e)
{
	char *name aux_cleanup(freep) = e->base.name;

	for (unsigned k = 0; k < e->count; k++) {
		struct config_limit *to = &l->c->limits[l->c->limit_count];

		config_check_duplicate(l, e, &e->row[k]);
		config_count_pair(l, e, &e->row[k]);
		*to = e->row[k];
		to->name = name ? strdup(name) : NULL;
		if (name && !to->name)
			l->report->failed = error_origin(-ENOMEM);
		l->entry[l->c->limit_count++] = i;
	}
}

static void config_check_limit(
	struct config_limits *l, unsigned i, const struct config_raw_limit *raw)
{
	char prefix[CONFIG_PATH_MAX], at[CONFIG_PATH_MAX];
	struct config_entry e = { .field = { l->report, prefix } };

	snprintf(at, sizeof(at), "limits[%u]", i);
	snprintf(prefix, sizeof(prefix), "limits[%u].", i);
	config_check_scope(l->c, &e, at, raw);
	config_check_entry(&e);
	config_take_rows(l, i, &e);
}

static int config_check_limit_list(struct config_limits *l, const struct config_raw *raw)
{
	unsigned *entry aux_cleanup(freep) = NULL;
	struct config *c = l->c;
	unsigned room = c->tables.limits ? c->tables.limits : CONFIG_LIMITS_MAX;
	unsigned count = config_check_entries(
		l->report, "limits", raw ? raw->limit_count : 0, CONFIG_LIMITS_MAX);

	c->limits = calloc((size_t)count * BUCKET_RESOURCES + 1, sizeof(*c->limits));
	entry = calloc((size_t)count * BUCKET_RESOURCES + 1, sizeof(*entry));
	if (!c->limits || !entry)
		return error_origin(-ENOMEM);
	l->entry = entry;
	for (unsigned i = 0; i < count; i++)
		config_check_limit(l, i, &raw->limits[i]);
	l->entry = NULL;
	if (c->limit_count > min_u64(room, CONFIG_LIMITS_MAX))
		config_fail(l->report, "limits",
			"are %u, each resource counted by itself; there is room for %llu (%s)",
			c->limit_count, (unsigned long long)min_u64(room, CONFIG_LIMITS_MAX),
			room < CONFIG_LIMITS_MAX ? "tables.limits" : "a configuration has no more");
	return l->report->failed;
}

/* "default" and "unlimited" may stand for the group. */
static void config_check_template_word(struct config_entry *e, const char *key, const char *text)
{
	const struct config_preset *preset = config_find_rate(key);
	char quoted[CONFIG_TEXT_MAX + 8];

	if (strcmp(text, "unlimited") == 0)
		return;
	if (strcmp(text, "default") == 0 && preset)
		config_add_preset(e, preset);
	else if (strcmp(text, "default") == 0)
		config_fail_field(e->field, key,
			"has no default; per_user, per_model and per_provider have one. Write "
			"unlimited or a group, such as {requests: 1/s}");
	else
		config_fail_field(e->field, key,
			"\"%s\" is not allowed; write %sunlimited or a group, such as "
			"{requests: 1/s}",
			config_quote(text, quoted), preset ? "default, " : "");
}

static bool config_all_reserve(const struct config *c)
{
	for (unsigned i = 0; i < c->provider_count; i++)
		if (!c->providers[i].reserve)
			return false;
	return c->provider_count > 0;
}

static void config_check_template(struct config_limits *l, unsigned i)
{
	const struct config_template_key *t = &config_template_keys[i];
	struct config_field f = { l->report, "templates." };
	const char *text = config_given(f, t->key);
	struct config *c = l->c;
	char prefix[CONFIG_PATH_MAX];
	struct config_entry e = {
		.field = { l->report, prefix },
		.base = { .scope = t->scope },
		.template = true,
		.reserve = (t->scope & BUCKET_SCOPE_PROVIDER) && config_all_reserve(c),
	};

	snprintf(prefix, sizeof(prefix), "templates.%s.", t->key);
	if (config_given_kind(f, t->key) == CONFIG_KIND_MAPPING) {
		config_check_entry(&e);
	} else if (text) {
		e.field.prefix = f.prefix;
		config_check_template_word(&e, t->key, text);
		e.field.prefix = prefix;
	}
	for (unsigned k = 0; k < e.count; k++) {
		config_count_pair(l, &e, &e.row[k]);
		c->templates[c->template_count++] = e.row[k];
	}
}

int config_check_limits(struct config *c, const struct config_raw *raw, struct config_report *r)
{
	struct config_limits l = { .c = c, .report = r };
	int failed = config_check_limit_list(&l, raw);

	if (failed)
		return failed;
	c->templates = calloc(CONFIG_TEMPLATE_KEYS * BUCKET_RESOURCES, sizeof(*c->templates));
	if (!c->templates)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < CONFIG_TEMPLATE_KEYS; i++)
		config_check_template(&l, i);
	return r->failed;
}
