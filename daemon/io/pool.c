#include "daemon/io/pool.h"

#include <errno.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include "base/error.h"
#include "base/log.h"

#define POOL_REAP_MAX NSEC_PER_SEC

/* xorshift64: spreads ages, protects nothing. */
static uint64_t pool_random(struct exchange_pool *p)
{
	p->random ^= p->random << 13;
	p->random ^= p->random >> 7;
	p->random ^= p->random << 17;
	return p->random;
}

/* age +- 10 %, so that connections opened together are not replaced together. */
static uint64_t pool_jitter(struct exchange_pool *p, uint64_t age)
{
	uint64_t span = age / 5;

	return age - age / 10 + (span ? pool_random(p) % span : 0);
}

/*
 * Connections.
 */

void pool_connected(struct pool_connection *c)
{
	if (c->connecting)
		c->lane->connecting--;
	c->connecting = false;
}

struct pool_connection *pool_drop(struct pool_connection *c)
{
	if (!c)
		return NULL;
	pool_connected(c);
	list_unlink(&c->link);
	c->lane->connections--;
	transport_close(c->transport);
	free(c);
	return NULL;
}

/* True when nothing is wrong with an idle connection: nothing to read, not ended. TLS may take
 * in session tickets meanwhile. */
static bool pool_is_quiet(struct pool_connection *c)
{
	char junk[1];

	return transport_receive(c->transport, junk, sizeof(junk)) == -EAGAIN;
}

static void pool_idle_readable(void *context, struct transport *t)
{
	struct pool_connection *c = context;

	if (pool_is_quiet(c) && transport_watch(t) == 0)
		return;
	log_debug("idle connection ended lane=%s", c->lane->options.name);
	pool_drop(c);
}

bool pool_is_current(const struct pool_connection *c)
{
	return loop_now(c->lane->pool->loop) < c->retire_ns;
}

static void pool_reap_soon(struct exchange_pool *p, const struct exchange_lane *lane)
{
	if (!loop_timer_is_started(&p->reaper))
		loop_timer_start(p->loop, &p->reaper,
			loop_now(p->loop) + min_u64(lane->options.idle_ns + 1, POOL_REAP_MAX));
}

void pool_park(struct pool_connection *c)
{
	struct exchange_lane *lane = c->lane;

	if (!pool_is_current(c) || lane->connections > lane->options.max_connections ||
		transport_watch(c->transport) < 0) {
		pool_drop(c);
		return;
	}
	transport_set_events(c->transport,
		&(struct transport_events){ .readable = pool_idle_readable, .context = c });
	c->idle_since_ns = loop_now(lane->pool->loop);
	list_push(&lane->idle, &c->link);
	pool_reap_soon(lane->pool, lane);
}

struct pool_connection *pool_take_idle(
	struct exchange_lane *lane, const struct transport_events *events)
{
	while (!list_is_empty(&lane->idle)) {
		struct pool_connection *c =
			container_of(lane->idle.previous, struct pool_connection, link);

		if (!pool_is_current(c) || !pool_is_quiet(c)) {
			pool_drop(c);
			continue;
		}
		list_unlink(&c->link);
		transport_set_events(c->transport, events);
		c->reused = true;
		return c;
	}
	return NULL;
}

bool pool_has_room(const struct exchange_lane *lane)
{
	return !list_is_empty(&lane->idle) ||
		(lane->connections < lane->options.max_connections &&
			lane->connecting < lane->connecting_max);
}

int pool_connect(struct pool_connection **out, struct exchange_lane *lane,
	const struct transport_events *events)
{
	struct exchange_pool *p = lane->pool;
	struct pool_connection *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return error_origin(-ENOMEM);
	*c = (struct pool_connection){
		.lane = lane,
		.connecting = true,
		.retire_ns = loop_now(p->loop) + pool_jitter(p, lane->options.max_age_ns),
	};
	list_init(&c->link);
	r = transport_open(&c->transport, p->engine, &lane->options.target, events);
	if (r < 0) {
		free(c);
		return error_trace(r);
	}
	lane->connections++;
	lane->connecting++;
	*out = c;
	return 0;
}

/*
 * Lanes.
 */

static void lane_drop_idle(struct exchange_lane *lane)
{
	list_for_each_safe (node, &lane->idle)
		pool_drop(container_of(node, struct pool_connection, link));
}

static void options_deinit(struct exchange_lane_options *o)
{
	free((char *)(uintptr_t)o->name);
	free((char *)(uintptr_t)o->target.url);
	free((char *)(uintptr_t)o->target.ca_file);
	free((char *)(uintptr_t)o->target.proxy);
	*o = (struct exchange_lane_options){ 0 };
}

static bool copy_text(const char **out, const char *text)
{
	*out = text ? strdup(text) : NULL;
	return !text || *out;
}

