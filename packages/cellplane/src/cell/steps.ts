import { z } from "zod";
import { Labels, Name } from "../base/names.ts";
import { assert } from "../base/assert.ts";
import { CellplaneError, fail } from "../base/errors.ts";
import type { CellDriver, CellPlan, DriverContext, RoutePublisher } from "../drivers/driver.ts";
import type { Tx } from "../store/model.ts";
import type { Store } from "../store/store.ts";
import { type Json, type Lock, type Outcome, type StepContext, type Workflow, workflow } from "../workflow/model.ts";
import { cellOrigins, CellSpec, type HealthCheck, Overrides } from "./model.ts";
import { allow, refusedChanges, smallerCapacity } from "./plan.ts";
import type { CellRecord, CellStore } from "./store.ts";

export interface CellDeps {
  store: Pick<Store, "transaction">;
  cells: CellStore;
  /** @throws CellplaneError driver_unknown */
  driver: (name: string) => CellDriver;
  routes: RoutePublisher;
  /** How many cells are made or updated at once, over all control planes. */
  cellsAtOnce?: number;
  /** What a cell may take to be well on top of what its slowest service is given. */
  healthGraceMs?: number;
}

export const CreateCellInput = z.object({ spec: CellSpec, overrides: Overrides, labels: Labels, origin: z.enum(cellOrigins) });
export type CreateCellInput = z.infer<typeof CreateCellInput>;

export const UpdateCellInput = z.object({
  spec: CellSpec,
  overrides: Overrides,
  labels: Labels,
  /** Foreign changes are undone instead of refused. */
  overwriteDrift: z.boolean(),
});
export type UpdateCellInput = z.infer<typeof UpdateCellInput>;

const done = (result: unknown): Outcome => ({ kind: "done", result: result as Json });
const unwell = (checks: HealthCheck[]): string[] => checks.filter((check) => !check.ok).map((check) => `${check.name}: ${check.detail}`);

/** The recorded result of a step that comes before this one in the same workflow, so it is there. */
function resultOf<T>(context: Pick<StepContext<unknown>, "result">, step: string): T {
  const result = context.result(step);
  assert(result !== undefined, `step ${step} has a result when a later one runs`);
  return result as T;
}

const OneCell = z.object({ cell: Name });
export const DestroyCellInput = z.object({
  cell: Name,
  /** The data go too, and the name may be used again. */
  purge: z.boolean(),
});
export type DestroyCellInput = z.infer<typeof DestroyCellInput>;

const healthIntervalMs = 250;
const drainIntervalMs = 2000;
/** Longer than the slowest readiness that a blueprint may allow (ten minutes). */
const engineTimeoutMs = 15 * 60_000;

const cellLock = (cell: string): Lock => ({ name: `cell/${cell}`, slots: 1 });

