#pragma once

/* UTF-8 as RFC 3629 has it: no surrogates, no overlong forms, nothing above U+10FFFF. */

#include <stdbool.h>
#include "base/str.h"

bool utf8_is_valid(struct str s);
/* Valid, and without control characters: fit for a name in a log line or a table. */
bool utf8_is_name(struct str s);
/* Replaces each byte that belongs to no valid sequence by '?'; the length stays. */
void utf8_repair(char *data, size_t size);
