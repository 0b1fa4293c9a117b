// `vhop bridge` between ports without a device: every frame arrives, no buffer is lost.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { NS_BUF_CHANGED, NS_MOREFRAG } from '../../src/netmap/types.ts';
import { type End, Path, runBridge } from '../../src/tools/bridge.ts';
import { Random } from '../../src/tools/source.ts';
import {
  backToBack,
  drain,
  FakeMemory,
  FakePort,
  type FakeRing,
  FakeTime,
  joinRings,
  opener,
} from './fake-netmap.ts';
import { run } from './fixtures/run.ts';

const end = (name: string, port: FakePort): End => ({ name, port, tx: port.tx, rx: port.rx });

/** All buffers that a port's rings have. */
function buffersOf(...ports: FakePort[]): number[] {
  const of = (ring: FakeRing) => Array.from({ length: ring.slots }, (_, i) => ring.buffer(i));
  return ports.flatMap(({ tx, rx }) => [...tx, ...rx].flatMap(of)).sort((x, y) => x - y);
}

/** Puts a frame on a ring, cut into `slots`. False if there is no room. */
function send(port: FakePort, frame: Uint8Array, slots = 1, queue = 0): boolean {
  const ring = port.tx[queue]!;
  if (port.txSync(ring) < slots) return false;
  const piece = Math.ceil(frame.length / slots);
  for (let n = 0; n < slots; n++) {
    const part = frame.subarray(n * piece, (n + 1) * piece);
    const i = ring.head;
    port.memory.bytes.set(part, ring.address(i));
    ring.setLength(i, part.length);
    ring.setFlags(i, n < slots - 1 ? NS_MOREFRAG : 0);
    ring.head = ring.cur = ring.next(i);
  }
  port.txSync(ring);
  return true;
}

/** guest x - [a bridge b] - guest y */
function world(
  options: { slots?: number; queues?: number; apart?: boolean; slotsY?: number } = {},
) {
  const time = new FakeTime();
  const { slots = 16, queues = 1 } = options;
  const memory = new FakeMemory();
  const [x, a] = backToBack({ time, slots, queues, memory }, ['x', 'a']);
  const more = { time, slots: options.slotsY ?? slots, queues };
  const other = options.apart ? new FakeMemory() : memory;
  const b = new FakePort('b', { ...more, memory: other, headroom: 128 });
  const y = new FakePort('y', { ...more, memory });
  joinRings(b.tx, y.rx);
  joinRings(y.tx, b.rx);
  return { time, x, a, b, y };
}

