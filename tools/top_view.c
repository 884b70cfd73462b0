#include "tools/top_view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/aux.h"
#include "tools/top_columns.h"
#include "tools/units.h"

#define TITLE_LINES 2 /* of a section: its name, its columns */
#define FOCUS_SHARE 6 /* lines of the focus for each of another section */

/* ---- which rows, in which order ---- */

struct entry {
	uint64_t index;
	double key;
	char text[64];
	bool falls;
};

static const char *lower_of(const char *text, char *out, size_t size)
{
	size_t i = 0;

	for (; text[i] && i + 1 < size; i++)
		out[i] = text[i] >= 'A' && text[i] <= 'Z' ? (char)(text[i] + 32) : text[i];
	out[i] = '\0';
	return out;
}

static bool passes(const struct top_view *v, const char *text)
{
	char low[TOP_EVENT_TEXT], wanted[TOP_FILTER];

	return v->filter[0] == '\0' ||
		strstr(lower_of(text, low, sizeof(low)),
			lower_of(v->filter, wanted, sizeof(wanted)));
}

static int compare(const void *a_, const void *b_)
{
	const struct entry *a = a_, *b = b_;
	int by_key = (a->key > b->key) - (a->key < b->key);
	int by_text = strcmp(a->text, b->text);

	if (by_key)
		return a->falls ? -by_key : by_key;
	if (by_text)
		return by_text;
	return (a->index > b->index) - (a->index < b->index);
}

static uint64_t first_index(const struct top_model *m, enum top_section section)
{
	if (section != TOP_EVENT_LIST)
		return 0;
	return m->events < TOP_EVENTS_SHOWN ? 1 : m->events - TOP_EVENTS_SHOWN + 1;
}

static unsigned collect(const struct top_view *v, const struct top_model *m,
	enum top_section section, struct entry *out, unsigned room)
{
	const struct top_table *t = &top_tables[section];
	const struct top_column *sort = &t->column[v->sort[section]];
	uint64_t index = first_index(m, section);
	const void *row;
	unsigned n = 0;

	for (; n < room && (row = t->row(m, index)) != NULL; index++) {
		char space[TOP_EVENT_TEXT];
		const char *text = t->text(row, space);

		if (!passes(v, text))
			continue;
		out[n] = (struct entry){
			.index = index,
			.key = sort->key ? sort->key(row) : 0,
			.falls = sort->falls,
		};
		snprintf(out[n].text, sizeof(out[n].text), "%s", text);
		n++;
	}
	return n;
}

static unsigned rows_of(const struct top_model *m, enum top_section section)
{
	switch (section) {
	case TOP_LIMITS:
		return m->limits;
	case TOP_TARGETS:
		return m->targets;
	case TOP_PARTICIPANTS:
		return m->participants;
	default:
		return m->events < TOP_EVENTS_SHOWN ? (unsigned)m->events : TOP_EVENTS_SHOWN;
	}
}

uint64_t *top_view_rows(const struct top_view *v, const struct top_model *m,
	enum top_section section, unsigned *count)
{
	unsigned n = rows_of(m, section);
	aux_cleanup(freep) struct entry *entry = calloc(n + 1, sizeof(*entry));
	uint64_t *out = calloc(n + 1, sizeof(*out));

	*count = 0;
	if (!entry || !out) {
		free(out);
		return NULL;
	}
	*count = n = collect(v, m, section, entry, n);
	qsort(entry, n, sizeof(*entry), compare);
	for (unsigned i = 0; i < n; i++)
		out[i] = entry[v->reverse[section] ? n - 1 - i : i].index;
	return out;
}

/* ---- the head ---- */

static const char *daemon_text(enum command_daemon daemon)
{
	return daemon == COMMAND_DAEMON_RUNNING  ? "running" :
		daemon == COMMAND_DAEMON_STOPPED ? "stopped" :
						   "DEAD";
}

static void draw_daemon(struct canvas *c, const struct top_view *v, const struct top_model *m)
{
	const struct region_status *s = &m->status;
	uint64_t since_ns = m->daemon == COMMAND_DAEMON_RUNNING ? s->adopted_ns : s->heartbeat_ns;
	char age[UNITS_TEXT];

	canvas_text(c, CANVAS_BOLD, "llmkit top ");
	canvas_printf(c, m->daemon == COMMAND_DAEMON_RUNNING ? CANVAS_GOOD : CANVAS_BAD, "%s",
		daemon_text(m->daemon));
	units_duration(m->now_ns > since_ns ? m->now_ns - since_ns : 0, age);
	if (m->daemon == COMMAND_DAEMON_RUNNING)
		canvas_printf(
			c, CANVAS_PLAIN, " pid %llu up %s", (unsigned long long)s->daemon_pid, age);
	else
		canvas_printf(c, CANVAS_PLAIN, " pid %llu, %s ago; limits stay valid",
			(unsigned long long)s->daemon_pid, age);
	if (v->is_paused)
		canvas_text(c, CANVAS_MARKED, " paused ");
	if (v->trouble)
		canvas_printf(c, CANVAS_BAD, " %s", v->trouble);
}

