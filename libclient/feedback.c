#include "proto/feedback.h"
#include <stdio.h>
#include <time.h>
#include "libclient/resolved.h"
#include "shm/bucket_follow.h"
#include "shm/bucket_table.h"
#include "shm/estimate.h"
#include "shm/target.h"

#define HOUR_NS (3600 * NSEC_PER_SEC)
#define MINUTE_NS (60 * NSEC_PER_SEC)
#define DAY_NS (24 * HOUR_NS)
#define HTTP_LIMITED 429
#define HTTP_UNAVAILABLE 503
#define HTTP_OVERLOADED 529
#define LIMITED_MAX 16 /* in a row; the exponential has ended long before */

static uint64_t feedback_unix_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * NSEC_PER_SEC + (uint64_t)t.tv_nsec;
}

static bool feedback_read(struct feedback *f, const struct llmkit_header *headers, size_t count,
	const char *error_body)
{
	*f = FEEDBACK_NULL;
	for (size_t i = 0; i < count; i++) {
		if (!headers[i].name || !headers[i].value)
			return false;
		feedback_header(f, str_of(headers[i].name), str_of(headers[i].value));
	}
	feedback_finish(f, str_of(error_body), feedback_unix_ns());
	return true;
}

/* How long nobody should send; 0: the answer does not ask for it. */
static uint64_t feedback_wait(
	struct llmkit_limits *limits, unsigned status, const struct feedback *f, uint64_t now_ns)
{
	unsigned limited;

	if (status >= 200 && status < 300)
		atomic_store_explicit(&limits->limited, 0, memory_order_relaxed);
	if (status != HTTP_LIMITED &&
		!((status == HTTP_UNAVAILABLE || status == HTTP_OVERLOADED) && f->has_retry_after))
		return 0;
	limited = atomic_fetch_add_explicit(&limits->limited, 1, memory_order_relaxed);
	return feedback_pause_ns(f, limited < LIMITED_MAX ? limited : LIMITED_MAX,
		kit_random(now_ns ^ (uintptr_t)limits));
}

static bool feedback_axis(enum bucket_resource resource, enum feedback_axis *axis)
{
	switch (resource) {
	case BUCKET_REQUESTS:
		*axis = FEEDBACK_REQUESTS;
		return true;
	case BUCKET_INPUT_TOKENS:
		*axis = FEEDBACK_INPUT_TOKENS;
		return true;
	case BUCKET_OUTPUT_TOKENS:
		*axis = FEEDBACK_OUTPUT_TOKENS;
		return true;
	case BUCKET_TOKENS:
		*axis = FEEDBACK_TOKENS;
		return true;
	default:
		return false;
	}
}

/* Which of the answer's windows a limit is compared with, and how long that window is. */
static enum feedback_window feedback_window(uint64_t window_ns, uint64_t *exact_ns)
{
	if (window_ns <= HOUR_NS) {
		*exact_ns = MINUTE_NS;
		return FEEDBACK_MINUTE;
	}
	*exact_ns = DAY_NS;
	if (window_ns <= 7 * DAY_NS)
		return FEEDBACK_DAY;
	*exact_ns = window_ns;
	return FEEDBACK_MONTH;
}

/* What the answer says of one limit, which is followed as in the daemon. */
static void feedback_apply(const struct region *region, const struct bucket_set *set, uint32_t i,
	const struct feedback *f, uint64_t now_ns)
{
	struct bucket_set one = { .count = 1,
		.index = { set->index[i] },
		.key = { set->key[i] },
		.resource = { set->resource[i] } };
	const struct feedback_level *level;
	struct bucket_view view;
	enum feedback_axis axis;
	uint64_t exact_ns;

	if (!feedback_axis(set->resource[i], &axis) ||
		!bucket_view(region, set->index[i], now_ns, &view))
		return;
	level = &f->level[feedback_window(view.window_ns, &exact_ns)][axis];
	bucket_follow(region, &one, set->resource[i], exact_ns,
		level->has_limit ? level->limit : BUCKET_FOLLOW_UNSAID,
		level->has_remaining ? level->remaining : BUCKET_FOLLOW_UNSAID, now_ns);
}

/* For all processes of the host: limits, and the target itself, which may have none. */
static void feedback_pause(const struct llmkit_limits *limits, const struct resolved *s,
	uint64_t until_ns, uint64_t now_ns)
{
	const struct region *region = &s->mapping->region;
	const char *provider = limits->scope.provider, *model = limits->scope.model;
	char name[TARGET_NAME_TEXT];

	bucket_pause_set(region, &s->set, until_ns, now_ns);
	if (provider && model &&
		snprintf(name, sizeof(name), "%s/%s", provider, model) < (int)sizeof(name))
		target_pause(region, target_find(region, str_of(name), NULL), until_ns, now_ns);
}

int llmkit_feedback(llmkit_limits *limits, unsigned http_status,
	const struct llmkit_header *headers, size_t count, const char *error_body,
	uint64_t *wait_ns)
{
	struct resolved *s;
	struct feedback f;
	uint64_t now, wait;
	int r;

	if (!limits || (count > 0 && !headers) || !feedback_read(&f, headers, count, error_body))
		return LLMKIT_E_ARGUMENT;
	limits_check_fork(limits);
	r = limits_current(limits, &s, &now);
	if (r < 0)
		return r;
	wait = feedback_wait(limits, http_status, &f, now);
	for (uint32_t i = 0; i < s->set.count; i++)
		feedback_apply(&s->mapping->region, &s->set, i, &f, now);
	if (wait > 0)
		feedback_pause(limits, s, now + wait, now);
	if (wait_ns)
		*wait_ns = wait;
	return LLMKIT_OK;
}

uint64_t llmkit_estimate_tokens(size_t bytes)
{
	return estimate_input(bytes);
}
