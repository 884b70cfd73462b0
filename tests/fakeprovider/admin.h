#pragma once

/* The endpoints under /_fake/: stats, script, reset. */

#include "tests/fakeprovider/provider.h"

/* Whether the path is the admin's; if so, the answer has begun. */
bool admin_begin(struct provider *p, struct request *r, struct answer *a);
