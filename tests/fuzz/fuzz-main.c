/*
 * Drives a fuzz target without libFuzzer: NAME [ITERATIONS [FIRST [FILE ...]]]. Each input
 * follows from its number alone, and a crash names the number, so "NAME 1 NUMBER" repeats it.
 * Prints TAP.
 */

#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include "base/aux.h"
#include "tests/unit/splitmix.h"

#define INPUT_MAX 4096
#define EXAMPLES_MAX 256

static struct buffer examples[EXAMPLES_MAX];
static unsigned example_count;
static volatile sig_atomic_t current;

static void on_crash(int number)
{
	char text[] = "not ok 1 - input          0\n", *at = text + sizeof(text) - 2;

	for (sig_atomic_t n = current; n > 0 && at > text + 16; n /= 10)
		*--at = (char)('0' + n % 10);
	if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
		_exit(1);
	signal(number, SIG_DFL);
	raise(number);
}

static int read_file(const char *path, struct buffer *out)
{
	FILE *file = fopen(path, "re");
	size_t n = 0;
	int r;

	if (!file)
		return -errno;
	r = buffer_reserve(out, INPUT_MAX);
	if (r == 0)
		n = fread(buffer_tail(out), 1, INPUT_MAX, file);
	out->end += n;
	fclose(file);
	return r;
}

static int gather(int files, char **paths)
{
	while (fuzz_example && example_count < EXAMPLES_MAX &&
		fuzz_example(example_count, &examples[example_count]))
		example_count++;
	for (int i = 0; i < files && example_count < EXAMPLES_MAX; i++) {
		int r = read_file(paths[i], &examples[example_count]);

		if (r < 0) {
			fprintf(stderr, "%s: %s\n", paths[i], strerror(-r));
			return r;
		}
		example_count++;
	}
	return 0;
}

static size_t random_input(uint64_t *seed, uint8_t *input)
{
	size_t size = splitmix_below(seed, splitmix_below(seed, 8) ? 64 : INPUT_MAX);

	for (size_t i = 0; i < size; i++)
		input[i] = (uint8_t)splitmix_next(seed);
	return size;
}

/* One change at a random place; returns the new size. */
static size_t mutate(uint64_t *seed, uint8_t *input, size_t size)
{
	static const uint8_t telling[] = { 0, 1, 0x7f, 0x80, 0xc0, 0xc1, 0xff, '\n', '\r', '"' };
	size_t at = splitmix_below(seed, size), n = 1 + splitmix_below(seed, 8);

	switch (splitmix_below(seed, 6)) {
	case 0:
		input[at] = (uint8_t)splitmix_next(seed);
		return size;
	case 1:
		input[at] ^= (uint8_t)(1u << splitmix_below(seed, 8));
		return size;
	case 2:
		input[at] = telling[splitmix_below(seed, sizeof(telling))];
		return size;
	case 3: /* cut out */
		n = min_u64(n, size - at);
		memmove(input + at, input + at + n, size - at - n);
		return size - n;
	case 4: /* repeat */
		n = min_u64(min_u64(n, size - at), INPUT_MAX - size);
		memmove(input + at + n, input + at, size - at);
		return size + n;
	default: /* cut off */
		return at;
	}
}

static size_t mutated_example(uint64_t *seed, uint8_t *input)
{
	const struct buffer *b = &examples[splitmix_below(seed, example_count)];
	size_t size = min_u64(buffer_length(b), INPUT_MAX);

	if (size > 0)
		memcpy(input, buffer_head(b), size);
	for (uint64_t n = splitmix_below(seed, 6); n > 0 && size > 0; n--)
		size = mutate(seed, input, size);
	return size;
}

/* In memory of exactly its size, so that address sanitizer sees a byte too far. */
static int run_one(unsigned long number)
{
	uint64_t seed = number;
	static uint8_t input[INPUT_MAX];
	bool mutated = example_count > 0 && splitmix_below(&seed, 4);
	size_t size = mutated ? mutated_example(&seed, input) : random_input(&seed, input);
	uint8_t *exact = malloc(size ? size : 1);

	if (!exact)
		return -ENOMEM;
	memcpy(exact, input, size);
	LLVMFuzzerTestOneInput(exact, size);
	free(exact);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long iterations = argc > 1 ? strtoul(argv[1], NULL, 10) : 100000;
	unsigned long first = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;
	int r = gather(argc > 3 ? argc - 3 : 0, argv + 3);

	setvbuf(stdout, NULL, _IONBF, 0);
	printf("1..1\n");
	signal(SIGABRT, on_crash);
	signal(SIGSEGV, on_crash);
	for (unsigned long i = 0; r == 0 && i < iterations; i++) {
		current = (sig_atomic_t)(first + i);
		r = run_one(first + i);
	}
	printf("%s 1 - %lu inputs, %u examples\n", r == 0 ? "ok" : "not ok", iterations,
		example_count);
	while (example_count > 0)
		buffer_deinit(&examples[--example_count]);
	return r == 0 ? 0 : 1;
}
