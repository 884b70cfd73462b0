#include "daemon/formats/errors.h"
#include "daemon/formats/format.h"
#include "base/aux.h"
#include "tests/unit/cmocka-all.h"

#include <string.h>

/* Not from the table: a format may be left out of the build, its taxonomy is not. */
static const struct family plain = { .name = "openai" };
static const struct family scaleway = { .name = "scaleway" };
static const struct family openrouter = { .name = "openrouter" };

struct row {
	const struct family *family;
	unsigned http_status;
	const char *body;
	enum status status;
};

/* The taxonomy, as the providers' documents and users' reports give it. */
static const struct row rows[] = {
	/* OpenAI */
	{ &plain, 429,
		"{\"error\":{\"message\":\"Rate limit reached\",\"type\":\"tokens\","
		"\"param\":null,\"code\":\"rate_limit_exceeded\"}}",
		STATUS_PROVIDER_LIMITED },
	{ &plain, 429,
		"{\"error\":{\"message\":\"You exceeded your current quota\","
		"\"type\":\"insufficient_quota\",\"code\":\"insufficient_quota\"}}",
		STATUS_PROVIDER_QUOTA },
	{ &plain, 429, "{\"error\":{\"type\":\"insufficient_quota\"}}", STATUS_PROVIDER_QUOTA },
	{ &plain, 429, "{\"error\":{\"message\":\"m\",\"type\":\"requests\",\"code\":\"429\"}}",
		STATUS_PROVIDER_LIMITED },
	{ &plain, 400,
		"{\"error\":{\"message\":\"m\",\"type\":\"invalid_request_error\","
		"\"code\":\"context_length_exceeded\"}}",
		STATUS_CONTEXT_LENGTH },
	{ &plain, 400, "{\"error\":{\"message\":\"m\",\"type\":\"invalid_request_error\"}}",
		STATUS_PROVIDER_REJECTED },
	{ &plain, 401, "{\"error\":{\"code\":\"invalid_api_key\"}}", STATUS_PROVIDER_AUTH },
	{ &plain, 403, "{\"error\":{\"code\":\"unsupported_country_region_territory\"}}",
		STATUS_PROVIDER_AUTH },
	{ &plain, 404, "{\"error\":{\"code\":\"model_not_found\"}}", STATUS_PROVIDER_NOT_FOUND },
	{ &plain, 500, "{\"error\":{\"type\":\"server_error\"}}", STATUS_PROVIDER_ERROR },
	{ &plain, 503, "{\"error\":{\"message\":\"Slow Down\",\"type\":\"server_error\"}}",
		STATUS_PROVIDER_OVERLOADED },
	/* Anthropic */
	{ &plain, 429,
		"{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\","
		"\"message\":\"m\"},\"request_id\":\"r\"}",
		STATUS_PROVIDER_LIMITED },
	{ &plain, 429,
		"{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\","
		"\"details\":{\"error_code\":\"enforced_spend_limit_reached\"}}}",
		STATUS_PROVIDER_QUOTA },
	{ &plain, 400,
		"{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
		"\"message\":\"You have reached your specified API usage limits. You will regain "
		"access\"}}",
		STATUS_PROVIDER_QUOTA },
	{ &plain, 400,
		"{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
		"\"message\":\"Your credit balance is too low to access the API\"}}",
		STATUS_PROVIDER_QUOTA },
	{ &plain, 400,
		"{\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\","
		"\"message\":\"prompt is too long: 201000 tokens > 200000 maximum\"}}",
		STATUS_CONTEXT_LENGTH },
	{ &plain, 401, "{\"error\":{\"type\":\"authentication_error\"}}", STATUS_PROVIDER_AUTH },
	{ &plain, 402, "{\"error\":{\"type\":\"billing_error\"}}", STATUS_PROVIDER_QUOTA },
	{ &plain, 403, "{\"error\":{\"type\":\"permission_error\"}}", STATUS_PROVIDER_AUTH },
	{ &plain, 404, "{\"error\":{\"type\":\"not_found_error\"}}", STATUS_PROVIDER_NOT_FOUND },
	{ &plain, 409, "{\"error\":{\"type\":\"conflict_error\"}}", STATUS_PROVIDER_REJECTED },
	{ &plain, 413, "{\"error\":{\"type\":\"request_too_large\"}}", STATUS_PROVIDER_REJECTED },
	{ &plain, 500, "{\"error\":{\"type\":\"api_error\"}}", STATUS_PROVIDER_ERROR },
	{ &plain, 504, "{\"error\":{\"type\":\"timeout_error\"}}", STATUS_TIMEOUT },
	{ &plain, 529, "{\"error\":{\"type\":\"overloaded_error\"}}", STATUS_PROVIDER_OVERLOADED },
	/* Groq */
	{ &plain, 413,
		"{\"error\":{\"message\":\"Request too large: Limit 8000, Requested 10098\","
		"\"type\":\"tokens\",\"code\":\"rate_limit_exceeded\"}}",
		STATUS_PROVIDER_REJECTED },
	{ &plain, 498, "{\"error\":{\"code\":\"capacity_exceeded\"}}", STATUS_PROVIDER_OVERLOADED },
	/* Azure */
	{ &plain, 429, "{\"error\":{\"code\":\"RateLimitExceeded\"}}", STATUS_PROVIDER_LIMITED },
	{ &plain, 400,
		"{\"error\":{\"code\":\"content_filter\",\"innererror\":"
		"{\"code\":\"ResponsibleAIPolicyViolation\"}}}",
		STATUS_CONTENT_FILTER },
	{ &plain, 400,
		"{\"error\":{\"message\":\"m\",\"innererror\":"
		"{\"code\":\"ResponsibleAIPolicyViolation\"}}}",
		STATUS_CONTENT_FILTER },
	{ &plain, 404, "{\"error\":{\"code\":\"DeploymentNotFound\"}}", STATUS_PROVIDER_NOT_FOUND },
	/* Gemini, in an array */
	{ &plain, 429,
		"[{\"error\":{\"code\":429,\"message\":\"m\","
		"\"status\":\"RESOURCE_EXHAUSTED\"}}]",
		STATUS_PROVIDER_LIMITED },
	{ &plain, 503, "[{\"error\":{\"code\":503,\"status\":\"UNAVAILABLE\"}}]",
		STATUS_PROVIDER_OVERLOADED },
	{ &plain, 400,
		"[{\"error\":{\"code\":400,\"message\":\"API key not valid. Please pass a "
		"valid API key.\",\"status\":\"INVALID_ARGUMENT\"}}]",
		STATUS_PROVIDER_AUTH },
	/* xAI, DeepSeek, Mistral, vLLM, llama.cpp, Scaleway, OpenRouter, FastAPI */
	{ &plain, 400,
		"{\"code\":\"Client specified an invalid argument\","
		"\"error\":\"Incorrect API key provided: xa***12.\"}",
		STATUS_PROVIDER_AUTH },
	{ &plain, 402, "{\"error\":{\"message\":\"Insufficient Balance\"}}",
		STATUS_PROVIDER_QUOTA },
	{ &plain, 429, "{\"message\":\"Requests rate limit exceeded\"}", STATUS_PROVIDER_LIMITED },
	{ &plain, 400,
		"{\"object\":\"error\",\"message\":\"This model's maximum context length is "
		"4096 tokens\",\"type\":\"BadRequestError\",\"code\":400}",
		STATUS_CONTEXT_LENGTH },
	{ &plain, 400, "{\"error\":{\"code\":400,\"type\":\"exceed_context_size_error\"}}",
		STATUS_CONTEXT_LENGTH },
	{ &scaleway, 429,
		"{\"error\":{\"message\":\"INSUFFICIENT QUOTA\","
		"\"code\":\"insufficient_quota\"}}",
		STATUS_PROVIDER_LIMITED },
	{ &openrouter, 403, "{\"error\":{\"code\":403,\"message\":\"Your input was flagged\"}}",
		STATUS_CONTENT_FILTER },
	{ &openrouter, 402, "{\"error\":{\"code\":402}}", STATUS_PROVIDER_QUOTA },
	{ &plain, 422, "{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"x\"}]}",
		STATUS_PROVIDER_REJECTED },
	/* no JSON at all */
	{ &plain, 301, "", STATUS_REDIRECT },
	{ &plain, 307, "<html>", STATUS_REDIRECT },
	{ &plain, 408, "", STATUS_TIMEOUT },
	{ &plain, 418, "teapot", STATUS_PROVIDER_REJECTED },
	{ &plain, 429, "<html>429</html>", STATUS_PROVIDER_LIMITED },
	{ &plain, 500, "upstream connect error", STATUS_PROVIDER_ERROR },
	{ &plain, 502, "<html>502 Bad Gateway</html>", STATUS_PROVIDER_ERROR },
	{ &plain, 524, "", STATUS_TIMEOUT },
	{ &plain, 500, "{\"error\":\"the backend is overloaded\"}", STATUS_PROVIDER_OVERLOADED },
	{ &plain, 500, "{\"error\":", STATUS_PROVIDER_ERROR },
	{ &plain, 500, "null", STATUS_PROVIDER_ERROR },
	{ &plain, 500, "[]", STATUS_PROVIDER_ERROR },
};

