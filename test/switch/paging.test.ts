// Guests larger than the window on a running switch, its workers on threads of their own.

import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import type { Stats, SwitchOptions } from '../../src/types.ts';
import { openFds } from '../linux/fds.ts';
import { GIB, MIB, SparseGuest, type SparseOptions } from '../paging/guest.ts';
import { Session } from '../paging/session.ts';
import { Stream, type StreamOptions } from '../paging/stream.ts';
import { PLAIN } from '../virtio/bench.ts';

const folder = mkdtempSync(join(tmpdir(), 'vhop-paging-'));
// libuv's pool starts with the first loop and stays.
before(async () => (await openSwitch()).close());
after(() => rmSync(folder, { recursive: true }));

/** A switch of `guests`, each sending to the next and the last to the first; nothing stays behind. */
async function lab(
  options: SwitchOptions,
  guests: SparseOptions[],
  stream: Partial<StreamOptions>,
  body: (lab: Switch, sessions: Session[], streams: Stream[]) => Promise<void>,
): Promise<void> {
  const fds = openFds();
  const made = await openSwitch(options);
  const sessions: Session[] = [];
  try {
    for (const [i, guest] of guests.entries()) {
      const path = join(folder, `${i}.sock`);
      await made.addPort({ type: 'vhost-user', path, queues: 1 });
      const session = new Session(new SparseGuest({ seed: i + 1, ...guest }), path);
      sessions.push(session);
      await session.open(PLAIN);
    }
    const streams = sessions.map(({ tx }, i) => {
      const to = (i + 1) % sessions.length;
      return new Stream(tx, sessions[to]!.rx, { from: i + 1, to: to + 1, ...stream });
    });
    await body(made, sessions, streams);
    // Gone with its guest: the file and all its pages.
    sessions.shift()!.close();
    while (made.ports()[0]!.memory > 0) await sleep(1);
    for (const session of sessions.splice(0)) session.close();
    while (made.ports().some(({ memory }) => memory > 0)) await sleep(1);
    const { slots, free } = made.stats().paging;
    assert.equal(free, slots, 'slots left in use');
    assert.ok(!readFileSync('/proc/self/maps', 'utf8').includes('memfd:sparse'), 'pages left');
  } finally {
    for (const session of sessions) session.close();
    await made.close();
  }
  assert.equal(openFds(), fds, 'descriptors left open');
}

/** Each stream sends `frames` more, at most `burst` at a time; all that will arrive has. */
async function run(
  sessions: Session[],
  streams: Stream[],
  frames: number,
  burst = 8,
  between: (round: number) => Promise<void> = async () => {},
): Promise<void> {
  const goals = streams.map(({ sent }) => sent + frames);
  let quiet = 0;
  for (let round = 0; quiet < 50; round++) {
    let moved = 0;
    for (const [i, stream] of streams.entries()) {
      stream.post();
      moved += stream.send(Math.min(burst, goals[i]! - stream.sent));
      moved += stream.collect();
    }
    for (const session of sessions) session.kick();
    await between(round);
    const done = streams.every(({ sent, pending }, i) => sent === goals[i] && pending === 0);
    quiet = done && moved === 0 ? quiet + 1 : 0;
    if (moved === 0) await sleep(1);
  }
}

function total(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0);
}

function dropsOf(stats: Stats): Record<string, number> {
  const found: Record<string, number> = {};
  for (const [name, n] of stats.ports.flatMap(({ drops }) => Object.entries(drops))) {
    found[name] = (found[name] ?? 0) + n;
  }
  return found;
}

/** Fails unless every frame sent arrived or was dropped for want of a slot, and few were. */
function check(stats: Stats, streams: Stream[], allowed: number): void {
  const { rx_paging = 0, ...others } = dropsOf(stats);
  assert.deepEqual(others, {});
  const sent = total(streams.map((stream) => stream.sent));
  assert.equal(total(streams.map((stream) => stream.received)) + rx_paging, sent);
  assert.ok(rx_paging <= sent * allowed, `${rx_paging} of ${sent} found no slot`);
}

describe('paged guests on a running switch', { timeout: 300_000 }, () => {
  const tiny = { whole: 16 * MIB, slots: 32 };
  for (const workers of [1, 2]) {
    for (const [name, stream] of [
      ['one buffer a frame', {}],
      ['chains in indirect tables', { pieces: 3, indirect: true }],
    ] as [string, Partial<StreamOptions>][]) {
      it(`more pages than slots, ${name}, workers: ${workers}`, async () => {
        const guests = [{ size: 3 * GIB }, { size: 2 * GIB, skip: 4096 * 3 }];
        const options: SwitchOptions = { forwarding: 'wire', workers, window: tiny };
        await lab(options, guests, stream, async (made, sessions, streams) => {
          assert.deepEqual(
            made.ports().map(({ memory, paged }) => [memory, paged]),
            [
              [3 * GIB, 3 * GIB],
              [2 * GIB, 2 * GIB],
            ],
          );
          await run(sessions, streams, 1500);
          const stats = made.stats();
          // How many is a matter of timing, with 32 slots for two workers.
          check(stats, streams, 0.1);
          const sum = (field: 'pagesIn' | 'evictions' | 'pagingNs') =>
            total(stats.workers.map((worker) => worker[field]));
          assert.ok(sum('evictions') > 500, `${sum('evictions')} evictions`);
          assert.ok(sum('pagesIn') >= sum('evictions'));
          assert.ok(sum('pagingNs') > 0);
        });
      });
    }

    it(`memory tables replaced under traffic, workers: ${workers}`, async () => {
      const guests = [{ size: 3 * GIB }, { size: 2 * GIB }];
      const options: SwitchOptions = { forwarding: 'wire', workers, window: tiny };
      await lab(options, guests, {}, async (made, sessions, streams) => {
        await run(sessions, streams, 1000, 8, async (round) => {
          if (round % 3 !== 0) return;
          const session = sessions[(round / 3) % 2]!;
          session.memTable();
          await session.settled();
        });
        // What came while the receiver had no memory was dropped as rx_down.
        const { rx_paging = 0, rx_down = 0, ...others } = dropsOf(made.stats());
        assert.deepEqual(others, {});
        const [sent, received] = [
          total(streams.map((stream) => stream.sent)),
          total(streams.map((stream) => stream.received)),
        ];
        assert.equal(received + rx_paging + rx_down, sent);
        assert.ok(received > sent / 4, `${received} of ${sent}`);
      });
    });
  }

  it('a guest of 64 GiB beside two of 4 GiB', async () => {
    const guests = [
      { size: 64 * GIB, pages: 700, ringSize: 256 },
      { size: 4 * GIB, pages: 300, ringSize: 256 },
      { size: 4 * GIB, pages: 300, ringSize: 256 },
    ];
    await lab({ workers: 2 }, guests, { pieces: 2 }, async (made, sessions, streams) => {
      const paged = made.ports().map((port) => port.paged / GIB);
      // The first 2 GiB of the first guest fit, and nothing else.
      assert.deepEqual(paged, [62, 4, 4]);
      // Everybody is heard, so that from here on nothing is flooded.
      await run(sessions, streams, 1);
      for (const stream of streams) stream.restart();
      const before = made.stats();
      assert.deepEqual(dropsOf(before), {});
      await run(sessions, streams, 6000, 32);
      check(made.stats(), streams, 0.001);
      const { slots, free } = made.stats().paging;
      assert.ok(free < slots / 2, `${free} of ${slots} slots free`);
    });
  });
});
