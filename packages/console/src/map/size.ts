import type { Cell } from "../../../cellplane/src/cell/model.ts";
import type { Rates } from "../live/fleet.ts";

export const sizings = ["equal", "tenants", "capacity", "rate"] as const;
export type Sizing = (typeof sizings)[number];

/** What each cell's area stands for; null when all are alike. */
export function weightsOf(cells: readonly Cell[], sizing: Sizing, rates: ReadonlyMap<string, Rates>): number[] | null {
  switch (sizing) {
    case "equal":
      return null;
    case "tenants":
      return cells.map((cell) => cell.used.tenants ?? 0);
    case "capacity":
      return cells.map((cell) => cell.capacity.tenants ?? 0);
    case "rate":
      return cells.map((cell) => rates.get(cell.name)?.at(-1) ?? 0);
  }
}
