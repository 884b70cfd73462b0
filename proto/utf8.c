#include "proto/utf8.h"

#include <stdint.h>

/* Lead bytes from first to last: how many bytes, and what the second may be. */
static const struct {
	uint8_t first, last, size, second_min, second_max;
} utf8_leads[] = {
	{ 0x00, 0x7f, 1, 0x00, 0x00 },
	{ 0xc2, 0xdf, 2, 0x80, 0xbf },
	{ 0xe0, 0xe0, 3, 0xa0, 0xbf },
	{ 0xe1, 0xec, 3, 0x80, 0xbf },
	{ 0xed, 0xed, 3, 0x80, 0x9f },
	{ 0xee, 0xef, 3, 0x80, 0xbf },
	{ 0xf0, 0xf0, 4, 0x90, 0xbf },
	{ 0xf1, 0xf3, 4, 0x80, 0xbf },
	{ 0xf4, 0xf4, 4, 0x80, 0x8f },
};

/* Bytes of the valid sequence at p, of which n > 0 bytes exist; 0 when there is none. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
	size_t row = 0;

	while (row < sizeof(utf8_leads) / sizeof(utf8_leads[0]) && *p > utf8_leads[row].last)
		row++;
	if (row == sizeof(utf8_leads) / sizeof(utf8_leads[0]) || *p < utf8_leads[row].first ||
		n < utf8_leads[row].size)
		return 0;
	if (utf8_leads[row].size > 1 &&
		(p[1] < utf8_leads[row].second_min || p[1] > utf8_leads[row].second_max))
		return 0;
	for (size_t i = 2; i < utf8_leads[row].size; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	return utf8_leads[row].size;
}

/* How many bytes from p on are ASCII, counted in words of 8: what most text is. */
static size_t utf8_ascii(const unsigned char *p, size_t n)
{
	size_t i = 0;
	uint64_t word;

	for (; i + sizeof(word) <= n; i += sizeof(word)) {
		memcpy(&word, p + i, sizeof(word));
		if (word & UINT64_C(0x8080808080808080))
			break;
	}
	return i;
}

bool utf8_is_valid(struct str s)
{
	const unsigned char *p = (const unsigned char *)s.data;

	for (size_t i = 0; i < s.length;) {
		size_t n = utf8_ascii(p + i, s.length - i);

		if (n == 0)
			n = utf8_sequence(p + i, s.length - i);
		if (n == 0)
			return false;
		i += n;
	}
	return true;
}

bool utf8_is_name(struct str s)
{
	for (size_t i = 0; i < s.length; i++) {
		if ((unsigned char)s.data[i] < 0x20 || s.data[i] == 0x7f)
			return false;
	}
	return utf8_is_valid(s);
}

void utf8_repair(char *data, size_t size)
{
	for (size_t i = 0; i < size;) {
		size_t n = utf8_sequence((const unsigned char *)data + i, size - i);

		if (n == 0)
			data[i] = '?';
		i += n ? n : 1;
	}
}
