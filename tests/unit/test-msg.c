#include "proto/msg.h"
#include "proto/bounds.h"
#include "tests/unit/alloc-watch.h"
#include "tests/unit/cmocka-all.h"
#include "tests/unit/source-file.h"
#include "tests/unit/splitmix.h"

#include <errno.h>

#define ID UINT64_C(0x1122334455667788)

union any {
	struct msg_hello hello;
	struct msg_welcome welcome;
	struct msg_submit submit;
	struct msg_resolve resolve;
	struct msg_command command;
	struct msg_done done;
	struct msg_status_reply status_reply;
	struct msg_start start;
	struct msg_tool_call tool_call;
	struct msg_usage usage;
	struct msg_end end;
	struct msg_error error;
	struct str text;
};

static int unpack(enum frame_type type, struct str body, union any *m, const char **why)
{
	switch (type) {
	case FRAME_HELLO:
		return msg_unpack_hello(body, &m->hello, why);
	case FRAME_WELCOME:
		return msg_unpack_welcome(body, &m->welcome, why);
	case FRAME_SUBMIT:
		return msg_unpack_submit(body, &m->submit, why);
	case FRAME_RESOLVE:
		return msg_unpack_resolve(body, &m->resolve, why);
	case FRAME_COMMAND:
		return msg_unpack_command(body, &m->command, why);
	case FRAME_DONE:
		return msg_unpack_done(body, &m->done, why);
	case FRAME_STATUS_REPLY:
		return msg_unpack_status_reply(body, &m->status_reply, why);
	case FRAME_START:
		return msg_unpack_start(body, &m->start, why);
	case FRAME_TEXT:
	case FRAME_REASONING:
		return msg_unpack_text(body, &m->text, why);
	case FRAME_TOOL_CALL:
		return msg_unpack_tool_call(body, &m->tool_call, why);
	case FRAME_USAGE:
		return msg_unpack_usage(body, &m->usage, why);
	case FRAME_END:
		return msg_unpack_end(body, &m->end, why);
	case FRAME_ERROR:
		return msg_unpack_error(body, &m->error, why);
	default:
		return msg_unpack_empty(body, why);
	}
}

static const enum frame_type types[] = { FRAME_HELLO, FRAME_SUBMIT, FRAME_CANCEL, FRAME_STATUS,
	FRAME_RESOLVE, FRAME_COMMAND, FRAME_DONE, FRAME_WELCOME, FRAME_STATUS_REPLY, FRAME_START,
	FRAME_TEXT, FRAME_REASONING, FRAME_TOOL_CALL, FRAME_USAGE, FRAME_END, FRAME_ERROR };

/* The one frame in b, checked against its header. */
static struct str only_frame(const struct buffer *b, enum frame_type type, uint64_t id)
{
	struct frame_header h = { 0 };

	assert_int_equal(frame_decode(buffer_head(b), buffer_length(b), FRAME_BODY_MAX, &h), 0);
	assert_int_equal(h.type, type);
	assert_true(h.request_id == id);
	assert_int_equal(h.length, buffer_length(b) - FRAME_HEADER_SIZE);
	return str_make(buffer_head(b) + FRAME_HEADER_SIZE, h.length);
}

static void assert_str(struct str got, const char *expected)
{
	assert_int_equal(got.length, strlen(expected));
	assert_memory_equal(got.data, expected, got.length);
}

