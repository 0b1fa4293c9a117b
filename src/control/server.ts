// The control socket of a running switch: plain HTTP over a Unix socket, so that curl works:
//
//   curl --unix-socket PATH http://vhop/ports
//
// GET /info /ports /rings /fdb /stats answer JSON; GET /events streams one JSON object a line for as
// long as the client listens; what is POSTed is an order (Orders). The socket is its user's alone (0600).

import { existsSync, lstatSync, unlinkSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { dirname } from 'node:path';
import { ConfigError } from '../config/error.ts';
import type { SwitchApi, SwitchInfo } from '../types.ts';
import { probe } from './client.ts';
import { SWITCH_EVENTS, type SwitchEvent } from './events.ts';
import { ControlError, makeRuntimeFolder, runtimeFolders } from './path.ts';

/** A reader of /events that is this many bytes behind is cut off rather than remembered. */
const EVENT_BACKLOG = 1 << 20;
/** Readers of /events at a time; one more is told to wait. */
const MAX_STREAMS = 16;
/** Connections at a time, streams included; one more and the oldest that is no stream is closed. */
const MAX_CONNECTIONS = 64;
/** Milliseconds a client has for its request, and to begin the next. */
const REQUEST_TIMEOUT = 2000;
/** A request is one line and a handful of headers. */
const MAX_HEADERS = 8192;
/** And what comes with an order: a path, at most. */
const MAX_BODY = 8192;

/**
 * What can be POSTed: by path, what to do with the body's JSON object and what to answer. A ControlError is
 * answered with 400, a ConfigError with 422.
 */
export type Orders = Record<string, (body: Record<string, unknown>) => Promise<unknown>>;

export interface Served {
  orders?: Orders;
  /** Goes to /info with what the switch says of itself. */
  info?: () => Partial<SwitchInfo>;
}

export interface ControlServer {
  readonly path: string;
  /** Ends every stream, stops listening, unlinks the socket. Can be called twice. */
  close(): Promise<void>;
  /** Tells the readers of /events what the switch itself does not know of. */
  announce(event: SwitchEvent): void;
  /** Unlinks the socket at once, for an exit that cannot wait. */
  unlink(): void;
}

/**
 * Makes sure nothing lives at `path`: a socket nobody answers on is unlinked. Throws ControlError
 * if a switch answers, or if something other than a socket is there. Makes the runtime folder
 * if `path` is in it; any other folder must exist.
 */
export async function claimControlPath(path: string): Promise<void> {
  const folder = dirname(path);
  if (runtimeFolders().includes(folder)) makeRuntimeFolder(folder);
  // bind(2) would say ENOENT, which libuv turns into EACCES.
  if (!existsSync(folder)) {
    throw new ControlError(
      `the folder '${folder}' does not exist: make it with: mkdir -p ${folder}`,
    );
  }
  const before = lstatSync(path, { throwIfNoEntry: false });
  if (before === undefined) return;
  if (!before.isSocket()) {
    throw new ControlError(`'${path}' is there and is not a socket: give another with --control`);
  }
  const found = await probe(path);
  if (found.state === 'switch') {
    throw new ControlError(
      `a switch named ${found.info.name} already runs (pid ${found.info.pid}): use --name for another`,
    );
  }
  if (found.state === 'other') {
    throw new ControlError(`another program listens on '${path}': give another with --control`);
  }
  // Only what was probed is removed: a switch that started meanwhile keeps its socket.
  const now = lstatSync(path, { throwIfNoEntry: false });
  if (now !== undefined && now.ino === before.ino) unlinkSync(path);
}

/** Claims `path` and serves `api` on it. Throws ControlError as `claimControlPath` does. */
export async function serveControl(
  api: SwitchApi,
  path: string,
  served: Served = {},
): Promise<ControlServer> {
  await claimControlPath(path);
  const streams = new Set<ServerResponse>();
  const announce = (line: SwitchEvent) => {
    for (const stream of streams) {
      stream.write(`${JSON.stringify(line)}\n`);
      if (stream.writableLength > EVENT_BACKLOG) stream.destroy();
    }
  };
  for (const event of SWITCH_EVENTS) {
    api.on(event, (value: unknown) => {
      announce({ event, time: Date.now(), value } as SwitchEvent);
    });
  }
  const server = createServer(
    {
      maxHeaderSize: MAX_HEADERS,
      headersTimeout: REQUEST_TIMEOUT,
      requestTimeout: REQUEST_TIMEOUT,
      keepAliveTimeout: REQUEST_TIMEOUT,
      connectionsCheckingInterval: REQUEST_TIMEOUT / 4,
    },
    (request, response) => answer(api, served, streams, request, response),
  );
  limitConnections(server, streams);
  await listen(server, path);

  let open = true;
  const unlink = () => {
    // libuv unlinks on close; this is for the exit that does not get there.
    if (open) unlinkSync(path);
    open = false;
  };
  return {
    path,
    announce,
    unlink,
    close: () =>
      new Promise<void>((done) => {
        if (!open) {
          done();
          return;
        }
        open = false;
        for (const stream of streams) stream.end();
        server.close(() => done());
        server.closeAllConnections();
      }),
  };
}

/** A client that asks is never kept out by those that only hold a connection. */
function limitConnections(server: Server, streams: ReadonlySet<ServerResponse>): void {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    if (open.size <= MAX_CONNECTIONS) return;
    const busy = new Set([...streams].map((stream) => stream.socket));
    for (const oldest of open) {
      if (busy.has(oldest)) continue;
      open.delete(oldest);
      oldest.destroy();
      return;
    }
  });
}

