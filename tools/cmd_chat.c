/* llmkit chat: one request, its answer streamed to stdout. */

#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include "base/buffer.h"
#include "libclient/llmkit.h"
#include "proto/json.h"
#include "tools/command.h"

static const char usage[] =
	"usage: llmkit chat [OPTION]... [PROMPT]...\n"
	"\n"
	"Sends PROMPT (or standard input) to a model and prints the answer as it comes.\n"
	"\n"
	"  -m, --model NAME         PROVIDER/MODEL or a configured model (default: LLMKIT_MODEL)\n"
	"  -r, --route NAME         a configured route instead of a model\n"
	"  -u, --user NAME          whose budget it is\n"
	"  -S, --system TEXT        system prompt\n"
	"  -n, --max-tokens N       longest answer\n"
	"  -t, --temperature X      randomness\n"
	"  -T, --timeout SECONDS    for the whole request\n"
	"      --no-stream          ask the provider for the whole answer at once\n"
	"      --request            the input is a JSON request body, sent as it is\n"
	"      --json               print every event as one JSON object a line\n"
	"      --usage              print tokens and times to standard error at the end\n"
	"  -s, --socket PATH        the daemon's socket\n"
	"  -h, --help               this text\n"
	"\n"
	"Ctrl-C cancels the request at the provider. Exit codes: 0 answered, 1 failed, 2 wrong\n"
	"arguments, 130 interrupted.\n";

struct chat {
	const char *model, *route, *user, *system, *socket;
	uint64_t timeout_ms;
	uint32_t max_tokens;
	double temperature;
	bool has_temperature, no_stream, raw, json, usage;
	struct buffer prompt;
	struct llmkit_event tokens; /* the last USAGE, printed after the text */
};

/* ---- arguments ---- */

enum { OPTION_NO_STREAM = 256, OPTION_REQUEST, OPTION_JSON, OPTION_USAGE };

static const struct number_option {
	char option;
	bool is_whole;
	const char *name, *kind;
	double low, high;
} number_options[] = {
	{ 'n', true, "--max-tokens", "a whole number", 1, UINT32_MAX },
	{ 't', false, "--temperature", "a number", 0, 10 },
	{ 'T', false, "--timeout", "a number of seconds", 0.001, 86400 },
};

static bool parse_number(int option, const char *text, double *out)
{
	const struct number_option *n = number_options;
	char *end;

	while (n->option != option)
		n++;
	*out = strtod(text, &end);
	if (*text && *end == '\0' && *out >= n->low && *out <= n->high &&
		(!n->is_whole || *out == (double)(uint64_t)*out))
		return true;
	fprintf(stderr, "llmkit chat: %s: \"%s\" is not %s from %.10g to %.10g\n", n->name, text,
		n->kind, n->low, n->high);
	return false;
}

static int set_option(struct chat *c, int option, const char *value)
{
	double number = 0;

	if (option == 'm')
		c->model = value;
	else if (option == 'r')
		c->route = value;
	else if (option == 'u')
		c->user = value;
	else if (option == 'S')
		c->system = value;
	else if (option == 's')
		c->socket = value;
	else if (option == OPTION_NO_STREAM)
		c->no_stream = true;
	else if (option == OPTION_REQUEST)
		c->raw = true;
	else if (option == OPTION_JSON)
		c->json = true;
	else if (option == OPTION_USAGE)
		c->usage = true;
	else if (!parse_number(option, value, &number))
		return COMMAND_USAGE;
	else if (option == 'n')
		c->max_tokens = (uint32_t)number;
	else if (option == 'T')
		c->timeout_ms = (uint64_t)(number * 1000);
	else
		c->temperature = number, c->has_temperature = true;
	return COMMAND_OK;
}

static int read_prompt(struct buffer *prompt)
{
	ssize_t n;

	do {
		if (buffer_reserve(prompt, 65536) < 0)
			return -ENOMEM;
		n = read(STDIN_FILENO, buffer_tail(prompt), 65536);
		if (n > 0)
			prompt->end += (size_t)n;
	} while (n > 0 || (n < 0 && errno == EINTR));
	return n < 0 ? -errno : 0;
}

