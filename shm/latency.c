#include "shm/latency.h"

#include "base/aux.h"
#include "shm/layout.h"

#define ROW_NS (10 * NSEC_PER_SEC)
#define FIRST_BITS 10 /* cells begin at 1024 us */
#define EIGHTHS 8
#define CELL_BITS 32
/* A row that is this far ahead of now is garbage; one less far ahead is a later caller's. */
#define AHEAD_MAX 100

static uint64_t load(const shared_u64 *word)
{
	return atomic_load_explicit(word, memory_order_relaxed);
}

/* 0 is no epoch. */
static uint64_t epoch_of(uint64_t now_ns)
{
	return now_ns / ROW_NS + 1;
}

static unsigned cell_of(uint64_t us)
{
	unsigned octave, cell;

	if (us < UINT64_C(1) << FIRST_BITS)
		return 0;
	octave = 63 - (unsigned)__builtin_clzll(us) - FIRST_BITS;
	cell = octave * EIGHTHS + (unsigned)(us >> (octave + FIRST_BITS - 3) & (EIGHTHS - 1));
	return cell < LAYOUT_LATENCY_CELLS ? cell : LAYOUT_LATENCY_CELLS - 1;
}

/* The middle of a cell. */
static uint64_t cell_us(unsigned cell)
{
	unsigned shift = cell / EIGHTHS + FIRST_BITS - 3;

	return (UINT64_C(2) * (EIGHTHS + cell % EIGHTHS) + 1) << shift >> 1;
}

/* Makes the row that of epoch. Cleared before it is valid, so that whoever dies here leaves an
 * expired row. False: a later epoch has it. */
static bool begin(struct layout_latency *l, uint64_t epoch)
{
	unsigned i = (unsigned)(epoch % LAYOUT_LATENCY_ROWS);
	uint64_t seen = load(&l->row[i].epoch);

	if (seen > epoch && seen - epoch <= AHEAD_MAX)
		return false;
	for (unsigned c = 0; c < LAYOUT_LATENCY_CELLS / 2; c++) {
		/* Somebody was quicker: what is there is new. */
		if (load(&l->row[i].epoch) == epoch)
			return true;
		atomic_store_explicit(&l->row[i].cell[c], 0, memory_order_relaxed);
	}
	atomic_compare_exchange_strong_explicit(
		&l->row[i].epoch, &seen, epoch, memory_order_release, memory_order_relaxed);
	return load(&l->row[i].epoch) == epoch;
}

void latency_record(const struct region *r, uint32_t row, uint64_t us, uint64_t now_ns)
{
	uint64_t epoch = epoch_of(now_ns);
	struct layout_latency *l;
	unsigned i = (unsigned)(epoch % LAYOUT_LATENCY_ROWS), cell = cell_of(us);

	if (row >= r->targets)
		return;
	l = &r->latency[row];
	if (aux_unlikely(atomic_load_explicit(&l->row[i].epoch, memory_order_acquire) != epoch) &&
		!begin(l, epoch))
		return;
	atomic_fetch_add_explicit(&l->row[i].cell[cell / 2], UINT64_C(1) << (cell % 2 * CELL_BITS),
		memory_order_relaxed);
}

/* Adds up the rows that are not older than a minute; returns the sum of all cells. */
static uint64_t merge(
	const struct region *r, uint32_t row, uint64_t now_ns, uint64_t cell[LAYOUT_LATENCY_CELLS])
{
	uint64_t epoch = epoch_of(now_ns), sum = 0;

	for (unsigned c = 0; c < LAYOUT_LATENCY_CELLS; c++)
		cell[c] = 0;
	if (row >= r->targets)
		return 0;
	for (unsigned i = 0; i < LAYOUT_LATENCY_ROWS; i++) {
		uint64_t of =
			atomic_load_explicit(&r->latency[row].row[i].epoch, memory_order_acquire);

		if (of == 0 || of > epoch || epoch - of >= LAYOUT_LATENCY_ROWS)
			continue;
		for (unsigned c = 0; c < LAYOUT_LATENCY_CELLS; c++)
			cell[c] +=
				load(&r->latency[row].row[i].cell[c / 2]) >> (c % 2 * CELL_BITS) &
				UINT32_MAX;
	}
	for (unsigned c = 0; c < LAYOUT_LATENCY_CELLS; c++)
		sum += cell[c];
	return sum;
}

uint64_t latency_percentile(const struct region *r, uint32_t row, double percent, uint64_t now_ns)
{
	uint64_t cell[LAYOUT_LATENCY_CELLS], seen = 0;
	uint64_t sum = merge(r, row, now_ns, cell);
	double wanted = (percent >= 0 && percent <= 100 ? percent : 100) / 100 * (double)sum;

	if (sum == 0)
		return 0;
	for (unsigned c = 0; c < LAYOUT_LATENCY_CELLS; c++) {
		seen += cell[c];
		if (seen > 0 && (double)seen >= wanted)
			return cell_us(c);
	}
	return cell_us(LAYOUT_LATENCY_CELLS - 1);
}

uint64_t latency_count(const struct region *r, uint32_t row, uint64_t now_ns)
{
	uint64_t cell[LAYOUT_LATENCY_CELLS];

	return merge(r, row, now_ns, cell);
}

void latency_reset(const struct region *r, uint32_t row)
{
	if (row >= r->targets)
		return;
	for (unsigned i = 0; i < LAYOUT_LATENCY_ROWS; i++)
		atomic_store_explicit(&r->latency[row].row[i].epoch, 0, memory_order_relaxed);
}
