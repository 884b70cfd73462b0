#include "proto/status.h"

#include <stddef.h>
#include "base/aux.h"

static const struct {
	uint32_t status;
	const char *name;
	bool retryable;
	const char *text;
} status_table[] = {
	{ STATUS_OK, "OK", false, "success" },
#define STATUS(number_, name_, retryable_, text_) { number_, #name_, retryable_, text_ },
#include "proto/tbl/status.h"
#undef STATUS
};

static size_t status_row(uint32_t status)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(status_table) && status_table[i].status != status)
		i++;
	return i;
}

const char *status_name(uint32_t status)
{
	size_t i = status_row(status);

	return i < ARRAY_SIZE(status_table) ? status_table[i].name : "UNKNOWN";
}

const char *status_text(uint32_t status)
{
	size_t i = status_row(status);

	return i < ARRAY_SIZE(status_table) ? status_table[i].text :
					      "a status this version does not know";
}

bool status_is_retryable(uint32_t status)
{
	size_t i = status_row(status);

	return i < ARRAY_SIZE(status_table) && status_table[i].retryable;
}