/* One example of each body with every key set. */
static int pack_full(struct buffer *b, enum frame_type type)
{
	switch (type) {
	case FRAME_HELLO:
		return msg_pack_hello(b, &(struct msg_hello){ 1, 7, 4242, str_of("c/1"), true });
	case FRAME_WELCOME:
		return msg_pack_welcome(b,
			&(struct msg_welcome){ 1, MSG_ROLE_PARTICIPANT, 99, UINT64_MAX,
				FRAME_BODY_MAX, str_of("llmkitd/0"), true, UINT64_MAX - 1 });
	case FRAME_SUBMIT:
		return msg_pack_submit(b, ID,
			&(struct msg_submit){ str_of("p/m"), str_of("r"), str_of("u"), str_of("t"),
				30000, str_of("{\"messages\":[]}") });
	case FRAME_CANCEL:
		return msg_pack_cancel(b, ID);
	case FRAME_STATUS:
		return msg_pack_status(b, ID);
	case FRAME_RESOLVE:
		return msg_pack_resolve(b, ID,
			&(struct msg_resolve){
				str_of("p"), str_of("m"), str_of("u"), str_of("k") });
	case FRAME_COMMAND:
		return msg_pack_command(
			b, ID, &(struct msg_command){ str_of("breaker-open"), str_of("p/m") });
	case FRAME_DONE:
		return msg_pack_done(b, ID, &(struct msg_done){ STATUS_BUSY, str_of("full") });
	case FRAME_STATUS_REPLY:
		return msg_pack_status_reply(b, ID, &(struct msg_status_reply){ str_of("{}") });
	case FRAME_START:
		return msg_pack_start(
			b, ID, &(struct msg_start){ str_of("p"), str_of("m"), str_of("id-1") });
	case FRAME_TOOL_CALL:
		return msg_pack_tool_call(b, ID,
			&(struct msg_tool_call){
				UINT32_MAX, str_of("i"), str_of("n"), str_of("{\"a\":") });
	case FRAME_USAGE:
		return msg_pack_usage(b, ID, &(struct msg_usage){ 0, 1, 2, 3, INT64_MAX });
	case FRAME_END:
		return msg_pack_end(b, ID, &(struct msg_end){ str_of("stop"), 5, UINT64_MAX });
	case FRAME_ERROR:
		return msg_pack_error(b, ID,
			&(struct msg_error){ STATUS_PROVIDER_LIMITED, str_of("m"), str_of("p"), 429,
				1500, str_of("model x requests"), 17 });
	default:
		return msg_pack_text(b, ID, type, str_of("chunk \xe2\x82\xac"));
	}
}

static uint64_t id_of(enum frame_type type)
{
	return type == FRAME_HELLO || type == FRAME_WELCOME ? 0 : ID;
}

/* A packed example, unpacked again into m, which views into b. */
static void round_trip(enum frame_type type, struct buffer *b, union any *m)
{
	const char *why = "";
	struct str body;

	assert_int_equal(pack_full(b, type), 0);
	body = only_frame(b, type, id_of(type));
	assert_int_equal(bounds_check(body.data, body.length), BOUNDS_OK);
	if (unpack(type, body, m, &why) != 0)
		fail_msg("%s: %s", frame_type_name((uint8_t)type), why);
}

static void hello_and_welcome_round_trip(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer a = BUFFER_NULL, b = BUFFER_NULL;
	union any m;

	(void)state;
	round_trip(FRAME_HELLO, &a, &m);
	assert_int_equal(m.hello.version_min, 1);
	assert_int_equal(m.hello.version_max, 7);
	assert_int_equal(m.hello.pid, 4242);
	assert_str(m.hello.client, "c/1");
	assert_true(m.hello.control);
	round_trip(FRAME_WELCOME, &b, &m);
	assert_int_equal(m.welcome.version, 1);
	assert_int_equal(m.welcome.role, MSG_ROLE_PARTICIPANT);
	assert_int_equal(m.welcome.daemon_pid, 99);
	assert_true(m.welcome.generation == UINT64_MAX);
	assert_int_equal(m.welcome.body_max, FRAME_BODY_MAX);
	assert_str(m.welcome.daemon, "llmkitd/0");
	assert_true(m.welcome.control);
	assert_true(m.welcome.owner == UINT64_MAX - 1);
}

static void requests_round_trip(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer a = BUFFER_NULL, b = BUFFER_NULL, c = BUFFER_NULL,
						 d = BUFFER_NULL;
	union any m;

	(void)state;
	round_trip(FRAME_SUBMIT, &a, &m);
	assert_str(m.submit.model, "p/m");
	assert_str(m.submit.route, "r");
	assert_str(m.submit.user, "u");
	assert_str(m.submit.tag, "t");
	assert_int_equal(m.submit.timeout_ms, 30000);
	assert_str(m.submit.body, "{\"messages\":[]}");
	round_trip(FRAME_CANCEL, &b, &m);
	round_trip(FRAME_STATUS, &c, &m);
	round_trip(FRAME_STATUS_REPLY, &d, &m);
	assert_str(m.status_reply.json, "{}");
}

