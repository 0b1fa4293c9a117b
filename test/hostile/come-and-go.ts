// A process of its own whose port is connected to again and again, and what it holds after each kind of
// visit. Run with --expose-gc, and with --max-semi-space-size=1: else V8 takes megabytes of its own at
// moments of its own. Argument: visits of each kind. Prints Visits as JSON.

import * as vu from '../../src/abi/vhost-user.ts';
import { encodeMessage } from '../../src/vhost-user/index.ts';
import { openFds } from '../linux/fds.ts';
import type { FrontEnd } from '../vhost-user/harness.ts';
import { REGION, SocketLab } from './socket-lab.ts';

/** What the process holds. */
export interface Holding {
  fds: number;
  /** Bytes in the window for another guest. */
  free: number;
  /** Bytes resident, and in V8's heap. */
  rss: number;
  heap: number;
}

export interface Visits {
  /** By kind, in order: before its visits and after. */
  kinds: [name: string, before: Holding, after: Holding][];
  notices: number;
  errors: string[];
  /** Whether a front end was served after all of it. */
  served: boolean;
}

const TABLE = encodeMessage(vu.VU_SET_MEM_TABLE, vu.VERSION, 'table', [REGION]);
const OWNER = encodeMessage(vu.VU_SET_OWNER, vu.VERSION, 'none', null);

type Visit = (front: FrontEnd, lab: SocketLab) => void | Promise<void>;

const KINDS: [name: string, visit: Visit][] = [
  ['plain', () => {}],
  [
    'with descriptors that no message wants',
    (front, { event }) => front.raw(OWNER, Array(32).fill(event)),
  ],
  [
    'that end in the middle of a message with descriptors',
    (front, { memory }) => front.raw(TABLE.subarray(0, 20), [memory]),
  ],
  ['with memory and sixteen rings', (front, lab) => lab.start(front, 16)],
];

async function comeAndGo(lab: SocketLab, times: number, visit: Visit): Promise<void> {
  for (let i = 0; i < times; i++) {
    const front = await lab.connect();
    await visit(front, lab);
    front.close();
    // Every other is followed by the next before anybody noticed that it left.
    if (i % 2 === 0) await lab.free();
    else await new Promise(setImmediate);
  }
  await lab.free();
}

function holding(lab: SocketLab): Holding {
  (globalThis as unknown as { gc(): void }).gc();
  const { rss, heapUsed } = process.memoryUsage();
  return { fds: openFds(), free: lab.window.largestFree(), rss, heap: heapUsed };
}

const times = Number(process.argv[2]);
const lab = new SocketLab();
for (const [, visit] of KINDS) await comeAndGo(lab, times / 4, visit);
const kinds: Visits['kinds'] = [];
for (const [name, visit] of KINDS) {
  const before = holding(lab);
  await comeAndGo(lab, times, visit);
  kinds.push([name, before, holding(lab)]);
}
const front = await lab.connect();
await lab.start(front);
const served = lab.device.up;
front.close();
await lab.free();
const { notices, errors } = lab;
const visits: Visits = { kinds, notices: notices.length, errors: errors.map(String), served };
console.log(JSON.stringify(visits));
await lab.close();
