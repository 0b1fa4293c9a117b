// Ports that go on in another process, their guests connected all the time: a new version takes over the
// running one's. The two talk over a channel; the old one calls.
//
//   old                                      new
//   stops listening to the front ends
//   port (with descriptors), for each  --->  makes the port, maps its memory
//   end                                --->
//                                      <---  prepared: the names of those that it can be
//   takes their rings from the workers
//   positions                          --->  starts the rings
//                                      <---  running
//   closes; what is left of its ports
//
// Guests wait from `positions` being taken until `running`. Until it has sent those the old one can go on as if
// nothing had been; from then on only if the channel ends without `running`: the new one is gone, and with it
// whoever might have worked on the rings. So it waits for that without a limit.
//
// A change of what is sent, or of what a ring's counters mean, is a change of HANDOVER_FORMAT.

import { rmSync } from 'node:fs';
import { F_LOG_ALL } from '../abi/virtio.ts';
import {
  acceptUnix,
  Channel,
  close,
  connectUnix,
  EPOLLIN,
  type EventLoop,
  listenUnix,
  peerCredentials,
} from '../linux/index.ts';
import type { Control } from '../memory/control.ts';
import type { VhostUserPort } from '../port/vhost-user.ts';
import type { VhostUserPortOptions } from '../types.ts';
import { has } from '../virtio/features.ts';
import {
  type DeviceDescription,
  describe,
  positions,
  prepare,
  type RingPosition,
  ringsOf,
  start,
} from '../virtio/handover.ts';

/** Milliseconds for the other process to be next, guests of any size to be mapped included. */
const LIMIT = 10_000;
/** Milliseconds for a front end to end the message it is in. */
const MESSAGE_LIMIT = 200;

/** A port on offer; descriptors as indices. */
export interface Offer {
  options: VhostUserPortOptions & { name: string };
  /** Addresses heard on it. */
  macs: string[];
  listening?: number;
  /** Its front end, if one is connected. */
  connected?: number;
  protocolFeatures?: string;
  device: DeviceDescription;
}

type Positions = Record<string, RingPosition[]>;

/** Thrown where a hand-over is refused or came to nothing; the ports go on. */
export class HandoverError extends Error {
  override name = 'HandoverError';
}

export interface Giver {
  readonly loop: EventLoop;
  readonly control: Control;
  /** Addresses heard on a port, by its name. */
  macs(): Map<string, string[]>;
}

/**
 * The old side: hands `ports` to the process that listens at `to`. Resolves with the channel once they run there:
 * its end is the sign that what they did not take is free. `pause`: milliseconds that guests were not served.
 * Rejects with HandoverError, and all ports go on here.
 */
export async function giveAway(
  host: Giver,
  ports: readonly VhostUserPort[],
  to: string,
): Promise<{ channel: Channel; pause: number }> {
  for (const port of ports) checkLogging(port);
  const channel = call(to, host.loop);
  const suspended: VhostUserPort[] = [];
  let taken: VhostUserPort[] = [];
  let pause = 0;
  try {
    const macs = host.macs();
    for (const port of ports) {
      if (!(await suspend(port))) continue;
      suspended.push(port);
      // Its front end was listened to until now.
      checkLogging(port);
      const fds: number[] = [];
      await channel.send({ port: offerOf(port, macs.get(port.name) ?? [], fds) }, fds);
    }
    await channel.send({ end: true });
    const prepared = await expect<string[]>(channel, 'prepared', LIMIT);
    taken = suspended.filter(({ name }) => prepared.includes(name));
    const began = performance.now();
    // Senders first: what they sent still arrives.
    for (const direction of ['tx', 'rx'] as const) {
      for (const { device } of taken) device.pause(ringsOf(device, direction));
    }
    const at = Object.fromEntries(
      taken.map(({ name, device }) => [name, positions(device, host.control)]),
    ) satisfies Positions;
    await channel.send({ positions: at });
    await expect<boolean>(channel, 'running');
    pause = performance.now() - began;
  } catch (error) {
    channel.close();
    for (const direction of ['rx', 'tx'] as const) {
      for (const { device } of taken) device.resume(ringsOf(device, direction));
    }
    for (const { endpoint } of suspended) endpoint.resume();
    if (error instanceof HandoverError) throw error;
    throw new HandoverError(`the new process did not take over: ${(error as Error).message}`);
  }
  for (const { endpoint } of taken) endpoint.release();
  return { channel, pause };
}

/** The other process would not know the log, nor what is marked in it when. */
function checkLogging({ name, device }: VhostUserPort): void {
  if (!has(device.features, F_LOG_ALL)) return;
  throw new HandoverError(`port ${name} is being migrated: try again when that is over`);
}

function call(path: string, loop: EventLoop): Channel {
  try {
    return new Channel(connectUnix(path), loop);
  } catch (error) {
    throw new HandoverError(`the new process cannot be reached: ${(error as Error).message}`);
  }
}

