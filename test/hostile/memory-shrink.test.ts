// Class 5 (hostile input): a memory file that shrinks under the switch. It costs its own port, and
// nobody else a frame. Split and packed, mapped whole and page by page, what is gone being the rings,
// a sender's buffers or a receiver's; the worker or main finding out.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { RING_BROKEN, RING_STATE } from '../../src/abi/layout.ts';
import { openSwitch, type Switch, startTraffic, type TrafficPair } from '../../src/api/index.ts';
import { memfd } from '../../src/linux/index.ts';
import { ringAddress } from '../../src/memory/control.ts';
import type { Policing, PortInfo } from '../../src/types.ts';
import { openFds } from '../linux/fds.ts';
import { withHugePages } from '../memory/reserve.ts';
import { MFD_HUGE_2MB, mappings, unsealable } from '../memory/unsealable.ts';
import { BUFFERS, MemoryGuest } from './memory-guest.ts';

const MIB = 2 ** 20;
/** Bytes of guests that fit, and of one that is paged in the window below. */
const SIZES = { whole: 8 * MIB, paged: 64 * MIB };
const WINDOW = { whole: 48 * MIB, slots: 16 };
const SHRANK =
  /^the file behind the memory region at GPA 0x0 \(\d+ bytes\) shrank while it was mapped/;

const ROUNDS = process.env['VHOP_LONG'] ? 5000 : 100;

const folder = mkdtempSync(join(tmpdir(), 'vhop-shrink-'));
const path = (name: string) => join(folder, `${name}.sock`);
after(() => rmSync(folder, { recursive: true }));

/** What is taken away, from which offset on, and how a worker comes to touch it. */
const LOSSES = {
  rings: { from: 0, touch: (hostile: MemoryGuest) => hostile.kick() },
  "a sender's buffers": {
    from: BUFFERS,
    touch: (hostile: MemoryGuest) => {
      hostile.offer();
      hostile.kick();
    },
  },
  "a receiver's buffers": {
    from: BUFFERS,
    touch: (_: MemoryGuest, peer: MemoryGuest) => peer.send(),
  },
};

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(1);
}

describe('class 5: memory that shrinks, workers on threads', { timeout: 300_000 }, () => {
  let lab: Switch;
  let traffic: TrafficPair;
  const events: PortInfo[] = [];
  const notices: { port: string; message: string }[] = [];

  before(async () => {
    lab = await openSwitch({ workers: 2, window: WINDOW });
    lab.on('quarantined', (port) => events.push(port));
    lab.on('notice', (notice) => notices.push(notice));
    for (const name of ['bad', 'peer']) {
      await lab.addPort({ type: 'vhost-user', path: path(name), queues: 1 });
    }
    traffic = startTraffic(lab, { frames: Number.POSITIVE_INFINITY });
    await until(() => traffic.counts().every(({ received }) => received > 0));
  });
  after(async () => {
    await traffic.stop();
    await lab.close();
  });

  const bad = () => lab.ports()[0]!;
  const peer = () => lab.ports()[1]!;

  /** A guest whose memory shrinks; returns once it was cut off. */
  async function shrink(
    kind: keyof typeof SIZES,
    packed: boolean,
    what: keyof typeof LOSSES,
    flags = 0,
  ): Promise<void> {
    const size = SIZES[kind];
    const sealed = memfd('vhop-peer', SIZES.whole, { seal: true });
    const sender = new MemoryGuest({ path: path('peer'), fd: sealed, size: SIZES.whole, host: 78 });
    const fd = unsealable(size, flags);
    const hostile = new MemoryGuest({ path: path('bad'), fd, size, packed });
    try {
      await sender.open();
      await hostile.open();
      assert.equal(bad().state, 'up');
      assert.equal(bad().paged, kind === 'paged' ? size : 0);
      assert.equal(bad().sealed, false);
      assert.equal(peer().sealed, true);
      hostile.post();
      if (what === "a sender's buffers") {
        // Posted when their memory is gone: a worker that still polls would take them before.
        hostile.load();
      }
      hostile.shrink(LOSSES[what].from);
      LOSSES[what].touch(hostile, sender);
      await until(() => hostile.cut);
    } finally {
      hostile.close();
      sender.close();
    }
    await until(() => peer().memory === 0);
  }

  for (const kind of ['whole', 'paged'] as const) {
    for (const packed of [false, true]) {
      for (const what of Object.keys(LOSSES) as (keyof typeof LOSSES)[]) {
        it(`class 5: ${what} shrink away (${packed ? 'packed' : 'split'}, ${kind})`, async () => {
          const fds = openFds();
          const [told, said] = [events.length, notices.length];
          await shrink(kind, packed, what);
          assert.equal(bad().state, 'quarantined');
          assert.match(bad().reason!, SHRANK);
          assert.deepEqual([bad().memory, bad().queuesEnabled], [0, 0]);
          assert.deepEqual(
            events.slice(told).map(({ name, reason }) => [name, reason]),
            [['bad', bad().reason]],
          );
          assert.deepEqual(notices.slice(said), [{ port: 'bad', message: bad().reason }]);
          assert.equal(mappings(lab.control, true), 0);
          assert.equal(openFds(), fds, 'descriptors');
          const received = traffic.counts()[0].received;
          await until(() => traffic.counts()[0].received > received);
        });
      }
    }
  }

  for (const kind of ['whole', 'paged'] as const) {
    it(`class 5: huge pages shrink away (${kind})`, (t) =>
      withHugePages(t, 2 * MIB, 8, async () => {
        const fds = openFds();
        // Mapping a page of hugetlbfs makes the file as long again: what is paged in later is no loss.
        const all = Object.keys(LOSSES) as (keyof typeof LOSSES)[];
        for (const what of kind === 'whole' ? all : all.slice(0, 1)) {
          await shrink(kind, false, what, MFD_HUGE_2MB);
          assert.match(
            bad().reason!,
            /shrank while it was mapped, or the host has no huge page left/,
          );
        }
        assert.equal(mappings(lab.control, true), 0);
        assert.equal(openFds(), fds, 'descriptors');
      }));
  }

  it(`class 5: ${ROUNDS} times in a row, and the port works again after`, async () => {
    const [fds, maps] = [openFds(), mappings(lab.control)];
    const told = events.length;
    const kinds = ['whole', 'paged'] as const;
    const losses = Object.keys(LOSSES) as (keyof typeof LOSSES)[];
    for (let i = 0; i < ROUNDS; i++) {
      await shrink(kinds[i % 2]!, i % 4 > 1, losses[i % 3]!);
    }
    assert.equal(events.length, told + ROUNDS);
    assert.equal(openFds(), fds, 'descriptors');
    assert.equal(mappings(lab.control, true), 0);
    assert.equal(mappings(lab.control), maps, 'mappings');
    const { slots, free } = lab.stats().paging;
    assert.equal(free, slots, 'slots');

    const size = SIZES.paged;
    const guest = new MemoryGuest({ path: path('bad'), fd: unsealable(size), size });
    await guest.open();
    assert.equal(bad().state, 'up');
    assert.equal(bad().reason, undefined);
    const before = lab.stats().ports[0]!.txFrames;
    guest.send();
    await until(() => lab.stats().ports[0]!.txFrames === before + 64);
    guest.close();
    await until(() => bad().memory === 0);
  });

  it('class 5: all of that lost the others no frame', async () => {
    const [a, b] = await traffic.drain();
    const stats = lab.stats().ports.filter(({ port }) => port.startsWith('guest-'));
    // A guest's own ring may have been full; nothing else.
    const drops = stats.flatMap(({ drops }) => Object.entries(drops));
    assert.deepEqual(
      drops.filter(([reason]) => reason !== 'rx_full'),
      [],
    );
    assert.ok(a.received + b.received > 0);
    assert.equal(a.corrupt + a.reordered + b.corrupt + b.reordered, 0);
    const full = drops.reduce((sum, [, n]) => sum + n, 0);
    assert.ok(a.sent + b.sent - a.received - b.received <= full);
    assert.deepEqual(
      lab
        .ports()
        .map(({ name, state }) => [name, state])
        .slice(2),
      [
        ['guest-a', 'up'],
        ['guest-b', 'up'],
      ],
    );
  });
});

