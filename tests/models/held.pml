/*
 * HELD accounting: bucket_lease(), bucket_progress() and bucket_settle() of shm/bucket.c. S (tat) is
 * what is settled and leaks, E (held) what is in flight and does not. E carries a tag that every
 * change changes (its writer and sequence, see hold.pml).
 *
 * Admitting reads E, then S; S + E + e must be at most BURST; then E by CAS, tag and all; then S once
 * more, and what is then too much is undone. Settling adds to S first and lowers E then, in one go or
 * in two. Settling may be by the reaper of a dead process, which is the same with all of e used.
 *
 * Always, with no more used than was asked for: what is settled and what is admitted and not settled are
 * together at most BURST. At rest nothing is held.
 *
 * The tag alone (NO_RECHECK) or the second look alone (NO_TAG, and S_FIRST) is enough; with neither
 * an error is found, as with SWAPPED.
 */
#ifndef PROCESSES
#define PROCESSES 3
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#define BURST 3
#define LEAKS 1

byte S, E;
bool fresh[PROCESSES]; /* the tag that was read is still that of E */
byte flying; /* ghost: admitted and not settled */
byte rests, leaks;

#ifdef NO_TAG
#define UNCHANGED (E == held)
#else
#define UNCHANGED (fresh[id])
#endif

proctype leak() {
	do :: atomic { S > 0 && leaks < LEAKS -> S--; leaks++ } :: atomic { rests == PROCESSES -> break } od
}

/* Whatever the total is now: E changes by d. Steps between are hold.pml's. */
inline move(d) { atomic { E = E + d; fresh[0] = false; fresh[1] = false; fresh[2] = false; fresh[PROCESSES - 1] = false } }

/* used of part of what is held. */
inline settle(used, part) {
#ifdef SWAPPED
	atomic { move(-part); flying = flying - part };
	S = S + used
#else
	atomic { S = S + used; flying = flying - part; assert(S + flying <= BURST) };
	move(-part)
#endif
}

proctype process(byte id) {
	byte e, used, debt, held, round;

	do
	:: atomic { round < (id == 0 -> ROUNDS : 1) -> round++; if :: e = 1 :: e = 2 fi };
again:
#ifdef S_FIRST
		debt = S;
		atomic { held = E; fresh[id] = true };
		if :: debt + held + e > BURST -> goto next :: else fi;
#else
		atomic { held = E; fresh[id] = true };
		if :: S + held + e > BURST -> goto next :: else fi;
#endif
		if
		:: atomic { UNCHANGED -> move(e); debt = 0 }
		:: atomic { !UNCHANGED -> held = 0; debt = 0; goto again }
		fi;
		if
#ifndef NO_RECHECK
		:: atomic { S + held + e > BURST -> goto undo }
#endif
		:: atomic { else -> flying = flying + e; held = 0; assert(S + flying <= BURST) }
		fi;
		if
		:: atomic { e == 2 -> if :: used = 0 :: used = 1 fi };
			settle(used, 1);
			atomic { e = 1; used = 0 }
		:: true
		fi;
		atomic { if :: used = 0 :: used = e fi };
		settle(used, e);
		goto next;
undo:
		move(-e);
next:
		atomic { e = 0; used = 0; debt = 0; held = 0; fresh[id] = false }
	:: round == (id == 0 -> ROUNDS : 1) -> break
	od;
	atomic { round = 0; rests++ }
}

init {
	byte i;

	atomic { for (i : 0 .. PROCESSES - 1) { run process(i) }; run leak() };
	atomic { rests == PROCESSES -> assert(E == 0 && flying == 0) }
}
