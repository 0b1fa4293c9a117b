/* Shared memory as x86 and Arm show it to threads. The other models include this file.
 *
 * A thread's stores wait in its store buffer; somebody (proctype Drain) moves them to memory at any
 * later moment, or never soon. What the datapath's accesses become:
 *
 *                    MEMORY == TSO (x86)                   MEMORY == ARM
 *   STORE, plain     buffered, drained in order            buffered, drained in any order but for
 *                                                          stores to one cell
 *   PUBLISH          xchg: waits for the buffer to         stlr: buffered, drained after all older
 *   (atomic.store)   drain, writes to memory               ones; younger plain stores may pass it
 *   ACQUIRE          mov                                   ldar: waits for the thread's stlr to drain
 *   (atomic.load)
 *   FENCE            mfence: waits for the buffer to drain dmb ish: the same
 *   RMW (cmpxchg)    waits for the buffer to drain         casal: the same
 *
 * Every load, plain or not, sees the thread's own buffered stores first. Loads happen in program
 * order: where a plain load must not pass another, the model says so itself (quiesce.pml), and
 * litmus.pml does away with program order altogether.
 *
 * The including model defines THREADS and CELLS (numbers of each), DEPTH (stores a thread can have
 * waiting, at most 4; a full buffer makes the thread wait, it loses nothing). */

#define TSO 1
#define ARM 2

typedef Buffer {
  byte n;
  byte at[4];
  byte value[4];
  bit release[4]
};

Buffer buffer[THREADS];
byte mem[CELLS];

#define HOLDS(p, k, a) (buffer[p].n > k && buffer[p].at[k] == (a))

/* What thread p reads at cell a. */
#define LOAD(p, a) \
  (HOLDS(p, 3, a) -> buffer[p].value[3] : \
  (HOLDS(p, 2, a) -> buffer[p].value[2] : \
  (HOLDS(p, 1, a) -> buffer[p].value[1] : \
  (HOLDS(p, 0, a) -> buffer[p].value[0] : mem[a]))))

#define EMPTY(p) (buffer[p].n == 0)
#define NO_RELEASE(p) (!(buffer[p].release[0] || buffer[p].release[1] || \
  buffer[p].release[2] || buffer[p].release[3]))

/* Whether there is room for one more; PUT wants it. */
#define ROOM(p) (buffer[p].n < DEPTH)
inline PUT(p, a, v, r) {
  d_step {
    buffer[p].at[buffer[p].n] = a;
    buffer[p].value[buffer[p].n] = v;
    buffer[p].release[buffer[p].n] = r;
    buffer[p].n++
  }
}

/* These are steps of an `atomic` of the caller's. */
inline STORE(p, a, v) { ROOM(p) -> PUT(p, a, v, 0) }

#if MEMORY == TSO
#define CAN_ACQUIRE(p) true
#define CAN_PUBLISH(p) EMPTY(p)
inline PUBLISH(p, a, v) { EMPTY(p) -> mem[a] = v }
/* A store that only stays behind the older ones: an unlock, a guest's smp_store_release. */
inline RELEASE(p, a, v) { STORE(p, a, v) }
#else
#define CAN_ACQUIRE(p) NO_RELEASE(p)
#define CAN_PUBLISH(p) ROOM(p)
inline PUBLISH(p, a, v) { ROOM(p) -> PUT(p, a, v, 1) }
inline RELEASE(p, a, v) { PUBLISH(p, a, v) }
#endif

/* x = what an atomic load of a gives. */
inline ACQUIRE(p, x, a) { CAN_ACQUIRE(p) -> x = LOAD(p, a) }

/* Locks: taken with cmpxchg, given back with a releasing store. Another thread can take one only when
 * that store has drained, which is when all older ones have. So the store itself is left out: who
 * takes the lock waits for the buffers of all who take it, `EMPTY(p) && EMPTY(q) && !locked`. */

/* Number k in the buffer of p goes to memory. */
inline DRAIN(p, k) {
  d_step {
    mem[buffer[p].at[k]] = buffer[p].value[k];
    drained = k;
    do
    :: drained + 1 < buffer[p].n ->
       buffer[p].at[drained] = buffer[p].at[drained + 1];
       buffer[p].value[drained] = buffer[p].value[drained + 1];
       buffer[p].release[drained] = buffer[p].release[drained + 1];
       drained++
    :: else -> break
    od;
    buffer[p].n--;
    buffer[p].at[buffer[p].n] = 0;
    buffer[p].value[buffer[p].n] = 0;
    buffer[p].release[buffer[p].n] = 0;
    drained = 0
  }
}

/* Whether number k, a plain store, may go to memory before the older number j. */
#define PASSES(p, k, j) (buffer[p].at[k] != buffer[p].at[j])

byte drained;

proctype Drain(byte p) {
end:
  do
  :: atomic { buffer[p].n > 0 -> DRAIN(p, 0) }
#if MEMORY == ARM
  :: atomic { buffer[p].n > 1 && !buffer[p].release[1] && PASSES(p, 1, 0) -> DRAIN(p, 1) }
  :: atomic { buffer[p].n > 2 && !buffer[p].release[2] && PASSES(p, 2, 0) && PASSES(p, 2, 1) ->
       DRAIN(p, 2) }
  :: atomic { buffer[p].n > 3 && !buffer[p].release[3] && PASSES(p, 3, 0) && PASSES(p, 3, 1) &&
       PASSES(p, 3, 2) -> DRAIN(p, 3) }
#endif
  od
}
