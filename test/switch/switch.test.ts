// The switch as its user sees it: ports come and go, nothing stays behind.

import assert from 'node:assert/strict';
import { readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, before, beforeEach, describe, it } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import { PORT_BASE, PORT_PEER, PORT_STRIDE } from '../../src/abi/layout.ts';
import { F_IN_ORDER, F_RING_PACKED, F_VERSION_1 } from '../../src/abi/virtio.ts';
import { openSwitch, type Switch } from '../../src/switch/switch.ts';
import { bit } from '../../src/virtio/features.ts';
import { openFds } from '../linux/fds.ts';

const directory = tmpdir();
let lab: Switch;
let fds = 0;
let threads = 0;

function threadCount(): number {
  return readdirSync('/proc/self/task').length;
}

function path(name: string): string {
  return join(directory, `vhop-test-${process.pid}-${name}.sock`);
}

// libuv's pool starts with the first loop and stays: it is not the switch's to end.
before(async () => (await openSwitch()).close());

beforeEach(async () => {
  fds = openFds();
  threads = threadCount();
  lab = await openSwitch();
  // A thread that starts opens descriptors of its own.
  while (lab.stats().workers.some(({ polls }) => polls === 0)) await setTimeout(1);
});

afterEach(async () => {
  await lab.close();
  assert.equal(openFds(), fds, 'descriptors left open');
  assert.ok(threadCount() <= threads, 'threads left running');
  for (const file of readdirSync(directory)) {
    assert.ok(!file.startsWith(`vhop-test-${process.pid}`), `${file} left behind`);
  }
});

function peer(index: number): number {
  return lab.control.get(PORT_BASE + index * PORT_STRIDE + PORT_PEER) | 0;
}

describe('ports', () => {
  it('are listed with what was asked for', async () => {
    await lab.addPort({ type: 'memory', name: 'a', queues: 2, mtu: 1500, ringSize: 64 });
    const info = await lab.addPort({
      type: 'vhost-user',
      path: path('b'),
      mac: '02:00:00:00:00:09',
    });
    assert.equal(info.state, 'listening');
    const [a, b] = lab.ports();
    assert.equal(a?.name, 'a');
    assert.equal(a?.state, 'up');
    assert.equal(a?.mtu, 1500);
    assert.equal(a?.queuesEnabled, 2);
    assert.equal(b?.mac, '02:00:00:00:00:09');
    assert.equal(b?.queues, 8);
    assert.equal(lab.rings().length, 4 + 16);
    assert.ok(lab.rings().every(({ port, size }) => port !== 'a' || size === 64));
  });

  it('are named after their socket', async () => {
    const info = await lab.addPort({ type: 'vhost-user', path: path('web.1') });
    assert.equal(info.name, `vhop-test-${process.pid}-web.1`);
  });

  it('with a name taken, or none that can be, are refused', async () => {
    await lab.addPort({ type: 'memory', name: 'a' });
    await assert.rejects(lab.addPort({ type: 'memory', name: 'a' }), /port a exists already/);
    for (const name of ['', 'a b', 'x'.repeat(33), 'a/b', 'ä']) {
      await assert.rejects(lab.addPort({ type: 'memory', name }), RangeError);
    }
  });

  for (const [what, options] of [
    ['queues 0', { queues: 0 }],
    ['queues 9', { queues: 9 }],
    ['queues 1.5', { queues: 1.5 }],
    ['mtu 67', { mtu: 67 }],
    ['mtu 65536', { mtu: 65536 }],
    ['a group address', { mac: '01:00:00:00:00:01' }],
    ['five bytes of address', { mac: '02:00:00:00:01' }],
    ['ring size 100', { ringSize: 100 }],
    ['ring size 4', { ringSize: 4 }],
    ['ring size 65536', { ringSize: 65536 }],
  ] as const) {
    it(`with ${what} are refused, and leave no trace`, async () => {
      await assert.rejects(lab.addPort({ type: 'memory', name: 'a', ...options }), RangeError);
      assert.deepEqual(lab.ports(), []);
      await lab.addPort({ type: 'memory', name: 'a' });
    });
  }

  for (const [what, options] of [
    ['a client', { mode: 'client', socket: { mode: 0o600 } }],
    ['mode 0o1000', { socket: { mode: 0o1000 } }],
    ['mode -1', { socket: { mode: -1 } }],
    ['an empty owner', { socket: { owner: '' } }],
    ['group 2^32-1', { socket: { group: 0xffff_ffff } }],
  ] as const) {
    it(`with a socket of ${what} are refused`, async () => {
      const port = { type: 'vhost-user', path: path('s'), ...options } as const;
      await assert.rejects(lab.addPort(port), { name: 'RangeError', message: /: socket/ });
    });
  }

  it('with packed rings may have any ring size from 2 to 32768', async () => {
    const features = bit(F_VERSION_1) | bit(F_RING_PACKED);
    for (const ringSize of [2, 3, 1000, 32768]) {
      const port = lab.addMemoryPort({ type: 'memory', name: `r${ringSize}`, ringSize, features });
      assert.deepEqual(port.info().features, ['VERSION_1', 'RING_PACKED']);
    }
    assert.deepEqual([...new Set(lab.rings().map(({ size }) => size))], [2, 3, 1000, 32768]);
    for (const ringSize of [1, 32769, 2.5]) {
      assert.throws(
        () => lab.addMemoryPort({ type: 'memory', name: 'no', ringSize, features }),
        /port no: ringSize is .* 2 to 32768/,
      );
    }
  });

  it('have split rings unless asked', () => {
    const { device } = lab.addMemoryPort({ type: 'memory', name: 'a' });
    assert.equal(device.features & (bit(F_RING_PACKED) | bit(F_IN_ORDER)), 0n);
    assert.notEqual(device.offeredFeatures & bit(F_RING_PACKED), 0n);
  });

  it('whose socket cannot be had are refused, and free their index', async () => {
    await assert.rejects(lab.addPort({ type: 'vhost-user', name: 'a', path: '/nowhere/at/all' }));
    assert.deepEqual(lab.ports(), []);
    const info = await lab.addPort({ type: 'memory', name: 'a' });
    assert.equal(info.index, 0);
  });

  it('that are removed free their name, index and memory for others', async () => {
    for (const name of ['a', 'b', 'c']) await lab.addPort({ type: 'memory', name });
    await lab.removePort('b');
    await assert.rejects(lab.removePort('b'), /no port b: there are a, c/);
    const info = await lab.addPort({ type: 'memory', name: 'd' });
    assert.equal(info.index, 1);
    for (const name of ['a', 'c', 'd']) await lab.removePort(name);
    assert.deepEqual(lab.ports(), []);
    assert.deepEqual(lab.rings(), []);
    await assert.rejects(lab.removePort('a'), /the switch has none/);
  });

  it('come and go 100 times without a trace', async () => {
    await lab.addPort({ type: 'memory', name: 'stays' });
    const before = openFds();
    for (let i = 0; i < 100; i++) {
      await lab.addPort({ type: 'memory', name: 'goes', queues: 1 + (i % 8), ringSize: 64 });
      await lab.removePort('goes');
    }
    assert.equal(openFds(), before);
  });

  it('64 of 8 queue pairs can be open at once', async () => {
    for (let i = 0; i < 64; i++) {
      await lab.addPort({ type: 'memory', name: `p${i}`, queues: 8, ringSize: 256 });
    }
    assert.ok(lab.ports().every(({ state }) => state === 'up'));
    assert.equal(lab.rings().length, 1024);
    await assert.rejects(lab.addPort({ type: 'memory', name: 'p0' }), /exists/);
    const closing = lab.close();
    await closing;
    assert.deepEqual(lab.ports(), []);
  });

  it('are told of as they come up and go down', async () => {
    const events: string[] = [];
    for (const name of ['port-up', 'port-down'] as const) {
      lab.on(name, (port) => events.push(`${name} ${port.name}`));
    }
    await lab.addPort({ type: 'memory', name: 'a' });
    await lab.addPort({ type: 'memory', name: 'b' });
    await lab.removePort('a');
    assert.deepEqual(events, ['port-up a', 'port-up b', 'port-down a']);
  });
});

