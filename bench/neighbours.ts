// What a hostile neighbour costs: an innocent sender offers a part of what a worker can carry, while
// another port of the same worker does its worst. In process, one thread; the clock is the CPU time spent
// in poll(), and all drivers work while it stands, so that nothing but the worker is shared.
// Run: npm run bench -- --cases neighbours

import { MAX_SEGMENTS } from '../src/abi/layout.ts';
import {
  DESC_F_NEXT,
  DESC_F_WRITE,
  F_CSUM,
  F_GUEST_CSUM,
  F_GUEST_TSO4,
  F_HOST_TSO4,
} from '../src/abi/virtio.ts';
import { BROADCAST, concat, frame, header, mac } from '../test/datapath/frames.ts';
import { packet } from '../test/datapath/packets.ts';
import type { Part, TestQueue } from '../test/datapath/queue.ts';
import type { SplitQueue } from '../test/datapath/queue-split.ts';
import { features, PLAIN, Rig, type TestPort } from '../test/datapath/rig.ts';
import { type Case, inTurn, lengths, median } from './case.ts';
import { clockCost, threadTime } from './cpu-clock.ts';

const RING = 256;
const CLOCK = clockCost();
/** Nanoseconds of a poll that finds nothing. */
const MIN_POLL = 20;
const TSO = PLAIN | features(F_CSUM, F_HOST_TSO4, F_GUEST_CSUM, F_GUEST_TSO4);
const FAR = mac(7);
const FRIEND = mac(8);

export interface NeighbourResult {
  name: string;
  size: number;
  /** Of what the innocent port offered, what arrived: 1 is all. */
  got: number;
  /** Microseconds between two turns of the innocent port's ring: the longest, and the 99th in a hundred. */
  longest: number;
  usual: number;
}

/** One buffer, posted again and again. */
function buffer(port: TestPort, bytes: Uint8Array, acked = port.headerLength): Part {
  const at = port.alloc(acked + bytes.length, 64);
  port.rig.bytes.fill(0, at, at + acked);
  port.rig.bytes.set(bytes, at + acked);
  return { addr: port.gpa(at), len: acked + bytes.length };
}

/** A receiver that posts what comes back, whatever it holds. */
class Sink {
  readonly rx: TestQueue;
  readonly #parts: Part[];
  readonly #posted = new Map<number, Part[]>();

  constructor(rx: TestQueue, parts: number, length: number) {
    this.rx = rx;
    const at = rx.port.alloc(parts * length, 64);
    this.#parts = Array.from({ length: parts }, (_, i) => ({
      addr: rx.port.gpa(at + i * length),
      len: length,
      write: true,
    }));
    this.again();
  }

  again(): void {
    for (const { head } of this.rx.used()) this.#posted.delete(head);
    for (;;) {
      const head = this.rx.add(this.#parts);
      if (head < 0) break;
      this.#posted.set(head, this.#parts);
    }
    this.rx.publish();
  }
}

/** Keeps a ring full of one chain. */
function flood(tx: TestQueue, chain: Part[], most = RING): () => void {
  return () => {
    tx.used();
    for (let i = 0; i < most && tx.free >= chain.length; i++) tx.add(chain);
    tx.publish();
  };
}

interface Hostile {
  features?: bigint;
  pairs?: number;
  /** Sets the port up; what it returns runs before every poll. */
  start(port: TestPort, rig: Rig, friend: (acked?: bigint) => TestPort): () => void;
}

const plainFrame = (to: Uint8Array, length: number) => frame({ from: mac(3), to, length });

function tso(port: TestPort): Part {
  const { bytes, header: asked } = packet({
    ...{ tags: [], version: 4, options: 0, extensions: [], protocol: 6, tcpOptions: 3 },
    ...{ flags: 0x18, payload: 65160, seed: 1 },
  });
  bytes.set(FRIEND, 0);
  bytes.set(mac(3), 6);
  return buffer(port, concat(header({ ...asked, gsoSize: 1448 }), bytes), 0);
}

