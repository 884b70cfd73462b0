#include "daemon/attempt.h"

#include <stdio.h>
#include "base/clock.h"
#include "shm/estimate.h"

/* Output tokens to hold for a model of which nothing is known and that names no maximum. */
#define ATTEMPT_OUTPUT_TOKENS 1024
/* While an answer streams its tokens are counted low, since what was settled is not taken back; one
 * that was cut is counted as usual. */
#define ATTEMPT_BYTES_PER_TOKEN_LOW 6
#define ATTEMPT_BYTES_PER_TOKEN 4
#define ATTEMPT_PROGRESS_TOKENS 64
/* More than that no answer costs: a provider that says so errs, and would close a limit for
 * years. */
#define ATTEMPT_TOKENS_MAX UINT64_C(100000000)

/* ---- asking ---- */

static struct bucket_names attempt_names(const struct request *r, const struct route_target *t)
{
	const struct config_provider *provider = &r->catalog->config->providers[t->provider];

	return (struct bucket_names){
		.user = r->ask.user,
		.model = t->model,
		.provider = str_of(provider->name),
		.key = config_key_label(provider),
	};
}

/* The provider's; where breakers are switched off none opens by itself. */
static struct breaker_settings attempt_breaker(
	const struct config *config, const struct config_provider *provider)
{
	return config->features.breaker ? provider->breaker : breaker_never(provider->breaker);
}

/* Models that nobody configured get a row when they are first asked for, while there is room. */
static void attempt_make_rows(const struct attempt_scene *scene, const struct config *config,
	struct route_chain *chain, uint64_t now_ns)
{
	char name[TARGET_NAME_TEXT];

	for (unsigned i = 0; i < chain->count; i++) {
		struct route_target *t = &chain->target[i];
		const struct config_provider *provider = &config->providers[t->provider];
		const struct breaker_settings breaker = attempt_breaker(config, provider);
		int n = snprintf(name, sizeof(name), "%s/%.*s", provider->name, STR_ARG(t->model));
		struct target_config made = {
			.name = str_make(name, (size_t)n),
			.provider = t->provider_row,
			.price_input = -1,
			.price_output = -1,
			.price_cached = -1,
			.capabilities = TARGET_CAPABILITIES,
		};

		if (t->row != TARGET_NONE || t->provider_row == TARGET_NONE ||
			n >= (int)sizeof(name))
			continue;
		if (demand_make(scene->demand, scene->region, &made, &breaker, now_ns))
			route_find_row(scene->region, config, t);
	}
}

/* A provider that charges at submission charges all that a request may use. */
static void attempt_estimate(
	const struct attempt_scene *scene, struct request *r, const struct route_target *t)
{
	bool reserve = r->catalog->config->providers[t->provider].reserve;
	uint64_t fallback = t->max_tokens ? t->max_tokens : ATTEMPT_OUTPUT_TOKENS;

	r->output_estimate = reserve && r->survey.max_tokens ?
		r->survey.max_tokens :
		estimate_output(
			scene->region, t->model, r->ask.tag, r->survey.max_tokens, fallback);
}

int attempt_rank(const struct attempt_scene *scene, struct request *r, struct route_chain *chain,
	uint64_t random, struct buffer *why)
{
	const struct config *config = r->catalog->config;
	struct bucket_set limits[ROUTE_CHAIN_MAX] = { 0 };
	struct router_query query = route_query(chain);
	uint64_t now_ns = clock_boottime_ns();

	route_find_rows(scene->region, config, chain);
	attempt_make_rows(scene, config, chain, now_ns);
	attempt_estimate(scene, r, &chain->target[0]);
	query.input_tokens = r->survey.input_tokens;
	query.output_tokens = r->output_estimate;
	query.capabilities = r->survey.capabilities;
	query.random = random;
	for (unsigned i = 0; i < chain->count && config->features.limiter; i++) {
		const struct bucket_names names = attempt_names(r, &chain->target[i]);

		admission_resolve(scene->region, &names, now_ns, &limits[i]);
	}
	return route_rank(scene->region, config, chain, limits, &query, now_ns, why);
}

/* Nano-USD, rounded up; 0 where a price is not known. */
static uint64_t attempt_cost(
	const struct config_price *price, uint64_t input, uint64_t cached, uint64_t output)
{
	int64_t cost = !price ? -1 :
				target_cost(price->input, price->output, price->cached_input, input,
					cached, output);

	return cost < 0 ? 0 : min_u64((uint64_t)cost, BUCKET_MONEY_MAX);
}

