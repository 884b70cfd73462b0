/* llmkit limits: what is configured, used and left; resetting and resuming. */

#include <stdio.h>
#include <string.h>
#include "base/aux.h"
#include "proto/json.h"
#include "shm/bucket_table.h"
#include "tools/command.h"
#include "tools/units.h"

static const char usage[] =
	"usage: llmkit limits [--json] [--region FILE] [--socket PATH]\n"
	"       llmkit limits reset LABEL | resume LABEL\n"
	"\n"
	"Lists the limits that all processes of this host share: what each allows, what is owed,\n"
	"in flight and left, and how long until all of it is back. A label is\n"
	"\"SCOPE NAME RESOURCE\", as this list and refusals have it.\n"
	"\n"
	"  reset LABEL        as if nothing were owed (what is in flight stays)\n"
	"  resume LABEL       ends a pause that a provider's 429 began, for the limit and for\n"
	"                     the targets that it covers\n"
	"\n"
	"      --json         one JSON object\n"
	"      --region FILE  the region's file (default: beside the socket)\n"
	"  -s, --socket PATH  the daemon's socket\n"
	"  -h, --help         this text\n";

static void print_one(const struct bucket_view *v, uint64_t now_ns)
{
	char label[BUCKET_LABEL_TEXT], rate[UNITS_TEXT], burst[UNITS_TEXT], owed[UNITS_TEXT],
		held[UNITS_TEXT], left[UNITS_TEXT], full[UNITS_TEXT], admitted[UNITS_TEXT],
		rejected[UNITS_TEXT];
	uint64_t paused_ns = command_limit_paused(v, now_ns);

	command_limit_label(v, label);
	printf("%-44s %14s %8s %8s %8s %8s %10s %9s %9s%s", label,
		units_rate(v->resource, v->limit, v->window_ns, rate),
		units_amount(v->resource, v->burst, burst),
		units_amount(v->resource, v->owed, owed), units_amount(v->resource, v->held, held),
		units_amount(v->resource, v->available, left), units_duration(v->full_ns, full),
		units_count(v->admitted, admitted), units_count(v->rejected, rejected),
		v->origin == BUCKET_ORIGIN_TEMPLATE ? "  template" : "");
	if (paused_ns)
		printf("  paused %s", units_duration(paused_ns, full));
	putchar('\n');
}

static void print_text(const struct region *r, uint64_t now_ns)
{
	struct bucket_view v;
	unsigned count = 0;

	for (uint32_t i = 0; i < r->buckets; i++) {
		if (!bucket_view(r, i, now_ns, &v))
			continue;
		if (count++ == 0)
			printf("%-44s %14s %8s %8s %8s %8s %10s %9s %9s\n", "LIMIT", "RATE",
				"BURST", "OWED", "HELD", "LEFT", "FULL IN", "ADMITTED", "REJECTED");
		print_one(&v, now_ns);
	}
	if (count == 0)
		puts("no limits are configured");
}

static void json_rows(struct json *j, const struct region *r, uint64_t now_ns)
{
	struct bucket_view v;

	for (uint32_t i = 0; i < r->buckets; i++) {
		if (!bucket_view(r, i, now_ns, &v))
			continue;
		json_object_begin(j, NULL);
		command_limit_json(j, i, &v, now_ns);
		json_object_end(j);
	}
}

static int act(const struct command_common *common, const char *verb, const char *label)
{
	if (strcmp(verb, "reset") == 0)
		return command_ask(common->socket, "limit-reset", label);
	if (strcmp(verb, "resume") == 0)
		return command_ask(common->socket, "limit-resume", label);
	fprintf(stderr, "llmkit limits: no act \"%s\": reset or resume\n", verb);
	return COMMAND_USAGE;
}

int cmd_limits(int argc, char **argv)
{
	static const struct option options[] = {
		COMMAND_OPTION_JSON,
		COMMAND_OPTION_REGION,
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
	if (argc - optind == 2)
		return act(&common, argv[optind], argv[optind + 1]);
	if (argc - optind == 1) {
		fprintf(stderr,
			"llmkit limits: %s needs a label in quotes, such as "
			"\"provider openai requests\"\n",
			argv[optind]);
		return COMMAND_USAGE;
	}
	if (command_has_rest(argc, argv))
		return COMMAND_USAGE;
	return command_list("limits", &common, print_text, json_rows);
}