static void every_row_of_the_taxonomy(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct buffer text = BUFFER_NULL;
		struct msg_error e = { 0 };
		enum status got = errors_classify(
			rows[i].family, rows[i].http_status, str_of(rows[i].body), &text, &e);

		if (got != rows[i].status)
			fail_msg("HTTP %u %s: %s, expected %s", rows[i].http_status, rows[i].body,
				status_name(got), status_name(rows[i].status));
		assert_int_equal(e.status, got);
		assert_int_equal(e.http_status, rows[i].http_status);
		assert_true(e.message.length > 0);
		buffer_deinit(&text);
	}
}

static void expect_text(unsigned http_status, struct str body, const char *want)
{
	struct buffer text = BUFFER_NULL;
	struct msg_error e = { 0 };

	errors_classify(&plain, http_status, body, &text, &e);
	if (!str_is(e.message, want))
		fail_msg("got \"%.*s\", expected \"%s\"", STR_ARG(e.message), want);
	buffer_deinit(&text);
}

static void texts_say_what_the_provider_said(void **state)
{
	(void)state;
	expect_text(429, str_of("{\"error\":{\"message\":\"Slow down\"}}"),
		"the provider answered HTTP 429: Slow down");
	expect_text(500, str_of("plain words\nin two lines"),
		"the provider answered HTTP 500: plain words in two lines");
	expect_text(422,
		str_of("{\"object\":\"error\",\"message\":{\"detail\":[{\"type\":\"t\","
		       "\"msg\":\"Extra inputs\"}]},\"type\":\"invalid\"}"),
		"the provider answered HTTP 422: Extra inputs");
	expect_text(422, str_of("{\"detail\":[{\"loc\":[\"body\"],\"msg\":\"x is missing\"}]}"),
		"the provider answered HTTP 422: x is missing");
	expect_text(502, str_of("<html>"), "the provider answered HTTP 502: the provider failed");
	expect_text(400, str_of("{\"error\":{\"code\":\"odd_code\"}}"),
		"the provider answered HTTP 400: odd_code");
	expect_text(400,
		str_of("{\"error\":{\"message\":\"a\\u0000b\\u001b[31mc\\u009bd\xc3\xa9\"}}"),
		"the provider answered HTTP 400: a b [31mc  d\xc3\xa9");
	expect_text(500, str_make("bad \xff\xc3 end", 10),
		"the provider answered HTTP 500: bad    end");
}

