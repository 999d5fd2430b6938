import { randomBytes } from "node:crypto";
import { type Client, openClient, type Request } from "./client.ts";
import { openJournal } from "./journal.ts";
import { histogram, pauses } from "./measure.ts";
import { type Move, newShopper, nextMove, settle, type Shopper } from "./mix.ts";
import { type Addressing, type Answer, operationIdOf, type Outcome, outcomeOf } from "./model.ts";
import type { TenantSource } from "./tenants.ts";

export interface LoadOptions {
  /** The router's URL. */
  target: string;
  addressing: Addressing;
  tenants: TenantSource;
  /** How often the tenants are asked for again. */
  refreshMs: number;
  /** All tenants together; requests are sent when they are due, however long others take. */
  requestsPerSecond: number;
  /** Share of reads, from 0 to 1. */
  readShare: number;
  timeoutMs: number;
  /** Requests under way at once; what is due beyond that is counted as unsent. */
  inFlightMax: number;
  /** Null: nothing is recorded, and nothing can be checked later. */
  journal: { folder: string; bytesMax: number } | null;
  /** Send what was rejected again as a new operation, after its Retry-After. */
  retry: boolean;
  /** Told of what could not be done beside the traffic, such as reading the tenants. */
  warn: (line: string) => void;
}

/** What was seen, since the start or within a window. Times in ms. */
interface Tally {
  requests: number;
  ok: number;
  rejected: number;
  unknown: number;
  /** Due, but not sent: as many as allowed were under way. */
  unsent: number;
  p50Ms: number;
  p99Ms: number;
}

export interface Seen extends Tally {
  run: string;
  seconds: number;
  tenants: number;
  inFlight: number;
  writesAcknowledged: number;
  /** By status, or by why there was none, of everything that was not ok. */
  failures: Record<string, number>;
  longestPauseMs: number;
  longestPauseTenant: string | null;
}

export interface Load {
  run: string;
  seen(): Seen;
  /** What came since the last call. */
  window(): Tally;
  /** Sends nothing more, waits for what is under way and closes the journal. */
  stop(): Promise<Seen>;
}

interface Window {
  counts: Record<Outcome | "unsent", number>;
  times: ReturnType<typeof histogram>;
}
const newWindow = (): Window => ({ counts: { ok: 0, rejected: 0, unknown: 0, unsent: 0 }, times: histogram() });
const tallyOf = ({ counts, times }: Window): Tally => ({ requests: counts.ok + counts.rejected + counts.unknown, ...counts, p50Ms: times.at(0.5), p99Ms: times.at(0.99) });

/** Behind by more than this the generator itself stood still (a laptop that slept): it goes on from now. */
const behindMsMax = 1000;

/** How long the list of tenants may take. */
const refreshTimeoutMs = 10_000;

