/* Bodies that are refused, with what is said of them and what they may cost. */

#include "proto/msg.h"
#include "tests/unit/alloc-watch.h"
#include "tests/unit/msg-helpers.h"
#include "tests/unit/source-file.h"
#include "tests/unit/splitmix.h"

static void expect_refused(enum frame_type type, struct str body, const char *text)
{
	const char *why = NULL;
	union any m;

	assert_int_equal(unpack(type, body, &m, &why), MSG_E_SHAPE);
	assert_string_equal(why, text);
}

static void required_keys_are_named(void **state)
{
	(void)state;
	expect_refused(FRAME_SUBMIT, bytes("\x80"), "submit: \"body\" is missing");
	expect_refused(FRAME_HELLO, bytes("\x80"), "hello: \"version_min\" is missing");
	expect_refused(
		FRAME_HELLO, bytes("\x81\xabversion_min\x01"), "hello: \"version_max\" is missing");
	expect_refused(
		FRAME_WELCOME, bytes("\x81\xa7version\x01"), "welcome: \"body_max\" is missing");
	expect_refused(FRAME_ERROR, bytes("\x80"), "error: \"status\" is missing");
	expect_refused(FRAME_STATUS_REPLY, bytes("\x80"), "status_reply: \"json\" is missing");
	expect_refused(FRAME_COMMAND, bytes("\x80"), "command: \"verb\" is missing");
	expect_refused(FRAME_DONE, bytes("\x80"), "done: \"status\" is missing");
}

static void bodies_must_be_what_they_are(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		bool is_text = types[i] == FRAME_TEXT || types[i] == FRAME_REASONING;
		const char *why = NULL;
		union any m;

		assert_int_equal(unpack(types[i], bytes("\x90"), &m, &why), MSG_E_SHAPE);
		assert_non_null(why);
		assert_int_equal(
			unpack(types[i], bytes(is_text ? "\x80" : "\xa1x"), &m, &why), MSG_E_SHAPE);
		assert_int_equal(unpack(types[i], str_make("", 0), &m, &why), MSG_E_BOUNDS);
		assert_int_equal(unpack(types[i], bytes("\xc1"), &m, &why), MSG_E_BOUNDS);
	}
	expect_refused(FRAME_END, bytes("\x90"), "end: the body is not a map");
	expect_refused(FRAME_END, bytes("\x81\x01\x02"), "end: a key is not a string");
	expect_refused(FRAME_END, bytes("\x81\xa1\xff\x02"), "end: a key is not a string");
	expect_refused(FRAME_CANCEL, bytes("\x90"), "the body is not a map");
	expect_refused(FRAME_TEXT, bytes("\xa1\xff"), "text: the body is not a UTF-8 string");
}

static void a_key_twice_is_refused(void **state)
{
	(void)state;
	expect_refused(FRAME_END, bytes("\x82\xa8total_us\x05\xa8total_us\x05"),
		"end: \"total_us\" is there twice");
}

enum kind { U32, U64, COUNT, BOOLEAN, ROLE, TEXT, NAME, JSON };

