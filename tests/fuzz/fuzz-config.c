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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buffer error aux_cleanup(buffer_deinit) = BUFFER_NULL;
	struct buffer text aux_cleanup(buffer_deinit) = BUFFER_NULL;
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
	return 0;
}
