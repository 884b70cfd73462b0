#include "daemon/formats/family.h"
#include "base/aux.h"
#include "daemon/formats/format.h"
#include "tests/unit/cmocka-all.h"

#include <string.h>

static void every_row_is_whole(void **state)
{
	size_t count = 0;
	const struct family *rows = family_table(&count);

	(void)state;
	assert_true(count > 0);
	for (size_t i = 0; i < count; i++) {
		const struct family *f = &rows[i];
		bool local = f->auth == FAMILY_AUTH_OPTIONAL;

		assert_ptr_equal(family_find(str_of(f->name)), f); /* so names are unique */
		assert_non_null(format_find(f->format));
		assert_int_equal(format_find(f->format)->id, f->format);
		assert_true(
			strncmp(f->base_url, local ? "http://" : "https://", local ? 7 : 8) == 0);
		assert_int_not_equal(f->base_url[strlen(f->base_url) - 1], '/');
		assert_int_equal(f->chat_path[0], '/');
		assert_int_equal(f->key_env == NULL, local);
	}
}

static void key_variables_are_unique(void **state)
{
	size_t count = 0;
	const struct family *rows = family_table(&count);

	(void)state;
	for (size_t i = 0; i < count; i++)
		for (size_t j = i + 1; j < count; j++)
			assert_false(rows[i].key_env && rows[j].key_env &&
				strcmp(rows[i].key_env, rows[j].key_env) == 0);
}

static void known_families_are_there(void **state)
{
	static const char *const openai[] = { "openai", "groq", "mistral", "deepseek", "xai",
		"together", "fireworks", "cerebras", "openrouter", "perplexity", "deepinfra",
		"nvidia", "vllm", "sglang", "llamacpp" };

	(void)state;
	for (size_t i = 0; format_find(FAMILY_FORMAT_OPENAI) && i < ARRAY_SIZE(openai); i++) {
		const struct family *f = family_find(str_of(openai[i]));

		assert_non_null(f);
		assert_int_equal(f->format, FAMILY_FORMAT_OPENAI);
	}
	if (format_find(FAMILY_FORMAT_ANTHROPIC)) {
		const struct family *f = family_find(str_of("anthropic"));

		assert_non_null(f);
		assert_int_equal(f->auth, FAMILY_AUTH_X_API_KEY);
		assert_string_equal(f->chat_path, "/v1/messages");
	}
}

static void unknown_families_are_not(void **state)
{
	(void)state;
	assert_null(family_find(STR_NULL));
	assert_null(family_find(str_of("OpenAI")));
	assert_null(family_find(str_of("open")));
	assert_null(family_find(str_of("openai ")));
}

static bool anything(const char *variable)
{
	return *variable;
}

static void families_of_a_left_out_format_are_told_apart(void **state)
{
	bool openai = family_find(str_of("openai")), anthropic = family_find(str_of("anthropic"));
	const char *key = family_left_out_key(anything);

	(void)state;
	assert_int_equal(family_is_left_out(str_of("groq")), !openai);
	assert_int_equal(family_is_left_out(str_of("anthropic")), !anthropic);
	assert_false(family_is_left_out(str_of("nobody")));
	if (openai && anthropic)
		assert_null(key);
	else
		assert_string_equal(key, openai ? "ANTHROPIC_API_KEY" : "OPENAI_API_KEY");
	assert_non_null(family_example_key());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_is_whole),
		cmocka_unit_test(key_variables_are_unique),
		cmocka_unit_test(known_families_are_there),
		cmocka_unit_test(unknown_families_are_not),
		cmocka_unit_test(families_of_a_left_out_format_are_told_apart),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
