/* The library's connection: errors, requests, events, a daemon that fails. Many threads, signals
 * and event loops: test-llmkit-threads.c. */

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include "proto/status.h"
#include "tests/unit/stream-fixture.h"

/* ---- errors ---- */

static void errors_have_names_texts_and_advice(void **state)
{
	(void)state;
	for (unsigned i = 1; i < 100; i++) {
		bool known = strcmp(status_name(i), "UNKNOWN") != 0;

		if (known)
			assert_string_equal(
				llmkit_error_name(-(int)i) + strlen("LLMKIT_E_"), status_name(i));
		assert_int_equal(llmkit_is_retryable(-(int)i), known && status_is_retryable(i));
		assert_true(strlen(llmkit_strerror(-(int)i)) > 5);
	}
	for (int i = LLMKIT_E_ARGUMENT; i >= LLMKIT_E_JSON; i--) {
		assert_string_not_equal(llmkit_error_name(i), "LLMKIT_E_UNKNOWN");
		assert_string_not_equal(llmkit_strerror(i), llmkit_strerror(-5000));
	}
	assert_string_equal(llmkit_error_name(-5000), "LLMKIT_E_UNKNOWN");
	assert_string_equal(llmkit_strerror(0), "success");
	assert_true(llmkit_is_retryable(LLMKIT_E_DAEMON_LOST));
	assert_false(llmkit_is_retryable(0));
}

static void expect_open(const struct mini_script *script, int expected)
{
	llmkit *opened = NULL;

	mini_kill(&mini);
	mini_start(&mini, script);
	assert_int_equal(mini_open(&mini, &opened), expected);
	assert_true((opened != NULL) == (expected == 0));
	llmkit_close(opened);
}

static void open_names_what_is_wrong(void **state)
{
	struct llmkit_options o = {
		.size = sizeof(o), .socket = mini.socket, .connect_timeout_ms = 1
	};
	char path[300];
	llmkit *opened;

	(void)state;
	expect_open(&(struct mini_script){ .refuse = STATUS_REFUSED }, LLMKIT_E_REFUSED);
	expect_open(&(struct mini_script){ .refuse = STATUS_VERSION }, LLMKIT_E_VERSION);
	expect_open(&(struct mini_script){ .refuse = STATUS_BUSY }, LLMKIT_E_BUSY);
	expect_open(&(struct mini_script){ .refuse = 4711 }, LLMKIT_E_PROTOCOL);
	expect_open(&(struct mini_script){ .version = 77 }, LLMKIT_E_VERSION);
	expect_open(PARTICIPANT, 0);
	mini_kill(&mini);
	mini_start(&mini, &(struct mini_script){ .mute = true });
	assert_int_equal(llmkit_open(&opened, &o), LLMKIT_E_WAIT_TIMEOUT);
	mini_kill(&mini);
	assert_int_equal(llmkit_open(&opened, &o), LLMKIT_E_NO_DAEMON);
	assert_int_equal(unlink(mini.socket), 0);
	assert_int_equal(llmkit_open(&opened, &o), LLMKIT_E_NO_DAEMON);
	assert_null(opened);
	memset(path, 'x', sizeof(path) - 1);
	path[sizeof(path) - 1] = '\0';
	o.socket = path;
	assert_int_equal(llmkit_open(&opened, &o), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_open(NULL, &o), LLMKIT_E_ARGUMENT);
	o.size = 1;
	assert_int_equal(llmkit_open(&opened, &o), LLMKIT_E_ARGUMENT);
	llmkit_close(NULL);
}

