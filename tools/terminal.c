#include "tools/terminal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "base/aux.h"
#include "base/clock.h"

/* How long an answer may take: of a terminal that has never answered, and of one that has. */
#define FIRST_ANSWER_NS NSEC_PER_SEC
#define ANSWER_NS (30 * NSEC_PER_SEC)
#define LAST_ANSWER_MS 300

/* Alternate screen, no cursor, no wrapping at the end of a line; and back. */
static const char enter_text[] = "\033[?1049h\033[?25l\033[?7l\033[H\033[2J";
static const char leave_text[] = "\033[m\033[?7h\033[?25h\033[?1049l";

/* For the handler of signals that come out of the middle of anything. */
static struct terminal *taken;

static void give_back_at(int signal_number)
{
	ssize_t ignored;

	if (taken) {
		ignored = write(taken->out, leave_text, sizeof(leave_text) - 1);
		(void)ignored;
		tcsetattr(taken->in, TCSANOW, &taken->before);
	}
	signal(signal_number, SIG_DFL);
	raise(signal_number);
}

/* Whoever may write the region's file may also cut it short, and then it cannot be read any
 * more. */
static void watch_faults(void)
{
	static const int faults[] = { SIGBUS, SIGSEGV, SIGABRT, SIGFPE, SIGILL };
	struct sigaction act = { .sa_handler = give_back_at };

	sigemptyset(&act.sa_mask);
	for (size_t i = 0; i < ARRAY_SIZE(faults); i++)
		sigaction(faults[i], &act, NULL);
}

bool terminal_is_usable(const char **why)
{
	const char *term = getenv("TERM");

	if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
		*why = "standard input and output are no terminal";
	else if (!term || !*term || strcmp(term, "dumb") == 0)
		*why = "TERM says that this terminal cannot move its cursor";
	else
		return true;
	return false;
}

/* O_NONBLOCK belongs to an open file, which standard output shares with the shell and who knows
 * whom. */
static int open_own(int fd)
{
	char path[256];

	return ttyname_r(fd, path, sizeof(path)) == 0 ?
		open(path, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC) :
		-1;
}

/* All of it: what leaves a terminal usable is worth a moment. */
static void write_all(int fd, const char *text, size_t length)
{
	for (int tries = 0; length > 0 && tries < 64;) {
		ssize_t n = write(fd, text, length);

		tries = n > 0 ? 0 : tries + 1;
		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };

			if (poll(&p, 1, 1000) <= 0)
				return;
		} else if (n < 0 && errno != EINTR) {
			return;
		} else if (n > 0) {
			text += n;
			length -= (size_t)n;
		}
	}
}

/* A frame that is under way, as one that is cut may end within a sequence. */
static void finish_frame(struct terminal *t)
{
	write_all(t->out, buffer_head(&t->pending), buffer_length(&t->pending));
	buffer_reset(&t->pending, SIZE_MAX);
}

int terminal_open(struct terminal *t)
{
	*t = (struct terminal){ .in = STDIN_FILENO, .asks = true };
	if (tcgetattr(t->in, &t->before) < 0)
		return -errno;
	t->out = open_own(STDOUT_FILENO);
	t->owns_out = t->out >= 0;
	if (!t->owns_out)
		t->out = STDOUT_FILENO;
	taken = t;
	watch_faults();
	terminal_enter(t);
	return 0;
}

void terminal_enter(struct terminal *t)
{
	struct termios now = t->before;

	if (!t->owns_out)
		fcntl(t->out, F_SETFL, fcntl(t->out, F_GETFL) | O_NONBLOCK);
	now.c_lflag &= ~(tcflag_t)(ICANON | ECHO | IEXTEN);
	now.c_cc[VMIN] = 1;
	now.c_cc[VTIME] = 0;
	tcsetattr(t->in, TCSADRAIN, &now);
	finish_frame(t);
	write_all(t->out, enter_text, sizeof(enter_text) - 1);
	t->is_entered = true;
	terminal_forget(t);
}

/* An answer that is still out would be typed to the shell. */
static void await_answer(struct terminal *t)
{
	struct pollfd p = { .fd = t->in, .events = POLLIN };

	while (t->is_asked && poll(&p, 1, LAST_ANSWER_MS) > 0 && terminal_read(t) == 0)
		while (terminal_key(t, false) != KEY_NONE)
			continue;
	t->is_asked = false;
}

