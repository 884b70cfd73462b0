#include "tests/crash/hook.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include "tests/crash/hooked.h"

uint64_t hook_points;
static struct hook *current;

void hook_point(void)
{
	struct hook *h = current;

	if (!h)
		return;
	hook_points++;
	if (++h->steps == h->dies_at)
		longjmp(h->death, 1);
	if (h->steps > h->limit) {
		printf("Bail out! an operation does not end\n");
		abort();
	}
	if (h->others)
		h->others();
}

bool hook_run(struct hook *h, void (*operation)(void *), void *argument)
{
	bool lived;

	h->steps = 0;
	h->outer = current;
	current = h;
	lived = _setjmp(h->death) == 0;
	if (lived)
		operation(argument);
	current = h->outer;
	return lived;
}
