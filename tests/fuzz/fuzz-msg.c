/*
 * A frame's body: the first byte is the type, the rest the body. What is read without complaint is
 * packed, read and packed again: both times the same bytes, or the two directions disagree.
 */

#include "tests/fuzz/fuzz.h"

#include <string.h>
#include "proto/msg.h"

#define ID 7

/* Reads a body as this kind of message and packs it again: 0, or what the reading answered. */
#define REPACK(name_, ...) \
	do { \
		struct msg_##name_ m_; \
		int r_ = msg_unpack_##name_(body, &m_, why); \
		if (r_ == 0) \
			FUZZ_CHECK(msg_pack_##name_(out, __VA_ARGS__ &m_) == 0); \
		return r_; \
	} while (0)

static int repack_text(enum frame_type type, struct str body, struct buffer *out, const char **why)
{
	struct str text;
	int r = msg_unpack_text(body, &text, why);

	if (r == 0)
		FUZZ_CHECK(msg_pack_text(out, ID, type, text) == 0);
	return r;
}

static int repack(uint8_t type, struct str body, struct buffer *out, const char **why)
{
	switch (type) {
	case FRAME_HELLO:
		REPACK(hello, );
	case FRAME_WELCOME:
		REPACK(welcome, );
	case FRAME_SUBMIT:
		REPACK(submit, ID, );
	case FRAME_RESOLVE:
		REPACK(resolve, ID, );
	case FRAME_COMMAND:
		REPACK(command, ID, );
	case FRAME_DONE:
		REPACK(done, ID, );
	case FRAME_STATUS_REPLY:
		REPACK(status_reply, ID, );
	case FRAME_START:
		REPACK(start, ID, );
	case FRAME_TOOL_CALL:
		REPACK(tool_call, ID, );
	case FRAME_USAGE:
		REPACK(usage, ID, );
	case FRAME_END:
		REPACK(end, ID, );
	case FRAME_ERROR:
		REPACK(error, ID, );
	case FRAME_TEXT:
	case FRAME_REASONING:
		return repack_text((enum frame_type)type, body, out, why);
	default:
		return msg_unpack_empty(body, why);
	}
}

static int pack_example(unsigned n, struct buffer *b)
{
	const struct str text = str_of("text \xe2\x82\xac");

	switch (n) {
	case 0:
		return msg_pack_hello(b, &(struct msg_hello){ 1, 2, 3, text, true });
	case 1:
		return msg_pack_welcome(b,
			&(struct msg_welcome){ 1, MSG_ROLE_PARTICIPANT, 2, 3, 4, text, true, 5 });
	case 2:
		return msg_pack_submit(
			b, ID, &(struct msg_submit){ text, text, text, text, 5, str_of("{}") });
	case 3:
		return msg_pack_status_reply(b, ID, &(struct msg_status_reply){ str_of("{}") });
	case 4:
		return msg_pack_start(b, ID, &(struct msg_start){ text, text, text });
	case 5:
		return msg_pack_tool_call(b, ID, &(struct msg_tool_call){ 1, text, text, text });
	case 6:
		return msg_pack_usage(b, ID, &(struct msg_usage){ 1, 2, 3, 4, 5 });
	case 7:
		return msg_pack_end(b, ID, &(struct msg_end){ text, 1, 2 });
	case 8:
		return msg_pack_error(
			b, ID, &(struct msg_error){ STATUS_LIMITED, text, text, 429, 1, text, 2 });
	case 9:
		return msg_pack_text(b, ID, FRAME_TEXT, text);
	case 10:
		return msg_pack_cancel(b, ID);
	case 11:
		return msg_pack_resolve(b, ID, &(struct msg_resolve){ text, text, text, text });
	case 12:
		return msg_pack_command(b, ID, &(struct msg_command){ text, text });
	case 13:
		return msg_pack_done(b, ID, &(struct msg_done){ STATUS_BUSY, text });
	default:
		return 1;
	}
}

bool fuzz_example(unsigned n, struct buffer *out)
{
	aux_cleanup(buffer_deinit) struct buffer frame = BUFFER_NULL;
	struct frame_header h;

	return pack_example(n, &frame) == 0 &&
		frame_decode(buffer_head(&frame), buffer_length(&frame), FRAME_BODY_MAX, &h) == 0 &&
		buffer_append(out, &h.type, 1) == 0 &&
		buffer_append(out, buffer_head(&frame) + FRAME_HEADER_SIZE, h.length) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	aux_cleanup(buffer_deinit) struct buffer once = BUFFER_NULL, twice = BUFFER_NULL;
	const char *why = NULL;
	int r;

	if (size == 0)
		return 0;
	r = repack(data[0], str_make(data + 1, size - 1), &once, &why);
	FUZZ_CHECK(r >= 0 && (r == MSG_OK || why));
	if (r != MSG_OK || buffer_length(&once) == 0)
		return 0;
	r = repack(data[0],
		str_make(buffer_head(&once) + FRAME_HEADER_SIZE,
			buffer_length(&once) - FRAME_HEADER_SIZE),
		&twice, &why);
	FUZZ_CHECK(r == MSG_OK);
	FUZZ_CHECK(str_equal(buffer_str(&once), buffer_str(&twice)));
	return 0;
}
