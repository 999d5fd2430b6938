import type { Observed, CellSpec, CellEndpoints, HealthCheck } from "../cell/model.ts";
import type { RouteChange } from "../routing/model.ts";
import type { Tx } from "../store/model.ts";

/** The ports: what the workflows need from the world, and nothing of how an engine does it. One folder per engine beside this file. */

/** What every call to an engine carries. */
export interface DriverContext {
  /** Names the effect: the same key applied twice is one effect. Stored with the resource, so re-entry resumes. */
  opKey: string;
  /** Fencing: an engine that has seen a higher epoch for the cell refuses. */
  epoch: number;
  signal: AbortSignal;
  /** One line of progress for people. */
  log: (line: string) => void;
}

export interface CellChange {
  /** As in `services.app.env.LOG_LEVEL`. */
  path: string;
  from: unknown;
  to: unknown;
}

export interface CellPlan {
  /** Digest of everything below; applying names it. */
  hash: string;
  spec: CellSpec;
  changes: CellChange[];
  /** True when the change restarts services that run. */
  restarts: boolean;
  /** `observedHash` the plan was made from; apply refuses when the cell has changed since. Null: it did not exist. */
  baseObserved: string | null;
  /** Foreign changes that the spec does not have either are undone; apply refuses them otherwise. */
  overwritesDrift: boolean;
}

/** What each engine promises is written down in docs/drivers.md and tried by testing/conformance.ts. */
export interface CellDriver {
  readonly name: string;
  /**
   * Read-only. The same spec against the same cell gives the same plan.
   *
   * @throws CellplaneError invalid_input for a spec this engine cannot make, cell_name_kept
   */
  plan(spec: CellSpec, signal: AbortSignal, options?: { overwriteDrift?: boolean }): Promise<CellPlan>;
  /**
   * Makes the cell what the plan says and returns when it is ready. Idempotent by opKey: killed anywhere and called again
   * it goes on, and what it has answered once it answers again. When an update does not become ready the former cell is
   * brought back first.
   *
   * @throws CellplaneError plan_stale, fenced, cell_drifted; update_reverted, revert_failed, cell_not_healthy, schema_step_failed,
   *   schema_checksum; driver_failed and what a machine may lack (disk_full, port_in_use, …); the signal's reason
   */
  apply(plan: CellPlan, context: DriverContext): Promise<Observed>;
  observe(cell: string, signal: AbortSignal): Promise<Observed>;
  health(cell: string, signal: AbortSignal): Promise<HealthCheck[]>;
  /** Where the routers find its services; null until they were ready once. */
  endpoints(cell: string): Promise<CellEndpoints | null>;
  /**
   * Stops everything and leaves a tombstone; data are kept until `purge`. Idempotent.
   *
   * @throws CellplaneError fenced
   */
  destroy(cell: string, context: DriverContext, options: { purge: boolean }): Promise<void>;
}

export interface TenantEraser {
  /**
   * Removes every row of a tenant from its cell's database. Idempotent.
   *
   * @returns rows removed, by table; tables without any are left out
   * @throws CellplaneError erase_failed, driver_failed
   */
  erase(cell: string, tenant: string, signal: AbortSignal): Promise<Record<string, number>>;
}

/** Where nouns say that a route has changed; the changes get the next versions of the route log when the transaction commits. */
export interface RoutePublisher {
  publish(tx: Tx, changes: RouteChange[]): void;
}

/** Where nouns say what happened, for people and streams; written when the transaction commits. `subject` as in "cell/eu-1". */
export interface EventSink {
  emit(tx: Tx, kind: string, subject: string, data: Record<string, unknown>): void;
}
