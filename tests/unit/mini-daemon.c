#include "tests/unit/mini-daemon.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "base/process.h"
#include "proto/status.h"
#include "shm/breaker.h"
#include "shm/participant.h"

#define PEERS_MAX 256
#define JOBS_MAX 256
#define FLOOD_PIECE (UINT32_C(1) << 20)
#define FLOOD_PIECES 80
#define BLOCK_PIECES 8
#define PACE_MS 1
#define LATE_NS (20 * NSEC_PER_MSEC)

struct job { /* a request that goes on */
	uint64_t id;
	unsigned next, end; /* paced: numbers still to send; else end is 0 */
	uint64_t end_ns;    /* when it ends; 0: hangs until cancelled */
};

struct peer {
	int fd;  /* -1: free */
	int row; /* of the participants; -1: none */
	bool welcomed, closing, blocked;
	struct buffer in, out;
	struct job job[JOBS_MAX];
	unsigned jobs;
};

struct server {
	const struct mini *mini;
	struct region region; /* the test's mapping, as a daemon may use it */
	const struct mini_script *script;
	int listener;
	bool ending;
	struct peer peer[PEERS_MAX];
};

#define check(x_) \
	do { \
		if (!(x_)) { \
			fprintf(stderr, "mini-daemon: %s:%d: %s\n", __FILE__, __LINE__, #x_); \
			_exit(1); \
		} \
	} while (0)

/* ---- answers ---- */

static void put_text(struct peer *p, uint64_t id, enum frame_type type, const char *text)
{
	check(msg_pack_text(&p->out, id, type, str_of(text)) == 0);
}

static void put_number(struct peer *p, uint64_t id, unsigned number)
{
	char text[16];

	snprintf(text, sizeof(text), "%u", number);
	put_text(p, id, FRAME_TEXT, text);
}

static void put_start(struct peer *p, uint64_t id)
{
	struct msg_start start = {
		.provider = str_of("mini"), .model = str_of("m"), .id = str_of("x")
	};

	check(msg_pack_start(&p->out, id, &start) == 0);
}

static void put_end(struct peer *p, uint64_t id)
{
	struct msg_end end = {
		.finish_reason = str_of("stop"), .first_token_us = 1, .total_us = 2
	};

	check(msg_pack_end(&p->out, id, &end) == 0);
}

static void put_error(struct peer *p, uint64_t id, enum status status)
{
	struct msg_error error = { .status = status, .message = str_of(status_text(status)) };

	check(msg_pack_error(&p->out, id, &error) == 0);
}

static void answer_echo(struct peer *p, uint64_t id, const struct msg_submit *m)
{
	struct msg_start start = { .provider = m->user, .model = m->model, .id = m->tag };
	struct msg_end end = { .finish_reason = m->route, .total_us = m->timeout_ms };

	check(msg_pack_start(&p->out, id, &start) == 0);
	check(msg_pack_text(&p->out, id, FRAME_TEXT, m->body) == 0);
	check(msg_pack_end(&p->out, id, &end) == 0);
}

static void answer_all(struct peer *p, uint64_t id)
{
	struct msg_tool_call call = { .index = 3,
		.id = str_of("call"),
		.name = str_of("weather"),
		.arguments = str_of("{\"a\":") };
	struct msg_usage usage = {
		.input = 10, .output = 20, .cached_input = -1, .cache_write = 0, .reasoning = 5
	};

	put_start(p, id);
	put_text(p, id, FRAME_REASONING, "hm");
	put_text(p, id, FRAME_TEXT, "");
	put_text(p, id, FRAME_TEXT, "gr\xc3\xbc\xc3\x9f");
	check(msg_pack_tool_call(&p->out, id, &call) == 0);
	check(msg_pack_usage(&p->out, id, &usage) == 0);
	put_end(p, id);
}

static void answer_error(struct peer *p, uint64_t id)
{
	struct msg_error error = {
		.status = STATUS_PROVIDER_LIMITED,
		.message = str_of("slow down"),
		.provider = str_of("mini"),
		.http_status = 429,
		.retry_after_ns = 7000000000,
		.limit = str_of("user ann requests"),
		.received = 12,
	};

	check(msg_pack_error(&p->out, id, &error) == 0);
}

static void answer_pid(struct peer *p, uint64_t id)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	check(getsockopt(p->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0);
	put_number(p, id, (unsigned)peer.pid);
	put_end(p, id);
}

static void answer_flood(struct peer *p, uint64_t id, int pieces)
{
	char *piece = malloc(FLOOD_PIECE);

	check(piece);
	memset(piece, 'x', FLOOD_PIECE);
	for (int i = 0; i < pieces; i++)
		check(msg_pack_text(&p->out, id, FRAME_TEXT, str_make(piece, FLOOD_PIECE)) == 0);
	free(piece);
	put_end(p, id);
}

static void answer_bad_body(struct peer *p, uint64_t id)
{
	struct frame_header h = { .length = 3, .type = FRAME_TEXT, .request_id = id };
	char frame[FRAME_HEADER_SIZE + 3] = { 0 };

	frame_encode(&h, frame);
	memset(frame + FRAME_HEADER_SIZE, 0xc1, 3);
	check(buffer_append(&p->out, frame, sizeof(frame)) == 0);
}

static void answer_newer(struct peer *p, uint64_t id)
{
	struct frame_header h = { .length = 3, .type = 0xf7, .request_id = id };
	char frame[FRAME_HEADER_SIZE + 3] = { 0 };

	frame_encode(&h, frame);
	check(buffer_append(&p->out, frame, sizeof(frame)) == 0);
	put_start(p, id);
	put_end(p, id);
}

static void add_job(struct peer *p, uint64_t id, unsigned end, uint64_t end_ns)
{
	check(p->jobs < JOBS_MAX);
	p->job[p->jobs++] = (struct job){ .id = id, .end = end, .end_ns = end_ns };
}

static void answer_last_words(struct server *s, struct peer *p, uint64_t id, bool half)
{
	size_t before;

	put_start(p, id);
	put_text(p, id, FRAME_TEXT, "abc");
	if (half) {
		before = buffer_length(&p->out);
		put_text(p, id, FRAME_TEXT, "never seen");
		p->out.end = p->out.begin + before + 20;
	}
	s->ending = true;
}

static void answer(struct server *s, struct peer *p, uint64_t id, const struct msg_submit *m)
{
	char model[64] = { 0 };

	memcpy(model, m->model.data ? m->model.data : "", min_u64(m->model.length, 63));
	if (strncmp(model, "count-", 6) == 0) {
		for (unsigned i = 0; i < (unsigned)atoi(model + 6); i++)
			put_number(p, id, i);
		put_end(p, id);
	} else if (strncmp(model, "paced-", 6) == 0) {
		add_job(p, id, (unsigned)atoi(model + 6), 0);
	} else if (strcmp(model, "late") == 0) {
		add_job(p, id, 0, clock_boottime_ns() + LATE_NS);
	} else if (strcmp(model, "all") == 0) {
		answer_all(p, id);
	} else if (strcmp(model, "pid") == 0) {
		answer_pid(p, id);
	} else if (strcmp(model, "hang") == 0) {
		put_start(p, id);
		add_job(p, id, 0, 0);
	} else if (strcmp(model, "flood") == 0) {
		answer_flood(p, id, FLOOD_PIECES);
	} else if (strcmp(model, "error") == 0) {
		answer_error(p, id);
	} else if (strcmp(model, "die") == 0 || strcmp(model, "half") == 0) {
		answer_last_words(s, p, id, model[0] == 'h');
	} else if (strcmp(model, "garbage") == 0) {
		put_text(p, id, FRAME_TEXT, "before");
		check(buffer_append(&p->out, "HTTP/1.1 400 Bad Request\r\n\r\n", 28) == 0);
	} else if (strcmp(model, "newer") == 0) {
		answer_newer(p, id);
	} else if (strcmp(model, "badbody") == 0) {
		answer_bad_body(p, id);
	} else if (strcmp(model, "bye") == 0) {
		put_error(p, 0, STATUS_SHUTTING_DOWN);
		p->closing = true;
	} else if (strcmp(model, "block") == 0) {
		answer_flood(p, id, BLOCK_PIECES);
		p->blocked = true;
	} else {
		answer_echo(p, id, m);
	}
}

static void cancel(struct peer *p, uint64_t id)
{
	for (unsigned i = 0; i < p->jobs; i++) {
		if (p->job[i].id != id)
			continue;
		p->job[i] = p->job[--p->jobs];
		put_error(p, id, STATUS_CANCELLED);
		return;
	}
}

/* ---- frames ---- */

static int region_to_send(const struct server *s)
{
	char path[64];

	if (s->script->region == MINI_REGION_NONE)
		return -1;
	if (s->script->region == MINI_REGION_GARBAGE)
		return open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", s->mini->region_fd);
	return open(
		path, (s->script->role == MSG_ROLE_PARTICIPANT ? O_RDWR : O_RDONLY) | O_CLOEXEC);
}

static uint64_t owner_of(struct server *s, struct peer *p)
{
	struct ucred peer;
	socklen_t size = sizeof(peer);

	if (s->script->role != MSG_ROLE_PARTICIPANT || s->script->no_owner)
		return 0;
	check(getsockopt(p->fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0);
	p->row =
		participant_claim(&s->region, (uint64_t)peer.pid, 1, peer.uid, clock_boottime_ns());
	return p->row < 0 ? 0 : participant_owner(&s->region, (uint32_t)p->row);
}

static void welcome(struct server *s, struct peer *p)
{
	int fd = region_to_send(s);
	struct msg_welcome m = {
		.version = s->script->version ? s->script->version : PROTOCOL_VERSION_MAX,
		.role = s->script->role,
		.daemon_pid = (uint64_t)getpid(),
		.body_max = s->script->body_max ? s->script->body_max : FRAME_BODY_MAX,
		.daemon = str_of("mini/1"),
		.control = fd >= 0,
		.owner = s->script->mute ? 0 : owner_of(s, p),
	};
	union {
		char bytes[CMSG_SPACE(3 * sizeof(int))];
		struct cmsghdr header;
	} control = { .header = { .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS } };
	size_t fds = s->script->extra ? 3 : 1;
	struct buffer frame = BUFFER_NULL;
	struct iovec io;
	struct msghdr message = { .msg_iov = &io, .msg_iovlen = 1 };

	if (s->script->mute)
		return;
	if (s->script->refuse) {
		put_error(p, 0, (enum status)s->script->refuse);
		p->closing = true;
		return;
	}
	check(msg_pack_welcome(&frame, &m) == 0);
	io = (struct iovec){ buffer_head(&frame), buffer_length(&frame) };
	if (fd >= 0) {
		for (size_t i = 0; i < fds; i++)
			memcpy(CMSG_DATA(&control.header) + i * sizeof(fd), &fd, sizeof(fd));
		control.header.cmsg_len = CMSG_LEN(fds * sizeof(fd));
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(fds * sizeof(fd));
	}
	/* The peer may be gone again. */
	p->welcomed = sendmsg(p->fd, &message, MSG_NOSIGNAL) > 0;
	closep(&fd);
	buffer_deinit(&frame);
}

/* ---- limits and commands ---- */

static void put_done(
	struct server *s, struct peer *p, uint64_t id, enum status status, const char *message)
{
	struct msg_done done = { .status = status, .message = str_of(message) };

	if (s->script->deaf)
		return;
	if (s->script->odd)
		put_end(p, id);
	else
		check(msg_pack_done(&p->out, id, &done) == 0);
}

static void resolve(struct server *s, struct peer *p, uint64_t id, const struct msg_resolve *m)
{
	const struct bucket_names names = {
		.provider = m->provider, .model = m->model, .user = m->user, .key = m->key
	};
	int r;

	if (s->script->resolve || s->script->lazy || s->script->deaf || s->script->odd) {
		put_done(s, p, id, (enum status)s->script->resolve, "as the script says");
		return;
	}
	r = bucket_instantiate(&s->region, &names, clock_boottime_ns());
	put_done(s, p, id,
		r == 0               ? STATUS_OK :
			r == -ENOSPC ? STATUS_BUSY :
				       STATUS_BAD_REQUEST,
		"");
}

static uint32_t labelled(const struct server *s, struct str label)
{
	for (uint32_t row = 0; row < s->region.buckets; row++) {
		struct bucket_view v;
		char text[256];

		if (!bucket_view(&s->region, row, clock_boottime_ns(), &v))
			continue;
		snprintf(text, sizeof(text), "%s %s %s", bucket_scope_name(v.scope), v.name,
			bucket_resource_name(v.resource));
		if (str_is(label, text))
			return row;
	}
	return BUCKET_NONE;
}

static void command_limit(
	struct server *s, struct peer *p, uint64_t id, const struct msg_command *m)
{
	uint32_t row = labelled(s, m->name);

	if (row == BUCKET_NONE) {
		put_done(s, p, id, STATUS_BAD_REQUEST, "no such limit");
		return;
	}
	if (str_is(m->verb, "limit-reset"))
		bucket_reset(&s->region, row, clock_boottime_ns());
	else
		bucket_unpause(&s->region, row);
	put_done(s, p, id, STATUS_OK, "");
}

static void command_breaker(
	struct server *s, struct peer *p, uint64_t id, const struct msg_command *m)
{
	uint32_t row = target_find(&s->region, m->name, NULL);
	uint64_t now = clock_boottime_ns();

	if (row == TARGET_NONE) {
		put_done(s, p, id, STATUS_UNKNOWN_MODEL, "no such target");
		return;
	}
	if (str_is(m->verb, "breaker-open"))
		breaker_force_open(&s->region, row, now);
	else if (str_is(m->verb, "breaker-close"))
		breaker_force_close(&s->region, row, now);
	else
		breaker_reset(&s->region, row, now);
	put_done(s, p, id, STATUS_OK, "");
}

static bool str_begins(struct str s, const char *with)
{
	return s.length >= strlen(with) && memcmp(s.data, with, strlen(with)) == 0;
}

static void command(struct server *s, struct peer *p, uint64_t id, const struct msg_command *m)
{
	if (s->script->role != MSG_ROLE_PARTICIPANT)
		put_done(s, p, id, STATUS_REFUSED, "observers only look");
	else if (str_is(m->verb, "reload"))
		put_done(s, p, id, STATUS_INTERNAL, "llmkitd.yaml:3:1: no");
	else if (str_begins(m->verb, "limit-"))
		command_limit(s, p, id, m);
	else if (str_begins(m->verb, "breaker-"))
		command_breaker(s, p, id, m);
	else
		put_done(s, p, id, STATUS_BAD_REQUEST, "no such verb");
}

/* ---- frames of all kinds ---- */

static void handle(struct server *s, struct peer *p, const struct frame_header *h, struct str body)
{
	struct msg_status_reply reply = { .json = str_of("{\"ok\":true}") };
	struct msg_command act;
	struct msg_resolve names;
	struct msg_submit submit;
	struct msg_hello hello;
	const char *why;

	switch (h->type) {
	case FRAME_HELLO:
		check(msg_unpack_hello(body, &hello, &why) == MSG_OK && hello.control);
		welcome(s, p);
		break;
	case FRAME_SUBMIT:
		check(p->welcomed);
		check(msg_unpack_submit(body, &submit, &why) == MSG_OK);
		answer(s, p, h->request_id, &submit);
		break;
	case FRAME_CANCEL:
		cancel(p, h->request_id);
		break;
	case FRAME_STATUS:
		check(msg_pack_status_reply(&p->out, h->request_id, &reply) == 0);
		break;
	case FRAME_RESOLVE:
		check(p->welcomed && msg_unpack_resolve(body, &names, &why) == MSG_OK);
		resolve(s, p, h->request_id, &names);
		break;
	case FRAME_COMMAND:
		check(p->welcomed && msg_unpack_command(body, &act, &why) == MSG_OK);
		command(s, p, h->request_id, &act);
		break;
	default:
		/* A frame torn by another thread's would end up here. */
		check(!"known frame");
	}
}

static void peer_close(struct server *s, struct peer *p)
{
	if (p->row >= 0)
		participant_orphan(&s->region, (uint32_t)p->row);
	close(p->fd);
	buffer_deinit(&p->in);
	buffer_deinit(&p->out);
	*p = (struct peer){ .fd = -1, .row = -1 };
}

static void peer_flush(struct peer *p)
{
	while (buffer_length(&p->out) > 0) {
		ssize_t n = send(p->fd, buffer_head(&p->out), buffer_length(&p->out),
			MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0)
			return;
		buffer_consume(&p->out, (size_t)n);
	}
	p->blocked = false;
}

static void peer_read(struct server *s, struct peer *p)
{
	struct frame_header h;
	ssize_t n;

	check(buffer_reserve(&p->in, 65536) == 0);
	n = recv(p->fd, buffer_tail(&p->in), 65536, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		peer_close(s, p);
		return;
	}
	p->in.end += (size_t)n;
	while (!p->blocked &&
		frame_decode(buffer_head(&p->in), buffer_length(&p->in), FRAME_BODY_MAX, &h) ==
			FRAME_OK &&
		buffer_length(&p->in) >= FRAME_HEADER_SIZE + h.length) {
		handle(s, p, &h, str_make(buffer_head(&p->in) + FRAME_HEADER_SIZE, h.length));
		buffer_consume(&p->in, FRAME_HEADER_SIZE + h.length);
	}
}

static void peer_pace(struct peer *p)
{
	for (unsigned i = 0; i < p->jobs; i++) {
		struct job *job = &p->job[i];

		if (job->end)
			put_number(p, job->id, job->next++);
		if (job->end ? job->next == job->end :
			       job->end_ns && clock_boottime_ns() >= job->end_ns) {
			put_end(p, job->id);
			*job = p->job[--p->jobs];
			i--;
		}
	}
}

/* ---- the process ---- */

static void server_accept(struct server *s)
{
	int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (int i = 0; fd >= 0 && i < PEERS_MAX; i++) {
		if (s->peer[i].fd < 0) {
			s->peer[i].fd = fd;
			return;
		}
	}
	closep(&fd);
}

static void server_turn(struct server *s)
{
	struct pollfd p[PEERS_MAX + 1] = { { .fd = s->listener, .events = POLLIN } };

	for (int i = 0; i < PEERS_MAX; i++) {
		struct peer *peer = &s->peer[i];

		p[i + 1].fd = peer->fd;
		p[i + 1].events = (short)((peer->blocked ? 0 : POLLIN) |
			(buffer_length(&peer->out) ? POLLOUT : 0));
	}
	poll(p, PEERS_MAX + 1, PACE_MS);
	if (p[0].revents)
		server_accept(s);
	for (int i = 0; i < PEERS_MAX; i++) {
		struct peer *peer = &s->peer[i];

		if (peer->fd >= 0 && p[i + 1].fd == peer->fd && p[i + 1].revents & ~POLLOUT)
			peer_read(s, peer);
		if (peer->fd < 0)
			continue;
		peer_pace(peer);
		peer_flush(peer);
		if (peer->closing)
			peer_close(s, peer);
		if (s->ending)
			_exit(0);
	}
}

static void server_run(struct mini *m, const struct mini_script *script, int listener)
{
	struct server *s = calloc(1, sizeof(*s));

	check(s);
	s->mini = m;
	s->region = m->region;
	s->script = script;
	s->listener = listener;
	for (int i = 0; i < PEERS_MAX; i++)
		s->peer[i].fd = s->peer[i].row = -1;
	for (;;)
		server_turn(s);
}

/* ---- the test's side ---- */

void mini_new_region(struct mini *m)
{
	struct region_owner owner = { .pid = (uint64_t)getpid(), .start = 1 };
	char path[64];

	region_detach(&m->region);
	closep(&m->region_fd);
	snprintf(path, sizeof(path), "%s/control", m->dir);
	unlink(path);
	m->region_fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	assert_true(m->region_fd >= 0);
	assert_int_equal(process_boot_id(owner.boot_id), 0);
	assert_int_equal(
		region_create(&m->region, m->region_fd, &owner, NULL, clock_boottime_ns(), false),
		0);
}

void mini_init(struct mini *m)
{
	*m = (struct mini){ .pid = -1, .dir = "/tmp/llmkit-mini-XXXXXX", .region_fd = -1 };
	assert_non_null(mkdtemp(m->dir));
	snprintf(m->socket, sizeof(m->socket), "%s/s.sock", m->dir);
	mini_new_region(m);
}

void mini_deinit(struct mini *m)
{
	char path[64];

	mini_kill(m);
	region_detach(&m->region);
	closep(&m->region_fd);
	unlink(m->socket);
	snprintf(path, sizeof(path), "%s/control", m->dir);
	unlink(path);
	rmdir(m->dir);
}

void mini_limit(struct mini *m, int scope, const char *name, uint64_t limit, uint64_t burst)
{
	const struct bucket_limit l = {
		.scope = (uint64_t)scope,
		.resource = BUCKET_REQUESTS,
		.kind = BUCKET_RATE,
		.name = str_of(name),
		.limit = limit,
		.window_ns = NSEC_PER_SEC,
		.burst = burst,
	};

	mini_limit_of(m, &l);
}

void mini_limit_of(struct mini *m, const struct bucket_limit *limit)
{
	assert_true(bucket_configure(&m->region, limit, clock_boottime_ns()) >= 0);
}

void mini_templates(struct mini *m, const struct bucket_limit *templates, unsigned count)
{
	assert_int_equal(
		bucket_set_templates(&m->region, templates, count, clock_boottime_ns()), 0);
}

/* Of several models of one name the first is the one that its name alone means. */
static uint64_t mini_traits(const struct mini *m, const char *name)
{
	uint32_t named = target_resolve(&m->region, str_of(strchr(name, '/') + 1));

	return named == TARGET_NONE || named == target_find(&m->region, str_of(name), NULL) ?
		TARGET_PLAIN :
		0;
}

uint32_t mini_target(struct mini *m, const char *name, int64_t price_input, int64_t price_output)
{
	const struct breaker_settings settings = breaker_preset(BREAKER_PRODUCTION);
	struct target_config c = {
		.name = str_make(name, (size_t)(strchr(name, '/') - name)),
		.provider = TARGET_NONE,
		.price_input = -1,
		.price_output = -1,
		.price_cached = -1,
		.available = true,
	};
	int provider = target_configure(&m->region, &c), row;

	assert_true(provider >= 0);
	breaker_configure(&m->region, (uint32_t)provider, &settings);
	c.name = str_of(name);
	c.provider = (uint32_t)provider;
	c.price_input = price_input;
	c.price_output = price_output;
	c.capabilities = TARGET_CAPABILITIES;
	c.traits = mini_traits(m, name);
	row = target_configure(&m->region, &c);
	assert_true(row >= 0);
	breaker_configure(&m->region, (uint32_t)row, &settings);
	return (uint32_t)row;
}

void mini_route(
	struct mini *m, const char *name, enum router_strategy strategy, const char *const *names)
{
	struct router_route route = {
		.name = str_of(name), .strategy = strategy, .price_cap_nanousd = -1
	};

	for (; names[route.count]; route.count++) {
		route.target[route.count].row =
			target_find(&m->region, str_of(names[route.count]), NULL);
		route.target[route.count].weight = 1;
		assert_true(route.target[route.count].row != TARGET_NONE);
	}
	assert_true(router_configure(&m->region, &route) >= 0);
}

uint32_t mini_row(
	const struct mini *m, uint64_t scope, enum bucket_resource resource, const char *name)
{
	struct bucket_set set = { 0 };

	return bucket_set_add(&set, &m->region, scope, resource, str_of(name)) ? set.index[0] :
										 BUCKET_NONE;
}

struct bucket_view mini_view(
	const struct mini *m, uint64_t scope, enum bucket_resource resource, const char *name)
{
	struct bucket_view view;

	assert_true(bucket_view(
		&m->region, mini_row(m, scope, resource, name), clock_boottime_ns(), &view));
	return view;
}

void mini_start(struct mini *m, const struct mini_script *script)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	assert_true(listener >= 0);
	unlink(m->socket);
	memcpy(address.sun_path, m->socket, strlen(m->socket));
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 64), 0);
	m->pid = fork();
	assert_true(m->pid >= 0);
	if (m->pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		server_run(m, script, listener);
		_exit(1);
	}
	close(listener);
}

void mini_kill(struct mini *m)
{
	int status;

	if (m->pid < 0)
		return;
	kill(m->pid, SIGKILL);
	assert_int_equal(waitpid(m->pid, &status, 0), m->pid);
	/* It ends by itself with 0 when asked to, and with 1 when it saw something wrong. */
	assert_true(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
	m->pid = -1;
}

int mini_open(const struct mini *m, llmkit **kit)
{
	struct llmkit_options o = { .size = sizeof(o),
		.socket = m->socket,
		.client = "test/1",
		.connect_timeout_ms = 20000 };

	return llmkit_open(kit, &o);
}
