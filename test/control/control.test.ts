import assert from 'node:assert/strict';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { request } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { connectTo, findSwitch, findSwitches, probe } from '../../src/control/client.ts';
import {
  ControlError,
  controlPath,
  makeRuntimeFolder,
  runtimeFolders,
} from '../../src/control/path.ts';
import { type ControlServer, serveControl } from '../../src/control/server.ts';
import { FakeSwitch } from '../cli/fixtures/fake-switch.ts';

const uid = process.getuid!();
let folder: string;
let servers: ControlServer[] = [];
before(() => {
  folder = mkdtempSync('/tmp/vhop-control-');
});
after(() => rmSync(folder, { recursive: true }));
afterEach(async () => {
  await Promise.all(servers.map((server) => server.close()));
  servers = [];
});

async function serve(path: string, api = new FakeSwitch()): Promise<ControlServer> {
  const server = await serveControl(api, path);
  servers.push(server);
  return server;
}

function ask(path: string, resource: string, method = 'GET') {
  return new Promise<{ status: number; headers: object; body: string }>((done, failed) => {
    request({ socketPath: path, path: resource, method, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (part) => (body += part));
      response.on('end', () => {
        done({ status: response.statusCode ?? 0, headers: response.headers, body });
      });
    })
      .on('error', failed)
      .end();
  });
}

/** A Unix socket nobody listens on: what a killed switch leaves behind. */
async function leaveStale(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((done) => server.listen(`${path}.new`, done));
  // libuv unlinks the name it bound; under another name the socket stays.
  renameSync(`${path}.new`, path);
  await new Promise<void>((done) => server.close(() => done()));
  assert.ok(statSync(path).isSocket());
}

describe('the control server', () => {
  it('answers each resource as JSON', async () => {
    const api = new FakeSwitch({ name: 'lab' });
    await api.addPort({ type: 'memory', name: 'a' });
    const { path } = await serve(join(folder, 'all.sock'), api);
    const client = connectTo(path);
    assert.equal((await client.get('/info')).name, 'lab');
    assert.deepEqual(await client.get('/ports'), api.ports());
    assert.deepEqual(await client.get('/rings'), api.rings());
    assert.deepEqual(await client.get('/fdb'), api.fdb());
    assert.equal((await client.get('/stats')).ports[0]?.port, 'a');
  });

  it('answers an unknown path with the list of those it knows', async () => {
    const { path } = await serve(join(folder, 'unknown.sock'));
    for (const wrong of ['/port', '/', '/constructor', '/__proto__']) {
      const { status, body } = await ask(path, wrong);
      assert.equal(status, 404);
      assert.deepEqual(JSON.parse(body), {
        error: `no such path: ${wrong}`,
        paths: ['/info', '/ports', '/rings', '/fdb', '/stats', '/events'],
      });
    }
    assert.equal((await ask(path, '/info', 'POST')).status, 405);
  });

  it('is for its user alone and leaves nothing behind', async () => {
    const server = await serve(join(folder, 'own.sock'));
    assert.equal(statSync(server.path).mode & 0o777, 0o600);
    await server.close();
    await server.close();
    assert.equal(existsSync(server.path), false);
  });

  it('streams events, a line each, until it closes', async () => {
    const api = new FakeSwitch();
    const server = await serve(join(folder, 'events.sock'), api);
    const streamed = new Promise<string>((done, failed) => {
      request({ socketPath: server.path, path: '/events', agent: false }, (response) => {
        let text = '';
        response.setEncoding('utf8').on('data', (part) => (text += part));
        response.on('end', () => done(text));
        response.on('error', failed);
        api.emit('notice', { port: 'a', message: 'port a: one\ntwo' });
        api.emit('notice', { port: 'b', message: 'three' });
        setTimeout(() => void server.close(), 50);
      })
        .on('error', failed)
        .end();
    });
    const lines = (await streamed)
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      lines.map(({ event, value }) => [event, value]),
      [
        ['notice', { port: 'a', message: 'port a: one\ntwo' }],
        ['notice', { port: 'b', message: 'three' }],
      ],
    );
  });

  it('refuses to replace a switch that runs', async () => {
    const { path } = await serve(join(folder, 'live.sock'), new FakeSwitch({ name: 'lab' }));
    await assert.rejects(serveControl(new FakeSwitch(), path), {
      name: 'ControlError',
      message: `a switch named lab already runs (pid ${process.pid}): use --name for another`,
    });
    assert.equal((await probe(path)).state, 'switch');
  });

  it('takes over a socket that nobody serves', async () => {
    const path = join(folder, 'stale.sock');
    await leaveStale(path);
    assert.equal((await probe(path)).state, 'stale');
    await serve(path);
    assert.equal((await probe(path)).state, 'switch');
  });

  it('keeps its hands off what is not a switch', async () => {
    const file = join(folder, 'file.sock');
    writeFileSync(file, 'precious');
    await assert.rejects(serveControl(new FakeSwitch(), file), /is there and is not a socket/);
    assert.ok(existsSync(file));
    rmSync(file);

    const other = join(folder, 'other.sock');
    const echo = createServer((socket) => socket.resume().end('SSH-2.0-hello\r\n'));
    await new Promise<void>((done) => echo.listen(other, done));
    await assert.rejects(serveControl(new FakeSwitch(), other), /another program listens on/);
    await new Promise<void>((done) => echo.close(() => done()));
  });

  it('names a folder that is not there', async () => {
    const path = join(folder, 'none/x.sock');
    await assert.rejects(
      serveControl(new FakeSwitch(), path),
      /the folder '.*none' does not exist: make it/,
    );
  });
});

