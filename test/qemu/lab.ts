// A switch under test with its peers: opens it, notes what it says, and after every step checks
// what must always hold. On failure the error tells the state of rings, counters and guests.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import test, { type TestContext } from 'node:test';
import { openSwitch, type PortInfo, type Stats, type Switch } from '../../src/api/index.ts';
import type { PortOptions, SwitchOptions } from '../../src/types.ts';
import { openFds } from '../linux/fds.ts';
import { Guest } from '../peers/guest.ts';
import {
  lastLines,
  type Peer,
  removeFolder,
  requirePeers,
  temporaryFolder,
  waitFor,
} from '../peers/process.ts';
import type { GuestOptions } from '../peers/qemu.ts';

/** What a peer leaves running; closed in reverse order of its start. */
type Closing = () => Promise<unknown>;

/**
 * A test with a switch of its own. Afterwards the switch and all peers are gone, and with them every
 * descriptor of this process that came with them.
 */
export function scenario(
  name: string,
  peers: readonly Peer[],
  options: SwitchOptions,
  body: (lab: Lab, t: TestContext) => Promise<void>,
): void {
  test(name, async (t) => {
    if (!requirePeers(t, peers)) return;
    const before = openFds();
    const lab = new Lab(await openSwitch(options));
    try {
      await lab.guard(() => body(lab, t));
    } finally {
      await lab.close();
    }
    await waitFor(
      () => openFds() === before,
      5000,
      'descriptors closed',
      () => `${before} before the test, ${openFds()} after it`,
    );
  });
}

export class Lab {
  readonly sw: Switch;
  readonly folder = temporaryFolder();
  readonly #guests = new Map<string, Guest>();
  readonly #closing: Closing[] = [];
  readonly #quarantined: PortInfo[] = [];
  /** What the switch said, as `port: message`. */
  notices: string[] = [];
  /** `name up` and `name down`, oldest first. */
  readonly events: string[] = [];
  /** What the counters of ports that left would add to the balance. */
  #carried = 0;

  constructor(sw: Switch) {
    this.sw = sw;
    sw.on('notice', ({ port, message }) => this.notices.push(`${port}: ${message}`));
    sw.on('quarantined', (port) => this.#quarantined.push(port));
    sw.on('port-up', ({ name }) => this.events.push(`${name} up`));
    sw.on('port-down', ({ name }) => this.events.push(`${name} down`));
  }

  /** Where port `name` has its socket. */
  path(name: string): string {
    return join(this.folder, name);
  }

  /** Adds a vhost-user port on `path(name)`. */
  async port(name: string, options: Partial<PortOptions> = {}): Promise<void> {
    const vhostUser = { type: 'vhost-user', name, path: this.path(name) } as const;
    await this.sw.addPort({ ...vhostUser, ...options } as PortOptions);
  }

  async ports(...names: string[]): Promise<void> {
    for (const name of names) await this.port(name);
  }

  /** Removes a port, and what it counted; its frames in the others' counters are set off. */
  async removePort(name: string): Promise<void> {
    await this.check();
    await this.sw.removePort(name);
    this.#carried = -balance(this.sw.stats());
  }

  #imbalance(): number {
    return balance(this.sw.stats()) + this.#carried;
  }

  /** Boots a guest; one of the same name that is there still must be gone already. */
  async boot(options: GuestOptions): Promise<Guest> {
    const guest = await Guest.boot(options);
    this.#guests.set(options.name, guest);
    this.closing(() => guest.stop());
    return guest;
  }

  /** Runs `end` when the test is over, before the switch closes. */
  closing(end: Closing): void {
    this.#closing.push(end);
  }

  /** A subtest, and the checks after it. */
  async step(t: TestContext, name: string, body: () => Promise<void>): Promise<void> {
    await t.test(name, () => this.guard(body));
  }

  /** Runs `body` and then `check`; whatever fails is told with the state of everything. */
  async guard(body: () => Promise<void>): Promise<void> {
    try {
      await body();
      await this.check();
    } catch (error) {
      if (!(error instanceof Error) || error.message.includes('--- rings')) throw error;
      throw new Error(`${error.message}\n${this.report()}`, { cause: error });
    }
  }

