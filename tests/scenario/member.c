/*
 * A participant on a leash, for test_control.py: does what it is told on standard input, one
 * command a line, and answers each with one JSON object a line. What it holds it keeps until it is
 * told otherwise, or is killed.
 *
 *     member SOCKET
 *
 * A command is a verb and words NAME=VALUE; see the table at the end. Leases and tickets have
 * numbers.
 */

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/llmkit.h"

#define SLOTS 64
#define WORDS 16
#define NSEC_PER_MSEC UINT64_C(1000000)

static llmkit *kit;
static llmkit_limits *limits;
static llmkit_targets *targets;
static llmkit_lease leases[SLOTS];
static llmkit_ticket tickets[SLOTS];

/* ---- the words of a command ---- */

static char *words[WORDS];
static unsigned word_count;

static const char *word(const char *name)
{
	size_t n = strlen(name);

	for (unsigned i = 1; i < word_count; i++)
		if (strncmp(words[i], name, n) == 0 && words[i][n] == '=')
			return words[i] + n + 1;
	return NULL;
}

static uint64_t number(const char *name)
{
	const char *text = word(name);

	return text ? strtoull(text, NULL, 10) : 0;
}

static unsigned slot(void)
{
	return (unsigned)number("slot") % SLOTS;
}

static struct llmkit_cost cost(void)
{
	return (struct llmkit_cost){
		.size = sizeof(struct llmkit_cost),
		.requests = number("requests"),
		.input_tokens = number("input"),
		.output_tokens = number("output"),
		.nanousd = number("nanousd"),
	};
}

static struct llmkit_scope scope(void)
{
	return (struct llmkit_scope){
		.size = sizeof(struct llmkit_scope),
		.provider = word("provider"),
		.model = word("model"),
		.user = word("user"),
		.key = word("key"),
	};
}

/* ---- answers ---- */

static void answer(int code, const struct llmkit_verdict *v, uint64_t wait_ns)
{
	printf("{\"code\":\"%s\",\"wait_ns\":%" PRIu64, llmkit_error_name(code),
		v ? v->wait_ns : wait_ns);
	if (v)
		printf(",\"limit\":\"%s\",\"asked\":%" PRIu64 ",\"used\":%" PRIu64
		       ",\"held\":%" PRIu64 ",\"burst\":%" PRIu64,
			v->limit, v->asked, v->used, v->held, v->burst);
	puts("}");
}

static void on_scope(void)
{
	const struct llmkit_scope s = scope();

	llmkit_limits_close(limits);
	limits = NULL;
	answer(llmkit_limits_open(kit, &s, &limits), NULL, 0);
}

static void on_acquire(void)
{
	struct llmkit_verdict v = { 0 };
	int code = llmkit_acquire(limits, number("n"), &v);

	answer(code, &v, 0);
}

static uint64_t deadline(void)
{
	return llmkit_now_ns() + number("within_ms") * NSEC_PER_MSEC;
}

static void on_acquire_until(void)
{
	struct llmkit_verdict v = { 0 };
	int code = llmkit_acquire_until(limits, number("n"), deadline(), &v);

	answer(code, &v, 0);
}

static void on_lease(void)
{
	const struct llmkit_cost c = cost();
	struct llmkit_verdict v = { 0 };
	int code = word("within_ms") ?
		llmkit_lease_acquire_until(limits, &c, deadline(), &leases[slot()], &v) :
		llmkit_lease_acquire(limits, &c, &leases[slot()], &v);

	answer(code, &v, 0);
}

static void on_peek(void)
{
	const struct llmkit_cost c = cost();
	struct llmkit_verdict v = { 0 };
	int code = llmkit_peek(limits, &c, &v);

	answer(code, &v, 0);
}

static void on_progress(void)
{
	const struct llmkit_cost c = cost();

	answer(llmkit_progress(&leases[slot()], &c), NULL, 0);
}

static void on_settle(void)
{
	const struct llmkit_cost c = cost();

	answer(llmkit_settle(&leases[slot()], word("unknown") ? NULL : &c), NULL, 0);
}

static void on_cancel(void)
{
	answer(llmkit_cancel(&leases[slot()]), NULL, 0);
}

static void on_reset(void)
{
	answer(llmkit_limits_reset(limits), NULL, 0);
}

static void on_available(void)
{
	printf("{\"code\":\"LLMKIT_OK\",\"available\":%" PRIu64 ",\"capacity\":%" PRIu64
	       ",\"count\":%u}\n",
		llmkit_limits_available(limits), llmkit_limits_capacity(limits),
		llmkit_limits_count(limits));
}

