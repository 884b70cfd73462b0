#pragma once

/*
 * The terminal that a live view draws on: no echo, alternate screen, and back as it was however
 * the program ends. Plain ECMA-48 sequences that every terminal of today has, no ncurses: the view
 * redraws whole lines of one screen, which takes none of what a library of capabilities is for.
 *
 * Frames are never queued. The terminal is asked to report after each (DSR 5); while the answer is
 * out, what was sent has not been shown, and terminal_may_draw() is false. So a slow line, or a
 * window that was stopped for an hour, is one frame behind and not a thousand. A terminal that
 * does not answer is only waited for until it takes bytes again.
 *
 * One at a time in a process, one thread.
 */

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <termios.h>
#include "base/buffer.h"
#include "tools/canvas.h"
#include "tools/keyboard.h"

struct terminal {
	int in, out; /* out: opened anew, so that its O_NONBLOCK is not everybody's */
	bool owns_out, is_entered;
	struct termios before;
	struct canvas shown;   /* what the terminal has */
	struct buffer pending; /* the rest of the last frame */
	struct keyboard keyboard;
	bool asks, answers, is_asked;
	uint64_t asked_ns;
};

/* Whether standard input and output are one that can be drawn on; else *why says what is
 * missing. */
bool terminal_is_usable(const char **why);

/* Takes the terminal. 0 or -errno. */
int terminal_open(struct terminal *t);
/* Gives it back as it was; idempotent. */
void terminal_close(struct terminal *t);
/* The same for a while: a job that was stopped goes on. */
void terminal_leave(struct terminal *t);
void terminal_enter(struct terminal *t);

void terminal_size(const struct terminal *t, unsigned *columns, unsigned *lines);

bool terminal_may_draw(struct terminal *t, uint64_t now_ns);
/* Draws what differs, in one write; takes the picture and gives the one before in its place.
 * Only when it may. 0 or -errno. */
int terminal_draw(struct terminal *t, struct canvas *c, uint64_t now_ns);
/* All lines are drawn the next time. */
void terminal_forget(struct terminal *t);
/* Goes on with what did not get out. 0 or -errno. */
int terminal_flush(struct terminal *t);

/* Reads what was typed. 0; -EPIPE: the terminal is gone; -errno. */
int terminal_read(struct terminal *t);
/* The next key of it, or KEY_NONE. */
uint32_t terminal_key(struct terminal *t, bool idle);
