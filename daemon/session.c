#include "daemon/session.h"

#include <errno.h>
#include <stdio.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "base/list.h"
#include "base/log.h"
#include "proto/msg.h"
#include "shm/counters.h"

struct session_table {
	struct loop *loop;
	struct control *control;
	struct pipeline *pipeline;
	struct session_events events;
	struct list sessions;
	unsigned count;
	void (*empty)(void *context);
	void *empty_context;
};

struct session {
	struct list node;
	struct session_table *table;
	struct conn *conn;
	struct pipeline_client client;
	bool ready; /* HELLO was accepted */
	int row;    /* of the participants' table; -1: none */
	int pidfd;
	struct loop_watch death;
};

static void session_free(struct session *s)
{
	struct session_table *t = s->table;

	pipeline_client_gone(t->pipeline, &s->client);
	loop_watch_cancel(t->loop, &s->death);
	if (s->pidfd >= 0)
		close(s->pidfd);
	if (s->row >= 0)
		control_leave(t->control, s->row);
	t->events.gone(t->events.context, conn_peer(s->conn));
	s->conn = conn_free(s->conn);
	list_unlink(&s->node);
	free(s);
	t->count--;
	counter_sub(control_region(t->control), COUNTER_connections_open, 1);
	if (t->count == 0 && t->empty)
		t->empty(t->empty_context);
}

/* ---- what the pipeline asks of a client ---- */

static struct buffer *session_output(struct pipeline_client *c)
{
	return conn_output(container_of(c, struct session, client)->conn);
}

static void session_flush(struct pipeline_client *c)
{
	conn_flush_later(container_of(c, struct session, client)->conn);
}

static void session_broken(struct pipeline_client *c)
{
	struct session *s = container_of(c, struct session, client);

	log_warning(
		"client dropped: out of memory for a frame pid=%d", (int)conn_peer(s->conn)->pid);
	conn_finish(s->conn);
}

/* ---- ends ---- */

/* The connection cannot go on: an ERROR frame with id 0, then the end. */
static void session_refuse(struct session *s, enum status status, const char *why)
{
	const struct msg_error error = { .status = status, .message = str_of(why) };

	counter_add(control_region(s->table->control), COUNTER_frames_bad, 1);
	log_notice("client refused pid=%d uid=%u status=%s why=\"%s\"",
		(int)conn_peer(s->conn)->pid, (unsigned)conn_peer(s->conn)->uid,
		status_name(status), why);
	pipeline_client_gone(s->table->pipeline, &s->client);
	msg_pack_error(conn_output(s->conn), 0, &error);
	conn_finish(s->conn);
}

static void session_on_death(struct loop_watch *w, uint32_t revents)
{
	(void)revents;
	session_free(container_of(w, struct session, death));
}

static void session_on_bad(void *context, struct conn *c, const char *why)
{
	(void)context;
	session_refuse(conn_user(c), STATUS_PROTOCOL, why);
}

static void session_on_closed(void *context, struct conn *c)
{
	(void)context;
	session_free(conn_user(c));
}

static void session_on_pressure(void *context, struct conn *c, bool high)
{
	struct session_table *t = context;
	struct session *s = conn_user(c);

	pipeline_client_pressure(t->pipeline, &s->client, high);
}

/* ---- frames ---- */

/* pidfd and socket end together prove a death; without pidfd the socket has to do. */
static void session_watch_process(struct session *s)
{
	s->pidfd = (int)syscall(SYS_pidfd_open, conn_peer(s->conn)->pid, 0);
	if (s->pidfd < 0) {
		log_debug(
			"no pidfd for client pid=%d errno=%d", (int)conn_peer(s->conn)->pid, errno);
		return;
	}
	loop_watch_start(s->table->loop, &s->death, s->pidfd, POLLIN);
}

static void session_attach_region(struct session *s, struct msg_welcome *welcome)
{
	const struct listener_peer *peer = conn_peer(s->conn);

	if (peer->role == LISTENER_PARTICIPANT) {
		s->row = control_claim(s->table->control, peer->pid, peer->uid, &welcome->owner);
		if (s->row == -ESRCH)
			log_warning(
				"a client in another PID namespace gets no participant row: its "
				"leases are refused, since its death could not be seen");
		else if (s->row < 0)
			log_warning(
				"no participant row for pid=%d: the table is full", (int)peer->pid);
	}
	welcome->control = true;
	conn_attach_fd(s->conn, control_fd(s->table->control, peer->role));
}