export function cellWorkflows(deps: CellDeps): Workflow[] {
  const { cells, store, routes, cellsAtOnce = 4, healthGraceMs = 15_000 } = deps;
  const working = (cell: string): Lock[] => [cellLock(cell), { name: "cells at once", slots: cellsAtOnce }];

  /** Steps of one run share no effect but each has one key, so what is done twice is done once. */
  const engine = <I>(context: StepContext<I>, effect: string): DriverContext => ({
    opKey: `${context.token.runId}/${effect}`,
    epoch: context.token.epoch,
    signal: context.signal,
    log: (line) => void context.progress(line).catch(() => undefined),
  });

  const open = (tx: Tx, cell: CellRecord, endpoint: string | null): void => routes.publish(tx, [{ kind: "cell", cell: cell.name, index: cell.index, endpoint, state: "open" }]);

  /** Waits until every check is well and records where the routers find the cell. @throws CellplaneError cell_not_healthy */
  async function healthy({ input: { spec }, signal, elapsedMs }: StepContext<{ spec: CellSpec }>): Promise<Outcome> {
    const driver = deps.driver(spec.driver);
    const checks = await driver.health(spec.cell, signal);
    if (checks.every((check) => check.ok)) return done({ endpoint: (await driver.endpoints(spec.cell))?.http ?? null });
    const timeoutMs = Math.max(0, ...Object.values(spec.services).map((service) => service.readiness?.timeoutMs ?? 0)) + healthGraceMs;
    if (elapsedMs > timeoutMs) throw fail("cell_not_healthy", { cell: spec.cell, afterMs: timeoutMs, checks: unwell(checks) });
    return { kind: "again", afterMs: healthIntervalMs };
  }

  const create: Workflow<CreateCellInput> = {
    name: "cell.create",
    version: 1,
    input: CreateCellInput,
    subject: ({ spec }) => `cell/${spec.cell}`,
    locks: ({ spec }) => working(spec.cell),
    steps: [
      {
        name: "allocate",
        tx: async ({ input, token }, tx) => {
          const cell = await cells.request(tx, input);
          await cells.move(tx, cell, "provision");
          await cells.engage(tx, cell.name, token.runId);
        },
        // The row stays, failed, with its number: asking for the cell again goes on from there.
        undo: ({ input, token }) => store.transaction(async (tx) => {
          const cell = await cells.get(input.spec.cell, tx);
          if (cell?.operation !== token.runId) return;
          await cells.move(tx, await cells.hold(tx, cell.name), "fail");
          await cells.disengage(tx, cell.name, token.runId);
        }),
      },
      { name: "plan", run: async ({ input: { spec }, signal }) => done(await deps.driver(spec.driver).plan(spec, signal)) },
      {
        name: "apply",
        timeoutMs: engineTimeoutMs,
        run: async (context) => {
          await deps.driver(context.input.spec.driver).apply(resultOf<CellPlan>(context, "plan"), engine(context, "apply"));
        },
        // No tenant was ever placed on it, so nothing is worth keeping.
        undo: async (context) => {
          const { spec } = context.input;
          await deps.driver(spec.driver).destroy(spec.cell, engine(context, "undo"), { purge: true });
        },
      },
      { name: "healthy", run: healthy },
      {
        // Routers learn of the cell in the transaction that lets placement use it: no tenant can have a home they do not know.
        name: "activate",
        tx: async (context, tx) => {
          const { spec, overrides, labels } = context.input;
          const { endpoint } = resultOf<{ endpoint: string | null }>(context, "healthy");
          const cell = await cells.become(tx, await cells.hold(tx, spec.cell), { spec, overrides, labels, endpoint });
          open(tx, cell, endpoint);
          await cells.move(tx, cell, "activate");
          await cells.disengage(tx, cell.name, context.token.runId);
        },
      },
    ],
  };

  const update: Workflow<UpdateCellInput> = {
    name: "cell.update",
    version: 1,
    input: UpdateCellInput,
    subject: ({ spec }) => `cell/${spec.cell}`,
    locks: ({ spec }) => working(spec.cell),
    steps: [
      {
        // Until it is known which of the two specs will stay, no more is placed than both can hold.
        name: "begin",
        tx: async ({ input: { spec }, token }, tx) => {
          const cell = await cells.hold(tx, spec.cell);
          allow("update", cell);
          const issues = refusedChanges(cell, cell.spec, spec);
          if (issues.length > 0) throw fail("cell_update_refused", { cell: cell.name, issues });
          await cells.limit(tx, cell, smallerCapacity(cell.spec.capacity, spec.capacity));
          await cells.engage(tx, cell.name, token.runId);
          return done({ former: cell.spec });
        },
        undo: ({ input, token }) => store.transaction(async (tx) => {
          const cell = await cells.hold(tx, input.spec.cell);
          if (cell.operation !== token.runId) return;
          await cells.limit(tx, cell, cell.spec.capacity);
          await cells.disengage(tx, cell.name, token.runId);
        }),
      },
      {
        name: "plan",
        run: async ({ input: { spec, overwriteDrift }, signal }) => {
          const driver = deps.driver(spec.driver);
          const { drift } = await driver.observe(spec.cell, signal);
          if (drift.length > 0 && !overwriteDrift) throw fail("cell_drifted", { cell: spec.cell, paths: drift.map((field) => field.path) });
          return done(await driver.plan(spec, signal, { overwriteDrift }));
        },
      },
      {
        name: "apply",
        timeoutMs: engineTimeoutMs,
        run: async (context) => {
          await deps.driver(context.input.spec.driver).apply(resultOf<CellPlan>(context, "plan"), engine(context, "apply"));
        },
        // The engine has gone back by itself when the new one did not get ready; then this finds nothing to do. What
        // someone else changed meanwhile is not ours to take back.
        undo: async (context) => {
          const { former } = resultOf<{ former: CellSpec }>(context, "begin");
          const driver = deps.driver(former.driver);
          try {
            await driver.apply(await driver.plan(former, context.signal), engine(context, "undo"));
          } catch (error) {
            if (!(error instanceof CellplaneError && error.code === "cell_drifted")) throw error;
          }
        },
      },
      { name: "healthy", run: healthy },
      {
        name: "finish",
        tx: async (context, tx) => {
          const { spec, overrides, labels } = context.input;
          const { endpoint } = resultOf<{ endpoint: string | null }>(context, "healthy");
          const former = await cells.hold(tx, spec.cell);
          const cell = await cells.become(tx, former, { spec, overrides, labels, endpoint });
          if (former.endpoint !== endpoint) open(tx, cell, endpoint);
          await cells.disengage(tx, cell.name, context.token.runId);
        },
      },
    ],
  };

  const drain: Workflow<z.infer<typeof OneCell>> = {
    name: "cell.drain",
    version: 1,
    input: OneCell,
    subject: ({ cell }) => `cell/${cell}`,
    // No lock: it may wait for hours, and a cell that drains must still take a fix.
    steps: [
      {
        name: "drain",
        tx: async ({ input, token }, tx) => {
          const cell = await cells.hold(tx, input.cell);
          allow("drain", cell);
          await cells.move(tx, cell, "drain");
          await cells.engage(tx, cell.name, token.runId);
          return done({ tenants: cell.used.tenants ?? 0, from: cell.state });
        },
        // Called off: as it was, unless someone has decided otherwise meanwhile.
        undo: (context) => store.transaction(async (tx) => {
          const cell = await cells.hold(tx, context.input.cell);
          const from = context.result<{ from: string }>("drain")?.from;
          if (cell.state === "draining" && (from === "active" || from === "cordoned")) await cells.move(tx, cell, from === "active" ? "uncordon" : "cordon");
          await cells.disengage(tx, cell.name, context.token.runId);
        }),
      },
      {
        name: "wait",
        run: async (context) => {
          const cell = await cells.get(context.input.cell);
          const tenants = cell?.used.tenants ?? 0;
          if (!cell || (cell.state !== "draining" && cell.state !== "empty")) throw fail("drain_called_off", { cell: context.input.cell, state: cell?.state ?? "gone", tenants });
          if (tenants === 0) return;
          const atFirst = Math.max(tenants, resultOf<{ tenants: number }>(context, "drain").tenants);
          await context.progress(`${tenants} of ${atFirst} tenants remain`, 1 - tenants / atFirst);
          return { kind: "again", afterMs: drainIntervalMs };
        },
      },
      {
        name: "empty",
        tx: async ({ input, token }, tx) => {
          await cells.move(tx, await cells.hold(tx, input.cell), "emptied");
          await cells.disengage(tx, input.cell, token.runId);
        },
      },
    ],
  };

  /** The check that no tenant is left is part of the statement that takes the cell out of service: none can be placed meanwhile. */
  async function retireNow(tx: Tx, name: string, verb: "retire" | "destroy"): Promise<CellRecord> {
    const cell = await cells.hold(tx, name);
    allow(verb, cell);
    if (cell.state === "destroyed") return cell;
    routes.publish(tx, [{ kind: "cell", cell: cell.name, index: cell.index, endpoint: cell.endpoint, state: "closed" }]);
    await cells.move(tx, cell, "retire");
    return cell;
  }

  const retire: Workflow<z.infer<typeof OneCell>> = {
    name: "cell.retire",
    version: 1,
    input: OneCell,
    subject: ({ cell }) => `cell/${cell}`,
    locks: ({ cell }) => [cellLock(cell)],
    steps: [{ name: "retire", tx: async ({ input }, tx) => void (await retireNow(tx, input.cell, "retire")) }],
  };

  const destroy: Workflow<DestroyCellInput> = {
    name: "cell.destroy",
    version: 1,
    input: DestroyCellInput,
    subject: ({ cell }) => `cell/${cell}`,
    locks: ({ cell }) => [cellLock(cell)],
    // Nothing here is undone: what was taken down can not be put back, so a failure leaves the cell retired and the verb may be repeated.
    steps: [
      {
        name: "retire",
        tx: async ({ input, token }, tx) => {
          const cell = await retireNow(tx, input.cell, "destroy");
          await cells.engage(tx, cell.name, token.runId);
          const neverServed = cell.state === "requested" || cell.state === "provisioning" || cell.state === "failed";
          return done({ driver: cell.driver, purge: input.purge || neverServed });
        },
      },
      {
        name: "destroy",
        run: async (context) => {
          const { driver, purge } = resultOf<{ driver: string; purge: boolean }>(context, "retire");
          await deps.driver(driver).destroy(context.input.cell, engine(context, "destroy"), { purge });
        },
      },
      {
        name: "gone",
        tx: async (context, tx) => {
          const cell = await cells.hold(tx, context.input.cell);
          const destroyed = await cells.move(tx, cell, "destroy");
          routes.publish(tx, [{ kind: "cellGone", cell: cell.name, index: cell.index }]);
          await cells.disengage(tx, cell.name, context.token.runId);
          if (resultOf<{ purge: boolean }>(context, "retire").purge) await cells.forget(tx, destroyed);
        },
      },
    ],
  };

  return [workflow(create), workflow(update), workflow(drain), workflow(retire), workflow(destroy)];
}
