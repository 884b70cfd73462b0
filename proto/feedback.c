#include "proto/feedback.h"

#include <string.h>
#include "base/aux.h"
#include "proto/moment.h"
#include "proto/scan.h"

bool feedback_parse_reset(struct str text, uint64_t unix_ns, uint64_t *ns)
{
	struct moment m;

	if (!moment_parse(text, &m))
		return false;
	*ns = m.is_date ? moment_until(m.unix_ns, unix_ns) : m.ns;
	return true;
}

static bool parse_count(struct str text, uint64_t *n)
{
	if (!moment_parse_number(text, 0, n))
		return false;
	*n = min_u64(*n, FEEDBACK_LIMIT_MAX);
	return true;
}

/* ---- levels; merging is the same in any order and any number of times ---- */

enum word { WORD_LIMIT, WORD_REMAINING, WORD_RESET, WORD_RENEWAL, WORD_WINDOW, WORD_UNIT };

static void level_merge(struct feedback_level *l, const struct feedback_level *with)
{
	if (with->has_limit)
		l->limit = l->has_limit ? min_u64(l->limit, with->limit) : with->limit;
	if (with->has_remaining)
		l->remaining =
			l->has_remaining ? min_u64(l->remaining, with->remaining) : with->remaining;
	l->has_limit |= with->has_limit;
	l->has_remaining |= with->has_remaining;
	l->has_reset |= with->has_reset;
	l->reset_ns = max_u64(l->reset_ns, with->reset_ns);
	l->reset_unix_ns = max_u64(l->reset_unix_ns, with->reset_unix_ns);
	l->renewal_ns = max_u64(l->renewal_ns, with->renewal_ns);
}

/* False: the value makes no sense. Azure really sends limits of -1 and 0. */
static bool level_parse(struct feedback_level *l, enum word word, struct str value)
{
	struct moment m;

	switch (word) {
	case WORD_LIMIT:
		l->has_limit = parse_count(value, &l->limit) && l->limit > 0;
		return l->has_limit;
	case WORD_REMAINING:
		l->has_remaining = parse_count(value, &l->remaining);
		return l->has_remaining;
	case WORD_RESET:
		l->has_reset = moment_parse(value, &m);
		l->reset_ns = l->has_reset && !m.is_date ? m.ns : 0;
		l->reset_unix_ns = l->has_reset && m.is_date ? m.unix_ns : 0;
		return l->has_reset;
	default: /* WORD_RENEWAL; a date is none, and has no ns */
		if (!moment_parse(value, &m) || m.ns == 0)
			return false;
		l->renewal_ns = m.ns;
		return true;
	}
}

/* Dates become times from now on. */
static void level_settle(struct feedback_level *l, uint64_t unix_ns)
{
	l->reset_ns = max_u64(l->reset_ns, moment_until(l->reset_unix_ns, unix_ns));
	l->reset_unix_ns = 0;
}

/* ---- headers ---- */

struct row;
static bool take_level(struct feedback *f, const struct row *row, struct str value);
static bool take_first_limit(struct feedback *f, const struct row *row, struct str value);
static bool take_policies(struct feedback *f, const struct row *row, struct str value);
static bool take_retry_after_ms(struct feedback *f, const struct row *row, struct str value);
static bool take_x_ms_retry_after_ms(struct feedback *f, const struct row *row, struct str value);
static bool take_retry_after(struct feedback *f, const struct row *row, struct str value);
static bool take_should_retry(struct feedback *f, const struct row *row, struct str value);
static bool take_date(struct feedback *f, const struct row *row, struct str value);

#define FEEDBACK_UNSAID FEEDBACK_WINDOWS

static const struct row {
	const char *name;
	/* False: the value makes no sense. */
	bool (*take)(struct feedback *f, const struct row *row, struct str value);
	unsigned axis, window;
	enum word word; /* what the * of the name was */
} rows[] = {
#define FEEDBACK_LEVEL(name_, axis_, window_) \
	{ name_, take_level, FEEDBACK_##axis_, FEEDBACK_##window_, WORD_LIMIT },
#define FEEDBACK_FIELD(name_, take_) { name_, take_, 0, 0, WORD_LIMIT },
#include "proto/tbl/feedback.h"
#undef FEEDBACK_LEVEL
#undef FEEDBACK_FIELD
};

static const char *const words[] = {
	[WORD_LIMIT] = "limit",
	[WORD_REMAINING] = "remaining",
	[WORD_RESET] = "reset",
	[WORD_RENEWAL] = "renewalperiod",
};

static bool row_fits(struct row *row, struct str name)
{
	const char *pattern = row->name;

	for (; *pattern != '*'; pattern++, scan_skip(&name, 1)) {
		if (*pattern == '\0')
			return name.length == 0;
		if (!scan_at(name, *pattern))
			return false;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		struct str rest = name;

		if (scan_word(&rest, words[i]) && scan_is(rest, pattern + 1)) {
			row->word = i;
			return true;
		}
	}
	return false;
}

void feedback_header(struct feedback *f, struct str name, struct str value)
{
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct row row = rows[i];

		if (row_fits(&row, name)) {
			f->ignored += !row.take(f, &row, value);
			return;
		}
	}
}