static const struct {
	enum frame_type type;
	const char *key;
	enum kind kind;
} keys[] = {
	{ FRAME_HELLO, "version_min", U32 },
	{ FRAME_HELLO, "version_max", U32 },
	{ FRAME_HELLO, "pid", U64 },
	{ FRAME_HELLO, "client", NAME },
	{ FRAME_HELLO, "control", BOOLEAN },
	{ FRAME_WELCOME, "version", U32 },
	{ FRAME_WELCOME, "role", ROLE },
	{ FRAME_WELCOME, "daemon_pid", U64 },
	{ FRAME_WELCOME, "generation", U64 },
	{ FRAME_WELCOME, "body_max", U32 },
	{ FRAME_WELCOME, "daemon", TEXT },
	{ FRAME_WELCOME, "control", BOOLEAN },
	{ FRAME_WELCOME, "owner", U64 },
	{ FRAME_SUBMIT, "model", NAME },
	{ FRAME_SUBMIT, "route", NAME },
	{ FRAME_SUBMIT, "user", NAME },
	{ FRAME_SUBMIT, "tag", NAME },
	{ FRAME_SUBMIT, "timeout_ms", U64 },
	{ FRAME_SUBMIT, "body", JSON },
	{ FRAME_RESOLVE, "provider", NAME },
	{ FRAME_RESOLVE, "model", NAME },
	{ FRAME_RESOLVE, "user", NAME },
	{ FRAME_RESOLVE, "key", NAME },
	{ FRAME_COMMAND, "verb", NAME },
	{ FRAME_COMMAND, "name", NAME },
	{ FRAME_DONE, "status", U32 },
	{ FRAME_DONE, "message", TEXT },
	{ FRAME_STATUS_REPLY, "json", TEXT },
	{ FRAME_START, "provider", TEXT },
	{ FRAME_START, "model", TEXT },
	{ FRAME_START, "id", TEXT },
	{ FRAME_TOOL_CALL, "index", U32 },
	{ FRAME_TOOL_CALL, "id", TEXT },
	{ FRAME_TOOL_CALL, "name", TEXT },
	{ FRAME_TOOL_CALL, "arguments", TEXT },
	{ FRAME_USAGE, "input", COUNT },
	{ FRAME_USAGE, "output", COUNT },
	{ FRAME_USAGE, "cached_input", COUNT },
	{ FRAME_USAGE, "cache_write", COUNT },
	{ FRAME_USAGE, "reasoning", COUNT },
	{ FRAME_END, "finish_reason", TEXT },
	{ FRAME_END, "first_token_us", U64 },
	{ FRAME_END, "total_us", U64 },
	{ FRAME_ERROR, "status", U32 },
	{ FRAME_ERROR, "message", TEXT },
	{ FRAME_ERROR, "provider", TEXT },
	{ FRAME_ERROR, "http_status", U32 },
	{ FRAME_ERROR, "retry_after_ns", U64 },
	{ FRAME_ERROR, "limit", TEXT },
	{ FRAME_ERROR, "received", U64 },
};

/* Every value against every kind of key: bit KIND set where the value is allowed. */
#define ON(kind_) (1u << (kind_))
#define ANY_STRING (ON(TEXT) | ON(NAME) | ON(JSON))
#define ANY_NUMBER (ON(U32) | ON(U64) | ON(COUNT))
static const struct {
	const char *bytes;
	size_t size;
	unsigned allowed;
} values[] = {
	{ "\xc0", 1, 0 },
	{ "\xc2", 1, ON(BOOLEAN) },
	{ "\xc3", 1, ON(BOOLEAN) },
	{ "\x00", 1, ANY_NUMBER | ON(ROLE) },
	{ "\x01", 1, ANY_NUMBER | ON(ROLE) },
	{ "\x02", 1, ANY_NUMBER },
	{ "\xff", 1, 0 }, /* -1 */
	{ "\xd3\x00\x00\x00\x00\x00\x00\x00\x01", 9, ANY_NUMBER | ON(ROLE) },
	{ "\xd3\xff\xff\xff\xff\xff\xff\xff\xff", 9, 0 },
	{ "\xce\xff\xff\xff\xff", 5, ANY_NUMBER },
	{ "\xcf\x00\x00\x00\x01\x00\x00\x00\x00", 9, ON(U64) | ON(COUNT) },
	{ "\xcf\x7f\xff\xff\xff\xff\xff\xff\xff", 9, ON(U64) | ON(COUNT) },
	{ "\xcf\x80\x00\x00\x00\x00\x00\x00\x00", 9, ON(U64) },
	{ "\xca\x3f\x80\x00\x00", 5, 0 }, /* 1.0 */
	{ "\xa0", 1, ANY_STRING },
	{ "\xa2{}", 3, ANY_STRING },
	{ "\xa1\n", 2, ON(TEXT) | ON(JSON) },
	{ "\xa1\xff", 2, ON(JSON) },
	{ "\xc4\x02{}", 4, ON(JSON) },
	{ "\x90", 1, 0 },
	{ "\x80", 1, 0 },
};

