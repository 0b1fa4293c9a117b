// What pkt-gen is made of: frames, captures, pace, sequence, histogram, lines.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { parseIpRange, parseMacRange } from '../../src/tools/addresses.ts';
import { pieceSize, pieces } from '../../src/tools/fill.ts';
import { Histogram } from '../../src/tools/histogram.ts';
import { headerBytes } from '../../src/tools/packet.ts';
import { readCapture } from '../../src/tools/pcap.ts';
import { Pacer } from '../../src/tools/rate.ts';
import {
  intervalLine,
  norm,
  PpsStatistics,
  pingLines,
  totalLines,
} from '../../src/tools/report.ts';
import { SequenceTracker } from '../../src/tools/sequence.ts';
import type { Traffic } from '../../src/tools/settings.ts';
import { Random, UdpSource } from '../../src/tools/source.ts';
import { decode } from './fixtures/frames.ts';

const PLAIN: Traffic = {
  family: 4,
  from: parseIpRange('10.0.0.1', 4),
  to: parseIpRange('10.1.0.1:53', 4),
  fromMac: parseMacRange('52:54:00:00:00:01'),
  toMac: parseMacRange('ff:ff:ff:ff:ff:ff'),
  randomSource: false,
  randomDestination: false,
  size: 60,
};
const SIX: Partial<Traffic> = {
  family: 6,
  from: parseIpRange('fd00::1', 6),
  to: parseIpRange('[fd00::2]:53', 6),
};

/** The next `count` frames. */
function take(source: UdpSource, count: number): Uint8Array[] {
  return Array.from({ length: count }, () => {
    const frame = Uint8Array.from(source.view);
    source.advance();
    return frame;
  });
}

describe('UDP frames', () => {
  it('are what they were told to be, of every size, with both checksums', () => {
    for (const [family, more] of [
      [4, {}],
      [6, SIX],
    ] as const) {
      for (const size of [headerBytes(family), 63, 64, 65, 1514, 9001, 65536]) {
        const { view } = new UdpSource({ ...PLAIN, ...more, size });
        assert.equal(view.length, size);
        const { mac, ports, payload } = decode(view);
        assert.deepEqual(mac, ['52:54:00:00:00:01', 'ff:ff:ff:ff:ff:ff']);
        assert.deepEqual(ports, [1234, 53]);
        assert.equal(payload.length, size - headerBytes(family));
      }
    }
  });

  it('keep their checksums through random addresses, sizes and numbers', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(4, 6),
        fc.integer({ min: 70, max: 2000 }),
        fc.nat(),
        (f, n, seed) => {
          const source = new UdpSource(
            {
              ...PLAIN,
              ...(f === 6 ? SIX : {}),
              ...{ randomSource: true, randomDestination: true, size: n, smallest: 66 },
            },
            { numbered: true, random: new Random(seed) },
          );
          take(source, 20).forEach((frame, i) => {
            assert.ok(frame.length >= 66 && frame.length < n);
            assert.equal(decode(frame).payload.readUInt32BE(0), i);
          });
        },
      ),
    );
  });

  it('never have a UDP checksum of zero', () => {
    const from = parseIpRange('10.0.0.1:0-10.0.0.1:65535', 4);
    const sums = take(new UdpSource({ ...PLAIN, from }), 65536).map((f) => (f[40]! << 8) | f[41]!);
    assert.equal(sums.indexOf(0), -1);
    assert.equal(sums.filter((sum) => sum === 0xffff).length, 1);
  });

  it('go through ranges, the source port first', () => {
    const from = parseIpRange('10.0.0.1:5-10.0.0.2:6', 4);
    const to = parseIpRange('10.1.0.255:53-10.1.1.0:53', 4);
    const frames = take(new UdpSource({ ...PLAIN, from, to }), 9).map(decode);
    assert.deepEqual(
      frames.map(({ from, to, ports }) => `${from}:${ports[0]} ${to}`),
      [
        '10.0.0.1:5 10.1.0.255',
        '10.0.0.1:6 10.1.0.255',
        '10.0.0.2:5 10.1.0.255',
        '10.0.0.2:6 10.1.0.255',
        '10.0.0.1:5 10.1.1.0',
        '10.0.0.1:6 10.1.1.0',
        '10.0.0.2:5 10.1.1.0',
        '10.0.0.2:6 10.1.1.0',
        '10.0.0.1:5 10.1.0.255',
      ],
    );
  });

  it('go through ranges of IPv6 and MAC addresses', () => {
    const from = parseIpRange('6@fd00::fffe:1-6@fd00::ffff:1', 6);
    const fromMac = parseMacRange('52:54:00:00:00:ff-52:54:00:00:01:00');
    const frames = take(new UdpSource({ ...PLAIN, ...SIX, size: 64, from, fromMac }), 4).map(
      decode,
    );
    assert.deepEqual(
      frames.map(({ from, mac }) => `${from.slice(-9)} ${mac[0].slice(-5)}`),
      ['fffe:0001 00:ff', 'ffff:0001 00:ff', 'fffe:0001 01:00', 'ffff:0001 01:00'],
    );
  });
});

