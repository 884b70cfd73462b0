"""Deliberately broken builds. Each has a name, edits (file, text, replacement), each text found exactly once,
and the programs of which one must fail: a meson target and its arguments."""

BUDGET = ('tests/sim/sim-budget', '--admissions', '3000000')
STEPS = ('tests/sim/sim-steps', '--admissions', '2000000')
BUDGET_MORE = ('tests/sim/sim-budget', '--admissions', '30000000')
STEPS_MORE = ('tests/sim/sim-steps', '--admissions', '10000000')
SATURATION = ('tests/sim/sim-saturation',)
TRAFFIC = ('tests/sim/sim-traffic',)
KILL_POINTS = ('tests/crash/crash-kill-points', '--deaths', '300000')


def unit(name):
    return (f'tests/unit/test-{name}',)


MUTATIONS = [
    ('naive give-back: all of the cost, whatever has leaked', [
        ('shm/bucket_settle.c', 'cost <= at_ns - taken_ns)', 'cost == 0)'),
        ('shm/bucket_settle.c', 'back = cost - (at_ns - taken_ns);', 'back = cost;'),
    ], [BUDGET]),
    ('give-back by an old clock', [
        ('shm/bucket_internal.h', 'return max_u64(now_ns, r->clock_ns());', '(void)r;\n\treturn now_ns;'),
    ], [BUDGET, STEPS, unit('bucket')]),
    ('give-back of what others have waited for in their bookings', [
        ('shm/bucket_settle.c', 'max_u64(now_ns, load_acquire(&r->bucket_name[row].ahead_ns));', 'now_ns;'),
    ], [BUDGET_MORE]),
    ('a faster limit shrinks the time that is booked', [
        ('shm/bucket_table.c', 'to < from ? booked_debt(r, index, tat, at_ns) : 0;',
         'to == 0 ? booked_debt(r, index, tat, at_ns) : 0;'),
    ], [BUDGET_MORE]),
    ('swapped settlement: what is in flight falls before the debt rises', [
        ('shm/bucket_settle.c',
         '\tif (due > 0 && (held > 0 || !row_is_anothers(s, i)))\n'
         '\t\tcharge(s->r, row, kind, due, s->now_ns);\n\tif (kind == BUCKET_RATE)\n\t\treturn;\n',
         '\tif (kind == BUCKET_RATE) {\n\t\tcharge(s->r, row, kind, due, s->now_ns);\n\t\treturn;\n\t}\n'),
        ('shm/bucket_settle.c',
         '\t\treturn_units(s, row, entry, held, over);\n',
         '\t\treturn_units(s, row, entry, held, over);\n\tif (due > 0)\n'
         '\t\tcharge(s->r, row, kind, due, s->now_ns);\n'),
    ], [STEPS_MORE]),
    ('missing lease: what is in flight is not entered in its hold', [
        ('shm/hold_internal.h',
         '\t\thold_store(&h->entry[c->entry], hold_entry_make(c->total, c->units));\n', '\t\t;\n'),
    ], [BUDGET]),
    ('rounding down: intervals are too short', [
        ('shm/bucket_table.c',
         'interval = (interval + BUCKET_FRACTION - 1) &\n', 'interval = interval &\n'),
        ('shm/bucket_table.c',
         '((unsigned __int128)limit->window_ns << BUCKET_FRACTION_BITS) + limit->limit - 1;',
         '(unsigned __int128)limit->window_ns << BUCKET_FRACTION_BITS;'),
    ], [BUDGET, unit('bucket')]),
    ('relaxed publish: a total is overwritten without telling who wrote it last', [
        ('shm/hold_internal.h',
         '\t\tif (aux_unlikely(hold_op_state(op) == HOLD_PENDING) &&\n',
         '\t\tif (op == HOLD_PENDING && hold_op_state(op) == HOLD_PENDING &&\n'),
    ], [STEPS, KILL_POINTS]),
    ('the dead hold is asked before the total', [
        ('shm/hold.c', '\tresolve(r, hold);\n\tfor (uint32_t i = 0; i < LAYOUT_HOLD_ENTRIES; i++)',
         '\tfor (uint32_t i = 0; i < LAYOUT_HOLD_ENTRIES; i++)'),
    ], [STEPS, KILL_POINTS]),
    ('unchecked row index: of a limit', [
        ('shm/bucket.c',
         '\tif (aux_unlikely(row >= r->buckets))\n\t\treturn verdict(BUCKET_E_GONE, row, 0);\n', ''),
    ], [unit('bucket')]),
    ('unchecked row index: of a total', [
        ('shm/hold.c', 'return row < r->targets ? &r->target[row].pending : NULL;',
         'return &r->target[row].pending;'),
        ('shm/hold.c', 'return total != 0 && row < r->buckets ? &r->bucket[row].held : NULL;',
         'return &r->bucket[row].held;'),
    ], [unit('hold')]),
    ('missing undo: what was taken of the first limits stays taken', [
        ('shm/bucket.c', '\t\tundo(t, i);\n\t\treturn reject_level', '\t\treturn reject_level'),
    ], [STEPS, unit('bucket-held')]),
    ('pause ignored', [
        ('shm/bucket_settle.c', '\traise_to(&r->bucket[row].pause_ns, until_ns);\n', ''),
    ], [BUDGET]),
    ('eviction of a limit that owes', [
        ('shm/bucket_table.c', 'kind != BUCKET_GAUGE && tat > now_ns;', '0;'),
    ], [BUDGET]),
    ('eviction without closing the total', [
        ('shm/bucket_table.c', '\tif (hold_close(r, row)) {', '\t{'),
    ], [STEPS, unit('bucket-rows'), unit('bucket-change'), KILL_POINTS]),
    ('probes unbounded', [
        ('shm/breaker.c', 'if (a->owner == 0 || out >= a->settings.probes)', 'if (a->owner == 0)'),
        ('shm/breaker.c', 'for (uint32_t i = 0; i < probes; i++) {',
         'for (uint32_t i = 0; i < LAYOUT_PROBES + 0 * probes; i++) {'),
    ], [TRAFFIC]),
    ('probes of the dead stay out', [
        ('shm/breaker_table.c', 'word != 0 && word >> 24 == breaker_ticket_owner(owner)',
         'word == 0 && word >> 24 == breaker_ticket_owner(owner)'),
    ], [unit('breaker-probes'), TRAFFIC]),
    ('results of another generation move the breaker', [
        ('shm/breaker.c', 'ticket->word ? breaker_ticket_generation(ticket->word) : w.generation',
         'w.generation'),
    ], [unit('breaker-probes'), unit('breaker-steps')]),
    ('failures count as fast', [
        ('shm/breaker.c', 'if (t->ok && t->us > 0) {', 'if (t->us > 0) {'),
        ('shm/breaker.c', '\t\tclosed_failed(t);\n\t\treturn;\n',
         '\t\tclosed_failed(t);\n\t\tbreaker_latency_rule(t->b, t->generation, '
         'breaker_z_percent(t->b), t->us);\n\t\treturn;\n'),
    ], [unit('breaker-probes'), unit('breaker-latency')]),
    ('failures teach the router their latency', [
        ('libclient/ticket.c', 'if (report.outcome == BREAKER_OK)\n\t\tticket_learn', 'ticket_learn'),
    ], [unit('target-api')]),
    ('estimate not held', [
        ('shm/bucket.c', 'l->units = (uint32_t)(kind == BUCKET_WINDOW ? quanta_of(n) : n);',
         'l->units = (uint32_t)(kind == BUCKET_WINDOW ? quanta_of(n) : kind == BUCKET_HELD ? 1 : n);'),
    ], [BUDGET]),
    ('tokens of the dead are not charged', [
        ('shm/hold.c', '\t\tbucket_charge(r, row, units, now_ns);\n', '\t\t(void)now_ns;\n'),
    ], [BUDGET]),
    ('holds of the dead are not reaped', [
        ('shm/hold.c', 'if (load(&r->hold[i].owner) == owner)\n',
         'if (load(&r->hold[i].owner) == owner + 1)\n'),
    ], [BUDGET]),
    ('admission on what was read before the move alone', [
        ('shm/bucket.c', '\treturn total_check_again(t, i, l);',
         '\t(void)total_check_again;\n\treturn BUCKET_OK;'),
    ], [unit('bucket-held'), unit('bucket-change')]),
    ('a change of the limit keeps the debt in nanoseconds', [
        ('shm/bucket_table.c', 'debt = fixed + ((owed - fixed) * to + from - 1) / from;', 'debt = owed;'),
    ], [BUDGET, unit('bucket-change')]),
    ('a wait that is too short', [
        ('shm/bucket.c', 'l->wait = debt > tolerance - total ? debt - (tolerance - total) : WAIT_BUSY;',
         'l->wait = debt > tolerance - total ? (debt - (tolerance - total)) / 2 + 1 : WAIT_BUSY;'),
    ], [BUDGET]),
    ('nothing in flight comes back before the end', [
        ('shm/bucket_settle.c', 'return (uint32_t)min_u64(held, used);', 'return 0;'),
    ], [SATURATION]),
]
