#include "daemon/config/keys.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include "base/log.h"
#include "daemon/config/keys_source.h"

#define CANARY "sk-canary-0123456789"
/* Of whatever format there is. */
#ifdef FORMAT_OPENAI
#define FAMILY "openai"
#define HEADER "Authorization: Bearer "
#else
#define FAMILY "anthropic"
#define HEADER "x-api-key: "
#endif

struct fixture {
	char folder[64], file[96];
	struct config *c;
	struct keys *k;
	struct buffer head;
};

static int fixture_new(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	assert_non_null(f);
	unsetenv("CREDENTIALS_DIRECTORY");
	snprintf(f->folder, sizeof(f->folder), "/tmp/test-keys-XXXXXX");
	assert_non_null(mkdtemp(f->folder));
	snprintf(f->file, sizeof(f->file), "%s/key", f->folder);
	*state = f;
	return 0;
}

static int fixture_free(void **state)
{
	struct fixture *f = *state;

	unlink(f->file);
	rmdir(f->folder);
	keys_free(f->k);
	config_free(f->c);
	buffer_deinit(&f->head);
	free(f);
	return 0;
}

static void put_key(struct fixture *f, const void *key, size_t length, mode_t mode)
{
	int fd;

	unlink(f->file);
	fd = open(f->file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, key, length), length);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

/* Configures the list of providers. */
static void configure(struct fixture *f, const char *providers)
{
	struct buffer error = BUFFER_NULL;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "%s/c.yaml", f->folder);
	file = fopen(path, "we");
	assert_non_null(file);
	fprintf(file, "providers: [%s]\n", providers);
	fclose(file);
	f->c = config_free(f->c);
	assert_int_equal(config_load(&f->c, path, &error), 0);
	unlink(path);
	buffer_deinit(&error);
}

/* One provider with its key in the file, which comes after config_load(): that would refuse a bad
 * one before keys_load() does. */
static int load_file(struct fixture *f)
{
	char text[192], aside[128];
	bool there;

	snprintf(aside, sizeof(aside), "%s/aside", f->folder);
	there = rename(f->file, aside) == 0;
	snprintf(
		text, sizeof(text), "{name: openai, family: " FAMILY ", key: {file: %s}}", f->file);
	configure(f, text);
	if (there)
		assert_int_equal(rename(aside, f->file), 0);
	f->k = keys_free(f->k);
	return keys_load(&f->k, f->c, NULL);
}

static const char *header(struct fixture *f, unsigned provider)
{
	buffer_reset(&f->head, 0);
	assert_int_equal(keys_append_header(f->k, provider, &f->head), 0);
	assert_int_equal(buffer_append(&f->head, "", 1), 0);
	return buffer_head(&f->head);
}

/* Runs and returns what it logged. */
static char *logged(int (*run)(struct fixture *f), struct fixture *f, int *result)
{
	char *text = calloc(1, 16384);
	int saved = dup(STDERR_FILENO), pipes[2];
	ssize_t n;

	assert_non_null(text);
	assert_int_equal(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
	assert_true(dup2(pipes[1], STDERR_FILENO) >= 0);
	log_set_level(LOG_LEVEL_INFO);
	*result = run(f);
	log_set_level(LOG_LEVEL_WARNING);
	assert_true(dup2(saved, STDERR_FILENO) >= 0);
	close(saved);
	close(pipes[1]);
	n = read(pipes[0], text, 16383);
	assert_true(n >= 0 || errno == EAGAIN);
	close(pipes[0]);
	return text;
}

static void a_file_gives_its_line(void **state)
{
	struct fixture *f = *state;
	static const char *const endings[] = { "", "\n", "\r\n" };
	char text[64];

	for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
		int n = snprintf(text, sizeof(text), CANARY "%s", endings[i]);

		put_key(f, text, (size_t)n, i ? 0600 : 0400);
		assert_int_equal(load_file(f), 0);
		assert_true(keys_has(f->k, 0));
		assert_false(keys_has(f->k, 1));
		assert_string_equal(header(f, 0), HEADER CANARY "\r\n");
	}
}

