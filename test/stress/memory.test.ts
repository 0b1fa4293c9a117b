// A port's memory table changed in the middle of traffic: swapped for another cut of the same
// memory at another place (a live SET_MEM_TABLE), and regions beside it added and removed. Every
// frame arrives intact or is counted.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DRV_AVAIL, DRV_BIAS, DRV_DESC, DRV_TABLES, DRV_USED } from '../../src/abi/driver.ts';
import { PAGE } from '../../src/abi/layout.ts';
import { openSwitch, type Switch } from '../../src/api/index.ts';
import { close, dup, memfd } from '../../src/linux/index.ts';
import type { MemoryPort } from '../../src/port/memory.ts';
import { TrafficGuest, TrafficThread } from '../../src/port/traffic.ts';
import type { MemoryRegion, MemoryRegionFd } from '../../src/vhost-user/backend.ts';
import { openFds } from '../linux/fds.ts';
import { LONG, RING_KINDS, type RingKind, sleep, state } from './stress.ts';

const ROUNDS = LONG ? 100_000 : 4_000;
const MIB = 2 ** 20;

/**
 * Gives a memory port's rings and buffers a file of their own, which its driver sees through
 * another port's table: where the device maps it is then nothing to the driver.
 */
class Apart {
  readonly fd: number;
  readonly size: number;
  /** Rings end here, and buffers begin. */
  readonly buffersAt: number;
  readonly #device: MemoryPort['device'];
  readonly #holder: MemoryPort['device'];
  #shift: MemoryRegion | undefined;

  constructor(lab: Switch, port: MemoryPort) {
    const { device, queues } = port;
    const { control } = lab;
    const old = device.regions.fromUva(0n, PAGE);
    this.size = device.regions.bytes;
    this.buffersAt = queues[0]!.buffers - old;
    this.fd = memfd('apart', this.size, { seal: true });
    this.#device = device;
    this.#holder = lab.addMemoryPort({ type: 'memory', name: `${port.name}-memory` }).device;
    this.#holder.reset();
    this.#holder.setMemTable([this.region(0, this.size)]);
    const by = this.#holder.regions.fromUva(0n, PAGE) - old;
    control.bytes.copyWithin(old + by, old, old + this.size);
    for (const queue of queues) {
      for (const field of [DRV_DESC, DRV_AVAIL, DRV_USED, DRV_TABLES]) {
        control.set(queue.drv + field, control.get(queue.drv + field) + by);
      }
      control.set64(queue.drv + DRV_BIAS, control.get64(queue.drv + DRV_BIAS) - BigInt(by));
      queue.buffers += by;
    }
    this.swap([]);
  }

  region(from: number, to: number): MemoryRegionFd {
    const at = BigInt(from);
    return { gpa: at, uva: at, size: BigInt(to - from), mmapOffset: at, fd: dup(this.fd) };
  }

  /** A new table: the same memory, cut at these offsets, in reverse order. */
  swap(cuts: number[]): void {
    const edges = [0, ...cuts, this.size];
    const regions = edges.slice(1).map((to, i) => this.region(edges[i]!, to));
    this.#device.setMemTable(regions.reverse());
  }

