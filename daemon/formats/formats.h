#pragma once

/* The formats, one per file. Private to this folder. */

#include "daemon/formats/format.h"

extern const struct format format_openai;
extern const struct format format_anthropic;
