import { type Refusal, refuse } from "./refusal.ts";
import { type ReadHeader, type Stamp, stampReader } from "./stamp.ts";
import { currentTenant, type TenantContext } from "./tenant.ts";

export interface GuardOptions {
  /** The name of the cell this app runs in. */
  cell: string;
  /** The fleet's stamp secret; several while one replaces another. */
  secret: string | readonly string[];
  /** What becomes of a request without any stamp: refuse (default), or allow for local development; then there is no current tenant. */
  unstamped?: "refuse" | "allow";
  /** Exact paths that need no stamp, since probes come from beside the router. Default: /ready and /health */
  healthPaths?: readonly string[];
  /** A tenant's epoch as this cell knows it from elsewhere, such as its fence row; read from memory, since it is asked on each request. */
  epochOf?: (tenant: string) => number | undefined;
  /** Told of each refusal, for metrics and logs. What it throws is not caught. */
  onRefuse?: (refusal: Refusal) => void;
  /** How many tenants' highest epochs and verified stamps are kept in memory; the oldest go first. Default: 100,000 */
  tenantsMax?: number;
}

/** What is decided of a request before the app sees it. `tenant` is undefined where no stamp is needed. */
export type Admission = { refusal: Refusal; tenant?: never } | { refusal?: never; tenant: TenantContext | undefined };

/** The guard without a web framework. */
export interface Gate {
  /** @param path the path of the request target; a query after it is ignored */
  admit(path: string, read: ReadHeader): Admission;
  /** The 421 for an error by which the database's fence refused a write (SQLSTATE CP001); null for any other error. */
  mapError(error: unknown): Refusal | null;
}

/** Drivers wrap errors: the one of PostgreSQL may stand a few causes down. */
const causesMax = 8;
/** Raised by the fence in the cell's database. Its transaction is aborted, so the request may be sent again. */
const fenceSqlState = "CP001";

export function createGate(options: GuardOptions): Gate {
  const { cell, unstamped = "refuse", healthPaths = ["/ready", "/health"], epochOf, onRefuse, tenantsMax = 100_000 } = options;
  const secrets = typeof options.secret === "string" ? [options.secret] : options.secret;
  if (cell === "") throw new TypeError("createGuard: `cell` is empty; pass the name of the cell this app runs in");
  if (secrets.length === 0 || secrets.includes("")) throw new TypeError("createGuard: `secret` is empty; pass the fleet's stamp secret");
  const readStamp = stampReader(secrets, tenantsMax);
  const withoutStamp = new Set(healthPaths);
  const highest = new Map<string, number>();

  const refused = (refusal: Refusal): Admission => {
    onRefuse?.(refusal);
    return { refusal };
  };

  /** Raises the highest epoch seen of the stamp's tenant to the stamp's, if it is higher. @returns the highest epoch known */
  function highestKnown(stamp: Stamp): number {
    const seen = highest.get(stamp.tenant) ?? 0;
    if (stamp.epoch > seen) {
      const oldest = seen === 0 && highest.size >= tenantsMax ? highest.keys().next().value : undefined;
      if (oldest !== undefined) highest.delete(oldest);
      highest.set(stamp.tenant, stamp.epoch);
    }
    return Math.max(seen, stamp.epoch, epochOf?.(stamp.tenant) ?? 0);
  }

  return {
    admit(path, read) {
      if (withoutStamp.has(path.split("?", 1)[0] ?? "")) return { tenant: undefined };
      const stamp = readStamp(read);
      if (stamp === "unstamped" && unstamped === "allow") return { tenant: undefined };
      if (stamp === "unstamped") return refused(refuse(stamp, "none of the x-cellplane headers is there", null));
      if (stamp === "stamp_malformed") return refused(refuse(stamp, "an x-cellplane header is missing or is not what a router writes", null));
      if (stamp === "stamp_forged") return refused(refuse(stamp, "the signature does not fit tenant, cell and epoch", null));
      if (stamp.cell !== cell) return refused(refuse("misdirected", `the request is for ${stamp.cell}; this is ${cell}`, stamp, { here: cell }));
      const epoch = highestKnown(stamp);
      if (stamp.epoch < epoch) return refused(refuse("route_stale", `${stamp.tenant} moved: asked at epoch ${stamp.epoch}, the cell is at ${epoch}`, stamp, { known: epoch }));
      return { tenant: stamp };
    },

    mapError(error) {
      for (let cause = error, depth = 0; typeof cause === "object" && cause !== null && depth < causesMax; cause = (cause as { cause?: unknown }).cause, depth++) {
        if ((cause as { code?: unknown }).code !== fenceSqlState) continue;
        const stamp = currentTenant() ?? null;
        const refusal = refuse("route_stale", `the database's fence refused a write of ${stamp?.tenant ?? "the tenant"}; nothing of it was applied`, stamp);
        onRefuse?.(refusal);
        return refusal;
      }
      return null;
    },
  };
}
