/*
 * Taking from user, model and provider at once, all or nothing: bucket_acquire(), level_take(),
 * level_give_back() of shm/bucket.c.
 *
 * Processes 0 and 1 are one user, process 2 another; all share a model and a provider. Each asks
 * once, process 1 ROUNDS times; each may die before any step (before its first store: nothing has
 * happened). The clock moves at any instant, up to TICKS.
 *
 * Always: in every window [a, b] what was admitted by a limit is at most its burst + (b - a).
 * When the clock stands (TICKS 0), at rest: a word is exactly what was admitted and what the dead had
 * taken; so all else came back.
 * Variants with an error: NO_CHECK, NAIVE.
 */
#ifndef ROUNDS
#define ROUNDS 1
#endif
#ifndef TICKS
#define TICKS 0
#endif

#define PROCESSES 3
#define LEVELS 3
#define ROWS 4 /* two users, model, provider; the provider has room for one at a time */
#define ROW(i) (i == 0 -> id / 2 : i + 1)
#define COST(row) (row < 2 -> USER_COST : 1)
#define TOLERANCE(row) (row < 2 -> USER_TOLERANCE : (row == 2 -> 2 : 1))
#if TICKS == 0
#define USER_COST 1
#define USER_TOLERANCE 2
#else
#define USER_COST 2
#define USER_TOLERANCE 2
#endif
#define LATER(a, b) (a > b -> a : b)
#define FITS(row) (LATER(tat, now) + COST(row) <= now + TOLERANCE(row))

typedef limit { byte tat; byte at[TICKS + 1] /* ghost: cost admitted, by the time it was asked for */;
	byte lost /* ghost: what the dead had taken */ };

limit R[ROWS];
byte clock, rests;

proctype tick() {
	do :: atomic { clock < TICKS -> clock++ } :: atomic { clock == TICKS -> break } od
}

/* Ghost: a request of time now was admitted. */
inline admitted() {
	for (i : 0 .. LEVELS - 1) {
		row = ROW(i);
		R[row].at[now] = R[row].at[now] + COST(row);
		for (a : 0 .. TICKS) {
			sum = 0;
			for (b : a .. TICKS) {
				sum = sum + R[row].at[b];
				assert(sum <= TOLERANCE(row) + b - a)
			}
		}
	}
}

#if TICKS == 0
#define DIE goto die
#else
#define DIE false /* what holds always also holds if one never goes on */
#endif

proctype process(byte id) {
	byte now, i, row, tat, round, back, a, b, sum;
	byte seen[LEVELS];

	do
	:: atomic { round < (id == 1 -> ROUNDS : 1) -> round++; now = clock; i = 0 };
		/* Reads all, writes nothing. */
		do
		:: i < LEVELS ->
			atomic { row = ROW(i); tat = R[row].tat; seen[i] = tat;
				if :: FITS(row) -> i++ :: else -> goto next fi }
		:: i == LEVELS -> break
		od;
		/* Takes one after the other. */
		i = 0;
		do
		:: i < LEVELS ->
			row = ROW(i); tat = seen[i];
again:
			if
			:: atomic { R[row].tat == tat ->
				R[row].tat = LATER(tat, now) + COST(row);
				i++;
				if :: i == LEVELS -> admitted(); goto next :: else fi }
			:: atomic { R[row].tat != tat ->
				tat = R[row].tat;
				if
#ifndef NO_CHECK
				:: !FITS(row) -> break
#endif
				:: else -> goto again
				fi }
			:: DIE
			fi
		od;
		/* Undoes what was taken: what it cost less what has leaked since. */
		do
		:: i > 0 ->
			row = ROW(i - 1);
			if :: atomic { true -> tat = R[row].tat;
#ifdef NAIVE
				back = COST(row)
#else
				back = COST(row) - (COST(row) < clock - now -> COST(row) : clock - now)
#endif
				} :: DIE fi;
			if
			:: atomic { R[row].tat == tat -> R[row].tat = tat - (back < tat -> back : tat); i-- }
			:: atomic { else }
			:: DIE
			fi
		:: i == 0 -> break
		od;
next:	skip;
		d_step { i = 0; row = 0; tat = 0; now = 0; back = 0; a = 0; b = 0; sum = 0;
			seen[0] = 0; seen[1] = 0; seen[2] = 0 }
	:: round == (id == 1 -> ROUNDS : 1) -> break
	od;
	atomic { rests++; goto gone };
die:
	atomic {
		for (a : 0 .. LEVELS - 1) {
			row = ROW(a);
			if :: a < i -> R[row].lost = R[row].lost + COST(row) :: else fi
		}
		a = 0; row = 0; i = 0; tat = 0; now = 0; back = 0;
		seen[0] = 0; seen[1] = 0; seen[2] = 0;
		rests++
	};
gone:
	skip
}

init {
	byte i;

	atomic { run process(0); run process(1); run process(2); run tick() };
	atomic {
		rests == PROCESSES -> 
#if TICKS == 0
		for (i : 0 .. ROWS - 1) { assert(R[i].tat == R[i].at[0] + R[i].lost) }
#endif
	}
}
