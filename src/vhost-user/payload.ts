// The payload structures of vhost-user: bytes to values and back. One codec per structure; a codec
// knows its sizes and nothing of any state.

import { MAX_CONFIG, MAX_FDS, VRING_INDEX_MASK, VRING_NOFD } from '../abi/vhost-user.ts';
import { type MemoryRegion, Refusal, type VringAddr } from './backend.ts';

/** SET_VRING_NUM, BASE, ENABLE; GET_VRING_BASE. Both u32. */
export interface VringState {
  index: number;
  num: number;
}

/** SET_VRING_KICK, CALL, ERR: index 0..255; `noFd`: no descriptor comes with it. */
export interface VringFd {
  index: number;
  noFd: boolean;
}

/** SET_LOG_BASE: bytes of the dirty bitmap and where it starts in its file. */
export interface LogArea {
  size: bigint;
  offset: bigint;
}

/** IOTLB_MSG. perm: 1 read, 2 write, 3 both. type: 1 miss, 2 update, 3 invalidate, 4 fail. */
export interface Iotlb {
  iova: bigint;
  size: bigint;
  uva: bigint;
  perm: number;
  type: number;
}

/** GET_INFLIGHT_FD, SET_INFLIGHT_FD. */
export interface Inflight {
  size: bigint;
  offset: bigint;
  queues: number;
  queueSize: number;
}

/** GET_CONFIG, SET_CONFIG; up to 256 bytes of configuration space. */
export interface Config {
  offset: number;
  flags: number;
  data: Uint8Array;
}

/** HOST_NOTIFIER of the back end: a ring's notification area in a file. */
export interface Area {
  value: bigint;
  size: bigint;
  offset: bigint;
}

/** SET_DEVICE_STATE_FD. direction: 0 save, 1 load. */
export interface Transfer {
  direction: number;
  phase: number;
}

/** The value that each payload kind decodes to. */
export interface Payloads {
  none: null;
  u64: bigint;
  state: VringState;
  ringFd: VringFd;
  addr: VringAddr & { index: number };
  table: MemoryRegion[];
  region: MemoryRegion;
  log: LogArea;
  iotlb: Iotlb;
  inflight: Inflight;
  config: Config;
  area: Area;
  transfer: Transfer;
  opaque: Uint8Array;
}

export type PayloadKind = keyof Payloads;

export interface Codec<T> {
  /** Throws Refusal if the size or a field cannot be; never anything else, whatever the bytes. */
  decode(bytes: Uint8Array): T;
  encode(value: T): Uint8Array;
}

const LE = true;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function requireSize(bytes: Uint8Array, size: number): void {
  if (bytes.length !== size) {
    throw new Refusal(`its payload is ${bytes.length} bytes, not ${size}`);
  }
}

/** A structure of one size. */
function fixed<T>(
  size: number,
  read: (view: DataView) => T,
  write: (view: DataView, value: T) => void,
): Codec<T> {
  return {
    decode(bytes) {
      requireSize(bytes, size);
      return read(viewOf(bytes));
    },
    encode(value) {
      const bytes = new Uint8Array(size);
      write(viewOf(bytes), value);
      return bytes;
    },
  };
}

/** A structure of consecutive u64 fields. */
function words<K extends string>(...names: K[]): Codec<Record<K, bigint>> {
  return fixed(
    8 * names.length,
    (view) => {
      const value = {} as Record<K, bigint>;
      for (const [i, name] of names.entries()) value[name] = view.getBigUint64(8 * i, LE);
      return value;
    },
    (view, value) => {
      for (const [i, name] of names.entries()) view.setBigUint64(8 * i, value[name], LE);
    },
  );
}

const REGION_SIZE = 32;
const TABLE_HEADER = 8;
const CONFIG_HEADER = 12;

const bareRegion = words('gpa', 'size', 'uva', 'mmapOffset');

const table: Codec<MemoryRegion[]> = {
  decode(bytes) {
    if (bytes.length < TABLE_HEADER) requireSize(bytes, TABLE_HEADER);
    const count = viewOf(bytes).getUint32(0, LE);
    if (count > MAX_FDS) throw new Refusal(`it names ${count} regions, more than ${MAX_FDS}`);
    requireSize(bytes, TABLE_HEADER + REGION_SIZE * count);
    return Array.from({ length: count }, (_, i) => {
      const at = TABLE_HEADER + REGION_SIZE * i;
      return bareRegion.decode(bytes.subarray(at, at + REGION_SIZE));
    });
  },
  encode(regions) {
    const bytes = new Uint8Array(TABLE_HEADER + REGION_SIZE * regions.length);
    viewOf(bytes).setUint32(0, regions.length, LE);
    for (const [i, region] of regions.entries()) {
      bytes.set(bareRegion.encode(region), TABLE_HEADER + REGION_SIZE * i);
    }
    return bytes;
  },
};

