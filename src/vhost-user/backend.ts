// What a vhost-user session drives: the device behind one port.
//
// The session (session.ts) checks syntax: sizes, fd counts, queue indices, negotiated protocol
// features. The back end checks meaning: ranges, addresses, state. Every method returns only once
// the datapath's workers have seen the change, so that the session may acknowledge at once.
//
// Descriptor ownership: a method that takes an fd owns it from the call on, also when it throws.
// Refusals are thrown as `Refusal`; the session answers nonzero (NEED_REPLY) or closes the socket.

import type { PeerInfo } from '../types.ts';

/** A request that cannot be honoured; the message is one sentence for the user. */
export class Refusal extends Error {
  override name = 'Refusal';
}

/** One region of a front end's memory table (vhost-user `VhostUserMemoryRegion`), bytes. */
export interface MemoryRegion {
  gpa: bigint;
  size: bigint;
  /** Address in the front end's own address space; ring addresses are given in it. */
  uva: bigint;
  /** Offset of the region in the file behind `fd`. */
  mmapOffset: bigint;
}

export interface MemoryRegionFd extends MemoryRegion {
  fd: number;
}

/** Ring addresses as SET_VRING_ADDR carries them: front-end virtual, translated by the back end. */
export interface VringAddr {
  flags: number;
  desc: bigint;
  used: bigint;
  avail: bigint;
  logGpa: bigint;
}

export interface Backend {
  /** Virtio feature bits offered, without VHOST_USER_F_PROTOCOL_FEATURES (the session adds it). */
  readonly offeredFeatures: bigint;
  /** Queue pairs served; rings are 0 .. 2*queuePairs-1. */
  readonly queuePairs: number;
  /** Memory regions a table may hold (GET_MAX_MEM_SLOTS). */
  readonly maxMemSlots: number;

  /** The front end connected; whatever an earlier connection set up is gone. */
  connected(peer: PeerInfo | undefined): void;
  /** The connection ended; stop all rings, unmap memory, close every fd. `reason` is for people. */
  disconnected(reason: string): void;

  /** SET_FEATURES, bit 30 included as sent. Throws when a bit was not offered. */
  setFeatures(features: bigint): void;
  /** SET_MEM_TABLE: replaces all regions. */
  setMemTable(regions: MemoryRegionFd[]): void;
  /** ADD_MEM_REG: an exact duplicate is success. */
  addMemRegion(region: MemoryRegionFd): void;
  /** REM_MEM_REG: matched by gpa, uva and size; one already gone is success. */
  removeMemRegion(region: MemoryRegion): void;

  setVringNum(index: number, num: number): void;
  setVringAddr(index: number, addr: VringAddr): void;
  setVringBase(index: number, base: number): void;
  /** GET_VRING_BASE: drains and stops the ring, returns its base. */
  getVringBase(index: number): number;
  /** Kick, call and err: a non-blocking eventfd, or -1 when none was sent (kick: poll mode). */
  setVringKick(index: number, fd: number): void;
  setVringCall(index: number, fd: number): void;
  setVringErr(index: number, fd: number): void;
  setVringEnable(index: number, enable: boolean): void;

  /** SET_STATUS; zero must not touch base, memory or enables. */
  setStatus(status: number): void;
  /** GET_STATUS: the last one set, FEATURES_OK cleared if the features were refused. */
  getStatus(): number;
  /** SET_LOG_BASE: `size` bytes of bitmap at `offset` of `fd`; replaces another one under running rings. */
  setLogBase(area: { size: bigint; offset: bigint }, fd: number): void;
  /** SET_LOG_FD: an eventfd that is signalled while the log is written to. */
  setLogFd(fd: number): void;

  /** NET_SET_MTU, bytes of payload. */
  setMtu(mtu: number): void;
  /** SEND_RARP: the guest with this MAC (6 bytes) is now behind this port. */
  sendRarp(mac: Uint8Array): void;
}
