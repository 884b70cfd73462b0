#include "proto/bounds.h"
#include "base/aux.h"
#include "tests/unit/alloc-watch.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/splitmix.h"

#include <msgpack.h>
#include <string.h>

#define CHECK(bytes_) bounds_check((bytes_), sizeof(bytes_) - 1)

static void every_plain_form_passes(void **state)
{
	(void)state;
	assert_int_equal(CHECK("\x00"), BOUNDS_OK);
	assert_int_equal(CHECK("\x7f"), BOUNDS_OK);
	assert_int_equal(CHECK("\xe0"), BOUNDS_OK);
	assert_int_equal(CHECK("\xff"), BOUNDS_OK);
	assert_int_equal(CHECK("\xc0"), BOUNDS_OK);
	assert_int_equal(CHECK("\xc2"), BOUNDS_OK);
	assert_int_equal(CHECK("\xc3"), BOUNDS_OK);
	assert_int_equal(CHECK("\xca...."), BOUNDS_OK);
	assert_int_equal(CHECK("\xcb........"), BOUNDS_OK);
	assert_int_equal(CHECK("\xcc."), BOUNDS_OK);
	assert_int_equal(CHECK("\xcd.."), BOUNDS_OK);
	assert_int_equal(CHECK("\xce...."), BOUNDS_OK);
	assert_int_equal(CHECK("\xcf........"), BOUNDS_OK);
	assert_int_equal(CHECK("\xd0."), BOUNDS_OK);
	assert_int_equal(CHECK("\xd1.."), BOUNDS_OK);
	assert_int_equal(CHECK("\xd2...."), BOUNDS_OK);
	assert_int_equal(CHECK("\xd3........"), BOUNDS_OK);
}

static void every_sized_form_passes(void **state)
{
	(void)state;
	assert_int_equal(CHECK("\xa0"), BOUNDS_OK);
	assert_int_equal(CHECK("\xa3xyz"), BOUNDS_OK);
	assert_int_equal(CHECK("\xd9\x03xyz"), BOUNDS_OK);
	assert_int_equal(CHECK("\xda\x00\x03xyz"), BOUNDS_OK);
	assert_int_equal(CHECK("\xdb\x00\x00\x00\x03xyz"), BOUNDS_OK);
	assert_int_equal(CHECK("\xc4\x03xyz"), BOUNDS_OK);
	assert_int_equal(CHECK("\xc5\x00\x03xyz"), BOUNDS_OK);
	assert_int_equal(CHECK("\xc6\x00\x00\x00\x03xyz"), BOUNDS_OK);
	assert_int_equal(CHECK("\x90"), BOUNDS_OK);
	assert_int_equal(CHECK("\x92\x01\x02"), BOUNDS_OK);
	assert_int_equal(CHECK("\xdc\x00\x02\x01\x02"), BOUNDS_OK);
	assert_int_equal(CHECK("\xdd\x00\x00\x00\x02\x01\x02"), BOUNDS_OK);
	assert_int_equal(CHECK("\x80"), BOUNDS_OK);
	assert_int_equal(CHECK("\x81\xa1k\x01"), BOUNDS_OK);
	assert_int_equal(CHECK("\xde\x00\x01\xa1k\x01"), BOUNDS_OK);
	assert_int_equal(CHECK("\xdf\x00\x00\x00\x01\xa1k\x01"), BOUNDS_OK);
}

static void ext_and_the_unused_byte_are_refused(void **state)
{
	static const unsigned char firsts[] = { 0xc1, 0xc7, 0xc8, 0xc9, 0xd4, 0xd5, 0xd6, 0xd7,
		0xd8 };
	unsigned char bytes[32] = { 0 };

	(void)state;
	for (size_t i = 0; i < sizeof(firsts); i++) {
		bytes[0] = firsts[i];
		assert_int_equal(bounds_check(bytes, sizeof(bytes)), BOUNDS_E_TYPE);
	}
}

static void depth_is_limited(void **state)
{
	unsigned char arrays[BOUNDS_DEPTH_MAX + 2], maps[2 * BOUNDS_DEPTH_MAX + 3];

	(void)state;
	memset(arrays, 0x91, sizeof(arrays));
	arrays[BOUNDS_DEPTH_MAX] = 0xc0;
	assert_int_equal(bounds_check(arrays, BOUNDS_DEPTH_MAX + 1), BOUNDS_OK);
	arrays[BOUNDS_DEPTH_MAX] = 0x91;
	arrays[BOUNDS_DEPTH_MAX + 1] = 0xc0;
	assert_int_equal(bounds_check(arrays, BOUNDS_DEPTH_MAX + 2), BOUNDS_E_DEPTH);
	for (size_t i = 0; i < sizeof(maps); i += 2) {
		maps[i] = 0x81;
		maps[i + 1 < sizeof(maps) ? i + 1 : i] = 0x01;
	}
	maps[sizeof(maps) - 1] = 0xc0;
	assert_int_equal(bounds_check(maps, sizeof(maps)), BOUNDS_E_DEPTH);
	assert_int_equal(bounds_check(maps + 2, sizeof(maps) - 2), BOUNDS_OK);
}

static void a_depth_bomb_is_refused(void **state)
{
	size_t size = 1u << 20;
	unsigned char *bomb = malloc(size);

	(void)state;
	assert_non_null(bomb);
	memset(bomb, 0x91, size);
	assert_int_equal(bounds_check(bomb, size), BOUNDS_E_DEPTH);
	memset(bomb, 0x9f, size);
	assert_int_equal(bounds_check(bomb, size), BOUNDS_E_DEPTH);
	free(bomb);
}

