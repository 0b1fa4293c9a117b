// A configuration file to options: YAML, schema, then the rules of check.ts. Every error names the
// file, the line and the key, and all of a file's errors come at once.

import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { dirname, resolve } from 'node:path';
import { type Document, isMap, isNode, isSeq, LineCounter, parseDocument } from 'yaml';
import type { core } from 'zod';
import { macFromName, nameFromPath } from '../limits.ts';
import type { SocketAccess, SwitchOptions } from '../types.ts';
import { type CheckedPort, checkPorts } from './check.ts';
import { ConfigError } from './error.ts';
import { suggestion } from './nearest.ts';
import { type Config, configSchema, portSchema } from './schema.ts';

export interface LoadedConfig {
  switch: SwitchOptions;
  /** In the file's order; paths are absolute, names and MACs filled in. */
  ports: CheckedPort[];
}

/** Reads and checks `file`. Throws ConfigError, also when the file cannot be read. */
export function loadConfig(file: string): LoadedConfig {
  let source: string;
  try {
    source = readFileSync(file, 'utf8');
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    const why =
      code === 'ENOENT' ? 'no such file' : code === 'EISDIR' ? 'is a folder, not a file' : code;
    throw new ConfigError(`${file}: ${why}: give the path of a YAML file`);
  }
  return parseConfig(source, file);
}

/** Checks the text of a file; `file` is for messages and for resolving relative paths. */
export function parseConfig(source: string, file: string): LoadedConfig {
  const lines = new LineCounter();
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false });
  const at = (offset: number): string => {
    const { line, col } = lines.linePos(offset);
    return `${file}:${Math.max(line, 1)}:${Math.max(col, 1)}`;
  };
  if (document.errors.length > 0) {
    throw new ConfigError(document.errors.map((e) => `${at(e.pos[0])}: ${e.message}`).join('\n'));
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: 100 });
  } catch (error) {
    throw new ConfigError(`${at(0)}: ${(error as Error).message}`);
  }
  const parsed = configSchema.safeParse(value);
  if (!parsed.success) {
    throw new ConfigError(
      parsed.error.issues
        .flatMap((issue) => explain(issue, document, value))
        .sort((a, b) => a.offset - b.offset)
        .map(({ offset, key, message }) => `${at(offset)}: ${key}${message}`)
        .join('\n'),
    );
  }
  const loaded = fill(parsed.data, file);
  const problems = checkPorts(loaded.ports, loaded.switch.forwarding ?? 'switch');
  if (problems.length > 0) {
    throw new ConfigError(
      problems
        .map(({ port, key, message }) => {
          const path = port === undefined ? [key] : ['ports', port, key];
          return `${at(offsetOf(document, path))}: ${keyText(path)}${message}`;
        })
        .join('\n'),
    );
  }
  return loaded;
}

function fill(config: Config, file: string): LoadedConfig {
  const { ports, ...options } = config;
  const folder = dirname(resolve(file));
  return {
    switch: { forwarding: 'switch', ...options },
    ports: ports.map((port) => portFrom(port, folder)),
  };
}

/** The schema has seen to it that each type has its keys, and no other's. */
function portFrom(given: Config['ports'][number], folder: string): CheckedPort {
  const {
    require_sealed,
    socket,
    type = 'vhost-user',
    path: text,
    device,
    packed,
    ...port
  } = given;
  if (type === 'tap') {
    const name = port.name ?? device!;
    const { mode: _, ...rest } = port;
    const own = device === undefined ? {} : { device };
    return { ...rest, ...own, type, name, mac: port.mac ?? macFromName(name) };
  }
  const name = port.name ?? nameFromPath(text!);
  const path = resolve(folder, text!.replace(/^~(?=\/)/, homedir()));
  const common = { ...port, name, path, mac: port.mac ?? macFromName(name) };
  if (type === 'virtio-user') {
    return { ...common, ...(packed === undefined ? {} : { packed }), type };
  }
  return {
    ...common,
    ...(require_sealed === undefined ? {} : { requireSealed: require_sealed }),
    ...(socket === undefined ? {} : { socket: accessFrom(socket) }),
    type,
  };
}

function accessFrom({
  mode,
  ...rest
}: NonNullable<Config['ports'][number]['socket']>): SocketAccess {
  return { ...rest, ...(mode === undefined ? {} : { mode: Number.parseInt(mode, 8) }) };
}

type Path = readonly PropertyKey[];
interface Explained {
  offset: number;
  /** `ports[1].mtu: `, or nothing for the whole file. */
  key: string;
  message: string;
}

function explain(issue: core.$ZodIssue, document: Document, value: unknown): Explained[] {
  if (issue.code === 'unrecognized_keys') {
    const known = knownKeys(issue.path);
    return issue.keys.map((key) => {
      const path = [...issue.path, key];
      const message = `unknown key${suggestion(key, known)}`;
      return { offset: offsetOf(document, path), key: keyText(path), message };
    });
  }
  const given = issue.path.reduce<unknown>(
    (v, key) => (v as Record<PropertyKey, unknown> | undefined)?.[key],
    value,
  );
  const missing = given === undefined || given === null;
  const message = missing ? `is missing: it ${issue.message}` : `${issue.message}, ${not(given)}`;
  return [
    { offset: offsetOf(document, issue.path), key: keyText(issue.path), message: message.trim() },
  ];
}

/** The keys of the map at `path`: the file's, a port's, or those of a map in a port. */
function knownKeys([list, , key]: readonly PropertyKey[]): string[] {
  if (list !== 'ports') return Object.keys(configSchema.shape);
  const inner = key === undefined ? undefined : portSchema.shape[key as 'rate' | 'socket'];
  return Object.keys(inner === undefined ? portSchema.shape : inner.unwrap().shape);
}

/** What stands there instead, short enough for a sentence. */
function not(given: unknown): string {
  if (Array.isArray(given)) return given.length === 0 ? 'this list is empty' : 'not a list';
  if (typeof given === 'object') return 'not a map';
  if (typeof given === 'string') return `not '${given.slice(0, 40)}'`;
  return `not the ${typeof given} ${String(given)}`;
}

function keyText(path: Path): string {
  let text = '';
  for (const key of path) {
    if (typeof key === 'number') text += `[${key}]`;
    else text += text === '' ? String(key) : `.${String(key)}`;
  }
  return text === '' ? '' : `${text}: `;
}

/**
 * Where `path` stands in the file: its key if it has one, else the list item; for a key that is
 * missing, the nearest thing around it that exists.
 */
function offsetOf(document: Document, path: Path): number {
  let node: unknown = document.contents;
  let offset = startOf(node) ?? 0;
  for (const key of path) {
    if (isMap(node)) {
      const pair = node.items.find((p) => isNode(p.key) && String(p.key) === String(key));
      if (pair === undefined) return offset;
      offset = startOf(pair.key) ?? offset;
      node = pair.value;
    } else if (isSeq(node)) {
      node = node.items[key as number];
      offset = startOf(node) ?? offset;
    } else {
      return offset;
    }
  }
  return offset;
}

function startOf(node: unknown): number | undefined {
  return isNode(node) ? node.range?.[0] : undefined;
}
