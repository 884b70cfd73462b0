#include "daemon/server.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include "base/clock.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/catalog.h"
#include "daemon/control.h"
#include "daemon/io/exchange.h"
#include "daemon/config/keys.h"
#include "daemon/config/keys_source.h"
#include "daemon/io/listener.h"
#include "daemon/io/loop.h"
#include "daemon/io/notify.h"
#include "daemon/pipeline.h"
#include "daemon/session.h"
#include "daemon/io/transport.h"
#include "proto/json.h"
#include "proto/utf8.h"
#include "proto/msg.h"
#include "shm/bucket_table.h"
#include "shm/counters.h"

#define SERVER_RING_ENTRIES 256
/* Of a STATUS_REPLY: everybody may ask for one, and users can be many. The region has them all. */
#define SERVER_STATUS_LIMITS 1000

struct server {
	const char *config_path;
	char *socket; /* fixed for life: the lock is on it */
	struct loop *loop;
	int lock_fd, signal_fd;
	struct control *control;
	struct transport_engine *engine;
	struct exchange_pool *pool;
	struct catalog *catalog;
	struct pipeline *pipeline;
	struct session_table *sessions;
	struct listener *listener;
	struct loop_watch signals;
	struct loop_timer drain, watchdog;
	uint64_t started_ns, watchdog_ns;
	bool draining, keep_log_level;
};

/* ---- status ---- */

static void server_status_providers(const struct server *s, struct json *j)
{
	const struct config *config = s->catalog->config;

	json_array_begin(j, "providers");
	for (unsigned i = 0; i < config->provider_count; i++) {
		const struct config_provider *p = &config->providers[i];

		json_object_begin(j, NULL);
		json_str(j, "name", str_of(p->name));
		json_str(j, "family", str_of(p->family->name));
		json_str(j, "format", str_of(s->catalog->provider[i].format->name));
		json_str(j, "base_url", str_of(p->base_url));
		json_bool(j, "has_key", keys_has(s->catalog->keys, i));
		json_object_end(j);
	}
	json_array_end(j);
	json_array_begin(j, "models");
	for (unsigned i = 0; i < config->model_count; i++)
		json_str(j, NULL, str_of(config->models[i].name));
	json_array_end(j);
	json_array_begin(j, "routes");
	for (unsigned i = 0; i < config->route_count; i++)
		json_str(j, NULL, str_of(config->routes[i].name));
	json_array_end(j);
}

static void server_status_limits(const struct server *s, struct json *j)
{
	const struct region *region = control_region(s->control);
	uint64_t now_ns = clock_boottime_ns();
	struct bucket_view view;
	unsigned listed = 0;

	json_array_begin(j, "limits");
	for (uint32_t i = 0; i < region->buckets && listed < SERVER_STATUS_LIMITS; i++) {
		if (!bucket_view(region, i, now_ns, &view))
			continue;
		listed++;
		json_object_begin(j, NULL);
		json_str(j, "scope", str_of(bucket_scope_name(view.scope)));
		/* Participants may have written anything here. */
		utf8_repair(view.name, strlen(view.name));
		json_str(j, "name", str_of(view.name));
		json_str(j, "resource", str_of(bucket_resource_name(view.resource)));
		json_uint(j, "limit", view.limit);
		json_uint(j, "window_ns", view.window_ns);
		json_uint(j, "burst", view.burst);
		json_uint(j, "available", view.available);
		json_uint(j, "held", view.held);
		json_object_end(j);
	}
	json_array_end(j);
}

static int server_status(void *context, struct buffer *out)
{
	const struct server *s = context;
	aux_cleanup(json_freep) struct json *j = json_new();
	const struct config *config = s->catalog->config;

	if (!j)
		return -ENOMEM;
	json_object_begin(j, NULL);
	json_str(j, "version", str_of(PROJECT_VERSION));
	json_int(j, "pid", getpid());
	json_str(j, "state", str_of(s->draining ? "draining" : "running"));
	json_real(j, "uptime_seconds",
		(double)(clock_boottime_ns() - s->started_ns) / (double)NSEC_PER_SEC);
	json_str(j, "socket", str_of(s->socket));
	json_str(j, "configuration", str_of(config->path ? config->path : "environment"));
	json_str(j, "loop", str_of(loop_describe(s->loop)));
	json_uint(j, "clients", session_count(s->sessions));
	json_uint(j, "requests_active", pipeline_active(s->pipeline));
	json_bool(j, "limiter", config->features.limiter);
	json_bool(j, "router", config->features.router);
	json_bool(j, "breaker", config->features.breaker);
	json_uint(j, "log_lines_dropped", log_dropped());
	server_status_providers(s, j);
	server_status_limits(s, j);
	json_object_end(j);
	return json_finish(j, false, out);
}

