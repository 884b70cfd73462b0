/* llmkitd: arguments and exit codes; everything else is daemon/server.c. */

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "base/process.h"
#include "daemon/config/config.h"
#include "daemon/config/keys.h"
#include "daemon/server.h"

enum {
	EXIT_OK = 0,
	EXIT_FAILED = 1,
	EXIT_CONFIG = 2, /* wrong arguments or configuration */
	EXIT_HELD = 3,   /* another daemon has the socket */
};

static const char usage[] =
	"usage: llmkitd [--config FILE] [--socket PATH] [--log-level LEVEL]\n"
	"       llmkitd --check-config FILE\n"
	"\n"
	"Owns the connections and keys to language-model providers for all processes of this\n"
	"host, and the rate budgets that they share.\n"
	"\n"
	"  -c, --config FILE        configuration (default: LLMKIT_CONFIG, then\n"
	"                           $XDG_CONFIG_HOME/llmkit/llmkitd.yaml for a user,\n"
	"                           /etc/llmkit/llmkitd.yaml for root, then the environment:\n"
	"                           OPENAI_API_KEY, ANTHROPIC_API_KEY, GROQ_API_KEY, ...)\n"
	"  -C, --check-config FILE  print the effective configuration, or its errors, and exit\n"
	"  -s, --socket PATH        Unix socket (default: LLMKIT_SOCKET, the configuration,\n"
	"                           $XDG_RUNTIME_DIR/llmkit/llmkit.sock, /run/llmkit/llmkit.sock)\n"
	"  -l, --log-level LEVEL    error, warning, notice, info, debug\n"
	"  -V, --version            print the version\n"
	"  -h, --help               this text\n"
	"\n"
	"SIGHUP reloads the configuration; SIGTERM and SIGINT drain, a second one ends the drain.\n"
	"Exit codes: 0 ended in order, 1 failed, 2 wrong arguments or configuration, 3 another\n"
	"daemon has the socket.\n";

struct arguments {
	const char *config, *check, *log_level;
};

static int arguments_parse(struct arguments *a, int argc, char **argv)
{
	static const struct option options[] = {
		{ "config", required_argument, NULL, 'c' },
		{ "check-config", required_argument, NULL, 'C' },
		{ "socket", required_argument, NULL, 's' },
		{ "log-level", required_argument, NULL, 'l' },
		{ "version", no_argument, NULL, 'V' },
		{ "help", no_argument, NULL, 'h' },
		{ 0 },
	};
	enum log_level level;
	int c;

	while ((c = getopt_long(argc, argv, "c:C:s:l:Vh", options, NULL)) != -1) {
		if (c == 'c')
			a->config = optarg;
		else if (c == 'C')
			a->check = optarg;
		else if (c == 's')
			setenv("LLMKIT_SOCKET", optarg, 1);
		else if (c == 'l')
			a->log_level = optarg;
		else if (c == 'V')
			return puts("llmkitd " PROJECT_VERSION) < 0 ? EXIT_FAILED : EXIT_OK;
		else if (c == 'h')
			return fputs(usage, stdout) < 0 ? EXIT_FAILED : EXIT_OK;
		else
			return fputs("Try: llmkitd --help\n", stderr), EXIT_CONFIG;
	}
	if (optind < argc) {
		fprintf(stderr, "llmkitd: unexpected argument: %s\nTry: llmkitd --help\n",
			argv[optind]);
		return EXIT_CONFIG;
	}
	if (a->log_level && !log_level_parse(a->log_level, &level)) {
		fprintf(stderr,
			"llmkitd: no log level \"%s\": error, warning, notice, info, debug\n",
			a->log_level);
		return EXIT_CONFIG;
	}
	return -1;
}

/* The configuration, or the exit code after its errors were printed. */
static int load(struct config **config, const char *path)
{
	aux_cleanup(buffer_deinit) struct buffer error = BUFFER_NULL;
	int r = config_load(config, path, &error);

	if (r == 0)
		return -1;
	if (buffer_length(&error))
		fprintf(stderr, "%.*s", STR_ARG(buffer_str(&error)));
	else
		fprintf(stderr, "llmkitd: configuration: %s\n", strerror(-r));
	return EXIT_CONFIG;
}

static int check(const struct config *config)
{
	aux_cleanup(buffer_deinit) struct buffer text = BUFFER_NULL;

	if (config_print(config, &text) < 0)
		return EXIT_FAILED;
	fwrite(buffer_head(&text), 1, buffer_length(&text), stdout);
	return fflush(stdout) == 0 && !ferror(stdout) ? EXIT_OK : EXIT_FAILED;
}

static int serve(struct config *config, const struct arguments *a)
{
	struct server *server = NULL;
	int r;

	keys_harden_process();
	r = server_new(&server, config, a->config, a->log_level != NULL);
	if (r == SERVER_E_HELD)
		return EXIT_HELD;
	if (r != SERVER_OK) {
		fprintf(stderr, "llmkitd: cannot start%s%s\n",
			r < 0 ? ": " : "; the reason is above", r < 0 ? strerror(-r) : "");
		return EXIT_FAILED;
	}
	r = server_run(server);
	server_free(server);
	return r < 0 ? EXIT_FAILED : EXIT_OK;
}

int main(int argc, char **argv)
{
	struct arguments a = { 0 };
	struct config *config = NULL;
	int code;

	if (process_open_standard_fds() < 0)
		return EXIT_FAILED;
	code = arguments_parse(&a, argc, argv);
	if (code < 0)
		code = load(&config, a.check ? a.check : a.config);
	if (code >= 0)
		return code;
	if (a.check) {
		code = check(config);
		config_free(config);
		return code;
	}
	if (a.log_level)
		log_level_parse(a.log_level, &config->log_level);
	log_set_level(config->log_level);
	return serve(config, &a);
}
