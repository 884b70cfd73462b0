#include "tests/fakeprovider/text.h"

#include "tests/fakeprovider/put.h"
#include <string.h>

#define BIG_CHUNK 1024
#define QUOTED_MAX 60

/* Each word carries the space before it; nothing here needs escaping in JSON. */
static const char paragraph[] =
	" A rate budget is a promise shared by everyone who spends from it. Each worker may send"
	" a request only while the common bucket still has room, and the bucket refills at a"
	" steady pace. When four processes draw from one bucket, none of them needs to know what"
	" the others do: together they can never exceed the burst plus the rate times the time"
	" that has passed. A request that does not fit is told exactly how long to wait, so"
	" nothing is left to guessing and no request is sent only to be refused.";

void put_json(struct buffer *b, struct str s)
{
	size_t from = 0;

	for (size_t i = 0; i < s.length; i++) {
		unsigned char c = (unsigned char)s.data[i];

		if (aux_likely(c >= 0x20 && c != '"' && c != '\\'))
			continue;
		put(b, s.data + from, i - from);
		from = i + 1;
		if (c >= 0x20)
			put_printf(b, "\\%c", c);
		else if (c == '\n')
			put_const(b, "\\n");
		else
			put_printf(b, "\\u%04x", c);
	}
	if (from < s.length)
		put(b, s.data + from, s.length - from);
}

void text_deinit(struct text *t)
{
	buffer_deinit(&t->lead);
}

/* The first words of the prompt, ending at a whole word and a whole character. */
static struct str quote(struct str prompt, bool *whole)
{
	size_t n = prompt.length;

	*whole = n <= QUOTED_MAX;
	if (*whole)
		return prompt;
	for (n = QUOTED_MAX; n > 0 && prompt.data[n] != ' '; n--)
		;
	if (n == 0)
		for (n = QUOTED_MAX; n > 0 && ((unsigned char)prompt.data[n] & 0xc0) == 0x80; n--)
			;
	return str_make(prompt.data, n);
}

static int64_t count_words(struct str s)
{
	int64_t n = s.length && s.data[0] != ' ';

	for (size_t i = 0; i < s.length; i++)
		n += s.data[i] == ' ';
	return n;
}

static void plan_lead(struct text *t, const struct script *s, struct str prompt)
{
	bool whole;
	struct str quoted = quote(prompt, &whole);

	t->lead.begin = t->lead.end = 0;
	if (t->chunk_bytes || !prompt.length)
		return;
	if (s->echo) {
		put_json(&t->lead, prompt);
		return;
	}
	put_const(&t->lead, "You asked: \\\"");
	put_json(&t->lead, quoted);
	put_text(&t->lead, whole ? "\\\"." : " ...\\\".");
}

void text_rewind(struct text *t, const struct script *s)
{
	t->at = 0;
	t->begun = false;
	t->lead_done = buffer_length(&t->lead) == 0;
	t->left_bytes = s->big ? s->big : t->chunks * t->chunk_bytes;
}

static int64_t paragraph_words(void)
{
	static int64_t words;

	if (!words)
		words = count_words(str_make(paragraph, sizeof(paragraph) - 1));
	return words;
}

void text_plan(struct text *t, const struct script *s, struct str prompt)
{
	int64_t bytes = s->chunk_bytes, words;

	t->chunks = s->chunks;
	if (s->big && !bytes)
		bytes = s->chunks > 0 ? (s->big + s->chunks - 1) / s->chunks : BIG_CHUNK;
	t->chunk_bytes = bytes;
	plan_lead(t, s, prompt);
	words = s->chunks >= 0 ? 0 : count_words(buffer_str(&t->lead));
	if (s->big)
		t->chunks = (s->big + bytes - 1) / bytes;
	else if (s->chunks < 0 && s->tools)
		t->chunks = 0;
	else if (s->chunks < 0 && bytes)
		t->chunks = ((int64_t)sizeof(paragraph) - 1 + bytes - 1) / bytes;
	else if (s->chunks < 0)
		t->chunks = words + (s->echo ? 0 : paragraph_words());
	text_rewind(t, s);
}

static void next_bytes(struct text *t, struct buffer *out)
{
	int64_t want = t->chunk_bytes < t->left_bytes ? t->chunk_bytes : t->left_bytes;

	t->left_bytes -= want;
	while (want > 0) {
		size_t have = sizeof(paragraph) - 1 - t->at;
		size_t n = (size_t)want < have ? (size_t)want : have;

		put(out, paragraph + t->at, n);
		t->at = n == have ? 0 : t->at + n;
		want -= (int64_t)n;
	}
}

void text_next(struct text *t, struct buffer *out)
{
	bool canned = t->lead_done;
	struct str all = canned ? str_make(paragraph, sizeof(paragraph) - 1) : buffer_str(&t->lead);
	const char *from = all.data + t->at, *end;
	size_t left = all.length - t->at;

	if (t->chunk_bytes) {
		next_bytes(t, out);
		return;
	}
	end = left > 1 ? memchr(from + 1, ' ', left - 1) : NULL;
	end = end ? end : from + left;
	t->at += (size_t)(end - from);
	if (t->at == all.length) {
		t->at = 0;
		t->lead_done = true;
	}
	if (!t->begun && canned)
		from++;
	t->begun = true;
	put(out, from, (size_t)(end - from));
}
