#include "base/log.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "base/clock.h"

#define LOG_LINE_MAX 2048
#define LOG_SITES 64 /* formats watched for repetition; a collision only limits sooner */

static _Atomic int log_level_max = LOG_LEVEL_WARNING;
static _Atomic uint64_t log_lost;
static _Atomic uint64_t log_sites[LOG_SITES]; /* second:32 | count:32 */

static const struct {
	enum log_level level;
	const char *name;
} log_levels[] = {
	{ LOG_LEVEL_ERROR, "error" },
	{ LOG_LEVEL_WARNING, "warning" },
	{ LOG_LEVEL_NOTICE, "notice" },
	{ LOG_LEVEL_INFO, "info" },
	{ LOG_LEVEL_DEBUG, "debug" },
};

void log_set_level(enum log_level level)
{
	atomic_store_explicit(&log_level_max, level, memory_order_relaxed);
}

enum log_level log_get_level(void)
{
	return (enum log_level)atomic_load_explicit(&log_level_max, memory_order_relaxed);
}

bool log_level_parse(const char *name, enum log_level *level)
{
	for (size_t i = 0; i < ARRAY_SIZE(log_levels); i++) {
		if (strcmp(name, log_levels[i].name) == 0) {
			*level = log_levels[i].level;
			return true;
		}
	}
	return false;
}

const char *log_level_name(enum log_level level)
{
	for (size_t i = 0; i < ARRAY_SIZE(log_levels); i++)
		if (log_levels[i].level == level)
			return log_levels[i].name;
	return "unknown";
}

uint64_t log_dropped(void)
{
	return atomic_load_explicit(&log_lost, memory_order_relaxed);
}

/* One counter per format string and second; a lost race only miscounts by one. */
static bool log_is_flood(const char *format)
{
	_Atomic uint64_t *site = &log_sites[((uintptr_t)format >> 4) % LOG_SITES];
	uint64_t second = (clock_boottime_ns() / NSEC_PER_SEC) & UINT32_MAX;
	uint64_t old = atomic_load_explicit(site, memory_order_relaxed);
	uint64_t count = (old >> 32) == second ? (old & UINT32_MAX) + 1 : 1;

	atomic_store_explicit(site, second << 32 | count, memory_order_relaxed);
	return count > LOG_BURST;
}

/* The variable names the journal's stream; a child with another stderr inherits it all the same. */
static bool log_is_journal(void)
{
	const char *stream = getenv("JOURNAL_STREAM");
	unsigned long long device, inode;
	struct stat s;

	return stream && sscanf(stream, "%llu:%llu", &device, &inode) == 2 &&
		fstat(STDERR_FILENO, &s) == 0 && s.st_dev == device && s.st_ino == inode;
}

static int log_prefix(char *line, enum log_level level)
{
	struct timespec now = { 0 };
	struct tm utc;
	char stamp[32];

	if (log_is_journal())
		return snprintf(line, LOG_LINE_MAX, "<%d>llmkit: ", level);
	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &utc);
	return snprintf(line, LOG_LINE_MAX, "%s.%03ldZ %s: ", stamp,
		now.tv_nsec / (long)NSEC_PER_MSEC, log_level_name(level));
}

/* One line stays one line, whatever the values held. */
static void log_flatten(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = ' ';
}

/* A pipe with room for one page takes a whole line: the write cannot block. */
static bool log_put(const char *line, size_t size)
{
	struct pollfd out = { .fd = STDERR_FILENO, .events = POLLOUT };

	return poll(&out, 1, 0) == 1 && (out.revents & POLLOUT) &&
		write(STDERR_FILENO, line, size) == (ssize_t)size;
}

void log_write(enum log_level level, const char *format, ...)
{
	int saved = errno, n, m;
	char line[LOG_LINE_MAX + 1];
	va_list args;

	if (level > log_get_level())
		return;
	if (log_is_flood(format)) {
		atomic_fetch_add_explicit(&log_lost, 1, memory_order_relaxed);
		return;
	}
	n = log_prefix(line, level);
	va_start(args, format);
	m = vsnprintf(line + n, LOG_LINE_MAX - (size_t)n, format, args);
	va_end(args);
	if (m < 0)
		line[n] = '\0';
	log_flatten(line + n);
	n = (int)strlen(line);
	line[n] = '\n';
	if (!log_put(line, (size_t)n + 1))
		atomic_fetch_add_explicit(&log_lost, 1, memory_order_relaxed);
	errno = saved;
}
