// The forwarding database as main sees it: reading, ageing, learning from SEND_RARP.

import {
  FDB_AGES,
  FDB_BUCKETS,
  FDB_KEYS,
  FDB_WAYS,
  NO_PORT,
  SWITCH_FDB_COUNT,
} from '../abi/layout.ts';
import type { Control } from '../memory/control.ts';
import type { Datapath } from '../worker/datapath.ts';

const SLOTS = FDB_BUCKETS * FDB_WAYS;

export interface Heard {
  mac: string;
  port: number;
  /** Second of the switch's clock when the address was last heard. */
  heard: number;
}

export class Fdb {
  readonly #control: Control;
  readonly #datapath: Datapath;

  constructor(control: Control, datapath: Datapath) {
    this.#control = control;
    this.#datapath = datapath;
  }

  entries(): Heard[] {
    const { buffer } = this.#control.memory;
    if (this.#control.get(SWITCH_FDB_COUNT) === 0) return [];
    const words = new Uint32Array(buffer, FDB_KEYS, SLOTS * 2);
    const ages = new Uint32Array(buffer, FDB_AGES, SLOTS);
    const found: Heard[] = [];
    for (let i = 0; i < SLOTS; i++) {
      const high = words[i * 2 + 1]!;
      if (high === 0) continue;
      found.push({ mac: formatMac(words[i * 2]!, high), port: (high >>> 16) - 1, heard: ages[i]! });
    }
    return found.sort((a, b) => (a.mac < b.mac ? -1 : 1));
  }

  /** The address was heard on `port`, by another way than a frame. */
  learn(mac: Uint8Array, port: number): void {
    const value = macBits(mac);
    if (value !== 0n && (value & 1n) === 0n) this.#datapath.fdbLearn(value, port);
  }

  /** Forgets what was last heard before second `before`. */
  expire(before: number): void {
    if (before > 0) this.#datapath.fdbExpire(before, NO_PORT);
  }

  /** Forgets all addresses behind `port`. */
  forget(port: number): void {
    this.#datapath.fdbExpire(0, port);
  }
}

/** An address, its six bytes or as `formatMac` writes it, to the low 48 bits of a key. */
export function macBits(mac: Uint8Array | string): bigint {
  const bytes: Uint8Array =
    typeof mac === 'string' ? Buffer.from(mac.replaceAll(':', ''), 'hex') : mac;
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}

/** The low 48 bits of a key, wire order in the low bytes. */
function formatMac(low: number, high: number): string {
  const bytes = [low, low >>> 8, low >>> 16, low >>> 24, high, high >>> 8];
  return bytes.map((byte) => (byte & 255).toString(16).padStart(2, '0')).join(':');
}
