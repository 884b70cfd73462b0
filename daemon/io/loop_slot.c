#include "daemon/io/loop_slot.h"

#include <errno.h>
#include <stdlib.h>
#include "base/error.h"

#define SLOTS_MIN 32u

static int slots_grow(struct slot_table *t)
{
	uint32_t count = t->count ? t->count * 2 : SLOTS_MIN;
	struct slot *slots = realloc(t->slots, count * sizeof(*slots));

	if (!slots)
		return error_origin(-ENOMEM);
	t->slots = slots;
	for (uint32_t i = count - 1; i >= t->count && i > 0; i--) {
		slots[i] = (struct slot){ .next = t->free_head };
		t->free_head = i;
	}
	t->count = count;
	return 0;
}

int slot_new(struct slot_table *t, uint32_t *index, enum slot_kind kind, void *owner, int fd)
{
	struct slot *s;
	int r;

	if (!t->free_head) {
		r = slots_grow(t);
		if (r < 0)
			return r;
	}
	*index = t->free_head;
	s = slot_at(t, *index);
	t->free_head = s->next;
	t->live++;
	*s = (struct slot){
		.owner = owner,
		.fd = fd,
		.kind = (uint8_t)kind,
		.generation = s->generation,
	};
	return 0;
}

static void stash_drop(struct slot *s)
{
	if (!s->stash)
		return;
	buffer_deinit(s->stash);
	free(s->stash);
	s->stash = NULL;
}

void slot_release(struct slot_table *t, uint32_t index)
{
	struct slot *s = slot_at(t, index);

	if (s->owner || s->armed || s->work)
		return;
	stash_drop(s);
	*s = (struct slot){ .generation = s->generation + 1, .next = t->free_head };
	t->free_head = index;
	t->live--;
}

void slot_work_add(struct slot_table *t, uint32_t index, enum slot_work work)
{
	struct slot *s = slot_at(t, index);

	if (!s->work) {
		s->next = t->work_head;
		t->work_head = index;
	}
	s->work |= (uint8_t)work;
}

void slot_stash(struct slot *s, const void *data, ssize_t n)
{
	if (s->ended)
		return;
	if (n <= 0) {
		s->ended = true;
		s->end = (int)n;
		return;
	}
	if (!s->stash)
		s->stash = calloc(1, sizeof(*s->stash));
	if (!s->stash || buffer_append(s->stash, data, (size_t)n) < 0) {
		s->ended = true;
		s->end = -ENOMEM;
	}
}

bool slot_table_is_disowned(const struct slot_table *t)
{
	for (uint32_t i = 1; i < t->count; i++)
		if (t->slots[i].owner)
			return false;
	return true;
}

void slot_table_deinit(struct slot_table *t)
{
	for (uint32_t i = 1; i < t->count; i++)
		stash_drop(&t->slots[i]);
	free(t->slots);
	*t = (struct slot_table){ 0 };
}