static void null_arguments_are_errors(void **state)
{
	struct llmkit_event event;
	llmkit_request *request = llmkit_request_new(NULL);
	llmkit_limits *limits;
	llmkit_stream *stream;
	char *json;

	(void)state;
	assert_int_equal(llmkit_submit(kit, request, &stream), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_submit(NULL, request, &stream), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_submit(kit, NULL, &stream), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_stream_next(NULL, 0, &event), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_stream_cancel(NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_dispatch(NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_fd(NULL), -1);
	assert_int_equal(llmkit_status(NULL, 0, &json), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_limits_open(NULL, NULL, &limits), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_acquire(NULL, 1, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_acquire_until(NULL, 1, 0, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_limits_count(NULL), 0);
	llmkit_stream_close(NULL);
	llmkit_limits_close(NULL);
	llmkit_request_free(NULL);
	llmkit_request_free(request);
}

/* ---- requests ---- */

static void a_request_carries_every_field(void **state)
{
	llmkit_request *r = llmkit_request_new("echo");
	llmkit_stream *stream;
	struct llmkit_event event;

	(void)state;
	assert_int_equal(llmkit_request_set_route(r, "a route"), 0);
	assert_int_equal(llmkit_request_set_user(r, "somebody"), 0);
	assert_int_equal(llmkit_request_set_user(r, "ann"), 0);
	assert_int_equal(llmkit_request_set_tag(r, "t1"), 0);
	assert_int_equal(llmkit_request_set_timeout_ms(r, 1234), 0);
	assert_int_equal(llmkit_request_add_message(r, "system", "be \"brief\"\n"), 0);
	assert_int_equal(llmkit_request_add_message(r, "user", ""), 0);
	assert_int_equal(llmkit_request_set_stream(r, false), 0);
	assert_int_equal(llmkit_request_set_stream(r, true), 0);
	assert_int_equal(llmkit_request_set_max_tokens(r, 4294967295u), 0);
	assert_int_equal(llmkit_request_set_temperature(r, 0.5), 0);
	assert_int_equal(llmkit_request_set_member(r, "stop", "[\"a\", 1.10]"), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(llmkit_submit(kit, r, &stream), 0);
		event = next(stream, LLMKIT_EVENT_START);
		assert_string_equal(event.start.provider, "ann");
		assert_string_equal(event.start.model, "echo");
		assert_string_equal(event.start.id, "t1");
		event = next(stream, LLMKIT_EVENT_TEXT);
		assert_string_equal(event.text.data,
			"{\"messages\":["
			"{\"role\":\"system\",\"content\":\"be \\\"brief\\\"\\n\"},"
			"{\"role\":\"user\",\"content\":\"\"}],\"stream\":true,"
			"\"max_tokens\":4294967295,\"temperature\":0.5,\"stop\":[\"a\",1.10]}");
		assert_int_equal(event.text.length, strlen(event.text.data));
		event = next(stream, LLMKIT_EVENT_END);
		assert_string_equal(event.end.finish_reason, "a route");
		assert_int_equal(event.end.total_us, 1234);
		llmkit_stream_close(stream);
	}
	llmkit_request_free(r);
}

static void mistakes_are_found_by_the_setters(void **state)
{
	llmkit_request *r = llmkit_request_new("echo"), *json;
	char name[258];

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	assert_int_equal(llmkit_request_set_user(r, NULL), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_user(r, ""), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_user(r, "\xff"), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_user(r, "a\nb"), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_user(r, name), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_user(r, name + 1), 0);
	assert_int_equal(llmkit_request_add_message(r, "user", "\xc3"), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_add_message(r, "", "x"), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_add_message(NULL, "user", "x"), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_temperature(r, 0.0 / 0.0), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_temperature(r, -1), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_member(r, "x", "{\"a\":"), LLMKIT_E_JSON);
	assert_int_equal(llmkit_request_set_member(r, "x", ""), LLMKIT_E_JSON);
	assert_int_equal(llmkit_request_set_member(r, "x", "1 2"), LLMKIT_E_JSON);
	assert_int_equal(llmkit_request_set_member(r, "messages", "[]"), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_from_json(&json, "m", "[1]", 3), LLMKIT_E_JSON);
	assert_int_equal(llmkit_request_from_json(&json, "m", "{\"a\":1", 6), LLMKIT_E_JSON);
	assert_null(json);
	assert_int_equal(llmkit_request_from_json(&json, "m", "{}", 2), 0);
	assert_int_equal(llmkit_request_add_message(json, "user", "x"), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_stream(json, true), LLMKIT_E_ARGUMENT);
	assert_int_equal(llmkit_request_set_member(json, "a", "1"), LLMKIT_E_ARGUMENT);
	llmkit_request_free(json);
	llmkit_request_free(r);
}

static void json_reaches_the_daemon_untouched(void **state)
{
	static const char body[] = "{ \"messages\" : [], \"odd\" : 1.00 , \"z\" : null }";
	llmkit_request *r;
	llmkit_stream *stream;
	struct llmkit_event event;

	(void)state;
	assert_int_equal(llmkit_request_from_json(&r, "echo", body, strlen(body)), 0);
	assert_int_equal(llmkit_submit(kit, r, &stream), 0);
	next(stream, LLMKIT_EVENT_START);
	event = next(stream, LLMKIT_EVENT_TEXT);
	assert_string_equal(event.text.data, body);
	llmkit_stream_close(stream);
	llmkit_request_free(r);
}

static void a_request_above_the_daemons_size_is_refused_here(void **state)
{
	llmkit_request *r = llmkit_request_new("echo");
	llmkit_stream *stream;
	char *big = calloc(1, 9000);

	(void)state;
	llmkit_close(kit);
	mini_kill(&mini);
	mini_start(&mini, &(struct mini_script){ .body_max = 8192 });
	assert_int_equal(mini_open(&mini, &kit), 0);
	memset(big, 'x', 8999);
	assert_int_equal(llmkit_request_add_message(r, "user", big), 0);
	assert_int_equal(llmkit_submit(kit, r, &stream), LLMKIT_E_TOO_LARGE);
	assert_null(stream);
	expect_count(submit("count-3"), 3);
	llmkit_request_free(r);
	free(big);
}

static unsigned descriptors_open(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void no_descriptor_is_left_behind(void **state)
{
	unsigned before;
	llmkit *another;

	(void)state;
	mini_kill(&mini);
	mini_start(&mini, &(struct mini_script){ .role = MSG_ROLE_PARTICIPANT, .extra = true });
	before = descriptors_open();
	assert_int_equal(mini_open(&mini, &another), 0);
	assert_int_equal(descriptors_open(), before + 1);
	assert_true(llmkit_fd(another) >= 0);
	llmkit_close(another);
	assert_int_equal(descriptors_open(), before);
}

/* ---- events ---- */

static void every_kind_of_event_arrives(void **state)
{
	llmkit_stream *stream = submit("all");
	struct llmkit_event event;

	(void)state;
	event = next(stream, LLMKIT_EVENT_START);
	assert_string_equal(event.start.provider, "mini");
	assert_string_equal(event.start.model, "m");
	assert_string_equal(event.start.id, "x");
	event = next(stream, LLMKIT_EVENT_REASONING);
	assert_string_equal(event.text.data, "hm");
	event = next(stream, LLMKIT_EVENT_TEXT);
	assert_string_equal(event.text.data, "");
	assert_int_equal(event.text.length, 0);
	event = next(stream, LLMKIT_EVENT_TEXT);
	assert_string_equal(event.text.data, "gr\xc3\xbc\xc3\x9f");
	event = next(stream, LLMKIT_EVENT_TOOL_CALL);
	assert_int_equal(event.tool_call.index, 3);
	assert_string_equal(event.tool_call.id, "call");
	assert_string_equal(event.tool_call.name, "weather");
	assert_string_equal(event.tool_call.arguments, "{\"a\":");
	event = next(stream, LLMKIT_EVENT_USAGE);
	assert_int_equal(event.usage.input, 10);
	assert_int_equal(event.usage.cached_input, -1);
	assert_int_equal(event.usage.cache_write, 0);
	assert_int_equal(event.usage.reasoning, 5);
	event = next(stream, LLMKIT_EVENT_END);
	assert_string_equal(event.end.finish_reason, "stop");
	assert_int_equal(llmkit_stream_next(stream, -1, &event), LLMKIT_E_ENDED);
	assert_int_equal(llmkit_stream_cancel(stream), 0);
	llmkit_stream_close(stream);
}

static void an_error_carries_every_field(void **state)
{
	llmkit_stream *stream = submit("error");
	struct llmkit_event event = next(stream, LLMKIT_EVENT_ERROR);

	(void)state;
	assert_int_equal(event.error.code, LLMKIT_E_PROVIDER_LIMITED);
	assert_string_equal(event.error.message, "slow down");
	assert_string_equal(event.error.provider, "mini");
	assert_int_equal(event.error.http_status, 429);
	assert_int_equal(event.error.retry_after_ns, 7000000000);
	assert_string_equal(event.error.limit, "user ann requests");
	assert_int_equal(event.error.received, 12);
	llmkit_stream_close(stream);
}

static void cancel_ends_the_stream(void **state)
{
	llmkit_stream *stream = submit("hang");
	struct llmkit_event event;

	(void)state;
	next(stream, LLMKIT_EVENT_START);
	assert_int_equal(llmkit_stream_next(stream, 0, &event), LLMKIT_E_WAIT_TIMEOUT);
	assert_int_equal(llmkit_stream_next(stream, 5, &event), LLMKIT_E_WAIT_TIMEOUT);
	assert_int_equal(llmkit_stream_cancel(stream), 0);
	assert_int_equal(llmkit_stream_next(stream, -1, &event), 0);
	assert_int_equal(event.type, LLMKIT_EVENT_ERROR);
	assert_int_equal(event.error.code, LLMKIT_E_CANCELLED);
	llmkit_stream_close(stream);
}

static void timeout_zero_makes_progress_without_dispatch(void **state)
{
	llmkit_stream *stream = submit("paced-20");
	unsigned seen = 0;
	int r;

	(void)state;
	do {
		struct llmkit_event event;

		r = llmkit_stream_next(stream, 0, &event);
		if (r == 0 && event.type == LLMKIT_EVENT_TEXT)
			seen++;
		assert_true(r == 0 || r == LLMKIT_E_WAIT_TIMEOUT || r == LLMKIT_E_ENDED);
	} while (r != LLMKIT_E_ENDED);
	assert_int_equal(seen, 20);
	llmkit_stream_close(stream);
}

static void closing_in_the_middle_disturbs_nobody(void **state)
{
	(void)state;
	for (int i = 0; i < 50; i++) {
		llmkit_stream *left = submit(i % 2 ? "hang" : "count-100");
		llmkit_stream *kept = submit("count-10");

		if (i % 3)
			llmkit_stream_close(left);
		expect_count(kept, 10);
		if (i % 3 == 0)
			llmkit_stream_close(left);
	}
}

static void status_is_json(void **state)
{
	char *json;

	(void)state;
	assert_int_equal(llmkit_status(kit, WAIT_MS, &json), 0);
	assert_string_equal(json, "{\"ok\":true}");
	free(json);
	mini_kill(&mini);
	assert_int_equal(llmkit_status(kit, WAIT_MS, &json), LLMKIT_E_NO_DAEMON);
	assert_null(json);
}

/* ---- a daemon that fails ---- */

static void what_was_sent_is_read_before_the_loss(const char *model)
{
	llmkit_stream *bystander = submit("hang"), *stream = submit(model), *none;
	llmkit_request *request = llmkit_request_new("count-1");
	struct llmkit_event event;

	next(stream, LLMKIT_EVENT_START);
	event = next(stream, LLMKIT_EVENT_TEXT);
	assert_string_equal(event.text.data, "abc");
	event = next(stream, LLMKIT_EVENT_ERROR);
	assert_int_equal(event.error.code, LLMKIT_E_DAEMON_LOST);
	assert_int_equal(event.error.received, 3);
	llmkit_stream_close(stream);
	next(bystander, LLMKIT_EVENT_START);
	expect_failure(bystander, LLMKIT_E_DAEMON_LOST);
	assert_int_equal(llmkit_request_add_message(request, "user", "x"), 0);
	assert_int_equal(llmkit_submit(kit, request, &none), LLMKIT_E_NO_DAEMON);
	assert_null(none);
	llmkit_request_free(request);
	mini_kill(&mini);
	mini_start(&mini, PARTICIPANT);
	expect_count(submit("count-5"), 5);
}

static void a_lost_daemon_is_a_clear_error_and_the_next_one_is_found(void **state)
{
	(void)state;
	what_was_sent_is_read_before_the_loss("die");
	what_was_sent_is_read_before_the_loss("half");
}

/* The loss is found by writing: what was sent before must not be lost with it. */
static void a_submit_to_a_dead_daemon_goes_to_the_next(void **state)
{
	struct pollfd p = { .fd = llmkit_fd(kit), .events = POLLIN };
	llmkit_stream *open;

	(void)state;
	assert_int_equal(llmkit_dispatch(kit), 0);
	open = submit("count-3");
	assert_int_equal(poll(&p, 1, WAIT_MS), 1);
	mini_kill(&mini);
	mini_start(&mini, PARTICIPANT);
	expect_count(submit("count-7"), 7);
	expect_count(open, 3);
}

/* What a later daemon may send is skipped, as PROTOCOL.md says. */
static void frames_of_unknown_types_are_skipped(void **state)
{
	llmkit_stream *stream = submit("newer");
	struct llmkit_event event;

	(void)state;
	assert_int_equal(llmkit_stream_next(stream, WAIT_MS, &event), 0);
	assert_int_equal(event.type, LLMKIT_EVENT_START);
	assert_int_equal(llmkit_stream_next(stream, WAIT_MS, &event), 0);
	assert_int_equal(event.type, LLMKIT_EVENT_END);
	llmkit_stream_close(stream);
}

static void garbage_is_a_protocol_error(void **state)
{
	llmkit_stream *stream = submit("garbage"), *other = submit("hang");

	(void)state;
	next(stream, LLMKIT_EVENT_TEXT);
	expect_failure(stream, LLMKIT_E_PROTOCOL);
	/* It ends the connection; the next request makes another. */
	expect_failure(other, LLMKIT_E_PROTOCOL);
	expect_count(submit("count-4"), 4);
}

static void a_bad_body_ends_one_stream_only(void **state)
{
	llmkit_stream *other = submit("paced-30"), *bad = submit("badbody");

	(void)state;
	expect_failure(bad, LLMKIT_E_PROTOCOL);
	expect_count(other, 30);
}

static void an_error_of_the_connection_reaches_every_stream(void **state)
{
	llmkit_stream *first = submit("hang"), *second = submit("bye");

	(void)state;
	next(first, LLMKIT_EVENT_START);
	expect_failure(first, LLMKIT_E_SHUTTING_DOWN);
	expect_failure(second, LLMKIT_E_SHUTTING_DOWN);
	expect_count(submit("count-2"), 2);
}

static void a_reader_that_is_too_slow_ends_alone(void **state)
{
	llmkit_stream *slow = submit("flood"), *other = submit("count-3");
	struct llmkit_event event;
	uint64_t received = 0;

	(void)state;
	expect_count(other, 3);
	for (;;) {
		assert_int_equal(llmkit_stream_next(slow, WAIT_MS, &event), 0);
		if (event.type != LLMKIT_EVENT_TEXT)
			break;
		received += event.text.length;
	}
	assert_int_equal(event.type, LLMKIT_EVENT_ERROR);
	assert_int_equal(event.error.code, LLMKIT_E_TOO_LARGE);
	assert_int_equal(event.error.received, received);
	assert_true(received > (60u << 20) && received <= (64u << 20));
	llmkit_stream_close(slow);
	expect_count(submit("count-3"), 3);
}

/* Both sides write more than the sockets hold: nobody waits for the other for ever. */
static void large_requests_pass_a_daemon_that_is_writing(void **state)
{
	llmkit_stream *block = submit("block"), *echo;
	llmkit_request *r = llmkit_request_new("echo");
	char *big = malloc(8u << 20);
	struct llmkit_event event;

	(void)state;
	memset(big, 'y', (8u << 20) - 1);
	big[(8u << 20) - 1] = '\0';
	assert_int_equal(llmkit_request_add_message(r, "user", big), 0);
	assert_int_equal(llmkit_submit(kit, r, &echo), 0);
	for (int i = 0; i < 8; i++)
		next(block, LLMKIT_EVENT_TEXT);
	next(block, LLMKIT_EVENT_END);
	next(echo, LLMKIT_EVENT_START);
	event = next(echo, LLMKIT_EVENT_TEXT);
	assert_true(event.text.length > 8u << 20);
	llmkit_stream_close(echo);
	llmkit_stream_close(block);
	llmkit_request_free(r);
	free(big);
}

/* It is alive but takes nothing any more: who writes notices, who reads is told. */
static void a_daemon_that_stopped_is_given_up(void **state)
{
	struct llmkit_options o = {
		.size = sizeof(o), .socket = mini.socket, .connect_timeout_ms = 100
	};
	llmkit_request *r = llmkit_request_new("echo");
	char *big = calloc(1, 8u << 20);
	llmkit_stream *stream;
	pthread_t thread;

	(void)state;
	llmkit_close(kit);
	assert_int_equal(llmkit_open(&kit, &o), 0);
	stream = submit("hang");
	assert_int_equal(pthread_create(&thread, NULL, wait_for_the_loss, stream), 0);
	poll(NULL, 0, 20);
	assert_int_equal(kill(mini.pid, SIGSTOP), 0);
	memset(big, 'x', (8u << 20) - 1);
	assert_int_equal(llmkit_request_add_message(r, "user", big), 0);
	assert_int_equal(llmkit_submit(kit, r, &stream), LLMKIT_E_WAIT_TIMEOUT);
	pthread_join(thread, NULL);
	llmkit_request_free(r);
	free(big);
}

#define test_(name_) cmocka_unit_test_setup_teardown(name_, start, stop)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_have_names_texts_and_advice),
		test_(open_names_what_is_wrong),
		test_(null_arguments_are_errors),
		test_(a_request_carries_every_field),
		test_(mistakes_are_found_by_the_setters),
		test_(json_reaches_the_daemon_untouched),
		test_(a_request_above_the_daemons_size_is_refused_here),
		test_(no_descriptor_is_left_behind),
		test_(every_kind_of_event_arrives),
		test_(an_error_carries_every_field),
		test_(cancel_ends_the_stream),
		test_(timeout_zero_makes_progress_without_dispatch),
		test_(closing_in_the_middle_disturbs_nobody),
		test_(status_is_json),
		test_(a_lost_daemon_is_a_clear_error_and_the_next_one_is_found),
		test_(a_submit_to_a_dead_daemon_goes_to_the_next),
		test_(frames_of_unknown_types_are_skipped),
		test_(garbage_is_a_protocol_error),
		test_(a_bad_body_ends_one_stream_only),
		test_(an_error_of_the_connection_reaches_every_stream),
		test_(a_reader_that_is_too_slow_ends_alone),
		test_(large_requests_pass_a_daemon_that_is_writing),
		test_(a_daemon_that_stopped_is_given_up),
	};

	return cmocka_run_group_tests_name("llmkit", tests, NULL, NULL);
}
