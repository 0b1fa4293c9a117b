// What frames must be, written from the RFCs and sharing nothing with the datapath: a reader that
// verifies every length and checksum, and a segmenter to compare with.
//
// RFC 791 (IPv4), 8200 (IPv6), 9293 (TCP), 768 (UDP), 1071 (checksum), 3168 §6.1.2 (CWR),
// IEEE 802.1Q (tags).

/** RFC 1071: the complement of the one's-complement sum of big-endian words, zero padded. */
export function checksum(...parts: Uint8Array[]): number {
  return 0xffff - sum(...parts);
}

/** The one's-complement sum itself: 0 only when all bytes are 0. */
export function sum(...parts: Uint8Array[]): number {
  let total = 0;
  let position = 0;
  for (const part of parts) {
    for (const byte of part) {
      total += position % 2 === 0 ? byte * 256 : byte;
      position++;
    }
  }
  return total === 0 ? 0 : total % 0xffff || 0xffff;
}

export interface Packet {
  /** Ethernet addresses and tags. */
  link: Uint8Array;
  version: 4 | 6;
  /** IP header with options or extension headers. */
  ip: Uint8Array;
  protocol: 6 | 17;
  /** TCP header with options, or UDP's. */
  transport: Uint8Array;
  payload: Uint8Array;
}

const be16 = (bytes: Uint8Array, at: number): number => bytes[at]! * 256 + bytes[at + 1]!;
const be32 = (bytes: Uint8Array, at: number): number =>
  be16(bytes, at) * 65536 + be16(bytes, at + 2);

function put16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = (value >> 8) & 255;
  bytes[at + 1] = value & 255;
}

function put32(bytes: Uint8Array, at: number, value: number): void {
  put16(bytes, at, Math.floor(value / 65536) % 65536);
  put16(bytes, at + 2, value % 65536);
}

function demand(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}

/** Takes a frame apart; throws when it is not TCP or UDP over IP, whole and unfragmented. */
export function dissect(frame: Uint8Array): Packet {
  let at = 12;
  for (let tags = 0; tags < 2 && [0x8100, 0x88a8].includes(be16(frame, at)); tags++) at += 4;
  const type = be16(frame, at);
  const start = at + 2;
  let next: number;
  if (type === 0x0800) {
    demand(frame[start]! >> 4 === 4, 'not version 4');
    at = start + (frame[start]! % 16) * 4;
    demand(at >= start + 20 && at <= frame.length, 'IPv4 header length');
    demand((be16(frame, start + 6) & 0x3fff) === 0, 'a fragment');
    next = frame[start + 9]!;
  } else {
    demand(type === 0x86dd, `EtherType ${type}`);
    demand(frame[start]! >> 4 === 6, 'not version 6');
    next = frame[start + 6]!;
    at = start + 40;
    while ([0, 43, 60].includes(next)) {
      demand(at + 8 <= frame.length, 'extension header');
      demand(next !== 43 || frame[at + 3] === 0, 'segments left');
      next = frame[at]!;
      at += (frame[at + 1]! + 1) * 8;
    }
  }
  demand(next === 6 || next === 17, `protocol ${next}`);
  const size = next === 6 ? (frame[at + 12]! >> 4) * 4 : 8;
  demand(next === 17 || size >= 20, 'TCP data offset');
  demand(at + size <= frame.length, 'transport header');
  return {
    link: frame.slice(0, start),
    version: type === 0x0800 ? 4 : 6,
    ip: frame.slice(start, at),
    protocol: next,
    transport: frame.slice(at, at + size),
    payload: frame.slice(at + size),
  };
}

/** The pseudo-header of a packet's transport checksum. */
export function pseudo(packet: Packet): Uint8Array {
  const { version, ip, protocol, transport, payload } = packet;
  const length = transport.length + payload.length;
  if (version === 4) {
    const bytes = new Uint8Array(12);
    bytes.set(ip.slice(12, 20));
    bytes[9] = protocol;
    put16(bytes, 10, length);
    return bytes;
  }
  const bytes = new Uint8Array(40);
  bytes.set(ip.slice(8, 40));
  put32(bytes, 32, length);
  bytes[39] = protocol;
  return bytes;
}

