// TCP and UDP packets as senders leave them to be summed or segmented, and random ones.

import fc from 'fast-check';
import {
  F_CSUM,
  F_GUEST_CSUM,
  F_GUEST_ECN,
  F_GUEST_TSO4,
  F_GUEST_TSO6,
  F_GUEST_USO4,
  F_GUEST_USO6,
  F_HOST_ECN,
  F_HOST_TSO4,
  F_HOST_TSO6,
  F_HOST_USO,
  F_INDIRECT_DESC,
  F_MRG_RXBUF,
  F_VERSION_1,
  GSO_ECN,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP_L4,
} from '../../src/abi/virtio.ts';
import { concat, fill, type HeaderSpec, mac, type Receiver } from './frames.ts';
import { assemble } from './oracle.ts';
import { ARENA, features } from './rig.ts';

export interface PacketSpec {
  /** EtherTypes of the tags. */
  tags: number[];
  version: 4 | 6;
  /** IPv4: words of options. IPv6: protocol numbers of the extension headers. */
  options: number;
  extensions: number[];
  protocol: 6 | 17;
  /** Words of TCP options. */
  tcpOptions: number;
  flags: number;
  payload: number;
  seed: number;
  to?: Uint8Array;
}

export interface Packet {
  bytes: Uint8Array;
  /** NEEDS_CSUM, where the checksum is, and gso_type. */
  header: HeaderSpec & { start: number; offset: number; gso: number };
  /** Bytes before the payload. */
  headers: number;
}

/** The packet with its checksum left to be done: the pseudo-header's sum stands there. */
export function packet(spec: PacketSpec): Packet {
  const { tags, version, protocol, seed } = spec;
  const type = version === 4 ? 0x0800 : 0x86dd;
  const junk = new Uint8Array(400);
  fill(junk, seed);
  const link = concat(
    spec.to ?? mac(2),
    mac(1),
    ...[...tags, type].map((t, i) =>
      i < tags.length
        ? Uint8Array.of(t >> 8, t & 255, junk[i]!, junk[i + 2]!)
        : Uint8Array.of(t >> 8, t & 255),
    ),
  );
  const ip = version === 4 ? ipv4(spec, junk) : ipv6(spec, junk);
  const transport = junk.slice(100, 100 + (protocol === 6 ? 20 + spec.tcpOptions * 4 : 8));
  if (protocol === 6) {
    transport[12] = ((5 + spec.tcpOptions) << 4) | (transport[12]! & 15);
    transport[13] = spec.flags;
  }
  const payload = new Uint8Array(spec.payload);
  fill(payload, seed + 1);
  const bytes = assemble({ link, version, ip, protocol, transport, payload }, true);
  const start = link.length + ip.length;
  const tso = version === 4 ? GSO_TCPV4 : GSO_TCPV6;
  const gso = protocol === 6 ? tso : GSO_UDP_L4;
  const header = { flags: 1, gso, start, offset: protocol === 6 ? 16 : 6 };
  return { bytes, header, headers: start + transport.length };
}

function ipv4({ options, protocol }: PacketSpec, junk: Uint8Array): Uint8Array {
  const ip = junk.slice(10, 30 + options * 4);
  ip[0] = 0x45 + options;
  ip[6] = 0x40;
  ip[7] = 0;
  ip[9] = protocol;
  return ip;
}

function ipv6({ extensions, protocol }: PacketSpec, junk: Uint8Array): Uint8Array {
  const ip = junk.slice(10, 50);
  ip[0] = 0x60 | (ip[0]! & 15);
  const chain = [...extensions, protocol];
  ip[6] = chain[0]!;
  const headers = extensions.map((kind, i) => {
    const header = junk.slice(200 + i, 200 + i + 8 * (1 + (junk[i]! & 3)));
    header[0] = chain[i + 1]!;
    header[1] = header.length / 8 - 1;
    if (kind === 43) {
      header[3] = 0;
    } else {
      // One PadN option: a bridge that filters looks at them (RFC 8200 §4.2).
      header.fill(0, 2);
      header[2] = 1;
      header[3] = header.length - 4;
    }
    return header;
  });
  return concat(ip, ...headers);
}

