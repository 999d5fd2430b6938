import { z } from "zod";
import { Name } from "../base/names.ts";
import { cellClasses } from "../cell/model.ts";
import { Tier } from "../tenant/model.ts";

/** shared: many tenants to a cell · cell-per-tenant: each gets one of its own, made when there is none free · one-cell: all live together */
export const strategies = ["shared", "cell-per-tenant", "one-cell"] as const;

/** How arrivals are placed: the `placement` section of the fleet file. */
export const PlacementPolicy = z.strictObject({
  strategy: z.enum(strategies).default("shared"),
  /** The share of every capacity that arrivals leave free, for growth and for tenants of a cell that fails. 0…0.9 */
  headroomRatio: z.number().min(0).max(0.9).default(0.1),
  /** The cell of "one-cell"; null: the one with the lowest number. */
  cell: Name.nullable().default(null),
  /** What a dedicated tenant's cell is made from; null: such a tenant is refused when no empty dedicated cell is there. */
  blueprint: Name.nullable().default(null),
  /** Class of cell for a tier; a tier that is not named lives in shared cells. */
  classes: z.record(Tier, z.enum(cellClasses)).default({}),
});
export type PlacementPolicy = z.infer<typeof PlacementPolicy>;
