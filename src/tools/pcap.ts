// Frames out of a capture: pcap of both byte orders with micro- or nanoseconds, and pcapng.

/** A capture that cannot be used: what is wrong with it, as the end of a sentence. */
export class PcapError extends Error {
  override name = 'PcapError';
}

const LINK_ETHERNET = 1;
const PCAP_MAGIC = [0xa1b2c3d4, 0xa1b23c4d];
const PCAPNG_MAGIC = 0x0a0d0d0a;
const PCAPNG_ORDER = 0x1a2b3c4d;
const SECTION = PCAPNG_MAGIC;
const INTERFACE = 1;
const SIMPLE_PACKET = 3;
const ENHANCED_PACKET = 6;

/** The frames of the capture in order, as views of `file`: the bytes that were captured. */
export function readCapture(file: Uint8Array): Uint8Array[] {
  if (file.length < 24) throw new PcapError('is too short for a capture');
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const frames = view.getUint32(0) === PCAPNG_MAGIC ? readPcapng(file, view) : readPcap(file, view);
  if (frames.length === 0) throw new PcapError('has no frames');
  return frames;
}

function readPcap(file: Uint8Array, view: DataView): Uint8Array[] {
  const little = PCAP_MAGIC.includes(view.getUint32(0, true));
  if (!little && !PCAP_MAGIC.includes(view.getUint32(0))) {
    throw new PcapError('is neither pcap nor pcapng');
  }
  // The upper bits tell of frame check sequences.
  checkLink(view.getUint32(20, little) & 0xffff);
  const frames: Uint8Array[] = [];
  let at = 24;
  while (at < file.length) {
    const length = at + 16 <= file.length ? view.getUint32(at + 8, little) : file.length;
    frames.push(slice(file, at + 16, length, frames.length));
    at += 16 + length;
  }
  return frames;
}

function readPcapng(file: Uint8Array, view: DataView): Uint8Array[] {
  const frames: Uint8Array[] = [];
  let links: number[] = [];
  let snap = 0;
  let little = false;
  let at = 0;
  while (at < file.length) {
    if (at + 12 > file.length) throw new PcapError('ends within a block');
    const type = view.getUint32(at, little);
    if (type === SECTION) {
      little = view.getUint32(at + 8, true) === PCAPNG_ORDER;
      links = [];
    }
    const length = view.getUint32(at + 4, little);
    if (length < 12 || length % 4 !== 0 || at + length > file.length) {
      throw new PcapError('ends within a block');
    }
    const body = length - 12;
    if (type === INTERFACE && body >= 8) {
      links.push(view.getUint16(at + 8, little));
      if (links.length === 1) snap = view.getUint32(at + 12, little);
    } else if (type === ENHANCED_PACKET && body >= 20) {
      checkLink(links[view.getUint32(at + 8, little)]);
      const captured = view.getUint32(at + 20, little);
      frames.push(slice(file.subarray(0, at + length - 4), at + 28, captured, frames.length));
    } else if (type === SIMPLE_PACKET && body >= 4) {
      checkLink(links[0]);
      const original = view.getUint32(at + 8, little);
      const captured = Math.min(original, snap || original, body - 4);
      frames.push(slice(file, at + 12, captured, frames.length));
    }
    at += length;
  }
  return frames;
}

function checkLink(type: number | undefined): void {
  if (type === LINK_ETHERNET) return;
  throw new PcapError(`has link type ${type ?? 'none'}, not Ethernet (${LINK_ETHERNET})`);
}

function slice(file: Uint8Array, at: number, length: number, index: number): Uint8Array {
  if (at + length > file.length) throw new PcapError(`ends within frame ${index + 1}`);
  if (length < 14) throw new PcapError(`has no Ethernet header in frame ${index + 1}`);
  return file.subarray(at, at + length);
}