static void control_round_trips(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer a = BUFFER_NULL, b = BUFFER_NULL, c = BUFFER_NULL;
	union any m;

	(void)state;
	round_trip(FRAME_RESOLVE, &a, &m);
	assert_str(m.resolve.provider, "p");
	assert_str(m.resolve.model, "m");
	assert_str(m.resolve.user, "u");
	assert_str(m.resolve.key, "k");
	round_trip(FRAME_COMMAND, &b, &m);
	assert_str(m.command.verb, "breaker-open");
	assert_str(m.command.name, "p/m");
	round_trip(FRAME_DONE, &c, &m);
	assert_int_equal(m.done.status, STATUS_BUSY);
	assert_str(m.done.message, "full");
}

/* Status 0 is required, so it is written; what says nothing is not. */
static void done_says_so_in_few_bytes(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
	struct str body;

	(void)state;
	assert_int_equal(msg_pack_done(&b, ID, &(struct msg_done){ STATUS_OK, STR_NULL }), 0);
	body = only_frame(&b, FRAME_DONE, ID);
	assert_int_equal(body.length, 9);
	assert_memory_equal(body.data, "\x81\xa6status\x00", 9);
}

static void answers_round_trip(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer a = BUFFER_NULL, b = BUFFER_NULL, c = BUFFER_NULL,
						 d = BUFFER_NULL;
	union any m;

	(void)state;
	round_trip(FRAME_START, &a, &m);
	assert_str(m.start.provider, "p");
	assert_str(m.start.model, "m");
	assert_str(m.start.id, "id-1");
	round_trip(FRAME_TEXT, &b, &m);
	assert_str(m.text, "chunk \xe2\x82\xac");
	round_trip(FRAME_REASONING, &c, &m);
	assert_str(m.text, "chunk \xe2\x82\xac");
	round_trip(FRAME_TOOL_CALL, &d, &m);
	assert_true(m.tool_call.index == UINT32_MAX);
	assert_str(m.tool_call.id, "i");
	assert_str(m.tool_call.name, "n");
	assert_str(m.tool_call.arguments, "{\"a\":");
}

static void ends_round_trip(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer a = BUFFER_NULL, b = BUFFER_NULL, c = BUFFER_NULL;
	union any m;

	(void)state;
	round_trip(FRAME_USAGE, &a, &m);
	assert_int_equal(m.usage.input, 0);
	assert_int_equal(m.usage.output, 1);
	assert_int_equal(m.usage.cached_input, 2);
	assert_int_equal(m.usage.cache_write, 3);
	assert_true(m.usage.reasoning == INT64_MAX);
	round_trip(FRAME_END, &b, &m);
	assert_str(m.end.finish_reason, "stop");
	assert_int_equal(m.end.first_token_us, 5);
	assert_true(m.end.total_us == UINT64_MAX);
	round_trip(FRAME_ERROR, &c, &m);
	assert_int_equal(m.error.status, STATUS_PROVIDER_LIMITED);
	assert_str(m.error.message, "m");
	assert_str(m.error.provider, "p");
	assert_int_equal(m.error.http_status, 429);
	assert_int_equal(m.error.retry_after_ns, 1500);
	assert_str(m.error.limit, "model x requests");
	assert_int_equal(m.error.received, 17);
}

static struct str bytes(const char *text)
{
	return str_of(text);
}

static void absent_keys_have_their_defaults(void **state)
{
	const char *why = "";
	struct msg_usage usage;
	struct msg_tool_call call;
	struct msg_submit submit;

	(void)state;
	assert_int_equal(msg_unpack_usage(bytes("\x80"), &usage, &why), 0);
	assert_true(usage.input == -1 && usage.output == -1 && usage.cached_input == -1);
	assert_true(usage.cache_write == -1 && usage.reasoning == -1);
	assert_int_equal(msg_unpack_tool_call(bytes("\x80"), &call, &why), 0);
	assert_int_equal(call.index, 0);
	assert_int_equal(call.id.length + call.name.length + call.arguments.length, 0);
	assert_int_equal(msg_unpack_submit(bytes("\x81\xa4"
						 "body\xa2{}"),
				 &submit, &why),
		0);
	assert_int_equal(submit.model.length + submit.user.length + submit.timeout_ms, 0);
	assert_str(submit.body, "{}");
}

static void defaults_are_not_written(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
	struct str body;

	(void)state;
	assert_int_equal(msg_pack_usage(&b, ID, &(struct msg_usage){ -1, -1, -1, 0, -1 }), 0);
	body = only_frame(&b, FRAME_USAGE, ID);
	assert_int_equal(body.length, 14);
	assert_memory_equal(body.data,
		"\x81\xab"
		"cache_write\x00",
		14);
}

