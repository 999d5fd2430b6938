import { canonicalJson } from "../base/canonical.ts";
import type { z } from "zod";
import type { Issue } from "../base/errors.ts";
import { isInService } from "../cell/machine.ts";
import type { Blueprint, Cell, CellSpec, FieldChange, NewCell, Overrides } from "../cell/model.ts";
import { changesBetween, refusedChanges, touchesProcesses, withOverrides } from "../cell/plan.ts";
import type { CellAction, Fleet, FleetPlan, StoredFleet } from "./model.ts";

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

  // What is wrong with a blueprint is said once, and not again for each of its cells.
  const sound = new Set(Object.entries(fleet.blueprints).flatMap(([name, blueprint]) => (withOverrides(blueprint, {}).success && checkPorts(blueprint, ["blueprints", name, "services"], add) ? [name] : [])));
  for (const [name, cell] of Object.entries(fleet.cells)) {
    needs(["cells", name, "region"], "region", cell.region, regions);
    needs(["cells", name, "blueprint"], "blueprint", cell.blueprint, blueprints);
    const blueprint = fleet.blueprints[cell.blueprint];
    if (!blueprint || !sound.has(cell.blueprint) || Object.keys(cell.overrides).length === 0) continue;
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
function checkPorts(blueprint: Blueprint, path: PropertyKey[], add: Add): boolean {
  const reachable = Object.entries(blueprint.services).flatMap(([name, service]) => (Object.hasOwn(service.ports, "http") ? [name] : []));
  if (reachable.length === 0) add(path, "no service has a port named http, so routers could not reach the cell: add `ports: { http: auto }` to one");
  if (reachable.length > 1) add(path, `${reachable.join(" and ")} both have a port named http, and routers reach one of them: name the other otherwise`);
  return reachable.length === 1;
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

/** What a cell's engine says about making it so: more than the specs tell (a schema step was added, a program is missing), or nothing. */
export type EngineView = { kind: "plan"; changes: FieldChange[]; restarts: boolean } | { kind: "refuses"; issues: Issue[] } | { kind: "silent"; why: string };

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
export function planFleet(
  wanted: Pick<StoredFleet, "fleet" | "baseDirectory">, stored: StoredFleet | null, cells: PlannedCell[], options: PlanOptions, engines: ReadonlyMap<string, EngineView> = new Map(),
): { plan: FleetPlan; findings: Finding[] } {
  const findings: Finding[] = [];
  const actions = wantedCells(wanted, cells).map(({ cell, now, spec, note }): CellAction => {
    if (spec === null) return { cell: cell.name, region: cell.region, ...asItIs(now), ...nothing, note };
    const action = actionFor(now, spec, cell, { fleet: wanted.fleet, options, engine: engines.get(cell.name), findings });
    return { ...action, note: [note, action.note].filter(Boolean).join("; ") };
  });
  for (const cell of cells) if (cell.origin === "fleet" && cell.state !== "destroyed" && !Object.hasOwn(wanted.fleet.cells, cell.name)) actions.push(absent(cell, options));
  const { cells: _, ...settings } = wanted.fleet;
  const { cells: __, ...former } = stored?.fleet ?? { regions: {}, blueprints: {}, cells: {} };
  const plan: FleetPlan = { fleet: wanted.fleet.fleet, generation: stored?.generation ?? 0, ...options, settings: changesBetween(former, settings), fileChanged: canonicalJson(stored?.fleet) !== canonicalJson(wanted.fleet) || stored?.baseDirectory !== wanted.baseDirectory, cells: actions.sort(inOrder) };
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

interface WantedCell {
  cell: Pick<NewCell, "name" | "region" | "blueprint" | "overrides" | "labels">;
  now: PlannedCell | null;
  /** Null: nothing can be made from the file, and `note` says why. */
  spec: CellSpec | null;
  note: string;
}

/** The cells in the file, and those made by hand or for a tenant: they follow their blueprint, and no file takes them away. */
export function wantedCells(wanted: Pick<StoredFleet, "fleet" | "baseDirectory">, cells: PlannedCell[]): WantedCell[] {
  const byName = new Map(cells.map((cell) => [cell.name, cell]));
  const listed = Object.entries(wanted.fleet.cells).map(([name, cell]) => ({ cell: { name, ...cell }, now: byName.get(name) ?? null, note: "" }));
  const others = cells
    .filter((cell) => cell.origin !== "fleet" && isInService(cell.state) && !Object.hasOwn(wanted.fleet.cells, cell.name))
    .map((cell) => ({ cell, now: cell, note: cell.origin === "person" ? "made by hand" : "made for a tenant" }));
  return [...listed, ...others].map((one) => {
    const spec = specOf(wanted, one.cell);
    return Array.isArray(spec) ? { ...one, spec: null, note: [one.note, ...spec.map(({ message }) => message)].filter(Boolean).join("; ") } : { ...one, spec };
  });
}

const asItIs = (cell: PlannedCell | null) => ({ generation: cell?.generation ?? null, state: cell?.state ?? null, tenants: cell?.used.tenants ?? 0, drift: cell?.drift.map((field) => field.path) ?? [] });
const nothing: Pick<CellAction, "action" | "changes" | "restarts" | "spec" | "overrides" | "labels"> = { action: "none", changes: [], restarts: false, spec: null, overrides: {}, labels: {} };

interface Surroundings {
  fleet: Fleet;
  options: PlanOptions;
  engine: EngineView | undefined;
  findings: Finding[];
}

function actionFor(now: PlannedCell | null, spec: CellSpec, { overrides, labels }: Pick<NewCell, "overrides" | "labels">, { fleet, options, engine, findings }: Surroundings): CellAction {
  const shared = { cell: spec.cell, region: spec.region, ...asItIs(now) };
  const at = (path: string): string[] => placeOf(path.split("."), spec, overrides, fleet);
  if (engine?.kind === "refuses") findings.push(...engine.issues.map(({ path, message }) => ({ keys: at(path), message })));
  if (!now || now.state === "failed") {
    return { ...shared, ...nothing, action: "create", note: now ? "making it failed before" : "", changes: changesBetween({}, spec), spec, overrides, labels };
  }
  if (now.state === "requested" || now.state === "provisioning") return { ...shared, ...nothing, note: "is being made: apply again when that is over" };
  if (!isInService(now.state)) {
    const way = now.state === "retired" ? "take it out of the file, or destroy and purge it first" : "its data are kept under the name: purge it, or choose another name";
    findings.push({ keys: ["cells", now.name], message: `cell ${now.name} is ${now.state} and does not come back: ${way}` });
    return { ...shared, ...nothing, note: `is ${now.state}` };
  }
  findings.push(...refusedChanges(now, now.spec, spec).map(({ path, message }) => ({ keys: at(path), message })));
  if (engine?.kind === "silent") return { ...shared, ...nothing, note: `left out, since its engine does not say: ${engine.why}` };

  const inSpec = changesBetween(now.spec, spec);
  const inEngine = engine?.kind === "plan" ? engine.changes.filter(({ path }) => !inSpec.some((change) => change.path === path)) : [];
  const inRow = [...changesBetween(now.labels, labels, "labels"), ...(inSpec.length === 0 ? changesBetween(now.overrides, overrides, "overrides") : [])];
  const changes = [...inSpec, ...inEngine, ...inRow];
  const drifted = now.drift.length > 0;
  if (drifted && !options.overwriteDrift) return { ...shared, ...nothing, changes, note: changes.length > 0 ? "left out, since someone else changed it (--overwrite-drift undoes that)" : "someone else changed it" };
  if (changes.length === 0 && !drifted) return { ...shared, ...nothing, note: "" };
  const restarts = engine?.kind === "plan" ? engine.restarts : touchesProcesses(inSpec);
  return { ...shared, action: "update", note: drifted ? "undoes what someone else changed" : "", changes, restarts, spec, overrides, labels };
}

/** Where a field of a cell's spec stands in the file: with the cell if it says so, otherwise with its blueprint. */
function placeOf(path: string[], spec: CellSpec, overrides: Overrides, fleet: Fleet): string[] {
  const listed = Object.hasOwn(fleet.cells, spec.cell);
  if (listed && (path[0] === "region" || path[0] === "blueprint")) return ["cells", spec.cell, path[0]];
  let value: unknown = overrides;
  for (const key of path) value = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[key] : undefined;
  return listed && value !== undefined ? ["cells", spec.cell, "overrides", ...path] : ["blueprints", spec.blueprint, ...path];
}

function absent(cell: PlannedCell, { prune }: PlanOptions): CellAction {
  const shared = { cell: cell.name, region: cell.region, ...asItIs(cell), ...nothing };
  if (!prune) return { ...shared, note: "not in the file: kept (--prune destroys it)" };
  if (shared.tenants > 0) return { ...shared, note: `not in the file: kept, since it has ${shared.tenants} tenants (drain it first)` };
  return { ...shared, action: "destroy", note: "not in the file" };
}

/** What makes two plans the same plan: all that would be done and all it was decided from, but not what changes by the second. */
export function identityOf({ fleet, generation, settings, fileChanged, cells, prune, overwriteDrift }: FleetPlan): unknown {
  const work = cells.filter(({ action }) => action !== "none").map(({ cell, action, generation, spec, overrides, labels }) => ({ cell, action, generation, spec, overrides, labels }));
  return { fleet, generation, settings, fileChanged, prune, overwriteDrift, work: work.sort((a, b) => (a.cell < b.cell ? -1 : 1)) };
}

export const changesNothing = (plan: FleetPlan): boolean => !plan.fileChanged && plan.cells.every(({ action }) => action === "none");
