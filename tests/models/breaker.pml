/*
 * The breaker's state word and its leased probes: breaker_allow() (ticket_take(),
 * ticket_verify()), breaker_record() and breaker_reap() of shm/breaker.c; the words: struct layout_breaker in shm/layout.h.
 *
 * The state word is state, generation and the successes so far; every transition is a new generation.
 * A ticket is owner and generation in one slot word; one of another generation is free.
 * allow():  OPEN and late: CAS to HALF. HALF and late: CAS to OPEN. HALF: read a slot; if it is free
 *           in this generation, look whether the state is still of it; claim the slot by CAS of
 *           what was read; look once more: if it is past, the ticket goes back.
 * record(): the ticket goes back by CAS; if it was still there, the outcome counts by CAS of the state
 *           word, in its own generation only.
 *
 * The callers may be slow, stop for ever with a probe out, or die wherever they have a ticket (elsewhere
 * they leave nothing behind). Whether it is late, chance decides.
 *
 * Always: at most PROBES calls are out as probes of the generation that is half open; none goes out
 * unless it is half open; a result counts in its own generation only. At rest (all have ended,
 * stopped or died): a newcomer gets through, if need be after the lease.
 *
 * Assumed: nobody is stopped within one call of allow() for 2^16 transitions.
 * Variants with an error: NO_GENERATION, COUNT_ON_RESULT (probes are counted when their results
 * come), TAKE_NEWER, NO_VERIFY, NO_LEASE, NO_REAP.
 */
#ifndef PROCESSES
#define PROCESSES 3
#endif
#ifndef PROBES
#define PROBES 1
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef LEASES
#define LEASES 1 /* how often callers find it late in half-open */
#endif
#define NEED 2
#define NOBODY 0

mtype = { CLOSED, OPEN, HALF };
typedef ticket { byte owner, generation };

mtype state = OPEN;
byte generation, successes;
ticket slot[PROBES];
bool dead[PROCESSES + 1], reaped[PROCESSES + 1]; /* by owner, from 1 */
byte rests, leases;
byte results;             /* of COUNT_ON_RESULT */
bool out[PROCESSES + 1];  /* ghost: a probe of this owner is under way */
byte era[PROCESSES + 1];  /* ghost: of which generation */

#define SAME (state == s && generation == g && successes == n)
#define CURRENT (state == HALF && generation == g)
#define GO(to) state = to; generation++; successes = 0; results = 0
#define SLOT(word) (slot[i].owner == word.owner && slot[i].generation == word.generation)
#define DIE goto die
#ifdef NO_GENERATION
#define IS_FREE (v.owner == NOBODY)
#define COUNTS (s == HALF)
#define TICKET_GENERATION 0
#else
#define IS_FREE (v.owner == NOBODY || v.generation != ours)
#define COUNTS (s == HALF && g == ours)
#define TICKET_GENERATION ours
#endif

inline read_state() { atomic { s = state; g = generation; n = successes } }

inline goes_out() {
	assert(CURRENT);
	out[me] = true; era[me] = g; calls = 0;
	for (j : 1 .. PROCESSES) { if :: out[j] && era[j] == g -> calls++ :: else fi }
	assert(calls <= PROBES);
	j = 0; calls = 0; s = 0; n = 0; v.owner = 0; v.generation = 0
}

inline give_back() {
	if
	:: atomic { slot[i].owner == me && slot[i].generation == TICKET_GENERATION ->
		slot[i].owner = NOBODY; slot[i].generation = 0; had = true }
	:: atomic { else -> had = false }
	:: DIE
	fi
}

