// Checks of what a caller asks for, in the words of the caller.

import { MAX_PAIRS } from '../abi/layout.ts';
import { MAC_PATTERN, MAX_ID, NAME_PATTERN, nameFromPath } from '../limits.ts';
import type { PortOptions, VhostUserPortOptions } from '../types.ts';
import { policingProblem } from './policing.ts';

/** What a switch is unless its options say otherwise. */
export const SWITCH_DEFAULTS = { forwarding: 'switch', workers: 1, ageing: 300 } as const;

/** Throws RangeError. */
export function checkAgeing(ageing: number): void {
  if (!(ageing >= 1)) throw new RangeError(`ageing is ${ageing}; it must be at least 1 second`);
}

/** The port's name: given, or what its socket's path stands for. */
export function portName(options: PortOptions): string {
  return options.name ?? ('path' in options ? nameFromPath(options.path) : '');
}

/** Throws RangeError with one sentence for the first option that cannot be. */
export function checkPortOptions(options: PortOptions): void {
  const name = portName(options);
  if (!NAME_PATTERN.test(name)) {
    throw new RangeError(`port name '${name}' must be 1 to 32 of A-Z a-z 0-9 . _ -`);
  }
  const refuse = (what: string): never => {
    throw new RangeError(`port ${name}: ${what}`);
  };
  const { queues, mtu, mac } = options;
  const sealed = options.type === 'vhost-user' ? options.requireSealed : undefined;
  if (queues !== undefined && !(Number.isInteger(queues) && queues >= 1 && queues <= MAX_PAIRS)) {
    refuse(`queues is ${queues}; it must be 1 to ${MAX_PAIRS}`);
  }
  if (mtu !== undefined && !(Number.isInteger(mtu) && mtu >= 68 && mtu <= 65535)) {
    refuse(`mtu is ${mtu}; it must be 68 to 65535 bytes`);
  }
  const policing = policingProblem(options);
  if (policing) refuse(`${policing.key}: ${policing.message}`);
  if (sealed !== undefined && typeof sealed !== 'boolean') {
    refuse(`requireSealed is ${sealed}; it must be true or false`);
  }
  if (mac !== undefined && !MAC_PATTERN.test(mac)) {
    refuse(`mac '${mac}' must be six hex bytes like 02:00:00:00:00:01, not a group address`);
  }
  if (options.type === 'vhost-user') checkSocket(options, refuse);
}

function checkSocket(
  { socket, mode }: VhostUserPortOptions,
  refuse: (what: string) => never,
): void {
  if (socket === undefined) return;
  if (mode === 'client') {
    refuse('socket: a client has no socket of its own; who may connect is for its server to say');
  }
  const { mode: bits } = socket;
  if (bits !== undefined && !(Number.isInteger(bits) && bits >= 0 && bits <= 0o777)) {
    refuse(`socket.mode is ${bits}; it must be permission bits, 0 to 0o777`);
  }
  for (const key of ['owner', 'group'] as const) {
    const id = socket[key];
    const right =
      typeof id === 'number' ? Number.isInteger(id) && id >= 0 && id <= MAX_ID : id !== '';
    if (!right) refuse(`socket.${key} is '${id}'; it must be a name, or a number to ${MAX_ID}`);
  }
}
