#include "proto/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yyjson.h>
#include "base/aux.h"
#include "base/error.h"

#define JSON_DEPTH_MAX 32

struct json {
	yyjson_mut_doc *doc;
	yyjson_mut_val *open[JSON_DEPTH_MAX];
	unsigned depth;
	int error; /* the first one; 0 or -errno */
};

struct json *json_new(void)
{
	aux_cleanup(json_freep) struct json *j = calloc(1, sizeof(*j));

	if (!j)
		return NULL;
	j->doc = yyjson_mut_doc_new(NULL);
	if (!j->doc)
		return NULL;
	return steal_ptr(j);
}

void json_free(struct json *j)
{
	if (!j)
		return;
	yyjson_mut_doc_free(j->doc);
	free(j);
}

static void json_fail(struct json *j, int error)
{
	if (j->error == 0)
		j->error = error;
}

/* Puts the value in its place; value NULL: there was no memory for it. */
static void json_add(struct json *j, const char *key, yyjson_mut_val *value)
{
	yyjson_mut_val *parent = j->depth ? j->open[j->depth - 1] : NULL;
	bool in_object = yyjson_mut_is_obj(parent);

	if (!value) {
		json_fail(j, -ENOMEM);
	} else if (in_object != (key != NULL) || (!parent && yyjson_mut_doc_get_root(j->doc))) {
		json_fail(j, -EINVAL);
	} else if (!parent) {
		yyjson_mut_doc_set_root(j->doc, value);
	} else if (!in_object) {
		yyjson_mut_arr_append(parent, value);
	} else {
		yyjson_mut_val *name = yyjson_mut_strcpy(j->doc, key);

		if (!name || !yyjson_mut_obj_add(parent, name, value))
			json_fail(j, -ENOMEM);
	}
}

static void json_begin(struct json *j, const char *key, yyjson_mut_val *container)
{
	if (j->depth == JSON_DEPTH_MAX) {
		json_fail(j, -EINVAL);
		return;
	}
	json_add(j, key, container);
	if (j->error == 0)
		j->open[j->depth++] = container;
}

static void json_end(struct json *j, bool object)
{
	/* After an error the containers of the caller and ours no longer pair. */
	if (j->error != 0)
		return;
	if (j->depth == 0 || yyjson_mut_is_obj(j->open[j->depth - 1]) != object)
		json_fail(j, -EINVAL);
	else
		j->depth--;
}

void json_object_begin(struct json *j, const char *key)
{
	json_begin(j, key, yyjson_mut_obj(j->doc));
}

void json_object_end(struct json *j)
{
	json_end(j, true);
}

void json_array_begin(struct json *j, const char *key)
{
	json_begin(j, key, yyjson_mut_arr(j->doc));
}

void json_array_end(struct json *j)
{
	json_end(j, false);
}

void json_str(struct json *j, const char *key, struct str value)
{
	json_add(j, key, yyjson_mut_strncpy(j->doc, value.data ? value.data : "", value.length));
}

void json_uint(struct json *j, const char *key, uint64_t value)
{
	json_add(j, key, yyjson_mut_uint(j->doc, value));
}

void json_int(struct json *j, const char *key, int64_t value)
{
	json_add(j, key, yyjson_mut_sint(j->doc, value));
}

void json_real(struct json *j, const char *key, double value)
{
	json_add(j, key, yyjson_mut_real(j->doc, value));
}

void json_bool(struct json *j, const char *key, bool value)
{
	json_add(j, key, yyjson_mut_bool(j->doc, value));
}

void json_raw(struct json *j, const char *key, struct str text)
{
	yyjson_read_err fault = { 0 };
	/* Numbers stay as they are written: no digit of the caller's is lost. */
	yyjson_doc *doc = yyjson_read_opts(
		(char *)(uintptr_t)text.data, text.length, YYJSON_READ_NUMBER_AS_RAW, NULL, &fault);

	if (!doc) {
		json_fail(j, fault.code == YYJSON_READ_ERROR_MEMORY_ALLOCATION ? -ENOMEM : -EINVAL);
		return;
	}
	json_add(j, key, yyjson_val_mut_copy(j->doc, yyjson_doc_get_root(doc)));
	yyjson_doc_free(doc);
}