/* A map with every required key but this one, then key: value. */
static void build(struct buffer *b, size_t key, size_t value)
{
	static const struct {
		enum frame_type type;
		const char *key, *bytes;
	} required[] = {
		{ FRAME_HELLO, "version_min", "\x01" },
		{ FRAME_HELLO, "version_max", "\x01" },
		{ FRAME_WELCOME, "version", "\x01" },
		{ FRAME_WELCOME, "body_max", "\x01" },
		{ FRAME_SUBMIT, "body", "\xa2{}" },
		{ FRAME_COMMAND, "verb", "\xa1v" },
		{ FRAME_DONE, "status", "\x01" },
		{ FRAME_STATUS_REPLY, "json", "\xa2{}" },
		{ FRAME_ERROR, "status", "\x01" },
	};
	char head = (char)0x81;

	assert_int_equal(buffer_append(b, &head, 1), 0);
	for (size_t i = 0; i < ARRAY_SIZE(required); i++) {
		if (required[i].type != keys[key].type || !strcmp(required[i].key, keys[key].key))
			continue;
		assert_int_equal(buffer_printf(b, "%c%s%s", (int)(0xa0 + strlen(required[i].key)),
					 required[i].key, required[i].bytes),
			0);
		head++;
	}
	assert_int_equal(
		buffer_printf(b, "%c%s", (int)(0xa0 + strlen(keys[key].key)), keys[key].key), 0);
	assert_int_equal(buffer_append(b, values[value].bytes, values[value].size), 0);
	buffer_head(b)[0] = head;
}

static void every_key_takes_its_type_and_no_other(void **state)
{
	(void)state;
	for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
		for (size_t v = 0; v < ARRAY_SIZE(values); v++) {
			aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
			bool allowed = values[v].allowed & ON(keys[k].kind);
			const char *why = "";
			union any m;
			int r;

			build(&b, k, v);
			r = unpack(keys[k].type, buffer_str(&b), &m, &why);
			if (r != (allowed ? MSG_OK : MSG_E_SHAPE))
				fail_msg("%s.%s, value %zu: %d %s",
					frame_type_name((uint8_t)keys[k].type), keys[k].key, v, r,
					why);
			if (!allowed)
				assert_non_null(strstr(why, keys[k].key));
		}
	}
}

/* PROTOCOL.md lists each key, with its type, in the table after the frame's name. */
static void the_document_has_every_key(void **state)
{
	static const char *const kinds[] = { [U32] = "u32",
		[U64] = "u64",
		[COUNT] = "count",
		[BOOLEAN] = "bool",
		[ROLE] = "u32",
		[TEXT] = "text",
		[NAME] = "name",
		[JSON] = "JSON" };
	aux_cleanup(freep) char *document = source_file_read("proto/PROTOCOL.md");
	size_t rows = 0;

	(void)state;
	assert_non_null(document);
	for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
		char title[64], row[64];
		const char *table, *found, *next;

		snprintf(title, sizeof(title), "\n%s\n\n| key |",
			frame_type_name((uint8_t)keys[k].type));
		snprintf(row, sizeof(row), "\n| `%s` | %s |", keys[k].key, kinds[keys[k].kind]);
		table = strstr(document, title);
		assert_non_null(table);
		table = strstr(table, "| key |");
		next = strstr(table, "\n\n");
		found = strstr(table, row);
		if (!found || found > next)
			fail_msg("PROTOCOL.md: after%slacks%s", title, row);
	}
	for (const char *at = document; (at = strstr(at, "\n| `")); at++)
		rows++;
	assert_int_equal(rows, ARRAY_SIZE(keys));
}

static void names_are_limited(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer a = BUFFER_NULL, b = BUFFER_NULL;
	char name[MSG_NAME_MAX + 1] = "";
	const char *why = "";
	struct msg_submit m = { .model = str_make(name, MSG_NAME_MAX), .body = str_of("{}") };

	(void)state;
	memset(name, 'n', sizeof(name));
	assert_int_equal(msg_pack_submit(&a, ID, &m), 0);
	assert_int_equal(msg_unpack_submit(only_frame(&a, FRAME_SUBMIT, ID), &m, &why), 0);
	m.model = str_make(name, sizeof(name));
	assert_int_equal(msg_pack_submit(&b, ID, &m), 0);
	assert_int_equal(
		msg_unpack_submit(only_frame(&b, FRAME_SUBMIT, ID), &m, &why), MSG_E_SHAPE);
	assert_non_null(strstr(why, "\"model\""));
}

static void a_cut_body_is_refused_everywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
		const char *why = "";
		struct str body;
		union any m;

		assert_int_equal(pack_full(&b, types[i]), 0);
		body = only_frame(&b, types[i], id_of(types[i]));
		for (size_t n = 0; n < body.length; n++)
			assert_int_equal(
				unpack(types[i], str_make(body.data, n), &m, &why), MSG_E_BOUNDS);
		assert_int_equal(buffer_append(&b, "\xc0", 1), 0);
		body = str_make(
			buffer_head(&b) + FRAME_HEADER_SIZE, buffer_length(&b) - FRAME_HEADER_SIZE);
		assert_int_equal(unpack(types[i], body, &m, &why), MSG_E_BOUNDS);
	}
}

