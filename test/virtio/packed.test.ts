// Packed rings, as front ends set them up, stop and start them (vhost-user, virtio 1.2 §2.8).

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { RING_BROKEN, RING_LAST_AVAIL, RING_RUNNING, RING_USED_IDX } from '../../src/abi/layout.ts';
import { DESC_F_NEXT, EVENT_F_DESC, EVENT_F_DISABLE, WRAP } from '../../src/abi/virtio.ts';
import { close, eventfd, memfd } from '../../src/linux/index.ts';
import { describeRing } from '../../src/port/describe.ts';
import { concat, frame, header, mac } from '../datapath/frames.ts';
import { openFds } from '../linux/fds.ts';
import { DeviceBench, FrontEnd, GUEST_BYTES, PLAIN } from './bench.ts';
import { PACKED, PackedFrontEnd } from './packed-front-end.ts';

const BYTES = concat(header(), frame({ from: mac(1), to: mac(2), length: 100 }));
const ALL = new DeviceBench().window.largestFree();
const GOOD = { flags: 0, desc: 0x1000n, avail: 0x2000n, used: 0x3000n, logGpa: 0n };

let bench: DeviceBench;
let a: FrontEnd;
let b: FrontEnd;
let fds = 0;

/** Two front ends with rings of these sizes; `split`: the one that has no packed rings. */
function pair(sizes: [number, number] = [16, 16], split?: 'a' | 'b'): void {
  const [first, second] = [bench.device(), bench.device()];
  const [Sender, Taker] = [split === 'a', split === 'b'].map((plain) =>
    plain ? FrontEnd : PackedFrontEnd,
  ) as [typeof FrontEnd, typeof FrontEnd];
  a = new Sender(bench, first.device, sizes[0]);
  b = new Taker(bench, second.device, sizes[1]);
}

/** One frame from a to b; returns whether it arrived and both buffers came back. */
function pass(): boolean {
  const before = [a.usedIdx(1), b.usedIdx(0)];
  b.post(0, 2048, true);
  a.post(1, BYTES.length, false, BYTES);
  bench.settle();
  return (
    a.usedIdx(1) === ((before[0]! + 1) & 0xffff) && b.usedIdx(0) === ((before[1]! + 1) & 0xffff)
  );
}

const packed = (end: FrontEnd) => end as PackedFrontEnd;
const info = (end: FrontEnd, queue: number) =>
  describeRing(bench.control, 'p', end.device.rings[queue]!);

beforeEach(() => {
  bench = new DeviceBench();
  fds = openFds();
});

afterEach(() => {
  a.close();
  b.close();
  assert.equal(bench.window.largestFree(), ALL, 'memory left mapped');
  assert.equal(openFds(), fds, 'descriptors left open');
});

