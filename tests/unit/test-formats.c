#include "daemon/formats/format.h"
#include "base/aux.h"
#include "tests/unit/cmocka-all.h"

#include <stdio.h>
#include <string.h>

/*
 * The recorded streams of tests/unit/streams, and what must come out of each: the events in
 * order, then the verdict. S start, T text, R reasoning, C tool call; U usage in the order
 * input, output, cached, cache write, reasoning.
 */
struct stream_row {
	const char *file, *family, *want;
};

static const struct stream_row streams[] = {
#include "tests/unit/streams/expected.h"
};

/* ---- running a decoder ---- */

struct trace {
	struct buffer text;
	unsigned stop_after, events;
};

static void note(struct trace *t, const char *kind, struct str a, struct str b, struct str c)
{
	assert_int_equal(buffer_printf(&t->text, "%s(%.*s", kind, STR_ARG(a)), 0);
	if (b.data)
		assert_int_equal(buffer_printf(&t->text, ",%.*s", STR_ARG(b)), 0);
	if (c.data)
		assert_int_equal(buffer_printf(&t->text, ",%.*s", STR_ARG(c)), 0);
	assert_int_equal(buffer_append(&t->text, ") ", 2), 0);
	t->events++;
}

static int stops(const struct trace *t)
{
	return t->stop_after && t->events == t->stop_after;
}

static int on_start(void *context, const struct msg_start *m)
{
	note(context, "S", m->id, m->model, STR_NULL);
	return stops(context);
}

static int on_text(void *context, enum frame_type type, struct str text)
{
	note(context, type == FRAME_TEXT ? "T" : "R", text, STR_NULL, STR_NULL);
	return stops(context);
}

static int on_tool_call(void *context, const struct msg_tool_call *m)
{
	char head[24];

	snprintf(head, sizeof(head), "%u:%.*s", m->index, STR_ARG(m->id));
	note(context, "C", str_of(head), m->name.data ? m->name : str_of(""),
		m->arguments.data ? m->arguments : str_of(""));
	return stops(context);
}

static struct format_decoder *decoder_of(const char *family, struct trace *t)
{
	const struct family *f = family_find(str_of(family));
	struct format_sink sink = { on_start, on_text, on_tool_call, t };
	struct format_decoder *d = NULL;

	assert_non_null(f);
	assert_int_equal(format_decoder_new(&d, format_find(f->format), f, &sink), 0);
	return d;
}

static enum status finish(struct format_decoder *d, bool stream, struct trace *t)
{
	struct msg_end end = { 0 };
	struct msg_error error = { 0 };
	enum status status = format_decoder_finish(d, stream, &end, &error);
	const struct msg_usage u = format_decoder_usage(d);

	if (status == STATUS_OK) {
		assert_int_equal(
			buffer_printf(&t->text, "END(%.*s) U(%ld,%ld,%ld,%ld,%ld)",
				STR_ARG(end.finish_reason), (long)u.input, (long)u.output,
				(long)u.cached_input, (long)u.cache_write, (long)u.reasoning),
			0);
		return status;
	}
	assert_int_equal(error.status, status);
	assert_true(error.message.length > 0);
	assert_int_equal(error.received, format_decoder_received(d));
	assert_int_equal(buffer_printf(&t->text, "%s", status_name(status)), 0);
	return status;
}

static enum status feed(struct format_decoder *d, bool stream, struct str bytes)
{
	struct msg_error error = { 0 };
	enum status status = format_decoder_feed(d, stream, bytes, &error);

	assert_int_equal(error.status, status);
	assert_int_equal(error.message.length > 0, status != STATUS_OK);
	return status;
}

/* Feeds the stream in two pieces and, when step is not 0, each of them in steps. */
static enum status run(
	const char *family, bool stream, struct str in, size_t split, size_t step, struct trace *t)
{
	struct format_decoder *d = decoder_of(family, t);
	enum status status = STATUS_OK;

	for (size_t at = 0, n; status == STATUS_OK && at < in.length; at += n) {
		n = step ? step : at < split ? split - at : in.length - at;
		n = min_u64(n, in.length - at);
		status = feed(d, stream, str_make(in.data + at, n));
	}
	status = finish(d, stream, t);
	format_decoder_free(d);
	return status;
}

static void expect(const struct stream_row *row, const struct trace *t, const char *how, size_t at)
{
	if (!str_is(buffer_str(&t->text), row->want))
		fail_msg("%s, %s %zu:\n got  %.*s\n want %s", row->file, how, at,
			STR_ARG(buffer_str(&t->text)), row->want);
}

