// One case: a world, and rounds over it. Each posts valid chains, changes fields, polls, and asks
// whether every head came back or the ring is latched, and whether anybody else noticed.

import { DROP_TX_BAD_HEADER, DROP_TX_PAGING } from '../../src/abi/drops.ts';
import {
  BROKEN_AVAIL_JUMP,
  BROKEN_CHAIN,
  BROKEN_HEAD,
  RING_BROKEN,
  RING_EMPTY,
  RING_REASON,
  RING_STATE,
  RINGF_IN_ORDER,
} from '../../src/abi/layout.ts';
import { DROP_NAMES } from '../../src/observe/drops.ts';
import type { Bench } from '../bench.ts';
import type { HostileRing } from './hostile-ring.ts';
import { Ledger } from './ledger.ts';
import { Random } from './random.ts';
import { Returned } from './returned.ts';
import { BYSTANDER } from './samples.ts';
import { shapeOf } from './shape.ts';
import { Verdict } from './verdict.ts';
import { World } from './world.ts';

export const ROUNDS = 512;
/** Changes are numbered by round and within it. */
export const NUMBERS = 0x1_0000;
/** Polls that nothing should need: each takes a frame of every ring that has one. */
const POLLS = 1200;
/** Polls in vain after which a burst of any size is taken (datapath/forward.ts). */
const PATIENCE = 10;
/** Drop reasons that the chain alone decides: the first of them, and that of pages. */
const JUDGED = [...Array(DROP_TX_BAD_HEADER + 1).keys(), DROP_TX_PAGING];
const REASONS = [BROKEN_AVAIL_JUMP, BROKEN_HEAD, BROKEN_CHAIN];

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

export interface CaseSpec {
  /** The world's and the chains' seed; the changes have one of their own. */
  shape: number;
  seed: number;
}

export class Case {
  readonly spec: CaseSpec;
  readonly world: World;
  readonly #random: Random;
  readonly #back: { tx: Returned; rx: Returned };
  readonly #ledgers: { tx: Ledger; rx: Ledger; peerTx: Ledger; peerRx: Ledger };
  readonly #outcome: Outcome;
  /** Both rings were started just now, and nothing was changed since. */
  #clean = true;
  readonly #verdict: Verdict;
  #round = 0;
  /** Taken off the hostile TX ring. */
  frames = 0;