  /** Takes another piece of the window than before, so that the next table lands elsewhere. */
  shift(mib: number): void {
    if (this.#shift) this.#holder.removeMemRegion(this.#shift);
    const at = 1n << 40n;
    this.#shift = { gpa: at, uva: at, size: BigInt(mib * MIB), mmapOffset: 0n };
    this.#holder.addMemRegion({ ...this.#shift, fd: memfd('shift', mib * MIB) });
  }
}

/** Runs `change` over and over under traffic both ways between ports a and b; then all adds up. */
async function underTraffic(
  workers: number,
  { features }: RingKind,
  prepare: (lab: Switch, a: MemoryPort) => { change(round: number): void; done(): void },
): Promise<void> {
  const before = openFds();
  const lab = await openSwitch({ workers });
  const [a, b] = ['a', 'b'].map((name) =>
    lab.addMemoryPort({ type: 'memory', name, ringSize: 256, features }),
  );
  const { change, done } = prepare(lab, a!);
  const options = { frames: Number.POSITIVE_INFINITY, segments: 4 };
  const guests = [
    new TrafficGuest(lab.control, a!, b!.info().mac, options),
    new TrafficGuest(lab.control, b!, a!.info().mac, options),
  ];
  const thread = new TrafficThread(lab.control, guests);
  const received = () => guests.reduce((sum, guest) => sum + guest.counts().received, 0);
  try {
    for (let round = 0; round < ROUNDS; round++) {
      change(round);
      if (round % 20 === 0) await sleep(1);
    }
    const changed = received();
    while (received() < changed + 1000) await sleep(1);
    for (const guest of guests) guest.halt();
    const drops = (name: string) => {
      const port = lab.stats().ports.find((each) => each.port === name);
      return Object.values(port?.drops ?? {}).reduce((sum, n) => sum + n, 0);
    };
    const missing = () => {
      const [ofA, ofB] = guests.map((guest) => guest.counts());
      return [ofA!.sent - ofB!.received - drops('b'), ofB!.sent - ofA!.received - drops('a')];
    };
    // Threads may have to wait for a CPU.
    for (let i = 0; i < 1000 && missing().some((n) => n !== 0); i++) await sleep(10);
    const counts = guests.map((guest) => guest.counts());
    const context = `${JSON.stringify(counts)}\n${state(lab)}`;
    assert.deepEqual(missing(), [0, 0], context);
    for (const { corrupt, reordered, foreign } of counts) {
      assert.deepEqual({ corrupt, reordered, foreign }, { corrupt: 0, reordered: 0, foreign: 0 });
    }
    assert.ok(received() > ROUNDS, context);
  } finally {
    await thread.stop();
    await lab.close();
    done();
  }
  // Threads that ended before this test began may have closed theirs since.
  assert.ok(openFds() <= before, `${openFds() - before} descriptors left open`);
}

/** Split and packed rings, each with one worker and with two. */
const CASES = [1, 2].flatMap((workers) =>
  [false, true].map((packed) => {
    const kind = RING_KINDS.find((each) => each.packed === packed)!;
    return { workers, kind, name: `workers: ${workers}, ${kind.name}` };
  }),
);

describe('memory tables under load', { timeout: LONG ? 7_200_000 : 120_000 }, () => {
  for (const { workers, kind, name } of CASES) {
    it(`the whole table is swapped, ${name}`, async () => {
      const places = new Set<number>();
      await underTraffic(workers, kind, (lab, a) => {
        const apart = new Apart(lab, a);
        const pages = Math.floor((apart.size - apart.buffersAt) / PAGE);
        return {
          change(round) {
            if (round % 5 === 0) apart.shift(1 + ((round * 7) % 64));
            const first = (round * 13) % (pages - 2);
            const second = first + 1 + ((round * 29) % (pages - first - 2));
            const at = (page: number) => Math.ceil(apart.buffersAt / PAGE) * PAGE + page * PAGE;
            // One region, two, or three: buffers straddle them, rings may not.
            apart.swap([[], [at(first)], [at(first), at(second)]][round % 3]!);
            places.add(a.device.regions.fromUva(0n, PAGE));
          },
          done: () => close(apart.fd),
        };
      });
      assert.ok(places.size > 3, `the table was seen at ${places.size} places`);
    });

    it(`other regions come and go, ${name}`, () => {
      const fd = memfd('other', 8 * MIB);
      const regions = Array.from({ length: 4 }, (_, i) => {
        const at = (1n << 33n) + BigInt(i * 8 * MIB);
        // Larger than the guest's own, which puts them before it in the table.
        return { gpa: at, uva: at, size: BigInt(8 * MIB), mmapOffset: 0n };
      });
      return underTraffic(workers, kind, (_lab, { device }) => ({
        change(round) {
          const region = regions[round % 4]!;
          if ((round >> 2) % 2 === 0) device.addMemRegion({ ...region, fd: dup(fd) });
          else device.removeMemRegion(region);
        },
        done: () => close(fd),
      }));
    });
  }
});
