import { canonicalJson } from "../base/canonical.ts";
import { CellplaneError, fail, type Issue } from "../base/errors.ts";
import { isInService, next } from "./machine.ts";
import { Blueprint, type Capacity, type Cell, type CellSpec, type CellVerb, cellVerbs, dimensions, type FieldChange, type Overrides } from "./model.ts";

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null && !Array.isArray(value);

function merge(under: unknown, over: unknown): unknown {
  if (!isObject(under) || !isObject(over)) return over;
  const merged: Record<string, unknown> = { ...under };
  for (const [key, value] of Object.entries(over)) merged[key] = Object.hasOwn(under, key) ? merge(under[key], value) : value;
  return merged;
}

/** The blueprint as one cell has it, or the issues of overrides that do not fit; their paths are those of the blueprint. */
export const withOverrides = (blueprint: Blueprint, overrides: Overrides) => Blueprint.safeParse(merge(blueprint, overrides));

/** Adds to overrides what `more` names: what `cell update --set` does. */
export const mergeOverrides = (overrides: Overrides, more: Overrides): Overrides => merge(overrides, more) as Overrides;

/** The fields in which two JSON values differ; an array is one field, undefined is none. In the order of `to`, removed ones last. */
export function changesBetween(from: unknown, to: unknown, path = ""): FieldChange[] {
  if (isObject(from) && isObject(to)) {
    const keys = [...Object.keys(to), ...Object.keys(from).filter((key) => !Object.hasOwn(to, key))];
    return keys.flatMap((key) => changesBetween(Object.hasOwn(from, key) ? from[key] : undefined, Object.hasOwn(to, key) ? to[key] : undefined, path === "" ? key : `${path}.${key}`));
  }
  const same = (from === undefined) === (to === undefined) && canonicalJson(from) === canonicalJson(to);
  return same ? [] : [{ path, ...(from === undefined ? {} : { from }), ...(to === undefined ? {} : { to }) } as FieldChange];
}


/** These are known to the control plane alone; whatever else changes reaches the cell's processes. */
const controlPlaneFields = ["blueprint", "class", "capacity"];
export const touchesProcesses = (changes: FieldChange[]): boolean => changes.some((change) => !controlPlaneFields.includes(change.path.split(".")[0] ?? ""));

/** What keeps a cell from becoming `wanted` in place; empty when nothing does. Paths are those of the spec. */
export function refusedChanges(cell: Pick<Cell, "used">, former: CellSpec, wanted: CellSpec): Issue[] {
  const issues: Issue[] = [];
  for (const field of ["region", "driver"] as const) {
    if (former[field] !== wanted[field]) issues.push({ path: field, message: `a cell keeps its ${field} (${former[field]}): create another cell and move the tenants` });
  }
  if (former.database && !wanted.database) issues.push({ path: "database", message: "removing the database would lose the tenants' data: create another cell and move the tenants" });
  if (wanted.class === "dedicated" && (cell.used.tenants ?? 0) > 1) issues.push({ path: "class", message: `a dedicated cell holds one tenant, this one has ${cell.used.tenants}: move the others first` });
  for (const dimension of dimensions) {
    const capacity = wanted.capacity[dimension];
    const used = cell.used[dimension] ?? 0;
    if (capacity !== undefined && capacity < used) issues.push({ path: `capacity.${dimension}`, message: `${capacity} is below the ${used} in use: raise it, or move tenants away first` });
  }
  return issues;
}

/** The smaller of both in each dimension: what may be used while it is open which of the two specs will stay. */
export function smallerCapacity(a: Capacity, b: Capacity): Capacity {
  const smaller: Capacity = {};
  for (const dimension of dimensions) {
    const least = Math.min(a[dimension] ?? Infinity, b[dimension] ?? Infinity);
    if (least !== Infinity) smaller[dimension] = least;
  }
  return smaller;
}

type Judged = Pick<Cell, "name" | "state" | "used">;

/** @throws CellplaneError wrong_state, cell_has_tenants when the verb may not be done to the cell as it is now */
export function allow(verb: CellVerb, cell: Judged): void {
  const tenants = cell.used.tenants ?? 0;
  if (verb === "update") {
    if (!isInService(cell.state)) throw fail("wrong_state", { what: "cell", name: cell.name, state: cell.state, wanted: "active, cordoned, draining or empty" });
  } else if (verb === "retire" || verb === "destroy") {
    if (tenants > 0) throw fail("cell_has_tenants", { cell: cell.name, tenants, verb });
    if (cell.state !== "destroyed" || verb === "retire") next(cell, "retire");
  } else next(cell, verb);
}

/** For each verb why it would be refused, null when it would not. */
export function refusedVerbs(cell: Judged): Record<CellVerb, string | null> {
  const why = (verb: CellVerb): string | null => {
    try {
      allow(verb, cell);
      return null;
    } catch (error) {
      if (error instanceof CellplaneError) return error.message;
      throw error;
    }
  };
  return Object.fromEntries(cellVerbs.map((verb) => [verb, why(verb)])) as Record<CellVerb, string | null>;
}
