/* An event stream: whole, in single bytes and in two pieces it gives the same events. */

#include "tests/fuzz/fuzz.h"

#include <string.h>
#include "daemon/sse.h"

bool fuzz_example(unsigned n, struct buffer *out)
{
	static const char *const examples[] = {
		"data: a\n\nevent: x\r\ndata: b\r\ndata: c\r\n\r\n: note\r\r",
		"\357\273\277data:a\rdata\rid: 1\r\r\nretry: 5\n\n",
		"event: content_block_delta\ndata: {\"type\":\"ping\"}\n\ndata: [DONE]\n\n",
	};

	return n < ARRAY_SIZE(examples) && buffer_append_str(out, str_of(examples[n])) == 0;
}

static int note(void *context, struct str name, struct str data)
{
	struct buffer *trace = context;
	uint64_t lengths[2] = { name.length, data.length };

	FUZZ_CHECK(buffer_append(trace, lengths, sizeof(lengths)) == 0);
	FUZZ_CHECK(buffer_append_str(trace, name) == 0 && buffer_append_str(trace, data) == 0);
	return 0;
}

/* Feeds pieces of the given size, the first one of first bytes; each piece on its own heap, so
 * that a read beyond it is seen. */
static void run(struct str in, size_t first, size_t piece, struct buffer *trace)
{
	struct sse s = SSE_NULL;

	for (size_t at = 0, n; at < in.length; at += n) {
		aux_cleanup(freep) char *copy = NULL;

		n = min_u64(at == 0 && first ? first : piece, in.length - at);
		copy = malloc(n);
		FUZZ_CHECK(copy);
		memcpy(copy, in.data + at, n);
		FUZZ_CHECK(sse_feed(&s, str_make(copy, n), note, trace) == SSE_OK);
	}
	FUZZ_CHECK(buffer_append(trace, &s.comments, sizeof(s.comments)) == 0);
	FUZZ_CHECK(sse_is_pending(&s) || !s.held.data);
	sse_deinit(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	aux_cleanup(buffer_deinit) struct buffer whole = BUFFER_NULL;
	struct str in = str_make(data, size);

	run(in, 0, SIZE_MAX, &whole);
	for (size_t i = 0; i < 4 && i < size; i++) {
		aux_cleanup(buffer_deinit) struct buffer split = BUFFER_NULL;

		run(in, i ? data[i] : 0, i ? SIZE_MAX : 1, &split);
		FUZZ_CHECK(str_equal(buffer_str(&whole), buffer_str(&split)));
	}
	return 0;
}
