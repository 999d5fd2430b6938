import { fail } from "../base/errors.ts";
import type { TenantState } from "./model.ts";

const tenantEvents = ["placed", "suspend", "resume", "delete"] as const;
export type TenantEvent = (typeof tenantEvents)[number];

/** "stay": a repeat, harmless. "refuse": the caller must first do something else. */
const moves: Record<TenantState, Record<TenantEvent, TenantState | "stay" | "refuse">> = {
  pending: { placed: "active", suspend: "refuse", resume: "refuse", delete: "deleting" },
  active: { placed: "stay", suspend: "suspended", resume: "stay", delete: "deleting" },
  suspended: { placed: "stay", suspend: "stay", resume: "active", delete: "deleting" },
  deleting: { placed: "refuse", suspend: "refuse", resume: "refuse", delete: "stay" },
};

/** @returns the state after the event, which is the same when it changes nothing @throws CellplaneError wrong_state */
export function next(tenant: { name: string; state: TenantState }, event: TenantEvent): TenantState {
  const to = moves[tenant.state][event];
  if (to === "stay") return tenant.state;
  if (to === "refuse") throw fail("wrong_state", { what: "tenant", name: tenant.name, state: tenant.state, wanted: statesThatTake(event) });
  return to;
}

const statesThatTake = (event: TenantEvent): string =>
  (Object.keys(moves) as TenantState[]).filter((state) => moves[state][event] !== "refuse").join(" or ");
