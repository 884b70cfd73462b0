#include "daemon/pipeline.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/attempt.h"
#include "daemon/reply.h"
#include "daemon/request.h"
#include "proto/feedback.h"
#include "shm/counters.h"

/* Enough of an error answer to classify it. */
#define PIPELINE_ERROR_BODY_MAX (64u << 10)
/* Request bodies that one connection may have open. */
#define PIPELINE_HELD_MAX (UINT64_C(48) << 20)

struct pipeline {
	struct loop *loop;
	struct attempt_scene scene; /* the region, and the daemon's part in it */
	struct demand demand;
	uint64_t random; /* state of pipeline_random() */
	struct catalog *catalog;
	struct buffer head; /* scratch for one request's head; wiped after each use */
	struct list requests;
	unsigned active;
	bool draining;
	void (*idle)(void *context);
	void *idle_context;
};

/* What a step answers. */
enum verdict {
	NEXT,   /* on to the following step */
	WAIT,   /* an event will resume the request */
	FAILED, /* r->failure says how: on to JUDGE */
	AGAIN,  /* the next target of the chain: back to ADMIT */
	DONE,   /* ended; the request is gone */
};

static enum verdict step_route(struct request *r);
static enum verdict step_admit(struct request *r);
static enum verdict step_build(struct request *r);
static enum verdict step_send(struct request *r);
static enum verdict step_answer(struct request *r);
static enum verdict step_judge(struct request *r);
static enum verdict step_settle(struct request *r);

static const struct {
	const char *name;
	enum verdict (*run)(struct request *r);
} steps[] = {
	[REQUEST_NEW] = { "new", NULL },
	[REQUEST_ROUTE] = { "route", step_route },
	[REQUEST_ADMIT] = { "admit", step_admit },
	[REQUEST_BUILD] = { "build", step_build },
	[REQUEST_SEND] = { "send", step_send },
	[REQUEST_ANSWER] = { "answer", step_answer },
	[REQUEST_JUDGE] = { "judge", step_judge },
	[REQUEST_SETTLE] = { "settle", step_settle },
};

/* The only place a request's step changes. */
static void request_enter(struct request *r, enum request_step step)
{
	log_debug("request id=%llu attempt=%u step=%s from=%s", (unsigned long long)r->id,
		r->attempt, steps[step].name, steps[r->step].name);
	r->step = step;
}

static void request_run(struct request *r, enum verdict verdict)
{
	while (verdict != WAIT && verdict != DONE) {
		if (verdict == NEXT)
			request_enter(r, r->step + 1);
		else
			request_enter(r, verdict == AGAIN ? REQUEST_ADMIT : REQUEST_JUDGE);
		verdict = steps[r->step].run(r);
	}
}

/* ---- failures ---- */

static void failure_reset(struct request_failure *f)
{
	free(f->message);
	free(f->limit);
	*f = (struct request_failure){ 0 };
}

static enum verdict request_fail(struct request *r, enum status status, struct str message)
{
	failure_reset(&r->failure);
	r->failure.status = status;
	if (message.length)
		r->failure.message = str_dup(message);
	return FAILED;
}

static enum verdict request_fail_error(
	struct request *r, enum status status, const struct msg_error *e)
{
	uint64_t retry_after_ns = r->failure.retry_after_ns;

	request_fail(r, status, e->message);
	/* Providers repeat in their errors what they were sent. */
	if (r->failure.message)
		keys_mask(r->catalog->keys, request_target(r)->provider, r->failure.message);
	r->failure.http_status = r->http_status;
	r->failure.retry_after_ns = e->retry_after_ns ? e->retry_after_ns : retry_after_ns;
	return FAILED;
}

/* ---- steps ---- */

