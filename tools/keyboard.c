#include "tools/keyboard.h"

#include <string.h>
#include "base/aux.h"
#include "base/str.h"
#include "proto/utf8.h"

#define ESCAPE '\033'

/* What follows "ESC [" or "ESC O". */
static const struct {
	const char *text;
	uint32_t key;
} sequences[] = {
	{ "A", KEY_UP },
	{ "B", KEY_DOWN },
	{ "H", KEY_HOME },
	{ "F", KEY_END },
	{ "Z", KEY_BACK_TAB },
	{ "1~", KEY_HOME },
	{ "7~", KEY_HOME },
	{ "4~", KEY_END },
	{ "8~", KEY_END },
	{ "5~", KEY_PAGE_UP },
	{ "6~", KEY_PAGE_DOWN },
	{ "0n", KEY_REPORT },
};

void keyboard_feed(struct keyboard *k, const char *data, size_t n)
{
	size_t room = sizeof(k->pending) - k->count;

	if (n > room)
		n = room;
	memcpy(k->pending + k->count, data, n);
	k->count += n;
}

bool keyboard_has_pending(const struct keyboard *k)
{
	return k->count > 0;
}

static void drop(struct keyboard *k, size_t n)
{
	k->count -= n;
	memmove(k->pending, k->pending + n, k->count);
}

/* Bytes of the whole sequence that begins with an escape; 0: there is more to come. */
static size_t sequence_length(const struct keyboard *k)
{
	if (k->count < 2)
		return 0;
	if (k->pending[1] == 'O')
		return k->count < 3 ? 0 : 3;
	if (k->pending[1] != '[')
		return 1;
	for (size_t i = 2; i < k->count; i++)
		if (k->pending[i] >= 0x40 && k->pending[i] <= 0x7e)
			return i + 1;
	return k->count == sizeof(k->pending) ? k->count : 0;
}

static uint32_t sequence_key(struct keyboard *k, bool idle)
{
	size_t length = sequence_length(k);
	uint32_t key = KEY_NONE;

	if (length == 0 && !idle)
		return KEY_NONE;
	if (length <= 1) {
		/* Idle in the midst of one: what there is of it is not to be typed. */
		drop(k, length == 0 ? k->count : 1);
		return KEY_ESCAPE;
	}
	for (size_t i = 0; i < ARRAY_SIZE(sequences); i++)
		if (strlen(sequences[i].text) == length - 2 &&
			memcmp(k->pending + 2, sequences[i].text, length - 2) == 0)
			key = sequences[i].key;
	drop(k, length);
	return key == KEY_NONE ? keyboard_next(k, idle) : key;
}

static uint32_t control_key(unsigned char c)
{
	switch (c) {
	case '\r':
	case '\n':
		return KEY_ENTER;
	case '\t':
		return KEY_TAB;
	case 0x08:
	case 0x7f:
		return KEY_BACKSPACE;
	default:
		return KEY_NONE;
	}
}

/* One character of several bytes; what is none is skipped. */
static uint32_t wide_key(struct keyboard *k, bool idle)
{
	unsigned char lead = (unsigned char)k->pending[0];
	size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
	uint32_t c = length == 2 ? lead & 0x1fu : length == 3 ? lead & 0x0fu : lead & 0x07u;

	/* What no character begins with is not waited for. */
	if (k->count < length && !idle && lead >= 0xc2 && lead <= 0xf4)
		return KEY_NONE;
	if (k->count < length || !utf8_is_valid(str_make(k->pending, length))) {
		drop(k, 1);
		return keyboard_next(k, idle);
	}
	for (size_t i = 1; i < length; i++)
		c = c << 6 | ((unsigned char)k->pending[i] & 0x3fu);
	drop(k, length);
	return c;
}

uint32_t keyboard_next(struct keyboard *k, bool idle)
{
	unsigned char c;

	if (k->count == 0)
		return KEY_NONE;
	c = (unsigned char)k->pending[0];
	if (c == ESCAPE)
		return sequence_key(k, idle);
	if (c >= 0x80)
		return wide_key(k, idle);
	drop(k, 1);
	if (c >= 0x20 && c != 0x7f)
		return c;
	return control_key(c) == KEY_NONE ? keyboard_next(k, idle) : control_key(c);
}
