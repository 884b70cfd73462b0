#pragma once

/* Every type of frame: one example of each body, and how it is read. */

#include "proto/bounds.h"
#include "proto/msg.h"
#include "tests/unit/cmocka-all.h"

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

static inline int unpack(enum frame_type type, struct str body, union any *m, const char **why)
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
static inline struct str only_frame(const struct buffer *b, enum frame_type type, uint64_t id)
{
	struct frame_header h = { 0 };

	assert_int_equal(frame_decode(buffer_head(b), buffer_length(b), FRAME_BODY_MAX, &h), 0);
	assert_int_equal(h.type, type);
	assert_true(h.request_id == id);
	assert_int_equal(h.length, buffer_length(b) - FRAME_HEADER_SIZE);
	return str_make(buffer_head(b) + FRAME_HEADER_SIZE, h.length);
}

static inline void assert_str(struct str got, const char *expected)
{
	assert_int_equal(got.length, strlen(expected));
	assert_memory_equal(got.data, expected, got.length);
}

/* One example of each body with every key set. */
static inline int pack_full(struct buffer *b, enum frame_type type)
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

static inline uint64_t id_of(enum frame_type type)
{
	return type == FRAME_HELLO || type == FRAME_WELCOME ? 0 : ID;
}

/* A packed example, unpacked again into m, which views into b. */
static inline void round_trip(enum frame_type type, struct buffer *b, union any *m)
{
	const char *why = "";
	struct str body;

	assert_int_equal(pack_full(b, type), 0);
	body = only_frame(b, type, id_of(type));
	assert_int_equal(bounds_check(body.data, body.length), BOUNDS_OK);
	if (unpack(type, body, m, &why) != 0)
		fail_msg("%s: %s", frame_type_name((uint8_t)type), why);
}

static inline struct str bytes(const char *text)
{
	return str_of(text);
}
