#pragma once

/* Status codes of the wire, from one table (proto/tbl/status.h). 0 is success. */

#include <stdbool.h>
#include <stdint.h>

enum status {
	STATUS_OK = 0,
#define STATUS(number_, name_, retryable_, text_) STATUS_##name_ = (number_),
#include "proto/tbl/status.h"
#undef STATUS
};

/* "PROVIDER_LIMITED" style name; "UNKNOWN" for numbers this build does not know. */
const char *status_name(uint32_t status);
/* One sentence. */
const char *status_text(uint32_t status);
bool status_is_retryable(uint32_t status);
