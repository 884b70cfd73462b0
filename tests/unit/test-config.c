#include "daemon/config/config.h"
#include "tests/unit/config-fixture.h"

#include <assert.h>
#include <sys/un.h>
#include "daemon/route.h"
#include "shm/layout.h"

static_assert(CONFIG_LIMITS_MAX <= LAYOUT_BUCKETS, "every limit has its row");
static_assert(CONFIG_NAME_MAX + 1 + CONFIG_WORD_MAX < LAYOUT_NAME_MAX, "every target fits its row");
static_assert(CONFIG_ROUTES_MAX <= LAYOUT_ROUTES, "every route has its row");
static_assert(CONFIG_TARGETS == LAYOUT_TARGETS, "the default of tables.targets");
static_assert(CONFIG_PROBES_MAX == LAYOUT_PROBES, "every probe has its ticket");
static_assert(CONFIG_HOLDING_MAX == LAYOUT_HOLD_ENTRIES, "every limit that holds has its entry");
static_assert(CONFIG_TEMPLATE_KEYS * BUCKET_RESOURCES <= LAYOUT_TEMPLATES, "templates fit");
static_assert(CONFIG_NAME_JOIN == LAYOUT_NAME_JOIN, "how the names of a pair are joined");
static_assert(ROUTE_CHAIN_MAX <= LAYOUT_ROUTE_TARGETS, "the targets of a route fit its row");

#define P "providers: [{name: openai}, {name: anthropic}]\n"

