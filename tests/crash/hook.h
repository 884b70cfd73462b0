#pragma once

/*
 * Operations of shm/ that can be cut off before any access to a shared word, as by kill -9, with
 * others acting in between. They nest: who acts in between may be cut off too. One thread.
 */

#include <setjmp.h>
#include <stdbool.h>
#include <stdint.h>

struct hook {
	unsigned dies_at;     /* before which access, from 1; 0: lives */
	unsigned limit;       /* more accesses than this: it hangs */
	void (*others)(void); /* act before an access; may be NULL */
	unsigned steps;       /* accesses so far */
	struct hook *outer;
	jmp_buf death;
};

/* All accesses of all operations so far. */
extern uint64_t hook_points;

/* False: it died. */
bool hook_run(struct hook *h, void (*operation)(void *), void *argument);