static void put_figure(struct canvas *c, const char *name, double value, enum canvas_style style)
{
	char text[UNITS_TEXT];

	if (value >= 1000)
		units_count((uint64_t)value, text);
	else
		snprintf(text, sizeof(text), "%.*f", value < 100 && value > 0 ? 1 : 0, value);
	canvas_printf(c, CANVAS_DIM, "%s%s ", c->column ? "  " : "", name);
	canvas_text(c, value > 0 ? style : CANVAS_DIM, text);
}

static void put_count(struct canvas *c, const char *name, uint64_t value)
{
	char text[UNITS_TEXT];

	canvas_printf(c, CANVAS_DIM, "%s%s ", c->column ? "  " : "", name);
	canvas_text(c, CANVAS_PLAIN, units_count(value, text));
}

static void draw_traffic(struct canvas *c, const struct top_model *m)
{
	put_figure(c, "req/s", m->rate[COUNTER_requests_started], CANVAS_BOLD);
	put_count(c, "active", m->counter[COUNTER_requests_active]);
	put_count(c, "flight", m->in_flight);
	put_figure(c, "failed/s", m->rate[COUNTER_requests_failed], CANVAS_BAD);
	put_figure(c, "limited/s", m->rate[COUNTER_requests_limited], CANVAS_WARN);
	put_figure(c, "tokens/s in", m->rate[COUNTER_tokens_input], CANVAS_PLAIN);
	put_figure(c, "out", m->rate[COUNTER_tokens_output], CANVAS_PLAIN);
	put_count(c, "clients", m->counter[COUNTER_connections_open]);
	put_figure(c, "fallbacks/s", m->rate[COUNTER_fallbacks], CANVAS_WARN);
}

/* ---- a section ---- */

static unsigned width_of(const struct top_column *column, unsigned all)
{
	return column->wide_from && all >= column->wide_from ? column->wide : column->width;
}

/* What the columns of fixed width leave, with a space between. */
static unsigned rest_of(const struct top_table *t, unsigned all)
{
	unsigned used = 0;

	for (unsigned i = 0; i < t->columns; i++)
		if (all >= t->column[i].from && t->column[i].width)
			used += width_of(&t->column[i], all) + 1;
	return all > used ? all - used : 0;
}

static void draw_row(struct canvas *c, const struct top_table *t, const void *row)
{
	for (unsigned i = 0; i < t->columns; i++) {
		const struct top_column *column = &t->column[i];
		unsigned width = column->width ? width_of(column, c->width) : rest_of(t, c->width);

		if (c->width < column->from || width == 0)
			continue;
		if (c->column)
			canvas_pad(c, c->column + 1);
		column->draw(c, row, width);
	}
}

static void draw_titles(
	struct canvas *c, const struct top_table *t, unsigned sort, bool is_reversed)
{
	for (unsigned i = 0; i < t->columns; i++) {
		const struct top_column *column = &t->column[i];
		unsigned width = column->width ? width_of(column, c->width) : rest_of(t, c->width);
		char title[32];

		if (c->width < column->from || width == 0)
			continue;
		if (c->column)
			canvas_pad(c, c->column + 1);
		snprintf(title, sizeof(title), "%s%s", column->title,
			i != sort                            ? "" :
				column->falls != is_reversed ? "v" :
							       "^");
		canvas_field(
			c, i == sort ? CANVAS_BOLD : CANVAS_DIM, title, width, column->at_right);
	}
}

struct part {
	uint64_t *row;
	unsigned rows, lines; /* that it has, that it gets on the screen */
};

static void draw_name(struct canvas *c, const struct top_view *v, enum top_section section,
	const struct part *p, unsigned shown)
{
	bool has_focus = section == v->focus;
	char text[96];

	snprintf(text, sizeof(text), " %u %s ", (unsigned)section + 1, top_tables[section].name);
	canvas_text(c, has_focus ? CANVAS_MARKED : CANVAS_BOLD, text);
	if (shown < p->rows)
		snprintf(text, sizeof(text), " %u-%u of %u", v->first[section] + 1,
			v->first[section] + shown, p->rows);
	else
		snprintf(text, sizeof(text), " %u", p->rows);
	canvas_text(c, CANVAS_DIM, text);
	if (v->filter[0])
		canvas_printf(c, CANVAS_WARN, " with \"%s\"", v->filter);
	canvas_text(c, CANVAS_DIM, " ");
	canvas_fill(c, CANVAS_DIM, "─", '-', c->width - c->column);
}

static void draw_section(struct canvas *c, struct top_view *v, const struct top_model *m,
	enum top_section section, const struct part *p)
{
	const struct top_table *t = &top_tables[section];
	unsigned shown = p->lines > TITLE_LINES ? p->lines - TITLE_LINES : 0;

