// The other end of a TAP: a network namespace of this process's own, sockets in it, and the frames
// they understand. The namespace goes with the process, and node --test gives each file one.

import { writeFileSync } from 'node:fs';
import koffi from 'koffi';
import { exec, requirePeers } from '../peers/process.ts';

const libc = koffi.load(null);
const unshare = libc.func('int unshare(int flags)');
const socket = libc.func('int socket(int domain, int type, int protocol)');
const bind = libc.func('int bind(int fd, const void *address, unsigned int length)');
const setsockopt = libc.func(
  'int setsockopt(int fd, int level, int name, const void *value, unsigned int length)',
);
const sendto = libc.func(
  'intptr_t sendto(int fd, const void *data, size_t length, int flags, const void *to, unsigned int toLength)',
);
const recv = libc.func('intptr_t recv(int fd, void *data, size_t length, int flags)');
const close = libc.func('int close(int fd)');

const CLONE_NEWNET = 0x40000000;
const SOCK_DGRAM = 2;
const AF_INET = 2;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const MSG_DONTWAIT = 0x40;

let own = false;

/** Moves this thread to an empty namespace, once. False, with the test skipped, where it may not. */
export async function ownNetwork(t: { skip(reason: string): void }): Promise<boolean> {
  if (!requirePeers(t, ['net'])) return false;
  if (own) return true;
  if (unshare(CLONE_NEWNET) !== 0) throw new Error(`unshare: errno ${koffi.errno()}`);
  own = true;
  // Otherwise each device that comes up asks for routers and neighbours.
  writeFileSync('/proc/sys/net/ipv6/conf/default/disable_ipv6', '1');
  // Node's first child costs descriptors that stay: before tests count them.
  await ip('link set lo up');
  return true;
}

export const ip = (line: string): Promise<string> => exec('ip', line.split(' '));

export const KERNEL_MAC = '52:54:00:00:00:01';
export const PEER_MAC = '52:54:00:00:00:02';
export const KERNEL_IP = '10.9.0.1';
export const PEER_IP = '10.9.0.2';

/** Gives the device the kernel's addresses and makes the peer's known: nothing asks who has them. */
export async function addressDevice(device: string): Promise<void> {
  await ip(`addr add ${KERNEL_IP}/24 dev ${device}`);
  await ip(`neigh add ${PEER_IP} lladdr ${PEER_MAC} dev ${device}`);
}

function address(host: string, port: number): Buffer {
  const bytes = Buffer.alloc(16);
  bytes.writeUInt16LE(AF_INET, 0);
  bytes.writeUInt16BE(port, 2);
  bytes.set(host.split('.').map(Number), 4);
  return bytes;
}

function checked(result: number, call: string): number {
  if (result < 0) throw new Error(`${call}: errno ${koffi.errno()}`);
  return result;
}

/** A UDP socket of the kernel's side; its calls are made at once, unlike node:dgram's. */
export class Udp {
  readonly #fd = checked(socket(AF_INET, SOCK_DGRAM, 0), 'socket');

  constructor(port: number) {
    checked(bind(this.#fd, address(KERNEL_IP, port), 16), 'bind');
  }

  /** With `segment` the kernel is to cut the payload into datagrams of so many bytes. */
  send(payload: Uint8Array, port: number, segment = 0): void {
    const size = Buffer.alloc(4);
    size.writeInt32LE(segment);
    checked(setsockopt(this.#fd, SOL_UDP, UDP_SEGMENT, size, 4), 'UDP_SEGMENT');
    checked(sendto(this.#fd, payload, payload.length, 0, address(PEER_IP, port), 16), 'sendto');
  }

  /** The next datagram, if there is one. */
  receive(): Buffer | undefined {
    const bytes = Buffer.alloc(65536);
    const length = recv(this.#fd, bytes, bytes.length, MSG_DONTWAIT);
    return length < 0 ? undefined : bytes.subarray(0, length);
  }

  close(): void {
    close(this.#fd);
  }
}

const macBytes = (mac: string): Buffer => Buffer.from(mac.replaceAll(':', ''), 'hex');

/** An Ethernet frame from the peer to the kernel. */
export function frame(type: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(14);
  head.set(macBytes(KERNEL_MAC), 0);
  head.set(macBytes(PEER_MAC), 6);
  head.writeUInt16BE(type, 12);
  return Buffer.concat([head, payload]);
}

/** "Who has KERNEL_IP?", asked by the peer. */
export function arpRequest(): Buffer {
  const arp = Buffer.from('0001080006040001', 'hex');
  const ask = [macBytes(PEER_MAC), Buffer.from([10, 9, 0, 2]), Buffer.alloc(6)];
  return frame(0x0806, Buffer.concat([arp, ...ask, Buffer.from([10, 9, 0, 1])]));
}

/** An IPv4 frame from the peer to the kernel. */
export function ipv4(protocol: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(20);
  head[0] = 0x45;
  head.writeUInt16BE(20 + payload.length, 2);
  head[8] = 64;
  head[9] = protocol;
  head.set([10, 9, 0, 2, 10, 9, 0, 1], 12);
  let sum = 0;
  for (let i = 0; i < 20; i += 2) sum += head.readUInt16BE(i);
  head.writeUInt16BE(~((sum & 0xffff) + (sum >> 16)) & 0xffff, 10);
  return frame(0x0800, Buffer.concat([head, payload]));
}

/** A UDP datagram from the peer to the kernel, without a sum: for a header that says NEEDS_CSUM, or none. */
export function udp(from: number, to: number, payload: Uint8Array): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt16BE(from, 0);
  head.writeUInt16BE(to, 2);
  head.writeUInt16BE(8 + payload.length, 4);
  return ipv4(17, Buffer.concat([head, payload]));
}
