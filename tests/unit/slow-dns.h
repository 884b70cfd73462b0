#pragma once

/* getaddrinfo(3) for the test that links this: names under ".slow.test" wait until released, those
 * under ".missing.test" do not exist, others pass on. */

#include <stdatomic.h>

extern _Atomic int slow_dns_started, slow_dns_finished;

/* Lets all waiting lookups, and later ones, go on: they find 127.0.0.1. */
void slow_dns_release(void);
/* Later lookups wait again. */
void slow_dns_hold(void);
