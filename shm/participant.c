#include "shm/participant.h"

#include <errno.h>
#include "base/error.h"
#include "shm/layout.h"

#define STATE_BITS 8
#define STATE_MASK ((UINT64_C(1) << STATE_BITS) - 1)
#define NO_ROW UINT32_MAX
/* The daemon rewrites a row in nanoseconds; who still sees it change is content with half. */
#define VIEW_TRIES 4

static uint64_t word_make(enum participant_state state, uint64_t generation)
{
	return generation << STATE_BITS | (uint64_t)state;
}

static uint64_t word_load(const struct layout_participant *row)
{
	return atomic_load_explicit(&row->word, memory_order_acquire);
}

/* What is no known state, another process wrote: such a row is free. */
static enum participant_state word_state(uint64_t word)
{
	uint64_t state = word & STATE_MASK;

	return state <= PARTICIPANT_ORPHAN ? (enum participant_state)state : PARTICIPANT_FREE;
}

static void word_store(
	struct layout_participant *row, enum participant_state state, uint64_t generation)
{
	atomic_store_explicit(&row->word, word_make(state, generation), memory_order_release);
}

/* The orphan row of this process, else the first free one, else NO_ROW. */
static uint32_t row_for(const struct region *r, uint64_t pid, uint64_t start)
{
	uint32_t unused = NO_ROW;

	for (uint32_t i = 0; i < r->participants; i++) {
		const struct layout_participant *row = &r->participant[i];
		enum participant_state state = word_state(word_load(row));

		if (state == PARTICIPANT_ORPHAN && row->pid == pid && row->start == start)
			return i;
		if (state == PARTICIPANT_FREE && unused == NO_ROW)
			unused = i;
	}
	return unused;
}

int participant_claim(struct region *r, uint64_t pid, uint64_t start, uint64_t uid, uint64_t now_ns)
{
	uint32_t i = row_for(r, pid, start);
	struct layout_participant *row;
	uint64_t generation;

	if (i == NO_ROW)
		return error_origin(-ENOSPC);
	row = &r->participant[i];
	generation = word_load(row) >> STATE_BITS;
	/* Free while its fields change: a daemon killed here leaves a free row. */
	word_store(row, PARTICIPANT_FREE, generation);
	row->pid = pid;
	row->start = start;
	row->uid = uid;
	row->attached_ns = now_ns;
	word_store(row, PARTICIPANT_ATTACHED, generation + 1);
	return (int)i;
}

void participant_release(struct region *r, uint32_t row)
{
	if (row < r->participants)
		word_store(&r->participant[row], PARTICIPANT_FREE,
			word_load(&r->participant[row]) >> STATE_BITS);
}

uint32_t participant_adopt(struct region *r, bool (*is_alive)(uint64_t pid, uint64_t start))
{
	uint32_t orphans = 0;

	for (uint32_t i = 0; i < r->participants; i++) {
		struct layout_participant *row = &r->participant[i];
		uint64_t word = word_load(row);

		if (word_state(word) != PARTICIPANT_FREE && is_alive(row->pid, row->start)) {
			word_store(row, PARTICIPANT_ORPHAN, word >> STATE_BITS);
			orphans++;
		} else if ((word & STATE_MASK) != PARTICIPANT_FREE) {
			word_store(row, PARTICIPANT_FREE, word >> STATE_BITS);
		}
	}
	return orphans;
}

uint32_t participant_reap(struct region *r, bool (*is_alive)(uint64_t pid, uint64_t start))
{
	uint32_t freed = 0;

	for (uint32_t i = 0; i < r->participants; i++) {
		const struct layout_participant *row = &r->participant[i];

		if (word_state(word_load(row)) == PARTICIPANT_ORPHAN &&
			!is_alive(row->pid, row->start)) {
			participant_release(r, i);
			freed++;
		}
	}
	return freed;
}

bool participant_view(const struct region *r, uint32_t row, struct participant_view *out)
{
	const struct layout_participant *p;
	uint64_t word, again;

	if (row >= r->participants)
		return false;
	p = &r->participant[row];
	again = word_load(p);
	for (int tries = 0; tries < VIEW_TRIES; tries++) {
		word = again;
		*out = (struct participant_view){
			.state = word_state(word),
			.generation = word >> STATE_BITS,
			.pid = p->pid,
			.start = p->start,
			.uid = p->uid,
			.attached_ns = p->attached_ns,
		};
		again = word_load(p);
		if (again == word)
			break;
	}
	return true;
}
