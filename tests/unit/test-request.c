/* What the formats build out of a client's request: snapshots, and refusals by their words. */

#include "base/aux.h"
#include "daemon/formats/format.h"
#include "tests/unit/cmocka-all.h"

#include <string.h>

#define USER "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"

struct row {
	const char *family, *body, *want; /* JSON; or, when it does not begin with '{', the words */
};

static int build(const struct row *row, struct str body, struct buffer *out,
	struct format_plan *plan, const char **why)
{
	const struct family *f = family_find(str_of(row->family));
	struct format_request q = { .family = f, .body = body, .model = str_of("up\"m") };

	return format_find(f->format)->build(&q, out, plan, why);
}

static void expect(const struct row *row)
{
	struct buffer out = BUFFER_NULL;
	struct format_plan plan;
	const char *why = NULL;
	bool good = row->want[0] == '{';
	int r;

	if (!family_find(str_of(row->family)))
		return;
	assert_int_equal(buffer_append(&out, "x", 1), 0); /* it appends */
	r = build(row, str_of(row->body), &out, &plan, &why);
	assert_int_equal(r, good ? 0 : FORMAT_E_REQUEST);
	if (!good)
		assert_int_equal(buffer_length(&out), 1);
	buffer_consume(&out, 1);
	if (good ? !str_is(buffer_str(&out), row->want) : strcmp(why, row->want) != 0)
		fail_msg("%s\n got  %.*s\n want %s", row->body,
			STR_ARG(good ? buffer_str(&out) : str_of(why)), row->want);
	buffer_deinit(&out);
}

static void expect_rows(const struct row *rows, size_t count)
{
	for (size_t i = 0; i < count; i++)
		expect(&rows[i]);
}

static void openai_passes_everything_on(void **state)
{
	static const struct row rows[] = {
		{ "openai", "{" USER "}", "{" USER ",\"model\":\"up\\\"m\"}" },
		{ "openai", " { \"model\" : \"x\", " USER " } ",
			"{\"model\":\"up\\\"m\"," USER "}" },
		/* order, unknown members, the digits of numbers */
		{ "openai",
			"{\"z\":[1.10,1e400,12345678901234567890123,-0.0],\"model\":\"x\",\"a\":{"
			"\"b\":null}," USER ",\"temperature\":0.70,\"seed\":7,\"n\":1}",
			"{\"z\":[1.10,1e400,12345678901234567890123,-0.0],\"model\":\"up\\\"m\","
			"\"a\":{"
			"\"b\":null}," USER ",\"temperature\":0.70,\"seed\":7,\"n\":1}" },
		{ "openai", "{" USER ",\"stream\":false,\"model\":1}",
			"{" USER ",\"stream\":false,\"model\":\"up\\\"m\"}" },
		{ "openai", "{" USER ",\"stream\":null,\"n\":null,\"model\":1}",
			"{" USER ",\"stream\":null,\"n\":null,\"model\":\"up\\\"m\"}" },
		{ "openai", "{" USER ",\"x\":\"\\u00e9\\n\\ud83c\\udf0d\",\"model\":1}",
			"{" USER ",\"x\":\"\xc3\xa9\\n\xf0\x9f\x8c\x8d\",\"model\":\"up\\\"m\"}" },
	};

	(void)state;
	expect_rows(rows, ARRAY_SIZE(rows));
}

static void openai_streams_with_usage(void **state)
{
	static const struct row rows[] = {
		{ "openai", "{\"model\":1," USER ",\"stream\":true}",
			"{\"model\":\"up\\\"m\"," USER
			",\"stream\":true,\"stream_options\":{\"include_usage\":true}}" },
		{ "openai",
			"{\"model\":1,\"stream_options\":{\"a\":1,\"include_usage\":false},"
			"\"stream\":"
			"true," USER "}",
			"{\"model\":\"up\\\"m\",\"stream_options\":{\"include_usage\":"
			"true,\"a\":1},\"stream\":true," USER "}" },
		{ "openai", "{\"model\":1,\"stream_options\":null,\"stream\":true," USER "}",
			"{\"model\":\"up\\\"m\",\"stream_options\":{\"include_usage\":true},"
			"\"stream\":"
			"true," USER "}" },
		{ "mistral",
			"{\"model\":1," USER ",\"stream\":true,\"stream_options\":{},\"seed\":42}",
			"{\"model\":\"up\\\"m\"," USER ",\"stream\":true,\"random_seed\":42}" },
		{ "perplexity", "{\"model\":1," USER ",\"stream\":true}",
			"{\"model\":\"up\\\"m\"," USER ",\"stream\":true}" },
	};

	(void)state;
	expect_rows(rows, ARRAY_SIZE(rows));
}