describe('packed rings: set-up', () => {
  it('any size up to 32768 is accepted; split ones stay powers of two', () => {
    pair();
    a.device.setFeatures(PACKED);
    for (const size of [1, 2, 3, 100, 257, 32767, 32768]) a.device.setVringNum(0, size);
    for (const size of [0, 32769, 65536, 2 ** 31]) {
      assert.throws(() => a.device.setVringNum(0, size), /cannot have/);
    }
    b.device.setFeatures(PLAIN);
    assert.throws(() => b.device.setVringNum(0, 100), /power of two/);
  });

  it('a size that was right for a packed ring is refused when the rings became split ones', () => {
    pair([100, 16]);
    a.open();
    for (const queue of [0, 1]) a.device.getVringBase(queue);
    a.device.setFeatures(PLAIN);
    assert.throws(() => a.device.setVringKick(1, eventfd()), /100 entries/);
    assert.notEqual(a.device.rings[1]!.state, RING_RUNNING);
  });

  it('event areas want 4 bytes, the ring 16', () => {
    pair();
    a.device.setFeatures(PACKED);
    for (const over of [
      { desc: 0x1008n },
      { avail: 0x2002n },
      { avail: 0x2001n },
      { used: 0x3002n },
    ]) {
      assert.throws(() => a.device.setVringAddr(0, { ...GOOD, ...over }), /event areas 4/);
    }
    a.device.setVringAddr(0, GOOD);
    // An avail ring wants 2.
    b.device.setFeatures(PLAIN);
    b.device.setVringAddr(0, { ...GOOD, avail: 0x2002n });
  });

  for (const base of [0x8000, 0x8000_8000]) {
    it(`base 0x${base.toString(16)} is slot 0 of the first lap`, () => {
      pair();
      for (const end of [a, b]) {
        end.open();
        for (const queue of [0, 1]) end.device.getVringBase(queue);
        for (const queue of [0, 1]) end.start(queue, base);
      }
      for (let i = 0; i < 40; i++) assert.ok(pass());
      assert.equal(a.device.getVringBase(1), packed(a).base(40));
    });
  }

  it('a ring that never started answers its base as it was set', () => {
    pair();
    a.device.setFeatures(PACKED);
    a.device.setVringNum(0, 100);
    for (const base of [0x8000, 0x8000_8000, 0x0063_0063, 0x8005_8005]) {
      a.device.setVringBase(0, base);
      assert.equal(a.device.getVringBase(0), base);
    }
  });

  for (const base of [16, 17, 0x7fff, WRAP | 16, 0xffff, 0x8000_8010]) {
    it(`base 0x${base.toString(16)} on a ring of 16 is refused at the start`, () => {
      pair();
      a.device.setFeatures(PACKED);
      a.device.setMemTable([a.region()]);
      a.device.setVringEnable(1, true);
      assert.throws(() => a.start(1, base), /ring 1 cannot start at slot/);
      assert.notEqual(a.device.rings[1]!.state, RING_RUNNING);
      a.device.getVringBase(1);
      a.start(1);
      assert.equal(a.device.rings[1]!.state, RING_RUNNING);
    });
  }

  it('a started ring asks for no kicks; one that is armed, for one at its position', () => {
    pair();
    a.open();
    b.open();
    for (const queue of [0, 1]) assert.equal(packed(a).deviceEvent(queue).flags, EVENT_F_DISABLE);
    for (let i = 0; i < 20; i++) assert.ok(pass());
    bench.datapath.armAll();
    assert.deepEqual(packed(a).deviceEvent(1), { offWrap: 4, flags: EVENT_F_DESC });
    assert.equal(info(a, 1).notify, true);
  });
});

for (const [name, sizes, split] of [
  ['packed', [16, 5], undefined],
  ['split to packed', [16, 7], 'a'],
  ['packed to split', [11, 16], 'b'],
] as const) {
  describe(`stop and start: ${name}`, () => {
    it('GET_VRING_BASE answers both halves, and a start from there goes on', () => {
      pair([...sizes], split);
      a.open();
      b.open();
      let total = 0;
      for (let round = 0; round < 30; round++) {
        for (let i = 0; i < round % 7; i++, total++) assert.ok(pass());
        // Posted, and not yet taken when the rings stop.
        b.post(0, 2048, true);
        a.post(1, BYTES.length, false, BYTES);
        const bases = [a.device.getVringBase(1), b.device.getVringBase(0)];
        const expected = [a, b].map((end) =>
          end instanceof PackedFrontEnd ? end.base(total) : total,
        );
        assert.deepEqual(bases, expected);
        bench.settle();
        assert.deepEqual([a.usedIdx(1), b.usedIdx(0)], [total, total]);
        // Front ends that keep the low half only go on as well.
        const mask = round % 2 === 0 ? 0xffff : 0xffff_ffff;
        b.start(0, (bases[1]! & mask) >>> 0);
        a.start(1, (bases[0]! & mask) >>> 0);
        bench.settle();
        total++;
        assert.deepEqual([a.usedIdx(1), b.usedIdx(0)], [total, total]);
      }
    });

    it('new memory under live rings: the same traffic, also of what was posted before', () => {
      pair([...sizes], split);
      const spare = memfd('spare', GUEST_BYTES);
      const hold = bench.window.map(spare, 0, GUEST_BYTES, 4096);
      close(spare);
      a.open();
      b.open();
      for (let i = 0; i < 20; i++) assert.ok(pass());
      const before = a.linear(0);
      hold.unmap();
      b.post(0, 2048, true);
      a.post(1, BYTES.length, false, BYTES);
      a.device.setMemTable([a.region()]);
      b.device.setMemTable([b.region()]);
      assert.notEqual(a.linear(0), before);
      bench.settle();
      assert.deepEqual([a.usedIdx(1), b.usedIdx(0)], [21, 21]);
      for (let i = 0; i < 20; i++) assert.ok(pass());
    });

    it('nothing is written to the guest after the answer to GET_VRING_BASE', () => {
      pair([...sizes], split);
      a.open();
      b.open();
      b.post(0, 2048, true);
      b.device.getVringBase(0);
      const image = () =>
        Buffer.from(bench.control.bytes.slice(b.linear(0), b.linear(0) + GUEST_BYTES));
      const before = image();
      a.post(1, BYTES.length, false, BYTES);
      bench.settle();
      assert.ok(image().equals(before));
      assert.equal(a.usedIdx(1), 1);
    });
  });
}