static const struct {
	const char *text;
	unsigned line, column;
	const char *fragment;
} malformed[] = {
	/* Not YAML, or not ours. */
	{ "a: [b\n", 2, 1, "not YAML: did not find expected ',' or ']'" },
	{ "log: {level: 'info\n", 2, 1, "not YAML: found unexpected end of stream" },
	{ "socket: a\n\tb: c\n", 2, 1, "not YAML" },
	{ "log: @x\n", 1, 6, "not YAML" },
	{ "socket: a: b\n", 1, 10, "mapping values are not allowed" },
	{ "%YAML 3.0\n---\nlog:\n", 1, 1, "incompatible YAML document" },
	{ "log:\n  level: \xff\n", 2, 10, "not UTF-8 text: invalid leading UTF-8 octet" },
	{ "\xff\xfel\0o\0", 1, 1, "not UTF-8 text" },
	{ "log: {level: \x01}\n", 1, 14, "control characters are not allowed" },
	{ "socket: &s /a\nruntime: *s\n", 2, 10, "aliases (*name) are not allowed" },
	{ "log:\n---\nlog:\n", 2, 1, "a second document" },
	{ "a: [[[[[[[[[[[[[[[[[[[[x]]]]]]]]]]]]]]]]]]]]\n", 1, 19, "nested too deep" },
	{ "socket: \"a\\0b\"\n", 1, 9, "socket: holds a control character" },
	{ "socket: \"a\\x81\"\n", 1, 9, "socket: holds a control character" },
	{ "socket: \"a\\uFEFF\"\n", 1, 9, "socket: holds a control character" },
	{ "socket: \"a\\uFFFE\"\n", 1, 9, "socket: holds a control character" },
	{ "socket: |\n  a\n  b\n", 1, 9, "socket: holds a control character" },
	/* Shape. */
	{ "- 1\n", 1, 1, "must be a group of \"key: value\"" },
	{ "text\n", 1, 1, "must be a group" },
	{ "log: {level: info}\nsokket: /a\n", 2, 1,
		"unknown key \"sokket\"; allowed: socket, runtime, access, providers" },
	{ "providers:\n  - name: openai\n    api_key: sk-canary\n", 3, 5,
		"providers[0]: unknown key \"api_key\"; allowed: name, family, base_url, key" },
	{ "limits:\n  - {provider: openai, token: 3}\n", 2, 24,
		"unknown key \"token\"; allowed: provider, model, user, key, preset, requests" },
	{ "? [a]\n: b\n", 1, 3, "a key must be one word; allowed: socket" },
	{ "socket: {a: b}\n", 1, 9, "socket: must be one value" },
	{ "socket: [a]\n", 1, 9, "socket: must be one value" },
	{ "providers: 3\n", 1, 12, "providers: must be a list" },
	{ "providers: {name: openai}\n", 1, 12, "providers: must be a list" },
	{ "providers:\n  - openai\n", 2, 5, "providers[0]: must be a group" },
	{ "log: info\n", 1, 6, "log: must be a group" },
	{ "log: {level: info}\nlog: {level: info}\n", 2, 1, "log: given twice" },
	{ "log: {level: info, level: debug}\n", 1, 20, "log.level: given twice" },
	{ "routes:\n - name: a\n   targets: x/y\n", 3, 13, "routes[0].targets: must be a list" },
	/* Keys of providers are never written in the file, nor repeated in an error. */
	{ "providers:\n  - name: openai\n    key: sk-canary\n", 3, 10,
		"providers[0].key: keys are never written in the configuration" },
	{ "providers:\n  - name: openai\n    key:\n", 3, 9, "keys are never written" },
	{ "providers: [{name: openai, key: [sk-canary]}]\n", 1, 33, "keys are never written" },
	{ "providers: [{name: openai, key: {}}]\n", 1, 33, "exactly one of env, file and cred" },
	{ "providers: [{name: openai, key: {env: A, file: /b}}]\n", 1, 33, "exactly one of" },
	{ "providers: [{name: openai, key: {env: sk-canary}}]\n", 1, 33,
		"env is not the name of a variable" },
	{ "providers: [{name: openai, key: {file: sk-canary}}]\n", 1, 33, "not an absolute path" },
	{ "providers: [{name: openai, key: {credential: ../sk-canary}}]\n", 1, 33, "has no '/'" },
	{ "providers: [{name: openai, key: {env: ''}}]\n", 1, 39, "key.env: is empty" },
	{ "providers: [{name: openai, key: {value: sk-canary}}]\n", 1, 34,
		"unknown key \"value\"; allowed: env, file, credential" },
	/* Providers. */
	{ "providers: [{family: openai}]\n", 1, 13, "providers[0].name: is required" },
	{ "providers: [{name: Open AI}]\n", 1, 20, "\"Open AI\" is not a name; use a-z" },
	{ "providers:\n- name: openai\n- name: openai\n", 3, 9,
		"\"openai\" is already providers[0]" },
	{ "providers: [{name: mine}]\n", 1, 13,
		"providers[0].family: is required, because \"mine\" is not itself a family; "
		"allowed: openai" },
	{ "providers: [{name: mine, family: opnai}]\n", 1, 34,
		"\"opnai\" is not a family; allowed" },
	{ "providers: [{name: openai, base_url: ftp://x}]\n", 1, 38, "does not begin with https" },
	{ "providers: [{name: openai, base_url: 'https://'}]\n", 1, 38, "has no host" },
	{ "providers: [{name: openai, base_url: 'https://h/ x'}]\n", 1, 38, "holds a space" },
	{ "providers: [{name: openai, base_url: 'https://h?k=sk-canary'}]\n", 1, 38, "query" },
	{ "providers: [{name: openai, base_url: 'https://h#x'}]\n", 1, 38, "fragment" },
	{ "providers: [{name: openai, base_url: 'https://u:sk-canary@h'}]\n", 1, 38, "user info" },
	{ "providers: [{name: openai, base_url: 'https://h:99999'}]\n", 1, 38, "port" },
	{ "providers: [{name: openai, base_url: 'https://h:/x'}]\n", 1, 38, "port" },
	{ "providers: [{name: openai, base_url: 'https://[::1'}]\n", 1, 38, "no host" },
	{ "providers: [{name: openai, base_url: 'https://h!x'}]\n", 1, 38, "its host holds" },
	{ "providers: [{name: openai, base_url: \"https://h\\r\\nX: y\"}]\n", 1, 38,
		"control char" },
	{ "providers: [{name: openai, base_url: 'http://example.org'}]\n", 1, 38,
		"would send the key in clear" },
	{ "providers: [{name: openai, base_url: 'http://127.0.0.1.example.org'}]\n", 1, 38,
		"would send the key in clear" },
	{ "providers: [{name: vllm, base_url: 'http://gpu:8000', key: {env: K}}]\n", 1, 36,
		"would send the key in clear" },
	{ "providers: [{name: openai, proxy: 'http://u:sk-canary@p'}]\n", 1, 35, "user info" },
	{ "providers: [{name: openai, ca_file: }]\n", 1, 37, "ca_file: is empty" },
	{ "providers: [{name: openai, connections: 0}]\n", 1, 41,
		"\"0\" is not allowed; write a whole number from 1 to 65536" },
	{ "providers: [{name: openai, connections: 1.5}]\n", 1, 41, "\"1.5\" is not allowed" },
	{ "providers: [{name: openai, timeouts: {connect: 10}}]\n", 1, 48,
		"providers[0].timeouts.connect: \"10\" is not a duration; write a number and ms, "
		"s" },
	{ "providers: [{name: openai, timeouts: {stall: 0s}}]\n", 1, 46,
		"\"0s\" is out of range; allowed: 1ms to 1d" },
	{ "providers: [{name: openai, timeouts: {first_byte: -1s}}]\n", 1, 51, "not a duration" },
	{ "providers: [{name: openai, keep_alive: {idle: 2d}}]\n", 1, 47, "out of range" },
	{ "providers: [{name: openai, keep_alive: {max_age: 1w}}]\n", 1, 50, "not a duration" },
	/* Models. */
	{ P "models: [{provider: openai}]\n", 2, 10, "models[0].name: is required" },
	{ P "models: [{name: a}]\n", 2, 10,
		"models[0].provider: is required unless there is exactly one provider; there is: "
		"openai, anthropic" },
	{ P "models: [{name: a, provider: opnai}]\n", 2, 30,
		"no provider \"opnai\"; there is: openai, anthropic" },
	{ "providers: []\nmodels: [{name: a, provider: b}]\n", 2, 30, "there is none" },
	{ P "models:\n- {name: a, provider: openai}\n- {name: a, provider: anthropic}\n", 4, 10,
		"\"a\" is already models[0]" },
	{ P "models: [{name: 'a b', provider: openai}]\n", 2, 17, "without spaces" },
	{ P "models: [{name: a, provider: openai, upstream: ''}]\n", 2, 48, "\"\" is not a name" },
	{ P "models: [{name: a, provider: openai, price: {input: -1}}]\n", 2, 53,
		"\"-1\" is not a price; write USD per million tokens" },
	{ P "models: [{name: a, provider: openai, price: {output: 10001}}]\n", 2, 54,
		"not a price" },
	{ P "models: [{name: a, provider: openai, price: {output: 1.2345678}}]\n", 2, 54,
		"six dec" },
	{ P "models: [{name: a, provider: openai, price: {cached_input: $2}}]\n", 2, 60, "\"$2\"" },
	{ P "models: [{name: a, provider: openai, max_tokens: 4k}]\n", 2, 50, "\"4k\"" },
	/* Routes. */
	{ P "routes: [{targets: [openai/a]}]\n", 2, 10, "routes[0].name: is required" },
	{ P "routes: [{name: r}]\n", 2, 10, "routes[0].targets: has 0; give 1 to 16 targets" },
	{ P "routes: [{name: r, targets: [openai/a, sonnet]}]\n", 2, 40,
		"routes[0].targets[1]: no model \"sonnet\"; write PROVIDER/MODEL" },
	{ P "routes: [{name: r, targets: [opnai/a]}]\n", 2, 30, "no provider \"opnai\"; there is" },
	{ P "routes: [{name: r, targets: [openai/]}]\n", 2, 30, "no model \"openai/\"" },
	{ P "routes:\n- {name: r, targets: [openai/a]}\n- {name: r, targets: [openai/b]}\n", 4, 10,
		"\"r\" is already routes[0]" },
	/* Limits. */
	{ P "limits: [{requests: 1/s}]\n", 2, 10,
		"give one or two of provider, model, user and key" },
	{ P "limits: [{user: a, model: b, key: c, requests: 1/s}]\n", 2, 10, "one or two of" },
	{ P "limits: [{provider: groq, requests: 1/s}]\n", 2, 21,
		"no provider \"groq\"; there is" },
	{ P "limits: [{user: a}]\n", 2, 10,
		"limits[0]: limits nothing; give at least one of preset, requests, input_tokens" },
	{ P "limits:\n  - user: a\n    requests: \"100\"\n", 4, 15,
		"limits[0].requests: \"100\" is not a rate; write N/s, N/min, N/h or N/day, such "
		"as" },
	{ P "limits: [{user: a, requests: 0/s}]\n", 2, 30, "\"0/s\" is not a rate" },
	{ P "limits: [{user: a, requests: 1/week}]\n", 2, 30, "\"1/week\" is not a rate" },
	{ P "limits: [{user: a, requests: 2000000000/s}]\n", 2, 30, "is not a rate" },
	{ P "limits: [{user: a, requests: 1/s, burst: 0}]\n", 2, 42, "\"0\" is not allowed" },
	{ P "limits: [{user: a, requests: 1/s, burst: 99999999999999999999}]\n", 2, 42,
		"not allowed" },
	{ P "limits:\n- {user: a, requests: 1/s}\n- {user: a, requests: 2/s}\n", 4, 23,
		"\"a\" is already limited by limits[0]" },
	/* The rest. */
	{ "access:\n  participants:\n    users: [root, nobody-has-this-name]\n", 3, 19,
		"access.participants.users[1]: no user \"nobody-has-this-name\" on this machine" },
	{ "access: {observers: {groups: [nobody-has-this-name]}}\n", 1, 31, "no group" },
	{ "access: {observers: {everyone: yes}}\n", 1, 32, "\"yes\" is not a switch; write true" },
	{ "access: {participants: {everyone: true}}\n", 1, 25, "unknown key \"everyone\"" },
	{ "features: {limiter: on}\n", 1, 21, "features.limiter: \"on\" is not a switch" },
	{ "log: {level: verbose}\n", 1, 14,
		"\"verbose\" is not a level; allowed: error, warning, notice, info, debug" },
	{ "drain_timeout: soon\n", 1, 16, "drain_timeout: \"soon\" is not a duration" },
	{ "request_timeout: 0s\n", 1, 18, "out of range" },
	{ "connections_per_user: -1\n", 1, 23, "\"-1\" is not allowed" },
	{ "requests_per_connection: many\n", 1, 26, "\"many\" is not allowed" },
	{ "socket:\n", 1, 8, "socket: is empty" },
	/* A column is a character, not a byte. */
	{ "{socket: é, log: {level: é}}\n", 1, 26, "\"é\" is not a level" },
};

