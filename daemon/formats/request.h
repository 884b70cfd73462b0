#pragma once

/*
 * What the formats share while they build a request: the client's JSON, checked, and a writer
 * that appends JSON text in order. Values are written as they were read, numbers digit by digit.
 * Private to this folder.
 */

#include <yyjson.h>
#include "base/aux.h"
#include "daemon/formats/format.h"

struct request {
	const struct format_request *q;
	struct format_plan *plan;
	yyjson_doc *doc;
	yyjson_val *root;     /* an object */
	yyjson_val *messages; /* a non-empty array */
	struct buffer *out;
	size_t out_length; /* of out before us */
	int r;             /* the first failure of the writer: later calls do nothing */
};

/* Reads and checks what every format needs. 0, -ENOMEM, FORMAT_E_REQUEST. */
int request_init(struct request *b, const struct format_request *q, struct buffer *out,
	struct format_plan *plan);
void request_deinit(struct request *b);
/* The verdict of the whole build; takes back what was written unless it is 0. */
int request_finish(struct request *b, int r, const char **why);
/* Writes the reason; FORMAT_E_REQUEST. */
int request_refuse(struct request *b, const char *format, ...) aux_printf(2, 3);

/* Appends text as it is. */
void request_raw(struct request *b, const char *text);
/* Begins a member or an element: the comma, and the key unless it is NULL. */
void request_next(struct request *b, const char *key);
void request_value(struct request *b, yyjson_val *v);
void request_string(struct request *b, struct str text);
/* A member copied under its own key. */
void request_copy(struct request *b, yyjson_val *key, yyjson_val *v);
