// What a running switch can be told to do: to read its file again, and to leave its ports to another process.

import { isAbsolute } from 'node:path';
import type { CheckedPort } from '../config/check.ts';
import type { SwitchEvent } from '../control/events.ts';
import { ControlError } from '../control/path.ts';
import { Reloader, type ReloadRequest, reloadRequest, type Source } from '../control/reload.ts';
import type { Orders as OrderTable } from '../control/server.ts';
import { HANDOVER_FORMAT } from '../limits.ts';
import type { HandedOver, SwitchApi, SwitchInfo } from '../types.ts';

export interface OrdersOptions {
  api: SwitchApi;
  /** The file it is from, if any, and what is there of its ports. */
  source?: Source | undefined;
  ports: readonly CheckedPort[];
  /** Tells everybody. */
  announce: (event: SwitchEvent) => void;
  /** Ends the process in good order. */
  end: () => void;
}

export class Orders {
  readonly #options: OrdersOptions;
  readonly #reloader: Reloader | undefined;
  /** One order at a time. */
  #busy: Promise<unknown> = Promise.resolve();
  /** Set once the ports are another process's. */
  #handedOver: HandedOver | undefined;

  constructor(options: OrdersOptions) {
    this.#options = options;
    const { api, source, ports, announce } = options;
    this.#reloader =
      source &&
      new Reloader(api, source, ports, (value) => {
        announce({ event: 'reloaded', time: Date.now(), value });
      });
  }

  /** By path, for the control server. */
  get table(): OrderTable {
    return {
      '/reload': async (body) => this.#reload(reloadRequest(body)),
      '/leave': async (body) => this.#leave(leaveRequest(body)),
    };
  }

  /** What /info has to say of it. */
  get info(): Partial<SwitchInfo> {
    const file = this.#reloader?.file;
    return { handover: HANDOVER_FORMAT, ...(file && { file }) };
  }

  /** Reads the file again; what is wrong with it is announced. */
  reread(): void {
    this.#reload({}).catch((error: Error) => {
      for (const line of `${error.message}\nnothing was changed`.split('\n')) this.#notice(line);
    });
  }

  /** The switch is closed: who took its ports over may have what it did not. */
  closed(): void {
    this.#handedOver?.closed();
  }

  #notice(message: string): void {
    const value = { port: '', message };
    this.#options.announce({ event: 'notice', time: Date.now(), value });
  }

  #next<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#busy.then(() => {
      if (this.#handedOver === undefined) return work();
      throw new ControlError('another process has taken this switch over: ask that one');
    });
    this.#busy = done.catch(() => {});
    return done;
  }

  #reload(request: ReloadRequest) {
    const reloader = this.#reloader;
    if (reloader === undefined) {
      throw new ControlError(
        'this switch was not started from a file: only what vhop up started can be reloaded',
      );
    }
    return this.#next(() => reloader.reload(request));
  }

  #leave(to: string): Promise<object> {
    return this.#next(async () => {
      try {
        this.#handedOver = await this.#options.api.handOver(to);
      } catch (error) {
        throw new ControlError((error as Error).message);
      }
      const pause = this.#handedOver.pause.toFixed(1);
      this.#notice(
        `another process has its ports now, after a pause of ${pause} ms: this one ends`,
      );
      // After the answer.
      setImmediate(this.#options.end);
      return {};
    });
  }
}

/** The body of POST /leave: where to hand over to. Throws ControlError. */
function leaveRequest({ format, to }: Record<string, unknown>): string {
  if (format !== HANDOVER_FORMAT) {
    const given = String(format).slice(0, 20);
    throw new ControlError(`it hands over in format ${HANDOVER_FORMAT}, not ${given}`);
  }
  if (typeof to !== 'string' || !isAbsolute(to)) {
    throw new ControlError('to must be the absolute path of a socket');
  }
  return to;
}
