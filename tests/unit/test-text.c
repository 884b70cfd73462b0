/* Nothing that another process wrote reaches a terminal but what can be seen. */

#include <locale.h>
#include <string.h>
#include <stdio.h>
#include "base/aux.h"
#include "proto/utf8.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/splitmix.h"
#include "tools/text.h"

static void is_cleaned_to(const char *dirty, const char *clean)
{
	char text[128];

	snprintf(text, sizeof(text), "%s", dirty);
	text_clean(text);
	assert_string_equal(text, clean);
}

static void what_is_no_text_becomes_question_marks(void **state)
{
	(void)state;
	is_cleaned_to("provider openai", "provider openai");
	is_cleaned_to("żółw 東京", "żółw 東京");
	is_cleaned_to("\033[2J\n\r\t\x7f", "?[2J????");
	/* U+009B is what ESC [ is, in one character. */
	is_cleaned_to("a\xc2\x9b"
		      "2Jb",
		"a??2Jb");
	is_cleaned_to("\xc2\x80\xc2\x9f\xc2\xa0", "????\xc2\xa0");
	is_cleaned_to("\xff\xfe\xc3", "???");
	/* Right to left, isolates, separators, no width, byte order. */
	is_cleaned_to("\xe2\x80\xae\xe2\x81\xa6\xe2\x80\xa8\xef\xbb\xbf", "????????????");
	is_cleaned_to("\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80");
}

static void any_bytes_become_clean(void **state)
{
	uint64_t seed = 11;
	char text[65], again[65];

	(void)state;
	for (int round = 0; round < 20000; round++) {
		for (size_t i = 0; i < 64; i++)
			text[i] = (char)splitmix_next(&seed);
		text[splitmix_next(&seed) % 64] = '\0';
		text[64] = '\0';
		text_clean(text);
		assert_true(utf8_is_name(str_of(text)));
		memcpy(again, text, sizeof(text));
		text_clean(again);
		assert_string_equal(again, text);
	}
}

static void columns_are_those_of_a_terminal(void **state)
{
	unsigned columns;

	(void)state;
	assert_non_null(setlocale(LC_CTYPE, "C.UTF-8"));
	assert_true(text_locale_is_utf8());
	assert_int_equal(text_next("", &columns), 0);
	assert_int_equal(text_next("a", &columns), 1);
	assert_int_equal(columns, 1);
	assert_int_equal(text_next("é", &columns), 2);
	assert_int_equal(columns, 1);
	assert_int_equal(text_next("東", &columns), 3);
	assert_int_equal(columns, 2);
	assert_int_equal(text_next("\xcc\x81", &columns), 2);
	assert_int_equal(columns, 0);
	assert_non_null(setlocale(LC_CTYPE, "C"));
	assert_false(text_locale_is_utf8());
	assert_int_equal(text_next("東", &columns), 3);
	assert_int_equal(columns, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_no_text_becomes_question_marks),
		cmocka_unit_test(any_bytes_become_clean),
		cmocka_unit_test(columns_are_those_of_a_terminal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
