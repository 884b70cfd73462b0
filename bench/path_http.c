#include "bench/path.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"

#define READ_SIZE 16384
#define WAIT_NS (10 * NSEC_PER_SEC)
#define BATCH 64

/* Chunked answers end with these bytes, and nothing inside ours looks like them. */
static const char last_chunk[] = "\r\n0\r\n\r\n";
#define LAST_SIZE (sizeof(last_chunk) - 1)

struct http_slot {
	int fd;
	bool open; /* a request is under way */
	bool in_body, chunked;
	size_t head_size, left; /* left: of a body with a length */
	char head[2048];
	char tail[LAST_SIZE];
	uint64_t start_ns;
};

struct path_http {
	struct path_load load;
	char request[4096];
	size_t request_size;
	int epoll;
	unsigned started, finished;
	struct http_slot *slots;
	char bytes[READ_SIZE];
};

size_t path_body(const struct path_load *load, char *text, size_t size)
{
	return (size_t)snprintf(text, size,
		"{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"" PATH_PROMPT
		"\"}]%s}",
		load->model,
		load->stream ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : "");
}

static int connect_port(uint16_t port)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = htons(port),
		.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
	};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), on = 1;

	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		path_die("port %u: %s", port, strerror(errno));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	return fd;
}

struct path_http *path_http_new(uint16_t port, const char *path, const struct path_load *load)
{
	struct path_http *c = calloc(1, sizeof(*c));
	char body[1024];
	size_t size = path_body(load, body, sizeof(body));

	if (!c)
		path_die("out of memory");
	c->load = *load;
	c->request_size = (size_t)snprintf(c->request, sizeof(c->request),
		"POST %s/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n"
		"Authorization: Bearer " PATH_KEY "\r\nContent-Type: application/json\r\n"
		"Accept: %s\r\nContent-Length: %zu\r\n\r\n%s",
		path, port, load->stream ? "text/event-stream" : "application/json", size, body);
	c->slots = calloc(load->in_flight, sizeof(*c->slots));
	c->epoll = epoll_create1(EPOLL_CLOEXEC);
	if (!c->slots || c->epoll < 0)
		path_die("out of memory");
	for (unsigned i = 0; i < load->in_flight; i++) {
		struct epoll_event e = { .events = EPOLLIN, .data.u32 = i };

		c->slots[i].fd = connect_port(port);
		if (epoll_ctl(c->epoll, EPOLL_CTL_ADD, c->slots[i].fd, &e) < 0)
			path_die("epoll: %s", strerror(errno));
	}
	return c;
}

struct path_http *path_http_free(struct path_http *c)
{
	for (unsigned i = 0; i < c->load.in_flight; i++)
		close(c->slots[i].fd);
	close(c->epoll);
	free(c->slots);
	free(c);
	return NULL;
}

static void slot_send(struct path_http *c, struct http_slot *s)
{
	s->open = true;
	s->in_body = false;
	s->head_size = 0;
	if (send(s->fd, c->request, c->request_size, MSG_NOSIGNAL) != (ssize_t)c->request_size)
		path_die("send: %s", strerror(errno));
	c->started++;
}

/* Takes bytes of the head; returns how many. */
static size_t slot_head(struct http_slot *s, const char *data, size_t size)
{
	size_t n = sizeof(s->head) - 1 - s->head_size, before = s->head_size;
	const char *end, *length;

	n = n < size ? n : size;
	memcpy(s->head + s->head_size, data, n);
	s->head_size += n;
	s->head[s->head_size] = '\0';
	end = strstr(s->head, "\r\n\r\n");
	if (!end && n < size)
		path_die("the response's head is too long");
	if (!end)
		return n;
	if (strncmp(s->head, "HTTP/1.1 200", 12) != 0)
		path_die("an answer that is none: %.60s", s->head);
	length = strcasestr(s->head, "\r\ncontent-length:");
	s->chunked = !length || length > end;
	s->left = s->chunked ? 0 : strtoul(length + 17, NULL, 10);
	s->in_body = true;
	/* Its last two bytes begin what an empty chunked body ends with. */
	memset(s->tail, 0, sizeof(s->tail));
	return (size_t)(end + 4 - s->head) - before;
}

static void slot_body(struct http_slot *s, const char *data, size_t size)
{
	if (!s->chunked) {
		s->left -= size < s->left ? size : s->left;
		s->open = s->left > 0;
		return;
	}
	if (size >= LAST_SIZE) {
		memcpy(s->tail, data + size - LAST_SIZE, LAST_SIZE);
	} else {
		memmove(s->tail, s->tail + size, LAST_SIZE - size);
		memcpy(s->tail + LAST_SIZE - size, data, size);
	}
	s->open = memcmp(s->tail, last_chunk, LAST_SIZE) != 0;
}

static void slot_read(struct path_http *c, struct http_slot *s)
{
	ssize_t n = recv(s->fd, c->bytes, sizeof(c->bytes), 0);
	size_t used = 0;

	if (n <= 0)
		path_die("connection lost: %s", n < 0 ? strerror(errno) : "closed");
	if (!s->in_body)
		used = slot_head(s, c->bytes, (size_t)n);
	if (s->in_body && used < (size_t)n)
		slot_body(s, c->bytes + used, (size_t)n - used);
	if (!s->open)
		c->finished++;
}

/* Starts what is due; returns when the next is. */
static uint64_t start_due(struct path_http *c, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < c->load.in_flight && c->started < c->load.requests; i++) {
		struct http_slot *s = &c->slots[i];

		if (s->open)
			continue;
		if (s->start_ns <= now)
			slot_send(c, s);
		else
			next = min_u64(next, s->start_ns);
	}
	return next;
}

void path_http_run(struct path_http *c)
{
	struct epoll_event events[BATCH];
	uint64_t now = clock_boottime_ns(), next;

	c->started = c->finished = 0;
	for (unsigned i = 0; i < c->load.in_flight; i++)
		c->slots[i].start_ns = now + i * c->load.stagger_ns;
	next = start_due(c, now);
	while (c->finished < c->load.requests) {
		uint64_t wait = next == UINT64_MAX ? WAIT_NS : next - now;
		struct timespec t = { (time_t)(wait / NSEC_PER_SEC), (long)(wait % NSEC_PER_SEC) };
		unsigned finished = c->finished;
		int n = epoll_pwait2(c->epoll, events, BATCH, &t, NULL);

		if (n < 0 || (n == 0 && next == UINT64_MAX))
			path_die("no answer came");
		for (int i = 0; i < n; i++)
			slot_read(c, &c->slots[events[i].data.u32]);
		now = clock_boottime_ns();
		if (finished != c->finished || next <= now)
			next = start_due(c, now);
	}
}

uint64_t path_http_once(struct path_http *c)
{
	uint64_t begin = clock_boottime_ns();

	slot_send(c, &c->slots[0]);
	while (c->slots[0].open)
		slot_read(c, &c->slots[0]);
	return clock_boottime_ns() - begin;
}
