// More than a worker can carry: what arrives when senders offer up to eight times that, and what a receiver
// that takes a tenth of its share costs the others. In process, one thread, on the worker's CPU time, as
// neighbours.ts does it.
// Run: npm run bench -- --cases overload

import { frame, mac } from '../test/datapath/frames.ts';
import type { Part, TestQueue } from '../test/datapath/queue.ts';
import { Rig } from '../test/datapath/rig.ts';
import { type Case, inTurn, lengths, median } from './case.ts';
import { clockCost, threadTime } from './cpu-clock.ts';

const SENDERS = 4;
const RING = 1024;
const CLOCK = clockCost();
/** Nanoseconds of a poll that finds nothing. */
const MIN_POLL = 20;
/** Offered, in parts of what the worker carries. */
const LOADS = [0.5, 0.9, 1, 2, 4, 8];
/** Of what a receiver would get, what the slow one posts buffers for. */
const SLOW = 0.1;

/** A sender, and the receiver that all its frames go to. */
interface Flow {
  tx: TestQueue;
  rx: TestQueue;
  part: Part;
  buffers: Part[];
  /** Buffers that the receiver may post, in all; it posts those that come back. */
  offered: number;
  posted: number;
}

interface Result {
  /** Frames delivered, flow by flow, and microseconds of the worker's time. */
  frames: number[];
  time: number;
}

function world(size: number): { rig: Rig; flows: Flow[] } {
  const rig = new Rig();
  rig.now = () => threadTime() / 1e6;
  const flows = Array.from({ length: SENDERS }, (_, i): Flow => {
    const [from, to] = [rig.port(), rig.port()];
    const [own, other] = [mac(2 * i + 1), mac(2 * i + 2)];
    const bytes = frame({ from: own, to: other, length: size });
    const at = from.alloc(from.headerLength + size, 64);
    rig.bytes.set(bytes, at + from.headerLength);
    const buffer = to.alloc(2048, 64);
    const key = other.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
    rig.datapath.fdbLearn(key, to.index);
    return {
      tx: from.queue(1, { size: RING }),
      rx: to.queue(0, { size: RING }),
      part: { addr: from.gpa(at), len: from.headerLength + size },
      buffers: [{ addr: to.gpa(buffer), len: 2048, write: true }],
      offered: 0,
      posted: 0,
    };
  });
  return { rig, flows };
}

/** Each flow offers `rate` frames a microsecond; receiver i posts `posts[i]` buffers a microsecond. */
function drive(
  { rig, flows }: ReturnType<typeof world>,
  rate: number,
  posts: readonly number[],
  us: number,
): Result {
  const arrived = () => flows.map(({ rx, tx }) => tx.frames - rx.dropped);
  const before = arrived();
  for (const flow of flows) {
    flow.offered = 0;
    flow.posted = 0;
  }
  let time = 0;
  while (time < us) {
    for (const [i, flow] of flows.entries()) {
      const { tx, rx, part, buffers } = flow;
      tx.used();
      for (const due = time * rate; flow.offered < due && tx.free > 0; flow.offered++)
        tx.add([part]);
      tx.publish();
      rx.used();
      const most = RING + time * posts[i]!;
      for (; flow.posted < most && rx.free > 0; flow.posted++) rx.add(buffers);
      rx.publish();
    }
    const start = threadTime();
    rig.datapath.poll();
    time += Math.max(threadTime() - start - CLOCK, MIN_POLL) / 1000;
  }
  return { frames: arrived().map((frames, i) => frames - before[i]!), time };
}

const ALL = Array.from({ length: SENDERS }, () => Number.POSITIVE_INFINITY);
const total = ({ frames, time }: Result) => frames.reduce((sum, n) => sum + n, 0) / time;

interface Found {
  /** By load: what arrives of what the worker carries, and the least and the most that a flow gets of its share. */
  loads: { goodput: number; least: number; most: number }[];
  /** What the others get beside a slow receiver, of what they get without one. */
  others: number;
}

function measure(size: number, ms: number): Found {
  const us = ms * 1000;
  const w = world(size);
  drive(w, 1000, ALL, 20_000);
  const peak = total(drive(w, 1000, ALL, us));
  const loads = LOADS.map((load) => {
    const result = drive(w, (peak * load) / SENDERS, ALL, us);
    const share = (total(result) * result.time) / SENDERS;
    return {
      goodput: total(result) / peak,
      least: Math.min(...result.frames) / share,
      most: Math.max(...result.frames) / share,
    };
  });
  // All offer their share of what the worker carries, one receiver takes a tenth of its.
  const rate = (peak / SENDERS) * 0.95;
  const share = (result: Result) =>
    result.frames.slice(1).reduce((sum, n) => sum + n, 0) / result.time;
  const without = share(drive(w, rate, ALL, us));
  const beside = share(drive(w, rate, [rate * SLOW, ...ALL.slice(1)], us));
  return { loads, others: beside / without };
}

export const overloadCase: Case = {
  name: 'overload',
  about: 'what arrives when more is offered than a worker carries; a slow receiver, in process',
  needs: [],
  estimate: (options) => lengths(options).length * options.rounds * (2 + options.seconds),
  async run(options, say) {
    const sizes = lengths(options);
    say(`${SENDERS} senders, each to a receiver of its own`);
    const runs = await inTurn(sizes, options.rounds, async (size) =>
      measure(size, options.seconds * 100),
    );
    const percent = (values: number[]) => (median(values) * 100).toFixed(1);
    return {
      title: 'Overload',
      notes: [
        `${SENDERS} senders, each to a receiver of its own, offer parts of what one worker carries; on its ` +
          'CPU time, one thread. A sender whose ring is full waits, as a guest does.',
        `Slow receiver: one posts buffers for ${SLOW * 100} % of its frames, all senders offer 95 % of their ` +
          'share; the others, of what they get where nobody is slow.',
      ],
      tables: [
        {
          caption:
            'Arrives, % of what the worker carries (least and most of a flow, % of its share)',
          head: ['frames', ...LOADS.map((load) => `${load} x offered`), 'beside a slow receiver'],
          rows: sizes.map((size, i) => [
            `${size} B`,
            ...LOADS.map((_, k) => {
              const of = (key: 'goodput' | 'least' | 'most') =>
                percent(runs[i]!.map(({ loads }) => loads[k]![key]));
              return `${of('goodput')} (${of('least')}-${of('most')})`;
            }),
            percent(runs[i]!.map(({ others }) => others)),
          ]),
        },
      ],
      charts: [],
      raw: runs,
    };
  },
};