/* The same for every format. */
static void bad_requests_are_refused_with_words(void **state)
{
	static const struct row rows[] = {
		{ NULL, "", "the request is not JSON: it is empty at byte 0 of 0" },
		{ NULL, "{\"a\":1,}",
			"the request is not JSON: trailing comma is not allowed at byte 6 "
			"of 8" },
		{ NULL, "{} x",
			"the request is not JSON: unexpected content after document at byte 3 "
			"of 4" },
		{ NULL, "[1]", "the request is array; it must be a JSON object" },
		{ NULL, "{\"a\":1}", "\"messages\" must be an array of at least one message" },
		{ NULL, "{\"messages\":[]}",
			"\"messages\" must be an array of at least one message" },
		{ NULL, "{\"messages\":{\"a\":1}}",
			"\"messages\" must be an array of at least one message" },
		{ NULL, "{" USER ",\"stream\":1}", "\"stream\" must be true or false" },
		{ NULL, "{" USER ",\"n\":2}", "\"n\" must be 1: one answer per request" },
		{ NULL, "{" USER ",\"n\":\"1\"}", "\"n\" must be 1: one answer per request" },
		{ NULL, "{" USER ",\"n\":1.0}", "\"n\" must be 1: one answer per request" },
		{ NULL, "{" USER "," USER "}", "the request has \"messages\" twice" },
		{ NULL, "{" USER ",\"model\":1,\"mod\\u0065l\":2}",
			"the request has \"model\" twice" },
	};
	static const char *const families[] = { "openai", "anthropic" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows) * ARRAY_SIZE(families); i++) {
		struct row row = rows[i / 2];

		row.family = families[i % 2];
		expect(&row);
	}
}

static void the_plan_says_whether_it_streams(void **state)
{
	static const char *const families[] = { "openai", "anthropic" };
	static const struct {
		const char *body;
		bool stream;
	} rows[] = {
		{ "{" USER "}", false },
		{ "{" USER ",\"stream\":null}", false },
		{ "{" USER ",\"stream\":false}", false },
		{ "{" USER ",\"stream\":true}", true },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows) * ARRAY_SIZE(families); i++) {
		struct row row = { .family = families[i % 2] };
		struct buffer out = BUFFER_NULL;
		struct format_plan plan;
		const char *why = NULL;

		if (!family_find(str_of(row.family)))
			continue;
		assert_int_equal(build(&row, str_of(rows[i / 2].body), &out, &plan, &why), 0);
		assert_int_equal(plan.stream, rows[i / 2].stream);
		buffer_deinit(&out);
	}
}

#define HEAD "{\"model\":\"up\\\"m\",\"max_tokens\":4096"
#define MESSAGES(...) "{\"messages\":[" __VA_ARGS__ "]}"
#define BUILT(...) HEAD ",\"messages\":[" __VA_ARGS__ "]}"

