#include "tools/command.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "base/paths.h"

/* The terminating zero has its place too. */
#define SOCKET_PATH_MAX (sizeof(((struct sockaddr_un *)0)->sun_path) - 1)

int command_fail(const char *what, int error, const char *socket)
{
	char path[PATHS_MAX];
	struct stat file;
	int system_error = errno;

	fprintf(stderr, "llmkit: %s: %s", what, llmkit_strerror(error));
	if (error == LLMKIT_E_SYSTEM)
		fprintf(stderr, " (%s)", strerror(system_error));
	if ((error == LLMKIT_E_NO_DAEMON || error == LLMKIT_E_REFUSED) &&
		paths_socket(socket, path, sizeof(path)) == 0) {
		bool is_other = stat(path, &file) == 0 && !S_ISSOCK(file.st_mode);

		fprintf(stderr, " (%s %s)", is_other ? "this is not a socket:" : "socket", path);
	}
	fputc('\n', stderr);
	return COMMAND_FAILED;
}

int command_open(llmkit **out, const char *client, const char *socket)
{
	const struct llmkit_options options = {
		.size = sizeof(options),
		.socket = socket,
		.client = client,
	};
	char path[PATHS_MAX];
	int r;

	if (paths_socket(socket, path, sizeof(path)) < 0 || strlen(path) > SOCKET_PATH_MAX) {
		fprintf(stderr,
			"llmkit: a socket's path can have %zu bytes, this one is longer: %s\n",
			SOCKET_PATH_MAX, path);
		return COMMAND_FAILED;
	}
	r = llmkit_open(out, &options);
	return r == 0 ? COMMAND_OK : command_fail("attaching to the daemon", r, socket);
}

bool command_has_rest(int argc, char **argv)
{
	if (optind >= argc)
		return false;
	fprintf(stderr, "%s: unexpected argument \"%s\"\nTry: %s --help\n", argv[0], argv[optind],
		argv[0]);
	return true;
}
