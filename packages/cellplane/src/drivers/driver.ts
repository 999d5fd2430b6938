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
  /** True when the change restarts services. */
  restarts: boolean;
  /** `observedHash` the plan was made from; apply refuses when the cell has changed since. Null: it did not exist. */
  baseObserved: string | null;
}

export interface CellDriver {
  readonly name: string;
  /** Read-only. */
  plan(spec: CellSpec, signal: AbortSignal): Promise<CellPlan>;
  /** Idempotent by opKey. @throws CellplaneError plan_stale, fenced, driver_failed */
  apply(plan: CellPlan, context: DriverContext): Promise<Observed>;
  observe(cell: string, signal: AbortSignal): Promise<Observed>;
  health(cell: string, signal: AbortSignal): Promise<HealthCheck[]>;
  /** Where the routers find its services; null until it runs. */
  endpoints(cell: string): Promise<CellEndpoints | null>;
  /** Stops everything and leaves a tombstone; data are kept until `purge`. Idempotent. */
  destroy(cell: string, context: DriverContext, options: { purge: boolean }): Promise<void>;
}

/** Removes every row of a tenant from its cell's database. @returns rows removed, by table */
export interface TenantEraser {
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
