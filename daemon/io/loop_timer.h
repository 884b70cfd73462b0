#pragma once

/*
 * The loop's timers: a binary heap of pointers to timers embedded in their owners. No clock, no
 * I/O. heap_index of a timer is its place, from 1; 0 is in no heap.
 */

#include <stddef.h>
#include <stdint.h>
#include "daemon/io/loop.h"

struct timer_heap {
	struct loop_timer **items; /* items[0] is not used */
	uint32_t count, capacity;
};

void timer_heap_deinit(struct timer_heap *h);
/* Adds the timer, or moves it when it is in the heap. 0 or -ENOMEM (then it is as before). */
int timer_heap_set(struct timer_heap *h, struct loop_timer *t, uint64_t deadline_ns);
/* A timer in no heap: nothing. */
void timer_heap_remove(struct timer_heap *h, struct loop_timer *t);

/* The earliest; NULL when empty. */
static inline struct loop_timer *timer_heap_first(const struct timer_heap *h)
{
	return h->count ? h->items[1] : NULL;
}