const config: Codec<Config> = {
  decode(bytes) {
    if (bytes.length < CONFIG_HEADER) requireSize(bytes, CONFIG_HEADER);
    const view = viewOf(bytes);
    const size = view.getUint32(4, LE);
    if (size > MAX_CONFIG) throw new Refusal(`it is about ${size} bytes, more than ${MAX_CONFIG}`);
    requireSize(bytes, CONFIG_HEADER + size);
    return {
      offset: view.getUint32(0, LE),
      flags: view.getUint32(8, LE),
      data: bytes.slice(CONFIG_HEADER),
    };
  },
  encode({ offset, flags, data }) {
    const bytes = new Uint8Array(CONFIG_HEADER + data.length);
    const view = viewOf(bytes);
    view.setUint32(0, offset, LE);
    view.setUint32(4, data.length, LE);
    view.setUint32(8, flags, LE);
    bytes.set(data, CONFIG_HEADER);
    return bytes;
  },
};

/** Every payload structure. Padding is written as zero and not looked at. */
export const CODECS: { [K in PayloadKind]: Codec<Payloads[K]> } = {
  none: fixed(
    0,
    () => null,
    () => {},
  ),
  u64: fixed(
    8,
    (view) => view.getBigUint64(0, LE),
    (view, value) => view.setBigUint64(0, value, LE),
  ),
  state: fixed(
    8,
    (view) => ({ index: view.getUint32(0, LE), num: view.getUint32(4, LE) }),
    (view, { index, num }) => {
      view.setUint32(0, index, LE);
      view.setUint32(4, num, LE);
    },
  ),
  ringFd: fixed(
    8,
    (view) => {
      const value = view.getBigUint64(0, LE);
      // Bits that mean nothing today are no index with its upper half cut off.
      if (value > BigInt(VRING_NOFD | VRING_INDEX_MASK)) {
        throw new Refusal(`ring number 0x${value.toString(16)} cannot be`);
      }
      return {
        index: Number(value) & VRING_INDEX_MASK,
        noFd: (Number(value) & VRING_NOFD) !== 0,
      };
    },
    (view, { index, noFd }) => view.setBigUint64(0, BigInt(index | (noFd ? VRING_NOFD : 0)), LE),
  ),
  addr: fixed(
    40,
    (view) => ({
      index: view.getUint32(0, LE),
      flags: view.getUint32(4, LE),
      desc: view.getBigUint64(8, LE),
      used: view.getBigUint64(16, LE),
      avail: view.getBigUint64(24, LE),
      logGpa: view.getBigUint64(32, LE),
    }),
    (view, { index, flags, desc, used, avail, logGpa }) => {
      view.setUint32(0, index, LE);
      view.setUint32(4, flags, LE);
      view.setBigUint64(8, desc, LE);
      view.setBigUint64(16, used, LE);
      view.setBigUint64(24, avail, LE);
      view.setBigUint64(32, logGpa, LE);
    },
  ),
  table,
  // ADD_MEM_REG, REM_MEM_REG: eight bytes of padding come first.
  region: {
    decode(bytes) {
      requireSize(bytes, 8 + REGION_SIZE);
      return bareRegion.decode(bytes.subarray(8));
    },
    encode(region) {
      const bytes = new Uint8Array(8 + REGION_SIZE);
      bytes.set(bareRegion.encode(region), 8);
      return bytes;
    },
  },
  log: words('size', 'offset'),
  // 26 bytes of fields in a structure aligned to 8.
  iotlb: fixed(
    32,
    (view) => ({
      iova: view.getBigUint64(0, LE),
      size: view.getBigUint64(8, LE),
      uva: view.getBigUint64(16, LE),
      perm: view.getUint8(24),
      type: view.getUint8(25),
    }),
    (view, { iova, size, uva, perm, type }) => {
      view.setBigUint64(0, iova, LE);
      view.setBigUint64(8, size, LE);
      view.setBigUint64(16, uva, LE);
      view.setUint8(24, perm);
      view.setUint8(25, type);
    },
  ),
  // 20 bytes of fields in a structure aligned to 8.
  inflight: fixed(
    24,
    (view) => ({
      size: view.getBigUint64(0, LE),
      offset: view.getBigUint64(8, LE),
      queues: view.getUint16(16, LE),
      queueSize: view.getUint16(18, LE),
    }),
    (view, { size, offset, queues, queueSize }) => {
      view.setBigUint64(0, size, LE);
      view.setBigUint64(8, offset, LE);
      view.setUint16(16, queues, LE);
      view.setUint16(18, queueSize, LE);
    },
  ),
  config,
  area: words('value', 'size', 'offset'),
  transfer: fixed(
    8,
    (view) => ({ direction: view.getUint32(0, LE), phase: view.getUint32(4, LE) }),
    (view, { direction, phase }) => {
      view.setUint32(0, direction, LE);
      view.setUint32(4, phase, LE);
    },
  ),
  opaque: { decode: (bytes) => bytes.slice(), encode: (bytes) => bytes },
};
