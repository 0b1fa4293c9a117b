import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { ConfigError } from '../../src/config/error.ts';
import { loadConfig, parseConfig } from '../../src/config/load.ts';
import { nearest } from '../../src/config/nearest.ts';
import { schemaText } from '../../src/config/schema.ts';
import { MAC_PATTERN, macFromName, NAME_PATTERN, nameFromPath } from '../../src/limits.ts';

function refused(source: string): string {
  try {
    parseConfig(source, 'lab.yaml');
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.message;
  }
  return assert.fail('accepted');
}

const TWO = 'ports:\n  - path: /tmp/a.sock\n  - path: /tmp/b.sock\n';

describe('a configuration file', () => {
  it('becomes options, with names, MACs and absolute paths filled in', () => {
    const { switch: options, ports } = parseConfig(
      `name: lab\nforwarding: wire\nworkers: 2\nports:
  - path: a.sock
  - {name: web, type: vhost-user, path: /tmp/b.sock, mode: client, queues: 2, mtu: 1500,
     mac: 52:54:00:12:34:56, require_sealed: true}\n`,
      '/lab/vhop.yaml',
    );
    assert.deepEqual(options, { name: 'lab', forwarding: 'wire', workers: 2 });
    assert.deepEqual(ports, [
      { type: 'vhost-user', name: 'a', path: '/lab/a.sock', mac: macFromName('a') },
      {
        type: 'vhost-user',
        name: 'web',
        path: '/tmp/b.sock',
        mode: 'client',
        queues: 2,
        mtu: 1500,
        mac: '52:54:00:12:34:56',
        requireSealed: true,
      },
    ]);
  });

  it('says who may connect to a socket, its mode in octal', () => {
    const socket = (text: string) => {
      const [port] = parseConfig(`ports:\n  - path: a\n    socket: ${text}\n`, '/x.yaml').ports;
      return port?.type === 'vhost-user' ? port.socket : undefined;
    };
    assert.deepEqual(socket("{ mode: '0660', owner: alice, group: 107 }"), {
      mode: 0o660,
      owner: 'alice',
      group: 107,
    });
    assert.deepEqual(socket("{ mode: '600' }"), { mode: 0o600 });
    assert.deepEqual(socket('{ group: kvm }'), { group: 'kvm' });
    assert.deepEqual(socket('{}'), {});
  });

  const WRONG: [name: string, source: string, message: string | RegExp][] = [
    [
      'a misspelt key of a port',
      `${TWO}    mtuu: 9000\n`,
      "lab.yaml:4:5: ports[1].mtuu: unknown key: did you mean 'mtu'?",
    ],
    [
      'a mode that YAML reads as a decimal number',
      `${TWO}    socket: { mode: 0660 }\n`,
      "lab.yaml:4:15: ports[1].socket.mode: must be octal permission bits in quotes, such as '0660', not the number 660",
    ],
    [
      'a mode of more than permission bits',
      `${TWO}    socket: { mode: '4755' }\n`,
      /^lab.yaml:4:15: ports\[1\].socket.mode: must be octal permission bits .*, not '4755'$/,
    ],
    [
      'an owner that is none',
      `${TWO}    socket:\n      owner: -1\n`,
      "lab.yaml:5:7: ports[1].socket.owner: must be a user's name or number, not the number -1",
    ],
    [
      'a group that is none',
      `${TWO}    socket: { group: [kvm] }\n`,
      "lab.yaml:4:15: ports[1].socket.group: must be a group's name or number, not a list",
    ],
    [
      'a misspelt key of a socket',
      `${TWO}    socket: { onwer: alice }\n`,
      "lab.yaml:4:15: ports[1].socket.onwer: unknown key: did you mean 'owner'?",
    ],
    [
      'who may connect to a socket of somebody else',
      `${TWO}    mode: client\n    socket: { mode: '0660' }\n`,
      "lab.yaml:5:5: ports[1].socket: '/tmp/b.sock' is connected to, not listened on: who may connect is for its server to say, so leave this out",
    ],
    [
      'an unknown key',
      `${TWO}colour: red\n`,
      /^lab.yaml:4:1: colour: unknown key: known are name, forwarding, workers, ageing, ports$/,
    ],
    [
      'a word for true',
      `${TWO}    require_sealed: always\n`,
      "lab.yaml:4:5: ports[1].require_sealed: must be true or false, not 'always'",
    ],
    [
      'a number out of range',
      `${TWO}    mtu: 20\n`,
      'lab.yaml:4:5: ports[1].mtu: must be a whole number from 68 to 65535 (bytes), not the number 20',
    ],
    [
      'text for a number',
      `workers: many\n${TWO}`,
      "lab.yaml:1:1: workers: must be a whole number from 1 to 16 (threads), not 'many'",
    ],
    [
      'a number for text',
      `${TWO}    name: 12\n`,
      /^lab.yaml:4:5: ports\[1\].name: must be 1 to 32 letters.*, not the number 12$/,
    ],
    [
      'a forwarding there is not',
      `forwarding: hub\n${TWO}`,
      "lab.yaml:1:1: forwarding: must be 'switch' or 'wire', not 'hub'",
    ],
    [
      'a missing path',
      'ports:\n  - path: /tmp/a.sock\n  - name: b\n',
      'lab.yaml:3:5: ports[1].path: is missing: it must be the path of a Unix socket',
    ],
    ['no ports', 'name: lab\n', 'lab.yaml:1:1: ports: is missing: it must be a list of ports'],
    ['an empty list', 'ports: []\n', /^lab.yaml:1:1: ports: must list at least one port/],
    [
      'an empty file',
      '',
      "lab.yaml:1:1: is missing: it must be a map with at least the key 'ports'",
    ],
    ['a list', '- a\n', "lab.yaml:1:1: must be a map with at least the key 'ports', not a list"],
    [
      'a port that is a path',
      'ports:\n  - /tmp/a.sock\n',
      /^lab.yaml:2:5: ports\[0\]: must be a port: a map .*, not '\/tmp\/a.sock'$/,
    ],
    [
      'a multicast MAC',
      `${TWO}    mac: 01:00:5e:00:00:01\n`,
      /^lab.yaml:4:5: ports\[1\].mac: must be a unicast MAC/,
    ],
    [
      'a name twice',
      'ports:\n  - path: /tmp/1/a.sock\n  - path: /tmp/2/a.sock\n',
      "lab.yaml:3:5: ports[1].name: name 'a' is already that of port 1: give each its own",
    ],
    [
      'a path twice',
      'ports:\n  - path: /tmp/a.sock\n  - name: b\n    path: /tmp/./a.sock\n',
      "lab.yaml:4:5: ports[1].path: path '/tmp/a.sock' is already that of port 1: give each its own",
    ],
    [
      'a MAC twice',
      `ports:\n  - {path: /a, mac: "52:54:00:00:00:0A"}\n  - path: /b\n    mac: 52:54:00:00:00:0a\n`,
      /^lab.yaml:4:5: ports\[1\].mac: MAC 52:54:00:00:00:0a is already that of port 1/,
    ],
    [
      'a wire of three',
      `forwarding: wire\n${TWO}  - path: /tmp/c.sock\n`,
      'lab.yaml:2:1: ports: a wire joins exactly 2 ports, not 3: give 2, or use a switch',
    ],
    [
      'a path of 108 bytes',
      `ports:\n  - path: /${'x'.repeat(107)}\n`,
      /^lab.yaml:2:5: ports\[0\].path: .* is 108 bytes, a Unix socket's path has at most 107/,
    ],
    ['a key twice', `${TWO}name: a\nname: b\n`, /^lab.yaml:5:1: Map keys must be unique$/],
    ['broken YAML', 'ports: [\n', /^lab.yaml:\d+:\d+: Flow sequence/],
    ['an unknown alias', 'ports: *a\n', /^lab.yaml:1:\d+: .*alias/],
  ];
  for (const [name, source, message] of WRONG) {
    it(`refuses ${name}`, () => {
      if (typeof message === 'string') assert.equal(refused(source), message);
      else assert.match(refused(source), message);
    });
  }

  it('tells all errors at once, in the order of the file', () => {
    const lines = refused('workers: 0\nports:\n  - pth: /a\nbogus: 1\n').split('\n');
    assert.deepEqual(
      lines.map((line) => line.split(': ').slice(0, 2).join(' ')),
      [
        'lab.yaml:1:1 workers',
        'lab.yaml:3:5 ports[0].pth',
        'lab.yaml:3:5 ports[0].path',
        'lab.yaml:4:1 bogus',
      ],
    );
  });

  it('is refused by name when it cannot be read', () => {
    assert.throws(() => loadConfig('/nowhere/lab.yaml'), {
      name: 'ConfigError',
      message: '/nowhere/lab.yaml: no such file: give the path of a YAML file',
    });
    assert.throws(() => loadConfig('/tmp'), /\/tmp: is a folder, not a file/);
  });

  it('never makes the loader throw anything but ConfigError', () => {
    const scalar = fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null));
    const port = fc.dictionary(fc.constantFrom('path', 'name', 'mtu', 'mac', 'x'), scalar);
    const file = fc.dictionary(
      fc.constantFrom('ports', 'name', 'workers', 'forwarding', 'y'),
      fc.oneof(scalar, fc.array(fc.oneof(port, scalar), { maxLength: 3 })),
    );
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          file.map((f) => JSON.stringify(f)),
        ),
        (source) => {
          try {
            parseConfig(source, 'f');
          } catch (error) {
            assert.ok(error instanceof ConfigError, String(error));
            assert.match(error.message, /^f:\d+:\d+: /);
          }
        },
      ),
      { numRuns: 300 },
    );
  });
});

