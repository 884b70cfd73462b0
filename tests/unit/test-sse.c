#include "daemon/sse.h"
#include "tests/unit/cmocka-all.h"

#include <string.h>

/* What was delivered: "name|data;" for each event. */
struct trace {
	struct buffer text;
	unsigned stop_after;
	unsigned events;
};

static int note(void *context, struct str name, struct str data)
{
	struct trace *t = context;

	assert_int_equal(buffer_printf(&t->text, "%.*s|", STR_ARG(name)), 0);
	assert_int_equal(buffer_append_str(&t->text, data), 0);
	assert_int_equal(buffer_append(&t->text, ";", 1), 0);
	t->events++;
	return t->stop_after && t->events == t->stop_after;
}

/* Feeds the pieces [0,a) [a,b) [b,end) and compares the events. */
static void expect_pieces(struct str in, size_t a, size_t b, struct str want, uint64_t comments)
{
	struct sse s = SSE_NULL;
	struct trace t = { 0 };

	assert_int_equal(sse_feed(&s, str_make(in.data, a), note, &t), SSE_OK);
	assert_int_equal(sse_feed(&s, str_make(in.data + a, b - a), note, &t), SSE_OK);
	assert_int_equal(sse_feed(&s, str_make(in.data + b, in.length - b), note, &t), SSE_OK);
	assert_true(str_equal(buffer_str(&t.text), want));
	assert_int_equal(s.comments, comments);
	if (!sse_is_pending(&s))
		assert_null(s.held.data);
	sse_deinit(&s);
	buffer_deinit(&t.text);
}

static void expect(struct str in, struct str want, uint64_t comments)
{
	struct sse s = SSE_NULL;
	struct trace t = { 0 };

	for (size_t a = 0; a <= in.length; a++)
		for (size_t b = a; b <= in.length; b++)
			expect_pieces(in, a, b, want, comments);
	for (size_t i = 0; i < in.length; i++)
		assert_int_equal(sse_feed(&s, str_make(in.data + i, 1), note, &t), SSE_OK);
	assert_true(str_equal(buffer_str(&t.text), want));
	sse_deinit(&s);
	buffer_deinit(&t.text);
}

#define EXPECT(in_, want_, comments_) \
	expect(str_make(in_, sizeof(in_) - 1), str_make(want_, sizeof(want_) - 1), comments_)

static void every_split_gives_the_same_events(void **state)
{
	(void)state;
	EXPECT("data: a\n\ndata: b\n\n", "|a;|b;", 0);
	EXPECT("event: x\ndata: 1\ndata:2\ndata:  3\n\n", "x|1\n2\n 3;", 0);
	EXPECT("data: a\r\n\r\ndata: b\r\rdata: c\n\r\n", "|a;|b;|c;", 0);
	EXPECT("data: a\r\rdata: b\r\n\n", "|a;|b;", 0);
	EXPECT(": note\n\n:\ndata: a\n: in it\n\n", "|a;", 3);
	EXPECT("data\n\ndata\ndata\n\ndata:\n\n", "|;|\n;|;", 0);
	EXPECT("event: lost\n\ndata: a\n\n", "|a;", 0);
	EXPECT("id: 7\nretry: 10\nfoo: bar\nfoo\ndata: a\n\n", "|a;", 0);
	EXPECT("event: x\nevent\ndata: a\n\n", "|a;", 0);
	EXPECT("dat: no\ndata2: no\n data: no\ndata: a:b: c\n\n", "|a:b: c;", 0);
	EXPECT("\n\n\r\n\rdata: a\n\n", "|a;", 0);
	EXPECT("data: x\0y\n\n", "|x\0y;", 0);
}

static void an_event_needs_its_blank_line(void **state)
{
	(void)state;
	EXPECT("data: a\n\ndata: b\n", "|a;", 0);
	EXPECT("data: a\n\ndata: b", "|a;", 0);
	EXPECT("", "", 0);
}

