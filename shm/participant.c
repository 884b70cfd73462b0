#include "shm/participant.h"

#include <errno.h>
#include "base/error.h"
#include "shm/hold.h"
#include "shm/layout.h"

#define STATE_BITS 8
#define STATE_MASK ((UINT64_C(1) << STATE_BITS) - 1)
#define GENERATION_MASK ((UINT64_C(1) << 48) - 1)
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

/* Valid while the word stays as it is, which is stored after and loaded before them. */
static uint64_t field(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_acquire);
}

static void field_store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_release);
}

static bool is_process(const struct layout_participant *row, uint64_t pid, uint64_t start)
{
	return field(&row->pid) == pid && field(&row->start) == start;
}

/* Of the next process in a row: as many bits as a hold's owner has, and never 0. */
static uint64_t generation_after(uint64_t word)
{
	uint64_t next = ((word >> STATE_BITS) + 1) & GENERATION_MASK;

	return next ? next : 1;
}

/* The orphan row of this process, else the first free one, else NO_ROW. */
static uint32_t row_for(const struct region *r, uint64_t pid, uint64_t start)
{
	uint32_t unused = NO_ROW;

	for (uint32_t i = 0; i < r->participants; i++) {
		const struct layout_participant *row = &r->participant[i];
		enum participant_state state = word_state(word_load(row));

		if (state == PARTICIPANT_ORPHAN && is_process(row, pid, start))
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
	uint64_t word;

	if (i == NO_ROW)
		return error_origin(-ENOSPC);
	row = &r->participant[i];
	word = word_load(row);
	/* Never free for an instant if it is the process's own: a daemon killed here would leave
	 * what it holds to the reaper. */
	if (word_state(word) == PARTICIPANT_FREE) {
		field_store(&row->pid, pid);
		field_store(&row->start, start);
		word = word_make(PARTICIPANT_FREE, generation_after(word));
	}
	field_store(&row->uid, uid);
	field_store(&row->attached_ns, now_ns);
	word_store(row, PARTICIPANT_ATTACHED, word >> STATE_BITS);
	return (int)i;
}

static void set_state(struct region *r, uint32_t row, enum participant_state state)
{
	if (row < r->participants)
		word_store(
			&r->participant[row], state, word_load(&r->participant[row]) >> STATE_BITS);
}

void participant_release(struct region *r, uint32_t row)
{
	set_state(r, row, PARTICIPANT_FREE);
}

void participant_orphan(struct region *r, uint32_t row)
{
	if (participant_owner(r, row) != 0)
		set_state(r, row, PARTICIPANT_ORPHAN);
}

uint64_t participant_owner(const struct region *r, uint32_t row)
{
	uint64_t word = row < r->participants ? word_load(&r->participant[row]) : 0;

	return word_state(word) == PARTICIPANT_FREE ? 0 : hold_owner(row, word >> STATE_BITS);
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
			.pid = field(&p->pid),
			.start = field(&p->start),
			.uid = field(&p->uid),
			.attached_ns = field(&p->attached_ns),
		};
		again = word_load(p);
		if (again == word)
			break;
	}
	return true;
}