static void a_file_others_can_read_is_refused(void **state)
{
	struct fixture *f = *state;
	static const mode_t modes[] = { 0640, 0604, 0620, 0610, 0666, 0601 };

	for (size_t i = 0; i < ARRAY_SIZE(modes); i++) {
		char *text;
		int r;

		put_key(f, CANARY, strlen(CANARY), modes[i]);
		text = logged(load_file, f, &r);
		assert_int_equal(r, -EACCES);
		assert_null(f->k);
		assert_non_null(strstr(text, "chmod 600"));
		assert_null(strstr(text, "canary"));
		free(text);
	}
}

static void a_file_of_somebody_else_is_refused(void **state)
{
	struct fixture *f = *state;
	char *text;
	int r;

	if (geteuid() != 0)
		skip();
	put_key(f, CANARY, strlen(CANARY), 0600);
	assert_int_equal(chown(f->file, 4711, 4711), 0);
	text = logged(load_file, f, &r);
	assert_int_equal(r, -EACCES);
	assert_non_null(strstr(text, "belongs to user 4711"));
	free(text);
}

static void only_regular_files_are_read(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(mkfifo(f->file, 0600), 0);
	assert_int_equal(load_file(f), -EINVAL);
	unlink(f->file);
	assert_int_equal(mkdir(f->file, 0700), 0);
	assert_int_equal(load_file(f), -EINVAL);
	rmdir(f->file);
}

/* What would end the header line, or the header. */
static void keys_with_other_characters_are_refused(void **state)
{
	struct fixture *f = *state;
	static const struct {
		const char *key;
		size_t length;
	} bad[] = {
		{ "", 0 },
		{ "\n", 1 },
		{ "\r\n\r\n", 4 },
		{ "canary\r\nX-Evil: 1", 17 },
		{ "canary\nb\n", 9 },
		{ "a canary", 8 },
		{ "canary\tb", 8 },
		{ "canary\0b", 8 },
		{ "canary\xc3\xa9", 8 },
		{ "canary\x7f", 7 },
		{ " canary", 7 },
		{ "canary ", 7 },
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		char *text;
		int r;

		put_key(f, bad[i].key, bad[i].length, 0600);
		text = logged(load_file, f, &r);
		if (r != -EINVAL)
			fail_msg("row %zu: %d", i, r);
		assert_non_null(strstr(text, "cannot be used"));
		assert_null(strstr(text, "canary"));
		free(text);
	}
}

static void a_key_has_4096_characters_at_most(void **state)
{
	struct fixture *f = *state;
	char key[8192];

	memset(key, 'k', sizeof(key));
	put_key(f, key, 4096, 0600);
	assert_int_equal(load_file(f), 0);
	assert_int_equal(strlen(header(f, 0)), strlen(HEADER "\r\n") + 4096);
	key[4096] = '\n';
	put_key(f, key, 4097, 0600);
	assert_int_equal(load_file(f), 0);
	key[4096] = 'k';
	put_key(f, key, 4097, 0600);
	assert_int_equal(load_file(f), -EINVAL);
	put_key(f, key, sizeof(key), 0600);
	assert_int_equal(load_file(f), -EINVAL);
	key[sizeof(key) - 1] = '\0';
	configure(f, "{name: openai, family: " FAMILY ", key: {env: LLMKIT_TEST_LONG}}");
	setenv("LLMKIT_TEST_LONG", key, 1);
	assert_int_equal(keys_load(&f->k, f->c, NULL), -EINVAL);
	assert_null(getenv("LLMKIT_TEST_LONG"));
}

static void a_missing_key_disables_the_provider_alone(void **state)
{
	struct fixture *f = *state;
	char *text;
	int r;

	text = logged(load_file, f, &r);
	assert_int_equal(r, 0);
	assert_false(keys_has(f->k, 0));
	assert_non_null(strstr(text, "warning"));
	assert_non_null(strstr(text, "provider openai has no key and cannot be used"));
	assert_int_equal(keys_append_header(f->k, 0, &f->head), -ENOKEY);
	assert_int_equal(keys_append_header(f->k, 1, &f->head), -EINVAL);
	assert_int_equal(buffer_length(&f->head), 0);
	free(text);
}