/* ---- streams ---- */

static struct buffer stream_read(const char *file)
{
	struct buffer b = BUFFER_NULL;
	char path[512];
	FILE *f;
	size_t n;

	snprintf(path, sizeof(path), "%s/tests/unit/streams/%s",
		getenv("PROJECT_SOURCE") ? getenv("PROJECT_SOURCE") : ".", file);
	f = fopen(path, "rb");
	assert_non_null(f);
	do {
		assert_int_equal(buffer_reserve(&b, 4096), 0);
		n = fread(buffer_tail(&b), 1, 4096, f);
		b.end += n;
	} while (n > 0);
	fclose(f);
	return b;
}

static bool is_built(const struct stream_row *row)
{
	return family_find(str_of(row->family)) != NULL;
}

static void streams_give_their_events(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(streams); i++) {
		struct buffer in = stream_read(streams[i].file);
		struct trace t = { 0 };

		if (is_built(&streams[i])) {
			run(streams[i].family, true, buffer_str(&in), 0, 0, &t);
			expect(&streams[i], &t, "whole", 0);
		}
		buffer_deinit(&t.text);
		buffer_deinit(&in);
	}
}

static void every_split_gives_the_same_events(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(streams); i++) {
		struct buffer in = stream_read(streams[i].file);

		for (size_t split = 1; is_built(&streams[i]) && split < buffer_length(&in);
			split++) {
			struct trace t = { 0 };

			run(streams[i].family, true, buffer_str(&in), split, 0, &t);
			expect(&streams[i], &t, "split at", split);
			buffer_deinit(&t.text);
		}
		for (size_t step = 1; is_built(&streams[i]) && step <= 7; step++) {
			struct trace t = { 0 };

			run(streams[i].family, true, buffer_str(&in), 0, step, &t);
			expect(&streams[i], &t, "steps of", step);
			buffer_deinit(&t.text);
		}
		buffer_deinit(&in);
	}
}

/* Where the event ends that is terminal: what is cut before it must not succeed. */
static size_t terminal_end(struct str in, bool openai)
{
	const char *mark = openai ? "\"finish_reason\":\"" : "\"type\": \"message_stop\"";
	const char *at = memmem(in.data, in.length, mark, strlen(mark));
	const char *end;

	assert_non_null(at);
	end = memmem(at, in.length - (size_t)(at - in.data), "\n\n", 2);
	if (end)
		return (size_t)(end - in.data) + 2;
	end = memmem(at, in.length - (size_t)(at - in.data), "\r\n\r", 3);
	assert_non_null(end);
	return (size_t)(end - in.data) + 3;
}

static void no_cut_stream_succeeds(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(streams); i++) {
		struct buffer in = stream_read(streams[i].file);
		bool good = strstr(streams[i].want, "END(") != NULL, openai;
		size_t from = buffer_length(&in);

		if (is_built(&streams[i]) && good) {
			openai = family_find(str_of(streams[i].family))->format ==
				FAMILY_FORMAT_OPENAI;
			from = terminal_end(buffer_str(&in), openai);
		}
		for (size_t cut = 0; is_built(&streams[i]) && cut < from; cut++) {
			struct trace t = { 0 };
			enum status status =
				run(streams[i].family, true, str_make(in.data, cut), 0, 0, &t);

			if (status == STATUS_OK)
				fail_msg("%s cut at %zu is a success", streams[i].file, cut);
			if (good)
				assert_int_equal(status, STATUS_TRUNCATED);
			buffer_deinit(&t.text);
		}
		buffer_deinit(&in);
	}
}

static void an_event_begun_and_cut_is_no_end(void **state)
{
	static const char whole[] = "data: {\"id\":\"x\",\"choices\":[{\"index\":0,\"delta\":"
				    "{\"content\":\"a\"},\"finish_reason\":\"stop\"}]}\n\n";
	static const struct {
		const char *tail;
		enum status status;
	} rows[] = {
		{ "", STATUS_OK },
		{ "data: [DONE]\n\n", STATUS_OK },
		{ "data: [DONE]", STATUS_OK },
		{ "data: [DONE]\n", STATUS_OK },
		{ ": note\n", STATUS_OK },
		{ "data: [DO", STATUS_TRUNCATED },
		{ "data: {\"usage\"", STATUS_TRUNCATED },
		{ "data: {\"choices\":[]}\n", STATUS_TRUNCATED },
	};

	(void)state;
	for (size_t i = 0; family_find(str_of("openai")) && i < ARRAY_SIZE(rows); i++) {
		struct buffer in = BUFFER_NULL;
		struct trace t = { 0 };

		assert_int_equal(buffer_printf(&in, "%s%s", whole, rows[i].tail), 0);
		assert_int_equal(run("openai", true, buffer_str(&in), 0, 0, &t), rows[i].status);
		buffer_deinit(&in);
		buffer_deinit(&t.text);
	}
}

