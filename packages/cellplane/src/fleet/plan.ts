import type { z } from "zod";
import type { Issue } from "../base/errors.ts";
import { isInService } from "../cell/machine.ts";
import type { Blueprint, Cell, CellSpec, NewCell } from "../cell/model.ts";
import { canonical, changesBetween, refusedChanges, touchesProcesses, withOverrides } from "../cell/plan.ts";
import type { CellAction, Fleet, FleetCell, FleetPlan, StoredFleet } from "./model.ts";

// ── what a file may say, whatever the fleet is ──────────────────────────────────────────────────────────────────────

type Add = (path: PropertyKey[], message: string) => void;

/** What a schema can not tell: names that point nowhere, regions without a cell, blueprints that can not serve. For `superRefine`. */
export function checkFleet(fleet: Fleet, context: z.core.$RefinementCtx<Fleet>): void {
  const add: Add = (path, message) => context.addIssue({ code: "custom", path, message });
  const needs = (path: PropertyKey[], what: string, name: string, names: string[]): void => {
    if (!names.includes(name)) add(path, `there is no ${what} ${name} in this file; there is ${names.join(", ")}`);
  };
  const regions = Object.keys(fleet.regions);
  const blueprints = Object.keys(fleet.blueprints);

  for (const [name, blueprint] of Object.entries(fleet.blueprints)) checkPorts(blueprint, ["blueprints", name, "services"], add);
  for (const [name, cell] of Object.entries(fleet.cells)) {
    needs(["cells", name, "region"], "region", cell.region, regions);
    needs(["cells", name, "blueprint"], "blueprint", cell.blueprint, blueprints);
    const blueprint = fleet.blueprints[cell.blueprint];
    if (!blueprint) continue;
    const merged = withOverrides(blueprint, cell.overrides);
    if (merged.success) checkPorts(merged.data, ["cells", name, "overrides"], add);
    else for (const issue of merged.error.issues) context.issues.push({ ...issue, path: ["cells", name, "overrides", ...issue.path], input: cell.overrides } as z.core.$ZodRawIssue);
  }

  const { strategy, blueprint, cell } = fleet.placement;
  const inhabited = new Set(Object.values(fleet.cells).map(({ region }) => region));
  for (const [name, region] of Object.entries(fleet.regions)) {
    if (!inhabited.has(name) && region?.spare !== true && strategy !== "cell-per-tenant") add(["regions", name], `region ${name} has no cell: add one under \`cells\`, or say \`spare: true\` if it is meant to have none for now`);
  }
  if (blueprint !== null) needs(["placement", "blueprint"], "blueprint", blueprint, blueprints);
  else if (strategy === "cell-per-tenant") add(["placement", "strategy"], "cell-per-tenant has to know what a tenant's cell is made from: add `blueprint: <name>` beside it");
  if (cell !== null) needs(["placement", "cell"], "cell", cell, Object.keys(fleet.cells));
}

/** Routers send requests to the one port named http. */
function checkPorts(blueprint: Blueprint, path: PropertyKey[], add: Add): void {
  const reachable = Object.entries(blueprint.services).flatMap(([name, service]) => (Object.hasOwn(service.ports, "http") ? [name] : []));
  if (reachable.length === 0) add(path, "no service has a port named http, so routers could not reach the cell: add `ports: { http: auto }` to one");
  if (reachable.length > 1) add(path, `${reachable.join(" and ")} both have a port named http, and routers reach one of them: name the other otherwise`);
}

// ── what the file would change about the fleet as it is ─────────────────────────────────────────────────────────────

/** What a cell of this fleet is made from, or why nothing can be: paths are those of the cell. */
export function specOf({ fleet, baseDirectory }: Pick<StoredFleet, "fleet" | "baseDirectory">, cell: Pick<NewCell, "name" | "region" | "blueprint" | "overrides">): CellSpec | Issue[] {
  if (!Object.hasOwn(fleet.regions, cell.region)) return [{ path: "region", message: `the fleet file has no region ${cell.region}` }];
  const blueprint = fleet.blueprints[cell.blueprint];
  if (!blueprint) return [{ path: "blueprint", message: `the fleet file has no blueprint ${cell.blueprint}` }];
  const merged = withOverrides(blueprint, cell.overrides);
  if (!merged.success) return merged.error.issues.map((issue) => ({ path: ["overrides", ...issue.path].join("."), message: issue.message }));
  return { ...merged.data, cell: cell.name, region: cell.region, blueprint: cell.blueprint, baseDirectory };
}

