/* What a terminal sends, as keys: whole, byte by byte, and what no terminal would send. */

#include <string.h>
#include "base/aux.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/splitmix.h"
#include "tools/keyboard.h"

static const struct {
	const char *bytes;
	uint32_t key[4]; /* up to KEY_NONE */
} rows[] = {
	{ "q", { 'q', KEY_NONE } },
	{ "q?", { 'q', '?', KEY_NONE } },
	{ "\r", { KEY_ENTER, KEY_NONE } },
	{ "\t", { KEY_TAB, KEY_NONE } },
	{ "\x7f\x08", { KEY_BACKSPACE, KEY_BACKSPACE, KEY_NONE } },
	{ "\033[A\033[B", { KEY_UP, KEY_DOWN, KEY_NONE } },
	{ "\033OA\033OF", { KEY_UP, KEY_END, KEY_NONE } },
	{ "\033[5~\033[6~", { KEY_PAGE_UP, KEY_PAGE_DOWN, KEY_NONE } },
	{ "\033[1~\033[4~", { KEY_HOME, KEY_END, KEY_NONE } },
	{ "\033[H\033[Z", { KEY_HOME, KEY_BACK_TAB, KEY_NONE } },
	{ "\033[0n", { KEY_REPORT, KEY_NONE } },
	{ "é東", { 0xe9, 0x6771, KEY_NONE } },
	/* Sequences that mean nothing here are no keys, nor is a part of them. */
	{ "\033[1;5Cq", { 'q', KEY_NONE } },
	{ "\033[200~q", { 'q', KEY_NONE } },
	{ "\033Pq", { KEY_ESCAPE, 'P', 'q', KEY_NONE } },
	/* Nor are bytes that are no characters, and controls. */
	{ "\xff\x80q", { 'q', KEY_NONE } },
	{ "\xc3q", { 'q', KEY_NONE } },
	{ "\x01\x02q", { 'q', KEY_NONE } },
};

static void expect(struct keyboard *k, const uint32_t *wanted)
{
	for (size_t i = 0; i < 4 && wanted[i] != KEY_NONE; i++)
		assert_int_equal(keyboard_next(k, false), wanted[i]);
	assert_int_equal(keyboard_next(k, false), KEY_NONE);
	assert_false(keyboard_has_pending(k));
}

static void bytes_become_keys(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct keyboard k = { .count = 0 };

		keyboard_feed(&k, rows[i].bytes, strlen(rows[i].bytes));
		expect(&k, rows[i].key);
	}
}

static void however_they_come(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct keyboard k = { .count = 0 };
		unsigned n = 0;

		for (const char *p = rows[i].bytes; *p; p++) {
			uint32_t key;

			keyboard_feed(&k, p, 1);
			while ((key = keyboard_next(&k, false)) != KEY_NONE)
				assert_int_equal(key, rows[i].key[n++]);
		}
		assert_int_equal(rows[i].key[n], KEY_NONE);
	}
}

static void a_lone_escape_is_the_key_when_nothing_follows(void **state)
{
	struct keyboard k = { .count = 0 };

	(void)state;
	keyboard_feed(&k, "\033", 1);
	assert_int_equal(keyboard_next(&k, false), KEY_NONE);
	assert_true(keyboard_has_pending(&k));
	assert_int_equal(keyboard_next(&k, true), KEY_ESCAPE);
	assert_false(keyboard_has_pending(&k));
	/* In the midst of a sequence, and of a character. */
	keyboard_feed(&k, "\033[5", 3);
	assert_int_equal(keyboard_next(&k, false), KEY_NONE);
	assert_int_equal(keyboard_next(&k, true), KEY_ESCAPE);
	assert_int_equal(keyboard_next(&k, true), KEY_NONE);
	keyboard_feed(&k, "\xe6\x9d", 2);
	assert_int_equal(keyboard_next(&k, false), KEY_NONE);
	assert_int_equal(keyboard_next(&k, true), KEY_NONE);
	assert_false(keyboard_has_pending(&k));
}

static void any_bytes_come_to_an_end(void **state)
{
	static const char often[] = "\033[O;0123~nA";
	uint64_t seed = 5;
	struct keyboard k = { .count = 0 };

	(void)state;
	for (int round = 0; round < 50000; round++) {
		char bytes[100];
		size_t n = splitmix_next(&seed) % sizeof(bytes), keys = 0;

		for (size_t i = 0; i < n; i++) {
			uint64_t x = splitmix_next(&seed);

			bytes[i] = x & 1 ? (char)(x >> 8) : often[(x >> 8) % sizeof(often)];
		}
		keyboard_feed(&k, bytes, n);
		while (keyboard_next(&k, round % 3 == 0) != KEY_NONE)
			assert_true(++keys <= sizeof(k.pending));
		assert_true(k.count < sizeof(k.pending));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_become_keys),
		cmocka_unit_test(however_they_come),
		cmocka_unit_test(a_lone_escape_is_the_key_when_nothing_follows),
		cmocka_unit_test(any_bytes_come_to_an_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
