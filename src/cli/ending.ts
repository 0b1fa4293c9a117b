// How a running switch is told to end: Ctrl-C, kill, a terminal that goes away.

import { closeSync, openSync } from 'node:fs';
import type { Output } from './cli.ts';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

export interface Ending {
  /** Aborted by the first signal. */
  readonly signal: AbortSignal;
  /** Resolves with the first signal. */
  readonly ended: Promise<void>;
  /** As the first signal does. */
  end(): void;
  /** Runs, synchronously, before a second signal forces the end. */
  onForced(last: () => void): void;
  /** Gives the signals back to their default. */
  release(): void;
}

/** Milliseconds until a terminal that hangs up is gone for its processes: the signal may come first. */
const HANGUP = 50;

/** Whether the process has a terminal that it could read from. */
function hasTerminal(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r'));
    return true;
  } catch {
    return false;
  }
}

/**
 * Catches the signals that end a program. The first asks for a clean end; the second ends the
 * process at once, as the shell's 128 + the signal's number. With `reread`, a SIGHUP that does not come of a
 * terminal that went away runs that instead.
 */
export function catchSignals(err: Output, reread?: () => void): Ending {
  const controller = new AbortController();
  const ended = Promise.withResolvers<void>();
  let forced = () => {};
  const end = () => {
    controller.abort();
    ended.resolve();
  };
  const caught = (name: string, number: number) => {
    if (controller.signal.aborted) {
      forced();
      process.exit(128 + number);
    }
    // The terminal shows ^C at the cursor; what follows starts on its own line.
    if (name === 'SIGINT' && err.isTTY) err.write('\n');
    end();
  };
  const started = reread !== undefined && hasTerminal();
  const hungUp = (name: string, number: number) => {
    setTimeout(() => {
      if (started && !hasTerminal()) caught(name, number);
      else reread?.();
    }, HANGUP);
  };
  const handler = (name: string) => (name === 'SIGHUP' && reread ? hungUp : caught);
  for (const name of SIGNALS) process.on(name, handler(name));
  return {
    signal: controller.signal,
    ended: ended.promise,
    end,
    onForced: (last) => {
      forced = last;
    },
    release: () => {
      for (const name of SIGNALS) process.off(name, handler(name));
    },
  };
}
