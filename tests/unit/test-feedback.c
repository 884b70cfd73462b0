#include "proto/feedback.h"
#include "base/aux.h"
#include "base/buffer.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/splitmix.h"

#include <stdio.h>

#define S NSEC_PER_SEC
#define MS NSEC_PER_MSEC
/* 2025-08-21T12:40:00Z */
#define NOW (UINT64_C(1755780000) * S)
#define DATE "Date: Thu, 21 Aug 2025 12:40:00 GMT\n"

static void add_time(struct buffer *b, const char *before, uint64_t ns)
{
	size_t end;

	assert_int_equal(buffer_printf(b, "%s%lu.%09lu", before, (unsigned long)(ns / S),
				 (unsigned long)(ns % S)),
		0);
	for (end = b->end; b->data[end - 1] == '0'; end--)
		;
	b->end = b->data[end - 1] == '.' ? end - 1 : end;
}

static void add_level(struct buffer *b, const struct feedback_level *l, unsigned w, unsigned a)
{
	static const char *const windows[] = { "minute", "day", "month" };
	static const char *const axes[] = { "requests", "input", "output", "tokens" };

	if (!l->has_limit && !l->has_remaining && !l->has_reset && !l->renewal_ns)
		return;
	assert_int_equal(
		buffer_printf(b, "%s%s/%s ", buffer_length(b) ? "; " : "", axes[a], windows[w]), 0);
	if (l->has_limit)
		assert_int_equal(buffer_printf(b, "%lu", (unsigned long)l->limit), 0);
	assert_int_equal(buffer_append(b, ":", 1), 0);
	if (l->has_remaining)
		assert_int_equal(buffer_printf(b, "%lu", (unsigned long)l->remaining), 0);
	assert_int_equal(buffer_append(b, ":", 1), 0);
	if (l->has_reset)
		add_time(b, "", l->reset_ns);
	if (l->renewal_ns)
		add_time(b, " every ", l->renewal_ns);
}

/* All that was understood, as text: "requests/minute limit:remaining:reset; retry 7". */
static void describe(const struct feedback *f, struct buffer *b)
{
	for (unsigned w = 0; w < FEEDBACK_WINDOWS; w++)
		for (unsigned a = 0; a < FEEDBACK_AXES; a++)
			add_level(b, &f->level[w][a], w, a);
	if (f->has_retry_after)
		add_time(b, buffer_length(b) ? "; retry " : "retry ", f->retry_after_ns);
	if (f->should_retry >= 0)
		assert_int_equal(buffer_printf(b, "; should %d", f->should_retry), 0);
	assert_int_equal(buffer_append(b, "", 1), 0);
}

/* "Name: value" lines. */
static void feed(struct feedback *f, const char *lines)
{
	while (*lines) {
		size_t n = strcspn(lines, "\n"), name = strcspn(lines, ":");

		assert_true(name < n);
		feedback_header(f, str_make(lines, name), str_make(lines + name + 1, n - name - 1));
		lines += n + (lines[n] == '\n');
	}
}

struct row {
	const char *name, *headers, *body, *want;
	unsigned ignored;
	uint64_t pause_ns; /* 0: not looked at */
};

