#pragma once

/*
 * Included before every source of shm/ when it is built for the kill-point tests: each access to a
 * shared word calls hook_point() first. tests/crash/single-step.c proves that none is missed.
 */

#include <stdatomic.h>
#include <stdint.h>

void hook_point(void);

#define HOOKED_MODIFY(name_) \
	static inline uint64_t hooked_##name_( \
		_Atomic uint64_t *word, uint64_t value, memory_order order) \
	{ \
		hook_point(); \
		return atomic_##name_##_explicit(word, value, order); \
	}
HOOKED_MODIFY(exchange)
HOOKED_MODIFY(fetch_add)
HOOKED_MODIFY(fetch_sub)
HOOKED_MODIFY(fetch_or)
HOOKED_MODIFY(fetch_and)

static inline uint64_t hooked_load(const _Atomic uint64_t *word, memory_order order)
{
	hook_point();
	return atomic_load_explicit(word, order);
}

static inline void hooked_store(_Atomic uint64_t *word, uint64_t value, memory_order order)
{
	hook_point();
	atomic_store_explicit(word, value, order);
}

static inline _Bool hooked_swap(_Atomic uint64_t *word, uint64_t *expected, uint64_t value,
	memory_order order, memory_order failed)
{
	hook_point();
	return atomic_compare_exchange_strong_explicit(word, expected, value, order, failed);
}

#undef atomic_load_explicit
#undef atomic_store_explicit
#undef atomic_exchange_explicit
#undef atomic_fetch_add_explicit
#undef atomic_fetch_sub_explicit
#undef atomic_fetch_or_explicit
#undef atomic_fetch_and_explicit
#undef atomic_compare_exchange_strong_explicit
#undef atomic_compare_exchange_weak_explicit
#define atomic_load_explicit hooked_load
#define atomic_store_explicit hooked_store
#define atomic_exchange_explicit hooked_exchange
#define atomic_fetch_add_explicit hooked_fetch_add
#define atomic_fetch_sub_explicit hooked_fetch_sub
#define atomic_fetch_or_explicit hooked_fetch_or
#define atomic_fetch_and_explicit hooked_fetch_and
#define atomic_compare_exchange_strong_explicit hooked_swap
#define atomic_compare_exchange_weak_explicit hooked_swap

#undef atomic_load
#undef atomic_store
#undef atomic_exchange
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#define atomic_load(word_) hooked_load(word_, memory_order_seq_cst)
#define atomic_store(word_, value_) hooked_store(word_, value_, memory_order_seq_cst)
#define atomic_exchange(word_, value_) hooked_exchange(word_, value_, memory_order_seq_cst)
#define atomic_fetch_add(word_, value_) hooked_fetch_add(word_, value_, memory_order_seq_cst)
#define atomic_fetch_sub(word_, value_) hooked_fetch_sub(word_, value_, memory_order_seq_cst)
#define atomic_compare_exchange_strong(word_, expected_, value_) \
	hooked_swap(word_, expected_, value_, memory_order_seq_cst, memory_order_seq_cst)
#define atomic_compare_exchange_weak(word_, expected_, value_) \
	hooked_swap(word_, expected_, value_, memory_order_seq_cst, memory_order_seq_cst)
