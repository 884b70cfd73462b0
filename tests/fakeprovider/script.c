#include "tests/fakeprovider/script.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_NUMBER, KIND_STATUS, KIND_TEXT, KIND_CHOICE };

struct key {
	const char *name;
	enum kind kind;
	size_t offset, size;
	const char *const *choices; /* the index is the value */
	const char *help;
};

static const char *const cuts[] = { "fin", "rst", NULL };
static const char *const malformeds[] = { "no", "json", "utf8", "sse", "nul", NULL };
static const char *const usages[] = { "0", "1", "every", NULL };
static const char *const lengths[] = { "right", "wrong_short", "wrong_long", "none", NULL };
static const char *const closes[] = { "keep", "close", NULL };

#define AT(field_) offsetof(struct script, field_), sizeof(((struct script *)NULL)->field_)
#define NUMBER(name_, help_) \
	{ \
#name_, KIND_NUMBER, AT(name_), NULL, help_ \
	}
#define STATUS(name_, help_) \
	{ \
#name_, KIND_STATUS, AT(name_), NULL, help_ \
	}
#define TEXT(name_, help_) \
	{ \
#name_, KIND_TEXT, AT(name_), NULL, help_ \
	}
#define CHOICE(name_, field_, choices_, help_) \
	{ \
		name_, KIND_CHOICE, AT(field_), choices_, help_ \
	}

static const struct key keys[] = {
	NUMBER(chunks, "number of text chunks (default: the words of the answer)"),
	NUMBER(delay_ms, "between chunks"),
	NUMBER(first_ms, "before the headers"),
	NUMBER(ttft_ms, "between the headers and the first chunk"),
	NUMBER(chunk_bytes, "text bytes per chunk, instead of one word"),
	NUMBER(big, "text of this many bytes in all"),
	NUMBER(echo, "1: the answer is the prompt"),
	NUMBER(reasoning, "this many chunks of reasoning first"),
	NUMBER(tools, "this many tool calls, in fragments; without chunks= there is no text"),
	TEXT(finish, "finish reason, in OpenAI's names or verbatim"),
	CHOICE("usage", usage, usages, "0 none, 1 at the end, every: on every chunk"),
	NUMBER(input_tokens,
		"what the usage says of them, instead of a quarter of the body's bytes"),
	NUMBER(output_tokens, "the same, instead of one per chunk"),
	STATUS(status, "HTTP status; 300 and above answer the provider's error body"),
	TEXT(error_type, "type in the error body"),
	TEXT(error_code, "code in the error body"),
	TEXT(error_message, "message in the error body"),
	TEXT(retry_after, "the header Retry-After, verbatim"),
	TEXT(retry_after_ms, "the header retry-after-ms, verbatim"),
	TEXT(headers, "more headers: NAME: VALUE, with | between two"),
	TEXT(redirect, "307 to this address"),
	NUMBER(times, "the script holds for this many requests, later ones are answered plainly"),
	CHOICE("cut", cut, cuts, "how cut_bytes ends the connection: fin or rst"),
	NUMBER(cut_bytes, "end the connection after this many body bytes"),
	NUMBER(stall_after, "nothing more after this many chunks"),
	NUMBER(no_terminal, "1: no finish reason, no [DONE], no message_stop"),
	NUMBER(inband_error, "an error event after this many chunks ends the stream"),
	CHOICE("malformed", malformed, malformeds,
		"json, utf8, sse or nul: a bad event after 1 chunk"),
	NUMBER(slow_headers_ms, "headers byte by byte, this long between two"),
	NUMBER(split, "body in pieces of this many bytes, each its own write and TLS record"),
	NUMBER(split_us, "pause between these pieces"),
	NUMBER(continue100, "this many 1xx answers before the answer"),
	CHOICE("http", http_close, closes, "close: Connection: close"),
	CHOICE("length", length, lengths,
		"wrong_short, wrong_long, none (ends with the connection)"),
	NUMBER(chunked_trailers, "1: chunked, with trailer fields"),
	NUMBER(gzip, "1: Content-Encoding: gzip, asked or not"),
	NUMBER(comments, "this many comment events before each chunk"),
	NUMBER(crlf, "1: CRLF ends the lines of events"),
	NUMBER(junk_after, "1: bytes that belong to no answer follow it"),
	NUMBER(stale, "1: close right after the answer, without saying so"),
	NUMBER(close_on_reuse, "1: close when the next request arrives on the connection"),
	NUMBER(tls_close, "1: close after the answer without close_notify"),
};

void script_init(struct script *s)
{
	memset(s, 0, sizeof(*s));
	s->chunks = s->cut_bytes = s->stall_after = s->inband_error = SCRIPT_ABSENT;
	s->usage = s->input_tokens = s->output_tokens = SCRIPT_ABSENT;
}

