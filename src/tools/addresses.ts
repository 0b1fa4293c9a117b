// Addresses as pkt-gen's options write them: one, or a range that the frames go through.

import { isIPv4, isIPv6 } from 'node:net';
import type { Family } from './packet.ts';

/** What is wrong with an address, and what to give: for the end of a sentence. */
export class AddressError extends Error {
  override name = 'AddressError';
}

const DEFAULT_PORT = 1234;
/** IPv6: the 16-bit group that varies, counted from the left. */
const LAST_GROUP = 7;

export interface IpRange {
  /** 4 or 16 bytes. */
  first: Uint8Array;
  /** Where the varying number is in it: 32 bits of an IPv4 address, 16 of an IPv6 one. */
  at: number;
  low: number;
  high: number;
  lowPort: number;
  highPort: number;
}

export interface MacRange {
  /** 6 bytes. */
  first: Uint8Array;
  /** Of the last 4 bytes. */
  low: number;
  high: number;
}

/** `ADDRESS[:PORT][-ADDRESS[:PORT]]`; IPv6 as `[GROUP@]ADDRESS` or with brackets and a port. */
export function parseIpRange(text: string, family: Family): IpRange {
  const [from, to, more] = text.split('-');
  if (from === undefined || more !== undefined) throw wrong(text, family);
  const low = parseEnd(from, family, text);
  const high = to === undefined ? low : parseEnd(to, family, text);
  const group = low.group ?? high.group ?? LAST_GROUP;
  const at = family === 4 ? 0 : group * 2;
  const numbers = [number(low.bytes, at, family), number(high.bytes, at, family)];
  const ports = [low.port ?? DEFAULT_PORT, high.port ?? low.port ?? DEFAULT_PORT];
  for (let i = 0; family === 6 && i < 16; i++) {
    if ((i & ~1) === at || low.bytes[i] === high.bytes[i]) continue;
    throw new AddressError(
      `'${text}' differs in more than its ${group + 1}. group: ` +
        'give addresses that differ in one, and its number from 0 as in 6@fd00::1-6@fd00::5:1',
    );
  }
  const range = { first: low.bytes, at, low: Math.min(...numbers), high: Math.max(...numbers) };
  // The ends may be the wrong way round, as in netmap.
  write(range.first, at, range.low, family === 4 ? 4 : 2);
  return { ...range, lowPort: Math.min(...ports), highPort: Math.max(...ports) };
}

/** `MAC` or `MAC-MAC`. */
export function parseMacRange(text: string): MacRange {
  const [from, to, more] = text.split('-');
  const first = parseMac(from ?? '');
  const last = to === undefined ? first : parseMac(to);
  if (first === undefined || last === undefined || more !== undefined) {
    throw new AddressError(`'${text}' is no MAC address: give one such as 52:54:00:12:34:56`);
  }
  if (first[0] !== last[0] || first[1] !== last[1]) {
    throw new AddressError(`'${text}' differs in its first two bytes: let the last four differ`);
  }
  const [low, high] = [number(first, 2, 4), number(last, 2, 4)];
  if (low > high) throw new AddressError(`'${text}' ends before it begins: turn it round`);
  return { first, low, high };
}

function parseMac(text: string): Uint8Array | undefined {
  if (!/^[0-9a-f]{1,2}(:[0-9a-f]{1,2}){5}$/i.test(text)) return undefined;
  return Uint8Array.from(text.split(':'), (byte) => Number.parseInt(byte, 16));
}

interface End {
  bytes: Uint8Array;
  port?: number | undefined;
  group?: number | undefined;
}

function parseEnd(text: string, family: Family, whole: string): End {
  if (family === 4) {
    const [, address = '', port] = /^([\d.]+)(?::(\d+))?$/.exec(text) ?? [];
    if (!isIPv4(address)) throw wrong(whole, family);
    return { bytes: Uint8Array.from(address.split('.'), Number), port: parsePort(port, whole) };
  }
  const [, group, bracketed, port, bare] =
    /^(?:([0-7])@)?(?:\[([^\]]+)\](?::(\d+))?|([^[\]]+))$/.exec(text) ?? [];
  const address = bracketed ?? bare ?? '';
  if (!isIPv6(address) || address.includes('%')) throw wrong(whole, family);
  return {
    bytes: ipv6Bytes(address),
    port: parsePort(port, whole),
    group: group === undefined ? undefined : Number(group),
  };
}

function parsePort(text: string | undefined, whole: string): number | undefined {
  if (text === undefined) return undefined;
  if (Number(text) > 65535) throw new AddressError(`'${whole}' has a port above 65535`);
  return Number(text);
}

function wrong(text: string, family: Family): AddressError {
  const [form, other] =
    family === 4
      ? ['10.0.0.1, 10.0.0.1:53 or 10.0.0.1:53-10.0.0.9:99', isIPv6(text) ? ', or -6' : '']
      : ['fd00::1, [fd00::1]:53 or fd00::1-fd00::9', isIPv4(text) ? ', or -4' : ''];
  return new AddressError(`'${text}' is no IPv${family} address: give one such as ${form}${other}`);
}

/** Of an address that isIPv6 accepts. */
function ipv6Bytes(address: string): Uint8Array {
  const dotted = /^(.*:)(\d+)\.(\d+)\.(\d+)\.(\d+)$/.exec(address);
  if (dotted !== null) {
    const [a, b, c, d] = dotted.slice(2).map(Number);
    const word = (high: number, low: number) => ((high << 8) | low).toString(16);
    address = `${dotted[1]}${word(a!, b!)}:${word(c!, d!)}`;
  }
  const [head = '', tail] = address.split('::');
  const groups = (text: string) => (text === '' ? [] : text.split(':'));
  const [left, right] = [groups(head), groups(tail ?? '')];
  const zeros = new Array<string>(8 - left.length - right.length).fill('0');
  const bytes = new Uint8Array(16);
  [...left, ...zeros, ...right].forEach((group, i) => {
    write(bytes, i * 2, Number.parseInt(group, 16), 2);
  });
  return bytes;
}

function number(bytes: Uint8Array, at: number, family: Family): number {
  let value = 0;
  for (let i = at; i < at + (family === 4 ? 4 : 2); i++) value = value * 256 + bytes[i]!;
  return value;
}

function write(bytes: Uint8Array, at: number, value: number, length: number): void {
  for (let i = at + length - 1; i >= at; i--) {
    bytes[i] = value;
    value = Math.floor(value / 256);
  }
}
