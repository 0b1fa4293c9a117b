// `vhop pkt-gen` over ports without a device: what is sent, what is told.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { NS_BUF_CHANGED } from '../../src/netmap/types.ts';
import { backToBack, drain, FakeMemory, type FakePort, FakeTime, opener } from './fake-netmap.ts';
import { decode } from './fixtures/frames.ts';
import { run } from './fixtures/run.ts';

interface World {
  time: FakeTime;
  a: FakePort;
  b: FakePort;
  /** Options that ports were opened with. */
  opened: ReturnType<typeof opener>['opened'];
  gen(port: 'a' | 'b', ...args: string[]): ReturnType<typeof run>;
}

function world(options: { slots?: number; queues?: number; memory?: FakeMemory } = {}): World {
  const time = new FakeTime();
  const [a, b] = backToBack({ time, slots: 2048, memory: new FakeMemory(20_000), ...options });
  const { open, opened } = opener({ a, b });
  const gen: World['gen'] = (port, ...args) =>
    run(['pkt-gen', '-i', port, ...args], { netmap: open, time });
  return { time, a, b, opened, gen };
}

/** What a port receives while a run sends, whatever its rings hold. */
async function received(w: World, ...args: string[]): Promise<Uint8Array[]> {
  const frames: Uint8Array[] = [];
  const turn = w.time.turn.bind(w.time);
  w.time.turn = () => {
    frames.push(...drain(w.b));
    return turn();
  };
  const { status, err } = await w.gen('a', ...args);
  assert.equal(status, 0, err);
  frames.push(...drain(w.b));
  return frames;
}

let folder: string;
before(() => {
  folder = mkdtempSync('/tmp/vhop-pkt-gen-');
});
after(() => rmSync(folder, { recursive: true }));

function capture(frames: readonly Uint8Array[]): string {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4);
  header.writeUInt32LE(1, 20);
  const records = frames.flatMap((frame) => {
    const record = Buffer.alloc(16);
    record.writeUInt32LE(frame.length, 8);
    record.writeUInt32LE(frame.length, 12);
    return [record, frame];
  });
  const path = join(folder, `${frames.length}-${frames[0]?.length}.pcap`);
  writeFileSync(path, Buffer.concat([header, ...records]));
  return path;
}

