#include "proto/status.h"
#include "base/aux.h"
#include "proto/bounds.h"
#include "proto/frame.h"
#include "proto/msg.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/source-file.h"

#include <string.h>

static const struct {
	uint32_t number;
	const char *name;
	bool retryable;
	const char *text;
} rows[] = {
#define STATUS(number_, name_, retryable_, text_) { number_, #name_, retryable_, text_ },
#include "proto/tbl/status.h"
#undef STATUS
};

static void every_row_is_found(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_string_equal(status_name(rows[i].number), rows[i].name);
		assert_string_equal(status_text(rows[i].number), rows[i].text);
		assert_int_equal(status_is_retryable(rows[i].number), rows[i].retryable);
	}
	assert_string_equal(status_name(STATUS_OK), "OK");
	assert_false(status_is_retryable(STATUS_OK));
}

static void unknown_numbers_are_answered(void **state)
{
	(void)state;
	assert_string_equal(status_name(99999), "UNKNOWN");
	assert_true(strlen(status_text(99999)) > 0);
	assert_false(status_is_retryable(99999));
}

/* Numbers rise, so none is there twice; negated they stay above the library's own codes. */
static void numbers_are_in_their_range(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		assert_in_range(rows[i].number, 1, 99);
		assert_true(i == 0 || rows[i].number > rows[i - 1].number);
	}
}

/* Rows of a table whose first cell begins so. */
static size_t count_rows(const char *text, const char *begins, const char *digits)
{
	size_t rows_seen = 0;

	for (const char *at = text; (at = strstr(at, begins)); at++)
		rows_seen += strspn(at + strlen(begins), digits) > 0;
	return rows_seen;
}

static void the_document_has_every_status(void **state)
{
	aux_cleanup(freep) char *document = source_file_read("proto/PROTOCOL.md");

	(void)state;
	assert_non_null(document);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		char row[256];

		snprintf(row, sizeof(row), "\n| %u | %s | %s | %s |\n", rows[i].number,
			rows[i].name, rows[i].retryable ? "yes" : "no", rows[i].text);
		if (!strstr(document, row))
			fail_msg("proto/PROTOCOL.md lacks the row: %s", row);
	}
	assert_int_equal(count_rows(document, "\n| ", "123456789"), ARRAY_SIZE(rows));
}

static void the_document_has_every_frame_type(void **state)
{
	aux_cleanup(freep) char *document = source_file_read("proto/PROTOCOL.md");
	size_t types = 0;

	(void)state;
	assert_non_null(document);
	for (unsigned type = 0; type <= UINT8_MAX; type++) {
		const char *name = frame_type_name((uint8_t)type);
		char row[64];

		if (strcmp(name, "unknown") == 0)
			continue;
		types++;
		snprintf(row, sizeof(row), "\n| 0x%02x | %s | %s |", type, name,
			type < 0x80 ? "client" : "daemon");
		if (!strstr(document, row))
			fail_msg("proto/PROTOCOL.md lacks the row: %s", row);
	}
	assert_int_equal(count_rows(document, "\n| 0x", "0123456789abcdef"), types);
}

static void the_document_has_the_limits(void **state)
{
	aux_cleanup(freep) char *document = source_file_read("proto/PROTOCOL.md");
	char texts[5][96];

	(void)state;
	assert_non_null(document);
	snprintf(texts[0], sizeof(texts[0]), "| body of HELLO | %d bytes |", FRAME_HELLO_MAX);
	snprintf(texts[1], sizeof(texts[1]), "(%u bytes)", FRAME_BODY_MAX);
	snprintf(texts[2], sizeof(texts[2]), "| %d levels |", BOUNDS_DEPTH_MAX);
	snprintf(texts[3], sizeof(texts[3]), "together | %d;", BOUNDS_ELEMENTS_MAX);
	snprintf(texts[4], sizeof(texts[4]), "of at most %d bytes", MSG_NAME_MAX);
	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		if (!strstr(document, texts[i]))
			fail_msg("proto/PROTOCOL.md lacks: %s", texts[i]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_row_is_found),
		cmocka_unit_test(unknown_numbers_are_answered),
		cmocka_unit_test(numbers_are_in_their_range),
		cmocka_unit_test(the_document_has_every_status),
		cmocka_unit_test(the_document_has_every_frame_type),
		cmocka_unit_test(the_document_has_the_limits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
