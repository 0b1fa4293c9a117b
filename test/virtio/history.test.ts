// What a device remembers of its link: who came, who was lost, how long it was down.

import assert from 'node:assert/strict';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { BROKEN_HEAD, RING_BROKEN, RING_REASON, RING_STATE } from '../../src/abi/layout.ts';
import { F_LOG_ALL } from '../../src/abi/virtio.ts';
import { bit } from '../../src/virtio/features.ts';
import { PLAIN } from './bench.ts';
import { a, events } from './pair.ts';

const PAUSE = 20;
const history = () => a.device.history.read();

/** Milliseconds, as far as a timer and a busy machine let one say. */
function about(ms: number | undefined, least: number): void {
  assert.ok(ms !== undefined && ms >= least - 2 && ms < least + 5000, `${ms} ms`);
}

it('a port nobody came to has none', () => {
  const { since, ...rest } = history();
  assert.ok(Math.abs(Date.now() - since) < 5000);
  assert.deepEqual(rest, { connections: 0, lost: 0, restarts: 0 });
});

it('a lost connection is told with its reason, and then with the gap', async () => {
  a.open();
  a.device.disconnected('the peer closed the connection');
  const lost = { cause: 'lost', reason: 'the peer closed the connection' } as const;
  assert.deepEqual(history().down, lost);
  await sleep(PAUSE);
  a.open();
  const { down, connections, lost: times, since } = history();
  assert.deepEqual([connections, times], [2, 1]);
  const { gap, ...how } = down!;
  assert.deepEqual(how, lost);
  about(gap, PAUSE);
  assert.ok(Date.now() - since < 5000);
});

it('a guest that stops its rings first is not lost', async () => {
  a.open();
  for (const { queue } of a.device.rings) a.device.getVringBase(queue);
  const stopped = Date.now();
  await sleep(PAUSE);
  a.device.disconnected('the peer closed the connection');
  const { down, lost, since } = history();
  assert.deepEqual([down, lost], [{ cause: 'stopped' }, 0]);
  assert.ok(since >= stopped + PAUSE - 2, 'the state has changed since');
});

it('a guest that stops and starts again is up again after so long', async () => {
  a.open();
  const bases = a.device.rings.map(({ queue }) => a.device.getVringBase(queue));
  await sleep(PAUSE);
  for (const [queue, base] of bases.entries()) a.start(queue, base);
  const { down, connections } = history();
  assert.equal(connections, 1);
  assert.equal(down!.cause, 'stopped');
  about(down!.gap, PAUSE);
});

it('a front end that is cut off, and rings that break, are quarantined', () => {
  a.open();
  a.device.fault = 'its memory went away';
  a.device.disconnected('its memory went away');
  assert.deepEqual(history().down, { cause: 'quarantined', reason: 'its memory went away' });
  a.open();
  for (const ring of a.device.rings) {
    ring.set(RING_REASON, BROKEN_HEAD);
    ring.set(RING_STATE, RING_BROKEN);
  }
  a.device.takeBroken();
  const { down, lost } = history();
  assert.equal(down!.cause, 'quarantined');
  assert.match(down!.reason!, /^ring 0: /);
  assert.equal(lost, 0);
});

it('a memory table that changes under running rings is no news', () => {
  a.open();
  a.device.setMemTable([a.region()]);
  assert.equal(history().down, undefined);
});

it('a switch that took the port up says when its link was up first, and only then', async () => {
  const opened = performance.now();
  a.device.history.restarted(3, opened);
  await sleep(PAUSE);
  a.open();
  const { restarts, resumed } = history();
  assert.equal(restarts, 3);
  about(resumed, PAUSE);
  a.device.disconnected('the peer closed the connection');
  await sleep(PAUSE);
  a.open();
  assert.equal(history().resumed, resumed);
});

it('logging is told when it goes on, off, or away with its front end', () => {
  const told = () => events.filter((event) => event.startsWith('logging'));
  a.device.setFeatures(PLAIN | bit(F_LOG_ALL));
  a.device.setFeatures(PLAIN | bit(F_LOG_ALL));
  assert.deepEqual(told(), ['logging true']);
  a.device.setFeatures(PLAIN);
  assert.deepEqual(told(), ['logging true', 'logging false']);
  a.device.setFeatures(PLAIN | bit(F_LOG_ALL));
  a.device.disconnected('the peer closed the connection');
  assert.deepEqual(told().slice(2), ['logging true', 'logging false']);
});
