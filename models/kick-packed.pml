/* Packed ring: two threads of a guest add chains and kick, one worker sleeps.
 *
 * Property: while the worker sleeps, no kick is under way and nobody is about to kick, the ring is
 * empty. So no wake-up is lost. Ring sizes 1 to 4, chains of one or two slots, with and without EVENT_IDX; wrap counters
 * flip for ever.
 *
 * Stands for:
 *   src/datapath/packed.ts: advance availableFlags readyAt packedReady packedArm packedDisarm
 *   src/datapath/ring.ts: arm disarm
 *   src/datapath/poll.ts: add idle armAll activate rebuild
 *   src/worker/worker.ts: takeKicks run
 *   src/datapath/driver-packed.ts: packedAdd packedPublish
 *   src/datapath/layout.ts: acquire publish
 */

#define THREADS 3
#define WORKER 2
/* Flags of the descriptors, by slot; then the device event area. */
#define FLAGS 0
#define EVENT 4
#define ASK 5
#define CELLS 6
#define DEPTH 3
#include "memory.pml"
#include "packed.pml"

#ifndef SIZES
#define SIZES 4
#endif
#define ENABLE 0
#define DISABLE 1
#define DESC 2

bool events;

/* The driver's own state, under its lock: DRV_AVAIL_IDX, DRV_LAST_USED, DRV_KICKED, and how many
 * slots the chain at a slot takes. */
byte added;
byte reclaimed;
byte kicked;
byte takes[4];
bool locked;
#define FREE (!locked && EMPTY(0) && EMPTY(1))
#define ROOM_FOR(n) (BEHIND(added, reclaimed) + n <= size)

/* The kick eventfd, edge triggered. System calls order nothing here. */
bool kick;
bool wanted[2];
#define QUIET (FREE && EMPTY(WORKER) && !kick && !wanted[0] && !wanted[1] && NONE_FRESH)

#ifdef GUEST
/* Linux's count of slots added since its last check, which may be more than a lap: need_event. */
#define FRESH fresh
#define NONE_FRESH (fresh == 0)
#define NEEDED(event, old, pos) (((SLOT(pos) - AT(event, pos) - 1) & 65535) < fresh)
byte fresh;
#else
/* driver-packed.ts packedPublish: is the event among the slots made available since `old`? */
#define FRESH BEHIND(added, kicked)
#define NONE_FRESH (added == kicked)
#ifdef EVENT_LATE
#define NEEDED(event, old, pos) (AT(event, pos) > FROM(old, pos) && AT(event, pos) < SLOT(pos))
#else
#define NEEDED(event, old, pos) (AT(event, pos) >= FROM(old, pos) && AT(event, pos) < SLOT(pos))
#endif
#endif
#ifdef NO_LAP
#define LAP(a, pos) 0
#else
#define LAP(a, pos) (WRAP(a) != WRAP(pos) -> size : 0)
#endif
#define FROM(old, pos) (SLOT(old) - (WRAP(old) != WRAP(pos) -> size : 0))
#define AT(event, pos) (SLOT(event) - LAP(event, pos))

#ifdef PLAIN_PUBLISH
#define SHOW(p, flags) STORE(p, FLAGS + SLOT(first), flags)
#elif defined(GUEST)
#define SHOW(p, flags) RELEASE(p, FLAGS + SLOT(first), flags)
#else
#define SHOW(p, flags) PUBLISH(p, FLAGS + SLOT(first), flags)
#endif

#if defined(GUEST) && defined(NO_FENCE)
#define CAN_LOOK(p) true
#elif defined(GUEST)
#define CAN_LOOK(p) EMPTY(p)
#else
#define CAN_LOOK(p) CAN_ACQUIRE(p)
#endif