describe('addresses', () => {
  it('are read in every form', () => {
    assert.deepEqual(
      [...parseIpRange('::ffff:1.2.3.4', 6).first.subarray(10)],
      [255, 255, 1, 2, 3, 4],
    );
    assert.deepEqual([...parseIpRange('fd00::', 6).first.subarray(0, 3)], [0xfd, 0, 0]);
    // The wrong way round, as netmap takes it.
    const range = parseIpRange('10.0.0.9:9-10.0.0.1:5', 4);
    assert.deepEqual(
      [range.low & 255, range.high & 255, range.lowPort, range.highPort],
      [1, 9, 5, 9],
    );
    assert.deepEqual([...range.first], [10, 0, 0, 1]);
    assert.equal(parseIpRange('10.0.0.1:7-10.0.0.2', 4).highPort, 7);
  });

  it('that cannot be are refused', () => {
    for (const [text, family, message] of [
      ['10.0.0', 4, /no IPv4 address/],
      ['fd00::1', 4, /or -6$/],
      ['10.0.0.1', 6, /or -4$/],
      ['10.0.0.1:99999', 4, /a port above 65535/],
      ['fd00::1:1-fd00::2:2', 6, /differs in more than its 8\. group/],
    ] as const) {
      assert.throws(() => parseIpRange(text, family), message);
    }
    assert.throws(() => parseMacRange('52:54'), /no MAC address/);
    assert.throws(() => parseMacRange('52:54:0:0:0:2-52:54:0:0:0:1'), /ends before it begins/);
  });
});

describe('pieces of a frame', () => {
  it('hold all of it and nothing too long', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 42, max: 65536 }),
        fc.integer({ min: 1, max: 64 }),
        fc.integer({ min: 1, max: 2000 }),
        (size, fragments, longest) => {
          const cut = { fragments, longest };
          const count = pieces(size, cut);
          const piece = pieceSize(size, cut);
          const last = size - (count - 1) * piece;
          assert.ok(
            piece <= longest && last > 0 && last <= longest,
            `${count} of ${piece}, ${last}`,
          );
        },
      ),
    );
    assert.equal(pieces(1500, { fragments: 3, longest: 1984 }), 3);
    assert.equal(pieces(9000, { fragments: 1, longest: 1984 }), 5);
    assert.equal(pieces(1500, { fragments: 1, longest: 500 }), 3);
  });
});

