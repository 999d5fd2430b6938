import { assert } from "../base/assert.ts";
import { cellIndexMax, cellIndexOf, cellRouteStates, type CellRoute, epochMax, epochOf, IdentifyRule, type LookupSpace, lookupSpaces, packEntry, type RouteChange, type RouteState, routeStates, stateOf } from "./model.ts";
import { keySpaces } from "../tenant/model.ts";
import type { RouteTable } from "./table.ts";

/**
 * A change of the table as one line of text: in the route log, on the wire, in the snapshot on a router's disk. Text, so
 * that `less` and `grep` answer questions at night; set and clear are one letter, large and small:
 *
 *   r [{"by":"host"}]                   rules, as JSON
 *   c 3 eu-1 open 127.0.0.1:8080        cell: index, name, state, endpoint or -        C 3
 *   t acme 3 active 17                  tenant: name, cell index, state, epoch         T acme
 *   k host acme.example.com acme        key: space, value, tenant                      K host acme.example.com
 *
 * Names and keys are ASCII without spaces. A reader skips lines that begin with a letter it does not know, so that the
 * control plane can be newer than its routers.
 */
export function lineOf(change: RouteChange): string {
  switch (change.kind) {
    case "rules": return `r ${JSON.stringify(change.rules)}\n`;
    case "cell": return `c ${change.index} ${change.cell} ${change.state} ${change.endpoint ?? "-"}\n`;
    case "cellGone": return `C ${change.index}\n`;
    case "tenant": return `t ${change.tenant} ${change.cellIndex} ${change.state} ${change.epoch}\n`;
    case "tenantGone": return `T ${change.tenant}\n`;
    case "key": return `k ${keySpaces[change.key.kind]} ${word(change.key.value)} ${change.tenant}\n`;
    case "keyGone": return `K ${keySpaces[change.key.kind]} ${word(change.key.value)}\n`;
  }
}

function word(value: string): string {
  assert(/^[!-~]+$/.test(value), "a key is ASCII without spaces");
  return value;
}

/** Whatever takes changes: the table. */
export interface RouteSink {
  setRules(rules: readonly IdentifyRule[]): void;
  setCell(cell: CellRoute): void;
  removeCell(index: number): void;
  setTenant(bytes: Uint8Array, start: number, end: number, entry: number): void;
  setKey(space: LookupSpace, bytes: Uint8Array, start: number, end: number, name: Uint8Array, nameStart: number, nameEnd: number): void;
  removeKey(space: LookupSpace, bytes: Uint8Array, start: number, end: number): void;
}

const linesPerChunk = 2000;

/** A table as lines again, in chunks that may be written one by one while it changes: see `tenantIds` and `keyList`. */
export function* tableLines(table: RouteTable): Generator<string> {
  yield lineOf({ kind: "rules", rules: table.rules.map((ready) => ready.rule) });
  for (const cell of table.cells()) yield lineOf({ kind: "cell", ...cell });
  const lines: string[] = [];
  for (const id of table.tenantIds()) {
    const entry = table.entryOf(id);
    lines.push(lineOf({ kind: "tenant", tenant: table.nameOf(id), cellIndex: cellIndexOf(entry), state: stateOf(entry), epoch: epochOf(entry) }));
    if (lines.length === linesPerChunk) yield lines.splice(0).join("");
  }
  for (const { space, value, tenant } of table.keyList()) {
    lines.push(`k ${space} ${value} ${tenant}\n`);
    if (lines.length === linesPerChunk) yield lines.splice(0).join("");
  }
  yield lines.join("");
}

/** What arrived is not what was sent, or was never right. The reader keeps what it has. */
export class BadLines extends Error {
  override name = "BadLines";
}

const newline = 0x0a;
const space = 0x20;
const fieldsMax = 6;

/**
 * Applies lines straight from the bytes they arrived in, because a snapshot may have ten million of them.
 *
 * @returns reads whole lines from `start` to `end` and answers how many; `end` is just after a newline
 * @throws BadLines for a malformed line; those before it have been applied
 */
