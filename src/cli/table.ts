// Tables for people: columns as wide as they need to be, numbers to the right.

import { stripVTControlCharacters, styleText } from 'node:util';
import type { Output } from './cli.ts';

export interface Column {
  title: string;
  align?: 'left' | 'right';
}

export type Cell = string | number | undefined;

type Style = Parameters<typeof styleText>[0];

/** Whether `out` takes colours: a terminal, and NO_COLOR is not set (no-color.org). */
export function hasColour(out: Output): boolean {
  return out.isTTY === true && !process.env['NO_COLOR'] && process.env['TERM'] !== 'dumb';
}

export function paint(out: Output, style: Style, text: string): string {
  return hasColour(out) ? styleText(style, text, { validateStream: false }) : text;
}

/**
 * The lines of a table without line ends. `undefined` cells read `-`. Control characters in cells
 * become `?`: paths and reasons come from outside and must not drive the terminal.
 */
export function tableLines(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  style: { title?: (line: string) => string; cell?: (text: string, column: number) => string } = {},
): string[] {
  const texts = rows.map((row) => columns.map((_, i) => cellText(row[i])));
  const widths = columns.map(({ title }, i) =>
    Math.max(title.length, ...texts.map((row) => row[i]!.length)),
  );
  const line = (cells: readonly string[], each: (text: string, column: number) => string) =>
    cells
      .map((text, i) => {
        const space = ' '.repeat(widths[i]! - text.length);
        const shown = each(text, i);
        return columns[i]!.align === 'right' ? space + shown : shown + space;
      })
      .join('  ')
      .trimEnd();
  const titles = line(
    columns.map((c) => c.title),
    (text) => text,
  );
  return [
    ` ${style.title?.(titles) ?? titles}`,
    ...texts.map((row) => ` ${line(row, style.cell ?? ((text) => text))}`),
  ];
}

/** A table as `tableLines` makes it, ready to write; its titles are bold where `out` has colours. */
export function printTable(
  out: Output,
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  cell?: (text: string, column: number) => string,
): void {
  const style = { title: (line: string) => paint(out, 'bold', line), ...(cell ? { cell } : {}) };
  out.write(`${tableLines(columns, rows, style).join('\n')}\n`);
}

/** `text` with nothing in it that a terminal would obey. */
export function plain(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about.
  return stripVTControlCharacters(text).replace(/[\u0000-\u001f\u007f-\u009f]/g, '?');
}

function cellText(cell: Cell): string {
  if (cell === undefined || cell === '') return '-';
  return typeof cell === 'number' ? String(cell) : plain(cell);
}
