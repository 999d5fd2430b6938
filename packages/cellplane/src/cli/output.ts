import { printable } from "./failure.ts";
import type { Columns, Shown } from "./command.ts";

export const formats = ["table", "wide", "json", "yaml", "name", "ndjson"] as const;
export type Format = (typeof formats)[number];

export interface View {
  columns?: Columns<unknown> | undefined;
  wide?: Columns<unknown> | undefined;
  text?: ((result: unknown) => string) | undefined;
  nameOf?: ((item: unknown) => string) | undefined;
}

/** Writes data; `write` may be called many times. The format never depends on where it goes. */
export async function print(result: unknown, format: Format, view: View, write: (text: string) => void): Promise<void> {
  if (result === undefined) return;
  const items = itemsOf(result);
  if (format === "json" || format === "yaml") {
    const whole = items ? await collect(items) : result;
    if (format === "json") return write(`${JSON.stringify(whole, null, 2)}\n`);
    const { stringify } = await import("yaml");
    return write(stringify(whole, { lineWidth: 0 }));
  }
  const each = items ?? [result];
  if (format === "ndjson") {
    for await (const item of each) write(`${JSON.stringify(item)}\n`);
    return;
  }
  if (format === "name") {
    for await (const item of each) write(`${printable((view.nameOf ?? nameOf)(item))}\n`);
    return;
  }
  if (view.text) return write(ended(view.text(items ? await collect(items) : result)));
  const columns = { ...view.columns, ...(format === "wide" || !items ? view.wide : {}) };
  if (items) return printTable(items, Object.keys(columns).length > 0 ? columns : { NAME: (item: unknown) => nameOf(item) }, write);
  if (result === null) return;
  write(Object.keys(columns).length > 0 ? lines(result, columns) : `${JSON.stringify(result, null, 2)}\n`);
}

const ended = (text: string): string => (text === "" || text.endsWith("\n") ? text : `${text}\n`);

function itemsOf(result: unknown): AsyncIterable<unknown> | unknown[] | null {
  if (Array.isArray(result)) return result;
  return result !== null && typeof result === "object" && Symbol.asyncIterator in result ? (result as AsyncIterable<unknown>) : null;
}

async function collect(items: AsyncIterable<unknown> | unknown[]): Promise<unknown[]> {
  if (Array.isArray(items)) return items;
  const all: unknown[] = [];
  for await (const item of items) all.push(item);
  return all;
}

function nameOf(item: unknown): string {
  const { name, id } = (item ?? {}) as { name?: unknown; id?: unknown };
  return typeof name === "string" ? name : typeof id === "string" ? id : JSON.stringify(item);
}

function shown(value: Shown): string {
  if (value === null || value === undefined || value === "") return "-";
  return printable(Array.isArray(value) ? value.join(",") || "-" : String(value));
}

function lines(item: unknown, columns: Columns<unknown>): string {
  const names = Object.keys(columns);
  const width = Math.max(...names.map((name) => name.length));
  const indent = `\n${" ".repeat(width + 2)}`;
  return names.map((name) => `${name.padEnd(width)}  ${shown(columns[name]?.(item)).trim().replaceAll("\n", indent)}\n`).join("");
}

/** A stream's columns are as wide as what comes at once; later rows keep to that, so that an endless one can be shown. */
const settleMs = 200;
const settleRows = 1000;

async function printTable(items: AsyncIterable<unknown> | unknown[], columns: Columns<unknown>, write: (text: string) => void): Promise<void> {
  const names = Object.keys(columns);
  const rowOf = (item: unknown) => names.map((name) => shown(columns[name]?.(item)).replaceAll(/\s/g, " "));
  const held: string[][] = [];
  let widths: number[] | null = null;
  const put = (row: string[]) => write(`${row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths?.[i] ?? 0))).join("  ")}\n`);
  const settle = () => {
    if (widths) return;
    widths = names.map((name, i) => Math.max(name.length, ...held.map((row) => row[i]?.length ?? 0)));
    put(names);
    held.forEach(put);
  };
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    if (held.length > 0) settle();
  }, settleMs);
  try {
    for await (const item of items) {
      if (widths) put(rowOf(item));
      else {
        held.push(rowOf(item));
        if (late || (held.length >= settleRows && !Array.isArray(items))) settle();
      }
    }
  } finally {
    clearTimeout(timer);
  }
  settle();
}
