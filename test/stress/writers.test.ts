// Three guests that send to one, through two workers: one RX ring with several writers. Each
// sender's stream arrives in order and intact, and what does not arrive is a counted drop.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DRV_ERRORS, DRV_LEN, SEG_WRITE } from '../../src/abi/driver.ts';
import { openSwitch } from '../../src/api/index.ts';
import { signal } from '../../src/linux/index.ts';
import { BUFFER_SIZE } from '../../src/port/memory.ts';
import { TrafficGuest, TrafficThread } from '../../src/port/traffic.ts';
import { loadDatapath } from '../../src/worker/datapath.ts';
import { LONG, PACKED, sleep, state } from './stress.ts';

const FRAMES = LONG ? 20_000_000 : 80_000;
const SENDERS = 3;

/** Offsets in a frame of our traffic (datapath/guest.ts). */
const ID = 14;
const SEQ = 16;
const LENGTH = 24;

describe('several writers', { timeout: LONG ? 7_200_000 : 60_000 }, () => {
  for (const packed of [false, true]) {
    it(`${SENDERS} guests to one, ${packed ? 'packed' : 'split'}, workers: 2`, async () => {
      const lab = await openSwitch({ workers: 2 });
      const { control } = lab;
      const to = lab.addMemoryPort({
        type: 'memory',
        name: 'to',
        ...(packed ? { ringSize: 1001, features: PACKED } : { ringSize: 1024 }),
      });
      const [rx, tx] = to.queues;
      const datapath = loadDatapath(control.memory, { call() {}, latched() {} });
      const list = to.allocate(64);
      const drops = () =>
        lab
          .stats()
          .ports.flatMap((port) => Object.values(port.drops))
          .reduce((sum, n) => sum + n, 0);
      const post = (buffer: number) => {
        control.set(list, rx!.buffers + buffer * BUFFER_SIZE);
        control.set(list + 4, (BUFFER_SIZE | SEG_WRITE) >>> 0);
        assert.ok(datapath.drvAdd(rx!.drv, list, 1, buffer, 0) >= 0);
      };
      for (let i = 0; i < rx!.size; i++) post(i);
      datapath.drvPublish(rx!.drv);
      // Heard once, so that what follows is not flooded to all.
      const view = new DataView(control.memory.buffer);
      control.bytes.fill(0, tx!.buffers, tx!.buffers + 76);
      control.bytes.fill(255, tx!.buffers + to.headerLength, tx!.buffers + to.headerLength + 6);
      for (const [i, byte] of to.info().mac.split(':').entries()) {
        control.bytes[tx!.buffers + to.headerLength + 6 + i] = Number.parseInt(byte, 16);
      }
      control.set(list, tx!.buffers);
      control.set(list + 4, to.headerLength + 60);
      datapath.drvAdd(tx!.drv, list, 1, 0, 0);
      if (datapath.drvPublish(tx!.drv)) signal(tx!.kickFd);
      while (lab.fdb().length === 0 || drops() === 0) await sleep(1);
      const before = drops();

      const senders = Array.from({ length: SENDERS }, (_, i) => {
        const port = lab.addMemoryPort({ type: 'memory', name: `from-${i}`, ringSize: 256 });
        const mac = to.info().mac;
        return new TrafficGuest(control, port, mac, { frames: FRAMES, segments: 4 });
      });
      const thread = new TrafficThread(control, senders);
      const next = new Map(senders.map(({ port }) => [port.index, 0]));
      let received = 0;
      let corrupt = 0;
      let reordered = 0;
      const check = (buffer: number) => {
        const at = rx!.buffers + buffer * BUFFER_SIZE + to.headerLength;
        const len = control.get(rx!.drv + DRV_LEN) - to.headerLength;
        const id = view.getUint16(at + ID, true);
        const seq = Number(view.getBigUint64(at + SEQ, true));
        const expected = next.get(id);
        if (expected === undefined || view.getUint32(at + LENGTH, true) !== len) corrupt++;
        else if (seq < expected) reordered++;
        // The fill of the first word and of the last whole one (datapath/guest.ts, `word`).
        for (const i of [28, 28 + ((len - 28) & ~7) - 8]) {
          const fill = BigInt(seq + 1) * 6364136223846793005n + BigInt(i) * 0x0101010101010101n;
          if (view.getBigUint64(at + i, true) !== BigInt.asUintN(64, fill)) corrupt++;
        }
        next.set(id, seq + 1);
        received++;
      };
      try {
        let moved = performance.now();
        while (received + drops() - before < SENDERS * FRAMES) {
          const seen = received;
          for (let n = 0; n < 512; n++) {
            const buffer = datapath.drvPop(rx!.drv);
            if (buffer < 0) break;
            check(buffer);
            post(buffer);
          }
          datapath.drvPublish(rx!.drv);
          if (received !== seen) moved = performance.now();
          else await sleep(0);
          if (performance.now() - moved > 10_000) assert.fail(`stalled\n${state(lab)}`);
        }
        assert.deepEqual({ corrupt, reordered }, { corrupt: 0, reordered: 0 });
        assert.equal(received + drops() - before, SENDERS * FRAMES, state(lab));
        assert.equal(control.get(rx!.drv + DRV_ERRORS), 0);
        for (const guest of senders) assert.equal(guest.counts().sent, FRAMES);
        assert.ok(received > FRAMES / 10, `only ${received} arrived`);
      } finally {
        await thread.stop();
        await lab.close();
      }
    });
  }
});