/** Sends traffic until it is stopped. @throws when the tenants cannot be read at the start, or the journal cannot be written */
export async function startLoad(options: LoadOptions): Promise<Load> {
  const { requestsPerSecond, readShare, inFlightMax, retry, warn } = options;
  const run = Date.now().toString(36) + randomBytes(3).toString("hex").slice(0, 4);
  const controller = new AbortController();
  let tenants = await options.tenants(controller.signal);
  const { target, addressing } = options;
  let broken: Error | null = null;
  const journal = options.journal && (await openJournal({ ...options.journal, head: { run, target, addressing }, onFailure: (error) => void (broken = error) }));
  const client: Client = openClient({ target, addressing, timeoutMs: options.timeoutMs, connectionsMax: inFlightMax });

  const startedMs = performance.now();
  const total = newWindow();
  let current = newWindow();
  const failures: Record<string, number> = {};
  const pause = pauses();
  const shoppers = new Map<string, Shopper>();
  const waiting = new Set<NodeJS.Timeout>();
  let inFlight = 0;
  let writesAcknowledged = 0;
  let nextNumber = 0;
  let drained: () => void = () => undefined;

  const count = (what: Outcome | "unsent"): void => {
    total.counts[what]++;
    current.counts[what]++;
  };

  function judge(tenant: string, dueMs: number, answer: Answer): Outcome {
    const nowMs = performance.now();
    const outcome = outcomeOf(answer);
    count(outcome);
    for (const { times } of [total, current]) times.add(nowMs - dueMs);
    if (outcome === "ok") {
      pause.succeeded(tenant, dueMs, nowMs);
    } else {
      pause.failed(tenant, dueMs);
      failures[answer.status] = (failures[answer.status] ?? 0) + 1;
    }
    return outcome;
  }

  async function send(tenant: string, dueMs: number): Promise<void> {
    if (inFlight >= inFlightMax) return count("unsent");
    inFlight++;
    const shopper = shoppers.get(tenant) ?? newShopper();
    shoppers.set(tenant, shopper);
    const move = nextMove(shopper, readShare, Math.random);
    const number = "read" in move ? null : nextNumber++;
    const operationId = number === null ? undefined : operationIdOf(run, number);
    const answer = await client.send(tenant, requestOf(move, operationId));
    inFlight--;
    const outcome = judge(tenant, dueMs, answer);
    if (number !== null) {
      journal?.record(number, tenant, outcome);
      if (outcome === "ok") writesAcknowledged++;
    }
    settle(shopper, move, outcome, answer.body as Parameters<typeof settle>[3], operationId ?? "");
    if (retry && outcome === "rejected" && answer.retryAfterSeconds !== null && !controller.signal.aborted) {
      const timer = setTimeout(() => {
        waiting.delete(timer);
        void send(tenant, performance.now());
      }, answer.retryAfterSeconds * 1000);
      waiting.add(timer);
    }
    if (inFlight === 0) drained();
  }

  let dueMs = startedMs;
  let ticking: NodeJS.Timeout;
  function tick(): void {
    const nowMs = performance.now();
    if (nowMs - dueMs > behindMsMax) dueMs = nowMs;
    for (; dueMs <= nowMs; dueMs += -Math.log(1 - Math.random()) * (1000 / requestsPerSecond)) {
      const tenant = tenants[Math.floor(Math.random() * tenants.length)];
      if (tenant !== undefined) void send(tenant, dueMs);
    }
    ticking = setTimeout(tick, Math.max(1, dueMs - nowMs));
  }
  tick();

  let reading = false;
  const refreshing = setInterval(async () => {
    // A control plane that hangs is asked by one call at a time.
    if (reading) return;
    reading = true;
    try {
      tenants = await options.tenants(AbortSignal.any([controller.signal, AbortSignal.timeout(refreshTimeoutMs)]));
      const names = new Set(tenants);
      for (const name of shoppers.keys()) if (!names.has(name)) shoppers.delete(name);
    } catch (error) {
      // The control plane may be down; its tenants are not.
      if (!controller.signal.aborted) warn(`the tenants could not be read, going on with ${tenants.length}: ${(error as Error).message}`);
    } finally {
      reading = false;
    }
  }, options.refreshMs);

  const seen = (): Seen => {
    const nowMs = performance.now();
    const { ms, tenant } = pause.longest(nowMs);
    return {
      run, seconds: (nowMs - startedMs) / 1000, tenants: tenants.length, inFlight, ...tallyOf(total), writesAcknowledged, failures: { ...failures }, longestPauseMs: ms, longestPauseTenant: tenant,
    };
  };

  return {
    run,
    seen,
    window() {
      const tally = tallyOf(current);
      current = newWindow();
      return tally;
    },
    async stop() {
      controller.abort();
      clearTimeout(ticking);
      clearInterval(refreshing);
      for (const timer of waiting) clearTimeout(timer);
      if (inFlight > 0) await new Promise<void>((resolve) => (drained = resolve));
      await journal?.end(nextNumber);
      client.close();
      if (broken) throw new Error(`the journal could not be written: ${broken.message}`);
      return seen();
    },
  };
}

function requestOf(move: Move, operationId: string | undefined): Request {
  if ("read" in move) return { method: "GET", path: { orders: "/orders?limit=20", balance: "/balance", events: "/events?limit=20" }[move.read] };
  const id = operationId ?? "";
  switch (move.write) {
    case "account":
      return { method: "POST", path: "/accounts", operationId: id, body: { name: id } };
    case "order":
      return { method: "POST", path: "/orders", operationId: id, body: { account: move.account, items: move.items } };
    case "amend":
      return { method: "PATCH", path: `/orders/${move.order}`, operationId: id, body: { items: move.items } };
    case "pay":
      return { method: "POST", path: `/orders/${move.order}/pay`, operationId: id };
    case "cancel":
      return { method: "DELETE", path: `/orders/${move.order}`, operationId: id };
  }
}
