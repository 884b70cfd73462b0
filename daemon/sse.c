#include "daemon/sse.h"

#include <string.h>

static const char bom_bytes[3] = { '\xef', '\xbb', '\xbf' };

/* One call of sse_feed(). */
struct feed {
	struct sse *s;
	struct str rest;  /* input not yet read */
	struct str first; /* the event's only data line so far, still in the input */
	sse_event_fn fn;
	void *context;
	const char *next_lf; /* looked for once, not once per line that ends with CR */
};

void sse_deinit(struct sse *s)
{
	buffer_deinit(&s->held);
	*s = SSE_NULL;
}

bool sse_is_pending(const struct sse *s)
{
	return s->has_data || s->name_length || buffer_length(&s->held) || (s->bom && !s->begun);
}

static void feed_skip(struct feed *f, size_t n)
{
	f->rest.data += n;
	f->rest.length -= n;
}

/* Puts the data line that was left in the input where it survives the call. */
static enum sse_outcome feed_keep_first(struct feed *f)
{
	if (!f->first.data)
		return SSE_OK;
	if (buffer_append_str(&f->s->held, f->first) < 0)
		return SSE_E_NO_MEMORY;
	f->first = STR_NULL;
	return SSE_OK;
}

/* Adds a value to the data in held; value may be the tail of held itself. */
static enum sse_outcome feed_add_data(struct feed *f, struct str value, bool is_held)
{
	struct sse *s = f->s;
	size_t separator = s->has_data ? 1 : 0, length = s->data_length + separator + value.length;

	if (is_held) {
		/* "data" stood in front of it, so there is room for the LF. */
		memmove(buffer_head(&s->held) + s->data_length + separator, value.data,
			value.length);
	} else if (!s->has_data) {
		f->first = value.data ? value : str_of("");
	} else {
		if (feed_keep_first(f) != SSE_OK ||
			buffer_reserve(&s->held, separator + value.length) < 0)
			return SSE_E_NO_MEMORY;
		if (value.length)
			memcpy(buffer_tail(&s->held) + separator, value.data, value.length);
	}
	if (!f->first.data) {
		if (separator)
			buffer_head(&s->held)[s->data_length] = '\n';
		s->held.end = s->held.begin + length;
	}
	s->data_length = (uint32_t)length;
	s->has_data = true;
	return SSE_OK;
}

static enum sse_outcome feed_dispatch(struct feed *f)
{
	struct sse *s = f->s;
	struct str data = f->first.data ? f->first : buffer_str(&s->held);
	int r = 0;

	if (s->has_data)
		r = f->fn(f->context, str_make(s->name, s->name_length), data);
	s->has_data = false;
	s->data_length = 0;
	s->name_length = 0;
	f->first = STR_NULL;
	buffer_reset(&s->held, 0);
	return r ? SSE_E_STOPPED : SSE_OK;
}

/* One line without its end; is_held when it lies in held. */
static enum sse_outcome feed_line(struct feed *f, struct str line, bool is_held)
{
	struct sse *s = f->s;
	const char *colon;
	struct str field = line, value = STR_NULL;

	if (line.length == 0)
		return feed_dispatch(f);
	colon = memchr(line.data, ':', line.length);
	if (colon) {
		field.length = (size_t)(colon - line.data);
		value = str_make(colon + 1, line.length - field.length - 1);
		if (value.length && value.data[0] == ' ')
			value = str_make(value.data + 1, value.length - 1);
	} else {
		value = str_make(line.data + line.length, 0);
	}
	if (field.length == 4 && memcmp(field.data, "data", 4) == 0)
		return feed_add_data(f, value, is_held);
	if (field.length == 5 && memcmp(field.data, "event", 5) == 0) {
		s->name_length = (uint8_t)min_u64(value.length, sizeof(s->name));
		if (s->name_length)
			memcpy(s->name, value.data, s->name_length);
	} else if (colon && field.length == 0) {
		s->comments++;
	}
	return SSE_OK;
}

/* A line that began in an earlier call: its last part is added, then it is read in held. */
static enum sse_outcome feed_held_line(struct feed *f, size_t length)
{
	struct sse *s = f->s;
	enum sse_outcome r;
	size_t data_length = s->data_length;

	if (buffer_append(&s->held, f->rest.data, length) < 0)
		return SSE_E_NO_MEMORY;
	r = feed_line(f,
		str_make(
			buffer_head(&s->held) + data_length, buffer_length(&s->held) - data_length),
		true);
	if (s->data_length == data_length && s->held.data)
		s->held.end = s->held.begin + data_length;
	if (buffer_length(&s->held) == 0)
		buffer_reset(&s->held, 0);
	return r;
}

/* Length of the line at the head of the input; false when its end is not there. */
static bool feed_find_end(struct feed *f, size_t *length)
{
	const char *end = f->rest.data + f->rest.length, *cr;

	if (!f->next_lf || f->next_lf < f->rest.data) {
		f->next_lf = memchr(f->rest.data, '\n', f->rest.length);
		f->next_lf = f->next_lf ? f->next_lf : end;
	}
	cr = memchr(f->rest.data, '\r', (size_t)(f->next_lf - f->rest.data));
	*length = (size_t)((cr ? cr : f->next_lf) - f->rest.data);
	return cr || f->next_lf != end;
}

static size_t feed_partial_length(const struct feed *f)
{
	return f->first.data ? 0 : buffer_length(&f->s->held) - f->s->data_length;
}

/* Reads one line, or keeps what there is of it. */
static enum sse_outcome feed_step(struct feed *f)
{
	struct sse *s = f->s;
	size_t length, partial = feed_partial_length(f);
	bool ended = feed_find_end(f, &length);
	enum sse_outcome r;

	if (s->data_length + partial + length > SSE_EVENT_MAX)
		return SSE_E_TOO_LARGE;
	if (!ended) {
		r = feed_keep_first(f);
		if (r == SSE_OK && buffer_append_str(&s->held, f->rest) < 0)
			r = SSE_E_NO_MEMORY;
		f->rest.length = 0;
		return r;
	}
	if (partial)
		r = feed_held_line(f, length);
	else
		r = feed_line(f, str_make(f->rest.data, length), false);
	s->skip_lf = f->rest.data[length] == '\r';
	feed_skip(f, length + 1);
	return r;
}

/* Skips a BOM; bytes that only looked like one begin the first line. */
static enum sse_outcome feed_begin(struct feed *f)
{
	struct sse *s = f->s;

	while (f->rest.length && s->bom < sizeof(bom_bytes) &&
		f->rest.data[0] == bom_bytes[s->bom]) {
		s->bom++;
		feed_skip(f, 1);
	}
	if (s->bom == sizeof(bom_bytes)) {
		s->begun = true;
	} else if (f->rest.length) {
		s->begun = true;
		if (buffer_append(&s->held, bom_bytes, s->bom) < 0)
			return SSE_E_NO_MEMORY;
	}
	return SSE_OK;
}

enum sse_outcome sse_feed(struct sse *s, struct str bytes, sse_event_fn fn, void *context)
{
	struct feed f = { .s = s, .rest = bytes, .fn = fn, .context = context };
	enum sse_outcome r = SSE_OK;

	if (aux_unlikely(!s->begun))
		r = feed_begin(&f);
	while (r == SSE_OK && f.rest.length) {
		if (s->skip_lf && f.rest.data[0] == '\n')
			feed_skip(&f, 1);
		s->skip_lf = false;
		if (f.rest.length)
			r = feed_step(&f);
	}
	return r == SSE_OK ? feed_keep_first(&f) : r;
}