/* ---- reload ---- */

static int server_load_catalog(struct server *s, struct config *config, struct catalog **out)
{
	struct keys *keys = NULL;
	int r = keys_load(&keys, config, s->catalog ? s->catalog->keys : NULL);

	if (r == -EINVAL || r == -EACCES) /* logged, with what to do */
		return SERVER_E_SETUP;
	if (r == 0)
		r = catalog_new(out, config, keys, s->pool);
	if (r < 0)
		keys_free(keys);
	return r;
}

/* Limits, targets and routes as the catalog's configuration has them. */
static int server_configure(struct server *s, const struct catalog *catalog)
{
	const struct config *config = catalog->config;
	aux_cleanup(freep) bool *usable =
		calloc(config->provider_count ? config->provider_count : 1, sizeof(*usable));

	if (!usable)
		return error_origin(-ENOMEM);
	for (unsigned i = 0; i < config->provider_count; i++)
		usable[i] = config->providers[i].family->auth == FAMILY_AUTH_OPTIONAL ||
			keys_has(catalog->keys, i);
	return control_configure(s->control, config, usable);
}

static int server_set_access(struct server *s, const struct catalog *catalog)
{
	const struct config *config = catalog->config;

	return listener_set_access(s->listener, &config->access, config->connections_per_uid);
}

/* Limits or access that are not enforced as configured are worse than old ones. The last step is
 * the one that keeps the configuration: it undoes itself when it fails. */
static int server_enforce(struct server *s, const struct catalog *catalog)
{
	int r = server_set_access(s, catalog);

	if (r < 0)
		return error_trace(r);
	r = server_configure(s, catalog);
	if (r < 0 && server_set_access(s, s->catalog) < 0)
		log_error("who may connect is as in the new configuration: restart llmkitd");
	return error_trace(r);
}

static int server_apply(struct server *s, struct catalog *catalog)
{
	const struct config *config = catalog->config;
	int r = server_enforce(s, catalog);

	if (r < 0)
		return error_trace(r);
	if (!s->keep_log_level)
		log_set_level(config->log_level);
	catalog_use(catalog);
	pipeline_set_catalog(s->pipeline, catalog);
	catalog_unref(s->catalog);
	s->catalog = catalog;
	return 0;
}

/* r: what failed, where no error of the file did. */
static void server_reload_failed(const struct buffer *error, int r, struct buffer *why)
{
	struct str text = buffer_str(error);

	while (text.length && text.data[text.length - 1] == '\n')
		text.length--;
	if (!text.length && (r == -ENOSPC || r == -ERANGE || r == -ENAMETOOLONG))
		text = str_of("it does not fit the tables of limits and targets, or is out of "
			      "range; the daemon's log says what");
	if (!text.length)
		text = str_of(r < 0 ? strerror(-r) : "the reason is in the daemon's log");
	log_error("reload failed, the old configuration stays: %.*s", STR_ARG(text));
	buffer_printf(why, "reload failed, the old configuration stays: %.*s", STR_ARG(text));
}

/* All or nothing: a configuration with an error changes nothing, and why says what it is. */
static enum status server_reload(struct server *s, struct buffer *why)
{
	aux_cleanup(buffer_deinit) struct buffer error = BUFFER_NULL;
	struct config *config = NULL;
	struct catalog *catalog = NULL;
	int r;

	notify_reloading();
	r = config_load(&config, s->config_path, &error);
	if (r == 0 && strcmp(config->socket, s->socket) != 0)
		log_warning("a new socket path needs a restart: keeping socket=%s", s->socket);
	if (r == 0)
		r = server_load_catalog(s, config, &catalog);
	if (r != 0 && !catalog)
		config_free(config);
	if (r == 0)
		r = server_apply(s, catalog);
	if (r == 0) {
		log_notice("configuration reloaded providers=%u limits=%u", config->provider_count,
			config->limit_count);
	} else {
		catalog_unref(catalog);
		server_reload_failed(&error, r, why);
	}
	notify_ready();
	return r == 0 ? STATUS_OK : r < 0 ? STATUS_INTERNAL : STATUS_BAD_REQUEST;
}

