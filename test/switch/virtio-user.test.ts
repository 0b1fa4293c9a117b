// A virtio-user port whose back end breaks the rules: it costs that port its connection and one
// sentence; the others go on, and so does the port once a back end is there again.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { DRV_LAST_USED, DRV_SIZE, DRV_USED } from '../../src/abi/driver.ts';
import { PORT_BASE, PORT_LANES, PORT_STRIDE, RING_CALL_FD } from '../../src/abi/layout.ts';
import { KR_DRV, LANE_RX_B } from '../../src/abi/netmap.ts';
import { openSwitch, type Switch, startTraffic, type TrafficPair } from '../../src/api/index.ts';
import { signal } from '../../src/linux/index.ts';
import { ringAddress, ringIndex } from '../../src/memory/control.ts';
import type { PortEvents } from '../../src/types.ts';
import { openFds } from '../linux/fds.ts';
import { removeFolder, temporaryFolder, waitFor } from '../peers/process.ts';

/** What a back end can write into the used ring of our RX queue: element {id, length} and index. */
class UsedRing {
  readonly #lab: Switch;
  readonly #drv: number;

  constructor(lab: Switch, port: number) {
    const { control } = lab;
    const lane = control.get(PORT_BASE + port * PORT_STRIDE + PORT_LANES);
    this.#lab = lab;
    this.#drv = control.get(control.get(lane + LANE_RX_B) + KR_DRV);
  }

  get size(): number {
    return this.#lab.control.get(this.#drv + DRV_SIZE);
  }

  write(elements: readonly (readonly [id: number, length: number])[]): void {
    const { control } = this.#lab;
    const used = control.get(this.#drv + DRV_USED);
    const view = new DataView(control.memory.buffer);
    let at = control.get(this.#drv + DRV_LAST_USED);
    for (const [id, length] of elements) {
      const element = used + 4 + (at % this.size) * 8;
      view.setUint32(element, id, true);
      view.setUint32(element + 4, length, true);
      at = (at + 1) & 0xffff;
    }
    view.setUint16(used + 2, at, true);
  }
}

type Elements = readonly (readonly [number, number])[];
const CASES: [name: string, elements: (ring: UsedRing) => Elements, says: RegExp][] = [
  ['an id beyond the ring', ({ size }) => [[size, 100]], /used a buffer that was never posted/],
  ['a huge id', () => [[0xffff_ffff, 100]], /used a buffer that was never posted/],
  [
    'the same id twice',
    () => [
      [0, 100],
      [0, 100],
    ],
    /or the same one twice/,
  ],
  ['more bytes than the buffer has', () => [[0, 0x10_0000]], /more bytes than the buffer has/],
  ['fewer bytes than a header', () => [[0, 11]], /less than a virtio-net header/],
];

describe('a back end that breaks the rules', () => {
  let folder: string;
  let near: Switch;
  let far: Switch;
  let traffic: TrafficPair;
  let fds: number | undefined;
  const events: [string, PortEvents['port-up']][] = [];
  before(async () => {
    folder = temporaryFolder();
    const path = join(folder, 'link.sock');
    far = await openSwitch({ name: 'far' });
    near = await openSwitch({ name: 'near' });
    await far.addPort({ type: 'vhost-user', path, queues: 1 });
    for (const event of ['quarantined', 'port-up', 'port-down'] as const) {
      near.on(event, (port) => events.push([event, port]));
    }
    // Two others of the same worker.
    traffic = startTraffic(near, { frames: Number.POSITIVE_INFINITY, length: 200 });
    await near.addPort({ type: 'virtio-user', name: 'link', path });
  });
  after(async () => {
    await traffic.stop();
    await near.close();
    await far.close();
    removeFolder(folder);
  });

  const link = () => near.ports().find(({ name }) => name === 'link')!;
  const isUp = () =>
    waitFor(
      () => link().state === 'up',
      5000,
      'the port up',
      () => link().state,
    );

  for (const [name, elements, says] of CASES) {
    it(name, async () => {
      await isUp();
      events.length = 0;
      const [before] = traffic.counts();
      const ring = new UsedRing(near, link().index);
      ring.write(elements(ring));
      // The call that a back end makes: the far end's descriptor of it is one of this process.
      signal(far.control.get(ringAddress(ringIndex(0, 0)) + RING_CALL_FD));
      const told = () => events.find(([event]) => event === 'quarantined');
      await waitFor(() => told() !== undefined, 5000, 'the quarantine');
      assert.match(told()![1].reason!, says);
      await isUp();
      const [now] = traffic.counts();
      assert.ok(now.received > before.received, 'the others went on');
      assert.equal(now.corrupt + now.reordered, 0);
      // The first connection opens what all share.
      fds ??= openFds();
      const flat = () => openFds() === fds;
      await waitFor(flat, 5000, 'no descriptor more', () => `${openFds()} instead of ${fds}`);
    });
  }

  it('a port that is removed leaves nothing behind', async () => {
    await isUp();
    await near.removePort('link');
    assert.equal(near.ports().length, 2);
    await waitFor(() => far.ports()[0]!.state === 'listening', 5000, 'the far end alone');
  });
});

describe('virtio-user ports that cannot be', () => {
  const refused = async (options: object, says: RegExp): Promise<void> => {
    const lab = await openSwitch();
    try {
      await assert.rejects(
        lab.addPort({ type: 'virtio-user', path: '/tmp/x.sock', ...options } as never),
        says,
      );
      assert.deepEqual(lab.ports(), []);
    } finally {
      await lab.close();
    }
  };
  it('nine queue pairs', () => refused({ queues: 9 }, /port x: queues is 9; it must be 1 to 8/));
  it('a path too long', () => refused({ path: `/tmp/${'x'.repeat(120)}` }, /107|1 to 32/));
});
