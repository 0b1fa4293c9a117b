// Which features are offered, and what follows from those accepted.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import {
  RINGF_EVENT_IDX,
  RINGF_IN_ORDER,
  RINGF_INDIRECT,
  RINGF_MRG,
  RINGF_PACKED,
} from '../../src/abi/layout.ts';
import * as V from '../../src/abi/virtio.ts';
import { bit, has, headerLength, offeredFeatures, ringFlags } from '../../src/virtio/features.ts';

const anyFeatures = fc.bigInt(0n, (1n << 64n) - 1n);

describe('features', () => {
  it('offers nothing that is not implemented', () => {
    const never = [
      V.F_HOST_UFO,
      V.F_GUEST_UFO,
      V.F_MAC,
      V.F_STATUS,
      V.F_LOG_ALL,
      V.F_ACCESS_PLATFORM,
      V.F_PROTOCOL_FEATURES,
      24, // NOTIFY_ON_EMPTY
      38, // NOTIFICATION_DATA
      40, // RING_RESET
      57, // HASH_REPORT
      60, // RSS
    ];
    for (const pairs of [1, 8]) {
      const offered = offeredFeatures({ pairs, mtu: 1500 });
      for (const n of never) assert.equal(has(offered, n), false, `bit ${n}`);
    }
  });

  it('offers MQ only with several pairs, MTU only when there is one', () => {
    assert.equal(has(offeredFeatures({ pairs: 1 }), V.F_MQ), false);
    assert.equal(has(offeredFeatures({ pairs: 2 }), V.F_MQ), true);
    assert.equal(has(offeredFeatures({ pairs: 1 }), V.F_MTU), false);
    assert.equal(has(offeredFeatures({ pairs: 1, mtu: 9000 }), V.F_MTU), true);
  });

  it('offers each segmentation with the checksum it needs', () => {
    const offered = offeredFeatures({ pairs: 1 });
    const sends = [V.F_HOST_TSO4, V.F_HOST_TSO6, V.F_HOST_ECN, V.F_HOST_USO];
    const takes = [V.F_GUEST_TSO4, V.F_GUEST_TSO6, V.F_GUEST_ECN, V.F_GUEST_USO4, V.F_GUEST_USO6];
    const rest = [V.F_CSUM, V.F_GUEST_CSUM, V.F_VERSION_1, V.F_MRG_RXBUF];
    for (const n of [...sends, ...takes, ...rest]) {
      assert.ok(has(offered, n), `bit ${n}`);
    }
  });

  it('the header is 12 bytes with VERSION_1 or MRG_RXBUF, else 10', () => {
    fc.assert(
      fc.property(anyFeatures, (features) => {
        const modern = ((features >> 32n) | (features >> 15n)) & 1n;
        assert.equal(headerLength(features), modern ? 12 : 10);
      }),
    );
  });

  it('ring flags follow their bits and nothing else', () => {
    fc.assert(
      fc.property(anyFeatures, (features) => {
        const expected = (((features >> 29n) & 1n ? RINGF_EVENT_IDX : 0) |
          ((features >> 28n) & 1n ? RINGF_INDIRECT : 0) |
          ((features >> 34n) & 1n ? RINGF_PACKED : 0) |
          ((features >> 35n) & 1n ? RINGF_IN_ORDER : 0) |
          ((features >> 15n) & 1n ? RINGF_MRG : 0)) as number;
        assert.equal(ringFlags(features), expected);
      }),
    );
  });

  it('bit and has agree beyond 32 bits', () => {
    for (const n of [0, 31, 32, 63]) {
      assert.equal(has(bit(n), n), true);
      assert.equal(has(~bit(n), n), false);
    }
  });
});
