/*
 * What a request costs on its way through the daemon, against nginx as a proxy and a bare libcurl
 * client in the same run. Starts the fake provider, llmkitd and nginx itself, in a temporary
 * folder; one CPU for what is measured, one for client and provider. Prints one JSON object per
 * metric (bench/report.h). --quick for less than 20 s; --only PREFIX for some metrics.
 *
 *     *_cpu_us_per_request          64 in flight, small JSON answers; CPU time of the process
 *     *chunk_cpu_us_burst           streams of 50 chunks as fast as they come, 64 in flight
 *     *chunk_cpu_us_paced           64 streams, a chunk each 20 ms, spread over time
 *     wake_cpu_us_paced             of a bare process that is woken as often, reads and answers
 *     added_p50_us                  one in flight: through the daemon, less to the provider itself
 *     pingpong_us                   a bare Unix-socket round trip between the same two CPUs
 *     rss_bytes_per_stream          1,000 plain streams open and silent after their first chunk
 *     daemon_idle_pss_bytes         before the first request
 */

#include "bench/path.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/aux.h"
#include "bench/report.h"

#define REPS_MAX 9
#define IN_FLIGHT 64
#define CHUNKS 50
#define HELD 1000

struct bench {
	struct path_host host;
	char socket[108];
	const char *only;
	size_t reps, reps_paced;
	unsigned requests, streams, rounds;
};

static bool wanted(const struct bench *b, const char *metric)
{
	return !b->only || strncmp(metric, b->only, strlen(b->only)) == 0;
}

static struct path_load answers(const struct bench *b, const char *model)
{
	return (struct path_load){
		.model = model, .in_flight = IN_FLIGHT, .requests = b->requests
	};
}

static struct path_load streams(const struct bench *b, const char *model)
{
	return (struct path_load){
		.model = model, .stream = true, .in_flight = IN_FLIGHT, .requests = b->streams
	};
}

/* A chunk of each stream every 20 ms, evenly spread. */
static struct path_load paced(const char *model)
{
	return (struct path_load){ .model = model,
		.stream = true,
		.in_flight = IN_FLIGHT,
		.requests = IN_FLIGHT,
		.stagger_ns = 20 * 1000000 / IN_FLIGHT };
}

#define MODEL_ANSWER "fake?chunks=8"
#define MODEL_BURST "fake?chunks=50"
#define MODEL_PACED "fake?chunks=50&delay_ms=20"
#define MODEL_HELD "fake?chunks=50&stall_after=1"

/* ---- CPU of one process ---- */

static void measure_kit(const struct bench *b, const char *metric, const struct path_load *load,
	unsigned connections, size_t reps, unsigned pieces)
{
	struct path_load warm = *load;
	struct path_kit *k;
	double samples[REPS_MAX];

	if (!wanted(b, metric))
		return;
	k = path_kit_new(b->socket, connections);
	warm.requests = IN_FLIGHT;
	/* A paced run takes a second, in which its first chunks are the warming. */
	if (!load->stagger_ns)
		path_kit_run(k, &warm);
	for (size_t i = 0; i < reps; i++) {
		uint64_t begin = path_cpu_ns(b->host.daemon);

		path_kit_run(k, load);
		samples[i] = (double)(path_cpu_ns(b->host.daemon) - begin) / 1e3 / load->requests /
			pieces;
	}
	report_median("path", metric, samples, reps, "us");
	path_kit_free(k);
}

static void measure_proxy(const struct bench *b, const char *metric, const char *path,
	const struct path_load *load, size_t reps, unsigned pieces)
{
	struct path_http *c;
	double samples[REPS_MAX];

	if (!wanted(b, metric) || !b->host.proxy)
		return;
	c = path_http_new(b->host.proxy_port, path, load);
	if (!load->stagger_ns)
		path_http_run(c);
	for (size_t i = 0; i < reps; i++) {
		uint64_t begin = path_cpu_ns(b->host.proxy);

		path_http_run(c);
		samples[i] = (double)(path_cpu_ns(b->host.proxy) - begin) / 1e3 / load->requests /
			pieces;
	}
	report_median("path", metric, samples, reps, "us");
	path_http_free(c);
}

static void measure_answers(const struct bench *b)
{
	struct path_load plain = answers(b, "plain/" MODEL_ANSWER);
	struct path_load tls = answers(b, "tls/" MODEL_ANSWER);
	struct path_load bare = answers(b, MODEL_ANSWER);
	double samples[REPS_MAX];

	measure_kit(b, "daemon_cpu_us_per_request", &plain, 1, b->reps, 1);
	measure_kit(b, "daemon_4conn_cpu_us_per_request", &plain, 4, b->reps, 1);
	measure_kit(b, "daemon_tls_cpu_us_per_request", &tls, 1, b->reps, 1);
	measure_proxy(b, "nginx_cpu_us_per_request", "/v1", &bare, b->reps, 1);
	if (!wanted(b, "curl_cpu_us_per_request"))
		return;
	for (size_t i = 0; i < b->reps; i++)
		samples[i] = path_curl_us(b->host.plain_port, &bare);
	report_median("path", "curl_cpu_us_per_request", samples, b->reps, "us");
}

