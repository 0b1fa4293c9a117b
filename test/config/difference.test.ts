// What a changed file makes of a running switch, against a model of one.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import { type CheckedPort, checkPorts } from '../../src/config/check.ts';
import { type Action, difference, type Settings } from '../../src/config/difference.ts';
import { macFromName } from '../../src/limits.ts';

const NAMES = ['a', 'b', 'c', 'd'];
const limits = fc.option(fc.constantFrom({ frames: 100 }, { bits: 5e6 }), { nil: undefined });
const optional = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });

/** Few values, so that two files often have something in common. */
const port = fc
  .record({
    type: fc.constantFrom('vhost-user', 'virtio-user', 'tap'),
    name: fc.constantFrom(...NAMES),
    place: fc.constantFrom('/x/1', '/x/2', '/x/3', '/x/4'),
    mode: optional(fc.constantFrom('server', 'client')),
    queues: optional(fc.constantFrom(1, 8)),
    mtu: optional(fc.constantFrom(1500, 9000)),
    mac: optional(fc.constantFrom('02:00:00:00:00:0A', '02:00:00:00:00:0b')),
    rate: limits,
  })
  .map(({ type, place, mode, rate, mac, ...rest }): CheckedPort => {
    const own = Object.fromEntries(
      Object.entries({ ...rest, rate }).filter(([, value]) => value !== undefined),
    ) as typeof rest;
    const given = { ...own, mac: mac ?? macFromName(rest.name) };
    if (type === 'tap') return { type, device: place.slice(-1), ...given };
    const end = { path: place, ...(mode === undefined ? {} : { mode }) };
    return { type, ...end, ...given } as CheckedPort;
  });

const settings: fc.Arbitrary<Settings> = fc
  .record({
    switch: fc.record(
      {
        forwarding: fc.constantFrom('switch', 'wire'),
        ageing: fc.constantFrom(300, 5),
        workers: fc.constantFrom(1, 2),
      },
      { requiredKeys: [] },
    ),
    ports: fc.array(port, { minLength: 1, maxLength: 4 }),
  })
  .filter((file) => checkPorts(file.ports, file.switch.forwarding ?? 'switch').length === 0);

/** Carries actions out as a switch would, which has each name, socket, device and MAC once. */
function carriedOut(before: Settings, actions: readonly Action[]): Settings {
  const ports = new Map(before.ports.map((p) => [p.name, p]));
  let own: Settings['switch'] = before.switch;
  for (const action of actions) {
    if (action.do === 'remove') {
      assert.ok(ports.delete(action.port), `${action.port} is there to be removed`);
    } else if (action.do === 'configure') {
      own = { ...own, ...action.settings };
    } else if (action.do === 'police') {
      const { rate: _, burst: __, ...rest } = ports.get(action.port)!;
      ports.set(action.port, { ...rest, ...action.policing });
    } else if (action.do === 'restart') {
      own = { ...own, [action.key]: action.to };
    } else {
      ports.set(action.port.name, action.port);
      const forwarding = (own.forwarding ?? 'switch') === 'wire' ? 'wire' : 'switch';
      const problems = checkPorts([...ports.values()], forwarding);
      assert.deepEqual(
        problems.filter(({ key }) => key !== 'ports'),
        [],
      );
      if (forwarding === 'wire') assert.ok(ports.size <= 2, 'no third port on a wire');
    }
  }
  return { switch: own, ports: [...ports.values()] };
}

describe('the difference of two files', () => {
  it('makes the one into the other', () => {
    fc.assert(
      fc.property(settings, settings, (before, after) => {
        const made = carriedOut(before, difference(before, after));
        assert.deepEqual(difference(made, after), []);
        // By the names alone, should the function be wrong about what is the same.
        const names = (file: Settings) => file.ports.map(({ name }) => name).sort();
        assert.deepEqual(names(made), names(after));
        for (const wanted of after.ports) {
          const is = made.ports.find(({ name }) => name === wanted.name)!;
          assert.equal(is.type, wanted.type);
          assert.deepEqual(is.rate, wanted.rate);
          assert.equal(is.mtu, wanted.mtu);
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('is nothing between a file and itself, in any order of its ports', () => {
    fc.assert(
      fc.property(settings, (file) => {
        const turned = { ...file, ports: file.ports.toReversed() };
        assert.deepEqual(difference(file, turned), []);
      }),
    );
  });

  it('leaves alone what is the same in both', () => {
    fc.assert(
      fc.property(settings, settings, (before, after) => {
        const named = difference(before, after).flatMap((action) =>
          action.do === 'add' ? [action.port.name] : 'port' in action ? [action.port] : [],
        );
        for (const same of before.ports) {
          if (after.ports.some((p) => isDeepStrictEqual(p, same))) {
            assert.ok(!named.includes(same.name), same.name);
          }
        }
      }),
      { numRuns: 2000 },
    );
  });

  it('takes a default that is spelled out for the same', () => {
    const a = { type: 'vhost-user', name: 'a', path: '/x', mac: '02:00:00:00:00:0a' } as const;
    const spelled: CheckedPort = {
      ...a,
      mode: 'server',
      queues: 8,
      requireSealed: false,
      socket: {},
      mac: '02:00:00:00:00:0A',
    };
    const plain = { switch: {}, ports: [a] };
    const full = {
      switch: { forwarding: 'switch', workers: 1, ageing: 300 } as const,
      ports: [spelled],
    };
    assert.deepEqual(difference(plain, full), []);
    const rate = { frames: 1000 };
    // A burst of a tenth of a second, which is what it is anyway.
    const limited = (burst?: object) => ({
      switch: {},
      ports: [{ ...a, rate, ...(burst && { burst }) }],
    });
    assert.deepEqual(difference(limited(), limited({ frames: 100 })), []);
    assert.deepEqual(difference(limited(), limited({ frames: 500 })), [
      { do: 'police', port: 'a', policing: { rate, burst: { frames: 500 } }, keys: ['burst'] },
    ]);
    assert.deepEqual(difference(limited(), plain), [
      { do: 'police', port: 'a', policing: {}, keys: ['rate'] },
    ]);
  });

  it('replaces a port for a key that cannot change in place, and says which', () => {
    const a = { type: 'vhost-user', name: 'a', path: '/x', mac: '02:00:00:00:00:0a' } as const;
    const b = { ...a, name: 'b', path: '/y', mac: '02:00:00:00:00:0b' } as const;
    // The two change sockets: both go before either comes.
    const after: CheckedPort[] = [
      { ...a, path: '/y' },
      { ...b, path: '/x', mtu: 1500, rate: { frames: 9 } },
    ];
    assert.deepEqual(difference({ switch: {}, ports: [a, b] }, { switch: {}, ports: after }), [
      { do: 'remove', port: 'a', keys: ['path'] },
      { do: 'remove', port: 'b', keys: ['mtu', 'path'] },
      { do: 'add', port: after[0], keys: ['path'] },
      { do: 'add', port: after[1], keys: ['mtu', 'path'] },
    ]);
  });
});
