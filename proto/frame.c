#include "proto/frame.h"

#include <endian.h>
#include <string.h>
#include "base/aux.h"

struct wire_header {
	uint32_t length;
	uint8_t type;
	uint8_t flags;
	uint16_t reserved;
	uint64_t request_id;
};

static_assert(sizeof(struct wire_header) == FRAME_HEADER_SIZE, "the header has no padding");

enum frame_outcome frame_decode(
	const void *data, size_t size, uint32_t body_max, struct frame_header *out)
{
	struct wire_header w;

	if (size < sizeof(w))
		return FRAME_E_MORE;
	memcpy(&w, data, sizeof(w));
	*out = (struct frame_header){
		.length = le32toh(w.length),
		.type = w.type,
		.flags = w.flags,
		.request_id = le64toh(w.request_id),
	};
	if (w.reserved != 0 || w.flags != 0)
		return FRAME_E_RESERVED;
	if (out->length > body_max)
		return FRAME_E_TOO_LARGE;
	return FRAME_OK;
}

void frame_encode(const struct frame_header *h, void *out)
{
	const struct wire_header w = {
		.length = htole32(h->length),
		.type = h->type,
		.flags = h->flags,
		.request_id = htole64(h->request_id),
	};

	memcpy(out, &w, sizeof(w));
}

const char *frame_type_name(uint8_t type)
{
	static const char *const names[UINT8_MAX + 1] = {
		[FRAME_HELLO] = "HELLO",
		[FRAME_SUBMIT] = "SUBMIT",
		[FRAME_CANCEL] = "CANCEL",
		[FRAME_STATUS] = "STATUS",
		[FRAME_RESOLVE] = "RESOLVE",
		[FRAME_COMMAND] = "COMMAND",
		[FRAME_WELCOME] = "WELCOME",
		[FRAME_STATUS_REPLY] = "STATUS_REPLY",
		[FRAME_DONE] = "DONE",
		[FRAME_START] = "START",
		[FRAME_TEXT] = "TEXT",
		[FRAME_REASONING] = "REASONING",
		[FRAME_TOOL_CALL] = "TOOL_CALL",
		[FRAME_USAGE] = "USAGE",
		[FRAME_END] = "END",
		[FRAME_ERROR] = "ERROR",
	};

	return names[type] ? names[type] : "unknown";
}