function checkAt({ protocol }: Packet): number {
  return protocol === 6 ? 16 : 6;
}

/** Throws, naming what is wrong, unless every length of the frame and IPv4's checksum are right. */
export function verifyLengths(frame: Uint8Array): Packet {
  const packet = dissect(frame);
  const { version, ip, protocol, transport, payload } = packet;
  const length = ip.length + transport.length + payload.length;
  if (version === 4) {
    demand(be16(ip, 2) === length, `IPv4 total length ${be16(ip, 2)}, not ${length}`);
    demand(sum(ip) === 0xffff, 'IPv4 header checksum');
  } else {
    demand(be16(ip, 4) === length - 40, `IPv6 payload length ${be16(ip, 4)}, not ${length - 40}`);
  }
  const datagram = transport.length + payload.length;
  if (protocol === 17) demand(be16(transport, 4) === datagram, 'UDP length');
  return packet;
}

/** As verifyLengths, and the transport checksum. */
export function verify(frame: Uint8Array): Packet {
  const packet = verifyLengths(frame);
  const { protocol, transport, payload } = packet;
  const total = sum(pseudo(packet), transport, payload);
  demand(total === 0xffff, `transport checksum: the sum is ${total}`);
  demand(protocol === 6 || be16(transport, 6) !== 0, 'UDP without a checksum');
  return packet;
}

/** As verifyLengths, and the checksum is the pseudo-header's sum: left to the receiver. */
export function verifyPartial(frame: Uint8Array): Packet {
  const packet = verifyLengths(frame);
  const stored = be16(packet.transport, checkAt(packet));
  demand(stored === sum(pseudo(packet)), `partial checksum ${stored}`);
  return packet;
}

/** Makes every length and checksum of a packet right, and puts it together. */
export function assemble(packet: Packet, partial = false): Uint8Array {
  const { link, version, protocol, payload } = packet;
  const [ip, transport] = [packet.ip.slice(), packet.transport.slice()];
  const length = ip.length + transport.length + payload.length;
  if (version === 4) {
    put16(ip, 2, length);
    put16(ip, 10, 0);
    put16(ip, 10, checksum(ip));
  } else {
    put16(ip, 4, length - 40);
  }
  const at = checkAt(packet);
  if (protocol === 17) put16(transport, 4, transport.length + payload.length);
  put16(transport, at, 0);
  const whole = { ...packet, ip, transport };
  let check = sum(pseudo(whole));
  if (!partial) {
    check = checksum(pseudo(whole), transport, payload);
    if (protocol === 17 && check === 0) check = 0xffff;
  }
  put16(transport, at, check);
  return new Uint8Array(Buffer.concat([link, ip, transport, payload]));
}

/** The frames that a frame cut every `size` bytes of payload must become. */
export function segment(frame: Uint8Array, size: number, partial = false): Uint8Array[] {
  const whole = dissect(frame);
  const count = Math.max(1, Math.ceil(whole.payload.length / size));
  return Array.from({ length: count }, (_, i) => {
    const [ip, transport] = [whole.ip.slice(), whole.transport.slice()];
    if (whole.version === 4) put16(ip, 4, (be16(ip, 4) + i) % 65536);
    if (whole.protocol === 6) {
      put32(transport, 4, (be32(transport, 4) + i * size) % 2 ** 32);
      if (i > 0) transport[13]! &= ~0x80;
      if (i < count - 1) transport[13]! &= ~0x09;
    }
    const payload = whole.payload.slice(i * size, (i + 1) * size);
    return assemble({ ...whole, ip, transport, payload }, partial);
  });
}

/** The frame with the checksum at start + offset completed over what is there (virtio 1.2 §5.1.6.2). */
export function complete(frame: Uint8Array, start: number, offset: number): Uint8Array {
  const done = frame.slice();
  const check = checksum(frame.slice(start));
  put16(done, start + offset, check === 0 && offset === 6 ? 0xffff : check);
  return done;
}