/* Whole answers, as documents and users' reports give them. */
static const struct row providers[] = {
	{ "OpenAI, documented",
		DATE
		"Content-Type: application/json\nopenai-processing-ms: 320\nx-request-id: req_1\n"
		"x-ratelimit-limit-requests: 60\nx-ratelimit-limit-tokens: 150000\n"
		"x-ratelimit-remaining-requests: 59\nx-ratelimit-remaining-tokens: 149984\n"
		"x-ratelimit-reset-requests: 1s\nx-ratelimit-reset-tokens: 6ms\n",
		"", "requests/minute 60:59:1; tokens/minute 150000:149984:0.006", 0, 0 },
	{ "OpenAI, 429 of tokens",
		DATE "retry-after: 6\nretry-after-ms: 5840\nx-should-retry: true\n"
		     "x-ratelimit-limit-requests: 500\nx-ratelimit-limit-tokens: 30000\n"
		     "x-ratelimit-remaining-requests: 499\nx-ratelimit-remaining-tokens: 80\n"
		     "x-ratelimit-reset-requests: 120ms\nx-ratelimit-reset-tokens: 59.84s\n",
		"{\"error\":{\"message\":\"Rate limit reached for gpt-4o in organization org-x on "
		"tokens per min (TPM): Limit 30000, Used 29920, Requested 3000. Please try "
		"again in 5.84s. "
		"Visit https://platform.openai.com/account/rate-limits to learn more.\","
		"\"type\":\"tokens\",\"param\":null,\"code\":\"rate_limit_exceeded\"}}",
		"requests/minute 500:499:0.12; tokens/minute 30000:80:59.84; retry 5.84; should 1",
		0, 5840 * MS },
	{ "OpenAI, a tier of requests per day",
		"x-ratelimit-limit-requests: 200\nx-ratelimit-remaining-requests: 0\n"
		"x-ratelimit-reset-requests: 23h59m59.5s\nx-ratelimit-limit-tokens: 40000\n"
		"x-ratelimit-remaining-tokens: 39000\nx-ratelimit-reset-tokens: 1.5s\n",
		"", "tokens/minute 40000:39000:1.5; requests/day 200:0:86399.5", 0, 600 * S },
	{ "OpenAI, a project's share",
		"x-ratelimit-limit-tokens: 150000\nx-ratelimit-limit-project-tokens: 50000\n"
		"x-ratelimit-remaining-tokens: 149000\nx-ratelimit-remaining-project-tokens: 100\n"
		"x-ratelimit-reset-tokens: 1s\nx-ratelimit-reset-project-tokens: 59.88s\n",
		"", "tokens/minute 50000:100:59.88", 0, 0 },
	{ "OpenAI, quota is gone", "x-should-retry: false\n",
		"{\"error\":{\"message\":\"You exceeded your current quota, please check your plan "
		"and billing details.\",\"type\":\"insufficient_quota\","
		"\"code\":\"insufficient_quota\"}}",
		"; should 0", 0, 500 * MS },
	{ "Anthropic, good",
		DATE "anthropic-ratelimit-requests-limit: 50\n"
		     "anthropic-ratelimit-requests-remaining: 49\n"
		     "anthropic-ratelimit-requests-reset: 2025-08-21T12:40:01Z\n"
		     "anthropic-ratelimit-input-tokens-limit: 30000\n"
		     "anthropic-ratelimit-input-tokens-remaining: 28000\n"
		     "anthropic-ratelimit-input-tokens-reset: 2025-08-21T12:40:04Z\n"
		     "anthropic-ratelimit-output-tokens-limit: 8000\n"
		     "anthropic-ratelimit-output-tokens-remaining: 8000\n"
		     "anthropic-ratelimit-output-tokens-reset: 2025-08-21T12:40:00Z\n"
		     "anthropic-ratelimit-tokens-limit: 38000\n"
		     "anthropic-ratelimit-tokens-remaining: 36000\n"
		     "anthropic-ratelimit-tokens-reset: 2025-08-21T12:40:00Z\n"
		     "request-id: req_011\nanthropic-organization-id: o\n",
		"",
		"requests/minute 50:49:1; input/minute 30000:28000:4; output/minute 8000:8000:0; "
		"tokens/minute 38000:36000:0",
		0, 0 },
	{ "Anthropic, 429 and the priority tier",
		DATE "retry-after: 17\nanthropic-ratelimit-input-tokens-limit: 30000\n"
		     "anthropic-ratelimit-input-tokens-remaining: 0\n"
		     "anthropic-ratelimit-input-tokens-reset: 2025-08-21T12:41:30Z\n"
		     "anthropic-priority-input-tokens-limit: 10000\n"
		     "anthropic-priority-input-tokens-remaining: 0\n"
		     "anthropic-priority-input-tokens-reset: 2025-08-21T13:40:59Z\n",
		"{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\",\"message\":\"This "
		"request would exceed your organization's rate limit of 30,000 input tokens per "
		"minute.\"},\"request_id\":\"req_011\"}",
		"input/minute 30000:0:90; retry 17", 0, 17 * S },
	{ "Groq, fresh",
		"x-ratelimit-limit-requests: 14400\nx-ratelimit-limit-tokens: 18000\n"
		"x-ratelimit-remaining-requests: 14370\nx-ratelimit-remaining-tokens: 17997\n"
		"x-ratelimit-reset-requests: 2m59.56s\nx-ratelimit-reset-tokens: 7.66s\n"
		"x-groq-region: fra\n",
		"", "tokens/minute 18000:17997:7.66; requests/day 14400:14370:179.56", 0, 0 },
	{ "Groq, 429",
		"retry-after: 7.66\nx-ratelimit-limit-requests: 14400\n"
		"x-ratelimit-remaining-requests: 14390\nx-ratelimit-reset-requests: 60s\n"
		"x-ratelimit-limit-tokens: 18000\nx-ratelimit-remaining-tokens: 0\n"
		"x-ratelimit-reset-tokens: 12.4s\n",
		"{\"error\":{\"message\":\"Rate limit reached for model `llama` in organization "
		"`org` service tier `on_demand` on tokens per minute (TPM): Limit 18000, Used "
		"17990, Requested 2300. Please try again in 7.66s. Need more tokens?\","
		"\"type\":\"tokens\","
		"\"code\":\"rate_limit_exceeded\"}}",
		"requests/minute 14400:14390:60; tokens/minute 18000:0:12.4; retry 7.66", 0,
		7660 * MS },
	{ "Groq, the day is used up", "retry-after: 1234\n",
		"{\"error\":{\"message\":\"Please try again in 20m34.4s.\"}}", "retry 1234.4", 0,
		600 * S },
	{ "Azure, the 429 that lies",
		DATE "retry-after: 1\nretry-after-ms: 0\nx-ratelimit-remaining-requests: 9\n"
		     "x-ratelimit-remaining-tokens: 0\nx-ratelimit-renewalperiod-requests: 10\n"
		     "x-ratelimit-renewalperiod-tokens: 60\nx-ms-region: Sweden Central\n",
		"{\"error\":{\"code\":\"429\",\"message\":\"Requests to the ChatCompletions_Create "
		"Operation have exceeded token rate limit. Please retry after 1 second.\"}}",
		"requests/minute :9: every 10; tokens/minute :0: every 60; retry 1", 1, 60 * S },
	{ "Azure, only requests are short",
		"x-ms-retry-after-ms: 2500\nretry-after: 3\nx-ratelimit-remaining-requests: 0\n"
		"x-ratelimit-remaining-tokens: 900\nx-ratelimit-renewalperiod-requests: 10\n"
		"x-ratelimit-renewalperiod-tokens: 60\nx-ratelimit-reset-requests: 7\n",
		"", "requests/minute :0:7 every 10; tokens/minute :900: every 60; retry 2.5", 0,
		10 * S },
	{ "Azure, -1 and 0",
		"x-ratelimit-limit-requests: -1\nx-ratelimit-remaining-requests: -1\n"
		"x-ratelimit-limit-tokens: 0\nx-ratelimit-remaining-tokens: -1\n"
		"x-ratelimit-reset-tokens: 0\n",
		"", "tokens/minute ::0", 4, 500 * MS },
	{ "Azure, a long text", "Retry-After: 20\n",
		"{\"error\":{\"code\":\"429\",\"message\":\"Your requests to gpt-4o have "
		"exceeded call rate limit of your current OpenAI S0 pricing tier. "
		"Please retry after 86400 "
		"seconds.\"}}",
		"retry 86400", 0, 600 * S },
	{ "GitHub Models",
		"retry-after: 42\nx-ratelimit-limit-requests: 15\n"
		"x-ratelimit-remaining-requests: 0\n"
		"x-ratelimit-renewalperiod-requests: 60\nx-ratelimit-type: UserByModelByMinute\n"
		"x-ratelimit-key: u\nx-ratelimit-timeremaining: 42\n",
		"", "requests/minute 15:0: every 60; retry 42", 0, 60 * S },
	{ "Gemini", DATE "Server-Timing: gfet4t7; dur=120\n",
		"{\n  \"error\": {\n    \"code\": 429,\n    \"message\": \"You exceeded your "
		"current quota.\\nPlease retry in 37.9s.\",\n    "
		"\"status\": \"RESOURCE_EXHAUSTED\",\n    "
		"\"details\": [\n      {\n        \"@type\": "
		"\"type.googleapis.com/google.rpc.RetryInfo\",\n        "
		"\"retryDelay\": \"38s\"\n      }\n    ]\n  }\n}\n",
		"retry 38", 0, 38 * S },
	{ "Vertex, in an array", "",
		"[{\"error\":{\"code\":429,\"details\":[{\"@type\":\"type.googleapis.com/"
		"google.rpc.RetryInfo\",\"retryDelay\":\"600.5s\"}]}}]",
		"retry 600.5", 0, 600 * S },
	{ "Gemini, cut in the middle", "",
		"{\"error\":{\"details\":[{\"retryDelay\": \"12s\"},{\"retryDelay\": \"3",
		"retry 12", 0, 12 * S },
	{ "Gemini behind OpenRouter", "retry-after: 3\n",
		"{\"error\":{\"code\":429,"
		"\"metadata\":{\"raw\":\"{\\\"error\\\":{\\\"details\\\":[{"
		"\\\"retryDelay\\\": \\\"19s\\\"}]}}\",\"provider_name\":\"Google\"}}}",
		"retry 19", 0, 19 * S },
	{ "Mistral, by size",
		"x-ratelimitbysize-limit-minute: 500000\n"
		"x-ratelimitbysize-remaining-minute: 467993\n"
		"x-ratelimitbysize-limit-month: 1000000000\n"
		"x-ratelimitbysize-remaining-month: 999967993\n"
		"ratelimitbysize-limit: 500000\nratelimitbysize-remaining: 467993\n"
		"ratelimitbysize-reset: 40\nratelimitbysize-query-cost: 32007\n",
		"", "tokens/minute 500000:467993:40; tokens/month 1000000000:999967993:", 0, 0 },
	{ "Mistral, newer",
		"x-ratelimit-limit-tokens-minute: 500000\nx-ratelimit-remaining-tokens-minute: 0\n"
		"x-ratelimit-limit-req-minute: 60\nx-ratelimit-remaining-req-minute: 59\n"
		"x-ratelimit-limit-tokens-month: 1000000000\n"
		"x-ratelimit-remaining-tokens-month: 5\n",
		"{\"message\":\"Requests rate limit exceeded\"}",
		"requests/minute 60:59:; tokens/minute 500000:0:; tokens/month 1000000000:5:", 0,
		500 * MS },
	{ "Cerebras",
		"x-ratelimit-limit-requests-day: 14400\nx-ratelimit-limit-tokens-minute: 60000\n"
		"x-ratelimit-remaining-requests-day: 14399\n"
		"x-ratelimit-remaining-tokens-minute: 59000\n"
		"x-ratelimit-reset-requests-day: 33011.382867097855\n"
		"x-ratelimit-reset-tokens-minute: 11.382867097854614\n"
		"x-ratelimit-limit-tokens-day: 1000000\nx-ratelimit-remaining-tokens-day: 0\n"
		"x-ratelimit-reset-tokens-day: 33011.382867097855\n",
		"",
		"tokens/minute 60000:59000:11.382867097; requests/day 14400:14399:33011.382867097; "
		"tokens/day 1000000:0:33011.382867097",
		0, 600 * S },
	{ "OpenRouter, a minute",
		DATE "X-RateLimit-Limit: 20\nX-RateLimit-Remaining: 0\n"
		     "X-RateLimit-Reset: 1755780040500\n",
		"{\"error\":{\"message\":\"Rate limit exceeded: free-models-per-min. \","
		"\"code\":429}}",
		"requests/minute 20:0:40.5", 0, 40500 * MS },
	{ "OpenRouter, a day",
		DATE "X-RateLimit-Limit: 50\nX-RateLimit-Remaining: 0\n"
		     "X-RateLimit-Reset: 1755820800000\n",
		"", "requests/day 50:0:40800", 0, 600 * S },
	{ "Together",
		"x-ratelimit-limit: 10\nx-ratelimit-remaining: 9\nx-ratelimit-reset: 1\n"
		"x-tokenlimit-limit: 3000\nx-tokenlimit-remaining: 0\nx-tokenlimit-reset: 3\n",
		"", "requests/minute 10:9:1; tokens/minute 3000:0:3", 0, 3 * S },
	{ "Fireworks",
		"x-ratelimit-limit-requests: 600\nx-ratelimit-remaining-requests: 599\n"
		"x-ratelimit-limit-tokens-prompt: 60000\n"
		"x-ratelimit-remaining-tokens-prompt: 59000\n"
		"x-ratelimit-limit-tokens-generated: 6000\n"
		"x-ratelimit-remaining-tokens-generated: 0\nx-ratelimit-over-limit: yes\n",
		"", "requests/minute 600:599:; input/minute 60000:59000:; output/minute 6000:0:", 0,
		500 * MS },
	{ "vLLM, llama.cpp, Ollama, DeepSeek, Bedrock",
		DATE "server: uvicorn\ncontent-length: 120\ncontent-type: application/json\n",
		"{\"object\":\"error\",\"message\":\"overloaded\",\"type\":\"x\",\"code\":503}", "",
		0, 500 * MS },
	{ "IETF, early headers",
		"RateLimit-Limit: 10, 10;w=1, 1000;w=3600\nRateLimit-Remaining: 4\n"
		"RateLimit-Reset: 30\n",
		"", "requests/minute 10:4:30", 0, 0 },
	{ "IETF, parts", "RateLimit: limit=100, remaining=50, reset=30\n", "",
		"requests/minute 100:50:30", 0, 0 },
	{ "IETF, parts that make no sense", "RateLimit: limit=-1, remaining=5, reset=30\n", "",
		"requests/minute :5:30", 1, 0 },
	{ "IETF, a part with a bad window", "RateLimit: limit=9;w=x, remaining=5\n", "",
		"requests/minute 9:5:", 1, 0 },
	{ "IETF, parts and a policy of a day",
		"RateLimit: limit=100, remaining=0, reset=30\nRateLimit-Policy: 100;w=86400\n", "",
		"requests/day 100:0:30", 0, 30 * S },
	{ "IETF, named policies",
		"RateLimit-Policy: \"burst\";q=10;w=1, \"default\";q=100;w=60,"
		"\"daily\";q=1000;w=86400\n"
		"RateLimit: \"default\";r=50;t=30, \"daily\";r=700;t=4000\n",
		"", "requests/minute 100:50:30; requests/day 1000:700:4000", 0, 0 },
	{ "IETF, units and a partition key",
		"RateLimit-Policy: \"t\";q=100000;w=60;qu=\"tokens\", "
		"\"b\";q=5;w=60;qu=\"content-bytes\";pk=:c2RrO2pma3M=:\n"
		"RateLimit: \"t\";r=0;t=12.5;pk=:c2RrO2pma3M=:, \"b\";r=1;t=1\n",
		"", "tokens/minute 100000:0:12.5", 0, 12500 * MS },
	{ "IETF, names that tell the axis",
		"RateLimit: input-tokens;r=5;t=1, \"requests\";r=6;t=2\n", "",
		"requests/minute :6:2; input/minute :5:1", 0, 0 },
	{ "IETF, hours and weeks have no bucket",
		"RateLimit-Policy: \"h\";q=100;w=3600\nRateLimit: \"h\";r=0;t=1800\n", "",
		"requests/day :0:1800", 0, 600 * S },
	{ "IETF, a month", "RateLimit-Policy: m;q=9;w=2592000\nRateLimit: m;r=3\n", "",
		"requests/month 9:3:", 0, 0 },
	{ "IETF, quotes hide separators",
		"RateLimit: \"a,x;r=1\\\";r=2\";r=5;t=30\n"
		"RateLimit-Policy: \"a,x;r=1\\\";r=2\";q=6;w=60\n",
		"", "requests/minute 6:5:30", 0, 0 },
	{ "IETF, rubbish", "RateLimit: ,;=,\"\nRateLimit-Policy: \"x\";q=-1;w=0;r\nRateLimit:\n",
		"", "", 2, 500 * MS },
};

