#include "daemon/catalog.h"
#include "tests/unit/exchange-jobs.h"
#include "tests/unit/cmocka-all.h"

#include <stdio.h>

#define KEY "sk-canary-0123456789"
#define HEAD(path_, host_, accept_, more_, key_) \
	"POST " path_ " HTTP/1.1\r\nHost: " host_ "\r\nUser-Agent: llmkitd/" PROJECT_VERSION \
	"\r\nAccept: " accept_ "\r\nContent-Type: application/json\r\n" more_ \
	"Content-Length: 42\r\n" key_ "\r\n"

static struct catalog *load(const char *text)
{
	aux_cleanup(buffer_deinit) struct buffer error = BUFFER_NULL;
	struct config *config = NULL;
	struct keys *keys = NULL;
	struct catalog *catalog = NULL;
	char path[] = "/tmp/llmkit-catalog-XXXXXX";
	int fd = mkstemp(path);

	setenv("LLMKIT_TEST_KEY", KEY, 1);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
	if (config_load(&config, path, &error) != 0)
		fail_msg("%.*s", STR_ARG(buffer_str(&error)));
	unlink(path);
	assert_int_equal(keys_load(&keys, config, NULL), 0);
	assert_int_equal(catalog_new(&catalog, config, keys, pool), 0);
	return catalog;
}

static void expect_head(const struct catalog *c, unsigned provider, bool stream, const char *wanted)
{
	aux_cleanup(buffer_deinit) struct buffer head = BUFFER_NULL;
	size_t capacity;

	assert_int_equal(catalog_head(c, provider, 42, stream, &head), 0);
	assert_int_equal(buffer_length(&head), strlen(wanted));
	assert_memory_equal(buffer_head(&head), wanted, strlen(wanted));
	/* Written again into the same memory: no copy of the key stays behind in freed memory. */
	capacity = head.capacity;
	buffer_wipe(&head);
	for (size_t i = 0; i < capacity; i++)
		assert_int_equal(head.data[i], 0);
	assert_int_equal(catalog_head(c, provider, 42, stream, &head), 0);
	assert_int_equal(head.capacity, capacity);
}

static void heads_are_exact(void **state)
{
	struct catalog *c;

	(void)state;
	if (!family_find(str_of("openai")) || !family_find(str_of("anthropic")))
		skip();
	c = load("providers:\n"
		 "  - {name: a, family: openai, base_url: 'https://h.example:8443/v1',"
		 " key: {env: LLMKIT_TEST_KEY}}\n"
		 "  - {name: b, family: anthropic, base_url: 'https://h.example',"
		 " key: {env: LLMKIT_TEST_KEY}}\n"
		 "  - {name: c, family: vllm, base_url: 'http://127.0.0.1:1/x/y'}\n");
	expect_head(c, 0, true,
		HEAD("/v1/chat/completions", "h.example:8443", "text/event-stream", "",
			"Authorization: Bearer " KEY "\r\n"));
	expect_head(c, 1, false,
		HEAD("/v1/messages", "h.example", "application/json",
			"anthropic-version: 2023-06-01\r\n", "x-api-key: " KEY "\r\n"));
	expect_head(c, 2, true,
		HEAD("/x/y/chat/completions", "127.0.0.1:1", "text/event-stream", "", ""));
	/* Nowhere else: what the catalog keeps of a head has no key in it. */
	for (unsigned i = 0; i < 6; i++)
		assert_null(strstr(c->provider[i / 2].head[i % 2], KEY));
	assert_null(getenv("LLMKIT_TEST_KEY"));
	catalog_unref(c);
}

static void lanes_outlive_a_generation(void **state)
{
	static const char same[] =
		"providers: [{name: a, family: vllm, base_url: 'http://127.0.0.1:1'}]\n";
	struct catalog *c, *d, *e;

	(void)state;
	if (!family_find(str_of("vllm")))
		skip();
	c = load(same);
	d = load(same);
	e = load("providers: [{name: a, family: vllm, base_url: 'http://127.0.0.1:2'}]\n");
	assert_ptr_equal(c->provider[0].lane, d->provider[0].lane);
	/* A head made for one address never meets another. */
	assert_ptr_not_equal(c->provider[0].lane, e->provider[0].lane);
	assert_ptr_equal(catalog_ref(c), c);
	catalog_unref(c);
	catalog_unref(c);
	catalog_unref(d);
	assert_null(catalog_unref(e));
	assert_null(catalog_unref(NULL));
}

int main(void)
{
#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, jobs_setup, jobs_teardown)
	const struct CMUnitTest tests[] = {
		CASE(heads_are_exact),
		CASE(lanes_outlive_a_generation),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