/* splitmix64: for choices that nobody must foresee for long. */
static uint64_t pipeline_random(struct pipeline *p)
{
	uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static enum verdict request_refuse_route(struct request *r, int outcome, struct str why)
{
	switch (outcome) {
	case ROUTE_E_UNKNOWN:
		return request_fail(r, STATUS_UNKNOWN_MODEL, why);
	case ROUTE_E_CONTEXT:
		return request_fail(r, STATUS_CONTEXT_LENGTH, why);
	case ROUTE_E_OPEN:
		return request_fail(r, STATUS_CIRCUIT_OPEN, why);
	case ROUTE_E_NO_TARGET:
		return request_fail(r, STATUS_NO_TARGET, why);
	default:
		return request_fail(r, outcome < 0 ? STATUS_NO_MEMORY : STATUS_BAD_REQUEST, why);
	}
}

static enum verdict step_route(struct request *r)
{
	aux_cleanup(buffer_deinit) struct buffer why = BUFFER_NULL;
	struct route_chain chain = { 0 };
	char model[SURVEY_MODEL_MAX + 1];
	int outcome = survey_read(r->ask.body, &r->survey, model);

	/* A request may leave its model to the body, as plain clients of the OpenAI schema do. */
	if (!r->ask.model.length && !r->ask.route.length && *model) {
		r->model = strdup(model);
		r->ask.model = str_of(r->model);
		if (!r->model)
			outcome = error_origin(-ENOMEM);
	}
	if (outcome == 0)
		outcome =
			route_resolve(r->catalog->config, r->ask.model, r->ask.route, &chain, &why);
	if (outcome == ROUTE_OK)
		outcome = attempt_rank(
			&r->pipeline->scene, r, &chain, pipeline_random(r->pipeline), &why);
	if (outcome != ROUTE_OK)
		return request_refuse_route(r, outcome, buffer_str(&why));
	r->target = calloc(chain.count, sizeof(*r->target));
	if (!r->target)
		return request_fail(r, STATUS_NO_MEMORY, STR_NULL);
	memcpy(r->target, chain.target, chain.count * sizeof(*r->target));
	r->target_count = chain.count;
	return NEXT;
}

static enum verdict request_refuse_admission(struct request *r, const struct admission_verdict *v)
{
	char text[ATTEMPT_TEXT_MAX];
	enum status status = attempt_explain(r, v, text);

	request_fail(r, status, str_of(text));
	/* "until another request ends" is no time a client could wait for. */
	r->failure.retry_after_ns = v->wait_ns == BUCKET_WAIT_SETTLEMENT ? 0 : v->wait_ns;
	if (v->limit[0])
		r->failure.limit = strdup(v->limit);
	return FAILED;
}

static enum verdict step_admit(struct request *r)
{
	struct admission_verdict v;

	failure_reset(&r->failure);
	attempt_admit(&r->pipeline->scene, r, pipeline_random(r->pipeline), &v);
	return v.outcome == ADMISSION_OK ? NEXT : request_refuse_admission(r, &v);
}

static enum verdict request_refuse_no_key(struct request *r, const struct config_provider *c)
{
	char text[256];

	snprintf(text, sizeof(text),
		"provider %s has no API key: set %s for llmkitd, or the provider's \"key\"",
		c->name, c->family->key_env ? c->family->key_env : "a key");
	return request_fail(r, STATUS_NO_KEY, str_of(text));
}

static enum verdict step_build(struct request *r)
{
	const struct catalog_provider *provider = request_provider(r);
	struct format_request q = {
		.family = provider->config->family,
		.body = r->ask.body,
		.model = request_target(r)->upstream,
		.max_tokens_default = request_target(r)->max_tokens,
	};
	const char *why = NULL;
	int outcome;

	if (q.family->auth != FAMILY_AUTH_OPTIONAL &&
		!keys_has(r->catalog->keys, request_target(r)->provider))
		return request_refuse_no_key(r, provider->config);
	buffer_reset(&r->body, SIZE_MAX);
	outcome = provider->format->build(&q, &r->body, &r->plan, &why);
	if (outcome < 0)
		return request_fail(r, STATUS_NO_MEMORY, STR_NULL);
	return outcome == FORMAT_OK ? NEXT : request_fail(r, STATUS_BAD_REQUEST, str_of(why));
}

static void request_on_head(void *context, struct exchange *x, unsigned http_status);
static void request_on_body(void *context, struct exchange *x, struct str bytes);
static void request_on_end(void *context, struct exchange *x, enum status status, const char *text);

static int request_open_decoder(struct request *r)
{
	const struct catalog_provider *provider = request_provider(r);
	const struct format_sink sink = reply_sink(r);

	return format_decoder_new(&r->decoder, provider->format, provider->config->family, &sink);
}

/* All that was written, and not its whole room: that is done for every request. */
static void pipeline_wipe_head(struct buffer *head)
{
	if (buffer_length(head))
		explicit_bzero(buffer_head(head), buffer_length(head));
	buffer_reset(head, SIZE_MAX);
}

static enum verdict step_send(struct request *r)
{
	struct buffer *head = &r->pipeline->head;
	const struct exchange_events events = {
		.head = request_on_head,
		.body = request_on_body,
		.end = request_on_end,
		.context = r,
	};
	int e = catalog_head(r->catalog, request_target(r)->provider, buffer_length(&r->body),
		r->plan.stream, head);

	if (e == 0)
		e = request_open_decoder(r);
	if (e == 0)
		e = exchange_start(&r->exchange, request_provider(r)->lane, buffer_str(head),
			buffer_str(&r->body), &events);
	pipeline_wipe_head(head);
	buffer_deinit(&r->body);
	r->dispatched_ns = loop_now(r->loop);
	if (e == 0 && r->client->pressured)
		exchange_pause(r->exchange);
	return e < 0 ? request_fail(r, STATUS_NO_MEMORY, STR_NULL) : NEXT;
}

/* The exchange's callbacks do the work; the last of them resumes. */
static enum verdict step_answer(struct request *r)
{
	(void)r;
	return WAIT;
}

static void request_resume(struct request *r, enum verdict verdict)
{
	assert(r->step == REQUEST_ANSWER);
	request_run(r, verdict);
}

static void request_on_header(void *context, struct str name, struct str value)
{
	feedback_header(context, name, value);
}

/* A good answer's limits are in its head; a refusal's also in its body. Without memory a refusal is
 * heard as one that says nothing. */
static void request_hear_head(struct request *r, struct exchange *x)
{
	struct feedback heard = FEEDBACK_NULL;

	exchange_each_header(x, request_on_header, &heard);
	if (r->http_status / 100 == 2) {
		attempt_hear(&r->pipeline->scene, r, &heard, STATUS_OK, 0);
		return;
	}
	r->feedback = malloc(sizeof(*r->feedback));
	if (r->feedback)
		*r->feedback = heard;
}

/* The refusal is complete, or all of it that will come. Once. */
static void request_hear_refusal(struct request *r, enum status status)
{
	struct feedback silence = FEEDBACK_NULL;

	r->failure.retry_after_ns = attempt_hear(&r->pipeline->scene, r,
		r->feedback ? r->feedback : &silence, status, pipeline_random(r->pipeline));
	free(r->feedback);
	r->feedback = NULL;
}

static void request_on_head(void *context, struct exchange *x, unsigned http_status)
{
	struct request *r = context;
	struct str type = exchange_header(x, "content-type");

	r->http_status = http_status;
	/* Some answer a streaming request with plain JSON, usually an error. */
	r->as_stream = r->plan.stream &&
		!(type.length >= 16 && strncasecmp(type.data, "application/json", 16) == 0);
	request_hear_head(r, x);
}

/* What a decoder says; CANCELLED is the sink's: a frame could not be packed. */
static enum status request_decoded(const struct request *r, enum status status)
{
	if (status != STATUS_CANCELLED)
		return status;
	return r->pack_error == -EMSGSIZE ? STATUS_ANSWER_TOO_LARGE : STATUS_NO_MEMORY;
}

/* An answer that began well. Some say in it that a limit is used up. */
static enum verdict request_fail_answer(
	struct request *r, enum status status, const struct msg_error *error)
{
	if (status == STATUS_PROVIDER_LIMITED)
		request_hear_refusal(r, status);
	return request_fail_error(r, status, error);
}

static void request_on_body(void *context, struct exchange *x, struct str bytes)
{
	struct request *r = context;
	struct msg_error error = { 0 };
	enum status status;

	(void)x;
	if (r->http_status / 100 != 2) {
		size_t room = PIPELINE_ERROR_BODY_MAX - buffer_length(&r->error_body);

		bytes.length = bytes.length < room ? bytes.length : room;
		if (buffer_append_str(&r->error_body, bytes) < 0)
			request_resume(r, request_fail(r, STATUS_NO_MEMORY, STR_NULL));
		return;
	}
	status = request_decoded(r, format_decoder_feed(r->decoder, r->as_stream, bytes, &error));
	if (status != STATUS_OK)
		request_resume(r, request_fail_answer(r, status, &error));
	else
		attempt_progress(&r->pipeline->scene, r);
}

/* An answer that is not 2xx, or what has come of it. */
static enum verdict request_refused(struct request *r)
{
	struct msg_error error = { 0 };
	enum status status = format_decoder_classify(
		r->decoder, r->http_status, buffer_str(&r->error_body), &error);

	request_hear_refusal(r, status);
	return request_fail_error(r, status, &error);
}

static enum verdict request_finish_answer(struct request *r)
{
	struct msg_error error = { 0 };
	struct msg_end end = { 0 };
	enum status status;

	if (r->http_status / 100 != 2)
		return request_refused(r);
	status = request_decoded(r, format_decoder_finish(r->decoder, r->as_stream, &end, &error));
	if (status != STATUS_OK)
		return request_fail_answer(r, status, &error);
	snprintf(r->finish_reason, sizeof(r->finish_reason), "%.*s", STR_ARG(end.finish_reason));
	return NEXT;
}

static void request_on_end(void *context, struct exchange *x, enum status status, const char *text)
{
	struct request *r = context;
	struct msg_error error = { .message = str_of(text) };

	r->sent = exchange_has_sent(x);
	r->exchange = NULL;
	if (status == STATUS_OK) {
		request_resume(r, request_finish_answer(r));
		return;
	}
	/* A refusal is one also when the rest of its body got lost. */
	if (status != STATUS_NO_MEMORY && r->http_status && r->http_status / 100 != 2)
		request_resume(r, request_refused(r));
	else
		request_resume(r, request_fail_error(r, status, &error));
}

/* Who does not wait for the rest of a refusal has seen it all the same. */
static void request_hear_unheard(struct request *r)
{
	uint64_t retry_after_ns = r->failure.retry_after_ns;
	struct msg_error error = { 0 };

	if (!r->feedback || !r->decoder)
		return;
	request_hear_refusal(r,
		format_decoder_classify(
			r->decoder, r->http_status, buffer_str(&r->error_body), &error));
	r->failure.retry_after_ns = retry_after_ns;
}

/* Ends the attempt: its connection, its decoder, and a budget it did not use. */
static void request_end_attempt(struct request *r)
{
	request_hear_unheard(r);
	if (r->exchange) {
		r->sent = exchange_has_sent(r->exchange);
		exchange_abort(r->exchange);
	}
	r->exchange = NULL;
	if (r->decoder) {
		r->received = format_decoder_received(r->decoder);
		r->usage = format_decoder_usage(r->decoder);
	}
	r->decoder = format_decoder_free(r->decoder);
	buffer_deinit(&r->error_body);
	free(r->feedback);
	r->feedback = NULL;
	attempt_end(&r->pipeline->scene, r, pipeline_random(r->pipeline));
}

/* By a limit, a pause or a breaker. */
static bool failure_is_a_refusal(const struct request_failure *f)
{
	return f->status == STATUS_LIMITED || f->status == STATUS_CIRCUIT_OPEN;
}

static bool failure_is_a_wait(const struct request_failure *f)
{
	return failure_is_a_refusal(f) && f->retry_after_ns > 0;
}

/* The least wait of the chain is what a client should know. */
static void request_keep_wait(struct request *r)
{
	if (!failure_is_a_wait(&r->failure) ||
		(r->soonest.status && r->soonest.retry_after_ns <= r->failure.retry_after_ns))
		return;
	failure_reset(&r->soonest);
	r->soonest = r->failure;
	r->failure = (struct request_failure){ 0 };
	r->soonest_attempt = r->attempt;
}

/* Where the last target, too, only has to be waited for. */
static void request_tell_soonest(struct request *r)
{
	if (!r->soonest.status || !failure_is_a_refusal(&r->failure) ||
		(failure_is_a_wait(&r->failure) &&
			r->failure.retry_after_ns <= r->soonest.retry_after_ns))
		return;
	failure_reset(&r->failure);
	r->failure = r->soonest;
	r->soonest = (struct request_failure){ 0 };
	r->attempt = r->soonest_attempt;
}

static enum verdict step_judge(struct request *r)
{
	enum status status = r->failure.status;

	request_end_attempt(r);
	if (status == STATUS_OK || r->delivered || r->attempt + 1 >= r->target_count ||
		!attempt_may_go_elsewhere(status)) {
		request_tell_soonest(r);
		return NEXT;
	}
	log_info("request falls back id=%llu from=%s because=%s", (unsigned long long)r->id,
		request_provider(r)->config->name, status_name(status));
	counter_add(r->pipeline->scene.region, COUNTER_fallbacks, 1);
	request_keep_wait(r);
	r->attempt++;
	r->sent = false;
	r->received = 0;
	r->http_status = 0;
	return AGAIN;
}

static void request_count(const struct request *r)
{
	const struct region *region = r->pipeline->scene.region;
	enum status status = r->failure.status;

	if (status == STATUS_OK)
		counter_add(region, COUNTER_requests_succeeded, 1);
	else if (status == STATUS_CANCELLED)
		counter_add(region, COUNTER_requests_cancelled, 1);
	else
		counter_add(region, COUNTER_requests_failed, 1);
	if (status == STATUS_LIMITED || status == STATUS_NEVER_FITS)
		counter_add(region, COUNTER_requests_limited, 1);
	if (r->usage.input > 0)
		counter_add(region, COUNTER_tokens_input, (uint64_t)r->usage.input);
	if (r->usage.output > 0)
		counter_add(region, COUNTER_tokens_output, (uint64_t)r->usage.output);
	counter_sub(region, COUNTER_requests_active, 1);
}

static void request_free(struct request *r)
{
	struct pipeline *p = r->pipeline;

	loop_timer_cancel(p->loop, &r->deadline);
	list_unlink(&r->node);
	list_unlink(&r->all);
	failure_reset(&r->failure);
	failure_reset(&r->soonest);
	buffer_deinit(&r->body);
	free(r->target);
	free(r->frame);
	free(r->model);
	catalog_unref(r->catalog);
	free(r);
	p->active--;
	if (p->draining && p->active == 0)
		p->idle(p->idle_context);
}

/* The client's own account of it. */
static void request_leave(struct request *r)
{
	r->client->request_count--;
	r->client->held_bytes -= r->frame_size;
}

/* The one end of every request. client is NULL when it has left. */
static enum verdict step_settle(struct request *r)
{
	request_count(r);
	if (r->client) {
		reply_last(r);
		request_leave(r);
	}
	request_free(r);
	return DONE;
}

/* ---- what happens to a request from outside ---- */

/* From a step that waits: ANSWER is the only one. */
static void request_stop(struct request *r, enum status status, const char *message)
{
	request_resume(r, request_fail(r, status, str_of(message)));
}

static void request_on_deadline(struct loop_timer *t)
{
	struct request *r = container_of(t, struct request, deadline);

	request_stop(r, STATUS_DEADLINE, NULL);
}

static int request_new(struct request **out, struct pipeline *p, struct pipeline_client *client,
	uint64_t id, struct str body)
{
	struct request *r = calloc(1, sizeof(*r));

	if (!r)
		return -ENOMEM;
	r->frame = malloc(body.length ? body.length : 1);
	if (!r->frame) {
		free(r);
		return -ENOMEM;
	}
	memcpy(r->frame, body.data, body.length);
	r->pipeline = p;
	r->loop = p->loop;
	r->client = client;
	r->id = id;
	r->deadline.fn = request_on_deadline;
	r->arrived_ns = loop_now(p->loop);
	r->usage = (struct msg_usage){ -1, -1, -1, -1, -1 };
	r->catalog = catalog_ref(p->catalog);
	list_push(&client->requests, &r->node);
	list_push(&p->requests, &r->all);
	client->request_count++;
	client->held_bytes += body.length;
	r->frame_size = body.length;
	client->last_id = max_u64(client->last_id, id);
	p->active++;
	*out = r;
	return 0;
}

static struct request *pipeline_find(struct pipeline_client *client, uint64_t id)
{
	list_for_each (node, &client->requests) {
		struct request *r = container_of(node, struct request, node);

		if (r->id == id)
			return r;
	}
	return NULL;
}

/* Ids usually rise, so the search is for clients that reuse them. */
static bool pipeline_is_open(struct pipeline_client *client, uint64_t id)
{
	return client->request_count && id <= client->last_id && pipeline_find(client, id);
}

/* Why a request is refused before its first step; STATUS_OK: it is not. */
static enum status pipeline_refusal(const struct pipeline *p, const struct pipeline_client *client)
{
	if (p->draining)
		return STATUS_SHUTTING_DOWN;
	if (client->request_count > p->catalog->config->requests_per_connection ||
		client->held_bytes > PIPELINE_HELD_MAX)
		return STATUS_BUSY;
	return STATUS_OK;
}

static int request_arm_deadline(struct request *r)
{
	uint64_t timeout_ns = r->catalog->config->request_timeout_ns;

	if (r->ask.timeout_ms)
		timeout_ns = min_u64(r->ask.timeout_ms, UINT64_C(86400000)) * NSEC_PER_MSEC;
	return loop_timer_start(r->pipeline->loop, &r->deadline, r->arrived_ns + timeout_ns);
}

int pipeline_submit(struct pipeline *p, struct pipeline_client *client, uint64_t id,
	struct str body, const char **why)
{
	enum status refusal;
	struct request *r;
	int e;

	if (pipeline_is_open(client, id))
		return PIPELINE_E_DUPLICATE;
	e = request_new(&r, p, client, id, body);
	if (e < 0)
		return error_origin(e);
	e = msg_unpack_submit(str_make(r->frame, body.length), &r->ask, why);
	if (e > 0) {
		request_leave(r);
		request_free(r);
		return PIPELINE_E_BAD_FRAME;
	}
	counter_add(p->scene.region, COUNTER_requests_started, 1);
	counter_add(p->scene.region, COUNTER_requests_active, 1);
	refusal = pipeline_refusal(p, client);
	if (e < 0 || request_arm_deadline(r) < 0)
		refusal = STATUS_NO_MEMORY;
	request_run(r, refusal == STATUS_OK ? NEXT : request_fail(r, refusal, STR_NULL));
	return PIPELINE_OK;
}

void pipeline_cancel(struct pipeline *p, struct pipeline_client *client, uint64_t id)
{
	struct request *r = pipeline_find(client, id);

	(void)p;
	if (r)
		request_stop(r, STATUS_CANCELLED, NULL);
}

void pipeline_client_gone(struct pipeline *p, struct pipeline_client *client)
{
	(void)p;
	while (!list_is_empty(&client->requests)) {
		struct request *r = container_of(client->requests.next, struct request, node);

		r->client = NULL;
		request_stop(r, STATUS_CANCELLED, NULL);
	}
	client->request_count = 0;
	client->held_bytes = 0;
}

void pipeline_client_pressure(struct pipeline *p, struct pipeline_client *client, bool high)
{
	(void)p;
	client->pressured = high;
	list_for_each (node, &client->requests) {
		struct request *r = container_of(node, struct request, node);

		if (r->exchange && high)
			exchange_pause(r->exchange);
		else if (r->exchange)
			exchange_resume(r->exchange);
	}
}

/* ---- the pipeline itself ---- */

void pipeline_client_init(struct pipeline_client *c)
{
	list_init(&c->requests);
	c->request_count = 0;
	c->held_bytes = 0;
	c->last_id = 0;
	c->pressured = false;
}

int pipeline_new(struct pipeline **out, struct loop *loop, struct region *region, uint64_t owner,
	struct catalog *catalog)
{
	struct pipeline *p = calloc(1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	if (getrandom(&p->random, sizeof(p->random), 0) != sizeof(p->random))
		p->random = clock_boottime_ns();
	p->loop = loop;
	p->scene = (struct attempt_scene){
		.region = region,
		.owner = owner,
		.demand = &p->demand,
	};
	p->catalog = catalog_ref(catalog);
	list_init(&p->requests);
	*out = p;
	return 0;
}

struct pipeline *pipeline_free(struct pipeline *p)
{
	if (!p)
		return NULL;
	assert(p->active == 0);
	buffer_wipe(&p->head);
	buffer_deinit(&p->head);
	catalog_unref(p->catalog);
	free(p);
	return NULL;
}

void pipeline_set_catalog(struct pipeline *p, struct catalog *catalog)
{
	catalog_ref(catalog);
	catalog_unref(p->catalog);
	p->catalog = catalog;
	demand_forget(&p->demand);
}

void pipeline_drain(struct pipeline *p, void (*idle)(void *context), void *context)
{
	p->draining = true;
	p->idle = idle;
	p->idle_context = context;
	if (p->active == 0)
		idle(context);
}

void pipeline_abort_all(struct pipeline *p)
{
	while (!list_is_empty(&p->requests)) {
		struct request *r = container_of(p->requests.next, struct request, all);

		request_stop(r, STATUS_SHUTTING_DOWN, NULL);
	}
}

unsigned pipeline_active(const struct pipeline *p)
{
	return p->active;
}
