#include "tools/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include "base/aux.h"
#include "base/buffer.h"
#include "base/clock.h"
#include "base/paths.h"
#include "base/process.h"
#include "proto/json.h"
#include "tools/text.h"

#define ASK_TIMEOUT_MS 10000
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

/* ---- options ---- */

int command_next_option(int argc, char **argv, const char *letters, const struct option *options,
	struct command_common *common)
{
	int option;

	while ((option = getopt_long(argc, argv, letters, options, NULL)) != -1) {
		if (option == 'j')
			common->json = true;
		else if (option == 'r')
			common->region = optarg;
		else if (option == 's')
			common->socket = optarg;
		else
			return option;
	}
	return -1;
}

int command_help(const char *usage)
{
	return fputs(usage, stdout) < 0 ? COMMAND_FAILED : COMMAND_OK;
}

int command_usage(char **argv)
{
	fprintf(stderr, "Try: %s --help\n", argv[0]);
	return COMMAND_USAGE;
}

/* ---- the daemon, the region ---- */

int command_ask(const char *socket, const char *verb, const char *name)
{
	aux_cleanup(freep) char *message = NULL;
	llmkit *kit = NULL;
	int r, code = command_open(&kit, "llmkit/" PROJECT_VERSION, socket);

	if (code != COMMAND_OK)
		return code;
	r = llmkit_command(kit, verb, name, ASK_TIMEOUT_MS, &message);
	if (message)
		text_clean(message);
	if (r == LLMKIT_OK)
		printf("%s%s%s: done\n", verb, name ? " " : "", name ? name : "");
	else if (message && *message)
		fprintf(stderr, "llmkit: %s\n", message);
	else
		command_fail(verb, r, socket);
	llmkit_close(kit);
	return r == LLMKIT_OK ? COMMAND_OK : COMMAND_FAILED;
}

int command_region_path(
	const char *region, const char *socket, char *out, size_t size, const char *command)
{
	char path[PATHS_MAX];
	int n;

	if (!region) {
		if (paths_socket(socket, path, sizeof(path)) == 0 &&
			paths_region(path, out, size) == 0)
			return COMMAND_OK;
	} else {
		n = snprintf(out, size, "%s", region);
		if (n >= 0 && (size_t)n < size)
			return COMMAND_OK;
	}
	fprintf(stderr, "llmkit %s: the path is too long\n", command);
	return COMMAND_USAGE;
}

static int fail_with(char *out, size_t size, const char *path, const char *why, const char *hint)
{
	snprintf(out, size, "%s: %s%s", path, why, hint);
	return COMMAND_FAILED;
}

int command_map(
	struct region *r, const char *path, struct command_file *file, char *why, size_t size)
{
	aux_cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat status;
	int outcome;

	if (fd < 0 || fstat(fd, &status) < 0)
		return fail_with(why, size, path, strerror(errno),
			errno == ENOENT ? "; has llmkitd ever run here? see --region and --socket" :
				errno == EACCES ? "; run as the daemon's user or as root" :
						  "");
	*file = (struct command_file){ status.st_dev, status.st_ino };
	outcome = region_attach(r, fd, false, NULL);
	if (outcome == REGION_OK)
		return COMMAND_OK;
	return fail_with(why, size, path,
		outcome < 0 ? strerror(-outcome) :
			      region_outcome_text((enum region_outcome)outcome),
		"");
}

int command_attach(struct region *r, const char *command, const char *region, const char *socket)
{
	char path[PATHS_MAX], why[PATHS_MAX + 128];
	struct command_file file;
	int outcome = command_region_path(region, socket, path, sizeof(path), command);

	if (outcome == COMMAND_OK && command_map(r, path, &file, why, sizeof(why)) != COMMAND_OK) {
		fprintf(stderr, "llmkit %s: %s\n", command, why);
		outcome = COMMAND_FAILED;
	}
	return outcome;
}

static int command_print_json(const char *command, const struct region *r, uint64_t now_ns,
	void (*rows)(struct json *j, const struct region *r, uint64_t now_ns))
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;
	aux_cleanup(json_freep) struct json *j = json_new();

	if (!j)
		return COMMAND_FAILED;
	json_object_begin(j, NULL);
	json_array_begin(j, command);
	rows(j, r, now_ns);
	json_array_end(j);
	json_object_end(j);
	if (json_finish(j, true, &out) < 0)
		return COMMAND_FAILED;
	printf("%.*s\n", STR_ARG(buffer_str(&out)));
	return COMMAND_OK;
}

int command_list(const char *command, const struct command_common *common,
	void (*text)(const struct region *r, uint64_t now_ns),
	void (*rows)(struct json *j, const struct region *r, uint64_t now_ns))
{
	struct region r = REGION_NULL;
	uint64_t now_ns;
	int code = command_attach(&r, command, common->region, common->socket);

	now_ns = clock_boottime_ns();
	if (code == COMMAND_OK && common->json)
		code = command_print_json(command, &r, now_ns, rows);
	else if (code == COMMAND_OK)
		text(&r, now_ns);
	region_detach(&r);
	return code;
}

