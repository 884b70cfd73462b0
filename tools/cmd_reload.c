/* llmkit reload: the daemon reads its configuration again. */

#include "tools/command.h"

static const char usage[] =
	"usage: llmkit reload [--socket PATH]\n"
	"\n"
	"Has the daemon read its configuration again, as SIGHUP does, and tells what it says of\n"
	"it: all of the new configuration applies, or nothing changes.\n"
	"\n"
	"  -s, --socket PATH  the daemon's socket\n"
	"  -h, --help         this text\n";

int cmd_reload(int argc, char **argv)
{
	static const struct option options[] = { COMMAND_OPTION_SOCKET, COMMAND_OPTION_HELP,
		{ 0 } };
	struct command_common common = { 0 };
	int option = command_next_option(argc, argv, "s:h", options, &common);

	if (option == 'h')
		return command_help(usage);
	if (option != -1)
		return command_usage(argv);
	if (command_has_rest(argc, argv))
		return COMMAND_USAGE;
	return command_ask(common.socket, "reload", NULL);
}
