#include "daemon/attempt.h"

#include <stdio.h>
#include "base/clock.h"
#include "shm/estimate.h"
#include "shm/latency.h"

/* While an answer streams its tokens are counted low, since what was settled is not taken back; one
 * that was cut is counted as usual. */
#define ATTEMPT_BYTES_PER_TOKEN_LOW 6
#define ATTEMPT_BYTES_PER_TOKEN 4
#define ATTEMPT_PROGRESS_TOKENS 64
/* More than that no answer costs: a provider that says so errs, and would close a limit for
 * years. */
#define ATTEMPT_TOKENS_MAX UINT64_C(100000000)

/* A client's deadline that passed in silence for that long is the provider's fault; where so many
 * answers of the last minute are known, after their p99 instead, but never sooner than MIN. */
#define ATTEMPT_SILENCE_NS (10 * NSEC_PER_SEC)
#define ATTEMPT_SILENCE_MIN_NS NSEC_PER_SEC
#define ATTEMPT_SILENCE_SAMPLES 20
/* Between two tokens, of a target of which nothing is known. */
#define ATTEMPT_GAP_NS (50 * NSEC_PER_MSEC)

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

static void attempt_estimate(
	const struct attempt_scene *scene, struct request *r, const struct route_target *t)
{
	r->output_estimate =
		estimate_call(scene->region, t->model, r->ask.tag, r->survey.max_tokens,
			t->max_tokens, r->catalog->config->providers[t->provider].reserve);
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

/* Whose breaker it is, as llmkit breakers names it. */
static void attempt_explain_open(const struct request *r, const struct admission_verdict *v,
	const char *when, char text[ATTEMPT_TEXT_MAX])
{
	const char *provider = request_provider(r)->config->name;
	struct str model = v->providers ? STR_NULL : request_target(r)->model;
	const char *slash = model.length ? "/" : "";

	if (v->by_hand)
		snprintf(text, ATTEMPT_TEXT_MAX,
			"the circuit breaker of %s%s%.*s was opened by hand: llmkit breakers close "
			"%s%s%.*s",
			provider, slash, STR_ARG(model), provider, slash, STR_ARG(model));
	else
		snprintf(text, ATTEMPT_TEXT_MAX, "the circuit breaker of %s%s%.*s is open: %s",
			provider, slash, STR_ARG(model), when);
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
		attempt_explain_open(r, v, when, text);
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

/* How long an answer may well take to begin, so that a client who gave up before says nothing of
 * the provider: all but one of a hundred begin within p99. One that does not stream comes only with
 * its last token. */
static uint64_t attempt_patience(const struct region *region, const struct request *r)
{
	uint32_t row = r->ticket.target != TARGET_NONE ? r->ticket.target : r->ticket.provider;
	uint64_t now_ns = clock_boottime_ns(), wait_ns = ATTEMPT_SILENCE_NS;
	struct target_view v;

	if (latency_count(region, row, now_ns) >= ATTEMPT_SILENCE_SAMPLES)
		wait_ns = max_u64(ATTEMPT_SILENCE_MIN_NS,
			latency_percentile(region, row, 99, now_ns) * NSEC_PER_USEC);
	if (r->plan.stream)
		return wait_ns;
	if (!target_view(region, row, &v) || !v.gap_us)
		return wait_ns + r->output_estimate * ATTEMPT_GAP_NS;
	return wait_ns + r->output_estimate * min_u64(v.gap_us * NSEC_PER_USEC, NSEC_PER_SEC);
}

static bool attempt_was_silent(
	const struct region *region, const struct request *r, uint64_t now_ns)
{
	return r->sent && r->dispatched_ns && !r->first_token_ns && now_ns > r->dispatched_ns &&
		now_ns - r->dispatched_ns >= attempt_patience(region, r);
}

/* What a breaker makes of it: the provider's faults count, the client's and our own do not. */
static enum breaker_outcome attempt_outcome(
	const struct region *region, const struct request *r, uint64_t now_ns)
{
	switch (r->failure.status) {
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
	case STATUS_DEADLINE:
		return attempt_was_silent(region, r, now_ns) ? BREAKER_FAILED : BREAKER_NEUTRAL;
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
	/* Some say at the begin how much has come by then. */
	if (r->failure.status != STATUS_OK)
		output = max_u64(output, r->received / ATTEMPT_BYTES_PER_TOKEN);
	output = max_u64(output, r->progressed);
	return (struct bucket_cost){
		.input_tokens = input,
		.output_tokens = output - r->progressed,
		.nanousd = attempt_cost(request_target(r)->price, input, cached, output),
	};
}

static struct admission_result attempt_result(
	const struct region *region, const struct request *r, uint64_t now_ns)
{
	struct admission_result result = {
		.outcome = attempt_outcome(region, r, now_ns),
		.input_tokens =
			r->usage.input > 0 ? (uint64_t)r->usage.input : r->survey.input_tokens,
		.output_tokens = r->usage.output > 0 ? (uint64_t)r->usage.output : 0,
	};

	if (!r->dispatched_ns)
		return result;
	if (now_ns > r->dispatched_ns)
		result.duration_ns = now_ns - r->dispatched_ns;
	if (r->as_stream && r->first_token_ns > r->dispatched_ns)
		result.first_token_ns = r->first_token_ns - r->dispatched_ns;
	return result;
}

void attempt_end(const struct attempt_scene *scene, struct request *r, uint64_t random)
{
	uint64_t now_ns = clock_boottime_ns();
	struct admission_result result;
	struct bucket_cost used;

	if (!r->ticket.taken)
		return;
	result = attempt_result(scene->region, r, loop_now(r->loop));
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
