#include "daemon/formats/survey.h"
#include "base/aux.h"
#include "shm/target.h"
#include "tests/unit/cmocka-all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char model[SURVEY_MODEL_MAX + 1];

static struct survey of(const char *json)
{
	struct survey s;

	assert_int_equal(survey_read(str_of(json), &s, model), 0);
	return s;
}

static void a_plain_request_needs_nothing(void **state)
{
	struct survey s =
		of("{\"model\":\"gpt\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");

	(void)state;
	assert_string_equal(model, "gpt");
	assert_int_equal(s.capabilities, 0);
	assert_int_equal(s.max_tokens, 0);
	assert_in_range(s.input_tokens, 1, 20);
}

static void each_need_is_seen(void **state)
{
	static const struct {
		const char *member;
		uint64_t capability;
	} needs[] = {
		{ "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]",
			TARGET_TOOLS },
		{ "\"tools\":[]", 0 },
		{ "\"tools\":null", 0 },
		{ "\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{}}",
			TARGET_JSON },
		{ "\"response_format\":{\"type\":\"text\"}", 0 },
		{ "\"reasoning_effort\":\"low\"", TARGET_REASONING },
		{ "\"reasoning_effort\":null", 0 },
		{ "\"stream\":true", TARGET_STREAMING },
		{ "\"stream\":false", 0 },
		{ "\"messages\":[{\"content\":[{\"type\":\"image_url\","
		  "\"image_url\":{\"url\":\"u\"}}]}]",
			TARGET_VISION },
		{ "\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"u\"}]}]", 0 },
	};
	char json[256];

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(needs); i++) {
		snprintf(json, sizeof(json), "{%s}", needs[i].member);
		assert_int_equal(of(json).capabilities, needs[i].capability);
	}
}

static void the_newer_maximum_goes_before_the_older(void **state)
{
	(void)state;
	assert_int_equal(of("{\"max_tokens\":7}").max_tokens, 7);
	assert_int_equal(of("{\"max_completion_tokens\":9,\"max_tokens\":7}").max_tokens, 9);
	assert_int_equal(of("{\"max_tokens\":-7}").max_tokens, 0);
	assert_int_equal(of("{\"max_tokens\":\"7\"}").max_tokens, 0);
	assert_int_equal(of("{\"max_tokens\":1.5}").max_tokens, 0);
	assert_true(of("{\"max_tokens\":18446744073709551615}").max_tokens <= 100000000);
}

/* A maximum is of each answer. */
static void several_answers_may_be_as_long_each(void **state)
{
	(void)state;
	assert_int_equal(of("{\"max_tokens\":7,\"n\":3}").max_tokens, 21);
	assert_int_equal(of("{\"max_tokens\":7,\"n\":0}").max_tokens, 7);
	assert_int_equal(of("{\"n\":3}").max_tokens, 0);
	assert_true(of("{\"max_tokens\":100000000,\"n\":100000000}").max_tokens <= 100000000);
}

static char *long_request(size_t length, const char *before, const char *after)
{
	char *json = malloc(length + strlen(before) + strlen(after) + 1);

	assert_non_null(json);
	strcpy(json, before);
	memset(json + strlen(before), 'x', length);
	strcpy(json + strlen(before) + length, after);
	return json;
}

/* Never fewer than providers count for English, about four bytes per token. */
static void longer_texts_are_more_tokens(void **state)
{
	char *text = long_request(40000, "{\"messages\":[{\"content\":\"", "\"}]}");
	char *parts = long_request(
		40000, "{\"messages\":[{\"content\":[{\"type\":\"text\",\"text\":\"", "\"}]}]}");
	char *tools =
		long_request(40000, "{\"tools\":[{\"function\":{\"description\":\"", "\"}}]}");
	char *schema = long_request(40000,
		"{\"response_format\":{\"type\":\"json_schema\",\"json_schema\":{\"", "\":1}}}");
	char *calls = long_request(40000,
		"{\"messages\":[{\"tool_calls\":[{\"function\":{\"arguments\":\"", "\"}}]}]}");

	(void)state;
	assert_in_range(of(text).input_tokens, 10000, 14000);
	assert_in_range(of(parts).input_tokens, 10000, 14000);
	assert_in_range(of(tools).input_tokens, 10000, 14000);
	assert_in_range(of(calls).input_tokens, 10000, 14000);
	assert_in_range(of(schema).input_tokens, 10000, 14000);
	free(text);
	free(parts);
	free(tools);
	free(calls);
	free(schema);
}

/* A picture inside the request is not text. */
static void an_image_counts_as_one_whatever_its_bytes(void **state)
{
	char *small = long_request(10,
		"{\"messages\":[{\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"",
		"\"}}]}]}");
	char *large = long_request(1000000,
		"{\"messages\":[{\"content\":[{\"type\":\"image_url\",\"image_url\":{\"url\":\"",
		"\"}}]}]}");

	(void)state;
	assert_int_equal(of(small).input_tokens, of(large).input_tokens);
	assert_in_range(of(small).input_tokens, 1000, 2000);
	free(small);
	free(large);
}

static void nonsense_is_the_formats_to_refuse(void **state)
{
	static const char *const bad[] = { "", "nonsense", "[]", "1", "{\"messages\":1}",
		"{\"messages\":[1,null,{\"content\":{\"a\":[]}}]}", "{\"model\":[]}",
		"{\"response_format\":1}", "{\"tools\":{}}" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct survey s = of(bad[i]);

		assert_string_equal(model, "");
		assert_int_equal(s.max_tokens, 0);
	}
}

/* However deep: nothing goes down into it. */
static void depth_is_no_danger(void **state)
{
	static char json[400000];
	size_t n = 0, depth = 150000;

	(void)state;
	n = (size_t)snprintf(json, sizeof(json), "{\"tools\":[");
	memset(json + n, '[', depth);
	memset(json + n + depth, ']', depth);
	snprintf(json + n + 2 * depth, sizeof(json) - n - 2 * depth, "]}");
	assert_int_equal(of(json).capabilities, TARGET_TOOLS);
}

static void a_model_too_long_for_a_name_is_none(void **state)
{
	char *json = long_request(256, "{\"model\":\"", "\"}");
	char *longer = long_request(257, "{\"model\":\"", "\"}");

	(void)state;
	of(json);
	assert_int_equal(strlen(model), 256);
	of(longer);
	assert_string_equal(model, "");
	of("{\"model\":\"a\\u0000b\"}");
	assert_string_equal(model, "");
	free(json);
	free(longer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_plain_request_needs_nothing),
		cmocka_unit_test(each_need_is_seen),
		cmocka_unit_test(the_newer_maximum_goes_before_the_older),
		cmocka_unit_test(several_answers_may_be_as_long_each),
		cmocka_unit_test(depth_is_no_danger),
		cmocka_unit_test(longer_texts_are_more_tokens),
		cmocka_unit_test(an_image_counts_as_one_whatever_its_bytes),
		cmocka_unit_test(nonsense_is_the_formats_to_refuse),
		cmocka_unit_test(a_model_too_long_for_a_name_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
