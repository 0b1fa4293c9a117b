// The configuration file's schema, in one place: the loader checks with it, and
// schema/vhop.schema.json (for editors) is generated from it by script/schema.
//
// Every field carries one sentence for the error and one for the editor's tooltip.

import * as z from 'zod';
import {
  DEVICE_PATTERN,
  MAC_PATTERN,
  MAX_ID,
  MAX_SOCKET_PATH,
  NAME_PATTERN,
  SOCKET_MODE_PATTERN,
} from '../limits.ts';
import { QUANTITY_PATTERN, quantity } from './quantity.ts';

function whole(min: number, max: number, unit: string) {
  const error = `must be a whole number from ${min} to ${max}${unit === '' ? '' : ` (${unit})`}`;
  return z.int({ error }).min(min, { error }).max(max, { error });
}

function oneOf<const T extends readonly [string, ...string[]]>(values: T) {
  return z.enum(values, { error: `must be ${values.map((v) => `'${v}'`).join(' or ')}` });
}

function text(pattern: RegExp, error: string) {
  return z.string({ error }).regex(pattern, { error });
}

/** A whole number, or one with a suffix. */
function amount(what: string) {
  const error = `must be a number of ${what} such as 500, 100k, 2.5M or 1G`;
  return z
    .union([z.number({ error }).min(1, { error }), text(QUANTITY_PATTERN, error)], { error })
    .transform((value) => quantity(value)!);
}

function limits(per: string) {
  return z.strictObject(
    {
      frames: amount('frames').optional().describe(`Frames ${per}.`),
      bits: amount('bits').optional().describe(`Bits ${per}, of frames without FCS.`),
    },
    { error: "must be a map with the keys 'frames' or 'bits' or both" },
  );
}

/** Keys that a type of port does not have. */
const FOREIGN = {
  'vhost-user': ['device', 'packed'],
  'virtio-user': ['device', 'socket', 'require_sealed'],
  tap: ['path', 'mode', 'socket', 'require_sealed', 'packed'],
} as const;

const NAME = 'must be 1 to 32 letters, digits, dots, dashes or underscores';

function userOrGroup(what: 'user' | 'group') {
  const error = `must be a ${what}'s name or number`;
  const name = z.string({ error }).min(1, { error });
  return z.union([name, z.int({ error }).min(0, { error }).max(MAX_ID, { error })], { error });
}

const socketSchema = z
  .strictObject(
    {
      mode: text(SOCKET_MODE_PATTERN, "must be octal permission bits in quotes, such as '0660'")
        .optional()
        .describe("Permission bits, octal. Default: '0600', with a group '0660'."),
      owner: userOrGroup('user')
        .optional()
        .describe('The user the socket belongs to. Default: who runs the switch.'),
      group: userOrGroup('group').optional().describe('The group the socket belongs to.'),
    },
    { error: "must be a map with 'mode', 'owner' or 'group'" },
  )
  .describe('Who may connect to the socket that the port listens on. Default: what umask leaves.');

const portShape = z
  .strictObject(
    {
      name: text(NAME_PATTERN, NAME)
        .optional()
        .describe(
          "The port's name, unique in the switch. Default: the socket's base name, or the device's.",
        ),
      type: oneOf(['vhost-user', 'virtio-user', 'tap'])
        .optional()
        .describe(
          'vhost-user: a guest behind a socket (default). virtio-user: the switch is the driver of ' +
            "somebody else's vhost-user back end. tap: the host itself, through a network device.",
        ),
      path: z
        .string({ error: 'must be the path of a Unix socket' })
        .min(1, { error: 'must be the path of a Unix socket' })
        .optional()
        .describe(
          `The Unix socket's path, at most ${MAX_SOCKET_PATH} bytes; ` +
            "relative to this file's folder, ~/ is the home folder.",
        ),
      device: text(DEVICE_PATTERN, 'must be 1 to 15 letters, digits, dots, dashes or underscores')
        .optional()
        .describe("tap: the network device; made if it is not there. Default: the port's name."),
      mode: oneOf(['server', 'client'])
        .optional()
        .describe(
          'server listens on the path (default of vhost-user); client connects out and keeps ' +
            'retrying (default of virtio-user).',
        ),
      socket: socketSchema.optional(),
      queues: whole(1, 8, 'queue pairs')
        .optional()
        .describe(
          'Queue pairs: of vhost-user offered (default 8), of the others used (default 1).',
        ),
      packed: z
        .boolean({ error: 'must be true or false' })
        .optional()
        .describe('virtio-user: true uses packed rings, which the back end must offer.'),
      mtu: whole(68, 65535, 'bytes')
        .optional()
        .describe('Largest IP packet the port takes, bytes. Default: not limited.'),
      rate: limits('a second')
        .optional()
        .describe('What the port may send; more is dropped as tx_policed. Default: not limited.'),
      burst: limits('at once')
        .optional()
        .describe('What the port may send at once after a pause. Default: 0.1 s of its rate.'),
      mac: text(MAC_PATTERN, 'must be a unicast MAC address such as 52:54:00:12:34:56')
        .optional()
        .describe("The guest's MAC address, for `vhop args`. Default: derived from the name."),
      require_sealed: z
        .boolean({ error: 'must be true or false' })
        .optional()
        .describe(
          'true refuses guest memory whose file could shrink while it is mapped. Default: false.',
        ),
    },
    { error: "must be a port: a map with at least the key 'path', or 'type: tap'" },
  )
  .describe('One port: what is joined to the switch.');

