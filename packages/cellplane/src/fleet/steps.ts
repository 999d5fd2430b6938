import { z } from "zod";
import { fail } from "../base/errors.ts";
import { canonicalJson } from "../base/canonical.ts";
import type { CreateCellInput, DestroyCellInput, UpdateCellInput } from "../cell/steps.ts";
import type { RoutePublisher } from "../drivers/driver.ts";
import { isFinal, type Json, type Outcome, type StepContext, type Workflow, workflow } from "../workflow/model.ts";
import { type CellAction, FleetPlan, StoredFleet } from "./model.ts";
import type { FleetStore } from "./store.ts";

export interface FleetDeps {
  fleets: FleetStore;
  routes: RoutePublisher;
}

export const ApplyFleetInput = z.object({ wanted: StoredFleet.pick({ fleet: true, file: true, baseDirectory: true }), plan: FleetPlan });
export type ApplyFleetInput = z.infer<typeof ApplyFleetInput>;

type Context = StepContext<ApplyFleetInput>;

/** The run that brings one cell to what the plan says. */
function childOf(action: CellAction): { workflow: string; input: CreateCellInput | UpdateCellInput | DestroyCellInput } | null {
  const { cell, spec, overrides, labels } = action;
  if (action.action === "destroy") return { workflow: "cell.destroy", input: { cell, purge: false } };
  if (!spec) return null;
  if (action.action === "create") return { workflow: "cell.create", input: { spec, overrides, labels, origin: "fleet" } };
  return { workflow: "cell.update", input: { spec, overrides, labels, overwriteDrift: action.drift.length > 0 } };
}

/** Starts a run for each cell and waits for all of them. How many work at once is the semaphore of those runs. @throws CellplaneError fleet_incomplete */
async function each(context: Context, actions: CellAction[]): Promise<Outcome> {
  const children = await Promise.all(
    actions.map(async (action) => {
      const child = childOf(action);
      return child && { cell: action.cell, run: await context.operation(await context.child(child.workflow, action.cell, child.input as unknown as Json)) };
    }),
  );
  const runs = children.filter((child) => child !== null);
  const open = runs.filter(({ run }) => !isFinal(run.state));
  if (runs.length > 0) await context.progress(`${runs.length - open.length} of ${runs.length} cells done`);
  if (open.length > 0) return { kind: "children", runIds: open.map(({ run }) => run.id) };
  const failed = runs.filter(({ run }) => run.state !== "succeeded");
  if (failed.length > 0) throw fail("fleet_incomplete", { cells: failed.map(({ cell, run }) => `${cell}: ${run.error?.message ?? run.state} (operation ${run.id})`) });
  return { kind: "done" };
}

const actionsOf = ({ input }: Context, kind: CellAction["action"]): CellAction[] => input.plan.cells.filter(({ action }) => action === kind);

export function fleetWorkflows({ fleets, routes }: FleetDeps): Workflow[] {
  const apply: Workflow<ApplyFleetInput> = {
    name: "fleet.apply",
    version: 1,
    input: ApplyFleetInput,
    subject: ({ plan }) => `fleet/${plan.fleet}`,
    locks: () => [{ name: "fleet", slots: 1 }],
    // Nothing is undone: the file says what is wanted, and what could not be reached is still wanted. Applying again goes on from there.
    steps: [
      {
        name: "store",
        tx: async ({ input: { wanted, plan } }, tx) => {
          const former = await fleets.current(tx);
          await fleets.save(tx, wanted, plan.generation);
          const rules = wanted.fleet.routing.identify;
          if (canonicalJson(former?.fleet.routing.identify) !== canonicalJson(rules)) routes.publish(tx, [{ kind: "rules", rules }]);
        },
      },
      { name: "create cells", run: (context) => each(context, actionsOf(context, "create")) },
      // One alone: what breaks a cell breaks this one, and the others stay as they are.
      { name: "update first cell", run: (context) => each(context, actionsOf(context, "update").slice(0, 1)) },
      { name: "update other cells", run: (context) => each(context, actionsOf(context, "update").slice(1)) },
      { name: "destroy cells", run: (context) => each(context, actionsOf(context, "destroy")) },
    ],
  };
  return [workflow(apply)];
}
