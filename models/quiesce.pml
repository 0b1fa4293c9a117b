/* Main changes a ring while workers use it: unpublish, quiesce, change, publish, quiesce.
 *
 * Properties: when quiesce has returned, no worker uses, or will use, what was unpublished before the
 * call; quiesce returns; a worker sleeps only with main's last change taken note of and not told to
 * stop, or with a wake-up on its way. One worker or two (WORKERS), two changes.
 *
 * RING_USED stands for all of the ring's set-up; what it names, for the memory main takes away.
 *
 * Stands for:
 *   src/datapath/poll.ts: pollable rebuild follow poll visit armAll activate
 *   src/datapath/deliver.ts: deliver
 *   src/worker/worker.ts: takeKicks run
 *   src/worker/pool.ts: quiesce #passed close
 *   src/virtio/ring.ts: load run halt
 *   src/virtio/device.ts: #halt
 */

#ifndef WORKERS
#define WORKERS 2
#endif
#define THREADS (WORKERS + 1)
#define MAIN WORKERS
/* By worker: WORKER_GENERATION, WORKER_ACK, WORKER_PARKED. */
#define GENERATION 0
#define ACK 2
#define PARKED 4
#define STATE 6
#define USED 7
#define STOP 8
#define CELLS 9
#define DEPTH 3
#include "memory.pml"

#define STOPPED 0
#define RUNNING 1

/* Whether what RING_USED may name, 0 or 1, is there. */
bool mapped[2];

/* A worker's wake-up eventfd, edge triggered. Who sees it signalled sees what was stored before: the
 * kernel takes the same lock for both. */
bool wake[WORKERS];
bool settled;
bool stopped;

/* poll.ts pollable (for an RX ring deliver.ts deliver), and what is read of the ring after it. On Arm
 * two plain loads may be done in either order. */
#if defined(PLAIN_STATE) && MEMORY == ARM
#define LOOK(p, state, used) \
  if \
  :: atomic { state = LOAD(p, STATE) }; used = LOAD(p, USED) \
  :: atomic { used = LOAD(p, USED) }; state = LOAD(p, STATE) \
  fi
#else
#define LOOK(p, state, used) \
  atomic { ACQUIRE(p, state, STATE) }; \
  used = LOAD(p, USED)
#endif

#ifdef PLAIN_PARKED
#define PARK(p, to) STORE(p, PARKED + p, to)
#else
#define PARK(p, to) PUBLISH(p, PARKED + p, to)
#endif

proctype Worker(byte me) {
  byte seen, used, ack;
  bool listed;
loop:
  atomic {
    ACQUIRE(me, seen, STOP);
    if
    :: seen -> seen = 0; goto over
    :: else
    fi
  };
  /* worker.ts takeKicks(0), now and then: main's wake-up needs no answer, the round looks anyway. */
  if
  :: atomic { wake[me] -> wake[me] = false }
  :: true
  fi;
  /* poll.ts follow: acknowledges first, then rebuilds the list and touches what is in it. */
  atomic {
    ACQUIRE(me, seen, GENERATION + me);
    if
    :: seen == ack -> seen = 0; goto rings
    :: else
    fi
  };
  atomic { PUBLISH(me, ACK + me, seen); ack = seen; seen = 0 }
  LOOK(me, listed, used);
  assert(!listed || mapped[used]);
rings:
  /* poll.ts visit: what is in the list, when it is still pollable. A second visit in one poll is as this one:
     before the next look at the generation. */
  if
  :: !listed -> used = 0; goto idle
  :: listed
  fi;
#ifndef STALE_LIST
  LOOK(me, listed, used);
  if
  :: !listed -> used = 0; goto idle
  :: listed
  fi;
#endif
  /* forward.ts pollRing. */
  assert(mapped[used]);
#ifdef ACK_IN_USE
  atomic { ACQUIRE(me, seen, GENERATION + me); PUBLISH(me, ACK + me, seen); seen = 0 }
#endif
  assert(mapped[used]);
#ifndef STALE_LIST
  used = 0;
#endif
idle:
  if
  :: goto loop
  :: true
  fi;
  /* worker.ts run, having spun in vain. */
  atomic { PARK(me, 1) }
#ifndef NO_LAST_LOOK
  atomic {
    ACQUIRE(me, seen, GENERATION + me);
    if
    :: seen != ack -> seen = 0; goto up
    :: else -> seen = 0
    fi
  };
  atomic {
    ACQUIRE(me, seen, STOP);
    if
    :: seen -> seen = 0; goto up
    :: else
    fi
  };
#endif
asleep:
  /* epoll_wait: ended by main, or by a kick at any time. */
  if
  :: atomic { wake[me] -> wake[me] = false }
  :: true
  :: atomic { settled && !wake[me] -> assert(ack == mem[GENERATION + me]); goto asleep }
  :: atomic { stopped && !wake[me] -> assert(false) }
  fi;
up:
  atomic { PARK(me, 0) }
#ifdef STALE_LIST
  goto rings;
#endif
  goto loop;
over:
  skip
}

/* pool.ts quiesce: bumps and wakes all, then waits for each. */
inline BUMP(w) {
#ifdef LOOK_FIRST
  was = LOAD(MAIN, PARKED + w);
#endif
#ifdef PLAIN_BUMP
  generation[w]++;
  atomic { STORE(MAIN, GENERATION + w, generation[w]) };
#else
  atomic { EMPTY(MAIN) -> generation[w]++; mem[GENERATION + w] = generation[w] };
#endif
  atomic { EMPTY(MAIN) -> wake[w] = true }
}
#ifdef LOOK_FIRST
#define PASSED(w) (CAN_ACQUIRE(MAIN) && (mem[ACK + w] == generation[w] || was))
#else
#define PASSED(w) (CAN_ACQUIRE(MAIN) && (mem[ACK + w] == generation[w] || mem[PARKED + w] == 1))
#endif
inline QUIESCE() {
  BUMP(0);
#if WORKERS == 2
  BUMP(1);
  PASSED(1);
#endif
  PASSED(0)
}

proctype Main() {
  byte generation[WORKERS];
  byte changes;
  bool now, was;
  do
  :: changes < 2 ->
     /* device.ts #halt; the change, ring.ts load and run; #settle. */
     atomic { PUBLISH(MAIN, STATE, STOPPED) }
#ifndef NO_QUIESCE
     QUIESCE();
#endif
     atomic { mapped[now] = false; now = !now; mapped[now] = true }
     atomic { PUBLISH(MAIN, USED, now) }
     atomic { PUBLISH(MAIN, STATE, RUNNING) }
     QUIESCE();
     changes++
  :: else -> break
  od;
  settled = true;
  /* pool.ts close. */
  settled = false;
  atomic { PUBLISH(MAIN, STOP, 1) }
  atomic { EMPTY(MAIN) -> wake[0] = true };
#if WORKERS == 2
  wake[1] = true;
#endif
  stopped = true
}

init {
  atomic {
    mapped[0] = true;
    mem[STATE] = RUNNING;
    run Main();
    run Worker(0);
#if WORKERS == 2
    run Worker(1);
    run Drain(1);
#endif
    run Drain(0);
    run Drain(MAIN)
  }
}