static void anthropic_parameters(void **state)
{
	static const struct row rows[] = {
		{ "anthropic", "{" USER "}", HEAD "," USER "}" },
		{ "anthropic", "{" USER ",\"max_tokens\":7}",
			"{\"model\":\"up\\\"m\",\"max_tokens\":7," USER "}" },
		{ "anthropic", "{" USER ",\"max_tokens\":7,\"max_completion_tokens\":9}",
			"{\"model\":\"up\\\"m\",\"max_tokens\":9," USER "}" },
		{ "anthropic", "{\"stream\":true,\"max_tokens\":null," USER "}",
			HEAD ",\"stream\":true," USER "}" },
		{ "anthropic", "{" USER ",\"stop\":\"a\"}",
			HEAD "," USER ",\"stop_sequences\":[\"a\"]}" },
		{ "anthropic", "{" USER ",\"stop\":[\"a\",\"b\"]}",
			HEAD "," USER ",\"stop_sequences\":[\"a\",\"b\"]}" },
		{ "anthropic", "{" USER ",\"stop\":null,\"user\":\"u1\"}",
			HEAD "," USER ",\"metadata\":{\"user_id\":\"u1\"}}" },
		{ "anthropic", "{" USER ",\"user\":\"u1\",\"metadata\":{\"user_id\":\"u2\"}}",
			HEAD "," USER ",\"metadata\":{\"user_id\":\"u2\"}}" },
		/* its own members pass through, OpenAI's do not */
		{ "anthropic",
			"{\"temperature\":0.50,\"top_k\":5,\"thinking\":{\"type\":\"enabled\","
			"\"budget_tokens\":1024}," USER ",\"top_p\":1.0}",
			HEAD "," USER
			     ",\"temperature\":0.50,\"top_k\":5,\"thinking\":{\"type\":\"enabled\","
			     "\"budget_tokens\":1024},\"top_p\":1.0}" },
		{ "anthropic",
			"{" USER ",\"n\":1,\"logprobs\":true,\"top_logprobs\":1,\"logit_bias\":{},"
			"\"frequency_penalty\":1,\"presence_penalty\":1,\"seed\":1,\"stream_"
			"options\":{},"
			"\"parallel_tool_calls\":true,\"response_format\":{\"type\":\"text\"},"
			"\"store\":true,\"reasoning_effort\":\"low\"}",
			HEAD "," USER "}" },
		{ "anthropic", "{" USER ",\"response_format\":{\"type\":\"json_schema\"}}",
			"\"response_format\" other than text cannot be sent to Anthropic; ask for "
			"JSON in "
			"the prompt or through a tool" },
		{ "anthropic", "{" USER ",\"functions\":[]}",
			"\"functions\" and \"function_call\" are "
			"obsolete; use \"tools\" and \"tool_choice\"" },
	};

	(void)state;
	expect_rows(rows, ARRAY_SIZE(rows));
}

static void anthropic_system(void **state)
{
	static const struct row rows[] = {
		{ "anthropic",
			MESSAGES("{\"role\":\"system\",\"content\":\"S\"},"
				 "{\"role\":\"user\",\"content\":\"Hi\"}"),
			HEAD ",\"system\":\"S\"," USER "}" },
		{ "anthropic",
			MESSAGES("{\"role\":\"developer\",\"content\":[{\"type\":\"text\","
				 "\"text\":\"S\",\"cache_control\":{\"type\":\"ephemeral\"}}]},"
				 "{\"role\":\"user\",\"content\":\"Hi\"},{\"role\":\"system\","
				 "\"content\":\"T\"}"),
			HEAD ",\"system\":[{\"type\":\"text\",\"text\":\"S\",\"cache_control\":"
			     "{\"type\":\"ephemeral\"}},{\"type\":\"text\",\"text\":\"T\"}]," USER
			     "}" },
		{ "anthropic", "{\"system\":\"N\"," USER "}", HEAD ",\"system\":\"N\"," USER "}" },
		{ "anthropic",
			"{\"system\":[{\"type\":\"text\",\"text\":\"N\"}],\"messages\":[{\"role\":"
			"\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"Hi\"}]}",
			HEAD ",\"system\":[{\"type\":\"text\",\"text\":\"N\"},{\"type\":\"text\","
			     "\"text\":\"S\"}]," USER "}" },
		{ "anthropic",
			MESSAGES("{\"role\":\"system\"},{\"role\":\"user\",\"content\":\"Hi\"}"),
			"messages[0]: \"content\" must be a string or an array" },
	};

	(void)state;
	expect_rows(rows, ARRAY_SIZE(rows));
}