type PortShape = z.infer<typeof portShape>;

/** What a port must have, and must not, by its type. */
const RULES: [key: keyof PortShape, message: string, holds: (port: PortShape) => boolean][] = [
  [
    'path',
    'must be the path of a Unix socket',
    ({ type, path }) => type === 'tap' || path !== undefined,
  ],
  [
    'device',
    'must be the name of a network device',
    ({ type, device, name }) => type !== 'tap' || (device ?? name) !== undefined,
  ],
  ...Object.entries(FOREIGN).flatMap(([type, keys]) =>
    keys.map((key): (typeof RULES)[number] => [
      key,
      `is not for a port of type ${type}: leave it out`,
      (port) => (port.type ?? 'vhost-user') !== type || port[key] === undefined,
    ]),
  ),
];

/** Checked also where other keys are wrong: all of a file's errors come at once. */
const when = ({ value }: { value: unknown }) => typeof value === 'object' && value !== null;

export const portSchema = RULES.reduce(
  (schema, [key, error, holds]) => schema.refine(holds, { path: [key], error, when }),
  portShape,
);

export const configSchema = z
  .strictObject(
    {
      name: text(NAME_PATTERN, NAME)
        .optional()
        .describe("The switch's name: other terminals find it by this. Default: default."),
      forwarding: oneOf(['switch', 'wire'])
        .optional()
        .describe('switch learns MAC addresses (default); wire joins exactly two ports.'),
      workers: whole(1, 16, 'threads').optional().describe('Datapath threads. Default: 1.'),
      ageing: whole(1, 1_000_000, 'seconds')
        .optional()
        .describe('Seconds until an unheard MAC address is forgotten. Default: 300.'),
      ports: z
        .array(portSchema, { error: 'must be a list of ports' })
        .min(1, { error: 'must list at least one port' })
        .describe('The ports, in order.'),
    },
    { error: "must be a map with at least the key 'ports'" },
  )
  .describe('A vhop switch or wire, for `vhop up FILE.yaml`.');

export type Config = z.infer<typeof configSchema>;

/** The text of schema/vhop.schema.json: JSON Schema 2020-12, ending in a newline. */
export function schemaText(): string {
  const schema = { title: 'vhop configuration', ...z.toJSONSchema(configSchema, { io: 'input' }) };
  return `${layOut(schema, '')}\n`;
}

/** Like JSON.stringify(…, 2), but short lists of scalars stay on one line. */
function layOut(value: unknown, indent: string): string {
  if (typeof value !== 'object' || value === null) return JSON.stringify(value);
  const deeper = `${indent}  `;
  if (Array.isArray(value)) {
    if (value.every((v) => typeof v !== 'object')) {
      return `[${value.map((v) => JSON.stringify(v)).join(', ')}]`;
    }
    return `[\n${value.map((v) => deeper + layOut(v, deeper)).join(',\n')}\n${indent}]`;
  }
  const members = Object.entries(value).map(
    ([key, v]) => `${deeper}${JSON.stringify(key)}: ${layOut(v, deeper)}`,
  );
  return members.length === 0 ? '{}' : `{\n${members.join(',\n')}\n${indent}}`;
}