/** The neighbours, from none to the worst. */
export const NEIGHBOURS: Record<string, Hostile> = {
  none: { start: () => () => {} },
  'flood of 64 B': {
    start(port, _, friend) {
      const sink = new Sink(friend().queue(0, { size: RING }), 1, 2048);
      const feed = flood(port.queue(1, { size: RING }), [buffer(port, plainFrame(FRIEND, 64))]);
      return () => [feed(), sink.again()];
    },
  },
  'flood on 8 pairs': {
    pairs: 8,
    start(port, _, friend) {
      const sink = new Sink(friend().queue(0, { size: 1024 }), 1, 2048);
      const part = buffer(port, plainFrame(FRIEND, 1514));
      const feeds = Array.from({ length: 8 }, (_, i) =>
        flood(port.queue(i * 2 + 1, { size: RING }), [part]),
      );
      return () => [feeds.map((feed) => feed()), sink.again()];
    },
  },
  'flood of 64 KiB': {
    features: TSO,
    start(port, _, friend) {
      const sink = new Sink(friend().queue(0, { size: RING }), 1, 65580);
      const feed = flood(port.queue(1, { size: RING }), [tso(port)]);
      return () => [feed(), sink.again()];
    },
  },
  '64 KiB cut into 45': {
    features: TSO,
    start(port, _, friend) {
      const sink = new Sink(friend(PLAIN).queue(0, { size: 4096 }), 1, 2048);
      const feed = flood(port.queue(1, { size: RING }), [tso(port)]);
      return () => [feed(), sink.again()];
    },
  },
  'broadcast to 14 guests': {
    start(port, rig) {
      const sinks = Array.from(
        { length: 14 },
        () => new Sink(rig.port().queue(0, { size: RING }), 1, 2048),
      );
      const feed = flood(port.queue(1, { size: RING }), [
        buffer(port, plainFrame(BROADCAST, 1514)),
      ]);
      return () => [feed(), sinks.map((sink) => sink.again())];
    },
  },
  'one frame at a time': {
    start(port, _, friend) {
      const sink = new Sink(friend().queue(0, { size: RING }), 1, 2048);
      const feed = flood(port.queue(1, { size: RING }), [buffer(port, plainFrame(FRIEND, 64))], 1);
      return () => [feed(), sink.again()];
    },
  },
  'bad chains of 1024': {
    start(port) {
      const tx = port.queue(1, { size: 32768 }) as SplitQueue;
      const part = buffer(port, plainFrame(FAR, 64));
      const chain = Array.from({ length: MAX_SEGMENTS }, (_, i) => ({
        addr: part.addr,
        len: 1,
        flags: i < MAX_SEGMENTS - 1 ? DESC_F_NEXT : DESC_F_WRITE,
        next: i + 1,
      }));
      tx.addRaw(chain, 0);
      // The same head in every slot: each costs a walk.
      let posted = 1;
      return () => {
        for (; posted - tx.frames < 128; posted++) tx.post(0);
        tx.publish();
      };
    },
  },
  'bad indirect tables of 1024': {
    start(port, rig) {
      const tx = port.queue(1, { size: RING });
      const at = port.alloc(MAX_SEGMENTS * 16, 64);
      const part = buffer(port, plainFrame(FAR, 64));
      for (let i = 0; i < MAX_SEGMENTS; i++) {
        rig.view.setBigUint64(at + i * 16, part.addr, true);
        rig.view.setUint32(at + i * 16 + 8, 1, true);
        rig.view.setUint16(at + i * 16 + 12, DESC_F_NEXT, true);
        rig.view.setUint16(at + i * 16 + 14, (i + 1) % MAX_SEGMENTS, true);
      }
      const table = { addr: port.gpa(at), len: MAX_SEGMENTS * 16, flags: 4 };
      return () => {
        tx.used();
        tx.sortFree();
        while (tx.free > 0) tx.addRaw([table]);
        tx.publish();
      };
    },
  },
  'a friend with scattered buffers': {
    start(port, _, friend) {
      const sink = new Sink(friend().queue(0, { size: 32768 }), 1000, 1);
      const feed = flood(port.queue(1, { size: RING }), [buffer(port, plainFrame(FRIEND, 900))]);
      return () => [feed(), sink.again()];
    },
  },
  'a friend that never posts': {
    start(port, _, friend) {
      friend().queue(0, { size: RING });
      return flood(port.queue(1, { size: RING }), [buffer(port, plainFrame(FRIEND, 1514))]);
    },
  },
  'kicks without frames': {
    start(port, rig) {
      const tx = port.queue(1, { size: RING });
      return () => {
        for (let i = 0; i < 8; i++) rig.datapath.activate(tx.index);
      };
    },
  },
};

