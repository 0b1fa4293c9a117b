// What paging costs: the same frames between two guests that are mapped whole, that are paged with all
// they use resident, and that use more pages than there are slots. In process, one thread; only
// poll() is timed, guests write and read through their files. Run: npm run bench -- --cases paging

import { WORKER_BASE, WORKER_EVICTIONS, WORKER_PAGES_IN } from '../src/abi/layout.ts';
import { eventfd } from '../src/linux/index.ts';
import { concat, frame, header, mac } from '../test/datapath/frames.ts';
import { GIB, type Piece, SparseGuest } from '../test/paging/guest.ts';
import { DeviceBench, PLAIN } from '../test/virtio/bench.ts';
import { type Case, inTurn, lengths, median } from './case.ts';

const BURST = 64;
const HEADER = 12;

export interface PagingResult {
  name: string;
  size: number;
  /** Nanoseconds of poll() a frame: the median of bursts of 64. */
  ns: number;
  pagesIn: number;
  evictions: number;
  frames: number;
  /** Nanoseconds a page took to map. */
  nsPerPage: number;
  /** Frames lost for want of a slot. */
  lost: number;
}

const WAYS = [
  { name: 'whole', pages: 100, size: GIB, window: {} },
  { name: 'paged, resident', pages: 100, size: GIB, window: { whole: 0 } },
  { name: 'paged, working set over the slots', pages: 1000, size: 4 * GIB, window: { whole: 0 } },
] as const;

/** Runs way number `which` with frames of `size` bytes for `seconds`. */
export function paging(which: number, size: number, seconds: number): PagingResult {
  const { name, pages, size: memory, window } = WAYS[which]!;
  let pagingNs = 0;
  const bench = new DeviceBench(window, (ns) => {
    pagingNs += ns;
  });
  const [from, to] = [1, 2].map((seed) => {
    const guest = new SparseGuest({ size: memory, pages, seed, ringSize: 512, edges: false });
    const { device } = bench.device();
    device.setFeatures(PLAIN);
    device.setMemTable(guest.regions());
    const queues = [guest.queue(0), guest.queue(1)] as const;
    for (const [index, queue] of queues.entries()) {
      device.setVringNum(index, guest.ringSize);
      device.setVringBase(index, 0);
      device.setVringAddr(index, queue.address());
      device.setVringCall(index, eventfd());
      device.setVringKick(index, eventfd());
      device.setVringEnable(index, true);
    }
    return { guest, device, rx: queues[0], tx: queues[1] };
  });
  const { guest: sender, tx } = from!;
  const { guest: receiver, rx } = to!;
  // Heard once, so that frames find it.
  const bytes = concat(header(), frame({ from: mac(1), to: mac(2), length: size }));
  bench.datapath.fdbLearn(macBits(mac(2)), 1);
  const counter = (field: number) => bench.control.counter(WORKER_BASE + field);

  let [frames, received, sent] = [0, 0, 0];
  const costs: number[] = [];
  const giveBack = (guest: SparseGuest, pieces: Piece[]) => {
    for (const piece of pieces) guest.give(piece);
  };
  const round = (): void => {
    while (rx.free > 0) rx.add([receiver.take(2048)], true);
    rx.publish();
    for (let i = 0; i < BURST; i++) {
      const piece = sender.take(HEADER + size);
      sender.write(piece.offset, bytes);
      tx.add([piece], false);
    }
    tx.publish();
    sent += BURST;
    const start = performance.now();
    for (let left = BURST; left > 0; ) left -= bench.datapath.poll();
    costs.push(((performance.now() - start) * 1e6) / BURST);
    frames += BURST;
    for (const { pieces } of tx.used()) giveBack(sender, pieces);
    for (const { pieces } of rx.used()) {
      giveBack(receiver, pieces);
      received++;
    }
  };
  const until = (ms: number) => {
    for (const end = performance.now() + ms; performance.now() < end; ) round();
  };
  until(500);
  const before = { pagesIn: counter(WORKER_PAGES_IN), evictions: counter(WORKER_EVICTIONS) };
  [frames, received, sent, pagingNs] = [0, 0, 0, 0];
  costs.length = 0;
  until(seconds * 1000);
  const pagesIn = counter(WORKER_PAGES_IN) - before.pagesIn;
  for (const { device, guest } of [from!, to!]) {
    device.disconnected('done');
    guest.close();
  }
  return {
    name,
    size,
    ns: costs.sort((a, b) => a - b)[costs.length >> 1]!,
    pagesIn,
    evictions: counter(WORKER_EVICTIONS) - before.evictions,
    frames,
    nsPerPage: pagesIn > 0 ? pagingNs / pagesIn : 0,
    lost: sent - received,
  };
}

/** An address as the FDB's functions take it: 48 bits, the first byte lowest. */
function macBits(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}

export const pagingCase: Case = {
  name: 'paging',
  about: 'what guests that do not fit into the window pay, in process',
  needs: [],
  estimate: (options) =>
    lengths(options).length * WAYS.length * options.rounds * (options.seconds + 1.5),
  async run(options, say) {
    const found: { size: number; runs: PagingResult[][] }[] = [];
    for (const size of lengths(options)) {
      say(`${size} B frames`);
      const way = async (which: number) => paging(which, size, options.seconds);
      found.push({ size, runs: await inTurn([...WAYS.keys()], options.rounds, way) });
    }
    return {
      title: 'Guests that do not fit',
      notes: ['Two guests in process, one thread, only poll() is timed.'],
      tables: [
        {
          caption: 'Frames between two guests, mapped whole or page by page',
          head: [
            'frames',
            'guests',
            'ns a frame',
            'against whole',
            'pages a frame',
            'ns a page',
            'lost',
          ],
          rows: found.flatMap(({ size, runs }) => pagingRows(size, runs)),
        },
      ],
      charts: [
        {
          title: 'Cost of a frame between two guests',
          unit: 'ns in poll()',
          bars: found.flatMap(({ size, runs }) =>
            WAYS.map(({ name }, i) => ({
              group: `${size} B`,
              name,
              value: median(runs[i]!.map((r) => r.ns)),
            })),
          ),
        },
      ],
      raw: found,
    };
  },
};

function pagingRows(size: number, all: readonly PagingResult[][]): string[][] {
  return all.map((runs, i) => {
    const middle = (field: (r: PagingResult) => number, digits: number) =>
      median(runs.map(field)).toFixed(digits);
    const ratio = median(runs.map((r, k) => r.ns / all[0]![k]!.ns));
    return [
      ...[`${size} B`, WAYS[i]!.name, middle((r) => r.ns, 1), ratio.toFixed(2)],
      ...[middle((r) => r.pagesIn / r.frames, 3), middle((r) => r.nsPerPage, 0)],
      middle((r) => r.lost, 0),
    ];
  });
}