static void measure_streams(const struct bench *b)
{
	struct path_load burst = streams(b, "plain/" MODEL_BURST);
	struct path_load bare_burst = streams(b, MODEL_BURST);
	struct path_load slow = paced("plain/" MODEL_PACED);
	struct path_load bare_slow = paced(MODEL_PACED);
	double wake[REPS_MAX];

	measure_kit(b, "chunk_cpu_us_burst", &burst, 1, b->reps, CHUNKS);
	measure_proxy(b, "nginx_chunk_cpu_us_burst", "/stream/v1", &bare_burst, b->reps, CHUNKS);
	measure_kit(b, "chunk_cpu_us_paced", &slow, 1, b->reps_paced, CHUNKS);
	measure_proxy(
		b, "nginx_chunk_cpu_us_paced", "/stream/v1", &bare_slow, b->reps_paced, CHUNKS);
	if (!wanted(b, "wake_cpu_us_paced"))
		return;
	for (size_t i = 0; i < b->reps_paced; i++)
		wake[i] = path_wake_us(IN_FLIGHT * CHUNKS / 4, slow.stagger_ns);
	report_median("path", "wake_cpu_us_paced", wake, b->reps_paced, "us");
}

/* ---- latency ---- */

static double median_us(uint64_t (*once)(void *client, const struct path_load *load), void *client,
	const struct path_load *load, unsigned rounds)
{
	double *samples = calloc(rounds, sizeof(*samples)), median;

	if (!samples)
		path_die("out of memory");
	for (unsigned i = 0; i < rounds / 10; i++)
		once(client, load);
	for (unsigned i = 0; i < rounds; i++)
		samples[i] = (double)once(client, load) / 1e3;
	median = report_median_of(samples, rounds);
	free(samples);
	return median;
}

static uint64_t once_kit(void *client, const struct path_load *load)
{
	return path_kit_once(client, load);
}

static uint64_t once_http(void *client, const struct path_load *load)
{
	(void)load;
	return path_http_once(client);
}

static void measure_latency(const struct bench *b)
{
	struct path_load through = { .model = "plain/" MODEL_ANSWER, .in_flight = 1 };
	struct path_load direct = { .model = MODEL_ANSWER, .in_flight = 1 };
	double added[REPS_MAX], bare[REPS_MAX], ping[REPS_MAX];
	struct path_kit *k;
	struct path_http *c;

	if (!wanted(b, "added_p50_us") && !wanted(b, "direct_p50_us") && !wanted(b, "pingpong_us"))
		return;
	k = path_kit_new(b->socket, 1);
	c = path_http_new(b->host.plain_port, "/v1", &direct);
	for (size_t i = 0; i < b->reps; i++) {
		bare[i] = median_us(once_http, c, &direct, b->rounds);
		added[i] = median_us(once_kit, k, &through, b->rounds) - bare[i];
		ping[i] = path_pingpong_us(b->rounds);
	}
	report_median("path", "added_p50_us", added, b->reps, "us");
	report_median("path", "direct_p50_us", bare, b->reps, "us");
	report_median("path", "pingpong_us", ping, b->reps, "us");
	path_http_free(c);
	path_kit_free(k);
}

/* ---- memory ---- */

static void measure_idle(const struct bench *b)
{
	if (wanted(b, "daemon_idle_pss_bytes"))
		report_value("path", "daemon_idle_pss_bytes",
			(double)path_memory_bytes(b->host.daemon, "Pss:"), "bytes");
}

/* Against a daemon that has served before: what grows is the streams'. */
static void measure_held(const struct bench *b)
{
	struct path_load warm = answers(b, "plain/" MODEL_ANSWER);
	struct path_load load = { .model = "plain/" MODEL_HELD, .stream = true, .in_flight = HELD };
	struct path_kit *k;
	uint64_t before;

	if (!wanted(b, "rss_bytes_per_stream"))
		return;
	k = path_kit_new(b->socket, 4); /* a connection carries 256 requests */
	warm.requests = IN_FLIGHT;
	path_kit_run(k, &warm);
	before = path_memory_bytes(b->host.daemon, "Rss:");
	path_kit_hold(k, &load);
	report_value("path", "rss_bytes_per_stream",
		((double)path_memory_bytes(b->host.daemon, "Rss:") - (double)before) / HELD,
		"bytes");
	path_kit_free(k);
}

/* ---- start ---- */

static bool parse(struct bench *b, int argc, char **argv)
{
	static const struct option options[] = {
		{ "quick", no_argument, NULL, 'q' },
		{ "only", required_argument, NULL, 'o' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option == 'q') {
			b->reps = b->reps_paced = 3;
			b->requests = 4096;
			b->streams = 256;
			b->rounds = 500;
		} else if (option == 'o') {
			b->only = optarg;
		} else {
			return false;
		}
	}
	return optind == argc;
}

int main(int argc, char **argv)
{
	static struct bench b = {
		.reps = 7, .reps_paced = 7, .requests = 16384, .streams = 1024, .rounds = 2000
	};

	if (!parse(&b, argc, argv)) {
		fputs("usage: path [--quick] [--only METRIC-PREFIX]\n", stderr);
		return 2;
	}
	path_host_start(&b.host);
	path_host_socket(&b.host, b.socket);
	path_pin(PATH_CPU_CLIENT);
	measure_idle(&b);
	measure_held(&b);
	measure_answers(&b);
	measure_streams(&b);
	measure_latency(&b);
	return 0;
}