void script_help(FILE *f)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		fprintf(f, "  %-17s %s\n", keys[i].name, keys[i].help);
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)tolower((unsigned char)c);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Percent-decodes into out; false when it does not fit. */
static bool decode(struct str in, char *out, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < in.length; i++) {
		int high = -1, low = -1;

		if (n + 1 >= size)
			return false;
		if (in.data[i] == '%' && i + 2 < in.length) {
			high = hex_value(in.data[i + 1]);
			low = hex_value(in.data[i + 2]);
		}
		if (high >= 0 && low >= 0) {
			out[n++] = (char)(high * 16 + low);
			i += 2;
		} else {
			out[n++] = in.data[i];
		}
	}
	out[n] = '\0';
	return true;
}

static bool parse_number(const char *text, int64_t *value)
{
	char *end = NULL;
	long long v;

	if (!isdigit((unsigned char)text[0]))
		return false;
	errno = 0;
	v = strtoll(text, &end, 10);
	if (errno || *end || v > 1000000000)
		return false;
	*value = v;
	return true;
}

static bool parse_choice(const struct key *key, const char *text, int64_t *value)
{
	for (int64_t i = 0; key->choices[i]; i++) {
		if (strcmp(key->choices[i], text) == 0) {
			*value = i;
			return true;
		}
	}
	return false;
}

static bool set(struct script *s, const struct key *key, struct str value)
{
	void *field = (char *)s + key->offset;
	char text[64];

	if (key->kind == KIND_TEXT)
		return decode(value, field, key->size);
	if (!decode(value, text, sizeof(text)))
		return false;
	if (key->kind == KIND_CHOICE)
		return parse_choice(key, text, field);
	return parse_number(text, field) &&
		(key->kind == KIND_NUMBER || (s->status >= 200 && s->status <= 999));
}

static const struct key *find_key(struct str name)
{
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
		if (str_is(name, keys[i].name))
			return &keys[i];
	return NULL;
}

static struct str trim(struct str s)
{
	while (s.length && isspace((unsigned char)s.data[0])) {
		s.data++;
		s.length--;
	}
	while (s.length && isspace((unsigned char)s.data[s.length - 1]))
		s.length--;
	return s;
}

/* Cuts the text up to any of the separators off the front of rest. */
static struct str cut_at(struct str *rest, const char *separators)
{
	size_t n = 0;
	struct str head;

	while (n < rest->length && !strchr(separators, rest->data[n]))
		n++;
	head = str_make(rest->data, n);
	n = n < rest->length ? n + 1 : n;
	*rest = str_make(rest->data + n, rest->length - n);
	return head;
}

int script_apply(struct script *s, struct str text, char *error, size_t error_size)
{
	while (text.length) {
		struct str value = trim(cut_at(&text, ";&")), name;
		const struct key *key;

		if (!value.length)
			continue;
		name = trim(cut_at(&value, "="));
		value = trim(value);
		key = find_key(name);
		if (key && set(s, key, value))
			continue;
		snprintf(error, error_size,
			"fakeprovider: %s \"%.*s\" (value \"%.*s\"), see --help",
			key ? "bad value for" : "no such script key", STR_ARG(name),
			STR_ARG(value));
		return -EINVAL;
	}
	return 0;
}

struct script_rule {
	char *match, *text;
};

void script_rules_deinit(struct script_rules *rules)
{
	for (size_t i = 0; i < rules->count; i++) {
		free(rules->rules[i].match);
		free(rules->rules[i].text);
	}
	free(rules->rules);
	*rules = (struct script_rules){ 0 };
}

static int add_rule(struct script_rules *rules, struct str line, char *error, size_t error_size)
{
	struct script_rule *grown;
	struct script s;
	struct str match = trim(cut_at(&line, ":"));
	int r;

	script_init(&s);
	r = script_apply(&s, line, error, error_size);
	if (r < 0)
		return r;
	grown = realloc(rules->rules, (rules->count + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	rules->rules = grown;
	grown[rules->count].match = str_dup(match);
	grown[rules->count].text = str_dup(trim(line));
	rules->count++;
	return 0;
}

int script_rules_parse(struct script_rules *rules, struct str text, char *error, size_t error_size)
{
	aux_cleanup(script_rules_deinit) struct script_rules parsed = { 0 };

	for (int number = 1; text.length; number++) {
		struct str line = trim(cut_at(&text, "\n"));
		char why[256] = "out of memory";
		int r;

		if (!line.length || line.data[0] == '#')
			continue;
		r = add_rule(&parsed, line, why, sizeof(why));
		if (r < 0) {
			snprintf(error, error_size, "line %d: %s", number, why);
			return r;
		}
	}
	script_rules_deinit(rules);
	*rules = parsed;
	parsed = (struct script_rules){ 0 };
	return 0;
}

static bool contains(struct str s, const char *part)
{
	return s.length && memmem(s.data, s.length, part, strlen(part));
}

struct str script_rules_find(const struct script_rules *rules, struct str path, struct str model)
{
	for (size_t i = 0; i < rules->count; i++) {
		const struct script_rule *rule = &rules->rules[i];

		if (strcmp(rule->match, "*") == 0 || contains(path, rule->match) ||
			contains(model, rule->match))
			return str_of(rule->text);
	}
	return STR_NULL;
}
