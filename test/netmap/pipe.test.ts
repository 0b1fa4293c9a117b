// Pipes and monitors: order, contents, wake-ups, what does not fit, and where the buffers are.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { openPort } from '../../src/netmap/open.ts';
import { openMonitor } from '../../src/netmap/pipe.ts';
import type { Port } from '../../src/netmap/port.ts';
import type { Ring } from '../../src/netmap/ring.ts';
import type { NetmapOptions } from '../../src/netmap/types.ts';
import { openFds } from '../linux/fds.ts';
import { Bench, census, home, LONGEST, pattern, put, smallMemory, taken } from './bench.ts';

async function open(name: string, options: NetmapOptions = {}): Promise<Port> {
  const port = await openPort(home, () => Promise.reject(new Error('none')), name, {
    ringSize: 16,
    ...options,
  });
  return port as Port;
}

describe('a pipe', () => {
  it('carries frames in order, without a copy, and keeps what does not fit', async () => {
    const memory = smallMemory();
    const [a, b] = [await open('vhop:p{1', { memory }), await open('vhop:p}1', { memory })];
    const [tx, rx] = [a.tx[0]!, b.rx[0]!];
    const rings = [...a.tx, ...a.rx, ...b.tx, ...b.rx];
    const sent: Buffer[] = [];
    const got: Buffer[] = [];
    for (let i = 0; i < 300; i++) {
      for (let k = (i * 7) % 5; k > 0; k--) {
        const frame = pattern(sent.length, 30 + (sent.length % 50));
        const pieces = 1 + (sent.length % 3);
        if (tx.space < pieces) break;
        put(tx, frame, Math.ceil(frame.length / pieces));
        sent.push(frame);
      }
      a.txSync(tx);
      if (i % 3 === 0) {
        b.rxSync(rx);
        got.push(...taken(rx, (i * 5) % 9));
      }
      census(memory, rings);
    }
    assert.ok(a.counters(tx).full > 0, 'it was full at times');
    for (let i = 0; got.length < sent.length; i++) {
      assert.ok(i < 100);
      a.txSync(tx);
      b.rxSync(rx);
      got.push(...taken(rx));
    }
    assert.deepEqual(got, sent);
    assert.deepEqual(
      [a.counters(tx).frames, b.counters(rx).frames, a.counters(tx).copied],
      [sent.length, sent.length, 0],
    );
    // The other way.
    put(b.tx[0]!, pattern(1, 60));
    b.txSync(b.tx[0]!);
    a.rxSync(a.rx[0]!);
    assert.deepEqual(taken(a.rx[0]!), [pattern(1, 60)]);
    await a.close();
    await b.close();
    census(memory, []);
    memory.close();
  });

  it('drops what is too long to its end', async () => {
    const [a, b] = [await open('vhop:p{1', { ringSize: 256 }), await open('vhop:p}1')];
    const [tx, rx] = [a.tx[0]!, b.rx[0]!];
    put(tx, pattern(1, 100), 1);
    put(tx, pattern(2, 60));
    put(tx, pattern(3, LONGEST), 1);
    a.txSync(tx);
    b.rxSync(rx);
    assert.deepEqual(taken(rx), [pattern(2, 60), pattern(3, LONGEST)]);
    assert.equal(a.counters(tx).badSlots, 100);
    await a.close();
    await b.close();
  });

  it('wakes its reader, and a writer who waits for room', async () => {
    const [a, b] = [await open('vhop:p{1'), await open('vhop:p}1')];
    const [tx, rx] = [a.tx[0]!, b.rx[0]!];
    for (let i = 0; i < 20; i++) {
      const woken = b.wait(5000);
      await setTimeout(i % 3);
      put(tx, pattern(i, 60));
      a.txSync(tx);
      assert.equal(await woken, true);
      assert.deepEqual(taken(rx), [pattern(i, 60)]);
      b.rxSync(rx);
    }
    // Stale wake-ups are none.
    const start = performance.now();
    assert.equal(b.poll(30), false);
    assert.equal(await b.wait(30), false);
    assert.ok(performance.now() - start >= 59);
    // Full: the reader's fifteen and the writer's.
    for (let i = 0; i < 30; i++) {
      put(tx, pattern(i, 60));
      a.txSync(tx);
    }
    assert.equal(tx.space, 0);
    assert.equal(a.poll(20, { tx: true, rx: false }), false);
    const roomy = a.wait(5000, { tx: true, rx: false });
    await setTimeout(1);
    b.rxSync(rx);
    assert.equal(taken(rx).length, 15);
    b.rxSync(rx);
    assert.equal(await roomy, true);
    assert.ok(tx.space > 0);
    await a.close();
    // What is in it is still its reader's.
    assert.equal(b.poll(0), true);
    assert.equal(taken(rx).length, 15);
    await b.close();
  });

  it('cur says how much is to be waited for', async () => {
    const [a, b] = [await open('vhop:p{1'), await open('vhop:p}1')];
    const [tx, rx] = [a.tx[0]!, b.rx[0]!];
    put(tx, pattern(1, 60));
    a.txSync(tx);
    assert.equal(b.poll(0), true);
    rx.cur = rx.tail;
    assert.equal(b.poll(10), false);
    assert.equal(rx.space, 1);
    put(tx, pattern(2, 60));
    a.txSync(tx);
    assert.equal(b.poll(0), true);
    assert.equal(taken(rx).length, 2);
    await b.close();
    await a.close();
  });

  it('has one user an end, closes in either order, and gives its memory back', async () => {
    const free = home.window.largestFree();
    const heap = home.heap.largest();
    const fds = openFds();
    for (const first of [0, 1]) {
      const ends = [await open('vhop:/p.sock{x'), await open('vhop:/p.sock}x')];
      await assert.rejects(open('vhop:/p.sock{x'), { code: 'busy' });
      assert.equal(ends[0]!.memory, ends[1]!.memory);
      const waiting = ends[first]!.wait(5000);
      await ends[first]!.close();
      assert.equal(await waiting, false);
      await ends[first]!.close();
      const again = await open(`vhop:/p.sock${first ? '}' : '{'}x`);
      put(again.tx[0]!, pattern(1, 60));
      again.txSync(again.tx[0]!);
      assert.equal(ends[1 - first]!.poll(1000), true);
      await again.close();
      await ends[1 - first]!.close();
    }
    assert.deepEqual(
      [home.window.largestFree(), home.heap.largest(), openFds()],
      [free, heap, fds],
    );
  });

  it('has a thread at either end', { timeout: 20_000 }, async () => {
    const memory = smallMemory();
    const [a, b] = [
      await open('vhop:p{t', { memory, ringSize: 64 }),
      await open('vhop:p}t', { memory }),
    ];
    const tx = a.tx[0]!;
    const total = 100_000;
    const worker = new Worker(new URL('./pipe-reader.ts', import.meta.url), {
      workerData: { memory: home.control.memory, kring: b.rx[0]!.kring, total },
    });
    let verdict: { seen: number; wrong: number } | undefined;
    worker.once('message', (message) => {
      verdict = message;
    });
    const words = new Uint32Array(home.control.memory.buffer);
    for (let sent = 0; sent < total; ) {
      while (tx.space > 0 && sent < total) {
        const { head } = tx;
        tx.setLength(head, 60 + (sent % 64) * 4);
        tx.setFlags(head, 0);
        words.fill(sent, tx.address(head) >>> 2, (tx.address(head) + tx.length(head)) >>> 2);
        tx.head = tx.cur = tx.next(head);
        sent++;
      }
      // As the reader gives slots back; it wakes whoever sleeps.
      if (!a.poll(1000, { tx: true, rx: false })) await setTimeout(0);
    }
    while (verdict === undefined) {
      a.txSync(tx);
      await setTimeout(1);
    }
    assert.deepEqual(verdict, { seen: total, wrong: 0 });
    await worker.terminate();
    census(memory, [...a.tx, ...a.rx, ...b.tx, ...b.rx]);
    await a.close();
    await b.close();
    census(memory, []);
    memory.close();
  });
});

