#include "daemon/io/loop_timer.h"

#include <errno.h>
#include <stdlib.h>

#define HEAP_MIN 32u

void timer_heap_deinit(struct timer_heap *h)
{
	free(h->items);
	*h = (struct timer_heap){ 0 };
}

static void heap_place(struct timer_heap *h, uint32_t at, struct loop_timer *t)
{
	h->items[at] = t;
	t->heap_index = at;
}

static void heap_up(struct timer_heap *h, uint32_t at)
{
	struct loop_timer *t = h->items[at];

	while (at > 1 && h->items[at / 2]->deadline_ns > t->deadline_ns) {
		heap_place(h, at, h->items[at / 2]);
		at /= 2;
	}
	heap_place(h, at, t);
}

static void heap_down(struct timer_heap *h, uint32_t at)
{
	struct loop_timer *t = h->items[at];

	for (;;) {
		uint32_t child = at * 2;

		if (child > h->count)
			break;
		if (child < h->count &&
			h->items[child + 1]->deadline_ns < h->items[child]->deadline_ns)
			child++;
		if (h->items[child]->deadline_ns >= t->deadline_ns)
			break;
		heap_place(h, at, h->items[child]);
		at = child;
	}
	heap_place(h, at, t);
}

static int heap_grow(struct timer_heap *h)
{
	uint32_t capacity = h->capacity ? h->capacity * 2 : HEAP_MIN;
	struct loop_timer **items;

	if (h->count + 1 < h->capacity)
		return 0;
	items = realloc(h->items, capacity * sizeof(*items));
	if (!items)
		return -ENOMEM;
	h->items = items;
	h->capacity = capacity;
	return 0;
}

int timer_heap_set(struct timer_heap *h, struct loop_timer *t, uint64_t deadline_ns)
{
	uint32_t at = t->heap_index;
	int r;

	if (!at) {
		r = heap_grow(h);
		if (r < 0)
			return r;
		at = ++h->count;
		heap_place(h, at, t);
	}
	t->deadline_ns = deadline_ns;
	heap_up(h, at);
	heap_down(h, t->heap_index);
	return 0;
}

void timer_heap_remove(struct timer_heap *h, struct loop_timer *t)
{
	uint32_t at = t->heap_index;
	struct loop_timer *last;

	if (!at)
		return;
	t->heap_index = 0;
	last = h->items[h->count--];
	if (last == t)
		return;
	heap_place(h, at, last);
	heap_up(h, at);
	heap_down(h, last->heap_index);
}