/* One value at a time. */
static const struct row values[] = {
	{ "seconds", "Retry-After: 7\n", "", "retry 7", 0, 7 * S },
	{ "white space", "Retry-After: \t 7 \t\n", "", "retry 7", 0, 0 },
	{ "a fraction", "Retry-After: 1.5\n", "", "retry 1.5", 0, 0 },
	{ "0", "Retry-After: 0\n", "", "retry 0", 0, 100 * MS },
	{ "-1", "Retry-After: -1\n", "", "", 1, 500 * MS },
	{ "1e9", "Retry-After: 1e9\n", "", "retry 86400", 0, 600 * S },
	{ "1000000000", "Retry-After: 1000000000\n", "", "retry 86400", 0, 600 * S },
	{ "20 nines", "Retry-After: 99999999999999999999\n", "", "retry 86400", 0, 600 * S },
	{ "a day and a second", "Retry-After: 86401\n", "", "retry 86400", 0, 0 },
	{ "with a unit", "Retry-After: 30s\n", "", "retry 30", 0, 0 },
	{ "soon", "Retry-After: soon\n", "", "", 1, 0 },
	{ "empty", "Retry-After:\n", "", "", 1, 0 },
	{ "NaN", "Retry-After: NaN\n", "", "", 1, 0 },
	{ "a list", "Retry-After: 1, 2\n", "", "", 1, 0 },
	{ "an epoch", "Retry-After: 1755780009\n", "", "retry 9", 0, 0 },
	{ "a date", "Retry-After: Thu, 21 Aug 2025 12:40:30 GMT\n", "", "retry 30", 0, 30 * S },
	{ "a date of RFC 850", "Retry-After: Thursday, 21-Aug-25 12:40:30 GMT\n", "", "retry 30", 0,
		0 },
	{ "a date of asctime", "Retry-After: Thu Aug 21 12:40:30 2025\n", "", "retry 30", 0, 0 },
	{ "a past date", "Retry-After: Thu, 21 Aug 2025 12:39:59 GMT\n", "", "retry 0", 0,
		100 * MS },
	{ "a far date", "Retry-After: Thu, 21 Aug 2095 12:39:59 GMT\n", "", "retry 86400", 0, 0 },
	{ "a date without zone", "Retry-After: Thu, 21 Aug 2025 12:40:30\n", "", "", 1, 0 },
	{ "a date by the provider's clock, behind",
		"Retry-After: Thu, 21 Aug 2025 11:00:30 GMT\nDate: Thu, 21 Aug 2025 11:00:00 GMT\n",
		"", "retry 30", 0, 0 },
	{ "a date by the provider's clock, ahead",
		"Date: Fri, 22 Aug 2025 12:40:00 GMT\nRetry-After: Fri, 22 Aug 2025 12:40:05 GMT\n",
		"", "retry 5", 0, 0 },
	{ "a bad Date", "Date: yesterday\nRetry-After: Thu, 21 Aug 2025 12:40:30 GMT\n", "",
		"retry 30", 1, 0 },
	{ "two Dates",
		"Date: Thu, 21 Aug 2025 12:40:20 GMT\nDate: Thu, 21 Aug 2025 12:40:10 GMT\n"
		"Retry-After: Thu, 21 Aug 2025 12:40:30 GMT\n",
		"", "retry 20", 0, 0 },
	{ "ms", "retry-after-ms: 250\n", "", "retry 0.25", 0, 250 * MS },
	{ "ms below the pause", "retry-after-ms: 1.5\n", "", "retry 0.0015", 0, 100 * MS },
	{ "ms first", "retry-after: 9\nretry-after-ms: 250\n", "", "retry 0.25", 0, 0 },
	{ "ms before x-ms", "x-ms-retry-after-ms: 700\nretry-after-ms: 250\n", "", "retry 0.25", 0,
		0 },
	{ "x-ms before seconds", "x-ms-retry-after-ms: 700\nretry-after: 9\n", "", "retry 0.7", 0,
		0 },
	{ "ms 0", "retry-after-ms: 0\nretry-after: 9\n", "", "retry 9", 1, 0 },
	{ "x-ms 0", "x-ms-retry-after-ms: 0\nretry-after: 9\n", "", "retry 9", 1, 0 },
	{ "ms of words", "retry-after-ms: x\nretry-after: 9\n", "", "retry 9", 1, 0 },
	{ "ms with a unit", "retry-after-ms: 9ms\n", "", "", 1, 0 },
	{ "ms -1", "retry-after-ms: -1\nx-ms-retry-after-ms: 4000\n", "", "retry 4", 1, 0 },
	{ "ms above a day", "retry-after-ms: 99999999999\n", "", "retry 86400", 0, 0 },
	{ "twice", "Retry-After: 3\nRetry-After: 5\nRetry-After: 4\n", "", "retry 5", 0, 0 },
	{ "a date and seconds", "Retry-After: Thu, 21 Aug 2025 12:40:30 GMT\nRetry-After: 5\n", "",
		"retry 30", 0, 0 },
	{ "body above header", "Retry-After: 1\n", "Please try again in 6.2s", "retry 6.2", 0, 0 },
	{ "header above body", "Retry-After: 9\n", "Please try again in 6.2s", "retry 9", 0, 0 },
	{ "body, ms", "", "try again in 120ms", "retry 0.12", 0, 120 * MS },
	{ "body, minutes", "", "Please TRY AGAIN IN 1m2s.", "retry 62", 0, 0 },
	{ "body, words", "", "try again in 5 minutes.", "retry 300", 0, 0 },
	{ "body, Greek", "", "try again in 812\xc2\xb5s.", "retry 0.000812", 0, 100 * MS },
	{ "body, longest", "", "try again in 1s, no: retry after 3s, try again in 2s", "retry 3", 0,
		0 },
	{ "body, no unit", "", "try again in 5", "", 0, 0 },
	{ "body, no wait", "", "try again in a moment; retry after 2026-01-01", "", 0, 0 },
	{ "body, nothing behind", "", "please try again in", "", 0, 0 },
	{ "should", "X-Should-Retry: TRUE\n", "", "; should 1", 0, 0 },
	{ "should, both", "x-should-retry: true\nx-should-retry: false\nx-should-retry: true\n", "",
		"; should 0", 0, 0 },
	{ "should, maybe", "x-should-retry: maybe\n", "", "", 1, 0 },
	{ "should, maybe not", "x-should-retry: false\nx-should-retry: maybe\n", "", "; should 0",
		1, 0 },
	{ "more than there is", "x-ratelimit-limit-tokens: 5\nx-ratelimit-remaining-tokens: 6\n",
		"", "tokens/minute 5::", 1, 0 },
	{ "as much as there is", "x-ratelimit-limit-tokens: 5\nx-ratelimit-remaining-tokens: 5\n",
		"", "tokens/minute 5:5:", 0, 0 },
	{ "endless",
		"x-ratelimit-limit-tokens: 9999999999999999999999\n"
		"x-ratelimit-remaining-tokens: 9999999999999999999998\n",
		"", "tokens/minute 1000000000000:1000000000000:", 0, 0 },
	{ "nothing left of something small", "x-ratelimit-remaining-tokens: 0.9\n", "",
		"tokens/minute :0:", 0, 500 * MS },
	{ "words for numbers",
		"x-ratelimit-limit-tokens: many\nx-ratelimit-remaining-tokens: 1,000\n"
		"x-ratelimit-reset-tokens: later\nx-ratelimit-renewalperiod-tokens: 0\n",
		"", "", 4, 0 },
	{ "a renewal is no date", "x-ratelimit-renewalperiod-tokens: 1755780009\n", "", "", 1, 0 },
	{ "reset in a minute",
		"x-ratelimit-limit-tokens: 9\nx-ratelimit-remaining-tokens: 1\n"
		"x-ratelimit-reset-tokens: 61s\n",
		"", "tokens/minute 9:1:61", 0, 0 },
	{ "reset in more",
		"x-ratelimit-limit-tokens: 9\nx-ratelimit-remaining-tokens: 1\n"
		"x-ratelimit-reset-tokens: 61001ms\n",
		"", "tokens/day 9:1:61.001", 0, 0 },
	{ "reset in more, of a said minute", "x-ratelimit-reset-tokens-minute: 6m0s\n", "",
		"tokens/minute ::360", 0, 0 },
	{ "reset in more than a day", "x-ratelimit-reset-requests: 48h\n", "",
		"requests/day ::86400", 0, 0 },
	{ "reset that has passed",
		"anthropic-ratelimit-tokens-remaining: 0\n"
		"anthropic-ratelimit-tokens-reset: 2025-08-21T12:39:00Z\n",
		"", "tokens/minute :0:0", 0, 500 * MS },
	{ "reset with a fraction and an offset",
		"anthropic-ratelimit-tokens-reset: 2025-08-21T14:40:01.25+02:00\n", "",
		"tokens/minute ::1.25", 0, 0 },
	{ "reset by the provider's clock",
		"anthropic-ratelimit-tokens-reset: 2025-08-21T10:00:20Z\n"
		"date: Thu, 21 Aug 2025 10:00:00 GMT\n",
		"", "tokens/minute ::20", 0, 0 },
	{ "reset of what is left is no wait",
		"x-ratelimit-remaining-tokens: 1\nx-ratelimit-reset-tokens: 20s\nretry-after: 2\n",
		"", "tokens/minute :1:20; retry 2", 0, 2 * S },
	{ "names that only look alike",
		"x-ratelimit-limit-request: 1\nx-ratelimit-limit-requests-x: 1\n"
		"ratelimit-reset-x: 1\n"
		"x-ratelimit-: 1\nx-ratelimit-limits: 1\nretry-after-: 1\nxretry-after: 1\n"
		"x-ratelimit-limit-requests-hour: 1\n: 1\n",
		"", "", 0, 500 * MS },
};