static enum status server_command(
	void *context, struct str verb, struct str name, struct buffer *why)
{
	struct server *s = context;

	if (s->draining) {
		buffer_printf(why, "the daemon is ending: start the next one, then ask again");
		return STATUS_SHUTTING_DOWN;
	}
	if (str_is(verb, "reload"))
		return server_reload(s, why);
	return control_act(s->control, verb, name, why);
}

/* ---- the end ---- */

static void server_on_empty(void *context)
{
	loop_stop(((struct server *)context)->loop);
}

/* No request is active: what is written gets out, then the clients are closed. */
static void server_on_idle(void *context)
{
	struct server *s = context;

	session_finish_all(s->sessions, server_on_empty, s);
}

static void server_on_drain_timeout(struct loop_timer *t)
{
	struct server *s = container_of(t, struct server, drain);

	log_warning("drain timeout: ending requests=%u", pipeline_active(s->pipeline));
	pipeline_abort_all(s->pipeline);
}

static void server_drain(struct server *s)
{
	const struct config *config = s->catalog->config;

	if (s->draining) {
		pipeline_abort_all(s->pipeline);
		return;
	}
	s->draining = true;
	notify_stopping();
	log_notice("draining requests=%u timeout=%.1fs", pipeline_active(s->pipeline),
		(double)config->drain_timeout_ns / (double)NSEC_PER_SEC);
	listener_stop(s->listener);
	loop_timer_start(s->loop, &s->drain, loop_now(s->loop) + config->drain_timeout_ns);
	pipeline_drain(s->pipeline, server_on_idle, s);
}

/* ---- signals, watchdog ---- */

static void server_on_signal(struct loop_watch *w, uint32_t revents)
{
	struct server *s = container_of(w, struct server, signals);
	aux_cleanup(buffer_deinit) struct buffer why = BUFFER_NULL;
	struct signalfd_siginfo info;

	(void)revents;
	while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo != SIGHUP)
			server_drain(s);
		else if (!s->draining)
			server_reload(s, &why);
	}
	if (loop_watch_start(s->loop, w, s->signal_fd, POLLIN) < 0)
		log_error("out of memory: signals are not heard any more");
}

static void server_on_watchdog(struct loop_timer *t)
{
	struct server *s = container_of(t, struct server, watchdog);

	notify_watchdog();
	loop_timer_start(s->loop, t, loop_now(s->loop) + s->watchdog_ns);
}

/* First of all: one that comes during the start waits for the loop; threads inherit the mask. */
static int server_block_signals(struct server *s)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return s->signal_fd < 0 ? error_origin(-errno) : 0;
}

static int server_watch_signals(struct server *s)
{
	s->signals.fn = server_on_signal;
	return error_trace(loop_watch_start(s->loop, &s->signals, s->signal_fd, POLLIN));
}

/* ---- clients ---- */

static void server_on_accepted(void *context, int fd, const struct listener_peer *peer)
{
	struct server *s = context;

	session_accept(s->sessions, fd, peer);
}

static void server_on_gone(void *context, const struct listener_peer *peer)
{
	struct server *s = context;

	listener_gone(s->listener, peer->uid);
}

/* An empty socket takes these few bytes; who closed already is not told. */
static void server_say_refused(int fd, enum status status, const char *why)
{
	aux_cleanup(buffer_deinit) struct buffer frame = BUFFER_NULL;
	const struct msg_error error = { .status = status, .message = str_of(why) };

	if (msg_pack_error(&frame, 0, &error) < 0 ||
		send(fd, buffer_head(&frame), buffer_length(&frame), MSG_DONTWAIT | MSG_NOSIGNAL) <
			0)
		log_debug("a refused client was not told errno=%d", errno);
}

static void server_on_refused(
	void *context, int fd, const struct listener_peer *peer, const char *why)
{
	struct server *s = context;

	server_say_refused(fd, peer->role == LISTENER_REFUSED ? STATUS_REFUSED : STATUS_BUSY, why);
	counter_add(control_region(s->control), COUNTER_connections_refused, 1);
	log_notice("connection refused pid=%d uid=%u why=\"%s\"", (int)peer->pid,
		(unsigned)peer->uid, why);
}

/* ---- construction ---- */