static int load_configured(struct fixture *f)
{
	f->k = keys_free(f->k);
	return keys_load(&f->k, f->c, NULL);
}

static void local_servers_need_no_key(void **state)
{
	struct fixture *f = *state;
	char *text;
	int r;

	if (!family_find(str_of("ollama")))
		skip();
	setenv("LLMKIT_TEST_LOCAL", CANARY, 1);
	configure(f, "{name: ollama}, {name: vllm, key: {env: LLMKIT_TEST_LOCAL}}");
	text = logged(load_configured, f, &r);
	assert_int_equal(r, 0);
	assert_null(strstr(text, "has no key"));
	assert_string_equal(header(f, 0), "");
	assert_string_equal(header(f, 1), "Authorization: Bearer " CANARY "\r\n");
	free(text);
}

static void the_family_decides_the_header(void **state)
{
	struct fixture *f = *state;

	if (!family_find(str_of("anthropic")))
		skip();
	setenv("LLMKIT_TEST_A", CANARY, 1);
	configure(f, "{name: anthropic, key: {env: LLMKIT_TEST_A}}");
	assert_int_equal(load_configured(f), 0);
	assert_string_equal(header(f, 0), "x-api-key: " CANARY "\r\n");
}

/* Whether the bytes are in a file of /proc/self. */
static bool file_holds(const char *path, const char *text)
{
	char *data = malloc(1024 * 1024);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t n = 0;
	ssize_t got;
	bool found;

	assert_true(data && fd >= 0);
	while ((got = read(fd, data + n, 1024 * 1024 - n)) > 0)
		n += (size_t)got;
	close(fd);
	found = memmem(data, n, text, strlen(text));
	free(data);
	return found;
}

/* The kernel shows the memory the process was started with, so the child must be started with the
 * key: this program again, with the variable, and nothing but this check. */
static int child_with_key_in_environment(void)
{
	struct fixture *f;
	void *state;
	int r = 1;

	fixture_new(&state);
	f = state;
	if (!file_holds("/proc/self/environ", CANARY))
		r = 2;
	configure(f, "{name: openai, family: " FAMILY ", key: {env: LLMKIT_TEST_CHILD}}");
	if (keys_load(&f->k, f->c, NULL) == 0 && keys_has(f->k, 0) && r == 1)
		r = file_holds("/proc/self/environ", CANARY) || getenv("LLMKIT_TEST_CHILD") ? 3 : 0;
	fixture_free(&state);
	return r;
}