static void every_malformed_file_is_explained(void **state)
{
	struct fixture *f = *state;

	if (!has("openai"))
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
		int r = load(f, malformed[i].text);
		const char *text = error_text(f);
		char where[160];

		snprintf(where, sizeof(where), "%s:%u:%u: ", f->path, malformed[i].line,
			malformed[i].column);
		if (r != CONFIG_E_INVALID || !strstr(text, where) ||
			!strstr(text, malformed[i].fragment))
			fail_msg("row %zu: %d for:\n%s\nwanted %s%s\ngot %s", i, r,
				malformed[i].text, where, malformed[i].fragment, text);
		if (strstr(text, "sk-canary"))
			fail_msg("row %zu: a key is in the error: %s", i, text);
		assert_null(f->c);
	}
}

static void all_errors_are_reported_at_once(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f,
				 P "limits:\n- {user: a, requests: x}\n- {user: b, requests: y}\n"
				   "log: {level: z}\ndrain_timeout: q\n"),
		CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f), ":3:23: limits[0].requests: \"x\""));
	assert_non_null(strstr(error_text(f), ":4:23: limits[1].requests: \"y\""));
	assert_non_null(strstr(error_text(f), ":5:14: log.level: \"z\""));
	assert_non_null(strstr(error_text(f), ":6:16: drain_timeout: \"q\""));
	/* Shape too. */
	assert_int_equal(load(f, "a: 1\nlog: {b: 2}\nmodels: 3\n"), CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f), ":1:1: unknown key \"a\""));
	assert_non_null(strstr(error_text(f), ":2:7: log: unknown key \"b\""));
	assert_non_null(strstr(error_text(f), ":3:9: models: must be a list"));
	/* An unknown key hides no value. */
	assert_int_equal(load(f, "zz: {a: [b]}\nlog: {level: z, q: 1}\ndrain_timeout: q\n"),
		CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f), ":1:1: unknown key \"zz\""));
	assert_non_null(strstr(error_text(f), ":2:17: log: unknown key \"q\""));
	assert_non_null(strstr(error_text(f), ":2:14: log.level: \"z\""));
	assert_non_null(strstr(error_text(f), ":3:16: drain_timeout: \"q\""));
}

