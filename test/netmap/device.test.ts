// Devices that break the rules, on the memory they share with us: the port goes down with a sentence, no
// buffer is lost, nothing outside of that memory is written, and other ports of the same memory go on.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { Worker } from 'node:worker_threads';
import { HEAP_BASE, HEAP_SIZE } from '../../src/abi/layout.ts';
import { KR_DRV } from '../../src/abi/netmap.ts';
import type { BufferMemory } from '../../src/netmap/memory.ts';
import { NetmapError } from '../../src/netmap/types.ts';
import {
  Bench,
  census,
  home,
  pattern,
  put,
  refused,
  type Shape,
  smallMemory,
  taken,
  view,
} from './bench.ts';

const MIB = 1 << 20;

/** A device's breach, and what is said of it. */
type Breach = [
  name: string,
  says: RegExp,
  direction: 'tx' | 'rx',
  act: (bench: Bench) => void,
  shape?: Shape,
];

const HEADERS = Buffer.concat([Buffer.alloc(10), Buffer.from([1, 0])]);

/** Uses the next RX chain with this num_buffers and length. */
function merged(bench: Bench, buffers: number, len: number): void {
  const { source } = bench;
  source.take(1);
  const header = Buffer.from(HEADERS);
  header.writeUInt16LE(buffers, 10);
  source.write(source.held[0]!, header);
  source.use(0, len);
}

const NEVER = /a buffer that was never posted, or the same one twice/;
const LONG = /more bytes than the buffer has/;
const SHORT = /less than a virtio-net header/;
const MERGED = /merges none, or more buffers than the ring has/;

const BREACHES: Breach[] = [
  ['an id beyond the ring', NEVER, 'rx', ({ source }) => source.ring.putUsed(0xffff, 60, 1)],
  ['an id beyond the ring', NEVER, 'tx', ({ sink }) => sink.ring.putUsed(0xffff, 0, 1)],
  ['an id of no chain', NEVER, 'tx', ({ sink }) => sink.ring.putUsed(15, 0, 1)],
  [
    'the same id twice',
    NEVER,
    'rx',
    ({ source }) => {
      source.take(2);
      source.deliver(pattern(0, 60));
      source.ring.use([{ ...source.held[0]!, id: source.held[0]!.id ^ 1 }], 72);
      source.ring.use([{ ...source.held[0]!, id: source.held[0]!.id ^ 1 }], 72);
    },
    { ringSize: 8, indirect: true, mergeable: false },
  ],
  [
    'the same id twice',
    NEVER,
    'tx',
    ({ sink }) => {
      sink.take(1);
      const [chain] = sink.held;
      sink.ring.use([chain!], 0);
      sink.ring.use([chain!], 0);
    },
  ],
  ['one byte too many', LONG, 'rx', (bench) => merged(bench, 1, 2048 - 64 + 12 + 1)],
  ['2^32 - 1 bytes', LONG, 'rx', (bench) => merged(bench, 1, 0xffff_ffff)],
  ['no bytes', SHORT, 'rx', (bench) => merged(bench, 1, 0)],
  ['half a header', SHORT, 'rx', (bench) => merged(bench, 1, 11)],
  ['a header alone', SHORT, 'rx', (bench) => merged(bench, 1, 12)],
  ['num_buffers 0', MERGED, 'rx', (bench) => merged(bench, 0, 72)],
  ['num_buffers of more than the ring', MERGED, 'rx', (bench) => merged(bench, 8, 72)],
  ['num_buffers 65535', MERGED, 'rx', (bench) => merged(bench, 0xffff, 72)],
  [
    'no bytes in the second of two',
    SHORT,
    'rx',
    (bench) => {
      merged(bench, 2, 1996);
      bench.source.take(1);
      bench.source.use(0, 0);
    },
  ],
];