static int join_words(struct buffer *prompt, int count, char **words)
{
	int r = 0;

	for (int i = 0; i < count && r == 0; i++)
		r = buffer_printf(prompt, "%s%s", i ? " " : "", words[i]);
	return r;
}

/* -1, or the exit code. Makes a string of it. */
static int check_prompt(struct buffer *prompt)
{
	const char *text;

	if (buffer_append(prompt, "", 1) < 0)
		return command_fail("reading the prompt", LLMKIT_E_NO_MEMORY, NULL);
	text = buffer_head(prompt);
	if (strlen(text) + 1 < buffer_length(prompt)) {
		fputs("llmkit chat: the prompt holds a zero byte\n", stderr);
		return COMMAND_USAGE;
	}
	if (text[strspn(text, " \t\r\n")] == '\0') {
		fputs("llmkit chat: the prompt is empty\n", stderr);
		return COMMAND_USAGE;
	}
	return -1;
}

static int parse_arguments(struct chat *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "model", required_argument, NULL, 'm' },
		{ "route", required_argument, NULL, 'r' },
		{ "user", required_argument, NULL, 'u' },
		{ "system", required_argument, NULL, 'S' },
		{ "max-tokens", required_argument, NULL, 'n' },
		{ "temperature", required_argument, NULL, 't' },
		{ "timeout", required_argument, NULL, 'T' },
		{ "no-stream", no_argument, NULL, OPTION_NO_STREAM },
		{ "request", no_argument, NULL, OPTION_REQUEST },
		{ "json", no_argument, NULL, OPTION_JSON },
		{ "usage", no_argument, NULL, OPTION_USAGE },
		{ "socket", required_argument, NULL, 's' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "m:r:u:S:n:t:T:s:h", options, NULL)) != -1) {
		if (option == 'h')
			return fputs(usage, stdout) < 0 ? COMMAND_FAILED : COMMAND_OK;
		if (option != '?' && set_option(c, option, optarg) == COMMAND_OK)
			continue;
		fputs("Try: llmkit chat --help\n", stderr);
		return COMMAND_USAGE;
	}
	if (!c->model && !c->route)
		c->model = getenv("LLMKIT_MODEL");
	if ((!c->model && !c->route && !c->raw) || (c->model && c->route)) {
		fputs("llmkit chat: name one of --model and --route; llmkit status lists them\n",
			stderr);
		return COMMAND_USAGE;
	}
	if ((optind < argc ? join_words(&c->prompt, argc - optind, argv + optind) :
			     read_prompt(&c->prompt)) < 0)
		return command_fail("reading the prompt", LLMKIT_E_SYSTEM, NULL);
	return check_prompt(&c->prompt);
}

/* ---- the request ---- */

static int make_request(const struct chat *c, llmkit_request **out)
{
	const char *prompt = buffer_head(&c->prompt);
	llmkit_request *q;
	int r = 0;

	if (c->raw) {
		r = llmkit_request_from_json(out, c->model, prompt, strlen(prompt));
	} else {
		*out = llmkit_request_new(c->model);
		r = *out ? LLMKIT_OK : LLMKIT_E_NO_MEMORY;
	}
	q = *out;
	if (r == 0 && !c->raw && c->system)
		r = llmkit_request_add_message(q, "system", c->system);
	if (r == 0 && !c->raw)
		r = llmkit_request_add_message(q, "user", prompt);
	if (r == 0 && !c->raw)
		r = llmkit_request_set_stream(q, !c->no_stream);
	if (r == 0 && c->route)
		r = llmkit_request_set_route(q, c->route);
	if (r == 0 && c->user)
		r = llmkit_request_set_user(q, c->user);
	if (r == 0 && c->timeout_ms)
		r = llmkit_request_set_timeout_ms(q, c->timeout_ms);
	if (r == 0 && c->max_tokens)
		r = llmkit_request_set_max_tokens(q, c->max_tokens);
	if (r == 0 && c->has_temperature)
		r = llmkit_request_set_temperature(q, c->temperature);
	return r;
}

/* ---- events, as text or as JSON ---- */

