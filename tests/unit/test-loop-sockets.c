/* The loop's sockets: receivers and acceptors. */

#include "tests/unit/loop-fixture.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>

#define ENDS 40000

/* ---- receivers ---- */

struct sink {
	struct loop_receiver receiver;
	struct loop_timer timer;
	struct loop *loop;
	uint64_t hash, bytes;
	unsigned random;
	int paused_deliveries, fd;
	ssize_t end;
	bool paused, wild, ended, cancel_in_callback;
};

static uint64_t hash_bytes(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(1099511628211);
	return h;
}

static void sink_resumes(struct loop_timer *t)
{
	struct sink *s = container_of(t, struct sink, timer);

	s->paused = false;
	loop_receiver_resume(s->loop, &s->receiver);
	/* At once again, and back: only the last word counts. */
	if (rand_r(&s->random) % 4 == 0) {
		loop_receiver_pause(s->loop, &s->receiver);
		loop_receiver_resume(s->loop, &s->receiver);
	}
}

static void sink_received(struct loop_receiver *r, const void *data, ssize_t n)
{
	struct sink *s = container_of(r, struct sink, receiver);

	s->paused_deliveries += s->paused;
	if (n <= 0) {
		assert_int_equal(r->slot, 0);
		s->ended = true;
		s->end = n;
		loop_stop(s->loop);
		return;
	}
	s->hash = hash_bytes(s->hash, data, (size_t)n);
	s->bytes += (uint64_t)n;
	if (s->cancel_in_callback) {
		loop_receiver_cancel(s->loop, r);
		memset(r, 0xa5, sizeof(*r));
		loop_stop(s->loop);
	}
	if (s->wild && rand_r(&s->random) % 3 == 0) {
		s->paused = true;
		loop_receiver_pause(s->loop, r);
		assert_int_equal(loop_timer_start(s->loop, &s->timer,
					 loop_now(s->loop) + rand_r(&s->random) % 200000),
			0);
	}
}

/* Sends total pseudo-random bytes in pieces of random size; returns their hash at the end. */
static uint64_t send_noise(int fd, size_t total)
{
	static char piece[100000];
	uint64_t hash = 1;
	unsigned random = 7;

	while (total) {
		size_t n = (size_t)rand_r(&random) % sizeof(piece) + 1, done = 0;

		n = n < total ? n : total;
		for (size_t i = 0; i < n; i++)
			piece[i] = (char)(random + i * 31);
		hash = hash_bytes(hash, piece, n);
		while (done < n) {
			ssize_t r = write(fd, piece + done, n - done);

			if (r < 0)
				_exit(1);
			done += (size_t)r;
		}
		total -= n;
	}
	return hash;
}

static void pausing_loses_nothing(void **state)
{
	struct fixture *f = *state;
	struct sink s = { .receiver.fn = sink_received,
		.timer.fn = sink_resumes,
		.loop = f->loop,
		.hash = 1,
		.random = 3,
		.wild = true };
	uint64_t expected = 0;
	int fds[2], result[2], status;
	pid_t child;

	stream_pair(fds);
	assert_int_equal(pipe2(result, O_CLOEXEC), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		close(fds[0]);
		expected = send_noise(fds[1], 10u << 20);
		_exit(write(result[1], &expected, sizeof(expected)) != sizeof(expected));
	}
	close(fds[1]);
	assert_int_equal(loop_receiver_start(f->loop, &s.receiver, fds[0]), 0);
	assert_int_equal(loop_receiver_start(f->loop, &s.receiver, fds[0]), -EBUSY);
	run(f);
	assert_int_equal(s.end, 0);
	assert_int_equal(s.bytes, 10u << 20);
	assert_int_equal(read(result[0], &expected, sizeof(expected)), sizeof(expected));
	assert_true(s.hash == expected);
	assert_int_equal(s.paused_deliveries, 0);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	close(result[0]);
	close(result[1]);
	close(fds[0]);
}

/* Bytes and the end both come while it is paused; neither shows until resumed, in order. */
static void paused_receiver_holds_back_bytes_and_end(void **state)
{
	struct fixture *f = *state;
	struct sink s = { .receiver.fn = sink_received, .loop = f->loop, .hash = 1 };
	int fds[2];

	stream_pair(fds);
	assert_int_equal(loop_receiver_start(f->loop, &s.receiver, fds[0]), 0);
	settle(f);
	assert_int_equal(write(fds[1], "abc", 3), 3);
	loop_receiver_pause(f->loop, &s.receiver);
	loop_receiver_pause(f->loop, &s.receiver);
	assert_int_equal(write(fds[1], "def", 3), 3);
	close(fds[1]);
	settle(f);
	assert_int_equal(s.bytes, 0);
	assert_false(s.ended);
	loop_receiver_resume(f->loop, &s.receiver);
	assert_int_equal(s.bytes, 0);
	run(f);
	assert_int_equal(s.bytes, 6);
	assert_true(s.hash == hash_bytes(1, "abcdef", 6));
	assert_true(s.ended);
	close(fds[0]);
}