void attempt_admit(const struct attempt_scene *scene, struct request *r, uint64_t random,
	struct admission_verdict *verdict)
{
	struct route_target *t = &r->target[r->attempt];
	const struct config *config = r->catalog->config;
	struct admission_ask ask;

	/* Rows may have become another target's since the chain was made. */
	route_find_row(scene->region, config, t);
	attempt_estimate(scene, r, t);
	ask = (struct admission_ask){
		.owner = scene->owner,
		.names = attempt_names(r, t),
		.cost = {
			.requests = 1,
			.input_tokens = r->survey.input_tokens,
			.output_tokens = r->output_estimate,
			.nanousd = attempt_cost(
				t->price, r->survey.input_tokens, 0, r->output_estimate),
		},
		.target = t->row,
		.provider = t->provider_row,
		.target_key = t->key,
		.provider_key = t->provider_key,
		.limits = config->features.limiter,
		.breakers = config->features.breaker,
		.forced = t->forced,
		.random = random,
	};
	r->dispatched_ns = 0;
	r->progressed = 0;
	admission_acquire(scene->region, &ask, clock_boottime_ns(), &r->ticket, verdict);
}

enum status attempt_explain(
	const struct request *r, const struct admission_verdict *v, char text[ATTEMPT_TEXT_MAX])
{
	const char *provider = request_provider(r)->config->name;
	char when[64] = "retry when another request has ended";

	if (v->wait_ns != BUCKET_WAIT_SETTLEMENT)
		snprintf(when, sizeof(when), "retry in %.3f s",
			(double)v->wait_ns / (double)NSEC_PER_SEC);
	switch (v->outcome) {
	case ADMISSION_E_LIMITED:
		if (!v->limit[0]) {
			snprintf(text, ATTEMPT_TEXT_MAX, "the limits are being changed: %s", when);
			return STATUS_LIMITED;
		}
		snprintf(text, ATTEMPT_TEXT_MAX,
			"limit %s is used up: %llu of %llu used, %llu asked for: %s", v->limit,
			(unsigned long long)v->used, (unsigned long long)v->burst,
			(unsigned long long)v->asked, when);
		return STATUS_LIMITED;
	case ADMISSION_E_NEVER:
		snprintf(text, ATTEMPT_TEXT_MAX,
			"limit %s never admits this request: it asks for %llu, the burst is %llu",
			v->limit, (unsigned long long)v->asked, (unsigned long long)v->burst);
		return STATUS_NEVER_FITS;
	case ADMISSION_E_OPEN:
		snprintf(text, ATTEMPT_TEXT_MAX, "the circuit breaker of provider %s is open: %s",
			provider, when);
		return STATUS_CIRCUIT_OPEN;
	case ADMISSION_E_PAUSED:
		snprintf(text, ATTEMPT_TEXT_MAX, "provider %s asked for a pause: %s", provider,
			when);
		return STATUS_LIMITED;
	case ADMISSION_E_NAME:
		snprintf(text, ATTEMPT_TEXT_MAX,
			"a limit applies to user or model, and the name is too long to have one "
			"(two together have 158 bytes) or has a byte 0x1f");
		return STATUS_BAD_REQUEST;
	default:
		snprintf(text, ATTEMPT_TEXT_MAX,
			"the tables of limits are full: raise \"tables\" in the configuration");
		return STATUS_BUSY;
	}
}

/* ---- answering ---- */

void attempt_progress(const struct attempt_scene *scene, struct request *r)
{
	uint64_t tokens = format_decoder_received(r->decoder) / ATTEMPT_BYTES_PER_TOKEN_LOW;
	struct bucket_cost used = { 0 };

	if (r->as_stream && r->first_token_ns > r->dispatched_ns)
		admission_first_token(scene->region, &r->ticket,
			r->first_token_ns - r->dispatched_ns, loop_now(r->loop));
	if (tokens < r->progressed + ATTEMPT_PROGRESS_TOKENS)
		return;
	used.output_tokens = tokens - r->progressed;
	r->progressed = tokens;
	admission_progress(scene->region, &r->ticket, &used, clock_boottime_ns());
}

uint64_t attempt_hear(const struct attempt_scene *scene, struct request *r, struct feedback *heard,
	enum status status, uint64_t random)
{
	enum admission_answer answer = ADMISSION_ANSWER_FAILED;
	uint64_t pause_ns;

