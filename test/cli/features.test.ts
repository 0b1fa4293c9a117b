// `vhop ports --features`: what a port's feature bits came to, as rows and as people see them.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { type FeatureRow, featureGroups, featureTitle } from '../../src/cli/features.ts';
import { type ControlServer, serveControl } from '../../src/control/server.ts';
import type { PortInfo } from '../../src/types.ts';
import { featureNames } from '../../src/vhost-user/names.ts';
import { bit, offeredFeatures } from '../../src/virtio/features.ts';
import { run } from './fixtures/run.ts';

const PORT: PortInfo = {
  name: 'a',
  index: 0,
  type: 'vhost-user',
  state: 'up',
  mac: '52:54:00:00:00:01',
  queues: 8,
  queuesEnabled: 2,
  offered: featureNames(offeredFeatures({ pairs: 8, mtu: 9000 })),
  features: [],
  paged: 0,
  memory: 0,
  mtu: 9000,
  history: { since: 0, connections: 1, lost: 0, restarts: 0 },
};

function rowOf(name: string, port: Partial<PortInfo>): FeatureRow | undefined {
  return featureGroups({ ...PORT, ...port })
    .flat()
    .find((row) => row.name === name);
}

const EVERY = featureGroups(PORT)
  .flat()
  .map(({ name }) => name);

describe('a feature bit', () => {
  it('is there once, with its number, whatever its state', () => {
    for (const features of [[], PORT.offered, EVERY]) {
      const rows = featureGroups({ ...PORT, offered: EVERY, features }).flat();
      assert.deepEqual(
        rows.map(({ name }) => name),
        EVERY,
      );
      assert.equal(new Set(rows.map((row) => row.bit)).size, rows.length);
    }
    const numbers = {
      CSUM: 0,
      MTU: 3,
      MRG_RXBUF: 15,
      VERSION_1: 32,
      RING_PACKED: 34,
      HOST_USO: 56,
    };
    for (const [name, number] of Object.entries(numbers)) {
      assert.equal(rowOf(name, {})?.bit, number, name);
    }
  });

  it('that was accepted is on', () => {
    for (const name of EVERY) {
      const row = rowOf(name, { offered: EVERY, features: EVERY });
      assert.equal(row?.state, 'on', name);
      assert.equal(row?.why, undefined);
      assert.ok(row?.meaning, name);
    }
  });

  it('that was offered in vain is not accepted, by nobody in particular', () => {
    for (const name of EVERY) {
      const { state, why, meaning } = rowOf(name, { offered: EVERY })!;
      assert.equal(state, 'not-accepted', name);
      assert.equal(why, 'offered, not accepted by the guest or its front end');
      assert.ok(meaning, name);
    }
    assert.equal(
      rowOf('GUEST_TSO4', { features: ['VERSION_1'] })?.meaning,
      'IPv4 TCP segments are cut to size for it',
    );
    assert.equal(rowOf('GUEST_CSUM', {})?.meaning, 'checksums are completed for it');
    assert.equal(rowOf('MTU', {})?.meaning, 'it was not told: packets over 9000 B drop');
  });

  it('that vhop does not offer has the reason', () => {
    const offered = featureNames(offeredFeatures({ pairs: 1 }));
    const { mtu: _, ...port } = { ...PORT, offered, queues: 1 };
    const states = featureGroups(port)
      .flat()
      .flatMap(({ name, state, why }) => (state === 'not-offered' ? [[name, why]] : []));
    const absent = states.filter(([name]) => name === 'MQ' || name === 'MTU');
    assert.deepEqual(absent, [
      ['MTU', 'no mtu: is set'],
      ['MQ', 'the port has queues: 1'],
    ]);
    assert.deepEqual(rowOf('HOST_USO', { offered: ['CSUM'] }), {
      name: 'HOST_USO',
      bit: 56,
      state: 'not-offered',
      why: 'vhop lacks it',
      meaning: 'it cuts its UDP to size itself',
    });
  });

  it('is neither accepted nor turned down before a driver is set up', () => {
    for (const state of ['listening', 'connecting', 'connected'] as const) {
      const offered = PORT.offered.filter((name) => name !== 'HOST_USO');
      const rows = featureGroups({ ...PORT, offered, state }).flat();
      assert.deepEqual(
        new Set(rows.map((row) => row.state)),
        new Set(['undecided', 'not-offered']),
      );
      assert.ok(rows.every(({ meaning }) => meaning === undefined));
    }
    // A legacy driver that takes nothing has decided; so has one that left.
    assert.equal(rowOf('CSUM', { state: 'up' })?.state, 'not-accepted');
    const left = { state: 'connected', features: ['VERSION_1'] } as const;
    assert.equal(rowOf('CSUM', { ...left, features: [...left.features] })?.state, 'not-accepted');
  });

  it('that nothing is known of is shown all the same', () => {
    const offered = [...PORT.offered, 'ACCESS_PLATFORM', 'bit 60'];
    assert.deepEqual(featureGroups({ ...PORT, offered, features: ['bit 60'] }).at(-1), [
      {
        name: 'ACCESS_PLATFORM',
        bit: 33,
        state: 'not-accepted',
        why: 'offered, not accepted by the guest or its front end',
      },
      { name: 'bit 60', bit: 60, state: 'on' },
    ]);
  });

  it('says what depends on others', () => {
    const legacy = rowOf('VERSION_1', { features: ['CSUM'] });
    assert.equal(legacy?.meaning, 'a legacy driver: headers of 10 bytes');
    assert.match(rowOf('VERSION_1', { features: ['MRG_RXBUF'] })?.meaning ?? '', /12 bytes$/);
    assert.equal(rowOf('MQ', { features: ['MQ'] })?.meaning, 'up to 8 queue pairs, 2 enabled');
    assert.match(rowOf('MTU', { features: ['MTU'] })?.meaning ?? '', /9000 bytes$/);
  });
});

