import { faults, type Verdict } from "./check.ts";
import type { Seen } from "./load.ts";

/** What a run ends with: what clients saw, and what of it is true. */
export interface Receipt {
  seen: Omit<Seen, "inFlight"> | null;
  /** Null when nothing was checked. */
  verdict: Verdict | null;
  kept: boolean;
}

const meanings: Record<(typeof faults)[number], string> = {
  lost: "acknowledged, and not there",
  duplicated: "applied or delivered twice",
  ghosts: "rejected to the client, and there",
  misplaced: "there, under another tenant",
  unexplained: "there, and sent by nobody",
  ledgersOff: "tenants whose books do not add up",
  tenantsUnverified: "tenants that could not be asked",
};

const ms = (value: number): string => `${Number(value.toPrecision(3))} ms`;

/** A line each, for people. */
export function receiptLines({ seen, verdict, kept }: Receipt): string[] {
  const lines: [string, string | number][] = [];
  if (seen) {
    const failures = Object.entries(seen.failures).map(([status, count]) => `${status}: ${count}`);
    lines.push(["requests", `${seen.requests} in ${Math.round(seen.seconds)} s for ${seen.tenants} tenants`], ["failed", `${seen.requests - seen.ok}${failures.length > 0 ? ` (${failures.join(", ")})` : ""}`]);
    if (seen.unsent > 0) lines.push(["unsent", seen.unsent]);
    lines.push(["unknown", seen.unknown], ["latency", `p50 ${ms(seen.p50Ms)}, p99 ${ms(seen.p99Ms)}`]);
    lines.push(["longest pause", `${ms(seen.longestPauseMs)}${seen.longestPauseTenant === null ? "" : ` (${seen.longestPauseTenant})`}`]);
  }
  if (verdict) {
    lines.push(["checked", `${verdict.writesChecked} writes of ${verdict.tenantsChecked} tenants`]);
    if (verdict.tenantsDeparted > 0) lines.push(["departed", `${verdict.tenantsDeparted} tenants`]);
    for (const fault of faults) lines.push([fault, `${String(verdict[fault]).padEnd(8)} ${meanings[fault]}`]);
    lines.push(["verdict", kept ? "every promise kept" : "BROKEN PROMISES"]);
  }
  return [...lines.map(([name, value]) => `${name.padEnd(18)} ${value}`), ...(verdict?.examples ?? []).map((example) => `  ${example}`)];
}