static void check(const struct row *row)
{
	aux_cleanup(buffer_deinit) struct buffer got = BUFFER_NULL;
	struct feedback f = FEEDBACK_NULL;
	uint64_t pause;

	feed(&f, row->headers);
	feedback_finish(&f, str_of(row->body), NOW);
	describe(&f, &got);
	if (strcmp(buffer_head(&got), row->want) != 0 || f.ignored != row->ignored)
		fail_msg("%s: \"%s\", %u ignored", row->name, buffer_head(&got), f.ignored);
	pause = feedback_pause_ns(&f, 0, 0);
	if (row->pause_ns && pause != row->pause_ns)
		fail_msg("%s: pause %lu", row->name, (unsigned long)pause);
}

static void every_provider_is_understood(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(providers); i++)
		check(&providers[i]);
}

static void every_value_is_understood(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(values); i++)
		check(&values[i]);
}

/* ---- properties ---- */

struct header {
	char name[64], value[128];
};

static size_t split(const char *lines, struct header *out)
{
	size_t count = 0;

	for (; *lines; count++) {
		size_t n = strcspn(lines, "\n"), name = strcspn(lines, ":");

		assert_true(name < sizeof(out->name) && n - name < sizeof(out->value));
		snprintf(out[count].name, sizeof(out->name), "%.*s", (int)name, lines);
		snprintf(out[count].value, sizeof(out->value), "%.*s", (int)(n - name - 1),
			lines + name + 1);
		lines += n + 1;
	}
	return count;
}