void terminal_leave(struct terminal *t)
{
	if (!t->is_entered)
		return;
	t->is_entered = false;
	finish_frame(t);
	if (t->answers)
		await_answer(t);
	write_all(t->out, leave_text, sizeof(leave_text) - 1);
	tcsetattr(t->in, TCSAFLUSH, &t->before);
	if (!t->owns_out)
		fcntl(t->out, F_SETFL, fcntl(t->out, F_GETFL) & ~O_NONBLOCK);
}

void terminal_close(struct terminal *t)
{
	terminal_leave(t);
	if (taken == t)
		taken = NULL;
	if (t->owns_out)
		close(t->out);
	t->owns_out = false;
	canvas_deinit(&t->shown);
	buffer_deinit(&t->pending);
}

void terminal_size(const struct terminal *t, unsigned *columns, unsigned *lines)
{
	struct winsize size = { 0 };

	if (ioctl(t->in, TIOCGWINSZ, &size) < 0 || size.ws_col == 0 || size.ws_row == 0)
		size = (struct winsize){ .ws_col = 80, .ws_row = 24 };
	*columns = size.ws_col;
	*lines = size.ws_row;
}

/* ---- drawing ---- */

bool terminal_may_draw(struct terminal *t, uint64_t now_ns)
{
	struct pollfd p = { .fd = t->out, .events = POLLOUT };

	if (!t->is_entered || buffer_length(&t->pending) > 0)
		return false;
	if (t->is_asked && now_ns - t->asked_ns < (t->answers ? ANSWER_NS : FIRST_ANSWER_NS))
		return false;
	if (t->is_asked && !t->answers)
		t->asks = false;
	return poll(&p, 1, 0) > 0 && (p.revents & POLLOUT);
}

static int put_line(struct terminal *t, unsigned row, struct str text)
{
	return buffer_printf(&t->pending, "\033[%u;1H%.*s\033[K", row + 1, STR_ARG(text));
}

static struct str line_of(const struct canvas *c, unsigned row)
{
	return row < c->lines ? buffer_str(&c->line[row]) : STR_NULL;
}

static int put_changes(struct terminal *t, const struct canvas *c)
{
	unsigned rows = c->lines > t->shown.lines ? c->lines : t->shown.lines;
	int r = 0;

	/* Of another size, or not known: a terminal may have wrapped or cut what it had. */
	if (c->width != t->shown.width || c->height != t->shown.height) {
		r = buffer_printf(&t->pending, "\033[m\033[H\033[2J");
		t->shown.lines = 0;
	}
	for (unsigned i = 0; i < rows && r == 0; i++)
		if (!str_equal(line_of(c, i), line_of(&t->shown, i)))
			r = put_line(t, i, line_of(c, i));
	return r;
}

int terminal_draw(struct terminal *t, struct canvas *c, uint64_t now_ns)
{
	struct canvas before = t->shown;
	int r;

	buffer_reset(&t->pending, SIZE_MAX);
	r = put_changes(t, c);
	if (r == 0 && buffer_length(&t->pending) > 0 && t->asks) {
		r = buffer_printf(&t->pending, "\033[5n");
		t->is_asked = true;
		t->asked_ns = now_ns;
	}
	if (r < 0)
		return r;
	t->shown = *c;
	*c = before;
	return terminal_flush(t);
}

void terminal_forget(struct terminal *t)
{
	t->shown.width = t->shown.height = 0;
	t->is_asked = false;
}

int terminal_flush(struct terminal *t)
{
	ssize_t n;

	if (buffer_length(&t->pending) == 0)
		return 0;
	n = write(t->out, buffer_head(&t->pending), buffer_length(&t->pending));
	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	buffer_consume(&t->pending, (size_t)n);
	return 0;
}

/* ---- typing ---- */

int terminal_read(struct terminal *t)
{
	char data[sizeof(t->keyboard.pending)];
	ssize_t n = read(t->in, data, sizeof(data) - t->keyboard.count);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0)
		return -EPIPE;
	keyboard_feed(&t->keyboard, data, (size_t)n);
	return 0;
}

uint32_t terminal_key(struct terminal *t, bool idle)
{
	uint32_t key;

	while ((key = keyboard_next(&t->keyboard, idle)) == KEY_REPORT) {
		t->is_asked = false;
		t->answers = t->asks = true;
	}
	return key;
}
