import { z } from "zod";

/**
 * What runs on one machine is stopped from the outside in, so that nothing asks for what is gone already; tiers say how
 * far inside a service stands.
 */
export const tiers = ["traffic", "router", "app", "control", "database"] as const;

/** Fits a file name; the dot keeps a cell's name apart from its service's. */
const ServiceName = z.string().regex(/^[a-z0-9][a-z0-9.-]{0,140}$/);

/** When a process counts as ready. */
export const ReadyWhen = z.discriminatedUnion("kind", [
  /** A GET answers 2xx. */
  z.strictObject({ kind: z.literal("http"), url: z.string() }),
  /** A connection is accepted. */
  z.strictObject({ kind: z.literal("tcp"), host: z.string(), port: z.int() }),
  /** A PostgreSQL server says so in its data directory; one that runs there already is adopted. */
  z.strictObject({ kind: z.literal("postgres"), dataDirectory: z.string() }),
]);
export type ReadyWhen = z.infer<typeof ReadyWhen>;

/** A process that is to run on this machine, as one file `services/<name>.json` says it. */
export const Service = z.strictObject({
  name: ServiceName,
  tier: z.enum(tiers),
  /** Program and arguments. */
  command: z.array(z.string()).min(1),
  /** Over PATH, HOME, USER, LANG, TZ and TMPDIR of the keeper, which gives nothing else away. */
  env: z.record(z.string(), z.string()).default({}),
  /** Absolute. */
  directory: z.string().startsWith("/"),
  /** Who runs it; null for the keeper's own user. */
  account: z.object({ uid: z.int(), gid: z.int() }).nullable().default(null),
  /** Any text; another one wants a restart. Stands for what the process reads elsewhere, such as a digest of its settings. */
  revision: z.string().default(""),
  /** Services that have to be ready before it is started. */
  after: z.array(ServiceName).default([]),
  /** Null: when it has not ended a moment after its start. */
  ready: ReadyWhen.nullable().default(null),
  readyIntervalMs: z.int().min(10).default(250),
  restart: z.enum(["always", "on-failure", "never"]).default("always"),
  stopSignal: z.enum(["SIGTERM", "SIGINT", "SIGQUIT"]).default("SIGTERM"),
  /** SIGKILL follows after this long. */
  stopTimeoutMs: z.int().min(0).default(10_000),
  logFile: z.string().startsWith("/"),
  /** A longer log is moved to `<logFile>.1`, over the former one. */
  logBytesMax: z.int().min(1024).default(10 * 2 ** 20),
});
export type Service = z.infer<typeof Service>;
/** As callers write it: what has a default may be left out. */
export type NewService = z.input<typeof Service>;

const serviceStates = ["waiting", "starting", "ready", "backoff", "ended", "stopping", "stopped", "invalid"] as const;

/** What the keeper says of a service, also in `services/<name>.status.json`. */
export const ServiceStatus = z.object({
  name: ServiceName,
  /**
   * waiting: for what stands in `after` · starting: runs, not ready yet · ready · backoff: ended, is started again after a
   * pause · ended: and is not started again · stopping, stopped: as asked · invalid: its file cannot be read
   */
  state: z.enum(serviceStates),
  /** The process that runs; identified beyond its pid. */
  process: z.object({ pid: z.int(), startedAt: z.string() }).nullable(),
  /** Digest of the command, environment, folder, account and revision it was launched with; null when it does not run. */
  launched: z.string().nullable(),
  /** How often it ended by itself since it was last ready for a while; 0 after that. */
  failures: z.int().min(0),
  /** Why it is not ready, for people; "" when it is. */
  problem: z.string(),
  /** Length of its log when it was launched: what it wrote itself comes after. */
  logFrom: z.int().min(0),
});
export type ServiceStatus = z.infer<typeof ServiceStatus>;

/** Keeps services of one state directory running: started once, restarted when they end, adopted when a keeper died. */
export interface Keeper {
  /** Writes the service's file and sees to it; the same service again changes nothing. */
  put(service: NewService): Promise<ServiceStatus>;
  /** Stops it and forgets it. Idempotent. */
  remove(name: string): Promise<void>;
  /** In the order of their names. */
  status(): Promise<ServiceStatus[]>;
  /**
   * Waits until it is ready, or until that is not to be expected any more: it ended several times in a row, or the time
   * is over. The status tells which.
   */
  waitReady(name: string, timeoutMs: number, signal?: AbortSignal): Promise<ServiceStatus>;
  /** Stops all, tier by tier; their files stay, so that the next keeper starts them again. Nothing may be put any more. */
  stopAll(): Promise<void>;
  /** Lets go and leaves everything running. */
  close(): Promise<void>;
}
