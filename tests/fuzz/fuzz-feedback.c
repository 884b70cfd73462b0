/*
 * An answer's headers as "name: value" lines, a blank line, its body; the last byte says what time
 * it is. Nothing leaves its clamps, and the headers mean the same backwards and said twice.
 */

#include "tests/fuzz/fuzz.h"

#include <string.h>
#include "proto/feedback.h"

#define NOW (UINT64_C(1755780000) * NSEC_PER_SEC)
#define LINES_MAX 64

static const char *const examples[] = {
	/* OpenAI */
	"x-ratelimit-limit-requests: 60\nx-ratelimit-remaining-requests: 59\n"
	"x-ratelimit-reset-requests: 1s\nx-ratelimit-limit-tokens: 150000\n"
	"x-ratelimit-remaining-tokens: 0\nx-ratelimit-reset-tokens: 6m0s\nx-should-retry: true\n"
	"retry-after-ms: 120\n\n{\"error\":{\"message\":\"Please try again in 6.2s.\"}}",
	"date: Thu, 21 Aug 2025 12:40:00 GMT\nx-ratelimit-limit-project-tokens: 10\n"
	"x-ratelimit-reset-project-requests: 2m59.56s\n\n",
	/* Anthropic */
	"Date: Thursday, 21-Aug-25 12:40:00 GMT\nanthropic-ratelimit-requests-limit: 50\n"
	"anthropic-ratelimit-tokens-remaining: 0\nretry-after: 17\n"
	"anthropic-ratelimit-input-tokens-reset: 2025-08-21T12:40:59Z\n"
	"anthropic-ratelimit-output-tokens-reset: 2024-02-29T12:40:59.25+05:30\n\n",
	/* Groq, Cerebras, Mistral */
	"x-ratelimit-limit-requests: 14400\nx-ratelimit-remaining-requests: 14370\n"
	"x-ratelimit-reset-requests: 2m59.56s\nretry-after: 7.66\n\ntry again in 1m2s",
	"x-ratelimit-limit-requests-day: 14400\n"
	"x-ratelimit-reset-tokens-minute: 11.382867097854614\n"
	"x-ratelimitbysize-remaining-month: 5\nratelimitbysize-reset: 40\n"
	"x-ratelimit-limit-req-minute: 60\nx-ratelimit-remaining-tokens-month: 0\n\n",
	/* Azure */
	"retry-after: 1\nretry-after-ms: 0\nx-ms-retry-after-ms: 2500\n"
	"x-ratelimit-remaining-tokens: -1\nx-ratelimit-renewalperiod-tokens: 60\n\n"
	"{\"error\":{\"message\":\"Please retry after 86400 seconds.\"}}",
	/* OpenRouter, Together, Fireworks */
	"X-RateLimit-Limit: 20\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1755780040500\n"
	"x-tokenlimit-reset: 1755780040\nx-ratelimit-limit-tokens-prompt: 5e3\n"
	"x-ratelimit-limit-tokens-generated: 9\n\n",
	/* Gemini */
	"Date: Thu Aug 21 12:40:00 2025\n\n[{\"error\":{\"details\":["
	"{\"retryDelay\": \"600.5s\"}]}}]",
	/* The IETF draft */
	"RateLimit: limit=100, remaining=50, reset=30\nRateLimit-Policy: 100;w=86400, 10;w=1\n"
	"RateLimit-Limit: 10, 10;w=1\nRateLimit-Remaining: 4\nRateLimit-Reset: 30\n\n",
	"RateLimit: \"default\";r=50;t=30, \"d\\\"x\";r=700;t=4000;pk=:AA==:\n"
	"RateLimit-Policy: \"default\";q=100;w=60, tokens;q=1000;w=86400, c;q=5;qu=\"tokens\"\n\n",
};

bool fuzz_example(unsigned n, struct buffer *out)
{
	return n < ARRAY_SIZE(examples) && buffer_append_str(out, str_of(examples[n])) == 0;
}

struct line {
	struct str name, value;
};

