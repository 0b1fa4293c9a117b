// What makes a running switch into what a changed file says: a list of actions, to be carried out in
// its order. A port is known by its name; one with another name is another port.

import { isDeepStrictEqual } from 'node:util';
import { MAX_PAIRS } from '../abi/layout.ts';
import { SWITCH_DEFAULTS } from '../switch/options.ts';
import { effectivePolicing } from '../switch/policing.ts';
import type { Policing, SwitchOptions, SwitchSettings } from '../types.ts';
import type { CheckedPort } from './check.ts';

/** What a switch is to be, or is: ports in any order. */
export interface Settings {
  switch: Pick<SwitchOptions, 'forwarding' | 'workers' | 'ageing'>;
  ports: readonly CheckedPort[];
}

/** `keys`: those of the file that differ; of a port that is removed and added, why. */
export type Action =
  | { do: 'remove'; port: string; keys?: string[] }
  | { do: 'configure'; settings: SwitchSettings }
  /** It cannot be done while the switch runs. */
  | { do: 'restart'; key: 'workers'; from: number; to: number }
  | { do: 'police'; port: string; policing: Policing; keys: string[] }
  | { do: 'add'; port: CheckedPort; keys?: string[] };

/**
 * The actions from `before` to `after`, both checked (check.ts); none when they mean the same. Whatever goes
 * comes before whatever takes its place: its socket, its device, its MAC address, its half of a wire.
 */
export function difference(before: Settings, after: Settings): Action[] {
  const old = new Map(before.ports.map((port) => [port.name, port]));
  const names = new Set(after.ports.map(({ name }) => name));
  const actions: Action[] = before.ports
    .filter(({ name }) => !names.has(name))
    .map(({ name }) => ({ do: 'remove', port: name }));
  const changed: Action[] = [];
  for (const port of after.ports) {
    const was = old.get(port.name);
    const keys = was === undefined ? [] : differing(fixed(was), fixed(port));
    if (was === undefined) {
      changed.push({ do: 'add', port });
    } else if (keys.length > 0) {
      actions.push({ do: 'remove', port: port.name, keys });
      changed.push({ do: 'add', port, keys });
    } else if (!isDeepStrictEqual(effectivePolicing(was), effectivePolicing(port))) {
      const { rate, burst } = port;
      const policing = { ...(rate && { rate }), ...(burst && { burst }) };
      const limits = differing({ rate: was.rate, burst: was.burst }, { rate, burst });
      changed.push({ do: 'police', port: port.name, policing, keys: limits });
    }
  }
  return [...actions, ...switchActions(before.switch, after.switch), ...changed];
}

/** Whether the one can be made the other while it is there. */
export function samePort(a: CheckedPort, b: CheckedPort): boolean {
  return differing(fixed(a), fixed(b)).length === 0;
}

function switchActions(before: Settings['switch'], after: Settings['switch']): Action[] {
  const was = { ...SWITCH_DEFAULTS, ...before };
  const is = { ...SWITCH_DEFAULTS, ...after };
  const actions: Action[] = [];
  const settings = {
    ...(is.forwarding === was.forwarding ? {} : { forwarding: is.forwarding }),
    ...(is.ageing === was.ageing ? {} : { ageing: is.ageing }),
  };
  if (Object.keys(settings).length > 0) actions.push({ do: 'configure', settings });
  if (is.workers !== was.workers) {
    actions.push({ do: 'restart', key: 'workers', from: was.workers, to: is.workers });
  }
  return actions;
}

/** What of a port cannot change while it is there, under the keys of the file, defaults filled in. */
function fixed(port: CheckedPort): Record<string, unknown> {
  const { type, mtu, mac } = port;
  const shared = { type, mtu, mac: mac.toLowerCase() };
  switch (type) {
    case 'tap':
      return { ...shared, device: port.device ?? port.name, queues: port.queues ?? 1 };
    case 'virtio-user': {
      const { path, mode = 'client', queues = 1, packed = false } = port;
      return { ...shared, path, mode, queues, packed };
    }
    default: {
      const { path, mode = 'server', queues = MAX_PAIRS, requireSealed = false, socket } = port;
      const access = { ...socket };
      return { ...shared, path, mode, queues, require_sealed: requireSealed, socket: access };
    }
  }
}

function differing(a: Record<string, unknown>, b: Record<string, unknown>): string[] {
  const keys = new Set([...Object.keys(a), ...Object.keys(b)]);
  return [...keys].filter((key) => !isDeepStrictEqual(a[key], b[key])).sort();
}
