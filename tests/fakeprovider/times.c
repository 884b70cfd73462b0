#include "tests/fakeprovider/times.h"

#include "tests/fakeprovider/put.h"

struct provider_times {
	struct provider_times *next;
	uint64_t hash, used;
};

uint64_t times_hash(uint64_t hash, struct str s)
{
	for (size_t i = 0; i < s.length; i++)
		hash = (hash ^ (unsigned char)s.data[i]) * UINT64_C(1099511628211);
	return hash;
}

uint64_t times_use(struct provider *p, uint64_t hash)
{
	struct provider_times *t = p->times;

	while (t && t->hash != hash)
		t = t->next;
	if (!t) {
		t = calloc(1, sizeof(*t));
		put_check(t ? 0 : -1);
		t->hash = hash;
		t->next = p->times;
		p->times = t;
	}
	return t->used++;
}

void times_reset(struct provider *p)
{
	while (p->times) {
		struct provider_times *t = p->times;

		p->times = t->next;
		free(t);
	}
}
