/* Split ring: what a buffer goes through, from the driver to the device and back.
 *
 * Properties: the device takes each buffer once, and never before what the driver wrote into it, its
 * descriptor and its avail slot shows; the driver gets each back once, and never before what the
 * device wrote into it and the used slot shows; the device is done with a buffer before the driver
 * has it again; no slot is overwritten that the other side has not read. Ring sizes 1, 2 and 4,
 * bursts of one or two; indices wrap at twice the largest size.
 *
 * Threads of the guest take turns under its lock, workers (they deliver into an RX ring) under theirs:
 * two of the one and one of the other, or, with SOLO, one of each.
 *
 * Stands for:
 *   src/datapath/split.ts: splitReady splitHeads splitPut splitPublish
 *   src/datapath/ring.ts: publishUsed
 *   src/datapath/forward.ts: complete
 *   src/datapath/deliver.ts: lock unlock
 *   src/datapath/driver-split.ts: splitAdd splitPublish splitPop
 *   src/datapath/layout.ts: acquire publish
 */

#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#define THREADS 3
/* A buffer with its descriptor, by head; avail and used ring by slot. */
#define DATA 0
#define AVAIL 4
#define USED 8
#define AVAIL_IDX 12
#define USED_IDX 13
#define CELLS 14
#ifndef DEPTH
#define DEPTH 3
#endif
#include "memory.pml"

#ifndef SIZES
#define SIZES 4
#endif
#define WRAPS (2 * SIZES)
#define BEHIND(a, b) (((a) + WRAPS - (b)) % WRAPS)
#define NEXT(a) (((a) + 1) % WRAPS)
#define SLOT(a) ((a) % size)

byte size;

/* Who has the buffer of each head; no more than a check. */
#define IDLE 0
#define POSTED 1
#define RETURNED 2
byte owner[4];
#define BY_DRIVER 1
#define BY_DEVICE 2

/* The driver's own state, under its lock. */
byte added;
byte lastUsed;
bool driverLock;
#if PRODUCERS == 2
#define DRIVER_FREE (!driverLock && EMPTY(0) && EMPTY(1))
#else
#define DRIVER_FREE (!driverLock && EMPTY(0))
#endif

/* RING_LAST_AVAIL, which is also RING_USED_IDX between bursts; under RING_LOCK where there are
 * several workers. */
byte lastAvail;
bool ringLock;
#ifdef UNLOCKED
#define RING_FREE true
#elif PRODUCERS == 1
#define RING_FREE (!ringLock && EMPTY(1) && EMPTY(2))
#else
#define RING_FREE (!ringLock)
#endif

#ifdef NO_RECLAIM
#define HAS_ROOM true
#else
#define HAS_ROOM (BEHIND(added, lastUsed) < size)
#endif

proctype Producer(byte me) {
  byte head, n;
  do
  :: /* driver-split.ts splitAdd, once or twice. */
     atomic {
       DRIVER_FREE && HAS_ROOM -> driverLock = true;
#ifdef PUBLISH_FIRST
       n = NEXT(added);
       PUBLISH(me, AVAIL_IDX, n);
       n = 0;
#endif
       do
       :: n < 2 && HAS_ROOM ->
          assert(BEHIND(added, lastAvail) < size);
          head = 0;
          do
          :: owner[head] != IDLE && head + 1 < size -> head++
          :: else -> break
          od;
          assert(owner[head] == IDLE);
          owner[head] = POSTED;
          STORE(me, DATA + head, BY_DRIVER);
          STORE(me, AVAIL + SLOT(added), head);
          added = NEXT(added);
          n++
       :: n > 0 -> break
       od;
       n = 0;
       head = 0
     }
     /* splitPublish. */
#ifdef PLAIN_AVAIL
     atomic { STORE(me, AVAIL_IDX, added); driverLock = false }
#else
     atomic { PUBLISH(me, AVAIL_IDX, added); driverLock = false }
#endif
  :: /* splitPop. */
     atomic {
       DRIVER_FREE && mem[USED_IDX] != lastUsed ->
       head = mem[USED + SLOT(lastUsed)];
       assert(owner[head] == RETURNED);
       assert(mem[DATA + head] == BY_DEVICE);
       owner[head] = IDLE;
       lastUsed = NEXT(lastUsed);
       head = 0
     }
  od
}

proctype Worker(byte me) {
  byte end, at, head;
  do
  :: /* split.ts splitReady. */
     atomic {
       RING_FREE ->
       ACQUIRE(me, end, AVAIL_IDX);
       assert(BEHIND(end, lastAvail) <= size);
       if
       :: end != lastAvail -> at = lastAvail; ringLock = true
       :: end != lastAvail -> at = lastAvail; end = NEXT(at); ringLock = true
       :: end == lastAvail -> end = 0; goto none
       fi
     }
#ifdef USED_FIRST
     atomic { PUBLISH(me, USED_IDX, end) }
#endif
     /* splitHeads and the copy, then splitPut. */
     do
     :: atomic {
          at != end ->
          head = LOAD(me, AVAIL + SLOT(at));
          assert(owner[head] == POSTED);
          assert(LOAD(me, DATA + head) == BY_DRIVER);
          owner[head] = RETURNED;
          STORE(me, DATA + head, BY_DEVICE);
          STORE(me, USED + SLOT(at), head);
          head = 0;
          at = NEXT(at)
        }
     :: atomic { at == end -> at = 0; break }
     od;
     /* splitPublish; ring.ts publishUsed; the lock is given back. */
     atomic {
#if defined(PLAIN_USED)
       STORE(me, USED_IDX, end);
#elif !defined(USED_FIRST)
       PUBLISH(me, USED_IDX, end);
#endif
       lastAvail = end;
       end = 0;
       ringLock = false
     }
none:
     skip
  od
}

init {
  atomic {
    if
    :: size = 1
    :: size = 2
    :: SIZES == 4 -> size = 4
    fi;
    run Producer(0);
#if PRODUCERS == 2
    run Producer(1);
    run Worker(2);
#else
    run Worker(1);
#ifndef SOLO
    run Worker(2);
#endif
#endif
    run Drain(0);
    run Drain(1);
    run Drain(2)
  }
}