static void shuffle(uint64_t *seed, struct header *h, size_t count)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = splitmix_below(seed, i);
		struct header other = h[j];

		h[j] = h[i - 1];
		h[i - 1] = other;
	}
}

static void change_case(uint64_t *seed, char *name)
{
	for (; *name; name++)
		if ((*name | 0x20) >= 'a' && (*name | 0x20) <= 'z' && splitmix_below(seed, 2))
			*name ^= 0x20;
}

static void tell(
	const struct header *h, size_t count, unsigned times, struct str body, struct feedback *f)
{
	*f = FEEDBACK_NULL;
	for (unsigned n = 0; n < times; n++)
		for (size_t i = 0; i < count; i++)
			feedback_header(f, str_of(h[i].name), str_of(h[i].value));
	feedback_finish(f, body, NOW);
}

static bool are_same(const struct feedback *a, const struct feedback *b)
{
	aux_cleanup(buffer_deinit) struct buffer one = BUFFER_NULL, other = BUFFER_NULL;

	describe(a, &one);
	describe(b, &other);
	return strcmp(buffer_head(&one), buffer_head(&other)) == 0 && a->ignored == b->ignored &&
		a->has_date == b->has_date && a->date_unix_ns == b->date_unix_ns;
}

static void order_case_and_repetition_do_not_matter(void **state)
{
	struct feedback want, got;
	uint64_t seed = 3;

	(void)state;
	for (int i = 0; i < 3000; i++) {
		const struct row *a = &providers[splitmix_below(&seed, ARRAY_SIZE(providers))];
		const struct row *b = splitmix_below(&seed, 2) ?
			&values[splitmix_below(&seed, ARRAY_SIZE(values))] :
			&providers[splitmix_below(&seed, ARRAY_SIZE(providers))];
		struct header h[64];
		size_t count = split(a->headers, h);
		unsigned times = 1 + (unsigned)splitmix_below(&seed, 3);

		count += split(b->headers, h + count);
		assert_true(count <= ARRAY_SIZE(h));
		tell(h, count, 1, str_of(b->body), &want);
		shuffle(&seed, h, count);
		for (size_t n = 0; n < count; n++)
			change_case(&seed, h[n].name);
		tell(h, count, times, str_of(b->body), &got);
		if (times > 1)
			got.ignored = want.ignored;
		if (!are_same(&got, &want))
			fail_msg("%s with %s, round %d", a->name, b->name, i);
	}
}