describe('pkt-gen -f tx', () => {
  it('sends so many frames, each whole and the same', async () => {
    const w = world({ slots: 64 });
    const frames = await received(w, '-f', 'tx', '-n', '5000', '-l', '60');
    assert.equal(frames.length, 5000);
    for (const frame of frames) assert.deepEqual(frame, frames[0]);
    const { from, to, mac, ports } = decode(frames[0]!);
    assert.deepEqual([from, to, ...ports], ['10.0.0.1', '10.1.0.1', 1234, 1234]);
    assert.match(mac[0], /^52:54:00/);
    assert.equal(mac[1], 'ff:ff:ff:ff:ff:ff');
    assert.ok(w.a.closed);
  });

  it('sends what -s -d -S -D -l -6 say', async () => {
    const frames = await received(
      world(),
      ...['-f', 'tx', '-n', '3', '-6', '-l', '99', '-s', '[fd00::7]:9', '-d', 'fd00::8'],
      ...['-S', '2:0:0:0:0:1', '-D', '2:0:0:0:0:2'],
    );
    assert.equal(frames.length, 3);
    for (const frame of frames) {
      assert.equal(frame.length, 99);
      const { from, to, mac, ports } = decode(frame);
      assert.equal(from, 'fd00:0000:0000:0000:0000:0000:0000:0007');
      assert.equal(to, 'fd00:0000:0000:0000:0000:0000:0000:0008');
      assert.deepEqual(mac, ['02:00:00:00:00:01', '02:00:00:00:00:02']);
      assert.deepEqual(ports, [9, 1234]);
    }
  });

  it('writes frames anew where they vary, and where a slot has another buffer', async () => {
    const frames = await received(world(), '-f', 'tx', '-n', '300', '-d', '10.1.0.0-10.1.0.255');
    assert.deepEqual(
      frames.map((frame) => Number(decode(frame).to.split('.')[3])),
      Array.from({ length: 300 }, (_, i) => i % 256),
    );
    const random = await received(world(), '-f', 'tx', '-n', '100', '-z', '-Z');
    assert.ok(new Set(random.map((frame) => decode(frame).from)).size > 90);
    assert.ok(new Set(random.map((frame) => decode(frame).to)).size > 90);

    const w = world({ slots: 8 });
    const spare = w.a.memory.takeBuffers(1)[0]!;
    const sync = w.a.txSync.bind(w.a);
    w.a.txSync = (ring) => {
      const space = sync(ring);
      // As a pipe does: the buffer that was sent stays with the other side.
      if (w.a.tx[0]!.counters.frames === 7) ring.setBuffer(0, spare);
      return space;
    };
    const swapped = await received(w, '-f', 'tx', '-n', '30');
    for (const frame of swapped) assert.deepEqual(frame, swapped[0]);

    // The same buffer, but somebody had it in between.
    const x = world({ slots: 8 });
    const send = x.a.txSync.bind(x.a);
    let lent = false;
    x.a.txSync = (ring) => {
      const space = send(ring);
      if (x.a.tx[0]!.counters.frames === 7 && !lent) {
        lent = true;
        ring.bytes(0).fill(0xee);
        ring.setFlags(0, NS_BUF_CHANGED);
      }
      return space;
    };
    const flagged = await received(x, '-f', 'tx', '-n', '30');
    for (const frame of flagged) assert.deepEqual(frame, flagged[0]);
  });

  it('has sizes from the second -l to below the first', async () => {
    const frames = await received(world(), '-f', 'tx', '-n', '800', '-l', '70', '-l', '64');
    assert.deepEqual([...new Set(frames.map((f) => f.length))].sort(), [64, 65, 66, 67, 68, 69]);
    for (const frame of frames) decode(frame);
  });

  it('spreads frames over slots: -F, -M, and where a buffer is too small', async () => {
    for (const [args, slots, size] of [
      [['-F', '5', '-l', '1003'], 5, 1003],
      [['-M', '300', '-l', '1000'], 4, 1000],
      [['-l', '9000'], 5, 9000],
      [['-F', '64', '-l', '60'], 60, 60],
    ] as const) {
      const w = world({ slots: 100 });
      const frames = await received(w, '-f', 'tx', '-n', '50', ...args);
      assert.equal(frames.length, 50);
      for (const frame of frames) {
        assert.equal(frame.length, size);
        decode(frame);
      }
      // Slots that a frame took: how far the ring went on.
      assert.equal(w.a.tx[0]!.head, (50 * slots) % 100);
    }
  });

  it('replays a capture, round and round, byte for byte', async () => {
    const one = Buffer.from('0123456789abcdef-first');
    const two = Buffer.alloc(1514, 7);
    const frames = await received(world(), '-f', 'tx', '-n', '9', '-P', capture([one, two]));
    assert.deepEqual(
      frames.map((frame) => Buffer.from(frame)),
      [one, two, one, two, one, two, one, two, one],
    );
    const alone = await received(world(), '-f', 'tx', '-n', '5', '-P', capture([two]));
    assert.deepEqual(
      alone.map((frame) => Buffer.from(frame)),
      [two, two, two, two, two],
    );
    const long = Buffer.alloc(4000, 9);
    const cut = await received(world(), '-f', 'tx', '-n', '2', '-F', '3', '-P', capture([long]));
    assert.deepEqual(
      cut.map((frame) => Buffer.from(frame)),
      [long, long],
    );
  });

  it('keeps its rate within 2 % although every sleep is late', async () => {
    for (const rate of [10, 10_000, 250_000]) {
      const w = world();
      w.time.late = 900_000;
      const start = w.time.ns;
      const count = rate * 3;
      const frames = await received(w, '-f', 'tx', '-R', String(rate), '-n', String(count));
      assert.equal(frames.length, count);
      const seconds = (w.time.ns - start) / 1e9;
      // The first goes at once: one less than the count takes the time.
      assert.ok(Math.abs((count - 1) / seconds / rate - 1) < 0.02, `${rate}: ${seconds} s`);
    }
  });

  it('uses -p queue pairs in turn', async () => {
    const w = world({ queues: 4, slots: 256 });
    const frames = await received(w, '-f', 'tx', '-n', '40', '-p', '4', '-b', '5', '-C', '256');
    assert.equal(frames.length, 40);
    assert.deepEqual(
      w.a.tx.map((ring) => ring.counters.frames),
      [10, 10, 10, 10],
    );
    const { queues, ringSize, timeoutMs } = w.opened[0]!.options;
    assert.deepEqual([queues, ringSize, timeoutMs], [4, 256, 10_000]);
  });

  it('spreads a pace that one queue pair could keep over all', async () => {
    const w = world({ queues: 4, slots: 256 });
    await received(w, '-f', 'tx', '-n', '40', '-p', '4', '-R', '300');
    assert.deepEqual(
      w.a.tx.map((ring) => ring.counters.frames),
      [10, 10, 10, 10],
    );
  });

  it('leaves room for the header that -H wants, all zeros', async () => {
    const w = world();
    w.a.memory.bytes.fill(0xee);
    await received(w, '-f', 'tx', '-n', '2', '-H', '12', '-w', '3');
    assert.equal(w.opened[0]!.options.headers, 'kept');
    assert.equal(w.opened[0]!.options.timeoutMs, 3000);
    const at = w.a.tx[0]!.address(1);
    assert.deepEqual([...w.a.memory.bytes.subarray(at - 13, at)], [0xee, ...Array(12).fill(0)]);
    const [rubbish] = await received(w, '-f', 'tx', '-n', '3', '-r', '-l', '50');
    assert.equal(rubbish!.length, 50);
  });

  it('says so when the other side does not take what was sent', async () => {
    const w = world({ slots: 64 });
    const sync = w.a.txSync.bind(w.a);
    w.a.txSync = (ring) => {
      // One frame less than there are stays for ever.
      if (w.a.tx[0]!.counters.frames >= 40) return ring.space;
      return sync(ring);
    };
    const { status, out, err } = await w.gen(
      'a',
      '-f',
      'tx',
      '-n',
      '60',
      '-b',
      '20',
      '-T',
      '60000',
    );
    assert.equal(status, 1);
    assert.match(err, /^vhop: a: 20 slots were not sent, the other side takes no more: see/);
    assert.match(out, /^Sent 60 packets/m);
  });

  it('gives the event loop a turn every 2 ms', async () => {
    const w = world();
    w.a.tx[0]!.peer = undefined;
    const start = w.time.ns;
    await w.gen('a', '-f', 'tx', '-n', '3000000');
    assert.ok(w.time.turns >= Math.floor((w.time.ns - start) / 2.2e6));
    assert.ok(w.time.turns > 1);
  });
});

