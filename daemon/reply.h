#pragma once

/*
 * What a request's client is told: events of its answer as frames, and the one last frame. Part
 * of the pipeline: writes of a request what was delivered, when, and why that failed.
 */

#include "daemon/formats/format.h"
#include "daemon/request.h"

/* For the request's decoder. The sink stops it when a frame cannot be packed: r->pack_error. */
struct format_sink reply_sink(struct request *r);

/* USAGE and END, or ERROR. Where there is no memory even for that, the connection ends. */
void reply_last(struct request *r);
