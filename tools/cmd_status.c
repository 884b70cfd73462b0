/* llmkit status: what the daemon says of itself. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/str.h"
#include "libclient/llmkit.h"
#include "proto/json.h"
#include "tools/command.h"
#include "tools/text.h"

#define STATUS_TIMEOUT_MS 5000

static const char usage[] = "usage: llmkit status [--json] [--socket PATH]\n"
			    "\n"
			    "Asks the daemon for its state, providers, models, routes and limits.\n"
			    "\n"
			    "      --json         one JSON object, as the daemon sent it\n"
			    "  -s, --socket PATH  the daemon's socket\n"
			    "  -h, --help         this text\n";

static int print_line(void *context, const char *path, struct str value)
{
	char text[1024];

	(void)context;
	snprintf(text, sizeof(text), "%.*s", STR_ARG(value));
	text_clean(text);
	return printf("%-32s %s\n", path, text) < 0;
}

static int ask(const char *socket, bool as_json)
{
	llmkit *kit = NULL;
	char *json = NULL;
	int r, code = command_open(&kit, "llmkit-status/" PROJECT_VERSION, socket);

	if (code != COMMAND_OK)
		return code;
	r = llmkit_status(kit, STATUS_TIMEOUT_MS, &json);
	if (r != 0)
		code = command_fail("asking for the status", r, socket);
	else if (as_json)
		puts(json);
	else if (json_flatten(str_of(json), print_line, NULL) != 0)
		code = command_fail("reading the status", LLMKIT_E_PROTOCOL, socket);
	free(json);
	llmkit_close(kit);
	return code;
}

int cmd_status(int argc, char **argv)
{
	static const struct option options[] = {
		COMMAND_OPTION_JSON,
		COMMAND_OPTION_SOCKET,
		COMMAND_OPTION_HELP,
		{ 0 },
	};
	struct command_common common = { 0 };
	int option = command_next_option(argc, argv, "s:h", options, &common);

	if (option == 'h')
		return command_help(usage);
	if (option != -1)
		return command_usage(argv);
	if (command_has_rest(argc, argv))
		return COMMAND_USAGE;
	return ask(common.socket, common.json);
}
