import { setTimeout as sleep } from "node:timers/promises";
import { CellplaneError, errorKinds, fail } from "../base/errors.ts";
import type { Client } from "../http/client.ts";
import { getOperation } from "../workflow/api.ts";
import { isFinal, type Operation } from "../workflow/model.ts";
import type { Terminal } from "./command.ts";

export interface FollowOptions {
  terminal: Terminal;
  /** This command has started it, so that it is there, whether or not the control plane answers at first. */
  started: boolean;
  /** Null: as long as it takes. */
  timeoutMs: number | null;
  signal: AbortSignal;
}

/**
 * Shows an operation's progress until it is final. It runs on the server, whatever becomes of this process.
 * @throws CellplaneError operation_failed, operation_refused, operation_undone, operation_parked, wait_timed_out
 */
export async function follow(call: Client["call"], id: string, { terminal, started, timeoutMs, signal }: FollowOptions): Promise<Operation> {
  const progress = terminal.progress(id);
  const startMs = performance.now();
  let operation: Operation | null = null;
  let known = started;
  try {
    // Short at first, since many operations are; then once a second.
    for (let waitMs = 50; ; waitMs = Math.min(waitMs * 1.5, 1000)) {
      operation = await look(call, id, known, signal, progress.update);
      known = true;
      if (operation && isFinal(operation.state)) break;
      if (operation?.state === "parked") throw fail("operation_parked", { operation: id, message: operation.waitsFor ?? operation.message });
      const leftMs = timeoutMs === null ? Infinity : timeoutMs - (performance.now() - startMs);
      if (leftMs <= 0) throw fail("wait_timed_out", { operation: id, afterMs: performance.now() - startMs });
      await sleep(Math.min(waitMs, leftMs), undefined, { signal }).catch(() => undefined);
      signal.throwIfAborted();
    }
  } finally {
    progress.done(operation && isFinal(operation.state) ? `${id} ${operation.state}` : undefined);
  }
  return verdict(operation);
}

/** Null while the control plane is away: a known operation goes on when it is back. */
async function look(call: Client["call"], id: string, known: boolean, signal: AbortSignal, update: (ratio: number | null, message: string) => void): Promise<Operation | null> {
  try {
    const operation = await call(getOperation, { params: { operation: id } }, { signal });
    update(operation.ratio, operation.state === "running" ? operation.message : `${operation.state} ${operation.waitsFor ?? operation.message}`);
    return operation;
  } catch (error) {
    if (!known || !(error instanceof CellplaneError) || error.kind.http !== 503) throw error;
    update(null, `${error.message}; waiting for it`);
    return null;
  }
}

function verdict(operation: Operation): Operation {
  if (operation.state === "succeeded") return operation;
  const { code, message, fix } = operation.error ?? { code: "", message: operation.message, fix: "" };
  const about = { operation: operation.id, message, fix };
  if (operation.state === "undone") throw fail("operation_undone", about);
  const refused = Object.hasOwn(errorKinds, code) && errorKinds[code as keyof typeof errorKinds].exit === 8;
  throw refused ? fail("operation_refused", about) : fail("operation_failed", about);
}
