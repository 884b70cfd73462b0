/* A configuration file: refused with an error that names a position, or loaded; and what was
 * loaded is printed as something that loads. */

#include "tests/fuzz/fuzz.h"

#include <string.h>
#include <sys/mman.h>
#include "daemon/config/config.h"

static const char *const examples[] = {
	"providers:\n- name: openai\n  key: {env: K}\n  timeouts: {connect: 1s}\n",
	"providers: [{name: a, family: vllm, base_url: 'http://localhost:1/v1', "
	"key: {file: /k}, ca_file: /c, proxy: 'http://p:1', connections: 3}]\n"
	"models: [{name: m, price: {input: 2.50, output: 3, cached_input: 0.1}, max_tokens: 4}]\n"
	"routes: [{name: r, targets: [m, a/x]}]\n"
	"limits: [{provider: a, requests: 1/s, burst: 2}, {user: u, requests: 9/min}]\n",
	"access: {participants: {users: [0], groups: [1]}, observers: {everyone: true}}\n"
	"features: {limiter: true, router: false}\nlog: {level: debug}\nsocket: \"/a\\x41\"\n"
	"drain_timeout: 0s\nrequest_timeout: 250ms\nconnections_per_user: 1\n"
	"requests_per_connection: 2\nproviders: []\n",
	"providers:\n- {name: openai, key: {env: K}, tokens: reserve, breaker: off}\n"
	"- {name: b, family: openai, breaker: {preset: aggressive, failures: 5, error_ratio: 50%, "
	"calls: 20, window: 30s, probes: 2, successes: 2, lease: 30s, backoff: 5s, "
	"backoff_max: 5m, deviation: 2.5}}\n"
	"models: [{name: m, provider: b, context: 128000, capabilities: [tools, vision], "
	"breaker: {probes: 1}}, {name: n, provider: openai, breaker: conservative}]\n"
	"routes:\n- {name: r, strategy: balanced, weights: {cost: 0.3, latency: 1, "
	"reliability: 0.2}, price_cap: 0.05 USD, patience: 2s, targets: [{target: m, weight: 3}, "
	"openai/x]}\n- {name: s, strategy: weighted, price_cap: $1, targets: [m]}\n",
	"providers: [{name: openai, key: {env: K}}]\nlimits:\n"
	"- {provider: openai, requests: 100/s auto, burst: 50}\n"
	"- {model: m, input_tokens: 400k/min, output_tokens: 80000/min, tokens: 2M/min, "
	"burst: {tokens: 3M, input_tokens: 1}}\n"
	"- {user: u, model: m, requests: 10/min}\n- {key: K, concurrency: 64}\n"
	"- {user: u, money: 5 USD/day}\n- {user: v, money: $5/month, preset: unlimited}\n"
	"templates: {per_user: {requests: 1/s, money: 1 USD/day}, per_model: default, "
	"per_provider: unlimited, per_user_model: {tokens: 100k/min, preset: per_user, "
	"burst: {tokens: 7, requests: 2}}}\n"
	"tables: {limits: 4096, requests_in_flight: 8192, targets: 256}\n"
	"features: {breaker: false}\n",
};

bool fuzz_example(unsigned n, struct buffer *out)
{
	return n < ARRAY_SIZE(examples) &&
		buffer_append(out, examples[n], strlen(examples[n])) == 0;
}

static void config_freep(struct config **c)
{
	config_free(*c);
}

/* The loader reads files; this one has no name. */
static int load(struct config **c, const void *data, size_t size, struct buffer *error)
{
	int fd aux_cleanup(closep) = memfd_create("config", MFD_CLOEXEC);
	char path[64];

	FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return config_load(c, path, error);
}

/* All but the first line, which names the file. */
static bool same_lines(const struct buffer *a, const struct buffer *b)
{
	const char *x = memchr(buffer_head(a), '\n', buffer_length(a));
	const char *y = memchr(buffer_head(b), '\n', buffer_length(b));
	size_t n = x ? buffer_length(a) - (size_t)(x - buffer_head(a)) : 0;

	return x && y && n == buffer_length(b) - (size_t)(y - buffer_head(b)) &&
		memcmp(x, y, n) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buffer error aux_cleanup(buffer_deinit) = BUFFER_NULL;
	struct buffer text aux_cleanup(buffer_deinit) = BUFFER_NULL;
	struct buffer second aux_cleanup(buffer_deinit) = BUFFER_NULL;
	struct config *c aux_cleanup(config_freep) = NULL;
	struct config *again aux_cleanup(config_freep) = NULL;
	int r = load(&c, data, size, &error);

	FUZZ_CHECK(r == CONFIG_OK || r == CONFIG_E_INVALID);
	if (r == CONFIG_E_INVALID) {
		FUZZ_CHECK(!c && buffer_length(&error) > 0);
		FUZZ_CHECK(memcmp(buffer_head(&error), "/proc/self/fd/", 14) == 0);
		return 0;
	}
	FUZZ_CHECK(buffer_length(&error) == 0);
	FUZZ_CHECK(config_print(c, &text) == 0);
	FUZZ_CHECK(load(&again, buffer_head(&text), buffer_length(&text), &error) == CONFIG_OK);
	FUZZ_CHECK(again->provider_count == c->provider_count);
	FUZZ_CHECK(again->limit_count == c->limit_count);
	FUZZ_CHECK(config_print(again, &second) == 0);
	FUZZ_CHECK(same_lines(&text, &second));
	return 0;
}