static void the_sink_can_stop_anywhere(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(streams); i++) {
		struct buffer in = stream_read(streams[i].file);

		for (unsigned n = 1; is_built(&streams[i]); n++) {
			struct trace t = { .stop_after = n };
			enum status status =
				run(streams[i].family, true, buffer_str(&in), 0, 0, &t);
			bool stopped = t.events == n;

			assert_int_equal(t.events > n, 0);
			if (stopped)
				assert_int_equal(status, STATUS_CANCELLED);
			buffer_deinit(&t.text);
			if (!stopped)
				break;
		}
		buffer_deinit(&in);
	}
}

/* ---- whole answers ---- */

static const struct stream_row answers[] = {
	{ "{\"id\":\"c1\",\"model\":\"gpt-4o\",\"choices\":[{\"index\":0,\"message\":{\"role\":"
	  "\"assistant\",\"content\":\"Hi\",\"refusal\":null},\"finish_reason\":\"stop\"}],"
	  "\"usage\":"
	  "{\"prompt_tokens\":9,\"completion_tokens\":2,\"prompt_tokens_details\":"
	  "{\"cached_tokens\":3}}}",
		"openai", "S(c1,gpt-4o) T(Hi) END(stop) U(9,2,3,-1,-1)" },
	{ "{\"id\":\"c2\",\"model\":\"m\",\"choices\":[{\"message\":{\"content\":null,"
	  "\"reasoning\":\"so\",\"tool_calls\":[{\"id\":\"t1\",\"type\":\"function\",\"function\":"
	  "{\"name\":\"f\",\"arguments\":\"{}\"}},{\"id\":\"t2\",\"type\":\"function\","
	  "\"function\":"
	  "{\"name\":\"g\",\"arguments\":\"{\\\"a\\\":1}\"}}]},\"finish_reason\":\"tool_calls\"}]}",
		"openai",
		"S(c2,m) R(so) C(0:t1,f,{}) C(1:t2,g,{\"a\":1}) END(tool_calls) "
		"U(-1,-1,-1,-1,-1)" },
	{ "{\"id\":\"c\",\"choices\":[]}", "openai", "MALFORMED" },
	{ "{\"id\":\"c\"}", "openai", "MALFORMED" },
	{ "", "openai", "MALFORMED" },
	{ "[]", "openai", "MALFORMED" },
	{ "{\"choices\":{}}", "openai", "MALFORMED" },
	{ "{\"choices\":[1]}", "openai", "MALFORMED" },
	{ "{\"choices\":[{\"index\":1,\"message\":{\"content\":\"x\"}}]}", "openai", "MALFORMED" },
	{ "{\"choices\":[{\"message\":{\"content\":7},\"finish_reason\":\"stop\"}]}", "openai",
		"S() MALFORMED" },
	{ "{\"choices\":[{\"message\":{\"tool_calls\":[{\"index\":5000}]}}]}", "openai",
		"S() MALFORMED" },
	{ "{\"choices\":[{\"message\":{\"tool_calls\":[{\"index\":-1}]}}]}", "openai",
		"S() MALFORMED" },
	{ "{\"choices\":[{\"message\":{\"content\":\"x\"},\"finish_reason\":\"stop\"}]", "openai",
		"MALFORMED" },
	{ "{\"id\":\"c\",\"choices\":[{\"message\":{\"content\":\"x\"}}]}", "openai",
		"S(c) T(x) TRUNCATED" },
	{ "{\"error\":{\"message\":\"no\",\"code\":\"insufficient_quota\"}}", "openai",
		"PROVIDER_QUOTA" },
	{ "{\"error\":\"boom\"}", "openai", "PROVIDER_ERROR" },
	{ "{\"object\":\"error\",\"message\":\"boom\",\"code\":429}", "openai",
		"PROVIDER_LIMITED" },
	{ "[{\"error\":{\"code\":503}}]", "openai", "PROVIDER_OVERLOADED" },
	{ "{\"id\":\"c\",\"choices\":[{\"message\":{\"content\":\"x\"},\"finish_reason\":"
	  "\"stop\"}],\"usage\":{\"prompt_tokens\":-4,\"completion_tokens\":99999999999999999999}}",
		"openai", "S(c) T(x) END(stop) U(-1,-1,-1,-1,-1)" },
	{ "{\"id\":\"m1\",\"type\":\"message\",\"model\":\"claude\",\"content\":[{\"type\":"
	  "\"thinking\",\"thinking\":\"hm\",\"signature\":\"s\"},{\"type\":\"text\",\"text\":"
	  "\"Hi\"},{\"type\":\"tool_use\",\"id\":\"t\",\"name\":\"f\",\"input\":{\"n\":"
	  "12345678901234567890123}}],\"stop_reason\":\"tool_use\",\"usage\":{\"input_tokens\":3,"
	  "\"cache_read_input_tokens\":10,\"cache_creation_input_tokens\":5,\"output_tokens\":7}}",
		"anthropic",
		"S(m1,claude) R(hm) T(Hi) C(0:t,f,{\"n\":12345678901234567890123}) "
		"END(tool_calls) U(18,7,10,5,-1)" },
	{ "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"x\"}}",
		"anthropic", "PROVIDER_OVERLOADED" },
	{ "{\"id\":\"m1\"}", "anthropic", "MALFORMED" },
	{ "{\"id\":\"m1\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]}", "anthropic",
		"S(m1) T(x) TRUNCATED" },
	{ "nonsense", "anthropic", "MALFORMED" },
};

