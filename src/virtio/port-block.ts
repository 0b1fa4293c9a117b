// A port's block in the control area: what the workers know of the port (abi/layout.ts).

import {
  PORT_BASE,
  PORT_DOWN,
  PORT_FEATURES,
  PORT_HDR_LEN,
  PORT_MTU,
  PORT_RINGS,
  PORT_RX_LIST,
  PORT_RX_PAIRS,
  PORT_STATE,
  PORT_STRIDE,
  PORT_UP,
} from '../abi/layout.ts';
import type { Control } from '../memory/control.ts';
import { headerLength } from './features.ts';

export class PortBlock {
  readonly #control: Control;
  readonly #at: number;

  constructor(control: Control, port: number, rings: number) {
    this.#control = control;
    this.#at = PORT_BASE + port * PORT_STRIDE;
    control.set(this.#at + PORT_RINGS, rings);
  }

  setFeatures(features: bigint): void {
    this.#control.set64(this.#at + PORT_FEATURES, features);
    this.#control.set(this.#at + PORT_HDR_LEN, headerLength(features));
  }

  /** Bytes of payload; undefined: not limited. */
  setMtu(mtu: number | undefined): void {
    this.#control.set(this.#at + PORT_MTU, mtu ?? 0);
  }

  setUp(up: boolean): void {
    this.#control.set(this.#at + PORT_STATE, up ? PORT_UP : PORT_DOWN);
  }

  /**
   * Sets which queue pairs take frames. A burst walks one list to its end: it may neither lose a frame
   * nor send it twice. So the new list is written when `quiesce` has seen every worker out of the old.
   */
  setReceivers(pairs: readonly number[], quiesce: () => void): void {
    const list = this.#at + PORT_RX_LIST;
    const count = this.#control.get(this.#at + PORT_RX_PAIRS);
    const same = count === pairs.length;
    if (same && pairs.every((pair, i) => this.#control.bytes[list + i] === pair)) return;
    this.#control.set(this.#at + PORT_RX_PAIRS, 0);
    quiesce();
    for (const [i, pair] of pairs.entries()) this.#control.bytes[list + i] = pair;
    this.#control.set(this.#at + PORT_RX_PAIRS, pairs.length);
  }
}
