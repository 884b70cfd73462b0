/*
 * Keeps streams and budget calls going against a daemon that may be killed at any moment, checks
 * every answer byte by byte, and says how each stream ended. For test_crash.py and others.
 *
 *     load --model M --expect FILE [--streams N] [--user U]
 *          [--acquire-provider P --acquire-user V] [--requests N]
 *
 * One process, one thread, no blocking call. Ends on SIGTERM, or after N requests, with a line
 * {"event":"total",...}. Every stream that ends for another reason than END has a line as well:
 * {"event":"error","name":...,"retryable":...,"ns":...,"received":...}. Anything that must never
 * happen is {"event":"bad","why":...}, and the exit code is 1.
 */

#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/llmkit.h"

#define STREAMS_MAX 256
#define RETRY_MS 4

struct slot {
	llmkit_stream *stream;
	size_t received;
	uint64_t not_before_ns;
};

static struct load {
	llmkit *kit;
	llmkit_request *request;
	llmkit_limits *limits;
	char *expect;
	size_t expect_length;
	struct slot slots[STREAMS_MAX];
	unsigned streams;
	uint64_t requests, submitted, ended, failed, limited, acquired, refused, no_daemon, bad;
} load;

static volatile sig_atomic_t stop;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

static void say_bad(const char *why, const char *detail)
{
	load.bad++;
	printf("{\"event\":\"bad\",\"why\":\"%s: %s\"}\n", why, detail);
	fflush(stdout);
}

/* ---- streams ---- */

static void slot_close(struct slot *s)
{
	llmkit_stream_close(s->stream);
	s->stream = NULL;
}

static void slot_text(struct slot *s, const char *data, size_t length)
{
	if (length > load.expect_length - s->received ||
		memcmp(load.expect + s->received, data, length) != 0)
		say_bad("text differs from what the provider sends", "TEXT");
	else
		s->received += length;
}

static void slot_error(struct slot *s, const struct llmkit_event *e)
{
	load.failed++;
	s->not_before_ns = llmkit_now_ns() + e->error.retry_after_ns;
	if (e->error.code == LLMKIT_E_LIMITED) {
		load.limited++;
		return;
	}
	if (e->error.received != s->received)
		say_bad("received differs from what was delivered", e->error.message);
	printf("{\"event\":\"error\",\"name\":\"%s\",\"retryable\":%s,\"ns\":%" PRIu64
	       ",\"received\":%zu}\n",
		llmkit_error_name(e->error.code),
		llmkit_is_retryable(e->error.code) ? "true" : "false", llmkit_now_ns(),
		s->received);
	fflush(stdout);
}

static void slot_event(struct slot *s, const struct llmkit_event *e)
{
	if (e->type == LLMKIT_EVENT_TEXT) {
		slot_text(s, e->text.data, e->text.length);
	} else if (e->type == LLMKIT_EVENT_END) {
		load.ended++;
		if (s->received != load.expect_length)
			say_bad("a short success", e->end.finish_reason);
		slot_close(s);
	} else if (e->type == LLMKIT_EVENT_ERROR) {
		slot_error(s, e);
		slot_close(s);
	}
}

static void slot_read(struct slot *s)
{
	struct llmkit_event event;
	int r = 0;

	while (s->stream && (r = llmkit_stream_next(s->stream, 0, &event)) == 0)
		slot_event(s, &event);
	if (s->stream && r != LLMKIT_E_WAIT_TIMEOUT)
		say_bad("llmkit_stream_next", llmkit_error_name(r));
}

static bool may_submit(const struct slot *s)
{
	return !s->stream && !stop && (!load.requests || load.submitted < load.requests) &&
		llmkit_now_ns() >= s->not_before_ns;
}

static void slot_submit(struct slot *s)
{
	int r;

	if (!may_submit(s))
		return;
	r = llmkit_submit(load.kit, load.request, &s->stream);
	s->received = 0;
	if (r == 0) {
		load.submitted++;
		return;
	}
	load.no_daemon++;
	/* Jitter: not all workers at once at the next daemon. */
	s->not_before_ns = llmkit_now_ns() + (uint64_t)(1 + rand() % 8) * 1000000;
	if (!llmkit_is_retryable(r))
		say_bad("llmkit_submit", llmkit_error_name(r));
}

