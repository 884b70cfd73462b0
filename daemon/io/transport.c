#include "daemon/io/transport.h"

#include <curl/curl.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/log.h"

/* Ours is the only pool: libcurl shall neither close nor count what it believes is idle. Its
 * default age of 118 s would close connections that nothing was sent on yet. */
#define TRANSPORT_CURL_POOL 65536L
#define TRANSPORT_CURL_AGE 315360000L
/* Bounds what one curl_easy_recv() gives. A TLS record fits, so none is left half read inside,
 * where it raises no event. libcurl has it in memory while connecting only, and plain
 * connections do without. */
#define TRANSPORT_CURL_BUFFER 17408L
#define TRANSPORT_CURL_BUFFER_MIN 1024L

/* A socket libcurl asked us to watch: a connection under way, happy eyeballs' second try, the
 * resolver's pair. The serial tells it from an earlier one of the same descriptor. */
struct transport_socket {
	struct loop_watch watch;
	struct transport_engine *engine;
	uint64_t serial;
	int fd;
	uint32_t wanted; /* poll(2) */
};

struct transport_engine {
	struct loop *loop;
	CURLM *multi;
	CURLSH *share;
	struct loop_timer timer;
	const char *ca_bundle;
	struct transport_socket **socket; /* by descriptor */
	size_t sockets;
	uint64_t serial;
};

struct transport {
	struct loop_watch watch;
	struct transport_events events;
	struct transport_engine *engine;
	CURL *easy;     /* NULL once a plain socket was taken out */
	char *error;    /* libcurl's text, while connecting */
	int fd;         /* -1 while connecting */
	uint8_t wanted; /* poll(2): armed or to be armed */
	bool tls : 1, keep : 1, taken : 1, lost : 1;
	struct loop_deferred deferred; /* tells the owner that libcurl closed the socket */
};

/*
 * Sockets of libcurl. No curl_multi call from inside its callbacks.
 */

static struct transport_socket *engine_socket(struct transport_engine *e, int fd)
{
	return fd >= 0 && (size_t)fd < e->sockets ? e->socket[fd] : NULL;
}

static void engine_forget(struct transport_engine *e, int fd)
{
	struct transport_socket *s = engine_socket(e, fd);

	if (!s)
		return;
	loop_watch_cancel(e->loop, &s->watch);
	e->socket[fd] = NULL;
	free(s);
}

/* One-shot watches give level semantics when armed again after each socket_action. */
static void engine_arm(struct transport_engine *e, struct transport_socket *s)
{
	int r;

	if (loop_watch_is_started(&s->watch) || !s->wanted)
		return;
	r = loop_watch_start(e->loop, &s->watch, s->fd, s->wanted);
	if (r < 0) /* the connect timeout ends it */
		log_error("cannot watch a connecting socket errno=%d", -r);
}

static void transport_connected(struct transport *t, CURLcode code);

/* Hands out what finished. The callbacks may open and close transports. */
static void engine_finish(struct transport_engine *e)
{
	int left;

	for (CURLMsg *m; (m = curl_multi_info_read(e->multi, &left));) {
		struct transport *t = NULL;
		CURLcode code = m->data.result;

		if (m->msg != CURLMSG_DONE)
			continue;
		if (curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&t) == CURLE_OK)
			transport_connected(t, code);
	}
}

static void engine_act(struct transport_engine *e, int fd, int what)
{
	int running;
	CURLMcode code = curl_multi_socket_action(e->multi, fd, what, &running);

	if (code != CURLM_OK)
		log_error(
			"libcurl's socket interface failed text=\"%s\"", curl_multi_strerror(code));
	engine_finish(e);
}

static void engine_ready(struct loop_watch *w, uint32_t revents)
{
	struct transport_socket *s = container_of(w, struct transport_socket, watch);
	struct transport_engine *e = s->engine;
	uint64_t serial = s->serial;
	int fd = s->fd, what = 0;

	if (revents & (POLLIN | POLLHUP))
		what |= CURL_CSELECT_IN;
	if (revents & POLLOUT)
		what |= CURL_CSELECT_OUT;
	if (revents & (POLLERR | POLLNVAL))
		what |= CURL_CSELECT_ERR;
	engine_act(e, fd, what);
	s = engine_socket(e, fd);
	if (s && s->serial == serial)
		engine_arm(e, s);
}