static struct feedback_level *feedback_level(struct feedback *f, unsigned window, unsigned axis)
{
	return window == FEEDBACK_UNSAID ? &f->unsaid[axis] : &f->level[window][axis];
}

static bool take_level(struct feedback *f, const struct row *row, struct str value)
{
	struct feedback_level said = { 0 };

	if (!level_parse(&said, row->word, value))
		return false;
	level_merge(feedback_level(f, row->window, row->axis), &said);
	return true;
}

static bool take_retry(struct feedback *f, unsigned rank, const struct moment *m)
{
	if (rank > f->retry_rank) {
		f->retry_rank = rank;
		f->retry_after_ns = f->retry_unix_ns = 0;
	}
	if (rank == f->retry_rank) {
		f->has_retry_after = true;
		f->retry_after_ns = max_u64(f->retry_after_ns, m->ns);
		f->retry_unix_ns = max_u64(f->retry_unix_ns, m->unix_ns);
	}
	return true;
}

/* Azure sends 0 with a wait in Retry-After. */
static bool take_retry_ms(struct feedback *f, unsigned rank, struct str value)
{
	struct moment m = { 0 };

	if (!moment_parse_number(value, 6, &m.ns))
		return false;
	m.ns = min_u64(m.ns, FEEDBACK_RESET_MAX_NS);
	return m.ns > 0 && take_retry(f, rank, &m);
}

static bool take_retry_after_ms(struct feedback *f, const struct row *row, struct str value)
{
	(void)row;
	return take_retry_ms(f, 3, value);
}

static bool take_x_ms_retry_after_ms(struct feedback *f, const struct row *row, struct str value)
{
	(void)row;
	return take_retry_ms(f, 2, value);
}

static bool take_retry_after(struct feedback *f, const struct row *row, struct str value)
{
	struct moment m;

	(void)row;
	return moment_parse(value, &m) && take_retry(f, 1, &m);
}

static bool take_should_retry(struct feedback *f, const struct row *row, struct str value)
{
	bool no = scan_is(scan_trim(value), "false"), yes = scan_is(scan_trim(value), "true");

	(void)row;
	if (no)
		f->should_retry = 0;
	else if (yes && f->should_retry < 0)
		f->should_retry = 1;
	return no || yes;
}

static bool take_date(struct feedback *f, const struct row *row, struct str value)
{
	uint64_t unix_ns;

	(void)row;
	if (!moment_parse_date(value, &unix_ns))
		return false;
	f->date_unix_ns = f->has_date ? min_u64(f->date_unix_ns, unix_ns) : unix_ns;
	f->has_date = true;
	return true;
}

/* ---- the IETF draft (draft-ietf-httpapi-ratelimit-headers) ---- */

static const struct {
	const char *name;
	enum word word;
} parameters[] = {
	{ "limit", WORD_LIMIT },
	{ "q", WORD_LIMIT },
	{ "remaining", WORD_REMAINING },
	{ "r", WORD_REMAINING },
	{ "reset", WORD_RESET },
	{ "t", WORD_RESET },
	{ "w", WORD_WINDOW },
	{ "qu", WORD_UNIT },
};

/* As quota units and as names of policies. */
static const char *const axes[FEEDBACK_AXES] = {
	[FEEDBACK_REQUESTS] = "requests",
	[FEEDBACK_TOKENS] = "tokens",
	[FEEDBACK_INPUT_TOKENS] = "input-tokens",
	[FEEDBACK_OUTPUT_TOKENS] = "output-tokens",
};

/* FEEDBACK_AXES: none that we know. */
static unsigned axis_find(struct str name)
{
	unsigned i = 0;

	while (i < FEEDBACK_AXES && !scan_is(name, axes[i]))
		i++;
	return i;
}

/* Cuts off what is before the first end outside of quotes, and the end. */
static struct str take_until(struct str *text, char end)
{
	struct str all = *text;
	bool quoted = false;
	size_t n = 0;

	for (; n < all.length && (quoted || all.data[n] != end); n++) {
		if (quoted && all.data[n] == '\\' && n + 1 < all.length)
			n++;
		else if (all.data[n] == '"')
			quoted = !quoted;
	}
	scan_skip(text, min_u64(n + 1, all.length));
	return scan_trim(str_make(all.data, n));
}

