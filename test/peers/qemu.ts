// What a guest is made of, and QEMU's command line for it.

import { join } from 'node:path';
import { type Nic, nicArguments } from './nic.ts';

export interface GuestOptions {
  /** For messages and MAC addresses; unique among the guests of one network. */
  name: string;
  /** MiB; 256 by default. */
  memory?: number;
  /** Room for memory that comes later: DIMM slots, and MiB in all. */
  growth?: { slots: number; maxMemory: number };
  /**
   * Virtual CPUs; 2 by default. With one, QEMU before 8.1 drops the guest's memory barriers, and
   * kick suppression towards another process may lose wake-ups.
   */
  smp?: number;
  nics?: Nic[];
  /** Added to QEMU's command line as they are, before the cards: buses for them, say. */
  extraArgs?: string[];
  /** Added to the kernel's command line. */
  append?: string;
  /** Files of ours (values) that the guest finds at these paths (keys), without a leading slash. */
  files?: Record<string, string>;
  /** No kernel from QEMU: the firmware's driver gets one over the first card, which has a ROM. */
  netboot?: boolean;
  /** Exit instead of rebooting; off by default. */
  noReboot?: boolean;
  /** A migration URI to wait on; boot() then returns at once, and run() works after migration. */
  incoming?: string;
  /** Host CPUs for QEMU, such as '1'. */
  cpus?: string;
  /** A network namespace, named as in `ip netns`, to run QEMU in: where its TAP devices are. */
  netns?: string;
  /** For the boot; 60 s by default. */
  timeoutMs?: number;
}

/**
 * The kernel's command line. A panic halts, to be read on the console; it does not reboot. Under TCG
 * the kernel's crypto self-tests take a fifth of the boot, and once in a while they never end; on a
 * busy host its check of the timer may find none, and panic.
 */
export const APPEND =
  'console=ttyS0 quiet panic=0 mitigations=off cryptomgr.notests no_timer_check';

export function qemuArguments(
  options: GuestOptions,
  kernel: string,
  initrd: string,
  folder: string,
): string[] {
  const memory = `${options.memory ?? 256}M`;
  const { growth } = options;
  const room = growth ? `,slots=${growth.slots},maxmem=${growth.maxMemory}M` : '';
  return [
    ...['-nodefaults', '-no-user-config', '-display', 'none', '-name', options.name],
    ...['-machine', 'q35,memory-backend=mem', '-accel', 'tcg,thread=multi', '-cpu', 'max'],
    ...['-smp', `${options.smp ?? 2}`, '-m', `${memory}${room}`],
    ...['-object', `memory-backend-memfd,id=mem,size=${memory},share=on`],
    ...(options.netboot
      ? []
      : ['-kernel', kernel, '-initrd', initrd, '-append', `${APPEND} ${options.append ?? ''}`]),
    ...[
      '-chardev',
      `file,id=console,path=${join(folder, 'console')}`,
      '-serial',
      'chardev:console',
    ],
    ...['-chardev', `socket,id=shell,path=${join(folder, 'shell')}`, '-serial', 'chardev:shell'],
    ...[
      '-chardev',
      `socket,id=qmp,path=${join(folder, 'qmp')}`,
      '-mon',
      'chardev=qmp,mode=control',
    ],
    ...(options.noReboot ? ['-no-reboot'] : []),
    ...(options.incoming === undefined ? [] : ['-incoming', options.incoming]),
    ...(options.extraArgs ?? []),
    ...(options.nics ?? []).flatMap((nic, index) =>
      nicArguments(nic, index, nic.mac ?? macOf(options.name, index)),
    ),
  ];
}

/** A locally administered address from a hash (FNV-1a) of the guest's name. */
export function macOf(name: string, index: number): string {
  let hash = 0x811c9dc5;
  for (const byte of Buffer.from(name)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  const tail = [hash >>> 16, hash >>> 8, hash + index].map((n) => n & 0xff);
  return [0x52, 0x54, 0, ...tail].map((n) => n.toString(16).padStart(2, '0')).join(':');
}