describe('the runtime folder', () => {
  it('is the first of those the environment offers', () => {
    const root = mkdtempSync(join(folder, 'root-'));
    const of = { uid: 7, root, runtimeDir: undefined };
    assert.deepEqual(runtimeFolders(of), [join(root, 'tmp/vhop-7')]);
    mkdirSync(join(root, 'run/user/7'), { recursive: true });
    assert.equal(controlPath('lab', undefined, of), join(root, 'run/user/7/vhop/lab.sock'));
    assert.equal(
      controlPath('lab', undefined, { ...of, runtimeDir: folder }),
      join(folder, 'vhop/lab.sock'),
    );
    assert.equal(controlPath('lab', '/x/y.sock', of), '/x/y.sock');
    // Not there, or relative: not to be used.
    assert.equal(runtimeFolders({ ...of, runtimeDir: '/nowhere' }).length, 2);
    assert.equal(runtimeFolders({ ...of, runtimeDir: 'run' }).length, 2);
  });

  it('is refused when its sockets would be too long', () => {
    assert.throws(() => controlPath('lab', `/${'x'.repeat(120)}`), ControlError);
  });

  it('is made for its user only, and refused when it is another’s', () => {
    const made = join(folder, 'made');
    makeRuntimeFolder(made, uid);
    makeRuntimeFolder(made, uid);
    assert.equal(statSync(made).mode & 0o777, 0o700);
    assert.throws(() => makeRuntimeFolder(made, uid + 1), /belongs to user \d+, not to you/);
    chmodSync(made, 0o777);
    assert.throws(() => makeRuntimeFolder(made, uid), /can be written by other users/);
    writeFileSync(join(folder, 'plain'), '');
    assert.throws(() => makeRuntimeFolder(join(folder, 'plain'), uid), /is not a folder/);
  });
});

describe('finding a switch', () => {
  it('needs no name while only one runs', async () => {
    const of = { uid, root: mkdtempSync(join(folder, 'find-')), runtimeDir: undefined };
    const home = runtimeFolders(of)[0]!;
    makeRuntimeFolder(home, uid);
    await assert.rejects(
      findSwitch({}, of),
      /^ControlError: no switch runs: start one with: vhop /,
    );
    await assert.rejects(
      findSwitch({ name: 'lab' }, of),
      /no switch named lab runs: start one with: vhop switch --name lab/,
    );

    await leaveStale(join(home, 'dead.sock'));
    await serve(join(home, 'lab.sock'), new FakeSwitch({ name: 'lab' }));
    assert.equal((await findSwitch({}, of)).path, join(home, 'lab.sock'));
    assert.equal((await findSwitch({ name: 'lab' }, of)).path, join(home, 'lab.sock'));
    await assert.rejects(
      findSwitch({ name: 'lap' }, of),
      /no switch named lap runs \(running: lab\): start one/,
    );

    await serve(join(home, 'two.sock'), new FakeSwitch({ name: 'two' }));
    await assert.rejects(
      findSwitch({}, of),
      /2 switches run \(lab, two\): choose one with --name lab/,
    );
    const { running, stale } = await findSwitches(of);
    assert.deepEqual(
      running.map((r) => r.info.name),
      ['lab', 'two'],
    );
    assert.deepEqual(stale, [join(home, 'dead.sock')]);
  });

  it('by --control says when nobody is there', async () => {
    await assert.rejects(
      findSwitch({ control: '/nowhere/x.sock' }),
      /no switch runs at '\/nowhere/,
    );
  });
});
