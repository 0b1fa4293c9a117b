// A changed file on a running switch: processes, with a fake datapath where nothing else is needed.

import assert from 'node:assert/strict';
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, it } from 'node:test';
import { connectTo } from '../../src/control/client.ts';
import type { Reloaded } from '../../src/control/reload.ts';
import { run } from './fixtures/run.ts';
import { FAKE, fakeVhop, Started, VHOP } from './fixtures/spawn.ts';

let folder: string;
let file: string;
let started: Started[] = [];
before(() => {
  folder = mkdtempSync('/tmp/vhop-reload-');
  process.env['XDG_RUNTIME_DIR'] = folder;
});
after(() => rmSync(folder, { recursive: true }));
beforeEach(() => {
  file = join(folder, 'lab.yaml');
});
afterEach(async () => {
  for (const { child } of started) child.kill('SIGKILL');
  await Promise.all(started.map((s) => s.ended));
  started = [];
  for (const left of readdirSync(folder)) rmSync(join(folder, left), { recursive: true });
});

const PORTS = ['a', 'b', 'c'].map((name) => `  - path: ${name}.sock`);

/** The file with these ports, each a line or more of YAML. */
function write(ports: readonly string[], head = 'name: lab'): void {
  writeFileSync(file, `${head}\nports:\n${ports.join('\n')}\n`);
}

async function up(args: readonly string[] = [], vhop = fakeVhop): Promise<Started> {
  const process = vhop(['up', file, ...args], { XDG_RUNTIME_DIR: folder });
  started.push(process);
  await process.prints(/runs|started/);
  return process;
}

const real = (args: readonly string[], env?: NodeJS.ProcessEnv) => new Started(VHOP, args, env);
const socket = (name: string) => join(folder, `${name}.sock`);
const sockets = () =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.sock'))
    .sort();
const client = (name = 'lab') => connectTo(join(folder, `vhop/${name}.sock`));

function post(path: string, body: string, method = 'POST') {
  return new Promise<{ status: number; error: string }>((done, failed) => {
    const socketPath = client().path;
    request({ socketPath, path, method, agent: false }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (part) => (text += part));
      response.on('end', () => {
        done({ status: response.statusCode ?? 0, error: JSON.parse(text).error });
      });
    })
      .on('error', failed)
      .end(body);
  });
}

