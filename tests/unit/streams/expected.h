/* { file, family, what must come out }; see tests/unit/test-formats.c */
{ "anthropic-error-first.sse", "anthropic", "PROVIDER_OVERLOADED" },
	{ "anthropic-error-mid.sse", "anthropic",
		"S(msg_013,claude-sonnet-4-20250514) T(Half) PROVIDER_OVERLOADED" },
	{ "anthropic-no-start.sse", "anthropic", "MALFORMED" },
	{ "anthropic-refusal.sse", "anthropic",
		"S(msg_013,claude-sonnet-4-20250514) T(No.) END(content_filter) U(9,5,-1,-1,-1)" },
	{ "anthropic-text.sse", "anthropic",
		"S(msg_013,claude-sonnet-4-20250514) T(Grüße) T(!\n) END(stop) "
		"U(2125,15,2000,100,-1)" },
	{ "anthropic-thinking.sse", "anthropic",
		"S(msg_013,claude-sonnet-4-20250514) R(27 * 453) R( = 12231) T(12231) "
		"END(length) U(12,40,-1,-1,-1)" },
	{ "anthropic-tools.sse", "anthropic",
		"S(msg_013,claude-sonnet-4-20250514) T(Okay) C(0:toolu_01,get_weather,) "
		"C(0:,,{\"location\":) C(0:,, \"Köln\"}) C(1:toolu_02,get_time,) C(1:,,{}) "
		"END(tool_calls) U(480,89,-1,-1,-1)" },
	{ "azure.sse", "openai",
		"S(chatcmpl-az,gpt-4o) T(Yes) END(content_filter) U(-1,-1,-1,-1,-1)" },
	{ "deepseek.sse", "deepseek",
		"S(ds1,deepseek-reasoner) R(First) T(Done) END(stop) U(40,12,32,-1,6)" },
	{ "finish-error.sse", "openrouter",
		"S(gen-1751-x,meta-llama/llama-3.1-8b-instruct) T(Half) PROVIDER_ERROR" },
	{ "gemini-tools.sse", "gemini",
		"S(gm,gemini-2.5-flash) C(0:call_1,f1,{\"a\":1}) C(1:call_2,f2,{\"a\":2}) "
		"END(tool_calls) U(-1,-1,-1,-1,-1)" },
	{ "groq.sse", "groq",
		"S(chatcmpl-gq,llama-3.1-8b-instant) T(Hi) END(stop) U(38,3,-1,-1,-1)" },
	{ "mistral-thinking.sse", "mistral",
		"S(m1,magistral-medium) R(Well) T(Fine) T(!) END(length) U(3,4,-1,-1,-1)" },
	{ "openai-bad-json.sse", "openai",
		"S(chatcmpl-BqEt5,gpt-4o-mini-2024-07-18) T(a) MALFORMED" },
	{ "openai-bad-utf8.sse", "openai",
		"S(chatcmpl-BqEt5,gpt-4o-mini-2024-07-18) T(a) MALFORMED" },
	{ "openai-choice-1.sse", "openai",
		"S(chatcmpl-BqEt5,gpt-4o-mini-2024-07-18) T(a) MALFORMED" },
	{ "openai-done-only.sse", "openai",
		"S(chatcmpl-BqEt5,gpt-4o-mini-2024-07-18) T(Cut) TRUNCATED" },
	{ "openai-error-event.sse", "openai", "PROVIDER_OVERLOADED" },
	{ "openai-error-first.sse", "openai", "PROVIDER_LIMITED" },
	{ "openai-error-mid.sse", "openai",
		"S(chatcmpl-BqEt5,gpt-4o-mini-2024-07-18) T(Par) PROVIDER_ERROR" },
	{ "openai-nul.sse", "openai", "MALFORMED" },
	{ "openai-reasoning.sse", "openai",
		"S(r1,qwen3) R(Let me) R( see.) T(4) END(length) U(5,7,-1,-1,-1)" },
	{ "openai-refusal.sse", "openai",
		"S(chatcmpl-BqEt5,gpt-4o-mini-2024-07-18) T(I cannot) T( do that.) "
		"END(content_filter) U(-1,-1,-1,-1,-1)" },
	{ "openai-text.sse", "openai",
		"S(chatcmpl-BqEt5,gpt-4o-mini-2024-07-18) T(Grüße) T(, \"world\" 🌍) T(\n) "
		"END(stop) U(19,10,8,-1,4)" },
	{ "openai-tools.sse", "openai",
		"S(chatcmpl-BqEt5,gpt-4o-mini-2024-07-18) C(0:call_A1,get_weather,) "
		"C(0:,,{\"city\":) C(0:,,\"Köln\"}) C(1:call_B2,get_time,) C(1:,,{}) "
		"END(tool_calls) U(80,30,-1,-1,-1)" },
	{ "openrouter-error.sse", "openrouter",
		"S(gen-1751-x,meta-llama/llama-3.1-8b-instruct) T(Half) PROVIDER_ERROR" },
	{ "openrouter.sse", "openrouter",
		"S(gen-1751-x,meta-llama/llama-3.1-8b-instruct) R(Hmm) T(Ok) END(stop) "
		"U(4,2,-1,-1,-1)" },
	{ "perplexity.sse", "perplexity", "S(px,sonar) T(One) T( two) END(stop) U(6,3,-1,-1,-1)" },
	{ "openai-tools-mixed.sse", "openai",
		"S(c9,m) C(0:t0,f,) C(1:t1,g,) C(0:,,{) C(1:,,{}) C(0:,,}) END(tool_calls) "
		"U(-1,-1,-1,-1,-1)" },