static void print_summary(const struct llmkit_event *tokens, const struct llmkit_event *end)
{
	fputc('[', stderr);
	if (tokens->type == LLMKIT_EVENT_USAGE)
		fprintf(stderr, "%lld tokens in, %lld out; ", (long long)tokens->usage.input,
			(long long)tokens->usage.output);
	fprintf(stderr, "finish: %s; first token after %.3f s, all after %.3f s]\n",
		end->end.finish_reason, (double)end->end.first_token_us / 1e6,
		(double)end->end.total_us / 1e6);
}

static void print_error(const struct llmkit_event *e)
{
	fprintf(stderr, "llmkit: %s: ", llmkit_error_name(e->error.code));
	if (*e->error.provider)
		fprintf(stderr, "[%s] ", e->error.provider);
	fputs(e->error.message, stderr);
	if (e->error.retry_after_ns && !strstr(e->error.message, "retry in "))
		fprintf(stderr, " (retry in %.1f s)", (double)e->error.retry_after_ns / 1e9);
	if (e->error.received)
		fprintf(stderr, " (after %llu bytes of text)",
			(unsigned long long)e->error.received);
	fputc('\n', stderr);
}

static void print_end(const struct chat *c, const struct llmkit_event *e)
{
	const char *reason = e->end.finish_reason;

	putchar('\n');
	fflush(stdout);
	if (strcmp(reason, "length") == 0 || strcmp(reason, "content_filter") == 0)
		fprintf(stderr, "llmkit: the answer was cut: finish reason %s\n", reason);
	if (c->usage)
		print_summary(&c->tokens, e);
}

/* Whether it was the last event; *code is then the exit code. */
static bool print_text(struct chat *c, const struct llmkit_event *e, int *code)
{
	switch (e->type) {
	case LLMKIT_EVENT_START:
	case LLMKIT_EVENT_REASONING:
		return false;
	case LLMKIT_EVENT_TEXT:
		fwrite(e->text.data, 1, e->text.length, stdout);
		fflush(stdout);
		return false;
	case LLMKIT_EVENT_TOOL_CALL:
		if (*e->tool_call.name)
			printf("\n%s ", e->tool_call.name);
		fputs(e->tool_call.arguments, stdout);
		return false;
	case LLMKIT_EVENT_USAGE:
		c->tokens = *e;
		return false;
	case LLMKIT_EVENT_END:
		print_end(c, e);
		*code = COMMAND_OK;
		return true;
	case LLMKIT_EVENT_ERROR:
		if (e->error.received)
			putchar('\n');
		fflush(stdout);
		print_error(e);
		*code = COMMAND_FAILED;
		return true;
	}
	return false;
}

static void json_usage(struct json *j, const struct llmkit_event *e)
{
	json_str(j, "type", str_of("usage"));
	json_int(j, "input", e->usage.input);
	json_int(j, "output", e->usage.output);
	json_int(j, "cached_input", e->usage.cached_input);
	json_int(j, "cache_write", e->usage.cache_write);
	json_int(j, "reasoning", e->usage.reasoning);
}

static void json_error(struct json *j, const struct llmkit_event *e)
{
	json_str(j, "type", str_of("error"));
	json_str(j, "code", str_of(llmkit_error_name(e->error.code)));
	json_str(j, "message", str_of(e->error.message));
	json_bool(j, "retryable", llmkit_is_retryable(e->error.code));
	json_str(j, "provider", str_of(e->error.provider));
	json_uint(j, "http_status", e->error.http_status);
	json_uint(j, "retry_after_ns", e->error.retry_after_ns);
	json_str(j, "limit", str_of(e->error.limit));
	json_uint(j, "received", e->error.received);
}

