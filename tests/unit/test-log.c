#include "base/log.h"
#include "tests/unit/cmocka-all.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct fixture {
	int saved, pipe[2];
	char text[8192];
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	if (!f || pipe2(f->pipe, O_CLOEXEC) < 0)
		return -1;
	f->saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
	unsetenv("JOURNAL_STREAM");
	log_set_level(LOG_LEVEL_INFO);
	*state = f;
	return fcntl(f->pipe[0], F_SETFL, O_NONBLOCK);
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	close(f->saved);
	close(f->pipe[0]);
	close(f->pipe[1]);
	free(f);
	return 0;
}

/* stderr is the pipe between begin() and what was said. */
static void begin(struct fixture *f)
{
	dup2(f->pipe[1], STDERR_FILENO);
}

static const char *end(struct fixture *f)
{
	ssize_t n;

	dup2(f->saved, STDERR_FILENO);
	n = read(f->pipe[0], f->text, sizeof(f->text) - 1);
	f->text[n > 0 ? n : 0] = '\0';
	return f->text;
}

static void a_line_has_time_and_level(void **state)
{
	struct fixture *f = *state;
	int year, n = 0;

	begin(f);
	log_notice("hello key=%d", 7);
	end(f);
	assert_int_equal(
		sscanf(f->text, "%d-%*d-%*dT%*d:%*d:%*d.%*dZ notice: hello key=7\n%n", &year, &n),
		1);
	assert_true(year > 2000);
	assert_int_equal(n, strlen(f->text));
}

static void levels_are_obeyed(void **state)
{
	struct fixture *f = *state;
	enum log_level level = LOG_LEVEL_ERROR;

	begin(f);
	log_debug("not this");
	log_set_level(LOG_LEVEL_ERROR);
	log_warning("nor this");
	assert_string_equal(end(f), "");
	assert_true(log_level_parse("debug", &level));
	assert_int_equal(level, LOG_LEVEL_DEBUG);
	assert_false(log_level_parse("loud", &level));
	assert_string_equal(log_level_name(LOG_LEVEL_WARNING), "warning");
}

static void the_journal_gets_priorities(void **state)
{
	struct fixture *f = *state;
	char stream[64];
	struct stat s;

	begin(f);
	assert_int_equal(fstat(STDERR_FILENO, &s), 0);
	snprintf(stream, sizeof(stream), "%llu:%llu", (unsigned long long)s.st_dev,
		(unsigned long long)s.st_ino);
	setenv("JOURNAL_STREAM", stream, 1);
	log_error("broken");
	assert_string_equal(end(f), "<3>llmkit: broken\n");
}

/* A terminal started by a service has the variable of the service. */
static void an_inherited_journal_stream_is_not_ours(void **state)
{
	struct fixture *f = *state;

	setenv("JOURNAL_STREAM", "1:1", 1);
	begin(f);
	log_error("broken");
	assert_null(strchr(end(f), '<'));
	assert_non_null(strstr(f->text, "error: broken\n"));
}

static void a_value_cannot_forge_a_line(void **state)
{
	struct fixture *f = *state;

	begin(f);
	log_error("name=%s",
		"a\nb\r\t\033[31m\x7f"
		"c");
	assert_non_null(strstr(end(f), "name=a b   [31m c\n"));
	assert_ptr_equal(strchr(f->text, '\n'), f->text + strlen(f->text) - 1);
}

static void a_long_line_is_cut(void **state)
{
	struct fixture *f = *state;
	char value[4000];

	memset(value, 'x', sizeof(value) - 1);
	value[sizeof(value) - 1] = '\0';
	begin(f);
	log_error("value=%s", value);
	assert_in_range(strlen(end(f)), 2000, 2049);
	assert_int_equal(f->text[strlen(f->text) - 1], '\n');
}

/* Two seconds may be touched, and other lines may share the counter. */
static void the_same_line_comes_a_few_times_a_second(void **state)
{
	struct fixture *f = *state;
	uint64_t lost = log_dropped();
	unsigned lines = 0;

	begin(f);
	for (int i = 0; i < 3 * LOG_BURST; i++)
		log_info("flood");
	end(f);
	for (const char *at = f->text; (at = strchr(at, '\n')); at++)
		lines++;
	assert_in_range(lines, LOG_BURST - 10, 2 * LOG_BURST);
	assert_int_equal(log_dropped() - lost, 3 * LOG_BURST - lines);
}

/* alarm() would end a write that blocks. */
static void a_reader_that_sleeps_costs_lines_not_time(void **state)
{
	struct fixture *f = *state;
	uint64_t lost = log_dropped();
	char page[4096] = { 0 };

	fcntl(f->pipe[1], F_SETFL, O_NONBLOCK);
	while (write(f->pipe[1], page, sizeof(page)) > 0)
		;
	fcntl(f->pipe[1], F_SETFL, 0);
	alarm(20);
	begin(f);
	errno = 1234;
	log_error("nobody reads");
	assert_int_equal(errno, 1234);
	end(f);
	alarm(0);
	assert_int_equal(log_dropped() - lost, 1);
}

static void a_closed_stderr_is_survived(void **state)
{
	struct fixture *f = *state;
	uint64_t lost = log_dropped();

	close(STDERR_FILENO);
	log_error("into nothing");
	end(f);
	assert_int_equal(log_dropped() - lost, 1);
}

int main(void)
{
#define CASE(fn_) cmocka_unit_test_setup_teardown(fn_, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(a_line_has_time_and_level),
		CASE(levels_are_obeyed),
		CASE(the_journal_gets_priorities),
		CASE(an_inherited_journal_stream_is_not_ours),
		CASE(a_value_cannot_forge_a_line),
		CASE(a_long_line_is_cut),
		CASE(the_same_line_comes_a_few_times_a_second),
		CASE(a_reader_that_sleeps_costs_lines_not_time),
		CASE(a_closed_stderr_is_survived),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
