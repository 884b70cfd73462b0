#include "base/paths.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <stdlib.h>

static int clean(void **state)
{
	(void)state;
	unsetenv("LLMKIT_SOCKET");
	unsetenv("XDG_RUNTIME_DIR");
	return 0;
}

static void expect(const char *explicit_path, const char *wanted)
{
	char path[PATHS_MAX];

	assert_int_equal(paths_socket(explicit_path, path, sizeof(path)), 0);
	assert_string_equal(path, wanted);
}

static void sources_have_an_order(void **state)
{
	(void)state;
	expect(NULL, "/run/llmkit/llmkit.sock");
	setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
	expect(NULL, "/run/user/7/llmkit/llmkit.sock");
	setenv("LLMKIT_SOCKET", "/x.sock", 1);
	expect(NULL, "/x.sock");
	expect("/y.sock", "/y.sock");
}

static void empty_variables_are_none(void **state)
{
	(void)state;
	setenv("XDG_RUNTIME_DIR", "", 1);
	setenv("LLMKIT_SOCKET", "", 1);
	expect(NULL, "/run/llmkit/llmkit.sock");
}

static void the_region_is_beside_the_socket(void **state)
{
	char path[32];

	(void)state;
	assert_int_equal(paths_region("/a/b.sock", path, sizeof(path)), 0);
	assert_string_equal(path, "/a/b.control");
	assert_int_equal(paths_region("/a/b", path, sizeof(path)), 0);
	assert_string_equal(path, "/a/b.control");
}

static void what_does_not_fit_is_refused(void **state)
{
	char path[12];

	(void)state;
	assert_int_equal(paths_socket("/1234567890", path, sizeof(path)), 0);
	assert_int_equal(paths_socket("/12345678901", path, sizeof(path)), -ENAMETOOLONG);
	assert_int_equal(paths_region("/12.sock", path, sizeof(path)), 0);
	assert_int_equal(paths_region("/1234.sock", path, sizeof(path)), -ENAMETOOLONG);
	assert_int_equal(paths_region("/1234567890123", path, sizeof(path)), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(sources_have_an_order, clean),
		cmocka_unit_test_setup(empty_variables_are_none, clean),
		cmocka_unit_test_setup(the_region_is_beside_the_socket, clean),
		cmocka_unit_test_setup(what_does_not_fit_is_refused, clean),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
