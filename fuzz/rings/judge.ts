// The oracle of a round: every head came back or the ring is latched, every chain became what was foretold,
// every frame is accounted for, and nobody was sent what nobody shared.

import { DROP_TX_BAD_HEADER, DROP_TX_PAGING } from '../../src/abi/drops.ts';
import {
  BROKEN_AVAIL_JUMP,
  BROKEN_CHAIN,
  BROKEN_HEAD,
  BROKEN_ID,
  RING_BROKEN,
  RING_REASON,
  RING_STATE,
  RINGF_IN_ORDER,
} from '../../src/abi/layout.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';
import type { HostileRing } from './hostile-ring.ts';
import { Ledger } from './ledger.ts';
import { Returned } from './returned.ts';
import { Verdict } from './verdict.ts';
import type { World } from './world.ts';

/** Drop reasons that the chain alone decides: the first of them, and that of pages. */
const JUDGED = [...Array(DROP_TX_BAD_HEADER + 1).keys(), DROP_TX_PAGING];
const REASONS = [BROKEN_AVAIL_JUMP, BROKEN_HEAD, BROKEN_CHAIN, BROKEN_ID];

/** What one round came to: for coverage, and for the corpus. */
export interface Outcome {
  packed: boolean;
  /** Bits by drop reason, of the hostile rings and of the peer's RX ring. */
  tx: number;
  rx: number;
  peer: number;
  /** Bits by BROKEN_*. */
  latched: number;
}

export class Failure extends Error {
  override name = 'Failure';
}

export class Judge {
  readonly outcome: Outcome;
  /** Taken off the hostile TX ring, in all rounds. */
  frames = 0;
  readonly #world: World;
  readonly #back: { tx: Returned; rx: Returned };
  readonly #ledgers: { tx: Ledger; rx: Ledger; peerTx: Ledger; peerRx: Ledger };
  readonly #verdict: Verdict;
  #foretold = false;