static void answers_give_their_events(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		struct str in = str_of(answers[i].file);

		for (size_t step = 0; is_built(&answers[i]) && step < 3; step++) {
			struct trace t = { 0 };

			run(answers[i].family, false, in, 0, step, &t);
			expect(&answers[i], &t, "steps of", step);
			buffer_deinit(&t.text);
		}
	}
}

static void no_cut_answer_succeeds(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(answers); i++) {
		struct str in = str_of(answers[i].file);

		for (size_t cut = 0; is_built(&answers[i]) && cut < in.length; cut++) {
			struct trace t = { 0 };

			assert_int_equal(
				run(answers[i].family, false, str_make(in.data, cut), 0, 0, &t),
				STATUS_MALFORMED);
			buffer_deinit(&t.text);
		}
	}
}

/* ---- errors ---- */

static void errors_carry_words_and_amount(void **state)
{
	static const char in[] = "data: {\"id\":\"x\",\"choices\":[{\"delta\":{\"content\":"
				 "\"four\"}}]}\n\ndata: {\"error\":{\"message\":\"it broke\"}}\n\n";
	struct trace t = { 0 };
	struct msg_error error = { 0 };
	struct format_decoder *d;

	(void)state;
	if (!family_find(str_of("openai")))
		skip();
	d = decoder_of("openai", &t);
	assert_int_equal(format_decoder_feed(d, true, str_of(in), &error), STATUS_PROVIDER_ERROR);
	assert_true(str_is(error.message,
		"the provider answered HTTP 200 and then an error: "
		"it broke"));
	assert_int_equal(error.http_status, 200);
	assert_int_equal(error.received, 4);
	/* It is final: a good end cannot follow. */
	assert_int_equal(feed(d, true, str_of("data: [DONE]\n\n")), STATUS_PROVIDER_ERROR);
	assert_int_equal(finish(d, true, &t), STATUS_PROVIDER_ERROR);
	format_decoder_free(d);
	buffer_deinit(&t.text);
}

static void answers_that_are_not_good_are_classified(void **state)
{
	static const char *const families[] = { "openai", "anthropic" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		struct trace t = { 0 };
		struct msg_error error = { 0 };
		struct format_decoder *d;

		if (!family_find(str_of(families[i])))
			continue;
		d = decoder_of(families[i], &t);
		assert_int_equal(format_decoder_classify(d, 429,
					 str_of("{\"error\":{\"type\":"
						"\"rate_limit_error\",\"message\":\"slow\"}}"),
					 &error),
			STATUS_PROVIDER_LIMITED);
		assert_int_equal(error.http_status, 429);
		assert_true(str_is(error.message, "the provider answered HTTP 429: slow"));
		format_decoder_free(d);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(streams_give_their_events),
		cmocka_unit_test(every_split_gives_the_same_events),
		cmocka_unit_test(no_cut_stream_succeeds),
		cmocka_unit_test(an_event_begun_and_cut_is_no_end),
		cmocka_unit_test(the_sink_can_stop_anywhere),
		cmocka_unit_test(answers_give_their_events),
		cmocka_unit_test(no_cut_answer_succeeds),
		cmocka_unit_test(errors_carry_words_and_amount),
		cmocka_unit_test(answers_that_are_not_good_are_classified),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
