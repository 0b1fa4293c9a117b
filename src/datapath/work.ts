// What a burst costs its worker, in one currency for all kinds of work: bytes copied. A round's work is
// bounded by it, and no port gets more of a worker than the others, whatever it makes the worker do.
//
// A burst ends early once what was found so far costs BURST_WORK. What it cost in the end, copies to
// every receiver included, is its port's debt; a port in debt is passed over until QUANTUM a round has
// paid it (deficit round robin, Shreedhar and Varghese 1995, with the burst first and the payment
// after). Where all that have work owe, the next round is that of the one who owes least.
//
// The prices are those of memory that is not in the cache. Whoever's is gets a discount: one burst in
// eight, nobody can tell which, is timed, and what a port pays follows that.

import { MAX_PORTS, SCRATCH_DEBTS } from '../abi/layout';
import { now } from './host';
import { scratch } from './layout';

/** What a port may cost each round. Twice this let a port of 8 pairs take a sixth of another one's share. */
const QUANTUM: u32 = 0x4000;
/** A burst is not made longer beyond this: four frames of 64 KiB. */
export const BURST_WORK: u32 = 0x4_0000;

/** Bytes copied in a nanosecond, where it is memory that limits. */
const SPEED: f64 = 8;
// The prices, at that speed.
export const FRAME_WORK: u32 = 128;
export const DESCRIPTOR_WORK: u32 = 96;
export const CALL_WORK: u32 = 0x1000;
export const PAGE_WORK: u32 = 0x1_0000;
const VAIN_WORK: u32 = 0x200;

/** How far a port's price may be from the list, and how fast it follows. */
const LEAST_FACTOR: f32 = 0.125;
const MOST_FACTOR: f32 = 4;
const FOLLOW: f32 = 0.125;

/** What the burst at hand has cost so far, at list price. */
export let spent: u32 = 0;
/** And all there was, polls in vain too: this worker's clock. It wraps. */
export let done: u32 = 0;
/** Milliseconds on the clock when it began; 0: it is not timed. */
let began: f64 = 0;
let dice: u32 = 1;
let round: u32 = 0;

export function startWork(): void {
  spent = 0;
  dice = dice * 1664525 + 1013904223;
  began = dice >> 29 == 0 ? now() : 0;
}

export function charge(by: u32): void {
  spent += by;
}

/** A poll that took nothing: nobody's debt. */
export function polledInVain(): void {
  done += VAIN_WORK;
}

export function nextRound(): void {
  round++;
}

/** Passes over the `rounds` in which nobody would be polled. */
export function skipRounds(rounds: u32): void {
  round += rounds;
}

// A port's debt: {bytes u32, round it was noted in u32, factor f32 of the list price (0: 1), unused u32}.
const DEBT: u32 = 16;

function debtAt(port: u32): u32 {
  return scratch + SCRATCH_DEBTS + port * DEBT;
}

export function forgetDebts(): void {
  memory.fill(scratch + SCRATCH_DEBTS, 0, MAX_PORTS * DEBT);
}

/** Rounds until the port has paid for earlier bursts, of whichever ring; 0: it may be polled. */
export function owes(port: u32): u32 {
  const at = debtAt(port);
  const debt = load<u32>(at);
  if (debt < QUANTUM / 2) return 0;
  const rounds = max(debt / QUANTUM, 1);
  const paid = round - load<u32>(at, 4);
  return paid < rounds ? rounds - paid : 0;
}

/** Books what the burst cost on its port. */
export function owe(port: u32): void {
  done += spent;
  const at = debtAt(port);
  const known = load<f32>(at, 8);
  let factor: f32 = known == 0 ? 1 : known;
  if (began != 0) {
    const real = <f32>(((now() - began) * 1e6 * SPEED) / <f64>spent);
    factor += (min<f32>(max<f32>(real, LEAST_FACTOR), MOST_FACTOR) - factor) * FOLLOW;
    store<f32>(at, factor, 8);
  }
  // Two rings of a port in one round: what the first left goes on.
  const left = load<u32>(at, 4) == round ? load<u32>(at) : 0;
  store<u32>(at, left + <u32>(<f32>spent * factor));
  store<u32>(at, round, 4);
}
