#include "tests/fakeprovider/provider.h"

#include "tests/fakeprovider/admin.h"
#include "tests/fakeprovider/put.h"
#include "tests/fakeprovider/times.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int read_file(const char *path, struct buffer *out)
{
	aux_cleanup(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		put_check(buffer_reserve(out, 4096));
		n = read(fd, buffer_tail(out), 4096);
		if (n < 0)
			return -errno;
		out->end += (size_t)n;
	} while (n);
	return 0;
}

int provider_load_rules(struct provider *p, const char *path)
{
	aux_cleanup(buffer_deinit) struct buffer text = BUFFER_NULL;
	char error[512];
	int r = read_file(path, &text);

	if (r < 0) {
		fprintf(stderr, "fakeprovider: cannot read %s: %s\n", path, strerror(-r));
		return -EINVAL;
	}
	r = script_rules_parse(&p->rules, buffer_str(&text), error, sizeof(error));
	if (r < 0)
		fprintf(stderr, "%s: %s\n", path, error);
	return r;
}

void provider_deinit(struct provider *p)
{
	limiter_deinit(&p->limiter);
	script_rules_deinit(&p->rules);
	times_reset(p);
	arrival_close(&p->log);
}

static bool ends_with(struct str s, const char *end)
{
	size_t n = strlen(end);

	return s.length >= n && memcmp(s.data + s.length - n, end, n) == 0;
}

static const struct family *family_of(struct str path)
{
	if (ends_with(path, "/chat/completions"))
		return &family_openai;
	return ends_with(path, "/v1/messages") ? &family_anthropic : NULL;
}

/* The three places a script comes from, the later over the earlier. */
static int collect_script(
	struct provider *p, const struct request *r, struct script *s, char *error, size_t size)
{
	struct str rule = script_rules_find(&p->rules, request_path(r), r->model);
	struct str header = str_make(r->x_fake.text, r->x_fake.length), query = STR_NULL;
	const char *mark = r->model.length ? memchr(r->model.data, '?', r->model.length) : NULL;
	uint64_t hash = TIMES_HASH;
	int e;

	if (mark)
		query = str_make(mark + 1, r->model.length - (size_t)(mark + 1 - r->model.data));
	script_init(s);
	e = script_apply(s, rule, error, size);
	if (e == 0)
		e = script_apply(s, header, error, size);
	if (e == 0)
		e = script_apply(s, query, error, size);
	if (e < 0 || s->times == 0)
		return e;
	hash = times_hash(times_hash(times_hash(hash, rule), header), r->model);
	if (times_use(p, hash) >= (uint64_t)s->times)
		script_init(s);
	return 0;
}

/* What the real services refuse, so that a client which relies on less is found out. */
static int validate(const struct family *family, const struct request *r, struct fault *f)
{
	if (!r->doc)
		f->message = "The body is not a JSON object.";
	else if (!r->model.length)
		f->message = "model: Field required";
	else if (!yyjson_is_arr(yyjson_obj_get(yyjson_doc_get_root(r->doc), "messages")))
		f->message = "messages: Field required";
	else if (family->needs_version && !r->version.length)
		f->message = "anthropic-version: header is required";
	else if (family->needs_max_tokens && !r->has_max_tokens)
		f->message = "max_tokens: Field required";
	return f->message ? 400 : 0;
}

static int check_rate(struct provider *p, const struct request *r, uint64_t now_ns,
	struct answer_context *c, struct limiter_verdict *v)
{
	if (!p->limiter.count)
		return 0;
	put_check(limiter_admit(&p->limiter, times_hash(TIMES_HASH, request_key(r)), now_ns, v));
	c->verdict = v;
	if (v->admitted)
		return 0;
	p->counters.limited++;
	return 429;
}

/* 0, or the status of the refusal. */
static int judge(struct provider *p, const struct family *family, const struct request *r,
	uint64_t now_ns, struct answer_context *c, struct limiter_verdict *v, struct fault *f)
{
	int status;

	if (r->parser.method != HTTP_POST) {
		f->message = "Only POST is allowed here.";
		return 405;
	}
	if (p->required_key && !str_is(request_key(r), p->required_key))
		return 401;
	status = check_rate(p, r, now_ns, c, v);
	return status ? status : validate(family, r, f);
}

static void begin_answer(
	struct provider *p, struct request *r, const struct arrival_where *w, struct answer *a)
{
	const struct family *family = family_of(request_path(r));
	struct answer_context context = { .n = w->n, .created_s = (uint64_t)time(NULL) };
	struct limiter_verdict verdict;
	struct fault fault = { 0 };
	struct script script;
	char error[512];
	int status;

	context.script = &script;
	if (collect_script(p, r, &script, error, sizeof(error)) < 0) {
		script_init(&script);
		fault.message = error;
		answer_begin_error(
			a, family ? family : &family_openai, r->keep_alive, &context, 400, &fault);
		return;
	}
	if (!family) {
		fault.message = "Unknown path: POST .../chat/completions or .../v1/messages.";
		answer_begin_error(a, &family_openai, r->keep_alive, &context, 404, &fault);
		return;
	}
	status = judge(p, family, r, w->now_ns, &context, &verdict, &fault);
	if (status)
		answer_begin_error(a, family, r->keep_alive, &context, status, &fault);
	else
		answer_begin(a, family, r, &context);
	a->limited = context.verdict && !verdict.admitted;
}

bool provider_begin(
	struct provider *p, struct request *r, struct arrival_where *w, struct answer *a)
{
	struct provider_counters *c = &p->counters;

	if (admin_begin(p, r, a))
		return false;
	request_read_body(r);
	w->n = ++c->requests;
	if (++c->in_flight > c->in_flight_max)
		c->in_flight_max = c->in_flight;
	arrival_begin(&p->log, w, r);
	begin_answer(p, r, w, a);
	return true;
}

void provider_end(struct provider *p, const struct answer *a, uint64_t now_ns, const char *outcome)
{
	p->counters.in_flight--;
	if (strcmp(outcome, "aborted_by_client") == 0)
		p->counters.aborted++;
	arrival_end(&p->log, a->n, now_ns,
		&(struct arrival_result){
			.outcome = outcome,
			.status = a->status,
			.bytes = a->reply.body_bytes,
			.input_tokens = answer_input_tokens(a),
			.output_tokens = answer_output_tokens(a),
		});
}
