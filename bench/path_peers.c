#include "bench/path.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "bench/report.h"

#define PING_SIZE 512
#define PING_WARM 200

/* ---- libcurl ---- */

struct curl_client {
	CURLM *multi;
	struct curl_slist *headers;
	char url[128], body[1024];
	unsigned started, finished;
};

static size_t discard(char *data, size_t size, size_t count, void *context)
{
	(void)data;
	(void)context;
	return size * count;
}

static void curl_add(struct curl_client *c)
{
	CURL *easy = curl_easy_init();

	if (!easy)
		path_die("libcurl has no memory");
	curl_easy_setopt(easy, CURLOPT_URL, c->url);
	curl_easy_setopt(easy, CURLOPT_HTTPHEADER, c->headers);
	curl_easy_setopt(easy, CURLOPT_POSTFIELDS, c->body);
	curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, discard);
	curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
	if (curl_multi_add_handle(c->multi, easy) != CURLM_OK)
		path_die("libcurl has no memory");
	c->started++;
}

/* What has ended begins anew, on the same handle, as long as there is something to do. */
static void curl_collect(struct curl_client *c, unsigned requests)
{
	int left;

	for (CURLMsg *m; (m = curl_multi_info_read(c->multi, &left));) {
		CURL *easy = m->easy_handle;

		if (m->data.result != CURLE_OK)
			path_die("libcurl: %s", curl_easy_strerror(m->data.result));
		curl_multi_remove_handle(c->multi, easy);
		c->finished++;
		if (c->started >= requests) {
			curl_easy_cleanup(easy);
			continue;
		}
		curl_multi_add_handle(c->multi, easy);
		c->started++;
	}
}

static void curl_run(struct curl_client *c, unsigned in_flight, unsigned requests)
{
	int running;

	c->started = c->finished = 0;
	for (unsigned i = 0; i < in_flight; i++)
		curl_add(c);
	while (c->finished < requests) {
		CURLMcode code = curl_multi_perform(c->multi, &running);

		curl_collect(c, requests);
		if (code == CURLM_OK && c->finished < requests)
			code = curl_multi_poll(c->multi, NULL, 0, 1000, NULL);
		if (code != CURLM_OK)
			path_die("libcurl: %s", curl_multi_strerror(code));
	}
}

static uint64_t own_cpu_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static double curl_measure(uint16_t port, const struct path_load *load)
{
	struct curl_client c = { 0 };
	uint64_t begin;

	curl_global_init(CURL_GLOBAL_DEFAULT);
	c.multi = curl_multi_init();
	c.headers = curl_slist_append(NULL, "Content-Type: application/json");
	c.headers = curl_slist_append(c.headers, "Authorization: Bearer " PATH_KEY);
	snprintf(c.url, sizeof(c.url), "http://127.0.0.1:%u/v1/chat/completions", port);
	path_body(load, c.body, sizeof(c.body));
	curl_multi_setopt(c.multi, CURLMOPT_MAXCONNECTS, 128L);
	curl_run(&c, load->in_flight, load->in_flight * 2);
	begin = own_cpu_ns();
	curl_run(&c, load->in_flight, load->requests);
	return (double)(own_cpu_ns() - begin) / load->requests / 1e3;
}

double path_curl_us(uint16_t port, const struct path_load *load)
{
	double us = 0;
	int ends[2], status;
	pid_t pid;

	if (pipe(ends) < 0)
		path_die("pipe: %s", strerror(errno));
	pid = path_fork(PATH_CPU_MEASURED);
	if (pid == 0) {
		us = curl_measure(port, load);
		_exit(write(ends[1], &us, sizeof(us)) == sizeof(us) ? 0 : 1);
	}
	close(ends[1]);
	if (read(ends[0], &us, sizeof(us)) != sizeof(us) || waitpid(pid, &status, 0) < 0)
		path_die("the libcurl client failed");
	close(ends[0]);
	return us;
}

/* ---- the bare round trip ---- */

static void echo(int fd)
{
	char bytes[PING_SIZE];

	for (ssize_t n; (n = read(fd, bytes, sizeof(bytes))) > 0;)
		if (write(fd, bytes, (size_t)n) != n)
			break;
	_exit(0);
}

static pid_t ping_start(int *fd)
{
	int ends[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		path_die("socketpair: %s", strerror(errno));
	pid = path_fork(PATH_CPU_MEASURED);
	if (pid == 0) {
		close(ends[0]);
		echo(ends[1]);
	}
	close(ends[1]);
	*fd = ends[0];
	return pid;
}

static void ping_once(int fd)
{
	char bytes[PING_SIZE] = { 0 };

	if (write(fd, bytes, sizeof(bytes)) != PING_SIZE ||
		recv(fd, bytes, sizeof(bytes), MSG_WAITALL) != PING_SIZE)
		path_die("ping-pong: %s", strerror(errno));
}

double path_pingpong_us(unsigned rounds)
{
	double *samples = calloc(rounds, sizeof(*samples)), median;
	int fd;
	pid_t pid = ping_start(&fd);

	if (!samples)
		path_die("out of memory");
	for (unsigned i = 0; i < rounds + PING_WARM; i++) {
		uint64_t begin = clock_boottime_ns();

		ping_once(fd);
		if (i >= PING_WARM)
			samples[i - PING_WARM] = (double)(clock_boottime_ns() - begin) / 1e3;
	}
	close(fd);
	waitpid(pid, NULL, 0);
	median = report_median_of(samples, rounds);
	free(samples);
	return median;
}

double path_wake_us(unsigned rounds, uint64_t gap_ns)
{
	uint64_t begin, cpu;
	int fd;
	pid_t pid = ping_start(&fd);

	for (unsigned i = 0; i < PING_WARM; i++)
		ping_once(fd);
	cpu = path_cpu_ns(pid);
	begin = clock_boottime_ns();
	for (unsigned i = 0; i < rounds; i++) {
		clock_sleep_until(begin + i * gap_ns);
		ping_once(fd);
	}
	cpu = path_cpu_ns(pid) - cpu;
	close(fd);
	waitpid(pid, NULL, 0);
	return (double)cpu / rounds / 1e3;
}
