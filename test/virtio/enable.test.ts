// Rings enabled and disabled while traffic flows.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { PORT_RX_LIST, PORT_RX_PAIRS, RING_DISCARD } from '../../src/abi/layout.ts';
import { concat, frame, header, mac } from '../datapath/frames.ts';
import { a, BYTES, b, bench, block, pass } from './pair.ts';

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

  it('a ring disabled a second time waits again before it discards', (t) => {
    t.mock.timers.enable({ apis: ['setTimeout'] });
    a.open();
    a.device.setVringEnable(1, false);
    t.mock.timers.tick(500);
    a.device.setVringEnable(1, true);
    a.device.setVringEnable(1, false);
    a.post(1, BYTES.length, false, BYTES);
    bench.settle();
    assert.equal(a.usedIdx(1), 0);
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
