// Buffers of one memory (EXTMEM): who owns them, swapping them between ports, and moving frames on.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { KR_BUF_COUNT } from '../../src/abi/netmap.ts';
import * as api from '../../src/api/netmap.ts';
import { openPort } from '../../src/netmap/open.ts';
import type { Ring } from '../../src/netmap/ring.ts';
import type { NetmapOptions } from '../../src/netmap/types.ts';
import { Switch } from '../../src/switch/switch.ts';
import {
  Bench,
  census,
  HEADER,
  home,
  pattern,
  put,
  refused,
  type Shape,
  smallMemory,
  taken,
} from './bench.ts';

/** Frames that `from`'s device sends, moved on to `to`'s device. */
async function bridge(shapes: [Shape, Shape], copies: boolean): Promise<void> {
  const memory = smallMemory();
  const [from, to] = shapes.map((shape) => new Bench({ ringSize: 64, memory, ...shape })) as [
    Bench,
    Bench,
  ];
  const rings = [from.rx, from.tx, to.rx, to.tx];
  const sent: Buffer[] = [];
  const got: Buffer[] = [];
  for (let i = 0; i < 80; i++) {
    from.source.take();
    for (let k = 0; k < 1 + (i % 6); k++) {
      const header = Buffer.from([1, 1, 54, 0, 0, 5, 14, 0, 0, 0]);
      const frame = pattern(i * 8 + k, k === 2 && from.features & (1n << 15n) ? 5000 : 60 + k);
      // Bit 1 of the flags, DATA_VALID, is a receiver's.
      header[0] = 3;
      if (!from.source.deliver(frame, { header })) break;
      sent.push(frame);
    }
    from.port.rxSync(from.rx);
    home.datapath.nmForward(from.rx.kring, to.tx.kring, 1 + (i % 9), copies ? 1 : 0);
    from.port.rxSync(from.rx);
    to.port.txSync(to.tx);
    for (const { header, bytes } of to.sink.sent()) {
      got.push(bytes);
      const both = from.headers === 'kept' && to.headers === 'kept';
      assert.equal(
        header.toString('hex'),
        both ? '010136000005 0e000000 0000'.replaceAll(' ', '') : '00'.repeat(HEADER),
      );
    }
    to.port.txSync(to.tx);
    if (i % 8 === 0) census(memory, rings);
  }
  for (let i = 0; got.length < sent.length; i++) {
    assert.ok(i < 200);
    from.port.rxSync(from.rx);
    home.datapath.nmForward(from.rx.kring, to.tx.kring, 64, copies ? 1 : 0);
    to.port.txSync(to.tx);
    got.push(...to.sink.sent().map(({ bytes }) => bytes));
    to.port.txSync(to.tx);
  }
  assert.deepEqual(got, sent);
  assert.equal(
    to.tx.counters.copied,
    copies ? sent.reduce((sum, { length }) => sum + length, 0) : 0,
  );
  assert.equal(from.rx.counters.copied, 0);
  await from.close();
  census(memory, [to.rx, to.tx]);
  await to.close();
  census(memory, []);
  memory.close();
}

