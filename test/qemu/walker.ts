// One guest of a random walk: what can be done to it and its card while traffic runs.

import { setTimeout as sleep } from 'node:timers/promises';
import type { Guest } from '../peers/guest.ts';
import { configure } from '../peers/iperf.ts';
import { waitFor } from '../peers/process.ts';
import { macOf } from '../peers/qemu.ts';
import type { Lab } from './lab.ts';
import { countAnew, mayDrop, portCountsAnew, reboot } from './pair.ts';
import type { Random } from './random.ts';

const PAIRS = 4;
const PATIENCE = 60_000;

/** A card's properties, new with every QEMU and every plug. */
type Card = Record<string, string | number | boolean>;

/** All that there are, none to send with, none to receive with. */
const OFFLOADS: readonly Card[] = [
  {},
  { csum: false, host_tso4: false, host_tso6: false, host_ecn: false },
  { guest_csum: false, guest_tso4: false, guest_tso6: false, guest_ecn: false },
];

/** Endless, cut short at any time: pings, a TCP stream each way, and what takes the other's. */
const TRAFFIC = `
log=/dev/null
setsid sh -c 'while :; do ping -q -A -c 50 -W 1 $1; done' - PEER > $log 2>&1 < $log &
echo $!
setsid sh -c 'while :; do timeout 5 nc -l -p 5000; done' > $log 2>&1 < $log &
echo $!
setsid sh -c 'while :; do timeout 3 nc -w 1 $1 5000 < /bin/busybox || sleep 0.1; done' - PEER > $log 2>&1 < $log &
echo $!
`;

export class Walker {
  readonly name: string;
  readonly #address: string;
  readonly #peer: string;
  readonly #lab: Lab;
  readonly #random: Random;
  guest!: Guest;
  #card: Card = {};
  /** The driver was told to use the legacy interface. */
  #legacy = false;
  #traffic: string[] = [];

  constructor(lab: Lab, random: Random, name: string, address: string, peer: string) {
    this.#lab = lab;
    this.#random = random;
    this.name = name;
    this.#address = address;
    this.#peer = peer;
  }