static void errors_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct buffer text = BUFFER_NULL;

	for (int i = 0; i < 200; i++)
		assert_int_equal(buffer_printf(&text, "k%d: 1\n", i), 0);
	assert_int_equal(load_bytes(f, buffer_head(&text), buffer_length(&text)), CONFIG_E_INVALID);
	buffer_append(&f->error, "", 1);
	assert_non_null(strstr(error_text(f), ":50:1: "));
	assert_null(strstr(error_text(f), ":51:1: "));
	assert_non_null(strstr(error_text(f), "and 150 more errors"));
	buffer_deinit(&text);
}

/* For libyaml a NUL ends the file, and what follows would be ignored. */
static void bytes_after_a_nul_are_not_ignored(void **state)
{
	struct fixture *f = *state;
	static const char text[] = "log:\0 {level: verbose}\n";

	assert_int_equal(load_bytes(f, text, sizeof(text) - 1), CONFIG_E_INVALID);
	buffer_append(&f->error, "", 1);
	assert_non_null(strstr(error_text(f), ":1:5: not UTF-8 text: it holds a NUL byte"));
}

static void lists_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct buffer text = BUFFER_NULL;

	assert_int_equal(buffer_printf(&text, "providers: []\nlimits:\n"), 0);
	for (int i = 0; i < 4097; i++)
		assert_int_equal(buffer_printf(&text, "- {user: u%d, requests: 1/s}\n", i), 0);
	assert_int_equal(load_bytes(f, buffer_head(&text), buffer_length(&text)), CONFIG_E_INVALID);
	buffer_append(&f->error, "", 1);
	assert_non_null(strstr(error_text(f), ":3:1: limits: has 4097 entries; at most 4096"));
	buffer_deinit(&text);
}

static void files_that_are_none_are_refused(void **state)
{
	struct fixture *f = *state;
	char *large = malloc(1024 * 1024 + 2);

	assert_non_null(large);
	memset(large, '#', 1024 * 1024 + 2);
	assert_int_equal(load_bytes(f, large, 1024 * 1024 + 2), CONFIG_E_INVALID);
	buffer_append(&f->error, "", 1);
	assert_non_null(strstr(error_text(f), "larger than 1 MiB"));
	free(large);
	buffer_reset(&f->error, 0);
	assert_int_equal(config_load(&f->c, f->folder, &f->error), CONFIG_E_INVALID);
	buffer_append(&f->error, "", 1);
	assert_non_null(strstr(error_text(f), "Is a directory"));
	buffer_reset(&f->error, 0);
	assert_int_equal(config_load(&f->c, "/dev/null", &f->error), CONFIG_E_INVALID);
	buffer_append(&f->error, "", 1);
	assert_non_null(strstr(error_text(f), "not a regular file"));
	buffer_reset(&f->error, 0);
	assert_int_equal(config_load(&f->c, "/nonexistent/c.yaml", &f->error), CONFIG_E_INVALID);
	buffer_append(&f->error, "", 1);
	assert_non_null(strstr(error_text(f),
		"/nonexistent/c.yaml:1:1: cannot be read: No such file or directory"));
}

static void the_example_sets_every_key(void **state)
{
	struct fixture *f = *state;
	const struct config *c;

	if (!has("openai") || !has("anthropic"))
		skip();
	load_example(f);
	c = f->c;
	assert_string_equal(c->socket, "/run/llmkit/llmkit.sock");
	assert_string_equal(c->runtime, "/run/llmkit");
	assert_int_equal(c->access.participant_uid_count, 1);
	assert_int_equal(c->access.participant_uids[0], 0);
	assert_int_equal(c->access.participant_gid_count, 1);
	assert_int_equal(c->access.observer_uid_count, 1);
	assert_int_equal(c->access.observer_uids[0], 1);
	assert_int_equal(c->access.observer_gid_count, 1);
	assert_false(c->access.everyone_observes);
	assert_int_equal(c->provider_count, 4);
	assert_string_equal(c->providers[0].key.env, "OPENAI_API_KEY");
	assert_string_equal(c->providers[0].base_url, "https://api.openai.com/v1");
	assert_int_equal(c->providers[0].connect_timeout_ns, 10 * NSEC_PER_SEC);
	assert_int_equal(c->providers[0].first_byte_timeout_ns, 120 * NSEC_PER_SEC);
	assert_int_equal(c->providers[0].stall_timeout_ns, 60 * NSEC_PER_SEC);
	assert_int_equal(c->providers[0].connections, 256);
	assert_int_equal(c->providers[0].idle_ns, 60 * NSEC_PER_SEC);
	assert_int_equal(c->providers[0].max_age_ns, 600 * NSEC_PER_SEC);
	assert_string_equal(c->providers[1].key.file, "/etc/llmkit/anthropic.key");
	assert_string_equal(c->providers[2].family->name, "openai");
	assert_string_equal(c->providers[2].key.credential, "eu-gateway");
	assert_string_equal(c->providers[2].ca_file, "/etc/llmkit/example-ca.pem");
	assert_string_equal(c->providers[2].proxy, "http://proxy.example.org:3128");
	assert_string_equal(c->providers[3].base_url, "http://localhost:8000/v1");
	assert_int_equal(c->model_count, 2);
	assert_string_equal(c->models[0].name, "gpt-4o");
	assert_string_equal(c->models[0].upstream, "gpt-4o-2024-11-20");
	assert_int_equal(c->models[0].price.input, 2500000);
	assert_int_equal(c->models[0].price.output, 10000000);
	assert_int_equal(c->models[0].price.cached_input, 1250000);
	assert_int_equal(c->models[1].provider, 1);
	assert_int_equal(c->models[1].price.cached_input, -1);
	assert_int_equal(c->models[1].max_tokens, 8192);
}