static void elements_are_limited_in_total(void **state)
{
	unsigned char bytes[3 + BOUNDS_ELEMENTS_MAX + 1] = { 0xdc, BOUNDS_ELEMENTS_MAX >> 8,
		BOUNDS_ELEMENTS_MAX & 0xff };

	(void)state;
	assert_int_equal(bounds_check(bytes, 3 + BOUNDS_ELEMENTS_MAX), BOUNDS_OK);
	bytes[2]++;
	assert_int_equal(bounds_check(bytes, sizeof(bytes)), BOUNDS_E_ELEMENTS);
	/* The last of 4096 is itself an array of one. */
	bytes[2]--;
	bytes[3 + BOUNDS_ELEMENTS_MAX - 1] = 0x91;
	assert_int_equal(bounds_check(bytes, sizeof(bytes)), BOUNDS_E_ELEMENTS);
	/* A map's pair counts twice. */
	memcpy(bytes, (unsigned char[]){ 0xde, 0x08, 0x01 }, 3);
	bytes[3 + BOUNDS_ELEMENTS_MAX - 1] = 0;
	assert_int_equal(bounds_check(bytes, sizeof(bytes)), BOUNDS_E_ELEMENTS);
}

/* Headers that claim what cannot be there cost nothing, and no sum of them overflows. */
static void count_bombs_cost_nothing(void **state)
{
	static const char *const bombs[] = {
		"\xdd\x04\x00\x00\x00",
		"\xdd\xff\xff\xff\xff",
		"\xdf\x80\x00\x00\x00",
		"\xdf\xff\xff\xff\xff",
		"\xdf\x80\x00\x00\x01",
	};

	(void)state;
	alloc_watch_begin(0);
	for (size_t i = 0; i < ARRAY_SIZE(bombs); i++)
		assert_int_equal(bounds_check(bombs[i], 5), BOUNDS_E_ELEMENTS);
	assert_int_equal(CHECK("\xdb\xff\xff\xff\xff"), BOUNDS_E_SHORT);
	assert_int_equal(CHECK("\xc6\xff\xff\xff\xff"), BOUNDS_E_SHORT);
	assert_int_equal(CHECK("\xdc\x10\x00"), BOUNDS_E_SHORT);
	assert_int_equal(alloc_watch_end().calls, 0);
}

static void nothing_may_follow(void **state)
{
	(void)state;
	assert_int_equal(CHECK("\xc0\xc0"), BOUNDS_E_TRAILING);
	assert_int_equal(CHECK("\x91\x01\x00"), BOUNDS_E_TRAILING);
	assert_int_equal(CHECK("\xa1xy"), BOUNDS_E_TRAILING);
}

static void a_cut_anywhere_is_short(void **state)
{
	static const char body[] = "\x85\xa1"
				   "a\xcf........"
				   "\xa1"
				   "b\xda\x00\x03xyz"
				   "\xa1"
				   "c\xc5\x00\x02yz"
				   "\xa1"
				   "d\x93\x01\xcb........\x81\x01\x02"
				   "\xa1"
				   "e\xdc\x00\x01\xc3";

	(void)state;
	assert_int_equal(CHECK(body), BOUNDS_OK);
	for (size_t n = 0; n < sizeof(body) - 1; n++)
		assert_int_equal(bounds_check(body, n), BOUNDS_E_SHORT);
}

/* Whatever passes is what msgpack itself takes as exactly one value. */
static void msgpack_agrees_with_what_passes(void **state)
{
	uint64_t seed = 1;
	unsigned passed = 0;

	(void)state;
	for (unsigned i = 0; i < 200000; i++) {
		unsigned char bytes[24];
		size_t size = 1 + splitmix_below(&seed, sizeof(bytes)), at = 0;
		msgpack_unpacked unpacked;

		for (size_t k = 0; k < size; k++)
			bytes[k] = (unsigned char)splitmix_next(&seed);
		/* Most first bytes are whole values; lead with containers half of the time. */
		if (i % 2)
			bytes[0] = (unsigned char)(0x80 | (bytes[0] & 0x17));
		if (bounds_check(bytes, size) != BOUNDS_OK)
			continue;
		passed++;
		msgpack_unpacked_init(&unpacked);
		assert_int_equal(msgpack_unpack_next(&unpacked, (char *)bytes, size, &at),
			MSGPACK_UNPACK_SUCCESS);
		assert_int_equal(at, size);
		msgpack_unpacked_destroy(&unpacked);
	}
	assert_true(passed > 1000);
}

static void outcomes_have_texts(void **state)
{
	(void)state;
	for (int i = BOUNDS_OK; i <= BOUNDS_E_TYPE; i++)
		assert_true(strlen(bounds_outcome_text((enum bounds_outcome)i)) > 10);
	assert_non_null(bounds_outcome_text((enum bounds_outcome)99));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_plain_form_passes),
		cmocka_unit_test(every_sized_form_passes),
		cmocka_unit_test(ext_and_the_unused_byte_are_refused),
		cmocka_unit_test(depth_is_limited),
		cmocka_unit_test(a_depth_bomb_is_refused),
		cmocka_unit_test(elements_are_limited_in_total),
		cmocka_unit_test(count_bombs_cost_nothing),
		cmocka_unit_test(nothing_may_follow),
		cmocka_unit_test(a_cut_anywhere_is_short),
		cmocka_unit_test(msgpack_agrees_with_what_passes),
		cmocka_unit_test(outcomes_have_texts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