describe('vhop up on a switch that runs from the file', () => {
  it('applies what changed, says so on both terminals, and ends', async () => {
    write(PORTS);
    const vhop = await up();
    write(['  - path: b.sock\n    rate: { frames: 100 }', PORTS[2]!, '  - path: d.sock']);
    assert.deepEqual(await run(['up', file]), {
      status: 0,
      out: 'added d, changed b (rate), removed a; 1 port untouched\n',
      err: '',
    });
    assert.deepEqual(sockets(), ['b.sock', 'c.sock', 'd.sock']);
    await vhop.prints(/reloaded/);
    assert.match(
      vhop.out,
      /^\d\d:\d\d:\d\d {2}reloaded \/tmp\S+lab\.yaml: added d, changed b \(rate\), removed a; 1 port untouched$/m,
    );
    assert.deepEqual((await client().get('/ports')).find((p) => p.name === 'b')?.rate, {
      frames: 100,
    });
    // Once more: there is nothing left to do.
    assert.equal((await run(['up', file])).out, 'changed nothing; 3 ports untouched\n');
    const json = await run(['up', file, '--json']);
    const report = JSON.parse(json.out) as Reloaded;
    assert.deepEqual([report.file, report.untouched, report.failed], [file, 3, []]);
    vhop.child.kill('SIGTERM');
    assert.equal((await vhop.ended).status, 0);
    assert.deepEqual(sockets(), []);
  });

  it('replaces a port whose socket changed, and changes the switch itself', async () => {
    write(PORTS);
    await up();
    write(['  - {name: a, path: x.sock}', PORTS[1]!], 'name: lab\nageing: 7\nforwarding: wire');
    assert.equal(
      (await run(['up', file])).out,
      'changed forwarding ageing, replaced a (path), removed c; 1 port untouched\n',
    );
    assert.deepEqual(sockets(), ['b.sock', 'x.sock']);
    const { ageing, forwarding } = await client().get('/info');
    assert.deepEqual([ageing, forwarding], [7, 'wire']);
  });

  it('says what takes a new start, and does the rest', async () => {
    write(PORTS);
    await up();
    write(PORTS.slice(0, 2), 'name: lab\nworkers: 2');
    const { status, out, err } = await run(['up', file]);
    assert.deepEqual([status, out], [1, 'removed c; 2 ports untouched\n']);
    assert.equal(
      err,
      'vhop: workers stays 1 while the switch runs: for 2 start it anew, which its guests outlive: ' +
        `vhop up --takeover ${file}\n`,
    );
  });

  it('adds what can be added, and tries the rest again next time', async () => {
    write(PORTS.slice(0, 2));
    const vhop = await up([], real);
    const other = createServer();
    await new Promise<void>((done) => other.listen(socket('busy'), done));
    write([PORTS[0]!, '  - path: busy.sock', '  - path: new.sock']);
    const { status, out, err } = await run(['up', file]);
    assert.deepEqual([status, out], [1, 'added new, removed b; 1 port untouched\n']);
    assert.match(
      err,
      /^vhop: port busy could not be added: \/tmp\S+busy.sock is in use by another process \(pid \d+\)\n$/,
    );
    await vhop.prints(/1 port untouched; port busy could not be added/);
    await new Promise((done) => other.close(done));
    assert.equal((await run(['reload'])).out, 'added busy; 2 ports untouched\n');
  });

  it('is not taken for another file of no name', async () => {
    write(PORTS, 'ageing: 300');
    await up();
    const other = join(folder, 'other.yaml');
    writeFileSync(other, 'ports:\n  - path: z.sock\n');
    const { status, err } = await run(['up', other]);
    assert.equal(status, 1);
    assert.match(
      err,
      /^vhop: a switch named default already runs \(pid \d+\) from \/tmp\S+lab.yaml: use --name for another, or make that one what this file says with: vhop reload \/tmp\S+other.yaml\n$/,
    );
    assert.deepEqual(sockets(), ['a.sock', 'b.sock', 'c.sock']);
    assert.equal((await run(['reload', other])).out, 'added z, removed a b c; 0 ports untouched\n');
    // From now on that is its file.
    writeFileSync(other, 'ports:\n  - path: y.sock\n');
    assert.equal((await run(['reload'])).out, 'added y, removed z; 0 ports untouched\n');
  });

  it('leaves alone a switch that has no file', async () => {
    const args = ['switch', socket('a'), socket('b'), '--name', 'lab'];
    const vhop = fakeVhop(args, { XDG_RUNTIME_DIR: folder });
    started.push(vhop);
    await vhop.prints(/runs/);
    write(PORTS);
    const again = await run(['up', file]);
    assert.equal(again.status, 1);
    assert.match(again.err, /^vhop: a switch named lab already runs \(pid \d+\): use --name/);
    assert.deepEqual(await run(['reload']), {
      status: 1,
      out: '',
      err: 'vhop: this switch was not started from a file: only what vhop up started can be reloaded\n',
    });
    assert.deepEqual(sockets(), ['a.sock', 'b.sock']);
    // And SIGHUP ends it, as ever.
    vhop.child.kill('SIGHUP');
    assert.equal((await vhop.ended).status, 0);
  });
});