static int wait_for(pid_t pid)
{
	int status;

	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void the_environment_is_wiped(void **state)
{
	char *const arguments[] = { (char *)"test-keys", (char *)"child", NULL };
	char *const environment[] = { (char *)"LLMKIT_TEST_CHILD=" CANARY, (char *)"OTHER=1",
		NULL };
	pid_t pid = fork();
	int status;

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(30);
		execve("/proc/self/exe", arguments, environment);
		_exit(9);
	}
	status = wait_for(pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void one_variable_serves_several_providers(void **state)
{
	struct fixture *f = *state;

	setenv("LLMKIT_TEST_SHARED", CANARY "\n", 1);
	configure(f,
		"{name: openai, family: " FAMILY ", key: {env: LLMKIT_TEST_SHARED}}, "
		"{name: groq, family: " FAMILY ", key: {env: LLMKIT_TEST_SHARED}}");
	assert_int_equal(load_configured(f), 0);
	assert_string_equal(header(f, 0), HEADER CANARY "\r\n");
	assert_string_equal(header(f, 1), HEADER CANARY "\r\n");
}

static void a_reload_keeps_what_came_from_the_environment(void **state)
{
	struct fixture *f = *state;
	struct keys *next = NULL;

	setenv("LLMKIT_TEST_KEPT", CANARY, 1);
	configure(f, "{name: openai, family: " FAMILY ", key: {env: LLMKIT_TEST_KEPT}}");
	assert_int_equal(load_configured(f), 0);
	assert_null(getenv("LLMKIT_TEST_KEPT"));
	assert_true(keys_source_env_present("LLMKIT_TEST_KEPT"));
	/* In another place of the list, under another name. */
	configure(f,
		"{name: other, family: " FAMILY ", key: {env: LLMKIT_TEST_UNSET}}, "
		"{name: mine, family: " FAMILY ", key: {env: LLMKIT_TEST_KEPT}}");
	assert_int_equal(keys_load(&next, f->c, f->k), 0);
	keys_free(f->k);
	f->k = next;
	assert_false(keys_has(f->k, 0));
	assert_string_equal(header(f, 1), HEADER CANARY "\r\n");
	/* A new value, if something could set one, comes first. */
	setenv("LLMKIT_TEST_KEPT", "sk-new", 1);
	assert_int_equal(keys_load(&next, f->c, f->k), 0);
	keys_free(f->k);
	f->k = next;
	assert_string_equal(header(f, 1), HEADER "sk-new\r\n");
}

static void credentials_are_read_from_their_folder(void **state)
{
	struct fixture *f = *state;
	char *text;
	int r;

	configure(f, "{name: openai, family: " FAMILY ", key: {credential: key}}");
	text = logged(load_configured, f, &r);
	assert_int_equal(r, 0);
	assert_false(keys_has(f->k, 0));
	assert_non_null(strstr(text, "CREDENTIALS_DIRECTORY is not set"));
	free(text);
	setenv("CREDENTIALS_DIRECTORY", f->folder, 1);
	/* An ACL for the service shows as group bits. */
	put_key(f, CANARY "\n", strlen(CANARY) + 1, 0440);
	assert_int_equal(load_configured(f), 0);
	assert_string_equal(header(f, 0), HEADER CANARY "\r\n");
	put_key(f, CANARY, strlen(CANARY), 0444);
	assert_int_equal(load_configured(f), -EACCES);
}

struct mapping {
	char *begin, *end;
	bool dontdump, wipeonfork;
};

/* The mapping of this process that holds the key: found by its content, among small read-only ones
 * that are left out of core files. */
static struct mapping find_mapping(void)
{
	struct mapping found = { 0 }, at = { 0 };
	FILE *file = fopen("/proc/self/smaps", "re");
	unsigned long begin, end;
	bool anonymous = false;
	char line[512];

	assert_non_null(file);
	while (fgets(line, sizeof(line), file)) {
		/* With a name it is a file, the stack or the kernel's. */
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2) {
			anonymous = !strpbrk(line, "/[");
			at = (struct mapping){ (char *)begin, (char *)end, false, false };
		}
		if (strncmp(line, "VmFlags:", 8) != 0)
			continue;
		at.dontdump = strstr(line, " dd");
		at.wipeonfork = strstr(line, " wf");
		if (anonymous && at.dontdump && strstr(line, " rd") && !strstr(line, " wr") &&
			at.end - at.begin < 65536 &&
			memmem(at.begin, (size_t)(at.end - at.begin), CANARY, strlen(CANARY)))
			found = at;
	}
	fclose(file);
	return found;
}

/* Whether a mapping without any access begins or ends at the address. An unmapped address would
 * fault as well, until something is mapped there. */
static bool is_guarded(const char *at)
{
	FILE *file = fopen("/proc/self/maps", "re");
	unsigned long begin, end;
	char line[512], access[8];
	bool found = false;

	assert_non_null(file);
	while (fgets(line, sizeof(line), file))
		found |= sscanf(line, "%lx-%lx %7s", &begin, &end, access) == 3 &&
			strcmp(access, "---p") == 0 && ((char *)begin == at || (char *)end == at);
	fclose(file);
	return found;
}

/* Reads one byte in a child; whether that killed it. The byte is the parent's: children do not
 * have the pages. */
static bool read_faults(const char *at)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit none = { 0, 0 };

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGSEGV, SIG_DFL);
		(void)*(const volatile char *)at;
		_exit(0);
	}
	status = wait_for(pid);
	return WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV;
}

