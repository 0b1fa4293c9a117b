import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs, {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import * as vu from '../../src/abi/vhost-user.ts';
import {
  acceptUnix,
  close,
  connectUnix,
  EventLoop,
  listenUnix,
  processName,
  recvWithFds,
} from '../../src/linux/index.ts';
import type { PeerInfo } from '../../src/types.ts';
import { Endpoint, type EndpointOptions, PathError } from '../../src/vhost-user/index.ts';
import { Notices } from '../../src/vhost-user/notices.ts';
import { openFds } from '../linux/fds.ts';
import { waitFor } from '../peers/process.ts';
import { FakeBackend, FrontEnd, until } from './harness.ts';

/** Only root can give files away and be somebody else. */
const ROOT = { skip: process.getuid!() !== 0 && 'needs root' };

interface Site {
  loop: EventLoop;
  directory: string;
  path: string;
  backend: FakeBackend;
  notices: string[];
  endpoint(options?: Partial<EndpointOptions>): Endpoint;
}

async function withSite(body: (site: Site) => Promise<void>): Promise<void> {
  const before = openFds();
  const directory = mkdtempSync(join(tmpdir(), 'vhop-'));
  const path = join(directory, 'port.sock');
  const loop = new EventLoop({ onError: (error) => assert.fail(String(error)) });
  const backend = new FakeBackend();
  const notices: string[] = [];
  const onNotice = (message: string) => notices.push(message);
  const made: Endpoint[] = [];
  const endpoint = (options: Partial<EndpointOptions> = {}) => {
    const one = new Endpoint({ path, mode: 'server', loop, backend, onNotice, ...options });
    made.push(one);
    return one;
  };
  try {
    await body({ loop, directory, path, backend, notices, endpoint });
  } finally {
    for (const one of made) one.close();
    await loop.close();
    rmSync(directory, { recursive: true });
  }
  assert.equal(openFds(), before);
}

test('a server serves one front end after the other, 200 times, with a flat fd count', async () => {
  await withSite(async ({ path, backend, notices, endpoint }) => {
    const server = endpoint({ access: { mode: 0o600 } });
    server.open();
    server.open();
    assert.equal(lstatSync(path).mode & 0o777, 0o600);
    const flat = openFds();
    for (let round = 0; round < 200; round++) {
      const front = new FrontEnd(connectUnix(path));
      await front.negotiate();
      assert.equal(server.peer?.pid, process.pid);
      front.close();
      // Every other front end is followed before its end was noticed.
      if (round % 2 === 0) {
        await until(() => !server.connected);
        assert.equal(openFds(), flat);
      }
    }
    await until(() => !server.connected);
    assert.equal(openFds(), flat);
    assert.equal(backend.named('connected').length, 200);
    assert.equal(backend.ends.length, 200);
    assert.deepEqual(notices, []);
    server.close();
    server.close();
    assert.equal(existsSync(path), false);
  });
});

test('a socket file is nobody else’s before it is as asked', ROOT, async () => {
  await withSite(async ({ path, endpoint }) => {
    const [group, user] = [12345, 23456];
    // What the file was at each change of it, as seen by whoever looks.
    const seen: string[] = [];
    const look = () => {
      const { mode, uid, gid } = lstatSync(path);
      seen.push(`${(mode & 0o777).toString(8)} ${uid}:${gid}`);
    };
    const real = { chmod: fs.chmodSync, fstat: fs.fstatSync, close: fs.closeSync };
    fs.fstatSync = ((...args: Parameters<typeof real.fstat>) => {
      look();
      return real.fstat(...args);
    }) as typeof real.fstat;
    fs.chmodSync = (...args) => {
      look();
      real.chmod(...args);
      look();
    };
    syncBuiltinESMExports();
    try {
      for (const [access, want] of [
        [{ mode: 0o666 }, `666 0:0`],
        [{ mode: 0o660, group }, `660 0:${group}`],
        [{ group, owner: user }, `660 ${user}:${group}`],
        [{ owner: 'root' }, '600 0:0'],
        [{ owner: user, mode: 0o642 }, `642 ${user}:0`],
      ] as const) {
        const server = endpoint({ access });
        server.open();
        look();
        assert.equal(seen.pop(), want);
        assert.match(seen[0]!, /^0 0:0$/);
        // Wider in no step: no bits but those asked for, no group but the one asked for.
        for (const step of seen.splice(0))
          assert.match(step, new RegExp(`^(0 |${want.slice(0, 3)} )`));
        server.close();
      }
    } finally {
      fs.chmodSync = real.chmod;
      fs.fstatSync = real.fstat;
      syncBuiltinESMExports();
    }
  });
});

test('users and groups that are not there, or not to be given to, are told', ROOT, async () => {
  await withSite(async ({ directory, path, endpoint }) => {
    const says = (access: EndpointOptions['access'], message: string) => {
      assert.throws(() => endpoint({ access }).open(), new PathError(message));
      assert.equal(existsSync(path), false);
    };
    const cure = 'on this machine; create it or give another';
    says({ owner: 'no-such-user' }, `there is no user 'no-such-user' ${cure}`);
    says({ group: 'no-such-group' }, `there is no group 'no-such-group' ${cure}`);
    // As somebody who is not root and in no other group.
    chmodSync(directory, 0o777);
    process.setegid!(34567);
    process.seteuid!(34567);
    try {
      const whole = `cannot listen on ${path}: this user may not give it to`;
      const way = 'run as one who may, or leave that out';
      says({ owner: 'root' }, `${whole} user root (only root may); ${way}`);
      says({ group: 0 }, `${whole} group 0 (only its members may, and root); ${way}`);
      endpoint({ access: { mode: 0o600, owner: 34567, group: 34567 } }).open();
    } finally {
      process.seteuid!(0);
      process.setegid!(0);
    }
  });
});

test('who connected is told, once while it comes to nothing', async () => {
  await withSite(async ({ path, notices, endpoint }) => {
    const peers: (PeerInfo | undefined)[] = [];
    const server = endpoint({ onConnected: () => peers.push(server.peer) });
    server.open();
    const [pid, uid, gid] = [process.pid, process.getuid!(), process.getgid!()];
    for (let round = 0; round < 20; round++) {
      const front = new FrontEnd(connectUnix(path));
      await until(() => server.connected);
      front.close();
      await until(() => !server.connected);
    }
    assert.deepEqual(peers, [{ pid, uid, gid, process: processName(pid) }]);
    // One that does its work and comes back is told each time, but never without end.
    for (let round = 0; round < 60; round++) {
      const front = new FrontEnd(connectUnix(path));
      await front.barrier();
      front.close();
      await until(() => !server.connected);
    }
    assert.ok(peers.length >= 10 && peers.length <= 32, `${peers.length} told`);
    assert.deepEqual(notices, []);
    // However many came, trouble is told.
    const front = new FrontEnd(connectUnix(path));
    front.send(vu.VU_SET_LOG_FD, 'none', null);
    await front.expectClosed();
    front.close();
    assert.match(notices[0]!, /^SET_LOG_FD refused/);
  });
});

test('a second front end is turned away while the first lives, once in words', async () => {
  await withSite(async ({ path, backend, notices, endpoint }) => {
    endpoint().open();
    const first = new FrontEnd(connectUnix(path));
    await first.barrier();
    for (let i = 0; i < 5; i++) {
      const second = new FrontEnd(connectUnix(path));
      await second.expectClosed();
      second.close();
    }
    await first.barrier();
    assert.deepEqual(notices, [
      `a second front end (pid ${process.pid}) on ${path} was turned away: ` +
        `pid ${process.pid} is connected`,
    ]);
    assert.equal(backend.named('connected').length, 1);
    // The first dies and the next comes before anybody looked: it is let in.
    first.close();
    const next = new FrontEnd(connectUnix(path));
    await next.barrier();
    assert.equal(backend.named('connected').length, 2);
    assert.deepEqual(backend.ends, ['the peer closed the connection']);
    next.close();
  });
});

test('closing tells the back end and the front end', async () => {
  await withSite(async ({ path, backend, endpoint }) => {
    const server = endpoint();
    server.open();
    const front = new FrontEnd(connectUnix(path));
    await front.barrier();
    server.close();
    assert.deepEqual(backend.ends, ['the port was closed']);
    await front.expectClosed();
    front.close();
    // And it can be opened again.
    server.open();
    const again = new FrontEnd(connectUnix(path));
    await again.barrier();
    again.close();
  });
});

test('a stale socket file is taken over; one in use is not, and its owner is named', async () => {
  await withSite(async ({ path, endpoint }) => {
    close(listenUnix(path));
    const stale = lstatSync(path).ino;
    assert.ok(stale > 0);
    const server = endpoint();
    server.open();
    close(connectUnix(path));
    assert.throws(() => endpoint().open(), new PathError(`${path} is in use by this very process`));
    server.close();
    // Another process: it holds a socket until its stdin ends.
    const script = `require('node:net').createServer().listen(${JSON.stringify(path)}, () =>
      console.log('up')); process.stdin.on('end', () => process.exit()).resume()`;
    const child = spawn(process.execPath, ['-e', script], { stdio: ['pipe', 'pipe', 'inherit'] });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    await new Promise((resolve) => child.stdout.once('data', resolve));
    assert.throws(
      () => endpoint().open(),
      new PathError(`${path} is in use by another process (pid ${child.pid})`),
    );
    assert.ok(existsSync(path));
    child.kill('SIGKILL');
    await exited;
    // Killed, it left its file behind: stale.
    assert.ok(existsSync(path));
    endpoint().open();
  });
});

test('paths that cannot be had are told with the cure', async () => {
  await withSite(async ({ directory, path, endpoint }) => {
    const says = (options: Partial<EndpointOptions>, message: RegExp) =>
      assert.throws(
        () => endpoint(options).open(),
        (error) => error instanceof Error && message.test(error.message),
      );
    writeFileSync(path, '');
    says({}, /it is a regular file, not a socket; remove it or choose another path$/);
    says({ path: join(path, 'x') }, /port\.sock is not a directory; choose another path$/);
    unlinkSync(path);
    mkdirSync(path);
    says({}, /it is a directory, not a socket/);
    symlinkSync('/nowhere', join(directory, 'link'));
    says({ path: join(directory, 'link') }, /it is a symbolic link, not a socket/);
    says(
      { path: join(directory, 'no/such.sock') },
      /the directory .*\/no does not exist; create it \(mkdir -p .*\/no\)$/,
    );
    const long = `/${'x'.repeat(107)}`;
    says({ path: long }, /is 108 bytes long; the system allows 107/);
    says({ path: long, mode: 'client' }, /is 108 bytes long; the system allows 107/);
    assert.ok(lstatSync(path).isDirectory());
  });
});

test('the file is removed only while it is ours', async () => {
  await withSite(async ({ directory, path, endpoint }) => {
    const server = endpoint();
    server.open();
    // Another takes the path: ours moved away, so that the inode cannot be used again.
    renameSync(path, join(directory, 'old'));
    const other = listenUnix(path);
    server.close();
    assert.ok(existsSync(path));
    close(other);
    unlinkSync(path);
    const second = endpoint();
    second.open();
    unlinkSync(path);
    second.close();
  });
});

test('a file that another takes over is left to it, and taken back once it is gone', async () => {
  await withSite(async ({ path, notices, endpoint }) => {
    const server = endpoint();
    server.open();
    const guest = new FrontEnd(connectUnix(path));
    await guest.barrier();
    unlinkSync(path);
    const other = listenUnix(path);
    const its = lstatSync(path).ino;
    await waitFor(() => notices.length > 0, 3000, 'the word about it');
    const taken = `the socket file ${path} was removed: ${path} is in use by this very process`;
    assert.deepEqual(notices, [taken]);
    assert.equal(lstatSync(path).ino, its);
    // Gone, and its file with it.
    close(other);
    unlinkSync(path);
    await waitFor(() => notices.length > 1, 3000, 'a new file');
    assert.equal(notices[1], `the socket file ${path} was removed: there is a new one`);
    // Who was connected all the time is; the next one finds the new file.
    await guest.barrier();
    guest.close();
    const next = new FrontEnd(connectUnix(path));
    await next.barrier();
    next.close();
  });
});

test('a client connects when the server appears, again and again, 200 times', async () => {
  await withSite(async ({ path, backend, notices, endpoint }) => {
    const client = endpoint({ mode: 'client' });
    client.open();
    assert.deepEqual(notices, [`waiting for ${path}: there is no such socket yet`]);
    let listener = listenUnix(path);
    const flat = openFds();
    const accept = async () => {
      let fd = acceptUnix(listener);
      for (; fd < 0; fd = acceptUnix(listener)) await new Promise(setImmediate);
      return new FrontEnd(fd);
    };
    for (let round = 0; round < 200; round++) {
      const front = await accept();
      await front.negotiate();
      front.close();
      await until(() => !client.connected);
      assert.equal(openFds(), flat);
      // The next attempt at once, rather than 200 waits of 50 ms.
      client.close();
      client.open();
    }
    assert.equal(backend.ends.length, 200);
    // And by itself: after a disconnection, and after the server's restart.
    let front = await accept();
    await front.negotiate();
    front.close();
    front = await accept();
    await front.barrier();
    close(listener);
    front.close();
    unlinkSync(path);
    await until(() => notices.length >= 2);
    listener = listenUnix(path);
    front = await accept();
    await front.barrier();
    assert.deepEqual(notices.slice(1), [`waiting for ${path}: there is no such socket yet`]);
    client.close();
    await front.expectClosed();
    front.close();
    close(listener);
  });
});

test('a server that hangs up at once is not asked in a tight loop, nor told of each time', async () => {
  await withSite(async ({ path, backend, notices, endpoint }) => {
    const listener = listenUnix(path);
    endpoint({ mode: 'client' }).open();
    for (let round = 0; round < 4; round++) {
      let fd = acceptUnix(listener);
      for (; fd < 0; fd = acceptUnix(listener)) await new Promise(setImmediate);
      const front = new FrontEnd(fd);
      front.send(vu.VU_SET_LOG_FD, 'none', null);
      await front.expectClosed();
      front.close();
    }
    assert.deepEqual(backend.ends.length, 4);
    assert.equal(notices.length, 1);
    assert.match(notices[0]!, /^SET_LOG_FD refused/);
    close(listener);
  });
});

test('a front end that floods with distinct mistakes cannot flood the log', async () => {
  await withSite(async ({ path, notices, endpoint }) => {
    endpoint().open();
    const front = new FrontEnd(connectUnix(path));
    await front.negotiate();
    for (let index = 100; index < 400; index++) {
      front.send(vu.VU_SET_VRING_NUM, 'state', { index, num: 1 }, { needReply: true });
      assert.equal(await front.expectU64(vu.VU_SET_VRING_NUM), 1n);
    }
    assert.ok(notices.length <= 40, `${notices.length} notices`);
    front.close();
  });
});

test('notices: once each, so many in a window, the rest counted', () => {
  const said: string[] = [];
  let now = 0;
  const notices = new Notices(
    (message) => said.push(message),
    () => now,
  );
  for (let i = 0; i < 100; i++) notices.say(`${i >> 1}`);
  assert.deepEqual(
    said,
    Array.from({ length: 16 }, (_, i) => `${i}`),
  );
  now = 10_000;
  notices.say('0');
  assert.equal(said.length, 16);
  notices.say('again');
  assert.deepEqual(said.slice(16), ['68 more notices were not shown', 'again']);
  notices.forget();
  notices.say('again');
  assert.equal(said.at(-1), 'again');
  assert.equal(said.length, 19);
});

test('a connection made and left before it was accepted does no harm', async () => {
  await withSite(async ({ path, backend, endpoint }) => {
    const server = endpoint();
    server.open();
    for (let i = 0; i < 10; i++) close(connectUnix(path));
    await until(() => backend.ends.length === 10 && !server.connected);
    const probe = connectUnix(path);
    assert.equal(recvWithFds(probe, Buffer.alloc(1), 0), 'again');
    close(probe);
  });
});
