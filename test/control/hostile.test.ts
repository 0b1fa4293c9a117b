// The control socket under clients that mean no good: whoever asks properly is answered, and nothing of
// the others stays.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { connectTo, probe } from '../../src/control/client.ts';
import { type ControlServer, serveControl } from '../../src/control/server.ts';
import { FakeSwitch } from '../cli/fixtures/fake-switch.ts';
import { openFds } from '../linux/fds.ts';

describe('a hostile client of the control socket', { timeout: 60_000 }, () => {
  const folder = mkdtempSync('/tmp/vhop-control-');
  const path = join(folder, 'x.sock');
  const api = new FakeSwitch({ name: 'lab' });
  let server: ControlServer;

  before(async () => {
    server = await serveControl(api, path);
  });
  after(async () => {
    await server.close();
    rmSync(folder, { recursive: true });
  });

  /** Connects, sends, and collects what comes until the server hangs up. */
  function talk(text: string | Buffer): Promise<string> {
    return new Promise((done) => {
      const socket = connect(path);
      let heard = '';
      socket.on('data', (part) => (heard += part));
      socket.on('error', () => {});
      socket.on('close', () => done(heard));
      socket.write(text);
    });
  }

  async function answered(): Promise<void> {
    assert.equal((await connectTo(path).get('/info')).name, 'lab');
  }

  async function settles(fds: number): Promise<void> {
    while (openFds() > fds) await new Promise((resolve) => setTimeout(resolve, 20));
  }

  const GARBAGE: [name: string, text: string | Buffer, heard: RegExp][] = [
    ['bytes that are no HTTP', Buffer.alloc(4096, 0xa5), /^HTTP\/1.1 400/],
    ['a vhost-user message', Buffer.from('010000000100000000000000', 'hex'), /^HTTP\/1.1 400/],
    ['JSON', '{"get": "/ports"}\n\n', /^HTTP\/1.1 400/],
    ['headers without end', `GET / HTTP/1.1\r\nx: ${'y'.repeat(100_000)}`, /^HTTP\/1.1 431/],
    ['a path without end', `GET /${'y'.repeat(100_000)} HTTP/1.1\r\n\r\n`, /^HTTP\/1.1 431/],
    [
      'a body that nobody wants',
      `POST /info HTTP/1.1\r\nhost: x\r\ncontent-length: 9999999999\r\n\r\n${'z'.repeat(200_000)}`,
      /^HTTP\/1.1 405/,
    ],
    ['a method there is not', 'STEAL /info HTTP/1.1\r\nhost: x\r\n\r\n', /^HTTP\/1.1 400/],
    ['CONNECT', 'CONNECT a:1 HTTP/1.1\r\nhost: x\r\n\r\n', /^$/],
    [
      'two lengths',
      'GET /info HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n',
      /^HTTP\/1.1 400/,
    ],
  ];
  for (const [name, text, heard] of GARBAGE) {
    it(`${name}: told or hung up on, and the next is answered`, async () => {
      await answered();
      const fds = openFds();
      assert.match(await talk(text), heard);
      await answered();
      await settles(fds);
    });
  }

  it('half requests, and nothing more: told after a while', async () => {
    const halves = ['GET /info HT', 'GET /info HTTP/1.1\r\nhost: x\r\n'];
    for (const heard of await Promise.all(halves.map(talk))) assert.match(heard, /^HTTP\/1.1 408/);
    await answered();
  });

  it('a thousand that say nothing: those who ask are answered, and few stay', async () => {
    const fds = openFds();
    const idle: Socket[] = [];
    for (let i = 0; i < 1000; i++) {
      const socket = connect(path).on('error', () => {});
      idle.push(socket);
      if (i % 100 === 0) await answered();
    }
    await answered();
    // Their ends of the connections are here as well: 64 of each are left.
    await settles(fds + 2 * 64);
    await answered();
    for (const socket of idle) socket.destroy();
    await settles(fds);
  });

  it('a thousand that hang up in the middle leave no descriptor', async () => {
    const fds = openFds();
    for (let i = 0; i < 1000; i++) {
      const socket = connect(path).on('error', () => {});
      await new Promise<void>((done) => socket.once('connect', done));
      socket.write('GET /stats HTTP/1.1\r\nho'.slice(0, i % 24));
      socket.destroy();
    }
    await answered();
    await settles(fds);
  });

  it('readers of events that do not read are cut off, and too many are turned away', async () => {
    const fds = openFds();
    const ask = 'GET /events HTTP/1.1\r\nhost: x\r\n\r\n';
    const readers = Array.from({ length: 16 }, () => connect(path).on('error', () => {}));
    for (const reader of readers) reader.write(ask);
    const heard = await Promise.all(
      readers.map((r) => new Promise((done) => r.once('data', (part) => done(String(part))))),
    );
    for (const each of heard) assert.match(String(each), /^HTTP\/1.1 200/);
    assert.match(await talk(`${ask.slice(0, -2)}connection: close\r\n\r\n`), /^HTTP\/1.1 503/);
    for (const reader of readers) reader.pause();
    const notice = { port: 'a', message: 'x'.repeat(60_000) };
    for (let i = 0; i < 40; i++) {
      api.emit('notice', notice);
      await new Promise(setImmediate);
    }
    await answered();
    for (const reader of readers) reader.resume();
    await settles(fds);
  });

  it('requests without end, unread, wait in bounded memory', async () => {
    const socket = connect(path).on('error', () => {});
    const batch = 'GET /stats HTTP/1.1\r\nhost: x\r\n\r\n'.repeat(1000);
    let taken = 0;
    while (taken < 200 && socket.write(batch)) taken++;
    for (let i = 0; i < 200; i++) socket.write(batch);
    await answered();
    await answered();
    // It reads no further than its answers get.
    assert.ok(socket.writableLength > 100 * batch.length, `${socket.writableLength} bytes wait`);
    socket.destroy();
  });
});

const BEHIND = { timeout: 60_000, concurrency: true };
describe('a hostile server behind the control socket', BEHIND, () => {
  const ANSWERS: [name: string, send: (socket: Socket) => void, why: RegExp][] = [
    ['garbage', (socket) => socket.end('SSH-2.0\r\n'), /./],
    [
      'JSON that is none',
      (socket) => socket.end('HTTP/1.1 200 OK\r\n\r\n{"name": "x"'),
      /not a vhop/,
    ],
    [
      'an answer without end',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        const more = () => {
          while (!socket.destroyed && socket.write('x'.repeat(1 << 20)));
        };
        socket.on('drain', more);
        more();
      },
      /not a vhop switch/,
    ],
    [
      'an answer that trickles in',
      (socket) => {
        socket.write('HTTP/1.1 200 OK\r\n\r\n');
        const timer = setInterval(() => socket.write(' '), 100);
        socket.on('close', () => clearInterval(timer));
      },
      /does not answer/,
    ],
  ];
  for (const [name, send, why] of ANSWERS) {
    it(`${name} is told in a sentence`, async () => {
      const folder = mkdtempSync('/tmp/vhop-control-');
      const path = join(folder, 'x.sock');
      const server = createServer((socket) => {
        socket.on('error', () => {});
        socket.once('data', () => send(socket));
      });
      await new Promise<void>((done) => server.listen(path, done));
      const found = await probe(path);
      assert.equal(found.state, 'other');
      assert.match('why' in found ? found.why : '', why);
      await new Promise<void>((done) => server.close(() => done()));
      rmSync(folder, { recursive: true });
    });
  }
});
