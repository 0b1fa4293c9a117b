// A guest whose memory grows and shrinks under traffic: DIMMs (ADD_MEM_REG, REM_MEM_REG) and
// virtio-mem, whose one region the guest uses more or less of.

import assert from 'node:assert/strict';
import { RING_DESC, RING_SIZE } from '../../src/abi/layout.ts';
import {
  PF_CONFIGURE_MEM_SLOTS,
  VU_ADD_MEM_REG,
  VU_SET_MEM_TABLE,
} from '../../src/abi/vhost-user.ts';
import { ringAddress, ringIndex } from '../../src/memory/control.ts';
import type { Guest } from '../peers/guest.ts';
import { configure } from '../peers/iperf.ts';
import { waitFor } from '../peers/process.ts';
import { type Lab, scenario } from './lab.ts';
import { A, agree, B, copy, onPort, pingAll } from './pair.ts';
import { Relay } from './relay.ts';
import { stream } from './stream.ts';

const MIB = 2 ** 20;
const DIMMS = 9;
/** A memory block of Linux on x86-64: less of it cannot be brought online. */
const DIMM = 128;
const BASE = 512;
const VMEM = 512;
/** Above 4 GiB nothing is there at boot. */
const NEW_MEMORY = 1n << 32n;

scenario('memory comes and goes under traffic', ['qemu'], {}, async (lab, t) => {
  await lab.ports('a', 'b');
  const [a, b] = await Promise.all([
    lab.boot({
      ...onPort(lab, 'a'),
      memory: BASE,
      growth: { slots: 16, maxMemory: 4096 },
      append: 'memhp_default_state=online',
      extraArgs: [
        ...['-object', `memory-backend-memfd,id=vmem,size=${VMEM}M,share=on`],
        ...['-device', 'virtio-mem-pci,id=vm0,memdev=vmem,requested-size=0'],
      ],
    }),
    lab.boot(onPort(lab, 'b')),
  ]);
  await configure(a, `${A}/24`);
  await configure(b, `${B}/24`);
  await Promise.all([lab.state('a', 'up'), lab.state('b', 'up')]);
  await pingAll(a, B, 10);
  const mapped = (mib: number): Promise<void> =>
    waitFor(
      () => lab.portInfo('a').memory === mib * MIB,
      20_000,
      `${mib} MiB at port a`,
      () => `${lab.portInfo('a').memory / MIB} MiB`,
    );
  // virtio-mem's region is there from the start, whatever the guest may use of it.
  await mapped(BASE + VMEM);

  /** Runs `body` while both guests send to each other; what they send must arrive as it was. */
  const underTraffic = async (body: () => Promise<void>): Promise<void> => {
    const streams = [await stream(a, b, B), await stream(b, a, A)];
    await body();
    for (const each of streams) assert.ok((await each.stop()) > 0);
    await agree(lab, a, b);
  };

  await lab.step(t, 'nine DIMMs are plugged in', () =>
    underTraffic(async () => {
      const before = await totalMib(a);
      for (let i = 0; i < DIMMS; i++) {
        // The last three can be taken out again: only what the kernel can move may use them.
        if (i === DIMMS - 3) {
          await online(a, before + i * DIMM);
          await a.run('echo online_movable > /sys/devices/system/memory/auto_online_blocks');
        }
        await plug(a, i);
        await mapped(BASE + VMEM + (i + 1) * DIMM);
      }
      await online(a, before + DIMMS * DIMM);
    }),
  );

  await lab.step(t, 'frames lie in the new memory', async () => {
    // The old memory is used up, and new buffers come from the new one.
    await a.run('mount -o remount,size=4G /tmp');
    await a.run(`dd if=/dev/zero of=/tmp/fill bs=1M count=${BASE}`, { timeoutMs: 60_000 });
    await copy(b, a, A, 8);
    await copy(a, b, B, 8);
    const there = bufferAddresses(lab, 0).filter((address) => address >= NEW_MEMORY);
    assert.ok(there.length > 0, "none of a's receive buffers is in a DIMM");
    await a.run('rm /tmp/fill');
    await agree(lab, a, b);
  });

  await lab.step(t, 'virtio-mem grows and shrinks', () =>
    underTraffic(async () => {
      await a.run('echo online > /sys/devices/system/memory/auto_online_blocks');
      await a.run('insmod /modules/virtio_mem.ko');
      for (const mib of [256, 512, 384]) {
        await resize(a, mib);
        await waitFor(async () => (await plugged(a)) === mib, 60_000, `virtio-mem of ${mib} MiB`);
      }
      // The guest may not find all of it free to give back; it must give back some.
      await resize(a, 0);
      await waitFor(async () => (await plugged(a)) < 384, 60_000, 'virtio-mem to shrink');
      await mapped(BASE + VMEM + DIMMS * DIMM);
    }),
  );

  await lab.step(t, 'DIMMs are taken out, those that the guest can spare', () =>
    underTraffic(async () => {
      let left = DIMMS;
      for (let i = DIMMS - 1; i >= 0; i--) {
        if (await unplug(a, i)) left--;
        await mapped(BASE + VMEM + left * DIMM);
      }
      assert.ok(left <= DIMMS - 3, `${left} DIMMs are left`);
    }),
  );
  await copy(a, b, B, 4);
});