/* More policies than are kept: the same ones in every order. */
static void many_policies_in_any_order(void **state)
{
	struct feedback want, got;
	struct header h[12] = { 0 };
	uint64_t seed = 4;

	(void)state;
	for (unsigned i = 0; i < ARRAY_SIZE(h); i++) {
		snprintf(h[i].name, sizeof(h->name), "RateLimit%s", i % 2 ? "-Policy" : "");
		snprintf(h[i].value, sizeof(h->value), i % 2 ? "p%u;q=%u;w=60" : "p%u;r=%u;t=%u",
			i / 2, 100 + i, i);
	}
	tell(h, ARRAY_SIZE(h), 1, STR_NULL, &want);
	assert_true(want.level[FEEDBACK_MINUTE][FEEDBACK_REQUESTS].has_limit);
	for (int i = 0; i < 500; i++) {
		shuffle(&seed, h, ARRAY_SIZE(h));
		tell(h, ARRAY_SIZE(h), 1, STR_NULL, &got);
		assert_true(are_same(&got, &want));
	}
}

static void expect_clamped(const struct feedback *f, uint64_t *seed)
{
	uint64_t pause = feedback_pause_ns(f, (unsigned)splitmix_next(seed), splitmix_next(seed));

	assert_in_range(pause, FEEDBACK_PAUSE_MIN_NS, FEEDBACK_PAUSE_MAX_NS);
	assert_true(f->retry_after_ns <= FEEDBACK_RESET_MAX_NS);
	assert_true(f->should_retry >= -1 && f->should_retry <= 1);
	for (unsigned i = 0; i < FEEDBACK_WINDOWS * FEEDBACK_AXES; i++) {
		const struct feedback_level *l = &f->level[i / FEEDBACK_AXES][i % FEEDBACK_AXES];

		assert_true(!l->has_limit || (l->limit >= 1 && l->limit <= FEEDBACK_LIMIT_MAX));
		assert_true(l->remaining <= FEEDBACK_LIMIT_MAX);
		assert_true(!l->has_limit || !l->has_remaining || l->remaining <= l->limit);
		assert_true(l->reset_ns <= FEEDBACK_RESET_MAX_NS);
		assert_true(l->renewal_ns <= FEEDBACK_RESET_MAX_NS);
		assert_true(l->reset_unix_ns == 0);
	}
}