proctype caller(byte me) {
	mtype s;
	byte g, n, ours, i, j, calls, round;
	bool had;
	ticket v;

	do
	:: atomic { round < ROUNDS -> round++ };
look:
		read_state();
		if
		:: s == CLOSED ->
			/* The call may fail, and open it. */
			if :: atomic { SAME -> GO(OPEN) } :: true fi;
			goto next
		:: s == OPEN ->
			if :: atomic { SAME -> GO(HALF) } :: !SAME :: true -> goto next fi;
			goto look
#ifndef NO_LEASE
		:: atomic { s == HALF && leases < LEASES -> leases++ };
			if :: atomic { SAME -> GO(OPEN) } :: !SAME fi;
			goto look
#endif
		:: s == HALF
		fi;
#ifdef COUNT_ON_RESULT
		if :: atomic { results < PROBES && CURRENT -> goes_out(); ours = g } :: else -> goto next fi;
#else
		atomic { i = 0; ours = g };
		do
		:: atomic { i < PROBES -> v.owner = slot[i].owner; v.generation = slot[i].generation };
			if
			:: IS_FREE ->
#ifndef TAKE_NEWER
				if :: CURRENT :: !CURRENT -> goto look fi;
#endif
				if
				:: atomic { SLOT(v) -> slot[i].owner = me; slot[i].generation = TICKET_GENERATION;
					break }
				:: atomic { !SLOT(v) -> i++ }
				fi
			:: !IS_FREE -> i++
			fi
		:: i == PROBES -> goto next
		od;
		if
#ifdef NO_VERIFY
		:: atomic { true -> goes_out() }
#else
		:: atomic { CURRENT -> goes_out() }
		:: !CURRENT -> give_back(); goto look
#endif
		:: DIE
		fi;
#endif
		/* The probe is out. */
		if :: atomic { true -> out[me] = false } :: goto stopped :: DIE fi;
#ifdef COUNT_ON_RESULT
		results++;
#else
		give_back();
		if :: !had -> goto next :: had fi;
#endif
count:
		read_state();
		if
		:: !COUNTS -> goto next
		:: COUNTS
		fi;
		if
		:: atomic { SAME -> assert(era[me] == generation);
			if :: successes + 1 < NEED -> successes++ :: successes + 1 == NEED -> GO(CLOSED) :: GO(OPEN) fi }
		:: !SAME -> goto count
		fi;
next:
		atomic { s = 0; g = 0; n = 0; ours = 0; i = 0; had = false; era[me] = 0;
			v.owner = 0; v.generation = 0 }
	:: round == ROUNDS -> break
	od;
	goto stopped;
die:
	atomic { dead[me] = true; out[me] = false };
stopped:
	atomic { s = 0; g = 0; n = 0; ours = 0; i = 0; had = false; v.owner = 0; v.generation = 0; round = 0;
		rests++ }
}

/* May begin anew at any time: what is freed twice is freed once. */
proctype reaper() {
	byte i, who;
	ticket v;

	do
	:: atomic { dead[1] && !reaped[1] -> who = 1; i = 0 }; goto sweep
	:: atomic { dead[2] && !reaped[2] -> who = 2; i = 0 }; goto sweep
	:: atomic { dead[PROCESSES] && !reaped[PROCESSES] -> who = PROCESSES; i = 0 };
sweep:
		do
		:: atomic { i < PROBES -> v.owner = slot[i].owner; v.generation = slot[i].generation };
#ifndef NO_REAP
			if
			:: atomic { v.owner == who && SLOT(v) -> slot[i].owner = NOBODY; slot[i].generation = 0 }
			:: else
			fi;
#endif
			i++
		:: i == PROBES -> break
		od;
		atomic { reaped[who] = true; i = 0; who = 0; v.owner = 0; v.generation = 0 }
	:: rests == PROCESSES && dead[1] == reaped[1] && dead[2] == reaped[2] &&
		dead[PROCESSES] == reaped[PROCESSES] -> break
	od;
	/* A newcomer; time passes. */
	atomic {
		if :: state == OPEN -> GO(HALF) :: else fi;
#if !defined NO_LEASE
		if
		:: state == HALF && slot[0].owner != NOBODY && slot[PROBES - 1].owner != NOBODY -> GO(OPEN); GO(HALF)
		:: else
		fi;
#endif
		for (i : 0 .. PROBES - 1) {
			assert(!dead[slot[i].owner]);
			if
#ifndef NO_GENERATION
			:: slot[i].generation != generation -> who = 1
#endif
			:: slot[i].owner == NOBODY -> who = 1
			:: else
			fi
		}
		assert(state == CLOSED || who == 1)
	}
}

init {
	byte i;

	atomic { for (i : 1 .. PROCESSES) { run caller(i) }; run reaper() }
}
