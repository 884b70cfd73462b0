#include "tools/top_columns.h"

#include <stdio.h>
#include <time.h>
#include "base/aux.h"
#include "tools/units.h"

static void put(struct canvas *c, enum canvas_style style, const char *text, unsigned width)
{
	canvas_field(c, style, text, width, true);
}

/* A number that only catches the eye when it is not 0. */
static void put_rate(struct canvas *c, double rate, enum canvas_style style, unsigned width)
{
	char text[UNITS_TEXT];

	if (rate >= 1000)
		units_count((uint64_t)rate, text);
	else
		snprintf(text, sizeof(text), "%.*f", rate < 100 ? 1 : 0, rate);
	put(c, rate > 0 ? style : CANVAS_DIM, text, width);
}

static void put_duration(struct canvas *c, uint64_t ns, enum canvas_style style, unsigned width)
{
	char text[UNITS_TEXT];

	put(c, style, units_duration(ns, text), width);
}

/* ---- limits ---- */

#define LIMIT(row_) const struct top_limit *l = (row_)

static double used_part(const struct top_limit *l)
{
	return l->v.burst ? (double)l->v.owed / (double)l->v.burst : 0;
}

static double held_part(const struct top_limit *l)
{
	return l->v.burst ? (double)l->v.held / (double)l->v.burst : 0;
}

static void limit_label(struct canvas *c, const void *row, unsigned width)
{
	LIMIT(row);
	canvas_field(c, l->v.origin == BUCKET_ORIGIN_TEMPLATE ? CANVAS_DIM : CANVAS_PLAIN, l->label,
		width, false);
}

static void limit_rate(struct canvas *c, const void *row, unsigned width)
{
	LIMIT(row);
	char text[UNITS_TEXT];

	put(c, CANVAS_PLAIN, units_rate(l->v.resource, l->v.limit, l->v.window_ns, text), width);
}

/* Cells of a part; what is not 0 has one. */
static unsigned cells_of(double part, unsigned width)
{
	unsigned cells = part >= 1 ? width : (unsigned)(part * width + 0.5);

	return cells == 0 && part > 0 ? 1 : cells;
}

/* What is owed, then what is in flight, then what is left. */
static void limit_bar(struct canvas *c, const void *row, unsigned width)
{
	LIMIT(row);
	double used = used_part(l), all = used + held_part(l);
	unsigned held = cells_of(held_part(l), width), solid = cells_of(used, width),
		 cells = cells_of(all, width);

	if (solid > width - held)
		solid = width - held;
	if (cells < solid + held)
		cells = solid + held;
	canvas_fill(c,
		all < 0.75      ? CANVAS_GOOD :
			all < 1 ? CANVAS_WARN :
				  CANVAS_BAD,
		"█", '#', solid);
	canvas_fill(c, CANVAS_HELD, "▒", '=', cells - solid);
	canvas_fill(c, CANVAS_DIM, "·", '.', width - cells);
}

static void limit_left(struct canvas *c, const void *row, unsigned width)
{
	LIMIT(row);
	char text[UNITS_TEXT];

	put(c, l->v.available ? CANVAS_PLAIN : CANVAS_BAD,
		units_amount(l->v.resource, l->v.available, text), width);
}

static void limit_full_in(struct canvas *c, const void *row, unsigned width)
{
	LIMIT(row);
	char wait[UNITS_TEXT], text[UNITS_TEXT + 8];

	if (l->paused_ns == 0) {
		put_duration(c, l->v.full_ns, l->v.full_ns ? CANVAS_PLAIN : CANVAS_DIM, width);
		return;
	}
	snprintf(text, sizeof(text), "paused %s", units_duration(l->paused_ns, wait));
	put(c, CANVAS_BAD, text, width);
}

static void limit_admitted(struct canvas *c, const void *row, unsigned width)
{
	LIMIT(row);
	char text[UNITS_TEXT];

	if (l->v.resource == BUCKET_MONEY && l->admitted > 0)
		put(c, CANVAS_PLAIN, units_amount(BUCKET_MONEY, (uint64_t)l->admitted, text),
			width);
	else
		put_rate(c, l->admitted, CANVAS_PLAIN, width);
}

static void limit_rejected(struct canvas *c, const void *row, unsigned width)
{
	LIMIT(row);
	put_rate(c, l->rejected, CANVAS_WARN, width);
}

static double limit_used_key(const void *row)
{
	LIMIT(row);
	return used_part(l) + held_part(l);
}