static void a_newer_peers_keys_are_skipped(void **state)
{
	static const char body[] = "\x83\xa3new\x92\x01\x81\xa1k\xc0\xa8total_us\x05"
				   "\xa1z\xcb........";
	const char *why = "";
	struct msg_end m;

	(void)state;
	assert_int_equal(msg_unpack_end(bytes(body), &m, &why), 0);
	assert_int_equal(m.total_us, 5);
}

static void a_body_may_be_bytes_and_need_not_be_text(void **state)
{
	const char *why = "";
	struct msg_submit m;

	(void)state;
	assert_int_equal(msg_unpack_submit(bytes("\x81\xa4"
						 "body\xc4\x02{}"),
				 &m, &why),
		0);
	assert_str(m.body, "{}");
	assert_int_equal(msg_unpack_submit(bytes("\x81\xa4"
						 "body\xc4\x01\xff"),
				 &m, &why),
		0);
	assert_str(m.body, "\xff");
}

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

static void text_is_a_view(void **state)
{
	const char *why = "", *body = "\xa3xyz";
	struct str text;

	(void)state;
	assert_int_equal(msg_unpack_text(bytes(body), &text, &why), 0);
	assert_ptr_equal(text.data, body + 1);
}

static void frames_follow_each_other(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
	size_t frames = 0;

	(void)state;
	for (int round = 0; round < 50; round++) {
		for (size_t i = 0; i < ARRAY_SIZE(types); i++)
			assert_int_equal(pack_full(&b, types[i]), 0);
	}
	for (; buffer_length(&b) > 0; frames++) {
		enum frame_type type = types[frames % ARRAY_SIZE(types)];
		const char *why = "";
		struct frame_header h;
		union any m;

		assert_int_equal(
			frame_decode(buffer_head(&b), buffer_length(&b), FRAME_BODY_MAX, &h), 0);
		assert_int_equal(h.type, type);
		buffer_consume(&b, FRAME_HEADER_SIZE);
		assert_int_equal(unpack(type, str_make(buffer_head(&b), h.length), &m, &why), 0);
		buffer_consume(&b, h.length);
	}
	assert_int_equal(frames, 50 * ARRAY_SIZE(types));
}

static void text_of_every_head_form(void **state)
{
	static const size_t sizes[] = { 0, 1, 31, 32, 255, 256, 65535, 65536, 100000 };
	char *text = malloc(100000);

	(void)state;
	assert_non_null(text);
	memset(text, 't', 100000);
	for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
		aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
		const char *why = "";
		struct str got;

		assert_int_equal(msg_pack_text(&b, ID, FRAME_TEXT, str_make(text, sizes[i])), 0);
		assert_int_equal(msg_unpack_text(only_frame(&b, FRAME_TEXT, ID), &got, &why), 0);
		assert_true(str_equal(got, str_make(text, sizes[i])));
	}
	free(text);
}

static void what_is_too_large_is_not_packed(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
	char *text = calloc(1, FRAME_BODY_MAX + 1);

	(void)state;
	assert_non_null(text);
	assert_int_equal(buffer_append(&b, "before", 6), 0);
	assert_int_equal(msg_pack_text(&b, ID, FRAME_TEXT, str_make(text, FRAME_BODY_MAX - 5)), 0);
	assert_int_equal(buffer_length(&b), 6 + FRAME_HEADER_SIZE + FRAME_BODY_MAX);
	buffer_consume(&b, FRAME_HEADER_SIZE + FRAME_BODY_MAX);
	for (size_t n = FRAME_BODY_MAX - 4; n <= FRAME_BODY_MAX + 1; n++) {
		assert_int_equal(msg_pack_text(&b, ID, FRAME_TEXT, str_make(text, n)), -EMSGSIZE);
		assert_int_equal(buffer_length(&b), 6);
	}
	assert_int_equal(msg_pack_submit(&b, ID,
				 &(struct msg_submit){ .body = str_make(text, FRAME_BODY_MAX) }),
		-EMSGSIZE);
	assert_int_equal(buffer_length(&b), 6);
	free(text);
}

