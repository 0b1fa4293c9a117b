// Ports of type virtio-user: the switch as the driver of real back ends. Two wires, each with an application
// at one end and at the other a port of DPDK or OVS, which joins the two: every frame is counted.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { lacksOvs, startOvs } from '../../bench/peers/ovs.ts';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import type { NetmapPort } from '../../src/api/netmap.ts';
import { openFds } from '../linux/fds.ts';
import { removeFolder, requirePeers, temporaryFolder, waitFor } from '../peers/process.ts';
import { Testpmd } from '../peers/testpmd.ts';

/** Frames sent before those that were are waited for; no ring on the way holds fewer. */
const LOT = 64;

interface End {
  lab: Switch;
  app: NetmapPort;
  notices: string[];
}

async function end(path: string, mode: 'client' | 'server', packed: boolean): Promise<End> {
  const lab = await openSwitch({ forwarding: 'wire' });
  const notices: string[] = [];
  lab.on('notice', ({ message }) => notices.push(message));
  const app = lab.addNetmapPort({ name: 'app' });
  await lab.addPort({ type: 'virtio-user', name: 'out', path, mode, packed });
  return { lab, app, notices };
}

const out = ({ lab }: End) => lab.ports().find(({ name }) => name === 'out')!;
const counts = ({ lab }: End) => lab.stats().ports.find(({ port }) => port === 'out')!;

async function up(ends: End[]): Promise<void> {
  await waitFor(
    () => ends.every((each) => out(each).state === 'up'),
    10_000,
    'both ports up',
    () => ends.map((each) => `${out(each).state} ${each.notices.join(' ')}`).join('; '),
  );
}

/** Sends one numbered frame; false while there is no room. */
function send({ app }: End, number: number, length: number): boolean {
  const [ring] = app.tx;
  if (app.txSync(ring!) === 0) return false;
  const i = ring!.head;
  ring!.setLength(i, length);
  const bytes = ring!.bytes(i);
  for (let k = 0; k < length; k++) bytes[k] = (number + k) & 255;
  bytes.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5, number, number >> 8]);
  ring!.head = ring!.cur = ring!.next(i);
  app.txSync(ring!);
  return true;
}

/** The numbers of the frames there are, each of which must be whole. */
function take({ app }: End, length: number): number[] {
  const [ring] = app.rx;
  app.rxSync(ring!);
  const numbers: number[] = [];
  for (let i = ring!.head; i !== ring!.tail; i = ring!.next(i)) {
    const bytes = ring!.bytes(i);
    const number = bytes[14]! | (bytes[15]! << 8);
    assert.equal(bytes.length, length);
    for (let k = 16; k < length; k++) assert.equal(bytes[k], (number + k) & 255, `byte ${k}`);
    numbers.push(number);
    ring!.head = ring!.cur = ring!.next(i);
  }
  app.rxSync(ring!);
  return numbers;
}

/** Each of `frames` arrives once, in order, with all its bytes. */
async function pass(from: End, to: End, length: number, frames: number): Promise<void> {
  const got: number[] = [];
  for (let sent = 0; sent < frames; ) {
    for (let n = 0; n < LOT && sent < frames; n++, sent++) assert.ok(send(from, sent, length));
    const arrived = (): boolean => {
      got.push(...take(to, length));
      return got.length >= sent;
    };
    await waitFor(arrived, 5000, `${sent} frames of ${length}`, () => `${got.length} so far`);
  }
  assert.deepEqual(
    got,
    Array.from({ length: frames }, (_, i) => i),
  );
}

/** Until the other side has taken its new rings into use. */
async function warmUp(ends: readonly [End, End]): Promise<void> {
  for (const [from, to] of [ends, ends.toReversed()]) {
    const passes = () => {
      send(from!, 0, 64);
      return take(to!, 64).length > 0;
    };
    await waitFor(passes, 10_000, 'a first frame');
  }
  await sleep(50);
  for (const each of ends) take(each, 64);
}

async function exchange(ends: readonly [End, End]): Promise<void> {
  for (const length of [64, 1514]) {
    for (const [from, to] of [ends, ends.toReversed()]) await pass(from!, to!, length, 10 * LOT);
  }
  for (const each of ends) assert.deepEqual(counts(each).drops, {});
}

async function flat(body: () => Promise<void>): Promise<void> {
  const before = openFds();
  await body();
  const same = () => openFds() === before;
  await waitFor(same, 5000, 'descriptors closed', () => `${openFds()} instead of ${before}`);
}

describe('virtio-user ports at DPDK, which listens on one and connects to the other', () => {
  let folder: string;
  let testpmd: Testpmd | undefined;
  const start = async (): Promise<Testpmd> => {
    const started = await Testpmd.start({
      name: `vhop-${process.pid}`,
      ports: [{ vhost: join(folder, 'a') }, { vhost: join(folder, 'b'), client: true }],
      memory: 128,
      cpu: 1,
      mainCpu: 1,
    });
    await started.start();
    return started;
  };
  before(async (t) => {
    if (!requirePeers(t as never, ['testpmd'])) return;
    folder = temporaryFolder();
    testpmd = await start();
  });
  after(async () => {
    await testpmd?.quit();
    if (testpmd) removeFolder(folder);
  });

  for (const packed of [false, true]) {
    it(packed ? 'packed rings' : 'split rings', async (t) => {
      if (!testpmd) return t.skip('no testpmd');
      await flat(async () => {
        const ends = [
          await end(join(folder, 'a'), 'client', packed),
          await end(join(folder, 'b'), 'server', packed),
        ] as const;
        try {
          await up([...ends]);
          for (const each of ends) {
            assert.equal(out(each).features.includes('RING_PACKED'), packed);
            assert.equal(out(each).type, 'virtio-user');
          }
          await warmUp(ends);
          await exchange(ends);
          if (packed) return;
          await testpmd!.kill();
          await waitFor(() => out(ends[0]).state === 'connecting', 5000, 'the port down');
          testpmd = await start();
          await up([...ends]);
          await warmUp(ends);
          await pass(ends[0], ends[1], 600, 5 * LOT);
        } finally {
          for (const { app, lab } of ends) {
            await app.close();
            await lab.close();
          }
        }
      });
    });
  }
});

test('virtio-user ports at OVS', async (t) => {
  if (!requirePeers(t, ['testpmd'])) return;
  const lack = lacksOvs();
  if (lack !== undefined) {
    if (process.env.CI) throw new Error(lack);
    t.skip(lack);
    return;
  }
  const folder = temporaryFolder();
  const sockets = [join(folder, 'a'), join(folder, 'b')] as const;
  const ovs = await startOvs({
    ...{ folder, sockets, pmdCpu: 1, mainCpu: 0, hugePages: false },
    clients: [sockets[1]],
  });
  const ends: End[] = [];
  try {
    ends.push(await end(sockets[0], 'client', false), await end(sockets[1], 'server', false));
    await up(ends);
    await warmUp(ends as [End, End]);
    await exchange(ends as [End, End]);
  } finally {
    for (const { app, lab } of ends) {
      await app.close();
      await lab.close();
    }
    await ovs.stop();
    removeFolder(folder);
  }
});
