// Ports on a vhost-user back end, over a real socket: one that works, and those that do not.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { setTimeout } from 'node:timers/promises';
import * as vu from '../../src/abi/vhost-user.ts';
import { F_MQ } from '../../src/abi/virtio.ts';
import { close, listenUnix } from '../../src/linux/index.ts';
import type { BufferMemory } from '../../src/netmap/memory.ts';
import { openPort } from '../../src/netmap/open.ts';
import type { Port } from '../../src/netmap/port.ts';
import { NetmapError, type NetmapOptions } from '../../src/netmap/types.ts';
import { bit } from '../../src/virtio/features.ts';
import { openFds } from '../linux/fds.ts';
import { until } from '../vhost-user/harness.ts';
import { accept } from '../vhost-user/scripted.ts';
import { BackEnd, type BackEndOptions } from './back-end.ts';
import {
  Bench,
  census,
  featuresOf,
  home,
  pattern,
  put,
  refused,
  smallMemory,
  taken,
} from './bench.ts';

interface Site {
  path: string;
  memory: BufferMemory;
  open(options?: NetmapOptions): Promise<Port>;
  next(options?: BackEndOptions): Promise<BackEnd>;
}

async function withSite(body: (site: Site) => Promise<void>): Promise<void> {
  const fds = openFds();
  const directory = mkdtempSync(join(tmpdir(), 'vhop-'));
  const path = join(directory, 'port.sock');
  const listener = listenUnix(path);
  const memory = smallMemory();
  const ends: BackEnd[] = [];
  const ports: Port[] = [];
  const find = () => Promise.reject(new Error('none'));
  try {
    await body({
      path,
      memory,
      open: async (options = {}) => {
        const rest = { memory, ringSize: 16, timeoutMs: 3000, ...options };
        const port = (await openPort(home, find, `vhop:${path}`, rest)) as Port;
        ports.push(port);
        return port;
      },
      next: async (options) => {
        const end = new BackEnd(await accept(listener), options);
        ends.push(end);
        return end;
      },
    });
    for (const port of ports) await port.close();
    for (const end of ends) end.release();
    census(memory, []);
  } finally {
    for (const port of ports) await port.close();
    for (const end of ends) end.release();
    memory.close();
    close(listener);
    rmSync(directory, { recursive: true });
  }
  assert.equal(openFds(), fds);
}

/** Frames both ways, and the wake-ups that go with them. */
async function traffic(port: Port, end: BackEnd, pair = 0): Promise<void> {
  const [source, sink] = [end.device(2 * pair), end.device(2 * pair + 1)];
  const [rx, tx] = [port.rx[pair]!, port.tx[pair]!];
  for (let i = 0; i < 30; i++) {
    put(tx, pattern(i, 100 + i), 40);
    port.txSync(tx);
    assert.deepEqual(
      sink.sent().map(({ bytes }) => bytes),
      [pattern(i, 100 + i)],
    );
    port.txSync(tx);
    source.take();
    const waiting = port.wait(5000);
    await setTimeout(0);
    assert.ok(source.deliver(pattern(i, 3000)));
    end.call(2 * pair);
    assert.equal(await waiting, true);
    assert.deepEqual(taken(rx), [pattern(i, 3000)]);
    port.rxSync(rx);
  }
}

