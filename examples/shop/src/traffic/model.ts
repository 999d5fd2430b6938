/** The words of the traffic generator, and how an answer is judged. Pure. */

export type WriteKind = "account" | "order" | "amend" | "pay" | "cancel";
export type ReadKind = "orders" | "balance" | "events";

/** How to find a tenant behind the router. */
export type Addressing = { by: "host"; suffix: string } | { by: "header"; header: string } | { by: "path"; prefix: string };

/**
 * What a client may conclude. ok: it was applied · rejected: it was certainly not applied · unknown: it may have been
 * applied once. Nothing may ever be applied twice.
 */
export const outcomes = ["ok", "rejected", "unknown"] as const;
export type Outcome = (typeof outcomes)[number];

export interface Answer {
  /** HTTP status, or why there is none. */
  status: number | "refused" | "timeout" | "reset";
  /** Seconds of Retry-After; null without one. */
  retryAfterSeconds: number | null;
}

/**
 * A 503 with Retry-After is the router's and the shop's word that the request was not applied; without it, and for every
 * other 5xx, the request may have reached its end. "refused" is a connection that never came about.
 */
export function outcomeOf({ status, retryAfterSeconds }: Answer): Outcome {
  if (status === "refused") return "rejected";
  if (status === "timeout" || status === "reset") return "unknown";
  if (status >= 200 && status < 300) return "ok";
  if (status === 503 && retryAfterSeconds !== null) return "rejected";
  return status < 500 ? "rejected" : "unknown";
}

/** `run` names one start of the generator; later runs sort after earlier ones. `number` counts its writes from 0. */
export const operationIdOf = (run: string, number: number): string => `${run}-${number.toString(36).padStart(8, "0")}`;

/** The number of one of this run's operations; null for anyone else's. */
export function operationNumberOf(run: string, operationId: string): number | null {
  if (!operationId.startsWith(`${run}-`)) return null;
  const number = parseInt(operationId.slice(run.length + 1), 36);
  return operationIdOf(run, number) === operationId ? number : null;
}

/** Where and under which headers a tenant's request for `path` is sent. */
export function address(addressing: Addressing, tenant: string, path: string): { path: string; headers: Record<string, string> } {
  switch (addressing.by) {
    case "host":
      return { path, headers: { host: `${tenant}.${addressing.suffix}` } };
    case "header":
      return { path, headers: { [addressing.header]: tenant } };
    case "path":
      return { path: `${addressing.prefix}${tenant}${path}`, headers: {} };
  }
}