/** Something that can not be done, at a place in the file. */
export interface Finding {
  keys: string[];
  message: string;
}

/** A cell as the plan looks at it. */
export type PlannedCell = Pick<Cell, "name" | "region" | "blueprint" | "state" | "generation" | "origin" | "overrides" | "labels" | "used" | "drift"> & { spec: CellSpec };

export interface PlanOptions {
  /** Also destroy cells that an earlier file had and this one has not, once they have no tenants. */
  prune: boolean;
  /** Also undo what someone else changed in a cell, where otherwise the cell is left out. */
  overwriteDrift: boolean;
}

/**
 * What applying the file would do. Nothing is left to choose when it is carried out.
 *
 * @param stored the file applied last; null before the first
 * @param cells all there are, destroyed ones among them, since those keep their names
 */
export function planFleet(wanted: Pick<StoredFleet, "fleet" | "baseDirectory">, stored: StoredFleet | null, cells: PlannedCell[], options: PlanOptions): { plan: FleetPlan; findings: Finding[] } {
  const findings: Finding[] = [];
  const byName = new Map(cells.map((cell) => [cell.name, cell]));
  const actions: CellAction[] = [];
  for (const [name, cell] of Object.entries(wanted.fleet.cells)) {
    const spec = specOf(wanted, { name, ...cell });
    if (Array.isArray(spec)) findings.push(...spec.map(({ path, message }) => ({ keys: ["cells", name, ...path.split(".")], message })));
    else actions.push(actionFor(byName.get(name) ?? null, spec, cell, wanted.fleet, options, findings));
  }
  for (const cell of cells) {
    if (Object.hasOwn(wanted.fleet.cells, cell.name) || cell.state === "destroyed") continue;
    actions.push(cell.origin === "fleet" ? absent(cell, options) : unmanaged(cell, wanted, options, findings));
  }
  const { cells: _, ...settings } = wanted.fleet;
  const { cells: __, ...former } = stored?.fleet ?? { regions: {}, blueprints: {}, placement: {}, routing: {}, cells: {} };
  const plan: FleetPlan = { fleet: wanted.fleet.fleet, generation: stored?.generation ?? 0, ...options, settings: changesBetween(former, settings), fileChanged: canonical(stored?.fleet) !== canonical(wanted.fleet) || stored?.baseDirectory !== wanted.baseDirectory, cells: actions.sort(inOrder) };
  return { plan, findings };
}

/**
 * New cells first, then changes, then removals. Of the changes, those to sandboxes and to cells with few tenants come
 * first, since the first one is carried out alone: a mistake in the file then meets few.
 */
function inOrder(a: CellAction, b: CellAction): number {
  const kinds: CellAction["action"][] = ["create", "update", "destroy", "none"];
  const sandbox = (action: CellAction): number => (action.spec?.class === "sandbox" ? 0 : 1);
  return kinds.indexOf(a.action) - kinds.indexOf(b.action) || sandbox(a) - sandbox(b) || a.tenants - b.tenants || (a.cell < b.cell ? -1 : 1);
}

const asItIs = (cell: PlannedCell | null) => ({ generation: cell?.generation ?? null, state: cell?.state ?? null, tenants: cell?.used.tenants ?? 0, drift: cell?.drift.map((field) => field.path) ?? [] });
const nothing: Pick<CellAction, "action" | "changes" | "restarts" | "spec" | "overrides" | "labels"> = { action: "none", changes: [], restarts: false, spec: null, overrides: {}, labels: {} };

