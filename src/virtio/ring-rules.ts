// What a front end may set a ring up with; whatever it may not is refused in a sentence. `packed`: under
// the features it accepted (virtio 1.2 §2.7, §2.8).

import { MAX_RING_SIZE, WRAP } from '../abi/virtio.ts';
import { Refusal, type VringAddr } from '../vhost-user/backend.ts';
import type { PartNumbers, Ring } from './ring.ts';

export function checkSize(queue: number, num: number, packed: boolean): void {
  const odd = !packed && (num & (num - 1)) !== 0;
  if (num < 1 || num > MAX_RING_SIZE || odd) {
    throw new Refusal(
      `ring ${queue} cannot have ${num} entries; at most ${MAX_RING_SIZE}, ` +
        'and a power of two unless it is packed',
    );
  }
}

export function checkStopped(ring: Ring): void {
  if (ring.started && ring.live) {
    throw new Refusal(`ring ${ring.queue} runs; stop it with GET_VRING_BASE first`);
  }
}

/** Alignment of the parts, in the front end's own addresses. */
export function checkAddr(queue: number, { desc, avail, used }: VringAddr, packed: boolean): void {
  if (desc % 16n !== 0n || avail % (packed ? 4n : 2n) !== 0n || used % 4n !== 0n) {
    throw new Refusal(
      `ring ${queue} is misaligned (descriptors want 16 bytes, ` +
        `${packed ? 'event areas 4' : 'avail 2, used 4'})`,
    );
  }
}

/** A packed base holds the used position in its upper half (vhost-user SET_VRING_BASE). */
export function checkBase(queue: number, base: number, packed: boolean): void {
  if (base > 0xffff && !packed) {
    throw new Refusal(`ring ${queue} cannot start at ${base}; an index is at most 65535`);
  }
}

/** What only shows at the start: where the parts came to lie, and features changed since they were set. */
export function checkStart(ring: Ring, linear: PartNumbers, packed: boolean): void {
  const { queue, size } = ring;
  if ((linear.desc & 15) | (linear.avail & (packed ? 3 : 1)) | (linear.used & 3)) {
    throw new Refusal(`ring ${queue} is misaligned in guest memory`);
  }
  checkSize(queue, size, packed);
  const slot = ring.base & ~WRAP & 0xffff;
  if (packed && !ring.live && slot >= size) {
    throw new Refusal(`ring ${queue} cannot start at slot ${slot} of ${size}`);
  }
}
