// The benchmark: vhop and its peers in turn, in the same minutes, with the same generator.
// Run: npm run bench -- [--cases circle,iperf,offload,paging,neighbours,flood] [--sizes 64,1518]
//   [--rings 1024]
//   [--formats split,packed,in-order] [--rounds 3] [--seconds 3] [--json]
//
// Quote the medians of ratios: absolute figures drift with the machine. The line latency (how long a
// cache line travels between the two CPUs) stands beside each run; compare near with near.

import { readFileSync } from 'node:fs';
import { cpus, release } from 'node:os';
import { parseArgs } from 'node:util';
import { VERSION } from '../src/version.ts';
import { requirePeers } from '../test/peers/process.ts';
import { type CircleCase, type CircleResult, circle, FORMATS } from './circle.ts';
import { type Contender, vhop, vhostPmd } from './contenders.ts';
import { type IperfResult, overBridge, overContender, overStream } from './guests.ts';
import { FLOODS, floods } from './hostile-socket.ts';
import { NEIGHBOURS, neighbour } from './neighbours.ts';
import { cutRounds, RECEIVERS, sumRounds } from './offload.ts';
import { type PagingResult, paging, WAY_NAMES } from './paging.ts';

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: 'circle,iperf' },
    sizes: { type: 'string', default: '64,1518' },
    rings: { type: 'string', default: '1024' },
    formats: { type: 'string', default: 'split' },
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '3' },
    json: { type: 'boolean', default: false },
  },
});
const rounds = Number(values.rounds);
const seconds = Number(values.seconds);
const cases = values.cases.split(',');
const results: unknown[] = [];

function say(line: string): void {
  if (!values.json) console.log(line);
}

function median(numbers: readonly number[]): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

const show = (n: number | undefined, digits = 1): string => n?.toFixed(digits) ?? '-';

/** Takes every contender in turn, `rounds` times. */
async function inTurn<C, R>(contenders: readonly C[], run: (c: C) => Promise<R>): Promise<R[][]> {
  const all: R[][] = contenders.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, contender] of contenders.entries()) all[i]!.push(await run(contender));
  }
  return all;
}

async function circles(): Promise<void> {
  // The reference is the last one; ratios are against it, round by round.
  const contenders: Contender[] = [vhop('wire'), vhop('switch'), vhostPmd()];
  const huge = freeHugePages() >= 512;
  const formats = FORMATS.filter((format) => values.formats.split(',').includes(format));
  for (const ring of values.rings.split(',').map(Number)) {
    for (const format of formats) {
      for (const size of values.sizes.split(',').map(Number)) {
        const pages = huge ? 'huge' : 'none';
        await oneCircle(contenders, { size, ring, format, mergeable: true, seconds, pages });
      }
    }
  }
}

async function oneCircle(contenders: readonly Contender[], what: CircleCase): Promise<void> {
  const { size, ring, format, pages } = what;
  const kib = pages === 'huge' ? 2048 : 4;
  say(
    `\n${size} B frames, rings of ${ring}, ${format}, mergeable, ${kib} KiB pages, Mpps both ways`,
  );
  const all = await inTurn(contenders, (contender) => circle(contender, what));
  const reference = all.at(-1)!;
  for (const [i, contender] of contenders.entries()) {
    const runs = all[i]!;
    const rate = median(runs.map((r, k) => r.mpps / reference[k]!.mpps));
    const cost = median(runs.map((r, k) => (reference[k]!.cost ?? 0) / (r.cost ?? Number.NaN)));
    say(
      `  ${contender.name.padEnd(20)} ${show(median(runs.map((r) => r.mpps)), 2)} Mpps ` +
        `(${rate.toFixed(2)}x), ${show(median(runs.map((r) => r.cost ?? Number.NaN)))} ns/frame ` +
        `(${cost.toFixed(2)}x cheaper)   ${lines(runs)}`,
    );
  }
  results.push({ case: 'circle', size, ring, format, runs: all });
}

function lines(runs: readonly CircleResult[]): string {
  return `line ${runs.map((r) => r.line.map((ns) => ns.toFixed(0)).join('>')).join(' ')} ns`;
}

async function guests(): Promise<void> {
  say('\niperf3 TCP between two TCG guests, one vCPU each, Mbit/s');
  const ways: [name: string, run: () => Promise<IperfResult>][] = [
    ['vhop switch', () => overContender(vhop('switch'), seconds)],
    ['vhost PMD tso=1', () => overContender(vhostPmd({ tso: true }), seconds)],
    ['QEMU netdev stream', () => overStream(seconds)],
    ['TAP + bridge', () => overBridge(seconds)],
  ];
  const all = await inTurn(ways, ([, run]) => run());
  const reference = all.at(-1)!;
  for (const [i, [name]] of ways.entries()) {
    const runs = all[i]!;
    const ratio = median(runs.map((r, k) => r.mbps / reference[k]!.mbps));
    const each = runs.map((r) => r.mbps.toFixed(0)).join(' ');
    say(`  ${name.padEnd(20)} ${each}   ${ratio.toFixed(2)}x the bridge`);
  }
  results.push({ case: 'iperf', runs: all });
}

