// What is known of ports that were there before: in this process (removed, and perhaps added again), or in the
// switch before it, from the file that it left (memory/state.ts). A port of that name gets its old index, its
// counters, its packed rings' positions and its addresses.
//
// And who is about to be back: front ends that listen and lost their switch. Frames for a guest that is not back
// yet would be lost if another's were taken before, so those rings are held until all are there, or a second is over.

import { MAX_PORTS, RING_FRAMES, RING_STRIDE, RINGS_PER_PORT } from '../abi/layout.ts';
import { processLives } from '../linux/index.ts';
import { type Control, ringAddress, ringIndex } from '../memory/control.ts';
import { type Kept, StateFile, type StatePort } from '../memory/state.ts';
import type { Port } from '../port/port.ts';
import type { NetDevice } from '../virtio/device.ts';
import { adoptPosition } from '../virtio/resume.ts';

/** After a restart: how long what the first guest sends may wait for those that are not back yet, milliseconds. */
const RETURN_MS = 1000;

function ringsOf(index: number): number {
  return ringAddress(ringIndex(index, 0));
}

export class Remembered {
  /** The switch ends, and the one after it goes on with what it knew: that stays as it is. */
  leaving = false;
  readonly #control: Control;
  readonly #state: StateFile | undefined;
  readonly #onError: (error: unknown) => void;
  /** By name. */
  readonly #kept: Map<string, Kept>;
  /** By index: addresses to learn when the port is up. */
  readonly #warm = new Map<number, readonly bigint[]>();
  /** Held until they are up, all of them. */
  readonly #returning = new Set<NetDevice>();
  #timer: NodeJS.Timeout | undefined;

  /** Opens the state file at `path`, before anything is in the memory that it takes the place of. Throws StateInUse. */
  constructor(control: Control, path: string | undefined, onError: (error: unknown) => void) {
    this.#control = control;
    this.#onError = onError;
    if (path !== undefined) this.#state = new StateFile(path, control);
    this.#kept = new Map(this.#state?.kept);
  }

  // --- ports that come ---------------------------------------------------------------------------

  /** The index it had in the switch before; else one that no port is to come back to, if there is any; else undefined. */
  placeOf(name: string, isFree: (index: number) => boolean): number | undefined {
    const before = this.#kept.get(name)?.index;
    if (before !== undefined && isFree(before)) return before;
    const awaited = new Set(Array.from(this.#kept.values(), ({ index }) => index));
    const free = Array.from({ length: MAX_PORTS }, (_, i) => i).filter(isFree);
    const index = free.find((i) => !awaited.has(i)) ?? free[0];
    for (const kept of this.#kept.values()) if (kept.index === index) kept.index = undefined;
    return index;
  }

  /** Begins the rings at `index` anew, with the counters and positions of a port of that name. Returns what was known. */
  revive(name: string, index: number): Kept | undefined {
    const kept = this.#kept.get(name);
    const rings = ringsOf(index);
    const { bytes } = this.#control;
    bytes.fill(0, rings, rings + RING_STRIDE * RINGS_PER_PORT);
    for (let queue = 0; kept && queue < RINGS_PER_PORT; queue++) {
      const at = rings + queue * RING_STRIDE;
      const before = kept.rings.subarray(queue * RING_STRIDE, (queue + 1) * RING_STRIDE);
      bytes.set(before.subarray(RING_FRAMES), at + RING_FRAMES);
      adoptPosition(this.#control, at, before);
    }
    if (kept) this.#warm.set(index, kept.macs);
    return kept;
  }

  /** The port is there, and the switch's own again. */
  taken(name: string): void {
    this.#kept.delete(name);
  }

  /** Addresses to learn when the port at `index` is up. */
  setAddresses(index: number, macs: readonly bigint[]): void {
    this.#warm.set(index, macs);
  }

  /** The same, once: nobody has to be asked again. */
  takeAddresses(index: number): readonly bigint[] {
    const macs = this.#warm.get(index) ?? [];
    this.#warm.delete(index);
    return macs;
  }

  // --- guests that are about to be back -------------------------------------------------------------

  /** Holds what the guest sends if its front end, which listens, is still there. */
  await(device: NetDevice): void {
    const { history, lastPeer } = device;
    if (history.restarts === 0 || lastPeer === undefined || !processLives(lastPeer)) return;
    device.held = true;
    this.#returning.add(device);
  }

  /** It is up. */
  welcome(device: NetDevice): void {
    if (!this.#returning.has(device)) return;
    if ([...this.#returning].every((each) => each.up)) this.#release();
    else this.#timer ??= setTimeout(() => this.#release(), RETURN_MS).unref();
  }

  #release(): void {
    clearTimeout(this.#timer);
    for (const device of this.#returning) {
      this.#returning.delete(device);
      try {
        device.release();
      } catch (error) {
        this.#onError(error);
      }
    }
  }

  // --- ports that go -----------------------------------------------------------------------------

  /** A port was removed: what it needs should one of that name come back for the same front end. */
  keep({ name, index, device }: Port): void {
    this.#returning.delete(device);
    if (device.lastPeer === undefined || this.#kept.size >= MAX_PORTS) return;
    const at = ringsOf(index);
    const rings = this.#control.bytes.slice(at, at + RING_STRIDE * RINGS_PER_PORT);
    // Counters begin anew.
    for (let queue = 0; queue < RINGS_PER_PORT; queue++) {
      rings.fill(0, queue * RING_STRIDE + RING_FRAMES, (queue + 1) * RING_STRIDE);
    }
    this.#kept.set(name, { rings, macs: [], peer: device.lastPeer, restarts: 0, index: undefined });
  }

  // --- the file ------------------------------------------------------------------------------------

  /** Writes down which ports there are, and for whom. */
  note(ports: readonly Port[]): void {
    if (this.leaving || !this.#state) return;
    const present = ports.map(({ name, index, device }) => ({
      ...{ name, index },
      ...{ peer: device.lastPeer, restarts: device.history.restarts },
    }));
    this.#state.write([...present, ...this.#awaited()]);
  }

  /** Ports of the switch before that were not added yet, and whose front ends are still there. */
  #awaited(): StatePort[] {
    return [...this.#kept].flatMap(([name, { index, peer, restarts }]) =>
      index !== undefined && peer !== undefined && processLives(peer)
        ? [{ name, index, peer, restarts }]
        : [],
    );
  }

  /** As another switch's file goes over to this one: what it knew of ports that are not among `ports`. */
  inherit(path: string, ports: readonly Port[]): void {
    for (const [name, kept] of StateFile.read(path)) {
      if (!ports.some((port) => port.name === name)) this.#kept.set(name, kept);
    }
    this.#state?.moveTo(path);
  }

  /** The switch is about to end, its ports still there: whether the next one goes on with them. */
  leave(ports: readonly Port[]): void {
    clearTimeout(this.#timer);
    const goesOn = ({ device: { lastPeer, up, history } }: Port): boolean =>
      lastPeer !== undefined && (up || (history.connections === 0 && processLives(lastPeer)));
    const awaited = ports.some(goesOn) || this.#awaited().length > 0;
    this.leaving = awaited && this.#state !== undefined;
  }

  close(): void {
    this.#state?.close(this.leaving);
  }
}