static void the_example_sets_every_rule(void **state)
{
	struct fixture *f = *state;
	const struct config *c;

	if (!has("openai") || !has("anthropic"))
		skip();
	load_example(f);
	c = f->c;
	assert_int_equal(c->route_count, 3);
	assert_string_equal(c->routes[0].name, "fast");
	assert_int_equal(c->routes[0].target_count, 3);
	assert_string_equal(c->routes[0].targets[0].upstream, "gpt-4o-mini");
	assert_string_equal(c->routes[0].targets[0].model, "gpt-4o-mini");
	assert_int_equal(c->routes[0].targets[1].provider, 1);
	assert_string_equal(c->routes[0].targets[1].upstream, "claude-sonnet-4-5");
	assert_string_equal(c->routes[0].targets[1].model, "claude-sonnet");
	assert_int_equal(c->routes[0].targets[1].row->max_tokens, 8192);
	assert_int_equal(c->routes[0].targets[2].provider, 3);
	assert_int_equal(c->limits[0].scope, BUCKET_SCOPE_PROVIDER);
	assert_string_equal(c->limits[0].name, "openai");
	assert_int_equal(c->limits[0].limit, 100);
	assert_int_equal(c->limits[0].window_ns, NSEC_PER_SEC);
	assert_int_equal(c->limits[0].burst, 50);
	assert_int_equal(c->limits[1].scope, BUCKET_SCOPE_MODEL);
	assert_int_equal(c->limits[1].window_ns, 60 * NSEC_PER_SEC);
	assert_int_equal(c->limits[1].burst, 9);
	assert_int_equal(c->limits[2].scope, BUCKET_SCOPE_USER);
	assert_int_equal(c->limits[3].burst, 1);
	assert_true(c->features.limiter && c->features.router);
	assert_int_equal(c->log_level, LOG_LEVEL_INFO);
	assert_int_equal(c->drain_timeout_ns, 30 * NSEC_PER_SEC);
	assert_int_equal(c->request_timeout_ns, 600 * NSEC_PER_SEC);
	assert_int_equal(c->connections_per_uid, 512);
	assert_int_equal(c->requests_per_connection, 256);
}

static void empty_files_and_sections_are_defaults(void **state)
{
	struct fixture *f = *state;
	static const char *const texts[] = { "", "# nothing\n", "---\n", "{}\n",
		"access:\nproviders:\nmodels:\nroutes:\nlimits:\nfeatures:\nlog:\n",
		"access:\n  observers:\n    users:\n" };

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
		load_good(f, texts[i]);
		assert_int_equal(f->c->provider_count, 0);
		assert_true(f->c->features.limiter);
		assert_string_equal(f->c->socket, "/run/llmkit/llmkit.sock");
		assert_string_equal(f->c->runtime, "/run/llmkit");
		assert_int_equal(f->c->connections_per_uid, 512);
	}
}

static void values_other_than_defaults_are_taken(void **state)
{
	struct fixture *f = *state;

	if (!has("openai"))
		skip();
	load_good(f,
		"socket: /s/x.sock\nfeatures: {limiter: false, router: false}\n"
		"log: {level: error}\ndrain_timeout: 0s\nrequest_timeout: 250ms\n"
		"connections_per_user: 7\nrequests_per_connection: 9\n"
		"access: {observers: {everyone: true}, participants: {users: [4711, '0']}}\n"
		"providers:\n- {name: my.gw_1-a, family: openai, connections: 3, base_url: "
		"'https://H.example:8443/a/b//', timeouts: {connect: 1s, first_byte: 2m, "
		"stall: 3h}, keep_alive: {idle: 0s, max_age: 1d}}\n"
		"models: [{name: m/x}]\nlimits: [{user: a, requests: 7/h, burst: 5}]\n");
	assert_string_equal(f->c->runtime, "/s");
	assert_false(f->c->features.limiter || f->c->features.router);
	assert_int_equal(f->c->log_level, LOG_LEVEL_ERROR);
	assert_int_equal(f->c->drain_timeout_ns, 0);
	assert_int_equal(f->c->request_timeout_ns, 250 * NSEC_PER_MSEC);
	assert_int_equal(f->c->connections_per_uid, 7);
	assert_int_equal(f->c->requests_per_connection, 9);
	assert_true(f->c->access.everyone_observes);
	assert_int_equal(f->c->access.participant_uid_count, 2);
	assert_int_equal(f->c->access.participant_uids[0], 4711);
	assert_string_equal(f->c->providers[0].base_url, "https://H.example:8443/a/b");
	assert_int_equal(f->c->providers[0].connections, 3);
	assert_int_equal(f->c->providers[0].connect_timeout_ns, NSEC_PER_SEC);
	assert_int_equal(f->c->providers[0].first_byte_timeout_ns, 120 * NSEC_PER_SEC);
	assert_int_equal(f->c->providers[0].stall_timeout_ns, 3 * 3600 * NSEC_PER_SEC);
	assert_int_equal(f->c->providers[0].idle_ns, 0);
	assert_int_equal(f->c->providers[0].max_age_ns, NSEC_PER_DAY);
	/* One provider: a model need not name it; its upstream is its name. */
	assert_int_equal(f->c->models[0].provider, 0);
	assert_string_equal(f->c->models[0].upstream, "m/x");
	assert_int_equal(f->c->limits[0].burst, 5);
	assert_int_equal(config_find_provider(f->c, str_of("my.gw_1-a")), 0);
	assert_int_equal(config_find_provider(f->c, str_of("my")), -1);
}

