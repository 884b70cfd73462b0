/* llmkit top: the region live, with or without a daemon. */

#include <errno.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"
#include "tools/command.h"
#include "tools/terminal.h"
#include "tools/text.h"
#include "tools/top_json.h"
#include "tools/top_model.h"
#include "tools/top_source.h"
#include "tools/top_view.h"

#define COLUMNS_DEFAULT 100
#define COLUMNS_MAX 1000
#define ESCAPE_NS (50 * NSEC_PER_MSEC) /* a lone escape is the key then */
#define RETRY_NS (20 * NSEC_PER_MSEC)  /* to ask again whether the terminal may be drawn on */

static const char usage[] =
	"usage: llmkit top [--once | --json] [--interval SECONDS] [--region FILE] [--socket PATH]\n"
	"\n"
	"Shows the control region live: requests and tokens per second, limits and what is left\n"
	"of them, targets with their breakers and latencies, processes that take part, what\n"
	"happened. Needs no daemon: it reads the file, as llmkit dump does.\n"
	"\n"
	"      --once               one picture as text, after one interval\n"
	"      --json               one JSON object a line for each interval; with --once: one\n"
	"      --interval SECONDS   how often (default 1)\n"
	"      --region FILE        the region's file (default: beside the socket)\n"
	"  -s, --socket PATH        the daemon's socket\n"
	"  -h, --help               this text\n"
	"\n"
	"Keys: q quit, ? all others. COLUMNS is the width of --once, NO_COLOR turns colours off.\n"
	"The file belongs to the daemon's user: run as that user or as root.\n";

struct top {
	struct command_common common;
	bool once;
	struct top_source source;
	struct top_model *model;
	struct top_view view;
	struct terminal terminal;
	struct canvas canvas;
	int signal_fd;
	uint64_t next_ns;       /* when to sample */
	uint64_t typed_ns;      /* when a key was read last */
	bool is_stale, is_over; /* what is shown is not what it should be; the end */
	int code, killed_by;
};

/* ---- what the ways to show it share ---- */

static int sample(struct top *t)
{
	uint64_t now_ns;

	if (top_source_follow(&t->source)) {
		top_model_restart(t->model);
		top_model_note(t->model, "the region was replaced by a new one");
	}
	t->view.trouble = t->source.trouble[0] ? t->source.trouble : NULL;
	now_ns = clock_boottime_ns();
	if (top_model_sample(t->model, &t->source.region, command_daemon_of(&t->source.region),
		    now_ns, (int64_t)(clock_unix_ns() - now_ns)) == 0)
		return COMMAND_OK;
	return COMMAND_FAILED;
}

static int out_of_memory(void)
{
	fputs("llmkit top: not enough memory\n", stderr);
	return COMMAND_FAILED;
}

static bool has_color(void)
{
	const char *no_color = getenv("NO_COLOR");

	return !no_color || !*no_color;
}

static bool has_utf8(void)
{
	const char *term = getenv("TERM");

	return text_locale_is_utf8() && !(term && strcmp(term, "dumb") == 0);
}

static void draw(struct top *t, unsigned columns, unsigned lines, bool color)
{
	canvas_clear(&t->canvas, columns, lines);
	t->canvas.utf8 = has_utf8();
	t->canvas.color = color;
	top_view_draw(&t->view, t->model, &t->canvas);
}

/* ---- once, and JSON ---- */

static unsigned columns_wanted(void)
{
	const char *text = getenv("COLUMNS");
	unsigned long columns = text ? strtoul(text, NULL, 10) : 0;

	return columns == 0 || columns > COLUMNS_MAX ? COLUMNS_DEFAULT : (unsigned)columns;
}

static int print_once(struct top *t)
{
	draw(t, columns_wanted(), 0, false);
	for (unsigned i = 0; i < t->canvas.lines; i++)
		printf("%.*s\n", STR_ARG(buffer_str(&t->canvas.line[i])));
	return COMMAND_OK;
}

