// Checks of what a netmap port is opened with.

import { ringSizeProblem } from '../virtio/queue-layout.ts';
import { NetmapError, type NetmapOptions } from './types.ts';

/** Throws NetmapError `option` for the first that cannot be. */
export function checkOptions(name: string, options: NetmapOptions): void {
  const refuse = (what: string): never => {
    throw new NetmapError('option', `port ${name}: ${what}`);
  };
  const { ringSize = 1024, queues = 1, headroom = 64, packed = false } = options;
  const ring =
    ringSize < 4
      ? `ringSize is ${ringSize}; it must be 4 at least`
      : ringSizeProblem(ringSize, packed === true);
  if (ring) refuse(ring);
  if (!(Number.isInteger(queues) && queues >= 1 && queues <= 8)) {
    refuse(`queues is ${queues}; it must be 1 to 8`);
  }
  const { headers = 'shared' } = options;
  if (headers !== 'shared' && headers !== 'kept') {
    refuse(`headers is ${headers}; it must be shared or kept`);
  }
  const size = options.memory?.bufferSize ?? options.bufferSize ?? 2048;
  if (
    !(Number.isInteger(headroom) && headroom >= 16 && headroom <= 1024 && headroom + 64 <= size)
  ) {
    refuse(`headroom is ${headroom}; it must be 16 to 1024 bytes and leave room for a frame`);
  }
}