static void engine_expired(struct loop_timer *timer)
{
	engine_act(container_of(timer, struct transport_engine, timer), CURL_SOCKET_TIMEOUT, 0);
}

static int engine_grow(struct transport_engine *e, int fd)
{
	size_t n = e->sockets ? e->sockets : 64;
	struct transport_socket **bigger;

	if ((size_t)fd < e->sockets)
		return 0;
	while (n <= (size_t)fd)
		n *= 2;
	bigger = reallocarray(e->socket, n, sizeof(*bigger));
	if (!bigger)
		return error_origin(-ENOMEM);
	memset(bigger + e->sockets, 0, (n - e->sockets) * sizeof(*bigger));
	e->socket = bigger;
	e->sockets = n;
	return 0;
}

static struct transport_socket *engine_announce(struct transport_engine *e, int fd)
{
	struct transport_socket *s = engine_socket(e, fd);

	if (s || engine_grow(e, fd) < 0)
		return s;
	s = calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	*s = (struct transport_socket){
		.watch.fn = engine_ready, .engine = e, .serial = ++e->serial, .fd = fd
	};
	e->socket[fd] = s;
	return s;
}

/* CURLMOPT_SOCKETFUNCTION */
static int engine_on_socket(CURL *easy, curl_socket_t fd, int what, void *context, void *socket)
{
	struct transport_engine *e = context;
	struct transport_socket *s;
	uint32_t wanted = 0;

	(void)easy; /* may be a handle of libcurl's own */
	(void)socket;
	if (what == CURL_POLL_REMOVE) {
		engine_forget(e, fd);
		return 0;
	}
	s = engine_announce(e, fd);
	if (!s)
		return -1;
	if (what & CURL_POLL_IN)
		wanted |= POLLIN;
	if (what & CURL_POLL_OUT)
		wanted |= POLLOUT;
	if (wanted == s->wanted)
		return 0;
	s->wanted = wanted;
	loop_watch_cancel(e->loop, &s->watch);
	engine_arm(e, s);
	return 0;
}

/* CURLMOPT_TIMERFUNCTION */
static int engine_on_timer(CURLM *multi, long timeout_ms, void *context)
{
	struct transport_engine *e = context;

	(void)multi;
	if (timeout_ms < 0) {
		loop_timer_cancel(e->loop, &e->timer);
		return 0;
	}
	return loop_timer_start(
		e->loop, &e->timer, loop_now(e->loop) + (uint64_t)timeout_ms * NSEC_PER_MSEC);
}

static void transport_on_lost(struct loop_deferred *d)
{
	struct transport *t = container_of(d, struct transport, deferred);

	t->events.readable(t->events.context, t);
}

/*
 * CURLOPT_CLOSESOCKETFUNCTION. libcurl may close without CURL_POLL_REMOVE. An armed poll keeps the
 * file open in the kernel after close(2): only shutdown(2) sends the FIN at once.
 */
static int transport_on_close(void *context, curl_socket_t fd)
{
	struct transport *t = context;

	engine_forget(t->engine, fd);
	if (fd == t->fd) {
		if (t->taken)
			return 0;
		loop_watch_cancel(t->engine->loop, &t->watch);
		t->fd = -1;
		t->lost = true;
		loop_deferred_start(t->engine->loop, &t->deferred);
	}
	shutdown(fd, SHUT_RDWR);
	return close(fd);
}

/*
 * The engine.
 */

static int engine_share(struct transport_engine *e)
{
	/* 7.88 caches TLS sessions per easy handle; ours live for one connection. Names are
	 * cached in the multi handle already. */
	e->share = curl_share_init();
	if (!e->share)
		return error_origin(-ENOMEM);
	if (curl_share_setopt(e->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION) != CURLSHE_OK)
		return error_origin(-EIO);
	return 0;
}

static int engine_configure(struct transport_engine *e)
{
	e->multi = curl_multi_init();
	if (!e->multi)
		return error_origin(-ENOMEM);
	if (curl_multi_setopt(e->multi, CURLMOPT_SOCKETFUNCTION, engine_on_socket) != CURLM_OK ||
		curl_multi_setopt(e->multi, CURLMOPT_SOCKETDATA, e) != CURLM_OK ||
		curl_multi_setopt(e->multi, CURLMOPT_TIMERFUNCTION, engine_on_timer) != CURLM_OK ||
		curl_multi_setopt(e->multi, CURLMOPT_TIMERDATA, e) != CURLM_OK ||
		curl_multi_setopt(e->multi, CURLMOPT_MAXCONNECTS, TRANSPORT_CURL_POOL) != CURLM_OK)
		return error_origin(-EIO);
	return 0;
}

