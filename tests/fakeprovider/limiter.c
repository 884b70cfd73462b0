#include "tests/fakeprovider/limiter.h"

#include "base/aux.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct limiter_entry {
	uint64_t key; /* 0 is a free slot */
	unsigned __int128 tat;
};

int limiter_init(struct limiter *l, const char *rate, uint64_t burst)
{
	char *unit = NULL;
	unsigned long long count = strtoull(rate, &unit, 10);

	*l = (struct limiter){ 0 };
	if (count == 0 || count > 1000000000 || unit == rate)
		return -EINVAL;
	if (strcmp(unit, "/s") == 0)
		l->period_ns = NSEC_PER_SEC;
	else if (strcmp(unit, "/min") == 0)
		l->period_ns = 60 * NSEC_PER_SEC;
	else
		return -EINVAL;
	l->count = count;
	l->burst = burst ? burst : count;
	return 0;
}

void limiter_deinit(struct limiter *l)
{
	free(l->entries);
	l->entries = NULL;
	l->used = l->size = 0;
}

void limiter_reset(struct limiter *l)
{
	limiter_deinit(l);
}

static struct limiter_entry *find(struct limiter *l, uint64_t key)
{
	size_t at = key & (l->size - 1);

	while (l->entries[at].key && l->entries[at].key != key)
		at = (at + 1) & (l->size - 1);
	return &l->entries[at];
}

static int grow(struct limiter *l)
{
	struct limiter old = *l;
	size_t size = old.size ? old.size * 2 : 64;
	struct limiter_entry *entries = calloc(size, sizeof(*entries));

	if (!entries)
		return -ENOMEM;
	l->entries = entries;
	l->size = size;
	for (size_t i = 0; i < old.size; i++)
		if (old.entries[i].key)
			*find(l, old.entries[i].key) = old.entries[i];
	free(old.entries);
	return 0;
}

static uint64_t to_ns(const struct limiter *l, unsigned __int128 units)
{
	return (uint64_t)((units + l->count - 1) / l->count);
}

int limiter_admit(struct limiter *l, uint64_t key, uint64_t now_ns, struct limiter_verdict *v)
{
	unsigned __int128 now, tat, full;
	struct limiter_entry *entry;

	*v = (struct limiter_verdict){ .admitted = true, .limit = l->burst };
	if (!l->count)
		return 0;
	if (l->used * 2 >= l->size && grow(l) < 0)
		return -ENOMEM;
	key = key ? key : 1;
	entry = find(l, key);
	if (!entry->key) {
		entry->key = key;
		l->used++;
	}
	now = (unsigned __int128)now_ns * l->count;
	full = (unsigned __int128)l->burst * l->period_ns;
	tat = (entry->tat > now ? entry->tat : now) + l->period_ns;
	v->admitted = tat - now <= full;
	if (v->admitted)
		entry->tat = tat;
	else
		v->wait_ns = to_ns(l, tat - now - full);
	tat = entry->tat > now ? entry->tat - now : 0;
	v->remaining = (uint64_t)((full - tat) / l->period_ns);
	v->reset_ns = to_ns(l, tat);
	return 0;
}
