/* The ring of events as lines to read. */

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/aux.h"
#include "tools/text.h"
#include "tools/top_model.h"
#include "tools/units.h"

/* More than a ring can hold, so that a writer in a loop does not keep the reader in one. */
#define READS_MAX (UINT64_C(1) << 20)

static struct top_event *add(struct top_model *m, unsigned kind, uint64_t time_ns)
{
	struct top_event *e = &m->event[++m->events % TOP_EVENTS];

	*e = (struct top_event){ .number = m->events,
		.kind = kind,
		.time_ns = time_ns,
		.wall_s = top_model_wall_s(m, time_ns) };
	return e;
}

const struct top_event *top_model_event(const struct top_model *m, uint64_t number)
{
	const struct top_event *e = &m->event[number % TOP_EVENTS];

	return number != 0 && e->number == number ? e : NULL;
}

uint64_t top_model_tell(struct top_model *m)
{
	uint64_t first = m->told + 1,
		 kept = m->events < TOP_EVENTS ? 1 : m->events - TOP_EVENTS + 1;

	if (first < kept)
		m->lost += kept - first;
	m->told = m->events;
	return max_u64(first, kept);
}

const char *top_event_kind(const struct top_event *e)
{
	if (e->kind == 0)
		return "note";
	switch ((enum event_kind)e->kind) {
	case EVENT_BREAKER:
		return "breaker";
	case EVENT_PAUSE:
		return "pause";
	case EVENT_LIMIT:
		return "limit";
	case EVENT_PARTICIPANT:
		return "participant";
	case EVENT_EVICTED:
		return "evicted";
	case EVENT_PAUSE_TARGET:
		return "pause_target";
	}
	return "unknown";
}

void top_model_note(struct top_model *m, const char *format, ...)
{
	struct top_event *e = add(m, 0, m->now_ns);
	va_list args;

	va_start(args, format);
	vsnprintf(e->text, sizeof(e->text), format, args);
	va_end(args);
	text_clean(e->text);
}

/* ---- names of rows ---- */

static const char *target_name(const struct region *r, uint32_t row, char out[TOP_LABEL])
{
	struct target_view t;

	if (target_view(r, row, &t))
		snprintf(out, TOP_LABEL, "%s", t.name);
	else
		snprintf(out, TOP_LABEL, "target in row %u", row);
	text_clean(out);
	return out;
}

static const char *sampled_name(const struct top_model *m, uint32_t row)
{
	for (uint32_t i = 0; i < m->limits; i++)
		if (m->limit[i].row == row)
			return m->limit[i].label;
	return NULL;
}

static const char *limit_name(const struct region *r, uint32_t row, char out[TOP_LABEL])
{
	struct bucket_view v;

	if (bucket_view(r, row, 0, &v))
		command_limit_label(&v, out);
	else
		snprintf(out, TOP_LABEL, "limit in row %u", row);
	return out;
}

static uint64_t limit_resource(const struct region *r, uint32_t row)
{
	struct bucket_view v;

	return bucket_view(r, row, 0, &v) ? v.resource : BUCKET_REQUESTS;
}

/* ---- sentences ---- */

static void tell_breaker(const struct region *r, struct top_event *out)
{
	const struct event *e = &out->e;
	char name[TOP_LABEL], when[UNITS_TEXT];

	snprintf(out->text, sizeof(out->text), "breaker %s: %s -> %s, %s",
		target_name(r, e->row, name), breaker_state_name(e->from),
		breaker_state_name(e->to), breaker_why_name(e->why));
	if (e->to == BREAKER_OPEN && e->value > 0 && e->value < BREAKER_WAIT_FOREVER) {
		size_t n = strlen(out->text);

		snprintf(out->text + n, sizeof(out->text) - n, ", again after %s",
			units_duration(e->value, when));
	}
}

static void tell_pause(const struct region *r, struct top_event *out)
{
	const struct event *e = &out->e;
	char name[TOP_LABEL], how_long[UNITS_TEXT];
	uint64_t left = e->value > e->time_ns ? e->value - e->time_ns : 0;

	if (left)
		snprintf(out->text, sizeof(out->text), "limit %s: paused for %s",
			limit_name(r, e->row, name), units_duration(left, how_long));
	else
		snprintf(out->text, sizeof(out->text), "limit %s: the pause ended",
			limit_name(r, e->row, name));
}

static void tell_target_pause(const struct region *r, struct top_event *out)
{
	const struct event *e = &out->e;
	char name[TOP_LABEL], how_long[UNITS_TEXT];
	uint64_t left = e->value > e->time_ns ? e->value - e->time_ns : 0;

	snprintf(out->text, sizeof(out->text), "target %s: its provider asks for a pause of %s",
		target_name(r, e->row, name), units_duration(left, how_long));
}

static void tell(const struct top_model *m, const struct region *r, struct top_event *out)
{
	const struct event *e = &out->e;
	char name[TOP_LABEL], amount[UNITS_TEXT];
	const char *evicted;

	switch (e->kind) {
	case EVENT_BREAKER:
		tell_breaker(r, out);
		return;
	case EVENT_PAUSE:
		tell_pause(r, out);
		return;
	case EVENT_PAUSE_TARGET:
		tell_target_pause(r, out);
		return;
	case EVENT_LIMIT:
		snprintf(out->text, sizeof(out->text), "limit %s: now %s",
			limit_name(r, e->row, name),
			units_amount(limit_resource(r, e->row), e->value, amount));
		return;
	case EVENT_PARTICIPANT:
		snprintf(out->text, sizeof(out->text), "participant pid %llu: %s",
			(unsigned long long)e->value, e->to ? "came" : "left or died");
		return;
	case EVENT_EVICTED:
		evicted = sampled_name(m, e->row);
		snprintf(out->text, sizeof(out->text), "limit %s: made room for another",
			evicted ? evicted : limit_name(r, e->row, name));
		return;
	}
}

static void note_missing(struct top_model *m, uint64_t lost, uint64_t holes)
{
	m->lost += lost + holes;
	if (lost)
		top_model_note(m, "events lost, because more came than the region keeps: %llu",
			(unsigned long long)lost);
	if (holes)
		top_model_note(m, "events whose writer died while telling: %llu",
			(unsigned long long)holes);
}

void top_model_read_events(struct top_model *m, const struct region *r)
{
	uint64_t head = event_head(r), lost = 0, holes = 0;
	enum event_outcome outcome = EVENT_OK;
	struct event e;

	/* What is there already is worth seeing, and what is not was not lost by this reader. */
	if (!m->has_ticket)
		m->ticket = head > r->events ? head - r->events : 0;
	m->has_ticket = true;
	for (uint64_t i = 0; i < READS_MAX && outcome != EVENT_E_NONE; i++) {
		uint64_t before = m->ticket;

		outcome = event_next(r, &m->ticket, &e);
		if (outcome == EVENT_E_LOST && m->ticket > before)
			lost += m->ticket - before;
		holes += outcome == EVENT_E_HOLE;
		if (outcome != EVENT_OK)
			continue;
		add(m, e.kind, e.time_ns)->e = e;
		tell(m, r, &m->event[m->events % TOP_EVENTS]);
	}
	note_missing(m, lost, holes);
}
