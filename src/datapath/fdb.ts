// The forwarding database: which port an Ethernet address was last heard on.
//
// An address is in its bucket b or, where that was full, in the next one, b ^ 1: of 64 Ki addresses two in
// ten thousand are. Bucket b: eight u64 keys in one cache line at FDB_KEYS + b * 64, eight u32 ages (seconds) at
// FDB_AGES + b * 32. A key holds address and port together, so readers need no lock: one aligned
// 8-byte load is either the old entry or the new one. Writers use compare-and-swap; two workers
// that insert one address at once may leave it twice, the older copy ages out.

import {
  FDB_AGES,
  FDB_BUCKETS,
  FDB_CAPACITY,
  FDB_KEYS,
  FDB_WAYS,
  NO_PORT,
  SWITCH_FDB_COUNT,
  SWITCH_FDB_FULL,
  SWITCH_FDB_MOVES,
  SWITCH_NOW,
} from '../abi/layout';

const MAC_MASK: u64 = 0xffff_ffff_ffff;

function bucketOf(mac: u64): u32 {
  // Multiplied, the high bits are the well-mixed ones; folded and once more, whichever byte counts up.
  const mixed = mac * 0x9e37_79b9_7f4a_7c15;
  return <u32>(((mixed ^ (mixed >> 32)) * 0xbf58_476d_1ce4_e5b9) >> 49) & (FDB_BUCKETS - 1);
}

function entryPort(key: u64): u32 {
  return <u32>(key >> 48) - 1;
}

/** Port of `mac` (48 bits, wire order, first byte lowest), or NO_PORT. */
export function fdbLookup(mac: u64): u32 {
  const bucket = bucketOf(mac);
  const port = lookIn(bucket, mac);
  return port != NO_PORT ? port : lookIn(bucket ^ 1, mac);
}

function lookIn(bucket: u32, mac: u64): u32 {
  const keys = FDB_KEYS + bucket * (FDB_WAYS * 8);
  for (let way: u32 = 0; way < <u32>FDB_WAYS; way++) {
    const key = load<u64>(keys + way * 8);
    if ((key & MAC_MASK) == mac && key != 0) return entryPort(key);
  }
  return NO_PORT;
}

/** Notes that `mac` was heard on `port`: inserts, moves or refreshes. */
export function fdbLearn(mac: u64, port: u32): void {
  const bucket = bucketOf(mac);
  const fresh = mac | ((<u64>(port + 1)) << 48);
  if (refresh(bucket, mac, fresh) || refresh(bucket ^ 1, mac, fresh)) return;
  if (atomic.load<u32>(SWITCH_FDB_COUNT) < <u32>FDB_CAPACITY) {
    if (insert(bucket, fresh) || insert(bucket ^ 1, fresh)) return;
  }
  atomic.add<u32>(SWITCH_FDB_FULL, 1);
}

/** Whether the bucket knows `mac`: then it was heard now, and is where `fresh` says. */
function refresh(bucket: u32, mac: u64, fresh: u64): bool {
  const keys = FDB_KEYS + bucket * (FDB_WAYS * 8);
  const ages = FDB_AGES + bucket * (FDB_WAYS * 4);
  const now = load<u32>(SWITCH_NOW);
  for (let way: u32 = 0; way < <u32>FDB_WAYS; way++) {
    const key = load<u64>(keys + way * 8);
    if (key == fresh) {
      if (load<u32>(ages + way * 4) != now) store<u32>(ages + way * 4, now);
      return true;
    }
    if (key != 0 && (key & MAC_MASK) == mac) {
      store<u32>(ages + way * 4, now);
      if (atomic.cmpxchg<u64>(keys + way * 8, key, fresh) == key) {
        atomic.add<u32>(SWITCH_FDB_MOVES, 1);
      }
      return true;
    }
  }
  return false;
}

/** Takes a free entry of the bucket; false when it has none. */
function insert(bucket: u32, fresh: u64): bool {
  const keys = FDB_KEYS + bucket * (FDB_WAYS * 8);
  const ages = FDB_AGES + bucket * (FDB_WAYS * 4);
  for (let way: u32 = 0; way < <u32>FDB_WAYS; way++) {
    if (load<u64>(keys + way * 8) != 0) continue;
    store<u32>(ages + way * 4, load<u32>(SWITCH_NOW));
    // Another worker that takes it first leaves this one for the next frame.
    if (atomic.cmpxchg<u64>(keys + way * 8, 0, fresh) == 0) atomic.add<u32>(SWITCH_FDB_COUNT, 1);
    return true;
  }
  return false;
}

/**
 * Forgets addresses: those last heard before second `before`, and all of `port` unless it is
 * NO_PORT. Returns how many went. Called by main.
 */
export function fdbExpire(before: u32, port: u32): u32 {
  let gone: u32 = 0;
  if (atomic.load<u32>(SWITCH_FDB_COUNT) == 0) return 0;
  for (let i: u32 = 0; i < <u32>(FDB_BUCKETS * FDB_WAYS); i++) {
    const key = load<u64>(FDB_KEYS + i * 8);
    if (key == 0) continue;
    if (load<u32>(FDB_AGES + i * 4) >= before && entryPort(key) != port) continue;
    if (atomic.cmpxchg<u64>(FDB_KEYS + i * 8, key, 0) == key) gone++;
  }
  atomic.sub<u32>(SWITCH_FDB_COUNT, gone);
  return gone;
}
