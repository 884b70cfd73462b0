#include "tests/unit/exchange-jobs.h"
#include "tests/unit/cmocka-all.h"

#include <stdio.h>
#include <string.h>
#include "base/aux.h"

#define GUARD_NS (60 * NSEC_PER_SEC)
#define HEAD "POST /v1 HTTP/1.1\r\nHost: test\r\nContent-Length: %zu\r\n\r\n"

struct loop *loop;
static struct transport_engine *engine;
struct exchange_pool *pool;
static struct loop_timer guard;
struct peer peer;
static _Atomic uint64_t counters[COUNTERS];
const struct region region = { .counter = counters, .counters = COUNTERS };
static int order;

static void guard_fired(struct loop_timer *t)
{
	(void)t;
	print_error("test hangs\n");
	abort();
}

int jobs_setup(void **state)
{
	(void)state;
	assert_int_equal(loop_new(&loop, &(struct loop_options){ .entries = 64 }), 0);
	assert_int_equal(transport_engine_new(&engine, loop), 0);
	assert_int_equal(exchange_pool_new(&pool, loop, engine, &region), 0);
	guard.fn = guard_fired;
	loop_timer_start(loop, &guard, loop_now(loop) + GUARD_NS);
	memset((void *)counters, 0, sizeof(counters));
	order = 0;
	return 0;
}

int jobs_teardown(void **state)
{
	(void)state;
	pool = exchange_pool_free(pool);
	loop_timer_cancel(loop, &guard);
	engine = transport_engine_free(engine);
	loop = loop_free(loop);
	return 0;
}

struct turns {
	struct loop_timer timer;
	int left;
};

static void turn(struct loop_timer *t)
{
	struct turns *u = container_of(t, struct turns, timer);

	if (--u->left == 0)
		loop_stop(loop);
	else
		loop_timer_start(loop, t, loop_now(loop) + NSEC_PER_MSEC);
}

void run_turns(int n)
{
	struct turns u = { .timer.fn = turn, .left = n };

	loop_timer_start(loop, &u.timer, 0);
	assert_int_equal(loop_run(loop), 0);
	loop_timer_cancel(loop, &u.timer);
}

static void on_head(void *context, struct exchange *x, unsigned http)
{
	struct job *j = context;

	assert_false(j->starting);
	j->http = http;
	snprintf(j->type, sizeof(j->type), "%.*s", STR_ARG(exchange_header(x, "content-type")));
	if (j->abort_in_head) {
		exchange_abort(x);
		j->x = NULL;
	}
}

static void on_body(void *context, struct exchange *x, struct str bytes)
{
	struct job *j = context;

	assert_int_not_equal(j->http, 0);
	for (size_t i = 0; i < bytes.length && j->body_size + i < sizeof(j->body) - 1; i++)
		j->body[j->body_size + i] = bytes.data[i];
	j->body_size += bytes.length;
	if (j->abort_in_body) {
		exchange_abort(x);
		j->x = NULL;
	} else if (j->pause_in_body) {
		exchange_pause(x);
	}
}

static void on_end(void *context, struct exchange *x, enum status status, const char *text)
{
	struct job *j = context;

	assert_false(j->starting);
	assert_false(j->ended);
	assert_ptr_equal(j->x, x);
	j->ended = true;
	j->x = NULL;
	j->status = status;
	j->order = ++order;
	snprintf(j->text, sizeof(j->text), "%s", text);
	if (j->start_next)
		job_start(j->start_next, j->lane, 0);
}

void job_start_with(struct job *j, struct exchange_lane *lane, struct str head, struct str body)
{
	struct exchange_events events = { on_head, on_body, on_end, j };

	j->lane = lane;
	j->starting = true;
	assert_int_equal(exchange_start(&j->x, lane, head, body, &events), 0);
	j->starting = false;
}

void job_start(struct job *j, struct exchange_lane *lane, size_t body_size)
{
	char head[200], *body = calloc(1, body_size + 1);

	snprintf(head, sizeof(head), HEAD, body_size);
	job_start_with(j, lane, str_of(head), str_make(body, body_size));
	free(body);
}

void job_await(struct job *j)
{
	while (!j->ended)
		run_turns(2);
}

struct exchange_lane_options lane_options(void)
{
	return (struct exchange_lane_options){
		.name = "test",
		.target = { .url = peer.url,
			.ca_file = peer.ca_file[0] ? peer.ca_file : NULL,
			.connect_timeout_ns = 20 * NSEC_PER_SEC },
		.max_connections = 8,
		.idle_ns = 20 * NSEC_PER_SEC,
		.max_age_ns = 1000 * NSEC_PER_SEC,
		.first_byte_timeout_ns = 20 * NSEC_PER_SEC,
		.stall_timeout_ns = 20 * NSEC_PER_SEC,
		.body_max = 64u << 20,
	};
}

struct exchange_lane *lane_of(const struct exchange_lane_options *o)
{
	struct exchange_lane *lane;

	assert_int_equal(exchange_lane_get(&lane, pool, o), 0);
	exchange_lane_set(lane, o);
	return lane;
}

struct exchange_lane *lane_default(void)
{
	struct exchange_lane_options o = lane_options();

	return lane_of(&o);
}

struct job job_run(struct exchange_lane *lane)
{
	struct job j = { 0 };

	job_start(&j, lane, 0);
	job_await(&j);
	return j;
}

void stop_peer(void)
{
	pool = exchange_pool_free(pool);
	peer_stop(&peer);
	assert_int_equal(exchange_pool_new(&pool, loop, engine, &region), 0);
}

void serve_ok(struct peer_io *io)
{
	while (peer_read_request(io) >= 0)
		peer_write(io, OK_A);
}

const char *script[4][4];

void serve_script(struct peer_io *io)
{
	for (int i = 0; i < 4 && io->number < 4; i++) {
		if (peer_read_request(io) < 0) {
			atomic_fetch_add(&io->peer->ended, 1);
			return;
		}
		if (!script[io->number][i])
			return;
		peer_write(io, script[io->number][i]);
	}
}

void script_clear(void)
{
	memset(script, 0, sizeof(script));
}
