// What a switch leaves for the one that comes after it, however it ends: a file that is mapped over the
// part of the control area with ring positions, counters and the FDB, so that whatever workers store is in
// the file at once, and costs nothing more.
//
//   0        names   2 x 32 KiB, the one with the higher sequence counts: u32 sequence, u32 length,
//                    u32 CRC-32, u32 0, then JSON: which port has which index, and who was connected
//   65536    image   STATE_FROM to STATE_TO of the control area

import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  unlinkSync,
  writeSync,
} from 'node:fs';
import { crc32 } from 'node:zlib';
import {
  FDB_BUCKETS,
  FDB_KEYS,
  FDB_WAYS,
  RING_BASE,
  RING_STRIDE,
  RINGS_PER_PORT,
  STATE_FROM,
  STATE_TO,
} from '../abi/layout.ts';
import { addressOf, lockFile, mmapFixed, unlockFile } from '../linux/index.ts';
import type { Control } from './control.ts';

/** Changes with the layout of what is kept: a file of another is begun anew. */
const LAYOUT = 1;
const NAMES = 65536;
const HALF = NAMES / 2;
const HEAD = 16;
const SIZE = NAMES + STATE_TO - STATE_FROM;

/** What the switch before knew of a port. */
export interface Kept {
  /** RINGS_PER_PORT ring blocks. */
  rings: Uint8Array;
  /** Addresses heard on it: keys of the FDB without the port. */
  macs: bigint[];
  /** Who was connected: `peer` of StatePort. */
  peer: string | undefined;
  /** How often a switch took the port up from the one before it, with this time if there was one. */
  restarts: number;
  /** Where its rings still stand in this switch's memory, and so in the file; undefined: nowhere. */
  index: number | undefined;
}

export interface StatePort {
  name: string;
  index: number;
  /** Says which process is at the other end; undefined: none was. */
  peer?: string | undefined;
  /** As in Kept; absent: 0. */
  restarts?: number;
}

interface Names {
  layout: number;
  ports: readonly StatePort[];
}

export class StateInUse extends Error {}

export class StateFile {
  path: string;
  /** By name: what the switch before left, until a port of that name takes it. */
  readonly kept: Map<string, Kept> = new Map();
  readonly #fd: number;
  #sequence = 0;

  /** What the switch that had `path` left there, by port; nothing where there is no such file. */
  static read(path: string): Map<string, Kept> {
    if (!existsSync(path)) return new Map();
    const fd = openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      return fstatSync(fd).size === SIZE ? keptIn(fd) : new Map();
    } finally {
      closeSync(fd);
    }
  }

  /**
   * Reads the file, if there is one, and maps a new one over `control`: zeros, and the rings of `kept` where they were,
   * since this switch may be killed before a port takes them. Throws StateInUse while another process has it.
   */
  constructor(path: string, control: Control) {
    this.path = path;
    const { O_RDWR, O_CREAT, O_NOFOLLOW, O_TRUNC } = constants;
    const old = openSync(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0o600);
    try {
      // Who had it locked may have put another file in its place by now.
      if (!lockFile(old) || fstatSync(old).ino !== lstatSync(path).ino) {
        throw new StateInUse(`'${path}' is in use by another switch`);
      }
      if (fstatSync(old).size === SIZE) this.kept = keptIn(old);
      const next = `${path}.new`;
      this.#fd = openSync(next, O_RDWR | O_CREAT | O_NOFOLLOW | O_TRUNC, 0o600);
      try {
        lockFile(this.#fd);
        ftruncateSync(this.#fd, SIZE);
        const base = addressOf(control.bytes.subarray(0, 65536));
        mmapFixed(base + STATE_FROM, STATE_TO - STATE_FROM, this.#fd, NAMES);
        for (const { rings, index } of this.kept.values()) {
          control.bytes.set(rings, RING_BASE + index! * RINGS_PER_PORT * RING_STRIDE);
        }
        this.write([...this.kept].map(([name, kept]) => ({ name, ...kept, index: kept.index! })));
        // In one step, whenever the kill comes.
        renameSync(next, path);
      } catch (error) {
        closeSync(this.#fd);
        throw error;
      }
    } finally {
      closeSync(old);
    }
  }

  /** Writes which ports there are. */
  write(ports: readonly StatePort[]): void {
    const names = ports.map(({ name, index, peer, restarts }) => ({ name, index, peer, restarts }));
    const text = Buffer.from(JSON.stringify({ layout: LAYOUT, ports: names } satisfies Names));
    if (text.length > HALF - HEAD) throw new RangeError(`${ports.length} ports do not fit`);
    const head = Buffer.alloc(HEAD);
    this.#sequence++;
    head.writeUInt32LE(this.#sequence, 0);
    head.writeUInt32LE(text.length, 4);
    head.writeUInt32LE(crc32(text), 8);
    const at = (this.#sequence & 1) * HALF;
    writeSync(this.#fd, Buffer.concat([head, text]), 0, HEAD + text.length, at);
  }

  /** Takes the place of another file, should there be one. */
  moveTo(path: string): void {
    renameSync(this.path, path);
    this.path = path;
  }

  /** Lets go of the file; without `keep` there is nothing to go on with. */
  close(keep: boolean): void {
    if (!keep) unlinkSync(this.path);
    unlockFile(this.#fd);
    closeSync(this.#fd);
  }
}

function keptIn(fd: number): Map<string, Kept> {
  const kept = new Map<string, Kept>();
  const bytes = Buffer.alloc(SIZE);
  readSync(fd, bytes, 0, SIZE, 0);
  const halves = [0, HALF].map((at) => namesAt(bytes.subarray(at, at + HALF)));
  const [newest] = halves
    .filter((half) => half !== undefined)
    .sort((a, b) => b.sequence - a.sequence);
  if (newest?.names.layout !== LAYOUT) return kept;
  const image = bytes.subarray(NAMES);
  const macs = macsByPort(image);
  for (const { name, index, peer, restarts = 0 } of newest.names.ports) {
    const at = RING_BASE - STATE_FROM + index * RINGS_PER_PORT * RING_STRIDE;
    const rings = image.subarray(at, at + RINGS_PER_PORT * RING_STRIDE);
    kept.set(name, {
      ...{ rings, macs: macs.get(index) ?? [], peer },
      ...{ restarts: restarts + 1, index },
    });
  }
  return kept;
}

function namesAt(half: Buffer): { sequence: number; names: Names } | undefined {
  const length = half.readUInt32LE(4);
  const text = half.subarray(HEAD, HEAD + length);
  if (length === 0 || text.length !== length || crc32(text) !== half.readUInt32LE(8))
    return undefined;
  return { sequence: half.readUInt32LE(0), names: JSON.parse(text.toString()) as Names };
}

function macsByPort(image: Buffer): Map<number, bigint[]> {
  const found = new Map<number, bigint[]>();
  const at = FDB_KEYS - STATE_FROM;
  for (let i = 0; i < FDB_BUCKETS * FDB_WAYS; i++) {
    const high = image.readUInt32LE(at + i * 8 + 4);
    if (high === 0) continue;
    const mac = image.readBigUInt64LE(at + i * 8) & 0xffff_ffff_ffffn;
    const port = (high >>> 16) - 1;
    const macs = found.get(port);
    if (macs) macs.push(mac);
    else found.set(port, [mac]);
  }
  return found;
}
