// The device's state rules, as front ends rely on them (QEMU, virtio-user, cloud-hypervisor).

import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, it } from 'node:test';
import {
  PORT_BASE,
  PORT_DOWN,
  PORT_HDR_LEN,
  PORT_RX_LIST,
  PORT_RX_PAIRS,
  PORT_STATE,
  PORT_STRIDE,
  PORT_UP,
  RING_BROKEN,
  RING_DISCARD,
  RING_LAST_AVAIL,
  RING_RUNNING,
  RING_STOPPED,
} from '../../src/abi/layout.ts';
import { F_LOG_ALL, F_MTU, F_PROTOCOL_FEATURES, F_RING_PACKED } from '../../src/abi/virtio.ts';
import { close, drain, dup, eventfd, memfd } from '../../src/linux/index.ts';
import { Refusal } from '../../src/vhost-user/backend.ts';
import { bit } from '../../src/virtio/features.ts';
import { concat, frame, header, mac } from '../datapath/frames.ts';
import { openFds } from '../linux/fds.ts';
import { DeviceBench, FrontEnd, GUEST_BYTES, PLAIN } from './bench.ts';

const BYTES = concat(header(), frame({ from: mac(1), to: mac(2), length: 100 }));
const ALL = new DeviceBench().window.largestFree();

let bench: DeviceBench;
let a: FrontEnd;
let b: FrontEnd;
let events: string[];
let fds = 0;

function block(port: number): number {
  return PORT_BASE + port * PORT_STRIDE;
}

beforeEach(() => {
  bench = new DeviceBench();
  fds = openFds();
  const [first, second] = [bench.device(4), bench.device(4)];
  events = first.events;
  a = new FrontEnd(bench, first.device);
  b = new FrontEnd(bench, second.device);
});

afterEach(() => {
  a.close();
  b.close();
  assert.equal(openFds(), fds, 'descriptors left open');
  assert.equal(bench.watched.size, 0);
  assert.equal(bench.window.largestFree(), ALL, 'memory left mapped');
});

/** One frame from a to b; returns whether it arrived. */
function pass(): boolean {
  b.post(0, 2048, true);
  const before = b.usedIdx(0);
  a.post(1, BYTES.length, false, BYTES);
  bench.settle();
  return b.usedIdx(0) === ((before + 1) & 0xffff);
}