static void session_welcome(struct session *s, const struct msg_hello *hello)
{
	const struct listener_peer *peer = conn_peer(s->conn);
	struct region_status region;
	struct msg_welcome welcome = {
		.version = PROTOCOL_VERSION_MAX,
		.role = peer->role == LISTENER_PARTICIPANT ? MSG_ROLE_PARTICIPANT :
							     MSG_ROLE_OBSERVER,
		.daemon_pid = (uint64_t)getpid(),
		.body_max = FRAME_BODY_MAX,
		.daemon = str_of("llmkitd/" PROJECT_VERSION),
	};

	region_status(control_region(s->table->control), &region);
	welcome.generation = region.generation;
	if (hello->control)
		session_attach_region(s, &welcome);
	session_watch_process(s);
	s->ready = true;
	conn_set_ready(s->conn, FRAME_BODY_MAX);
	if (msg_pack_welcome(conn_output(s->conn), &welcome) < 0)
		session_broken(&s->client);
	conn_flush_later(s->conn);
	log_debug("client attached pid=%d uid=%u client=\"%.*s\"", (int)peer->pid,
		(unsigned)peer->uid, STR_ARG(hello->client));
}

static void session_on_hello(struct session *s, const struct frame_header *h, struct str body)
{
	struct msg_hello hello;
	const char *why = "HELLO: out of memory";
	char text[128];

	if (h->type != FRAME_HELLO || h->request_id != 0) {
		session_refuse(s, STATUS_PROTOCOL, "the first frame must be HELLO, with id 0");
	} else if (msg_unpack_hello(body, &hello, &why) != MSG_OK) {
		session_refuse(s, STATUS_PROTOCOL, why);
	} else if (hello.version_min > hello.version_max) {
		session_refuse(s, STATUS_PROTOCOL, "HELLO: version_min is above version_max");
	} else if (hello.version_min > PROTOCOL_VERSION_MAX ||
		hello.version_max < PROTOCOL_VERSION_MIN) {
		snprintf(text, sizeof(text),
			"the client speaks protocol %u to %u, the daemon %u to %u: update the "
			"older",
			hello.version_min, hello.version_max, PROTOCOL_VERSION_MIN,
			PROTOCOL_VERSION_MAX);
		session_refuse(s, STATUS_VERSION, text);
	} else {
		session_welcome(s, &hello);
	}
}

static void session_on_submit(struct session *s, const struct frame_header *h, struct str body)
{
	const char *why = "SUBMIT: out of memory";
	int r = h->request_id ?
		pipeline_submit(s->table->pipeline, &s->client, h->request_id, body, &why) :
		PIPELINE_E_DUPLICATE;

	if (r == PIPELINE_E_DUPLICATE)
		session_refuse(s, STATUS_PROTOCOL, "SUBMIT: the request id is 0 or already open");
	else if (r != PIPELINE_OK)
		session_refuse(s, r < 0 ? STATUS_NO_MEMORY : STATUS_PROTOCOL, why);
}

static void session_on_status(struct session *s, const struct frame_header *h)
{
	aux_cleanup(buffer_deinit) struct buffer json = BUFFER_NULL;
	struct msg_status_reply reply;

	if (s->table->events.status(s->table->events.context, &json) < 0) {
		session_refuse(s, STATUS_NO_MEMORY, "STATUS: out of memory");
		return;
	}
	reply.json = buffer_str(&json);
	if (msg_pack_status_reply(conn_output(s->conn), h->request_id, &reply) < 0)
		session_broken(&s->client);
	conn_flush_later(s->conn);
}

static void session_done(
	struct session *s, const struct frame_header *h, enum status status, struct str text)
{
	const struct msg_done done = { .status = status, .message = text };

	if (msg_pack_done(conn_output(s->conn), h->request_id, &done) < 0)
		session_broken(&s->client);
	conn_flush_later(s->conn);
}

/* A name that templates apply to gets its limits. */
static void session_on_resolve(struct session *s, const struct frame_header *h, struct str body)
{
	const char *why = "RESOLVE: out of memory";
	struct msg_resolve m;
	struct bucket_names names;
	int r = msg_unpack_resolve(body, &m, &why);

	if (r != MSG_OK) {
		session_refuse(s, r < 0 ? STATUS_NO_MEMORY : STATUS_PROTOCOL, why);
		return;
	}
	if (conn_peer(s->conn)->role != LISTENER_PARTICIPANT) {
		session_done(s, h, STATUS_REFUSED, str_of("observers have no limits of their own"));
		return;
	}
	names = (struct bucket_names){
		.user = m.user, .model = m.model, .provider = m.provider, .key = m.key
	};
	r = control_resolve(s->table->control, &names);
	if (r == -ENAMETOOLONG)
		session_done(s, h, STATUS_BAD_REQUEST,
			str_of("a name is too long for a limit (159 bytes; two together 158) "
			       "or has a byte 0x1f"));
	else if (r < 0)
		session_done(s, h, STATUS_BUSY,
			str_of("the table of limits is full of limits in use: raise "
			       "tables.limits"));
	else
		session_done(s, h, STATUS_OK, STR_NULL);
}