static double limit_left_key(const void *row)
{
	return (double)((const struct top_limit *)row)->v.available;
}

static double limit_full_key(const void *row)
{
	LIMIT(row);
	return (double)max_u64(l->v.full_ns, l->paused_ns);
}

static double limit_admitted_key(const void *row)
{
	return ((const struct top_limit *)row)->admitted;
}

static double limit_rejected_key(const void *row)
{
	return ((const struct top_limit *)row)->rejected;
}

static const struct top_column limit_columns[] = {
	{ "LIMIT", .draw = limit_label },
	{ "RATE", 12, .from = 84, .at_right = true, .unsorted = true, .draw = limit_rate },
	{ "USED", 10, .wide_from = 96, .wide = 16, .falls = true, .draw = limit_bar,
		.key = limit_used_key },
	{ "LEFT", 7, .at_right = true, .draw = limit_left, .key = limit_left_key },
	{ "FULL IN", 15, .from = 72, .at_right = true, .falls = true, .draw = limit_full_in,
		.key = limit_full_key },
	{ "ADM/S", 7, .from = 92, .at_right = true, .falls = true, .draw = limit_admitted,
		.key = limit_admitted_key },
	{ "REJ/S", 7, .from = 50, .at_right = true, .falls = true, .draw = limit_rejected,
		.key = limit_rejected_key },
};

static const void *limit_row(const struct top_model *m, uint64_t index)
{
	return index < m->limits ? &m->limit[index] : NULL;
}

static const char *limit_text(const void *row, char out[TOP_EVENT_TEXT])
{
	(void)out;
	return ((const struct top_limit *)row)->label;
}

/* ---- targets ---- */

#define TARGET(row_) const struct top_target *t = (row_)

static void target_name(struct canvas *c, const void *row, unsigned width)
{
	TARGET(row);
	canvas_field(c, t->v.t.available ? CANVAS_PLAIN : CANVAS_DIM, t->v.t.name, width, false);
}

static void target_state(struct canvas *c, const void *row, unsigned width)
{
	TARGET(row);
	bool is_closed = t->v.b.state == BREAKER_CLOSED;

	if (is_closed && !t->v.t.available)
		canvas_field(c, CANVAS_DIM, "no key", width, false);
	else
		canvas_field(c,
			is_closed                                 ? CANVAS_GOOD :
				t->v.b.state == BREAKER_HALF_OPEN ? CANVAS_WARN :
								    CANVAS_BAD,
			breaker_state_name(t->v.b.state), width, false);
}

/* Until when nobody goes there. */
static void target_until(struct canvas *c, const void *row, unsigned width)
{
	TARGET(row);
	char wait[UNITS_TEXT], text[UNITS_TEXT + 8] = "";

	if (t->v.b.forced)
		snprintf(text, sizeof(text), "by hand");
	else if (t->v.paused_ns)
		snprintf(text, sizeof(text), "paused %s", units_duration(t->v.paused_ns, wait));
	else if (t->v.b.state != BREAKER_CLOSED && t->v.b.retry_ns)
		snprintf(text, sizeof(text), "in %s", units_duration(t->v.b.retry_ns, wait));
	canvas_field(c, CANVAS_WARN, text, width, false);
}

static void target_flight(struct canvas *c, const void *row, unsigned width)
{
	TARGET(row);
	char text[UNITS_TEXT];

	put(c, t->v.t.pending ? CANVAS_PLAIN : CANVAS_DIM, units_count(t->v.t.pending, text),
		width);
}

static void target_rate(struct canvas *c, const void *row, unsigned width)
{
	TARGET(row);
	put_rate(c, t->requests, CANVAS_PLAIN, width);
}

static void target_errors(struct canvas *c, const void *row, unsigned width)
{
	TARGET(row);
	char text[UNITS_TEXT];

	snprintf(text, sizeof(text), "%.1f%%", t->v.b.error_ratio * 100);
	put(c, t->v.b.error_ratio > 0 ? CANVAS_WARN : CANVAS_DIM, text, width);
}

static void put_latency(struct canvas *c, uint64_t us, unsigned width)
{
	put_duration(
		c, us ? us * NSEC_PER_USEC : UINT64_MAX, us ? CANVAS_PLAIN : CANVAS_DIM, width);
}

static void target_p50(struct canvas *c, const void *row, unsigned width)
{
	put_latency(c, ((const struct top_target *)row)->v.b.p50_us, width);
}

