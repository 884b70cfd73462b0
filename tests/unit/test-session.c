/* Clients of the daemon as frames on a socket: who may ask what, and how each frame is answered or
 * ends the connection. The loop, the region and the pipeline are real; server.c is played. */

#include "daemon/session.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/clock.h"
#include "proto/msg.h"
#include "shm/counters.h"
#include "shm/participant.h"
#include "tests/unit/cmocka-all.h"

#define GUARD_SECONDS 100
#define NAME_OF_158 \
	"12345678901234567890123456789012345678901234567890123456789012345678901234567890" \
	"123456789012345678901234567890123456789012345678901234567890123456789012345678"

static const char config_text[] =
	"socket: /tmp/none.sock\n"
	"providers: [{name: a, family: vllm, base_url: 'http://127.0.0.1:9'}]\n"
	"limits: [{user: boss, requests: 1/h}]\n"
	"templates: {per_user: {requests: 1/h}}\n"
	"tables: {limits: 8}\n";

/* A client's end of a connection. */
struct client {
	int fd, region_fd;
	bool over; /* the daemon closed it */
	struct buffer in;
	struct buffer body; /* of the last frame; what was unpacked of it points here */
};

static struct world {
	struct loop *loop;
	struct transport_engine *engine;
	struct exchange_pool *pool;
	struct catalog *catalog;
	struct control *control;
	struct pipeline *pipeline;
	struct session_table *sessions;
	char folder[64], socket[96];
	/* What server.c was told, and what it says. */
	unsigned gones, empties, commands;
	char verb[64], name[64];
	enum status answer;
	int status_error;
} w;

/* ---- the server's part ---- */

static int on_status(void *context, struct buffer *json)
{
	(void)context;
	return w.status_error ? w.status_error : buffer_printf(json, "{\"state\":\"running\"}");
}

static enum status on_command(void *context, struct str verb, struct str name, struct buffer *why)
{
	(void)context;
	w.commands++;
	snprintf(w.verb, sizeof(w.verb), "%.*s", STR_ARG(verb));
	snprintf(w.name, sizeof(w.name), "%.*s", STR_ARG(name));
	if (w.answer != STATUS_OK)
		buffer_printf(why, "the reason");
	return w.answer;
}

static void on_gone(void *context, const struct listener_peer *peer)
{
	(void)context;
	assert_int_equal(peer->uid, getuid());
	w.gones++;
}

static void on_empty(void *context)
{
	(void)context;
	w.empties++;
}

/* ---- the world ---- */

static void load_catalog(void)
{
	aux_cleanup(buffer_deinit) struct buffer error = BUFFER_NULL;
	struct config *config = NULL;
	struct keys *keys = NULL;
	char path[96];
	FILE *file;

	snprintf(path, sizeof(path), "%s/c.yaml", w.folder);
	file = fopen(path, "we");
	assert_non_null(file);
	assert_true(fputs(config_text, file) >= 0);
	assert_int_equal(fclose(file), 0);
	if (config_load(&config, path, &error) != 0)
		fail_msg("%.*s", STR_ARG(buffer_str(&error)));
	unlink(path);
	assert_int_equal(keys_load(&keys, config, NULL), 0);
	assert_int_equal(catalog_new(&w.catalog, config, keys, w.pool), 0);
}

static int setup(void **state)
{
	const struct session_events events = {
		.status = on_status, .command = on_command, .gone = on_gone
	};

	(void)state;
	memset(&w, 0, sizeof(w));
	alarm(GUARD_SECONDS);
	snprintf(w.folder, sizeof(w.folder), "/dev/shm/llmkit-session-XXXXXX");
	assert_non_null(mkdtemp(w.folder));
	snprintf(w.socket, sizeof(w.socket), "%s/d.sock", w.folder);
	assert_int_equal(loop_new(&w.loop, NULL), 0);
	assert_int_equal(transport_engine_new(&w.engine, w.loop), 0);
	assert_int_equal(exchange_pool_new(&w.pool, w.loop, w.engine, NULL), 0);
	load_catalog();
	assert_int_equal(
		control_new(&w.control, w.loop, w.socket, w.folder, &w.catalog->config->tables), 0);
	assert_int_equal(control_configure(w.control, w.catalog->config, NULL), 0);
	assert_int_equal(pipeline_new(&w.pipeline, w.loop, control_region(w.control),
				 control_owner(w.control), w.catalog),
		0);
	return session_table_new(&w.sessions, w.loop, w.control, w.pipeline, &events);
}

