// A switch in the foreground, and other terminals asking it: processes, with a fake datapath.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { processName } from '../../src/linux/index.ts';
import { run } from './fixtures/run.ts';
import { fakeVhop, Started, VHOP } from './fixtures/spawn.ts';

let folder: string;
let started: Started[] = [];
before(() => {
  folder = mkdtempSync('/tmp/vhop-run-');
  process.env['XDG_RUNTIME_DIR'] = folder;
});
after(() => rmSync(folder, { recursive: true }));
afterEach(async () => {
  for (const { child } of started) child.kill('SIGKILL');
  await Promise.all(started.map((s) => s.ended));
  started = [];
  // The killed ones leave their sockets.
  for (const left of readdirSync(folder)) rmSync(join(folder, left), { recursive: true });
});

function start(args: readonly string[], env?: NodeJS.ProcessEnv): Started {
  const process = fakeVhop(args, { XDG_RUNTIME_DIR: folder, ...env });
  started.push(process);
  return process;
}

const socket = (name: string) => join(folder, name);

describe('a running switch', () => {
  it('says it is ready, tells what happens, and ends cleanly on Ctrl-C', async () => {
    const vhop = start(['switch', socket('a.sock'), `client:${socket('b.sock')}`, '-n', 'lab']);
    await vhop.prints(/a up/);
    assert.ok(existsSync(socket('a.sock')));
    assert.ok(existsSync(join(folder, 'vhop/lab.sock')));
    vhop.child.kill('SIGINT');
    const { status, out, err } = await vhop.ended;
    assert.deepEqual([status, err], [0, '']);
    const lines = out.trimEnd().split('\n');
    assert.equal(
      lines[0],
      `vhop: switch lab runs (pid ${vhop.child.pid}): a=${socket('a.sock')} ` +
        `b=client:${socket('b.sock')} control=${folder}/vhop/lab.sock`,
    );
    assert.match(lines[1]!, /^\d\d:\d\d:\d\d {2}a up: 1 queue, VERSION_1 MRG_RXBUF EVENT_IDX$/);
    assert.equal(lines.length, 2);
    assert.equal(existsSync(socket('a.sock')), false);
    assert.deepEqual(readdirSync(join(folder, 'vhop')), []);
  });

  it('answers every query without being named', async () => {
    const vhop = start(['wire', socket('a.sock'), socket('b.sock'), '--name', 'lab']);
    await vhop.prints(/a up/);
    const ports = await run(['ports']);
    assert.match(ports.out, /^ port {2}state {6}for {2}queues {2}MAC +memory {2}mode +socket$/m);
    assert.match(
      ports.out,
      /^ a {5}up {9,10}\d+s {5}1\/8 {2}52:54:00:ca:97:81 {2}512 MiB {2}server {2}\//m,
    );
    assert.match((await run(['ports', 'a'])).out, /^ sealed {7}no: if its memory shrinks, /m);
    assert.match((await run(['ports', 'a'])).out, /^ features {5}VERSION_1 MRG_RXBUF EVENT_IDX$/m);
    assert.match(
      (await run(['fdb'])).out,
      /^ port {2}MAC {16}Age\n {4}a {2}52:54:00:ca:97:81 {4}0\n {4}b {2}52:54:00:3e:23:e8 {3}12\n$/,
    );
    assert.match((await run(['rings', 'b'])).out, /^ b {8}0 {2}rx {3}split {3}256 {2}enabled /m);
    assert.match((await run(['rings'])).out, /^ a ring 1: descriptor index 900 of 256$/m);
    const stats = await run(['stats']);
    assert.match(stats.out, /^ a {5}no-buffer +\d+$/m);
    assert.match(stats.out, /^ port {2}segmented {2}segments {2}summed\n a +11 +495 +7$/m);
    assert.match(stats.out, /lab up \d+s$/m);

    for (const query of ['ports', 'fdb', 'rings', 'stats']) {
      const { status, out } = await run([query, '--json']);
      assert.equal(status, 0);
      assert.ok(JSON.parse(out));
    }
    const [entry] = JSON.parse((await run(['fdb', '--json'])).out);
    assert.deepEqual(entry, { mac: '52:54:00:ca:97:81', ifname: 'a', port: 'a', age: 0 });

    const live = await run(['stats', '--live', '--seconds', '1']);
    assert.match(
      live.out,
      /^\d\d:\d\d:\d\d {2}a tx 1\.\d\dM rx 1\.\d\dM, b tx .* pps; drops .*; load 37%\n$/,
    );

    assert.match(
      (await run(['args', 'a'])).out,
      / -chardev socket,id=chr-a,path=\/tmp\/\S*a\.sock /,
    );
    assert.deepEqual(await run(['args', 'c']), {
      status: 1,
      out: '',
      err: "vhop: no port named 'c': did you mean 'a'?\n",
    });
  });

  it('is not disturbed by a second one of its name', async () => {
    const first = start(['wire', socket('a.sock'), socket('b.sock')]);
    await first.prints(/runs/);
    const second = await start(['wire', socket('c.sock'), socket('d.sock')]).ended;
    assert.equal(second.status, 1);
    assert.match(second.err, /^vhop: a switch named default already runs \(pid \d+\): use --name/);
    assert.equal(existsSync(socket('c.sock')), false);
    assert.equal((await run(['ports'])).status, 0);
  });

  it('runs from a file, and can be renamed', async () => {
    const file = socket('lab.yaml');
    writeFileSync(
      file,
      'name: lab\nforwarding: wire\nports:\n  - path: a.sock\n  - path: b.sock\n',
    );
    const vhop = start(['up', file, '--name', 'other', '--json']);
    await vhop.prints(/port-up/);
    vhop.child.kill('SIGTERM');
    const { status, out } = await vhop.ended;
    assert.equal(status, 0);
    const [ready, up] = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.equal(ready.event, 'started');
    assert.deepEqual([ready.info.name, ready.info.forwarding], ['other', 'wire']);
    assert.deepEqual(
      ready.ports.map((p: { path: string }) => p.path),
      [socket('a.sock'), socket('b.sock')],
    );
    assert.deepEqual([up.event, up.value.name], ['port-up', 'a']);
  });

  it('makes its sockets for those who may connect, and tells who did', async () => {
    const [pid, uid, gid] = [process.pid, process.getuid!(), process.getgid!()];
    const path = socket('limited.sock');
    const args = ['switch', path, '--socket-mode', '640', '--socket-owner', `:${gid}`];
    const outputs: string[] = [];
    for (const format of [[], ['--json']]) {
      const vhop = new Started(VHOP, [...args, ...format], { XDG_RUNTIME_DIR: folder });
      started.push(vhop);
      await vhop.prints(/limited.sock/);
      assert.equal(statSync(path).mode & 0o777, 0o640);
      const guest = connect(path);
      await vhop.prints(/connected.*\n/);
      guest.destroy();
      vhop.child.kill('SIGTERM');
      outputs.push((await vhop.ended).out);
    }
    const name = processName(pid);
    const who = `${name} (pid ${pid}, user ${uid}, group ${gid})`;
    assert.ok(outputs[0]!.includes(`  limited connected: ${who}\n`), outputs[0]!);
    const { event, value } = JSON.parse(outputs[1]!.trimEnd().split('\n').at(-1) ?? '');
    assert.deepEqual([event, value.name], ['connected', 'limited']);
    assert.deepEqual(value.peer, { pid, uid, gid, process: name });
  });

  it('ends at once on a second Ctrl-C, and still leaves no socket', async () => {
    const vhop = start(['switch', socket('a.sock'), socket('b.sock')], { FAKE_HANGS: '1' });
    await vhop.prints(/runs/);
    vhop.child.kill('SIGINT');
    // The first has been taken once the control socket is gone.
    while (existsSync(join(folder, 'vhop/default.sock'))) {
      await new Promise((done) => setTimeout(done, 10));
    }
    assert.equal(vhop.child.exitCode, null);
    vhop.child.kill('SIGINT');
    assert.equal((await vhop.ended).status, 130);
    assert.equal(existsSync(socket('a.sock')), false);
  });

  it('closes what it opened when a port cannot be added', async () => {
    const vhop = start(['switch', socket('a.sock'), '/nowhere/b.sock']);
    const { status, err } = await vhop.ended;
    assert.equal(status, 1);
    assert.match(err, /^vhop: .*\/nowhere\/b.sock/);
    assert.equal(existsSync(socket('a.sock')), false);
  });
});
