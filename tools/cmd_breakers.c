/* llmkit breakers: the health of every target; opening, closing and resetting by hand. */

#include <stdio.h>
#include <string.h>
#include "base/aux.h"
#include "proto/json.h"
#include "tools/command.h"
#include "tools/units.h"

static const char usage[] =
	"usage: llmkit breakers [--json] [--region FILE] [--socket PATH]\n"
	"       llmkit breakers open TARGET | close TARGET | reset TARGET\n"
	"\n"
	"Lists the circuit breaker of every provider and model, and what it has seen: calls,\n"
	"errors, the ratio of the last window, time to first token (mean, p50, p99).\n"
	"\n"
	"  open TARGET        stays open until it is closed by hand\n"
	"  close TARGET       closes it\n"
	"  reset TARGET       closes it, forgets what was learned and ends a pause\n"
	"\n"
	"TARGET is PROVIDER or PROVIDER/MODEL.\n"
	"\n"
	"      --json         one JSON object\n"
	"      --region FILE  the region's file (default: beside the socket)\n"
	"  -s, --socket PATH  the daemon's socket\n"
	"  -h, --help         this text\n";

static const char *latency(uint64_t us, char out[UNITS_TEXT])
{
	return units_duration(us ? us * NSEC_PER_USEC : UINT64_MAX, out);
}

static void print_one(const struct command_target *t)
{
	const struct breaker_view *b = &t->b;
	char mean[UNITS_TEXT], p50[UNITS_TEXT], p99[UNITS_TEXT], wait[UNITS_TEXT],
		calls[UNITS_TEXT], errors[UNITS_TEXT];

	printf("%-40s %-9s %8s %8s %5.1f%% %7llu %9s %9s %9s", t->t.name,
		breaker_state_name(b->state), units_count(b->requests, calls),
		units_count(b->errors, errors), b->error_ratio * 100,
		(unsigned long long)t->t.pending, latency(b->mean_us, mean),
		latency(b->p50_us, p50), latency(b->p99_us, p99));
	if (b->forced)
		printf("  by hand");
	else if (b->state == BREAKER_OPEN)
		printf("  again in %s", units_duration(b->retry_ns, wait));
	else if (b->state == BREAKER_HALF_OPEN)
		printf("  probes out: %u", b->probes_out);
	if (t->paused_ns)
		printf("  paused %s", units_duration(t->paused_ns, wait));
	putchar('\n');
}

static void print_text(const struct region *r, uint64_t now_ns)
{
	struct command_target t;
	unsigned count = 0;

	for (uint32_t i = 0; i < r->targets; i++) {
		if (!command_target(r, i, now_ns, &t))
			continue;
		if (count++ == 0)
			printf("%-40s %-9s %8s %8s %6s %7s %9s %9s %9s\n", "TARGET", "STATE",
				"CALLS", "ERRORS", "RATIO", "FLIGHT", "MEAN", "P50", "P99");
		print_one(&t);
	}
	if (count == 0)
		puts("no targets are configured");
}

static void json_rows(struct json *j, const struct region *r, uint64_t now_ns)
{
	struct command_target t;

	for (uint32_t i = 0; i < r->targets; i++) {
		if (!command_target(r, i, now_ns, &t))
			continue;
		json_object_begin(j, NULL);
		command_target_json(j, i, &t);
		json_object_end(j);
	}
}

static int act(const struct command_common *common, const char *verb, const char *target)
{
	static const struct {
		const char *name, *verb;
	} acts[] = {
		{ "open", "breaker-open" },
		{ "close", "breaker-close" },
		{ "reset", "breaker-reset" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(acts); i++)
		if (strcmp(verb, acts[i].name) == 0)
			return command_ask(common->socket, acts[i].verb, target);
	fprintf(stderr, "llmkit breakers: no act \"%s\": open, close or reset\n", verb);
	return COMMAND_USAGE;
}

int cmd_breakers(int argc, char **argv)
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
		fprintf(stderr, "llmkit breakers: %s needs a target: PROVIDER or PROVIDER/MODEL\n",
			argv[optind]);
		return COMMAND_USAGE;
	}
	if (command_has_rest(argc, argv))
		return COMMAND_USAGE;
	return command_list("breakers", &common, print_text, json_rows);
}