int json_finish(struct json *j, bool pretty, struct buffer *out)
{
	aux_cleanup(freep) char *text = NULL;
	yyjson_write_err fault = { 0 };
	size_t length = 0;
	int r;

	if (j->depth != 0 || !yyjson_mut_doc_get_root(j->doc))
		json_fail(j, -EINVAL);
	if (j->error != 0)
		return error_origin(j->error);
	text = yyjson_mut_write_opts(j->doc,
		pretty ? YYJSON_WRITE_PRETTY_TWO_SPACES : YYJSON_WRITE_NOFLAG, NULL, &length,
		&fault);
	if (!text && fault.code == YYJSON_WRITE_ERROR_MEMORY_ALLOCATION)
		return error_origin(-ENOMEM);
	if (!text)
		return error_origin(-EINVAL);
	r = buffer_append(out, text, length);
	return error_trace(r);
}

bool json_is_object(struct str text, size_t *position)
{
	yyjson_read_err fault = { 0 };
	yyjson_doc *doc = yyjson_read_opts(
		(char *)(uintptr_t)text.data, text.length, YYJSON_READ_NOFLAG, NULL, &fault);
	bool is_object = yyjson_is_obj(yyjson_doc_get_root(doc));

	*position = is_object ? 0 : fault.pos;
	yyjson_doc_free(doc);
	return is_object;
}

/* ---- reading ---- */

#define JSON_PATH_MAX 256
#define JSON_READ_DEPTH_MAX 32

struct json_walk {
	int (*fn)(void *context, const char *path, struct str value);
	void *context;
	char path[JSON_PATH_MAX];
	unsigned depth;
};

static int json_walk_value(struct json_walk *w, size_t length, yyjson_val *value);

static int json_walk_scalar(struct json_walk *w, yyjson_val *value)
{
	size_t length = 0;
	aux_cleanup(freep) char *text = NULL;

	if (yyjson_is_str(value))
		return w->fn(w->context, w->path,
			str_make(yyjson_get_str(value), yyjson_get_len(value)));
	text = yyjson_val_write(value, YYJSON_WRITE_NOFLAG, &length);
	return text ? w->fn(w->context, w->path, str_make(text, length)) : error_origin(-ENOMEM);
}

static int json_walk_object(struct json_walk *w, size_t length, yyjson_val *object)
{
	yyjson_obj_iter members = yyjson_obj_iter_with(object);
	yyjson_val *key;
	int r = 0;

	while (r == 0 && (key = yyjson_obj_iter_next(&members))) {
		int n = snprintf(w->path + length, JSON_PATH_MAX - length, "%s%s",
			length ? "." : "", yyjson_get_str(key));

		r = n < (int)(JSON_PATH_MAX - length) ?
			json_walk_value(w, length + (size_t)n, yyjson_obj_iter_get_val(key)) :
			error_origin(-EINVAL);
	}
	return r;
}

static int json_walk_array(struct json_walk *w, size_t length, yyjson_val *array)
{
	yyjson_arr_iter elements = yyjson_arr_iter_with(array);
	yyjson_val *element;
	size_t index = 0;
	int r = 0;

	while (r == 0 && (element = yyjson_arr_iter_next(&elements))) {
		int n = snprintf(w->path + length, JSON_PATH_MAX - length, "[%zu]", index++);

		r = n < (int)(JSON_PATH_MAX - length) ?
			json_walk_value(w, length + (size_t)n, element) :
			error_origin(-EINVAL);
	}
	return r;
}

static int json_walk_value(struct json_walk *w, size_t length, yyjson_val *value)
{
	int r;

	w->path[length] = '\0';
	if (!yyjson_is_ctn(value))
		return json_walk_scalar(w, value);
	if (w->depth >= JSON_READ_DEPTH_MAX)
		return error_origin(-EINVAL);
	w->depth++;
	r = yyjson_is_obj(value) ? json_walk_object(w, length, value) :
				   json_walk_array(w, length, value);
	w->depth--;
	return r;
}

static void json_doc_freep(yyjson_doc **doc)
{
	yyjson_doc_free(*doc);
}

int json_flatten(struct str text, int (*fn)(void *context, const char *path, struct str value),
	void *context)
{
	aux_cleanup(json_doc_freep) yyjson_doc *doc = yyjson_read(text.data, text.length, 0);
	struct json_walk walk = { .fn = fn, .context = context };

	return doc ? json_walk_value(&walk, 0, yyjson_doc_get_root(doc)) : error_origin(-EINVAL);
}

bool json_get_str(struct str text, const char *key, char *out, size_t size)
{
	aux_cleanup(json_doc_freep) yyjson_doc *doc = yyjson_read(text.data, text.length, 0);
	yyjson_val *value = yyjson_obj_get(yyjson_doc_get_root(doc), key);
	size_t length = yyjson_get_len(value);

	if (!yyjson_is_str(value) || length >= size)
		return false;
	memcpy(out, yyjson_get_str(value), length);
	out[length] = '\0';
	return true;
}