static void anthropic_content(void **state)
{
	static const struct row rows[] = {
		{ "anthropic",
			MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
				 "\"See\"},{\"type\":\"text\",\"text\":\"\"},{\"type\":\"image_"
				 "url\",\"image_url\":"
				 "{\"url\":\"data:image/"
				 "png;base64,iVBORw0K\"}},{\"type\":\"image_url\","
				 "\"image_url\":{\"url\":\"https://e.org/"
				 "a.png\"},\"cache_control\":{\"type\":"
				 "\"ephemeral\"}}]}"),
			BUILT("{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"See\"}"
			      ","
			      "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":"
			      "\"image/png\","
			      "\"data\":\"iVBORw0K\"}},{\"type\":\"image\",\"source\":{\"type\":"
			      "\"url\",\"url\":"
			      "\"https://e.org/"
			      "a.png\"},\"cache_control\":{\"type\":\"ephemeral\"}}]}") },
		/* Anthropic's own blocks */
		{ "anthropic",
			MESSAGES("{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
				 "\"thinking\":\"t\",\"signature\":\"s\"},{\"type\":\"refusal\","
				 "\"refusal\":\"no\"}]}"),
			BUILT("{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
			      "\"thinking\":"
			      "\"t\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":\"no\"}]}") },
		{ "anthropic",
			MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
				 "\"image_url\":{\"url\":\"ftp://x\"}}]}"),
			"messages[0]: image_url.url must be an "
			"http(s) address or a data: URL in base64" },
		{ "anthropic",
			MESSAGES("{\"role\":\"user\",\"content\":[{\"type\":\"input_audio\"}]}"),
			"messages[0]: content of type \"input_audio\" cannot be sent to "
			"Anthropic" },
		{ "anthropic", MESSAGES("{\"role\":\"user\",\"content\":[7]}"),
			"messages[0]: a content part must be an object" },
		{ "anthropic", MESSAGES("{\"role\":\"user\",\"content\":7}"),
			"messages[0]: \"content\" must be a string or an array" },
		{ "anthropic", MESSAGES("{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"bot\"}"),
			"messages[1]: \"role\" must be system, developer, user, assistant or "
			"tool" },
		{ "anthropic", MESSAGES("1"),
			"messages[0]: \"role\" must be system, developer, user, assistant or "
			"tool" },
	};

	(void)state;
	expect_rows(rows, ARRAY_SIZE(rows));
}

static void anthropic_tool_calls_and_results(void **state)
{
	static const struct row rows[] = {
		{ "anthropic",
			MESSAGES("{\"role\":\"assistant\",\"content\":\"Ok\",\"tool_calls\":["
				 "{\"id\":\"a\",\"type\":\"function\",\"function\":{\"name\":\"f\","
				 "\"arguments\":"
				 "\"{\\\"n\\\":12345678901234567890123,\\\"x\\\":1.50}\"}},{\"id\":"
				 "\"b\",\"function\":"
				 "{\"name\":\"g\",\"arguments\":\"\"}}]},{\"role\":\"tool\",\"tool_"
				 "call_id\":\"a\","
				 "\"content\":\"1\"},{\"role\":\"tool\",\"tool_call_id\":\"b\","
				 "\"content\":[{\"type\":"
				 "\"text\",\"text\":\"2\"}]},{\"role\":\"user\",\"content\":"
				 "\"Hi\"}"),
			BUILT("{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":"
			      "\"Ok\"},"
			      "{\"type\":\"tool_use\",\"id\":\"a\",\"name\":\"f\",\"input\":{\"n\":"
			      "12345678901234567890123,\"x\":1.50}},{\"type\":\"tool_use\",\"id\":"
			      "\"b\",\"name\":"
			      "\"g\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":"
			      "\"tool_result\","
			      "\"tool_use_id\":\"a\",\"content\":\"1\"},{\"type\":\"tool_result\","
			      "\"tool_use_id\":"
			      "\"b\",\"content\":[{\"type\":\"text\",\"text\":\"2\"}]}]},{\"role\":"
			      "\"user\","
			      "\"content\":\"Hi\"}") },
		{ "anthropic",
			MESSAGES("{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{"
				 "\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]"
				 "},{\"role\":"
				 "\"tool\",\"tool_call_id\":\"a\",\"content\":\"\"}"),
			BUILT("{\"role\":\"assistant\",\"content\":[{\"type\":\"tool_use\",\"id\":"
			      "\"a\","
			      "\"name\":\"f\",\"input\":{}}]},{\"role\":\"user\",\"content\":[{"
			      "\"type\":"
			      "\"tool_result\",\"tool_use_id\":\"a\",\"content\":\"\"}]}") },
		{ "anthropic",
			MESSAGES("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\","
				 "\"function\":{\"name\":\"f\",\"arguments\":\"[1]\"}}]}"),
			"messages[0]: the arguments of a tool call must be a JSON object in a "
			"string" },
		{ "anthropic", MESSAGES("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\"}]}"),
			"messages[0]: a tool call needs an \"id\" and a \"function\" with a "
			"\"name\"" },
		{ "anthropic", MESSAGES("{\"role\":\"tool\",\"content\":\"x\"}"),
			"messages[0]: a tool's message needs \"tool_call_id\"" },
	};

	(void)state;
	expect_rows(rows, ARRAY_SIZE(rows));
}