describe('packed rings: latch and view', () => {
  it('a latched ring keeps its position, and comes back with the next start', () => {
    pair();
    a.open();
    b.open();
    for (let i = 0; i < 3; i++) assert.ok(pass());
    for (let i = 0; i < 16; i++) packed(a).post(1, 1, false, BYTES, DESC_F_NEXT);
    bench.settle();
    const ring = a.device.rings[1]!;
    assert.deepEqual(bench.latched, [1]);
    assert.equal(ring.state, RING_BROKEN);
    assert.match(info(a, 1).broken!, /chain of descriptors does not end/);
    a.device.setMemTable([a.region()]);
    assert.equal(ring.state, RING_BROKEN);
    assert.equal(a.device.getVringBase(1), packed(a).base(3));
    // What a driver reset does: the ring is empty again, from its first slot.
    const { desc } = a.at(1);
    bench.control.bytes.fill(0, a.linear(desc), a.linear(desc) + 16 * 16);
    a.start(1);
    assert.equal(ring.state, RING_RUNNING);
    assert.deepEqual([ring.get(RING_LAST_AVAIL), ring.get(RING_USED_IDX)], [WRAP, WRAP]);
  });

  it('shows slots, the wrap counter, and what is posted and not taken', () => {
    pair([5, 16]);
    a.open();
    b.open();
    const view = () => {
      const { lastAvail, availIdx, usedIdx, wrap, inFlight } = info(a, 0);
      return [lastAvail, availIdx, usedIdx, wrap, inFlight];
    };
    assert.equal(info(a, 0).type, 'packed');
    assert.deepEqual(view(), [0, 0, 0, 1, 0]);
    // a's RX ring is filled by b.
    let posted = 0;
    let taken = 0;
    for (let round = 0; round < 40; round++) {
      for (; posted < taken + (round % 6); posted++) a.post(0, 2048, true);
      const at = taken % 5;
      const expected = [at, posted % 5, at, Math.floor(taken / 5) % 2 === 0 ? 1 : 0];
      assert.deepEqual(view(), [...expected, posted - taken], `round ${round}`);
      for (let i = 0; i < round % 4 && taken < posted; i++, taken++) {
        b.post(1, BYTES.length, false, BYTES);
      }
      bench.settle();
      assert.equal(a.usedIdx(0), taken);
    }
    // Stopped, it shows where it stands and nothing of the guest's memory.
    a.device.getVringBase(0);
    assert.deepEqual(view().slice(2), [taken % 5, Math.floor(taken / 5) % 2 === 0 ? 1 : 0, 0]);
  });
});
