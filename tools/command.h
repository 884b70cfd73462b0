#pragma once

/* What the subcommands share: one function each, exit codes, error lines. */

#include <stdbool.h>
#include "libclient/llmkit.h"

enum {
	COMMAND_OK = 0,
	COMMAND_FAILED = 1,
	COMMAND_USAGE = 2,
	COMMAND_INTERRUPTED = 130,
};

int cmd_chat(int argc, char **argv);
int cmd_dump(int argc, char **argv);
int cmd_status(int argc, char **argv);

/* "llmkit: what: text of the error" on stderr, with the socket where it matters, and what
 * errno says for LLMKIT_E_SYSTEM; returns COMMAND_FAILED. */
int command_fail(const char *what, int error, const char *socket);

/* llmkit_open() with the tool's name; what fails is told. COMMAND_OK or COMMAND_FAILED. */
int command_open(llmkit **out, const char *client, const char *socket);

/* After getopt_long(): whether arguments are left over; that is told. */
bool command_has_rest(int argc, char **argv);
