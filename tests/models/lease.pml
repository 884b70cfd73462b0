/*
 * Slots whose one word is their owner, as hold_claim(), hold_release(), hold_reap() and
 * hold_reap_strays() of shm/hold.c and the tickets of shm/breaker.c take and free them; rows of
 * participants are reused: shm/participant.c. An owner is a row and its generation.
 *
 * A process claims a slot by CAS from free, uses it, frees it by CAS, and may die before any step. The
 * daemon sees its death and frees the row, having reaped it or (a new daemon, after the old one's
 * death) not; another process gets the row with the next generation at once. Meanwhile
 * strays are swept: read a slot, then the row that owns it; if that is another's by now, free the slot by
 * CAS of what was read.
 *
 * Always: who frees his slot finds it still his; nothing is taken from a living owner. At rest: all
 * slots are free; nothing leaks.
 * Variants with an error: NO_GENERATION, ROW_FIRST.
 */
#define ROWS 2
#define SLOTS 2
#ifndef LIVES
#define LIVES 2 /* processes that a row gets, one after the other */
#endif
#ifndef ROUNDS
#define ROUNDS 1
#endif

typedef owner { byte row, generation }; /* generation 0: free */

owner slot[SLOTS];
byte attached[ROWS]; /* the generation that has the row; 0: none */
byte lives[ROWS];    /* how many it had */
bool ended[ROWS];    /* the process is dead, or has left */

#ifdef NO_GENERATION
#define GENERATION 1
#else
#define GENERATION generation
#endif
#define SLOT(r, g) (slot[i].row == r && slot[i].generation == g)

proctype process(byte row, generation) {
	byte i, round;

	do
	:: atomic { round < ROUNDS -> round++; i = 0 };
		do
		:: atomic { i < SLOTS && slot[i].generation == 0 ->
			slot[i].row = row; slot[i].generation = GENERATION; break }
		:: atomic { i < SLOTS && slot[i].generation != 0 -> i++ }
		:: atomic { i == SLOTS -> goto next }
		od;
		if
		:: atomic { true -> assert(SLOT(row, GENERATION)); slot[i].row = 0; slot[i].generation = 0 }
		:: atomic { true -> break } /* dies */
		fi;
next:		i = 0
	:: round == ROUNDS -> break
	od;
	atomic { i = 0; round = 0; ended[row] = true }
}

/* The sweep of a known dead owner. */
inline reap(r, g) {
	i = 0;
	do
	:: atomic { i < SLOTS -> v.row = slot[i].row; v.generation = slot[i].generation };
		if
		:: atomic { v.row == r && v.generation == g && SLOT(v.row, v.generation) ->
			slot[i].row = 0; slot[i].generation = 0 }
		:: else
		fi;
		i++
	:: atomic { i == SLOTS -> i = 0; v.row = 0; v.generation = 0; break }
	od
}

proctype daemon(byte row) {
	byte i, generation;
	owner v;

	do
	:: atomic { attached[row] == 0 && lives[row] < LIVES ->
		lives[row]++;
		attached[row] = lives[row];
		ended[row] = false;
		run process(row, lives[row]) };
		atomic { ended[row] -> generation = attached[row] };
		if
		:: reap(row, GENERATION); attached[row] = 0
		:: attached[row] = 0 /* without, or late */
#ifdef REAP_LATE
			; reap(row, GENERATION)
#endif
		fi
	:: attached[row] == 0 && lives[row] == LIVES -> break
	od
}

#define ALL_ENDED (attached[0] == 0 && attached[1] == 0 && lives[0] == LIVES && lives[1] == LIVES)

active proctype strays() {
	byte i, found;
	bool last;
	owner v;

	atomic { run daemon(0); run daemon(1) };
	do
	:: atomic { last = ALL_ENDED; i = 0 };
		do
		:: i < SLOTS ->
#ifdef ROW_FIRST
			if :: v.row = 0 :: v.row = 1 fi;
			found = attached[v.row];
			atomic { if :: slot[i].row == v.row || last -> v.row = slot[i].row; v.generation = slot[i].generation
				:: else -> v.generation = 0 fi };
#else
			atomic { v.row = slot[i].row; v.generation = slot[i].generation };
			found = attached[v.row];
#endif
			if
#ifdef NO_GENERATION
			:: atomic { v.generation != 0 && found == 0 && SLOT(v.row, v.generation) ->
#else
			:: atomic { v.generation != 0 && found != v.generation && SLOT(v.row, v.generation) ->
#endif
				slot[i].row = 0; slot[i].generation = 0 }
			:: else
			fi;
			atomic { i++; v.row = 0; v.generation = 0; found = 0 }
		:: i == SLOTS -> break
		od;
		if :: last -> break :: else fi
	od;
	assert(slot[0].generation == 0 && slot[1].generation == 0)
}
