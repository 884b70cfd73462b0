#include "tests/unit/pipeline-world.h"

#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include "base/clock.h"
#include "proto/utf8.h"
#include "shm/breaker.h"
#include "shm/hold.h"
#include "shm/target.h"

#define GUARD_SECONDS 100

/* The daemon's clock runs through here, so that deadlines are tested without waiting for them. */
_Atomic time_t skipped;

int clock_gettime(clockid_t id, struct timespec *t)
{
	int r = (int)syscall(SYS_clock_gettime, id, t);

	if (r == 0 && id == CLOCK_BOOTTIME)
		t->tv_sec += skipped;
	return r;
}

struct world w;

/* ---- the providers ---- */

void serve_ok(struct peer_io *io)
{
	if (peer_read_request(io) >= 0)
		peer_write(io, HEAD_SSE TEXT LAST);
}

void serve_mute(struct peer_io *io)
{
	peer_await_end(io);
}

void serve_429(struct peer_io *io)
{
	while (peer_read_request(io) >= 0)
		peer_write(io, "HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 2\r\n\r\n{}");
}

/* ---- the world ---- */

static struct buffer *client_output(struct pipeline_client *c)
{
	struct client *client = container_of(c, struct client, c);

	if (w.starve) {
		buffer_deinit(&client->out);
		w.starve();
	}
	return &client->out;
}

static void client_flush(struct pipeline_client *c)
{
	(void)c;
}

static void client_broken(struct pipeline_client *c)
{
	container_of(c, struct client, c)->broken++;
}

static int listen_deaf(int *port)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t size = sizeof(at);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(bind(fd, (struct sockaddr *)&at, sizeof(at)), 0);
	assert_int_equal(listen(fd, 16), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&at, &size), 0);
	*port = ntohs(at.sin_port);
	return fd;
}

struct catalog *catalog_load(void)
{
	aux_cleanup(buffer_deinit) struct buffer error = BUFFER_NULL;
	struct config *config = NULL;
	struct keys *keys = NULL;
	struct catalog *catalog;
	char path[] = "/tmp/llmkit-pipeline-XXXXXX";
	int fd = mkstemp(path);

	assert_int_equal(write(fd, w.config, strlen(w.config)), strlen(w.config));
	close(fd);
	if (config_load(&config, path, &error) != 0)
		fail_msg("%.*s", STR_ARG(buffer_str(&error)));
	unlink(path);
	assert_int_equal(keys_load(&keys, config, NULL), 0);
	assert_int_equal(catalog_new(&catalog, config, keys, w.pool), 0);
	return catalog;
}

static void world_configure(void)
{
	const struct config *config = w.catalog->config;

	for (unsigned i = 0; i < config->provider_count; i++) {
		const struct target_config target = {
			.name = str_of(config->providers[i].name),
			.provider = TARGET_NONE,
			.capabilities = TARGET_CAPABILITIES,
			.available = true,
		};
		int row = target_configure(&w.shm.r, &target);

		assert_true(row >= 0);
		breaker_configure(&w.shm.r, (uint32_t)row, &config->providers[i].breaker);
	}
	for (unsigned i = 0; i < config->limit_count; i++) {
		const struct config_limit *l = &config->limits[i];
		struct bucket_limit limit = {
			.scope = l->scope,
			.resource = l->resource,
			.kind = l->kind,
			.name = str_of(l->name),
			.limit = l->limit,
			.window_ns = l->window_ns,
			.burst = l->burst,
		};

		assert_true(bucket_configure(&w.shm.r, &limit, clock_boottime_ns()) >= 0);
	}
}

void world_open(void (*a)(struct peer_io *io), void (*b)(struct peer_io *io))
{
	int deaf, refused;

	memset(&w, 0, sizeof(w));
	skipped = 0;
	alarm(GUARD_SECONDS);
	assert_int_equal(loop_new(&w.loop, NULL), 0);
	assert_int_equal(transport_engine_new(&w.engine, w.loop), 0);
	w.shm = fixture_open(false);
	assert_int_equal(exchange_pool_new(&w.pool, w.loop, w.engine, &w.shm.r), 0);
	peer_start(&w.a, PEER_PLAIN, a);
	peer_start(&w.b, PEER_PLAIN, b);
	w.deaf = listen_deaf(&deaf);
	close(listen_deaf(&refused));
	snprintf(w.config, sizeof(w.config),
		"socket: /tmp/none.sock\n"
		"providers:\n"
		"  - {name: a, family: vllm, base_url: 'http://127.0.0.1:%d'}\n"
		"  - {name: b, family: vllm, base_url: 'http://127.0.0.1:%d'}\n"
		"  - {name: one, family: vllm, base_url: 'http://127.0.0.1:%d', connections: 1}\n"
		"  - {name: deaf, family: vllm, base_url: 'https://127.0.0.1:%d'}\n"
		"  - {name: refused, family: vllm, base_url: 'http://127.0.0.1:%d'}\n"
		"  - {name: nokey, family: openai, base_url: 'https://127.0.0.1:%d',"
		" key: {env: LLMKIT_TEST_NO_SUCH_KEY}}\n"
		"routes:\n"
		"  - {name: ab, targets: [a/m, b/m]}\n"
		"  - {name: refused-b, targets: [refused/m, b/m]}\n"
		"  - {name: nokey-b, targets: [nokey/m, b/m]}\n"
		"  - {name: nothing, targets: [refused/m, nokey/m]}\n"
		"limits:\n"
		"  - {provider: a, requests: 1/h, burst: 10}\n"
		"  - {provider: b, requests: 1/h, burst: 10}\n"
		"  - {provider: one, requests: 1/h, burst: 10}\n"
		"  - {provider: deaf, requests: 1/h, burst: 10}\n"
		"  - {provider: refused, requests: 1/h, burst: 10}\n"
		"  - {provider: nokey, requests: 1/h, burst: 10}\n"
		"  - {user: tight, requests: 1/h, burst: 1}\n"
		"request_timeout: 5s\n"
		"requests_per_connection: 4\n",
		w.a.port, w.b.port, w.a.port, deaf, refused, deaf);
	w.catalog = catalog_load();
	world_configure();
	assert_int_equal(
		pipeline_new(&w.pipeline, w.loop, &w.shm.r, hold_owner(0, 1), w.catalog), 0);
	pipeline_client_init(&w.client.c);
	w.client.c.output = client_output;
	w.client.c.flush = client_flush;
	w.client.c.broken = client_broken;
}