describe('a bridge', () => {
  for (const mode of ['swap', 'copy', 'apart'] as const) {
    it(`carries the same frames both ways, in order: ${mode}`, async () => {
      const { time, x, a, b, y } = world({ apart: mode === 'apart' });
      const [there, back] = [
        new Path(end('a', a), end('b', b), mode === 'copy'),
        new Path(end('b', b), end('a', a), mode === 'copy'),
      ];
      assert.equal(there.swaps, mode === 'swap');
      const before = buffersOf(a, b);
      const random = new Random(7);
      const ending = new AbortController();
      const sent: [Uint8Array[], Uint8Array[]] = [[], []];
      const got: [Uint8Array[], Uint8Array[]] = [[], []];
      const turn = time.turn.bind(time);
      time.turn = () => {
        [x, y].forEach((guest, i) => {
          for (let n = random.next() % 30; n > 0 && sent[i]!.length < 1000; n--) {
            const slots = 1 + (random.next() % 4);
            const length = 60 + (random.next() % (slots * 400));
            const frame = Uint8Array.from({ length }, () => random.next());
            if (send(guest, frame, slots)) sent[i]!.push(frame);
          }
          // What found no room on the wire before.
          guest.txSync(guest.tx[0]!);
          // Sometimes a guest does not look: frames wait.
          if (random.next() % 3 === 0) got[1 - i]!.push(...drain(i === 0 ? y : x));
        });
        if (got[0].length + got[1].length === 2000) ending.abort();
        return turn();
      };
      // What x sends, y gets.
      const result = await runBridge({
        ...{ paths: [there, back], burst: 5, time, signal: ending.signal },
        second: () => {},
      });
      assert.equal(result, undefined);
      assert.deepEqual(got[1], sent[0]);
      assert.deepEqual(got[0], sent[1]);
      assert.deepEqual([there.frames, back.frames], [1000, 1000]);
      assert.equal(
        there.bytes,
        sent[0].reduce((sum, frame) => sum + frame.length, 0),
      );
      assert.deepEqual(buffersOf(a, b), before);
    });
  }

  it('swaps: buffer, length, offset and MOREFRAG go, the other buffer comes', () => {
    const { x, a, b } = world();
    const path = new Path(end('a', a), end('b', b), false);
    send(
      x,
      Uint8Array.from({ length: 200 }, (_, i) => i),
      2,
    );
    const [rx, tx] = [a.rx[0]!, b.tx[0]!];
    const [in0, out0] = [rx.buffer(0), tx.buffer(0)];
    const sync = b.txSync.bind(b);
    b.txSync = (ring) => {
      assert.deepEqual([tx.buffer(0), rx.buffer(0)], [in0, out0]);
      assert.deepEqual([tx.offset(0), rx.offset(0)], [64, 128]);
      assert.deepEqual([tx.length(0), tx.length(1)], [100, 100]);
      assert.deepEqual([tx.flags(0), tx.flags(1)], [NS_BUF_CHANGED | NS_MOREFRAG, NS_BUF_CHANGED]);
      assert.equal(rx.flags(0), NS_BUF_CHANGED);
      return sync(ring);
    };
    assert.equal(path.move(1), 2);
  });

  it('keeps what finds no room, and a frame that is not all there', async () => {
    const { x, a, b, y } = world({ slots: 16, slotsY: 8 });
    const path = new Path(end('a', a), end('b', b), false);
    for (let n = 0; n < 15; n++) assert.ok(send(x, new Uint8Array(60).fill(n)));
    while (path.move(1024) > 0);
    assert.ok(path.waits);
    const first = drain(y).length;
    // What waited is now sent; what it made room for moves on.
    for (let n = 0; n < 5; n++) path.move(1024);
    assert.equal(first + drain(y).length, 14);
    path.move(1024);
    path.move(1024);
    assert.deepEqual(drain(y), [new Uint8Array(60).fill(14)]);

    for (let n = 0; n < 3; n++) a.rx[0]!.setFlags((a.rx[0]!.head + n) % 16, NS_MOREFRAG);
    a.rx[0]!.device = (a.rx[0]!.device + 3) % 16;
    assert.equal(path.move(1024), 0);
    assert.equal(a.rx[0]!.space, 3);
  });

  it('that can never send a frame says so', async () => {
    const { time, x, a, b } = world({ slots: 16, slotsY: 4 });
    send(x, new Uint8Array(600), 6);
    const path = new Path(end('a', a), end('b', b), false);
    const signal = new AbortController().signal;
    const error = await runBridge({ paths: [path], burst: 1024, time, signal, second() {} });
    assert.match(error!.message, /^a -> b: a frame has more than 3 slots: give both ports larger/);
  });

  it('has a flow on one queue pair', () => {
    const { x, a, b, y } = world({ queues: 3 });
    for (let queue = 0; queue < 3; queue++) send(x, new Uint8Array(60).fill(queue), 1, queue);
    new Path(end('a', a), end('b', b), false).move(10);
    assert.deepEqual(
      y.rx.map((ring) => [y.rxSync(ring), ring.bytes(0)[0]]),
      [
        [1, 0],
        [1, 1],
        [1, 2],
      ],
    );
  });
});