  portInfo(name: string): PortInfo {
    const found = this.sw.ports().find((port) => port.name === name);
    assert.ok(found, `port ${name}`);
    return found;
  }

  stats(name: string): Stats['ports'][number] {
    const found = this.sw.stats().ports.find(({ port }) => port === name);
    assert.ok(found, `port ${name}`);
    return found;
  }

  /** Waits until `port` is in `state`. */
  async state(name: string, state: PortInfo['state'], ms = 10_000): Promise<void> {
    const there = (): boolean => this.portInfo(name).state === state;
    await waitFor(there, ms, `port ${name} ${state}`, () => this.report());
  }

  /** A notice that `pattern` matches must have been said; it and its like are not complained of. */
  expectNotice(pattern: RegExp): void {
    const rest = this.notices.filter((notice) => !pattern.test(notice));
    assert.notEqual(rest.length, this.notices.length, `no notice like ${pattern}`);
    this.notices = rest;
  }

  /** What must hold whenever traffic rests. */
  async check(): Promise<void> {
    assert.deepEqual(this.#quarantined, []);
    assert.deepEqual(this.notices, []);
    await waitFor(
      () => this.#imbalance() === 0,
      5000,
      'frames sent = frames delivered + frames dropped',
      () => `off by ${this.#imbalance()}`,
    );
    await waitFor(
      () => this.oddities().length === 0,
      5000,
      'rings at rest',
      () => this.oddities().join('\n'),
    );
  }

  /** What is not as it should be in rings at rest. */
  oddities(): string[] {
    const started = this.sw.rings().filter((ring) => ring.started && ring.enabled);
    return started.flatMap((ring) => {
      const odd: string[] = [];
      if (ring.broken) odd.push(`broken: ${ring.broken}`);
      if (ring.usedIdx !== ring.lastAvail) odd.push('taken buffers were not given back');
      if (ring.inFlight > ring.size) odd.push(`${ring.inFlight} buffers in a ring of ${ring.size}`);
      if (ring.direction === 'tx' && ring.inFlight > 0) odd.push(`${ring.inFlight} frames wait`);
      if (ring.direction === 'tx' && !ring.notify) odd.push('the guest is not asked to kick');
      return odd.map((text) => `${ring.port} ring ${ring.index}: ${text}`);
    });
  }

  report(): string {
    const rings = this.sw
      .rings()
      .filter(({ started, broken }) => started || broken)
      .map((ring) => JSON.stringify(ring));
    const ports = this.sw
      .ports()
      .map(({ name, state, reason }) => `${name} ${state} ${reason ?? ''}`);
    const consoles = [...this.#guests.values()].map(
      (guest) => `--- console of ${guest.name}\n${lastLines(guest.console(), 15)}`,
    );
    return [
      `--- rings\n${rings.join('\n')}`,
      `--- ports\n${ports.join('\n')}\n${this.events.join(', ')}`,
      `--- stats\n${JSON.stringify(this.sw.stats(), undefined, 1)}`,
      `--- notices\n${this.notices.join('\n')}`,
      ...consoles,
    ].join('\n');
  }

  async close(): Promise<void> {
    for (const end of this.#closing.splice(0).reverse()) await end();
    await this.sw.close();
    removeFolder(this.folder);
  }
}

/**
 * Frames sent that were neither delivered nor dropped under a name; less than 0: too many were
 * delivered. One that is cut counts as its segments. A flooded frame is delivered several times, so with over two ports only too few count.
 * rx_bad_chain counts buffers, not frames.
 */
function balance({ ports }: Stats): number {
  const sum = (values: number[]): number => values.reduce((total, value) => total + value, 0);
  const sent = sum(ports.map(({ txFrames }) => txFrames));
  const delivered = sum(ports.map(({ rxFrames }) => rxFrames));
  const dropped = sum(ports.map(({ drops }) => sum(Object.values({ ...drops, rx_bad_chain: 0 }))));
  const cut = sum(ports.map(({ segments, segmented }) => segments - segmented));
  const missing = sent + cut - delivered - dropped;
  return ports.length > 2 ? Math.max(0, missing) : missing;
}
