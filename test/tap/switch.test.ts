// TAP ports on a switch: the host joins the network, with offloads, and its rings can be taken over.

import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openSwitch } from '../../src/api/index.ts';
import type { NetmapError, NetmapPort, NetmapRing } from '../../src/api/netmap.ts';
import { ip, ownNetwork } from '../linux/network.ts';
import { exec, waitFor } from '../peers/process.ts';
import {
  FAR,
  FAR_IP,
  far,
  farErrors,
  kernelCount,
  moveFar,
  oneHost,
  openWorld,
  transfer,
  twoHosts,
  type World,
} from './world.ts';

/** Moves what `rx` holds to `tx`, buffers changing places, as the lane it stands in for does. */
function swap(rx: NetmapRing, tx: NetmapRing): number {
  let moved = 0;
  for (; rx.space > 0 && tx.space > 0; moved++) {
    const [i, k] = [rx.head, tx.head];
    const buffer = tx.buffer(k);
    tx.setBuffer(k, rx.buffer(i));
    rx.setBuffer(i, buffer);
    tx.setLength(k, rx.length(i));
    tx.setOffset(k, rx.offset(i));
    tx.setFlags(k, rx.flags(i));
    rx.head = rx.cur = rx.next(i);
    tx.head = tx.cur = tx.next(k);
  }
  return moved;
}

/** In netmap mode: what the lane did, until `done`. */
async function bridge(port: NetmapPort, done: () => boolean): Promise<number> {
  const pairs = port.rx.length / 2;
  let moved = 0;
  while (!done()) {
    let now = 0;
    for (let i = 0; i < port.rx.length; i++) {
      const other = (i + pairs) % port.rx.length;
      port.rxSync(port.rx[i]!);
      port.txSync(port.tx[other]!);
      now += swap(port.rx[i]!, port.tx[other]!);
      port.txSync(port.tx[other]!);
    }
    moved += now;
    if (now === 0) await sleep(0);
  }
  return moved;
}

const ping = async (count: number): Promise<string> =>
  exec('busybox', ['ping', '-q', '-A', '-w', '20', '-c', `${count}`, FAR_IP]);

