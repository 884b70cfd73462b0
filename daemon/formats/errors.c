#include "daemon/formats/errors.h"

#include <ctype.h>
#include <strings.h>
#include "base/aux.h"
#include "daemon/formats/value.h"
#include "daemon/formats/format.h"

enum rule_field { RULE_CODE, RULE_TYPE, RULE_MESSAGE, RULE_ANY };

static const struct rule {
	const char *family;
	unsigned http_status;
	enum rule_field field;
	const char *text;
	enum status status;
} rules[] = {
#define ERROR_RULE(family_, http_, field_, text_, status_) \
	{ family_, http_, RULE_##field_, text_, STATUS_##status_ },
#include "daemon/formats/tbl/errors.h"
#undef ERROR_RULE
};

/* Prefixes by which providers' keys are known; a run of characters that begins so is a key. */
static const char *const key_prefixes[] = { "sk-", "sk_", "gsk_", "xai-", "AIza", "pplx-", "nvapi-",
	"csk-", "fw_", "hf_", "tgp_", "key-" };

/* A long run of letters and digits mixed is taken for a key. */
#define KEY_RUN_MIN 20

static bool contains(struct str text, const char *words)
{
	size_t length = strlen(words);

	for (size_t i = 0; i + length <= text.length; i++)
		if (strncasecmp(text.data + i, words, length) == 0)
			return true;
	return false;
}

static bool rule_matches(
	const struct rule *rule, const struct family *family, const struct errors_report *report)
{
	if (rule->family && strcmp(rule->family, family->name) != 0)
		return false;
	if (rule->http_status && rule->http_status != report->http_status)
		return false;
	switch (rule->field) {
	case RULE_CODE:
		return str_is(report->code, rule->text);
	case RULE_TYPE:
		return str_is(report->type, rule->text);
	case RULE_MESSAGE:
		return contains(report->message, rule->text);
	case RULE_ANY:
		break;
	}
	return true;
}

enum status errors_status(const struct family *family, const struct errors_report *report)
{
	for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
		if (rule_matches(&rules[i], family, report))
			return rules[i].status;
	if (report->http_status >= 300 && report->http_status < 400)
		return STATUS_REDIRECT;
	if (report->http_status >= 400 && report->http_status < 500)
		return STATUS_PROVIDER_REJECTED;
	return STATUS_PROVIDER_ERROR;
}

/* A number that stands for an HTTP status; 0 when it does not. */
static unsigned http_status_of(yyjson_val *v)
{
	struct str text = value_str(v);
	uint64_t n = yyjson_get_uint(v);

	if (text.length == 3 && isdigit((unsigned char)text.data[0]) &&
		isdigit((unsigned char)text.data[1]) && isdigit((unsigned char)text.data[2]))
		n = (uint64_t)(text.data[0] - '0') * 100 + (uint64_t)(text.data[1] - '0') * 10 +
			(uint64_t)(text.data[2] - '0');
	return n >= 300 && n < 600 ? (unsigned)n : 0;
}

static struct str first_of(struct str a, struct str b)
{
	return a.length ? a : b;
}

/* Words are a string, or what a validating server lists: {"detail":[{"msg":"..."}]}. */
static struct str words_of(yyjson_val *v)
{
	if (yyjson_is_obj(v))
		v = yyjson_obj_get(v, "detail");
	if (yyjson_is_arr(v))
		v = yyjson_obj_get(yyjson_arr_get_first(v), "msg");
	return value_str(v);
}

bool errors_find(yyjson_val *root, struct errors_report *out)
{
	yyjson_val *top = yyjson_is_arr(root) ? yyjson_arr_get_first(root) : root;
	yyjson_val *error = value_get(top, "error"), *at = yyjson_is_obj(error) ? error : top;
	unsigned inner;

	if (!yyjson_is_obj(top))
		return false;
	if (!error && !value_is(yyjson_obj_get(top, "object"), "error") &&
		!value_is(yyjson_obj_get(top, "type"), "error") && value_get(top, "choices"))
		return false;
	out->message = first_of(words_of(value_get(at, "message")), value_str(error));
	out->message = first_of(out->message, words_of(value_get(at, "detail")));
	out->type = first_of(value_get_str(at, "type"), value_get_str(at, "status"));
	out->code = value_get_str(value_get(at, "details"), "error_code");
	out->code = first_of(out->code, value_get_str(at, "code"));
	out->code = first_of(out->code, value_get_str(value_get(at, "innererror"), "code"));
	/* An error inside a good answer brings its status with it, as OpenRouter's do. */
	inner = http_status_of(yyjson_obj_get(at, "code"));
	if (out->http_status < 300 && inner)
		out->http_status = inner;
	return error || out->message.length || out->type.length || out->code.length;
}

static bool is_word(char c)
{
	return isalnum((unsigned char)c) || c == '_' || c == '*';
}

/* Length of the secret-looking run at the head of the text; 0 when it is none. */
static size_t secret_length(struct str text)
{
	size_t n = 0, digits = 0, letters = 0, stars = 0;

	for (size_t i = 0; i < ARRAY_SIZE(key_prefixes); i++) {
		size_t prefix = strlen(key_prefixes[i]);

		if (text.length <= prefix || memcmp(text.data, key_prefixes[i], prefix) != 0)
			continue;
		for (n = prefix; n < text.length && (is_word(text.data[n]) || text.data[n] == '-');)
			n++;
		return n;
	}
	for (; n < text.length && is_word(text.data[n]); n++) {
		digits += isdigit((unsigned char)text.data[n]) != 0;
		letters += isalpha((unsigned char)text.data[n]) != 0;
		stars += text.data[n] == '*';
	}
	return (n >= KEY_RUN_MIN && digits && letters) || stars >= 3 ? n : 0;
}

/* Bytes of the well-formed character at the head; 0 for a control character or a broken one. */
static size_t character_length(struct str text)
{
	unsigned char c = (unsigned char)text.data[0];
	size_t n = c < 0x80 ? 1 : c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;

	if (n == 0 || n > text.length || c < 0x20 || c == 0x7f)
		return 0;
	for (size_t i = 1; i < n; i++)
		if (((unsigned char)text.data[i] & 0xc0) != 0x80)
			return 0;
	/* C1 controls, which terminals obey; overlong forms; surrogates; above U+10FFFF. */
	if ((c == 0xc2 && (unsigned char)text.data[1] < 0xa0) ||
		(c == 0xe0 && (unsigned char)text.data[1] < 0xa0) ||
		(c == 0xed && (unsigned char)text.data[1] >= 0xa0) ||
		(c == 0xf0 && (unsigned char)text.data[1] < 0x90) ||
		(c == 0xf4 && (unsigned char)text.data[1] >= 0x90))
		return 0;
	return n;
}

/* Appends a stranger's words: one line, bounded, valid UTF-8, nothing like a key. */
static int append_words(struct buffer *out, struct str words)
{
	size_t limit = out->end + ERRORS_MESSAGE_MAX, n;
	bool inside = false;
	int r = 0;

	for (; words.length && r == 0; words = str_make(words.data + n, words.length - n)) {
		size_t secret = inside ? 0 : secret_length(words);

		n = secret ? secret : character_length(words);
		if (out->end + (secret ? 10 : n ? n : 1) > limit)
			break;
		if (secret)
			r = buffer_append(out, "[redacted]", 10);
		else
			r = buffer_append(out, n ? words.data : " ", n ? n : 1);
		n = n ? n : 1;
		inside = !secret && is_word(words.data[0]);
	}
	return r;
}

static int append_text(struct buffer *out, const struct errors_report *report, enum status status,
	unsigned http_status)
{
	const char *inside = http_status < 300 ? " and then an error" : "";
	int r;

	if (status == STATUS_PROVIDER_AUTH)
		return buffer_printf(out,
			"the provider answered HTTP %u%s: it refused the API key, or the key has "
			"no right to this model; check the key configured for this provider",
			http_status, inside);
	if (status == STATUS_REDIRECT)
		return buffer_printf(out,
			"the provider answered HTTP %u, a redirect; redirects are not followed, "
			"check the base URL configured for this provider",
			http_status);
	r = buffer_printf(out, "the provider answered HTTP %u%s: ", http_status, inside);
	if (r < 0)
		return r;
	if (report->message.length)
		return append_words(out, report->message);
	if (report->code.length || report->type.length)
		return append_words(out, first_of(report->code, report->type));
	return buffer_append_str(out, str_of(status_text(status)));
}

static enum status fill(const struct family *family, const struct errors_report *report,
	unsigned http_status, struct buffer *text, struct msg_error *error)
{
	enum status status = errors_status(family, report);

	buffer_reset(text, SIZE_MAX);
	if (append_text(text, report, status, http_status) < 0) {
		buffer_deinit(text);
		error->message = str_of(status_text(status));
	} else {
		error->message = buffer_str(text);
	}
	error->status = status;
	error->http_status = http_status;
	return status;
}

enum status errors_fill(const struct family *family, const struct errors_report *report,
	struct buffer *text, struct msg_error *error)
{
	return fill(family, report, 200, text, error);
}

enum status errors_classify(const struct family *family, unsigned http_status, struct str body,
	struct buffer *text, struct msg_error *error)
{
	aux_cleanup(value_docp) yyjson_doc *doc =
		body.length ? yyjson_read(body.data, body.length, 0) : NULL;
	struct errors_report report = { .http_status = http_status };

	/* A page of a proxy says nothing; plain text may. */
	if (doc)
		errors_find(yyjson_doc_get_root(doc), &report);
	else if (body.length && body.data[0] != '<' && body.data[0] != '{')
		report.message = body;
	return fill(family, &report, http_status, text, error);
}
