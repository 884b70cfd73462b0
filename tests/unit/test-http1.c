#include "daemon/io/http1.h"
#include "tests/unit/cmocka-all.h"

#include <stdio.h>
#include <string.h>

/* What happened, as text: "200[type=text] body{abc} complete(keep)". Neighbouring body pieces are
 * joined, so that the record does not depend on how the bytes were split. */
struct record {
	char text[4096];
	bool in_body;
	const char *header;
	int head_answer, body_answer;
};

static void aux_printf(2, 3) record_add(struct record *r, const char *format, ...)
{
	size_t at = strlen(r->text);
	va_list args;

	va_start(args, format);
	vsnprintf(r->text + at, sizeof(r->text) - at, format, args);
	va_end(args);
}

static int record_head(void *context, struct http1 *p)
{
	struct record *r = context;

	record_add(r, "%u[%.*s]", http1_status(p), STR_ARG(http1_header(p, r->header)));
	return r->head_answer;
}

static int record_body(void *context, struct str bytes)
{
	struct record *r = context;

	record_add(r, "%s%.*s", r->in_body ? "" : "{", STR_ARG(bytes));
	r->in_body = true;
	return r->body_answer;
}

static void record_close(struct record *r)
{
	if (r->in_body)
		record_add(r, "}");
	r->in_body = false;
}

static int record_complete(void *context, bool keep_alive)
{
	struct record *r = context;

	record_close(r);
	record_add(r, "%s", keep_alive ? "keep" : "close");
	return 0;
}

static struct http1 *record_parser(struct record *r)
{
	struct http1 *p;

	assert_int_equal(http1_new(&p,
				 &(struct http1_events){ .head = record_head,
					 .body = record_body,
					 .complete = record_complete,
					 .context = r }),
		0);
	return p;
}

/* Feeds text cut at `cut` (0: whole), then the end when eof. Returns how it ended. */
static enum http1_outcome record_run(
	struct record *r, const char *text, size_t size, size_t cut, bool eof, size_t *rest)
{
	struct http1 *p = record_parser(r);
	enum http1_outcome outcome = HTTP1_OK;
	size_t used = 0, at = 0;

	for (int piece = 0; piece < 2 && outcome == HTTP1_OK; piece++) {
		size_t n = piece == 0 ? (cut ? cut : size) : size - at;
		char *copy = malloc(n ? n : 1); /* exact, so that a sanitizer sees overreads */

		memcpy(copy, text + at, n);
		outcome = http1_feed(p, copy, n, &used);
		at += used;
		free(copy);
	}
	if (outcome == HTTP1_OK && eof)
		outcome = http1_feed_eof(p);
	record_close(r);
	*rest = size - at;
	if (outcome == HTTP1_E_MALFORMED || outcome == HTTP1_E_TOO_LARGE)
		assert_string_not_equal(http1_error(p), "no error");
	http1_free(p);
	return outcome;
}

struct sample {
	const char *name, *text, *header, *events;
	enum http1_outcome outcome;
	size_t rest;
};

#define LENGTH(n_) "HTTP/1.1 200 OK\r\nContent-Length: " n_ "\r\n"
#define CHUNKED "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

/* name, bytes, header asked for, events, outcome, unread bytes */
static const struct sample whole[] = {
	{ "content length", LENGTH("5") "Content-Type: text/plain \r\n\r\nhello", "content-type",
		"200[text/plain]{hello}keep", HTTP1_COMPLETE, 0 },
	{ "no body", "HTTP/1.1 204 No Content\r\n\r\n", "x", "204[]keep", HTTP1_COMPLETE, 0 },
	{ "empty value", LENGTH("0") "A:\r\nB:  \r\nC: c\r\n\r\n", "c", "200[c]keep",
		HTTP1_COMPLETE, 0 },
	{ "first of two", LENGTH("0") "A: 1\r\nA: 2\r\n\r\n", "a", "200[1]keep", HTTP1_COMPLETE,
		0 },
	{ "value is no name", LENGTH("0") "A: b\r\nb: c\r\n\r\n", "b", "200[c]keep", HTTP1_COMPLETE,
		0 },
	{ "chunked with trailers", CHUNKED "3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nT: trailer\r\n\r\n",
		"t", "200[]{abcdefg}keep", HTTP1_COMPLETE, 0 },
	{ "1xx",
		"HTTP/1.1 100 Continue\r\nX: 1\r\n\r\n"
		"HTTP/1.1 103 Early Hints\r\nX: 2\r\n\r\n" LENGTH("1") "\r\na",
		"x", "200[]{a}keep", HTTP1_COMPLETE, 0 },
	{ "junk behind", LENGTH("1") "\r\naJUNK", "x", "200[]{a}keep", HTTP1_COMPLETE, 4 },
	{ "junk behind chunks", CHUNKED "1\r\na\r\n0\r\n\r\nHTTP", "x", "200[]{a}keep",
		HTTP1_COMPLETE, 4 },
	{ "connection close", LENGTH("1") "Connection: close\r\n\r\na", "x", "200[]{a}close",
		HTTP1_COMPLETE, 0 },
	{ "HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", "x", "200[]{a}close",
		HTTP1_COMPLETE, 0 },
	{ "bad chunk", CHUNKED "zz\r\n", "x", "200[]", HTTP1_E_MALFORMED, 4 },
};

