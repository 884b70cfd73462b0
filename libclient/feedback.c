#include "proto/feedback.h"
#include <stdio.h>
#include "base/clock.h"
#include "libclient/resolved.h"
#include "shm/bucket_follow.h"
#include "shm/estimate.h"
#include "shm/target.h"

#define HTTP_LIMITED 429
#define HTTP_UNAVAILABLE 503
#define HTTP_OVERLOADED 529

static bool feedback_read(struct feedback *f, const struct llmkit_header *headers, size_t count,
	const char *error_body)
{
	*f = FEEDBACK_NULL;
	for (size_t i = 0; i < count; i++) {
		if (!headers[i].name || !headers[i].value)
			return false;
		feedback_header(f, str_of(headers[i].name), str_of(headers[i].value));
	}
	feedback_finish(f, str_of(error_body), clock_unix_ns());
	return true;
}

static bool feedback_asks_to_wait(unsigned status, const struct feedback *f)
{
	return status == HTTP_LIMITED ||
		((status == HTTP_UNAVAILABLE || status == HTTP_OVERLOADED) && f->has_retry_after);
}

/* The scope's target, or its provider where the target has no row. */
static uint32_t feedback_target(const struct region *region, const struct scope_copy *scope)
{
	char name[TARGET_NAME_TEXT];
	uint32_t row = TARGET_NONE;

	if (!scope->provider)
		return TARGET_NONE;
	if (scope->model &&
		snprintf(name, sizeof(name), "%s/%s", scope->provider, scope->model) <
			(int)sizeof(name))
		row = target_find(region, str_of(name), NULL);
	return row != TARGET_NONE ? row : target_find(region, str_of(scope->provider), NULL);
}

static_assert((int)FEEDBACK_REQUESTS == BUCKET_REQUESTS &&
		(int)FEEDBACK_INPUT_TOKENS == BUCKET_INPUT_TOKENS &&
		(int)FEEDBACK_OUTPUT_TOKENS == BUCKET_OUTPUT_TOKENS &&
		(int)FEEDBACK_TOKENS == BUCKET_TOKENS &&
		(int)FEEDBACK_MINUTE == BUCKET_SPAN_MINUTE &&
		(int)FEEDBACK_DAY == BUCKET_SPAN_DAY && (int)FEEDBACK_MONTH == BUCKET_SPAN_MONTH,
	"proto/feedback.h and shm/bucket_follow.h count alike");
static_assert((int)FEEDBACK_AXES == BUCKET_FOLLOW_RESOURCES &&
		(int)FEEDBACK_WINDOWS == BUCKET_SPANS && FEEDBACK_NOT_SAID == BUCKET_FOLLOW_UNSAID,
	"the levels of an answer are as bucket_follow_all() wants them; in the daemon, too");

/* For all processes of the host: how long nobody should send; 0: the answer does not ask for it. */
static uint64_t feedback_pause(const struct llmkit_limits *limits, const struct resolved *s,
	unsigned status, const struct feedback *f, uint64_t now_ns)
{
	const struct region *region = &s->mapping->region;
	uint32_t target = feedback_target(region, &limits->scope);
	uint64_t wait_ns;

	if (status >= 200 && status < 300)
		target_accepted(region, target);
	if (!feedback_asks_to_wait(status, f))
		return 0;
	wait_ns = feedback_pause_ns(
		f, target_refused(region, target, now_ns), kit_random(now_ns ^ (uintptr_t)limits));
	target_pause(region, target, now_ns + wait_ns, now_ns);
	bucket_pause_set(region, &s->set, now_ns + wait_ns, now_ns);
	return wait_ns;
}

int llmkit_feedback(llmkit_limits *limits, unsigned http_status,
	const struct llmkit_header *headers, size_t count, const char *error_body,
	uint64_t *wait_ns)
{
	uint64_t limit[FEEDBACK_WINDOWS][FEEDBACK_AXES], remaining[FEEDBACK_WINDOWS][FEEDBACK_AXES];
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
	feedback_levels(&f, limit, remaining);
	bucket_follow_all(&s->mapping->region, &s->set, limit, remaining, now);
	wait = feedback_pause(limits, s, http_status, &f, now);
	if (wait_ns)
		*wait_ns = wait;
	return LLMKIT_OK;
}

uint64_t llmkit_estimate_tokens(size_t bytes)
{
	return estimate_input(bytes);
}
