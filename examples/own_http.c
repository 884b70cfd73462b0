/*
 * An application with an HTTP client of its own that shares routes, breakers and budgets with all
 * processes of the host:
 *
 *     own_http NAME JSON PROVIDER=URL...
 *
 * sends JSON (OpenAI chat schema) to the targets that NAME (a route, a model or provider/model)
 * stands for, one after the other until one answers. The key is $OPENAI_API_KEY.
 */
#include <curl/curl.h>
#include <llmkit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t number_in(const char *body, const char *name)
{
	const char *at = strstr(body, name);

	return at ? strtoull(at + strlen(name), NULL, 10) : 0;
}

static const char *url_of(char **pair, const char *provider)
{
	size_t n = strlen(provider);

	while (*pair && (strncmp(*pair, provider, n) != 0 || (*pair)[n] != '='))
		pair++;
	return *pair ? *pair + n + 1 : "";
}

/* The application's own: sends, and prints what comes. Its status, 0: no answer came. */
static long post(CURL *curl, const char *url, const char *json, char **text)
{
	size_t length;
	FILE *body = open_memstream(text, &length);
	long status = 0;

	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, getenv("OPENAI_API_KEY"));
	curl_easy_setopt(curl, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
	curl_easy_setopt(curl, CURLOPT_POSTFIELDS, json);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
	if (curl_easy_perform(curl) == CURLE_OK)
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	fclose(body);
	printf("%ld %s\n", status, *text);
	return status;
}

/* One target: LLMKIT_OK when it answered. */
static int call(
	llmkit_targets *targets, const struct llmkit_choice *to, const char *url, const char *json)
{
	llmkit_limits *limits = llmkit_targets_limits(targets, to->target);
	struct llmkit_cost cost = { sizeof(cost), 1, llmkit_estimate_tokens(strlen(json)),
		to->output_tokens, to->cost_nanousd > 0 ? (uint64_t)to->cost_nanousd : 0 };
	struct llmkit_outcome o = { .size = sizeof(o) };
	uint64_t began = llmkit_now_ns();
	struct llmkit_header h[64];
	struct curl_header *header = NULL;
	llmkit_ticket ticket = { 0 };
	llmkit_lease lease = { 0 };
	char *text = NULL;
	size_t n = 0;
	int r = llmkit_allow(targets, to->target, &ticket, NULL);
	CURL *curl;

	if (r == LLMKIT_OK) /* waits for its turn, 5 s at most */
		r = llmkit_lease_acquire_until(limits, &cost, began + 5000000000, &lease, NULL);
	if (r < 0)
		return llmkit_give_up(&ticket), r;
	curl = curl_easy_init();
	began = llmkit_now_ns();
	o.http_status = (unsigned)post(curl, url, json, &text);
	o.duration_ns = llmkit_now_ns() - began;
	while (n < 64 && (header = curl_easy_nextheader(curl, CURLH_HEADER, 0, header)))
		h[n++] = (struct llmkit_header){ header->name, header->value };
	llmkit_feedback(limits, o.http_status, h, n, text, NULL);
	o.input_tokens = cost.input_tokens = number_in(text, "\"prompt_tokens\":");
	o.output_tokens = cost.output_tokens = number_in(text, "\"completion_tokens\":");
	cost.nanousd = (uint64_t)(to->cost_nanousd < 0 ?
			0 :
			llmkit_price(targets, to->target, o.input_tokens, 0, o.output_tokens));
	llmkit_report(&ticket, &o);
	llmkit_settle(&lease, o.http_status ? &cost : NULL); /* NULL: nobody knows */
	curl_easy_cleanup(curl);
	free(text);
	return o.http_status == 200 ? LLMKIT_OK : LLMKIT_E_PROVIDER_ERROR;
}

int main(int argc, char **argv)
{
	struct llmkit_query query = { .size = sizeof(query), .patience_ns = 5000000000 };
	llmkit_targets *targets = NULL;
	struct llmkit_decision d = { 0 };
	llmkit *kit = NULL;
	int r = argc > 3 ? llmkit_open(&kit, NULL) : LLMKIT_E_ARGUMENT;

	if (r == LLMKIT_OK)
		r = llmkit_targets_open(kit, argv[1], NULL, &targets);
	if (r == LLMKIT_OK) /* the price, too, is that of the prompt and of the answer */
		query.input_tokens = llmkit_estimate_tokens(strlen(argv[2]));
	if (r == LLMKIT_OK)
		r = llmkit_route(targets, &query, &d);
	for (unsigned i = 0; i < d.usable && (i == 0 || r < 0); i++)
		r = call(targets, &d.choice[i], url_of(argv + 3, d.choice[i].provider), argv[2]);
	if (r < 0)
		fprintf(stderr, "own_http: %s\n", llmkit_strerror(r));
	llmkit_targets_close(targets);
	llmkit_close(kit);
	return r < 0;
}
