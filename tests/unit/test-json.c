#include "proto/json.h"
#include "tests/unit/alloc-watch.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <math.h>

static void expect_text(struct json *j, bool pretty, const char *text)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;

	assert_int_equal(buffer_append(&out, ">", 1), 0);
	assert_int_equal(json_finish(j, pretty, &out), 0);
	assert_int_equal(buffer_append(&out, "", 1), 0);
	assert_string_equal(buffer_head(&out) + 1, text);
	assert_int_equal(buffer_head(&out)[0], '>');
}

static void expect_misuse(struct json *j)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;

	assert_int_equal(json_finish(j, false, &out), -EINVAL);
	assert_int_equal(buffer_length(&out), 0);
}

static void builds_in_order(void **state)
{
	aux_cleanup(json_freep) struct json *j = json_new();

	(void)state;
	json_object_begin(j, NULL);
	json_str(j, "s", str_of("quote \" and \xe2\x82\xac"));
	json_uint(j, "u", UINT64_MAX);
	json_int(j, "i", INT64_MIN);
	json_real(j, "r", 0.5);
	json_bool(j, "b", true);
	json_array_begin(j, "a");
	json_uint(j, NULL, 1);
	json_object_begin(j, NULL);
	json_str(j, "empty", STR_NULL);
	json_object_end(j);
	json_array_end(j);
	json_object_end(j);
	expect_text(j, false,
		"{\"s\":\"quote \\\" and \xe2\x82\xac\",\"u\":18446744073709551615,"
		"\"i\":-9223372036854775808,\"r\":0.5,\"b\":true,"
		"\"a\":[1,{\"empty\":\"\"}]}");
}

static void pretty_is_indented(void **state)
{
	aux_cleanup(json_freep) struct json *j = json_new();

	(void)state;
	json_object_begin(j, NULL);
	json_uint(j, "k", 1);
	json_object_end(j);
	expect_text(j, true, "{\n  \"k\": 1\n}");
}

/* What the caller gave in is copied: it may be gone before the end. */
static void strings_and_keys_are_copied(void **state)
{
	aux_cleanup(json_freep) struct json *j = json_new();
	char key[] = "key", value[] = "value";

	(void)state;
	json_object_begin(j, NULL);
	json_str(j, key, str_of(value));
	memset(key, 'x', 3);
	memset(value, 'x', 5);
	json_object_end(j);
	expect_text(j, false, "{\"key\":\"value\"}");
}

static void raw_keeps_every_digit(void **state)
{
	aux_cleanup(json_freep) struct json *j = json_new();

	(void)state;
	json_array_begin(j, NULL);
	json_raw(j, NULL, str_of(" {\"n\": 12345678901234567890123, \"f\": 1.10} "));
	json_array_end(j);
	expect_text(j, false, "[{\"n\":12345678901234567890123,\"f\":1.10}]");
}

static void bad_raw_text_is_reported(void **state)
{
	static const char *const texts[] = { "", "{", "{} {}", "{\"a\":}", "\"\xff\"", "nul" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		aux_cleanup(json_freep) struct json *j = json_new();

		json_array_begin(j, NULL);
		json_raw(j, NULL, str_of(texts[i]));
		json_array_end(j);
		expect_misuse(j);
	}
}

static void bad_values_are_reported(void **state)
{
	aux_cleanup(json_freep) struct json *a = json_new(), *b = json_new();

	(void)state;
	json_str(a, NULL, str_of("\xff"));
	expect_misuse(a);
	json_real(b, NULL, NAN);
	expect_misuse(b);
}

static void value_without_key(struct json *j)
{
	json_object_begin(j, NULL);
	json_uint(j, NULL, 1);
	json_object_end(j);
}

static void key_in_array(struct json *j)
{
	json_array_begin(j, NULL);
	json_uint(j, "k", 1);
	json_array_end(j);
}

static void key_for_root(struct json *j)
{
	json_uint(j, "k", 1);
}

static void two_roots(struct json *j)
{
	json_uint(j, NULL, 1);
	json_uint(j, NULL, 2);
}

static void not_closed(struct json *j)
{
	json_object_begin(j, NULL);
}

static void closed_as_another(struct json *j)
{
	json_object_begin(j, NULL);
	json_array_end(j);
}

static void closed_twice(struct json *j)
{
	json_object_begin(j, NULL);
	json_object_end(j);
	json_object_end(j);
}

static void empty(struct json *j)
{
	(void)j;
}

static void nested_33(struct json *j)
{
	for (int i = 0; i < 33; i++)
		json_array_begin(j, NULL);
	for (int i = 0; i < 33; i++)
		json_array_end(j);
}

static void misuse_is_reported(void **state)
{
	void (*const misuses[])(struct json *) = { value_without_key, key_in_array, key_for_root,
		two_roots, not_closed, closed_as_another, closed_twice, empty, nested_33 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(misuses); i++) {
		aux_cleanup(json_freep) struct json *j = json_new();

		misuses[i](j);
		expect_misuse(j);
	}
}

static void depth_32_works(void **state)
{
	aux_cleanup(json_freep) struct json *j = json_new();
	char text[65] = { 0 };

	(void)state;
	memset(text, '[', 32);
	memset(text + 32, ']', 32);
	for (int i = 0; i < 32; i++)
		json_array_begin(j, NULL);
	for (int i = 0; i < 32; i++)
		json_array_end(j);
	expect_text(j, false, text);
}

