// The life of a switch in the foreground: claim the control socket, open, add the ports, serve,
// tell what happens, and on Ctrl-C close everything in the opposite order.

import { rmSync } from 'node:fs';
import { flushCompileCache } from 'node:module';
import { dirname } from 'node:path';
import type { CheckedPort } from '../config/check.ts';
import { probe } from '../control/client.ts';
import { SWITCH_EVENTS, type SwitchEvent } from '../control/events.ts';
import { controlPath, makeRuntimeFolder, statePath } from '../control/path.ts';
import type { Source } from '../control/reload.ts';
import { type ControlServer, claimControlPath, serveControl } from '../control/server.ts';
import { StateInUse } from '../memory/state.ts';
import type { SwitchApi, SwitchInfo, SwitchOptions } from '../types.ts';
import { banner, eventLine } from './banner.ts';
import type { Cli } from './cli.ts';
import { catchSignals, type Ending } from './ending.ts';
import { LiveTable, runLive } from './live.ts';
import { Orders } from './orders.ts';
import { besides, checkTakeover, takeOver } from './takeover.ts';

/** Milliseconds after its start at which a switch has nothing more urgent to do. */
const COMPILED_AFTER = 500;

export interface RunOptions {
  switch: SwitchOptions;
  ports: readonly CheckedPort[];
  /** The file that all this is from: it can be reloaded. */
  source?: Source;
  /** --control: where the control socket goes, if not where its name says. */
  control?: string | undefined;
  /** --state: the file for what is to outlive the switch, or `none`. Default: by its name. */
  state?: string | undefined;
  /** Take the ports of the switch of that name over, should one run. */
  takeover?: boolean | undefined;
  /** Show the live table below the events. */
  live?: boolean | undefined;
  /** Print events as one JSON object a line, nothing else. */
  json?: boolean | undefined;
}

/**
 * Runs the switch until a signal ends it. Rejects when it cannot be opened, a port cannot be added,
 * or the control socket is taken; whatever was opened by then is closed.
 */
export async function runSwitch(cli: Cli, options: RunOptions): Promise<void> {
  const name = options.switch.name ?? 'default';
  const path = controlPath(name, options.control);
  const life: Life = { orders: undefined };
  const ending = catchSignals(cli.err, options.source && (() => life.orders?.reread()));
  try {
    const running = options.takeover ? await runningAt(path) : undefined;
    // Before anything is opened: a second start by mistake must not disturb the first switch.
    if (running) checkTakeover(running);
    else await claimControlPath(path);
    // All that takes time is done before the other one is asked.
    const api = await open(cli, options, name, running !== undefined);
    try {
      await serve(cli, options, api, path, ending, life, running);
    } finally {
      await api.close();
      life.orders?.closed();
    }
    if (ending.signal.aborted && cli.err.isTTY) cli.err.write('vhop: ended\n');
  } finally {
    ending.release();
  }
}

/** What is there once it serves. */
interface Life {
  orders: Orders | undefined;
}

async function runningAt(path: string): Promise<SwitchInfo | undefined> {
  const found = await probe(path);
  return found.state === 'switch' ? found.info : undefined;
}

/** The state file's path; undefined: none. */
function stateOf(options: RunOptions, name: string): string | undefined {
  const state = options.state ?? statePath(name);
  return state === 'none' ? undefined : state;
}

/** With its state where a killed switch of that name left its own, unless another one uses that. */
async function open(
  cli: Cli,
  options: RunOptions,
  name: string,
  takesOver: boolean,
): Promise<SwitchApi> {
  const state = stateOf(options, name);
  const plain = { ...options.switch, name };
  if (state === undefined) return cli.open(plain);
  if (options.state === undefined) makeRuntimeFolder(dirname(state));
  if (takesOver) {
    rmSync(besides(state), { force: true });
    return cli.open({ ...plain, state: besides(state) });
  }
  try {
    return await cli.open({ ...plain, state });
  } catch (error) {
    if (!(error instanceof StateInUse) || options.state !== undefined) throw error;
    cli.err.write(
      `vhop: ${error.message}: what this one knows is lost if it is killed; give it a --name of its own\n`,
    );
    return cli.open(plain);
  }
}

async function serve(
  cli: Cli,
  options: RunOptions,
  api: SwitchApi,
  path: string,
  ending: Ending,
  life: Life,
  running: SwitchInfo | undefined,
): Promise<void> {
  const table = new LiveTable(cli.out);
  // Listening before the first port is added: a guest that waits may connect at once. What is
  // heard before the banner follows it.
  const early: SwitchEvent[] = [];
  let tell: (event: SwitchEvent) => unknown = (event) => early.push(event);
  for (const event of SWITCH_EVENTS) {
    api.on(event, (value: unknown) => {
      tell({ event, time: Date.now(), value } as SwitchEvent);
    });
  }

  let control: ControlServer | undefined;
  ending.onForced(() => {
    table.end();
    control?.unlink();
    for (const { mode, path } of api.ports()) {
      if (mode === 'server' && path !== undefined) rmSync(path, { force: true });
    }
  });
  const name = options.switch.name ?? 'default';
  if (running) await takeOver(api, path, running, options.ports, stateOf(options, name));
  const present = new Set(api.ports().map((port) => port.name));
  const missing: string[] = [];
  for (const port of options.ports) {
    if (ending.signal.aborted) return;
    if (present.has(port.name)) continue;
    try {
      await api.addPort(port);
    } catch (error) {
      if (!running) throw error;
      // There are guests now, and nobody else to carry their frames.
      missing.push(port.name);
      cli.err.write(`vhop: port ${port.name} could not be added: ${(error as Error).message}\n`);
    }
  }
  const announce = (event: SwitchEvent) => {
    tell(event);
    control?.announce(event);
  };
  const orders = new Orders({
    api,
    source: options.source,
    ports: options.ports.filter((port) => !missing.includes(port.name)),
    announce,
    end: ending.end,
  });
  life.orders = orders;
  try {
    control = await serveControl(api, path, {
      info: () => orders.info,
      orders: orders.table,
    });
    if (options.json) {
      const started = { event: 'started', time: Date.now(), info: api.info(), ports: api.ports() };
      cli.out.write(`${JSON.stringify({ ...started, control: path })}\n`);
      tell = (event) => cli.out.write(`${JSON.stringify(event)}\n`);
    } else {
      cli.out.write(banner(cli.out, api.info(), api.ports(), path, options.control !== undefined));
      tell = (event) => {
        const line = eventLine(cli.out, event);
        if (line !== undefined) table.note(line);
      };
    }
    for (const event of early) tell(event);
    // Kept at the end otherwise (bin/vhop): one that is killed has none.
    setTimeout(flushCompileCache, COMPILED_AFTER).unref();

    if (options.live && !options.json) {
      const read = () => ({ ports: api.ports(), stats: api.stats(), uptime: api.info().uptime });
      await runLive(read, table, { signal: ending.signal });
    } else {
      await ending.ended;
    }
  } finally {
    // Ports going down because the switch ends are no news.
    tell = () => {};
    await control?.close();
  }
}
