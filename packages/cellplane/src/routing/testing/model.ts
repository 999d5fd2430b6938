import fc from "fast-check";
import { lineOf, lineReader } from "../lines.ts";
import { type CellRoute, cellRouteStates, type LookupSpace, packEntry, readyRules, type RouteChange, type RouteLookup, routeStates, type ReadyRule } from "../model.ts";
import { RouteTable } from "../table.ts";
import { keySpaces } from "../../tenant/model.ts";

/** The table that these changes make, by way of their lines. */
export function applied(changes: readonly RouteChange[]): RouteTable {
  const table = new RouteTable();
  const bytes = Buffer.from(changes.map(lineOf).join(""));
  lineReader(table)(bytes, 0, bytes.length);
  return table;
}

/** The table as plain maps: slow, and plainly right. */
export interface ModelTable {
  tenants: Map<string, { cellIndex: number; entry: number }>;
  /** "host www.acme.com" → tenant */
  keys: Map<string, string>;
  cells: Map<number, CellRoute>;
  rules: ReadyRule[];
}

export function modelTable(changes: readonly RouteChange[]): ModelTable {
  const table: ModelTable = { tenants: new Map(), keys: new Map(), cells: new Map(), rules: [] };
  for (const change of changes) {
    switch (change.kind) {
      case "rules": table.rules = readyRules(change.rules); break;
      case "cell": table.cells.set(change.index, { index: change.index, cell: change.cell, endpoint: change.endpoint, state: change.state }); break;
      case "cellGone": table.cells.delete(change.index); break;
      case "tenant": table.tenants.set(change.tenant, { cellIndex: change.cellIndex, entry: packEntry(change.cellIndex, change.state, change.epoch) }); break;
      case "tenantGone": table.tenants.delete(change.tenant); break;
      case "key": table.keys.set(`${keySpaces[change.key.kind]} ${change.key.value}`, change.tenant); break;
      case "keyGone": table.keys.delete(`${keySpaces[change.key.kind]} ${change.key.value}`); break;
    }
  }
  return table;
}

export function mapLookup(table: ModelTable): RouteLookup {
  const names: string[] = [];
  const find = (space: LookupSpace, text: string): number => {
    const name = space === "name" ? text : table.keys.get(`${space} ${text}`);
    return name === undefined || !table.tenants.has(name) ? -1 : names.push(name) - 1;
  };
  return {
    rules: table.rules,
    find: (space, bytes, start, end) => find(space, Buffer.from(bytes.subarray(start, end)).toString("latin1")),
    findSecret: () => -1,
    entryOf: (tenant) => table.tenants.get(names[tenant] ?? "")?.entry ?? 0,
    nameOf: (tenant) => names[tenant] ?? "",
    cellOf: (index) => table.cells.get(index),
  };
}

const names = fc.integer({ min: 1, max: 9 }).map((n) => `t${n}`);
const indexes = fc.integer({ min: 1, max: 4 });
const keys = fc.record({ kind: fc.constantFrom("host", "alias", "header", "path"), value: fc.integer({ min: 1, max: 9 }).map((n) => `k${n}`) }) as fc.Arbitrary<{ kind: "host"; value: string }>;

/** Changes over few names, so that they meet. */
export const changes: fc.Arbitrary<RouteChange> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ kind: fc.constant("tenant" as const), tenant: names, cellIndex: indexes, state: fc.constantFrom(...routeStates), epoch: fc.integer({ min: 1, max: 2 ** 32 - 1 }) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("tenantGone" as const), tenant: names }) },
  { weight: 5, arbitrary: fc.record({ kind: fc.constant("key" as const), key: keys, tenant: names }) },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant("keyGone" as const), key: keys }) },
  { weight: 2, arbitrary: indexes.chain((index) => fc.record({ kind: fc.constant("cell" as const), index: fc.constant(index), cell: fc.constant(`c${index}`), endpoint: fc.constantFrom("127.0.0.1:1", null), state: fc.constantFrom(...cellRouteStates) })) },
  { weight: 1, arbitrary: indexes.map((index) => ({ kind: "cellGone" as const, cell: `c${index}`, index })) },
);
