#pragma once

/*
 * What a provider's error means. The taxonomy is data (daemon/formats/tbl/errors.h). The text
 * given on is one line of at most ERRORS_MESSAGE_MAX bytes of the provider's message, without
 * control characters and without anything that looks like a key; where a key was refused it is
 * not given on at all. Stages: no I/O, no clock.
 */

#include <stdint.h>
#include <yyjson.h>
#include "base/buffer.h"
#include "base/str.h"
#include "daemon/formats/family.h"
#include "proto/msg.h"

#define ERRORS_MESSAGE_MAX 400

/* An error as the provider said it: views into its JSON, empty where it said nothing. */
struct errors_report {
	struct str message, type, code;
	unsigned http_status; /* of the answer; 200 for an error inside a good one */
};

/* The error in a JSON value of any of the known shapes; false when it holds none. */
bool errors_find(yyjson_val *root, struct errors_report *out);
/* Its class; never STATUS_OK. */
enum status errors_status(const struct family *family, const struct errors_report *report);
/* Fills *error, its message in text. Returns the class. */
enum status errors_fill(const struct family *family, const struct errors_report *report,
	struct buffer *text, struct msg_error *error);
/* A whole answer that is not 2xx, JSON or not. */
enum status errors_classify(const struct family *family, unsigned http_status, struct str body,
	struct buffer *text, struct msg_error *error);
