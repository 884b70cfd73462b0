#include "tests/unit/cmocka-all.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "daemon/io/secret.h"

#define MANY 300

/* The VmFlags of the mapping that holds this address. */
static void flags_of(const void *at, char *out, size_t size)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	unsigned long begin, end;
	bool here = false;
	char line[512];

	out[0] = '\0';
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &begin, &end) == 2)
			here = (unsigned long)at >= begin && (unsigned long)at < end;
		else if (here && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(out, size, "%s", line);
	}
	fclose(f);
}

static void it_is_left_out_of_core_files(void **state)
{
	static const size_t sizes[] = { 0, 1, 400, 1024, 1025, 10000, 100000 };
	char flags[512];

	(void)state;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char *secret = secret_new(sizes[i]);

		assert_non_null(secret);
		memset(secret, 'x', sizes[i]);
		flags_of(secret, flags, sizeof(flags));
		assert_non_null(strstr(flags, " dd"));
		assert_non_null(strstr(flags, " wf"));
		assert_null(secret_free(secret, sizes[i]));
	}
	assert_null(secret_free(NULL, 7));
}

static void many_are_apart_and_used_again(void **state)
{
	char *secrets[MANY], *again;

	(void)state;
	for (int i = 0; i < MANY; i++) {
		secrets[i] = secret_new(1024);
		assert_non_null(secrets[i]);
		memset(secrets[i], i, 1024);
	}
	for (int i = 0; i < MANY; i++)
		for (int k = 0; k < 1024; k++)
			assert_int_equal((unsigned char)secrets[i][k], i & 0xff);
	for (int i = 0; i < MANY; i++)
		secret_free(secrets[i], 1024);
	again = secret_new(10);
	assert_ptr_equal(again, secrets[MANY - 1]);
	/* But for the list of unused ones, nothing is left in it. */
	for (int k = (int)sizeof(void *); k < 1024; k++)
		assert_int_equal(again[k], 0);
	secret_free(again, 10);
}

static void a_child_finds_nothing(void **state)
{
	char *secret = secret_new(100);
	int status;
	pid_t pid;

	(void)state;
	memset(secret, 'k', 100);
	pid = fork();
	if (pid == 0)
		_exit(memchr(secret, 'k', 100) ? 1 : 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_int_equal(secret[50], 'k');
	secret_free(secret, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_left_out_of_core_files),
		cmocka_unit_test(many_are_apart_and_used_again),
		cmocka_unit_test(a_child_finds_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
