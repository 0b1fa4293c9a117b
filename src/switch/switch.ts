// The switch: memory, workers and ports put together, and the policy between them.

import { EventEmitter } from 'node:events';
import {
  FORWARD_SWITCH,
  FORWARD_WIRE,
  HEAP_BASE,
  HEAP_SIZE,
  MAX_PAIRS,
  MAX_PORTS,
  MAX_WORKERS,
  NO_PORT,
  PAGE,
  PORT_ABSENT,
  PORT_BASE,
  PORT_DOWN,
  PORT_PEER,
  PORT_POLICED,
  PORT_RARP,
  PORT_STATE,
  PORT_STRIDE,
  SWITCH_FORWARDING,
  SWITCH_NOW,
  SWITCH_POLICED,
  SWITCH_PORTS,
} from '../abi/layout.ts';
import { F_GUEST_ANNOUNCE } from '../abi/virtio.ts';
import { close, drain, EPOLLIN, EventLoop, eventfd } from '../linux/index.ts';
import { Control } from '../memory/control.ts';
import { Spans } from '../memory/spans.ts';
import { Window } from '../memory/window.ts';
import { driverHost } from '../netmap/home.ts';
import { BufferMemory, defaultShape } from '../netmap/memory.ts';
import { NetmapError, type NetmapPort } from '../netmap/types.ts';
import { readStats } from '../observe/stats.ts';
import { describeRing } from '../port/describe.ts';
import { type LocalOptions, MemoryPort } from '../port/memory.ts';
import { NetmapMemoryPort, type NetmapPortOptions } from '../port/netmap.ts';
import type { Port } from '../port/port.ts';
import { TapPort } from '../port/tap.ts';
import { VhostUserPort } from '../port/vhost-user.ts';
import { VirtioUserPort } from '../port/virtio-user.ts';
import type {
  FdbEntry,
  Forwarding,
  HandedOver,
  MemoryPortOptions,
  Policing,
  PortEvents,
  PortInfo,
  PortOptions,
  RingInfo,
  Stats,
  SwitchApi,
  SwitchInfo,
  SwitchOptions,
  SwitchSettings,
  TakeOverOptions,
  VhostUserPortOptions,
} from '../types.ts';
import { VERSION } from '../version.ts';
import { NetDevice } from '../virtio/device.ts';
import { has } from '../virtio/features.ts';
import { type Datapath, loadDatapath } from '../worker/datapath.ts';
import { WorkerPool } from '../worker/pool.ts';
import { Fdb, macBits } from './fdb.ts';
import { awaitCall, giveAway, takeOver } from './handover.ts';
import { checkAgeing, checkPortOptions, portName, SWITCH_DEFAULTS } from './options.ts';
import { checkPolicing, effectivePolicing, publishPolicing } from './policing.ts';
import { Remembered } from './remembered.ts';

/** Milliseconds that a switch whose ports were taken over has to close. */
const LEAVING_LIMIT = 10_000;

/** Those that carry a port as it is listed. */
type PortEvent = Exclude<keyof PortEvents, 'notice'>;

export class Switch implements SwitchApi {
  readonly name: string;
  #forwarding: Forwarding = SWITCH_DEFAULTS.forwarding;
  #ageing: number = SWITCH_DEFAULTS.ageing;
  readonly control = new Control();
  readonly window: Window;
  readonly #unguard: () => void;
  readonly heap = new Spans(HEAP_BASE, HEAP_BASE + HEAP_SIZE);
  readonly loop: EventLoop;
  readonly #latchFd: number;
  readonly pool: WorkerPool;
  readonly datapath: Datapath;
  readonly #fdb: Fdb;
  /** By index; holes are free. */
  readonly #ports: (Port | undefined)[] = [];
  /** By port index; those without limits are not in it. */
  readonly #policing = new Map<number, Policing>();
  readonly #remembered: Remembered;
  readonly #events = new EventEmitter();
  readonly #opened = performance.now();
  readonly #clock: NodeJS.Timeout;
  #closed = false;