describe('frames moved on', () => {
  for (const packed of [false, true]) {
    for (const headers of [
      ['shared', 'shared'],
      ['kept', 'kept'],
      ['shared', 'kept'],
      ['kept', 'shared'],
    ] as const) {
      for (const copies of [false, true]) {
        it(`${packed ? 'packed' : 'split'}, ${headers.join(' to ')}: ${copies ? 'copied' : 'by swapping buffers'}`, async () => {
          await bridge(
            [
              { packed, headers: headers[0] },
              { packed: !packed, headers: headers[1] },
            ],
            copies,
          );
        });
      }
    }
  }

  it('from one memory to another, which must be a copy; what is too long for it is dropped', async () => {
    const [a, b] = [smallMemory(), smallMemory({ bufferSize: 256 })];
    const [from, to] = [new Bench({ memory: a }), new Bench({ memory: b, mergeable: false })];
    from.source.take();
    const frames = [60, 192, 256, 257, 61].map((length, i) => pattern(i, length));
    for (const frame of frames) from.source.deliver(frame);
    from.port.rxSync(from.rx);
    assert.equal(home.datapath.nmForward(from.rx.kring, to.tx.kring, 64, 0), 4);
    to.port.txSync(to.tx);
    assert.deepEqual(
      to.sink.sent().map(({ bytes }) => bytes),
      [60, 192, 256, 61].map((length) => frames.find((f) => f.length === length)),
    );
    assert.equal(to.tx.counters.badSlots, 1);
    await from.close();
    await to.close();
    census(a, []);
    census(b, []);
    a.close();
    b.close();
  });

  it('one of more slots than any may have does not stop those behind it', async () => {
    const memory = smallMemory({ bufferSize: 128, buffers: 4096 });
    const [from, to] = [new Bench({ memory, ringSize: 512 }), new Bench({ memory, ringSize: 512 })];
    from.source.take();
    const [long, short] = [pattern(1, 9000), pattern(2, 60)];
    for (const frame of [long, short]) assert.ok(from.source.deliver(frame));
    from.port.rxSync(from.rx);
    assert.equal(home.datapath.nmForward(from.rx.kring, to.tx.kring, 64, 0), 1);
    to.port.txSync(to.tx);
    assert.deepEqual(
      to.sink.sent().map(({ bytes }) => bytes),
      [short],
    );
    assert.ok(to.tx.counters.badSlots > 64);
    census(memory, [from.rx, from.tx, to.rx, to.tx]);
    await from.close();
    await to.close();
    census(memory, []);
    memory.close();
  });
});

describe('buffers', () => {
  it('are given out once, and taken back from those who have them', () => {
    const memory = smallMemory({ buffers: 8 });
    const mine = memory.takeBuffers(5);
    assert.equal(new Set(mine).size, 5);
    assert.match(refused('memory', () => memory.takeBuffers(4)).message, /3 of 8 are free/);
    const free = [0, 1, 2, 3, 4, 5, 6, 7].find((index) => !mine.includes(index))!;
    for (const wrong of [[free], [8], [-1], [1.5], [mine[0]!, mine[0]!], [...mine, free]]) {
      refused('memory', () => memory.giveBuffers(wrong));
      assert.equal(memory.free, 3);
    }
    memory.giveBuffers(mine);
    census(memory, []);
    memory.close();
    memory.close();
  });

  it('of slots that an application spoilt: nobody gets one twice, nor one that is none', async () => {
    const bench = new Bench({ memory: smallMemory({ buffers: 64 }) });
    const { memory, tx, port, source } = bench;
    source.take();
    source.deliver(pattern(1, 60));
    port.rxSync(bench.rx);
    bench.rx.setBuffer(0, 0xffff_ffff);
    tx.setBuffer(0, 9999);
    tx.setBuffer(1, tx.buffer(2));
    // A fresh device is told of buffers that are there alone.
    bench.restart();
    assert.ok(
      [bench.rx, bench.tx].every((ring) =>
        ring.buffersHeld().every((index) => index < ring.kget(KR_BUF_COUNT)),
      ),
    );
    await port.close();
    const free = memory.takeBuffers(memory.free);
    assert.equal(new Set(free).size, free.length);
    assert.ok(free.length >= 61 && free.every((index) => index < 64));
    memory.close();
  });

  it('options out of range', async () => {
    const none = () => Promise.reject(new Error('none'));
    const bad: [NetmapOptions, RegExp][] = [
      [{ ringSize: 12 }, /ringSize is 12/],
      [{ ringSize: 2, packed: true }, /ringSize is 2/],
      [{ ringSize: 65536 }, /ringSize/],
      [{ headers: 'both' as 'kept' }, /headers is both/],
      [{ queues: 0 }, /queues is 0/],
      [{ queues: 9 }, /queues is 9/],
      [{ headroom: 15 }, /headroom is 15/],
      [{ headroom: 1025 }, /headroom is 1025/],
      [{ headroom: 128, bufferSize: 128 }, /headroom is 128/],
      [{ bufferSize: 100, headroom: 16 }, /bufferSize is 100/],
      [{ bufferSize: 2 ** 18 }, /bufferSize is/],
    ];
    for (const [options, why] of bad) {
      await assert.rejects(
        openPort(home, none, 'vhop:/nowhere.sock', { timeoutMs: 1, ...options }),
        {
          code: 'option',
          message: why,
        },
      );
    }
    const vhop = new Switch();
    assert.throws(() => vhop.addNetmapPort({ name: 'a', ringSize: 12 }), { code: 'option' });
    await vhop.close();
    for (const buffers of [0, -1, 1.5, 2 ** 31]) {
      assert.throws(() => api.openMemory({ buffers }), { code: 'option' });
    }
  });
});