	feedback_finish(heard, buffer_str(&r->error_body), clock_unix_ns());
	if (status == STATUS_OK)
		answer = ADMISSION_ANSWER_GOOD;
	else if (status == STATUS_PROVIDER_LIMITED ||
		(status == STATUS_PROVIDER_OVERLOADED && heard->has_retry_after))
		answer = ADMISSION_ANSWER_LIMITED;
	pause_ns = admission_feedback(
		scene->region, &r->ticket, heard, answer, clock_boottime_ns(), random);
	if (answer == ADMISSION_ANSWER_GOOD)
		return 0;
	return max_u64(pause_ns, heard->has_retry_after ? heard->retry_after_ns : 0);
}

/* ---- ending ---- */

/* What a breaker makes of it: the provider's faults count, the client's and our own do not. */
static enum breaker_outcome attempt_outcome(enum status status)
{
	switch (status) {
	case STATUS_OK:
		return BREAKER_OK;
	case STATUS_PROVIDER_LIMITED:
		return BREAKER_LIMITED;
	case STATUS_PROVIDER_OVERLOADED:
	case STATUS_PROVIDER_ERROR:
	case STATUS_DNS:
	case STATUS_CONNECT:
	case STATUS_TLS:
	case STATUS_TIMEOUT:
	case STATUS_STALLED:
	case STATUS_RESET:
	case STATUS_TRUNCATED:
	case STATUS_MALFORMED:
	case STATUS_REDIRECT:
		return BREAKER_FAILED;
	default:
		return BREAKER_NEUTRAL;
	}
}

static uint64_t attempt_count(int64_t said, uint64_t otherwise)
{
	return said >= 0 ? min_u64((uint64_t)said, ATTEMPT_TOKENS_MAX) : otherwise;
}

/* A refusal costs no tokens; an answer that was cut costs what came of it. */
static struct bucket_cost attempt_used(const struct request *r)
{
	const struct msg_usage *u = &r->usage;
	uint64_t input = attempt_count(u->input, r->survey.input_tokens);
	uint64_t output = attempt_count(u->output, r->received / ATTEMPT_BYTES_PER_TOKEN);
	uint64_t cached = attempt_count(u->cached_input, 0);

	if (r->http_status != 0 && r->http_status / 100 != 2)
		return (struct bucket_cost){ 0 };
	output = max_u64(output, r->progressed);
	return (struct bucket_cost){
		.input_tokens = input,
		.output_tokens = output - r->progressed,
		.nanousd = attempt_cost(request_target(r)->price, input, cached, output),
	};
}

/* Of an answer that did not stream nobody knows when its first token was made. */
static struct admission_result attempt_result(const struct request *r, uint64_t now_ns)
{
	uint64_t tokens = r->usage.output > 0 ? (uint64_t)r->usage.output : 0;
	uint64_t since_ns = r->dispatched_ns;
	struct admission_result result = {
		.outcome = attempt_outcome(r->failure.status),
		.input_tokens =
			r->usage.input > 0 ? (uint64_t)r->usage.input : r->survey.input_tokens,
	};

	if (!since_ns)
		return result;
	if (r->as_stream && r->first_token_ns > since_ns) {
		result.first_token_ns = r->first_token_ns - since_ns;
		since_ns = r->first_token_ns;
	}
	if (tokens > 1 && now_ns > since_ns)
		result.gap_ns = (now_ns - since_ns) / (tokens - 1);
	return result;
}

void attempt_end(const struct attempt_scene *scene, struct request *r, uint64_t random)
{
	uint64_t now_ns = clock_boottime_ns();
	struct admission_result result;
	struct bucket_cost used;

	if (!r->ticket.taken)
		return;
	result = attempt_result(r, loop_now(r->loop));
	used = attempt_used(r);
	admission_judge(scene->region, &r->ticket, &result, now_ns, random);
	if (result.outcome == BREAKER_OK && r->usage.output > 0)
		estimate_learn(scene->region, request_target(r)->model, r->ask.tag,
			(uint64_t)r->usage.output, now_ns);
	/* What a provider may have seen counts; what never left does not. */
	if (r->sent)
		admission_end(scene->region, &r->ticket, &used, now_ns);
	else
		admission_cancel(scene->region, &r->ticket, now_ns);
}

bool attempt_may_go_elsewhere(enum status status)
{
	switch (status) {
	case STATUS_NO_KEY:
	case STATUS_NEVER_FITS:
	case STATUS_PROVIDER_QUOTA:
	case STATUS_PROVIDER_AUTH:
	case STATUS_PROVIDER_NOT_FOUND:
	case STATUS_TLS:
	case STATUS_REDIRECT:
		return true;
	case STATUS_DEADLINE:
	case STATUS_NO_MEMORY:
	case STATUS_SHUTTING_DOWN:
		return false;
	default:
		return status_is_retryable(status);
	}
}
