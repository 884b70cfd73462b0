/*
 * The providers known by name: FAMILY("name", FORMAT, "base URL", "chat path", AUTH, key variable
 * or NULL, quirks). The base URL is what a provider's own client library calls so. With
 * FAMILY_ALL also those whose format is not compiled in.
 */
#if defined(FORMAT_OPENAI) || defined(FAMILY_ALL)
FAMILY("openai", OPENAI, "https://api.openai.com/v1", "/chat/completions", BEARER,
	"OPENAI_API_KEY", 0)
FAMILY("groq", OPENAI, "https://api.groq.com/openai/v1", "/chat/completions", BEARER,
	"GROQ_API_KEY", FAMILY_USAGE_X_GROQ)
FAMILY("mistral", OPENAI, "https://api.mistral.ai/v1", "/chat/completions", BEARER,
	"MISTRAL_API_KEY", FAMILY_SEED_IS_RANDOM_SEED | FAMILY_NO_STREAM_OPTIONS)
FAMILY("deepseek", OPENAI, "https://api.deepseek.com", "/chat/completions", BEARER,
	"DEEPSEEK_API_KEY", 0)
FAMILY("xai", OPENAI, "https://api.x.ai/v1", "/chat/completions", BEARER, "XAI_API_KEY", 0)
FAMILY("together", OPENAI, "https://api.together.xyz/v1", "/chat/completions", BEARER,
	"TOGETHER_API_KEY", 0)
FAMILY("fireworks", OPENAI, "https://api.fireworks.ai/inference/v1", "/chat/completions", BEARER,
	"FIREWORKS_API_KEY", 0)
FAMILY("cerebras", OPENAI, "https://api.cerebras.ai/v1", "/chat/completions", BEARER,
	"CEREBRAS_API_KEY", 0)
FAMILY("openrouter", OPENAI, "https://openrouter.ai/api/v1", "/chat/completions", BEARER,
	"OPENROUTER_API_KEY", 0)
FAMILY("perplexity", OPENAI, "https://api.perplexity.ai", "/chat/completions", BEARER,
	"PERPLEXITY_API_KEY", FAMILY_NO_STREAM_OPTIONS)
FAMILY("deepinfra", OPENAI, "https://api.deepinfra.com/v1/openai", "/chat/completions", BEARER,
	"DEEPINFRA_API_KEY", 0)
FAMILY("nvidia", OPENAI, "https://integrate.api.nvidia.com/v1", "/chat/completions", BEARER,
	"NVIDIA_API_KEY", 0)
FAMILY("sambanova", OPENAI, "https://api.sambanova.ai/v1", "/chat/completions", BEARER,
	"SAMBANOVA_API_KEY", 0)
FAMILY("moonshot", OPENAI, "https://api.moonshot.ai/v1", "/chat/completions", BEARER,
	"MOONSHOT_API_KEY", 0)
FAMILY("zhipu", OPENAI, "https://open.bigmodel.cn/api/paas/v4", "/chat/completions", BEARER,
	"ZHIPUAI_API_KEY", 0)
FAMILY("dashscope", OPENAI, "https://dashscope.aliyuncs.com/compatible-mode/v1",
	"/chat/completions", BEARER, "DASHSCOPE_API_KEY", 0)
FAMILY("gemini", OPENAI, "https://generativelanguage.googleapis.com/v1beta/openai",
	"/chat/completions", BEARER, "GEMINI_API_KEY", 0)
FAMILY("cohere", OPENAI, "https://api.cohere.ai/compatibility/v1", "/chat/completions", BEARER,
	"COHERE_API_KEY", 0)
FAMILY("scaleway", OPENAI, "https://api.scaleway.ai/v1", "/chat/completions", BEARER,
	"SCW_SECRET_KEY", 0)
FAMILY("vllm", OPENAI, "http://localhost:8000/v1", "/chat/completions", OPTIONAL, NULL, 0)
FAMILY("sglang", OPENAI, "http://localhost:30000/v1", "/chat/completions", OPTIONAL, NULL, 0)
FAMILY("llamacpp", OPENAI, "http://localhost:8080/v1", "/chat/completions", OPTIONAL, NULL, 0)
FAMILY("lmstudio", OPENAI, "http://localhost:1234/v1", "/chat/completions", OPTIONAL, NULL, 0)
FAMILY("ollama", OPENAI, "http://localhost:11434/v1", "/chat/completions", OPTIONAL, NULL, 0)
#endif
#if defined(FORMAT_ANTHROPIC) || defined(FAMILY_ALL)
FAMILY("anthropic", ANTHROPIC, "https://api.anthropic.com", "/v1/messages", X_API_KEY,
	"ANTHROPIC_API_KEY", 0)
#endif