function listen(server: Server, path: string): Promise<void> {
  return new Promise((done, failed) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      const why = error.code === 'EADDRINUSE' ? 'another switch took it just now' : error.code;
      failed(new ControlError(`cannot listen on '${path}': ${why}: give another with --control`));
    });
    // bind(2) happens within listen(), so the socket is never open to others, not even briefly.
    const mask = process.umask(0o177);
    try {
      server.listen(path, done);
    } finally {
      process.umask(mask);
    }
  });
}

function answer(
  api: SwitchApi,
  { orders = {}, info }: Served,
  streams: Set<ServerResponse>,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const resources: Record<string, () => unknown> = {
    '/info': () => ({ ...api.info(), ...info?.() }),
    '/ports': () => api.ports(),
    '/rings': () => api.rings(),
    '/fdb': () => api.fdb(),
    '/stats': () => api.stats(),
  };
  const path = (request.url ?? '/').split('?')[0]!;
  const order = Object.hasOwn(orders, path) ? orders[path] : undefined;
  const allowed = order === undefined ? 'GET' : 'POST';
  if (request.method !== allowed) {
    response.setHeader('allow', allowed);
    // Whatever body comes with it is not waited for.
    response.shouldKeepAlive = false;
    reply(response, 405, { error: `${request.method} is not supported: use ${allowed}` });
    return;
  }
  if (order !== undefined) {
    void carryOut(order, request, response);
    return;
  }
  if (path === '/events') {
    if (streams.size >= MAX_STREAMS) {
      reply(response, 503, { error: `${MAX_STREAMS} programs read /events already: end one` });
      return;
    }
    response.writeHead(200, { 'content-type': 'application/x-ndjson' });
    response.flushHeaders();
    streams.add(response);
    response.on('close', () => streams.delete(response));
    response.on('error', () => streams.delete(response));
    return;
  }
  const resource = Object.hasOwn(resources, path) ? resources[path] : undefined;
  if (resource === undefined) {
    const paths = [...Object.keys(resources), '/events', ...Object.keys(orders)];
    reply(response, 404, { error: `no such path: ${path}`, paths });
    return;
  }
  try {
    reply(response, 200, resource());
  } catch (error) {
    reply(response, 500, { error: (error as Error).message });
  }
}

async function carryOut(
  order: Orders[string],
  request: IncomingMessage,
  response: ServerResponse,
): Promise<void> {
  try {
    reply(response, 200, await order(await bodyOf(request)));
  } catch (error) {
    const status = error instanceof ControlError ? 400 : error instanceof ConfigError ? 422 : 500;
    // What is left of the body is not waited for.
    response.shouldKeepAlive = false;
    reply(response, status, { error: (error as Error).message });
  }
}

/** The JSON object in the body, an empty one for none. Rejects with ControlError for anything else. */
function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  return new Promise((done, failed) => {
    const refuse = () =>
      failed(new ControlError(`the body is not a JSON object of at most ${MAX_BODY} bytes`));
    const parts: Buffer[] = [];
    let bytes = 0;
    request.on('data', (part: Buffer) => {
      bytes += part.length;
      if (bytes <= MAX_BODY) parts.push(part);
      else refuse();
    });
    request.on('error', failed);
    request.on('end', () => {
      try {
        const value: unknown = bytes === 0 ? {} : JSON.parse(Buffer.concat(parts).toString());
        const isObject = typeof value === 'object' && value !== null && !Array.isArray(value);
        if (isObject) done(value as Record<string, unknown>);
        else refuse();
      } catch {
        refuse();
      }
    });
  });
}

function reply(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json' });
  response.end(`${JSON.stringify(value)}\n`);
}