describe('captures', () => {
  const FRAMES = [Buffer.alloc(60, 1), Buffer.alloc(61, 2), Buffer.alloc(1514, 3)];

  function pcap(little: boolean, magic: number, link = 1): Buffer {
    const u32 = (value: number) => {
      const bytes = Buffer.alloc(4);
      if (little) bytes.writeUInt32LE(value);
      else bytes.writeUInt32BE(value);
      return bytes;
    };
    return Buffer.concat([
      ...[magic, 0, 0, 0, 65535, link].map(u32),
      ...FRAMES.flatMap((frame) => [u32(1), u32(2), u32(frame.length), u32(frame.length), frame]),
    ]);
  }

  function pcapng(little: boolean): Buffer {
    const put = (value: number, bytes: number) => {
      const buffer = Buffer.alloc(bytes);
      if (little) buffer.writeUIntLE(value, 0, bytes);
      else buffer.writeUIntBE(value, 0, bytes);
      return buffer;
    };
    const block = (type: number, body: Buffer) => {
      const padded = Buffer.concat([body, Buffer.alloc(-body.length & 3)]);
      const length = put(padded.length + 12, 4);
      return Buffer.concat([put(type, 4), length, padded, length]);
    };
    const u32s = (...values: number[]) => Buffer.concat(values.map((value) => put(value, 4)));
    const packet = (frame: Buffer, i: number) =>
      i === 1
        ? block(3, Buffer.concat([u32s(frame.length), frame]))
        : block(6, Buffer.concat([u32s(0, 0, 0, frame.length, frame.length), frame]));
    return Buffer.concat([
      block(0x0a0d0d0a, u32s(0x1a2b3c4d, 1, 0xffffffff, 0xffffffff)),
      block(1, Buffer.concat([put(1, 2), put(0, 2), u32s(0)])),
      // A block of names: to be passed over.
      block(4, u32s(0)),
      ...FRAMES.map(packet),
    ]);
  }

  it('of both byte orders, micro- and nanoseconds, and pcapng', () => {
    for (const file of [
      pcap(true, 0xa1b2c3d4),
      pcap(false, 0xa1b2c3d4),
      pcap(true, 0xa1b23c4d),
      pcap(false, 0xa1b23c4d),
      pcapng(true),
      pcapng(false),
    ]) {
      assert.deepEqual(
        readCapture(file).map((frame) => Buffer.from(frame)),
        FRAMES,
      );
    }
  });

  it('that cannot be used say why', () => {
    const good = pcap(true, 0xa1b2c3d4);
    assert.throws(() => readCapture(Buffer.alloc(10)), /too short for a capture/);
    assert.throws(() => readCapture(Buffer.alloc(100)), /neither pcap nor pcapng/);
    assert.throws(() => readCapture(good.subarray(0, 24)), /has no frames/);
    assert.throws(() => readCapture(pcap(true, 0xa1b2c3d4, 101)), /link type 101, not Ethernet/);
    for (const file of [good, pcapng(true)]) {
      fc.assert(
        fc.property(fc.nat(file.length - 1), (length) => {
          try {
            readCapture(file.subarray(0, length));
          } catch (error) {
            assert.equal((error as Error).name, 'PcapError');
          }
        }),
      );
    }
  });
});

describe('pace', () => {
  it('is its rate within 2 %, however late it is asked', () => {
    for (const rate of [1, 10, 999, 10_000, 1_234_567]) {
      const random = new Random(rate);
      const pacer = new Pacer(rate, 1e9);
      let now = 1e9;
      let sent = 0;
      while (now < 61e9) {
        const due = pacer.due(now);
        sent += due;
        pacer.sent(due);
        now += random.next() % 20_000_000;
      }
      assert.ok(Math.abs(sent / (rate * 60) - 1) < (rate === 1 ? 0.04 : 0.02), `${rate}: ${sent}`);
    }
  });

  it('has a frame due when it said, and forgets a long pause', () => {
    const pacer = new Pacer(7, 0);
    for (let n = 0; n < 1000; n++) {
      assert.equal(pacer.due(pacer.when(1)), 1);
      assert.equal(pacer.due(pacer.when(1) - 1000), 0);
      pacer.sent(1);
    }
    assert.equal(pacer.due(1e15), 7);
  });
});