int transport_engine_new(struct transport_engine **out, struct loop *loop)
{
	struct transport_engine *e;
	const curl_version_info_data *info;
	int r;

	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
		return error_origin(-EIO);
	e = calloc(1, sizeof(*e));
	if (!e)
		return error_origin(-ENOMEM);
	e->loop = loop;
	e->timer.fn = engine_expired;
	r = engine_share(e);
	if (r == 0)
		r = engine_configure(e);
	if (r < 0) {
		transport_engine_free(e);
		return error_trace(r);
	}
	/* Only here: the call may look up our own host name, and block. */
	info = curl_version_info(CURLVERSION_NOW);
	e->ca_bundle = info->cainfo;
	log_info("libcurl version=%s tls=\"%s\"", info->version,
		info->ssl_version ? info->ssl_version : "none");
	if (!(info->features & CURL_VERSION_ASYNCHDNS))
		log_warning("this libcurl resolves host names synchronously: a slow name server "
			    "stops the daemon; use one with a threaded resolver or c-ares");
	*out = e;
	return 0;
}

struct transport_engine *transport_engine_free(struct transport_engine *e)
{
	if (!e)
		return NULL;
	if (e->multi)
		curl_multi_cleanup(e->multi);
	if (e->share)
		curl_share_cleanup(e->share);
	for (size_t fd = 0; fd < e->sockets; fd++)
		engine_forget(e, (int)fd);
	loop_timer_cancel(e->loop, &e->timer);
	free(e->socket);
	free(e);
	return NULL;
}

/*
 * Opening.
 */

/* The bytes of a plain connection go past libcurl, but not through a proxy that speaks TLS. */
static bool target_must_keep(const struct transport_target *target)
{
	static const char *const variable[] = { "http_proxy", "all_proxy", "ALL_PROXY" };
	const char *proxy = target->proxy;

	if (strncasecmp(target->url, "http:", 5) != 0)
		return true;
	for (size_t i = 0; !proxy && i < ARRAY_SIZE(variable); i++)
		proxy = getenv(variable[i]);
	return proxy && strncasecmp(proxy, "https:", 6) == 0;
}

/* libcurl's setter is variadic: one macro keeps the types right and the list readable. */
#define transport_set(t_, option_, value_) \
	(curl_easy_setopt((t_)->easy, (option_), (value_)) == CURLE_OK)