static int build_small(struct buffer *out)
{
	aux_cleanup(json_freep) struct json *j = json_new();

	if (!j)
		return -ENOMEM;
	json_object_begin(j, NULL);
	json_str(j, "s", str_of("text"));
	json_raw(j, "r", str_of("[1,2]"));
	json_object_end(j);
	return json_finish(j, false, out);
}

/* Each allocation fails once: never a crash, never half a document. */
static void lack_of_memory_is_reported(void **state)
{
	size_t n = 1;
	int r;

	(void)state;
	do {
		aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;

		alloc_watch_begin(n);
		r = build_small(&out);
		alloc_watch_end();
		assert_true(r == 0 || (r == -ENOMEM && buffer_length(&out) == 0));
	} while (r != 0 && n++ < 100);
	assert_int_equal(r, 0);
	assert_true(n > 3 || !ALLOC_WATCH_CAN_FAIL);
}

static void objects_are_recognised(void **state)
{
	size_t position = 99;

	(void)state;
	assert_true(json_is_object(str_of(" {\"a\": [1, 2]} \n"), &position));
	assert_false(json_is_object(str_of("[1]"), &position));
	assert_int_equal(position, 0);
	assert_false(json_is_object(str_of("{\"a\": x}"), &position));
	assert_int_equal(position, 6);
	assert_false(json_is_object(str_of("{} {}"), &position));
	assert_int_equal(position, 3);
	assert_false(json_is_object(str_of("{\"a\":\"\xff\"}"), &position));
	assert_false(json_is_object(STR_NULL, &position));
	assert_int_equal(position, 0);
}

static int append_line(void *context, const char *path, struct str value)
{
	return buffer_printf(context, "%s=%.*s;", path, STR_ARG(value));
}

static int stop_at_once(void *context, const char *path, struct str value)
{
	(void)path;
	(void)value;
	return ++*(int *)context + 6;
}

static void flatten_gives_each_scalar_its_path(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;
	int calls = 0;

	(void)state;
	assert_int_equal(json_flatten(str_of("{\"a\":1,\"b\":[{\"c\":\"x y\"},null,[true]],"
					     "\"e\":{},\"f\":-0.5}"),
				 append_line, &out),
		0);
	assert_int_equal(buffer_append(&out, "", 1), 0);
	assert_string_equal(buffer_head(&out), "a=1;b[0].c=x y;b[1]=null;b[2][0]=true;f=-0.5;");
	assert_int_equal(json_flatten(str_of("[1,2]"), stop_at_once, &calls), 7);
	assert_int_equal(calls, 1);
}

static void flatten_refuses_what_is_too_deep_or_long(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer deep = BUFFER_NULL, wide = BUFFER_NULL;
	int calls = 0;

	(void)state;
	assert_int_equal(json_flatten(str_of("{"), stop_at_once, &calls), -EINVAL);
	for (int i = 0; i < 33; i++)
		assert_int_equal(buffer_append(&deep, "[", 1), 0);
	assert_int_equal(buffer_append(&deep, "1", 1), 0);
	for (int i = 0; i < 33; i++)
		assert_int_equal(buffer_append(&deep, "]", 1), 0);
	assert_int_equal(json_flatten(buffer_str(&deep), stop_at_once, &calls), -EINVAL);
	assert_int_equal(buffer_printf(&wide, "{\"%256d\":1}", 0), 0);
	assert_int_equal(json_flatten(buffer_str(&wide), stop_at_once, &calls), -EINVAL);
	assert_int_equal(calls, 0);
	buffer_reset(&wide, SIZE_MAX);
	assert_int_equal(buffer_printf(&wide, "{\"%255d\":1}", 0), 0);
	assert_int_equal(json_flatten(buffer_str(&wide), stop_at_once, &calls), 7);
}

static void string_members_are_copied_out(void **state)
{
	const struct str text = str_of("{\"s\":\"four\",\"n\":4}");
	char out[5];

	(void)state;
	assert_true(json_get_str(text, "s", out, sizeof(out)));
	assert_string_equal(out, "four");
	assert_false(json_get_str(text, "s", out, sizeof(out) - 1));
	assert_false(json_get_str(text, "n", out, sizeof(out)));
	assert_false(json_get_str(text, "absent", out, sizeof(out)));
	assert_false(json_get_str(str_of("["), "s", out, sizeof(out)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(builds_in_order),
		cmocka_unit_test(pretty_is_indented),
		cmocka_unit_test(strings_and_keys_are_copied),
		cmocka_unit_test(raw_keeps_every_digit),
		cmocka_unit_test(bad_raw_text_is_reported),
		cmocka_unit_test(bad_values_are_reported),
		cmocka_unit_test(misuse_is_reported),
		cmocka_unit_test(depth_32_works),
		cmocka_unit_test(lack_of_memory_is_reported),
		cmocka_unit_test(objects_are_recognised),
		cmocka_unit_test(flatten_gives_each_scalar_its_path),
		cmocka_unit_test(flatten_refuses_what_is_too_deep_or_long),
		cmocka_unit_test(string_members_are_copied_out),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
