#include "daemon/io/conn.h"
#include "base/clock.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#define GUARD_SECONDS 60
#define BODY_MAX 100000u

static bool use_plain[] = { false, true };

/* The daemon's clock runs through here, so that deadlines are tested without waiting for them. */
static time_t skipped;

int clock_gettime(clockid_t id, struct timespec *t)
{
	int r = (int)syscall(SYS_clock_gettime, id, t);

	if (r == 0 && id == CLOCK_BOOTTIME)
		t->tv_sec += skipped;
	return r;
}

/* A connection under test, its client end, and what came out of it. */
struct fixture {
	struct loop *loop;
	struct loop_timer pause;
	struct conn *conn;
	int client;
	struct buffer bodies; /* of all frames, one after the other */
	struct buffer ids;
	int frames, bads, closes, highs, lows;
	char why[128];
	size_t reply; /* this many bytes are put out for each frame */
	size_t most_waiting;
	int free_at, finish_at, stop_at; /* in the frame of that number */
	bool free_when_bad, keep_after_close, stop_when_high, stop_when_low;
};

static void pause_over(struct loop_timer *t)
{
	loop_stop(container_of(t, struct fixture, pause)->loop);
}

static void on_frame(void *context, struct conn *c, const struct frame_header *h, struct str body)
{
	struct fixture *f = context;
	static char zeros[16384];

	assert_ptr_equal(conn_user(c), f);
	assert_int_equal(h->length, body.length);
	assert_int_equal(buffer_append_str(&f->bodies, body), 0);
	assert_int_equal(buffer_append(&f->ids, &h->request_id, sizeof(h->request_id)), 0);
	f->frames++;
	for (size_t left = f->reply; left;) {
		size_t n = left < sizeof(zeros) ? left : sizeof(zeros);

		assert_int_equal(buffer_append(conn_output(c), zeros, n), 0);
		left -= n;
	}
	if (f->reply)
		conn_flush_later(c);
	if (buffer_length(conn_output(c)) > f->most_waiting)
		f->most_waiting = buffer_length(conn_output(c));
	if (f->frames == f->finish_at) {
		assert_int_equal(buffer_append(conn_output(c), "bye", 3), 0);
		conn_finish(c);
	}
	if (f->frames == f->free_at)
		f->conn = conn_free(c);
	if (f->frames == f->free_at || f->frames == f->stop_at)
		loop_stop(f->loop);
}

static void on_bad(void *context, struct conn *c, const char *why)
{
	struct fixture *f = context;

	f->bads++;
	snprintf(f->why, sizeof(f->why), "%s", why);
	if (f->free_when_bad) {
		f->conn = conn_free(c);
		loop_stop(f->loop);
		return;
	}
	assert_int_equal(buffer_append(conn_output(c), "bad", 3), 0);
	conn_finish(c);
}

static void on_pressure(void *context, struct conn *c, bool high)
{
	struct fixture *f = context;

	(void)c;
	f->highs += high;
	f->lows += !high;
	if (high ? f->stop_when_high : f->stop_when_low)
		loop_stop(f->loop);
}

static void on_closed(void *context, struct conn *c)
{
	struct fixture *f = context;

	f->closes++;
	if (!f->keep_after_close)
		f->conn = conn_free(c);
	loop_stop(f->loop);
}

static const struct listener_peer peer = {
	.pid = 1, .uid = 2, .gid = 3, .role = LISTENER_OBSERVER
};

static void connection_open(struct fixture *f)
{
	const struct conn_events events = { on_frame, on_bad, on_pressure, on_closed, f };
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
	assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(conn_new(&f->conn, f->loop, fds[0], &peer, &events), 0);
	conn_set_user(f->conn, f);
	f->client = fds[1];
}

static void connection_drop(struct fixture *f)
{
	f->conn = conn_free(f->conn);
	closep(&f->client);
	f->client = -1;
	buffer_deinit(&f->bodies);
	buffer_deinit(&f->ids);
}

static int setup(void **state)
{
	const bool *plain = *state;
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || loop_new(&f->loop, &(struct loop_options){ .plain = *plain }) < 0)
		return -1;
	f->pause.fn = pause_over;
	*state = f;
	connection_open(f);
	alarm(GUARD_SECONDS);
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	alarm(0);
	connection_drop(f);
	f->loop = loop_free(f->loop);
	free(f);
	return 0;
}

static void run(struct fixture *f)
{
	assert_int_equal(loop_run(f->loop), 0);
}

