/* The barriers as litmus tests, for Relacy (Debian: relacy-dev), which runs every interleaving and
 * every value that the C++11 memory model lets a load return, and finds data races.
 *
 * WebAssembly's atomics are seq_cst; its plain accesses are rl::var where nobody may race for them,
 * relaxed where somebody does. A guest's own fences are not here: Relacy does not relate a fence to
 * other threads' seq_cst accesses (kick-split.pml and kick-packed.pml, GUEST, do). README.md says what V8 makes of them on x86 and Arm. Each test says
 * what it stands for; each is also run broken, order by order, and must fail then.
 *
 * Stands for:
 *   src/datapath/layout.ts: acquire publish
 *   src/datapath/poll.ts: pollable follow
 *   src/datapath/deliver.ts: deliver lock unlock
 *   src/datapath/ring.ts: arm notify
 *   src/datapath/packed.ts: packedPut packedPublish packedHeads
 *   src/worker/pool.ts: quiesce #passed
 */

#include <cstdio>
#include <fstream>

#include <relacy/relacy.hpp>

using rl::memory_order;
static const memory_order SC = rl::mo_seq_cst, RELEASE = rl::mo_release, RELAXED = rl::mo_relaxed;

/* The orders under test: seq_cst in the code, weaker when broken. */
static memory_order one, two;

/* acquire and publish: the avail index, the used index, RING_STATE (a ring started in the middle of a
 * round). What was written before the store is there after the load. one: store, two: load. */
struct Publish : rl::test_suite<Publish, 2> {
  rl::atomic<int> index;
  rl::var<int> buffer;
  void before() { index.store(0, RELAXED, $); buffer($) = 0; }
  void thread(unsigned me) {
    if (me == 0) {
      buffer($) = 1;
      index.store(1, one, $);
    } else if (index.load(two, $) == 1) {
      RL_ASSERT(buffer($) == 1);
    }
  }
};

/* arm against publish, and notify against the driver's drvArm: the request is stored, then the index
 * loaded; the index is stored, then the request loaded. one: stores, two: loads. */
struct Sleep : rl::test_suite<Sleep, 2> {
  rl::atomic<int> index, request;
  int available, asked;
  void before() { index.store(0, RELAXED, $); request.store(0, RELAXED, $); }
  void thread(unsigned me) {
    if (me == 0) {
      request.store(1, one, $);
      available = index.load(two, $);
    } else {
      index.store(1, one, $);
      asked = request.load(two, $);
    }
  }
  void after() { RL_ASSERT(available || asked); }
};

/* A packed burst: the flags of the first descriptor are shown last, and with them the second
 * descriptor and both buffers. one: store of the first flags, two: load of them. */
struct Burst : rl::test_suite<Burst, 2> {
  rl::atomic<int> flags[2];
  rl::var<int> id[2], buffer[2];
  void before() {
    for (int i = 0; i < 2; i++) {
      flags[i].store(0, RELAXED, $);
      id[i]($) = 0;
      buffer[i]($) = 0;
    }
  }
  void thread(unsigned me) {
    if (me == 0) {
      buffer[0]($) = 1;
      id[0]($) = 1;
      buffer[1]($) = 1;
      id[1]($) = 1;
      flags[1].store(1, RELAXED, $);
      flags[0].store(1, one, $);
    } else if (flags[0].load(two, $) == 1) {
      RL_ASSERT(flags[1].load(SC, $) == 1);
      for (int i = 0; i < 2; i++) RL_ASSERT(id[i]($) == 1 && buffer[i]($) == 1);
    }
  }
};

/* quiesce against a worker that wakes up and does two rounds: unless it has acknowledged, or is parked
 * and will look, main does not take the memory away. one: the store of PARKED, two: of ACK. */
struct Quiesce : rl::test_suite<Quiesce, 2> {
  rl::atomic<int> generation, ack, parked, state;
  rl::var<int> memory;
  void before() {
    generation.store(0, RELAXED, $);
    ack.store(0, RELAXED, $);
    parked.store(1, RELAXED, $);
    state.store(1, RELAXED, $);
    memory($) = 1;
  }
  void thread(unsigned me) {
    if (me == 0) {
      state.store(0, SC, $);
      generation.fetch_add(1, SC, $);
      if (ack.load(SC, $) == 1 || parked.load(SC, $) == 1) memory($) = 0;
    } else {
      parked.store(0, one, $);
      for (int round = 0; round < 2; round++) {
        if (generation.load(SC, $) == 1) ack.store(1, two, $);
        if (state.load(SC, $) == 1) RL_ASSERT(memory($) == 1);
      }
    }
  }
};

/* RING_LOCK: what one worker wrote under it the next one sees. one: unlock, two: lock. */
struct Lock : rl::test_suite<Lock, 2> {
  rl::atomic<int> lock;
  rl::var<int> position;
  void before() { lock.store(0, RELAXED, $); position($) = 0; }
  void thread(unsigned) {
    int expected = 0;
    if (!lock.compare_exchange_strong(expected, 1, two, $, RELAXED, $)) return;
    position($) = position($) + 1;
    lock.store(0, one, $);
  }
};

template <typename Test>
static int run(const char *name, bool breaks, memory_order first, memory_order second) {
  static const char *const names[] = {"relaxed", "consume", "acquire", "release", "acq_rel", "seq_cst"};
  one = first;
  two = second;
  /* Relacy replaces operator new while it runs: a stream that has all it needs before. */
  static std::ofstream quiet("/dev/null");
  rl::test_params params;
  params.search_type = rl::fair_full_search_scheduler_type;
  params.output_stream = &quiet;
  params.progress_stream = &quiet;
  bool held = rl::simulate<Test>(params);
  bool right = held != breaks;
  std::printf("%s %s, %s %s: %s, %u executions\n", right ? "ok" : "WRONG", name, names[first],
    names[second], held ? "holds" : "breaks", (unsigned)params.stop_iteration);
  return right ? 0 : 1;
}

template <typename Test>
static int both(const char *name, memory_order weakOne, memory_order weakTwo) {
  return run<Test>(name, false, SC, SC) + run<Test>(name, true, weakOne, SC) +
    run<Test>(name, true, SC, weakTwo);
}

int main() {
  int wrong = both<Publish>("publish", RELAXED, RELAXED) + both<Sleep>("sleep", RELEASE, rl::mo_acquire) +
    both<Burst>("burst", RELAXED, RELAXED) + both<Quiesce>("quiesce", RELEASE, RELAXED) +
    both<Lock>("lock", RELAXED, RELAXED);
  return wrong == 0 ? 0 : 1;
}