/* ---- what is in it ---- */

enum command_daemon command_daemon_of(const struct region *r)
{
	struct region_status s;
	uint64_t start;

	region_status(r, &s);
	if (process_start_ticks(s.daemon_pid, &start) == 0 && start == s.daemon_start)
		return COMMAND_DAEMON_RUNNING;
	return s.closed ? COMMAND_DAEMON_STOPPED : COMMAND_DAEMON_DEAD;
}

void command_describe_daemon(
	const struct region *r, enum command_daemon daemon, uint64_t now_ns, char *out, size_t size)
{
	struct region_status s;
	double age;

	region_status(r, &s);
	age = now_ns > s.heartbeat_ns ? (double)(now_ns - s.heartbeat_ns) / 1e9 : 0;
	if (daemon == COMMAND_DAEMON_RUNNING)
		snprintf(out, size, "running, pid %llu, heartbeat %.1f s ago",
			(unsigned long long)s.daemon_pid, age);
	else if (daemon == COMMAND_DAEMON_STOPPED)
		snprintf(out, size, "stopped in order %.1f s ago; budgets stay valid", age);
	else
		snprintf(out, size,
			"DEAD: pid %llu did not stop in order, last heartbeat %.1f s ago; budgets "
			"stay valid and the next daemon adopts them",
			(unsigned long long)s.daemon_pid, age);
}

void command_limit_label(const struct bucket_view *v, char out[BUCKET_LABEL_TEXT])
{
	bucket_label(v, out);
	/* Participants may have written anything here. */
	text_clean(out);
}

const char *command_participant_state(enum participant_state state)
{
	return state == PARTICIPANT_ATTACHED ? "attached" :
		state == PARTICIPANT_ORPHAN  ? "orphan" :
					       "free";
}

uint64_t command_limit_paused(const struct bucket_view *v, uint64_t now_ns)
{
	return v->pause_ns > now_ns ? v->pause_ns - now_ns : 0;
}

void command_limit_json(struct json *j, uint32_t row, const struct bucket_view *v, uint64_t now_ns)
{
	char label[BUCKET_LABEL_TEXT], name[sizeof(v->name)];

	command_limit_label(v, label);
	memcpy(name, v->name, sizeof(name));
	text_clean(name);
	json_uint(j, "row", row);
	json_str(j, "label", str_of(label));
	json_str(j, "scope", str_of(bucket_scope_name(v->scope)));
	json_str(j, "name", str_of(name));
	json_str(j, "resource", str_of(bucket_resource_name(v->resource)));
	json_uint(j, "limit", v->limit);
	json_uint(j, "window_ns", v->window_ns);
	json_uint(j, "burst", v->burst);
	json_uint(j, "owed", v->owed);
	json_uint(j, "held", v->held);
	json_uint(j, "available", v->available);
	json_uint(j, "full_ns", v->full_ns);
	json_uint(j, "paused_ns", command_limit_paused(v, now_ns));
	json_uint(j, "admitted", v->admitted);
	json_uint(j, "rejected", v->rejected);
	json_bool(j, "template", v->origin == BUCKET_ORIGIN_TEMPLATE);
}

bool command_target(
	const struct region *r, uint32_t row, uint64_t now_ns, struct command_target *out)
{
	if (!target_view(r, row, &out->t) || !breaker_view(r, row, now_ns, &out->b))
		return false;
	/* Participants may have written anything here. */
	text_clean(out->t.name);
	out->paused_ns = target_paused(r, row, now_ns);
	return true;
}

void command_target_json(struct json *j, uint32_t row, const struct command_target *t)
{
	const struct breaker_view *b = &t->b;

	json_uint(j, "row", row);
	json_str(j, "target", str_of(t->t.name));
	json_bool(j, "available", t->t.available);
	json_str(j, "state", str_of(breaker_state_name(b->state)));
	json_bool(j, "forced", b->forced);
	json_uint(j, "retry_ns", b->retry_ns);
	json_uint(j, "probes_out", b->probes_out);
	json_uint(j, "paused_ns", t->paused_ns);
	json_uint(j, "pending", t->t.pending);
	json_uint(j, "requests", b->requests);
	json_uint(j, "errors", b->errors);
	json_real(j, "error_ratio", b->error_ratio);
	json_uint(j, "transitions", b->transitions);
	json_uint(j, "mean_us", b->mean_us);
	json_uint(j, "p50_us", b->p50_us);
	json_uint(j, "p99_us", b->p99_us);
	json_uint(j, "window_ok", b->window_ok);
	json_uint(j, "window_bad", b->window_bad);
	json_real(j, "baseline_us", b->baseline_us);
	json_uint(j, "changed_ns", b->changed_ns);
}