  constructor(world: World) {
    this.#world = world;
    const { tx, rx, peer, guest, shape, bench } = world;
    const { memory } = bench;
    this.#back = { tx: new Returned(memory, tx), rx: new Returned(memory, rx) };
    this.#ledgers = {
      tx: new Ledger(memory, tx.queue.index),
      rx: new Ledger(memory, rx.queue.index),
      peerTx: new Ledger(memory, peer.tx.index),
      peerRx: new Ledger(memory, peer.rx.index),
    };
    const { headerLength } = tx.queue.port;
    this.#verdict = new Verdict(memory, tx, guest, shape.features, headerLength);
    this.outcome = { packed: tx.packed, tx: 0, rx: 0, peer: 0, latched: 0 };
  }

  /** The device is about to look; `foretold`: nothing will be received meanwhile. */
  begin(foretold: boolean): void {
    this.#back.tx.begin();
    this.#back.rx.begin();
    if (foretold) this.#verdict.judge();
    this.#foretold = foretold && this.#verdict.sure;
  }

  /**
   * What came of round `round`, in which the peer sent `sent` frames; throws Failure. `clean`: both rings
   * were started anew, and nothing was changed in them.
   */
  judge(round: number, sent: number, clean: boolean): Outcome {
    const { tx, rx, shape, peer } = this.#world;
    const { outcome } = this;
    outcome.latched = 0;
    for (const ledger of Object.values(this.#ledgers)) ledger.look();
    const books = this.#ledgers;
    this.frames += books.tx.frames;
    const [txBroken, rxBroken] = [this.latched(tx), this.latched(rx)];
    const order = (tx.queue.flags & RINGF_IN_ORDER) !== 0;
    if (!txBroken) this.#returned('TX', this.#back.tx.check(true, order, shape.rings));
    if (!rxBroken) {
      this.#returned('RX', this.#back.rx.check(false, false, shape.rings));
      if (this.#back.rx.counted) this.#received();
    }
    const { counted, chains } = this.#back.tx;
    if (!txBroken && counted && chains !== books.tx.frames) {
      throw new Failure(`${chains} chains came back of ${books.tx.frames} frames taken`);
    }
    if (this.#foretold) this.#asForetold(txBroken);
    this.#account();
    if (peer.returned() !== sent) throw new Failure('a frame of the peer did not come back');
    this.#arrived(round % 8 === 0);
    if (clean && !shape.rings) this.#untouched(txBroken || rxBroken);
    outcome.tx = books.tx.reasons;
    outcome.rx = books.rx.reasons;
    outcome.peer = books.peerRx.reasons;
    return outcome;
  }

  /** What was counted since then is nobody's. */
  forget(): void {
    for (const ledger of Object.values(this.#ledgers)) ledger.look();
  }

  #returned(which: string, wrong: string | undefined): void {
    if (wrong !== undefined) throw new Failure(`${which} ring: ${wrong}`);
  }

  /** Whether a ring is; throws Failure when not for a reason of its guest's. */
  latched(ring: HostileRing): boolean {
    if (ring.field(RING_STATE) !== RING_BROKEN) return false;
    const reason = ring.field(RING_REASON);
    if (!REASONS.includes(reason)) throw new Failure(`latched for reason ${reason}`);
    this.outcome.latched |= 1 << reason;
    return true;
  }

  /** What the RX ring gave back against what was counted. */
  #received(): void {
    const { rx } = this.#ledgers;
    const { chains, written } = this.#back.rx;
    const { headerLength } = this.#world.bench.rig.ports[0]!;
    if (chains < rx.frames + rx.bad) {
      throw new Failure(`${rx.frames} frames and ${rx.bad} bad buffers in ${chains} chains`);
    }
    const bytes = rx.bytes + rx.frames * headerLength;
    if (written >>> 0 !== bytes >>> 0) {
      throw new Failure(`used entries say ${written} bytes, counted are ${bytes}`);
    }
  }

  /** Each chain became what it had to. */
  #asForetold(broken: boolean): void {
    const { shape } = this.#world;
    const { tx } = this.#ledgers;
    const { chains, drops, bytes } = this.#verdict;
    if (broken) throw new Failure('latched, and the ring is sound');
    if (chains !== tx.frames) throw new Failure(`${tx.frames} frames taken, ${chains} were posted`);
    if (shape.disabled) return;
    for (const reason of JUDGED) {
      const [is, must] = [tx.drops[reason], drops[reason]];
      if (is !== must) throw new Failure(`${DROP_NAMES[reason]}: ${is} times, foretold ${must}`);
    }
    if (shape.wire && !shape.alone && bytes !== tx.bytes) {
      throw new Failure(`${tx.bytes} bytes taken, ${bytes} foretold`);
    }
  }

  /** Every frame is delivered or counted under a name, and none twice. */
  #account(): void {
    const { wire, alone } = this.#world.shape;
    const { tx, rx, peerTx, peerRx } = this.#ledgers;
    const here = tx.frames - tx.dropped + peerRx.more;
    const there = peerTx.frames - peerTx.dropped + rx.more;
    const [atPeer, atHostile] = [peerRx.frames + peerRx.dropped, rx.frames + rx.dropped];
    if (wire && (here !== atPeer || there !== atHostile)) {
      throw new Failure(`sent ${here} and ${there}, accounted for ${atPeer} and ${atHostile}`);
    }
    if (wire && alone && (atPeer > 0 || atHostile > 0)) throw new Failure('frames without a wire');
    // On a switch they may go to several, or to bystanders.
    if (!wire && (atHostile > there || atPeer > here)) {
      throw new Failure(
        `more frames than were sent: ${atHostile} of ${there}, ${atPeer} of ${here}`,
      );
    }
  }

  #arrived(all: boolean): void {
    const { peer } = this.#world;
    let written = 0;
    while (peer.receive()) {
      written += peer.length;
      if (peer.leaks(all)) throw new Failure('the peer was sent what the guest never shared');
    }
    peer.repost();
    const { frames, bytes } = this.#ledgers.peerRx;
    if (!peer.saysLengths || this.#ledgers.peerRx.bad > 0) return;
    const counted = bytes + frames * peer.port.headerLength;
    if (written !== counted) throw new Failure(`the peer got ${written} bytes of ${counted}`);
  }

  /** A ring in which nothing was changed is neither latched nor refused. */
  #untouched(broken: boolean): void {
    if (broken) throw new Failure('latched, and nothing was changed');
    // The frames themselves may have been written over.
    const refused = this.#ledgers.tx.reasons & ((1 << DROP_TX_BAD_HEADER) - 1);
    if (refused !== 0 || this.#ledgers.rx.bad > 0) {
      throw new Failure(`refused (${refused}), and nothing was changed`);
    }
  }
}
