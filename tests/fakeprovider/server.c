#include "tests/fakeprovider/server.h"

#include "base/clock.h"
#include "tests/fakeprovider/conn.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define EVENTS_MAX 256

int server_init(struct server *s, SSL_CTX *tls)
{
	s->tls = tls;
	s->epoll = epoll_create1(EPOLL_CLOEXEC);
	return s->epoll < 0 ? -errno : 0;
}

static void free_dead(struct server *s)
{
	while (s->dead) {
		struct conn *c = s->dead;

		s->dead = c->next;
		conn_free(c);
	}
}

void server_deinit(struct server *s)
{
	free_dead(s);
	while (s->all) {
		struct conn *c = s->all;

		s->all = c->next;
		conn_free(c);
	}
	for (int i = 0; i < s->listener_count; i++)
		close(s->listeners[i].fd);
	if (s->epoll >= 0)
		close(s->epoll);
	SSL_CTX_free(s->tls);
	free(s->heap);
	provider_deinit(&s->provider);
}

static int parse_address(const char *text, struct sockaddr_in *out)
{
	const char *colon = strrchr(text, ':');
	char host[64], *end;
	unsigned long port;

	if (!colon || (size_t)(colon - text) >= sizeof(host))
		return -EINVAL;
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	port = strtoul(colon + 1, &end, 10);
	*out = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
	if (end == colon + 1 || *end || port > 65535 ||
		inet_pton(AF_INET, host, &out->sin_addr) != 1)
		return -EINVAL;
	return 0;
}

int server_listen(struct server *s, const char *address, bool tls)
{
	aux_cleanup(closep) int fd = -1;
	struct listener *l = &s->listeners[s->listener_count];
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = l };
	struct sockaddr_in a;
	socklen_t size = sizeof(a);
	int on = 1, r = parse_address(address, &a);

	if (r < 0)
		return r;
	fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
		bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 4096) < 0 ||
		getsockname(fd, (struct sockaddr *)&a, &size) < 0 ||
		epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		return -errno;
	l->tls = tls;
	l->port = ntohs(a.sin_port);
	l->fd = steal_fd(&fd);
	s->listener_count++;
	return 0;
}

static void heap_place(struct server *s, size_t at, struct conn *c)
{
	s->heap[at] = c;
	c->heap_index = at;
}

/* The heap is 1-based: index 0 of a connection means that it is not in it. */
static void heap_sift(struct server *s, size_t at, struct conn *c)
{
	while (at > 1 && s->heap[at / 2]->wake_ns > c->wake_ns) {
		heap_place(s, at, s->heap[at / 2]);
		at /= 2;
	}
	for (size_t child = at * 2; child <= s->heap_used; child = at * 2) {
		if (child < s->heap_used && s->heap[child + 1]->wake_ns < s->heap[child]->wake_ns)
			child++;
		if (s->heap[child]->wake_ns >= c->wake_ns)
			break;
		heap_place(s, at, s->heap[child]);
		at = child;
	}
	heap_place(s, at, c);
}

void server_wake_at(struct server *s, struct conn *c, uint64_t at_ns)
{
	c->wake_ns = at_ns;
	if (c->heap_index) {
		heap_sift(s, c->heap_index, c);
		return;
	}
	if (s->heap_used + 2 > s->heap_size) {
		size_t size = s->heap_size ? s->heap_size * 2 : 64;
		struct conn **grown = realloc(s->heap, size * sizeof(struct conn *));

		if (!grown)
			abort();
		s->heap = grown;
		s->heap_size = size;
	}
	heap_sift(s, ++s->heap_used, c);
}

void server_wake_cancel(struct server *s, struct conn *c)
{
	size_t at = c->heap_index;
	struct conn *last;

	if (!at)
		return;
	c->heap_index = 0;
	last = s->heap[s->heap_used--];
	if (last != c)
		heap_sift(s, at, last);
}

static void accept_one(struct server *s, const struct listener *l, int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLRDHUP };
	struct conn *c = conn_new(s, fd, l->tls, ++s->next_id);

	if (!c)
		return;
	c->interest = event.events;
	event.data.ptr = c;
	c->next = s->all;
	if (s->all)
		s->all->previous = c;
	s->all = c;
	s->provider.counters.accepted++;
	s->provider.counters.open++;
	epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event);
}

static void accept_all(struct server *s, const struct listener *l)
{
	for (;;) {
		int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

		if (fd < 0)
			return;
		accept_one(s, l, fd);
	}
}

static bool is_listener(const struct server *s, const void *ptr)
{
	return ptr == &s->listeners[0] || ptr == &s->listeners[1];
}

static void wake_due(struct server *s, uint64_t now_ns)
{
	while (s->heap_used && s->heap[1]->wake_ns <= now_ns) {
		struct conn *c = s->heap[1];

		server_wake_cancel(s, c);
		conn_ready(c, 0, now_ns);
	}
}

static int wait_events(struct server *s, struct epoll_event *events)
{
	uint64_t now, left;
	struct timespec t;
	sigset_t none;

	/* Signals come only while waiting: none is lost between the loop's test and the wait. */
	sigemptyset(&none);
	if (!s->heap_used)
		return epoll_pwait(s->epoll, events, EVENTS_MAX, -1, &none);
	now = clock_boottime_ns();
	left = s->heap[1]->wake_ns > now ? s->heap[1]->wake_ns - now : 0;
	t.tv_sec = (time_t)(left / NSEC_PER_SEC);
	t.tv_nsec = (long)(left % NSEC_PER_SEC);
	return epoll_pwait2(s->epoll, events, EVENTS_MAX, &t, &none);
}

int server_run(struct server *s, const volatile bool *stop)
{
	struct epoll_event events[EVENTS_MAX];

	while (!*stop) {
		int n = wait_events(s, events);

		if (n < 0 && errno != EINTR)
			return -errno;
		for (int i = 0; i < n; i++) {
			struct conn *c = events[i].data.ptr;

			if (is_listener(s, c))
				accept_all(s, events[i].data.ptr);
			else if (c->state != CONN_DEAD)
				conn_ready(c, events[i].events, clock_boottime_ns());
		}
		wake_due(s, clock_boottime_ns());
		free_dead(s);
	}
	return 0;
}
