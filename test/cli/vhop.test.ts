// The command line as people meet it: bin/vhop as a process, where no switch is needed.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { whyUnguarded } from '../../src/linux/index.ts';
import type { PortInfo } from '../../src/types.ts';
import { run } from './fixtures/run.ts';
import { Started, VHOP, vhop } from './fixtures/spawn.ts';

let folder: string;
let env: NodeJS.ProcessEnv;
before(() => {
  folder = mkdtempSync('/tmp/vhop-cli-');
  env = { XDG_RUNTIME_DIR: folder };
});
after(() => rmSync(folder, { recursive: true }));

const COMMANDS = [
  'wire',
  'switch',
  'up',
  'reload',
  'demo',
  'ports',
  'fdb',
  'rings',
  'stats',
  'args',
  'pkt-gen',
  'bridge',
  'doctor',
];

describe('vhop', () => {
  it('prints its version', async () => {
    const { version } = JSON.parse(
      readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
    );
    assert.deepEqual(await vhop(['--version']), { status: 0, out: `${version}\n`, err: '' });
  });

  it('helps, and each command does', async () => {
    const { status, out, err } = await vhop(['--help']);
    assert.deepEqual([status, err], [0, '']);
    for (const command of COMMANDS) assert.match(out, new RegExp(`^  ${command} `, 'm'));
    for (const command of COMMANDS) {
      const help = await run([command, '--help']);
      assert.equal(help.status, 0);
      assert.match(help.out, new RegExp(`^Usage: vhop ${command} `));
      assert.ok(
        help.out.split('\n').every((line) => line.length <= 90),
        command,
      );
    }
  });

  it('shows its help for want of a command, as an error', async () => {
    const { status, out, err } = await vhop([]);
    assert.deepEqual([status, out], [2, '']);
    assert.match(err, /^Usage: vhop/);
  });

  it('is found through a link, and relative ones', async () => {
    const link = join(folder, 'link');
    symlinkSync(VHOP, link);
    symlinkSync('link', join(folder, 'twice'));
    const { status } = await new Started(join(folder, 'twice'), ['--version']).ended;
    assert.equal(status, 0);
  });

  it('says how to set it up where it is not', async () => {
    const bare = join(folder, 'bare/bin/vhop');
    const script = `mkdir -p ${folder}/bare/bin && cp ${VHOP} ${bare} && exec ${bare} --version`;
    const { status, err } = await new Started('/bin/sh', ['-c', script]).ended;
    assert.equal(status, 1);
    assert.match(err, /^vhop: its packages are not installed: run .*\/bare\/script\/setup\n$/);
  });
});

describe('vhop switch, with the real datapath', () => {
  it('runs, is found by a query, and leaves nothing behind', async () => {
    const [a, b] = [join(folder, 'a.sock'), join(folder, 'b.sock')];
    const started = new Started(VHOP, ['switch', a, `client:${b}`], env);
    await started.prints(/runs \(pid \d+\)/);
    assert.ok(existsSync(a));
    const ports = await vhop(['ports', '--json'], env);
    const states = JSON.parse(ports.out).map((p: PortInfo) => [p.name, p.state, p.mac]);
    assert.deepEqual(states, [
      ['a', 'listening', '52:54:00:ca:97:81'],
      ['b', 'connecting', '52:54:00:3e:23:e8'],
    ]);
    started.child.kill('SIGINT');
    const { status, err } = await started.ended;
    assert.deepEqual([status, err], [0, '']);
    assert.equal(existsSync(a), false);
    assert.deepEqual(readdirSync(join(folder, 'vhop')), []);
  });
});

describe('vhop doctor', () => {
  it('finds this machine fit, as text and as JSON', async () => {
    const text = await vhop(['doctor'], env);
    const json = await vhop(['doctor', '--json'], env);
    const findings: { verdict: string; check: string; cure?: string }[] = JSON.parse(json.out);
    for (const { verdict, check, cure } of findings) {
      assert.match(text.out, new RegExp(`^${verdict}  ${check}: .`, 'm'));
      if (verdict !== 'PASS') assert.ok(cure, check);
    }
    const failed = findings.some((f) => f.verdict === 'FAIL');
    assert.deepEqual([text.status, json.status], failed ? [1, 1] : [0, 0]);
    const wasm = findings.find((f) => f.check === 'WebAssembly');
    assert.equal(wasm?.verdict, 'PASS');
    const shrinks = findings.find((f) => f.check === 'memory that shrinks');
    assert.equal(shrinks?.verdict, whyUnguarded() === undefined ? 'PASS' : 'WARN');
  });
});
