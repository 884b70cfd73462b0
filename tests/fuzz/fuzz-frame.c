/* A connection's bytes: frames one after the other, until one is refused or not complete. */

#include "tests/fuzz/fuzz.h"

#include <string.h>
#include "proto/bounds.h"
#include "proto/frame.h"
#include "proto/msg.h"

bool fuzz_example(unsigned n, struct buffer *out)
{
	const struct msg_hello hello = { .version_min = 1, .version_max = 1, .control = true };
	const struct msg_submit submit = { .model = str_of("m"), .body = str_of("{}") };

	if (n > 3)
		return false;
	return msg_pack_hello(out, &hello) == 0 &&
		(n < 1 || msg_pack_submit(out, n, &submit) == 0) &&
		(n < 2 || msg_pack_cancel(out, n) == 0) && (n < 3 || msg_pack_status(out, n) == 0);
}

/* A header that was accepted says all there is in its bytes. */
static void check_header(const uint8_t *data, const struct frame_header *h, uint32_t body_max)
{
	uint8_t again[FRAME_HEADER_SIZE];

	FUZZ_CHECK(h->length <= body_max && h->flags == 0);
	frame_encode(h, again);
	FUZZ_CHECK(memcmp(again, data, sizeof(again)) == 0);
	FUZZ_CHECK(frame_type_name(h->type) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint32_t body_max = FRAME_HELLO_MAX;
	struct frame_header h;

	while (frame_decode(data, size, body_max, &h) == FRAME_OK) {
		check_header(data, &h, body_max);
		data += FRAME_HEADER_SIZE;
		size -= FRAME_HEADER_SIZE;
		if (h.length > size)
			break;
		if (bounds_check(data, h.length) != BOUNDS_OK)
			break;
		data += h.length;
		size -= h.length;
		body_max = FRAME_BODY_MAX;
	}
	FUZZ_CHECK(size >= FRAME_HEADER_SIZE ||
		frame_decode(data, size, body_max, &h) == FRAME_E_MORE);
	return 0;
}