#define TOOL_IN \
	"{\"type\":\"function\",\"function\":{\"name\":\"f\",\"description\":\"d\"," \
	"\"parameters\":{\"type\":\"object\"},\"strict\":true}}"
#define TOOL_OUT "{\"name\":\"f\",\"description\":\"d\",\"input_schema\":{\"type\":\"object\"}}"

static void anthropic_tools(void **state)
{
	static const struct row rows[] = {
		{ "anthropic",
			"{" USER ",\"tools\":[" TOOL_IN ",{\"type\":\"function\",\"function\":"
			"{\"name\":\"g\"},\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":"
			"\"web_search_20250305\",\"name\":\"web_search\"}]}",
			HEAD
			"," USER ",\"tools\":[" TOOL_OUT
			",{\"name\":\"g\",\"input_schema\":{\"type\":"
			"\"object\",\"properties\":{}},\"cache_control\":{\"type\":\"ephemeral\"}},"
			"{\"type\":\"web_search_20250305\",\"name\":\"web_search\"}]}" },
		{ "anthropic", "{" USER ",\"tools\":[" TOOL_IN "],\"tool_choice\":\"auto\"}",
			HEAD "," USER ",\"tools\":[" TOOL_OUT
			     "],\"tool_choice\":{\"type\":\"auto\"}}" },
		{ "anthropic", "{" USER ",\"tool_choice\":\"none\",\"parallel_tool_calls\":false}",
			HEAD "," USER ",\"tool_choice\":{\"type\":\"none\"}}" },
		{ "anthropic", "{" USER ",\"tool_choice\":\"required\"}",
			HEAD "," USER ",\"tool_choice\":{\"type\":\"any\"}}" },
		{ "anthropic",
			"{" USER ",\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":"
			"\"f\"}},\"parallel_tool_calls\":false}",
			HEAD "," USER ",\"tool_choice\":{\"type\":"
			     "\"tool\",\"name\":\"f\",\"disable_parallel_tool_use\":true}}" },
		{ "anthropic", "{" USER ",\"tools\":[],\"parallel_tool_calls\":false}",
			HEAD "," USER ",\"tools\":[],\"tool_choice\":{\"type\":\"auto\",\"disable_"
			     "parallel_tool_use\":"
			     "true}}" },
		{ "anthropic", "{" USER ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}}",
			HEAD "," USER ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"f\"}}" },
		{ "anthropic", "{" USER ",\"tool_choice\":\"maybe\"}",
			"\"tool_choice\" must be auto, none, required or name a function" },
		{ "anthropic", "{" USER ",\"tools\":{}}", "\"tools\" must be an array" },
		{ "anthropic", "{" USER ",\"tools\":[{\"function\":{}}]}",
			"tools[0] needs a \"function\" with a \"name\"" },
		{ "anthropic", "{" USER ",\"tools\":[1]}",
			"tools[0] needs a \"function\" with a \"name\"" },
	};

	(void)state;
	expect_rows(rows, ARRAY_SIZE(rows));
}

static void anthropic_takes_the_models_default(void **state)
{
	const struct family *f = family_find(str_of("anthropic"));
	struct format_request q = { .family = f,
		.body = str_of("{" USER "}"),
		.model = str_of("c"),
		.max_tokens_default = 333 };
	struct buffer out = BUFFER_NULL;
	struct format_plan plan;
	const char *why = NULL;

	(void)state;
	if (!f)
		skip();
	assert_int_equal(format_find(f->format)->build(&q, &out, &plan, &why), 0);
	assert_true(str_is(buffer_str(&out), "{\"model\":\"c\",\"max_tokens\":333," USER "}"));
	buffer_deinit(&out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(openai_passes_everything_on),
		cmocka_unit_test(openai_streams_with_usage),
		cmocka_unit_test(bad_requests_are_refused_with_words),
		cmocka_unit_test(the_plan_says_whether_it_streams),
		cmocka_unit_test(anthropic_parameters),
		cmocka_unit_test(anthropic_system),
		cmocka_unit_test(anthropic_content),
		cmocka_unit_test(anthropic_tool_calls_and_results),
		cmocka_unit_test(anthropic_tools),
		cmocka_unit_test(anthropic_takes_the_models_default),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