describe('class 5: memory that shrinks, main finding out', { timeout: 30_000 }, () => {
  for (const packed of [false, true]) {
    it(`class 5: rings are shown while their memory is gone (${packed ? 'packed' : 'split'})`, async () => {
      const lab = await openSwitch();
      try {
        await lab.addPort({ type: 'vhost-user', path: path('shown'), queues: 1 });
        const size = SIZES.whole;
        const guest = new MemoryGuest({ path: path('shown'), fd: unsealable(size), size, packed });
        await guest.open();
        guest.post();
        guest.shrink(0);
        assert.equal(lab.rings()[0]!.inFlight, 0);
        await until(() => lab.ports()[0]!.state === 'quarantined');
        assert.match(lab.ports()[0]!.reason!, SHRANK);
        guest.close();
      } finally {
        await lab.close();
      }
    });
  }

  it('class 5: is told once, as what it is, though its zeros break the ring too', async () => {
    const lab = await openSwitch();
    const told: string[] = [];
    lab.on('quarantined', ({ reason }) => told.push(reason!));
    lab.on('notice', (notice) => told.push(notice.message));
    // Both events show the port as it is listed, limits and all.
    const limits = { rate: { frames: 1e9 }, burst: { frames: 1e9 } };
    const shown: Policing[] = [];
    for (const event of ['connected', 'quarantined'] as const) {
      lab.on(event, ({ rate = {}, burst = {} }) => shown.push({ rate, burst }));
    }
    try {
      await lab.addPort({ type: 'vhost-user', path: path('once'), queues: 1, ...limits });
      const size = SIZES.whole;
      const guest = new MemoryGuest({ path: path('once'), fd: unsealable(size), size });
      await guest.open();
      guest.send();
      await until(() => lab.stats().ports[0]!.txFrames === 64);
      guest.shrink(0);
      guest.kick();
      // Main looks when both have happened: the fault, and the avail index that went back to 0.
      const jumped = () => lab.control.get(ringAddress(1) + RING_STATE) === RING_BROKEN;
      for (const end = performance.now() + 5000; !jumped() && performance.now() < end; );
      assert.ok(jumped());
      await until(() => guest.cut);
      await sleep(10);
      assert.equal(told.length, 2);
      for (const text of told) assert.match(text, SHRANK);
      assert.deepEqual(shown, [limits, limits]);
      guest.close();
    } finally {
      await lab.close();
    }
  });

  it('class 5: a guest of this process stops, and keeps its place', async () => {
    const lab = await openSwitch();
    try {
      const port = lab.addMemoryPort({ type: 'memory', name: 'own' });
      const { memory } = port.info();
      port.quarantine('its memory is gone');
      const { state, reason, memory: kept, queuesEnabled } = port.info();
      assert.deepEqual(
        [state, reason, kept, queuesEnabled],
        ['quarantined', 'its memory is gone', memory, 0],
      );
      assert.equal(port.device.up, false);
    } finally {
      await lab.close();
    }
  });
});
