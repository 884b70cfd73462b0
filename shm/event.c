#include "shm/event.h"

#include "base/aux.h"
#include "shm/layout.h"

/* How often a row that is not the newest is looked at before it counts as a hole: its writer may
 * be at work on another CPU. */
#define LOOKS 64
#define WORDS 4

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

static void store(shared_u64 *word, uint64_t value)
{
	atomic_store_explicit(word, value, memory_order_relaxed);
}

/* splitmix64 over the words: two writers in one row leave a mixture that does not match. */
static uint64_t check_of(const uint64_t word[WORDS])
{
	uint64_t hash = UINT64_C(0x9e3779b97f4a7c15);

	for (int i = 0; i < WORDS; i++) {
		hash = (hash ^ word[i]) + UINT64_C(0x9e3779b97f4a7c15);
		hash = (hash ^ hash >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
		hash = (hash ^ hash >> 27) * UINT64_C(0x94d049bb133111eb);
		hash ^= hash >> 31;
	}
	return hash;
}

static uint64_t what_of(const struct event *e)
{
	return (uint64_t)(e->kind & 0xff) | (uint64_t)e->from << 8 | (uint64_t)e->to << 16 |
		(uint64_t)e->why << 24 | (uint64_t)e->row << 32;
}

uint64_t event_head(const struct region *r)
{
	return atomic_load_explicit(&r->header->events_head, memory_order_acquire);
}

void event_add(const struct region *r, const struct event *event)
{
	struct layout_event *row;
	uint64_t ticket, seen;
	uint64_t word[WORDS];

	if (r->events == 0)
		return;
	ticket = atomic_fetch_add_explicit(&r->header->events_head, 1, memory_order_acq_rel);
	row = &r->event[ticket % r->events];
	seen = load(&row->sequence);
	/* A whole turn late: the row is a later writer's. */
	if (seen > ticket + 1 && seen <= event_head(r))
		return;
	word[0] = ticket + 1;
	word[1] = event->time_ns;
	word[2] = what_of(event);
	word[3] = event->value;
	store(&row->sequence, 0);
	/* Release, so that none is seen without the 0 before it. */
	atomic_store_explicit(&row->time_ns, word[1], memory_order_release);
	atomic_store_explicit(&row->what, word[2], memory_order_release);
	atomic_store_explicit(&row->value, word[3], memory_order_release);
	atomic_store_explicit(&row->check, check_of(word), memory_order_release);
	atomic_store_explicit(&row->sequence, word[0], memory_order_release);
}

static bool read_row(const struct layout_event *row, uint64_t ticket, struct event *out)
{
	uint64_t word[WORDS];

	word[0] = ticket + 1;
	word[1] = load(&row->time_ns);
	word[2] = load(&row->what);
	word[3] = load(&row->value);
	if (load(&row->check) != check_of(word) || (word[2] & 0xff) < EVENT_BREAKER ||
		(word[2] & 0xff) > EVENT_PAUSE_TARGET)
		return false;
	*out = (struct event){
		.ticket = ticket,
		.time_ns = word[1],
		.kind = (enum event_kind)(word[2] & 0xff),
		.from = (uint8_t)(word[2] >> 8),
		.to = (uint8_t)(word[2] >> 16),
		.why = (uint8_t)(word[2] >> 24),
		.row = (uint32_t)(word[2] >> 32),
		.value = word[3],
	};
	return true;
}

static enum event_outcome lost(const struct region *r, uint64_t *ticket, uint64_t head)
{
	*ticket = head > r->events ? head - r->events : 0;
	return EVENT_E_LOST;
}

enum event_outcome event_next(const struct region *r, uint64_t *ticket, struct event *out)
{
	uint64_t head = event_head(r);

	if (*ticket == head || r->events == 0)
		return EVENT_E_NONE;
	for (int i = 0; i < LOOKS; i++) {
		const struct layout_event *row = &r->event[*ticket % r->events];

		/* Before the row: a writer that has finished one and begun the next left no hole.
		 */
		head = event_head(r);
		if (head - *ticket > r->events)
			return lost(r, ticket, head);
		if (atomic_load_explicit(&row->sequence, memory_order_acquire) == *ticket + 1 &&
			read_row(row, *ticket, out)) {
			++*ticket;
			return EVENT_OK;
		}
	}
	if (*ticket + 1 == head)
		return EVENT_E_NONE;
	++*ticket;
	return EVENT_E_HOLE;
}
