import type { EventSink } from "../drivers/driver.ts";
import type { Tx } from "../store/model.ts";
import type { NewEvent } from "./store.ts";

/** PostgreSQL keeps no NUL and no half of a surrogate pair in text; what an engine's log may contain is replaced. */
const unstorable = /\0|\p{Surrogate}/gu;
const storable = (_: string, value: unknown): unknown => (typeof value === "string" ? value.replaceAll(unstorable, "\uFFFD") : value);

/** Writes what happened with the transaction that made it so: all of its events in one statement, at its commit. */
export function eventSink(insert: (tx: Tx, events: NewEvent[]) => Promise<void>): EventSink {
  return {
    emit: (tx, kind, subject, data) => tx.atCommit("events", { kind, subject, data: JSON.parse(JSON.stringify(data, storable)) as Record<string, unknown> }, insert),
  };
}