/* The peer closes behind these. */
static const struct sample ended[] = {
	{ "until close", "HTTP/1.1 200 OK\r\n\r\nabc", "x", "200[]{abc}close", HTTP1_COMPLETE, 0 },
	{ "too short", LENGTH("5") "\r\nabc", "x", "200[]{abc}", HTTP1_E_MALFORMED, 0 },
	{ "cut chunk", CHUNKED "5\r\nab", "x", "200[]{ab}", HTTP1_E_MALFORMED, 0 },
	{ "no last chunk", CHUNKED "2\r\nab\r\n", "x", "200[]{ab}", HTTP1_E_MALFORMED, 0 },
	{ "cut head", "HTTP/1.1 200 OK\r\nContent-", "x", "", HTTP1_E_MALFORMED, 0 },
	{ "nothing", "", "x", "", HTTP1_E_MALFORMED, 0 },
	{ "both lengths", LENGTH("1") "Transfer-Encoding: chunked\r\n\r\n", "x", "",
		HTTP1_E_MALFORMED, 0 },
	{ "two lengths", LENGTH("1") "Content-Length: 2\r\n\r\n", "x", "", HTTP1_E_MALFORMED, 0 },
	{ "bare LF", "HTTP/1.1 200 OK\nContent-Length: 1\n\na", "x", "", HTTP1_E_MALFORMED, 0 },
	{ "not http", "SSH-2.0-OpenSSH\r\n", "x", "", HTTP1_E_MALFORMED, 0 },
	{ "HTTP/2.0", "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n", "x", "", HTTP1_E_MALFORMED,
		0 },
	{ "other coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "x", "",
		HTTP1_E_MALFORMED, 0 },
	{ "other coding later",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n\r\n",
		"x", "", HTTP1_E_MALFORMED, 0 },
	{ "101 alone", "HTTP/1.1 101 Switching\r\n\r\n" LENGTH("0") "\r\n", "x", "",
		HTTP1_E_MALFORMED, 0 },
	{ "101", "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "x", "",
		HTTP1_E_MALFORMED, 0 },
};

static void try_splits(const struct sample *s, bool eof)
{
	size_t size = strlen(s->text), rest;

	for (size_t cut = 0; cut < (size ? size : 1); cut++) {
		struct record r = { .header = s->header };
		enum http1_outcome outcome = record_run(&r, s->text, size, cut, eof, &rest);

		if (outcome != s->outcome || strcmp(r.text, s->events) != 0)
			print_error("%s cut at %zu: %s\n", s->name, cut, r.text);
		assert_int_equal(outcome, s->outcome);
		assert_string_equal(r.text, s->events);
		/* A cut inside the junk hides the rest of it. */
		if (outcome == HTTP1_COMPLETE && (cut == 0 || size - cut > s->rest))
			assert_int_equal(rest, s->rest);
	}
}

static void every_split_gives_the_same_events(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(whole); i++)
		try_splits(&whole[i], false);
	for (size_t i = 0; i < ARRAY_SIZE(ended); i++)
		try_splits(&ended[i], true);
}

static void reset_reads_the_next_response(void **state)
{
	const char *text = "HTTP/1.1 200 OK\r\nA: 1\r\nContent-Length: 1\r\n\r\na"
			   "HTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nb";
	struct record r = { .header = "a" };
	struct http1 *p = record_parser(&r);
	size_t used, again;

	(void)state;
	assert_false(http1_has_begun(p));
	assert_int_equal(http1_feed(p, text, strlen(text), &used), HTTP1_COMPLETE);
	assert_true(http1_has_begun(p));
	assert_int_equal(http1_feed(p, text + used, 5, &again), HTTP1_COMPLETE);
	assert_int_equal(again, 0);
	http1_reset(p);
	assert_false(http1_has_begun(p));
	assert_int_equal(http1_feed(p, text + used, strlen(text) - used, &again), HTTP1_COMPLETE);
	assert_int_equal(used + again, strlen(text));
	assert_string_equal(r.text, "200[1]{a}keep404[]{b}keep");
	http1_free(p);
}

