// What lies in buffers: headers, frames of several slots, headroom.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NS_MOREFRAG } from '../../src/abi/netmap.ts';
import { choose, OFFLOAD_BITS, offloadBits } from '../../src/netmap/features.ts';
import type { NetmapOptions } from '../../src/netmap/types.ts';
import { Refusal } from '../../src/vhost-user/index.ts';
import { Bench, census, HEADER, home, LONGEST, pattern, put, refused, taken } from './bench.ts';

const FORMATS = [false, true];
const nameOf = (packed: boolean) => (packed ? 'packed' : 'split');

describe('the virtio-net header', () => {
  for (const packed of FORMATS) {
    it(`${nameOf(packed)}, shared: zeros from a cache line of the queue's own, nothing in front of frames`, async () => {
      const bench = new Bench({ packed, pairs: 2 });
      const lines = new Set<number>();
      for (const [i, tx] of bench.port.tx.entries()) {
        const sink = bench.devices[i * 2 + 1]!;
        bench.memory.bytes.fill(0xee, tx.address(0) - 64, tx.address(0));
        for (let k = 0; k < 5; k++) put(tx, pattern(k, 60));
        bench.port.txSync(tx);
        for (const [k, { header, bytes, segments }] of sink.sent().entries()) {
          assert.deepEqual(header, Buffer.alloc(HEADER));
          assert.deepEqual(bytes, pattern(k, 60));
          assert.deepEqual(
            segments.map(({ len }) => len),
            [HEADER, 60],
          );
          const at = sink.linear(segments[0]!.addr);
          assert.equal(at % 64, 0);
          lines.add(at);
          // Alone on its line: neither a ring nor a buffer.
          assert.ok(bench.memory.bytes.subarray(at, at + 64).every((byte) => byte === 0));
        }
      }
      assert.equal(lines.size, 2);
      await bench.close();
    });

    it(`${nameOf(packed)}, shared: stripped on receive, whatever it says`, async () => {
      for (const mergeable of [true, false]) {
        const bench = new Bench({ packed, mergeable });
        const { source, rx, port } = bench;
        source.take();
        const frames = [0, 1, 2].map((i) => pattern(i, 60 + i));
        for (const frame of frames)
          source.deliver(frame, { header: new Uint8Array(10).fill(0x5a) });
        port.rxSync(rx);
        assert.ok([0, 1, 2].every((i) => rx.offset(i) === 64 && rx.flags(i) === 0));
        assert.deepEqual(taken(rx), frames);
        await bench.close();
      }
    });

    it(`${nameOf(packed)}, kept: the device sees the application's, and the application the device's`, async () => {
      for (const mergeable of [true, false]) {
        const bench = new Bench({ packed, mergeable, headers: 'kept' });
        const { source, sink, rx, tx, port, memory } = bench;
        const given = Buffer.from('010301000002220010000000', 'hex');
        const frame = pattern(1, 3000);
        tx.bytes(0);
        memory.bytes.set(given, tx.address(tx.head) - HEADER);
        put(tx, frame, 1500);
        port.txSync(tx);
        const [seen] = sink.sent();
        assert.deepEqual([seen!.header, seen!.bytes], [given, frame]);
        assert.deepEqual(
          seen!.segments.map(({ len }) => len),
          [1512, 1500],
        );
        source.take();
        source.deliver(pattern(2, 900), { header: given.subarray(0, 10) });
        port.rxSync(rx);
        const at = rx.address(rx.head);
        const kept = Buffer.from(memory.bytes.subarray(at - HEADER, at));
        assert.deepEqual(kept.subarray(0, 10), given.subarray(0, 10));
        assert.equal(kept.readUInt16LE(10), 1);
        assert.deepEqual(taken(rx), [pattern(2, 900)]);
        // No room for it in front of the frame.
        tx.setOffset(tx.head, HEADER - 1);
        put(tx, pattern(3, 60));
        port.txSync(tx);
        assert.equal(sink.sent().length, 0);
        assert.equal(tx.counters.badSlots, 1);
        await bench.close();
      }
    });
  }

  it('offloads: of no use when it is stripped, unknown, or not offered', () => {
    const tso: NetmapOptions = { offloads: ['CSUM', 'HOST_TSO4'] };
    const error = refused('offloads', () => offloadBits('p', tso));
    assert.match(error.message, /^port p: CSUM HOST_TSO4 \(0x801\) need the virtio header.*'kept'/);
    refused('offloads', () => offloadBits('p', { offloads: ['LRO'], headers: 'kept' }));
    assert.equal(offloadBits('p', { ...tso, headers: 'kept' }), 0x801n);
    const offered = (1n << 32n) | 1n;
    assert.throws(
      () => choose('p', offered, 1, { ...tso, headers: 'kept' }),
      (thrown) =>
        thrown instanceof Refusal && /does not offer .*HOST_TSO4.* port p/.test(thrown.message),
    );
    const agreed = choose('p', offered | OFFLOAD_BITS, 1, { offloads: ['CSUM'], headers: 'kept' });
    assert.equal(agreed & OFFLOAD_BITS, 1n);
    assert.equal(choose('p', offered | OFFLOAD_BITS, 1, {}) & OFFLOAD_BITS, 0n);
    for (const [options, name] of [
      [{ packed: true }, /RING_PACKED/],
      [{}, /VERSION_1/],
    ] as const) {
      assert.throws(() => choose('p', 0n, 1, options), name);
    }
    assert.throws(() => choose('p', offered, 2, {}), /does not offer MQ/);
  });
});