describe('TAP ports', () => {
  let world: World | undefined;
  before(async (t) => {
    if (await twoHosts(t as never)) world = await openWorld();
  });
  after(async () => {
    await world?.close();
    if (world) await oneHost();
  });

  const test = (name: string, run: (world: World) => Promise<void>) =>
    it(name, { timeout: 120_000 }, async (t) => {
      if (!world) return t.skip('no namespaces');
      await run(world);
    });

  test('two hosts ping each other, nothing lost', async () => {
    assert.match(await ping(500), /500 packets transmitted, 500 packets received/);
  });

  test('TCP: segments beyond the MTU, no wrong checksum, every byte', async ({ lab }) => {
    const before = lab.stats().ports[0]!;
    await transfer(64 << 20);
    const sent = lab.stats().ports[0]!;
    const size = (sent.txBytes - before.txBytes) / (sent.txFrames - before.txFrames);
    assert.ok(size > 3000, `${Math.round(size)} B a frame on average: not segmented`);
    assert.equal((await farErrors()).checksums, 0);
    for (const { drops } of lab.stats().ports) {
      const { tx_no_receiver: _, ...others } = drops;
      assert.deepEqual(others, {});
    }
  });

  test('an idle TAP costs no polls, and its first frame wakes the worker', async ({ lab }) => {
    await waitFor(
      () => lab.stats().workers[0]!.state === 'sleeping',
      5000,
      'an idle worker asleep',
    );
    const { polls } = lab.stats().workers[0]!;
    await sleep(300);
    assert.ok(lab.stats().workers[0]!.polls - polls < 300, 'polls while nothing moves');
    assert.match(await ping(3), /3 packets received/);
  });

  test('its rings are taken over and given back a hundred times under TCP', async ({ lab }) => {
    let passed = 0;
    let ended = false;
    const traffic = transfer(256 << 20).finally(() => {
      ended = true;
    });
    let cycles = 0;
    for (; cycles < 100; cycles++) {
      const port = lab.openNetmap('near');
      assert.throws(() => lab.openNetmap('near'), { code: 'busy' });
      const until = performance.now() + 5;
      passed += await bridge(port, () => performance.now() > until);
      // No buffer in two slots: the switch gives them back in order, so a slot's is its own throughout.
      const rings = [...port.rx, ...port.tx];
      const held = rings.flatMap((ring) =>
        Array.from({ length: ring.slots }, (_, i) => ring.buffer(i)),
      );
      assert.equal(new Set(held).size, held.length, `cycle ${cycles}`);
      await port.close();
      if (!ended) await sleep(2);
    }
    await traffic;
    assert.ok(passed > 100, `${passed} frames passed in netmap mode`);
    assert.match(await ping(100), /100 packets received/);
    assert.equal((await farErrors()).checksums, 0);
  });

  test('what was delivered to the port is what the kernel got, frame by frame', async ({ lab }) => {
    const near = () => lab.stats().ports.find(({ port }) => port === 'near')!;
    const kernel = await kernelCount('near', 'packets');
    const before = near().rxFrames;
    let ended = false;
    const pings = ping(3000).finally(() => {
      ended = true;
    });
    while (!ended) {
      const port = lab.openNetmap('near');
      const until = performance.now() + 3;
      await bridge(port, () => performance.now() > until);
      await port.close();
      await sleep(1);
    }
    assert.match(await pings, /3000 packets transmitted, 3000 packets received/);
    await sleep(50);
    assert.equal((await kernelCount('near', 'packets')) - kernel, near().rxFrames - before);
  });

  test('a port in netmap mode that is removed says so, and all is given back', async () => {
    const lab = await openSwitch();
    await lab.addPort({ type: 'tap', name: 'gone0' });
    const port = lab.openNetmap('gone0');
    const down = new Promise<NetmapError>((done) => port.on('down', done));
    await lab.removePort('gone0');
    assert.match((await down).message, /port gone0: the port was closed/);
    assert.throws(() => port.rxSync(port.rx[0]!), { code: 'down' });
    await port.close();
    assert.doesNotMatch(await ip('link'), /gone0/);
    await lab.close();
  });

  test('several queues carry several flows', async () => {
    const lab = await openSwitch({ workers: 2 });
    await lab.addPort({ type: 'tap', name: 'many0', queues: 2 });
    await lab.addPort({ type: 'tap', name: 'many1', queues: 2 });
    try {
      assert.deepEqual(
        lab.ports().map(({ queuesEnabled }) => queuesEnabled),
        [2, 2],
      );
      await ip('addr add 10.78.0.1/24 dev many0');
      await moveFar('many1');
      await ip(`-n ${FAR} addr add 10.78.0.2/24 dev many1`);
      const server = far('iperf3', ['-s', '-1']);
      await sleep(300);
      const text = await exec('iperf3', ['-c', '10.78.0.2', '-t', '1', '-P', '8', '-J']);
      const { end } = JSON.parse(text) as { end: { sum_received: { bytes: number } } };
      assert.ok(end.sum_received.bytes > 1e6);
      await server.finish(5000);
      const busy = lab.rings().filter(({ port, direction, usedIdx }) => {
        return port === 'many0' && direction === 'tx' && usedIdx > 0;
      });
      assert.equal(busy.length, 2, 'both queues used');
    } finally {
      await lab.close();
    }
  });
});

describe('TAP ports that cannot be', () => {
  const refused = async (options: object, says: RegExp): Promise<void> => {
    const lab = await openSwitch();
    try {
      await assert.rejects(lab.addPort({ type: 'tap', name: 'x', ...options } as never), says);
      assert.deepEqual(lab.ports(), []);
    } finally {
      await lab.close();
    }
  };
  it('a device that is no TAP', async (t) => {
    if (!(await ownNetwork(t))) return;
    await refused({ device: 'lo' }, /TAP lo: there is a device of that name that is no TAP/);
  });
  it('nine queues', () => refused({ queues: 9 }, /port x: queues is 9; it must be 1 to 8/));
  it('a vhost-user port has no rings to take over', async () => {
    const lab = await openSwitch();
    await lab.addPort({ type: 'memory', name: 'm' });
    assert.throws(() => lab.openNetmap('m'), {
      code: 'name',
      message: /only tap and virtio-user ports have rings to take over/,
    });
    await lab.close();
  });
});