async function suspend({ endpoint }: VhostUserPort): Promise<boolean> {
  const late = performance.now() + MESSAGE_LIMIT;
  while (!endpoint.suspend()) {
    if (performance.now() > late) return false;
    await new Promise((done) => setTimeout(done, 1));
  }
  return true;
}

function offerOf(port: VhostUserPort, macs: string[], fds: number[]): Offer {
  const { listening, connected, protocolFeatures } = port.endpoint.sockets;
  return {
    options: { ...port.options, name: port.name },
    macs,
    ...(listening === undefined ? {} : { listening: fds.push(listening) - 1 }),
    ...(connected === undefined
      ? {}
      : { connected: fds.push(connected) - 1, protocolFeatures: String(protocolFeatures) }),
    device: describe(port.device, fds),
  };
}

/** The value of the next message, which must be `what`. */
async function expect<T>(channel: Channel, what: string, ms?: number): Promise<T> {
  const message = await channel.receive(ms);
  if (message === undefined) throw new Error('it ended');
  for (const fd of message.fds) close(fd);
  const { value } = message;
  const found = (value as Record<string, unknown> | null)?.[what];
  if (found === undefined) throw new Error(`it sent something else than '${what}'`);
  return found as T;
}

export interface Taker {
  readonly control: Control;
  /** Makes a port for an offer, suspended; undefined where there is to be none like that. Throws. */
  adopt(offer: Offer): VhostUserPort | undefined;
  /** Gives up what was adopted: neither its front end nor its path may notice. */
  abandon(port: VhostUserPort): Promise<void>;
  /** Tells whoever listens of a port that cannot be taken. */
  notice(port: string, message: string): void;
}

/**
 * The new side: takes what is offered on `channel`. Resolves once that runs here. Rejects with HandoverError when
 * the old process goes on with it; what was adopted is abandoned.
 */
export async function takeOver(host: Taker, channel: Channel): Promise<void> {
  const adopted: { port: VhostUserPort; offer: Offer; fds: number[] }[] = [];
  let at: Positions;
  try {
    for (;;) {
      const message = await channel.receive(LIMIT);
      if (message === undefined) throw new Error('it ended');
      const { fds } = message;
      const { port: offer } = message.value as { port?: Offer };
      if (offer === undefined) break;
      let port: VhostUserPort | undefined;
      try {
        port = host.adopt(offer);
        if (port) {
          take(port, offer, fds);
          adopted.push({ port, offer, fds });
        } else {
          for (const fd of fds) close(fd);
        }
      } catch (error) {
        if (port) await host.abandon(port);
        for (const fd of fds) if (fd >= 0) close(fd);
        host.notice(
          offer.options.name,
          `its guest has to connect anew: ${(error as Error).message}`,
        );
      }
    }
    await channel.send({ prepared: adopted.map(({ port }) => port.name) });
    at = await expect<Positions>(channel, 'positions', LIMIT);
  } catch (error) {
    for (const { port, fds } of adopted) {
      await host.abandon(port);
      for (const fd of fds) if (fd >= 0) close(fd);
    }
    channel.close();
    throw new HandoverError(`the running switch did not hand over: ${(error as Error).message}`);
  }
  // From here on the old process does not know where the rings are: there is no way back.
  for (const direction of ['rx', 'tx'] as const) {
    for (const { port, offer, fds } of adopted) {
      try {
        start(direction, port.device, host.control, offer.device, at[port.name]!, fds);
      } catch (error) {
        port.quarantine(`its rings cannot go on: ${(error as Error).message}`);
      }
    }
  }
  // If the old one is gone already, so be it.
  await channel.send({ running: true }).catch(() => {});
  for (const { port } of adopted) port.endpoint.resume();
}

/** Makes the port what was offered, but for its rings. */
function take({ endpoint, device }: VhostUserPort, offer: Offer, fds: number[]): void {
  const fdAt = (index: number | undefined) =>
    index === undefined ? undefined : fds.splice(index, 1, -1)[0];
  endpoint.take({
    listening: fdAt(offer.listening),
    connected: fdAt(offer.connected),
    ...(offer.protocolFeatures && { protocolFeatures: BigInt(offer.protocolFeatures) }),
  });
  prepare(device, offer.device, fds);
}

/**
 * Listens at `path` for process `pid`, which `ask` makes call. Rejects as `ask` does, before that; what becomes of
 * `ask` after it is not waited for.
 */
export async function awaitCall(
  loop: EventLoop,
  path: string,
  pid: number,
  ask: () => Promise<unknown>,
): Promise<Channel> {
  const listening = listenUnix(path, { mode: 0o600 });
  let unwatch = () => {};
  try {
    const called = new Promise<number>((done) => {
      unwatch = loop.watch(listening, EPOLLIN, () => {
        const fd = acceptUnix(listening);
        if (fd < 0) return;
        if (peerCredentials(fd).pid === pid) done(fd);
        else close(fd);
      });
    });
    const refused = ask().then(() => {
      throw new HandoverError('the running switch left without a word');
    });
    return new Channel(await Promise.race([called, refused]), loop);
  } finally {
    unwatch();
    close(listening);
    rmSync(path, { force: true });
  }
}
