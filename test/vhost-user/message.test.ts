import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as vu from '../../src/abi/vhost-user.ts';
import {
  CODECS,
  decodeHeader,
  decodePayload,
  encodeMessage,
  featureNames,
  type PayloadKind,
  type Payloads,
  protocolFeatureNames,
  REQUESTS,
  Refusal,
  requestName,
  ruleOf,
} from '../../src/vhost-user/index.ts';

const u8 = fc.nat(0xff);
const u16 = fc.nat(0xffff);
const u32 = fc.nat(0xffffffff);
const u64 = fc.bigInt(0n, (1n << 64n) - 1n);
const region = fc.record({ gpa: u64, size: u64, uva: u64, mmapOffset: u64 });

const VALUES: { [K in PayloadKind]: fc.Arbitrary<Payloads[K]> } = {
  none: fc.constant(null),
  u64,
  state: fc.record({ index: u32, num: u32 }),
  ringFd: fc.record({ index: u8, noFd: fc.boolean() }),
  addr: fc.record({ index: u32, flags: u32, desc: u64, used: u64, avail: u64, logGpa: u64 }),
  table: fc.array(region, { maxLength: vu.MAX_FDS }),
  region,
  log: fc.record({ size: u64, offset: u64 }),
  iotlb: fc.record({ iova: u64, size: u64, uva: u64, perm: u8, type: u8 }),
  inflight: fc.record({ size: u64, offset: u64, queues: u16, queueSize: u16 }),
  config: fc.record({ offset: u32, flags: u32, data: fc.uint8Array({ maxLength: 256 }) }),
  area: fc.record({ value: u64, size: u64, offset: u64 }),
  transfer: fc.record({ direction: u32, phase: u32 }),
  opaque: fc.uint8Array({ maxLength: 64 }),
};
const KINDS = Object.keys(VALUES) as PayloadKind[];

const SIZES: Partial<Record<PayloadKind, number>> = {
  none: 0,
  u64: 8,
  state: 8,
  ringFd: 8,
  addr: 40,
  region: 40,
  log: 16,
  iotlb: 32,
  inflight: 24,
  area: 24,
  transfer: 8,
};

// Records from fast-check may have no prototype; what matters is the fields.
const plain = (value: unknown) => structuredClone(value);

for (const kind of KINDS) {
  test(`${kind}: encode and decode are inverse`, () => {
    fc.assert(
      fc.property(VALUES[kind] as fc.Arbitrary<never>, (value) => {
        const bytes = CODECS[kind].encode(value);
        if (SIZES[kind] !== undefined) assert.equal(bytes.length, SIZES[kind]);
        assert.deepEqual(plain(CODECS[kind].decode(bytes)), plain(value));
      }),
    );
  });

  test(`${kind}: garbage is decoded or refused, nothing else`, () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), (bytes) => {
        try {
          const value = CODECS[kind].decode(bytes) as never;
          assert.equal(CODECS[kind].encode(value).length, bytes.length);
        } catch (error) {
          assert.ok(error instanceof Refusal, String(error));
        }
      }),
    );
  });

  const size = SIZES[kind];
  if (size === undefined) continue;
  test(`${kind}: no size but ${size} is accepted`, () => {
    for (let length = 0; length < 80; length++) {
      const bytes = new Uint8Array(length);
      if (length === size) CODECS[kind].decode(bytes);
      else assert.throws(() => CODECS[kind].decode(bytes), Refusal);
    }
  });
}

test('a memory table is as long as it says, and has at most 32 regions', () => {
  const full = CODECS.table.encode(Array(32).fill({ gpa: 0n, size: 1n, uva: 2n, mmapOffset: 3n }));
  assert.equal(CODECS.table.decode(full).length, 32);
  for (const length of [0, 4, 8, full.length - 1]) {
    assert.throws(() => CODECS.table.decode(full.subarray(0, length)), Refusal);
  }
  const more = new Uint8Array(8 + 33 * 32);
  more[0] = 33;
  assert.throws(() => CODECS.table.decode(more), /names 33 regions, more than 32/);
  more.set([0xff, 0xff, 0xff, 0xff]);
  assert.throws(() => CODECS.table.decode(more), Refusal);
});

