import { createHash } from "node:crypto";
import type { Queryable } from "../store/model.ts";
import { type Explanation, explain, identify, type LookupSpace, packEntry, readyRules, type RouteLookup } from "./model.ts";
import { type AskedRequest, headOf } from "./request.ts";
import { routeCells, routeRules, routesOfKeys } from "./store.ts";

const latin1 = (bytes: Uint8Array, start: number, end: number): string => Buffer.from(bytes.subarray(start, end)).toString("latin1");
const secretKey = (bytes: Uint8Array, start: number, end: number): string => createHash("sha256").update(bytes.subarray(start, end)).digest("hex");

/**
 * Why the request would go where it goes by the control plane's rows: the very functions of a router, run twice. The
 * first run finds nothing and tells what is looked up, the second one has those rows.
 */
export async function explainByRows(store: Queryable, request: AskedRequest): Promise<Explanation> {
  const rules = readyRules(await routeRules(store));
  const asked: { space: LookupSpace; value: string }[] = [];
  const lookup = (find: (space: LookupSpace, value: string) => number, rest: Pick<RouteLookup, "entryOf" | "nameOf" | "cellOf">): RouteLookup => ({
    rules, ...rest,
    find: (space, bytes, start, end) => find(space, latin1(bytes, start, end)),
    findSecret: (bytes, start, end) => find("apikey", secretKey(bytes, start, end)),
  });
  identify(lookup((space, value) => asked.push({ space, value }) * 0 - 1, { entryOf: () => 0, nameOf: () => "", cellOf: () => undefined }), headOf(request));

  const rows = await routesOfKeys(store, asked);
  const cells = await routeCells(store, rows.map((row) => row.cellIndex));
  const known = lookup((space, value) => rows.findIndex((row) => row.space === space && row.value === value), {
    entryOf: (row) => (rows[row] ? packEntry(rows[row].cellIndex, rows[row].state, rows[row].epoch) : 0),
    nameOf: (row) => rows[row]?.tenant ?? "",
    cellOf: (index) => cells.find((cell) => cell.index === index),
  });
  return explain(known, headOf(request));
}
