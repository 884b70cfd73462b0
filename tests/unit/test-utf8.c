#include "proto/utf8.h"
#include "base/aux.h"
#include "tests/unit/cmocka-all.h"

static const char *const good[] = {
	"",
	"a",
	"plain text longer than one word of eight",
	"\x7f",
	"\xc2\x80",
	"\xdf\xbf",
	"\xe0\xa0\x80",
	"\xed\x9f\xbf",
	"\xee\x80\x80",
	"\xef\xbf\xbf",
	"\xf0\x90\x80\x80",
	"\xf4\x8f\xbf\xbf",
	"seven..\xe2\x82\xac and on",
	"eight...\xf0\x9f\x98\x80",
};

static const char *const bad[] = {
	"\x80",
	"\xbf",
	"\xc0\x80",
	"\xc1\xbf",
	"\xc2",
	"\xc2\x41",
	"\xe0\x9f\xbf",
	"\xe2\x82",
	"\xe2\x82\x41",
	"\xed\xa0\x80",
	"\xed\xbf\xbf",
	"\xf0\x8f\xbf\xbf",
	"\xf0\x9f\x98",
	"\xf0\x9f\x41\x80",
	"\xf4\x90\x80\x80",
	"\xf5\x80\x80\x80",
	"\xfe",
	"\xff",
	"eight...\xff",
	"sixteen bytes...\xe2\x82",
};

static void valid_sequences_pass(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(good); i++)
		assert_true(utf8_is_valid(str_of(good[i])));
	assert_true(utf8_is_valid(STR_NULL));
	assert_true(utf8_is_valid(str_make("\0", 1)));
}

static void invalid_sequences_do_not(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		if (utf8_is_valid(str_of(bad[i])))
			fail_msg("bad sequence %zu passed", i);
	}
}

/* A three-byte character is whole or invalid wherever it falls against the words of eight. */
static void every_alignment_and_cut(void **state)
{
	char text[32];

	(void)state;
	for (size_t at = 0; at + 3 <= sizeof(text); at++) {
		memset(text, 'x', sizeof(text));
		memcpy(text + at, "\xe2\x82\xac", 3);
		for (size_t n = 0; n <= sizeof(text); n++)
			assert_int_equal(
				utf8_is_valid(str_make(text, n)), !(n == at + 1 || n == at + 2));
	}
}

static void names_have_no_control_characters(void **state)
{
	(void)state;
	assert_true(utf8_is_name(str_of("openai/gpt-4o mini \xe2\x82\xac")));
	assert_false(utf8_is_name(str_of("two\nlines")));
	assert_false(utf8_is_name(str_of("\x1b[31m")));
	assert_false(utf8_is_name(str_of("\x7f")));
	assert_false(utf8_is_name(str_make("a\0b", 3)));
	assert_false(utf8_is_name(str_of("\xff")));
}

static void repair_keeps_what_is_valid(void **state)
{
	char text[] = "a\xff\xe2\x82\xac\xe2\x82";

	(void)state;
	utf8_repair(text, sizeof(text) - 1);
	assert_string_equal(text, "a?\xe2\x82\xac??");
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char copy[32] = { 0 };
		size_t length = strlen(bad[i]);

		memcpy(copy, bad[i], length);
		utf8_repair(copy, length);
		assert_true(utf8_is_valid(str_make(copy, length)));
		assert_int_equal(strlen(copy), length);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(valid_sequences_pass),
		cmocka_unit_test(invalid_sequences_do_not),
		cmocka_unit_test(every_alignment_and_cut),
		cmocka_unit_test(names_have_no_control_characters),
		cmocka_unit_test(repair_keeps_what_is_valid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