static void a_bom_is_skipped_once(void **state)
{
	(void)state;
	EXPECT("\xef\xbb\xbf"
	       "data: a\n\n",
		"|a;", 0);
	EXPECT("\xef\xbb\xbf\xef\xbb\xbf"
	       "data: a\n\ndata: b\n\n",
		"|b;", 0);
	EXPECT("\xef\xbb"
	       "data: a\n\ndata: b\n\n",
		"|b;", 0);
	EXPECT("data: \xef\xbb\xbf\n\n", "|\xef\xbb\xbf;", 0);
}

static void long_names_are_cut(void **state)
{
	(void)state;
	EXPECT("event: 0123456789012345678901234567890123456789\ndata: a\n\n",
		"01234567890123456789012345678901|a;", 0);
}

/* length bytes of 'x' as one line of data, in pieces of the given size. */
static enum sse_outcome feed_long(size_t length, size_t piece, size_t lines)
{
	struct sse s = SSE_NULL;
	struct trace t = { 0 };
	struct buffer in = BUFFER_NULL;
	enum sse_outcome r = SSE_OK;

	for (size_t i = 0; i < lines; i++) {
		assert_int_equal(buffer_append(&in, "data:", 5), 0);
		assert_int_equal(buffer_reserve(&in, length), 0);
		memset(buffer_tail(&in), 'x', length);
		in.end += length;
		assert_int_equal(buffer_append(&in, "\n", 1), 0);
	}
	assert_int_equal(buffer_append(&in, "\n", 1), 0);
	for (size_t at = 0; r == SSE_OK && at < buffer_length(&in); at += piece)
		r = sse_feed(&s, str_make(in.data + at, min_u64(piece, buffer_length(&in) - at)),
			note, &t);
	assert_int_equal(t.events, r == SSE_OK ? 1 : 0);
	sse_deinit(&s);
	buffer_deinit(&t.text);
	buffer_deinit(&in);
	return r;
}

static void size_is_bounded_alike_for_every_split(void **state)
{
	static const size_t pieces[] = { SIZE_MAX / 2, 100000, 4096, 1021 };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(pieces); i++) {
		assert_int_equal(feed_long(SSE_EVENT_MAX - 5, pieces[i], 1), SSE_OK);
		assert_int_equal(feed_long(SSE_EVENT_MAX - 4, pieces[i], 1), SSE_E_TOO_LARGE);
		assert_int_equal(feed_long(SSE_EVENT_MAX / 2 - 10, pieces[i], 2), SSE_OK);
		assert_int_equal(feed_long(SSE_EVENT_MAX / 2, pieces[i], 2), SSE_E_TOO_LARGE);
	}
}

static void the_callback_can_stop(void **state)
{
	struct str in = str_of("data: a\n\ndata: b\n\ndata: c\n\n");
	struct sse s = SSE_NULL;
	struct trace t = { .stop_after = 2 };

	(void)state;
	assert_int_equal(sse_feed(&s, in, note, &t), SSE_E_STOPPED);
	assert_int_equal(t.events, 2);
	sse_deinit(&s);
	buffer_deinit(&t.text);
}

static void pending_is_what_was_begun(void **state)
{
	static const struct {
		const char *in;
		bool pending;
	} rows[] = {
		{ "", false },
		{ "data: a\n\n", false },
		{ "data: a\n\n: note\n", false },
		{ "data: a\r\n\r", false },
		{ "d", true },
		{ "data: a", true },
		{ "data: a\n", true },
		{ "data:\n", true },
		{ "event: x\n", true },
		{ "\xef\xbb", true },
		{ "\xef\xbb\xbf", false },
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		struct sse s = SSE_NULL;
		struct trace t = { 0 };

		assert_int_equal(sse_feed(&s, str_of(rows[i].in), note, &t), SSE_OK);
		assert_int_equal(sse_is_pending(&s), rows[i].pending);
		sse_deinit(&s);
		buffer_deinit(&t.text);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_split_gives_the_same_events),
		cmocka_unit_test(an_event_needs_its_blank_line),
		cmocka_unit_test(a_bom_is_skipped_once),
		cmocka_unit_test(long_names_are_cut),
		cmocka_unit_test(size_is_bounded_alike_for_every_split),
		cmocka_unit_test(the_callback_can_stop),
		cmocka_unit_test(pending_is_what_was_begun),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
