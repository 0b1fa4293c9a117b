// The benchmark's report: tables, Markdown, charts, medians, ratios of like with like, its command line.
// Nothing is timed.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { alike, type Case, compare, median, placement } from '../../bench/case.ts';
import { checkLength } from '../../bench/circle.ts';
import { help, parse, UsageError } from '../../bench/options.ts';
import {
  chartSvg,
  escapeMarkdown,
  markdownTable,
  type Report,
  textTable,
  writeMarkdown,
} from '../../bench/report.ts';

const table = {
  caption: 'What | was found',
  head: ['frames', 'Mpps', 'rate : PMD'],
  rows: [
    ['64 B', '12.7', '1.14 (3)'],
    ['IMIX', '9', '- (0)'],
    ['of none', '-', ''],
  ],
};

test('the middle one', () => {
  assert.equal(median([3, 1, 2]), 2);
  assert.equal(median([4, 1, 2, 3]), 2.5);
  assert.equal(median([7]), 7);
  assert.ok(Number.isNaN(median([])));
});

test('a run has the distance of its CPUs, unless they moved or were wanted elsewhere', () => {
  assert.equal(placement({ line: [30, 40] }), 'near');
  assert.equal(placement({ line: [80, 100] }), 'between');
  assert.equal(placement({ line: [150, 170] }), 'far');
  assert.equal(placement({ line: [30, 165] }), 'mixed');
  assert.equal(placement({ line: [165, 30] }), 'mixed');
  assert.equal(placement({ line: [30, 40], waited: 0.02 }), 'near');
  assert.equal(placement({ line: [30, 40], waited: 0.5 }), 'crowded');
});

test('runs are alike by name, or across its edge by a quarter', () => {
  assert.ok(alike({ line: [20, 20] }, { line: [55, 55] }));
  assert.ok(alike({ line: [58, 58] }, { line: [63, 63] }));
  assert.ok(!alike({ line: [50, 50] }, { line: [100, 100] }));
  assert.ok(!alike({ line: [30, 165] }, { line: [30, 165] }));
  assert.ok(!alike({ line: [30, 30] }, { line: [30, 30], waited: 0.2 }));
});

test('ratios are made round by round, of like with like', () => {
  const run = (value: number, ns: number) => ({ value, line: [ns, ns] as const });
  const ours = [run(10, 30), run(12, 30), run(4, 165), run(5, 165), undefined];
  const theirs = [run(5, 30), run(4, 30), run(8, 30), run(2, 165), run(1, 30)];
  assert.deepEqual(
    compare(ours, theirs, (r) => r.value),
    { ratio: 2.5, pairs: 3 },
  );
  const nothing = compare(ours, theirs, () => undefined);
  assert.equal(nothing.pairs, 0);
  assert.ok(Number.isNaN(nothing.ratio));
});

test('a mix that lost frames is noticed', () => {
  checkLength(64, 64);
  checkLength('imix', 361.8);
  assert.throws(() => checkLength('imix', 375.1), /375.1 B on the average, not 361.8/);
  assert.throws(() => checkLength(64, Number.NaN), /not 64/);
});

test('a table of text: figures to the right, the rest to the left', () => {
  assert.deepEqual(textTable(table).split('\n'), [
    'What | was found',
    'frames   Mpps  rate : PMD',
    '-------------------------',
    '64 B     12.7    1.14 (3)',
    'IMIX        9       - (0)',
    'of none     -',
  ]);
});

test('Markdown shows text as it is', () => {
  assert.equal(
    escapeMarkdown('a|b *c* _d_ `e` <f> [g] \\'),
    'a\\|b \\*c\\* \\_d\\_ \\`e\\` \\<f\\> \\[g\\] \\\\',
  );
  assert.equal(escapeMarkdown('two\n  lines'), 'two lines');
  assert.deepEqual(markdownTable(table).split('\n'), [
    '**What \\| was found**',
    '',
    '| frames | Mpps | rate : PMD |',
    '| --- | ---: | ---: |',
    '| 64 B | 12.7 | 1.14 (3) |',
    '| IMIX | 9 | - (0) |',
    '| of none | - |  |',
  ]);
});