uint64_t counted(enum counter c)
{
	return counter_read(&w.shm.r, c);
}

/* Whatever happened: all that began has ended, and each only once. */
void world_close(void)
{
	pipeline_client_gone(w.pipeline, &w.client.c);
	assert_int_equal(pipeline_active(w.pipeline), 0);
	assert_int_equal(counted(COUNTER_requests_active), 0);
	assert_int_equal(counted(COUNTER_requests_started),
		counted(COUNTER_requests_succeeded) + counted(COUNTER_requests_failed) +
			counted(COUNTER_requests_cancelled));
	w.pipeline = pipeline_free(w.pipeline);
	w.catalog = catalog_unref(w.catalog);
	w.pool = exchange_pool_free(w.pool);
	w.engine = transport_engine_free(w.engine);
	w.loop = loop_free(w.loop);
	fixture_close(&w.shm);
	buffer_deinit(&w.client.out);
	close(w.deaf);
	peer_stop(&w.a);
	peer_stop(&w.b);
}

struct turns {
	struct loop_timer timer;
	unsigned left;
};

static void turn(struct loop_timer *t)
{
	struct turns *u = container_of(t, struct turns, timer);

	if (u->left-- == 0)
		loop_stop(w.loop);
	else
		loop_timer_start(w.loop, t, loop_now(w.loop) + NSEC_PER_MSEC);
}

void run_turns(unsigned n)
{
	struct turns u = { .timer.fn = turn, .left = n };

	assert_int_equal(loop_timer_start(w.loop, &u.timer, 0), 0);
	assert_int_equal(loop_run(w.loop), 0);
}

/* Until nothing is active; alarm() guards. */
void run_out(void)
{
	while (pipeline_active(w.pipeline))
		run_turns(1);
}

int submit_frame(uint64_t id, const struct buffer *frame)
{
	const char *why = "";

	return pipeline_submit(w.pipeline, &w.client.c, id,
		str_make(buffer_head(frame) + FRAME_HEADER_SIZE,
			buffer_length(frame) - FRAME_HEADER_SIZE),
		&why);
}

int submit_as(uint64_t id, struct msg_submit ask)
{
	aux_cleanup(buffer_deinit) struct buffer frame = BUFFER_NULL;

	if (!ask.body.length)
		ask.body = str_of(ASK);
	assert_int_equal(msg_pack_submit(&frame, id, &ask), 0);
	return submit_frame(id, &frame);
}

void submit(uint64_t id, const char *model)
{
	assert_int_equal(submit_as(id, (struct msg_submit){ .model = str_of(model) }), PIPELINE_OK);
}

void submit_route(uint64_t id, const char *route)
{
	assert_int_equal(submit_as(id, (struct msg_submit){ .route = str_of(route) }), PIPELINE_OK);
}

static void told_frame(struct told *t, const struct frame_header *h, struct str body)
{
	const char *why;

	t->starts += h->type == FRAME_START;
	t->texts += h->type == FRAME_TEXT;
	t->ends += h->type == FRAME_END;
	if (h->type == FRAME_TEXT) {
		struct str piece;

		assert_int_equal(msg_unpack_text(body, &piece, &why), 0);
		assert_true(utf8_is_valid(piece));
		t->text_bytes += piece.length;
	}
	if (h->type != FRAME_ERROR)
		return;
	t->errors++;
	assert_int_equal(msg_unpack_error(body, &t->error, &why), 0);
	snprintf(t->text, sizeof(t->text), "%.*s", STR_ARG(t->error.message));
	snprintf(t->limit, sizeof(t->limit), "%.*s", STR_ARG(t->error.limit));
}

/* Reads what the client has got about a request; everything when id is 0. */
struct told told(uint64_t id)
{
	struct told t = { 0 };
	struct frame_header h;
	size_t at = 0, size = buffer_length(&w.client.out);

	while (at < size) {
		assert_int_equal(frame_decode(buffer_head(&w.client.out) + at, size - at,
					 FRAME_BODY_MAX, &h),
			FRAME_OK);
		if (!id || h.request_id == id)
			told_frame(&t, &h,
				str_make(buffer_head(&w.client.out) + at + FRAME_HEADER_SIZE,
					h.length));
		at += FRAME_HEADER_SIZE + h.length;
	}
	return t;
}

uint64_t left(const char *provider)
{
	struct bucket_view v;

	for (uint32_t i = 0; i < w.shm.r.buckets; i++)
		if (bucket_view(&w.shm.r, i, clock_boottime_ns(), &v) &&
			strcmp(v.name, provider) == 0)
			return v.available;
	fail_msg("no limit %s", provider);
	return 0;
}

void expect_error(uint64_t id, enum status status)
{
	struct told t = told(id);

	assert_int_equal(t.errors, 1);
	assert_int_equal(t.ends, 0);
	assert_int_equal(t.error.status, status);
}

void expect_end(uint64_t id)
{
	struct told t = told(id);

	assert_int_equal(t.errors, 0);
	assert_int_equal(t.ends, 1);
	assert_int_equal(t.starts, 1);
}