describe('vhop bridge', () => {
  /** Ends the run after so many turns; before each, `during` is called. */
  function until(time: FakeTime, turns: number, during: () => void): void {
    const turn = time.turn.bind(time);
    time.turn = () => {
      during();
      if (time.turns === turns) process.emit('SIGINT');
      return turn();
    };
  }

  it("opens the second port in the first one's memory, and tells totals", async () => {
    for (const copies of [[], ['-c']]) {
      const { time, x, a, b, y } = world();
      const { open, opened } = opener({ a, b });
      const frames: Uint8Array[] = [];
      let sent = 0;
      until(time, 2000, () => {
        if (sent < 40 && send(x, new Uint8Array(100).fill(sent))) sent++;
        frames.push(...drain(y));
      });
      const args = ['bridge', '-i', 'a', '-i', 'b', '-v', ...copies];
      const { status, out, err } = await run(args, { netmap: open, time });
      assert.equal(status, 0, err);
      assert.equal(out, 'a -> b: 40 packets 4000 bytes\nb -> a: 0 packets 0 bytes\n');
      assert.match(err, copies.length > 0 ? /zerocopy NOT/ : /zerocopy possible/);
      assert.match(err, /^a -> b: .*pps .*bps, b -> a: 0\.000 pps 0\.000 bps$/m);
      assert.deepEqual(
        frames.map((frame) => frame[5]),
        Array.from({ length: 40 }, (_, i) => i),
      );
      assert.deepEqual(
        opened.map(({ name, options }) => [name, options.timeoutMs, options.memory]),
        [
          ['a', 2000, undefined],
          ['b', 2000, a.memory],
        ],
      );
      assert.ok(a.closed && b.closed);
    }
  });

  it('of one port joins it with its host rings, or with -L with itself', async () => {
    for (const loop of [false, true]) {
      const time = new FakeTime();
      const memory = new FakeMemory();
      const port = new FakePort('a*', { time, memory, host: !loop });
      const guest = new FakePort('guest', { time, memory });
      const host = new FakePort('host', { time, memory });
      joinRings(port.tx, [guest.rx[0]!, host.rx[0]!]);
      joinRings(guest.tx, port.rx);
      joinRings(host.tx, port.rx.slice(1));
      const { open } = opener({ [loop ? 'a' : 'a*']: port });
      let [toHost, toGuest] = [0, 0];
      until(time, 60, () => {
        if (time.turns === 10) send(guest, new Uint8Array(60));
        if (time.turns === 20 && !loop) send(host, new Uint8Array(70));
        toHost += drain(host).length;
        toGuest += drain(guest).length;
      });
      const args = ['bridge', '-i', 'a', '--json', ...(loop ? ['-L'] : [])];
      const { status, out } = await run(args, { netmap: open, time });
      assert.equal(status, 0);
      assert.deepEqual([toHost, toGuest], loop ? [0, 1] : [1, 1]);
      const there = { path: loop ? 'a -> a' : 'a -> a^', frames: 1, bytes: 60 };
      const back = { path: 'a^ -> a', frames: 1, bytes: 70 };
      assert.deepEqual(JSON.parse(out), {
        zeroCopy: true,
        paths: loop ? [there] : [there, back],
      });
    }
  });

  it('ends when a port goes down: one sentence, the totals, status 1', async () => {
    const { time, a, b } = world();
    until(time, 1e9, () => {
      if (time.turns === 20) b.goDown();
    });
    const { open } = opener({ a, b });
    const { status, out, err } = await run(['bridge', '-i', 'a', '-i', 'b'], {
      netmap: open,
      time,
    });
    assert.equal(status, 1);
    assert.equal(err, 'vhop: b is gone: start it again\n');
    assert.equal(out, 'a -> b: 0 packets 0 bytes\nb -> a: 0 packets 0 bytes\n');
  });

  const WRONG: [args: string[], message: RegExp][] = [
    [[], /required option '-i <port>' not specified/],
    [['-i', 'a', '-i', 'b', '-i', 'c'], /a bridge has two ends, not 3: give -i twice/],
    [['-i', 'a', '-i', 'b', '-L'], /-L goes with one port/],
    [['-i', 'a^'], /-i a\^: there are only host rings to join: give -i a$/],
    [['-i', 'a', '-b', '0'], /'-b <slots>' argument '0' is invalid/],
    [['-i', 'a', '-w', 'x'], /'-w <seconds>' argument 'x' is invalid/],
    [['-i', 'a', '-i', 'z'], /'z' names no port/],
  ];
  for (const [args, message] of WRONG) {
    it(`refuses ${args.join(' ')}`, async () => {
      const { time, a, b } = world();
      const { open } = opener({ a, b });
      const { status, out, err } = await run(['bridge', ...args], { netmap: open, time });
      assert.equal(status, 2);
      assert.equal(out, '');
      assert.match(err.trimEnd(), message);
      assert.equal(err.trimEnd().split('\n').length, 1);
    });
  }
});
