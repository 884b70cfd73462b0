#include "tools/top_model.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/aux.h"
#include "shm/hold.h"

struct top_model *top_model_new(void)
{
	struct top_model *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	m->event = calloc(TOP_EVENTS, sizeof(*m->event));
	return m->event ? m : top_model_free(m);
}

struct top_model *top_model_free(struct top_model *m)
{
	if (!m)
		return NULL;
	free(m->limit);
	free(m->target);
	free(m->participant);
	free(m->event);
	free(m->limit_past);
	free(m->target_past);
	free(m);
	return NULL;
}

void top_model_restart(struct top_model *m)
{
	free(m->limit_past);
	free(m->target_past);
	m->limit_past = m->target_past = NULL;
	m->now_ns = 0; /* no time has passed since */
	m->has_ticket = false;
}

int64_t top_model_wall_s(const struct top_model *m, uint64_t time_ns)
{
	return (int64_t)((time_ns + (uint64_t)m->wall_ns) / NSEC_PER_SEC);
}

/* ---- rates ---- */

static double rate_of(const struct top_model *m, uint64_t now, uint64_t before)
{
	return m->elapsed > 0 && now > before ? (double)(now - before) / m->elapsed : 0;
}

/* FNV-1a; never 0. */
static uint64_t identity_of(const char *name)
{
	uint64_t hash = UINT64_C(0xcbf29ce484222325);

	for (; *name; name++)
		hash = (hash ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
	return hash | 1;
}

/* The row's past if it was the same one's, else a new one, where nothing has happened yet. */
static bool past_is_of(struct top_past *p, const char *name, uint64_t first, uint64_t second)
{
	uint64_t identity = identity_of(name);

	if (p->identity == identity)
		return true;
	*p = (struct top_past){ .identity = identity, .first = first, .second = second };
	return false;
}

static void sample_counters(struct top_model *m, const struct region *r)
{
	for (enum counter c = 0; c < COUNTERS; c++) {
		uint64_t value = c < r->counters ? counter_read(r, c) : 0;

		m->rate[c] = rate_of(m, value, m->counter[c]);
		m->counter[c] = value;
	}
}

/* ---- rows ---- */

/* The rows of a table with room for one more; it is never given back. NULL: no memory, and the
 * rows are still there. */
static void *with_room(void *rows, uint32_t count, uint32_t *capacity, size_t size)
{
	uint32_t wanted = *capacity ? 2 * *capacity : 64;
	void *more;

	if (count < *capacity)
		return rows;
	more = realloc(rows, wanted * size);
	if (more)
		*capacity = wanted;
	return more;
}

static void compare_limit(struct top_model *m, struct top_limit *l)
{
	struct top_past *p = &m->limit_past[l->row];

	if (past_is_of(p, l->label, l->v.admitted, l->v.rejected)) {
		l->admitted = rate_of(m, l->v.admitted, p->first);
		l->rejected = rate_of(m, l->v.rejected, p->second);
	}
	p->first = l->v.admitted;
	p->second = l->v.rejected;
}

static int sample_limits(struct top_model *m, const struct region *r)
{
	struct top_limit l, *rows;

	m->limits = 0;
	for (uint32_t i = 0; i < r->buckets; i++) {
		l = (struct top_limit){ .row = i };
		if (!bucket_view(r, i, m->now_ns, &l.v))
			continue;
		command_limit_label(&l.v, l.label);
		l.paused_ns = command_limit_paused(&l.v, m->now_ns);
		compare_limit(m, &l);
		rows = with_room(m->limit, m->limits, &m->limit_rows, sizeof(l));
		if (!rows)
			return -ENOMEM;
		m->limit = rows;
		m->limit[m->limits++] = l;
	}
	return 0;
}

/* The slowest of the prompt sizes of which something was learned since the sample before. */
static uint64_t latency_since(const struct target_view *t, const struct top_past *p)
{
	uint64_t worst = 0;

	if (t->samples == p->samples)
		return 0;
	for (unsigned i = 0; i < TARGET_PROMPT_CLASSES; i++)
		if (t->first_token_us[i] != p->learned[i])
			worst = max_u64(worst, t->first_token_us[i]);
	/* An answer as quick as expected changes nothing. */
	for (unsigned i = 0; i < TARGET_PROMPT_CLASSES && worst == 0; i++)
		worst = t->first_token_us[i];
	return worst;
}

static void compare_target(struct top_model *m, struct top_target *t)
{
	struct top_past *p = &m->target_past[t->row];

	if (past_is_of(p, t->v.t.name, t->v.b.requests, t->v.b.errors)) {
		t->requests = rate_of(m, t->v.b.requests, p->first);
		t->errors = rate_of(m, t->v.b.errors, p->second);
	}
	memmove(p->history, p->history + 1, sizeof(p->history) - sizeof(p->history[0]));
	p->history[TOP_HISTORY - 1] = latency_since(&t->v.t, p);
	memcpy(t->history, p->history, sizeof(t->history));
	memcpy(p->learned, t->v.t.first_token_us, sizeof(p->learned));
	p->samples = t->v.t.samples;
	p->first = t->v.b.requests;
	p->second = t->v.b.errors;
}

static int sample_targets(struct top_model *m, const struct region *r)
{
	struct top_target t, *rows;

	m->targets = 0;
	m->in_flight = 0;
	for (uint32_t i = 0; i < r->targets; i++) {
		t = (struct top_target){ .row = i };
		if (!command_target(r, i, m->now_ns, &t.v))
			continue;
		if (!t.v.t.is_provider)
			m->in_flight += t.v.t.pending;
		compare_target(m, &t);
		rows = with_room(m->target, m->targets, &m->target_rows, sizeof(t));
		if (!rows)
			return -ENOMEM;
		m->target = rows;
		m->target[m->targets++] = t;
	}
	return 0;
}

/* Rows are in order, so that a hold's participant is found by halving. */
static struct top_participant *find_participant(const struct top_model *m, uint32_t row)
{
	uint32_t low = 0, high = m->participants;

	while (low < high) {
		uint32_t middle = low + (high - low) / 2;

		if (m->participant[middle].row < row)
			low = middle + 1;
		else
			high = middle;
	}
	return low < m->participants && m->participant[low].row == row ? &m->participant[low] :
									 NULL;
}

static void count_holds(struct top_model *m, const struct region *r)
{
	struct hold_view h;

	for (uint32_t i = 0; i < r->holds; i++) {
		struct top_participant *p =
			hold_view(r, i, &h) ? find_participant(m, h.participant) : NULL;

		if (!p || p->v.generation != h.generation)
			continue;
		p->holds++;
		if (m->now_ns > h.taken_ns)
			p->oldest_ns = max_u64(p->oldest_ns, m->now_ns - h.taken_ns);
	}
}

static int sample_participants(struct top_model *m, const struct region *r)
{
	struct top_participant p, *rows;

	m->participants = 0;
	for (uint32_t i = 0; i < r->participants; i++) {
		p = (struct top_participant){ .row = i };
		if (!participant_view(r, i, &p.v) || p.v.state == PARTICIPANT_FREE)
			continue;
		p.since_s = top_model_wall_s(m, p.v.attached_ns);
		rows = with_room(m->participant, m->participants, &m->participant_rows, sizeof(p));
		if (!rows)
			return -ENOMEM;
		m->participant = rows;
		m->participant[m->participants++] = p;
	}
	count_holds(m, r);
	return 0;
}

int top_model_sample(struct top_model *m, const struct region *r, enum command_daemon daemon,
	uint64_t now_ns, int64_t wall_ns)
{
	int code;

	if (!m->limit_past)
		m->limit_past = calloc(r->buckets + 1, sizeof(*m->limit_past));
	if (!m->target_past)
		m->target_past = calloc(r->targets + 1, sizeof(*m->target_past));
	if (!m->limit_past || !m->target_past)
		return -ENOMEM;
	m->elapsed = m->now_ns && now_ns > m->now_ns ? (double)(now_ns - m->now_ns) / 1e9 : 0;
	m->now_ns = now_ns;
	m->wall_ns = wall_ns;
	m->daemon = daemon;
	region_status(r, &m->status);
	/* Before the tables: the names of rows that were given away since are in the last
	 * sample. */
	top_model_read_events(m, r);
	sample_counters(m, r);
	code = sample_limits(m, r);
	if (code == 0)
		code = sample_targets(m, r);
	return code == 0 ? sample_participants(m, r) : code;
}
