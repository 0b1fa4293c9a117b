/* Packed ring: what a chain goes through, from the driver to the device and back, in place.
 *
 * Properties: the device takes each chain once, whole, and never before what the driver wrote into
 * its descriptors and its buffer shows; the driver gets each back once, and never before what the
 * device wrote into the buffer and the used descriptor shows. Ring sizes 1 to 4, chains of one or two
 * slots, bursts of one or two chains on both sides; wrap counters flip for ever.
 *
 * One thread of the guest, and WORKERS of the switch (two: an RX ring, under its lock).
 *
 * Stands for:
 *   src/datapath/packed.ts: advance availableFlags readyAt packedReady packedHeads spanOf packedPut packedPublish
 *   src/datapath/ring.ts: publishUsed
 *   src/datapath/forward.ts: complete
 *   src/datapath/deliver.ts: lock unlock
 *   src/datapath/driver-packed.ts: packedAdd packedPublish packedPop isUsed
 *   src/datapath/layout.ts: acquire publish
 */

#ifndef WORKERS
#define WORKERS 1
#endif
#define THREADS (1 + WORKERS)
#define DRIVER 0
/* The buffer of a chain, by buffer id; id and flags of the descriptors, by slot. A descriptor's eight
 * bytes {len, id, flags} stored at once are two stores here, which is weaker. */
#define DATA 0
#define ID 4
#define FLAGS 8
#define CELLS 12
#define DEPTH 3
#include "memory.pml"
#include "packed.pml"

#ifndef SIZES
#define SIZES 4
#endif

/* Who has the chain of each id, and how many slots it takes; `owner` is no more than a check. */
#define IDLE 0
#define POSTED 1
#define RETURNED 2
byte owner[4];
byte takes[4];
#define BY_DRIVER 1
#define BY_DEVICE 2

/* RING_LAST_AVAIL, which is also RING_USED_IDX between bursts; under RING_LOCK. */
byte lastAvail;
bool ringLock;
#if WORKERS == 1
#define RING_FREE true
#elif defined(UNLOCKED)
#define RING_FREE true
#else
#define RING_FREE (!ringLock && EMPTY(1) && EMPTY(2))
#endif

proctype Driver() {
  byte added, published, lastUsed, id, flags, n;
  bool next;
#define ROOM_FOR(k) (BEHIND(added, lastUsed) + k <= size)
  do
  :: /* driver-packed.ts packedAdd, once or twice: all but the first flags as they come. */
     atomic {
       ROOM_FOR(1) ->
       do
       :: n < 2 && ROOM_FOR(1) ->
          id = 0;
          do
          :: owner[id] != IDLE && id + 1 < size -> id++
          :: else -> break
          od;
          assert(owner[id] == IDLE);
          owner[id] = POSTED;
          STORE(DRIVER, DATA + id, BY_DRIVER);
          if
          :: takes[id] = 1
          :: ROOM_FOR(2) -> takes[id] = 2
          fi;
          STORE(DRIVER, ID + SLOT(added), id);
          flags = AVAILABLE(added) + (takes[id] == 2 -> F_NEXT : 0);
#ifdef FLAGS_EARLY
          STORE(DRIVER, FLAGS + SLOT(added), flags);
#else
          if
          :: added == published
          :: else -> STORE(DRIVER, FLAGS + SLOT(added), flags)
          fi;
#endif
          added = ADVANCE(added, 1);
          if
          :: takes[id] == 2 ->
             STORE(DRIVER, ID + SLOT(added), id);
             flags = AVAILABLE(added);
             STORE(DRIVER, FLAGS + SLOT(added), flags);
             added = ADVANCE(added, 1)
          :: else
          fi;
          if
          :: n == 0 -> next = takes[id] == 2
          :: else
          fi;
          n++
       :: n > 0 -> break
       od
     }
     /* packedPublish. */
     atomic {
       flags = AVAILABLE(published) + (next -> F_NEXT : 0);
#if defined(PLAIN_FLAGS)
       STORE(DRIVER, FLAGS + SLOT(published), flags);
#elif !defined(FLAGS_EARLY)
       PUBLISH(DRIVER, FLAGS + SLOT(published), flags);
#endif
       published = added;
       next = false;
       id = 0;
       flags = 0;
       n = 0
     }
  :: /* packedPop. */
     atomic {
       CAN_ACQUIRE(DRIVER) && added != lastUsed &&
       IS(LOAD(DRIVER, FLAGS + SLOT(lastUsed)), USED(lastUsed)) ->
       id = LOAD(DRIVER, ID + SLOT(lastUsed));
       assert(owner[id] == RETURNED);
       assert(LOAD(DRIVER, DATA + id) == BY_DEVICE);
       owner[id] = IDLE;
       lastUsed = ADVANCE(lastUsed, takes[id]);
       takes[id] = 0;
       id = 0
     }
  od
}

proctype Worker(byte me) {
  byte at, id, n, span;
  do
  :: /* packed.ts packedReady. */
     atomic {
       RING_FREE && CAN_ACQUIRE(me) &&
       IS(LOAD(me, FLAGS + SLOT(lastAvail)), AVAILABLE(lastAvail)) ->
       ringLock = true;
       at = lastAvail
     }
     /* packedHeads, the copy, packedPut: all flags but the first. */
     do
     :: atomic {
          n < 2 && CAN_ACQUIRE(me) && IS(LOAD(me, FLAGS + SLOT(at)), AVAILABLE(at)) ->
          span = 1 + (LOAD(me, FLAGS + SLOT(at)) & F_NEXT) / F_NEXT;
          id = ADVANCE(at, span - 1);
          id = LOAD(me, ID + SLOT(id));
          assert(owner[id] == POSTED);
          assert(takes[id] == span);
          assert(LOAD(me, DATA + id) == BY_DRIVER);
          owner[id] = RETURNED;
          STORE(me, DATA + id, BY_DEVICE);
          STORE(me, ID + SLOT(at), id);
#ifdef USED_EARLY
          STORE(me, FLAGS + SLOT(at), USED(at));
#else
          if
          :: at == lastAvail
          :: else -> STORE(me, FLAGS + SLOT(at), USED(at))
          fi;
#endif
#ifdef ONE_SLOT
          at = ADVANCE(at, 1);
#else
          at = ADVANCE(at, span);
#endif
          n++;
          span = 0;
          id = 0
        }
     :: n > 0 -> break
     od;
     /* packedPublish; ring.ts publishUsed; the lock is given back. */
     atomic {
#if defined(PLAIN_USED)
       STORE(me, FLAGS + SLOT(lastAvail), USED(lastAvail));
#elif !defined(USED_EARLY)
       PUBLISH(me, FLAGS + SLOT(lastAvail), USED(lastAvail));
#endif
       lastAvail = at;
       at = 0;
       n = 0;
       ringLock = false
     }
  od
}

init {
  atomic {
    select(size : 1 .. SIZES);
    run Driver();
    run Worker(1);
    run Drain(0);
    run Drain(1);
#if WORKERS == 2
    run Worker(2);
    run Drain(2)
#endif
  }
}