static void long_texts_are_cut_between_characters(void **state)
{
	char body[1200] = "{\"error\":{\"message\":\"x", *at = body + strlen(body);
	struct buffer text = BUFFER_NULL;
	struct msg_error e = { 0 };
	size_t prefix = strlen("the provider answered HTTP 400: ");

	(void)state;
	for (int i = 0; i < 300; i++, at += 3)
		memcpy(at, "\xe2\x82\xac", 3);
	memcpy(at, "\"}}", 4);
	errors_classify(&plain, 400, str_of(body), &text, &e);
	assert_int_equal(e.message.length, prefix + 1 + 399);
	assert_memory_equal(e.message.data + e.message.length - 3, "\xe2\x82\xac", 3);
	buffer_deinit(&text);
}

static void keys_are_never_repeated(void **state)
{
	static const char *const keys[] = { "sk-proj-abcdefgh_ijkl-1234", "sk-abc***wxyz",
		"gsk_1234abcd", "AIzaSyA1234", "canary0key0canary0key0canary",
		"a1b2c3d4e5f6a7b8c9d0", "xa***12" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		static const unsigned statuses[] = { 400, 401, 403, 500 };

		for (size_t j = 0; j < ARRAY_SIZE(statuses); j++) {
			struct buffer text = BUFFER_NULL, body = BUFFER_NULL;
			struct msg_error e = { 0 };

			assert_int_equal(buffer_printf(&body,
						 "{\"error\":{\"message\":"
						 "\"The key '%s' is odd (key=%s)\"}}",
						 keys[i], keys[i]),
				0);
			errors_classify(&plain, statuses[j], buffer_str(&body), &text, &e);
			assert_null(
				memmem(e.message.data, e.message.length, keys[i], strlen(keys[i])));
			buffer_deinit(&text);
			buffer_deinit(&body);
		}
	}
	expect_text(400,
		str_of("{\"error\":{\"message\":\"Key sk-abc123-x, model "
		       "claude-3-5-sonnet-20241022\"}}"),
		"the provider answered HTTP 400: Key [redacted], "
		"model claude-3-5-sonnet-20241022");
}

static void refused_keys_get_our_own_words(void **state)
{
	struct buffer text = BUFFER_NULL;
	struct msg_error e = { 0 };

	(void)state;
	errors_classify(
		&plain, 401, str_of("{\"error\":{\"message\":\"hunter2 is no key\"}}"), &text, &e);
	assert_null(memmem(e.message.data, e.message.length, "hunter2", 7));
	assert_non_null(memmem(e.message.data, e.message.length, "check the key", 13));
	buffer_deinit(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_of_the_taxonomy),
		cmocka_unit_test(texts_say_what_the_provider_said),
		cmocka_unit_test(long_texts_are_cut_between_characters),
		cmocka_unit_test(keys_are_never_repeated),
		cmocka_unit_test(refused_keys_get_our_own_words),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
