// A new process takes over the ports of a switch under load, again and again: its guests stay connected, and
// no frame is lost, doubled or corrupt. Whatever goes wrong before that leaves the old one as it was.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, lstatSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { connectTo } from '../../src/control/client.ts';
import { serveControl } from '../../src/control/server.ts';
import { type Channel, close } from '../../src/linux/index.ts';
import { FakeSwitch } from '../cli/fixtures/fake-switch.ts';
import { VHOP } from '../cli/fixtures/spawn.ts';
import { Child, removeFolder, temporaryFolder, waitFor } from '../peers/process.ts';
import { sleep } from '../stress/stress.ts';
import { Lab } from './lab.ts';

const TIMES = process.env['VHOP_LONG'] ? 50 : 2;
describe('--takeover', { timeout: 120_000 }, () => {
  for (const packed of [false, true]) {
    it(`${TIMES} times, ${packed ? 'packed' : 'split'} rings`, async (t) => {
      const lab = new Lab(packed);
      try {
        let child = await lab.open();
        const gaps: number[] = [];
        const pauses: number[] = [];
        for (let time = 0; time < TIMES; time++) {
          const frames = (await connectTo(lab.control).get('/stats')).ports[0]!.txFrames;
          lab.gaps = [];
          const next = lab.start('--takeover');
          await lab.traffic(() => next.stdout.includes('"started"') || next.exit !== undefined);
          assert.match(next.stdout, /"started"/, next.tail());
          await lab.traffic(() => child.exit !== undefined);
          assert.deepEqual([child.exit, child.stderr], [0, ''], child.tail());
          const { at, pause } = lab.handedOver(child);
          gaps.push(lab.gapAt(at));
          pauses.push(pause);
          const client = connectTo(lab.control);
          assert.equal((await client.get('/info')).pid, next.pid);
          // Counters and addresses go on, the socket's file is the same, and so is the state's name.
          assert.ok((await client.get('/stats')).ports[0]!.txFrames >= frames);
          assert.deepEqual((await client.get('/fdb')).map(({ port }) => port).sort(), ['a', 'b']);
          assert.ok(existsSync(lab.path('a')) && existsSync(lab.state));
          assert.deepEqual(lab.states(), [lab.state]);
          child = next;
        }
        await lab.checkWhole();
        const ms = (values: number[]) => values.map((value) => value.toFixed(1)).join(' ');
        t.diagnostic(`${lab.counts()}; paused for ${ms(pauses)} ms, no frame for ${ms(gaps)} ms`);
      } finally {
        await lab.close();
      }
    });
  }

  it('comes to nothing where the new process is not up to it: the old one goes on', async () => {
    const lab = new Lab(true);
    try {
      const child = await lab.open();
      /** How far a new process gets before it ends. */
      const failures: Record<string, (channel: Channel) => Promise<void>> = {
        'says nothing': async () => {},
        'hears of the ports': async (channel) => {
          assert.ok((await received(channel)).value);
        },
        'says what nobody understands': async (channel) => {
          while (!('end' in (await received(channel)).value));
          await channel.send({ prepared: 7 });
        },
        'is prepared': async (channel) => {
          while (!('end' in (await received(channel)).value));
          await channel.send({ prepared: ['a', 'b'] });
        },
        'has the positions': async (channel) => {
          while (!('end' in (await received(channel)).value));
          await channel.send({ prepared: ['a', 'b', 'nobody'] });
          const { positions } = (await received(channel)).value as { positions: object };
          assert.deepEqual(Object.keys(positions), ['a', 'b']);
        },
      };
      for (const [how, fail] of Object.entries(failures)) {
        const error = await lab.failing(fail);
        assert.match(error, /^the new process did not take over: /, how);
        // Traffic goes on, both ways, and new front ends are listened to.
        const [before] = lab.guests.map(({ received }) => received);
        await lab.traffic(() => lab.guests.every(({ received }) => received > before! + 500));
        assert.equal(child.exit, undefined);
      }
      const wrong: [body: object, error: RegExp][] = [
        [{ format: 2, to: '/x' }, /^it hands over in format 1, not 2$/],
        [{ to: '/x' }, /^it hands over in format 1, not undefined$/],
        [{ format: 1, to: 'x' }, /^to must be the absolute path of a socket$/],
        [{ format: 1, to: '/nowhere/x' }, /^the new process cannot be reached: /],
      ];
      for (const [body, error] of wrong) {
        const asked = connectTo(lab.control).post('/leave', body as { format: 1; to: string });
        await assert.rejects(asked, ({ name, message }: Error) => {
          assert.equal(name, 'ControlError');
          assert.match(message, error);
          return true;
        });
      }
      await lab.traffic(() => true);
      await lab.checkWhole();
    } finally {
      await lab.close();
    }
  });

  it('is not tried on a switch of another version, nor asked of one that is not there', async () => {
    const folder = temporaryFolder();
    const path = (name: string) => join(folder, name);
    const args = (control: string) => [
      'switch',
      path('a'),
      '--takeover',
      '--control',
      path(control),
      '--state',
      'none',
    ];
    const old = await serveControl(new FakeSwitch({ name: 'lab' }), path('old'));
    const alone = new Child(VHOP, args('none'));
    try {
      const refused = new Child(VHOP, args('old'));
      assert.equal(await refused.finish(20_000), 1);
      assert.equal(
        refused.stderr,
        `vhop: switch lab (pid ${process.pid}, version 0.0.0) hands its ports over in a way that this ` +
          'version does not know, so it goes on: end it and start this one, which its guests outlive\n',
      );
      assert.equal((await connectTo(path('old')).get('/info')).name, 'lab');
      // And where none runs, it is a start like any other.
      await waitFor(
        () => alone.stdout.includes('runs (pid'),
        20_000,
        'a switch',
        () => alone.tail(),
      );
    } finally {
      alone.kill('SIGTERM');
      await alone.finish(10_000);
      await old.close();
      removeFolder(folder);
    }
  });

  it('goes by the new file: ports that changed begin anew, others come and go', async () => {
    const folder = temporaryFolder();
    const path = (name: string) => join(folder, name);
    const file = path('lab.yaml');
    const up = (...more: string[]) => {
      const args = ['up', file, '--control', path('control'), '--state', 'none', ...more];
      return new Child(VHOP, args);
    };
    const started = (child: Child) =>
      waitFor(
        () => child.stdout.includes('runs (pid') || child.exit !== undefined,
        20_000,
        'a switch',
        () => child.tail(),
      );
    /** Numbers of files are given out again. */
    const identity = (name: string) => {
      const { ino, ctimeNs } = lstatSync(path(name), { bigint: true });
      return `${ino} ${ctimeNs}`;
    };
    writeFileSync(file, 'ports:\n  - path: a\n  - path: b\n  - path: c\n  - path: half\n');
    const old = up();
    const children = [old];
    const taken = createServer();
    const clients: Socket[] = [];
    try {
      await started(old);
      const before = ['a', 'b', 'half'].map(identity);
      // One that has not said anything yet, and one in the middle of a message.
      clients.push(connect(path('a')), connect(path('half')));
      clients[1]!.write('12345');
      const cutOff = once(clients[1]!, 'close');
      await waitFor(
        () => old.stdout.includes('half connected') && old.stdout.includes('a connected'),
        5000,
        'both clients',
        () => old.tail(),
      );
      await new Promise<void>((done) => taken.listen(path('busy'), done));
      writeFileSync(
        file,
        'workers: 2\nports:\n  - path: a\n  - {path: b, mtu: 1500}\n  - path: d\n  - path: half\n  - path: busy\n',
      );
      const next = up('--takeover');
      children.push(next);
      await started(next);
      assert.equal(await old.finish(10_000), 0, old.tail());
      const ports = await connectTo(path('control')).get('/ports');
      assert.deepEqual(
        ports.map(({ name, mtu }) => [name, mtu]),
        [
          ['a', undefined],
          ['b', 1500],
          ['d', undefined],
          ['half', undefined],
        ],
      );
      // The same socket for the one, a new one for the other; c's is gone.
      assert.equal(identity('a'), before[0]);
      assert.notEqual(identity('b'), before[1]);
      assert.ok(!existsSync(path('c')));
      await cutOff;
      assert.notEqual(identity('half'), before[2]);
      assert.deepEqual([ports[0]!.state, ports[0]!.peer?.pid], ['connected', process.pid]);
      assert.match(next.stderr, /^vhop: port busy could not be added: \S+busy is in use by/);
      taken.close();
      while (existsSync(path('busy'))) await sleep(5);
      const report = await connectTo(path('control')).post('/reload', {});
      assert.deepEqual([report.added, report.untouched], [['busy'], 4]);
      // A file that is wrong does not get as far as asking.
      writeFileSync(file, 'ports: 7\n');
      const wrong = up('--takeover');
      assert.equal(await wrong.finish(20_000), 2);
      assert.match(wrong.stderr, /lab\.yaml:1:1: ports: must be a list of ports/);
      assert.equal(next.exit, undefined);
      next.kill('SIGTERM');
      assert.equal(await next.finish(10_000), 0);
      assert.ok(!existsSync(path('a')));
    } finally {
      for (const client of clients) client.destroy();
      taken.close();
      for (const child of children) child.kill('SIGKILL');
      removeFolder(folder);
    }
  });
});

/** The next message, its descriptors closed. */
async function received(channel: Channel): Promise<{ value: Record<string, unknown> }> {
  const message = await channel.receive(10_000);
  assert.ok(message);
  for (const fd of message.fds) close(fd);
  return { value: message.value as Record<string, unknown> };
}
