#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "libclient/internal.h"
#include "proto/json.h"
#include "proto/utf8.h"

/*
 * Pieces are turned to JSON text by the setters, which therefore find every mistake where it is
 * made; a submit only joins them. A request being submitted is never written, so threads
 * may share one.
 */

struct piece {
	struct piece *next;
	size_t name_length; /* of "name": in text, for members */
	size_t length;
	char text[];
};

struct llmkit_request {
	char *model, *route, *user, *tag;
	uint64_t timeout_ms;
	char *json; /* made from JSON: the whole body */
	size_t json_length;
	struct piece *messages, **messages_end;
	struct piece *members;
};

static int request_error(int r)
{
	switch (r) {
	case 0:
		return LLMKIT_OK;
	case -EINVAL:
		return LLMKIT_E_ARGUMENT;
	default:
		return LLMKIT_E_NO_MEMORY;
	}
}

/* text as a JSON string; bad UTF-8 is LLMKIT_E_ARGUMENT. */
static int request_quote(const char *text, struct buffer *out)
{
	aux_cleanup(json_freep) struct json *j = json_new();

	if (!j)
		return LLMKIT_E_NO_MEMORY;
	json_str(j, NULL, str_of(text));
	return request_error(json_finish(j, false, out));
}

/* What the daemon would accept; empty is not a name. */
static bool request_is_name(struct str name)
{
	return name.length > 0 && name.length <= MSG_NAME_MAX && utf8_is_name(name);
}

static int request_set_string(char **field, const char *value)
{
	char *copy;

	if (!request_is_name(str_of(value)))
		return LLMKIT_E_ARGUMENT;
	copy = strdup(value);
	if (!copy)
		return LLMKIT_E_NO_MEMORY;
	free(*field);
	*field = copy;
	return LLMKIT_OK;
}

llmkit_request *llmkit_request_new(const char *model)
{
	llmkit_request *request = calloc(1, sizeof(*request));

	if (!request)
		return NULL;
	request->messages_end = &request->messages;
	if (model && *model) {
		request->model = strdup(model);
		if (!request->model) {
			free(request);
			return NULL;
		}
	}
	return request;
}

int llmkit_request_from_json(
	llmkit_request **out, const char *model, const char *json, size_t length)
{
	llmkit_request *request;
	size_t position;

	if (!out || !json)
		return LLMKIT_E_ARGUMENT;
	*out = NULL;
	if (!json_is_object(str_make(json, length), &position))
		return LLMKIT_E_JSON;
	request = llmkit_request_new(model);
	if (!request)
		return LLMKIT_E_NO_MEMORY;
	request->json = malloc(length);
	if (!request->json) {
		llmkit_request_free(request);
		return LLMKIT_E_NO_MEMORY;
	}
	memcpy(request->json, json, length);
	request->json_length = length;
	*out = request;
	return LLMKIT_OK;
}

static void piece_free_all(struct piece *piece)
{
	while (piece) {
		struct piece *next = piece->next;

		free(piece);
		piece = next;
	}
}

void llmkit_request_free(llmkit_request *request)
{
	if (!request)
		return;
	piece_free_all(request->messages);
	piece_free_all(request->members);
	free(request->model);
	free(request->route);
	free(request->user);
	free(request->tag);
	free(request->json);
	free(request);
}

int llmkit_request_set_route(llmkit_request *request, const char *route)
{
	return request ? request_set_string(&request->route, route) : LLMKIT_E_ARGUMENT;
}

int llmkit_request_set_user(llmkit_request *request, const char *user)
{
	return request ? request_set_string(&request->user, user) : LLMKIT_E_ARGUMENT;
}

int llmkit_request_set_tag(llmkit_request *request, const char *tag)
{
	return request ? request_set_string(&request->tag, tag) : LLMKIT_E_ARGUMENT;
}

int llmkit_request_set_timeout_ms(llmkit_request *request, uint64_t timeout_ms)
{
	if (!request)
		return LLMKIT_E_ARGUMENT;
	request->timeout_ms = timeout_ms;
	return LLMKIT_OK;
}

static struct piece *piece_new(const struct buffer *text, size_t name_length)
{
	size_t length = buffer_length(text);
	struct piece *piece = malloc(sizeof(*piece) + length);

	if (!piece)
		return NULL;
	piece->next = NULL;
	piece->name_length = name_length;
	piece->length = length;
	memcpy(piece->text, buffer_head(text), length);
	return piece;
}