/* Each allocation fails once: the buffer is then what it was. */
static void lack_of_memory_leaves_the_buffer(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		for (size_t used = 180; used <= 256; used += 19) {
			aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
			int r;

			for (size_t k = 0; k < used; k++)
				assert_int_equal(buffer_append(&b, "b", 1), 0);
			alloc_watch_begin(1);
			r = pack_full(&b, types[i]);
			alloc_watch_end();
			assert_true(r == 0 || r == -ENOMEM);
			if (used == 256 && ALLOC_WATCH_CAN_FAIL)
				assert_int_equal(r, -ENOMEM);
			if (r != 0)
				assert_int_equal(buffer_length(&b), used);
			for (size_t k = 0; k < used; k++)
				assert_int_equal(buffer_head(&b)[k], 'b');
		}
	}
}

static void lack_of_memory_while_unpacking(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
		aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
		struct str body;
		size_t n = 1;
		int r;

		assert_int_equal(pack_full(&b, types[i]), 0);
		body = only_frame(&b, types[i], id_of(types[i]));
		do {
			const char *why = "";
			union any m;

			alloc_watch_begin(n);
			r = unpack(types[i], body, &m, &why);
			alloc_watch_end();
			assert_true(r == 0 || r == -ENOMEM);
		} while (r != 0 && n++ < 20);
		assert_int_equal(r, 0);
	}
}

/* What a provider said is cut at some byte before it is quoted: the frame must still be read. */
static void quoted_text_is_repaired(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer a = BUFFER_NULL, b = BUFFER_NULL;
	char text[] = "cut \xe2\x82";
	const char *why = "";
	struct msg_error error = { .status = 1, .message = str_of(text), .received = 5 };
	struct msg_end end = { .finish_reason = str_of(text), .total_us = 6 };

	(void)state;
	assert_int_equal(msg_pack_error(&a, ID, &error), 0);
	assert_int_equal(msg_unpack_error(only_frame(&a, FRAME_ERROR, ID), &error, &why), 0);
	assert_str(error.message, "cut ??");
	assert_int_equal(error.received, 5);
	assert_int_equal(msg_pack_end(&b, ID, &end), 0);
	assert_int_equal(msg_unpack_end(only_frame(&b, FRAME_END, ID), &end, &why), 0);
	assert_str(end.finish_reason, "cut ??");
	assert_string_equal(text, "cut \xe2\x82");
}

/* A name altered would be another's name: it arrives as it is, and is refused. */
static void names_are_not_repaired(void **state)
{
	aux_cleanup(buffer_deinit) struct buffer b = BUFFER_NULL;
	struct msg_submit m = { .user = str_of("\xff"), .body = str_of("{}") };
	const char *why = "";

	(void)state;
	assert_int_equal(msg_pack_submit(&b, ID, &m), 0);
	assert_int_equal(
		msg_unpack_submit(only_frame(&b, FRAME_SUBMIT, ID), &m, &why), MSG_E_SHAPE);
	assert_non_null(strstr(why, "\"user\""));
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
		cmocka_unit_test(hello_and_welcome_round_trip),
		cmocka_unit_test(requests_round_trip),
		cmocka_unit_test(control_round_trips),
		cmocka_unit_test(done_says_so_in_few_bytes),
		cmocka_unit_test(answers_round_trip),
		cmocka_unit_test(ends_round_trip),
		cmocka_unit_test(absent_keys_have_their_defaults),
		cmocka_unit_test(defaults_are_not_written),
		cmocka_unit_test(a_newer_peers_keys_are_skipped),
		cmocka_unit_test(a_body_may_be_bytes_and_need_not_be_text),
		cmocka_unit_test(required_keys_are_named),
		cmocka_unit_test(bodies_must_be_what_they_are),
		cmocka_unit_test(a_key_twice_is_refused),
		cmocka_unit_test(every_key_takes_its_type_and_no_other),
		cmocka_unit_test(the_document_has_every_key),
		cmocka_unit_test(names_are_limited),
		cmocka_unit_test(a_cut_body_is_refused_everywhere),
		cmocka_unit_test(count_bombs_allocate_nothing),
		cmocka_unit_test(memory_for_unpacking_is_bounded),
		cmocka_unit_test(text_is_a_view),
		cmocka_unit_test(frames_follow_each_other),
		cmocka_unit_test(text_of_every_head_form),
		cmocka_unit_test(what_is_too_large_is_not_packed),
		cmocka_unit_test(lack_of_memory_leaves_the_buffer),
		cmocka_unit_test(lack_of_memory_while_unpacking),
		cmocka_unit_test(quoted_text_is_repaired),
		cmocka_unit_test(names_are_not_repaired),
		cmocka_unit_test(mutated_bodies_never_crash),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