async function offloads(): Promise<void> {
  // Short ones: many rounds.
  const sums = await sumRounds(rounds * 30);
  say('\n1500 B copied, and copied and summed, ns');
  for (const place of new Set(sums.map((r) => r.place))) {
    const runs = sums.filter((r) => r.place === place);
    const ratio = median(runs.map((r) => r.sum / r.copy));
    const [alone, summed] = [median(runs.map((r) => r.copy)), median(runs.map((r) => r.sum))];
    say(`  ${place.padEnd(10)} ${show(alone)} ${show(summed)}   ${ratio.toFixed(2)}x`);
  }
  const cuts = cutRounds(rounds * 10);
  say('\n64 KiB TSO frames to a receiver, Gbit/s of payload, against the first');
  for (const [i, { name }] of RECEIVERS.entries()) {
    const ratio = median(cuts[i]!.map((gbps, k) => gbps / cuts[0]![k]!));
    say(`  ${name.padEnd(32)} ${show(median(cuts[i]!))}   ${ratio.toFixed(2)}x`);
  }
  results.push({ case: 'offload', sums, cuts });
}

/** The innocent port offers so much of what a worker can carry: less than half, its share of two. */
const LOAD = 0.4;

async function neighbours(): Promise<void> {
  const names = Object.keys(NEIGHBOURS);
  for (const size of values.sizes.split(',').map(Number)) {
    say(
      `\n${size} B frames at ${LOAD * 100} % of a worker's capacity beside one other port, in process`,
    );
    const all = await inTurn(names, async (name) => neighbour(name, size, LOAD, seconds * 50));
    for (const [i, runs] of all.entries()) {
      const got = median(runs.map((r) => r.got)) * 100;
      const [usual, longest] = [runs.map((r) => r.usual), runs.map((r) => r.longest)].map(median);
      say(
        `  ${names[i]!.padEnd(34)} ${show(got).padStart(5)} % arrives, ` +
          `a turn every ${show(usual)} us (p99), ${show(longest)} us at most`,
      );
    }
    results.push({ case: 'neighbours', size, load: LOAD, runs: all });
  }
}

async function pages(): Promise<void> {
  for (const size of values.sizes.split(',').map(Number)) {
    say(`\n${size} B frames between two guests in process, one thread`);
    const run = async (which: number): Promise<PagingResult> => paging(which, size, seconds);
    const all = await inTurn([...WAY_NAMES.keys()], run);
    for (const [i, runs] of all.entries()) {
      const ratio = median(runs.map((r, k) => r.ns / all[0]![k]!.ns));
      const middle = (field: (r: PagingResult) => number, digits = 1) =>
        show(median(runs.map(field)), digits);
      say(
        `  ${WAY_NAMES[i]!.padEnd(34)} ${middle((r) => r.ns)} ns/frame (${ratio.toFixed(2)}x), ` +
          `${middle((r) => r.pagesIn / r.frames, 3)} pages a frame, ` +
          `${middle((r) => r.nsPerPage, 0)} ns each, ${middle((r) => r.lost, 0)} lost`,
      );
    }
    results.push({ case: 'paging', size, runs: all });
  }
}

async function flooded(idle: number): Promise<void> {
  say(
    `\nA front end that never rests, beside two guests in process and ${idle} idle ports: ` +
      'their frames against its rest',
  );
  const all = await floods(FLOODS, rounds * 10, idle);
  for (const { kind, rates, efficiency, main, flooder, quiesced, latency } of all) {
    const [request, query] = [latency.request, latency.query].map((ms) =>
      ms.map((each) => each.toFixed(1)).join(' / '),
    );
    say(
      `  ${kind.padEnd(10)} rate ${median(rates).toFixed(3)}x, by CPU time of their own ` +
        `${median(efficiency).toFixed(3)}x; CPU of main ${(main * 100).toFixed(1)} %, of the flooder ` +
        `${(flooder * 100).toFixed(1)} %; ${quiesced.toFixed(0)} quiesces a second; ` +
        `another port's request ${request} ms (median / worst), vhop ports ${query} ms`,
    );
  }
  results.push({ case: 'flood', idle, runs: all });
}

function freeHugePages(): number {
  return Number(/HugePages_Free:\s+(\d+)/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? 0);
}

const machine = `${cpus().length} x ${cpus()[0]?.model}, Linux ${release()}, Node ${process.version}`;
say(`vhop ${VERSION} on ${machine}; ${rounds} rounds of ${seconds} s, taken in turn`);
if (cases.includes('circle') || cases.includes('iperf')) {
  requirePeers(
    {
      skip: (why: string) => {
        throw new Error(why);
      },
    },
    ['qemu', 'testpmd'],
  );
}
if (cases.includes('circle')) await circles();
if (cases.includes('iperf')) await guests();
if (cases.includes('offload')) await offloads();
if (cases.includes('paging')) await pages();
if (cases.includes('neighbours')) await neighbours();
if (cases.includes('flood')) for (const idle of [0, 64]) await flooded(idle);
if (values.json) console.log(JSON.stringify({ version: VERSION, machine, results }, null, 2));