static void plain_http_is_for_this_machine_or_without_key(void **state)
{
	struct fixture *f = *state;
	static const char *const good[] = { "openai, base_url: 'http://localhost:1'",
		"openai, base_url: 'http://127.8.9.1/v1'", "openai, base_url: 'http://[::1]:80/v1'",
		"vllm, base_url: 'http://gpu.lan:8000/v1'",
		"vllm, base_url: 'https://[2001:db8::1]/v1', key: {env: K}" };
	char text[256];

	if (!has("openai"))
		skip();
	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		snprintf(text, sizeof(text), "providers: [{name: %s}]\n", good[i]);
		load_good(f, text);
	}
}

static void environment_alone_makes_providers(void **state)
{
	struct fixture *f = *state;

	if (!has("openai") || !has("anthropic"))
		skip();
	/* A file of the machine under test would be read instead. */
	if (access("/etc/llmkit/llmkitd.yaml", F_OK) == 0)
		skip();
	setenv("OPENAI_API_KEY", "sk-canary-1", 1);
	setenv("ANTHROPIC_API_KEY", "sk-canary-2", 1);
	setenv("GROQ_API_KEY", "", 1);
	setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:8080/", 1);
	assert_int_equal(config_load(&f->c, NULL, &f->error), 0);
	assert_null(f->c->path);
	assert_int_equal(f->c->provider_count, 2);
	assert_int_equal(config_find_provider(f->c, str_of("groq")), -1);
	assert_string_equal(f->c->providers[config_find_provider(f->c, str_of("openai"))].base_url,
		"https://api.openai.com/v1");
	assert_string_equal(
		f->c->providers[config_find_provider(f->c, str_of("anthropic"))].base_url,
		"http://127.0.0.1:8080");
	f->c = config_free(f->c);
	setenv("OPENAI_BASE_URL", "http://example.org", 1);
	assert_int_equal(config_load(&f->c, NULL, &f->error), CONFIG_E_INVALID);
	buffer_append(&f->error, "", 1);
	assert_non_null(strstr(error_text(f),
		"environment:1:1: base URL of openai: "
		"\"http://example.org\" would send the key in clear"));
	/* A file without "providers:" has those of the environment as well; [] has none. */
	unsetenv("OPENAI_BASE_URL");
	load_good(f, "limits: [{provider: openai, requests: 1/s}]\n");
	assert_int_equal(f->c->provider_count, 2);
	load_good(f, "providers: []\n");
	assert_int_equal(f->c->provider_count, 0);
}

static void sources_have_an_order(void **state)
{
	struct fixture *f = *state;
	char folder[96], user[128], other[128];

	snprintf(folder, sizeof(folder), "%s/llmkit", f->folder);
	assert_int_equal(mkdir(folder, 0700), 0);
	snprintf(user, sizeof(user), "%s/llmkitd.yaml", folder);
	snprintf(other, sizeof(other), "%s/other.yaml", folder);
	put_file(user, "connections_per_user: 1\n", 24);
	put_file(other, "connections_per_user: 2\nsocket: /f/s.sock\n", 42);
	put_file(f->path, "connections_per_user: 3\nruntime: /r\n", 36);
	setenv("XDG_CONFIG_HOME", f->folder, 1);
	if (geteuid() != 0) {
		assert_int_equal(config_load(&f->c, NULL, &f->error), 0);
		assert_int_equal(f->c->connections_per_uid, 1);
		f->c = config_free(f->c);
	}
	setenv("LLMKIT_CONFIG", other, 1);
	assert_int_equal(config_load(&f->c, NULL, &f->error), 0);
	assert_int_equal(f->c->connections_per_uid, 2);
	assert_string_equal(f->c->path, other);
	assert_string_equal(f->c->socket, "/f/s.sock");
	assert_string_equal(f->c->runtime, "/f");
	f->c = config_free(f->c);
	setenv("LLMKIT_SOCKET", "/e/s.sock", 1);
	assert_int_equal(config_load(&f->c, NULL, &f->error), 0);
	assert_string_equal(f->c->socket, "/e/s.sock");
	f->c = config_free(f->c);
	assert_int_equal(config_load(&f->c, f->path, &f->error), 0);
	assert_int_equal(f->c->connections_per_uid, 3);
	assert_string_equal(f->c->runtime, "/r");
	/* A file that was named must exist. */
	setenv("LLMKIT_CONFIG", "/nonexistent.yaml", 1);
	f->c = config_free(f->c);
	assert_int_equal(config_load(&f->c, NULL, &f->error), CONFIG_E_INVALID);
	unlink(user);
	unlink(other);
	rmdir(folder);
}

static void printing_and_loading_agree(void **state)
{
	struct fixture *f = *state;
	unsigned targets;

	if (!has("openai") || !has("anthropic"))
		skip();
	setenv("OPENAI_API_KEY", "sk-canary", 1);
	load_example(f);
	round_trip(f);
	assert_int_equal(f->c->models[0].price.cached_input, 1250000);
	assert_int_equal(f->c->models[1].price.cached_input, -1);
	targets = f->c->routes[0].target_count;
	assert_int_equal(targets, 3);
	assert_string_equal(f->c->routes[0].targets[1].model, "claude-sonnet");
	assert_int_equal(f->c->limits[3].window_ns, NSEC_PER_DAY);
	load_good(f, "");
	assert_int_equal(f->c->provider_count, 1);
	round_trip(f);
	load_good(f,
		"socket: \"/a b\\\\\\\"é\"\nproviders: []\ndrain_timeout: 0s\n"
		"request_timeout: 90s\nlimits: [{user: '#\"', requests: 1/min}]\n");
	round_trip(f);
	assert_string_equal(f->c->socket, "/a b\\\"é");
	assert_string_equal(f->c->limits[0].name, "#\"");
	assert_int_equal(f->c->request_timeout_ns, 90 * NSEC_PER_SEC);
}