describe('start and stop', () => {
  it('frames pass once both are open, and the port comes up once', () => {
    a.open();
    b.open();
    assert.ok(pass());
    assert.deepEqual(
      events.filter((name) => name === 'up' || name === 'down'),
      ['up'],
    );
    assert.equal(bench.control.get(block(0) + PORT_STATE), PORT_UP);
  });

  it('ENABLE before memory and addresses is honoured', () => {
    b.open();
    a.device.setVringEnable(0, true);
    a.device.setVringEnable(1, true);
    a.device.setFeatures(PLAIN);
    a.device.setMemTable([a.region()]);
    for (const queue of [0, 1]) a.start(queue);
    assert.ok(pass());
  });

  it('memory that comes after the rings starts them', () => {
    b.open();
    a.device.setFeatures(PLAIN);
    for (const queue of [0, 1]) {
      a.start(queue);
      a.device.setVringEnable(queue, true);
    }
    assert.equal(a.device.up, false);
    a.device.setMemTable([a.region()]);
    assert.equal(a.device.up, true);
    assert.ok(pass());
  });

  it('a ring that is started but not enabled holds its frames until it is', () => {
    a.open();
    b.open();
    a.device.getVringBase(1);
    a.device.setVringEnable(1, false);
    a.device.setVringKick(1, eventfd());
    assert.equal(pass(), false);
    a.device.setVringEnable(1, true);
    bench.settle();
    assert.equal(b.usedIdx(0), 1);
  });

  it('stop and start without ENABLE resumes where it was', () => {
    a.open();
    b.open();
    for (let i = 0; i < 5; i++) assert.ok(pass());
    const bases = a.device.rings.map(({ queue }) => a.device.getVringBase(queue));
    assert.deepEqual(bases, [0, 5, 0, 0, 0, 0, 0, 0]);
    assert.equal(bench.control.get(block(0) + PORT_STATE), PORT_DOWN);
    assert.equal(pass(), false);
    for (const queue of [0, 1]) a.start(queue, bases[queue]);
    bench.settle();
    assert.equal(b.usedIdx(0), 6);
    assert.ok(pass());
  });

  it('GET_VRING_BASE of a ring that never started answers what was set, and is repeatable', () => {
    a.device.setVringNum(2, 16);
    a.device.setVringBase(2, 77);
    assert.equal(a.device.getVringBase(2), 77);
    assert.equal(a.device.getVringBase(2), 77);
    assert.equal(a.device.getVringBase(3), 0);
  });

  it('nothing is written to the guest after the answer to GET_VRING_BASE', () => {
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

  it('a base other than used.idx in memory: memory is right', () => {
    for (const [base, used] of [
      [0, 500],
      [500, 0],
      [3, 65535],
    ] as const) {
      const world = new DeviceBench();
      const { device } = world.device();
      const front = new FrontEnd(world, device);
      device.setFeatures(PLAIN);
      device.setMemTable([front.region()]);
      const view = new DataView(world.control.memory.buffer);
      const parts = front.at(1);
      view.setUint16(front.linear(parts.used) + 2, used, true);
      view.setUint16(front.linear(parts.avail) + 2, used, true);
      front.start(1, base);
      device.setVringEnable(1, true);
      assert.equal(device.rings[1]!.get(RING_LAST_AVAIL), used);
      assert.equal(device.getVringBase(1), used);
      front.close();
    }
  });

  it('STATUS 0 touches neither base, memory nor enables', () => {
    a.open();
    b.open();
    pass();
    a.device.setStatus(15);
    assert.equal(a.device.getStatus(), 15);
    a.device.setStatus(0);
    assert.equal(a.device.getStatus(), 0);
    assert.ok(pass());
    assert.equal(a.device.getVringBase(1), 2);
  });

  it('a latched ring comes back with the next start', () => {
    a.open();
    b.open();
    pass();
    const view = new DataView(bench.control.memory.buffer);
    const avail = a.linear(a.at(1).avail) + 2;
    view.setUint16(avail, 0x4000, true);
    bench.settle();
    assert.deepEqual(bench.latched, [1]);
    assert.equal(a.device.rings[1]!.state, RING_BROKEN);
    assert.deepEqual(
      a.device.takeBroken().map(({ queue }) => queue),
      [1],
    );
    assert.deepEqual(a.device.takeBroken(), []);
    // Neither ENABLE nor new memory heals it: only a start does.
    a.device.setVringEnable(1, false);
    a.device.setVringEnable(1, true);
    a.device.setMemTable([a.region()]);
    assert.equal(a.device.rings[1]!.state, RING_BROKEN);
    assert.equal(a.device.getVringBase(1), 1);
    view.setUint16(a.linear(a.at(1).avail) + 2, 1, true);
    a.start(1, 1);
    assert.equal(a.device.rings[1]!.state, RING_RUNNING);
    assert.ok(pass());
  });

  it('the err eventfd of a latched ring is signalled once', () => {
    a.open();
    const err = eventfd();
    a.device.setVringErr(1, dup(err));
    const view = new DataView(bench.control.memory.buffer);
    view.setUint16(a.linear(a.at(1).avail) + 2, 0x4000, true);
    bench.settle();
    a.device.takeBroken();
    assert.equal(drain(err), true);
    a.device.takeBroken();
    assert.equal(drain(err), false);
    close(err);
  });
});

describe('features', () => {
  it('bits never offered are refused, and FEATURES_OK shows it', () => {
    a.device.setStatus(11);
    assert.throws(() => a.device.setFeatures(PLAIN | bit(F_RING_PACKED)), /never offered/);
    assert.equal(a.device.getStatus(), 3);
    assert.equal(a.device.features, 0n);
    assert.throws(() => a.device.setFeatures(bit(F_MTU)), /never offered/);
    a.device.setFeatures(PLAIN);
    assert.equal(a.device.getStatus(), 11);
  });

  it('bit 30 is not a virtio feature', () => {
    a.device.setFeatures(PLAIN | bit(F_PROTOCOL_FEATURES));
    assert.equal(a.device.features, PLAIN);
  });

  it('may change only while no ring runs; the same ones may be set again', () => {
    a.open();
    b.open();
    assert.throws(() => a.device.setFeatures(0n), /while rings run/);
    a.device.setFeatures(PLAIN);
    assert.ok(pass());
    for (const [queue] of a.device.rings.entries()) a.device.getVringBase(queue);
    a.device.setFeatures(0n);
    assert.equal(bench.control.get(block(0) + PORT_HDR_LEN), 10);
  });

  it('LOG_ALL is not offered, so it is refused', () => {
    assert.throws(() => a.device.setFeatures(PLAIN | bit(F_LOG_ALL)), /never offered/);
  });

  it('an MTU out of range is refused', () => {
    for (const mtu of [0, 67, 65536, 2 ** 40]) assert.throws(() => a.device.setMtu(mtu), Refusal);
    a.device.setMtu(1500);
    assert.equal(a.device.mtu, 1500);
  });
});

describe('rings', () => {
  it('sizes that are no power of two, 0, or beyond 32768 are refused', () => {
    for (const size of [0, 3, 100, 32769, 65536, 2 ** 31]) {
      assert.throws(() => a.device.setVringNum(0, size), /power of two/);
    }
    for (const size of [1, 8, 32768]) a.device.setVringNum(0, size);
  });

  it('misaligned parts are refused', () => {
    const good = { flags: 0, desc: 0x1000n, avail: 0x2000n, used: 0x3000n, logGpa: 0n };
    for (const over of [{ desc: 0x1008n }, { avail: 0x2001n }, { used: 0x3002n }]) {
      assert.throws(() => a.device.setVringAddr(0, { ...good, ...over }), /misaligned/);
    }
    a.device.setVringAddr(0, good);
  });

  it('a base beyond 16 bits is refused', () => {
    assert.throws(() => a.device.setVringBase(0, 0x1_0000), /65535/);
  });

  it('NUM, ADDR and BASE are refused on a ring that runs; its own address again is not', () => {
    a.open();
    assert.throws(() => a.device.setVringNum(0, 32), /ring 0 runs/);
    assert.throws(() => a.device.setVringBase(0, 1), /ring 0 runs/);
    const other = { ...a.addresses(0), used: a.addresses(1).used };
    assert.throws(() => a.device.setVringAddr(0, other), /ring 0 runs/);
    a.device.setVringAddr(0, { ...a.addresses(0), flags: 1 });
  });

  it('a ring outside of memory is refused, and the port is not up with it', () => {
    b.open();
    a.open();
    assert.equal(a.device.up, true);
    // The table shrinks under the rings: pages from 2 MiB on, where no ring is.
    assert.throws(() => a.device.setMemTable([a.region(0x20_0000)]), /outside the memory/);
    for (const ring of a.device.rings) assert.notEqual(ring.state, RING_RUNNING);
    assert.equal(a.device.up, false);
    assert.equal(bench.control.get(block(0) + PORT_RX_PAIRS), 0);
    a.device.setMemTable([a.region()]);
    assert.equal(a.device.up, true);
    assert.ok(pass());
  });

  it('a call eventfd is signalled when it is installed; none is none', () => {
    const call = eventfd();
    a.device.setVringCall(1, dup(call));
    assert.equal(drain(call), true);
    a.device.setVringCall(1, -1);
    assert.equal(drain(call), false);
    close(call);
  });
});

describe('memory', () => {
  it('a new table with live rings: other addresses, the same traffic', () => {
    // Given back later, so that the new mapping lands below the old one.
    const spare = memfd('spare', GUEST_BYTES);
    const hold = bench.window.map(spare, 0, GUEST_BYTES, 4096);
    close(spare);
    a.open();
    b.open();
    assert.ok(pass());
    const before = a.linear(0);
    hold.unmap();
    a.device.setMemTable([a.region()]);
    assert.notEqual(a.linear(0), before);
    for (let i = 0; i < 20; i++) assert.ok(pass());
  });

  it('a frame posted before a new table arrives after it', () => {
    a.open();
    b.open();
    b.post(0, 2048, true);
    a.post(1, BYTES.length, false, BYTES);
    a.device.setMemTable([a.region()]);
    b.device.setMemTable([b.region()]);
    bench.settle();
    assert.equal(b.usedIdx(0), 1);
  });

  it('the old table is out of use before it is unmapped', () => {
    a.open();
    let running = 0;
    let watched = 0;
    bench.onQuiesce = () => {
      watched++;
      if (watched === 1)
        running = a.device.rings.filter(({ state }) => state !== RING_STOPPED).length;
    };
    const linear = a.linear(0);
    assert.ok(linear > 0);
    a.device.setMemTable([]);
    assert.ok(watched > 0);
    assert.equal(running, 0);
    assert.equal(a.linear(0), 0);
    assert.equal(a.device.up, false);
  });

  it('regions one by one: a repeated ADD and REM are success, and close their fds', () => {
    b.open();
    a.device.setFeatures(PLAIN);
    const before = openFds();
    a.device.addMemRegion(a.region());
    a.device.addMemRegion(a.region());
    assert.equal(openFds(), before);
    for (const queue of [0, 1]) {
      a.start(queue);
      a.device.setVringEnable(queue, true);
    }
    assert.ok(pass());
    for (const queue of [0, 1]) a.device.getVringBase(queue);
    const { fd, ...region } = a.region();
    close(fd);
    a.device.removeMemRegion(region);
    a.device.removeMemRegion(region);
    assert.equal(a.device.regions.bytes, 0);
  });

  it('a bad region in a table is refused with all fds closed', () => {
    const before = openFds();
    const bad = { ...a.region(), size: 1n };
    assert.throws(() => a.device.setMemTable([a.region(), bad]), /not aligned|overlaps/);
    assert.equal(openFds(), before);
  });
});

describe('enable', () => {
  it('queue pairs enabled one by one: the list of receivers follows', () => {
    a.open();
    const list = () => {
      const n = bench.control.get(block(0) + PORT_RX_PAIRS);
      const at = block(0) + PORT_RX_LIST;
      return [...bench.control.bytes.slice(at, at + n)];
    };
    assert.deepEqual(list(), [0, 1, 2, 3]);
    for (const queue of [2, 3]) a.device.setVringEnable(queue, false);
    assert.deepEqual(list(), [0, 2, 3]);
    a.device.setVringEnable(0, false);
    assert.deepEqual(list(), [2, 3]);
    a.device.setVringEnable(2, true);
    assert.deepEqual(list(), [1, 2, 3]);
  });

  it('nothing goes to a disabled ring, everything to those that remain', () => {
    a.open();
    b.open();
    for (const queue of [0, 1, 2, 3, 4, 5]) b.device.setVringEnable(queue, false);
    for (let i = 0; i < 8; i++) {
      b.post(6, 2048, true);
      for (const queue of [0, 2, 4]) b.post(queue, 2048, true);
      const bytes = concat(header(), frame({ from: mac(1), to: mac(i + 40), seed: i }));
      a.post(1, bytes.length, false, bytes);
    }
    bench.settle();
    assert.deepEqual(
      [0, 2, 4, 6].map((queue) => b.usedIdx(queue)),
      [0, 0, 0, 8],
    );
  });

  it('workers are quiesced between an empty list and the next one', () => {
    a.open();
    const seen: number[] = [];
    bench.onQuiesce = () => seen.push(bench.control.get(block(0) + PORT_RX_PAIRS));
    a.device.setVringEnable(4, false);
    bench.onQuiesce = () => {};
    // Until a round has passed in which the count was 0, a burst may still be walking the old list.
    assert.ok(seen.includes(0), `${seen}`);
    assert.equal(seen.at(-1), 3);
  });

  it('frames of a disabled ring wait, then go nowhere, then flow again', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    a.open();
    b.open();
    a.device.setVringEnable(1, false);
    assert.equal(pass(), false);
    assert.equal(a.usedIdx(1), 0);
    t.mock.timers.tick(499);
    bench.settle();
    assert.equal(a.usedIdx(1), 0);
    t.mock.timers.tick(1);
    assert.equal(a.device.rings[1]!.state, RING_DISCARD);
    bench.settle();
    assert.equal(a.usedIdx(1), 1);
    assert.equal(b.usedIdx(0), 0);
    a.device.setVringEnable(1, true);
    assert.ok(pass());
  });

  it('a new table does not make a disabled ring hold its frames for ever', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    a.open();
    a.device.setVringEnable(1, false);
    t.mock.timers.tick(500);
    a.device.setMemTable([a.region()]);
    t.mock.timers.tick(500);
    a.post(1, BYTES.length, false, BYTES);
    bench.settle();
    assert.equal(a.usedIdx(1), 1);
  });

  it('a ring stopped while disabled holds its frames again when it starts', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    a.open();
    b.open();
    a.device.setVringEnable(1, false);
    t.mock.timers.tick(500);
    const base = a.device.getVringBase(1);
    a.start(1, base);
    assert.equal(pass(), false);
    a.device.setVringEnable(1, true);
    bench.settle();
    assert.equal(b.usedIdx(0), 1);
  });

  it('a ring enabled again within the grace loses nothing', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    a.open();
    b.open();
    a.device.setVringEnable(1, false);
    a.post(1, BYTES.length, false, BYTES);
    b.post(0, 2048, true);
    t.mock.timers.tick(400);
    a.device.setVringEnable(1, true);
    t.mock.timers.tick(1000);
    bench.settle();
    assert.equal(b.usedIdx(0), 1);
  });
});

describe('descriptors', () => {
  it('500 sessions leave none open and no memory mapped', () => {
    const before = openFds();
    for (let i = 0; i < 500; i++) {
      a.open();
      a.device.setVringErr(i % 8, eventfd());
      a.device.setVringKick(1, eventfd());
      a.device.setVringCall(1, eventfd());
      if (i % 3 === 0) a.device.getVringBase(1);
      a.device.disconnected('over');
      assert.equal(openFds(), before);
    }
    assert.equal(bench.window.largestFree(), ALL);
    assert.deepEqual(events.slice(-2), ['down', 'disconnected']);
  });
});