  constructor(bench: Bench, spec: CaseSpec) {
    this.spec = spec;
    this.#random = new Random(spec.seed ^ 0xca5e);
    this.world = new World(bench, shapeOf(spec.shape), this.#random);
    const { tx, rx, peer } = this.world;
    const { memory } = bench;
    this.#back = { tx: new Returned(memory, tx), rx: new Returned(memory, rx) };
    this.#ledgers = {
      tx: new Ledger(memory, tx.queue.index),
      rx: new Ledger(memory, rx.queue.index),
      peerTx: new Ledger(memory, peer.tx.index),
      peerRx: new Ledger(memory, peer.rx.index),
    };
    const { headerLength } = tx.queue.port;
    this.#verdict = new Verdict(
      memory,
      tx,
      this.world.guest,
      this.world.shape.features,
      headerLength,
    );
    this.#outcome = { packed: tx.packed, tx: 0, rx: 0, peer: 0, latched: 0 };
  }

  get round(): number {
    return this.#round;
  }

  /** Runs the rounds, until `seen` says so; throws Failure, or what the datapath throws. */
  run(seen: (outcome: Outcome, round: number) => boolean | undefined): void {
    for (this.#round = 0; this.#round < ROUNDS; this.#round++) {
      this.#play();
      if (seen(this.#outcome, this.#round)) return;
      if (this.#round % 16 === 15) this.#look();
    }
    this.#look();
    const { world } = this;
    for (const honest of [world.peer, ...world.bystanders]) {
      const damage = honest.damage();
      if (damage !== undefined) throw new Failure(`port ${honest.port.index}: ${damage}`);
    }
  }

  #play(): void {
    const { tx, rx, poster, mutator, peer, bench } = this.world;
    const random = this.#random;
    random.restart(this.spec.seed, this.#round);
    mutator.number = this.#round * NUMBERS;
    poster.begin();
    tx.begin();
    rx.begin();
    const frames = 1 + random.below(random.pick([4, 64, 200]));
    for (let i = 0; i < frames && poster.send(tx); i++);
    const buffers = 1 + random.below(random.once(8) ? 256 : 64);
    for (let i = 0; i < buffers && poster.receive(rx); i++);
    tx.publish();
    rx.publish();
    this.#change();
    // What is received may lie over what is sent: with nothing received, every chain is foretold.
    const foretold = random.once(4);
    let sent = foretold ? 0 : random.below(64);
    for (let i = 0; i < sent; i++) {
      if (!peer.send(random.below(this.world.peerSamples))) sent = i;
    }
    peer.publish();
    if (random.once(16)) {
      bench.rig.datapath.armAll();
    }
    // Kicks, for rings that were armed here or because they were idle for long.
    bench.rig.datapath.activate(tx.queue.index);
    bench.rig.datapath.activate(peer.tx.index);
    this.#back.tx.begin();
    this.#back.rx.begin();
    if (foretold) this.#verdict.judge();
    this.#poll();
    this.#judge(sent, foretold && this.#verdict.sure);
    if (this.#round % 4 === 3) this.#bystand();
    bench.rig.calls.length = 0;
  }

  #change(): void {
    const { tx, rx, poster, mutator } = this.world;
    const random = this.#random;
    const n = tx.direct.count + tx.inner.count;
    const changes = random.pick([0, 1, 2, 8, n >> 2, n, n * 2, n * 4, n * 6, n * 8]);
    for (let i = 0; i < changes; i++) {
      const ring = random.below(8) < 5 ? tx : rx;
      mutator.mutate(ring, poster.headers);
    }
    // A frame that was received may lie over what is sent.
    if (changes > 0) this.#clean = false;
  }

  #poll(): void {
    const { tx, peer, bench } = this.world;
    const { u32 } = bench.memory;
    const { poll } = bench.rig.datapath;
    const other = (tx.block + (peer.tx.index - tx.queue.index) * 512 + RING_EMPTY) >>> 2;
    // Twice: a ring that was just started, or kicked, waits for company at first.
    for (let polls = 0, idle = 0; idle < 2; polls++) {
      u32[(tx.block + RING_EMPTY) >>> 2] = PATIENCE;
      u32[other] = PATIENCE;
      idle = poll() === 0 ? idle + 1 : 0;
      if (polls === POLLS) throw new Failure(`still moving frames after ${POLLS} polls`);
    }
  }

  #latched(ring: HostileRing): boolean {
    if (ring.field(RING_STATE) !== RING_BROKEN) return false;
    const reason = ring.field(RING_REASON);
    if (!REASONS.includes(reason)) throw new Failure(`latched for reason ${reason}`);
    this.#outcome.latched |= 1 << reason;
    return true;
  }

  #judge(sent: number, foretold: boolean): void {
    const { world } = this;
    const { tx, rx, shape, peer, bench } = world;
    const outcome = this.#outcome;
    outcome.latched = 0;
    for (const ledger of Object.values(this.#ledgers)) ledger.look();
    const books = this.#ledgers;
    this.frames += books.tx.frames;
    const [txBroken, rxBroken] = [this.#latched(tx), this.#latched(rx)];
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
    if (foretold) this.#asForetold(txBroken);
    this.#account();
    if (peer.returned() !== sent) throw new Failure('a frame of the peer did not come back');
    this.#arrived();
    this.#untouched(txBroken || rxBroken);
    outcome.tx = books.tx.reasons;
    outcome.rx = books.rx.reasons;
    outcome.peer = books.peerRx.reasons;
    // Now and then what is left in them goes, too.
    const fresh = this.#round % 16 === 0;
    if (txBroken || fresh) tx.restart(world.txState);
    if (rxBroken || fresh) rx.restart();
    this.#clean = fresh;
    if (txBroken || rxBroken) bench.rig.publish();
    bench.rig.latched.length = 0;
  }

  #returned(which: string, wrong: string | undefined): void {
    if (wrong !== undefined) throw new Failure(`${which} ring: ${wrong}`);
  }

  /** What the RX ring gave back against what was counted. */
  #received(): void {
    const { rx } = this.#ledgers;
    const { chains, written } = this.#back.rx;
    const { headerLength } = this.world.bench.rig.ports[0]!;
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
    const { shape } = this.world;
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
    const { wire, alone } = this.world.shape;
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

  #arrived(): void {
    const { peer } = this.world;
    const all = this.#round % 8 === 0;
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
    if (!this.#clean || this.world.shape.rings) return;
    if (broken) throw new Failure('latched, and nothing was changed');
    // The frames themselves may have been written over.
    const refused = this.#ledgers.tx.reasons & ((1 << DROP_TX_BAD_HEADER) - 1);
    if (refused !== 0 || this.#ledgers.rx.bad > 0) {
      throw new Failure(`refused (${refused}), and nothing was changed`);
    }
  }

  /** Two others, in between: each frame arrives whole. */
  #bystand(): void {
    const { bystanders, bench, shape } = this.world;
    const [from, to] = bystanders;
    const frames = Math.min(4, BYSTANDER.length);
    // On a switch what was flooded before lies there still.
    for (const honest of bystanders) {
      while (honest.receive()) {
        if (honest.leaks(false)) throw new Failure('a bystander was sent what nobody shared');
      }
      honest.repost();
    }
    for (let i = 0; i < frames; i++) from.send(i);
    from.publish();
    bench.rig.datapath.activate(from.tx.index);
    bench.memory.u32[this.#emptyOf(from.tx.index)] = PATIENCE;
    for (let polls = 0; polls < 3 * PATIENCE && bench.rig.datapath.poll() === 0; polls++);
    for (let i = 0; i < frames; i++) {
      if (!to.receive()) throw new Failure(`frame ${i} between two others is lost`);
      if (!to.isSample(from, i)) throw new Failure(`frame ${i} between two others is damaged`);
    }
    to.repost();
    if (from.returned() !== frames) throw new Failure('a bystander did not get its buffers back');
    if (!shape.wire) this.#foreign();
  }

  #emptyOf(ring: number): number {
    const { tx } = this.world;
    return (tx.block + (ring - tx.queue.index) * 512 + RING_EMPTY) >>> 2;
  }

  /** The broadcast went to the hostile guest and its peer as well: not part of the next round. */
  #foreign(): void {
    const { peer, rx } = this.world;
    while (peer.receive());
    peer.repost();
    for (const ledger of Object.values(this.#ledgers)) ledger.look();
    if (this.#latched(rx)) {
      rx.restart();
      this.world.bench.rig.publish();
    }
  }

  #look(): void {
    const at = this.world.guest.breach();
    if (at !== 0) throw new Failure(`a page at ${at.toString(16)} that nobody shared was written`);
    const { u32 } = this.world.bench.memory;
    for (let i = 0; i < 1024; i++)
      if (u32[i] !== 0) throw new Failure(`word ${i} of page 0 written`);
  }
}
