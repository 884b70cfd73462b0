#include "tests/fakeprovider/admin.h"

#include "tests/fakeprovider/put.h"
#include "tests/fakeprovider/times.h"
#include <yyjson.h>

static void answer_document(struct answer *a, bool keep_alive, int status, yyjson_mut_doc *doc)
{
	char *text = yyjson_mut_write(doc, 0, NULL);

	yyjson_mut_doc_free(doc);
	put_check(text ? 0 : -1);
	answer_begin_json(a, keep_alive, status, str_of(text));
	free(text);
}

static void begin_stats(const struct provider *p, const struct request *r, struct answer *a)
{
	const struct provider_counters *c = &p->counters;
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_mut_obj(doc);

	yyjson_mut_doc_set_root(doc, root);
	yyjson_mut_obj_add_uint(doc, root, "accepted", c->accepted);
	yyjson_mut_obj_add_uint(doc, root, "open", c->open);
	yyjson_mut_obj_add_uint(doc, root, "tls_handshakes", c->tls_handshakes);
	yyjson_mut_obj_add_uint(doc, root, "tls_resumed", c->tls_resumed);
	yyjson_mut_obj_add_uint(doc, root, "requests", c->requests);
	yyjson_mut_obj_add_uint(doc, root, "in_flight", c->in_flight);
	yyjson_mut_obj_add_uint(doc, root, "in_flight_max", c->in_flight_max);
	yyjson_mut_obj_add_uint(doc, root, "limited", c->limited);
	yyjson_mut_obj_add_uint(doc, root, "aborted", c->aborted);
	answer_document(a, r->keep_alive, 200, doc);
}

static void begin_result(const struct request *r, struct answer *a, int status, const char *error)
{
	yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
	yyjson_mut_val *root = yyjson_mut_obj(doc);

	yyjson_mut_doc_set_root(doc, root);
	yyjson_mut_obj_add_bool(doc, root, "ok", !error);
	if (error)
		yyjson_mut_obj_add_str(doc, root, "error", error);
	answer_document(a, r->keep_alive, status, doc);
}

static void begin_script(struct provider *p, const struct request *r, struct answer *a)
{
	char error[512];
	int e = script_rules_parse(&p->rules, buffer_str(&r->body), error, sizeof(error));

	begin_result(r, a, e < 0 ? 400 : 200, e < 0 ? error : NULL);
}

/* In flight and open are facts, not counts: they stay. */
static void begin_reset(struct provider *p, const struct request *r, struct answer *a)
{
	struct provider_counters *c = &p->counters;

	*c = (struct provider_counters){
		.open = c->open, .in_flight = c->in_flight, .in_flight_max = c->in_flight
	};
	limiter_reset(&p->limiter);
	times_reset(p);
	begin_result(r, a, 200, NULL);
}

bool admin_begin(struct provider *p, struct request *r, struct answer *a)
{
	struct str path = request_path(r);
	bool post = r->parser.method == HTTP_POST;

	if (path.length < 7 || memcmp(path.data, "/_fake/", 7) != 0)
		return false;
	if (str_is(path, "/_fake/stats") && !post)
		begin_stats(p, r, a);
	else if (str_is(path, "/_fake/script") && post)
		begin_script(p, r, a);
	else if (str_is(path, "/_fake/reset") && post)
		begin_reset(p, r, a);
	else
		begin_result(
			r, a, 404, "GET /_fake/stats, POST /_fake/script or POST /_fake/reset");
	return true;
}
