// A racing writer on every field that the sending side reads (CVE-2020-14375, DPDK 285e6b8b18,
// cloud-hypervisor#7530): whatever the datapath does, it does with one of the two values.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { it } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  DESC_F_AVAIL,
  DESC_F_USED,
  F_CSUM,
  F_GUEST_CSUM,
  F_HOST_TSO4,
  WRAP,
} from '../../src/abi/virtio.ts';
import { type Format, overRings } from '../datapath/formats.ts';
import { BROADCAST, concat, frame, header, place, Receiver } from '../datapath/frames.ts';
import type { Descriptor } from '../datapath/queue.ts';
import { later, PackedQueue } from '../datapath/queue-packed.ts';
import type { SplitQueue } from '../datapath/queue-split.ts';
import { features, PLAIN } from '../datapath/rig.ts';
import { A, B, CASES, type Case, PLAIN_HEADER } from './flip-cases.ts';
import type { Flips } from './flipper.ts';
import { kick, rig } from './guard.ts';
import { MODERN, type World, world } from './sender.ts';

/** Bursts at least, and at most while one of the two values was not seen. */
const BURSTS = process.env['VHOP_LONG'] === '1' ? 100_000 : 10;
const MOST = 100_000;
const SIZE = 64;
/** Receive buffers a burst may take, and their length. */
const ROOM = [70, 300] as const;
const SENDER = MODERN | features(F_CSUM, F_HOST_TSO4);

/** Makes a ring full of the chain visible, whatever came back of the last one. */
function fill(w: World, chain: Descriptor[], lap: number): void {
  if (w.tx instanceof PackedQueue) {
    const { tx } = w;
    const chains = Math.floor(SIZE / chain.length);
    for (let i = 0; i < chains; i++) {
      for (const [k, each] of chain.entries()) {
        const position = later(WRAP, (lap * chains + i) * chain.length + k, SIZE);
        const flag = position & WRAP ? DESC_F_AVAIL : DESC_F_USED;
        const flags = (each.flags ?? 0) | flag;
        tx.descriptor(tx.at(position), { id: i, ...each, flags });
      }
    }
    return;
  }
  const tx = w.tx as SplitQueue;
  for (const [i, each] of chain.entries()) tx.descriptor(tx.desc + i * 16, each);
  for (let i = 0; i < SIZE; i++) tx.post(0);
  tx.publish();
}

/** Descriptors that hold the chain's first. */
function firsts(w: World, chain: Descriptor[]): number[] {
  if (!(w.tx instanceof PackedQueue)) return [w.tx.desc];
  const chains = Math.floor(SIZE / chain.length);
  return Array.from({ length: chains }, (_, i) => w.tx.desc + i * chain.length * 16);
}

async function race(w: World, each: Case, format: Format): Promise<void> {
  const at = { a: w.tx.port.alloc(512, 16), b: w.tx.port.alloc(512, 16) };
  rig.bytes.set(concat(PLAIN_HEADER, A), at.a);
  rig.bytes.set(concat(PLAIN_HEADER, B), at.b);
  const chain = each.chain(w, at);
  const slots = each.what === 'head' ? ringSlots(w) : firsts(w, chain);
  const fields = [...new Set(slots.map((slot) => each.field(w, at, slot)))];
  const sink = new Receiver(w.sink.rx.port.queue(0)).fill(...ROOM);
  const state = new SharedArrayBuffer(8);
  const flips: Flips = {
    memory: rig.control.memory.buffer as SharedArrayBuffer,
    fields,
    width: each.width,
    values: each.values(w, at),
    state,
  };
  const thread = new Worker(new URL('flipper.ts', import.meta.url), { workerData: flips });
  const seen = new Array<number>(each.allowed().length + 1).fill(0);
  const perBurst = format === 'packed' ? Math.floor(SIZE / chain.length) : SIZE;
  try {
    await once(thread, 'message');
    const enough = () => {
      const wanted = each.dropped ? seen : seen.slice(0, -1);
      // A split table ends with its first entry, and an id does not show in a frame.
      const shown = each.what === 'length of an indirect table' && format === 'split';
      return (shown ? wanted.slice(0, 1) : wanted).every((n) => n > 20);
    };
    for (let burst = 0; burst < BURSTS || (burst < MOST && !enough()); burst++) {
      fill(w, chain, burst);
      const before = w.tx.completed;
      const moved = rig.settle();
      assert.equal(moved, perBurst, `burst ${burst}`);
      const got = sink.take();
      for (const one of got) {
        const which = each.allowed().findIndex((bytes) => Buffer.compare(bytes, one.frame) === 0);
        assert.ok(which >= 0, `burst ${burst}: ${one.frame.length} bytes that are neither`);
        seen[which]!++;
        const start = new DataView(one.header.buffer, one.header.byteOffset).getUint16(6, true);
        assert.ok(start === 0 || start === 34, `csum_start ${start} went through`);
      }
      seen[seen.length - 1]! += perBurst - got.length;
      sink.fill(got.length, ROOM[1]);
      if (!(w.tx instanceof PackedQueue)) assert.equal(w.tx.completed - before, perBurst);
    }
    assert.ok(enough(), `${each.what}: ${seen}, ${new Int32Array(state)[1]} thousand flips`);
  } finally {
    Atomics.store(new Int32Array(state), 0, 1);
    await once(thread, 'exit');
  }
  if (!each.dropped) assert.deepEqual(w.tx.drops, {});
}

function ringSlots(w: World): number[] {
  return Array.from({ length: SIZE }, (_, i) => w.tx.desc + i * 16);
}

overRings(rig, ['split', 'packed'], 'a racing writer', (format) => {
  for (const each of CASES) {
    if (each.only !== undefined && each.only !== format) continue;
    it(`class 19: ${each.what}: one whole value or the other`, { timeout: 120_000 }, async () => {
      const w = world(SENDER, SIZE, PLAIN | features(F_GUEST_CSUM, 7));
      await race(w, each, format);
      assert.deepEqual(rig.latched, []);
    });
  }

  it('class 19: header and addresses rewritten between two receivers: both get what was checked', () => {
    for (const cuts of [[], [12], [5, 30]]) {
      const w = world(SENDER, SIZE, PLAIN | features(F_GUEST_CSUM));
      const spec = header({ flags: 1, start: 34, offset: 16 });
      const bytes = frame({ to: BROADCAST, length: 200, seed: 3 });
      const parts = place(w.tx, concat(spec, bytes), cuts);
      w.tx.add(parts);
      const second = new Receiver(rig.ports[2]!.queue(0)).fill(10);
      kick(w.tx);
      // Both receivers in one burst: the first is called before the second gets its copy.
      let calls = 0;
      rig.onCall = (ring) => {
        if (ring !== w.sink.rx.index) return;
        calls++;
        for (const { addr, len } of parts) {
          const at = w.tx.port.base + Number(addr - w.tx.port.gpa(w.tx.port.base));
          rig.bytes.fill(0xff, at, at + len);
        }
      };
      assert.equal(rig.settle(), 1);
      rig.onCall = () => {};
      assert.equal(calls, 1);
      for (const sink of [w.sink, second]) {
        const [got] = sink.take();
        assert.deepEqual(got?.header.subarray(0, 10), spec.subarray(0, 10));
        assert.deepEqual(got?.frame.subarray(0, 16), bytes.subarray(0, 16));
      }
      assert.equal(w.tx.used().length, 1);
    }
  });
});
