/* Split ring: two threads of a guest add buffers and kick, one worker sleeps.
 *
 * Property: while the worker sleeps, no kick is under way and nobody is about to kick, the ring is
 * empty. So no wake-up is lost. All ring sizes (1, 2, 4), with and without EVENT_IDX; indices wrap at 8.
 *
 * Stands for:
 *   src/datapath/split.ts: splitReady splitArm splitDisarm
 *   src/datapath/ring.ts: arm disarm
 *   src/datapath/poll.ts: add idle armAll activate rebuild
 *   src/worker/worker.ts: takeKicks run
 *   src/datapath/driver-split.ts: splitPublish
 *   src/datapath/layout.ts: acquire publish
 */

#define THREADS 3
#define WORKER 2
#define AVAIL_IDX 0
#define AVAIL_EVENT 1
#define USED_FLAGS 2
#define CELLS 3
#define DEPTH 2
#include "memory.pml"

#ifndef SIZES
#define SIZES 4
#endif
#define WRAPS (2 * SIZES)
#define BEHIND(a, b) (((a) + WRAPS - (b)) % WRAPS)
#define NO_NOTIFY 1

byte size;
bool events;

/* Buffers the worker has taken, shown to the driver (handoff-split.pml is about how). */
byte taken;

/* The driver's own state: DRV_AVAIL_IDX and DRV_KICKED, under its lock. */
byte added;
byte kicked;
bool locked;
#define FREE (!locked && EMPTY(0) && EMPTY(1))

#define NONE_FRESH (added == kicked)

/* The kick eventfd, edge triggered. System calls order nothing here. */
bool kick;
bool wanted[2];
#define QUIET (FREE && EMPTY(WORKER) && !kick && !wanted[0] && !wanted[1] && NONE_FRESH)

/* need_event, virtio 1.2 2.7.10. */
#ifdef EVENT_LATE
#define NEEDED(idx, event, old) (BEHIND(idx, event) < BEHIND(idx, old))
#else
#define NEEDED(idx, event, old) (BEHIND(BEHIND(idx, event), 1) < BEHIND(idx, old))
#endif

/* The cell that says whether to kick. */
byte asked;

/* driver-split.ts splitPublish. GUEST: as Linux does it, the index shown in one section of the lock,
 * the kick prepared in another, behind a full fence, by whoever comes first. */
#if defined(PLAIN_PUBLISH)
#define SHOW(p) STORE(p, AVAIL_IDX, added)
#elif defined(GUEST)
#define SHOW(p) RELEASE(p, AVAIL_IDX, added)
#else
#define SHOW(p) PUBLISH(p, AVAIL_IDX, added)
#endif

#if defined(GUEST) && defined(NO_FENCE)
#define CAN_LOOK(p) true
#elif defined(GUEST)
#define CAN_LOOK(p) EMPTY(p)
#else
#define CAN_LOOK(p) CAN_ACQUIRE(p)
#endif

proctype Producer(byte me) {
  byte seen;
  do
  :: atomic {
       FREE && BEHIND(added, taken) < size -> locked = true;
       if
       :: added = (added + 1) % WRAPS
       :: BEHIND(added, taken) + 1 < size -> added = (added + 2) % WRAPS
       fi;
#ifdef CHECK_FIRST
       CAN_ACQUIRE(me) -> seen = LOAD(me, asked);
     }
     atomic {
#endif
       SHOW(me)
     }
#ifdef GUEST
     if
     :: atomic { locked = false; FREE -> locked = true }
     :: true
     fi;
#endif
     atomic {
       CAN_LOOK(me);
#ifndef CHECK_FIRST
       seen = LOAD(me, asked);
#endif
       wanted[me] = added != kicked && (events -> NEEDED(added, seen, kicked) : !(seen & NO_NOTIFY));
       kicked = added;
       locked = false;
       seen = 0
     }
     /* Each kicks on its own, the lock given up. */
     if
     :: atomic { wanted[me] -> kick = true; wanted[me] = false }
     :: !wanted[me]
     fi
  od
}

#define RING_EMPTY (mem[AVAIL_IDX] == last)

proctype Worker() {
  byte last, idx;
  byte rebuilds = 1;
polled:
  if
  :: /* split.ts splitReady, and a burst of any length, from poll.ts visit. */
     atomic {
       ACQUIRE(WORKER, idx, AVAIL_IDX);
       assert(BEHIND(idx, last) <= size);
       if
       :: idx != last -> last = (last + 1) % WRAPS; taken = last
       :: idx != last -> last = idx; taken = last
       :: else
       fi;
       idx = 0;
       goto polled
     }
  :: /* worker.ts takeKicks(0): a kick for a ring that is polled anyway means nothing. */
     atomic { kick -> kick = false; goto polled }
  :: /* split.ts splitArm, from poll.ts idle. */
     atomic {
#ifdef PLAIN_ARM
       ROOM(WORKER) -> idx = (events -> last : 0);
       PUT(WORKER, asked, idx, 0);
#else
       CAN_PUBLISH(WORKER) -> idx = (events -> last : 0);
       PUBLISH(WORKER, asked, idx);
#endif
       idx = 0
     }
  fi;
#ifndef NO_RECHECK
  atomic {
    ACQUIRE(WORKER, idx, AVAIL_IDX);
    if
    :: idx != last -> idx = 0; goto disarm
    :: else -> idx = 0
    fi
  }
#endif
asleep:
  /* worker.ts takeKicks: in epoll_wait, or between rounds over other rings. */
  if
#ifdef FORGETFUL
  :: atomic { kick -> kick = false; goto asleep }
#else
  :: atomic { kick -> kick = false; goto disarm }
#endif
  :: /* Main bumped the generation: poll.ts rebuild polls every ring anew. */
     atomic { rebuilds > 0 -> rebuilds--; goto disarm }
  :: atomic { QUIET -> assert(RING_EMPTY); goto asleep }
  fi;
disarm:
  /* poll.ts add, split.ts splitDisarm: with EVENT_IDX a stale event is enough. */
  if
  :: events -> goto polled
  :: atomic {
       !events && CAN_PUBLISH(WORKER) -> PUBLISH(WORKER, USED_FLAGS, NO_NOTIFY);
       goto polled
     }
  fi
}

init {
  atomic {
    if
    :: size = 1
    :: size = 2
    :: SIZES == 4 -> size = 4
    fi;
    if
    :: events = true; asked = AVAIL_EVENT
    :: events = false; asked = USED_FLAGS; mem[USED_FLAGS] = NO_NOTIFY
    fi;
    run Worker();
    run Producer(0);
    run Producer(1);
    run Drain(0);
    run Drain(1);
    run Drain(WORKER)
  }
}
