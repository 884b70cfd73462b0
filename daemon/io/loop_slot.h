#pragma once

/*
 * The table of slots of loop_uring.c. Each armed operation of the kernel belongs to a slot, and a
 * slot is given back only after the last completion of its operation. Slots carry a generation,
 * so that code which ran a callback can tell whether its slot is still its own. Pointers to slots
 * are valid until the next slot_new(), so not across callbacks. Slot 0 is not used.
 */

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "base/buffer.h"

enum slot_kind {
	SLOT_FREE = 0,
	SLOT_WATCH,
	SLOT_RECEIVER,
	SLOT_ACCEPTOR,
};

enum slot_work {
	WORK_ARM = 1,     /* there was no room in the submission ring */
	WORK_CANCEL = 2,  /* likewise */
	WORK_DELIVER = 4, /* the stash of a resumed receiver */
};

struct slot {
	void *owner;          /* NULL: cancelled, waits for its last completion */
	struct buffer *stash; /* received after the pause */
	int fd;
	uint32_t events;
	uint32_t generation;
	uint32_t next; /* in the free list or the work list */
	int end;       /* of the stream, <= 0, when ended */
	uint8_t kind;
	uint8_t work; /* slot_work; not 0: in the work list */
	bool armed;   /* the kernel has an operation that has not ended */
	bool plain;   /* readiness, then the system call */
	bool paused, ended;
};

struct slot_table {
	struct slot *slots;
	uint32_t count, free_head, work_head;
	uint32_t live; /* slots not free */
};

void slot_table_deinit(struct slot_table *t);
/* Whether no slot has an owner. */
bool slot_table_is_disowned(const struct slot_table *t);

static inline struct slot *slot_at(const struct slot_table *t, uint32_t index)
{
	assert(index > 0 && index < t->count);
	return &t->slots[index];
}

/* What the kernel is told, and tells back. */
static inline uint64_t slot_token(const struct slot_table *t, uint32_t index)
{
	return (uint64_t)t->slots[index].generation << 32 | index;
}

/* 0 or -ENOMEM. */
int slot_new(struct slot_table *t, uint32_t *index, enum slot_kind kind, void *owner, int fd);
/* Gives the slot back unless an owner, the kernel or the work list still knows it. */
void slot_release(struct slot_table *t, uint32_t index);
void slot_work_add(struct slot_table *t, uint32_t index, enum slot_work work);
/* Keeps for later what came after a pause: bytes, or the end of the stream (n <= 0). A lack of
 * memory ends the stream: no gap. */
void slot_stash(struct slot *s, const void *data, ssize_t n);
