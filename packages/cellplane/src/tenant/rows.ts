import { keyKinds } from "./model.ts";

/** A row of a file of tenants: what it says, or why it cannot be read. */
export interface FileRow {
  /** 1 for the first line; where the row begins. */
  line: number;
  row?: unknown;
  problem?: string;
}

export const rowFormats = ["ndjson", "csv"] as const;
export type RowFormat = (typeof rowFormats)[number];

const lineCharactersMax = 64 * 1024;

/**
 * Reads tenants as they come, so that a file may be larger than memory. Blank lines are skipped.
 *
 * NDJSON: one NewTenant as JSON on each line. CSV (RFC 4180): the first line names the columns: name, tier, region,
 * dedicated, cell, `label.<key>`, `key.<kind>` (several values separated by spaces), `claim.<kind>`, `load.connections`,
 * `load.requestsPerSecond`, `load.diskBytes`. An empty field is not given.
 */
export async function* readRows(text: AsyncIterable<string>, format: RowFormat): AsyncIterable<FileRow> {
  if (format === "csv") yield* csvRows(text);
  else for await (const { line, record } of records(text, false)) yield jsonRow(line, record.join(","));
}

function jsonRow(line: number, text: string): FileRow {
  try {
    return { line, row: JSON.parse(text) as unknown };
  } catch (error) {
    return { line, problem: `this is no JSON: ${(error as Error).message}` };
  }
}

async function* csvRows(text: AsyncIterable<string>): AsyncIterable<FileRow> {
  let columns: string[] | null = null;
  for await (const { line, record, problem } of records(text, true)) {
    if (problem !== undefined) yield { line, problem };
    else if (columns !== null) yield rowOf(line, columns, record);
    else {
      columns = record.map((name) => name.trim());
      const unknown = columns.filter((name) => !isColumn(name));
      if (unknown.length > 0 || !columns.includes("name")) {
        yield { line, problem: unknown.length > 0 ? `there is no column ${unknown.join(", ")}` : "the first line names the columns, `name` among them" };
        return;
      }
    }
  }
}

const plain = ["name", "tier", "region", "cell", "dedicated"];
const numbers = ["load.connections", "load.requestsPerSecond", "load.diskBytes"];
const isColumn = (name: string): boolean => plain.includes(name) || numbers.includes(name) || /^(label|claim)\../.test(name) || keyKinds.some((kind) => name === `key.${kind}`);

function rowOf(line: number, columns: string[], record: string[]): FileRow {
  if (record.length !== columns.length) return { line, problem: `${record.length} fields where the first line has ${columns.length}` };
  const [labels, load, keys, claims]: [Record<string, string>, Record<string, unknown>, unknown[], unknown[]] = [{}, {}, [], []];
  const row: Record<string, unknown> = { labels, load, keys, claims };
  for (const [i, column] of columns.entries()) {
    const text = record[i] ?? "";
    if (text === "") continue;
    const [group = "", member = ""] = [column.slice(0, column.indexOf(".")), column.slice(column.indexOf(".") + 1)];
    if (column === "dedicated") {
      if (text !== "true" && text !== "false") return { line, problem: `dedicated is true or false, not ${text}` };
      row[column] = text === "true";
    } else if (plain.includes(column)) row[column] = text;
    // What is no number goes as text, so that it is refused by the same rules as everywhere.
    else if (numbers.includes(column)) load[member] = /^\d+(\.\d+)?$/.test(text) ? Number(text) : text;
    else if (group === "label") labels[member] = text;
    else if (group === "claim") claims.push({ kind: member, value: text });
    else keys.push(...text.split(" ").filter(Boolean).map((value) => ({ kind: member, value })));
  }
  return { line, row };
}

/** Records of a text that comes in pieces; with `quoted`, fields may stand in quotes and then hold commas and line ends. */
async function* records(text: AsyncIterable<string>, quoted: boolean): AsyncIterable<{ line: number; record: string[]; problem?: string }> {
  let [line, began, field, inQuotes, wasQuote] = [1, 1, "", false, false];
  let record: string[] = [];
  let length = 0;
  const take = () => {
    record.push(field);
    const taken = { line: began, record, ...(length > lineCharactersMax ? { problem: `longer than ${lineCharactersMax} characters` } : {}) };
    const blank = record.length === 1 && field.trim() === "";
    [record, field, length, wasQuote] = [[], "", 0, false];
    return blank ? null : taken;
  };
  for await (const piece of text) {
    for (const letter of piece) {
      if (length === 0) began = line;
      length++;
      const wasQuoteBefore = wasQuote;
      wasQuote = false;
      if (letter === "\n") line++;
      if (quoted && letter === '"') {
        // A quote within quotes is written twice.
        if (inQuotes || (field === "" && !wasQuoteBefore)) [inQuotes, wasQuote] = [!inQuotes, inQuotes];
        else if (wasQuoteBefore) [inQuotes, field] = [true, `${field}"`];
        else field += letter;
      } else if (inQuotes) field += letter;
      else if (letter === "\n") {
        const taken = take();
        if (taken) yield taken;
      } else if (quoted && letter === ",") {
        record.push(field);
        field = "";
      } else if (letter !== "\r" && length <= lineCharactersMax && !(letter === "\uFEFF" && line === 1 && length === 1)) field += letter;
    }
  }
  const last = length > 0 ? take() : null;
  if (last) yield inQuotes ? { ...last, problem: "a quote is opened and not closed" } : last;
}
