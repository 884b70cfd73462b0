/* Lines, clipped to columns. */

#include <locale.h>
#include <stdio.h>
#include "base/aux.h"
#include "tests/unit/cmocka-all.h"
#include "tools/canvas.h"

static void line_is(const struct canvas *c, unsigned line, const char *text)
{
	struct str s = buffer_str(&c->line[line]);
	char got[256];

	snprintf(got, sizeof(got), "%.*s", STR_ARG(s));
	assert_string_equal(got, text);
}

static struct canvas canvas_of(unsigned width, unsigned height, bool utf8, bool color)
{
	struct canvas c = { .utf8 = utf8, .color = color };

	canvas_clear(&c, width, height);
	return c;
}

static void text_is_clipped_to_columns(void **state)
{
	struct canvas c = canvas_of(5, 0, true, false);

	(void)state;
	assert_true(canvas_begin(&c));
	canvas_text(&c, CANVAS_PLAIN, "abc");
	canvas_text(&c, CANVAS_BAD, "defg");
	canvas_end(&c);
	line_is(&c, 0, "abcde");
	/* A wide character does not fit in half. */
	assert_true(canvas_begin(&c));
	canvas_text(&c, CANVAS_PLAIN, "東京x都");
	canvas_end(&c);
	line_is(&c, 1, "東京x");
	canvas_deinit(&c);
}

static void fields_are_cut_and_aligned(void **state)
{
	struct canvas c = canvas_of(40, 0, true, false);

	(void)state;
	canvas_begin(&c);
	canvas_field(&c, CANVAS_PLAIN, "left", 6, false);
	canvas_field(&c, CANVAS_PLAIN, "right", 7, true);
	canvas_field(&c, CANVAS_PLAIN, "too long", 4, false);
	canvas_field(&c, CANVAS_PLAIN, "東京都", 4, false);
	canvas_field(&c, CANVAS_PLAIN, "|", 1, false);
	canvas_end(&c);
	line_is(&c, 0, "left    righttoo…東… |");
	canvas_deinit(&c);
	c = canvas_of(40, 0, false, false);
	canvas_begin(&c);
	canvas_field(&c, CANVAS_PLAIN, "too long", 4, false);
	canvas_text(&c, CANVAS_PLAIN, " é");
	canvas_fill(&c, CANVAS_PLAIN, "█", '#', 3);
	canvas_end(&c);
	line_is(&c, 0, "too~ ?###");
	canvas_deinit(&c);
}

static void styles_end_with_the_line(void **state)
{
	struct canvas c = canvas_of(40, 0, true, true);

	(void)state;
	canvas_begin(&c);
	canvas_text(&c, CANVAS_PLAIN, "a");
	canvas_text(&c, CANVAS_GOOD, "b");
	canvas_text(&c, CANVAS_GOOD, "c");
	canvas_text(&c, CANVAS_BAD, "d");
	canvas_end(&c);
	line_is(&c, 0, "a\033[32mbc\033[m\033[1;31md\033[m");
	canvas_begin(&c);
	canvas_text(&c, CANVAS_PLAIN, "a   ");
	canvas_end(&c);
	line_is(&c, 1, "a");
	canvas_deinit(&c);
}

static void there_is_room_for_its_height(void **state)
{
	struct canvas c = canvas_of(10, 2, true, false);

	(void)state;
	assert_int_equal(canvas_room(&c), 2);
	assert_true(canvas_begin(&c));
	assert_true(canvas_begin(&c));
	assert_false(canvas_begin(&c));
	assert_int_equal(c.lines, 2);
	canvas_clear(&c, 10, 0);
	for (int i = 0; i < 1000; i++) {
		assert_true(canvas_begin(&c));
		canvas_printf(&c, CANVAS_PLAIN, "%d", i);
		canvas_end(&c);
	}
	line_is(&c, 999, "999");
	/* Anew: what was there is gone. */
	canvas_clear(&c, 10, 0);
	canvas_begin(&c);
	canvas_end(&c);
	line_is(&c, 0, "");
	canvas_deinit(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(text_is_clipped_to_columns),
		cmocka_unit_test(fields_are_cut_and_aligned),
		cmocka_unit_test(styles_end_with_the_line),
		cmocka_unit_test(there_is_room_for_its_height),
	};

	setlocale(LC_CTYPE, "C.UTF-8");
	return cmocka_run_group_tests(tests, NULL, NULL);
}
