import { z } from "zod";
import { Name } from "../base/names.ts";
import { CreateCellInput } from "../cell/steps.ts";
import type { ClaimStore } from "../claim/store.ts";
import type { TenantEraser } from "../drivers/driver.ts";
import type { Store } from "../store/store.ts";
import { isFinal, type Json, type Lock, type Outcome, type Workflow, workflow } from "../workflow/model.ts";
import type { Admission, TenantStore } from "./store.ts";

export interface TenantWorkflowDeps {
  store: Store;
  tenants: TenantStore;
  claims: ClaimStore;
  admission: Admission;
  /** Removes a tenant's rows from the cell it lived in. */
  eraser: TenantEraser;
}

export const CreateTenantInput = z.object({ tenant: Name, cell: CreateCellInput });
export type CreateTenantInput = z.infer<typeof CreateTenantInput>;

export const DeleteTenantInput = z.object({ tenant: Name });
export type DeleteTenantInput = z.infer<typeof DeleteTenantInput>;

/** Requests that were in a cell when the route went may still write for as long as a cell lets one run. */
const settleMs = 1000;

const tenantLock = (tenant: string): Lock => ({ name: `tenant/${tenant}`, slots: 1 });

export function tenantWorkflows({ store, tenants, claims, admission, eraser }: TenantWorkflowDeps): Workflow[] {
  /** Only for tenants whose cell must be made first; all others have their home when the call that creates them returns. */
  const create: Workflow<CreateTenantInput> = {
    name: "tenant.create",
    version: 1,
    input: CreateTenantInput,
    subject: ({ tenant }) => `tenant/${tenant}`,
    // No lock: a run that is parked must not keep its tenant from being deleted.
    steps: [
      {
        // A person decides what becomes of a cell that cannot be made: the tenant waits and can be deleted.
        name: "make cell",
        run: async ({ input, child, operation }): Promise<Outcome> => {
          const runId = await child("cell.create", "cell", input.cell as unknown as Json);
          const made = await operation(runId);
          if (!isFinal(made.state)) return { kind: "children", runIds: [runId] };
          // After a failure a person may make the cell and have this step tried again.
          if (made.state === "succeeded" || (await tenants.isHomeReady(store, input.cell.spec.cell))) return { kind: "done" };
          const { cell, region, blueprint } = input.cell.spec;
          return { kind: "park", reason: `${cell} could not be made: ${made.error?.message ?? made.state} (${runId}). Make it (cell create ${cell} --region ${region} --blueprint ${blueprint} --set class=dedicated) and retry, or delete the tenant` };
        },
      },
      // Counted in, given its epoch and published in the transaction that records this step.
      { name: "place", whenExhausted: "park", tx: async ({ input }, tx) => void (await admission.settle(tx, input.tenant)) },
    ],
  };

  /** Begun in the transaction that closes the route: no request reaches the cell by a table of now. */
  const remove: Workflow<DeleteTenantInput> = {
    name: "tenant.delete",
    version: 1,
    input: DeleteTenantInput,
    subject: ({ tenant }) => `tenant/${tenant}`,
    locks: ({ tenant }) => [tenantLock(tenant)],
    steps: [
      {
        // Twice over: what a request that was still running wrote behind the first pass is found by the next, and only a
        // pass that finds nothing ends it. No undo: what is erased is gone.
        name: "erase",
        retry: { attemptsMax: 20, firstDelayMs: 500, delayMaxMs: 60_000 },
        whenExhausted: "park",
        run: async ({ input, signal, progress, elapsedMs }): Promise<Outcome> => {
          const [tenant] = await tenants.getAll(store, [input.tenant]);
          if (!tenant?.cell) return { kind: "done", result: {} };
          const removed = await eraser.erase(tenant.cell, tenant.name, signal as AbortSignal);
          const rows = Object.values(removed).reduce((sum, count) => sum + count, 0);
          await progress(`${rows} rows erased in ${tenant.cell}`);
          return rows > 0 || elapsedMs < settleMs ? { kind: "again", afterMs: settleMs } : { kind: "done" };
        },
      },
      {
        name: "forget",
        tx: async ({ input }, tx) => {
          await tenants.forget(tx, input.tenant);
          await claims.releaseAll(tx, input.tenant);
        },
      },
    ],
  };

  return [workflow(create), workflow(remove)];
}