  constructor(options: SwitchOptions = {}) {
    const { name = 'default', workers = SWITCH_DEFAULTS.workers, ageing } = options;
    if (!Number.isInteger(workers) || workers < 1 || workers > MAX_WORKERS) {
      throw new RangeError(`workers is ${workers}; it must be 1 to ${MAX_WORKERS}`);
    }
    if (ageing !== undefined) checkAgeing(ageing);
    this.name = name;
    this.#remembered = new Remembered(this.control, options.state, (error) =>
      this.#notice('', message(error)),
    );
    this.window = new Window(this.control, options.window);
    this.configure(options);
    this.control.set(SWITCH_NOW, 1);
    // Main's own instance of the datapath runs what needs no worker: FDB upkeep, driver set-up.
    this.datapath = loadDatapath(this.control.memory, driverHost(this.control.memory));
    this.#fdb = new Fdb(this.control, this.datapath);
    this.#latchFd = eventfd();
    this.#unguard = this.window.guard(this.#latchFd);
    this.loop = new EventLoop({ onError: (error) => this.#notice('', message(error)) });
    this.loop.watch(this.#latchFd, EPOLLIN, () => {
      drain(this.#latchFd);
      // First: a ring whose memory is zeros now looks broken too.
      this.#collectFaults();
      this.#collectBroken();
    });
    this.pool = new WorkerPool(this.control, workers, this.#latchFd, (error) => {
      this.#notice('', `a datapath worker ended: ${error.message}`);
    });
    this.#clock = setInterval(() => this.#tick(), 1000);
  }

  #tick(): void {
    const now = 1 + Math.floor((performance.now() - this.#opened) / 1000);
    this.control.set(SWITCH_NOW, now);
    if (now % 5 === 0) this.#fdb.expire(now - this.#ageing);
  }

  configure({ forwarding = this.#forwarding, ageing = this.#ageing }: SwitchSettings): void {
    checkAgeing(ageing);
    this.#ageing = ageing;
    this.#forwarding = forwarding;
    // A worker reads it once a burst, and who is whose peer is published for both: nothing to wait for.
    this.control.set(SWITCH_FORWARDING, forwarding === 'wire' ? FORWARD_WIRE : FORWARD_SWITCH);
  }

  // --- ports -------------------------------------------------------------------------------------

  async addPort(options: PortOptions): Promise<PortInfo> {
    return this.#info(this.#add(options));
  }

  /** A port of type `memory`, with the driver's end in hand. */
  addMemoryPort(options: MemoryPortOptions & LocalOptions): MemoryPort {
    return this.#add(options) as MemoryPort;
  }

  /**
   * A port of type `memory` with netmap rings. `memory`, where given, was opened in this switch
   * (openMemory); closing the netmap port removes the port. Throws RangeError, NetmapError.
   */
  addNetmapPort(options: NetmapPortOptions): NetmapPort {
    const own = options.memory === undefined;
    const memory = (options.memory as BufferMemory | undefined) ?? this.openMemory(options);
    try {
      const port = this.#add({ ...options, type: 'memory' }, (index, device) => {
        const made: NetmapMemoryPort = new NetmapMemoryPort(
          options,
          index,
          device,
          memory,
          async () => {
            if (this.#ports[index] === made) await this.#remove(made);
            if (own) memory.close();
          },
        );
        return made;
      });
      return (port as NetmapMemoryPort).rings;
    } catch (error) {
      if (own) memory.close();
      throw error;
    }
  }

  /**
   * Takes over a port of type `tap` or `virtio-user`: its device's rings, and behind them the other end's as
   * host rings. Until the netmap port is closed, what goes between the two is the caller's to say; nothing
   * in them is lost on either change. Throws Error for no such port, NetmapError `busy`, `down` or `name`.
   */
  openNetmap(name: string): NetmapPort {
    const port = this.#named(name);
    if (port.borrow) return port.borrow();
    throw new NetmapError(
      'name',
      `port ${name} has a guest of its own, which drives its rings; only tap and virtio-user ports have ` +
        'rings to take over: open a new one with addNetmapPort',
    );
  }

  /** Memory for netmap ports that swap buffers. Throws NetmapError. */
  openMemory(options: { bufferSize?: number } = {}): BufferMemory {
    return new BufferMemory(this, defaultShape(options.bufferSize));
  }

  #add(
    options: PortOptions,
    make: (index: number, device: NetDevice) => Port = (index, device) =>
      this.#port({ ...options, name: portName(options) }, index, device),
  ): Port {
    if (this.#closed) throw new Error(`switch ${this.name} is closed`);
    checkPortOptions(options);
    const name = portName(options);
    const taken = this.#ports.find((port) => port?.name === name);
    if (taken) throw new Error(`port ${name} exists already: give this one another name`);
    const index = this.#freeIndex(name);
    const device = this.#device(index, name, options);
    try {
      // First: a client's peer may be there already, and its first frames are policed, its events say so.
      this.#police(index, options);
      const port = make(index, device);
      this.#ports[index] = port;
      this.#remembered.taken(name);
      this.#publishPorts();
      // A memory port came up while it was made, when nobody could be told yet.
      if (device.up) this.#tell('port-up', port);
      return port;
    } catch (error) {
      device.reset();
      this.#police(index, {});
      this.control.set(PORT_BASE + index * PORT_STRIDE + PORT_STATE, PORT_ABSENT);
      throw error;
    }
  }

  #port(options: PortOptions & { name: string }, index: number, device: NetDevice): Port {
    if (options.type === 'memory') {
      return new MemoryPort(options, index, device, {
        control: this.control,
        heap: this.heap,
        datapath: this.datapath,
      });
    }
    if (options.type === 'tap') return new TapPort(options, index, device, this);
    const tell = this.#tellOf(options.name, () => port);
    const port: VhostUserPort | VirtioUserPort =
      options.type === 'virtio-user'
        ? new VirtioUserPort(options, index, device, this, tell)
        : new VhostUserPort(options, index, device, this.loop, tell);
    port.open();
    return port;
  }

