#include "proto/frame.h"
#include "tests/unit/cmocka-all.h"

#include <string.h>

static const unsigned char sample[FRAME_HEADER_SIZE] = { 0x04, 0x03, 0x02, 0x00, FRAME_TEXT, 0, 0,
	0, 8, 7, 6, 5, 4, 3, 2, 1 };

static void header_is_little_endian(void **state)
{
	const struct frame_header h = {
		.length = 0x020304, .type = FRAME_TEXT, .request_id = UINT64_C(0x0102030405060708)
	};
	unsigned char out[FRAME_HEADER_SIZE + 1];

	(void)state;
	memset(out, 0xee, sizeof(out));
	frame_encode(&h, out);
	assert_memory_equal(out, sample, sizeof(sample));
	assert_int_equal(out[FRAME_HEADER_SIZE], 0xee);
}

static void decode_reads_what_encode_wrote(void **state)
{
	struct frame_header h;

	(void)state;
	assert_int_equal(frame_decode(sample, sizeof(sample), FRAME_BODY_MAX, &h), FRAME_OK);
	assert_int_equal(h.length, 0x020304);
	assert_int_equal(h.type, FRAME_TEXT);
	assert_int_equal(h.flags, 0);
	assert_true(h.request_id == UINT64_C(0x0102030405060708));
}

static void fewer_bytes_than_a_header_ask_for_more(void **state)
{
	struct frame_header h;

	(void)state;
	for (size_t n = 0; n < FRAME_HEADER_SIZE; n++)
		assert_int_equal(frame_decode(sample, n, FRAME_BODY_MAX, &h), FRAME_E_MORE);
}

static void length_is_limited_by_the_caller(void **state)
{
	unsigned char bytes[FRAME_HEADER_SIZE];
	struct frame_header h = { .length = FRAME_HELLO_MAX, .type = FRAME_HELLO };

	(void)state;
	frame_encode(&h, bytes);
	assert_int_equal(frame_decode(bytes, sizeof(bytes), FRAME_HELLO_MAX, &h), FRAME_OK);
	h.length = FRAME_HELLO_MAX + 1;
	frame_encode(&h, bytes);
	assert_int_equal(
		frame_decode(bytes, sizeof(bytes), FRAME_HELLO_MAX, &h), FRAME_E_TOO_LARGE);
	assert_int_equal(frame_decode(bytes, sizeof(bytes), FRAME_BODY_MAX, &h), FRAME_OK);
	h.length = UINT32_MAX;
	frame_encode(&h, bytes);
	assert_int_equal(frame_decode(bytes, sizeof(bytes), FRAME_BODY_MAX, &h), FRAME_E_TOO_LARGE);
}

static void each_flag_and_reserved_bit_is_refused(void **state)
{
	(void)state;
	for (size_t bit = 5 * 8; bit < 8 * 8; bit++) {
		unsigned char bytes[FRAME_HEADER_SIZE];
		struct frame_header h;

		memcpy(bytes, sample, sizeof(bytes));
		bytes[bit / 8] |= (unsigned char)(1u << bit % 8);
		assert_int_equal(
			frame_decode(bytes, sizeof(bytes), FRAME_BODY_MAX, &h), FRAME_E_RESERVED);
	}
}

static void types_have_names(void **state)
{
	(void)state;
	assert_string_equal(frame_type_name(FRAME_HELLO), "HELLO");
	assert_string_equal(frame_type_name(FRAME_STATUS_REPLY), "STATUS_REPLY");
	assert_string_equal(frame_type_name(FRAME_RESOLVE), "RESOLVE");
	assert_string_equal(frame_type_name(FRAME_COMMAND), "COMMAND");
	assert_string_equal(frame_type_name(FRAME_DONE), "DONE");
	assert_string_equal(frame_type_name(FRAME_ERROR), "ERROR");
	assert_string_equal(frame_type_name(0), "unknown");
	assert_string_equal(frame_type_name(0xff), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(header_is_little_endian),
		cmocka_unit_test(decode_reads_what_encode_wrote),
		cmocka_unit_test(fewer_bytes_than_a_header_ask_for_more),
		cmocka_unit_test(length_is_limited_by_the_caller),
		cmocka_unit_test(each_flag_and_reserved_bit_is_refused),
		cmocka_unit_test(types_have_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
