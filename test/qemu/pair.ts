// Two guests on two ports of a switch, and the traffic that the tests send between them.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Guest } from '../peers/guest.ts';
import { configure } from '../peers/iperf.ts';
import type { Nic } from '../peers/nic.ts';
import { waitFor } from '../peers/process.ts';
import type { GuestOptions } from '../peers/qemu.ts';
import type { Lab } from './lab.ts';

export interface PairOptions {
  device?: Nic['device'];
  /** Where b's card is not like a's. */
  deviceOfB?: Nic['device'];
  queues?: number;
  smp?: number;
}

export const A = '10.0.0.1';
export const B = '10.0.0.2';

/** A guest with one card on port `name` of the lab. */
export function onPort(lab: Lab, name: string, options: PairOptions = {}): GuestOptions {
  const { device, queues, smp } = options;
  return { name, nics: [{ backend: { vhostUser: lab.path(name), queues }, device }], smp };
}

/** Guests a and b, with addresses A and B, on ports a and b. */
export async function bootPair(lab: Lab, options: PairOptions = {}): Promise<[Guest, Guest]> {
  const device = { ...options.device, ...options.deviceOfB };
  const [a, b] = await Promise.all([
    lab.boot(onPort(lab, 'a', options)),
    lab.boot(onPort(lab, 'b', { ...options, device })),
  ]);
  await configure(a, `${A}/24`);
  await configure(b, `${B}/24`);
  await Promise.all([lab.state('a', 'up'), lab.state('b', 'up')]);
  return [a, b];
}

/** Gives the guest an interface CARD.ID on that VLAN, with an address such as '10.0.5.1/24'. */
export async function vlan(
  guest: Guest,
  id: number,
  address: string,
  card = 'eth0',
): Promise<void> {
  const modules = 'llc stp garp mrp 8021q';
  await guest.run(
    `[ -d /sys/module/8021q ] || for module in ${modules}; do insmod /modules/$module.ko; done`,
  );
  await guest.run(`vconfig add ${card} ${id}`);
  await configure(guest, address, `${card}.${id}`);
}

export interface PingResult {
  sent: number;
  received: number;
  /** The longest round trip, milliseconds; 0 without an answer. */
  longest: number;
}

/**
 * `count` pings, each sent when the one before was answered, or after 5 s: an answer that is late on a
 * machine that pauses is not one that is lost.
 */
export async function ping(
  from: Guest,
  address: string,
  count: number,
  flags = '',
): Promise<PingResult> {
  const { stdout } = await from.run(`ping -q -A -i 5 -c ${count} -W 2 ${flags} ${address}`, {
    ok: false,
    timeoutMs: 20_000 + count * 50,
  });
  return pingResult(stdout);
}

export function pingResult(stdout: string): PingResult {
  const match = /(\d+) packets transmitted, (\d+) packets received/.exec(stdout);
  assert.ok(match, `ping: ${stdout}`);
  const longest = /= [\d.]+\/[\d.]+\/([\d.]+) ms/.exec(stdout)?.[1];
  return { sent: Number(match[1]), received: Number(match[2]), longest: Number(longest ?? 0) };
}

export interface Pinging {
  /** Ends it after the echo that is under way. */
  stop(): Promise<PingResult>;
}

/** Pings without a pause, in the background. */
export async function pinging(from: Guest, address: string): Promise<Pinging> {
  const loop = await from.spawn(
    `rm -f /tmp/stop; until [ -e /tmp/stop ]; do ping -q -A -c 100 -W 2 ${address}; done`,
  );
  return {
    async stop() {
      await from.run('touch /tmp/stop');
      await waitFor(async () => !(await loop.running()), 30_000, 'the end of ping');
      const rounds = (await loop.output()).split('--- ').slice(1).map(pingResult);
      const sum = (key: keyof PingResult) => rounds.reduce((total, round) => total + round[key], 0);
      const longest = Math.max(...rounds.map((round) => round.longest));
      return { sent: sum('sent'), received: sum('received'), longest };
    },
  };
}

/** Fails unless all of `count` pings are answered. */
export async function pingAll(
  from: Guest,
  address: string,
  count: number,
  flags = '',
): Promise<void> {
  const { sent, received, longest } = await ping(from, address, count, flags);
  // One that was late, and not lost, shows in the longest.
  const what = `${received} of ${sent} answered, the slowest after ${longest} ms`;
  assert.deepEqual({ sent, received }, { sent: count, received: count }, what);
}

