#pragma once

/*
 * What one answer shall do, as "key=value; key=value" text. It comes from three places, the
 * later ones overriding the earlier key by key: the first matching rule of the script file, the
 * request header x-fake, and the query part of the model name ("fake?chunks=50&delay_ms=20").
 * Values are percent-decoded. script_help() lists the keys.
 */

#include "base/buffer.h"
#include <stdio.h>

#define SCRIPT_ABSENT (-1)

enum script_cut { CUT_FIN, CUT_RST };
enum script_malformed {
	MALFORMED_NOT,
	MALFORMED_JSON,
	MALFORMED_UTF8,
	MALFORMED_SSE,
	MALFORMED_NUL,
};
enum script_usage { USAGE_NEVER, USAGE_END, USAGE_EVERY };
enum script_length { LENGTH_RIGHT, LENGTH_SHORT, LENGTH_LONG, LENGTH_NONE };

/* All numbers are int64_t so that one table can set them; SCRIPT_ABSENT is "not given". */
struct script {
	int64_t first_ms, ttft_ms, delay_ms;
	int64_t chunks, chunk_bytes, big, reasoning, tools, echo;
	int64_t input_tokens, output_tokens;
	int64_t status, times;
	int64_t cut, cut_bytes, stall_after, no_terminal, inband_error, malformed;
	int64_t slow_headers_ms, split, split_us, continue100;
	int64_t usage, http_close, length, chunked_trailers, gzip, comments, crlf;
	int64_t junk_after, stale, close_on_reuse, tls_close;
	char finish[32], retry_after[64], retry_after_ms[32];
	char error_type[64], error_code[64], error_message[192], redirect[256], headers[512];
};

void script_init(struct script *s);

/* Applies the text on top of s. 0, or -EINVAL with the reason in error (never NULL). */
int script_apply(struct script *s, struct str text, char *error, size_t error_size);

/* One line per key. */
void script_help(FILE *f);

/* The rules of a script file: lines "SUBSTRING: key=value; ...", '#' begins a comment line. */
struct script_rules {
	struct script_rule *rules;
	size_t count;
};

void script_rules_deinit(struct script_rules *rules);

/* Replaces the rules; on -EINVAL they stay as they were and error has line and reason. */
int script_rules_parse(struct script_rules *rules, struct str text, char *error, size_t error_size);

/* The text of the first rule whose substring is in path or model ("*" is in all); empty: none. */
struct str script_rules_find(const struct script_rules *rules, struct str path, struct str model);