describe('pkt-gen tells', () => {
  it("netmap's lines", async () => {
    const w = world();
    w.a.tx[0]!.peer = undefined;
    const { status, out, err } = await w.gen('a', '-f', 'tx', '-R', '1000', '-n', '2500', '-A');
    assert.equal(status, 0);
    assert.match(
      out,
      /^Sending on a: 1 queues, 1 threads and 1 cpus\.\n10\.0\.0\.1 -> 10\.1\.0\.1 \(/,
    );
    const lines = out.split('\n').slice(2);
    assert.match(
      lines[0]!,
      /^Sent 2500 packets 150000 bytes 834 events 60 bytes each in 2\.50 sec/,
    );
    assert.match(
      lines[1]!,
      /^Speed: 1\.000 Kpps Bandwidth: 480\.\d+ Kbps \(raw 672\.\d+ Kbps\)\. Average batch: 3\.00 pkts$/,
    );
    assert.match(
      lines[2]!,
      /^Rate over 2 intervals: min \S+ pps avg \S+ K?pps max \S+ K?pps std \S+ pps$/,
    );
    const reports = err.trimEnd().split('\n');
    assert.equal(reports.length, 2);
    for (const report of reports) {
      assert.match(
        report,
        /^123\.456789 main_thread \[vhop\] \S+ K?pps \[avg\/std \S+ K?\/\S+ pps\] \(\S+ K?pkts \S+ Kbps in 10\d{5} usec\) 3\.00 avg_batch 2047 min_space$/,
      );
    }
  });

  it('--json: an object a report, and one at the end', async () => {
    const w = world();
    const { out, err } = await w.gen(
      'a',
      '-f',
      'tx',
      '-R',
      '1000',
      '-n',
      '1200',
      '--json',
      '-T',
      '500',
    );
    assert.equal(err, '');
    const objects = out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      objects.map(({ type }) => type),
      ['interval', 'interval', 'total'],
    );
    assert.equal(objects[0].avgBatch, 3);
    const { packets, bytes, size, pps } = objects[2];
    assert.deepEqual([packets, bytes, size], [1200, 72_000, 60]);
    assert.ok(Math.abs(pps - 1000) < 20);
  });

  it('a dump of each slot with -X', async () => {
    const { out } = await world().gen(
      'a',
      '-f',
      'tx',
      '-n',
      '1',
      '-X',
      '-l',
      '50',
      '-S',
      '2:0:0:0:0:1',
    );
    assert.match(out, /^ring TX0 cur {5}0 \[buf {6}2 flags 0x0000 len {4}50\]$/m);
    assert.match(out, /^ {4}0: ff ff ff ff ff ff 02 00 00 00 00 01 08 00 45 10 \.{14}E\.$/m);
    assert.match(out, /^ {3}48: .. .. {43}\S\S$/m);
  });
});

