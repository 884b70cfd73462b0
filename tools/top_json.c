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

static void put_limit(struct json *j, const struct top_limit *l)
{
	json_object_begin(j, NULL);
	json_uint(j, "row", l->row);
	json_str(j, "label", str_of(l->label));
	json_str(j, "scope", str_of(bucket_scope_name(l->v.scope)));
	json_str(j, "resource", str_of(bucket_resource_name(l->v.resource)));
	json_uint(j, "limit", l->v.limit);
	json_uint(j, "window_ns", l->v.window_ns);
	json_uint(j, "burst", l->v.burst);
	json_uint(j, "owed", l->v.owed);
	json_uint(j, "held", l->v.held);
	json_uint(j, "available", l->v.available);
	json_uint(j, "full_ns", l->v.full_ns);
	json_uint(j, "paused_ns", l->paused_ns);
	json_uint(j, "admitted", l->v.admitted);
	json_uint(j, "rejected", l->v.rejected);
	json_real(j, "admitted_rate", l->admitted);
	json_real(j, "rejected_rate", l->rejected);
	json_bool(j, "template", l->v.origin == BUCKET_ORIGIN_TEMPLATE);
	json_object_end(j);
}

static void put_target(struct json *j, const struct top_target *t)
{
	json_object_begin(j, NULL);
	json_uint(j, "row", t->row);
	json_str(j, "target", str_of(t->t.name));
	json_bool(j, "available", t->t.available);
	json_str(j, "state", str_of(breaker_state_name(t->b.state)));
	json_bool(j, "forced", t->b.forced);
	json_uint(j, "retry_ns", t->b.retry_ns);
	json_uint(j, "paused_ns", t->paused_ns);
	json_uint(j, "pending", t->t.pending);
	json_uint(j, "requests", t->b.requests);
	json_uint(j, "errors", t->b.errors);
	json_real(j, "requests_rate", t->requests);
	json_real(j, "errors_rate", t->errors);
	json_real(j, "error_ratio", t->b.error_ratio);
	json_uint(j, "mean_us", t->b.mean_us);
	json_uint(j, "p50_us", t->b.p50_us);
	json_uint(j, "p99_us", t->b.p99_us);
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
	static const char *const kinds[] = { "note", "breaker", "pause", "limit", "participant",
		"evicted" };

	json_object_begin(j, NULL);
	json_uint(j, "number", e->number);
	json_uint(j, "time_ns", e->time_ns);
	json_str(j, "kind", str_of(e->kind < ARRAY_SIZE(kinds) ? kinds[e->kind] : "unknown"));
	json_str(j, "text", str_of(e->text));
	if (e->kind != 0) {
		json_uint(j, "ticket", e->e.ticket);
		json_uint(j, "row", e->e.row);
		json_uint(j, "from", e->e.from);
		json_uint(j, "to", e->e.to);
		json_uint(j, "value", e->e.value);
	}
	json_object_end(j);
}

static void put_rows(struct json *j, const struct top_model *m, uint64_t since)
{
	json_array_begin(j, "limits");
	for (uint32_t i = 0; i < m->limits; i++)
		put_limit(j, &m->limit[i]);
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
	for (; since <= m->events; since++) {
		const struct top_event *e = top_model_event(m, since);

		if (e)
			put_event(j, e);
	}
	json_array_end(j);
}

int top_json_print(const struct top_model *m, const char *region, const char *trouble,
	uint64_t since, struct buffer *out)
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
	put_daemon(j, m);
	put_counters(j, m);
	put_rows(j, m, since);
	json_uint(j, "events_lost", m->lost);
	json_object_end(j);
	r = json_finish(j, false, out);
	return r < 0 ? r : buffer_append(out, "\n", 1);
}
