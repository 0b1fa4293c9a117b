// UDP frames: built once, then changed word by word with both checksums kept right.
//
// A checksum is the folded sum of 16-bit words (RFC 1071). The sums stay unfolded here: a 64 KiB
// frame's is below 2^31, so a word that changes is plain addition and subtraction.

export type Family = 4 | 6;

export const ETHERNET = 14;
export const UDP = 8;
const IP = { 4: 20, 6: 40 } as const;
const ETHERTYPE = { 4: 0x0800, 6: 0x86dd } as const;
const PROTOCOL_UDP = 17;
const PAYLOAD = 'vhop pkt-gen payload: frames for tests, made to be thrown away\n';

/** Bytes in front of the UDP payload. */
export function headerBytes(family: Family): number {
  return ETHERNET + IP[family] + UDP;
}

export interface Endpoint {
  /** 6 bytes. */
  mac: Uint8Array;
  /** 4 or 16 bytes. */
  address: Uint8Array;
  port: number;
}

export class UdpFrame {
  readonly family: Family;
  /** The frame of the largest size; one of `size` is its beginning. */
  readonly bytes: Uint8Array;
  /** Where things are, from the first byte. */
  readonly source: number;
  readonly destination: number;
  readonly ports: number;
  readonly payload: number;
  #size = 0;
  /** Unfolded sums of the IP header, and of the UDP header with its pseudo header. */
  #ip = 0;
  #udp = 0;
  /** Sums of the payload as it was built, by its length. */
  readonly #sums: Uint32Array;
  /** What the payload's changed words add to that. */
  #changed = 0;

  constructor(family: Family, largest: number, from: Endpoint, to: Endpoint) {
    this.family = family;
    const ip = ETHERNET;
    this.ports = ip + IP[family];
    this.payload = this.ports + UDP;
    this.source = ip + (family === 4 ? 12 : 8);
    this.destination = this.source + from.address.length;
    this.bytes = new Uint8Array(largest);
    const { bytes } = this;
    bytes.set(to.mac, 0);
    bytes.set(from.mac, 6);
    this.#put(12, ETHERTYPE[family]);
    // Low delay, do not fragment, 64 hops: as netmap's frames have it.
    if (family === 4) bytes.set([0x45, 0x10, 0, 0, 0, 0, 0x40, 0, 64, PROTOCOL_UDP], ip);
    else bytes.set([0x60, 0, 0, 0, 0, 0, PROTOCOL_UDP, 64], ip);
    bytes.set(from.address, this.source);
    bytes.set(to.address, this.destination);
    this.#put(this.ports, from.port);
    this.#put(this.ports + 2, to.port);
    const text = new TextEncoder().encode(PAYLOAD);
    for (let i = this.payload; i < largest; i++) {
      bytes[i] = text[(i - this.payload) % text.length]!;
    }
    this.#sums = payloadSums(bytes.subarray(this.payload));
    this.resize(largest);
  }

  get size(): number {
    return this.#size;
  }

  /** Makes it `size` bytes long: lengths and sums are new. */
  resize(size: number): void {
    this.#size = size;
    const udp = size - this.ports;
    if (this.family === 4) this.#put(ETHERNET + 2, size - ETHERNET);
    else this.#put(ETHERNET + 4, udp);
    this.#put(this.ports + 4, udp);
    this.#ip = this.family === 4 ? this.#sum(ETHERNET, 10) + this.#sum(ETHERNET + 12, 8) : 0;
    // The UDP length counts twice: in its header and in the pseudo header.
    this.#udp =
      this.#sum(this.source, this.ports - this.source) +
      this.#sum(this.ports, 6) +
      udp +
      PROTOCOL_UDP +
      this.#sums[size - this.payload]! +
      this.#changed;
    this.#seal();
  }

  /** Changes a word of an address. */
  setAddress(at: number, word: number): void {
    const change = word - this.#get(at);
    this.#put(at, word);
    this.#ip += change;
    this.#udp += change;
    this.#seal();
  }

  /** Changes a port. */
  setPort(at: number, port: number): void {
    this.#udp += port - this.#get(at);
    this.#put(at, port);
    this.#seal();
  }

  /** Changes 32 bits of the payload, big-endian; `offset` is even and they are within every size. */
  setPayload(offset: number, value: number): void {
    const at = this.payload + offset;
    const change = (value >>> 16) + (value & 0xffff) - this.#get(at) - this.#get(at + 2);
    this.#put(at, value >>> 16);
    this.#put(at + 2, value & 0xffff);
    this.#changed += change;
    this.#udp += change;
    this.#seal();
  }

  #seal(): void {
    if (this.family === 4) this.#put(ETHERNET + 10, ~fold(this.#ip) & 0xffff);
    // Zero would say that there is no checksum (RFC 768).
    this.#put(this.ports + 6, ~fold(this.#udp) & 0xffff || 0xffff);
  }

  #get(at: number): number {
    return (this.bytes[at]! << 8) | this.bytes[at + 1]!;
  }

  #put(at: number, word: number): void {
    this.bytes[at] = word >> 8;
    this.bytes[at + 1] = word;
  }

  #sum(at: number, bytes: number): number {
    let sum = 0;
    for (let i = at; i < at + bytes; i += 2) sum += this.#get(i);
    return sum;
  }
}

function fold(sum: number): number {
  while (sum > 0xffff) sum = (sum >>> 16) + (sum & 0xffff);
  return sum;
}

/** The sum of the first n bytes for each n; the last of an odd number is a word's high byte. */
function payloadSums(bytes: Uint8Array): Uint32Array {
  const sums = new Uint32Array(bytes.length + 1);
  for (let n = 1; n <= bytes.length; n++) {
    const byte = bytes[n - 1]!;
    sums[n] = sums[n - 1]! + (n % 2 === 1 ? byte << 8 : byte);
  }
  return sums;
}