static int options_copy(struct exchange_lane_options *out, const struct exchange_lane_options *o)
{
	struct exchange_lane_options copy = *o;
	bool ok = copy_text(&copy.name, o->name ? o->name : "");

	ok = copy_text(&copy.target.url, o->target.url) && ok;
	ok = copy_text(&copy.target.ca_file, o->target.ca_file) && ok;
	ok = copy_text(&copy.target.proxy, o->target.proxy) && ok;
	if (!ok) {
		options_deinit(&copy);
		return error_origin(-ENOMEM);
	}
	*out = copy;
	return 0;
}

static bool text_equal(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool target_equal(const struct transport_target *a, const struct transport_target *b)
{
	return text_equal(a->url, b->url) && text_equal(a->ca_file, b->ca_file) &&
		text_equal(a->proxy, b->proxy);
}

static unsigned lane_connecting_max(const struct exchange_lane_options *o)
{
	return strncasecmp(o->target.url, "https:", 6) == 0 ? POOL_CONNECTING_TLS :
							      POOL_CONNECTING_PLAIN;
}

static int lane_new(struct exchange_lane **out, struct exchange_pool *p,
	const struct exchange_lane_options *options)
{
	struct exchange_lane *lane = calloc(1, sizeof(*lane));

	if (!lane || options_copy(&lane->options, options) < 0) {
		free(lane);
		return error_origin(-ENOMEM);
	}
	lane->pool = p;
	lane->connecting_max = lane_connecting_max(options);
	list_init(&lane->idle);
	list_init(&lane->queue);
	list_push(&p->lanes, &lane->link);
	*out = lane;
	return 0;
}

static bool is_lane_of(const struct exchange_lane *lane, const char *name)
{
	return text_equal(lane->options.name, name ? name : "");
}

int exchange_lane_get(struct exchange_lane **out, struct exchange_pool *p,
	const struct exchange_lane_options *options)
{
	assert(options->target.url && options->max_connections > 0);
	list_for_each (node, &p->lanes) {
		struct exchange_lane *lane = container_of(node, struct exchange_lane, link);

		if (is_lane_of(lane, options->name) &&
			target_equal(&lane->options.target, &options->target)) {
			*out = lane;
			return 0;
		}
	}
	return lane_new(out, p, options);
}

void exchange_lane_set(struct exchange_lane *lane, const struct exchange_lane_options *options)
{
	struct exchange_lane_options set = *options;

	assert(options->max_connections > 0);
	set.name = lane->options.name;
	set.target = lane->options.target;
	set.target.connect_timeout_ns = options->target.connect_timeout_ns;
	lane->options = set;
	list_for_each (node, &lane->pool->lanes) {
		struct exchange_lane *other = container_of(node, struct exchange_lane, link);

		if (other != lane && is_lane_of(other, lane->options.name))
			lane_drop_idle(other);
	}
}

/*
 * The pool.
 */

static void lane_reap(struct exchange_lane *lane, uint64_t now)
{
	list_for_each_safe (node, &lane->idle) {
		struct pool_connection *c = container_of(node, struct pool_connection, link);

		if (!pool_is_current(c) || now - c->idle_since_ns >= lane->options.idle_ns)
			pool_drop(c);
	}
}

static void pool_reap(struct loop_timer *timer)
{
	struct exchange_pool *p = container_of(timer, struct exchange_pool, reaper);

	list_for_each (node, &p->lanes) {
		struct exchange_lane *lane = container_of(node, struct exchange_lane, link);

		lane_reap(lane, loop_now(p->loop));
		if (!list_is_empty(&lane->idle))
			pool_reap_soon(p, lane);
	}
}

int exchange_pool_new(struct exchange_pool **out, struct loop *loop, struct transport_engine *e,
	const struct region *counters)
{
	struct exchange_pool *p = calloc(1, sizeof(*p));

	if (!p)
		return error_origin(-ENOMEM);
	p->loop = loop;
	p->engine = e;
	p->counters = counters;
	p->reaper.fn = pool_reap;
	list_init(&p->lanes);
	if (getrandom(&p->random, sizeof(p->random), GRND_NONBLOCK) < 0 || p->random == 0)
		p->random = loop_now(loop) | 1;
	*out = p;
	return 0;
}

struct exchange_pool *exchange_pool_free(struct exchange_pool *p)
{
	if (!p)
		return NULL;
	list_for_each_safe (node, &p->lanes) {
		struct exchange_lane *lane = container_of(node, struct exchange_lane, link);

		lane_drop_idle(lane);
		assert(lane->connections == 0 && list_is_empty(&lane->queue));
		options_deinit(&lane->options);
		list_unlink(&lane->link);
		free(lane);
	}
	loop_timer_cancel(p->loop, &p->reaper);
	free(p);
	return NULL;
}