describe('pkt-gen refuses', () => {
  const WRONG: [args: string[], message: RegExp][] = [
    [['-f', 'tz'], /'-f <function>' argument 'tz' is invalid\. Allowed choices are rx, tx, ping/],
    [['-f', 'tx', '-l', '20'], /-l 20: .* at least 42 bytes: give 42 to 65536$/],
    [['-f', 'ping', '-l', '50'], /-l 50: .* at least 54 bytes/],
    [['-f', 'tx', '-6', '-l', '60'], /-l 60: .* at least 62 bytes/],
    [['-f', 'tx', '-l', '60', '-l', '70'], /-l 60 -l 70: the second is the smaller one/],
    [['-R', '0'], /'-R <pps>' argument '0' is invalid\. Give a whole number from 1/],
    [['-n', 'abc'], /'-n <count>' argument 'abc' is invalid\. Give a whole number from 0/],
    [['-F', '100'], /'-F <n>' argument '100' is invalid\. Give a whole number from 1 to 64/],
    [['-M', '0'], /'-M <bytes>' argument '0' is invalid/],
    [
      ['-M', '10', '-f', 'tx', '-l', '1000'],
      /-l 1000: 1000 bytes in pieces of 10 are more than 64/,
    ],
    [['-F', '2', '-f', 'txseq'], /-l 60: a frame's first piece must hold 46 bytes for -f txseq/],
    [['-H', '11'], /'-H <bytes>' argument '11' is invalid\. Allowed choices are 0, 10, 12/],
    [['-I'], /-I: there are no indirect buffers here: leave it out$/],
    [['-c', '2'], /-c: one thread .* leave it out$/],
    [['-o', '16'], /-o 16: 16 has no meaning here: give a sum of/],
    [['-4', '-6'], /-4 and -6: frames are of one kind/],
    [['-p', '2', '-f', 'ping'], /-p 2: ping uses one queue pair/],
    [['-p', '2'], /-p 2: a has 1 queue pairs: ask for fewer/],
    [['-b', '2', '-f', 'ping'], /-b 2: ping has one frame in flight/],
    [['-C', '512,256'], /-C 512,256: a queue pair has as many slots to send as to receive/],
    [['-C', 'x'], /-C x: give slots/],
    [['-s', '10.0.0'], /-s: '10\.0\.0' is no IPv4 address: give one such as/],
    [['-D', 'x'], /-D: 'x' is no MAC address/],
    [['-P', '/nowhere.pcap', '-f', 'tx'], /-P: '\/nowhere\.pcap' cannot be read \(ENOENT\): give/],
    [['-P', '/bin/sh', '-f', 'tx'], /-P: '\/bin\/sh' is neither pcap nor pcapng: give/],
    [['-P', 'x', '-f', 'rx'], /-P goes with -f tx/],
    [['-a', '1023'], /-a 1023: this process may not run on such a CPU/],
    [['-i', 'nowhere'], /'nowhere' names no port/],
  ];
  for (const [args, message] of WRONG) {
    it(args.join(' '), async () => {
      const { status, out, err } = await world().gen('a', ...args);
      assert.equal(status, 2, err);
      assert.equal(out, '');
      assert.equal(err.trimEnd().split('\n').length, 1, err);
      assert.match(err.trimEnd(), message);
    });
  }

  it('no port, a port without a name, and frames too long for a buffer', async () => {
    const none = await run(['pkt-gen', '-f', 'rx']);
    assert.equal(none.status, 2);
    assert.match(none.err, /required option '-i <port>' not specified: see vhop pkt-gen --help/);
    assert.match((await run(['pkt-gen', '-i'])).err, /'-i <port>' argument missing/);
    const path = capture([Buffer.alloc(60), Buffer.alloc(5000)]);
    const w = world();
    const { status, err } = await w.gen('a', '-f', 'tx', '-P', path);
    assert.equal(status, 2);
    assert.match(err, /frame 2 has 5000 bytes, a buffer of a holds 1984: give -F 3 to spread/);
    assert.ok(w.a.closed);
  });
});
