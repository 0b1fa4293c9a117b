// Front ends that come and go without end: nothing of them stays.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import * as vu from '../../src/abi/vhost-user.ts';
import { encodeMessage } from '../../src/vhost-user/index.ts';
import { openFds } from '../linux/fds.ts';
import { LONG } from '../stress/stress.ts';
import type { FrontEnd } from '../vhost-user/harness.ts';
import { growHeap, REGION, resident, SocketLab } from './socket-lab.ts';

/** Each is made so often, after a tenth of that to warm up. */
const CONNECTS = LONG ? 25_000 : 1_250;
/** Growth of resident memory that is not a leak. */
const RSS = LONG ? 0.01 : 0.05;
/** Bytes that one connection may leave in the heap: noise over the number of them. */
const HEAP = 400;

const TABLE = encodeMessage(vu.VU_SET_MEM_TABLE, vu.VERSION, 'table', [REGION]);
const OWNER = encodeMessage(vu.VU_SET_OWNER, vu.VERSION, 'none', null);

const KINDS: [name: string, act: (front: FrontEnd, lab: SocketLab) => void | Promise<void>][] = [
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

describe('connections', { timeout: LONG ? 7_200_000 : 120_000 }, () => {
  let lab: SocketLab;
  before(() => {
    growHeap();
    lab = new SocketLab();
  });
  after(() => lab.close());

  async function comeAndGo(times: number, act: (typeof KINDS)[number][1]): Promise<void> {
    for (let i = 0; i < times; i++) {
      const front = await lab.connect();
      await act(front, lab);
      front.close();
      // Every other is followed by the next before anybody noticed that it left.
      if (i % 2 === 0) await lab.free();
      else await new Promise(setImmediate);
    }
    await lab.free();
  }

  for (const [name, act] of KINDS) {
    it(`class 1: ${CONNECTS} of them ${name} leave no descriptor, no memory, no mapping`, async (t) => {
      const whole = lab.window.largestFree();
      await comeAndGo(CONNECTS / 4, act);
      const fds = openFds();
      const first = resident();
      await comeAndGo(CONNECTS, act);
      const last = resident();
      const grown = last.rss / first.rss - 1;
      const each = (last.heap - first.heap) / CONNECTS;
      t.diagnostic(
        `fds ${openFds() - fds}, RSS ${(grown * 100).toFixed(2)} % of ${first.rss >> 20} MiB, ` +
          `heap ${each.toFixed(0)} bytes each`,
      );
      assert.equal(openFds(), fds);
      assert.equal(lab.window.largestFree(), whole);
      assert.ok(each < HEAP, `each left ${each.toFixed(0)} bytes in the heap`);
      assert.ok(grown < RSS, `resident memory grew by ${(grown * 100).toFixed(1)} %`);
      assert.deepEqual(lab.errors, []);
    });
  }

  it('class 1: the port still serves, and its log is short', async () => {
    const front = await lab.connect();
    await lab.start(front);
    assert.equal(lab.device.up, true);
    front.close();
    await lab.free();
    assert.ok(lab.notices.length < 60, `${lab.notices.length} notices`);
  });
});
