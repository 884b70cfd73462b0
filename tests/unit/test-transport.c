#include "daemon/io/transport.h"
#include "tests/unit/cmocka-all.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/aux.h"
#include "tests/unit/peer.h"
#include "tests/unit/slow-dns.h"

#define GUARD_NS (30 * NSEC_PER_SEC)
#define BIG (6u << 20)

struct client {
	struct transport *t;
	struct transport_target target;
	enum status status;
	char text[300];
	bool connected, ended, silent; /* silent: do not watch once connected */
	int readables;
	char got[1 << 16];
	size_t size, piece;   /* bytes per receive; 0: all that fits */
	size_t to_send, sent; /* bytes of a pattern */
	int open_at_end;
};

static struct loop *loop;
static struct transport_engine *engine;
static struct loop_timer guard;
static struct peer peer;

static void guard_fired(struct loop_timer *t)
{
	(void)t;
	print_error("test hangs\n");
	abort();
}

static int setup(void **state)
{
	(void)state;
	assert_int_equal(loop_new(&loop, &(struct loop_options){ .entries = 64 }), 0);
	assert_int_equal(transport_engine_new(&engine, loop), 0);
	guard.fn = guard_fired;
	loop_timer_start(loop, &guard, loop_now(loop) + GUARD_NS);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	loop_timer_cancel(loop, &guard);
	engine = transport_engine_free(engine);
	loop = loop_free(loop);
	return 0;
}

/* Lets the loop run until *condition or, without one, for a few turns. */
struct until {
	struct loop_timer timer;
	const bool *condition;
	int turns;
};

static void until_turn(struct loop_timer *t)
{
	struct until *u = container_of(t, struct until, timer);

	if (u->condition ? *u->condition : --u->turns == 0)
		loop_stop(loop);
	else
		loop_timer_start(loop, t, loop_now(loop) + NSEC_PER_MSEC);
}

static void run_until(const bool *condition)
{
	struct until u = { .timer.fn = until_turn, .condition = condition, .turns = 5 };

	loop_timer_start(loop, &u.timer, 0);
	assert_int_equal(loop_run(loop), 0);
	loop_timer_cancel(loop, &u.timer);
}

static void client_send(struct client *c)
{
	static char pattern[BIG];

	if (!pattern[1])
		for (size_t i = 0; i < sizeof(pattern); i++)
			pattern[i] = (char)('a' + i % 23);
	while (c->sent < c->to_send) {
		ssize_t n = transport_send(c->t, pattern + c->sent, c->to_send - c->sent);

		assert_true(n >= 0);
		c->sent += (size_t)n;
		if (c->sent < c->to_send)
			return; /* writable() comes */
	}
}

static void on_connected(void *context, struct transport *t, enum status status, const char *text)
{
	struct client *c = context;

	assert_ptr_equal(t, c->t);
	assert_false(c->connected);
	c->connected = true;
	c->status = status;
	snprintf(c->text, sizeof(c->text), "%s", text);
	if (status != STATUS_OK)
		return;
	if (!c->silent)
		assert_int_equal(transport_watch(t), 0);
	client_send(c);
}

static void on_readable(void *context, struct transport *t)
{
	struct client *c = context;

	c->readables++;
	for (;;) {
		size_t room = sizeof(c->got) - c->size, want = c->piece ? c->piece : room;
		ssize_t n = transport_receive(t, c->got + c->size, want < room ? want : room);

		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			c->ended = true;
			return;
		}
		c->size += (size_t)n;
	}
	assert_int_equal(transport_watch(t), 0);
}

static void on_writable(void *context, struct transport *t)
{
	(void)t;
	client_send(context);
}

static void client_open(struct client *c, const char *url, const char *ca_file)
{
	struct transport_events events = { on_connected, on_readable, on_writable, c };

	c->target.url = url;
	c->target.ca_file = ca_file;
	if (!c->target.connect_timeout_ns)
		c->target.connect_timeout_ns = 20 * NSEC_PER_SEC;
	assert_int_equal(transport_open(&c->t, engine, &c->target, &events), 0);
	/* Nothing is told from inside. */
	assert_false(c->connected);
}