export function lineReader(sink: RouteSink): (bytes: Buffer, start: number, end: number) => number {
  const starts = new Int32Array(fieldsMax);
  const ends = new Int32Array(fieldsMax);

  return (bytes, start, end) => {
    let lines = 0;
    for (let at = start; at < end; lines++) {
      let fields = 0;
      const lineStart = at;
      let fieldStart = at;
      for (; at < end; at++) {
        const byte = bytes[at];
        if (byte !== space && byte !== newline) continue;
        if (fields < fieldsMax) {
          starts[fields] = fieldStart;
          ends[fields] = at;
        }
        fields++;
        fieldStart = at + 1;
        if (byte === newline) break;
      }
      if (at === end) throw new BadLines("the last line is cut off");
      if (!apply(bytes, lineStart, at, fields)) throw new BadLines(`no route line: ${bytes.toString("latin1", lineStart, Math.min(at, lineStart + 100))}`);
      at++;
    }
    return lines;
  };

  /** @returns false when the line is malformed */
  function apply(bytes: Buffer, lineStart: number, lineEnd: number, fields: number): boolean {
    const text = (field: number): string => bytes.toString("latin1", starts[field], ends[field]);
    const number = (field: number, min: number, max: number): number => numberAt(bytes, starts[field] ?? 0, ends[field] ?? 0, min, max);
    switch (bytes[lineStart]) {
      case 0x74: { // t
        if (fields !== 5 || !isName(bytes, starts[1] ?? 0, ends[1] ?? 0)) return false;
        const cellIndex = number(2, 1, cellIndexMax);
        const state = stateAt(bytes, starts[3] ?? 0, ends[3] ?? 0);
        const epoch = number(4, 1, epochMax);
        if (cellIndex < 0 || state === undefined || epoch < 0) return false;
        sink.setTenant(bytes, starts[1] ?? 0, ends[1] ?? 0, packEntry(cellIndex, state, epoch));
        return true;
      }
      case 0x6b: { // k
        const where = fields === 4 ? spaceNamed(text(1)) : undefined;
        if (where === undefined || !isKey(starts[2] ?? 0, ends[2] ?? 0) || !isName(bytes, starts[3] ?? 0, ends[3] ?? 0)) return false;
        sink.setKey(where, bytes, starts[2] ?? 0, ends[2] ?? 0, bytes, starts[3] ?? 0, ends[3] ?? 0);
        return true;
      }
      case 0x54: { // T
        if (fields !== 2 || !isName(bytes, starts[1] ?? 0, ends[1] ?? 0)) return false;
        sink.setTenant(bytes, starts[1] ?? 0, ends[1] ?? 0, 0);
        return true;
      }
      case 0x4b: { // K
        const where = fields === 3 ? spaceNamed(text(1)) : undefined;
        if (where === undefined || !isKey(starts[2] ?? 0, ends[2] ?? 0)) return false;
        sink.removeKey(where, bytes, starts[2] ?? 0, ends[2] ?? 0);
        return true;
      }
      case 0x63: { // c
        const index = number(1, 1, cellIndexMax);
        const state = cellRouteStates.find((each) => each === text(3));
        if (fields !== 5 || index < 0 || state === undefined || !isName(bytes, starts[2] ?? 0, ends[2] ?? 0) || !/^(-|.+:\d{1,5})$/.test(text(4))) return false;
        sink.setCell({ index, cell: text(2), state, endpoint: text(4) === "-" ? null : text(4) });
        return true;
      }
      case 0x43: { // C
        const index = number(1, 1, cellIndexMax);
        if (fields !== 2 || index < 0) return false;
        sink.removeCell(index);
        return true;
      }
      case 0x72: { // r
        const rules = IdentifyRule.array().safeParse(jsonOf(bytes.toString("utf8", lineStart + 2, lineEnd)));
        if (!rules.success) return false;
        sink.setRules(rules.data);
        return true;
      }
      default:
        return true;
    }
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The number in these digits; −1 when it is none or out of bounds. */
function numberAt(bytes: Uint8Array, start: number, end: number, min: number, max: number): number {
  if (end <= start || end - start > 10) return -1;
  let value = 0;
  for (let at = start; at < end; at++) {
    const digit = (bytes[at] ?? 0) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value < min || value > max ? -1 : value;
}

const stateBytes = routeStates.map((state) => Buffer.from(state));
function stateAt(bytes: Buffer, start: number, end: number): RouteState | undefined {
  for (let i = 0; i < stateBytes.length; i++) {
    const name = stateBytes[i] as Buffer;
    if (name.length !== end - start) continue;
    let at = 0;
    while (at < name.length && name[at] === bytes[start + at]) at++;
    if (at === name.length) return routeStates[i];
  }
  return undefined;
}

const spaceNamed = (text: string): LookupSpace | undefined => lookupSpaces.find((each) => each === text && each !== "name");

const isKey = (start: number, end: number): boolean => end > start && end - start <= 255;

/** A DNS label, as base/names.ts has it, without making a string. */
function isName(bytes: Uint8Array, start: number, end: number): boolean {
  if (end <= start || end - start > 63 || bytes[start] === 0x2d || bytes[end - 1] === 0x2d) return false;
  for (let at = start; at < end; at++) {
    const byte = bytes[at] ?? 0;
    if (!((byte >= 0x61 && byte <= 0x7a) || (byte >= 0x30 && byte <= 0x39) || byte === 0x2d)) return false;
  }
  return true;
}
