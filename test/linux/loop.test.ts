import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import {
  close,
  drain,
  EPOLLET,
  EPOLLIN,
  EPOLLOUT,
  Epoll,
  EventLoop,
  eventfd,
  gettid,
  setAffinity,
  signal,
} from '../../src/linux/index.ts';
import { openFds } from './fds.ts';

const linux = new URL('../../src/linux/index.ts', import.meta.url).href;

test('epoll returns the data given, level and edge triggered', async () => {
  const before = openFds();
  const epoll = new Epoll(4);
  const [a, b] = [eventfd(), eventfd()];
  epoll.add(a, EPOLLIN, 0xffffffff);
  epoll.add(b, EPOLLIN | EPOLLET, 7);
  assert.equal(epoll.wait(0), 0);
  signal(a);
  assert.equal(epoll.wait(0), 1);
  assert.equal(epoll.data(0), 0xffffffff);
  assert.equal(epoll.events(0), EPOLLIN);
  assert.equal(epoll.wait(0), 1, 'level triggered: still there');
  drain(a);
  signal(b);
  assert.equal(await epoll.waitAsync(-1), 1);
  assert.equal(epoll.data(0), 7);
  assert.equal(epoll.wait(0), 0, 'edge triggered: told once');
  epoll.modify(a, EPOLLOUT, 9);
  assert.equal(Epoll.adopt(epoll.fd).wait(0), 1);
  epoll.remove(a);
  epoll.remove(b);
  assert.throws(() => epoll.remove(b), /epoll_ctl fd \d+: no such file or directory \(ENOENT\)/);
  for (const fd of [a, b]) close(fd);
  epoll.close();
  assert.throws(() => epoll.wait(0), /EBADF/);
  await assert.rejects(epoll.waitAsync(0), /EBADF/);
  assert.equal(openFds(), before);
});

test('a worker waits on an inherited epoll fd', async () => {
  const epoll = new Epoll();
  const [there, back] = [eventfd(), eventfd()];
  epoll.add(there, EPOLLIN, 5);
  const source = `
    const { workerData } = require('node:worker_threads');
    import(${JSON.stringify(linux)}).then(({ Epoll, drain, signal, setAffinity, gettid }) => {
      const epoll = Epoll.adopt(workerData.epoll);
      if (epoll.wait(-1) === 1 && epoll.data(0) === 5 && drain(workerData.there)) {
        setAffinity([0]);
        signal(workerData.back);
      }
    });`;
  const workerData = { epoll: epoll.fd, there, back };
  const worker = new Worker(source, { eval: true, workerData });
  const exited = new Promise((resolve) => worker.once('exit', resolve));
  signal(there);
  assert.equal(await exited, 0);
  assert.equal(drain(back), true);
  for (const fd of [there, back]) close(fd);
  epoll.close();
});

test('callbacks run until unwatched; an exception goes to onError; close leaves nothing', async () => {
  const before = openFds();
  const errors: unknown[] = [];
  const loop = new EventLoop({ onError: (error) => errors.push(error) });
  const [a, b] = [eventfd(), eventfd()];
  const counts = { a: 0, b: 0 };
  const done = Promise.withResolvers<void>();
  const unwatchA = loop.watch(a, EPOLLIN, () => {
    drain(a);
    counts.a++;
    signal(b);
    throw new Error('from a callback');
  });
  assert.throws(() => loop.watch(a, EPOLLIN, () => {}), /EEXIST/);
  const unwatchB = loop.watch(b, EPOLLIN, () => {
    drain(b);
    counts.b++;
    if (counts.b < 100) signal(a);
    else done.resolve();
  });
  signal(a);
  await done.promise;
  assert.deepEqual(counts, { a: 100, b: 100 });
  assert.equal(errors.length, 100);
  unwatchA();
  unwatchA();
  await Promise.all([loop.close(), loop.close()]);
  unwatchB();
  assert.throws(() => loop.watch(a, EPOLLIN, () => {}), /closed/);
  for (const fd of [a, b]) close(fd);
  assert.equal(openFds(), before);
});

test('an fd unwatched and replaced within a batch gets no stale event', async () => {
  const loop = new EventLoop();
  const done = Promise.withResolvers<void>();
  // Both are ready before the loop looks, so both are in one batch; whichever comes first removes
  // the other and opens a new eventfd of the same number.
  const fds = [eventfd(), eventfd()];
  const stale: string[] = [];
  const unwatch: (() => void)[] = [];
  let ran = 0;
  const fired = (mine: number) => {
    ran++;
    const other = 1 - mine;
    unwatch[other]!();
    const number = fds[other]!;
    close(number);
    fds[other] = eventfd();
    assert.equal(fds[other], number, 'the number was not used again: the test proves nothing');
    unwatch[other] = loop.watch(number, EPOLLIN, () => stale.push('newcomer'));
    drain(fds[mine]!);
    setImmediate(done.resolve);
  };
  for (const [i, fd] of fds.entries()) {
    signal(fd);
    unwatch[i] = loop.watch(fd, EPOLLIN, () => fired(i));
  }
  await done.promise;
  for (const each of unwatch) each();
  await loop.close();
  assert.equal(ran, 1);
  assert.deepEqual(stale, []);
  for (const fd of fds) close(fd);
});

test('an open loop keeps the process alive, process.exit ends it, a closed one lets it go', () => {
  const run = (body: string) => {
    const source = `import { EventLoop } from ${JSON.stringify(linux)};
      const loop = new EventLoop(); ${body}`;
    const args = ['--input-type=module', '-e', source];
    return spawnSync(process.execPath, args, { timeout: 10_000 }).status;
  };
  assert.equal(run('setTimeout(() => process.exit(3), 50)'), 3);
  assert.equal(run('setTimeout(() => loop.close().then(() => { process.exitCode = 4; }), 50)'), 4);
  assert.equal(run('setTimeout(() => { throw new Error("x"); }, 50)'), 1);
});

test('affinity is the calling thread’s own', () => {
  const allowed = () => {
    const status = readFileSync(`/proc/self/task/${gettid()}/status`, 'utf8');
    return /Cpus_allowed_list:\s*(\S+)/.exec(status)![1]!;
  };
  const before = allowed();
  const first = Number(/^\d+/.exec(before)![0]);
  setAffinity([first]);
  assert.equal(allowed(), String(first));
  const all = before.split(',').flatMap((range) => {
    const [low, high = low] = range.split('-').map(Number) as [number, number?];
    return Array.from({ length: high! - low + 1 }, (_, i) => low + i);
  });
  setAffinity(all);
  assert.equal(allowed(), before);
  assert.throws(() => setAffinity([]), RangeError);
  assert.throws(() => setAffinity([1024]), RangeError);
  assert.throws(() => setAffinity([1023]), /EINVAL/);
});