/** An innocent sender and receiver, and the neighbour. */
function world(hostile: Hostile, size: number) {
  const rig = new Rig();
  rig.now = () => threadTime() / 1e6;
  const from = rig.port();
  const to = rig.port();
  const sink = new Sink(to.queue(0, { size: 1024 }), 1, 2048);
  const tx = from.queue(1, { size: 1024 });
  const part = buffer(from, frame({ from: mac(1), to: mac(2), length: size }));
  rig.datapath.fdbLearn(address(mac(2)), to.index);
  const bad = rig.port({ features: hostile.features ?? PLAIN, pairs: hostile.pairs ?? 1 });
  const friend = (acked = hostile.features ?? PLAIN) => {
    const port = rig.port({ features: acked });
    rig.datapath.fdbLearn(address(FRIEND), port.index);
    return port;
  };
  const feed = hostile.start(bad, rig, friend);
  return { rig, tx, sink, part, feed };
}

type World = ReturnType<typeof world>;

/** Runs for `us` microseconds of poll(), the innocent port offering `rate` frames each. */
function drive(w: World, rate: number, us: number) {
  const { rig, tx, sink, part, feed } = w;
  // All go to the sink, which gets the neighbour's broadcasts as well.
  const arrived = () => tx.frames - sink.rx.dropped;
  const before = arrived();
  const gaps: number[] = [];
  let time = 0;
  let offered = 0;
  let turn = 0;
  let polled = tx.frames;
  while (time < us) {
    tx.used();
    const due = Math.floor(time * rate);
    while (offered < due && tx.free > 0) {
      tx.add([part]);
      offered++;
    }
    tx.publish();
    feed();
    const start = threadTime();
    rig.datapath.poll();
    time += Math.max(threadTime() - start - CLOCK, MIN_POLL) / 1000;
    if (tx.frames !== polled) {
      polled = tx.frames;
      gaps.push(time - turn);
      turn = time;
    }
    sink.again();
  }
  gaps.sort((a, b) => a - b);
  return { frames: arrived() - before, time, gaps };
}

/** What arrives of `load` (0 to 1) of a worker's capacity beside neighbour `name`. */
export function neighbour(name: string, size: number, load: number, ms: number): NeighbourResult {
  const alone = world(NEIGHBOURS['none']!, size);
  drive(alone, 1000, 20_000);
  const full = drive(alone, 1000, 20_000);
  const rate = (full.frames / full.time) * load;
  const w = world(NEIGHBOURS[name]!, size);
  drive(w, rate, 20_000);
  const { frames, time, gaps } = drive(w, rate, ms * 1000);
  return {
    name,
    size,
    got: frames / (time * rate),
    longest: gaps.at(-1) ?? time,
    usual: gaps[Math.floor(gaps.length * 0.99)] ?? time,
  };
}

/** The innocent port offers so much of what a worker can carry: less than half, its share of two. */
const LOAD = 0.4;

export const neighboursCase: Case = {
  name: 'neighbours',
  about: 'what a hostile port of the same worker costs an innocent one, in process',
  needs: [],
  estimate: (options) =>
    lengths(options).length *
    Object.keys(NEIGHBOURS).length *
    options.rounds *
    (1 + options.seconds * 0.2),
  async run(options, say) {
    const names = Object.keys(NEIGHBOURS);
    const ms = options.seconds * 50;
    const found: { size: number; load: number; runs: NeighbourResult[][] }[] = [];
    for (const size of lengths(options)) {
      say(`${size} B frames beside ${names.length} neighbours`);
      const one = async (name: string) => neighbour(name, size, LOAD, ms);
      found.push({ size, load: LOAD, runs: await inTurn(names, options.rounds, one) });
    }
    return {
      title: 'Hostile neighbours',
      notes: [
        `An innocent port offers ${LOAD * 100} % of a worker's capacity beside one other port that does its ` +
          "worst; one thread, the clock is the worker's CPU time.",
      ],
      tables: found.map(({ size, runs }) => ({
        caption: `${size} B frames of an innocent port`,
        head: ['beside', 'arrives, %', 'a turn every, us (p99)', 'at most, us'],
        rows: runs.map((each, i) => [
          names[i]!,
          (median(each.map((r) => r.got)) * 100).toFixed(1),
          median(each.map((r) => r.usual)).toFixed(1),
          median(each.map((r) => r.longest)).toFixed(1),
        ]),
      })),
      charts: [],
      raw: found,
    };
  },
};

/** An address as the FDB's functions take it: 48 bits, the first byte lowest. */
function address(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}