/* Many clients and provider connections: as many descriptors as the hard limit allows. */
static void server_raise_descriptors(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < limit.rlim_max) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static int server_take_socket(struct server *s, const struct config *config)
{
	pid_t holder = 0;
	int r = listener_lock(s->socket, &s->lock_fd, &holder);

	if (r == LISTENER_E_HELD) {
		log_error("socket %s is held by process %d (running, or still draining): stop it, "
			  "wait for its end, or set another socket",
			s->socket, (int)holder);
		return SERVER_E_HELD;
	}
	if (r != LISTENER_OK)
		return r < 0 ? error_trace(r) : SERVER_E_SETUP;
	return error_trace(
		control_new(&s->control, s->loop, s->socket, config->runtime, &config->tables));
}

static int server_build_upstream(struct server *s, struct config *config)
{
	int r = transport_engine_new(&s->engine, s->loop);

	if (r == 0)
		r = exchange_pool_new(&s->pool, s->loop, s->engine, control_region(s->control));
	if (r == 0)
		r = server_load_catalog(s, config, &s->catalog);
	if (r == 0)
		r = server_configure(s, s->catalog);
	return error_trace(r);
}

static int server_build_clients(struct server *s)
{
	const struct config *config = s->catalog->config;
	const struct listener_events events = {
		.accepted = server_on_accepted,
		.refused = server_on_refused,
		.context = s,
	};
	const struct session_events session_events = {
		.status = server_status,
		.command = server_command,
		.gone = server_on_gone,
		.context = s,
	};
	int r = pipeline_new(&s->pipeline, s->loop, control_region(s->control),
		control_owner(s->control), s->catalog);

	if (r == 0)
		r = session_table_new(
			&s->sessions, s->loop, s->control, s->pipeline, &session_events);
	if (r == 0)
		r = listener_new(&s->listener, s->loop, s->socket, notify_listen_fd(),
			&config->access, config->connections_per_uid, &events);
	return r > 0 ? SERVER_E_SETUP : error_trace(r);
}

static int server_build(struct server *s, struct config *config)
{
	const struct loop_options options = { .entries = SERVER_RING_ENTRIES };
	int r = server_block_signals(s);

	if (r == 0)
		r = loop_new(&s->loop, &options);
	if (r == 0)
		r = server_take_socket(s, config);
	if (r == 0)
		r = server_build_upstream(s, config);
	if (r == 0)
		r = server_build_clients(s);
	if (r == 0)
		r = server_watch_signals(s);
	return r;
}

int server_new(
	struct server **out, struct config *config, const char *config_path, bool keep_log_level)
{
	struct server *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	*s = (struct server){
		.config_path = config_path,
		.keep_log_level = keep_log_level,
		.lock_fd = -1,
		.signal_fd = -1,
	};
	s->started_ns = clock_boottime_ns();
	s->drain.fn = server_on_drain_timeout;
	s->watchdog.fn = server_on_watchdog;
	server_raise_descriptors();
	s->socket = strdup(config->socket);
	r = s->socket ? server_build(s, config) : -ENOMEM;
	if (r != 0) {
		if (!s->catalog)
			config_free(config);
		server_free(s);
		return r;
	}
	*out = s;
	return 0;
}

struct server *server_free(struct server *s)
{
	if (!s)
		return NULL;
	s->sessions = session_table_free(s->sessions);
	s->listener = listener_free(s->listener);
	s->pipeline = pipeline_free(s->pipeline);
	s->catalog = catalog_unref(s->catalog);
	s->pool = exchange_pool_free(s->pool);
	s->engine = transport_engine_free(s->engine);
	s->control = control_free(s->control);
	if (s->loop) {
		loop_watch_cancel(s->loop, &s->signals);
		loop_timer_cancel(s->loop, &s->drain);
		loop_timer_cancel(s->loop, &s->watchdog);
	}
	closep(&s->signal_fd);
	s->loop = loop_free(s->loop);
	listener_unlock(&s->lock_fd);
	free(s->socket);
	free(s);
	return NULL;
}

static void server_say_no_provider(void)
{
	const char *left_out = family_left_out_key(keys_source_env_present);

	if (left_out)
		log_notice(
			"%s is set, but the format of that provider is not compiled in", left_out);
	log_notice("no provider has a key: set e.g. %s, or write a configuration",
		family_example_key());
}

int server_run(struct server *s)
{
	const struct config *config = s->catalog->config;
	int r;

	s->watchdog_ns = notify_watchdog_interval_ns();
	if (s->watchdog_ns)
		server_on_watchdog(&s->watchdog);
	log_notice("ready socket=%s providers=%u limits=%u", s->socket, config->provider_count,
		config->limit_count);
	if (config->provider_count == 0)
		server_say_no_provider();
	notify_ready();
	r = loop_run(s->loop);
	log_notice("stopped");
	return error_trace(r);
}