static void the_page_is_guarded_and_left_out_of_cores(void **state)
{
	struct fixture *f = *state;
	struct mapping m;

	put_key(f, CANARY, strlen(CANARY), 0600);
	assert_int_equal(load_file(f), 0);
	m = find_mapping();
	assert_non_null(m.begin);
	assert_true(m.dontdump);
	assert_true(m.wipeonfork);
	assert_true(is_guarded(m.begin));
	assert_true(is_guarded(m.end));
	assert_true(read_faults(m.end));
	assert_true(read_faults(m.begin - 1));
	assert_false(read_faults(m.begin));
}

static void children_do_not_have_keys(void **state)
{
	struct fixture *f = *state;
	int status;
	pid_t pid;

	put_key(f, CANARY, strlen(CANARY), 0600);
	assert_int_equal(load_file(f), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(find_mapping().begin ? 1 : 0);
	status = wait_for(pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_non_null(find_mapping().begin);
}

static void keys_are_masked_in_what_strangers_write(void **state)
{
	struct fixture *f = *state;
	char whole[] = "you sent " CANARY ", and " CANARY "!";
	char cut[] = "you sent " CANARY;
	char other[] = "nothing of that kind";

	put_key(f, CANARY, strlen(CANARY), 0600);
	assert_int_equal(load_file(f), 0);
	keys_mask(f->k, 0, whole);
	assert_null(strstr(whole, CANARY));
	assert_null(strstr(whole, &CANARY[strlen(CANARY) - 8]));
	assert_int_equal(strlen(whole), strlen("you sent , and !") + 2 * strlen(CANARY));
	assert_string_equal(whole + strlen(whole) - 1, "!");
	cut[strlen(cut) - 3] = '\0';
	keys_mask(f->k, 0, cut);
	assert_int_equal(strspn(cut + strlen("you sent "), "*"), strlen(CANARY) - 3);
	keys_mask(f->k, 0, other);
	keys_mask(f->k, 7, other);
	assert_string_equal(other, "nothing of that kind");
}

static void hardening_ends_core_files(void **state)
{
	pid_t pid = fork();
	int status;

	(void)state;
	assert_true(pid >= 0);
	if (pid == 0) {
		struct rlimit core = { 1, 1 };

		keys_harden_process();
		getrlimit(RLIMIT_CORE, &core);
		if (core.rlim_cur || core.rlim_max)
			_exit(1);
#ifndef SANITIZED
		if (prctl(PR_GET_DUMPABLE) != 0)
			_exit(2);
#endif
		_exit(0);
	}
	status = wait_for(pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(int argc, char **argv)
{
#define CASE(name_) cmocka_unit_test_setup_teardown(name_, fixture_new, fixture_free)
	const struct CMUnitTest tests[] = {
		CASE(a_file_gives_its_line),
		CASE(a_file_others_can_read_is_refused),
		CASE(a_file_of_somebody_else_is_refused),
		CASE(only_regular_files_are_read),
		CASE(keys_with_other_characters_are_refused),
		CASE(a_key_has_4096_characters_at_most),
		CASE(a_missing_key_disables_the_provider_alone),
		CASE(local_servers_need_no_key),
		CASE(the_family_decides_the_header),
		CASE(the_environment_is_wiped),
		CASE(one_variable_serves_several_providers),
		CASE(a_reload_keeps_what_came_from_the_environment),
		CASE(credentials_are_read_from_their_folder),
		CASE(the_page_is_guarded_and_left_out_of_cores),
		CASE(children_do_not_have_keys),
		CASE(keys_are_masked_in_what_strangers_write),
		CASE(hardening_ends_core_files),
	};

	if (argc == 2 && strcmp(argv[1], "child") == 0)
		return child_with_key_in_environment();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
