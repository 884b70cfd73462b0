/* llmkit route: where a call would go now, and why. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/aux.h"
#include "proto/json.h"
#include "shm/router.h"
#include "shm/target.h"
#include "tools/command.h"
#include "tools/text.h"
#include "tools/units.h"

static const char usage[] =
	"usage: llmkit route NAME [OPTION]...\n"
	"\n"
	"Tells where a call of the route, the model or PROVIDER/MODEL would go now: the targets\n"
	"in order, with predicted time and cost. Nothing is sent and nothing is taken.\n"
	"\n"
	"      --explain           also the targets that are left out, and why\n"
	"      --strategy NAME     instead of the route's: balanced, cost, latency, reliability,\n"
	"                          round_robin, weighted, order\n"
	"      --input N           tokens of the prompt (default 1000)\n"
	"      --output N          tokens of the answer (default: what was learned)\n"
	"      --needs LIST        of tools, vision, json, reasoning, streaming, with commas\n"
	"      --price-cap USD     at most this much for the call (default: the route's)\n"
	"      --patience SECONDS  how long it may wait for a limit (default: the route's)\n"
	"  -u, --user NAME         whose limits count\n"
	"      --json              one JSON object, always with those left out\n"
	"  -s, --socket PATH       the daemon's socket\n"
	"  -h, --help              this text\n";

struct ask {
	struct command_common common;
	const char *user;
	struct llmkit_query query;
	bool explain;
};

/* ---- arguments ---- */

static_assert((int)LLMKIT_STRATEGY_BALANCED == ROUTER_BALANCED + 1 &&
		(int)LLMKIT_STRATEGY_ORDER == ROUTER_STRATEGIES,
	"strategies are the router's and a default");
static_assert((int)LLMKIT_TOOLS == TARGET_TOOLS && (int)LLMKIT_STREAMING == TARGET_STREAMING,
	"capabilities are the targets'");

static const char *strategy_name(unsigned i)
{
	return i < ROUTER_STRATEGIES ? router_strategy_name(i) : NULL;
}

/* Which of names this is; -1: none, and that is told. */
static int find_word(
	const char *(*names)(unsigned i), const char *what, const char *text, size_t length)
{
	const char *name;

	for (unsigned i = 0; (name = names(i)); i++)
		if (strlen(name) == length && strncmp(text, name, length) == 0)
			return (int)i;
	fprintf(stderr, "llmkit route: no %s \"%.*s\"; there are:", what, (int)length, text);
	for (unsigned i = 0; (name = names(i)); i++)
		fprintf(stderr, " %s", name);
	fputc('\n', stderr);
	return -1;
}

static bool take_strategy(struct llmkit_query *q, const char *text)
{
	int found = find_word(strategy_name, "strategy", text, strlen(text));

	q->strategy = (enum llmkit_strategy)(found + 1);
	return found >= 0;
}

static bool take_needs(struct llmkit_query *q, const char *list)
{
	while (*list) {
		size_t length = strcspn(list, ",");
		int found = find_word(target_capability_name, "need", list, length);

		if (found < 0)
			return false;
		q->capabilities |= UINT64_C(1) << found;
		list += length + (list[length] == ',');
	}
	return true;
}

/* A number that is not negative, times scale. */
static bool take_number(const char *option, const char *text, double scale, uint64_t *value)
{
	char *end = NULL;
	double number = strtod(text, &end);

	if (end == text || *end || !(number >= 0) || number * scale >= 9e18) {
		fprintf(stderr, "llmkit route: %s \"%s\" is not a number of that kind\n", option,
			text);
		return false;
	}
	*value = (uint64_t)(number * scale);
	return true;
}

static bool take_option(struct ask *ask, int option)
{
	struct llmkit_query *q = &ask->query;

	switch (option) {
	case 'e':
		ask->explain = true;
		return true;
	case 'S':
		return take_strategy(q, optarg);
	case 'i':
		return take_number("--input", optarg, 1, &q->input_tokens);
	case 'o':
		return take_number("--output", optarg, 1, &q->output_tokens);
	case 'n':
		return take_needs(q, optarg);
	case 'p':
		return take_number("--price-cap", optarg, 1e9, &q->price_cap_nanousd);
	case 'w':
		return take_number("--patience", optarg, 1e9, &q->patience_ns);
	default:
		ask->user = optarg;
		return true;
	}
}

/* ---- answers ---- */

