#pragma once

/*
 * What a terminal sends as keys: bytes in, one key at a time out. The sequences are those of
 * ECMA-48 terminals (xterm and its kind, the Linux console, tmux, screen). Unknown ones are
 * skipped whole. Without a terminal; one owner, one thread.
 */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	/* Below: the character itself, in Unicode. */
	KEY_NONE = 0x110000,
	KEY_ESCAPE,
	KEY_ENTER,
	KEY_TAB,
	KEY_BACK_TAB,
	KEY_BACKSPACE,
	KEY_UP,
	KEY_DOWN,
	KEY_PAGE_UP,
	KEY_PAGE_DOWN,
	KEY_HOME,
	KEY_END,
	KEY_REPORT, /* no key: the terminal's answer to "are you there" */
};

struct keyboard {
	char pending[64];
	size_t count;
};

/* Bytes that were read; more than there is room for are lost. */
void keyboard_feed(struct keyboard *k, const char *data, size_t n);
/* The next key, or KEY_NONE. idle: nothing more came for a moment, so that a lone escape is the
 * key. */
uint32_t keyboard_next(struct keyboard *k, bool idle);
/* Whether an escape waits for what may follow. */
bool keyboard_has_pending(const struct keyboard *k);