describe('sequence numbers', () => {
  const track = (...numbers: number[]) => {
    const tracker = new SequenceTracker();
    for (const number of numbers) tracker.add(number);
    const { gaps, lost, reordered, duplicates } = tracker;
    return [gaps, lost, reordered, duplicates];
  };

  it('tell gaps, reorders and duplicates apart', () => {
    assert.deepEqual(track(5, 6, 7), [0, 0, 0, 0]);
    assert.deepEqual(track(0, 1, 5, 6), [1, 3, 0, 0]);
    assert.deepEqual(track(0, 2, 1, 3), [1, 0, 1, 0]);
    assert.deepEqual(track(0, 1, 1, 2, 0), [0, 0, 0, 2]);
    assert.deepEqual(track(0, 2, 1, 1), [1, 0, 1, 1]);
    assert.deepEqual(track(0xffffffff, 0, 1), [0, 0, 0, 0]);
    assert.deepEqual(track(0xfffffffe, 1), [1, 2, 0, 0]);
    assert.deepEqual(track(0, 200_000, 200_001), [1, 199_999, 0, 0]);
  });
});

describe('the histogram', () => {
  it('has percentiles within 1 %', () => {
    const histogram = new Histogram();
    for (let n = 1; n <= 100_000; n++) histogram.add(n * 10);
    for (const percent of [1, 50, 99, 99.9]) {
      const exact = percent * 10_000;
      assert.ok(Math.abs(histogram.percentile(percent) / exact - 1) < 0.01, `${percent}`);
    }
    assert.equal(histogram.percentile(100), 1e6);
    assert.equal(histogram.min, 10);
    assert.equal(histogram.mean, 500_005);
    const { first, counts } = histogram.powers();
    assert.equal(first, 3);
    assert.equal(
      counts.reduce((sum, count) => sum + count),
      100_000,
    );
    histogram.add(1e20);
    assert.equal(histogram.max, 1e20);
  });
});

describe('lines', () => {
  const STYLE = { normalize: true, framing: false };

  it("read as netmap's", () => {
    assert.equal(norm(999, true), '999.000 ');
    assert.equal(norm(14_880_952, true), '14.881 M');
    assert.equal(norm(14_880_952, false), '14880952 ');
    const interval = { packets: 14_882_000, bytes: 892_920_000, events: 29_066, usec: 1_000_070 };
    assert.equal(
      intervalLine({ ...interval, minSpace: 99999 }, STYLE),
      '14.881 Mpps (14.882 Mpkts 7.143 Gbps in 1000070 usec) 512.01 avg_batch 99999 min_space',
    );
    assert.equal(
      intervalLine({ ...interval, minSpace: 7 }, { normalize: false, framing: true }),
      '14880958 pps (14882000 pkts 10000004000 bps in 1000070 usec) 512.01 avg_batch 7 min_space',
    );
    assert.deepEqual(totalLines('Sent', { packets: 1000, bytes: 60_000, events: 2 }, 0.5, STYLE), [
      'Sent 1000 packets 60000 bytes 2 events 60 bytes each in 0.50 seconds.',
      'Speed: 2.000 Kpps Bandwidth: 960.000 Kbps (raw 1.344 Mbps). Average batch: 500.00 pkts',
    ]);
    assert.deepEqual(totalLines('Received', { packets: 0, bytes: 0, events: 0 }, 0, STYLE), [
      'Received nothing.',
    ]);
  });

  it('have the spread of the rate over 15 intervals', () => {
    const pps = new PpsStatistics();
    for (let n = 0; n < 20; n++) pps.add(n < 5 ? 1e6 : n % 2 === 0 ? 900 : 1100);
    pps.add(0);
    const line = intervalLine(
      { packets: 1, bytes: 60, events: 1, usec: 1000, minSpace: 1 },
      STYLE,
      pps,
    );
    assert.match(line, /^1\.000 Kpps \[avg\/std 1\.007 K\/99\.778 pps\] \(/);
    const total = pps.total();
    assert.deepEqual([total?.intervals, total?.min, total?.max], [20, 900, 1e6]);
  });

  it('of pings have counts by powers of two', () => {
    const rtt = new Histogram();
    for (const ns of [1000, 1500, 3000, 17_000]) rtt.add(ns);
    assert.deepEqual(pingLines(rtt), [
      'count 4 RTT: min 1000 av 5625 ns',
      'k: 512 .. 16384',
      '\t     1     1     1     0     0     1',
    ]);
  });
});
