/* Packed ring: two workers deliver into it, in turn under its lock, and call; the driver sleeps.
 *
 * Property: while the driver sleeps, no call is under way and nobody is about to call, nothing used
 * waits for it. So no wake-up is lost. Ring sizes 1 to 4, chains of one or two slots, bursts of one
 * or two chains, with and without EVENT_IDX; wrap counters flip for ever.
 *
 * Stands for:
 *   src/datapath/packed.ts: advance packedPublish packedWanted
 *   src/datapath/ring.ts: publishUsed notify
 *   src/datapath/room.ts: closeRoom
 *   src/datapath/deliver.ts: deliver lock unlock
 *   src/datapath/driver.ts: drvArm drvUsed
 *   src/datapath/driver-packed.ts: packedUsed packedArm packedDisarm isUsed
 *   src/datapath/layout.ts: acquire publish
 */

#define THREADS 3
#define DRIVER 2
/* Flags of the descriptors, by slot; then the driver event area: position + ASK * flags. */
#define FLAGS 0
#define AREA 4
#define CELLS 5
#define DEPTH 3
#include "memory.pml"
#include "packed.pml"

#ifndef SIZES
#define SIZES 4
#endif
#define ASK 16
#define ENABLE 0
#define DISABLE 1
#define DESC 2
#define NEVER 255

bool events;

/* RING_USED_IDX and RING_SIGNALLED, under RING_LOCK. */
byte used;
byte signalled = NEVER;
bool locked;
#define FREE (!locked && EMPTY(0) && EMPTY(1))

/* The call eventfd. System calls order nothing here. */
bool call;
#define QUIET (FREE && EMPTY(DRIVER) && !call)

/* packed.ts packedWanted: need_event over slots, both ends counted back into the new lap. */
#define FROM(old, pos) (SLOT(old) - (SLOT(pos) <= SLOT(old) -> size : 0))
#ifdef NO_LAP
#define AT(event, pos) SLOT(event)
#else
#define AT(event, pos) (SLOT(event) - (WRAP(event) != WRAP(pos) -> size : 0))
#endif
#ifdef EVENT_LATE
#define NEEDED(event, old, pos) \
  (((SLOT(pos) - AT(event, pos)) & 65535) < ((SLOT(pos) - FROM(old, pos)) & 65535))
#else
#define NEEDED(event, old, pos) \
  (((SLOT(pos) - AT(event, pos) - 1) & 65535) < ((SLOT(pos) - FROM(old, pos)) & 65535))
#endif

#define IS_AVAILABLE(pos) IS(mem[FLAGS + SLOT(pos)], AVAILABLE(pos))

proctype Worker(byte me) {
  byte first, seen;
  do
  :: /* One chain or two; packed.ts packedPut writes all flags but the first. The lock's cmpxchg
        drained the buffer: memory is what is read. */
     atomic {
       FREE && IS_AVAILABLE(used) -> locked = true;
#ifdef CHECK_FIRST
       seen = mem[AREA];
#endif
       first = used;
       used = ADVANCE(used, 1 + (mem[FLAGS + SLOT(used)] & F_NEXT) / F_NEXT);
       if
       :: true
       :: IS_AVAILABLE(used) ->
          STORE(me, FLAGS + SLOT(used), USED(used));
          used = ADVANCE(used, 1 + (mem[FLAGS + SLOT(used)] & F_NEXT) / F_NEXT)
       fi
     }
     /* packed.ts packedPublish. */
#ifdef PLAIN_PUBLISH
     atomic { STORE(me, FLAGS + SLOT(first), USED(first)) }
#else
     atomic { PUBLISH(me, FLAGS + SLOT(first), USED(first)) }
#endif
     /* ring.ts notify, packed.ts packedWanted: flags, then the position. */
     atomic {
       first = 0;
#ifndef CHECK_FIRST
       ACQUIRE(me, seen, AREA)
#endif
     }
     atomic {
       if
       :: seen / ASK == DESC && signalled != NEVER ->
#ifndef CHECK_FIRST
          ACQUIRE(me, seen, AREA);
#endif
          seen = NEEDED(seen % ASK, signalled, used)
       :: seen / ASK == DESC && signalled == NEVER -> seen = true
       :: seen / ASK != DESC -> seen = seen / ASK != DISABLE
       fi;
#ifdef KEEP_OLD
       signalled = (signalled == NEVER -> used : signalled)
#else
       signalled = used
#endif
     }
     /* The call is made under the lock. */
     atomic { call = call || seen; seen = 0; locked = false }
  od
}

/* Slots the chain at a slot takes. */
byte takes[4];

proctype Driver() {
  byte added, reclaimed, flags;
polled:
  if
  :: /* driver-packed.ts packedPop. */
     atomic {
       ACQUIRE(DRIVER, flags, FLAGS + SLOT(reclaimed));
       if
       :: added != reclaimed && IS(flags, USED(reclaimed)) ->
          flags = reclaimed;
          reclaimed = ADVANCE(reclaimed, takes[SLOT(reclaimed)]);
          takes[SLOT(flags)] = 0
       :: else
       fi;
       flags = 0;
       goto polled
     }
  :: /* packedAdd, packedPublish. */
     atomic {
       BEHIND(added, reclaimed) < size ->
       takes[SLOT(added)] = 1;
       PUBLISH(DRIVER, FLAGS + SLOT(added), AVAILABLE(added));
       added = ADVANCE(added, 1);
       goto polled
     }
  :: atomic {
       BEHIND(added, reclaimed) + 1 < size ->
       takes[SLOT(added)] = 2;
       flags = ADVANCE(added, 1);
       STORE(DRIVER, FLAGS + SLOT(flags), AVAILABLE(flags));
       flags = AVAILABLE(added) + F_NEXT;
       PUBLISH(DRIVER, FLAGS + SLOT(added), flags);
       added = ADVANCE(added, 2);
       flags = 0;
       goto polled
     }
  :: /* A call nobody waits for. */
     atomic { call -> call = false; goto polled }
  :: /* driver-packed.ts packedArm: both halves in one store. */
     atomic {
       flags = reclaimed + ASK * (events -> DESC : ENABLE);
#ifdef PLAIN_ARM
       STORE(DRIVER, AREA, flags);
#else
       PUBLISH(DRIVER, AREA, flags);
#endif
       flags = 0
     }
  fi;
#ifndef NO_RECHECK
  /* driver.ts drvArm: drvUsed. */
  atomic {
    ACQUIRE(DRIVER, flags, FLAGS + SLOT(reclaimed));
    if
    :: added != reclaimed && IS(flags, USED(reclaimed)) -> flags = 0; goto disarm
    :: else -> flags = 0
    fi
  }
#endif
asleep:
  if
  :: atomic { call -> call = false; goto disarm }
  :: atomic {
       QUIET ->
       assert(added == reclaimed || !IS(mem[FLAGS + SLOT(reclaimed)], USED(reclaimed)));
       goto asleep
     }
  fi;
disarm:
  /* driver-packed.ts packedDisarm. */
  atomic {
    flags = LOAD(DRIVER, AREA) % ASK + ASK * DISABLE;
    PUBLISH(DRIVER, AREA, flags);
    flags = 0;
    goto polled
  }
}

init {
  atomic {
    select(size : 1 .. SIZES);
    if
    :: events = true
    :: events = false
    fi;
    run Driver();
    run Worker(0);
    run Worker(1);
    run Drain(0);
    run Drain(1);
    run Drain(DRIVER)
  }
}