/* Some turns, for what is there already and for what must not come. */
static void settle(struct fixture *f)
{
	assert_int_equal(
		loop_timer_start(f->loop, &f->pause, clock_boottime_ns() + 2 * NSEC_PER_MSEC), 0);
	run(f);
	loop_timer_cancel(f->loop, &f->pause);
}

static void put_frame(struct buffer *b, uint64_t id, const void *body, uint32_t length)
{
	char header[FRAME_HEADER_SIZE];

	frame_encode(
		&(struct frame_header){ .length = length, .type = FRAME_SUBMIT, .request_id = id },
		header);
	assert_int_equal(buffer_append(b, header, sizeof(header)), 0);
	assert_int_equal(buffer_append(b, body, length), 0);
}

static void client_sends(struct fixture *f, const void *data, size_t n)
{
	assert_int_equal(send(f->client, data, n, MSG_NOSIGNAL), n);
}

/* ---- frames in ---- */

static void frames_split_at_every_byte(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	const uint64_t ids[] = { 1, 2, 3 };

	put_frame(&wire, 1, "first", 5);
	put_frame(&wire, 2, "", 0);
	put_frame(&wire, 3, "the third one", 13);
	for (size_t at = 1; at < buffer_length(&wire); at++) {
		conn_set_ready(f->conn, BODY_MAX);
		client_sends(f, buffer_head(&wire), at);
		settle(f);
		client_sends(f, buffer_head(&wire) + at, buffer_length(&wire) - at);
		f->stop_at = f->frames < 3 ? 3 : 0;
		if (f->stop_at)
			run(f);
		assert_int_equal(f->frames, 3);
		assert_true(str_is(buffer_str(&f->bodies), "firstthe third one"));
		assert_memory_equal(buffer_head(&f->ids), ids, sizeof(ids));
		assert_int_equal(f->bads + f->closes, 0);
		connection_drop(f);
		f->frames = f->stop_at = 0;
		connection_open(f);
	}
}

/* Frames of all sizes in pieces of all sizes: the same bytes come out. */
static void frames_in_random_pieces(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	struct buffer bodies aux_cleanup(buffer_deinit) = BUFFER_NULL;
	static char body[BODY_MAX];
	unsigned random = 5;
	size_t at = 0;

	for (size_t i = 0; i < sizeof(body); i++)
		body[i] = (char)rand_r(&random);
	for (uint64_t i = 1; i <= 300; i++) {
		uint32_t n = i % 50 == 0 ? BODY_MAX : (uint32_t)rand_r(&random) % 3000;

		n = i % 7 ? n : n % 20;
		put_frame(&wire, i, body + (i * 17) % (BODY_MAX - n + 1), n);
		buffer_append(&bodies, body + (i * 17) % (BODY_MAX - n + 1), n);
	}
	conn_set_ready(f->conn, BODY_MAX);
	assert_int_equal(fcntl(f->client, F_SETFL, O_NONBLOCK), 0);
	while (at < buffer_length(&wire)) {
		size_t n = (size_t)rand_r(&random) % 40000 + 1;
		ssize_t sent;

		n = n < buffer_length(&wire) - at ? n : buffer_length(&wire) - at;
		sent = send(f->client, buffer_head(&wire) + at, n, MSG_NOSIGNAL);
		at += sent > 0 ? (size_t)sent : 0;
		if (rand_r(&random) % 2 || sent < 0)
			settle(f);
	}
	f->stop_at = 300;
	if (f->frames < 300)
		run(f);
	assert_int_equal(f->frames, 300);
	assert_true(str_equal(buffer_str(&f->bodies), buffer_str(&bodies)));
	assert_int_equal(f->bads, 0);
}

static void frame_above_the_limit_is_bad(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	static char body[FRAME_HELLO_MAX + 1];
	char answer[16];

	/* Exactly the limit is taken, one more is not: before HELLO, and after it. */
	put_frame(&wire, 1, body, FRAME_HELLO_MAX);
	put_frame(&wire, 2, body, FRAME_HELLO_MAX + 1);
	put_frame(&wire, 3, body, 1);
	client_sends(f, buffer_head(&wire), buffer_length(&wire));
	run(f);
	assert_int_equal(f->frames, 1);
	assert_int_equal(f->bads, 1);
	assert_int_equal(f->closes, 1);
	assert_non_null(strstr(f->why, "HELLO"));
	/* What the owner wrote still came, then the end. */
	assert_int_equal(recv(f->client, answer, sizeof(answer), MSG_WAITALL), 3);
	assert_memory_equal(answer, "bad", 3);

	connection_drop(f);
	connection_open(f);
	conn_set_ready(f->conn, FRAME_HELLO_MAX + 1);
	client_sends(f, buffer_head(&wire) + FRAME_HELLO_MAX + FRAME_HEADER_SIZE,
		FRAME_HELLO_MAX + 1 + FRAME_HEADER_SIZE);
	f->stop_at = 2;
	run(f);
	assert_int_equal(f->frames, 2);
	assert_int_equal(f->bads, 1);
}