describe('vhop reload', () => {
  it('only says what would be done, with --dry-run', async () => {
    write(PORTS);
    const vhop = await up();
    write(PORTS.slice(1), 'name: lab\nworkers: 3');
    const { status, out, err } = await run(['reload', '--dry-run', '--name', 'lab']);
    assert.deepEqual([status, out], [1, 'would have removed a; 2 ports untouched\n']);
    assert.match(err, /workers stays 1/);
    assert.deepEqual(sockets(), ['a.sock', 'b.sock', 'c.sock']);
    const json = await run(['reload', '--dry-run', '--json']);
    assert.deepEqual((JSON.parse(json.out) as Reloaded).removed, ['a']);
    assert.ok(!vhop.out.includes('reloaded'));
  });

  it('changes nothing for a file that is wrong, and names line and key', async () => {
    write(PORTS);
    await up();
    const wrong: [text: string, message: RegExp][] = [
      [
        'name: lab\nports:\n  - path: z.sock\n    mtu: 5\n',
        /lab\.yaml:4:5: ports\[0\]\.mtu: must be/,
      ],
      ['name: lab\nports: [\n', /lab\.yaml:3:1: /],
      [
        'name: other\nports:\n  - path: z.sock\n',
        /name: 'other' is not the switch that runs, which is 'lab'/,
      ],
    ];
    for (const [text, message] of wrong) {
      writeFileSync(file, text);
      for (const args of [['reload'], ['reload', file], ['reload', '--dry-run']]) {
        const { status, out, err } = await run(args);
        assert.deepEqual([status, out], [2, '']);
        assert.match(err, message);
      }
    }
    unlinkSync(file);
    const { status, err } = await run(['reload']);
    assert.equal(status, 2);
    assert.match(err, /lab\.yaml: no such file/);
    assert.deepEqual(sockets(), ['a.sock', 'b.sock', 'c.sock']);
    assert.match((await run(['reload', '--control', '/x/y'])).err, /no switch runs at '\/x\/y'/);
  });

  it('keeps the name that it was started with', async () => {
    write(PORTS);
    await up(['--name', 'mine']);
    write(PORTS.slice(1));
    assert.equal((await run(['reload'])).out, 'removed a; 2 ports untouched\n');
    assert.equal(
      (await run(['up', file, '-n', 'mine'])).out,
      'changed nothing; 2 ports untouched\n',
    );
    const other = join(folder, 'other.yaml');
    writeFileSync(other, readFileSync(file));
    assert.match((await run(['reload', other])).err, /name: 'lab' is not .* --name mine\n$/);
    assert.equal((await run(['reload', other, '-n', 'mine'])).status, 0);
  });

  it('comes with SIGHUP, and is in /events', async () => {
    write(PORTS);
    const vhop = await up(['--json']);
    const events: { event: string; value: Reloaded & { message: string } }[] = [];
    const stream = await new Promise<{ destroy(): void }>((done, failed) => {
      const options = { socketPath: client().path, path: '/events', agent: false };
      const asked = request(options, (response) => {
        response.setEncoding('utf8').on('data', (text: string) => {
          for (const line of text.trimEnd().split('\n')) events.push(JSON.parse(line));
        });
        response.on('error', () => {});
        done(asked);
      });
      asked.on('error', failed).end();
    });
    write(PORTS.slice(0, 1));
    vhop.child.kill('SIGHUP');
    await vhop.prints(/"reloaded".*\n/);
    const { event, value } = JSON.parse(vhop.out.trimEnd().split('\n').at(-1)!);
    assert.deepEqual([event, value.removed, value.untouched], ['reloaded', ['b', 'c'], 1]);
    writeFileSync(file, 'ports: 7\n');
    vhop.child.kill('SIGHUP');
    await vhop.prints(/nothing was changed/);
    assert.match(vhop.out, /lab\.yaml:1:1: ports: must be a list of ports/);
    stream.destroy();
    assert.deepEqual(
      events.filter(({ event }) => event === 'reloaded').map((e) => e.value),
      [value],
    );
    assert.ok(events.some((e) => e.value.message === 'nothing was changed'));
    assert.deepEqual(sockets(), ['a.sock']);
  });

  it('does not come of a terminal that goes away: that ends it', async (t) => {
    if (!existsSync('/usr/bin/script')) {
      t.skip('script(1), which makes a terminal, is not installed (apt install bsdutils)');
      return;
    }
    write(PORTS);
    const command = `exec ${process.execPath} ${FAKE} up ${file}`;
    const terminal = new Started('script', ['-qfc', command, '/dev/null'], {
      XDG_RUNTIME_DIR: folder,
    });
    started.push(terminal);
    await terminal.prints(/runs/);
    terminal.child.kill('SIGKILL');
    for (let i = 0; sockets().length > 0 && i < 300; i++) {
      await new Promise((done) => setTimeout(done, 10));
    }
    assert.deepEqual(sockets(), []);
    assert.ok(!existsSync(client().path));
  });

  it('is one after the other, however many ask', async () => {
    write(PORTS);
    await up();
    write(PORTS.slice(0, 2));
    const reports = await Promise.all(
      Array.from({ length: 8 }, () => client().post('/reload', {})),
    );
    assert.deepEqual(
      reports.map(({ removed }) => removed),
      [['c'], ...Array.from({ length: 7 }, () => [])],
    );
  });

  it('refuses what is no order', async () => {
    write(PORTS);
    await up();
    const object = /the body is not a JSON object of at most 8192 bytes/;
    const wrong: [body: string, error: RegExp][] = [
      ['[]', object],
      ['null', object],
      ['{', object],
      ['x'.repeat(100_000), object],
      ['{"file": "lab.yaml"}', /^file must be an absolute path$/],
      ['{"file": 7}', /^file must be an absolute path$/],
      ['{"dryRun": "no"}', /^dryRun must be true or false$/],
      ['{"name": 1}', /^name must be text$/],
      ['{"flie": "/x"}', /^'flie' is no key of a reload/],
      ['{"__proto__": {}}', /^'__proto__' is no key of a reload/],
    ];
    for (const [body, error] of wrong) {
      const answer = await post('/reload', body);
      assert.equal(answer.status, 400, body.slice(0, 20));
      assert.match(answer.error, error);
    }
    assert.equal((await post('/reload', '{"file": "/nowhere.yaml"}')).status, 422);
    assert.deepEqual(await post('/reload', '', 'GET'), {
      status: 405,
      error: 'GET is not supported: use POST',
    });
    assert.equal((await post('/ports', '{}')).status, 405);
    assert.deepEqual(sockets(), ['a.sock', 'b.sock', 'c.sock']);
  });
});
