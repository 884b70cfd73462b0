#pragma once

/*
 * Two kinds of failure. A negative return is an unforeseen error, -errno: the caller forwards
 * it unchanged through error_trace(), and the log shows where it began and where it passed.
 * A positive return is one of the module's own named outcomes (FOO_E_BAR): the caller handles
 * it on the spot and never forwards it. Zero is success.
 */

/* The error begins here: notes file and line at debug level, returns r. */
#define error_origin(r_) error_note((r_), "origin", __func__, __FILE__, __LINE__)
/* The error passes through here: notes and returns r; zero and positive pass silently. */
#define error_trace(r_) error_note((r_), "trace", __func__, __FILE__, __LINE__)

int error_note(int r, const char *kind, const char *function, const char *file, int line);