for (const packed of [false, true]) {
  describe(`${packed ? 'packed' : 'split'}: a device that`, () => {
    const neighbours = smallMemory();
    const good = new Bench({ packed, memory: neighbours });

    function alive(): void {
      const { port, tx, rx, source, sink } = good;
      for (let round = 0; round < 3; round++) {
        put(tx, pattern(round, 99));
        port.txSync(tx);
        assert.deepEqual(sink.sent()[0]!.bytes, pattern(round, 99));
        source.take();
        source.deliver(pattern(round, 77));
        port.rxSync(rx);
        assert.deepEqual(taken(rx), [pattern(round, 77)]);
        port.txSync(tx);
      }
    }

    for (const [name, says, direction, act, shape] of BREACHES) {
      it(`${direction}: ${name}`, async () => {
        const bench = new Bench({ ringSize: 16, packed, ...shape, memory: neighbours });
        const { port, tx, rx } = bench;
        const everything = () => census(neighbours, [tx, rx, good.tx, good.rx]);
        for (let i = 0; i < 3; i++) put(tx, pattern(i, 60));
        port.txSync(tx);
        let told: NetmapError | undefined;
        port.on('down', (error) => {
          told = error;
        });
        act(bench);
        const error = refused('device', () => {
          for (let i = 0; i < 20; i++) direction === 'tx' ? port.txSync(tx) : port.rxSync(rx);
        });
        assert.match(error.message, says);
        assert.ok(error.message.startsWith(`port bench: ${direction} ring 0: the other side `));
        assert.deepEqual([told, port.up, bench.faults.length], [error, false, 1]);
        refused('device', () => port.txSync(tx));
        refused('device', () => port.poll(10));
        everything();
        alive();
        // Another device behind the same port.
        bench.restart();
        everything();
        put(bench.tx, pattern(5, 60));
        port.txSync(bench.tx);
        assert.equal(bench.sink.sent().length, 1);
        await bench.close();
        census(neighbours, [good.tx, good.rx]);
      });
    }

    it('jumps ahead with the used index, or writes garbage where descriptors are', async () => {
      for (let seed = 0; seed < 40; seed++) {
        const bench = new Bench({
          packed,
          memory: neighbours,
          mergeable: seed % 2 === 0,
          headers: seed % 3 ? 'kept' : 'shared',
        });
        const { port, tx, rx } = bench;
        while (tx.space > 0) put(tx, pattern(seed, 60));
        port.txSync(tx);
        for (const [ring, sync] of [
          [rx, () => port.rxSync(rx)],
          [tx, () => port.txSync(tx)],
        ] as const) {
          const drv = ring.kget(KR_DRV);
          const [desc, , used] = [0, 4, 8].map((field) => home.control.get(drv + field));
          const garbage = pattern(seed, 16 * 16);
          if (packed) home.control.bytes.set(garbage, desc!);
          else {
            home.control.bytes.set(garbage.subarray(0, 128), used! + 4);
            view.setUint16(used! + 2, 1 + ((seed * 7919) & 0x7fff), true);
          }
          try {
            for (let i = 0; i < 40 && port.up; i++) {
              sync();
              taken(rx);
            }
          } catch (error) {
            assert.ok(error instanceof NetmapError && error.code === 'device');
          }
        }
        census(neighbours, [tx, rx, good.tx, good.rx]);
        await bench.close();
      }
      alive();
    });

    it('dies in mid-burst: all its buffers are back, swapped ones too', async () => {
      for (let seed = 0; seed < 20; seed++) {
        const bench = new Bench({ packed, memory: neighbours, ringSize: 64 });
        const { port, tx, rx, source, sink } = bench;
        const extra = neighbours.takeBuffers(4);
        for (let i = 0; i < 10; i++) put(tx, pattern(i, 200), 50);
        port.txSync(tx);
        sink.take(5);
        sink.use(seed % 5);
        source.take();
        for (let i = 0; i < 5 + seed; i++)
          source.deliver(pattern(i, 10 + i * 100), { pick: (seed * i) % 5 });
        port.rxSync(rx);
        taken(rx, seed % 4);
        // Held by the application when the device goes: one of them swapped with the neighbour's, one for an extra.
        const at = rx.head;
        if (rx.space > 1) {
          const mine = rx.buffer(at);
          rx.setBuffer(at, good.tx.buffer(good.tx.head));
          good.tx.setBuffer(good.tx.head, mine);
          const other = rx.next(at);
          const spare = extra[0]!;
          extra[0] = rx.buffer(other);
          rx.setBuffer(other, spare);
        }
        // Half a frame.
        if (source.held.length > 0) {
          source.write(source.held[0]!, Buffer.concat([Buffer.alloc(10), Buffer.from([2, 0])]));
          source.use(0, 1996);
          port.rxSync(rx);
        }
        census(neighbours, [tx, rx, good.tx, good.rx], extra);
        if (seed % 2) bench.restart();
        census(neighbours, [bench.tx, bench.rx, good.tx, good.rx], extra);
        await bench.close();
        census(neighbours, [good.tx, good.rx], extra);
        neighbours.giveBuffers(extra);
      }
      alive();
    });

    it('writes anything anywhere in its memory, while the application goes on', async () => {
      const before = outside(neighbours);
      const until = performance.now() + 1000;
      let seed = packed ? 77 : 1;
      const next = () => {
        seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
        // The low bits of such a generator repeat soon.
        return seed >>> 8;
      };
      let broken = 0;
      let rounds = 0;
      for (let round = 0; performance.now() < until; round++) {
        rounds++;
        const bench = new Bench({
          packed,
          memory: neighbours,
          ringSize: 16,
          inOrder: round % 5 === 4,
          mergeable: round % 2 === 0,
          indirect: round % 3 > 0,
          headers: round % 4 > 1 ? 'kept' : 'shared',
        });
        const { port, tx, rx, source, sink } = bench;
        const places = [rx, tx].map((ring) => {
          const drv = ring.kget(KR_DRV);
          // Mostly where it is believed.
          const fields = packed ? [0, 0, 0, 4, 8, 48] : [8, 8, 8, 0, 4, 48];
          return fields.map((field) => home.control.get(drv + field));
        });
        let spoilt = false;
        try {
          for (let i = 0; i < 60; i++) {
            for (let k = next() % 4; k > 0 && tx.space > 0; k--) put(tx, pattern(i, 60));
            port.txSync(tx);
            port.rxSync(rx);
            if (next() % 2) taken(rx, next() % 4);
            for (let k = next() % 6; k > 0; k--) {
              const field = next() % 6;
              spoilt ||= packed || field > 2;
              const place = places[next() % 2]![field]! + (next() % (packed ? 48 : 160));
              const value = [next() % 20, next(), packed ? 0x8080 : next() % 20][next() % 3]!;
              view.setUint16(place & ~1, value & 0xffff, true);
              // num_buffers of a frame to come.
              const header = neighbours.addressOf(next() % 64) + 64 - 2;
              if (k === 1) view.setUint16(header, next() % 5, true);
            }
            // What it does by the rules, until it cannot read the ring itself.
            if (!spoilt && next() % 3 === 0) {
              source.take();
              source.deliver(pattern(i, 500));
              sink.sent();
            }
          }
        } catch (error) {
          assert.ok(error instanceof NetmapError && error.code === 'device', `${error}`);
          broken++;
        }
        census(neighbours, [tx, rx, good.tx, good.rx]);
        await bench.close();
        if (round % 64 === 0) alive();
      }
      assert.ok(broken > rounds / 10, `${broken} of ${rounds}`);
      alive();
      census(neighbours, [good.tx, good.rx]);
      assert.ok(outside(neighbours).every((now, i) => now.equals(before[i]!)));
    });

    it('does so on a thread of its own, in the middle of a sync', async () => {
      const bench = new Bench({ packed, memory: neighbours, ringSize: 16, headers: 'kept' });
      const before = outside(neighbours);
      const ranges = [bench.rx, bench.tx].flatMap((ring) => {
        const drv = ring.kget(KR_DRV);
        return [0, 4, 8].map((field) => [home.control.get(drv + field), 128]);
      });
      for (let i = 0; i < 16; i++) ranges.push([neighbours.addressOf(bench.rx.buffer(i)), 64]);
      const worker = new Worker(new URL('./scribbler.ts', import.meta.url), {
        workerData: { memory: home.control.memory, ranges, packed },
      });
      await once(worker, 'message');
      const until = performance.now() + 500;
      let broken = 0;
      while (performance.now() < until) {
        const { tx, rx, port } = bench;
        try {
          for (let i = 0; i < 100; i++) {
            while (tx.space > 4) put(tx, pattern(i, 60));
            port.txSync(tx);
            port.rxSync(rx);
            taken(rx);
          }
        } catch (error) {
          assert.ok(error instanceof NetmapError && error.code === 'device', `${error}`);
          broken++;
        }
        census(neighbours, [tx, rx, good.tx, good.rx]);
        bench.restart();
      }
      await worker.terminate();
      assert.ok(broken > 0);
      await bench.close();
      alive();
      census(neighbours, [good.tx, good.rx]);
      assert.ok(outside(neighbours).every((now, i) => now.equals(before[i]!)));
    });

    it('leaves everything to be closed', async () => {
      await good.close();
      census(neighbours, []);
      neighbours.close();
    });
  });
}

/** Linear memory that nobody here has a reason to write: around the driver heap, and around what is shared. */
function outside(memory: BufferMemory): Buffer[] {
  const size = 4 * 2 ** 20 + memory.buffers * memory.bufferSize;
  const starts = [
    HEAP_BASE - MIB,
    HEAP_BASE + HEAP_SIZE,
    memory.linear - MIB,
    memory.linear + size,
  ];
  return starts.map((at) => Buffer.from(home.control.bytes.slice(at, at + MIB)));
}
