// Names of ports, good and bad.

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { type PortName, parseName } from '../../src/netmap/name.ts';
import { NetmapError } from '../../src/netmap/types.ts';

const socket = (path: string): Partial<PortName> => ({ kind: 'socket', path, mode: 'client' });
const port = (name: string): Partial<PortName> => ({ kind: 'port', port: name, path: '' });
const plain = { rings: 'device' } as const;
const watch = (rx: boolean, tx: boolean, swaps = false) => ({ monitor: { rx, tx, swaps } });

const GOOD: [string, Partial<PortName>][] = [
  ['vhop:/run/a.sock', { ...socket('/run/a.sock'), ...plain }],
  ['/run/a.sock', socket('/run/a.sock')],
  ['a.sock', socket('a.sock')],
  ['./a', socket('./a')],
  ['vhop:server:/run/a.sock', { ...socket('/run/a.sock'), mode: 'server' }],
  ['vhop:client:/run/a.sock', socket('/run/a.sock')],
  ['server:a.sock-1', { ...socket('a.sock'), mode: 'server', pair: 1 }],
  ['vhop:/run/a.sock-0', { ...socket('/run/a.sock'), pair: 0 }],
  ['vhop:/run/a.sock-7', { ...socket('/run/a.sock'), pair: 7 }],
  ['vhop:/run/a.sock^', { ...socket('/run/a.sock'), rings: 'host' }],
  ['vhop:/run/a.sock*', { ...socket('/run/a.sock'), rings: 'both' }],
  ['vhop:/run/a.sock{1', { ...socket('/run/a.sock'), pipe: { id: '1', master: true } }],
  ['vhop:/run/a.sock}1', { ...socket('/run/a.sock'), pipe: { id: '1', master: false } }],
  ['vhop:/run/a.sock/r', { ...socket('/run/a.sock'), ...watch(true, false) }],
  ['vhop:/run/a.sock/t', { ...socket('/run/a.sock'), ...watch(false, true) }],
  ['vhop:/run/a.sock/rt', { ...socket('/run/a.sock'), ...watch(true, true) }],
  ['vhop:/run/a.sock/zrt', { ...socket('/run/a.sock'), ...watch(true, true, true) }],
  ['vhop:/run/a.sock-3/tz', { ...socket('/run/a.sock'), pair: 3, ...watch(false, true, true) }],
  ['vhop:p{ab_9/r', { ...port('p'), pipe: { id: 'ab_9', master: true }, ...watch(true, false) }],
  ['vhop:eth0', { ...port('eth0'), ...plain }],
  ['eth0', port('eth0')],
  ['vhop:eth0@lab', { ...port('eth0'), switch: 'lab' }],
  ['vhop:eth0@lab-2', { ...port('eth0'), switch: 'lab', pair: 2 }],
  ['vhop:eth0@lab*', { ...port('eth0'), switch: 'lab', rings: 'both' }],
  ['vhop:a.b_c-x', port('a.b_c-x')],
  ['vhop:web-1', { ...port('web'), pair: 1 }],
  ['vhop:web-01', port('web-01')],
  ['vhop:web-8', port('web-8')],
  ['tap:tap0', { kind: 'tap', port: 'tap0', ...plain }],
  ['tap:tap0/rt', { kind: 'tap', port: 'tap0', ...watch(true, true) }],
];

const BAD: [string, RegExp][] = [
  ['', /names no port/],
  ['vhop:', /names no port/],
  ['tap:', /names no port/],
  ['vhop:a b', /names no port/],
  ['vhop:a\n', /names no port/],
  ['a\nb', /names no port/],
  ['vhop:a@', /names no port/],
  ['vhop:@lab', /names no port/],
  ['vhop:a@b@c', /names no port/],
  ['vhop:a{', /names no port/],
  ['vhop:a{has-dash', /names no port/],
  ['vhop:a{12345678901234567', /names no port/],
  [`vhop:${'a'.repeat(33)}`, /names no port/],
  ['vhop:ä', /names no port/],
  ['netmap:eth0', /names no port/],
  ['vhop:a/z', /watches neither/],
  ['vhop:server:eth0', /has a mode, which only a socket has/],
  ['vhop:client:eth0', /has a mode, which only a socket has/],
  ['tap:server:tap0', /has a mode, which only a socket has/],
  ['tap:a/b', /names no network device/],
  [`tap:${'a'.repeat(16)}`, /names no network device/],
  ['tap:tap0^', /is the host side already/],
  ['tap:tap0*', /is the host side already/],
];

describe('names', () => {
  for (const [name, parts] of GOOD) {
    it(name, () => {
      const parsed = parseName(name);
      for (const [key, value] of Object.entries(parts)) {
        assert.deepEqual(parsed[key as keyof PortName], value, key);
      }
      const optional = ['pair', 'pipe', 'monitor', 'switch'] as const;
      for (const key of optional) if (!(key in parts)) assert.equal(parsed[key], undefined, key);
    });
  }

  for (const [name, why] of BAD) {
    it(`not ${JSON.stringify(name.slice(0, 24))}`, () => {
      assert.throws(
        () => parseName(name),
        (error) => error instanceof NetmapError && error.code === 'name' && why.test(error.message),
      );
    });
  }

  it('a path that is there is that path, whatever its end looks like', () => {
    const there = new Set(['/run/a-1', '/run/a{1', '/run/rt/r']);
    for (const path of there) {
      for (const name of [path, `vhop:${path}`, `vhop:server:${path}`]) {
        const parsed = parseName(name, (path) => there.has(path));
        assert.deepEqual(
          [parsed.path, parsed.pair, parsed.pipe, parsed.monitor],
          [path, undefined, undefined, undefined],
        );
      }
    }
    assert.equal(parseName('/run/a-2', () => false).pair, 2);
  });
});
