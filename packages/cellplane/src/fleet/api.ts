import { createHash } from "node:crypto";
import { isAbsolute } from "node:path";
import { z } from "zod";
import { CellplaneError, fail } from "../base/errors.ts";
import type { CellSpec, FieldChange } from "../cell/model.ts";
import { canonicalJson } from "../base/canonical.ts";
import type { CellStore } from "../cell/store.ts";
import type { CellDriver } from "../drivers/driver.ts";
import { endpoint, handler, type Handler, mayCall } from "../http/contract.ts";
import type { Queryable, Tx } from "../store/model.ts";
import type { Json } from "../workflow/model.ts";
import { FleetPlan, StoredFleet } from "./model.ts";
import { changesNothing, type EngineView, identityOf, planFleet, wantedCells } from "./plan.ts";
import type { ParsedFleet } from "./parse.ts";
import type { FleetStore } from "./store.ts";
import type { ApplyFleetInput } from "./steps.ts";

const FleetFile = z.strictObject({
  /** The file as it is, in YAML. */
  text: z.string(),
  /** Its name, for messages. */
  file: z.string().max(1000).default("cellplane.yaml"),
  /** Absolute folder, on the machines of the control plane and the cells, that relative paths in it start from. */
  baseDirectory: z.string().max(4000).refine(isAbsolute, "this is an absolute folder"),
  /** Also destroy cells without tenants that an earlier file had and this one has not. Needs the role admin. */
  prune: z.boolean().default(false),
  /** Also undo what someone else changed in cells; without it such cells are left out. */
  overwriteDrift: z.boolean().default(false),
});
type FleetFile = z.infer<typeof FleetFile>;

export const HashedPlan = z.object({ ...FleetPlan.shape, /** Names this plan: applying it by its hash is refused when it would now be another. */ hash: z.string() });
export type HashedPlan = z.infer<typeof HashedPlan>;

export const getFleet = endpoint({ id: "getFleet", method: "GET", path: "/v1/fleet", role: "viewer", summary: "Shows the fleet file applied last", returns: StoredFleet });
export const planFleetFile = endpoint({ id: "planFleet", method: "POST", path: "/v1/fleet:plan", role: "viewer", summary: "Says what applying a fleet file would do, and does nothing", body: FleetFile, returns: HashedPlan });
export const applyFleetFile = endpoint({
  id: "applyFleet", method: "POST", path: "/v1/fleet:apply", role: "operator", status: 202, summary: "Brings the fleet to what a fleet file says",
  body: FleetFile.extend({ /** Of the plan that was looked at; left out: whatever the plan is now. */ hash: z.string().optional() }),
  returns: z.object({ plan: HashedPlan, /** null: there was nothing to do. */ operation: z.string().nullable() }),
});

export interface FleetHandlerDeps {
  fleets: FleetStore;
  cells: CellStore;
  /** @throws CellplaneError fleet_invalid */
  parse: (text: string, file: string) => ParsedFleet;
  drivers: Record<string, CellDriver>;
  /** Starts a run with the transaction. @returns its id */
  start: (tx: Tx, workflow: string, input: Json) => Promise<string>;
}

type Wanted = ApplyFleetInput["wanted"];

const enginesAtOnce = 16;
const engineTimeoutMs = 10_000;

export function fleetHandlers({ fleets, cells, parse, drivers, start }: FleetHandlerDeps): Handler[] {
  /** @throws CellplaneError fleet_invalid */
  function read(body: FleetFile): { wanted: Wanted; locate: ParsedFleet["locate"] } {
    const { fleet, locate } = parse(body.text, body.file);
    const unknown = Object.entries(fleet.blueprints).filter(([, { driver }]) => !Object.hasOwn(drivers, driver));
    const findings = unknown.map(([name, { driver }]) => ({ keys: ["blueprints", name, "driver"], message: `there is no driver ${driver}; there is ${Object.keys(drivers).join(", ")}` }));
    if (findings.length > 0) throw fail("fleet_invalid", { file: body.file, issues: locate(findings) });
    return { wanted: { fleet, file: body.file, baseDirectory: body.baseDirectory }, locate };
  }

  /** Asks the engines of all cells wanted, some at a time, before any transaction is begun. */
  async function ask(wanted: Wanted, body: FleetFile, signal: AbortSignal): Promise<Map<string, EngineView>> {
    const views = new Map<string, EngineView>();
    const waiting = wantedCells(wanted, await cells.all()).flatMap(({ spec }) => spec ?? []);
    const askEach = async (): Promise<void> => {
      for (let spec = waiting.pop(); spec; spec = waiting.pop()) views.set(spec.cell, await viewOf(spec, body, AbortSignal.any([signal, AbortSignal.timeout(engineTimeoutMs)])));
    };
    await Promise.all(Array.from({ length: enginesAtOnce }, askEach));
    return views;
  }

  async function viewOf(spec: CellSpec, { overwriteDrift }: FleetFile, signal: AbortSignal): Promise<EngineView> {
    try {
      const plan = await drivers[spec.driver]?.plan(spec, signal, { overwriteDrift });
      return plan ? { kind: "plan", changes: plan.changes as FieldChange[], restarts: plan.restarts } : { kind: "silent", why: `there is no driver ${spec.driver}` };
    } catch (error) {
      if (error instanceof CellplaneError && error.code === "invalid_input") return { kind: "refuses", issues: (error as CellplaneError<"invalid_input">).data.issues };
      return { kind: "silent", why: error instanceof Error ? error.message : String(error) };
    }
  }

  /** @throws CellplaneError fleet_refused */
  async function planOf({ wanted, locate }: ReturnType<typeof read>, engines: Map<string, EngineView>, body: FleetFile, at?: Queryable): Promise<HashedPlan> {
    const { plan, findings } = planFleet(wanted, await fleets.current(at), await cells.all(at), body, engines);
    if (findings.length > 0) throw fail("fleet_refused", { file: body.file, issues: locate(findings) });
    return { ...plan, hash: createHash("sha256").update(canonicalJson(identityOf(plan))).digest("hex").slice(0, 16) };
  }

  return [
    handler(getFleet, async () => {
      const stored = await fleets.current();
      if (!stored) throw fail("fleet_missing", {});
      return stored;
    }),

    handler(planFleetFile, async ({ body, signal }) => {
      const file = read(body);
      return planOf(file, await ask(file.wanted, body, signal), body);
    }),

    handler(applyFleetFile, async ({ body, caller, signal, mutate }) => {
      if (body.prune && !mayCall(caller.role, "admin")) throw fail("forbidden", { role: caller.role, needs: "admin" });
      const file = read(body);
      const engines = await ask(file.wanted, body, signal);
      return mutate(async (tx) => {
        const plan = await planOf(file, engines, body, tx);
        if (body.hash !== undefined && body.hash !== plan.hash) throw fail("plan_stale", { what: `fleet ${plan.fleet}` });
        if (changesNothing(plan)) return { plan, operation: null };
        const { hash: _, ...bare } = plan;
        const input: ApplyFleetInput = { wanted: file.wanted, plan: bare };
        return { plan, operation: await start(tx, "fleet.apply", input as unknown as Json) };
      });
    }),
  ];
}
