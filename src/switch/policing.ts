// What a port may send, from options to the buckets that the workers empty (datapath/police.ts).

import {
  POLICE_BURST_BITS,
  POLICE_BURST_FRAMES,
  POLICE_FILLED,
  POLICE_RATE_BITS,
  POLICE_RATE_FRAMES,
  POLICE_TOKENS_BITS,
  POLICE_TOKENS_FRAMES,
  PORT_BASE,
  PORT_POLICED,
  PORT_STRIDE,
} from '../abi/layout.ts';
import type { Control } from '../memory/control.ts';
import type { Limits, Policing } from '../types.ts';

/** What is saved up where nobody says: so many seconds of the rate, and at least this. */
const SAVED = 0.1;
const LEAST: Required<Limits> = { frames: 64, bits: 65536 * 8 };

const RANGES = {
  frames: { most: 1e9, unit: 'frames' },
  bits: { most: 1e13, unit: 'bits' },
} as const;

/** What limits count. */
export const LIMIT_KINDS = ['frames', 'bits'] as const;

/** The first limit that cannot be, in one sentence, and the option it is in. */
export function policingProblem(
  policing: Policing,
): { key: 'rate' | 'burst'; message: string } | undefined {
  for (const kind of LIMIT_KINDS) {
    const { most, unit } = RANGES[kind];
    for (const key of ['rate', 'burst'] as const) {
      const value = policing[key]?.[kind];
      if (value === undefined || (value >= 1 && value <= most)) continue;
      const per = key === 'rate' ? ' a second' : '';
      return { key, message: `${kind} is ${value}; it must be 1 to ${most} ${unit}${per}` };
    }
    if (policing.burst?.[kind] !== undefined && policing.rate?.[kind] === undefined) {
      return {
        key: 'burst',
        message: `${kind} without a rate of ${kind} limits nothing; give that`,
      };
    }
  }
  return undefined;
}

/** Throws RangeError for limits that cannot be. */
export function checkPolicing(policing: Policing): void {
  const problem = policingProblem(policing);
  if (problem) throw new RangeError(`${problem.key}: ${problem.message}`);
}

/** With the bursts filled in; undefined when nothing is limited. */
export function effectivePolicing({ rate = {}, burst = {} }: Policing): Policing | undefined {
  const kinds = LIMIT_KINDS.filter((kind) => rate[kind] !== undefined);
  if (kinds.length === 0) return undefined;
  return {
    rate: { ...rate },
    burst: Object.fromEntries(
      kinds.map((kind) => [kind, burst[kind] ?? Math.max(rate[kind]! * SAVED, LEAST[kind])]),
    ),
  };
}

/** Publishes a port's limits, its buckets full; no worker may be policing it meanwhile. */
export function publishPolicing(
  control: Control,
  port: number,
  policing: Policing | undefined,
): void {
  const at = PORT_BASE + port * PORT_STRIDE;
  const { rate = {}, burst = {} } = policing ?? {};
  control.setFloat(at + POLICE_RATE_FRAMES, (rate.frames ?? 0) / 1e9);
  control.setFloat(at + POLICE_RATE_BITS, (rate.bits ?? 0) / 1e9);
  for (const [burstAt, tokensAt, value] of [
    [POLICE_BURST_FRAMES, POLICE_TOKENS_FRAMES, burst.frames],
    [POLICE_BURST_BITS, POLICE_TOKENS_BITS, burst.bits],
  ] as const) {
    control.setFloat(at + burstAt, value ?? Number.POSITIVE_INFINITY);
    control.setFloat(at + tokensAt, value ?? Number.POSITIVE_INFINITY);
  }
  control.setFloat(at + POLICE_FILLED, Number(process.hrtime.bigint()));
  control.set(at + PORT_POLICED, policing ? 1 : 0);
}
