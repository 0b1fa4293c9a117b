// Rings stopped in the middle of traffic and started from the base the device gave (vhost-user
// GET_VRING_BASE, SET_VRING_BASE), as in a live migration: the guests notice nothing but drops.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DRV_ERRORS } from '../../src/abi/driver.ts';
import { openSwitch } from '../../src/api/index.ts';
import { dup } from '../../src/linux/index.ts';
import { TrafficGuest, TrafficThread } from '../../src/port/traffic.ts';
import { checkKinds, KIND_PAIRS, LONG, pairName, sleep, state } from './stress.ts';

const ROUNDS = LONG ? 20_000 : 60;

describe('restart under load', { timeout: LONG ? 7_200_000 : 60_000 }, () => {
  for (const [i, kinds] of KIND_PAIRS.entries()) {
    it(pairName(kinds), async () => {
      const lab = await openSwitch({ workers: 1 + (i % 2) });
      const ports = kinds.map(({ packed, features }, side) =>
        lab.addMemoryPort({
          type: 'memory',
          name: `guest-${side}`,
          ringSize: packed ? 61 : 64,
          features,
        }),
      );
      const guests = ports.map((port, side) => {
        const peer = ports[1 - side]!.info().mac;
        return new TrafficGuest(lab.control, port, peer, {
          frames: Number.POSITIVE_INFINITY,
          segments: 4,
        });
      });
      const sum = (field: 'sent' | 'received' | 'corrupt' | 'reordered' | 'foreign') =>
        guests.reduce((total, guest) => total + guest.counts()[field], 0);
      const thread = new TrafficThread(lab.control, guests);
      try {
        checkKinds(lab, kinds);
        const bases = new Set<number>();
        for (let round = 0; round < ROUNDS; round++) {
          const side = round & 1;
          const { device, queues } = ports[side]!;
          const queue = (round >> 1) & 1;
          const base = device.getVringBase(queue);
          bases.add(base);
          if (kinds[side]!.packed) {
            // Wrap counter and slot, of the avail position and of the used one.
            assert.equal(base >>> 16, base & 0xffff);
            assert.ok((base & 0x7fff) < 61, `base ${base}`);
          } else {
            assert.ok(base <= 0xffff, `base ${base}`);
          }
          if (round % 5 === 0) await sleep(1);
          // Some front ends know the lower half only.
          device.setVringBase(queue, round % 3 === 0 ? base & 0xffff : base);
          device.setVringCall(queue, dup(queues[queue]!.callFd));
          device.setVringKick(queue, dup(queues[queue]!.kickFd));
          // Traffic flows again before the next one.
          const before = guests.map((guest) => guest.counts().received);
          const since = performance.now();
          while (guests.some((guest, g) => guest.counts().received === before[g])) {
            if (performance.now() - since > 10_000) assert.fail(`stalled\n${state(lab)}`);
            await sleep(1);
          }
        }
        assert.ok(bases.size > ROUNDS / 10, `${bases.size} different bases`);
        for (const guest of guests) guest.halt();
        for (let last = -1; last !== sum('received'); await sleep(50)) last = sum('received');
        const dropped = lab
          .stats()
          .ports.flatMap(({ drops }) => Object.values(drops))
          .reduce((total, n) => total + n, 0);
        const context = `${JSON.stringify(guests.map((guest) => guest.counts()))}\n${state(lab)}`;
        assert.deepEqual([sum('corrupt'), sum('reordered'), sum('foreign')], [0, 0, 0], context);
        assert.equal(sum('received') + dropped, sum('sent'), context);
        for (const { drv } of ports.flatMap(({ queues }) => queues)) {
          assert.equal(lab.control.get(drv + DRV_ERRORS), 0);
        }
      } finally {
        await thread.stop();
        await lab.close();
      }
    });
  }
});