static void record_field(void *context, struct str name, struct str value)
{
	record_add(context, "<%.*s=%.*s>", STR_ARG(name), STR_ARG(value));
}

static int record_fields(void *context, struct http1 *p)
{
	http1_each_header(p, record_field, context);
	return 0;
}

static void each_header_is_told_in_order(void **state)
{
	const char *text = "HTTP/1.1 103 Early\r\nGone: 1\r\n\r\nHTTP/1.1 429 No\r\nX-A:  1, 2 \r\n"
			   "empty:\r\nx-a: 3\r\nContent-Length: 0\r\n\r\n";
	struct record r = { 0 };
	struct http1 *p;
	size_t used;

	(void)state;
	assert_int_equal(
		http1_new(&p, &(struct http1_events){ .head = record_fields, .context = &r }), 0);
	assert_int_equal(http1_feed(p, text, strlen(text), &used), HTTP1_COMPLETE);
	assert_string_equal(r.text, "<X-A=1, 2><empty=><x-a=3><Content-Length=0>");
	http1_each_header(p, record_field, &r);
	assert_string_equal(r.text, "<X-A=1, 2><empty=><x-a=3><Content-Length=0>");
	http1_reset(p);
	r.text[0] = '\0';
	assert_int_equal(http1_feed(p, LENGTH("0") "\r\n", sizeof(LENGTH("0") "\r\n") - 1, &used),
		HTTP1_COMPLETE);
	assert_string_equal(r.text, "<Content-Length=0>");
	http1_free(p);
}

static void callbacks_stop_the_parsing(void **state)
{
	const char *text = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
	struct record head = { .header = "a", .head_answer = 1 };
	struct record body = { .header = "a", .body_answer = 1 };
	size_t rest;

	(void)state;
	assert_int_equal(record_run(&head, text, strlen(text), 0, true, &rest), HTTP1_E_STOPPED);
	assert_string_equal(head.text, "200[]");
	assert_int_equal(record_run(&body, text, strlen(text), strlen(text) - 2, true, &rest),
		HTTP1_E_STOPPED);
	assert_string_equal(body.text, "200[]{a}");
}

/* Feeds prefix, then filler again and again until the parser refuses or it went too far. */
static enum http1_outcome flood(const char *prefix, const char *filler, size_t limit)
{
	struct record r = { .header = "a" };
	struct http1 *p = record_parser(&r);
	size_t used, fed = 0;
	enum http1_outcome outcome = http1_feed(p, prefix, strlen(prefix), &used);

	while (outcome == HTTP1_OK && fed < limit) {
		outcome = http1_feed(p, filler, strlen(filler), &used);
		fed += strlen(filler);
	}
	http1_free(p);
	return outcome;
}

static void heads_and_trailers_are_bounded(void **state)
{
	static char line[HTTP1_HEADER_MAX + 10];

	(void)state;
	/* All of it in one piece. */
	memset(line, 'b', sizeof(line) - 1);
	assert_int_equal(flood("HTTP/1.1 200 OK\r\nA: ", line, 1), HTTP1_E_TOO_LARGE);
	line[HTTP1_HEADER_MAX / 2] = '\0';
	assert_int_equal(flood("HTTP/1.1 200 OK\r\nA: ", line, 1), HTTP1_OK);
	assert_int_equal(
		flood("HTTP/1.1 200 OK\r\n", "A: bbbbbbbbbbbbbb\r\n", 1 << 20), HTTP1_E_TOO_LARGE);
	assert_int_equal(flood("HTTP/1.1 200 OK\r\nA: ", "bbbb", 1 << 20), HTTP1_E_TOO_LARGE);
	assert_int_equal(flood("HTTP/1.1 200 OK\r\nA:", "    ", 1 << 20), HTTP1_E_TOO_LARGE);
	assert_int_equal(flood("", "HTTP/1.1 100 Go\r\nA: b\r\n\r\n", 1 << 20), HTTP1_E_TOO_LARGE);
	assert_int_equal(
		flood(CHUNKED "0\r\n", "A: bbbbbbbbbbbbbb\r\n", 1 << 20), HTTP1_E_TOO_LARGE);
	assert_int_equal(flood(CHUNKED "1;", "aaaaaaa", 1 << 20), HTTP1_E_TOO_LARGE);
	/* A long body in small chunks is none of that. */
	assert_int_equal(flood(CHUNKED, "1\r\na\r\n", 1 << 20), HTTP1_OK);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_split_gives_the_same_events),
		cmocka_unit_test(reset_reads_the_next_response),
		cmocka_unit_test(each_header_is_told_in_order),
		cmocka_unit_test(callbacks_stop_the_parsing),
		cmocka_unit_test(heads_and_trailers_are_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