static void session_on_command(struct session *s, const struct frame_header *h, struct str body)
{
	aux_cleanup(buffer_deinit) struct buffer text = BUFFER_NULL;
	const struct session_events *events = &s->table->events;
	const char *why = "COMMAND: out of memory";
	struct msg_command m;
	int r = msg_unpack_command(body, &m, &why);

	if (r != MSG_OK)
		session_refuse(s, r < 0 ? STATUS_NO_MEMORY : STATUS_PROTOCOL, why);
	else if (conn_peer(s->conn)->role != LISTENER_PARTICIPANT)
		session_done(s, h, STATUS_REFUSED, str_of("observers may look, not act"));
	else {
		enum status status = events->command(events->context, m.verb, m.name, &text);

		session_done(s, h, status, buffer_str(&text));
	}
}

static void session_on_frame(
	void *context, struct conn *c, const struct frame_header *h, struct str body)
{
	struct session_table *t = context;
	struct session *s = conn_user(c);
	const char *why;

	counter_add(control_region(t->control), COUNTER_frames_in, 1);
	if (!s->ready)
		session_on_hello(s, h, body);
	else if (h->type == FRAME_SUBMIT)
		session_on_submit(s, h, body);
	else if (h->type == FRAME_RESOLVE)
		session_on_resolve(s, h, body);
	else if (h->type == FRAME_COMMAND)
		session_on_command(s, h, body);
	else if (h->type != FRAME_CANCEL && h->type != FRAME_STATUS)
		session_refuse(s, STATUS_PROTOCOL, "a frame type that clients do not send");
	else if (msg_unpack_empty(body, &why) != MSG_OK)
		session_refuse(s, STATUS_PROTOCOL, why);
	else if (h->type == FRAME_CANCEL)
		pipeline_cancel(t->pipeline, &s->client, h->request_id);
	else
		session_on_status(s, h);
}

/* ---- the table ---- */

void session_accept(struct session_table *t, int fd, const struct listener_peer *peer)
{
	const struct conn_events events = {
		.frame = session_on_frame,
		.bad = session_on_bad,
		.pressure = session_on_pressure,
		.closed = session_on_closed,
		.context = t,
	};
	struct session *s = calloc(1, sizeof(*s));
	int r = s ? 0 : -ENOMEM;

	if (r == 0) {
		s->table = t;
		s->row = -1;
		s->pidfd = -1;
		s->death.fn = session_on_death;
		pipeline_client_init(&s->client);
		s->client.output = session_output;
		s->client.flush = session_flush;
		s->client.broken = session_broken;
		r = conn_new(&s->conn, t->loop, fd, peer, &events);
	}
	if (r < 0) {
		log_warning("client dropped pid=%d errno=%d", (int)peer->pid, -r);
		free(s);
		close(fd);
		t->events.gone(t->events.context, peer);
		return;
	}
	conn_set_user(s->conn, s);
	list_push(&t->sessions, &s->node);
	t->count++;
	counter_add(control_region(t->control), COUNTER_connections_accepted, 1);
	counter_add(control_region(t->control), COUNTER_connections_open, 1);
}

int session_table_new(struct session_table **out, struct loop *loop, struct control *control,
	struct pipeline *pipeline, const struct session_events *events)
{
	struct session_table *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	*t = (struct session_table){
		.loop = loop,
		.control = control,
		.pipeline = pipeline,
		.events = *events,
	};
	list_init(&t->sessions);
	*out = t;
	return 0;
}

struct session_table *session_table_free(struct session_table *t)
{
	if (!t)
		return NULL;
	t->empty = NULL;
	while (!list_is_empty(&t->sessions))
		session_free(container_of(t->sessions.next, struct session, node));
	free(t);
	return NULL;
}

unsigned session_count(const struct session_table *t)
{
	return t->count;
}

void session_finish_all(struct session_table *t, void (*empty)(void *context), void *context)
{
	t->empty = empty;
	t->empty_context = context;
	if (t->count == 0)
		empty(context);
	list_for_each_safe (node, &t->sessions)
		conn_finish(container_of(node, struct session, node)->conn);
}