static void json_event(struct json *j, const struct llmkit_event *e)
{
	switch (e->type) {
	case LLMKIT_EVENT_START:
		json_str(j, "type", str_of("start"));
		json_str(j, "provider", str_of(e->start.provider));
		json_str(j, "model", str_of(e->start.model));
		json_str(j, "id", str_of(e->start.id));
		break;
	case LLMKIT_EVENT_TEXT:
	case LLMKIT_EVENT_REASONING:
		json_str(j, "type", str_of(e->type == LLMKIT_EVENT_TEXT ? "text" : "reasoning"));
		json_str(j, "text", str_make(e->text.data, e->text.length));
		break;
	case LLMKIT_EVENT_TOOL_CALL:
		json_str(j, "type", str_of("tool_call"));
		json_uint(j, "index", e->tool_call.index);
		json_str(j, "id", str_of(e->tool_call.id));
		json_str(j, "name", str_of(e->tool_call.name));
		json_str(j, "arguments", str_of(e->tool_call.arguments));
		break;
	case LLMKIT_EVENT_USAGE:
		json_usage(j, e);
		break;
	case LLMKIT_EVENT_END:
		json_str(j, "type", str_of("end"));
		json_str(j, "finish_reason", str_of(e->end.finish_reason));
		json_uint(j, "first_token_us", e->end.first_token_us);
		json_uint(j, "total_us", e->end.total_us);
		break;
	case LLMKIT_EVENT_ERROR:
		json_error(j, e);
		break;
	}
}

static bool print_json(const struct llmkit_event *e, int *code)
{
	aux_cleanup(buffer_deinit) struct buffer line = BUFFER_NULL;
	aux_cleanup(json_freep) struct json *j = json_new();

	if (j) {
		json_object_begin(j, NULL);
		json_event(j, e);
		json_object_end(j);
	}
	if (!j || json_finish(j, false, &line) < 0) {
		fputs("llmkit: out of memory\n", stderr);
		*code = COMMAND_FAILED;
		return true;
	}
	printf("%.*s\n", STR_ARG(buffer_str(&line)));
	fflush(stdout);
	*code = e->type == LLMKIT_EVENT_END ? COMMAND_OK : COMMAND_FAILED;
	return e->type == LLMKIT_EVENT_END || e->type == LLMKIT_EVENT_ERROR;
}

/* ---- following the stream ---- */

static int open_signals(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Prints what is there; true when the answer is over. */
static bool print_events(struct chat *c, llmkit_stream *stream, int *code)
{
	struct llmkit_event event;
	bool over = false;
	int r = 0;

	while (!over && (r = llmkit_stream_next(stream, 0, &event)) == 0)
		over = c->json ? print_json(&event, code) : print_text(c, &event, code);
	if (r != 0 && r != LLMKIT_E_WAIT_TIMEOUT) {
		*code = command_fail("reading the answer", r, c->socket);
		return true;
	}
	return over;
}

static int follow(struct chat *c, llmkit *kit, llmkit_stream *stream)
{
	aux_cleanup(closep) int signals = open_signals();
	int code = COMMAND_FAILED;
	bool interrupted = false;

	while (!print_events(c, stream, &code)) {
		struct pollfd fds[] = {
			{ .fd = llmkit_fd(kit), .events = POLLIN },
			{ .fd = interrupted ? -1 : signals, .events = POLLIN },
		};

		poll(fds, 2, -1);
		if (fds[1].revents) {
			interrupted = true;
			llmkit_stream_cancel(stream);
		}
		llmkit_dispatch(kit);
	}
	return interrupted ? COMMAND_INTERRUPTED : code;
}

static int run(struct chat *c)
{
	llmkit_request *request = NULL;
	llmkit_stream *stream = NULL;
	llmkit *kit = NULL;
	int code, r = make_request(c, &request);

	if (r != 0) {
		code = command_fail("building the request", r, c->socket);
	} else if ((code = command_open(&kit, "llmkit-chat/" PROJECT_VERSION, c->socket)) != 0) {
		/* It was told. */
	} else if ((r = llmkit_submit(kit, request, &stream)) != 0) {
		code = command_fail("sending the request", r, c->socket);
	} else {
		code = follow(c, kit, stream);
	}
	llmkit_stream_close(stream);
	llmkit_request_free(request);
	llmkit_close(kit);
	return code;
}

int cmd_chat(int argc, char **argv)
{
	struct chat c = { 0 };
	int code = parse_arguments(&c, argc, argv);

	if (code < 0)
		code = run(&c);
	buffer_deinit(&c.prompt);
	return code;
}
