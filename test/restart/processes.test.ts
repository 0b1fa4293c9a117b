// Another vhop is killed under load, time and again: as the driver of our ports, as their back end, and as
// a guest. Our other ports never notice, and its ports are up again once it is; both sides listen, both
// start first. (DPDK as the killed one: test/dpdk/restart, frontend, virtio-user; QEMU: test/qemu/client, life.)

import assert from 'node:assert/strict';
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import test from 'node:test';
import { openSwitch, type Switch, startTraffic } from '../../src/api/index.ts';
import type { NetmapPort } from '../../src/api/netmap.ts';
import type { PortInfo, PortOptions } from '../../src/types.ts';
import { openFds } from '../linux/fds.ts';
import { Child, removeFolder, root, temporaryFolder, waitFor } from '../peers/process.ts';

const KILLS = process.env['VHOP_LONG'] ? 100 : 2;
const NAMES = ['a', 'b'] as const;

/** The switch of this process, two guests that exchange frames on it all the time, and a third who floods. */
class Here {
  readonly folder = temporaryFolder();
  readonly lab: Switch;
  readonly #traffic;
  readonly #app: NetmapPort;
  #received = 0;

  constructor(lab: Switch) {
    this.lab = lab;
    lab.on('quarantined', ({ name, reason }) => assert.fail(`${name}: ${reason}`));
    this.#traffic = startTraffic(lab, {
      frames: Number.POSITIVE_INFINITY,
      length: 200,
      window: 4,
      eager: true,
    });
    this.#app = lab.addNetmapPort({ name: 'app' });
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  port(name: string): PortInfo {
    return this.lab.ports().find((port) => port.name === name)!;
  }

  stats(name: string) {
    return this.lab.stats().ports.find(({ port }) => port === name)!;
  }

  /** Sends a broadcast. */
  flood(): void {
    const [ring] = this.#app.tx;
    if (this.#app.txSync(ring!) === 0) return;
    const i = ring!.head;
    ring!.setLength(i, 600);
    ring!.bytes(i).set([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 2, 0x88, 0xb6]);
    ring!.head = ring!.cur = ring!.next(i);
    this.#app.txSync(ring!);
  }

  async states(state: PortInfo['state'], ...names: string[]): Promise<void> {
    const there = () => names.every((name) => this.port(name).state === state);
    const seen = () => JSON.stringify(this.lab.ports(), undefined, 1);
    await waitFor(there, 10_000, `${names} ${state}`, seen);
  }

  /** The two guests went on since this was last asked, and every byte was right. */
  async othersGoOn(): Promise<void> {
    const received = () => this.#traffic.counts().reduce((sum, each) => sum + each.received, 0);
    await waitFor(() => received() > this.#received, 1000, 'frames of the others');
    this.#received = received();
    for (const { corrupt, reordered } of this.#traffic.counts()) {
      assert.deepEqual([corrupt, reordered], [0, 0]);
    }
  }

  async close(): Promise<void> {
    await this.#traffic.stop();
    await this.#app.close();
    await this.lab.close();
    removeFolder(this.folder);
  }
}

function here(name: string, body: (lab: Here, say: (text: string) => void) => Promise<void>): void {
  test(name, { timeout: 30_000 + KILLS * 5000 }, async (t) => {
    const lab = new Here(await openSwitch());
    try {
      await body(lab, (text) => t.diagnostic(text));
    } finally {
      await lab.close();
    }
  });
}

for (const mode of ['server', 'client'] as const) {
  for (const killed of ['driver', 'back end'] as const) {
    here(`the ${killed} of our ports is killed, mode ${mode}`, async (lab, say) => {
      const theirs = killed === 'driver' ? 'virtio-user:' : '';
      const places = NAMES.map((name) =>
        [theirs, mode === 'server' ? 'client:' : 'server:', lab.path(name)].join(''),
      );
      const args = ['switch', ...places, '--control', lab.path('control'), '--state', 'none'];
      const start = () => new Child(join(root, 'bin/vhop'), args);
      const open = async () => {
        for (const name of NAMES) {
          const common = { name, mode, path: lab.path(name), queues: 1 };
          const port: PortOptions =
            killed === 'driver'
              ? { type: 'vhost-user', ...common }
              : { type: 'virtio-user', ...common, packed: name === 'b' };
          await lab.lab.addPort(port);
        }
      };
      const idle = mode === 'server' ? 'listening' : 'connecting';
      await open();
      assert.equal(lab.port('a').state, idle);
      let child = start();
      const gaps: number[] = [];
      try {
        let fds: number | undefined;
        for (let kill = 0; ; kill++) {
          await lab.states('up', ...NAMES);
          // What we flood comes back on the other port, and is flooded again: it circles at full load.
          const before = NAMES.map((name) => lab.stats(name).txFrames);
          const circles = () => {
            lab.flood();
            return NAMES.every((name, i) => lab.stats(name).txFrames > before[i]! + 2000);
          };
          await waitFor(circles, 5000, `frames circle after kill ${kill}`, () => child.tail());
          fds ??= openFds();
          assert.equal(openFds(), fds, `descriptors after kill ${kill}`);
          for (const name of NAMES) {
            const { lost, down } = lab.port(name).history;
            assert.equal(lost, kill);
            if (kill > 0) gaps.push(down!.gap!);
          }
          if (kill === KILLS) break;
          child.kill();
          await child.exited;
          await lab.states(idle, ...NAMES);
          for (const name of NAMES) {
            assert.equal(lab.port(name).history.down!.cause, 'lost');
            if (killed === 'driver') assert.equal(lab.port(name).memory, 0);
          }
          await lab.othersGoOn();
          child = start();
        }
        // And with the other one there first.
        for (const name of NAMES) await lab.lab.removePort(name);
        await open();
        await lab.states('up', ...NAMES);
        await lab.othersGoOn();
        say(`links down for ${gaps.slice(0, 12).map((ms) => ms.toFixed(0))} ms`);
      } finally {
        child.kill();
        await child.exited;
      }
    });
  }
}

here('the process of a guest is killed', async (lab) => {
  await lab.lab.addPort({ type: 'vhost-user', name: 'a', path: lab.path('a'), queues: 1 });
  let fds: number | undefined;
  for (let kill = 1; kill <= KILLS; kill++) {
    const before = lab.stats('a').txFrames;
    const args = ['pkt-gen', '-i', `vhop:${lab.path('a')}`, '-f', 'tx'];
    const guest = new Child(join(root, 'bin/vhop'), args);
    try {
      const sends = () => lab.stats('a').txFrames > before + 10_000;
      await waitFor(sends, 10_000, 'frames of the guest', () => guest.tail());
    } finally {
      guest.kill();
      await guest.exited;
    }
    await lab.states('listening', 'a');
    const { memory, history } = lab.port('a');
    assert.deepEqual([memory, history.lost], [0, kill]);
    assert.deepEqual(
      lab.lab.fdb().filter(({ port }) => port === 'a'),
      [],
    );
    fds ??= openFds();
    assert.equal(openFds(), fds);
    await lab.othersGoOn();
  }
});

here('a socket file is removed while its guest is connected', async (lab) => {
  const path = lab.path('a');
  const notices: string[] = [];
  lab.lab.on('notice', ({ message }) => notices.push(message));
  await lab.lab.addPort({ type: 'vhost-user', name: 'a', path, queues: 1 });
  const args = ['switch', `virtio-user:${path}`, lab.path('x'), '--control', lab.path('control')];
  const start = () => new Child(join(root, 'bin/vhop'), [...args, '--state', 'none']);
  let guest = start();
  try {
    await lab.states('up', 'a');
    rmSync(path);
    await waitFor(() => existsSync(path), 3000, 'a new file');
    assert.deepEqual(notices, [`the socket file ${path} was removed: there is a new one`]);
    assert.equal(lab.port('a').history.down, undefined, 'its guest did not notice');
    guest.kill();
    await guest.exited;
    guest = start();
    await waitFor(() => lab.port('a').history.connections === 2, 10_000, 'the next guest');
    await lab.states('up', 'a');
  } finally {
    guest.kill();
    await guest.exited;
  }
});
