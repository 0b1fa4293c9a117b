// TAP devices that this process reads and writes itself, with virtio-net headers of 10 bytes, on a
// bridge in a network namespace of their own: the kernel's own way with offloads. Needs root ('net').

import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import koffi from 'koffi';
import { exec } from './process.ts';

// <linux/if_tun.h>
const TUNSETIFF = 0x400454ca;
const TUNSETOFFLOAD = 0x400454d0;
const IFF_TAP = 2;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
export const TUN_F_CSUM = 1;
const HEADER = 10;

const ioctl = koffi.load(null).func('int ioctl(int fd, unsigned long request, uintptr_t value)');
const ioctlAt = koffi.load(null).func('int ioctl(int fd, unsigned long request, void *value)');

let made = 0;

export class Tap {
  readonly name: string;
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(HEADER + 65536 + 64);

  /** In this process's namespace, until `openTaps` moves it. `offloads`: TUN_F_*. */
  constructor(name: string, offloads: number) {
    this.name = name;
    this.#fd = openSync('/dev/net/tun', constants.O_RDWR | constants.O_NONBLOCK);
    const request = Buffer.alloc(128);
    request.write(name);
    request.writeUInt16LE(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, 16);
    if (ioctlAt(this.#fd, TUNSETIFF, request) < 0 || ioctl(this.#fd, TUNSETOFFLOAD, offloads) < 0) {
      const errno = koffi.errno();
      this.close();
      throw new Error(`TAP ${name}: errno ${errno}`);
    }
  }

  /** For who reads and writes by itself. */
  get fd(): number {
    return this.#fd;
  }

  /** Throws the error of write(2): EINVAL for a header the kernel does not take. */
  write(header: Uint8Array, frame: Uint8Array): void {
    writeSync(this.#fd, Buffer.concat([header.subarray(0, HEADER), frame]));
  }

  /** The next frame, or undefined when there is none. */
  read(): { header: Uint8Array; frame: Uint8Array } | undefined {
    try {
      const length = readSync(this.#fd, this.#buffer);
      const bytes = new Uint8Array(this.#buffer.subarray(0, length));
      return { header: bytes.subarray(0, HEADER), frame: bytes.subarray(HEADER) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'EAGAIN') return undefined;
      throw error;
    }
  }

  close(): void {
    closeSync(this.#fd);
  }
}

/** One TAP for each set of offloads, on one bridge; `close` removes all of it. */
export async function openTaps(
  ...offloads: number[]
): Promise<{ taps: Tap[]; close(): Promise<void> }> {
  const netns = `vhopt-${process.pid}-${++made}`;
  const ip = (line: string): Promise<string> => exec('ip', line.split(' '));
  const taps: Tap[] = [];
  const close = async (): Promise<void> => {
    for (const tap of taps) tap.close();
    await ip(`netns del ${netns}`);
  };
  await ip(`netns add ${netns}`);
  try {
    // Nothing but what is written to the TAPs goes over the bridge.
    const quiet = 'echo 1 > /proc/sys/net/ipv6/conf/default/disable_ipv6';
    await exec('ip', ['netns', 'exec', netns, 'sh', '-c', quiet]);
    await ip(`-n ${netns} link add name vt-br type bridge mcast_snooping 0`);
    await ip(`-n ${netns} link set vt-br up`);
    for (const [i, accepts] of offloads.entries()) {
      const tap = new Tap(`vt${process.pid}x${i}`, accepts);
      taps.push(tap);
      await ip(`link set ${tap.name} netns ${netns}`);
      await ip(`-n ${netns} link set ${tap.name} master vt-br up`);
    }
  } catch (error) {
    await close();
    throw error;
  }
  return { taps, close };
}
