// Machines without a disk: the firmware's driver (iPXE in QEMU's boot ROM) gets Linux over the
// switch, and Linux's driver goes on where it left off, on the same connection and port, with
// another ring size or another header length. After a reset the firmware's driver is back.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { PORT_BASE, PORT_HDR_LEN, PORT_STRIDE } from '../../src/abi/layout.ts';
import type { Guest } from '../peers/guest.ts';
import { guestImages } from '../peers/initramfs.ts';
import { configure } from '../peers/iperf.ts';
import type { Nic } from '../peers/nic.ts';
import { waitFor } from '../peers/process.ts';
import { APPEND } from '../peers/qemu.ts';
import { type Lab, scenario } from './lab.ts';
import { B, copy, onPort, pingAll } from './pair.ts';

interface Machine {
  name: string;
  device: Nic['device'];
  address: string;
  /** What its port shows: of the firmware's driver, and of Linux's. */
  header: [number, number];
  ring: [number, number];
}

const machines: Machine[] = [
  {
    name: 'modern',
    device: { rx_queue_size: 1024 },
    address: '10.0.0.10',
    header: [12, 12],
    ring: [256, 1024],
  },
  {
    // iPXE knows no mergeable buffers, so its header has 10 bytes; Linux's has 12.
    name: 'legacy',
    device: { 'disable-modern': true },
    address: '10.0.0.11',
    header: [10, 12],
    ring: [256, 256],
  },
];

scenario('firmware first, then Linux, on the same ports', ['qemu'], {}, async (lab, t) => {
  await lab.ports('modern', 'legacy', 'b');
  const b = await bootServer(lab);
  const descriptions = () => machines.map(({ name }) => describe(lab, name)).join('\n');
  const firmwareRuns = async (): Promise<void> => {
    const asked = machines.map(({ name }) => lab.stats(name).txFrames);
    for (const [i, { name, header, ring }] of machines.entries()) {
      const runs = (): boolean => {
        const { features, txFrames, ...now } = state(lab, name);
        const plain = !features.includes('CSUM') && !features.includes('MRG_RXBUF');
        return plain && now.header === header[0] && now.ring === ring[0] && txFrames > asked[i]!;
      };
      await waitFor(runs, 60_000, `the firmware's driver on ${name}`, descriptions);
    }
  };

  const guests: Guest[] = [];
  await lab.step(t, 'the firmware boots Linux through the switch', async () => {
    const booting = machines.map(({ name, device }) =>
      lab.boot({
        name,
        nics: [{ backend: { vhostUser: lab.path(name) }, device, rom: true }],
        netboot: true,
        timeoutMs: 240_000,
      }),
    );
    // What fails here is told below.
    const all = Promise.all(booting);
    all.catch(() => {});
    await firmwareRuns();
    guests.push(...(await all));
    // The server left checksums to its card, and the firmware's driver takes none unfinished.
    for (const { name } of machines) assert.ok(lab.stats(name).summed > 0);
  });

  await lab.step(t, "Linux's driver after it", async () => {
    for (const [i, guest] of guests.entries()) {
      const { name, address, header, ring } = machines[i]!;
      await configure(guest, `${address}/24`);
      await lab.state(name, 'up');
      assert.deepEqual([state(lab, name).header, state(lab, name).ring], [header[1], ring[1]]);
      await pingAll(b, address, 20);
      await pingAll(guest, B, 20);
      await copy(guest, b, B, 2);
    }
  });

  await lab.step(t, 'a reset brings the firmware back', async () => {
    for (const guest of guests) await guest.qmp('system_reset');
    await firmwareRuns();
  });
});

/** The guest that hands out addresses (DHCP), the kernel and its file system (HTTP). */
async function bootServer(lab: Lab): Promise<Guest> {
  const { kernel, initrd } = await guestImages();
  const file = (name: string, lines: string[]): string => {
    const path = join(lab.folder, name);
    writeFileSync(path, `${lines.join('\n')}\n`);
    return path;
  };
  const script = file('boot.ipxe', [
    '#!ipxe',
    `kernel http://${B}/vmlinuz initrd=initrd ${APPEND}`,
    `initrd http://${B}/initrd`,
    'boot',
  ]);
  const dhcp = file('udhcpd.conf', [
    'start 10.0.0.100',
    'end 10.0.0.120',
    'interface eth0',
    'lease_file /tmp/leases',
    `boot_file http://${B}/boot.ipxe`,
    'option subnet 255.255.255.0',
  ]);
  const b = await lab.boot({
    ...onPort(lab, 'b'),
    memory: 384,
    files: {
      'www/vmlinuz': kernel,
      'www/initrd': initrd,
      'www/boot.ipxe': script,
      'etc/udhcpd.conf': dhcp,
    },
  });
  await configure(b, `${B}/24`);
  await b.run('httpd -h /www; touch /tmp/leases; udhcpd -S /etc/udhcpd.conf');
  return b;
}

function state(lab: Lab, name: string) {
  const { index, features } = lab.portInfo(name);
  return {
    features,
    header: lab.sw.control.get(PORT_BASE + index * PORT_STRIDE + PORT_HDR_LEN),
    ring: lab.sw.rings().find(({ port }) => port === name)?.size,
    txFrames: lab.stats(name).txFrames,
  };
}

function describe(lab: Lab, name: string): string {
  return `${name}: ${JSON.stringify(state(lab, name))}`;
}
