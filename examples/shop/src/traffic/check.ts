import type { Audit } from "../model.ts";
import { openClient } from "./client.ts";
import type { Recorded } from "./journal.ts";
import { operationIdOf, operationNumberOf } from "./model.ts";

/** What was promised and what is there. */
export interface Verdict {
  tenantsChecked: number;
  /** Tenants of the run that are no more; nothing is said of their writes. */
  tenantsDeparted: number;
  writesChecked: number;
  /** Acknowledged, and not there. */
  lost: number;
  /** Applied, or delivered after it had been applied, more than once. */
  duplicated: number;
  /** Rejected to the client, and there all the same. */
  ghosts: number;
  /** There, but under another tenant than the one it was sent for. */
  misplaced: number;
  /** There, though no client sent it. */
  unexplained: number;
  /** Without a clear answer to the client, and there once: what may happen. */
  unknownApplied: number;
  /** Tenants whose books do not add up. */
  ledgersOff: number;
  /** Tenants that could not be asked, so that nothing is proved. */
  tenantsUnverified: number;
  /** The first few of each, for people. */
  examples: string[];
}

/** The counts that must be zero. */
export const faults = ["lost", "duplicated", "ghosts", "misplaced", "unexplained", "ledgersOff", "tenantsUnverified"] as const satisfies readonly (keyof Verdict)[];
type Fault = (typeof faults)[number];

export const isBroken = (verdict: Verdict): boolean => faults.some((fault) => verdict[fault] > 0);

export interface CheckOptions {
  /** Null: as the journal says. */
  target: string | null;
  /** How long a tenant's shop may take to answer at all. */
  patienceMs: number;
  /** The tenants there are; those of the run that are not among them have departed and are not asked. Null: all are there. */
  present: ReadonlySet<string> | null;
}

const examplesMax = 20;
const pageSize = 1000;

/** Asks each tenant's shop, through the router, for every operation of the run, and compares with what the clients were told. */
export async function check(recorded: Recorded, { target, patienceMs, present }: CheckOptions): Promise<Verdict> {
  const client = openClient({ target: target ?? recorded.target, addressing: recorded.addressing, timeoutMs: 10_000, connectionsMax: 4 });
  const verdict: Verdict = {
    tenantsChecked: 0, tenantsDeparted: 0, writesChecked: 0, lost: 0, duplicated: 0, ghosts: 0, misplaced: 0, unexplained: 0, unknownApplied: 0, ledgersOff: 0, tenantsUnverified: 0, examples: [],
  };
  /** How often each operation is there, whosever it is. */
  const applied = new Uint8Array(recorded.next);
  const verified = new Set<number>();
  const broken = (what: Fault, example: string): void => {
    verdict[what]++;
    if (verdict.examples.length < examplesMax) verdict.examples.push(`${what}: ${example}`);
  };

  async function get<T>(tenant: string, path: string): Promise<T> {
    const giveUpMs = performance.now() + patienceMs;
    for (;;) {
      const { status, body } = await client.send(tenant, { method: "GET", path });
      if (status === 200 && body !== null) return body as T;
      if (performance.now() > giveUpMs) throw new Error(`GET ${path} answered ${status}`);
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
  }

  async function checkTenant(index: number, tenant: string): Promise<void> {
    // Ids of the run sort after its name alone and before the name with a character above the hyphen.
    for (let after = `${recorded.run}-`; ; ) {
      const { items } = await get<{ items: { operationId: string; events: number; deliveries: number }[] }>(tenant, `/operations?limit=${pageSize}&after=${encodeURIComponent(after)}`);
      for (const { operationId, events, deliveries } of items) {
        const number = operationNumberOf(recorded.run, operationId);
        if (number === null) continue;
        const owner = recorded.tenantOf(number);
        if (number >= recorded.next || owner === -1) {
          // Of a generator that was killed the last writes have no line; they count as unknown.
          if (recorded.complete && number >= recorded.from) broken("unexplained", `${operationId} of ${tenant}`);
          else if (events > 1 || deliveries > 1) broken("duplicated", `${operationId} of ${tenant}: applied ${events}, delivered ${deliveries} times`);
          else verdict.unknownApplied++;
        } else if (owner !== index) {
          broken("misplaced", `${operationId} was sent for ${recorded.tenants[owner]} and is with ${tenant}`);
        } else {
          // An operation without its event was claimed and not done: as good as absent.
          applied[number] = Math.min(255, (applied[number] ?? 0) + (events === 0 ? 0 : Math.max(events, deliveries)));
        }
      }
      const last = items.at(-1)?.operationId;
      if (items.length < pageSize || last === undefined || !last.startsWith(`${recorded.run}-`)) break;
      after = last;
    }
    const audit = await get<Audit>(tenant, "/audit");
    const { operations: _, ...off } = audit;
    if (Object.values(off).some((count) => count !== 0)) broken("ledgersOff", `${tenant}: ${JSON.stringify(off)}`);
    verified.add(index);
    verdict.tenantsChecked++;
  }

  const rest = [...recorded.tenants.entries()].filter(([, tenant]) => present?.has(tenant) ?? true);
  verdict.tenantsDeparted = recorded.tenants.length - rest.length;
  const worker = async (): Promise<void> => {
    for (let next = rest.shift(); next; next = rest.shift()) {
      const [index, tenant] = next;
      await checkTenant(index, tenant).catch((error: Error) => broken("tenantsUnverified", `${tenant}: ${error.message}`));
    }
  };
  await Promise.all(Array.from({ length: 4 }, worker));

  for (let number = recorded.from; number < recorded.next; number++) {
    const outcome = recorded.outcomeOf(number);
    const tenant = recorded.tenantOf(number);
    if (outcome === null || !verified.has(tenant)) continue;
    const times = applied[number] ?? 0;
    const example = `${operationIdOf(recorded.run, number)} of ${recorded.tenants[tenant]}`;
    verdict.writesChecked++;
    if (times > 1) broken("duplicated", `${example}, ${times} times`);
    else if (outcome === "ok" && times === 0) broken("lost", example);
    else if (outcome === "rejected" && times === 1) broken("ghosts", example);
    else if (outcome === "unknown" && times === 1) verdict.unknownApplied++;
  }
  client.close();
  return verdict;
}
