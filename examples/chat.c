#include <llmkit.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	llmkit *kit;
	llmkit_stream *stream;
	struct llmkit_event e = { 0 };
	llmkit_request *ask = llmkit_request_new(argc > 1 ? argv[1] : "openai/gpt-4o-mini");
	int r = llmkit_open(&kit, NULL);

	llmkit_request_add_message(ask, "user", argc > 2 ? argv[2] : "Say hello.");
	llmkit_request_set_stream(ask, true);
	if (r < 0 || (r = llmkit_submit(kit, ask, &stream)) < 0)
		return fprintf(stderr, "%s\n", llmkit_strerror(r)), 1;
	while (llmkit_stream_next(stream, -1, &e) == 0)
		if (e.type == LLMKIT_EVENT_TEXT)
			printf("%s", e.text.data), fflush(stdout);
		else if (e.type == LLMKIT_EVENT_ERROR)
			fprintf(stderr, "%s\n", e.error.message);
	llmkit_stream_close(stream);
	llmkit_request_free(ask);
	llmkit_close(kit);
	return e.type != LLMKIT_EVENT_END;
}
