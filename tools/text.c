#include "tools/text.h"

#include <langinfo.h>
#include <stdint.h>
#include <string.h>
#include <wchar.h>
#include "base/aux.h"
#include "proto/utf8.h"

/* Not to be shown: controls, and what turns the direction of writing or breaks a line (Unicode bidi
 * controls, U+2028, U+2029), zero width but for joining. */
static const struct {
	uint32_t first, last;
} hidden[] = {
	{ 0x0000, 0x001f },
	{ 0x007f, 0x009f },
	{ 0x061c, 0x061c },
	{ 0x200e, 0x200f },
	{ 0x2028, 0x202e },
	{ 0x2060, 0x206f },
	{ 0xfeff, 0xfeff },
	{ 0xfff9, 0xfffb },
};

/* Of valid UTF-8: the character at s and its bytes. */
static uint32_t decode(const char *s, size_t *bytes)
{
	const unsigned char *p = (const unsigned char *)s;

	*bytes = *p < 0x80 ? 1 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : 4;
	switch (*bytes) {
	case 1:
		return *p;
	case 2:
		return (p[0] & 0x1fu) << 6 | (p[1] & 0x3fu);
	case 3:
		return (p[0] & 0x0fu) << 12 | (p[1] & 0x3fu) << 6 | (p[2] & 0x3fu);
	default:
		return (p[0] & 0x07u) << 18 | (p[1] & 0x3fu) << 12 | (p[2] & 0x3fu) << 6 |
			(p[3] & 0x3fu);
	}
}

static bool is_hidden(uint32_t c)
{
	for (size_t i = 0; i < ARRAY_SIZE(hidden); i++)
		if (c >= hidden[i].first && c <= hidden[i].last)
			return true;
	return false;
}

void text_clean(char *s)
{
	size_t bytes;

	utf8_repair(s, strlen(s));
	for (; *s; s += bytes)
		if (is_hidden(decode(s, &bytes)))
			memset(s, '?', bytes);
}

bool text_locale_is_utf8(void)
{
	return strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

size_t text_next(const char *s, unsigned *columns)
{
	size_t bytes;
	int width;

	*columns = 0;
	if (*s == '\0')
		return 0;
	width = wcwidth((wchar_t)decode(s, &bytes));
	/* A character that the C library does not know takes one, as most terminals have it. */
	*columns = width < 0 ? 1 : (unsigned)width;
	return bytes;
}