export const anyPacket: fc.Arbitrary<PacketSpec> = fc.record({
  tags: fc.array(fc.constantFrom(0x8100, 0x88a8), { maxLength: 2 }),
  version: fc.constantFrom(4, 6),
  options: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 10 })),
  extensions: fc.array(fc.constantFrom(0, 43, 60), { maxLength: 4 }),
  protocol: fc.constantFrom(6, 17),
  tcpOptions: fc.constantFrom(0, 3, 5, 10),
  flags: fc.oneof(fc.constantFrom(0x10, 0x18, 0x99, 0xdf), fc.integer({ min: 0, max: 255 })),
  payload: fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: 9000 }), fc.nat({ max: 65000 })),
  seed: fc.nat(),
});

/** A sender that leaves to its receivers all that can be left. */
export const SENDER = features(
  ...[F_VERSION_1, F_INDIRECT_DESC, F_CSUM, F_HOST_USO],
  ...[F_HOST_TSO4, F_HOST_TSO6, F_HOST_ECN],
);

export const RECEIVERS = [F_GUEST_TSO4, F_GUEST_TSO6, F_GUEST_ECN, F_GUEST_USO4, F_GUEST_USO6];

/** Any set of a receiver's offloads, on any kind of receiver. */
export const anyReceiver: fc.Arbitrary<bigint> = fc
  .record({
    ring: fc.constantFrom(
      features(F_VERSION_1, F_INDIRECT_DESC),
      features(F_VERSION_1, F_INDIRECT_DESC, F_MRG_RXBUF),
      features(F_INDIRECT_DESC),
      features(F_INDIRECT_DESC, F_MRG_RXBUF),
    ),
    csum: fc.boolean(),
    bits: fc.subarray(RECEIVERS),
  })
  .map(({ ring, csum, bits }) => ring | (csum ? features(F_GUEST_CSUM, ...bits) : 0n));

/** Whether a receiver takes the packet uncut. */
export function takesWhole(acked: bigint, { bytes, header }: Packet): boolean {
  const has = (n: number): boolean => ((acked >> BigInt(n)) & 1n) === 1n;
  if (!has(F_GUEST_CSUM)) return false;
  if (header.gso === GSO_UDP_L4) {
    const type = bytes[12]! * 256 + bytes[13]!;
    const tagged = type !== 0x0800 && type !== 0x86dd;
    return (
      (has(F_GUEST_USO4) || (!tagged && type === 0x86dd)) &&
      (has(F_GUEST_USO6) || (!tagged && type === 0x0800))
    );
  }
  if (header.gso & GSO_ECN && !has(F_GUEST_ECN)) return false;
  return has((header.gso & ~GSO_ECN) === GSO_TCPV4 ? F_GUEST_TSO4 : F_GUEST_TSO6);
}

/** Shapes of receive buffers: how many descriptors of which lengths, in turn. */
export const anyShapes: fc.Arbitrary<number[][]> = fc.array(
  fc.array(fc.oneof(fc.integer({ min: 1, max: 60 }), fc.integer({ min: 1, max: 3000 })), {
    minLength: 1,
    maxLength: 4,
  }),
  { minLength: 1, maxLength: 6 },
);

/**
 * Posts `count` buffers of these shapes, or as many as there is memory for; `whole` makes each of them long enough for `need` bytes.
 * The first descriptor of each holds the virtio header at least.
 */
export function postShapes(
  sink: Receiver,
  shapes: number[][],
  count: number,
  need: number,
  whole: boolean,
): void {
  let left = ARENA / 2;
  for (let i = 0; i < count && left > 0; i++) {
    const shape = shapes[i % shapes.length]!;
    const parts = [Math.max(12, shape[0]!), ...shape.slice(1)];
    const missing = need - parts.reduce((sum, part) => sum + part, 0);
    if (whole && missing > 0) parts.push(missing);
    left -= parts.reduce((sum, part) => sum + part + 100, 0);
    if (sink.post(parts, i % 3 === 0 ? 0 : undefined) < 0) break;
  }
  sink.rx.publish();
}
