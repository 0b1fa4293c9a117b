// A device carried over to another process while its guest runs: what its front end said, in JSON and
// descriptors, and said again to a device there.
//
// In two steps, so that the guest waits for the second only: what does not change while its front end is not
// listened to (`describe`, `prepare`), then, of a paused device, where its rings are (`positions`, `start`).

import { RING_FRAMES, RING_STRIDE } from '../abi/layout.ts';
import { close } from '../linux/index.ts';
import { type Control, ringAddress } from '../memory/control.ts';
import type { NetDevice } from './device.ts';
import type { Ring } from './ring.ts';

/** Plain JSON; bigints as text, descriptors as indices into a list that goes with it. */
export interface DeviceDescription {
  features: string;
  mtu?: number;
  status: number;
  regions: { gpa: string; size: string; uva: string; mmapOffset: string; fd: number }[];
  rings: RingDescription[];
}

export interface RingDescription {
  size: number;
  parts?: { desc: string; avail: string; used: string };
  enabled: boolean;
  started: boolean;
  /** -1: none. */
  kick: number;
  call: number;
  err: number;
}

/** Of a ring, as SET_VRING_BASE takes it, and its counters, in base64. */
export interface RingPosition {
  base: number;
  counters: string;
}

/** `rx` rings carry frames to the guest. */
export type Direction = 'rx' | 'tx';

export function ringsOf({ rings }: NetDevice, direction: Direction): Ring[] {
  return rings.filter(({ isTx }) => isTx === (direction === 'tx'));
}

/** `fds` gets what the description refers to; the descriptors stay the device's. */
export function describe(device: NetDevice, fds: number[]): DeviceDescription {
  const give = (fd: number) => (fd < 0 ? -1 : fds.push(fd) - 1);
  const { features, mtu } = device;
  return {
    features: String(features),
    ...(mtu === undefined ? {} : { mtu }),
    status: device.getStatus(),
    regions: device.regions.files().map(({ fd, gpa, size, uva, mmapOffset }) => ({
      gpa: String(gpa),
      size: String(size),
      uva: String(uva),
      mmapOffset: String(mmapOffset),
      fd: give(fd),
    })),
    rings: device.rings.map((ring) => {
      const { size, parts, enabled, started, kickFd, callFd, errFd } = ring;
      const text = parts && {
        desc: String(parts.desc),
        avail: String(parts.avail),
        used: String(parts.used),
      };
      return {
        size,
        ...(text && { parts: text }),
        enabled,
        // One that is latched waits for its front end to start it anew, here as there.
        started: started && ring.broken === undefined,
        kick: give(kickFd),
        call: give(callFd),
        err: give(errFd),
      };
    }),
  };
}

/**
 * Sets up all but where the rings are. Takes what it uses of `fds`, leaving -1. Throws Refusal where this device
 * cannot be that one.
 */
export function prepare(device: NetDevice, from: DeviceDescription, fds: number[]): void {
  const take = (index: number) => (index < 0 ? -1 : fds.splice(index, 1, -1)[0]!);
  device.setFeatures(BigInt(from.features));
  if (from.mtu !== undefined && from.mtu !== device.mtu) device.setMtu(from.mtu);
  device.setStatus(from.status);
  device.setMemTable(
    from.regions.map(({ gpa, size, uva, mmapOffset, fd }) => ({
      gpa: BigInt(gpa),
      size: BigInt(size),
      uva: BigInt(uva),
      mmapOffset: BigInt(mmapOffset),
      fd: take(fd),
    })),
  );
  for (const [index, { size, parts, enabled, call, err }] of from.rings.entries()) {
    if (size > 0) device.setVringNum(index, size);
    if (parts) {
      const [desc, avail, used] = [BigInt(parts.desc), BigInt(parts.avail), BigInt(parts.used)];
      device.setVringAddr(index, { flags: 0, desc, avail, used, logGpa: 0n });
    }
    if (call >= 0) device.setVringCall(index, take(call));
    if (err >= 0) device.setVringErr(index, take(err));
    device.setVringEnable(index, enabled);
  }
}

/** Of a paused device. */
export function positions(device: NetDevice, control: Control): RingPosition[] {
  return device.rings.map((ring) => {
    const at = ringAddress(ring.index);
    const counters = control.bytes.slice(at + RING_FRAMES, at + RING_STRIDE);
    return { base: ring.position, counters: Buffer.from(counters).toString('base64') };
  });
}

/**
 * The rings of one direction go on where they were: all devices' receivers before the first sender, or its frames
 * find nobody. Takes the kick descriptors of `fds`. Throws Refusal.
 */
export function start(
  direction: Direction,
  device: NetDevice,
  control: Control,
  from: DeviceDescription,
  at: readonly RingPosition[],
  fds: number[],
): void {
  const kicks: [index: number, fd: number][] = [];
  for (const [index, { started, kick }] of from.rings.entries()) {
    const ring = device.rings[index]!;
    if (ring.isTx !== (direction === 'tx')) continue;
    const { base, counters } = at[index]!;
    const bytes = Buffer.from(counters, 'base64');
    control.bytes.set(bytes, ringAddress(ring.index) + RING_FRAMES);
    device.setVringBase(index, base);
    const fd = kick < 0 ? -1 : fds.splice(kick, 1, -1)[0]!;
    if (started) kicks.push([index, fd]);
    else if (fd >= 0) close(fd);
  }
  device.setVringKicks(kicks);
}
