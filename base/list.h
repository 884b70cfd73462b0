#pragma once

/*
 * Intrusive doubly linked list: the node lives in the object, the head owns nothing.
 * A node that is in no list points at itself, so unlinking twice is harmless.
 */

#include <stdbool.h>
#include "base/aux.h"

struct list {
	struct list *next, *previous;
};

#define LIST_INIT(l_) ((struct list){ &(l_), &(l_) })

static inline void list_init(struct list *l)
{
	l->next = l->previous = l;
}

static inline bool list_is_empty(const struct list *l)
{
	return l->next == l;
}

/* Appends node at the tail; node must be in no list. */
static inline void list_push(struct list *head, struct list *node)
{
	node->previous = head->previous;
	node->next = head;
	head->previous->next = node;
	head->previous = node;
}

static inline void list_unlink(struct list *node)
{
	node->previous->next = node->next;
	node->next->previous = node->previous;
	list_init(node);
}

/* First node, unlinked; NULL when the list is empty. */
static inline struct list *list_pop(struct list *head)
{
	struct list *node = head->next;

	if (node == head)
		return NULL;
	list_unlink(node);
	return node;
}

#define list_for_each(pos_, head_) \
	for (struct list *pos_ = (head_)->next; pos_ != (head_); pos_ = pos_->next)
/* The body may unlink and free pos_, and nothing else. */
#define list_for_each_safe(pos_, head_) \
	for (struct list *pos_ = (head_)->next, *pos_##_next = pos_->next; pos_ != (head_); \
		pos_ = pos_##_next, pos_##_next = pos_->next)