static bool transport_set_wire(struct transport *t, const struct transport_target *target)
{
	long timeout = (long)(target->connect_timeout_ns / NSEC_PER_MSEC);

	return transport_set(t, CURLOPT_PROTOCOLS_STR, "http,https") &&
		transport_set(t, CURLOPT_URL, target->url) &&
		transport_set(t, CURLOPT_CONNECT_ONLY, 1L) &&
		transport_set(t, CURLOPT_FRESH_CONNECT, 1L) &&
		transport_set(t, CURLOPT_MAXAGE_CONN, TRANSPORT_CURL_AGE) &&
		transport_set(t, CURLOPT_FOLLOWLOCATION, 0L) &&
		transport_set(t, CURLOPT_NOSIGNAL, 1L) &&
		/* Else closing during a lookup waits for the resolver's thread. */
		transport_set(t, CURLOPT_QUICK_EXIT, 1L) &&
		transport_set(t, CURLOPT_TCP_NODELAY, 1L) &&
		transport_set(t, CURLOPT_TCP_KEEPALIVE, 1L) &&
		transport_set(t, CURLOPT_CONNECTTIMEOUT_MS, timeout > 0 ? timeout : 1L) &&
		transport_set(t, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) &&
		transport_set(t, CURLOPT_BUFFERSIZE,
			t->keep ? TRANSPORT_CURL_BUFFER : TRANSPORT_CURL_BUFFER_MIN) &&
		(!target->proxy || transport_set(t, CURLOPT_PROXY, target->proxy)) &&
		/* An http:// target behind a proxy gets a tunnel too: our bytes are the same. */
		transport_set(t, CURLOPT_HTTPPROXYTUNNEL, 1L) &&
		transport_set(t, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
}

static bool transport_set_tls(struct transport *t, const struct transport_target *target)
{
	const char *ca = target->ca_file ? target->ca_file : t->engine->ca_bundle;

	/* With a CA directory libcurl parses the bundle again for each connection, 40 ms. */
	if (ca &&
		(!transport_set(t, CURLOPT_CAINFO, ca) ||
			!transport_set(t, CURLOPT_CAPATH, (char *)NULL)))
		return false;
	return transport_set(t, CURLOPT_SSL_VERIFYPEER, 1L) &&
		transport_set(t, CURLOPT_SSL_VERIFYHOST, 2L) &&
		transport_set(t, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) &&
		transport_set(t, CURLOPT_SHARE, t->engine->share);
}

static bool transport_set_callbacks(struct transport *t)
{
	return transport_set(t, CURLOPT_PRIVATE, t) &&
		transport_set(t, CURLOPT_ERRORBUFFER, t->error) &&
		transport_set(t, CURLOPT_CLOSESOCKETFUNCTION, transport_on_close) &&
		transport_set(t, CURLOPT_CLOSESOCKETDATA, t);
}

static void transport_ready(struct loop_watch *w, uint32_t revents);

int transport_open(struct transport **out, struct transport_engine *e,
	const struct transport_target *target, const struct transport_events *events)
{
	struct transport *t = calloc(1, sizeof(*t));

	if (!t)
		return error_origin(-ENOMEM);
	*t = (struct transport){
		.watch.fn = transport_ready,
		.events = *events,
		.engine = e,
		.easy = curl_easy_init(),
		.error = calloc(1, CURL_ERROR_SIZE),
		.fd = -1,
		.tls = strncasecmp(target->url, "https:", 6) == 0,
		.keep = target_must_keep(target),
		.deferred.fn = transport_on_lost,
	};
	if (!t->easy || !t->error || !transport_set_callbacks(t) ||
		!transport_set_wire(t, target) || !transport_set_tls(t, target) ||
		curl_multi_add_handle(e->multi, t->easy) != CURLM_OK) {
		transport_close(t);
		return error_origin(-ENOMEM);
	}
	*out = t;
	return 0;
}

void transport_set_events(struct transport *t, const struct transport_events *events)
{
	t->events = *events;
}

static void transport_drop_easy(struct transport *t)
{
	if (!t->easy)
		return;
	curl_multi_remove_handle(t->engine->multi, t->easy);
	curl_easy_cleanup(t->easy);
	t->easy = NULL;
}

struct transport *transport_close(struct transport *t)
{
	if (!t)
		return NULL;
	loop_watch_cancel(t->engine->loop, &t->watch);
	transport_drop_easy(t); /* closes its socket through transport_on_close() */
	loop_deferred_cancel(t->engine->loop, &t->deferred);
	if (t->fd >= 0) {
		shutdown(t->fd, SHUT_RDWR);
		close(t->fd);
	}
	free(t->error);
	free(t);
	return NULL;
}

static enum status transport_status(CURLcode code)
{
	switch (code) {
	case CURLE_COULDNT_RESOLVE_HOST:
	case CURLE_COULDNT_RESOLVE_PROXY:
		return STATUS_DNS;
	case CURLE_SSL_CONNECT_ERROR:
	case CURLE_SSL_CERTPROBLEM:
	case CURLE_SSL_CIPHER:
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_USE_SSL_FAILED:
	case CURLE_SSL_CACERT_BADFILE:
	case CURLE_SSL_ISSUER_ERROR:
	case CURLE_SSL_ENGINE_NOTFOUND:
	case CURLE_SSL_ENGINE_SETFAILED:
	case CURLE_SSL_ENGINE_INITFAILED:
	case CURLE_SSL_CRL_BADFILE:
	case CURLE_SSL_SHUTDOWN_FAILED:
	case CURLE_SSL_PINNEDPUBKEYNOTMATCH:
	case CURLE_SSL_INVALIDCERTSTATUS:
	case CURLE_SSL_CLIENTCERT:
		return STATUS_TLS;
	case CURLE_OPERATION_TIMEDOUT:
		return STATUS_TIMEOUT;
	case CURLE_OUT_OF_MEMORY:
		return STATUS_NO_MEMORY;
	default:
		return STATUS_CONNECT;
	}
}

/* A plain connection becomes a bare descriptor: the handle costs kilobytes, and two calls. */
static void transport_take(struct transport *t)
{
	t->taken = true;
	transport_drop_easy(t);
}

static void transport_connected(struct transport *t, CURLcode code)
{
	curl_socket_t fd = CURL_SOCKET_BAD;
	enum status status = STATUS_OK;
	char *error = t->error; /* t may be gone after the callback */

	if (code == CURLE_OK)
		curl_easy_getinfo(t->easy, CURLINFO_ACTIVESOCKET, &fd);
	if (code == CURLE_OK && fd == CURL_SOCKET_BAD)
		code = CURLE_COULDNT_CONNECT;
	if (code != CURLE_OK)
		status = transport_status(code);
	if (error[0] == '\0')
		snprintf(error, CURL_ERROR_SIZE, "%s", curl_easy_strerror(code));
	curl_easy_setopt(t->easy, CURLOPT_ERRORBUFFER, NULL);
	t->error = NULL;
	if (status == STATUS_OK) {
		t->fd = fd;
		if (!t->keep)
			transport_take(t);
	}
	t->events.connected(t->events.context, t, status, error);
	free(error);
}

/*
 * Bytes.
 */

static ssize_t transport_send_kept(struct transport *t, const void *data, size_t size)
{
	size_t sent = 0;
	CURLcode code = curl_easy_send(t->easy, data, size, &sent);

	if (code == CURLE_AGAIN)
		return -EAGAIN;
	return code == CURLE_OK ? (ssize_t)sent : -EPIPE;
}

static ssize_t transport_receive_kept(struct transport *t, void *data, size_t size)
{
	size_t got = 0;
	CURLcode code = curl_easy_recv(t->easy, data, size, &got);

	if (code == CURLE_AGAIN)
		return -EAGAIN;
	return code == CURLE_OK ? (ssize_t)got : -ECONNRESET;
}

static int transport_want(struct transport *t, uint32_t wanted)
{
	if (t->wanted == wanted && loop_watch_is_started(&t->watch) == (wanted != 0))
		return 0;
	loop_watch_cancel(t->engine->loop, &t->watch);
	t->wanted = (uint8_t)wanted;
	if (!wanted || t->lost)
		return 0;
	return error_trace(loop_watch_start(t->engine->loop, &t->watch, t->fd, wanted));
}

ssize_t transport_send(struct transport *t, const void *data, size_t size)
{
	ssize_t n;
	int r;

	if (t->fd < 0)
		return -EPIPE;
	if (t->easy)
		n = transport_send_kept(t, data, size);
	else
		n = send(t->fd, data, size, MSG_NOSIGNAL | MSG_DONTWAIT);
	if (n < 0 && !t->easy)
		n = -errno;
	if (n == -EAGAIN || n == -EINTR)
		n = 0;
	if (n >= 0 && (size_t)n < size) {
		r = transport_want(t, t->wanted | POLLOUT);
		return r < 0 ? r : n;
	}
	return n;
}

ssize_t transport_receive(struct transport *t, void *data, size_t size)
{
	ssize_t n;

	if (t->fd < 0)
		return -ECONNRESET;
	if (t->easy)
		return transport_receive_kept(t, data, size);
	n = recv(t->fd, data, size, MSG_DONTWAIT);
	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	return n;
}

bool transport_must_drain(const struct transport *t)
{
	return t->easy != NULL;
}

int transport_watch(struct transport *t)
{
	return transport_want(t, t->wanted | POLLIN);
}

void transport_pause(struct transport *t)
{
	transport_want(t, t->wanted & ~(uint32_t)POLLIN);
}

/* Both may be ready: the other is armed again and comes next turn. t may be gone after a call. */
static void transport_ready(struct loop_watch *w, uint32_t revents)
{
	struct transport *t = container_of(w, struct transport, watch);
	uint32_t wanted = t->wanted;
	bool in = (wanted & POLLIN) && (revents & ~(uint32_t)POLLOUT);
	uint32_t rest = wanted & ~(uint32_t)(in ? POLLIN : POLLOUT);

	t->wanted = 0;
	if (rest)
		transport_want(t, rest);
	if (in)
		t->events.readable(t->events.context, t);
	else
		t->events.writable(t->events.context, t);
}