/* An array header of 5 bytes that claims 67 million elements, bare and as a value. */
static void count_bombs_allocate_nothing(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		const char *why = "";
		union any m;

		alloc_watch_begin(0);
		assert_int_equal(unpack(types[i], str_make("\xdd\x04\x00\x00\x00", 5), &m, &why),
			MSG_E_BOUNDS);
		assert_int_equal(
			unpack(types[i], str_make("\x81\xa1k\xdd\x04\x00\x00\x00", 8), &m, &why),
			MSG_E_BOUNDS);
		assert_int_equal(alloc_watch_end().calls, 0);
	}
}

/* The largest body that passes the bounds costs memory in proportion to its elements only. */
static void memory_for_unpacking_is_bounded(void **state)
{
	char *body = malloc(3 + BOUNDS_ELEMENTS_MAX);
	const char *why = "";
	struct alloc_watch seen;

	(void)state;
	assert_non_null(body);
	memcpy(body, "\xde\x08\x00", 3);
	for (size_t i = 3; i < 3 + BOUNDS_ELEMENTS_MAX; i++)
		body[i] = (char)0xa0;
	alloc_watch_begin(0);
	assert_int_equal(msg_unpack_empty(str_make(body, 3 + BOUNDS_ELEMENTS_MAX), &why), 0);
	seen = alloc_watch_end();
	assert_true(seen.bytes < 64 * BOUNDS_ELEMENTS_MAX);
	free(body);
}

static bool is_within(struct str view, struct str body)
{
	return view.length == 0 ||
		(view.data >= body.data && view.length <= body.length &&
			view.data + view.length <= body.data + body.length);
}

/* Real bodies with some bytes changed: refused or read, views never leave the body. */
static void mutated_bodies_never_crash(void **state)
{
	struct buffer all[ARRAY_SIZE(types)] = { 0 };
	uint64_t seed = 2;
	unsigned good = 0;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		assert_int_equal(pack_full(&all[i], types[i]), 0);
	for (unsigned i = 0; i < 200000; i++) {
		size_t which = splitmix_below(&seed, ARRAY_SIZE(types));
		struct str whole = only_frame(&all[which], types[which], id_of(types[which]));
		const char *why = NULL;
		char body[256];
		struct str cut = str_make(body, whole.length);
		union any m = { 0 };
		int r;

		memcpy(body, whole.data, whole.length);
		for (uint64_t k = 1 + splitmix_below(&seed, 4); k > 0; k--)
			body[splitmix_below(&seed, whole.length)] = (char)splitmix_next(&seed);
		if (splitmix_below(&seed, 4) == 0)
			cut.length = splitmix_below(&seed, whole.length);
		r = unpack(types[which], cut, &m, &why);
		assert_true(r == MSG_OK || r == MSG_E_BOUNDS || r == MSG_E_SHAPE);
		assert_true(r == MSG_OK || why);
		good += r == MSG_OK;
		if (r == MSG_OK && types[which] == FRAME_SUBMIT)
			assert_true(is_within(m.submit.body, cut) && is_within(m.submit.user, cut));
		if (r == MSG_OK && types[which] == FRAME_ERROR)
			assert_true(
				is_within(m.error.message, cut) && is_within(m.error.limit, cut));
	}
	for (size_t i = 0; i < ARRAY_SIZE(types); i++)
		buffer_deinit(&all[i]);
	assert_true(good > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(required_keys_are_named),
		cmocka_unit_test(bodies_must_be_what_they_are),
		cmocka_unit_test(a_key_twice_is_refused),
		cmocka_unit_test(every_key_takes_its_type_and_no_other),
		cmocka_unit_test(the_document_has_every_key),
		cmocka_unit_test(names_are_limited),
		cmocka_unit_test(a_cut_body_is_refused_everywhere),
		cmocka_unit_test(count_bombs_allocate_nothing),
		cmocka_unit_test(memory_for_unpacking_is_bounded),
		cmocka_unit_test(mutated_bodies_never_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
