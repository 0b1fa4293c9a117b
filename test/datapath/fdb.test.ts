// The forwarding database, against a Map.

import assert from 'node:assert/strict';
import { beforeEach, describe, it } from 'node:test';
import fc from 'fast-check';
import {
  FDB_BUCKETS,
  FDB_CAPACITY,
  FDB_KEYS,
  FDB_WAYS,
  NO_PORT,
  SWITCH_FDB_COUNT,
  SWITCH_FDB_FULL,
  SWITCH_FDB_MOVES,
  SWITCH_NOW,
} from '../../src/abi/layout.ts';
import { Fdb } from '../../src/switch/fdb.ts';
import { random } from './frames.ts';
import { Rig } from './rig.ts';

const rig = new Rig();
const { datapath, control } = rig;
const fdb = new Fdb(control, datapath);
const NONE = NO_PORT | 0;

beforeEach(() => rig.clear());

/** Which bucket an address falls into, found by looking where it was put. */
function bucketOf(mac: bigint): number {
  rig.clear();
  datapath.fdbLearn(mac, 0);
  for (let i = 0; i < FDB_BUCKETS * FDB_WAYS; i++) {
    if (control.get64(FDB_KEYS + i * 8) !== 0n) return Math.floor(i / FDB_WAYS);
  }
  throw new Error('not learned');
}

/** `n` different unicast addresses. */
function addresses(n: number, seed: number): bigint[] {
  const next = random(seed);
  const found = new Set<bigint>();
  while (found.size < n) {
    const mac = ((BigInt(next()) << 16n) | BigInt(next() & 0xffff)) & 0xffff_ffff_fffen;
    if (mac !== 0n) found.add(mac);
  }
  return [...found];
}

