// The life of a switch in the foreground: claim the control socket, open, add the ports, serve,
// tell what happens, and on Ctrl-C close everything in the opposite order.

import { rmSync } from 'node:fs';
import { dirname } from 'node:path';
import type { CheckedPort } from '../config/check.ts';
import { SWITCH_EVENTS, type SwitchEvent } from '../control/events.ts';
import { ControlError, controlPath, makeRuntimeFolder, statePath } from '../control/path.ts';
import { type Reloaded, Reloader, reloadRequest, type Source } from '../control/reload.ts';
import { type ControlServer, claimControlPath, serveControl } from '../control/server.ts';
import { StateInUse } from '../memory/state.ts';
import type { SwitchApi, SwitchOptions } from '../types.ts';
import { banner, eventLine } from './banner.ts';
import type { Cli } from './cli.ts';
import { catchSignals, type Ending } from './ending.ts';
import { LiveTable, runLive } from './live.ts';

export interface RunOptions {
  switch: SwitchOptions;
  ports: readonly CheckedPort[];
  /** The file that all this is from: it can be reloaded. */
  source?: Source;
  /** --control: where the control socket goes, if not where its name says. */
  control?: string | undefined;
  /** --state: the file for what is to outlive the switch, or `none`. Default: by its name. */
  state?: string | undefined;
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
  // As soon as there is something to reload.
  let reread = () => {};
  const ending = catchSignals(cli.err, options.source && (() => reread()));
  try {
    // Before anything is opened: a second start by mistake must not disturb the first switch.
    await claimControlPath(path);
    const api = await open(cli, options, name);
    try {
      await serve(cli, options, api, path, ending, (reload) => {
        reread = reload;
      });
    } finally {
      await api.close();
    }
    if (ending.signal.aborted && cli.err.isTTY) cli.err.write('vhop: ended\n');
  } finally {
    ending.release();
  }
}

/** With its state where a killed switch of that name left its own, unless another one uses that. */
async function open(cli: Cli, options: RunOptions, name: string): Promise<SwitchApi> {
  const state = options.state ?? statePath(name);
  const plain = { ...options.switch, name };
  if (state === undefined || state === 'none') return cli.open(plain);
  if (options.state === undefined) makeRuntimeFolder(dirname(state));
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
  onHangup: (reload: () => void) => void,
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
  for (const port of options.ports) {
    if (ending.signal.aborted) return;
    await api.addPort(port);
  }
  const announce = (event: SwitchEvent) => {
    tell(event);
    control?.announce(event);
  };
  const reloader =
    options.source &&
    new Reloader(api, options.source, options.ports, (value) => {
      announce({ event: 'reloaded', time: Date.now(), value });
    });
  onHangup(() => {
    reloader?.reload().catch((error: Error) => {
      for (const message of `${error.message}\nnothing was changed`.split('\n')) {
        announce({ event: 'notice', time: Date.now(), value: { port: '', message } });
      }
    });
  });
  try {
    control = await serveControl(api, path, {
      info: () => (reloader ? { file: reloader.file } : {}),
      orders: { '/reload': (body) => reload(reloader, body) },
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

async function reload(
  reloader: Reloader | undefined,
  body: Record<string, unknown>,
): Promise<Reloaded> {
  if (reloader === undefined) {
    throw new ControlError(
      'this switch was not started from a file: only what vhop up started can be reloaded',
    );
  }
  return reloader.reload(reloadRequest(body));
}