describe('a back end', () => {
  for (const packed of [false, true]) {
    it(`${packed ? 'packed' : 'split'}: frames, wake-ups, and an end in good order`, async () => {
      await withSite(async ({ open, next, memory }) => {
        const [port, end] = await Promise.all([open({ packed, queues: 2 }), next({ pairs: 4 })]);
        assert.deepEqual([port.rx.length, port.tx.length, port.up], [2, 2, true]);
        assert.ok(port.features.includes('MRG_RXBUF') && !port.features.includes('CSUM'));
        await traffic(port, end);
        await traffic(port, end, 1);
        census(memory, [...port.rx, ...port.tx]);
        await port.close();
        assert.equal(end.said.filter((request) => request === vu.VU_GET_VRING_BASE).length, 4);
        refused('down', () => port.txSync(port.tx[0]!));
      });
    });
  }

  it('that comes back: fresh rings, and all buffers, whatever it held', async () => {
    await withSite(async ({ open, next, memory }) => {
      let [port, end] = await Promise.all([open(), next()]);
      const events: string[] = [];
      port.on('down', ({ code }) => events.push(code)).on('up', () => events.push('up'));
      for (let round = 0; round < 5; round++) {
        const [source, sink] = [end.device(0), end.device(1)];
        for (let i = 0; i < 8; i++) put(port.tx[0]!, pattern(i, 60));
        port.txSync(port.tx[0]!);
        sink.take(round);
        source.take();
        for (let i = 0; i < round; i++) source.deliver(pattern(i, 60), { pick: i });
        port.rxSync(port.rx[0]!);
        taken(port.rx[0]!, 1);
        const waiting = port.wait(-1);
        taken(port.rx[0]!);
        end.die();
        await waiting.catch((error) => assert.equal(error.code, 'down'));
        await until(() => !port.up);
        assert.match(refused('down', () => port.rxSync(port.rx[0]!)).message, /closed/);
        census(memory, [...port.tx], free(port));
        end = await next();
        await until(() => port.up);
        census(memory, [...port.rx, ...port.tx]);
        await traffic(port, end);
      }
      assert.deepEqual(events, Array.from({ length: 5 }, () => ['down', 'up']).flat());
    });
  });

  it('that comes back with fewer pairs, and with all', async () => {
    await withSite(async ({ open, next, memory }) => {
      let [port, end] = await Promise.all([open({ queues: 2 }), next({ pairs: 2 })]);
      const told: number[] = [];
      port.on('config', (pairs) => told.push(pairs));
      const old = port.rx[1]!;
      for (const pairs of [1, 1, 2, 3]) {
        end.die();
        await until(() => !port.up);
        end = await next({ pairs });
        await until(() => port.up);
        assert.equal(port.rx.length, Math.min(pairs, 2));
        await traffic(port, end, port.rx.length - 1);
        census(memory, [...port.rx, ...port.tx]);
      }
      assert.deepEqual(told, [1, 2]);
      refused('ring', () => port.rxSync(old));
    });
  });

  it('that lacks what is needed, leaves, is silent or not there', async () => {
    const all = featuresOf({ packed: true }) | bit(F_MQ);
    const cases: [BackEndOptions, NetmapOptions, string, RegExp][] = [
      [{ features: 0n }, {}, 'features', /does not offer VERSION_1, which port/],
      [{ features: all & ~(1n << 34n) }, { packed: true }, 'features', /RING_PACKED/],
      [{ features: all }, { offloads: ['CSUM'], headers: 'kept' }, 'features', /CSUM/],
      [{ features: all }, { queues: 2 }, 'features', /it has 1 queue pairs, and port/],
      [{ features: all & ~bit(F_MQ), pairs: 2 }, { queues: 2 }, 'features', /does not offer MQ/],
      [{ status: 0x03n }, {}, 'features', /did not agree to the features/],
      [{ leavesAt: vu.VU_SET_MEM_TABLE }, {}, 'down', /port.sock: .*the log of the back end/],
      [{ leavesAt: vu.VU_SET_OWNER }, {}, 'down', /port/],
      [{ leavesAt: vu.VU_SET_VRING_KICK }, {}, 'down', /port.sock: .*the log of the back end/],
    ];
    await withSite(async ({ open, next, memory }) => {
      for (const [back, options, code, why] of cases) {
        const [result] = await Promise.allSettled([open(options), next(back)]);
        const error = result.status === 'rejected' ? result.reason : undefined;
        assert.ok(error instanceof NetmapError, `${why}: ${error}`);
        assert.equal(error.code, code, error.message);
        assert.match(error.message, why);
        census(memory, []);
      }
    });
    await withSite(async ({ open, path }) => {
      await assert.rejects(open({ timeoutMs: 30 }), { code: 'down' });
      const aborter = new AbortController();
      const opening = open({ signal: aborter.signal });
      aborter.abort();
      await assert.rejects(opening, { code: 'down' });
      unlinkSync(path);
      await assert.rejects(open({ timeoutMs: 80 }), {
        code: 'down',
        message: /waiting for .*there is no such socket yet/,
      });
    });
  });

  it('of which there are too few buffers here', async () => {
    await withSite(async ({ open, next }) => {
      const few = smallMemory({ buffers: 40 });
      const [result] = await Promise.allSettled([open({ memory: few, ringSize: 32 }), next()]);
      assert.equal(result.status, 'rejected');
      assert.equal((result as PromiseRejectedResult).reason.code, 'memory');
      assert.match(
        (result as PromiseRejectedResult).reason.message,
        /close a port, or use smaller/,
      );
      census(few, []);
      few.close();
    });
  });

  it('that breaks the rules is cut off, and the next one is let in; the neighbour goes on', async () => {
    await withSite(async ({ open, next, memory }) => {
      const neighbour = new Bench({ memory });
      const { tx, rx } = neighbour;
      let [port, end] = await Promise.all([open(), next()]);
      for (let round = 0; round < 6; round++) {
        const direction = round % 2 ? 'tx' : 'rx';
        put(port.tx[0]!, pattern(1, 60));
        port.txSync(port.tx[0]!);
        const device = end.device(round % 2);
        device.take();
        device.ring.putUsed(round < 2 ? 0xffff : device.held[0]!.id, 0xffff_ffff, 1);
        device.ring.used++;
        if (round > 1) device.ring.putUsed(device.held[0]!.id, 0, 1);
        const error = refused('device', () => {
          for (let i = 0; i < 3; i++) {
            if (direction === 'tx') port.txSync(port.tx[0]!);
            else port.rxSync(port.rx[0]!);
          }
        });
        assert.match(error.message, /the other side/);
        assert.equal(port.up, false);
        await until(() => end.ended !== undefined);
        census(memory, [port.tx[0]!, tx, rx], free(port));
        put(tx, pattern(round, 60));
        neighbour.port.txSync(tx);
        assert.deepEqual(neighbour.sink.sent()[0]!.bytes, pattern(round, 60));
        neighbour.port.txSync(tx);
        end = await next();
        await until(() => port.up);
        await traffic(port, end);
      }
      await neighbour.close();
    });
  });

  it('that dies while this thread is held: nobody waits for ever', async () => {
    await withSite(async ({ open, next }) => {
      const [port, end] = await Promise.all([open(), next()]);
      const start = performance.now();
      assert.equal(port.poll(60), false);
      assert.ok(performance.now() - start >= 59);
      end.die();
      assert.equal(port.poll(-1), false);
      refused('down', () => port.poll(-1));
    });
  });
});

/** Buffers of a port's RX slots, after restock. */
function free(port: Port): number[] {
  return port.rx.flatMap((ring) => ring.buffersHeld());
}
