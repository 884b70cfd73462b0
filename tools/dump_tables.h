#pragma once

/* Every word of every used row of the region's tables, by shm/tbl/layout.h: nothing can be left
 * out. */

#include "proto/json.h"
#include "shm/region.h"

void dump_tables_text(const struct region *r);
/* Members of the object that is open: one array per table. */
void dump_tables_json(struct json *j, const struct region *r);
