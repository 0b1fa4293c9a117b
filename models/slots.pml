/* Guest memory mapped 2 MiB at a time: when may a slot be used again?
 *
 * Property: as long as a worker's round lasts, the slot it looked up for a page shows that page. Two
 * workers that sleep and wake, two pages, two slots, CLOCKS rounds in all.
 *
 * The lists and slot records are under PAGER_LOCK, whose cmpxchg drains the buffers.
 *
 * Stands for:
 *   src/datapath/slots.ts: beginRound detach release letGo takeSlot publishSlot
 *   src/datapath/pager.ts: resident fault
 *   src/worker/worker.ts: takeKicks run
 */

#define THREADS 2
/* Page table entries; then PAGER_CLOCK, and by worker WORKER_ROUND and WORKER_PARKED. */
#define ENTRY 0
#define CLOCK 2
#define ROUND 3
#define PARKED 5
#define CELLS 7
#define DEPTH 3
#include "memory.pml"

#ifndef CLOCKS
#define CLOCKS 6
#endif
#define ABSENT 0
#define BUSY 1
#define LINEAR(slot) ((slot) + 2)
#define NOTHING 255

/* Which page a slot shows; its record: which entry names it; its lists. */
byte shows[2] = NOTHING;
byte record[2] = NOTHING;
byte since[2];
bool free[2] = true;
bool limbo[2];
bool locked;
#define UNLOCKED (!locked && EMPTY(0) && EMPTY(1))
#define OTHER (1 - me)

proctype Worker(byte me) {
  byte now, page, slot;
  byte used = NOTHING;
  goto end_asleep;
end_round:
  /* beginRound: what was looked up before is used no more. */
  atomic {
    EMPTY(me) && mem[CLOCK] < CLOCKS -> used = NOTHING; page = 0;
    mem[CLOCK]++;
    now = mem[CLOCK]
  };
  atomic { PUBLISH(me, ROUND + me, now); now = 0 }
  if
  :: true -> goto look
  :: atomic { UNLOCKED -> locked = true }
  fi;
  /* evict, detach. */
  if
  :: record[0] != NOTHING -> slot = 0
  :: record[1] != NOTHING -> slot = 1
  :: true -> goto give
  fi;
#ifdef SINCE_FIRST
  atomic { ACQUIRE(me, now, CLOCK) };
#endif
  atomic {
    EMPTY(me);
    if
    :: mem[ENTRY + record[slot]] == LINEAR(slot) -> mem[ENTRY + record[slot]] = ABSENT
    :: else -> goto give
    fi
  };
  record[slot] = NOTHING;
#ifndef SINCE_FIRST
  atomic { ACQUIRE(me, now, CLOCK) };
#endif
  atomic { since[slot] = now; now = 0; limbo[slot] = true };
give:
  /* release, letGo. */
  slot = 0;
  do
  :: slot < 2 && limbo[slot] ->
#ifndef NO_LIMBO
     atomic {
       ACQUIRE(me, now, PARKED + OTHER);
       if
       :: now -> now = 0; goto freed
       :: else
       fi
     };
     atomic {
       ACQUIRE(me, now, ROUND + OTHER);
#ifdef SAME_ROUND
       if
       :: now >= since[slot] -> now = 0; goto freed
#else
       if
       :: now > since[slot] -> now = 0; goto freed
#endif
       :: else -> now = 0; goto kept
       fi
     };
#endif
freed:
     atomic { limbo[slot] = false; since[slot] = 0; free[slot] = true };
kept:
     slot++
  :: slot < 2 && !limbo[slot] -> slot++
  :: slot == 2 -> break
  od;
  atomic { slot = 0; locked = false };
look:
  /* resident, of a page, and fault. */
  atomic {
    if
    :: page = 0
    :: page = 1
    fi;
    ACQUIRE(me, used, ENTRY + page);
    if
    :: used >= LINEAR(0) -> used = used - LINEAR(0); goto use
    :: used == BUSY -> used = NOTHING; page = 0; goto over
    :: used == ABSENT -> used = NOTHING
    fi
  };
  atomic {
    EMPTY(me);
    if
    :: mem[ENTRY + page] == ABSENT -> mem[ENTRY + page] = BUSY
    :: else -> page = 0; goto over
    fi
  };
  atomic {
    /* takeSlot. */
    UNLOCKED ->
    if
    :: free[0] -> slot = 0; free[0] = false
    :: free[1] -> slot = 1; free[1] = false
    :: !free[0] && !free[1] -> PUBLISH(me, ENTRY + page, ABSENT); page = 0; goto over
    fi
  };
  /* pageIn is a system call: it shows at once. publishSlot. */
  shows[slot] = page;
  record[slot] = page;
  atomic { PUBLISH(me, ENTRY + page, LINEAR(slot)); used = slot; slot = 0 };
use:
  assert(shows[used] == page);
#ifdef BEGIN_IN_USE
  /* A round begun while a page of the one before is in use. */
  if
  :: atomic { EMPTY(me) && mem[CLOCK] < CLOCKS -> mem[CLOCK]++; now = mem[CLOCK] };
     atomic { PUBLISH(me, ROUND + me, now); now = 0 }
  :: mem[CLOCK] == CLOCKS
  fi;
#endif
  assert(shows[used] == page);
over:
  if
  :: atomic { used = NOTHING; page = 0; goto end_round }
  :: /* worker.ts run: asleep, and up again. */
     atomic { used = NOTHING; page = 0; PUBLISH(me, PARKED + me, 1) }
  fi;
end_asleep:
  atomic { mem[CLOCK] < CLOCKS -> PUBLISH(me, PARKED + me, 0) };
  goto end_round
}

init {
  atomic {
    mem[PARKED] = 1;
    mem[PARKED + 1] = 1;
    run Worker(0);
    run Worker(1);
    run Drain(0);
    run Drain(1)
  }
}
