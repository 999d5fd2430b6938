import type { Logger } from "pino";
import type { ClaimStore } from "../claim/store.ts";
import type { IdempotencyStore } from "../http/store.ts";
import type { EventStore } from "../observe/store.ts";
import { trimRouteLog } from "../routing/store.ts";
import type { Store } from "../store/store.ts";

export interface HousekeepingDeps {
  store: Store;
  events: EventStore;
  claims: ClaimStore;
  idempotency: IdempotencyStore;
  log: Logger;
}

const everyMs = 60_000;
const batch = 5000;
const dayMs = 86_400_000;
const eventsKeptMs = 30 * dayMs;
const idempotencyKeptMs = dayMs;
/** A router further behind takes a snapshot. */
const routeVersionsKept = 100_000;

/**
 * Forgets, once a minute, what nobody will ask for again. Every instance does it; each batch is one statement that skips
 * what another one holds.
 *
 * @returns stops it
 */
export function housekeeping({ store, events, claims, idempotency, log }: HousekeepingDeps): () => void {
  const chores: [string, () => Promise<number>][] = [
    ["events", () => events.trim(eventsKeptMs, batch)],
    ["idempotency keys", () => idempotency.forget(idempotencyKeptMs, batch)],
    ["expired claims", () => claims.sweep(store, batch)],
    ["route log", async () => {
      await trimRouteLog(store, routeVersionsKept);
      return 0;
    }],
  ];
  let stopped = false;
  async function clean(): Promise<void> {
    for (const [what, chore] of chores) {
      try {
        while (!stopped && (await chore()) >= batch);
      } catch (error) {
        log.warn({ err: error }, `cleaning up ${what} failed; it is tried again`);
      }
    }
  }
  const timer = setInterval(() => void clean(), everyMs);
  return () => {
    stopped = true;
    clearInterval(timer);
  };
}