// Without CONFIGURE_MEM_SLOTS QEMU sends the whole table anew, while the rings run.
scenario('DIMMs under traffic, by a table at a time', ['qemu'], {}, async (lab) => {
  await lab.ports('a', 'b');
  const path = lab.path('relay');
  const relay = new Relay(path, lab.path('a'), PF_CONFIGURE_MEM_SLOTS);
  lab.closing(() => relay.close());
  const [a, b] = await Promise.all([
    lab.boot({
      name: 'a',
      nics: [{ backend: { vhostUser: path } }],
      memory: BASE,
      growth: { slots: 4, maxMemory: 4096 },
      append: 'memhp_default_state=online_movable',
    }),
    lab.boot(onPort(lab, 'b')),
  ]);
  await configure(a, `${A}/24`);
  await configure(b, `${B}/24`);
  await Promise.all([lab.state('a', 'up'), lab.state('b', 'up')]);
  const tables = (): number => relay.requests.get(VU_SET_MEM_TABLE) ?? 0;
  const streams = [await stream(a, b, B), await stream(b, a, A)];
  const before = tables();
  for (let round = 0; round < 2; round++) {
    for (let i = 0; i < 3; i++) {
      const total = await totalMib(a);
      await plug(a, i);
      await online(a, total + DIMM);
    }
    for (let i = 0; i < 3; i++) {
      assert.ok(await unplug(a, i), `dimm${i} stays`);
      await a.qmp('object-del', { id: `memory${i}` });
    }
  }
  for (const each of streams) assert.ok((await each.stop()) > 0);
  assert.ok(tables() >= before + 12, `${tables() - before} tables for 12 changes`);
  assert.equal(relay.requests.get(VU_ADD_MEM_REG), undefined);
  assert.equal(lab.portInfo('a').memory, BASE * MIB);
  await agree(lab, a, b);
});

async function plug(guest: Guest, i: number): Promise<void> {
  const backend = { 'qom-type': 'memory-backend-memfd', id: `memory${i}` };
  await guest.qmp('object-add', { ...backend, size: DIMM * MIB, share: true });
  await guest.qmp('device_add', { driver: 'pc-dimm', id: `dimm${i}`, memdev: `memory${i}` });
}

/** Asks the guest for DIMM `i`; whether it let go of it. */
async function unplug(guest: Guest, i: number): Promise<boolean> {
  const first = guest.events.length;
  const id = `dimm${i}`;
  await guest.qmp('device_del', { id });
  let removed = false;
  const decided = (): boolean => {
    const news = guest.events.slice(first);
    removed = news.some(({ event, data }) => event === 'DEVICE_DELETED' && data?.['device'] === id);
    // ACPI's _OST: 0 is success, 0x84 is "in progress".
    const refused = news.some(({ event, data }) => {
      const info = data?.['info'] as { device?: string; status: number } | undefined;
      if (event !== 'ACPI_DEVICE_OST' || info?.device !== id) return false;
      return info.status !== 0 && info.status !== 0x84;
    });
    return removed || refused;
  };
  await waitFor(decided, 60_000, `an answer about ${id}`, () => JSON.stringify(guest.events));
  return removed;
}

async function resize(guest: Guest, mib: number): Promise<void> {
  const property = { path: '/machine/peripheral/vm0', property: 'requested-size' };
  await guest.qmp('qom-set', { ...property, value: mib * MIB });
}

/** MiB that the guest uses of virtio-mem. */
async function plugged(guest: Guest): Promise<number> {
  const size = await guest.qmp('qom-get', { path: '/machine/peripheral/vm0', property: 'size' });
  return Number(size) / MIB;
}

async function totalMib(guest: Guest): Promise<number> {
  const { stdout } = await guest.run("awk '/MemTotal/ { print $2 }' /proc/meminfo");
  return Number(stdout) / 1024;
}

/** Waits until Linux has `mib` MiB, less a little for its page tables. */
async function online(guest: Guest, mib: number): Promise<void> {
  const there = async (): Promise<boolean> => (await totalMib(guest)) > mib - DIMM / 2;
  await waitFor(there, 60_000, `${mib} MiB in ${guest.name}`);
}

/** Where the descriptors of port 0's ring point, GPAs. */
function bufferAddresses(lab: Lab, queue: number): bigint[] {
  const { control } = lab.sw;
  const ring = ringAddress(ringIndex(0, queue));
  const view = new DataView(control.memory.buffer, control.get(ring + RING_DESC));
  const size = control.get(ring + RING_SIZE);
  return Array.from({ length: size }, (_, i) => view.getBigUint64(i * 16, true));
}
