#pragma once

/* What tests of streams share: a small daemon without limits, and what is expected of an answer. */

#include "tests/unit/mini-fixture.h"

static inline int start(void **state)
{
	(void)state;
	mini_init(&mini);
	mini_start(&mini, PARTICIPANT);
	return mini_open(&mini, &kit);
}

static inline llmkit_stream *submit(const char *model)
{
	llmkit_request *request = llmkit_request_new(model);
	llmkit_stream *stream = NULL;

	assert_non_null(request);
	assert_int_equal(llmkit_request_add_message(request, "user", "hello"), 0);
	assert_int_equal(llmkit_submit(kit, request, &stream), 0);
	llmkit_request_free(request);
	return stream;
}

static inline struct llmkit_event next(llmkit_stream *stream, enum llmkit_event_type type)
{
	struct llmkit_event event = { 0 };

	assert_int_equal(llmkit_stream_next(stream, WAIT_MS, &event), 0);
	assert_int_equal(event.type, type);
	return event;
}

static inline void expect_failure(llmkit_stream *stream, int code)
{
	struct llmkit_event event = next(stream, LLMKIT_EVENT_ERROR);

	assert_int_equal(event.error.code, code);
	assert_true(strlen(event.error.message) > 10);
	assert_string_equal(event.error.limit, "");
	assert_int_equal(llmkit_stream_next(stream, 0, &event), LLMKIT_E_ENDED);
	llmkit_stream_close(stream);
}

/* All numbers in order, then END. */
static inline void expect_count(llmkit_stream *stream, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct llmkit_event event = next(stream, LLMKIT_EVENT_TEXT);

		assert_int_equal(atoi(event.text.data), i);
	}
	next(stream, LLMKIT_EVENT_END);
	llmkit_stream_close(stream);
}

/* A thread that is told of the daemon's end by its stream. */
static inline void *wait_for_the_loss(void *arg)
{
	llmkit_stream *stream = arg;
	struct llmkit_event event;

	next(stream, LLMKIT_EVENT_START);
	/* Without a timeout, which would find the loss as well when it ends. */
	assert_int_equal(llmkit_stream_next(stream, -1, &event), 0);
	assert_int_equal(event.type, LLMKIT_EVENT_ERROR);
	assert_int_equal(event.error.code, LLMKIT_E_DAEMON_LOST);
	llmkit_stream_close(stream);
	return NULL;
}