static void nothing_leaves_its_clamps(void **state)
{
	static const char *const pieces[] = { "-1", "0", "1", "1e9", "1e99", "-", ".", "5", "s",
		"m", "ms", "h", "99999999999999999999", "1755780000", "1755780000000", "T", "Z",
		":", ",", ";", "=", "r", "q", "w", "t", "\"", "limit",
		"Thu, 21 Aug 2025 12:40:00 GMT", "2025-08-21T12:40:00Z", " ", "try again in ",
		"retryDelay\":\"" };
	uint64_t seed = 5;

	(void)state;
	for (int i = 0; i < 20000; i++) {
		struct feedback f = FEEDBACK_NULL;
		struct header h[64];
		const struct row *row = &providers[splitmix_below(&seed, ARRAY_SIZE(providers))];
		size_t count = split(row->headers, h);
		char body[256] = { 0 };

		for (size_t n = 0; n < count; n++) {
			h[n].value[0] = '\0';
			for (uint64_t left = splitmix_below(&seed, 4); left > 0; left--)
				strncat(h[n].value,
					pieces[splitmix_below(&seed, ARRAY_SIZE(pieces))],
					sizeof(h->value) - strlen(h[n].value) - 1);
			strncat(body, h[n].value, sizeof(body) - strlen(body) - 1);
			feedback_header(&f, str_of(h[n].name), str_of(h[n].value));
		}
		feedback_finish(
			&f, str_of(body), splitmix_below(&seed, 2) ? NOW : splitmix_next(&seed));
		expect_clamped(&f, &seed);
	}
}

