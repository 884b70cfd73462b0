#include "base/list.h"
#include "tests/unit/cmocka-all.h"

struct item {
	struct list node;
	int number;
};

static struct item items[4];

static void fill(struct list *head)
{
	list_init(head);
	for (int i = 0; i < 4; i++) {
		items[i].number = i;
		list_push(head, &items[i].node);
	}
}

/* The numbers in order, as decimal digits after a 1; the links backwards must agree. */
static int numbers(const struct list *head)
{
	int n = 1;

	list_for_each (node, head) {
		assert_ptr_equal(node->previous->next, node);
		assert_ptr_equal(node->next->previous, node);
		n = n * 10 + container_of(node, struct item, node)->number;
	}
	return n;
}

static void pushing_keeps_the_order(void **state)
{
	struct list head;

	(void)state;
	fill(&head);
	assert_int_equal(numbers(&head), 10123);
}

static void unlinking_twice_is_harmless(void **state)
{
	struct list head;

	(void)state;
	fill(&head);
	for (int i = 0; i < 2; i++)
		list_unlink(&items[1].node);
	assert_int_equal(numbers(&head), 1023);
	assert_true(list_is_empty(&items[1].node));
	list_push(&head, &items[1].node);
	assert_int_equal(numbers(&head), 10231);
}

static void popping_takes_the_first(void **state)
{
	struct list head = LIST_INIT(head);

	(void)state;
	assert_null(list_pop(&head));
	fill(&head);
	assert_ptr_equal(list_pop(&head), &items[0].node);
	assert_true(list_is_empty(&items[0].node));
	assert_int_equal(numbers(&head), 1123);
}

static void the_safe_loop_allows_to_unlink(void **state)
{
	struct list head;

	(void)state;
	fill(&head);
	list_for_each_safe (node, &head)
		if (container_of(node, struct item, node)->number % 2)
			list_unlink(node);
	assert_int_equal(numbers(&head), 102);
	list_for_each_safe (node, &head)
		list_unlink(node);
	assert_true(list_is_empty(&head));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(pushing_keeps_the_order),
		cmocka_unit_test(unlinking_twice_is_harmless),
		cmocka_unit_test(popping_takes_the_first),
		cmocka_unit_test(the_safe_loop_allows_to_unlink),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