static void reserved_bits_are_bad_and_the_owner_may_free(void **state)
{
	struct fixture *f = *state;
	char header[FRAME_HEADER_SIZE * 2] = { 0 };

	f->free_when_bad = true;
	header[6] = 1;
	client_sends(f, header, sizeof(header));
	run(f);
	assert_int_equal(f->bads, 1);
	assert_int_equal(f->closes, 0);
	assert_null(f->conn);
	assert_non_null(strstr(f->why, "reserved"));
}

static void frame_callback_may_free_the_connection(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	char byte;

	for (uint64_t i = 1; i <= 5; i++)
		put_frame(&wire, i, "body", 4);
	/* In place, and from the input buffer. */
	for (int pieces = 1; pieces <= 2; pieces++) {
		size_t first = pieces == 1 ? buffer_length(&wire) : 7;

		conn_set_ready(f->conn, BODY_MAX);
		f->frames = 0;
		f->free_at = 2;
		client_sends(f, buffer_head(&wire), first);
		if (pieces == 2) {
			settle(f);
			client_sends(f, buffer_head(&wire) + 7, buffer_length(&wire) - 7);
		}
		run(f);
		assert_int_equal(f->frames, 2);
		assert_int_equal(f->closes, 0);
		assert_null(f->conn);
		assert_int_equal(recv(f->client, &byte, 1, 0), 0);
		connection_drop(f);
		connection_open(f);
	}
}

static void frame_callback_may_finish(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	char answer[16];

	for (uint64_t i = 1; i <= 5; i++)
		put_frame(&wire, i, "body", 4);
	conn_set_ready(f->conn, BODY_MAX);
	f->finish_at = 2;
	f->keep_after_close = true;
	client_sends(f, buffer_head(&wire), buffer_length(&wire));
	run(f);
	assert_int_equal(f->frames, 2);
	assert_int_equal(f->closes, 1);
	/* Closed but not freed: calls do nothing. */
	assert_int_equal(buffer_append(conn_output(f->conn), "x", 1), 0);
	conn_flush_later(f->conn);
	conn_finish(f->conn);
	settle(f);
	assert_int_equal(f->closes, 1);
	assert_int_equal(recv(f->client, answer, sizeof(answer), MSG_WAITALL), 3);
	assert_memory_equal(answer, "bye", 3);
}

static void pass_time(struct fixture *f, time_t seconds)
{
	settle(f); /* what was sent arrived before */
	skipped += seconds;
	settle(f);
}

static void missing_hello_ends_the_connection(void **state)
{
	struct fixture *f = *state;

	/* A HELLO in pieces does not help, if the owner does not like what comes. */
	client_sends(f, "half", 4);
	pass_time(f, CONN_HELLO_SECONDS - 1);
	assert_int_equal(f->bads, 0);
	pass_time(f, 2);
	assert_int_equal(f->bads, 1);
	assert_non_null(strstr(f->why, "HELLO"));
	if (!f->closes)
		run(f);
	assert_int_equal(f->closes, 1);
}

/* The time of a frame counts from its own first byte; single bytes do not prolong it. */
static void incomplete_frame_ends_the_connection(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	size_t one = FRAME_HEADER_SIZE + 4;

	for (uint64_t i = 1; i <= 3; i++)
		put_frame(&wire, i, "body", 4);
	conn_set_ready(f->conn, BODY_MAX);
	pass_time(f, 2 * CONN_HELLO_SECONDS);
	client_sends(f, buffer_head(&wire), 10);
	pass_time(f, 6);
	/* The first frame ends, the second begins. */
	client_sends(f, buffer_head(&wire) + 10, one);
	settle(f);
	assert_int_equal(f->frames, 1);
	pass_time(f, 6);
	assert_int_equal(f->bads, 0);
	/* The second ends, and none begins. */
	client_sends(f, buffer_head(&wire) + 10 + one, one - 10);
	settle(f);
	assert_int_equal(f->frames, 2);
	pass_time(f, 2 * CONN_PARTIAL_SECONDS);
	assert_int_equal(f->bads, 0);
	for (int i = 0; i < 4; i++) {
		client_sends(f, buffer_head(&wire), 1);
		settle(f);
		assert_int_equal(f->bads, 0);
		pass_time(f, 3);
	}
	assert_int_equal(f->bads, 1);
	assert_non_null(strstr(f->why, "incomplete"));
	assert_int_equal(f->frames, 2);
}

