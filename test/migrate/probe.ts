// A host on the switch that pings a guest every millisecond, each echo with a payload of its own, and says how long
// the guest was silent at most. It has a port with netmap rings: no guest's scheduling is in what it sees.

import assert from 'node:assert/strict';
import { performance } from 'node:perf_hooks';
import type { Switch } from '../../src/api/index.ts';
import type { NetmapPort } from '../../src/netmap/types.ts';
import { fill } from '../datapath/frames.ts';
import { checksum } from '../datapath/oracle.ts';

export const PROBE_MAC = '02:00:00:00:00:99';
const ETHERNET = 14;
const IP = 20;
const ICMP = 8;
const PAYLOAD = 400;

function macBytes(mac: string): number[] {
  return mac.split(':').map((part) => Number.parseInt(part, 16));
}

function ipBytes(ip: string): number[] {
  return ip.split('.').map(Number);
}

export class Probe {
  sent = 0;
  answered = 0;
  /** Answers whose payload is not that of their question. */
  corrupt = 0;
  readonly #port: NetmapPort;
  readonly #template: Uint8Array;
  readonly #timer: NodeJS.Timeout;
  #last = performance.now();
  #worst = 0;

  /** `target` is pinged from `own`, both {mac, ip}; the guest must know the way back (arp -s). */
  constructor(sw: Switch, own: { mac: string; ip: string }, target: { mac: string; ip: string }) {
    this.#port = sw.addNetmapPort({ name: 'probe', headers: 'kept' });
    const frame = new Uint8Array(ETHERNET + IP + ICMP + PAYLOAD);
    frame.set([...macBytes(target.mac), ...macBytes(own.mac), 8, 0]);
    const length = IP + ICMP + PAYLOAD;
    frame.set([0x45, 0, length >> 8, length & 255, 0, 0, 0, 0, 64, 1, 0, 0], ETHERNET);
    frame.set([...ipBytes(own.ip), ...ipBytes(target.ip)], ETHERNET + 12);
    put(frame, ETHERNET + 10, checksum(frame.subarray(ETHERNET, ETHERNET + IP)));
    frame[ETHERNET + IP] = 8;
    this.#template = frame;
    this.#timer = setInterval(() => this.#tick(), 1);
  }

  #tick(): void {
    this.#receive();
    const [ring] = this.#port.tx;
    if (ring === undefined || this.#port.txSync(ring) === 0) return;
    const bytes = this.#template;
    const icmp = bytes.subarray(ETHERNET + IP);
    put(icmp, 2, 0);
    put(icmp, 4, this.sent >>> 16);
    put(icmp, 6, this.sent & 0xffff);
    fill(icmp.subarray(ICMP), this.sent);
    put(icmp, 2, checksum(icmp));
    this.#port.memory.bytes.set(bytes, ring.address(ring.head));
    ring.setLength(ring.head, bytes.length);
    ring.head = ring.cur = ring.next(ring.head);
    this.#port.txSync(ring);
    this.sent++;
  }

  #receive(): void {
    const [ring] = this.#port.rx;
    if (ring === undefined) return;
    this.#port.rxSync(ring);
    const expected = new Uint8Array(PAYLOAD);
    for (; ring.head !== ring.tail; ring.head = ring.cur = ring.next(ring.head)) {
      const bytes = ring.bytes(ring.head);
      // Echo replies; ARP and the like are none.
      if (bytes[12] !== 8 || bytes[13] !== 0 || bytes[23] !== 1 || bytes[ETHERNET + IP] !== 0)
        continue;
      const icmp = bytes.subarray(ETHERNET + IP);
      const sequence = (get(icmp, 4) << 16) | get(icmp, 6);
      fill(expected, sequence);
      if (Buffer.compare(icmp.subarray(ICMP, ICMP + PAYLOAD), expected) !== 0) this.corrupt++;
      this.answered++;
      const now = performance.now();
      this.#worst = Math.max(this.#worst, now - this.#last);
      this.#last = now;
    }
  }

  /** The longest silence since the last call, milliseconds, the present one included. */
  takeWorst(): number {
    const worst = Math.max(this.#worst, performance.now() - this.#last);
    this.#worst = 0;
    return worst;
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#port.close();
    assert.equal(this.corrupt, 0, 'answers with another payload than their question');
  }
}

function put(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value & 255;
}

function get(bytes: Uint8Array, at: number): number {
  return bytes[at]! * 256 + bytes[at + 1]!;
}
