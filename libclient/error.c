#include <assert.h>
#include <string.h>
#include "libclient/internal.h"

#define ERROR_STATUS_MAX 99

/* The header's numbers and the wire's are one set. */
#define STATUS(number_, name_, retryable_, text_) \
	static_assert(LLMKIT_E_##name_ == -(number_), "llmkit.h and proto/tbl/status.h differ");
#include "proto/tbl/status.h"
#undef STATUS

static const struct {
	int error;
	bool is_retryable;
	const char *name;
	const char *text;
} error_table[] = {
	{ LLMKIT_OK, false, "LLMKIT_OK", "success" },
#define STATUS(number_, name_, retryable_, text_) \
	{ -(number_), (retryable_), "LLMKIT_E_" #name_, (text_) },
#include "proto/tbl/status.h"
#undef STATUS
#define ERROR(name_, retryable_, text_) \
	{ \
		LLMKIT_E_##name_, (retryable_), "LLMKIT_E_" #name_, (text_) \
	}
	ERROR(ARGUMENT, false,
		"an argument is NULL, empty, too long, not UTF-8, or contradicts another"),
	ERROR(NO_DAEMON, true, "nothing listens on the socket; start llmkitd or set LLMKIT_SOCKET"),
	ERROR(DAEMON_LOST, true, "the daemon ended; try again, another may have started"),
	ERROR(WAIT_TIMEOUT, true, "nothing came within the given timeout"),
	ERROR(FORKED, false, "it belongs to the parent process; this one needs its own"),
	ERROR(REGION, false, "the shared region cannot be used; llmkit_region_text() says why"),
	ERROR(NO_REGION, false, "observers cannot take budgets; ask for access as a participant"),
	ERROR(ENDED, false, "the stream's last event was already read"),
	ERROR(SYSTEM, false, "a system call failed; errno says which way"),
	ERROR(JSON, false, "the text is not valid JSON of the expected kind"),
	ERROR(LEASE, false,
		"a limit applies that is held while a call runs; use llmkit_lease_acquire()"),
#undef ERROR
};

static size_t error_find(int error)
{
	size_t i = 0;

	while (i < ARRAY_SIZE(error_table) && error_table[i].error != error)
		i++;
	return i;
}

const char *llmkit_strerror(int error)
{
	size_t i = error_find(error);

	return i < ARRAY_SIZE(error_table) ? error_table[i].text :
					     "an error this version does not know";
}

const char *llmkit_error_name(int error)
{
	size_t i = error_find(error);

	return i < ARRAY_SIZE(error_table) ? error_table[i].name : "LLMKIT_E_UNKNOWN";
}

bool llmkit_is_retryable(int error)
{
	size_t i = error_find(error);

	return i < ARRAY_SIZE(error_table) && error_table[i].is_retryable;
}

const char *llmkit_version(void)
{
	return LLMKIT_VERSION_STRING;
}

int error_of_status(uint32_t status)
{
	return status >= 1 && status <= ERROR_STATUS_MAX ? -(int)status : LLMKIT_E_PROTOCOL;
}