static void print_choice(unsigned place, const struct llmkit_choice *c)
{
	char target[256], first[UNITS_TEXT] = "-", total[UNITS_TEXT] = "-", cost[32] = "-",
			  wait[UNITS_TEXT] = "";

	snprintf(target, sizeof(target), "%s/%s", c->provider, c->model);
	/* Participants may have written anything here. */
	text_clean(target);
	if (c->first_token_us)
		units_duration(c->first_token_us * 1000, first);
	if (c->total_us)
		units_duration(c->total_us * 1000, total);
	if (c->cost_nanousd >= 0)
		snprintf(cost, sizeof(cost), "$%.6f", (double)c->cost_nanousd / 1e9);
	if (c->wait_ns == LLMKIT_WAIT_SETTLEMENT)
		snprintf(wait, sizeof(wait), "  until one ends");
	else if (c->wait_ns)
		snprintf(wait, sizeof(wait), "  %.3f s", (double)c->wait_ns / 1e9);
	printf("%2u  %-40s %10s %10s %12s  %s%s\n", place, target, first, total, cost, c->reason,
		wait);
}

static void print_text(const struct ask *ask, const struct llmkit_decision *d)
{
	unsigned shown = ask->explain || d->usable == 0 ? d->count : d->usable;

	printf("%2s  %-40s %10s %10s %12s  %s\n", "", "TARGET", "FIRST", "TOTAL", "COST", "WHY");
	for (unsigned i = 0; i < shown; i++)
		print_choice(i + 1, &d->choice[i]);
}

static int print_json(const struct llmkit_decision *d)
{
	aux_cleanup(buffer_deinit) struct buffer out = BUFFER_NULL;
	aux_cleanup(json_freep) struct json *j = json_new();

	if (!j)
		return COMMAND_FAILED;
	json_object_begin(j, NULL);
	json_uint(j, "usable", d->usable);
	json_array_begin(j, "targets");
	for (unsigned i = 0; i < d->count; i++) {
		const struct llmkit_choice *c = &d->choice[i];

		json_object_begin(j, NULL);
		json_str(j, "provider", str_of(c->provider));
		json_str(j, "model", str_of(c->model));
		json_str(j, "reason", str_of(c->reason));
		json_uint(j, "wait_ns", c->wait_ns);
		json_uint(j, "first_token_us", c->first_token_us);
		json_uint(j, "total_us", c->total_us);
		json_int(j, "cost_nanousd", c->cost_nanousd);
		json_uint(j, "output_tokens", c->output_tokens);
		json_real(j, "score", c->score);
		json_object_end(j);
	}
	json_array_end(j);
	json_object_end(j);
	if (json_finish(j, true, &out) < 0)
		return COMMAND_FAILED;
	printf("%.*s\n", STR_ARG(buffer_str(&out)));
	return COMMAND_OK;
}

static int decide(llmkit *kit, const struct ask *ask, const char *name)
{
	const struct llmkit_scope scope = { .size = sizeof(scope), .user = ask->user };
	static struct llmkit_decision d;
	llmkit_targets *targets = NULL;
	int r = llmkit_targets_open(kit, name, &scope, &targets), code = COMMAND_OK;

	if (r == LLMKIT_OK)
		r = llmkit_route(targets, &ask->query, &d);
	if (r != LLMKIT_OK && r != LLMKIT_E_LIMITED && r != LLMKIT_E_NO_TARGET)
		code = command_fail(name, r, ask->common.socket);
	else if (ask->common.json)
		code = print_json(&d);
	else
		print_text(ask, &d);
	llmkit_targets_close(targets);
	return code;
}

int cmd_route(int argc, char **argv)
{
	static const struct option options[] = {
		{ "explain", no_argument, NULL, 'e' },
		{ "strategy", required_argument, NULL, 'S' },
		{ "input", required_argument, NULL, 'i' },
		{ "output", required_argument, NULL, 'o' },
		{ "needs", required_argument, NULL, 'n' },
		{ "price-cap", required_argument, NULL, 'p' },
		{ "patience", required_argument, NULL, 'w' },
		{ "user", required_argument, NULL, 'u' },
		COMMAND_OPTION_JSON,
		COMMAND_OPTION_SOCKET,
		COMMAND_OPTION_HELP,
		{ 0 },
	};
	struct ask ask = {
		.query = { .size = sizeof(ask.query), .input_tokens = 1000, .look = true }
	};
	llmkit *kit = NULL;
	int option, code;

	while ((option = command_next_option(argc, argv, "s:u:h", options, &ask.common)) != -1) {
		if (option == 'h')
			return command_help(usage);
		if (option == '?')
			return command_usage(argv);
		if (!take_option(&ask, option))
			return COMMAND_USAGE;
	}
	if (argc - optind < 1) {
		fputs("llmkit route: name a route, a model or PROVIDER/MODEL\n", stderr);
		return command_usage(argv);
	}
	optind++;
	if (command_has_rest(argc, argv))
		return COMMAND_USAGE;
	code = command_open(&kit, "llmkit-route/" PROJECT_VERSION, ask.common.socket);
	if (code == COMMAND_OK)
		code = decide(kit, &ask, argv[optind - 1]);
	llmkit_close(kit);
	return code;
}