describe('frames of several slots', () => {
  for (const packed of FORMATS) {
    for (const headers of ['shared', 'kept'] as const) {
      it(`${nameOf(packed)}, ${headers}: 9000 bytes received into buffers of 2 KiB`, async () => {
        const bench = new Bench({ packed, headers, ringSize: 64 });
        const { source, rx, port, memory } = bench;
        const frames = [
          pattern(1, 9000),
          pattern(2, 60),
          pattern(3, 1984),
          pattern(4, 1985),
          pattern(5, 9000),
        ];
        for (let round = 0; round < 20; round++) {
          source.take();
          for (const frame of frames) assert.ok(source.deliver(frame));
          port.rxSync(rx);
          const counts: number[] = [];
          for (let at = rx.head, n = 1; at !== rx.tail; at = rx.next(at)) {
            if (n === 1) {
              assert.equal(rx.offset(at), 64);
              const length = memory.bytes.subarray(rx.address(at) - 2, rx.address(at));
              counts.push(length[0]! | (length[1]! << 8));
            } else {
              // No header in those behind the first: frames begin where it would be.
              assert.equal(rx.offset(at), 64 - HEADER);
            }
            n = rx.flags(at) & NS_MOREFRAG ? n + 1 : 1;
          }
          assert.deepEqual(counts, [5, 1, 1, 2, 5]);
          assert.deepEqual(taken(rx), frames);
        }
        assert.equal(rx.counters.frames, 100);
        assert.equal(rx.counters.bytes, 20 * frames.reduce((sum, { length }) => sum + length, 0));
        await bench.close();
      });
    }

    it(`${nameOf(packed)}: one that is received bit by bit is shown once it is whole`, async () => {
      const bench = new Bench({ packed });
      const { source, rx, port } = bench;
      source.take();
      const frame = pattern(1, 5000);
      const whole = Buffer.concat([Buffer.alloc(10), Buffer.from([3, 0]), frame]);
      for (const [i, chain] of source.held.splice(0, 3).entries()) {
        const part = whole.subarray(i * 1996, (i + 1) * 1996);
        assert.equal(port.rxSync(rx), 0);
        source.write(chain, part);
        source.ring.use([chain], part.length);
      }
      assert.equal(port.rxSync(rx), 3);
      assert.deepEqual(taken(rx), [frame]);
      await bench.close();
    });

    it(`${nameOf(packed)}, in order: what a batch passes over was filled`, async () => {
      const bench = new Bench({ packed, inOrder: true });
      const { source, rx, port } = bench;
      source.take();
      const frame = pattern(1, 5000);
      const whole = Buffer.concat([Buffer.alloc(10), Buffer.from([3, 0]), frame]);
      const chains = source.held.splice(0, 3);
      for (const [i, chain] of chains.entries())
        source.write(chain, whole.subarray(i * 1996, (i + 1) * 1996));
      source.ring.use(chains, whole.length - 2 * 1996);
      assert.equal(port.rxSync(rx), 3);
      assert.deepEqual(taken(rx), [frame]);
      await bench.close();
    });

    it(`${nameOf(packed)}: sent in 1 to ${LONGEST} slots; what is not whole waits`, async () => {
      for (const [indirect, headers] of [
        [true, 'shared'],
        [false, 'shared'],
        [true, 'kept'],
      ] as const) {
        const bench = new Bench({ packed, indirect, headers, ringSize: 256 });
        const { sink, tx, port, memory } = bench;
        if (headers === 'kept') {
          for (let i = 0; i < tx.slots; i++)
            memory.bytes.fill(0, tx.address(i) - HEADER, tx.address(i));
        }
        for (let n = 1; n <= LONGEST; n++) {
          const frame = pattern(n, n * 7);
          const begin = tx.head;
          put(tx, frame, 7);
          const end = tx.head;
          // Up to the last slot but one, and then all.
          if (n > 1) {
            tx.head = tx.cur = (begin + n - 1) % tx.slots;
            port.txSync(tx);
            assert.equal(sink.sent().length, 0);
            tx.head = tx.cur = end;
          }
          port.txSync(tx);
          assert.deepEqual(
            sink.sent().map(({ bytes }) => bytes),
            [frame],
          );
        }
        port.txSync(tx);
        assert.deepEqual([tx.counters.badSlots, tx.counters.frames], [0, LONGEST]);
        assert.equal(tx.space, tx.slots - 1);
        await bench.close();
      }
    });

    it(`${nameOf(packed)}: one too long is dropped to its end, and counted`, async () => {
      const bench = new Bench({ packed, ringSize: 256 });
      const { sink, tx, port } = bench;
      for (const n of [LONGEST + 1, 100, 200]) {
        put(tx, pattern(0, 60));
        put(tx, pattern(n, n), 1);
        put(tx, pattern(1, 60));
        // In two steps: the end is not there yet when the first part is dropped.
        const end = tx.head;
        tx.head = tx.cur = (end - 10 + tx.slots) % tx.slots;
        const before = tx.counters.badSlots;
        port.txSync(tx);
        tx.head = tx.cur = end;
        port.txSync(tx);
        assert.deepEqual(
          sink.sent().map(({ bytes }) => bytes),
          [pattern(0, 60), pattern(1, 60)],
        );
        assert.equal(tx.counters.badSlots - before, n);
        port.txSync(tx);
        assert.equal(tx.space, tx.slots - 1);
      }
      await bench.close();
    });
  }

  it('a ring of few slots does not wait for the end of what it can never hold', async () => {
    const bench = new Bench({ ringSize: 8 });
    const { sink, tx, port } = bench;
    for (let i = 0; i < 7; i++) {
      tx.setLength(i, 10);
      tx.setFlags(i, NS_MOREFRAG);
    }
    tx.head = tx.cur = 7;
    port.txSync(tx);
    assert.equal(tx.space, 7);
    put(tx, pattern(1, 60));
    put(tx, pattern(2, 60));
    port.txSync(tx);
    // The first was the end of what was dropped.
    assert.deepEqual(
      sink.sent().map(({ bytes }) => bytes),
      [pattern(2, 60)],
    );
    assert.equal(tx.counters.badSlots, 8);
    await bench.close();
  });

  it('slots that cannot be are dropped, the frames around them sent', async () => {
    const bench = new Bench({ ringSize: 64 });
    const { sink, tx, rx, port, memory } = bench;
    const buffer = tx.buffer(1);
    const spoil: ((i: number) => void)[] = [
      (i) => tx.setBuffer(i, memory.buffers),
      (i) => tx.setBuffer(i, 0xffff_ffff),
      (i) => tx.setLength(i, 2048 - 64 + 1),
      (i) => tx.setLength(i, 0xffff_ffff),
      (i) => tx.setOffset(i, 2048),
      (i) => tx.setOffset(i, 0xffff_ffff),
      (i) => tx.setLength(i, 0),
    ];
    for (const wrong of spoil) {
      const first = tx.head;
      put(tx, pattern(1, 60));
      put(tx, pattern(2, 60));
      put(tx, pattern(3, 60));
      const bad = tx.next(first);
      const was = tx.buffer(bad);
      wrong(bad);
      const before = tx.counters.badSlots;
      port.txSync(tx);
      assert.deepEqual(
        sink.sent().map(({ bytes }) => bytes),
        [pattern(1, 60), pattern(3, 60)],
      );
      assert.equal(tx.counters.badSlots, before + 1);
      tx.setBuffer(bad, was);
      tx.setOffset(bad, 64);
      port.txSync(tx);
    }
    assert.equal(tx.buffer(1), buffer);
    census(memory, [tx, rx]);
    await bench.close();
  });
});