int llmkit_request_add_message(llmkit_request *request, const char *role, const char *content)
{
	aux_cleanup(buffer_deinit) struct buffer text = BUFFER_NULL;
	aux_cleanup(json_freep) struct json *j = NULL;
	struct piece *piece;
	int r;

	if (!request || request->json || !role || !*role || !content)
		return LLMKIT_E_ARGUMENT;
	j = json_new();
	if (!j)
		return LLMKIT_E_NO_MEMORY;
	json_object_begin(j, NULL);
	json_str(j, "role", str_of(role));
	json_str(j, "content", str_of(content));
	json_object_end(j);
	r = request_error(json_finish(j, false, &text));
	if (r < 0)
		return r;
	piece = piece_new(&text, 0);
	if (!piece)
		return LLMKIT_E_NO_MEMORY;
	*request->messages_end = piece;
	request->messages_end = &piece->next;
	return LLMKIT_OK;
}

/* The member as "name":value; one of the same name is replaced. */
static int request_put_member(llmkit_request *request, const char *name, struct json *value)
{
	aux_cleanup(buffer_deinit) struct buffer text = BUFFER_NULL;
	struct piece *piece, **at = &request->members;
	size_t name_length;
	int r = request_quote(name, &text);

	if (r < 0)
		return r;
	if (buffer_append(&text, ":", 1) < 0)
		return LLMKIT_E_NO_MEMORY;
	name_length = buffer_length(&text);
	r = request_error(json_finish(value, false, &text));
	if (r < 0)
		return r;
	piece = piece_new(&text, name_length);
	if (!piece)
		return LLMKIT_E_NO_MEMORY;
	while (*at &&
		!str_equal(str_make((*at)->text, (*at)->name_length),
			str_make(piece->text, name_length)))
		at = &(*at)->next;
	if (*at) {
		piece->next = (*at)->next;
		free(*at);
	}
	*at = piece;
	return LLMKIT_OK;
}

/* A builder for the value of a member, or why there can be none. */
static int request_value(llmkit_request *request, struct json **out)
{
	if (!request || request->json)
		return LLMKIT_E_ARGUMENT;
	*out = json_new();
	return *out ? LLMKIT_OK : LLMKIT_E_NO_MEMORY;
}

int llmkit_request_set_stream(llmkit_request *request, bool stream)
{
	aux_cleanup(json_freep) struct json *value = NULL;
	int r = request_value(request, &value);

	if (r < 0)
		return r;
	json_bool(value, NULL, stream);
	return request_put_member(request, "stream", value);
}

int llmkit_request_set_max_tokens(llmkit_request *request, uint32_t max_tokens)
{
	aux_cleanup(json_freep) struct json *value = NULL;
	int r = request_value(request, &value);

	if (r < 0)
		return r;
	json_uint(value, NULL, max_tokens);
	return request_put_member(request, "max_tokens", value);
}

int llmkit_request_set_temperature(llmkit_request *request, double temperature)
{
	aux_cleanup(json_freep) struct json *value = NULL;
	int r = request_value(request, &value);

	if (r < 0)
		return r;
	if (!(temperature >= 0 && temperature <= 1000))
		return LLMKIT_E_ARGUMENT;
	json_real(value, NULL, temperature);
	return request_put_member(request, "temperature", value);
}

int llmkit_request_set_member(llmkit_request *request, const char *name, const char *json)
{
	aux_cleanup(json_freep) struct json *value = NULL;
	int r;

	if (!name || !*name || !json || strcmp(name, "messages") == 0)
		return LLMKIT_E_ARGUMENT;
	r = request_value(request, &value);
	if (r < 0)
		return r;
	json_raw(value, NULL, str_of(json));
	r = request_put_member(request, name, value);
	return r == LLMKIT_E_ARGUMENT ? LLMKIT_E_JSON : r;
}

static int request_join(const struct llmkit_request *request, struct buffer *body)
{
	int r = buffer_printf(body, "{\"messages\":[");

	for (const struct piece *p = request->messages; p && r == 0; p = p->next) {
		r = buffer_append(body, p->text, p->length);
		if (r == 0 && p->next)
			r = buffer_append(body, ",", 1);
	}
	if (r == 0)
		r = buffer_append(body, "]", 1);
	for (const struct piece *p = request->members; p && r == 0; p = p->next) {
		r = buffer_append(body, ",", 1);
		if (r == 0)
			r = buffer_append(body, p->text, p->length);
	}
	return r == 0 ? buffer_append(body, "}", 1) : r;
}

int request_render(
	const struct llmkit_request *request, struct buffer *body, struct msg_submit *out)
{
	if (!request->json && (!request->messages || (!request->model && !request->route)))
		return LLMKIT_E_ARGUMENT;
	if (request->model && !request_is_name(str_of(request->model)))
		return LLMKIT_E_ARGUMENT;
	if (!request->json && request_join(request, body) < 0)
		return LLMKIT_E_NO_MEMORY;
	*out = (struct msg_submit){
		.model = str_of(request->model),
		.route = str_of(request->route),
		.user = str_of(request->user),
		.tag = str_of(request->tag),
		.timeout_ms = request->timeout_ms,
		.body = request->json ? str_make(request->json, request->json_length) :
					buffer_str(body),
	};
	return LLMKIT_OK;
}
