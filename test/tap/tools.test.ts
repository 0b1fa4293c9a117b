// Seed 001's three tests: pkt-gen into a receiver at the other side, and back; a bridge between a port
// and its host rings, through which the other side pings and chats. All as processes of their own.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { ip } from '../linux/network.ts';
import { Child, exec, removeFolder, root, temporaryFolder, waitFor } from '../peers/process.ts';
import { FAR, FAR_IP, far, farErrors, moveFar, NEAR_IP, oneHost, twoHosts } from './world.ts';

const vhop = (args: string[]): Child => new Child(join(root, 'bin/vhop'), args);

interface Totals {
  packets: number;
  bytes: number;
}

describe('pkt-gen and bridge', () => {
  let folder: string;
  let lab: Switch;
  let there = false;
  const socket = (name: string): string => join(folder, `${name}.sock`);
  const port = (name: string) => lab.ports().find((each) => each.name === name)!;
  const stats = (name: string) => lab.stats().ports.find((each) => each.port === name)!;
  before(async (t) => {
    there = await twoHosts(t as never);
    if (!there) return;
    folder = temporaryFolder();
    lab = await openSwitch();
    for (const name of ['a', 'b']) await lab.addPort({ type: 'vhost-user', path: socket(name) });
  });
  after(async () => {
    if (!there) return;
    await lab.close();
    await oneHost();
    removeFolder(folder);
  });

  const test = (name: string, run: () => Promise<void>) =>
    it(name, { timeout: 60_000 }, async (t) => {
      if (!there) return t.skip('no namespaces');
      await run();
    });

  /** Starts pkt-gen and waits until its port is up, or was: a short run may be over by then. */
  async function generator(name: string, ...args: string[]): Promise<Child> {
    const child = vhop(['pkt-gen', '-i', `vhop:${socket(name)}`, ...args]);
    const runs = () => port(name).state === 'up' || child.exit !== undefined;
    await waitFor(runs, 10_000, `port ${name} up`, () => child.tail());
    return child;
  }

  async function totals(child: Child): Promise<Totals> {
    assert.equal(await child.finish(20_000), 0, child.tail());
    const last = child.stdout.trim().split('\n').at(-1)!;
    return JSON.parse(last) as Totals;
  }

  for (const format of [[], ['--split'], ['-H', '0']]) {
    test(`tx into rx at the other side ${format.join(' ')}`, async () => {
      const before = [stats('a'), stats('b')];
      const rx = await generator('b', '-f', 'rx', '-n', '5000', '-W', '--json', ...format);
      // As fast as the receiver takes them for certain: what is lost is counted, but not here.
      const tx = await generator(
        'a',
        '-f',
        'tx',
        '-n',
        '5000',
        '-R',
        '5000',
        '-l',
        '64',
        '--json',
        ...format,
      );
      const sent = await totals(tx);
      const received = await totals(rx);
      assert.deepEqual([sent.packets, received.packets], [5000, 5000]);
      assert.equal(received.bytes, 5000 * 64);
      assert.equal(stats('a').txFrames - before[0]!.txFrames, 5000);
      assert.equal(stats('b').rxFrames - before[1]!.rxFrames, 5000);
    });
  }

  test('numbered frames arrive in order, none twice', async () => {
    const rx = await generator('b', '-f', 'rxseq', '-n', '10000', '-W', '--json');
    const tx = await generator('a', '-f', 'txseq', '-n', '10000', '-R', '5000', '--json');
    await totals(tx);
    assert.equal(await rx.finish(20_000), 0, rx.tail());
    const seen = JSON.parse(rx.stdout.trim().split('\n').at(-1)!) as Record<string, unknown>;
    assert.equal(seen['packets'], 10000, rx.stdout);
    for (const bad of ['lost', 'reordered', 'duplicates']) {
      if (bad in seen) assert.equal(seen[bad], 0, rx.stdout);
    }
  });

  test('ping and pong', async () => {
    const pong = await generator('b', '-f', 'pong');
    const ping = await generator('a', '-f', 'ping', '-n', '500', '-l', '64');
    assert.equal(await ping.finish(20_000), 0, ping.tail());
    assert.match(ping.stdout, /p50|percentile/i);
    pong.kill('SIGINT');
    assert.equal(await pong.finish(10_000), 0, pong.tail());
  });

  test('a capture is replayed, byte for byte', async () => {
    const frames = [60, 342, 1514].map((length, i) => {
      const bytes = Buffer.alloc(length, i + 1);
      bytes.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, i, 0x88, 0xb5]);
      return bytes;
    });
    const head = Buffer.alloc(24);
    head.writeUInt32LE(0xa1b2c3d4, 0);
    head.writeUInt16LE(2, 4);
    head.writeUInt16LE(4, 6);
    head.writeUInt32LE(65535, 16);
    head.writeUInt32LE(1, 20);
    const records = frames.flatMap((bytes) => {
      const record = Buffer.alloc(16);
      record.writeUInt32LE(bytes.length, 8);
      record.writeUInt32LE(bytes.length, 12);
      return [record, bytes];
    });
    const file = join(folder, 'three.pcap');
    writeFileSync(file, Buffer.concat([head, ...records]));
    const app = lab.addNetmapPort({ name: 'watch' });
    try {
      const tx = await generator('a', '-f', 'tx', '-n', '30', '-P', file, '--json');
      const seen: Buffer[] = [];
      const [ring] = app.rx;
      const collect = () => {
        app.rxSync(ring!);
        for (let i = ring!.head; i !== ring!.tail; i = ring!.next(i)) {
          seen.push(Buffer.from(ring!.bytes(i)));
          ring!.head = ring!.cur = ring!.next(i);
        }
        return seen.length >= 30;
      };
      await waitFor(collect, 10_000, '30 frames', () => `${seen.length}`);
      assert.deepEqual(await totals(tx).then(({ packets }) => packets), 30);
      assert.deepEqual(
        seen,
        Array.from({ length: 30 }, (_, i) => frames[i % 3]),
      );
    } finally {
      await app.close();
    }
  });

  test('a bridge between a port and its host rings: the other side pings and chats', async () => {
    await lab.addPort({ type: 'tap', name: 'far' });
    await moveFar('far');
    const bridge = vhop(['bridge', '-i', `vhop:${socket('a')}`, '--tap', 'hostside', '-w', '5']);
    try {
      await waitFor(
        () => port('a').state === 'up',
        10_000,
        'the bridge',
        () => bridge.tail(),
      );
      const device = async () => /hostside/.test(await ip('link'));
      await waitFor(device, 5000, 'the device', () => bridge.tail());
      await ip(`addr add ${NEAR_IP}/24 dev hostside`);
      const ping = far('busybox', ['ping', '-A', '-q', '-c', '200', '-w', '20', NEAR_IP]);
      await ping.finish(30_000);
      assert.match(ping.stdout, /200 packets transmitted, 200 packets received/, ping.tail());

      const lines: string[] = [];
      const server = createServer((socket) => {
        socket.on('data', (data) => {
          lines.push(`${data}`);
          socket.write(`you said ${data}`);
        });
      });
      await new Promise<void>((done) => server.listen(8000, NEAR_IP, done));
      const nc = far('busybox', ['nc', NEAR_IP, '8000']);
      for (const line of ['hello', 'and a longer line '.repeat(300)]) {
        nc.write(`${line}\n`);
        await waitFor(
          () => nc.stdout.includes(`you said ${line.slice(0, 5)}`),
          5000,
          'an answer',
          () => nc.tail(),
        );
      }
      await waitFor(() => lines.join('').length === 6 + 5401, 5000, 'all that was said');
      nc.kill();
      await new Promise((done) => server.close(done));

      // And in bulk, both ways.
      const iperf = far('iperf3', ['-s', '-1']);
      await sleep(300);
      const text = await exec('iperf3', ['-c', FAR_IP, '-n', '20M', '-J']);
      const { end } = JSON.parse(text) as { end: { sum_received: { bytes: number } } };
      assert.ok(end.sum_received.bytes > 15e6, `${end.sum_received.bytes} bytes`);
      await iperf.finish(5000);
      assert.equal((await farErrors()).checksums, 0);
    } finally {
      bridge.kill('SIGINT');
      await bridge.finish(10_000);
      await lab.removePort('far');
    }
    assert.equal(bridge.exit, 0, bridge.tail());
    assert.match(bridge.stdout + bridge.stderr, /\d+/);
    assert.doesNotMatch(await ip('link'), /hostside/);
    assert.match(await exec('ip', ['netns', 'list']), new RegExp(FAR));
  });

  test('on a TAP, and on a port of a running switch by its name', async () => {
    const tx = vhop([
      'pkt-gen',
      '-i',
      'tap:gen0',
      '-f',
      'tx',
      '-n',
      '1000',
      '-R',
      '5000',
      '--json',
    ]);
    assert.deepEqual((await totals(tx)).packets, 1000);
    const runs = vhop(['switch', socket('c'), '--name', `tools${process.pid}`]);
    try {
      await waitFor(
        () => runs.stdout.includes('runs (pid'),
        10_000,
        'a switch',
        () => runs.tail(),
      );
      const named = `vhop:c@tools${process.pid}`;
      const sent = await totals(vhop(['pkt-gen', '-i', named, '-f', 'tx', '-n', '1000', '--json']));
      assert.equal(sent.packets, 1000);
    } finally {
      runs.kill('SIGINT');
      await runs.finish(10_000);
    }
  });

  test('a back end that goes away in the middle: one sentence, the totals, exit 1', async () => {
    await lab.addPort({ type: 'vhost-user', path: socket('gone') });
    const tx = await generator('gone', '-f', 'tx', '-R', '1000', '--json');
    await lab.removePort('gone');
    assert.equal(await tx.finish(10_000), 1, tx.tail());
    assert.match(tx.stderr, /vhop: port vhop:\S+gone\.sock: /);
  });

  for (const [name, args, says] of [
    ['nobody there', ['-i', 'vhop:/tmp/none-there.sock', '-w', '1'], /no such socket yet/],
    ['no such port', ['-i', 'vhop:nobody@nowhere'], /no switch named 'nowhere'|nowhere/],
    ['a name that is none', ['-i', 'vhop:what ever'], /names are vhop:/],
  ] as const) {
    test(`${name}: a sentence and exit ${name === 'nobody there' ? 1 : 'not 0'}`, async () => {
      const child = vhop(['pkt-gen', ...args]);
      assert.notEqual(await child.finish(10_000), 0);
      assert.match(child.stderr, says);
      assert.match(child.stderr, /^vhop: [^\n]+\n$/);
    });
  }
});