static void closed_peer_is_reported_once(void **state)
{
	struct fixture *f = *state;

	f->keep_after_close = true;
	assert_int_equal(conn_peer(f->conn)->uid, 2);
	closep(&f->client);
	f->client = -1;
	run(f);
	settle(f);
	assert_int_equal(f->closes, 1);
}

/* ---- output ---- */

static void output_carries_a_descriptor_with_its_first_byte(void **state)
{
	struct fixture *f = *state;
	char text[64] = "", space[CMSG_SPACE(sizeof(int))];
	struct iovec bytes = { text, sizeof(text) };
	struct msghdr m = { .msg_iov = &bytes,
		.msg_iovlen = 1,
		.msg_control = space,
		.msg_controllen = sizeof(space) };
	struct cmsghdr *rights;
	int fds[2], passed;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	conn_attach_fd(f->conn, fds[0]);
	assert_int_equal(buffer_append(conn_output(f->conn), "welcome", 7), 0);
	conn_flush_later(f->conn);
	assert_int_equal(buffer_append(conn_output(f->conn), " to you", 7), 0);
	conn_flush_later(f->conn);
	settle(f);
	/* One write for both. */
	assert_int_equal(recvmsg(f->client, &m, MSG_CMSG_CLOEXEC), 14);
	assert_string_equal(text, "welcome to you");
	rights = CMSG_FIRSTHDR(&m);
	assert_non_null(rights);
	assert_int_equal(rights->cmsg_type, SCM_RIGHTS);
	memcpy(&passed, CMSG_DATA(rights), sizeof(passed));
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(read(passed, text, 1), 1);
	close(passed);
	/* Once only. */
	assert_int_equal(buffer_append(conn_output(f->conn), "more", 4), 0);
	conn_flush_later(f->conn);
	settle(f);
	m.msg_controllen = sizeof(space);
	assert_int_equal(recvmsg(f->client, &m, 0), 4);
	assert_int_equal(m.msg_controllen, 0);
	close(fds[0]);
	close(fds[1]);
}

/* Nobody asked for descriptors: the kernel closes what a client sends along. */
static void descriptors_of_a_client_do_not_stay(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	union {
		char space[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec bytes;
	struct msghdr m = { .msg_iov = &bytes,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control) };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&m);
	int fds[2];
	char byte;

	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	put_frame(&wire, 1, "body", 4);
	bytes = (struct iovec){ buffer_head(&wire), buffer_length(&wire) };
	*rights = (struct cmsghdr){
		.cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(sizeof(int))
	};
	memcpy(CMSG_DATA(rights), &fds[1], sizeof(int));
	assert_int_equal(sendmsg(f->client, &m, MSG_NOSIGNAL), buffer_length(&wire));
	close(fds[1]);
	f->stop_at = 1;
	run(f);
	assert_int_equal(f->frames, 1);
	/* No write end is left: the end, not a wait. */
	assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}

/* A client that asks and never reads: the owner is told, no further frame is read, and when it
 * reads at last nothing is missing. */
static void never_reading_client_stays_bounded(void **state)
{
	enum { ASKS = 2000, REPLY = 4096 };
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	static char answer[65536];
	size_t received = 0;

	for (uint64_t i = 1; i <= ASKS; i++)
		put_frame(&wire, i, "ask", 3);
	conn_set_ready(f->conn, BODY_MAX);
	f->reply = REPLY;
	f->stop_when_high = f->stop_when_low = true;
	client_sends(f, buffer_head(&wire), buffer_length(&wire));
	run(f);
	assert_int_equal(f->highs, 1);
	settle(f);
	assert_true(f->frames < ASKS / 2);
	assert_true(f->most_waiting <= CONN_OUT_HIGH + REPLY);
	assert_int_equal(f->lows, 0);
	f->stop_when_high = f->stop_when_low = false;
	while (received < (size_t)ASKS * REPLY) {
		ssize_t n = recv(f->client, answer, sizeof(answer), MSG_DONTWAIT);

		if (n > 0)
			received += (size_t)n;
		else
			settle(f);
	}
	assert_int_equal(f->frames, ASKS);
	assert_true(f->most_waiting <= CONN_OUT_HIGH + REPLY);
	settle(f);
	assert_true(f->lows >= 1);
	assert_int_equal(f->highs, f->lows);
	assert_int_equal(f->closes + f->bads, 0);
	assert_int_equal(recv(f->client, answer, sizeof(answer), MSG_DONTWAIT), -1);
	pass_time(f, 2 * CONN_STALL_SECONDS);
	assert_int_equal(f->closes, 0);
	/* The memory went back. */
	assert_true(conn_output(f->conn)->capacity <= 4096);
}

