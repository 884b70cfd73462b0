#pragma once

/*
 * Text for a terminal. Names in the region may hold anything that a participant wrote there; what
 * comes out of text_clean() cannot move a cursor, change a colour or turn the direction of
 * writing.
 */

#include <stdbool.h>
#include <stddef.h>

/* Every byte of what is no UTF-8, of a control character (also those above 127) and of an
 * invisible mark of direction or line becomes '?'; the length stays. */
void text_clean(char *s);

/* Whether the locale, which setlocale(LC_CTYPE, "") must have taken from the environment, has
 * UTF-8. */
bool text_locale_is_utf8(void);

/* Bytes of the next character of clean text (0: at its end) and the columns it takes: 0, 1 or 2. */
size_t text_next(const char *s, unsigned *columns);
