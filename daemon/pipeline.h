#pragma once

/*
 * The life of a request, from SUBMIT to exactly one END or ERROR. The one file that knows both
 * the stages and the I/O.
 */

#include <stdbool.h>
#include <stdint.h>
#include "base/buffer.h"
#include "base/list.h"
#include "daemon/catalog.h"
#include "daemon/io/loop.h"
#include "shm/region.h"

struct pipeline;

/* Whoever receives the frames. Embedded in its owner; functions are not NULL. */
struct pipeline_client {
	struct list requests; /* of struct request */
	unsigned request_count;
	uint64_t held_bytes; /* of their SUBMIT frames */
	uint64_t last_id;    /* the highest */
	bool pressured;      /* its output is high */
	/* Where frames are packed; then flush() is called. */
	struct buffer *(*output)(struct pipeline_client *c);
	void (*flush)(struct pipeline_client *c);
	/* A frame that ends a request could not be packed: the connection has to end instead.
	 * Calls nothing back. */
	void (*broken)(struct pipeline_client *c);
};

void pipeline_client_init(struct pipeline_client *c);

/* owner: what marks the daemon's holds, of its participant row. */
int pipeline_new(struct pipeline **out, struct loop *loop, struct region *region, uint64_t owner,
	struct catalog *catalog);
/* No request may be active. */
struct pipeline *pipeline_free(struct pipeline *p);

/* A reload: new requests use the new generation. Takes a reference. */
void pipeline_set_catalog(struct pipeline *p, struct catalog *catalog);
/* From now on SUBMITs are refused: SHUTTING_DOWN. idle is called once none is active. */
void pipeline_drain(struct pipeline *p, void (*idle)(void *context), void *context);
/* Fails every active request with SHUTTING_DOWN. */
void pipeline_abort_all(struct pipeline *p);
unsigned pipeline_active(const struct pipeline *p);

enum pipeline_outcome {
	PIPELINE_OK = 0,      /* accepted, or already ended by an ERROR frame */
	PIPELINE_E_BAD_FRAME, /* the body is not a SUBMIT; *why. The connection should end */
	PIPELINE_E_DUPLICATE, /* the id is open already */
};

int pipeline_submit(struct pipeline *p, struct pipeline_client *client, uint64_t id,
	struct str body, const char **why);
/* Ends it with CANCELLED; unknown ids are ignored: it may just have ended. */
void pipeline_cancel(struct pipeline *p, struct pipeline_client *client, uint64_t id);
/* The client is gone: everything of it is aborted, nothing more is sent. */
void pipeline_client_gone(struct pipeline *p, struct pipeline_client *client);
/* Its output is high (true) or low again: its providers are paused or resumed. */
void pipeline_client_pressure(struct pipeline *p, struct pipeline_client *client, bool high);
