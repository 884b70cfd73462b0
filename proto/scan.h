#pragma once

/*
 * Reading small texts from the left: what is taken is cut off the view. Any bytes, in any locale of
 * the host; case is that of ASCII. Nothing is copied, nothing fails but by its answer.
 */

#include <stdbool.h>
#include <string.h>
#include "base/str.h"

static inline char scan_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static inline bool scan_is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Of ASCII, and the bytes of the two letters that stand for micro. */
static inline bool scan_is_letter(char c)
{
	return (scan_lower(c) >= 'a' && scan_lower(c) <= 'z') ||
		(c != '\0' && strchr("\xc2\xb5\xce\xbc", c));
}

static inline bool scan_is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static inline bool scan_at(struct str text, char c)
{
	return text.length > 0 && scan_lower(text.data[0]) == scan_lower(c);
}

/* n <= text->length */
static inline void scan_skip(struct str *text, size_t n)
{
	/* An empty text may have no data to add to. */
	if (n > 0)
		*text = str_make(text->data + n, text->length - n);
}

static inline struct str scan_trim(struct str s)
{
	while (s.length > 0 && scan_is_blank(s.data[0]))
		scan_skip(&s, 1);
	while (s.length > 0 && scan_is_blank(s.data[s.length - 1]))
		s.length--;
	return s;
}

/* Cuts the word, which is in lower case, off the text; false and nothing done: it is not there. */
static inline bool scan_word(struct str *text, const char *word)
{
	size_t n = 0;

	while (word[n] && n < text->length && scan_lower(text->data[n]) == word[n])
		n++;
	if (word[n])
		return false;
	scan_skip(text, n);
	return true;
}

static inline bool scan_is(struct str text, const char *word)
{
	return scan_word(&text, word) && text.length == 0;
}

static inline struct str scan_letters(struct str *text)
{
	struct str all = *text;

	while (text->length > 0 && scan_is_letter(text->data[0]))
		scan_skip(text, 1);
	return str_make(all.data, all.length - text->length);
}
