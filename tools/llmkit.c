/* llmkit: the table of subcommands. */

#include <stdio.h>
#include <string.h>
#include "base/aux.h"
#include "base/process.h"
#include "tools/command.h"

static const struct {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *help;
} commands[] = {
	{ "breakers", cmd_breakers, "list the circuit breakers; open, close, reset one" },
	{ "chat", cmd_chat, "send a prompt through the daemon, print the answer as it comes" },
	{ "dump", cmd_dump, "print the control region, also of a daemon that has died" },
	{ "limits", cmd_limits, "list the limits, what is used and left; reset, resume one" },
	{ "reload", cmd_reload, "have the daemon read its configuration again" },
	{ "route", cmd_route, "tell where a call would go now, and why" },
	{ "status", cmd_status, "ask the daemon how it is" },
	{ "top", cmd_top, "watch limits, targets and processes live" },
};

static int print_usage(FILE *out)
{
	fprintf(out, "usage: llmkit COMMAND [OPTION]...\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].help);
	fputs("\nllmkit COMMAND --help tells the options, llmkit --version the version. The\n"
	      "socket is LLMKIT_SOCKET, else $XDG_RUNTIME_DIR/llmkit/llmkit.sock, else\n"
	      "/run/llmkit/llmkit.sock.\n",
		out);
	return out == stdout ? COMMAND_OK : COMMAND_USAGE;
}

/* getopt_long() begins its messages with the first argument: "llmkit chat: ...". */
static int run_command(size_t i, int argc, char **argv)
{
	char name[32];

	snprintf(name, sizeof(name), "llmkit %s", commands[i].name);
	argv[0] = name;
	return commands[i].run(argc, argv);
}

static int run(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
		return print_usage(stdout);
	if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0)
		return puts("llmkit " PROJECT_VERSION) < 0 ? COMMAND_FAILED : COMMAND_OK;
	for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
		if (strcmp(name, commands[i].name) == 0)
			return run_command(i, argc - 1, argv + 1);
	if (*name)
		fprintf(stderr, "llmkit: no command \"%s\"\n", name);
	return print_usage(stderr);
}

int main(int argc, char **argv)
{
	int code;

	if (process_open_standard_fds() < 0)
		return COMMAND_FAILED;
	code = run(argc, argv);
	/* What was not written was not done. */
	if ((fflush(stdout) != 0 || ferror(stdout)) && code == COMMAND_OK) {
		fputs("llmkit: standard output cannot be written\n", stderr);
		return COMMAND_FAILED;
	}
	return code;
}
