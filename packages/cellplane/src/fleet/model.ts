import { z } from "zod";
import { Labels, Name } from "../base/names.ts";
import { Blueprint, CellSpec, cellStates, FieldChange, Overrides } from "../cell/model.ts";
import { PlacementPolicy } from "../placement/model.ts";
import { IdentifyRule } from "../routing/model.ts";

const Region = z.strictObject({
  /** Meant to be without cells for now; otherwise a region without cells is taken for a slip. */
  spare: z.boolean().default(false),
  labels: Labels.default({}),
});

const FleetCell = z.strictObject({
  region: Name,
  blueprint: Name,
  overrides: Overrides.default({}),
  labels: Labels.default({}),
});

/** The fleet file, `cellplane.yaml`: everything about a fleet that is decided and not observed. */
export const Fleet = z.strictObject({
  fleet: Name,
  /** `eu:` alone is a region with nothing special about it. */
  regions: z.record(Name, Region.nullable()),
  blueprints: z.record(Name, Blueprint),
  cells: z.record(Name, FleetCell).default({}),
  placement: PlacementPolicy.prefault({}),
  routing: z.strictObject({ identify: z.array(IdentifyRule).min(1) }).default({ identify: [{ by: "host" }] }),
});
export type Fleet = z.infer<typeof Fleet>;

/** The file that was applied last. */
export const StoredFleet = z.object({
  fleet: Fleet,
  /** +1 with each apply that changed it; 0 before the first. */
  generation: z.int().min(0),
  /** Name of the file, for messages. */
  file: z.string(),
  /** Absolute folder that relative paths in it start from. */
  baseDirectory: z.string(),
  appliedAt: z.iso.datetime(),
});
export type StoredFleet = z.infer<typeof StoredFleet>;

/** What applying a file does to one cell. */
export const CellAction = z.object({
  cell: Name,
  region: Name,
  action: z.enum(["create", "update", "destroy", "none"]),
  /** Why, or what keeps it from being done; "" when there is nothing to say. */
  note: z.string(),
  changes: z.array(FieldChange),
  restarts: z.boolean(),
  /** What it is to become; null when nothing is done or it is destroyed. */
  spec: CellSpec.nullable(),
  overrides: Overrides,
  labels: Labels,
  /** As it was when the plan was made; null: there was none. */
  generation: z.int().nullable(),
  state: z.enum(cellStates).nullable(),
  tenants: z.int().min(0),
  /** Paths of what someone else changed. */
  drift: z.array(z.string()),
});
export type CellAction = z.infer<typeof CellAction>;

export const FleetPlan = z.object({
  fleet: Name,
  /** Of the fleet it was made from; 0 before the first apply. */
  generation: z.int().min(0),
  prune: z.boolean(),
  overwriteDrift: z.boolean(),
  /** What changes outside of `cells`. */
  settings: z.array(FieldChange),
  /** The file is not the one applied last, be it only that a cell that is kept no longer stands in it. */
  fileChanged: z.boolean(),
  /** In the order in which they are carried out. */
  cells: z.array(CellAction),
});
export type FleetPlan = z.infer<typeof FleetPlan>;
