// What a name, a socket path and a MAC address may be, the MAC address a name stands for, and what else
// both ends of a socket of ours have to agree on.

import { createHash } from 'node:crypto';
import { basename } from 'node:path';

/** Names of switches and ports: they appear in file names, identifiers and URLs. */
export const NAME_PATTERN = /^[A-Za-z0-9._-]{1,32}$/;

/** Unicast: the lowest bit of the first byte is clear. */
export const MAC_PATTERN = /^[0-9A-Fa-f][02468ACEace](:[0-9A-Fa-f]{2}){5}$/;

/** Names of network devices: fewer than the kernel allows (IFNAMSIZ), all that people use. */
export const DEVICE_PATTERN = /^[A-Za-z0-9._-]{1,15}$/;

/** Bytes in a Unix socket's path: sun_path holds 108 with its terminating zero (unix(7)). */
export const MAX_SOCKET_PATH = 107;

/** Permission bits of a socket, as a person writes them: octal, as chmod(1) takes them. */
export const SOCKET_MODE_PATTERN = /^0?[0-7]{3}$/;

/** Of what goes between two processes when ports change hands (switch/handover.ts): another one is not understood. */
export const HANDOVER_FORMAT = 1;

/** Largest uid or gid; the next number means "leave it". */
export const MAX_ID = 0xffff_fffe;

/**
 * The MAC address of the guest behind port `name`, for whoever gives none: QEMU's prefix 52:54:00
 * and 24 bits of a hash, so that a port has the same address each time it is started.
 */
export function macFromName(name: string): string {
  const hash = createHash('sha256').update(name).digest('hex');
  return `52:54:00:${hash.slice(0, 2)}:${hash.slice(2, 4)}:${hash.slice(4, 6)}`;
}

/** The port name a socket path stands for: its base name without `.sock`, made a valid name. */
export function nameFromPath(path: string): string {
  const base = basename(path).replace(/\.(sock|socket)$/, '');
  const name = base.replace(/[^A-Za-z0-9._-]/g, '-').slice(0, 32);
  return name === '' ? 'port' : name;
}