static struct client *client_new(void)
{
	return calloc(1, sizeof(struct client));
}

static struct client *client_free(struct client *c)
{
	transport_close(c->t);
	free(c);
	return NULL;
}

/* One connection to url; how it ended. */
static enum status try_url(const char *url, const char *ca_file)
{
	struct client *c = client_new();
	enum status status;

	client_open(c, url, ca_file);
	run_until(&c->connected);
	status = c->status;
	assert_true(status == STATUS_OK || c->text[0]);
	client_free(c);
	return status;
}

/*
 * What a peer does.
 */

static void serve_echo(struct peer_io *io)
{
	char data[4096];
	size_t n;

	while ((n = peer_read(io, data, sizeof(data))) > 0)
		peer_write_bytes(io, data, n);
}

static void serve_await_end(struct peer_io *io)
{
	peer_write(io, "x");
	peer_await_end(io);
}

static void serve_close(struct peer_io *io)
{
	(void)io;
}

static void serve_records(struct peer_io *io)
{
	char data[40000];

	memset(data, 'r', sizeof(data));
	peer_write_bytes(io, data, sizeof(data));
	peer_await_end(io);
}

/* Reads late and slowly enough that the sender's buffers fill; answers whether all was right. */
static void serve_swallow(struct peer_io *io)
{
	char data[16384];
	size_t n, at = 0;
	bool right = true;

	nanosleep(&(struct timespec){ .tv_nsec = 50 * 1000 * 1000 }, NULL);
	while (at < BIG && (n = peer_read(io, data, sizeof(data))) > 0)
		for (size_t i = 0; i < n; i++, at++)
			right = right && data[i] == (char)('a' + at % 23);
	peer_write(io, right && at == BIG ? "right" : "wrong");
	peer_await_end(io);
}

/*
 * The tests.
 */

static void echo_through(enum peer_tls kind)
{
	struct client *c = client_new();

	peer_start(&peer, kind, serve_echo);
	c->to_send = 5;
	client_open(c, peer.url, peer.ca_file[0] ? peer.ca_file : NULL);
	while (c->size < 5)
		run_until(NULL);
	assert_int_equal(c->status, STATUS_OK);
	assert_memory_equal(c->got, "abcde", 5);
	assert_int_equal(transport_must_drain(c->t), kind != PEER_PLAIN);
	client_free(c);
	peer_stop(&peer);
}

static void plain_bytes_pass(void **state)
{
	(void)state;
	echo_through(PEER_PLAIN);
}

static void tls_bytes_pass(void **state)
{
	(void)state;
	echo_through(PEER_TRUSTED);
}

static void only_http_and_https(void **state)
{
	static const char *const schemes[] = { "ftp", "ldap", "telnet", "gopher", "smtp", "dict" };
	char url[100];

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_echo);
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++) {
		snprintf(url, sizeof(url), "%s://127.0.0.1:%d", schemes[i], peer.port);
		assert_int_equal(try_url(url, NULL), STATUS_CONNECT);
	}
	assert_int_equal(try_url("file:///etc/passwd", NULL), STATUS_CONNECT);
	assert_int_equal(try_url("http://", NULL), STATUS_CONNECT);
	assert_int_equal(peer.accepted, 0);
	peer_stop(&peer);
}

static void bad_certificates_are_refused(void **state)
{
	static const enum peer_tls kinds[] = { PEER_EXPIRED, PEER_WRONG_HOST, PEER_SELF_SIGNED,
		PEER_SILENT_TLS };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		peer_start(&peer, kinds[i], serve_echo);
		assert_int_equal(try_url(peer.url, peer.ca_file), STATUS_TLS);
		peer_stop(&peer);
	}
	/* Right, but not by anyone the system trusts. */
	peer_start(&peer, PEER_TRUSTED, serve_echo);
	assert_int_equal(try_url(peer.url, NULL), STATUS_TLS);
	assert_int_equal(try_url(peer.url, peer.ca_file), STATUS_OK);
	peer_stop(&peer);
}