static int print_json(struct top *t)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;

	if (top_json_print(t->model, t->source.path, t->source.trouble, &out) < 0)
		return out_of_memory();
	fwrite(buffer_head(&out), 1, buffer_length(&out), stdout);
	return fflush(stdout) == 0 ? COMMAND_OK : COMMAND_FAILED;
}

/* Two samples make a rate. */
static int print(struct top *t)
{
	int code = sample(t);

	while (code == COMMAND_OK) {
		t->next_ns = clock_boottime_ns() + t->view.interval_ns;
		while (clock_sleep_until(t->next_ns) == -EINTR)
			continue;
		code = sample(t);
		if (code != COMMAND_OK)
			break;
		code = t->common.json ? print_json(t) : print_once(t);
		if (t->once)
			return code;
	}
	return code;
}

/* ---- live ---- */

static void redraw(struct top *t, uint64_t now_ns)
{
	unsigned columns, lines;

	terminal_size(&t->terminal, &columns, &lines);
	draw(t, columns, lines, has_color());
	t->is_stale = false;
	if (terminal_draw(&t->terminal, &t->canvas, now_ns) < 0) {
		t->is_over = true;
		t->code = COMMAND_FAILED;
	}
}

/* As the terminal's driver would have done it. */
static void stop(struct top *t)
{
	terminal_leave(&t->terminal);
	kill(getpid(), SIGSTOP);
	terminal_enter(&t->terminal);
}

static void take_signals(struct top *t)
{
	struct signalfd_siginfo info;

	while (read(t->signal_fd, &info, sizeof(info)) == sizeof(info)) {
		t->is_stale = true;
		if (info.ssi_signo == SIGTSTP) {
			stop(t);
		} else if (info.ssi_signo == SIGCONT) {
			terminal_enter(&t->terminal);
		} else if (info.ssi_signo != SIGWINCH) {
			t->is_over = true;
			t->killed_by = (int)info.ssi_signo;
		}
	}
}

static void take_keys(struct top *t, uint64_t now_ns)
{
	bool idle = now_ns - t->typed_ns >= ESCAPE_NS, was_paused = t->view.is_paused;
	uint32_t key;

	while (!t->is_over && (key = terminal_key(&t->terminal, idle)) != KEY_NONE) {
		enum top_action action = top_view_key(&t->view, key);

		t->is_stale |= action == TOP_REDRAW;
		t->is_over = action == TOP_QUIT;
		/* A new interval begins now, and so does going on. */
		if (key == '+' || key == '-')
			t->next_ns = now_ns + t->view.interval_ns;
	}
	if (was_paused && !t->view.is_paused)
		t->next_ns = now_ns;
}

/* Waits for a key, a signal, the next sample, or for the terminal. */
static void await(struct top *t)
{
	bool is_full = buffer_length(&t->terminal.pending) > 0;
	uint64_t now_ns = clock_boottime_ns(), until_ns = t->next_ns;
	struct pollfd polls[] = {
		{ .fd = t->terminal.in, .events = POLLIN },
		{ .fd = t->signal_fd, .events = POLLIN },
		{ .fd = is_full ? t->terminal.out : -1, .events = POLLOUT },
	};
	struct timespec wait;

	if (t->view.is_paused)
		until_ns = UINT64_MAX;
	if (t->is_stale)
		until_ns = min_u64(until_ns, now_ns + RETRY_NS);
	if (keyboard_has_pending(&t->terminal.keyboard))
		until_ns = min_u64(until_ns, t->typed_ns + ESCAPE_NS);
	until_ns = until_ns > now_ns ? min_u64(until_ns - now_ns, NSEC_PER_SEC) : 0;
	wait = (struct timespec){ (time_t)(until_ns / NSEC_PER_SEC),
		(long)(until_ns % NSEC_PER_SEC) };
	ppoll(polls, ARRAY_SIZE(polls), &wait, NULL);
	/* To be stopped discards what was typed: whether there is any is asked again then. */
	if (polls[1].revents) {
		take_signals(t);
	} else if (polls[0].revents) {
		t->typed_ns = clock_boottime_ns();
		if (terminal_read(&t->terminal) < 0)
			t->is_over = true;
	}
	take_keys(t, clock_boottime_ns());
	if (!t->is_over && terminal_flush(&t->terminal) < 0)
		t->is_over = true;
}

