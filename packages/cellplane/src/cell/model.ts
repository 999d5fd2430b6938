import { z } from "zod";
import { Labels, Name } from "../base/names.ts";

/**
 * A cell's life (machine.ts has every case):
 *
 *   requested ─► provisioning ─► active ◄─► cordoned ─► draining ─► empty ─► retired ─► destroyed
 *       ▲             │            ▲                       │          │          ▲
 *       └── failed ◄──┘            └──── uncordon ─────────┴──────────┘          └── any state, once no tenant is left
 *
 * `state` is what people decided and what was done about it. Health is observed apart from it, since a cordoned cell may
 * be well and an active one down; and an update is an operation on a cell that goes on serving, not a state.
 */
export const cellStates = ["requested", "provisioning", "active", "cordoned", "draining", "empty", "retired", "destroyed", "failed"] as const;
export type CellState = (typeof cellStates)[number];

export const cellClasses = ["shared", "dedicated", "sandbox"] as const;

/** How much of each thing a cell holds, load-tested, or a tenant takes. A dimension that is not named is not limited. */
export const Capacity = z.object({
  tenants: z.int().min(0).optional(),
  /** PostgreSQL connections. */
  connections: z.number().min(0).optional(),
  requestsPerSecond: z.number().min(0).optional(),
  diskBytes: z.number().min(0).optional(),
}).meta({ id: "Capacity" });
export type Capacity = z.infer<typeof Capacity>;
export const dimensions = ["tenants", "connections", "requestsPerSecond", "diskBytes"] as const satisfies readonly (keyof Capacity)[];

const Readiness = z.strictObject({
  path: z.string().startsWith("/"),
  /** How long a fresh service may take until it answers 2xx. */
  timeoutMs: z.int().min(100).max(600_000).default(15_000),
  intervalMs: z.int().min(50).max(60_000).default(250),
});

export const ServiceSpec = z.strictObject({
  /** Program and arguments. `${port.http}`, `${database.url}`, `${cell.name}`, `${cell.region}`, `${config.file}` and `${env.X}` are filled in. */
  command: z.array(z.string().min(1)).min(1).optional(),
  /** For drivers that run containers; the local driver wants `command`. */
  image: z.string().optional(),
  env: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string()).default({}),
  /** Name → port number, or "auto" for one the driver picks and keeps. The one named "http" is where routers send requests. */
  ports: z.record(Name, z.union([z.literal("auto"), z.int().min(1).max(65535)])).default({}),
  readiness: Readiness.optional(),
  /** Where a relative program path and the process itself start; default: the folder of the fleet file. */
  directory: z.string().optional(),
}).meta({ id: "ServiceSpec" });
export type ServiceSpec = z.infer<typeof ServiceSpec>;

const DatabaseSpec = z.strictObject({
  engine: z.literal("postgres"),
  /** Settings for postgresql.conf. */
  settings: z.record(z.string().regex(/^[a-z_.]+$/), z.union([z.string(), z.number(), z.boolean()])).default({}),
  /** SQL files run once each, in the order of their names; a folder or single files, relative to the fleet file. */
  schema: z.array(z.string()).default([]),
  /** The column that names the tenant in every tenant table. */
  tenantColumn: z.string().regex(/^[a-z_][a-z0-9_]*$/).default("tenant_id"),
}).meta({ id: "DatabaseSpec" });

/** What all cells of a kind have in common; a cell is a blueprint in a region. */
export const Blueprint = z.strictObject({
  class: z.enum(cellClasses).default("shared"),
  driver: z.string().default("local"),
  services: z.record(Name, ServiceSpec),
  database: DatabaseSpec.optional(),
  /** The cell's own configuration, given to its services as a JSON file. */
  config: z.record(z.string(), z.json()).default({}),
  capacity: Capacity.strict().default({}),
  /** Label of the app's version, shown everywhere; changing it alone is an update. */
  version: z.string().max(100).default("1"),
});
export type Blueprint = z.infer<typeof Blueprint>;

