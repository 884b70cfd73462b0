/*
 * The recoverable compare-and-swap of totals: hold_move() (try_move(), acknowledge()), hold_reap()
 * (resolve()) and hold_audit() (add_up(), mend()) of shm/hold.c; the words: struct layout_hold in
 * shm/layout.h.
 *
 * HOLDS processes with a hold each move TOTALS totals by +1 and -1. Each may die before any store; the
 * reaper may die before any of its own and is then begun anew; a reaped hold is claimed again and
 * goes on with its numbers. Sequences in totals wrap at WRAP, numbers in op do not.
 *
 * Always: a total is at least what the living use of it (never under-counted).
 * At rest: it is exactly what the entries add up to.
 *
 * Assumed: nobody is stopped between reading a total's previous writer and his own CAS for
 * as long as one hold makes WRAP moves (2^18 in C) and then finds bit for bit the same word.
 * SHORT_CAS drops the assumption, and an error is found.
 * Variants with an error: NO_ACKNOWLEDGE, NO_VERIFY, NO_SKIP, ENTRY_FIRST, NO_DONE, STALE_OP,
 * AUDIT_ENTRY_FIRST, AUDIT_WRITES.
 */
#ifndef HOLDS
#define HOLDS 2
#endif
#ifndef TOTALS
#define TOTALS 2
#endif
#ifndef WRAP
#define WRAP 3
#endif
#ifndef MOVES
#define MOVES 2 /* of each hold but 0 */
#endif
#ifndef MOVES0
#define MOVES0 MOVES /* of hold 0 */
#endif
#ifndef DEATHS
#define DEATHS 255
#endif

#ifndef AUDITS
#define AUDITS 0
#endif
#ifndef GARBAGE
#define GARBAGE 0 /* units in total 0 at the start that nobody has */
#endif

#define NOBODY HOLDS /* writes as the daemon: has no hold */
#define IDLE 0
#define PENDING 1
#define DONE 2

typedef total { byte value, writer, sequence, number /* ghost: sequence without wrap */ };
typedef hold { byte owned, number, which, state, op_value; byte entry[TOTALS] };

total T[TOTALS];
hold H[HOLDS];
bool dead[HOLDS];  /* what the daemon has proof of */
bool over[HOLDS];  /* ghost: the process has no moves left */
byte moves[HOLDS], deaths;
byte use[TOTALS];  /* ghost: what the living use */
typedef mine { byte units[TOTALS] };
byte audits, garbage = GARBAGE;
mine uses[HOLDS];  /* ghost: of it, by hold */

#define SAME(a, w) (a.value == w.value && a.writer == w.writer && a.sequence == w.sequence)
#ifdef SHORT_CAS
#define SAME_AT_CAS(a, w) SAME(a, w)
#else
#define SAME_AT_CAS(a, w) (SAME(a, w) && a.number == w.number)
#endif

#define DIE atomic { deaths < DEATHS -> deaths++; goto die }

inline forget() { d_step { w.value = 0; w.writer = 0; w.sequence = 0; w.number = 0; o_number = 0; o_which = 0;
	o_state = 0; n = 0; ok = false } }

/* Moves total t by d (+1 or -1) with hold h. He may die before each store; what was only
 * read dies with him. */
inline move(h, t, d) {
	ok = false;
restart:
	atomic {
		w.value = T[t].value; w.writer = T[t].writer; w.sequence = T[t].sequence;
		w.number = T[t].number; n = base + 1;
#ifndef NO_SKIP
		if :: w.writer == h && w.sequence == n % WRAP -> n++ :: else fi
#endif
	};
#ifndef NO_ACKNOWLEDGE
	if
	:: w.writer != h && w.writer != NOBODY ->
		atomic { o_number = H[w.writer].number; o_which = H[w.writer].which;
			o_state = H[w.writer].state };
		if
		:: o_state == PENDING && o_which == t && o_number % WRAP == w.sequence ->
#ifndef NO_VERIFY
			if :: !SAME(T[t], w) -> goto restart :: SAME(T[t], w) fi;
#endif
			if :: atomic { true -> if
				:: H[w.writer].number == o_number && H[w.writer].which == o_which &&
					H[w.writer].state == o_state -> H[w.writer].state = DONE
				:: else fi } :: DIE fi
		:: else
		fi
	:: else
	fi;
#endif
	atomic { H[h].op_value = H[h].entry[t] + d; o_number = 0; o_which = 0; o_state = 0 };
#ifdef ENTRY_FIRST
	if :: H[h].entry[t] = H[h].op_value :: DIE fi;
#endif
	if :: atomic { true -> H[h].number = n; H[h].which = t; H[h].state = PENDING } :: DIE fi;
	if
	:: atomic { !SAME_AT_CAS(T[t], w) -> w.value = 0; w.writer = 0; w.sequence = 0; w.number = 0;
		ok = false }
	:: atomic { SAME_AT_CAS(T[t], w) ->
		T[t].value = T[t].value + d; T[t].writer = h; T[t].sequence = n % WRAP; T[t].number = n;
		if :: !dead[h] && d == 1 -> uses[h].units[t]++; use[t]++ :: else fi;
		assert(T[t].value < 200 && T[t].value >= use[t]);
		w.value = 0; w.writer = 0; w.sequence = 0; w.number = 0; ok = true }
	:: DIE
	fi;
#ifndef ENTRY_FIRST
	if
	:: !ok
	:: ok -> if :: H[h].entry[t] = H[h].op_value :: DIE fi
	fi;
#endif
	if :: atomic { true -> H[h].number = n; H[h].which = 0; H[h].state = IDLE; base = n } :: DIE fi;
	/* Not moved: once more, or (it no longer fits) no more. */
	if
	:: !ok -> if :: d == 1 && !dead[h] :: goto restart fi
	:: ok
	fi
}

