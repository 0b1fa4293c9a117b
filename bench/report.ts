// What was found, for people: tables for a terminal, and a Markdown document with charts (SVG) beside it.

import { writeFileSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { parse, View } from 'vega';
import { compile, type TopLevelSpec } from 'vega-lite';
import type { Chart, Section, Table } from './case.ts';

export interface Done {
  /** The case's name. */
  name: string;
  section: Section;
  /** Line latency before and after it, as words. */
  line: [string, string];
}

export interface Report {
  date: Date;
  /** What was typed. */
  command: string;
  /** Name and value. */
  machine: [string, string][];
  done: Done[];
  /** Cases that were asked for and gave nothing: why, and the cure. */
  failed: { name: string; why: string }[];
}

/** A number, a pair of them, a ratio with its rounds in brackets; or nothing. */
const NUMERIC = /^(-|[\d.,]+( ?\/ ?[\d.]+)*( \(\d+\))?|- \(0\)|)$/;

/** Which columns read better aligned to the right. */
function rightAligned({ head, rows }: Table): boolean[] {
  return head.map((_, column) => rows.every((row) => NUMERIC.test(row[column] ?? '')));
}

/** A table of plain text, its caption first. */
export function textTable(table: Table): string {
  const right = rightAligned(table);
  const all = [table.head, ...table.rows];
  const widths = table.head.map((_, i) => Math.max(...all.map((row) => (row[i] ?? '').length)));
  const lines = all.map((row) =>
    widths
      .map((width, i) => (right[i] ? (row[i] ?? '').padStart(width) : (row[i] ?? '').padEnd(width)))
      .join('  ')
      .trimEnd(),
  );
  const rule = '-'.repeat(Math.max(...lines.map((line) => line.length)));
  return [table.caption, lines[0]!, rule, ...lines.slice(1)].join('\n');
}

/** Text that Markdown shows as it is, in a table too. */
export function escapeMarkdown(text: string): string {
  return text.replace(/[\\`*_[\]<>|]/g, '\\$&').replace(/\s*\n\s*/g, ' ');
}

export function markdownTable(table: Table): string {
  const row = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const right = rightAligned(table);
  return [
    `**${escapeMarkdown(table.caption)}**`,
    '',
    row(table.head.map(escapeMarkdown)),
    row(right.map((each) => (each ? '---:' : '---'))),
    ...table.rows.map((cells) => row(cells.map(escapeMarkdown))),
  ].join('\n');
}

/** The document; `file` names the SVG of a case's chart. */
export function markdown(report: Report, file: (name: string, chart: number) => string): string {
  const { date, command, machine, done, failed } = report;
  const fence = (lines: readonly string[]): string => `\`\`\`text\n${lines.join('\n')}\n\`\`\``;
  const lines: Table = {
    caption: 'Time of a cache line from one CPU to the other',
    head: ['case', 'before', 'after'],
    rows: done.map(({ name, line }) => [name, ...line]),
  };
  return [
    '# vhop, measured',
    `${date.toISOString().slice(0, 10)}. Figures drift with the machine; ratios of contenders taken in turn ` +
      'are what counts.',
    fence([command]),
    markdownTable({ caption: 'Measured on', head: ['', ''], rows: machine }),
    ...(done.length > 0 ? [markdownTable(lines)] : []),
    ...failed.map(({ name, why }) => escapeMarkdown(`Not measured: ${name}: ${why}`)),
    ...done.flatMap(({ name, section }) => [
      `## ${escapeMarkdown(section.title)}`,
      ...section.notes.map(escapeMarkdown),
      ...section.tables.map(markdownTable),
      ...section.charts.map(
        ({ title }, i) => `![${escapeMarkdown(title)}](${encodeURI(file(name, i))})`,
      ),
      ...(section.commands?.length ? ['What ran:', fence(section.commands)] : []),
    ]),
  ].join('\n\n');
}

/** Writes the document to `path` and its charts beside it. */
export async function writeMarkdown(report: Report, path: string): Promise<void> {
  const stem = basename(path).replace(/\.md$/, '');
  const file = (name: string, chart: number): string => `${stem}-${name}-${chart + 1}.svg`;
  for (const { name, section } of report.done) {
    for (const [i, chart] of section.charts.entries()) {
      writeFileSync(join(dirname(path), file(name, i)), await chartSvg(chart));
    }
  }
  writeFileSync(path, `${markdown(report, file)}\n`);
}

/** Grouped bars, each with its value on top. */
export async function chartSvg({ title, unit, bars }: Chart): Promise<string> {
  const values = bars
    .filter(({ value }) => Number.isFinite(value))
    .map((bar) => ({ ...bar, label: short(bar.value) }));
  const names = [...new Set(bars.map(({ name }) => name))];
  const grouped = names.length > 1;
  const spec: TopLevelSpec = {
    title: { text: title, anchor: 'start', fontSize: 15, offset: 14 },
    background: 'white',
    padding: 16,
    width: { step: grouped ? 30 : 120 },
    height: 280,
    data: { values },
    encoding: {
      x: {
        field: 'group',
        type: 'nominal',
        sort: null,
        title: null,
        axis: { labelAngle: 0, labelFontSize: 12, ticks: false, labelPadding: 8 },
        scale: { paddingInner: 0.15 },
      },
      y: {
        field: 'value',
        type: 'quantitative',
        title: unit,
        axis: { titleFontSize: 12, labelFontSize: 11, gridColor: '#e5e5e5', domain: false },
      },
      ...(grouped && { xOffset: { field: 'name', type: 'nominal', sort: names } }),
    },
    layer: [
      {
        mark: { type: 'bar' },
        encoding: {
          color: {
            field: 'name',
            type: 'nominal',
            sort: names,
            scale: { range: COLOURS },
            legend: grouped
              ? {
                  title: null,
                  orient: 'top',
                  labelFontSize: 12,
                  symbolType: 'square',
                  labelLimit: 0,
                }
              : null,
          },
        },
      },
      {
        mark: { type: 'text', dy: -6, fontSize: 10, color: '#333333' },
        encoding: { text: { field: 'label' } },
      },
    ],
    config: { font: 'Helvetica, Arial, sans-serif', view: { stroke: null } },
  };
  const view = new View(parse(compile(spec).spec), { renderer: 'none' });
  try {
    return await view.toSVG();
  } finally {
    view.finalize();
  }
}

/** Ours first, in blue; told apart without colour vision, too (Okabe and Ito). */
const COLOURS = ['#0072b2', '#56b4e9', '#e69f00', '#999999', '#009e73', '#cc79a7', '#d55e00'];

/** Three digits that count. */
function short(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
