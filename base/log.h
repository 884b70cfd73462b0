#pragma once

/*
 * Structured log lines to stderr: "message key=value key=value". With journald on the other
 * end (JOURNAL_STREAM names it) each line begins with its priority, "<3>"; else with the UTC time.
 * A line is one write(2), made only when it does not block: it is dropped and counted when the
 * reader does not read. Identical formats are limited to LOG_BURST lines per second.
 * Thread-safe. Text never holds keys, prompts or answers.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/aux.h"

enum log_level { /* the numbers are syslog's */
	LOG_LEVEL_ERROR = 3,
	LOG_LEVEL_WARNING = 4,
	LOG_LEVEL_NOTICE = 5,
	LOG_LEVEL_INFO = 6,
	LOG_LEVEL_DEBUG = 7,
};

#define LOG_BURST 50

/* Sets the level; lines above it are not written. Default is LOG_LEVEL_WARNING. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* Level by name ("error" ... "debug"); false when there is no such level. */
bool log_level_parse(const char *name, enum log_level *level);
const char *log_level_name(enum log_level level);

/* Lines lost so far: the reader was too slow, or the same line came too often. */
uint64_t log_dropped(void);

void log_write(enum log_level level, const char *format, ...) aux_printf(2, 3);

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_write(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_notice(...) log_write(LOG_LEVEL_NOTICE, __VA_ARGS__)
#define log_info(...) log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)