/* ---- the pause ---- */

static void without_a_hint_the_backoff_is_equal_jitter(void **state)
{
	struct feedback f = FEEDBACK_NULL;
	uint64_t seed = 6;

	(void)state;
	feedback_finish(&f, STR_NULL, NOW);
	for (unsigned attempt = 0; attempt < 70; attempt++) {
		uint64_t d = attempt < 6 ? (UINT64_C(1) << attempt) * S : 60 * S;

		assert_true(feedback_pause_ns(&f, attempt, 0) == d / 2);
		assert_true(feedback_pause_ns(&f, attempt, d / 2 - 1) == d - 1);
		assert_true(feedback_pause_ns(&f, attempt, d / 2) == d / 2);
		for (int i = 0; i < 100; i++)
			assert_in_range(
				feedback_pause_ns(&f, attempt, splitmix_next(&seed)), d / 2, d - 1);
	}
	assert_true(feedback_pause_ns(&f, UINT32_MAX, 0) == 30 * S);
}

static void a_hint_leaves_no_jitter(void **state)
{
	struct feedback f = FEEDBACK_NULL;

	(void)state;
	feed(&f, "retry-after: 3\n");
	feedback_finish(&f, STR_NULL, NOW);
	assert_true(feedback_pause_ns(&f, 9, 12345) == 3 * S);
}

static void one_reset_alone(void **state)
{
	uint64_t ns = 1;

	(void)state;
	assert_true(feedback_parse_reset(str_of("6m0s"), NOW, &ns) && ns == 360 * S);
	assert_true(feedback_parse_reset(str_of("1755780007"), NOW, &ns) && ns == 7 * S);
	assert_true(feedback_parse_reset(str_of("1755780007250"), NOW, &ns) && ns == 7250 * MS);
	assert_true(feedback_parse_reset(str_of("2025-08-21T12:40:59Z"), NOW, &ns) && ns == 59 * S);
	assert_true(feedback_parse_reset(str_of("2025-08-21T12:39:59Z"), NOW, &ns) && ns == 0);
	assert_true(feedback_parse_reset(str_of("48h"), NOW, &ns) && ns == FEEDBACK_RESET_MAX_NS);
	assert_false(feedback_parse_reset(str_of("-1"), NOW, &ns));
	assert_false(feedback_parse_reset(STR_NULL, NOW, &ns));
}

static void empty_views_are_no_headers(void **state)
{
	static const char *const names[] = { "retry-after", "retry-after-ms", "date", "ratelimit",
		"ratelimit-limit", "x-ratelimit-limit-tokens", "x-should-retry" };
	struct feedback f = FEEDBACK_NULL;

	(void)state;
	feedback_header(&f, STR_NULL, STR_NULL);
	assert_int_equal(f.ignored, 0);
	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		feedback_header(&f, str_of(names[i]), STR_NULL);
	assert_int_equal(f.ignored, ARRAY_SIZE(names));
	feedback_finish(&f, STR_NULL, 0);
	assert_false(f.has_retry_after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_provider_is_understood),
		cmocka_unit_test(every_value_is_understood),
		cmocka_unit_test(order_case_and_repetition_do_not_matter),
		cmocka_unit_test(many_policies_in_any_order),
		cmocka_unit_test(nothing_leaves_its_clamps),
		cmocka_unit_test(without_a_hint_the_backoff_is_equal_jitter),
		cmocka_unit_test(a_hint_leaves_no_jitter),
		cmocka_unit_test(one_reset_alone),
		cmocka_unit_test(empty_views_are_no_headers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