  #newCard(): string {
    const random = this.#random;
    const mergeable = random.below(2) === 0;
    this.#card = {
      mrg_rxbuf: mergeable,
      indirect_desc: random.below(3) > 0,
      event_idx: random.below(3) > 0,
      packed: random.below(2) === 0,
      // Without mergeable buffers each holds 64 KiB, and the guest must have them all.
      rx_queue_size: random.pick(mergeable ? [256, 512, 1024] : [256, 512]),
      tx_queue_size: random.pick([256, 512, 1024]),
      ...random.pick(OFFLOADS),
    };
    return Object.entries(this.#card)
      .map(([key, value]) => `${key}=${value}`)
      .join(' ');
  }

  /** Properties for a slot that takes cards while the guest runs. */
  #device(): Card {
    return { ...this.#card, bus: 'root1', id: 'card', 'disable-legacy': 'off' };
  }

  /** Starts QEMU with another card; the guest comes up, without traffic. */
  async boot(): Promise<string> {
    const what = this.#newCard();
    const vhostUser = this.#lab.path(this.name);
    this.guest = await this.#lab.boot({
      name: this.name,
      memory: 512,
      nics: [{ backend: { vhostUser, queues: PAIRS, reconnect: 1 }, device: this.#device() }],
      extraArgs: ['-device', 'pcie-root-port,id=root1,chassis=1'],
      timeoutMs: 120_000,
    });
    this.#legacy = false;
    this.#traffic = [];
    await this.#come();
    return what;
  }

  /** The card has a driver that has sent nothing yet: gives it its address. */
  async #come(): Promise<void> {
    const there = async () => (await this.guest.run('ls /sys/class/net')).stdout.includes('eth0');
    await waitFor(there, PATIENCE, `eth0 in ${this.name}`);
    countAnew(this.#lab, this.guest);
    await configure(this.guest, `${this.#address}/24`);
    await this.up();
  }

  up(): Promise<void> {
    return this.#lab.state(this.name, 'up', PATIENCE);
  }

  #down(): Promise<void> {
    return this.#lab.state(this.name, 'connected', PATIENCE);
  }

  async startTraffic(): Promise<void> {
    if (this.#traffic.length > 0) return;
    const { stdout } = await this.guest.run(TRAFFIC.replaceAll('PEER', this.#peer));
    this.#traffic = stdout.trim().split('\n');
  }

  async stopTraffic(): Promise<void> {
    const groups = this.#traffic.splice(0).map((pid) => `-${pid}`);
    if (groups.length > 0) await this.guest.run(`kill -KILL ${groups.join(' ')}`);
  }

  get #packed(): boolean {
    return this.#lab.portInfo(this.name).features.includes('RING_PACKED');
  }

  // --- steps: each returns what it chose --------------------------------------------------------

  /**
   * Not with packed rings: with a link off, QEMU drops what the guest sends, and before 8.2 it ends
   * there, because it takes the wrap counter for a part of the used index.
   */
  async link(): Promise<string> {
    if (this.#packed) return `as a pause: ${await this.pause()}`;
    const ms = this.#random.below(200);
    mayDrop(this.guest);
    await this.guest.qmp('set_link', { name: 'net0', up: false });
    await this.#down();
    await sleep(ms);
    await this.guest.qmp('set_link', { name: 'net0', up: true });
    await this.up();
    return `${ms} ms`;
  }

  async pause(): Promise<string> {
    const ms = this.#random.below(200);
    await this.guest.qmp('stop');
    await this.#down();
    await sleep(ms);
    await this.guest.qmp('cont');
    await this.up();
    return `${ms} ms`;
  }

  async pairs(): Promise<string> {
    const pairs = this.#random.pick([1, 2, 4]);
    await this.guest.run(`ethtool -L eth0 combined ${pairs}`, { timeoutMs: PATIENCE });
    const enabled = () => this.#lab.portInfo(this.name).queuesEnabled === pairs;
    await waitFor(enabled, PATIENCE, `${pairs} pairs of ${this.name}`);
    return `${pairs}`;
  }

  /** Another driver instance, now and then over the other interface with the other header. */
  async reload(): Promise<string> {
    this.#legacy = this.#random.below(3) === 0 ? !this.#legacy : this.#legacy;
    await this.#unload();
    await this.#load();
    return this.#legacy ? 'legacy' : 'modern';
  }

  async #unload(): Promise<void> {
    await this.guest.run('rmmod virtio_net virtio_pci', { timeoutMs: PATIENCE });
    await this.#down();
  }

  async #load(): Promise<void> {
    const option = this.#legacy ? 'force_legacy=1' : '';
    await this.guest.run(`insmod /modules/virtio_pci.ko ${option}; insmod /modules/virtio_net.ko`, {
      timeoutMs: PATIENCE,
    });
    await this.#come();
  }

  async replug(): Promise<string> {
    const first = this.guest.events.length;
    await this.guest.qmp('device_del', { id: 'card' });
    const gone = () =>
      this.guest.events
        .slice(first)
        .some(({ event, data }) => event === 'DEVICE_DELETED' && data?.['device'] === 'card');
    await waitFor(gone, PATIENCE, `the card of ${this.name} to leave`);
    await this.#down();
    const what = this.#newCard();
    await this.guest.qmp('device_add', {
      driver: 'virtio-net-pci',
      netdev: 'net0',
      mac: macOf(this.name, 0),
      romfile: '',
      vectors: 0,
      mq: true,
      ...this.#device(),
    });
    await this.#come();
    return what;
  }

  async reboot(): Promise<string> {
    await reboot(this.#lab, this.guest);
    this.#legacy = false;
    this.#traffic = [];
    await this.#come();
    return '';
  }

  async crash(): Promise<string> {
    await this.guest.kill();
    await this.#lab.state(this.name, 'listening', PATIENCE);
    return this.boot();
  }

  /**
   * The port is removed and comes back; traffic of the peer rests. A packed ring's indices are lost
   * with the switch, and QEMU has no better ones: such a card gets its driver anew.
   */
  async port(): Promise<string> {
    const anew = this.#packed;
    await this.stopTraffic();
    if (anew) await this.#unload();
    await this.#lab.check();
    portCountsAnew(this.#lab, this.guest);
    // Without its back end a card's link is off.
    mayDrop(this.guest);
    await this.#lab.removePort(this.name);
    await this.startTraffic();
    await this.#lab.port(this.name);
    if (anew) {
      await this.#lab.state(this.name, 'connected', PATIENCE);
      await this.#load();
    }
    await this.up();
    return anew ? 'new driver' : '';
  }
}