const chart = {
  title: 'Rate',
  unit: 'Mpps',
  bars: [
    { group: '64 B', name: 'vhop wire', value: 12.74 },
    { group: '64 B', name: 'testpmd vhost PMD', value: 11.25 },
    { group: 'IMIX', name: 'vhop wire', value: 123.4 },
    { group: 'IMIX', name: 'testpmd vhost PMD', value: Number.NaN },
  ],
};

test('a chart has title, unit, groups, names, and a label a bar', async () => {
  const svg = await chartSvg(chart);
  const texts = [...svg.matchAll(/<text[^>]*>([^<]+)<\/text>/g)].map(([, text]) => text);
  for (const text of [
    'Rate',
    'Mpps',
    '64 B',
    'IMIX',
    'vhop wire',
    'testpmd vhost PMD',
    '12.7',
    '11.3',
    '123',
  ]) {
    assert.ok(texts.includes(text), text);
  }
});

test('the document stands with its charts, and says what failed', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'vhop-report-'));
  try {
    const section = {
      title: 'A *case*',
      notes: ['Of note.'],
      tables: [table],
      charts: [chart],
      raw: 1,
    };
    const report: Report = {
      date: new Date('2026-11-21T12:00:00Z'),
      command: 'npm run bench',
      machine: [['kernel', 'Linux 6']],
      done: [
        { name: 'one', section: { ...section, commands: ['a | b'] }, line: ['54 ns', '55 ns'] },
      ],
      failed: [{ name: 'two', why: 'no qemu: run script/peers' }],
    };
    await writeMarkdown(report, join(folder, 'out.md'));
    assert.deepEqual(readdirSync(folder).sort(), ['out-one-1.svg', 'out.md']);
    const text = readFileSync(join(folder, 'out.md'), 'utf8');
    for (const part of [
      '2026-11-21',
      '| kernel | Linux 6 |',
      '| one | 54 ns | 55 ns |',
      'Not measured: two: no qemu: run script/peers',
      '## A \\*case\\*\n\nOf note.',
      '![Rate](out-one-1.svg)',
      '```text\na | b\n```',
    ]) {
      assert.ok(text.includes(part), part);
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

const cases = ['first', 'second'].map(
  (name): Case => ({
    name,
    about: `the ${name}`,
    needs: [],
    estimate: () => 1,
    run: () => Promise.reject(new Error('not run here')),
  }),
);
const read = (...args: string[]) => parse(args, cases, cases.slice(0, 1));

test('the command line: all there is to measure, unless less is asked for', () => {
  const full = read();
  assert.deepEqual(full.cases, cases.slice(0, 1));
  assert.deepEqual(full.sizes, [64, 128, 256, 512, 1024, 1518, 'imix']);
  assert.deepEqual(full.formats, ['split', 'packed']);
  assert.deepEqual(full.mergeable, [true, false]);
  const quick = read('--quick', '--sizes', 'imix,100', '--cases', 'second', '--mergeable', 'off');
  assert.deepEqual(quick.cases, cases.slice(1));
  assert.deepEqual(quick.sizes, ['imix', 100]);
  assert.deepEqual([quick.rounds, quick.seconds, quick.mergeable], [1, 1, [false]]);
  assert.match(help(cases, cases.slice(0, 1)), /\* first +the first\n {4}second/);
});

test('a wrong value gets a sentence with the right ones', () => {
  for (const [args, why] of [
    [['--cases', 'third'], /--cases third: choose from first, second$/],
    [['--sizes', '64,'], /--sizes : give a whole number from 64 to 1518 or imix$/],
    [['--sizes', '63'], /--sizes 63: give/],
    [['--formats', 'ring'], /--formats ring: choose from split, packed, in-order$/],
    [['--mergeable', 'yes'], /--mergeable yes: choose from on, off$/],
    [['--rings', '1000'], /--rings 1000: choose from 64, /],
    [['--rounds', '1.5'], /--rounds 1.5: give a whole number from 1/],
    [['--seconds', '0'], /--seconds 0: give a number from 0.1/],
    [['--against', '/nowhere'], /--against \/nowhere: no bin\/vhop there/],
    [['--markdown', '/nowhere/a.md'], /no folder \/nowhere$/],
    [['--markdown', '/dev/null/a.md'], /no folder \/dev\/null$/],
    [['--fast'], /--help lists the options/],
    [['more'], /--help lists the options/],
  ] as const) {
    assert.throws(
      () => read(...args),
      (error) => error instanceof UsageError && why.test(error.message),
      args.join(' '),
    );
  }
});
