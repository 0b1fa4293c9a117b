// `--takeover`: a new process goes on with the ports of the switch that runs, whose guests stay connected.

import { rmSync } from 'node:fs';
import type { CheckedPort } from '../config/check.ts';
import { samePort } from '../config/difference.ts';
import { connectTo } from '../control/client.ts';
import { ControlError } from '../control/path.ts';
import { HANDOVER_FORMAT } from '../limits.ts';
import type { SwitchApi, SwitchInfo } from '../types.ts';

/** Beside `path`, for as long as the process there has it: nobody else's while this process lives. */
export function besides(path: string): string {
  return `${path}.${process.pid}`;
}

/** Throws ControlError where the running switch is of a version whose ports cannot be had. */
export function checkTakeover({ name, pid, version, handover }: SwitchInfo): void {
  if (handover === HANDOVER_FORMAT) return;
  throw new ControlError(
    `switch ${name} (pid ${pid}, version ${version}) hands its ports over in a way that this version does not ` +
      'know, so it goes on: end it and start this one, which its guests outlive',
  );
}

/**
 * `api` goes on with those of `ports` that the switch at `control` has just like that; the others are free
 * when this resolves. Rejects with ControlError when that switch goes on as it was.
 */
export async function takeOver(
  api: SwitchApi,
  control: string,
  running: SwitchInfo,
  ports: readonly CheckedPort[],
  state: string | undefined,
): Promise<void> {
  const at = besides(control);
  // Of a process of the same number that was killed.
  rmSync(at, { force: true });
  try {
    await api.takeOver({
      at,
      pid: running.pid,
      ask: () => connectTo(control).post('/leave', { format: HANDOVER_FORMAT, to: at }),
      wanted: (theirs) => {
        const port = ports.find(({ name }) => name === theirs.name);
        const same = port?.type === 'vhost-user' && samePort(port, theirs as CheckedPort);
        return same ? port : undefined;
      },
      state,
    });
  } catch (error) {
    throw new ControlError(
      `switch ${running.name} (pid ${running.pid}) goes on as it was: ${(error as Error).message}`,
    );
  }
}
