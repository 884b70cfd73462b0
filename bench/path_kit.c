#include "bench/path.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include "base/aux.h"
#include "base/clock.h"
#include "libclient/llmkit.h"

#define HANDLES_MAX 4
#define WAIT_NS (10 * NSEC_PER_SEC)

struct kit_slot {
	llmkit_stream *stream;
	bool has_text;
	uint64_t start_ns;
};

struct path_kit {
	llmkit *kits[HANDLES_MAX];
	unsigned count;
	struct kit_slot *slots; /* slot i is on handle i % count */
	unsigned slot_count;
	llmkit_request *request;
	unsigned started, finished, with_text;
};

struct path_kit *path_kit_new(const char *socket, unsigned connections)
{
	struct llmkit_options options = { .size = sizeof(options), .socket = socket };
	struct path_kit *k = calloc(1, sizeof(*k));

	if (!k || connections > HANDLES_MAX)
		path_die("out of memory");
	k->count = connections;
	for (unsigned i = 0; i < connections; i++) {
		int r = llmkit_open(&k->kits[i], &options);

		if (r != LLMKIT_OK)
			path_die("llmkit_open: %s", llmkit_strerror(r));
	}
	return k;
}

void path_kit_release(struct path_kit *k)
{
	for (unsigned i = 0; i < k->slot_count; i++)
		llmkit_stream_close(k->slots[i].stream);
	free(k->slots);
	llmkit_request_free(k->request);
	k->slots = NULL;
	k->slot_count = 0;
	k->request = NULL;
}

struct path_kit *path_kit_free(struct path_kit *k)
{
	path_kit_release(k);
	for (unsigned i = 0; i < k->count; i++)
		llmkit_close(k->kits[i]);
	free(k);
	return NULL;
}

static void prepare(struct path_kit *k, const struct path_load *load)
{
	path_kit_release(k);
	k->started = k->finished = k->with_text = 0;
	k->slots = calloc(load->in_flight, sizeof(*k->slots));
	k->slot_count = load->in_flight;
	k->request = llmkit_request_new(load->model);
	if (!k->slots || !k->request ||
		llmkit_request_add_message(k->request, "user", PATH_PROMPT) != LLMKIT_OK ||
		(load->stream && llmkit_request_set_stream(k->request, true) != LLMKIT_OK))
		path_die("cannot build the request");
}

static void slot_submit(struct path_kit *k, unsigned i)
{
	int r = llmkit_submit(k->kits[i % k->count], k->request, &k->slots[i].stream);

	if (r != LLMKIT_OK)
		path_die("llmkit_submit: %s", llmkit_strerror(r));
	k->slots[i].has_text = false;
	k->started++;
}

static void slot_event(struct path_kit *k, struct kit_slot *s, const struct llmkit_event *e)
{
	if (e->type == LLMKIT_EVENT_ERROR)
		path_die("a request failed: %s", e->error.message);
	if (e->type == LLMKIT_EVENT_TEXT && !s->has_text) {
		s->has_text = true;
		k->with_text++;
	}
	if (e->type != LLMKIT_EVENT_END)
		return;
	llmkit_stream_close(s->stream);
	s->stream = NULL;
	k->finished++;
}

/* Starts what is due; returns when the next is. */
static uint64_t start_due(struct path_kit *k, unsigned requests, uint64_t now)
{
	uint64_t next = UINT64_MAX;

	for (unsigned i = 0; i < k->slot_count && k->started < requests; i++) {
		if (k->slots[i].stream)
			continue;
		if (k->slots[i].start_ns <= now)
			slot_submit(k, i);
		else
			next = min_u64(next, k->slots[i].start_ns);
	}
	return next;
}

/* One turn of an event loop: waits, then reads what came. */
static void turn(struct path_kit *k, uint64_t wait_ns)
{
	struct timespec t = { (time_t)(wait_ns / NSEC_PER_SEC), (long)(wait_ns % NSEC_PER_SEC) };
	struct pollfd fds[HANDLES_MAX];
	struct llmkit_event event;

	for (unsigned i = 0; i < k->count; i++)
		fds[i] = (struct pollfd){ .fd = llmkit_fd(k->kits[i]), .events = POLLIN };
	if (ppoll(fds, k->count, &t, NULL) <= 0) {
		if (wait_ns >= WAIT_NS)
			path_die("no answer came");
		return;
	}
	for (unsigned i = 0; i < k->count; i++)
		if (fds[i].revents)
			llmkit_dispatch(k->kits[i]);
	for (unsigned i = 0; i < k->slot_count; i++) {
		struct kit_slot *s = &k->slots[i];

		if (!fds[i % k->count].revents)
			continue;
		while (s->stream && llmkit_stream_next(s->stream, 0, &event) == LLMKIT_OK)
			slot_event(k, s, &event);
	}
}

void path_kit_run(struct path_kit *k, const struct path_load *load)
{
	uint64_t now = clock_boottime_ns(), next;

	prepare(k, load);
	for (unsigned i = 0; i < k->slot_count; i++)
		k->slots[i].start_ns = now + i * load->stagger_ns;
	while (k->finished < load->requests) {
		next = start_due(k, load->requests, now);
		turn(k, next == UINT64_MAX ? WAIT_NS : next - now);
		now = clock_boottime_ns();
	}
}

void path_kit_hold(struct path_kit *k, const struct path_load *load)
{
	prepare(k, load);
	for (unsigned i = 0; i < k->slot_count; i++)
		slot_submit(k, i);
	while (k->with_text < k->slot_count)
		turn(k, WAIT_NS);
}

uint64_t path_kit_once(struct path_kit *k, const struct path_load *load)
{
	struct llmkit_event event;
	uint64_t begin;

	if (!k->request)
		prepare(k, load);
	begin = clock_boottime_ns();
	slot_submit(k, 0);
	while (k->slots[0].stream) {
		if (llmkit_stream_next(k->slots[0].stream, -1, &event) != LLMKIT_OK)
			path_die("the stream broke");
		slot_event(k, &k->slots[0], &event);
	}
	return clock_boottime_ns() - begin;
}