static void receiver_may_be_cancelled_in_its_callback(void **state)
{
	struct fixture *f = *state;

	for (int round = 0; round < 50; round++) {
		struct sink s = {
			.receiver.fn = sink_received, .loop = f->loop, .cancel_in_callback = true
		};
		int fds[2];

		stream_pair(fds);
		assert_int_equal(loop_receiver_start(f->loop, &s.receiver, fds[0]), 0);
		assert_int_equal(write(fds[1], "abc", 3), 3);
		run(f);
		assert_int_equal(s.bytes, 3);
		assert_int_equal(write(fds[1], "def", 3), 3);
		close(fds[0]);
		close(fds[1]);
	}
	settle(f);
}

/* Far more than the loop has buffers for, in many streams at once, and all of it arrives. */
/* Takes a socket at a time, writes and ends it, with the loop awake at any point of that. */
static _Atomic int ender_fd = -1;
static _Atomic bool ender_over;

static void *ender(void *unused)
{
	unsigned random = 1;

	(void)unused;
	while (!ender_over) {
		int fd = atomic_exchange(&ender_fd, -1);

		if (fd < 0)
			continue;
		for (volatile int i = rand_r(&random) % 4000; i > 0; i--)
			;
		if (write(fd, "last", 4) != 4)
			break;
		for (volatile int i = rand_r(&random) % 300; i > 0; i--)
			;
		shutdown(fd, SHUT_WR);
	}
	return NULL;
}

/* A multishot receive of Linux 6.18 lost one end in some thousands. */
static void an_end_right_behind_bytes_is_seen(void **state)
{
	struct fixture *f = *state;
	pthread_t thread;
	int fds[2];

	ender_over = false;
	assert_int_equal(pthread_create(&thread, NULL, ender, NULL), 0);
	for (int i = 0; i < ENDS; i++) {
		struct sink s = { .receiver.fn = sink_received, .loop = f->loop, .hash = 1 };

		stream_pair(fds);
		assert_int_equal(loop_receiver_start(f->loop, &s.receiver, fds[0]), 0);
		atomic_store(&ender_fd, fds[1]);
		run(f);
		assert_int_equal(s.bytes, 4);
		assert_true(s.ended && s.end == 0);
		shutdown(fds[0], SHUT_RDWR);
		close(fds[0]);
		close(fds[1]);
	}
	ender_over = true;
	pthread_join(thread, NULL);
}

static void more_bytes_than_buffers(void **state)
{
	enum { STREAMS = 100, EACH = 60000 };
	struct fixture *f = *state;
	struct sink *s = calloc(STREAMS, sizeof(*s));
	static char noise[EACH];
	int fds[STREAMS][2];

	assert_non_null(s);
	for (int i = 0; i < STREAMS; i++) {
		stream_pair(fds[i]);
		s[i] = (struct sink){ .receiver.fn = sink_received, .loop = f->loop };
		assert_int_equal(loop_receiver_start(f->loop, &s[i].receiver, fds[i][0]), 0);
		assert_int_equal(write(fds[i][1], noise, EACH), EACH);
	}
	for (int i = 0, done = 0; i < 500 && done < STREAMS; i++) {
		settle(f);
		for (done = 0; done < STREAMS && s[done].bytes == EACH; done++)
			;
	}
	for (int i = 0; i < STREAMS; i++) {
		assert_int_equal(s[i].bytes, EACH);
		loop_receiver_cancel(f->loop, &s[i].receiver);
		close(fds[i][0]);
		close(fds[i][1]);
	}
	free(s);
}

static void receiver_reports_errors(void **state)
{
	struct fixture *f = *state;
	struct sink s = { .receiver.fn = sink_received, .loop = f->loop };
	int fds[2];

	/* A pipe is no socket. */
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	assert_int_equal(write(fds[1], "x", 1), 1);
	assert_int_equal(loop_receiver_start(f->loop, &s.receiver, fds[0]), 0);
	run(f);
	assert_int_equal(s.end, -ENOTSOCK);
	close(fds[0]);
	close(fds[1]);
}

/* ---- acceptors ---- */

struct door {
	struct loop_acceptor acceptor;
	struct loop *loop;
	int *fds;
	int count, stop_at, error, cancel_at;
};

static void door_opened(struct loop_acceptor *a, int fd)
{
	struct door *d = container_of(a, struct door, acceptor);

	if (fd < 0) {
		assert_int_equal(a->slot, 0);
		d->error = fd;
		loop_stop(d->loop);
		return;
	}
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	d->fds[d->count++] = fd;
	if (d->count == d->cancel_at)
		loop_acceptor_cancel(d->loop, a);
	if (d->count == d->stop_at)
		loop_stop(d->loop);
}