/** Everything a driver needs to make the cell; the same spec, the same cell. */
export const CellSpec = z.object({
  cell: Name,
  region: Name,
  blueprint: Name,
  /** Blueprint with the cell's own overrides applied. */
  ...Blueprint.shape,
  /** Absolute folder that relative paths start from. */
  baseDirectory: z.string(),
}).meta({ id: "CellSpec" });
export type CellSpec = z.infer<typeof CellSpec>;

export const HealthCheck = z.object({
  /** As in "service/app" or "database". */
  name: z.string(),
  ok: z.boolean(),
  /** What was seen, for people; "" when well. */
  detail: z.string(),
}).meta({ id: "HealthCheck" });
export type HealthCheck = z.infer<typeof HealthCheck>;

/** What an engine says is there, whoever made it so. */
export const Observed = z.object({
  exists: z.boolean(),
  /** Digest of the observed resources; null when the cell does not exist. */
  observedHash: z.string().nullable(),
  /** Digest of the spec last applied by us; null when never applied. */
  specHash: z.string().nullable(),
  /** What differs from the spec last applied, by someone else's hand: kept and shown, never silently overwritten. */
  drift: z.array(z.object({ path: z.string(), expected: z.json().optional(), actual: z.json().optional() })),
  version: z.string().nullable(),
});
export type Observed = z.infer<typeof Observed>;

export const CellEndpoints = z.object({
  /** host:port that routers send the cell's requests to. */
  http: z.string(),
  /** postgres:// URL for operators of the cell; never shown by the API. */
  databaseUrl: z.string().nullable(),
});
export type CellEndpoints = z.infer<typeof CellEndpoints>;

/** Who wanted it: the fleet file, a person by `cell create`, or placement for a tenant's own cell. Only the file's cells are ever pruned. */
export const cellOrigins = ["fleet", "person", "placement"] as const;

/** Fields of the blueprint that one cell has otherwise: objects are merged, anything else is replaced. */
export const Overrides = z.record(z.string(), z.json());
export type Overrides = z.infer<typeof Overrides>;

export const NewCell = z.strictObject({
  name: Name,
  region: Name,
  blueprint: Name,
  overrides: Overrides.default({}),
  labels: Labels.default({}),
});
export type NewCell = z.infer<typeof NewCell>;

/** One field that differs; `from` absent when it is added, `to` absent when it is removed. */
export const FieldChange = z.object({
  /** As in `services.app.env.LOG_LEVEL`. */
  path: z.string(),
  from: z.json().optional(),
  to: z.json().optional(),
});
export type FieldChange = z.infer<typeof FieldChange>;

export const Cell = z.object({
  name: Name,
  region: Name,
  blueprint: Name,
  class: z.enum(cellClasses),
  driver: z.string(),
  origin: z.enum(cellOrigins),
  /** The number routers know it by; never used again after the cell is destroyed. 1…65535 */
  index: z.int().min(1).max(65535),
  state: z.enum(cellStates),
  /** +1 with every change of spec or state. */
  generation: z.int().min(1),
  version: z.string(),
  capacity: Capacity,
  /** Sum of what its tenants take, in the same dimensions. */
  used: Capacity,
  labels: Labels,
  health: z.object({
    /** null until it was looked at. */
    ok: z.boolean().nullable(),
    checks: z.array(HealthCheck),
    observedAt: z.iso.datetime().nullable(),
  }),
  /** Foreign changes seen by the last look. */
  drift: Observed.shape.drift,
  /** What this cell has otherwise than its blueprint. */
  overrides: Overrides,
  /** host:port for routers; null until it runs. */
  endpoint: z.string().nullable(),
  /** Id of the operation in work on it; null when none. */
  operation: z.string().nullable(),
  createdAt: z.iso.datetime(),
}).meta({ id: "Cell" });
export type Cell = z.infer<typeof Cell>;

/** What people may do with a cell. */
export const cellVerbs = ["update", "cordon", "uncordon", "drain", "retire", "destroy"] as const;
export type CellVerb = (typeof cellVerbs)[number];

/** A cell with what it is made from, and why a verb would be refused now. */
export const CellDetail = z.object({
  ...Cell.shape,
  spec: CellSpec,
  /** null: it may be done. */
  refused: z.record(z.enum(cellVerbs), z.string().nullable()),
});
export type CellDetail = z.infer<typeof CellDetail>;