it('two ports of a switch in one memory: an application swaps what it bridges', async () => {
  const vhop = new Switch();
  const memory = vhop.openMemory();
  const names = ['a', 'b', 'c', 'd'];
  // a sends to b; the application moves what b has over to c, which sends it to d.
  const [a, b, c, d] = names.map((name) =>
    vhop.addNetmapPort({ name, memory, ringSize: 64, queues: 1 }),
  );
  const mac = (n: number) => Buffer.from([2, 0, 0, 0, 0, n]);
  const hello = (port: typeof a, n: number) => {
    put(port!.tx[0] as Ring, Buffer.concat([Buffer.alloc(6, 255), mac(n), pattern(n, 60)]));
    port!.txSync(port!.tx[0]!);
  };
  hello(b, 2);
  hello(d, 4);
  const frames = Array.from({ length: 40 }, (_, i) =>
    Buffer.concat([mac(2), mac(1), pattern(i, 60)]),
  );
  // Both are flooded, and the switch knows where b and d are.
  for (const [i, port] of [a, b, c, d].entries()) {
    for (let heard = 0; heard < (i % 2 ? 1 : 2); ) {
      assert.ok(await port!.wait(5000));
      heard += taken(port!.rx[0] as Ring).length;
    }
    port!.rxSync(port!.rx[0]!);
  }
  for (let i = 0; i < frames.length; i += 20) {
    for (const frame of frames.slice(i, i + 20)) put(a!.tx[0] as Ring, frame);
    a!.txSync(a!.tx[0]!);
    const [rx, tx] = [b!.rx[0]!, c!.tx[0]!];
    for (let moved = 0; moved < 20; ) {
      assert.ok(await b!.wait(2000));
      for (; rx.head !== rx.tail; rx.head = rx.cur = rx.next(rx.head), moved++) {
        const buffer = tx.buffer(tx.head);
        tx.setBuffer(tx.head, rx.buffer(rx.head));
        tx.setLength(tx.head, rx.length(rx.head));
        tx.setOffset(tx.head, rx.offset(rx.head));
        tx.setFlags(tx.head, api.NS_BUF_CHANGED);
        rx.setBuffer(rx.head, buffer);
        rx.setFlags(rx.head, api.NS_BUF_CHANGED);
        // For d.
        tx.bytes(tx.head).set(mac(4));
        tx.bytes(tx.head).set(mac(3), 6);
        tx.head = tx.cur = tx.next(tx.head);
      }
      b!.rxSync(rx);
    }
    c!.txSync(tx);
    const got: Buffer[] = [];
    while (got.length < 20) {
      assert.ok(await d!.wait(2000));
      got.push(...taken(d!.rx[0] as Ring));
    }
    d!.rxSync(d!.rx[0]!);
    assert.deepEqual(
      got,
      frames.slice(i, i + 20).map((frame) => Buffer.concat([mac(4), mac(3), frame.subarray(12)])),
    );
  }
  const counters = [a, b, c, d].flatMap((port) => [
    port!.counters(port!.rx[0]!),
    port!.counters(port!.tx[0]!),
  ]);
  assert.deepEqual(
    counters.map(({ copied, badSlots }) => copied + badSlots),
    Array(8).fill(0),
  );
  for (const port of [c, a, d, b]) await port!.close();
  assert.equal(memory.free, memory.buffers);
  memory.close();
  await vhop.close();
});