static void client_that_dies_under_pressure_is_closed(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;

	put_frame(&wire, 1, "ask", 3);
	conn_set_ready(f->conn, BODY_MAX);
	f->reply = 1u << 20;
	f->stop_when_high = true;
	client_sends(f, buffer_head(&wire), buffer_length(&wire));
	run(f);
	closep(&f->client);
	f->client = -1;
	run(f);
	assert_int_equal(f->closes, 1);
}

static void client_that_stops_reading_is_dropped(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;
	static char answer[400000];

	put_frame(&wire, 1, "ask", 3);
	conn_set_ready(f->conn, BODY_MAX);
	f->reply = 4u << 20;
	client_sends(f, buffer_head(&wire), buffer_length(&wire));
	settle(f);
	assert_int_equal(f->frames, 1);
	/* Progress moves the deadline. */
	for (int i = 0; i < 3; i++) {
		pass_time(f, CONN_STALL_SECONDS - 5);
		assert_int_equal(f->closes, 0);
		assert_true(recv(f->client, answer, sizeof(answer), 0) > 0);
		settle(f);
	}
	pass_time(f, CONN_STALL_SECONDS - 5);
	assert_int_equal(f->closes, 0);
	pass_time(f, 6);
	assert_int_equal(f->closes, 1);
}

static void finish_does_not_wait_for_a_client_that_never_reads(void **state)
{
	struct fixture *f = *state;
	struct buffer wire aux_cleanup(buffer_deinit) = BUFFER_NULL;

	put_frame(&wire, 1, "ask", 3);
	conn_set_ready(f->conn, BODY_MAX);
	f->reply = 4u << 20;
	f->finish_at = 1;
	client_sends(f, buffer_head(&wire), buffer_length(&wire));
	settle(f);
	assert_int_equal(f->closes, 0);
	pass_time(f, 2);
	assert_int_equal(f->closes, 1);
}

/* ---- many ---- */

static long resident_kib(void)
{
	long pages = 0;
	FILE *file = fopen("/proc/self/statm", "re");

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%*d %ld", &pages), 1);
	fclose(file);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

/* Each has announced the largest frame there is and sent one byte of it. */
static void many_connections_cost_what_they_sent(void **state)
{
	enum { MANY = 2000 };
	struct fixture *f = *state, *many = calloc(MANY, sizeof(*many));
	struct rlimit limit;
	char wire[FRAME_HEADER_SIZE + 1] = { 0 };
	long before;

	assert_non_null(many);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = limit.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	frame_encode(
		&(struct frame_header){
			.length = FRAME_BODY_MAX, .type = FRAME_SUBMIT, .request_id = 1 },
		wire);
	settle(f);
	before = resident_kib();
	for (int i = 0; i < MANY; i++) {
		many[i].loop = f->loop;
		connection_open(&many[i]);
		conn_set_ready(many[i].conn, FRAME_BODY_MAX);
		client_sends(&many[i], wire, sizeof(wire));
		if (i % 100 == 0)
			settle(f);
	}
	settle(f);
#ifndef SANITIZED /* their allocator keeps what was freed */
	assert_true(resident_kib() - before < MANY * 4);
#endif
	(void)before;
	for (int i = 0; i < MANY; i++) {
		assert_int_equal(many[i].bads + many[i].closes, 0);
		connection_drop(&many[i]);
	}
	free(many);
}

#define BOTH(fn_) \
	{ #fn_, fn_, setup, teardown, &use_plain[0] }, \
	{ \
#fn_ " (plain)", fn_, setup, teardown, &use_plain[1] \
	}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(frames_split_at_every_byte),
		BOTH(frames_in_random_pieces),
		BOTH(frame_above_the_limit_is_bad),
		BOTH(reserved_bits_are_bad_and_the_owner_may_free),
		BOTH(frame_callback_may_free_the_connection),
		BOTH(frame_callback_may_finish),
		BOTH(missing_hello_ends_the_connection),
		BOTH(incomplete_frame_ends_the_connection),
		BOTH(closed_peer_is_reported_once),
		BOTH(output_carries_a_descriptor_with_its_first_byte),
		BOTH(descriptors_of_a_client_do_not_stay),
		BOTH(never_reading_client_stays_bounded),
		BOTH(client_that_dies_under_pressure_is_closed),
		BOTH(client_that_stops_reading_is_dropped),
		BOTH(finish_does_not_wait_for_a_client_that_never_reads),
		BOTH(many_connections_cost_what_they_sent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
