import { fail } from "../base/errors.ts";
import type { CellState } from "./model.ts";

/** What is decided about a cell, or has been done to it. */
export const cellEvents = ["request", "provision", "activate", "fail", "cordon", "uncordon", "drain", "emptied", "retire", "destroy"] as const;
export type CellEvent = (typeof cellEvents)[number];

/**
 * "stay": a repeat, harmless. "refuse": must not happen. What depends on more than the state (a cell with tenants is
 * not retired) is a guard in the plan and in the statement that writes the row.
 */
export const moves: Record<CellState, Record<CellEvent, CellState | "stay" | "refuse">> = {
  requested: {
    request: "stay", provision: "provisioning", activate: "refuse", fail: "failed", cordon: "refuse",
    uncordon: "refuse", drain: "refuse", emptied: "refuse", retire: "retired", destroy: "refuse",
  },
  provisioning: {
    request: "refuse", provision: "stay", activate: "active", fail: "failed", cordon: "refuse",
    uncordon: "refuse", drain: "refuse", emptied: "refuse", retire: "retired", destroy: "refuse",
  },
  active: {
    request: "refuse", provision: "refuse", activate: "stay", fail: "refuse", cordon: "cordoned",
    uncordon: "stay", drain: "draining", emptied: "refuse", retire: "retired", destroy: "refuse",
  },
  cordoned: {
    request: "refuse", provision: "refuse", activate: "refuse", fail: "refuse", cordon: "stay",
    uncordon: "active", drain: "draining", emptied: "refuse", retire: "retired", destroy: "refuse",
  },
  // A drain is called off by uncordon or cordon; the run that waits for the last tenant sees it and ends.
  draining: {
    request: "refuse", provision: "refuse", activate: "refuse", fail: "refuse", cordon: "cordoned",
    uncordon: "active", drain: "stay", emptied: "empty", retire: "retired", destroy: "refuse",
  },
  empty: {
    request: "refuse", provision: "refuse", activate: "refuse", fail: "refuse", cordon: "stay",
    uncordon: "active", drain: "stay", emptied: "stay", retire: "retired", destroy: "refuse",
  },
  // From here there is no way back: routers have been told, and the engine may be taking it down.
  retired: {
    request: "refuse", provision: "refuse", activate: "refuse", fail: "refuse", cordon: "refuse",
    uncordon: "refuse", drain: "refuse", emptied: "refuse", retire: "stay", destroy: "destroyed",
  },
  destroyed: {
    request: "refuse", provision: "refuse", activate: "refuse", fail: "refuse", cordon: "refuse",
    uncordon: "refuse", drain: "refuse", emptied: "refuse", retire: "refuse", destroy: "stay",
  },
  failed: {
    request: "requested", provision: "refuse", activate: "refuse", fail: "stay", cordon: "refuse",
    uncordon: "refuse", drain: "refuse", emptied: "refuse", retire: "retired", destroy: "refuse",
  },
};

/** @throws CellplaneError wrong_state when the event may not happen in this state */
export function next(cell: { name: string; state: CellState }, event: CellEvent): CellState {
  const to = moves[cell.state][event];
  if (to !== "refuse") return to === "stay" ? cell.state : to;
  const wanted = Object.entries(moves).filter(([, row]) => row[event] !== "refuse").map(([state]) => state);
  throw fail("wrong_state", { what: "cell", name: cell.name, state: cell.state, wanted: wanted.join(" or ") });
}

/** New tenants may be placed on it. */
export const takesTenants = (state: CellState): boolean => state === "active";

/** Its processes are meant to run, so it is looked at and repaired. */
export const isInService = (state: CellState): boolean => state === "active" || state === "cordoned" || state === "draining" || state === "empty";