static void tls_below_1_2_is_refused(void **state)
{
	(void)state;
	peer_start(&peer, PEER_TRUSTED, serve_echo);
	SSL_CTX_set_cipher_list(peer.tls, "ALL:@SECLEVEL=0");
	SSL_CTX_set_min_proto_version(peer.tls, TLS1_VERSION);
	SSL_CTX_set_max_proto_version(peer.tls, TLS1_1_VERSION);
	assert_int_equal(try_url(peer.url, peer.ca_file), STATUS_TLS);
	peer_stop(&peer);
}

static void serve_no_tls(struct peer_io *io)
{
	peer_write(io, "HTTP/1.1 400 Bad Request\r\n\r\n");
	peer_await_end(io);
}

static void failures_have_their_class(void **state)
{
	char url[100];

	(void)state;
	assert_int_equal(try_url("http://nobody.missing.test", NULL), STATUS_DNS);
	peer_start(&peer, PEER_PLAIN, serve_no_tls);
	snprintf(url, sizeof(url), "https://127.0.0.1:%d", peer.port);
	assert_int_equal(try_url(url, NULL), STATUS_TLS);
	peer_stop(&peer);
	assert_int_equal(try_url(peer.url, NULL), STATUS_CONNECT);
}

static void a_silent_peer_times_out(void **state)
{
	struct client *c = client_new();
	char url[100];

	(void)state;
	peer_start(&peer, PEER_PLAIN, peer_await_end);
	snprintf(url, sizeof(url), "https://127.0.0.1:%d", peer.port);
	c->target.connect_timeout_ns = 50 * NSEC_PER_MSEC;
	client_open(c, url, NULL);
	run_until(&c->connected);
	assert_int_equal(c->status, STATUS_TIMEOUT);
	client_free(c);
	peer_stop(&peer);
}

/* Counts what the TLS library opens. */
static char opened_path[100];
static int opened_watched, opened_system;

static FILE *open_counted(const char *name, const char *path, const char *mode)
{
	FILE *(*real)(const char *, const char *) = dlsym(RTLD_NEXT, name);

	if (opened_path[0] && strcmp(path, opened_path) == 0)
		opened_watched++;
	if (strncmp(path, "/etc/ssl/certs/", 15) == 0)
		opened_system++;
	return real(path, mode);
}

/* By their names in the library: in C one may be an alias of the other. */
__attribute__((visibility("default"))) FILE *open_plain(const char *path, const char *mode) __asm__(
	"fopen");
FILE *open_plain(const char *path, const char *mode)
{
	return open_counted("fopen", path, mode);
}

__attribute__((visibility("default"))) FILE *open_large(const char *path, const char *mode) __asm__(
	"fopen64");
FILE *open_large(const char *path, const char *mode)
{
	return open_counted("fopen64", path, mode);
}

/* With a CA directory configured libcurl parses the store for each connection, 40 ms of CPU. */
static void the_trust_store_is_read_once(void **state)
{
	(void)state;
	peer_start(&peer, PEER_TRUSTED, serve_echo);
	snprintf(opened_path, sizeof(opened_path), "%s", peer.ca_file);
	opened_watched = opened_system = 0;
	for (int i = 0; i < 10; i++)
		assert_int_equal(try_url(peer.url, peer.ca_file), STATUS_OK);
	assert_int_equal(opened_watched, 1);
	assert_int_equal(opened_system, 0);
	/* The system's bundle too is read once, and its directory never. */
	for (int i = 0; i < 3; i++)
		assert_int_equal(try_url(peer.url, NULL), STATUS_TLS);
	assert_int_equal(opened_system, 1);
	opened_path[0] = '\0';
	peer_stop(&peer);
}

static void tls_sessions_are_shared(void **state)
{
	(void)state;
	peer_start(&peer, PEER_TRUSTED, serve_echo);
	for (int i = 0; i < 6; i++) {
		struct client *c = client_new();

		c->to_send = 5;
		client_open(c, peer.url, peer.ca_file);
		/* The tickets come before the first answer. */
		while (c->size < 5)
			run_until(NULL);
		client_free(c);
	}
	assert_int_equal(peer.resumed, 5);
	peer_stop(&peer);
}