describe("a port's title", () => {
  it('says who has answered, or that nobody has', () => {
    const title = (port: Partial<PortInfo>) => featureTitle({ ...PORT, ...port });
    assert.match(title({ state: 'listening' }), /^a listening: no front end has connected; /);
    assert.match(title({ state: 'connecting' }), /^a connecting: no front end answers; /);
    assert.match(title({ state: 'connected' }), /^a connected: no driver is set up; /);
    assert.equal(
      title({ features: ['CSUM', 'VERSION_1'] }),
      `a up: its driver and front end accepted 2 of ${PORT.offered.length} offered features`,
    );
    assert.match(title({ state: 'connected', features: ['CSUM'] }), /: no driver runs; the last/);
  });
});

describe('vhop ports --features', () => {
  let folder: string;
  let control: string;
  let lab: Switch;
  let server: ControlServer;
  before(async () => {
    folder = mkdtempSync('/tmp/vhop-features-');
    control = join(folder, 'control');
    lab = await openSwitch();
    server = await serveControl(lab, control);
    const features = bit(32) | bit(28) | bit(0);
    lab.addMemoryPort({ type: 'memory', name: 'plain', features });
    await lab.addPort({ type: 'memory', name: 'full', queues: 2, mtu: 1500 });
    await lab.addPort({ type: 'vhost-user', path: join(folder, 'vm.sock'), queues: 1 });
  });
  after(async () => {
    await server.close();
    await lab.close();
    rmSync(folder, { recursive: true });
  });

  it('is a table for each port, and a legend', async () => {
    const { status, out, err } = await run(['ports', '--features', '--control', control]);
    assert.deepEqual([status, err], [0, '']);
    const [plain, full, vm] = out.split(/^ (?=plain |full |vm )/m).slice(1);
    assert.match(plain!, /^plain up: its driver, in this process, accepted 3 of \d+ offered/);
    assert.match(plain!, /^ CSUM +0 {2}on +it may leave checksums to its receivers$/m);
    assert.match(plain!, /^ GUEST_CSUM +1 {2}not accepted {2}checksums are completed for it$/m);
    assert.match(plain!, /^ MRG_RXBUF +15 {2}not accepted {2}needs buffers as long as a frame$/m);
    assert.match(plain!, /^ MQ +22 {2}not offered +the port has queues: 1; 1 queue pair enabled$/m);
    assert.match(full!, /^ MRG_RXBUF +15 {2}on +a frame may fill several of its buffers$/m);
    assert.match(full!, /^ MTU +3 {2}not accepted {2}it was not told: packets over 1500 B drop$/m);
    assert.match(vm!, /^vm listening: no front end has connected; nothing is decided/);
    assert.match(vm!, /^ CSUM +0 {2}offered$/m);
    assert.match(vm!, /^ MTU +3 {2}not offered {2}no mtu: is set$/m);
    assert.match(vm!, /^ not accepted {2}vhop offers it; /m);
    for (const line of out.split('\n')) {
      // Only why a bit is not offered may need a terminal wider than 80.
      assert.ok(line.length <= (line.includes('not offered') ? 100 : 80), line);
    }
  });

  it('shows one port, and the same as JSON', async () => {
    const asked = ['--features', '--control', control];
    const text = await run(['ports', 'plain', ...asked]);
    assert.doesNotMatch(text.out, /^ (full|vm) /m);
    const one = JSON.parse((await run(['ports', 'plain', ...asked, '--json'])).out);
    assert.deepEqual(one.features, ['CSUM', 'INDIRECT_DESC', 'VERSION_1']);
    assert.ok(one.offered.includes('MRG_RXBUF') && !one.offered.includes('MQ'));
    const { meaning, ...row } = one.bits.find((b: FeatureRow) => b.name === 'MRG_RXBUF');
    assert.equal(typeof meaning, 'string');
    assert.deepEqual(row, {
      name: 'MRG_RXBUF',
      bit: 15,
      state: 'not-accepted',
      why: 'offered, not accepted by the guest or its front end',
    });
    const all = JSON.parse((await run(['ports', ...asked, '--json'])).out);
    assert.deepEqual(
      all.map((p: PortInfo & { bits: FeatureRow[] }) => [p.name, p.bits.length]),
      [
        ['plain', one.bits.length],
        ['full', one.bits.length],
        ['vm', one.bits.length],
      ],
    );
    const none = await run(['ports', 'vn', ...asked]);
    assert.deepEqual(
      [none.status, none.err],
      [1, "vhop: no port named 'vn': did you mean 'vm'?\n"],
    );
  });
});
