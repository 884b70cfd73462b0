#pragma once

/* cmocka with what it wants included before it. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* cmocka 1.1.5 reports a skipped case as "not ok". One that cannot run here (it needs root, or a
 * format that is left out) says so and ends. */
#undef skip
#define skip() \
	do { \
		print_message("# cannot run here: %s\n", __func__); \
		return; \
	} while (0)
