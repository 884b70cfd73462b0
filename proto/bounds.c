#include "proto/bounds.h"

#include <stdint.h>
#include "base/aux.h"

/* What the first byte of a value says about it. */
enum shape { SHAPE_PLAIN, SHAPE_BYTES, SHAPE_ARRAY, SHAPE_MAP, SHAPE_REFUSED };

struct head {
	enum shape shape;
	uint8_t size;   /* bytes of a plain value, or of the count, after the first byte */
	uint32_t count; /* bytes or elements, when they are in the first byte; size is 0 then */
};

/* 0xc0 to 0xdf; below and above are the forms that hold their value in the first byte. */
static const struct head bounds_heads[32] = {
	{ SHAPE_PLAIN, 0, 0 },   /* nil */
	{ SHAPE_REFUSED, 0, 0 }, /* never used */
	{ SHAPE_PLAIN, 0, 0 },   /* false */
	{ SHAPE_PLAIN, 0, 0 },   /* true */
	{ SHAPE_BYTES, 1, 0 },   /* bin 8 */
	{ SHAPE_BYTES, 2, 0 },
	{ SHAPE_BYTES, 4, 0 },
	{ SHAPE_REFUSED, 0, 0 }, /* ext 8 */
	{ SHAPE_REFUSED, 0, 0 },
	{ SHAPE_REFUSED, 0, 0 },
	{ SHAPE_PLAIN, 4, 0 }, /* float 32 */
	{ SHAPE_PLAIN, 8, 0 },
	{ SHAPE_PLAIN, 1, 0 }, /* uint 8 */
	{ SHAPE_PLAIN, 2, 0 },
	{ SHAPE_PLAIN, 4, 0 },
	{ SHAPE_PLAIN, 8, 0 },
	{ SHAPE_PLAIN, 1, 0 }, /* int 8 */
	{ SHAPE_PLAIN, 2, 0 },
	{ SHAPE_PLAIN, 4, 0 },
	{ SHAPE_PLAIN, 8, 0 },
	{ SHAPE_REFUSED, 0, 0 }, /* fixext 1 */
	{ SHAPE_REFUSED, 0, 0 },
	{ SHAPE_REFUSED, 0, 0 },
	{ SHAPE_REFUSED, 0, 0 },
	{ SHAPE_REFUSED, 0, 0 },
	{ SHAPE_BYTES, 1, 0 }, /* str 8 */
	{ SHAPE_BYTES, 2, 0 },
	{ SHAPE_BYTES, 4, 0 },
	{ SHAPE_ARRAY, 2, 0 }, /* array 16 */
	{ SHAPE_ARRAY, 4, 0 },
	{ SHAPE_MAP, 2, 0 }, /* map 16 */
	{ SHAPE_MAP, 4, 0 },
};

struct walk {
	const unsigned char *at, *end;
	uint32_t open[BOUNDS_DEPTH_MAX]; /* values still to come in each open container */
	unsigned depth;
	uint32_t elements;
};

static struct head bounds_head(unsigned char first)
{
	if (first <= 0x7f || first >= 0xe0)
		return (struct head){ SHAPE_PLAIN, 0, 0 };
	if (first <= 0x8f)
		return (struct head){ SHAPE_MAP, 0, first & 0x0f };
	if (first <= 0x9f)
		return (struct head){ SHAPE_ARRAY, 0, first & 0x0f };
	if (first <= 0xbf)
		return (struct head){ SHAPE_BYTES, 0, first & 0x1f };
	return bounds_heads[first - 0xc0];
}

static size_t bounds_left(const struct walk *w)
{
	return (size_t)(w->end - w->at);
}

/* Numbers in msgpack are big-endian. */
static uint32_t bounds_count(struct walk *w, uint8_t size)
{
	uint32_t count = 0;

	while (size-- > 0)
		count = count << 8 | *w->at++;
	return count;
}

static enum bounds_outcome bounds_open(struct walk *w, uint32_t count, unsigned values)
{
	if (count > BOUNDS_ELEMENTS_MAX / values ||
		count * values > BOUNDS_ELEMENTS_MAX - w->elements)
		return BOUNDS_E_ELEMENTS;
	if (count * values > bounds_left(w))
		return BOUNDS_E_SHORT;
	if (w->depth == BOUNDS_DEPTH_MAX)
		return BOUNDS_E_DEPTH;
	w->elements += count * values;
	w->open[w->depth++] = count * values;
	return BOUNDS_OK;
}

/* One value, or the head of one container. */
static enum bounds_outcome bounds_step(struct walk *w)
{
	struct head head;
	uint32_t count;

	if (bounds_left(w) == 0)
		return BOUNDS_E_SHORT;
	head = bounds_head(*w->at++);
	if (head.shape == SHAPE_REFUSED)
		return BOUNDS_E_TYPE;
	if (head.size > bounds_left(w))
		return BOUNDS_E_SHORT;
	if (head.shape == SHAPE_PLAIN) {
		w->at += head.size;
		return BOUNDS_OK;
	}
	count = head.size ? bounds_count(w, head.size) : head.count;
	if (head.shape == SHAPE_BYTES) {
		if (count > bounds_left(w))
			return BOUNDS_E_SHORT;
		w->at += count;
		return BOUNDS_OK;
	}
	return bounds_open(w, count, head.shape == SHAPE_MAP ? 2 : 1);
}

enum bounds_outcome bounds_check(const void *data, size_t size)
{
	struct walk w = { .at = data };
	enum bounds_outcome outcome;

	if (size == 0)
		return BOUNDS_E_SHORT;
	w.end = w.at + size;
	outcome = bounds_step(&w);
	while (outcome == BOUNDS_OK && w.depth > 0) {
		if (w.open[w.depth - 1] == 0) {
			w.depth--;
			continue;
		}
		w.open[w.depth - 1]--;
		outcome = bounds_step(&w);
	}
	if (outcome == BOUNDS_OK && w.at != w.end)
		return BOUNDS_E_TRAILING;
	return outcome;
}

const char *bounds_outcome_text(enum bounds_outcome outcome)
{
	static const char *const texts[] = {
		[BOUNDS_OK] = "the body is within bounds",
		[BOUNDS_E_SHORT] = "the body ends inside a msgpack value",
		[BOUNDS_E_DEPTH] = "the body is nested deeper than 16 levels",
		[BOUNDS_E_ELEMENTS] = "the body holds more than 4096 elements",
		[BOUNDS_E_TRAILING] = "bytes follow the body's msgpack value",
		[BOUNDS_E_TYPE] = "the body holds a msgpack ext type or the byte 0xc1",
	};

	return (size_t)outcome < ARRAY_SIZE(texts) ? texts[outcome] : "the body is refused";
}