describe('wires', () => {
  it('join two ports, and only two', async () => {
    await lab.addPort({ type: 'memory', name: 'a' });
    assert.equal(peer(0), -1);
    await lab.addPort({ type: 'memory', name: 'b' });
    assert.deepEqual([peer(0), peer(1)], [1, 0]);
    await lab.addPort({ type: 'memory', name: 'c' });
    assert.deepEqual([peer(0), peer(1), peer(2)], [-1, -1, -1]);
    await lab.removePort('a');
    assert.deepEqual([peer(1), peer(2)], [2, 1]);
    await lab.removePort('c');
    assert.equal(peer(1), -1);
  });
});

describe('open and close', () => {
  it('options out of range are refused, with nothing left open', async () => {
    const before = openFds();
    for (const workers of [0, 17, 1.5, Number.NaN]) {
      await assert.rejects(openSwitch({ workers }), RangeError);
    }
    for (const ageing of [0, -1, Number.NaN]) {
      await assert.rejects(openSwitch({ ageing }), RangeError);
    }
    assert.equal(openFds(), before);
  });

  it('close twice is close once; then there is no adding', async () => {
    await lab.addPort({ type: 'vhost-user', path: path('a') });
    await Promise.all([lab.close(), lab.close()]);
    await lab.close();
    await assert.rejects(lab.addPort({ type: 'memory', name: 'b' }), /closed/);
    rmSync(path('a'), { force: true });
  });

  it('16 workers start and end', async () => {
    const many = await openSwitch({ workers: 16 });
    assert.equal(many.info().workers, 16);
    await many.addPort({ type: 'memory', name: 'a', queues: 8 });
    assert.equal(many.stats().workers.length, 16);
    await many.close();
  });
});