#define LOCALS total w; byte base, n, o_number, o_which, o_state; bool ok

proctype worker(byte h) {
	LOCALS;
	byte t;
	short d;
again:
	do
	:: atomic { moves[h] < (h == 0 -> MOVES0 : MOVES) ->
		moves[h]++;
		base = H[h].number;
		if :: t = 0
#if TOTALS > 1
		   :: t = 1
#endif
		fi;
		if
		:: d = 1
		:: H[h].entry[t] > 0 -> d = -1; uses[h].units[t]--; use[t]--
		fi };
		move(h, t, d);
		forget()
	:: DIE
	:: atomic { moves[h] >= (h == 0 -> MOVES0 : MOVES) -> over[h] = true; break }
	od;
	goto gone;
die:
	atomic {
		dead[h] = true;
		for (t : 0 .. TOTALS - 1) { use[t] = use[t] - uses[h].units[t]; uses[h].units[t] = 0 }
		t = 0; d = 0; base = 0; forget()
	}
	/* Another process claims the hold when it is free. */
	atomic { H[h].owned == 0 -> H[h].owned = 1; dead[h] = false }
	goto again;
gone:
	skip
}
/* The daemon; and, after its death, the next one. */
active proctype reaper() {
	LOCALS;
	byte h, t;
	short d;
	total seen;

	atomic {
		T[0].value = garbage;
		for (h : 0 .. HOLDS - 1) { H[h].owned = 1; run worker(h) }
	}
die:
again:
	atomic { forget(); h = 0; t = 0; d = 0; base = 0;
		seen.value = 0; seen.writer = 0; seen.sequence = 0; seen.number = 0 }
	if
	:: atomic { dead[0] && H[0].owned -> h = 0 }
	:: atomic { dead[1] && H[1].owned -> h = 1 }
	:: atomic { dead[HOLDS - 1] && H[HOLDS - 1].owned -> h = HOLDS - 1 }
	:: atomic { audits < AUDITS -> audits++; goto audit }
	:: atomic { over[0] && over[1] && over[HOLDS - 1] && !dead[0] && !dead[1] && !dead[HOLDS - 1] ->
		for (t : 0 .. TOTALS - 1) {
			d = 0;
			for (h : 0 .. HOLDS - 1) { d = d + H[h].entry[t] }
			assert(d == use[t] && T[t].value == d + (t == 0 -> garbage : 0))
		}
		goto rest }
	fi;
settle_op:
	atomic { o_number = H[h].number; o_which = H[h].which; o_state = H[h].state };
	if
	:: o_state == PENDING ->
		atomic { seen.writer = T[o_which].writer; seen.sequence = T[o_which].sequence };
		if
		:: seen.writer == h && seen.sequence == o_number % WRAP -> goto done
		:: else
		fi;
not_done:	/* Unless somebody has marked it meanwhile: then all over again. */
		if :: atomic { true -> if
#if !defined STALE_OP && !defined NO_DONE
			:: H[h].state != PENDING -> ok = false
#endif
			:: else -> H[h].which = 0; H[h].state = IDLE; ok = true fi }
		:: DIE fi;
		if :: !ok -> goto settle_op :: ok fi
	:: o_state == DONE ->
#ifdef NO_DONE
		goto not_done;
#endif
done:
		if :: H[h].entry[o_which] = H[h].op_value :: DIE fi;
		if :: atomic { true -> H[h].which = 0; H[h].state = IDLE } :: DIE fi
	:: else
	fi;
	t = 0;
	do
	:: atomic { t < TOTALS && H[h].entry[t] == 0 -> t++ }
	:: atomic { t < TOTALS && H[h].entry[t] > 0 -> d = -H[h].entry[t]; base = H[h].number };
		move(h, t, d)
	:: t == TOTALS -> break
	od;
	if :: H[h].owned = 0 :: DIE fi;
	goto again;
audit:
	/* What nothing accounts for in total 0 goes. */
	atomic { w.value = T[0].value; w.writer = T[0].writer; w.sequence = T[0].sequence;
		w.number = T[0].number; h = 0; d = 0 };
	do
	:: h < HOLDS ->
#ifdef AUDIT_ENTRY_FIRST
		d = d + H[h].entry[0];
#endif
		if
		:: atomic { H[h].state == IDLE || H[h].which != 0 }
		:: atomic { else -> goto again }
		fi;
#ifndef AUDIT_ENTRY_FIRST
		d = d + H[h].entry[0];
#endif
		h++
	:: h == HOLDS -> break
	od;
	if
	:: atomic { SAME_AT_CAS(T[0], w) ->
		assert(T[0].value == d + garbage);
		T[0].value = d; garbage = 0; T[0].sequence = 0; T[0].number = 0;
#ifdef AUDIT_WRITES
		T[0].writer = HOLDS - 1
#else
		T[0].writer = NOBODY
#endif
		}
	:: atomic { else }
	fi;
	goto again;
rest:
	skip
}