proctype Producer(byte me) {
  byte first, flags, event, ask;
  do
  :: /* driver-packed.ts packedPop until there is no more, then packedAdd, once or twice: all but the
        first flags as they come. The lock's cmpxchg drained the buffer: memory is what is read. */
     atomic {
       FREE && (ROOM_FOR(1) || IS(mem[FLAGS + SLOT(reclaimed)], USED(reclaimed))) -> locked = true;
       do
       :: added != reclaimed && IS(mem[FLAGS + SLOT(reclaimed)], USED(reclaimed)) ->
          first = reclaimed;
          reclaimed = ADVANCE(reclaimed, takes[SLOT(reclaimed)]);
          takes[SLOT(first)] = 0
       :: else -> break
       od;
       first = added;
       flags = AVAILABLE(first);
       if
       :: takes[SLOT(first)] = 1; added = ADVANCE(added, 1)
       :: ROOM_FOR(2) ->
          added = ADVANCE(added, 1);
          if
          :: takes[SLOT(first)] = 2; flags = flags + F_NEXT
          :: takes[SLOT(first)] = 1; takes[SLOT(added)] = 1
          fi;
          event = AVAILABLE(added);
          STORE(me, FLAGS + SLOT(added), event);
          added = ADVANCE(added, 1)
       fi;
#ifdef CHECK_FIRST
       CAN_ACQUIRE(me) -> event = LOAD(me, EVENT); ask = LOAD(me, ASK);
#else
       event = 0;
#endif
#ifdef GUEST
       fresh = fresh + BEHIND(added, first)
#endif
     }
     /* packedPublish. GUEST: as Linux does it, the flags shown in one section of the lock, the kick
        prepared there or in another, behind a full fence, by whoever comes first. */
     atomic { SHOW(me, flags) }
#ifdef GUEST
     if
     :: atomic { locked = false; FREE -> locked = true }
     :: true
     fi;
#endif
     atomic {
       CAN_LOOK(me);
#ifndef CHECK_FIRST
       /* Both halves in one load. */
       event = LOAD(me, EVENT);
       ask = LOAD(me, ASK);
#endif
       if
       :: FRESH == 0 || ask == DISABLE -> wanted[me] = false
       :: FRESH > 0 && ask == ENABLE -> wanted[me] = true
       :: FRESH > 0 && ask == DESC -> wanted[me] = NEEDED(event, kicked, added)
       fi;
#ifdef GUEST
       fresh = 0;
#else
       kicked = added;
#endif
       locked = false;
       first = 0; flags = 0; event = 0; ask = 0
     }
     /* Each kicks on its own, the lock given up. */
     if
     :: atomic { wanted[me] -> kick = true; wanted[me] = false }
     :: !wanted[me]
     fi
  od
}

#define RING_EMPTY (!IS(mem[FLAGS + SLOT(last)], AVAILABLE(last)))

proctype Worker() {
  byte last, flags;
  byte rebuilds = 1;
polled:
  if
  :: /* packed.ts packedReady; a chain used at once: packedPut, packedPublish. */
     atomic {
       ACQUIRE(WORKER, flags, FLAGS + SLOT(last));
       if
       :: IS(flags, AVAILABLE(last)) ->
          CAN_PUBLISH(WORKER) -> PUBLISH(WORKER, FLAGS + SLOT(last), USED(last));
          last = ADVANCE(last, 1 + (flags & F_NEXT) / F_NEXT)
       :: else
       fi;
       flags = 0;
       goto polled
     }
  :: /* worker.ts takeKicks(0): a kick for a ring that is polled anyway means nothing. */
     atomic { kick -> kick = false; goto polled }
  :: true
  fi;
  /* packed.ts packedArm, from poll.ts idle. */
#ifdef FLAGS_FIRST
  atomic { PUBLISH(WORKER, ASK, (events -> DESC : ENABLE)) }
#endif
  if
  :: atomic { events -> STORE(WORKER, EVENT, last) }
  :: !events
  fi;
#ifndef FLAGS_FIRST
  atomic {
    flags = (events -> DESC : ENABLE);
#ifdef PLAIN_ARM
    STORE(WORKER, ASK, flags);
#else
    PUBLISH(WORKER, ASK, flags);
#endif
    flags = 0
  }
#endif
#ifndef NO_RECHECK
  atomic {
    ACQUIRE(WORKER, flags, FLAGS + SLOT(last));
    if
    :: IS(flags, AVAILABLE(last)) -> flags = 0; goto disarm
    :: else -> flags = 0
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
  /* poll.ts add, packed.ts packedDisarm. */
  atomic { PUBLISH(WORKER, ASK, DISABLE); goto polled }
}

init {
  atomic {
    select(size : 1 .. SIZES);
    if
    :: events = true
    :: events = false
    fi;
    mem[ASK] = DISABLE;
    run Worker();
    run Producer(0);
    run Producer(1);
    run Drain(0);
    run Drain(1);
    run Drain(WORKER)
  }
}