static void close_sends_fin(enum peer_tls kind)
{
	struct client *c = client_new();

	peer_start(&peer, kind, serve_await_end);
	client_open(c, peer.url, peer.ca_file[0] ? peer.ca_file : NULL);
	while (c->size < 1)
		run_until(NULL);
	run_until(NULL); /* its poll is in the kernel now */
	client_free(c);
	/* The loop does not run: nothing but the close itself can have told the peer. */
	for (int i = 0; i < 10000 && peer.ended == 0; i++)
		nanosleep(&(struct timespec){ .tv_nsec = 1000 * 1000 }, NULL);
	assert_int_equal(peer.ended, 1);
	peer_stop(&peer);
}

static void close_sends_fin_at_once(void **state)
{
	(void)state;
	close_sends_fin(PEER_PLAIN);
	close_sends_fin(PEER_TRUSTED);
}

struct ticker {
	struct loop_timer timer;
	int ticks, finished_before;
};

static void tick(struct loop_timer *t)
{
	struct ticker *k = container_of(t, struct ticker, timer);

	k->finished_before = slow_dns_finished;
	if (++k->ticks == 20)
		slow_dns_release();
	else
		loop_timer_start(loop, t, loop_now(loop) + NSEC_PER_MSEC);
}

static void slow_lookups_do_not_stop_the_loop(void **state)
{
	struct client *c = client_new();
	struct ticker k = { .timer.fn = tick };
	int finished = slow_dns_finished;
	char url[100];

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_echo);
	slow_dns_hold();
	snprintf(url, sizeof(url), "http://a.slow.test:%d", peer.port);
	client_open(c, url, NULL);
	loop_timer_start(loop, &k.timer, 0);
	run_until(&c->connected);
	/* The lookup could only end after the twentieth tick. */
	assert_int_equal(k.ticks, 20);
	assert_int_equal(k.finished_before, finished);
	assert_int_equal(c->status, STATUS_OK);
	client_free(c);
	peer_stop(&peer);
}

static void close_does_not_wait_for_a_lookup(void **state)
{
	struct client *c = client_new();
	int started = slow_dns_started, finished = slow_dns_finished;

	(void)state;
	slow_dns_hold();
	client_open(c, "http://b.slow.test:1", NULL);
	while (slow_dns_started == started)
		run_until(NULL);
	client_free(c);
	assert_int_equal(slow_dns_finished, finished);
	slow_dns_release();
	while (slow_dns_finished == finished)
		run_until(NULL);
}

static void closing_anywhere_leaves_the_others_alone(void **state)
{
	enum { N = 120 };
	struct client *clients[N];
	unsigned left = N;

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_echo);
	srand(1);
	for (int i = 0; i < N; i++) {
		clients[i] = client_new();
		clients[i]->to_send = 1 + (size_t)i;
		client_open(clients[i], peer.url, NULL);
		/* Closed while connecting or soon after: descriptors are used again at once. */
		if (rand() % 4 == 0)
			run_until(NULL);
		for (int k = rand() % 2; k > 0; k--) {
			int victim = rand() % (i + 1);

			if (!clients[victim])
				continue;
			clients[victim] = client_free(clients[victim]);
			left--;
		}
	}
	for (unsigned done = 0; done < left;) {
		run_until(NULL);
		done = 0;
		for (int i = 0; i < N; i++)
			done += clients[i] && clients[i]->size == 1 + (size_t)i;
	}
	for (int i = 0; i < N; i++)
		if (clients[i])
			client_free(clients[i]);
	peer_stop(&peer);
}

/* 40,000 bytes are three TLS records: what was decrypted raises no event of its own. */
static void bytes_inside_tls_are_read(void **state)
{
	struct client *c = client_new();

	(void)state;
	peer_start(&peer, PEER_TRUSTED, serve_records);
	c->piece = 1000;
	client_open(c, peer.url, peer.ca_file);
	while (c->size < 40000)
		run_until(NULL);
	client_free(c);
	peer_stop(&peer);
}

