#include "tools/top_json.h"

#include <errno.h>
#include "proto/json.h"

static void put_daemon(struct json *j, const struct top_model *m)
{
	static const char *const names[] = { "running", "stopped", "dead" };

	json_object_begin(j, "daemon");
	json_str(j, "state", str_of(names[m->daemon]));
	json_uint(j, "pid", m->status.daemon_pid);
	json_uint(j, "generation", m->status.generation);
	json_uint(j, "heartbeat_ns", m->status.heartbeat_ns);
	json_uint(j, "adopted_ns", m->status.adopted_ns);
	json_object_end(j);
}

static void put_counters(struct json *j, const struct top_model *m)
{
	json_object_begin(j, "counters");
	for (enum counter c = 0; c < COUNTERS; c++)
		json_uint(j, counter_name(c), m->counter[c]);
	json_object_end(j);
	json_object_begin(j, "rates");
	for (enum counter c = 0; c < COUNTERS; c++)
		json_real(j, counter_name(c), m->rate[c]);
	json_object_end(j);
}

static void put_limit(struct json *j, const struct top_model *m, const struct top_limit *l)
{
	json_object_begin(j, NULL);
	command_limit_json(j, l->row, &l->v, m->now_ns);
	json_real(j, "admitted_rate", l->admitted);
	json_real(j, "rejected_rate", l->rejected);
	json_object_end(j);
}

static void put_target(struct json *j, const struct top_target *t)
{
	json_object_begin(j, NULL);
	command_target_json(j, t->row, &t->v);
	json_real(j, "requests_rate", t->requests);
	json_real(j, "errors_rate", t->errors);
	json_uint(j, "latency_us", t->history[TOP_HISTORY - 1]);
	json_object_end(j);
}

static void put_participant(struct json *j, const struct top_participant *p)
{
	json_object_begin(j, NULL);
	json_uint(j, "row", p->row);
	json_uint(j, "pid", p->v.pid);
	json_uint(j, "uid", p->v.uid);
	json_str(j, "state", str_of(command_participant_state(p->v.state)));
	json_uint(j, "attached_ns", p->v.attached_ns);
	json_uint(j, "holds", p->holds);
	json_uint(j, "oldest_ns", p->oldest_ns);
	json_object_end(j);
}

static void put_event(struct json *j, const struct top_event *e)
{
	json_object_begin(j, NULL);
	json_uint(j, "number", e->number);
	json_uint(j, "time_ns", e->time_ns);
	json_str(j, "kind", str_of(top_event_kind(e)));
	json_str(j, "text", str_of(e->text));
	if (e->kind != 0) {
		json_uint(j, "ticket", e->e.ticket);
		json_uint(j, "row", e->e.row);
		json_uint(j, "from", e->e.from);
		json_uint(j, "to", e->e.to);
		json_uint(j, "value", e->e.value);
	}
	if (e->kind == EVENT_BREAKER)
		json_str(j, "why", str_of(breaker_why_name(e->e.why)));
	json_object_end(j);
}

static void put_rows(struct json *j, struct top_model *m)
{
	json_array_begin(j, "limits");
	for (uint32_t i = 0; i < m->limits; i++)
		put_limit(j, m, &m->limit[i]);
	json_array_end(j);
	json_array_begin(j, "targets");
	for (uint32_t i = 0; i < m->targets; i++)
		put_target(j, &m->target[i]);
	json_array_end(j);
	json_array_begin(j, "participants");
	for (uint32_t i = 0; i < m->participants; i++)
		put_participant(j, &m->participant[i]);
	json_array_end(j);
	json_array_begin(j, "events");
	for (uint64_t i = top_model_tell(m); i <= m->events; i++)
		put_event(j, top_model_event(m, i));
	json_array_end(j);
}

int top_json_print(struct top_model *m, const char *region, const char *trouble, struct buffer *out)
{
	aux_cleanup(json_freep) struct json *j = json_new();
	int r;

	if (!j)
		return -ENOMEM;
	json_object_begin(j, NULL);
	json_int(j, "time", top_model_wall_s(m, m->now_ns));
	json_uint(j, "now_ns", m->now_ns);
	json_real(j, "elapsed", m->elapsed);
	json_str(j, "region", str_of(region));
	json_str(j, "trouble", str_of(trouble));
	json_uint(j, "in_flight", m->in_flight);
	put_daemon(j, m);
	put_counters(j, m);
	put_rows(j, m);
	json_uint(j, "events_lost", m->lost);
	json_object_end(j);
	r = json_finish(j, false, out);
	return r < 0 ? r : buffer_append(out, "\n", 1);
}
