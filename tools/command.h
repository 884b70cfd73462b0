#pragma once

/* What the subcommands share: one function each, exit codes, error lines, the usual options, the
 * region without a daemon. */

#include <getopt.h>
#include <stdbool.h>
#include "libclient/llmkit.h"
#include "shm/breaker.h"
#include "shm/bucket_table.h"
#include "shm/participant.h"
#include "shm/region.h"
#include "shm/target.h"

struct json;

enum {
	COMMAND_OK = 0,
	COMMAND_FAILED = 1,
	COMMAND_USAGE = 2,
	COMMAND_INTERRUPTED = 130,
};

int cmd_breakers(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_dump(int argc, char **argv);
int cmd_limits(int argc, char **argv);
int cmd_reload(int argc, char **argv);
int cmd_route(int argc, char **argv);
int cmd_status(int argc, char **argv);
int cmd_top(int argc, char **argv);

/* "llmkit: what: text of the error" on stderr, with the socket where it matters, and what
 * errno says for LLMKIT_E_SYSTEM; returns COMMAND_FAILED. */
int command_fail(const char *what, int error, const char *socket);

/* llmkit_open() with the tool's name; what fails is told. COMMAND_OK or COMMAND_FAILED. */
int command_open(llmkit **out, const char *client, const char *socket);

/* Has the daemon do something (llmkit_command()) and tells what it says. */
int command_ask(const char *socket, const char *verb, const char *name);

/* The region's file, read-only, found beside the socket unless region names it; what fails is told.
 * Needs no daemon. */
int command_attach(struct region *r, const char *command, const char *region, const char *socket);

/* Which file a region is, to notice that another has its name now. */
struct command_file {
	uint64_t device, inode;
};

/* Maps the region's file read-only; what fails is told in why, one sentence. COMMAND_OK or
 * COMMAND_FAILED. */
int command_map(
	struct region *r, const char *path, struct command_file *file, char *why, size_t size);

enum command_daemon {
	COMMAND_DAEMON_RUNNING,
	COMMAND_DAEMON_STOPPED, /* in order */
	COMMAND_DAEMON_DEAD,    /* not in order */
};
/* What became of the region's daemon, by /proc. */
enum command_daemon command_daemon_of(const struct region *r);
/* A sentence about it. */
void command_describe_daemon(const struct region *r, enum command_daemon daemon, uint64_t now_ns,
	char *out, size_t size);

/* "SCOPE NAME RESOURCE", fit for a terminal. */
void command_limit_label(const struct bucket_view *v, char out[BUCKET_LABEL_TEXT]);

const char *command_participant_state(enum participant_state state);

/* Nanoseconds of a limit's pause that are left; 0: none. */
uint64_t command_limit_paused(const struct bucket_view *v, uint64_t now_ns);

/* A target as it is to be shown: its name fit for a terminal, its pause its provider's too. */
struct command_target {
	struct target_view t;
	struct breaker_view b;
	uint64_t paused_ns; /* that are left; 0: none */
};
bool command_target(
	const struct region *r, uint32_t row, uint64_t now_ns, struct command_target *out);

/* The members of a row, the same in every command's JSON, into the object that is open. */
void command_limit_json(struct json *j, uint32_t row, const struct bucket_view *v, uint64_t now_ns);
void command_target_json(struct json *j, uint32_t row, const struct command_target *t);

/* The path that command_attach() opens. 0 or COMMAND_USAGE, told. */
int command_region_path(
	const char *region, const char *socket, char *out, size_t size, const char *command);

/* Options that most commands have. */
struct command_common {
	const char *region, *socket;
	bool json;
};
#define COMMAND_OPTION_JSON \
	{ \
		"json", no_argument, NULL, 'j' \
	}
#define COMMAND_OPTION_REGION \
	{ \
		"region", required_argument, NULL, 'r' \
	}
#define COMMAND_OPTION_SOCKET \
	{ \
		"socket", required_argument, NULL, 's' \
	}
#define COMMAND_OPTION_HELP \
	{ \
		"help", no_argument, NULL, 'h' \
	}

/* The next option that is none of the common ones, after taking those; -1: no more, 'h': help was
 * asked for, '?': told, return COMMAND_USAGE. */
int command_next_option(int argc, char **argv, const char *letters, const struct option *options,
	struct command_common *common);
/* Prints the usage, or where to find it. */
int command_help(const char *usage);
int command_usage(char **argv);

/* The region's rows as text, or as a JSON object with an array of the command's name. */
int command_list(const char *command, const struct command_common *common,
	void (*text)(const struct region *r, uint64_t now_ns),
	void (*rows)(struct json *j, const struct region *r, uint64_t now_ns));

/* After getopt_long(): whether arguments are left over; that is told. */
bool command_has_rest(int argc, char **argv);