/** Sends and receives on a bench, and what passed, each way. */
class Stream {
  readonly bench: Bench;
  readonly out: Buffer[] = [];
  readonly in: Buffer[] = [];

  constructor(bench: Bench) {
    this.bench = bench;
  }

  round(i: number): void {
    const { tx, rx, sink, source, port } = this.bench;
    for (let k = 0; k < i % 4; k++) {
      const frame = pattern(i * 4 + k, 100 + k);
      put(tx, frame, i % 2 ? 40 : 400);
      this.out.push(frame);
      // Dropped, and shown to nobody.
      if (i % 5 === 0 && k === 0) {
        tx.setLength(tx.head, 5000);
        tx.setFlags(tx.head, 0);
        tx.head = tx.cur = tx.next(tx.head);
      }
    }
    port.txSync(tx);
    sink.sent();
    source.take();
    for (let k = 0; k < i % 3; k++) {
      const frame = pattern(i * 5 + k, k ? 2500 : 70);
      assert.ok(source.deliver(frame));
      this.in.push(frame);
    }
    port.rxSync(rx);
    taken(rx);
    port.rxSync(rx);
    port.txSync(tx);
  }
}

describe('a monitor', () => {
  for (const packed of [false, true]) {
    for (const swaps of [false, true]) {
      for (const [rx, tx] of [
        [true, false],
        [false, true],
        [true, true],
      ] as const) {
        it(`${packed ? 'packed' : 'split'}, ${swaps ? 'zero-copy' : 'copy'}, /${rx ? 'r' : ''}${tx ? 't' : ''}: sees exactly what passes`, async () => {
          const bench = new Bench({ packed, ringSize: 64, memory: smallMemory() });
          const stream = new Stream(bench);
          const port = openMonitor('m', bench.port, { rx, tx, swaps }, { ringSize: 64 });
          assert.throws(() => openMonitor('n', bench.port, { rx, tx, swaps }, {}), {
            code: 'busy',
          });
          assert.deepEqual([port.rx.length, port.tx.length], [Number(rx) + Number(tx), 0]);
          const seen = port.rx.map((): Buffer[] => []);
          const waiting = port.wait(5000);
          for (let i = 1; i < 60; i++) {
            stream.round(i);
            if (i % 3) continue;
            for (const [k, ring] of port.rx.entries()) {
              port.rxSync(ring);
              seen[k]!.push(...taken(ring));
            }
            census(bench.memory, [bench.tx, bench.rx, ...port.rx]);
          }
          assert.equal(await waiting, true);
          for (const [k, ring] of port.rx.entries()) {
            port.rxSync(ring);
            seen[k]!.push(...taken(ring));
            assert.deepEqual(seen[k], rx && k === 0 ? stream.in : stream.out);
            const { frames, lost, copied, bytes } = port.counters(ring);
            assert.deepEqual([frames, lost], [seen[k]!.length, 0]);
            assert.equal(copied, swaps ? 0 : bytes);
          }
          await port.close();
          stream.round(3);
          census(bench.memory, [bench.tx, bench.rx]);
          await bench.close();
          census(bench.memory, []);
          bench.memory.close();
        });
      }
    }
  }

  it('that is full loses whole frames, and counts them', async () => {
    for (const swaps of [false, true]) {
      const bench = new Bench({ ringSize: 16, memory: smallMemory() });
      const port = openMonitor('m', bench.port, { rx: false, tx: true, swaps }, { ringSize: 16 });
      const [ring] = port.rx;
      const frames = Array.from({ length: 12 }, (_, i) => pattern(i, 100));
      for (const frame of frames) {
        put(bench.tx, frame, 34);
        bench.port.txSync(bench.tx);
        bench.sink.sent();
        bench.port.txSync(bench.tx);
      }
      port.rxSync(ring!);
      // Three slots each of fifteen.
      assert.deepEqual(taken(ring!), frames.slice(0, 5));
      assert.deepEqual([ring!.counters.frames, ring!.counters.lost], [5, 7]);
      census(bench.memory, [bench.tx, bench.rx, ring!]);
      await port.close();
      await bench.close();
      census(bench.memory, []);
      bench.memory.close();
    }
  });

  it('of a pipe, of a port of that name, and of one that is gone', async () => {
    const free = home.window.largestFree();
    const heap = home.heap.largest();
    const fds = openFds();
    const [a, b] = [await open('vhop:p{1'), await open('vhop:p}1')];
    await assert.rejects(open('vhop:q/r'), { code: 'name' });
    await assert.rejects(open('vhop:p/r'), { code: 'name' });
    const [sent, got] = [await open('vhop:p{1/tz'), await open('vhop:p}1/rz')];
    put(a.tx[0]!, pattern(1, 60));
    a.txSync(a.tx[0]!);
    b.rxSync(b.rx[0]!);
    assert.deepEqual(taken(b.rx[0]!), [pattern(1, 60)]);
    b.rxSync(b.rx[0]!);
    for (const port of [sent, got]) {
      assert.equal(port.poll(0), true);
      assert.deepEqual(taken(port.rx[0]!), [pattern(1, 60)]);
    }
    // It goes down with what it watches, and does not touch what is there next.
    const waiting = sent.wait(5000);
    await a.close();
    await b.close();
    assert.equal(await waiting, false);
    assert.throws(() => got.poll(0), { code: 'down', message: /vhop:p}1 was closed/ });
    const [c, d] = [await open('vhop:p{2'), await open('vhop:p}2')];
    await sent.close();
    await got.close();
    put(c.tx[0]!, pattern(2, 60));
    c.txSync(c.tx[0]!);
    d.rxSync(d.rx[0]!);
    assert.deepEqual(taken(d.rx[0]!), [pattern(2, 60)]);
    await c.close();
    await d.close();
    assert.deepEqual(
      [home.window.largestFree(), home.heap.largest(), openFds()],
      [free, heap, fds],
    );
  });

  it('stays with its port when the device comes back', async () => {
    const bench = new Bench({ pairs: 2, memory: smallMemory() });
    const port = openMonitor(
      'm',
      bench.port,
      { rx: false, tx: true, swaps: false },
      { ringSize: 16 },
    );
    for (const pairs of [2, 1, 2]) {
      bench.restart(bench.features, pairs);
      for (const tx of bench.port.tx) {
        put(tx, pattern(pairs, 60));
        bench.port.txSync(tx);
      }
      const seen = port.rx.map((ring: Ring) => {
        port.rxSync(ring);
        return taken(ring).length;
      });
      assert.deepEqual(seen, pairs === 2 ? [1, 1] : [1, 0]);
    }
    await port.close();
    await bench.close();
    census(bench.memory, []);
    bench.memory.close();
  });

  it('zero-copy: what was moved on without a copy is lost to it, and said to be', async () => {
    const memory = smallMemory();
    const [bench, other] = [new Bench({ memory }), new Bench({ memory })];
    const port = openMonitor('m', bench.port, { rx: true, tx: false, swaps: true }, {});
    const { source, rx } = bench;
    source.take();
    for (let i = 0; i < 3; i++) source.deliver(pattern(i, 60));
    bench.port.rxSync(rx);
    assert.equal(home.datapath.nmForward(rx.kring, other.tx.kring, 2, 0), 2);
    taken(rx);
    bench.port.rxSync(rx);
    other.port.txSync(other.tx);
    assert.deepEqual(
      other.sink.sent().map(({ bytes }) => bytes),
      [pattern(0, 60), pattern(1, 60)],
    );
    port.rxSync(port.rx[0]!);
    assert.deepEqual(taken(port.rx[0]!), [pattern(2, 60)]);
    assert.equal(port.rx[0]!.counters.lost, 2);
    census(memory, [rx, bench.tx, other.rx, other.tx, ...port.rx]);
    await port.close();
    await bench.close();
    await other.close();
    census(memory, []);
    memory.close();
  });
});