/* Abstract, so that nothing is left behind. */
static int listen_somewhere(struct sockaddr_un *address, socklen_t *size)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	*size = sizeof(sa_family_t);
	assert_true(fd >= 0);
	assert_int_equal(bind(fd, (struct sockaddr *)address, *size), 0);
	assert_int_equal(listen(fd, 1024), 0);
	*size = sizeof(*address);
	assert_int_equal(getsockname(fd, (struct sockaddr *)address, size), 0);
	return fd;
}

static int connect_to(const struct sockaddr_un *address, socklen_t size)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)address, size), 0);
	return fd;
}

static void accepts_many(struct fixture *f, bool nonblocking)
{
	enum { MANY = 400 };
	struct door d = { .acceptor.fn = door_opened, .loop = f->loop, .stop_at = MANY };
	struct sockaddr_un address;
	socklen_t size;
	int clients[MANY], accepted[MANY], fd = listen_somewhere(&address, &size);

	d.fds = accepted;
	if (nonblocking)
		assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	for (int i = 0; i < MANY / 2; i++)
		clients[i] = connect_to(&address, size);
	assert_int_equal(loop_acceptor_start(f->loop, &d.acceptor, fd), 0);
	assert_int_equal(loop_acceptor_start(f->loop, &d.acceptor, fd), -EBUSY);
	settle(f);
	for (int i = MANY / 2; i < MANY; i++)
		clients[i] = connect_to(&address, size);
	run(f);
	assert_int_equal(d.count, MANY);
	loop_acceptor_cancel(f->loop, &d.acceptor);
	for (int i = 0; i < MANY; i++) {
		close(clients[i]);
		close(accepted[i]);
	}
	close(fd);
}

static void acceptor_takes_many(void **state)
{
	accepts_many(*state, false);
	accepts_many(*state, true);
}

static int descriptors_open(void)
{
	int n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Sockets that the kernel accepts after the cancel are closed, not leaked. */
static void cancelled_acceptor_leaks_no_socket(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un address;
	socklen_t size;
	int before = descriptors_open(), accepted[100], clients[100];
	int fd = listen_somewhere(&address, &size);
	struct door d = { .acceptor.fn = door_opened,
		.loop = f->loop,
		.fds = accepted,
		.stop_at = 1,
		.cancel_at = 1 };

	assert_int_equal(loop_acceptor_start(f->loop, &d.acceptor, fd), 0);
	settle(f);
	for (int i = 0; i < 100; i++)
		clients[i] = connect_to(&address, size);
	run(f);
	settle(f);
	assert_int_equal(d.count, 1);
	for (int i = 0; i < 100; i++)
		close(clients[i]);
	close(accepted[0]);
	close(fd);
	settle(f);
	assert_int_equal(descriptors_open(), before);
}

static void acceptor_reports_lack_of_descriptors(void **state)
{
	struct fixture *f = *state;
	struct sockaddr_un address;
	struct rlimit limit, less;
	socklen_t size;
	int accepted[4], fd = listen_somewhere(&address, &size), client;
	struct door d = {
		.acceptor.fn = door_opened, .loop = f->loop, .fds = accepted, .stop_at = 1
	};

	client = connect_to(&address, size);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	less = limit;
	less.rlim_cur = (rlim_t)client + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &less), 0);
	assert_int_equal(loop_acceptor_start(f->loop, &d.acceptor, fd), 0);
	run(f);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(d.error, -EMFILE);
	assert_int_equal(d.count, 0);
	/* Started again it goes on, and the client was not lost. */
	assert_int_equal(loop_acceptor_start(f->loop, &d.acceptor, fd), 0);
	run(f);
	assert_int_equal(d.count, 1);
	loop_acceptor_cancel(f->loop, &d.acceptor);
	close(accepted[0]);
	close(client);
	close(fd);
}

/* ---- signals ---- */

static volatile sig_atomic_t alarms;

static void on_alarm(int number)
{
	(void)number;
	alarms++;
}

static void storm_of_signals_changes_nothing(void **state)
{
	struct sigaction action = { .sa_handler = on_alarm }, before;
	struct itimerval interval = { { 0, 1000 }, { 0, 1000 } };

	assert_int_equal(sigaction(SIGALRM, &action, &before), 0);
	alarms = 0;
	assert_int_equal(setitimer(ITIMER_REAL, &interval, NULL), 0);
	pausing_loses_nothing(state);
	acceptor_takes_many(state);
	while (!alarms)
		settle(*state);
	interval = (struct itimerval){ 0 };
	assert_int_equal(setitimer(ITIMER_REAL, &interval, NULL), 0);
	assert_int_equal(sigaction(SIGALRM, &before, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(pausing_loses_nothing),
		BOTH(paused_receiver_holds_back_bytes_and_end),
		BOTH(receiver_may_be_cancelled_in_its_callback),
		BOTH(an_end_right_behind_bytes_is_seen),
		BOTH(more_bytes_than_buffers),
		BOTH(receiver_reports_errors),
		BOTH(acceptor_takes_many),
		BOTH(cancelled_acceptor_leaks_no_socket),
		BOTH(acceptor_reports_lack_of_descriptors),
		BOTH(storm_of_signals_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
