#include "base/buffer.h"
#include "tests/unit/cmocka-all.h"

#include <string.h>

static void append_and_consume_keep_order(void **state)
{
	struct buffer b = BUFFER_NULL;
	char expected[3000], *at = expected;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		assert_int_equal(buffer_append(&b, &(char){ (char)i }, 1), 0);
		*at++ = (char)i;
	}
	buffer_consume(&b, 400);
	assert_int_equal(buffer_length(&b), 600);
	assert_memory_equal(buffer_head(&b), expected + 400, 600);
	/* Growth over a consumed head must move the unread bytes, not the consumed ones. */
	for (int i = 0; i < 2000; i++)
		assert_int_equal(buffer_append(&b, "x", 1), 0);
	assert_int_equal(buffer_length(&b), 2600);
	assert_memory_equal(buffer_head(&b), expected + 400, 600);
	buffer_deinit(&b);
	assert_null(b.data);
}

static void printf_appends_without_terminator(void **state)
{
	struct buffer b = BUFFER_NULL;

	(void)state;
	assert_int_equal(buffer_printf(&b, "%s=%d;", "a", 7), 0);
	assert_int_equal(buffer_printf(&b, "%s", ""), 0);
	assert_int_equal(buffer_length(&b), 4);
	assert_memory_equal(buffer_head(&b), "a=7;", 4);
	buffer_deinit(&b);
}

/* Text that just fits, just does not, and needs much more than there is room for. */
static void printf_grows_at_every_edge(void **state)
{
	(void)state;
	for (int missing = -3; missing <= 300; missing++) {
		struct buffer b = BUFFER_NULL;
		int width;

		assert_int_equal(buffer_append(&b, "head", 4), 0);
		width = (int)(b.capacity - b.end) + missing;
		assert_int_equal(buffer_printf(&b, "%0*d", width, 7), 0);
		assert_int_equal(buffer_length(&b), 4 + width);
		assert_memory_equal(buffer_head(&b), "head0", 5);
		assert_int_equal(buffer_head(&b)[3 + width], '7');
		buffer_deinit(&b);
	}
}

static void wipe_leaves_no_trace(void **state)
{
	struct buffer b = BUFFER_NULL;

	(void)state;
	assert_int_equal(buffer_append(&b, "secret", 6), 0);
	buffer_consume(&b, 3);
	buffer_wipe(&b);
	assert_int_equal(buffer_length(&b), 0);
	for (size_t i = 0; i < 6; i++)
		assert_int_equal(b.data[i], 0);
	buffer_deinit(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(append_and_consume_keep_order),
		cmocka_unit_test(printf_appends_without_terminator),
		cmocka_unit_test(printf_grows_at_every_edge),
		cmocka_unit_test(wipe_leaves_no_trace),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
