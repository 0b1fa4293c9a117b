/* Split ring: two workers deliver into it, in turn under its lock, and call; the driver sleeps.
 *
 * Property: while the driver sleeps, no call is under way and nobody is about to call, nothing used
 * waits for it. So no wake-up is lost. All ring sizes (1, 2, 4), with and without EVENT_IDX; a driver
 * may ask for a call at the next used buffer or, as Linux does for sent frames, one later. Indices
 * wrap at 8.
 *
 * Stands for:
 *   src/datapath/split.ts: splitPublish splitWanted
 *   src/datapath/ring.ts: publishUsed notify
 *   src/datapath/room.ts: closeRoom
 *   src/datapath/deliver.ts: deliver lock unlock
 *   src/datapath/driver.ts: drvArm drvUsed
 *   src/datapath/driver-split.ts: splitUsed splitArm splitDisarm
 *   src/datapath/layout.ts: acquire publish
 */

#define THREADS 3
#define DRIVER 2
#define USED_IDX 0
#define USED_EVENT 1
#define AVAIL_FLAGS 2
#define CELLS 3
#define DEPTH 2
#include "memory.pml"

#define WRAPS 8
#define BEHIND(a, b) (((a) + WRAPS - (b)) % WRAPS)
#define NO_INTERRUPT 1
#define NEVER 255

byte size;
bool events;
/* The cell that says whether to call. */
byte asked;

/* Buffers the driver has posted, shown to the workers (handoff-split.pml is about how). */
byte posted;

/* RING_USED_IDX and RING_SIGNALLED, under RING_LOCK. */
byte used;
byte signalled = NEVER;
bool locked;
#define FREE (!locked && EMPTY(0) && EMPTY(1))

/* The call eventfd. System calls order nothing here. */
bool call;
#define QUIET (FREE && EMPTY(DRIVER) && !call)

/* need_event, virtio 1.2 2.7.10. */
#ifdef EVENT_LATE
#define NEEDED(idx, event, old) (BEHIND(idx, event) < BEHIND(idx, old))
#else
#define NEEDED(idx, event, old) (BEHIND(BEHIND(idx, event), 1) < BEHIND(idx, old))
#endif

proctype Worker(byte me) {
  byte seen;
  do
  :: atomic {
       FREE && posted != used -> locked = true;
#ifdef CHECK_FIRST
       CAN_ACQUIRE(me) -> seen = LOAD(me, asked);
#endif
       if
       :: used = (used + 1) % WRAPS
       :: BEHIND(posted, used) > 1 -> used = (used + 2) % WRAPS
       fi
     }
     /* split.ts splitPublish. */
#ifdef PLAIN_PUBLISH
     atomic { STORE(me, USED_IDX, used) }
#else
     atomic { PUBLISH(me, USED_IDX, used) }
#endif
     /* ring.ts notify, split.ts splitWanted; the call is made under the lock. */
     atomic {
#ifndef CHECK_FIRST
       ACQUIRE(me, seen, asked);
#endif
       seen = (events -> signalled == NEVER || NEEDED(used, seen, signalled) : !(seen & NO_INTERRUPT));
#ifdef KEEP_OLD
       signalled = (signalled == NEVER -> used : signalled)
#else
       signalled = used
#endif
     }
     atomic { call = call || seen; seen = 0; locked = false }
  od
}

proctype Driver() {
  byte last, idx, later;
polled:
  if
  :: /* driver-split.ts splitPop; what comes back is posted again. */
     atomic {
       ACQUIRE(DRIVER, idx, USED_IDX);
       if
       :: idx != last -> last = (last + 1) % WRAPS
       :: idx != last -> last = idx
       :: else
       fi;
       idx = 0;
       posted = (last + size) % WRAPS;
       goto polled
     }
  :: /* A call nobody waits for. */
     atomic { call -> call = false; goto polled }
  :: /* driver-split.ts splitArm. */
     atomic {
       if
       :: true
       :: events -> later = 1
       fi;
#ifdef PLAIN_ARM
       ROOM(DRIVER) -> idx = (events -> (last + later) % WRAPS : 0);
       PUT(DRIVER, asked, idx, 0);
#else
       CAN_PUBLISH(DRIVER) -> idx = (events -> (last + later) % WRAPS : 0);
       PUBLISH(DRIVER, asked, idx);
#endif
       idx = 0
     }
  fi;
#ifndef NO_RECHECK
  /* driver.ts drvArm: drvUsed. */
  atomic {
    ACQUIRE(DRIVER, idx, USED_IDX);
    if
    :: BEHIND(idx, last) > later -> idx = 0; goto disarm
    :: else -> idx = 0
    fi
  }
#endif
asleep:
  if
  :: atomic { call -> call = false; goto disarm }
  :: atomic { QUIET -> assert(BEHIND(mem[USED_IDX], last) <= later); goto asleep }
  fi;
disarm:
  /* driver-split.ts splitDisarm: with EVENT_IDX a stale event is enough. */
  later = 0;
  if
  :: events -> goto polled
  :: atomic {
       !events && CAN_PUBLISH(DRIVER) -> PUBLISH(DRIVER, AVAIL_FLAGS, NO_INTERRUPT);
       goto polled
     }
  fi
}

init {
  atomic {
    if
    :: size = 1
    :: size = 2
    :: size = 4
    fi;
    posted = size;
    if
    :: events = true; asked = USED_EVENT
    :: events = false; asked = AVAIL_FLAGS
    fi;
    run Driver();
    run Worker(0);
    run Worker(1);
    run Drain(0);
    run Drain(1);
    run Drain(DRIVER)
  }
}