  #tellOf(name: string, port: () => Port) {
    return {
      onNotice: (text: string) => this.#notice(name, text),
      onConnected: () => {
        this.#note();
        this.#tell('connected', port());
      },
    };
  }

  #freeIndex(name: string): number {
    const index = this.#remembered.placeOf(name, (i) => this.#ports[i] === undefined);
    if (index !== undefined) return index;
    throw new Error(`switch ${this.name} has ${MAX_PORTS} ports; start a second switch`);
  }

  #device(index: number, name: string, options: PortOptions): NetDevice {
    const kept = this.#remembered.revive(name, index);
    const block = PORT_BASE + index * PORT_STRIDE;
    this.control.bytes.fill(0, block, block + PORT_STRIDE);
    this.control.set(block + PORT_STATE, PORT_DOWN);
    this.control.set(block + PORT_PEER, NO_PORT);
    const tell = (event: PortEvent, news?: Partial<PortInfo>) => {
      const port = this.#ports[index];
      if (port) this.#tell(event, port, news);
    };
    const device: NetDevice = new NetDevice(
      { control: this.control, window: this.window, pool: this.pool },
      {
        port: index,
        pairs: options.queues ?? (options.type === 'vhost-user' ? MAX_PAIRS : 1),
        ...(options.mtu === undefined ? {} : { mtu: options.mtu }),
        whole: options.type !== 'vhost-user',
        requireSealed: options.type === 'vhost-user' && options.requireSealed === true,
      },
      {
        changed: () => {
          const up = this.#ports[index]?.device.up ?? false;
          if (up) this.#arrived(index, device);
          else if (!this.#remembered.leaving) this.#fdb.forget(index);
          tell(up ? 'port-up' : 'port-down');
        },
        connected: () => {},
        disconnected: () => {},
        features: () => tell('link-features'),
        logging: (on) => tell('logging', { logging: on }),
        rarp: (mac) => this.#announce(index, mac),
        notice: (text) => this.#notice(name, text),
      },
    );
    device.lastPeer = kept?.peer;
    if (kept) device.history.restarted(kept.restarts, this.#opened);
    if (kept && options.type === 'vhost-user' && options.mode === 'client') {
      this.#remembered.await(device);
    }
    return device;
  }

  #arrived(index: number, device: NetDevice): void {
    for (const mac of this.#remembered.takeAddresses(index)) this.datapath.fdbLearn(mac, index);
    this.#remembered.welcome(device);
  }

  /**
   * A guest has arrived on port `index`, with this address (6 bytes). One that announces itself is only learned
   * (virtio 1.2 §5.1.6.5.4); for another a RARP goes out as if from it (datapath/rarp.ts).
   */
  #announce(index: number, mac: Uint8Array): void {
    this.#fdb.learn(mac, index);
    const device = this.#ports[index]?.device;
    if (!device || has(device.features, F_GUEST_ANNOUNCE)) return;
    this.control.set64(PORT_BASE + index * PORT_STRIDE + PORT_RARP, macBits(mac) | (1n << 48n));
    this.pool.quiesce();
  }

  #note(): void {
    this.#remembered.note(this.#present());
  }

  /** Tells the workers which ports there are, and who is whose peer on a wire. */
  #publishPorts(): void {
    const present = this.#ports.filter((port) => port !== undefined);
    for (const { index } of present) {
      const peer =
        present.length === 2 ? present.find((other) => other.index !== index) : undefined;
      this.control.set(PORT_BASE + index * PORT_STRIDE + PORT_PEER, peer?.index ?? NO_PORT);
    }
    this.control.set(SWITCH_PORTS, this.#ports.length);
    this.pool.quiesce();
    this.#note();
  }

  async removePort(name: string): Promise<void> {
    await this.#remove(this.#named(name));
  }

  #named(name: string): Port {
    const port = this.#ports.find((other) => other?.name === name);
    if (!port) throw new Error(`no port ${name}: ${this.#known()}`);
    return port;
  }

  setPolicing(name: string, policing: Policing): void {
    const { index } = this.#named(name);
    checkPolicing(policing);
    this.control.set(PORT_BASE + index * PORT_STRIDE + PORT_POLICED, 0);
    this.pool.quiesce();
    this.#police(index, policing);
  }

  #police(index: number, options: Policing): void {
    const policing = effectivePolicing(options);
    if (policing) this.#policing.set(index, policing);
    else this.#policing.delete(index);
    publishPolicing(this.control, index, policing);
    this.control.set(SWITCH_POLICED, this.#policing.size > 0 ? 1 : 0);
  }

  #info(port: Port): PortInfo {
    return { ...port.info(), ...this.#policing.get(port.index) };
  }

  #known(): string {
    const names = this.ports().map(({ name }) => name);
    return names.length > 0 ? `there are ${names.join(', ')}` : 'the switch has none';
  }

  async #remove(port: Port): Promise<void> {
    await port.close();
    port.device.reset();
    this.#remembered.keep(port);
    if (!this.#remembered.leaving) this.#fdb.forget(port.index);
    this.control.set(PORT_BASE + port.index * PORT_STRIDE + PORT_STATE, PORT_ABSENT);
    this.#ports[port.index] = undefined;
    this.#police(port.index, {});
    while (this.#ports.length > 0 && this.#ports.at(-1) === undefined) this.#ports.pop();
    this.#publishPorts();
  }

  /** Cuts off the guests whose memory went away. */
  #collectFaults(): void {
    const { faults } = this.window;
    for (const page of faults.pages()) {
      for (const port of this.#present()) {
        const loss = port.device.lossAt(page);
        if (loss === undefined) continue;
        if (port.device.fault === undefined) {
          port.quarantine(loss);
          this.#tell('quarantined', port);
        }
        break;
      }
      faults.clear(page, PAGE);
    }
  }

  #collectBroken(): void {
    for (const port of this.#ports) {
      const trouble = port?.trouble?.();
      if (trouble !== undefined) {
        port!.quarantine(trouble);
        this.#tell('quarantined', port!);
      }
      for (const ring of port?.device.takeBroken() ?? []) {
        this.#notice(port!.name, `ring ${ring.queue} is quarantined: ${ring.broken}`);
        this.#tell('quarantined', port!);
      }
    }
  }

  // --- hand-over ---------------------------------------------------------------------------------

  async handOver(to: string): Promise<HandedOver> {
    const ports = this.#present().filter((port) => port instanceof VhostUserPort);
    const macs = () => {
      const found = new Map<string, string[]>();
      for (const { port, mac } of this.fdb()) found.set(port, [...(found.get(port) ?? []), mac]);
      return found;
    };
    const host = { loop: this.loop, control: this.control, macs };
    const { channel, pause } = await giveAway(host, ports, to);
    return { pause, closed: () => channel.close() };
  }

  async takeOver({ at, pid, ask, wanted, state }: TakeOverOptions): Promise<void> {
    // A thread that is still starting would have the guests wait for it.
    await this.pool.ready();
    const channel = await awaitCall(this.loop, at, pid, ask);
    try {
      await takeOver(
        {
          control: this.control,
          adopt: (offer) => {
            const options = wanted(offer.options);
            return options && this.#adopt(options, offer.macs);
          },
          abandon: async (port) => {
            port.endpoint.release();
            await this.#remove(port);
          },
          notice: (port, text) => this.#notice(port, text),
        },
        channel,
      );
      // What the other one did not hand over is free when it is gone; one that hangs is not waited for.
      await channel.receive(LEAVING_LIMIT).catch(() => {});
    } finally {
      channel.close();
    }
    if (state !== undefined) this.#remembered.inherit(state, this.#present());
  }

  #adopt(options: VhostUserPortOptions, macs: readonly string[]): VhostUserPort {
    const name = portName(options);
    const port = this.#add(options, (index, device) => {
      this.#remembered.setAddresses(index, macs.map(macBits));
      const tell = this.#tellOf(name, () => port);
      return new VhostUserPort({ ...options, name }, index, device, this.loop, tell);
    }) as VhostUserPort;
    return port;
  }

  // --- reading -----------------------------------------------------------------------------------

  info(): SwitchInfo {
    return {
      name: this.name,
      version: VERSION,
      pid: process.pid,
      forwarding: this.#forwarding,
      workers: this.pool.size,
      ageing: this.#ageing,
      uptime: (performance.now() - this.#opened) / 1000,
    };
  }

  #present(): Port[] {
    return this.#ports.filter((port) => port !== undefined);
  }

  ports(): PortInfo[] {
    return this.#present().map((port) => this.#info(port));
  }

  rings(): RingInfo[] {
    return this.#present().flatMap(({ name, device }) =>
      device.rings.map((ring) => describeRing(this.control, name, ring)),
    );
  }

  fdb(): FdbEntry[] {
    const now = this.control.get(SWITCH_NOW);
    return this.#fdb.entries().flatMap(({ mac, port, heard }) => {
      const name = this.#ports[port]?.name;
      return name === undefined ? [] : [{ mac, port: name, age: now - heard }];
    });
  }

  stats(): Stats {
    return readStats(
      this.control,
      this.#present().map(({ name, device }) => ({ name, rings: device.rings })),
      this.pool.size,
      (performance.now() - this.#opened) * 1e6,
    );
  }

  on<K extends keyof PortEvents>(event: K, listener: (value: PortEvents[K]) => void): this {
    this.#events.on(event, listener);
    return this;
  }

  #tell(event: PortEvent, port: Port, news: Partial<PortInfo> = {}): void {
    this.#events.emit(event, { ...this.#info(port), ...news });
  }

  #notice(port: string, text: string): void {
    this.#events.emit('notice', { port, message: text } satisfies PortEvents['notice']);
  }

  /** Stops the guests' rings, unlinks the sockets, ends the threads. Repeating it does nothing. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearInterval(this.#clock);
    this.#remembered.leave(this.#present());
    for (const port of this.#present()) await this.#remove(port);
    this.#remembered.close();
    await this.pool.close();
    await this.loop.close();
    this.#unguard();
    close(this.#latchFd);
  }
}

function message(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/**
 * Opens a switch without ports. Throws RangeError on options out of range, Error when the datapath
 * was not built or the machine lacks what it needs (`vhop doctor` says what).
 */
export async function openSwitch(options: SwitchOptions = {}): Promise<Switch> {
  return new Switch(options);
}