/* status=429 header=NAME: VALUE (one) body=TEXT; blanks are written as "+". */
static void on_feedback(void)
{
	char *header = (char *)word("header"), *value = header ? strchr(header, ':') : NULL;
	struct llmkit_header h = { 0 };
	uint64_t wait_ns = 0;
	int code;

	if (value) {
		*value++ = '\0';
		h = (struct llmkit_header){ header, value };
		for (char *at = value; *at; at++)
			*at = *at == '+' ? ' ' : *at;
	}
	code = llmkit_feedback(
		limits, (unsigned)number("status"), &h, value != NULL, word("body"), &wait_ns);
	answer(code, NULL, wait_ns);
}

static void on_targets(void)
{
	const struct llmkit_scope s = scope();

	llmkit_targets_close(targets);
	targets = NULL;
	answer(llmkit_targets_open(kit, word("name"), &s, &targets), NULL, 0);
}

static void on_allow(void)
{
	uint64_t wait_ns = 0;
	int code = llmkit_allow(targets, (unsigned)number("target"), &tickets[slot()], &wait_ns);

	answer(code, NULL, wait_ns);
}

static void on_report(void)
{
	const struct llmkit_outcome o = {
		.size = sizeof(o),
		.http_status = (unsigned)number("status"),
		.first_token_ns = number("first_ns"),
	};

	answer(llmkit_report(&tickets[slot()], &o), NULL, 0);
}

static void on_route(void)
{
	static struct llmkit_decision d;
	struct llmkit_query q = {
		.size = sizeof(q), .input_tokens = number("input"), .max_tokens = number("max")
	};
	int code = llmkit_route(targets, &q, &d);

	printf("{\"code\":\"%s\",\"usable\":%u,\"choices\":[", llmkit_error_name(code), d.usable);
	for (unsigned i = 0; i < d.count; i++)
		printf("%s{\"target\":%u,\"name\":\"%s/%s\",\"reason\":\"%s\",\"wait_ns\":%" PRIu64
		       ",\"output\":%" PRIu64 "}",
			i ? "," : "", d.choice[i].target, d.choice[i].provider, d.choice[i].model,
			d.choice[i].reason, d.choice[i].wait_ns, d.choice[i].output_tokens);
	puts("]}");
}

static const struct {
	const char *verb;
	void (*run)(void);
} verbs[] = {
	{ "scope", on_scope }, /* provider= model= user= key= */
	{ "acquire", on_acquire }, { "acquire_until", on_acquire_until }, /* within_ms= */
	{ "lease", on_lease }, /* slot= requests= input= output= nanousd= within_ms= */
	{ "peek", on_peek }, { "progress", on_progress },
	{ "settle", on_settle }, /* unknown=1: nobody knows what was used */
	{ "cancel", on_cancel }, { "reset", on_reset }, { "available", on_available },
	{ "feedback", on_feedback }, { "targets", on_targets }, /* name= user= */
	{ "allow", on_allow },                                  /* slot= target= */
	{ "report", on_report },                                /* slot= status= first_ns= */
	{ "route", on_route },                                  /* input= max= */
};

static void run(char *line)
{
	word_count = 0;
	for (char *w = strtok(line, " \n"); w && word_count < WORDS; w = strtok(NULL, " \n"))
		words[word_count++] = w;
	for (size_t i = 0; i < sizeof(verbs) / sizeof(verbs[0]); i++)
		if (word_count && strcmp(words[0], verbs[i].verb) == 0) {
			verbs[i].run();
			return;
		}
	puts("{\"code\":\"no such verb\"}");
}

int main(int argc, char **argv)
{
	struct llmkit_options options = {
		.size = sizeof(options),
		.socket = argc > 1 ? argv[1] : NULL,
	};
	int code = llmkit_open(&kit, &options);
	char line[1024];

	setvbuf(stdout, NULL, _IOLBF, 0);
	answer(code, NULL, 0);
	while (code == 0 && fgets(line, sizeof(line), stdin))
		run(line);
	for (unsigned i = 0; i < SLOTS; i++) {
		llmkit_cancel(&leases[i]);
		llmkit_give_up(&tickets[i]);
	}
	llmkit_targets_close(targets);
	llmkit_limits_close(limits);
	llmkit_close(kit);
	return code != 0;
}