describe('the published schema', () => {
  const file = new URL('../../schema/vhop.schema.json', import.meta.url);

  it('is what the loader checks with (else: run script/schema)', () => {
    assert.equal(readFileSync(file, 'utf8'), schemaText());
  });

  it('describes every key', () => {
    const schema = JSON.parse(readFileSync(file, 'utf8'));
    for (const part of [schema, schema.properties.ports.items]) {
      assert.equal(part.additionalProperties, false);
      for (const [key, value] of Object.entries<{ description?: string }>(part.properties)) {
        assert.ok(value.description, key);
      }
    }
  });
});

describe('names', () => {
  it('come from paths and are always valid', () => {
    assert.equal(nameFromPath('/tmp/vm 1.sock'), 'vm-1');
    assert.equal(nameFromPath('/tmp/.sock'), 'port');
    fc.assert(fc.property(fc.string(), (path) => NAME_PATTERN.test(nameFromPath(path))));
  });

  it('stand for MAC addresses', () => {
    assert.match(macFromName('a'), MAC_PATTERN);
    assert.equal(macFromName('a'), macFromName('a'));
    assert.notEqual(macFromName('a'), macFromName('b'));
  });

  it('are found when misspelt, and only then', () => {
    const known = ['wire', 'switch', 'stats', 'mtu'];
    assert.equal(nearest('wrie', known), 'wire');
    assert.equal(nearest('swich', known), 'switch');
    assert.equal(nearest('MTU', known), 'mtu');
    assert.equal(nearest('bananas', known), undefined);
  });
});