static int teardown(void **state)
{
	static const char *const names[] = { "d.control", "d.control.lock" };
	char path[128];

	(void)state;
	w.sessions = session_table_free(w.sessions);
	assert_int_equal(counter_read(control_region(w.control), COUNTER_connections_open), 0);
	w.pipeline = pipeline_free(w.pipeline);
	w.catalog = catalog_unref(w.catalog);
	w.pool = exchange_pool_free(w.pool);
	w.engine = transport_engine_free(w.engine);
	w.control = control_free(w.control);
	w.loop = loop_free(w.loop);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		snprintf(path, sizeof(path), "%s/%s", w.folder, names[i]);
		unlink(path);
	}
	return rmdir(w.folder);
}

static void turn_over(struct loop_timer *t)
{
	(void)t;
	loop_stop(w.loop);
}

/* A millisecond of the daemon's life. */
static void run_turn(void)
{
	struct loop_timer timer = { .fn = turn_over };

	assert_int_equal(loop_timer_start(w.loop, &timer, loop_now(w.loop) + NSEC_PER_MSEC), 0);
	assert_int_equal(loop_run(w.loop), 0);
}

/* ---- a client ---- */

static void client_read(struct client *c)
{
	char control[CMSG_SPACE(sizeof(int))], data[4096];
	struct iovec into = { data, sizeof(data) };
	struct msghdr m = { .msg_iov = &into,
		.msg_iovlen = 1,
		.msg_control = control,
		.msg_controllen = sizeof(control) };
	ssize_t n = recvmsg(c->fd, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;

	c->over |= n == 0 || (n < 0 && errno == ECONNRESET);
	if (n > 0)
		assert_int_equal(buffer_append(&c->in, data, (size_t)n), 0);
	if (head && head->cmsg_type == SCM_RIGHTS)
		memcpy(&c->region_fd, CMSG_DATA(head), sizeof(int));
}

/* The body of the next frame, which must be this one. */
static struct str expect(struct client *c, enum frame_type type, uint64_t id)
{
	struct frame_header h;

	while (frame_decode(buffer_head(&c->in), buffer_length(&c->in), FRAME_BODY_MAX, &h) !=
			FRAME_OK ||
		buffer_length(&c->in) < FRAME_HEADER_SIZE + h.length) {
		assert_false(c->over);
		run_turn();
		client_read(c);
	}
	assert_string_equal(frame_type_name(h.type), frame_type_name(type));
	assert_int_equal(h.request_id, id);
	buffer_reset(&c->body, SIZE_MAX);
	assert_int_equal(
		buffer_append(&c->body, buffer_head(&c->in) + FRAME_HEADER_SIZE, h.length), 0);
	buffer_consume(&c->in, FRAME_HEADER_SIZE + h.length);
	return buffer_str(&c->body);
}

static void expect_over(struct client *c)
{
	while (!c->over) {
		run_turn();
		client_read(c);
	}
	assert_int_equal(buffer_length(&c->in), 0);
}

/* The ERROR that ends the connection, with this in its message. */
static void expect_refusal(struct client *c, enum status status, const char *word)
{
	struct msg_error error;
	const char *why = "";
	char message[400];

	assert_int_equal(msg_unpack_error(expect(c, FRAME_ERROR, 0), &error, &why), MSG_OK);
	snprintf(message, sizeof(message), "%.*s", STR_ARG(error.message));
	if (error.status != status || !strstr(message, word))
		fail_msg("%s \"%s\" but not %s \"%s\"", status_name(error.status), message,
			status_name(status), word);
	expect_over(c);
}

static void expect_done(struct client *c, uint64_t id, enum status status, const char *word)
{
	struct msg_done done;
	const char *why = "";
	char message[400];

	assert_int_equal(msg_unpack_done(expect(c, FRAME_DONE, id), &done, &why), MSG_OK);
	snprintf(message, sizeof(message), "%.*s", STR_ARG(done.message));
	if (done.status != status || !strstr(message, word))
		fail_msg("%s \"%s\" but not %s \"%s\"", status_name(done.status), message,
			status_name(status), word);
}

static void send_bytes(struct client *c, struct buffer *frame)
{
	assert_int_equal(send(c->fd, buffer_head(frame), buffer_length(frame), MSG_NOSIGNAL),
		buffer_length(frame));
	buffer_deinit(frame);
}

/* A frame with a body as it is. */
static void send_raw(struct client *c, int type, uint64_t id, const char *body, size_t length)
{
	const struct frame_header h = {
		.type = (uint8_t)type, .length = (uint32_t)length, .request_id = id
	};
	struct buffer frame = BUFFER_NULL;
	char head[FRAME_HEADER_SIZE];

	frame_encode(&h, head);
	assert_int_equal(buffer_append(&frame, head, sizeof(head)), 0);
	assert_int_equal(buffer_append(&frame, body, length), 0);
	send_bytes(c, &frame);
}

static void send_hello(struct client *c, struct msg_hello hello)
{
	struct buffer frame = BUFFER_NULL;

	assert_int_equal(msg_pack_hello(&frame, &hello), 0);
	send_bytes(c, &frame);
}

static void send_resolve(struct client *c, uint64_t id, struct msg_resolve m)
{
	struct buffer frame = BUFFER_NULL;

	assert_int_equal(msg_pack_resolve(&frame, id, &m), 0);
	send_bytes(c, &frame);
}

static void send_command(struct client *c, uint64_t id, const char *verb, const char *name)
{
	const struct msg_command m = { str_of(verb), str_of(name) };
	struct buffer frame = BUFFER_NULL;

	assert_int_equal(msg_pack_command(&frame, id, &m), 0);
	send_bytes(c, &frame);
}

static void send_status(struct client *c, uint64_t id)
{
	struct buffer frame = BUFFER_NULL;

	assert_int_equal(msg_pack_status(&frame, id), 0);
	send_bytes(c, &frame);
}

static struct client connect_as(enum listener_role role, pid_t pid)
{
	const struct listener_peer peer = {
		.pid = pid, .uid = getuid(), .gid = getgid(), .role = role
	};
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	session_accept(w.sessions, fds[0], &peer);
	return (struct client){ .fd = fds[1], .region_fd = -1 };
}

static void client_close(struct client *c)
{
	close(c->fd);
	if (c->region_fd >= 0)
		close(c->region_fd);
	buffer_deinit(&c->in);
	buffer_deinit(&c->body);
}

static struct msg_welcome expect_welcome(struct client *c)
{
	struct msg_welcome welcome;
	const char *why = "";

	assert_int_equal(msg_unpack_welcome(expect(c, FRAME_WELCOME, 0), &welcome, &why), MSG_OK);
	return welcome;
}

static struct client attach_as(enum listener_role role)
{
	struct client c = connect_as(role, getpid());

	send_hello(&c, (struct msg_hello){ .version_min = 1, .version_max = 1, .control = true });
	expect_welcome(&c);
	return c;
}

static unsigned limits_there(void)
{
	struct bucket_view v;
	unsigned n = 0;

	for (uint32_t i = 0; i < control_region(w.control)->buckets; i++)
		n += bucket_view(control_region(w.control), i, clock_boottime_ns(), &v);
	return n;
}

static uint64_t counted(enum counter c)
{
	return counter_read(control_region(w.control), c);
}

/* ---- HELLO ---- */

static void a_participant_gets_a_row_and_the_region(void **state)
{
	struct client c = connect_as(LISTENER_PARTICIPANT, getpid());
	struct msg_welcome welcome;

	(void)state;
	send_hello(&c, (struct msg_hello){ .version_min = 1, .version_max = 9, .control = true });
	welcome = expect_welcome(&c);
	assert_int_equal(welcome.version, 1);
	assert_int_equal(welcome.role, MSG_ROLE_PARTICIPANT);
	assert_int_equal(welcome.body_max, FRAME_BODY_MAX);
	assert_int_equal(welcome.daemon_pid, getpid());
	assert_true(welcome.control && welcome.owner != 0 && welcome.generation != 0);
	assert_int_equal(fcntl(c.region_fd, F_GETFL) & O_ACCMODE, O_RDWR);
	assert_int_equal(session_count(w.sessions), 1);
	client_close(&c);
	while (session_count(w.sessions))
		run_turn();
	assert_int_equal(w.gones, 1);
}

static void an_observer_gets_the_region_to_read_alone(void **state)
{
	struct client c = connect_as(LISTENER_OBSERVER, getpid());
	struct msg_welcome welcome;

	(void)state;
	send_hello(&c, (struct msg_hello){ .version_min = 1, .version_max = 1, .control = true });
	welcome = expect_welcome(&c);
	assert_int_equal(welcome.role, MSG_ROLE_OBSERVER);
	assert_true(welcome.control);
	assert_int_equal(welcome.owner, 0);
	assert_int_equal(fcntl(c.region_fd, F_GETFL) & O_ACCMODE, O_RDONLY);
	client_close(&c);
}

static void who_does_not_ask_for_the_region_gets_none(void **state)
{
	struct client c = connect_as(LISTENER_PARTICIPANT, getpid());
	struct msg_welcome welcome;

	(void)state;
	send_hello(&c, (struct msg_hello){ .version_min = 1, .version_max = 1 });
	welcome = expect_welcome(&c);
	assert_false(welcome.control);
	assert_int_equal(welcome.owner, 0);
	assert_int_equal(c.region_fd, -1);
	client_close(&c);
}

static void hellos_that_make_no_sense_are_refused(void **state)
{
	static const struct {
		struct msg_hello hello;
		enum status status;
		const char *word;
	} cases[] = {
		{ { .version_min = 2, .version_max = 3 }, STATUS_VERSION, "2 to 3, the daemon 1" },
		{ { .version_min = 0, .version_max = 0 }, STATUS_VERSION, "0 to 0, the daemon 1" },
		{ { .version_min = 2, .version_max = 1 }, STATUS_PROTOCOL, "above" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct client c = connect_as(LISTENER_PARTICIPANT, getpid());

		send_hello(&c, cases[i].hello);
		expect_refusal(&c, cases[i].status, cases[i].word);
		client_close(&c);
	}
	assert_int_equal(counted(COUNTER_frames_bad), ARRAY_SIZE(cases));
	assert_int_equal(w.gones, ARRAY_SIZE(cases));
	assert_int_equal(session_count(w.sessions), 0);
}

static void nothing_comes_before_hello(void **state)
{
	static const int types[] = { FRAME_SUBMIT, FRAME_CANCEL, FRAME_STATUS, FRAME_RESOLVE,
		FRAME_COMMAND };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		struct client c = connect_as(LISTENER_PARTICIPANT, getpid());

		send_raw(&c, types[i], 1, "\x80", 1);
		expect_refusal(&c, STATUS_PROTOCOL, "first frame must be HELLO");
		client_close(&c);
	}
	assert_int_equal(w.commands, 0);
	assert_int_equal(limits_there(), 1);
}

/* ---- RESOLVE ---- */

static void resolve_makes_what_templates_say(void **state)
{
	struct client c = attach_as(LISTENER_PARTICIPANT);

	(void)state;
	assert_int_equal(limits_there(), 1);
	send_resolve(&c, 7, (struct msg_resolve){ .user = str_of("ann") });
	expect_done(&c, 7, STATUS_OK, "");
	assert_int_equal(limits_there(), 2);
	/* Once, and none for who has one of his own, nor for nobody. */
	send_resolve(&c, 8, (struct msg_resolve){ .user = str_of("ann") });
	send_resolve(&c, 9, (struct msg_resolve){ .user = str_of("boss") });
	send_resolve(&c, 0, (struct msg_resolve){ .provider = str_of("a") });
	expect_done(&c, 8, STATUS_OK, "");
	expect_done(&c, 9, STATUS_OK, "");
	expect_done(&c, 0, STATUS_OK, "");
	assert_int_equal(limits_there(), 2);
	client_close(&c);
}

static void observers_have_no_limits_of_their_own(void **state)
{
	struct client c = attach_as(LISTENER_OBSERVER);

	(void)state;
	send_resolve(&c, 7, (struct msg_resolve){ .user = str_of("ann") });
	expect_done(&c, 7, STATUS_REFUSED, "observers have no limits");
	assert_int_equal(limits_there(), 1);
	send_status(&c, 8);
	expect(&c, FRAME_STATUS_REPLY, 8);
	client_close(&c);
}

static void names_too_long_for_a_limit_are_refused(void **state)
{
	struct client c = attach_as(LISTENER_PARTICIPANT);

	(void)state;
	send_resolve(&c, 1, (struct msg_resolve){ .user = str_of(NAME_OF_158) });
	expect_done(&c, 1, STATUS_OK, "");
	send_resolve(&c, 2, (struct msg_resolve){ .user = str_of(NAME_OF_158 "xx") });
	expect_done(&c, 2, STATUS_BAD_REQUEST, "159 bytes; two together 158");
	assert_int_equal(limits_there(), 2);
	client_close(&c);
}

static void a_full_table_says_what_to_raise(void **state)
{
	struct client c = attach_as(LISTENER_PARTICIPANT);
	const struct region *r = control_region(w.control);
	char name[16];
	uint64_t id = 0;

	(void)state;
	while (limits_there() < r->buckets) {
		struct bucket_set set = { 0 };

		snprintf(name, sizeof(name), "user-%u", (unsigned)++id);
		send_resolve(&c, id, (struct msg_resolve){ .user = str_of(name) });
		expect_done(&c, id, STATUS_OK, "");
		/* In use: none that gives way. */
		assert_true(
			bucket_set_add(&set, r, BUCKET_SCOPE_USER, BUCKET_REQUESTS, str_of(name)));
		assert_int_equal(
			bucket_acquire(r, &set, 1, clock_boottime_ns()).outcome, BUCKET_OK);
	}
	send_resolve(&c, 99, (struct msg_resolve){ .user = str_of("late") });
	expect_done(&c, 99, STATUS_BUSY, "tables.limits");
	client_close(&c);
}

static void a_body_that_is_none_ends_the_connection(void **state)
{
	static const struct {
		int type;
		const char *body, *word;
	} cases[] = {
		{ FRAME_RESOLVE, "", "RESOLVE" },
		{ FRAME_RESOLVE, "\x90", "resolve: the body is not a map" },
		{ FRAME_RESOLVE, "\x81\xa4user\x01", "resolve: \"user\" is not" },
		{ FRAME_RESOLVE, "\x81\xa4user\xa2\x1f!", "resolve: \"user\" is not" },
		{ FRAME_RESOLVE, "\x82\xa4user\xa1x\xa4user\xa1y", "\"user\" is there twice" },
		{ FRAME_COMMAND, "\x80", "command: \"verb\" is missing" },
		{ FRAME_COMMAND, "\x81\xa4name\xa1x", "command: \"verb\" is missing" },
		{ FRAME_COMMAND, "\x81\xa4verb\xc0", "command: \"verb\" is not" },
		{ FRAME_STATUS, "\xc0", "the body is not a map" },
		{ FRAME_CANCEL, "\x90", "the body is not a map" },
		{ FRAME_SUBMIT, "\x80", "submit: \"body\" is missing" },
		{ FRAME_WELCOME, "\x80", "a frame type that clients do not send" },
		{ FRAME_HELLO, "\x80", "a frame type that clients do not send" },
		{ 0x7f, "\x80", "a frame type that clients do not send" },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct client c = attach_as(LISTENER_PARTICIPANT);

		send_raw(&c, cases[i].type, 1, cases[i].body, strlen(cases[i].body));
		expect_refusal(&c, STATUS_PROTOCOL, i == 0 ? "" : cases[i].word);
		client_close(&c);
	}
	assert_int_equal(counted(COUNTER_frames_bad), ARRAY_SIZE(cases));
	assert_int_equal(w.commands, 0);
}

/* ---- COMMAND ---- */

static void commands_are_passed_on_and_answered(void **state)
{
	struct client c = attach_as(LISTENER_PARTICIPANT);

	(void)state;
	send_command(&c, 3, "breaker-open", "a/m");
	expect_done(&c, 3, STATUS_OK, "");
	assert_string_equal(w.verb, "breaker-open");
	assert_string_equal(w.name, "a/m");
	w.answer = STATUS_BAD_REQUEST;
	send_command(&c, 4, "frob", "");
	expect_done(&c, 4, STATUS_BAD_REQUEST, "the reason");
	assert_string_equal(w.verb, "frob");
	assert_string_equal(w.name, "");
	w.answer = STATUS_SHUTTING_DOWN;
	send_command(&c, 5, "reload", "");
	expect_done(&c, 5, STATUS_SHUTTING_DOWN, "the reason");
	assert_int_equal(w.commands, 3);
	client_close(&c);
}

static void observers_may_look_not_act(void **state)
{
	struct client c = attach_as(LISTENER_OBSERVER);

	(void)state;
	send_command(&c, 3, "breaker-open", "a/m");
	expect_done(&c, 3, STATUS_REFUSED, "may look, not act");
	assert_int_equal(w.commands, 0);
	client_close(&c);
}

/* ---- STATUS, CANCEL ---- */

static void status_is_answered_with_its_id(void **state)
{
	struct client c = attach_as(LISTENER_PARTICIPANT);
	struct msg_status_reply reply;
	const char *why = "";

	(void)state;
	send_raw(&c, FRAME_CANCEL, 12345, "\x80", 1);
	for (uint64_t id = 0; id < 3; id++) {
		send_status(&c, id);
		assert_int_equal(
			msg_unpack_status_reply(expect(&c, FRAME_STATUS_REPLY, id), &reply, &why),
			MSG_OK);
		assert_true(str_is(reply.json, "{\"state\":\"running\"}"));
	}
	w.status_error = -ENOMEM;
	send_status(&c, 9);
	expect_refusal(&c, STATUS_NO_MEMORY, "STATUS: out of memory");
	client_close(&c);
}

/* ---- ends ---- */

static void expect_shutting_down(struct client *c, uint64_t id)
{
	const struct msg_submit ask = { .model = str_of("a/m"),
		.body = str_of("{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}") };
	struct buffer frame = BUFFER_NULL;
	struct msg_error error;
	const char *why = "";

	assert_int_equal(msg_pack_submit(&frame, id, &ask), 0);
	send_bytes(c, &frame);
	assert_int_equal(msg_unpack_error(expect(c, FRAME_ERROR, id), &error, &why), MSG_OK);
	assert_int_equal(error.status, STATUS_SHUTTING_DOWN);
}

static void while_draining_all_but_requests_are_answered(void **state)
{
	struct client c = attach_as(LISTENER_PARTICIPANT);

	(void)state;
	pipeline_drain(w.pipeline, on_empty, NULL);
	assert_int_equal(w.empties, 1);
	expect_shutting_down(&c, 1);
	send_resolve(&c, 2, (struct msg_resolve){ .user = str_of("ann") });
	expect_done(&c, 2, STATUS_OK, "");
	send_status(&c, 3);
	expect(&c, FRAME_STATUS_REPLY, 3);
	client_close(&c);
}

static void what_was_said_gets_out_before_the_end(void **state)
{
	struct client c[3];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		c[i] = attach_as(i == 1 ? LISTENER_OBSERVER : LISTENER_PARTICIPANT);
	assert_int_equal(session_count(w.sessions), ARRAY_SIZE(c));
	send_status(&c[0], 5);
	expect(&c[0], FRAME_STATUS_REPLY, 5);
	session_finish_all(w.sessions, on_empty, NULL);
	assert_int_equal(w.empties, 0);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		expect_over(&c[i]);
	while (session_count(w.sessions))
		run_turn();
	assert_int_equal(w.empties, 1);
	assert_int_equal(w.gones, ARRAY_SIZE(c));
	for (size_t i = 0; i < ARRAY_SIZE(c); i++)
		client_close(&c[i]);
	session_finish_all(w.sessions, on_empty, NULL);
	assert_int_equal(w.empties, 2);
}

/* Its socket is open in another process, which a fork left there. */
static void a_death_ends_the_session_whoever_has_the_socket(void **state)
{
	pid_t pid = fork();
	struct participant_view v;
	struct client c;
	int row = -1;

	(void)state;
	if (pid == 0)
		for (;;)
			pause();
	c = connect_as(LISTENER_PARTICIPANT, pid);
	send_hello(&c, (struct msg_hello){ .version_min = 1, .version_max = 1, .control = true });
	assert_true(expect_welcome(&c).owner != 0);
	for (uint32_t i = 0; participant_view(control_region(w.control), i, &v); i++)
		if (v.pid == (uint64_t)pid && v.state == PARTICIPANT_ATTACHED)
			row = (int)i;
	assert_true(row >= 0);
	kill(pid, SIGKILL);
	expect_over(&c);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(w.gones, 1);
	assert_true(participant_view(control_region(w.control), (uint32_t)row, &v));
	assert_int_equal(v.state, PARTICIPANT_FREE);
	client_close(&c);
}

static void sessions_end_with_their_table(void **state)
{
	struct client c[2] = { attach_as(LISTENER_PARTICIPANT),
		connect_as(LISTENER_OBSERVER, getpid()) };

	(void)state;
	w.sessions = session_table_free(w.sessions);
	assert_int_equal(w.gones, 2);
	assert_int_equal(w.empties, 0);
	for (size_t i = 0; i < ARRAY_SIZE(c); i++) {
		expect_over(&c[i]);
		client_close(&c[i]);
	}
	assert_null(session_table_free(NULL));
}

#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(a_participant_gets_a_row_and_the_region),
		CASE(an_observer_gets_the_region_to_read_alone),
		CASE(who_does_not_ask_for_the_region_gets_none),
		CASE(hellos_that_make_no_sense_are_refused),
		CASE(nothing_comes_before_hello),
		CASE(resolve_makes_what_templates_say),
		CASE(observers_have_no_limits_of_their_own),
		CASE(names_too_long_for_a_limit_are_refused),
		CASE(a_full_table_says_what_to_raise),
		CASE(a_body_that_is_none_ends_the_connection),
		CASE(commands_are_passed_on_and_answered),
		CASE(observers_may_look_not_act),
		CASE(status_is_answered_with_its_id),
		CASE(while_draining_all_but_requests_are_answered),
		CASE(what_was_said_gets_out_before_the_end),
		CASE(a_death_ends_the_session_whoever_has_the_socket),
		CASE(sessions_end_with_their_table),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