	if (p->lines == 0)
		return;
	if (shown > p->rows)
		shown = p->rows;
	v->last[section] = p->rows - shown;
	if (v->first[section] > v->last[section])
		v->first[section] = v->last[section];
	if (section == v->focus)
		v->page = shown;
	if (!canvas_begin(c))
		return;
	draw_name(c, v, section, p, shown);
	canvas_end(c);
	if (p->lines < TITLE_LINES || !canvas_begin(c))
		return;
	draw_titles(c, t, v->sort[section], v->reverse[section]);
	canvas_end(c);
	for (unsigned i = 0; i < shown && canvas_begin(c); i++) {
		const void *row = t->row(m, p->row[v->first[section] + i]);

		if (row)
			draw_row(c, t, row);
		canvas_end(c);
	}
}

/* ---- how much of each ---- */

static unsigned lines_wanted(const struct part *p)
{
	return TITLE_LINES + p->rows;
}

/* One more line for it, if it wants it. */
static bool give(struct part *p, unsigned *room)
{
	if (*room == 0 || p->lines >= lines_wanted(p))
		return false;
	p->lines++;
	--*room;
	return true;
}

/* The focus first, then a few rows of each that fits; what is left goes round. */
static void share(const struct top_view *v, struct part part[TOP_SECTIONS], unsigned room)
{
	bool gave = true;

	for (unsigned i = 0; i < TITLE_LINES + 3; i++)
		give(&part[v->focus], &room);
	for (unsigned s = 0; s < TOP_SECTIONS; s++) {
		unsigned least = part[s].rows ? TITLE_LINES + 1 : 1;

		for (; s != v->focus && room >= least && part[s].lines < least; room--)
			part[s].lines++;
	}
	while (room > 0 && gave) {
		gave = false;
		for (unsigned i = 0; i < FOCUS_SHARE; i++)
			gave |= give(&part[v->focus], &room);
		for (unsigned s = 0; s < TOP_SECTIONS; s++)
			if (s != v->focus && part[s].lines >= TITLE_LINES)
				gave |= give(&part[s], &room);
	}
}

static void draw_sections(
	struct canvas *c, struct top_view *v, const struct top_model *m, unsigned room)
{
	struct part part[TOP_SECTIONS] = { 0 };

	for (unsigned s = 0; s < TOP_SECTIONS; s++) {
		part[s].row = top_view_rows(v, m, (enum top_section)s, &part[s].rows);
		part[s].lines = c->height ? 0 : lines_wanted(&part[s]);
	}
	if (c->height)
		share(v, part, room);
	for (unsigned s = 0; s < TOP_SECTIONS; s++) {
		draw_section(c, v, m, (enum top_section)s, &part[s]);
		free(part[s].row);
	}
}

/* ---- the rest ---- */

static void draw_help(struct canvas *c, unsigned room)
{
	static const char *const lines[] = {
		"q             quit",
		"1-4, tab      section; arrows and page keys move in it",
		"s, r          sort by the next column, the other way round",
		"/             only rows with this text: enter keeps it, escape drops it",
		"p             pause, go on",
		"+, -          look less often, more often",
		"",
		"USED: what is owed, then what requests in flight hold, then what is left",
		"FULL IN: until all is back if nothing more is taken",
		"active: requests in the daemon; flight: calls at providers, of all processes",
		"ERRORS: of the breaker's window",
		"P50, P99: time to the first token in the last minute",
		"LATENCY: time to the first token by interval; a step is a factor of 1.4",
		"HOLDS: requests in flight that hold tokens, money or concurrency",
		"",
		"any key goes back",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(lines) && i < room && canvas_begin(c); i++) {
		canvas_text(c, CANVAS_PLAIN, lines[i]);
		canvas_end(c);
	}
}

static void draw_keys(struct canvas *c, const struct top_view *v)
{
	char interval[UNITS_TEXT];

	if (v->types_filter) {
		canvas_printf(c, CANVAS_PLAIN, "/%s", v->filter);
		canvas_text(c, CANVAS_MARKED, " ");
		return;
	}
	canvas_printf(c, CANVAS_DIM, "every %s", units_duration(v->interval_ns, interval));
	if (v->filter[0])
		canvas_printf(c, CANVAS_WARN, "  /%s", v->filter);
	canvas_text(c, CANVAS_DIM,
		"  q quit  ? help  tab section  s sort  r reverse  / filter  p pause  +- interval");
}

void top_view_draw(struct top_view *v, const struct top_model *m, struct canvas *c)
{
	unsigned used;

	if (canvas_begin(c)) {
		draw_daemon(c, v, m);
		canvas_end(c);
	}
	if (canvas_begin(c)) {
		draw_traffic(c, m);
		canvas_end(c);
	}
	used = c->lines + 1;
	if (v->shows_help && c->height)
		draw_help(c, c->height > used ? c->height - used : 0);
	else
		draw_sections(c, v, m, c->height > used ? c->height - used : 0);
	if (c->height == 0)
		return;
	while (c->lines + 1 < c->height && canvas_begin(c))
		canvas_end(c);
	if (canvas_begin(c)) {
		draw_keys(c, v);
		canvas_end(c);
	}
}