static void printing_says_whether_keys_are_found(void **state)
{
	struct fixture *f = *state;
	struct buffer text = BUFFER_NULL;

	if (!has("openai"))
		skip();
	setenv("OPENAI_API_KEY", "sk-canary", 1);
	load_good(f,
		"providers:\n- {name: openai}\n- {name: groq}\n- {name: ollama}\n"
		"- {name: xai, key: {file: /nonexistent}}\n"
		"- {name: mistral, key: {env: OPENAI_API_KEY}}\n"
		"- {name: together, key: {credential: c}}\n");
	assert_int_equal(config_print(f->c, &text), 0);
	assert_int_equal(buffer_append(&text, "", 1), 0);
	assert_non_null(strstr(buffer_head(&text), "# key: {env: OPENAI_API_KEY}, found"));
	assert_non_null(strstr(buffer_head(&text), "# key: {env: GROQ_API_KEY}, not found"));
	assert_non_null(strstr(buffer_head(&text), "# no key"));
	assert_non_null(strstr(buffer_head(&text), "key: {file: \"/nonexistent\"} # not found"));
	assert_non_null(strstr(buffer_head(&text), "key: {env: \"OPENAI_API_KEY\"} # found"));
	assert_non_null(strstr(buffer_head(&text), "key: {credential: \"c\"} # not found"));
	assert_null(strstr(buffer_head(&text), "canary"));
	buffer_deinit(&text);
}

/* A key file as the daemon would refuse it, by its mode or content. */
static void expect_key_fault(struct fixture *f, const char *source, const char *fragment)
{
	size_t count;
	char text[256], where[160];

	snprintf(text, sizeof(text), "providers:\n- name: a\n  family: %s\n  key: {%s}\n",
		family_table(&count)->name, source);
	snprintf(where, sizeof(where), "%s:4:8: providers[0].key: ", f->path);
	assert_int_equal(load(f, text), CONFIG_E_INVALID);
	if (!strstr(error_text(f), where) || !strstr(error_text(f), fragment))
		fail_msg("wanted %s ... %s\ngot %s", where, fragment, error_text(f));
	assert_null(strstr(error_text(f), "canary"));
}

static void keys_that_the_daemon_would_refuse_are_errors(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *key, *fragment;
		mode_t mode;
	} rows[] = {
		{ "sk-canary", "can be read by others (mode 0644): chmod 600 ", 0644 },
		{ "", "it is empty", 0600 },
		{ "canary\ncanary\n", "a line break", 0600 },
	};
	char key[96], source[128], large[5000];

	snprintf(key, sizeof(key), "%s/key", f->folder);
	snprintf(source, sizeof(source), "file: %s", key);
	for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
		put_file(key, rows[i].key, strlen(rows[i].key));
		assert_int_equal(chmod(key, rows[i].mode), 0);
		expect_key_fault(f, source, rows[i].fragment);
	}
	memset(large, 'k', sizeof(large));
	put_file(key, large, sizeof(large));
	expect_key_fault(f, source, "longer than 4096");
	unlink(key);
	assert_int_equal(mkfifo(key, 0600), 0);
	expect_key_fault(f, source, "is not a regular file");
	unlink(key);
	setenv("LLMKIT_TEST_BAD", "a canary", 1);
	expect_key_fault(f, "env: LLMKIT_TEST_BAD", "variable LLMKIT_TEST_BAD cannot be used");
	assert_string_equal(getenv("LLMKIT_TEST_BAD"), "a canary"); /* looked at, not taken */
	setenv("CREDENTIALS_DIRECTORY", f->folder, 1);
	put_file(key, "", 0);
	expect_key_fault(f, "credential: key", "it is empty");
	unlink(key);
}

static void a_socket_path_fits_its_address(void **state)
{
	struct fixture *f = *state;
	char path[256], text[300], where[160];
	size_t longest = sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1;

	memset(path, 'x', sizeof(path));
	path[0] = '/';
	path[longest] = '\0';
	snprintf(text, sizeof(text), "providers: []\nsocket: %s\n", path);
	load_good(f, text);
	snprintf(text, sizeof(text), "providers: []\nsocket: %sx\n", path);
	assert_int_equal(load(f, text), CONFIG_E_INVALID);
	snprintf(where, sizeof(where), "%s:2:9: socket: has 108 bytes", f->path);
	assert_non_null(strstr(error_text(f), where));
	path[longest] = 'x';
	path[longest + 1] = '\0';
	setenv("LLMKIT_SOCKET", path, 1);
	assert_int_equal(load(f, "providers: []\n"), CONFIG_E_INVALID);
	assert_non_null(strstr(error_text(f), "environment:1:1: socket: has 108 bytes"));
}

/* A format that was left out is not a spelling mistake. */
static void families_left_out_are_known(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = { "openai", "anthropic" };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		char text[64];

		snprintf(text, sizeof(text), "providers: [{name: %s}]\n", names[i]);
		if (!family_is_left_out(str_of(names[i]))) {
			load_good(f, text);
			continue;
		}
		assert_int_equal(load(f, text), CONFIG_E_INVALID);
		assert_non_null(strstr(error_text(f), "is not compiled into this llmkitd"));
	}
}

