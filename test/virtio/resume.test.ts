// Where a packed ring goes on: every instant of a burst at which its device may have been killed.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  RING_DESC,
  RING_FLAGS,
  RING_LAST_AVAIL,
  RING_NEXT,
  RING_SIZE,
  RING_STRIDE,
  RINGF_PACKED,
  WINDOW_BASE,
} from '../../src/abi/layout.ts';
import { DESC_F_AVAIL, DESC_F_USED, WRAP } from '../../src/abi/virtio.ts';
import { Control, ringAddress } from '../../src/memory/control.ts';
import {
  adoptPosition,
  forgetPosition,
  resumePosition,
  savePosition,
} from '../../src/virtio/resume.ts';

const SIZE = 8;
const control = new Control();
const ring = ringAddress(0);
const table = WINDOW_BASE;

/** Flags of a descriptor made available, or used, in a lap with this wrap counter. */
const available = (wrap: boolean) => (wrap ? DESC_F_AVAIL : DESC_F_USED);
const used = (wrap: boolean) => (wrap ? DESC_F_AVAIL | DESC_F_USED : 0);

function setFlags(slot: number, flags: number): void {
  control.bytes[table + slot * 16 + 14] = flags & 255;
  control.bytes[table + slot * 16 + 15] = flags >> 8;
}

/** A ring in lap `wrap` whose device is at `slot`: all before it used, all from it on available. */
function place(slot: number, wrap: boolean): void {
  for (let i = 0; i < SIZE; i++) setFlags(i, i < slot ? used(wrap) : available(wrap));
  control.set(ring + RING_SIZE, SIZE);
  control.set(ring + RING_DESC, table);
  control.set(ring + RING_FLAGS, RINGF_PACKED);
  const position = slot | (wrap ? WRAP : 0);
  control.set(ring + RING_LAST_AVAIL, position);
  control.set(ring + RING_NEXT, position);
  forgetPosition(control, ring);
}

const behind = (slot: number, wrap: boolean, n: number) => {
  const end = slot + n;
  const lap = end < SIZE ? wrap : !wrap;
  return (end % SIZE) | (lap ? WRAP : 0);
};

describe('a packed ring', () => {
  for (const wrap of [true, false]) {
    for (let slot = 0; slot < SIZE; slot++) {
      if (slot === 0 && wrap) continue;
      const position = slot | (wrap ? WRAP : 0);
      for (let n = 1; n < SIZE; n++) {
        it(`at ${slot}, lap ${wrap ? 'odd' : 'even'}, in a burst of ${n}`, () => {
          const next = behind(slot, wrap, n);
          const save = () => {
            savePosition(control, ring);
            return resumePosition(control, ring);
          };
          // Before anything of the burst is written.
          place(slot, wrap);
          assert.equal(save(), position);
          // All but the first are used, none is shown.
          control.set(ring + RING_NEXT, next);
          for (let i = 1; i < n; i++) {
            const at = slot + i;
            setFlags(at % SIZE, used(at < SIZE ? wrap : !wrap));
          }
          assert.equal(save(), next);
          // The first is shown; the position does not follow any more.
          setFlags(slot, used(wrap));
          assert.equal(save(), next);
          // Its driver has made it available again, meanwhile.
          setFlags(slot, available(!wrap));
          assert.equal(save(), next);
          control.set(ring + RING_LAST_AVAIL, next);
          assert.equal(save(), next);
        });
      }
    }
  }

  it('that its driver begins anew begins with it', () => {
    place(5, false);
    savePosition(control, ring);
    for (let i = 0; i < SIZE; i++) setFlags(i, i < 6 ? available(true) : 0);
    assert.equal(resumePosition(control, ring), WRAP);
  });

  it('of another size is not gone on with', () => {
    place(5, true);
    savePosition(control, ring);
    control.set(ring + RING_SIZE, 4);
    assert.equal(resumePosition(control, ring), undefined);
  });

  it('is asked once', () => {
    place(5, true);
    savePosition(control, ring);
    assert.equal(resumePosition(control, ring), 5 | WRAP);
    assert.equal(resumePosition(control, ring), undefined);
  });

  it('is known from the block of a process that is gone, and what that one had saved', () => {
    place(3, true);
    const block = () => control.bytes.slice(ring, ring + RING_STRIDE);
    const killed = block();
    savePosition(control, ring);
    const left = block();
    for (const before of [killed, left]) {
      forgetPosition(control, ring);
      adoptPosition(control, ring, before);
      assert.equal(resumePosition(control, ring), 3 | WRAP);
    }
    control.set(ring + RING_FLAGS, 0);
    forgetPosition(control, ring);
    adoptPosition(control, ring, block());
    assert.equal(resumePosition(control, ring), undefined, 'a split one');
  });
});
