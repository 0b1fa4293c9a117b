// What is said to a user who made a mistake: one sentence that names the thing and the cure.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { run } from './fixtures/run.ts';

let folder: string;
before(() => {
  folder = mkdtempSync('/tmp/vhop-bad-');
  process.env['XDG_RUNTIME_DIR'] = folder;
});
after(() => rmSync(folder, { recursive: true }));

describe('bad input', () => {
  const LONG = `/tmp/${'x'.repeat(120)}.sock`;
  const WRONG: [args: string[], status: number, message: string | RegExp][] = [
    [['wrie'], 2, "vhop: unknown command 'wrie': did you mean 'wire'?"],
    [
      ['wire', 'a', 'b', '--worker', '2'],
      2,
      "vhop: unknown option '--worker': did you mean '--workers'?",
    ],
    [['wire', 'a', 'b', '-w', '99'], 2, /'99' is invalid. Give a whole number from 1 to 16\.$/],
    [['wire', 'a', 'b', '-n', 'a/b'], 2, /'a\/b' is invalid. Give 1 to 32 letters/],
    [['wire', 'a'], 2, 'vhop: a wire joins exactly 2 ports, not 1: give 2, or use a switch'],
    [['wire', 'a', 'b', 'c'], 2, /a wire joins exactly 2 ports, not 3/],
    [['switch'], 2, "vhop: missing required argument 'sockets': see vhop switch --help"],
    [
      ['switch', '/x/a', '/x/./a'],
      2,
      "vhop: the socket '/x/a' is given twice: give each port its own",
    ],
    [['switch', '/x/a', 'client:/x/a'], 2, /the socket '\/x\/a' is given twice/],
    [['switch', 'client:', '/x/a'], 2, /'client:' names no socket: give a path/],
    [['switch', LONG, 'b'], 2, /is 130 bytes, a Unix socket's path has at most 107: use a shorter/],
    [['switch', 'a', '--socket-mode', '888'], 2, /Give octal permission bits such as 660\.$/],
    [['switch', 'a', '--socket-mode', '4755'], 2, /Give octal permission bits such as 660\.$/],
    [['switch', 'a', '--socket-owner', ':'], 2, /Give USER, USER:GROUP or :GROUP\.$/],
    [
      ['wire', 'a', 'client:/x/b', '--socket-mode', '660'],
      2,
      /'\/x\/b' is connected to, not listened on: who may connect is for its server to say/,
    ],
    [['up', '/nowhere.yaml'], 2, 'vhop: /nowhere.yaml: no such file: give the path of a YAML file'],
    [['reload', '/nowhere.yaml'], 2, /^vhop: \/nowhere.yaml: no such file/],
    [['reload'], 1, /no switch runs: start one with/],
    [['stats'], 1, 'vhop: no switch runs: start one with: vhop switch a.sock b.sock'],
    [
      ['fdb', '--name', 'lab'],
      1,
      /no switch named lab runs: start one with: vhop switch --name lab/,
    ],
    [['ports', '--control', '/x/y'], 1, /no switch runs at '\/x\/y': start one with/],
    [['stats', '--seconds', '3'], 2, /--seconds goes with --live/],
    [['args', 'a'], 1, /no switch runs: .*, or give a socket: vhop args \.\/a\.sock$/],
    [['args', LONG], 2, /at most 107/],
    [['args', './a.sock', '--qemu', '--libvirt'], 2, /choose one of --qemu/],
    [['args', './a.sock', '-q', '9'], 2, /Give a whole number from 1 to 8/],
    [['args', './a.sock', '-m', 'much'], 2, /Give a size such as 512M or 4G/],
    [['args', './a.sock', '--mac', '01:00:00:00:00:00'], 2, /Give one such as 52:54:00:12:34:56/],
  ];
  for (const [args, status, message] of WRONG) {
    it(`vhop ${args.map((a) => a.slice(0, 20)).join(' ')}`, async () => {
      const ended = await run(args);
      assert.equal(ended.status, status, ended.err);
      assert.equal(ended.out, '');
      assert.equal(ended.err.split('\n').length, 2, `one line: ${ended.err}`);
      if (typeof message === 'string') assert.equal(ended.err, `${message}\n`);
      else assert.match(ended.err.trimEnd(), message);
    });
  }

  it('in a file: every error, with its line', async () => {
    const file = join(folder, 'bad.yaml');
    writeFileSync(file, 'ports:\n  - pth: /a\n    mtu: x\n');
    const { status, err } = await run(['up', file]);
    assert.equal(status, 2);
    assert.match(err, /^vhop: .*bad.yaml:2:5: ports\[0\].path: is missing/m);
    assert.match(
      err,
      /^vhop: .*bad.yaml:2:5: ports\[0\].pth: unknown key: did you mean 'path'\?$/m,
    );
    assert.match(err, /^vhop: .*bad.yaml:3:5: ports\[0\].mtu: must be/m);
    writeFileSync(file, 'ports:\n  - path: /a\n');
    assert.deepEqual(await run(['up', '--check', file]), { status: 0, out: '', err: '' });
  });
});