static void units_are_exact(void **state)
{
	uint64_t a, b;
	int64_t price;
	char text[CONFIG_TEXT_MAX];
	static const char *const durations[] = { "1ms", "999ms", "1s", "90s", "1m", "1h", "1d",
		"0s" };

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(durations); i++) {
		assert_true(config_parse_duration(durations[i], &a));
		config_format_duration(a, text);
		assert_string_equal(text, durations[i]);
	}
	assert_true(config_parse_duration("400d", &a));
	assert_false(config_parse_duration("401d", &a));
	assert_false(config_parse_duration("1000000000000d", &a));
	assert_false(config_parse_duration(" 1s", &a));
	assert_false(config_parse_duration("1 s", &a));
	assert_true(config_parse_rate("1000000000/s", &a, &b));
	assert_false(config_parse_rate("1000000001/s", &a, &b));
	assert_false(config_parse_rate("1/s ", &a, &b));
	assert_int_equal(config_default_burst(100, NSEC_PER_SEC), 100);
	assert_int_equal(config_default_burst(60, 60 * NSEC_PER_SEC), 1);
	assert_int_equal(config_default_burst(61, 60 * NSEC_PER_SEC), 2);
	assert_int_equal(config_default_burst(1, NSEC_PER_DAY), 1);
	assert_true(config_parse_price("0", &price) && price == 0);
	assert_true(config_parse_price("0.001", &price) && price == 1000);
	assert_true(config_parse_price("0.037500", &price) && price == 37500);
	assert_true(config_parse_price("2.5000", &price) && price == 2500000);
	assert_true(config_parse_price("10000.000", &price) && price == INT64_C(10000000000));
	assert_false(config_parse_price("10000.001", &price));
	assert_false(config_parse_price("1.", &price));
	assert_false(config_parse_price(".5", &price));
	assert_false(config_parse_price("1e3", &price));
}

static void read_source(const char *name, char *text, size_t size)
{
	char path[PATHS_MAX];
	FILE *file;
	size_t n;

	snprintf(path, sizeof(path), "%s/%s", getenv("PROJECT_SOURCE"), name);
	file = fopen(path, "re");
	assert_non_null(file);
	n = fread(text, 1, size, file);
	fclose(file);
	assert_in_range(n, 1, size - 1);
	text[n] = '\0';
}

/* The keys each group allows are in its error text: that is where a reader of errors and this test
 * learn them. */
static void the_manual_and_the_example_name_every_key(void **state)
{
	struct fixture *f = *state;
	static const char *const groups[] = { "zz: 1", "access: {zz: 1}",
		"access: {participants: {zz: 1}}", "access: {observers: {zz: 1}}",
		"providers: [{zz: 1}]", "providers: [{key: {zz: 1}}]",
		"providers: [{timeouts: {zz: 1}}]", "providers: [{keep_alive: {zz: 1}}]",
		"providers: [{breaker: {zz: 1}}]", "models: [{zz: 1}]",
		"models: [{price: {zz: 1}}]", "routes: [{zz: 1}]", "routes: [{weights: {zz: 1}}]",
		"routes: [{targets: [{zz: 1}]}]", "limits: [{zz: 1}]", "limits: [{burst: {zz: 1}}]",
		"templates: {zz: 1}", "templates: {per_user: {zz: 1}}", "tables: {zz: 1}",
		"features: {zz: 1}", "log: {zz: 1}" };
	char page[65536], example[16384], wanted[128];
	unsigned keys = 0;

	read_source("docs/man/llmkitd.yaml.5.scd", page, sizeof(page));
	read_source("examples/llmkitd.yaml", example, sizeof(example));
	for (size_t i = 0; i < ARRAY_SIZE(groups); i++) {
		char *key, *rest;

		assert_int_equal(load(f, groups[i]), CONFIG_E_INVALID);
		key = strstr(buffer_head(&f->error), "allowed: ");
		assert_non_null(key);
		*strchr(key, '\n') = '\0'; /* what is missing beside it is told in further lines */
		for (key = strtok_r(key + 9, ", \n", &rest); key;
			key = strtok_r(NULL, ", \n", &rest)) {
			snprintf(wanted, sizeof(wanted), "\n*%s*", key);
			if (!strstr(page, wanted))
				fail_msg("%s of %s is not in the manual", key, groups[i]);
			snprintf(wanted, sizeof(wanted), "%s:", key);
			if (!strstr(example, wanted))
				fail_msg("%s of %s is not in the example", key, groups[i]);
			keys++;
		}
	}
	assert_true(keys > 90);
}

int main(void)
{
#define CASE(name_) cmocka_unit_test_setup_teardown(name_, fixture_new, fixture_free)
	const struct CMUnitTest tests[] = {
		CASE(every_malformed_file_is_explained),
		CASE(all_errors_are_reported_at_once),
		CASE(errors_are_bounded),
		CASE(bytes_after_a_nul_are_not_ignored),
		CASE(lists_are_bounded),
		CASE(files_that_are_none_are_refused),
		CASE(the_example_sets_every_key),
		CASE(the_example_sets_every_rule),
		CASE(empty_files_and_sections_are_defaults),
		CASE(values_other_than_defaults_are_taken),
		CASE(plain_http_is_for_this_machine_or_without_key),
		CASE(environment_alone_makes_providers),
		CASE(sources_have_an_order),
		CASE(printing_and_loading_agree),
		CASE(printing_says_whether_keys_are_found),
		CASE(keys_that_the_daemon_would_refuse_are_errors),
		CASE(a_socket_path_fits_its_address),
		CASE(families_left_out_are_known),
		CASE(units_are_exact),
		CASE(the_manual_and_the_example_name_every_key),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