static struct str unquote(struct str s)
{
	if (s.length >= 2 && s.data[0] == '"' && s.data[s.length - 1] == '"')
		return str_make(s.data + 1, s.length - 2);
	return s;
}

/* FNV-1a */
static uint64_t policy_key(struct str name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < name.length; i++)
		hash = (hash ^ (unsigned char)name.data[i]) * UINT64_C(0x100000001b3);
	return hash;
}

static bool policy_parse(struct feedback_policy *p, enum word word, struct str value)
{
	struct feedback_level said = { 0 };

	switch (word) {
	case WORD_WINDOW:
		return parse_count(value, &p->window_s) && p->window_s > 0;
	case WORD_UNIT:
		p->axis = axis_find(unquote(value));
		return true;
	default:
		if (!level_parse(&said, word, value))
			return false;
		level_merge(&p->level, &said);
		return true;
	}
}

/* "q=100"; those that say nothing of limits are skipped. */
static bool policy_take_parameter(struct feedback_policy *p, struct str text)
{
	struct str name = take_until(&text, '=');

	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++)
		if (scan_is(name, parameters[i].name))
			return policy_parse(p, parameters[i].word, scan_trim(text));
	return true;
}

static bool policy_take_parameters(struct feedback_policy *p, struct str text)
{
	bool good = true;

	while (text.length > 0)
		good &= policy_take_parameter(p, take_until(&text, ';'));
	return good;
}

/* Those of the least keys stay, whatever the order they come in. */
static struct feedback_policy *feedback_policy(struct feedback *f, uint64_t key)
{
	unsigned i = 0;

	while (i < f->policies && f->policy[i].key < key)
		i++;
	if (i < f->policies && f->policy[i].key == key)
		return &f->policy[i];
	if (i == FEEDBACK_POLICIES)
		return NULL;
	f->policies += f->policies < FEEDBACK_POLICIES;
	memmove(&f->policy[i + 1], &f->policy[i],
		(f->policies - i - 1) * sizeof(struct feedback_policy));
	f->policy[i] = (struct feedback_policy){ .key = key };
	return &f->policy[i];
}

static void policy_keep(struct feedback *f, const struct feedback_policy *p)
{
	struct feedback_policy *kept = feedback_policy(f, p->key);

	if (!kept)
		return;
	level_merge(&kept->level, &p->level);
	/* An axis that is not the first, and a window, are said by one of the two headers only. */
	kept->axis = kept->axis > p->axis ? kept->axis : p->axis;
	kept->window_s = max_u64(kept->window_s, p->window_s);
}

/* '"default";q=100;w=60', or of the older drafts '100;w=60' */
static bool take_policy(struct feedback *f, struct str name, struct str rest)
{
	struct feedback_policy p = { .axis = axis_find(unquote(name)) };
	bool good = true;

	if (p.axis == FEEDBACK_AXES)
		p.axis = FEEDBACK_REQUESTS;
	p.key = policy_key(unquote(name));
	if (name.length > 0 && scan_is_digit(name.data[0]))
		good = policy_parse(&p, WORD_LIMIT, name);
	good &= policy_take_parameters(&p, rest);
	policy_keep(f, &p);
	return good;
}

/*
 * A list of policies, or of the older drafts one policy in parts,
 * 'limit=100, remaining=50, reset=30', whose name in RateLimit-Policy is its limit.
 */
static bool take_policies(struct feedback *f, const struct row *row, struct str value)
{
	struct feedback_policy parts = { .key = policy_key(STR_NULL) };
	bool good = scan_trim(value).length > 0, in_parts = false;

	(void)row;
	while (value.length > 0) {
		struct str member = take_until(&value, ','), name = take_until(&member, ';');
		struct str rest = name, key = take_until(&rest, '=');

		if (key.length == name.length) {
			good &= take_policy(f, name, member);
			continue;
		}
		in_parts = true;
		if (scan_is(key, "limit"))
			parts.key = policy_key(scan_trim(rest));
		good &= policy_take_parameter(&parts, name);
		good &= policy_take_parameters(&parts, member);
	}
	if (in_parts)
		policy_keep(f, &parts);
	return good;
}

/* "100, 100;w=60" of the early drafts: the limit that counts now, then all policies. */
static bool take_first_limit(struct feedback *f, const struct row *row, struct str value)
{
	struct str first = take_until(&value, ',');
	struct row level = {
		.take = row->take, .axis = FEEDBACK_REQUESTS, .window = FEEDBACK_UNSAID
	};

	return take_level(f, &level, take_until(&first, ';'));
}

/* ---- the end ---- */

