/* What the keys of llmkit top do. */

#include <string.h>
#include "base/aux.h"
#include "tools/keyboard.h"
#include "tools/top_columns.h"

static const uint64_t intervals_ms[] = { 100, 200, 500, 1000, 2000, 5000, 10000, 30000, 60000 };

unsigned top_view_columns(enum top_section section)
{
	unsigned n = 0;

	for (unsigned i = 0; i < top_tables[section].columns; i++)
		n += !top_tables[section].column[i].unsorted;
	return n;
}

static void sort_by_next(struct top_view *v)
{
	const struct top_table *t = &top_tables[v->focus];

	do
		v->sort[v->focus] = (v->sort[v->focus] + 1) % t->columns;
	while (t->column[v->sort[v->focus]].unsorted);
	v->reverse[v->focus] = false;
	v->first[v->focus] = 0;
}

/* The next shorter or longer of the list. */
static void change_interval(struct top_view *v, bool longer)
{
	size_t n = ARRAY_SIZE(intervals_ms), i = 0;

	while (i + 1 < n && intervals_ms[i] * NSEC_PER_MSEC < v->interval_ns)
		i++;
	if (longer && intervals_ms[i] * NSEC_PER_MSEC <= v->interval_ns && i + 1 < n)
		i++;
	else if (!longer && intervals_ms[i] * NSEC_PER_MSEC >= v->interval_ns && i > 0)
		i--;
	v->interval_ns = intervals_ms[i] * NSEC_PER_MSEC;
}

static void scroll(struct top_view *v, bool down, unsigned rows)
{
	unsigned *first = &v->first[v->focus], last = v->last[v->focus];

	if (!down)
		*first = *first > rows ? *first - rows : 0;
	else
		*first = rows > last || *first > last - rows ? last : *first + rows;
}

/* ---- the text of the filter ---- */

static size_t encode(uint32_t c, char out[4])
{
	if (c < 0x80) {
		out[0] = (char)c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = (char)(0xc0 | c >> 6);
		out[1] = (char)(0x80 | (c & 0x3f));
		return 2;
	}
	if (c < 0x10000) {
		out[0] = (char)(0xe0 | c >> 12);
		out[1] = (char)(0x80 | (c >> 6 & 0x3f));
		out[2] = (char)(0x80 | (c & 0x3f));
		return 3;
	}
	out[0] = (char)(0xf0 | c >> 18);
	out[1] = (char)(0x80 | (c >> 12 & 0x3f));
	out[2] = (char)(0x80 | (c >> 6 & 0x3f));
	out[3] = (char)(0x80 | (c & 0x3f));
	return 4;
}

static void append(struct top_view *v, uint32_t c)
{
	size_t length = strlen(v->filter), n;
	char bytes[4];

	/* Controls above 127, as those below, are not typed. */
	if (c >= 0x80 && c < 0xa0)
		return;
	n = encode(c, bytes);
	if (length + n >= sizeof(v->filter))
		return;
	memcpy(v->filter + length, bytes, n);
	v->filter[length + n] = '\0';
}

static void take_back(struct top_view *v)
{
	size_t length = strlen(v->filter);

	while (length > 0 && (v->filter[length - 1] & 0xc0) == 0x80)
		length--;
	v->filter[length > 0 ? length - 1 : 0] = '\0';
}

static enum top_action type(struct top_view *v, uint32_t key)
{
	if (key == KEY_ENTER || key == KEY_ESCAPE)
		v->types_filter = false;
	if (key == KEY_ESCAPE)
		v->filter[0] = '\0';
	else if (key == KEY_BACKSPACE)
		take_back(v);
	else if (key < KEY_NONE)
		append(v, key);
	memset(v->first, 0, sizeof(v->first));
	return TOP_REDRAW;
}

/* ---- the keys ---- */

static bool move(struct top_view *v, uint32_t key)
{
	unsigned page = v->page ? v->page : 1;

	if (key == KEY_UP || key == KEY_DOWN)
		scroll(v, key == KEY_DOWN, 1);
	else if (key == KEY_PAGE_UP || key == KEY_PAGE_DOWN)
		scroll(v, key == KEY_PAGE_DOWN, page);
	else if (key == KEY_HOME || key == KEY_END)
		scroll(v, key == KEY_END, UINT32_MAX);
	else if (key == KEY_TAB || key == KEY_BACK_TAB)
		v->focus = (v->focus + (key == KEY_TAB ? 1 : TOP_SECTIONS - 1)) % TOP_SECTIONS;
	else if (key >= '1' && key < '1' + TOP_SECTIONS)
		v->focus = key - '1';
	else
		return false;
	return true;
}

static enum top_action command(struct top_view *v, uint32_t key)
{
	switch (key) {
	case 'q':
		return TOP_QUIT;
	case 's':
		sort_by_next(v);
		return TOP_REDRAW;
	case 'r':
		v->reverse[v->focus] = !v->reverse[v->focus];
		return TOP_REDRAW;
	case '/':
		v->types_filter = true;
		return TOP_REDRAW;
	case 'p':
		v->is_paused = !v->is_paused;
		return TOP_REDRAW;
	case '+':
	case '-':
		change_interval(v, key == '+');
		return TOP_REDRAW;
	case '?':
		v->shows_help = true;
		return TOP_REDRAW;
	case KEY_ESCAPE:
		v->filter[0] = '\0';
		return TOP_REDRAW;
	default:
		return TOP_NOTHING;
	}
}

enum top_action top_view_key(struct top_view *v, uint32_t key)
{
	if (key == KEY_NONE)
		return TOP_NOTHING;
	if (v->types_filter)
		return type(v, key);
	if (v->shows_help) {
		v->shows_help = false;
		return key == 'q' ? TOP_QUIT : TOP_REDRAW;
	}
	return move(v, key) ? TOP_REDRAW : command(v, key);
}