static void target_p99(struct canvas *c, const void *row, unsigned width)
{
	put_latency(c, ((const struct top_target *)row)->v.b.p99_us, width);
}

/* 0 to 7: how often 1.4 has to be multiplied to get from the quickest to this. */
static unsigned spark_level(uint64_t us, uint64_t quickest)
{
	unsigned level = 0;

	for (double step = (double)quickest * 1.4; level < 7 && (double)us >= step; step *= 1.4)
		level++;
	return level;
}

/* The latest on the right; a gap where no answer began. */
static void target_spark(struct canvas *c, const void *row, unsigned width)
{
	static const char *const bars[] = { "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█" };
	static const char ascii[] = "_.-:=+*#";
	TARGET(row);
	unsigned shown = width < TOP_HISTORY ? width : TOP_HISTORY;
	uint64_t quickest = UINT64_MAX;

	for (unsigned i = 0; i < TOP_HISTORY; i++)
		if (t->history[i])
			quickest = min_u64(quickest, t->history[i]);
	canvas_pad(c, c->column + width - shown);
	for (unsigned i = TOP_HISTORY - shown; i < TOP_HISTORY; i++) {
		unsigned level = spark_level(t->history[i], quickest);

		if (t->history[i])
			canvas_fill(c, level < 4 ? CANVAS_GOOD : CANVAS_WARN, bars[level],
				ascii[level], 1);
		else
			canvas_text(c, CANVAS_PLAIN, " ");
	}
}

static double target_state_key(const void *row)
{
	TARGET(row);
	return t->v.b.state == BREAKER_OPEN ? 2 : t->v.b.state == BREAKER_HALF_OPEN ? 1 : 0;
}

static double target_flight_key(const void *row)
{
	return (double)((const struct top_target *)row)->v.t.pending;
}

static double target_rate_key(const void *row)
{
	return ((const struct top_target *)row)->requests;
}

static double target_errors_key(const void *row)
{
	return ((const struct top_target *)row)->v.b.error_ratio;
}

static double target_p50_key(const void *row)
{
	return (double)((const struct top_target *)row)->v.b.p50_us;
}

static double target_p99_key(const void *row)
{
	return (double)((const struct top_target *)row)->v.b.p99_us;
}

static const struct top_column target_columns[] = {
	{ "TARGET", .draw = target_name },
	{ "BREAKER", 9, .falls = true, .draw = target_state, .key = target_state_key },
	{ "UNTIL", 15, .from = 90, .unsorted = true, .draw = target_until },
	{ "FLIGHT", 6, .from = 60, .at_right = true, .falls = true, .draw = target_flight,
		.key = target_flight_key },
	{ "REQ/S", 7, .at_right = true, .falls = true, .draw = target_rate,
		.key = target_rate_key },
	{ "ERRORS", 6, .from = 50, .at_right = true, .falls = true, .draw = target_errors,
		.key = target_errors_key },
	{ "P50", 7, .from = 70, .at_right = true, .falls = true, .draw = target_p50,
		.key = target_p50_key },
	{ "P99", 7, .from = 78, .at_right = true, .falls = true, .draw = target_p99,
		.key = target_p99_key },
	{ "LATENCY", 12, .from = 96, .wide_from = 130, .wide = TOP_HISTORY, .at_right = true,
		.unsorted = true, .draw = target_spark },
};

static const void *target_row(const struct top_model *m, uint64_t index)
{
	return index < m->targets ? &m->target[index] : NULL;
}

static const char *target_text(const void *row, char out[TOP_EVENT_TEXT])
{
	(void)out;
	return ((const struct top_target *)row)->v.t.name;
}

/* ---- participants ---- */

#define PARTICIPANT(row_) const struct top_participant *p = (row_)

static void put_number(struct canvas *c, uint64_t n, unsigned width)
{
	char text[UNITS_TEXT];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)n);
	put(c, CANVAS_PLAIN, text, width);
}

static void participant_pid(struct canvas *c, const void *row, unsigned width)
{
	put_number(c, ((const struct top_participant *)row)->v.pid, width);
}

static void participant_uid(struct canvas *c, const void *row, unsigned width)
{
	put_number(c, ((const struct top_participant *)row)->v.uid, width);
}

static void participant_state(struct canvas *c, const void *row, unsigned width)
{
	PARTICIPANT(row);
	canvas_field(c, p->v.state == PARTICIPANT_ATTACHED ? CANVAS_PLAIN : CANVAS_WARN,
		command_participant_state(p->v.state), width, false);
}

