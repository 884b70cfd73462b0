#include "shm/counters.h"

#include <stddef.h>
#include "base/aux.h"

static const struct {
	const char *name, *unit, *help;
} counter_table[] = {
#define COUNTER(name_, unit_, help_) { #name_, unit_, help_ },
#include "shm/tbl/counters.h"
#undef COUNTER
};

static_assert(ARRAY_SIZE(counter_table) == COUNTERS, "one row per counter");

const char *counter_name(enum counter c)
{
	return (size_t)c < COUNTERS ? counter_table[c].name : NULL;
}

const char *counter_unit(enum counter c)
{
	return (size_t)c < COUNTERS ? counter_table[c].unit : NULL;
}

const char *counter_help(enum counter c)
{
	return (size_t)c < COUNTERS ? counter_table[c].help : NULL;
}
