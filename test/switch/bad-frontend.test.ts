// Front ends that break the rules, on a switch that is busy with others: each costs its own connection
// and one sentence, nothing else.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { openSwitch, type Switch, startTraffic, type TrafficPair } from '../../src/api/index.ts';
import {
  close,
  connectUnix,
  eventfd,
  memfd,
  recvWithFds,
  sendWithFds,
} from '../../src/linux/index.ts';
import { type Message, message, words } from './raw.ts';

const table = (...regions: bigint[][]) => words(regions.length, 0, ...regions.flat());
const file = (size: number) => memfd('bad', size);
const MIB = 1n << 20n;

/** What is sent, and what the notice must say. */
const CASES: [name: string, send: () => Message[], says: RegExp][] = [
  [
    'garbage',
    () => [{ bytes: Buffer.from('GET / HTTP/1.0\r\n\r\n') }],
    /does not speak vhost-user version 1/,
  ],
  [
    'too few descriptors',
    () => [message(5, table([0n, 4096n, 0n, 0n], [4096n, 4096n, 8192n, 0n]), [file(8192)])],
    /SET_MEM_TABLE refused: it came with 1 descriptors, not 2/,
  ],
  [
    'overlapping memory',
    () => [
      message(5, table([0n, 8192n, 0n, 0n], [4096n, 4096n, 16384n, 0n]), [file(8192), file(8192)]),
    ],
    /GPA 0x1000 \(4096 bytes\) overlaps/,
  ],
  [
    'memory past the end of its file',
    () => [message(5, table([0n, MIB, 0n, 0n]), [file(8192)])],
    /ends past its file of 8192 bytes/,
  ],
  [
    'more memory than the window holds',
    () => [message(5, table([0n, 8192n * MIB, 0n, 0n]), [file(8192 * 2 ** 20)])],
    /does not fit: .* give the guests of this switch less memory/,
  ],
  [
    'a feature that was not offered',
    () => [message(2, words(1n << 33n))],
    /ACCESS_PLATFORM .* was never offered/,
  ],
  [
    'a ring outside memory',
    () => [
      message(5, table([0n, MIB, MIB, 0n]), [file(2 ** 20)]),
      message(8, words(0, 256)),
      message(9, words(0, 0, MIB, 9n * MIB, MIB + 65536n, 0n)),
      message(12, words(0n), [eventfd()]),
      message(18, words(0, 1)),
    ],
    /ring 0 lies outside the memory of the guest/,
  ],
  ['a ring that is no power of two', () => [message(8, words(0, 100))], /cannot have 100 entries/],
  ['a ring that is not there', () => [message(8, words(77, 256))], /ring 77 does not exist/],
  ['an unknown request', () => [message(99)], /request 99 refused: no such request/],
];

describe('a bad front end', { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), 'vhop-bad-'));
  const path = join(folder, 'bad.sock');
  const notices: { port: string; message: string }[] = [];
  let lab: Switch;
  let traffic: TrafficPair;

  before(async () => {
    lab = await openSwitch();
    lab.on('notice', (notice) => notices.push(notice));
    await lab.addPort({ type: 'vhost-user', path });
    traffic = startTraffic(lab, { frames: Number.POSITIVE_INFINITY });
    // Until the threads have opened what they open, descriptors come.
    while (traffic.counts().some(({ received }) => received === 0)) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  });
  after(async () => {
    await traffic.stop();
    await lab.close();
    rmSync(folder, { recursive: true });
  });

  /** Sends all, waits until the switch hangs up. */
  async function meet(messages: Message[]): Promise<void> {
    const fd = connectUnix(path);
    const buffer = Buffer.alloc(65536);
    for (const { bytes, fds = [] } of messages) {
      try {
        sendWithFds(fd, bytes, fds);
      } catch {
        // It may have hung up already.
      }
      for (const passed of fds) close(passed);
    }
    for (let open = true; open; ) {
      await new Promise((resolve) => setTimeout(resolve, 5));
      try {
        const got = recvWithFds(fd, buffer, 8);
        open = got === 'again' || got.bytes > 0;
      } catch {
        open = false;
      }
    }
    close(fd);
  }

  for (const [name, send, says] of CASES) {
    it(`${name}: one sentence, the port free again, the others undisturbed`, async () => {
      const fds = readdirSync('/proc/self/fd').length;
      const seen = notices.length;
      const received = traffic.counts()[0].received;
      await meet(send());
      const fresh = notices.slice(seen);
      assert.equal(fresh.length, 1, JSON.stringify(fresh));
      assert.equal(fresh[0]!.port, 'bad');
      assert.match(fresh[0]!.message, says);
      assert.equal(lab.ports()[0]!.state, 'listening');
      assert.equal(lab.ports()[0]!.memory, 0);
      assert.equal(readdirSync('/proc/self/fd').length, fds, 'descriptors');
      while (traffic.counts()[0].received === received) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
    });
  }

  it('all of them together lost nobody a frame', async () => {
    const [a, b] = await traffic.drain();
    const drops = lab
      .stats()
      .ports.flatMap((port) => Object.values(port.drops))
      .reduce((sum, n) => sum + n, 0);
    assert.equal(a.sent + b.sent, a.received + b.received + drops);
    assert.equal(a.corrupt + a.reordered + b.corrupt + b.reordered, 0);
    assert.equal(lab.ports().filter(({ state }) => state === 'up').length, 2);
  });
});