describe('headroom', () => {
  for (const headers of ['shared', 'kept'] as const) {
    it(`${headers}: 50 bytes in front of a payload that stays where it is`, async () => {
      const bench = new Bench({ headers });
      const other = new Bench({ headers, memory: bench.memory });
      const { source, rx, port } = bench;
      const { sink, tx } = other;
      source.take();
      const payload = pattern(1, 1400);
      const front = pattern(2, 50);
      source.deliver(payload);
      port.rxSync(rx);
      const at = rx.address(0);
      // The buffer goes to the other port, and one of its own comes back.
      const buffer = rx.buffer(0);
      rx.setBuffer(0, tx.buffer(0));
      tx.setBuffer(0, buffer);
      tx.setOffset(0, rx.offset(0) - front.length);
      tx.setLength(0, rx.length(0) + front.length);
      tx.setFlags(0, 0);
      home.control.bytes.set(front, tx.address(0));
      if (headers === 'kept') home.control.bytes.fill(0, tx.address(0) - HEADER, tx.address(0));
      rx.head = rx.cur = 1;
      tx.head = tx.cur = 1;
      other.port.txSync(tx);
      port.rxSync(rx);
      const [seen] = sink.sent();
      assert.deepEqual(seen!.bytes, Buffer.concat([front, payload]));
      assert.equal(
        sink.linear(seen!.segments.at(-1)!.addr) + seen!.segments.at(-1)!.len,
        at + 1400,
      );
      assert.equal(rx.counters.copied + tx.counters.copied, 0);
      census(bench.memory, [rx, bench.tx, tx, other.rx]);
      await other.close();
      await bench.close();
    });
  }

  it('any from 16 to 1024 bytes', async () => {
    for (const headroom of [16, 64, 1024]) {
      for (const [headers, mergeable] of [
        ['shared', true],
        ['kept', true],
        ['kept', false],
      ] as const) {
        const bench = new Bench({ headroom, headers, mergeable });
        bench.source.take();
        const frame = pattern(headroom, 2048 - headroom);
        assert.ok(bench.source.deliver(frame));
        bench.port.rxSync(bench.rx);
        assert.deepEqual([bench.rx.offset(0), bench.rx.space], [headroom, 1]);
        assert.deepEqual(taken(bench.rx), [frame]);
        await bench.close();
      }
    }
  });
});