const BUSYBOX = execFileSync('sh', ['-c', 'command -v busybox'], { encoding: 'utf8' }).trim();

/**
 * Sends at least `mib` MiB from one guest to the other over nc, and compares what arrived with what
 * was sent by SHA-256: the guest's busybox binary again and again, numbered.
 */
export async function copy(from: Guest, to: Guest, address: string, mib: number): Promise<void> {
  const chunk = readFileSync(BUSYBOX);
  const rounds = Math.ceil((mib * 2 ** 20) / chunk.length);
  const hash = createHash('sha256');
  for (let i = 1; i <= rounds; i++) hash.update(`${i}\n`).update(chunk);
  const receiver = await to.spawn('nc.openbsd -l -d 5000 | sha256sum');
  const listening = async (): Promise<boolean> =>
    (await to.run('netstat -tln | grep -q :5000', { ok: false })).status === 0;
  await waitFor(listening, 10_000, 'nc -l');
  const timeoutMs = 30_000 + mib * 300;
  await from.run(
    `for i in $(seq ${rounds}); do echo $i; cat /bin/busybox; done | nc.openbsd -N ${address} 5000`,
    { timeoutMs },
  );
  let output = '';
  const done = async (): Promise<boolean> => {
    output = await receiver.output();
    return output.includes('\n');
  };
  await waitFor(done, timeoutMs, 'sha256sum', () => output);
  assert.equal(output.split(' ')[0], hash.digest('hex'));
}

/** The switch's counters when the guest's were zero. */
const bases = new WeakMap<Guest, { txFrames: number; rxFrames: number }>();

/** Reboots the guest and waits for its shell; its interface is down then. */
export async function reboot(lab: Lab, guest: Guest): Promise<void> {
  await guest.reboot();
  countAnew(lab, guest);
}

/** The guest's card counts from zero: it has a new driver, which has not sent yet. */
export function countAnew(lab: Lab, guest: Guest): void {
  bases.set(guest, lab.stats(guest.name));
}

const linkWasOff = new WeakSet<Guest>();

/** While a link is off QEMU itself takes what its guest sends, and drops it. */
export function mayDrop(guest: Guest): void {
  linkWasOff.add(guest);
}

/** The guest's port is about to be removed, at rest: the next one counts from zero. */
export function portCountsAnew(lab: Lab, guest: Guest): void {
  const { txFrames, rxFrames } = lab.stats(guest.name);
  const base = bases.get(guest) ?? { txFrames: 0, rxFrames: 0 };
  bases.set(guest, { txFrames: base.txFrames - txFrames, rxFrames: base.rxFrames - rxFrames });
}

/** Which card of a guest is looked at, where it is not eth0. */
const cards = new WeakMap<Guest, string>();

/** From here on `agree` is about this card of the guest, which has not been used yet. */
export function useCard(guest: Guest, card: string): void {
  cards.set(guest, card);
  bases.delete(guest);
}

/** The card's own counters: packets sent and received. */
async function counters(guest: Guest): Promise<{ tx: number; rx: number }> {
  const folder = `/sys/class/net/${cards.get(guest) ?? 'eth0'}/statistics`;
  const { stdout } = await guest.run(`cat ${folder}/tx_packets ${folder}/rx_packets`);
  const [tx = Number.NaN, rx = Number.NaN] = stdout.trim().split('\n').map(Number);
  return { tx, rx };
}

/** Waits until the guests' counters say what the switch's do: nothing is lost on the way. */
export async function agree(lab: Lab, ...guests: Guest[]): Promise<void> {
  for (const guest of guests) await agreeOne(lab, guest);
}

async function agreeOne(lab: Lab, guest: Guest): Promise<void> {
  let seen = '';
  const equal = async (): Promise<boolean> => {
    const { tx, rx } = await counters(guest);
    const now = lab.stats(guest.name);
    const base = bases.get(guest) ?? { txFrames: 0, rxFrames: 0 };
    const [taken, given] = [now.txFrames - base.txFrames, now.rxFrames - base.rxFrames];
    seen = `the guest sent ${tx} and received ${rx}, the switch took ${taken} and gave ${given}`;
    if (rx !== given || (linkWasOff.has(guest) ? tx < taken : tx !== taken)) return false;
    bases.set(guest, { txFrames: now.txFrames - tx, rxFrames: now.rxFrames - rx });
    linkWasOff.delete(guest);
    return true;
  };
  await waitFor(equal, 10_000, `${guest.name}: equal counters`, () => seen);
}