static int loop(struct top *t)
{
	t->next_ns = clock_boottime_ns();
	while (!t->is_over) {
		uint64_t now_ns = clock_boottime_ns();

		if (!t->view.is_paused && now_ns >= t->next_ns) {
			if (sample(t) != COMMAND_OK)
				return COMMAND_FAILED;
			t->next_ns = now_ns + t->view.interval_ns;
			t->is_stale = true;
		}
		if (t->is_stale && terminal_may_draw(&t->terminal, now_ns))
			redraw(t, now_ns);
		await(t);
	}
	return t->code;
}

static int take_signal_fd(void)
{
	static const int numbers[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP, SIGCONT,
		SIGWINCH };
	sigset_t set;

	sigemptyset(&set);
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		sigaddset(&set, numbers[i]);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What a signal ended, the caller shall see it. */
static int end_of(const struct top *t, int code)
{
	sigset_t all;

	if (t->killed_by == SIGINT)
		return COMMAND_INTERRUPTED;
	if (t->killed_by == 0)
		return code;
	signal(t->killed_by, SIG_DFL);
	sigfillset(&all);
	raise(t->killed_by);
	sigprocmask(SIG_UNBLOCK, &all, NULL);
	return COMMAND_FAILED;
}

static int live(struct top *t)
{
	aux_cleanup(closep) int signal_fd = take_signal_fd();
	const char *why;
	int code;

	if (!terminal_is_usable(&why)) {
		fprintf(stderr, "llmkit top: %s: use --once or --json\n", why);
		return COMMAND_FAILED;
	}
	t->signal_fd = signal_fd;
	if (signal_fd < 0 || terminal_open(&t->terminal) < 0)
		return command_fail("taking the terminal", LLMKIT_E_SYSTEM, NULL);
	code = loop(t);
	terminal_close(&t->terminal);
	if (code != COMMAND_OK && t->code == COMMAND_OK)
		out_of_memory();
	return end_of(t, code);
}

/* ---- the command ---- */

static bool take_interval(struct top *t, const char *text)
{
	char *end = NULL;
	double seconds = strtod(text, &end);

	if (end == text || *end || !(seconds >= 0.05 && seconds <= 3600)) {
		fprintf(stderr, "llmkit top: --interval \"%s\" is no number from 0.05 to 3600\n",
			text);
		return false;
	}
	t->view.interval_ns = (uint64_t)(seconds * 1e9);
	return true;
}

static int show(struct top *t)
{
	int code = top_source_open(&t->source, t->common.region, t->common.socket);

	if (code == COMMAND_OK && !(t->model = top_model_new()))
		code = out_of_memory();
	if (code == COMMAND_OK)
		code = t->once || t->common.json ? print(t) : live(t);
	canvas_deinit(&t->canvas);
	t->model = top_model_free(t->model);
	top_source_close(&t->source);
	return code;
}

int cmd_top(int argc, char **argv)
{
	static const struct option options[] = {
		{ "once", no_argument, NULL, 'o' },
		{ "interval", required_argument, NULL, 'i' },
		COMMAND_OPTION_JSON,
		COMMAND_OPTION_REGION,
		COMMAND_OPTION_SOCKET,
		COMMAND_OPTION_HELP,
		{ 0 },
	};
	static struct top t = { .signal_fd = -1 };
	int option;

	t.view = TOP_VIEW_INIT;
	while ((option = command_next_option(argc, argv, "s:h", options, &t.common)) != -1) {
		if (option == 'h')
			return command_help(usage);
		if (option == '?')
			return command_usage(argv);
		if (option == 'o')
			t.once = true;
		else if (!take_interval(&t, optarg))
			return COMMAND_USAGE;
	}
	if (command_has_rest(argc, argv))
		return COMMAND_USAGE;
	setlocale(LC_CTYPE, "");
	return show(&t);
}