describe('FDB', () => {
  it('agrees with a Map over random learning, moving, ageing and forgetting', () => {
    const hosts = addresses(40, 1);
    fc.assert(
      fc.property(
        fc.array(
          fc.oneof(
            { weight: 6, arbitrary: fc.record({ learn: fc.nat(39), port: fc.nat(255) }) },
            { weight: 2, arbitrary: fc.record({ pass: fc.integer({ min: 1, max: 20 }) }) },
            { weight: 1, arbitrary: fc.record({ age: fc.nat(30) }) },
            { weight: 1, arbitrary: fc.record({ forget: fc.nat(255) }) },
          ),
          { maxLength: 100 },
        ),
        (steps) => {
          rig.clear();
          const model = new Map<bigint, { port: number; heard: number }>();
          let now = 1;
          let moves = 0;
          for (const step of steps) {
            if ('learn' in step) {
              const mac = hosts[step.learn]!;
              const old = model.get(mac);
              if (old && old.port !== step.port) moves++;
              datapath.fdbLearn(mac, step.port);
              model.set(mac, { port: step.port, heard: now });
            } else if ('pass' in step) {
              now += step.pass;
              control.set(SWITCH_NOW, now);
            } else if ('age' in step) {
              fdb.expire(now - step.age);
              for (const [mac, { heard }] of model) if (heard < now - step.age) model.delete(mac);
            } else {
              fdb.forget(step.forget);
              for (const [mac, { port }] of model) if (port === step.forget) model.delete(mac);
            }
          }
          for (const mac of hosts) {
            assert.equal(datapath.fdbLookup(mac), model.get(mac)?.port ?? NONE);
          }
          assert.equal(control.get(SWITCH_FDB_COUNT), model.size);
          assert.equal(control.get(SWITCH_FDB_MOVES), moves);
          const listed = fdb.entries().map(({ port, heard }) => `${port} ${heard}`);
          const expected = [...model.values()].map(({ port, heard }) => `${port} ${heard}`);
          assert.deepEqual(listed.sort(), expected.sort());
        },
      ),
      { numRuns: 100 },
    );
  });

  it('learns 64 Ki random addresses, all of them, and finds them', () => {
    const hosts = addresses(65536, 7);
    for (const [i, mac] of hosts.entries()) datapath.fdbLearn(mac, i & 255);
    let found = 0;
    for (const [i, mac] of hosts.entries()) {
      const port = datapath.fdbLookup(mac);
      if (port === NONE) continue;
      assert.equal(port, i & 255);
      found++;
    }
    assert.equal(control.get(SWITCH_FDB_COUNT), found);
    assert.equal(control.get(SWITCH_FDB_FULL), 65536 - found);
    assert.equal(found, 65536);
    // Nobody was learned who was not heard.
    const heard = new Set(hosts);
    for (const mac of addresses(70000, 99)) {
      if (!heard.has(mac)) assert.equal(datapath.fdbLookup(mac), NONE);
    }
    assert.equal(fdb.entries().length, found);
  });

  for (const byte of [0, 1, 2, 3, 4]) {
    it(`learns 64 Ki addresses that count up from byte ${byte} on`, () => {
      for (let i = 0; i < 65536; i++) {
        // Byte 0 is counted in even numbers, and goes on in the next two: no group addresses.
        const counted = BigInt(byte === 0 ? i * 2 : i) << BigInt(byte * 8);
        datapath.fdbLearn(counted ^ (byte === 0 ? 1n << 40n : 2n), 1);
      }
      assert.equal(control.get(SWITCH_FDB_FULL), 0);
    });
  }

  it('takes no more than its capacity, counts what it turns away, and goes on after ageing', () => {
    const hosts = addresses(FDB_CAPACITY + 4000, 11);
    for (const mac of hosts) datapath.fdbLearn(mac, 1);
    const count = control.get(SWITCH_FDB_COUNT);
    assert.equal(count, FDB_CAPACITY);
    assert.equal(count + control.get(SWITCH_FDB_FULL), hosts.length);
    // A full table still refreshes and moves what it knows.
    const known = hosts.find((mac) => datapath.fdbLookup(mac) !== NONE)!;
    datapath.fdbLearn(known, 2);
    assert.equal(datapath.fdbLookup(known), 2);
    fdb.expire(2);
    assert.equal(control.get(SWITCH_FDB_COUNT), 0);
    datapath.fdbLearn(hosts[0]!, 3);
    assert.equal(datapath.fdbLookup(hosts[0]!), 3);
  });

  it('two full buckets turn the seventeenth address away, and take it once one is forgotten', () => {
    // Too rare to wait for by chance: step through addresses until seventeen share a bucket.
    const wanted = hashBucket(2n);
    const full: bigint[] = [];
    for (let mac = 2n; full.length < 17; mac += 2n) if (hashBucket(mac) === wanted) full.push(mac);
    assert.equal(bucketOf(full[0]!), bucketOf(full[16]!));
    rig.clear();
    for (const [i, mac] of full.entries()) datapath.fdbLearn(mac, i);
    assert.equal(control.get(SWITCH_FDB_COUNT), 16);
    assert.equal(control.get(SWITCH_FDB_FULL), 1);
    assert.equal(datapath.fdbLookup(full[16]!), NONE);
    fdb.forget(4);
    datapath.fdbLearn(full[16]!, 16);
    for (const [i, mac] of full.entries()) {
      assert.equal(datapath.fdbLookup(mac), i === 4 ? NONE : i);
    }
  });

  it('group addresses and zero are not learned from SEND_RARP', () => {
    fdb.learn(Uint8Array.of(1, 0, 0, 0, 0, 1), 1);
    fdb.learn(new Uint8Array(6).fill(255), 1);
    fdb.learn(new Uint8Array(6), 1);
    assert.deepEqual(fdb.entries(), []);
    fdb.learn(Uint8Array.of(2, 0xaa, 0, 0, 0, 0xff), 200);
    assert.deepEqual(fdb.entries(), [{ mac: '02:aa:00:00:00:ff', port: 200, heard: 1 }]);
  });
});

/** The datapath's hash (datapath/fdb.ts), checked against it by bucketOf. */
function hashBucket(mac: bigint): number {
  const mixed = BigInt.asUintN(64, mac * 0x9e37_79b9_7f4a_7c15n);
  const twice = BigInt.asUintN(64, (mixed ^ (mixed >> 32n)) * 0xbf58_476d_1ce4_e5b9n);
  return Number(twice >> 49n) & (FDB_BUCKETS - 1);
}