function actionFor(cell: PlannedCell | null, spec: CellSpec, wanted: FleetCell, fleet: Fleet, { overwriteDrift }: PlanOptions, findings: Finding[]): CellAction {
  const { overrides, labels } = wanted;
  const shared = { cell: spec.cell, region: spec.region, ...asItIs(cell) };
  const keys = ["cells", spec.cell];
  if (!cell || cell.state === "failed") {
    return { ...shared, ...nothing, action: "create", note: cell ? "making it failed before" : "", changes: changesBetween({}, spec), spec, overrides, labels };
  }
  if (cell.state === "requested" || cell.state === "provisioning") return { ...shared, ...nothing, note: "is being made: apply again when that is over" };
  if (!isInService(cell.state)) {
    const way = cell.state === "retired" ? "take it out of the file, or destroy and purge it first" : "its data are kept under the name: purge it, or choose another name";
    findings.push({ keys, message: `cell ${cell.name} is ${cell.state} and does not come back: ${way}` });
    return { ...shared, ...nothing, note: `is ${cell.state}` };
  }
  const changes = changesBetween(cell.spec, spec);
  const all = [...changes, ...changesBetween(cell.labels, labels, "labels"), ...(changes.length === 0 ? changesBetween(cell.overrides, overrides, "overrides") : [])];
  for (const { path, message } of refusedChanges(cell, cell.spec, spec)) findings.push({ keys: placeOf(path.split("."), keys, wanted, fleet), message });
  if (cell.drift.length > 0 && !overwriteDrift) return { ...shared, ...nothing, note: all.length > 0 ? "left out, since someone else changed it (--overwrite-drift undoes that)" : "someone else changed it", changes: all };
  if (all.length === 0 && cell.drift.length === 0) return { ...shared, ...nothing, note: "" };
  return { ...shared, action: "update", note: cell.drift.length > 0 ? "undoes what someone else changed" : "", changes: all, restarts: touchesProcesses(changes), spec, overrides, labels };
}

/** Where a field of a cell's spec stands in the file: with the cell if it says so, otherwise with its blueprint. */
function placeOf(path: string[], keys: string[], wanted: FleetCell, fleet: Fleet): string[] {
  if (path[0] === "region") return [...keys, "region"];
  let value: unknown = wanted.overrides;
  for (const key of path) value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  if (value !== undefined || !Object.hasOwn(fleet.blueprints, wanted.blueprint)) return [...keys, "overrides", ...path];
  return ["blueprints", wanted.blueprint, ...path];
}

function absent(cell: PlannedCell, { prune }: PlanOptions): CellAction {
  const shared = { cell: cell.name, region: cell.region, ...asItIs(cell), ...nothing };
  if (!prune) return { ...shared, note: "not in the file: kept (--prune destroys it)" };
  if (shared.tenants > 0) return { ...shared, note: `not in the file: kept, since it has ${shared.tenants} tenants (drain it first)` };
  return { ...shared, action: "destroy", note: "not in the file" };
}

/** Cells made by hand or for a tenant follow their blueprint, and no file takes them away. */
function unmanaged(cell: PlannedCell, wanted: Pick<StoredFleet, "fleet" | "baseDirectory">, options: PlanOptions, findings: Finding[]): CellAction {
  const note = cell.origin === "person" ? "made by hand" : "made for a tenant";
  const spec = isInService(cell.state) ? specOf(wanted, cell) : [];
  if (Array.isArray(spec)) return { cell: cell.name, region: cell.region, ...asItIs(cell), ...nothing, note: [note, ...spec.map(({ message }) => message)].join("; ") };
  const action = actionFor(cell, spec, cell, wanted.fleet, options, findings);
  return { ...action, note: action.note === "" ? note : `${note}; ${action.note}` };
}

/** What makes two plans the same plan: all that would be done and all it was decided from, but not what changes by the second. */
export function identityOf({ fleet, generation, settings, fileChanged, cells, prune, overwriteDrift }: FleetPlan): unknown {
  const work = cells.filter(({ action }) => action !== "none").map(({ cell, action, generation, spec, overrides, labels }) => ({ cell, action, generation, spec, overrides, labels }));
  return { fleet, generation, settings, fileChanged, prune, overwriteDrift, work: work.sort((a, b) => (a.cell < b.cell ? -1 : 1)) };
}

export const changesNothing = (plan: FleetPlan): boolean => !plan.fileChanged && plan.cells.every(({ action }) => action === "none");