/* Cuts the text at its first blank line; the rest is the body. */
static size_t split(struct str *text, struct line *lines)
{
	size_t count = 0;

	while (count < LINES_MAX && text->length > 0) {
		const char *end = memchr(text->data, '\n', text->length);
		size_t n = end ? (size_t)(end - text->data) : text->length;
		const char *colon = memchr(text->data, ':', n);
		struct line *l = &lines[count++];

		l->name = str_make(text->data, colon ? (size_t)(colon - text->data) : n);
		l->value = colon ? str_make(colon + 1, n - l->name.length - 1) : STR_NULL;
		*text = str_make(text->data + n + !!end, text->length - n - !!end);
		if (n == 0)
			break;
	}
	return count;
}

static void check_clamps(const struct feedback *f)
{
	uint64_t pause = feedback_pause_ns(f, f->ignored, f->retry_after_ns);

	FUZZ_CHECK(pause >= FEEDBACK_PAUSE_MIN_NS && pause <= FEEDBACK_PAUSE_MAX_NS);
	FUZZ_CHECK(f->retry_after_ns <= FEEDBACK_RESET_MAX_NS);
	FUZZ_CHECK(f->has_retry_after || f->retry_after_ns == 0);
	FUZZ_CHECK(f->should_retry >= -1 && f->should_retry <= 1);
	for (unsigned i = 0; i < FEEDBACK_WINDOWS * FEEDBACK_AXES; i++) {
		const struct feedback_level *l = &f->level[i / FEEDBACK_AXES][i % FEEDBACK_AXES];

		FUZZ_CHECK(!l->has_limit || (l->limit > 0 && l->limit <= FEEDBACK_LIMIT_MAX));
		FUZZ_CHECK(l->remaining <= FEEDBACK_LIMIT_MAX);
		FUZZ_CHECK(!l->has_limit || !l->has_remaining || l->remaining <= l->limit);
		FUZZ_CHECK(l->reset_ns <= FEEDBACK_RESET_MAX_NS);
		FUZZ_CHECK(l->renewal_ns <= FEEDBACK_RESET_MAX_NS);
	}
}

static void check_same(const struct feedback *a, const struct feedback *b)
{
	FUZZ_CHECK(a->has_retry_after == b->has_retry_after);
	FUZZ_CHECK(a->retry_after_ns == b->retry_after_ns);
	FUZZ_CHECK(a->should_retry == b->should_retry);
	FUZZ_CHECK(a->has_date == b->has_date && a->date_unix_ns == b->date_unix_ns);
	for (unsigned i = 0; i < FEEDBACK_WINDOWS * FEEDBACK_AXES; i++) {
		const struct feedback_level *l = &a->level[i / FEEDBACK_AXES][i % FEEDBACK_AXES];
		const struct feedback_level *m = &b->level[i / FEEDBACK_AXES][i % FEEDBACK_AXES];

		FUZZ_CHECK(l->has_limit == m->has_limit && l->limit == m->limit);
		FUZZ_CHECK(l->has_remaining == m->has_remaining && l->remaining == m->remaining);
		FUZZ_CHECK(l->has_reset == m->has_reset && l->reset_ns == m->reset_ns);
		FUZZ_CHECK(l->renewal_ns == m->renewal_ns);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct feedback f = FEEDBACK_NULL, backwards = FEEDBACK_NULL;
	struct str text = str_make(data, size);
	struct line lines[LINES_MAX];
	size_t count = split(&text, lines);
	uint64_t now = size > 0 ? NOW + (data[size - 1] - UINT64_C(128)) * NSEC_PER_SEC : 0;
	uint64_t ns = 0;

	for (size_t i = 0; i < count; i++) {
		feedback_header(&f, lines[i].name, lines[i].value);
		feedback_header(&backwards, lines[count - 1 - i].name, lines[count - 1 - i].value);
		if (feedback_parse_reset(lines[i].value, now, &ns))
			FUZZ_CHECK(ns <= FEEDBACK_RESET_MAX_NS);
	}
	feedback_finish(&f, text, now);
	for (size_t i = 0; i < count; i++)
		feedback_header(&backwards, lines[i].name, lines[i].value);
	feedback_finish(&backwards, text, now);
	check_clamps(&f);
	check_same(&f, &backwards);
	return 0;
}