static void take_budget(void)
{
	int r = load.limits ? llmkit_acquire(load.limits, 1, NULL) : LLMKIT_E_LIMITED;

	if (r == LLMKIT_OK)
		load.acquired++;
	else if (r == LLMKIT_E_LIMITED)
		load.refused++;
	else
		say_bad("llmkit_acquire", llmkit_error_name(r));
}

static bool is_over(void)
{
	bool open = false;

	for (unsigned i = 0; i < load.streams; i++)
		open = open || load.slots[i].stream;
	return stop || (load.requests && load.submitted >= load.requests && !open);
}

static void turn(void)
{
	struct pollfd p = { .fd = llmkit_fd(load.kit), .events = POLLIN };

	for (unsigned i = 0; i < load.streams; i++)
		slot_submit(&load.slots[i]);
	for (int i = 0; i < 8; i++)
		take_budget();
	poll(&p, 1, RETRY_MS);
	llmkit_dispatch(load.kit);
	for (unsigned i = 0; i < load.streams; i++)
		slot_read(&load.slots[i]);
}

/* ---- start and end ---- */

static bool read_expected(const char *path)
{
	FILE *f = fopen(path, "re");

	load.expect = f ? malloc(1 << 20) : NULL;
	if (load.expect)
		load.expect_length = fread(load.expect, 1, 1 << 20, f);
	if (f)
		fclose(f);
	return load.expect_length > 0;
}

static bool parse(int argc, char **argv, const char *names[static 5])
{
	static const struct option options[] = {
		{ "model", required_argument, NULL, 0 },
		{ "expect", required_argument, NULL, 1 },
		{ "user", required_argument, NULL, 2 },
		{ "acquire-provider", required_argument, NULL, 3 },
		{ "acquire-user", required_argument, NULL, 4 },
		{ "streams", required_argument, NULL, 's' },
		{ "requests", required_argument, NULL, 'r' },
		{ NULL, 0, NULL, 0 },
	};
	int option;

	load.streams = 1;
	while ((option = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (option < 5)
			names[option] = optarg;
		else if (option == 's')
			load.streams = (unsigned)strtoul(optarg, NULL, 10);
		else if (option == 'r')
			load.requests = strtoull(optarg, NULL, 10);
		else
			return false;
	}
	return names[0] && names[1] && load.streams >= 1 && load.streams <= STREAMS_MAX;
}

static int prepare(const char *names[static 5])
{
	int r = llmkit_open(&load.kit, NULL);

	load.request = llmkit_request_new(names[0]);
	if (r == 0)
		r = llmkit_request_add_message(load.request, "user", "hello");
	if (r == 0)
		r = llmkit_request_set_stream(load.request, true);
	if (r == 0 && names[2])
		r = llmkit_request_set_user(load.request, names[2]);
	if (r == 0 && names[4])
		r = llmkit_limits_open(load.kit,
			&(struct llmkit_scope){ .size = sizeof(struct llmkit_scope),
				.provider = names[3],
				.user = names[4] },
			&load.limits);
	return r;
}

int main(int argc, char **argv)
{
	const char *names[5] = { NULL };
	int r;

	if (!parse(argc, argv, names) || !read_expected(names[1]))
		return fputs("load: wrong arguments; see the head of load.c\n", stderr), 2;
	signal(SIGTERM, on_signal);
	srand((unsigned)llmkit_now_ns());
	r = prepare(names);
	if (r != 0)
		say_bad("opening", llmkit_error_name(r));
	while (r == 0 && !is_over())
		turn();
	printf("{\"event\":\"total\",\"submitted\":%" PRIu64 ",\"ended\":%" PRIu64
	       ",\"failed\":%" PRIu64 ",\"limited\":%" PRIu64 ",\"acquired\":%" PRIu64
	       ",\"refused\":%" PRIu64 ",\"no_daemon\":%" PRIu64 ",\"bad\":%" PRIu64 "}\n",
		load.submitted, load.ended, load.failed, load.limited, load.acquired, load.refused,
		load.no_daemon, load.bad);
	for (unsigned i = 0; i < load.streams; i++)
		slot_close(&load.slots[i]);
	llmkit_limits_close(load.limits);
	llmkit_request_free(load.request);
	llmkit_close(load.kit);
	free(load.expect);
	return load.bad ? 1 : 0;
}
