// One case: a world, and rounds over it. Each posts valid chains, changes fields, polls, and asks
// whether every head came back or the ring is latched, and whether anybody else noticed.

import type { Bench } from '../bench.ts';
import { Random } from '../random.ts';
import { ControlArea } from './control-area.ts';
import { Failure, Judge, type Outcome } from './judge.ts';
import { BYSTANDER } from './samples.ts';
import { shapeOf } from './shape.ts';
import { World } from './world.ts';

export const ROUNDS = 512;
/** Changes are numbered by round and within it. */
export const NUMBERS = 0x1_0000;
/** Polls that nothing should need: each takes a frame of every ring that has one. */
const POLLS = 4000;
/** Polls in which a few frames of one ring are taken. */
const FEW = 30;
/** Polls in vain after which there is nothing: each port may be passed over for what it owes (datapath/work.ts). */
const IDLE = 6;

export interface CaseSpec {
  /** The world's and the chains' seed; the changes have one of their own. */
  shape: number;
  seed: number;
}

export class Case {
  readonly spec: CaseSpec;
  readonly world: World;
  readonly judge: Judge;
  readonly #random: Random;
  readonly #control: ControlArea;
  /** Both rings were started just now, and nothing was changed since. */
  #clean = true;
  #round = 0;

  constructor(bench: Bench, spec: CaseSpec) {
    this.spec = spec;
    this.#random = new Random(spec.seed ^ 0xca5e);
    this.world = new World(bench, shapeOf(spec.shape), this.#random);
    this.judge = new Judge(this.world);
    this.#control = new ControlArea(this.world);
  }

  get round(): number {
    return this.#round;
  }

  /** Runs the rounds, until `seen` says so; throws Failure, or what the datapath throws. */
  run(seen: (outcome: Outcome, round: number) => boolean | undefined): void {
    for (this.#round = 0; this.#round < ROUNDS; this.#round++) {
      this.#play();
      if (seen(this.judge.outcome, this.#round)) return;
      if (this.#round % 16 === 15) this.#look();
    }
    this.#look();
    const { world } = this;
    const changed = this.#control.changed();
    if (changed >= 0) throw new Failure(`control area written at ${changed.toString(16)}`);
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
    if (random.once(16)) bench.rig.datapath.armAll();
    // Kicks, for rings that were armed here or because they were idle for long.
    bench.rig.datapath.activate(tx.queue.index);
    bench.rig.datapath.activate(peer.tx.index);
    this.judge.begin(foretold);
    this.#poll();
    this.#judge(sent);
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
    const { poll } = bench.rig.datapath;
    for (let polls = 0, idle = 0; idle < IDLE; polls++) {
      for (const ring of [tx.queue.index, peer.tx.index]) bench.hurry(ring);
      idle = poll() === 0 ? idle + 1 : 0;
      if (polls === POLLS) throw new Failure(`still moving frames after ${POLLS} polls`);
    }
  }

  #judge(sent: number): void {
    const { world, judge } = this;
    const { tx, rx, bench } = world;
    judge.judge(this.#round, sent, this.#clean);
    const [txBroken, rxBroken] = [judge.latched(tx), judge.latched(rx)];
    // Now and then what is left in them goes, too.
    const fresh = this.#round % 16 === 0;
    if (txBroken || fresh) tx.restart(world.txState);
    if (rxBroken || fresh) rx.restart();
    this.#clean = fresh;
    if (txBroken || rxBroken) bench.rig.publish();
    bench.rig.latched.length = 0;
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
    bench.hurry(from.tx.index);
    for (let polls = 0; polls < FEW && bench.rig.datapath.poll() === 0; polls++);
    for (let i = 0; i < frames; i++) {
      if (!to.receive()) throw new Failure(`frame ${i} between two others is lost`);
      if (!to.isSample(from, i)) throw new Failure(`frame ${i} between two others is damaged`);
    }
    to.repost();
    if (from.returned() !== frames) throw new Failure('a bystander did not get its buffers back');
    if (!shape.wire) this.#foreign();
  }

  /**
   * The broadcast went to the hostile guest and its peer as well: not part of the next round. It may have
   * been written over either of the guest's rings.
   */
  #foreign(): void {
    const { peer, tx, rx, txState, bench } = this.world;
    while (peer.receive());
    peer.repost();
    this.judge.forget();
    if (this.judge.latched(rx)) rx.restart();
    if (this.judge.latched(tx)) tx.restart(txState);
    bench.rig.publish();
  }

  #look(): void {
    const at = this.world.guest.breach();
    if (at !== 0) throw new Failure(`a page at ${at.toString(16)} that nobody shared was written`);
  }
}