static void partial_sends_go_on(void **state)
{
	(void)state;
	for (enum peer_tls kind = PEER_PLAIN; kind <= PEER_TRUSTED; kind++) {
		struct client *c = client_new();

		peer_start(&peer, kind, serve_swallow);
		c->to_send = BIG;
		client_open(c, peer.url, peer.ca_file[0] ? peer.ca_file : NULL);
		while (c->size < 5)
			run_until(NULL);
		assert_memory_equal(c->got, "right", 5);
		client_free(c);
		peer_stop(&peer);
	}
}

static void a_paused_connection_is_silent(void **state)
{
	struct client *c = client_new();

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_echo);
	client_open(c, peer.url, NULL);
	run_until(&c->connected);
	transport_pause(c->t);
	c->to_send = 5;
	client_send(c);
	for (int i = 0; i < 5; i++)
		run_until(NULL);
	assert_int_equal(c->readables, 0);
	assert_int_equal(transport_watch(c->t), 0);
	while (c->size < 5)
		run_until(NULL);
	client_free(c);
	peer_stop(&peer);
}

/* libcurl throws out connections it finds dead when it makes another: the owner must hear of it. */
static void a_connection_libcurl_closed_is_told(void **state)
{
	struct client *c = client_new();
	bool ended;

	(void)state;
	peer_start(&peer, PEER_TRUSTED, serve_close);
	/* No tickets behind the handshake: unread bytes count as life. */
	SSL_CTX_set_max_proto_version(peer.tls, TLS1_2_VERSION);
	c->silent = true;
	client_open(c, peer.url, peer.ca_file);
	run_until(&c->connected);
	assert_int_equal(c->status, STATUS_OK);
	nanosleep(&(struct timespec){ .tv_sec = 1, .tv_nsec = 100 * 1000 * 1000 }, NULL);
	assert_int_equal(try_url(peer.url, peer.ca_file), STATUS_OK);
	run_until(NULL);
	ended = c->ended;
	client_free(c);
	peer_stop(&peer);
	assert_true(ended);
}

static char proxy_request[4096];

static void serve_proxy(struct peer_io *io)
{
	size_t n = 0;

	while (!strstr(proxy_request, "\r\n\r\n") && peer_read(io, proxy_request + n, 1) == 1)
		n++;
	peer_write(io, "HTTP/1.1 200 Established\r\n\r\n");
	serve_echo(io);
}

static void a_proxy_gets_a_tunnel(void **state)
{
	struct client *c = client_new();

	(void)state;
	peer_start(&peer, PEER_PLAIN, serve_proxy);
	c->target.proxy = peer.url;
	c->to_send = 5;
	client_open(c, "http://provider.missing.test:8080", NULL);
	while (c->size < 5)
		run_until(NULL);
	assert_memory_equal(c->got, "abcde", 5);
	assert_memory_equal(proxy_request, "CONNECT provider.missing.test:8080 HTTP/1.1\r\n", 45);
	client_free(c);
	peer_stop(&peer);
}

#define CASE(name_) cmocka_unit_test_setup_teardown(name_, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(plain_bytes_pass),
		CASE(tls_bytes_pass),
		CASE(only_http_and_https),
		CASE(bad_certificates_are_refused),
		CASE(tls_below_1_2_is_refused),
		CASE(failures_have_their_class),
		CASE(a_silent_peer_times_out),
		CASE(the_trust_store_is_read_once),
		CASE(tls_sessions_are_shared),
		CASE(close_sends_fin_at_once),
		CASE(slow_lookups_do_not_stop_the_loop),
		CASE(close_does_not_wait_for_a_lookup),
		CASE(closing_anywhere_leaves_the_others_alone),
		CASE(bytes_inside_tls_are_read),
		CASE(partial_sends_go_on),
		CASE(a_paused_connection_is_silent),
		CASE(a_connection_libcurl_closed_is_told),
		CASE(a_proxy_gets_a_tunnel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