test('structures lie as the specification draws them', () => {
  const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex');
  assert.equal(
    hex(encodeMessage(vu.VU_SET_VRING_NUM, 9, 'state', { index: 1, num: 256 })),
    '080000000900000008000000' + '0100000000010000',
  );
  assert.equal(hex(CODECS.ringFd.encode({ index: 3, noFd: true })), '0301000000000000');
  const addr = { index: 2, flags: 1, desc: 3n, used: 4n, avail: 5n, logGpa: 6n };
  const words = [0x0000000100000002n, 3n, 4n, 5n, 6n];
  assert.equal(
    hex(CODECS.addr.encode(addr)),
    hex(new Uint8Array(BigUint64Array.from(words).buffer)),
  );
  const one = { gpa: 7n, size: 8n, uva: 9n, mmapOffset: 10n };
  const table = [1n, 7n, 8n, 9n, 10n];
  assert.equal(
    hex(CODECS.table.encode([one])),
    hex(new Uint8Array(BigUint64Array.from(table).buffer)),
  );
  table[0] = 0n;
  assert.equal(
    hex(CODECS.region.encode(one)),
    hex(new Uint8Array(BigUint64Array.from(table).buffer)),
  );
});

test('a ring number with bits beyond the eighth and NOFD is refused, not cut off', () => {
  for (const value of [0x200n, 0x10000n, 0x10001n, 1n << 32n, (1n << 64n) - 1n]) {
    assert.throws(() => CODECS.ringFd.decode(CODECS.u64.encode(value)), Refusal);
  }
});

test('headers: version 1 and up to 4096 bytes, whatever else the flags say', () => {
  fc.assert(
    fc.property(u32, u32, u32, (request, flags, size) => {
      const bytes = Buffer.alloc(12);
      bytes.writeUInt32LE(request, 0);
      bytes.writeUInt32LE(flags, 4);
      bytes.writeUInt32LE(size, 8);
      if ((flags & 3) === 1 && size <= 4096) {
        assert.deepEqual(decodeHeader(bytes), { request, flags, size });
      } else {
        assert.throws(() => decodeHeader(bytes), Refusal);
      }
    }),
  );
});

test('descriptor counts are exact for every request', () => {
  for (const id of Object.keys(REQUESTS).map(Number)) {
    const rule = ruleOf(id)!;
    const values: [unknown, number[]][] = [];
    if (rule.payload === 'ringFd') {
      values.push([{ index: 0, noFd: false }, [1]], [{ index: 0, noFd: true }, [0]]);
    } else if (rule.payload === 'table') {
      const regions = (n: number) => Array(n).fill({ gpa: 0n, size: 0n, uva: 0n, mmapOffset: 0n });
      for (const n of [0, 1, 8, 32]) values.push([regions(n), [n]]);
    } else {
      const wanted = { none: [0], one: [1], optional: [0, 1], ring: [1], table: [0] };
      const [value] = fc.sample(VALUES[rule.payload] as fc.Arbitrary<unknown>, 1);
      values.push([value, wanted[rule.fds ?? 'none']]);
    }
    for (const [value, wanted] of values) {
      const payload = CODECS[rule.payload].encode(value as never);
      for (let count = 0; count <= 33; count++) {
        const message = { request: id, flags: 1, payload, fds: Array(count).fill(-1) };
        const decode = () => decodePayload(rule, message);
        if (wanted.includes(count)) decode();
        else assert.throws(decode, Refusal, `${requestName(id)} with ${count} descriptors`);
      }
    }
  }
});

test('names', () => {
  assert.deepEqual(featureNames((1n << 32n) | (1n << 15n) | 1n), [
    'CSUM',
    'MRG_RXBUF',
    'VERSION_1',
  ]);
  assert.deepEqual(featureNames((1n << 30n) | (1n << 60n)), ['PROTOCOL_FEATURES', 'bit 60']);
  assert.deepEqual(protocolFeatureNames(0b1001n), ['MQ', 'REPLY_ACK']);
  assert.equal(requestName(1), 'GET_FEATURES');
  assert.equal(requestName(22), 'IOTLB_MSG');
  assert.equal(requestName(99), 'request 99');
  for (const id of Object.keys(REQUESTS).map(Number))
    assert.doesNotMatch(requestName(id), /^request/);
  assert.equal(ruleOf(0), undefined);
  assert.equal(ruleOf(45), undefined);
});