static void participant_holds(struct canvas *c, const void *row, unsigned width)
{
	PARTICIPANT(row);
	char text[UNITS_TEXT];

	put(c, p->holds ? CANVAS_HELD : CANVAS_DIM, units_count(p->holds, text), width);
}

static void participant_oldest(struct canvas *c, const void *row, unsigned width)
{
	PARTICIPANT(row);
	put_duration(c, p->holds ? p->oldest_ns : UINT64_MAX, p->holds ? CANVAS_PLAIN : CANVAS_DIM,
		width);
}

/* By the clock on the wall. */
static void put_time(struct canvas *c, int64_t wall_s, unsigned width)
{
	time_t s = (time_t)wall_s;
	struct tm t;
	char text[16] = "";

	if (localtime_r(&s, &t))
		strftime(text, sizeof(text), "%H:%M:%S", &t);
	canvas_field(c, CANVAS_DIM, text, width, false);
}

static void participant_since(struct canvas *c, const void *row, unsigned width)
{
	put_time(c, ((const struct top_participant *)row)->since_s, width);
}

static double participant_pid_key(const void *row)
{
	return (double)((const struct top_participant *)row)->v.pid;
}

static double participant_uid_key(const void *row)
{
	return (double)((const struct top_participant *)row)->v.uid;
}

static double participant_holds_key(const void *row)
{
	return ((const struct top_participant *)row)->holds;
}

static double participant_oldest_key(const void *row)
{
	return (double)((const struct top_participant *)row)->oldest_ns;
}

static double participant_since_key(const void *row)
{
	return (double)((const struct top_participant *)row)->v.attached_ns;
}

static const struct top_column participant_columns[] = {
	{ "PID", 8, .at_right = true, .draw = participant_pid, .key = participant_pid_key },
	{ "UID", 8, .at_right = true, .draw = participant_uid, .key = participant_uid_key },
	{ "STATE", 8, .unsorted = true, .draw = participant_state },
	{ "HOLDS", 6, .at_right = true, .falls = true, .draw = participant_holds,
		.key = participant_holds_key },
	{ "OLDEST", 9, .from = 50, .at_right = true, .falls = true, .draw = participant_oldest,
		.key = participant_oldest_key },
	{ "SINCE", 8, .from = 60, .falls = true, .draw = participant_since,
		.key = participant_since_key },
};

static const void *participant_row(const struct top_model *m, uint64_t index)
{
	return index < m->participants ? &m->participant[index] : NULL;
}

static const char *participant_text(const void *row, char out[TOP_EVENT_TEXT])
{
	PARTICIPANT(row);

	snprintf(out, TOP_EVENT_TEXT, "%llu %llu %s", (unsigned long long)p->v.pid,
		(unsigned long long)p->v.uid, command_participant_state(p->v.state));
	return out;
}

/* ---- events ---- */

static void event_time(struct canvas *c, const void *row, unsigned width)
{
	put_time(c, ((const struct top_event *)row)->wall_s, width);
}

static void event_line(struct canvas *c, const void *row, unsigned width)
{
	const struct top_event *e = row;
	bool is_bad = e->kind == 0 || (e->kind == EVENT_BREAKER && e->e.to == BREAKER_OPEN);

	canvas_field(c, is_bad ? CANVAS_WARN : CANVAS_PLAIN, e->text, width, false);
}

static double event_key(const void *row)
{
	return (double)((const struct top_event *)row)->number;
}

static const struct top_column event_columns[] = {
	{ "TIME", 8, .falls = true, .draw = event_time, .key = event_key },
	{ "EVENT", .draw = event_line },
};

static const void *event_row(const struct top_model *m, uint64_t number)
{
	return top_model_event(m, number);
}

static const char *event_text(const void *row, char out[TOP_EVENT_TEXT])
{
	(void)out;
	return ((const struct top_event *)row)->text;
}

/* ---- the tables ---- */

const struct top_table top_tables[TOP_SECTIONS] = {
	[TOP_LIMITS] = { "limits", limit_columns, ARRAY_SIZE(limit_columns), limit_row,
		limit_text },
	[TOP_TARGETS] = { "targets", target_columns, ARRAY_SIZE(target_columns), target_row,
		target_text },
	[TOP_PARTICIPANTS] = { "participants", participant_columns, ARRAY_SIZE(participant_columns),
		participant_row, participant_text },
	[TOP_EVENT_LIST] = { "events", event_columns, ARRAY_SIZE(event_columns), event_row,
		event_text },
};