/* The limit of another window than ours is no limit of ours; what is left of it still is. */
static void policy_settle(struct feedback *f, const struct feedback_policy *p)
{
	struct feedback_level level = p->level;
	unsigned window = FEEDBACK_UNSAID;

	if (p->axis == FEEDBACK_AXES)
		return;
	if (p->window_s == 60)
		window = FEEDBACK_MINUTE;
	else if (p->window_s == 86400)
		window = FEEDBACK_DAY;
	else if (p->window_s >= 28 * 86400 && p->window_s <= 31 * 86400)
		window = FEEDBACK_MONTH;
	else if (p->window_s > 0)
		level.has_limit = false;
	level_merge(feedback_level(f, window, p->axis), &level);
}

/* A second more than the minute: a Date header is cut to its second. */
#define MINUTE_RESET_MAX_NS (61 * NSEC_PER_SEC)

static void feedback_settle(struct feedback *f, uint64_t unix_ns)
{
	for (unsigned i = 0; i < f->policies; i++)
		policy_settle(f, &f->policy[i]);
	for (unsigned axis = 0; axis < FEEDBACK_AXES; axis++) {
		struct feedback_level *l = &f->unsaid[axis];

		level_settle(l, unix_ns);
		level_merge(&f->level[l->reset_ns > MINUTE_RESET_MAX_NS ? FEEDBACK_DAY :
									  FEEDBACK_MINUTE][axis],
			l);
	}
	for (unsigned i = 0; i < FEEDBACK_WINDOWS * FEEDBACK_AXES; i++) {
		struct feedback_level *l = &f->level[i / FEEDBACK_AXES][i % FEEDBACK_AXES];

		level_settle(l, unix_ns);
		if (l->has_limit && l->has_remaining && l->remaining > l->limit) {
			l->has_remaining = false;
			f->ignored++;
		}
	}
}

/* How error texts tell a wait: OpenAI and Groq, Azure, Gemini's prose and its RetryInfo. */
static const char *const phrases[] = { "try again in", "retry after", "retry in", "retrydelay" };

/* Between a phrase and its wait: space, or the quotes and the colon of JSON, inside of JSON too. */
static bool is_gap(char c)
{
	return memchr(" \t\r\n\":\\", c, 7) != NULL;
}

/* As text and not as JSON: it may be cut, wrapped in an array, or the text of another's error. */
static void feedback_scan(struct feedback *f, struct str body)
{
	uint64_t ns;

	for (; body.length > 0; scan_skip(&body, 1)) {
		for (size_t i = 0; i < ARRAY_SIZE(phrases); i++) {
			struct str rest = body;

			if (!scan_word(&rest, phrases[i]))
				continue;
			while (rest.length > 0 && is_gap(rest.data[0]))
				scan_skip(&rest, 1);
			if (!moment_take_duration(&rest, true, &ns))
				continue;
			f->has_retry_after = true;
			f->retry_after_ns = max_u64(f->retry_after_ns, ns);
		}
	}
}

void feedback_finish(struct feedback *f, struct str body, uint64_t unix_ns)
{
	uint64_t now = f->has_date ? f->date_unix_ns : unix_ns;

	feedback_settle(f, now);
	f->retry_after_ns = max_u64(f->retry_after_ns, moment_until(f->retry_unix_ns, now));
	feedback_scan(f, body);
}

#define BACKOFF_FIRST_NS NSEC_PER_SEC
#define BACKOFF_MAX_NS (60 * NSEC_PER_SEC)

/* Equal jitter: full jitter waits next to nothing too often for windows of a minute. */
static uint64_t backoff_ns(unsigned attempt, uint64_t random)
{
	uint64_t d = min_u64(BACKOFF_FIRST_NS << min_u64(attempt, 6), BACKOFF_MAX_NS);

	return d / 2 + random % (d / 2);
}

/* How long an axis with nothing left asks to wait. A reset tells when all of it is back, which is
 * long after some is: beside a Retry-After only those count that name their renewal period, whose
 * Retry-After is known to be too short (Azure). */
static uint64_t level_pause_ns(const struct feedback_level *l, bool told)
{
	if (!l->has_remaining || l->remaining != 0 || (told && l->renewal_ns == 0))
		return 0;
	return max_u64(l->reset_ns, l->renewal_ns);
}

uint64_t feedback_pause_ns(const struct feedback *f, unsigned attempt, uint64_t random)
{
	uint64_t pause = f->has_retry_after ? f->retry_after_ns : 0;
	bool told = pause != 0;

	for (unsigned i = 0; i < FEEDBACK_WINDOWS * FEEDBACK_AXES; i++)
		pause = max_u64(pause,
			level_pause_ns(&f->level[i / FEEDBACK_AXES][i % FEEDBACK_AXES], told));
	if (pause == 0 && !f->has_retry_after)
		pause = backoff_ns(attempt, random);
	return min_u64(max_u64(pause, FEEDBACK_PAUSE_MIN_NS), FEEDBACK_PAUSE_MAX_NS);
}
