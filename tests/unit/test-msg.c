/* Bodies of frames, packed and read again. Those that are refused: test-msg-refusals.c. */

#include "proto/msg.h"
#include "tests/unit/alloc-watch.h"
#include "tests/unit/msg-helpers.h"

#include <errno.h>

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
		cmocka_unit_test(text_is_a_view),
		cmocka_unit_test(frames_follow_each_other),
		cmocka_unit_test(text_of_every_head_form),
		cmocka_unit_test(what_is_too_large_is_not_packed),
		cmocka_unit_test(lack_of_memory_leaves_the_buffer),
		cmocka_unit_test(lack_of_memory_while_unpacking),
		cmocka_unit_test(quoted_text_is_repaired),
		cmocka_unit_test(names_are_not_repaired),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
