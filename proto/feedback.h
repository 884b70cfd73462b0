#pragma once

/*
 * What a provider's answer says about its limits: status, headers and error text become numbers.
 * One parser for all providers, by tables (proto/tbl/feedback.h); no I/O, no clock. Everything is
 * clamped; what makes no sense is ignored and counted, never guessed at.
 *
 * Known: OpenAI and its family, Anthropic, Groq, Azure and GitHub Models, Mistral, Cerebras,
 * OpenRouter, Together, Fireworks, the IETF draft (RateLimit, RateLimit-Policy), Retry-After in
 * seconds, in milliseconds, as a date; Gemini's RetryInfo and the "try again in" of error texts.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"
#include "base/str.h"

/* In the order of enum bucket_resource. */
enum feedback_axis {
	FEEDBACK_REQUESTS,
	FEEDBACK_INPUT_TOKENS,
	FEEDBACK_OUTPUT_TOKENS,
	FEEDBACK_TOKENS,
	FEEDBACK_AXES,
};

/*
 * A header that names no window tells of a minute, unless its reset is further away than a minute
 * can need to be whole: of a day then. (Groq's and OpenAI's small tiers count requests per day
 * under the names that others use for a minute. With a nearer reset next to nothing of a day is
 * used, so that taking it for a minute does no harm.)
 */
enum feedback_window {
	FEEDBACK_MINUTE,
	FEEDBACK_DAY,
	FEEDBACK_MONTH,
	FEEDBACK_WINDOWS,
};

#define FEEDBACK_LIMIT_MAX UINT64_C(1000000000000)
#define FEEDBACK_RESET_MAX_NS NSEC_PER_DAY
#define FEEDBACK_PAUSE_MIN_NS (UINT64_C(100) * 1000000)
#define FEEDBACK_PAUSE_MAX_NS (UINT64_C(600) * 1000000000)

/* One axis of one window. Said twice: the least limit, the least remaining, the latest reset. */
struct feedback_level {
	bool has_limit, has_remaining, has_reset;
	uint64_t limit, remaining; /* units; remaining <= limit when both are there */
	uint64_t reset_ns;         /* from now until it is whole again; at most a day */
	uint64_t renewal_ns;       /* Azure's x-ratelimit-renewalperiod-*; 0: not said */
	uint64_t reset_unix_ns;    /* feedback.c's own, 0 after feedback_finish() */
};

/* A policy of the IETF draft whose parts come in two headers; feedback.c's own. */
#define FEEDBACK_POLICIES 4
struct feedback_policy {
	uint64_t key; /* of its name */
	struct feedback_level level;
	uint64_t window_s;
	unsigned axis;
};

/* To be read after feedback_finish(). */
struct feedback {
	struct feedback_level level[FEEDBACK_WINDOWS][FEEDBACK_AXES];
	bool has_retry_after;
	uint64_t retry_after_ns; /* as asked for, not clamped to a pause; at most a day */
	int should_retry;        /* x-should-retry: 1, 0; -1 not said */
	unsigned ignored;        /* values that made no sense */
	bool has_date;           /* the Date header was valid */
	uint64_t date_unix_ns;
	/* feedback.c's own: what waits for the other headers. */
	struct feedback_level unsaid[FEEDBACK_AXES]; /* no window named */
	struct feedback_policy policy[FEEDBACK_POLICIES];
	unsigned policies;
	unsigned retry_rank; /* which header gave retry_after_ns */
	uint64_t retry_unix_ns;
};

#define FEEDBACK_NULL ((struct feedback){ .should_retry = -1 })

/*
 * One header of an answer; in any order, names in any case, also more than once. A header that says
 * nothing about limits is skipped. Any bytes; nothing of them is kept.
 */
void feedback_header(struct feedback *f, struct str name, struct str value);

/*
 * After the last header, once. body: the error's body as far as it arrived (RetryInfo, "try again
 * in 6.2s"), or empty. Dates and epochs count from the answer's own Date header, since it is the
 * provider's clock that they follow; without one from unix_ns, the wall-clock time of arrival.
 */
void feedback_finish(struct feedback *f, struct str body, uint64_t unix_ns);

/* Limits and remaining units of all windows and axes; NOT_SAID where the answer said nothing. */
#define FEEDBACK_NOT_SAID UINT64_MAX
static inline void feedback_levels(const struct feedback *f,
	uint64_t limit[FEEDBACK_WINDOWS][FEEDBACK_AXES],
	uint64_t remaining[FEEDBACK_WINDOWS][FEEDBACK_AXES])
{
	for (int w = 0; w < FEEDBACK_WINDOWS; w++)
		for (int axis = 0; axis < FEEDBACK_AXES; axis++) {
			const struct feedback_level *l = &f->level[w][axis];

			limit[w][axis] = l->has_limit ? l->limit : FEEDBACK_NOT_SAID;
			remaining[w][axis] = l->has_remaining ? l->remaining : FEEDBACK_NOT_SAID;
		}
}

/*
 * How long nobody should send after a 429 (or 503, 529 with Retry-After): what Retry-After says,
 * but at least the reset of an axis with nothing remaining that names its renewal period (Azure,
 * whose Retry-After is too short); without Retry-After the longest reset of an axis with nothing
 * remaining; within [FEEDBACK_PAUSE_MIN_NS, FEEDBACK_PAUSE_MAX_NS]. Without any hint: equal
 * jitter of an exponential, attempt counting from 0 (d/2 + random below d/2, d = 1 s * 2^attempt,
 * at most 60 s).
 */
uint64_t feedback_pause_ns(const struct feedback *f, unsigned attempt, uint64_t random);

/* A value as headers have them: "1s", "6m0s", "120ms", "2m59.56s", "7.66", epoch seconds (above
 * 1e9) or milliseconds (above 1e12), RFC 3339, an HTTP date. *ns: from unix_ns on; 0 when it has
 * passed; at most a day. */
bool feedback_parse_reset(struct str text, uint64_t unix_ns, uint64_t *ns);
